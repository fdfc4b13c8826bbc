//! The limits of requests that may match several routes, and of those that cost more than others of their route.
//!
//! A host may match a path with escapes, empty segments or a final slash to another route than this crate. Such a
//! request is charged on the limits of all routes that it may match, all or none, so that no spelling dodges a limit.
//!
//! # Invariants
//!
//! - **A limit is charged once**, even if several of the routes have it, like the total.
//! - **Found by address.** A combination is found by the addresses of its [`RouteLimits`], in their order. These belong
//!   to the routes of the same rule set, which never move or change while it lives. A combination thus belongs to its
//!   set, and the next set starts without any.
//! - **Bounded.** Clients choose spellings and costs, but at most 1,024 combinations of declared routes are kept, as many
//!   with undeclared ones, and as many of either at other costs. Further requests make their own, with the same result
//!   in more time. A client that invents costs takes no place of a combination.
//!
//! # Who may call it
//!
//! [`RuleSet::look_up`](super::rule_set::RuleSet::look_up) finds combinations, and a reload or snapshot settles their
//! counts.

use std::{borrow::Cow, sync::OnceLock};

use super::route_limits::RouteLimits;
use crate::route::undeclared::{BoundedMap, Sealed};

/// The limits of requests that may mean several routes, each made once, as long as there is room.
///
/// Combinations of declared routes alone, which are as many as rules allow, stand apart from those with undeclared
/// ones, of which clients invent as many as they like. Nothing is allocated before the first.
///
/// Limits at other costs have sets of their own.
#[derive(Debug, Default)]
pub(super) struct CombinedLimits {
    declared: OnceLock<Set>,
    undeclared: OnceLock<Set>,
    declared_costs: OnceLock<Set>,
    undeclared_costs: OnceLock<Set>,
}

/// Combinations by hash. `None` is the overflow: there is no room.
type Set = BoundedMap<Option<Box<RouteLimits>>>;

impl CombinedLimits {
    /// Returns the combined limits of some routes of one rule set. They go by the name of the first route, and its
    /// answers.
    ///
    /// `routes` has no limits twice and is not empty; a single one is returned as it is. `is_declared`: all routes have
    /// keys.
    pub(super) fn get<'a>(
        &'a self,
        routes: &[&'a RouteLimits],
        is_declared: bool,
    ) -> Cow<'a, RouteLimits> {
        let (first, second, others) = match routes {
            [] => unreachable!("a request has at least one reading"),
            [only] => return Cow::Borrowed(only),
            [first, second, others @ ..] => (first, second, others),
        };
        let set = match is_declared {
            true => &self.declared,
            false => &self.undeclared,
        };
        let set = set.get_or_init(|| BoundedMap::new(None));
        let address = |limits: &&RouteLimits| std::ptr::from_ref::<RouteLimits>(limits).addr();
        let addresses: Vec<usize> = routes.iter().map(address).collect();
        let make = || {
            let both = first.limit_set.and(&second.limit_set);
            let others = others.iter();
            first.under(others.fold(both, |combined, other| combined.and(&other.limit_set)))
        };
        match set.get(set.hash(&addresses), || Some(Box::new(make()))) {
            Ok(Some(kept)) => Cow::Borrowed(kept),
            Ok(None) | Err(Sealed) => Cow::Owned(make()),
        }
    }

    /// Returns the limits for requests that cost so many units, or as they are if these cost as much already.
    ///
    /// They are kept if those that they are made of are. `is_declared` as above.
    pub(super) fn costing<'a>(
        &'a self,
        limits: Cow<'a, RouteLimits>,
        cost: u64,
        is_declared: bool,
    ) -> Cow<'a, RouteLimits> {
        if cost <= limits.limit_set.cost() || limits.limit_set.exempt {
            return limits;
        }
        let make = |limits: &RouteLimits| limits.under(limits.limit_set.at_cost(cost));
        let Cow::Borrowed(limits) = limits else {
            return Cow::Owned(make(&limits));
        };
        let set = match is_declared {
            true => &self.declared_costs,
            false => &self.undeclared_costs,
        };
        let set = set.get_or_init(|| BoundedMap::new(None));
        let address = std::ptr::from_ref::<RouteLimits>(limits).addr();
        match set.get(set.hash(&(address, cost)), || Some(Box::new(make(limits)))) {
            Ok(Some(kept)) => Cow::Borrowed(kept),
            Ok(None) | Err(Sealed) => Cow::Owned(make(limits)),
        }
    }

    /// Counts what was admitted under each of them, with their routes and limits. Those that were made for one request
    /// count as they are dropped.
    pub(super) fn settle(&self) {
        let Self {
            declared,
            undeclared,
            declared_costs,
            undeclared_costs,
        } = self;
        let sets = [declared, undeclared, declared_costs, undeclared_costs];
        let sets = sets.into_iter().filter_map(OnceLock::get);
        let kept = sets.flat_map(BoundedMap::iter);
        for limits in kept.filter_map(|(_, kept)| kept.as_ref()) {
            limits.settle();
        }
    }
}
