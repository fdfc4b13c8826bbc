//! The future of a response with axum's body.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{BoxError, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use crate::future::ResponseFuture;

pin_project! {
    /// The future of a response that passes an [`AxumThrottle`](super::AxumThrottle).
    ///
    /// # Cancel safety
    ///
    /// Like [`ResponseFuture`](crate::future::ResponseFuture): dropping it drops the inner service's future and returns
    /// what the request holds.
    #[must_use = "futures do nothing unless polled"]
    pub struct AxumResponseFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        future: ResponseFuture<S, ReqBody>,
    }
}

impl<S, ReqBody> AxumResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    #[inline(always)]
    pub(super) fn new(future: ResponseFuture<S, ReqBody>) -> Self {
        Self { future }
    }
}

impl<S, ReqBody, ResBody> Future for AxumResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll_as(cx)
    }
}

impl<S, ReqBody> fmt::Debug for AxumResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { future } = self;
        f.debug_tuple("AxumResponseFuture").field(future).finish()
    }
}
