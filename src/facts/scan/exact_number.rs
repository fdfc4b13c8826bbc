//! The value of a number, exact and in integers.

use crate::json::NumberPart;

/// A number, digit by digit: `significand` × 10^(`shift` + `exponent`), and less than one unit of the significand more
/// if digits were lost.
#[derive(Debug, Clone, Default)]
pub(super) struct ExactNumber {
    is_negative: bool,
    significand: u64,
    /// The significand has no room for another digit: all later ones are dropped.
    is_full: bool,
    /// One of those was not zero.
    is_more: bool,
    /// Dropped digits of the integer, less those of the fraction that were not.
    shift: i64,
    exponent: i64,
    is_exponent_negative: bool,
}

impl ExactNumber {
    /// Reads the next byte, which belongs to this part of the number.
    #[inline]
    pub(super) fn read(&mut self, part: NumberPart, byte: u8) {
        match part {
            NumberPart::Minus => self.is_negative = true,
            NumberPart::Zero | NumberPart::Point | NumberPart::E => {}
            NumberPart::Integer => {
                if !self.digit(byte) {
                    self.shift += 1;
                }
            }
            NumberPart::Fraction => {
                if self.digit(byte) {
                    self.shift -= 1;
                }
            }
            NumberPart::Sign => self.is_exponent_negative = byte == b'-',
            NumberPart::Exponent => {
                let digit = i64::from(byte - b'0');
                self.exponent = self.exponent.saturating_mul(10).saturating_add(digit);
            }
        }
    }

    /// Reads the digits that an integer goes on with, as long as none can be too much, and returns how many.
    #[inline]
    pub(super) fn read_digits(&mut self, bytes: &[u8]) -> usize {
        /// One digit more fits in any case.
        const ROOMY: u64 = 10_u64.pow(18);
        let mut read = 0;
        for &byte in bytes {
            if !byte.is_ascii_digit() || self.significand >= ROOMY {
                break;
            }
            self.significand = self.significand * 10 + u64::from(byte - b'0');
            read += 1;
        }
        read
    }

    /// Adds a digit to the significand, and returns whether there was room for it.
    #[inline]
    fn digit(&mut self, byte: u8) -> bool {
        let digit = u64::from(byte - b'0');
        let more = self.significand.checked_mul(10);
        match more.and_then(|more| more.checked_add(digit)) {
            Some(more) if !self.is_full => {
                self.significand = more;
                true
            }
            _ => {
                self.is_full = true;
                self.is_more |= digit != 0;
                false
            }
        }
    }

    /// Returns the power of ten by which the significand is multiplied.
    fn power(&self) -> i64 {
        match self.is_exponent_negative {
            true => self.shift.saturating_sub(self.exponent),
            false => self.shift.saturating_add(self.exponent),
        }
    }

    /// Returns the number rounded up, or the largest `u64` if it is larger. One with a minus sign has no such value.
    pub(super) fn rounded_up(&self) -> Option<u64> {
        let power = self.power();
        let ten_to = |power: u64| 10_u64.checked_pow(u32::try_from(power).ok()?);
        let (whole, is_more) = match ten_to(power.unsigned_abs()) {
            _ if self.significand == 0 => (0, false),
            // A digit was only dropped for the largest `u64`, so that one in the integer is too much.
            Some(times) if power > 0 && !self.is_more => {
                (self.significand.saturating_mul(times), false)
            }
            _ if power > 0 => (u64::MAX, false),
            Some(parts) => (
                self.significand / parts,
                self.is_more || self.significand % parts != 0,
            ),
            // Ten to the 20th is more than any significand.
            None => (0, true),
        };
        (!self.is_negative).then(|| whole.saturating_add(u64::from(is_more)))
    }

    /// Returns whether the number is less than one, as all with a minus sign are.
    pub(super) fn is_below_one(&self) -> bool {
        let digits = self
            .significand
            .checked_ilog10()
            .map(|log| i64::from(log) + 1);
        let before_point = digits.map(|digits| self.power().saturating_add(digits));
        self.is_negative || before_point.is_none_or(|digits| digits <= 0)
    }

    /// Returns whether the number is nearest to infinity, of all values of `f64`. One that differs from the middle
    /// after 20 digits counts as the middle.
    pub(super) fn is_out_of_range(&self) -> bool {
        /// The first 20 digits of 2¹⁰²⁴ − 2⁹⁷⁰, which lies between the largest `f64` and infinity. There are 309.
        const MIDDLE: u64 = 17_976_931_348_623_158_079;
        const DIGITS: i64 = 309;
        let power = self.power();
        if power < DIGITS - 20 {
            return false;
        }
        let Some(digits) = self.significand.checked_ilog10() else {
            return false;
        };
        let digits = digits + 1;
        match power.saturating_add(i64::from(digits)) {
            DIGITS => {
                let first = u128::from(self.significand) * 10_u128.pow(20 - digits);
                first > u128::from(MIDDLE) || first == u128::from(MIDDLE) && self.is_more
            }
            integer_digits => integer_digits > DIGITS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> ExactNumber {
        let mut decimal = ExactNumber::default();
        let mut part = None;
        for byte in text.bytes() {
            let next = part.map_or_else(
                || NumberPart::first(byte),
                |part: NumberPart| part.then(byte),
            );
            let next = next.expect("a number");
            decimal.read(next, byte);
            part = Some(next);
        }
        decimal
    }

    #[test]
    fn numbers_are_rounded_up() {
        let long = format!("0.{}1e400", "0".repeat(399));
        let longer = format!("1{}e-400", "0".repeat(400));
        let table = [
            ("0", Some(0)),
            ("0.0", Some(0)),
            ("0e999999999999999999999999", Some(0)),
            ("7", Some(7)),
            ("1e3", Some(1_000)),
            ("1E+3", Some(1_000)),
            ("12.5", Some(13)),
            ("12.0", Some(12)),
            ("1250e-2", Some(13)),
            ("1200e-2", Some(12)),
            ("0.001e3", Some(1)),
            ("0.0011e3", Some(2)),
            ("1e-999999999999999999999999", Some(1)),
            (&long, Some(1)),
            (&longer, Some(1)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551614.5", Some(u64::MAX)),
            ("18446744073709551614", Some(u64::MAX - 1)),
            (
                "18446744073709551613.00000000000000000000000001",
                Some(u64::MAX - 1),
            ),
            ("1844674407370955161.4000", Some(1_844_674_407_370_955_162)),
            ("1844674407370955161.6", Some(1_844_674_407_370_955_162)),
            ("1844674407370955161.40e1", Some(u64::MAX - 1)),
            ("1844674407370955161.6e1", Some(u64::MAX)),
            ("1844674407370955161.60e-1", Some(184_467_440_737_095_517)),
            ("100000000000000000000e-20", Some(1)),
            ("100000000000000000001e-20", Some(2)),
            ("18446744073709551616", Some(u64::MAX)),
            ("1e20", Some(u64::MAX)),
            ("1e308", Some(u64::MAX)),
            ("-1", None),
            ("-0", None),
            ("-0.0", None),
        ];
        for (text, rounded) in table {
            assert_eq!(decimal(text).rounded_up(), rounded, "{text}");
        }
    }

    #[test]
    fn numbers_below_one_are_those_without_an_integer() {
        let long = format!("0.{}1e400", "0".repeat(399));
        let longer = format!("1{}e-401", "0".repeat(400));
        let table = [
            ("0", true),
            ("0.0", true),
            ("0e9", true),
            ("-1", true),
            ("-0", true),
            ("-1e9", true),
            ("0.5", true),
            ("0.99999999999999999999999", true),
            ("5e-1", true),
            ("99e-2", true),
            ("1e-400", true),
            ("1e-99999999999999999999", true),
            (&longer, true),
            ("1", false),
            ("1.5", false),
            ("10e-1", false),
            ("0.1e1", false),
            ("1e0", false),
            ("18446744073709551616", false),
            ("1e99999999999999999999", false),
            (&long, false),
        ];
        for (text, is_below) in table {
            assert_eq!(decimal(text).is_below_one(), is_below, "{text}");
        }
    }

    #[test]
    fn numbers_are_in_the_range_of_f64_as_far_as_its_parser_says() {
        let long = format!("1{}", "0".repeat(308));
        let longer = format!("1{}", "0".repeat(309));
        let fraction = format!("0.{}1e708", "0".repeat(399));
        let further = format!("0.{}1e709", "0".repeat(399));
        let zeros = format!("0.{}e709", "0".repeat(399));
        let table = [
            "0e999",
            "1e308",
            "-1e308",
            "1e309",
            "-1e309",
            "1.7976931348623157e308",
            "1.7976931348623158e308",
            "1.7976931348623158079e308",
            "1.79769313486231580794e308",
            "1.7976931348623158080e308",
            "1.7976931348623159e308",
            "17976931348623158079e289",
            "17976931348623158080e289",
            "179769313486231580783000e285",
            "0.1e309",
            "0.1e310",
            "9e307",
            "99e307",
            "1e-400",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            &long,
            &longer,
            &fraction,
            &further,
            &zeros,
        ];
        for text in table {
            let parsed: f64 = text.parse().expect("a number");
            assert_eq!(
                decimal(text).is_out_of_range(),
                parsed.is_infinite(),
                "{text}"
            );
        }
    }
}
