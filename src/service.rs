//! The middleware.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;

use crate::{
    body::ResponseBody,
    clock::{Nanos, nanos},
    engine::{Admitted, Away, Engine, Outcome, RouteLimits, RuleSet, There},
    future::{Queued, ResponseFuture, Trip, Way},
    limiter::{limit_set::Demand, queue::Answer, readings::LimitReadings},
    response::grpc::deadline,
};

/// A service behind a throttle. Made by [`ThrottleLayer`](crate::ThrottleLayer); see the
/// [crate](crate) for what it does.
///
/// It decides in `call`, at once: `poll_ready` only asks the inner service, for the request, and so its
/// route, is not known before. All clones share their limits.
///
/// It is a service of `http` requests if the inner one is, and is `Clone` (it is cloned only for a request that
/// waits in line, and that takes the one which was polled ready along); its responses are bodies if the inner
/// ones are, of `Bytes`.
#[derive(Clone)]
pub struct Throttle<S> {
    inner: S,
    shared: Arc<Engine>,
}

impl<S> Throttle<S> {
    pub(crate) fn new(inner: S, shared: Arc<Engine>) -> Self {
        Self { inner, shared }
    }

    /// The service behind the throttle.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service behind the throttle. Requests sent to it directly are not throttled.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service behind the throttle, without it.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: fmt::Debug> fmt::Debug for Throttle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish()
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Throttle<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // A function of its own: what it returns is large, and is written where its caller wants it. Inlined into a caller
    // that hands it on, it would be moved once more.
    #[inline(never)]
    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        loop {
            let shared = &self.shared;
            let state = shared.live.state();
            let limiter = &state.limiter;
            let (found, demand) = match state.demand(&request, shared.options.protocol) {
                Ok(demand) => demand,
                Err(outdated) => {
                    outdated.pause();
                    continue;
                }
            };
            let now = limiter.now();
            let mut by = None;
            if let Some(remote) = state.store.get().filter(|_| found.limit_set.is_shared) {
                by = match shared.away(&state, &found, demand, remote, now) {
                    Ok(Away::Here(share)) => Some(share),
                    Ok(Away::Leased(leased)) => {
                        let admitted = shared.leased(&mut request, &state, &found, demand, leased);
                        drop(found);
                        drop(state);
                        return ResponseFuture::admitted(self.inner.call(request), admitted);
                    }
                    Ok(Away::There(there)) => {
                        let apart = Apart {
                            shared,
                            state: &state,
                            found: &found,
                            demand,
                            now,
                        };
                        return apart.call(&mut self.inner, request, there);
                    }
                    Err(outdated) => {
                        outdated.pause();
                        continue;
                    }
                };
            }
            let prepared = by.as_deref().unwrap_or(&found);
            let timeout = || deadline(request.headers()).map(nanos);
            let mut readings = LimitReadings::default();
            let answer = match limiter.ask(
                &prepared.limit_set,
                demand,
                now,
                now,
                timeout,
                &mut readings,
            ) {
                Ok(answer) => answer,
                Err(outdated) => {
                    outdated.pause();
                    continue;
                }
            };
            let mut held = None;
            let decided = Outcome::at_once(&state, demand, now, &mut readings, &mut held);
            return match answer {
                Answer::Admitted => {
                    // Its guard is there before the inner service is called, should that panic.
                    let admitted = shared.admitted(&mut request, prepared, decided);
                    drop(by);
                    drop(found);
                    drop(state);
                    // Each apart, so that none is moved as the largest of them.
                    match admitted {
                        Admitted::Alone => {
                            ResponseFuture::admitted(self.inner.call(request), Admitted::Alone)
                        }
                        held @ Admitted::Held(_) => {
                            ResponseFuture::admitted(self.inner.call(request), held)
                        }
                        told @ Admitted::ResponseParts(_) => {
                            ResponseFuture::admitted(self.inner.call(request), told)
                        }
                    }
                }
                Answer::Denied => {
                    ResponseFuture::rejected(shared.denied(request, prepared, decided))
                }
                Answer::Waits(standing) => ResponseFuture::queued(Queued::new(
                    take_ready(&mut self.inner),
                    request,
                    Arc::clone(shared),
                    Arc::clone(&state),
                    prepared.clone(),
                    demand,
                    standing,
                )),
            };
        }
    }
}

/// A request whose limits lie in a store, and that does not pass at once: apart from the others, whose way stays short.
struct Apart<'a> {
    shared: &'a Arc<Engine>,
    state: &'a Arc<RuleSet>,
    found: &'a RouteLimits,
    demand: Demand,
    now: Nanos,
}

impl Apart<'_> {
    #[inline(never)]
    fn call<S, ReqBody>(
        self,
        inner: &mut S,
        request: Request<ReqBody>,
        there: There,
    ) -> ResponseFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>> + Clone,
    {
        let Self {
            shared,
            state,
            found,
            demand,
            now,
        } = self;
        match there {
            There::Asks => {
                let timeout = deadline(request.headers()).map(nanos);
                let (shared, state) = (Arc::clone(shared), Arc::clone(state));
                let way = Way::new(shared, state, found.clone(), demand, now, timeout);
                ResponseFuture::trip(Trip::new(take_ready(inner), request, way))
            }
            There::Denied(mut readings, at) => {
                let mut held = None;
                let decided = Outcome::at_once(state, demand, at, &mut readings, &mut held);
                ResponseFuture::rejected(shared.denied(request, found, decided))
            }
            There::Unavailable => {
                ResponseFuture::rejected(shared.unavailable(request, found, state, now))
            }
        }
    }
}

/// The service that was polled ready, out of which its clone takes the place: it is that one which waits.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    mem::replace(service, clone)
}

#[cfg(feature = "tonic")]
impl<S: tonic::server::NamedService> tonic::server::NamedService for Throttle<S> {
    const NAME: &'static str = S::NAME;
}
