//! From a policy to its limit.

use std::time::Duration;

use super::{
    element::{Element, brief},
    key::{ClientSource, CounterKey},
    policy_limits::{PolicyLimit, PolicyLimits},
    window,
};
use crate::{
    config::ConfigError,
    limit::{in_flight::InFlight, rate::Rate},
};

pub(super) fn rate_limit(policy: Element<'_>, found: &mut PolicyLimits) -> Result<(), ConfigError> {
    let rate = rate(policy, found)?;
    let key = CounterKey::Client(ClientSource::subscription());
    found.add(policy, "", key, PolicyLimit::Rate(rate))
}

pub(super) fn rate_limit_by_key(
    policy: Element<'_>,
    found: &mut PolicyLimits,
) -> Result<(), ConfigError> {
    let key = counter_key(policy)?;
    let rate = rate(policy, found)?;
    found.add(policy, "counter-key", key, PolicyLimit::Rate(rate))
}

fn rate(policy: Element<'_>, found: &mut PolicyLimits) -> Result<Rate, ConfigError> {
    const LONGEST: u32 = 300;
    let calls = count(policy, "calls", found)?;
    let period = policy.required("renewal-period")?;
    if period == 0 {
        let fault = "0 is not a period; write at least 1 second";
        return Err(policy.refuse("renewal-period", fault));
    }
    if period > LONGEST {
        let longer = format!("API Management accepts at most {LONGEST}; {period} is used here");
        found.warn(policy.warning("renewal-period", longer));
    }
    Ok(Rate::new(calls.into(), Duration::from_secs(period.into())))
}

pub(super) fn quota(policy: Element<'_>, found: &mut PolicyLimits) -> Result<(), ConfigError> {
    let (calls, period) = volume(policy, found)?;
    let (quota, _) = window::quota(calls, period, window::FIRST);
    let begin = "windows are the same for all clients and do not begin with the subscription";
    found.warn(policy.warning("renewal-period", begin));
    let key = CounterKey::Client(ClientSource::subscription());
    found.add(policy, "", key, PolicyLimit::Quota(quota))
}

pub(super) fn quota_by_key(
    policy: Element<'_>,
    found: &mut PolicyLimits,
) -> Result<(), ConfigError> {
    const START: &str = "first-period-start";
    let key = counter_key(policy)?;
    let (calls, period) = volume(policy, found)?;
    let first = match policy.text(START) {
        None => window::FIRST,
        Some(text) => window::moment(policy.constant(START, &text)?).ok_or_else(|| {
            let fault = format!(
                "`{}` is not a moment such as `2026-11-23T00:00:00Z`",
                brief(&text)
            );
            policy.refuse(START, fault)
        })?,
    };
    let (quota, late) = window::quota(calls, period, first);
    if late != 0 {
        let early = format!(
            "windows begin {late} s earlier here, or {} s later",
            i64::from(period) - late
        );
        found.warn(policy.warning(START, early));
    }
    found.add(policy, "counter-key", key, PolicyLimit::Quota(quota))
}

/// The calls in a quota's period.
fn volume(policy: Element<'_>, found: &mut PolicyLimits) -> Result<(u32, u32), ConfigError> {
    const SHORTEST: u32 = 300;
    if policy.text("bandwidth").is_some() {
        let fault = "bytes are not counted; remove the attribute, and limit `calls`";
        return Err(policy.refuse("bandwidth", fault));
    }
    let calls = count(policy, "calls", found)?;
    let period = policy.required("renewal-period")?;
    if period == 0 {
        let fault =
            "0 is a quota for a lifetime, but balances do not outlive the process; write seconds";
        return Err(policy.refuse("renewal-period", fault));
    }
    if period < SHORTEST {
        let shorter = format!("API Management accepts at least {SHORTEST}; {period} is used here");
        found.warn(policy.warning("renewal-period", shorter));
    }
    Ok((calls, period))
}

/// By what is counted, and that each request counts one.
fn counter_key(policy: Element<'_>) -> Result<CounterKey, ConfigError> {
    let key = policy.key("counter-key")?;
    let condition = policy.text("increment-condition");
    if let Some(condition) = condition.filter(|text| !matches!(&**text, "true" | "@(true)")) {
        let fault = format!(
            "`{}`: every request counts, whatever its answer; remove the attribute",
            brief(&condition)
        );
        return Err(policy.refuse("increment-condition", fault));
    }
    match policy.number("increment-count")? {
        None | Some(1) => Ok(key),
        Some(count) => {
            let fault = format!(
                "{count}: each request counts one; remove the attribute, and write `calls` in requests"
            );
            Err(policy.refuse("increment-count", fault))
        }
    }
}

pub(super) fn limit_concurrency(
    policy: Element<'_>,
    found: &mut PolicyLimits,
) -> Result<(), ConfigError> {
    let key = policy.key("key")?;
    let cap = InFlight::new(count(policy, "max-count", found)?.into());
    let serves = |inside: Element<'_>| matches!(inside.name(), "forward-request" | "base");
    if !policy.descendants().any(serves) {
        let longer =
            "a slot is held until the response has ended, not only while the inner policies run";
        found.warn(policy.warning("", longer));
    }
    found.add(policy, "key", key, PolicyLimit::InFlight(cap))
}

pub(super) fn token_limit(
    policy: Element<'_>,
    found: &mut PolicyLimits,
) -> Result<(), ConfigError> {
    const ESTIMATE: &str = "estimate-prompt-tokens";
    for attribute in ["token-quota", "token-quota-period"] {
        if policy.text(attribute).is_some() {
            let fault = "a quota counts requests here, not model tokens; remove the attribute, and limit \
                         `tokens-per-minute`";
            return Err(policy.refuse(attribute, fault));
        }
    }
    let key = policy.key("counter-key")?;
    let tokens = count(policy, "tokens-per-minute", found)?;
    let text = policy
        .text(ESTIMATE)
        .ok_or_else(|| policy.missing(ESTIMATE))?;
    let estimated = match policy.constant(ESTIMATE, &text)? {
        "true" => true,
        "false" => false,
        other => {
            let fault = format!("`{}` is neither `true` nor `false`", brief(other));
            return Err(policy.refuse(ESTIMATE, fault));
        }
    };
    found.estimate(policy, ESTIMATE, estimated);
    let rate = Rate::per_minute(tokens.into());
    found.add(policy, "counter-key", key, PolicyLimit::Tokens(rate))
}

/// Reads a count, and warns of zero, by which nothing passes.
fn count(
    policy: Element<'_>,
    attribute: &str,
    found: &mut PolicyLimits,
) -> Result<u32, ConfigError> {
    let count = policy.required(attribute)?;
    if count == 0 {
        found.warn(policy.warning(attribute, "0: every request is refused"));
    }
    Ok(count)
}
