//! Stages and usage plans in a document, and what may hold others.

use crate::config::{
    document::{Cursor, NO_SETTINGS, Value},
    error::ConfigError,
};

/// A stage or a usage plan in a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resource<'f> {
    /// All that it goes by.
    pub(super) names: &'f [&'f str],
    pub(super) settings: &'f Cursor<'f>,
    /// Settings that hold where its own say nothing.
    pub(super) globals: Option<&'f Cursor<'f>>,
    /// True if only the tool that deploys the document knows the settings.
    pub(super) unresolved: bool,
}

/// A place that a search comes across.
#[derive(Debug, Clone, Copy)]
pub(super) enum Discovery<'f> {
    Resource(Resource<'f>),
    /// A place that is not read and may hold what is looked for: `a nested stack`.
    Unread(&'f Cursor<'f>, &'static str),
}

pub(super) type Visitor<'v> = dyn FnMut(Discovery<'_>) -> Result<(), ConfigError> + 'v;

/// The names that stand among its settings, and others.
pub(super) fn own_names<'a>(
    settings: &'a Cursor<'a>,
    names: &[&str],
    others: &[&'a str],
) -> Vec<&'a str> {
    let own = names.iter().filter_map(|name| word(settings, name));
    own.chain(others.iter().copied()).collect()
}

/// Visits settings that have these names.
pub(super) fn named(
    settings: &Cursor<'_>,
    names: &[&str],
    others: &[&str],
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    visit(Discovery::Resource(Resource {
        names: &own_names(settings, names, others),
        settings,
        globals: None,
        unresolved: false,
    }))
}

/// Visits the settings of a resource, which may have none.
pub(super) fn properties(
    resource: &Cursor<'_>,
    names: &[&str],
    others: &[&str],
    globals: Option<&Cursor<'_>>,
    visit: &mut Visitor<'_>,
) -> Result<(), ConfigError> {
    let properties = resource.peek("Properties");
    let settings = properties.unwrap_or_else(|| resource.with(&NO_SETTINGS));
    visit(Discovery::Resource(Resource {
        names: &own_names(&settings, names, others),
        settings: &settings,
        globals,
        unresolved: false,
    }))
}

/// A setting that is a name. One of digits alone needs no quotes in YAML.
pub(super) fn word<'a>(settings: &'a Cursor<'a>, name: &str) -> Option<&'a str> {
    match settings.peek(name)?.value() {
        Value::Text(word) | Value::Number(word) => Some(word),
        _ => None,
    }
}

/// The type of a resource of CloudFormation.
pub(super) fn kind<'a>(resource: &'a Cursor<'a>) -> Result<Option<&'a str>, ConfigError> {
    match resource.peek("Type") {
        Some(kind) => kind.text().map(Some),
        None => Ok(None),
    }
}

/// The description of a stage that belongs to a REST API.
pub(super) const REST: &str = "the stage of a REST API";

/// The description of a stage of API Gateway that another provider declares in its own way.
pub(super) const OTHER: &str = "a stage of another provider";

/// Returns whether resources of this type are stages of API Gateway, in the words of any provider.
pub(super) fn is_stage(kind: &str) -> bool {
    let letters = kind.chars().filter(char::is_ascii_alphanumeric);
    let letters: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    letters.contains("apigatewayv2") && letters.ends_with("stage")
}
