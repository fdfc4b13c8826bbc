//! What the buckets of one decision held.

use std::ops::{Index, IndexMut};

use crate::clock::Nanos;

/// A balance as it was found or left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BucketReading {
    pub(crate) state: u64,
    /// Whether strangers share it, since the table had no room.
    pub(crate) shared: bool,
    /// Whether it is told in terms of settings that the charge knows nothing of.
    pub(crate) outdated: bool,
    /// The nanoseconds between the decision's reading of the clock and the charge, since the table takes a new one
    /// for a client that is new to it. More than `u32::MAX` count as so many.
    pub(crate) late: u32,
}

impl BucketReading {
    pub(crate) fn own(state: u64) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    /// The same, charged at `at` for a decision at `now`.
    pub(crate) fn charged(self, at: Nanos, now: Nanos) -> Self {
        let late = at.saturating_sub(now);
        Self {
            late: u32::try_from(late).unwrap_or(u32::MAX),
            ..self
        }
    }

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

/// What a bucket held after (or, refused, at) a decision, and what it was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LimitReading {
    pub(crate) state: u64,
    pub(crate) cost: u64,
    /// Whether strangers share it, since the table had no room.
    pub(crate) shared: bool,
    /// Whether a shadow would have refused, or others stand in line before what seems to be room.
    pub(crate) refused: bool,
    /// The nanoseconds between the decision's reading of the clock and the charge; see [`BucketReading::late`].
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
            late: seen.late,
        }
    }

    #[inline(always)]
    pub(crate) fn seen(&self) -> BucketReading {
        BucketReading {
            shared: self.shared,
            late: self.late,
            ..BucketReading::own(self.state)
        }
    }

    #[inline(always)]
    pub(crate) fn see(&mut self, seen: BucketReading) {
        self.state = seen.state;
        self.shared = seen.shared;
        self.late = seen.late;
    }

    /// The moment at which the bucket holds what the level says, for a decision at `now`.
    #[inline]
    pub(crate) fn told_at(&self, now: Nanos) -> Nanos {
        now.saturating_add(self.late.into())
    }
}

/// The levels of one decision, in the order of its charges. Allocates only for more than four.
#[derive(Debug, Clone)]
pub(crate) enum LimitReadings {
    Few([LimitReading; LimitReadings::FEW], usize),
    Many(Vec<LimitReading>),
}

impl LimitReadings {
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
    fn levels_keep_their_order_beyond_the_inline_ones() {
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
