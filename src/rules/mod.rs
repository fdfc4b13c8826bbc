//! Rules: all limits of a throttle, their audit against a server's routes, and their changes in a reload.

mod audit;
mod change;
mod compile;
mod costs;
mod error;
mod estimates;
mod exempt;
mod models;
mod names;
mod pairs;
mod plans;
mod prices;
mod registry;
mod request_cost;
mod second_budgets;
mod settings;
mod token_classes;
mod tokens;

use std::{any::Any, sync::Arc};

use crate::{
    client::Clients,
    head::RequestHead,
    limit::{
        limits::{Access, Limits},
        price::Prices,
    },
    model::Models,
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
    models::CompiledModels,
    pairs::pairs,
    plans::PlanLimits,
    registry::{Handover, LimitTemplate, ModelKey, Registry, others},
    request_cost::RequestCost,
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
/// A request is charged on the total, on its route, its model and its client, on all of them or on none.
///
/// - The **total** is one set of buckets for all requests.
/// - The **default route** holds for each route by itself, like API Gateway's default route settings: every route has
///   buckets of its own. A declared route inherits what it leaves out.
/// - A **route** is a [`RouteKey`]; the most specific key wins. `$default` is a key like any other: one set of buckets
///   for all requests that no other key matches. It is not the default route.
/// - [`Models`] are the models that requests are for: each has buckets of its own, on all routes.
/// - [`Clients`] are the callers: each has buckets of its own, on all routes.
///
/// A request that no rule covers is not limited.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Rules {
    pub(crate) total: Option<Limits>,
    pub(crate) default_route: Option<Limits>,
    pub(crate) routes: Vec<(Box<str>, Limits)>,
    pub(crate) undeclared: Undeclared,
    pub(crate) catch_all: CatchAll,
    pub(crate) models: Option<Models>,
    pub(crate) clients: Option<Clients>,
    pub(crate) estimate: Estimate,
    pub(crate) prices: Option<Prices>,
    pub(crate) cost_by: Option<RequestCost>,
    pub(crate) rejections: Rejections,
}

/// The use of the default route's limits for requests that no declared route matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undeclared {
    /// Each route has buckets of its own.
    ///
    /// A route is a method and the matched route of the router: in axum the template (feature `axum`), elsewhere the
    /// literal path. The first 1,024 such routes have buckets of their own, and all others share one set, so that
    /// inventing paths gains nothing.
    #[default]
    PerRoute,
    /// All of them share one set of buckets, and their [`Decision::route`](crate::Decision::route) is `$default`.
    Shared,
}

impl Rules {
    /// Creates rules without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the limits of all requests together.
    ///
    /// They are not published in header fields unless [`Limits::publish`] is set.
    pub fn total(mut self, limits: impl Into<Limits>) -> Self {
        self.total = Some(limits.into());
        self
    }

    /// Sets the limits of every route by itself, which declared routes inherit.
    pub fn default_route(mut self, limits: impl Into<Limits>) -> Self {
        self.default_route = Some(limits.into());
        self
    }

    /// Sets the limits of one route, given by its [`RouteKey`].
    ///
    /// An invalid key and a second key for the same route are errors of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn route(mut self, key: impl AsRef<str>, limits: impl Into<Limits>) -> Self {
        self.routes.push((key.as_ref().into(), limits.into()));
        self
    }

    /// Sets the use of the default route's limits for requests that no declared route matches. Default:
    /// [`Undeclared::PerRoute`].
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

    /// Sets the models: how the model of a request is found, and the limits of each. Replaces earlier ones.
    pub fn models(mut self, models: Models) -> Self {
        self.models = Some(models);
        self
    }

    /// Changes the models, if there are any: for rules from a document, which cannot hold closures.
    pub fn map_models(mut self, change: impl FnOnce(Models) -> Models) -> Self {
        self.models = self.models.map(change);
        self
    }

    /// Sets the clients: how they are identified, and the limits of each. Replaces earlier ones.
    pub fn clients(mut self, clients: Clients) -> Self {
        self.clients = Some(clients);
        self
    }

    /// Changes the clients, if there are any: for rules from a document, which cannot hold keys of members or closures.
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

    /// Sets the estimate of the model tokens of a request, for limits that count [tokens](Limits::tokens) or
    /// [money](Limits::spend). Default: one for every four bytes of the request's body.
    pub fn estimate(mut self, estimate: Estimate) -> Self {
        self.estimate = estimate;
        self
    }

    /// Sets the prices of model tokens, for limits that count [money](Limits::spend). Replaces earlier ones.
    ///
    /// A reload that changes prices leaves what was spent as it was charged. A request under way is settled by the
    /// prices that it was admitted with.
    pub fn prices(mut self, prices: Prices) -> Self {
        self.prices = Some(prices);
        self
    }

    /// Sets a closure that states the cost of a request, in units of the rates and quotas of its client and of the total.
    /// It sees the head, and in the extensions the [facts](crate::facts::BodyFacts) of a body that the
    /// [peek layer](crate::ThrottleLayer::peek_layer) has read. Replaces an earlier one.
    ///
    /// `None`, and a number below the [cost](Limits::cost) of the request's route or model, mean that cost. A request whose
    /// cost is above a burst or the count of a quota can never pass: it is refused at once, without a wait to retry after.
    /// While a store is down, a request that costs more than its [share](crate::store::OnOutage::Local) of a burst takes
    /// all of that share.
    ///
    /// The closure runs on each request and must not block. A peek layer that reads the body does not ask it: a request
    /// that is refused before its body counts as one of its route's cost. The limits of 1,024 costs of routes with keys
    /// are kept, and as many of others; further ones are made for each request, which takes microseconds.
    ///
    /// ```
    /// use tower_throttle::{Clients, Quota, Rules, facts::BodyFacts};
    ///
    /// // Four answers to one prompt count as four requests.
    /// let rules = Rules::new()
    ///     .clients(Clients::by_bearer().each(Quota::per_day(1_000)))
    ///     .cost_by(|head| head.extensions().get::<BodyFacts>()?.facts()?.choices());
    /// # let _ = rules;
    /// ```
    ///
    /// The number of answers is what a client writes into its body, and an unread body has none: state a cost for that,
    /// too, if it may matter.
    pub fn cost_by(
        mut self,
        cost: impl Fn(RequestHead<'_>) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.cost_by = Some(RequestCost::new(cost));
        self
    }

    /// Sets the answer to refused requests on one route, given by its [`RouteKey`], in place of the layer's: a
    /// [`Dialect`](crate::response::Dialect) or any other [`Rejection`].
    ///
    /// The most specific key wins, as for limits; the route need not have limits of its own. An invalid key and a
    /// second key for the same route are errors of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
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
