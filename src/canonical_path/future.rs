//! The future of a response.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;

use crate::{
    body::{FromInner, ResponseBody},
    response::Answer,
};

pin_project! {
    /// The future of a [`CanonicalPath`](super::CanonicalPath)'s response.
    #[derive(Debug)]
    pub struct CanonicalPathFuture<F> {
        #[pin]
        state: FutureState<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = FutureStateProj]
    enum FutureState<F> {
        Admitted { #[pin] inner: F },
        Refused { answer: Option<Answer> },
    }
}

impl<F> CanonicalPathFuture<F> {
    pub(super) fn admitted(inner: F) -> Self {
        Self {
            state: FutureState::Admitted { inner },
        }
    }

    pub(super) fn refused(response: Response<Bytes>) -> Self {
        Self {
            state: FutureState::Refused {
                answer: Some(Answer::new(response)),
            },
        }
    }
}

impl<F, B, E> Future for CanonicalPathFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            FutureStateProj::Admitted { inner } => {
                let response = ready!(inner.poll(cx))?;
                Poll::Ready(Ok(response.map(|body| ResponseBody::inner(body, None))))
            }
            FutureStateProj::Refused { answer } => {
                let answer = answer.take().expect("polled after it was ready");
                Poll::Ready(Ok(answer.respond(ResponseBody::own)))
            }
        }
    }
}
