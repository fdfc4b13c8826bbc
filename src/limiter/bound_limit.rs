//! One limit, and where its balances are kept.

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
    limit::{Limit, Terms},
    limiter::{
        balance::BalanceRef,
        bucket::Bucket,
        client_table::{ClientBuckets, ClientTable, TableKey},
        counters::Counters,
        meter_history::MeterTerms,
        meter_history::{MeterHistory, Version},
    },
};

/// A limit and where its balances are kept. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct BoundLimit {
    pub(crate) limit: Limit,
    pub(crate) home: Storage,
    pub(crate) line: QueueScope,
    /// Of its settings.
    pub(crate) version: Version,
    pub(crate) history: MeterHistory,
    pub(crate) counters: Arc<Counters>,
    /// What a store knows its balances by. None are kept in one where there is none: of slots, and of limits that are
    /// closed.
    pub(crate) id: Option<Arc<str>>,
    /// The limit belongs to a closed scope: nothing is charged on it, and its balances wait until the scope is opened.
    pub(crate) rests: bool,
}

/// Where requests wait that a limit refuses: one line for all limits of a scope.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QueueScope {
    /// Of whoever asks, by number.
    Scope(u64),
    /// Of each client, by the number of the scope's first limit.
    Client(u32),
}

impl QueueScope {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::Scope(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The line of one scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum QueueId {
    /// Of the total or a route, by number.
    Scope(u64),
    /// Of a client, by the hash of its first bucket's key.
    Client(u64),
}

/// Where the balances of a limit are kept.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    /// In one bucket, whoever asks.
    Bucket(Arc<Bucket>),
    /// In the table, one for each client.
    Client(Arc<ClientBuckets>),
}

impl BoundLimit {
    /// The limits of one scope for whoever asks, each with a bucket of its own, which is full.
    #[cfg(test)]
    pub(crate) fn scope(limits: impl IntoIterator<Item = Limit>) -> Vec<Self> {
        let bound = |limit| Self::alone(limit, Storage::Bucket(Arc::new(Bucket::full(0))));
        limits.into_iter().map(bound).collect()
    }

    /// A limit in a line of its own.
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

    /// The line that a client waits in.
    pub(crate) fn line(&self, identity: u128) -> QueueId {
        match self.line {
            QueueScope::Scope(number) => QueueId::Scope(number),
            QueueScope::Client(number) => QueueId::Client(TableKey::hash_of(identity, number)),
        }
    }

    /// Where the balance of a client is kept.
    #[inline]
    pub(crate) fn place<'a>(&'a self, memory: &'a ClientTable, identity: u128) -> BalanceRef<'a> {
        let scale = MeterTerms {
            version: self.version,
            history: &self.history,
        };
        match &self.home {
            Storage::Bucket(bucket) => BalanceRef::Bucket(bucket, scale),
            Storage::Client(page) => {
                BalanceRef::Table(memory, TableKey::new(identity, page, scale))
            }
        }
    }

    #[inline(always)]
    pub(crate) fn charge<'a>(
        &'a self,
        memory: &'a ClientTable,
        demand: Demand,
        now: Nanos,
    ) -> BucketCharge<'a> {
        let place = self.place(memory, demand.identity);
        BucketCharge {
            limit: &self.limit,
            place,
            cost: match self.limit.is_tokens() {
                true => self.reserves(demand, &place, memory, now),
                false => 1,
            },
        }
    }

    /// The model tokens that a request reserves in a place of this process, which it may share with others.
    #[cold]
    fn reserves(
        &self,
        demand: Demand,
        place: &BalanceRef<'_>,
        memory: &ClientTable,
        now: Nanos,
    ) -> u64 {
        let is_shared = match place {
            BalanceRef::Bucket(..) => false,
            // Most tables had room for all.
            BalanceRef::Table(..) => memory.overflowed() > 0 && place.peek(now).shared,
        };
        match is_shared {
            true => self.limit.reserves(demand.tokens, demand.is_exact, true),
            false => self.cost(demand),
        }
    }

    /// What stands for a limit of whoever asks: the same in each process that has the same rules, but for slots.
    pub(crate) fn hash(&self) -> u64 {
        let hasher = FixedState::default();
        match (&self.id, self.line) {
            (Some(id), _) => hasher.hash_one(id),
            (None, QueueScope::Scope(number)) => hasher.hash_one((number, &self.limit.name)),
            (None, QueueScope::Client(number)) => hasher.hash_one((number, &self.limit.name)),
        }
    }

    /// What a request asks for, in a bucket that it shares with nobody for lack of room.
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

    /// The client whose balance it is.
    pub(crate) fn client(&self, identity: u128) -> Option<u128> {
        match &self.home {
            Storage::Bucket(_) => None,
            Storage::Client(_) => Some(identity),
        }
    }

    /// The same limit at one of so many shares, kept in this process alone.
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

    /// Tells whether its bucket has gone over to other routes.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.home {
            Storage::Bucket(bucket) => bucket.is_closed(),
            Storage::Client(_) => false,
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.home, &other.home) {
            (Storage::Bucket(own), Storage::Bucket(other)) => Arc::ptr_eq(own, other),
            (Storage::Client(own), Storage::Client(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

/// Who asks, and for how much.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Demand {
    /// The client: a keyed hash.
    pub(crate) identity: u128,
    /// Model tokens, as the request is estimated.
    pub(crate) tokens: u64,
    /// Whether that is no estimate, but what the request costs.
    pub(crate) is_exact: bool,
    /// Whether the client is the one that all are of whom nothing is known.
    pub(crate) is_anonymous: bool,
}

/// What one limit takes from its bucket for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BucketCharge<'a> {
    pub(crate) limit: &'a Limit,
    pub(crate) place: BalanceRef<'a>,
    pub(crate) cost: u64,
}
