//! All interleavings of threads that read the clock. Run with `--cfg throttle_loom`.
//!
//! The counter does not go back, and orders nothing: it is a number that each reading takes on, relaxed.

use std::sync::Arc;

use loom::thread;

use super::*;

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
        (self.ticks)(self.next())
    }

    fn system(&self) -> Nanos {
        (self.system)(self.next())
    }
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
