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
    engine::{ByLease, Prepared, Shared, State},
    limiter::{
        limit_set::Asked,
        queue::{Next, Standing},
        readings::Levels,
    },
    store::client::{Ask, Follow, Guess, Lent, Remote},
};

/// How far it has come.
#[derive(Debug)]
pub(crate) struct Way {
    pub(super) shared: Arc<Shared>,
    /// The rules by which it is decided.
    pub(super) state: Arc<State>,
    pub(super) prepared: Prepared,
    pub(super) asked: Asked,
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
    Starts(Option<Standing>),
    /// Has asked, and holds its slots.
    Asks {
        ask: Box<Ask>,
        held: Option<Permits>,
        /// Of the limits that lie in this process.
        levels: Levels,
        standing: Option<Standing>,
    },
    /// Has asked what the buckets hold, to tell the wait of a refusal. What is over does not wait in line again.
    Peeks {
        ask: Box<Ask>,
        standing: Option<Standing>,
        is_over: bool,
    },
    /// Waits for a lease that somebody else has asked for.
    Follows(Follow, Option<Standing>),
    /// Stands in line, and asks no earlier than this.
    Stands(Standing, Nanos),
    /// Stands in line for what this process decides alone, while the store is down.
    Alone(Standing, Prepared),
    Over,
}

impl Way {
    pub(crate) fn new(
        shared: Arc<Shared>,
        state: Arc<State>,
        prepared: Prepared,
        asked: Asked,
        now: Nanos,
        timeout: Option<Nanos>,
    ) -> Self {
        Self {
            shared,
            state,
            prepared,
            asked,
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
                    levels,
                    standing,
                } => match ask.poll(cx) {
                    Poll::Pending => {
                        self.step = Step::Asks {
                            ask,
                            held,
                            levels,
                            standing,
                        };
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(taken)) => {
                        let rule = &self.prepared.rule;
                        let tell = |levels: &Levels| {
                            let balances = taken.balances.iter().copied();
                            Remote::levels(rule, self.asked, balances, levels)
                        };
                        // Shadows refuse nobody, whatever the store says.
                        let may_refuse = rule.enforced().any(|binding| binding.id.is_some());
                        if taken.is_admitted || !may_refuse {
                            let levels = tell(&levels);
                            return Poll::Ready(Ended::Admitted(Told {
                                by: By::All,
                                at: taken.now,
                                levels,
                                held,
                            }));
                        }
                        // Its slots are free while it waits, and refuse nobody.
                        drop(held);
                        let limiter = &self.state.limiter;
                        let held = &self.prepared.held().rule;
                        let mut levels = tell(&limiter.peek(held, self.asked, limiter.now()));
                        self.name_refusal_there(&mut levels, taken.now);
                        let found = Found::there(levels, taken.now);
                        if let Some(ended) = self.refused(standing, found) {
                            return Poll::Ready(ended);
                        }
                    }
                    Poll::Ready(Err(_)) => {
                        let asked = Some((ask, held, levels));
                        if let Some(ended) = self.alone(request, asked, standing) {
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
                    let rule = &self.prepared.rule;
                    self.is_entered = true;
                    let wakes = match standing.next(rule, self.asked, cx.waker()) {
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
    fn start<B>(&mut self, request: &Request<B>, standing: Option<Standing>) -> Option<Ended> {
        let limiter = Arc::clone(&self.state.limiter);
        let store = self.state.store.clone();
        let Some(remote) = store.get().filter(|remote| !remote.is_down()) else {
            return self.alone(request, None, standing);
        };
        let rule = Arc::clone(&self.prepared.rule);
        let now = limiter.now();
        let lines = &limiter.lines;
        let is_behind = standing.is_none()
            && rule.is_patient
            && !lines.is_empty()
            && limiter.is_behind(&rule, self.asked);
        let lease = self.shared.options.lease;
        let lent = match lease {
            0 | 1 => Lent::default(),
            _ if is_behind => Lent::default(),
            _ => remote.lend(&rule, self.asked, now),
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
            .get_or_insert_with(|| now.saturating_add(Follow::patience(deadline)));
        // The store answers no later than that, or it is given up.
        if let Some(standing) = &standing {
            standing.asks_by(now.saturating_add(nanos(deadline)).max(until));
        }
        if let Some(follow) = remote.follow(&lent, until).filter(|_| now < until) {
            remote.unlend(&lent);
            self.step = Step::Follows(follow, standing);
            return None;
        }
        let Prepared {
            rule: held, origin, ..
        } = self.prepared.held();
        let mut levels = Levels::default();
        let answer = limiter.admit(held, self.asked, now, &mut levels);
        if !matches!(answer, Ok(true)) {
            remote.unlend(&lent);
        }
        match answer {
            Ok(true) => {}
            Ok(false) => return self.refused_here(standing, remote, now, levels),
            Err(outdated) => {
                outdated.pause();
                self.follow(request);
                self.step = Step::Starts(standing);
                return None;
            }
        }
        let permits = || Permits::new(origin, self.asked, &levels);
        let ask = remote.ask(&rule, self.asked, deadline, lease, lent);
        self.step = Step::Asks {
            ask: Box::new(ask),
            held: held.has_slots.then(permits),
            levels,
            standing,
        };
        None
    }

    /// What becomes of it, to which all was lent that it takes in the store.
    fn by_lease<B>(
        &mut self,
        request: &Request<B>,
        standing: Option<Standing>,
        remote: &Remote,
        lent: &Lent,
        now: Nanos,
    ) -> Option<Ended> {
        let state = Arc::clone(&self.state);
        match state.by_lease(&self.prepared, self.asked, remote, lent, now) {
            Ok(ByLease::Admitted(levels, at, held)) => Some(Ended::Admitted(Told {
                by: By::All,
                at,
                levels,
                held,
            })),
            Ok(ByLease::Refused(levels)) => self.refused_here(standing, remote, now, levels),
            Err(outdated) => {
                outdated.pause();
                self.follow(request);
                self.step = Step::Starts(standing);
                None
            }
        }
    }

    /// What is known at `now` of all buckets.
    fn guess(&self, remote: &Remote, now: Nanos, lent: &Lent) -> Guess {
        let memory = &self.state.limiter.memory;
        remote.guess(&self.prepared.rule, self.asked, now, memory, lent)
    }

    /// Goes over to the rules that hold by now, if there are others.
    fn follow<B>(&mut self, request: &Request<B>) -> bool {
        loop {
            let state = self.shared.live.state();
            if Arc::ptr_eq(&state, &self.state) {
                return false;
            }
            match state.asked(request, self.shared.options.protocol) {
                Ok((prepared, asked)) => {
                    (self.prepared, self.asked) = (prepared.clone(), asked);
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
