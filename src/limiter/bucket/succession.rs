//! Succession: how a balance goes over to the buckets of other routes.
//!
//! A reload may move requests from one route to another, as when a route gets a key of its own. The bucket that was
//! charged for them is then *closed*: nothing more is charged to it, and what it held is its *estate*. Buckets that are
//! charged from then on are its *heirs*.
//!
//! - **What was used stays used.** An heir begins with the estate's balance, in units; an heir of several estates with
//!   the one in which most is used. Each request is thus refused whenever the bucket before would have refused it.
//! - **Slots** are counted, each once: an heir begins with all that are held in its estates and in those that they have
//!   inherited. A slot that comes back to a closed bucket comes back to all of its heirs.
//! - **Model tokens** that are settled after that are owed to all heirs, and come back to those that inherited from one
//!   estate alone: in the others they may not be those that count.
//!
//! # Invariants
//!
//! - **A charge counts once.** Whoever closes a bucket exchanges its state for [`BUSY`], and leaves it so. A charge that
//!   was exchanged before that is a part of the estate; any other is told that it is outdated, and made anew by other
//!   rules.
//! - **What comes back comes back once.** It changes the bucket before that is closed, or the estate and all heirs after
//!   that, under the lock under which heirs take estates over.
//! - **Nobody waits for a closed bucket.** A charge looks at most twice.
//!
//! Closed buckets are few and short-lived, so one lock for all of them is enough. It is taken by reloads and by what
//! comes back to a closed bucket, and before the lock of a history.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, Weak, atomic::fence},
};

use super::{BUSY, Bucket, Untaken};
use crate::{
    clock::Nanos,
    limit::meter::Meter,
    limiter::meter_history::{MeterHistory, MeterStep, Version},
    sync::{Mutex, MutexGuard, Ordering},
};

/// The version of a closed bucket, which no charge has. No key of a table is like it, but by a chance of one in 2^48.
pub(super) const CLOSED: Version = Version::MAX;

#[cfg(not(throttle_loom))]
static FAMILY: Mutex<()> = Mutex::new(());
#[cfg(throttle_loom)]
loom::lazy_static! {
    static ref FAMILY: Mutex<()> = Mutex::new(());
}

/// From whom a bucket has inherited, and who inherits from it.
#[derive(Debug, Default)]
pub(super) struct Succession {
    /// `None`: it is open.
    estate: Option<Estate>,
    heirs: Vec<Heir>,
    /// Closed buckets that something may still come back to.
    ancestors: Vec<Ancestor>,
    /// A route that has lost its key holds one reference to the bucket.
    is_remembered: bool,
}

/// The balance of a closed bucket.
#[derive(Debug)]
struct Estate {
    meter: Meter,
    state: u64,
    /// Slots that were taken from this bucket and are still held, without those that it has inherited.
    slots: u64,
}

#[derive(Debug, Clone)]
struct Heir {
    bucket: Weak<Bucket>,
    history: MeterHistory,
    /// Whether its balance holds what was used in the estate.
    is_sole: bool,
}

#[derive(Debug, Clone)]
struct Ancestor {
    bucket: Weak<Bucket>,
    is_sole: bool,
}

/// A change of a balance that comes after its bucket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LateCorrection {
    Owe,
    Refund,
}

/// An open bucket that inherits, and the terms of its limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Successor<'a> {
    pub(crate) bucket: &'a Arc<Bucket>,
    pub(crate) history: &'a MeterHistory,
    pub(crate) version: Version,
}

/// A bucket that others inherit from, and the terms of its limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) bucket: &'a Arc<Bucket>,
    pub(crate) history: &'a MeterHistory,
    /// Under the rules before. `None`: it was closed.
    pub(crate) meter: Option<Meter>,
}

impl Heir {
    fn is_open(&self) -> bool {
        let bucket = self.bucket.upgrade();
        bucket.is_some_and(|bucket| !bucket.is_closed())
    }
}

impl Estate {
    fn change(&mut self, late: LateCorrection, units: u64, now: Nanos) {
        match late {
            LateCorrection::Refund if self.meter.is_slots() => {
                self.slots = self.slots.saturating_sub(units);
            }
            LateCorrection::Refund => self.state = self.meter.refund(self.state, units),
            LateCorrection::Owe => self.state = self.meter.owe(self.state, now, units),
        }
    }
}

fn family() -> MutexGuard<'static, ()> {
    FAMILY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bucket {
    /// Tells whether nothing is charged to it any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.version.load(Ordering::Acquire) == CLOSED
    }

    /// Looks at the succession of a bucket, alone. Few buckets have one.
    fn succession<T>(&self, look: impl FnOnce(&mut Succession) -> T) -> T {
        // Each step leaves it whole.
        let succession = self.succession.lock();
        let mut succession = succession.unwrap_or_else(PoisonError::into_inner);
        look(succession.get_or_insert_default())
    }

    /// Closes it, if it is open and its limit has ever been.
    fn close(self: &Arc<Self>, history: &MeterHistory) {
        let Some((present, meter)) = history.present().filter(|_| !self.is_closed()) else {
            return;
        };
        let state = history.with_lock(|steps| {
            let own = self.version.load(Ordering::Acquire);
            let mut state = self.load();
            while let Err(actual) =
                (self.state).compare_exchange(state, BUSY, Ordering::AcqRel, Ordering::Acquire)
            {
                state = actual;
            }
            self.version.store(CLOSED, Ordering::Release);
            steps.read(state, Some(own), present)
        });
        let mut slots = 0;
        if meter.is_slots() {
            slots = meter.used(state, 0);
            for (ancestor, _) in self.ancestors() {
                slots = slots.saturating_sub(ancestor.held());
            }
        }
        let estate = Estate {
            meter,
            state,
            slots,
        };
        self.succession(|succession| succession.estate = Some(estate));
    }

    /// Closes it, with nobody to inherit from it yet.
    pub(crate) fn retire(self: &Arc<Self>, history: &MeterHistory) {
        let _family = family();
        self.close(history);
        self.succession(|succession| succession.is_remembered = true);
    }

    /// Slots that were taken from it and are still held, after it was closed.
    pub(super) fn held(&self) -> u64 {
        self.succession(|succession| succession.estate.as_ref().map_or(0, |estate| estate.slots))
    }

    /// Notes that the routes that have lost their keys give up their reference to the bucket next.
    pub(crate) fn forget(&self) {
        let mut succession = self.succession.lock();
        let succession = succession.as_mut().map(|succession| &mut **succession);
        if let Ok(Some(succession)) = succession {
            succession.is_remembered = false;
        }
    }

    /// Tells whether somebody may still give something back to a closed bucket, of which the caller holds one reference:
    /// a request that has had it while it was open.
    fn is_awaited(self: &Arc<Self>) -> bool {
        let count = Arc::strong_count(self);
        // Who has given it up since is not in the count, and has said so before.
        fence(Ordering::Acquire);
        let is_remembered = self.succession(|succession| succession.is_remembered);
        count > 1 + usize::from(is_remembered)
    }

    /// Closed buckets from which it has inherited.
    fn ancestors(&self) -> Vec<(Arc<Self>, bool)> {
        self.succession(|Succession { ancestors, .. }| {
            ancestors.retain(|ancestor| ancestor.bucket.strong_count() > 0);
            let alive = ancestors.iter();
            alive
                .filter_map(|ancestor| Some((ancestor.bucket.upgrade()?, ancestor.is_sole)))
                .collect()
        })
    }

    /// Returns the ancestors that a request still holds, and forgets all others, so that many heirs do not each look at
    /// them.
    fn awaited(&self) -> Vec<(Arc<Self>, bool)> {
        let mut awaited = self.ancestors();
        awaited.retain(|(bucket, _)| bucket.is_awaited());
        let ancestor = |(bucket, is_sole): &(Arc<Self>, bool)| Ancestor {
            bucket: Arc::downgrade(bucket),
            is_sole: *is_sole,
        };
        let ancestors = awaited.iter().map(ancestor).collect();
        self.succession(|succession| succession.ancestors = ancestors);
        awaited
    }

    /// Gives a change that comes too late for a closed bucket to its estate and its heirs. `false` if it is open.
    pub(crate) fn settle_late(&self, late: LateCorrection, units: u64, now: Nanos) -> bool {
        if !self.is_closed() {
            return false;
        }
        let _family = family();
        let heirs = self.succession(|Succession { estate, heirs, .. }| {
            if let Some(estate) = estate {
                estate.change(late, units, now);
            }
            heirs.clone()
        });
        for Heir {
            bucket,
            history,
            is_sole,
        } in heirs
        {
            let Some(bucket) = bucket.upgrade().filter(|bucket| !bucket.is_closed()) else {
                continue;
            };
            bucket.change(&history, |meter, state| match late {
                LateCorrection::Owe => Some(meter.owe(state, now, units)),
                LateCorrection::Refund if meter.is_slots() => Some(meter.refund(state, units)),
                LateCorrection::Refund => {
                    (is_sole && state > meter.at(now)).then(|| meter.refund(state, units))
                }
            });
        }
        true
    }

    /// What the heirs of a closed bucket would admit at once: the least of it. `None` if it is open.
    pub(crate) fn remaining_late(&self, now: Nanos) -> Option<u64> {
        if !self.is_closed() {
            return None;
        }
        let _family = family();
        let remaining = |heir: &Heir| {
            let bucket = heir.bucket.upgrade().filter(|bucket| !bucket.is_closed())?;
            let (version, meter) = heir.history.present()?;
            let (Ok(state) | Err(state)) = bucket.peek(version, &heir.history);
            Some(meter.balance(state, now).0)
        };
        let heirs = self.succession(|succession| succession.heirs.clone());
        Some(heirs.iter().filter_map(remaining).min().unwrap_or(0))
    }

    /// Tells whether a bucket that was to be closed has nothing left to inherit, and will have nothing. One of a limit
    /// that was never open was not closed, and has nothing.
    pub(crate) fn is_spent(self: &Arc<Self>, now: Nanos) -> bool {
        let _family = family();
        let ancestors = self.ancestors();
        let nothing = self.succession(|succession| {
            succession.estate.as_ref().is_none_or(|estate| {
                if estate.meter.is_slots() {
                    estate.slots == 0 && ancestors.iter().all(|(ancestor, _)| ancestor.held() == 0)
                } else {
                    estate.meter.used(estate.state, now) == 0
                }
            })
        });
        // Who still has it may owe more than has come back with time.
        nothing
            && !Arc::clone(self).is_awaited()
            && !ancestors.iter().any(|(ancestor, _)| ancestor.is_awaited())
    }

    /// Exchanges the state of an open bucket, in the terms that hold.
    fn change(&self, history: &MeterHistory, next: impl Fn(&Meter, u64) -> Option<u64>) {
        while let Some((version, meter)) = history.present() {
            let next = |state| next(&meter, state);
            let changed = self.step(self.load(), version, history, next);
            if changed != Err(Untaken::Outdated) || self.is_closed() {
                return;
            }
        }
    }
}

impl Successor<'_> {
    /// Closes buckets and takes over what they have left. Each comes with the terms in which it was told before, if it
    /// was open.
    ///
    /// A bucket that is charged already `adds` that to what was used, but for buckets that it has inherited from before.
    pub(crate) fn inherit(&self, sources: &[Source<'_>], now: Nanos, adds: bool) {
        let _family = family();
        let mut closed: Vec<&Arc<Bucket>> = Vec::new();
        let mut seen = HashSet::new();
        for Source {
            bucket, history, ..
        } in sources
        {
            bucket.close(history);
            if bucket.is_closed() && seen.insert(Arc::as_ptr(bucket)) {
                closed.push(bucket);
            }
        }
        let known = self.bucket.ancestors();
        let known = known.iter().map(|(known, _)| Arc::as_ptr(known));
        let mut known: HashSet<*const Bucket> = known.collect();
        if adds {
            closed.retain(|bucket| !known.contains(&Arc::as_ptr(bucket)));
        }
        if closed.is_empty() {
            return;
        }
        // In units, by other terms.
        let carried = |meter: &Meter| {
            let inherited = closed.iter().filter_map(|bucket| {
                let carry = |estate: &Estate| meter.carry(&estate.meter, estate.state, now);
                bucket.succession(|succession| succession.estate.as_ref().map(carry))
            });
            inherited.max()
        };
        if self.history.present().is_none() {
            // Closed by a limit of zero. Until it is opened, what was used comes back as it did before, by the terms in
            // which that takes longest.
            let open = sources.iter().filter(|source| source.bucket.is_closed());
            let meters = open.filter_map(|source| {
                let told = |estate: &Estate| estate.meter;
                let told = || {
                    let look = |succession: &mut Succession| succession.estate.as_ref().map(told);
                    source.bucket.succession(look)
                };
                source.meter.or_else(told)
            });
            let Some(meter) = meters.max_by_key(|meter| carried(meter)) else {
                return;
            };
            self.history.push(MeterStep {
                version: self.version,
                since: now,
                meter,
            });
        }
        let mut ancestors: Vec<(Arc<Bucket>, bool)> = Vec::new();
        let is_sole = adds || closed.len() == 1;
        let direct = closed.iter().map(|bucket| (Arc::clone(bucket), true));
        let earlier = closed.iter().flat_map(|bucket| bucket.awaited());
        for (bucket, was_sole) in direct.chain(earlier) {
            if known.insert(Arc::as_ptr(&bucket)) {
                ancestors.push((bucket, is_sole && was_sole));
            }
        }
        let slots: u64 = ancestors.iter().map(|(bucket, _)| bucket.held()).sum();
        self.bucket.change(self.history, |meter, state| {
            if meter.is_slots() {
                return (slots > 0).then(|| state.max(meter.at(now)).saturating_add(slots));
            }
            let inherited = carried(meter).filter(|inherited| *inherited > 0)?;
            Some(match adds && state > meter.at(now) {
                true => meter.added(state, inherited, now),
                false => state.max(inherited),
            })
        });
        for (bucket, is_sole) in ancestors {
            let heir = Heir {
                bucket: Arc::downgrade(self.bucket),
                history: self.history.clone(),
                is_sole,
            };
            bucket.succession(|Succession { heirs, .. }| {
                // Those that are closed by now inherit nothing more.
                if heirs.len() == heirs.capacity() {
                    heirs.retain(Heir::is_open);
                }
                heirs.push(heir);
            });
            let ancestor = Ancestor {
                bucket: Arc::downgrade(&bucket),
                is_sole,
            };
            (self.bucket).succession(|succession| succession.ancestors.push(ancestor));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::limiter::{balance::BalanceRef, meter_history::MeterTerms, readings::BucketReading};

    #[test]
    fn a_slot_that_comes_back_while_its_bucket_is_being_closed_comes_back() {
        let version = 3;
        let meter = Meter::of_slots(2).expect("two");
        let history = MeterHistory::new(Some(MeterStep {
            version,
            since: 0,
            meter,
        }));
        let bucket = Arc::new(Bucket::full(version));
        let one = meter.take(0, 0, 1).expect("free");
        thread::scope(|scope| {
            let (place, gives_back) = (
                BalanceRef::Bucket(
                    &bucket,
                    MeterTerms {
                        version,
                        history: &history,
                    },
                ),
                (BucketReading::own(one), &meter),
            );
            let family = family();
            // As a bucket is closed, with a look at the others after the first step.
            history.with_lock(|_| {
                bucket.state.store(BUSY, Ordering::Release);
                let thread = scope.spawn(move || {
                    let (seen, meter) = gives_back;
                    place.give_back(seen, meter, 0, 1, || 0);
                });
                for _ in 0..1_000 {
                    if thread.is_finished() {
                        break;
                    }
                    thread::yield_now();
                }
                bucket.version.store(CLOSED, Ordering::Release);
            });
            let (state, slots) = (one, 1);
            let estate = Estate {
                meter,
                state,
                slots,
            };
            bucket.succession(|succession| succession.estate = Some(estate));
            drop(family);
        });
        assert_eq!(bucket.held(), 0);
    }
}
