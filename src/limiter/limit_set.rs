//! What one route is charged on.

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

/// What one route is charged on: the most specific limit first, the total last, and then the shadows.
#[derive(Debug)]
pub(crate) struct LimitSet {
    /// The route key, for people.
    pub(crate) route: Box<str>,
    /// The usage plan of the client, where it has one.
    pub(crate) plan: Option<Arc<str>>,
    pub(crate) limits: Box<[BoundLimit]>,
    /// How many of them are enforced.
    pub(crate) enforced: usize,
    /// Whether requests may wait for one of them.
    pub(crate) is_patient: bool,
    /// Whether one of them counts what is in flight.
    pub(crate) has_slots: bool,
    /// Whether one of them counts model tokens.
    pub(crate) has_tokens: bool,
    /// Whether the balances of one of them may be kept in a store.
    pub(crate) is_shared: bool,
    /// Whether all that a request takes there may be leased.
    pub(crate) is_leased: bool,
    /// Whether its requests are counted by no scope.
    pub(crate) exempt: bool,
    /// Requests that were admitted under it and are not yet counted by its route and its limits: so that a request
    /// counts once, however many limits it has.
    pub(crate) admitted: Counter,
    /// Of its route.
    pub(crate) counters: Arc<Counters>,
}

impl LimitSet {
    /// The most limits in a store of which a request finds leases.
    pub(crate) const MOST_LEASED: usize = 6;

    /// From limits of which the most specific stand first.
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
                    && shared.clone().all(|bound| bound.limit.lease(u64::MAX) > 0)
            },
            exempt: false,
            limits,
            admitted: Counter::default(),
            counters: Arc::default(),
        }
    }

    /// Of a route whose requests no scope counts.
    pub(crate) fn exempt(route: impl Into<Box<str>>) -> Self {
        let mut limit_set = Self::new(route, None, []);
        limit_set.exempt = true;
        limit_set
    }

    /// Counts for a route.
    pub(crate) fn counted_by(self, counters: &Arc<Counters>) -> Self {
        let mut limit_set = self;
        limit_set.counters = Arc::clone(counters);
        limit_set
    }

    /// Without the limits that a store keeps. Model tokens are counted all the same.
    pub(crate) fn held(&self) -> Self {
        let held = self.limits.iter().filter(|bound| bound.id.is_none());
        let mut limit_set = self.with(held.cloned());
        limit_set.has_tokens = self.has_tokens;
        limit_set
    }

    /// With one of so many shares of the limits that a store keeps, in this process.
    pub(crate) fn share(&self, shares: u32) -> Self {
        let limits = self.limits.iter();
        self.with(limits.map(|bound| bound.share(shares)))
    }

    /// Without limits.
    pub(crate) fn bare(&self) -> Self {
        self.with([])
    }

    /// The same route with other limits.
    fn with(&self, limits: impl IntoIterator<Item = BoundLimit>) -> Self {
        Self::new(self.route.clone(), self.plan.clone(), limits).counted_by(&self.counters)
    }

    /// Has the route and the limits count what was admitted.
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

    /// Counts what shadows would have refused, and tells their numbers.
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

    #[inline]
    pub(crate) fn charges<'a>(
        &'a self,
        memory: &'a ClientTable,
        demand: Demand,
        now: Nanos,
    ) -> impl Iterator<Item = BucketCharge<'a>> + Clone {
        let limits = self.limits.iter();
        limits.map(move |bound| bound.charge(memory, demand, now))
    }

    /// The model tokens that a request in a line reserves there: the most, if limits reserve different amounts.
    pub(crate) fn tokens_in(&self, line: QueueId, demand: Demand) -> u64 {
        let tokens = self.enforced().filter(|bound| bound.limit.is_tokens());
        let here = tokens.filter(|bound| bound.line(demand.identity) == line);
        here.map(|bound| bound.cost(demand)).max().unwrap_or(0)
    }

    /// Those whose balances may be kept in a store.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &BoundLimit> {
        self.limits.iter().filter(|bound| bound.id.is_some())
    }

    /// The limits that are enforced.
    pub(crate) fn enforced(&self) -> impl Iterator<Item = &BoundLimit> {
        self.limits[..self.enforced].iter()
    }

    /// This rule, and of the other what it has besides. Exempt only if both are.
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
