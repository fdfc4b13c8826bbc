//! How far a request has come whose limits lie in a store: its place in line, its slots, its question.

mod alone;
mod refused;

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Request;
use tokio::time::{Sleep, sleep_until};

use self::{alone::Later, refused::Found};
use super::{By, Ended, Told};
use crate::{
    admission::Permits,
    clock::{Nanos, nanos},
    engine::{ByLease, Engine, RouteLimits, RuleSet},
    limiter::{
        limit_set::Demand,
        queue::{Next, Waiter},
        readings::LimitReadings,
    },
    store::client::{CachedView, LeaseWaiter, LeasedUnits, StoreCall, StoreClient},
};

/// How far it has come.
#[derive(Debug)]
pub(crate) struct Way {
    pub(super) shared: Arc<Engine>,
    /// The rules by which it is decided.
    pub(super) state: Arc<RuleSet>,
    pub(super) prepared: RouteLimits,
    pub(super) demand: Demand,
    pub(super) arrived: Nanos,
    /// For how long the client waits.
    timeout: Option<Nanos>,
    step: Step,
    timer: Option<Pin<Box<Sleep>>>,
    /// Until when it waits for leases that others ask for, once it does.
    follows: Option<Nanos>,
    /// Whether whoever polls it is woken when its turn comes.
    is_entered: bool,
    /// Until when it does nothing, unless it is woken.
    pauses: Option<Nanos>,
}

#[derive(Debug)]
enum Step {
    /// Takes its slots, and asks.
    Starts(Option<Waiter>),
    /// Has asked, and holds its slots.
    Asks {
        ask: Box<StoreCall>,
        held: Option<Permits>,
        /// Of the limits that lie in this process.
        readings: LimitReadings,
        standing: Option<Waiter>,
    },
    /// Has asked what the buckets hold, to tell the wait of a refusal. What is over does not wait in line again.
    Peeks {
        ask: Box<StoreCall>,
        standing: Option<Waiter>,
        is_over: bool,
    },
    /// Waits for a lease that somebody else has asked for.
    Follows(LeaseWaiter, Option<Waiter>),
    /// Stands in line, and asks no earlier than this.
    Stands(Waiter, Nanos),
    /// Stands in line for what this process decides alone, while the store is down.
    Alone(Waiter, RouteLimits),
    Over,
}

impl Way {
    pub(crate) fn new(
        shared: Arc<Engine>,
        state: Arc<RuleSet>,
        prepared: RouteLimits,
        demand: Demand,
        now: Nanos,
        timeout: Option<Nanos>,
    ) -> Self {
        Self {
            shared,
            state,
            prepared,
            demand,
            arrived: now,
            timeout,
            step: Step::Starts(None),
            timer: None,
            follows: None,
            is_entered: false,
            pauses: None,
        }
    }

    pub(super) fn poll<B>(&mut self, request: &Request<B>, cx: &mut Context<'_>) -> Poll<Ended> {
        self.is_entered = false;
        loop {
            if let Some(until) = self.pauses.take() {
                ready!(self.sleep(until, cx));
            }
            match mem::replace(&mut self.step, Step::Over) {
                Step::Starts(standing) => {
                    if let Some(ended) = self.start(request, standing) {
                        return Poll::Ready(ended);
                    }
                }
                Step::Follows(mut follow, standing) => {
                    if follow.poll(cx).is_pending() {
                        self.step = Step::Follows(follow, standing);
                        return Poll::Pending;
                    }
                    self.step = Step::Starts(standing);
                }
                Step::Asks {
                    mut ask,
                    held,
                    readings,
                    standing,
                } => match ask.poll(cx) {
                    Poll::Pending => {
                        self.step = Step::Asks {
                            ask,
                            held,
                            readings,
                            standing,
                        };
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(taken)) => {
                        let limit_set = &self.prepared.limit_set;
                        let tell = |readings: &LimitReadings| {
                            let balances = taken.balances.iter().copied();
                            StoreClient::readings(limit_set, self.demand, balances, readings)
                        };
                        // Shadows refuse nobody, whatever the store says.
                        let may_refuse = limit_set.enforced().any(|bound| bound.id.is_some());
                        if taken.is_admitted || !may_refuse {
                            let readings = tell(&readings);
                            return Poll::Ready(Ended::Admitted(Told {
                                by: By::All,
                                at: taken.now,
                                readings,
                                held,
                            }));
                        }
                        // Its slots are free while it waits, and refuse nobody.
                        drop(held);
                        let limiter = &self.state.limiter;
                        let held = &self.prepared.held().limit_set;
                        let mut readings = tell(&limiter.peek(held, self.demand, limiter.now()));
                        self.name_refusal_there(&mut readings, taken.now);
                        let found = Found::there(readings, taken.now);
                        if let Some(ended) = self.refused(standing, found) {
                            return Poll::Ready(ended);
                        }
                    }
                    Poll::Ready(Err(_)) => {
                        let demand = Some((ask, held, readings));
                        if let Some(ended) = self.alone(request, demand, standing) {
                            return Poll::Ready(ended);
                        }
                    }
                },
                Step::Peeks {
                    mut ask,
                    standing,
                    is_over,
                } => {
                    let Poll::Ready(answer) = ask.poll(cx) else {
                        self.step = Step::Peeks {
                            ask,
                            standing,
                            is_over,
                        };
                        return Poll::Pending;
                    };
                    let ended = match answer {
                        Ok(taken) => self.peeked(&taken, standing, is_over),
                        Err(_) => self.alone(request, None, standing),
                    };
                    if let Some(ended) = ended {
                        return Poll::Ready(ended);
                    }
                }
                Step::Stands(mut standing, until) => {
                    let until = match self.follow(request) {
                        true => 0,
                        false => until,
                    };
                    let limit_set = &self.prepared.limit_set;
                    self.is_entered = true;
                    let wakes = match standing.next(limit_set, self.demand, cx.waker()) {
                        Next::Asks(now) if now >= until => {
                            self.step = Step::Starts(Some(standing));
                            continue;
                        }
                        Next::Asks(_) => {
                            standing.asks_by(until);
                            until
                        }
                        Next::Stands(deadline) => deadline,
                        Next::Goes(now) => {
                            drop(standing);
                            match self.gives_up(now) {
                                Some(ended) => return Poll::Ready(ended),
                                None => continue,
                            }
                        }
                    };
                    self.step = Step::Stands(standing, until);
                    ready!(self.sleep(wakes, cx));
                }
                Step::Alone(standing, prepared) => {
                    match self.turn_alone(request, standing, prepared, cx.waker()) {
                        Ok(ended) => return Poll::Ready(ended),
                        Err(Later::At(until)) => ready!(self.sleep(until, cx)),
                        Err(Later::Now) => {}
                    }
                }
                Step::Over => unreachable!("it is not polled after it has ended"),
            }
        }
    }

    /// Takes its slots and asks, if nobody stands before it.
    fn start<B>(&mut self, request: &Request<B>, standing: Option<Waiter>) -> Option<Ended> {
        let limiter = Arc::clone(&self.state.limiter);
        let store = self.state.store.clone();
        let Some(remote) = store.get().filter(|remote| !remote.is_down()) else {
            return self.alone(request, None, standing);
        };
        let limit_set = Arc::clone(&self.prepared.limit_set);
        let now = limiter.now();
        let lines = &limiter.lines;
        let is_behind = standing.is_none()
            && limit_set.is_patient
            && !lines.is_empty()
            && limiter.is_behind(&limit_set, self.demand);
        let lease = self.shared.options.lease;
        let lent = match lease {
            0 | 1 => LeasedUnits::default(),
            _ if is_behind => LeasedUnits::default(),
            _ => remote.lend(&limit_set, self.demand, now),
        };
        if lent.is_all() {
            return self.by_lease(request, standing, remote, &lent, now);
        }
        let guess = self.guess(remote, now, &lent);
        if is_behind || (guess.is_denied && guess.is_known) {
            remote.unlend(&lent);
            return self.refused(standing, Found::guessed(guess));
        }
        let deadline = self.shared.options.store_deadline;
        let until = *self
            .follows
            .get_or_insert_with(|| now.saturating_add(LeaseWaiter::patience(deadline)));
        // The store answers no later than that, or it is given up.
        if let Some(standing) = &standing {
            standing.asks_by(now.saturating_add(nanos(deadline)).max(until));
        }
        if let Some(follow) = remote.follow(&lent, until).filter(|_| now < until) {
            remote.unlend(&lent);
            self.step = Step::Follows(follow, standing);
            return None;
        }
        let RouteLimits {
            limit_set: held,
            origin,
            ..
        } = self.prepared.held();
        let mut readings = LimitReadings::default();
        let answer = limiter.admit(held, self.demand, now, &mut readings);
        if !matches!(answer, Ok(true)) {
            remote.unlend(&lent);
        }
        match answer {
            Ok(true) => {}
            Ok(false) => return self.refused_here(standing, remote, now, readings),
            Err(outdated) => {
                outdated.pause();
                self.follow(request);
                self.step = Step::Starts(standing);
                return None;
            }
        }
        let permits = || Permits::new(origin, self.demand, &readings);
        let ask = remote.ask(&limit_set, self.demand, deadline, lease, lent);
        self.step = Step::Asks {
            ask: Box::new(ask),
            held: held.has_slots.then(permits),
            readings,
            standing,
        };
        None
    }

    /// What becomes of it, to which all was lent that it takes in the store.
    fn by_lease<B>(
        &mut self,
        request: &Request<B>,
        standing: Option<Waiter>,
        remote: &StoreClient,
        lent: &LeasedUnits,
        now: Nanos,
    ) -> Option<Ended> {
        let state = Arc::clone(&self.state);
        match state.by_lease(&self.prepared, self.demand, remote, lent, now) {
            Ok(ByLease::Admitted(readings, at, held)) => Some(Ended::Admitted(Told {
                by: By::All,
                at,
                readings,
                held,
            })),
            Ok(ByLease::Refused(readings)) => self.refused_here(standing, remote, now, readings),
            Err(outdated) => {
                outdated.pause();
                self.follow(request);
                self.step = Step::Starts(standing);
                None
            }
        }
    }

    /// What is known at `now` of all buckets.
    fn guess(&self, remote: &StoreClient, now: Nanos, lent: &LeasedUnits) -> CachedView {
        let memory = &self.state.limiter.memory;
        remote.guess(&self.prepared.limit_set, self.demand, now, memory, lent)
    }

    /// Goes over to the rules that hold by now, if there are others.
    fn follow<B>(&mut self, request: &Request<B>) -> bool {
        loop {
            let state = self.shared.live.state();
            if Arc::ptr_eq(&state, &self.state) {
                return false;
            }
            match state.demand(request, self.shared.options.protocol) {
                Ok((prepared, demand)) => {
                    (self.prepared, self.demand) = (prepared.clone(), demand);
                    self.state = Arc::clone(&state);
                    return true;
                }
                Err(outdated) => outdated.pause(),
            }
        }
    }

    fn sleep(&mut self, until: Nanos, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.state.limiter.instant(until);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}
