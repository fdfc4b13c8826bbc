//! An event stream, line by line, as the HTML standard reads it (section 9.2.6, "Interpreting an event
//! stream").

use super::{json::JsonScanner, tally::Tally};
use crate::json::line_len;

/// A scanner of an event stream.
#[derive(Debug, Clone)]
pub(super) struct EventStreamScanner {
    line: LineState,
    /// The last byte was a carriage return: a line feed now belongs to the same line end.
    after_return: bool,
    /// The event has data.
    has_data: bool,
    /// The bytes of the event's data.
    length: u64,
    /// The event's data.
    json: JsonScanner,
}

/// The part of a line that was read last.
#[derive(Debug, Clone, Copy)]
enum LineState {
    /// The stream's first: as many bytes of the byte order mark that it may begin with.
    Mark(usize),
    /// As many bytes, and all of them from the field name.
    Field(usize),
    /// `data:`, after which one space is no data.
    Colon,
    Data,
    /// A comment or another field.
    Other,
}

const MARK: &[u8] = b"\xEF\xBB\xBF";
const FIELD: &[u8] = b"data";

impl EventStreamScanner {
    pub(super) fn new() -> Self {
        Self {
            line: LineState::Mark(0),
            after_return: false,
            has_data: false,
            length: 0,
            json: JsonScanner::new(true),
        }
    }

    /// Returns all that was read. An event without its empty line reports nothing, but its text has passed.
    pub(super) fn tally(&self) -> Tally {
        self.json.tally(self.length)
    }

    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.after_return {
                self.after_return = false;
                if byte == b'\n' {
                    bytes = rest;
                    continue;
                }
            }
            bytes = match self.line {
                LineState::Data => {
                    let rest = self.json.read::<true>(bytes);
                    self.length += (bytes.len() - rest.len()) as u64;
                    self.line_end(rest)
                }
                LineState::Other => self.line_end(&bytes[line_len(bytes)..]),
                _ if is_line_end(byte) => {
                    self.end_line(byte);
                    rest
                }
                // Nearly all lines begin so.
                LineState::Field(0) if bytes.starts_with(b"data: ") => {
                    self.begin_data();
                    self.line = LineState::Data;
                    &bytes[6..]
                }
                LineState::Mark(seen) if MARK.get(seen) == Some(&byte) => {
                    self.line = LineState::Mark(seen + 1);
                    rest
                }
                LineState::Mark(0) | LineState::Mark(3) => {
                    self.line = LineState::Field(0);
                    bytes
                }
                LineState::Field(seen) if FIELD.get(seen) == Some(&byte) => {
                    self.line = LineState::Field(seen + 1);
                    rest
                }
                LineState::Field(seen) if seen == FIELD.len() && byte == b':' => {
                    self.begin_data();
                    self.line = LineState::Colon;
                    rest
                }
                LineState::Mark(_) | LineState::Field(_) => {
                    self.line = LineState::Other;
                    rest
                }
                LineState::Colon => {
                    self.line = LineState::Data;
                    if byte == b' ' { rest } else { bytes }
                }
            };
        }
    }

    /// Begins a line of data. Lines of data are joined with line feeds.
    fn begin_data(&mut self) {
        if self.has_data {
            self.json.read::<false>(b"\n");
            self.length += 1;
        }
        self.has_data = true;
    }

    /// Takes the end of a line, if it comes first, and returns the bytes that follow.
    fn line_end<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match bytes.split_first() {
            Some((&byte, rest)) => {
                self.end_line(byte);
                rest
            }
            None => bytes,
        }
    }

    fn end_line(&mut self, byte: u8) {
        self.after_return = byte == b'\r';
        // A line `data` without a colon is an empty one of data, but that would be white space too.
        if let LineState::Field(0) = self.line {
            self.json.end_text(self.length);
            (self.has_data, self.length) = (false, 0);
        }
        self.line = LineState::Field(0);
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}
