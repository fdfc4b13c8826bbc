//! The tokens of one request, by what they were used for.

/// Model tokens of one request, by kind: what [`Usage`](crate::Usage) adds and settles.
///
/// The kinds do not overlap. A vendor that counts cached tokens within the input has them subtracted there.
///
/// ```
/// use tower_throttle::usage::TokenUsage;
///
/// let usage = TokenUsage::new().input(1_200).cached_input(800).output(350);
/// assert_eq!(usage.total(), 2_350);
/// ```
///
/// Sums above 2⁶⁴ − 1 count as 2⁶⁴ − 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct TokenUsage {
    pub(crate) input: u64,
    pub(crate) cached_input: u64,
    pub(crate) cache_write: u64,
    pub(crate) output: u64,
    pub(crate) undivided: u64,
}

impl TokenUsage {
    /// Creates a count of no tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a count of `tokens` that may be of the input or of the output. Limits of either kind count all of them,
    /// and prices take the dearer kind.
    pub fn undivided(tokens: u64) -> Self {
        Self {
            undivided: tokens,
            ..Self::default()
        }
    }

    /// Sets the tokens of the input that came from no cache.
    pub fn input(mut self, tokens: u64) -> Self {
        self.input = tokens;
        self
    }

    /// Sets the tokens of the input that the model server read from its cache.
    pub fn cached_input(mut self, tokens: u64) -> Self {
        self.cached_input = tokens;
        self
    }

    /// Sets the tokens of the input that the model server wrote to its cache, where it counts them apart.
    pub fn cache_write(mut self, tokens: u64) -> Self {
        self.cache_write = tokens;
        self
    }

    /// Sets the tokens of the output, with those of reasoning.
    pub fn output(mut self, tokens: u64) -> Self {
        self.output = tokens;
        self
    }

    /// Returns the tokens of all kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        let input = (self.input)
            .saturating_add(self.cached_input)
            .saturating_add(self.cache_write);
        input
            .saturating_add(self.output)
            .saturating_add(self.undivided)
    }

    /// Returns whether tokens of the input were counted as such.
    pub(crate) fn has_input(&self) -> bool {
        self.input > 0 || self.cached_input > 0 || self.cache_write > 0
    }

    /// Returns the sum of both, kind by kind.
    pub fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached_input: self.cached_input.saturating_add(other.cached_input),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            output: self.output.saturating_add(other.output),
            undivided: self.undivided.saturating_add(other.undivided),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_has_each_kind_and_does_not_overflow() {
        let one = TokenUsage::new()
            .input(1)
            .cached_input(2)
            .cache_write(3)
            .output(4);
        let other = TokenUsage::undivided(5);
        assert_eq!(one.total(), 10);
        let sum = one.plus(other);
        assert_eq!(sum.total(), 15);
        assert_eq!(
            sum,
            TokenUsage {
                undivided: 5,
                ..one
            }
        );
        let most = TokenUsage::new().input(u64::MAX).output(1);
        assert_eq!(most.total(), u64::MAX);
        assert_eq!(most.plus(one).input, u64::MAX);
    }

    #[test]
    fn tokens_of_the_input_are_those_that_were_counted_as_such() {
        let new = TokenUsage::new;
        for usage in [new().input(1), new().cached_input(1), new().cache_write(1)] {
            assert!(usage.has_input(), "{usage:?}");
        }
        for usage in [new(), new().output(1), TokenUsage::undivided(1)] {
            assert!(!usage.has_input(), "{usage:?}");
        }
    }
}
