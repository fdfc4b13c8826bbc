//! The one place that reads time.
//!
//! Decisions use [`tokio::time::Instant`]: monotonic, and deterministic under `tokio::time::pause()`.
//! A decision reads the clock once and passes the value on.
//!
//! The wall clock is read once, when the throttle is made: the windows of quotas are counted on from there
//! on the monotonic clock, so that a wall clock that is set back gives no window twice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use tokio::time::Instant;

/// A point in time: nanoseconds since the clock's epoch.
///
/// At most [`Clock::MAX`], about 146 years; then time stands still.
pub(crate) type Nanos = u64;

/// A monotonic clock that starts at zero when the throttle is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    epoch: Instant,
    /// The wall clock at the epoch: nanoseconds since the Unix epoch.
    origin: u64,
}

impl Clock {
    /// The last point in time this clock tells. Leaves room for a full debt above it.
    pub(crate) const MAX: Nanos = 1 << 62;

    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    pub(crate) fn start() -> Self {
        let origin = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::started_at(origin.map_or(0, nanos))
    }

    /// A clock that starts now, with a wall clock that shows `origin`.
    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    pub(crate) fn started_at(origin: u64) -> Self {
        Self {
            epoch: Instant::now(),
            origin,
        }
    }

    /// What the wall clock showed when this one stood at zero: nanoseconds since the Unix epoch.
    pub(crate) fn origin(&self) -> u64 {
        self.origin
    }

    /// A point in time as the runtime's timers have it.
    pub(crate) fn instant(&self, at: Nanos) -> Instant {
        self.epoch + Duration::from_nanos(at.min(Self::MAX))
    }

    /// Now. Never earlier than a value read before.
    #[expect(clippy::disallowed_methods, reason = "the clock's own reading")]
    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        nanos(Instant::now().saturating_duration_since(self.epoch)).min(Self::MAX)
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
        let clock = Clock::start();
        assert_eq!(clock.now(), 0);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(clock.now(), 5_000_000);
    }
}
