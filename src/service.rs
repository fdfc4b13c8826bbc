//! The middleware.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;

use crate::{
    admission::Admission,
    body::ResponseBody,
    decision::{Decision, Denial},
    future::ResponseFuture,
    levels::Levels,
    response::fields::Fields,
    shared::{Prepared, Shared},
    usage::Usage,
};

/// A service behind a throttle. Made by [`ThrottleLayer`](crate::ThrottleLayer); see the
/// [crate](crate) for what it does.
///
/// It decides in `call`, at once: `poll_ready` only asks the inner service, for the request, and so its
/// route, is not known before. All clones share their limits.
///
/// It is a service of `http` requests if the inner one is, and is `Clone` (it is not cloned on the way of a
/// request); its responses are bodies if the inner ones are, of `Bytes`.
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
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let shared = &*self.shared;
        let options = &shared.options;
        let limiter = &shared.state.limiter;
        let (found, asked) = shared.state.asked(&request);
        let Prepared { rule, written } = &*found;
        let now = limiter.now();
        let mut levels = Levels::default();
        if !limiter.admit(rule, asked, now, &mut levels) {
            let denial = Denial::new(Arc::clone(rule), levels, now);
            return ResponseFuture::rejected(options.reject(denial, request, written));
        }
        // Before the inner service is called, so that it gives back even if that panics.
        let mut admission = Admission::new(limiter, rule, asked, &levels);
        let fields = match &written.policies {
            Some(policies) if options.fields && Fields::fit(request.method()) => {
                Fields::admitted(policies, rule, &levels, now)
            }
            _ => None,
        };
        if let Some(account) = admission.account() {
            let usage = Usage::new(Arc::clone(account));
            request.extensions_mut().insert(usage);
        }
        if options.decision {
            let decision = Decision::admitted(Arc::clone(rule), levels, now);
            request.extensions_mut().insert(decision.clone());
            admission.tell(decision);
        }
        ResponseFuture::admitted(self.inner.call(request), admission, fields)
    }
}

#[cfg(feature = "tonic")]
impl<S: tonic::server::NamedService> tonic::server::NamedService for Throttle<S> {
    const NAME: &'static str = S::NAME;
}
