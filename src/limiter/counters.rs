//! What has become of requests, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that many threads count up. It guards nothing but itself, hence relaxed.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// What was counted, to be counted elsewhere.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Requests whose client was not identified as the rules want it.
#[derive(Debug, Default)]
pub(crate) struct Unidentified {
    /// Without the peer's address, where clients are told apart by it.
    pub(crate) without_address: Counter,
    /// With the name of a plan that is not declared.
    pub(crate) unknown_plans: Counter,
}

/// What has become of the requests that one limit, or one route, was asked for.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) admitted: Counter,
    /// Of those admitted, by a rule that is exempt.
    pub(crate) exempt: Counter,
    pub(crate) refused: Counter,
    /// By a limit that is a shadow.
    pub(crate) would_refuse: Counter,
    pub(crate) waited: Counter,
    /// Answers whose report of model tokens was implausible.
    pub(crate) implausible: Counter,
    /// Now.
    pub(crate) waiting: Counter,
}
