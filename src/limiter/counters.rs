//! Counts of decisions, for operators.
//!
//! Each limit and each route has one set of [`Counters`] behind an `Arc`; a reload hands it on to the limit or route
//! that stays, so that counts run from the making of the throttle. No decision reads them: they feed the snapshot and
//! the metrics alone.
//!
//! # Callers
//!
//! The engine counts refusals, `limiter/queue` who waits, `admission` implausible reports, and
//! [`LimitSet`](super::limit_set::LimitSet) the rest. `observe` reads.
//!
//! # Memory ordering
//!
//! Relaxed throughout: a counter orders no other memory. A reader may thus see a request in one counter and not yet in
//! another; sums over several counters agree only when no request is being decided.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that many threads count up, from zero.
///
/// At one increment per nanosecond it would wrap after 584 years; there is no check.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts down. The caller has counted as much up before: below zero the number wraps.
    pub(crate) fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the count and sets it to zero in one step, so that what is added meanwhile is in exactly one of two
    /// calls.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Counts of requests that the rules could not identify as configured. One for all rules of a throttle.
#[derive(Debug, Default)]
pub(crate) struct Unidentified {
    /// Requests without the peer's address, where clients are identified by it. They share the anonymous client's
    /// limits.
    pub(crate) without_address: Counter,
    /// Requests for which a plan was named that is not declared. They have the limits of each client.
    pub(crate) unknown_plans: Counter,
}

/// Counts of one limit or one route. All but `waiting` only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests to which it applied and that were admitted. Follows [`LimitSet::admitted`], from which
    /// [`LimitSet::settle`] moves the count here: until then it is behind.
    ///
    /// [`LimitSet::admitted`]: super::limit_set::LimitSet::admitted
    /// [`LimitSet::settle`]: super::limit_set::LimitSet::settle
    pub(crate) admitted: Counter,
    /// Requests among `admitted` that passed under an exempt limit set. Counted for routes alone: an exempt set has no
    /// limits.
    pub(crate) exempt: Counter,
    /// Requests that it refused, alone or with other limits; of a route, requests that any limit refused.
    pub(crate) refused: Counter,
    /// Requests that a shadow limit would have refused. On a route, one for each such limit.
    pub(crate) would_refuse: Counter,
    /// Entries into a wait queue for this limit. A request that moves to another queue counts once in each. Counted
    /// for limits alone.
    pub(crate) waited: Counter,
    /// Answers whose report of model tokens was implausible. Counted for routes alone.
    pub(crate) implausible: Counter,
    /// Requests that wait for this limit now: the one count that falls again, when a `Waiter` is dropped or moves.
    pub(crate) waiting: Counter,
}
