//! The arithmetic of a limit on the state of its bucket: a rate, a quota, or slots.
//!
//! All three are the same arithmetic on different clocks. A rate's bucket lives on the throttle's clock. A
//! quota's lives on one that stands at the end of the present window and jumps when the next begins, with
//! one nanosecond for each unit: its state lies as many nanoseconds after the end of the window as units
//! were taken in it, and with the jump to the next end the bucket is full again. Slots live on a clock that
//! stands still for ever, in a future that the throttle's never reaches, with one nanosecond for each slot
//! that is taken: nothing comes back but what is given back. A state of any kind that is not after the
//! throttle's own clock is thus a full bucket.

use super::{
    gcra::{Gcra, RefusalReason},
    quota::{Quota, Window},
    rate::Rate,
};
use crate::clock::{Nanos, Timeline, nanos};

/// The arithmetic of a limit. A closed limit has no meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Meter {
    gcra: Gcra,
    time: Time,
}

/// The passage of a bucket's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Time {
    /// Time passes as the throttle's does: a rate.
    Flowing,
    /// Time jumps from the end of one window to that of the next: a quota.
    Windows(Window),
    /// Time stands still: slots.
    Still,
}

impl Meter {
    /// The longest window, 73 years: so that its end, and a whole quota above it, stay in range.
    const LONGEST: u64 = Timeline::MAX / 2;

    /// The point at which the time of slots stands. No clock of a throttle comes so far.
    const STILL: Nanos = 1 << 63;

    /// The farthest a rate's state goes, whatever is owed: as far as a full debt at the end of time.
    pub(crate) const FARTHEST: u64 = 1 << 63;

    /// `None` if the rate is closed, or its bucket would take too long to fill.
    pub(crate) fn of_rate(rate: &Rate) -> Option<Self> {
        let gcra = Gcra::new(rate.count(), nanos(rate.period()), rate.burst_limit())?;
        Some(Self {
            gcra,
            time: Time::Flowing,
        })
    }

    /// `None` if the quota is zero, its window too long, or if it has more units than that has nanoseconds.
    pub(crate) fn of_quota(quota: &Quota) -> Option<Self> {
        let gcra = Gcra::new(1, 1, quota.count())?;
        let window = nanos(quota.shortest());
        (quota.count() <= window && window <= Self::LONGEST).then(|| Self {
            gcra,
            time: Time::Windows(quota.kind()),
        })
    }

    /// `None` if there are no slots. More than 2^62 count as so many.
    pub(crate) fn of_slots(slots: u64) -> Option<Self> {
        Some(Self {
            gcra: Gcra::new(1, 1, slots.min(Gcra::MAX_TOLERANCE))?,
            time: Time::Still,
        })
    }

    /// The same meter with no larger cost admitted than `most`.
    pub(crate) fn admitting(self, most: u64) -> Self {
        Self {
            gcra: self.gcra.admitting(most),
            ..self
        }
    }

    /// Returns whether a unit weighs the same in both meters, so that a state of one is a state of the other.
    pub(crate) fn weighs_as(&self, other: &Self) -> bool {
        self.gcra.interval() == other.gcra.interval() && self.time == other.time
    }

    /// A state of another meter at `at`, in terms of this one: the same number of units is in use.
    pub(crate) fn carry(&self, from: &Self, state: u64, at: Nanos) -> u64 {
        let used = state.saturating_sub(from.at(at));
        if used == 0 {
            return 0;
        }
        let weight = u128::from(used) * u128::from(self.gcra.interval());
        let weight = weight.div_ceil(u128::from(from.gcra.interval()));
        let weight = u64::try_from(weight).unwrap_or(u64::MAX);
        self.at(at).saturating_add(weight).min(Self::FARTHEST)
    }

    /// A state with what another one owes at `now` besides.
    pub(crate) fn added(&self, state: u64, other: u64, now: Nanos) -> u64 {
        let owed = other.saturating_sub(self.at(now));
        state.saturating_add(owed).min(Self::FARTHEST).max(state)
    }

    /// Returns the terms of a state, which a store keeps beside it: the weight of a unit of a rate, the end of a
    /// quota's window, or the point at which the time of slots stands.
    pub(crate) fn terms(&self, now: Nanos) -> u64 {
        match self.time {
            Time::Flowing => self.gcra.interval(),
            Time::Windows(_) | Time::Still => self.at(now),
        }
    }

    /// A state that is told in other terms at `now`: the same number of units is in use.
    pub(crate) fn read(&self, state: u64, terms: u64, now: Nanos) -> u64 {
        let at = self.at(now);
        let (used, weighed) = match self.time {
            Time::Flowing => (state.saturating_sub(now), terms.max(1)),
            // A window that has ended is forgotten.
            Time::Windows(_) if terms <= now => (0, 1),
            Time::Windows(_) | Time::Still => (state.saturating_sub(terms), 1),
        };
        if used == 0 {
            return 0;
        }
        let weight = u128::from(used) * u128::from(self.gcra.interval());
        let weight = u64::try_from(weight.div_ceil(u128::from(weighed))).unwrap_or(u64::MAX);
        at.saturating_add(weight).min(Self::FARTHEST)
    }

    /// The state of a bucket that has just been emptied.
    pub(crate) fn fullest(&self, now: Nanos) -> u64 {
        self.at(now) + self.gcra.tolerance()
    }

    /// Units a full bucket holds.
    pub(crate) fn capacity(&self) -> u64 {
        self.gcra.burst()
    }

    /// Returns whether units are slots, which come back only when they are given back.
    #[inline]
    pub(crate) fn is_slots(&self) -> bool {
        matches!(self.time, Time::Still)
    }

    /// Nanoseconds that pay for one unit; of a quota, one.
    pub(crate) fn interval(&self) -> u64 {
        self.gcra.interval()
    }

    /// The window of a quota.
    pub(crate) fn window(&self) -> Option<Window> {
        match self.time {
            Time::Windows(window) => Some(window),
            Time::Flowing | Time::Still => None,
        }
    }

    /// The bucket's own time.
    #[inline(always)]
    pub(crate) fn at(&self, now: Nanos) -> Nanos {
        match &self.time {
            Time::Flowing => now,
            Time::Windows(window) => window.end(now),
            Time::Still => Self::STILL,
        }
    }

    /// Returns a moment of the window in which an admitted charge has left `state`. `None`: there are no windows.
    ///
    /// Such a state lies after the end of its window, by no more than the bucket holds, and a bucket holds no more than
    /// its window has nanoseconds.
    pub(crate) fn charged_in(&self, state: u64) -> Option<Nanos> {
        let before_end = state.saturating_sub(self.capacity()).saturating_sub(1);
        self.window().map(|_| before_end)
    }

    /// Returns whether two moments lie in one window. Always, if there are no windows.
    pub(crate) fn is_in_one_window(&self, one: Nanos, other: Nanos) -> bool {
        match &self.time {
            Time::Windows(window) => window.end(one) == window.end(other),
            Time::Flowing | Time::Still => true,
        }
    }

    /// The state after a charge of `cost`, or why it is refused.
    #[inline(always)]
    pub(crate) fn take(&self, state: u64, now: Nanos, cost: u64) -> Result<u64, RefusalReason> {
        let at = self.at(now);
        self.gcra
            .take(state, at, cost)
            .map_err(|refusal| match (refusal, &self.time) {
                (RefusalReason::Wait(_), Time::Windows(_)) => RefusalReason::Wait(at - now),
                (RefusalReason::Wait(_), Time::Still) => RefusalReason::Busy,
                _ => refusal,
            })
    }

    /// The state after `units` that were used without having been asked for: a debt, if there is no room.
    pub(crate) fn owe(&self, state: u64, now: Nanos, units: u64) -> u64 {
        let weight = units.saturating_mul(self.gcra.interval());
        let owed = state.max(self.at(now)).saturating_add(weight);
        owed.min(Self::FARTHEST).max(state)
    }

    /// Returns the weight of `cost` units in a state. Zero if so many are never admitted.
    pub(crate) fn weight(&self, cost: u64) -> u64 {
        self.gcra.weight(cost).unwrap_or(0)
    }

    /// The state after `units` that were taken before come back, no more than the bucket holds.
    ///
    /// They come back to a bucket that was refilled in the meantime, as if they had lain beside it: more may
    /// pass at once then than if they had never been taken. For what shall leave no trace see
    /// [`Meter::give_back`].
    pub(crate) fn refund(&self, state: u64, units: u64) -> u64 {
        self.less(state, units.saturating_mul(self.gcra.interval()))
    }

    /// Returns the number of units that may be leased at a state: at most `most`, and at most half of what is left.
    pub(crate) fn lease(&self, state: u64, now: Nanos, most: u64) -> u64 {
        let (remaining, _) = self.balance(state, now);
        most.min(remaining / 2)
    }

    /// The state after `units` come back of a lease that has left `left`. Those of a rate come back only if nobody was
    /// charged since: what others have leased afterwards counts on time that these units have paid for (see
    /// [`crate::store::client`]).
    pub(crate) fn return_lease(
        &self,
        state: u64,
        left: u64,
        now: Nanos,
        units: u64,
    ) -> Option<u64> {
        let at = self.at(now);
        let comes_back = match self.time {
            Time::Flowing => state == left && state > at,
            Time::Windows(_) => left > at && state > at,
            Time::Still => false,
        };
        comes_back.then(|| self.refund(state, units).max(at))
    }

    /// The state after `weight`, charged at `taken`, is given back at `now`, as if it had not been charged.
    pub(crate) fn give_back(&self, state: u64, taken: Nanos, now: Nanos, weight: u64) -> u64 {
        match self.time {
            Time::Still => self.less(state, weight),
            _ => Gcra::give_back(state, self.at(taken), self.at(now), weight),
        }
    }

    /// A state without `weight`.
    #[inline]
    pub(crate) fn less(&self, state: u64, weight: u64) -> u64 {
        match (&self.time, state.saturating_sub(weight)) {
            // As if it had never been taken from.
            (Time::Still, ..=Self::STILL) => 0,
            (_, less) => less,
        }
    }

    /// Returns the state with one slot less. `None` for a state without slots: full, a rate's, or busy.
    pub(crate) fn without_slot(state: u64) -> Option<u64> {
        match state {
            ..=Self::STILL | u64::MAX => None,
            _ if state == Self::STILL + 1 => Some(0),
            _ => Some(state - 1),
        }
    }

    /// Units that would be admitted at once, and the nanoseconds until there are more: zero if the
    /// bucket is full, and for slots.
    pub(crate) fn balance(&self, state: u64, now: Nanos) -> (u64, u64) {
        let at = self.at(now);
        let (remaining, next) = self.gcra.balance(state, at);
        match self.time {
            Time::Windows(_) if next > 0 => (remaining, at - now),
            Time::Still => (remaining, 0),
            _ => (remaining, next),
        }
    }

    /// Units that have not come back yet, a part of one counted as one. More than the bucket holds are owed.
    pub(crate) fn used(&self, state: u64, now: Nanos) -> u64 {
        let debt = Gcra::debt(state, self.at(now));
        debt.div_ceil(self.gcra.interval())
    }

    /// Returns whether a state is that of a bucket that was full at `now`, and of which one unit was taken then.
    #[inline]
    pub(crate) fn has_taken_one(&self, state: u64, now: Nanos) -> bool {
        Gcra::debt(state, self.at(now)) == self.gcra.interval()
    }

    /// Nanoseconds until the bucket is full. Nobody knows for slots: zero.
    pub(crate) fn full_in(&self, state: u64, now: Nanos) -> u64 {
        let at = self.at(now);
        match self.time {
            Time::Flowing => Gcra::debt(state, now),
            Time::Windows(_) if state > at => at - now,
            Time::Windows(_) | Time::Still => 0,
        }
    }

    /// Returns the nanoseconds by which the next request of `cost` passes after one. Where nothing comes back by
    /// itself, they are told as if a slot were held for a second; for quotas they are a tenth of a second.
    pub(crate) fn step(&self, cost: u64) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        match self.time {
            Time::Flowing => self.steady(cost),
            Time::Windows(_) => SECOND / 10,
            Time::Still => SECOND / self.gcra.burst(),
        }
    }

    /// Nanoseconds in which an empty bucket is full. What comes back all at once, or nobody knows when, counts as a
    /// second.
    pub(crate) fn refill(&self) -> u64 {
        match self.time {
            Time::Flowing => self.steady(self.gcra.burst()),
            Time::Windows(_) | Time::Still => 1_000_000_000,
        }
    }

    /// Returns the time that `units` take at the steady rate, in nanoseconds. Quotas and slots have no pace: zero.
    pub(crate) fn steady(&self, units: u64) -> u64 {
        match self.time {
            Time::Flowing => units.saturating_mul(self.gcra.interval()),
            Time::Windows(_) | Time::Still => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_window_of_a_charge_is_known_by_the_state_that_it_left(
            days in 0_u64..40_000,
            nanos in 0_u64..86_400_000_000_000,
            count in 1..=86_400_000_000_000_u64,
            used in 0_u64..=86_400_000_000_000,
            kind in 0..3_usize,
        ) {
            let now = days * 86_400_000_000_000 + nanos;
            let quota = [Quota::per_day, Quota::per_week, Quota::per_month][kind](count);
            let meter = Meter::of_quota(&quota).expect("open");
            let state = meter.at(now) + used.clamp(1, count);
            let charged = meter.charged_in(state).expect("it has windows");
            prop_assert!(meter.is_in_one_window(charged, now));
            prop_assert!(!meter.is_in_one_window(charged, meter.at(now)));
        }
    }

    /// A unit comes back each `interval` nanoseconds, up to `burst`.
    fn rate(interval: u64, burst: u64) -> Meter {
        let rate = Rate::new(1, Duration::from_nanos(interval)).burst(burst);
        Meter::of_rate(&rate).expect("an open rate")
    }

    /// `count` in windows of 1,000 nanoseconds.
    fn quota(count: u64) -> Meter {
        Meter::of_quota(&Quota::per(count, Duration::from_nanos(1_000))).expect("an open quota")
    }

    fn slots(count: u64) -> Meter {
        Meter::of_slots(count).expect("some")
    }

    #[test]
    fn a_balance_is_told_by_the_kind_of_its_limit() {
        const TAKEN: u64 = Meter::STILL;
        let (rate, quota, slots) = (rate(100, 3), quota(5), slots(2));
        // (meter, state, now; units left and the time until there are more, units used, time until it is full)
        let table = [
            (rate, 0, 1_000, (3, 0), 0, 0),
            (rate, 1_000, 1_000, (3, 0), 0, 0),
            (rate, 1_001, 1_000, (2, 1), 1, 1),
            (rate, 1_100, 1_000, (2, 100), 1, 100),
            (rate, 1_150, 1_000, (1, 50), 2, 150),
            (rate, 1_450, 1_000, (0, 250), 5, 450),
            (quota, 0, 7, (5, 0), 0, 0),
            (quota, 1_000, 7, (5, 0), 0, 0),
            (quota, 1_002, 7, (3, 993), 2, 993),
            (quota, 1_005, 7, (0, 993), 5, 993),
            (quota, 1_005, 999, (0, 1), 5, 1),
            (quota, 1_005, 1_000, (5, 0), 0, 0),
            (slots, 0, 7, (2, 0), 0, 0),
            (slots, TAKEN + 1, 7, (1, 0), 1, 0),
            (slots, TAKEN + 2, 7, (0, 0), 2, 0),
        ];
        for (meter, state, now, balance, used, full_in) in table {
            let what = format!("{meter:?}, {state} at {now}");
            assert_eq!(meter.balance(state, now), balance, "{what}");
            assert_eq!(meter.used(state, now), used, "{what}");
            assert_eq!(meter.full_in(state, now), full_in, "{what}");
        }
        assert_eq!(rate.fullest(1_000), 1_300);
        assert_eq!(quota.fullest(7), 1_005);
        assert_eq!(quota.capacity(), 5);
        assert_eq!(quota.take(1_004, 7, 1), Ok(1_005));
        assert_eq!(quota.take(1_005, 7, 1), Err(RefusalReason::Wait(993)));
        assert_eq!(quota.take(0, 7, 6), Err(RefusalReason::Never));
    }

    #[test]
    fn no_window_is_longer_than_73_years_and_none_has_fewer_nanoseconds_than_units() {
        let every =
            |count, length| Meter::of_quota(&Quota::per(count, Duration::from_nanos(length)));
        assert!(every(1, 1 << 61).is_some());
        assert_eq!(every(1, (1 << 61) + 1), None);
        assert!(every(1_000, 1_000).is_some());
        assert_eq!(every(1_001, 1_000), None);
        assert_eq!(every(0, 1_000), None);
    }

    #[test]
    fn a_state_is_carried_only_between_meters_that_weigh_otherwise() {
        let (day, week) = (Quota::per_day(9), Quota::per_week(9));
        let [day, week] = [day, week].map(|quota| Meter::of_quota(&quota).expect("open"));
        assert!(rate(100, 3).weighs_as(&rate(100, 4)));
        assert!(!rate(100, 3).weighs_as(&rate(101, 3)));
        assert!(quota(3).weighs_as(&quota(4)));
        assert!(!day.weighs_as(&week));
        assert!(!rate(1, 9).weighs_as(&day));
        assert!(!slots(9).weighs_as(&day));
    }

    #[test]
    fn a_state_that_is_kept_with_its_terms_is_read_in_others() {
        let (rate, quota) = (rate(200, 9), quota(5));
        assert_eq!(rate.terms(7), 200);
        assert_eq!(quota.terms(7), 1_000);
        // (meter, state, its terms, now; the state that it is)
        let table = [
            (rate, 1_500, 100, 1_000, 2_000),
            (rate, 1_500, 200, 1_000, 1_500),
            (rate, 1_500, 300, 1_000, 1_334),
            (rate, 1_001, 0, 1_000, 1_200),
            (rate, 1_000, 100, 1_000, 0),
            (rate, u64::MAX, 1, 1_000, Meter::FARTHEST),
            (quota, 1_002, 1_000, 7, 1_002),
            // The window was another's, which has not ended yet.
            (quota, 5_003, 5_000, 7, 1_003),
            (quota, 1_002, 1_000, 1_000, 0),
            (quota, 1_002, 1_000, 1_001, 0),
        ];
        for (meter, state, terms, now, read) in table {
            let what = format!("{meter:?}, {state} told in {terms} at {now}");
            assert_eq!(meter.read(state, terms, now), read, "{what}");
        }
    }

    #[test]
    fn half_of_what_is_left_may_be_leased() {
        for (state, most, leased) in [(0, 100, 4), (0, 2, 2), (1_300, 100, 3), (1_800, 100, 0)] {
            assert_eq!(
                rate(100, 9).lease(state, 1_000, most),
                leased,
                "{state}, {most}"
            );
        }
    }

    #[test]
    fn a_lease_comes_back_while_what_it_was_taken_from_is_not_full() {
        let (rate, quota, slots) = (rate(100, 9), quota(5), slots(5));
        const ONE: u64 = Meter::STILL + 1;
        // (meter, state, what the lease had left, now, units; the state then)
        let table = [
            (rate, 1_400, 1_400, 1_000, 3, Some(1_100)),
            (rate, 1_400, 1_400, 1_000, 9, Some(1_000)),
            (rate, 1_001, 1_001, 1_000, 1, Some(1_000)),
            // Somebody was charged since.
            (rate, 1_500, 1_400, 1_000, 1, None),
            (rate, 1_000, 1_000, 1_000, 1, None),
            (rate, 900, 900, 1_000, 1, None),
            (quota, 1_004, 1_003, 7, 2, Some(1_002)),
            (quota, 1_004, 1_001, 7, 9, Some(1_000)),
            // Leased in the window before.
            (quota, 2_004, 1_003, 1_007, 2, None),
            (quota, 2_004, 2_000, 1_007, 2, None),
            (quota, 1_000, 1_003, 7, 2, None),
            (slots, ONE, ONE, 7, 1, None),
        ];
        for (meter, state, left, now, units, then) in table {
            let what = format!("{meter:?}, {state} after {left} at {now}");
            assert_eq!(meter.return_lease(state, left, now, units), then, "{what}");
        }
    }

    #[test]
    fn those_who_are_refused_together_are_told_steps_of_a_limit() {
        assert_eq!(rate(100, 9).step(3), 300);
        assert_eq!(rate(100, 9).steady(3), 300);
        assert_eq!(quota(9).step(3), 100_000_000);
        assert_eq!(quota(9).steady(3), 0);
        assert_eq!(slots(4).step(3), 250_000_000);
        assert_eq!(slots(4).steady(3), 0);
    }

    #[test]
    fn what_is_carried_over_is_rounded_against_the_caller() {
        let every = |interval| rate(interval, 9);
        // (nanoseconds owed, of units that weigh, and will weigh; owed then)
        for (owed, from, to, then) in [
            (1, 2, 3, 2),
            (4, 2, 3, 6),
            (1, 3, 1, 1),
            (7, 3, 1, 3),
            (0, 3, 1, 0),
        ] {
            let carried = every(to).carry(&every(from), 1_000 + owed, 1_000);
            let expected = if then > 0 { 1_000 + then } else { 0 };
            assert_eq!(carried, expected, "{owed} of {from} in {to}");
        }
    }

    #[test]
    fn slots_come_back_only_when_they_are_given_back() {
        let slots = Meter::of_slots(2).expect("two");
        let one = slots.take(0, 7, 1).expect("free");
        let two = slots.take(one, 7, 1).expect("free");
        for now in [7, 1 << 40, Timeline::MAX] {
            assert_eq!(slots.take(two, now, 1), Err(RefusalReason::Busy));
            assert_eq!(slots.balance(two, now), (0, 0));
            assert_eq!(slots.balance(one, now), (1, 0));
            assert!(two > now, "a slot that is taken is never a full bucket");
        }
        assert_eq!(slots.refund(two, 1), one);
        assert_eq!(slots.give_back(two, 7, 9, slots.weight(1)), one);
        assert_eq!(slots.give_back(one, 7, 9, slots.weight(1)), 0, "as new");
        assert_eq!(slots.refund(one, 1), 0, "as new");
        assert_eq!(slots.refund(0, 1), 0, "none is made");
        assert_eq!(slots.take(0, 7, 3), Err(RefusalReason::Never));
        assert_eq!(Meter::of_slots(0), None);
        assert!(slots.is_slots() && !rate(100, 3).is_slots() && !quota(3).is_slots());
        let most = Meter::of_slots(u64::MAX).expect("some");
        assert_eq!(most.balance(0, 0), (1 << 62, 0));
    }

    #[test]
    fn what_is_used_beyond_what_was_asked_for_is_owed() {
        let rate = rate(100, 3);
        let owed = rate.owe(0, 1_000, 5);
        assert_eq!(owed, 1_500);
        assert_eq!(rate.take(owed, 1_000, 1), Err(RefusalReason::Wait(300)));
        assert_eq!(rate.refund(owed, 5), 1_000, "full again");
        assert_eq!(rate.balance(rate.refund(owed, 100), 1_000), (3, 0));
    }

    proptest! {
        #[test]
        fn no_debt_overflows(state: u64, now in 0..=Timeline::MAX, units: u64, count in 1..u64::MAX, burst in 1..9u64) {
            if let Some(meter) = Meter::of_rate(&Rate::new(count, Duration::from_secs(9)).burst(burst)) {
                let state = state.min(Meter::FARTHEST);
                let owed = meter.owe(state, now, units);
                prop_assert!(owed >= state && owed <= Meter::FARTHEST);
                let _ = meter.take(owed, now, 1);
                let _ = meter.balance(owed, now);
                prop_assert!(meter.refund(owed, units) <= owed);
            }
        }
    }
}
