//! The arithmetic of a bucket: the generic cell rate algorithm, as functions of (state, now, cost).
//!
//! A bucket is one number, the *theoretical arrival time* (TAT): the moment at which everything charged
//! so far will have been refilled. While the TAT lies in the past the bucket is full. A charge of `cost`
//! moves the TAT on by `cost` emission intervals and is admitted if that leaves it no further ahead of
//! now than the burst tolerance.
//!
//! # The bound
//!
//! With an emission interval `T` and a burst `b`, at most `b - 1 + ⌈w / T⌉` units are admitted in any
//! half-open window of length `w`. All arithmetic is in whole nanoseconds. `T` is rounded up, against
//! the caller, by less than one nanosecond.
//!
//! # Giving back
//!
//! A charge that is taken back returns its cost less the time that has passed since it was taken. What
//! was refilled in the meantime is thus never given twice: had the charge not been there, the bucket
//! would have drained at most that much less. The bound therefore holds for what was kept, whatever
//! else was charged or given back in between; and a charge given back at the moment it was taken
//! leaves no trace. If nothing else was charged or given back in between, the state from before is the
//! right one however much time has passed.

use crate::clock::{Nanos, Timeline};

/// The parameters of one bucket. Zero intervals do not exist; a closed limit has no `Gcra`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Gcra {
    /// Nanoseconds that pay for one unit.
    interval: u64,
    /// Units a full bucket holds.
    burst: u64,
    /// `interval * burst`.
    tolerance: u64,
    /// The largest cost that is ever admitted: at most the burst.
    most: u64,
}

/// The reason for which a charge was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// A charge of the same cost passes after this many nanoseconds if nobody else takes them.
    Wait(u64),
    /// The cost is above the largest that is ever admitted.
    Never,
    /// All slots are taken, and nobody knows for how long.
    Busy,
}

impl Gcra {
    /// The longest time from empty to full: the range that states, debts and the clock share.
    pub(crate) const MAX_TOLERANCE: u64 = Timeline::MAX;

    /// A bucket of `burst` units, refilled by `count` units in `period` nanoseconds.
    ///
    /// `None` if any of the three is zero, or if an empty bucket would take longer than
    /// [`Gcra::MAX_TOLERANCE`] to fill.
    pub(crate) fn new(count: u64, period: u64, burst: u64) -> Option<Self> {
        if count == 0 || period == 0 || burst == 0 {
            return None;
        }
        let interval = period.div_ceil(count);
        let tolerance = interval.checked_mul(burst)?;
        (tolerance <= Self::MAX_TOLERANCE).then_some(Self {
            interval,
            burst,
            tolerance,
            most: burst,
        })
    }

    /// The same bucket with no larger cost admitted than `most`, or than the burst.
    pub(crate) fn admitting(self, most: u64) -> Self {
        Self {
            most: most.min(self.burst),
            ..self
        }
    }

    pub(crate) fn burst(&self) -> u64 {
        self.burst
    }

    pub(crate) fn interval(&self) -> u64 {
        self.interval
    }

    /// Nanoseconds that pay for a full bucket.
    pub(crate) fn tolerance(&self) -> u64 {
        self.tolerance
    }

    /// Returns the weight of `cost` units in nanoseconds; `None` if so many are never admitted.
    #[inline(always)]
    pub(crate) fn weight(&self, cost: u64) -> Option<u64> {
        (cost <= self.most).then(|| self.interval * cost)
    }

    /// The state after a charge of `cost`, or why it is refused.
    #[inline(always)]
    pub(crate) fn take(&self, state: u64, now: Nanos, cost: u64) -> Result<u64, RefusalReason> {
        let Some(weight) = self.weight(cost) else {
            return Err(RefusalReason::Never);
        };
        if weight == 0 {
            return Ok(state);
        }
        let filled = state.max(now).saturating_add(weight);
        match filled.checked_sub(now + self.tolerance) {
            None | Some(0) => Ok(filled),
            Some(over) => Err(RefusalReason::Wait(over)),
        }
    }

    /// The state after `weight` nanoseconds, charged at `taken`, are given back at `now`.
    pub(crate) fn give_back(state: u64, taken: Nanos, now: Nanos, weight: u64) -> u64 {
        state.saturating_sub(weight.saturating_sub(now.saturating_sub(taken)))
    }

    /// Units that would be admitted at once, and the nanoseconds until there is one more: zero if the
    /// bucket is full.
    pub(crate) fn balance(&self, state: u64, now: Nanos) -> (u64, u64) {
        let debt = Self::debt(state, now);
        match self.tolerance.checked_sub(debt) {
            Some(_) if debt == 0 => (self.burst, 0),
            Some(free) => (free / self.interval, self.interval - free % self.interval),
            None => (0, debt - self.tolerance + self.interval),
        }
    }

    /// Nanoseconds until the bucket is full.
    pub(crate) fn debt(state: u64, now: Nanos) -> u64 {
        state.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bound of the head of this file for a set of admitted (time, cost) pairs.
    fn assert_bound(gcra: &Gcra, admitted: &[(Nanos, u64)]) -> Result<(), TestCaseError> {
        for (first, &(start, _)) in admitted.iter().enumerate() {
            let mut units = 0u128;
            for &(time, cost) in &admitted[first..] {
                units += u128::from(cost);
                // The shortest half-open window that holds both ends.
                let window = u128::from(time - start) + 1;
                let bound = u128::from(gcra.burst) - 1 + window.div_ceil(u128::from(gcra.interval));
                prop_assert!(
                    units <= bound,
                    "{units} units in {window} ns, bound {bound}"
                );
            }
        }
        Ok(())
    }

    /// Any rate, from one per century to several per nanosecond.
    fn rates() -> impl Strategy<Value = Gcra> {
        let scale = prop_oneof![1..100u64, 1..1_000_000_000u64, 1..u64::MAX];
        (scale.clone(), scale, prop_oneof![1..20u64, 1..u64::MAX])
            .prop_filter_map("refilled within the range", |(count, period, burst)| {
                Gcra::new(count, period, burst)
            })
    }

    /// Arrivals: steps in intervals or anything up to the whole range, and costs around the burst.
    fn arrivals() -> impl Strategy<Value = Vec<(u64, u64)>> {
        let step =
            prop_oneof![3 => Just(0u64), 3 => 1..4u64, 2 => 1..1_000_000u64, 1 => 0..u64::MAX];
        prop::collection::vec(
            (
                step,
                prop_oneof![4 => Just(1u64), 1 => 0..30u64, 1 => 0..u64::MAX],
            ),
            1..60,
        )
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound_and_exactly_when_told(gcra in rates(), arrivals in arrivals()) {
            let (mut state, mut now) = (0u64, 0u64);
            let mut admitted = Vec::new();
            for (step, cost) in arrivals {
                now = now.saturating_add(step.saturating_mul(gcra.interval / 2 + 1)).min(Timeline::MAX);
                match gcra.take(state, now, cost) {
                    Ok(next) => {
                        if cost > 0 { admitted.push((now, cost)); }
                        state = next;
                    }
                    Err(RefusalReason::Never) => prop_assert!(cost > gcra.burst),
                    Err(RefusalReason::Busy) => prop_assert!(false, "a rate knows its wait"),
                    Err(RefusalReason::Wait(wait)) => {
                        prop_assert!(wait > 0);
                        // R1: admitted after the told wait, and not a nanosecond before.
                        if let Some(then) = now.checked_add(wait).filter(|&then| then <= Timeline::MAX) {
                            prop_assert!(gcra.take(state, then, cost).is_ok());
                            prop_assert_eq!(gcra.take(state, then - 1, cost), Err(RefusalReason::Wait(1)));
                        }
                    }
                }
            }
            assert_bound(&gcra, &admitted)?;
        }

        #[test]
        fn agrees_with_a_naive_bucket_in_exact_fractions(
            count in 1..1_000u64, period in 1..1_000_000u64, burst in 1..50u64,
            // Around the pace at which units come back: a full bucket would hide the rounding.
            arrivals in prop::collection::vec((0..1_500u64, 1..3u64), 1..200),
        ) {
            // The reference counts in 1/count nanoseconds, so that it never rounds. Ours may refuse what
            // the reference admits by its rounding alone: less than one nanosecond for each unit since
            // the bucket was full.
            let gcra = Gcra::new(count, period, burst).expect("nothing is zero");
            let (mut state, mut now) = (0u64, 0u64);
            let (mut level, mut last) = (u128::from(burst) * u128::from(period), 0u64);
            let mut units = 0u64;
            for (thousandths, cost) in arrivals {
                now += period * thousandths / (count * 1_000);
                level = (level + u128::from(now - last) * u128::from(count))
                    .min(u128::from(burst) * u128::from(period));
                last = now;
                if state <= now {
                    units = 0;
                }
                let need = u128::from(cost) * u128::from(period);
                match gcra.take(state, now, cost) {
                    Ok(next) => {
                        prop_assert!(level >= need, "admitted what the reference refuses");
                        state = next;
                        level -= need;
                        units += cost;
                    }
                    Err(_) if cost > burst => {}
                    Err(_) => {
                        let rounding = u128::from(units + cost) * u128::from(count);
                        prop_assert!(level < need + rounding, "refused what the reference admits");
                    }
                }
            }
        }

        #[test]
        fn what_is_kept_obeys_the_bound_whatever_is_given_back(
            gcra in (1..20u64, 1..10u64).prop_map(|(interval, burst)| Gcra::new(1, interval, burst).expect("nothing is zero")),
            steps in prop::collection::vec((0..15u64, 1..4u64, any::<bool>(), 0..8usize), 1..80),
        ) {
            let (mut state, mut now) = (0u64, 0u64);
            let mut kept: Vec<(Nanos, u64)> = Vec::new();
            for (step, cost, give_back, which) in steps {
                now += step;
                if give_back && which < kept.len() {
                    let (taken, cost) = kept.remove(which);
                    state = Gcra::give_back(state, taken, now, gcra.weight(cost).expect("was admitted"));
                } else if let Ok(next) = gcra.take(state, now, cost) {
                    state = next;
                    kept.push((now, cost));
                }
                assert_bound(&gcra, &kept)?;
            }
        }

        #[test]
        fn no_input_panics(gcra in rates(), state: u64, now in 0..=Timeline::MAX, cost: u64, taken: u64) {
            let state = state.min(now.saturating_add(Gcra::MAX_TOLERANCE));
            let _ = gcra.take(state, now, cost);
            let (remaining, next) = gcra.balance(state, now);
            prop_assert!(remaining <= gcra.burst);
            prop_assert!(next <= Gcra::MAX_TOLERANCE + gcra.interval);
            prop_assert!(Gcra::give_back(state, taken, now, cost) <= state);
        }
    }

    #[test]
    fn remaining_and_the_next_unit_are_told_to_the_nanosecond() {
        let gcra = Gcra::new(1, 100, 5).expect("nothing is zero");
        // (state, now, remaining, until the next)
        let table = [
            (0, 0, 5, 0),
            (0, 1_000, 5, 0),
            (1_100, 1_000, 4, 100),
            (1_100, 1_001, 4, 99),
            (1_100, 1_100, 5, 0),
            (1_500, 1_000, 0, 100),
            (1_450, 1_000, 0, 50),
            (1_700, 1_000, 0, 300),
        ];
        for (state, now, remaining, next) in table {
            assert_eq!(
                gcra.balance(state, now),
                (remaining, next),
                "{state} at {now}"
            );
            if next > 0 {
                assert_eq!(gcra.balance(state, now + next).0, remaining + 1);
                assert_eq!(gcra.balance(state, now + next - 1).0, remaining);
            }
        }
    }

    #[test]
    fn given_back_at_once_leaves_no_trace() {
        let gcra = Gcra::new(10, 1_000, 3).expect("nothing is zero");
        let before = gcra.take(0, 50, 1).expect("full");
        let after = gcra.take(before, 50, 2).expect("two remain");
        let weight = gcra.weight(2).expect("within the burst");
        assert_eq!(Gcra::give_back(after, 50, 50, weight), before);
        assert_eq!(
            Gcra::give_back(after, 50, 120, weight),
            after - 130,
            "less the time that passed"
        );
        assert_eq!(
            Gcra::give_back(after, 50, 1_000, weight),
            after,
            "refilled long ago"
        );
    }

    #[test]
    fn what_cannot_be_kept_in_range_is_refused_at_build() {
        assert_eq!(Gcra::new(0, 1, 1), None);
        assert_eq!(Gcra::new(1, 0, 1), None);
        assert_eq!(Gcra::new(1, 1, 0), None);
        assert_eq!(Gcra::new(1, u64::MAX, 1), None);
        assert_eq!(Gcra::new(1, 1 << 32, 1 << 31), None);
        let widest = Gcra::new(1, 1 << 32, 1 << 30).expect("exactly the range");
        assert_eq!(widest.take(0, Timeline::MAX, 1 << 30), Ok(1 << 63));
        let fastest = Gcra::new(u64::MAX, 1, 1 << 62).expect("one a nanosecond");
        assert_eq!(fastest.interval(), 1);
    }
}
