//! The middleware.

mod step;

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;

use self::step::{Found, Step};
use crate::{
    body::ResponseBody,
    future::{Queued, ResponseFuture, Trip, Way},
    shared::Shared,
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

    #[inline]
    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        match Step::of(&self.shared, &mut request) {
            // Its guard is there before the inner service is called, should that panic.
            Step::Admitted(admitted) => {
                ResponseFuture::admitted(self.inner.call(request), admitted)
            }
            step => self.otherwise(request, step),
        }
    }
}

impl<S: Clone> Throttle<S> {
    /// What does not pass at once.
    #[cold]
    #[inline(never)]
    fn otherwise<ReqBody>(
        &mut self,
        request: Request<ReqBody>,
        step: Step,
    ) -> ResponseFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        match step {
            Step::Denied(answer) => ResponseFuture::rejected(answer),
            Step::Waits(found, standing) => {
                let service = take_ready(&mut self.inner);
                let shared = Arc::clone(&self.shared);
                let Found {
                    state,
                    prepared,
                    asked,
                } = found;
                ResponseFuture::queued(Queued::new(
                    service, request, shared, state, prepared, asked, standing,
                ))
            }
            Step::Asks(found, now, timeout) => {
                let service = take_ready(&mut self.inner);
                let shared = Arc::clone(&self.shared);
                let Found {
                    state,
                    prepared,
                    asked,
                } = found;
                let way = Way::new(shared, state, prepared, asked, now, timeout);
                ResponseFuture::trip(Trip::new(service, request, way))
            }
            Step::Admitted(admitted) => {
                ResponseFuture::admitted(self.inner.call(request), admitted)
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
