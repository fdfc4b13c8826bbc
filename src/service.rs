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
    clock::nanos,
    future::{Queued, ResponseFuture, Trip, Way},
    levels::Levels,
    response::grpc::deadline,
    shared::{Away, Decided, Shared},
    waiting::Answer,
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
    shared: Arc<Shared>,
}

impl<S> Throttle<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
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

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        loop {
            let shared = &self.shared;
            let state = shared.live.state();
            let limiter = &state.limiter;
            let (found, asked) = match state.asked(&request) {
                Ok(asked) => asked,
                Err(outdated) => {
                    outdated.pause();
                    continue;
                }
            };
            let now = limiter.now();
            let timeout = || deadline(request.headers()).map(nanos);
            let mut by = None;
            let mut prepared = &*found;
            if let Some(remote) = limiter.remote().filter(|_| found.rule.is_shared) {
                let away = match shared.away(&state, &found, asked, remote, now) {
                    Ok(away) => away,
                    Err(outdated) => {
                        outdated.pause();
                        continue;
                    }
                };
                match away {
                    Away::Admitted(mut levels, at, held) => {
                        let decided = Decided {
                            state: &state,
                            asked,
                            arrived: at,
                            now: at,
                            levels: &mut levels,
                            held,
                        };
                        let admitted = shared.admitted(&mut request, &found, decided);
                        drop(found);
                        drop(state);
                        return ResponseFuture::admitted(self.inner.call(request), admitted);
                    }
                    Away::Asks => {
                        let timeout = timeout();
                        let service = take_ready(&mut self.inner);
                        let (shared, state) = (Arc::clone(&self.shared), Arc::clone(&state));
                        let way = Way::new(shared, state, found.clone(), asked, now, timeout);
                        return ResponseFuture::trip(Trip::new(service, request, way));
                    }
                    Away::Denied(mut levels, at) => {
                        let decided = Decided {
                            state: &state,
                            asked,
                            arrived: at,
                            now: at,
                            levels: &mut levels,
                            held: None,
                        };
                        let answer = shared.denied(request, &found, decided);
                        return ResponseFuture::rejected(answer);
                    }
                    Away::Unavailable => {
                        let answer = shared.unavailable(request, &found, &state, now);
                        return ResponseFuture::rejected(answer);
                    }
                    Away::Here(share) => prepared = by.insert(share),
                }
            }
            let mut levels = Levels::default();
            let Ok(answer) = limiter.ask(&prepared.rule, asked, now, now, timeout, &mut levels)
            else {
                continue;
            };
            let decided = Decided {
                state: &state,
                asked,
                arrived: now,
                now,
                levels: &mut levels,
                held: None,
            };
            return match answer {
                Answer::Admitted => {
                    // Its guard is there before the inner service is called, should that panic.
                    let admitted = shared.admitted(&mut request, prepared, decided);
                    drop(by);
                    drop(found);
                    drop(state);
                    ResponseFuture::admitted(self.inner.call(request), admitted)
                }
                Answer::Denied => {
                    ResponseFuture::rejected(shared.denied(request, prepared, decided))
                }
                Answer::Waits(standing) => {
                    let (shared, state) = (Arc::clone(shared), Arc::clone(&state));
                    let prepared = prepared.clone();
                    ResponseFuture::queued(Queued::new(
                        take_ready(&mut self.inner),
                        request,
                        shared,
                        state,
                        prepared,
                        asked,
                        standing,
                    ))
                }
            };
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
