//! All interleavings of the atomics. Run with `--cfg throttle_loom`.

use std::sync::Arc;

use loom::thread;

use super::*;

fn long() -> Meter {
    meter(1_000_000, 1)
}

fn model(work: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 10_000;
    model.check(work);
}

#[test]
fn loom_a_key_that_two_enter_has_one_bucket() {
    model(|| {
        let memory = Arc::new(memory(2));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    let taken = memory.take(&memory.key(1), &meter(10, 1), 5, 1, || 5);
                    u64::from(taken.is_ok())
                })
            })
            .collect();
        let admitted = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        assert_eq!(admitted.sum::<u64>(), 1);
        assert_eq!(memory.peek(&memory.key(1), 5), BucketReading::own(15));
    });
}

/// One slot is free for two: its last owner comes back while a new one takes it. Time stands still, so
/// that states may be equal by chance.
#[test]
fn loom_a_slot_that_changes_hands_loses_no_charge_and_admits_none_too_many() {
    model(|| {
        let memory = Arc::new(memory(2));
        let meter = meter(10, 1);
        // A stranger that stays, and one whose bucket is full again at 15.
        assert!(memory.take(&memory.key(2), &long(), 5, 1, || 5).is_ok());
        assert!(memory.take(&memory.key(0), &meter, 5, 1, || 5).is_ok());
        let threads: Vec<_> = [0, 1]
            .map(|client| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || memory.take(&memory.key(client), &meter, 15, 1, || 15))
            })
            .into();
        for thread in threads {
            let seen = thread
                .join()
                .expect("no panic")
                .expect("both buckets are full");
            assert_eq!(seen.state, 25, "in a slot or in the overflow bucket");
        }
        let own = [0, 1].map(|client| memory.peek(&memory.key(client), 15));
        assert_eq!(
            own.iter().filter(|seen| !seen.shared).count(),
            1,
            "one has the slot"
        );
        for seen in own {
            assert_eq!(seen.state, 25, "both are charged");
        }
    });
}

/// The new owner gives its charge back, which leaves the state as the old owner has seen it.
#[test]
fn loom_a_state_that_is_the_same_by_chance_is_not_taken_for_the_same_bucket() {
    model(|| {
        let memory = Arc::new(memory(2));
        let meter = meter(10, 1);
        assert!(memory.take(&memory.key(2), &long(), 5, 1, || 5).is_ok());
        assert!(memory.take(&memory.key(0), &meter, 5, 1, || 5).is_ok());
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let left = memory
                    .take(&memory.key(1), &meter, 15, 1, || 15)
                    .expect("full");
                memory.give_back(&memory.key(1), left, &meter, 15, meter.weight(1), || 15);
            })
        };
        let own = memory
            .take(&memory.key(0), &meter, 15, 1, || 15)
            .expect("full again");
        other.join().expect("no panic");
        assert_eq!(own.state, 25);
        if !own.shared {
            assert_eq!(
                memory.peek(&memory.key(0), 15),
                own,
                "the charge is not lost"
            );
        }
        assert_eq!(
            memory.peek(&memory.key(1), 15).state.max(15),
            15,
            "nor is it another's"
        );
    });
}

/// The new owner's limit is of another kind: nothing of the old one's may stay with it.
#[test]
fn loom_a_slot_goes_from_a_quota_to_a_rate_and_takes_nothing_along() {
    model(|| {
        let memory = Arc::new(memory(2));
        let day = crate::limit::quota::Quota::per(5, Duration::from_nanos(1_000));
        let quota = Meter::of_quota(&day).expect("an open quota");
        let rate = meter(10, 2);
        assert!(memory.take(&memory.key(2), &long(), 5, 1, || 5).is_ok());
        assert!(memory.take(&memory.key(0), &quota, 5, 1, || 5).is_ok());
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || memory.take(&memory.key(1), &rate, 1_500, 1, || 1_500))
        };
        let own = memory.take(&memory.key(0), &quota, 1_500, 1, || 1_500);
        let own = own.expect("a new window");
        let other = other.join().expect("no panic").expect("full");
        if !own.shared && !other.shared {
            unreachable!("there is one slot for the two");
        }
        for (seen, key, state) in [(own, memory.key(0), 2_001), (other, memory.key(1), 1_510)] {
            if !seen.shared {
                assert_eq!(seen.state, state);
                assert_eq!(memory.peek(&key, 1_500), seen);
            }
        }
    });
}

/// A limit of which a unit weighs 10, and 1,000 as soon as that is changed, on a clock that goes on by 500 in the very
/// moment of the change.
struct Slowed {
    memory: ClientTable,
    pages: [ClientBuckets; 2],
    history: MeterHistory,
    time: crate::sync::AtomicU64,
}

impl Slowed {
    fn new(capacity: usize) -> Arc<Self> {
        let memory = ClientTable::new();
        memory.reserve(capacity).expect("there is as much memory");
        let page = ClientBuckets::new(0, 1);
        let first = crate::limiter::meter_history::MeterStep {
            version: 1,
            since: 0,
            meter: Self::meter(1),
        };
        Arc::new(Self {
            memory,
            pages: [page.in_version(2), page],
            history: MeterHistory::new(Some(first)),
            time: crate::sync::AtomicU64::new(5),
        })
    }

    fn meter(version: Version) -> Meter {
        meter(if version == 1 { 10 } else { 1_000 }, 3)
    }

    fn now(&self) -> Nanos {
        self.time.load(Ordering::Acquire)
    }

    /// Takes a unit by the terms of a version, as a request does: it reads the clock, and then looks up its client.
    fn takes(&self, version: Version) -> bool {
        let (history, now) = (&self.history, self.now());
        let page = &self.pages[version as usize % 2];
        let key = TableKey::new(identity(1), page, MeterTerms { version, history });
        let taken = (self.memory).take(&key, &Self::meter(version), now, 1, || self.now());
        taken.is_ok()
    }

    /// Slows down while another request takes a unit by the old terms. Returns how many that request has taken.
    fn slow_down_beside(self: &Arc<Self>) -> u64 {
        let other = Arc::clone(self);
        let late = thread::spawn(move || u64::from(other.takes(1)));
        self.slow_down();
        late.join().expect("no panic")
    }

    fn slow_down(&self) {
        self.pages[1].retire();
        let passes = || self.time.fetch_add(500, Ordering::AcqRel);
        self.history.go_on(2, Self::meter(2), passes, |steps| {
            for bucket in self.pages[1].overflow() {
                bucket.carry_over(2, steps, || self.now());
            }
        });
    }

    fn used(&self) -> u64 {
        let terms = MeterTerms {
            version: 2,
            history: &self.history,
        };
        let key = TableKey::new(identity(1), &self.pages[0], terms);
        let now = self.now();
        Self::meter(2).used(self.memory.peek(&key, now).state, now)
    }
}

/// A client that is in the table owes what it was charged, and not the time of the change.
#[test]
fn loom_a_client_owes_no_time_for_a_charge_in_terms_that_are_gone() {
    model(|| {
        let it = Slowed::new(2);
        assert!(it.takes(1));
        let late = it.slow_down_beside();
        let used = it.used();
        assert!(used <= 1 + late && used >= late, "{used}, {late} late");
        assert!(!it.takes(1), "these terms are gone");
    });
}

/// The same of one that is new, whether there is room for it or not.
#[test]
fn loom_a_new_client_owes_no_time_for_a_charge_in_terms_that_are_gone() {
    for capacity in [2, 0] {
        model(move || {
            let it = Slowed::new(capacity);
            let late = it.slow_down_beside();
            let used = it.used();
            assert!(used <= late, "{used}, {late} late");
            assert!(!it.takes(1), "these terms are gone");
        });
    }
}

/// Two settings of one limit: an interval of 10, and from 5 on one of 20.
fn changed(history: &MeterHistory) {
    for (version, since, interval) in [(0, 0, 10), (1, 5, 20)] {
        let meter = meter(interval, 1);
        history.push(crate::limiter::meter_history::MeterStep {
            version,
            since,
            meter,
        });
    }
}

/// A client is charged by the settings before and by those after: it has one burst, and no charge is lost.
#[test]
fn loom_a_client_charged_by_old_and_new_settings_has_one_burst() {
    model(|| {
        let memory = Arc::new(memory(2));
        changed(&memory.history);
        let old = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let key = memory.key(1);
                memory.take(&key, &meter(10, 1), 5, 1, || 5)
            })
        };
        let key = memory.key(1).in_version(1);
        let new = memory.take(&key, &meter(20, 1), 5, 1, || 5);
        let old = old.join().expect("no panic");
        assert!(new.is_ok() != old.is_ok(), "{new:?} and {old:?}");
        assert_eq!(memory.peek(&key, 5), BucketReading::own(25));
    });
}

/// The same with a bucket that is told anew while it is charged. Who has to begin anew may have paid.
#[test]
fn loom_a_bucket_that_is_told_anew_loses_no_charge() {
    model(|| {
        let memory = Arc::new(memory(0));
        changed(&memory.history);
        let old = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let bucket = memory.key(1).overflow();
                let next = |state| meter(10, 1).take(state, 5, 1).ok();
                bucket.step(bucket.load(), 0, &memory.history, next)
            })
        };
        let bucket = memory.key(1).overflow();
        bucket.update(1, &memory.history);
        let told = bucket.peek(1, &memory.history);
        let old = old.join().expect("no panic");
        let after = bucket.peek(1, &memory.history);
        match old {
            Ok(15) => assert_eq!((told, after), (Ok(25), Ok(25))),
            Err(Untaken::Outdated) => assert!(matches!(after, Ok(0 | 25)), "{after:?}"),
            other => unreachable!("{other:?}"),
        }
    });
}
