//! When questions to the store have waited for long enough.
//!
//! A timer for each would have to be told to the runtime's driver, which costs more than all the rest of a question.
//! So there is one task, alive while somebody waits, that sleeps_until until the first of them has waited for long enough.

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
    queue: Mutex<TimerQueue>,
    /// Somebody has come who waits for less than all others.
    earlier_deadline: Notify,
}

#[derive(Debug, Default)]
struct TimerQueue {
    wakers: BTreeMap<TimerKey, Waker>,
    next_number: u64,
    /// Until when the task sleeps_until, if there is one.
    sleeps_until: Option<Nanos>,
}

/// Whoever watches. Dropped before it has ended, others are to.
struct TimerTask(Option<Arc<Timers>>);

impl TimerTask {
    async fn run(mut self, clock: Clock) {
        while let Some(timers) = &self.0 {
            let Some(until) = timers.wake_due(clock.now()) else {
                self.0 = None;
                return;
            };
            let until = clock.instant(until);
            // Either is a reason to look again.
            let _ = timeout_at(until, timers.earlier_deadline.notified()).await;
        }
    }
}

impl Drop for TimerTask {
    fn drop(&mut self) {
        if let Some(timers) = self.0.take() {
            timers.abandon();
        }
    }
}

/// A deadline, and whose it is.
pub(super) type TimerKey = (Nanos, u64);

impl Timers {
    /// Wakes whoever this is at its deadline, or later. Says whether a task is to be spawned that [does](Self::run_task).
    pub(super) fn set(&self, key: &mut Option<TimerKey>, deadline: Nanos, waker: &Waker) -> bool {
        let mut queue = self.lock();
        let key = *key.get_or_insert_with(|| {
            queue.next_number += 1;
            (deadline, queue.next_number)
        });
        match queue.wakers.get_mut(&key) {
            Some(known) => known.clone_from(waker),
            None => {
                queue.wakers.insert(key, waker.clone());
            }
        }
        match queue.sleeps_until {
            None => {
                queue.sleeps_until = Some(deadline);
                true
            }
            Some(until) if deadline < until => {
                queue.sleeps_until = Some(deadline);
                self.earlier_deadline.notify_one();
                false
            }
            Some(_) => false,
        }
    }

    pub(super) fn cancel(&self, key: TimerKey) {
        self.lock().wakers.remove(&key);
    }

    /// Wakes all whose deadline has come, until nobody waits.
    pub(super) fn run_task(self: &Arc<Self>, clock: Clock) -> impl Future<Output = ()> + use<> {
        TimerTask(Some(Arc::clone(self))).run(clock)
    }

    /// Wakes those whose deadline has come, and says when the next one's does.
    fn wake_due(&self, now: Nanos) -> Option<Nanos> {
        let mut due = Vec::new();
        let mut queue = self.lock();
        while let Some(first) = queue.wakers.first_entry() {
            if first.key().0 > now {
                break;
            }
            due.push(first.remove());
        }
        let first = queue.wakers.keys().next();
        queue.sleeps_until = first.map(|(deadline, _)| *deadline);
        let until = queue.sleeps_until;
        drop(queue);
        // Outside of the lock, for nobody knows what a waker does.
        due.into_iter().for_each(Waker::wake);
        until
    }

    /// Nobody watches any more, for a runtime has ended: who waits still is to see to it.
    fn abandon(&self) {
        let mut queue = self.lock();
        queue.sleeps_until = None;
        let left = mem::take(&mut queue.wakers);
        drop(queue);
        left.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TimerQueue> {
        // Each step leaves it whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
