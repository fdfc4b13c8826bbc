//! The routes whose requests a reload moves.

use std::collections::HashSet;

use super::{key_index::KeyIndex, routes::Route};
use crate::route::{RouteKey, undeclared::Undeclared};

/// The keys that a reload adds and removes. A `$default` that stays and takes more requests than before is as new, and one
/// that takes fewer is as gone.
#[derive(Debug, Default)]
pub(super) struct KeyChanges {
    pub(super) new: HashSet<RouteKey>,
    pub(super) gone: HashSet<RouteKey>,
    /// Keys that stay, with fewer requests or with more.
    pub(super) changed: HashSet<RouteKey>,
    /// The new keys that are closed.
    pub(super) closed: Vec<RouteKey>,
    pub(super) near_new: KeyIndex,
    pub(super) near_gone: KeyIndex,
}

impl KeyChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty()
    }

    /// Returns whether some requests of an undeclared route go elsewhere, or come from elsewhere.
    pub(super) fn touch(&self, route: &Route, set: &Undeclared<Route>) -> bool {
        let near = [&self.near_new, &self.near_gone];
        near.iter()
            .any(|near| near.with_route(route, set).next().is_some())
    }

    /// Returns whether all requests of an undeclared route go elsewhere.
    pub(super) fn take_all(&self, route: &Route, set: &Undeclared<Route>) -> bool {
        match (&route.shape, &route.pattern) {
            (Some(shape), _) => {
                let mut near = self.near_new.with_route(route, set);
                near.any(|number| shape.is_within(self.near_new.key(number)))
            }
            (None, pattern) => pattern.as_ref().is_some_and(|key| self.new.contains(key)),
        }
    }
}
