//! Routes that have lost their keys.

use std::sync::Arc;

use super::{key_index::KeyIndex, routes::Route};
use crate::{
    limiter::limit_set::{BoundLimit, Storage},
    route::{RouteKey, undeclared::BoundedMap},
};

/// Routes that have lost their key, until all that was used there has come back: the last ones first.
#[derive(Debug, Default)]
pub(super) struct LostKeys {
    /// All rules that remember a route share it, so that its buckets are held once and by nobody else as soon as no
    /// request has anything there.
    pub(super) routes: Vec<Arc<LostKey>>,
    index: KeyIndex,
}

/// A route that has lost its key.
#[derive(Debug)]
pub(super) struct LostKey {
    pub(super) key: RouteKey,
    pub(super) own: Vec<BoundLimit>,
}

impl LostKey {
    pub(super) fn new(key: &RouteKey, own: &[BoundLimit]) -> Arc<Self> {
        Arc::new(Self {
            key: key.clone(),
            own: own.to_vec(),
        })
    }
}

impl Drop for LostKey {
    fn drop(&mut self) {
        for bound in &self.own {
            if let Storage::Bucket(bucket) = &bound.home {
                bucket.forget();
            }
        }
    }
}

impl LostKeys {
    /// The most routes that are remembered. Those that lost their keys first are forgotten first.
    const MAX: usize = 65_536;

    pub(super) fn add(&mut self, route: impl FnOnce() -> Arc<LostKey>) {
        if self.routes.len() >= Self::MAX {
            return;
        }
        let route = route();
        if !route.own.is_empty() {
            self.index.insert(route.key.clone());
            self.routes.push(route);
        }
    }

    pub(super) fn matching(&self, is_wanted: impl Fn(&RouteKey) -> bool) -> Vec<&[BoundLimit]> {
        self.limits_of(0..self.routes.len(), is_wanted).collect()
    }

    /// Returns the lost keys that share requests with a key.
    pub(super) fn overlapping<'a>(
        &'a self,
        key: &RouteKey,
        is_wanted: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &'a [BoundLimit]> {
        self.limits_of(self.index.overlapping(key), is_wanted)
    }

    /// Returns the lost keys that share requests with an undeclared route.
    pub(super) fn overlapping_route<'a>(
        &'a self,
        route: &Route,
        set: &BoundedMap<Route>,
        is_wanted: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &'a [BoundLimit]> {
        self.limits_of(self.index.overlapping_route(route, set), is_wanted)
    }

    fn limits_of(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        is_wanted: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &[BoundLimit]> {
        let routes = numbers.into_iter().map(|number| &*self.routes[number]);
        let wanted = routes.filter(move |lost| is_wanted(&lost.key));
        wanted.map(|lost| lost.own.as_slice())
    }

    /// Closes the buckets of all lost keys.
    pub(super) fn close(&self) {
        for bound in self.matching(|_| true).into_iter().flatten() {
            if let Storage::Bucket(bucket) = &bound.home {
                bucket.retire(&bound.history);
            }
        }
    }
}
