//! A request that waits in line.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::{Sleep, sleep_until};

use crate::{
    clock::Nanos,
    engine::{self, Admitted, Engine, RouteLimits, RuleSet},
    limiter::{
        Outdated,
        limit_set::Demand,
        queue::{Turn, Waiter},
        readings::LimitReadings,
    },
};

/// A request with the service it is for, which was polled ready, and its place in line. Dropped, it leaves that.
#[derive(Debug)]
pub(crate) struct Queued<S, ReqBody> {
    standing: Waiter,
    service: S,
    request: Request<ReqBody>,
    shared: Arc<Engine>,
    /// The rules by which it waits.
    state: Arc<RuleSet>,
    prepared: RouteLimits,
    demand: Demand,
    timer: Option<Pin<Box<Sleep>>>,
}

/// How a wait has ended.
#[derive(Debug)]
pub(super) struct Ended {
    is_admitted: bool,
    now: Nanos,
    readings: LimitReadings,
}

/// What a request that has waited goes on with.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a moment, and most are of the large kind"
)]
pub(super) enum Outcome<S, ReqBody> {
    Admitted {
        service: S,
        request: Request<ReqBody>,
        admitted: Admitted,
    },
    Denied(Response<Bytes>),
}

impl<S, ReqBody> Queued<S, ReqBody> {
    pub(crate) fn new(
        service: S,
        request: Request<ReqBody>,
        shared: Arc<Engine>,
        state: Arc<RuleSet>,
        prepared: RouteLimits,
        demand: Demand,
        standing: Waiter,
    ) -> Self {
        Self {
            standing,
            service,
            request,
            shared,
            state,
            prepared,
            demand,
            timer: None,
        }
    }

    /// Asks again when it is its turn, until it is admitted or has waited long enough.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            self.follow();
            let limiter = &self.state.limiter;
            let mut readings = LimitReadings::default();
            let limit_set = &self.prepared.limit_set;
            let turn = self
                .standing
                .turn(limit_set, self.demand, cx.waker(), &mut readings);
            let until = match turn {
                Turn::Admitted(now) | Turn::Denied(now) => {
                    return Poll::Ready(Ended {
                        is_admitted: matches!(turn, Turn::Admitted(_)),
                        now,
                        readings,
                    });
                }
                Turn::Later(until) => limiter.instant(until),
                Turn::Outdated => {
                    Outdated.pause();
                    continue;
                }
            };
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(sleep_until(until)));
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Goes over to the rules that hold by now, with its place in line.
    fn follow(&mut self) {
        loop {
            let state = self.shared.live.state();
            if Arc::ptr_eq(&state, &self.state) {
                return;
            }
            match state.demand(&self.request, self.shared.options.protocol) {
                Ok((prepared, demand)) => {
                    (self.prepared, self.demand) = (prepared.clone(), demand);
                    self.state = Arc::clone(&state);
                    return;
                }
                Err(outdated) => outdated.pause(),
            }
        }
    }

    /// Leaves the line.
    pub(super) fn leave(self, mut ended: Ended) -> Outcome<S, ReqBody> {
        let Self {
            standing,
            service,
            mut request,
            shared,
            state,
            prepared,
            demand,
            timer: _,
        } = self;
        let decided = engine::Outcome {
            state: &state,
            demand,
            arrived: standing.arrived(),
            now: ended.now,
            readings: &mut ended.readings,
            held: &mut None,
        };
        if !ended.is_admitted {
            drop(standing);
            return Outcome::Denied(shared.denied(request, &prepared, decided));
        }
        let admitted = shared.admitted(&mut request, &prepared, decided);
        Outcome::Admitted {
            service,
            request,
            admitted,
        }
    }
}
