//! Previews: the decision that a request would get, without a charge.
//!
//! # Invariants
//!
//! - **Nothing changes.** No balance is charged, no route or client is entered, nothing is counted or logged, and no
//!   store is asked.
//! - **A preview is the next decision.** In this process, an equal request, sent at the same moment, gets the same
//!   decision: `tests/preview.rs` tests this.
//!
//! Called by `handle`.

use std::sync::Arc;

use super::{
    active::ActiveRules,
    degrade::{SecondTry, overtakes},
    route_limits::RouteLimits,
    rule_set::RuleSet,
};
use crate::{
    clock::Nanos,
    decision::{Decision, Denial, Failure},
    head::RequestHead,
    limiter::{limit_set::Demand, readings::LimitReadings},
    response::Protocol,
    store::client::LeasedUnits,
};

impl ActiveRules {
    /// Returns the decision that a request would get now. Charges nothing and changes nothing, and asks no store.
    /// Closures of the user run as for a request.
    pub(crate) fn preview(&self, head: RequestHead<'_>, protocol: Protocol) -> Decision {
        loop {
            let rules = self.rules();
            let mut demand = Demand::default();
            match rules.preview(head, protocol, &mut demand) {
                Ok(limits) if self.gate.is_closed() && !limits.limit_set.exempt => {
                    let limit_set = Arc::new(limits.limit_set.bare());
                    let now = rules.limiter.now();
                    return Denial::failed(Failure::ShuttingDown, limit_set, now, now).into();
                }
                Ok(limits) => return rules.preview_of(&limits, demand),
                Err(outdated) => outdated.pause(),
            }
        }
    }
}

/// The answer of limits to a request that is not charged.
struct Foreseen {
    /// The balances that a charge would leave, or that are there if the request is refused.
    readings: LimitReadings,
    /// Their moment.
    at: Nanos,
    is_admitted: bool,
}

impl RuleSet {
    /// Returns the decision of these limits, each with the balance that it would be left with.
    ///
    /// Balances in a store are those that this process remembers: an unknown bucket counts as full. A request that
    /// would have to stand in line counts as refused.
    fn preview_of(&self, limits: &RouteLimits, demand: Demand) -> Decision {
        let now = self.limiter.now();
        let first = self.foresee(limits, demand, now);
        if !first.is_admitted {
            if let Some(degraded) = self.preview_degraded(limits, &first, demand, now) {
                return degraded;
            }
        }
        let limit_set = Arc::clone(&limits.limit_set);
        let (readings, at) = (first.readings, first.at);
        match first.is_admitted {
            true => Decision::admitted(limit_set, readings, at, at),
            false => Denial::new(limit_set, readings, at, at, |_| ()).into(),
        }
    }

    /// Returns the decision by second budgets on a request that the limits refuse, if these admit it.
    fn preview_degraded(
        &self,
        limits: &RouteLimits,
        first: &Foreseen,
        demand: Demand,
        now: Nanos,
    ) -> Option<Decision> {
        let SecondTry { limits, degraded } =
            limits.second_try(&limits.limit_set, &first.readings, first.at)?;
        if overtakes(&self.limiter, &limits.limit_set, demand) {
            return None;
        }
        let Foreseen {
            readings,
            at,
            is_admitted,
        } = self.foresee(&limits, demand, now);
        let limit_set = Arc::clone(&limits.limit_set);
        let decision = || Decision::admitted(limit_set, readings, at, at);
        is_admitted.then(|| decision().by_second_budget(degraded))
    }

    /// Looks at the balances of limits, and what a charge would leave if they admit it.
    fn foresee(&self, limits: &RouteLimits, demand: Demand, now: Nanos) -> Foreseen {
        let (limiter, limit_set) = (&self.limiter, &limits.limit_set);
        let store = self.store.as_ref().filter(|_| limit_set.is_shared);
        let (mut readings, at) = match store {
            Some(store) => {
                let none = LeasedUnits::default();
                let view = store.cached_view(limit_set, demand, now, &limiter.clients, &none);
                (view.readings, view.at)
            }
            None => (limiter.peek(limit_set, demand, now), now),
        };
        let is_behind = limit_set.is_patient && limiter.is_behind(limit_set, demand);
        if is_behind {
            limiter.name_refusal(limit_set, demand, at, &mut readings);
        }
        let mut is_admitted = !is_behind;
        // What the charge would leave, apart from what is there: a refused request would leave the latter.
        let mut after = readings.clone();
        for (index, bound) in limit_set.limits.iter().enumerate() {
            let reading = &mut after[index];
            let meter = bound.limit.meter.as_ref();
            let taken = meter.and_then(|meter| meter.take(reading.state, at, reading.cost).ok());
            let is_enforced = index < limit_set.enforced;
            is_admitted &= taken.is_some() || !is_enforced;
            reading.refused |= taken.is_none() && !is_enforced;
            reading.state = taken.unwrap_or(reading.state);
        }
        if !is_admitted {
            // A refused request is charged on no limit, and a shadow says what it says.
            for index in limit_set.enforced..limit_set.limits.len() {
                readings[index].refused = after[index].refused;
            }
        }
        Foreseen {
            readings: if is_admitted { after } else { readings },
            at,
            is_admitted,
        }
    }
}
