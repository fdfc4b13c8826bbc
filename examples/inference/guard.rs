//! Checks before a handler runs: the key, and the content type.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;

use crate::error::ApiError;

/// Paths that need no key.
const OPEN: [&str; 1] = ["/health"];

/// The key that callers must know. A real service would look keys up.
#[derive(Clone)]
pub(crate) struct ApiKey(Arc<str>);

impl ApiKey {
    pub(crate) fn new(key: String) -> Self {
        Self(key.into())
    }

    /// Takes as long for a wrong first byte as for a wrong last one.
    fn is(&self, given: &str) -> bool {
        let differences = self
            .0
            .bytes()
            .zip(given.bytes())
            .fold(0, |d, (a, b)| d | (a ^ b));
        self.0.len() == given.len() && differences == 0
    }
}

/// The caller that a key belongs to, in the extensions of a request that has passed.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Arc<str>);

/// Lets a request pass that brings the key where its API has it: `authorization: Bearer <key>`, `x-api-key` or
/// `x-goog-api-key`.
pub(crate) async fn require_key(
    State(key): State<ApiKey>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let open = OPEN.contains(&request.uri().path());
    match given_key(request.headers()) {
        _ if open => Ok(next.run(request).await),
        Some(given) if key.is(given) => {
            let caller = Caller(given.into());
            request.extensions_mut().insert(caller);
            Ok(next.run(request).await)
        }
        Some(_) => Err(ApiError::unauthorized("Incorrect API key provided.")),
        None => Err(ApiError::unauthorized(
            "You did not provide an API key. Send it as `authorization: Bearer <key>`.",
        )),
    }
}

fn given_key(headers: &HeaderMap) -> Option<&str> {
    let field = |name| headers.get(name)?.to_str().ok();
    bearer(headers)
        .or_else(|| field("x-api-key"))
        .or_else(|| field("x-goog-api-key"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Lets a POST pass only with a JSON body.
pub(crate) async fn require_json(request: Request, next: Next) -> Result<Response, ApiError> {
    if request.method() == Method::POST && !is_json(request.headers()) {
        return Err(ApiError::unsupported_media_type());
    }
    Ok(next.run(request).await)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}
