//! The counts of one `usage` object.

/// A count that says, alone or with its other half, what the answer has cost.
#[derive(Debug, Clone, Copy)]
pub(super) enum TokenCount {
    Total,
    Prompt,
    Completion,
    Input,
    Output,
}

impl TokenCount {
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"total_tokens" => Self::Total,
            b"prompt_tokens" => Self::Prompt,
            b"completion_tokens" => Self::Completion,
            b"input_tokens" => Self::Input,
            b"output_tokens" => Self::Output,
            _ => return None,
        })
    }
}

/// The counts that were told so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens {
    counts: [Option<u64>; 5],
}

impl Tokens {
    pub(super) fn set(&mut self, count: TokenCount, value: Option<u64>) {
        self.counts[count as usize] = value;
    }

    /// Returns the total: as it was told, or as the sum of two halves that were told and fit.
    pub(super) fn total(&self) -> Option<u64> {
        let [total, prompt, completion, input, output] = self.counts;
        let sum = |one: Option<u64>, other: Option<u64>| one?.checked_add(other?);
        total
            .or_else(|| sum(prompt, completion))
            .or_else(|| sum(input, output))
    }
}
