//! All interleavings of threads that read the clock. Run with `--cfg throttle_loom`.
//!
//! The counter does not go back, and orders nothing: it is a number that each reading takes on, relaxed.

use std::{cell::Cell, sync::Arc, time::Duration};

use loom::thread;

use super::*;
use crate::{
    limit::{meter::Meter, rate::Rate},
    limiter::{
        bucket::Bucket,
        meter_history::{MeterHistory, MeterStep, Version},
    },
    sync::model,
};

loom::thread_local! {
    /// The count that the thread's processor has read ahead.
    static AHEAD: Cell<Option<u64>> = Cell::new(None);
}

/// Both clocks, as functions of the readings so far.
struct Model {
    readings: AtomicU64,
    ticks: fn(u64) -> u64,
    system: fn(u64) -> u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.readings.fetch_add(1, Ordering::Relaxed)
    }
}

impl Clocks for Model {
    fn ticks(&self) -> u64 {
        let ahead = AHEAD.with(Cell::take);
        ahead.unwrap_or_else(|| (self.ticks)(self.next()))
    }

    fn system(&self) -> Nanos {
        // The processor does not read its counter ahead of this.
        AHEAD.with(|ahead| ahead.set(None));
        (self.system)(self.next())
    }
}

/// Reads the counter for this thread's next reading of the clock, ahead of all that the thread does until then.
fn read_ahead(source: &Model) {
    let count = source.ticks();
    AHEAD.with(|ahead| ahead.set(Some(count)));
}

/// Threads that read the clock, each so often, and know of the latest of all readings that they have seen. A line
/// holds for so many ticks.
fn never_back(
    [threads, often]: [usize; 2],
    reach: u64,
    ticks: fn(u64) -> u64,
    system: fn(u64) -> u64,
) {
    let mut model = loom::model::Builder::new();
    // Three threads take too long with more.
    model.preemption_bound = Some(if threads > 2 { 2 } else { 3 });
    model.check(move || {
        let source = Model {
            readings: AtomicU64::new(0),
            ticks,
            system,
        };
        let clock = Arc::new(CounterClock::new(source, 1 << 40, reach));
        let told = Arc::new(AtomicU64::new(0));
        let read = {
            let (clock, told) = (Arc::clone(&clock), Arc::clone(&told));
            move || {
                for _ in 0..often {
                    let before = told.load(Ordering::Acquire);
                    let now = clock.now();
                    assert!(now >= before, "{now} after {before}");
                    told.fetch_max(now, Ordering::AcqRel);
                }
            }
        };
        let others: Vec<_> = (1..threads).map(|_| thread::spawn(read.clone())).collect();
        read();
        for other in others {
            other.join().expect("no panic");
        }
    });
}

/// A counter that goes ten times as fast as the system's clock, until its first line has ended.
fn fast(reading: u64) -> u64 {
    reading + 9 * reading.min(4)
}

#[test]
fn loom_a_counter_that_is_too_fast_makes_time_stand_and_never_go_back() {
    never_back([2, 2], 15, fast, |reading| 1_000 + reading);
}

#[test]
fn loom_a_counter_that_is_too_slow_makes_time_leap_and_never_go_back() {
    // The first line ends with the first reading.
    let slow = |reading: u64| reading + 20 * reading.min(2);
    never_back([2, 2], 16, slow, |reading| 1_000 + 9 * reading);
}

#[test]
fn loom_a_counter_that_is_given_up_leaves_time_that_never_goes_back() {
    let leaps = |reading| match reading {
        ..4 => fast(reading),
        _ => reading << 40,
    };
    never_back([2, 2], 15, leaps, |reading| 1_000 + reading);
}

#[test]
fn loom_three_threads_at_the_end_of_a_line() {
    never_back([3, 1], 5, fast, |reading| 1_000 + reading);
}

#[test]
fn loom_a_reading_in_order_is_no_earlier_where_processors_read_ahead() {
    loom::model(|| {
        let source = Model {
            readings: AtomicU64::new(0),
            ticks: |reading| reading,
            system: |reading| 1_000 + reading,
        };
        let clock = Arc::new(CounterClock::new(source, 1 << 40, 1_000));
        let told = Arc::new(AtomicU64::new(0));
        let other = {
            let (clock, told) = (Arc::clone(&clock), Arc::clone(&told));
            thread::spawn(move || told.store(clock.now(), Ordering::Release))
        };
        read_ahead(&clock.source);
        let before = told.load(Ordering::Acquire);
        let now = clock.now_ordered();
        assert!(now >= before, "{now} after {before}");
        other.join().expect("no panic");
    });
}

#[test]
fn loom_what_is_given_back_by_the_counter_leaves_the_other_charge_whole() {
    const VERSION: Version = 3;
    const INTERVAL: u64 = 2;
    // A bucket of one unit. The first request is given back while the second is decided on.
    model(move || {
        let source = Model {
            readings: AtomicU64::new(0),
            ticks: |reading| reading,
            system: |reading| 1_000 + reading,
        };
        let rate = Rate::new(1, Duration::from_nanos(INTERVAL)).burst(1);
        let meter = Meter::of_rate(&rate).expect("open");
        let history = MeterHistory::new(Some(MeterStep {
            version: VERSION,
            since: 0,
            meter,
        }));
        let clock = Arc::new(CounterClock::new(source, 1 << 40, 1_000));
        let bucket = Arc::new(Bucket::full(VERSION));
        let ask = {
            let (clock, bucket) = (Arc::clone(&clock), Arc::clone(&bucket));
            move || {
                let now = clock.now();
                let next = |state| meter.take(state, now, 1).ok();
                let taken = bucket.step(bucket.load(), VERSION, &history, next);
                taken.ok().map(|after| (now, after))
            }
        };
        let (taken, after) = ask().expect("full");
        let other = thread::spawn(ask);
        read_ahead(&clock.source);
        let now = || clock.now_ordered();
        let slot = bucket.slot();
        slot.give_back(VERSION, after, &meter, taken, meter.weight(1), now);
        let other = other.join().expect("no panic");
        if let Some((now, _)) = other {
            let state = bucket.load();
            assert!(state >= now + INTERVAL, "{state} after a charge at {now}");
        }
    });
}
