//! Reads token usage from a model server's answer as it streams.
//!
//! Answers in OpenAI's format report their cost in the member `usage` of a JSON answer, or of one of the last events of
//! a stream. A [`UsageScanner`] is fed the bytes as they pass, split anywhere, and finds it. It neither delays nor
//! copies nor stores any part of the answer: its memory is fixed and its time linear, whatever the input.
//!
//! # Rules
//!
//! - A JSON answer is one JSON text; in an event stream, each event's data is one. Data that is not JSON, such as
//!   `[DONE]`, reports nothing.
//! - The `usage` of the top-level object counts, or else that of `response`, where the events of the Responses API have
//!   it. A `usage` anywhere else is ignored.
//! - The cost is `total_tokens`, or else `prompt_tokens` and `completion_tokens` together, or else
//!   `input_tokens` and `output_tokens` together. Half of a pair is not the cost.
//! - A number counts if it is written as a non-negative integer and fits `u64`. Other numbers (`12.0`, `1e3`, `-1`) and
//!   other values are ignored.
//! - The last of several members with the same name counts. A name may be written with escapes.
//! - The last event that reports a cost counts, so that `"usage": null` does not remove one.
//!
//! # Truncated answers
//!
//! A JSON answer reports its cost once its last brace has arrived, an event once its empty line has. A truncated one
//! reports nothing. Nor does JSON that breaks the grammar or is more than [127 levels](crate::json::DEPTH) deep.
//! Strings are not decoded, so that invalid UTF-8 and lone surrogates go unnoticed.
//!
//! Bytes are not decompressed: a compressed answer reports nothing.

mod events;
mod json;
mod position;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod tokens;

use self::{events::EventStreamScanner, json::JsonScanner};
use crate::head;

/// The media type of an answer that may report usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    /// One JSON text.
    Json,
    /// Server-sent events, each with a JSON text.
    EventStream,
}

impl MediaType {
    /// By the field `content-type`, whose parameters make no difference.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        let media_type = head::trim_ows(content_type.split(';').next()?);
        let is = |name| media_type.eq_ignore_ascii_case(name);
        if is("application/json") {
            Some(Self::Json)
        } else if is("text/event-stream") {
            Some(Self::EventStream)
        } else {
            None
        }
    }
}

/// A scanner of an answer for the cost that it reports.
#[derive(Debug, Clone)]
pub(crate) struct UsageScanner {
    answer: Scanner,
}

/// The scanner of one media type.
#[derive(Debug, Clone)]
enum Scanner {
    Json(JsonScanner),
    EventStream(EventStreamScanner),
}

impl UsageScanner {
    pub(crate) fn new(kind: MediaType) -> Self {
        Self {
            answer: match kind {
                MediaType::Json => Scanner::Json(JsonScanner::new()),
                MediaType::EventStream => Scanner::EventStream(EventStreamScanner::new()),
            },
        }
    }

    /// Reads on.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        match &mut self.answer {
            Scanner::Json(json) => json.read(bytes),
            Scanner::EventStream(events) => events.read(bytes),
        }
    }

    /// Tokens that the answer says it has cost, as far as it was read.
    pub(crate) fn total(&self) -> Option<u64> {
        match &self.answer {
            Scanner::Json(json) => json.total(),
            Scanner::EventStream(events) => events.total(),
        }
    }
}
