//! The future of a throttled response.
//!
//! It has one of four ends in view: the response of the inner service as it is; the same, with what the request holds
//! put into its body; the same, with fields added; or an answer of its own. A request that waits comes to one of these
//! once it is decided on.
//!
//! # Invariants
//!
//! - **What a request holds lives in one place**: in this future until there is a response, then in its body. Whichever
//!   is dropped, it comes back once.
//! - **The inner service is called at most once**, and only for a request that was admitted: before this future was
//!   made, or when it has waited.
//! - **Errors of the inner service pass unchanged**, and end what the request holds.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    admission::Admission,
    body::ResponseBody,
    decision::Decision,
    engine::{Pending, Refusal, ResponseParts, Ticket},
    head::RequestHead,
    usage::UsageReader,
};

pin_project! {
    /// The future of a response that passes a [`Throttle`](crate::Throttle).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner service's future and ends the request's admission: its slots are free, and its
    /// account of model tokens is settled at the estimate. What was charged to rates and quotas stays charged, for
    /// the inner service has been called. If the request still waits, it leaves its place in line, and nothing was
    /// charged; what a store takes for it later is given back.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        // There if it was admitted. It lies beside the rest, and not in it, so that it is moved no more than once.
        #[pin]
        inner: Option<S::Future>,
        rest: Rest<S, ReqBody>,
    }
}

/// The state of a request, beside its inner future.
enum Rest<S, ReqBody> {
    Waiting {
        // Taken when it is over.
        waiting: Option<Box<Waiting<S, ReqBody>>>,
    },
    // Its response passes as it is.
    Bare,
    // Passes as it is, too. The admission moves into the body.
    Held {
        admission: Option<Admission>,
    },
    // Taken piece by piece when there is a response.
    Told(ResponseParts),
    Rejected {
        // On the heap, so that those that are admitted are not as large.
        response: Option<Box<Response<Bytes>>>,
    },
}

impl<S, ReqBody> Rest<S, ReqBody> {
    #[inline]
    fn of(ticket: Ticket) -> Self {
        match ticket {
            Ticket::Bare => Self::Bare,
            Ticket::Held(admission) => Self::Held {
                admission: Some(admission),
            },
            Ticket::Told(parts) => Self::Told(parts),
        }
    }
}

/// A request that is not yet decided on, with the service it is for, which was polled ready.
struct Waiting<S, ReqBody> {
    service: S,
    request: Request<ReqBody>,
    // Taken while it is being decided on.
    pending: Option<Box<Pending>>,
}

impl<S, ReqBody> Waiting<S, ReqBody> {
    #[cold]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ticket, Refusal>> {
        Pending::poll(&mut self.pending, RequestHead::of(&self.request), cx)
    }
}

/// The message of the panic of a future that is polled once more.
const POLLED: &str = "a response future is not polled after it has finished";

impl<S, ReqBody> ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    /// The response to an admitted request that holds nothing, and is told nothing.
    #[inline(always)]
    pub(crate) fn bare(future: S::Future) -> Self {
        Self {
            inner: Some(future),
            rest: Rest::Bare,
        }
    }

    /// The response to an admitted request.
    #[inline(always)]
    pub(crate) fn admitted(future: S::Future, ticket: Ticket) -> Self {
        // Each apart, so that none is moved as the largest of them.
        match ticket {
            Ticket::Bare => Self::bare(future),
            Ticket::Held(admission) => Self {
                inner: Some(future),
                rest: Rest::Held {
                    admission: Some(admission),
                },
            },
            Ticket::Told(parts) => Self {
                inner: Some(future),
                rest: Rest::Told(parts),
            },
        }
    }

    /// The answer to a request that is refused.
    pub(crate) fn refused(refusal: Refusal, request: Request<ReqBody>) -> Self {
        Self {
            inner: None,
            rest: Rest::Rejected {
                response: Some(refusal.answer(request)),
            },
        }
    }

    /// A request that waits, with the service that was polled ready for it.
    pub(crate) fn pending(service: S, request: Request<ReqBody>, pending: Box<Pending>) -> Self {
        let waiting = Waiting {
            service,
            request,
            pending: Some(pending),
        };
        Self {
            inner: None,
            rest: Rest::Waiting {
                waiting: Some(Box::new(waiting)),
            },
        }
    }
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.rest {
                // ## Waiting => (Bare | Held | Told | Rejected)
                Rest::Waiting { waiting } => {
                    let decided = ready!(waiting.as_mut().expect(POLLED).poll(cx));
                    let Waiting {
                        mut service,
                        mut request,
                        ..
                    } = *waiting.take().expect(POLLED);
                    *this.rest = match decided {
                        Ok(ticket) => {
                            ticket.mark(request.extensions_mut());
                            this.inner.set(Some(service.call(request)));
                            Rest::of(ticket)
                        }
                        Err(refusal) => Rest::Rejected {
                            response: Some(refusal.answer(request)),
                        },
                    };
                }
                Rest::Bare => {
                    let inner = this.inner.as_mut().as_pin_mut().expect(POLLED);
                    let pass = |response: Response<_>| {
                        response.map(|body| ResponseBody::inner(body, None, None))
                    };
                    return inner.poll(cx).map_ok(pass);
                }
                Rest::Held { admission } => {
                    let inner = this.inner.as_mut().as_pin_mut().expect(POLLED);
                    let result = ready!(inner.poll(cx));
                    let admission = admission.take();
                    return Poll::Ready(result.map(|response| {
                        response.map(|body| ResponseBody::inner(body, admission, None))
                    }));
                }
                Rest::Told(told) => {
                    // Changed where it lies: a response is large, and each move of it costs.
                    let inner = this.inner.as_mut().as_pin_mut().expect(POLLED);
                    let mut poll = inner.poll(cx);
                    let Poll::Ready(result) = &mut poll else {
                        return Poll::Pending;
                    };
                    let ResponseParts {
                        admission,
                        fields,
                        decision,
                        log,
                    } = told;
                    let admission = admission.take();
                    let mut answer = None;
                    if let Ok(response) = result {
                        if let Some(fields) = fields.take() {
                            fields.add_to(response.status(), response.headers_mut());
                        }
                        if let Some(decision) = decision.take() {
                            let inner = response.extensions().get::<Decision>();
                            if inner.is_none_or(Decision::is_admitted) {
                                response.extensions_mut().insert(decision);
                            }
                        }
                        if let Some(log) = log.take() {
                            answer = UsageReader::of(response.headers(), log);
                        }
                    }
                    return poll.map_ok(|response| {
                        response.map(|body| ResponseBody::inner(body, admission, answer))
                    });
                }
                Rest::Rejected { response } => {
                    let response = response.take().expect(POLLED);
                    return Poll::Ready(Ok((*response).map(ResponseBody::own)));
                }
            }
        }
    }
}

impl<S, ReqBody> fmt::Debug for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.rest {
            Rest::Waiting { .. } => "Waiting",
            Rest::Bare | Rest::Held { .. } | Rest::Told(_) => "Admitted",
            Rest::Rejected { .. } => "Rejected",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
