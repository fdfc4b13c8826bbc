//! The one place that reads time.
//!
//! Decisions use [`tokio::time::Instant`]: monotonic, and deterministic under `tokio::time::pause()`.
//! A decision reads the clock once and passes the value on.
//!
//! The wall clock is read once, when the throttle is made, and counted on from there on the monotonic clock: so that
//! a wall clock that is set back gives no window of a quota twice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use tokio::time::Instant;

/// A point in time: nanoseconds since the Unix epoch.
///
/// At most [`Clock::MAX`], in the year 2116; then time stands still.
pub(crate) type Nanos = u64;

/// A monotonic clock that shows what the wall clock did when the throttle was made, and goes on from there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    /// What it showed then.
    shown: Nanos,
}

impl Clock {
    /// The last point in time this clock tells. Leaves room for a full debt above it.
    pub(crate) const MAX: Nanos = 1 << 62;

    /// The last at which it starts, in the year 2079: so that time does not stand still where a wall clock has gone
    /// astray.
    const LATEST: Nanos = Self::MAX - (1 << 60);

    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    pub(crate) fn start() -> Self {
        let shown = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::started_at(shown.map_or(0, nanos))
    }

    /// A clock that starts now and shows this.
    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    pub(crate) fn started_at(shown: Nanos) -> Self {
        Self {
            start: Instant::now(),
            shown: shown.min(Self::LATEST),
        }
    }

    /// A point in time as the runtime's timers have it.
    pub(crate) fn instant(&self, at: Nanos) -> Instant {
        let later = at.min(Self::MAX).saturating_sub(self.shown);
        self.start + Duration::from_nanos(later)
    }

    /// Now. Never earlier than a value read before.
    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        let passed = nanos(Instant::now().saturating_duration_since(self.start));
        self.shown.saturating_add(passed).min(Self::MAX)
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
        let clock = Clock::started_at(1_000);
        assert_eq!(clock.now(), 1_000);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(clock.now(), 5_001_000);
        assert_eq!(
            clock.instant(5_001_000),
            clock.start + Duration::from_millis(5)
        );
        assert_eq!(clock.instant(0), clock.start, "not before it has begun");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_has_gone_astray_leaves_decades() {
        let clock = Clock::started_at(u64::MAX);
        let decades = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        let before = clock.now();
        tokio::time::advance(decades).await;
        assert_eq!(clock.now() - before, nanos(decades));
        tokio::time::advance(decades).await;
        assert_eq!(clock.now(), Clock::MAX);
    }
}
