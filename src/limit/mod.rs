//! The settings of one limit, as snapshots and decisions show them: its scope and its size.

// Settings of limits and their arithmetic, without storage and without a runtime. This file has one limit and its
// scope; `limits` has the settings of a whole scope.

pub(crate) mod calendar;
pub(crate) mod gcra;
pub(crate) mod in_flight;
pub(crate) mod limits;
pub(crate) mod meter;
pub(crate) mod model_class;
pub(crate) mod quantity;
pub(crate) mod quota;
pub(crate) mod rate;
pub(crate) mod reservation;
pub(crate) mod token_usage;
pub(crate) mod wait_policy;

use std::{fmt, mem::discriminant, sync::Arc};

pub use self::rate::RateParseError;

use self::{
    in_flight::InFlight,
    meter::Meter,
    quota::{Quota, Window},
    rate::Rate,
    reservation::Reservation,
    wait_policy::WaitPolicy,
};

/// Returns the greatest common divisor.
pub(crate) fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The scope of a limit: the requests that it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// All requests.
    Total,
    /// One route: a method and a path.
    Route,
    /// One model, of all clients.
    Model,
    /// One client, on all routes.
    Client,
    /// One client on one model.
    ClientOnModel,
    /// One client on one route.
    ClientOnRoute,
}

impl Scope {
    /// The larger, the more specific.
    pub(crate) fn specificity(self) -> u8 {
        match self {
            Self::Total => 0,
            Self::Route => 1,
            Self::Model => 2,
            Self::Client => 3,
            Self::ClientOnModel => 4,
            Self::ClientOnRoute => 5,
        }
    }
}

/// One limit: its settings and its name, without its balance.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) name: Arc<str>,
    /// True if a user gave the limit its name.
    pub(crate) is_named: bool,
    pub(crate) scope: Scope,
    pub(crate) settings: LimitSettings,
    /// `None`: closed.
    pub(crate) meter: Option<Meter>,
    pub(crate) published: bool,
    /// True if the limit decides and refuses nobody.
    pub(crate) shadow: bool,
    /// The longest wait and the largest number of requests that wait. `None` if no request may wait for this limit.
    pub(crate) wait_policy: Option<WaitPolicy>,
    /// The most that a request reserves of this limit, if the limit counts model tokens.
    pub(crate) reservation: Reservation,
}

/// The settings of a limit.
///
/// `Display` writes them briefly: `10 in 1s, burst 5`, `10000 in a day`, `90000 tokens in 60s, burst 90000`, `8 in
/// flight`, or `closed`, and then `shadow` if the limit is one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitSettings {
    /// A rate of requests.
    Rate(Rate),
    /// A number of requests in each window.
    Quota(Quota),
    /// A rate of model tokens.
    Tokens(Rate),
    /// A cap on requests in flight.
    InFlight(InFlight),
}

impl LimitSettings {
    /// Returns the meter of a limit with these settings. `None` if the limit is closed or its figures are out of range.
    pub(crate) fn meter(&self, reservation: Reservation) -> Option<Meter> {
        match self {
            Self::Rate(rate) => Meter::of_rate(rate),
            Self::Tokens(rate) => {
                let meter = Meter::of_rate(rate)?;
                Some(meter.admitting(reservation.max_tokens.unwrap_or(u64::MAX)))
            }
            Self::Quota(quota) => Meter::of_quota(quota),
            Self::InFlight(cap) => Meter::of_slots(cap.count()),
        }
    }

    fn share(&self, shares: u32) -> Self {
        match self {
            Self::Rate(rate) => Self::Rate(rate.share(shares)),
            Self::Tokens(rate) => Self::Tokens(rate.share(shares)),
            Self::Quota(quota) => Self::Quota(quota.share(shares)),
            Self::InFlight(_) => self.clone(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Rate(rate) | Self::Tokens(rate) => rate.is_closed(),
            Self::Quota(quota) => quota.count() == 0,
            Self::InFlight(cap) => cap.count() == 0,
        }
    }

    /// Returns whether both are of the same kind, and both are enforced or both are shadows.
    pub(crate) fn is_kind_of(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other) && self.is_shadow() == other.is_shadow()
    }

    /// Returns the period of a rate or the window of a quota. `None` for a cap in flight.
    pub(crate) fn window(&self) -> Option<Window> {
        match self {
            Self::Rate(rate) | Self::Tokens(rate) => Some(Window::Every(rate.period())),
            Self::Quota(quota) => Some(quota.kind()),
            Self::InFlight(_) => None,
        }
    }

    /// Returns the number of units that pass in a period, and the number that passes at once.
    pub(crate) fn size(&self) -> (u64, u64) {
        match self {
            Self::Rate(rate) | Self::Tokens(rate) => (rate.count(), rate.burst_limit()),
            Self::Quota(quota) => (quota.count(), quota.count()),
            Self::InFlight(cap) => (cap.count(), cap.count()),
        }
    }

    /// Returns whether this limit is a shadow, which reports but never refuses.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        match self {
            Self::Rate(rate) | Self::Tokens(rate) => rate.is_shadow(),
            Self::Quota(quota) => quota.is_shadow(),
            Self::InFlight(cap) => cap.is_shadow(),
        }
    }
}

impl fmt::Display for LimitSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            closed if closed.is_closed() => f.write_str("closed"),
            Self::Rate(rate) => {
                let (count, period, burst) = (rate.count(), rate.period(), rate.burst_limit());
                write!(f, "{count} in {period:?}, burst {burst}")
            }
            Self::Quota(quota) => write!(f, "{} in {}", quota.count(), quota.kind()),
            Self::Tokens(rate) => {
                let (count, period, burst) = (rate.count(), rate.period(), rate.burst_limit());
                write!(f, "{count} tokens in {period:?}, burst {burst}")
            }
            Self::InFlight(cap) => write!(f, "{} in flight", cap.count()),
        }?;
        f.write_str(if self.is_shadow() { ", shadow" } else { "" })
    }
}

impl Limit {
    /// Returns one of `shares` equal shares, with a burst of at least 1.
    pub(crate) fn share(&self, shares: u32) -> Self {
        let settings = self.settings.share(shares);
        Self {
            // A limit that would take too long to fill stays whole.
            meter: settings.meter(self.reservation).or(self.meter),
            settings,
            ..self.clone()
        }
    }

    /// A published limit of a route, called `test`, with nothing besides.
    #[cfg(test)]
    pub(crate) fn of(settings: LimitSettings) -> Self {
        let reservation = Reservation::default();
        Self {
            name: "test".into(),
            is_named: false,
            scope: Scope::Route,
            meter: settings.meter(reservation),
            settings,
            published: true,
            shadow: false,
            wait_policy: None,
            reservation,
        }
    }

    #[inline]
    pub(crate) fn is_slots(&self) -> bool {
        matches!(self.settings, LimitSettings::InFlight(_))
    }

    #[inline]
    pub(crate) fn is_tokens(&self) -> bool {
        matches!(self.settings, LimitSettings::Tokens(_))
    }

    /// Returns the model tokens that a request reserves whose estimate is `tokens`. An estimate that is refused for its
    /// size and one that `is_exact` are asked for in full.
    pub(crate) fn reserves(&self, tokens: u64, is_exact: bool, is_shared: bool) -> u64 {
        match &self.meter {
            Some(meter) if !is_exact && !self.reservation.refuses(tokens) => {
                tokens.min(self.reservation.most(meter.capacity(), is_shared))
            }
            _ => tokens,
        }
    }

    /// Returns whether different clients share the limit's buckets.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.scope, Scope::Total | Scope::Route | Scope::Model)
    }
}
