//! `RateLimit-Policy` and `RateLimit`: draft-ietf-httpapi-ratelimit-headers-11.
//!
//! Both are lists of structured-field items (RFC 9651), one a published limit: the policy as it was
//! configured, and what remains of it. Known readers shape what we send within the draft: one takes the
//! first item alone and wants `r` directly before `t`, so the binding limit comes first.

use std::{cmp::Reverse, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{Dialect, RATE_LIMIT, RATE_LIMIT_POLICY, buffer::Buffer, dialect::told};
use crate::{
    clock::{Nanos, nanos},
    decision::Denial,
    levels::Levels,
    limit::{Limit, Terms},
    rate::Rate,
    rule::{Binding, Rule},
    status::{LimitStatus, statuses},
};

const SECOND: u64 = 1_000_000_000;

/// The largest integer of a structured field: 15 digits (RFC 9651, section 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// The fields of one admitted response, written when the request was admitted.
#[derive(Debug)]
pub(crate) struct Fields {
    policy: HeaderValue,
    limit: HeaderValue,
    exhausted: bool,
    /// Those of a dialect.
    more: Option<Box<[(HeaderName, HeaderValue)]>>,
}

impl Fields {
    /// The fields of an admitted request.
    pub(crate) fn admitted(
        policies: &Policies,
        rule: &Rule,
        levels: &Levels,
        now: Nanos,
    ) -> Option<Self> {
        let mut published = statuses(rule, levels, now, true)
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

    /// Tells what is left in the words of a dialect, too.
    #[cold]
    pub(crate) fn in_dialect(
        self,
        dialect: Dialect,
        rule: &Rule,
        levels: &Levels,
        now: Nanos,
    ) -> Self {
        let limits = statuses(rule, levels, now, true).take(rule.enforced);
        Self {
            more: Some(told(dialect, &limits, now).into()),
            ..self
        }
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

    /// Whether responses to this method carry fields: a tunnel does not.
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

/// What is told of the published limits of a rule, written beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Policies {
    /// `RateLimit-Policy`, most specific first. Constant, so that clients may rely on it (section 4.1 of
    /// the draft).
    pub(crate) line: HeaderValue,
    /// How each binding's item of `RateLimit` begins, `"chat";r=`, if it is published.
    items: Box<[Option<Box<str>>]>,
}

/// How many requests like the one that was decided on would pass with a balance.
fn requests(status: &LimitStatus<'_>, (remaining, _): (u64, u64)) -> u64 {
    remaining / status.cost().max(1)
}

/// `None` if nothing is published.
pub(crate) fn policies(rule: &Rule) -> Option<Policies> {
    let mut line = Buffer::new();
    let items = rule.bindings.iter().map(|Binding { limit, .. }| {
        limit.published.then(|| {
            separate(&mut line);
            push_policy(&mut line, limit);
            format!("\"{}\";r=", limit.name).into()
        })
    });
    let items = items.collect();
    (!line.is_empty()).then(|| {
        Some(Policies {
            line: line.to_kept_value()?,
            items,
        })
    })?
}

/// `RateLimit` of a refused request: what refused longest first, so that its `t` is the wait told.
///
/// What refused is named whether it is published or not: its name and its wait are in the body too, and
/// a client that reads the first item alone must not find one that has room. Settings and balances of
/// unpublished limits are not told.
pub(super) fn refused(denial: &Denial) -> Option<HeaderValue> {
    let wait = |status: &LimitStatus<'_>| status.wait().unwrap_or(Duration::MAX);
    let mut line = Buffer::new();
    let only = denial.only();
    match only {
        Some(_) => {
            if let Some(status) = denial.binding() {
                push_refused(&mut line, &status, denial.retry_after());
            }
        }
        None => {
            let mut violated: Vec<_> = denial.violated().collect();
            violated.sort_by_key(|status| Reverse(wait(status)));
            for (index, status) in violated.iter().enumerate() {
                separate(&mut line);
                let told = if index == 0 {
                    denial.retry_after()
                } else {
                    status.wait()
                };
                push_refused(&mut line, status, told);
            }
        }
    }
    let others = denial
        .limits()
        .enumerate()
        .filter(|(index, status)| match only {
            Some(only) => *index != only,
            None => !status.is_refused(),
        });
    for (_, status) in others.filter(|(_, status)| status.limit().published) {
        separate(&mut line);
        push_quoted(&mut line, status.limit());
        line.push(";r=");
        push_level(&mut line, status.limit(), status.balance());
    }
    (!line.is_empty())
        .then(|| line.into_header_value())
        .flatten()
}

/// `"chat";r=0;t=2`, without `t` if it can never pass, or if nobody knows when.
fn push_refused(line: &mut Buffer, status: &LimitStatus<'_>, told: Option<Duration>) {
    push_quoted(line, status.limit());
    line.push(";r=0");
    if let Some(wait) = told.filter(|_| !status.limit().is_slots()) {
        line.push(";t=");
        line.push_integer(ceil_seconds(nanos(wait)));
    }
}

fn separate(line: &mut Buffer) {
    if !line.is_empty() {
        line.push(", ");
    }
}

/// `9;t=9` behind `"chat";r=`: `r` requests remain, and no more than those should be sent within `t` seconds.
///
/// `t` is the time to the next unit, and at least what `r` units take at the steady rate, so that a
/// client that spreads `r` over `t` arrives at that rate (the ratio that section 6 asks to cap).
fn push_level(line: &mut Buffer, limit: &Limit, (remaining, next): (u64, u64)) {
    line.push_integer(remaining.min(MAX_INTEGER));
    if let Some(meter) = limit.meter.as_ref().filter(|meter| !meter.is_slots()) {
        let steady = meter.steady(remaining);
        line.push(";t=");
        line.push_integer(ceil_seconds(steady.max(next)).min(MAX_INTEGER));
    }
}

/// `"chat";q=60;w=60;throttle-burst=10`, without a burst for a quota. For model tokens, a unit that the draft
/// does not know, with a parameter of our own that says so; for caps in flight without a window.
fn push_policy(line: &mut Buffer, limit: &Limit) {
    let (quota, window) = terms(&limit.terms);
    push_quoted(line, limit);
    line.push(";q=");
    line.push_integer(quota);
    match window {
        Some(window) => {
            line.push(";w=");
            line.push_integer(window);
        }
        None => line.push(";qu=\"concurrent-requests\""),
    }
    if let Terms::Rate(rate) | Terms::Tokens(rate) = &limit.terms {
        line.push(";throttle-burst=");
        line.push_integer(rate.burst_limit().min(MAX_INTEGER));
    }
    if limit.is_tokens() {
        line.push(";throttle-unit=\"tokens\"");
    }
}

/// A limit as a count in whole seconds, or at any time for a cap in flight.
pub(super) fn terms(terms: &Terms) -> (u64, Option<u64>) {
    let (count, window) = match terms {
        Terms::Rate(rate) | Terms::Tokens(rate) if rate.is_closed() => (0, window(rate).1),
        Terms::Rate(rate) | Terms::Tokens(rate) => window(rate),
        Terms::InFlight(cap) => return (cap.count().min(MAX_INTEGER), None),
        Terms::Quota(quota) => {
            let seconds = ceil_seconds(nanos(quota.window()));
            (
                quota.count().min(MAX_INTEGER),
                seconds.clamp(1, MAX_INTEGER),
            )
        }
    };
    (count, Some(window))
}

/// A name holds `[A-Za-z0-9_]` only, so nothing has to be escaped.
fn push_quoted(line: &mut Buffer, limit: &Limit) {
    line.push("\"");
    line.push(&limit.name);
    line.push("\"");
}

/// A rate as a count in whole seconds, which is all the field can say: the period itself, or the
/// smallest multiple of it that is whole, or what comes nearest from below.
fn window(rate: &Rate) -> (u64, u64) {
    let period = u128::from(nanos(rate.period()).max(1));
    let count = u128::from(rate.count());
    let second = u128::from(SECOND);
    let whole = (1..=1_000).find(|times| period * times % second == 0);
    let (quota, window) = match whole {
        Some(times) => (count * times, period * times / second),
        None => {
            let window = period.div_ceil(second);
            (count * window * second / period, window)
        }
    };
    let clamp = |integer: u128| u64::try_from(integer).unwrap_or(u64::MAX).min(MAX_INTEGER);
    (clamp(quota), clamp(window).max(1))
}

/// Whole seconds, rounded up.
pub(super) fn ceil_seconds(nanos: u64) -> u64 {
    nanos.div_ceil(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_in_whole_seconds() {
        let table = [
            (Rate::per_minute(60), (60, 60)),
            (Rate::per_second(10), (10, 1)),
            (Rate::new(5, Duration::from_millis(500)), (10, 1)),
            (Rate::new(1, Duration::from_millis(1_500)), (2, 3)),
            (Rate::new(7, Duration::from_millis(999)), (7_000, 999)),
            (
                Rate::new(1, Duration::from_nanos(1)),
                (999_999_999_999_999, 1),
            ),
            (
                Rate::new(u64::MAX, Duration::from_secs(1)),
                (999_999_999_999_999, 1),
            ),
            (Rate::per_second(0), (0, 1)),
        ];
        for (rate, expected) in table {
            let found = window(&rate);
            if rate.period() == Duration::from_nanos(1) {
                assert_eq!(found.1, 1, "{rate:?}");
                continue;
            }
            assert_eq!(found, expected, "{rate:?}");
        }
    }
}
