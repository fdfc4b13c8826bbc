//! What one route is charged on.

use std::{
    cmp::Reverse,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::FixedState;

use crate::{
    bucket::Bucket,
    history::{History, Version},
    levels::Levels,
    limit::{Limit, Terms},
    store::{Key, Memory, Page, Place, Scale},
    tally::{Count, Tally},
    waiting::LineId,
};

/// A limit and where its balances are kept. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) limit: Limit,
    pub(crate) home: Home,
    pub(crate) line: Line,
    /// Of its settings.
    pub(crate) version: Version,
    pub(crate) history: History,
    pub(crate) tally: Arc<Tally>,
    /// What a store knows its balances by. None are kept in one where there is none: of slots, and of limits that are
    /// closed.
    pub(crate) id: Option<Arc<str>>,
}

/// Where requests wait that a limit refuses: one line for all limits of a scope.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Line {
    /// Of whoever asks, by number.
    Scope(u64),
    /// Of each client, by the number of the scope's first limit.
    Client(u32),
}

impl Line {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::Scope(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where the balances of a limit are kept.
#[derive(Debug, Clone)]
pub(crate) enum Home {
    /// In one bucket, whoever asks.
    Bucket(Arc<Bucket>),
    /// In the table, one for each client.
    Client(Arc<Page>),
}

impl Binding {
    /// The limits of one scope for whoever asks, each with a bucket of its own, which is full.
    #[cfg(test)]
    pub(crate) fn scope(limits: impl IntoIterator<Item = Limit>) -> Vec<Self> {
        let binding = |limit| Self::alone(limit, Home::Bucket(Arc::new(Bucket::full(0))));
        limits.into_iter().map(binding).collect()
    }

    /// A limit in a line of its own.
    #[cfg(test)]
    pub(crate) fn alone(limit: Limit, home: Home) -> Self {
        let (version, since) = (0, 0);
        let first = limit.meter.map(|meter| crate::history::Step {
            version,
            since,
            meter,
        });
        Self {
            limit,
            home,
            line: Line::next(),
            version,
            history: History::new(first),
            tally: Arc::default(),
            id: None,
        }
    }

    /// The line that a client waits in.
    pub(crate) fn line(&self, identity: u128) -> LineId {
        match self.line {
            Line::Scope(number) => LineId::Scope(number),
            Line::Client(number) => LineId::Client(Key::hash_of(identity, number)),
        }
    }

    /// Where the balance of a client is kept.
    #[inline]
    pub(crate) fn place<'a>(&'a self, memory: &'a Memory, identity: u128) -> Place<'a> {
        let scale = Scale {
            version: self.version,
            history: &self.history,
        };
        match &self.home {
            Home::Bucket(bucket) => Place::Bucket(bucket, scale),
            Home::Client(page) => Place::Table(memory, Key::new(identity, page, scale)),
        }
    }

    #[inline(always)]
    pub(crate) fn charge<'a>(&'a self, memory: &'a Memory, asked: Asked) -> Charge<'a> {
        Charge {
            limit: &self.limit,
            place: self.place(memory, asked.identity),
            cost: self.cost(asked),
        }
    }

    /// What stands for a limit of whoever asks: the same in each process that has the same rules, but for slots.
    pub(crate) fn hash(&self) -> u64 {
        let hasher = FixedState::default();
        match (&self.id, self.line) {
            (Some(id), _) => hasher.hash_one(id),
            (None, Line::Scope(number)) => hasher.hash_one((number, &self.limit.name)),
            (None, Line::Client(number)) => hasher.hash_one((number, &self.limit.name)),
        }
    }

    /// What a request asks for.
    #[inline]
    pub(crate) fn cost(&self, asked: Asked) -> u64 {
        match &self.limit.terms {
            Terms::Tokens(_) => asked.tokens,
            Terms::Rate(_) | Terms::Quota(_) | Terms::InFlight(_) => 1,
        }
    }

    /// The client whose balance it is.
    pub(crate) fn client(&self, identity: u128) -> Option<u128> {
        match &self.home {
            Home::Bucket(_) => None,
            Home::Client(_) => Some(identity),
        }
    }

    /// The same limit at one of so many shares, kept in this process alone.
    fn share(&self, shares: u32) -> Self {
        Self {
            limit: match self.id {
                Some(_) => self.limit.share(shares),
                None => self.limit.clone(),
            },
            id: None,
            ..self.clone()
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (&self.home, &other.home) {
            (Home::Bucket(own), Home::Bucket(other)) => Arc::ptr_eq(own, other),
            (Home::Client(own), Home::Client(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

/// Who asks, and for how much.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// The client: a keyed hash.
    pub(crate) identity: u128,
    /// Model tokens to reserve.
    pub(crate) tokens: u64,
}

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
            bindings,
            admitted: Count::default(),
            tally: Arc::default(),
        }
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
    ) -> impl Iterator<Item = Charge<'a>> + Clone {
        let bindings = self.bindings.iter();
        bindings.map(move |binding| binding.charge(memory, asked))
    }

    /// Those whose balances may be kept in a store.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(|binding| binding.id.is_some())
    }

    /// The limits that are enforced.
    pub(crate) fn enforced(&self) -> impl Iterator<Item = &Binding> {
        self.bindings[..self.enforced].iter()
    }

    /// This rule, and of the other what it has besides.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let besides = other
            .bindings
            .iter()
            .filter(|binding| !self.bindings.iter().any(|own| own.is(binding)));
        let mut bindings: Vec<_> = self.bindings.iter().chain(besides).cloned().collect();
        bindings.sort_by_key(|binding| Reverse(binding.limit.scope.specificity()));
        self.with(bindings)
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        self.settle();
    }
}

/// What one limit takes from its bucket for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charge<'a> {
    pub(crate) limit: &'a Limit,
    pub(crate) place: Place<'a>,
    pub(crate) cost: u64,
}
