//! The default answer: a problem document that OpenAI's SDKs can read too.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};

use super::{
    header_names::{RATE_LIMIT, RATE_LIMIT_POLICY, RETRY_AFTER_MS, X_SHOULD_RETRY},
    integer::integer,
    limit_text::refused,
    policies::{Policies, policies},
    rejection::Rejection,
};
use crate::{
    clock::{Nanos, ceil_seconds, nanos},
    decision::{Denial, Failure},
};

/// The longest wait in seconds that SDKs sleep through. Several ignore a longer one and retry after their own back-off,
/// within a second. They are told not to retry instead.
const LONGEST_RETRY: u64 = 60;

/// The default answer: status 429 and a problem document; 503 where the [server is busy](Denial::is_saturated) or
/// [shutting down](Denial::is_shutting_down), or the [store cannot decide](Denial::is_unavailable).
///
/// - `Retry-After` in whole seconds, rounded up, at least 1 (RFC 9110, section 10.2.3); `retry-after-ms`
///   for the SDKs that read it; both are absent if the request can never pass.
/// - `x-should-retry: false` if it can never pass, or if the wait is longer than 60 s.
/// - `RateLimit-Policy` and `RateLimit` of the published limits; `RateLimit` names what refused first,
///   published or not.
/// - `Cache-Control: no-store` (RFC 6585, section 4).
/// - A body of type `application/problem+json` (RFC 9457) with OpenAI's `error` object. If limits refused, it has the
///   problem type `quota-exceeded`, or `temporary-reduced-capacity` if the server is busy, and the member
///   `violated-policies`. Otherwise the type is `about:blank`, and there are no `RateLimit` fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Problem;

impl Rejection for Problem {
    fn reject(&self, denial: &Denial, _: &Parts) -> Response<Bytes> {
        let policies = policies(denial.limit_set());
        let template = |ends| template(policies.as_ref(), ends);
        problem(denial, template, &BodyTemplates::default())
    }
}

/// The header of [`Problem`] for one rule, with blanks for what each refusal tells. It `ends` a client's attempts, or
/// has it come back by itself.
pub(super) fn template(policies: Option<&Policies>, ends: bool) -> HeaderMap {
    let blank = HeaderValue::from_static("");
    let mut headers = HeaderMap::with_capacity(7);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(RETRY_AFTER, blank.clone());
    headers.insert(RETRY_AFTER_MS, blank.clone());
    if let Some(policies) = policies {
        headers.insert(RATE_LIMIT_POLICY, policies.line.clone());
    }
    headers.insert(RATE_LIMIT, blank);
    if ends {
        headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    headers
}

/// The [`template`]s of a rule, written beforehand: one is cloned for each refusal, which costs a third of building it,
/// and has all fields, for one more would have the map grow.
#[derive(Debug)]
pub(crate) struct HeadTemplates {
    retries: HeaderMap,
    ends: HeaderMap,
}

impl HeadTemplates {
    pub(crate) fn of(policies: Option<&Policies>) -> Self {
        Self {
            retries: template(policies, false),
            ends: template(policies, true),
        }
    }

    pub(crate) fn template(&self, ends: bool) -> HeaderMap {
        if ends { &self.ends } else { &self.retries }.clone()
    }
}

/// [`Problem`], on a [`template`] of the rule that refused, in its frames.
pub(crate) fn problem(
    denial: &Denial,
    template: impl FnOnce(bool) -> HeaderMap,
    frames: &BodyTemplates,
) -> Response<Bytes> {
    let RefusalHead {
        headers,
        status,
        wait,
    } = head(denial, template);
    let mut answer = Response::new(body(denial, wait.as_ref(), frames));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// The head of a refusal: all that stands above its body, and the wait that is told there.
pub(super) struct RefusalHead {
    pub(super) headers: HeaderMap,
    pub(super) status: StatusCode,
    /// `None` if the request can never pass.
    pub(super) wait: Option<RetryAfter>,
}

/// Fills in the blanks of a [`template`], in the order in which they stand there.
pub(super) fn head(denial: &Denial, template: impl FnOnce(bool) -> HeaderMap) -> RefusalHead {
    let wait = denial.retry_after().map(RetryAfter::of);
    let mut headers = template(wait.is_none_or(|wait| wait.seconds > LONGEST_RETRY));
    // To find a field by its name costs a hash.
    let mut blanks = headers.values_mut().filter(|value| value.is_empty());
    let values = [
        wait.map(|wait| integer(wait.seconds)),
        wait.map(|wait| integer(wait.milliseconds)),
        refused(denial),
    ];
    for value in values {
        if let (Some(blank), Some(value)) = (blanks.next(), value) {
            *blank = value;
        }
    }
    if denial.failure().is_some() {
        headers.remove(RATE_LIMIT);
    }
    if wait.is_none() {
        headers.remove(RETRY_AFTER);
        headers.remove(RETRY_AFTER_MS);
    }
    let status = if denial.is_saturated() || denial.failure().is_some() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::TOO_MANY_REQUESTS
    };
    RefusalHead {
        headers,
        status,
        wait,
    }
}

/// A wait as it is told: never less than it is, never zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetryAfter {
    pub(super) seconds: u64,
    pub(super) milliseconds: u64,
}

impl RetryAfter {
    pub(super) fn of(wait: Duration) -> Self {
        Self::of_nanos(nanos(wait))
    }

    #[inline]
    pub(super) fn of_nanos(wait: Nanos) -> Self {
        Self {
            seconds: ceil_seconds(wait).max(1),
            milliseconds: wait.div_ceil(1_000_000).max(1),
        }
    }
}

/// The beginning of a problem: RFC 9457 with the types that draft-ietf-httpapi-ratelimit-headers-11 registers.
const REFUSED: &str = concat!(
    r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","#,
    r#""title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"#,
);
const BUSY: &str = concat!(
    r#"{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity","#,
    r#""title":"Request cannot be satisfied due to temporary server capacity constraints","status":503,"#,
);

/// Tells whether a client that reads messages would take this name in one for an account that is out of money, and not
/// come back: LangChain for JavaScript looks for `billing`. Its other patterns have spaces, which names have not.
fn ends_retries(name: &str) -> bool {
    const WORD: &[u8] = b"billing";
    let mut words = name.as_bytes().windows(WORD.len());
    words.any(|word| word.eq_ignore_ascii_case(WORD))
}

/// The words for a refusal that no limit has caused: a sentence, and a code as OpenAI's are.
pub(super) struct FailureWords {
    pub(super) sentence: &'static str,
    pub(super) code: &'static str,
}

impl FailureWords {
    pub(super) fn of(failure: Failure) -> Self {
        match failure {
            Failure::StoreDown | Failure::NoLease => Self {
                sentence: "Rate limiter unavailable.",
                code: "limiter_unavailable",
            },
            Failure::ShuttingDown => Self {
                sentence: "The server is shutting down.",
                code: "server_is_shutting_down",
            },
        }
    }
}

/// Returns the body of a refusal that no limit has caused.
fn failed(failure: Failure, seconds: u64) -> Bytes {
    let FailureWords { sentence, code } = FailureWords::of(failure);
    let detail = format!("{sentence} Please try again in {seconds}s.");
    let body = format!(
        concat!(
            r#"{{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"{detail}","#,
            r#""error":{{"message":"{detail}","type":"service_unavailable_error","param":null,"#,
            r#""code":"{code}"}}}}"#,
        ),
        detail = detail,
        code = code
    );
    body.into()
}

/// The body of a refusal without the seconds that it tells twice.
#[derive(Debug)]
pub(crate) struct BodyTemplate {
    before: Box<str>,
    between: Box<str>,
    after: Box<str>,
}

/// The bodies of a rule's refusals: of those by one limit alone, which most are, written when it first refuses.
#[derive(Debug, Default)]
pub(crate) struct BodyTemplates(Box<[OnceLock<BodyTemplate>]>);

impl BodyTemplates {
    pub(crate) fn of(limits: usize) -> Self {
        Self((0..limits).map(|_| OnceLock::new()).collect())
    }
}

fn body(denial: &Denial, wait: Option<&RetryAfter>, frames: &BodyTemplates) -> Bytes {
    let Some(wait) = wait else {
        let BodyTemplate { before, after, .. } = frame(denial, false);
        return [before, after].concat().into();
    };
    if let Some(failure) = denial.failure() {
        return failed(failure, wait.seconds);
    }
    let made;
    let kept = denial.only().and_then(|index| frames.0.get(index));
    let BodyTemplate {
        before,
        between,
        after,
    } = match kept {
        Some(kept) => kept.get_or_init(|| frame(denial, true)),
        None => {
            made = frame(denial, true);
            &made
        }
    };
    let mut digits = itoa::Buffer::new();
    let seconds = digits.format(wait.seconds);
    // Exactly as long as it has to be, so that it becomes `Bytes` as it is.
    [before, seconds, between, seconds, after].concat().into()
}

/// The body of a refusal; one of a request that `passes` at no time has nothing between.
///
/// Limit names are `[A-Za-z0-9_]`, so nothing has to be escaped.
fn frame(denial: &Denial, passes: bool) -> BodyTemplate {
    let binding = denial.binding();
    let tokens = binding
        .as_ref()
        .is_some_and(|status| status.counts_tokens());
    let binding = binding.as_ref().map_or("", |status| status.name());
    let violated: Vec<_> = denial.violated().map(|status| status.name()).collect();
    let violated = violated.join(r#"",""#);
    let saturated = denial.is_saturated();
    let [what, of_policy, again, end] = match passes {
        true if saturated => [
            "The server is overloaded, at the limit of requests in flight",
            " of policy ",
            ". Please try again in ",
            "s.",
        ],
        true => [
            "Rate limit reached",
            " for policy ",
            ". Please try again in ",
            "s.",
        ],
        false => [
            "This request can never pass the rate limit",
            " of policy ",
            ".",
            "",
        ],
    };
    // Named beside the message all the same.
    let [message_of, message_policy] = if ends_retries(binding) {
        ["", ""]
    } else {
        [of_policy, binding]
    };
    let head = if saturated { BUSY } else { REFUSED };
    let tail = if saturated {
        r#"","type":"service_unavailable_error","param":null,"code":"server_is_overloaded"}}"#
    } else if tokens {
        r#"","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#
    } else {
        r#"","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#
    };
    let detail = [head, r#""detail":""#, what, of_policy, binding, again].concat();
    let policies = r#"","violated-policies":[""#;
    let error = r#""],"error":{"message":""#;
    let message = [
        end,
        policies,
        &violated,
        error,
        what,
        message_of,
        message_policy,
        again,
    ];
    let message = message.concat();
    let after = [end, tail].concat().into();
    match passes {
        true => BodyTemplate {
            before: detail.into(),
            between: message.into(),
            after,
        },
        false => BodyTemplate {
            before: (detail + &message).into(),
            between: "".into(),
            after,
        },
    }
}
