//! Succession of routes: the balances that routes begin with when a reload moves requests between them.
//!
//! A route that gets a key of its own inherits from each route that took one of its requests before: other keys,
//! undeclared routes, and routes that have lost their key. A route that takes requests of a removed key inherits
//! likewise. [`Successor`] defines the balance with which an heir begins: for each limit the largest usage of its
//! sources, and for slots the sum.
//!
//! # Invariants
//!
//! - **No request gains by a move.** Each route that took a request before is among the sources of the route that takes
//!   it now, unless it is that route itself with its own buckets. A source too many errs against the caller.
//! - **Like with like.** Limits are [paired](pairs) by what they are: a rate inherits from a rate, a shadow from a
//!   shadow. What has no pair begins full.
//! - **Listed first, closed later.** [`successions`](RuleSet::successions) takes long and closes nothing;
//!   [`succeed`](RuleSet::succeed) closes the sources and is short. Routes that are entered in between are handed over
//!   by [`succeed_late`](RuleSet::succeed_late), and *add* to what an heir has inherited by then.
//! - **Clients keep their balances.** Buckets of clients lie in the table by plan and limit, not by route, and inherit
//!   nothing here.
//!
//! Undeclared paths are stored only as hashes, of the path and of its segments, which suffice to find the keys that
//! match.
//!
//! # Who may call it
//!
//! A [reload](super), in the order that [`active`](super::super::active) documents. Requests also call
//! [`RuleSet::inherit_lost_keys`].

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
    rules::{LimitTemplate, pairs},
};

/// A route, and all limits from which it inherits.
#[derive(Debug)]
pub(in crate::engine) struct Inheritance<'a> {
    /// The route of the new rules, which are not in force yet.
    heir: &'a Route,
    /// The limits of each route from which it inherits.
    sources: Vec<&'a [BoundLimit]>,
}

impl RuleSet {
    /// Lists the declared routes, by their keys.
    pub(in crate::engine) fn declared(&self) -> impl Iterator<Item = (&RouteKey, &Route)> {
        let routes = self.table.values();
        routes.filter_map(|route| Some((route.pattern.as_ref()?, route)))
    }

    /// Lists the declared routes that share requests with a key. The first call indexes all of them.
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

    /// Indexes the undeclared routes that are kept apart, as they are now. Empty where none are.
    fn undeclared_indexes(&self) -> Vec<UndeclaredIndex<'_>> {
        let sets = self.undeclared.iter();
        let sets = sets.flat_map(|UndeclaredRoutes { templates, paths }| [templates, paths]);
        sets.map(UndeclaredIndex::of).collect()
    }

    /// Returns the limits of the route that had exactly the requests of an added key, lost or undeclared.
    ///
    /// `named` is made by [`RuleSet::named_by_key`], once for many keys.
    pub(in crate::engine) fn own_of<'a>(
        &'a self,
        key: &RouteKey,
        named: &HashMap<&RouteKey, &'a Route>,
    ) -> Option<&'a [BoundLimit]> {
        let lost = self.lost_keys.overlapping(key, |lost| lost == key).next();
        lost.or_else(|| self.undeclared_as(key, named).map(|route| &*route.own))
    }

    /// Returns the undeclared route that had exactly the requests of an added key: by its path, if that is literal, or
    /// by the template of the host's router.
    ///
    /// `named` is made by [`RuleSet::named_by_key`], once for many keys.
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

    /// Finds the undeclared routes that the host's router has a name for, by that name as a key.
    pub(in crate::engine) fn named_by_key(&self) -> HashMap<&RouteKey, &Route> {
        let mut named = HashMap::new();
        for route in self.named_routes() {
            if let Some(key) = &route.pattern {
                named.entry(key).or_insert(route);
            }
        }
        named
    }

    /// Makes an undeclared route of the rules before as it goes on under these. `set` is the one that it lies in.
    ///
    /// The new route shares the buckets of `before`, unless a key takes some of its requests or gives it some: then its
    /// buckets are new, and the old ones are closed.
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

    /// Starts an undeclared route that is new with what was used under the lost keys whose requests it takes.
    pub(in crate::engine) fn inherit_lost_keys(&self, route: &Route, set: &BoundedMap<Route>) {
        let sources = self.lost_keys.overlapping_route(route, set, |_| true);
        inherit(&self.limiter, &route.own, sources, false);
    }

    /// Returns whether an undeclared route goes on under these rules. `set` is the one that it lies in.
    pub(in crate::engine) fn keeps(&self, before: &Route, set: &BoundedMap<Route>) -> bool {
        !self.key_changes.takes_all_of(before, set)
    }

    /// Lists the routes that begin with what was used elsewhere, with their sources. Nothing is closed yet: requests go
    /// on meanwhile.
    pub(in crate::engine) fn successions<'a>(&'a self, before: &'a Self) -> Vec<Inheritance<'a>> {
        let key_changes = &self.key_changes;
        let mut all = Vec::new();
        let mut inherit = |heir: &'a Route, sources: Vec<&'a [BoundLimit]>| {
            all.push(Inheritance { heir, sources });
        };
        let known: HashMap<_, _> = before.declared().collect();
        let indexes = before.undeclared_indexes();
        // Keys without limits that are not written any more. They may have taken requests of lost keys, uncounted, and
        // give them away now.
        let unlimited = before.declared().filter(|(_, route)| route.own.is_empty());
        let unlimited = unlimited.filter(|(key, _)| key_changes.removed.contains(key));
        let unlimited: KeyIndex = unlimited.map(|(key, _)| key.clone()).collect();
        for (key, route) in self.declared() {
            if key_changes.added.contains(key) {
                inherit(route, self.sources_of(key, before, &indexes));
            } else if key_changes.changed.contains(key) {
                // The route keeps its own balance and inherits those of the keys whose requests it gets.
                let known = known.get(key).map(|known| &*known.own);
                let incoming = before.declared_overlapping(key);
                let incoming = incoming
                    .filter(|(other, _)| key_changes.removed.contains(other) && other.beats(key));
                let incoming = incoming.map(|(_, route)| &*route.own);
                // Usage of lost keys whose requests went to an exempt or unlimited key, which gives them away now.
                let was_passed_on = |lost: &RouteKey| {
                    let mut takers = unlimited.overlapping(lost);
                    takers.any(|number| unlimited.key(number).beats(key))
                };
                let incoming = incoming.chain(before.lost_keys.overlapping(key, was_passed_on));
                inherit(route, known.into_iter().chain(incoming).collect());
            }
        }
        // Many requests share a route, and nobody knows which of them come from where: so the sources are all removed
        // keys.
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
        // Set if undeclared routes get buckets of their own by this reload, or lose them.
        let changes = before.undeclared.is_some() != self.undeclared.is_some();
        if changes || self.undeclared.is_none() && !key_changes.is_empty() {
            let mut sources = incoming();
            sources.push(&before.shared.own);
            // They shared nothing before: the shared bucket begins with whatever was used on any of them.
            if self.undeclared.is_none() && changes {
                sources.extend(before.undeclared_owns());
                sources.extend(self.lost_keys.matching(|_| true));
            }
            inherit(&self.shared, sources);
        }
        // Those of templates stand first in both.
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

    /// Hands over what was used, and closes the buckets of all sources and of all lost keys. From then on requests that
    /// need one of them wait for these rules.
    pub(in crate::engine) fn succeed(&self, successions: Vec<Inheritance<'_>>, before: &Self) {
        for Inheritance { heir, sources } in successions {
            inherit(&self.limiter, &heir.own, sources, false);
        }
        let follows = LimitTemplate::any_follows;
        self.lost_keys
            .close(|history| follows(&before.default, history) && !follows(&self.default, history));
    }

    /// Hands over what was used on undeclared routes that were entered in the rules before while these were made. To be
    /// called after those are sealed, and after [`adopt`](RuleSet::adopt).
    pub(in crate::engine) fn succeed_late(&self, before: &Self) {
        let late = |heir: &Route, route: &Route| {
            inherit(&self.limiter, &heir.own, [&*route.own], true);
        };
        let indexes = before.undeclared_indexes();
        // Declared keys may have taken routes that were entered late; what none has taken was adopted, or goes to the
        // shared route.
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

    /// Lists the limits from which an added key inherits: declared routes, lost keys, undeclared routes that it
    /// overlaps with, and the shared ones, if some of its requests may have found no room elsewhere.
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
                // A full set has sent further routes to its overflow, and nobody knows which.
                let full = [templates, paths].into_iter().filter(|set| set.is_full());
                sources.extend(full.map(|set| &*set.overflow().own));
            }
        }
        sources
    }

    /// Lists the routes of those for which there was no room: of templates, then of paths.
    fn overflows(&self) -> Vec<&Route> {
        let sets = self.undeclared.iter();
        sets.flat_map(|sets| [sets.templates.overflow(), sets.paths.overflow()])
            .collect()
    }

    /// Lists the limits of all undeclared routes that are kept apart, and of those for which there was no room.
    fn undeclared_owns(&self) -> Vec<&[BoundLimit]> {
        let sets = self.undeclared.iter();
        let sets = sets.flat_map(|UndeclaredRoutes { templates, paths }| [templates, paths]);
        let kept = sets.flat_map(|set| set.iter().map(|(_, route)| &*route.own));
        let overflows = self.overflows().into_iter().map(|route| &*route.own);
        kept.chain(overflows).collect()
    }
}

/// Pairs the limits of a source with those of an heir, the latter by number. A limit that has become one of the heir's,
/// reload by reload, is paired with that, whatever it was when the source was closed. `limits` are those of the heir.
///
/// A limit of the source without a pair is left out.
fn paired<'a>(
    source: &'a [BoundLimit],
    heir: &[BoundLimit],
    limits: &[Limit],
) -> Vec<(usize, &'a BoundLimit)> {
    let (mut paired, mut others) = (Vec::new(), Vec::new());
    for before in source {
        let mut found = heir.iter();
        match found.position(|bound| bound.history.is(&before.history)) {
            Some(index) => paired.push((index, before)),
            None => others.push(before),
        }
    }
    let is_free = |index: &usize| paired.iter().all(|(taken, _)| taken != index);
    let free: Vec<usize> = (0..heir.len()).filter(is_free).collect();
    let limits: Vec<Limit> = free.iter().map(|index| limits[*index].clone()).collect();
    let pairs = pairs(others.iter().map(|bound| &bound.limit), &limits);
    let pairs = free.into_iter().zip(pairs);
    paired.extend(pairs.filter_map(|(index, pair)| Some((index, others[pair?]))));
    paired
}

/// Starts the limits of a route with what was used of those that they are paired with, and closes the buckets of the
/// latter. A limit that shares its bucket with the source keeps it. `adds`: what is inherited comes on top of what the
/// heir has.
///
/// All sources of one limit are handed over together, since an heir begins with the largest of them, and with
/// the sum of slots.
fn inherit<'a>(
    limiter: &Limiter,
    heir: &[BoundLimit],
    sources: impl IntoIterator<Item = &'a [BoundLimit]>,
    adds: bool,
) {
    let limits: Vec<Limit> = heir.iter().map(|bound| bound.limit.clone()).collect();
    let mut from: HashMap<usize, Vec<_>> = HashMap::new();
    for source in sources {
        for (index, before) in paired(source, heir, &limits) {
            // Clients' buckets are not the route's.
            if let Storage::Bucket(bucket) = &before.storage {
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
        if let Storage::Bucket(bucket) = &bound.storage {
            let successor = Successor {
                bucket,
                history: &bound.history,
                version: bound.version,
                meter: bound.limit.meter,
            };
            successor.inherit(&from, || limiter.now_ordered(), adds);
        }
    }
}
