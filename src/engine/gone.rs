//! Routes that have lost their keys.

use std::sync::Arc;

use super::{
    moves::Moves,
    near::Near,
    routes::{Route, UNDECLARED},
    state::State,
};
use crate::{
    clock::Nanos,
    limiter::rule::{Binding, Home},
    route::{RouteKey, undeclared::Undeclared},
};

/// Routes that have lost their key, until all that was used there has come back: the last ones first.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// All rules that remember a route share it, so that its buckets are held once and by nobody else as soon as no
    /// request has anything there.
    routes: Vec<Arc<Lost>>,
    near: Near,
}

/// A route that has lost its key.
#[derive(Debug)]
struct Lost {
    key: RouteKey,
    own: Vec<Binding>,
}

impl Lost {
    fn new(key: &RouteKey, own: &[Binding]) -> Arc<Self> {
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

    /// The lost keys that the rules before remembered and that have something left, and the keys lost since.
    pub(super) fn after(before: &State, moves: &Moves, per_route: bool, now: Nanos) -> Self {
        let mut gone = Self::default();
        let routes = before.declared();
        let routes = routes.filter(|(key, _)| moves.gone.contains(key));
        for (key, route) in routes {
            gone.add(|| Lost::new(key, &route.own));
        }
        if per_route && before.undeclared.is_none() {
            if let Ok(key) = UNDECLARED.parse() {
                gone.add(|| Lost::new(&key, &before.shared.own));
            }
        }
        for route in &before.gone.routes {
            let Lost { key, own } = &**route;
            let is_spent = own.iter().all(|binding| match &binding.home {
                Home::Bucket(bucket) => bucket.is_spent(now),
                Home::Client(_) => true,
            });
            if !is_spent && !moves.new.contains(key) {
                gone.add(|| Arc::clone(route));
            }
        }
        gone
    }

    fn add(&mut self, route: impl FnOnce() -> Arc<Lost>) {
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
