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
    model::{ModelResolver, RequestClasses},
    route::{RouteKey, path_parameter::PathParameter, readings::Head},
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
    pub(super) const MOST_KEPT: usize = 4_096;

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
        let is_listed = self.routes.as_ref().is_none_or(|keys| keys.contains(key));
        is_listed && (!self.resolver.is_in_path_alone() || self.parameter_of(key).is_some())
    }

    /// Returns the parameter of a declared key that names the models, if one does.
    pub(super) fn parameter_of(&self, key: &RouteKey) -> Option<PathParameter> {
        PathParameter::of(key, self.resolver.path_param()?)
    }

    /// Returns the classes of a request that matches a route, if the model is found in its path.
    #[inline(always)]
    pub(super) fn classes_in_path(&self, route: &Route, head: &Head<'_>) -> Option<RequestClasses> {
        let parameter = route.model_parameter.as_ref()?;
        Some(self.classes_by(parameter, head))
    }

    #[inline(never)]
    fn classes_by(&self, parameter: &PathParameter, head: &Head<'_>) -> RequestClasses {
        let value = parameter.value(head);
        let value = value.as_deref();
        let classes = self.resolver.classes_in_path(value);
        // A host may take the path for the one without a slash at its end.
        let shorter = value.and_then(|value| value.strip_suffix(b"/"));
        match shorter.filter(|_| parameter.is_greedy()) {
            Some(shorter) if self.resolver.classes_in_path(Some(shorter)) != classes => {
                RequestClasses::UNREAD
            }
            _ => classes,
        }
    }

    /// Returns whether requests of a route have models.
    pub(super) fn has(&self, route: &Route) -> bool {
        match route.undeclared {
            true => self.routes.is_none() && !self.resolver.is_in_path_alone(),
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
        if routes.limit_set.exempt {
            return routes.clone();
        }
        let make = || self.make(routes, plan, class);
        let Cow::Borrowed(routes) = *routes else {
            return Cow::Owned(make());
        };
        if let Some(kept) = routes.of_model(class) {
            return Cow::Borrowed(kept);
        }
        match is_declared || self.takes_room() {
            true => Cow::Borrowed(routes.keep_of_model(class, self.names.len(), make)),
            false => Cow::Owned(make()),
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
