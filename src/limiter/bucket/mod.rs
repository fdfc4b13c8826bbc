//! Buckets: one limit's balance in one scope, as two atomic words.
//!
//! The *state* is that of a [`Meter`], in nanoseconds: 0 and any moment not after the meter's own time is a full
//! bucket, and each taken unit adds to it. The *key* beside it identifies the state: for a [`Bucket`], the version of
//! the settings in whose terms it is; for an entry in the table of clients, the client and the version. Together they
//! are a [`Slot`], and the protocol below is the same for both.
//!
//! # Invariants
//!
//! - A state other than [`BUSY`] is a meter's, and is that of the key beside it, if the key is the same before and
//!   after the state is read.
//! - A charge that returns success is in the state exactly once, or in the estate of a closed bucket. One that returns
//!   anything else is in neither, except in the next case.
//! - If a charge meets a change of the key, its exchange may be irrevocable: a balance then holds one charge too many,
//!   and never one too few. No request is admitted beyond the bound, whatever the order.
//! - A bucket's version only grows, up to [closed](succession), which is the last.
//!
//! # Writers
//!
//! - A *charge* exchanges the state, without a lock, and reads the key after it. If that has changed, it puts the state
//!   back and starts over. If another charge was made in that moment, that is one charge too many, never too few; slots
//!   in flight are put back all the same. A bucket that was [closed](succession) in that moment keeps the charge: its
//!   state is not exchanged any more.
//! - A *change of the key* is made under a lock: of the [`MeterHistory`] for versions, of a stripe of the table for
//!   clients. The state is exchanged for `BUSY`, then the key is written, then the new state. A thread that finds
//!   `BUSY` finds no bucket, and waits by taking the lock.
//!
//! ```text
//! charge    read state ─ compute ─ CAS state ─ read key ─┬ own, or closed: done
//!                                                        └ other: CAS back (a slot that was freed: done), begin anew
//! rewrite   lock ─ CAS state to BUSY ─ write key ─ write state ─ unlock
//! ```
//!
//! A reload rewrites each bucket as of a clock reading made while the state is `BUSY`: no charge in the bucket comes
//! after that moment (see [`meter_history`](super::meter_history)).
//!
//! No step is ever cancelled half-way: none waits for another task, and the only wait is for a thread between `BUSY`
//! and the state.
//!
//! # Callers
//!
//! [`balance`](super::balance) for charges and corrections, [`plain`](super::plain) for charges in one exchange,
//! [`client_table`](super::client_table) for its slots and its overflow buckets, `rules/registry` and
//! `store/memory` for [`Bucket::carry_over`], and `engine` for what [`succession`] makes public.
//!
//! # Memory ordering
//!
//! A state guards no other memory but the word beside it, which is written before the state and with release; a thread
//! that sees the new state with acquire sees the new word. Loads acquire and exchanges release for one more reason:
//! giving back compares two clock readings, and a thread that sees a charge must also see a clock that is not behind
//! the one of the charge. The clock promises that only along a happens-before edge, which these orderings create, and
//! only if it is read after the load, as [`Timeline::now_ordered`](crate::clock::Timeline::now_ordered) does.

#[cfg(all(test, throttle_loom))]
mod loom_tests;
mod succession;

use std::cmp::Ordering::{self as Order, Equal, Greater, Less};

use self::succession::{CLOSED, Succession};
pub(crate) use self::succession::{LateCorrection, Source, Successor};

use crate::{
    clock::Nanos,
    limit::meter::Meter,
    limiter::meter_history::{MeterHistory, MeterSteps, Version},
    sync::{AtomicU64, Mutex, Ordering},
};

/// The state of a slot whose key is being changed, and of a closed bucket for ever. No meter's: debts end at
/// [`Meter::FARTHEST`], and slots in flight count up from there.
pub(crate) const BUSY: u64 = u64::MAX;

/// A state and its key, wherever the two lie: in a [`Bucket`], or in a group of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'a> {
    pub(crate) key: &'a AtomicU64,
    pub(crate) state: &'a AtomicU64,
}

impl Slot<'_> {
    /// Exchanges the state `seen` for the `next`, if there is one.
    ///
    /// - `Some(Ok(next))`: exchanged.
    /// - `Some(Err(seen))`: `next` has refused that state, and it was `key`'s.
    /// - `None`: nothing was changed, since the slot is no longer that of `key`, or the state has changed. The caller
    ///   looks the slot up anew.
    #[inline(always)]
    pub(crate) fn step(
        &self,
        key: u64,
        seen: u64,
        next: impl Fn(u64) -> Option<u64>,
    ) -> Option<Result<u64, u64>> {
        if seen == BUSY {
            return None;
        }
        self.step_to(key, seen, next(seen))
    }

    /// [`Slot::step`] from a state that is not [`BUSY`], with `next` computed.
    #[inline(always)]
    pub(super) fn step_to(
        &self,
        key: u64,
        seen: u64,
        next: Option<u64>,
    ) -> Option<Result<u64, u64>> {
        let Some(next) = next else {
            let still_ours = self.key.load(Ordering::Acquire) == key;
            return still_ours.then_some(Err(seen));
        };
        self.state
            .compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire)
            .ok()?;
        self.exchanged(key, seen, next)
    }

    /// Finishes [`Slot::step_to`] after its exchange: looks at the key, and puts the state back if it is another's.
    ///
    /// Putting back is tried once. If it fails, the other was charged meanwhile on top of this charge, and keeps it. A
    /// slot in flight would be kept for ever, and is put back whatever others do.
    #[inline(always)]
    fn exchanged(&self, key: u64, seen: u64, next: u64) -> Option<Result<u64, u64>> {
        match self.key.load(Ordering::Acquire) {
            found if found == key => return Some(Ok(next)),
            // The charge was exchanged before that, and is a part of the estate.
            CLOSED => return Some(Ok(next)),
            _ => {}
        }
        self.exchanged_late(seen, next)
    }

    /// Finishes [`Slot::exchanged`] where the key is another's.
    ///
    /// A slot in flight keeps the key where it is. So one that was freed has been its holder's until then, and the key
    /// has changed after that; and one that was taken is charged to the stranger for as long as it is not given back.
    ///
    /// `BUSY` ends it: only a change of the terms rewrites a bucket in which a slot is taken, and it makes another kind
    /// of limit of it, whose unit comes back with time.
    #[cold]
    fn exchanged_late(&self, seen: u64, next: u64) -> Option<Result<u64, u64>> {
        let exchange = |from, to| {
            self.state
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
        };
        if Meter::without_slot(seen) == Some(next) {
            return Some(Ok(next));
        }
        if Meter::without_slot(next) != Some(seen) {
            let _ = exchange(next, seen);
            return None;
        }
        let mut state = next;
        while let Some(less) = Meter::without_slot(state) {
            match exchange(state, less) {
                Ok(_) => break,
                Err(actual) => state = actual,
            }
        }
        None
    }

    /// Gives back `weight` nanoseconds of state that were charged at `taken` and left the state at `after`. Returns
    /// `false` if the slot is another's by now: there is nothing left to give back to.
    ///
    /// If the state is `after` still, nobody came between, and it goes back to where it was. Otherwise `now` is asked
    /// after each look at the state: every charge in that state was then made with a reading no later than this one,
    /// which is what [`Meter::give_back`] relies on.
    ///
    /// A state that is `after` by chance in a stranger's hands is one that has just become full: taking from what it
    /// owes changes nothing.
    pub(crate) fn give_back(
        &self,
        key: u64,
        after: u64,
        meter: &Meter,
        taken: Nanos,
        weight: u64,
        now: impl Fn() -> Nanos,
    ) -> bool {
        let before = meter.less(after, weight);
        let exchange = |from, to| {
            self.state
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
        };
        let Err(mut seen) = exchange(after, before) else {
            return true;
        };
        while seen != BUSY && self.key.load(Ordering::Acquire) == key {
            let next = meter.give_back(seen, taken, now(), weight);
            if next == seen {
                return true;
            }
            match exchange(seen, next) {
                Ok(_) => return true,
                Err(actual) => seen = actual,
            }
        }
        false
    }

    /// Changes a slot's key, and its state with it, in one step for all others. Returns `false`, with nothing changed,
    /// if the slot is not that of `from`.
    ///
    /// The caller holds the lock under which this key changes. `change` runs while the state is `BUSY`: it is short,
    /// does not panic, and takes no lock, but for what a reading of the clock does.
    pub(crate) fn rewrite(&self, from: u64, to: u64, change: impl FnOnce(u64) -> u64) -> bool {
        let exchange = |from, to| {
            self.state
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
        };
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            if state == BUSY {
                return false;
            }
            match exchange(state, BUSY) {
                Ok(_) => break,
                Err(actual) => state = actual,
            }
        }
        let ours = self.key.load(Ordering::Acquire) == from;
        if ours {
            self.key.store(to, Ordering::Release);
            state = change(state);
        }
        self.state.store(state, Ordering::Release);
        ours
    }
}

/// The reason why a charge was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untaken<S> {
    /// Refused by this balance.
    Refused(S),
    /// The balance is in terms of newer settings than the charge's, or its bucket is closed.
    Outdated,
}

/// The state of one limit for one scope. Starts full.
///
/// Aligned to two cache lines, so that neighbours never contend (adjacent lines are fetched in pairs).
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Bucket {
    state: AtomicU64,
    /// The version of the settings in whose terms the state is; `CLOSED` once another bucket has taken it over.
    version: AtomicU64,
    /// The buckets whose balances it has taken over, and those that take over its own. Most buckets have none, and all
    /// stay small. Locked by reloads and by what comes back late, never by a charge.
    succession: Mutex<Option<Box<Succession>>>,
}

impl Bucket {
    /// A full bucket, in the terms of a version.
    pub(crate) fn full(version: Version) -> Self {
        Self {
            state: AtomicU64::new(0),
            version: AtomicU64::new(version),
            succession: Mutex::default(),
        }
    }

    /// Reads the state alone, which may be in any terms, or [`BUSY`].
    #[inline(always)]
    pub(crate) fn load(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// Returns whether a state that was read from this bucket is in terms of `version`.
    #[inline]
    pub(super) fn is_in(&self, state: u64, version: Version) -> bool {
        state != BUSY && self.version.load(Ordering::Acquire) == version
    }

    /// Returns the state in terms of `version`, without a change; or, as the error, in newer terms, and 0 for a closed
    /// bucket.
    ///
    /// No lock is taken while the bucket is in these terms. The version is read after the state: where a rewrite comes
    /// between the two, a state in older terms is returned as if it were in these. That may mislead a refusal in that
    /// moment, and no charge, whose exchange fails then.
    #[inline]
    pub(crate) fn peek(&self, version: Version, history: &MeterHistory) -> Result<u64, u64> {
        let state = self.load();
        if self.is_in(state, version) {
            return Ok(state);
        }
        self.read(version, history)
    }

    /// Finishes [`Bucket::peek`] under the lock of the history.
    #[cold]
    fn read(&self, version: Version, history: &MeterHistory) -> Result<u64, u64> {
        // Nobody rewrites it meanwhile.
        history.with_lock(|steps| {
            let own = self.version.load(Ordering::Acquire);
            let state = self.load();
            match own.cmp(&version) {
                Less => Ok(steps.read(state, Some(own), version)),
                Equal => Ok(state),
                // Closed: its heirs have the balance.
                Greater if state == BUSY => Err(0),
                Greater => Err(state),
            }
        })
    }

    /// Exchanges the state for the `next`, if there is one, beginning with a state `seen` that the caller has read, in
    /// whatever terms. Returns the state after it.
    ///
    /// A bucket in older terms is rewritten in those of `version` first. `next` may be called several times, with any
    /// state of the bucket, and counts only for the one that was exchanged.
    ///
    /// # Errors
    ///
    /// [`Untaken::Refused`] with the state for which `next` had none; [`Untaken::Outdated`] if the bucket is in newer
    /// terms, or closed. Nothing was changed in either case.
    #[inline(always)]
    pub(crate) fn step(
        &self,
        seen: u64,
        version: Version,
        history: &MeterHistory,
        next: impl Fn(u64) -> Option<u64>,
    ) -> Result<u64, Untaken<u64>> {
        match seen {
            BUSY => self.step_again(version, history, next),
            _ => self.step_to(seen, next(seen), version, history, next),
        }
    }

    /// [`Bucket::step`] from a state that is not [`BUSY`], with what `next` returns for it computed by the caller: so
    /// that the compiler has one copy of that where most requests come by, and another out of the way.
    #[inline(always)]
    pub(crate) fn step_to(
        &self,
        seen: u64,
        first: Option<u64>,
        version: Version,
        history: &MeterHistory,
        next: impl Fn(u64) -> Option<u64>,
    ) -> Result<u64, Untaken<u64>> {
        // Nearly always that is all. A state in other terms is found out by the look at the key, and put back.
        match self.slot().step_to(version, seen, first) {
            Some(stepped) => stepped.map_err(Untaken::Refused),
            None => self.step_again(version, history, next),
        }
    }

    /// Gives a slot back by one exchange. `false`: nothing was changed, since others have changed the state meanwhile,
    /// or it is in other terms than those of `version`, or has no slot.
    #[inline]
    pub(super) fn free_slot(&self, version: Version) -> bool {
        let seen = self.load();
        let Some(next) = Meter::without_slot(seen) else {
            return false;
        };
        self.slot().step_to(version, seen, Some(next)).is_some()
    }

    /// Finishes [`Bucket::step`] that has failed once: others were charged, or the terms change. Lock-free between
    /// reloads.
    #[cold]
    #[inline(never)]
    fn step_again(
        &self,
        version: Version,
        history: &MeterHistory,
        next: impl Fn(u64) -> Option<u64>,
    ) -> Result<u64, Untaken<u64>> {
        loop {
            if self.version.load(Ordering::Acquire) != version
                && self.update(version, history) == Greater
            {
                return Err(Untaken::Outdated);
            }
            let mut seen = self.load();
            if seen == BUSY {
                history.wait();
                seen = self.load();
            }
            if let Some(stepped) = self.slot().step(version, seen, &next) {
                return stepped.map_err(Untaken::Refused);
            }
        }
    }

    /// Rewrites the state in terms of `version`, if it is in older ones. Returns `Greater` if it is in newer ones, or
    /// closed, and `Equal` if it is in these now.
    #[cold]
    #[inline(never)]
    pub(crate) fn update(&self, version: Version, history: &MeterHistory) -> Order {
        history.with_lock(|steps| {
            let own = self.version.load(Ordering::Acquire);
            if own < version {
                let change = |state| steps.read(state, Some(own), version);
                self.slot().rewrite(own, version, change);
            }
            if own > version { Greater } else { Equal }
        })
    }

    /// Rewrites the state in terms of `version`, the present ones, if it is in older ones: as of a reading of `clock`
    /// that is made after the last charge in those. The caller has the lock of the history, whose `steps` these are.
    pub(crate) fn carry_over(
        &self,
        version: Version,
        steps: &MeterSteps,
        clock: impl Fn() -> Nanos,
    ) {
        let own = self.version.load(Ordering::Acquire);
        if own < version {
            let change = |state| steps.read_now(state, own, version, clock);
            self.slot().rewrite(own, version, change);
        }
    }

    /// The bucket as a slot, whose key is the version.
    pub(crate) fn slot(&self) -> Slot<'_> {
        Slot {
            key: &self.version,
            state: &self.state,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limiter::meter_history::MeterStep;

    const OURS: u64 = 3;
    const STRANGERS: u64 = 5;

    #[test]
    fn what_is_exchanged_just_before_a_bucket_is_closed_is_a_part_of_what_it_leaves() {
        let meter = Meter::of_slots(3).expect("three");
        let history = MeterHistory::new(Some(MeterStep {
            version: OURS,
            since: 0,
            meter,
        }));
        let one = meter.take(0, 0, 1).expect("free");
        let two = meter.take(one, 0, 1).expect("free");
        for (what, before, after, held) in [("taken", one, two, 2), ("given back", two, one, 1)] {
            let bucket = Arc::new(Bucket::full(OURS));
            bucket.state.store(after, Ordering::Release);
            bucket.retire(&history);
            let done = bucket.slot().exchanged(OURS, before, after);
            assert_eq!(done, Some(Ok(after)), "{what} once, and not once more");
            assert_eq!(bucket.held(), held, "{what}");
        }
    }

    #[test]
    fn no_stranger_keeps_a_slot_that_was_taken_or_freed_as_the_key_changed() {
        const ONE: u64 = Meter::FARTHEST + 1;
        type Case = (&'static str, u64, u64, u64, Option<Result<u64, u64>>, u64);
        // (what, the state seen, the next, the stranger's by then; what is told, the state that is left)
        let table: [Case; 6] = [
            ("taken", 0, ONE, ONE, None, 0),
            ("taken, and so has the stranger", 0, ONE, ONE + 1, None, ONE),
            (
                "one more taken, and the stranger's freed",
                ONE,
                ONE + 1,
                ONE,
                None,
                0,
            ),
            (
                "the last freed, and the stranger has none",
                ONE,
                0,
                0,
                Some(Ok(0)),
                0,
            ),
            (
                "the last freed, and the stranger has one",
                ONE,
                0,
                ONE,
                Some(Ok(0)),
                ONE,
            ),
            ("one of two freed", ONE + 1, ONE, ONE, Some(Ok(ONE)), ONE),
        ];
        for (what, seen, next, state, told, left) in table {
            let (key, state) = (AtomicU64::new(STRANGERS), AtomicU64::new(state));
            let slot = Slot {
                key: &key,
                state: &state,
            };
            assert_eq!(slot.exchanged(OURS, seen, next), told, "{what}");
            assert_eq!(slot.state.load(Ordering::Acquire), left, "{what}");
        }
    }

    #[test]
    fn a_slot_comes_back_by_one_exchange_where_there_is_one() {
        const ONE: u64 = Meter::FARTHEST + 1;
        // (what, the state, what is told, the state that is left)
        let table = [
            ("the last", ONE, true, 0),
            ("one of two", ONE + 1, true, ONE),
            ("none is taken", 0, false, 0),
            ("that of a rate", 70, false, 70),
            ("on its way", BUSY, false, BUSY),
        ];
        for (what, state, told, left) in table {
            let bucket = Bucket::full(OURS);
            bucket.state.store(state, Ordering::Release);
            assert_eq!(bucket.free_slot(OURS), told, "{what}");
            assert_eq!(bucket.load(), left, "{what}");
        }
    }

    #[test]
    fn what_happens_between_a_look_and_an_exchange_is_seen() {
        type Between = fn(&Slot<'_>);
        type Case = (
            &'static str,
            Between,
            Option<u64>,
            Option<Result<u64, u64>>,
            u64,
        );
        let given_away: Between = |slot| slot.key.store(STRANGERS, Ordering::Release);
        let charged: Between = |slot| slot.state.store(75, Ordering::Release);
        let busy: Between = |slot| slot.state.store(BUSY, Ordering::Release);
        // (what, what others do, the next state, what is told, the state that is left); all begin at 70.
        let table: [Case; 6] = [
            ("nothing", |_| {}, Some(80), Some(Ok(80)), 80),
            ("nothing, and refused", |_| {}, None, Some(Err(70)), 70),
            ("charged by another thread", charged, Some(80), None, 75),
            ("on its way to a stranger", busy, Some(80), None, BUSY),
            (
                "a stranger's, in a state that is the same by chance",
                given_away,
                Some(80),
                None,
                70,
            ),
            ("a stranger's state refused", given_away, None, None, 70),
        ];
        for (what, between, next, told, left) in table {
            let (key, state) = (AtomicU64::new(0), AtomicU64::new(0));
            let slot = Slot {
                key: &key,
                state: &state,
            };
            slot.key.store(OURS, Ordering::Release);
            slot.state.store(70, Ordering::Release);
            let stepped = slot.step(OURS, 70, |state| {
                assert_eq!(state, 70, "{what}");
                between(&slot);
                next
            });
            assert_eq!(stepped, told, "{what}");
            assert_eq!(slot.state.load(Ordering::Acquire), left, "{what}");
        }
    }
}
