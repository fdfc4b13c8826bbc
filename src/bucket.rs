//! One bucket: an atomic word that holds the state of a [`Meter`].
//!
//! # Memory ordering
//!
//! The word guards no other memory. Its loads acquire and its exchanges release all the same, because
//! giving back compares two clock readings: a thread that sees a charge must also see a clock that is
//! not behind the one the charge was made with. The monotonic clock promises that only along a
//! happens-before edge, and these orderings draw it.

use crate::{
    clock::Nanos,
    meter::Meter,
    sync::{AtomicU64, Ordering},
};

/// The state of a place that is changing hands. No bucket's: states end below it.
pub(crate) const BUSY: u64 = u64::MAX;

/// The state of one limit for one scope. Starts full.
///
/// Aligned to two cache lines, so that neighbours never contend (adjacent lines are fetched in pairs).
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Bucket {
    state: AtomicU64,
}

impl Bucket {
    pub(crate) fn full() -> Self {
        Self {
            state: AtomicU64::new(0),
        }
    }

    #[inline(always)]
    pub(crate) fn load(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// Goes from a state to the `next`, if there is one, starting from a state that the caller has read.
    ///
    /// Returns the state it went to, or as the error the state that has none after it.
    #[inline(always)]
    pub(crate) fn step(
        &self,
        mut seen: u64,
        next: impl Fn(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        loop {
            let next = next(seen).ok_or(seen)?;
            match self
                .state
                .compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(next),
                Err(actual) => seen = actual,
            }
        }
    }

    /// Gives back `weight` nanoseconds that were charged at `taken` and left the bucket at `after`.
    pub(crate) fn give_back(
        &self,
        after: u64,
        meter: &Meter,
        taken: Nanos,
        weight: u64,
        now: impl Fn() -> Nanos,
    ) {
        give_back(&self.state, after, meter, taken, weight, now);
    }
}

/// Gives back `weight` nanoseconds that were charged at `taken` and left the state at `after`.
///
/// If it is there still, nobody came between, and it goes back to where it was. Otherwise `now` is asked
/// after each look at the state: every charge in that state was then made with a reading no later than this
/// one, which is what [`Meter::give_back`] relies on. In a place that is [`BUSY`] there is nothing left.
pub(crate) fn give_back(
    state: &AtomicU64,
    after: u64,
    meter: &Meter,
    taken: Nanos,
    weight: u64,
    now: impl Fn() -> Nanos,
) {
    let before = meter.less(after, weight);
    let undone = state.compare_exchange(after, before, Ordering::AcqRel, Ordering::Acquire);
    let Err(mut seen) = undone else {
        return;
    };
    while seen != BUSY {
        let next = meter.give_back(seen, taken, now(), weight);
        if next == seen {
            return;
        }
        match state.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(actual) => seen = actual,
        }
    }
}
