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
//! - After a reload the state is told in terms of settings that are gone. The *version* of these is a part of the key,
//!   so that it is missed then; under the lock of its stripe it is found by the other part, and rewritten.
//!
//! A slot changes hands only when its bucket is full. A charge that was made before weighs nothing by then,
//! so what is given back too late is nothing either (see [`crate::limit::gcra`]).
//!
//! # Time
//!
//! A thread may hold a reading of the clock that is older than the one with which its bucket was found to be
//! full and given away. A new key is therefore charged with a reading of its own, made after it was missed.
//!
//! # Memory ordering
//!
//! States as in [`crate::limiter::bucket`]. A key is written after `BUSY` and before the state, each with release;
//! who sees the new state with acquire sees the new key.

use std::{
    cmp::Ordering as Order,
    collections::TryReserveError,
    fmt,
    sync::{OnceLock, PoisonError},
};

use super::{group::Group, meter_history::MeterTerms, readings::BucketReading};
use crate::{
    clock::Nanos,
    limit::meter::Meter,
    limiter::{
        bucket::{BUSY, Bucket, Slot, Untaken},
        meter_history::Version,
    },
    sync::{AtomicU64, Mutex, Ordering},
};

/// One limit of clients: its number, and the buckets that those share who find no room.
#[derive(Debug)]
pub(crate) struct ClientBuckets {
    number: u32,
    overflow: [Bucket; ClientBuckets::OVERFLOW],
}

impl ClientBuckets {
    /// How many overflow buckets a limit has.
    const OVERFLOW: usize = 16;

    pub(crate) fn new(number: u32, version: Version) -> Self {
        Self {
            number,
            overflow: [(); Self::OVERFLOW].map(|()| Bucket::full(version)),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn overflow(&self) -> &[Bucket] {
        &self.overflow
    }
}

/// A client's bucket for one limit, told in the terms of some version of its settings.
///
/// Versions that lie 65,536 changes of a limit apart look the same here: a balance that is still owed after so many is
/// read as if it were told in the later one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableKey<'a> {
    /// The last sixteen bits are those of the version, and the others a hash of the rest. Never zero, which marks a
    /// slot that nobody had yet.
    word: u64,
    page: &'a ClientBuckets,
    scale: MeterTerms<'a>,
}

impl<'a> TableKey<'a> {
    const MARK: u64 = 0xffff;

    /// The bucket for an identity, which is a keyed hash and so nothing an outsider can aim.
    #[inline]
    pub(crate) fn new(identity: u128, page: &'a ClientBuckets, scale: MeterTerms<'a>) -> Self {
        let hash = Self::hash_of(identity, page.number);
        Self {
            word: hash | (scale.version & Self::MARK),
            page,
            scale,
        }
    }

    /// What stands for a client's bucket, whatever the version.
    #[inline]
    pub(crate) fn hash_of(identity: u128, number: u32) -> u64 {
        let (low, high) = (identity as u64, (identity >> 64) as u64);
        let salted = low ^ (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let product = u128::from(salted) * u128::from(high | 1);
        let hash = product as u64 ^ (product >> 64) as u64;
        (hash | (Self::MARK + 1)) & !Self::MARK
    }

    pub(crate) fn scale(&self) -> MeterTerms<'a> {
        self.scale
    }

    /// The same bucket, told in terms of another version.
    pub(crate) fn told_in(&self, version: Version) -> Self {
        let scale = MeterTerms {
            version,
            ..self.scale
        };
        Self {
            word: self.hash() | (version & Self::MARK),
            scale,
            ..*self
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.word & !Self::MARK
    }

    /// What it shares with others if the table has no room.
    pub(crate) fn overflow(&self) -> &'a Bucket {
        &self.page.overflow[(self.word >> 32) as usize % ClientBuckets::OVERFLOW]
    }
}

/// A table of buckets by key, for many limits together.
pub(crate) struct ClientTable {
    /// Made when the first rules come that ask for it.
    table: OnceLock<ClientShards>,
    overflowed: AtomicU64,
}

struct ClientShards {
    /// As many buckets as were asked for.
    capacity: usize,
    groups: Box<[Group]>,
    stripes: Box<[Stripe]>,
}

#[derive(Default)]
#[repr(align(64))]
struct Stripe(Mutex<()>);

impl ClientTable {
    const STRIPES: usize = 64;

    /// Without room.
    pub(crate) fn new() -> Self {
        Self {
            table: OnceLock::new(),
            overflowed: AtomicU64::new(0),
        }
    }

    /// Makes a table of `capacity` buckets, rounded up to whole groups, unless there is one.
    ///
    /// # Errors
    ///
    /// If there is not that much memory.
    pub(crate) fn reserve(&self, capacity: usize) -> Result<(), TryReserveError> {
        if self.table.get().is_some() {
            return Ok(());
        }
        let count = capacity.div_ceil(Group::SLOTS);
        let mut groups = Vec::new();
        groups.try_reserve_exact(count)?;
        groups.resize_with(count, Group::default);
        let stripes = (0..Self::STRIPES).map(|_| Stripe::default());
        self.table.get_or_init(|| ClientShards {
            capacity,
            groups: groups.into(),
            stripes: stripes.collect(),
        });
        Ok(())
    }

    /// How many buckets were asked for, if the table was made.
    pub(crate) fn capacity(&self) -> Option<usize> {
        self.table.get().map(|table| table.capacity)
    }

    /// How many charges went to overflow buckets.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// The balance of a key, without a charge.
    pub(crate) fn peek(&self, key: &TableKey<'_>, now: Nanos) -> BucketReading {
        while let Some((slot, state)) = self.find(key) {
            if slot.key.load(Ordering::Acquire) == key.word {
                return BucketReading::own(state);
            }
        }
        let other = self.find_other(key).and_then(|(slot, word)| {
            let state = slot.state.load(Ordering::Acquire);
            let unchanged = state != BUSY && slot.key.load(Ordering::Acquire) == word;
            unchanged.then_some((state, word))
        });
        if let Some((state, word)) = other {
            let MeterTerms { version, history } = key.scale;
            return BucketReading::peeked(history.with_lock(|steps| {
                let from = steps.version(word as u16);
                match from > Some(version) {
                    true => Err(state),
                    false => Ok(steps.read(state, from, version)),
                }
            }));
        }
        let groups = self.groups_of(key);
        if groups
            .into_iter()
            .flatten()
            .any(|group| group.full(now).next().is_some())
        {
            return BucketReading::own(0);
        }
        let MeterTerms { version, history } = key.scale;
        BucketReading {
            shared: true,
            ..BucketReading::peeked(key.overflow().peek(version, history))
        }
    }

    /// Takes `cost`, or says what refused it.
    #[inline]
    pub(crate) fn take(
        &self,
        key: &TableKey<'_>,
        meter: &Meter,
        now: Nanos,
        cost: u64,
        clock: impl Fn() -> Nanos,
    ) -> Result<BucketReading, Untaken<BucketReading>> {
        self.step(key, now, clock, |state, now| {
            meter.take(state, now, cost).ok()
        })
    }

    /// Goes from a balance to the `next`, if there is one. A key that was missed is entered, with a new
    /// reading of the clock.
    #[inline]
    pub(crate) fn step(
        &self,
        key: &TableKey<'_>,
        now: Nanos,
        clock: impl Fn() -> Nanos,
        next: impl Fn(u64, Nanos) -> Option<u64>,
    ) -> Result<BucketReading, Untaken<BucketReading>> {
        loop {
            if let Some((slot, seen)) = self.find(key) {
                if let Some(taken) = slot.step(key.word, seen, |state| next(state, now)) {
                    return taken
                        .map(BucketReading::own)
                        .map_err(|seen| Untaken::Refused(BucketReading::own(seen)));
                }
            } else if let Some(taken) = self.enter(key, now, &clock, &next) {
                return taken;
            }
        }
    }

    /// Gives back what `next` says. `false` if settings hold by now that the key knows nothing of.
    ///
    /// Should the slot change hands in between, then because its bucket was full: the stranger can have the
    /// same state only as one that is full as well, and to a full bucket nothing can be given.
    pub(crate) fn refund(&self, key: &TableKey<'_>, next: impl Fn(u64) -> Option<u64>) -> bool {
        loop {
            if let Some((slot, seen)) = self.find(key) {
                if slot.step(key.word, seen, &next).is_some() {
                    return true;
                }
                continue;
            }
            let _alone = self.stripe(key);
            match self.renew(key) {
                // A key that is not there any more had a full bucket.
                None => return true,
                Some(Order::Greater) => return false,
                Some(_) => {}
            }
        }
    }

    /// Gives back `weight`, which was charged at `taken` and left what `left` tells.
    pub(crate) fn give_back(
        &self,
        key: &TableKey<'_>,
        left: BucketReading,
        meter: &Meter,
        taken: Nanos,
        weight: u64,
        clock: impl Fn() -> Nanos,
    ) {
        if left.shared {
            let (slot, version) = (key.overflow().slot(), key.scale.version);
            slot.give_back(version, left.state, meter, taken, weight, clock);
        } else if let Some((slot, _)) = self.find(key) {
            slot.give_back(key.word, left.state, meter, taken, weight, clock);
        }
        // A key that is not there any more had a full bucket.
    }

    /// Enters a key that was missed by a decision at `demand`, with its first charge. `None` if it is there after all.
    #[cold]
    #[inline(never)]
    fn enter(
        &self,
        key: &TableKey<'_>,
        demand: Nanos,
        clock: impl Fn() -> Nanos,
        next: impl Fn(u64, Nanos) -> Option<u64>,
    ) -> Option<Result<BucketReading, Untaken<BucketReading>>> {
        let _alone = self.stripe(key);
        match self.renew(key) {
            None => {}
            Some(Order::Greater) => return Some(Err(Untaken::Outdated)),
            Some(_) => return None,
        }
        let now = clock();
        let Some(first) = next(0, now) else {
            return Some(Err(Untaken::Refused(BucketReading::default())));
        };
        while let Some((slot, full)) = self.room(key, now) {
            let claimed =
                slot.state
                    .compare_exchange(full, BUSY, Ordering::AcqRel, Ordering::Acquire);
            if claimed.is_ok() {
                slot.key.store(key.word, Ordering::Release);
                slot.state.store(first, Ordering::Release);
                return Some(Ok(BucketReading::own(first).charged(now, demand)));
            }
        }
        let (bucket, MeterTerms { version, history }) = (key.overflow(), key.scale);
        let shared = |state| BucketReading {
            shared: true,
            ..BucketReading::own(state)
        };
        let taken = bucket.step(bucket.load(), version, history, |state| next(state, now));
        if taken.is_ok() {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        Some(match taken {
            Ok(state) => Ok(shared(state).charged(now, demand)),
            Err(Untaken::Refused(state)) => Err(Untaken::Refused(shared(state))),
            Err(Untaken::Outdated) => Err(Untaken::Outdated),
        })
    }

    /// Tells the balance of a key in its terms, if it was told in older ones, and says how its version compares to
    /// them. `None` if there is none. Who calls it has the stripe.
    fn renew(&self, key: &TableKey<'_>) -> Option<Order> {
        loop {
            if self.find(key).is_some() {
                return Some(Order::Equal);
            }
            let (slot, word) = self.find_other(key)?;
            let MeterTerms { version, history } = key.scale;
            let order = history.with_lock(|steps| {
                let from = steps.version(word as u16);
                if from > Some(version) {
                    return Order::Greater;
                }
                slot.rewrite(word, key.word, |state| steps.read(state, from, version));
                Order::Less
            });
            if order == Order::Greater {
                return Some(order);
            }
        }
    }

    /// The lock of all keys that might be this one.
    fn stripe(&self, key: &TableKey<'_>) -> Option<impl Drop + '_> {
        let ClientShards { stripes, .. } = self.table.get()?;
        let stripe = &stripes[(key.word >> 17) as usize % stripes.len()];
        // It guards no data that a panic could leave half done.
        Some(stripe.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The slot that has a key, and its state.
    #[inline]
    fn find<'a>(&'a self, key: &TableKey<'_>) -> Option<(Slot<'a>, u64)> {
        for group in self.groups_of(key).into_iter().flatten() {
            for slot in group.slots() {
                if slot.key.load(Ordering::Acquire) == key.word {
                    let state = slot.state.load(Ordering::Acquire);
                    // It may have changed hands between the two.
                    if state != BUSY && slot.key.load(Ordering::Acquire) == key.word {
                        return Some((slot, state));
                    }
                }
            }
        }
        None
    }

    /// The slot that has a key with a state of another version, and its word. One that a stranger is about to take
    /// was full.
    #[cold]
    fn find_other<'a>(&'a self, key: &TableKey<'_>) -> Option<(Slot<'a>, u64)> {
        let groups = self.groups_of(key).into_iter().flatten();
        let slots = groups.flat_map(Group::slots);
        let mut words = slots.map(|slot| (slot, slot.key.load(Ordering::Acquire)));
        words.find(|(slot, word)| {
            word & !TableKey::MARK == key.hash()
                && *word != key.word
                && slot.state.load(Ordering::Acquire) != BUSY
        })
    }

    /// A slot for a new key, from the group that has more of them.
    fn room<'a>(&'a self, key: &TableKey<'_>, now: Nanos) -> Option<(Slot<'a>, u64)> {
        let groups = self.groups_of(key).into_iter().flatten();
        let emptiest = groups.rev().max_by_key(|group| group.full(now).count())?;
        emptiest.full(now).next()
    }

    /// The two groups where a key may lie; none if the table has none.
    #[inline]
    fn groups_of(&self, key: &TableKey<'_>) -> [Option<&Group>; 2] {
        let groups = self.table.get().map_or(&[][..], |table| &table.groups);
        let at = |hash: u64| {
            let index = (u128::from(hash) * groups.len() as u128) >> 64;
            groups.get(index as usize)
        };
        let hash = key.hash();
        [at(hash), at(hash.wrapping_mul(0xd134_2543_de82_ef95))]
    }
}

/// Neither the keys, which are nobody's business, nor a line for each of a million buckets.
impl fmt::Debug for ClientTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTable")
            .field("capacity", &self.capacity())
            .field("overflowed", &self.overflowed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
