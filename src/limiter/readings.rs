//! Readings: the balances of the buckets of one decision.
//!
//! A decision reads each bucket that it charges. Everything derived from it later (header fields, the wait, permits,
//! the reservation) uses these readings, since a bucket may have changed by then.
//!
//! # Invariants
//!
//! - Readings stand in the order of the limit set's limits: enforced ones first, shadows after them. Index `i` belongs
//!   to `limits[i]`.
//! - A decision that ends in `Ok` has one reading for each limit. One that ends in [`Outdated`](super::Outdated) may
//!   have some; they are discarded.
//! - A state is in terms of the limit's own version, in nanoseconds (see [`Meter`](crate::limit::meter::Meter)). States
//!   of a store's balances follow the store's clock.
//!
//! # Callers
//!
//! Written here and by `store` (which fills them from a store's answer); read by `engine`, `admission`, `decision` and
//! `response`.

use std::ops::{Index, IndexMut};

use crate::clock::Nanos;

/// A balance as one access found or left it: what a bucket answers, before the decision adds what it asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BucketReading {
    pub(crate) state: u64,
    /// The balance is an overflow bucket, which strangers share since the table had no room.
    pub(crate) shared: bool,
    /// The state is in terms of newer settings than the charge's: it may be shown, and not computed with.
    pub(crate) outdated: bool,
    /// The nanoseconds between the decision's reading of the clock and the charge. Zero but for a client without a
    /// bucket in the table, whose first charge is made with a later reading. Saturates at `u32::MAX`, 4.3 s.
    pub(crate) late: u32,
}

impl BucketReading {
    /// A reading of a bucket that nobody shares for lack of room, charged at the decision's own moment.
    pub(crate) fn own(state: u64) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    /// The same reading, of a charge at `at` for a decision at `now`.
    pub(crate) fn charged(self, at: Nanos, now: Nanos) -> Self {
        let late = at.saturating_sub(now);
        Self {
            late: u32::try_from(late).unwrap_or(u32::MAX),
            ..self
        }
    }

    /// A reading of [`Bucket::peek`](super::bucket::Bucket::peek), whose error is a state in newer terms.
    pub(crate) fn peeked(state: Result<u64, u64>) -> Self {
        let outdated = state.is_err();
        let (Ok(state) | Err(state)) = state;
        Self {
            state,
            outdated,
            ..Self::default()
        }
    }
}

/// One limit's part of a decision: the state its bucket was left in, and the cost that was asked of it.
///
/// After an admission the state includes the cost, but for a shadow that would have refused. After a refusal it does
/// not: on the limit that refused as on the others, it is the balance that was found, or that was left once taken
/// charges were given back. Where requests wait in front, `limiter/queue` adds to it what they ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LimitReading {
    pub(crate) state: u64,
    /// In units of the limit: requests, slots or model tokens.
    pub(crate) cost: u64,
    /// As [`BucketReading::shared`]. A later refund must name the same balance, so permits and reservations keep it.
    pub(crate) shared: bool,
    /// A refusal that the state alone does not show: by a shadow, or, of an enforced limit, by requests that wait in
    /// front of what looks like room.
    pub(crate) refused: bool,
    /// A shadow whose balance is in newer terms: it was not charged, and says nothing of this request.
    pub(crate) unasked: bool,
    /// As [`BucketReading::late`].
    pub(crate) late: u32,
}

impl LimitReading {
    #[inline(always)]
    pub(crate) fn new(seen: BucketReading, cost: u64) -> Self {
        Self {
            state: seen.state,
            cost,
            shared: seen.shared,
            refused: false,
            unasked: false,
            late: seen.late,
        }
    }

    /// Returns the part that a bucket wrote, as the start of the next access. [`BucketReading::outdated`] is not kept
    /// in a reading of a limit, and is `false` here.
    #[inline(always)]
    pub(crate) fn seen(&self) -> BucketReading {
        BucketReading {
            shared: self.shared,
            late: self.late,
            ..BucketReading::own(self.state)
        }
    }

    /// Replaces the part that a bucket wrote. Cost and refusal stay.
    #[inline(always)]
    pub(crate) fn see(&mut self, seen: BucketReading) {
        self.state = seen.state;
        self.shared = seen.shared;
        self.late = seen.late;
    }

    /// Returns whether the limit was charged for a request that was admitted.
    #[inline(always)]
    pub(crate) fn is_charged(&self) -> bool {
        !self.refused && !self.unasked
    }

    /// Returns the moment of the reading, for a decision at `now`: what remains, and until when, counts from here.
    #[inline]
    pub(crate) fn told_at(&self, now: Nanos) -> Nanos {
        now.saturating_add(self.late.into())
    }
}

/// The readings of one decision, in the order of its charges.
///
/// Up to four lie inline, which covers a total, a route, a client and a client on a route with one limit each; the
/// fifth moves all of them to the heap.
#[derive(Debug, Clone)]
pub(crate) enum LimitReadings {
    /// The readings, of which so many count. Those after them are default values.
    Few([LimitReading; LimitReadings::FEW], usize),
    Many(Vec<LimitReading>),
}

impl LimitReadings {
    /// The readings that lie inline.
    const FEW: usize = 4;

    #[inline(always)]
    pub(crate) fn push(&mut self, reading: LimitReading) {
        match self {
            Self::Few(readings, len) if *len < Self::FEW => {
                readings[*len] = reading;
                *len += 1;
            }
            Self::Few(readings, _) => {
                let mut many = readings.to_vec();
                many.push(reading);
                *self = Self::Many(many);
            }
            Self::Many(readings) => readings.push(reading),
        }
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[LimitReading] {
        match self {
            Self::Few(readings, len) => &readings[..*len],
            Self::Many(readings) => readings,
        }
    }
}

impl Default for LimitReadings {
    #[inline]
    fn default() -> Self {
        Self::Few([LimitReading::default(); Self::FEW], 0)
    }
}

impl Index<usize> for LimitReadings {
    type Output = LimitReading;

    #[inline]
    fn index(&self, index: usize) -> &LimitReading {
        &self.as_slice()[index]
    }
}

impl IndexMut<usize> for LimitReadings {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut LimitReading {
        match self {
            Self::Few(readings, len) => &mut readings[..*len][index],
            Self::Many(readings) => &mut readings[index],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_keep_their_order_beyond_the_inline_ones() {
        let mut readings = LimitReadings::default();
        for cost in 0..9 {
            readings.push(LimitReading::new(BucketReading::default(), cost));
            let costs: Vec<_> = readings
                .as_slice()
                .iter()
                .map(|reading| reading.cost)
                .collect();
            assert_eq!(costs, (0..=cost).collect::<Vec<_>>());
        }
        readings[7].cost = 70;
        assert_eq!(readings[7].cost, 70);
    }
}
