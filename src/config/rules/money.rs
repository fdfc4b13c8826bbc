//! Amounts of money in a time.

use super::words::name_and_shadow;
use crate::{
    config::{
        document::{Cursor, Value},
        error::ConfigError,
    },
    limit::spend::{Spend, SpendFault},
};

/// A text. A number would be rounded.
pub(super) fn amount<'a>(place: &Cursor<'a>) -> Result<&'a str, ConfigError> {
    match place.value() {
        Value::Text(text) => Ok(text),
        Value::Number(number) => Err(place.fault(format!(
            "expected an amount of money, found a number; write it as text, such as `\"{number}\"`"
        ))),
        _ => Err(place.expected("an amount of money such as `\"2.50\"`")),
    }
}

/// `"250.00 per month"`, or a table with its burst and its name.
pub(super) fn spend(place: &Cursor<'_>) -> Result<Spend, ConfigError> {
    let Value::Map(_) = place.value() else {
        return kept(place, spend_text(place)?);
    };
    let mut fields = place.fields()?;
    let Some(text) = fields.get("spend") else {
        return Err(place.fault("an amount without `spend`; write one such as `250.00 per month`"));
    };
    let mut spend = kept(&text, spend_text(&text)?)?;
    if let Some(burst) = fields.get("burst") {
        spend = kept(&burst, spend.burst(amount(&burst)?))?;
    }
    let (name, shadow) = name_and_shadow(&mut fields)?;
    fields.end()?;
    if let Some(name) = name {
        spend = spend.named(name);
    }
    Ok(if shadow { spend.shadow() } else { spend })
}

fn kept(place: &Cursor<'_>, spend: Spend) -> Result<Spend, ConfigError> {
    match spend.fault() {
        None => Ok(spend),
        Some(SpendFault { amount, reason }) => Err(place.fault(format!("`{amount}` {reason}"))),
    }
}

fn spend_text(place: &Cursor<'_>) -> Result<Spend, ConfigError> {
    let text = amount(place)?;
    let spend = text.split_once(" per ").and_then(|(amount, window)| {
        let of = match window.trim() {
            "month" => Spend::per_month,
            "week" => Spend::per_week,
            "day" => Spend::per_day,
            "hour" => Spend::per_hour,
            "minute" => Spend::per_minute,
            "second" => Spend::per_second,
            _ => return None,
        };
        Some(of(amount.trim()))
    });
    spend.ok_or_else(|| {
        place.fault(format!(
            "`{text}` is not an amount in a time; write one such as `250.00 per month`: per month, week, day, hour, \
             minute or second"
        ))
    })
}
