//! The pool: the room that kept bodies of all requests take together.
//!
//! A request takes room before it polls its body, in steps that double, so that it holds at most twice of what has
//! arrived, and [`FIRST_STEP`]. A thousand slow uploads that have sent little hold 16 MiB. If each took its whole length
//! up front, thirty of them would fill the pool, without a byte sent.
//!
//! # No deadlock
//!
//! Requests hold room while they wait for more. So [`single`](Bounds::single), the room of one largest body, is set
//! apart as the *reserve*, for one request at a time. The request that has waited the longest gets the reserve when it
//! is free: all its room then counts as the reserve's. From there:
//!
//! 1. The holder of the reserve never waits for room, since one body never needs more than the reserve. It waits for its
//!    client alone, and no longer than its deadline. So it ends to read.
//! 2. When it has read, it gives back the reserve as soon as the common room has place for what it keeps, and at the
//!    latest when what it keeps was handed on or dropped. Neither needs room.
//! 3. So the reserve becomes free again and again, and each time the longest wait ends. Those that wait are in the order
//!    of their tickets, so each comes to be the longest. ∎
//!
//! The client's share holds back requests of that client in the same way, and the reserve is beside the shares, too: the
//! same proof holds for them. A request without a deadline in the inner service may keep the reserve; those that wait
//! for room then go by what others give back.
//!
//! # Invariants
//!
//! - **Bounds.** The common room and the reserve are at most the pool together. A client holds at most its share of the
//!   common room, and the reserve.
//! - **First come, first served.** A request takes common room only if no older request waits for it. One whose client
//!   has used up its share lets others pass, but not those of the same client.
//! - **Each byte comes back once.** A [`Room`] knows what it holds, and gives it back when it is dropped: also a grant
//!   that it has not yet seen, and its place in the line.
//! - **No task runs under the lock.** Wakers are woken and dropped outside of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::sync::{Mutex, MutexGuard};

/// The room that a request takes first, in bytes. Most bodies without images or long conversations are smaller.
pub(super) const FIRST_STEP: usize = 16 * 1024;

/// The part of the pool that one client may hold.
const CLIENTS: usize = 8;

/// The bounds of a pool, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The room of all requests together, without the reserve.
    pub(super) common: usize,
    /// The part of the common room that one client holds.
    pub(super) share: usize,
    /// The room of one request, which is that of the reserve.
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
    held: usize,
    /// The clients that hold common room, or wait for their share.
    clients: HashMap<u128, ClientRoom>,
    /// All requests that wait, by their tickets, so in the order in which they came.
    line: BTreeMap<u64, RoomWaiter>,
    /// The tickets of those that wait for common room alone. Room of their clients' shares is taken already.
    cleared: BTreeSet<u64>,
    reserve: Option<Reserve>,
    next_ticket: u64,
}

/// The room of one client.
#[derive(Debug, Default)]
struct ClientRoom {
    held: usize,
    /// The tickets of those that wait for the client's share.
    line: BTreeSet<u64>,
}

/// A request that waits for room.
#[derive(Debug)]
struct RoomWaiter {
    client: Option<u128>,
    /// The common room that the request holds.
    held: usize,
    /// The room that it waits for.
    more: usize,
    waker: Waker,
}

/// The reserve while it is taken.
#[derive(Debug)]
struct Reserve {
    /// The ticket by which it was taken.
    ticket: u64,
    client: Option<u128>,
    held: usize,
    /// True if its request may need more room.
    reads: bool,
}

/// The room of one request. Gives back all of it when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    pool: Arc<Pool>,
    client: Option<u128>,
    /// The bytes held: common room, or the reserve's.
    held: usize,
    /// The ticket in the line, with the room that the request waits for.
    waits: Option<(u64, usize)>,
    /// The ticket by which the room became the reserve's, if it ever did.
    reserve: Option<u64>,
}

impl Pool {
    /// Makes an empty pool of `size` bytes, of which one request holds at most `single`.
    pub(super) fn new(size: usize, single: usize) -> Self {
        let single = single.min(size);
        let common = size - single;
        // An eighth with the reserve. Where one body takes most of an eighth, a sixteenth without it.
        let share = (size / CLIENTS)
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

    /// The bytes that are held at present.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let ledger = self.lock();
        ledger.held + ledger.reserve.as_ref().map_or(0, |reserve| reserve.held)
    }

    /// True if the pool knows of no request and no client.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let ledger = self.lock();
        let Ledger {
            held,
            clients,
            line,
            cleared,
            reserve,
            next_ticket: _,
        } = &*ledger;
        let waits = !line.is_empty() || !cleared.is_empty();
        *held == 0 && clients.is_empty() && !waits && reserve.is_none()
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

impl Ledger {
    /// Tells whether the client's share has room. A client that is not known has no share of its own.
    fn has_share(&self, client: Option<u128>, more: usize, bounds: &Bounds) -> bool {
        let held = client.and_then(|client| self.clients.get(&client));
        client.is_none() || held.map_or(0, |client| client.held) + more <= bounds.share
    }

    fn has_common(&self, more: usize, bounds: &Bounds) -> bool {
        self.held + more <= bounds.common
    }

    /// Tells whether a request that comes now need not wait: there is room, and nobody before it waits for that.
    fn is_free(&self, client: Option<u128>, more: usize, bounds: &Bounds) -> bool {
        let client_line = client.and_then(|client| self.clients.get(&client));
        let waits = client_line.is_some_and(|client| !client.line.is_empty());
        !waits
            && self.cleared.is_empty()
            && self.has_share(client, more, bounds)
            && self.has_common(more, bounds)
    }

    fn take_share(&mut self, client: Option<u128>, more: usize) {
        if let Some(client) = client {
            self.clients.entry(client).or_default().held += more;
        }
    }

    /// Gives back room of a client's share, and forgets a client that has nothing.
    fn return_share(&mut self, client: Option<u128>, less: usize, bounds: &Bounds) {
        let Some(name) = client else { return };
        if let Some(client) = self.clients.get_mut(&name) {
            client.held -= less;
        }
        self.clear(name, bounds);
    }

    /// Lets those of a client who wait for its share go on to wait for common room, as far as the share reaches.
    fn clear(&mut self, name: u128, bounds: &Bounds) {
        let Some(client) = self.clients.get_mut(&name) else {
            return;
        };
        while let Some(&ticket) = client.line.first() {
            let more = self.line.get(&ticket).map_or(0, |waiter| waiter.more);
            if client.held + more > bounds.share {
                return;
            }
            client.held += more;
            client.line.remove(&ticket);
            self.cleared.insert(ticket);
        }
        if client.held == 0 {
            self.clients.remove(&name);
        }
    }

    /// Puts a request at the end of the line.
    fn enter(&mut self, waiter: RoomWaiter, bounds: &Bounds) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        match waiter.client {
            Some(name) => {
                self.clients.entry(name).or_default().line.insert(ticket);
                self.line.insert(ticket, waiter);
                self.clear(name, bounds);
            }
            None => {
                self.line.insert(ticket, waiter);
                self.cleared.insert(ticket);
            }
        }
        ticket
    }

    /// Takes a request out of the line, with what it has of its client's share for the room that it waits for.
    fn leave(&mut self, ticket: u64, bounds: &Bounds) -> Option<RoomWaiter> {
        let waiter = self.line.remove(&ticket)?;
        let was_cleared = self.cleared.remove(&ticket);
        if let Some(client) = waiter.client.and_then(|name| self.clients.get_mut(&name)) {
            client.line.remove(&ticket);
        }
        let share = if was_cleared { waiter.more } else { 0 };
        self.return_share(waiter.client, share, bounds);
        Some(waiter)
    }

    /// Serves those in line as far as there is room, and returns their wakers.
    fn serve(&mut self, bounds: &Bounds) -> Vec<Waker> {
        let mut wakers = Vec::new();
        loop {
            self.free_reserve(bounds);
            while let Some(&ticket) = self.cleared.first() {
                let more = self.line.get(&ticket).map_or(0, |waiter| waiter.more);
                if !self.has_common(more, bounds) {
                    break;
                }
                // ## In line => holds common room
                self.held += more;
                self.cleared.remove(&ticket);
                wakers.extend(self.line.remove(&ticket).map(|waiter| waiter.waker));
            }
            match self.line.keys().next() {
                Some(&oldest) if self.reserve.is_none() => {
                    // ## In line => holds the reserve
                    wakers.extend(self.grant_reserve(oldest, bounds));
                }
                _ => return wakers,
            }
        }
    }

    /// Counts the room of a request that has read as common, if there is place.
    fn free_reserve(&mut self, bounds: &Bounds) {
        let has_place = |reserve: &Reserve| {
            !reserve.reads
                && self.has_common(reserve.held, bounds)
                && self.has_share(reserve.client, reserve.held, bounds)
        };
        if self.reserve.as_ref().is_some_and(has_place) {
            // ## Holds the reserve => holds common room
            if let Some(reserve) = self.reserve.take() {
                self.held += reserve.held;
                self.take_share(reserve.client, reserve.held);
            }
        }
    }

    /// Gives the reserve to a request in line. What it holds is the reserve's from then on.
    fn grant_reserve(&mut self, ticket: u64, bounds: &Bounds) -> Option<Waker> {
        let waiter = self.leave(ticket, bounds)?;
        self.held -= waiter.held;
        self.reserve = Some(Reserve {
            ticket,
            client: waiter.client,
            held: waiter.held + waiter.more,
            reads: true,
        });
        self.return_share(waiter.client, waiter.held, bounds);
        Some(waiter.waker)
    }

    /// The reserve, if it was taken by this ticket.
    fn reserve_of(&mut self, ticket: Option<u64>) -> Option<&mut Reserve> {
        let reserve = self.reserve.as_mut();
        reserve.filter(|reserve| Some(reserve.ticket) == ticket)
    }
}

impl Room {
    /// Makes the room of a request, which is empty.
    pub(super) fn new(pool: Arc<Pool>, client: Option<u128>) -> Self {
        Self {
            pool,
            client,
            held: 0,
            waits: None,
            reserve: None,
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
        if self.waits.is_none() && to > self.held {
            self.take_or_wait(to - self.held, cx);
        }
        let Some((ticket, _)) = self.waits else {
            return Poll::Ready(());
        };
        // Declared before the lock is taken, so that the waker before is dropped after it.
        let mut waker = cx.waker().clone();
        if let Some(waiter) = self.pool.lock().line.get_mut(&ticket) {
            mem::swap(&mut waiter.waker, &mut waker);
            return Poll::Pending;
        }
        self.accept();
        Poll::Ready(())
    }

    /// Takes room, or a place in the line.
    fn take_or_wait(&mut self, more: usize, cx: &Context<'_>) {
        let (client, held, ticket) = (self.client, self.held, self.reserve);
        let waits = self.pool.change(|ledger, bounds| {
            if let Some(reserve) = ledger.reserve_of(ticket) {
                reserve.held += more;
                return None;
            }
            if ledger.is_free(client, more, bounds) {
                ledger.held += more;
                ledger.take_share(client, more);
                return None;
            }
            let waiter = RoomWaiter {
                client,
                held,
                more,
                waker: cx.waker().clone(),
            };
            Some(ledger.enter(waiter, bounds))
        });
        match waits {
            Some(ticket) => self.waits = Some((ticket, more)),
            None => self.held += more,
        }
    }

    /// Accepts what was granted while the request was in line.
    fn accept(&mut self) {
        if let Some((ticket, more)) = self.waits.take() {
            self.held += more;
            if self.pool.lock().reserve_of(Some(ticket)).is_some() {
                self.reserve = Some(ticket);
            }
        }
    }

    /// Gives back all but `to` bytes.
    pub(super) fn shrink(&mut self, to: usize) {
        self.shrink_and(to, false);
    }

    /// Gives back all but `to` bytes, and never needs more.
    pub(super) fn settle(&mut self, to: usize) {
        self.shrink_and(to, true);
    }

    fn shrink_and(&mut self, to: usize, has_read: bool) {
        let less = self.held.saturating_sub(to);
        if less == 0 && !has_read {
            return;
        }
        let (client, ticket) = (self.client, self.reserve);
        self.held -= less;
        let held = self.held;
        self.pool.change(|ledger, bounds| {
            let Some(reserve) = ledger.reserve_of(ticket) else {
                ledger.held -= less;
                ledger.return_share(client, less, bounds);
                return;
            };
            reserve.held -= less;
            reserve.reads &= !has_read;
            if held == 0 && !reserve.reads {
                ledger.reserve = None;
            }
        });
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some((ticket, _)) = self.waits {
            let left = self
                .pool
                .change(|ledger, bounds| ledger.leave(ticket, bounds));
            match left {
                // It leaves the line, and its waker is dropped outside of the lock.
                Some(_) => self.waits = None,
                None => self.accept(),
            }
        }
        if self.held > 0 || self.reserve.is_some() {
            self.settle(0);
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
                self.room.settle(self.plot.keeps.min(self.room.held()));
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
                    prop_assert!(held_by(&actors, client) <= share + single);
                }
            }
            prop_assert!(pool.is_idle(), "{:?}", pool);
        }
    }

    #[test]
    fn a_share_is_an_eighth_or_one_body_more_than_a_sixteenth() {
        let table = [
            // (size, single, common, share)
            (6_400, 100, 6_300, 700),
            (6_400, 400, 6_000, 400),
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
