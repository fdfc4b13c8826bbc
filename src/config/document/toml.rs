//! The tree of a TOML document, with lines and columns.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Key, Node, Value};
use crate::config::error::{ConfigError, Position};

/// Reads TOML 1.0.
pub(in crate::config) fn parse(text: &str) -> Result<Node, ConfigError> {
    let document = Document { text };
    match DeTable::parse(text) {
        Ok(table) => Ok(Node {
            at: Some(document.position(&table.span())),
            value: document.table(table.get_ref())?,
        }),
        Err(error) => {
            let at = error.span().map(|span| document.position(&span));
            Err(ConfigError::new("", at, error.message()))
        }
    }
}

struct Document<'a> {
    text: &'a str,
}

impl Document<'_> {
    fn node(&self, value: &Spanned<DeValue<'_>>) -> Result<Node, ConfigError> {
        let at = Some(self.position(&value.span()));
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.as_ref().to_owned()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Integer(integer) => {
                let digits = i128::from_str_radix(integer.as_str(), integer.radix());
                let beyond = |_| ConfigError::new("", at, "an integer beyond all bounds");
                Value::Number(digits.map_err(beyond)?.to_string())
            }
            DeValue::Float(float) => Value::Number(float.as_str().to_owned()),
            // No setting is a date; what expects a text says so.
            DeValue::Datetime(_) => Value::Null,
            DeValue::Array(array) => {
                let nodes = array.iter().map(|value| self.node(value));
                Value::List(nodes.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => self.table(table)?,
        };
        Ok(Node { value, at })
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Value, ConfigError> {
        let mut entries = Vec::with_capacity(table.len());
        for (name, value) in table {
            let key = Key {
                name: name.get_ref().to_string(),
                at: Some(self.position(&name.span())),
            };
            entries.push((key, self.node(value)?));
        }
        // The parser sorts them by name.
        entries.sort_by_key(|(key, _)| key.at);
        Ok(Value::Map(entries))
    }

    /// Counted from one, columns in characters.
    fn position(&self, span: &Range<usize>) -> Position {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}
