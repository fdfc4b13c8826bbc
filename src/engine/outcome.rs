//! The outcome of a decision, and its product: a ticket for an admitted request, an answer to a refused one.
//!
//! # Invariants
//!
//! - **Each decision is counted here, once**: by its route, its limits and the meters of operators.
//! - **A ticket has the guard** of a request that holds something, and gives it back whenever it is dropped. The guard
//!   exists before the inner service is called.
//! - **A refusal holds nothing.** All charges of its request have gone back. A task gives back what a store takes
//!   later.

use std::{borrow::Cow, mem, sync::Arc};

use bytes::Bytes;
use http::{Extensions, Method, Request, Response};

use super::{
    Engine,
    options::{Asker, Options},
    pending::{Attempt, Pending},
    route_limits::RouteLimits,
};
use crate::{
    admission::{Admission, HeldSlot, Hold, Permits},
    clock::Nanos,
    decision::{Decision, DecisionIn, Degraded, Denial, Failure},
    gate::Passage,
    limiter::{limit_set::Demand, readings::LimitReadings},
    observe::Log,
    response::{
        Answer, Framing, Rejection, Templates, close_connection,
        fields::{RateLimitFields, UnwrittenFields},
        grpc, strip,
    },
    usage::Usage,
};

/// A decision.
pub(crate) enum Decided {
    /// The request goes on to the inner service and holds nothing. Its response passes unchanged. Without fields and
    /// decisions, most requests are decided so.
    Pass,
    /// The request goes on to the inner service with a slot, held until the answer has ended. Its response passes
    /// unchanged. Apart from tickets, which are large.
    Hold(HeldSlot),
    /// The request goes on to the inner service with a ticket.
    Admit(Ticket),
    /// The request is answered here.
    Refuse(Refusal),
    /// The decision is made later.
    Wait(Box<Pending>),
}

/// A decision before it is told: the limits that made it, the moment, and the balances of the limits.
#[derive(Debug)]
pub(super) struct Outcome<'r> {
    /// The limits that made it, in the order of the readings.
    pub(super) applied: Applied,
    /// The moment, by the clock of the store if that has decided, or else of this process.
    pub(super) at: Nanos,
    /// The nanoseconds for which the request waited before that, by the clock of this process. Zero: it did not wait.
    pub(super) waited: Nanos,
    /// One reading for each of these limits. Borrowed, so that readings are made where they stay: moving them costs
    /// time.
    pub(super) readings: &'r mut LimitReadings,
    /// Slots that the request holds already, taken while a store was asked. `None`: the readings tell which slots it
    /// holds.
    pub(super) permits: Option<Permits>,
    /// The passage of the request, if requests are counted.
    pub(super) passage: Option<Passage>,
}

/// The limits of a route by which a request was decided.
#[derive(Debug, Clone, Copy)]
pub(super) enum Applied {
    /// All of its limits, in this process and in the store.
    All,
    /// The limits whose balances are in this process, with a store or without.
    Held,
    /// One of this many shares of each limit, in this process, while the store is down. Zero counts as 1.
    Share(u32),
}

/// A ticket: the state with which an admitted request goes on.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// A slot, held until the answer has ended. The response passes unchanged.
    Slot(HeldSlot),
    /// A guard, held until the answer has ended. The response passes unchanged.
    Held(Admission),
    /// The fields of its response, which were written beforehand, and the decision, until the request has it. Nothing
    /// is held.
    Written(Arc<Templates>, Option<Decision>),
    /// The same, with fields that are written when the response is there.
    Unwritten(UnwrittenFields, Option<Decision>),
    /// The parts of a response that is changed, and a guard.
    Told(ResponseParts),
}

/// The parts that an admitted request adds to its response, and what it holds.
#[derive(Debug, Default)]
pub(crate) struct ResponseParts {
    /// The guard, held until the answer has ended.
    pub(crate) admission: Option<Admission>,
    /// The fields of its response.
    pub(crate) fields: Option<RateLimitFields>,
    /// The decision, for the request, until the ticket has marked it, and for the response.
    pub(crate) decision: Option<Decision>,
    /// The log for reports of the answer, if the answer is read.
    pub(crate) log: Option<Arc<Log>>,
    /// The mark of a request that was charged to a second budget.
    pub(crate) degraded: Option<Box<DegradedParts>>,
}

/// The parts that a request which was charged to a second budget adds.
#[derive(Debug)]
pub(crate) struct DegradedParts {
    /// The mark, for the request.
    pub(crate) degraded: Degraded,
    /// True if a field of the response tells it.
    pub(crate) is_told: bool,
}

/// The answer to a refused request: written, or to be given by code of the user, which needs the whole request.
pub(crate) enum Refusal {
    /// An answer that is written.
    Answered(Answer),
    /// No answer, since no request is to be answered.
    Denied(Box<Denial>),
    /// An answer that code of the user gives, which sees the whole head.
    Custom {
        denial: Box<Denial>,
        /// The route's, or the layer's.
        rejection: Arc<dyn Rejection>,
        /// True if the decision is put into the extensions of the answer.
        tells_decision: bool,
    },
}

impl<'r> Outcome<'r> {
    #[inline(always)]
    pub(super) fn new(at: Nanos, readings: &'r mut LimitReadings) -> Self {
        Self {
            applied: Applied::All,
            at,
            waited: 0,
            readings,
            permits: None,
            passage: None,
        }
    }

    /// Forgets the results of an attempt, so that it may begin again. Slots that it held are free.
    pub(super) fn reset(&mut self) {
        (self.applied, self.permits) = (Applied::All, None);
        *self.readings = LimitReadings::default();
    }

    /// Returns when the request came, by the same clock.
    fn arrived(&self) -> Nanos {
        self.at.saturating_sub(self.waited)
    }
}

impl Applied {
    /// Returns these limits of a route. Borrowed, unless shares are asked for in another number than before.
    #[inline(always)]
    pub(super) fn of<'a>(&self, limits: &'a RouteLimits) -> Cow<'a, RouteLimits> {
        match *self {
            Self::All => Cow::Borrowed(limits),
            Self::Held => Cow::Borrowed(limits.held()),
            Self::Share(share) => limits.share(share),
        }
    }
}

impl Ticket {
    /// Puts the hold, the reservation of model tokens and the decision into the request, for its handler. Called just before the
    /// inner service, while the caller holds the ticket.
    #[inline(always)]
    pub(crate) fn mark(&mut self, options: &Options, extensions: &mut Extensions) {
        let (admission, decision) = match self {
            Self::Slot(_) | Self::Written(_, None) | Self::Unwritten(_, None) => return,
            Self::Written(_, decision) | Self::Unwritten(_, decision) => (None, decision.take()),
            Self::Held(admission) => (Some(&*admission), None),
            Self::Told(parts) => {
                let decision = match options.decision {
                    DecisionIn::Nowhere | DecisionIn::Response => None,
                    DecisionIn::Request => parts.decision.take(),
                    DecisionIn::Both => parts.decision.clone(),
                };
                if let Some(it) = &parts.degraded {
                    extensions.insert(it.degraded.clone());
                }
                (parts.admission.as_ref(), decision)
            }
        };
        if let Some(admission) = admission {
            if let Some(hold) = admission.hold(|| extensions.remove::<Hold>()) {
                extensions.insert(hold);
            }
            if let Some(reservation) = admission.reservation().filter(|it| it.has_tokens()) {
                extensions.insert(Usage::new(Arc::clone(reservation)));
            }
        }
        if let Some(decision) = decision {
            extensions.insert(decision);
        }
    }
}

impl Refusal {
    /// Returns the answer to this request, which ends here. A user's [`Rejection`] runs after the body of the request
    /// is dropped, and its panics pass through.
    pub(crate) fn answer<B>(self, request: Request<B>) -> Answer {
        match self {
            Self::Answered(answer) => answer,
            Self::Denied(_) => unreachable!("a request is answered"),
            Self::Custom {
                denial,
                rejection,
                tells_decision,
            } => {
                let (parts, _) = request.into_parts();
                let mut answer = rejection.reject(&denial, &parts);
                if parts.method == Method::HEAD {
                    strip(&mut answer);
                }
                close_connection(&mut answer, &denial, parts.version);
                if tells_decision {
                    answer.extensions_mut().insert(Decision::from(*denial));
                }
                Answer::new(answer)
            }
        }
    }
}

impl RouteLimits {
    /// Counts an admitted request: on its route, and for the meters. Counts of limits are summed up from their routes
    /// when they are read.
    #[inline(always)]
    pub(super) fn count_admitted(&self) {
        self.limit_set.admitted.count();
        self.meters.admitted();
    }

    /// Admits and counts a request that is told nothing, and was charged on plain limits. It holds the slots that it
    /// has taken of its own balances.
    #[inline(always)]
    pub(super) fn untold(&self, demand: Demand) -> Decided {
        if self.limit_set.has_slots {
            let Some(slot) = HeldSlot::own(&self.origin) else {
                return self.holding_slots(demand);
            };
            // The guard is made first, since a meter may panic.
            self.count_admitted();
            return Decided::Hold(slot);
        }
        self.count_admitted();
        Decided::Pass
    }

    /// Admits and counts such a request with any slots.
    #[inline(never)]
    fn holding_slots(&self, demand: Demand) -> Decided {
        let permits = Permits::own(&self.origin, demand);
        let ticket = Ticket::Held(Admission::of_slots(permits));
        self.count_admitted();
        Decided::Admit(ticket)
    }
}

impl Attempt<'_> {
    /// Tells whether the response to an admitted request is changed, or the decision is put anywhere.
    #[inline(always)]
    pub(super) fn is_told(&self) -> bool {
        let Options {
            decision,
            rate_limit_headers,
            ..
        } = &self.engine.options;
        decision.anywhere() || (*rate_limit_headers && self.limits.templates.policies.is_some())
    }

    /// Admits the request with its slots, its reservation of model tokens, and the fields of its response. Slots that
    /// the request held before are taken from `outcome`.
    ///
    /// The guard is made before meters and dialects of the user are called, so that their panics give back all charges
    /// that can come back. Readings are moved into the decision last, after the fields are made of them.
    ///
    /// Not inlined, so that the result is written where the caller of the decision wants it.
    #[inline(never)]
    pub(super) fn admit(&self, outcome: &mut Outcome<'_>) -> Decided {
        let limits = outcome.applied.of(self.limits);
        let RouteLimits {
            limit_set,
            origin,
            templates,
            meters,
            ..
        } = &*limits;
        let options = &self.engine.options;
        let (now, arrived) = (outcome.at, outcome.arrived());
        let readings = &mut *outcome.readings;
        // Most requests are charged on rates alone, and have nothing to give back.
        let holds = limit_set.has_slots || limit_set.has_account() || outcome.permits.is_some();
        let admission =
            holds.then(|| Admission::new(origin, self.demand, readings, outcome.permits.take()));
        let admission = match outcome.passage.take() {
            None => admission,
            Some(passage) => Some(Admission::counted(admission, passage)),
        };
        let admission = match limit_set.keeps {
            false => admission,
            true => Some(Admission::shared(
                admission,
                origin,
                &self.engine.active.bounded,
            )),
        };
        limits.count_admitted();
        if limit_set.enforced < limit_set.limits.len() {
            limit_set.shadowed(readings, |index| meters.by_limit(index));
        }
        if outcome.waited > 0 {
            meters.waited(outcome.waited);
        }
        let has_fields = options.rate_limit_headers && templates.policies.is_some();
        let reads_answer = limit_set.has_tokens
            && limit_set
                .reads_answers
                .unwrap_or(options.usage_from_answers);
        if !has_fields && !options.decision.anywhere() && !reads_answer {
            let held = |admission| Decided::Admit(Ticket::Held(admission));
            return admission.map_or(Decided::Pass, held);
        }
        let mut fields = match has_fields && RateLimitFields::fit(self.head.method()) {
            true => RateLimitFields::admitted(templates, limit_set, readings, now),
            false => None,
        };
        if self.rules.rejections.is_some() || options.tells_more {
            if let Some(fields) = &mut fields {
                self.add_dialect(fields, &limits, readings, now);
            }
        }
        let decision = (options.decision.anywhere())
            .then(|| Decision::admitted(Arc::clone(limit_set), mem::take(readings), arrived, now));
        Decided::Admit(Ticket::Told(ResponseParts {
            log: reads_answer.then(|| Arc::clone(&self.rules.log)),
            admission,
            fields,
            decision,
            degraded: None,
        }))
    }

    /// Adds the fields of the dialect of the route or the layer, if the dialect has any.
    #[cold]
    fn add_dialect(
        &self,
        fields: &mut RateLimitFields,
        limits: &RouteLimits,
        readings: &LimitReadings,
        now: Nanos,
    ) {
        let Engine { options, .. } = &**self.engine;
        let on_route = self.rules.rejection(self.head, options.protocol);
        let dialect = on_route.map_or(options.dialect, |rejection| rejection.dialect());
        if dialect.tells_more() {
            let clock = self.rules.limiter.clock();
            fields.add_dialect(dialect, &limits.limit_set, readings, now, clock);
        }
    }

    /// Refuses the request: counts it on its route and on each limit that refuses, logs it, and returns the answer.
    ///
    /// The wait is the longest of the limits that refuse, with up to a minute more if waits are staggered. Nothing is
    /// given back here, because nothing was kept.
    #[inline(never)]
    pub(super) fn refuse(&self, outcome: &mut Outcome<'_>) -> Decided {
        let limits = outcome.applied.of(self.limits);
        let RouteLimits {
            limit_set,
            templates,
            meters,
            ..
        } = &*limits;
        let Engine { options, .. } = &**self.engine;
        let (now, arrived) = (outcome.at, outcome.arrived());
        let readings = mem::take(outcome.readings);
        limit_set.counters.refused.add(1);
        meters.refused();
        limit_set.shadowed(&readings, |index| meters.by_limit(index));
        if outcome.waited > 0 {
            meters.waited(outcome.waited);
        }
        let refuses = |index: usize| {
            limit_set.limits[index].counters.refused.add(1);
            meters.by_limit(index);
        };
        let mut denial = Denial::new(Arc::clone(limit_set), readings, arrived, now, refuses);
        let limiter = &self.rules.limiter;
        denial.by(limiter.clock());
        if let (true, Some(wait)) = (options.stagger_retry_after, denial.wait()) {
            let (index, charge) = denial.binding_charge();
            let bound = &limit_set.limits[index];
            let known = self.rules.knows(self.demand);
            denial.spread(limiter.spread(bound, self.demand, known, now, wait, charge));
        }
        self.rules.log.refused(&denial);
        Decided::Refuse(self.answer(denial, templates))
    }

    /// Returns the framing of a refusal of this request.
    #[inline]
    pub(super) fn framing(&self) -> Framing {
        let head = self.head;
        let protocol = self.engine.options.protocol;
        protocol.framing(head.method(), head.version(), head.headers())
    }

    /// Tells whether the built-in answer in this framing may be a kept one, which depends on no single request.
    #[inline]
    pub(super) fn may_be_kept(&self, framing: Framing) -> bool {
        let tells_decision = self.engine.options.decision.responses();
        framing == Framing::Http && *self.head.method() != Method::HEAD && !tells_decision
    }

    /// Returns the answer to a request whose limits are not asked, after it has waited for so long. The request counts as
    /// refused on the route, but on no limit.
    #[cold]
    pub(super) fn fail(&self, failure: Failure, waited: Nanos) -> Decided {
        let RouteLimits {
            limit_set,
            templates,
            meters,
            ..
        } = self.limits.bare();
        let now = self.rules.limiter.now();
        let arrived = now.saturating_sub(waited);
        let denial = Denial::failed(failure, Arc::clone(limit_set), arrived, now);
        // Without a lease nothing is decided, and whoever asks for more asks again.
        if failure != Failure::NoLease {
            limit_set.counters.refused.add(1);
            meters.refused();
            if waited > 0 {
                meters.waited(waited);
            }
            self.rules.log.refused(&denial);
        }
        Decided::Refuse(self.answer(denial, templates))
    }

    /// Returns the answer to the refused request: that of the route's [`Rejection`], or else the layer's, or else the
    /// built-in one. gRPC requests always get the built-in one.
    #[inline]
    fn answer(&self, denial: Denial, templates: &Templates) -> Refusal {
        let options = &self.engine.options;
        if options.asker != Asker::Request {
            return Refusal::Denied(Box::new(denial));
        }
        let framing = self.framing();
        let on_route = self.rules.rejection(self.head, options.protocol);
        match (framing, on_route.or(options.rejection.as_ref())) {
            (Framing::Http, Some(rejection)) => Refusal::Custom {
                denial: Box::new(denial),
                rejection: Arc::clone(rejection),
                tells_decision: options.decision.responses(),
            },
            (Framing::Http, None) if self.may_be_kept(framing) => {
                let kept = self.engine.refusals.get(&denial, templates);
                Refusal::Answered(match kept {
                    Some(kept) => Answer::Kept(kept),
                    None => Answer::new(self.own_answer(framing, &denial, templates)),
                })
            }
            (framing, _) => {
                let mut answer = self.own_answer(framing, &denial, templates);
                if options.decision.responses() {
                    answer.extensions_mut().insert(Decision::from(denial));
                }
                Refusal::Answered(Answer::new(answer))
            }
        }
    }

    /// Returns the built-in answer. Not inlined, so that the way of an admitted request stays short.
    #[cold]
    #[inline(never)]
    fn own_answer(
        &self,
        framing: Framing,
        denial: &Denial,
        templates: &Templates,
    ) -> Response<Bytes> {
        let options = &self.engine.options;
        let mut answer = match framing {
            Framing::Grpc(content_type) => {
                let deadline = || grpc::deadline(self.head.headers());
                // Another server may answer at once: the client retries as its own policy has it.
                let tells = options.grpc_retry_pushback && !denial.is_shutting_down();
                let pushback = tells.then(deadline);
                let policy = templates.policies.as_ref().map(|policies| &policies.line);
                grpc::reject(denial, content_type, policy, pushback)
            }
            Framing::Http => {
                let mut answer = templates.problem(denial);
                if *self.head.method() == Method::HEAD {
                    strip(&mut answer);
                }
                answer
            }
        };
        close_connection(&mut answer, denial, self.head.version());
        answer
    }
}
