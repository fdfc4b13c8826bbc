//! Routes that have lost their keys.

use super::{moves::Moves, routes::UNDECLARED, state::State};
use crate::{
    clock::Nanos,
    route::{RouteKey, overlaps::Overlaps},
    rule::{Binding, Home},
};

/// Routes that have lost their key, until all that was used there has come back.
#[derive(Debug, Default)]
pub(super) struct Gone {
    routes: Vec<(RouteKey, Vec<Binding>)>,
    overlaps: Overlaps,
}

impl Gone {
    /// The most routes that are remembered.
    const MAX: usize = 1_024;

    /// Those of the rules before that have something left, and those that are gone by now.
    pub(super) fn after(before: &State, moves: &Moves, per_route: bool, now: Nanos) -> Self {
        let mut gone = Self::default();
        let routes = before.declared();
        let routes = routes.filter(|(key, _)| moves.gone.contains(key));
        for (key, route) in routes {
            gone.add(key, &route.own);
        }
        if per_route && before.undeclared.is_none() {
            if let Ok(key) = UNDECLARED.parse() {
                gone.add(&key, &before.shared.own);
            }
        }
        for (key, own) in &before.gone.routes {
            let is_spent = own.iter().all(|binding| match &binding.home {
                Home::Bucket(bucket) => bucket.is_spent(now),
                Home::Client(_) => true,
            });
            if !is_spent && !moves.new.contains(key) {
                gone.add(key, own);
            }
        }
        gone
    }

    fn add(&mut self, key: &RouteKey, own: &[Binding]) {
        if !own.is_empty() && self.routes.len() < Self::MAX {
            self.overlaps.insert(key);
            self.routes.push((key.clone(), own.to_vec()));
        }
    }

    pub(super) fn of(&self, is_meant: impl Fn(&RouteKey) -> bool) -> Vec<&[Binding]> {
        let meant = self.routes.iter().filter(|(key, _)| is_meant(key));
        meant.map(|(_, own)| own.as_slice()).collect()
    }

    /// Of those that share requests with a key.
    pub(super) fn with<'a>(
        &'a self,
        key: &RouteKey,
        is_meant: impl Fn(&RouteKey) -> bool,
    ) -> impl Iterator<Item = &'a [Binding]> {
        let near = self.overlaps.with(key).into_iter();
        let near = near.filter_map(|number| self.routes.get(number));
        near.filter(move |(gone, _)| key.meets(gone) && is_meant(gone))
            .map(|(_, own)| own.as_slice())
    }

    /// Has nothing more charged there.
    pub(super) fn close(&self) {
        for binding in self.of(|_| true).into_iter().flatten() {
            if let Home::Bucket(bucket) = &binding.home {
                bucket.retire(&binding.history);
            }
        }
    }
}
