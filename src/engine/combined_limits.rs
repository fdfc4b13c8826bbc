//! The rules of requests that may mean several routes.

use std::sync::OnceLock;

use super::route_limits::{MatchedRoute, RouteLimits};
use crate::route::undeclared::{BoundedMap, Sealed};

/// The rules of requests that may mean several routes, each made once, as long as there is room.
///
/// Unions of declared routes alone, which are as many as rules allow, stand apart from those with undeclared ones, of
/// which clients invent as many as they like.
#[derive(Debug, Default)]
pub(super) struct CombinedLimits {
    declared: OnceLock<Set>,
    others: OnceLock<Set>,
}

/// `None`: there is no room.
type Set = BoundedMap<Option<Box<RouteLimits>>>;

impl CombinedLimits {
    /// The union of some rules of one state, which are told apart by where they lie. It goes by the name of the first.
    pub(super) fn get<'a>(
        &'a self,
        rules: &[&'a RouteLimits],
        is_declared: bool,
    ) -> MatchedRoute<'a> {
        let (first, second, others) = match rules {
            [] => unreachable!("a request has at least one reading"),
            [only] => return MatchedRoute::Kept(only),
            [first, second, others @ ..] => (first, second, others),
        };
        let set = match is_declared {
            true => &self.declared,
            false => &self.others,
        };
        let set = set.get_or_init(|| BoundedMap::new(None));
        let place = |limit_set: &&RouteLimits| std::ptr::from_ref::<RouteLimits>(limit_set).addr();
        let places: Vec<usize> = rules.iter().map(place).collect();
        let make = || {
            let both = first.limit_set.and(&second.limit_set);
            let others = others.iter();
            first.under(others.fold(both, |union, other| union.and(&other.limit_set)))
        };
        match set.get(set.hash(&places), || Some(Box::new(make()))) {
            Ok(Some(kept)) => MatchedRoute::Kept(kept),
            Ok(None) | Err(Sealed) => MatchedRoute::Made(Box::new(make())),
        }
    }

    /// Counts what was admitted under each of them.
    pub(super) fn settle(&self) {
        let sets = [self.declared.get(), self.others.get()];
        let kept = sets.into_iter().flatten().flat_map(BoundedMap::iter);
        for prepared in kept.filter_map(|(_, kept)| kept.as_ref()) {
            prepared.settle();
        }
    }
}
