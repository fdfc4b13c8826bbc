//! Reads token usage from a model server's answer as it streams.
//!
//! A [`UsageScanner`] is fed the bytes as they pass, split anywhere, and finds what the answer reports and how much
//! text of the model has passed. It neither delays nor copies nor stores any part of the answer: its memory is fixed
//! and its time linear, whatever the input.
//!
//! # Texts
//!
//! - A JSON answer is one JSON text; in an event stream, each event's data is one; of lines, each line. An array of a
//!   JSON answer is a stream of its items, as Gemini has it without events.
//! - JSON that breaks the grammar or is more than [127 levels](crate::json::DEPTH) deep reports nothing. Strings are
//!   not decoded, so that invalid UTF-8 and lone surrogates go unnoticed.
//! - Half a text reports nothing: an event counts once its empty line has arrived, a JSON answer once its last bracket
//!   has. Its text has passed all the same.
//!
//! # Reports
//!
//! All dialects are read at once, for no name has two meanings among them: a setting of the dialect would be one more
//! thing to get wrong, and a gateway serves several on one route. `place` has the members on the way to a usage,
//! `counts` the names and the meaning of counts.
//!
//! - The counts of the answer itself count, or else those of `response` or `message` in it. The output of `message` is
//!   the one at its start, and does not count.
//! - A number counts if it is written as a non-negative integer and fits `u64`. Other numbers (`12.0`, `1e3`, `-1`) and
//!   other values are ignored.
//! - The last of several members with the same name counts. A name may be written with escapes.
//! - Counts of a stream are cumulative: the largest of each counts, so that `"usage": null` does not remove one.
//! - A stream with data that is neither JSON nor the mark `[DONE]` reports nothing: a server that sends its model's
//!   words as they are would let the model write the report, as its client asks it to.
//! - A report is final if no text follows it. In a stream that is cut short it must also come after text, have no text
//!   beside it, and be the first with a count of the output that is not only a total: a client may ask its server for
//!   counts with each event, and leave after any of them.
//!
//! # Text
//!
//! A string is text if the last name before it is one of [`is_text`](place::is_text), in a member of the answer that
//! `place` says has text. All names and strings in the arguments of a tool are text. Four bytes are a token, and an
//! event with text is at least one. Data that is no JSON counts with all its bytes, except for the mark `[DONE]`.

mod answer;
mod counts;
#[cfg(test)]
mod dialects;
mod events;
mod json;
mod lines;
mod place;
#[cfg(test)]
mod reference;
mod tally;
#[cfg(test)]
mod tests;

pub(crate) use self::tally::BYTES_PER_TOKEN;
use self::{
    counts::KnownUsage, events::EventStreamScanner, json::JsonScanner, lines::LineScanner,
    tally::Tally,
};
use crate::{head, limit::token_usage::TokenUsage};

/// The media type of an answer that may report usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    /// One JSON text.
    Json,
    /// JSON texts, each on a line.
    JsonLines,
    /// Server-sent events, each with a JSON text.
    EventStream,
}

impl MediaType {
    /// By the field `content-type`, whose parameters make no difference.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        let media_type = head::trim_ows(content_type.split(';').next()?);
        let is = |name: &&str| media_type.eq_ignore_ascii_case(name);
        if is(&"application/json") {
            Some(Self::Json)
        } else if is(&"text/event-stream") {
            Some(Self::EventStream)
        } else if JSON_LINES.iter().any(is) {
            Some(Self::JsonLines)
        } else {
            None
        }
    }
}

/// Ollama's, and the names under which others have the same.
const JSON_LINES: [&str; 4] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/stream+json",
];

/// A scanner of an answer for the usage that it reports.
#[derive(Debug, Clone)]
pub(crate) struct UsageScanner {
    body: Scanner,
}

/// The scanner of one media type.
#[derive(Debug, Clone)]
enum Scanner {
    Json(JsonScanner),
    JsonLines(LineScanner),
    EventStream(EventStreamScanner),
}

/// The usage and the text that were read of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScanReport {
    /// The usage, if the answer has reported it, and nothing has passed since that is not in it.
    pub(crate) usage: Option<TokenUsage>,
    /// The usage that is known without such a report: the input if it was reported, and as output the larger of what
    /// was reported and what has passed.
    pub(crate) read: TokenUsage,
    /// The input was reported, by an answer that is believed.
    pub(crate) has_input: bool,
    /// The tokens of the text that has passed.
    pub(crate) passed: u64,
    /// The answer has data that is no JSON, or it is one text that is none.
    pub(crate) is_malformed: bool,
}

impl UsageScanner {
    pub(crate) fn new(kind: MediaType) -> Self {
        Self {
            body: match kind {
                MediaType::Json => Scanner::Json(JsonScanner::new(false)),
                MediaType::JsonLines => Scanner::JsonLines(LineScanner::new()),
                MediaType::EventStream => Scanner::EventStream(EventStreamScanner::new()),
            },
        }
    }

    /// Reads on.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        match &mut self.body {
            Scanner::Json(json) => {
                json.read::<false>(bytes);
            }
            Scanner::JsonLines(lines) => lines.read(bytes),
            Scanner::EventStream(events) => events.read(bytes),
        }
    }

    /// Returns what was read so far, of an answer that has `ended` or was cut short there.
    pub(crate) fn report(&self, ended: bool) -> ScanReport {
        let (tally, usage, is_malformed) = match &self.body {
            // Half a text reports nothing.
            Scanner::Json(json) => {
                let (tally, is_whole) = (json.body_tally(), json.is_complete());
                let usage = tally.settled(true).or_else(|| tally.settled_input());
                let is_malformed = json.is_broken() || ended && !is_whole;
                (tally, usage.filter(|_| is_whole), is_malformed)
            }
            Scanner::JsonLines(lines) => Self::of_many(lines.tally(), ended),
            Scanner::EventStream(events) => Self::of_many(events.tally(), ended),
        };
        let read = tally.read();
        ScanReport {
            usage: usage.map(|known| known.usage),
            read: read.usage,
            has_input: read.has_input && !tally.is_malformed(),
            passed: tally.passed(),
            is_malformed,
        }
    }

    /// The report of many texts, which do not have to end for that. All of them have to be JSON.
    fn of_many(tally: Tally, ended: bool) -> (Tally, Option<KnownUsage>, bool) {
        let is_malformed = tally.is_malformed();
        let usage = tally.settled(ended).filter(|_| !is_malformed);
        (tally, usage, is_malformed)
    }
}
