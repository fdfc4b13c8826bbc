mod interrupted;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// Clocks that a test sets. Two nanoseconds are a tick.
#[derive(Default)]
struct Set {
    ticks: AtomicU64,
    system: AtomicU64,
}

impl Clocks for &Set {
    fn ticks(&self) -> u64 {
        self.ticks.load(Relaxed)
    }

    fn system(&self) -> Nanos {
        self.system.load(Relaxed)
    }
}

impl Set {
    /// A clock whose counter and whose moment are anything.
    fn clock(&self) -> CounterClock<&Self> {
        self.ticks.store(u64::MAX - 7, Relaxed);
        self.system.store(100 * SECOND, Relaxed);
        CounterClock::new(self, 2 << 40, SECOND / 2)
    }

    /// The counter goes on as far as so many nanoseconds, and the system's clock by so many.
    fn pass(&self, counted: u64, system: u64) {
        self.ticks.fetch_add(counted / 2, Relaxed);
        self.system.fetch_add(system, Relaxed);
    }

    fn back(&self, counted: u64) {
        self.ticks.fetch_sub(counted / 2, Relaxed);
    }
}

/// Reads a clock after each step: so far on by the counter, and by the system's clock, from 100 seconds.
fn shown(steps: &[(u64, u64)]) -> Vec<Nanos> {
    let set = Set::default();
    let clock = set.clock();
    assert_eq!(clock.now(), 100 * SECOND);
    let step = |&(counted, system)| {
        set.pass(counted, system);
        clock.now() - 100 * SECOND
    };
    steps.iter().map(step).collect()
}

#[test]
fn within_a_second_the_counter_is_the_clock() {
    let steps = [(2, 0), (SECOND / 2, 7), (0, SECOND)];
    assert_eq!(shown(&steps), [2, SECOND / 2 + 2, SECOND / 2 + 2]);
}

#[test]
fn after_a_second_it_leaps_to_where_the_systems_clock_is() {
    let steps = [(SECOND + 1_000_000, SECOND + 1_000_900), (100, 0), (0, 50)];
    assert_eq!(
        shown(&steps),
        [SECOND + 1_000_900, SECOND + 1_001_000, SECOND + 1_001_000]
    );
}

#[test]
fn it_stands_where_it_was_ahead_and_goes_on_when_the_system_has_caught_up() {
    // 900 ns ahead at the end of its reach.
    let end = SECOND;
    let steps = [
        (end - 2, 0),
        (2, end - 900),
        (300, 300),
        (700, 700),
        (100, 100),
    ];
    assert_eq!(shown(&steps), [end - 2, end, end, end + 100, end + 200]);
}

#[test]
fn an_idle_hour_is_that_of_the_systems_clock() {
    let hour = 3_600 * SECOND;
    let steps = [(hour + SECOND, hour), (1_000, 0)];
    assert_eq!(shown(&steps), [hour, hour + 1_000]);
}

#[test]
fn a_counter_that_leaps_is_given_up_before_time_has_leapt_by_more_than_a_second() {
    let hour = 3_600 * SECOND;
    let steps = [
        (10, 10),
        (hour, 10),
        // By the system's clock alone.
        (hour, SECOND),
        (100, 100),
        (0, SECOND),
    ];
    assert_eq!(
        shown(&steps),
        [10, SECOND, SECOND + 20, SECOND + 120, 2 * SECOND + 120]
    );
}

#[test]
fn a_counter_that_stands_is_given_up_when_it_goes_on() {
    let steps = [(10, SECOND), (SECOND, SECOND), (0, 5), (SECOND / 2, 5)];
    assert_eq!(
        shown(&steps),
        [10, 2 * SECOND, 2 * SECOND + 5, 2 * SECOND + 10]
    );
}

#[test]
fn a_counter_that_goes_back_is_given_up_unless_a_processor_was_a_little_behind() {
    let set = Set::default();
    let clock = set.clock();
    set.pass(10, 10);
    assert_eq!(clock.now(), 100 * SECOND + 10);
    set.back(900_000);
    assert_eq!(clock.now(), 100 * SECOND, "no earlier than the floor");
    set.pass(900_000, 0);
    assert_eq!(clock.now(), 100 * SECOND + 10);
    set.back(2_000_000);
    assert_eq!(clock.now(), 101 * SECOND, "the end of the line");
    set.pass(3_000_000, 2 * SECOND);
    assert_eq!(clock.now(), 102 * SECOND + 10, "the system's");
}

#[test]
fn a_counter_that_goes_back_by_less_than_it_may_be_off_is_given_up_all_the_same() {
    let set = Set::default();
    let clock = set.clock();
    set.pass(SECOND, SECOND);
    assert_eq!(clock.now(), 101 * SECOND, "the second line");
    set.back(990_000);
    assert_eq!(clock.now(), 102 * SECOND, "its end");
    set.pass(0, 3 * SECOND);
    assert_eq!(clock.now(), 104 * SECOND, "the system's");
}

#[test]
fn what_was_read_with_an_interruption_between_is_no_measure() {
    /// Reads a counter that goes on by so many ticks with each reading, over and over.
    struct Interrupted(AtomicU64, [u64; 4]);

    impl Clocks for Interrupted {
        fn ticks(&self) -> u64 {
            let reading = self.0.fetch_add(1, Relaxed) as usize;
            self.1.iter().cycle().take(reading).sum()
        }

        fn system(&self) -> Nanos {
            self.ticks()
        }
    }

    let source = Interrupted(AtomicU64::new(0), [500, 9, 11, 700]);
    let clock = CounterClock::new(source, 1 << 40, SECOND);
    let (ticks, system, doubt) = clock.both();
    assert_eq!(doubt, 20);
    assert_eq!(ticks + 1, system + 2, "the middle is {ticks}");
}

proptest! {
    #[test]
    fn it_never_goes_back_and_is_off_by_no_more_than_the_counter_in_a_second(
        steps in prop::collection::vec(
            (prop_oneof![0..1_000u64, 0..SECOND, 0..9 * SECOND], 0..100u64, any::<bool>()), 1..100),
    ) {
        let set = Set::default();
        let clock = set.clock();
        let mut last = clock.now();
        for (passed, millionths, is_fast) in steps {
            let off = passed / 1_000_000 * millionths;
            set.pass(if is_fast { passed + off } else { passed - off }, passed);
            let now = clock.now();
            prop_assert!(now >= last);
            last = now;
            // A line drifts for a second, by 100 ns a millisecond; and each step rounds a tick down.
            let system = (&set).system();
            prop_assert!(now.abs_diff(system) <= 100_200 + 200, "{} and {}", now, system);
        }
    }

    #[test]
    fn it_goes_back_by_no_more_than_a_line_whatever_the_counter_does(
        steps in prop::collection::vec(
            (prop_oneof![
                Just(0u64),
                0..SECOND,
                (0..SECOND).prop_map(u64::wrapping_neg),
                any::<u64>(),
            ], 0..2 * SECOND), 1..50),
    ) {
        let set = Set::default();
        let clock = set.clock();
        let mut last = clock.now();
        for (ticks, passed) in steps {
            set.ticks.fetch_add(ticks, Relaxed);
            set.system.fetch_add(passed, Relaxed);
            let now = clock.now();
            // Within a line the counter itself may go back, which no clock that reads it can mend. A tick is two
            // nanoseconds here.
            prop_assert!(now + 2 * SECOND + 4_000_000 >= last, "{} after {}", now, last);
            last = now.max(last);
        }
    }
}
