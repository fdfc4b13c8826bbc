//! The usage plan of a class of clients.

use crate::limit::limits::Limits;

/// A usage plan: the limits of each client on it, altogether, on single routes and on single models.
///
/// [`Limits`], a [`Rate`](crate::Rate), a [`Quota`](crate::Quota) and a [`Spend`](crate::Spend) convert into a plan
/// without routes.
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
    pub(crate) models: Vec<(Box<str>, Limits)>,
    pub(crate) other_models: Option<Limits>,
}

impl Plan {
    /// Creates a plan with the limits that each of its clients has altogether.
    pub fn new(limits: impl Into<Limits>) -> Self {
        Self {
            limits: limits.into(),
            ..Self::default()
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

    /// Adds limits of each client on one model, besides the client's other limits and those of the model. The name is
    /// one that [`Models::model`](crate::Models::model) declares, with [empty limits](Limits::new) if the model
    /// has none for all clients together. Any other is an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new),
    /// and so is a name that is given twice.
    ///
    /// A plan has the limits of [each client](crate::Clients::each) on a model, as far as it has none of its own.
    /// Unlike on a route, [`Limits::unlimited`] frees from these alone: the client's other limits still count the
    /// requests.
    ///
    /// A request whose model was not read is charged on these limits of every model, whether
    /// [`Models::unread`](crate::Models::unread) is set or not. A closed one refuses all such requests of the client.
    pub fn model(mut self, name: impl AsRef<str>, limits: impl Into<Limits>) -> Self {
        self.models.push((name.as_ref().into(), limits.into()));
        self
    }

    /// Sets limits of each client on all models that the rules do not name, and on requests without a model, together.
    ///
    /// Without [`Rules::models`](crate::Rules::models) they are an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn other_models(mut self, limits: impl Into<Limits>) -> Self {
        self.other_models = Some(limits.into());
        self
    }
}

impl<L: Into<Limits>> From<L> for Plan {
    fn from(limits: L) -> Self {
        Self::new(limits)
    }
}
