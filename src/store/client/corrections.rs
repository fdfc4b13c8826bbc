//! Corrections of balances on their way to the store.
//!
//! A handler may count each model token, and none of that waits. So what is to be changed is added up by bucket, and
//! one task at a time carries it there: in the order in which it came, and with no more to remember than there are
//! buckets.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{CorrectionKind, StoreClient};
use crate::store::{BucketKey, Budget, Correction};

/// What is to be changed.
#[derive(Debug, Default)]
pub(super) struct Corrections(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// Units that are owed, or come back where they are fewer than none.
    buckets: HashMap<BucketKey, (Budget, i128)>,
    /// Whether somebody carries them.
    has_task: bool,
}

/// Whoever carries them. Dropped before it has ended, others are to.
struct CorrectionTask(Option<Arc<StoreClient>>);

impl Corrections {
    /// Of more buckets than these, changes wait for nobody: they are forgotten, and their charges stand.
    const MAX_BUCKETS: usize = 1 << 16;

    /// Adds a change. Says whether somebody is to [carry](Self::send_all) it.
    pub(super) fn add(
        &self,
        key: BucketKey,
        budget: Budget,
        change: CorrectionKind,
        units: u64,
    ) -> bool {
        let mut pending = self.lock();
        if pending.buckets.len() >= Self::MAX_BUCKETS && !pending.buckets.contains_key(&key) {
            return false;
        }
        let (last, sum) = pending.buckets.entry(key).or_insert((budget, 0));
        *last = budget;
        *sum += match change {
            CorrectionKind::Owe => i128::from(units),
            CorrectionKind::Refund => -i128::from(units),
        };
        !mem::replace(&mut pending.has_task, true)
    }

    /// Carries all changes to the store, until there are none.
    pub(super) fn send_all(
        store_client: &Arc<StoreClient>,
    ) -> impl Future<Output = ()> + Send + use<> {
        CorrectionTask(Some(Arc::clone(store_client))).run()
    }

    /// All that there is, or the end of it.
    fn take_pending(&self) -> Option<Vec<Correction>> {
        let mut pending = self.lock();
        if pending.buckets.is_empty() {
            pending.has_task = false;
            return None;
        }
        let buckets = mem::take(&mut pending.buckets);
        drop(pending);
        let changes = buckets.into_iter().filter_map(|(key, (budget, sum))| {
            let units = u64::try_from(sum.unsigned_abs()).unwrap_or(u64::MAX);
            match sum {
                0 => None,
                1.. => Some(Correction::Owe { key, budget, units }),
                _ => Some(Correction::Refund { key, budget, units }),
            }
        });
        Some(changes.collect())
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Each step leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CorrectionTask {
    async fn run(mut self) {
        while let Some(store_client) = &self.0 {
            let Some(changes) = store_client.corrections.take_pending() else {
                self.0 = None;
                return;
            };
            store_client.send_corrections(changes).await;
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
    use crate::limit::rate::Rate;

    #[test]
    fn changes_add_up_by_bucket_until_somebody_carries_them() {
        let budget = Budget::of_rate(&Rate::per_second(10)).expect("open");
        let key = |limit: &str| BucketKey::new(limit, None);
        let changes = Corrections::default();
        assert!(
            changes.add(key("a"), budget, CorrectionKind::Owe, 3),
            "the first"
        );
        for (name, change, units) in [
            ("a", CorrectionKind::Owe, 4),
            ("b", CorrectionKind::Refund, 2),
            ("c", CorrectionKind::Owe, 5),
            ("c", CorrectionKind::Refund, 5),
            ("d", CorrectionKind::Owe, u64::MAX),
            ("d", CorrectionKind::Owe, u64::MAX),
        ] {
            assert!(!changes.add(key(name), budget, change, units));
        }
        let mut carried = changes.take_pending().expect("some");
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
            !changes.add(key("a"), budget, CorrectionKind::Owe, 1),
            "on its way"
        );
        assert_eq!(changes.take_pending(), Some(vec![owe("a", 1)]));
        assert_eq!(changes.take_pending(), None);
        assert!(
            changes.add(key("a"), budget, CorrectionKind::Owe, 1),
            "nobody is left"
        );
    }
}
