//! The clock by the processor's counter against the operating system's, for so many seconds, or 5.
//!
//! Two threads more than there are processors read it, some of them at once and some after pauses. It fails if a
//! reading is further from the operating system's clock than [`MOST`], or earlier than one that happened before.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use tower_throttle::{__bench::LocalClock, Clock};

/// What the clock may be off, in nanoseconds: a counter that was calibrated worse than to 250 millionths, and drifts
/// for a second.
const MOST: u64 = 250_000;

/// Each reading lies between two of the operating system's clock. What it is outside of them it is off.
#[derive(Debug, Default)]
struct Told {
    readings: AtomicU64,
    /// The most that a reading was ahead.
    ahead: AtomicU64,
    /// The most that a reading was behind.
    behind: AtomicU64,
    /// The latest reading.
    latest: AtomicU64,
    /// Readings that were ordered, and earlier than one before.
    earlier: AtomicU64,
    /// The most that one which was not ordered was earlier than one before.
    read_ahead: AtomicU64,
}

/// The operating system's clock, as it showed the same as the other one at the start.
struct System {
    start: Instant,
    shown: u64,
}

impl System {
    /// Of a thousand tries, that in which the two were read closest to each other.
    fn beside(clock: &LocalClock) -> Self {
        let tries = (0..1_000).map(|_| {
            let start = Instant::now();
            let shown = clock.now();
            (start.elapsed(), Self { start, shown })
        });
        let (_, system) = tries
            .min_by_key(|(between, _)| *between)
            .expect("a thousand");
        system
    }

    fn now(&self) -> u64 {
        self.shown + nanos(self.start.elapsed())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("no centuries")
}

fn read(clock: &LocalClock, system: &System, told: &Told, is_ordered: bool) {
    let known = told.latest.load(Ordering::Acquire);
    let before = system.now();
    let now = match is_ordered {
        true => clock.now_ordered(),
        false => clock.now(),
    };
    let after = system.now();
    if is_ordered {
        told.earlier
            .fetch_add(u64::from(now < known), Ordering::Relaxed);
    } else {
        told.read_ahead
            .fetch_max(known.saturating_sub(now), Ordering::Relaxed);
    }
    told.ahead
        .fetch_max(now.saturating_sub(after), Ordering::Relaxed);
    told.behind
        .fetch_max(before.saturating_sub(now), Ordering::Relaxed);
    told.readings.fetch_add(1, Ordering::Relaxed);
    told.latest.fetch_max(now, Ordering::AcqRel);
}

/// Nanoseconds of a reading, the least of a few rounds.
fn cost<T>(reading: impl Fn() -> T) -> f64 {
    const READINGS: u32 = 1_000_000;
    let round = |_| {
        let start = Instant::now();
        (0..READINGS).for_each(|_| {
            black_box(reading());
        });
        start.elapsed().as_secs_f64() * 1e9 / f64::from(READINGS)
    };
    (0..7).map(round).fold(f64::INFINITY, f64::min)
}

pub fn drive(seconds: Option<&str>) {
    let seconds = seconds.map_or(5, |seconds| seconds.parse().expect("seconds"));
    let length = Duration::from_secs(seconds);
    let counter = LocalClock::of(&Clock::counter());
    let tokio = LocalClock::of(&Clock::tokio());
    println!(
        "ns of a reading: the standard library's {:.1}, tokio's {:.1}, the counter {:.1}, ordered {:.1}",
        cost(Instant::now),
        cost(|| tokio.now()),
        cost(|| counter.now()),
        cost(|| counter.now_ordered())
    );

    let raw = quanta::Clock::new();
    let system = System::beside(&counter);
    let (alone, start) = (raw.raw(), Instant::now());
    let told = Told::default();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for number in 0..processors + 2 {
            let (counter, system, told) = (&counter, &system, &told);
            scope.spawn(move || {
                let mut pauses = [0, 3, 900, 1_300, 40].into_iter().cycle().skip(number);
                while start.elapsed() < length {
                    (0..1_000).for_each(|reading| read(counter, system, told, reading % 2 == 0));
                    if number >= processors - 1 {
                        thread::sleep(Duration::from_millis(pauses.next().expect("a cycle")));
                    }
                }
            });
        }
    });
    let (end, passed) = (raw.raw(), nanos(start.elapsed()));
    let counted = raw.delta_as_nanos(alone, end);
    let millionths = (counted as f64 - passed as f64) / passed as f64 * 1e6;
    println!(
        "the counter alone, in {:.1} s: off by {millionths:.3} millionths",
        passed as f64 / 1e9
    );
    println!("{told:?}");
    let off = told.ahead.into_inner().max(told.behind.into_inner());
    assert!(off <= MOST, "off by {off} ns, {MOST} may be");
    assert_eq!(told.earlier.into_inner(), 0, "it has gone back");
}
