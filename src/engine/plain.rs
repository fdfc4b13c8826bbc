//! Attempts by plain limits, which decide on most requests.
//!
//! [`plain`] charges them and leaves only states. This module turns the states into the cheapest result: a request
//! without fields passes, one with fields gets them written when its response is ready, and a refused one gets a copy
//! of a cached answer. [`Attempt::admit`] and [`Attempt::refuse`] do the rest, as for any limits, from readings made of
//! the states.
//!
//! # Invariants
//!
//! - **Same results as from readings**: the same fields, the same answer, the same decision.
//! - **Counted once**, on the route and the limits, and by the meters, as in the general way.
//! - **Nothing is counted or answered before all limits have decided.** Otherwise the attempt goes on in the general
//!   way as if it were new.
//!
//! `decide` calls it for limits that [are plain](crate::limiter::limit_set::LimitSet::is_plain) and are in this
//! process.

use std::sync::Arc;

use super::{
    options::Options,
    outcome::{Decided, Outcome, Refusal, Ticket},
    pending::Attempt,
    route_limits::RouteLimits,
};
use crate::{
    decision::Decision,
    limit::{gcra::RefusalReason, meter::Meter},
    limiter::{
        plain::{self, PlainAnswer, PlainStates},
        readings::LimitReadings,
    },
    response::{
        Answer, KeptAnswer,
        fields::{RateLimitFields, UnwrittenFields},
    },
};

impl Attempt<'_> {
    /// Asks plain limits, and takes one unit of each or none.
    #[inline(always)]
    pub(super) fn ask_plain(&self) -> PlainAnswer {
        let (limit_set, limiter) = (&self.limits.limit_set, &self.rules.limiter);
        let (demand, arrived) = (self.demand, self.arrived);
        let clock = || limiter.now_ordered();
        let gave_back = || limiter.wake_for_slots(limit_set, demand);
        let table = &limiter.clients;
        plain::take(limit_set, table, demand, arrived, clock, gave_back)
    }

    /// Admits a request as plain limits have it.
    #[inline(always)]
    pub(super) fn admit_plain(&self, states: PlainStates) -> Decided {
        if !self.is_told() {
            return self.limits.untold(self.demand);
        }
        if !self.engine.options.decision.anywhere() && self.tells_fields_alone() {
            self.limits.count_admitted();
            return Decided::Admit(self.fields(states, None));
        }
        self.tell_plain(true, states)
    }

    /// Returns whether a request that plain limits have admitted holds nothing, and its response is told no fields but
    /// the IETF's.
    #[inline(always)]
    fn tells_fields_alone(&self) -> bool {
        let options = &self.engine.options;
        let may_be_told_more = options.tells_more || self.rules.rejections.is_some();
        !may_be_told_more
            && !self.limits.limit_set.has_slots
            && RateLimitFields::fit(self.head.method())
    }

    /// Returns the ticket with the fields of plain limits, and the decision for the request, if that is told it.
    #[inline(always)]
    fn fields(&self, states: PlainStates, decision: Option<Decision>) -> Ticket {
        let (templates, now) = (&self.limits.templates, self.arrived);
        match templates.are_first(states.as_slice(), now) {
            true => Ticket::Written(Arc::clone(templates), decision),
            false => Ticket::Unwritten(UnwrittenFields::new(templates, states, now), decision),
        }
    }

    /// Refuses the request as plain limits have it: by the answer that is kept for all who are told the same, if there
    /// is one, and as [`refuse`](Self::refuse) does if there is none.
    #[inline(never)]
    pub(super) fn refuse_plain(&self, states: PlainStates) -> Decided {
        match self.kept_answer(&states) {
            Some(answer) => Decided::Refuse(Refusal::Answered(Answer::Kept(answer))),
            None => self.tell_plain(false, states),
        }
    }

    /// Returns the kept answer to a request that one of its plain limits refuses, counts and logs it. `None`: it is not
    /// kept, or more is to be told or done than that, and nothing is counted.
    #[inline]
    fn kept_answer(&self, states: &PlainStates) -> Option<KeptAnswer> {
        let (options, now) = (&self.engine.options, self.arrived);
        let is_written = options.rejection.is_some() || self.rules.rejections.is_some();
        if is_written || options.stagger_retry_after || !self.may_be_kept(self.framing()) {
            return None;
        }
        let RouteLimits {
            limit_set,
            templates,
            meters,
            ..
        } = self.limits;
        let limits = limit_set.limits.iter().zip(states.iter()).enumerate();
        let mut only = None;
        for (index, (bound, state)) in limits.clone() {
            match bound.refusal(state, now, 1) {
                None => {}
                Some(RefusalReason::Wait(wait)) if only.is_none() => only = Some((index, wait)),
                Some(_) => return None,
            }
        }
        let (limit, wait) = only?;
        let others = limits.filter(|(index, _)| *index != limit);
        let others = others.map(|(_, (bound, state))| {
            let balance = |meter: &Meter| meter.balance(state, now);
            let limit = &bound.limit;
            (limit, limit.meter.as_ref().map_or((0, 0), balance))
        });
        let refusals = &self.engine.refusals;
        let answer = refusals.find(templates, limit, wait, others)?;
        let bound = &limit_set.limits[limit];
        limit_set.counters.refused.add(1);
        meters.refused();
        bound.counters.refused.add(1);
        meters.by_limit(limit);
        self.rules.log.refused_by(bound, limit_set, wait, now);
        Some(answer)
    }

    /// Admits or refuses a request as plain limits have it, and tells it their `states`.
    #[inline(never)]
    fn tell_plain(&self, is_admitted: bool, states: PlainStates) -> Decided {
        if is_admitted && self.tells_request() {
            let limit_set = Arc::clone(&self.limits.limit_set);
            let decision = Decision::plain(limit_set, states, self.arrived);
            self.limits.count_admitted();
            return Decided::Admit(self.fields(states, Some(decision)));
        }
        let mut readings = LimitReadings::default();
        states.tell(&mut readings);
        let mut outcome = Outcome::new(self.arrived, &mut readings);
        match is_admitted {
            true => self.admit(&mut outcome),
            false => self.refuse(&mut outcome),
        }
    }

    /// Returns whether an admitted request is told the decision, and its response fields alone.
    #[inline(always)]
    fn tells_request(&self) -> bool {
        let Options {
            decision,
            rate_limit_headers,
            ..
        } = &self.engine.options;
        let is_told_fields = *rate_limit_headers && self.limits.templates.policies.is_some();
        !decision.responses() && is_told_fields && self.tells_fields_alone()
    }
}
