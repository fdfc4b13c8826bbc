//! Deadlines of calls to the store, and of requests that wait for a lease.
//!
//! Calls are answered long before their deadlines, as a rule. A timer of the runtime for each would cost more than all
//! the rest of a call: an entry in the driver, and a wake-up of it. So all deadlines of a store client lie in one
//! ordered map, and one task, alive while there are any, sleeps until the first of them.
//!
//! # Invariants
//!
//! - **A task while there are entries.** `sleeps_until` is `Some` exactly while a task runs or is about to be spawned:
//!   the [`set`](Timers::set) that finds `None` writes it and tells its caller to spawn one. The task writes `None`
//!   under the same lock under which it finds no entry, so no entry is added unseen.
//! - **Never late because of another.** `sleeps_until` is no later than the first deadline in the map. A `set` that
//!   brings an earlier one wakes the task; [`Notify`] keeps that wake-up for a task that does not listen at the moment.
//! - **Woken once, at the deadline or later**, by the runtime's clock, whose steps are a millisecond. An entry is
//!   removed as it is woken: whoever polls again and finds the deadline not reached sets it anew.
//! - **No waker runs under the lock.** A waker may do anything, for example drop a call, which cancels its entry here.
//!
//! # Cancellation
//!
//! An entry that is [cancelled](Timers::cancel) does not wake the task, which finds nothing due when it wakes. A task
//! that is dropped early, as with its runtime, wakes all entries. Those who are polled again set their deadlines anew,
//! and the first of them has a task spawned on the runtime that polls it.

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::Waker,
};

use tokio::{sync::Notify, time::timeout_at};

use crate::clock::{Nanos, Timeline};

/// The deadlines of all who wait, with their wakers. `O(log n)` for each of its operations.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: Mutex<TimerQueue>,
    /// Wakes the task for a deadline before the one that it sleeps until.
    earlier_deadline: Notify,
}

/// The map, and until when the task sleeps: changed together, under one lock.
#[derive(Debug, Default)]
struct TimerQueue {
    /// Wakers by deadline. The number tells those of one deadline apart.
    wakers: BTreeMap<TimerKey, Waker>,
    /// The last number that was given out. Numbers are never used twice.
    next_number: u64,
    /// The deadline that the task sleeps until. `None`: there is no task.
    sleeps_until: Option<Nanos>,
}

/// The task that wakes what is due. `None` once it has ended with nothing left to wake. Dropped before that, it
/// [abandons](Timers::abandon) what is left.
struct TimerTask(Option<Arc<Timers>>);

impl TimerTask {
    async fn run(mut self, clock: Timeline) {
        while let Some(timers) = &self.0 {
            let Some(until) = timers.wake_due(clock.now()) else {
                self.0 = None;
                return;
            };
            let until = clock.instant(until);
            // A deadline that is reached and an earlier one that was set are both reasons to look again.
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

/// The key of an entry: its deadline, by this process's clock, and a number.
pub(super) type TimerKey = (Nanos, u64);

impl Timers {
    /// Wakes `waker` at the deadline, or later. Returns `true` if the caller has to spawn [the task](Self::run_task).
    ///
    /// `key` is `None` at first and then names the entry, whose deadline stays what it was: a later call exchanges the
    /// waker alone. The caller [cancels](Self::cancel) it once it no longer waits.
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

    /// Removes an entry. One that was woken is gone already.
    pub(super) fn cancel(&self, key: TimerKey) {
        self.lock().wakers.remove(&key);
    }

    /// Returns the task, which wakes what is due until no entry is left. It holds the timers, not the store client: so
    /// it does not keep a store alive for longer than its last deadline.
    pub(super) fn run_task(self: &Arc<Self>, clock: Timeline) -> impl Future<Output = ()> + use<> {
        TimerTask(Some(Arc::clone(self))).run(clock)
    }

    /// Wakes all entries that are due at `now`, and returns the next deadline. `None`: no entry is left, and the task
    /// has to end, for the next `set` asks for another.
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
        // Outside of the lock: see the module's invariants.
        due.into_iter().for_each(Waker::wake);
        until
    }

    /// Ends the task's part early: the next `set` asks for another task. All entries are woken, so that each sets
    /// itself again.
    fn abandon(&self) {
        let mut queue = self.lock();
        queue.sleeps_until = None;
        let left = mem::take(&mut queue.wakers);
        drop(queue);
        left.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TimerQueue> {
        // No panic can come between two writes that belong together.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
