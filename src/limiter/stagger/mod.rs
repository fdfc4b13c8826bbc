//! Stagger: different waits for clients that are refused together.
//!
//! SDKs retry exactly after the stated wait: all at once if all got the same. A stagger gives later ones more than
//! their true wait, and none less. There are two kinds:
//!
//! - Callers that can be told apart each get a turn in a [virtual queue](VirtualQueue): the true wait, then one
//!   interval more for each caller. Nothing is reserved.
//! - Other callers get a jitter between zero and the time in which the burst refills. One caller with fifty requests
//!   and fifty callers with one look the same there, so a queue would only grow.
//!
//! In both kinds, the first refusal of a bucket that may have been full since the last one states the true wait.
//!
//! # Invariants
//!
//! - At most a minute is added, and a wait of less than a minute is not lifted above one: SDKs do not sleep longer.
//! - No balance is read or changed: a caller that returns at its turn is decided like any other.
//! - Memory is fixed: 256 virtual queues and 4,096 callers, found by hashes. If two buckets collide, the later one
//!   replaces the earlier, whose queue starts over; if two callers collide, one of them gets a new turn. Both only make
//!   turns less even. All of it is allocated when the first wait is staggered.
//!
//! # Callers
//!
//! [`Limiter::spread`](super::Limiter::spread), only for refusals, and if the layer enables it. `now` is the decision's
//! clock reading; nothing here reads the clock. One lock, of one virtual queue, is held for some arithmetic.
//!
//! # Memory ordering
//!
//! Relaxed: a caller's word guards no other memory, and is written under the lock of its queue. If callers of two
//! queues collide in one word, one of them gets a new turn.

mod virtual_queue;

use std::{
    fmt,
    sync::{OnceLock, PoisonError},
};

use self::virtual_queue::{Caller, VirtualQueue};
use crate::{
    clock::Nanos,
    sync::{AtomicU64, Mutex, Ordering},
};

const SECOND: Nanos = 1_000_000_000;

/// The longest wait that SDKs sleep through (see [`crate::response`]). A shorter wait is not lifted above it, and it is
/// the most that is added to a longer one.
const MOST: Nanos = 60 * SECOND;

/// A refusal by one bucket, and what its true wait was. Times are in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusedWait {
    /// The hash of the bucket, which finds its virtual queue. Its last bits differ from bucket to bucket.
    pub(crate) bucket: u64,
    /// The hash of the caller, where callers are told apart; `None` asks for a jitter.
    pub(crate) caller: Option<u64>,
    /// The moment of the decision.
    pub(crate) now: Nanos,
    /// The true wait: at `now + wait` the request would pass, if nobody came between.
    pub(crate) wait: Nanos,
    /// The interval in the queue: how much later the next request of the same cost passes.
    pub(crate) step: Nanos,
    /// The time in which an empty bucket refills: the range of a jitter, and the span in which callers are counted.
    pub(crate) refill: Nanos,
    /// The time until the bucket is full, if nothing more is taken: then its queue begins anew.
    pub(crate) full_in: Nanos,
}

/// The virtual queues of all buckets.
pub(crate) struct Stagger {
    tables: OnceLock<StaggerTables>,
    /// The state of the jitter's generator: a step is added for each.
    jittered: AtomicU64,
}

/// The memory of a stagger, made at once.
struct StaggerTables {
    queues: Box<[Mutex<VirtualQueue>]>,
    callers: Box<[Caller]>,
}

impl Stagger {
    /// 16 KiB of queues and 32 KiB of callers. One under loom, which keeps account of each.
    const QUEUES: usize = if cfg!(throttle_loom) { 1 } else { 256 };
    const CALLERS: usize = if cfg!(throttle_loom) { 4 } else { 4_096 };

    /// A stagger that has told nobody anything, and needs no memory until it has.
    pub(crate) fn new() -> Self {
        Self {
            tables: OnceLock::new(),
            jittered: AtomicU64::new(0),
        }
    }

    /// Returns the nanoseconds to add to the true wait of a refusal: at most a minute, and zero for the first refusal
    /// of a bucket after it may have been full.
    pub(crate) fn more(&self, refused: &RefusedWait) -> Nanos {
        let most = MOST.checked_sub(refused.wait).unwrap_or(MOST);
        let StaggerTables { queues, callers } = self.tables();
        let queue = &queues[refused.bucket as usize % queues.len()];
        // Each step leaves it whole.
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = queue.meet(refused);
        match refused.caller {
            Some(caller) => {
                let hash = queue.hash_of(caller);
                let caller = &callers[hash as usize % callers.len()];
                queue.place(refused, hash, caller, most)
            }
            None if is_new => 0,
            None => {
                drop(queue);
                self.jitter(refused) % refused.refill.min(most).saturating_add(1)
            }
        }
    }

    fn tables(&self) -> &StaggerTables {
        self.tables.get_or_init(|| StaggerTables {
            queues: (0..Self::QUEUES).map(|_| Mutex::default()).collect(),
            callers: (0..Self::CALLERS).map(|_| Caller::new()).collect(),
        })
    }

    /// Returns a number that differs from refusal to refusal (the finalizer of SplitMix64 on a counter). Not a secret.
    fn jitter(&self, refused: &RefusedWait) -> u64 {
        let number = self
            .jittered
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mix(number ^ refused.bucket ^ refused.now)
    }
}

/// Scatters all bits of a number over all others; one to one.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

impl fmt::Debug for Stagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stagger")
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
            let refused = |caller| RefusedWait {
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
