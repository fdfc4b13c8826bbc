//! What a store is asked, and what it answers.

use std::{fmt, sync::Arc};

use super::{Budget, Stored};
use crate::clock::{Clock, Nanos};

/// What a bucket is known by, the same in all processes that have the same rules: a limit and, for a limit of clients,
/// a client.
///
/// It is shown as it should be kept: the limit and, behind a colon, the client as 32 hexadecimal digits. A client is a
/// keyed hash under a secret that only those know who share the store ([`Clients::secret`](crate::Clients::secret)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketKey {
    limit: Arc<str>,
    client: Option<u128>,
}

impl BucketKey {
    /// The bucket of a limit, or that of one client.
    pub fn new(limit: impl Into<Arc<str>>, client: Option<u128>) -> Self {
        Self {
            limit: limit.into(),
            client,
        }
    }

    /// The limit, by where it holds, its kind, and its period (`route POST /chat/rate-60s`, `total/quota-day`) or the name
    /// that it was given (`route POST /chat/rate/chat`). Shadows are of kinds of their own (`rate-shadow`), and limits
    /// that are equal in all of this are numbered by size (`rate-60s-2`).
    #[must_use]
    pub fn limit(&self) -> &str {
        &self.limit
    }

    pub(crate) fn shared_limit(&self) -> &Arc<str> {
        &self.limit
    }

    /// What stands for the client in the table.
    pub(crate) fn identity(&self) -> u128 {
        self.client.unwrap_or(0)
    }

    /// The client, if each has a bucket of its own.
    #[must_use]
    pub fn client(&self) -> Option<u128> {
        self.client
    }
}

impl fmt::Display for BucketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.limit)?;
        match self.client {
            Some(client) => write!(f, ":{client:032x}"),
            None => Ok(()),
        }
    }
}

/// What one limit asks of its bucket for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Charge {
    /// The bucket.
    pub key: BucketKey,
    /// What it allows.
    pub budget: Budget,
    /// The units to be taken, at most as many as a full bucket holds. Zero takes nothing: it asks for the balance, so that
    /// a true wait can be told.
    pub cost: u64,
    /// Whether it refuses nobody.
    pub is_shadow: bool,
    /// Whether what is taken is often corrected afterwards, as model tokens are.
    pub is_settled: bool,
    /// Units that may be taken beside the cost, for requests to come: a lease. Of no use to shadows.
    pub lease: u64,
}

impl Charge {
    /// A charge that is enforced.
    #[must_use]
    pub fn new(key: BucketKey, budget: Budget, cost: u64) -> Self {
        Self {
            key,
            budget,
            cost,
            is_shadow: false,
            is_settled: false,
            lease: 0,
        }
    }

    /// One that asks for a lease, too.
    #[must_use]
    pub fn lease(self, units: u64) -> Self {
        Self {
            lease: units,
            ..self
        }
    }

    /// One that refuses nobody.
    #[must_use]
    pub fn shadow(self) -> Self {
        Self {
            is_shadow: true,
            ..self
        }
    }
}

/// What has become of the charges of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Whether the enforced ones were taken.
    pub is_admitted: bool,
    /// The store's clock at that moment: nanoseconds since the Unix epoch.
    pub now: Nanos,
    /// What each bucket holds after it.
    pub balances: Vec<Balance>,
}

impl Taken {
    /// The same with each number in the range that arithmetic has, whatever a store has answered.
    pub(crate) fn within_range(mut self, charges: &[Charge]) -> Self {
        self.now = self.now.min(Clock::MAX);
        let asked = charges.iter().map(|charge| charge.lease);
        for (balance, asked) in self.balances.iter_mut().zip(asked) {
            balance.state = balance.state.min(Stored::LATEST);
            balance.leased = balance.leased.min(asked);
        }
        self
    }
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// As [`Stored::state`](super::Stored::state); any moment that is not in the future is a full bucket.
    pub state: Nanos,
    /// Whether it is that of a shadow that would have refused.
    pub is_refused: bool,
    /// Units of a [lease](Charge::lease) that were taken beside the cost.
    pub leased: u64,
}

/// A change of a balance, whatever it is.
///
/// A store carries out all of these kinds, so there is no other that it might leave out unseen: one more would be a
/// breaking change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correction {
    /// Units were used without having been asked for. What a bucket does not hold is owed.
    Owe {
        /// The bucket.
        key: BucketKey,
        /// What it allows.
        budget: Budget,
        /// How many units.
        units: u64,
    },
    /// Units that were taken come back, no more than the bucket holds.
    Refund {
        /// The bucket.
        key: BucketKey,
        /// What it allows.
        budget: Budget,
        /// How many units.
        units: u64,
    },
    /// A charge is taken back as if it had not been made: its units come back, less what was refilled since.
    Undo {
        /// The bucket.
        key: BucketKey,
        /// What it allows.
        budget: Budget,
        /// How many units.
        units: u64,
        /// When they were taken, by the store's clock.
        taken: Nanos,
    },
    /// Units of a lease that were not spent come back, if nobody was charged since: for a rate, if the bucket is still
    /// in the state that the lease has left it in; for a quota, if its window has not ended. Otherwise they stay taken.
    Return {
        /// The bucket.
        key: BucketKey,
        /// What it allows.
        budget: Budget,
        /// How many units.
        units: u64,
        /// The state that the lease has left.
        state: Nanos,
    },
}

impl Correction {
    /// The bucket, what it allows, and how many units are meant.
    #[must_use]
    pub fn parts(&self) -> (&BucketKey, &Budget, u64) {
        let (Self::Owe { key, budget, units }
        | Self::Refund { key, budget, units }
        | Self::Undo {
            key, budget, units, ..
        }
        | Self::Return {
            key, budget, units, ..
        }) = self;
        (key, budget, *units)
    }
}
