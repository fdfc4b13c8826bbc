//! Routes that have lost their keys.

use std::sync::Arc;

use super::{key_index::Near, routes::Route};
use crate::{
    limiter::limit_set::{Binding, Home},
    route::{RouteKey, undeclared::Undeclared},
};

/// Routes that have lost their key, until all that was used there has come back: the last ones first.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// All rules that remember a route share it, so that its buckets are held once and by nobody else as soon as no
    /// request has anything there.
    pub(super) routes: Vec<Arc<Lost>>,
    near: Near,
}

/// A route that has lost its key.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) key: RouteKey,
    pub(super) own: Vec<Binding>,
}

impl Lost {
    pub(super) fn new(key: &RouteKey, own: &[Binding]) -> Arc<Self> {
        Arc::new(Self {
            key: key.clone(),
            own: own.to_vec(),
        })
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        for binding in &self.own {
            if let Home::Bucket(bucket) = &binding.home {
                bucket.forget();
            }
        }
    }
}

impl Gone {
    /// The most routes that are remembered. Those that lost their keys first are forgotten first.
    const MAX: usize = 65_536;

    pub(super) fn add(&mut self, route: impl FnOnce() -> Arc<Lost>) {
        if self.routes.len() >= Self::MAX {
            return;
        }
        let route = route();
        if !route.own.is_empty() {
            self.near.insert(route.key.clone());
            self.routes.push(route);
        }
    }

    pub(super) fn of(&self, is_meant: impl Fn(&RouteKey) -> bool) -> Vec<&[Binding]> {
        self.those(0..self.routes.len(), is_meant).collect()
    }

    /// Returns the lost keys that share requests with a key.
    pub(super) fn with<'a>(
        &'a self,
        key: &RouteKey,
        is_meant: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &'a [Binding]> {
        self.those(self.near.with(key), is_meant)
    }

    /// Returns the lost keys that share requests with an undeclared route.
    pub(super) fn with_route<'a>(
        &'a self,
        route: &Route,
        set: &Undeclared<Route>,
        is_meant: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &'a [Binding]> {
        self.those(self.near.with_route(route, set), is_meant)
    }

    fn those(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        is_meant: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &[Binding]> {
        let routes = numbers.into_iter().map(|number| &*self.routes[number]);
        let meant = routes.filter(move |gone| is_meant(&gone.key));
        meant.map(|gone| gone.own.as_slice())
    }

    /// Closes the buckets of all lost keys.
    pub(super) fn close(&self) {
        for binding in self.of(|_| true).into_iter().flatten() {
            if let Home::Bucket(bucket) = &binding.home {
                bucket.retire(&binding.history);
            }
        }
    }
}
