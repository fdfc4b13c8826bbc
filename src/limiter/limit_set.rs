//! What one route is charged on.

use std::{cmp::Reverse, sync::Arc};

pub(crate) use super::bound_limit::{Asked, Binding, Charge, Home, Line};
use crate::{
    clock::Nanos,
    limiter::{
        bound_limit::LineId,
        client_table::Memory,
        counters::{Count, Tally},
        readings::Levels,
    },
};

/// What one route is charged on: the most specific limit first, the total last, and then the shadows.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The route key, for people.
    pub(crate) route: Box<str>,
    /// The usage plan of the client, where it has one.
    pub(crate) plan: Option<Arc<str>>,
    pub(crate) bindings: Box<[Binding]>,
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
    pub(crate) admitted: Count,
    /// Of its route.
    pub(crate) tally: Arc<Tally>,
}

impl Rule {
    /// The most limits in a store of which a request finds leases.
    pub(crate) const MOST_LEASED: usize = 6;

    /// From limits of which the most specific stand first.
    pub(crate) fn new(
        route: impl Into<Box<str>>,
        plan: Option<Arc<str>>,
        bindings: impl IntoIterator<Item = Binding>,
    ) -> Self {
        let mut bindings: Box<[_]> = bindings.into_iter().collect();
        bindings.sort_by_key(|binding| binding.limit.shadow);
        Self {
            route: route.into(),
            plan,
            enforced: bindings.partition_point(|binding| !binding.limit.shadow),
            is_patient: bindings
                .iter()
                .any(|binding| binding.limit.patience.is_some()),
            has_slots: bindings.iter().any(|binding| binding.limit.is_slots()),
            has_tokens: bindings.iter().any(|binding| binding.limit.is_tokens()),
            is_shared: bindings.iter().any(|binding| binding.id.is_some()),
            is_leased: {
                let shared = bindings.iter().filter(|binding| binding.id.is_some());
                shared.clone().count() <= Self::MOST_LEASED
                    && shared
                        .clone()
                        .all(|binding| binding.limit.lease(u64::MAX) > 0)
            },
            exempt: false,
            bindings,
            admitted: Count::default(),
            tally: Arc::default(),
        }
    }

    /// Of a route whose requests no scope counts.
    pub(crate) fn exempt(route: impl Into<Box<str>>) -> Self {
        let mut rule = Self::new(route, None, []);
        rule.exempt = true;
        rule
    }

    /// Counts for a route.
    pub(crate) fn counted_by(self, tally: &Arc<Tally>) -> Self {
        let mut rule = self;
        rule.tally = Arc::clone(tally);
        rule
    }

    /// Without the limits that a store keeps. Model tokens are counted all the same.
    pub(crate) fn held(&self) -> Self {
        let held = self.bindings.iter().filter(|binding| binding.id.is_none());
        let mut rule = self.with(held.cloned());
        rule.has_tokens = self.has_tokens;
        rule
    }

    /// With one of so many shares of the limits that a store keeps, in this process.
    pub(crate) fn share(&self, shares: u32) -> Self {
        let bindings = self.bindings.iter();
        self.with(bindings.map(|binding| binding.share(shares)))
    }

    /// Without limits.
    pub(crate) fn bare(&self) -> Self {
        self.with([])
    }

    /// The same route with other limits.
    fn with(&self, bindings: impl IntoIterator<Item = Binding>) -> Self {
        Self::new(self.route.clone(), self.plan.clone(), bindings).counted_by(&self.tally)
    }

    /// Has the route and the limits count what was admitted.
    pub(crate) fn settle(&self) {
        let admitted = self.admitted.take();
        if admitted > 0 {
            self.tally.admitted.add(admitted);
            if self.exempt {
                self.tally.exempt.add(admitted);
            }
            for binding in &self.bindings {
                binding.tally.admitted.add(admitted);
            }
        }
    }

    /// Counts what shadows would have refused, and tells their numbers.
    pub(crate) fn shadowed(&self, levels: &Levels, mut tell: impl FnMut(usize)) {
        let pairs = self.bindings.iter().zip(levels.as_slice());
        for (index, (binding, level)) in pairs.enumerate().skip(self.enforced) {
            if level.refused {
                self.tally.would_refuse.add(1);
                binding.tally.would_refuse.add(1);
                tell(index);
            }
        }
    }

    #[inline]
    pub(crate) fn charges<'a>(
        &'a self,
        memory: &'a Memory,
        asked: Asked,
        now: Nanos,
    ) -> impl Iterator<Item = Charge<'a>> + Clone {
        let bindings = self.bindings.iter();
        bindings.map(move |binding| binding.charge(memory, asked, now))
    }

    /// The model tokens that a request in a line reserves there: the most, if limits reserve different amounts.
    pub(crate) fn tokens_in(&self, line: LineId, asked: Asked) -> u64 {
        let tokens = self.enforced().filter(|binding| binding.limit.is_tokens());
        let here = tokens.filter(|binding| binding.line(asked.identity) == line);
        here.map(|binding| binding.cost(asked)).max().unwrap_or(0)
    }

    /// Those whose balances may be kept in a store.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(|binding| binding.id.is_some())
    }

    /// The limits that are enforced.
    pub(crate) fn enforced(&self) -> impl Iterator<Item = &Binding> {
        self.bindings[..self.enforced].iter()
    }

    /// This rule, and of the other what it has besides. Exempt only if both are.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let besides = other
            .bindings
            .iter()
            .filter(|binding| !self.bindings.iter().any(|own| own.is(binding)));
        let mut bindings: Vec<_> = self.bindings.iter().chain(besides).cloned().collect();
        bindings.sort_by_key(|binding| Reverse(binding.limit.scope.specificity()));
        let mut rule = self.with(bindings);
        rule.exempt = self.exempt && other.exempt;
        rule
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        self.settle();
    }
}
