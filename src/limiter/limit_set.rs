//! Limit sets: all limits that one request is charged on.
//!
//! The engine makes one set for each route and usage plan, and one for each combination of routes that a request may
//! mean, and keeps it as long as the rules hold. A request finds its set once; whatever is decided, given back or told
//! of it goes by the set it was decided under, also after a reload.
//!
//! # Invariants
//!
//! - Enforced limits stand before shadows; `enforced` is the index of the first shadow.
//! - Among the enforced, the most specific stand first and the total last (the caller gives them in that order, and
//!   sorting is stable). [`Limiter::admit`](super::Limiter::admit) takes charges in this order, so that what a
//!   client's own limit refuses never writes to a bucket that all share. The same is the order in which a decision
//!   lists limits.
//! - No two limits of a set have the same balances.
//! - Flags (`is_patient` and those after it) are derived from `limits` when the set is made, and limits do not change.
//!   Two may be set afterwards: `exempt`, and `has_tokens` in [`LimitSet::held`].
//!
//! # Callers
//!
//! Made by `engine`, which keeps the sets of [`held`](LimitSet::held), [`share`](LimitSet::share) and
//! [`bare`](LimitSet::bare) beside the whole one. Shared with decisions and admissions through an `Arc`.

use std::{cmp::Reverse, sync::Arc};

pub(crate) use super::bound_limit::{BoundLimit, BucketCharge, Demand, QueueScope, Storage};
use crate::{
    clock::Nanos,
    limiter::{
        bound_limit::QueueId,
        client_table::ClientTable,
        counters::{Counter, Counters},
        readings::LimitReadings,
    },
};

/// The limits that one request is charged on: the most specific first, the total last, and then the shadows.
#[derive(Debug)]
pub(crate) struct LimitSet {
    /// The route key, for logs, metrics and answers. Nothing is found by it.
    pub(crate) route: Box<str>,
    /// The usage plan of the clients that are charged on this set; `None` for those without one.
    pub(crate) plan: Option<Arc<str>>,
    pub(crate) limits: Box<[BoundLimit]>,
    /// The number of enforced limits. Zero for exempt routes, and for those that have shadows alone.
    pub(crate) enforced: usize,
    /// A limit has a wait policy: requests may join a queue.
    pub(crate) is_patient: bool,
    /// A limit caps what is in flight: admissions hold permits.
    pub(crate) has_slots: bool,
    /// A limit counts model tokens: requests are estimated, and admissions hold a reservation.
    pub(crate) has_tokens: bool,
    /// A limit has a store's `id`. Nothing follows from that in a throttle without a store.
    pub(crate) is_shared: bool,
    /// All that a request takes in a store may be leased: at most [`LimitSet::MOST_LEASED`] limits are kept there, and
    /// each of them leases ([`BoundLimit::lease`]). True also of a set of which nothing is kept
    /// there.
    pub(crate) is_leased: bool,
    /// The route was freed from all limits: `limits` is empty, and its requests are counted as exempt.
    pub(crate) exempt: bool,
    /// Requests that were admitted under it since [`LimitSet::settle`]. An admission adds to this one counter, however
    /// many limits it has.
    pub(crate) admitted: Counter,
    /// The counters of its route, shared with other sets of the same route.
    pub(crate) counters: Arc<Counters>,
}

impl LimitSet {
    /// The most limits in a store of which a request finds leases: it looks for them in an array of that size.
    pub(crate) const MOST_LEASED: usize = 6;

    /// A set of limits of which the most specific come first. Shadows are moved behind the others, in the same order.
    ///
    /// The set counts for a route of its own until [`LimitSet::counted_by`].
    pub(crate) fn new(
        route: impl Into<Box<str>>,
        plan: Option<Arc<str>>,
        limits: impl IntoIterator<Item = BoundLimit>,
    ) -> Self {
        let mut limits: Box<[_]> = limits.into_iter().collect();
        limits.sort_by_key(|bound| bound.limit.shadow);
        Self {
            route: route.into(),
            plan,
            enforced: limits.partition_point(|bound| !bound.limit.shadow),
            is_patient: limits.iter().any(|bound| bound.limit.patience.is_some()),
            has_slots: limits.iter().any(|bound| bound.limit.is_slots()),
            has_tokens: limits.iter().any(|bound| bound.limit.is_tokens()),
            is_shared: limits.iter().any(|bound| bound.id.is_some()),
            is_leased: {
                let shared = limits.iter().filter(|bound| bound.id.is_some());
                shared.clone().count() <= Self::MOST_LEASED
                    && shared.clone().all(|bound| bound.lease(u64::MAX) > 0)
            },
            exempt: false,
            limits,
            admitted: Counter::default(),
            counters: Arc::default(),
        }
    }

    /// The set of a route that was freed from all limits.
    pub(crate) fn exempt(route: impl Into<Box<str>>) -> Self {
        let mut limit_set = Self::new(route, None, []);
        limit_set.exempt = true;
        limit_set
    }

    /// The same set, counting for a route.
    pub(crate) fn counted_by(self, counters: &Arc<Counters>) -> Self {
        let mut limit_set = self;
        limit_set.counters = Arc::clone(counters);
        limit_set
    }

    /// The set without the limits that a store keeps: those that are decided in this process in any case. Requests are
    /// estimated as for the whole set.
    pub(crate) fn held(&self) -> Self {
        let held = self.limits.iter().filter(|bound| bound.id.is_none());
        let mut limit_set = self.with(held.cloned());
        limit_set.has_tokens = self.has_tokens;
        limit_set
    }

    /// The set with the limits that a store keeps at one of `shares` equal shares each, kept in this process: what
    /// holds while the store is down, if that was chosen.
    pub(crate) fn share(&self, shares: u32) -> Self {
        let limits = self.limits.iter();
        self.with(limits.map(|bound| bound.share(shares)))
    }

    /// The set without limits: for answers that no limit gives, such as that the store is down.
    pub(crate) fn bare(&self) -> Self {
        self.with([])
    }

    /// A set of the same route and plan with other limits. Counts for the same route, and is not exempt.
    fn with(&self, limits: impl IntoIterator<Item = BoundLimit>) -> Self {
        Self::new(self.route.clone(), self.plan.clone(), limits).counted_by(&self.counters)
    }

    /// Adds what was admitted since the last call to the counters of the route and of each limit.
    ///
    /// Called before counters are read, and when the set is dropped, so that no request is lost. May run in several
    /// threads at once: each request is counted by one of them.
    pub(crate) fn settle(&self) {
        let admitted = self.admitted.take();
        if admitted > 0 {
            self.counters.admitted.add(admitted);
            if self.exempt {
                self.counters.exempt.add(admitted);
            }
            for bound in &self.limits {
                bound.counters.admitted.add(admitted);
            }
        }
    }

    /// Counts the shadows that would have refused, and calls `tell` with the index of each.
    ///
    /// `readings` are those of a decision that has asked all limits of this set: shadows have none otherwise, and are
    /// passed over.
    pub(crate) fn shadowed(&self, readings: &LimitReadings, mut tell: impl FnMut(usize)) {
        let pairs = self.limits.iter().zip(readings.as_slice());
        for (index, (bound, reading)) in pairs.enumerate().skip(self.enforced) {
            if reading.refused {
                self.counters.would_refuse.add(1);
                bound.counters.would_refuse.add(1);
                tell(index);
            }
        }
    }

    /// Returns the charges of a request on all limits, shadows last, without taking any.
    #[inline]
    pub(crate) fn charges<'a>(
        &'a self,
        table: &'a ClientTable,
        demand: Demand,
        now: Nanos,
    ) -> impl Iterator<Item = BucketCharge<'a>> + Clone {
        let limits = self.limits.iter();
        limits.map(move |bound| bound.charge(table, demand, now))
    }

    /// Returns the model tokens that a request in a queue asks of the queue's limits: the most, if they reserve
    /// different amounts; zero if no enforced one counts tokens. Requests behind add this to the balance they see.
    pub(crate) fn tokens_in(&self, queue: QueueId, demand: Demand) -> u64 {
        let tokens = self.enforced().filter(|bound| bound.limit.is_tokens());
        let here = tokens.filter(|bound| bound.line(demand.identity) == queue);
        here.map(|bound| bound.cost(demand)).max().unwrap_or(0)
    }

    /// Returns the limits that a store keeps, where there is one.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &BoundLimit> {
        self.limits.iter().filter(|bound| bound.id.is_some())
    }

    /// Returns the enforced limits. Their indices are those of the set's readings.
    pub(crate) fn enforced(&self) -> impl Iterator<Item = &BoundLimit> {
        self.limits[..self.enforced].iter()
    }

    /// Returns the limits of both sets, each balance once: for a request that may mean either of two routes and is
    /// charged on both. Sorted anew by how specific they are. Route, plan and counters are this set's; exempt only if
    /// both are.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let besides = other
            .limits
            .iter()
            .filter(|bound| !self.limits.iter().any(|own| own.is(bound)));
        let mut limits: Vec<_> = self.limits.iter().chain(besides).cloned().collect();
        limits.sort_by_key(|bound| Reverse(bound.limit.scope.specificity()));
        let mut limit_set = self.with(limits);
        limit_set.exempt = self.exempt && other.exempt;
        limit_set
    }
}

impl Drop for LimitSet {
    fn drop(&mut self) {
        self.settle();
    }
}
