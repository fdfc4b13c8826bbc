//! How the rules that hold next take over what those before have come by.

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
    /// Takes over the undeclared routes of whose place it takes.
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
                // Nobody has sealed it before it holds.
                let _ = own.get(*hash, || self.adopted(route, before));
            }
        }
    }

    /// Has all undeclared routes that are entered from now on be entered in the rules that hold next.
    pub(super) fn seal(&self) {
        if let Some(UndeclaredRoutes { templates, paths }) = &self.undeclared {
            templates.seal();
            paths.seal();
        }
    }

    /// Counts the undeclared routes that have limits of their own. The count never falls.
    pub(in crate::engine) fn entered(&self) -> usize {
        let sets = self.undeclared.iter();
        let sets = sets.flat_map(|UndeclaredRoutes { templates, paths }| [templates, paths]);
        sets.map(|set| set.iter().count()).sum()
    }

    /// Each route that nobody declared and that the host's router has a name for.
    pub(in crate::engine) fn named_routes(&self) -> impl Iterator<Item = &Route> {
        let sets = self.undeclared.iter();
        let routes = sets.flat_map(|undeclared| undeclared.templates.iter());
        routes.map(|(_, route)| route)
    }

    /// Each other route that nobody declared, and those who share their limits.
    pub(in crate::engine) fn unnamed_routes(&self) -> impl Iterator<Item = &Route> {
        let sets = self.undeclared.iter();
        let routes = sets.flat_map(|UndeclaredRoutes { templates, paths }| {
            let own = paths.iter().map(|(_, route)| route);
            own.chain([templates.overflow(), paths.overflow()])
        });
        routes.chain([&self.shared])
    }

    /// The limits of all routes that nobody declared.
    pub(in crate::engine) fn undeclared_limits(&self) -> impl Iterator<Item = &BoundLimit> {
        let routes = self.named_routes().chain(self.unnamed_routes());
        routes.flat_map(|route| &route.own)
    }

    /// Makes the rules that were asked for before, so that no request has to. Where there are other plans of clients,
    /// requests make them.
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

    /// Has all routes and limits count what was admitted.
    pub(in crate::engine) fn settle(&self) {
        let routes = self.table.values();
        let routes = routes
            .chain(self.named_routes())
            .chain(self.unnamed_routes());
        for prepared in routes.flat_map(|route| &route.variants) {
            if let Some(prepared) = prepared.get() {
                prepared.settle();
            }
        }
        self.combined_limits.settle();
    }
}
