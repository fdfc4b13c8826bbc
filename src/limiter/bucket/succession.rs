//! Succession: moves a balance to the buckets of other routes.
//!
//! A reload may move requests from one route to another, for example when a route gets a key of its own. The bucket
//! that was charged for them is then *closed*: nothing more is charged to it, and its balance is its *estate*. The
//! buckets charged from then on are its *heirs*; it is their *ancestor*. `engine/reload` decides which routes inherit
//! from which, and pairs their limits.
//!
//! # What is inherited
//!
//! - **Used units stay used.** An heir begins with the estate's balance, in units; an heir of several estates with the
//!   largest usage of them. Each request is thus refused whenever the former bucket would have refused it.
//! - **Slots** are counted once each: an heir begins with all that are held in its estates and in those that they have
//!   inherited. A slot that comes back to a closed bucket comes back to all of its heirs.
//! - **Model tokens** settled after that are owed to all heirs. They come back only to heirs that inherited from a
//!   single estate in use, since in others they may not be the ones that count. At most the inherited tokens and those
//!   owed since come back: all others have come back with time.
//!
//! # The life of a bucket
//!
//! ```text
//! open ── Successor::inherit by another, or retire ──▶ closed ── nobody has it any more ──▶ dropped
//!   charged by requests                                  state BUSY, version CLOSED
//!                                                        late corrections go to its estate and its heirs
//! ```
//!
//! A request that was admitted on a bucket holds it (through its limit set) until it ends, closed or not, and corrects
//! its charge there; [`Bucket::settle_late`] forwards the correction. A bucket that is closed without heirs, because
//! its route has lost its key, keeps its estate for the key that may come back, until nothing is left in it
//! ([`Bucket::is_spent`]).
//!
//! # Invariants
//!
//! - A closed bucket is never opened again, and never charged: its state is `BUSY` and its version `CLOSED` for good.
//! - **A charge counts once.** Closing a bucket exchanges its state for [`BUSY`] for good. A charge exchanged before
//!   that is part of the estate; any other is reported as outdated, and repeated under the new rules.
//! - **Units come back once.** They change the bucket before it is closed, or the estate and all heirs after that,
//!   under the lock under which heirs take estates over.
//! - **No charge waits for a closed bucket.** It looks at most twice.
//! - An heir that has met an ancestor does not inherit from it again.
//! - Heirs and ancestors are referred to weakly. Neither keeps the other alive, and a dropped heir is passed over.
//! - Rounding errs against the caller, and so does an estate with several heirs: each begins with all of it.
//!
//! # Locks
//!
//! Closed buckets are few and short-lived, so one lock for all of them is enough: [`family`], taken by reloads and by
//! units that come back to a closed bucket, and never by a charge. Lock order: the family's, then one bucket's
//! `succession`, then one history. No two of a kind are held at once.
//!
//! # Memory ordering
//!
//! The version `CLOSED` is stored with release after the state was exchanged for `BUSY`, and loaded with acquire: a
//! thread that sees it and then takes the family's lock finds the estate. [`Bucket::is_awaited`] reads a reference
//! count, which std does without ordering; the fence after it pairs with the release of each dropped reference, so that
//! earlier writes of its holder (a late correction, [`Bucket::forget`]) are seen.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, Weak, atomic::fence},
};

use super::{BUSY, Bucket, Untaken};
use crate::{
    clock::Nanos,
    limit::meter::Meter,
    limiter::meter_history::{MeterHistory, MeterStep, MeterSteps, Version},
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};

/// The version of a closed bucket, which no charge has. No key of the table is like it, but by a chance of one in 2^47.
pub(super) const CLOSED: Version = Version::MAX;

/// The lock of all successions in the process; see the head of this file.
#[cfg(not(throttle_loom))]
static FAMILY: Mutex<()> = Mutex::new(());
#[cfg(throttle_loom)]
loom::lazy_static! {
    static ref FAMILY: Mutex<()> = Mutex::new(());
}

/// A bucket's relations: the estate it has left, its heirs and its ancestors.
#[derive(Debug, Default)]
pub(super) struct Succession {
    /// `None` while it is open, and of a limit that was never open: there is nothing to leave.
    estate: Option<Estate>,
    /// Buckets that have inherited from this one. Those that nobody has any more are dropped when the list grows.
    heirs: Vec<Heir>,
    /// Closed buckets from which this one has inherited, as far as something may still come back to them.
    ancestors: Vec<Ancestor>,
    /// A route that has lost its key holds one reference to the bucket, which is no request's.
    is_remembered: bool,
}

/// The balance of a closed bucket.
#[derive(Debug)]
struct Estate {
    history: MeterHistory,
    /// The version of the settings in whose terms `state` is, and their meter: those that held when it was closed or,
    /// if its limit goes on elsewhere, those that hold by now, as far as [`Estate::follow`] was called.
    version: Version,
    meter: Meter,
    /// The units in use, in nanoseconds of state. For slots it is not kept up: `slots` is.
    state: u64,
    /// Slots that were taken from this bucket and are still held, without those that it has inherited.
    slots: u64,
}

/// A bucket that has inherited, as the estate knows it.
#[derive(Debug, Clone)]
struct Heir {
    bucket: Weak<Bucket>,
    terms: HeirTerms,
    share: Share,
}

/// The terms of an heir's limit, under the rules by which it has inherited. These may be yet to come: then the history
/// does not have them.
#[derive(Debug, Clone)]
struct HeirTerms {
    history: MeterHistory,
    version: Version,
    /// `None` if the limit is closed.
    meter: Option<Meter>,
}

/// The units that may still come back from an estate to an heir. Clones share them. Changed under the family's lock.
#[derive(Debug, Clone)]
struct Share {
    /// Those of this estate that were inherited, and those that were owed late since. Of several estates in use none
    /// was inherited so: all that was used in one is in the heir's balance only if it was the largest.
    own: Arc<AtomicU64>,
    /// Those of all that the heir has inherited together with it: of the estate and of its ancestors.
    all: Arc<AtomicU64>,
}

/// A closed bucket, as its heir knows it.
#[derive(Debug, Clone)]
struct Ancestor {
    bucket: Weak<Bucket>,
    share: Share,
}

/// A change of a balance that comes after its bucket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LateCorrection {
    /// Units were used that had not been asked for.
    Owe,
    /// Units come back.
    Refund,
}

/// A bucket that inherits, and the terms of its limit under the rules to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Successor<'a> {
    pub(crate) bucket: &'a Arc<Bucket>,
    pub(crate) history: &'a MeterHistory,
    pub(crate) version: Version,
    /// `None` if the limit is closed.
    pub(crate) meter: Option<Meter>,
}

/// A bucket that others inherit from, and the terms of its limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) bucket: &'a Arc<Bucket>,
    pub(crate) history: &'a MeterHistory,
    /// The meter under the rules before. `None` if the limit was closed by them.
    pub(crate) meter: Option<Meter>,
}

impl Estate {
    /// Tells the state in the present terms of its history, in which nobody charges it.
    fn follow(&mut self) {
        if let Some((version, meter)) = self.history.present() {
            if self.version != version {
                let read =
                    |steps: &mut MeterSteps| steps.read(self.state, Some(self.version), version);
                self.state = self.history.with_lock(read);
                (self.version, self.meter) = (version, meter);
            }
        }
    }

    /// Applies a late correction to what was left, in the present terms.
    fn change(&mut self, late: LateCorrection, units: u64, now: Nanos) {
        self.follow();
        match late {
            LateCorrection::Refund if self.meter.is_slots() => {
                self.slots = self.slots.saturating_sub(units);
            }
            LateCorrection::Refund => self.state = self.meter.refund(self.state, units),
            LateCorrection::Owe => self.state = self.meter.owe(self.state, now, units),
        }
    }
}

impl HeirTerms {
    /// Returns the meter of a version, in whose terms the heir's bucket is.
    fn meter(&self, version: Version) -> Option<Meter> {
        let own = self.meter.filter(|_| version == self.version);
        own.or_else(|| self.history.with_lock(|steps| steps.meter(version)))
    }
}

impl Share {
    /// The share in an inheritance of which `all` may come back.
    fn new(own: u64, all: &Arc<AtomicU64>) -> Self {
        Self {
            own: Arc::new(AtomicU64::new(own)),
            all: Arc::clone(all),
        }
    }

    /// Returns the units that may still come back.
    fn left(&self) -> u64 {
        let [own, all] = [&self.own, &self.all].map(|units| units.load(Ordering::Relaxed));
        own.min(all)
    }

    /// Adds `units` that are owed late: they may come back as those that were inherited.
    fn add(&self, units: u64) {
        for left in [&self.own, &self.all] {
            let units = left.load(Ordering::Relaxed).saturating_add(units);
            left.store(units, Ordering::Relaxed);
        }
    }

    /// Takes `units` that come back, or as many as may.
    fn take(&self, units: u64) -> u64 {
        let units = units.min(self.left());
        for left in [&self.own, &self.all] {
            left.store(left.load(Ordering::Relaxed) - units, Ordering::Relaxed);
        }
        units
    }
}

/// Locks all successions. A panic cannot leave one half done that others would misread, so poison is passed over.
fn family() -> MutexGuard<'static, ()> {
    FAMILY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bucket {
    /// Returns whether nothing is charged to it any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.version.load(Ordering::Acquire) == CLOSED
    }

    /// Works on the succession of a bucket while nobody else does. Makes one if there is none. Not reentrant, and
    /// `look` looks at no other bucket's.
    fn succession<T>(&self, look: impl FnOnce(&mut Succession) -> T) -> T {
        // Each step leaves it whole.
        let succession = self.succession.lock();
        let mut succession = succession.unwrap_or_else(PoisonError::into_inner);
        look(succession.get_or_insert_default())
    }

    /// Closes the bucket, if it is open and its limit has ever been, and notes its estate in the present terms.
    ///
    /// The caller has the family's lock. Between the exchange for `BUSY` and the estate, charges find nothing and
    /// wait, or are decided anew; corrections wait for the family's lock.
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
            history: history.clone(),
            version: present,
            meter,
            state,
            slots,
        };
        self.succession(|succession| succession.estate = Some(estate));
    }

    /// Closes the bucket of a route that has lost its key, with nobody to inherit from it yet, if it is open.
    pub(crate) fn retire(self: &Arc<Self>, history: &MeterHistory) {
        let _family = family();
        self.close(history);
        self.succession(|succession| succession.is_remembered = true);
    }

    /// Tells what a closed bucket has left in the terms that hold by now, as the balances are told that are open.
    pub(crate) fn follow(&self) {
        let _family = family();
        self.with_estate(Estate::follow);
    }

    /// Works on what a closed bucket has left. Does nothing if it is open.
    fn with_estate<T>(&self, work: impl FnOnce(&mut Estate) -> T) -> Option<T> {
        self.succession(|Succession { estate, .. }| estate.as_mut().map(work))
    }

    /// Forgets what a closed bucket has left, since its limit is gone from a scope that goes on. Slots come back by
    /// themselves, and those that have inherited them count on that.
    pub(crate) fn lapse(&self) {
        let _family = family();
        self.succession(|Succession { estate, .. }| {
            *estate = estate.take().filter(|estate| estate.meter.is_slots());
        });
    }

    /// Returns the slots that were taken from it and are still held, once it is closed; zero before.
    pub(super) fn held(&self) -> u64 {
        self.with_estate(|estate| estate.slots).unwrap_or(0)
    }

    /// Notes that the routes that have lost their keys give up their reference to the bucket next: called before that
    /// reference is dropped, so that [`Bucket::is_awaited`] never takes it for a request's.
    pub(crate) fn forget(&self) {
        let mut succession = self.succession.lock();
        let succession = succession.as_mut().map(|succession| &mut **succession);
        if let Ok(Some(succession)) = succession {
            succession.is_remembered = false;
        }
    }

    /// Returns whether somebody may still give something back to a closed bucket, of which the caller holds one
    /// reference: a request that has had it while it was open.
    fn is_awaited(self: &Arc<Self>) -> bool {
        let count = Arc::strong_count(self);
        // A holder that has given it up is not in the count, and what it did before that is seen from here.
        fence(Ordering::Acquire);
        let is_remembered = self.succession(|succession| succession.is_remembered);
        count > 1 + usize::from(is_remembered)
    }

    /// Returns the closed buckets from which it has inherited and that somebody still has, each with what may come
    /// back; forgets the others.
    fn ancestors(&self) -> Vec<(Arc<Self>, Share)> {
        self.succession(|Succession { ancestors, .. }| {
            ancestors.retain(|ancestor| ancestor.bucket.strong_count() > 0);
            let alive = ancestors.iter();
            alive
                .filter_map(|ancestor| Some((ancestor.bucket.upgrade()?, ancestor.share.clone())))
                .collect()
        })
    }

    /// Returns the ancestors that a request still holds, and forgets all others, so that many heirs do not each look at
    /// them.
    fn awaited(&self) -> Vec<(Arc<Self>, Share)> {
        let mut awaited = self.ancestors();
        awaited.retain(|(bucket, _)| bucket.is_awaited());
        let ancestor = |(bucket, share): &(Arc<Self>, Share)| Ancestor {
            bucket: Arc::downgrade(bucket),
            share: share.clone(),
        };
        let ancestors = awaited.iter().map(ancestor).collect();
        self.succession(|succession| succession.ancestors = ancestors);
        awaited
    }

    /// Passes a correction that comes too late for a closed bucket to its estate and its heirs. Returns `false`,
    /// with nothing changed, if the bucket is open.
    ///
    /// A debt is owed by all heirs, those that are closed among them, and a slot comes back to all that are open.
    /// Tokens come back to sole heirs that have not refilled, as many as they have inherited, and owed late since.
    /// `units` are units in each heir's own terms.
    pub(crate) fn settle_late(&self, late: LateCorrection, units: u64, now: Nanos) -> bool {
        if !self.is_closed() {
            return false;
        }
        let _family = family();
        self.with_estate(|estate| estate.change(late, units, now));
        let heirs = self.succession(|succession| succession.heirs.clone());
        for Heir {
            bucket,
            terms,
            share,
        } in heirs
        {
            let Some(bucket) = bucket.upgrade() else {
                continue;
            };
            if late == LateCorrection::Owe {
                share.add(units);
            }
            if bucket.is_closed() {
                // The route may have lost its key, and its heirs may be yet to come.
                if late == LateCorrection::Owe {
                    bucket.with_estate(|estate| estate.change(late, units, now));
                }
                continue;
            }
            // Inherited slots are counted in their estates.
            let refundable = share.take(match late {
                LateCorrection::Owe => 0,
                LateCorrection::Refund => units,
            });
            bucket.change(&terms, |meter, state| match late {
                LateCorrection::Owe => Some(meter.owe(state, now, units)),
                LateCorrection::Refund if meter.is_slots() => Some(meter.refund(state, units)),
                LateCorrection::Refund => {
                    (state > meter.at(now)).then(|| meter.refund(state, refundable))
                }
            });
        }
        true
    }

    /// Returns the units that the heirs of a closed bucket would admit at once: the least among them, and zero if
    /// there are none. `None` if the bucket is open.
    pub(crate) fn remaining_late(&self, now: Nanos) -> Option<u64> {
        if !self.is_closed() {
            return None;
        }
        let _family = family();
        let remaining = |heir: &Heir| {
            let bucket = heir.bucket.upgrade().filter(|bucket| !bucket.is_closed())?;
            let (version, meter) = bucket.terms(&heir.terms)?;
            let (Ok(state) | Err(state)) = bucket.peek(version, &heir.terms.history);
            Some(meter.balance(state, now).0)
        };
        let heirs = self.succession(|succession| succession.heirs.clone());
        Some(heirs.iter().filter_map(remaining).min().unwrap_or(0))
    }

    /// Returns whether a retired bucket has nothing left to inherit, and will have nothing: all has come back at `now`,
    /// and no request holds the bucket or an ancestor of it. True of a limit that was never open.
    ///
    /// The caller holds one reference, beside that of the lost key.
    pub(crate) fn is_spent(self: &Arc<Self>, now: Nanos) -> bool {
        let _family = family();
        let ancestors = self.ancestors();
        let nothing = self.with_estate(|estate| {
            estate.follow();
            match estate.meter.is_slots() {
                true => estate.slots == 0,
                false => estate.meter.used(estate.state, now) == 0,
            }
        });
        let nothing =
            nothing.unwrap_or(true) && ancestors.iter().all(|(ancestor, _)| ancestor.held() == 0);
        // A request that still has it may owe more than has come back with time.
        nothing
            && !Arc::clone(self).is_awaited()
            && !ancestors.iter().any(|(ancestor, _)| ancestor.is_awaited())
    }

    /// Exchanges the state of an open bucket for the `next`, in whatever terms the bucket is: these may be of rules
    /// that a reload is about to replace, by which requests are decided until then, or of the rules to come. Does
    /// nothing if it is closed, or if its limit was never open.
    fn change(&self, terms: &HeirTerms, next: impl Fn(&Meter, u64) -> Option<u64>) {
        while let Some((version, meter)) = self.terms(terms) {
            let next = |state| next(&meter, state);
            let changed = self.step(self.load(), version, &terms.history, next);
            if changed != Err(Untaken::Outdated) {
                return;
            }
        }
    }

    /// Returns the version in whose terms the bucket is, and the meter of these: in the present terms, if those are not
    /// remembered. `None` if the bucket is closed, or its limit was never open.
    fn terms(&self, terms: &HeirTerms) -> Option<(Version, Meter)> {
        let version = self.version.load(Ordering::Acquire);
        if version == CLOSED {
            return None;
        }
        let own = terms.meter(version).map(|meter| (version, meter));
        own.or_else(|| {
            terms
                .history
                .present()
                .filter(|(present, _)| *present > version)
        })
    }
}

impl Successor<'_> {
    /// Closes the sources and takes over what they have left, in units of this bucket's own meter.
    ///
    /// `clock` is read when they are closed, and so after the last charge on any of them: by an earlier reading a
    /// source would seem to owe units for the time that has passed since.
    ///
    /// A bucket that `adds` is charged already: the largest estate comes on top of what it has used, apart from
    /// estates it has inherited before. Otherwise it has what is larger, its own or the largest estate. Slots always
    /// add up, each counted once.
    ///
    /// A successor whose limit is closed is given a meter by the way, the one in which what was used takes longest to
    /// come back, so that it does not stand still until the limit is opened.
    ///
    /// The caller is a reload, or a request that enters a route that nobody declared. The successor is charged by
    /// nobody yet, unless it `adds`.
    pub(crate) fn inherit(
        &self,
        sources: &[Source<'_>],
        clock: impl FnOnce() -> Nanos,
        adds: bool,
    ) {
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
        let now = clock();
        // In units, by other terms.
        let carried = |meter: &Meter| {
            let inherited = closed.iter().filter_map(|bucket| {
                bucket.with_estate(|estate| {
                    estate.follow();
                    meter.carry(&estate.meter, estate.state, now)
                })
            });
            inherited.max()
        };
        if self.meter.is_none() && self.history.present().is_none() {
            // Closed by a limit of zero. Until it is opened, what was used comes back as it did before, by the terms in
            // which that takes longest.
            let open = sources.iter().filter(|source| source.bucket.is_closed());
            let meters = open.filter_map(|source| {
                let told = || source.bucket.with_estate(|estate| estate.meter);
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
        let terms = HeirTerms {
            history: self.history.clone(),
            version: self.version,
            meter: self.meter,
        };
        // A part of a unit comes back as one: that is less than the bound leaves room for.
        let units = |(_, meter): (Version, Meter)| Some(meter.used(carried(&meter)?, now));
        let all = Arc::new(AtomicU64::new(
            self.bucket.terms(&terms).and_then(units).unwrap_or(0),
        ));
        // Units of the only estate in use are all in the balance of the heir. From any other nothing comes back.
        let is_in_use = |bucket: &&&Arc<Bucket>| {
            let used = bucket.with_estate(|estate| {
                estate.follow();
                estate.meter.used(estate.state, now)
            });
            adds || used.is_some_and(|used| used > 0)
        };
        let in_use: HashSet<_> = (closed.iter().filter(is_in_use))
            .map(|bucket| Arc::as_ptr(bucket))
            .collect();
        let is_sole = adds || in_use.len() <= 1;
        let may_come_back =
            |source: &Arc<Bucket>, units| match in_use.contains(&Arc::as_ptr(source)) {
                true if is_sole => units,
                _ => 0,
            };
        let mut ancestors: Vec<(Arc<Bucket>, Share)> = Vec::new();
        let direct = closed
            .iter()
            .map(|bucket| (Arc::clone(bucket), may_come_back(bucket, u64::MAX)));
        let earlier = closed.iter().flat_map(|source| {
            let awaited = source.awaited().into_iter();
            awaited.map(move |(bucket, share)| (bucket, may_come_back(source, share.left())))
        });
        for (bucket, own) in direct.chain(earlier) {
            if known.insert(Arc::as_ptr(&bucket)) {
                ancestors.push((bucket, Share::new(own, &all)));
            }
        }
        let slots: u64 = ancestors.iter().map(|(bucket, _)| bucket.held()).sum();
        self.bucket.change(&terms, |meter, state| {
            if meter.is_slots() {
                return (slots > 0).then(|| state.max(meter.at(now)).saturating_add(slots));
            }
            let inherited = carried(meter).filter(|inherited| *inherited > 0)?;
            Some(match adds && state > meter.at(now) {
                true => meter.added(state, inherited, now),
                false => state.max(inherited),
            })
        });
        for (bucket, share) in ancestors {
            let heir = Heir {
                bucket: Arc::downgrade(self.bucket),
                terms: terms.clone(),
                share: share.clone(),
            };
            bucket.succession(|Succession { heirs, .. }| {
                // Also those that are closed by now have to hear of debts, for the heirs that they may have yet.
                if heirs.len() == heirs.capacity() {
                    heirs.retain(|heir| heir.bucket.strong_count() > 0);
                }
                heirs.push(heir);
            });
            let ancestor = Ancestor {
                bucket: Arc::downgrade(&bucket),
                share,
            };
            (self.bucket).succession(|succession| succession.ancestors.push(ancestor));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::{
        limit::rate::Rate,
        limiter::{balance::BalanceRef, meter_history::MeterTerms, readings::BucketReading},
    };

    /// Buckets of which each inherits from the one before, at its moment, and from which units come back.
    #[test]
    fn no_more_comes_back_to_an_heir_than_was_inherited_on_the_way() {
        const BURST: u64 = 9;
        let meter = Meter::of_rate(&Rate::new(1, Duration::from_nanos(10)).burst(BURST));
        let meter = meter.expect("open");
        let version = 1;
        // (units that each bucket is charged with itself, when it goes over; which of them gives back how many, and
        // what is left in the last one after that; at the last moment)
        type Case = (&'static [(u64, Nanos)], &'static [(usize, u64, u64)]);
        let table: [Case; 5] = [
            (&[(5, 10)], &[(0, 3, 8), (0, 3, 9)]),
            (&[(5, 30)], &[(0, 1, 8), (0, 4, 9), (0, 1, 9)]),
            // Nothing of the first is in the last.
            (&[(5, 50), (4, 60)], &[(0, 5, 6), (1, 2, 8), (1, 9, 9)]),
            // Three of the first, and one of these in the last with all of the second.
            (&[(5, 20), (4, 20)], &[(0, 1, 3), (0, 9, 5), (1, 9, 9)]),
            (&[(5, 20), (0, 40), (6, 40)], &[(0, 9, 3), (2, 2, 5)]),
        ];
        for (buckets, corrections) in table {
            let what = format!("{buckets:?}, {corrections:?}");
            let bucket = || {
                let history = MeterHistory::new(Some(MeterStep {
                    version,
                    since: 0,
                    meter,
                }));
                (Arc::new(Bucket::full(version)), history)
            };
            let mut all = vec![bucket()];
            let mut now = 0;
            for (charged, moment) in buckets {
                let (last, history) = &all[all.len() - 1];
                let owed = |state| Some(meter.owe(state, now, *charged));
                (last.step(last.load(), version, history, owed)).expect("open");
                now = *moment;
                let (next, next_history) = bucket();
                let heir = Successor {
                    bucket: &next,
                    history: &next_history,
                    version,
                    meter: Some(meter),
                };
                let source = Source {
                    bucket: last,
                    history,
                    meter: Some(meter),
                };
                heir.inherit(&[source], || now, false);
                all.push((next, next_history));
            }
            let (last, _) = &all[all.len() - 1];
            for (from, units, left) in corrections {
                assert!(
                    all[*from]
                        .0
                        .settle_late(LateCorrection::Refund, *units, now)
                );
                let what = format!("{what}: {units} of {from}");
                assert_eq!(meter.balance(last.load(), now).0, *left, "{what}");
            }
        }
    }

    /// Requests are charged on a source until it is closed. By a reading of before, the last of them seemed to owe all
    /// that had come back meanwhile, in units of an heir that may be a thousand times as slow.
    #[test]
    fn an_heir_takes_over_no_time_that_has_passed_before_its_source_was_closed() {
        let (version, time) = (1, AtomicU64::new(0));
        let meter = |interval| {
            let rate = Rate::new(1, Duration::from_nanos(interval)).burst(3);
            Meter::of_rate(&rate).expect("open")
        };
        let bucket = |meter| {
            let (version, since) = (version, 0);
            let history = MeterHistory::new(Some(MeterStep {
                version,
                since,
                meter,
            }));
            (Arc::new(Bucket::full(version)), history)
        };
        let (fast, slow) = (meter(10), meter(10_000));
        let ((source, source_history), (heir, history)) = (bucket(fast), bucket(slow));
        // Once in ten nanoseconds, to the last moment.
        let charge = || {
            let now = time.fetch_add(10, Ordering::Relaxed);
            let next = |state| fast.take(state, now, 1).ok();
            source.step(source.load(), version, &source_history, next)
        };
        for _ in 0..100 {
            charge().expect("one has come back");
        }
        let successor = Successor {
            bucket: &heir,
            history: &history,
            version,
            meter: Some(slow),
        };
        let from = Source {
            bucket: &source,
            history: &source_history,
            meter: Some(fast),
        };
        let clock = || {
            charge().expect_err("nothing is charged any more");
            time.load(Ordering::Relaxed)
        };
        successor.inherit(&[from], clock, false);
        let now = time.load(Ordering::Relaxed);
        assert!(slow.used(heir.load(), now) <= 1, "one was in use");
    }

    /// The terms of a limit change after its bucket was closed, and before the reload has told the estate in them.
    #[test]
    fn a_debt_of_an_estate_is_owed_in_the_present_terms() {
        let meter = |interval| {
            let rate = Rate::new(1, Duration::from_nanos(interval)).burst(9);
            Meter::of_rate(&rate).expect("open")
        };
        let step = |version, since, interval| MeterStep {
            version,
            since,
            meter: meter(interval),
        };
        let history = MeterHistory::new(Some(step(1, 0, 10)));
        let closed = Arc::new(Bucket::full(1));
        closed.retire(&history);
        history.push(step(2, 100, 1_000));
        let now = 1_000;
        assert!(closed.settle_late(LateCorrection::Owe, 1, now));
        let heir = Arc::new(Bucket::full(2));
        let successor = Successor {
            bucket: &heir,
            history: &history,
            version: 2,
            meter: Some(meter(1_000)),
        };
        let source = Source {
            bucket: &closed,
            history: &history,
            meter: Some(meter(10)),
        };
        successor.inherit(&[source], || now, false);
        assert_eq!(meter(1_000).used(heir.load(), now), 1);
    }

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
            let (balance, gives_back) = (
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
                    balance.give_back(seen, meter, 0, 1, || 0);
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
                history: history.clone(),
                version,
                meter,
                state,
                slots,
            };
            bucket.succession(|succession| succession.estate = Some(estate));
            drop(family);
        });
        assert_eq!(bucket.held(), 0);
    }

    #[test]
    fn a_closed_bucket_tells_what_its_heirs_admit_and_when_nothing_is_left_of_it() {
        let meter = Meter::of_rate(&Rate::new(1, Duration::from_nanos(10)).burst(9));
        let meter = meter.expect("open");
        let version = 1;
        let since = 0;
        let bucket = || {
            let step = MeterStep {
                version,
                since,
                meter,
            };
            (
                Arc::new(Bucket::full(version)),
                MeterHistory::new(Some(step)),
            )
        };
        let [(first, of_first), (second, of_second), (third, of_third)] =
            [bucket(), bucket(), bucket()];
        let inherit =
            |heir: (&Arc<Bucket>, &MeterHistory), from: (&Arc<Bucket>, &MeterHistory), now| {
                let heir = Successor {
                    bucket: heir.0,
                    history: heir.1,
                    version,
                    meter: Some(meter),
                };
                let source = Source {
                    bucket: from.0,
                    history: from.1,
                    meter: Some(meter),
                };
                heir.inherit(&[source], || now, false);
            };
        let owed = |state| Some(meter.owe(state, 0, 5));
        (first.step(first.load(), version, &of_first, owed)).expect("open");
        assert_eq!(first.remaining_late(0), None, "it is open");
        first.retire(&of_first);
        inherit((&second, &of_second), (&first, &of_first), 10);
        assert_eq!(first.remaining_late(10), Some(5));
        assert_eq!(first.remaining_late(30), Some(7));
        assert!(!first.is_spent(40), "one unit is in use");
        assert!(first.is_spent(50));
        let request = Arc::clone(&first);
        assert!(!first.is_spent(50), "a request has it");
        inherit((&third, &of_third), (&second, &of_second), 30);
        drop(request);
        assert_eq!(
            first.remaining_late(30),
            Some(7),
            "of the heir that is open"
        );
        assert_eq!(second.remaining_late(30), Some(7));
        drop(third);
        assert_eq!(
            first.remaining_late(30),
            Some(0),
            "nobody is there to admit"
        );
        assert!(first.is_spent(50));
    }
}
