//! Amounts of money as decimal text, to a millionth of a unit.

use std::fmt;

/// The parts of a unit of money that are told apart.
const PARTS: u64 = 1_000_000;

/// The decimals that these parts have.
const PLACES: usize = 6;

/// The fault of a text that is no amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AmountError {
    /// The text is no decimal number, or a negative one.
    Unreadable,
    /// The text has more than six decimals.
    TooFine,
    /// The amount has more than 64 bits of millionths.
    TooLarge,
}

impl fmt::Display for AmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "is not a decimal number, such as `2.50`",
            Self::TooFine => "has more than six decimals",
            Self::TooLarge => "is above 18446744073709.551615",
        })
    }
}

/// Reads an amount of money, such as `250`, `2.50` or `1_000.000001`, in millionths of a unit.
pub(crate) fn millionths(text: &str) -> Result<u64, AmountError> {
    let digits = text.replace('_', "");
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return Err(AmountError::Unreadable),
        Some((whole, fraction)) => (whole, fraction),
        None => (&*digits, ""),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return Err(AmountError::Unreadable);
    }
    if fraction.len() > PLACES {
        return Err(AmountError::TooFine);
    }
    let digits = format!("{whole}{fraction:0<PLACES$}");
    // Nothing but digits can be wrong by its size alone.
    digits.parse().map_err(|_| AmountError::TooLarge)
}

/// An amount in millionths of a unit, written with at least two decimals: `250.00`, `0.000025`.
pub(crate) struct Amount(pub(crate) u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.0 / PARTS, self.0 % PARTS);
        let fraction = format!("{parts:0PLACES$}");
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{whole}.{fraction:0<2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_read_exactly_and_written_back() {
        let table = [
            ("0", 0, "0.00"),
            ("250", 250_000_000, "250.00"),
            ("2.50", 2_500_000, "2.50"),
            ("0.000001", 1, "0.000001"),
            ("1_000.125", 1_000_125_000, "1000.125"),
            ("18446744073709.551615", u64::MAX, "18446744073709.551615"),
        ];
        for (text, parts, written) in table {
            assert_eq!(millionths(text), Ok(parts), "{text}");
            assert_eq!(Amount(parts).to_string(), written);
            assert_eq!(millionths(written), Ok(parts), "{written}");
        }
    }

    #[test]
    fn a_text_that_is_no_amount_is_refused_with_its_reason() {
        for text in [
            "", ".", "1.", ".5", "-1", "+1", "1e3", "ten", "1.2.3", "1,50", " 1",
        ] {
            assert_eq!(millionths(text), Err(AmountError::Unreadable), "{text}");
        }
        assert_eq!(millionths("1.0000000"), Err(AmountError::TooFine));
        let above = "18446744073709.551616";
        assert_eq!(millionths(above), Err(AmountError::TooLarge));
    }
}
