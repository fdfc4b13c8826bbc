//! Wait queues of all scopes of a throttle, under one lock.
//!
//! A queue is found by its [`QueueId`], and exists only while requests wait in it. [`wait_queue`] has the order within
//! one; this file has the tickets, the lock, and the count that saves other requests the lock.
//!
//! # Invariants
//!
//! - `waiting` is the number of places in all queues, and changes only under the lock. If it is zero, `ahead`,
//!   `has_earlier` and `wake` have nothing to find.
//! - Tickets are given once, in the order of arrival, and kept when a request moves: over all queues, the lower ticket
//!   came first. A request that moves holds two places, in two queues, for the moment between `join` and `leave`.
//! - Each look at a queue sweeps it first (`expect` apart), so that a place that holds up others is found; no task
//!   looks for it.
//! - Each place that is entered is left, by `leave` or by a sweep after its deadline; leaving twice, or after the
//!   sweep, is nothing.
//!
//! # Locks
//!
//! One mutex for all queues: it is taken only while requests wait, and held for a step in one queue. Inside, wakers are
//! cloned, the clock is not read and no balance is touched; wakers are woken outside of it, and may try again at once.
//!
//! # Memory ordering
//!
//! A waiting request adds to `waiting` and then looks at the limits; a thread that frees a unit gives it back and then
//! looks at `waiting`. Both use a read-modify-write with acquire and release (`wake` adds zero), so that the two are in
//! one order, and either the former sees the unit or the latter sees the waiter. With plain loads, each could miss the
//! other. [`WaitQueues::is_empty`] is one, with acquire: a newcomer that misses a request entering at that moment came
//! at the same time.
//!
//! # Callers
//!
//! `limiter/queue/waiter` for all that enters, asks and leaves; [`Limiter::refund`](crate::limiter::Limiter::refund)
//! and reloads to wake; the engine asks whether anybody waits.

mod wait_queue;

use std::{collections::HashMap, fmt, sync::PoisonError, task::Waker};

#[cfg(test)]
pub(super) use self::wait_queue::GRACE;
use self::wait_queue::WaitQueue;
pub(crate) use self::wait_queue::{QueueAhead, QueuePosition, QueueTicket, QueueUnits};
use crate::{
    clock::Nanos,
    limiter::limit_set::QueueId,
    sync::{AtomicU64, Mutex, Ordering},
};

/// The wait queues of a throttle, by scope and client.
pub(crate) struct WaitQueues {
    /// The number of places in all queues; see the head of this file for its ordering.
    waiting: AtomicU64,
    inner: Mutex<Inner>,
}

/// The part of [`WaitQueues`] under the lock.
#[derive(Default)]
struct Inner {
    /// The last ticket that was given. The first is 1.
    tickets: QueueTicket,
    /// No queue in it is empty once the lock is released.
    queues: HashMap<QueueId, WaitQueue>,
}

impl Inner {
    /// The most room in the map that is kept when nobody waits.
    const KEPT: usize = 64;

    /// Removes a queue if nobody stands in it.
    fn tidy(&mut self, id: QueueId) {
        if self.queues.get(&id).is_none_or(WaitQueue::is_empty) {
            self.queues.remove(&id);
            // The memory that a crowd has needed is not kept.
            if self.queues.is_empty() && self.queues.capacity() > Self::KEPT {
                self.queues = HashMap::new();
            }
        }
    }
}

impl WaitQueues {
    /// No queues, which need no memory until somebody waits.
    pub(crate) fn new() -> Self {
        Self {
            waiting: AtomicU64::new(0),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Returns whether nobody waits anywhere, without the lock: all that a request pays for queues while they are
    /// empty.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Returns the requests in a queue that are not passed over, and the units that they ask for: what a newcomer
    /// would wait behind. Zero without a queue.
    pub(crate) fn ahead(&self, queue: QueueId, now: Nanos) -> QueueAhead {
        self.on(queue, now, |queue| queue.ahead())
            .unwrap_or_default()
    }

    /// Returns whether somebody stands in a queue who came before a ticket and is not passed over. `QueueTicket::MAX`
    /// asks for anybody.
    pub(crate) fn has_earlier(&self, queue: QueueId, ticket: QueueTicket, now: Nanos) -> bool {
        let first = self.on(queue, now, |queue| queue.first()).flatten();
        first.is_some_and(|first| first < ticket)
    }

    /// Enters a queue until a deadline, with a new ticket at its end, or with one from another queue where that
    /// belongs. Returns the ticket; `None`, with nothing changed, if `most` places are taken.
    ///
    /// Places that are passed over count among `most`. `units` are what the request asks of the queue's limits.
    /// The position is not returned: that is [`WaitQueues::ask`], which also leaves the waker.
    pub(crate) fn join(
        &self,
        id: QueueId,
        ticket: Option<QueueTicket>,
        units: QueueUnits,
        most: usize,
        now: Nanos,
        deadline: Nanos,
    ) -> Option<QueueTicket> {
        // Removes those whose time is over.
        self.on(id, now, |_| ());
        let (ticket, wakers) = self.with(|inner| {
            if inner.queues.get(&id).map_or(0, WaitQueue::len) >= most {
                return None;
            }
            let ticket = ticket.unwrap_or_else(|| {
                inner.tickets += 1;
                inner.tickets
            });
            let queue = inner.queues.entry(id).or_default();
            queue.join(ticket, units, now, deadline);
            self.waiting.fetch_add(1, Ordering::AcqRel);
            Some((ticket, queue.take_woken()))
        })?;
        wake(wakers);
        Some(ticket)
    }

    /// Asks for a turn: notes that the holder of a place is here, and is to be woken by this waker, which replaces the
    /// one before. `Gone` if the place was swept away.
    ///
    /// Called before the limits are looked at, so that what comes free after the look wakes.
    pub(crate) fn ask(
        &self,
        queue: QueueId,
        ticket: QueueTicket,
        waker: &Waker,
        now: Nanos,
    ) -> QueuePosition {
        let place = self.on(queue, now, |queue| queue.ask(ticket, waker, now));
        place.unwrap_or(QueuePosition::Gone)
    }

    /// Notes the moment by which the holder of a place asks again without being woken: until
    /// [`GRACE`](wait_queue::GRACE) after it, nobody passes it over, unless it was woken.
    pub(crate) fn expect(&self, id: QueueId, ticket: QueueTicket, due: Nanos) {
        self.with(|inner| {
            if let Some(queue) = inner.queues.get_mut(&id) {
                queue.expect(ticket, due);
            }
        });
    }

    /// Leaves a queue, admitted or not. A holder that is first after that, and was not before, is woken.
    pub(crate) fn leave(&self, id: QueueId, ticket: QueueTicket, now: Nanos) {
        self.on(id, now, |queue| queue.leave(ticket, now));
    }

    /// Wakes the first of a queue, after something of its scope came back. Nobody is admitted by this: it asks again.
    ///
    /// `now` is read only if somebody waits.
    pub(crate) fn wake(&self, id: QueueId, now: impl FnOnce() -> Nanos) {
        if self.waiting.fetch_add(0, Ordering::AcqRel) == 0 {
            return;
        }
        let now = now();
        self.on(id, now, |queue| queue.wake(now));
    }

    /// Wakes the first of each queue: other rules hold, or something came back to queues that are not known.
    ///
    /// Queue by queue, with the lock released between: one that is made meanwhile need not be woken.
    pub(crate) fn wake_all(&self, now: impl FnOnce() -> Nanos) {
        if self.waiting.fetch_add(0, Ordering::AcqRel) == 0 {
            return;
        }
        let now = now();
        let ids: Vec<_> = self.with(|inner| inner.queues.keys().copied().collect());
        for id in ids {
            self.on(id, now, |queue| queue.wake(now));
        }
    }

    /// Sweeps a queue at `now`, works on it, and wakes whom either has woken, once the lock is released. `None` if
    /// there is no such queue. The one place that takes places off `waiting`.
    fn on<T>(&self, id: QueueId, now: Nanos, work: impl FnOnce(&mut WaitQueue) -> T) -> Option<T> {
        let (done, wakers) = self.with(|inner| {
            let queue = inner.queues.get_mut(&id)?;
            let before = queue.len();
            queue.sweep(now);
            let done = work(queue);
            let gone = before - queue.len();
            if gone > 0 {
                self.waiting.fetch_sub(gone as u64, Ordering::AcqRel);
            }
            let wakers = queue.take_woken();
            if queue.is_empty() {
                inner.tidy(id);
            }
            Some((done, wakers))
        })?;
        wake(wakers);
        Some(done)
    }

    /// Works under the lock. `work` wakes nobody.
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // No step of it can panic halfway.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut inner)
    }
}

/// Wakes outside of the lock: nobody knows what a waker does.
fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl fmt::Debug for WaitQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueues")
            .field("waiting", &self.waiting.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

#[cfg(all(test, throttle_loom))]
mod loom_tests;
