//! An event stream, line by line, as the HTML standard reads it (section 9.2.6, "Interpreting an event
//! stream").

use super::{json::Json, position};

#[derive(Debug, Clone)]
pub(super) struct Events {
    line: Line,
    /// The last byte was a carriage return: a line feed now belongs to the same line end.
    after_return: bool,
    /// The event's data.
    json: Json,
    /// What the last event that told a cost has told.
    total: Option<u64>,
}

/// How far a line has come.
#[derive(Debug, Clone, Copy)]
enum Line {
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

impl Events {
    pub(super) fn new() -> Self {
        Self {
            line: Line::Mark(0),
            after_return: false,
            json: Json::new(),
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
                Line::Data | Line::Other => self.rest_of_line(bytes),
                _ if is_line_end(byte) => {
                    self.end_line(byte);
                    rest
                }
                Line::Mark(seen) if MARK.get(seen) == Some(&byte) => {
                    self.line = Line::Mark(seen + 1);
                    rest
                }
                Line::Mark(0) | Line::Mark(3) => {
                    self.line = Line::Field(0);
                    bytes
                }
                Line::Field(seen) if FIELD.get(seen) == Some(&byte) => {
                    self.line = Line::Field(seen + 1);
                    rest
                }
                Line::Field(seen) if seen == FIELD.len() && byte == b':' => {
                    // Lines of data are joined with line feeds. One before the first is white space.
                    self.json.read(b"\n");
                    self.line = Line::Colon;
                    rest
                }
                Line::Mark(_) | Line::Field(_) => {
                    self.line = Line::Other;
                    rest
                }
                Line::Colon => {
                    self.line = Line::Data;
                    if byte == b' ' { rest } else { bytes }
                }
            };
        }
    }

    /// What is left of a line whose field is known.
    fn rest_of_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = position(bytes, is_line_end);
        let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        if let Line::Data = self.line {
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
        if let Line::Field(0) = self.line {
            self.total = self.json.total().or(self.total);
            self.json = Json::new();
        }
        self.line = Line::Field(0);
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}
