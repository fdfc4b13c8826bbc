//! The service: asks the engine for a decision, and acts on it.
//!
//! # Invariants
//!
//! - **Decided in `call`.** `poll_ready` forwards, and reserves nothing of its own: the route is not known before the
//!   request.
//! - **The service that was polled ready is the one that is called.** A waiting request takes it along, and leaves a
//!   clone, which has yet to be polled ready. Nothing else clones the inner service.
//! - **The guard exists before the inner service is called.** If that call panics, the ticket is dropped, and what the
//!   request holds comes back.
//! - **No decision is made here.** The engine decides on the limits, the fields and the wait of a request.
//! - **All errors are the inner service's.** A refusal is a response.
//!
//! # Cancellation
//!
//! `call` does not await. When it returns, the request is charged and the inner service called, or it is refused, or it
//! waits in the future, which returns everything if it is dropped.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;

use crate::{
    body::ResponseBody,
    engine::{Decided, Engine},
    future::ResponseFuture,
    head::RequestHead,
};

/// A service behind a throttle. Made by [`ThrottleLayer`](crate::ThrottleLayer); the [crate](crate) documentation
/// describes it.
///
/// The service decides in `call`, at once. `poll_ready` only asks the inner service, since the request and its route
/// are not known yet. All clones share their limits.
///
/// A throttle is a service of `http` requests if the inner one is. The inner service must be `Clone`; it is cloned only
/// for a request that is not decided at once, because it waits in a queue, for a lease or for a store. Such a request
/// takes the service that was polled ready along, with anything that it has reserved. Response bodies are bodies of
/// `Bytes`.
#[derive(Clone)]
pub struct Throttle<S> {
    inner: S,
    /// The rules and settings of the layer, shared by all of its services and their clones.
    engine: Arc<Engine>,
}

impl<S> Throttle<S> {
    /// Makes a service behind the throttle of a layer. Neither is called.
    pub(crate) fn new(inner: S, engine: Arc<Engine>) -> Self {
        Self { inner, engine }
    }

    /// The service behind the throttle.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service. Requests sent to it directly are not throttled.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service without the throttle.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: fmt::Debug> fmt::Debug for Throttle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("inner", &self.inner)
            .field("engine", &self.engine)
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
        match self.engine.decide(RequestHead::of(&request)) {
            Decided::Pass => ResponseFuture::bare(self.inner.call(request)),
            // The slot is held while the inner service is called, and is free if that panics.
            Decided::Hold(slot) => ResponseFuture::holding(self.inner.call(request), slot),
            Decided::Admit(mut ticket) => {
                // The ticket is held while the inner service is called, and is dropped if that panics.
                ticket.mark(&self.engine.options, request.extensions_mut());
                ResponseFuture::admitted(self.inner.call(request), ticket)
            }
            Decided::Refuse(refusal) => ResponseFuture::refused(refusal, request),
            Decided::Wait(pending) => {
                ResponseFuture::pending(take_ready(&mut self.inner), request, pending)
            }
        }
    }
}

/// Takes out the service that was polled ready, and leaves a clone of it in its place. The next request polls the clone
/// ready before it is called: a clone need not be ready because its original is.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    mem::replace(service, clone)
}

#[cfg(feature = "tonic")]
impl<S: tonic::server::NamedService> tonic::server::NamedService for Throttle<S> {
    const NAME: &'static str = S::NAME;
}
