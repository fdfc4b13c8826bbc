//! The text of `RateLimit`: what is left of each limit that is told.

use std::{cmp::Reverse, time::Duration};

use http::HeaderValue;

use super::{buffer::Buffer, policies::MAX_INTEGER};
use crate::{
    clock::{ceil_seconds, nanos},
    decision::{Denial, LimitStatus},
    limit::Limit,
};

/// Returns the number of requests like the one that was decided on that would pass with a balance.
pub(super) fn requests(status: &LimitStatus<'_>, (remaining, _): (u64, u64)) -> u64 {
    remaining / status.cost().max(1)
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
                line.separate();
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
        line.separate();
        line.push_quoted(&status.limit().name);
        line.push(";r=");
        push_level(&mut line, status.limit(), status.balance());
    }
    (!line.is_empty())
        .then(|| line.into_header_value())
        .flatten()
}

/// `"chat";r=0;t=2`, without `t` if it can never pass, or if nobody knows when.
fn push_refused(line: &mut Buffer, status: &LimitStatus<'_>, told: Option<Duration>) {
    line.push_quoted(&status.limit().name);
    line.push(";r=0");
    if let Some(wait) = told.filter(|_| status.in_flight().is_none()) {
        line.push(";t=");
        line.push_integer(ceil_seconds(nanos(wait)));
    }
}

/// `9;t=9` behind `"chat";r=`: `r` requests remain, and no more than those should be sent within `t` seconds.
///
/// `t` is the time to the next unit, and at least what `r` units take at the steady rate, so that a
/// client that spreads `r` over `t` arrives at that rate (the ratio that section 6 asks to cap).
pub(super) fn push_level(line: &mut Buffer, limit: &Limit, (remaining, next): (u64, u64)) {
    line.push_integer(remaining.min(MAX_INTEGER));
    if let Some(meter) = limit.meter.as_ref().filter(|meter| !meter.is_slots()) {
        let steady = meter.steady(remaining);
        line.push(";t=");
        line.push_integer(ceil_seconds(steady.max(next)).min(MAX_INTEGER));
    }
}
