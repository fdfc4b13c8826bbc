//! A rate and a burst, each of which may be left out.

use std::time::Duration;

use super::resolved::resolved;
use crate::{
    config::{
        Warning,
        document::{Cursor, Value},
        error::ConfigError,
    },
    limit::{limits::Limits, quantity::Decimal, rate::Rate},
};

const SECOND: Duration = Duration::from_secs(1);

/// The throttling of a block of settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Throttling {
    pub(super) rate: Option<Decimal>,
    pub(super) burst: Option<u64>,
}

impl Throttling {
    pub(super) fn read(
        rate: Option<&Cursor<'_>>,
        burst: Option<&Cursor<'_>>,
    ) -> Result<Self, ConfigError> {
        let rate = rate.map(rate_of).transpose()?.flatten();
        let burst = burst.map(|burst| whole(burst, "burst")).transpose()?;
        let burst = burst.flatten();
        Ok(Self { rate, burst })
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// With what it leaves out taken from the default settings, as a warning says.
    pub(super) fn or(self, default: Self, place: &Cursor<'_>, warnings: &mut Vec<Warning>) -> Self {
        let mut warn = |what: &str| {
            let sentence = format!(
                "leaves out the {what}; that of the default route settings is used here, and that of the account in \
                 API Gateway"
            );
            warnings.push(Warning::new(place.path(), sentence));
        };
        if self.rate.is_none() && self.burst.is_some() && default.rate.is_some() {
            warn("rate");
        }
        if self.burst.is_none() && self.rate.is_some() && default.burst.is_some() {
            warn("burst");
        }
        Self {
            rate: self.rate.or(default.rate),
            burst: self.burst.or(default.burst),
        }
    }

    /// As limits. Of the two, one may be left out, but not the rate.
    pub(super) fn limits(
        self,
        place: &Cursor<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Limits>, ConfigError> {
        let mut warn = |sentence: String| warnings.push(Warning::new(place.path(), sentence));
        let zero = Decimal::parse("0");
        let (rate, burst) = match (self.rate, self.burst) {
            (None, None) => return Ok(None),
            (rate, burst) if burst == Some(0) || rate == zero => {
                warn("zero refuses every request".to_owned());
                return Ok(Some(Limits::closed()));
            }
            (None, Some(_)) => {
                return Err(place.fault("a burst without a rate; write a rate beside it"));
            }
            (Some(rate), Some(burst)) => (rate, burst),
            (Some(rate), None) => {
                let burst = rate.ceil();
                warn(format!(
                    "a rate without a burst gets a burst of {burst}; API Gateway uses its account's, or zero"
                ));
                (rate, burst)
            }
        };
        let steady = rate
            .per(SECOND)
            .map(|(count, period)| Rate::new(count, period));
        // The burst was checked when it was read.
        Ok(steady.map(|rate| rate.burst(burst).into()))
    }
}

fn rate_of(place: &Cursor<'_>) -> Result<Option<Decimal>, ConfigError> {
    let rate = amount(place)?;
    match rate.map(|rate| rate.per(SECOND)) {
        Some(None) => Err(place.fault(
            "a rate is at most 2^64 - 1 requests a second, and at least one in 2^64 - 1 seconds",
        )),
        _ => Ok(rate),
    }
}

/// A whole number of requests. `None` for nothing.
pub(super) fn whole(place: &Cursor<'_>, what: &str) -> Result<Option<u64>, ConfigError> {
    let Some(decimal) = amount(place)? else {
        return Ok(None);
    };
    let whole = decimal.per(SECOND).filter(|(_, period)| *period == SECOND);
    match whole {
        Some((count, _)) => Ok(Some(count)),
        None => Err(place.fault(format!(
            "a {what} is a whole number of requests, from 0 to 2^64 - 1"
        ))),
    }
}

/// A number, which templates may write as a text. `None` for nothing.
fn amount(place: &Cursor<'_>) -> Result<Option<Decimal>, ConfigError> {
    resolved(place)?;
    let text = match place.value() {
        Value::Null => return Ok(None),
        Value::Number(text) | Value::Text(text) => text,
        _ => return Err(place.expected("a number")),
    };
    match Decimal::parse(text) {
        Some(decimal) => Ok(Some(decimal)),
        None if text.starts_with('-') => Err(place.fault(format!("`{text}` is below zero"))),
        None if text.parse::<f64>().is_ok_and(f64::is_finite) => {
            Err(place.fault(format!("the number `{text}` is too long or too small")))
        }
        None => Err(place.fault(format!("`{text}` is not a number"))),
    }
}
