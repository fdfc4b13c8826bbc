//! The ends of windows: calendar arithmetic in UTC, in integers.

use super::quota::Window;
use crate::clock::{Nanos, nanos};

const DAY: u64 = 24 * 60 * 60 * 1_000_000_000;

impl Window {
    /// The first moment that no longer belongs to the window of `now`. Later than `now`.
    ///
    /// Never inlined: it has no side effects, so that compilers work it out for limits that are no quotas too.
    #[inline(never)]
    pub(crate) fn end(self, now: Nanos) -> Nanos {
        match self {
            Self::Day => (now / DAY + 1) * DAY,
            // The epoch was a Thursday: three days into its week.
            Self::Week => ((now / DAY + 3) / 7 * 7 + 4) * DAY,
            Self::Month => month_end(now / DAY) * DAY,
            Self::Every(length) => {
                let length = nanos(length).max(1);
                (now / length).saturating_add(1).saturating_mul(length)
            }
        }
    }
}

/// The day (since the Unix epoch) on which the month after that of `day` begins.
fn month_end(day: u64) -> u64 {
    let March {
        era,
        year,
        first,
        month,
        ..
    } = March::of(day);
    // March is 0, so February, whose end is that of the year, is 11.
    let end = if month == 11 {
        let year = year + 1;
        year * 365 + year / 4 - year / 100 + year / 400
    } else {
        first + (153 * (month + 1) + 2) / 5
    };
    era * March::ERA + end - March::EPOCH
}

/// A second since the Unix epoch as RFC 3339 writes it: `2026-11-23T03:30:01Z`.
pub(crate) fn date(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let March {
        era,
        year,
        month,
        day,
        ..
    } = March::of(days);
    // Back to a year that begins in January.
    let (year, month) = match month {
        ..10 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A day in years that begin with March, so that a leap day comes last, in eras of 400 years, which all have the
/// same number of days.
struct March {
    era: u64,
    year: u64,
    /// The first day of the year, in its era.
    first: u64,
    /// From 0.
    month: u64,
    /// The day of the month, from 1.
    day: u64,
}

impl March {
    const ERA: u64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;

    /// A day since the Unix epoch.
    fn of(day: u64) -> Self {
        let day = day + Self::EPOCH;
        let (era, day) = (day / Self::ERA, day % Self::ERA);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let first = year * 365 + year / 4 - year / 100;
        let month = (5 * (day - first) + 2) / 153;
        Self {
            era,
            year,
            first,
            month,
            day: day - first - (153 * month + 2) / 5 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timeline;

    /// Days from the Unix epoch to a date, counted one by one.
    fn days(year: u64, month: usize, day: u64) -> u64 {
        let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = |year: u64| {
            let february = if leap(year) { 29 } else { 28 };
            [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let years: u64 = (1970..year)
            .map(|year| lengths(year).iter().sum::<u64>())
            .sum();
        years + lengths(year)[..month - 1].iter().sum::<u64>() + day - 1
    }

    #[test]
    fn every_month_from_1970_to_2500_ends_where_the_next_begins() {
        for year in 1970..2500 {
            for month in 1..=12 {
                let (next_year, next) = if month == 12 {
                    (year + 1, 1)
                } else {
                    (year, month + 1)
                };
                let (first, end) = (days(year, month, 1), days(next_year, next, 1));
                for day in first..end {
                    assert_eq!(month_end(day), end, "{year}-{month}, day {day}");
                }
            }
        }
    }

    #[test]
    fn every_day_from_1970_to_2500_has_its_date() {
        for year in 1970..2500 {
            for month in 1..=12 {
                let next = match month {
                    12 => days(year + 1, 1, 1),
                    _ => days(year, month + 1, 1),
                };
                let first = days(year, month, 1);
                for day in [first, first + 14, next - 1] {
                    let of_month = day - first + 1;
                    let expected = format!("{year}-{month:02}-{of_month:02}T03:30:01Z");
                    assert_eq!(date(day * 86_400 + 12_601), expected);
                }
            }
        }
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert!(date(u64::MAX).ends_with('Z'), "no input overflows");
    }

    #[test]
    fn windows_end_at_midnight_at_monday_at_the_first_and_at_multiples() {
        let hour = DAY / 24;
        let every = |seconds| Window::Every(Duration::from_secs(seconds));
        // (window, a moment, the end of its window)
        let table = [
            (
                Window::Day,
                days(2026, 11, 23) * DAY,
                days(2026, 11, 24) * DAY,
            ),
            (
                Window::Day,
                days(2026, 11, 24) * DAY - 1,
                days(2026, 11, 24) * DAY,
            ),
            (
                Window::Day,
                days(2028, 2, 28) * DAY + hour,
                days(2028, 2, 29) * DAY,
            ),
            (
                Window::Week,
                days(2026, 11, 22) * DAY,
                days(2026, 11, 23) * DAY,
            ),
            (
                Window::Week,
                days(2026, 11, 23) * DAY,
                days(2026, 11, 30) * DAY,
            ),
            (
                Window::Week,
                days(2026, 11, 29) * DAY,
                days(2026, 11, 30) * DAY,
            ),
            (
                Window::Week,
                days(2026, 12, 31) * DAY,
                days(2027, 1, 4) * DAY,
            ),
            (Window::Week, 0, days(1970, 1, 5) * DAY),
            (
                Window::Month,
                days(2028, 2, 28) * DAY,
                days(2028, 3, 1) * DAY,
            ),
            (
                Window::Month,
                days(2028, 2, 29) * DAY,
                days(2028, 3, 1) * DAY,
            ),
            (
                Window::Month,
                days(2027, 2, 28) * DAY,
                days(2027, 3, 1) * DAY,
            ),
            (
                Window::Month,
                days(2100, 2, 28) * DAY,
                days(2100, 3, 1) * DAY,
            ),
            (
                Window::Month,
                days(2026, 12, 31) * DAY + 23 * hour,
                days(2027, 1, 1) * DAY,
            ),
            (every(600), 1_000_000_000_000, 1_200_000_000_000),
            (every(600), 1_200_000_000_000, 1_800_000_000_000),
        ];
        for (window, moment, end) in table {
            assert_eq!(window.end(moment), end, "{window:?} at {moment}");
        }
    }

    #[test]
    fn a_window_never_ends_before_it_has_begun_even_at_the_end_of_time() {
        for window in [
            Window::Day,
            Window::Week,
            Window::Month,
            Window::Every(Duration::MAX),
        ] {
            for now in [0, Timeline::MAX] {
                assert!(window.end(now) > now, "{window:?} at {now}");
            }
        }
    }
}
