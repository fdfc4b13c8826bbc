//! A place in a document: a value, and the path that leads to it.

use std::fmt;

use super::{Node, SettingKey, Value};
use crate::{
    config::error::{ConfigError, Position},
    limit::quantity::Decimal,
};

/// A position in a document: a value and its path.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Cursor<'a> {
    node: &'a Node,
    path: Path<'a>,
}

/// The way to a value, from its end.
#[derive(Debug, Clone, Copy)]
enum Path<'a> {
    Root,
    Field(&'a Cursor<'a>, &'a SettingKey),
    Item(&'a Cursor<'a>, usize),
}

/// The settings of a table, asked for by name. What nobody asked for is an error in the end.
#[derive(Debug)]
pub(in crate::config) struct TableReader<'a> {
    place: &'a Cursor<'a>,
    entries: &'a [(SettingKey, Node)],
    known: Vec<&'static str>,
    passed_over: Vec<&'static str>,
}

impl<'a> Cursor<'a> {
    pub(in crate::config) fn root(node: &'a Node) -> Self {
        Self {
            node,
            path: Path::Root,
        }
    }

    pub(in crate::config) fn value(&self) -> &'a Value {
        &self.node.value
    }

    pub(in crate::config) fn node(&self) -> &'a Node {
        self.node
    }

    /// The same place with another value.
    pub(in crate::config) fn with(&self, node: &'a Node) -> Self {
        let path = self.path;
        Self { node, path }
    }

    /// Returns what stands here, with what it leaves out taken from `other`.
    pub(in crate::config) fn over(&self, other: &Cursor<'_>) -> Node {
        self.node.over(other.node)
    }

    /// The path to this place, as errors tell it.
    pub(in crate::config) fn path(&self) -> String {
        self.path.to_string()
    }

    /// Returns whether nothing stands here.
    pub(in crate::config) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    /// A setting of what may be a table, without asking what else stands there.
    pub(in crate::config) fn peek(&'a self, name: &str) -> Option<Cursor<'a>> {
        let Value::Map(entries) = self.value() else {
            return None;
        };
        let (key, node) = entries.iter().find(|(key, _)| key.name == name)?;
        let path = Path::Field(self, key);
        Some(Cursor { node, path })
    }

    /// Returns an error that says what is wrong with the value here.
    pub(in crate::config) fn fault(&self, fault: impl Into<String>) -> ConfigError {
        ConfigError::new(self.path.to_string(), self.node.at, fault)
    }

    /// Returns an error that says what is wrong with the name of the value here.
    pub(in crate::config) fn fault_of_name(&self, fault: impl Into<String>) -> ConfigError {
        ConfigError::new(self.path.to_string(), self.name_at(), fault)
    }

    /// The line of the name of the value here.
    pub(in crate::config) fn line_of_name(&self) -> Option<usize> {
        self.name_at().map(|at| at.line)
    }

    fn name_at(&self) -> Option<Position> {
        match self.path {
            Path::Field(_, key) => key.at,
            Path::Root | Path::Item(..) => self.node.at,
        }
    }

    /// That something else was expected here.
    pub(in crate::config) fn expected(&self, what: &str) -> ConfigError {
        self.fault(format!("expected {what}, found {}", self.value().kind()))
    }

    pub(in crate::config) fn text(&self) -> Result<&'a str, ConfigError> {
        match self.value() {
            Value::Text(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    pub(in crate::config) fn flag(&self) -> Result<bool, ConfigError> {
        match self.value() {
            Value::Bool(flag) => Ok(*flag),
            _ => Err(self.expected("true or false")),
        }
    }

    /// A whole number from zero up to 2^64 - 1, which tools may print as `5.0` or `1e3`.
    pub(in crate::config) fn count(&self) -> Result<u64, ConfigError> {
        let whole = |digits: &str| Decimal::parse(digits).and_then(Decimal::whole);
        match self.value() {
            Value::Number(digits) => whole(digits).ok_or_else(|| {
                self.fault(format!(
                    "`{digits}` is not a whole number from 0 to 2^64 - 1"
                ))
            }),
            Value::Text(text) if whole(text).is_some() => Err(self.fault(format!(
                "expected a whole number, found a string; write {text} without quotes"
            ))),
            _ => Err(self.expected("a whole number")),
        }
    }

    /// The items of a list, or what is no list as the only one.
    pub(in crate::config) fn each<T>(
        &'a self,
        mut read: impl FnMut(&Cursor<'_>) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        let Value::List(nodes) = self.value() else {
            return Ok(vec![read(self)?]);
        };
        let items = nodes.iter().enumerate().map(|(index, node)| Cursor {
            node,
            path: Path::Item(self, index),
        });
        items.map(|item| read(&item)).collect()
    }

    /// The entries of a table whose names are not settings but chosen.
    pub(in crate::config) fn entries(
        &'a self,
    ) -> Result<impl Iterator<Item = (&'a str, Cursor<'a>)>, ConfigError> {
        let Value::Map(entries) = self.value() else {
            return Err(self.expected("a table"));
        };
        Ok(entries.iter().map(|(key, node)| {
            let path = Path::Field(self, key);
            (&*key.name, Cursor { node, path })
        }))
    }

    /// The settings of a table.
    pub(in crate::config) fn fields(&'a self) -> Result<TableReader<'a>, ConfigError> {
        let Value::Map(entries) = self.value() else {
            return Err(self.expected("a table"));
        };
        Ok(TableReader {
            place: self,
            entries,
            known: Vec::new(),
            passed_over: Vec::new(),
        })
    }
}

impl<'a> TableReader<'a> {
    /// A setting, if it is there.
    pub(in crate::config) fn get(&mut self, name: &'static str) -> Option<Cursor<'a>> {
        self.known.push(name);
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        Some(Cursor {
            node,
            path: Path::Field(self.place, key),
        })
    }

    /// A setting that goes by any of these names, if it is there. Two of them are one too many.
    pub(in crate::config) fn any(
        &mut self,
        names: &[&'static str],
    ) -> Result<Option<Cursor<'a>>, ConfigError> {
        let mut found: Option<Cursor<'a>> = None;
        for name in names {
            let Some(place) = self.get(name) else {
                continue;
            };
            if let Some(first) = &found {
                return Err(place.fault(format!(
                    "is another name of `{}`; keep one of them",
                    first.path
                )));
            }
            found = Some(place);
        }
        Ok(found)
    }

    /// Settings that are passed over.
    pub(in crate::config) fn pass_over(&mut self, names: &[&'static str]) {
        self.passed_over.extend(names);
    }

    /// All settings have been asked for.
    pub(in crate::config) fn end(self) -> Result<(), ConfigError> {
        let Self {
            place,
            entries,
            known,
            passed_over,
        } = self;
        let is_known = |name: &str| known.contains(&name) || passed_over.contains(&name);
        let unknown = entries.iter().find(|(key, _)| !is_known(&key.name));
        let Some((key, _)) = unknown else {
            return Ok(());
        };
        // A name more than twice as long is no typing error, and slow to compare.
        let alike = known.iter().chain(&passed_over).filter(|known| {
            let longest = 2 * known.len();
            key.name.chars().nth(longest).is_none()
        });
        let nearest = alike.min_by_key(|known| distance(known, &key.name));
        let near = nearest.filter(|known| distance(known, &key.name) <= known.len().div_ceil(2));
        let fault = match near {
            Some(known) => format!("unknown setting; did you mean `{known}`?"),
            None => format!("unknown setting; the settings are {}", known.join(", ")),
        };
        let path = Path::Field(place, key).to_string();
        Err(ConfigError::new(path, key.at, fault))
    }
}

/// `routes."POST /v1/chat/completions".rate[1].burst`.
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(parent, SettingKey { name, .. }) => {
                parent.path.fmt(f)?;
                if !matches!(parent.path, Path::Root) {
                    f.write_str(".")?;
                }
                let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if !name.is_empty() && name.chars().all(bare) {
                    f.write_str(name)
                } else {
                    write!(f, "{name:?}")
                }
            }
            Self::Item(parent, index) => {
                parent.path.fmt(f)?;
                write!(f, "[{index}]")
            }
        }
    }
}

/// Returns the number of letters that have to be changed, added or left out to make one word of the other.
fn distance(known: &str, written: &str) -> usize {
    let written: Vec<char> = written.chars().collect();
    let mut row: Vec<usize> = (0..=written.len()).collect();
    for (above, letter) in known.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, other) in written.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[written.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_words() {
        let table = [
            ("burst", "burst", 0),
            ("burst", "brust", 2),
            ("burst", "bursts", 1),
            ("rate", "", 4),
            ("", "rate", 4),
            ("max_wait", "maxwait", 1),
            ("in_flight", "inflight", 1),
        ];
        for (known, written, expected) in table {
            assert_eq!(distance(known, written), expected, "{known} {written}");
        }
    }
}
