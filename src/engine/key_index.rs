//! Keys and undeclared routes that share requests, found without a look at each.

use std::sync::OnceLock;

use super::routes::Route;
use crate::route::{
    RouteKey,
    overlaps::{Overlaps, Trail},
    undeclared::BoundedMap,
};

/// Keys by number.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    keys: Vec<RouteKey>,
    overlaps: Overlaps,
    /// The same by the hashes of undeclared paths, made when one is first looked for.
    by_path: OnceLock<Overlaps>,
}

impl KeyIndex {
    /// Adds a key under the next number.
    pub(super) fn insert(&mut self, key: RouteKey) {
        self.overlaps.insert(&key);
        self.keys.push(key);
    }

    /// The numbers of all keys that share requests with a key.
    pub(super) fn overlapping(&self, key: &RouteKey) -> impl Iterator<Item = usize> {
        let numbers = self.overlaps.with(key).into_iter();
        numbers.filter(move |number| key.meets(&self.keys[*number]))
    }

    /// The numbers of all keys that share requests with a route that nobody declared.
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

/// The routes of a set that nobody declared, as they are now.
#[derive(Debug)]
pub(super) struct UndeclaredIndex<'a> {
    set: &'a BoundedMap<Route>,
    routes: Vec<&'a Route>,
    overlaps: Overlaps,
}

impl<'a> UndeclaredIndex<'a> {
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

    pub(super) fn routes(&self) -> impl Iterator<Item = &'a Route> {
        self.routes.iter().copied()
    }

    /// Returns the keys that share requests with a key.
    pub(super) fn overlapping(&self, key: &RouteKey) -> impl Iterator<Item = &'a Route> {
        let trail = Trail::of(key, |segment| self.set.hash(&segment));
        let numbers = self.overlaps.with_trail(trail.as_ref()).into_iter();
        numbers
            .map(|number| self.routes[number])
            .filter(move |route| route.meets(key, self.set))
    }
}
