//! Refusals in gRPC's framing: one HEADERS frame with the status, and no body.
//!
//! The status details are three messages of `google.rpc`, written by hand: varints and
//! length-delimited fields are all they need.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE as CONTENT_TYPE_HEADER},
};

use super::{
    header_names::{RATE_LIMIT, RATE_LIMIT_POLICY},
    limit_text::refused,
    policies::count_and_window,
};
use crate::{
    clock::nanos,
    decision::{Denial, Failure, LimitStatus},
    head,
    limit::{Scope, Unit},
};

pub(super) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(super) const STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
pub(super) const RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

pub(super) const CONTENT_TYPE: &str = "application/grpc";

/// The families of gRPC-Web, and each with the message format that has to be echoed.
pub(super) const WEB_CONTENT_TYPES: [(&str, &str); 2] = [
    ("application/grpc-web", "application/grpc-web+proto"),
    (
        "application/grpc-web-text",
        "application/grpc-web-text+proto",
    ),
];

/// A status of `google.rpc.Code`, what it is called in `ErrorInfo`, and its message.
struct Status {
    code: u64,
    reason: &'static str,
    message: &'static str,
}

/// `RESOURCE_EXHAUSTED`: a client asks for too much.
const REFUSED: Status = Status {
    code: 8,
    reason: "RATE_LIMIT_EXCEEDED",
    message: "rate limit exceeded",
};

/// `UNAVAILABLE`: the server is busy, whoever asks.
const SATURATED: Status = Status {
    code: 14,
    reason: "SERVER_SATURATED",
    message: "server is at its limit of requests in flight",
};

/// `UNAVAILABLE`: nobody can decide.
const UNDECIDED: Status = Status {
    code: 14,
    reason: "LIMITER_UNAVAILABLE",
    message: "rate limiter unavailable",
};

/// `UNAVAILABLE`: the server is shutting down. Another one may answer at once.
const SHUTTING_DOWN: Status = Status {
    code: 14,
    reason: "SERVER_SHUTTING_DOWN",
    message: "server is shutting down",
};

impl Status {
    fn of(denial: &Denial) -> &'static Self {
        match denial.failure() {
            Some(Failure::StoreDown | Failure::NoLease) => &UNDECIDED,
            Some(Failure::ShuttingDown) => &SHUTTING_DOWN,
            None if denial.is_saturated() => &SATURATED,
            None => &REFUSED,
        }
    }
}

/// Returns what is left of a client's deadline, from `grpc-timeout`: at most eight digits and a unit. `None` if the
/// field is missing or has another form.
pub(crate) fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let value = head::text(headers, &TIMEOUT)?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// A trailers-only response: its body is empty and says so, so that the only HEADERS frame ends the
/// stream.
///
/// `pushback`, if asked for, holds the client's deadline.
pub(crate) fn reject(
    denial: &Denial,
    content_type: &'static str,
    policy: Option<&HeaderValue>,
    pushback: Option<Option<Duration>>,
) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    let headers = answer.headers_mut();
    headers.reserve(8);
    headers.insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let Status { code, message, .. } = Status::of(denial);
    headers.insert(STATUS, (*code).into());
    headers.insert(MESSAGE, HeaderValue::from_static(message));
    if let Ok(details) = HeaderValue::from_maybe_shared(Bytes::from(base64(&status(denial)))) {
        headers.insert(STATUS_DETAILS, details);
    }
    if let Some(deadline) = pushback {
        headers.insert(
            RETRY_PUSHBACK,
            pushback_value(
                denial.retry_after(),
                denial.wait().map(Duration::from_nanos),
                deadline,
            ),
        );
    }
    if let Some(policy) = policy {
        headers.insert(RATE_LIMIT_POLICY, policy.clone());
    }
    if let Some(limit) = refused(denial) {
        headers.insert(RATE_LIMIT, limit);
    }
    answer
}

/// Returns the milliseconds to wait, or -1: do not retry. A pushback past the deadline would have the client see
/// the deadline instead of the refusal (gRFC A6).
///
/// A staggered wait that is past the deadline gives way to the true wait.
fn pushback_value(
    told: Option<Duration>,
    wait: Option<Duration>,
    deadline: Option<Duration>,
) -> HeaderValue {
    let in_time = |wait: &Duration| deadline.is_none_or(|deadline| *wait < deadline);
    told.filter(in_time)
        .or_else(|| wait.filter(in_time))
        .map(|wait| nanos(wait).div_ceil(1_000_000).max(1))
        .filter(|&wait| wait <= 0x7fff_ffff)
        .map_or(HeaderValue::from_static("-1"), HeaderValue::from)
}

/// `google.rpc.Status` with `RetryInfo` (if it can pass later), `QuotaFailure` and `ErrorInfo`.
fn status(denial: &Denial) -> Vec<u8> {
    let mut status = Message::default();
    let Status { code, message, .. } = Status::of(denial);
    status.integer(1, *code);
    status.bytes(2, message.as_bytes());
    if let Some(wait) = denial.retry_after() {
        status.any("type.googleapis.com/google.rpc.RetryInfo", retry_info(wait));
    }
    if denial.failure().is_none() {
        status.any(
            "type.googleapis.com/google.rpc.QuotaFailure",
            quota_failure(denial),
        );
    }
    status.any(
        "type.googleapis.com/google.rpc.ErrorInfo",
        error_info(denial),
    );
    status.0
}

/// The wait to the millisecond, rounded up.
fn retry_info(wait: Duration) -> Message {
    let milliseconds = nanos(wait).div_ceil(1_000_000).max(1);
    let mut duration = Message::default();
    duration.integer(1, milliseconds / 1_000);
    duration.integer(2, milliseconds % 1_000 * 1_000_000);
    let mut info = Message::default();
    info.bytes(1, &duration.0);
    info
}

fn quota_failure(denial: &Denial) -> Message {
    let mut failure = Message::default();
    for status in denial.violated() {
        let mut violation = Message::default();
        violation.bytes(1, format!("policy:{}", status.name()).as_bytes());
        violation.bytes(2, description(&status).as_bytes());
        failure.bytes(1, &violation.0);
    }
    failure
}

/// The settings of a limit, where they are published.
fn description(status: &LimitStatus<'_>) -> String {
    match status.scope() {
        _ if status.limit().published => {}
        Scope::Total => return "limit of the whole server".to_owned(),
        Scope::Route => return "limit of this route".to_owned(),
        Scope::Model => return "limit of this model".to_owned(),
        Scope::Client | Scope::ClientOnModel | Scope::ClientOnRoute => {
            return "limit of this client".to_owned();
        }
    }
    let (count, window) = count_and_window(&status.limit().settings);
    let unit = match status.limit().settings.unit() {
        Unit::Tokens => " tokens",
        Unit::InputTokens => " input tokens",
        Unit::OutputTokens => " output tokens",
        Unit::Spend => " micro-units",
        Unit::Requests | Unit::Slots => "",
    };
    match window {
        None => format!("limit {count} in flight"),
        Some(window) if status.limit().settings.rate().is_none() => {
            format!("limit {count}{unit} per {window}s")
        }
        Some(window) => format!(
            "limit {count}{unit} per {window}s, burst {}",
            status.burst()
        ),
    }
}

fn error_info(denial: &Denial) -> Message {
    let mut info = Message::default();
    info.bytes(1, Status::of(denial).reason.as_bytes());
    info.bytes(2, b"tower-throttle");
    if let Some(binding) = denial.binding() {
        let mut entry = Message::default();
        entry.bytes(1, b"policy");
        entry.bytes(2, binding.name().as_bytes());
        info.bytes(3, &entry.0);
    }
    info
}

/// A protocol buffer in the making. Fields are numbered below 16, so that a tag is one byte.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    /// A varint field; the default, zero, is left out as proto3 does.
    fn integer(&mut self, field: u8, value: u64) {
        if value > 0 {
            self.0.push(field << 3);
            self.varint(value);
        }
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.0.push(field << 3 | 2);
        self.varint(u64::try_from(value.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(value);
    }

    /// A detail: field 3 of a status, a `google.protobuf.Any`.
    fn any(&mut self, type_url: &str, Self(value): Self) {
        let mut any = Self::default();
        any.bytes(1, type_url.as_bytes());
        any.bytes(2, &value);
        self.bytes(3, &any.0);
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }
}

/// The standard alphabet without padding, as gRPC sends binary metadata.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = 0u32;
        for position in 0..3 {
            word = word << 8 | u32::from(chunk.get(position).copied().unwrap_or(0));
        }
        for position in 0..=chunk.len() {
            let sextet = word >> (18 - 6 * position) & 63;
            text.push(ALPHABET[usize::try_from(sextet).unwrap_or(0)]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body::Body as _;

    use super::*;
    use crate::{
        Rate,
        body::{FromInner, ResponseBody},
        limit::{Limit, LimitSettings},
        limiter::{
            limit_set::{BoundLimit, LimitSet},
            readings::{LimitReading, LimitReadings},
        },
        response::Answer,
    };

    #[test]
    fn a_wait_is_told_in_seconds_and_nanoseconds() {
        // Field 1 of a `google.rpc.RetryInfo` is a `google.protobuf.Duration`: its fields are 1 and 2.
        let table: [(Duration, &[u8]); 5] = [
            (Duration::from_secs(2), &[0x0a, 2, 0x08, 2]),
            (Duration::from_secs(127), &[0x0a, 2, 0x08, 0x7f]),
            (Duration::from_secs(128), &[0x0a, 3, 0x08, 0x80, 0x01]),
            (
                Duration::from_micros(1_499_001),
                // 500,000,000 in groups of seven bits, the last first.
                &[0x0a, 8, 0x08, 1, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01],
            ),
            (Duration::ZERO, &[0x0a, 4, 0x10, 0xc0, 0x84, 0x3d]),
        ];
        for (wait, told) in table {
            assert_eq!(retry_info(wait).0, told, "{wait:?}");
        }
    }

    #[test]
    fn base64_is_unpadded() {
        let table = [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ];
        for (bytes, text) in table {
            assert_eq!(base64(bytes.as_bytes()), text.as_bytes(), "{bytes:?}");
        }
    }

    #[test]
    fn deadlines_are_read_as_the_protocol_writes_them() {
        let table = [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("100000000m", None),
            ("m", None),
            ("", None),
            ("1s", None),
            ("-1S", None),
            ("1\u{e9}", None),
        ];
        for (value, expected) in table {
            let value = HeaderValue::from_str(value).expect("a header value");
            let headers = HeaderMap::from_iter([(TIMEOUT, value.clone())]);
            assert_eq!(deadline(&headers), expected, "{value:?}");
        }
    }

    #[test]
    fn a_pushback_never_outlasts_the_deadline() {
        let (one, two) = (Duration::from_millis(1_420), Duration::from_secs(2));
        let value = |told, wait, deadline| {
            let value = pushback_value(told, wait, deadline);
            value.to_str().map(str::to_owned).expect("a number")
        };
        assert_eq!(value(Some(one), Some(one), None), "1420");
        assert_eq!(value(Some(one), Some(one), Some(two)), "1420");
        assert_eq!(value(Some(two), Some(two), Some(two)), "-1");
        assert_eq!(
            value(Some(two), Some(one), None),
            "2000",
            "the staggered wait"
        );
        assert_eq!(
            value(Some(two), Some(one), Some(two)),
            "1420",
            "the true one"
        );
        assert_eq!(value(None, None, None), "-1");
        let long = Some(Duration::from_secs(1 << 40));
        assert_eq!(value(long, long, None), "-1");
        let short = Some(Duration::from_nanos(1));
        assert_eq!(value(short, short, None), "1");
    }

    /// A refusal of `chat`, 60 a minute with a burst of 10, that can pass in two seconds.
    fn two_seconds() -> Denial {
        let rate = Rate::per_minute(60).burst(10);
        let limit = Limit {
            name: "chat".into(),
            is_named: true,
            ..Limit::of(LimitSettings::Rate(rate))
        };
        let mut readings = LimitReadings::default();
        readings.push(LimitReading {
            state: 11_000_000_000,
            cost: 1,
            ..LimitReading::default()
        });
        let limit_set = LimitSet::new("POST /chat", None, BoundLimit::scope([limit]));
        Denial::new(Arc::new(limit_set), readings, 0, 0, |_| ())
    }

    /// Both vectors were made with Google's own protobuf runtime.
    #[test]
    fn status_details_are_the_bytes_that_protobuf_writes() {
        let mut retry_info_alone = Message::default();
        retry_info_alone.integer(1, REFUSED.code);
        retry_info_alone.bytes(2, REFUSED.message.as_bytes());
        let retry_info = retry_info(Duration::from_secs(2));
        retry_info_alone.any("type.googleapis.com/google.rpc.RetryInfo", retry_info);
        assert_eq!(
            String::from_utf8(base64(&retry_info_alone.0)).as_deref(),
            Ok(
                "CAgSE3JhdGUgbGltaXQgZXhjZWVkZWQaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIAg"
            )
        );
        assert_eq!(
            String::from_utf8(base64(&status(&two_seconds()))).as_deref(),
            Ok(concat!(
                "CAgSE3JhdGUgbGltaXQgZXhjZWVkZWQaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIAhpa",
                "Cit0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUXVvdGFGYWlsdXJlEisKKQoLcG9saWN5OmNoYXQSGmxpbWl0IDYwIHBl",
                "ciA2MHMsIGJ1cnN0IDEwGmEKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5FcnJvckluZm8SNQoTUkFURV9MSU1JVF9F",
                "WENFRURFRBIOdG93ZXItdGhyb3R0bGUaDgoGcG9saWN5EgRjaGF0",
            ))
        );
    }

    #[test]
    fn a_grpc_head_ends_the_stream() {
        let answer = reject(&two_seconds(), CONTENT_TYPE, None, None);
        let body = ResponseBody::<http_body_util::Empty<Bytes>>::own;
        let response = Answer::new(answer).respond(body);
        assert!(response.body().is_end_stream());
    }
}
