//! The future of a throttled response.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;

use crate::{
    admission::Admission, body::ResponseBody, decision::Decision, response::fields::Fields,
};

pin_project! {
    /// The future of a response that passes a [`Throttle`](crate::Throttle).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner service's future and ends the request's admission. What was charged
    /// stays charged: the inner service has been called.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Admitted {
            #[pin]
            future: F,
            admission: Option<Admission>,
            fields: Option<Fields>,
        },
        Rejected {
            response: Option<Response<Bytes>>,
        },
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(crate) fn admitted(future: F, admission: Admission, fields: Option<Fields>) -> Self {
        Self {
            state: State::Admitted {
                future,
                admission: Some(admission),
                fields,
            },
        }
    }

    pub(crate) fn rejected(response: Response<Bytes>) -> Self {
        Self {
            state: State::Rejected {
                response: Some(response),
            },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const POLLED: &str = "a response future is not polled after it has finished";
        match self.project().state.project() {
            StateProj::Admitted {
                future,
                admission,
                fields,
            } => {
                // Changed where it lies: a response is large, and each move of it costs.
                let mut poll = future.poll(cx);
                let Poll::Ready(result) = &mut poll else {
                    return Poll::Pending;
                };
                let admission = admission.take().expect(POLLED);
                if let Ok(response) = result {
                    if let Some(fields) = fields.take() {
                        fields.add_to(response.status(), response.headers_mut());
                    }
                    if let Some(decision) = admission.decision() {
                        let inner = response.extensions().get::<Decision>();
                        if inner.is_none_or(Decision::is_admitted) {
                            response.extensions_mut().insert(decision.clone());
                        }
                    }
                }
                poll.map_ok(|response| response.map(|body| ResponseBody::inner(body, admission)))
            }
            StateProj::Rejected { response } => {
                let response = response.take().expect(POLLED);
                Poll::Ready(Ok(response.map(ResponseBody::own)))
            }
        }
    }
}
