//! Literals after a parameter in one segment, such as `:generateContent`.
//!
//! Google's APIs put a verb behind a name: `POST /v1beta/models/{model}:generateContent`. A segment that has escapes may
//! end with such a literal for one host and not for another, since some compare it as it was sent and others decode it
//! first. Each way is a reading of its own: see [`Escapes`].

use std::borrow::Cow;

use super::spelling::{Escapes, decode, normalize};

/// A literal after a parameter, in normal form. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Suffix(Box<str>);

impl Suffix {
    pub(super) fn new(text: &str) -> Self {
        Self(normalize(text).into())
    }

    /// Returns the literal in normal form.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of bytes in normal form: of several that a segment ends with, the longest is the most specific.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether a segment ends with this literal, and has at least one character before it.
    ///
    /// The segment is in normal form, but for [`Escapes::Sent`].
    #[inline]
    pub(super) fn ends(&self, segment: &str, escapes: Escapes) -> bool {
        match escapes {
            Escapes::Decoded if segment.contains('%') => self.ends_decoded(segment),
            Escapes::Normal | Escapes::Decoded => {
                let value = segment.strip_suffix(&*self.0);
                value.is_some_and(|value| {
                    !value.is_empty() && !is_within_escape(segment, value.len())
                })
            }
            Escapes::Sent => {
                let segment = unmarked(segment);
                segment.len() > self.len() && segment.ends_with(&*self.0)
            }
        }
    }

    fn ends_decoded(&self, segment: &str) -> bool {
        let (segment, own) = (decode(segment), decode(&self.0));
        segment.len() > own.len() && segment.ends_with(&own)
    }

    /// Returns what stands before this literal in a segment that ends with it, with escapes decoded once. The segment is
    /// as it was sent. `None`: it is shorter.
    pub(super) fn value<'a>(&self, segment: &'a str, escapes: Escapes) -> Option<Cow<'a, [u8]>> {
        if escapes == Escapes::Sent {
            return segment.strip_suffix(&*self.0).map(decode);
        }
        let end = |length: usize| length.checked_sub(decode(&self.0).len());
        match decode(segment) {
            Cow::Borrowed(text) => text.get(..end(text.len())?).map(Cow::Borrowed),
            Cow::Owned(mut text) => {
                text.truncate(end(text.len())?);
                Some(Cow::Owned(text))
            }
        }
    }

    /// Returns whether a segment that is a literal ends with this one, in some reading.
    pub(super) fn may_end(&self, literal: &str) -> bool {
        let ends = literal.len() > self.len() && literal.ends_with(&*self.0);
        ends || self.ends_decoded(literal)
    }

    /// Returns whether some segment ends with both literals, in the same reading or in two. Errs only towards yes.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (longer, shorter) = match self.len() >= other.len() {
            true => (self, other),
            false => (other, self),
        };
        let [one, another] = [self, other].map(|suffix| decode(&suffix.0));
        longer.0.ends_with(&*shorter.0) || one.ends_with(&another) || another.ends_with(&one)
    }
}

/// Returns whether a place in a text lies within an escape.
fn is_within_escape(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    let is_escape = |begin: usize| {
        let digits = bytes.get(begin + 1..begin + 3);
        bytes[begin] == b'%' && digits.is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
    };
    (at.saturating_sub(2)..at).any(is_escape)
}

/// Returns a segment without the sign that makes it unlike any literal.
fn unmarked(segment: &str) -> &str {
    segment.strip_prefix('\0').unwrap_or(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_ends_with_a_literal_in_each_reading_or_in_some() {
        // (the literal, the segment, in normal form, decoded, as it was sent)
        let table = [
            (":run", "m:run", true, true, true),
            (":run", ":run", false, false, false),
            (":run", "m:runs", false, false, false),
            (":run", "m%3Arun", false, true, false),
            (":run", "%3Arun", false, false, false),
            (":run", "m%253Arun", false, false, false),
            (":run", "%20:run", true, true, true),
            ("Arun", "m%3Arun", false, false, true),
            ("3Arun", "m%3Arun", false, false, true),
            ("run", "m%3Arun", true, true, true),
            ("run", "m%run", true, true, true),
            ("%3Arun", "m%3Arun", true, true, true),
            ("%3Arun", "m:run", false, false, false),
            (":run", "\0m:run", true, true, true),
            (":run", "\0:run", true, true, false),
            ("%C3%A9", "a%C3%A9", true, true, true),
            ("%A9", "a%C3%A9", true, true, true),
        ];
        for (suffix, segment, normal, decoded, sent) in table {
            let own = Suffix::new(suffix);
            let ends = [Escapes::Normal, Escapes::Decoded, Escapes::Sent]
                .map(|escapes| own.ends(segment, escapes));
            assert_eq!(ends, [normal, decoded, sent], "{suffix} of {segment}");
            if ends.contains(&true) && !segment.starts_with('\0') {
                assert!(own.may_end(segment), "{suffix} of {segment}");
            }
        }
    }

    #[test]
    fn two_literals_meet_if_a_segment_may_end_with_both() {
        let table = [
            (":run", ":run", true),
            (":run", "un", true),
            (":run", ":stop", false),
            (":run", "%3Arun", true),
            ("A", "%3A", true),
            ("un", "r", false),
        ];
        for (one, other, expected) in table {
            let [first, second] = [one, other].map(Suffix::new);
            assert_eq!(first.meets(&second), expected, "{one} {other}");
            assert_eq!(second.meets(&first), expected, "{other} {one}");
        }
    }
}
