//! Second budgets: requests that the limits of some scopes refuse are asked once more, by other limits.
//!
//! The limits of a request have [`SecondBudgets`](crate::limiter::limit_set::SecondBudgets) beside them. If each scope
//! that refuses has one, a second attempt is made, by the set in which they take the place of the scope's limits.
//! Like any attempt it takes all or nothing, here or in a store. If it is admitted, the request goes on with
//! [`Degraded`]; if not, the first refusal is told.
//!
//! # Invariants
//!
//! - **The first attempt has left nothing charged** when the second begins.
//! - **There is one second attempt**, and nobody stands in line for it. It overtakes nobody who does.
//! - **The first refusal is kept as it was found**, with its limits, its moment and its readings, and told unchanged.
//!
//! Called by `decide`, and for [previews](super::preview) and [before the body](super::before_body), which charge nothing.

use std::{mem, sync::Arc};

use super::{
    outcome::{Decided, DegradedParts, Outcome, ResponseParts, Ticket},
    pending::{Attempt, FirstRefusal, Pending, Progress, Ruling},
    route_limits::RouteLimits,
};
use crate::{
    clock::Nanos,
    decision::{Decision, Degraded, Denial, Failure},
    head::RequestHead,
    limiter::{
        Limiter, Outdated,
        limit_set::{Demand, LimitSet},
        readings::LimitReadings,
    },
    response::fields::RateLimitFields,
};

/// The limits of a second attempt, and the mark of a request that they admit.
pub(super) struct SecondTry {
    pub(super) limits: RouteLimits,
    pub(super) degraded: Degraded,
}

impl RouteLimits {
    /// Returns the limits for a second attempt, after a refusal `at` a moment by an applied form of these. `None`: a
    /// scope that refuses has no second budget, or one for longer waits.
    pub(super) fn second_try(
        &self,
        refused_by: &Arc<LimitSet>,
        readings: &LimitReadings,
        at: Nanos,
    ) -> Option<SecondTry> {
        let second = self.limit_set.second.as_ref()?;
        let denial = Denial::new(Arc::clone(refused_by), readings.clone(), at, at, |_| ());
        let pairs = refused_by.enforced().zip(denial.limits());
        let refusing = pairs.filter(|(_, status)| status.is_refused());
        let choice = second
            .scopes
            .choose(refusing.map(|(bound, _)| bound.scope_number), denial.wait())?;
        Some(SecondTry {
            limits: self.degraded(choice).into_owned(),
            degraded: Degraded::new(&denial.binding()?),
        })
    }
}

/// Returns whether a request that stands in no line would overtake others by these limits, which let nobody wait
/// themselves.
pub(super) fn overtakes(limiter: &Limiter, limit_set: &LimitSet, demand: Demand) -> bool {
    let mut limits = limit_set.enforced();
    let is_patient = limits.any(|bound| bound.limit.wait_policy.is_some());
    is_patient && !limiter.queues.is_empty() && limiter.is_behind(limit_set, demand)
}

impl Attempt<'_> {
    /// Refuses a request that has arrived, or makes a second attempt if its limits have second budgets.
    ///
    /// # Errors
    ///
    /// [`Outdated`] as of [`ask`](Self::ask). Nothing is kept.
    #[inline(never)]
    pub(super) fn refuse_or_degrade(
        &self,
        progress: Progress,
        outcome: &mut Outcome<'_>,
    ) -> Result<Decided, Outdated> {
        if self.limits.limit_set.second.is_none() {
            return Ok(self.refuse(outcome));
        }
        self.degrade(progress, outcome)
    }

    #[cold]
    fn degrade(
        &self,
        mut progress: Progress,
        outcome: &mut Outcome<'_>,
    ) -> Result<Decided, Outdated> {
        let Some(second) = self.may_degrade(&progress, outcome) else {
            return Ok(self.refuse(outcome));
        };
        let attempt = self.by(&second.limits);
        progress.first_refusal = Some(self.first_refusal(second.degraded, outcome));
        // The same moment, so that both attempts are one decision.
        let ruling = attempt.ask(self.arrived, &mut progress, outcome)?;
        if let Ruling::Wait(wait) = ruling {
            let passage = outcome.passage.take();
            return Ok(Decided::Wait(attempt.pending(progress, wait, passage)));
        }
        Ok(match progress.first_refusal {
            Some(first) => attempt.end_second(&ruling, *first, outcome),
            None => self.refuse(outcome),
        })
    }

    /// Ends a second attempt, which does not wait.
    #[cold]
    pub(super) fn end_second(
        &self,
        ruling: &Ruling,
        first: FirstRefusal,
        outcome: &mut Outcome<'_>,
    ) -> Decided {
        match ruling {
            Ruling::Admit => self.admit_degraded(outcome, first),
            Ruling::Fail(failure @ Failure::ShuttingDown) => self.fail(*failure, outcome.waited),
            // A store that has failed since has refused it before, and so have leases.
            Ruling::Deny
            | Ruling::Wait(_)
            | Ruling::Fail(Failure::StoreDown | Failure::NoLease) => {
                self.refuse_by_first(first, outcome)
            }
        }
    }

    /// Returns the limits for a second attempt, if there is to be one. A request that is not the first in a line
    /// overtakes nobody.
    pub(super) fn may_degrade(
        &self,
        progress: &Progress,
        outcome: &Outcome<'_>,
    ) -> Option<SecondTry> {
        let refused_by = outcome.applied.of(self.limits);
        let second = self
            .limits
            .second_try(&refused_by.limit_set, outcome.readings, outcome.at)?;
        let limit_set = &second.limits.limit_set;
        let overtakes =
            progress.waiter.is_none() && overtakes(&self.rules.limiter, limit_set, self.demand);
        (!overtakes).then_some(second)
    }

    /// Keeps the refusal of this attempt, and leaves an outcome for the second one.
    pub(super) fn first_refusal(
        &self,
        degraded: Degraded,
        outcome: &mut Outcome<'_>,
    ) -> Box<FirstRefusal> {
        let first = FirstRefusal {
            limits: outcome.applied.of(self.limits).into_owned(),
            at: outcome.at,
            readings: outcome.readings.clone(),
            degraded,
        };
        outcome.reset();
        Box::new(first)
    }

    /// The same attempt by other limits.
    fn by<'a>(&'a self, limits: &'a RouteLimits) -> Attempt<'a> {
        Attempt {
            limits,
            engine: self.engine,
            rules: self.rules,
            demand: self.demand,
            arrived: self.arrived,
            head: self.head,
        }
    }

    /// Admits a request by second budgets, and tells it so.
    fn admit_degraded(&self, outcome: &mut Outcome<'_>, first: FirstRefusal) -> Decided {
        let (degraded, at) = (first.degraded, outcome.at);
        let decided = self.admit(outcome);
        let limits = outcome.applied.of(self.limits);
        limits.meters.degraded();
        self.rules.log.degraded(&degraded, &limits.limit_set, at);
        let mut parts = match decided {
            Decided::Admit(Ticket::Told(parts)) => parts,
            Decided::Admit(Ticket::Held(admission)) => ResponseParts {
                admission: Some(admission),
                ..ResponseParts::default()
            },
            Decided::Pass => ResponseParts::default(),
            other => return other,
        };
        let decision = |decision: Decision| decision.by_second_budget(degraded.clone());
        parts.decision = parts.decision.map(decision);
        let has_field = self.engine.options.rate_limit_headers;
        parts.degraded = Some(Box::new(DegradedParts {
            degraded,
            is_told: has_field && RateLimitFields::fit(self.head.method()),
        }));
        Decided::Admit(Ticket::Told(parts))
    }

    /// Refuses a request whose second attempt was refused: as the first one was.
    fn refuse_by_first(&self, first: FirstRefusal, outcome: &mut Outcome<'_>) -> Decided {
        let FirstRefusal {
            limits,
            at,
            readings,
            degraded: _,
        } = first;
        outcome.reset();
        outcome.at = at;
        *outcome.readings = readings;
        self.by(&limits).refuse(outcome)
    }
}

impl Pending {
    /// Makes a second attempt for a request that was refused, if its limits have second budgets that it may be charged
    /// on. Its limits are those of the second attempt after that, until [`Pending::first_refusal`].
    ///
    /// # Errors
    ///
    /// [`Outdated`] as of [`Attempt::ask`]. Nothing is changed then.
    pub(super) fn degrade(
        &mut self,
        head: RequestHead<'_>,
        outcome: &mut Outcome<'_>,
    ) -> Result<Ruling, Outdated> {
        let is_second = self.progress.first_refusal.is_some();
        if is_second || self.limits.limit_set.second.is_none() {
            return Ok(Ruling::Deny);
        }
        let (attempt, progress, _) = self.attempt(head);
        let Some(second) = attempt.may_degrade(progress, outcome) else {
            return Ok(Ruling::Deny);
        };
        let first = attempt.first_refusal(second.degraded, outcome);
        // Whoever stands behind it goes on, unless it is decided anew.
        let waiter = self.progress.waiter.take();
        let limits = mem::replace(&mut self.limits, second.limits);
        self.progress.first_refusal = Some(first);
        let (attempt, progress, _) = self.attempt(head);
        let asked = attempt.ask(attempt.rules.limiter.now(), progress, outcome);
        if asked.is_err() {
            (self.limits, self.progress.waiter) = (limits, waiter);
            self.progress.first_refusal = None;
        }
        asked
    }

    /// Takes the refusal of the first attempt, if the limits are those of the second.
    pub(super) fn first_refusal(&mut self) -> Option<Box<FirstRefusal>> {
        self.progress.first_refusal.take()
    }
}
