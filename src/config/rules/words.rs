//! The words of settings that have a few values, and settings that many limits have.

use crate::{
    config::{
        document::{Cursor, TableReader},
        error::ConfigError,
    },
    response::Dialect,
    route::CatchAll,
    rules::Undeclared,
};

pub(super) const DIALECTS: [(&str, Dialect); 7] = [
    ("problem", Dialect::Problem),
    ("openai", Dialect::OpenAi),
    ("anthropic", Dialect::Anthropic),
    ("api_gateway", Dialect::ApiGateway),
    ("azure_api_management", Dialect::AzureApiManagement),
    ("kserve", Dialect::KServe),
    ("json_rpc", Dialect::JsonRpc),
];
pub(super) const UNDECLARED: [(&str, Undeclared); 2] = [
    ("per_route", Undeclared::PerRoute),
    ("shared", Undeclared::Shared),
];

pub(super) const CATCH_ALL: [(&str, CatchAll); 2] = [
    ("unmatched", CatchAll::Unmatched),
    ("unrouted", CatchAll::Unrouted),
];

/// Reads one of a few words.
pub(super) fn one_of<T: Copy>(place: &Cursor<'_>, words: &[(&str, T)]) -> Result<T, ConfigError> {
    let text = place.text()?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        place.fault(format!("`{text}` is not one of {}", words.join(", ")))
    })
}

/// The settings that a limit of any kind may have beside its size.
pub(super) fn name_and_shadow(
    fields: &mut TableReader<'_>,
) -> Result<(Option<String>, bool), ConfigError> {
    let name = fields
        .get("name")
        .map(|name| name.text().map(str::to_owned));
    let shadow = fields.get("shadow").map(|shadow| shadow.flag());
    Ok((name.transpose()?, shadow.transpose()?.unwrap_or(false)))
}
