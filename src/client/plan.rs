//! The usage plan of a class of clients.

use crate::limit::limits::Limits;

/// A usage plan: what each client of a class may do, and on single routes besides.
///
/// [`Limits`] and [`Rate`](crate::Rate)s turn into a plan without routes by themselves.
///
/// ```
/// use tower_throttle::{Limits, Plan, Quota, Rate};
///
/// let pro = Plan::new(Limits::new().rate(Rate::per_second(20).burst(40)).quota(Quota::per_day(10_000)))
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
    /// Makes a plan of what each client of the class may do altogether.
    pub fn new(limits: impl Into<Limits>) -> Self {
        Self {
            limits: limits.into(),
            routes: Vec::new(),
        }
    }

    /// Adds what each client of the class may do on one route, given by its [`RouteKey`](crate::RouteKey),
    /// besides what the client may do altogether.
    ///
    /// With [`Limits::unlimited`], no limit of the client counts requests to the route; the route's own limits and the
    /// total still do. A route that is [exempt](Limits::exempt) has no limits of clients: both are an error.
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
