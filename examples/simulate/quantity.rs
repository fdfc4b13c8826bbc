//! Durations and numbers, as the command line has them and as the report tells them.

use std::time::Duration;

/// Nanoseconds of virtual time, from the beginning of a run.
pub(crate) type Nanos = u64;

pub(crate) const MICROSECOND: Nanos = 1_000;
pub(crate) const MILLISECOND: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// The longest that is simulated: thirty years.
const LONGEST: f64 = 946_728_000.0;

/// Reads `250us`, `5ms`, `2s`, `1.5m`, `1h`, `1d`, or seconds without a unit.
pub(crate) fn duration(text: &str) -> Result<Nanos, String> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3_600.0),
        ("d", 86_400.0),
    ];
    let end = text
        .find(|character: char| character.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(end);
    let unit = match unit {
        "" => Some(1.0),
        unit => UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|unit| unit.1),
    };
    let wrong = || format!("`{text}`: expected a duration such as 250us, 5ms, 2s, 1.5m, 1h or 1d");
    let seconds = count.parse::<f64>().ok().zip(unit).ok_or_else(wrong)?;
    nanos(seconds.0 * seconds.1).ok_or_else(wrong)
}

/// `None` if it is no time that can be simulated.
pub(crate) fn nanos(seconds: f64) -> Option<Nanos> {
    (0.0..=LONGEST)
        .contains(&seconds)
        .then(|| (seconds * 1e9).round() as Nanos)
}

/// Reads a number above zero.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(format!("`{text}`: expected a number above zero")),
    }
}

/// Reads a part of a whole, from 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err(format!("`{text}`: expected a number from 0 to 1")),
    }
}

pub(crate) fn seconds(time: Nanos) -> f64 {
    Duration::from_nanos(time).as_secs_f64()
}

/// Writes a number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time as people read it.
pub(crate) fn told(time: Nanos) -> String {
    let seconds = seconds(time);
    match time {
        0 => "0".to_owned(),
        1..MILLISECOND => format!("{:.0} us", seconds * 1e6),
        MILLISECOND..SECOND => format!("{:.0} ms", seconds * 1e3),
        _ if time % SECOND == 0 => format!("{seconds:.0} s"),
        _ if seconds < 100.0 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_their_units() {
        let table = [
            ("0", 0),
            ("2", 2 * SECOND),
            ("0.5", SECOND / 2),
            ("1.5ms", 1_500_000),
            ("3us", 3_000),
            ("7ns", 7),
            ("2m", 120 * SECOND),
            ("1h", 3_600 * SECOND),
            ("1d", 86_400 * SECOND),
        ];
        for (text, expected) in table {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "-1s", "1 s", "1w", "inf", "NaN", "99999999999"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_told_as_people_read_them() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, expected) in table {
            assert_eq!(grouped(number), expected);
        }
        let table = [
            (0, "0"),
            (1_500, "2 us"),
            (12 * MILLISECOND, "12 ms"),
            (2 * SECOND, "2 s"),
            (2_500 * MILLISECOND, "2.50 s"),
            (150 * SECOND, "150 s"),
        ];
        for (time, expected) in table {
            assert_eq!(told(time), expected);
        }
    }
}
