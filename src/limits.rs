//! What holds for one scope.

use std::borrow::Cow;

use crate::{quota::Quota, rate::Rate};

/// The limits of one scope: the whole server, every route, one route, every client, or a usage plan.
///
/// A request has to pass all of them, and is charged on all of them or on none.
///
/// ```
/// use tower_throttle::{Limits, Rate};
///
/// let chat = Limits::new()
///     .rate(Rate::per_second(10).burst(20))
///     .rate(Rate::per_hour(6_000))
///     .named("chat");
/// let open = Limits::unlimited();
/// let short: Limits = Rate::per_second(10).into();
/// # let _ = (chat, open, short);
/// ```
///
/// # Inheritance
///
/// A route's limits override the default's field by field: what a route leaves out, it inherits. All rates
/// together are one field: a route with a rate of its own has none of the default's; and so are all quotas.
/// A rate comes with its burst: without [`Rate::burst`] that is the rate's own count, not the default's burst.
/// [`Limits::new`] leaves everything out, so a route with it alone has the default's rates, in a bucket
/// of its own. [`Limits::unlimited`] inherits nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Limits {
    pub(crate) rates: Vec<Rate>,
    pub(crate) quotas: Vec<Quota>,
    pub(crate) access: Access,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) publish: Option<bool>,
}

/// Whether rates decide, or something simpler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Access {
    #[default]
    Limited,
    Unlimited,
    Closed,
}

impl Limits {
    /// Nothing said yet: everything is inherited from the default route.
    pub fn new() -> Self {
        Self::default()
    }

    /// No limit in this scope, whatever the default says. Other scopes (the total) still hold.
    ///
    /// A rate or quota beside it contradicts it: an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn unlimited() -> Self {
        Self {
            access: Access::Unlimited,
            ..Self::default()
        }
    }

    /// Admits nothing, ever: a rate of zero by name.
    ///
    /// A rate or quota beside it contradicts it: an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn closed() -> Self {
        Self {
            access: Access::Closed,
            ..Self::default()
        }
    }

    /// Adds a rate. All rates of a scope hold at once.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rates.push(rate);
        self
    }

    /// Adds a quota. All quotas and rates of a scope hold at once.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quotas.push(quota);
        self
    }

    /// Names the limits of this scope that have no name of their own; from the second on, `_2` and so
    /// on is added.
    ///
    /// One or more of `A-Z a-z 0-9 _`, or an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether settings and balance of these limits are told to clients in `RateLimit-Policy` and
    /// `RateLimit`.
    ///
    /// Without this call: yes for routes and clients, no for the total, since a server's capacity is nobody's
    /// business. A refusal names its limit and the wait either way.
    pub fn publish(mut self, publish: bool) -> Self {
        self.publish = Some(publish);
        self
    }

    /// Whether nothing was said, so that a route has just what the default has.
    pub(crate) fn inherits_all(&self) -> bool {
        *self == Self::new()
    }

    /// These limits with what they leave out taken from `default`. Names are not handed down: what
    /// differs from the default is not called like it.
    pub(crate) fn or(&self, default: Option<&Self>) -> Self {
        let mut limits = self.clone();
        let Some(default) = default else {
            return limits;
        };
        limits.publish = self.publish.or(default.publish);
        if self.access != Access::Limited {
            return limits;
        }
        if self.rates.is_empty() && self.quotas.is_empty() {
            limits.access = default.access;
        }
        if self.rates.is_empty() {
            limits.rates = default.rates.iter().cloned().map(Rate::unnamed).collect();
        }
        if self.quotas.is_empty() {
            limits.quotas = default.quotas.iter().cloned().map(Quota::unnamed).collect();
        }
        limits
    }
}

impl From<Rate> for Limits {
    fn from(rate: Rate) -> Self {
        Self::new().rate(rate)
    }
}

impl From<Quota> for Limits {
    fn from(quota: Quota) -> Self {
        Self::new().quota(quota)
    }
}
