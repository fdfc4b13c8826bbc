//! Leases: units of limits that this process takes beforehand, and spends without a call to the store.
//!
//! # Why leases add nothing to a limit
//!
//! The state of a rate's bucket is the moment at which it will be full, and each charge moves that moment by the time
//! that pays for it. A lease of three units is thus a span of time at the end of the bucket's debt at that time, and
//! each unit is a third of the span. A unit may be spent until its own third begins to pass. All unspent units, in all
//! processes, are then different spans of the present debt, and the debt besides them is at least as large as if each
//! unit had been charged when it was spent. Processes need not know of each other's leases, and a lease that is
//! forgotten, as in a crash, is refilled as if it had been spent.
//!
//! That holds as long as nothing is removed from the middle: units come back only to a bucket without later charges. A
//! unit of a quota may be spent until its window ends, and comes back until then.
//!
//! # Time
//!
//! A lease lapses by this process's own time, counted from before the call to the store: a unit thus lapses here
//! slightly before it does there, whatever either clock shows. Of the monotonic clock and the wall clock, the one that
//! has advanced further counts: the former stands while a machine is suspended, and the latter may be set back. A unit
//! may be spent too late only if both happen. A lead of the wall clock of 50 ms or less counts as the time between two
//! readings.
//!
//! # Invariants
//!
//! - **Each unit is spent once.** It leaves the count under the lock of its shard, and comes back only to its own
//!   lease, which the [end](Lease::end) of the lease identifies.
//! - **The last unit lapses first.** At any time a lease has no more units than fit between now and its end.
//! - **One call for a lease of a bucket at a time.** [`begin`](Leases::begin) marks the bucket until the deadline of
//!   the call; a mark that nobody has ended by then has no owner. Calls made meanwhile ask for no lease.
//! - **A call that ends wakes all that wait for it.** Wakers are kept only under a mark, and taken as its call ends. A
//!   mark that lapses wakes nothing: each waiter has a deadline of its own.
//! - **Units of other terms are void.** A lease is spent in the [terms](LeaseTerms) that it was taken in: the meter of
//!   its limit, and the version, which distinguishes a limit from a later equal one. In between, any process may have
//!   let the store refill the bucket by another meter, so that the leased units are back in it. The first call in other
//!   terms [forgets](Leases::forget_others) the lease.
//! - **Bounded.** At most 32,768 buckets have leases. For others each request calls the store.
//!
//! No lock is held while a waker runs: it may do anything.
//!
//! # Who may call it
//!
//! Only [`StoreClient`](super::StoreClient), in its parts `ask` and `leased`. `begin` and `end` of a mark come in
//! pairs: each [`StoreCall`](super::StoreCall) ends what was begun for it, however it ends itself.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use crate::{
    clock::{Moment, Nanos},
    limit::meter::Meter,
    limiter::{limit_set::BoundLimit, meter_history::Version},
    store::{Balance, BucketKey, Budget, Correction},
    sync::Mutex,
};

/// The leases of this process, by the hash of a bucket's key. The upper half of the hash chooses the shard.
pub(super) struct Leases {
    shards: Box<[Mutex<Shard>]>,
}

/// The leases of one shard, behind one lock.
type Shard = HashMap<u64, Lease, BuildHasherDefault<IdentityHasher>>;

/// The terms in which a limit is leased. Units that were taken in some are good in no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseTerms {
    /// The meter of the limit, as the store knows it.
    budget: Budget,
    /// The version of the limit: another one for each time that it was made, or that its units have weighed something
    /// else. So a limit that is back is not taken for the one that was there before.
    version: Version,
}

/// The lease of one bucket, or the mark of a call that asks for one.
#[derive(Debug)]
struct Lease {
    key: BucketKey,
    /// The terms in which the units were taken.
    terms: LeaseTerms,
    /// Units that are not spent, lapsed ones among them.
    units: u64,
    /// The moment at which the last unit lapses, by this process's clock. It also tells one lease of a bucket from the
    /// next. 0: there is none.
    end: Nanos,
    /// The moment at which the call for the lease was sent, by both clocks: time is counted from there.
    sent: Moment,
    /// The state that the grant has left the bucket in, by the store's clock. Units come back only to a bucket in that
    /// state.
    state: Nanos,
    /// Set by each request that looks for a unit, and cleared by each pass for unused leases.
    is_used: bool,
    /// The deadline of a call that asks for a lease. The mark lapses there, and names the call until then.
    asked_until: Option<Nanos>,
    /// Requests that wait until that call has ended.
    wakers: Vec<Waker>,
}

/// The answer to a request that needs one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseUse {
    /// A unit, which is spent now. The balance is that of the bucket after it, as far as this process knows, and the
    /// moment is the [end](Lease::end) of its lease.
    Unit(Balance, Nanos),
    /// No unit, and no call for more: the request calls the store itself, and may ask for a lease.
    Nothing,
    /// No unit yet: a call asks for more.
    Pending,
}

/// A lease as the store has granted it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseGrant {
    /// The bucket as the call has left it, and the number of units of the lease.
    pub(super) balance: Balance,
    /// The store's clock as it granted the lease.
    pub(super) now: Nanos,
    /// This process's clocks before the call was sent.
    pub(super) sent: Moment,
}

impl LeaseTerms {
    /// Returns the terms of a limit that has this `budget`.
    pub(super) fn new(budget: Budget, bound: &BoundLimit) -> Self {
        let version = bound.version;
        Self { budget, version }
    }
}

impl Lease {
    fn meter(&self) -> &Meter {
        self.terms.budget.meter()
    }

    /// Returns the units that have not lapsed, by the clock that has gone on the furthest. Those of a quota lapse
    /// together.
    fn units(&self, at: Moment) -> u64 {
        let left = self.end.saturating_sub(at.since(self.sent));
        match left.checked_div(self.meter().steady(1)) {
            Some(units) => self.units.min(units),
            // A quota has no pace: its units are good until the window ends.
            None if left > 0 => self.units,
            None => 0,
        }
    }

    /// Returns whether a call asks for more, and may still be answered in time.
    fn is_pending(&self, now: Nanos) -> bool {
        self.asked_until.is_some_and(|until| now < until)
    }

    /// Returns the correction that gives back what is neither spent nor lapsed.
    fn return_rest(&self, at: Moment) -> Option<Correction> {
        let units = self.units(at);
        (units > 0).then(|| Correction::Return {
            key: self.key.clone(),
            budget: self.terms.budget,
            units,
            state: self.state,
        })
    }
}

impl Leases {
    /// The number of shards. Under loom one, to keep the interleavings few.
    const SHARDS: usize = if cfg!(throttle_loom) { 1 } else { 64 };
    /// The most leases in a shard: 32,768 buckets in all.
    const MAX_PER_SHARD: usize = 512;

    pub(super) fn new() -> Self {
        Self {
            shards: (0..Self::SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Works on the shard of a hash, under its lock.
    fn with_shard<T>(&self, hash: u64, work: impl FnOnce(&mut Shard) -> T) -> T {
        let shard = &self.shards[(hash >> 32) as usize % Self::SHARDS];
        // No panic can come between two writes that belong together.
        work(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Spends a unit of a bucket whose limit has these `terms`. The clocks are read (`at`) only if there is a lease at
    /// all.
    pub(super) fn spend(
        &self,
        hash: u64,
        terms: &LeaseTerms,
        at: impl FnOnce() -> Moment,
    ) -> LeaseUse {
        self.with_shard(hash, |shard| {
            let Some(lease) = shard.get_mut(&hash) else {
                return LeaseUse::Nothing;
            };
            lease.is_used = true;
            let at = at();
            let units = match lease.terms == *terms {
                true => lease.units(at),
                false => 0,
            };
            match units.checked_sub(1) {
                Some(rest) => {
                    lease.units = rest;
                    let balance = Balance {
                        state: lease.meter().refund(lease.state, rest),
                        ..Balance::default()
                    };
                    LeaseUse::Unit(balance, lease.end)
                }
                None if lease.is_pending(at.now) => LeaseUse::Pending,
                None => LeaseUse::Nothing,
            }
        })
    }

    /// Forgets what was leased of a bucket in other `terms`: from now on the bucket is refilled as these have it, and
    /// the leased units may come back to it before they lapse here.
    pub(super) fn forget_others(&self, hash: u64, terms: &LeaseTerms) {
        self.with_shard(hash, |shard| match shard.get_mut(&hash) {
            Some(lease) if lease.terms != *terms => (lease.units, lease.end) = (0, 0),
            _ => {}
        });
    }

    /// Puts a unit back that was not needed after all, of the lease with this `end`. It lapses as it would have. If
    /// there is another lease by now, or none, the unit is dropped, and stays taken in the store.
    pub(super) fn unspend(&self, hash: u64, end: Nanos) {
        self.with_shard(hash, |shard| match shard.get_mut(&hash) {
            Some(lease) if lease.end == end => lease.units += 1,
            _ => {}
        });
    }

    /// Marks a bucket for a call that asks for a lease of it and is answered or given up by `until`.
    ///
    /// Returns whether the call may ask: no other does, and there is room. Leases without units make room, if there is
    /// no other.
    pub(super) fn begin(
        &self,
        hash: u64,
        key: &BucketKey,
        terms: LeaseTerms,
        at: Moment,
        until: Nanos,
    ) -> bool {
        self.with_shard(hash, |shard| {
            if shard.len() >= Self::MAX_PER_SHARD && !shard.contains_key(&hash) {
                shard.retain(|_, lease| lease.is_pending(at.now) || lease.units(at) > 0);
                if shard.len() >= Self::MAX_PER_SHARD {
                    return false;
                }
            }
            let lease = shard.entry(hash).or_insert_with(|| Lease {
                key: key.clone(),
                terms,
                units: 0,
                end: 0,
                sent: at,
                state: 0,
                is_used: true,
                asked_until: None,
                wakers: Vec::new(),
            });
            let is_free = !lease.is_pending(at.now);
            if is_free {
                lease.asked_until = Some(until);
            }
            is_free
        })
    }

    /// Ends the mark that a call [began](Self::begin) with this `until`, with a lease or without one, and wakes those
    /// who wait.
    ///
    /// - A mark that has lapsed meanwhile may be another call's by now: that one stays.
    /// - A lease that was granted counts even then. It replaces what was left of the one before, whose last units stay
    ///   taken in the store until they are refilled.
    ///
    /// Returns whether there is a lease to be looked after, which the caller then sees to.
    pub(super) fn end(
        &self,
        hash: u64,
        terms: LeaseTerms,
        until: Nanos,
        grant: Option<LeaseGrant>,
    ) -> bool {
        let wakers = self.with_shard(hash, |shard| {
            let lease = shard.get_mut(&hash)?;
            let is_present = lease.asked_until == Some(until);
            if is_present {
                lease.asked_until = None;
            }
            if let Some(LeaseGrant { balance, now, sent }) = grant {
                // Units that are put back to the lease before it are dropped: they lapse sooner than these.
                lease.terms = terms;
                lease.units = balance.leased;
                let end = match lease.meter().steady(1) {
                    0 => lease.meter().at(now),
                    _ => balance.state,
                };
                lease.end = sent.now.saturating_add(end.saturating_sub(now));
                lease.sent = sent;
                lease.state = balance.state;
            }
            (is_present || grant.is_some()).then(|| std::mem::take(&mut lease.wakers))
        });
        // Outside of the lock: see the module's invariants.
        wakers.into_iter().flatten().for_each(Waker::wake);
        grant.is_some()
    }

    /// Polls until no call asks for a lease of this bucket. The waker is kept until then, or until the bucket has its
    /// next grant.
    pub(super) fn poll_pending(&self, hash: u64, now: Nanos, cx: &Context<'_>) -> Poll<()> {
        self.with_shard(hash, |shard| match shard.get_mut(&hash) {
            Some(lease) if lease.is_pending(now) => {
                let waker = cx.waker();
                if !lease.wakers.iter().any(|known| known.will_wake(waker)) {
                    lease.wakers.push(waker.clone());
                }
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
    }

    /// Takes out the leases that nobody has used since this was last called, or `all` of them. Returns the corrections
    /// that give back what is left of them. A mark stays, for its call is under way.
    pub(super) fn unused(&self, at: Moment, all: bool) -> Vec<Correction> {
        let mut rests = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, lease| {
                let is_used = std::mem::replace(&mut lease.is_used, false);
                if is_used && !all {
                    return true;
                }
                rests.extend(lease.return_rest(at));
                lease.units = 0;
                // Units that are put back to it later come too late.
                lease.end = 0;
                lease.is_pending(at.now)
            });
        }
        rests
    }

    /// Returns whether there is neither a lease nor a mark. Each shard is looked at by itself: one that fills meanwhile
    /// is seen by the next call.
    pub(super) fn is_empty(&self) -> bool {
        let mut shards = self.shards.iter();
        shards.all(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.is_empty()
        })
    }
}

/// A hasher for keys that are keyed hashes already.
#[derive(Debug, Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limit::{quota::Quota, rate::Rate};

    const MS: u64 = 1_000_000;

    /// A moment at which both clocks show the same.
    fn at(now: Nanos) -> Moment {
        Moment { now, wall: now }
    }

    fn key() -> BucketKey {
        BucketKey::new("total/rate-1s", None)
    }

    fn grant(state: Nanos, leased: u64, now: Nanos, sent: Nanos) -> LeaseGrant {
        let balance = Balance {
            state,
            leased,
            is_refused: false,
        };
        LeaseGrant {
            balance,
            now,
            sent: at(sent),
        }
    }

    /// The terms of a limit, in its first version.
    fn of(budget: Option<Budget>) -> LeaseTerms {
        LeaseTerms {
            budget: budget.expect("open"),
            version: 1,
        }
    }

    fn spend(leases: &Leases, terms: &LeaseTerms, now: Nanos) -> Option<u64> {
        match leases.spend(7, terms, || at(now)) {
            LeaseUse::Unit(balance, _) => Some(balance.state),
            LeaseUse::Nothing | LeaseUse::Pending => None,
        }
    }

    #[test]
    fn units_lapse_one_by_one_as_the_bucket_is_refilled() {
        // A unit in ten milliseconds. The store's clock is an hour ahead.
        let terms = of(Budget::of_rate(&Rate::per_second(100).burst(50)));
        let hour = 3_600_000 * MS;
        let leases = Leases::new();
        assert!(leases.begin(7, &key(), terms, at(0), 1));
        assert!(!leases.begin(7, &key(), terms, at(0), 1), "one at a time");
        // The bucket owes 100 ms, the last 40 of them for four units.
        let lease = grant(hour + 1_100 * MS, 4, hour + 1_000 * MS, 999 * MS);
        assert!(leases.end(7, terms, 1, Some(lease)));
        assert_eq!(
            spend(&leases, &terms, 1_000 * MS),
            Some(hour + 1_070 * MS),
            "three are left, and told as such"
        );
        // The last is full price until 1,089 by our clock, and the third until 1,079.
        assert!(spend(&leases, &terms, 1_079 * MS).is_some());
        leases.unspend(7, 7);
        leases.unspend(7, 1_099 * MS);
        assert!(spend(&leases, &terms, 1_080 * MS).is_some(), "one of them");
        assert!(spend(&leases, &terms, 1_080 * MS).is_none(), "one lapsed");

        assert!(leases.begin(7, &key(), terms, at(0), 1));
        assert!(leases.end(7, terms, 1, Some(lease)));
        assert!(spend(&leases, &terms, 1_089 * MS).is_some(), "just in time");
        assert!(leases.begin(7, &key(), terms, at(0), 1));
        assert!(leases.end(7, terms, 1, Some(lease)));
        assert!(spend(&leases, &terms, 1_089 * MS + 1).is_none(), "too late");
        assert!(leases.unused(at(1_090 * MS), true).is_empty());
        assert!(leases.is_empty());
    }

    #[test]
    fn a_question_that_ends_late_ends_nobody_elses() {
        let terms = of(Budget::of_rate(&Rate::per_second(100).burst(50)));
        let leases = Leases::new();
        assert!(leases.begin(7, &key(), terms, at(0), 10 * MS));
        let at = at(10 * MS);
        assert!(leases.begin(7, &key(), terms, at, 20 * MS), "forgotten");
        assert!(!leases.end(7, terms, 10 * MS, None));
        assert!(!leases.begin(7, &key(), terms, at, 20 * MS), "two ask");
        let lease = grant(100 * MS, 4, 10 * MS, 10 * MS);
        assert!(leases.end(7, terms, 20 * MS, Some(lease)));
        assert!(leases.begin(7, &key(), terms, at, 20 * MS), "it has ended");
    }

    #[test]
    fn units_of_a_quota_are_good_until_its_window_ends() {
        let terms = of(Budget::of_quota(&Quota::per(100, Duration::from_secs(1))));
        let leases = Leases::new();
        assert!(leases.begin(7, &key(), terms, at(0), 1));
        let lease = grant(3_000 * MS + 5, 4, 2_500 * MS, 400 * MS);
        assert!(leases.end(7, terms, 1, Some(lease)));
        assert!(spend(&leases, &terms, 899 * MS).is_some());
        let rests = leases.unused(at(899 * MS), false);
        assert!(rests.is_empty(), "somebody uses it");
        let rests = leases.unused(at(899 * MS), false);
        let [Correction::Return { units, state, .. }] = &rests[..] else {
            panic!("the rest: {rests:?}");
        };
        assert_eq!((*units, *state), (3, 3_000 * MS + 5));
        assert!(spend(&leases, &terms, 899 * MS).is_none(), "it is gone");
        assert!(leases.begin(7, &key(), terms, at(0), 1));
        assert!(leases.end(7, terms, 1, Some(lease)));
        assert!(
            spend(&leases, &terms, 900 * MS).is_none(),
            "the next window"
        );
    }

    #[test]
    fn a_lease_in_other_terms_is_none() {
        let terms = of(Budget::of_rate(&Rate::per_second(100).burst(50)));
        let other = of(Budget::of_rate(&Rate::per_second(50).burst(50)));
        let leases = Leases::new();
        assert!(leases.begin(7, &key(), terms, at(0), 1));
        assert!(leases.end(7, terms, 1, Some(grant(1_000 * MS, 10, 0, 0))));
        let again = LeaseTerms {
            version: 3,
            ..terms
        };
        assert!(spend(&leases, &other, 0).is_none());
        assert!(spend(&leases, &again, 0).is_none(), "others came between");
        assert!(spend(&leases, &terms, 0).is_some());
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let terms = of(Budget::of_rate(&Rate::per_second(100).burst(50)));
        let leases = Leases::new();
        for hash in 0..Leases::MAX_PER_SHARD as u64 {
            assert!(leases.begin(hash, &key(), terms, at(0), 1));
        }
        assert!(
            !leases.begin(1_000_000, &key(), terms, at(0), 1),
            "all are asked for"
        );
        let lease = grant(1_000 * MS, 10, 0, 0);
        assert!(leases.end(3, terms, 1, Some(lease)));
        assert!(
            !leases.begin(1_000_000, &key(), terms, at(0), 1),
            "one has units"
        );
        assert!(!leases.end(4, terms, 1, None));
        assert!(
            leases.begin(1_000_000, &key(), terms, at(0), 1),
            "one has none"
        );
    }

    #[test]
    fn a_lease_ends_by_the_clock_that_has_gone_on_the_furthest() {
        let terms = of(Budget::of_rate(&Rate::per_second(10).burst(10)));
        let moments = [
            // (monotonic, wall, units that have not lapsed of ten that take 100 ms each)
            (0, 0, 10),
            (400, 400, 6),
            (0, 400, 6),
            (400, 0, 6),
            (400, 900, 1),
            (0, 36_000_000, 0),
            (1_000, 0, 0),
        ];
        for (now, wall, units) in moments {
            let leases = Leases::new();
            assert!(leases.begin(7, &key(), terms, at(0), 1));
            assert!(leases.end(7, terms, 1, Some(grant(1_000 * MS, 10, 0, 0))));
            let at = Moment {
                now: now * MS,
                wall: wall * MS,
            };
            let spent = (0..20)
                .take_while(|_| matches!(leases.spend(7, &terms, || at), LeaseUse::Unit(..)));
            assert_eq!(spent.count(), units, "{now} and {wall} ms later");
        }
    }
}

/// All interleavings of who asks for a lease and who waits for it. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::{
        limit::rate::Rate,
        sync::{AtomicU64, Ordering, flag::Flag, model},
    };

    const HASH: u64 = 7;
    const UNTIL: Nanos = 1_000;
    const NOW: Moment = Moment { now: 0, wall: 0 };

    /// Leases of one bucket, and a count of those that ask.
    struct Scene {
        leases: Leases,
        terms: LeaseTerms,
        asking: AtomicU64,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Had {
        Unit,
        /// A question was asked, and brought a lease or none.
        Asked,
        /// The request waits for another that asks.
        Waits,
    }

    impl Scene {
        fn new() -> Arc<Self> {
            let rate = Rate::per_second(100).burst(50);
            Arc::new(Self {
                leases: Leases::new(),
                terms: LeaseTerms {
                    budget: Budget::of_rate(&rate).expect("open"),
                    version: 1,
                },
                asking: AtomicU64::new(0),
            })
        }

        fn begins(&self) -> bool {
            let key = BucketKey::new("total/rate-1s", None);
            let begins = self.leases.begin(HASH, &key, self.terms, NOW, UNTIL);
            if begins {
                let others = self.asking.fetch_add(1, Ordering::Relaxed);
                assert_eq!(others, 0, "two ask at a time");
            }
            begins
        }

        /// A lease of so many units is the answer, or there is none.
        fn ends(&self, units: u64) {
            self.asking.fetch_sub(1, Ordering::Relaxed);
            let balance = Balance {
                state: 60_000_000_000,
                leased: units,
                is_refused: false,
            };
            let (now, sent) = (1, NOW);
            let grant = (units > 0).then_some(LeaseGrant { balance, now, sent });
            self.leases.end(HASH, self.terms, UNTIL, grant);
        }

        /// A request that needs a unit: it spends one, or asks for a lease of so many, or waits.
        fn needs(&self, lease: u64, waker: &Waker) -> Had {
            loop {
                match self.leases.spend(HASH, &self.terms, || NOW) {
                    LeaseUse::Unit(..) => return Had::Unit,
                    LeaseUse::Nothing if self.begins() => {
                        self.ends(lease);
                        return Had::Asked;
                    }
                    LeaseUse::Nothing | LeaseUse::Pending => {}
                }
                let cx = Context::from_waker(waker);
                if self.leases.poll_pending(HASH, NOW.now, &cx).is_pending() {
                    return Had::Waits;
                }
            }
        }
    }

    /// One asks and goes away, or has a lease of so many units; two need a unit meanwhile.
    fn race(units: u64) {
        model(move || {
            let scene = Scene::new();
            assert!(scene.begins());
            let flags = [(); 2].map(|()| Arc::new(Flag::default()));
            let threads = flags.clone().map(|flag| {
                let scene = Arc::clone(&scene);
                thread::spawn(move || scene.needs(1, &Waker::from(flag)))
            });
            scene.ends(units);
            let had = threads.map(|thread| thread.join().expect("no panic"));
            for (mut had, flag) in had.into_iter().zip(flags) {
                while had == Had::Waits {
                    assert!(flag.clear(), "forgotten");
                    had = scene.needs(1, &Waker::from(Arc::clone(&flag)));
                }
            }
            assert!(scene.begins(), "somebody is said to ask");
        });
    }

    #[test]
    fn loom_one_asks_at_a_time_and_whoever_waits_for_one_that_goes_away_is_woken() {
        race(0);
    }

    #[test]
    fn loom_whoever_waits_for_a_lease_is_woken_when_it_is_there() {
        race(1);
    }
}
