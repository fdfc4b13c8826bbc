//! Different waits for those who are refused together.
//!
//! SDKs come back exactly when they were told, all at once if all were told the same; most of them are refused
//! again then, and give up. So each is told a place in a line that exists in words alone: the first the true wait,
//! the next one interval more, as if all before it had taken what comes back. Nothing is reserved for anybody, and
//! nobody is told less than the truth.
//!
//! A word is kept for the end of each limit's line, found by hash in an array of fixed size. Each has a tag of the
//! limit that it is of; where two meet, the later begins a line of its own in it.
//!
//! # Memory ordering
//!
//! Relaxed: a word stands for itself, and an old one makes at worst two places equal.

use std::fmt;

use crate::{
    clock::Nanos,
    sync::{AtomicU64, Ordering},
};

/// The ends of the lines that refused requests were told of.
pub(crate) struct Spread {
    /// A tag above, microseconds below.
    ends: Box<[AtomicU64]>,
}

impl Spread {
    /// 8 KiB. One under loom, which keeps account of each.
    const WORDS: usize = if cfg!(throttle_loom) { 1 } else { 1_024 };
    const TIME_BITS: u32 = 52;
    const MICROSECOND: Nanos = 1_000;
    const SECOND: Nanos = 1_000_000_000;

    /// The longest wait that SDKs sleep through (see [`crate::response`]), so that spreading a wait below it does
    /// not lift it above; and the most that is added to any.
    const MOST: Nanos = 60 * Self::SECOND;

    pub(crate) fn new() -> Self {
        Self {
            ends: (0..Self::WORDS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// What is to be added to a `wait` of the limit with this hash, where the next request passes `step` later.
    pub(crate) fn more(&self, hash: u64, now: Nanos, wait: Nanos, step: Nanos) -> Nanos {
        let most = match Self::MOST.checked_sub(wait) {
            Some(left) => left,
            None => Self::MOST,
        };
        // A place that would be told of nobody is none: they are spread all the same.
        let step = if step > Self::MOST {
            Self::SECOND
        } else {
            step
        };
        let tag = hash >> Self::TIME_BITS;
        let word = &self.ends[hash as usize % Self::WORDS];
        // In whole microseconds, so that steps of such add up to what they are.
        let earliest = now.saturating_add(wait).div_ceil(Self::MICROSECOND);
        let (step, most) = (step.div_ceil(Self::MICROSECOND), most / Self::MICROSECOND);
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let end = if seen >> Self::TIME_BITS == tag {
                seen & ((1 << Self::TIME_BITS) - 1)
            } else {
                0
            };
            // A line that has grown too long begins anew.
            let more = Some(end.saturating_sub(earliest)).filter(|&more| more <= most);
            let more = more.unwrap_or(0);
            let next = (earliest + more).saturating_add(step);
            let next = next.min((1 << Self::TIME_BITS) - 1) | tag << Self::TIME_BITS;
            match word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return more * Self::MICROSECOND,
                Err(actual) => seen = actual,
            }
        }
    }
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spread")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLISECOND: Nanos = 1_000_000;

    #[test]
    fn each_is_told_a_place_of_its_own() {
        let spread = Spread::new();
        let told = |now, wait| spread.more(7, now, wait, 100 * MILLISECOND);
        let wait = 40 * MILLISECOND;
        let places: Vec<_> = (0..5).map(|_| told(0, wait) / MILLISECOND).collect();
        assert_eq!(places, [0, 100, 200, 300, 400]);
        // The line moves on with time.
        assert_eq!(told(340 * MILLISECOND, 0) / MILLISECOND, 200);
        // A line of its own for each limit, and a new one after a while.
        assert_eq!(spread.more(8, 0, wait, 100 * MILLISECOND), 0);
        assert_eq!(told(60 * Spread::SECOND, 0), 0);
        // Another limit's word is not taken for one's own.
        assert_eq!(
            spread.more(7 | 1 << 60, 60 * Spread::SECOND, 0, MILLISECOND),
            0
        );
    }

    #[test]
    fn a_wait_that_is_slept_through_stays_one() {
        let spread = Spread::new();
        let waits: Vec<_> = (0..1_000)
            .map(|_| 20 * Spread::SECOND + spread.more(7, 0, 20 * Spread::SECOND, Spread::SECOND))
            .collect();
        assert!(waits.iter().all(|&wait| wait <= Spread::MOST));
        let different = waits.iter().collect::<std::collections::HashSet<_>>();
        assert_eq!(different.len(), 41, "each second from 20 to 60");
        // One an hour: nobody can be told when its turn is, and yet not all come at once.
        let slow: Vec<_> = (0..3)
            .map(|_| spread.more(9, 0, 0, 3_600 * Spread::SECOND) / Spread::SECOND)
            .collect();
        assert_eq!(slow, [0, 1, 2]);
    }

    #[test]
    fn a_limit_is_known_by_all_of_its_hash() {
        let spread = Spread::new();
        // The same word, and other tags.
        for hash in [7, 7 | 1 << 60, 7 | 3 << 52] {
            let told = [(); 3].map(|()| spread.more(hash, 0, 0, MILLISECOND));
            assert_eq!(told, [0, MILLISECOND, 2 * MILLISECOND], "{hash:x}");
        }
    }

    #[test]
    fn a_step_may_be_as_long_as_the_longest_wait_and_lines_end_with_time() {
        let spread = Spread::new();
        let told = [(); 2].map(|()| spread.more(7, 0, 0, Spread::MOST));
        assert_eq!(told, [0, Spread::MOST]);
        // Two microseconds before the last that a word can tell.
        let late = ((1 << Spread::TIME_BITS) - 3) * Spread::MICROSECOND;
        let told = [(); 3].map(|()| spread.more(8, late, 0, 5 * Spread::MICROSECOND));
        assert_eq!(told, [0, 2 * Spread::MICROSECOND, 2 * Spread::MICROSECOND]);
    }

    proptest! {
        #[test]
        fn never_more_than_a_minute_and_no_input_panics(
            asked in prop::collection::vec((any::<u64>(), 0..=crate::clock::Clock::MAX, any::<u64>(), any::<u64>()), 1..50),
        ) {
            let spread = Spread::new();
            for (hash, now, wait, step) in asked {
                prop_assert!(spread.more(hash % 3, now, wait, step) <= Spread::MOST);
            }
        }
    }
}

/// All interleavings of the atomics. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    #[test]
    fn loom_those_who_are_refused_together_are_told_different_places() {
        loom::model(|| {
            let spread = Arc::new(Spread::new());
            let threads = [(); 2].map(|()| {
                let spread = Arc::clone(&spread);
                thread::spawn(move || spread.more(7, 0, 0, 5_000))
            });
            let mut told: Vec<_> = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect();
            told.push(spread.more(7, 0, 0, 5_000));
            told.sort_unstable();
            assert_eq!(told, [0, 5_000, 10_000]);
        });
    }
}
