use std::fmt;

use super::ConfigError;
use crate::rules::Rules;

/// Rules that were read, and what is different about them here.
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct Imported {
    /// The limits.
    pub rules: Rules,
    /// The settings that were read and hold in another way here, or not at all.
    pub warnings: Vec<Warning>,
}

/// Rules of this crate hold as they are written.
impl From<Rules> for Imported {
    fn from(rules: Rules) -> Self {
        Self {
            rules,
            warnings: Vec::new(),
        }
    }
}

/// A setting that holds in another way here, or not at all. It is shown as a sentence.
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

/// A setting at fault is told and passed over.
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
