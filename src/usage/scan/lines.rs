//! JSON texts, each on a line of its own.

use super::{json::JsonScanner, tally::Tally};

/// A scanner of lines.
#[derive(Debug, Clone)]
pub(super) struct LineScanner {
    json: JsonScanner,
    /// The bytes of the line.
    length: u64,
}

impl LineScanner {
    pub(super) fn new() -> Self {
        Self {
            json: JsonScanner::new(false),
            length: 0,
        }
    }

    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let rest = self.json.read::<true>(bytes);
            self.length += (bytes.len() - rest.len()) as u64;
            let Some((_, rest)) = rest.split_first() else {
                return;
            };
            self.json.end_text(self.length);
            self.length = 0;
            bytes = rest;
        }
    }

    /// Returns all that was read. The last line needs no end.
    pub(super) fn tally(&self) -> Tally {
        match self.json.is_complete() {
            true => self.json.body_tally(),
            false => self.json.tally(self.length),
        }
    }
}
