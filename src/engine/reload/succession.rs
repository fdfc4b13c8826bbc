//! Succession of routes: the balances that routes begin with when a reload moves requests between them.
//!
//! A route that gets a key of its own inherits from each route that took one of its requests before: other keys, routes
//! that nobody declared, and routes that have lost their key. So does a route that takes requests of a key that is gone.
//! What an heir begins with is told in [`Successor`].
//!
//! Of routes that nobody declared only hashes are kept, of the path and of its segments, which tell the keys that match.

use std::collections::HashMap;

use http::Method;

use super::{
    super::{
        key_index::{KeyIndex, UndeclaredIndex},
        routes::{Route, UndeclaredRoutes},
        rule_set::RuleSet,
    },
    key_changes::with_head,
};
use crate::{
    limit::Limit,
    limiter::{
        Limiter,
        bucket::{Source, Successor},
        limit_set::{BoundLimit, Storage},
    },
    route::{RouteKey, overlaps::Overlaps, undeclared::BoundedMap},
    rules::pairs,
};

/// A route, and all limits from which it inherits.
#[derive(Debug)]
pub(in crate::engine) struct Inheritance<'a> {
    heir: &'a Route,
    sources: Vec<&'a [BoundLimit]>,
}

impl RuleSet {
    /// All declared routes, by their keys.
    pub(in crate::engine) fn declared(&self) -> impl Iterator<Item = (&RouteKey, &Route)> {
        let routes = self.table.values();
        routes.filter_map(|route| Some((route.pattern.as_ref()?, route)))
    }

    /// The declared routes that share requests with a key.
    pub(in crate::engine) fn declared_overlapping<'a>(
        &'a self,
        key: &RouteKey,
    ) -> impl Iterator<Item = (&'a RouteKey, &'a Route)> {
        let keys = || self.declared().map(|(key, _)| key);
        let overlaps = self.overlaps.get_or_init(|| Overlaps::of(keys()));
        let numbers = overlaps.with(key).into_iter();
        let routes = numbers.filter_map(|number| self.table.value(number));
        routes
            .filter_map(|route| Some((route.pattern.as_ref()?, route)))
            .filter(move |(other, _)| key.meets(other))
    }

    /// All routes that nobody declared and that are kept apart, as they are now.
    fn undeclared_indexes(&self) -> Vec<UndeclaredIndex<'_>> {
        let sets = self.undeclared.iter();
        let sets = sets.flat_map(|UndeclaredRoutes { templates, paths }| [templates, paths]);
        sets.map(UndeclaredIndex::of).collect()
    }

    /// The limits of the route that had just the requests of a key that is new.
    ///
    /// `named`: of [`RuleSet::named_by_key`].
    pub(in crate::engine) fn own_of<'a>(
        &'a self,
        key: &RouteKey,
        named: &HashMap<&RouteKey, &'a Route>,
    ) -> Option<&'a [BoundLimit]> {
        let lost = self.lost_keys.overlapping(key, |lost| lost == key).next();
        lost.or_else(|| self.undeclared_as(key, named).map(|route| &*route.own))
    }

    /// The route that nobody declared and that had just the requests of a key that is new.
    ///
    /// `named`: of [`RuleSet::named_by_key`].
    pub(in crate::engine) fn undeclared_as<'a>(
        &'a self,
        key: &RouteKey,
        named: &HashMap<&RouteKey, &'a Route>,
    ) -> Option<&'a Route> {
        let undeclared = self.undeclared.as_ref()?;
        let path = with_head(key, |head| match *head.method {
            Method::HEAD => None,
            _ => undeclared.paths.find(undeclared.paths.hash(head)),
        });
        path.flatten().or_else(|| named.get(key).copied())
    }

    /// The routes that nobody declared and that the host's router has a name for, by that name.
    pub(in crate::engine) fn named_by_key(&self) -> HashMap<&RouteKey, &Route> {
        let mut named = HashMap::new();
        for route in self.named_routes() {
            if let Some(key) = &route.pattern {
                named.entry(key).or_insert(route);
            }
        }
        named
    }

    /// A route that nobody declares, as it goes on under these rules.
    pub(in crate::engine) fn adopted(&self, before: &Route, set: &BoundedMap<Route>) -> Route {
        let is_touched = self.key_changes.touches(before, set);
        let route = self.undeclared_route(before, is_touched);
        if is_touched {
            let (key_changes, own) = (&self.key_changes, [&*before.own]);
            let incoming = |key: &RouteKey| key_changes.removed.contains(key);
            let incoming = self.lost_keys.overlapping_route(before, set, incoming);
            let sources = own.into_iter().chain(incoming);
            inherit(&self.limiter, &route.own, sources, false);
        }
        route
    }

    /// Has a route that nobody declared, and that is new, begin with what was used under keys that are gone.
    pub(in crate::engine) fn inherit_lost_keys(&self, route: &Route, set: &BoundedMap<Route>) {
        let sources = self.lost_keys.overlapping_route(route, set, |_| true);
        inherit(&self.limiter, &route.own, sources, false);
    }

    /// Whether a route that nobody declared goes on under these rules.
    pub(in crate::engine) fn keeps(&self, before: &Route, set: &BoundedMap<Route>) -> bool {
        !self.key_changes.takes_all_of(before, set)
    }

    /// Lists the routes that begin with what was used elsewhere. Nothing is closed yet: requests go on meanwhile.
    pub(in crate::engine) fn successions<'a>(&'a self, before: &'a Self) -> Vec<Inheritance<'a>> {
        let key_changes = &self.key_changes;
        let mut all = Vec::new();
        let mut inherit = |heir: &'a Route, sources: Vec<&'a [BoundLimit]>| {
            all.push(Inheritance { heir, sources });
        };
        let known: HashMap<_, _> = before.declared().collect();
        let indexes = before.undeclared_indexes();
        let unlimited = before.declared().filter(|(_, route)| route.own.is_empty());
        let unlimited = unlimited.filter(|(key, _)| key_changes.removed.contains(key));
        let unlimited: KeyIndex = unlimited.map(|(key, _)| key.clone()).collect();
        for (key, route) in self.declared() {
            if key_changes.added.contains(key) {
                inherit(route, self.sources_of(key, before, &indexes));
            } else if key_changes.changed.contains(key) {
                let known = known.get(key).map(|known| &*known.own);
                let incoming = before.declared_overlapping(key);
                let incoming = incoming
                    .filter(|(other, _)| key_changes.removed.contains(other) && other.beats(key));
                let incoming = incoming.map(|(_, route)| &*route.own);
                // What keys had used whose requests went to one that is exempt or unlimited, and that gives them away.
                let was_passed_on = |lost: &RouteKey| {
                    let mut takers = unlimited.overlapping(lost);
                    takers.any(|number| unlimited.key(number).beats(key))
                };
                let incoming = incoming.chain(before.lost_keys.overlapping(key, was_passed_on));
                inherit(route, known.into_iter().chain(incoming).collect());
            }
        }
        let incoming = || -> Vec<&[BoundLimit]> {
            let removed = before.declared();
            let removed = removed.filter(|(key, _)| key_changes.removed.contains(key));
            let earlier = before
                .lost_keys
                .matching(|key| key_changes.removed.contains(key));
            removed
                .map(|(_, route)| &*route.own)
                .chain(earlier)
                .collect()
        };
        let changes = before.undeclared.is_some() != self.undeclared.is_some();
        if changes || self.undeclared.is_none() && !key_changes.is_empty() {
            let mut sources = incoming();
            sources.push(&before.shared.own);
            if self.undeclared.is_none() && changes {
                sources.extend(before.undeclared_owns());
                sources.extend(self.lost_keys.matching(|_| true));
            }
            inherit(&self.shared, sources);
        }
        for (index, overflow) in self.overflows().into_iter().enumerate() {
            if changes || !key_changes.is_empty() {
                let known = before.overflows().get(index).copied();
                let mut sources = incoming();
                sources.push(&known.unwrap_or(&before.shared).own);
                inherit(overflow, sources);
            }
        }
        all
    }

    /// Hands over to routes what was used where their requests went before, and closes the buckets there.
    pub(in crate::engine) fn succeed(&self, successions: Vec<Inheritance<'_>>) {
        for Inheritance { heir, sources } in successions {
            inherit(&self.limiter, &heir.own, sources, false);
        }
        self.lost_keys.close();
    }

    /// As [`RuleSet::succeed`], of routes that were entered in the rules before in the meantime.
    pub(in crate::engine) fn succeed_late(&self, before: &Self) {
        let late = |heir: &Route, route: &Route| {
            inherit(&self.limiter, &heir.own, [&*route.own], true);
        };
        let indexes = before.undeclared_indexes();
        let new = self
            .declared()
            .filter(|(key, _)| self.key_changes.added.contains(*key));
        for (key, heir) in new {
            for route in indexes.iter().flat_map(|index| index.overlapping(key)) {
                late(heir, route);
            }
        }
        if self.undeclared.is_none() {
            for route in indexes.iter().flat_map(UndeclaredIndex::routes) {
                late(&self.shared, route);
            }
        }
    }

    /// All limits from which a key that is new inherits.
    fn sources_of<'a>(
        &'a self,
        key: &RouteKey,
        before: &'a Self,
        indexes: &[UndeclaredIndex<'a>],
    ) -> Vec<&'a [BoundLimit]> {
        let taken = self.key_changes.takes_from(before, key).into_iter();
        let mut sources: Vec<&[BoundLimit]> = taken.map(|route| &*route.own).collect();
        sources.extend(before.lost_keys.overlapping(key, |_| true));
        match &before.undeclared {
            None => sources.push(&before.shared.own),
            Some(UndeclaredRoutes { templates, paths }) => {
                let met = indexes.iter().flat_map(|index| index.overlapping(key));
                sources.extend(met.map(|route| &*route.own));
                let full = [templates, paths].into_iter().filter(|set| set.is_full());
                sources.extend(full.map(|set| &*set.overflow().own));
            }
        }
        sources
    }

    fn overflows(&self) -> Vec<&Route> {
        let sets = self.undeclared.iter();
        sets.flat_map(|sets| [sets.templates.overflow(), sets.paths.overflow()])
            .collect()
    }

    fn undeclared_owns(&self) -> Vec<&[BoundLimit]> {
        let sets = self.undeclared.iter();
        let sets = sets.flat_map(|UndeclaredRoutes { templates, paths }| [templates, paths]);
        let kept = sets.flat_map(|set| set.iter().map(|(_, route)| &*route.own));
        let overflows = self.overflows().into_iter().map(|route| &*route.own);
        kept.chain(overflows).collect()
    }
}

/// Has the limits of a route begin with what was used of those that they are paired with.
fn inherit<'a>(
    limiter: &Limiter,
    heir: &[BoundLimit],
    sources: impl IntoIterator<Item = &'a [BoundLimit]>,
    adds: bool,
) {
    let now = limiter.now();
    let limits: Vec<Limit> = heir.iter().map(|bound| bound.limit.clone()).collect();
    let mut from: HashMap<usize, Vec<_>> = HashMap::new();
    for source in sources {
        let known = source.iter().map(|bound| &bound.limit);
        for (index, pair) in pairs(known, &limits).into_iter().enumerate() {
            let Some(before) = pair.map(|pair| &source[pair]) else {
                continue;
            };
            if let Storage::Bucket(bucket) = &before.home {
                if !before.is(&heir[index]) {
                    from.entry(index).or_default().push(Source {
                        bucket,
                        history: &before.history,
                        meter: before.limit.meter,
                    });
                }
            }
        }
    }
    for (index, from) in from {
        let bound = &heir[index];
        if let Storage::Bucket(bucket) = &bound.home {
            let successor = Successor {
                bucket,
                history: &bound.history,
                version: bound.version,
            };
            successor.inherit(&from, now, adds);
        }
    }
}
