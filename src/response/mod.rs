//! Answers to refused requests, and the header fields of admitted ones.
//!
//! The guide [Refusals and header fields](crate::guides::refusals) shows them on the wire.

mod answer;
mod api_error;
mod body_timeout;
mod dialect;
mod failure;
pub(crate) mod fields;
pub(crate) mod grpc;
mod header_names;
mod integer;
mod kept;
mod limit_text;
mod policies;
mod problem;
mod protocol;
mod rejection;
mod templates;

use http::header::{HeaderName, RETRY_AFTER};

use self::header_names::{
    RATE_LIMIT, RATE_LIMIT_POLICY, RETRY_AFTER_MS, THROTTLE_DEGRADED, X_SHOULD_RETRY,
};
pub(crate) use self::{
    answer::{Answer, AnswerBody},
    body_timeout::BodyTimeout,
    failure::is_failure,
    kept::{KeptAnswer, KeptRefusals},
    protocol::Framing,
    rejection::{Rejections, RouteRejection, close_connection, strip},
    templates::Templates,
};
pub use self::{dialect::Dialect, problem::Problem, protocol::Protocol, rejection::Rejection};

/// The header fields for CORS `expose_headers`, which scripts in a browser may need to read.
///
/// ```
/// use tower_http::cors::CorsLayer;
///
/// let cors = CorsLayer::new().expose_headers(tower_throttle::response::EXPOSE_HEADERS.to_vec());
/// # let _ = cors;
/// ```
pub static EXPOSE_HEADERS: &[HeaderName] = &HEADERS;

static HEADERS: [HeaderName; 10] = [
    RATE_LIMIT,
    RATE_LIMIT_POLICY,
    THROTTLE_DEGRADED,
    RETRY_AFTER,
    RETRY_AFTER_MS,
    X_SHOULD_RETRY,
    grpc::STATUS,
    grpc::MESSAGE,
    grpc::STATUS_DETAILS,
    grpc::RETRY_PUSHBACK,
];
