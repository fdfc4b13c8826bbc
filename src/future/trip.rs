//! A request whose limits lie in a store.

mod way;

use std::task::{Context, Poll};

use http::Request;

pub(crate) use self::way::Way;
use super::queued::Outcome;
use crate::{
    admission::Permits,
    clock::Nanos,
    engine::{self, RouteLimits},
    limiter::readings::LimitReadings,
};

/// A request with the service it is for, which was polled ready, on its way to the store and back. Dropped, it leaves
/// its place in line and its slots, and what the store takes for it by then is given back.
#[derive(Debug)]
pub(crate) struct Trip<S, ReqBody> {
    service: S,
    request: Request<ReqBody>,
    way: Way,
}

/// How it has ended.
#[derive(Debug)]
pub(super) enum Ended {
    Admitted(Told),
    Denied(Told),
    Unavailable,
}

/// What was decided.
#[derive(Debug)]
pub(super) struct Told {
    by: By,
    /// By the clock of whoever has decided.
    at: Nanos,
    readings: LimitReadings,
    held: Option<Permits>,
}

/// By which limits.
#[derive(Debug)]
enum By {
    All,
    /// Those that lie in this process.
    Held,
    Other(RouteLimits),
}

impl<S, ReqBody> Trip<S, ReqBody> {
    pub(crate) fn new(service: S, request: Request<ReqBody>, way: Way) -> Self {
        Self {
            service,
            request,
            way,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.way.poll(&self.request, cx)
    }

    /// Goes on to the service, or back.
    pub(super) fn leave(self, ended: Ended) -> Outcome<S, ReqBody> {
        let Self {
            service,
            mut request,
            way,
        } = self;
        let Way {
            shared,
            state,
            prepared,
            demand,
            arrived,
            ..
        } = way;
        let now = state.limiter.now();
        let (is_admitted, told) = match ended {
            Ended::Unavailable => {
                let answer = shared.unavailable(request, &prepared, &state, now);
                return Outcome::Denied(answer);
            }
            Ended::Admitted(told) => (true, told),
            Ended::Denied(told) => (false, told),
        };
        let Told {
            by,
            at,
            mut readings,
            mut held,
        } = told;
        let prepared = match &by {
            By::All => &prepared,
            By::Held => prepared.held(),
            By::Other(other) => other,
        };
        let waited = now.saturating_sub(arrived);
        let decided = engine::Outcome {
            state: &state,
            demand,
            arrived: at.saturating_sub(waited),
            now: at,
            readings: &mut readings,
            held: &mut held,
        };
        if is_admitted {
            let admitted = shared.admitted(&mut request, prepared, decided);
            Outcome::Admitted {
                service,
                request,
                admitted,
            }
        } else {
            Outcome::Denied(shared.denied(request, prepared, decided))
        }
    }
}
