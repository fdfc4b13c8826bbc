//! UTF-8 that comes in pieces.

use std::str;

use crate::json::word::{HIGHEST, WORD, word};

/// The beginning of a character that the end of a piece has cut.
#[derive(Debug, Clone, Default)]
pub(super) struct CutCharacter {
    bytes: [u8; 4],
    len: usize,
}

impl CutCharacter {
    /// Returns whether no character is cut.
    #[inline]
    pub(super) fn is_none(&self) -> bool {
        self.len == 0
    }

    /// Reads on in the same string, and returns whether it may still be UTF-8.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return true;
            };
            self.bytes[self.len] = byte;
            self.len += 1;
            match str::from_utf8(&self.bytes[..self.len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
            bytes = rest;
        }
        let bytes = &bytes[valid_len(bytes)..];
        match str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                // Three bytes at most: one more would complete the character.
                let cut = &bytes[error.valid_up_to()..];
                self.bytes[..cut.len()].copy_from_slice(cut);
                self.len = cut.len();
                true
            }
            Err(_) => false,
        }
    }
}

/// Returns the length of whole characters at the beginning: all but the last few bytes, unless some are no UTF-8.
///
/// A word is looked at for what many texts are made of: eight ASCII characters, or two of three bytes, as in Chinese.
fn valid_len(bytes: &[u8]) -> usize {
    let mut len = 0;
    while let Some(next) = bytes.get(len..len + WORD) {
        let word = word(next);
        let others = word & HIGHEST;
        len += if is_two_of_three(word) {
            6
        } else if others == 0 {
            WORD
        } else {
            // Up to the first character outside of ASCII, and that one if it is whole.
            let ascii = others.trailing_zeros() as usize / 8;
            match character_len(&next[ascii..]) {
                0 if ascii == 0 => break,
                character => ascii + character,
            }
        };
    }
    len
}

/// Returns whether a word begins with two characters of three bytes, other than those whose second byte is limited.
#[inline]
fn is_two_of_three(word: u64) -> bool {
    /// The bits that say which byte of a character each is.
    const KINDS: u64 = 0x0000_C0C0_F0C0_C0F0;
    const THREES: u64 = 0x0000_8080_E080_80E0;
    /// The low half of both first bytes.
    const LOW: u64 = 0x0F00_000F;
    /// The same of `ED`.
    const LOW_OF_ED: u64 = 0x0D00_000D;
    /// The bit above, into which a carry goes if fifteen is added to more than zero.
    const CARRY: u64 = 0x1000_0010;
    let low = word & LOW;
    // A character with `E0` may be overlong, and one with `ED` a surrogate.
    let is_free = (low + LOW) & ((low ^ LOW_OF_ED) + LOW) & CARRY;
    word & KINDS == THREES && is_free == CARRY
}

/// Returns the length of the character at the beginning, or zero if it is cut or no UTF-8 (RFC 3629, section 4).
#[inline]
fn character_len(bytes: &[u8]) -> usize {
    match bytes {
        [0xC2..=0xDF, 0x80..=0xBF, ..] => 2,
        [0xE0, 0xA0..=0xBF, 0x80..=0xBF, ..]
        | [0xED, 0x80..=0x9F, 0x80..=0xBF, ..]
        | [0xE1..=0xEC | 0xEE..=0xEF, 0x80..=0xBF, 0x80..=0xBF, ..] => 3,
        [0xF0, 0x90..=0xBF, 0x80..=0xBF, 0x80..=0xBF, ..]
        | [0xF1..=0xF3, 0x80..=0xBF, 0x80..=0xBF, 0x80..=0xBF, ..]
        | [0xF4, 0x80..=0x8F, 0x80..=0xBF, 0x80..=0xBF, ..] => 4,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::cases::cases;

    fn is_valid<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut cut = CutCharacter::default();
        pieces.into_iter().all(|piece| cut.read(piece)) && cut.is_none()
    }

    /// Every one of up to three bytes, behind and before others, so that each way through a word is gone.
    #[test]
    fn every_character_of_up_to_three_bytes() {
        let around = [
            ("", ""),
            ("", "aaaaaaaa"),
            ("aaaaa", "aaaa"),
            ("", "模模"),
            ("模", "模模"),
            ("ü", "üüü"),
        ];
        for first in 0x80..=0xFF {
            for second in [
                0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF,
            ] {
                for third in [0x41, 0x7F, 0x80, 0xBF, 0xC0] {
                    for (before, after) in around {
                        let bytes =
                            [before.as_bytes(), &[first, second, third], after.as_bytes()].concat();
                        assert_eq!(
                            is_valid([&bytes[..]]),
                            str::from_utf8(&bytes).is_ok(),
                            "{bytes:x?}"
                        );
                    }
                }
            }
        }
    }

    fn part() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => "[ -~]{0,12}".prop_map(String::into_bytes),
            4 => "[一-龥]{0,8}".prop_map(String::into_bytes),
            2 => "[à-ӿ]{0,8}".prop_map(String::into_bytes),
            2 => "\\PC{0,4}".prop_map(String::into_bytes),
            1 => vec(select(&b"\x41\x80\x8F\x90\x9F\xA0\xBF\xC0\xC2\xE0\xE1\xED\xEF\xF0\xF4\xF5"[..]), 0..3),
        ]
    }

    proptest! {
        #![proptest_config(cases(4_000))]

        #[test]
        fn bytes_are_utf8_as_far_as_std_says(parts in vec(part(), 0..8), cut: prop::sample::Index) {
            let bytes = parts.concat();
            let expected = str::from_utf8(&bytes).is_ok();
            prop_assert_eq!(is_valid([&bytes[..]]), expected);
            prop_assert_eq!(is_valid(bytes.chunks(1)), expected);
            let (one, other) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(is_valid([one, other]), expected);
        }
    }
}
