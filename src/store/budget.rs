//! The arithmetic of a bucket, for custom stores.

use crate::{
    clock::{Nanos, Timeline},
    limit::{
        gcra::RefusalReason,
        meter::Meter,
        quota::{Quota, Window},
        rate::Rate,
    },
};

/// The allowance of one limit, and the arithmetic on the bucket that a store keeps for it: the generic cell rate
/// algorithm (GCRA), in whole nanoseconds.
///
/// # Two ways to use it
///
/// A store that runs Rust next to its data reads the [entry](Stored) of a bucket, if any, calls [`take`](Self::take),
/// [`owe`](Self::owe), [`refund`](Self::refund), [`undo`](Self::undo), [`lease`](Self::lease) or
/// [`give_back`](Self::give_back), and writes the result, while no other task accesses that bucket:
///
/// ```
/// use tower_throttle::{Rate, store::Budget};
///
/// let budget = Budget::of_rate(&Rate::per_second(10).burst(2)).expect("neither closed nor endless");
/// let now = 1_800_000_000_000_000_000;
/// let once = budget.take(None, now, 1).expect("it is full");
/// let twice = budget.take(Some(once), now, 1).expect("two in a moment");
/// assert_eq!(budget.take(Some(twice), now, 1), Err(twice));
/// assert!(budget.take(Some(twice), now + 100_000_000, 1).is_ok(), "a tenth of a second later");
/// ```
///
/// A store that computes elsewhere (a script in the database, a procedure in SQL) sends [`capacity`](Self::capacity),
/// [`interval`](Self::interval) and [`window`](Self::window) with each charge and does the same arithmetic there.
/// `RedisStore` is such a store, and uses only public items:
///
/// ```
/// use tower_throttle::{Quota, Rate, store::{Budget, Window}};
///
/// // A bucket of 5 units that refills one unit every 250 ms.
/// let rate = Budget::of_rate(&Rate::per_second(4).burst(5)).expect("open");
/// assert_eq!((rate.capacity(), rate.interval(), rate.window()), (5, 250_000_000, None));
/// // A count of 100 units that starts again at midnight UTC.
/// let quota = Budget::of_quota(&Quota::per_day(100)).expect("open");
/// assert_eq!((quota.capacity(), quota.interval(), quota.window()), (100, 1, Some(Window::Day)));
/// ```
///
/// # The state of a bucket
///
/// A bucket is one number, its *state*, a moment in nanoseconds since the Unix epoch:
///
/// - The state of a full bucket is [`full_state(now)`](Self::full_state): `now` for a rate, the end of the present
///   window for a quota. Any earlier state is a full bucket, too.
/// - Each unit in use adds one [`interval`](Self::interval). A rate's bucket refills because `now` advances; a quota's
///   because the next window ends later.
/// - A charge of `cost` units fits if the state after it is at most `full_state(now) + capacity × interval`. Debts
///   ([`owe`](Self::owe)) exceed that, up to [`Stored::LATEST`].
///
/// # Ranges
///
/// Moments are nanoseconds since the Unix epoch, up to 2⁶² (the year 2116); a later `now` counts as 2⁶². A clock that
/// is set back refills nothing. Numbers of units may be anything: `take` refuses more than the bucket holds, and
/// corrections saturate at the ends of the range. No method panics, whatever its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    meter: Meter,
}

/// The entry that a store keeps of a bucket that is not full. No entry means a full bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The state of the bucket, in nanoseconds since the Unix epoch. For a rate, the moment at which the bucket is full
    /// again. For a quota, the end of its window plus one nanosecond for each used unit. At most
    /// [`LATEST`](Self::LATEST).
    pub state: Nanos,
    /// The unit of measure of the state: for a rate the nanoseconds that pay for one unit, for a quota the end of the
    /// window. After a change of settings it converts the units in use.
    ///
    /// Terms have no order: an entry does not show which settings are newer. An entry is in the terms of the last
    /// charge that was taken, [`Owe`](super::Correction::Owe) or [`Refund`](super::Correction::Refund), and is refilled
    /// by them until the next.
    pub terms: u64,
    /// Set if the bucket may owe more than it holds: after units that were used without a charge, or when the bucket
    /// became smaller. If it is not set, a state beyond an empty bucket comes from a clock that was set back, and
    /// counts as an empty bucket.
    pub is_owed: bool,
}

impl Stored {
    /// The latest state of a bucket, 2⁶³: a larger debt counts as this.
    pub const LATEST: Nanos = Meter::FARTHEST;

    /// Returns the moment from which the entry may be dropped: from then on the bucket is full, as it is without an
    /// entry.
    #[must_use]
    pub fn full_at(&self) -> Nanos {
        self.state
    }
}

impl Budget {
    /// Returns the budget of a rate. `None` if it is closed (a count or burst of zero) or takes more than 2⁶²
    /// nanoseconds to fill.
    #[must_use]
    pub fn of_rate(rate: &Rate) -> Option<Self> {
        Meter::of_rate(rate).map(Self::new)
    }

    /// Returns the budget of a quota. `None` if it is zero, its window is zero or longer than 2⁶¹ nanoseconds, or it
    /// has more units than its window has nanoseconds.
    #[must_use]
    pub fn of_quota(quota: &Quota) -> Option<Self> {
        Meter::of_quota(quota).map(Self::new)
    }

    /// Returns the budget of a meter, without its largest cost, which is not the store's concern.
    pub(crate) fn new(meter: Meter) -> Self {
        Self {
            meter: meter.admitting(u64::MAX),
        }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Returns the units that a full bucket holds: a rate's burst, a quota's count. From 1 to 2⁶².
    ///
    /// Times [`interval`](Self::interval) it is at most 2⁶² nanoseconds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.meter.capacity()
    }

    /// Returns the nanoseconds that pay for one unit. From 1 to 2⁶².
    ///
    /// For a rate, its period divided by its count and rounded up, so that one unit is refilled in this time. For a
    /// quota, 1: its units come back all at once, and only their number counts.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.meter.interval()
    }

    /// Returns the window of a quota. `None` for a rate.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        self.meter.window()
    }

    /// Returns the state of a full bucket at `now`: `now` for a rate, the end of the window of `now` for a quota.
    ///
    /// With `units` in use the state is this plus `units ×` [`interval`](Self::interval). For a `now` later than 2⁶²
    /// the result is that for 2⁶².
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_throttle::{Quota, store::Budget};
    ///
    /// let budget = Budget::of_quota(&Quota::per(3, Duration::from_secs(10))).expect("open");
    /// let now = 1_800_000_004_000_000_000;
    /// assert_eq!(budget.full_state(now), 1_800_000_010_000_000_000);
    /// let stored = budget.take(None, now, 2).expect("two of three");
    /// assert_eq!(stored.state, budget.full_state(now) + 2);
    /// ```
    #[must_use]
    pub fn full_state(&self, now: Nanos) -> Nanos {
        self.meter.at(in_range(now))
    }

    /// Returns the entry of a bucket in this state, as of `now`. Use it for a state that was computed elsewhere, or
    /// that of a [`Balance`](super::Balance).
    ///
    /// The entry is [owed](Stored::is_owed) if the state is beyond that of an empty bucket. States above
    /// [`Stored::LATEST`] count as `LATEST`.
    #[must_use]
    pub fn stored(&self, state: Nanos, now: Nanos) -> Stored {
        self.keep(state.min(Stored::LATEST), true, in_range(now))
    }

    /// Returns the units that a charge could take at `now`: the [capacity](Self::capacity) if nothing is stored, zero
    /// if units are owed.
    ///
    /// ```
    /// use tower_throttle::{Rate, store::Budget};
    ///
    /// let budget = Budget::of_rate(&Rate::per_second(4).burst(5)).expect("open");
    /// let now = 1_800_000_000_000_000_000;
    /// let stored = budget.take(None, now, 3).ok();
    /// assert_eq!(budget.remaining(stored, now), 2);
    /// assert_eq!(budget.remaining(stored, now + 250_000_000), 3);
    /// assert_eq!(budget.remaining(None, now), 5);
    /// ```
    #[must_use]
    pub fn remaining(&self, stored: Option<Stored>, now: Nanos) -> u64 {
        let now = in_range(now);
        let (state, _) = self.read(stored, now);
        self.meter.balance(state, now).0
    }

    /// Returns the stored state, converted to these terms at `now`, and at most that of an empty bucket unless it is
    /// owed.
    fn read(&self, stored: Option<Stored>, now: Nanos) -> (Nanos, bool) {
        let (state, is_owed) = self.read_all(stored, now);
        match is_owed {
            true => (state, true),
            false => (state.min(self.meter.fullest(now)), false),
        }
    }

    /// Returns the stored state, converted to these terms, however much the bucket holds: used units stay used,
    /// whatever they weighed. Corrections begin here, so that a larger bucket of other terms is not cut.
    fn read_all(&self, stored: Option<Stored>, now: Nanos) -> (Nanos, bool) {
        let Some(Stored {
            state,
            terms,
            is_owed,
        }) = stored.filter(|stored| stored.state > now)
        else {
            return (0, false);
        };
        let own = self.meter.terms(now);
        let most = self.meter.fullest(now);
        if terms == own {
            return (state, is_owed && state > most);
        }
        let state = self.meter.read(state, terms, now);
        (state, state > most)
    }

    /// Returns whether something is in use by an entry in other terms.
    fn is_foreign(&self, stored: &Stored, now: Nanos) -> bool {
        stored.state > now && stored.terms != self.meter.terms(now)
    }

    fn keep(&self, state: Nanos, is_owed: bool, now: Nanos) -> Stored {
        Stored {
            state,
            terms: self.meter.terms(now),
            is_owed: is_owed && state > self.meter.fullest(now),
        }
    }

    /// Returns the entry after a charge of `cost` units. Zero always fits and changes no debt, even one above what the
    /// bucket holds. An entry in other [terms](Stored::terms) is then converted to those of this budget, and need not
    /// be written.
    ///
    /// # Errors
    ///
    /// The unchanged entry, which need not be written, if the bucket does not hold enough. A cost above the
    /// [capacity](Self::capacity) never fits.
    pub fn take(&self, stored: Option<Stored>, now: Nanos, cost: u64) -> Result<Stored, Stored> {
        let now = in_range(now);
        let (state, is_owed) = self.read(stored, now);
        let taken = self.meter.take(state, now, cost);
        match taken {
            Ok(next) if cost > 0 => Ok(self.keep(next, is_owed, now)),
            _ => {
                let (whole, is_owed) = self.read_all(stored, now);
                let as_it_is = self.keep(whole, is_owed, now);
                taken.map(|_| as_it_is).map_err(|_| as_it_is)
            }
        }
    }

    /// Returns the entry after `units` were used without a charge. Units that the bucket does not hold are owed, up to
    /// [`Stored::LATEST`].
    #[must_use]
    pub fn owe(&self, stored: Option<Stored>, now: Nanos, units: u64) -> Stored {
        let now = in_range(now);
        let (state, _) = self.read_all(stored, now);
        self.keep(self.meter.owe(state, now, units), true, now)
    }

    /// Returns the entry after `units` came back, at most as many as the bucket holds.
    #[must_use]
    pub fn refund(&self, stored: Option<Stored>, now: Nanos, units: u64) -> Stored {
        let now = in_range(now);
        let (state, _) = self.read_all(stored, now);
        self.keep(self.meter.refund(state, units), true, now)
    }

    /// Returns the entry after a charge of `units`, made at `taken`, was undone: its units come back, less those
    /// refilled since.
    ///
    /// An entry in other [terms](Stored::terms) is returned unchanged: the units stay taken, since it is unknown how
    /// many of them were refilled since. See [`Correction::Undo`](super::Correction::Undo).
    ///
    /// More units than the [capacity](Self::capacity), which no charge can have taken, change nothing. A `taken` later
    /// than `now` counts as `now`.
    #[must_use]
    pub fn undo(&self, stored: Option<Stored>, taken: Nanos, now: Nanos, units: u64) -> Stored {
        let now = in_range(now);
        if let Some(foreign) = stored.filter(|stored| self.is_foreign(stored, now)) {
            return foreign;
        }
        let (state, _) = self.read_all(stored, now);
        let weight = self.meter.weight(units);
        let state = self.meter.give_back(state, in_range(taken), now, weight);
        self.keep(state, true, now)
    }

    /// Returns how many units of a lease may be taken besides a charge that has left `stored`: at most `most`, and at
    /// most half of the remaining units, so that other processes find some, too.
    #[must_use]
    pub fn lease(&self, stored: Option<Stored>, now: Nanos, most: u64) -> u64 {
        let now = in_range(now);
        let (state, _) = self.read(stored, now);
        self.meter.lease(state, now, most)
    }

    /// Returns the entry after `units` of a lease came back, which had left the bucket in the state `left`. `None` if
    /// they stay taken and nothing has to be written, as for an entry in other [terms](Stored::terms): see
    /// [`Correction::Return`](super::Correction::Return).
    #[must_use]
    pub fn give_back(
        &self,
        stored: Option<Stored>,
        left: Nanos,
        now: Nanos,
        units: u64,
    ) -> Option<Stored> {
        let now = in_range(now);
        if stored.is_some_and(|stored| self.is_foreign(&stored, now)) {
            return None;
        }
        let (state, _) = self.read_all(stored, now);
        let state = self.meter.return_lease(state, left, now, units)?;
        Some(self.keep(state, true, now))
    }

    /// Returns the time until `cost` fits, in nanoseconds, if nothing else is taken: zero if it fits now, `None` if it
    /// never does, since it is above the [capacity](Self::capacity).
    #[must_use]
    pub fn wait(&self, stored: Option<Stored>, now: Nanos, cost: u64) -> Option<Nanos> {
        let now = in_range(now);
        let (state, _) = self.read(stored, now);
        match self.meter.take(state, now, cost) {
            Ok(_) => Some(0),
            Err(RefusalReason::Wait(wait)) => Some(wait),
            Err(_) => None,
        }
    }
}

/// Clamps a moment to the range of the arithmetic.
fn in_range(now: Nanos) -> Nanos {
    now.min(Timeline::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = u64> {
        let near = |number: u64| (0..4_u64).prop_map(move |more| number.saturating_add(more));
        prop_oneof![
            0..4_u64,
            near(Timeline::MAX - 2),
            near(Stored::LATEST - 2),
            near(u64::MAX - 3),
            1_700_000_000_000_000_000..1_900_000_000_000_000_000_u64,
            any::<u64>(),
        ]
    }

    fn budget() -> impl Strategy<Value = Budget> {
        let rate =
            (number(), number(), number()).prop_filter_map("open", |(count, period, burst)| {
                Budget::of_rate(&Rate::new(count, Duration::from_nanos(period)).burst(burst))
            });
        let every = |(count, length)| Quota::per(count, Duration::from_nanos(length));
        let quota = prop_oneof![
            number().prop_map(Quota::per_day),
            number().prop_map(Quota::per_week),
            number().prop_map(Quota::per_month),
            (number(), number()).prop_map(every),
        ];
        let quota = quota.prop_filter_map("open", |quota| Budget::of_quota(&quota));
        prop_oneof![rate, quota]
    }

    fn entry() -> impl Strategy<Value = Option<Stored>> {
        let entry = (number(), number(), any::<bool>());
        let entry = entry.prop_map(|(state, terms, is_owed)| Stored {
            state,
            terms,
            is_owed,
        });
        prop::option::of(entry)
    }

    #[test]
    fn what_takes_nothing_leaves_what_is_owed_above_a_burst_that_has_shrunk() {
        let budget = |burst| Budget::of_rate(&Rate::per_hour(1).burst(burst)).expect("open");
        let (large, small) = (budget(20), budget(5));
        let now = 1_800_000_000_000_000_000;
        let used = large.take(None, now, 15).expect("fifteen of twenty");
        assert_eq!(small.take(Some(used), now, 0), Ok(used), "nothing is taken");
        assert_eq!(small.take(Some(used), now, 1), Err(used), "it is refused");
    }

    proptest! {
        #[test]
        fn nothing_that_a_store_may_ask_panics(
            budget in budget(), stored in entry(), now in number(), other in number(), units in number(),
        ) {
            let weight = u128::from(budget.interval()) * u128::from(budget.capacity());
            prop_assert!(budget.interval() > 0 && budget.capacity() > 0 && weight <= 1 << 62);
            let full = budget.full_state(now);
            prop_assert!(full >= now.min(1 << 62));
            prop_assert_eq!(budget.remaining(None, now), budget.capacity());
            prop_assert_eq!(budget.wait(None, now, budget.capacity()), Some(0));
            let remaining = budget.remaining(stored, now);
            prop_assert_eq!(budget.take(stored, now, units).is_ok(), units <= remaining);
            prop_assert_eq!(budget.wait(stored, now, units) == Some(0), units <= remaining);
            prop_assert_eq!(budget.wait(stored, now, units).is_none(), units > budget.capacity());
            prop_assert!(budget.lease(stored, now, units) <= units.min(remaining / 2));
            prop_assert!(budget.remaining(Some(budget.owe(stored, now, units)), now) <= remaining);
            prop_assert!(budget.remaining(Some(budget.refund(stored, now, units)), now) >= remaining);
            let undone = budget.undo(stored, other, now, units);
            prop_assert!(budget.remaining(Some(undone), now) >= remaining);
            let given = budget.give_back(stored, other, now, units);
            prop_assert!(given.is_none_or(|given| budget.remaining(Some(given), now) >= remaining));
            let nothing = budget.take(stored, now, 0).expect("zero always fits");
            prop_assert_eq!(budget.refund(Some(nothing), now, units), budget.refund(stored, now, units));
            let foreign = |entry: &Stored| budget.is_foreign(entry, now.min(1 << 62));
            if let Some(entry) = stored.filter(foreign) {
                prop_assert_eq!((undone, given), (entry, None));
            }
            let told = budget.stored(other, now);
            prop_assert!(told.state <= Stored::LATEST && told.full_at() == told.state);
        }
    }
}
