//! What all services of a layer share: the limits with their balances, and how answers are given.

mod active;
mod combined_limits;
mod key_changes;
mod key_index;
mod lost_keys;
pub(crate) mod options;
mod reload;
mod remote;
mod route_limits;
mod routes;
mod rule_set;

use std::{mem, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};

use self::options::Options;
pub(crate) use self::{
    active::ActiveRules,
    remote::{Away, ByLease, There},
    route_limits::RouteLimits,
    rule_set::RuleSet,
};
use crate::{
    admission::{Admission, Permits},
    clock::Nanos,
    decision::{Decision, Denial},
    limiter::{
        limit_set::{Demand, LimitSet},
        readings::LimitReadings,
    },
    observe::Log,
    response::fields::RateLimitFields,
    usage::Usage,
};

/// What all services of a layer share. Cloned only while a layer is being set up.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) live: Arc<ActiveRules>,
    pub(crate) options: Options,
}

/// What a request that was admitted goes on with.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// Nothing: its response passes as it is.
    Alone,
    /// What it holds until its answer has ended, which passes as it is.
    Held(Admission),
    /// What changes its response.
    ResponseParts(ResponseParts),
}

/// What an admitted request's response is told, and what that holds.
#[derive(Debug)]
pub(crate) struct ResponseParts {
    /// What it holds until its answer has ended.
    pub(crate) admission: Option<Admission>,
    /// The fields of its response.
    pub(crate) fields: Option<RateLimitFields>,
    /// What was decided, if the response tells that.
    pub(crate) decision: Option<Decision>,
    /// Where it is told what the answer reports, if that is read.
    pub(crate) log: Option<Arc<Log>>,
}

/// A decision, before it is told: what was asked, and what the buckets held.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    /// By what it was decided.
    pub(crate) state: &'a RuleSet,
    pub(crate) demand: Demand,
    /// When the request came.
    pub(crate) arrived: Nanos,
    /// When it was decided on.
    pub(crate) now: Nanos,
    /// Taken if they are told.
    pub(crate) readings: &'a mut LimitReadings,
    /// Slots that it holds already. Taken if it was admitted.
    pub(crate) held: &'a mut Option<Permits>,
}

impl<'a> Outcome<'a> {
    /// A decision at `now`, when the request came.
    #[inline(always)]
    pub(crate) fn at_once(
        state: &'a RuleSet,
        demand: Demand,
        now: Nanos,
        readings: &'a mut LimitReadings,
        held: &'a mut Option<Permits>,
    ) -> Self {
        Self {
            state,
            demand,
            arrived: now,
            now,
            readings,
            held,
        }
    }
}

impl Engine {
    /// Has an admitted request carry what its handler may want to know, and gives what its response goes on with.
    #[inline(always)]
    pub(crate) fn admitted<B>(
        &self,
        request: &mut Request<B>,
        prepared: &RouteLimits,
        decided: Outcome<'_>,
    ) -> Admitted {
        let Outcome {
            state,
            demand,
            arrived,
            now,
            readings,
            held,
        } = decided;
        let RouteLimits {
            limit_set,
            origin,
            written,
            meters,
            ..
        } = prepared;
        let options = &self.options;
        limit_set.admitted.add(1);
        meters.admitted();
        if limit_set.enforced < limit_set.limits.len() {
            limit_set.shadowed(readings, |index| meters.by_limit(index));
        }
        if now > arrived {
            meters.waited(now - arrived);
        }
        let told = written.policies.as_ref().filter(|_| options.fields);
        // Most requests are charged on rates alone, and have nothing to give back.
        let holds = limit_set.has_slots || limit_set.has_tokens || held.is_some();
        let admission = holds.then(|| Admission::new(origin, demand, readings, held.take()));
        if let Some(account) = admission.as_ref().and_then(Admission::account) {
            let usage = Usage::new(Arc::clone(account));
            request.extensions_mut().insert(usage);
        }
        let reads_answer = options.usage_from_answer && limit_set.has_tokens;
        if told.is_none() && !options.decision && !reads_answer {
            return admission.map_or(Admitted::Alone, Admitted::Held);
        }
        let mut fields = match told {
            Some(policies) if RateLimitFields::fit(request.method()) => {
                RateLimitFields::admitted(policies, limit_set, readings, now)
            }
            _ => None,
        };
        if state.rejections.is_some() || options.dialect.tells_more() {
            fields = fields
                .map(|fields| self.in_dialect(fields, state, request, limit_set, readings, now));
        }
        let decision = options.decision.then(|| {
            let decision =
                Decision::admitted(Arc::clone(limit_set), mem::take(readings), arrived, now);
            request.extensions_mut().insert(decision.clone());
            decision
        });
        Admitted::ResponseParts(ResponseParts {
            log: reads_answer.then(|| Arc::clone(&state.log)),
            admission,
            fields,
            decision,
        })
    }

    /// Adds the fields of the route's dialect or the layer's, if it has some of its own.
    #[cold]
    fn in_dialect<B>(
        &self,
        fields: RateLimitFields,
        state: &RuleSet,
        request: &Request<B>,
        limit_set: &LimitSet,
        readings: &LimitReadings,
        now: Nanos,
    ) -> RateLimitFields {
        let on_route = state.rejection(request, self.options.protocol);
        let dialect = on_route.map_or(self.options.dialect, |rejection| rejection.dialect());
        if !dialect.tells_more() {
            return fields;
        }
        fields.in_dialect(dialect, limit_set, readings, now, state.limiter.clock())
    }

    /// The answer to a refused request.
    pub(crate) fn denied<B>(
        &self,
        request: Request<B>,
        prepared: &RouteLimits,
        decided: Outcome<'_>,
    ) -> Response<Bytes> {
        let RouteLimits {
            limit_set,
            written,
            meters,
            ..
        } = prepared;
        let Outcome {
            state,
            demand,
            arrived,
            now,
            readings,
            held: _,
        } = decided;
        limit_set.counters.refused.add(1);
        meters.refused();
        limit_set.shadowed(readings, |index| meters.by_limit(index));
        if now > arrived {
            meters.waited(now - arrived);
        }
        let refuses = |index: usize| {
            limit_set.limits[index].counters.refused.add(1);
            meters.by_limit(index);
        };
        let mut denial = Denial::new(
            Arc::clone(limit_set),
            mem::take(readings),
            arrived,
            now,
            refuses,
        );
        denial.by(state.limiter.clock());
        if let (true, Some(wait)) = (self.options.spread, denial.wait()) {
            let (index, charge) = denial.binding_charge();
            let bound = &limit_set.limits[index];
            let known = state.knows(demand);
            denial.spread(
                state
                    .limiter
                    .spread(bound, demand, known, now, wait, charge),
            );
        }
        state.log.refused(&denial);
        let rejection = state
            .rejection(&request, self.options.protocol)
            .map(Arc::clone);
        self.options
            .reject(denial, request, written, rejection.as_deref())
    }

    /// The answer to a request that cannot be decided on, since the store is down.
    #[cold]
    pub(crate) fn unavailable<B>(
        &self,
        request: Request<B>,
        prepared: &RouteLimits,
        state: &RuleSet,
        now: Nanos,
    ) -> Response<Bytes> {
        let RouteLimits {
            limit_set,
            written,
            meters,
            ..
        } = prepared.bare();
        limit_set.counters.refused.add(1);
        meters.refused();
        let denial = Denial::unavailable(Arc::clone(limit_set), now);
        state.log.refused(&denial);
        let rejection = state
            .rejection(&request, self.options.protocol)
            .map(Arc::clone);
        self.options
            .reject(denial, request, written, rejection.as_deref())
    }
}

#[cfg(test)]
mod tests;
