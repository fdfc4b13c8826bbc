//! axum's body, as that of responses that pass a throttle.

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
        // No box for one that is axum's.
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
