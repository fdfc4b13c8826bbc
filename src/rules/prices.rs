//! Prices of models, as limits count with them.

use std::sync::Arc;

use super::RulesError;
use crate::{
    limit::price::{Price, PriceTable, Prices, TokenPrice},
    model::{NamePatternError, NamePatterns},
};

/// Prices that hold together.
#[derive(Debug)]
pub(super) struct CompiledPrices {
    pub(super) table: Arc<PriceTable>,
    /// The names of the models that have prices of their own, for a request's class among them.
    pub(super) names: NamePatterns,
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
    let names = NamePatterns::new(models.iter().map(|(name, _)| &**name));
    let names = names.map_err(|fault| match fault {
        NamePatternError::Name(name) => RulesError::PriceName { name },
        NamePatternError::SameName(name) => RulesError::SamePrice { name },
    })?;
    let named = models.iter().map(|(name, price)| of_token(name, price));
    let named: Vec<_> = named.collect::<Result<_, _>>()?;
    let otherwise = otherwise.as_ref().ok_or(RulesError::NoOtherPrice)?;
    let otherwise = of_token("otherwise", otherwise)?;
    Ok(CompiledPrices {
        table: Arc::new(PriceTable::new(otherwise, &named)),
        names,
    })
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
