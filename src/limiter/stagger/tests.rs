use proptest::prelude::*;

use super::*;
use crate::clock::Timeline;

const MILLISECOND: Nanos = 1_000_000;

/// A refusal of a caller by a limit of ten a second with a burst of five.
fn refused(caller: u64, now: Nanos, wait: Nanos) -> RefusedWait {
    RefusedWait {
        bucket: 7,
        caller: Some(caller),
        now,
        wait,
        step: 100 * MILLISECOND,
        refill: 500 * MILLISECOND,
        full_in: 500 * MILLISECOND,
    }
}

#[test]
fn each_caller_has_one_place() {
    let spread = Stagger::new();
    let told = |caller, now, wait| {
        let refused = refused(caller, now * MILLISECOND, wait * MILLISECOND);
        spread.more(&refused) / MILLISECOND
    };
    let places: Vec<_> = (1..=5).map(|caller| told(caller, 0, 40)).collect();
    assert_eq!(places, [0, 100, 200, 300, 400]);
    assert_eq!(told(3, 10, 30), 200, "its place again");
    assert_eq!(told(6, 10, 30), 500);
    assert_eq!(told(6, 11, 29), 500, "too early");
    assert_eq!(told(7, 12, 28), 500, "whose place is given to the next");
    assert_eq!(told(1, 340, 0), 300, "its time has come: it is a new one");
    // The bucket may have been full.
    assert_eq!(told(8, 840, 0), 0);
    assert_eq!(told(3, 840, 0), 100, "nobody has a place of the old line");
}

#[test]
fn buckets_have_lines_of_their_own() {
    let spread = Stagger::new();
    for bucket in [7, 8, 7 | 1 << 60] {
        let told = [1, 2, 3].map(|caller| {
            spread.more(&RefusedWait {
                bucket,
                ..refused(caller, 0, 0)
            })
        });
        let places = [0, 100, 200].map(|place| place * MILLISECOND);
        assert_eq!(told, places, "{bucket:x}");
    }
}

#[test]
fn a_line_is_no_longer_than_its_callers_need() {
    let spread = Stagger::new();
    let told = |caller, now: Nanos| {
        let refused = RefusedWait {
            full_in: MOST,
            ..refused(caller, now, 0)
        };
        spread.more(&refused) / MILLISECOND
    };
    for caller in 0..40 {
        assert_eq!(told(1 + caller, 0), 100 * caller);
    }
    // Those were refused long ago, and may have gone.
    assert_eq!(told(100, 2_100 * MILLISECOND), 200);
    assert_eq!(told(101, 2_100 * MILLISECOND), 300);
}

#[test]
fn a_wait_that_is_slept_through_stays_one() {
    let spread = Stagger::new();
    let told = |caller, wait, step| {
        let full_in = 3_600 * SECOND;
        let refused = refused(caller, 0, wait);
        spread.more(&RefusedWait {
            step,
            full_in,
            ..refused
        })
    };
    let waits = (1..=1_000).map(|caller| 20 * SECOND + told(caller, 20 * SECOND, SECOND));
    let waits: Vec<_> = waits.collect();
    assert!(waits.iter().all(|&wait| wait <= MOST));
    let different = waits.iter().collect::<std::collections::HashSet<_>>();
    assert_eq!(different.len(), 41, "each second from 20 to 60");
    // One an hour: no place can be told, and yet not all come at once.
    let spread = Stagger::new();
    let slow = [1, 2, 3].map(|caller| {
        spread.more(&RefusedWait {
            step: 3_600 * SECOND,
            ..refused(caller, 0, 0)
        })
    });
    assert_eq!(slow, [0, SECOND, 2 * SECOND]);
}

#[test]
fn a_jitter_lies_between_nothing_and_a_refill() {
    let spread = Stagger::new();
    let unknown = RefusedWait {
        caller: None,
        ..refused(0, 0, 40 * MILLISECOND)
    };
    assert_eq!(spread.more(&unknown), 0, "the first");
    let told: Vec<_> = (0..1_000).map(|_| spread.more(&unknown)).collect();
    assert!(told.iter().all(|&more| more <= 500 * MILLISECOND));
    for part in 0..10 {
        let inside = |more: &&u64| **more / (50 * MILLISECOND) == part;
        let count = told.iter().filter(inside).count();
        assert!((50..150).contains(&count), "{count} of 100 in part {part}");
    }
    let long = RefusedWait {
        refill: u64::MAX,
        wait: 59 * SECOND,
        ..unknown
    };
    assert!((0..1_000).all(|_| spread.more(&long) <= SECOND));
}

proptest! {
    #[test]
    fn never_more_than_a_minute_and_no_input_panics(
        demand in prop::collection::vec(
            (any::<u64>(), any::<Option<u8>>(), 0..=Timeline::MAX, any::<[u64; 4]>()),
            1..50,
        ),
    ) {
        let spread = Stagger::new();
        for (bucket, caller, now, [wait, step, refill, full_in]) in demand {
            let caller = caller.map(u64::from);
            let bucket = bucket % 3;
            let refused = RefusedWait { bucket, caller, now, wait, step, refill, full_in };
            let more = spread.more(&refused);
            prop_assert!(more <= MOST);
            prop_assert!(wait > MOST || wait + more <= MOST);
        }
    }
}
