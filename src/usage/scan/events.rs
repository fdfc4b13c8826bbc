//! An event stream, line by line, as the HTML standard reads it (section 9.2.6, "Interpreting an event
//! stream").

use super::{json::JsonScanner, position::position};

/// A scanner of an event stream.
#[derive(Debug, Clone)]
pub(super) struct EventStreamScanner {
    line: LineState,
    /// The last byte was a carriage return: a line feed now belongs to the same line end.
    after_return: bool,
    /// The event's data.
    json: JsonScanner,
    /// The cost that was told by the last event that told one.
    total: Option<u64>,
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
            json: JsonScanner::new(),
            total: None,
        }
    }

    pub(super) fn total(&self) -> Option<u64> {
        self.total
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
                LineState::Data | LineState::Other => self.rest_of_line(bytes),
                _ if is_line_end(byte) => {
                    self.end_line(byte);
                    rest
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
                    // Lines of data are joined with line feeds. One before the first is white space.
                    self.json.read(b"\n");
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

    /// Reads the rest of a line whose field is known, and returns the bytes that follow.
    fn rest_of_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = position(bytes, is_line_end);
        let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        if let LineState::Data = self.line {
            self.json.read(line);
        }
        let Some((&byte, rest)) = rest.split_first() else {
            return rest;
        };
        self.end_line(byte);
        rest
    }

    fn end_line(&mut self, byte: u8) {
        self.after_return = byte == b'\r';
        // A line `data` without a colon is an empty one of data, but that would be white space too.
        if let LineState::Field(0) = self.line {
            self.total = self.json.total().or(self.total);
            self.json = JsonScanner::new();
        }
        self.line = LineState::Field(0);
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}
