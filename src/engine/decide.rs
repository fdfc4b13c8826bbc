//! The one place where a request is decided on.
//!
//! A request comes here when it has arrived, and again at each [`Stage`] of its wait: when its turn may have come, and
//! when a store has answered. It is looked up when it arrives, and again only under other rules. An attempt asks all of
//! its limits: in this process, by leases, or in a store. Plain limits (`limiter/plain`) are asked first, and decide
//! on most requests.
//!
//! ```text
//! Arrived ─▶ look up ─▶ attempt ─▶ Admit | Refuse
//!                          │
//!                          ▼ Wait
//!                       Pending ─▶ wake, moment, lease ─▶ Turn ─────▶ attempt ─▶ Admit | Refuse | Wait
//!                               ─▶ reply of a store  ─▶ Answered ─┘
//! ```
//!
//! # Invariants
//!
//! - **What is admitted is charged on all limits, what is not on none.** What an attempt has taken before another limit
//!   refuses goes back within it.
//! - **A decision is made by one set of rules.** If other rules have come while a request waited, its next turn is
//!   decided by them. If they come within an attempt, a balance tells so ([`Outdated`]), and the attempt is made anew
//!   from its beginning: here, and nowhere else.
//! - **The closures of users run once for a request**, and again only while and after other rules come.
//! - **A guard exists before the inner service is called**: a [`Ticket`] holds what has to come back.
//!
//! # Cancellation
//!
//! A stage awaits nothing, so a request is never dropped within one. Between two stages all that it holds is in its
//! [`Pending`]. A panic of the user's code within a stage drops that.
//!
//! # Who may call it
//!
//! [`Engine::decide`] is called by the service for a request that has arrived, and by [`Pending`] for one that waits.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    Engine,
    outcome::{Decided, Outcome, Refusal, Ticket},
    pending::{Attempt, Pending, Progress, Reply, Ruling, Wait},
    route_limits::RouteLimits,
};
use crate::{
    clock::{Nanos, nanos},
    head::RequestHead,
    limiter::{
        Outdated,
        limit_set::Demand,
        plain::{self, PlainAnswer, PlainStates},
        queue::{Next, QueueAnswer, QueueMoment, Retry},
        readings::LimitReadings,
    },
    response::grpc::deadline,
    store::client::StoreClient,
};

/// The moment in the life of a request at which it is decided on.
pub(crate) enum Stage<'a> {
    /// The request has arrived.
    Arrived,
    /// The turn of a request that waits may have come, or the lease that it has waited for is there or is not to come.
    /// The waker is woken when the turn may have come again.
    Turn(Box<Pending>, &'a Waker),
    /// The store has answered, or has not in time, which is an error. The waker is that of a turn, which follows if
    /// other rules have come.
    Answered(Box<Pending>, Reply, &'a Waker),
}

impl Engine {
    /// Decides on a request: admits it, refuses it, or has it wait for a later stage.
    ///
    /// `head` is the request's at every stage; it is what closures of users see, and does not change between stages.
    /// Nothing stays charged unless the request is admitted; one that waits for a store holds its slots meanwhile.
    /// Awaits nothing: while other rules are being put into force, an attempt yields its thread and is made anew.
    ///
    /// # Panics
    ///
    /// If code of the user does: the closures that identify a client or estimate tokens, on which nothing is charged
    /// yet, or the dialect of a [`Rejection`](crate::Rejection), on which the guard is there already.
    #[inline(never)]
    pub(crate) fn decide(self: &Arc<Self>, head: RequestHead<'_>, stage: Stage<'_>) -> Decided {
        match stage {
            Stage::Arrived => {}
            Stage::Turn(pending, waker) => return self.waiting(head, pending, None, waker),
            Stage::Answered(pending, reply, waker) => {
                return self.waiting(head, pending, Some(reply), waker);
            }
        }
        loop {
            // Loaded once for an attempt: the look-up, the charge and the answer are by the same rules.
            let rules = self.active.rule_set.load();
            let mut demand = Demand::default();
            let found = match rules.look_up(head, self.options.protocol, &mut demand) {
                Ok(found) => found,
                Err(outdated) => {
                    outdated.pause();
                    continue;
                }
            };
            // Read after the closures of users have run, and anew for each attempt.
            let now = rules.limiter.now();
            let attempt = Attempt {
                engine: self,
                rules: &rules,
                limits: &found,
                demand,
                arrived: now,
                head,
            };
            let (limit_set, limiter) = (&attempt.limits.limit_set, &rules.limiter);
            if limit_set.is_plain && attempt.store().is_none() {
                let clock = || limiter.now_ordered();
                match plain::take(limit_set, &limiter.clients, demand, now, clock) {
                    PlainAnswer::Admitted(_) if !attempt.is_told() => {
                        attempt.limits.count_admitted();
                        return Decided::Admit(match limit_set.has_slots {
                            true => attempt.hold_slots(),
                            false => Ticket::Bare,
                        });
                    }
                    PlainAnswer::Admitted(states) => return attempt.tell_plain(true, states),
                    PlainAnswer::Refused(states) => return attempt.refuse_plain(states),
                    PlainAnswer::Unknown => {}
                }
            }
            match attempt.arrives() {
                Ok(decided) => return decided,
                Err(outdated) => outdated.pause(),
            }
        }
    }

    /// Decides on a request that waits: its turn may have come, or a store has answered it with `reply`.
    ///
    /// A reply is heard by the rules that asked for it, for its balances are in the order of their limits. Only the
    /// turn after it goes over to other rules. The request keeps its place in line until it is admitted or refused.
    ///
    /// An admitted request has its ticket before `pending` is dropped and the next in line is woken.
    #[inline(never)]
    fn waiting(
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
                    attempt.take_turn(not_before, waker, progress, &mut outcome)
                }),
            };
            match ruling {
                Ok(ruling) => break ruling,
                Err(outdated) => {
                    outdated.pause();
                    outcome.reset();
                }
            }
        };
        if let Ruling::Wait(wait) = ruling {
            pending.wait_for(wait);
            return Decided::Wait(pending);
        }
        let (attempt, progress, _) = pending.attempt(head);
        let now = attempt.rules.limiter.now();
        outcome.waited = now.saturating_sub(attempt.arrived);
        match ruling {
            Ruling::Admit => attempt.admit(&mut outcome),
            Ruling::Unavailable => attempt.unavailable(),
            Ruling::Deny | Ruling::Wait(_) => {
                // Whoever stands behind it goes on.
                progress.waiter = None;
                attempt.refuse(&mut outcome)
            }
        }
    }
}

impl Attempt<'_> {
    /// Returns the store, if the request is charged on limits whose balances lie there.
    #[inline(always)]
    pub(super) fn store(&self) -> Option<&Arc<StoreClient>> {
        let store = self.rules.store.get();
        store.filter(|_| self.limits.limit_set.is_shared)
    }

    /// Admits or refuses a request as plain limits have it, and tells it their `states`.
    #[inline(never)]
    pub(super) fn tell_plain(&self, is_admitted: bool, states: PlainStates) -> Decided {
        let mut readings = LimitReadings::default();
        states.tell(&mut readings);
        let mut outcome = Outcome::new(self.arrived, &mut readings);
        match is_admitted {
            true => self.admit(&mut outcome),
            false => self.refuse(&mut outcome),
        }
    }

    /// Decides on a request that has arrived, by any limits.
    ///
    /// # Errors
    ///
    /// [`Outdated`] as of [`ask`](Self::ask). Nothing is kept, and the next attempt begins anew.
    #[inline(never)]
    fn arrives(&self) -> Result<Decided, Outdated> {
        let now = self.arrived;
        let mut readings = LimitReadings::default();
        let mut outcome = Outcome::new(now, &mut readings);
        let limit_set = &self.limits.limit_set;
        // Of most requests nobody waits for the limits, and no store has their balances.
        if limit_set.is_patient || self.store().is_some() {
            let mut progress = Progress::default();
            return Ok(match self.ask(now, &mut progress, &mut outcome)? {
                Ruling::Admit => self.admit(&mut outcome),
                Ruling::Deny => self.refuse(&mut outcome),
                Ruling::Unavailable => self.unavailable(),
                Ruling::Wait(wait) => Decided::Wait(self.pending(progress, wait)),
            });
        }
        let limiter = &self.rules.limiter;
        let is_admitted = limiter.admit(limit_set, self.demand, now, outcome.readings)?;
        Ok(match is_admitted {
            true => self.admit(&mut outcome),
            false => self.refuse(&mut outcome),
        })
    }

    /// Asks all limits at `now`, wherever their balances lie. Whoever has a place in line has come to its turn.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if other rules have come. Nothing stays taken, and `progress` keeps its place in line.
    pub(super) fn ask(
        &self,
        now: Nanos,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Result<Ruling, Outdated> {
        if self.limits.limit_set.is_shared {
            if let Some(store) = self.rules.store.get() {
                return self.ask_store(store, now, progress, outcome);
            }
        }
        self.ask_here(self.limits, now, progress, outcome)
    }

    /// Asks limits whose balances lie in this process: the route's own, or the form of them that an outage leaves.
    ///
    /// A request without a place in line is given one if the limit that refuses it allows that. One that has a place
    /// keeps it until it has waited long enough.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if other rules have come. Nothing is taken then, and a place in line is kept.
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
            let moment = QueueMoment::here(now, self.arrived);
            let retry = waiter.refused(limit_set, self.demand, moment, outcome.readings);
            return Ok(match retry {
                Retry::At(until) => Ruling::Wait(Wait::in_line(until)),
                // What comes free before it has entered its waker wakes nobody: then it asks once more.
                Retry::Woken(until) if progress.is_entered => Ruling::Wait(Wait::in_line(until)),
                Retry::Woken(_) | Retry::Elsewhere => Ruling::Wait(Wait::again()),
                Retry::Never => Ruling::Deny,
            });
        }
        let timeout = || self.timeout();
        let readings = &mut *outcome.readings;
        let answer = limiter.ask(limit_set, self.demand, now, self.arrived, timeout, readings)?;
        Ok(match answer {
            QueueAnswer::Admitted => Ruling::Admit,
            QueueAnswer::Denied => Ruling::Deny,
            QueueAnswer::Waits(waiter) => {
                progress.waiter = Some(waiter);
                Ruling::Wait(Wait::again())
            }
        })
    }

    /// Asks all limits if it is the first in line, or stands in none, and `not_before` has come.
    ///
    /// Enters `waker` first, so that whatever comes free while the limits are asked wakes it. A request whose time is
    /// over is refused without having been asked again: by the limit whose line it has stood in, if no other refuses.
    ///
    /// `not_before` of zero asks as soon as it is the first.
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
                Ok(Ruling::Deny)
            }
        }
    }

    /// Returns the nanoseconds that the client itself waits from its request on, if it says so in `grpc-timeout`.
    pub(super) fn timeout(&self) -> Option<Nanos> {
        deadline(self.head.headers()).map(nanos)
    }

    /// Keeps what was found of the request, and what it holds, for its next stage.
    fn pending(&self, progress: Progress, wait: Wait) -> Box<Pending> {
        Box::new(Pending::new(self, progress, wait))
    }
}

impl Pending {
    /// Waits until the request is decided on. `head` is the request's.
    ///
    /// Takes the pending request out of `this` while it is decided on, and puts it back if it goes on to wait. After a
    /// decision or a panic `this` is `None`, and what it held is in the ticket or goes back.
    ///
    /// Each poll ends a wait for a turn, so that a poll which nothing has called for costs a look and loses nothing.
    ///
    /// # Panics
    ///
    /// If it is polled again after it was decided on, and if code of the user does, as in [`Engine::decide`].
    pub(crate) fn poll(
        this: &mut Option<Box<Self>>,
        head: RequestHead<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Ticket, Arc<Engine>), Refusal>> {
        let mut pending = this.take().expect("it is not polled after it has ended");
        pending.wake();
        loop {
            let Poll::Ready(reply) = pending.poll_wait(cx) else {
                *this = Some(pending);
                return Poll::Pending;
            };
            let engine = pending.engine();
            let stage = match reply {
                Some(reply) => Stage::Answered(pending, reply, cx.waker()),
                None => Stage::Turn(pending, cx.waker()),
            };
            match engine.decide(head, stage) {
                Decided::Wait(next) => pending = next,
                Decided::Admit(ticket) => return Poll::Ready(Ok((ticket, engine))),
                Decided::Refuse(refusal) => return Poll::Ready(Err(refusal)),
            }
        }
    }
}
