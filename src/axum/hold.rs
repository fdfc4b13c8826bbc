//! [`Hold`] as an extractor.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};
use thiserror::Error;

use crate::body::Hold;

/// The rejection of the extractor [`Hold`] on a route whose requests cannot be kept. Answers 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "this request has no `Hold`: set `Limits::keep(true)` on its route, and put the throttle around the handler"
)]
#[non_exhaustive]
pub struct MissingHold;

impl IntoResponse for MissingHold {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

/// Rules may change while the server runs: `Option<Hold>` is `None` where none allows to keep the request.
impl<S: Sync> FromRequestParts<S> for Hold {
    type Rejection = MissingHold;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, MissingHold> {
        parts.extensions.get().cloned().ok_or(MissingHold)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Hold {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get().cloned())
    }
}
