//! The usage plan of a class of clients.

use crate::limit::limits::Limits;

/// A usage plan: the limits of each client on it, altogether and on single routes.
///
/// [`Limits`] and a [`Rate`](crate::Rate) convert into a plan without routes.
///
/// ```
/// use tower_throttle::{Limits, Plan, Quota, Rate};
///
/// let pro = Plan::new(Limits::new().rate(Rate::per_second(20)).quota(Quota::per_day(10_000)))
///     .route("POST /v1/chat/completions", Rate::per_second(2).burst(4))
///     .route("GET /v1/models", Limits::unlimited());
/// # let _ = pro;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Plan {
    pub(crate) limits: Limits,
    pub(crate) routes: Vec<(Box<str>, Limits)>,
}

impl Plan {
    /// Creates a plan with the limits that each of its clients has altogether.
    pub fn new(limits: impl Into<Limits>) -> Self {
        Self {
            limits: limits.into(),
            routes: Vec::new(),
        }
    }

    /// Adds limits of each client on one route, given by its [`RouteKey`](crate::RouteKey), besides the client's other
    /// limits.
    ///
    /// With [`Limits::unlimited`], no limit of the client counts requests to the route. The route's own limits and the
    /// total still do. Limits on an [exempt](Limits::exempt) route are an error.
    pub fn route(mut self, key: impl AsRef<str>, limits: impl Into<Limits>) -> Self {
        self.routes.push((key.as_ref().into(), limits.into()));
        self
    }
}

impl<L: Into<Limits>> From<L> for Plan {
    fn from(limits: L) -> Self {
        Self::new(limits)
    }
}
