//! The prices of models.

use super::{models::OTHERWISE, money::amount};
use crate::{
    config::{document::Cursor, error::ConfigError},
    limit::{
        amount::millionths,
        price::{Price, Prices},
    },
};

/// Prices by the name of a model.
pub(super) fn prices(place: &Cursor<'_>) -> Result<Prices, ConfigError> {
    let mut prices = Prices::new();
    for (name, place) in place.entries()? {
        let price = price(&place)?;
        prices = match name {
            OTHERWISE => prices.otherwise(price),
            name => prices.model(name.to_owned(), price),
        };
    }
    Ok(prices)
}

/// `{ input = "2.50", output = "10.00" }`.
fn price(place: &Cursor<'_>) -> Result<Price, ConfigError> {
    let mut fields = place.fields()?;
    let mut amount = |name| {
        let amount = fields.get(name);
        amount.map(|place| price_text(&place)).transpose()
    };
    let price = Price {
        input: amount("input")?.map(Into::into),
        cached_input: amount("cached_input")?.map(Into::into),
        cache_write: amount("cache_write")?.map(Into::into),
        output: amount("output")?.map(Into::into),
    };
    fields.end()?;
    Ok(price)
}

/// An amount of money that can be read.
fn price_text(place: &Cursor<'_>) -> Result<String, ConfigError> {
    let text = amount(place)?;
    match millionths(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(fault) => Err(place.fault(format!("`{text}` {fault}"))),
    }
}
