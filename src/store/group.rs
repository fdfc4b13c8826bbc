//! Groups of slots: where a key may lie.

use crate::{
    bucket::Slot,
    clock::Nanos,
    sync::{AtomicU64, Ordering},
};

/// A few buckets, on two cache lines.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Group {
    keys: [AtomicU64; Group::SLOTS],
    states: [AtomicU64; Group::SLOTS],
}

impl Group {
    /// Fewer under loom, which looks at all orders in which they may be read.
    pub(super) const SLOTS: usize = if cfg!(throttle_loom) { 2 } else { 8 };

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let pairs = self.keys.iter().zip(&self.states);
        pairs.map(|(key, state)| Slot { key, state })
    }

    /// The slots whose buckets are full at `now`, with their states.
    pub(super) fn full(&self, now: Nanos) -> impl Iterator<Item = (Slot<'_>, u64)> {
        self.slots().filter_map(move |slot| {
            let state = slot.state.load(Ordering::Acquire);
            (state <= now).then_some((slot, state))
        })
    }
}
