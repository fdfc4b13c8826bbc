//! The one place that reads time.
//!
//! A [`Timeline`] is what a throttle decides by. Its clock is [`tokio::time::Instant`], monotonic and deterministic
//! under `tokio::time::pause()`, unless another [`Clock`] was chosen: the processor's [`counter`].
//! A decision reads the timeline once and passes the value on.
//!
//! The wall clock is read when the throttle is made, and counted on from there on the monotonic clock: so that
//! a wall clock that is set back gives no window of a quota twice.
//!
//! # A machine that was suspended
//!
//! The monotonic clock stands while a machine is suspended, and the wall clock goes on. So the wall clock is read again
//! for the moments that others compare with clocks of their own: those that are told to clients, and the end of what a
//! store has leased. Decisions stay on the monotonic clock: after a suspension, buckets have refilled nothing of that
//! time, and windows of quotas end later by it. Both err against the caller.

#[cfg(feature = "quanta")]
mod counter;
mod setting;

#[cfg(feature = "quanta")]
use std::sync::Arc;
#[cfg(feature = "test-util")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use tokio::time::Instant;

#[cfg(feature = "quanta")]
use self::counter::CounterClock;
pub use self::setting::Clock;

/// A point in time: nanoseconds since the Unix epoch.
///
/// At most [`Timeline::MAX`], in the year 2116; then time stands still.
pub(crate) type Nanos = u64;

/// The time of a throttle: what the wall clock showed when the throttle was made, and goes on from there by a monotonic
/// clock. Clones go by the same clock.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    runtime: RuntimeClock,
    /// The clock that was chosen in the runtime's place.
    #[cfg(feature = "quanta")]
    counter: Option<Arc<CounterClock>>,
}

/// The monotonic clock of the async runtime, which tests can pause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RuntimeClock {
    start: Instant,
    /// The time that the clock showed at `start`.
    shown: Nanos,
    wall: Wall,
}

/// The wall clock, as it has gone on since it was counted from.
#[derive(Debug, Clone, Copy)]
enum Wall {
    /// The system's. Its lead is what it has gone on beyond the system's own monotonic clock, which was read here: so
    /// that a paused [`Instant`] is none.
    System(std::time::Instant),
    /// A wall clock that goes with the monotonic clock.
    Counted,
    /// A wall clock that goes with the monotonic clock, and is ahead of it by so many nanoseconds.
    #[cfg(feature = "test-util")]
    Ahead(&'static AtomicU64),
}

/// One moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// By the clock that decides.
    pub(crate) now: Nanos,
    /// By the wall clock.
    pub(crate) wall: Nanos,
}

impl Timeline {
    /// The last point in time that is told. Leaves room for a full debt above it.
    pub(crate) const MAX: Nanos = 1 << 62;

    /// The last at which it starts, in the year 2079: so that time does not stand still where a wall clock has gone
    /// astray.
    const LATEST: Nanos = Self::MAX - (1 << 60);

    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    pub(crate) fn start() -> Self {
        let start = std::time::Instant::now();
        let shown = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::of(RuntimeClock {
            wall: Wall::System(start),
            ..RuntimeClock::started_at(shown.map_or(0, nanos))
        })
    }

    /// A timeline that starts now and shows this, as does its wall clock.
    #[cfg(test)]
    pub(crate) fn started_at(shown: Nanos) -> Self {
        Self::of(RuntimeClock::started_at(shown))
    }

    /// A timeline that starts now and shows this, whose wall clock can be [put forward](Self::suspend).
    #[cfg(feature = "test-util")]
    pub(crate) fn suspendable_at(shown: Nanos) -> Self {
        Self::of(RuntimeClock {
            // Tests make few of them.
            wall: Wall::Ahead(Box::leak(Box::default())),
            ..RuntimeClock::started_at(shown)
        })
    }

    fn of(runtime: RuntimeClock) -> Self {
        Self {
            runtime,
            #[cfg(feature = "quanta")]
            counter: None,
        }
    }

    /// Goes on by this clock, from the moment that the present one shows. For the one choice of a throttle's clock.
    pub(crate) fn by(self, clock: &Clock) -> Self {
        match clock.kind() {
            setting::ClockKind::Tokio => self,
            #[cfg(feature = "quanta")]
            setting::ClockKind::Counter(counter) => {
                let counter = CounterClock::start(counter.clone(), self.now());
                Self {
                    counter: Some(Arc::new(counter)),
                    ..self
                }
            }
        }
    }

    /// Puts the wall clock forward by so many nanoseconds while this clock stands. Without effect on a timeline that
    /// was not made by [`suspendable_at`](Self::suspendable_at).
    #[cfg(feature = "test-util")]
    pub(crate) fn suspend(&self, passed: Nanos) {
        if let Wall::Ahead(ahead) = self.runtime.wall {
            ahead.fetch_add(passed, Ordering::Relaxed);
        }
    }

    /// The runtime's clock, whichever was chosen: for those who ask for the wall clock alone.
    pub(crate) fn runtime(&self) -> &RuntimeClock {
        &self.runtime
    }

    /// A point in time as the runtime's timers have it. By a clock that was chosen, it is told from now on: a timer
    /// may end before that clock shows the moment, by what the two have drifted apart meanwhile.
    #[cfg_attr(
        feature = "quanta",
        expect(clippy::disallowed_methods, reason = "the clock's own reading")
    )]
    pub(crate) fn instant(&self, at: Nanos) -> Instant {
        #[cfg(feature = "quanta")]
        if let Some(counter) = &self.counter {
            let remains = at.min(Self::MAX).saturating_sub(counter.now());
            return Instant::now() + Duration::from_nanos(remains);
        }
        self.runtime.instant(at)
    }

    /// Now. As long as the clock that was chosen does not go back, never earlier than a value that this thread has read
    /// before, nor, but for what a processor reads ahead,
    /// than one of another thread that it knows of: for that see [`now_ordered`](Self::now_ordered).
    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        #[cfg(feature = "quanta")]
        if let Some(counter) = &self.counter {
            return counter.now().min(Self::MAX);
        }
        self.runtime.now()
    }

    /// Now, read after everything that this thread has loaded so far: never earlier than a reading of another thread
    /// that happened before. Costs more than [`now`](Self::now) where a counter was chosen.
    #[inline]
    pub(crate) fn now_ordered(&self) -> Nanos {
        #[cfg(feature = "quanta")]
        if let Some(counter) = &self.counter {
            return counter.now_ordered().min(Self::MAX);
        }
        self.runtime.now()
    }

    /// The moment of the wall clock. Earlier than one that was read before, if it was set back.
    pub(crate) fn wall(&self) -> Nanos {
        self.runtime.wall()
    }

    /// This moment by both clocks.
    pub(crate) fn moment(&self) -> Moment {
        self.moment_at(self.now())
    }

    /// This moment, which was read as `now` already.
    pub(crate) fn moment_at(&self, now: Nanos) -> Moment {
        self.runtime.moment_at(now)
    }
}

impl RuntimeClock {
    /// A clock that starts now and shows this, as does its wall clock.
    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    fn started_at(shown: Nanos) -> Self {
        Self {
            start: Instant::now(),
            shown: shown.min(Timeline::LATEST),
            wall: Wall::Counted,
        }
    }

    fn instant(&self, at: Nanos) -> Instant {
        let later = at.min(Timeline::MAX).saturating_sub(self.shown);
        self.start + Duration::from_nanos(later)
    }

    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    #[inline]
    fn now(&self) -> Nanos {
        let passed = nanos(Instant::now().saturating_duration_since(self.start));
        self.shown.saturating_add(passed).min(Timeline::MAX)
    }

    /// See [`Timeline::wall`].
    pub(crate) fn wall(&self) -> Nanos {
        self.moment_at(self.now()).wall
    }

    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    fn moment_at(&self, now: Nanos) -> Moment {
        let wall = match self.wall {
            Wall::System(start) => {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH);
                let counted = self.shown.saturating_add(nanos(start.elapsed()));
                now.saturating_add(wall.map_or(0, nanos))
                    .saturating_sub(counted)
            }
            Wall::Counted => now,
            #[cfg(feature = "test-util")]
            Wall::Ahead(ahead) => now.saturating_add(ahead.load(Ordering::Relaxed)),
        };
        Moment {
            now,
            wall: wall.min(Timeline::MAX),
        }
    }
}

impl Moment {
    /// A moment whose wall clock nobody asks for.
    pub(crate) fn monotonic(now: Nanos) -> Self {
        Self { now, wall: now }
    }

    /// By so much the wall clock has to be ahead to have gone on while the machine was suspended: two clocks that are
    /// read one after the other differ a little.
    const SUSPENDED: Nanos = 50_000_000;

    /// This moment by a clock that has not stood while the machine was suspended, and that agrees with the one that
    /// decides at `then`. Never earlier than the latter, if the wall clock was set back.
    pub(crate) fn since(self, then: Self) -> Nanos {
        let wall = self.wall.saturating_add(then.now);
        let ahead = wall.saturating_sub(then.wall.saturating_add(self.now));
        match ahead > Self::SUSPENDED {
            true => self.now.saturating_add(ahead),
            false => self.now,
        }
    }
}

/// A duration in nanoseconds, saturating at `u64::MAX` (584 years).
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs();
    match seconds.checked_mul(1_000_000_000) {
        Some(whole) => whole.saturating_add(u64::from(duration.subsec_nanos())),
        None => u64::MAX,
    }
}

/// Whole seconds, rounded up.
pub(crate) fn ceil_seconds(nanos: Nanos) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_beyond_the_range_saturates() {
        assert_eq!(nanos(Duration::from_nanos(1)), 1);
        assert_eq!(nanos(Duration::from_nanos(u64::MAX)), u64::MAX);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_follows_paused_time() {
        let clock = Timeline::started_at(1_000);
        assert_eq!(clock.now(), 1_000);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(clock.now(), 5_001_000);
        assert_eq!(
            clock.instant(5_001_000),
            clock.runtime.start + Duration::from_millis(5)
        );
        assert_eq!(
            clock.instant(0),
            clock.runtime.start,
            "not before it has begun"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_has_gone_astray_leaves_decades() {
        let clock = Timeline::started_at(u64::MAX);
        let decades = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        let before = clock.now();
        tokio::time::advance(decades).await;
        assert_eq!(clock.now() - before, nanos(decades));
        tokio::time::advance(decades).await;
        assert_eq!(clock.now(), Timeline::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_runtimes_clock_that_is_chosen_is_the_one_that_there_was() {
        let clock = Timeline::started_at(1_000).by(&Clock::tokio());
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(clock.now(), 5_001_000);
        assert_eq!(clock.now_ordered(), 5_001_000);
    }

    #[cfg(feature = "quanta")]
    #[tokio::test(start_paused = true)]
    async fn the_counter_goes_on_where_the_runtimes_clock_stands() {
        const SECOND: Nanos = 1_000_000_000;
        let clock = Timeline::started_at(7 * SECOND);
        tokio::time::advance(Duration::from_secs(3)).await;
        let clock = clock.by(&Clock::counter());
        let copy = clock.clone();
        let chosen = copy.now();
        assert!(chosen >= 10 * SECOND, "from what was shown: {chosen}");
        while clock.now() < chosen + 1_000 {}
        let later = clock.now_ordered();
        assert!(copy.now() >= later);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert!(
            clock.now() < later + 1_800 * SECOND,
            "no pause, and no advance"
        );
        // The remaining time is counted from now.
        let now = clock.now();
        let remains = clock.instant(now + 60 * SECOND) - clock.runtime.start;
        let most = Duration::from_secs(3_603 + 60);
        assert!(remains <= most && remains > most - Duration::from_secs(60));
        let passed = clock.instant(0) - clock.runtime.start;
        assert_eq!(passed, Duration::from_secs(3_603), "not before now");
    }
}
