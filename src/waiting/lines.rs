//! The lines of all scopes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::PoisonError,
    task::Waker,
};

use crate::sync::{AtomicU64, Mutex, Ordering};

/// The line of one scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LineId {
    /// Of the total or a route, by number.
    Scope(u64),
    /// Of a client, by the hash of its first bucket's key.
    Client(u64),
}

/// The place in the order of all that wait. Lower is earlier.
pub(crate) type Ticket = u64;

/// What stands before a request in a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) requests: u64,
    /// Model tokens that they ask for.
    pub(crate) tokens: u64,
}

/// All lines of a throttle.
pub(crate) struct Lines {
    waiting: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tickets: Ticket,
    lines: HashMap<LineId, Line>,
}

impl Inner {
    /// Room for lines that is kept when nobody waits.
    const KEPT: usize = 64;
}

#[derive(Default)]
struct Line {
    waiters: BTreeMap<Ticket, Waiter>,
    /// Of all of them. Wide enough for as many as there can be.
    tokens: u128,
}

struct Waiter {
    tokens: u64,
    waker: Option<Waker>,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self {
            waiting: AtomicU64::new(0),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Whether nobody waits anywhere.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// What stands in a line.
    pub(crate) fn ahead(&self, line: LineId) -> Ahead {
        self.with(|inner| match inner.lines.get(&line) {
            Some(line) => Ahead {
                requests: line.waiters.len() as u64,
                tokens: u64::try_from(line.tokens).unwrap_or(u64::MAX),
            },
            None => Ahead::default(),
        })
    }

    /// Whether somebody stands in a line who came before a ticket.
    pub(crate) fn has_earlier(&self, line: LineId, ticket: Ticket) -> bool {
        self.with(|inner| {
            let line = inner.lines.get(&line);
            let first = line.and_then(|line| line.waiters.keys().next());
            first.is_some_and(|&first| first < ticket)
        })
    }

    /// Enters a line, at its end or with a ticket from another. `None` if there are `most` in it.
    pub(crate) fn join(
        &self,
        line: LineId,
        ticket: Option<Ticket>,
        tokens: u64,
        most: usize,
    ) -> Option<Ticket> {
        self.with(|inner| {
            let standing = inner.lines.get(&line).map_or(0, |line| line.waiters.len());
            if standing >= most {
                return None;
            }
            let ticket = ticket.unwrap_or_else(|| {
                inner.tickets += 1;
                inner.tickets
            });
            let line = inner.lines.entry(line).or_default();
            line.tokens += u128::from(tokens);
            let waker = None;
            line.waiters.insert(ticket, Waiter { tokens, waker });
            self.waiting.fetch_add(1, Ordering::AcqRel);
            Some(ticket)
        })
    }

    /// Whether it is the first of its line. Says whom to wake when something changes.
    pub(crate) fn is_first(&self, line: LineId, ticket: Ticket, waker: &Waker) -> bool {
        self.with(|inner| {
            let Some(line) = inner.lines.get_mut(&line) else {
                return false;
            };
            if let Some(waiter) = line.waiters.get_mut(&ticket) {
                match &mut waiter.waker {
                    Some(known) => known.clone_from(waker),
                    unknown => *unknown = Some(waker.clone()),
                }
            }
            line.waiters.keys().next() == Some(&ticket)
        })
    }

    /// Leaves a line. The next is woken if it was the first.
    pub(crate) fn leave(&self, id: LineId, ticket: Ticket) {
        let next = self.with(|inner| {
            let line = inner.lines.get_mut(&id)?;
            let was_first = line.waiters.keys().next() == Some(&ticket);
            let waiter = line.waiters.remove(&ticket)?;
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            line.tokens -= u128::from(waiter.tokens);
            if line.waiters.is_empty() {
                inner.lines.remove(&id);
                // What a crowd has needed is not kept.
                if inner.lines.is_empty() && inner.lines.capacity() > Inner::KEPT {
                    inner.lines = HashMap::new();
                }
                return None;
            }
            line.first().filter(|_| was_first)
        });
        wake(next);
    }

    /// Wakes the first of a line, after something of its scope came back.
    pub(crate) fn wake(&self, line: LineId) {
        if self.waiting.fetch_add(0, Ordering::AcqRel) == 0 {
            return;
        }
        wake(self.with(|inner| inner.lines.get(&line)?.first()));
    }

    /// Wakes the first of each line, for other limits hold.
    pub(crate) fn wake_all(&self) {
        if self.waiting.fetch_add(0, Ordering::AcqRel) == 0 {
            return;
        }
        let firsts: Vec<_> = self.with(|inner| inner.lines.values().map(Line::first).collect());
        firsts.into_iter().for_each(wake);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // No step of it can panic halfway.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut inner)
    }
}

impl Line {
    fn first(&self) -> Option<Waker> {
        self.waiters.values().next()?.waker.clone()
    }
}

/// Outside of the lock, for nobody knows what a waker does.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("waiting", &self.waiting.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        task::{Wake, Waker},
    };

    use super::{Ahead, Inner, LineId, Lines, Ticket};

    const ROUTE: LineId = LineId::Scope(1);
    const CLIENT: LineId = LineId::Client(1);
    const NOBODYS: LineId = LineId::Client(2);

    /// How often it was woken.
    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wakers<const N: usize>() -> ([Arc<Woken>; N], [Waker; N]) {
        let woken = [(); N].map(|()| Arc::new(Woken::default()));
        let wakers = woken.clone().map(Waker::from);
        (woken, wakers)
    }

    fn counts(woken: &[Arc<Woken>]) -> Vec<u64> {
        woken
            .iter()
            .map(|woken| woken.0.load(Ordering::Relaxed))
            .collect()
    }

    #[test]
    fn a_line_knows_who_stands_in_it_and_what_they_ask_for() {
        let lines = Lines::new();
        let ahead = |requests, tokens| Ahead { requests, tokens };
        assert!(lines.is_empty());
        assert_eq!(lines.ahead(ROUTE), ahead(0, 0));
        let first = lines.join(ROUTE, None, 5, 2).expect("room for two");
        let second = lines.join(CLIENT, None, 1, 2).expect("a line of its own");
        let third = lines.join(ROUTE, None, 7, 2).expect("room for two");
        assert!(
            first < second && second < third,
            "in the order in which they came"
        );
        assert!(!lines.is_empty());
        assert_eq!(lines.ahead(ROUTE), ahead(2, 12));
        assert_eq!(lines.join(ROUTE, None, 9, 2), None);
        assert_eq!(lines.join(ROUTE, Some(second), 9, 2), None);
        assert_eq!(lines.ahead(ROUTE), ahead(2, 12), "as before");
        assert_eq!(lines.ahead(CLIENT), ahead(1, 1));

        lines.leave(ROUTE, first);
        assert_eq!(lines.ahead(ROUTE), ahead(1, 7));
        let moved = lines.join(ROUTE, Some(second), u64::MAX, 2);
        assert_eq!(moved, Some(second), "it keeps its ticket");
        assert_eq!(lines.ahead(ROUTE), ahead(2, u64::MAX));
        // Whoever has left leaves nothing behind.
        lines.leave(ROUTE, first);
        lines.leave(ROUTE, second);
        lines.leave(ROUTE, third);
        assert!(!lines.is_empty());
        lines.leave(CLIENT, second);
        assert!(lines.is_empty());
    }

    #[test]
    fn who_came_first_stands_before_the_others_wherever_it_has_stood() {
        let lines = Lines::new();
        let (_, [waker]) = wakers();
        let early = lines.join(CLIENT, None, 0, 9).expect("there is room");
        let late = lines.join(ROUTE, None, 0, 9).expect("there is room");
        assert!(lines.is_first(ROUTE, late, &waker));
        assert!(!lines.has_earlier(ROUTE, late), "itself is not earlier");
        assert!(!lines.has_earlier(ROUTE, early));
        assert!(lines.has_earlier(ROUTE, Ticket::MAX));
        assert!(lines.has_earlier(CLIENT, late));
        assert!(!lines.has_earlier(NOBODYS, Ticket::MAX));
        assert!(!lines.is_first(NOBODYS, early, &waker));

        lines.join(ROUTE, Some(early), 0, 9).expect("there is room");
        assert!(lines.has_earlier(ROUTE, late));
        assert!(!lines.is_first(ROUTE, late, &waker));
        assert!(lines.is_first(ROUTE, early, &waker));
    }

    #[test]
    fn who_is_first_is_woken_and_nobody_else() {
        let lines = Lines::new();
        let (woken, wakers) = wakers::<4>();
        // Three in one line, the last in another.
        let ids = [ROUTE, ROUTE, ROUTE, CLIENT];
        lines.wake(ROUTE);
        lines.wake_all();
        let tickets = ids.map(|id| lines.join(id, None, 0, 9).expect("there is room"));
        lines.wake(ROUTE);
        for (index, (id, ticket)) in ids.into_iter().zip(tickets).enumerate() {
            assert_eq!(lines.is_first(id, ticket, &wakers[index]), index % 3 == 0);
        }
        assert_eq!(
            counts(&woken),
            [0, 0, 0, 0],
            "nothing has come free since they asked"
        );
        lines.wake(ROUTE);
        assert_eq!(counts(&woken), [1, 0, 0, 0]);
        lines.wake(NOBODYS);
        assert_eq!(counts(&woken), [1, 0, 0, 0]);
        lines.wake_all();
        assert_eq!(counts(&woken), [2, 0, 0, 1]);
        lines.leave(ROUTE, tickets[1]);
        assert_eq!(
            counts(&woken),
            [2, 0, 0, 1],
            "the first is the same as before"
        );
        lines.leave(ROUTE, tickets[0]);
        assert_eq!(counts(&woken), [2, 0, 1, 1]);
        // Another task asks for it from now on.
        lines.is_first(ROUTE, tickets[2], &wakers[0]);
        lines.wake(ROUTE);
        assert_eq!(counts(&woken), [3, 0, 1, 1]);
    }

    #[test]
    fn what_a_crowd_has_needed_is_not_kept() {
        let lines = Lines::new();
        let capacity = || lines.with(|inner| inner.lines.capacity());
        let ticket = lines.join(ROUTE, None, 0, 9).expect("there is room");
        lines.leave(ROUTE, ticket);
        assert!(capacity() > 0, "what one has needed is");
        let crowd = (0..9_999).map(|client| {
            let line = LineId::Client(client);
            (line, lines.join(line, None, 0, 9).expect("there is room"))
        });
        let crowd: Vec<_> = crowd.collect();
        for (line, ticket) in crowd {
            assert!(capacity() > 9_998, "while somebody waits");
            lines.leave(line, ticket);
        }
        assert!(capacity() <= Inner::KEPT);
    }
}

/// All interleavings of who waits and who lets go. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering as Std},
        },
        task::{Wake, Waker},
    };

    use loom::thread;

    use super::*;
    use crate::{bucket::Bucket, history::History, meter::Meter};

    const LINE: LineId = LineId::Scope(0);

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Std::SeqCst);
        }
    }

    /// One slot, with a line in front of it.
    struct Place {
        lines: Lines,
        slot: Bucket,
        history: History,
    }

    fn slot() -> Meter {
        Meter::of_slots(1).expect("one")
    }

    impl Place {
        fn takes(&self) -> bool {
            let next = |state| slot().take(state, 0, 1).ok();
            self.slot
                .step(self.slot.load(), 0, &self.history, next)
                .is_ok()
        }

        fn frees(&self) {
            let next = |state| (state > 0).then(|| slot().refund(state, 1));
            let _ = self.slot.step(self.slot.load(), 0, &self.history, next);
            self.lines.wake(LINE);
        }

        /// One poll of a request in line: whether it has the slot now.
        fn turn(&self, ticket: Ticket, waker: &Waker) -> bool {
            let has = self.lines.is_first(LINE, ticket, waker) && self.takes();
            if has {
                self.lines.leave(LINE, ticket);
            }
            has
        }
    }

    fn model(work: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(work);
    }

    #[test]
    fn loom_a_slot_that_comes_free_while_somebody_queues_is_not_missed() {
        model(|| {
            let place = Arc::new(Place {
                lines: Lines::new(),
                slot: Bucket::full(0),
                history: History::new(None),
            });
            assert!(place.takes());
            let holder = {
                let place = Arc::clone(&place);
                thread::spawn(move || place.frees())
            };
            let flag = Arc::new(Flag::default());
            let waker = Waker::from(Arc::clone(&flag));
            let ticket = place.lines.join(LINE, None, 0, 9).expect("there is room");
            let has = place.turn(ticket, &waker);
            holder.join().expect("no panic");
            assert!(has || flag.0.load(Std::SeqCst), "asleep beside a free slot");
            assert!(has || place.turn(ticket, &waker), "woken in vain");
            assert!(place.lines.is_empty());
        });
    }

    #[test]
    fn loom_a_waiter_that_goes_away_passes_its_wake_up_on() {
        model(|| {
            let place = Arc::new(Place {
                lines: Lines::new(),
                slot: Bucket::full(0),
                history: History::new(None),
            });
            assert!(place.takes());
            let flags = [(); 2].map(|()| Arc::new(Flag::default()));
            let wakers = flags.clone().map(Waker::from);
            let tickets =
                [(); 2].map(|()| place.lines.join(LINE, None, 0, 9).expect("there is room"));
            for (ticket, waker) in tickets.iter().zip(&wakers) {
                assert!(!place.turn(*ticket, waker));
            }
            let holder = {
                let place = Arc::clone(&place);
                thread::spawn(move || place.frees())
            };
            let first = {
                let place = Arc::clone(&place);
                thread::spawn(move || place.lines.leave(LINE, tickets[0]))
            };
            holder.join().expect("no panic");
            first.join().expect("no panic");
            assert!(
                flags[1].0.load(Std::SeqCst),
                "it is the first now, and the slot is free"
            );
            assert!(place.turn(tickets[1], &wakers[1]));
            assert!(place.lines.is_empty());
        });
    }
}
