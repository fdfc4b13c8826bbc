//! A model of threads that are interrupted whenever they read the counter or the operating system's clock.
//!
//! A script tells what happens meanwhile: time passes, and other threads decide on requests and give them back, by one
//! clock and on one bucket. An interrupted thread goes on when those that came in between have ended. Interruptions
//! between two steps on atomics are left to `loom_tests`.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::{Rc, Weak},
    time::Duration,
    vec,
};

use super::*;
use crate::{
    limit::{meter::Meter, rate::Rate},
    limiter::{
        bucket::Bucket,
        meter_history::{MeterHistory, MeterStep, Version},
    },
    windows,
};

const VERSION: Version = 3;
const BURST: u64 = 2;

/// The most by which a counter that is no more than calibrated badly is off, in millionths.
const DRIFT: u64 = 500;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// Time passes: so many ticks of a counter that is right.
    Pass { ticks: u64, off: Off },
    /// Time passes until the line holds for no more than so many ticks.
    PassTo { remain: u64, off: Off },
    /// The interrupted thread goes on.
    Resume,
    /// A thread decides on a request.
    Ask { reads_ahead: bool },
    /// A thread gives back one of the requests that were admitted.
    GiveBack { which: usize, reads_ahead: bool },
}

/// The fault of a counter while time passes.
#[derive(Debug, Clone, Copy)]
enum Off {
    /// The counter is too fast or too slow by so many millionths.
    Drift { millionths: u64, is_fast: bool },
    /// The counter goes on, and the system's clock stands.
    Leap,
    /// The counter stands, and the system's clock goes on.
    Stop,
    /// The counter goes back, and the system's clock goes on.
    Back,
}

/// A reading of the clock, and the moments of the system's clock between which it was made.
#[derive(Debug, Clone, Copy)]
struct Reading {
    now: Nanos,
    between: (Nanos, Nanos),
}

/// A request that was admitted.
#[derive(Debug, Clone, Copy)]
struct Admitted {
    reading: Reading,
    /// The state that its charge has left.
    after: u64,
}

struct World {
    ticks: Cell<u64>,
    system: Cell<Nanos>,
    clock: OnceCell<CounterClock<Weak<Self>>>,
    script: RefCell<vec::IntoIter<Event>>,
    /// The most ticks that an event takes while a thread is interrupted.
    pause: u64,
    /// The count that the running thread's processor has read ahead.
    ahead: Cell<Option<u64>>,
    /// The latest reading that has ended.
    latest: Cell<Nanos>,
    /// The longest time that a reading took, by either clock.
    longest: Cell<Nanos>,
    meter: Meter,
    bucket: Bucket,
    history: MeterHistory,
    kept: RefCell<Vec<Admitted>>,
    readings: RefCell<Vec<Reading>>,
    /// `true` once the counter has gone back.
    is_back: Cell<bool>,
}

impl Clocks for Weak<World> {
    fn ticks(&self) -> u64 {
        let world = self.upgrade().expect("the world has not ended");
        if let Some(count) = world.ahead.take() {
            return count;
        }
        world.interrupt();
        world.ticks.get()
    }

    fn system(&self) -> Nanos {
        let world = self.upgrade().expect("the world has not ended");
        // The processor does not read its counter ahead of this.
        world.ahead.set(None);
        world.interrupt();
        world.system.get()
    }
}

impl World {
    fn new(interval: u64, pause: u64, script: Vec<Event>) -> Rc<Self> {
        let rate = Rate::new(1, Duration::from_nanos(interval)).burst(BURST);
        let meter = Meter::of_rate(&rate).expect("open");
        let world = Rc::new(Self {
            ticks: Cell::new(u64::MAX - 7),
            system: Cell::new(100 * SECOND),
            clock: OnceCell::new(),
            script: RefCell::default(),
            pause,
            ahead: Cell::new(None),
            latest: Cell::new(0),
            longest: Cell::new(0),
            meter,
            bucket: Bucket::full(VERSION),
            history: MeterHistory::new(Some(MeterStep {
                version: VERSION,
                since: 0,
                meter,
            })),
            kept: RefCell::default(),
            readings: RefCell::default(),
            is_back: Cell::new(false),
        });
        let clock = CounterClock::new(Rc::downgrade(&world), 2 << 40, SECOND / 2);
        assert!(world.clock.set(clock).is_ok(), "the first");
        world.script.replace(script.into_iter());
        world
    }

    fn clock(&self) -> &CounterClock<Weak<Self>> {
        self.clock.get().expect("it was set")
    }

    fn is_given_up(&self) -> bool {
        self.clock().reach.load(Relaxed) == 0
    }

    /// Returns the ticks for which the line still holds.
    fn remain(&self) -> u64 {
        let clock = self.clock();
        let reach = clock.reach.load(Relaxed);
        let passed = self.ticks.get().wrapping_sub(clock.since.load(Relaxed));
        reach.saturating_sub(passed)
    }

    /// Plays the script to its end.
    fn run(&self) {
        while let Some(event) = self.next() {
            self.happen(event, u64::MAX);
        }
    }

    fn next(&self) -> Option<Event> {
        self.script.borrow_mut().next()
    }

    /// Plays the script until the interrupted thread goes on.
    fn interrupt(&self) {
        let ahead = self.ahead.take();
        while let Some(event) = self.next() {
            match event {
                Event::Resume => break,
                event => self.happen(event, self.pause),
            }
        }
        self.ahead.set(ahead);
    }

    fn happen(&self, event: Event, most: u64) {
        match event {
            Event::Pass { ticks, off } => self.pass(ticks.min(most), off),
            Event::PassTo { remain, off } => {
                let line = self.remain().saturating_sub(remain);
                self.pass(line.min(most), off);
            }
            Event::Resume => {}
            Event::Ask { reads_ahead } => self.ask(reads_ahead),
            Event::GiveBack { which, reads_ahead } => self.give_back(which, reads_ahead),
        }
    }

    fn pass(&self, ticks: u64, off: Off) {
        let nanos = 2 * ticks;
        let (counted, passed) = match off {
            Off::Drift {
                millionths,
                is_fast,
            } => {
                let off = (u128::from(nanos) * u128::from(millionths) / 1_000_000) as u64;
                (ticks, if is_fast { nanos - off } else { nanos + off })
            }
            Off::Leap => (ticks, 0),
            Off::Stop => (0, nanos),
            Off::Back => {
                self.is_back.set(true);
                (ticks.wrapping_neg(), nanos)
            }
        };
        self.ticks.set(self.ticks.get().wrapping_add(counted));
        self.system.set(self.system.get() + passed);
    }

    /// Reads the clock, with the count that was read ahead when the system's clock showed `before`, if there is one.
    fn read(&self, ahead: Option<u64>, before: Nanos, now: impl Fn() -> Nanos) -> Reading {
        let start = (self.ticks.get(), self.system.get());
        self.ahead.set(ahead);
        let now = now();
        self.ahead.set(None);
        let after = self.system.get();
        let counted = self.ticks.get().wrapping_sub(start.0).saturating_mul(2);
        let longest = self.longest.get().max(counted).max(after - start.1);
        self.longest.set(longest);
        self.latest.set(self.latest.get().max(now));
        let reading = Reading {
            now,
            between: (before, after),
        };
        self.readings.borrow_mut().push(reading);
        reading
    }

    fn assert_not_before(&self, now: Nanos, known: Nanos) {
        assert!(now >= known || self.is_back.get(), "{now} after {known}");
    }

    fn ask(&self, reads_ahead: bool) {
        // The thread knows the readings that have ended, and may come to know of others after its count is read.
        let (known, before) = (self.latest.get(), self.system.get());
        let ahead = reads_ahead.then(|| self.ticks.get());
        if reads_ahead {
            self.interrupt();
        }
        let reading = self.read(ahead, before, || self.clock().now());
        self.assert_not_before(reading.now, known);
        self.interrupt();
        let next = |state| self.meter.take(state, reading.now, 1).ok();
        let seen = self.bucket.load();
        if let Ok(after) = self.bucket.step(seen, VERSION, &self.history, next) {
            self.kept.borrow_mut().push(Admitted { reading, after });
        }
    }

    fn give_back(&self, which: usize, reads_ahead: bool) {
        let given = match self.kept.borrow_mut() {
            kept if kept.is_empty() => return,
            mut kept => {
                let which = which % kept.len();
                kept.remove(which)
            }
        };
        let ahead = Cell::new(reads_ahead.then(|| self.ticks.get()));
        if reads_ahead {
            self.interrupt();
        }
        let clock = || {
            // The state has been loaded by now, and with it the readings by which others have charged there.
            let (known, before) = (self.latest.get(), self.system.get());
            let reading = self.read(ahead.take(), before, || self.clock().now_ordered());
            self.assert_not_before(reading.now, known);
            reading.now
        };
        let (taken, weight) = (given.reading.now, self.meter.weight(1));
        let slot = self.bucket.slot();
        slot.give_back(VERSION, given.after, &self.meter, taken, weight, clock);
    }

    /// Asserts that no reading is off the system's clock by more than this, ahead and behind.
    fn assert_near(&self, [ahead, behind]: [Nanos; 2]) {
        for Reading { now, between } in self.readings.borrow().iter() {
            assert!(
                *now <= between.1.saturating_add(ahead),
                "{now} in {between:?}"
            );
            assert!(
                now.saturating_add(behind) >= between.0,
                "{now} in {between:?}"
            );
        }
    }

    /// Asserts that what was admitted and kept obeys the bound by this clock, and by the system's, from which this one
    /// is off by no more than so much.
    fn assert_bound(&self, off: Option<Nanos>) {
        let interval = self.meter.interval();
        let kept = self.kept.borrow();
        let readings = kept.iter().map(|it| it.reading);
        let own: Vec<_> = readings.clone().map(|it| (it.now, it.now)).collect();
        assert_eq!(
            windows::too_many(&own, BURST, interval),
            None,
            "by this clock"
        );
        if let Some(off) = off {
            let spans = readings.map(
                |Reading {
                     between: (from, to),
                     ..
                 }| (from - off, to + off),
            );
            let systems: Vec<_> = spans.collect();
            assert_eq!(
                windows::too_many(&systems, BURST, interval),
                None,
                "by the system's"
            );
        }
    }
}

fn drift() -> impl Strategy<Value = Off> + Clone {
    let millionths = prop_oneof![0..DRIFT, Just(DRIFT)];
    (millionths, any::<bool>()).prop_map(|(millionths, is_fast)| Off::Drift {
        millionths,
        is_fast,
    })
}

/// Ticks, from few to those of several lines.
fn ticks() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..500u64, 3 => 0..500_000u64, 2 => 0..SECOND / 4, 1 => 0..9 * SECOND]
}

fn events(off: impl Strategy<Value = Off> + Clone) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (ticks(), off.clone()).prop_map(|(ticks, off)| Event::Pass { ticks, off }),
        2 => (0..500u64, off).prop_map(|(remain, off)| Event::PassTo { remain, off }),
        3 => Just(Event::Resume),
        4 => any::<bool>().prop_map(|reads_ahead| Event::Ask { reads_ahead }),
        2 => any::<(usize, bool)>()
            .prop_map(|(which, reads_ahead)| Event::GiveBack { which, reads_ahead }),
    ];
    prop::collection::vec(event, 1..150)
}

/// The interval of the bucket, and the most ticks that an event takes while a thread is interrupted.
fn world() -> impl Strategy<Value = (u64, u64)> {
    let interval = ticks().prop_map(|ticks| 2 * ticks + 1);
    let pause = prop_oneof![Just(0), Just(500u64), Just(500_000), Just(SECOND)];
    (interval, pause)
}

proptest! {
    #[test]
    fn a_counter_that_drifts_is_set_right_and_the_bound_holds_by_both_clocks(
        (interval, pause) in world(),
        script in events(drift()),
    ) {
        let world = World::new(interval, pause, script);
        world.run();
        // A line drifts for a second, and was drawn through the middle of the shortest of five tries. A few nanoseconds
        // are for rounding.
        let off = SECOND / 1_000_000 * DRIFT + world.longest.get() / 10 + 4;
        world.assert_near([off; 2]);
        world.assert_bound(Some(off));
        // A line that was drawn in a long interruption may be off by more than a counter is forgiven.
        if world.longest.get() < 5_000_000 {
            prop_assert!(!world.is_given_up());
        }
    }

    #[test]
    fn a_counter_that_leaps_or_stands_never_goes_back_and_is_ahead_by_a_second_at_most(
        (interval, pause) in world(),
        script in events(prop_oneof![4 => drift(), 1 => Just(Off::Leap), 1 => Just(Off::Stop)]),
    ) {
        let world = World::new(interval, pause, script);
        world.run();
        world.assert_near([SECOND + 2, u64::MAX]);
        world.assert_bound(None);
    }

    #[test]
    fn a_counter_that_goes_back_is_ahead_by_a_second_at_most(
        (interval, pause) in world(),
        script in events(prop_oneof![
            4 => drift(),
            1 => Just(Off::Leap),
            1 => Just(Off::Stop),
            1 => Just(Off::Back),
        ]),
    ) {
        // Giving back needs a clock that does not go back.
        let script = script.into_iter().filter(|event| !matches!(event, Event::GiveBack { .. }));
        let world = World::new(interval, pause, script.collect());
        world.run();
        world.assert_near([SECOND + 2, u64::MAX]);
        world.assert_bound(None);
    }
}
