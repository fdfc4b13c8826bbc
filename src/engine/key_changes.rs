//! The changes of keys that a reload makes, and the routes whose requests they move.
//!
//! A balance follows its requests. Most reloads move none: they keep all keys. Where one adds or removes keys, each
//! route that gives requests away or takes some begins with a new bucket that [inherits](super::reload) from those
//! before; all others keep theirs.
//!
//! # Invariants
//!
//! - **Limits make a key count.** A key that is exempt or unlimited has no balance: to get a limit is to be added, and
//!   to lose the last one is to be removed. It takes requests all the same, so it is removed, too, when it is not
//!   written any more.
//! - **Each key is in one set at most**: added, removed, or changed and staying. The one exception is a `$default`
//!   whose catch-all changes: it is added or removed, and changed.
//! - **Made once**, before the new rules are compiled, and read only after that.
//!
//! # Who may touch it
//!
//! The [reload](super::reload) compares the keys and reads the result, which lies in the new
//! [`RuleSet`](super::rule_set::RuleSet). No request touches it.

use std::collections::HashSet;

use super::{key_index::KeyIndex, routes::Route};
use crate::route::{RouteKey, undeclared::BoundedMap};

/// The keys that a reload adds, removes or moves requests to or from.
#[derive(Debug, Default)]
pub(super) struct KeyChanges {
    /// Keys with limits that had none before. A `$default` that stays and takes more requests than before is one of
    /// them.
    pub(super) added: HashSet<RouteKey>,
    /// Keys that had limits and have none any more, and keys without limits that are not written any more. A `$default`
    /// that stays and takes fewer requests is one of them.
    pub(super) removed: HashSet<RouteKey>,
    /// Keys that stay, with fewer requests or with more.
    pub(super) changed: HashSet<RouteKey>,
    /// The added keys that are closed. Nothing is charged there, and the limits of the routes before wait with their
    /// balances until the key is opened.
    pub(super) closed: Vec<RouteKey>,
    /// The added keys, to be found by the requests that they take.
    pub(super) added_index: KeyIndex,
    /// The removed keys, to be found by the requests that they give away.
    pub(super) removed_index: KeyIndex,
}

impl KeyChanges {
    /// Returns whether no request moves: then all routes keep their buckets.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// Returns whether some requests of an undeclared route go to a key, or come from one. `set` is the one that the
    /// route lies in.
    pub(super) fn touches(&self, route: &Route, set: &BoundedMap<Route>) -> bool {
        let indexes = [&self.added_index, &self.removed_index];
        indexes
            .iter()
            .any(|index| index.overlapping_route(route, set).next().is_some())
    }

    /// Returns whether an added key takes all requests of an undeclared route, which then ends with the rules before.
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
