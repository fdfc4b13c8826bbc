//! All interleavings of the atomics. Run with `--cfg throttle_loom`.

use loom::thread;

use super::*;
use crate::sync::model;

fn race(
    limits: &'static [(u64, u64)],
    requests: &'static [&'static [(usize, u64)]],
    check: fn(u64, &[BoundLimit]),
) {
    model(move || {
        let buckets = Arc::new(bound(limits));
        let threads: Vec<_> = requests
            .iter()
            .map(|&costs| {
                let buckets = Arc::clone(&buckets);
                thread::spawn(move || u64::from(take(&buckets, costs, 5)))
            })
            .collect();
        let admitted = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum();
        check(admitted, &buckets);
    });
}

#[test]
fn loom_one_bucket_admits_exactly_its_burst() {
    race(
        &[(10, 2)],
        &[&[(0, 1)], &[(0, 1)], &[(0, 1)]],
        |admitted, buckets| {
            assert_eq!(admitted, 2);
            assert_eq!(bucket(&buckets[0]).load(), 5 + 20);
        },
    );
}

#[test]
fn loom_two_buckets_in_opposite_order_never_admit_one_too_many_nor_lose_a_charge() {
    race(
        &[(10, 1), (10, 1)],
        &[&[(0, 1), (1, 1)], &[(1, 1), (0, 1)]],
        |admitted, buckets| {
            assert!(admitted <= 1, "one too many");
            for bound in buckets {
                let state = bucket(bound).load();
                let expected = if admitted == 1 { 15 } else { 5 };
                assert!(
                    state == expected || admitted == 0 && state == 0,
                    "{admitted} admitted, state {state}"
                );
            }
        },
    );
}

#[test]
fn loom_a_roll_back_leaves_a_strangers_charge_alone() {
    // The second thread's request is admitted whatever the first one does.
    race(
        &[(10, 3), (10, 0)],
        &[&[(0, 1)], &[(0, 1)]],
        |admitted, buckets| {
            assert_eq!(admitted, 2);
            assert_eq!(bucket(&buckets[0]).load(), 25);
        },
    );
    race(
        &[(10, 3), (10, 1)],
        &[&[(0, 1), (1, 1)], &[(0, 1), (1, 1)], &[(0, 1)]],
        |admitted, buckets| {
            assert!(
                (1..=2).contains(&admitted),
                "at most one of the first two, and the third"
            );
            let expected = 5 + 10 * admitted;
            assert_eq!(bucket(&buckets[0]).load(), expected, "{admitted} admitted");
        },
    );
}

#[test]
fn loom_giving_back_while_others_charge_never_gives_too_much() {
    use loom::sync::atomic::{AtomicU64, Ordering};

    loom::model(|| {
        // A clock that a thread moves on: a reading is never behind one that another thread charged with.
        let clock = Arc::new(AtomicU64::new(10));
        let buckets = Arc::new(bound(&[(10, 1)]));
        assert!(take(&buckets, &[(0, 1)], 10), "full");
        let other = {
            let (clock, buckets) = (Arc::clone(&clock), Arc::clone(&buckets));
            thread::spawn(move || {
                clock.store(20, Ordering::Release);
                take(&buckets, &[(0, 1)], 20)
            })
        };
        let meter = buckets[0].limit.meter.as_ref().expect("open");
        bucket(&buckets[0])
            .slot()
            .give_back(0, 20, meter, 10, 10, || clock.load(Ordering::Acquire));
        let admitted = other.join().expect("no panic");
        assert!(admitted, "refilled by time or given back");
        let state = bucket(&buckets[0]).load();
        assert_eq!(state, 30, "the other charge is whole");
    });
}
