//! Whether a store keeps its promises.
//!
//! A test of a store is one call:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! use std::sync::Arc;
//! use tower_throttle::store::{MemoryStore, conformance};
//!
//! conformance::check(Arc::new(MemoryStore::new())).await;
//! # }
//! ```
//!
//! It takes a second or two, most of it waiting, and leaves buckets behind that expire within minutes. Each run has
//! keys of its own.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use super::{Balance, BucketKey, Budget, Charge, Correction, Store, Stored, Taken};
use crate::{clock::nanos, quota::Quota, rate::Rate};

/// Checks all that [`Store`] promises and that can be seen from outside, against a store that others may use
/// meanwhile.
///
/// # Panics
///
/// If it does not keep a promise, with what was seen.
pub async fn check(store: Arc<dyn Store>) {
    let run = Run {
        store,
        number: RandomState::new().hash_one(0),
    };
    run.a_bucket_gives_its_burst_and_no_more().await;
    run.all_or_nothing().await;
    run.shadows_refuse_nobody().await;
    run.clients_and_limits_stand_apart().await;
    run.what_comes_back_with_time().await;
    run.what_is_owed_and_what_comes_back().await;
    run.undone_leaves_no_trace().await;
    run.leases_leave_half_and_come_back().await;
    run.quotas_count_in_windows().await;
    run.what_was_used_stays_used_under_other_settings().await;
    run.nobody_gets_in_twice().await;
    run.the_widest_and_the_narrowest().await;
    run.as_the_arithmetic_says().await;
}

struct Run {
    store: Arc<dyn Store>,
    number: u64,
}

/// So slow that nothing comes back while this runs.
fn slow(burst: u64) -> Budget {
    rate(&Rate::per_hour(1).burst(burst))
}

fn rate(rate: &Rate) -> Budget {
    Budget::of_rate(rate).expect("an open rate")
}

/// What is left at the moment of an answer.
fn left(budget: &Budget, taken: &Taken, index: usize) -> u64 {
    budget
        .meter()
        .balance(taken.balances[index].state, taken.now)
        .0
}

impl Run {
    fn key(&self, name: &str) -> BucketKey {
        BucketKey::new(format!("conformance/{:016x}/{name}", self.number), None)
    }

    /// Clients are hashes: no two are alike in most of their bits.
    fn client(&self, name: &str, client: u128) -> BucketKey {
        let hash = (client + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        BucketKey::new(self.key(name).limit(), Some(hash))
    }

    async fn take(&self, charges: &[Charge]) -> Taken {
        let taken = self.store.take(charges).await;
        let taken = taken.unwrap_or_else(|error| panic!("no answer: {error:?}"));
        assert_eq!(
            taken.balances.len(),
            charges.len(),
            "a balance for each charge"
        );
        taken
    }

    async fn one(&self, key: &BucketKey, budget: Budget, cost: u64) -> Taken {
        self.take(&[Charge::new(key.clone(), budget, cost)]).await
    }

    async fn correct(&self, correction: Correction) {
        let corrected = self.store.correct(&[correction]).await;
        corrected.unwrap_or_else(|error| panic!("not corrected: {error:?}"));
    }

    async fn a_bucket_gives_its_burst_and_no_more(&self) {
        let (key, budget) = (self.key("burst"), slow(3));
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
    }

    async fn all_or_nothing(&self) {
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

    async fn shadows_refuse_nobody(&self) {
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
        // What is refused leaves shadows alone.
        let other = Charge::new(self.key("other shadow"), budget, 1).shadow();
        let charges = [charges[1].clone(), other.clone()];
        assert!(!self.take(&charges).await.is_admitted);
        let untouched = self.take(&[other]).await;
        assert!(untouched.is_admitted && refused(&untouched) == [false]);
    }

    async fn clients_and_limits_stand_apart(&self) {
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

    async fn what_comes_back_with_time(&self) {
        let budget = rate(&Rate::new(1, Duration::from_millis(200)).burst(2));
        let key = self.key("refilled");
        assert!(self.one(&key, budget, 2).await.is_admitted);
        let refused = self.one(&key, budget, 1).await;
        assert!(!refused.is_admitted);
        let meter = budget.meter();
        let (_, wait) = meter.balance(refused.balances[0].state, refused.now);
        assert!(wait <= nanos(Duration::from_millis(200)), "{wait} ns");
        tokio::time::sleep(Duration::from_nanos(wait)).await;
        let taken = self.one(&key, budget, 1).await;
        assert!(taken.is_admitted, "after the wait that was told");
        assert!(taken.now >= refused.now + wait, "the clock goes on");
        tokio::time::sleep(Duration::from_millis(450)).await;
        let taken = self.one(&key, budget, 2).await;
        assert!(taken.is_admitted, "full again");
        assert_eq!(left(&budget, &taken, 0), 0, "and no more than full");
    }

    async fn what_is_owed_and_what_comes_back(&self) {
        let (key, budget) = (self.key("owed"), slow(10));
        let units = |units| Correction::Owe {
            key: key.clone(),
            budget,
            units,
        };
        let back = |units| Correction::Refund {
            key: key.clone(),
            budget,
            units,
        };
        assert!(self.one(&key, budget, 8).await.is_admitted);
        self.correct(units(7)).await;
        let refused = self.one(&key, budget, 1).await;
        assert!(!refused.is_admitted, "five are owed: {refused:?}");
        self.correct(back(5)).await;
        assert!(!self.one(&key, budget, 1).await.is_admitted, "none is left");
        self.correct(back(4)).await;
        let taken = self.one(&key, budget, 4).await;
        assert!(taken.is_admitted, "four came back: {taken:?}");
        self.correct(back(1_000)).await;
        let taken = self.one(&key, budget, 0).await;
        assert_eq!(left(&budget, &taken, 0), 10, "no more than it holds");
        // Where another's bucket is smaller, it forgets nothing.
        let (key, small) = (self.key("owed to a larger"), slow(3));
        assert!(self.one(&key, budget, 8).await.is_admitted);
        let refund = Correction::Refund {
            key: key.clone(),
            budget: small,
            units: 1,
        };
        self.correct(refund).await;
        assert!(!self.one(&key, small, 1).await.is_admitted);
        assert_eq!(left(&budget, &self.one(&key, budget, 0).await, 0), 3);
        // Whoever has never been asked may owe.
        let (key, units) = (self.key("owed at first"), 3);
        let owe = Correction::Owe {
            key: key.clone(),
            budget,
            units,
        };
        self.correct(owe).await;
        assert_eq!(left(&budget, &self.one(&key, budget, 0).await, 0), 7);
    }

    async fn undone_leaves_no_trace(&self) {
        let (key, budget) = (
            self.key("undone"),
            rate(&Rate::new(1, Duration::from_millis(100)).burst(4)),
        );
        let taken = self.one(&key, budget, 3).await;
        let undo = |units, taken| Correction::Undo {
            key: key.clone(),
            budget,
            units,
            taken,
        };
        // Whatever was refilled since does not come back twice.
        tokio::time::sleep(Duration::from_millis(120)).await;
        self.correct(undo(3, taken.now)).await;
        let after = self.one(&key, budget, 4).await;
        assert!(after.is_admitted, "as if it had not been: {after:?}");
        self.correct(undo(1, after.now - nanos(Duration::from_millis(100))))
            .await;
        let refused = self.one(&key, budget, 1).await;
        let (_, wait) = budget
            .meter()
            .balance(refused.balances[0].state, refused.now);
        assert!(
            !refused.is_admitted && wait > 0,
            "its unit had been refilled when it was taken back: {refused:?}"
        );
    }

    async fn leases_leave_half_and_come_back(&self) {
        let budgets = [
            slow(40),
            Budget::of_quota(&Quota::per_month(40)).expect("an open quota"),
        ];
        for (index, budget) in budgets.into_iter().enumerate() {
            let key = self.key(&format!("leased {index}"));
            let charge = |units| Charge::new(key.clone(), budget, 1).lease(units);
            let first = self.take(&[charge(50)]).await;
            let Balance { leased, state, .. } = first.balances[0];
            if leased == 0 {
                // A store need not give leases.
                continue;
            }
            assert_eq!(leased, 19, "half of 39: {first:?}");
            assert_eq!(left(&budget, &first, 0), 20, "{first:?}");
            let give_back = |units, state| Correction::Return {
                key: key.clone(),
                budget,
                units,
                state,
            };
            self.correct(give_back(10, state)).await;
            let second = self.take(&[charge(3)]).await;
            assert_eq!(second.balances[0].leased, 3, "as many as were asked for");
            assert_eq!(left(&budget, &second, 0), 26, "ten came back: {second:?}");
            // The first is not the last any more.
            self.correct(give_back(9, state)).await;
            let third = self.take(&[charge(0)]).await;
            let comes_back = if index == 0 { 0 } else { 9 };
            assert_eq!(left(&budget, &third, 0), 25 + comes_back, "{third:?}");
            // Who is refused gets none, of any bucket.
            let empty = self.key(&format!("leased from {index}"));
            assert!(self.one(&empty, slow(1), 1).await.is_admitted);
            let refused = self
                .take(&[charge(5), Charge::new(empty, slow(1), 1)])
                .await;
            assert!(!refused.is_admitted && refused.balances[0].leased == 0);
            assert_eq!(left(&budget, &refused, 0), 25 + comes_back);
        }
    }

    async fn quotas_count_in_windows(&self) {
        let quotas = [
            Quota::per_day(3),
            Quota::per_week(3),
            Quota::per_month(3),
            Quota::per(3, Duration::from_secs(7_000)),
        ];
        for (index, quota) in quotas.iter().enumerate() {
            let budget = Budget::of_quota(quota).expect("an open quota");
            let key = self.key(&format!("quota {index}"));
            let first = self.one(&key, budget, 2).await;
            assert!(
                first.is_admitted && left(&budget, &first, 0) == 1,
                "{quota:?}: {first:?}"
            );
            let refused = self.one(&key, budget, 2).await;
            if refused.now < budget.meter().at(first.now) {
                assert!(!refused.is_admitted, "{quota:?}: {refused:?}");
                assert!(self.one(&key, budget, 1).await.is_admitted, "{quota:?}");
            }
        }
        // A short one ends while we look.
        let window = Duration::from_millis(300);
        let budget = Budget::of_quota(&Quota::per(2, window)).expect("an open quota");
        let key = self.key("a short quota");
        let mut seen: Vec<(u64, u32, u32)> = Vec::new();
        while seen.len() < 4 {
            let taken = self.one(&key, budget, 1).await;
            let end = budget.meter().at(taken.now);
            if seen.last().is_none_or(|(last, ..)| *last != end) {
                seen.push((end, 0, 0));
            }
            if let Some((_, asked, admitted)) = seen.last_mut() {
                *asked += 1;
                *admitted += u32::from(taken.is_admitted);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let two = |(_, asked, admitted): &(_, u32, u32)| *admitted == 2.min(*asked);
        assert!(seen.iter().all(two), "two in each: {seen:?}");
    }

    async fn what_was_used_stays_used_under_other_settings(&self) {
        let key = self.key("changed");
        let (small, large) = (slow(5), rate(&Rate::per_hour(10).burst(20)));
        assert!(self.one(&key, small, 4).await.is_admitted);
        let taken = self.one(&key, large, 0).await;
        let remain = left(&large, &taken, 0);
        assert!(
            (15..=16).contains(&remain),
            "four of twenty are used, {remain} remain"
        );
        assert!(self.one(&key, large, 10).await.is_admitted);
        let refused = self.one(&key, small, 1).await;
        assert!(
            !refused.is_admitted,
            "fourteen of five are used: {refused:?}"
        );
        let taken = self.one(&key, large, 0).await;
        let remain = left(&large, &taken, 0);
        assert!((5..=6).contains(&remain), "there and back: {remain} remain");
    }

    async fn nobody_gets_in_twice(&self) {
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

    async fn the_widest_and_the_narrowest(&self) {
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
            // Whatever it is read and written in, it stays a bucket, though some of a debt for ages may be forgotten.
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

    /// The same as [`Budget`] says, step by step, at the times that the store tells.
    async fn as_the_arithmetic_says(&self) {
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
                    // It may have come too late: what is there by now counts.
                    let seen = self.one(&charge.key, *budget, 0).await;
                    let remain = |state| budget.meter().balance(state, seen.now).0;
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
