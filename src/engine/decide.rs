//! The decision on a request. No other module makes one.
//!
//! A request is decided on when it arrives, and again at each stage of its wait: when its turn may have come, and when
//! a store has answered. The request is looked up when it arrives, and again only after a reload. An attempt asks all
//! limits of the request: in this process, by leases, or in a store. Plain limits (`limiter/plain`) are asked first,
//! and decide on most requests. A request that matches a literal key and falls under plain limits is decided on at
//! once: it passes, is admitted with fields, or is refused. All others are decided on at length, and so are all
//! requests if the gate (`crate::gate`) is closed or counts requests.
//!
//! ```text
//! Arrived ─▶ at once ─▶ Pass | Admit | Refuse
//!               │
//!               ▼ at length
//!            look up ─▶ attempt ─▶ Pass | Admit | Refuse
//!                          │
//!                          ▼ Wait
//!                       Pending ─▶ wake, moment, lease ─▶ Turn ─────▶ attempt ─▶ Admit | Refuse | Wait
//!                               ─▶ reply of a store  ─▶ Answered ─┘
//! ```
//!
//! # Invariants
//!
//! - **All limits or none.** An admitted request is charged on all of its limits, and a refused one on none. An attempt
//!   gives back what it has taken before another limit refuses.
//! - **A decision is made by one set of rules.** After a reload, the next turn of a waiting request is decided by the
//!   new rules. If the reload comes within an attempt, a balance answers [`Outdated`], and the attempt begins again:
//!   here, and nowhere else.
//! - **The short way answers as the general one.** All limits are charged or none, so that a request may change to the
//!   general way at any point. The general way goes on with the client, the plan and the limits that were found.
//!   Answers, balances and counts are the same: a property in `engine/tests/plain` compares both ways, with and without
//!   fields, dialects, rejections and plans, and with the decision in any of its places.
//! - **The closures of users run once for a request**, and again only after a reload.
//! - **A guard exists before the inner service is called**: a [`Ticket`] holds all that has to come back.
//!
//! # Cancellation
//!
//! A stage does not await, so a request is never dropped within one. Between two stages its [`Pending`] holds all that
//! the request has. A panic of the user's code within a stage drops the `Pending`.
//!
//! # Callers
//!
//! The service calls [`Engine::decide`] for a request that has arrived. [`Pending`] calls [`Engine::decide_again`] for
//! a request that waits.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    Engine,
    options::Asker,
    outcome::{Decided, Outcome, Refusal, Ticket},
    pending::{Attempt, Pending, Progress, Reply, Ruling, Wait},
    route_limits::RouteLimits,
    rule_set::RuleSet,
};
use crate::{
    clock::{Nanos, nanos},
    decision::Failure,
    gate::Passage,
    head::RequestHead,
    limiter::{
        Outdated,
        limit_set::{Demand, LimitSet},
        plain::{self, PlainAnswer},
        queue::{Next, QueueAnswer, QueueMoment, Retry},
        readings::LimitReadings,
    },
    response::grpc::deadline,
    rules::PlanLimits,
    store::client::StoreClient,
};

/// An admitted request that has waited.
pub(crate) struct Admitted {
    /// The ticket with which it goes on. `None`: its response passes as it is.
    pub(crate) ticket: Option<Ticket>,
    /// The engine that has decided.
    pub(crate) engine: Arc<Engine>,
}

impl Engine {
    /// Decides on a request that has arrived: admits it, refuses it, or has it wait.
    ///
    /// `head` is the head of the request, which closures of users see. Each later attempt is given the same head.
    /// Nothing stays charged unless the request is admitted. A request that waits for a store holds its slots
    /// meanwhile. This function does not await: while a reload puts other rules into force, an attempt yields its
    /// thread and begins again.
    ///
    /// # Panics
    ///
    /// If code of the user does: the closures that identify a client or estimate tokens, on which nothing is charged
    /// yet, or a recorder of metrics or the dialect of a [`Rejection`](crate::response::Rejection), when the guard of
    /// an admitted request is there.
    #[inline(never)]
    pub(crate) fn decide(self: &Arc<Self>, head: RequestHead<'_>) -> Decided {
        if self.active.gate.is_attended() {
            return self.decide_at_gate(head);
        }
        // Loaded once for an attempt: the look-up, the charge and the answer are by the same rules.
        let rules = self.active.rule_set.load();
        let mut demand = Demand::default();
        let plan = rules.identify(head, &mut demand);
        let Some(limits) = rules.at_once(head, self.options.protocol, plan, demand.model) else {
            return self.decide_at_length(head, &rules, plan, demand);
        };
        // Read after the closures of users have run, and once for an attempt.
        let arrived = rules.limiter.now();
        if !self.may_tell() && Self::passes(&rules, &limits.limit_set, demand, arrived) {
            return limits.untold(demand);
        }
        self.decide_found(head, &rules, limits, arrived, demand)
    }

    /// Decides on a request that has arrived, by limits that were found for it at once.
    #[inline(never)]
    fn decide_found(
        self: &Arc<Self>,
        head: RequestHead<'_>,
        rules: &Arc<RuleSet>,
        limits: &RouteLimits,
        arrived: Nanos,
        demand: Demand,
    ) -> Decided {
        let attempt = Attempt {
            engine: self,
            rules,
            limits,
            demand,
            arrived,
            head,
        };
        attempt.decide()
    }

    /// Tells whether an admitted request may be told something. If not, a request on plain limits is told nothing.
    #[inline(always)]
    fn may_tell(&self) -> bool {
        self.options.rate_limit_headers || self.options.decision.anywhere()
    }

    /// Charges a request on plain limits. `false`: nothing was charged, and it has to be decided on at length.
    #[inline(always)]
    fn passes(rules: &RuleSet, limit_set: &LimitSet, demand: Demand, now: Nanos) -> bool {
        let limiter = &rules.limiter;
        if limit_set.is_shared && rules.store.is_some() {
            return false;
        }
        let clock = || limiter.now_ordered();
        let gave_back = || limiter.wake_for_slots(limit_set, demand);
        let table = &limiter.clients;
        plain::pass(limit_set, table, demand, now, clock, gave_back)
    }

    /// Decides on a request that has arrived, whichever routes it may match.
    #[inline(never)]
    fn decide_at_length(
        self: &Arc<Self>,
        head: RequestHead<'_>,
        rules: &Arc<RuleSet>,
        plan: &PlanLimits,
        demand: Demand,
    ) -> Decided {
        let mut demand = demand;
        match rules.look_up_for(head, self.options.protocol, plan, &mut demand) {
            Ok(limits) => self.now(head, rules, &limits, demand).decide(),
            Err(outdated) => self.decide_anew(head, outdated),
        }
    }

    /// Decides on a request that has arrived, after a reload has come within its first attempt. Plain limits are asked
    /// in the general way, as all others.
    #[cold]
    fn decide_anew(self: &Arc<Self>, head: RequestHead<'_>, outdated: Outdated) -> Decided {
        let mut outdated = outdated;
        loop {
            outdated.pause();
            match self.attempt(head) {
                Ok(decided) => return decided,
                Err(again) => outdated = again,
            }
        }
    }

    /// Makes one attempt for a request that has arrived, in the general way.
    ///
    /// # Errors
    ///
    /// [`Outdated`] as of [`Attempt::ask`]. Nothing is kept.
    fn attempt(self: &Arc<Self>, head: RequestHead<'_>) -> Result<Decided, Outdated> {
        // Before the look whether the gate is closed.
        let passage = self.active.gate.enter();
        let rules = self.active.rule_set.load();
        let mut demand = Demand::default();
        let limits = rules.look_up(head, self.options.protocol, &mut demand)?;
        let attempt = self.now(head, &rules, &limits, demand);
        match attempt.is_shut_out() {
            true => Ok(attempt.fail(Failure::ShuttingDown, 0)),
            false => attempt.by_any(passage),
        }
    }

    /// Decides on a request that has arrived at a gate that is closed, or counts requests.
    #[cold]
    fn decide_at_gate(self: &Arc<Self>, head: RequestHead<'_>) -> Decided {
        let decided = self.attempt(head);
        decided.unwrap_or_else(|outdated| self.decide_anew(head, outdated))
    }

    /// Begins an attempt for a request that has arrived, by the limits that were found for it.
    #[inline(always)]
    fn now<'a>(
        self: &'a Arc<Self>,
        head: RequestHead<'a>,
        rules: &'a Arc<RuleSet>,
        limits: &'a RouteLimits,
        demand: Demand,
    ) -> Attempt<'a> {
        Attempt {
            engine: self,
            rules,
            limits,
            demand,
            // Read after the closures of users have run.
            arrived: rules.limiter.now(),
            head,
        }
    }

    /// Decides on a request that waits, in one of three cases: its turn may have come; its wait for a lease is over; or
    /// a store has answered with `reply`, which is an error if no answer came in time.
    ///
    /// `waker` is woken when the turn may have come again.
    ///
    /// A reply is read by the rules that asked for it, because its balances are in the order of their limits. Only the
    /// next turn follows a reload. The request keeps its place in line until it is admitted or refused.
    ///
    /// An admitted request has its ticket before `pending` is dropped and the next in line is woken.
    ///
    /// # Panics
    ///
    /// As [`decide`](Self::decide).
    #[inline(never)]
    pub(super) fn decide_again(
        self: &Arc<Self>,
        head: RequestHead<'_>,
        mut pending: Box<Pending>,
        reply: Option<Reply>,
        waker: &Waker,
    ) -> Decided {
        let mut reply = reply;
        let mut readings = LimitReadings::default();
        // An attempt that admits or denies writes the moment, by the clock of whoever has decided.
        let mut outcome = Outcome::new(0, &mut readings);
        outcome.passage = pending.passage.take();
        let ruling = loop {
            // After other rules have come, it is its turn again.
            let ruling = match reply.take() {
                Some(reply) => {
                    let wait = pending.take_wait();
                    let (attempt, progress, _) = pending.attempt(head);
                    attempt.heard(wait, &reply, progress, &mut outcome)
                }
                None => pending.follow(head).and_then(|()| {
                    let (attempt, progress, not_before) = pending.attempt(head);
                    match attempt.is_shut_out() {
                        true => Ok(Ruling::Fail(Failure::ShuttingDown)),
                        false => attempt.take_turn(not_before, waker, progress, &mut outcome),
                    }
                }),
            };
            match ruling {
                // Closing the gate wakes the requests in line. This one may have entered its waker after that.
                Ok(Ruling::Wait(_)) if self.active.gate.is_closed() => {
                    break Ruling::Fail(Failure::ShuttingDown);
                }
                Ok(Ruling::Deny) => match pending.degrade(head, &mut outcome) {
                    Ok(ruling) => break ruling,
                    Err(outdated) => {
                        outdated.pause();
                        outcome.reset();
                    }
                },
                Ok(ruling) => break ruling,
                Err(outdated) => {
                    outdated.pause();
                    outcome.reset();
                }
            }
        };
        if let Ruling::Wait(wait) = ruling {
            pending.wait_for(wait);
            pending.passage = outcome.passage.take();
            return Decided::Wait(pending);
        }
        let first = pending.first_refusal();
        let (attempt, progress, _) = pending.attempt(head);
        let now = attempt.rules.limiter.now();
        outcome.waited = now.saturating_sub(attempt.arrived);
        if let Some(first) = first {
            return attempt.end_second(&ruling, *first, &mut outcome);
        }
        match ruling {
            Ruling::Admit => attempt.admit(&mut outcome),
            Ruling::Fail(failure) => attempt.fail(failure, outcome.waited),
            Ruling::Deny | Ruling::Wait(_) => {
                // Whoever stands behind it goes on.
                progress.waiter = None;
                attempt.refuse(&mut outcome)
            }
        }
    }
}

impl Attempt<'_> {
    /// Returns the store, if it keeps balances of the request's limits.
    #[inline(always)]
    pub(super) fn store(&self) -> Option<&Arc<StoreClient>> {
        let store = self.rules.store.as_ref();
        store.filter(|_| self.limits.limit_set.is_shared)
    }

    /// Tells whether the gate is closed for the request. Exempt routes stay open, so that liveness probes pass.
    fn is_shut_out(&self) -> bool {
        self.engine.active.gate.is_closed() && !self.limits.limit_set.exempt
    }

    /// Decides on a request that has arrived, by any limits. Plain ones are asked first.
    #[inline(always)]
    fn decide(&self) -> Decided {
        if self.limits.limit_set.is_plain && self.store().is_none() {
            match self.ask_plain() {
                PlainAnswer::Admitted(states) => return self.admit_plain(states),
                PlainAnswer::Refused(_) if self.has_ended_lost(self.arrived) => {}
                PlainAnswer::Refused(states) if self.limits.limit_set.second.is_none() => {
                    return self.refuse_plain(states);
                }
                PlainAnswer::Refused(_) | PlainAnswer::Unknown => {}
            }
        }
        match self.by_any(None) {
            Ok(decided) => decided,
            Err(outdated) => self.engine.decide_anew(self.head, outdated),
        }
    }

    /// Decides on a request that has arrived, by any limits, in the general way.
    ///
    /// # Errors
    ///
    /// [`Outdated`] as of [`ask`](Self::ask). Nothing is kept, and the next attempt begins anew.
    #[inline(never)]
    fn by_any(&self, passage: Option<Passage>) -> Result<Decided, Outdated> {
        let now = self.arrived;
        let mut readings = LimitReadings::default();
        let mut outcome = Outcome::new(now, &mut readings);
        outcome.passage = passage;
        let limit_set = &self.limits.limit_set;
        // Of most requests nobody waits for the limits, and no store has their balances.
        if limit_set.is_patient || self.store().is_some() {
            let mut progress = Progress::default();
            return Ok(match self.ask(now, &mut progress, &mut outcome)? {
                Ruling::Admit => self.admit(&mut outcome),
                Ruling::Deny => self.refuse_or_degrade(progress, &mut outcome)?,
                Ruling::Fail(failure) => self.fail(failure, 0),
                Ruling::Wait(wait) => {
                    let passage = outcome.passage.take();
                    Decided::Wait(self.pending(progress, wait, passage))
                }
            });
        }
        let limiter = &self.rules.limiter;
        let mut is_admitted = limiter.admit(limit_set, self.demand, now, outcome.readings)?;
        if !is_admitted && self.has_ended_lost(now) {
            outcome.reset();
            is_admitted = limiter.admit_apart(limit_set, self.demand, now, outcome.readings)?;
        }
        Ok(match is_admitted {
            true => self.admit(&mut outcome),
            false => self.refuse_or_degrade(Progress::default(), &mut outcome)?,
        })
    }

    /// Ends the requests that handlers have kept for too long, if caps may have refused this one or let it wait. Returns
    /// whether there were some: the limits are asked once more then.
    #[inline(always)]
    pub(super) fn has_ended_lost(&self, now: Nanos) -> bool {
        let has_slots = self.limits.limit_set.has_slots;
        has_slots && self.engine.active.bounded.is_due(now) && self.end_lost(now)
    }

    /// Returns the moment until which the request waits for a slot: this one, or the next at which a kept request is lost.
    pub(super) fn or_lost(&self, until: Nanos) -> Nanos {
        match self.limits.limit_set.has_slots {
            true => until.min(self.engine.active.bounded.earliest()),
            false => until,
        }
    }

    #[cold]
    fn end_lost(&self, now: Nanos) -> bool {
        let bounded = &self.engine.active.bounded;
        bounded.end_lost(now, |route| self.rules.log.ended_at_bound(route, now))
    }

    /// Asks all limits at `now`, in this process or in the store. A request with a place in line has its turn.
    ///
    /// # Errors
    ///
    /// [`Outdated`] after a reload. Nothing stays taken, and `progress` keeps its place in line.
    pub(super) fn ask(
        &self,
        now: Nanos,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Result<Ruling, Outdated> {
        if self.limits.limit_set.is_shared {
            if let Some(store) = &self.rules.store {
                return self.ask_store(store, now, progress, outcome);
            }
        }
        self.ask_here(self.limits, now, progress, outcome)
    }

    /// Asks limits whose balances are in this process: those of the route, or their form during an outage of the store.
    ///
    /// A request without a place in line gets one if the limit that refuses it allows that. A request with a place
    /// keeps it until its time is over.
    ///
    /// # Errors
    ///
    /// [`Outdated`] after a reload. Nothing is taken then, and a place in line is kept.
    pub(super) fn ask_here(
        &self,
        limits: &RouteLimits,
        now: Nanos,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Result<Ruling, Outdated> {
        let (limiter, limit_set) = (&self.rules.limiter, &limits.limit_set);
        outcome.at = now;
        if let Some(waiter) = &mut progress.waiter {
            if limiter.admit_apart(limit_set, self.demand, now, outcome.readings)? {
                return Ok(Ruling::Admit);
            }
            if self.has_ended_lost(now) {
                // Asked once more in the next turn, which is at once.
                return Ok(Ruling::Wait(Wait::again()));
            }
            let moment = QueueMoment::here(now, self.arrived);
            let retry = waiter.refused(limit_set, self.demand, moment, outcome.readings);
            return Ok(match retry {
                Retry::At(until) => Ruling::Wait(Wait::in_line(until)),
                // What comes free before it has entered its waker wakes nobody: then it asks once more.
                Retry::Woken(until) if progress.is_entered => {
                    Ruling::Wait(Wait::in_line(self.or_lost(until)))
                }
                Retry::Woken(_) | Retry::Elsewhere => Ruling::Wait(Wait::again()),
                Retry::Never => Ruling::Deny,
            });
        }
        if self.asks_at_once() {
            return self.ask_without_a_line(limit_set, now, outcome);
        }
        if limit_set.is_patient {
            // Before it stands in line.
            self.has_ended_lost(now);
        }
        let timeout = || self.timeout();
        let readings = &mut *outcome.readings;
        let mut answer =
            limiter.ask(limit_set, self.demand, now, self.arrived, timeout, readings)?;
        if matches!(answer, QueueAnswer::Denied) && self.has_ended_lost(now) {
            *readings = LimitReadings::default();
            answer = limiter.ask(limit_set, self.demand, now, self.arrived, timeout, readings)?;
        }
        Ok(match answer {
            QueueAnswer::Admitted => Ruling::Admit,
            QueueAnswer::Denied => Ruling::Deny,
            QueueAnswer::Waits(waiter) => {
                progress.waiter = Some(waiter);
                Ruling::Wait(Wait::again())
            }
        })
    }

    /// Returns whether the decision is made without waiting for anything.
    #[inline]
    pub(super) fn asks_at_once(&self) -> bool {
        self.engine.options.asker == Asker::PermitAtOnce
    }

    /// Asks limits whose balances are in this process for work that does not wait. Whoever stands in line is before it.
    ///
    /// # Errors
    ///
    /// As [`ask_here`](Self::ask_here).
    #[cold]
    fn ask_without_a_line(
        &self,
        limit_set: &LimitSet,
        now: Nanos,
        outcome: &mut Outcome<'_>,
    ) -> Result<Ruling, Outdated> {
        let limiter = &self.rules.limiter;
        let ask = |readings: &mut LimitReadings| -> Result<bool, Outdated> {
            *readings = LimitReadings::default();
            let is_behind = limit_set.is_patient && limiter.is_behind(limit_set, self.demand);
            if !is_behind {
                return limiter.admit_apart(limit_set, self.demand, now, readings);
            }
            *readings = limiter.peek(limit_set, self.demand, now);
            limiter.name_refusal(limit_set, self.demand, now, readings);
            Ok(false)
        };
        let mut is_admitted = ask(outcome.readings)?;
        if !is_admitted && self.has_ended_lost(now) {
            is_admitted = ask(outcome.readings)?;
        }
        Ok(match is_admitted {
            true => Ruling::Admit,
            false => Ruling::Deny,
        })
    }

    /// Asks all limits if the request is the first in line, or is in none, and `not_before` has come.
    ///
    /// Enters `waker` first, so that units which come back while the limits are asked wake the request. A request whose
    /// time is over is refused without another charge: by the limit of its line, if no other limit refuses.
    ///
    /// With a `not_before` of zero, the request asks as soon as it is the first.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    fn take_turn(
        &self,
        not_before: Nanos,
        waker: &Waker,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Result<Ruling, Outdated> {
        let Some(waiter) = &mut progress.waiter else {
            return self.ask(self.rules.limiter.now(), progress, outcome);
        };
        let applied = self.applied(progress.is_alone);
        let limits = applied.of(self.limits);
        progress.is_entered = true;
        match waiter.next(&limits.limit_set, self.demand, waker) {
            Next::Asks(now) if now >= not_before => self.ask(now, progress, outcome),
            Next::Asks(_) => {
                waiter.asks_by(not_before);
                Ok(Ruling::Wait(Wait::in_line_until(not_before, not_before)))
            }
            Next::Stands(until) => Ok(Ruling::Wait(Wait::in_line_until(not_before, until))),
            Next::Goes(now) => {
                self.has_ended_lost(now);
                // Refused without having been asked again.
                if let Some(store) = self.store().filter(|_| !progress.is_alone) {
                    // The limit is named whose line it has left.
                    progress.waiter = None;
                    return Ok(self.gives_up(store, now, outcome));
                }
                let limiter = &self.rules.limiter;
                let limit_set = &limits.limit_set;
                *outcome.readings = limiter.peek(limit_set, self.demand, now);
                limiter.name_refusal(limit_set, self.demand, now, outcome.readings);
                (outcome.at, outcome.applied) = (now, applied);
                // It has left its line, and is not the first of it.
                progress.waiter = None;
                Ok(Ruling::Deny)
            }
        }
    }

    /// Returns the nanoseconds for which the client itself waits, from `grpc-timeout`.
    pub(super) fn timeout(&self) -> Option<Nanos> {
        deadline(self.head.headers()).map(nanos)
    }

    /// Keeps the results of the look-up, and all that the request holds, for its next stage.
    pub(super) fn pending(
        &self,
        progress: Progress,
        wait: Wait,
        passage: Option<Passage>,
    ) -> Box<Pending> {
        Box::new(Pending::new(self, progress, wait, passage))
    }
}

impl Pending {
    /// Waits until the request with this `head` is decided on.
    ///
    /// Takes the pending request out of `this` for the decision, and puts it back if the request waits on. After a
    /// decision or a panic `this` is `None`. All that the request held is in the ticket or goes back.
    ///
    /// Each poll ends a wait for a turn, so that a spurious poll costs one look and loses nothing.
    ///
    /// # Panics
    ///
    /// If it is polled after the decision, and if code of the user panics, as in [`Engine::decide`].
    pub(crate) fn poll(
        this: &mut Option<Box<Self>>,
        head: RequestHead<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Admitted, Refusal>> {
        let mut pending = this.take().expect("it is not polled after it has ended");
        pending.wake();
        loop {
            let Poll::Ready(reply) = pending.poll_wait(cx) else {
                *this = Some(pending);
                return Poll::Pending;
            };
            let engine = pending.engine();
            match engine.decide_again(head, pending, reply, cx.waker()) {
                Decided::Wait(next) => pending = next,
                Decided::Refuse(refusal) => return Poll::Ready(Err(refusal)),
                Decided::Pass => {
                    let ticket = None;
                    return Poll::Ready(Ok(Admitted { ticket, engine }));
                }
                Decided::Hold(slot) => {
                    let ticket = Some(Ticket::Slot(slot));
                    return Poll::Ready(Ok(Admitted { ticket, engine }));
                }
                Decided::Admit(ticket) => {
                    let ticket = Some(ticket);
                    return Poll::Ready(Ok(Admitted { ticket, engine }));
                }
            }
        }
    }
}
