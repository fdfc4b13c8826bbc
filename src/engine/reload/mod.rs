//! Reload: carries state over from the previous rule set.
//!
//! - [`key_changes`] compares the keys: which routes give requests away, and which take some.
//! - [`lost_keys`] remembers the routes that have lost their keys.
//! - [`succession`] hands balances from routes to their heirs.
//! - This file carries over undeclared routes and the limits that requests have asked for.
//!
//! [`active`](super::active) documents the order of the steps, and the requests meanwhile.
//!
//! # Invariants
//!
//! - **The previous rules are read, never changed**, except for their counts, their buckets, which are closed, and
//!   their sets of undeclared routes, which are sealed. They decide requests until the exchange.
//! - **Carrying over is idempotent.** [`adopt`](RuleSet::adopt) adds missing entries and leaves the rest. It runs once
//!   while requests add routes, and again for the few that were added since.
//! - **No request sees it half done.** No request reaches the new rule set before the exchange.
//!
//! # Who may call it
//!
//! [`ActiveRules`](super::active::ActiveRules), which holds the lock of the registry. A request calls
//! [`inherit_lost_keys`](RuleSet::inherit_lost_keys) for an undeclared route that it adds.

mod key_changes;
mod lost_keys;
mod succession;

use std::collections::HashMap;

use super::{
    routes::{Route, UndeclaredRoutes},
    rule_set::RuleSet,
};
use crate::limiter::limit_set::BoundLimit;

impl RuleSet {
    /// Carries over the undeclared routes of the rules before, those that no key has taken over whole. Routes that are
    /// there are left alone. Does nothing if one of the two keeps no undeclared routes apart.
    pub(in crate::engine) fn adopt(&self, before: &Self) {
        let (Some(own), Some(before)) = (&self.undeclared, &before.undeclared) else {
            return;
        };
        for (own, before) in [
            (&own.templates, &before.templates),
            (&own.paths, &before.paths),
        ] {
            let kept = before.iter().filter(|(_, route)| self.keeps(route, before));
            for (hash, route) in kept {
                // A set is sealed only after it was in force, so there is no error.
                let _ = own.get(*hash, || self.adopted(route, before));
            }
        }
    }

    /// Sends all undeclared routes that are entered from now on to the next rules: who would enter one is told
    /// that these are outdated.
    pub(super) fn seal(&self) {
        if let Some(UndeclaredRoutes { templates, paths }) = &self.undeclared {
            templates.seal();
            paths.seal();
        }
    }

    /// Counts the undeclared routes that have limits of their own. The count never falls, so that two equal counts tell
    /// that nothing was entered between them.
    pub(in crate::engine) fn entered(&self) -> usize {
        let sets = self.undeclared.iter();
        let sets = sets.flat_map(|UndeclaredRoutes { templates, paths }| [templates, paths]);
        sets.map(|set| set.iter().count()).sum()
    }

    /// Lists the undeclared routes that the host's router has a name for.
    pub(in crate::engine) fn named_routes(&self) -> impl Iterator<Item = &Route> {
        let sets = self.undeclared.iter();
        let routes = sets.flat_map(|undeclared| undeclared.templates.iter());
        routes.map(|(_, route)| route)
    }

    /// Lists the other undeclared routes: those of paths, and up to three whose limits others share.
    pub(in crate::engine) fn unnamed_routes(&self) -> impl Iterator<Item = &Route> {
        let sets = self.undeclared.iter();
        let routes = sets.flat_map(|UndeclaredRoutes { templates, paths }| {
            let own = paths.iter().map(|(_, route)| route);
            own.chain([templates.overflow(), paths.overflow()])
        });
        routes.chain([&self.shared])
    }

    /// Lists the limits of all undeclared routes.
    pub(in crate::engine) fn undeclared_limits(&self) -> impl Iterator<Item = &BoundLimit> {
        let routes = self.named_routes().chain(self.unnamed_routes());
        routes.flat_map(|route| &route.own)
    }

    /// Makes the limits that requests have asked for under the rules before, so that no request has to. Where the plans
    /// or their variants have changed, requests make them.
    pub(in crate::engine) fn prepare_as(&self, before: &Self) {
        let variants = |state: &Self| -> Vec<_> {
            let plans = state.plans.iter();
            plans.map(|plan| plan.variants.len()).collect()
        };
        if variants(self) != variants(before) {
            return;
        }
        let old = before.table.values().chain(before.named_routes());
        let old: HashMap<&str, &Route> = old.map(|route| (&*route.key, route)).collect();
        let named = self.table.values().chain(self.named_routes());
        let pairs = named.filter_map(|route| Some((route, *old.get(&*route.key)?)));
        for (route, old) in pairs.chain([(&self.shared, &before.shared)]) {
            for plan in &self.plans {
                for variant in 0..plan.variants.len() {
                    let index = plan.first + variant;
                    if old.variants[index].get().is_some() {
                        route.variants[index].get_or_init(|| self.prepare(route, plan, variant));
                    }
                }
            }
        }
    }

    /// Sums up what was admitted, for all routes and limits. Counts that requests add meanwhile are seen by the next
    /// call.
    pub(in crate::engine) fn settle(&self) {
        let routes = self.table.values();
        let routes = routes
            .chain(self.named_routes())
            .chain(self.unnamed_routes());
        for limits in routes.flat_map(|route| &route.variants) {
            if let Some(limits) = limits.get() {
                limits.settle();
            }
        }
        self.combined_limits.settle();
    }
}
