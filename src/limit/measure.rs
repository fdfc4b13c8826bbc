//! The units in which a limit counts the tokens of a request.

use std::sync::Arc;

use super::{
    price::PriceTable, token_class::TokenClass, token_demand::TokenDemand, token_usage::TokenUsage,
};

/// The way in which a limit counts the tokens of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The limit counts requests or slots.
    None,
    /// All tokens.
    All(CachedInput),
    /// The tokens of the input.
    Input(CachedInput),
    /// The tokens of the output.
    Output,
    /// The price of the tokens, in millionths of a unit of money.
    Spend(Arc<PriceTable>),
}

/// The weight of a token of the input that came from a cache, in hundredths of another token's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CachedInput(u8);

impl CachedInput {
    /// The weight of `percent` hundredths: at most the whole.
    pub(crate) fn percent(percent: u8) -> Self {
        Self(percent.min(100))
    }

    /// Returns the tokens as which so many cached ones count, rounded up.
    fn of(self, tokens: u64) -> u64 {
        if self.0 == 100 || tokens == 0 {
            return tokens;
        }
        let weight = (u128::from(tokens) * u128::from(self.0)).div_ceil(100);
        u64::try_from(weight).unwrap_or(u64::MAX)
    }
}

impl Measure {
    /// Returns whether a request reserves what it is expected to use, and is charged with what it has used.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Returns whether the units are model tokens.
    pub(crate) fn is_of_tokens(&self) -> bool {
        matches!(self, Self::All(_) | Self::Input(_) | Self::Output)
    }

    /// Returns the units of what a request has used whose price is that of a class. Undivided tokens count in full,
    /// whatever the kind.
    pub(crate) fn of(&self, usage: TokenUsage, class: TokenClass) -> u64 {
        let TokenUsage {
            input,
            cached_input,
            cache_write,
            output,
            undivided,
        } = usage;
        let of_input = |cached: CachedInput| {
            input
                .saturating_add(cached.of(cached_input))
                .saturating_add(cache_write)
        };
        match self {
            Self::None => 0,
            Self::All(cached) => of_input(*cached)
                .saturating_add(output)
                .saturating_add(undivided),
            Self::Input(cached) => of_input(*cached).saturating_add(undivided),
            Self::Output => output.saturating_add(undivided),
            Self::Spend(prices) => prices.of(class).of(usage),
        }
    }

    /// Returns the units of what is expected to be used: at least one, so that an empty bucket admits no request.
    pub(crate) fn of_demand(&self, demand: TokenDemand, class: TokenClass) -> u64 {
        self.of(demand.usage(), class).max(1)
    }

    /// Returns the tokens of output that so many units admit. `u64::MAX` if the limit does not count output, or if the
    /// output costs nothing.
    pub(crate) fn output_for(&self, units: u64, class: TokenClass) -> u64 {
        match self {
            Self::None | Self::Input(_) => u64::MAX,
            Self::All(_) | Self::Output => units,
            Self::Spend(prices) => prices.of(class).output_for(units),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_counts_its_kind_and_undivided_tokens_in_full() {
        let usage = TokenUsage::undivided(5)
            .input(10)
            .cached_input(101)
            .cache_write(3)
            .output(20);
        let percent = CachedInput::percent;
        let class = TokenClass::default();
        // (measure, units)
        let table = [
            (Measure::None, 0),
            (Measure::All(percent(100)), 139),
            (Measure::Input(percent(100)), 119),
            (Measure::Output, 25),
            // A tenth of 101, rounded up.
            (Measure::All(percent(10)), 49),
            (Measure::Input(percent(10)), 29),
            (Measure::Input(percent(0)), 18),
        ];
        for (measure, units) in table {
            assert_eq!(measure.of(usage, class), units, "{measure:?}");
        }
        let most = TokenUsage::new().cached_input(u64::MAX).cache_write(1);
        assert_eq!(Measure::All(percent(100)).of(most, class), u64::MAX);
        let of_input = TokenDemand::input(7);
        assert_eq!(
            Measure::Output.of_demand(of_input, class),
            1,
            "never nothing"
        );
        assert_eq!(Measure::Input(percent(100)).of_demand(of_input, class), 7);
    }
}
