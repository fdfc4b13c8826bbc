//! The settings of one limit, as snapshots and decisions show them: its scope and its size.

// Settings of limits and their arithmetic, without storage and without a runtime. This file has one limit and its
// scope; `limits` has the settings of a whole scope.

pub(crate) mod amount;
pub(crate) mod calendar;
pub(crate) mod gcra;
pub(crate) mod in_flight;
pub(crate) mod limits;
pub(crate) mod measure;
pub(crate) mod meter;
pub(crate) mod model_class;
pub(crate) mod price;
pub(crate) mod quantity;
pub(crate) mod quota;
pub(crate) mod rate;
pub(crate) mod reservation;
pub(crate) mod route_settings;
pub(crate) mod spend;
pub(crate) mod token_class;
pub(crate) mod token_demand;
pub(crate) mod token_usage;
pub(crate) mod wait_policy;

use std::{fmt, mem::discriminant, sync::Arc};

pub use self::rate::RateParseError;

use self::{
    in_flight::InFlight,
    measure::{CachedInput, Measure},
    meter::Meter,
    price::PriceTable,
    quota::{Quota, Window},
    rate::Rate,
    reservation::Reservation,
    spend::Spend,
    token_class::TokenClass,
    token_demand::TokenDemand,
    wait_policy::WaitPolicy,
};
use crate::clock::Nanos;

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
    /// Returns whether limits of the scope are those of a single client.
    pub(crate) fn is_of_clients(self) -> bool {
        matches!(
            self,
            Self::Client | Self::ClientOnModel | Self::ClientOnRoute
        )
    }

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
    /// The way in which the limit counts the tokens of a request.
    pub(crate) measure: Measure,
    /// For a limit of a second budget: the wait, in nanoseconds, above which it is charged in place of the limits of its
    /// scope. `None`: a limit of the first budget.
    pub(crate) degrades_after: Option<Nanos>,
}

/// The settings of a limit.
///
/// `Display` writes them briefly: `10 in 1s, burst 5`, `10000 in a day`, `90000 tokens in 60s, burst 90000`, `9000
/// output tokens in 60s, burst 9000`, `250.00 spent in a month`, `8 in flight`, or `closed`, and then `shadow` if the
/// limit is one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitSettings {
    /// A rate of requests.
    Rate(Rate),
    /// A number of requests in each window.
    Quota(Quota),
    /// A rate of model tokens.
    Tokens(Rate),
    /// A rate of the model tokens of requests.
    InputTokens(Rate),
    /// A rate of the model tokens of answers.
    OutputTokens(Rate),
    /// An amount of money that requests cost.
    Spend(Spend),
    /// A cap on requests in flight.
    InFlight(InFlight),
}

impl LimitSettings {
    /// Returns the meter of a limit with these settings. `None` if the limit is closed or its figures are out of range.
    pub(crate) fn meter(&self, reservation: Reservation) -> Option<Meter> {
        match self {
            Self::Rate(rate) => Meter::of_rate(rate),
            Self::Tokens(rate) | Self::InputTokens(rate) | Self::OutputTokens(rate) => {
                let meter = Meter::of_rate(rate)?;
                Some(meter.admitting(reservation.max_tokens.unwrap_or(u64::MAX)))
            }
            Self::Quota(quota) => Meter::of_quota(quota),
            Self::Spend(spend) => spend.terms().meter(),
            Self::InFlight(cap) => Meter::of_slots(cap.count()),
        }
    }

    /// Returns the way in which a limit with these settings counts the tokens of a request. Without `prices`, an amount
    /// of money counts nothing.
    pub(crate) fn measure(
        &self,
        cached_input: CachedInput,
        prices: Option<&Arc<PriceTable>>,
    ) -> Measure {
        match self {
            Self::Rate(_) | Self::Quota(_) | Self::InFlight(_) => Measure::None,
            Self::Tokens(_) => Measure::All(cached_input),
            Self::InputTokens(_) => Measure::Input(cached_input),
            Self::OutputTokens(_) => Measure::Output,
            Self::Spend(_) => prices.cloned().map_or(Measure::None, Measure::Spend),
        }
    }

    /// Returns the units that a limit with these settings counts.
    pub(crate) fn unit(&self) -> Unit {
        match self {
            Self::Rate(_) | Self::Quota(_) => Unit::Requests,
            Self::Tokens(_) => Unit::Tokens,
            Self::InputTokens(_) => Unit::InputTokens,
            Self::OutputTokens(_) => Unit::OutputTokens,
            Self::Spend(_) => Unit::Spend,
            Self::InFlight(_) => Unit::Slots,
        }
    }

    fn share(&self, shares: u32) -> Self {
        match self {
            Self::Rate(rate) => Self::Rate(rate.share(shares)),
            Self::Tokens(rate) => Self::Tokens(rate.share(shares)),
            Self::InputTokens(rate) => Self::InputTokens(rate.share(shares)),
            Self::OutputTokens(rate) => Self::OutputTokens(rate.share(shares)),
            Self::Quota(quota) => Self::Quota(quota.share(shares)),
            Self::Spend(spend) => Self::Spend(spend.share(shares)),
            Self::InFlight(_) => self.clone(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Quota(quota) => quota.count() == 0,
            Self::Spend(spend) => spend.is_closed(),
            Self::InFlight(cap) => cap.count() == 0,
            _ => self.rate().is_some_and(Rate::is_closed),
        }
    }

    /// Returns whether both are of the same kind, and both are enforced or both are shadows.
    pub(crate) fn is_kind_of(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other) && self.is_shadow() == other.is_shadow()
    }

    /// Returns the period of a rate or the window of a quota. `None` for a cap in flight.
    pub(crate) fn window(&self) -> Option<Window> {
        match self {
            Self::Quota(quota) => Some(quota.kind()),
            Self::Spend(spend) => Some(spend.window()),
            _ => self.rate().map(|rate| Window::Every(rate.period())),
        }
    }

    /// Returns the number of units that pass in a period, and the number that passes at once.
    pub(crate) fn size(&self) -> (u64, u64) {
        match self {
            Self::Rate(rate)
            | Self::Tokens(rate)
            | Self::InputTokens(rate)
            | Self::OutputTokens(rate) => (rate.count(), rate.burst_limit()),
            Self::Quota(quota) => (quota.count(), quota.count()),
            Self::Spend(spend) => (spend.millionths(), spend.burst_millionths()),
            Self::InFlight(cap) => (cap.count(), cap.count()),
        }
    }

    /// Returns the rate of a limit that has one, whatever it counts.
    pub(crate) fn rate(&self) -> Option<&Rate> {
        match self {
            Self::Rate(rate)
            | Self::Tokens(rate)
            | Self::InputTokens(rate)
            | Self::OutputTokens(rate) => Some(rate),
            Self::Spend(spend) => spend.rate(),
            Self::Quota(_) | Self::InFlight(_) => None,
        }
    }

    /// Returns whether this limit is a shadow, which reports but never refuses.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        match self {
            Self::Rate(rate)
            | Self::Tokens(rate)
            | Self::InputTokens(rate)
            | Self::OutputTokens(rate) => rate.is_shadow(),
            Self::Quota(quota) => quota.is_shadow(),
            Self::Spend(spend) => spend.is_shadow(),
            Self::InFlight(cap) => cap.is_shadow(),
        }
    }
}

impl fmt::Display for LimitSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            closed if closed.is_closed() => f.write_str("closed"),
            Self::Quota(quota) => write!(f, "{} in {}", quota.count(), quota.kind()),
            Self::Rate(rate)
            | Self::Tokens(rate)
            | Self::InputTokens(rate)
            | Self::OutputTokens(rate) => {
                let (count, period, burst) = (rate.count(), rate.period(), rate.burst_limit());
                let unit = match self.unit() {
                    Unit::Tokens => " tokens",
                    Unit::InputTokens => " input tokens",
                    Unit::OutputTokens => " output tokens",
                    Unit::Requests | Unit::Spend | Unit::Slots => "",
                };
                write!(f, "{count}{unit} in {period:?}, burst {burst}")
            }
            Self::Spend(spend) => spend.fmt(f),
            Self::InFlight(cap) => write!(f, "{} in flight", cap.count()),
        }?;
        f.write_str(if self.is_shadow() { ", shadow" } else { "" })
    }
}

/// The units that a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Requests,
    Tokens,
    InputTokens,
    OutputTokens,
    /// Millionths of a unit of money.
    Spend,
    Slots,
}

impl Unit {
    /// The number of units.
    pub(crate) const COUNT: usize = 6;

    /// Returns whether the unit is one of model tokens.
    pub(crate) fn is_tokens(self) -> bool {
        matches!(self, Self::Tokens | Self::InputTokens | Self::OutputTokens)
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
            measure: settings.measure(CachedInput::percent(100), None),
            settings,
            published: true,
            shadow: false,
            wait_policy: None,
            reservation,
            degrades_after: None,
        }
    }

    /// Returns whether the limit is one of a second budget.
    #[inline]
    pub(crate) fn is_second(&self) -> bool {
        self.degrades_after.is_some()
    }

    #[inline]
    pub(crate) fn is_slots(&self) -> bool {
        matches!(self.settings, LimitSettings::InFlight(_))
    }

    /// Returns whether requests reserve units of this limit, and are charged with what they have used.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.measure.is_settled()
    }

    /// Returns whether requests that are refused wait equally long, however many units they ask for: those of a quota for
    /// the end of its window, and those of a closed limit forever.
    pub(crate) fn refuses_all_alike(&self) -> bool {
        self.meter.is_none_or(|meter| meter.window().is_some())
    }

    /// Returns the units that a request reserves whose tokens are expected to be those of `demand`, at the price of a
    /// class. A number that is refused for its size and one that `is_exact` are asked for in full.
    pub(crate) fn reserves(
        &self,
        demand: TokenDemand,
        class: TokenClass,
        is_exact: bool,
        is_shared: bool,
    ) -> u64 {
        let units = self.measure.of_demand(demand, class);
        let is_refused = || self.measure.is_of_tokens() && self.reservation.refuses(demand.total());
        match &self.meter {
            // The bound is one on all tokens, whichever this limit counts.
            Some(_) if is_refused() => units.max(demand.total()),
            Some(meter) if !is_exact => {
                units.min(self.reservation.most(meter.capacity(), is_shared))
            }
            _ => units,
        }
    }

    /// Returns whether different clients share the limit's buckets.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.scope, Scope::Total | Scope::Route | Scope::Model)
    }
}

#[cfg(test)]
mod tests;
