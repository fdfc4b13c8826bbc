//! Checks of units that come back: with time, by a correction, with a new window, under other settings.

use std::time::Duration;

use super::{
    super::{Balance, BucketKey, Budget, Charge, Correction, Taken},
    Run, left, rate, slow,
};
use crate::{
    clock::nanos,
    limit::{quota::Quota, rate::Rate},
};

/// Tells by the store's clock that a unit came back between two calls, which then say nothing: a busy machine makes the
/// second one late. Counts the turns, of which it allows a hundred.
fn is_late(first: &Taken, second: &Taken, interval: Duration, turn: &mut u32) -> bool {
    *turn += 1;
    assert!(*turn <= 100, "two calls in {interval:?}, not once");
    second.now >= first.now + nanos(interval)
}

/// Returns the nanoseconds until one unit can be taken from the first bucket of an answer.
fn wait(budget: &Budget, taken: &Taken) -> u64 {
    let stored = budget.stored(taken.balances[0].state, taken.now);
    let wait = budget.wait(Some(stored), taken.now, 1);
    wait.expect("a bucket of one unit or more")
}

impl Run {
    pub(super) async fn what_comes_back_with_time(&self) {
        let interval = Duration::from_millis(200);
        let budget = rate(&Rate::new(1, interval).burst(2));
        let (mut key, mut refused);
        let mut turn = 0;
        loop {
            key = self.key(&format!("refilled {turn}"));
            let first = self.one(&key, budget, 2).await;
            assert!(first.is_admitted);
            refused = self.one(&key, budget, 1).await;
            if !is_late(&first, &refused, interval, &mut turn) {
                break;
            }
        }
        assert!(!refused.is_admitted);
        let wait = wait(&budget, &refused);
        assert!(wait <= nanos(interval), "{wait} ns");
        tokio::time::sleep(Duration::from_nanos(wait)).await;
        let taken = self.one(&key, budget, 1).await;
        assert!(taken.is_admitted, "after the wait that was told");
        assert!(taken.now >= refused.now + wait, "the clock goes on");
        tokio::time::sleep(Duration::from_millis(450)).await;
        let taken = self.one(&key, budget, 2).await;
        assert!(taken.is_admitted, "full again");
        assert_eq!(left(&budget, &taken, 0), 0, "and no more than full");
    }

    pub(super) async fn what_is_owed_and_what_comes_back(&self) {
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
        // A bucket without an entry may owe.
        let (key, units) = (self.key("owed at first"), 3);
        let owe = Correction::Owe {
            key: key.clone(),
            budget,
            units,
        };
        self.correct(owe).await;
        assert_eq!(left(&budget, &self.one(&key, budget, 0).await, 0), 7);
    }

    pub(super) async fn all_corrections_of_a_call_are_made(&self) {
        let (one, other, budget) = (self.key("twice"), self.key("once"), slow(20));
        for key in [&one, &other] {
            assert!(self.one(key, budget, 10).await.is_admitted);
        }
        let correction = |key: &BucketKey, units, is_owed| {
            let key = key.clone();
            match is_owed {
                true => Correction::Owe { key, budget, units },
                false => Correction::Refund { key, budget, units },
            }
        };
        let corrections = [
            correction(&one, 5, true),
            correction(&other, 3, false),
            correction(&one, 2, false),
            correction(&one, 1, true),
        ];
        let corrected = self.store.correct(&corrections).await;
        corrected.unwrap_or_else(|error| panic!("not corrected: {error:?}"));
        let charges = [one, other].map(|key| Charge::new(key, budget, 0));
        let taken = self.take(&charges).await;
        let told = [0, 1].map(|index| left(&budget, &taken, index));
        assert_eq!(told, [6, 13], "14 and 7 of 20 are used: {taken:?}");
        // And of none.
        let corrected = self.store.correct(&[]).await;
        corrected.unwrap_or_else(|error| panic!("nothing to correct: {error:?}"));
    }

    pub(super) async fn a_call_without_charges_is_answered(&self) {
        let taken = self.take(&[]).await;
        assert!(taken.is_admitted, "it could be taken from: {taken:?}");
    }

    pub(super) async fn undone_leaves_no_trace(&self) {
        let interval = Duration::from_millis(100);
        let budget = rate(&Rate::new(1, interval).burst(4));
        let mut turn = 0;
        let refused = loop {
            let key = self.key(&format!("undone {turn}"));
            let taken = self.one(&key, budget, 3).await;
            let undo = |units, taken| Correction::Undo {
                key: key.clone(),
                budget,
                units,
                taken,
            };
            // Units refilled since do not come back twice.
            tokio::time::sleep(interval * 6 / 5).await;
            self.correct(undo(3, taken.now)).await;
            let after = self.one(&key, budget, 4).await;
            assert!(after.is_admitted, "as if it had not been: {after:?}");
            self.correct(undo(1, after.now - nanos(interval))).await;
            let refused = self.one(&key, budget, 1).await;
            if !is_late(&after, &refused, interval, &mut turn) {
                break refused;
            }
        };
        assert!(
            !refused.is_admitted && wait(&budget, &refused) > 0,
            "its unit had been refilled when it was taken back: {refused:?}"
        );
        self.undone_comes_back_to_its_window().await;
    }

    /// Units of a quota come back to the window that they were taken from, and to no other.
    async fn undone_comes_back_to_its_window(&self) {
        let budget = Budget::of_quota(&Quota::per_month(10)).expect("an open quota");
        let key = self.key("undone in a window");
        let taken = self.one(&key, budget, 8).await;
        let undo = |units, taken| Correction::Undo {
            key: key.clone(),
            budget,
            units,
            taken,
        };
        let earlier = taken.now - nanos(Duration::from_secs(40 * 24 * 60 * 60));
        self.correct(undo(5, earlier)).await;
        let after = self.one(&key, budget, 0).await;
        assert_eq!(left(&budget, &after, 0), 2, "another month: {after:?}");
        // Any moment of the window stands for it.
        let last = budget.full_state(taken.now) - 1;
        self.correct(undo(3, taken.now)).await;
        self.correct(undo(2, last)).await;
        let after = self.one(&key, budget, 0).await;
        assert_eq!(left(&budget, &after, 0), 7, "the same month: {after:?}");
    }

    pub(super) async fn leases_leave_half_and_come_back(&self) {
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
            // A refused call gets no lease, of any bucket.
            let empty = self.key(&format!("leased from {index}"));
            assert!(self.one(&empty, slow(1), 1).await.is_admitted);
            let refused = self
                .take(&[charge(5), Charge::new(empty, slow(1), 1)])
                .await;
            assert!(!refused.is_admitted && refused.balances[0].leased == 0);
            assert_eq!(left(&budget, &refused, 0), 25 + comes_back);
        }
    }

    pub(super) async fn quotas_count_in_windows(&self) {
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
            if refused.now < budget.full_state(first.now) {
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
            let end = budget.full_state(taken.now);
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

    pub(super) async fn what_was_used_stays_used_under_other_settings(&self) {
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
}
