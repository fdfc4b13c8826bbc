//! The decision before the body of a request is read.
//!
//! Some limits depend on the body: those of the model that it names, and of the tokens that it asks for. A layer
//! outside of the throttle reads the body for them. Before it does, the limits that need no body are looked at: a
//! request that one of them refuses is answered at once, so that nobody uploads for nothing.
//!
//! # Invariants
//!
//! - **Nothing is charged.** A request that is not refused here is decided on by the throttle, as if nobody had looked.
//! - **A refusal is a decision**: it is counted and answered as by the throttle, once.
//! - **Nobody is refused who would wait**, and nobody by what the body or a layer further in may change.
//!
//! Called by the layer that reads bodies.

use std::sync::Arc;

use super::{
    Engine,
    outcome::{Applied, Decided, Outcome, Refusal},
    pending::Attempt,
    route_limits::RouteLimits,
};
use crate::{
    clock::Nanos,
    decision::Failure,
    head::RequestHead,
    limit::{Limit, Unit},
    limiter::{
        limit_set::{BoundLimit, Demand, LimitSet},
        readings::{LimitReading, LimitReadings},
    },
};

/// The need of a request for the facts of its body.
pub(crate) enum BodyNeed {
    /// No limit needs them.
    None,
    /// A limit needs them. With the client, if the rules tell clients apart.
    Facts(Option<u128>),
    /// A limit that needs none refuses the request.
    Refused(Refusal),
}

impl Engine {
    /// Returns whether the limits of a request need facts of its body, and refuses it at once if one that needs none
    /// does.
    pub(crate) fn before_body(self: &Arc<Self>, head: RequestHead<'_>) -> BodyNeed {
        let rules = self.active.rules();
        let mut demand = Demand::default();
        let found = rules.before_body(head, self.options.protocol, &mut demand);
        let Some((limits, is_certain)) = found else {
            return BodyNeed::None;
        };
        let arrived = rules.limiter.now();
        let attempt = Attempt {
            engine: self,
            rules: &rules,
            limits: &limits,
            demand,
            arrived,
            head,
        };
        let decided = match self.active.gate.is_closed() && !limits.limit_set.exempt {
            true => Some(attempt.fail(Failure::ShuttingDown, 0)),
            false => attempt.refuse_before_body(is_certain),
        };
        match decided {
            Some(Decided::Refuse(refusal)) => BodyNeed::Refused(refusal),
            _ => BodyNeed::Facts(rules.resolver.as_ref().map(|_| demand.identity)),
        }
    }
}

impl Attempt<'_> {
    /// Refuses the request if a limit does that needs no body. Charges nothing. Of limits that a store keeps nothing is
    /// known here, nor of limits of clients unless the client `is_certain`.
    fn refuse_before_body(&self, is_certain: bool) -> Option<Decided> {
        let (limits, applied) = match self.store() {
            None => (self.limits, Applied::All),
            Some(_) => (self.limits.held(), Applied::Held),
        };
        let limit_set = &limits.limit_set;
        let limiter = &self.rules.limiter;
        let mut readings = limiter.peek(limit_set, self.demand, self.arrived);
        let reads_tokens = self.rules.estimator.reads_body();
        let models = self.rules.models.as_ref();
        let reads_price = models.is_some_and(|models| models.resolver.reads_price());
        let cost_before_body = |limit: &Limit, cost: u64| {
            if !is_certain && !limit.is_shared() {
                return None;
            }
            let is_in_body = reads_tokens && limit.is_settled()
                || reads_price && limit.settings.unit() == Unit::Spend;
            match is_in_body {
                false => Some(cost),
                // A spent quota refuses whatever the body asks for, and all for as long. A rate that refuses one unit
                // would state a wait after which it refuses more of them.
                true => limit.refuses_all_alike().then_some(1),
            }
        };
        let refuses = |readings: &_| {
            is_refused(limit_set, cost_before_body, readings, self.arrived)
                && !self.may_pass_degraded(limits, readings, cost_before_body)
        };
        let mut is_out = refuses(&readings);
        if is_out && self.has_ended_lost(self.arrived) {
            readings = limiter.peek(limit_set, self.demand, self.arrived);
            is_out = refuses(&readings);
        }
        is_out.then(|| {
            let mut outcome = Outcome::new(self.arrived, &mut readings);
            outcome.applied = applied;
            self.refuse(&mut outcome)
        })
    }

    /// Returns whether a request that limits refuse which need no body may still be charged to a second budget: each of
    /// these belongs to a scope that has one, and none of those that need no body refuses it.
    fn may_pass_degraded(
        &self,
        limits: &RouteLimits,
        readings: &LimitReadings,
        cost_before_body: impl Fn(&Limit, u64) -> Option<u64> + Copy,
    ) -> bool {
        let Some(second) = &self.limits.limit_set.second else {
            return false;
        };
        let now = self.arrived;
        let pairs = limits.limit_set.enforced().zip(readings.as_slice());
        let refusing =
            pairs.filter(|(bound, reading)| refuses(bound, reading, cost_before_body, now));
        // Limits that need the body may refuse for longer than these.
        let Some(choice) = second
            .scopes
            .choose(refusing.map(|(bound, _)| bound.scope_number), None)
        else {
            return false;
        };
        let limits = self.limits.degraded(choice);
        let limits = match self.store() {
            None => &*limits,
            Some(_) => limits.held(),
        };
        let limit_set = &limits.limit_set;
        let readings = self.rules.limiter.peek(limit_set, self.demand, now);
        !is_refused(limit_set, cost_before_body, &readings, now)
    }
}

/// Returns whether one of the limits refuses a request by the cost that is known, and lets none wait.
fn is_refused(
    limit_set: &LimitSet,
    cost_before_body: impl Fn(&Limit, u64) -> Option<u64> + Copy,
    readings: &LimitReadings,
    now: Nanos,
) -> bool {
    let mut pairs = limit_set.enforced().zip(readings.as_slice());
    pairs.any(|(bound, reading)| {
        bound.limit.wait_policy.is_none() && refuses(bound, reading, cost_before_body, now)
    })
}

/// Returns whether a limit refuses a request by the cost that is known.
fn refuses(
    bound: &BoundLimit,
    reading: &LimitReading,
    cost_before_body: impl Fn(&Limit, u64) -> Option<u64>,
    now: Nanos,
) -> bool {
    let cost = cost_before_body(&bound.limit, reading.cost);
    cost.is_some_and(|cost| bound.refusal(reading.state, now, cost).is_some())
}
