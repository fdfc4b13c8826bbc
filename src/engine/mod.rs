//! What all services of a layer share: the limits with their balances, and how answers are given.

mod active;
mod key_changes;
mod key_index;
mod lost_keys;
pub(crate) mod options;
mod reload;
mod remote;
mod route_limits;
mod routes;
mod rule_set;
mod unions;

use std::{mem, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};

use self::options::Options;
pub(crate) use self::{
    active::Live,
    remote::{Away, ByLease, There},
    route_limits::Prepared,
    rule_set::State,
};
use crate::{
    admission::{Admission, Permits},
    clock::Nanos,
    decision::{Decision, Denial},
    limiter::{
        limit_set::{Asked, Rule},
        readings::Levels,
    },
    observe::Log,
    response::fields::Fields,
    usage::Usage,
};

/// What all services of a layer share. Cloned only while a layer is being set up.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) live: Arc<Live>,
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
    Told(Told),
}

/// What an admitted request's response is told, and what that holds.
#[derive(Debug)]
pub(crate) struct Told {
    /// What it holds until its answer has ended.
    pub(crate) admission: Option<Admission>,
    /// The fields of its response.
    pub(crate) fields: Option<Fields>,
    /// What was decided, if the response tells that.
    pub(crate) decision: Option<Decision>,
    /// Where it is told what the answer reports, if that is read.
    pub(crate) log: Option<Arc<Log>>,
}

/// A decision, before it is told: what was asked, and what the buckets held.
#[derive(Debug)]
pub(crate) struct Decided<'a> {
    /// By what it was decided.
    pub(crate) state: &'a State,
    pub(crate) asked: Asked,
    /// When the request came.
    pub(crate) arrived: Nanos,
    /// When it was decided on.
    pub(crate) now: Nanos,
    /// Taken if they are told.
    pub(crate) levels: &'a mut Levels,
    /// Slots that it holds already. Taken if it was admitted.
    pub(crate) held: &'a mut Option<Permits>,
}

impl<'a> Decided<'a> {
    /// A decision at `now`, when the request came.
    #[inline(always)]
    pub(crate) fn at_once(
        state: &'a State,
        asked: Asked,
        now: Nanos,
        levels: &'a mut Levels,
        held: &'a mut Option<Permits>,
    ) -> Self {
        Self {
            state,
            asked,
            arrived: now,
            now,
            levels,
            held,
        }
    }
}

impl Shared {
    /// Has an admitted request carry what its handler may want to know, and gives what its response goes on with.
    #[inline(always)]
    pub(crate) fn admitted<B>(
        &self,
        request: &mut Request<B>,
        prepared: &Prepared,
        decided: Decided<'_>,
    ) -> Admitted {
        let Decided {
            state,
            asked,
            arrived,
            now,
            levels,
            held,
        } = decided;
        let Prepared {
            rule,
            origin,
            written,
            meters,
            ..
        } = prepared;
        let options = &self.options;
        rule.admitted.add(1);
        meters.admitted();
        if rule.enforced < rule.bindings.len() {
            rule.shadowed(levels, |index| meters.by_limit(index));
        }
        if now > arrived {
            meters.waited(now - arrived);
        }
        let told = written.policies.as_ref().filter(|_| options.fields);
        // Most requests are charged on rates alone, and have nothing to give back.
        let holds = rule.has_slots || rule.has_tokens || held.is_some();
        let admission = holds.then(|| Admission::new(origin, asked, levels, held.take()));
        if let Some(account) = admission.as_ref().and_then(Admission::account) {
            let usage = Usage::new(Arc::clone(account));
            request.extensions_mut().insert(usage);
        }
        let reads_answer = options.usage_from_answer && rule.has_tokens;
        if told.is_none() && !options.decision && !reads_answer {
            return admission.map_or(Admitted::Alone, Admitted::Held);
        }
        let mut fields = match told {
            Some(policies) if Fields::fit(request.method()) => {
                Fields::admitted(policies, rule, levels, now)
            }
            _ => None,
        };
        if state.rejections.is_some() || options.dialect.tells_more() {
            fields =
                fields.map(|fields| self.in_dialect(fields, state, request, rule, levels, now));
        }
        let decision = options.decision.then(|| {
            let decision = Decision::admitted(Arc::clone(rule), mem::take(levels), arrived, now);
            request.extensions_mut().insert(decision.clone());
            decision
        });
        Admitted::Told(Told {
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
        fields: Fields,
        state: &State,
        request: &Request<B>,
        rule: &Rule,
        levels: &Levels,
        now: Nanos,
    ) -> Fields {
        let on_route = state.rejection(request, self.options.protocol);
        let dialect = on_route.map_or(self.options.dialect, |rejection| rejection.dialect());
        if !dialect.tells_more() {
            return fields;
        }
        fields.in_dialect(dialect, rule, levels, now, state.limiter.clock())
    }

    /// The answer to a refused request.
    pub(crate) fn denied<B>(
        &self,
        request: Request<B>,
        prepared: &Prepared,
        decided: Decided<'_>,
    ) -> Response<Bytes> {
        let Prepared {
            rule,
            written,
            meters,
            ..
        } = prepared;
        let Decided {
            state,
            asked,
            arrived,
            now,
            levels,
            held: _,
        } = decided;
        rule.tally.refused.add(1);
        meters.refused();
        rule.shadowed(levels, |index| meters.by_limit(index));
        if now > arrived {
            meters.waited(now - arrived);
        }
        let refuses = |index: usize| {
            rule.bindings[index].tally.refused.add(1);
            meters.by_limit(index);
        };
        let mut denial = Denial::new(Arc::clone(rule), mem::take(levels), arrived, now, refuses);
        denial.by(state.limiter.clock());
        if let (true, Some(wait)) = (self.options.spread, denial.wait()) {
            let (index, charge) = denial.binding_charge();
            let binding = &rule.bindings[index];
            let known = state.knows(asked);
            denial.spread(
                state
                    .limiter
                    .spread(binding, asked, known, now, wait, charge),
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
        prepared: &Prepared,
        state: &State,
        now: Nanos,
    ) -> Response<Bytes> {
        let Prepared {
            rule,
            written,
            meters,
            ..
        } = prepared.bare();
        rule.tally.refused.add(1);
        meters.refused();
        let denial = Denial::unavailable(Arc::clone(rule), now);
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
