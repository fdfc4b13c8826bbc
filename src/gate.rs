//! The gate of a throttle: whether requests are let in, and how many of them are in flight.
//!
//! # Invariants
//!
//! - **Closed for good.** A gate that is closed is not opened again.
//! - **No request is missed.** A request is counted, or finds the gate closed, by one exchange of one word. So each
//!   request that was let in is in the count that is read after the gate was closed.
//! - **A closed gate only drains.** Nothing is counted in from then on, not even requests of exempt routes, which go on.
//! - **A request leaves once.** The request is counted as long as its [`Passage`] lives: to the end of its answer.
//! - **An open gate that does not count costs a look at one flag.**
//!
//! # Memory ordering
//!
//! The word is written by exchanges with acquire and release, so that whoever reads a count of zero sees all that the
//! requests have done. `is_attended` is relaxed: a thread that does not see it yet decides as if the request had come
//! before the gate was closed, and a gate that counts has it set from the beginning.

use std::sync::{Arc, atomic::AtomicBool};

use tokio::sync::Notify;

use crate::sync::{AtomicUsize, Ordering};

/// The gate of a throttle. Requests come to it before they are decided on.
#[derive(Debug)]
pub(crate) struct Gate {
    /// True if requests have to look at the word: the gate is closed, or counts.
    is_attended: AtomicBool,
    counts: bool,
    inside: Arc<Inside>,
}

/// The state of the gate, which requests in flight share.
#[derive(Debug)]
struct Inside {
    /// [`ONE`] for each request in flight, [`AWAITED`] and [`CLOSED`].
    word: AtomicUsize,
    /// Told when the count has come to zero, if somebody waits for that.
    is_empty: Notify,
}

/// Set if the gate is closed.
const CLOSED: usize = 1;
/// Set if somebody waits for a count of zero, or has.
const AWAITED: usize = 2;
/// The count of one request.
const ONE: usize = 4;

/// The stay of one request in flight, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Passage(Arc<Inside>);

impl Gate {
    /// Makes an open gate, which counts requests or does not.
    pub(crate) fn open(counts: bool) -> Self {
        Self {
            is_attended: AtomicBool::new(counts),
            counts,
            inside: Arc::new(Inside {
                word: AtomicUsize::new(0),
                is_empty: Notify::new(),
            }),
        }
    }

    /// Tells whether requests have to look at more than this flag.
    #[inline(always)]
    pub(crate) fn is_attended(&self) -> bool {
        self.is_attended.load(Ordering::Relaxed)
    }

    /// Closes the gate. Without effect if it is closed.
    pub(crate) fn close(&self) {
        self.inside.word.fetch_or(CLOSED, Ordering::AcqRel);
        self.is_attended.store(true, Ordering::Relaxed);
    }

    /// Tells whether the gate is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.inside.word.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Counts a request in. `None`: the gate is closed, or does not count.
    pub(crate) fn enter(&self) -> Option<Passage> {
        if !self.counts {
            return None;
        }
        let let_in = |word| (word & CLOSED == 0).then_some(word + ONE);
        let word = &self.inside.word;
        let is_in = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, let_in);
        is_in.is_ok().then(|| Passage(Arc::clone(&self.inside)))
    }

    /// Returns the number of requests in flight. `None`: the gate does not count.
    pub(crate) fn in_flight(&self) -> Option<usize> {
        let word = self.inside.word.load(Ordering::Acquire);
        self.counts.then_some(word / ONE)
    }

    /// Waits until no request is in flight. `None`: the gate does not count, and nothing was waited for.
    pub(crate) async fn drained(&self) -> Option<()> {
        if !self.counts {
            return None;
        }
        loop {
            // Made before the count is read, so that no notification is lost.
            let told = self.inside.is_empty.notified();
            if self.inside.word.fetch_or(AWAITED, Ordering::AcqRel) / ONE == 0 {
                return Some(());
            }
            told.await;
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Self(inside) = self;
        let before = inside.word.fetch_sub(ONE, Ordering::AcqRel);
        if before / ONE == 1 && before & AWAITED != 0 {
            inside.is_empty.notify_waiters();
        }
    }
}

/// All interleavings of a request and whoever closes the gate. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use super::Gate;

    /// No request is let in after the gate was closed and found empty.
    #[test]
    fn no_request_is_missed() {
        loom::model(|| {
            let gate = Arc::new(Gate::open(true));
            let is_over = Arc::new(AtomicBool::new(false));
            let request = {
                let (gate, is_over) = (Arc::clone(&gate), Arc::clone(&is_over));
                thread::spawn(move || {
                    let _passage = gate.enter();
                    if !gate.is_closed() {
                        let is_over = is_over.load(Ordering::Acquire);
                        assert!(!is_over, "let in after the end");
                    }
                })
            };
            gate.close();
            if gate.in_flight() == Some(0) {
                is_over.store(true, Ordering::Release);
            }
            request.join().expect("no panic");
            assert_eq!(gate.in_flight(), Some(0));
        });
    }
}
