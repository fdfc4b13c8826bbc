//! Indexes of keys and of undeclared routes, which find routes that share requests without comparing all of them.
//!
//! Rules may have tens of thousands of keys, and a reload compares keys with keys and with routes. Each index narrows
//! them down by the segments of paths ([`Overlaps`]) to candidates, which are then compared exactly.
//!
//! # Invariants
//!
//! - **None is missed.** Candidates are a superset of the routes that share requests: the index ignores methods, a
//!   parameter matches all literals, and an unknown route is always a candidate.
//! - **Hashes under one secret.** Undeclared paths are identified by hashes under the secret of their set, which its
//!   successors keep. All sets of paths that one index is compared with descend from each other.
//!
//! # Who may touch it
//!
//! The [reload](super::reload), and the first request of an undeclared path, which looks for lost keys.

use std::sync::OnceLock;

use super::routes::Route;
use crate::route::{
    RouteKey,
    overlaps::{Overlaps, Trail},
    undeclared::BoundedMap,
};

/// Keys, each under a number, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    /// The keys by their numbers.
    keys: Vec<RouteKey>,
    /// The numbers of keys, by the segments of their paths.
    overlaps: Overlaps,
    /// The same by the hashes of undeclared paths. Made when one is first looked for, and good for all sets of that
    /// family.
    by_path: OnceLock<Overlaps>,
}

impl KeyIndex {
    /// Adds a key under the next number. Not after a path was looked for.
    pub(super) fn insert(&mut self, key: RouteKey) {
        self.overlaps.insert(&key);
        self.keys.push(key);
    }

    /// Lists the numbers of all keys that share requests with a key, in ascending order.
    pub(super) fn overlapping(&self, key: &RouteKey) -> impl Iterator<Item = usize> {
        let numbers = self.overlaps.with(key).into_iter();
        numbers.filter(move |number| key.meets(&self.keys[*number]))
    }

    /// Lists the numbers of all keys that share requests with an undeclared route, in ascending order. `set` is the one
    /// that the route lies in.
    pub(super) fn overlapping_route(
        &self,
        route: &Route,
        set: &BoundedMap<Route>,
    ) -> impl Iterator<Item = usize> {
        let numbers = match (&route.shape, &route.pattern) {
            (Some(shape), _) => {
                let trail = |key: &RouteKey| Trail::of(key, |segment| set.hash(&segment));
                let by_path = || self.keys.iter().map(trail).collect();
                let by_path: &Overlaps = self.by_path.get_or_init(by_path);
                by_path.with_trail(Some(&shape.trail()))
            }
            (None, Some(pattern)) => self.overlaps.with(pattern),
            (None, None) => (0..self.keys.len()).collect(),
        };
        numbers
            .into_iter()
            .filter(move |number| route.meets(&self.keys[*number], set))
    }

    /// Returns the key of a number.
    pub(super) fn key(&self, number: usize) -> &RouteKey {
        &self.keys[number]
    }
}

impl FromIterator<RouteKey> for KeyIndex {
    fn from_iter<I: IntoIterator<Item = RouteKey>>(keys: I) -> Self {
        let mut index = Self::default();
        for key in keys {
            index.insert(key);
        }
        index
    }
}

/// The undeclared routes of a set, as they are at one moment. A route that is entered later is not in it.
#[derive(Debug)]
pub(super) struct UndeclaredIndex<'a> {
    /// The set, for its hashes.
    set: &'a BoundedMap<Route>,
    /// The routes by number.
    routes: Vec<&'a Route>,
    /// The numbers of routes, by the hashes of their segments. Routes of which nothing is known take any path.
    overlaps: Overlaps,
}

impl<'a> UndeclaredIndex<'a> {
    /// Lists the routes of a set and indexes them.
    pub(super) fn of(set: &'a BoundedMap<Route>) -> Self {
        let routes: Vec<&Route> = set.iter().map(|(_, route)| route).collect();
        let trail = |route: &&Route| match (&route.shape, &route.pattern) {
            (Some(shape), _) => Some(shape.trail()),
            (None, Some(pattern)) => Trail::of(pattern, |segment| set.hash(&segment)),
            (None, None) => None,
        };
        Self {
            set,
            overlaps: routes.iter().map(trail).collect(),
            routes,
        }
    }

    /// Lists all routes of the index.
    pub(super) fn routes(&self) -> impl Iterator<Item = &'a Route> {
        self.routes.iter().copied()
    }

    /// Lists the routes that share requests with a key.
    pub(super) fn overlapping(&self, key: &RouteKey) -> impl Iterator<Item = &'a Route> {
        let trail = Trail::of(key, |segment| self.set.hash(&segment));
        let numbers = self.overlaps.with_trail(trail.as_ref()).into_iter();
        numbers
            .map(|number| self.routes[number])
            .filter(move |route| route.meets(key, self.set))
    }
}
