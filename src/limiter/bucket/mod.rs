//! One bucket: an atomic word that holds the state of a [`Meter`], and beside it a word that says whose state it is.
//!
//! # Who may write what
//!
//! - A *charge* exchanges the state, without a lock, and looks at the other word after it: if that is not its own any
//!   more, it puts the state back and all begins anew. If somebody was charged in that moment, that is one charge too
//!   many, never too few. A bucket that was [closed](succession) in that moment holds the charge: its state is not
//!   exchanged any more.
//! - Who changes the other word is alone in that, by a lock of its own. It exchanges the state for [`BUSY`], then
//!   writes the word, then the new state. Who finds `BUSY` finds nothing.
//!
//! # Memory ordering
//!
//! A state guards no other memory but the word beside it, which is written before the state and with release; who sees
//! the new state with acquire sees the new word. Loads acquire and exchanges release for one more reason: giving back
//! compares two clock readings, and a thread that sees a charge must also see a clock that is not behind the one the
//! charge was made with. The monotonic clock promises that only along a happens-before edge, and these orderings draw
//! it.

#[cfg(all(test, throttle_loom))]
mod loom_tests;
mod succession;

use std::cmp::Ordering::{self as Order, Equal, Greater, Less};

use self::succession::{CLOSED, Succession};
pub(crate) use self::succession::{LateCorrection, Source, Successor};

use crate::{
    clock::Nanos,
    limit::meter::Meter,
    limiter::meter_history::{MeterHistory, Version},
    sync::{AtomicU64, Mutex, Ordering},
};

/// The state of a place that is changing hands. No bucket's: states end below it.
pub(crate) const BUSY: u64 = u64::MAX;

/// A state, and whose it is, wherever the two lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'a> {
    pub(crate) key: &'a AtomicU64,
    pub(crate) state: &'a AtomicU64,
}

impl Slot<'_> {
    /// Goes from the state that was seen to the `next`, if there is one. `None` if the slot has changed hands
    /// and is no more that of `key`, or if the state has changed.
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

    /// [`Slot::step`] from a state that is not [`BUSY`].
    #[inline(always)]
    fn step_to(&self, key: u64, seen: u64, next: Option<u64>) -> Option<Result<u64, u64>> {
        let Some(next) = next else {
            let still_ours = self.key.load(Ordering::Acquire) == key;
            return still_ours.then_some(Err(seen));
        };
        self.state
            .compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire)
            .ok()?;
        self.exchanged(key, seen, next)
    }

    /// [`Slot::step_to`] after its exchange.
    #[inline(always)]
    fn exchanged(&self, key: u64, seen: u64, next: u64) -> Option<Result<u64, u64>> {
        match self.key.load(Ordering::Acquire) {
            found if found == key => return Some(Ok(next)),
            // It was exchanged before that, and is a part of what the bucket has left.
            CLOSED => return Some(Ok(next)),
            _ => {}
        }
        let _ = self
            .state
            .compare_exchange(next, seen, Ordering::AcqRel, Ordering::Acquire);
        None
    }

    /// Gives back `weight` nanoseconds that were charged at `taken` and left the state at `after`.
    ///
    /// If it is there still, nobody came between, and it goes back to where it was. Otherwise `now` is asked
    /// after each look at the state: every charge in that state was then made with a reading no later than this
    /// one, which is what [`Meter::give_back`] relies on. In a slot that is another's by now there is nothing left: it
    /// returns `false`.
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

    /// Gives a slot from one key to the next, with a state that is made from the one it has. `false` if it has changed
    /// hands meanwhile. Who calls this for a key is alone in it.
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

/// Why a charge was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untaken<S> {
    /// Refused by what was seen.
    Refused(S),
    /// Settings hold by now that the charge knows nothing of.
    Outdated,
}

/// The state of one limit for one scope. Starts full.
///
/// Aligned to two cache lines, so that neighbours never contend (adjacent lines are fetched in pairs).
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Bucket {
    state: AtomicU64,
    /// Of the settings in whose terms the state is told.
    version: AtomicU64,
    /// Whose balance it has taken over and who takes over its own. Most buckets have none, and all stay small.
    succession: Mutex<Option<Box<Succession>>>,
}

impl Bucket {
    pub(crate) fn full(version: Version) -> Self {
        Self {
            state: AtomicU64::new(0),
            version: AtomicU64::new(version),
            succession: Mutex::default(),
        }
    }

    #[inline(always)]
    pub(crate) fn load(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// The state in terms of `version`, without a change; or, as the error, in newer ones.
    #[inline]
    pub(crate) fn peek(&self, version: Version, history: &MeterHistory) -> Result<u64, u64> {
        let state = self.load();
        if state != BUSY && self.version.load(Ordering::Acquire) == version {
            return Ok(state);
        }
        self.read(version, history)
    }

    #[cold]
    fn read(&self, version: Version, history: &MeterHistory) -> Result<u64, u64> {
        // Nobody rewrites it meanwhile.
        history.with_lock(|steps| {
            let own = self.version.load(Ordering::Acquire);
            let state = self.load();
            match own.cmp(&version) {
                Less => Ok(steps.read(state, Some(own), version)),
                Equal => Ok(state),
                // A closed bucket is told by its heirs.
                Greater if state == BUSY => Err(0),
                Greater => Err(state),
            }
        })
    }

    /// Goes from a state to the `next`, if there is one, starting from a state that the caller has read.
    ///
    /// Returns the state it went to, or the one that has none after it.
    #[inline(always)]
    pub(crate) fn step(
        &self,
        seen: u64,
        version: Version,
        history: &MeterHistory,
        next: impl Fn(u64) -> Option<u64>,
    ) -> Result<u64, Untaken<u64>> {
        // Nearly always that is all.
        if seen != BUSY {
            if let Some(stepped) = self.slot().step_to(version, seen, next(seen)) {
                return stepped.map_err(Untaken::Refused);
            }
        }
        self.step_again(version, history, next)
    }

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

    /// Tells the state in terms of `version`, if it was told in older ones. Says how its version compares to that.
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
