//! Limit sets: all limits that one request is charged on, each with its balances.
//!
//! A [`Limit`] is a configured limit. Bound to a scope it has a [`Storage`]: one bucket (the total, a route) or a part
//! of the client table (each client, each client on a route). `rules/registry` binds limits when rules are compiled,
//! and hands on what the limit had under the previous rules: storage, history, counters and queue.
//!
//! The engine makes one set of bound limits for each route and usage plan, and one for each combination of routes that
//! a request may match, and keeps it as long as the rules. A request finds its set once. Its decision, its units and
//! its response use that set, also after a reload.
//!
//! # Invariants of a bound limit
//!
//! - A bound limit never changes; a reload makes new ones that share its storage. Balances live as long as the storage
//!   is referenced: by rules in force, a charged request, or the memory of a lost key.
//! - `version` is one of the steps of `history`, unless the limit is closed (`limit.meter` is `None`).
//! - All enforced limits and shadows of a scope have one [`QueueScope`], and so one queue.
//! - `id` is `None` for slots, which are never kept in a store, for closed limits, and for limits that rest. With a
//!   store, a limit with an `id` uses its balance in this process only while the store is down.
//!
//! # Invariants of a set
//!
//! - Enforced limits stand before shadows; `enforced` is the index of the first shadow.
//! - Among the enforced, the most specific come first and the total last (the caller gives them in that order, and
//!   sorting is stable). [`Limiter::admit`](super::Limiter::admit) takes charges in this order, so that a request
//!   refused by a client's own limit never writes to a shared bucket. A decision lists limits in the same order.
//! - No two limits of a set have the same balances.
//! - Flags (`is_patient` and those after it) are derived from `limits` when the set is made, and limits do not change.
//!   Some may be set afterwards: `exempt`, `keeps`, `refunds`, `reads_answers`, `has_tokens` in [`LimitSet::held`], and
//!   `is_patient` and `is_degraded` in [`LimitSet::degraded`].
//! - Limits of second budgets are not among `limits` but in `second`. A set for a decision without all limits
//!   (`held`, `share`, `bare`) has none: it is the whole set whose limits are replaced.
//!
//! # Callers
//!
//! `engine` makes sets, and keeps those of [`held`](LimitSet::held), [`share`](LimitSet::share) and
//! [`bare`](LimitSet::bare) beside the whole one. Decisions and admissions share them through an `Arc`. `admission`
//! gives back through bound limits; `store/client` puts `id` and [`BoundLimit::cost`] into a store's charges; `observe`
//! reads their counters.

#[cfg(test)]
use std::cell::Cell;
use std::{
    cmp::Reverse,
    hash::BuildHasher,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::FixedState;

use crate::{
    clock::Nanos,
    limit::{
        Limit, LimitSettings, Scope, Unit, gcra::RefusalReason, model_class::ModelClass,
        route_settings::RouteSettings, token_class::TokenClass, token_demand::TokenDemand,
    },
    limiter::{
        balance::BalanceRef,
        bucket::Bucket,
        client_table::{ClientBuckets, ClientTable, TableKey},
        counters::{Counters, ThreadCounter},
        meter_history::{MeterHistory, MeterTerms, Version},
        readings::LimitReadings,
        second_budgets::{ScopeChoice, ScopeNumber, SecondScopes},
    },
};

/// The limits that one request is charged on: the most specific first, the total last, and then the shadows.
#[derive(Debug)]
pub(crate) struct LimitSet {
    /// The route key, for logs, metrics and answers. Nothing is found by it.
    pub(crate) route: Box<str>,
    /// The usage plan of the clients that are charged on this set; `None` for those without one.
    pub(crate) plan: Option<Arc<str>>,
    /// The model of the requests that are charged on this set, as the rules name it. `None` where its name is of no
    /// account.
    pub(crate) model: Option<Arc<str>>,
    /// The units that a request takes of the rates and quotas of its client and of the total.
    cost: u64,
    pub(crate) limits: Box<[BoundLimit]>,
    /// The number of enforced limits. Zero for exempt routes, and for those that have shadows alone.
    pub(crate) enforced: usize,
    /// A limit has a wait policy: requests may join a queue.
    pub(crate) is_patient: bool,
    /// A limit caps what is in flight: admissions hold permits.
    pub(crate) has_slots: bool,
    /// A limit counts model tokens or their price: requests are estimated, and admissions hold a reservation.
    pub(crate) has_tokens: bool,
    /// A limit has a store's `id`. Nothing follows from that in a throttle without a store.
    pub(crate) is_shared: bool,
    /// The limits are plain: [`plain::take`](super::plain::take) may charge them, where no store has their balances.
    pub(crate) is_plain: bool,
    /// All that a request takes in a store may be leased: at most [`LimitSet::MOST_LEASED`] limits are kept there, and
    /// each of them leases ([`BoundLimit::lease`]). True also of a set of which nothing is kept there.
    pub(crate) is_leased: bool,
    /// Handlers may keep requests in flight beyond their answers: admissions can be shared with guards. Such a set is not
    /// plain.
    pub(crate) keeps: bool,
    /// A failure of the inner service gives back what the request has taken of its client and of tokens. Such a set is
    /// not plain.
    pub(crate) refunds: bool,
    /// The tokens of requests are read from their answers, or are not. `None`: the throttle decides.
    pub(crate) reads_answers: Option<bool>,
    /// The route was freed from all limits: `limits` is empty, and its requests are counted as exempt.
    pub(crate) exempt: bool,
    /// Limits were replaced by a second budget: each admission is counted as degraded.
    pub(crate) is_degraded: bool,
    /// The second budgets of its scopes, for requests that their limits refuse.
    pub(crate) second: Option<Box<SecondBudgets>>,
    /// Requests that were admitted under it since [`LimitSet::settle`]. An admission adds to this one counter, however
    /// many limits it has.
    pub(crate) admitted: ThreadCounter,
    /// The counters of its route, shared with other sets of the same route.
    pub(crate) counters: Arc<Counters>,
}

impl LimitSet {
    /// The most limits that are charged the short way.
    pub(super) const MOST_PLAIN: usize = 4;

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
        let all: Vec<_> = limits.into_iter().collect();
        // A second budget may reserve tokens as well, and requests are estimated once.
        let has_tokens = all.iter().any(|bound| bound.limit.is_settled());
        let (second, mut limits): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|bound| bound.limit.is_second());
        limits.sort_by_key(|bound| bound.limit.shadow);
        let limits: Box<[_]> = limits.into();
        Self {
            route: route.into(),
            plan,
            model: None,
            cost: 1,
            enforced: limits.partition_point(|bound| !bound.limit.shadow),
            is_patient: limits.iter().any(|bound| bound.limit.wait_policy.is_some()),
            has_slots: limits.iter().any(|bound| bound.limit.is_slots()),
            has_tokens,
            is_shared: limits.iter().any(|bound| bound.id.is_some()),
            // Requests on plain limits are not estimated.
            is_plain: are_plain(&limits) && !has_tokens,
            is_leased: {
                let shared = limits.iter().filter(|bound| bound.id.is_some());
                shared.clone().count() <= Self::MOST_LEASED
                    && shared.clone().all(|bound| bound.lease(u64::MAX) > 0)
            },
            keeps: false,
            refunds: false,
            reads_answers: None,
            exempt: false,
            is_degraded: false,
            second: SecondBudgets::new(second),
            limits,
            admitted: ThreadCounter::default(),
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

    /// The same set with the settings of its route.
    pub(crate) fn with_settings(self, settings: RouteSettings) -> Self {
        let RouteSettings {
            cost,
            keeps,
            refunds,
            reads_answers,
        } = settings;
        let mut limit_set = self.costing(cost).keeping(keeps).refunding(refunds);
        limit_set.reads_answers = reads_answers;
        limit_set
    }

    /// The same set for requests that handlers may keep in flight, or as it is.
    pub(crate) fn keeping(self, keeps: bool) -> Self {
        let mut limit_set = self;
        limit_set.keeps |= keeps;
        limit_set.is_plain &= !limit_set.keeps;
        limit_set
    }

    /// The same set for requests whose failures are refunded, or not.
    pub(crate) fn refunding(self, refunds: bool) -> Self {
        let mut limit_set = self;
        limit_set.refunds = refunds;
        limit_set.is_plain &= !refunds;
        limit_set
    }

    /// Returns whether admissions have an account: what they are charged with on some limits may change afterwards.
    #[inline]
    pub(crate) fn has_account(&self) -> bool {
        self.has_tokens || self.refunds
    }

    /// Returns whether an account has an entry for a limit: it is settled, or a failure gives its units back.
    #[inline]
    pub(crate) fn is_in_account(&self, bound: &BoundLimit) -> bool {
        let limit = &bound.limit;
        let is_refunded = || limit.scope.is_of_clients() && limit.settings.unit() == Unit::Requests;
        limit.is_settled() || self.refunds && is_refunded()
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

    /// The set in which the second budgets of some scopes take the place of their limits. Shadows stay: each goes as if
    /// it were enforced alone.
    ///
    /// That set has no second budgets, and lets nobody wait. Its limits keep their wait policies, so that units which
    /// come back wake those who wait for them.
    pub(crate) fn degraded(&self, choice: ScopeChoice) -> Self {
        let second = self.second.as_ref();
        let is_chosen = |bound: &BoundLimit| {
            second.is_some_and(|second| second.scopes.has(choice, bound.scope_number))
        };
        let kept = self.all().filter(|bound| match bound.limit.is_second() {
            true => is_chosen(bound),
            false => bound.limit.shadow || !is_chosen(bound),
        });
        let mut limits: Vec<_> = kept.cloned().collect();
        for bound in &mut limits {
            bound.limit.degrades_after = None;
        }
        limits.sort_by_key(|bound| Reverse(bound.limit.scope.specificity()));
        let mut limit_set = self.with(limits);
        (limit_set.is_degraded, limit_set.is_patient) = (true, false);
        limit_set
    }

    /// Returns all its limits, second budgets included.
    fn all(&self) -> impl Iterator<Item = &BoundLimit> {
        let second = self.second.iter().flat_map(|second| &second.limits);
        self.limits.iter().chain(second)
    }

    /// A set of the same route and plan with other limits. Counts for the same route, and is not exempt.
    fn with(&self, limits: impl IntoIterator<Item = BoundLimit>) -> Self {
        let mut limit_set = Self::new(self.route.clone(), self.plan.clone(), limits);
        limit_set.model.clone_from(&self.model);
        limit_set.cost = self.cost;
        limit_set.is_degraded = self.is_degraded;
        // Nobody waits for a second budget, whichever of its limits decide.
        limit_set.is_patient &= !self.is_degraded;
        limit_set.reads_answers = self.reads_answers;
        let limit_set = limit_set.keeping(self.keeps).refunding(self.refunds);
        limit_set.counted_by(&self.counters)
    }

    /// Returns the number of the limit that caps what is in flight, if there is one alone, and clients share its bucket
    /// and its queue.
    pub(crate) fn only_cap(&self) -> Option<usize> {
        let caps = self.limits.iter().enumerate();
        let mut caps = caps.filter(|(_, bound)| bound.limit.is_slots());
        let (cap, bound) = caps.next().filter(|_| caps.next().is_none())?;
        (!bound.is_of_clients()).then_some(cap)
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
            if self.is_degraded {
                self.counters.degraded.add(admitted);
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

    /// Returns the limits that a store keeps, where there is one.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &BoundLimit> {
        self.limits.iter().filter(|bound| bound.id.is_some())
    }

    /// Returns the enforced limits. Their indices are those of the set's readings.
    pub(crate) fn enforced(&self) -> impl Iterator<Item = &BoundLimit> {
        self.limits[..self.enforced].iter()
    }

    /// Returns the set for requests that are for a model as well, with the limits and the cost that it has.
    pub(crate) fn of_model(
        &self,
        model: &Arc<str>,
        cost: u64,
        limits: impl IntoIterator<Item = BoundLimit>,
    ) -> Self {
        let mut all: Vec<_> = self.all().cloned().chain(limits).collect();
        all.sort_by_key(|bound| Reverse(bound.limit.scope.specificity()));
        let mut limit_set = self.with(all).costing(cost);
        limit_set.model = Some(Arc::clone(model));
        limit_set
    }

    /// Returns the units that a request takes of the rates and quotas of its client and of the total.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// Returns another set for requests that cost so much, or as much as now if that is more.
    pub(crate) fn at_cost(&self, cost: u64) -> Self {
        let mut limit_set = self.with(self.all().cloned());
        limit_set.exempt = self.exempt;
        limit_set.costing(cost)
    }

    /// Returns the set for requests that cost so much, or as much as now if that is more.
    pub(crate) fn costing(self, cost: u64) -> Self {
        let cost = cost.max(self.cost);
        if cost == 1 {
            return self;
        }
        let limits = self.all().cloned().map(|bound| bound.costing(cost));
        let mut limit_set = self.with(limits);
        limit_set.cost = cost;
        limit_set.exempt = self.exempt;
        limit_set
    }

    /// Returns the limits of both sets, each balance once: for a request that may mean either of two routes and is
    /// charged on both. Sorted anew by how specific they are. Route, plan and counters are this set's; exempt only if
    /// both are.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let besides = other
            .all()
            .filter(|bound| !self.all().any(|own| own.is(bound)));
        let mut limits: Vec<_> = self.all().chain(besides).cloned().collect();
        limits.sort_by_key(|bound| Reverse(bound.limit.scope.specificity()));
        let limit_set = self.with(limits).costing(other.cost);
        let limit_set = limit_set.keeping(other.keeps);
        let mut limit_set = limit_set.refunding(self.refunds && other.refunds);
        limit_set.exempt = self.exempt && other.exempt;
        // An answer that one of them may not trust is read only if the throttle reads all.
        limit_set.reads_answers = match (self.reads_answers, other.reads_answers) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        limit_set
    }
}

/// The second budgets of some scopes of a set.
#[derive(Debug)]
pub(crate) struct SecondBudgets {
    /// Their limits, the most specific first. None is closed.
    limits: Box<[BoundLimit]>,
    pub(crate) scopes: SecondScopes,
}

impl SecondBudgets {
    /// Keeps the limits of second budgets, if there are any.
    fn new(limits: Vec<BoundLimit>) -> Option<Box<Self>> {
        let mut scopes = SecondScopes::default();
        for BoundLimit {
            limit,
            scope_number,
            ..
        } in &limits
        {
            scopes.add(*scope_number, limit.degrades_after.unwrap_or(0));
        }
        let limits = limits.into();
        (scopes.count() > 0).then(|| Box::new(Self { limits, scopes }))
    }
}

#[cfg(test)]
thread_local! {
    /// No limits of this thread are plain: for tests that compare the two ways.
    pub(crate) static NONE_IS_PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether a set of these limits is plain.
fn are_plain(limits: &[BoundLimit]) -> bool {
    #[cfg(test)]
    if NONE_IS_PLAIN.get() {
        return false;
    }
    let is_plain = |BoundLimit { limit, units, .. }: &BoundLimit| {
        let is_enforced = !limit.shadow && limit.meter.is_some();
        // A reservation of model tokens is not one unit.
        is_enforced && *units == 1 && !limit.is_settled() && limit.wait_policy.is_none()
    };
    (1..=LimitSet::MOST_PLAIN).contains(&limits.len()) && limits.iter().all(is_plain)
}

impl Drop for LimitSet {
    fn drop(&mut self) {
        self.settle();
    }
}

/// A limit, and where its balances are kept. A clone shares balances, history and counters.
#[derive(Debug, Clone)]
pub(crate) struct BoundLimit {
    pub(crate) limit: Limit,
    /// The units that a request takes of a rate or a quota: one, unless the route or model of the set costs more.
    pub(crate) units: u64,
    pub(crate) storage: Storage,
    /// The queue of its scope, where a limit of the scope has a [`WaitPolicy`](crate::limit::wait_policy).
    pub(crate) queue: QueueScope,
    /// The number of its scope.
    pub(crate) scope_number: ScopeNumber,
    /// The version in whose terms it charges: that of the reload that made it, or that last changed what a unit weighs.
    pub(crate) version: Version,
    pub(crate) history: MeterHistory,
    pub(crate) counters: Arc<Counters>,
    /// The name by which a store knows its balances: made of scope, kind, and name or window, never of a size, so that
    /// replicas with the same rules share them, and a reload that changes a size keeps them. `None` where none are
    /// kept in a store: of slots, of closed limits, of limits that rest.
    pub(crate) id: Option<Arc<str>>,
    /// The limit belongs to a closed scope: it is in no limit set, nothing is charged on it, and its balances wait
    /// until the scope is opened.
    pub(crate) rests: bool,
}

/// A scope's part of a [`QueueId`]: one queue for the total or a route, one for each client otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QueueScope {
    /// One queue for all requests, by a number that is given once in a process.
    Scope(u64),
    /// One queue for each client, by the number of the scope's first limit in the client table.
    Client(u32),
}

impl QueueScope {
    /// A scope with a number that no other has. Relaxed: the number orders nothing.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::Scope(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The identity of one wait queue: the key by which [`WaitQueues`](super::queue::WaitQueues) finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum QueueId {
    /// The queue of the total or a route, by the number of its [`QueueScope`].
    Scope(u64),
    /// The queue of a client, by the hash of its first bucket's key, 47 bits: two clients whose hashes meet share a
    /// queue.
    Client(u64),
}

/// The storage of a limit's balances in this process.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    /// One bucket for all requests.
    Bucket(Arc<Bucket>),
    /// A bucket for each client, in the table; here are the number of the limit there and its overflow buckets, for
    /// charges in the terms of the limit's version.
    Client(Arc<ClientBuckets>),
}

impl BoundLimit {
    /// The limits of one scope for whoever asks, each with a bucket of its own, which is full.
    #[cfg(test)]
    pub(crate) fn scope(limits: impl IntoIterator<Item = Limit>) -> Vec<Self> {
        let bound = |limit| Self::alone(limit, Storage::Bucket(Arc::new(Bucket::full(0))));
        limits.into_iter().map(bound).collect()
    }

    /// A limit with a queue of its own.
    #[cfg(test)]
    pub(crate) fn alone(limit: Limit, storage: Storage) -> Self {
        let (version, since) = (0, 0);
        let first = limit
            .meter
            .map(|meter| crate::limiter::meter_history::MeterStep {
                version,
                since,
                meter,
            });
        Self {
            limit,
            units: 1,
            storage,
            queue: QueueScope::next(),
            scope_number: ScopeNumber::next(),
            version,
            history: MeterHistory::new(first),
            counters: Arc::default(),
            id: None,
            rests: false,
        }
    }

    /// Returns the limit for requests that cost so many units, if it counts by cost: a rate or quota of the total or of
    /// a client. Limits of one route or one model count requests.
    fn costing(self, units: u64) -> Self {
        match (&self.limit.settings, self.limit.scope) {
            (LimitSettings::Rate(_) | LimitSettings::Quota(_), Scope::Total | Scope::Client) => {
                Self { units, ..self }
            }
            _ => self,
        }
    }

    /// Returns the queue in which a client's requests wait for this limit.
    ///
    /// Computed from the identity: nobody need wait there.
    pub(crate) fn queue(&self, identity: u128) -> QueueId {
        match self.queue {
            QueueScope::Scope(number) => QueueId::Scope(number),
            QueueScope::Client(number) => QueueId::Client(TableKey::hash_of(identity, number)),
        }
    }

    /// Returns whether each client has a balance or a queue of its own here, so that an identity counts.
    pub(crate) fn is_of_clients(&self) -> bool {
        let has_balances = matches!(self.storage, Storage::Client(_));
        has_balances || matches!(self.queue, QueueScope::Client(_))
    }

    /// Returns the balance to charge for a client, in the terms of this limit. `identity` counts only where balances
    /// are kept in the table.
    #[inline]
    pub(crate) fn balance<'a>(&'a self, table: &'a ClientTable, identity: u128) -> BalanceRef<'a> {
        let terms = MeterTerms {
            version: self.version,
            history: &self.history,
        };
        match &self.storage {
            Storage::Bucket(bucket) => BalanceRef::Bucket(bucket, terms),
            Storage::Client(buckets) => {
                BalanceRef::Table(table, TableKey::new(identity, buckets, terms))
            }
        }
    }

    /// Lists the buckets that are not in the table.
    pub(crate) fn buckets(&self) -> &[Bucket] {
        match &self.storage {
            Storage::Bucket(bucket) => slice::from_ref(bucket),
            Storage::Client(buckets) => buckets.overflow(),
        }
    }

    /// Returns the charge of a request on this limit, without taking it.
    ///
    /// `now` is the decision's reading of the clock; it serves to find out whether a token balance is shared, for which
    /// a request reserves less (see [`BoundLimit::cost`]).
    #[inline(always)]
    pub(crate) fn charge<'a>(
        &'a self,
        table: &'a ClientTable,
        demand: Demand,
        now: Nanos,
    ) -> BucketCharge<'a> {
        let balance = self.balance(table, demand.identity);
        BucketCharge {
            limit: &self.limit,
            balance,
            cost: match self.limit.settings {
                LimitSettings::Rate(_) | LimitSettings::Quota(_) => self.units,
                LimitSettings::InFlight(_) => 1,
                LimitSettings::Tokens(_)
                | LimitSettings::InputTokens(_)
                | LimitSettings::OutputTokens(_)
                | LimitSettings::Spend(_) => self.reserves(demand, &balance, table, now),
            },
        }
    }

    /// Returns the model tokens that a request reserves on a balance of this process, which may be an overflow bucket.
    ///
    /// A look at the balance tells; it is made only if the table has ever been full. Should the client get a bucket of
    /// its own between that look and the charge, or lose it, the reservation is that of the other case, and settling
    /// corrects it.
    #[cold]
    fn reserves(
        &self,
        demand: Demand,
        balance: &BalanceRef<'_>,
        table: &ClientTable,
        now: Nanos,
    ) -> u64 {
        let is_shared = match balance {
            BalanceRef::Bucket(..) => false,
            // Most tables had room for all.
            BalanceRef::Table(..) => table.overflowed() > 0 && balance.peek(now).shared,
        };
        match is_shared {
            true => self.reserved(demand, true),
            false => self.cost(demand),
        }
    }

    /// Returns a number for a limit with one bucket, for [`Stagger`](super::stagger::Stagger) to find its virtual
    /// queue.
    ///
    /// With an `id` it is the same in each process that has the same rules; otherwise it is this process's own.
    pub(crate) fn hash(&self) -> u64 {
        let hasher = FixedState::default();
        match (&self.id, self.queue) {
            (Some(id), _) => hasher.hash_one(id),
            (None, QueueScope::Scope(number)) => hasher.hash_one((number, &self.limit.name)),
            (None, QueueScope::Client(number)) => hasher.hash_one((number, &self.limit.name)),
        }
    }

    /// Returns what a request asks of this limit: its cost in requests, one slot, or the model tokens it reserves.
    ///
    /// The balance is taken to be no overflow bucket. Balances of the total, of a route and of the anonymous client
    /// are shared by strangers in any case, for which [`Limit::reserves`] allows less.
    #[inline]
    pub(crate) fn cost(&self, demand: Demand) -> u64 {
        match &self.limit.settings {
            LimitSettings::Rate(_) | LimitSettings::Quota(_) => self.units,
            LimitSettings::InFlight(_) => 1,
            LimitSettings::Tokens(_)
            | LimitSettings::InputTokens(_)
            | LimitSettings::OutputTokens(_)
            | LimitSettings::Spend(_) => {
                self.reserved(demand, self.limit.is_shared() || demand.is_anonymous)
            }
        }
    }

    /// Returns the units that a request reserves on a balance that strangers share, or do not.
    fn reserved(&self, demand: Demand, is_shared: bool) -> u64 {
        let Demand {
            tokens,
            is_exact,
            token_class,
            ..
        } = demand;
        self.limit
            .reserves(tokens, token_class, is_exact, is_shared)
    }

    /// Returns the number of units that may be leased beside a charge, which takes one of `most`: no more than a
    /// quarter of what a full bucket holds, or than a rate gives in a second, so that others do not miss for long what
    /// a process does not use. Zero for model tokens, of which each request needs another number, for requests that
    /// cost more than one unit, and for shadows.
    pub(crate) fn lease(&self, most: u64) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let meter = match (&self.limit.meter, &self.limit.settings) {
            (Some(meter), LimitSettings::Rate(_) | LimitSettings::Quota(_))
                if !self.limit.shadow && self.units == 1 =>
            {
                meter
            }
            _ => return 0,
        };
        let steady = SECOND.checked_div(meter.steady(1)).unwrap_or(u64::MAX);
        most.saturating_sub(1).min(meter.capacity() / 4).min(steady)
    }

    /// Returns the reason for which a charge of `cost` would be refused at `state`, if it would be refused.
    #[inline]
    pub(crate) fn refusal(&self, state: u64, now: Nanos, cost: u64) -> Option<RefusalReason> {
        refusal(&self.limit, state, now, cost)
    }

    /// Returns the client whose balance is charged; `None` for the total and routes, where it is everybody's.
    pub(crate) fn client(&self, identity: u128) -> Option<u128> {
        match &self.storage {
            Storage::Bucket(_) => None,
            Storage::Client(_) => Some(identity),
        }
    }

    /// The same limit at one of `shares` equal shares, kept in this process alone: for an outage of the store. A limit
    /// that no store keeps stays whole.
    ///
    /// Storage, version and history stay those of the whole limit, while a unit of the share weighs more: a reload
    /// during an outage may carry over more units than were used, never fewer.
    fn share(&self, shares: u32) -> Self {
        let limit = match self.id {
            Some(_) => self.limit.share(shares),
            None => self.limit.clone(),
        };
        // A request that costs more than a share holds takes all of it: it would never pass otherwise.
        let capacity = limit.meter.map_or(u64::MAX, |meter| meter.capacity());
        Self {
            units: self.units.min(capacity.max(1)),
            limit,
            id: None,
            ..self.clone()
        }
    }

    /// Returns whether its bucket was closed by a reload, and is inherited by those of other routes (see
    /// [`bucket`](super::bucket)).
    pub(crate) fn is_closed(&self) -> bool {
        match &self.storage {
            Storage::Bucket(bucket) => bucket.is_closed(),
            Storage::Client(_) => false,
        }
    }

    /// Returns whether both have the same balances, by identity: settings are not compared.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.storage, &other.storage) {
            (Storage::Bucket(own), Storage::Bucket(other)) => Arc::ptr_eq(own, other),
            (Storage::Client(own), Storage::Client(other)) => own.is(other),
            _ => false,
        }
    }
}

/// The demand of one request: the client, and the model tokens. Found once for a request; a request that is decided
/// again, after a reload or in a queue, asks with the same one unless its rules have changed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Demand {
    /// The client: a keyed hash, of 128 bits where a store may have its balances and of 64 otherwise. Zero where rules
    /// have no clients.
    pub(crate) identity: u128,
    /// Model tokens, as the request is estimated.
    pub(crate) tokens: TokenDemand,
    /// `tokens` is no estimate but the true cost: it is asked for in full.
    pub(crate) is_exact: bool,
    /// The client is the anonymous one, whose limits all unidentified requests share.
    pub(crate) is_anonymous: bool,
    /// The class of the request among the models of the rules, of which the limits that it asks are.
    pub(crate) model: ModelClass,
    /// The class of the request among the models whose tokens have a price or an estimate of their own.
    pub(crate) token_class: TokenClass,
}

/// A charge that is to be made: what one limit takes from its bucket for one request. Making one takes nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BucketCharge<'a> {
    pub(crate) limit: &'a Limit,
    pub(crate) balance: BalanceRef<'a>,
    /// In units of the limit: requests, slots or model tokens.
    pub(crate) cost: u64,
}

impl BucketCharge<'_> {
    /// Returns whether the limit would refuse the charge at `state`.
    #[inline(always)]
    pub(super) fn is_refused(&self, state: u64, now: Nanos) -> bool {
        refusal(self.limit, state, now, self.cost).is_some()
    }
}

/// Returns the reason for which a limit would refuse a charge of `cost` at `state`, if it would. A closed limit has no
/// meter, and refuses whatever comes.
#[inline(always)]
pub(crate) fn refusal(limit: &Limit, state: u64, now: Nanos, cost: u64) -> Option<RefusalReason> {
    match &limit.meter {
        Some(meter) => meter.take(state, now, cost).err(),
        None => Some(RefusalReason::Never),
    }
}
