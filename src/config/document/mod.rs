//! A document as a tree, whatever it was written in.
//!
//! Settings are read from the tree and not from a format, so that each error names the setting's path, and its line
//! and column where the format tells them.

mod cursor;
mod merge;
mod positions;
mod serde;
mod toml;
mod yaml;

pub(super) use self::{
    cursor::{Cursor, TableReader},
    toml::parse as parse_toml,
    yaml::parse as parse_yaml,
};
use super::error::Position;

/// A value, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Option<Position>,
}

/// A table without settings, for what has none.
pub(super) static NO_SETTINGS: Node = Node {
    value: Value::Map(Vec::new()),
    at: None,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As decimal digits, which lose nothing.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the document.
    Map(Vec<(SettingKey, Node)>),
    /// A value that only those understand who know its tag, such as `!Ref Burst`.
    Tagged(String),
}

/// The name of a setting, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SettingKey {
    pub(super) name: String,
    pub(super) at: Option<Position>,
}

impl Value {
    /// Returns the kind of the value in words, for those who expected something else.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a table",
            Self::Tagged(_) => "a tag",
        }
    }
}
