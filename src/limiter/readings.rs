//! What the buckets of one decision held.

use std::ops::{Index, IndexMut};

use crate::clock::Nanos;

/// A balance as it was found or left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: u64,
    /// Whether strangers share it, since the table had no room.
    pub(crate) shared: bool,
    /// Whether it is told in terms of settings that the charge knows nothing of.
    pub(crate) outdated: bool,
    /// The nanoseconds between the decision's reading of the clock and the charge, since the table takes a new one
    /// for a client that is new to it. More than `u32::MAX` count as so many.
    pub(crate) late: u32,
}

impl Seen {
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
pub(crate) struct Level {
    pub(crate) state: u64,
    pub(crate) cost: u64,
    /// Whether strangers share it, since the table had no room.
    pub(crate) shared: bool,
    /// Whether a shadow would have refused, or others stand in line before what seems to be room.
    pub(crate) refused: bool,
    /// The nanoseconds between the decision's reading of the clock and the charge; see [`Seen::late`].
    pub(crate) late: u32,
}

impl Level {
    #[inline(always)]
    pub(crate) fn new(seen: Seen, cost: u64) -> Self {
        Self {
            state: seen.state,
            cost,
            shared: seen.shared,
            refused: false,
            late: seen.late,
        }
    }

    #[inline(always)]
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            shared: self.shared,
            late: self.late,
            ..Seen::own(self.state)
        }
    }

    #[inline(always)]
    pub(crate) fn see(&mut self, seen: Seen) {
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
pub(crate) enum Levels {
    Few([Level; Levels::FEW], usize),
    Many(Vec<Level>),
}

impl Levels {
    const FEW: usize = 4;

    #[inline(always)]
    pub(crate) fn push(&mut self, level: Level) {
        match self {
            Self::Few(levels, len) if *len < Self::FEW => {
                levels[*len] = level;
                *len += 1;
            }
            Self::Few(levels, _) => {
                let mut many = levels.to_vec();
                many.push(level);
                *self = Self::Many(many);
            }
            Self::Many(levels) => levels.push(level),
        }
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[Level] {
        match self {
            Self::Few(levels, len) => &levels[..*len],
            Self::Many(levels) => levels,
        }
    }
}

impl Default for Levels {
    #[inline]
    fn default() -> Self {
        Self::Few([Level::default(); Self::FEW], 0)
    }
}

impl Index<usize> for Levels {
    type Output = Level;

    #[inline]
    fn index(&self, index: usize) -> &Level {
        &self.as_slice()[index]
    }
}

impl IndexMut<usize> for Levels {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut Level {
        match self {
            Self::Few(levels, len) => &mut levels[..*len][index],
            Self::Many(levels) => &mut levels[index],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_keep_their_order_beyond_the_inline_ones() {
        let mut levels = Levels::default();
        for cost in 0..9 {
            levels.push(Level::new(Seen::default(), cost));
            let costs: Vec<_> = levels.as_slice().iter().map(|level| level.cost).collect();
            assert_eq!(costs, (0..=cost).collect::<Vec<_>>());
        }
        levels[7].cost = 70;
        assert_eq!(levels[7].cost, 70);
    }
}
