//! The rate-limit header fields of a dialect.

use std::{cmp::Reverse, time::Duration};

use http::{HeaderName, HeaderValue};

use super::Dialect;
use crate::{
    clock::{Nanos, nanos},
    decision::LimitStatus,
    limit::{Unit, calendar::date},
    response::{integer::integer, policies::count_and_window},
};

type Field = (HeaderName, HeaderValue);

/// The fields of one kind of unit: the size of the limit, the remaining units, and the time until the limit is full.
struct HeaderNames {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

macro_rules! header_names {
    ($limit:literal, $remaining:literal, $reset:literal) => {
        HeaderNames {
            limit: HeaderName::from_static($limit),
            remaining: HeaderName::from_static($remaining),
            reset: HeaderName::from_static($reset),
        }
    };
}

/// Returns the fields for requests, then for tokens and their kinds: for each the published limit that refused for the
/// longest time, or else has the least left.
///
/// The fields thus agree with the stated wait. Moments follow the `wall` clock, which clients have too.
pub(in crate::response) fn dialect_headers<'a>(
    dialect: Dialect,
    limits: &(impl Iterator<Item = LimitStatus<'a>> + Clone),
    wall: impl Fn() -> Nanos,
) -> Vec<Field> {
    let least = |unit: Unit| {
        let published = limits.clone().filter(move |status| {
            let limit = status.limit();
            limit.published && limit.settings.unit() == unit
        });
        published.min_by_key(|status| {
            let (remaining, next) = status.balance();
            let wait = status.wait().unwrap_or(Duration::MAX);
            (Reverse(wait), remaining, Reverse(next))
        })
    };
    let mut fields = Vec::with_capacity(6);
    let kinds = [
        Unit::Requests,
        Unit::Tokens,
        Unit::InputTokens,
        Unit::OutputTokens,
    ];
    for unit in kinds {
        let (Some(status), Some(names)) = (least(unit), header_names(unit, dialect)) else {
            continue;
        };
        let HeaderNames {
            limit,
            remaining,
            reset,
        } = names;
        let left = integer(status.remaining());
        let most = integer(count_and_window(&status.limit().settings).0);
        let full_in = nanos(status.full_in());
        let text = match dialect {
            Dialect::OpenAi => duration(full_in),
            Dialect::Anthropic => date(wall().saturating_add(full_in).div_ceil(SECOND)),
            // The dialect has no name for the rest.
            Dialect::AzureApiManagement => {
                fields.push((remaining, left));
                continue;
            }
            Dialect::Problem | Dialect::ApiGateway | Dialect::KServe | Dialect::JsonRpc => continue,
        };
        fields.extend([(limit, most), (remaining, left)]);
        // A closed limit is never full again.
        let reopens = status.limit().meter.is_some();
        let text = HeaderValue::try_from(text).ok().filter(|_| reopens);
        fields.extend(text.map(|value| (reset, value)));
    }
    fields
}

const SECOND: u64 = 1_000_000_000;

/// Returns the names of the fields for limits of a kind. `None`: the dialect has none.
fn header_names(unit: Unit, dialect: Dialect) -> Option<HeaderNames> {
    Some(match (dialect == Dialect::Anthropic, unit) {
        (true, Unit::Requests) => header_names!(
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset"
        ),
        (true, Unit::Tokens) => header_names!(
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset"
        ),
        (true, Unit::InputTokens) => header_names!(
            "anthropic-ratelimit-input-tokens-limit",
            "anthropic-ratelimit-input-tokens-remaining",
            "anthropic-ratelimit-input-tokens-reset"
        ),
        (true, Unit::OutputTokens) => header_names!(
            "anthropic-ratelimit-output-tokens-limit",
            "anthropic-ratelimit-output-tokens-remaining",
            "anthropic-ratelimit-output-tokens-reset"
        ),
        (false, Unit::Requests) => header_names!(
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests"
        ),
        (false, Unit::Tokens) => header_names!(
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens"
        ),
        _ => return None,
    })
}

/// Writes a duration in Go's format, as OpenAI does, to the millisecond, rounded up: `120ms`, `8.64s`, `6m0s`,
/// `1h0m1s`.
fn duration(nanos: u64) -> String {
    let milliseconds = nanos.div_ceil(1_000_000);
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    if milliseconds < 1_000 {
        return format!("{milliseconds}ms");
    }
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let (seconds, fraction) = (rest / 1_000, rest % 1_000);
    let fraction = match fraction {
        0 => String::new(),
        _ => format!(".{fraction:03}").trim_end_matches('0').to_owned(),
    };
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        let table = [
            (0, "0s"),
            (1, "1ms"),
            (120_000_000, "120ms"),
            (999_000_001, "1s"),
            (1_000_000_000, "1s"),
            (8_640_000_000, "8.64s"),
            (90_951_000_000, "1m30.951s"),
            (360_000_000_000, "6m0s"),
            (3_601_000_000_000, "1h0m1s"),
        ];
        for (nanos, expected) in table {
            assert_eq!(duration(nanos), expected, "{nanos}");
        }
    }
}
