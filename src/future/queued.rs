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
    engine::{Admitted, Decided, Prepared, Shared, State},
    limiter::{
        Outdated,
        limit_set::Asked,
        queue::{Standing, Turn},
        readings::Levels,
    },
};

/// A request with the service it is for, which was polled ready, and its place in line. Dropped, it leaves that.
#[derive(Debug)]
pub(crate) struct Queued<S, ReqBody> {
    standing: Standing,
    service: S,
    request: Request<ReqBody>,
    shared: Arc<Shared>,
    /// The rules by which it waits.
    state: Arc<State>,
    prepared: Prepared,
    asked: Asked,
    timer: Option<Pin<Box<Sleep>>>,
}

/// How a wait has ended.
#[derive(Debug)]
pub(super) struct Ended {
    is_admitted: bool,
    now: Nanos,
    levels: Levels,
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
        shared: Arc<Shared>,
        state: Arc<State>,
        prepared: Prepared,
        asked: Asked,
        standing: Standing,
    ) -> Self {
        Self {
            standing,
            service,
            request,
            shared,
            state,
            prepared,
            asked,
            timer: None,
        }
    }

    /// Asks again when it is its turn, until it is admitted or has waited long enough.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            self.follow();
            let limiter = &self.state.limiter;
            let mut levels = Levels::default();
            let rule = &self.prepared.rule;
            let turn = self
                .standing
                .turn(rule, self.asked, cx.waker(), &mut levels);
            let until = match turn {
                Turn::Admitted(now) | Turn::Denied(now) => {
                    return Poll::Ready(Ended {
                        is_admitted: matches!(turn, Turn::Admitted(_)),
                        now,
                        levels,
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
            match state.asked(&self.request, self.shared.options.protocol) {
                Ok((prepared, asked)) => {
                    (self.prepared, self.asked) = (prepared.clone(), asked);
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
            asked,
            timer: _,
        } = self;
        let decided = Decided {
            state: &state,
            asked,
            arrived: standing.arrived(),
            now: ended.now,
            levels: &mut ended.levels,
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
