//! The lost keys: routes whose keys reloads have removed, and whose balances are not refilled yet.
//!
//! A key that is removed and added again must not begin with a full bucket. Its usage is therefore remembered, and the
//! routes that take its requests, now or later, begin with it. A lost key is forgotten when everything has come back:
//! its tokens with time, its slots with the last request that holds one.
//!
//! `$default` is lost in the same sense if routes that shared its bucket may get buckets of their own. Its limits stay,
//! though: its usage is expressed in their present terms, and forgotten with a limit that is removed.
//!
//! # Invariants
//!
//! - **Closed.** The buckets of a lost key are closed: nothing is charged to them, and units that still come back to
//!   them go to their heirs, too.
//! - **Held once.** All rule sets that remember a route share one [`LostKey`], which holds one reference to each
//!   bucket. The number of references thus shows whether a request still holds something there.
//! - **The latest first.** Keys removed by this reload come before those that were lost earlier. At most 65,536 are
//!   remembered; the oldest are forgotten first, and begin with a full bucket if they come back.
//! - **Numbers agree.** A key's number in the index is that of its route.
//!
//! # Who may touch it
//!
//! A [reload](super::reload) makes the list for the next rule set and closes the buckets. An undeclared route that is
//! entered later inherits from it.

use std::sync::Arc;

use super::{key_index::KeyIndex, routes::Route};
use crate::{
    limiter::{
        bucket::Bucket,
        limit_set::{BoundLimit, Storage},
        meter_history::MeterHistory,
    },
    route::{RouteKey, undeclared::BoundedMap},
};

/// The lost keys that a rule set remembers, the last ones first.
#[derive(Debug, Default)]
pub(super) struct LostKeys {
    /// The lost keys by number, shared with the rule sets before.
    pub(super) routes: Vec<Arc<LostKey>>,
    /// The same, to be found by the requests that they had.
    index: KeyIndex,
}

/// A route that has lost its key. Dropped by the last rule set that remembers it, it tells its buckets.
#[derive(Debug)]
pub(super) struct LostKey {
    /// The key that was removed.
    pub(super) key: RouteKey,
    /// The limits that the route had, with their buckets.
    pub(super) own: Vec<BoundLimit>,
}

impl LostKey {
    /// Remembers the limits of a route under its key.
    pub(super) fn new(key: &RouteKey, own: &[BoundLimit]) -> Arc<Self> {
        Arc::new(Self {
            key: key.clone(),
            own: own.to_vec(),
        })
    }
}

/// Tells the buckets that the reference of a lost key goes: the references that are left are those of requests.
impl Drop for LostKey {
    fn drop(&mut self) {
        for bound in &self.own {
            if let Storage::Bucket(bucket) = &bound.storage {
                bucket.forget();
            }
        }
    }
}

impl LostKeys {
    /// The most routes that are remembered. Those that lost their keys first are forgotten first.
    const MAX: usize = 65_536;

    /// Adds a route, if there is room and it has limits. To be called for the latest first.
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

    /// Returns the limits of the lost keys that are wanted.
    pub(super) fn matching(&self, is_wanted: impl Fn(&RouteKey) -> bool) -> Vec<&[BoundLimit]> {
        self.limits_of(0..self.routes.len(), is_wanted).collect()
    }

    /// Returns the limits of the lost keys that are wanted and share requests with a key.
    pub(super) fn overlapping<'a>(
        &'a self,
        key: &RouteKey,
        is_wanted: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &'a [BoundLimit]> {
        self.limits_of(self.index.overlapping(key), is_wanted)
    }

    /// Returns the limits of the lost keys that are wanted and share requests with an undeclared route. `set` is the
    /// one that the route lies in.
    pub(super) fn overlapping_route<'a>(
        &'a self,
        route: &Route,
        set: &BoundedMap<Route>,
        is_wanted: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &'a [BoundLimit]> {
        self.limits_of(self.index.overlapping_route(route, set), is_wanted)
    }

    /// Returns the limits of the lost keys of these numbers, if they are wanted.
    fn limits_of(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        is_wanted: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &[BoundLimit]> {
        let routes = numbers.into_iter().map(|number| &*self.routes[number]);
        let wanted = routes.filter(move |lost| is_wanted(&lost.key));
        wanted.map(|lost| lost.own.as_slice())
    }

    /// Closes the buckets of all lost keys, those that are closed already among them. To be called once the rules that
    /// take their requests are made, for nothing can be charged to them after.
    ///
    /// Forgets the shared balances of undeclared routes whose limit is gone from the default route, with whose limits
    /// they go on otherwise. `gone` tells by its history whether a limit is.
    pub(super) fn close(&self, gone: impl Fn(&MeterHistory) -> bool) {
        for (bucket, history) in self.buckets() {
            bucket.retire(history);
            if gone(history) {
                bucket.lapse();
            }
        }
    }

    /// Tells what is left of each lost key in the terms that hold by now, so that those before can be forgotten.
    pub(super) fn follow(&self) {
        for (bucket, _) in self.buckets() {
            bucket.follow();
        }
    }

    /// Lists the buckets of all lost keys, each with the history of its limit.
    fn buckets(&self) -> impl Iterator<Item = (&Arc<Bucket>, &MeterHistory)> {
        let bounds = self.routes.iter().flat_map(|lost| &lost.own);
        bounds.filter_map(|bound| match &bound.storage {
            Storage::Bucket(bucket) => Some((bucket, &bound.history)),
            Storage::Client(_) => None,
        })
    }
}
