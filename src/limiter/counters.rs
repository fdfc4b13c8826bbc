//! Counts of decisions, for operators.
//!
//! Each limit and each route has one set of [`Counters`] behind an `Arc`. A reload hands it on to limits and routes
//! that stay, so that counts start when the throttle is made. No decision reads them; only the snapshot and the metrics
//! do.
//!
//! # Callers
//!
//! The engine counts admitted and refused requests, `limiter/queue` waiting ones, `admission` answers without usage,
//! expired and refunded requests, and [`LimitSet`](super::limit_set::LimitSet) shadows; it also adds admitted requests to
//! its limits. `observe` reads the
//! counters.
//!
//! # Memory ordering
//!
//! Relaxed, except for the seats of threads: leaving one is a release and taking one an acquire, so that the next
//! thread adds to the counts of the last one. A counter orders no other memory. A reader may thus see a request in one
//! counter and not yet in another; sums over several counters agree only when no request is being decided.

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::missing_reason::MissingReason;
use crate::sync::AtomicU64 as SeatBits;

/// A number that many threads count up, from zero.
///
/// At one increment per nanosecond it would wrap after 584 years; there is no check.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts down. The caller has counted as much up before: below zero the number wraps.
    pub(crate) fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that many threads count up, each for itself. It only grows, from zero.
///
/// A thread has a [seat](Seats) for as long as it lives, and writes the number of its seat alone: without an exchange,
/// and in a line of memory that no other thread writes. Threads without a seat count together. Whoever reads sums up.
///
/// The counter is for events of every admitted request. It takes half a KiB, but only after it has counted to
/// [`FEW`](Self::FEW); until then all threads share one number.
#[derive(Debug, Default)]
pub(crate) struct ThreadCounter {
    /// The number that threads have counted together.
    few: AtomicU64,
    /// The numbers of the seats, and last that of all threads without one.
    counts: OnceLock<Box<[CountLine; Seats::COUNT + 1]>>,
    /// The part of the sum that was taken.
    taken: AtomicU64,
}

/// A number in a line of memory of its own. One line, where a [`Bucket`](super::bucket::Bucket) has two: a neighbour
/// that is fetched along costs a count less than twice the memory.
#[derive(Debug, Default)]
#[repr(align(64))]
struct CountLine(AtomicU64);

impl ThreadCounter {
    /// The number up to which threads count together, and a counter stays small: most undeclared routes are asked for
    /// rarely.
    const FEW: u64 = 64;

    /// Counts one.
    #[inline]
    pub(crate) fn count(&self) {
        let Some(counts) = self.counts.get() else {
            return self.count_together();
        };
        let seat = Seats::own();
        let CountLine(count) = &counts[seat];
        match seat {
            Seats::NONE => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody else writes it: who had the seat before has gone.
            _ => count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
        }
    }

    #[cold]
    fn count_together(&self) {
        if self.few.fetch_add(1, Ordering::Relaxed) >= Self::FEW {
            self.counts.get_or_init(Box::default);
        }
    }

    /// Returns what was counted since the last call. What is counted meanwhile is in exactly one of two calls, also if
    /// they run at the same time: sums grow, and each takes what is above the largest before it.
    pub(crate) fn take(&self) -> u64 {
        let counts = self
            .counts
            .get()
            .into_iter()
            .flat_map(|counts| counts.iter());
        let counts = counts.map(|CountLine(count)| count.load(Ordering::Relaxed));
        let sum = self.few.load(Ordering::Relaxed) + counts.sum::<u64>();
        let before = self.taken.fetch_max(sum, Ordering::Relaxed);
        sum.saturating_sub(before)
    }
}

/// The seats of threads that count: some threads of a process have one each, and the others have none.
///
/// A thread takes a seat when it first counts on a counter that has seats, and leaves it as it ends. Who takes the seat
/// next sees all that was counted there: to leave is a release, and to take an acquire.
#[derive(Debug)]
struct Seats {
    /// A bit for each seat that is free.
    free: SeatBits,
}

impl Seats {
    /// The most seats: more would take more memory in each counter.
    const COUNT: usize = 7;
    /// The number that threads without a seat have.
    const NONE: usize = Self::COUNT;

    fn new() -> Self {
        let free = SeatBits::new((1 << Self::COUNT) - 1);
        Self { free }
    }

    /// Takes a free seat. [`Seats::NONE`]: there is none.
    fn take(&self) -> usize {
        let mut free = self.free.load(Ordering::Relaxed);
        while free != 0 {
            let less = free & (free - 1);
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            match self
                .free
                .compare_exchange_weak(free, less, success, failure)
            {
                Ok(_) => return free.trailing_zeros() as usize,
                Err(seen) => free = seen,
            }
        }
        Self::NONE
    }

    fn leave(&self, seat: usize) {
        if seat < Self::COUNT {
            self.free.fetch_or(1 << seat, Ordering::Release);
        }
    }

    /// The seats of this process.
    fn of_process() -> &'static Self {
        static SEATS: OnceLock<Seats> = OnceLock::new();
        SEATS.get_or_init(Self::new)
    }

    /// Returns the seat of this thread, for as long as it lives.
    #[inline]
    fn own() -> usize {
        match SEAT.try_with(Cell::get).ok().flatten() {
            Some(seat) => seat,
            None => Self::take_own(),
        }
    }

    #[cold]
    fn take_own() -> usize {
        // A thread that ends has left its seat.
        let seat = TAKEN.try_with(|taken| taken.0).unwrap_or(Self::NONE);
        let _ = SEAT.try_with(|own| own.set(Some(seat)));
        seat
    }
}

thread_local! {
    /// The seat of this thread, once it has asked for one.
    static SEAT: Cell<Option<usize>> = const { Cell::new(None) };
    /// Leaves it as the thread ends.
    static TAKEN: TakenSeat = TakenSeat(Seats::of_process().take());
}

/// The seat that a thread has.
struct TakenSeat(usize);

impl Drop for TakenSeat {
    fn drop(&mut self) {
        // From here on, this thread counts without a seat.
        let _ = SEAT.try_with(|own| own.set(Some(Seats::NONE)));
        Seats::of_process().leave(self.0);
    }
}

/// Counts of requests that the rules could not identify as configured. One for all rules of a throttle.
#[derive(Debug, Default)]
pub(crate) struct Unidentified {
    /// Requests without the peer's address, where clients are identified by it. They share the anonymous client's
    /// limits.
    pub(crate) without_address: Counter,
    /// Requests for which a plan was named that is not declared. They have the limits of each client.
    pub(crate) unknown_plans: Counter,
    /// Requests whose model was not read. They have the limits of every model, or what the rules set for them.
    pub(crate) unread_models: Counter,
}

/// Counts of one limit or one route. All but `waiting` only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests to which it applied and that were admitted. Follows [`LimitSet::admitted`], from which
    /// [`LimitSet::settle`] moves the count here: until then it is behind.
    ///
    /// [`LimitSet::admitted`]: super::limit_set::LimitSet::admitted
    /// [`LimitSet::settle`]: super::limit_set::LimitSet::settle
    pub(crate) admitted: Counter,
    /// Requests among `admitted` that passed under an exempt limit set. Counted for routes alone: an exempt set has no
    /// limits.
    pub(crate) exempt: Counter,
    /// Requests among `admitted` that were charged to a second budget. Counted for routes alone.
    pub(crate) degraded: Counter,
    /// Requests that it refused, alone or with other limits; of a route, requests that any limit refused.
    pub(crate) refused: Counter,
    /// Requests that a shadow limit would have refused. On a route, one for each such limit.
    pub(crate) would_refuse: Counter,
    /// Entries into a wait queue for this limit. A request that moves to another queue counts once in each. Counted
    /// for limits alone.
    pub(crate) waited: Counter,
    /// Requests that were ended at the bound for which their handlers kept them. Counted for routes alone.
    pub(crate) expired: Counter,
    /// Requests whose failures were refunded.
    pub(crate) refunded: Counter,
    /// Answers whose usage was not read, by [`MissingReason`](super::missing_reason::MissingReason). Counted for routes
    /// alone.
    pub(crate) missing_usage: [Counter; MissingReason::ALL],
    /// Requests that wait for this limit now: the one count that falls again, when a `Waiter` is dropped or moves.
    pub(crate) waiting: Counter,
}

#[cfg(all(test, not(throttle_loom)))]
mod tests {
    use std::{
        sync::{Arc, Barrier},
        thread,
    };

    use super::*;

    /// More threads than seats, one after another and at the same time.
    #[test]
    fn each_request_is_counted_once_whichever_threads_come_and_go() {
        const THREADS: u64 = 20;
        const EACH: u64 = 20_000;
        let counter = Arc::new(ThreadCounter::default());
        let mut taken = 0;
        for round in 1..=5 {
            let barrier = Arc::new(Barrier::new(20));
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (counter, barrier) = (Arc::clone(&counter), Arc::clone(&barrier));
                    thread::spawn(move || {
                        // Each has its seat, or none, before one leaves.
                        counter.count();
                        barrier.wait();
                        (1..EACH).for_each(|_| counter.count());
                    })
                })
                .collect();
            // Beside the others: what is taken here is not told again.
            taken += counter.take();
            threads
                .into_iter()
                .for_each(|it| it.join().expect("no panic"));
            taken += counter.take();
            assert_eq!(taken, round * THREADS * EACH);
        }
        assert_eq!(counter.take(), 0);
    }

    #[test]
    fn no_two_have_a_seat_at_the_same_time() {
        let seats = Seats::new();
        let mut taken: Vec<_> = (0..Seats::COUNT).map(|_| seats.take()).collect();
        assert_eq!(seats.take(), Seats::NONE);
        seats.leave(Seats::NONE);
        assert_eq!(seats.take(), Seats::NONE, "nobody has left one");
        seats.leave(3);
        assert_eq!(seats.take(), 3);
        taken.sort_unstable();
        assert_eq!(taken, (0..Seats::COUNT).collect::<Vec<_>>());
    }
}

/// All interleavings of threads that take and leave seats. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    /// One seat alone is free, so that both threads want the same.
    #[test]
    fn loom_what_is_counted_in_a_seat_is_seen_by_whoever_takes_it_next() {
        loom::model(|| {
            let seats = Arc::new(Seats {
                free: SeatBits::new(1),
            });
            let counts = Arc::new([SeatBits::new(0), SeatBits::new(0)]);
            let count = {
                let (seats, counts) = (Arc::clone(&seats), Arc::clone(&counts));
                move || {
                    let seat = seats.take();
                    match seat {
                        Seats::NONE => {
                            counts[1].fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {
                            let count = counts[seat].load(Ordering::Relaxed);
                            counts[seat].store(count + 1, Ordering::Relaxed);
                        }
                    }
                    seats.leave(seat);
                }
            };
            let other = thread::spawn(count.clone());
            count();
            other.join().expect("no panic");
            let sum: u64 = counts.iter().map(|it| it.load(Ordering::Relaxed)).sum();
            assert_eq!(sum, 2);
        });
    }
}
