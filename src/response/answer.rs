//! The answer of a throttle, from the decision to the response.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, response::Parts};

use super::kept::{KeptAnswer, KeptRefusal};

/// The answer to a refused request, from the decision until its body is sent.
///
/// Kept small, since futures and bodies of admitted requests have room for it, too.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Written for one request. Its box moves from the decision through the future to the body of the response, so that
    /// its data is moved once.
    Written(Box<WrittenAnswer>),
    /// Copied from a cached answer when the response is needed.
    Kept(KeptAnswer),
}

/// An answer that was written for one request.
#[derive(Debug)]
pub(crate) struct WrittenAnswer {
    /// Taken when there is a response.
    head: Option<Parts>,
    data: Bytes,
}

/// The part of an answer that is its body.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Written(Box<WrittenAnswer>),
    Kept(Arc<KeptRefusal>),
}

impl Answer {
    #[inline]
    pub(crate) fn new(response: Response<Bytes>) -> Self {
        let (head, data) = response.into_parts();
        Self::Written(Box::new(WrittenAnswer {
            head: Some(head),
            data,
        }))
    }

    /// Returns the response, with a body that is made of the rest.
    #[inline]
    pub(crate) fn respond<B>(self, body: impl FnOnce(AnswerBody) -> B) -> Response<B> {
        match self {
            Self::Written(mut answer) => {
                let head = answer.head.take().expect("an answer responds once");
                Response::from_parts(head, body(AnswerBody::Written(answer)))
            }
            Self::Kept(answer) => answer.respond(|refusal| body(AnswerBody::Kept(refusal))),
        }
    }
}

impl AnswerBody {
    pub(crate) fn data(&self) -> &Bytes {
        match self {
            Self::Written(answer) => &answer.data,
            Self::Kept(refusal) => refusal.data(),
        }
    }

    /// The data of the body, which ends with it.
    pub(crate) fn into_data(self) -> Bytes {
        match self {
            Self::Written(answer) => answer.data,
            Self::Kept(refusal) => refusal.data().clone(),
        }
    }
}
