//! Prices of model tokens.

use std::borrow::Cow;

use super::{
    amount::{AmountError, millionths},
    token_class::TokenClass,
    token_usage::TokenUsage,
};

/// The prices of model tokens, by the model that a request is for: what [`Limits::spend`](crate::Limits::spend) counts
/// with.
///
/// ```
/// use tower_throttle::{Clients, Limits, Models, Price, Prices, Rules, Spend, ThrottleLayer};
///
/// let prices = Prices::new()
///     .model("gpt-4o*", Price::new().input("2.50").cached_input("1.25").output("10.00"))
///     .model("gpt-4o-mini*", Price::new().input("0.15").output("0.60"))
///     .otherwise(Price::new().input("15.00").output("60.00"));
/// let rules = Rules::new()
///     .models(Models::from_body())
///     .prices(prices)
///     .clients(Clients::by_bearer().each(Limits::new().spend(Spend::per_month("250.00"))));
/// let throttle = ThrottleLayer::new(rules)?;
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
///
/// # The price of a request
///
/// - The longest name of a model wins, as among [`Models`](crate::Models), which also tell how the name is found. The
///   names of both need not be the same.
/// - A request for another model or for none has the price [`otherwise`](Self::otherwise), and so has one on a route
///   whose requests have no models.
/// - A request whose model was not read has, for each kind of tokens, the dearest price of all.
///
/// # Errors
///
/// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses prices without `otherwise`, so that no model is free for
/// being left out; a name as [`Models::model`](crate::Models::model) does; names of models in rules without `Models`;
/// and a [`Price`] that cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Prices {
    pub(crate) models: Vec<(Cow<'static, str>, Price)>,
    pub(crate) otherwise: Option<Price>,
}

impl Prices {
    /// Creates prices of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the price of a model, or, with `*` at the end of the name, of several models.
    pub fn model(mut self, name: impl Into<Cow<'static, str>>, price: Price) -> Self {
        self.models.push((name.into(), price));
        self
    }

    /// Sets the price of all other models, and of requests for none.
    pub fn otherwise(mut self, price: Price) -> Self {
        self.otherwise = Some(price);
        self
    }
}

/// The price of a million tokens of each kind, as decimal text in units of any currency, such as `"2.50"`.
///
/// A price is exact: a millionth of the price of a million tokens is kept, a trillionth of a unit for each token. The
/// price of a request is summed up without rounding, and rounded up to a millionth of a unit once.
///
/// Zero is a price like any other, and has to be written. The highest price is 18,446,744,073,709.551615.
///
/// # Errors
///
/// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses text that is no decimal number or a negative one, more
/// than six decimals, and a price without [`input`](Self::input) or [`output`](Self::output).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Price {
    pub(crate) input: Option<Cow<'static, str>>,
    pub(crate) cached_input: Option<Cow<'static, str>>,
    pub(crate) cache_write: Option<Cow<'static, str>>,
    pub(crate) output: Option<Cow<'static, str>>,
}

impl Price {
    /// Creates a price of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the price of a million tokens of the input.
    pub fn input(mut self, amount: impl Into<Cow<'static, str>>) -> Self {
        self.input = Some(amount.into());
        self
    }

    /// Sets the price of a million tokens of the input that the model server read from its cache. Default: that of
    /// the input.
    pub fn cached_input(mut self, amount: impl Into<Cow<'static, str>>) -> Self {
        self.cached_input = Some(amount.into());
        self
    }

    /// Sets the price of a million tokens of the input that the model server wrote to its cache. Default: that of the
    /// input.
    pub fn cache_write(mut self, amount: impl Into<Cow<'static, str>>) -> Self {
        self.cache_write = Some(amount.into());
        self
    }

    /// Sets the price of a million tokens of the output.
    pub fn output(mut self, amount: impl Into<Cow<'static, str>>) -> Self {
        self.output = Some(amount.into());
        self
    }

    /// Returns the amounts that were set, with their names, in the order in which they are written.
    pub(crate) fn amounts(&self) -> [(&'static str, Option<&str>); 4] {
        let Self {
            input,
            cached_input,
            cache_write,
            output,
        } = self;
        [
            ("input", input.as_deref()),
            ("cached_input", cached_input.as_deref()),
            ("cache_write", cache_write.as_deref()),
            ("output", output.as_deref()),
        ]
    }

    /// Reads the price of a single token.
    ///
    /// # Errors
    ///
    /// The name of the amount at fault, and its fault. `None`: it is missing.
    pub(crate) fn of_token(&self) -> Result<TokenPrice, (&'static str, Option<AmountError>)> {
        let amount = |name, text: &Option<Cow<'static, str>>| {
            let amount = text.as_deref().map(millionths).transpose();
            amount.map_err(|fault| (name, Some(fault)))
        };
        let input = amount("input", &self.input)?.ok_or(("input", None))?;
        let cached_input = amount("cached_input", &self.cached_input)?;
        let cache_write = amount("cache_write", &self.cache_write)?;
        let output = amount("output", &self.output)?.ok_or(("output", None))?;
        Ok(TokenPrice {
            input,
            cached_input: cached_input.unwrap_or(input),
            cache_write: cache_write.unwrap_or(input),
            output,
        })
    }
}

/// The price of one token of each kind, in trillionths of a unit: as many as the millionths of a unit that a million
/// tokens cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TokenPrice {
    input: u64,
    cached_input: u64,
    cache_write: u64,
    output: u64,
}

impl TokenPrice {
    /// The trillionths of a unit in a millionth.
    const PARTS: u128 = 1_000_000;

    /// Returns the price of what was used, in millionths of a unit, rounded up. Undivided tokens have the dearest
    /// price.
    pub(crate) fn of(self, usage: TokenUsage) -> u64 {
        let TokenUsage {
            input,
            cached_input,
            cache_write,
            output,
            undivided,
        } = usage;
        let parts = [
            (input, self.input),
            (cached_input, self.cached_input),
            (cache_write, self.cache_write),
            (output, self.output),
            (undivided, self.dearest()),
        ];
        let parts = parts.map(|(tokens, price)| u128::from(tokens) * u128::from(price));
        // Each is less than 2^128, and their sum may not be.
        let sum = parts.into_iter().fold(0, u128::saturating_add);
        u64::try_from(sum.div_ceil(Self::PARTS)).unwrap_or(u64::MAX)
    }

    /// Returns the tokens of output that an amount of millionths of a unit pays for. `u64::MAX` if they cost nothing.
    pub(crate) fn output_for(self, millionths: u64) -> u64 {
        let parts = u128::from(millionths) * Self::PARTS;
        let tokens = parts.checked_div(u128::from(self.output));
        tokens.map_or(u64::MAX, |tokens| u64::try_from(tokens).unwrap_or(u64::MAX))
    }

    fn dearest(self) -> u64 {
        let of_input = self.input.max(self.cached_input).max(self.cache_write);
        of_input.max(self.output)
    }

    /// Returns the dearer price of each kind.
    fn or_dearer(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            cached_input: self.cached_input.max(other.cached_input),
            cache_write: self.cache_write.max(other.cache_write),
            output: self.output.max(other.output),
        }
    }
}

/// The prices of rules, by class.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PriceTable(Box<[TokenPrice]>);

impl PriceTable {
    /// The prices of other models, and of the named ones in their order.
    pub(crate) fn new(otherwise: TokenPrice, named: &[TokenPrice]) -> Self {
        let unread = named.iter().copied().fold(otherwise, TokenPrice::or_dearer);
        let read = named.iter().copied();
        Self([otherwise, unread].into_iter().chain(read).collect())
    }

    /// Returns the price of a class: that of requests whose model was not read if the class is one of other prices.
    pub(crate) fn of(&self, class: TokenClass) -> TokenPrice {
        let price = self.0.get(class.position());
        let unread = || self.0.get(TokenClass::UNREAD.position());
        price.or_else(unread).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(amounts: [&'static str; 4]) -> TokenPrice {
        let [input, cached_input, cache_write, output] = amounts;
        let price = Price::new().input(input).output(output);
        let price = price.cached_input(cached_input).cache_write(cache_write);
        price.of_token().expect("proper amounts")
    }

    #[test]
    fn a_price_is_summed_exactly_and_rounded_up_once() {
        let price = price(["2.50", "1.25", "3.00", "10.00"]);
        let usage = TokenUsage::new;
        // (usage, millionths of a unit)
        let table = [
            (usage(), 0),
            (usage().input(1), 3),
            (usage().input(2), 5),
            (usage().cached_input(1), 2),
            (usage().cached_input(4), 5),
            (usage().cache_write(1_000), 3_000),
            (usage().output(7), 70),
            (TokenUsage::undivided(7), 70),
            // 2.5 + 1.25 + 3 + 10 + 10: not 3 + 2 + 3 + 10 + 10.
            (
                TokenUsage::undivided(1)
                    .input(1)
                    .cached_input(1)
                    .cache_write(1)
                    .output(1),
                27,
            ),
            (usage().input(1_000_000), 2_500_000),
            (usage().output(u64::MAX), u64::MAX),
        ];
        for (usage, expected) in table {
            assert_eq!(price.of(usage), expected, "{usage:?}");
        }
        let most = TokenUsage::undivided(u64::MAX)
            .input(u64::MAX)
            .output(u64::MAX);
        let highest = self::price(["18446744073709.551615"; 4]);
        assert_eq!(highest.of(most), u64::MAX, "it does not overflow");
        assert_eq!(price.output_for(25), 2);
        assert_eq!(self::price(["1", "1", "1", "0"]).output_for(1), u64::MAX);
    }

    #[test]
    fn tokens_of_a_cache_cost_as_others_unless_stated() {
        let bare = Price::new().input("2").output("3").of_token();
        assert_eq!(bare, Ok(price(["2", "2", "2", "3"])));
    }

    #[test]
    fn a_price_that_cannot_be_kept_is_named() {
        let proper = || Price::new().input("1").output("2");
        let table = [
            (Price::new().input("1"), ("output", None)),
            (Price::new().output("1"), ("input", None)),
            (
                proper().cached_input("-1"),
                ("cached_input", Some(AmountError::Unreadable)),
            ),
            (
                proper().cache_write("0.0000001"),
                ("cache_write", Some(AmountError::TooFine)),
            ),
        ];
        for (price, fault) in table {
            assert_eq!(price.of_token(), Err(fault));
        }
    }

    #[test]
    fn what_was_not_read_has_the_dearest_price_of_each_kind() {
        let (one, other) = (price(["1", "9", "2", "3"]), price(["4", "1", "1", "2"]));
        let table = PriceTable::new(one, &[other]);
        assert_eq!(table.of(TokenClass::OTHERWISE), one);
        assert_eq!(table.of(TokenClass::named(0)), other);
        let dearest = price(["4", "9", "2", "3"]);
        assert_eq!(table.of(TokenClass::UNREAD), dearest);
        assert_eq!(table.of(TokenClass::named(1)), dearest, "of other rules");
    }
}
