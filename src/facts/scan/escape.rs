//! Escapes in strings, decoded.

/// The part of an escape that was read last. Two escapes may make one character: a pair of surrogates.
#[derive(Debug, Clone, Copy)]
pub(super) enum Escape {
    /// The backslash.
    Backslash,
    /// As many hexadecimal digits are left, and the value of those before.
    Hex { left: u8, unit: u32 },
    /// The first of two surrogates.
    High(u32),
    /// The backslash after it.
    HighBackslash(u32),
    /// As many hexadecimal digits of the second are left.
    LowHex { high: u32, left: u8, unit: u32 },
}

/// The meaning of a byte in an escape.
pub(super) enum EscapeStep {
    More(Escape),
    Character(char),
    /// No escape has this byte here.
    Broken,
}

impl Escape {
    #[inline]
    pub(super) fn read(self, byte: u8) -> EscapeStep {
        match (self, byte) {
            (Self::Backslash, b'u') => EscapeStep::More(Self::Hex { left: 4, unit: 0 }),
            (Self::Backslash, _) => short(byte).map_or(EscapeStep::Broken, EscapeStep::Character),
            (Self::Hex { left, unit }, _) => match hex(unit, byte) {
                Some(unit) if left > 1 => EscapeStep::More(Self::Hex {
                    left: left - 1,
                    unit,
                }),
                Some(unit @ 0xD800..=0xDBFF) => EscapeStep::More(Self::High(unit)),
                unit => character(unit),
            },
            (Self::High(high), b'\\') => EscapeStep::More(Self::HighBackslash(high)),
            (Self::HighBackslash(high), b'u') => EscapeStep::More(Self::LowHex {
                high,
                left: 4,
                unit: 0,
            }),
            (Self::LowHex { high, left, unit }, _) => match hex(unit, byte) {
                Some(unit) if left > 1 => EscapeStep::More(Self::LowHex {
                    high,
                    left: left - 1,
                    unit,
                }),
                Some(low @ 0xDC00..=0xDFFF) => {
                    character(Some(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)))
                }
                _ => EscapeStep::Broken,
            },
            (Self::High(_) | Self::HighBackslash(_), _) => EscapeStep::Broken,
        }
    }
}

/// Returns the character of an escape that is this one byte after the backslash.
#[inline]
pub(super) fn short(byte: u8) -> Option<char> {
    match byte {
        b'n' => Some('\n'),
        b'"' | b'\\' | b'/' => Some(char::from(byte)),
        b't' => Some('\t'),
        b'r' => Some('\r'),
        b'b' => Some('\x08'),
        b'f' => Some('\x0C'),
        _ => None,
    }
}

fn hex(unit: u32, byte: u8) -> Option<u32> {
    Some(unit << 4 | char::from(byte).to_digit(16)?)
}

/// Returns the character, unless it is the second of two surrogates without the first.
fn character(unit: Option<u32>) -> EscapeStep {
    unit.and_then(char::from_u32)
        .map_or(EscapeStep::Broken, EscapeStep::Character)
}
