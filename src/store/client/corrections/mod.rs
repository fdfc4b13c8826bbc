//! Corrections of balances on their way to the store.
//!
//! A handler may count each model token as it is made, and must not wait for the store. Corrections are therefore added
//! up by bucket, in units, and one task at a time sends them: all that arrive during a call go with the next. While the
//! store is down they stay here, and are sent when it is up again.
//!
//! # Invariants
//!
//! - **A task while there is something to send, and the store is up.** Sums are added first, and the
//!   [slot](super::task_slot) of the task is claimed after that, unless the store is down. A task that finds nothing to
//!   send, or the store down, gives the slot back and looks again. The probe that finds the store up again claims it,
//!   too.
//! - **Sent at most once.** A batch leaves the map before it is sent, and never returns to it: after an error it is
//!   unknown which of its corrections were made. The error of an outage marks the store down, so that the outage costs
//!   one batch.
//! - **No refund without its debt.** A refund of units that the batch under way owes waits for the answer: it is sent if
//!   they were owed, and otherwise forgotten with them. See [`CorrectionBatch`].
//! - **Bounded.** At most one sum is kept for each of [65,536 buckets](Corrections::MAX_BUCKETS), whatever the number
//!   of corrections. Corrections of further buckets are not accepted, and their caller is told so.
//! - **In order.** Batches go one after the other. Within one, a bucket gets the sum of its corrections. That differs
//!   from its parts only where a refund would have found the bucket full: it then counts against what is owed in the
//!   same batch, instead of being lost.
//! - **To its window.** Units of a quota belong to a window. Those that come back are sent as charges of that window that
//!   are undone, so that a batch that is late gives nothing to the next. Those that are owed are dropped once it has
//!   ended by the store's clock. Undone charges are sent behind what is owed, of which they may be a part.
//!
//! Sums saturate only as they are sent, at `u64::MAX` units.
//!
//! # Outages
//!
//! A correction that is sent late changes a rate as if its request had ended late. Corrections are lost with the batch
//! that finds the store down; beyond the bound of the map; and with the process, or with a throttle that is dropped
//! while the store is down.
//!
//! # Memory ordering
//!
//! Both the breaker and the slot acquire and release. So a task that gives the slot back behind a claim of the probe's
//! that has failed looks again and finds the store up; and a correction that is added behind the last look of a task of
//! the probe's, which the lock orders, finds it up and claims the slot.
//!
//! # Cancellation
//!
//! The caller does not wait, so it cannot cancel. A task that is dropped, as with its runtime, leaves the rest of the
//! map to the next correction; the batch under way counts as failed.
//!
//! # Who may call it
//!
//! [`StoreClient::owe`] and [`StoreClient::refund`] add, and spawn the task; the probe spawns it after an outage.
//! Abandoned calls and unused leases send their corrections directly: these depend on a moment or state, and cannot be
//! added up.

#[cfg(all(test, throttle_loom))]
mod loom_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::{StoreClient, task_slot::TaskSlot};
use crate::{
    clock::Nanos,
    store::{BucketKey, Budget, Correction},
};

/// The sums that are still to be sent.
#[derive(Debug)]
pub(super) struct Corrections {
    pending: Mutex<PendingCorrections>,
    /// The slot of the task that sends them.
    pub(super) task: TaskSlot,
}

/// By bucket, and the end of its window for a quota: its latest budget, and the units that are owed. Below zero, they
/// come back.
type Sums = HashMap<(BucketKey, Option<Nanos>), (Budget, i128)>;

/// The sums, and what they depend on: changed together, under one lock.
#[derive(Debug, Default)]
struct PendingCorrections {
    /// The next batch.
    sums: Sums,
    /// The name of the next batch, if somebody asked for it.
    batch: Option<CorrectionBatch>,
    /// Refunds of units that the batch under way owes: sent with the next if it is made.
    dependent: Sums,
}

/// A batch of corrections, by which the account of a request learns whether the store owes its units.
#[derive(Debug, Clone)]
pub(crate) struct CorrectionBatch(Arc<OnceLock<bool>>);

impl CorrectionBatch {
    /// Makes a batch that is not answered.
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Notes the answer. The first counts.
    pub(crate) fn answer(&self, is_made: bool) {
        let _ = self.0.set(is_made);
    }

    /// Returns whether the store has answered that it made the corrections. `None`: they are not sent, or not answered
    /// yet.
    pub(crate) fn is_made(&self) -> Option<bool> {
        self.0.get().copied()
    }
}

/// Batches are equal if they are the same.
impl PartialEq for CorrectionBatch {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The task that sends corrections. `None` once it has ended. Dropped before that, it gives its slot back. It keeps the
/// store client alive until all are sent, or the store is down.
struct CorrectionTask(Option<Arc<StoreClient>>);

/// The batch under way. Dropped without an answer, it counts as failed.
struct Sending<'a> {
    corrections: &'a Corrections,
    batch: Option<CorrectionBatch>,
    is_made: bool,
}

impl Corrections {
    /// The most buckets with a sum to send. Corrections of further ones are not accepted: about ten megabytes, in a
    /// long outage.
    const MAX_BUCKETS: usize = 1 << 16;

    pub(super) fn new() -> Self {
        Self {
            pending: Mutex::default(),
            task: TaskSlot::new(),
        }
    }

    /// Adds `units` that a bucket owes; `moment` is one of their window, for a quota. Returns the batch that they go
    /// with. `None`: there is no room, and nothing is sent.
    ///
    /// The latest `budget` of a bucket is sent, if there is no [present](super::present_budgets) one by then.
    pub(super) fn owe(
        &self,
        key: BucketKey,
        budget: Budget,
        moment: Option<Nanos>,
        units: u64,
    ) -> Option<CorrectionBatch> {
        let mut pending = self.lock();
        let key = (key, window_end(&budget, moment));
        let is_added = pending.add(key, budget, i128::from(units));
        is_added.then(|| {
            let batch = pending.batch.get_or_insert_with(CorrectionBatch::new);
            batch.clone()
        })
    }

    /// Adds `units` that come back to a bucket; `moment` and `budget` are as for [`owe`](Self::owe).
    ///
    /// `owed_by` is the batch by which these units were owed, if it was not [made](CorrectionBatch::is_made) when the
    /// caller looked: if it fails, nothing comes back.
    pub(super) fn refund(
        &self,
        key: BucketKey,
        budget: Budget,
        moment: Option<Nanos>,
        units: u64,
        owed_by: Option<&CorrectionBatch>,
    ) {
        let mut pending = self.lock();
        let key = (key, window_end(&budget, moment));
        let change = -i128::from(units);
        let is_next = owed_by.is_none_or(|batch| pending.batch.as_ref() == Some(batch));
        // A batch is answered under the lock.
        match owed_by.and_then(CorrectionBatch::is_made) {
            Some(false) => {}
            None if !is_next => pending.add_dependent(key, budget, change),
            _ => {
                pending.add(key, budget, change);
            }
        }
    }

    /// Returns whether there is nothing to send now. Refunds that wait for the batch under way do not count.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().sums.is_empty()
    }

    /// Returns the task, which sends all corrections, those that come meanwhile too, and then ends, or as soon as the
    /// store is down. The caller has claimed its [slot](Self::task). It has no deadline: nobody waits for it, and the
    /// store's futures are driven to their end.
    pub(super) fn send_all(
        store_client: &Arc<StoreClient>,
    ) -> impl Future<Output = ()> + Send + use<> {
        CorrectionTask(Some(Arc::clone(store_client))).run()
    }

    /// Takes the next batch, in the budgets that are `present` by now where there are any. `None` if there is nothing
    /// to send. By the store's clock it is `now` or later.
    fn take_pending(
        &self,
        present: impl Fn(&BucketKey) -> Option<Budget>,
        now: Nanos,
    ) -> Option<(Vec<Correction>, Sending<'_>)> {
        let mut pending = self.lock();
        if pending.sums.is_empty() {
            return None;
        }
        let sums = mem::take(&mut pending.sums);
        let batch = pending.batch.take();
        drop(pending);
        let mut corrections = Vec::with_capacity(sums.len());
        let mut undone = Vec::new();
        for ((key, window), (last, sum)) in sums {
            let budget = present(&key).unwrap_or(last);
            let units = u64::try_from(sum.unsigned_abs()).unwrap_or(u64::MAX);
            match (sum, window) {
                (0, _) => {}
                // The next window does not owe what was used in one before.
                (1.., Some(end)) if end <= now => {}
                (1.., _) => corrections.push(Correction::Owe { key, budget, units }),
                (_, None) => corrections.push(Correction::Refund { key, budget, units }),
                (_, Some(end)) => undone.extend(undo(key, budget, units, end)),
            }
        }
        // What is owed comes first: some of it may come back in the same batch.
        corrections.append(&mut undone);
        let sending = Sending {
            corrections: self,
            batch,
            is_made: false,
        };
        Some((corrections, sending))
    }

    fn lock(&self) -> MutexGuard<'_, PendingCorrections> {
        // No panic can come between two writes that belong together.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingCorrections {
    /// Adds a change to the next batch. `false`: there is no room for its bucket.
    fn add(&mut self, key: (BucketKey, Option<Nanos>), budget: Budget, change: i128) -> bool {
        let is_accepted = self.has_room() || self.sums.contains_key(&key);
        if is_accepted {
            add_to(&mut self.sums, key, budget, change);
        }
        is_accepted
    }

    /// Adds a refund that waits for the batch under way, if there is room.
    fn add_dependent(&mut self, key: (BucketKey, Option<Nanos>), budget: Budget, change: i128) {
        if self.has_room() || self.dependent.contains_key(&key) {
            add_to(&mut self.dependent, key, budget, change);
        }
    }

    fn has_room(&self) -> bool {
        self.sums.len() + self.dependent.len() < Corrections::MAX_BUCKETS
    }
}

fn add_to(sums: &mut Sums, key: (BucketKey, Option<Nanos>), budget: Budget, change: i128) {
    let (last, sum) = sums.entry(key).or_insert((budget, 0));
    *last = budget;
    *sum += change;
}

/// Returns the end of the window that a moment lies in.
fn window_end(budget: &Budget, moment: Option<Nanos>) -> Option<Nanos> {
    moment.map(|moment| budget.full_state(moment))
}

/// Undoes charges of a window of a quota that ends at `end`: they come back only while it lasts.
///
/// No charge takes more than the bucket holds, and a store undoes no more at once.
fn undo(
    key: BucketKey,
    budget: Budget,
    units: u64,
    end: Nanos,
) -> impl Iterator<Item = Correction> {
    let most = budget.capacity().max(1);
    let parts = (0..units.div_ceil(most)).map(move |part| most.min(units - part * most));
    parts.map(move |units| Correction::Undo {
        key: key.clone(),
        budget,
        units,
        taken: end.saturating_sub(1),
    })
}

impl CorrectionTask {
    async fn run(mut self) {
        while let Some(store_client) = &self.0 {
            let corrections = &store_client.corrections;
            while !store_client.is_down() {
                let present = |key: &BucketKey| store_client.present_budgets().get(key.limit());
                let now = store_client.at_earliest(store_client.clock.now());
                let Some((batch, mut sending)) = corrections.take_pending(present, now) else {
                    break;
                };
                sending.is_made = batch.is_empty() || store_client.send_corrections(batch).await;
            }
            let is_done = || store_client.is_down() || corrections.is_empty();
            if corrections.task.give_back_if(is_done) {
                // The slot is given back already.
                self.0 = None;
            }
        }
    }
}

impl Drop for CorrectionTask {
    fn drop(&mut self) {
        if let Some(store_client) = self.0.take() {
            store_client.corrections.task.give_back();
        }
    }
}

/// Answers the batch under way.
impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut pending = self.corrections.lock();
        if let Some(batch) = &self.batch {
            batch.answer(self.is_made);
        }
        let dependent = mem::take(&mut pending.dependent);
        if self.is_made {
            for (key, (budget, change)) in dependent {
                add_to(&mut pending.sums, key, budget, change);
            }
        }
    }
}
