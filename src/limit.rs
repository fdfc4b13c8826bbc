//! One limit: what it is set to, and where it holds.

use std::sync::Arc;

use crate::{
    clock::Nanos, gcra::Refusal, in_flight::InFlight, meter::Meter, quota::Quota, rate::Rate,
    waiting::Patience,
};

/// Where a limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Everything that passes the throttle.
    Total,
    /// One route: a method and a path.
    Route,
    /// One client, whatever it asks for.
    Client,
    /// One client on one route.
    ClientOnRoute,
}

impl Scope {
    /// The larger, the more specific.
    pub(crate) fn specificity(self) -> u8 {
        match self {
            Self::Total => 0,
            Self::Route => 1,
            Self::Client => 2,
            Self::ClientOnRoute => 3,
        }
    }
}

/// One limit: its settings and its name, without its balance.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) name: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) terms: Terms,
    /// `None`: closed.
    pub(crate) meter: Option<Meter>,
    pub(crate) published: bool,
    /// It decides and refuses nobody.
    pub(crate) shadow: bool,
    /// Whether requests may wait for it.
    pub(crate) patience: Option<Patience>,
}

/// What a limit was configured as.
#[derive(Debug, Clone)]
pub(crate) enum Terms {
    Rate(Rate),
    Quota(Quota),
    /// A rate of model tokens.
    Tokens(Rate),
    InFlight(InFlight),
}

impl Limit {
    #[inline]
    pub(crate) fn is_slots(&self) -> bool {
        matches!(self.terms, Terms::InFlight(_))
    }

    #[inline]
    pub(crate) fn is_tokens(&self) -> bool {
        matches!(self.terms, Terms::Tokens(_))
    }

    /// Why a charge of `cost` would be refused at `state`, if it would.
    #[inline]
    pub(crate) fn refusal(&self, state: u64, now: Nanos, cost: u64) -> Option<Refusal> {
        match &self.meter {
            Some(meter) => meter.take(state, now, cost).err(),
            None => Some(Refusal::Never),
        }
    }
}
