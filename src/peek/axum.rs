//! A peek layer whose requests and responses have axum's body.
//!
//! axum boxes each body that is not its own. With the general layer that is the body of each request and of each
//! response, also where no limit needs facts. A service for axum hands on axum's body as it is, and boxes only a body
//! that was read.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{BoxError, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    body::{FromPeeked, Peeked, Replay},
    future::PeekFuture,
    layer::PeekLayer,
    service::Peek,
};

/// A [`PeekLayer`] for routes of axum, made by [`PeekLayer::for_axum`].
#[derive(Debug, Clone)]
#[must_use]
pub struct AxumPeekLayer {
    layer: PeekLayer,
}

/// A [`Peek`] whose requests and responses have axum's body. Made by [`AxumPeekLayer`].
///
/// The inner service takes axum's body, as routes and routers do, and answers with a body of `Bytes` that can be sent
/// to other threads.
#[derive(Debug, Clone)]
pub struct AxumPeek<S> {
    peek: Peek<S>,
}

pin_project! {
    /// The future of a response that passes an [`AxumPeek`].
    ///
    /// # Cancel safety
    ///
    /// Like [`PeekFuture`]: dropping it drops the body and returns the room that it takes.
    #[must_use = "futures do nothing unless polled"]
    pub struct AxumPeekFuture<S, B>
    where
        S: Service<Request<Body>>,
        B: http_body::Body,
    {
        #[pin]
        future: PeekFuture<S, B, Body>,
    }
}

impl PeekLayer {
    /// Converts this layer for routes of axum, so that bodies which are not read are not boxed. It keeps the settings
    /// and the pool of this layer.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use tower_throttle::{Models, Rate, Rules, ThrottleLayer};
    ///
    /// let rules = Rules::new()
    ///     .route("POST /v1/chat/completions", Rate::per_second(2).burst(4))
    ///     .models(Models::from_body().model("llama-70b", Rate::per_minute(30)));
    /// let throttle = ThrottleLayer::new(rules)?;
    /// let peek = throttle.peek_layer();
    /// let app: Router = Router::new()
    ///     .route("/v1/chat/completions", post(async || "served"))
    ///     .layer(throttle.for_axum())
    ///     .layer(peek.for_axum());
    /// # let _ = app;
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    pub fn for_axum(self) -> AxumPeekLayer {
        AxumPeekLayer { layer: self }
    }
}

impl From<PeekLayer> for AxumPeekLayer {
    fn from(layer: PeekLayer) -> Self {
        layer.for_axum()
    }
}

impl<S> Layer<S> for AxumPeekLayer {
    type Service = AxumPeek<S>;

    fn layer(&self, inner: S) -> AxumPeek<S> {
        AxumPeek {
            peek: self.layer.layer(inner),
        }
    }
}

impl<S> AxumPeek<S> {
    /// The service behind the layer.
    pub fn get_ref(&self) -> &S {
        self.peek.get_ref()
    }

    /// Returns the inner service. Bodies of requests sent to it directly are not read.
    pub fn get_mut(&mut self) -> &mut S {
        self.peek.get_mut()
    }

    /// Returns the inner service without the layer.
    pub fn into_inner(self) -> S {
        self.peek.into_inner()
    }
}

impl<S, B, ResBody> Service<Request<B>> for AxumPeek<S>
where
    S: Service<Request<Body>, Response = Response<ResBody>> + Clone,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
    ResBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = AxumPeekFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.peek.get_mut().poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        AxumPeekFuture {
            future: self.peek.call_as(request),
        }
    }
}

impl<S, B, ResBody> Future for AxumPeekFuture<S, B>
where
    S: Service<Request<Body>, Response = Response<ResBody>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
    ResBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll_as(cx)
    }
}

impl<S, B> fmt::Debug for AxumPeekFuture<S, B>
where
    S: Service<Request<Body>>,
    B: http_body::Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { future } = self;
        f.debug_tuple("AxumPeekFuture").field(future).finish()
    }
}

impl<B> FromPeeked<B> for Body
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    #[inline(always)]
    fn untouched(body: B) -> Self {
        // A body that is axum's already is not boxed again.
        Self::new(body)
    }

    fn replayed(replay: Pin<Box<Replay<B>>>) -> Self {
        Self::new(Peeked::replayed(replay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_traits() {
        fn traits<T: Clone + fmt::Debug + Send + Sync + Unpin + 'static>() {}
        traits::<AxumPeekLayer>();
        traits::<AxumPeek<()>>();
    }
}
