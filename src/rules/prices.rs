//! Prices of models, as limits count with them.

use super::RulesError;
use crate::{
    limit::price::{Price, PriceTable, Prices, TokenPrice},
    model::{NamePatternError, NamePatterns},
};

/// Prices that hold together.
#[derive(Debug)]
pub(super) struct CompiledPrices {
    otherwise: TokenPrice,
    /// Those of models, in their order.
    named: Vec<TokenPrice>,
}

impl CompiledPrices {
    /// Returns the prices by class, given the number of the price of each class.
    pub(super) fn by_class(&self, classes: &[Option<usize>]) -> PriceTable {
        let own = |number: &Option<usize>| number.and_then(|number| self.named.get(number));
        let named = classes.iter().map(own);
        let named: Vec<_> = named.map(|own| *own.unwrap_or(&self.otherwise)).collect();
        PriceTable::new(self.otherwise, &named)
    }
}

/// Reads the prices of rules. `has_models`: the rules tell models apart.
pub(super) fn compile_prices(
    prices: &Prices,
    has_models: bool,
) -> Result<CompiledPrices, RulesError> {
    let Prices { models, otherwise } = prices;
    if let Some((name, _)) = models.first().filter(|_| !has_models) {
        let name = name.to_string();
        return Err(RulesError::PriceWithoutModels { name });
    }
    let names = models.iter().map(|(name, _)| &**name);
    NamePatterns::new(names).map_err(|fault| match fault {
        NamePatternError::Name(name) => RulesError::PriceName { name },
        NamePatternError::SameName(name) => RulesError::SamePrice { name },
    })?;
    let named = models.iter().map(|(name, price)| of_token(name, price));
    let named: Vec<_> = named.collect::<Result<_, _>>()?;
    let otherwise = otherwise.as_ref().ok_or(RulesError::NoOtherPrice)?;
    let otherwise = of_token("otherwise", otherwise)?;
    Ok(CompiledPrices { otherwise, named })
}

fn of_token(model: &str, price: &Price) -> Result<TokenPrice, RulesError> {
    price.of_token().map_err(|(kind, fault)| {
        let model = model.to_owned();
        let amounts = price.amounts();
        let amount = amounts.iter().find(|(name, _)| *name == kind);
        match (amount.and_then(|(_, amount)| *amount), fault) {
            (Some(amount), Some(fault)) => RulesError::Price {
                model,
                kind,
                amount: amount.to_owned(),
                fault: fault.to_string(),
            },
            _ => RulesError::PriceMissing { model, kind },
        }
    })
}
