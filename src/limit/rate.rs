//! A steady-state rate and a burst.

use std::{borrow::Cow, str::FromStr, time::Duration};

use super::quantity::{self, Decimal};
use crate::error::debug_as_display;

/// A steady-state rate with a burst: a number of requests in each period, and a number at once.
///
/// A bucket holds `burst` requests, starts full and is refilled evenly at the rate. In any window of length `w` it
/// admits at most `burst - 1 + ⌈w × count / period⌉` requests, exactly.
///
/// The number is always a count per period, never a spacing: `Rate::per_second(10)` admits ten requests in each second.
///
/// ```
/// use std::time::Duration;
/// use tower_throttle::Rate;
///
/// let api_gateway_default = Rate::per_second(10_000).burst(5_000);
/// let every_two_seconds = Rate::new(1, Duration::from_secs(2));
/// assert_eq!(every_two_seconds.burst_limit(), 1);
///
/// // As in a configuration file. Fractions are exact.
/// let written: Rate = "0.5/s".parse()?;
/// assert_eq!(written, every_two_seconds);
/// # Ok::<(), tower_throttle::limit::RateParseError>(())
/// ```
///
/// # Zero and the maximum
///
/// A rate or a burst of zero is a **closed** limit, like a throttle of 0 in API Gateway: it refuses every request.
/// Zero is never a default: it must be written.
///
/// Rates are exact to the nanosecond. More than 1,000,000,000 a second count as one a nanosecond. A spacing that is not
/// a whole number of nanoseconds is rounded up, by less than one; this matters only for rates of hundreds of millions a
/// second.
///
/// An empty bucket must be full again within 2⁶² nanoseconds (146 years). A slower rate, a larger burst, and a period
/// of zero are errors of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Rate {
    count: u64,
    period: Duration,
    burst: Option<u64>,
    name: Option<Cow<'static, str>>,
    shadow: bool,
}

impl Rate {
    /// Creates a rate of `count` requests in each `period`.
    pub const fn new(count: u64, period: Duration) -> Self {
        Self {
            count,
            period,
            burst: None,
            name: None,
            shadow: false,
        }
    }

    /// Creates a rate of `count` requests in each second.
    pub const fn per_second(count: u64) -> Self {
        Self::new(count, Duration::from_secs(1))
    }

    /// Creates a rate of `count` requests in each minute.
    pub const fn per_minute(count: u64) -> Self {
        Self::new(count, Duration::from_secs(60))
    }

    /// Creates a rate of `count` requests in each hour.
    pub const fn per_hour(count: u64) -> Self {
        Self::new(count, Duration::from_secs(60 * 60))
    }

    /// Creates a rate of `count` requests in each 24 hours, refilled evenly. For a count that starts again at midnight
    /// see [`Quota::per_day`](crate::Quota::per_day).
    pub const fn per_day(count: u64) -> Self {
        Self::new(count, Duration::from_secs(24 * 60 * 60))
    }

    /// Sets the number of requests that a full bucket admits at once.
    ///
    /// Default: the rate's count, and at least one unless the count is zero.
    pub const fn burst(mut self, burst: u64) -> Self {
        self.burst = Some(burst);
        self
    }

    /// Sets the name of this limit in header fields, answers, metrics and logs: 1 to 64 of `A-Z a-z 0-9 _`.
    ///
    /// By default it is named after its scope, route key and kind: see [`Limits::named`](crate::Limits::named).
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) returns an error for any other character, an empty name, a
    /// longer one, and a name that another limit was given.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Turns this limit into a shadow, which decides but never refuses, and for which no request waits.
    /// [`Decision::shadow`](crate::Decision::shadow) reports what it would have refused.
    ///
    /// A shadow has a bucket of its own. It is charged for each request that passes the enforced limits and finds room
    /// in it, so its reports are those of an enforced limit. It takes nothing from an enforced limit, and header fields
    /// do not show it.
    ///
    /// ```
    /// use tower_throttle::{Limits, Rate};
    ///
    /// // Shows which requests a stricter limit would refuse.
    /// let chat = Limits::new()
    ///     .rate(Rate::per_second(10))
    ///     .rate(Rate::per_second(5).named("stricter").shadow());
    /// # let _ = chat;
    /// ```
    pub const fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    /// Returns whether this limit is a shadow, which reports but never refuses.
    #[must_use]
    pub const fn is_shadow(&self) -> bool {
        self.shadow
    }

    /// Returns the number of requests per period.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the period that the count refers to.
    #[must_use]
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// Returns the number of requests that a full bucket holds.
    #[must_use]
    pub const fn burst_limit(&self) -> u64 {
        match self.burst {
            Some(burst) => burst,
            None => self.count,
        }
    }

    /// Returns whether this limit refuses every request, since its rate or burst is zero.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.count == 0 || self.burst_limit() == 0
    }

    /// Returns the burst if it was set.
    #[cfg(feature = "config")]
    pub(crate) fn given_burst(&self) -> Option<u64> {
        self.burst
    }

    /// Returns one of `shares` equal shares.
    pub(crate) fn share(&self, shares: u32) -> Self {
        let shares = shares.max(1);
        Self {
            period: self.period.saturating_mul(shares),
            burst: Some((self.burst_limit() / u64::from(shares)).max(1)),
            ..self.clone()
        }
    }

    pub(crate) fn unnamed(self) -> Self {
        Self { name: None, ..self }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// Parses a rate as in configuration files: a count, a slash and a period, such as `600/minute`, `0.5/s`, `3/2h` or
/// `1_000/day`. A count alone is per second.
///
/// Fractions are exact: `0.333/s` is 333 in 1,000 seconds. A number of more than twelve significant digits is read as
/// the simplest fraction within one part in 2⁵², so that a third as printed by a tool is a third. The burst is the
/// count as written, rounded up.
///
/// The units of a period are `ns`, `us`, `ms`, `s`, `m`, `h` and `d`, and their names, such as `second` and `minutes`.
impl FromStr for Rate {
    type Err = RateParseError;

    fn from_str(text: &str) -> Result<Self, RateParseError> {
        let (number, period) = match text.split_once('/') {
            Some((number, period)) => (number.trim(), quantity::duration(period.trim())),
            None => (text, Some(Duration::from_secs(1))),
        };
        let rate = Decimal::parse(number).zip(period);
        let rate = rate.and_then(|(number, period)| {
            let (count, period) = number.per(period)?;
            let rate = Self::new(count, period);
            Some(match number.ceil() {
                burst if burst == count => rate,
                burst => rate.burst(burst),
            })
        });
        rate.ok_or_else(|| RateParseError {
            text: text.to_owned(),
        })
    }
}

/// An error for a text that is not a [`Rate`].
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a rate; write a number per second, such as 10 or 0.5, or per period, such as `600/minute`"
)]
pub struct RateParseError {
    text: String,
}

debug_as_display!(RateParseError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_is_the_count_unless_given() {
        assert_eq!(Rate::per_second(10).burst_limit(), 10);
        assert_eq!(Rate::per_second(10).burst(5).burst_limit(), 5);
        assert_eq!(Rate::per_minute(600).period(), Duration::from_secs(60));
        assert_eq!(Rate::per_hour(1).period(), Duration::from_secs(3600));
    }

    #[test]
    fn a_text_is_read_as_files_write_it() {
        let seconds = Duration::from_secs;
        let table = [
            ("10", Rate::per_second(10)),
            ("600/minute", Rate::per_minute(600)),
            ("1_000 / day", Rate::per_day(1_000)),
            ("0.5/s", Rate::new(1, seconds(2))),
            ("2.5/s", Rate::new(5, seconds(2)).burst(3)),
            ("3/2h", Rate::new(3, seconds(7_200))),
            ("0/s", Rate::per_second(0)),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "/s", "10/", "ten/s", "-1/s", "10/fortnight", "1/s/s"] {
            let error = text.parse::<Rate>().expect_err(text);
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("`{text}` is not a rate"))
            );
            assert_eq!(format!("{error:?}"), error.to_string());
        }
    }

    #[test]
    fn zero_closes() {
        assert!(Rate::per_second(0).is_closed());
        assert!(Rate::per_second(0).burst(9).is_closed());
        assert!(Rate::per_second(9).burst(0).is_closed());
        assert!(!Rate::per_second(9).is_closed());
    }

    #[test]
    fn a_share_is_as_slow_as_there_are_shares_and_its_burst_a_part_and_never_nothing() {
        let rate = Rate::per_minute(100).burst(10).named("calls").shadow();
        for (shares, seconds, burst) in [(0, 60, 10), (1, 60, 10), (3, 180, 3), (11, 660, 1)] {
            let share = rate.share(shares);
            assert_eq!(share.count(), 100);
            assert_eq!(share.period(), Duration::from_secs(seconds), "of {shares}");
            assert_eq!(share.burst_limit(), burst, "of {shares}");
            assert_eq!(share.name(), Some("calls"));
            assert!(share.is_shadow());
        }
        assert_eq!(Rate::per_second(12).share(4).burst_limit(), 3);
    }

    #[test]
    fn it_is_a_shadow_and_has_a_name_if_it_was_told_so() {
        assert!(!Rate::per_second(1).is_shadow());
        assert_eq!(Rate::per_second(1).name(), None);
        let unnamed = Rate::per_second(1)
            .burst(2)
            .named("calls")
            .shadow()
            .unnamed();
        assert_eq!(unnamed, Rate::per_second(1).burst(2).shadow());
    }
}
