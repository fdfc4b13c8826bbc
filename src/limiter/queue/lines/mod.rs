//! The lines of all scopes.

mod line;

use std::{collections::HashMap, fmt, sync::PoisonError, task::Waker};

#[cfg(test)]
pub(super) use self::line::GRACE;
use self::line::WaitQueue;
pub(crate) use self::line::{QueueAhead, QueuePosition, Ticket};
use crate::{
    clock::Nanos,
    limiter::bound_limit::QueueId,
    sync::{AtomicU64, Mutex, Ordering},
};

/// All lines of a throttle.
pub(crate) struct WaitQueues {
    /// Places in all lines.
    waiting: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tickets: Ticket,
    lines: HashMap<QueueId, WaitQueue>,
}

impl Inner {
    /// Room for lines that is kept when nobody waits.
    const KEPT: usize = 64;

    /// Removes a line in which nobody stands.
    fn tidy(&mut self, id: QueueId) {
        if self.lines.get(&id).is_none_or(WaitQueue::is_empty) {
            self.lines.remove(&id);
            // What a crowd has needed is not kept.
            if self.lines.is_empty() && self.lines.capacity() > Self::KEPT {
                self.lines = HashMap::new();
            }
        }
    }
}

impl WaitQueues {
    pub(crate) fn new() -> Self {
        Self {
            waiting: AtomicU64::new(0),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Returns whether nobody waits anywhere.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Returns what stands in a line and is not passed over.
    pub(crate) fn ahead(&self, line: QueueId, now: Nanos) -> QueueAhead {
        self.on(line, now, |line| line.ahead()).unwrap_or_default()
    }

    /// Returns whether somebody stands in a line who came before a ticket and is not passed over.
    pub(crate) fn has_earlier(&self, line: QueueId, ticket: Ticket, now: Nanos) -> bool {
        let first = self.on(line, now, |line| line.first()).flatten();
        first.is_some_and(|first| first < ticket)
    }

    /// Enters a line until a deadline, at its end or with a ticket from another. `None` if there are `most` in it.
    pub(crate) fn join(
        &self,
        id: QueueId,
        ticket: Option<Ticket>,
        tokens: u64,
        most: usize,
        now: Nanos,
        deadline: Nanos,
    ) -> Option<Ticket> {
        // Removes those whose time is over.
        self.on(id, now, |_| ());
        let (ticket, wakers) = self.with(|inner| {
            if inner.lines.get(&id).map_or(0, WaitQueue::len) >= most {
                return None;
            }
            let ticket = ticket.unwrap_or_else(|| {
                inner.tickets += 1;
                inner.tickets
            });
            let line = inner.lines.entry(id).or_default();
            line.join(ticket, tokens, now, deadline);
            self.waiting.fetch_add(1, Ordering::AcqRel);
            Some((ticket, line.take_woken()))
        })?;
        wake(wakers);
        Some(ticket)
    }

    /// Asks for a turn: the holder of a place is here, and is to be woken by this waker.
    pub(crate) fn ask(
        &self,
        line: QueueId,
        ticket: Ticket,
        waker: &Waker,
        now: Nanos,
    ) -> QueuePosition {
        let place = self.on(line, now, |line| line.ask(ticket, waker, now));
        place.unwrap_or(QueuePosition::Gone)
    }

    /// Notes when the holder of a place asks again without being woken.
    pub(crate) fn expect(&self, id: QueueId, ticket: Ticket, due: Nanos) {
        self.with(|inner| {
            if let Some(line) = inner.lines.get_mut(&id) {
                line.expect(ticket, due);
            }
        });
    }

    /// Leaves a line. Whoever is first after that, and was not before, is woken.
    pub(crate) fn leave(&self, id: QueueId, ticket: Ticket, now: Nanos) {
        self.on(id, now, |line| line.leave(ticket, now));
    }

    /// Wakes the first of a line, after something of its scope came back.
    pub(crate) fn wake(&self, id: QueueId, now: impl FnOnce() -> Nanos) {
        if self.waiting.fetch_add(0, Ordering::AcqRel) == 0 {
            return;
        }
        let now = now();
        self.on(id, now, |line| line.wake(now));
    }

    /// Wakes the first of each line, for other limits hold.
    pub(crate) fn wake_all(&self, now: impl FnOnce() -> Nanos) {
        if self.waiting.fetch_add(0, Ordering::AcqRel) == 0 {
            return;
        }
        let now = now();
        let ids: Vec<_> = self.with(|inner| inner.lines.keys().copied().collect());
        for id in ids {
            self.on(id, now, |line| line.wake(now));
        }
    }

    /// Works on a line, after those who do not ask have been found. `None` if nobody stands in it.
    fn on<T>(&self, id: QueueId, now: Nanos, work: impl FnOnce(&mut WaitQueue) -> T) -> Option<T> {
        let (done, wakers) = self.with(|inner| {
            let line = inner.lines.get_mut(&id)?;
            let before = line.len();
            line.sweep(now);
            let done = work(line);
            let gone = before - line.len();
            if gone > 0 {
                self.waiting.fetch_sub(gone as u64, Ordering::AcqRel);
            }
            let wakers = line.take_woken();
            if line.is_empty() {
                inner.tidy(id);
            }
            Some((done, wakers))
        })?;
        wake(wakers);
        Some(done)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // No step of it can panic halfway.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut inner)
    }
}

/// Outside of the lock, for nobody knows what a waker does.
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
