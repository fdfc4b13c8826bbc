//! The moments at which the windows of a quota begin.

use std::time::Duration;

use crate::limit::quota::Quota;

const DAY: i64 = 24 * 60 * 60;
const WEEK: i64 = 7 * DAY;
/// The epoch was a Thursday: three days after Monday.
const MONDAY: i64 = -3 * DAY;

/// The first window's begin if nobody says: 0001-01-01, in seconds since the Unix epoch.
pub(super) const FIRST: i64 = -62_135_596_800;

/// A quota, and how many seconds after its windows those begin that were meant.
pub(super) fn quota(calls: u32, period: u32, first: i64) -> (Quota, i64) {
    let length = i64::from(period).max(1);
    if length == WEEK {
        // Those of the calendar, which begin with Monday as those since 0001-01-01 do.
        let late = (first - MONDAY).rem_euclid(WEEK);
        return (Quota::per_week(calls.into()), late);
    }
    let window = Duration::from_secs(period.into());
    (Quota::per(calls.into(), window), first.rem_euclid(length))
}

/// Seconds since the Unix epoch of a moment written `yyyy-MM-ddTHH:mm:ssZ`.
pub(super) fn moment(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let is_date = year >= 1 && (1..=days).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years that begin with March, so that a leap day comes last.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let to_year = year * 365 + year / 4 - year / 100 + year / 400;
    let to_month = (153 * month + 2) / 5;
    let days = to_year + to_month + day - 1 - 719_468;
    Some(days * DAY + hour * 3_600 + minute * 60 + second)
}

fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = is_number.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-02T01:02:03Z", Some(DAY + 3_723)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("0001-01-01T00:00:00Z", Some(FIRST)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2026-11-23T03:30:01Z", Some(1_795_404_601)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("1900-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-04-31T00:00:00Z", None),
            ("2026-04-00T00:00:00Z", None),
            ("0000-04-01T00:00:00Z", None),
            ("2026-04-01T24:00:00Z", None),
            ("2026-04-01T00:60:00Z", None),
            ("2026-04-01T00:00:60Z", None),
            ("2026-04-01T00:00:00", None),
            ("2026-04-01", None),
            ("26-04-01T00:00:00Z", None),
            ("2026-04-01T00:00:00:00Z", None),
            ("+026-04-01T00:00:00Z", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(moment(text), expected, "{text}");
        }
    }

    #[test]
    fn windows_are_ours_or_so_much_later() {
        let monday = moment("2026-11-23T00:00:00Z").expect("a moment");
        let table = [
            (3_600, FIRST, 0),
            (86_400, FIRST, 0),
            (604_800, FIRST, 0),
            (604_800, monday, 0),
            (604_800, 0, 3 * DAY),
            (2_592_000, FIRST, 2_592_000 - 2 * DAY),
            (3_600, 60, 60),
            (86_400, -1, 86_399),
        ];
        for (period, first, expected) in table {
            assert_eq!(quota(1, period, first).1, expected, "{period} from {first}");
        }
    }
}
