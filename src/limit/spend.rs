//! An amount of money in a time.

use std::{borrow::Cow, fmt, time::Duration};

use super::{
    amount::{Amount, AmountError, millionths},
    meter::Meter,
    quota::{Quota, Window},
    rate::Rate,
};

/// An amount of money that requests may cost in a time, by [`Prices`](crate::Prices): in a window of the calendar, or
/// as a rate.
///
/// ```
/// use tower_throttle::{Limits, Spend};
///
/// let monthly = Limits::new().spend(Spend::per_month("250.00"));
/// let paced = Limits::new().spend(Spend::per_hour("2.00").burst("10.00").named("budget"));
/// # let _ = (monthly, paced);
/// ```
///
/// Amounts are decimal text in units of any currency, that of the prices, with at most six decimals.
///
/// [`per_month`](Self::per_month), [`per_week`](Self::per_week) and [`per_day`](Self::per_day) are windows in UTC, as
/// those of a [`Quota`]. [`per_hour`](Self::per_hour), [`per_minute`](Self::per_minute) and
/// [`per_second`](Self::per_second) are rates, whose bucket holds the [burst](Self::burst) and is refilled evenly, as
/// that of a [`Rate`].
///
/// # Zero and the maximum
///
/// Zero is a **closed** limit: it refuses every request. At most 2,419,200,000 units fit into a month, 604,800,000 into
/// a week and 86,400,000 into a day. A rate is at most 1,000 units a second, and is rounded down: a millionth of a unit
/// takes a whole number of nanoseconds, so that a rate of one unit a second is at most 0.1 % lower than stated, and one
/// of ten units 1 %.
///
/// # Errors
///
/// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses larger amounts, a burst in a window, text that is no
/// decimal number or a negative one, and more than six decimals.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Spend {
    terms: SpendTerms,
    fault: Option<SpendFault>,
}

/// The limit that counts millionths of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SpendTerms {
    Window(Quota),
    Rate(Rate),
}

/// An amount that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpendFault {
    /// The amount as it was written.
    pub(crate) amount: String,
    pub(crate) reason: SpendFaultReason,
}

/// The reason for which an amount cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpendFaultReason {
    Amount(AmountError),
    BurstInWindow,
    AboveWindow { most: u64 },
    AboveRate,
}

impl fmt::Display for SpendFaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amount(fault) => fault.fmt(f),
            Self::BurstInWindow => {
                f.write_str("is a burst, which a day, week or month does not have")
            }
            Self::AboveWindow { most } => {
                write!(f, "is above {}, the most in this window", Amount(*most))
            }
            Self::AboveRate => f.write_str("is above 1000.00 a second, the highest rate"),
        }
    }
}

impl Spend {
    #[cfg(feature = "config")]
    pub(crate) const SECOND: Duration = Duration::from_secs(1);
    #[cfg(feature = "config")]
    pub(crate) const MINUTE: Duration = Duration::from_secs(60);

    fn of_window(amount: &str, quota: fn(u64) -> Quota) -> Self {
        Self::of(amount, |amount| SpendTerms::Window(quota(amount)))
    }

    fn of_rate(amount: &str, rate: fn(u64) -> Rate) -> Self {
        Self::of(amount, |amount| SpendTerms::Rate(rate(amount)))
    }

    fn of(text: &str, terms: impl Fn(u64) -> SpendTerms) -> Self {
        let amount = millionths(text);
        let fault = |reason| SpendFault {
            amount: text.to_owned(),
            reason,
        };
        let terms = terms(amount.unwrap_or(0));
        Self {
            fault: match amount {
                Err(error) => Some(fault(SpendFaultReason::Amount(error))),
                Ok(_) => terms.fault().map(fault),
            },
            terms,
        }
    }

    /// Creates an amount in each calendar month, in UTC.
    pub fn per_month(amount: impl AsRef<str>) -> Self {
        Self::of_window(amount.as_ref(), Quota::per_month)
    }

    /// Creates an amount in each week, from Monday to Sunday UTC.
    pub fn per_week(amount: impl AsRef<str>) -> Self {
        Self::of_window(amount.as_ref(), Quota::per_week)
    }

    /// Creates an amount in each day, from midnight to midnight UTC.
    pub fn per_day(amount: impl AsRef<str>) -> Self {
        Self::of_window(amount.as_ref(), Quota::per_day)
    }

    /// Creates a rate of an amount in each hour.
    pub fn per_hour(amount: impl AsRef<str>) -> Self {
        Self::of_rate(amount.as_ref(), Rate::per_hour)
    }

    /// Creates a rate of an amount in each minute.
    pub fn per_minute(amount: impl AsRef<str>) -> Self {
        Self::of_rate(amount.as_ref(), Rate::per_minute)
    }

    /// Creates a rate of an amount in each second.
    pub fn per_second(amount: impl AsRef<str>) -> Self {
        Self::of_rate(amount.as_ref(), Rate::per_second)
    }

    /// Sets the amount that a full bucket of a rate holds. Default: the amount of the rate. An error for a day, a week
    /// or a month.
    pub fn burst(mut self, amount: impl AsRef<str>) -> Self {
        let text = amount.as_ref();
        let burst = millionths(text);
        let reason = match (self.terms, burst) {
            (SpendTerms::Rate(rate), burst) => {
                self.terms = SpendTerms::Rate(rate.burst(burst.unwrap_or(0)));
                burst.err().map(SpendFaultReason::Amount)
            }
            (window, _) => {
                self.terms = window;
                Some(SpendFaultReason::BurstInWindow)
            }
        };
        let fault = reason.map(|reason| SpendFault {
            amount: text.to_owned(),
            reason,
        });
        self.fault = self.fault.or(fault);
        self
    }

    /// Sets the name of this limit in header fields, answers, metrics and logs: 1 to 64 of `A-Z a-z 0-9 _`.
    ///
    /// By default it is named after its scope, route key and kind: see [`Limits::named`](crate::Limits::named).
    ///
    /// # Errors
    ///
    /// Those of [`Rate::named`].
    pub fn named(self, name: impl Into<Cow<'static, str>>) -> Self {
        self.map(
            |quota, name| quota.named(name),
            |rate, name| rate.named(name),
            name.into(),
        )
    }

    /// Turns this limit into a shadow: see [`Rate::shadow`].
    pub fn shadow(self) -> Self {
        self.map(|quota, ()| quota.shadow(), |rate, ()| rate.shadow(), ())
    }

    /// Returns whether this limit is a shadow, which reports but never refuses.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        match &self.terms {
            SpendTerms::Window(quota) => quota.is_shadow(),
            SpendTerms::Rate(rate) => rate.is_shadow(),
        }
    }

    /// Returns the amount in a window, or in each period of a rate, in millionths of a unit.
    #[must_use]
    pub fn millionths(&self) -> u64 {
        match &self.terms {
            SpendTerms::Window(quota) => quota.count(),
            SpendTerms::Rate(rate) => rate.count(),
        }
    }

    /// Returns the amount that a full bucket holds, in millionths of a unit: the burst of a rate, or the amount of a
    /// window.
    #[must_use]
    pub fn burst_millionths(&self) -> u64 {
        match &self.terms {
            SpendTerms::Window(quota) => quota.count(),
            SpendTerms::Rate(rate) => rate.burst_limit(),
        }
    }

    /// Returns the time that the amount refers to. A month counts as 31 days, the longest.
    #[must_use]
    pub fn period(&self) -> Duration {
        match &self.terms {
            SpendTerms::Window(quota) => quota.window(),
            SpendTerms::Rate(rate) => rate.period(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.millionths() == 0 || self.burst_millionths() == 0
    }

    /// Returns the fault of an amount, if there is one.
    pub(crate) fn fault(&self) -> Option<&SpendFault> {
        self.fault.as_ref()
    }

    /// Returns the limit that counts millionths of a unit.
    pub(crate) fn terms(&self) -> &SpendTerms {
        &self.terms
    }

    /// Returns the rate, if it is none of the calendar.
    pub(crate) fn rate(&self) -> Option<&Rate> {
        match &self.terms {
            SpendTerms::Rate(rate) => Some(rate),
            SpendTerms::Window(_) => None,
        }
    }

    /// Returns the window of the calendar, or the period of a rate.
    pub(crate) fn window(&self) -> Window {
        match &self.terms {
            SpendTerms::Window(quota) => quota.kind(),
            SpendTerms::Rate(rate) => Window::Every(rate.period()),
        }
    }

    /// Returns one of `shares` equal shares.
    pub(crate) fn share(&self, shares: u32) -> Self {
        self.clone().map(
            |quota, shares| quota.share(shares),
            |rate, shares| rate.share(shares),
            shares,
        )
    }

    pub(crate) fn unnamed(self) -> Self {
        self.map(|quota, ()| quota.unnamed(), |rate, ()| rate.unnamed(), ())
    }

    pub(crate) fn name(&self) -> Option<&str> {
        match &self.terms {
            SpendTerms::Window(quota) => quota.name(),
            SpendTerms::Rate(rate) => rate.name(),
        }
    }

    fn map<T>(
        self,
        window: impl FnOnce(Quota, T) -> Quota,
        rate: impl FnOnce(Rate, T) -> Rate,
        value: T,
    ) -> Self {
        Self {
            terms: match self.terms {
                SpendTerms::Window(quota) => SpendTerms::Window(window(quota, value)),
                SpendTerms::Rate(own) => SpendTerms::Rate(rate(own, value)),
            },
            ..self
        }
    }
}

impl SpendTerms {
    /// Returns the meter. `None` if the limit is closed or its figures are out of range.
    pub(crate) fn meter(&self) -> Option<Meter> {
        match self {
            Self::Window(quota) => Meter::of_quota(quota),
            Self::Rate(rate) => Meter::of_rate(rate),
        }
    }

    /// Returns the reason for which the amount cannot be kept, if it is too large.
    fn fault(&self) -> Option<SpendFaultReason> {
        match self {
            Self::Window(quota) => {
                let most = u64::try_from(quota.shortest().as_nanos()).unwrap_or(u64::MAX);
                (quota.count() > most).then_some(SpendFaultReason::AboveWindow { most })
            }
            Self::Rate(rate) => {
                let is_above = u128::from(rate.count()) > rate.period().as_nanos();
                is_above.then_some(SpendFaultReason::AboveRate)
            }
        }
    }
}

impl fmt::Display for Spend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = Amount(self.millionths());
        match &self.terms {
            SpendTerms::Window(quota) => write!(f, "{amount} spent in {}", quota.kind()),
            SpendTerms::Rate(rate) => {
                let burst = Amount(rate.burst_limit());
                write!(f, "{amount} spent in {:?}, burst {burst}", rate.period())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_quota_or_a_rate_of_millionths() {
        let table = [
            (Spend::per_month("250.00"), "250.00 spent in a month"),
            (Spend::per_week("0.5"), "0.50 spent in a week"),
            (Spend::per_day("1"), "1.00 spent in a day"),
            (
                Spend::per_hour("2").burst("10"),
                "2.00 spent in 3600s, burst 10.00",
            ),
            (
                Spend::per_minute("0.000001"),
                "0.000001 spent in 60s, burst 0.000001",
            ),
            (Spend::per_second("3"), "3.00 spent in 1s, burst 3.00"),
        ];
        for (spend, text) in table {
            assert_eq!(spend.to_string(), text);
            assert_eq!(spend.fault(), None, "{text}");
            assert!(spend.terms().meter().is_some(), "{text}");
        }
        let hourly = Spend::per_hour("2").burst("10");
        assert_eq!(hourly.millionths(), 2_000_000);
        assert_eq!(hourly.burst_millionths(), 10_000_000);
        assert_eq!(hourly.period(), Duration::from_secs(3_600));
        let named = hourly.clone().named("budget").shadow();
        assert!(named.is_shadow() && named.name() == Some("budget"));
        assert_eq!(named.unnamed(), hourly.shadow());
        assert!(Spend::per_day("0").is_closed() && Spend::per_hour("1").burst("0").is_closed());
    }

    #[test]
    fn the_largest_amounts_fit_and_what_is_above_is_refused() {
        let fits = [
            Spend::per_month("2419200000"),
            Spend::per_week("604800000"),
            Spend::per_day("86400000"),
            Spend::per_hour("3600000"),
            Spend::per_minute("60000"),
            Spend::per_second("1000"),
        ];
        for spend in fits {
            assert_eq!(spend.fault(), None, "{spend}");
            assert!(spend.terms().meter().is_some(), "{spend}");
        }
        let fault = |spend: Spend| {
            let fault = spend.fault().expect("it is too large");
            format!("`{}` {}", fault.amount, fault.reason)
        };
        let most = "the most in this window";
        assert_eq!(
            fault(Spend::per_month("2419200000.000001")),
            format!("`2419200000.000001` is above 2419200000.00, {most}")
        );
        assert_eq!(
            fault(Spend::per_week("604800001")),
            format!("`604800001` is above 604800000.00, {most}")
        );
        assert_eq!(
            fault(Spend::per_day("86400001")),
            format!("`86400001` is above 86400000.00, {most}")
        );
        for spend in [
            Spend::per_hour("3600000.01"),
            Spend::per_minute("60000.01"),
            Spend::per_second("1000.01"),
        ] {
            assert!(fault(spend).ends_with("is above 1000.00 a second, the highest rate"));
        }
    }

    #[test]
    fn the_first_fault_is_kept() {
        let fault = |spend: Spend| spend.fault().cloned();
        let spend = Spend::per_hour("ten").burst("-1").named("a").shadow();
        assert_eq!(
            fault(spend),
            Some(SpendFault {
                amount: "ten".to_owned(),
                reason: SpendFaultReason::Amount(AmountError::Unreadable),
            })
        );
        let in_window = fault(Spend::per_day("1").burst("2")).expect("no burst");
        assert_eq!(in_window.reason, SpendFaultReason::BurstInWindow);
    }
}
