//! Bound limits: a limit's settings, and where its balances are kept.
//!
//! A [`Limit`] is what was configured. Bound to a scope it has a [`Storage`]: one bucket (the total, a route) or a
//! part of the client table (each client, each client on a route). Binding is done by `rules/registry` when rules are
//! compiled, and hands on what the limit had under the rules before: storage, history, counters and queue.
//!
//! # Invariants
//!
//! - A bound limit never changes; a reload makes others that share its storage. Balances live as long as somebody holds
//!   the storage: rules in force, a request that was charged, or the memory of a lost key.
//! - `version` is one of the steps of `history`, unless the limit is closed (`limit.meter` is `None`).
//! - All enforced limits and shadows of a scope have one [`QueueScope`]: who waits for one of them waits in the same
//!   queue as who waits for another.
//! - `id` is `None` for slots, which are never kept in a store, for closed limits, and for limits that rest. Where
//!   there is a store, a limit with an `id` uses its balance in this process only while the store is down.
//!
//! # Callers
//!
//! [`LimitSet`](super::limit_set::LimitSet) charges bound limits; `admission` gives back through them; `store/client`
//! takes `id` and [`BoundLimit::cost`] into a store's charges; `observe` reads their counters.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::FixedState;

use crate::{
    clock::Nanos,
    limit::{Limit, Terms, gcra::RefusalReason},
    limiter::{
        balance::BalanceRef,
        bucket::Bucket,
        client_table::{ClientBuckets, ClientTable, TableKey},
        counters::Counters,
        meter_history::MeterTerms,
        meter_history::{MeterHistory, Version},
    },
};

/// A limit, and where its balances are kept. A clone shares balances, history and counters.
#[derive(Debug, Clone)]
pub(crate) struct BoundLimit {
    pub(crate) limit: Limit,
    pub(crate) home: Storage,
    /// The queue of its scope, where a limit of the scope has a [`WaitPolicy`](crate::limit::wait_policy).
    pub(crate) line: QueueScope,
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

/// The home of a limit's balances in this process.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    /// One bucket for all requests.
    Bucket(Arc<Bucket>),
    /// A bucket for each client, in the table; here are the number of the limit there and its overflow buckets.
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
    pub(crate) fn alone(limit: Limit, home: Storage) -> Self {
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
            home,
            line: QueueScope::next(),
            version,
            history: MeterHistory::new(first),
            counters: Arc::default(),
            id: None,
            rests: false,
        }
    }

    /// Returns the queue in which a client's requests wait for this limit.
    ///
    /// Computed from the identity: nobody need wait there.
    pub(crate) fn line(&self, identity: u128) -> QueueId {
        match self.line {
            QueueScope::Scope(number) => QueueId::Scope(number),
            QueueScope::Client(number) => QueueId::Client(TableKey::hash_of(identity, number)),
        }
    }

    /// Returns the balance to charge for a client, in the terms of this limit. `identity` counts only where balances
    /// are kept in the table.
    #[inline]
    pub(crate) fn place<'a>(&'a self, table: &'a ClientTable, identity: u128) -> BalanceRef<'a> {
        let terms = MeterTerms {
            version: self.version,
            history: &self.history,
        };
        match &self.home {
            Storage::Bucket(bucket) => BalanceRef::Bucket(bucket, terms),
            Storage::Client(buckets) => {
                BalanceRef::Table(table, TableKey::new(identity, buckets, terms))
            }
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
        let place = self.place(table, demand.identity);
        BucketCharge {
            limit: &self.limit,
            place,
            cost: match self.limit.terms {
                Terms::Tokens(_) => self.reserves(demand, &place, table, now),
                Terms::Rate(_) | Terms::Quota(_) | Terms::InFlight(_) => 1,
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
        place: &BalanceRef<'_>,
        table: &ClientTable,
        now: Nanos,
    ) -> u64 {
        let is_shared = match place {
            BalanceRef::Bucket(..) => false,
            // Most tables had room for all.
            BalanceRef::Table(..) => table.overflowed() > 0 && place.peek(now).shared,
        };
        match is_shared {
            true => self.limit.reserves(demand.tokens, demand.is_exact, true),
            false => self.cost(demand),
        }
    }

    /// Returns a number for a limit with one bucket, for [`Stagger`](super::stagger::Stagger) to find its virtual
    /// queue.
    ///
    /// With an `id` it is the same in each process that has the same rules; otherwise it is this process's own.
    pub(crate) fn hash(&self) -> u64 {
        let hasher = FixedState::default();
        match (&self.id, self.line) {
            (Some(id), _) => hasher.hash_one(id),
            (None, QueueScope::Scope(number)) => hasher.hash_one((number, &self.limit.name)),
            (None, QueueScope::Client(number)) => hasher.hash_one((number, &self.limit.name)),
        }
    }

    /// Returns what a request asks of this limit: one request or slot, or the model tokens it reserves.
    ///
    /// The balance is taken to be no overflow bucket. Balances of the total, of a route and of the anonymous client
    /// are shared by strangers in any case, for which [`Limit::reserves`] allows less.
    #[inline]
    pub(crate) fn cost(&self, demand: Demand) -> u64 {
        match &self.limit.terms {
            Terms::Tokens(_) => {
                let is_shared = self.limit.is_shared() || demand.is_anonymous;
                self.limit
                    .reserves(demand.tokens, demand.is_exact, is_shared)
            }
            Terms::Rate(_) | Terms::Quota(_) | Terms::InFlight(_) => 1,
        }
    }

    /// Returns the number of units that may be leased beside a charge, which takes one of `most`: no more than a
    /// quarter of what a full bucket holds, or than a rate gives in a second, so that others do not miss for long what
    /// a process does not use. Zero for model tokens, of which each request needs another number, and for shadows.
    pub(crate) fn lease(&self, most: u64) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let meter = match (&self.limit.meter, &self.limit.terms) {
            (Some(meter), Terms::Rate(_) | Terms::Quota(_)) if !self.limit.shadow => meter,
            _ => return 0,
        };
        let steady = SECOND.checked_div(meter.steady(1)).unwrap_or(u64::MAX);
        most.saturating_sub(1).min(meter.capacity() / 4).min(steady)
    }

    /// Returns the reason for which a charge of `cost` would be refused at `state`, if it would be refused.
    #[inline]
    pub(crate) fn refusal(&self, state: u64, now: Nanos, cost: u64) -> Option<RefusalReason> {
        match &self.limit.meter {
            Some(meter) => meter.take(state, now, cost).err(),
            None => Some(RefusalReason::Never),
        }
    }

    /// Returns the client whose balance is charged; `None` for the total and routes, where it is everybody's.
    pub(crate) fn client(&self, identity: u128) -> Option<u128> {
        match &self.home {
            Storage::Bucket(_) => None,
            Storage::Client(_) => Some(identity),
        }
    }

    /// The same limit at one of `shares` equal shares, kept in this process alone: for an outage of the store. A limit
    /// that no store keeps stays whole.
    ///
    /// Storage, version and history stay those of the whole limit, while a unit of the share weighs more: a reload
    /// during an outage may carry over more units than were used, never fewer.
    pub(super) fn share(&self, shares: u32) -> Self {
        Self {
            limit: match self.id {
                Some(_) => self.limit.share(shares),
                None => self.limit.clone(),
            },
            id: None,
            ..self.clone()
        }
    }

    /// Tells whether its bucket was closed by a reload, and is inherited by those of other routes (see
    /// [`bucket`](super::bucket)).
    pub(crate) fn is_closed(&self) -> bool {
        match &self.home {
            Storage::Bucket(bucket) => bucket.is_closed(),
            Storage::Client(_) => false,
        }
    }

    /// Tells whether both have the same balances, by identity: settings are not compared.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.home, &other.home) {
            (Storage::Bucket(own), Storage::Bucket(other)) => Arc::ptr_eq(own, other),
            (Storage::Client(own), Storage::Client(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

/// The demand of one request: the client, and the model tokens. Found once for a request; a request that is decided
/// again, after a reload or in a queue, asks with the same one unless its rules have changed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Demand {
    /// The client: a keyed hash of 128 bits. Zero where rules have no clients.
    pub(crate) identity: u128,
    /// Model tokens, as the request is estimated.
    pub(crate) tokens: u64,
    /// `tokens` is no estimate but the true cost: it is asked for in full.
    pub(crate) is_exact: bool,
    /// The client is the anonymous one, whose limits all unidentified requests share.
    pub(crate) is_anonymous: bool,
}

/// A charge that is to be made: what one limit takes from its bucket for one request. Making one takes nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BucketCharge<'a> {
    pub(crate) limit: &'a Limit,
    pub(crate) place: BalanceRef<'a>,
    /// In units of the limit: requests, slots or model tokens.
    pub(crate) cost: u64,
}

impl BucketCharge<'_> {
    /// Tells whether the limit would refuse the charge at `state`.
    #[inline(always)]
    pub(super) fn is_refused(&self, state: u64, now: Nanos) -> bool {
        let meter = self.limit.meter.as_ref();
        meter.is_none_or(|meter| meter.take(state, now, self.cost).is_err())
    }
}
