//! The pool: the room that kept bodies of all requests take together.
//!
//! A request takes room before it polls its body, in steps that double, so that it holds at most twice of what has
//! arrived, and [`FIRST_STEP`]. A thousand slow uploads that have sent little hold 1 MiB. If each took its whole
//! length up front, thirty of them would fill the pool, without a byte sent.
//!
//! # No deadlock
//!
//! Requests hold room while they wait for more. So some room is set apart, in two places:
//!
//! - The *reserve* of the pool has [`single`](Bounds::single) bytes, the room of one largest body. It is held by one
//!   request at a time. If the common room is used up, the oldest request that waits for it gets the reserve.
//! - The *lane* of a client has as many bytes, beside the client's share of the common room. If the share is used up,
//!   the oldest request of the client that waits for it gets the lane, if that is free.
//!
//! All that the holder has counts as the reserve's, or in the lane. From there:
//!
//! 1. The holder of the reserve waits neither for the pool nor for its client's share. One body never needs more than
//!    the reserve. So it waits for bytes alone, no longer than its deadline, and ends to read.
//! 2. The reserve is given back as soon as the common room and its client's share have place for what is held, and at
//!    the latest when that was handed on or dropped, which needs no room. So the reserve becomes free again and again,
//!    and each time the oldest goes on that waits for common room. Those before a request are older, so they are no
//!    more than there were when it came, and each needs a few steps. So each that waits for common room goes on.
//! 3. The holder of a lane waits for common room alone, and goes on by 2. So it ends to read, and the lane becomes free
//!    in the same way. Each time the oldest goes on that waits for the share. So each that waits for a share goes on. ∎
//!
//! Only a request that was read and is kept by its handler may hold the reserve or a lane for as long as it likes.
//! Those that wait then go by what others give back, or until their time is over.
//!
//! # Invariants
//!
//! - **Bounds.** The common room and the reserve are at most the pool together. A client holds at most its share, its
//!   lane and the reserve.
//! - **First come, first served.** A request takes common room only if no older request waits for it. One that waits
//!   for its client's share lets requests of other clients pass, but none of its own client. So a client that has used
//!   up its share slows down itself alone.
//! - **Each byte comes back once.** The ledger knows what each request holds. A [`Room`] that is dropped gives it back,
//!   with a grant that was not seen yet and its place in the line.
//! - **No task runs under the lock.** Wakers are woken and dropped outside of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::sync::{Mutex, MutexGuard};

/// The room that a request takes first, in bytes, before any of its body has arrived: little, since heads cost their
/// senders nothing. Each further step doubles it.
pub(super) const FIRST_STEP: usize = 1024;

/// The part of the pool that one client may hold.
const CLIENTS: usize = 8;

/// The bounds of a pool, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The room of all requests together, without the reserve.
    pub(super) common: usize,
    /// The part of the common room that one client holds, without its lane.
    pub(super) share: usize,
    /// The room of one request, which is that of the reserve and of a lane.
    pub(super) single: usize,
}

/// The room for kept bodies, shared by all requests of a layer.
#[derive(Debug)]
pub(super) struct Pool {
    bounds: Bounds,
    ledger: Mutex<Ledger>,
}

/// The state of a pool.
#[derive(Debug, Default)]
struct Ledger {
    /// The common room that is taken.
    common: usize,
    /// The requests that hold room or wait for it, in the order in which they came.
    requests: BTreeMap<Number, Holding>,
    /// The clients that hold common room, or wait for their share.
    clients: HashMap<u128, ClientRoom>,
    /// The requests that wait for common room. Their steps are counted in the shares of their clients already.
    line: BTreeSet<Number>,
    /// The request that holds the reserve.
    reserve: Option<Number>,
    next: Number,
}

/// The number of a request, in the order in which requests come.
type Number = u64;

/// The room of one request.
#[derive(Debug)]
struct Holding {
    client: Option<u128>,
    held: usize,
    /// The step that it waits for. Zero: it does not wait.
    step: usize,
    place: RoomPlace,
    /// Woken when the step is granted.
    waker: Option<Waker>,
}

/// The place where the room of a request counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoomPlace {
    /// In the common room, and in the share of its client.
    Share,
    /// In the common room, beside the share of its client.
    Lane,
    /// Beside both.
    Reserve,
}

/// The room of one client.
#[derive(Debug, Default)]
struct ClientRoom {
    /// The share that is taken, with the steps of those that wait for common room.
    share: usize,
    /// The requests that wait for the share.
    line: BTreeSet<Number>,
    /// The request that holds the lane.
    lane: Option<Number>,
}

/// The room of one request, as the request holds it. Gives back all of it when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    pool: Arc<Pool>,
    client: Option<u128>,
    /// `None`: it has never asked for room.
    number: Option<Number>,
    /// The bytes that it knows to hold.
    held: usize,
    waits: bool,
}

impl Pool {
    /// Makes an empty pool of `size` bytes, of which one request holds at most `single`.
    pub(super) fn new(size: usize, single: usize) -> Self {
        let single = single.min(size);
        let common = size - single;
        // An eighth with lane and reserve. Where these take most of an eighth, a sixteenth without them.
        let share = (size / CLIENTS)
            .saturating_sub(single)
            .saturating_sub(single)
            .max(common / (2 * CLIENTS));
        Self {
            bounds: Bounds {
                common,
                share,
                single,
            },
            ledger: Mutex::default(),
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the ledger, serves those in line, and wakes them outside of the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger, &Bounds) -> T) -> T {
        let (changed, wakers) = {
            let mut ledger = self.lock();
            let changed = change(&mut ledger, &self.bounds);
            (changed, ledger.serve(&self.bounds))
        };
        wakers.into_iter().for_each(Waker::wake);
        changed
    }
}

#[cfg(test)]
impl Pool {
    /// The bytes that are held at present.
    pub(super) fn held(&self) -> usize {
        let ledger = self.lock();
        ledger.requests.values().map(|holding| holding.held).sum()
    }

    /// True if the pool knows of no request and no client.
    pub(super) fn is_idle(&self) -> bool {
        let ledger = self.lock();
        let Ledger {
            common,
            requests,
            clients,
            line,
            reserve,
            next: _,
        } = &*ledger;
        let is_empty = requests.is_empty() && clients.is_empty() && line.is_empty();
        *common == 0 && is_empty && reserve.is_none()
    }
}

impl Ledger {
    /// Enters a request, which holds nothing yet.
    fn enter(&mut self, client: Option<u128>) -> Number {
        let number = self.next;
        self.next += 1;
        let holding = Holding {
            client,
            held: 0,
            step: 0,
            place: RoomPlace::Share,
            waker: None,
        };
        self.requests.insert(number, holding);
        number
    }

    /// Lets a request wait for `step` bytes more. These may be granted as soon as those in line are served.
    fn ask(&mut self, number: Number, step: usize, bounds: &Bounds) {
        let Some(holding) = self.requests.get_mut(&number) else {
            return;
        };
        match (holding.place, holding.client) {
            (RoomPlace::Reserve, _) => holding.held += step,
            (RoomPlace::Share, Some(client)) => {
                holding.step = step;
                let client_room = self.clients.entry(client).or_default();
                client_room.line.insert(number);
                self.clear(Some(client), bounds);
            }
            (RoomPlace::Share | RoomPlace::Lane, _) => {
                holding.step = step;
                self.line.insert(number);
            }
        }
    }

    /// Lets requests that wait for the share of their client go on to wait for common room, as far as the share and the
    /// lane reach. Forgets a client that has nothing.
    fn clear(&mut self, client: Option<u128>, bounds: &Bounds) {
        let Some(name) = client else { return };
        let Some(client) = self.clients.get_mut(&name) else {
            return;
        };
        if let Some(holding) = client.lane.and_then(|lane| self.requests.get_mut(&lane)) {
            // A holder that waits for common room has asked for its step, too.
            let share = client.share + holding.held + holding.step;
            if share <= bounds.share {
                // ## Lane => share
                holding.place = RoomPlace::Share;
                (client.share, client.lane) = (share, None);
            }
        }
        while let Some(&oldest) = client.line.first() {
            let Some(holding) = self.requests.get_mut(&oldest) else {
                break;
            };
            if client.share + holding.step <= bounds.share {
                client.share += holding.step;
            } else if client.lane.is_none() {
                // ## Share => lane
                holding.place = RoomPlace::Lane;
                client.share -= holding.held;
                client.lane = Some(oldest);
            } else {
                break;
            }
            client.line.remove(&oldest);
            self.line.insert(oldest);
        }
        if client.share == 0 && client.lane.is_none() && client.line.is_empty() {
            self.clients.remove(&name);
        }
    }

    /// Serves those in line as far as there is room, and returns their wakers.
    fn serve(&mut self, bounds: &Bounds) -> Vec<Waker> {
        let mut wakers = Vec::new();
        self.free_reserve(bounds);
        while let Some(&oldest) = self.line.first() {
            let Some(holding) = self.requests.get_mut(&oldest) else {
                break;
            };
            if self.common + holding.step <= bounds.common {
                self.common += holding.step;
            } else if self.reserve.is_none() {
                self.take_reserve(oldest, bounds);
            } else {
                break;
            }
            self.line.remove(&oldest);
            if let Some(holding) = self.requests.get_mut(&oldest) {
                // ## Waits => holds
                holding.held += mem::take(&mut holding.step);
                wakers.extend(holding.waker.take());
            }
        }
        wakers
    }

    /// Gives the reserve to a request that waits for common room. All that it holds is the reserve's from then on.
    fn take_reserve(&mut self, number: Number, bounds: &Bounds) {
        let Some(holding) = self.requests.get_mut(&number) else {
            return;
        };
        // ## (Share | lane) => reserve
        let before = mem::replace(&mut holding.place, RoomPlace::Reserve);
        self.reserve = Some(number);
        self.common -= holding.held;
        let (client, counted) = (holding.client, holding.held + holding.step);
        self.leave_client(client, before, counted);
        self.clear(client, bounds);
    }

    /// Takes room out of the share of its client, or frees the lane.
    fn leave_client(&mut self, client: Option<u128>, place: RoomPlace, counted: usize) {
        if let Some(client) = client.and_then(|name| self.clients.get_mut(&name)) {
            match place {
                RoomPlace::Share => client.share -= counted,
                RoomPlace::Lane => client.lane = None,
                RoomPlace::Reserve => {}
            }
        }
    }

    /// Counts what the holder of the reserve has as common, if there is place.
    fn free_reserve(&mut self, bounds: &Bounds) {
        let number = self.reserve;
        let Some(holding) = number.and_then(|number| self.requests.get_mut(&number)) else {
            return;
        };
        let client = holding.client.filter(|_| holding.held > 0);
        let share = client.and_then(|name| self.clients.get(&name));
        let share = share.map_or(0, |client| client.share) + holding.held;
        let has_share = client.is_none() || share <= bounds.share;
        if has_share && self.common + holding.held <= bounds.common {
            // ## Reserve => share
            holding.place = RoomPlace::Share;
            self.common += holding.held;
            self.reserve = None;
            if let Some(client) = client {
                self.clients.entry(client).or_default().share = share;
            }
        }
    }

    /// Gives back `less` bytes.
    fn give_back(&mut self, number: Number, less: usize, bounds: &Bounds) {
        let Some(holding) = self.requests.get_mut(&number) else {
            return;
        };
        holding.held -= less;
        let (client, place) = (holding.client, holding.place);
        if place != RoomPlace::Reserve {
            self.common -= less;
        }
        if place == RoomPlace::Share {
            self.leave_client(client, place, less);
        }
        self.clear(client, bounds);
    }

    /// Removes a request, wherever it stands. Gives back what it holds, and returns its waker.
    fn leave(&mut self, number: Number, bounds: &Bounds) -> Option<Waker> {
        let holding = self.requests.remove(&number)?;
        let Holding {
            client,
            held,
            step,
            place,
            waker,
        } = holding;
        let was_cleared = self.line.remove(&number);
        if let Some(client) = client.and_then(|name| self.clients.get_mut(&name)) {
            client.line.remove(&number);
        }
        self.leave_client(client, place, held + if was_cleared { step } else { 0 });
        match place {
            RoomPlace::Share | RoomPlace::Lane => self.common -= held,
            RoomPlace::Reserve => self.reserve = None,
        }
        self.clear(client, bounds);
        waker
    }
}

impl Room {
    /// Makes the room of a request, which is empty. Its place among others is that of its first step.
    pub(super) fn new(pool: Arc<Pool>, client: Option<u128>) -> Self {
        Self {
            pool,
            client,
            number: None,
            held: 0,
            waits: false,
        }
    }

    /// The bytes held, as far as the request knows.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Polls until the room is `to` bytes. While it waits, only the first `to` counts. Dropping the room gives up the
    /// place in line.
    pub(super) fn poll_grow(&mut self, to: usize, cx: &mut Context<'_>) -> Poll<()> {
        debug_assert!(
            to <= self.pool.bounds.single,
            "more than one request may hold"
        );
        let step = to.saturating_sub(self.held);
        if !self.waits && step > 0 {
            let (number, client) = (self.number, self.client);
            let number = self.pool.change(|ledger, bounds| {
                let number = number.unwrap_or_else(|| ledger.enter(client));
                ledger.ask(number, step, bounds);
                number
            });
            (self.number, self.waits) = (Some(number), true);
        }
        self.poll_grant(cx)
    }

    /// Polls until the step was granted that was asked for, if any was.
    fn poll_grant(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(number) = self.number.filter(|_| self.waits) else {
            return Poll::Ready(());
        };
        // Dropped after the lock is free.
        let mut before = None;
        if let Some(holding) = self.pool.lock().requests.get_mut(&number) {
            if holding.step > 0 {
                before = holding.waker.replace(cx.waker().clone());
            } else {
                self.waits = false;
                self.held = holding.held;
            }
        }
        drop(before);
        match self.waits {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    /// Gives back all but `to` bytes.
    pub(super) fn shrink(&mut self, to: usize) {
        let less = self.held.saturating_sub(to);
        let Some(number) = self.number.filter(|_| less > 0) else {
            return;
        };
        self.held -= less;
        self.pool
            .change(|ledger, bounds| ledger.give_back(number, less, bounds));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self
                .pool
                .change(|ledger, bounds| ledger.leave(number, bounds));
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::atomic::{AtomicBool, Ordering},
        task::Wake,
    };

    use proptest::prelude::*;

    use super::*;

    /// A task that is polled only if it was woken.
    #[derive(Debug, Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// A request that grows in steps, keeps some of its room for some turns, and gives it back in two parts.
    #[derive(Debug, Clone)]
    struct Plot {
        client: Option<u128>,
        steps: Vec<usize>,
        keeps: usize,
        turns: usize,
        /// The turn at which it is dropped, wherever it stands.
        dropped: Option<usize>,
    }

    struct Actor {
        plot: Plot,
        room: Room,
        woken: Arc<Woken>,
        age: usize,
        has_read: bool,
    }

    const SINGLE: usize = 100;

    fn plot() -> impl Strategy<Value = Plot> {
        let client = prop_oneof![Just(None), (0..3_u128).prop_map(Some)];
        let steps = prop::collection::vec(1..=SINGLE, 1..6);
        let dropped = prop_oneof![3 => Just(None), 1 => (0..12_usize).prop_map(Some)];
        (client, steps, 0..=SINGLE, 0..5_usize, dropped).prop_map(
            |(client, mut steps, keeps, turns, dropped)| {
                steps.sort_unstable();
                Plot {
                    client,
                    steps,
                    keeps,
                    turns,
                    dropped,
                }
            },
        )
    }

    impl Actor {
        fn new(plot: Plot, pool: &Arc<Pool>) -> Self {
            Self {
                room: Room::new(Arc::clone(pool), plot.client),
                plot,
                woken: Arc::new(Woken(AtomicBool::new(true))),
                age: 0,
                has_read: false,
            }
        }

        /// Goes on if it was woken. Returns whether it has done something, and whether it has ended.
        fn act(&mut self) -> (bool, bool) {
            if self.plot.dropped.is_some_and(|dropped| self.age >= dropped) {
                return (true, true);
            }
            if !self.woken.0.swap(false, Ordering::Relaxed) {
                return (false, false);
            }
            self.age += 1;
            let waker = Waker::from(Arc::clone(&self.woken));
            if let Some(&step) = self.plot.steps.first() {
                if self
                    .room
                    .poll_grow(step, &mut Context::from_waker(&waker))
                    .is_pending()
                {
                    return (true, false);
                }
                assert!(self.room.held() >= step);
                self.plot.steps.remove(0);
            } else if !self.has_read {
                self.has_read = true;
                self.room.shrink(self.plot.keeps);
            } else if self.plot.turns > 0 {
                self.plot.turns -= 1;
                self.room
                    .shrink(self.room.held() / 2 * self.plot.turns.min(2));
            } else {
                return (true, true);
            }
            self.woken.0.store(true, Ordering::Relaxed);
            (true, false)
        }
    }

    /// Tells what each client holds, as the requests know.
    fn held_by(actors: &VecDeque<Actor>, client: u128) -> usize {
        let own = actors
            .iter()
            .filter(|actor| actor.plot.client == Some(client));
        own.map(|actor| actor.room.held()).sum()
    }

    proptest! {
        #![proptest_config(crate::cases::cases(1_024))]

        /// Nobody stands still while all others do, nobody gets more than the bounds, and all comes back.
        #[test]
        fn all_come_to_their_end_within_the_bounds(
            plots in prop::collection::vec(plot(), 1..40),
            size in SINGLE..20 * SINGLE,
        ) {
            let pool = Arc::new(Pool::new(size, SINGLE));
            let Bounds { common, share, single } = pool.bounds();
            let mut actors: VecDeque<_> =
                plots.into_iter().map(|plot| Actor::new(plot, &pool)).collect();
            let mut idle = 0;
            while let Some(mut actor) = actors.pop_front() {
                let (acts, has_ended) = actor.act();
                idle = if acts { 0 } else { idle + 1 };
                if !has_ended {
                    actors.push_back(actor);
                }
                prop_assert!(idle <= actors.len(), "they stand still");
                let known: usize = actors.iter().map(|actor| actor.room.held()).sum();
                prop_assert!(known <= pool.held(), "{known} of {}", pool.held());
                prop_assert!(pool.held() <= common + single && common + single <= size);
                for client in 0..3 {
                    prop_assert!(held_by(&actors, client) <= share + 2 * single);
                }
            }
            prop_assert!(pool.is_idle(), "{:?}", pool);
        }
    }

    /// A pool of 24 rooms of 100 bytes, of which a client's share is one.
    fn pool() -> Arc<Pool> {
        Arc::new(Pool {
            bounds: Bounds {
                common: 2_300,
                share: 100,
                single: SINGLE,
            },
            ledger: Mutex::default(),
        })
    }

    /// Asks for room. Returns it, and whether it is there.
    fn ask(pool: &Arc<Pool>, client: Option<u128>, bytes: usize) -> (Room, bool) {
        let mut room = Room::new(Arc::clone(pool), client);
        let has = has(&mut room, bytes);
        (room, has)
    }

    fn has(room: &mut Room, bytes: usize) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        room.poll_grow(bytes, &mut cx).is_ready()
    }

    #[test]
    fn requests_of_one_client_are_served_in_their_order() {
        let pool = pool();
        let (mut share, has_share) = ask(&pool, Some(1), 100);
        let (lane, has_lane) = ask(&pool, Some(1), 100);
        let (mut third, has_third) = ask(&pool, Some(1), 100);
        let (mut fourth, has_fourth) = ask(&pool, Some(1), 100);
        assert!(has_share && has_lane && !has_third && !has_fourth);
        drop(lane);
        assert!(!has(&mut fourth, 100) && has(&mut third, 100), "the lane");
        share.shrink(1);
        assert!(!has(&mut fourth, 100), "not enough");
        share.shrink(0);
        assert!(has(&mut fourth, 100), "the share");
        drop((share, third, fourth));
        assert!(pool.is_idle());
    }

    #[test]
    fn a_lane_is_free_as_soon_as_the_share_has_place() {
        let pool = pool();
        let (mut share, _) = ask(&pool, Some(1), 100);
        let (mut lane, _) = ask(&pool, Some(1), 100);
        let (mut third, has_third) = ask(&pool, Some(1), 100);
        assert!(!has_third);
        lane.shrink(40);
        share.shrink(60);
        assert!(has(&mut third, 100));
        drop((share, lane, third));
        assert!(pool.is_idle());
    }

    #[test]
    fn the_reserve_is_free_as_soon_as_the_common_room_has_place() {
        let pool = Arc::new(Pool::new(300, SINGLE));
        let (mut first, _) = ask(&pool, None, 100);
        let (second, _) = ask(&pool, None, 100);
        let (mut reserve, has_reserve) = ask(&pool, None, 100);
        let (mut last, has_last) = ask(&pool, None, 100);
        assert!(has_reserve && !has_last);
        reserve.shrink(40);
        first.shrink(60);
        assert!(has(&mut last, 100));
        drop((first, second, reserve, last));
        assert!(pool.is_idle());
    }

    /// One of a client has the reserve, so that the next has the lane and waits for common room alone.
    #[test]
    fn a_client_goes_on_beside_the_reserve() {
        let pool = pool();
        let mut others: Vec<_> = (0..22).map(|_| ask(&pool, None, 100).0).collect();
        let (first, _) = ask(&pool, Some(1), 60);
        let (stranger, has_reserve) = ask(&pool, None, 60);
        let (mut second, has_second) = ask(&pool, Some(1), 60);
        let (mut third, has_third) = ask(&pool, Some(1), 60);
        assert!(has_reserve && !has_second && !has_third);
        drop(stranger);
        assert!(has(&mut second, 60) && !has(&mut third, 60), "the reserve");
        others.pop();
        assert!(has(&mut third, 60), "common room, in the lane");
        drop((others, first, second, third));
        assert!(pool.is_idle());
    }

    #[test]
    fn a_client_has_an_eighth_or_a_sixteenth_and_two_bodies() {
        let table = [
            // (size, single, common, share)
            (6_400, 100, 6_300, 600),
            (6_400, 400, 6_000, 375),
            (6_400, 800, 5_600, 350),
            (6_400, 6_400, 0, 0),
            (100, 6_400, 0, 0),
        ];
        for (size, single, common, share) in table {
            let bounds = Pool::new(size, single).bounds();
            assert_eq!(
                (bounds.common, bounds.share),
                (common, share),
                "{size}, {single}"
            );
        }
    }
}
