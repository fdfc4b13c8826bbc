//! Numbers and durations as people write them, without rounding.

use std::time::Duration;

/// A decimal number that is not negative: `digits` / 10^`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: u128,
    scale: u32,
}

const DAY: u64 = 24 * 60 * 60;

/// What a duration is measured in: names, and nanoseconds.
const UNITS: [(&[&str], u64); 7] = [
    (&["ns"], 1),
    (&["us", "µs"], 1_000),
    (&["ms"], 1_000_000),
    (&["s", "sec", "second", "seconds"], 1_000_000_000),
    (&["m", "min", "minute", "minutes"], 60 * 1_000_000_000),
    (&["h", "hour", "hours"], 60 * 60 * 1_000_000_000),
    (&["d", "day", "days"], DAY * 1_000_000_000),
];

impl Decimal {
    /// `10`, `0.5`, `1e3`; `None` for what is no number, negative, or longer than anybody would write.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.replace('_', "");
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (&*text, 0),
        };
        let mantissa = mantissa.strip_prefix('+').unwrap_or(mantissa);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let fraction = fraction.trim_end_matches('0');
        if whole.is_empty()
            || !whole
                .bytes()
                .chain(fraction.bytes())
                .all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let mut digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        if digits == 0 {
            return Some(Self { digits, scale: 0 });
        }
        let mut scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        while scale > 0 && digits % 10 == 0 {
            digits /= 10;
            scale -= 1;
        }
        while scale < 0 {
            digits = digits.checked_mul(10)?;
            scale += 1;
        }
        let scale = scale.unsigned_abs();
        (scale <= 18).then_some(Self { digits, scale })
    }

    /// Rounded up, and at most as many as 64 bits hold.
    pub(super) fn ceil(self) -> u64 {
        let ceil = self.digits.div_ceil(10_u128.pow(self.scale));
        u64::try_from(ceil).unwrap_or(u64::MAX)
    }

    /// This many in a period, as a whole number in another one. `None` if that is more than 64 bits
    /// hold, or longer than a duration can be.
    pub(super) fn per(self, period: Duration) -> Option<(u64, Duration)> {
        let parts = 10_u128.pow(self.scale);
        let divisor = gcd(self.digits, parts);
        let count = u64::try_from(self.digits / divisor).ok()?;
        let longer = period.as_nanos().checked_mul(parts / divisor)?;
        Some((count, from_nanos(longer)?))
    }

    /// This many of so many nanoseconds. `None` for a fraction of a nanosecond, or more than a duration can be.
    fn of(self, nanos: u64) -> Option<Duration> {
        let parts = 10_u128.pow(self.scale);
        let nanos = self.digits.checked_mul(nanos.into())?;
        (nanos % parts == 0).then(|| from_nanos(nanos / parts))?
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn from_nanos(nanos: u128) -> Option<Duration> {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / SECOND).ok()?;
    Some(Duration::new(seconds, (nanos % SECOND) as u32))
}

/// `500ms`, `1.5s`, `2 minutes`, `1h`, and `second` for one of them.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let (_, nanos) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
    match number.trim() {
        "" => Some(Duration::from_nanos(*nanos)),
        number => Decimal::parse(number)?.of(*nanos),
    }
}

/// As [`duration`] reads it, in the largest unit that needs no fraction.
pub(super) fn write_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fits = |(_, unit): &&(&[&str], u64)| nanos != 0 && nanos % u128::from(*unit) == 0;
    match UNITS.iter().rev().find(fits) {
        Some((names, unit)) => format!("{}{}", nanos / u128::from(*unit), names[0]),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_lose_nothing() {
        let second = Duration::from_secs(1);
        // (text, how many in how many seconds, rounded up)
        let table = [
            ("10", (10, 1), 10),
            ("0.5", (1, 2), 1),
            ("2.5", (5, 2), 3),
            ("0.333", (333, 1000), 1),
            ("2000.0", (2000, 1), 2000),
            ("1e3", (1000, 1), 1000),
            ("1.5e1", (15, 1), 15),
            ("5E-1", (1, 2), 1),
            ("1_000", (1000, 1), 1000),
            ("+7", (7, 1), 7),
            ("0", (0, 1), 0),
            ("0.0", (0, 1), 0),
            ("0e-2147483647", (0, 1), 0),
            ("18446744073709551615", (u64::MAX, 1), u64::MAX),
        ];
        for (text, (count, seconds), ceil) in table {
            let decimal = Decimal::parse(text).expect(text);
            let expected = (count, Duration::from_secs(seconds));
            assert_eq!(decimal.per(second), Some(expected), "{text}");
            assert_eq!(decimal.ceil(), ceil, "{text}");
        }
        for text in ["", "-1", "x", "1.2.3", "nan", "inf", "1e99", "1e-99", ".5"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_as_people_write_them() {
        let table = [
            ("500ms", Duration::from_millis(500)),
            ("1.5s", Duration::from_millis(1_500)),
            ("2 minutes", Duration::from_secs(120)),
            ("second", Duration::from_secs(1)),
            ("1h", Duration::from_secs(3_600)),
            ("7d", Duration::from_secs(7 * DAY)),
            ("10ns", Duration::from_nanos(10)),
            ("0s", Duration::ZERO),
        ];
        for (text, expected) in table {
            assert_eq!(duration(text), Some(expected), "{text}");
        }
        for text in ["", "5", "5x", "-1s", "0.1ns", "1e30d"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_is_read_as_it_was_written(seconds: u64, nanos in 0_u32..1_000_000_000) {
            let written = Duration::new(seconds, nanos);
            prop_assert_eq!(duration(&write_duration(written)), Some(written));
        }
    }
}
