//! axum's body as the body of responses that pass a throttle.

use axum::{BoxError, body::Body};
use bytes::Bytes;

use crate::{
    body::{FromInner, Held, ResponseBody},
    response::AnswerBody,
};

impl<B> FromInner<B> for Body
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    #[inline(always)]
    fn bare(body: B) -> Self {
        // A body that is axum's already is not boxed again.
        Self::new(body)
    }

    #[inline(always)]
    fn inner(body: B, held: Option<Held>) -> Self {
        match held {
            None => Self::bare(body),
            held => Self::new(ResponseBody::inner(body, held)),
        }
    }

    fn own(answer: AnswerBody) -> Self {
        Self::new(ResponseBody::<Self>::own(answer))
    }
}
