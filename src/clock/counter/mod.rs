//! A clock by the processor's counter that follows the clock of the operating system, and goes back only if the counter
//! does.
//!
//! # Lines
//!
//! Time is a *line*: so many nanoseconds for each tick, from a moment on. A line holds within its *reach*, a second of
//! ticks. A thread that finds the counter beyond it reads the operating system's clock and draws the next line through
//! that moment, at the same slope. One thread does that; others, until it has done so, read the operating system's
//! clock. Nobody waits for anybody.
//!
//! Where the line was behind the operating system's clock, time leaps forwards. Where it was ahead, time stands: no
//! reading is below the *floor*, and the floor is raised to the end of each line before the next one is drawn.
//!
//! # It never goes back
//!
//! Let one reading happen before another, in the sense of the memory model, and let the counter not go back between the
//! two. Then the second is no earlier than the first.
//!
//! Lines are numbered in the order in which they are drawn. `anchoring` lets only one thread draw, so that each knows
//! all that the one before has written. Line `k` holds from `since[k]` on, and its *end* is what it shows when its
//! reach ends. Before line `k + 1` is drawn the floor is raised to the end of line `k`. Whoever draws writes `floor`,
//! `line`, `since`, with release; whoever reads loads `since`, `line`, `floor`, with acquire, and the counter after
//! them. So
//!
//! 1. a thread that has `since[j]` has a line `k` that is no older, `k ≥ j`, and has a floor that is no lower than the
//!    end of line `k - 1`, nor than those of the lines before (the floor only rises);
//! 2. a reading of a line is within `since[j]` and its reach with `j ≤ k`, and `since` only grows, so it is no later
//!    than the end of line `k`, however late the counter was read after `line` was loaded;
//! 3. a later reader loads `since` and `line` no older than an earlier reader (coherence).
//!
//! Let the first reading be one of line `k`, and the second one of line `m`; `m ≥ k` by 3. If `m = k`, the counter has
//! not gone back, and a line only rises. If `m > k`, the second is no lower than its floor, which by 1 is no lower than
//! the end of line `k`, and so by 2 than the first reading.
//!
//! A thread that finds the counter beyond the reach and does not draw takes the later of the operating system's clock,
//! of the end of the line that it has loaded, and of the floor, and raises the floor to that before it returns: that is
//! no earlier than any reading of that line (2, 3), and all later readings are no lower than the floor. If the counter
//! has been given up, readings are those of the operating system's clock, which does not go back, above a floor that
//! nobody raises from then on but those who came before. A reading of a line that happens before one of these was no
//! later than the end of that line, which the floor was raised to when the counter was given up.
//!
//! No argument above needs an order between the counter and memory but one: that the second reading's counter was read
//! after the first one's. A processor may read its counter a little ahead of the load through which a thread learns of
//! another's reading. [`CounterClock::now_ordered`] reads the operating system's clock first, which keeps the processor
//! from that (Linux: `lfence` or `rdtscp` on x86-64, `isb` on AArch64). A count that is read ahead is too early by some
//! hundred instructions at most: [`CounterClock::now`] may be earlier by that than a reading of *another* thread. A
//! charge does not mind, for its bound holds whatever the order of readings; giving back does, see
//! [`crate::limiter::bucket`].
//!
//! # When the counter is given up
//!
//! A line is compared with the operating system's clock when its reach has ended. If the counter lies before it, or was
//! off by more than 1 ms, a 512th of the time that has passed and what the two readings are in doubt by, its reach is
//! set to nothing, for good. Since no line is read beyond its reach, a counter that leaps ahead by an hour moves time
//! by a second at most.

#[cfg(all(test, throttle_loom))]
mod loom_tests;
#[cfg(test)]
mod tests;

use std::time::Instant;

use super::{Nanos, nanos};
use crate::sync::{AtomicU64, Ordering};

/// Two clocks: the counter, and the one that it is compared with.
pub(super) trait Clocks {
    /// Reads the counter.
    fn ticks(&self) -> u64;

    /// Reads the operating system's monotonic clock, which does not go back. Orders what is read after it behind what
    /// was loaded before it.
    fn system(&self) -> Nanos;
}

/// The processor's counter, or what `quanta` reads in its place.
#[derive(Debug)]
pub(super) struct Processor {
    counter: quanta::Clock,
    start: Instant,
    /// The time that is shown at `start`.
    shown: Nanos,
}

impl Clocks for Processor {
    #[inline]
    fn ticks(&self) -> u64 {
        self.counter.raw()
    }

    fn system(&self) -> Nanos {
        self.shown.saturating_add(nanos(self.start.elapsed()))
    }
}

/// A clock by the processor's counter. See the [module](self) for how it goes.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct CounterClock<S = Processor> {
    source: S,
    /// Nanoseconds in 2⁴⁰ ticks.
    slope: u64,
    /// The count from which lines are reckoned: no line holds before it.
    zero: u64,
    /// The ticks by which a line holds before the moment through which it was drawn: a processor that is a little
    /// behind another does not make the counter one that went back.
    slack: u64,
    /// The count from which the line holds.
    since: AtomicU64,
    /// The moment of the line at `zero`, in two's complement.
    line: AtomicU64,
    /// The moment that no reading is below.
    floor: AtomicU64,
    /// The ticks for which a line holds. 0: the counter has been given up.
    reach: AtomicU64,
    /// 1 while a thread draws the next line.
    anchoring: AtomicU64,
}

/// A reading of a line: the moment, or the end of the line if the counter is beyond it.
enum LineReading {
    Now(Nanos),
    Beyond(Nanos),
}

impl CounterClock {
    /// A clock that shows this now.
    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    pub(super) fn start(counter: quanta::Clock, shown: Nanos) -> Self {
        const SECOND: u128 = 1_000_000_000;
        let slope = counter.delta_as_nanos(0, 1 << Self::SHIFT).max(1);
        let second = (SECOND << Self::SHIFT) / u128::from(slope);
        let source = Processor {
            counter,
            start: Instant::now(),
            // The first line, which holds a little before that too, has no moment below zero.
            shown: shown.max(Self::OFF),
        };
        Self::new(source, slope, u64::try_from(second).unwrap_or(u64::MAX / 4))
    }
}

impl<S: Clocks> CounterClock<S> {
    const SHIFT: u32 = 40;

    /// The most that the counter may be off beside a [`SHARE`](Self::SHARE) of the time that has passed, in
    /// nanoseconds.
    const OFF: u64 = 1_000_000;
    const SHARE: u64 = 512;

    /// A clock that shows what the other clock of the source does, whose lines hold for `second` ticks and a
    /// thousandth.
    fn new(source: S, slope: u64, second: u64) -> Self {
        let slack = second >> 10;
        let shown = source.system();
        let zero = source.ticks().wrapping_sub(slack);
        let clock = Self {
            source,
            slope,
            zero,
            slack,
            since: AtomicU64::new(zero),
            line: AtomicU64::new(0),
            floor: AtomicU64::new(shown),
            reach: AtomicU64::new(second + slack),
            anchoring: AtomicU64::new(0),
        };
        let before = clock.reckon(0, zero.wrapping_add(slack));
        let line = shown.wrapping_sub(before);
        clock.line.store(line, Ordering::Relaxed);
        clock
    }

    /// Now: see the [module](self) for what it is never earlier than.
    #[inline]
    pub(super) fn now(&self) -> Nanos {
        match self.read() {
            LineReading::Now(now) => now,
            LineReading::Beyond(_) => self.now_beyond(),
        }
    }

    /// Now, read after all that this thread has loaded before: never earlier than a reading that happened before.
    #[inline(never)]
    pub(super) fn now_ordered(&self) -> Nanos {
        self.source.system();
        self.now()
    }

    /// The moment of a line at a count.
    #[inline]
    fn reckon(&self, line: u64, ticks: u64) -> Nanos {
        let ticks = u128::from(ticks.wrapping_sub(self.zero));
        let passed = (ticks * u128::from(self.slope)) >> Self::SHIFT;
        line.wrapping_add(passed as u64)
    }

    /// Reads the counter by the line. The order of the loads matters.
    #[inline]
    fn read(&self) -> LineReading {
        let since = self.since.load(Ordering::Acquire);
        let line = self.line.load(Ordering::Acquire);
        let floor = self.floor.load(Ordering::Acquire);
        let reach = self.reach.load(Ordering::Acquire);
        let ticks = self.source.ticks();
        match ticks.wrapping_sub(since) < reach {
            true => LineReading::Now(self.reckon(line, ticks).max(floor)),
            false => LineReading::Beyond(self.reckon(line, since.wrapping_add(reach))),
        }
    }

    /// Finishes [`now`](Self::now) beyond the line.
    #[cold]
    #[inline(never)]
    fn now_beyond(&self) -> Nanos {
        if self.reach.load(Ordering::Acquire) > 0 && self.claim() {
            // Another may have drawn the line since.
            if let LineReading::Beyond(end) = self.read() {
                self.anchor(end);
            }
            self.anchoring.store(0, Ordering::Release);
        }
        let system = self.source.system();
        let now = match self.read() {
            LineReading::Now(now) => return now,
            LineReading::Beyond(end) => system.max(end),
        };
        match self.reach.load(Ordering::Acquire) {
            // The floor has been raised to the end of the last line.
            0 => system.max(self.floor.load(Ordering::Acquire)),
            _ => now.max(self.floor.fetch_max(now, Ordering::AcqRel)),
        }
    }

    fn claim(&self) -> bool {
        let claimed = self
            .anchoring
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
        claimed.is_ok()
    }

    /// Draws the next line through the present moment of the operating system's clock, or gives up the counter. `end`
    /// is that of the present line, which lies behind. The caller has claimed it.
    fn anchor(&self, end: Nanos) {
        let since = self.since.load(Ordering::Acquire);
        let line = self.line.load(Ordering::Acquire);
        let reach = self.reach.load(Ordering::Acquire);
        self.floor.fetch_max(end, Ordering::AcqRel);
        let (ticks, system, doubt) = self.both();
        let shown = self.reckon(line, ticks);
        let passed = system.saturating_sub(self.reckon(line, since));
        let has_gone_back = !(reach / 2..u64::MAX / 2).contains(&ticks.wrapping_sub(since));
        if has_gone_back || shown.abs_diff(system) > passed / Self::SHARE + Self::OFF + doubt {
            self.reach.store(0, Ordering::Release);
            return;
        }
        let next = line.wrapping_add(system.wrapping_sub(shown));
        self.line.store(next, Ordering::Release);
        let since = ticks.wrapping_sub(self.slack);
        self.since.store(since, Ordering::Release);
    }

    /// Reads both clocks at the same moment, and the nanoseconds by which they may be apart all the same: those of the
    /// shortest of a few tries, for a thread may be interrupted between two readings.
    fn both(&self) -> (u64, Nanos, u64) {
        const TRIES: u32 = if cfg!(throttle_loom) { 1 } else { 5 };
        let mut best = (0, 0, u64::MAX);
        for _ in 0..TRIES {
            let before = self.source.ticks();
            let system = self.source.system();
            let between = self.source.ticks().wrapping_sub(before);
            if between < best.2 {
                best = (before.wrapping_add(between / 2), system, between);
            }
        }
        let (ticks, system, between) = best;
        let doubt = self.reckon(0, self.zero.wrapping_add(between));
        (ticks, system, doubt)
    }
}
