//! Different waits for clients that are refused together.
//!
//! SDKs come back exactly when they were told: all at once if all were told the same. A spread tells later ones more
//! than their true wait, and nobody less. It comes in two kinds:
//!
//! - Where callers are told apart, each is told a place in a virtual [`line`](Line): the true wait, then one interval
//!   more for each caller. Nothing is reserved for anybody.
//! - Where they are not, a jitter is added between zero and the time in which the burst refills. One caller with fifty
//!   requests and fifty callers with one look the same there, so a line would only grow.
//!
//! The first refusal of a bucket that may have been full since the last one is told the true wait in both.
//!
//! Lines lie in an array of fixed size, found by the hash of their bucket; where two meet, the later one replaces the
//! earlier. Callers lie in another. Both are made when the first wait is spread.
//!
//! # Memory ordering
//!
//! Relaxed: a caller's word stands for itself, and is written under the lock of its line. Where callers of two lines
//! meet in one word, one of them is told a new place.

mod line;

use std::{
    fmt,
    sync::{OnceLock, PoisonError},
};

use self::line::{Caller, ToldLine};
use crate::{
    clock::Nanos,
    sync::{AtomicU64, Mutex, Ordering},
};

const SECOND: Nanos = 1_000_000_000;

/// The longest wait that SDKs sleep through (see [`crate::response`]). A shorter wait is not lifted above it, and it is
/// the most that is added to a longer one.
const MOST: Nanos = 60 * SECOND;

/// A refusal by one bucket. Times are in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToldWait {
    /// The hash of the bucket.
    pub(crate) bucket: u64,
    /// The hash of the caller, where callers are told apart.
    pub(crate) caller: Option<u64>,
    pub(crate) now: Nanos,
    /// The true wait.
    pub(crate) wait: Nanos,
    /// How much later the next request of the same cost passes.
    pub(crate) step: Nanos,
    /// The time in which the whole burst refills.
    pub(crate) refill: Nanos,
    /// The time until the bucket is full, if nothing more is taken.
    pub(crate) full_in: Nanos,
}

/// The virtual lines of all buckets.
pub(crate) struct Stagger {
    tables: OnceLock<StaggerTables>,
    /// Refusals that were given a jitter.
    jittered: AtomicU64,
}

struct StaggerTables {
    lines: Box<[Mutex<ToldLine>]>,
    callers: Box<[Caller]>,
}

impl Stagger {
    /// 18 KiB of lines and 32 KiB of callers. One under loom, which keeps account of each.
    const LINES: usize = if cfg!(throttle_loom) { 1 } else { 256 };
    const CALLERS: usize = if cfg!(throttle_loom) { 4 } else { 4_096 };

    pub(crate) fn new() -> Self {
        Self {
            tables: OnceLock::new(),
            jittered: AtomicU64::new(0),
        }
    }

    /// The nanoseconds to add to the true wait of a refusal. At most a minute.
    pub(crate) fn more(&self, refused: &ToldWait) -> Nanos {
        let most = MOST.checked_sub(refused.wait).unwrap_or(MOST);
        let StaggerTables { lines, callers } = self.tables();
        let line = &lines[refused.bucket as usize % lines.len()];
        // Each step leaves it whole.
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = line.meet(refused);
        match refused.caller {
            Some(caller) => {
                let hash = line.hash_of(caller);
                let caller = &callers[hash as usize % callers.len()];
                line.place(refused, hash, caller, most)
            }
            None if is_new => 0,
            None => {
                drop(line);
                self.jitter(refused) % refused.refill.min(most).saturating_add(1)
            }
        }
    }

    fn tables(&self) -> &StaggerTables {
        self.tables.get_or_init(|| StaggerTables {
            lines: (0..Self::LINES).map(|_| Mutex::default()).collect(),
            callers: (0..Self::CALLERS).map(|_| Caller::new()).collect(),
        })
    }

    /// A number that differs from refusal to refusal (the finalizer of SplitMix64 on a counter).
    fn jitter(&self, refused: &ToldWait) -> u64 {
        let number = self
            .jittered
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mix(number ^ refused.bucket ^ refused.now)
    }
}

fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

impl fmt::Debug for Stagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spread")
    }
}

#[cfg(test)]
mod tests;

/// All interleavings of two refusals. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    #[test]
    fn loom_callers_that_are_refused_together_are_told_different_places() {
        loom::model(|| {
            let spread = Arc::new(Stagger::new());
            // Loom does not know `OnceLock`: the tables are there before the threads are.
            spread.tables();
            let refused = |caller| ToldWait {
                bucket: 7,
                caller: Some(caller),
                now: 0,
                wait: 0,
                step: 5_000,
                refill: 5_000,
                full_in: 10_000,
            };
            let threads = [1, 2].map(|caller| {
                let spread = Arc::clone(&spread);
                thread::spawn(move || spread.more(&refused(caller)))
            });
            let mut told = threads.map(|thread| thread.join().expect("no panic"));
            told.sort_unstable();
            assert_eq!(told, [0, 5_000]);
        });
    }
}
