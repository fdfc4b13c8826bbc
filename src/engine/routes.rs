//! The routes of some rules.

use std::sync::{Arc, OnceLock};

use super::route_limits::RouteLimits;
use crate::{
    limiter::{counters::Counters, limit_set::BoundLimit},
    route::{RouteKey, overlap::Shape, undeclared::BoundedMap},
    rules::LimitTemplate,
};

/// Stands for all routes that no key matches.
pub(super) const UNDECLARED: &str = "$default";

/// A route, and what is charged there for each variant of each class of clients.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) key: Box<str>,
    /// What it is known by wherever there are the same rules: the key, or for one that no key names a hash.
    pub(super) place: Box<str>,
    /// The key, or what the host's router calls the route. `None`: neither is known.
    pub(super) pattern: Option<RouteKey>,
    /// What is known of the path where neither is.
    pub(super) shape: Option<Arc<Shape>>,
    pub(super) own: Vec<BoundLimit>,
    pub(super) counters: Arc<Counters>,
    /// Whether it has the default's limits, as all undeclared routes have.
    pub(super) undeclared: bool,
    /// No scope counts its requests.
    pub(super) exempt: bool,
    /// Made when they are first asked for: most routes are asked for by few classes.
    pub(super) variants: Box<[OnceLock<RouteLimits>]>,
}

/// Routes that no key matches. Those that the host's router knows stand apart from paths that clients
/// invent, so that these do not take their room.
#[derive(Debug)]
pub(super) struct UndeclaredRoutes {
    pub(super) templates: BoundedMap<Route>,
    pub(super) paths: BoundedMap<Route>,
}

impl BoundedMap<Route> {
    /// One that has the same routes, or will.
    pub(super) fn after(before: Option<&Self>, shared: impl Fn(Option<&Route>) -> Route) -> Self {
        match before {
            Some(before) => before.successor(shared(Some(before.overflow()))),
            None => Self::new(shared(None)),
        }
    }
}

impl Route {
    /// `before`: the same route under the rules before.
    pub(super) fn new(
        key: &str,
        own: Vec<BoundLimit>,
        before: Option<&Self>,
        variants: usize,
    ) -> Self {
        Self {
            key: key.into(),
            place: key.into(),
            pattern: None,
            shape: None,
            own,
            counters: before.map_or_else(Arc::default, |before| Arc::clone(&before.counters)),
            undeclared: false,
            exempt: false,
            variants: (0..variants).map(|_| OnceLock::new()).collect(),
        }
    }

    pub(super) fn undeclared(
        key: &str,
        place: &str,
        templates: &[LimitTemplate],
        before: Option<&Self>,
        begins_anew: bool,
        variants: usize,
    ) -> Self {
        let known = before.map(|route| &*route.own);
        let own = LimitTemplate::bind(templates, place, known, begins_anew);
        Self {
            undeclared: true,
            place: place.into(),
            ..Self::new(key, own, before, variants)
        }
    }
}

impl Route {
    /// Returns whether some request of an undeclared route may match a key.
    pub(super) fn meets(&self, key: &RouteKey, set: &BoundedMap<Self>) -> bool {
        match (&self.shape, &self.pattern) {
            (Some(shape), _) => shape.meets(key, |segment| set.hash(&segment)),
            (None, Some(pattern)) => pattern.meets(key),
            (None, None) => true,
        }
    }
}
