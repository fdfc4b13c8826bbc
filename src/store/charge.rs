//! Charges to a store, and its answers.

use std::{fmt, sync::Arc};

use super::{Budget, Stored};
use crate::clock::{Nanos, Timeline};

/// The name of a bucket, the same in all processes that have the same rules: a limit and, for a limit of clients, a
/// client.
///
/// `Display` writes the key as a store should keep it: the limit, then for a client a colon and 32 hexadecimal digits.
/// A client is a keyed hash under a secret that only the processes sharing the store know
/// ([`Clients::secret`](crate::Clients::secret)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketKey {
    limit: Arc<str>,
    client: Option<u128>,
}

impl BucketKey {
    /// Names the bucket of a limit, or that of one client.
    pub fn new(limit: impl Into<Arc<str>>, client: Option<u128>) -> Self {
        Self {
            limit: limit.into(),
            client,
        }
    }

    /// Returns the limit: its scope, kind and period (`route POST /chat/rate-60s`, `total/quota-day`), or its scope,
    /// kind and name (`route POST /chat/rate/chat`). Shadows have kinds of their own (`rate-shadow`), and limits that
    /// are equal in all of this are numbered by size (`rate-60s-2`).
    #[must_use]
    pub fn limit(&self) -> &str {
        &self.limit
    }

    pub(crate) fn shared_limit(&self) -> &Arc<str> {
        &self.limit
    }

    /// Returns the client's number in the table of clients, 0 for no client.
    pub(crate) fn identity(&self) -> u128 {
        self.client.unwrap_or(0)
    }

    /// Returns the client, if each has a bucket of its own.
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

/// The demand of one limit on its bucket, for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Charge {
    /// The bucket.
    pub key: BucketKey,
    /// The allowance of the bucket.
    pub budget: Budget,
    /// The units to take. Zero takes nothing and always fits: it reads the balance, so that a refusal can state a true
    /// wait. More than the [capacity](Budget::capacity) never fits.
    pub cost: u64,
    /// Set if the charge is a shadow's, which refuses no request.
    pub is_shadow: bool,
    /// Set if the units are often corrected afterwards, as model tokens are. A hint: buckets without it rarely owe more
    /// than they hold.
    pub is_settled: bool,
    /// Units that may be taken in addition, for requests to come: a lease. Zero asks for none. A store may always give
    /// fewer, or none. Shadows get none.
    pub lease: u64,
}

impl Charge {
    /// Demands `cost` units of a bucket, enforced and without a lease.
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

    /// Demands a lease of at most `units`, too.
    #[must_use]
    pub fn lease(self, units: u64) -> Self {
        Self {
            lease: units,
            ..self
        }
    }

    /// Makes the charge that of a shadow.
    #[must_use]
    pub fn shadow(self) -> Self {
        Self {
            is_shadow: true,
            ..self
        }
    }
}

/// The answer to the charges of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Set if the enforced charges were taken.
    pub is_admitted: bool,
    /// The time of the call by the store's clock, in nanoseconds since the Unix epoch. Later than 2⁶² counts as 2⁶².
    pub now: Nanos,
    /// The bucket of each charge after the call, in the order of the charges.
    pub balances: Vec<Balance>,
}

impl Taken {
    /// Returns the same answer with each number clamped to the range of the arithmetic.
    pub(crate) fn within_range(mut self, charges: &[Charge]) -> Self {
        self.now = self.now.min(Timeline::MAX);
        let asked = charges.iter().map(|charge| charge.lease);
        for (balance, asked) in self.balances.iter_mut().zip(asked) {
            balance.state = balance.state.min(Stored::LATEST);
            balance.leased = balance.leased.min(asked);
        }
        self
    }
}

/// The balance of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// The state of the bucket, as [`Stored::state`]. Any moment not later than [`Taken::now`] is a full bucket, for
    /// example zero.
    pub state: Nanos,
    /// Set if this is the balance of a shadow that would have refused.
    pub is_refused: bool,
    /// Units of a [lease](Charge::lease) that were taken besides the cost. A number above [`Charge::lease`] counts as
    /// `Charge::lease`.
    pub leased: u64,
}

/// An unconditional change of a balance.
///
/// A store must implement every kind. The enum is exhaustive, so that a new kind cannot be overlooked: adding one is a
/// breaking change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correction {
    /// Units were used without a charge. Units that the bucket does not hold are owed: [`Budget::owe`].
    Owe {
        /// The bucket.
        key: BucketKey,
        /// The allowance of the bucket.
        budget: Budget,
        /// The number of units.
        units: u64,
    },
    /// Taken units come back, at most as many as the bucket holds: [`Budget::refund`].
    Refund {
        /// The bucket.
        key: BucketKey,
        /// The allowance of the bucket.
        budget: Budget,
        /// The number of units.
        units: u64,
    },
    /// A charge is undone: its units come back, less those refilled since: [`Budget::undo`].
    ///
    /// If the bucket is in other [terms](Stored::terms) by now, the units stay taken, and the bucket keeps its terms.
    /// Charges by other settings were made since. Settings in between, which an entry does not record, may have
    /// refilled the units, which would then come back twice.
    Undo {
        /// The bucket.
        key: BucketKey,
        /// The allowance of the bucket.
        budget: Budget,
        /// The number of units.
        units: u64,
        /// The time of the charge: the [`Taken::now`] of its answer, or, for a quota, any moment of the window that was
        /// charged.
        taken: Nanos,
    },
    /// Unspent units of a lease come back if nothing was charged since: for a rate, if the bucket is still in the state
    /// that the lease left; for a quota, if its window has not ended. Otherwise they stay taken. They also stay taken
    /// if the bucket is in other [terms](Stored::terms) by now, which it keeps: [`Budget::give_back`].
    Return {
        /// The bucket.
        key: BucketKey,
        /// The allowance of the bucket.
        budget: Budget,
        /// The number of units.
        units: u64,
        /// The state that the lease left: the [`Balance::state`] of its answer.
        state: Nanos,
    },
}

impl Correction {
    /// Returns the bucket, its allowance, and the number of units.
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
