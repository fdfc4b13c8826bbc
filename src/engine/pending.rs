//! Attempts to decide on a request, and pending requests: those that wait in line, for a lease, or for a store.
//!
//! An [`Attempt`] borrows the results of the look-up and does not change them. It ends in a [`Ruling`]. A [`Pending`]
//! keeps the same results for a request that waits, and makes the next attempt of them. [`Progress`] lasts from one
//! attempt to the next. It has the place in line, which is left when the progress is dropped.
//!
//! # Waits
//!
//! | [`Wait`] | ends | then the request | dropped before |
//! |---|---|---|---|
//! | `Turn` | at a moment, or at the next poll | looks whether its turn has come | the line is left |
//! | `Lease` | when no call asks for it, or half a deadline has passed | looks for a unit | its timer is cancelled |
//! | `Store` | at the answer, or at the deadline | is admitted, stands in line or is refused | see below |
//! | `Peek` | at the answer, or at the deadline | is refused, or stands in line | nothing was taken |
//!
//! Dropping a `Store` frees slots and puts leased units back at once. The call goes on in a task, which gives back what
//! the store takes. Without an answer in time, the request goes on without the store. In each of these waits the
//! request may have a place in line.
//!
//! # Invariants
//!
//! - **A request is looked up once**: its limits, its client and its cost are kept. Only a reload has it looked up
//!   again.
//! - **A dropped `Pending` gives all back**: its place in line, its slots, and what the store takes for it later.
//! - **A `Pending` decides nothing.** When its wait has ended, it is handed to [`Engine::decide_again`].

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::{Sleep, sleep_until};

use super::{Engine, route_limits::RouteLimits, rule_set::RuleSet};
use crate::{
    admission::Permits,
    clock::Nanos,
    decision::{Degraded, Failure},
    gate::Passage,
    head::RequestHead,
    limiter::{Outdated, limit_set::Demand, queue::Waiter, readings::LimitReadings},
    store::{
        StoreError, Taken,
        client::{LeaseWaiter, StoreCall},
    },
};

/// The end of one attempt. Readings of the limits are left in its [`Outcome`](super::outcome::Outcome).
pub(super) enum Ruling {
    /// All limits have room, and are charged.
    Admit,
    /// A limit refuses, and the request may not wait for it.
    Deny,
    /// Limits are not asked, since the store is down or the gate is closed.
    Fail(Failure),
    /// The decision is made later.
    Wait(Wait),
}

/// The parts of one attempt: the results of the look-up.
pub(super) struct Attempt<'a> {
    /// The engine of the layer, for its settings.
    pub(super) engine: &'a Arc<Engine>,
    /// The rules that decide.
    pub(super) rules: &'a Arc<RuleSet>,
    /// The limits that the request is charged on by these rules.
    pub(super) limits: &'a RouteLimits,
    /// The client, and the cost.
    pub(super) demand: Demand,
    /// The moment at which the request came, by the clock of this process.
    pub(super) arrived: Nanos,
    /// The head of the request, from which the answer and the client's own deadline are told.
    pub(super) head: RequestHead<'a>,
}

/// The progress of a request that is not yet decided on, which lasts from one attempt to the next.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A place in line. Left when it is dropped.
    pub(super) waiter: Option<Waiter>,
    /// The moment from which the request no longer waits for leases that other requests ask for. Set in its first turn.
    pub(super) lease_until: Option<Nanos>,
    /// True if its waker is in the queue. Set by a turn, and cleared by each poll, which may bring another waker.
    /// Without a waker in the queue, units that come back may wake nobody, so the request asks once more before it
    /// waits.
    pub(super) is_entered: bool,
    /// True if the request is decided without the store from now on. Never cleared.
    pub(super) is_alone: bool,
    /// The refusal of the first attempt, while the limits are those of the second, by second budgets.
    pub(super) first_refusal: Option<Box<FirstRefusal>>,
}

/// The refusal of a first attempt, to be told if the second one is refused, too.
#[derive(Debug)]
pub(super) struct FirstRefusal {
    /// The limits that have refused, in the form that was asked.
    pub(super) limits: RouteLimits,
    pub(super) at: Nanos,
    pub(super) readings: LimitReadings,
    /// The mark of the request, if the second attempt admits it.
    pub(super) degraded: Degraded,
}

/// The answer of a store. One that is missing at the deadline is an error, too.
pub(super) type Reply = Result<Taken, StoreError>;

/// The event that a request waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// A turn in line. For a request that stands in none, a moment.
    Turn {
        /// The earliest moment at which limits are asked, even if the request is woken before.
        not_before: Nanos,
        /// The moment of the next look, unless the request is woken before. Zero: at once.
        until: Nanos,
    },
    /// A lease that somebody else has asked for.
    Lease(LeaseWaiter),
    /// The answer of the store.
    Store {
        /// The call that charges the limits whose balances lie there.
        call: Box<StoreCall>,
        /// Charges that were made here before the call. They are given back if the store refuses.
        // On the heap, as what is moved with each decision is large otherwise.
        held: Box<LocalCharges>,
    },
    /// The balances of all buckets in the store, from which a refusal tells its wait.
    Peek {
        /// A call whose costs are all zero.
        call: Box<StoreCall>,
        /// True if the request has waited for long enough. It is refused when they are known.
        is_over: bool,
    },
}

impl Wait {
    /// Returns a wait that is over at once.
    pub(super) fn again() -> Self {
        Self::in_line(0)
    }

    /// Returns a wait that is over at a moment, or when the request is woken.
    pub(super) fn in_line(until: Nanos) -> Self {
        Self::in_line_until(0, until)
    }

    /// Returns a wait that is over at `until`, or when the request is woken. Limits are asked at `not_before` at the
    /// earliest.
    pub(super) fn in_line_until(not_before: Nanos, until: Nanos) -> Self {
        Self::Turn { not_before, until }
    }
}

/// The charges that a request has made in this process while it asks the store.
#[derive(Debug)]
pub(super) struct LocalCharges {
    /// The slots. `None` where no limit is a cap.
    pub(super) permits: Option<Permits>,
    /// One for each limit whose balance lies here, in their order.
    pub(super) readings: LimitReadings,
}

/// A request that is not yet decided on, without its body and its service, whose types are the host's.
///
/// On the heap, so that response futures stay small. [`Engine::decide_again`] takes and returns it until there is a
/// decision.
pub(crate) struct Pending {
    /// The engine that has begun to decide on it, and goes on.
    engine: Arc<Engine>,
    /// The rules by which it waits.
    rules: Arc<RuleSet>,
    /// The limits that the request is charged on by these rules, or those of a second attempt.
    pub(super) limits: RouteLimits,
    /// The client and the cost, as of the look-up.
    demand: Demand,
    /// The moment of its arrival, by the clock of this process. A reload does not change it.
    arrived: Nanos,
    /// Its place in line.
    pub(super) progress: Progress,
    /// The event that brings it to its next stage.
    wait: Wait,
    /// The timer of its turns, made for the first turn that is not at once. Kept from one wait to the next: resetting a
    /// timer is cheaper than making one.
    timer: Option<Pin<Box<Sleep>>>,
    /// The passage of the request, if requests are counted. Taken while it is decided on.
    pub(super) passage: Option<Passage>,
}

impl Pending {
    /// Keeps the look-up and the progress of an attempt. Nothing is awaited before the first poll.
    pub(super) fn new(
        attempt: &Attempt<'_>,
        progress: Progress,
        wait: Wait,
        passage: Option<Passage>,
    ) -> Self {
        Self {
            engine: Arc::clone(attempt.engine),
            rules: Arc::clone(attempt.rules),
            limits: attempt.limits.clone(),
            demand: attempt.demand,
            arrived: attempt.arrived,
            progress,
            wait,
            timer: None,
            passage,
        }
    }

    /// Returns a clone of its engine, because the `Pending` itself is moved into the decision.
    pub(super) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    /// Ends a wait for a turn, whatever has woken the request, so that it looks whether its turn has come. Called once
    /// by each poll, before anything else. Waits for a lease or a store go on.
    pub(super) fn wake(&mut self) {
        self.progress.is_entered = false;
        if let Wait::Turn { until, .. } = &mut self.wait {
            *until = 0;
        }
    }

    /// Waits until there is a reason to ask again, and returns the answer of a store, if it is that.
    ///
    /// A wait that is over is not to be polled again: the decision puts another in its place.
    ///
    /// # Panics
    ///
    /// If it has to wait for a moment outside of a runtime with timers.
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

    /// Changes to the rules in force, with its place in line. Without effect if it has them already.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if these rules are about to be replaced, too. Nothing is changed then.
    pub(super) fn follow(&mut self, head: RequestHead<'_>) -> Result<(), Outdated> {
        let rules = self.engine.active.rules();
        if Arc::ptr_eq(&rules, &self.rules) {
            return Ok(());
        }
        let mut demand = Demand::default();
        // The only step that may fail, and code of the user: nothing is written before.
        let limits = rules.look_up(head, self.engine.options.protocol, &mut demand)?;
        (self.limits, self.demand) = (limits.into_owned(), demand);
        // What other rules have refused is decided anew.
        self.progress.first_refusal = None;
        self.rules = Arc::clone(&rules);
        // They may let it pass earlier.
        if let Wait::Turn { not_before, .. } = &mut self.wait {
            *not_before = 0;
        }
        Ok(())
    }

    /// Returns the parts of an attempt, the progress, and the earliest moment at which it asks. Zero: at once, as after
    /// a wait for a lease or a store.
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

    /// Returns the wait that has ended, and leaves one that is over at once.
    pub(super) fn take_wait(&mut self) -> Wait {
        mem::replace(&mut self.wait, Wait::again())
    }

    /// Sets the wait until its next stage.
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
