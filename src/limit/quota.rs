//! A count in a window.

use std::{borrow::Cow, fmt, time::Duration};

/// A number of requests in a fixed window of time, which starts again when the window ends.
///
/// Days, weeks and months are those of the calendar in UTC: they end at midnight, at midnight before Monday, and at
/// midnight before the first. A window of any other length is counted from the Unix epoch. A refusal states the exact
/// time to the window's end.
///
/// A quota does not pace: all of it may be used at once, and twice as much around the end of a window. To pace, add a
/// [`Rate`](crate::Rate).
///
/// ```
/// use std::time::Duration;
/// use tower_throttle::{Limits, Quota, Rate};
///
/// let free = Limits::new()
///     .rate(Rate::per_second(1).burst(5))
///     .quota(Quota::per_day(1_000));
/// let ten_minutes = Quota::per(100, Duration::from_secs(600));
/// # let _ = (free, ten_minutes);
/// ```
///
/// # Restarts
///
/// Quotas are kept in the memory of the process, and a restart makes all of them whole. In a
/// [store](crate::ThrottleLayerBuilder::store) they survive, for all replicas together.
///
/// # Zero and the maximum
///
/// A quota of zero is a **closed** limit: it refuses every request. A window of zero or of more than 2⁶¹ nanoseconds
/// (73 years), and a quota of more requests than its window has nanoseconds, are errors of
/// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
///
/// The wall clock is read once, when the layer is made. From then on windows end by the monotonic clock, so that
/// setting the wall clock moves no window. On a suspended machine windows end later, by the time of the suspension.
/// Windows in a [store](crate::ThrottleLayerBuilder::store) follow the store's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Quota {
    count: u64,
    window: Window,
    name: Option<Cow<'static, str>>,
    shadow: bool,
}

/// The window of a quota, at whose end all its units are available again.
///
/// [`Budget::full_state`](crate::store::Budget::full_state) is the end of the window at a given time. A store that
/// computes the end by its own clock gets the same result for all four kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// A day, from midnight to midnight UTC.
    Day,
    /// A week, from Monday to Sunday UTC (ISO 8601). The Unix epoch was a Thursday, the fourth day of its week.
    Week,
    /// A calendar month, from the first to the last day UTC.
    Month,
    /// A window of this length, counted from the Unix epoch. From 1 to 2⁶¹ nanoseconds (73 years).
    Every(Duration),
}

/// The words after "in": `a day`, `90s`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day => f.write_str("a day"),
            Self::Week => f.write_str("a week"),
            Self::Month => f.write_str("a month"),
            Self::Every(length) => write!(f, "{length:?}"),
        }
    }
}

impl Quota {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Creates a quota of `count` requests in each window of this length, counted from the Unix epoch.
    pub const fn per(count: u64, window: Duration) -> Self {
        Self::new(count, Window::Every(window))
    }

    /// Creates a quota of `count` requests a day, from midnight to midnight UTC.
    pub const fn per_day(count: u64) -> Self {
        Self::new(count, Window::Day)
    }

    /// Creates a quota of `count` requests a week, from Monday to Sunday UTC (ISO 8601).
    pub const fn per_week(count: u64) -> Self {
        Self::new(count, Window::Week)
    }

    /// Creates a quota of `count` requests a calendar month, from the first to the last day UTC.
    pub const fn per_month(count: u64) -> Self {
        Self::new(count, Window::Month)
    }

    const fn new(count: u64, window: Window) -> Self {
        Self {
            count,
            window,
            name: None,
            shadow: false,
        }
    }

    /// Sets the name of this limit in header fields, answers, metrics and logs: 1 to 64 of `A-Z a-z 0-9 _`.
    ///
    /// By default it is named after its scope, route key and kind: see [`Limits::named`](crate::Limits::named).
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) returns an error for any other character, an empty name, a
    /// longer one, and a name that another limit was given.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Turns this limit into a shadow: see [`Rate::shadow`](crate::Rate::shadow).
    pub const fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    /// Returns whether this limit is a shadow, which reports but never refuses.
    #[must_use]
    pub const fn is_shadow(&self) -> bool {
        self.shadow
    }

    /// Returns the number of requests per window.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the length of a window. A month counts as 31 days, the longest.
    #[must_use]
    pub const fn window(&self) -> Duration {
        match self.window {
            Window::Day => Self::DAY,
            Window::Week => Duration::from_secs(7 * Self::DAY.as_secs()),
            Window::Month => Duration::from_secs(31 * Self::DAY.as_secs()),
            Window::Every(length) => length,
        }
    }

    /// Returns the length of the shortest window: that of February for a month.
    pub(crate) const fn shortest(&self) -> Duration {
        match self.window {
            Window::Month => Duration::from_secs(28 * Self::DAY.as_secs()),
            _ => self.window(),
        }
    }

    pub(crate) const fn kind(&self) -> Window {
        self.window
    }

    /// Returns one of `shares` equal shares.
    pub(crate) fn share(&self, shares: u32) -> Self {
        Self {
            count: (self.count / u64::from(shares.max(1))).max(1),
            ..self.clone()
        }
    }

    pub(crate) fn unnamed(self) -> Self {
        Self { name: None, ..self }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_their_lengths_and_their_names() {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        // (a quota, its longest window, its shortest, in words)
        let table = [
            (Quota::per_day(9), days(1), days(1), "a day"),
            (Quota::per_week(9), days(7), days(7), "a week"),
            (Quota::per_month(9), days(31), days(28), "a month"),
            (
                Quota::per(9, Duration::from_secs(90)),
                Duration::from_secs(90),
                Duration::from_secs(90),
                "90s",
            ),
        ];
        for (quota, longest, shortest, words) in table {
            assert_eq!(quota.window(), longest);
            assert_eq!(quota.shortest(), shortest);
            assert_eq!(quota.kind().to_string(), words);
            assert_eq!(quota.count(), 9);
        }
    }

    #[test]
    fn a_share_is_a_part_of_the_count_and_never_nothing() {
        let quota = Quota::per_day(100).named("daily").shadow();
        for (shares, count) in [(0, 100), (1, 100), (3, 33), (100, 1), (101, 1)] {
            let share = quota.share(shares);
            assert_eq!(share.count(), count, "of {shares}");
            assert_eq!(share.window(), quota.window());
            assert_eq!(share.name(), Some("daily"));
            assert!(share.is_shadow());
        }
    }

    #[test]
    fn it_is_a_shadow_and_has_a_name_if_it_was_told_so() {
        assert!(!Quota::per_day(1).is_shadow());
        assert_eq!(Quota::per_day(1).name(), None);
        let unnamed = Quota::per_day(1).named("daily").shadow().unnamed();
        assert_eq!(unnamed, Quota::per_day(1).shadow());
    }
}
