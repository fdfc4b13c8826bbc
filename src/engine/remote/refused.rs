//! The end of an attempt that is refused while balances are in a store: it waits in a queue, or is answered.
//!
//! # Invariants
//!
//! - **A wait is computed from all balances** while the store is up. If some are unknown, the store is asked for them
//!   before a refusal is sent. If a limit with a local balance refuses, its wait alone is stated.
//! - **A queued request waits no longer than it may**, whatever the store answers. If a store contradicts itself,
//!   refusing although there is room, it is asked again after a pause, and not at once.
//! - **Nothing is held here**: slots and leased units have gone back before.

use super::super::{
    outcome::{Applied, Outcome},
    pending::{Attempt, Progress, Ruling, Wait},
};
use crate::{
    clock::{Nanos, nanos},
    limiter::{
        queue::{QueueAnswer, QueueMoment, Retry},
        readings::LimitReadings,
    },
    store::client::{CachedView, LeasedUnits, StoreClient},
};

/// The readings of a refused request's buckets, at a moment of the store's clock.
pub(super) struct RefusedReadings {
    /// One for each limit, in their order.
    pub(super) readings: LimitReadings,
    /// The moment, by which waits are told from them.
    pub(super) at: Nanos,
    /// True if all balances are known. Else no wait is to be told from them.
    pub(super) is_known: bool,
    /// True if the store has just told them. Then it is not asked again at once, whatever room they tell of.
    pub(super) is_told: bool,
}

impl From<CachedView> for RefusedReadings {
    fn from(cached_view: CachedView) -> Self {
        let CachedView {
            readings,
            at,
            is_known,
            is_denied: _,
        } = cached_view;
        Self {
            readings,
            at,
            is_known,
            is_told: false,
        }
    }
}

impl Attempt<'_> {
    /// Goes on with a request that is refused by what lies in this process. `held` are the readings of that.
    ///
    /// If none of its limits has a wait policy, and not all buckets are known, it is refused by these alone: that costs
    /// no question.
    pub(super) fn refused_here(
        &self,
        store: &StoreClient,
        held: LimitReadings,
        now: Nanos,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        // By slots: a look at all of them tells which.
        let view = self.cached_view(store, now, &LeasedUnits::default());
        let is_told_by_all = self.limits.limit_set.is_patient || view.is_known;
        if is_told_by_all && !self.asks_at_once() {
            return self.refused(view.into(), progress, outcome);
        }
        (outcome.applied, *outcome.readings) = (Applied::Held, held);
        outcome.at = now;
        Ruling::Deny
    }

    /// Refuses work that may not wait, by what is known without a call: by a limit, or by those who wait before it.
    pub(super) fn refused_at_once(
        &self,
        found: RefusedReadings,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        let RefusedReadings {
            mut readings,
            at,
            is_known,
            is_told: _,
        } = found;
        let limit_set = &self.limits.limit_set;
        let limiter = &self.rules.limiter;
        limiter.name_refusal(limit_set, self.demand, at, &mut readings);
        self.deny(readings, at, is_known, outcome)
    }

    /// The time for which a request waits before it asks a store again whose answer says both that it is refused and
    /// that there is room for it: a millisecond.
    const PAUSE: Nanos = 1_000_000;

    /// Returns whether it has waited for as long as it may: the least `max_wait` of its limits, or what the client
    /// itself waits if that is less. Where neither is set, it may not wait at all.
    fn has_waited(&self, now: Nanos) -> bool {
        let waits = self.limits.limit_set.enforced();
        let waits = waits.filter_map(|bound| bound.limit.wait_policy);
        let waits = waits.map(|policy| policy.max_wait);
        let longest = waits.chain(self.timeout()).min();
        now.saturating_sub(self.arrived) >= longest.unwrap_or(0)
    }

    /// Names the first limit that lies in the store, where that has refused a request and tells of no bucket that does:
    /// a denial names one limit at least.
    pub(super) fn name_refusal_there(&self, readings: &mut LimitReadings, at: Nanos) {
        let enforced = || self.limits.limit_set.enforced().enumerate();
        let refuses = enforced().any(|(index, bound)| {
            let reading = readings[index];
            let refusal = bound.refusal(reading.state, at, reading.cost);
            refusal.is_some()
        });
        let mut there = enforced().filter(|(_, bound)| bound.id.is_some());
        if let Some((index, _)) = there.next().filter(|_| !refuses) {
            readings[index].refused = true;
        }
    }

    /// Goes on with a request that is refused by what was found: it stands in line, or goes.
    ///
    /// One that has no place joins a line behind those who wait, if it may wait once these are charged. When it asks
    /// next follows from `found` as it is.
    pub(super) fn refused(
        &self,
        found: RefusedReadings,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        let RefusedReadings {
            mut readings,
            at,
            is_known,
            is_told,
        } = found;
        let limit_set = &self.limits.limit_set;
        if !limit_set.is_patient {
            return self.deny_or_peek(readings, at, is_known, progress, outcome);
        }
        let limiter = &self.rules.limiter;
        let moment = QueueMoment {
            now: limiter.now(),
            at,
            arrived: self.arrived,
        };
        // The queue returns the others as if the requests ahead had been charged.
        let before = readings.clone();
        let timeout = self.timeout();
        let waiter = match &mut progress.waiter {
            Some(waiter) => waiter,
            none => match limiter.queue(limit_set, self.demand, moment, timeout, &mut readings) {
                Some(QueueAnswer::Waits(waiter)) => none.insert(waiter),
                Some(_) => return self.deny_or_peek(readings, at, is_known, progress, outcome),
                None if is_told && self.has_waited(moment.now) => {
                    return self.deny_or_peek(readings, at, is_known, progress, outcome);
                }
                // The store refuses what it tells to be there.
                None if is_told => {
                    let until = moment.now.saturating_add(Self::PAUSE);
                    return Ruling::Wait(Wait::in_line(until));
                }
                // The units that were missing have come back.
                None => return Ruling::Wait(Wait::again()),
            },
        };
        match waiter.refused(limit_set, self.demand, moment, &before) {
            // The store is not asked again at once, whatever balance it reports.
            Retry::At(until) if is_told => {
                let earliest = moment.now.saturating_add(Self::PAUSE);
                let until = until.max(earliest).min(waiter.deadline());
                Ruling::Wait(Wait::in_line_until(until, 0))
            }
            Retry::At(until) => Ruling::Wait(Wait::in_line_until(until, 0)),
            // A unit that comes free before the waker is entered wakes nothing: then the request asks once more.
            Retry::Woken(until) if progress.is_entered => {
                Ruling::Wait(Wait::in_line(self.or_lost(until)))
            }
            Retry::Woken(_) | Retry::Elsewhere => Ruling::Wait(Wait::again()),
            Retry::Never => self.deny_or_peek(readings, at, is_known, progress, outcome),
        }
    }

    /// Refuses it, if all buckets are known. Otherwise the store is asked for what they hold: from less than that no
    /// wait is told.
    fn deny_or_peek(
        &self,
        readings: LimitReadings,
        at: Nanos,
        is_known: bool,
        progress: &Progress,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        // After a second attempt the wait of the first one is told.
        let is_told = progress.first_refusal.is_none();
        if is_told && !is_known && !self.is_refused_here(&readings, at) {
            if let Some(wait) = self.peek(progress, false) {
                return Ruling::Wait(wait);
            }
        }
        self.deny(readings, at, is_known, outcome)
    }

    /// Refuses it, since it has stood in line for long enough. If not all buckets are known, the store is asked for
    /// them first, and the request is refused by the answer, whatever that is.
    pub(in crate::engine) fn gives_up(
        &self,
        store: &StoreClient,
        now: Nanos,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        let limiter = &self.rules.limiter;
        let view = self.cached_view(store, now, &LeasedUnits::default());
        let RefusedReadings {
            mut readings,
            at,
            is_known,
            is_told: _,
        } = view.into();
        if !is_known && !self.is_refused_here(&readings, at) {
            // The request has left its queue, since a place must not be kept while the store is asked.
            if let Some(wait) = self.peek(&Progress::default(), true) {
                return Ruling::Wait(wait);
            }
        }
        limiter.name_refusal(&self.limits.limit_set, self.demand, at, &mut readings);
        self.deny(readings, at, is_known, outcome)
    }

    /// Asks the store for what the buckets hold, and notes for a place in line by when it has answered. `None` if it is
    /// down.
    fn peek(&self, progress: &Progress, is_over: bool) -> Option<Wait> {
        let store = self.rules.store.as_ref().filter(|store| !store.is_down())?;
        let deadline = self.engine.options.store_deadline;
        let call = store.peek(&self.limits.limit_set, self.demand, deadline);
        if let Some(waiter) = &progress.waiter {
            let now = self.rules.limiter.now();
            waiter.asks_by(now.saturating_add(nanos(deadline)));
        }
        Some(Wait::Peek {
            call: Box::new(call),
            is_over,
        })
    }

    /// Returns whether a limit has refused whose balance lies in this process: it is told alone, and costs no question.
    fn is_refused_here(&self, readings: &LimitReadings, at: Nanos) -> bool {
        let pairs = self.limits.limit_set.enforced().zip(readings.as_slice());
        let mut here = pairs.filter(|(bound, _)| bound.id.is_none());
        here.any(|(bound, reading)| {
            let refusal = bound.refusal(reading.state, at, reading.cost);
            reading.refused || refusal.is_some()
        })
    }

    /// Refuses it. All limits are told, or those of this process if no more is known. `outcome` comes without readings.
    pub(super) fn deny(
        &self,
        readings: LimitReadings,
        at: Nanos,
        is_known: bool,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        outcome.at = at;
        if is_known || !self.is_refused_here(&readings, at) {
            *outcome.readings = readings;
            return Ruling::Deny;
        }
        outcome.applied = Applied::Held;
        let pairs = self.limits.limit_set.limits.iter().zip(readings.as_slice());
        let here = pairs.filter(|(bound, _)| bound.id.is_none());
        here.for_each(|(_, reading)| outcome.readings.push(*reading));
        Ruling::Deny
    }
}
