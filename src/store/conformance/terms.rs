//! Checks of charges and corrections that are made by other settings than those by which a bucket was charged last.

use super::{
    super::{Charge, Correction},
    Run, left, slow,
};

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
}
