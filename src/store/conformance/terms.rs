//! Checks of charges and corrections that are made by other settings than those by which a bucket was charged last.

use std::time::Duration;

use super::{
    super::{BucketKey, Budget, Charge, Correction},
    Run, left, rate, slow,
};
use crate::limit::{quota::Quota, rate::Rate};

impl Run {
    /// A debt lies above a burst that has become smaller, or was never held by it. A charge of zero fits beside either,
    /// and leaves it as it is.
    pub(super) async fn what_costs_nothing_changes_nothing(&self) {
        let (small, large) = (slow(5), slow(20));
        let settled = |charge: Charge| Charge {
            is_settled: true,
            ..charge
        };
        let ways: [fn(Charge) -> Charge; 3] = [|charge| charge, settled, Charge::shadow];
        for (number, way) in ways.into_iter().enumerate() {
            let key = self.key(&format!("shrunk {number}"));
            let other = Charge::new(self.key(&format!("beside {number}")), large, 1);
            assert!(self.one(&key, large, 15).await.is_admitted);
            let nothing = way(Charge::new(key.clone(), small, 0));
            for charges in [vec![nothing.clone()], vec![other, nothing]] {
                let taken = self.take(&charges).await;
                let is_refused = taken.balances.iter().any(|balance| balance.is_refused);
                assert!(taken.is_admitted && !is_refused, "{charges:?}: {taken:?}");
            }
            let refused = self.one(&key, small, 1).await;
            assert!(
                !refused.is_admitted,
                "fifteen of five are used: {refused:?}"
            );
            let remain = left(&large, &self.one(&key, large, 0).await, 0);
            assert_eq!(remain, 5, "fifteen of twenty are used, in way {number}");
            // The bucket has never held what is owed.
            let owe = Correction::Owe {
                key: key.clone(),
                budget: small,
                units: 10,
            };
            self.correct(owe).await;
            let nothing = self.take(&[way(Charge::new(key.clone(), small, 0))]).await;
            let is_refused = nothing.balances[0].is_refused;
            assert!(nothing.is_admitted && !is_refused, "{nothing:?}");
            let back = Correction::Refund {
                key: key.clone(),
                budget: small,
                units: 21,
            };
            self.correct(back).await;
            let remain = left(&small, &self.one(&key, small, 0).await, 0);
            assert_eq!(remain, 1, "21 of 25 came back, in way {number}");
        }
    }

    /// A charge is taken back after others were made by other settings, slower or faster: it stays taken, and the
    /// bucket goes on as it was charged last.
    pub(super) async fn what_is_taken_back_changes_no_terms(&self) {
        let fast = rate(&Rate::per_minute(1).burst(40));
        let quota = |days: u64| Quota::per(40, Duration::from_secs(days * 86_400));
        // Windows of decades, so that none ends meanwhile.
        let quota = |days| Budget::of_quota(&quota(days)).expect("an open quota");
        let pairs = [
            (slow(40), fast),
            (fast, slow(40)),
            (quota(26_000), quota(25_000)),
            (quota(25_000), quota(26_000)),
        ];
        for (number, (before, present)) in pairs.into_iter().enumerate() {
            let key = self.key(&format!("in other terms {number}"));
            let first = self.one(&key, before, 4).await;
            let second = self.one(&key, present, 2).await;
            assert!(first.is_admitted && second.is_admitted);
            let state = second.balances[0].state;
            let undo = Correction::Undo {
                key: key.clone(),
                budget: before,
                units: 4,
                taken: first.now,
            };
            let give_back = |state| Correction::Return {
                key: key.clone(),
                budget: before,
                units: 4,
                state,
            };
            for correction in [undo, give_back(first.balances[0].state), give_back(state)] {
                self.correct(correction.clone()).await;
                let seen = self.one(&key, present, 0).await;
                assert_eq!(
                    seen.balances[0].state, state,
                    "{correction:?} of a bucket that is charged by {present:?}"
                );
            }
        }
    }

    /// Settings of the same terms may have another burst, and other buckets of the limit other terms.
    pub(super) async fn what_is_taken_back_in_the_terms_of_its_bucket_comes_back(&self) {
        let undo = |key: &BucketKey, taken| Correction::Undo {
            key: key.clone(),
            budget: slow(40),
            units: 10,
            taken,
        };
        let key = self.key("of another burst");
        let first = self.one(&key, slow(40), 10).await;
        assert!(self.one(&key, slow(20), 1).await.is_admitted);
        self.correct(undo(&key, first.now)).await;
        let remain = left(&slow(20), &self.one(&key, slow(20), 0).await, 0);
        assert_eq!(remain, 19, "ten of eleven came back");
        let fast = rate(&Rate::per_minute(1).burst(40));
        let [one, other] = [0, 1].map(|client| self.client("of other terms", client));
        let first = self.one(&one, slow(40), 10).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        // There and back.
        for budget in [fast, slow(40)] {
            assert!(self.one(&other, budget, 1).await.is_admitted);
        }
        self.correct(undo(&one, first.now)).await;
        let remain = left(&slow(40), &self.one(&one, slow(40), 0).await, 0);
        assert_eq!(remain, 40, "all came back: its bucket had no other terms");
    }
}
