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
        balance::Place,
        bucket::Bucket,
        client_table::{Key, Memory, Page},
        counters::Tally,
        meter_history::Scale,
        meter_history::{History, Version},
    },
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
    /// The limit belongs to a closed scope: nothing is charged on it, and its balances wait until the scope is opened.
    pub(crate) rests: bool,
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

/// The line of one scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LineId {
    /// Of the total or a route, by number.
    Scope(u64),
    /// Of a client, by the hash of its first bucket's key.
    Client(u64),
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
        let first = limit
            .meter
            .map(|meter| crate::limiter::meter_history::Step {
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
            rests: false,
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
    pub(crate) fn charge<'a>(&'a self, memory: &'a Memory, asked: Asked, now: Nanos) -> Charge<'a> {
        let place = self.place(memory, asked.identity);
        Charge {
            limit: &self.limit,
            place,
            cost: match self.limit.is_tokens() {
                true => self.reserves(asked, &place, memory, now),
                false => 1,
            },
        }
    }

    /// The model tokens that a request reserves in a place of this process, which it may share with others.
    #[cold]
    fn reserves(&self, asked: Asked, place: &Place<'_>, memory: &Memory, now: Nanos) -> u64 {
        let is_shared = match place {
            Place::Bucket(..) => false,
            // Most tables had room for all.
            Place::Table(..) => memory.overflowed() > 0 && place.peek(now).shared,
        };
        match is_shared {
            true => self.limit.reserves(asked.tokens, asked.is_exact, true),
            false => self.cost(asked),
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

    /// What a request asks for, in a bucket that it shares with nobody for lack of room.
    #[inline]
    pub(crate) fn cost(&self, asked: Asked) -> u64 {
        match &self.limit.terms {
            Terms::Tokens(_) => {
                let is_shared = self.limit.is_shared() || asked.is_anonymous;
                self.limit.reserves(asked.tokens, asked.is_exact, is_shared)
            }
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
            Home::Bucket(bucket) => bucket.is_closed(),
            Home::Client(_) => false,
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
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
    /// Model tokens, as the request is estimated.
    pub(crate) tokens: u64,
    /// Whether that is no estimate, but what the request costs.
    pub(crate) is_exact: bool,
    /// Whether the client is the one that all are of whom nothing is known.
    pub(crate) is_anonymous: bool,
}

/// What one limit takes from its bucket for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charge<'a> {
    pub(crate) limit: &'a Limit,
    pub(crate) place: Place<'a>,
    pub(crate) cost: u64,
}
