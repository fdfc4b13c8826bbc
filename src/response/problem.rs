//! The default answer: a problem document that OpenAI's SDKs can read too.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};

use super::{
    RATE_LIMIT, RATE_LIMIT_POLICY, RETRY_AFTER_MS, Rejection, X_SHOULD_RETRY,
    buffer::Digits,
    fields::{ceil_seconds, policies, refused},
};
use crate::{clock::nanos, decision::Denial};

/// Waits above this are not slept through by SDKs but ignored: several come back on their own back-off,
/// within a second. They are told not to retry instead.
const LONGEST_RETRY: u64 = 60;

/// The default answer: status 429 and a problem document.
///
/// - `Retry-After` in whole seconds, rounded up, at least 1 (RFC 9110, section 10.2.3); `retry-after-ms`
///   for the SDKs that read it; both are absent if the request can never pass.
/// - `x-should-retry: false` if it can never pass, or if the wait is longer than 60 s.
/// - `RateLimit-Policy` and `RateLimit` of the published limits.
/// - `Cache-Control: no-store` (RFC 6585, section 4).
/// - A body of type `application/problem+json` (RFC 9457) with the problem type `quota-exceeded`, the
///   member `violated-policies` and OpenAI's `error` object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Problem;

impl Rejection for Problem {
    fn reject(&self, denial: &Denial, _: &Parts) -> Response<Bytes> {
        problem(denial, policies(denial.decision().rule()))
    }
}

/// [`Problem`], with the `RateLimit-Policy` that was written beforehand.
pub(crate) fn problem(denial: &Denial, policy: Option<HeaderValue>) -> Response<Bytes> {
    let wait = denial.retry_after().map(Wait::of);
    let mut answer = Response::new(body(denial, wait.as_ref()));
    *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = answer.headers_mut();
    headers.reserve(7);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(wait) = &wait {
        headers.insert(RETRY_AFTER, wait.seconds.into());
        headers.insert(RETRY_AFTER_MS, wait.milliseconds.into());
    }
    if wait.is_none_or(|wait| wait.seconds > LONGEST_RETRY) {
        headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if let Some(policy) = policy {
        headers.insert(RATE_LIMIT_POLICY, policy);
    }
    if let Some(limit) = refused(denial) {
        headers.insert(RATE_LIMIT, limit);
    }
    answer
}

/// A wait as it is told: never less than it is, never zero.
#[derive(Debug, Clone, Copy)]
struct Wait {
    seconds: u64,
    milliseconds: u64,
}

impl Wait {
    fn of(wait: Duration) -> Self {
        let wait = nanos(wait);
        Self {
            seconds: ceil_seconds(wait).max(1),
            milliseconds: wait.div_ceil(1_000_000).max(1),
        }
    }
}

/// Limit names are `[A-Za-z0-9_]`, so nothing has to be escaped.
fn body(denial: &Denial, wait: Option<&Wait>) -> Bytes {
    let first = denial.violated().next();
    let first = first.as_ref().map_or("", |status| status.name());
    let seconds = wait.map(|wait| Digits::of(wait.seconds));
    let message: [&str; 5] = match &seconds {
        Some(seconds) => [
            "Rate limit reached for policy ",
            first,
            ". Please try again in ",
            seconds.as_str(),
            "s.",
        ],
        None => [
            "This request can never pass the rate limit of policy ",
            first,
            ".",
            "",
            "",
        ],
    };
    let mut body = Vec::with_capacity(512);
    let mut push = |text: &str| body.extend_from_slice(text.as_bytes());
    push(r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","#);
    push(
        r#""title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"detail":""#,
    );
    message.into_iter().for_each(&mut push);
    push(r#"","violated-policies":["#);
    for (index, status) in denial.violated().enumerate() {
        push(if index == 0 { "\"" } else { ",\"" });
        push(status.name());
        push("\"");
    }
    push(r#"],"error":{"message":""#);
    message.into_iter().for_each(&mut push);
    push(r#"","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#);
    body.into()
}
