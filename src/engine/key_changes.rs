//! The routes whose requests a reload moves.

use std::collections::HashSet;

use super::{key_index::KeyIndex, routes::Route};
use crate::route::{RouteKey, undeclared::BoundedMap};

/// The keys that a reload adds and removes. A `$default` that stays and takes more requests than before is as new, and one
/// that takes fewer is as gone.
#[derive(Debug, Default)]
pub(super) struct KeyChanges {
    pub(super) added: HashSet<RouteKey>,
    pub(super) removed: HashSet<RouteKey>,
    /// Keys that stay, with fewer requests or with more.
    pub(super) changed: HashSet<RouteKey>,
    /// The new keys that are closed.
    pub(super) closed: Vec<RouteKey>,
    pub(super) added_index: KeyIndex,
    pub(super) removed_index: KeyIndex,
}

impl KeyChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// Returns whether some requests of an undeclared route go elsewhere, or come from elsewhere.
    pub(super) fn touches(&self, route: &Route, set: &BoundedMap<Route>) -> bool {
        let indexes = [&self.added_index, &self.removed_index];
        indexes
            .iter()
            .any(|index| index.overlapping_route(route, set).next().is_some())
    }

    /// Returns whether all requests of an undeclared route go elsewhere.
    pub(super) fn takes_all_of(&self, route: &Route, set: &BoundedMap<Route>) -> bool {
        match (&route.shape, &route.pattern) {
            (Some(shape), _) => {
                let mut takers = self.added_index.overlapping_route(route, set);
                takers.any(|number| shape.is_within(self.added_index.key(number)))
            }
            (None, pattern) => pattern.as_ref().is_some_and(|key| self.added.contains(key)),
        }
    }
}
