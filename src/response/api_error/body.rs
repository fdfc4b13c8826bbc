//! The bodies of the dialects. Nothing in them comes from outside, so nothing has to be escaped.

use crate::{
    decision::{Denial, Failure},
    response::problem::{FailureWords, RetryAfter},
};

/// Both codes lie among those that JSON-RPC leaves to servers (-32000 to -32099), and there among those that the Model
/// Context Protocol leaves to implementations (-32000 to -32019), without -32000 to -32002, which its SDKs use for
/// failures of their own. EIP-1474 has the first one, "Limit exceeded", and its clients retry it.
const LIMIT_EXCEEDED: i32 = -32_005;
/// As 14 is gRPC's `UNAVAILABLE`.
const SERVER_UNAVAILABLE: i32 = -32_014;

/// A refusal, to be told as JSON.
pub(super) struct ErrorBody<'a> {
    pub(super) denial: &'a Denial,
    /// The wait, if the request can ever pass.
    pub(super) wait: Option<RetryAfter>,
}

impl ErrorBody<'_> {
    pub(super) fn open_ai(&self) -> String {
        let unit = self.unit();
        let message = self.sentence();
        let (kind, code) = if let Some(FailureWords { code, .. }) = self.failure() {
            ("service_unavailable_error", code)
        } else if self.is_busy() {
            ("service_unavailable_error", "server_is_overloaded")
        } else {
            (unit, "rate_limit_exceeded")
        };
        format!(
            r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":"{code}"}}}}"#
        )
    }

    pub(super) fn anthropic(&self) -> String {
        let (kind, what) = if let Some(FailureWords { sentence, .. }) = self.failure() {
            ("api_error", sentence)
        } else if self.is_busy() {
            ("overloaded_error", "Overloaded.")
        } else {
            ("rate_limit_error", "Rate limit reached.")
        };
        let message = match self.seconds() {
            Some(seconds) => format!("{what} Please try again in {seconds}s."),
            None => "This request can never pass the rate limit.".to_owned(),
        };
        format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}"#)
    }

    pub(super) fn api_gateway(&self) -> String {
        let message = match self.exception() {
            "ServiceUnavailableException" => "Service Unavailable",
            "LimitExceededException" => "Limit Exceeded",
            _ => "Too Many Requests",
        };
        format!(r#"{{"message":"{message}"}}"#)
    }

    /// Returns the name that API Gateway has for the refusal.
    pub(super) fn exception(&self) -> &'static str {
        let binding = self.denial.binding();
        if self.is_busy() || self.denial.failure().is_some() {
            "ServiceUnavailableException"
        } else if binding.is_some_and(|status| status.quota().is_some()) {
            "LimitExceededException"
        } else {
            "TooManyRequestsException"
        }
    }

    pub(super) fn azure(&self) -> String {
        let failure = self.denial.failure();
        let status = if self.is_busy() || failure.is_some() {
            503
        } else {
            429
        };
        let what = match self.unit() {
            _ if matches!(failure, Some(Failure::StoreDown | Failure::NoLease)) => {
                "Rate limiter is unavailable."
            }
            _ if failure == Some(Failure::ShuttingDown) => "Service is shutting down.",
            _ if self.is_busy() => "Service is at its limit of concurrent calls.",
            "tokens" => "Token limit is exceeded.",
            _ => "Rate limit is exceeded.",
        };
        let again = match self.seconds() {
            Some(seconds) => format!("Try again in {seconds} seconds."),
            None => "This request can never pass.".to_owned(),
        };
        format!(r#"{{ "statusCode": {status}, "message": "{what} {again}" }}"#)
    }

    /// Writes the error as a string: Triton's clients for Python append it to another string.
    pub(super) fn kserve(&self) -> String {
        format!(r#"{{"error":"{}"}}"#, self.sentence())
    }

    /// Writes an error object of JSON-RPC 2.0. The request's `id` is in its body, which is not read: `null`, as for a
    /// request whose `id` could not be detected (section 5, "Response object").
    pub(super) fn json_rpc(&self) -> String {
        let code = match self.is_busy() || self.denial.failure().is_some() {
            true => SERVER_UNAVAILABLE,
            false => LIMIT_EXCEEDED,
        };
        let message = self.sentence();
        let data = match self.wait {
            Some(RetryAfter {
                seconds,
                milliseconds,
            }) => format!(r#","data":{{"retryAfter":{seconds},"retryAfterMs":{milliseconds}}}"#),
            None => String::new(),
        };
        format!(
            r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"{message}"{data}}}}}"#
        )
    }

    /// The refusal in one sentence, and the wait in another.
    fn sentence(&self) -> String {
        let unit = self.unit();
        if let (Some(FailureWords { sentence, .. }), Some(seconds)) =
            (self.failure(), self.seconds())
        {
            return format!("{sentence} Please try again in {seconds}s.");
        }
        match self.seconds() {
            Some(seconds) if self.is_busy() => {
                format!("The server is overloaded. Please try again in {seconds}s.")
            }
            Some(seconds) => {
                format!("Rate limit reached for {unit}. Please try again in {seconds}s.")
            }
            None => format!("This request can never pass the rate limit for {unit}."),
        }
    }

    fn seconds(&self) -> Option<u64> {
        self.wait.map(|wait| wait.seconds)
    }

    fn failure(&self) -> Option<FailureWords> {
        self.denial.failure().map(FailureWords::of)
    }

    fn is_busy(&self) -> bool {
        self.denial.is_saturated()
    }

    /// Returns the unit that is counted by the limit that refused.
    fn unit(&self) -> &'static str {
        let binding = self.denial.binding();
        match binding.is_some_and(|status| status.counts_tokens()) {
            true => "tokens",
            false => "requests",
        }
    }
}
