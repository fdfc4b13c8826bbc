//! Balances of clients, in a table whose size is fixed when it is made.
//!
//! # Bounded, and nothing is lost
//!
//! A bucket is a key and a state, 16 bytes. Each key has two groups of eight slots where it may lie. A new
//! key takes a slot whose bucket is full again: that is equal to one that was never there, so nothing is
//! lost with it. If all sixteen hold something still, the key shares one of a few *overflow buckets* with
//! others like it, until a slot is free. Nothing is swept, resized or moved, ever; each step looks at no
//! more than sixteen slots.
//!
//! Two groups to choose from fill evenly: the first key without room comes at about seven tenths of the
//! capacity, at nine tenths it is one in a hundred.
//!
//! # Who may write what
//!
//! - A *charge* exchanges the state of the slot that has its key, without a lock.
//! - A *new key* is entered under a lock that all keys of its stripe share, so that no key is ever entered
//!   twice. It claims a slot by exchanging its state, which is that of a full bucket, for [`BUSY`]; then it
//!   writes the key, then the state. Who finds `BUSY` finds nothing.
//! - A slot may thus change hands between a look at its key and an exchange of its state. The state then
//!   differs, unless it is the same by chance (time that stands still), and the exchange fails: all begins
//!   anew, for the state may now be a stranger's, and that of another kind of limit. Whoever has exchanged it
//!   looks at the key once more; if it is a stranger's by now, the state is put back and all begins anew. If
//!   the stranger was charged in that moment, it pays one charge too many, never too few.
//!
//! A slot changes hands only when its bucket is full. A charge that was made before weighs nothing by then,
//! so what is given back too late is nothing either (see [`crate::gcra`]).
//!
//! # Time
//!
//! A thread may hold a reading of the clock that is older than the one with which its bucket was found to be
//! full and given away. A new key is therefore charged with a reading of its own, made after it was missed.
//!
//! # Memory ordering
//!
//! States as in [`crate::bucket`]. A key is written after `BUSY` and before the state, each with release;
//! who sees the new state with acquire sees the new key.

use std::{collections::TryReserveError, fmt, sync::PoisonError};

use super::{
    Seen,
    slot::{Group, Slot},
};
use crate::{
    bucket::{BUSY, Bucket},
    clock::Nanos,
    meter::Meter,
    sync::{AtomicU64, Mutex, Ordering},
};

/// A client's bucket for one limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Never zero, which marks a slot that nobody had yet.
    hash: u64,
    limit: u32,
}

impl Key {
    /// The bucket of `limit` for an identity, which is a keyed hash and so nothing an outsider can aim.
    #[inline]
    pub(crate) fn new(identity: u128, limit: u32) -> Self {
        let (low, high) = (identity as u64, (identity >> 64) as u64);
        let salted = low ^ (u64::from(limit) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let product = u128::from(salted) * u128::from(high | 1);
        Self {
            hash: (product as u64 ^ (product >> 64) as u64) | 1,
            limit,
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

/// A table of buckets by key, for many limits together.
pub(crate) struct Memory {
    groups: Box<[Group]>,
    stripes: Box<[Stripe]>,
    /// [`Memory::OVERFLOW`] for each limit.
    overflow: Box<[Bucket]>,
    overflowed: AtomicU64,
}

#[derive(Default)]
#[repr(align(64))]
struct Stripe(Mutex<()>);

impl Memory {
    /// How many overflow buckets a limit has.
    const OVERFLOW: usize = 16;
    const STRIPES: usize = 64;

    /// A table of `capacity` buckets, rounded up to whole groups, for limits numbered below `limits`.
    ///
    /// # Errors
    ///
    /// If there is not that much memory.
    pub(crate) fn new(capacity: usize, limits: usize) -> Result<Self, TryReserveError> {
        let count = capacity.div_ceil(Group::SLOTS);
        let mut groups = Vec::new();
        groups.try_reserve_exact(count)?;
        groups.resize_with(count, Group::default);
        let stripes = if limits == 0 { 0 } else { Self::STRIPES };
        Ok(Self {
            groups: groups.into(),
            stripes: (0..stripes).map(|_| Stripe::default()).collect(),
            overflow: (0..limits * Self::OVERFLOW)
                .map(|_| Bucket::full())
                .collect(),
            overflowed: AtomicU64::new(0),
        })
    }

    /// How many charges went to overflow buckets.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// The balance of a key, without a charge.
    pub(crate) fn peek(&self, key: &Key, now: Nanos) -> Seen {
        while let Some((slot, state)) = self.find(key) {
            if slot.key.load(Ordering::Acquire) == key.hash {
                return Seen::own(state);
            }
        }
        let groups = self.groups_of(key);
        if groups
            .into_iter()
            .flatten()
            .any(|group| group.full(now).next().is_some())
        {
            return Seen::own(0);
        }
        Seen {
            state: self.overflow_of(key).load(),
            shared: true,
        }
    }

    /// Takes `cost`, or says what refused it.
    #[inline]
    pub(crate) fn take(
        &self,
        key: &Key,
        meter: &Meter,
        now: Nanos,
        cost: u64,
        clock: impl Fn() -> Nanos,
    ) -> Result<Seen, Seen> {
        self.step(key, now, clock, |state, now| {
            meter.take(state, now, cost).ok()
        })
    }

    /// Goes from a balance to the `next`, if there is one. A key that was missed is entered, with a new
    /// reading of the clock.
    #[inline]
    pub(crate) fn step(
        &self,
        key: &Key,
        now: Nanos,
        clock: impl Fn() -> Nanos,
        next: impl Fn(u64, Nanos) -> Option<u64>,
    ) -> Result<Seen, Seen> {
        loop {
            if let Some((slot, seen)) = self.find(key) {
                if let Some(taken) = slot.step(key.hash, seen, |state| next(state, now)) {
                    return taken.map(Seen::own).map_err(Seen::own);
                }
            } else if let Some(taken) = self.enter(key, &clock, &next) {
                return taken;
            }
        }
    }

    /// Gives back `units` that were taken before, no more than the bucket holds. `shared` says from where.
    ///
    /// Should the slot change hands in between, then because its bucket was full: the stranger can have the
    /// same state only as one that is full as well, and to a full bucket nothing can be given.
    pub(crate) fn refund(&self, key: &Key, shared: bool, meter: &Meter, now: Nanos, units: u64) {
        let next = |state| (state > now).then(|| meter.refund(state, units));
        if shared {
            let bucket = self.overflow_of(key);
            let _ = bucket.step(bucket.load(), next);
            return;
        }
        while let Some((slot, seen)) = self.find(key) {
            if slot.step(key.hash, seen, next).is_some() {
                return;
            }
        }
        // A key that is not there any more had a full bucket.
    }

    /// Gives back `weight`, which was charged at `taken` and left what `left` tells.
    pub(crate) fn give_back(
        &self,
        key: &Key,
        left: Seen,
        meter: &Meter,
        taken: Nanos,
        weight: u64,
        clock: impl Fn() -> Nanos,
    ) {
        if left.shared {
            let bucket = self.overflow_of(key);
            bucket.give_back(left.state, meter, taken, weight, clock);
        } else if let Some((slot, _)) = self.find(key) {
            slot.give_back(left.state, meter, taken, weight, clock);
        }
        // A key that is not there any more had a full bucket.
    }

    /// Enters a key that was missed, with its first charge. `None` if it is there after all.
    #[cold]
    #[inline(never)]
    fn enter(
        &self,
        key: &Key,
        clock: impl Fn() -> Nanos,
        next: impl Fn(u64, Nanos) -> Option<u64>,
    ) -> Option<Result<Seen, Seen>> {
        let stripe = &self.stripes[(key.hash >> 1) as usize % self.stripes.len()];
        // It guards no data that a panic could leave half done.
        let _alone = stripe.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.find(key).is_some() {
            return None;
        }
        let now = clock();
        let Some(first) = next(0, now) else {
            return Some(Err(Seen::default()));
        };
        while let Some((slot, full)) = self.room(key, now) {
            let claimed =
                slot.state
                    .compare_exchange(full, BUSY, Ordering::AcqRel, Ordering::Acquire);
            if claimed.is_ok() {
                slot.key.store(key.hash, Ordering::Release);
                slot.state.store(first, Ordering::Release);
                return Some(Ok(Seen::own(first)));
            }
        }
        let bucket = self.overflow_of(key);
        let shared = |state| Seen {
            state,
            shared: true,
        };
        let taken = bucket.step(bucket.load(), |state| next(state, now));
        if taken.is_ok() {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        Some(taken.map(shared).map_err(shared))
    }

    /// The slot that has a key, and its state.
    #[inline]
    fn find(&self, key: &Key) -> Option<(Slot<'_>, u64)> {
        for group in self.groups_of(key).into_iter().flatten() {
            for slot in group.slots() {
                if slot.key.load(Ordering::Acquire) == key.hash {
                    let state = slot.state.load(Ordering::Acquire);
                    // It may have changed hands between the two.
                    if state != BUSY && slot.key.load(Ordering::Acquire) == key.hash {
                        return Some((slot, state));
                    }
                }
            }
        }
        None
    }

    /// A slot for a new key, from the group that has more of them.
    fn room(&self, key: &Key, now: Nanos) -> Option<(Slot<'_>, u64)> {
        let groups = self.groups_of(key).into_iter().flatten();
        let emptiest = groups.rev().max_by_key(|group| group.full(now).count())?;
        emptiest.full(now).next()
    }

    /// The two groups where a key may lie; none if the table has none.
    #[inline]
    fn groups_of(&self, key: &Key) -> [Option<&Group>; 2] {
        let at = |hash: u64| {
            let index = (u128::from(hash) * self.groups.len() as u128) >> 64;
            self.groups.get(index as usize)
        };
        [
            at(key.hash),
            at(key.hash.wrapping_mul(0xd134_2543_de82_ef95)),
        ]
    }

    /// What a key shares with others if the table has no room.
    pub(crate) fn overflow_of(&self, key: &Key) -> &Bucket {
        let index = (key.hash >> 32) as usize % Self::OVERFLOW;
        &self.overflow[key.limit as usize * Self::OVERFLOW + index]
    }
}

/// Neither the keys, which are nobody's business, nor a line for each of a million buckets.
impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("capacity", &(self.groups.len() * Group::SLOTS))
            .field("overflowed", &self.overflowed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
