//! Makes the list of lost keys of a reload.
//!
//! A key is lost with all usage under it. It stays on the list, from rule set to rule set, until its buckets are spent:
//! all charges have come back, and no request holds anything there.

use std::sync::Arc;

use super::super::{
    key_changes::KeyChanges,
    lost_keys::{LostKey, LostKeys},
    routes::{Route, UNDECLARED, UndeclaredRoutes},
    rule_set::RuleSet,
};
use crate::{
    clock::Nanos,
    limiter::limit_set::Storage,
    route::{CatchAll, RouteKey, key::Pattern},
};

impl LostKeys {
    /// Lists the keys that this reload has removed, and then the lost keys of the rules before that have something
    /// left. A key that is added again leaves the list: its new route has inherited, and is charged from now on.
    ///
    /// `catch_all` tells which requests `$default` takes under the new rules. One that leaves the routes of the host's
    /// router alone takes less than was charged under its name. It stays on the list, for those of the routes that are
    /// entered later. `per_route` tells if the new rules keep undeclared routes apart: then the routes that shared a
    /// bucket until now may get one of their own, and begin with what was used in the shared one. `now` is read from
    /// the limiter's clock.
    pub(in crate::engine) fn after(
        before: &RuleSet,
        key_changes: &KeyChanges,
        catch_all: CatchAll,
        per_route: bool,
        now: Nanos,
    ) -> Self {
        // The latest losses first: if the list is full, the earliest are left out.
        let mut lost_keys = Self::default();
        let routes = before.declared();
        let routes = routes.filter(|(key, _)| key_changes.removed.contains(key));
        for (key, route) in routes {
            lost_keys.add(|| LostKey::new(key, &route.own));
        }
        if let (true, Ok(key)) = (per_route, UNDECLARED.parse()) {
            let mut add = |route: &Route| lost_keys.add(|| LostKey::new(&key, &route.own));
            match &before.undeclared {
                None => add(&before.shared),
                // Routes for which there was no room may find some now.
                Some(UndeclaredRoutes { templates, paths }) if !key_changes.is_empty() => {
                    let full = [templates, paths].into_iter().filter(|set| set.is_full());
                    full.for_each(|set| add(set.overflow()));
                }
                Some(_) => {}
            }
        }
        let takes_all_again = |key: &RouteKey| match catch_all {
            CatchAll::Unmatched => true,
            CatchAll::Unrouted => *key.pattern() != Pattern::Default,
        };
        // Each earlier loss is looked at anew: one that is spent by now leaves the list.
        for route in &before.lost_keys.routes {
            let LostKey { key, own } = &**route;
            let is_spent = own.iter().all(|bound| match &bound.storage {
                Storage::Bucket(bucket) => bucket.is_spent(now),
                // The table of clients keeps those, whatever routes there are.
                Storage::Client(_) => true,
            });
            let is_back = key_changes.added.contains(key) && takes_all_again(key);
            if !is_spent && !is_back {
                lost_keys.add(|| Arc::clone(route));
            }
        }
        lost_keys
    }
}
