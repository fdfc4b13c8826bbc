//! Groups of slots: the unit in which the client table looks for a key.
//!
//! A group is eight pairs of a key and a state, 128 bytes, aligned to two cache lines: a pair never straddles a line,
//! and two groups never share one. A key may lie in any slot of its two groups, so a look-up reads at most 16 pairs;
//! how they are written, and in which order, is told in [`client_table`](super::client_table), the only caller.
//!
//! A group starts zeroed. Key 0 is no client's, and state 0 is a full bucket, so a fresh slot is free.

use super::bucket::Slot;
use crate::{
    clock::Nanos,
    sync::{AtomicU64, Ordering},
};

/// A few slots on two cache lines. Each state lies beside its key, so that a key found among the first four costs one
/// cache line.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Group([Pair; Group::SLOTS]);

/// One slot: whose balance it is, and the balance.
#[derive(Default)]
struct Pair {
    /// The word of a [`TableKey`](super::client_table::TableKey); 0 before the first.
    key: AtomicU64,
    /// The state of a meter, or [`BUSY`](super::bucket::BUSY) while the slot changes hands.
    state: AtomicU64,
}

impl Group {
    /// The slots of a group. Fewer under loom, which explores all orders in which they may be read.
    pub(super) const SLOTS: usize = if cfg!(throttle_loom) { 2 } else { 8 };

    /// Returns all slots, in the order in which they are searched.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.0.iter().map(|Pair { key, state }| Slot { key, state })
    }

    /// Returns the slots whose buckets are full at `now`, with the states by which they were.
    ///
    /// A state that is not after the throttle's clock is full, whatever meter it belongs to (see
    /// [`Meter`](crate::limit::meter::Meter)); slots in flight lie after every reading of the clock, and so does
    /// `BUSY`. A look, no claim: the caller exchanges exactly the state that is returned, or has lost the slot.
    pub(super) fn full(&self, now: Nanos) -> impl Iterator<Item = (Slot<'_>, u64)> {
        self.slots().filter_map(move |slot| {
            let state = slot.state.load(Ordering::Acquire);
            (state <= now).then_some((slot, state))
        })
    }
}
