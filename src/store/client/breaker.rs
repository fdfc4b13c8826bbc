//! The breaker: it stands between requests and a store that is down.
//!
//! Requests look at it before each call, which costs one load. While the store is *up* they call. The first call that
//! finds it unavailable *trips* the breaker: from then on nobody calls but one *probe*, which [resets](Breaker::reset)
//! it when the store answers again. So an outage costs the calls under way one deadline each, and later requests
//! nothing.
//!
//! ```text
//! UP ── trip ──> PROBED ── reset ──> UP
//!                  │  ^
//!    abandon_probe │  │ state (claims the probe)
//!                  v  │
//!                UNPROBED
//! ```
//!
//! # Invariants
//!
//! - **One probe.** Whoever moves the state to `PROBED` has to probe: the one whose [`trip`](Breaker::trip) returned
//!   `true`, or the one whom [`state`](Breaker::state) told [`Unprobed`](BreakerState::Unprobed). An exchange decides
//!   between several.
//! - **The prober alone leaves `PROBED`**, by `reset` or `abandon_probe`. So these two are plain stores: no one else
//!   writes the word meanwhile.
//! - **No outage without a probe for long.** A probe that ends early, as with its runtime, says so, and the next
//!   request that looks takes it over.
//!
//! # Memory ordering
//!
//! Acquire and release. Whoever finds the store up again, or takes over a probe, sees what was written about the outage
//! before, such as the deadline of a probe.

use crate::sync::{AtomicU64, Ordering};

/// One outage at a time, and at most one probe while there is one.
#[derive(Debug)]
pub(super) struct Breaker(AtomicU64);

/// The answer to a look at the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerState {
    /// The store is to be called.
    Up,
    /// The store is not to be called, and somebody probes it.
    Down,
    /// The store is not to be called, and the one who is told this has to probe it from now on.
    Unprobed,
}

/// The store answers.
const UP: u64 = 0;
/// The store is down, and one task probes it.
const PROBED: u64 = 1;
/// The store is down, and its probe has ended before an answer.
const UNPROBED: u64 = 2;

impl Breaker {
    /// The store is taken to be up before the first call.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(UP))
    }

    /// Looks at the breaker, and takes over a probe that was abandoned. One load in all other cases.
    #[inline]
    pub(super) fn state(&self) -> BreakerState {
        match self.0.load(Ordering::Acquire) {
            UP => BreakerState::Up,
            UNPROBED => self.claim_probe(),
            _ => BreakerState::Down,
        }
    }

    /// Takes the probe over, unless another was faster.
    #[cold]
    fn claim_probe(&self) -> BreakerState {
        match self.exchange(UNPROBED, PROBED) {
            Ok(_) => BreakerState::Unprobed,
            Err(UP) => BreakerState::Up,
            Err(_) => BreakerState::Down,
        }
    }

    /// Notes that the store is down. `true` if it was up: then the caller has to probe it.
    pub(super) fn trip(&self) -> bool {
        self.exchange(UP, PROBED).is_ok()
    }

    /// Notes that the store is up again. For the prober alone.
    pub(super) fn reset(&self) {
        self.0.store(UP, Ordering::Release);
    }

    /// Gives the probe up, with the store down. For the prober alone.
    pub(super) fn abandon_probe(&self) {
        self.0.store(UNPROBED, Ordering::Release);
    }

    /// Moves the state from one to another, or returns the one that it is in.
    fn exchange(&self, from: u64, to: u64) -> Result<u64, u64> {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
    }
}

/// All interleavings of the atomics. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    /// An outage, and how many ask about it.
    struct Store {
        breaker: Breaker,
        asking: AtomicU64,
    }

    impl Store {
        /// Asks, and then it answers, or whoever asks goes away.
        fn probe(&self, answers: bool) {
            let others = self.asking.fetch_add(1, Ordering::AcqRel);
            assert_eq!(others, 0, "two ask at a time");
            self.asking.fetch_sub(1, Ordering::AcqRel);
            match answers {
                true => self.breaker.reset(),
                false => self.breaker.abandon_probe(),
            }
        }
    }

    #[test]
    fn loom_while_it_is_down_just_one_asks_and_nobody_forgets_to() {
        loom::model(|| {
            let store = Arc::new(Store {
                breaker: Breaker::new(),
                asking: AtomicU64::new(0),
            });
            let threads = [false, true].map(|answers| {
                let store = Arc::clone(&store);
                thread::spawn(move || {
                    if store.breaker.trip() {
                        store.probe(answers);
                    }
                    if store.breaker.state() == BreakerState::Unprobed {
                        store.probe(answers);
                    }
                })
            });
            for thread in threads {
                thread.join().expect("no panic");
            }
            match store.breaker.state() {
                BreakerState::Up => assert!(store.breaker.trip(), "an outage like the first"),
                BreakerState::Unprobed => assert_eq!(
                    store.breaker.state(),
                    BreakerState::Down,
                    "somebody asks now"
                ),
                BreakerState::Down => panic!("it is down, and nobody asks"),
            }
        });
    }
}
