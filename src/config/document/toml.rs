//! The tree of a TOML document, with lines and columns.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Node, SettingKey, Value, positions::Positions};
use crate::config::error::ConfigError;

/// Reads TOML 1.0.
pub(in crate::config) fn parse(text: &str) -> Result<Node, ConfigError> {
    let document = Document {
        positions: Positions::new(text),
    };
    match DeTable::parse(text) {
        Ok(table) => Ok(Node {
            at: Some(document.positions.of(&table.span())),
            value: document.table(table.get_ref())?,
        }),
        Err(error) => {
            let span = error.span();
            let at = span.as_ref().map(|span| document.positions.of(span));
            let twice = span.filter(|_| error.message() == "duplicate key");
            let fault = match twice.and_then(|span| text.get(span)) {
                Some(name) => format!("`{}` is set twice", unquoted(name)),
                None => {
                    let forgotten = error.span().and_then(|span| forgotten(text, span.start));
                    forgotten.map_or_else(|| error.message().to_owned(), str::to_owned)
                }
            };
            Err(ConfigError::new("", at, fault))
        }
    }
}

/// Tells what the line of an error most likely lacks; the parser does not know what was meant.
fn forgotten(text: &str, at: usize) -> Option<&'static str> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..)?.lines().next()?;
    let before = text.get(start..at)?;
    let mark = line.trim_start().chars().next()?;
    let is_bare = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    let (name, value) = line.split_once('=').filter(|_| is_bare(&mark))?;
    if !before.contains('=') {
        let is_route = name.contains('/') || name.trim().contains(char::is_whitespace);
        return is_route.then_some(
            "a name with spaces or slashes, such as a route key, needs quotes: `\"GET /health\" = …`",
        );
    }
    match value.trim_start().chars().next() {
        None | Some('#') => Some("a value is missing after `=`"),
        Some('"' | '\'' | '[' | '{') => None,
        Some(_) if value.contains([',', '#']) => None,
        Some(_) => Some("not a number; a string needs quotes, such as `\"600/minute\"`"),
    }
}

/// A key as it was written, without the quotes around it.
fn unquoted(key: &str) -> &str {
    let within = |quote| key.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(key)
}

struct Document<'a> {
    positions: Positions<'a>,
}

impl Document<'_> {
    fn node(&self, value: &Spanned<DeValue<'_>>) -> Result<Node, ConfigError> {
        let at = Some(self.positions.of(&value.span()));
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.as_ref().to_owned()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Integer(integer) => {
                let digits = i128::from_str_radix(integer.as_str(), integer.radix());
                let beyond = |_| ConfigError::new("", at, "the integer is out of range");
                Value::Number(digits.map_err(beyond)?.to_string())
            }
            DeValue::Float(float) => Value::Number(float.as_str().to_owned()),
            // No setting is a date; what is wrong with it is told by how it is written.
            DeValue::Datetime(date) => Value::Text(date.to_string()),
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
            let key = SettingKey {
                name: name.get_ref().to_string(),
                at: Some(self.positions.of(&name.span())),
            };
            entries.push((key, self.node(value)?));
        }
        // The parser sorts them by name.
        entries.sort_by_key(|(key, _)| key.at);
        Ok(Value::Map(entries))
    }
}
