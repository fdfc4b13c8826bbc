//! Names of models in the rules, and the one among them that stands for a request's.

use std::{cmp::Reverse, collections::HashMap};

use foldhash::fast::RandomState;

/// Names of models, of which those that end in `*` stand for all that begin so.
#[derive(Debug)]
pub(crate) struct NamePatterns {
    /// The numbers of names that stand for one model.
    exact: HashMap<Box<str>, usize, RandomState>,
    /// Beginnings of names, the longest first, with their numbers.
    prefixes: Box<[(Box<str>, usize)]>,
}

/// A fault in names of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamePatternError {
    /// A name that no request can match.
    Name(String),
    /// A name that is given twice.
    SameName(String),
}

impl NamePatterns {
    /// The most bytes of a name in the rules. Longer names in requests match none, or a beginning.
    pub(super) const LONGEST: usize = 256;

    /// The names, each with its number in their order.
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, NamePatternError> {
        let mut exact = HashMap::with_hasher(RandomState::default());
        let mut prefixes: Vec<(Box<str>, usize)> = Vec::new();
        for (number, name) in names.enumerate() {
            let prefix = name.strip_suffix('*');
            let text = prefix.unwrap_or(name);
            let is_reserved = matches!(name, "otherwise" | "unread");
            if name.is_empty() || text.contains('*') || name.len() > Self::LONGEST || is_reserved {
                return Err(NamePatternError::Name(name.to_owned()));
            }
            let is_known = match prefix {
                None => exact.insert(text.into(), number).is_some(),
                Some(_) => {
                    let is_known = prefixes.iter().any(|(known, _)| **known == *text);
                    prefixes.push((text.into(), number));
                    is_known
                }
            };
            if is_known {
                return Err(NamePatternError::SameName(name.to_owned()));
            }
        }
        prefixes.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
        Ok(Self {
            exact,
            prefixes: prefixes.into(),
        })
    }

    /// Returns the number of the name that stands for a model: its own, or else the longest.
    ///
    /// Given a name of other settings that ends in `*`, returns that of the one that stands for all its models.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let exact = self.exact.get(name).copied();
        let beginning = || self.prefixes.iter().find(|(it, _)| name.starts_with(&**it));
        exact.or_else(|| beginning().map(|(_, number)| *number))
    }
}
