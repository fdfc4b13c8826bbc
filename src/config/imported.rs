use std::fmt;

use super::ConfigError;
use crate::rules::Rules;

/// Rules that were imported, and warnings about differences.
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct Imported {
    /// The rules.
    pub rules: Rules,
    /// The settings that differ here or have no effect.
    pub warnings: Vec<Warning>,
}

/// Rules of this crate have no warnings.
impl From<Rules> for Imported {
    fn from(rules: Rules) -> Self {
        Self {
            rules,
            warnings: Vec::new(),
        }
    }
}

/// A setting that differs here or has no effect. `Display` writes it as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The setting, as in `inbound.rate-limit.retry-after-header-name`. Empty for the document as a whole.
    pub path: String,
    sentence: String,
}

impl Warning {
    pub(crate) fn new(path: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            sentence: sentence.into(),
        }
    }
}

/// Turns an error into a warning about a setting that is skipped.
impl From<ConfigError> for Warning {
    fn from(error: ConfigError) -> Self {
        let (path, sentence) = error.into_parts();
        Self { path, sentence }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, sentence } = self;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(sentence)
    }
}
