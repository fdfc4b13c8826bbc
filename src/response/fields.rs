//! `RateLimit-Policy` and `RateLimit`: draft-ietf-httpapi-ratelimit-headers-11.
//!
//! Both are lists of structured-field items (RFC 9651), one a published limit: the policy (`policies`) as it was
//! configured, and what remains of it. Known readers shape what we send within the draft: one takes the
//! first item alone and wants `r` directly before `t`, so the binding limit comes first.

use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{
    buffer::Buffer,
    dialect::{Dialect, dialect_headers},
    header_names::{RATE_LIMIT, RATE_LIMIT_POLICY},
    limit_text::{push_level, requests},
    policies::Policies,
};
use crate::{
    clock::{Nanos, Timeline},
    decision::{LimitStatus, statuses},
    limiter::{limit_set::LimitSet, readings::LimitReadings},
};

/// The fields of one admitted response, written when the request was admitted.
#[derive(Debug)]
pub(crate) struct RateLimitFields {
    policy: HeaderValue,
    limit: HeaderValue,
    exhausted: bool,
    /// The fields of a dialect.
    more: Option<Box<[(HeaderName, HeaderValue)]>>,
}

impl RateLimitFields {
    /// The fields of an admitted request.
    pub(crate) fn admitted(
        policies: &Policies,
        limit_set: &LimitSet,
        readings: &LimitReadings,
        now: Nanos,
    ) -> Option<Self> {
        let mut published = statuses(limit_set, readings, now, true)
            .zip(&policies.items)
            .filter_map(|(status, item)| Some((status, item.as_deref()?)));
        let all = published.clone();
        let mut binding = published.next()?;
        let mut balance = binding.0.balance();
        let mut passing = requests(&binding.0, balance);
        let mut others = false;
        for (status, item) in published {
            others = true;
            // What has the least left is what binds; of equals what keeps it longest, or else the most
            // specific. A cap in flight comes after all else: of it no time can be told.
            let next = status.balance();
            let would_pass = requests(&status, next);
            let key = |status: &LimitStatus<'_>, passing, (_, next)| {
                (status.limit().is_slots(), passing, Reverse(next))
            };
            if key(&status, would_pass, next) < key(&binding.0, passing, balance) {
                (binding, balance, passing) = ((status, item), next, would_pass);
            }
        }
        let mut line = Buffer::new();
        line.push(binding.1);
        push_level(&mut line, binding.0.limit(), balance);
        if others {
            for (status, item) in all {
                if !std::ptr::eq(status.limit(), binding.0.limit()) {
                    line.push(", ");
                    line.push(item);
                    push_level(&mut line, status.limit(), status.balance());
                }
            }
        }
        Some(Self {
            policy: policies.line.clone(),
            limit: line.into_header_value()?,
            exhausted: balance.0 == 0,
            more: None,
        })
    }

    /// Adds what is left in the words of a dialect.
    #[cold]
    pub(crate) fn add_dialect(
        &mut self,
        dialect: Dialect,
        limit_set: &LimitSet,
        readings: &LimitReadings,
        now: Nanos,
        clock: &Timeline,
    ) {
        let limits = statuses(limit_set, readings, now, true).take(limit_set.enforced);
        self.more = Some(dialect_headers(dialect, &limits, || clock.wall()).into());
    }

    /// Adds the fields to a response, beside those the inner service wrote itself.
    ///
    /// Not to a protocol switch, which is no answer; and to a redirect only if something remains, for
    /// a client may wait before it follows (section 6.4 of the draft).
    pub(crate) fn add_to(self, status: StatusCode, headers: &mut HeaderMap) {
        if status.is_informational() || (status.is_redirection() && self.exhausted) {
            return;
        }
        headers.append(RATE_LIMIT_POLICY, self.policy);
        headers.append(RATE_LIMIT, self.limit);
        if let Some(more) = self.more {
            add_more(more, headers);
        }
    }

    /// Tells whether responses to this method carry fields: those that open a tunnel do not.
    pub(crate) fn fit(method: &Method) -> bool {
        *method != Method::CONNECT
    }
}

/// Adds the fields of a dialect, unless the inner service tells one of them: they are no lists, and what is left of
/// one limit makes no sense beside the size of another.
#[cold]
fn add_more(more: Box<[(HeaderName, HeaderValue)]>, headers: &mut HeaderMap) {
    if !more.iter().any(|(name, _)| headers.contains_key(name)) {
        headers.extend(more);
    }
}
