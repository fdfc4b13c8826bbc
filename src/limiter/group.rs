//! Groups of slots: where a key may lie.

use super::bucket::Slot;
use crate::{
    clock::Nanos,
    sync::{AtomicU64, Ordering},
};

/// A few buckets, on two cache lines: each state beside its key, so that half of what is found takes one of them.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Group([Pair; Group::SLOTS]);

#[derive(Default)]
struct Pair {
    key: AtomicU64,
    state: AtomicU64,
}

impl Group {
    /// Fewer under loom, which looks at all orders in which they may be read.
    pub(super) const SLOTS: usize = if cfg!(throttle_loom) { 2 } else { 8 };

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.0.iter().map(|Pair { key, state }| Slot { key, state })
    }

    /// The slots whose buckets are full at `now`, with their states.
    pub(super) fn full(&self, now: Nanos) -> impl Iterator<Item = (Slot<'_>, u64)> {
        self.slots().filter_map(move |slot| {
            let state = slot.state.load(Ordering::Acquire);
            (state <= now).then_some((slot, state))
        })
    }
}
