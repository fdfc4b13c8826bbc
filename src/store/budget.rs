//! The arithmetic of a bucket, for those who keep it elsewhere.

use crate::{
    clock::Nanos,
    limit::{meter::Meter, quota::Quota, rate::Rate},
};

/// What one limit allows, and the arithmetic on what a store keeps of its bucket: the generic cell rate algorithm, in
/// whole nanoseconds.
///
/// A store reads what it has [kept](Stored) of a bucket, or nothing, asks this, and writes what it is told, all of it
/// while nobody else does.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    meter: Meter,
}

/// What a store keeps of a bucket that is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Nanoseconds since the Unix epoch. For a rate, when the bucket is full again. For a quota, the end of its window
    /// and one nanosecond more for each unit that was used in it.
    pub state: Nanos,
    /// What the state is told in: for a rate the nanoseconds that pay for one unit, for a quota the end of the window.
    pub terms: u64,
    /// Whether more may be owed than the bucket holds: for units that were used without having been asked for, or
    /// before it became smaller. Where it is not, more than that is the doing of a clock that was set back.
    pub is_owed: bool,
}

impl Stored {
    /// When it may be forgotten: at that moment the bucket is full, which is what no entry means, too.
    #[must_use]
    pub fn full_at(&self) -> Nanos {
        self.state
    }
}

impl Budget {
    /// Of a rate. `None` if it is closed or takes more than 2⁶² nanoseconds to fill.
    #[must_use]
    pub fn of_rate(rate: &Rate) -> Option<Self> {
        Meter::of_rate(rate).map(Self::new)
    }

    /// Of a quota. `None` if it is zero, its window is longer than 2⁶¹ nanoseconds, or it has more units than its
    /// window has nanoseconds.
    #[must_use]
    pub fn of_quota(quota: &Quota) -> Option<Self> {
        Meter::of_quota(quota).map(Self::new)
    }

    /// What a meter allows. The largest cost is not the store's concern.
    pub(crate) fn new(meter: Meter) -> Self {
        Self {
            meter: meter.admitting(u64::MAX),
        }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Units that a full bucket holds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.meter.capacity()
    }

    /// The state that is kept, read in these terms at `now`, and no more than the bucket holds unless that is owed.
    fn read(&self, stored: Option<Stored>, now: Nanos) -> (Nanos, bool) {
        let (state, is_owed) = self.read_all(stored, now);
        match is_owed {
            true => (state, true),
            false => (state.min(self.meter.fullest(now)), false),
        }
    }

    /// The same, whatever the bucket holds: what was used stays used, in units, whatever they weighed. Corrections
    /// begin here, for where another's bucket is larger it is not forgotten.
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

    fn keep(&self, state: Nanos, is_owed: bool, now: Nanos) -> Stored {
        Stored {
            state,
            terms: self.meter.terms(now),
            is_owed: is_owed && state > self.meter.fullest(now),
        }
    }

    /// What is kept after a charge of `cost`.
    ///
    /// # Errors
    ///
    /// If the bucket does not hold it: what is kept then, which need not be written.
    pub fn take(&self, stored: Option<Stored>, now: Nanos, cost: u64) -> Result<Stored, Stored> {
        let (state, is_owed) = self.read(stored, now);
        match self.meter.take(state, now, cost) {
            Ok(next) => Ok(self.keep(next, is_owed, now)),
            Err(_) => Err(self.keep(state, is_owed, now)),
        }
    }

    /// What is kept after `units` that were used without having been asked for.
    #[must_use]
    pub fn owe(&self, stored: Option<Stored>, now: Nanos, units: u64) -> Stored {
        let (state, _) = self.read_all(stored, now);
        self.keep(self.meter.owe(state, now, units), true, now)
    }

    /// What is kept after `units` that come back, no more than the bucket holds.
    #[must_use]
    pub fn refund(&self, stored: Option<Stored>, now: Nanos, units: u64) -> Stored {
        let (state, _) = self.read_all(stored, now);
        self.keep(self.meter.refund(state, units), true, now)
    }

    /// What is kept after a charge of `units`, made at `taken`, is taken back as if it had not been made.
    #[must_use]
    pub fn undo(&self, stored: Option<Stored>, taken: Nanos, now: Nanos, units: u64) -> Stored {
        let (state, _) = self.read_all(stored, now);
        let weight = self.meter.weight(units);
        let state = self.meter.give_back(state, taken, now, weight);
        self.keep(state, true, now)
    }

    /// How many units of a lease may be taken beside a charge that has left this: no more than half of what is left, so
    /// that others find something, too.
    #[must_use]
    pub fn lease(&self, stored: Option<Stored>, now: Nanos, most: u64) -> u64 {
        let (state, _) = self.read(stored, now);
        self.meter.lease(state, now, most)
    }

    /// What is kept after `units` of a lease come back that has left `left`. `None` if they stay taken: see
    /// [`Correction::Return`](super::Correction::Return).
    #[must_use]
    pub fn give_back(
        &self,
        stored: Option<Stored>,
        left: Nanos,
        now: Nanos,
        units: u64,
    ) -> Option<Stored> {
        let (state, _) = self.read_all(stored, now);
        let state = self.meter.return_lease(state, left, now, units)?;
        Some(self.keep(state, true, now))
    }

    /// How long until `cost` passes if nobody else takes it, in nanoseconds; zero if it does now, `None` if it never
    /// does.
    #[must_use]
    pub fn wait(&self, stored: Option<Stored>, now: Nanos, cost: u64) -> Option<Nanos> {
        let (state, _) = self.read(stored, now);
        match self.meter.take(state, now, cost) {
            Ok(_) => Some(0),
            Err(crate::limit::gcra::Refusal::Wait(wait)) => Some(wait),
            Err(_) => None,
        }
    }
}
