//! A check against a model, with random charges.

use std::{collections::HashMap, time::Duration};

use super::{
    super::{Balance, BucketKey, Budget, Charge, Correction, Stored},
    Run, rate,
};
use crate::limit::{quota::Quota, rate::Rate};

impl Run {
    /// Compares each answer with [`Budget`], at the times that the store tells.
    pub(super) async fn as_the_arithmetic_says(&self) {
        let budgets = [
            rate(&Rate::new(3, Duration::from_millis(7)).burst(5)),
            rate(&Rate::new(7, Duration::from_millis(3)).burst(9)),
            Budget::of_quota(&Quota::per(6, Duration::from_millis(11))).expect("an open quota"),
        ];
        let mut model: HashMap<BucketKey, Stored> = HashMap::new();
        let mut random = self.number | 1;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for step in 0..300 {
            let mut charges = Vec::new();
            for (index, budget) in budgets.iter().enumerate() {
                if next(3) > 0 {
                    let key = self.client(&format!("model {index}"), next(2).into());
                    let charge = Charge::new(key, *budget, next(4)).lease(next(3));
                    charges.push(if next(4) == 0 {
                        charge.shadow()
                    } else {
                        charge
                    });
                }
            }
            if charges.is_empty() {
                continue;
            }
            let taken = self.take(&charges).await;
            let ask = |model: &HashMap<_, _>, charge: &Charge| {
                let kept = model.get(&charge.key).copied();
                charge.budget.take(kept, taken.now, charge.cost)
            };
            let enforced = || charges.iter().filter(|charge| !charge.is_shadow);
            let is_admitted = enforced().all(|charge| ask(&model, charge).is_ok());
            assert_eq!(
                taken.is_admitted, is_admitted,
                "step {step}: {charges:?}, {taken:?}, {model:?}"
            );
            for (charge, told) in charges.iter().zip(&taken.balances) {
                let asked = ask(&model, charge);
                let refused = charge.is_shadow && asked.is_err();
                let (Ok(after) | Err(after)) = asked;
                let before = charge
                    .budget
                    .take(model.get(&charge.key).copied(), taken.now, 0);
                let (Ok(before) | Err(before)) = before;
                let mut after = if is_admitted { after } else { before };
                if is_admitted && !charge.is_shadow && told.leased > 0 {
                    let most = charge.budget.lease(Some(after), taken.now, charge.lease);
                    assert!(told.leased <= most, "step {step}: {charge:?}, {told:?}");
                    let leased = charge.budget.take(Some(after), taken.now, told.leased);
                    after = leased.unwrap_or_else(|_| panic!("{told:?} of {after:?}"));
                }
                let balance = Balance {
                    state: told.state.max(taken.now),
                    ..*told
                };
                let expected = Balance {
                    state: after.state.max(taken.now),
                    is_refused: refused,
                    leased: told.leased,
                };
                assert_eq!(
                    balance, expected,
                    "step {step}: {charge:?} at {}",
                    taken.now
                );
                if next(6) == 0 && told.leased > 0 {
                    let correction = Correction::Return {
                        key: charge.key.clone(),
                        budget: charge.budget,
                        units: told.leased,
                        state: told.state,
                    };
                    self.correct(correction).await;
                    let budget = &charge.budget;
                    let given = budget.give_back(Some(after), told.state, taken.now, told.leased);
                    after = given.unwrap_or(after);
                    // The call may have been late: the present balance counts.
                    let seen = self.one(&charge.key, *budget, 0).await;
                    let remain = |state| {
                        let stored = budget.stored(state, seen.now);
                        budget.remaining(Some(stored), seen.now)
                    };
                    let expected = budget.take(Some(after), seen.now, 0);
                    let (Ok(expected) | Err(expected)) = expected;
                    let state = seen.balances[0].state.max(seen.now);
                    assert!(
                        remain(state) <= remain(expected.state),
                        "step {step}: more came back than was leased: {charge:?}, {told:?}, {seen:?}"
                    );
                    after.state = state;
                }
                model.insert(charge.key.clone(), after);
            }
            if next(5) == 0 {
                tokio::time::sleep(Duration::from_micros(next(4_000))).await;
            }
        }
    }
}
