//! What becomes of routes that lose their keys.

use std::sync::Arc;

use super::super::{
    key_changes::KeyChanges,
    lost_keys::{LostKey, LostKeys},
    routes::{Route, UNDECLARED, UndeclaredRoutes},
    rule_set::RuleSet,
};
use crate::{clock::Nanos, limiter::limit_set::Storage};

impl LostKeys {
    /// The lost keys that the rules before remembered and that have something left, and the keys lost since.
    pub(in crate::engine) fn after(
        before: &RuleSet,
        key_changes: &KeyChanges,
        per_route: bool,
        now: Nanos,
    ) -> Self {
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
        for route in &before.lost_keys.routes {
            let LostKey { key, own } = &**route;
            let is_spent = own.iter().all(|bound| match &bound.home {
                Storage::Bucket(bucket) => bucket.is_spent(now),
                Storage::Client(_) => true,
            });
            if !is_spent && !key_changes.added.contains(key) {
                lost_keys.add(|| Arc::clone(route));
            }
        }
        lost_keys
    }
}
