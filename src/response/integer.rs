//! Integers as header values.
//!
//! Each refusal states the seconds and milliseconds of its wait, and the milliseconds differ each time. The texts of
//! integers up to a minute in milliseconds are therefore written once for the process, a hundred at a time, when one of
//! them is first needed. A header value is a slice of them, which allocates nothing and counts no references.
//!
//! All of them take 290 KB, whatever clients send.

use std::{cell::Cell, fmt::Write, sync::OnceLock};

use http::HeaderValue;

use super::limit_text::Buffer;

/// The number of integers that are written together. Those of a group are equally long, except in the first.
const GROUP: usize = 100;

/// The number of groups: up to 60,099, and so a minute in milliseconds.
const GROUPS: usize = 601;

/// Returns an integer as a header value.
pub(super) fn integer(integer: u64) -> HeaderValue {
    match written(integer) {
        Some(text) => HeaderValue::from_static(text),
        None => on_sheet(integer),
    }
}

/// Writes an integer into an existing header value, which costs less than to move a new one there.
#[inline]
pub(super) fn write_to(value: &mut HeaderValue, integer: u64) {
    match written(integer) {
        Some(text) => *value = HeaderValue::from_static(text),
        None => *value = on_sheet(integer),
    }
}

/// Returns the prepared text of an integer. `None` if it is too large.
#[inline(never)]
pub(super) fn written(integer: u64) -> Option<&'static str> {
    let integer = usize::try_from(integer).ok()?;
    let (group, place) = (integer / GROUP, integer % GROUP);
    if group == 0 {
        let from = 2 * place + usize::from(place < 10);
        return FIRST.get(from..2 * place + 2);
    }
    let group = self::group(group)?;
    let length = group.len() / GROUP;
    group.get(place * length..(place + 1) * length)
}

/// The integers of the first group, each of them in two digits.
const FIRST: &str = "00010203040506070809101112131415161718192021222324252627282930313233343536373839\
    40414243444546474849505152535455565758596061626364656667686970717273747576777879\
    8081828384858687888990919293949596979899";

/// Returns the integers of a group, one after the other. `None` if there is no such group.
#[inline]
fn group(number: usize) -> Option<&'static str> {
    static WRITTEN: [OnceLock<Box<str>>; GROUPS] = [const { OnceLock::new() }; GROUPS];
    let group = WRITTEN.get(number)?;
    Some(group.get_or_init(|| write_group(number)))
}

/// Writes the integers of a group.
#[cold]
fn write_group(group: usize) -> Box<str> {
    let mut text = String::with_capacity(5 * GROUP);
    for integer in group * GROUP..(group + 1) * GROUP {
        // Writing to a string never fails.
        let _ = write!(text, "{integer}");
    }
    text.into()
}

thread_local! {
    /// The integer that this thread has written last: under a flood many refusals state the same millisecond.
    static LAST: Cell<Option<(u64, HeaderValue)>> = const { Cell::new(None) };
}

/// Writes an integer as a header value.
#[inline(never)]
fn on_sheet(integer: u64) -> HeaderValue {
    // There is none while the thread ends.
    let last = LAST.try_with(Cell::take).ok().flatten();
    let value = match last {
        Some((last, value)) if last == integer => value,
        _ => {
            let mut digits = Buffer::new();
            digits.push_integer(integer);
            digits
                .into_header_value()
                .unwrap_or(HeaderValue::from_static("0"))
        }
    };
    let _ = LAST.try_with(|last| last.set(Some((integer, value.clone()))));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_told_whole() {
        let last = (GROUPS * GROUP) as u64;
        for number in (0..last + 2).chain([u64::MAX - 1, u64::MAX]) {
            let text = number.to_string();
            assert_eq!(integer(number), text);
            let is_written = written(number) == Some(&text);
            assert_eq!(is_written, number < last, "{number}");
            let mut value = HeaderValue::from_static("before");
            write_to(&mut value, number);
            assert_eq!(value, text);
        }
    }
}
