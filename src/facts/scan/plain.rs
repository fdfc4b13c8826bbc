//! The search for the end of plain text, by words of eight bytes.
//!
//! The search is arithmetic on all bytes of a word: a byte of interest leaves its highest bit set. A
//! subtraction borrows from the byte above, but only if the byte itself was of interest, so the lowest bit is exact.

use crate::json::word::{HIGHEST, ONES, WORD, words};

/// The bytes before the first one that is not plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) len: usize,
    pub(super) is_ascii: bool,
}

/// Bytes that are plain, quotes and backslashes apart.
#[derive(Debug, Clone, Copy)]
pub(super) enum PlainBytes {
    /// All but control characters.
    Text,
    /// The same without the space.
    Data,
}

impl PlainBytes {
    fn lowest(self) -> u8 {
        match self {
            Self::Text => b' ',
            Self::Data => b'!',
        }
    }
}

/// Words that are looked at together, once a string is known to be long.
const BLOCK: usize = 4 * WORD;
/// The most bytes of a short string: its end in a block would be looked for twice.
const SHORT: usize = 2 * BLOCK;

/// Finds the first byte that is not plain, if there is any.
#[inline]
pub(super) fn plain(bytes: &[u8], plain: PlainBytes) -> Plain {
    let lowest = ONES * u64::from(plain.lowest());
    let mut read = PlainReading { len: 0, seen: 0 };
    // Most strings are short.
    if let Some(plain) = read.words(&bytes[..bytes.len().min(SHORT)], lowest) {
        return plain;
    }
    read.blocks(bytes, lowest);
    if let Some(plain) = read.words(bytes, lowest) {
        return plain;
    }
    // Less than a word is left, at the end of a piece.
    while let Some(&byte) = bytes.get(read.len) {
        if byte < plain.lowest() || byte == b'"' || byte == b'\\' {
            break;
        }
        read.seen |= u64::from(byte);
        read.len += 1;
    }
    read.plain()
}

/// Plain bytes so far.
struct PlainReading {
    len: usize,
    /// All of them, one upon the other.
    seen: u64,
}

impl PlainReading {
    #[inline]
    fn plain(&self) -> Plain {
        Plain {
            len: self.len,
            is_ascii: self.seen & HIGHEST == 0,
        }
    }

    /// Reads word by word.
    #[inline]
    fn words(&mut self, bytes: &[u8], lowest: u64) -> Option<Plain> {
        for word in words(&bytes[self.len..]) {
            let stops = stops(word, lowest) & HIGHEST;
            if stops != 0 {
                // The bytes below the first that stops, whose own highest bit is not set.
                self.seen |= word & ((stops & stops.wrapping_neg()) - 1);
                self.len += stops.trailing_zeros() as usize / 8;
                return Some(self.plain());
            }
            self.seen |= word;
            self.len += WORD;
        }
        None
    }

    /// Reads blocks in which nothing stops.
    #[inline]
    fn blocks(&mut self, bytes: &[u8], lowest: u64) {
        for block in bytes[self.len..].chunks_exact(BLOCK) {
            let (mut any, mut seen) = (0, 0);
            for word in words(block) {
                any |= stops(word, lowest);
                seen |= word;
            }
            if any & HIGHEST != 0 {
                return;
            }
            self.seen |= seen;
            self.len += BLOCK;
        }
    }
}

/// Returns a word whose highest bits of bytes say where text stops: at a quote, a backslash or a byte below the lowest.
#[inline]
fn stops(word: u64, lowest: u64) -> u64 {
    let quotes = word ^ (ONES * u64::from(b'"'));
    let backslashes = word ^ (ONES * u64::from(b'\\'));
    (word.wrapping_sub(lowest) | quotes.wrapping_sub(ONES) | backslashes.wrapping_sub(ONES)) & !word
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::cases::cases;

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            60 => b'a'..=b'z',
            3 => select(&b" !\"\\\x1F\x7F\x80\xFF\0#[]\xA2\xDC"[..]),
            1 => any::<u8>(),
        ]
    }

    proptest! {
        #![proptest_config(cases(4_000))]

        #[test]
        fn words_stop_where_bytes_do(bytes in vec(byte(), 0..200), is_data: bool) {
            let (set, lowest) = match is_data {
                true => (PlainBytes::Data, b'!'),
                false => (PlainBytes::Text, b' '),
            };
            let stop = |&byte: &u8| byte < lowest || byte == b'"' || byte == b'\\';
            let len = bytes.iter().position(stop).unwrap_or(bytes.len());
            let is_ascii = bytes[..len].is_ascii();
            prop_assert_eq!(plain(&bytes, set), Plain { len, is_ascii });
        }
    }
}
