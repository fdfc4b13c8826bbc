//! The future of a throttled response.

mod queued;
mod trip;

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

use self::queued::Outcome;
pub(crate) use self::{
    queued::Queued,
    trip::{Trip, Way},
};
use crate::{
    admission::Admission,
    body::ResponseBody,
    decision::Decision,
    engine::{Admitted, ResponseParts},
    usage::UsageReader,
};

pin_project! {
    /// The future of a response that passes a [`Throttle`](crate::Throttle).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner service's future and ends the request's admission: its slots are free, and its
    /// account of model tokens is settled at the estimate. What was charged to rates and quotas stays charged, for
    /// the inner service has been called. If the request still waits in line, it leaves its place, and nothing was
    /// charged.
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

/// What becomes of a request, beside its inner future.
enum Rest<S, ReqBody> {
    Waiting {
        // Taken when it is over.
        parked: Option<Parked<S, ReqBody>>,
    },
    // Its response passes as it is.
    Alone,
    // So it does here. Taken when it is there.
    Held {
        admission: Option<Admission>,
    },
    // Taken piece by piece when there is a response.
    ResponseParts(ResponseParts),
    Rejected {
        // On the heap, so that those that are admitted are not as large.
        response: Option<Box<Response<Bytes>>>,
    },
}

impl<S, ReqBody> Rest<S, ReqBody> {
    #[inline]
    fn of(admitted: Admitted) -> Self {
        match admitted {
            Admitted::Alone => Self::Alone,
            Admitted::Held(admission) => Self::Held {
                admission: Some(admission),
            },
            Admitted::ResponseParts(told) => Self::ResponseParts(told),
        }
    }
}

/// A request that cannot be decided on at once.
enum Parked<S, ReqBody> {
    Queued(Box<Queued<S, ReqBody>>),
    Trip(Box<Trip<S, ReqBody>>),
}

/// What is wrong with a future that is polled once more.
const POLLED: &str = "a response future is not polled after it has finished";

impl<S, ReqBody> ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    #[inline]
    pub(crate) fn admitted(future: S::Future, admitted: Admitted) -> Self {
        Self {
            inner: Some(future),
            rest: Rest::of(admitted),
        }
    }

    #[cold]
    pub(crate) fn queued(queued: Queued<S, ReqBody>) -> Self {
        Self::parked(Parked::Queued(Box::new(queued)))
    }

    pub(crate) fn trip(trip: Trip<S, ReqBody>) -> Self {
        Self::parked(Parked::Trip(Box::new(trip)))
    }

    fn parked(parked: Parked<S, ReqBody>) -> Self {
        Self {
            inner: None,
            rest: Rest::Waiting {
                parked: Some(parked),
            },
        }
    }

    pub(crate) fn rejected(response: Response<Bytes>) -> Self {
        Self {
            inner: None,
            rest: Rest::Rejected {
                response: Some(Box::new(response)),
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
                // ## Waiting => (Alone | Held | Told | Rejected)
                Rest::Waiting { parked } => {
                    *this.rest = match ready!(leave(parked, cx)) {
                        Outcome::Admitted {
                            mut service,
                            request,
                            admitted,
                        } => {
                            this.inner.set(Some(service.call(request)));
                            Rest::of(admitted)
                        }
                        Outcome::Denied(response) => Rest::Rejected {
                            response: Some(Box::new(response)),
                        },
                    };
                }
                Rest::Alone => {
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
                Rest::ResponseParts(told) => {
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

/// Has a request leave for where it goes, once that is decided.
#[cold]
fn leave<S, ReqBody>(
    parked: &mut Option<Parked<S, ReqBody>>,
    cx: &mut Context<'_>,
) -> Poll<Outcome<S, ReqBody>> {
    let outcome = match parked.as_mut().expect(POLLED) {
        Parked::Queued(queued) => {
            let ended = ready!(queued.poll(cx));
            match parked.take() {
                Some(Parked::Queued(queued)) => queued.leave(ended),
                _ => unreachable!("it was polled"),
            }
        }
        Parked::Trip(trip) => {
            let ended = ready!(trip.poll(cx));
            match parked.take() {
                Some(Parked::Trip(trip)) => trip.leave(ended),
                _ => unreachable!("it was polled"),
            }
        }
    };
    Poll::Ready(outcome)
}

impl<S, ReqBody> fmt::Debug for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.rest {
            Rest::Waiting { .. } => "Waiting",
            Rest::Alone | Rest::Held { .. } | Rest::ResponseParts(_) => "Admitted",
            Rest::Rejected { .. } => "Rejected",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
