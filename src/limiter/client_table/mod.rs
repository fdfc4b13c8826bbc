//! The client table: balances of clients, in memory whose size is fixed when it is made.
//!
//! # Bounds
//!
//! A bucket is a key and a state, 16 bytes; all limits of clients are in one table. Each key has two groups of eight
//! slots where it may be stored. A new key takes a slot whose bucket is full again: a full bucket equals a missing one,
//! so nothing is lost. If none of the sixteen is full, the key shares one of sixteen *overflow buckets* of its limit
//! with other such keys, until a slot is free. The table is never swept, resized or moved; each step reads at most
//! sixteen slots.
//!
//! Two groups to choose from fill evenly: the first key without room occurs at about seven tenths of the capacity; at
//! nine tenths it is one in a hundred.
//!
//! # Invariants
//!
//! - A key, whatever the version in it, is in one slot at most. A *key* of a [`Slot`] is a [`TableKey`]'s word.
//! - A slot changes from one client to another only when its bucket is full, by a reading of the clock made under the
//!   lock of the new key's stripe.
//! - A client always has a balance: its slot, or an overflow bucket. One request is never charged on both.
//! - A key that is not in the table has a full bucket: a refund to a missing key changes nothing, and is no error.
//! - No identity is stored, only 47 bits of a hash of it. Two clients whose hashes collide on a limit share a bucket,
//!   which errs against them. The hash has a secret key, so nobody can search for collisions.
//!
//! # Callers
//!
//! [`balance`](super::balance) charges and corrects; [`plain`](super::plain) charges keys that are present. The engine
//! reserves room when rules with clients come, `limit_set` asks whether the table ever was full, and `observe` shows
//! `overflowed`.
//!
//! # Writers
//!
//! - A *charge* exchanges the state of the slot that has its key, without a lock.
//! - A *new key* is entered under a lock that all keys of its stripe share, so that no key is ever entered twice. The
//!   thread claims a slot by exchanging its state, which is that of a full bucket, for [`BUSY`]; then it writes the
//!   key, then the state. A thread that finds `BUSY` finds nothing.
//! - A slot may thus change hands between a look at its key and an exchange of its state. The state then differs,
//!   unless it is the same by chance (time that stands still), and the exchange fails. Everything starts over, since
//!   the state may now be a stranger's, and of another kind of limit. After an exchange the key is read once more; if
//!   it is a stranger's by now, the state is put back and everything starts over. If the stranger was charged in that
//!   moment, it pays one charge too many, never too few; a slot in flight is put back all the same.
//! - After a reload the state is in terms of former settings. Their *version* is a part of the key, so that a look-up
//!   misses it; under the lock of its stripe it is found by the other part, and rewritten.
//! - Before the time of such a reload is read, the limit is [*retired*](ClientBuckets::retire) in the former terms.
//!   From then on its charges have keys that are in no slot, so that no later reading is charged in those terms. Units
//!   that come back use the key that is present.
//!
//! A slot changes hands only when its bucket is full. An earlier charge weighs nothing by then, so a late refund is
//! nothing either (see [`crate::limit::gcra`]).
//!
//! # Time
//!
//! A thread may hold a clock reading older than the one with which its bucket was found full and given away. A new key
//! is therefore charged with a reading of its own, made after the miss.
//!
//! # Memory ordering
//!
//! States are ordered as in [`crate::limiter::bucket`]. A key is written after `BUSY` and before the state, each with
//! release; a thread that sees the new state with acquire sees the new key.

use std::{
    cmp::Ordering as Order,
    collections::TryReserveError,
    fmt,
    sync::{Arc, OnceLock, PoisonError},
};

use super::{meter_history::MeterTerms, readings::BucketReading};
use crate::{
    clock::Nanos,
    limit::meter::Meter,
    limiter::{
        bucket::{BUSY, Bucket, Slot, Untaken},
        meter_history::Version,
    },
    sync::{AtomicU64, Mutex, Ordering},
};

/// One limit's part of the table, in the terms of one version: the number that is hashed into its keys, and the buckets
/// that clients share who find no room.
#[derive(Debug)]
pub(crate) struct ClientBuckets {
    /// The number, as it is hashed.
    salt: u64,
    /// The end of the keys of charges: that of the version's keys, or [`ClientBuckets::RETIRED`]. Read relaxed: it
    /// guards no memory. A reading of the clock from after a change of it has a look at the key after it that sees the
    /// change, but for the nanoseconds that a processor reads ahead, which err against the caller.
    mark: AtomicU64,
    /// Given once by the rules of a throttle, so that no two limits have the same keys.
    number: u32,
    /// Made with the limit, 2 KiB, so that they are there when the table is full. The same in all versions.
    overflow: Arc<[Bucket; ClientBuckets::OVERFLOW]>,
}

impl ClientBuckets {
    /// The overflow buckets of a limit. A client's is chosen by its key, so that it always meets the same strangers.
    const OVERFLOW: usize = 16;

    /// The end of keys that no slot has: without [`TableKey::ENTERED`], and not zero.
    const RETIRED: u64 = 1;

    pub(crate) fn new(number: u32, version: Version) -> Self {
        Self {
            salt: Self::salt(number),
            mark: AtomicU64::new(TableKey::mark(version)),
            number,
            overflow: Arc::new([(); Self::OVERFLOW].map(|()| Bucket::full(version))),
        }
    }

    /// The same buckets in the terms of another version.
    pub(crate) fn in_version(&self, version: Version) -> Self {
        Self {
            salt: self.salt,
            mark: AtomicU64::new(TableKey::mark(version)),
            number: self.number,
            overflow: Arc::clone(&self.overflow),
        }
    }

    /// Ends all charges in these terms: a key that is made from now on is found nowhere, and its charge is outdated.
    ///
    /// A request reads the clock before it makes its keys. So a reading that is made after this call and a fence is no
    /// earlier than that of any charge in these terms.
    pub(crate) fn retire(&self) {
        self.mark.store(Self::RETIRED, Ordering::Release);
    }

    /// Returns whether both are the same buckets, in whatever terms.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.overflow, &other.overflow)
    }

    fn salt(number: u32) -> u64 {
        (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The number that is hashed into keys and names the queues of clients.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The overflow buckets, for a reload to put them into new terms.
    pub(crate) fn overflow(&self) -> &[Bucket] {
        &self.overflow[..]
    }
}

/// The key of a client's bucket for one limit, in the terms of some version of its settings.
///
/// Versions that lie 65,536 changes of a limit apart look the same here: a balance that is still owed after so many is
/// read as if it were in terms of the later one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableKey<'a> {
    /// The last sixteen bits are those of the version, the one before is [`TableKey::ENTERED`], and the others are a
    /// hash of the rest. Never zero, which marks a slot that nobody had yet. Of a charge on a limit that is retired, it
    /// ends in [`ClientBuckets::RETIRED`], as no word in a slot does.
    word: u64,
    buckets: &'a ClientBuckets,
    /// The whole version, of which `word` has the end, and the history to read older ones by.
    terms: MeterTerms<'a>,
}

impl<'a> TableKey<'a> {
    /// The bits of a word that are the version's.
    const VERSION: u64 = 0xffff;

    /// The bit that is set in each word that is in a slot, so that none is zero.
    const ENTERED: u64 = Self::VERSION + 1;

    /// The bits of a word that are the hash.
    const HASH: u64 = !(Self::VERSION | Self::ENTERED);

    /// The key of an identity, which is a keyed hash and so nothing an outsider can aim, for a charge at a moment that
    /// has been read before. `buckets` are those of the version in `terms`.
    #[inline]
    pub(crate) fn new(identity: u128, buckets: &'a ClientBuckets, terms: MeterTerms<'a>) -> Self {
        let mark = buckets.mark.load(Ordering::Relaxed);
        debug_assert!([Self::mark(terms.version), ClientBuckets::RETIRED].contains(&mark));
        Self {
            word: Self::salted(identity, buckets.salt) | mark,
            buckets,
            terms,
        }
    }

    /// Hashes an identity with the number of a limit: the part of the key that every version has, 47 bits, with zeros
    /// behind them.
    ///
    /// Both halves of an identity count, of which the second is zero if the first is a whole hash.
    #[inline]
    pub(crate) fn hash_of(identity: u128, number: u32) -> u64 {
        Self::salted(identity, ClientBuckets::salt(number))
    }

    #[inline(always)]
    fn salted(identity: u128, salt: u64) -> u64 {
        let (low, high) = (identity as u64, (identity >> 64) as u64);
        let product = u128::from(low.wrapping_add(high) ^ salt) * 0xa076_1d64_78bd_642f;
        (product as u64 ^ (product >> 64) as u64) & Self::HASH
    }

    /// The end of a version's keys.
    fn mark(version: Version) -> u64 {
        Self::ENTERED | (version & Self::VERSION)
    }

    /// The key as the slot of the bucket has it.
    #[inline]
    pub(super) fn word(&self) -> u64 {
        self.word
    }

    /// Returns whether the limit was retired in these terms before the key was made.
    fn is_retired(&self) -> bool {
        self.word & Self::ENTERED == 0
    }

    pub(crate) fn terms(&self) -> MeterTerms<'a> {
        self.terms
    }

    /// The key under which the balance is there in these terms, whether the limit is retired in them or not: for what
    /// comes back.
    pub(crate) fn lasting(&self) -> Self {
        self.in_version(self.terms.version)
    }

    /// The key of the same bucket in another version, also if the limit is retired in that.
    pub(crate) fn in_version(&self, version: Version) -> Self {
        let terms = MeterTerms {
            version,
            ..self.terms
        };
        Self {
            word: self.hash() | Self::mark(version),
            terms,
            ..*self
        }
    }

    /// The part of the word that every version has.
    pub(crate) fn hash(&self) -> u64 {
        self.word & Self::HASH
    }

    /// The hash by which the second group of a key is found.
    #[inline(always)]
    fn second(hash: u64) -> u64 {
        hash.wrapping_mul(0xd134_2543_de82_ef95)
    }

    /// The bucket that the client shares with others if the table has no room.
    pub(crate) fn overflow(&self) -> &'a Bucket {
        &self.buckets.overflow[(self.word >> 32) as usize % ClientBuckets::OVERFLOW]
    }
}

/// A table of buckets by key, for all limits of clients together. Lives as long as its limiter, and is never made anew.
pub(crate) struct ClientTable {
    /// Made when the first rules come that ask for it.
    table: OnceLock<ClientShards>,
    /// Charges that were taken from overflow buckets. Relaxed: it orders nothing.
    overflowed: AtomicU64,
}

/// The memory of a table, made at once.
struct ClientShards {
    /// As many buckets as were asked for.
    capacity: usize,
    groups: Box<[Group]>,
    /// The locks under which keys are entered and rewritten. They guard no data of their own.
    stripes: Box<[Stripe]>,
}

/// A lock on a cache line of its own, so that neighbours do not contend.
#[derive(Default)]
#[repr(align(64))]
struct Stripe(Mutex<()>);

impl ClientTable {
    /// Two keys meet on a lock once in so many: 4 KiB of them.
    const STRIPES: usize = 64;

    /// A table without room: until [`ClientTable::reserve`], all charges go to overflow buckets.
    pub(crate) fn new() -> Self {
        Self {
            table: OnceLock::new(),
            overflowed: AtomicU64::new(0),
        }
    }

    /// Makes room for `capacity` buckets of 16 bytes, rounded up to whole groups, unless room was made before: the
    /// first size stays. Called when rules are put together, before they hold. A capacity of zero makes no room.
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

    /// Returns the buckets that were asked for, if room was made.
    pub(crate) fn capacity(&self) -> Option<usize> {
        self.table.get().map(|table| table.capacity)
    }

    /// Returns the charges that overflow buckets have taken. Zero means that no client has ever been charged on a
    /// shared balance.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Returns the balance of a key in its terms, without a charge.
    ///
    /// A key that is not there is full at `now` if a slot is free for it, and otherwise has its overflow bucket's
    /// balance. A look without a lock: a key that is being entered or rewritten meanwhile may seem not to be there.
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
            let MeterTerms { version, history } = key.terms;
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
        let MeterTerms { version, history } = key.terms;
        BucketReading {
            shared: true,
            ..BucketReading::peeked(key.overflow().peek(version, history))
        }
    }

    /// Takes `cost` of a balance; see [`BalanceRef::take`](super::balance::BalanceRef::take).
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

    /// Exchanges a balance for the `next`, if there is one, and returns what it is after that.
    ///
    /// `next` is called with a state and the moment of the charge: `now`, or a new reading of `clock` for a key that
    /// is not there and is entered. Several calls may be made, of which the one that was exchanged counts. A key that
    /// `next` refuses though it is full is not entered.
    ///
    /// # Errors
    ///
    /// [`Untaken::Refused`] with the balance that was refused; [`Untaken::Outdated`] if it is in newer terms than the
    /// key, or if there are newer ones and the key is not there, or its limit retired.
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

    /// Exchanges a balance for the `next`, if there is one, and never enters a key. Returns `false`, with nothing
    /// changed, if the balance is in newer terms than the key. For units of a client's own slot; those of an overflow
    /// bucket come back there.
    ///
    /// Should the slot change hands in between, then because its bucket was full: the stranger can have the same state
    /// only as one that is full as well, and to a full bucket nothing can be given.
    ///
    /// The key is [one that may be there](TableKey::lasting).
    pub(crate) fn refund(&self, key: &TableKey<'_>, next: impl Fn(u64) -> Option<u64>) -> bool {
        debug_assert!(!key.is_retired());
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

    /// Gives back `weight` nanoseconds of state, which were charged at `taken` and left the balance at `left`;
    /// `left.shared` says that it was an overflow bucket. If the balance is in other terms by now, it stays charged.
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
            let (slot, version) = (key.overflow().slot(), key.terms.version);
            slot.give_back(version, left.state, meter, taken, weight, clock);
        } else {
            let key = key.lasting();
            if let Some((slot, _)) = self.find(&key) {
                slot.give_back(key.word, left.state, meter, taken, weight, clock);
            }
        }
        // A key that is not there any more had a full bucket.
    }

    /// Enters a key that a decision at `decided` has missed, with its first charge; or charges its overflow bucket, if
    /// there is no room. `None` if the key is there after all, in its terms by now: the caller looks again.
    ///
    /// Holds the stripe of the key, so that no two threads enter it. A slot in its groups may still be claimed by a
    /// key of another stripe, hence the exchange, and the loop: each lost exchange has made a slot of theirs unfit.
    #[cold]
    #[inline(never)]
    fn enter(
        &self,
        key: &TableKey<'_>,
        decided: Nanos,
        clock: impl Fn() -> Nanos,
        next: impl Fn(u64, Nanos) -> Option<u64>,
    ) -> Option<Result<BucketReading, Untaken<BucketReading>>> {
        let _alone = self.stripe(key);
        if key.is_retired() {
            return Some(Err(Untaken::Outdated));
        }
        match self.renew(key) {
            None => {}
            Some(Order::Greater) => return Some(Err(Untaken::Outdated)),
            Some(_) => return None,
        }
        let now = clock();
        // By a reading that may be later than the step after these terms, it would owe the time in between.
        if key.terms.history.is_past(key.terms.version) {
            return Some(Err(Untaken::Outdated));
        }
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
                return Some(Ok(BucketReading::own(first).charged(now, decided)));
            }
        }
        let (bucket, MeterTerms { version, history }) = (key.overflow(), key.terms);
        let shared = |state| BucketReading {
            shared: true,
            ..BucketReading::own(state)
        };
        let taken = bucket.step(bucket.load(), version, history, |state| next(state, now));
        if taken.is_ok() {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        Some(match taken {
            Ok(state) => Ok(shared(state).charged(now, decided)),
            Err(Untaken::Refused(state)) => Err(Untaken::Refused(shared(state))),
            Err(Untaken::Outdated) => Err(Untaken::Outdated),
        })
    }

    /// Rewrites the balance of a key in its terms, if it is in older ones. Returns how the version that was found
    /// compares to the key's, before that; `None` if the key is in no slot.
    ///
    /// The caller holds the stripe of the key, which all its versions share.
    fn renew(&self, key: &TableKey<'_>) -> Option<Order> {
        loop {
            if self.find(key).is_some() {
                return Some(Order::Equal);
            }
            let (slot, word) = self.find_other(key)?;
            let MeterTerms { version, history } = key.terms;
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

    /// Locks the stripe of a key: all keys with the same hash have the same. `None` until room was made.
    fn stripe(&self, key: &TableKey<'_>) -> Option<impl Drop + '_> {
        let ClientShards { stripes, .. } = self.table.get()?;
        let stripe = &stripes[(key.word >> 17) as usize % stripes.len()];
        // The lock guards no data that a panic could leave half done.
        Some(stripe.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the slot that has a key, and a state that was the key's. The slot may be another's when the caller uses
    /// it, which [`Slot::step`] finds out.
    #[inline]
    pub(super) fn find<'a>(&'a self, key: &TableKey<'_>) -> Option<(Slot<'a>, u64)> {
        let groups = &self.table.get()?.groups;
        // Most keys lie in their first group, and need not know the second.
        let find = |hash| ClientTable::group_at(groups, hash)?.find(key.word);
        find(key.hash()).or_else(|| find(TableKey::second(key.hash())))
    }

    /// Returns the slot that has a key in another version, older or newer, and its word. One that is `BUSY` is passed
    /// over: a stranger is about to take it, so it was full, or it is being rewritten in the terms that are sought.
    #[cold]
    fn find_other<'a>(&'a self, key: &TableKey<'_>) -> Option<(Slot<'a>, u64)> {
        let groups = self.groups_of(key).into_iter().flatten();
        let slots = groups.flat_map(Group::slots);
        let mut words = slots.map(|slot| (slot, slot.key.load(Ordering::Acquire)));
        words.find(|(slot, word)| {
            word & !TableKey::VERSION == key.hash() | TableKey::ENTERED
                && *word != key.word
                && slot.state.load(Ordering::Acquire) != BUSY
        })
    }

    /// Returns a slot for a new key with the state by which it is full, from the group that has more of them; of
    /// equals, the first. `None` if both groups have none.
    fn room<'a>(&'a self, key: &TableKey<'_>, now: Nanos) -> Option<(Slot<'a>, u64)> {
        let groups = self.groups_of(key).into_iter().flatten();
        let emptiest = groups.rev().max_by_key(|group| group.full(now).count())?;
        emptiest.full(now).next()
    }

    /// Returns the two groups where a key may lie, which may be the same one; none if there is no room.
    ///
    /// By the high bits of the hash and of its product with an odd number, each scaled to the number of groups: the
    /// same in all versions, so that a key never moves.
    #[inline]
    fn groups_of(&self, key: &TableKey<'_>) -> [Option<&Group>; 2] {
        let groups = self.table.get().map_or(&[][..], |table| &table.groups);
        let hash = key.hash();
        [hash, TableKey::second(hash)].map(|hash| Self::group_at(groups, hash))
    }

    /// Returns the group that a hash stands for. `None` if there are none.
    #[inline(always)]
    fn group_at(groups: &[Group], hash: u64) -> Option<&Group> {
        let index = (u128::from(hash) * groups.len() as u128) >> 64;
        groups.get(index as usize)
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

/// A group: eight pairs of a key and a state, 128 bytes, aligned to two cache lines. A pair never straddles a line, and
/// two groups never share one, so that a key found among the first four costs one cache line.
///
/// A group starts zeroed. Key 0 is no client's, and state 0 is a full bucket, so a fresh slot is free.
#[derive(Default)]
#[repr(align(128))]
struct Group([Pair; Group::SLOTS]);

/// One slot: whose balance it is, and the balance.
#[derive(Default)]
struct Pair {
    /// The word of a [`TableKey`]; 0 before the first.
    key: AtomicU64,
    /// The state of a meter, or [`BUSY`] while the slot changes hands.
    state: AtomicU64,
}

impl Group {
    /// The slots of a group. Fewer under loom, which explores all orders in which they may be read.
    const SLOTS: usize = if cfg!(throttle_loom) { 2 } else { 8 };

    /// Returns all slots, in the order in which they are searched.
    fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.0.iter().map(|Pair { key, state }| Slot { key, state })
    }

    /// Returns the slot that has a key's word, and a state that was the key's.
    #[inline(always)]
    fn find(&self, word: u64) -> Option<(Slot<'_>, u64)> {
        for slot in self.slots() {
            if slot.key.load(Ordering::Acquire) == word {
                let state = slot.state.load(Ordering::Acquire);
                // The slot may have changed hands between the two.
                if state != BUSY && slot.key.load(Ordering::Acquire) == word {
                    return Some((slot, state));
                }
            }
        }
        None
    }

    /// Returns the slots whose buckets are full at `now`, with the states by which they were.
    ///
    /// A state that is not after the throttle's clock is full, whatever meter it belongs to (see
    /// [`Meter`](crate::limit::meter::Meter)); slots in flight lie after every reading of the clock, and so does
    /// `BUSY`. A look, no claim: the caller exchanges exactly the state that is returned, or has lost the slot.
    fn full(&self, now: Nanos) -> impl Iterator<Item = (Slot<'_>, u64)> {
        self.slots().filter_map(move |slot| {
            let state = slot.state.load(Ordering::Acquire);
            (state <= now).then_some((slot, state))
        })
    }
}

#[cfg(test)]
mod tests;
