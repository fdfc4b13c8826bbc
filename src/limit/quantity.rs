//! Numbers and durations as people write them, without rounding.

use std::time::Duration;

use super::gcd;

/// A number that is not negative, as a reduced fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal {
    count: u128,
    parts: u128,
}

/// The most significant digits of a fraction that are read exactly as they are written. More of them are what a tool
/// prints of a binary fraction (IEEE 754, 64 bits), which has no more than seventeen.
const EXACT_DIGITS: u32 = 12;
/// The longest fraction, in decimal places.
const MOST_PLACES: u32 = 36;

const DAY: u64 = 24 * 60 * 60;

/// The units of a duration: names, and nanoseconds.
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
    ///
    /// A number of more than twelve significant digits is the simplest fraction within one part in 2^52, which is the
    /// precision of what tools print: 0.0033333333333333335 is one three-hundredth.
    pub(crate) fn parse(text: &str) -> Option<Self> {
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
            return Some(Self { count: 0, parts: 1 });
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
        if scale > MOST_PLACES {
            return None;
        }
        let parts = 10_u128.pow(scale);
        let is_exact = scale == 0 || digits.ilog10() < EXACT_DIGITS;
        Some(match is_exact {
            true => Self::reduced(digits, parts),
            false => Self::simplest(digits, parts),
        })
    }

    fn reduced(count: u128, parts: u128) -> Self {
        let divisor = gcd(count, parts);
        Self {
            count: count / divisor,
            parts: parts / divisor,
        }
    }

    /// The first convergent of the continued fraction of `count / parts` that is within one part in 2^52 of it.
    fn simplest(count: u128, parts: u128) -> Self {
        let (mut left, mut right) = (count, parts);
        let (mut before, mut convergent) = ((0, 1), (1, 0));
        while right > 0 {
            let (quotient, rest) = (left / right, left % right);
            let next = |before: u128, last: u128| quotient.checked_mul(last)?.checked_add(before);
            let next = next(before.0, convergent.0).zip(next(before.1, convergent.1));
            let Some(next) = next else {
                break;
            };
            (before, convergent) = (convergent, next);
            // The convergent differs by rest / (parts * its own denominator).
            if rest <= count.saturating_mul(convergent.1) >> 52 {
                break;
            }
            (left, right) = (right, rest);
        }
        let (count, parts) = convergent;
        Self { count, parts }
    }

    /// The number, if it is whole and has at most 64 bits.
    #[cfg(feature = "config")]
    pub(crate) fn whole(self) -> Option<u64> {
        (self.parts == 1).then(|| u64::try_from(self.count).ok())?
    }

    /// Rounded up, and at most as many as 64 bits hold.
    pub(crate) fn ceil(self) -> u64 {
        u64::try_from(self.count.div_ceil(self.parts)).unwrap_or(u64::MAX)
    }

    /// This many in a period, as a whole number in another one. `None` if that is more than 64 bits
    /// hold, or longer than a duration can be.
    pub(crate) fn per(self, period: Duration) -> Option<(u64, Duration)> {
        let count = u64::try_from(self.count).ok()?;
        let longer = period.as_nanos().checked_mul(self.parts)?;
        Some((count, from_nanos(longer)?))
    }

    /// This many of so many nanoseconds. `None` for a fraction of a nanosecond, or more than a duration can be.
    fn of(self, nanos: u64) -> Option<Duration> {
        let nanos = self.count.checked_mul(nanos.into())?;
        (nanos % self.parts == 0).then(|| from_nanos(nanos / self.parts))?
    }
}

fn from_nanos(nanos: u128) -> Option<Duration> {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / SECOND).ok()?;
    Some(Duration::new(seconds, (nanos % SECOND) as u32))
}

/// `500ms`, `1.5s`, `2 minutes`, `1h`, and `second` for one of them.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(char::is_alphabetic);
    let unit = &text[number.len()..];
    let (_, nanos) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
    match number.trim() {
        "" => Some(Duration::from_nanos(*nanos)),
        number => Decimal::parse(number)?.of(*nanos),
    }
}

/// As [`duration`] reads it, in the largest unit that needs no fraction.
#[cfg(any(test, feature = "config"))]
pub(crate) fn write_duration(duration: Duration) -> String {
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
    fn zeros_at_the_end_are_no_digits_and_36_places_are_the_most() {
        let count = |text: &str| Decimal::parse(text).map(|decimal| (decimal.count, decimal.parts));
        let most = 10_u128.pow(MOST_PLACES);
        assert_eq!(count(&format!("1{}e-38", "0".repeat(38))), Some((1, 1)));
        assert_eq!(count("1e-36"), Some((1, most)));
        assert_eq!(count("1e-37"), None);
        assert_eq!(count("10e-37"), Some((1, most)));
        assert_eq!(count(&u128::MAX.to_string()), Some((u128::MAX, 1)));
        assert_eq!(count("1e38"), Some((10_u128.pow(38), 1)));
    }

    #[test]
    fn numbers_as_tools_print_them_are_the_fractions_that_were_meant() {
        let second = Duration::from_secs(1);
        // (text, how many in how many seconds)
        let table = [
            ("0.0033333333333333335", (1, 300)),
            ("0.0002777777777777778", (1, 3_600)),
            ("0.03333333333333333", (1, 30)),
            ("0.3333333333333333", (1, 3)),
            ("0.6666666666666666", (2, 3)),
            ("1.6666666666666667", (5, 3)),
            ("16.666666666666668", (50, 3)),
            ("0.30000000000000004", (3, 10)),
            ("1.1574074074074073e-05", (1, 86_400)),
            ("1.6534391534391535e-06", (1, 604_800)),
            ("3.8580246913580247e-07", (1, 2_592_000)),
            ("3.1709791983764586e-08", (1, 31_536_000)),
            ("0.01666666666666666666666666666666667", (1, 60)),
            ("0.000000000000000001", (1, 1_000_000_000_000_000_000)),
            // Twelve digits and fewer are as they are written.
            ("0.333333333333", (333_333_333_333, 1_000_000_000_000)),
            ("0.500000000001", (500_000_000_001, 1_000_000_000_000)),
            // Thirteen are as good as the simplest fraction beside them.
            ("0.5000000000001", (2_500_000_000_000, 4_999_999_999_999)),
            ("1234567890123456", (1_234_567_890_123_456, 1)),
        ];
        for (text, (count, seconds)) in table {
            let decimal = Decimal::parse(text).expect(text);
            let expected = (count, Duration::from_secs(seconds));
            assert_eq!(decimal.per(second), Some(expected), "{text}");
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
            ("1e3s", Duration::from_secs(1_000)),
            ("5E-1 h", Duration::from_secs(1_800)),
            ("0s", Duration::ZERO),
        ];
        for (text, expected) in table {
            assert_eq!(duration(text), Some(expected), "{text}");
        }
        for text in ["", "5", "5x", "-1s", "0.1ns", "1e30d", "1e5", "1es", "e5s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    proptest! {
        /// Whatever fraction a tool divides, in each of the common ways to print it. Few print as twelve digits that
        /// are not the fraction itself.
        #[test]
        fn what_a_float_prints_of_a_fraction_is_the_fraction(count in 1_u32..100, parts in 1_u32..10_000_000) {
            #[expect(clippy::float_arithmetic, reason = "as tools do it")]
            let float = f64::from(count) / f64::from(parts);
            for text in [float.to_string(), format!("{float:e}"), format!("{float:?}")] {
                let read = Decimal::parse(&text).and_then(|decimal| decimal.per(Duration::from_secs(1)));
                let digits = text.split('e').next().unwrap_or("").trim_start_matches(['0', '.']);
                prop_assume!(digits.len() > 13);
                let divisor = gcd(count.into(), parts.into());
                let reduced = |number: u32| u64::try_from(u128::from(number) / divisor).expect("smaller");
                let meant = (reduced(count), Duration::from_secs(reduced(parts)));
                prop_assert_eq!(read, Some(meant), "{}", text);
            }
        }

        #[test]
        fn a_duration_is_read_as_it_was_written(seconds: u64, nanos in 0_u32..1_000_000_000) {
            let written = Duration::new(seconds, nanos);
            prop_assert_eq!(duration(&write_duration(written)), Some(written));
        }
    }
}
