//! The limits of routes for the models that requests are for.
//!
//! A route has its limits once for each variant of a plan, and from these the limits for each class of models: those of
//! the route, and the model's beside them.
//!
//! # Invariants
//!
//! - **Found once.** The limits of a route for a class are made by its first request and stay as long as the route's.
//! - **Bounded.** Declared routes have as many as the rules have models. Clients invent undeclared routes, and spell
//!   paths that may mean several: of these 4,096 in all are kept, and further requests make their own, with the same
//!   result at a greater cost.
//!
//! # Who may call it
//!
//! The [look-up](super::look_up). Counts of what is kept here are settled with the route's.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{route_limits::RouteLimits, routes::Route};
use crate::{
    limiter::limit_set::BoundLimit,
    model::ModelResolver,
    route::RouteKey,
    rules::{CompiledModels, PlanLimits},
};

/// The models of a rule set.
#[derive(Debug)]
pub(super) struct ModelRules {
    pub(super) resolver: ModelResolver,
    /// The keys of the routes whose requests have models. `None`: all routes.
    routes: Option<Vec<RouteKey>>,
    /// The name of each class, by its position.
    names: Vec<Arc<str>>,
    /// The limits of each class.
    limits: Vec<Vec<BoundLimit>>,
    /// The cost of a request of each class.
    costs: Vec<u64>,
    /// The number of limits that may still be kept of routes that clients choose. Relaxed: it orders nothing.
    room: AtomicUsize,
}

impl ModelRules {
    /// The most limits that are kept of routes that clients choose.
    const MOST_KEPT: usize = 4_096;

    pub(super) fn new(models: CompiledModels) -> Self {
        let CompiledModels {
            resolver,
            routes,
            names,
            limits,
            costs,
        } = models;
        Self {
            resolver,
            routes,
            names,
            limits,
            costs,
            room: AtomicUsize::new(Self::MOST_KEPT),
        }
    }

    /// Returns whether requests of a declared key have models.
    pub(super) fn is_on(&self, key: &RouteKey) -> bool {
        self.routes.as_ref().is_none_or(|keys| keys.contains(key))
    }

    /// Returns whether requests of a route have models.
    pub(super) fn has(&self, route: &Route) -> bool {
        match route.undeclared {
            true => self.routes.is_none(),
            false => route.has_models,
        }
    }

    /// Returns the limits of a request of some class of models, given those of its routes. `is_declared`: these belong
    /// to one declared route.
    pub(super) fn limits<'a>(
        &self,
        routes: &Cow<'a, RouteLimits>,
        plan: &PlanLimits,
        class: usize,
        is_declared: bool,
    ) -> Cow<'a, RouteLimits> {
        let kept = match *routes {
            Cow::Borrowed(routes) if routes.limit_set.exempt => return Cow::Borrowed(routes),
            Cow::Borrowed(routes) => routes.of_models(self.names.len()).get(class),
            Cow::Owned(_) => None,
        };
        let make = || self.make(routes, plan, class);
        match kept {
            Some(kept) if kept.get().is_some() || is_declared || self.takes_room() => {
                Cow::Borrowed(kept.get_or_init(make))
            }
            _ => Cow::Owned(make()),
        }
    }

    /// Makes the limits of routes for a class of models, for the clients on a plan.
    #[cold]
    fn make(&self, routes: &RouteLimits, plan: &PlanLimits, class: usize) -> RouteLimits {
        let of_clients = plan.models.get(class).into_iter().flatten();
        let limits = of_clients.chain(&self.limits[class]);
        let limits = limits.filter(|bound| !bound.rests).cloned();
        let (name, cost) = (&self.names[class], self.costs[class]);
        routes.under(routes.limit_set.of_model(name, cost, limits))
    }

    /// Takes room for the limits of a route that a client has chosen, if there is some.
    fn takes_room(&self) -> bool {
        let less = |room: usize| room.checked_sub(1);
        let taken = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }
}
