//! Corrections of balances on their way to the store.
//!
//! A handler may count each model token as it is made, and must not wait for the store. Corrections are therefore added
//! up by bucket, in units, and one task at a time sends them: all that arrive during a call go with the next.
//!
//! # Invariants
//!
//! - **A task while there is something to send.** [`add`](Corrections::add) tells its caller to spawn one if none holds
//!   `has_task`; the task gives that up under the same lock under which it finds nothing left.
//! - **Sent at most once.** A batch leaves the map before it is sent, and never returns to it: after an error it is
//!   unknown whether the store has carried it out. Its charges then stand as they were taken.
//! - **Bounded.** At most one sum is kept for each of [65,536 buckets](Corrections::MAX_BUCKETS), whatever the number
//!   of corrections. Corrections of further buckets are dropped; they still ask for a task, since there is enough to
//!   send.
//! - **In order.** Batches go one after the other. Within one, a bucket gets the sum of its corrections. That differs
//!   from its parts only where a refund would have found the bucket full: it then counts against what is owed in the
//!   same batch, instead of being lost.
//! - **To its window.** Units of a quota come back as charges of their window that are undone, so that a batch that is
//!   late gives nothing to the next. They are sent behind what is owed, of which they may be a part.
//!
//! Sums saturate only as they are sent, at `u64::MAX` units.
//!
//! # Cancellation
//!
//! The caller does not wait, so it cannot cancel. A task that is dropped, as with its runtime, leaves the rest of the
//! map to the next `add`; the batch under way is lost or carried out, which remains unknown.
//!
//! # Who may call it
//!
//! [`StoreClient::correct`] adds, unless the store is down, and spawns the task. Abandoned calls and unused leases send
//! their corrections directly: these depend on a moment or state, and cannot be added up.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{BalanceChange, StoreClient};
use crate::{
    clock::Nanos,
    store::{BucketKey, Budget, Correction},
};

/// The sums that are still to be sent.
#[derive(Debug, Default)]
pub(super) struct Corrections(Mutex<PendingCorrections>);

/// The sums, and the task that sends them: changed together, under one lock.
#[derive(Debug, Default)]
struct PendingCorrections {
    /// By bucket its latest budget, and the units that are owed. Below zero, they come back. Those that come back to a
    /// window of a quota are kept apart, by the end of that.
    buckets: HashMap<(BucketKey, Option<Nanos>), (Budget, i128)>,
    /// Set while a task sends them, or is about to be spawned.
    has_task: bool,
}

/// The task that sends corrections. `None` once it has ended with nothing left. Dropped before that, it lets the next
/// [`add`](Corrections::add) ask for another. It keeps the store client alive until all are sent.
struct CorrectionTask(Option<Arc<StoreClient>>);

impl Corrections {
    /// The most buckets with a sum to send. Corrections of further ones are forgotten, and their charges stand:
    /// about ten megabytes, where a store takes no corrections for long.
    const MAX_BUCKETS: usize = 1 << 16;

    /// Adds a correction of `units`. `true` if the caller has to spawn [the task](Self::send_all).
    ///
    /// The latest `budget` of a bucket is sent, if there is no [present](super::present_budgets) one by then.
    pub(super) fn add(
        &self,
        key: BucketKey,
        budget: Budget,
        kind: BalanceChange,
        units: u64,
    ) -> bool {
        let (window, change) = match kind {
            BalanceChange::Owe => (None, i128::from(units)),
            BalanceChange::Refund => (None, -i128::from(units)),
            BalanceChange::RefundIn(moment) => {
                (Some(budget.full_state(moment)), -i128::from(units))
            }
        };
        let key = (key, window);
        let mut pending = self.lock();
        if pending.buckets.len() < Self::MAX_BUCKETS || pending.buckets.contains_key(&key) {
            let (last, sum) = pending.buckets.entry(key).or_insert((budget, 0));
            *last = budget;
            *sum += change;
        }
        // Where there was no room, others are to be sent.
        !mem::replace(&mut pending.has_task, true)
    }

    /// Returns the task, which sends all corrections, those that come meanwhile too, and then ends. It has no deadline:
    /// nobody waits for it, and the store's futures are driven to their end.
    pub(super) fn send_all(
        store_client: &Arc<StoreClient>,
    ) -> impl Future<Output = ()> + Send + use<> {
        CorrectionTask(Some(Arc::clone(store_client))).run()
    }

    /// Takes the next batch, in the budgets that are `present` by now where there are any. `None` if there is nothing
    /// to send: the task has to end then, for it no longer counts as one.
    fn take_pending(
        &self,
        present: impl Fn(&BucketKey) -> Option<Budget>,
    ) -> Option<Vec<Correction>> {
        let mut pending = self.lock();
        if pending.buckets.is_empty() {
            pending.has_task = false;
            return None;
        }
        let buckets = mem::take(&mut pending.buckets);
        drop(pending);
        let mut corrections = Vec::with_capacity(buckets.len());
        let mut undone = Vec::new();
        for ((key, window), (last, sum)) in buckets {
            let budget = present(&key).unwrap_or(last);
            let units = u64::try_from(sum.unsigned_abs()).unwrap_or(u64::MAX);
            match (sum, window) {
                (0, _) => {}
                (1.., _) => corrections.push(Correction::Owe { key, budget, units }),
                (_, None) => corrections.push(Correction::Refund { key, budget, units }),
                (_, Some(end)) => undone.extend(undo(key, budget, units, end)),
            }
        }
        // What is owed comes first: some of it may come back in the same batch.
        corrections.append(&mut undone);
        Some(corrections)
    }

    fn lock(&self) -> MutexGuard<'_, PendingCorrections> {
        // No panic can come between two writes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            let present = |key: &BucketKey| store_client.present_budgets().get(key.limit());
            let Some(corrections) = store_client.corrections.take_pending(present) else {
                self.0 = None;
                return;
            };
            store_client.send_corrections(corrections).await;
        }
    }
}

impl Drop for CorrectionTask {
    fn drop(&mut self) {
        if let Some(store_client) = self.0.take() {
            store_client.corrections.lock().has_task = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{quota::Quota, rate::Rate};

    #[test]
    fn changes_add_up_by_bucket_until_somebody_carries_them() {
        let budget = Budget::of_rate(&Rate::per_second(10)).expect("open");
        let key = |limit: &str| BucketKey::new(limit, None);
        let corrections = Corrections::default();
        assert!(
            corrections.add(key("a"), budget, BalanceChange::Owe, 3),
            "the first"
        );
        for (name, change, units) in [
            ("a", BalanceChange::Owe, 4),
            ("b", BalanceChange::Refund, 2),
            ("c", BalanceChange::Owe, 5),
            ("c", BalanceChange::Refund, 5),
            ("d", BalanceChange::Owe, u64::MAX),
            ("d", BalanceChange::Owe, u64::MAX),
        ] {
            assert!(!corrections.add(key(name), budget, change, units));
        }
        let mut carried = corrections.take_pending(|_| None).expect("some");
        carried.sort_by_key(|change| change.parts().0.clone());
        let owe = |name, units| Correction::Owe {
            key: key(name),
            budget,
            units,
        };
        let back = Correction::Refund {
            key: key("b"),
            budget,
            units: 2,
        };
        assert_eq!(carried, [owe("a", 7), back, owe("d", u64::MAX)]);
        assert!(
            !corrections.add(key("a"), budget, BalanceChange::Owe, 1),
            "on its way"
        );
        let present = Budget::of_rate(&Rate::per_second(20)).expect("open");
        let in_present = Correction::Owe {
            key: key("a"),
            budget: present,
            units: 1,
        };
        let carried = corrections.take_pending(|key| (key.limit() == "a").then_some(present));
        assert_eq!(carried, Some(vec![in_present]), "a reload came in between");
        assert_eq!(corrections.take_pending(|_| None), None);
        assert!(
            corrections.add(key("a"), budget, BalanceChange::Owe, 1),
            "nobody is left"
        );
    }

    #[test]
    fn units_of_a_quota_come_back_to_the_window_that_they_were_taken_from() {
        const DAY: Nanos = 86_400_000_000_000;
        let budget = Budget::of_quota(&Quota::per_day(10)).expect("open");
        let key = || BucketKey::new("a", None);
        let corrections = Corrections::default();
        let changes = [
            (BalanceChange::RefundIn(5), 8),
            (BalanceChange::RefundIn(DAY - 1), 7),
            (BalanceChange::RefundIn(DAY), 3),
            (BalanceChange::Owe, 2),
        ];
        for (change, units) in changes {
            corrections.add(key(), budget, change, units);
        }
        let sent = corrections.take_pending(|_| None).expect("some");
        let mut undone = Vec::new();
        for correction in sent {
            match correction {
                Correction::Undo { units, taken, .. } => undone.push((taken, units)),
                Correction::Owe { units, .. } => assert_eq!(units, 2),
                other => panic!("{other:?}"),
            }
        }
        undone.sort_unstable();
        // No more at once than a bucket holds.
        let expected = [(DAY - 1, 5), (DAY - 1, 10), (2 * DAY - 1, 3)];
        assert_eq!(undone, expected);
    }

    #[test]
    fn a_task_that_was_dropped_is_spawned_anew_where_there_is_no_room_for_more() {
        let budget = Budget::of_rate(&Rate::per_second(10)).expect("open");
        let corrections = Corrections::default();
        let add = |client: usize| {
            let key = BucketKey::new("a", u128::try_from(client).ok());
            corrections.add(key, budget, BalanceChange::Owe, 1)
        };
        assert!(add(0), "the first");
        assert!((1..Corrections::MAX_BUCKETS).all(|client| !add(client)));
        assert!(!add(Corrections::MAX_BUCKETS), "there is a task");
        // As with its runtime.
        corrections.lock().has_task = false;
        assert!(add(Corrections::MAX_BUCKETS), "there is something to send");
        let sent = corrections.take_pending(|_| None).expect("some");
        assert_eq!(sent.len(), Corrections::MAX_BUCKETS);
    }
}
