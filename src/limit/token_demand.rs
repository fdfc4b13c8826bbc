//! The tokens that a request is expected to use.

use super::token_usage::TokenUsage;

/// The tokens that a request is expected to use, by kind, before its cost is known.
///
/// The kinds do not overlap. Tokens are undivided where the source of the estimate does not tell input from output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TokenDemand {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) undivided: u64,
}

impl TokenDemand {
    /// A demand for tokens of the input alone.
    pub(crate) fn input(tokens: u64) -> Self {
        Self {
            input: tokens,
            ..Self::default()
        }
    }

    /// A demand for tokens that may be of either kind.
    pub(crate) fn undivided(tokens: u64) -> Self {
        Self {
            undivided: tokens,
            ..Self::default()
        }
    }

    /// Returns the tokens of all kinds together. A sum above 2⁶⁴ − 1 counts as 2⁶⁴ − 1.
    pub(crate) fn total(self) -> u64 {
        self.usage().total()
    }

    /// Returns the same numbers as what was used. None of the input is taken to come from a cache.
    pub(crate) fn usage(self) -> TokenUsage {
        TokenUsage::undivided(self.undivided)
            .input(self.input)
            .output(self.output)
    }
}
