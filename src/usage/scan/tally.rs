//! The reports and the text of all answers in a body.

use super::counts::{KnownUsage, TokenCounts};

/// The bytes of text that count as one token. An event with fewer counts as much.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// The sum of what was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// The largest counts.
    counts: TokenCounts,
    /// The output was reported.
    is_reported: bool,
    /// A report had an output of its own.
    is_told_apart: bool,
    /// The last report was the first of these, after some text and with none beside it. It may be the last word of a
    /// body that was cut short: of servers that report with each event no report is.
    is_conclusive: bool,
    /// Bytes of text, and of those the ones that came after the last report.
    text: u64,
    text_since: u64,
    /// There was data that is no JSON.
    is_malformed: bool,
}

impl Tally {
    /// Adds the text of one answer or of one event.
    #[inline]
    pub(super) fn add_text(&mut self, bytes: u64) {
        if bytes > 0 {
            let bytes = bytes.max(BYTES_PER_TOKEN);
            self.text = self.text.saturating_add(bytes);
            self.text_since = self.text_since.saturating_add(bytes);
        }
    }

    /// Adds data that is no JSON. It counts as text, but some streams end with a mark of their own.
    pub(super) fn add_malformed(&mut self, bytes: u64) {
        self.is_malformed = true;
        self.text = self.text.saturating_add(bytes.max(BYTES_PER_TOKEN));
    }

    /// Adds its counts, after its text.
    pub(super) fn add_report(&mut self, counts: &TokenCounts, has_text: bool) {
        self.counts.raise(counts);
        if counts.tell_output() {
            self.is_reported = true;
            let is_apart = counts.tell_output_apart();
            let is_first = is_apart && !self.is_told_apart;
            self.is_told_apart |= is_apart;
            self.is_conclusive = is_first && self.text > 0 && !has_text;
            self.text_since = 0;
        }
    }

    /// Adds counts at the start of an answer: they say nothing of its output.
    pub(super) fn add_start(&mut self, counts: &TokenCounts) {
        self.counts.raise(&counts.clone().without_output());
    }

    pub(super) fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// Returns the usage if the last report is the last word: no text has come after it, and it is conclusive unless
    /// the body is `whole`.
    pub(super) fn settled(&self, whole: bool) -> Option<KnownUsage> {
        let is_last = self.text_since == 0 && (whole || self.is_conclusive);
        let known = self.counts.known();
        let is_settled = self.is_reported && is_last && known.has_input && known.has_output;
        is_settled.then_some(known)
    }

    /// Returns the usage of a whole answer without text that has reported its input alone, as embeddings do.
    pub(super) fn settled_input(&self) -> Option<KnownUsage> {
        let known = self.counts.known();
        (known.has_input && !known.has_output && self.text == 0).then_some(known)
    }

    /// Returns what is known without a last word: the input that was reported, and the output that was reported or has
    /// passed.
    pub(super) fn read(&self) -> KnownUsage {
        let mut known = self.counts.known();
        let since = self.text_since.div_ceil(BYTES_PER_TOKEN);
        let reported = known.usage.output.saturating_add(since);
        known.usage.output = reported.max(self.passed());
        known
    }

    /// Returns the tokens of the text that has passed.
    pub(super) fn passed(&self) -> u64 {
        self.text.div_ceil(BYTES_PER_TOKEN)
    }
}
