//! The service for axum.

use std::task::{Context, Poll};

use axum::{BoxError, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use tower::Service;

use super::AxumResponseFuture;
use crate::service::Throttle;

/// A [`Throttle`] whose responses have axum's body. Made by [`AxumThrottleLayer`](super::AxumThrottleLayer).
///
/// The inner service answers with a body of `Bytes` that can be sent to other threads, as axum's is, and its errors
/// become those of axum's body.
#[derive(Debug, Clone)]
pub struct AxumThrottle<S> {
    throttle: Throttle<S>,
}

impl<S> AxumThrottle<S> {
    pub(super) fn new(throttle: Throttle<S>) -> Self {
        Self { throttle }
    }

    /// The service behind the throttle.
    pub fn get_ref(&self) -> &S {
        self.throttle.get_ref()
    }

    /// The service behind the throttle. Requests sent to it directly are not throttled.
    pub fn get_mut(&mut self) -> &mut S {
        self.throttle.get_mut()
    }

    /// The service behind the throttle, without it.
    pub fn into_inner(self) -> S {
        self.throttle.into_inner()
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for AxumThrottle<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = AxumResponseFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.throttle.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        AxumResponseFuture::new(self.throttle.call(request))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::axum::AxumThrottleLayer;

    #[test]
    fn auto_traits() {
        fn traits<T: Clone + fmt::Debug + Send + Sync + Unpin + 'static>() {}
        traits::<AxumThrottleLayer>();
        traits::<AxumThrottle<()>>();
    }
}
