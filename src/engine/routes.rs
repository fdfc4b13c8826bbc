//! The routes of a rule set, declared and undeclared.
//!
//! A *declared* route has a key. An *undeclared* one is a template of the host's router or a path that no key matches.
//! Its first request makes it from the limits of `default_route`, up to a bound; requests beyond the bound share one
//! route.
//!
//! # Invariants
//!
//! - **A route belongs to one rule set.** The next set has another route for the same key, which shares the buckets and
//!   the counters of those limits that stay.
//! - **Limits are made once for each variant**, by the first request that needs them or by the reload, and never
//!   replaced: a reference to them is valid as long as the rule set. Their addresses identify them in
//!   [`CombinedLimits`].
//! - **Templates and paths are separate.** Clients invent paths, and cannot take the room of routes that the host
//!   knows.
//! - **No path is stored.** An undeclared path leaves hashes: one of the whole path, by which it is found, and one of
//!   each segment, by which a later key is compared with it.
//!
//! # Who may touch it
//!
//! [`RuleSet`](super::rule_set::RuleSet) makes and finds routes; the [reload](super::reload) reads those of the
//! previous rules.
//!
//! [`CombinedLimits`]: super::combined_limits::CombinedLimits

use std::sync::{Arc, OnceLock};

use super::route_limits::RouteLimits;
use crate::{
    limit::route_settings::RouteSettings,
    limiter::{counters::Counters, limit_set::BoundLimit},
    route::{RouteKey, overlap::Shape, path_parameter::PathParameter, undeclared::BoundedMap},
    rules::LimitTemplate,
};

/// The name of all routes that no key matches. Also a key that a user may declare.
pub(super) const UNDECLARED: &str = "$default";

/// A route, and what is charged there for each variant of each plan of clients.
#[derive(Debug)]
pub(super) struct Route {
    /// The key, or the name by which people know the route.
    pub(super) key: Box<str>,
    /// The name by which a store knows the route, the same wherever there are the same rules: the key, or for a path
    /// that no key names a keyed hash.
    pub(super) place: Box<str>,
    /// The declared key, or the one that stands for the template of the host's router. `None`: neither is known.
    pub(super) pattern: Option<RouteKey>,
    /// The hashes of an undeclared path, where there is neither key nor template.
    pub(super) shape: Option<Arc<Shape>>,
    /// The limits of the route itself. Empty where it is unlimited or exempt.
    pub(super) own: Vec<BoundLimit>,
    /// The counts of its requests, kept over reloads.
    pub(super) counters: Arc<Counters>,
    /// Set if it has the default's limits, as all undeclared routes have.
    pub(super) undeclared: bool,
    /// Set if no scope counts its requests, the total included.
    pub(super) exempt: bool,
    /// The settings of a declared route beside its limits.
    pub(super) settings: RouteSettings,
    /// Set if the requests of a declared route have models.
    pub(super) has_models: bool,
    /// The parameter of a declared key that names the models. `None`: they are found elsewhere, or there are none.
    pub(super) model_parameter: Option<PathParameter>,
    /// The limits of a request for each variant of each plan: plans one after the other, each from its `first` number
    /// on. Made when they are first asked for, since few plans ask for most routes.
    pub(super) variants: Box<[OnceLock<RouteLimits>]>,
}

/// The undeclared routes that are kept apart, each with buckets of its own.
#[derive(Debug)]
pub(super) struct UndeclaredRoutes {
    /// Routes that the host's router has matched, by its template.
    pub(super) templates: BoundedMap<Route>,
    /// Routes by their path, where the host has told no template.
    pub(super) paths: BoundedMap<Route>,
}

impl BoundedMap<Route> {
    /// Makes the set that follows one, with the same hashes and nothing in it. `shared` makes its overflow route from
    /// that of the set before.
    pub(super) fn after(before: Option<&Self>, shared: impl Fn(Option<&Route>) -> Route) -> Self {
        match before {
            Some(before) => before.successor(shared(Some(before.overflow()))),
            None => Self::new(shared(None)),
        }
    }
}

impl Route {
    /// Makes a declared route with its `own` limits. `before` is the same route under the rules before, whose counters
    /// it keeps.
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
            settings: RouteSettings::default(),
            has_models: false,
            model_parameter: None,
            variants: (0..variants).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Makes an undeclared route from the `templates` of its limits.
    ///
    /// The route shares the buckets of `before`, the same route under the previous rules, unless it `begins_anew`: then
    /// its requests come from several routes or go to several, and its buckets are new until they inherit.
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
    /// Returns whether some request of an undeclared route may match a key. `set` is the one that it lies in, whose
    /// hashes its shape is made of. A route of which nothing is known may match any.
    pub(super) fn meets(&self, key: &RouteKey, set: &BoundedMap<Self>) -> bool {
        match (&self.shape, &self.pattern) {
            (Some(shape), _) => shape.meets(key, |segment| set.hash(&segment)),
            (None, Some(pattern)) => pattern.meets(key),
            (None, None) => true,
        }
    }
}
