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
    Left,
}

/// It answers; it does not, and somebody asks whether it does again; or nobody asks any more.
const UP: u64 = 0;
const PROBED: u64 = 1;
const LEFT: u64 = 2;

impl Breaker {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(UP))
    }

    #[inline]
    pub(super) fn look(&self) -> BreakerState {
        match self.0.load(Ordering::Acquire) {
            UP => BreakerState::Up,
            LEFT => self.take_over(),
            _ => BreakerState::Down,
        }
    }

    #[cold]
    fn take_over(&self) -> BreakerState {
        match self.exchange(LEFT, PROBED) {
            Ok(_) => BreakerState::Left,
            Err(UP) => BreakerState::Up,
            Err(_) => BreakerState::Down,
        }
    }

    /// It did not answer. Whether it did before: then who is told so asks from now on.
    pub(super) fn fall(&self) -> bool {
        self.exchange(UP, PROBED).is_ok()
    }

    /// It answers again, says who asks.
    pub(super) fn rise(&self) {
        self.0.store(UP, Ordering::Release);
    }

    /// Who asks does so no longer.
    pub(super) fn leave(&self) {
        self.0.store(LEFT, Ordering::Release);
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
                true => self.breaker.rise(),
                false => self.breaker.leave(),
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
                    if store.breaker.fall() {
                        store.probe(answers);
                    }
                    if store.breaker.look() == BreakerState::Left {
                        store.probe(answers);
                    }
                })
            });
            for thread in threads {
                thread.join().expect("no panic");
            }
            match store.breaker.look() {
                BreakerState::Up => assert!(store.breaker.fall(), "an outage like the first"),
                BreakerState::Left => assert_eq!(
                    store.breaker.look(),
                    BreakerState::Down,
                    "somebody asks now"
                ),
                BreakerState::Down => panic!("it is down, and nobody asks"),
            }
        });
    }
}
