//! Checks of charges: all or nothing, once, and of no other bucket.

use std::{sync::Arc, time::Duration};

use super::{
    super::{BucketKey, Charge, Correction, Taken},
    Run, left, rate, slow,
};
use crate::limit::rate::Rate;

impl Run {
    pub(super) async fn a_bucket_gives_its_burst_and_no_more(&self) {
        let (key, budget) = (self.key("burst"), slow(3));
        let asked = self.one(&key, budget, 0).await;
        assert!(asked.is_admitted, "what costs nothing passes: {asked:?}");
        assert_eq!(left(&budget, &asked, 0), 3, "and takes nothing: {asked:?}");
        for remain in [2, 1, 0] {
            let taken = self.one(&key, budget, 1).await;
            assert!(taken.is_admitted, "{remain} remain after it: {taken:?}");
            assert_eq!(left(&budget, &taken, 0), remain, "{taken:?}");
        }
        for _ in 0..3 {
            let refused = self.one(&key, budget, 1).await;
            assert!(!refused.is_admitted, "nothing is left: {refused:?}");
            assert_eq!(left(&budget, &refused, 0), 0);
        }
        let nothing = self.one(&key, budget, 0).await;
        assert!(
            nothing.is_admitted,
            "what costs nothing passes: {nothing:?}"
        );
        assert_eq!(left(&budget, &nothing, 0), 0, "{nothing:?}");
    }

    pub(super) async fn all_or_nothing(&self) {
        let budget = slow(2);
        let (first, empty, last) = (self.key("first"), self.key("empty"), self.key("last"));
        assert!(self.one(&empty, budget, 2).await.is_admitted);
        let charge = |key: &BucketKey, cost| Charge::new(key.clone(), budget, cost);
        let refused = self
            .take(&[charge(&first, 1), charge(&empty, 1), charge(&last, 2)])
            .await;
        assert!(!refused.is_admitted, "one of three is empty: {refused:?}");
        let told: Vec<_> = (0..3).map(|index| left(&budget, &refused, index)).collect();
        assert_eq!(told, [2, 0, 2], "nothing was taken from the others");
        let taken = self.take(&[charge(&first, 1), charge(&last, 2)]).await;
        assert!(taken.is_admitted, "nothing was taken from them: {taken:?}");
        let told: Vec<_> = (0..2).map(|index| left(&budget, &taken, index)).collect();
        assert_eq!(told, [1, 0], "in their order");
    }

    pub(super) async fn shadows_refuse_nobody(&self) {
        let budget = slow(1);
        let (key, shadow) = (self.key("enforced"), self.key("shadow"));
        let charges = [
            Charge::new(shadow.clone(), budget, 1).shadow(),
            Charge::new(key.clone(), slow(2), 1),
        ];
        let refused = |taken: &Taken| -> Vec<_> {
            let refused = taken.balances.iter().map(|balance| balance.is_refused);
            refused.collect()
        };
        let first = self.take(&charges).await;
        assert!(
            first.is_admitted && refused(&first) == [false, false],
            "{first:?}"
        );
        let second = self.take(&charges).await;
        assert!(second.is_admitted, "by the shadow alone: {second:?}");
        assert_eq!(refused(&second), [true, false]);
        let third = self.take(&charges).await;
        assert!(!third.is_admitted, "by the other: {third:?}");
        // A refused call leaves shadows alone.
        let other = Charge::new(self.key("other shadow"), budget, 1).shadow();
        let charges = [charges[1].clone(), other.clone()];
        assert!(!self.take(&charges).await.is_admitted);
        let untouched = self.take(&[other]).await;
        assert!(untouched.is_admitted && refused(&untouched) == [false]);
    }

    pub(super) async fn clients_and_limits_stand_apart(&self) {
        let budget = slow(1);
        let keys = [
            self.key("apart"),
            self.client("apart", 0),
            self.client("apart", 1),
            self.client("apart", 2),
            self.client("another", 1),
        ];
        for key in &keys {
            assert!(
                self.one(key, budget, 1).await.is_admitted,
                "{key} is its own"
            );
        }
        assert!(!self.one(&keys[2], budget, 1).await.is_admitted);
    }

    pub(super) async fn nobody_gets_in_twice(&self) {
        let (key, budget) = (self.key("raced for"), slow(20));
        let other = self.key("raced for, too");
        let tasks: Vec<_> = (0..60)
            .map(|index| {
                let charges = [
                    Charge::new(key.clone(), budget, 1),
                    Charge::new(other.clone(), slow(30), u64::from(index % 2 == 0)),
                ];
                let store = Arc::clone(&self.store);
                tokio::spawn(async move { store.take(&charges).await })
            })
            .collect();
        let mut admitted = 0;
        for task in tasks {
            let taken = task.await.expect("no panic");
            admitted += u32::from(taken.expect("an answer").is_admitted);
        }
        assert_eq!(admitted, 20, "of sixty at once");
    }

    pub(super) async fn the_widest_and_the_narrowest(&self) {
        let budgets = [
            rate(&Rate::new(u64::MAX, Duration::from_nanos(1)).burst(u64::MAX >> 2)),
            rate(&Rate::new(1, Duration::from_nanos(1 << 61)).burst(2)),
            rate(&Rate::new(1, Duration::from_nanos(1))),
            rate(&Rate::new(999_999_937, Duration::from_secs(1)).burst(1 << 40)),
            rate(&Rate::per_hour(1).burst(1 << 20)),
        ];
        for (index, budget) in budgets.into_iter().enumerate() {
            let key = self.key(&format!("wide {index}"));
            let taken = self.one(&key, budget, budget.capacity()).await;
            assert!(taken.is_admitted, "{budget:?} is full: {taken:?}");
            let owe = Correction::Owe {
                key: key.clone(),
                budget,
                units: u64::MAX,
            };
            self.correct(owe).await;
            let refused = self.one(&key, budget, budget.capacity()).await;
            assert!(!refused.is_admitted, "{budget:?}: {refused:?}");
            // In any terms it stays a bucket, though a part of an enormous debt may be forgotten.
            for other in budgets {
                self.one(&key, other, 0).await;
                let refund = Correction::Refund {
                    key: key.clone(),
                    budget: other,
                    units: 1,
                };
                self.correct(refund).await;
                self.one(&key, other, 1).await;
            }
        }
    }
}
