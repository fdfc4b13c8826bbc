//! The bytes of a text that need no look at each, many at once.

use super::word::{HIGHEST, ONES, WORD, word, words};

/// Words that are looked at together, once a string is known to be long.
const BLOCK: usize = 4 * WORD;

/// Returns how many bytes come before the first that ends the plain part of a string: a quote, a backslash or a control
/// character.
#[inline]
pub(crate) fn plain_len(bytes: &[u8]) -> usize {
    // Most strings are short.
    let mut len = 0;
    while let Some(eight) = bytes.get(len..len + WORD) {
        let stops = stops(word(eight));
        if stops != 0 {
            return len + first(stops);
        }
        len += WORD;
        if len == BLOCK {
            break;
        }
    }
    far_plain_len(bytes, len)
}

/// The part of a string without longer escapes than those of two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StringPart {
    pub(crate) len: usize,
    /// As many escapes.
    pub(crate) escapes: usize,
}

/// Returns the part of a string that comes before its quote, a longer escape or a control character.
#[inline]
pub(crate) fn string_part(bytes: &[u8]) -> StringPart {
    let len = plain_len(bytes);
    match bytes.get(len) {
        Some(b'\\') => escaped_part(bytes, len),
        _ => StringPart { len, escapes: 0 },
    }
}

/// Reads on from an escape. Escapes lie close together for the most part, so all of a word are found at once. The next
/// word is at a place that does not depend on them: it only is told whether its first byte is escaped.
fn escaped_part(bytes: &[u8], begin: usize) -> StringPart {
    let mut escapes = 0;
    let mut passed = 0;
    // Stops at the escaped byte are none.
    let mut escaped: u64 = 0;
    for (at, eight) in (begin..)
        .step_by(WORD)
        .zip(bytes[begin..].chunks_exact(WORD))
    {
        let mut stops = all_stops(word(eight)) & !escaped;
        escaped = 0;
        while stops != 0 {
            let len = at + first(stops);
            if !is_escape(bytes, len) {
                return StringPart { len, escapes };
            }
            escapes += 1;
            // The backslash, and the byte after it.
            let backslash = stops & stops.wrapping_neg();
            stops &= !(backslash | backslash << 8);
            escaped = backslash >> (8 * (WORD - 1));
        }
        passed = at + WORD - begin;
    }
    let mut len = begin + passed + usize::from(escaped != 0);
    loop {
        len += plain_len(&bytes[len..]);
        if !is_escape(bytes, len) {
            return StringPart { len, escapes };
        }
        escapes += 1;
        len += 2;
    }
}

/// Returns whether an escape of two bytes is there.
#[inline]
fn is_escape(bytes: &[u8], at: usize) -> bool {
    let escape = (bytes.get(at), bytes.get(at + 1));
    matches!(
        escape,
        (
            Some(b'\\'),
            Some(b'n' | b'"' | b'\\' | b'/' | b't' | b'r' | b'b' | b'f')
        )
    )
}

fn far_plain_len(bytes: &[u8], mut len: usize) -> usize {
    for block in bytes[len..].chunks_exact(BLOCK) {
        if words(block).fold(0, |any, word| any | stops(word)) != 0 {
            break;
        }
        len += BLOCK;
    }
    for word in words(&bytes[len..]) {
        let stops = stops(word);
        if stops != 0 {
            return len + first(stops);
        }
        len += WORD;
    }
    // Less than a word is left, at the end of a piece.
    let stop = |&byte: &u8| byte < b' ' || byte == b'"' || byte == b'\\';
    let rest = &bytes[len..];
    len + rest.iter().position(stop).unwrap_or(rest.len())
}

/// Returns how many bytes come before the end of the line.
pub(crate) fn line_len(bytes: &[u8]) -> usize {
    let mut len = 0;
    for block in bytes.chunks_exact(BLOCK) {
        if words(block).fold(0, |any, word| any | line_ends(word)) != 0 {
            break;
        }
        len += BLOCK;
    }
    let stop = |&byte: &u8| byte == b'\n' || byte == b'\r';
    let rest = &bytes[len..];
    len + rest.iter().position(stop).unwrap_or(rest.len())
}

/// Returns how many digits come first.
#[inline]
pub(crate) fn digits_len(bytes: &[u8]) -> usize {
    let mut len = 0;
    while let Some(eight) = bytes.get(len..len + WORD) {
        let others = others(word(eight));
        if others != 0 {
            return len + first(others);
        }
        len += WORD;
    }
    let rest = &bytes[len..];
    let other = |byte: &u8| !byte.is_ascii_digit();
    len + rest.iter().position(other).unwrap_or(rest.len())
}

/// Returns the index of the lowest byte whose highest bit is set.
#[inline]
fn first(word: u64) -> usize {
    word.trailing_zeros() as usize / 8
}

/// Returns a word whose highest bits say where a string stops. A borrow may set a bit above the lowest, but only then.
#[inline]
fn stops(word: u64) -> u64 {
    let quotes = word ^ (ONES * u64::from(b'"'));
    let backslashes = word ^ (ONES * u64::from(b'\\'));
    let spaces = ONES * u64::from(b' ');
    (word.wrapping_sub(spaces) | quotes.wrapping_sub(ONES) | backslashes.wrapping_sub(ONES))
        & !word
        & HIGHEST
}

/// The same, and exact for each byte.
#[inline]
fn all_stops(word: u64) -> u64 {
    let low = |word: u64| word & !HIGHEST;
    let others = |word: u64| (low(word) + !HIGHEST) | word;
    let quotes = others(word ^ (ONES * u64::from(b'"')));
    let backslashes = others(word ^ (ONES * u64::from(b'\\')));
    let spaces = (low(word) + ONES * u64::from(0x80 - b' ')) | word;
    !(quotes & backslashes & spaces) & HIGHEST
}

/// The same for the ends of lines.
#[inline]
fn line_ends(word: u64) -> u64 {
    let feeds = word ^ (ONES * u64::from(b'\n'));
    let returns = word ^ (ONES * u64::from(b'\r'));
    (feeds.wrapping_sub(ONES) | returns.wrapping_sub(ONES)) & !word & HIGHEST
}

/// The same for all but digits. Exact for each byte.
#[inline]
fn others(word: u64) -> u64 {
    let values = word ^ (ONES * u64::from(b'0'));
    (((values & !HIGHEST) + ONES * (0x80 - 10)) | values) & HIGHEST
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::cases::cases;

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            40 => b'a'..=b'z',
            40 => b'0'..=b'9',
            3 => select(&b" !\"\\\x1F\x7F\x80\xFF\0#[]\xA2\xDC\n\r\x0B\x0C\x0E/:\xB0\xB9\xAF"[..]),
            1 => any::<u8>(),
        ]
    }

    fn until(bytes: &[u8], stop: impl Fn(u8) -> bool) -> usize {
        let at = bytes.iter().position(|&byte| stop(byte));
        at.unwrap_or(bytes.len())
    }

    proptest! {
        #![proptest_config(cases(4_000))]

        #[test]
        fn words_stop_where_bytes_do(bytes in vec(byte(), 0..200)) {
            let plain = until(&bytes, |byte| byte < b' ' || byte == b'"' || byte == b'\\');
            prop_assert_eq!(plain_len(&bytes), plain);
            let mut part = StringPart { len: plain, escapes: 0 };
            while let [b'\\', b'n' | b'"' | b'\\' | b'/' | b't' | b'r' | b'b' | b'f', rest @ ..] = &bytes[part.len..] {
                part.escapes += 1;
                part.len += 2 + until(rest, |byte| byte < b' ' || byte == b'"' || byte == b'\\');
            }
            prop_assert_eq!(string_part(&bytes), part);
            prop_assert_eq!(line_len(&bytes), until(&bytes, |byte| byte == b'\n' || byte == b'\r'));
            for (at, _) in bytes.iter().enumerate() {
                let digits = until(&bytes[at..], |byte| !byte.is_ascii_digit());
                prop_assert_eq!(digits_len(&bytes[at..]), digits);
            }
        }
    }
}
