//! The future of a response behind a peek layer.

// # States
//
// ```text
//            ┌─ end ──────▶ call ─▶ Called ─▶ response of the inner service
// Reading ───┤
//            └─ time is over ─────▶ Answered ─▶ answer of the layer
// ```
//
// A request whose body is not read begins in `Called`, which is the absence of any other state. A request that is
// refused before its body is read begins in `Answered`.
//
// | state | holds | a poll | a drop |
// |---|---|---|---|
// | `Reading` | service, head, body, room | reads on, then calls the service | gives back the room |
// | `Called` | inner future | passes the response | drops the inner future |
// | `Answered` | answer | yields the answer | has nothing to give back |
//
// # Invariants
//
// - **The inner service is called at most once**, before this future is made or when the body was read.
// - **Errors of the inner service pass unchanged.**
// - **A panic gives all back.** The request is on the stack while the inner service is called, and drops its body.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    body::{FromPeeked, Peeked},
    reading::BodyReading,
};
use crate::{
    body::{FromInner, ResponseBody},
    observe,
    response::Answer,
};

pin_project! {
    /// The future of a response that passes a [`Peek`](super::Peek), whose inner service takes bodies `P`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the body, also in the middle of reading, and returns the room that it takes. Nothing is
    /// charged before the body was read.
    #[must_use = "futures do nothing unless polled"]
    pub struct PeekFuture<S, B, P = Peeked<B>>
    where
        S: Service<Request<P>>,
        B: Body,
    {
        // There as soon as the inner service was called.
        #[pin]
        inner: Option<S::Future>,
        // `None`: the inner service was called.
        before: Option<Before<S, B>>,
    }
}

/// The state of a request for which the inner service is not called, or not yet.
enum Before<S, B: Body> {
    /// The body is being read. On the heap, since it has a service and a request.
    Reading(Box<BodyReading<S, B>>),
    /// The request is answered here.
    Answered(Answer),
}

/// The message of the panic of a future that is polled once more, after an answer of the layer.
const POLLED: &str = "a response future is not polled after it has finished";

impl<S, B, P> PeekFuture<S, B, P>
where
    S: Service<Request<P>>,
    B: Body,
{
    /// The response of an inner service that was called.
    #[inline(always)]
    pub(super) fn called(future: S::Future) -> Self {
        Self {
            inner: Some(future),
            before: None,
        }
    }

    /// The response to a request whose body is read first.
    pub(super) fn reading(reading: BodyReading<S, B>) -> Self {
        Self {
            inner: None,
            before: Some(Before::Reading(Box::new(reading))),
        }
    }

    /// The answer to a request for which the inner service is not called.
    pub(super) fn answered(answer: Answer) -> Self {
        Self {
            inner: None,
            before: Some(Before::Answered(answer)),
        }
    }
}

impl<S, B, ResBody> Future for PeekFuture<S, B>
where
    S: Service<Request<Peeked<B>>, Response = Response<ResBody>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_as(cx)
    }
}

impl<S, B, P> PeekFuture<S, B, P>
where
    S: Service<Request<P>>,
    B: Body<Data = Bytes>,
{
    /// Polls for a response with a body of this type.
    #[inline(always)]
    pub(super) fn poll_as<R, ResBody>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<R>, S::Error>>
    where
        S: Service<Request<P>, Response = Response<ResBody>>,
        P: FromPeeked<B>,
        R: FromInner<ResBody>,
    {
        if self.before.is_some() {
            if let Some(answer) = ready!(self.as_mut().poll_before(cx)) {
                return Poll::Ready(Ok(answer.respond(R::own)));
            }
        }
        let inner = self.project().inner.as_pin_mut().expect(POLLED);
        inner.poll(cx).map_ok(|response| response.map(R::bare))
    }

    /// Polls until the inner service is called, or there is an answer for it.
    #[inline(never)]
    fn poll_before(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>>
    where
        P: FromPeeked<B>,
    {
        let mut this = self.project();
        let read = match this.before {
            Some(Before::Reading(reading)) => ready!(reading.poll(cx)),
            _ => return Poll::Ready(take_answer(this.before)),
        };
        let Some(Before::Reading(reading)) = this.before.take() else {
            unreachable!("it was read")
        };
        Poll::Ready(match read {
            // ## Reading => Called
            Ok(end) => {
                let (mut service, request) = reading.finish(end);
                this.inner.set(Some(service.call(request)));
                None
            }
            // ## Reading => Answered, which is yielded at once
            Err(timeout) => {
                observe::body_timed_out(timeout.missing());
                Some(timeout.answer(&reading.give_up()))
            }
        })
    }
}

fn take_answer<S, B: Body>(before: &mut Option<Before<S, B>>) -> Option<Answer> {
    match before.take() {
        Some(Before::Answered(answer)) => Some(answer),
        _ => None,
    }
}

impl<S, B, P> fmt::Debug for PeekFuture<S, B, P>
where
    S: Service<Request<P>>,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.before {
            Some(Before::Reading(_)) => "Reading",
            Some(Before::Answered(_)) => "Answered",
            None => "Called",
        };
        f.debug_tuple("PeekFuture").field(&state).finish()
    }
}
