//! Whether the store is down, and who finds out when it is up again.
//!
//! # Memory ordering
//!
//! Acquire and release: who finds it up again sees what was told of the outage before.

use crate::sync::{AtomicU64, Ordering};

/// No more than one outage at a time, and while there is one, no more than one who asks whether it is over.
#[derive(Debug)]
pub(super) struct Breaker(AtomicU64);

/// What a look at it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerState {
    Up,
    Down,
    /// It is down, and whoever asked has gone: who is told this asks from now on.
    Unprobed,
}

/// It answers; it does not, and somebody asks whether it does again; or nobody asks any more.
const UP: u64 = 0;
const PROBED: u64 = 1;
const UNPROBED: u64 = 2;

impl Breaker {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(UP))
    }

    #[inline]
    pub(super) fn state(&self) -> BreakerState {
        match self.0.load(Ordering::Acquire) {
            UP => BreakerState::Up,
            UNPROBED => self.claim_probe(),
            _ => BreakerState::Down,
        }
    }

    #[cold]
    fn claim_probe(&self) -> BreakerState {
        match self.exchange(UNPROBED, PROBED) {
            Ok(_) => BreakerState::Unprobed,
            Err(UP) => BreakerState::Up,
            Err(_) => BreakerState::Down,
        }
    }

    /// It did not answer. Whether it did before: then who is told so asks from now on.
    pub(super) fn trip(&self) -> bool {
        self.exchange(UP, PROBED).is_ok()
    }

    /// It answers again, says who asks.
    pub(super) fn reset(&self) {
        self.0.store(UP, Ordering::Release);
    }

    /// Who asks does so no longer.
    pub(super) fn abandon_probe(&self) {
        self.0.store(UNPROBED, Ordering::Release);
    }

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
