//! `RateLimit-Policy`: the configured policies of a rule's limits.

use std::{fmt::Write, time::Duration};

use http::HeaderValue;

use crate::{
    clock::{ceil_seconds, nanos},
    limit::{Limit, LimitSettings, Unit, gcd, meter::Meter, rate::Rate},
    limiter::limit_set::{BoundLimit, LimitSet},
};

const SECOND: u64 = 1_000_000_000;

/// The largest integer of a structured field: 15 digits (RFC 9651, section 3.3.1).
pub(super) const MAX_INTEGER: u64 = 999_999_999_999_999;

/// The published limits of a rule, as prepared text.
#[derive(Debug, Clone)]
pub(crate) struct Policies {
    /// `RateLimit-Policy`, most specific first. Constant, so that clients may rely on it (section 4.1 of
    /// the draft).
    pub(crate) line: HeaderValue,
    /// The parts of each limit's item of `RateLimit`, if the limit is published.
    pub(super) items: Box<[Option<LimitItem>]>,
}

/// A limit's item of `RateLimit`: `"chat";r=9;t=9`.
#[derive(Debug, Clone)]
pub(super) struct LimitItem {
    /// The text before the units that remain: `"chat";r=`.
    pub(super) beginning: Box<str>,
    /// The meter of its balance. `None`: the limit is closed.
    pub(super) meter: Option<Meter>,
    /// The limit is a cap on what is in flight.
    pub(super) is_slots: bool,
}

/// `None` if nothing is published.
pub(super) fn policies(limit_set: &LimitSet) -> Option<Policies> {
    let published = limit_set.limits.iter().filter(|it| it.limit.published);
    let policies: Vec<String> = published.map(|bound| policy(&bound.limit)).collect();
    if policies.is_empty() {
        return None;
    }
    let item = |BoundLimit { limit, .. }: &BoundLimit| {
        limit.published.then(|| LimitItem {
            beginning: format!("\"{}\";r=", limit.name).into(),
            meter: limit.meter,
            is_slots: limit.is_slots(),
        })
    };
    Some(Policies {
        line: HeaderValue::try_from(policies.join(", ")).ok()?,
        items: limit_set.limits.iter().map(item).collect(),
    })
}

/// `"chat";q=60;w=60;throttle-burst=10`, without a burst for a quota. For model tokens, a unit that the draft
/// does not know, with a parameter of our own that says so; for caps in flight without a window.
fn policy(limit: &Limit) -> String {
    let (quota, window) = count_and_window(&limit.settings);
    // A name holds `[A-Za-z0-9_]` only, so nothing has to be escaped.
    let mut policy = format!("\"{}\";q={quota}", limit.name);
    // Writing to a string never fails.
    let _ = match window {
        Some(window) => write!(policy, ";w={window}"),
        None => policy.write_str(";qu=\"concurrent-requests\""),
    };
    if let Some(rate) = limit.settings.rate() {
        let burst = rate.burst_limit().min(MAX_INTEGER);
        let _ = write!(policy, ";throttle-burst={burst}");
    }
    match limit.settings.unit() {
        Unit::Requests | Unit::Slots => {}
        Unit::Tokens => policy.push_str(";throttle-unit=\"tokens\""),
        Unit::InputTokens => policy.push_str(";throttle-unit=\"input-tokens\""),
        Unit::OutputTokens => policy.push_str(";throttle-unit=\"output-tokens\""),
        Unit::Spend => policy.push_str(";throttle-unit=\"micro-units\""),
    }
    policy
}

/// Returns a limit as a count in whole seconds, without a window for a cap in flight.
pub(super) fn count_and_window(settings: &LimitSettings) -> (u64, Option<u64>) {
    let (count, window) = match settings {
        LimitSettings::Rate(rate)
        | LimitSettings::Tokens(rate)
        | LimitSettings::InputTokens(rate)
        | LimitSettings::OutputTokens(rate) => of_rate(rate),
        LimitSettings::InFlight(cap) => return (cap.count().min(MAX_INTEGER), None),
        LimitSettings::Quota(quota) => of_calendar(quota.count(), quota.window()),
        LimitSettings::Spend(spend) => match spend.rate() {
            Some(rate) => of_rate(rate),
            None => of_calendar(spend.millionths(), spend.period()),
        },
    };
    (count, Some(window))
}

fn of_rate(rate: &Rate) -> (u64, u64) {
    match rate.is_closed() {
        true => (0, window(rate).1),
        false => window(rate),
    }
}

fn of_calendar(count: u64, window: Duration) -> (u64, u64) {
    let seconds = ceil_seconds(nanos(window));
    (count.min(MAX_INTEGER), seconds.clamp(1, MAX_INTEGER))
}

/// Returns a rate as a count in whole seconds, as the field requires: the period itself, or the smallest whole multiple
/// of it, or the nearest from below.
fn window(rate: &Rate) -> (u64, u64) {
    let period = u128::from(nanos(rate.period()).max(1));
    let count = u128::from(rate.count());
    let second = u128::from(SECOND);
    let whole = second / gcd(period, second);
    let (quota, window) = match whole {
        times @ ..=1_000 => (count * times, period * times / second),
        _ => {
            let window = period.div_ceil(second);
            (count * window * second / period, window)
        }
    };
    let clamp = |integer: u128| u64::try_from(integer).unwrap_or(u64::MAX).min(MAX_INTEGER);
    (clamp(quota), clamp(window).max(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
                Rate::new(3, Duration::from_nanos(3_001_000_000)),
                (3_000, 3_001),
            ),
            // No multiple of these is whole, or none that is short: what comes nearest from below.
            (Rate::new(1, Duration::from_nanos(1)), (1_000_000_000, 1)),
            (
                Rate::new(1_000, Duration::from_nanos(1_500_000_001)),
                (1_333, 2),
            ),
            (
                Rate::new(u64::MAX, Duration::from_secs(1)),
                (999_999_999_999_999, 1),
            ),
            (Rate::per_second(0), (0, 1)),
        ];
        for (rate, expected) in table {
            assert_eq!(window(&rate), expected, "{rate:?}");
        }
    }

    #[test]
    fn of_a_closed_rate_nothing_is_told_but_its_window() {
        let closed = Rate::per_minute(60).burst(0);
        assert_eq!(
            count_and_window(&LimitSettings::Rate(closed)),
            (0, Some(60))
        );
        assert_eq!(
            count_and_window(&LimitSettings::Tokens(Rate::per_minute(60))),
            (60, Some(60))
        );
    }
}
