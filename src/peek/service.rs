//! The service: reads what the limits of a request need of its body, before the throttle is called.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tower::Service;

use super::{
    body::{FromPeeked, Peeked},
    content::{declared_length, unreadable},
    future::PeekFuture,
    reading::BodyReading,
    settings::PeekSettings,
};
use crate::{
    body::ResponseBody,
    engine::BodyNeed,
    facts::{BodyFacts, RequestFacts, UnreadReason},
    head::RequestHead,
};

/// A service that reads bodies for a throttle further in. Made by [`PeekLayer`](super::PeekLayer); the [module](super)
/// describes it.
///
/// `poll_ready` only asks the inner service. The inner service must be `Clone`. It is cloned only for a request whose
/// body is read: such a request takes the service that was polled ready along.
#[derive(Clone)]
pub struct Peek<S> {
    inner: S,
    settings: Arc<PeekSettings>,
}

/// The treatment of a body.
enum BodyPlan {
    /// Nothing is read. These are the facts.
    Told(Result<RequestFacts, UnreadReason>),
    /// The body is read. It has at most so many bytes, if it says so.
    Read(Option<u64>),
}

impl<S> Peek<S> {
    pub(super) fn new(inner: S, settings: Arc<PeekSettings>) -> Self {
        Self { inner, settings }
    }

    /// The service behind the layer.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service. Bodies of requests sent to it directly are not read.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: fmt::Debug> fmt::Debug for Peek<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner, settings } = self;
        f.debug_struct("Peek")
            .field("inner", inner)
            .field("max_body", &settings.max_body)
            .field("body_deadline", &settings.body_deadline)
            .finish_non_exhaustive()
    }
}

impl<S, B, ResBody> Service<Request<B>> for Peek<S>
where
    S: Service<Request<Peeked<B>>, Response = Response<ResBody>> + Clone,
    B: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = PeekFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.call_as(request)
    }
}

impl<S> Peek<S> {
    /// Calls an inner service that takes bodies `P`.
    #[inline(always)]
    pub(super) fn call_as<B, P>(&mut self, request: Request<B>) -> PeekFuture<S, B, P>
    where
        S: Service<Request<P>> + Clone,
        B: Body<Data = Bytes>,
        P: FromPeeked<B>,
    {
        match self.settings.engine.before_body(RequestHead::of(&request)) {
            BodyNeed::None => PeekFuture::called(self.inner.call(request.map(P::untouched))),
            BodyNeed::Refused(refusal) => PeekFuture::answered(refusal.answer(request)),
            BodyNeed::Facts(client) => self.peek(request, client),
        }
    }

    /// Looks at a request of a client whose limits need facts of its body.
    #[inline(never)]
    fn peek<B, P>(&mut self, request: Request<B>, client: Option<u128>) -> PeekFuture<S, B, P>
    where
        S: Service<Request<P>> + Clone,
        B: Body<Data = Bytes>,
        P: FromPeeked<B>,
    {
        match self.plan(&request) {
            BodyPlan::Told(facts) => {
                let mut request = request.map(P::untouched);
                request.extensions_mut().insert(BodyFacts::new(facts));
                PeekFuture::called(self.inner.call(request))
            }
            BodyPlan::Read(longest) => {
                let settings = Arc::clone(&self.settings);
                let service = take_ready(&mut self.inner);
                PeekFuture::reading(BodyReading::new(
                    service, request, settings, client, longest,
                ))
            }
        }
    }

    fn plan<B: Body>(&self, request: &Request<B>) -> BodyPlan {
        if request.body().is_end_stream() {
            return BodyPlan::Told(Ok(RequestFacts::default()));
        }
        // The body of a `CONNECT` is a tunnel, and no content (RFC 9110, section 9.3.6). Over HTTP/2 it does not end, but
        // some servers hand it to a handler that takes it for content.
        if *request.method() == Method::CONNECT {
            return BodyPlan::Told(Err(UnreadReason::Tunnel));
        }
        if let Some(reason) = unreadable(request.headers()) {
            return BodyPlan::Told(Err(reason));
        }
        let hint = request.body().size_hint();
        let declared = declared_length(request.headers());
        let shortest = declared.unwrap_or(0).max(hint.lower());
        let max_body = self.settings.max_body;
        // With a bound of zero, no body is polled to see whether it is empty.
        let is_larger = usize::try_from(shortest).map_or(true, |shortest| shortest > max_body);
        if is_larger || max_body == 0 {
            return BodyPlan::Told(Err(UnreadReason::TooLarge));
        }
        BodyPlan::Read(hint.upper().or(declared))
    }
}

/// Takes out the service that was polled ready, and leaves a clone of it in its place.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    mem::replace(service, clone)
}

#[cfg(feature = "tonic")]
impl<S: tonic::server::NamedService> tonic::server::NamedService for Peek<S> {
    const NAME: &'static str = S::NAME;
}
