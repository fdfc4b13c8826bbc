//! Rules: all limits of a throttle, and what compares them with a server's routes and with other rules.

mod audit;
mod change;
mod compile;
mod error;
mod exempt;
mod names;
mod pairs;
mod plans;
mod registry;
mod settings;
mod tokens;

use std::{any::Any, sync::Arc};

use crate::{
    client::Clients,
    limit::limits::{Access, Limits},
    response::{Rejection, Rejections, RouteRejection},
    route::{CatchAll, RouteKey},
    usage::Estimate,
};

pub use self::{
    audit::{Audit, UnreachableKey},
    change::{Change, Changes, SettingChange},
    error::RulesError,
};
pub(crate) use self::{
    compile::{Compiled, DeclaredRoute},
    pairs::pairs,
    plans::PlanLimits,
    registry::{Handover, LimitTemplate, Registry, others},
};

/// All limits of a throttle: for the whole server, for every route, for single routes, and for clients.
///
/// ```
/// use tower_throttle::{Limits, Rate, Rules, ThrottleLayer};
///
/// let rules = Rules::new()
///     .total(Rate::per_second(10_000).burst(5_000))
///     .default_route(Rate::per_second(10).burst(5))
///     .route("POST /v1/chat/completions", Rate::per_second(2).burst(4))
///     .route("GET /health", Limits::exempt());
/// let throttle = ThrottleLayer::new(rules)?;
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
///
/// A request is charged on the total, on its route and on its client, on all of them or on none.
///
/// - The **total** is one set of buckets for everything that passes the throttle.
/// - The **default route** holds for each route by itself, as API Gateway's default route settings do:
///   every route has buckets of its own. A declared route inherits what it leaves out.
/// - A **route** is a [`RouteKey`]; the most specific key wins. `$default` is a key like any other:
///   one set of buckets for all requests that no other key matches, not to be confused with the default route.
/// - [`Clients`] are who asks: each has buckets of its own, on whatever route.
///
/// With no rule for it, a request is not limited.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Rules {
    pub(crate) total: Option<Limits>,
    pub(crate) default_route: Option<Limits>,
    pub(crate) routes: Vec<(Box<str>, Limits)>,
    pub(crate) undeclared: Undeclared,
    pub(crate) catch_all: CatchAll,
    pub(crate) clients: Option<Clients>,
    pub(crate) estimate: Estimate,
    pub(crate) rejections: Rejections,
}

/// The meaning of the default route's limits for requests that no declared route matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undeclared {
    /// Each route has buckets of its own.
    ///
    /// A route is a method and what the router matched; in axum that is the template (feature `axum`),
    /// elsewhere the literal path. The first 1,024 such routes are kept apart, all others share one set
    /// of buckets, so that inventing paths gains nothing.
    #[default]
    PerRoute,
    /// All of them share one set of buckets; their [`Decision::route`](crate::Decision::route) is
    /// `$default`.
    Shared,
}

impl Rules {
    /// No limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits for everything that passes the throttle, together.
    ///
    /// Not told to clients in header fields unless [`Limits::publish`] says so.
    pub fn total(mut self, limits: impl Into<Limits>) -> Self {
        self.total = Some(limits.into());
        self
    }

    /// Limits for every route by itself, and what declared routes inherit.
    pub fn default_route(mut self, limits: impl Into<Limits>) -> Self {
        self.default_route = Some(limits.into());
        self
    }

    /// Limits for one route, given by its [`RouteKey`].
    ///
    /// A key that cannot be read, or that means the same route as another, is an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn route(mut self, key: impl AsRef<str>, limits: impl Into<Limits>) -> Self {
        self.routes.push((key.as_ref().into(), limits.into()));
        self
    }

    /// Sets what the default route's limits mean for requests that no declared route matches. Without this
    /// call: [`Undeclared::PerRoute`].
    pub fn undeclared(mut self, undeclared: Undeclared) -> Self {
        self.undeclared = undeclared;
        self
    }

    /// Sets the requests that the route key `$default` takes, in the rules and in the plans of clients. Default:
    /// [`CatchAll::Unmatched`].
    ///
    /// ```
    /// use tower_throttle::{Rate, Rules, route::CatchAll};
    ///
    /// // 404s share one request a second; every route of the axum router has ten of its own.
    /// let rules = Rules::new()
    ///     .default_route(Rate::per_second(10))
    ///     .route("$default", Rate::per_second(1))
    ///     .catch_all(CatchAll::Unrouted);
    /// ```
    pub fn catch_all(mut self, catch_all: CatchAll) -> Self {
        self.catch_all = catch_all;
        self
    }

    /// Sets how clients are identified, and what each of them may do. Replaces what was set before.
    pub fn clients(mut self, clients: Clients) -> Self {
        self.clients = Some(clients);
        self
    }

    /// Changes who asks, where that is known: for rules that were read from a document, which has no keys of members.
    ///
    /// ```
    /// use tower_throttle::{Clients, Rate, Rules};
    ///
    /// # let read = Rules::new().clients(
    /// #     Clients::by_bearer().each(Rate::per_second(1)).plan("pro", Rate::per_second(20)),
    /// # );
    /// let rules = read.map_clients(|clients| clients.member("pro", "key-of-a-customer"));
    /// ```
    pub fn map_clients(mut self, change: impl FnOnce(Clients) -> Clients) -> Self {
        self.clients = self.clients.map(change);
        self
    }

    /// Sets the number of model tokens that a request is expected to cost, where its limits count
    /// [tokens](Limits::tokens). Without this call: one for each four bytes of the request's body.
    pub fn estimate(mut self, estimate: Estimate) -> Self {
        self.estimate = estimate;
        self
    }

    /// The answer to refused requests on one route, given by its [`RouteKey`], in the place of the
    /// layer's: a [`Dialect`](crate::response::Dialect) or any other [`Rejection`].
    ///
    /// The most specific key wins, as for limits; the route need not have limits of its own. A key that cannot be
    /// read, or that means the same route as another one here, is an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn rejection(mut self, key: impl AsRef<str>, rejection: impl Rejection) -> Self {
        let any: &dyn Any = &rejection;
        self.rejections.0.push(RouteRejection {
            key: key.as_ref().into(),
            dialect: any.downcast_ref().copied(),
            rejection: Arc::new(rejection),
        });
        self
    }

    /// The keys of all routes that can be read, and whether a route may count requests.
    pub(crate) fn keys(&self) -> Vec<(RouteKey, bool)> {
        let keys = self.routes.iter().filter_map(|(key, limits)| {
            let counts = !matches!(limits.access, Access::Unlimited | Access::Exempt);
            Some((key.parse().ok()?, counts))
        });
        keys.collect()
    }

    /// The keys that can be read of all routes where nothing passes.
    pub(crate) fn closed_keys(&self) -> impl Iterator<Item = RouteKey> {
        let default = self.default_route.as_ref();
        let may_inherit = default.is_some_and(Limits::is_closed);
        let closed = self.routes.iter().filter(move |(_, limits)| {
            limits.is_closed() || may_inherit && limits.or(default).is_closed()
        });
        closed.filter_map(|(key, _)| key.parse().ok())
    }
}
