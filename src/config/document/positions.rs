//! Lines and columns of a text, each found without a look at all that stands before it.

use std::{iter, ops::Range};

use crate::config::error::Position;

/// The distance of the marks up to which characters are counted beforehand, in bytes.
const STEP: usize = 256;

/// An index of a text.
pub(super) struct Positions<'a> {
    text: &'a str,
    /// The byte at which each line begins.
    lines: Vec<usize>,
    /// The number of characters that begin before each mark.
    marks: Vec<usize>,
}

impl<'a> Positions<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut before = 0;
        let marks = text.as_bytes().chunks(STEP).map(|chunk| {
            let mark = before;
            before += characters(chunk);
            mark
        });
        let marks: Vec<_> = marks.collect();
        Self {
            text,
            lines: iter::once(0).chain(newlines).collect(),
            marks,
        }
    }

    /// Counted from one, columns in characters.
    pub(super) fn of(&self, span: &Range<usize>) -> Position {
        let at = span.start.min(self.text.len());
        // The first line begins at the start of the text.
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        let start = self.lines[line - 1];
        Position {
            line,
            column: self.characters_before(at) - self.characters_before(start) + 1,
        }
    }

    /// Returns the number of characters that begin before a byte. Looks at [`STEP`] bytes at most.
    fn characters_before(&self, at: usize) -> usize {
        let mark = at / STEP;
        match self.marks.get(mark) {
            Some(before) => before + characters(&self.text.as_bytes()[mark * STEP..at]),
            // The end of a text that ends at a mark.
            None => self.characters_before_end(),
        }
    }

    fn characters_before_end(&self) -> usize {
        let last = self.marks.len().saturating_sub(1);
        let before = self.marks.last().copied().unwrap_or(0);
        before + characters(&self.text.as_bytes()[last * STEP..])
    }
}

/// Returns the number of characters that begin in some bytes of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    let continues = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    bytes.len() - bytes.iter().filter(continues).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By a look at all that stands before it.
    fn slowly(text: &str, at: usize) -> Position {
        let before = &text[..at];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
        }
    }

    proptest! {
        #[test]
        fn places_are_those_that_a_look_at_the_whole_text_finds(
            text in "([a-zé\u{1f680}]{0,200}\n?){0,9}",
        ) {
            let positions = Positions::new(&text);
            let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            for at in starts {
                prop_assert_eq!(positions.of(&(at..at)), slowly(&text, at));
            }
        }
    }

    #[test]
    fn a_text_that_ends_at_a_mark_has_an_end() {
        for length in [0, 1, STEP - 1, STEP, STEP + 1, 2 * STEP] {
            let text = "x".repeat(length);
            let end = Positions::new(&text).of(&(length..length));
            assert_eq!((end.line, end.column), (1, length + 1));
            assert_eq!(Positions::new(&text).of(&(length + 9..length + 9)), end);
        }
    }
}
