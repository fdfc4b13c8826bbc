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
