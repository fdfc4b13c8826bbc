//! Text in the making.

use std::cell::Cell;

use bytes::BytesMut;
use http::HeaderValue;

/// Appends text and numbers, and makes header values of them.
///
/// Values are cut from a sheet of memory that their thread keeps: so that there is no allocation for each of them. A
/// sheet is used again from its beginning once all that was cut from it is gone, and as long as one of them is there,
/// it is there as a whole; it is therefore small.
#[derive(Debug)]
pub(super) struct Buffer {
    sheet: BytesMut,
}

thread_local! {
    static SHEET: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

impl Buffer {
    /// Bytes of a sheet: some twenty values.
    const SHEET: usize = 1_024;
    /// A length in bytes that most values do not reach.
    const ENOUGH: usize = 64;

    pub(super) fn new() -> Self {
        // There is none where another is at work, or where the thread ends.
        let kept = SHEET.try_with(Cell::take).ok().flatten();
        let mut sheet = kept.unwrap_or_default();
        if sheet.capacity() < Self::ENOUGH {
            sheet.reserve(Self::SHEET);
        }
        Self { sheet }
    }

    #[inline]
    pub(super) fn push(&mut self, text: &str) {
        self.sheet.extend_from_slice(text.as_bytes());
    }

    #[inline]
    pub(super) fn push_integer(&mut self, integer: u64) {
        self.push(itoa::Buffer::new().format(integer));
    }

    /// Appends a name in quotes. It holds `[A-Za-z0-9_]` only, so nothing has to be escaped.
    pub(super) fn push_quoted(&mut self, name: &str) {
        self.push("\"");
        self.push(name);
        self.push("\"");
    }

    /// Appends what stands between two items of a list, unless the first is still to come.
    pub(super) fn separate(&mut self) {
        if !self.is_empty() {
            self.push(", ");
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sheet.is_empty()
    }

    /// The text as a header value that is kept for long, and so has memory of its own.
    pub(super) fn to_kept_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&self.sheet).ok()
    }

    /// The text as a header value; nothing but visible ASCII and spaces is ever pushed for one.
    pub(super) fn into_header_value(mut self) -> Option<HeaderValue> {
        let text = self.sheet.split().freeze();
        let _ = SHEET.try_with(|kept| kept.set(Some(self.sheet)));
        HeaderValue::from_maybe_shared(text).ok()
    }
}

/// An integer as a header value.
pub(super) fn integer(integer: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let small = usize::try_from(integer)
        .ok()
        .and_then(|index| SMALL.get(index));
    match small {
        Some(digit) => HeaderValue::from_static(digit),
        None => {
            let mut digits = Buffer::new();
            digits.push_integer(integer);
            digits
                .into_header_value()
                .unwrap_or(HeaderValue::from_static("0"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(write: impl FnOnce(&mut Buffer)) -> HeaderValue {
        let mut buffer = Buffer::new();
        assert!(buffer.is_empty(), "nothing is left of the one before");
        write(&mut buffer);
        buffer.into_header_value().expect("visible text")
    }

    #[test]
    fn values_keep_their_text_whatever_is_written_after_them() {
        let written: Vec<_> = (0..64)
            .map(|shift| {
                let text = format!("x={};", u64::MAX >> shift).repeat(shift);
                let value = value(|buffer| {
                    for _ in 0..shift {
                        buffer.push("x=");
                        buffer.push_integer(u64::MAX >> shift);
                        buffer.push(";");
                    }
                });
                (text, value)
            })
            .collect();
        for (text, value) in written {
            assert_eq!(value, text);
        }
    }

    #[test]
    fn what_was_not_made_a_value_is_gone() {
        let mut lost = Buffer::new();
        lost.push("lost");
        drop(lost);
        assert_eq!(value(|buffer| buffer.push("kept")), "kept");
    }

    #[test]
    fn two_that_are_written_at_a_time_do_not_mix() {
        let mut outer = Buffer::new();
        outer.push("outer");
        assert_eq!(value(|inner| inner.push("inner")), "inner");
        outer.push(" still");
        assert_eq!(outer.into_header_value().expect("text"), "outer still");
    }

    #[test]
    fn an_integer_is_told_whole() {
        for number in [0, 9, 10, 60_000, u64::MAX] {
            assert_eq!(integer(number), number.to_string());
        }
    }
}
