//! Tokens, read from a model server's answer as it goes by.
//!
//! Answers in OpenAI's manner tell what they have cost: in the member `usage` of a JSON answer, or of one
//! of the last events of a stream. A [`UsageScanner`] is shown the bytes on their way, cut anywhere, and finds it.
//! It delays and copies nothing and keeps no part of the answer: its memory is fixed, its time linear,
//! whatever comes.
//!
//! # Where it looks
//!
//! - A JSON answer is one JSON text; of an event stream, each event's data is one. What is no JSON, such as
//!   `[DONE]`, tells nothing.
//! - It counts what stands in the top-level object's `usage`, or else in `response.usage`, where the events
//!   of the Responses API have it. A `usage` anywhere else is somebody else's.
//! - The cost is `total_tokens`, or else `prompt_tokens` and `completion_tokens` together, or else
//!   `input_tokens` and `output_tokens` together. Half of a pair is not the cost.
//! - A number counts if it is written as a non-negative integer and fits `u64`. Others (`12.0`, `1e3`, `-1`)
//!   are as if they were not there, as is everything that is no number.
//! - Of members of the same name the last counts. A name may be written with escapes.
//! - Of the events, the last that tells a cost counts, so that `"usage": null` takes nothing back.
//!
//! # What is told when
//!
//! A JSON answer tells once its last brace is there, an event once its empty line is: one that was cut
//! short tells nothing. Nor does JSON that breaks the grammar or is more than [127 levels](json::DEPTH) deep.
//! Strings are not decoded, so that wrong UTF-8 and lone surrogates go unnoticed.
//!
//! Bytes are taken as they are: an answer that was compressed further inside tells nothing.

mod events;
mod json;
mod name;
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
