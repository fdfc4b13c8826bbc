use std::fmt;

use crate::error::debug_as_display;

/// An error in a configuration. It names the setting at fault and its position, if that is known.
///
/// `Display` writes `line 3, column 21: inbound.rate-limit.calls: …`.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    path: String,
    position: Option<Position>,
    fault: String,
}

/// A line and a column, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl ConfigError {
    pub(crate) fn new(
        path: impl Into<String>,
        position: Option<Position>,
        fault: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            position,
            fault: fault.into(),
        }
    }

    pub(crate) fn into_parts(self) -> (String, String) {
        (self.path, self.fault)
    }

    /// Returns the path of the setting at fault, such as `inbound.rate-limit.calls`. Empty for the document as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the line of the setting, from one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.position.map(|position| position.line)
    }

    /// Returns the column of the setting in characters, from one.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.position.map(|position| position.column)
    }
}

debug_as_display!(ConfigError);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            position,
            fault,
        } = self;
        if let Some(Position { line, column }) = position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(fault)
    }
}
