//! When questions to the store have waited for long enough.
//!
//! A timer for each would have to be told to the runtime's driver, which costs more than all the rest of a question.
//! So there is one task, alive while somebody waits, that sleeps until the first of them has waited for long enough.

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::Waker,
};

use tokio::{sync::Notify, time::timeout_at};

use crate::clock::{Clock, Nanos};

/// Who waits, by when that has lasted for long enough.
#[derive(Debug, Default)]
pub(super) struct Timers {
    waiting: Mutex<Waiting>,
    /// Somebody has come who waits for less than all others.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    wakers: BTreeMap<Key, Waker>,
    numbers: u64,
    /// Until when the task sleeps, if there is one.
    sleeps: Option<Nanos>,
}

/// Whoever watches. Dropped before it has ended, others are to.
struct TimerTask(Option<Arc<Timers>>);

impl TimerTask {
    async fn run(mut self, clock: Clock) {
        while let Some(deadlines) = &self.0 {
            let Some(until) = deadlines.next(clock.now()) else {
                self.0 = None;
                return;
            };
            let until = clock.instant(until);
            // Either is a reason to look again.
            let _ = timeout_at(until, deadlines.earlier.notified()).await;
        }
    }
}

impl Drop for TimerTask {
    fn drop(&mut self) {
        if let Some(deadlines) = self.0.take() {
            deadlines.abandon();
        }
    }
}

/// A deadline, and whose it is.
pub(super) type Key = (Nanos, u64);

impl Timers {
    /// Wakes whoever this is at its deadline, or later. Says whether a task is to be spawned that [does](Self::watch).
    pub(super) fn enter(&self, key: &mut Option<Key>, deadline: Nanos, waker: &Waker) -> bool {
        let mut waiting = self.lock();
        let key = *key.get_or_insert_with(|| {
            waiting.numbers += 1;
            (deadline, waiting.numbers)
        });
        match waiting.wakers.get_mut(&key) {
            Some(known) => known.clone_from(waker),
            None => {
                waiting.wakers.insert(key, waker.clone());
            }
        }
        match waiting.sleeps {
            None => {
                waiting.sleeps = Some(deadline);
                true
            }
            Some(until) if deadline < until => {
                waiting.sleeps = Some(deadline);
                self.earlier.notify_one();
                false
            }
            Some(_) => false,
        }
    }

    pub(super) fn leave(&self, key: Key) {
        self.lock().wakers.remove(&key);
    }

    /// Wakes all whose deadline has come, until nobody waits.
    pub(super) fn watch(self: &Arc<Self>, clock: Clock) -> impl Future<Output = ()> + use<> {
        TimerTask(Some(Arc::clone(self))).run(clock)
    }

    /// Wakes those whose deadline has come, and says when the next one's does.
    fn next(&self, now: Nanos) -> Option<Nanos> {
        let mut due = Vec::new();
        let mut waiting = self.lock();
        while let Some(first) = waiting.wakers.first_entry() {
            if first.key().0 > now {
                break;
            }
            due.push(first.remove());
        }
        let first = waiting.wakers.keys().next();
        waiting.sleeps = first.map(|(deadline, _)| *deadline);
        let until = waiting.sleeps;
        drop(waiting);
        // Outside of the lock, for nobody knows what a waker does.
        due.into_iter().for_each(Waker::wake);
        until
    }

    /// Nobody watches any more, for a runtime has ended: who waits still is to see to it.
    fn abandon(&self) {
        let mut waiting = self.lock();
        waiting.sleeps = None;
        let left = mem::take(&mut waiting.wakers);
        drop(waiting);
        left.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // Each step leaves it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
