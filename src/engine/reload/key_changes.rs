//! Compares the keys of new rules with those in force.
//!
//! The [`Table`] decides which key takes a request: the most specific that matches. A key thus gives requests to an
//! added one only if they share some and the added one *beats* it. For a key with a literal path this is looked up,
//! which is exact. For others each overlapping pair is compared, which may name a route too many: that route then
//! inherits one balance more, and errs against the caller.
//!
//! # Who may call it
//!
//! A [reload](super), before it compiles the rules: the registry must know which limits keep their queues.

use std::{cell::LazyCell, collections::HashSet};

use http::{Extensions, Method};

use super::super::{key_changes::KeyChanges, routes::Route, rule_set::RuleSet};
use crate::{
    route::{CatchAll, RouteKey, key::Pattern, overlaps::Overlaps, readings::Head, table::Table},
    rules::{Handover, Rules, others},
};

impl KeyChanges {
    /// Compares the keys of some rules with those in force. Keys that cannot be read are left out: the rules fail to
    /// compile later, and say which.
    pub(in crate::engine) fn between(before: &RuleSet, rules: &Rules) -> Self {
        let keys = rules.keys();
        // The new keys as requests will find them, before there are routes to put there.
        let mut table = Table::new();
        for (index, (key, _)) in keys.iter().enumerate() {
            let _ = table.insert(key, index);
        }
        // Usage of a route from before its key was exempt or unlimited is kept as if it had no key, for the key that
        // takes its requests when it has a limit again, or has no key any more.
        let limited = || (before.declared()).filter(|(_, route)| !route.own.is_empty());
        let known: HashSet<&RouteKey> = limited().map(|(key, _)| key).collect();
        // Keys that are neither exempt nor unlimited count requests.
        let staying = keys.iter().filter(|(_, counts)| *counts);
        let staying: HashSet<&RouteKey> = staying.map(|(key, _)| key).collect();
        let added = keys
            .iter()
            .filter(|(key, counts)| *counts && !known.contains(key));
        let written: HashSet<&RouteKey> = keys.iter().map(|(key, _)| key).collect();
        let removed = before
            .declared()
            .filter(|(key, route)| match route.own.is_empty() {
                true => !written.contains(key),
                false => !staying.contains(key),
            });
        // `takes_from` needs both sets below; the rest follows from them.
        let mut key_changes = Self {
            added: added.map(|(key, _)| key.clone()).collect(),
            removed: removed.map(|(key, _)| key.clone()).collect(),
            ..Self::default()
        };
        let stays = |key: &&RouteKey| known.contains(key) && staying.contains(key);
        let is_default = |key: &&RouteKey| *key.pattern() == Pattern::Default;
        let default = keys.iter().map(|(key, _)| key).find(is_default);
        let mut changed = HashSet::new();
        // A `$default` that stays may exchange requests with the routes of the host's router that have no key.
        if let Some(default) = default.filter(stays) {
            let (before, after) = (before.table.takes(), rules.catch_all);
            if before != after {
                match after {
                    CatchAll::Unmatched => key_changes.added.insert(default.clone()),
                    CatchAll::Unrouted => key_changes.removed.insert(default.clone()),
                };
                changed.insert(default.clone());
            }
        }
        // Indexes for undeclared routes, of which there may be thousands.
        key_changes.added_index = key_changes.added.iter().cloned().collect();
        key_changes.removed_index = key_changes.removed.iter().cloned().collect();
        // Keys that stay and give requests to an added one.
        for key in &key_changes.added {
            let taken = key_changes.takes_from(before, key).into_iter();
            changed.extend(taken.filter_map(|route| route.pattern.clone()));
        }
        let overlaps = LazyCell::new(|| Overlaps::of(keys.iter().map(|(key, _)| key)));
        // Keys that stay and take requests of a removed one.
        for key in &key_changes.removed {
            let found = with_head(key, |head| table.find(head).copied());
            match found {
                Some(found) => {
                    // One path, so its takers are looked up: of the path's `HEAD` requests it may be another key.
                    let heads = with_head_of_get(key, |head| table.find(head).copied());
                    let heads = heads.map(|index| &keys[index].0);
                    changed.extend(heads.filter(|taker| key.beats(taker)).cloned());
                    changed.extend(found.map(|index| keys[index].0.clone()));
                }
                None => {
                    // Many paths: whatever overlaps and is less specific may take some.
                    let takers = overlaps.with(key).into_iter();
                    let takers = takers.map(|index| &keys[index].0).filter(stays);
                    let takers = takers.filter(|taker| taker.meets(key) && key.beats(taker));
                    changed.extend(takers.cloned());
                }
            }
        }
        let closed = rules.closed_keys();
        key_changes.closed = closed
            .filter(|key| key_changes.added.contains(key))
            .collect();
        // A key that is added or removed is handled as such.
        changed.retain(|key| stays(&key));
        key_changes.changed = changed;
        key_changes
    }

    /// Tells the registry which limits cannot keep their buckets, and which added keys take over a waiting line.
    ///
    /// An added key takes over the line of the route that had exactly its requests, so that those who wait there keep
    /// their places. A closed one keeps the limits of all routes that it takes from, so that they are found when it is
    /// opened.
    pub(in crate::engine) fn handover(&self, before: &RuleSet) -> Handover {
        let named = before.named_by_key();
        // A line is taken over by its number, which the first limit of a route bears.
        let lines = self.added.iter().filter_map(|key| {
            let own = before.own_of(key, &named)?;
            Some((key.clone(), own.first()?.queue))
        });
        let closed = self.closed.iter().map(|key| {
            // A closed key may have taken requests of undeclared routes, of keys, and of lost keys. Each of their
            // limits is listed once.
            let undeclared = before.default.iter().map(|template| &template.limit);
            let mut all = others(undeclared, &[]);
            let taken = self.takes_from(before, key).into_iter();
            let lost = before.lost_keys.overlapping(key, |_| true);
            for own in taken.map(|route| &*route.own).chain(lost) {
                let limits = own.iter().map(|bound| &bound.limit);
                all.extend(others(limits, &all));
            }
            (key.clone(), all)
        });
        Handover {
            lines: lines.collect(),
            changed: self.changed.clone(),
            closed: closed.collect(),
        }
    }

    /// Lists the declared routes that took requests before which an added key takes now. A key with limits, but without
    /// requests to give, may be among them: see the head of the file.
    pub(in crate::engine) fn takes_from<'a>(
        &self,
        before: &'a RuleSet,
        key: &RouteKey,
    ) -> Vec<&'a Route> {
        // One path: the table tells which route took it before.
        let found = with_head(key, |head| before.table.find(head));
        // A `$default` that takes more requests than before goes on with its own.
        let takes =
            |other: &RouteKey| self.removed.contains(other) || key.beats(other) || key == other;
        // A key that is exempt or unlimited is passed over, as if it were not there.
        let passed_over = matches!(found, Some(Some(route)) if route.own.is_empty());
        if let Some(found) = found.filter(|_| !passed_over) {
            let heads = with_head_of_get(key, |head| before.table.find(head));
            let heads = heads.filter(|route| route.pattern.as_ref().is_some_and(takes));
            return found.into_iter().chain(heads).collect();
        }
        // Many paths: whatever overlaps may have taken some.
        let routes = before.declared_overlapping(key);
        let routes = routes.filter(|(other, _)| takes(other));
        routes.map(|(_, route)| route).collect()
    }
}

/// Looks up the requests of a key that is a method and a literal path. `None` if it is not: such keys have many
/// requests.
pub(in crate::engine) fn with_head<T>(
    key: &RouteKey,
    look: impl FnOnce(&Head<'_>) -> T,
) -> Option<T> {
    let (method, path) = key.literal()?;
    let none = Extensions::new();
    Some(look(&Head::alone(method, &path, &none)))
}

/// Looks up the `HEAD` requests of a key that is `GET` and a literal path. `None` if it is not, or if nothing takes
/// them.
fn with_head_of_get<T>(key: &RouteKey, look: impl FnOnce(&Head<'_>) -> Option<T>) -> Option<T> {
    let (method, path) = key.literal()?;
    let none = Extensions::new();
    (*method == Method::GET).then(|| look(&Head::alone(&Method::HEAD, &path, &none)))?
}
