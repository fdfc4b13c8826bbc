//! What a limit allows, as arithmetic on the state of its bucket: a rate or a quota.
//!
//! Both are the same arithmetic on different clocks. A rate's bucket lives on the throttle's clock. A
//! quota's lives on one that stands at the end of the present window and jumps when the next begins, with
//! one nanosecond for each unit: its state lies as many nanoseconds after the end of the window as units
//! were taken in it, and with the jump to the next end the bucket is full again. A state of either kind
//! that is not after the throttle's own clock is thus a full bucket.

use crate::{
    calendar::Calendar,
    clock::{Clock, Nanos, nanos},
    gcra::{Gcra, Refusal},
    quota::Quota,
    rate::Rate,
};

/// What a limit allows. A closed limit has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meter {
    gcra: Gcra,
    /// `None`: a rate.
    calendar: Option<Calendar>,
}

impl Meter {
    /// `None` if the rate is closed, or its bucket would take too long to fill.
    pub(crate) fn of_rate(rate: &Rate) -> Option<Self> {
        let gcra = Gcra::new(rate.count(), nanos(rate.period()), rate.burst_limit())?;
        Some(Self {
            gcra,
            calendar: None,
        })
    }

    /// The longest window, 73 years: so that its end, and a whole quota above it, stay in range.
    const LONGEST: u64 = Clock::MAX / 2;

    /// `None` if the quota is zero, its window too long, or if it has more units than that has nanoseconds.
    pub(crate) fn of_quota(quota: &Quota, clock: &Clock) -> Option<Self> {
        let gcra = Gcra::new(1, 1, quota.count())?;
        let window = nanos(quota.shortest());
        (quota.count() <= window && window <= Self::LONGEST).then(|| Self {
            gcra,
            calendar: Some(Calendar::new(quota.kind(), clock.origin())),
        })
    }

    /// Units a full bucket holds.
    pub(crate) fn capacity(&self) -> u64 {
        self.gcra.burst()
    }

    /// The bucket's own time.
    #[inline]
    fn at(&self, now: Nanos) -> Nanos {
        self.calendar.map_or(now, |calendar| calendar.end(now))
    }

    /// The state after a charge of `cost`, or why it is refused.
    #[inline]
    pub(crate) fn take(&self, state: u64, now: Nanos, cost: u64) -> Result<u64, Refusal> {
        let at = self.at(now);
        self.gcra
            .take(state, at, cost)
            .map_err(|refusal| match refusal {
                Refusal::Wait(_) if self.calendar.is_some() => Refusal::Wait(at - now),
                other => other,
            })
    }

    /// What `cost` units weigh in a state.
    pub(crate) fn weight(&self, cost: u64) -> u64 {
        self.gcra.weight(cost).unwrap_or(0)
    }

    /// The state after `weight`, charged at `taken`, is given back at `now`.
    pub(crate) fn give_back(&self, state: u64, taken: Nanos, now: Nanos, weight: u64) -> u64 {
        Gcra::give_back(state, self.at(taken), self.at(now), weight)
    }

    /// Units that would be admitted at once, and the nanoseconds until there are more: zero if the
    /// bucket is full.
    pub(crate) fn balance(&self, state: u64, now: Nanos) -> (u64, u64) {
        let at = self.at(now);
        let (remaining, next) = self.gcra.balance(state, at);
        match self.calendar {
            Some(_) if next > 0 => (remaining, at - now),
            _ => (remaining, next),
        }
    }

    /// Nanoseconds until the bucket is full.
    pub(crate) fn full_in(&self, state: u64, now: Nanos) -> u64 {
        let at = self.at(now);
        match self.calendar {
            Some(_) if state > at => at - now,
            Some(_) => 0,
            None => Gcra::debt(state, now),
        }
    }

    /// What `units` take at the steady rate, in nanoseconds. A quota has no pace: zero.
    pub(crate) fn steady(&self, units: u64) -> u64 {
        match self.calendar {
            Some(_) => 0,
            None => units.saturating_mul(self.gcra.interval()),
        }
    }
}
