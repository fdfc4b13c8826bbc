//! A request that is not decided on at once: it waits in line, for a lease, or for a store.
//!
//! # Invariants
//!
//! - **What was found of the request is kept**: its limits, its client and its cost. It is found anew only after other
//!   rules have come.
//! - **Dropped, it gives all back**: its place in line, its slots, and what the store takes for it later.
//! - **It decides nothing by itself.** When what it waits for has come, it is handed to [`Engine::decide`] again.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::{Sleep, sleep_until};

use super::{
    Engine,
    attempt::{Attempt, Progress, Reply, Wait},
    route_limits::RouteLimits,
    rule_set::RuleSet,
};
use crate::{
    clock::Nanos,
    head::RequestHead,
    limiter::{Outdated, limit_set::Demand},
};

/// A request that is not yet decided on, without its body and its service, which are of the host's types.
///
/// On the heap, so that a response future is no larger for it. It goes into [`Engine::decide`] and comes out again,
/// until there is a decision.
pub(crate) struct Pending {
    engine: Arc<Engine>,
    /// The rules by which it waits.
    rules: Arc<RuleSet>,
    /// The limits that the request is charged on by these rules.
    limits: RouteLimits,
    /// The client and the cost. Costs are those of the moment at which it was looked up.
    demand: Demand,
    /// The moment at which it came, by the clock of this process. Other rules do not change it.
    arrived: Nanos,
    progress: Progress,
    wait: Wait,
    /// Kept from one wait to the next: to set it anew is cheaper than to make it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pending {
    pub(super) fn new(attempt: &Attempt<'_>, progress: Progress, wait: Wait) -> Self {
        Self {
            engine: Arc::clone(attempt.engine),
            rules: Arc::clone(attempt.rules),
            limits: attempt.limits.clone(),
            demand: attempt.demand,
            arrived: attempt.arrived,
            progress,
            wait,
            timer: None,
        }
    }

    pub(super) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    /// Ends a wait for a turn, whatever has woken the request: it looks whether its turn has come.
    pub(super) fn wake(&mut self) {
        self.progress.is_entered = false;
        if let Wait::Turn { until, .. } = &mut self.wait {
            *until = 0;
        }
    }

    /// Waits until there is a reason to ask again, and returns the answer of a store, if it is that.
    pub(super) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        match &mut self.wait {
            Wait::Turn { until: 0, .. } => Poll::Ready(None),
            Wait::Turn { until, .. } => {
                let until = self.rules.limiter.instant(*until);
                let timer = self
                    .timer
                    .get_or_insert_with(|| Box::pin(sleep_until(until)));
                if timer.deadline() != until {
                    timer.as_mut().reset(until);
                }
                timer.as_mut().poll(cx).map(|()| None)
            }
            Wait::Lease(lease) => lease.poll(cx).map(|()| None),
            Wait::Store { call, .. } | Wait::Peek { call, .. } => call.poll(cx).map(Some),
        }
    }

    /// Goes over to the rules that hold by now, with its place in line. Without effect if they are the ones it has.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if these rules are about to be replaced, too. Nothing has changed then.
    pub(super) fn follow(&mut self, head: RequestHead<'_>) -> Result<(), Outdated> {
        let rules = self.engine.active.rules();
        if Arc::ptr_eq(&rules, &self.rules) {
            return Ok(());
        }
        let mut demand = Demand::default();
        let limits = rules.look_up(head, self.engine.options.protocol, &mut demand)?;
        (self.limits, self.demand) = (limits.into_owned(), demand);
        self.rules = Arc::clone(&rules);
        // They may let it pass earlier.
        if let Wait::Turn { not_before, .. } = &mut self.wait {
            *not_before = 0;
        }
        Ok(())
    }

    /// Returns what an attempt needs: what was found, how far it has come, and when it asks at the earliest.
    pub(super) fn attempt<'a>(
        &'a mut self,
        head: RequestHead<'a>,
    ) -> (Attempt<'a>, &'a mut Progress, Nanos) {
        let not_before = match self.wait {
            Wait::Turn { not_before, .. } => not_before,
            _ => 0,
        };
        let attempt = Attempt {
            engine: &self.engine,
            rules: &self.rules,
            limits: &self.limits,
            demand: self.demand,
            arrived: self.arrived,
            head,
        };
        (attempt, &mut self.progress, not_before)
    }

    /// Returns what it has waited for, which has come.
    pub(super) fn take_wait(&mut self) -> Wait {
        mem::replace(&mut self.wait, Wait::again())
    }

    pub(super) fn wait_for(&mut self, wait: Wait) {
        self.wait = wait;
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("demand", &self.demand)
            .field("progress", &self.progress)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}
