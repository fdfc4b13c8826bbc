//! The limits of one scope.

use std::time::Duration;

use super::{
    money::spend,
    words::{name_and_shadow, one_of},
};
use crate::{
    config::{
        document::{Cursor, TableReader, Value},
        error::ConfigError,
    },
    limit::{
        in_flight::InFlight,
        limits::{Access, Degrade, Limits},
        quantity::{self, Decimal},
        quota::Quota,
        rate::{Rate, RateParseError},
    },
};

pub(super) const ACCESS: [(&str, Access); 3] = [
    ("unlimited", Access::Unlimited),
    ("closed", Access::Closed),
    ("exempt", Access::Exempt),
];

/// `"unlimited"`, `"closed"`, `"exempt"`, a rate, or a table.
pub(super) fn limits(place: &Cursor<'_>) -> Result<Limits, ConfigError> {
    if let Value::Map(_) = place.value() {
        let mut fields = place.fields()?;
        let limits = limits_of(&mut fields)?;
        fields.end()?;
        return Ok(limits);
    }
    short(place)
}

/// Limits that are no table.
pub(super) fn short(place: &Cursor<'_>) -> Result<Limits, ConfigError> {
    match place.value() {
        Value::Text(text) if text == "unlimited" => Ok(Limits::unlimited()),
        Value::Text(text) if text == "closed" => Ok(Limits::closed()),
        Value::Text(text) if text == "exempt" => Ok(Limits::exempt()),
        Value::Text(text) if !text.contains(|c: char| c.is_ascii_digit()) => {
            Err(place.fault(format!(
                "`{text}` is not `unlimited`, `closed`, `exempt` or a rate such as `600/minute`"
            )))
        }
        Value::Number(_) | Value::Text(_) => Ok(steady(place)?.into()),
        _ => Err(place.expected("a rate, `unlimited`, `closed`, `exempt` or a table")),
    }
}

/// The settings of limits, in a table that may have others.
pub(super) fn limits_of(fields: &mut TableReader<'_>) -> Result<Limits, ConfigError> {
    let mut limits = match fields.get("access") {
        None => Limits::new(),
        Some(access) => Limits {
            access: one_of(&access, &ACCESS)?,
            ..Limits::new()
        },
    };
    let burst = fields.get("burst");
    match (fields.get("rate"), burst) {
        (Some(rate), Some(burst)) => match rate.value() {
            // The short form: both settings stand in the scope itself.
            Value::Number(_) | Value::Text(_) => {
                limits = limits.rate(steady(&rate)?.burst(burst.count()?));
            }
            _ => {
                return Err(burst.fault(
                    "is allowed only beside a rate that is a number or a string; write it into the table of the rate",
                ));
            }
        },
        (Some(rates), None) => {
            for rate in rates.each(rate)? {
                limits = limits.rate(rate);
            }
        }
        (None, Some(burst)) => {
            return Err(burst.fault("a burst without a rate; write `rate` beside it"));
        }
        (None, None) => {}
    }
    if let Some(quotas) = fields.get("quota") {
        for quota in quotas.each(quota)? {
            limits = limits.quota(quota);
        }
    }
    if let Some(rates) = fields.get("tokens") {
        for rate in rates.each(rate)? {
            limits = limits.tokens(rate);
        }
    }
    if let Some(rates) = fields.get("input_tokens") {
        for rate in rates.each(rate)? {
            limits = limits.input_tokens(rate);
        }
    }
    if let Some(rates) = fields.get("output_tokens") {
        for rate in rates.each(rate)? {
            limits = limits.output_tokens(rate);
        }
    }
    if let Some(amounts) = fields.get("spend") {
        for amount in amounts.each(spend)? {
            limits = limits.spend(amount);
        }
    }
    if let Some(caps) = fields.get("in_flight") {
        for cap in caps.each(in_flight)? {
            limits = limits.in_flight(cap);
        }
    }
    if let Some(wait) = fields.get("max_wait") {
        limits = limits.max_wait(duration(&wait)?);
    }
    if let Some(most) = fields.get("max_waiting") {
        let requests = usize::try_from(most.count()?).unwrap_or(usize::MAX);
        limits = limits.max_waiting(requests);
    }
    if let Some(name) = fields.get("name") {
        limits = limits.named(name.text()?.to_owned());
    }
    if let Some(publish) = fields.get("publish") {
        limits = limits.publish(publish.flag()?);
    }
    if let Some(most) = fields.get("max_tokens_per_request") {
        limits = limits.max_tokens_per_request(most.count()?);
    }
    if let Some(cost) = fields.get("cost") {
        limits = limits.cost(cost.count()?);
    }
    if let Some(keep) = fields.get("keep") {
        limits = limits.keep(keep.flag()?);
    }
    if let Some(refund) = fields.get("refund_failures") {
        limits = limits.refund_failures(refund.flag()?);
    }
    if let Some(read) = fields.get("usage_from_answers") {
        limits = limits.usage_from_answers(read.flag()?);
    }
    if let Some(second) = fields.get("degrade") {
        limits = limits.degrade(degrade(&second)?);
    }
    if let Some(part) = fields.get("max_reservation_percent") {
        limits = limits.max_reservation_percent(percent(&part, "of a burst")?);
    }
    if let Some(weight) = fields.get("cached_input_percent") {
        limits = limits.cached_input_percent(percent(&weight, "of a token")?);
    }
    Ok(limits)
}

/// `0` to `100`.
fn percent(place: &Cursor<'_>, whole: &str) -> Result<u8, ConfigError> {
    let part = u8::try_from(place.count()?).ok();
    let part = part.filter(|part| *part <= 100);
    part.ok_or_else(|| place.fault(format!("more than 100 percent {whole}; write 0 to 100")))
}

/// A second budget: limits, and the wait above which it is used.
fn degrade(place: &Cursor<'_>) -> Result<Degrade, ConfigError> {
    let Value::Map(_) = place.value() else {
        return Ok(steady(place)?.into());
    };
    let mut fields = place.fields()?;
    let other = [
        "access",
        "max_wait",
        "max_waiting",
        "cost",
        "keep",
        "refund_failures",
        "usage_from_answers",
        "degrade",
    ];
    if let Some(other) = other.iter().find_map(|name| place.peek(name)) {
        return Err(other.fault("is no setting of a second budget; write it beside `degrade`"));
    }
    let second = Degrade::new(limits_of(&mut fields)?);
    let after = fields.get("after").map(|wait| duration(&wait));
    fields.end()?;
    Ok(match after.transpose()? {
        Some(wait) => second.after(wait),
        None => second,
    })
}

/// `10`, `0.5`, `"600/minute"`, or a table with its burst.
fn rate(place: &Cursor<'_>) -> Result<Rate, ConfigError> {
    let Value::Map(_) = place.value() else {
        return steady(place);
    };
    let mut fields = place.fields()?;
    let Some(steady_state) = fields.get("rate") else {
        return Err(place.fault("a rate without `rate`; write one such as `600/minute`"));
    };
    let mut rate = steady(&steady_state)?;
    if let Some(burst) = fields.get("burst") {
        rate = rate.burst(burst.count()?);
    }
    let (name, shadow) = name_and_shadow(&mut fields)?;
    fields.end()?;
    if let Some(name) = name {
        rate = rate.named(name);
    }
    Ok(if shadow { rate.shadow() } else { rate })
}

/// A steady-state rate, as [`Rate`] reads it from text. A number is one a second.
fn steady(place: &Cursor<'_>) -> Result<Rate, ConfigError> {
    match place.value() {
        Value::Number(text) | Value::Text(text) => {
            let rate = text.parse();
            rate.map_err(|error: RateParseError| place.fault(error.to_string()))
        }
        _ => Err(place.expected("a rate such as 10 or `\"600/minute\"`")),
    }
}

/// `"10000/day"`, or a table with its name.
fn quota(place: &Cursor<'_>) -> Result<Quota, ConfigError> {
    let Value::Map(_) = place.value() else {
        return window(place);
    };
    let mut fields = place.fields()?;
    let Some(count) = fields.get("quota") else {
        return Err(place.fault("a quota without `quota`; write one such as `10000/day`"));
    };
    let mut quota = window(&count)?;
    let (name, shadow) = name_and_shadow(&mut fields)?;
    fields.end()?;
    if let Some(name) = name {
        quota = quota.named(name);
    }
    Ok(if shadow { quota.shadow() } else { quota })
}

/// A count, and the window of the calendar that it holds for.
fn window(place: &Cursor<'_>) -> Result<Quota, ConfigError> {
    let text = match place.value() {
        Value::Text(text) => text,
        Value::Number(number) => {
            return Err(place.fault(format!(
                "expected a quota, found a number; write it with its window, such as `\"{number}/day\"`"
            )));
        }
        _ => return Err(place.expected("a quota such as `\"10000/day\"`")),
    };
    let quota = text.split_once('/').and_then(|(count, window)| {
        let count = count.trim().replace('_', "").parse().ok()?;
        Some(match window.trim() {
            "day" => Quota::per_day(count),
            "week" => Quota::per_week(count),
            "month" => Quota::per_month(count),
            window => Quota::per(count, quantity::duration(window)?),
        })
    });
    quota.ok_or_else(|| {
        place.fault(format!(
            "`{text}` is not a quota; write a number per window, such as `10000/day`, `5000/month` or `100/6h`"
        ))
    })
}

/// `8`, or a table with its name.
fn in_flight(place: &Cursor<'_>) -> Result<InFlight, ConfigError> {
    let Value::Map(_) = place.value() else {
        return Ok(InFlight::new(place.count()?));
    };
    let mut fields = place.fields()?;
    let Some(max) = fields.get("max") else {
        return Err(place.fault("a cap without `max`; write the number of requests in flight"));
    };
    let mut cap = InFlight::new(max.count()?);
    let (name, shadow) = name_and_shadow(&mut fields)?;
    fields.end()?;
    if let Some(name) = name {
        cap = cap.named(name);
    }
    Ok(if shadow { cap.shadow() } else { cap })
}

fn duration(place: &Cursor<'_>) -> Result<Duration, ConfigError> {
    let text = match place.value() {
        Value::Text(text) => text,
        Value::Number(number) => {
            return Err(place.fault(format!(
                "expected a duration, found a number; write `\"{number}s\"` for seconds"
            )));
        }
        _ => return Err(place.expected("a duration such as `\"2s\"`")),
    };
    quantity::duration(text).ok_or_else(|| {
        place.fault(match Decimal::parse(text) {
            Some(_) => format!("`{text}` is not a duration; write `\"{text}s\"` for seconds"),
            None => {
                format!("`{text}` is not a duration; write one such as `\"500ms\"` or `\"2s\"`")
            }
        })
    })
}
