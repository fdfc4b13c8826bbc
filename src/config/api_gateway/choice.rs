//! The stages or usage plans that there are to choose from, by name.

use std::{collections::HashMap, fmt};

/// The names of each stage or usage plan in a document.
#[derive(Debug, Default)]
pub(super) struct Choice {
    all: Vec<Vec<String>>,
}

impl Choice {
    pub(super) fn add(&mut self, names: &[&str]) {
        self.all
            .push(names.iter().map(|&name| name.to_owned()).collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// Each by the first of its names that no other has.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut owners: HashMap<&str, usize> = HashMap::new();
        for names in &self.all {
            for (at, name) in names.iter().enumerate() {
                // `prod` may be the name of a stage and of its resource.
                if !names[..at].contains(name) {
                    *owners.entry(name).or_default() += 1;
                }
            }
        }
        for (at, names) in self.all.iter().enumerate() {
            let own = names
                .iter()
                .find(|name| owners.get(name.as_str()) == Some(&1));
            let separator = if at == 0 { "" } else { ", " };
            match own.or(names.first()) {
                Some(name) => write!(f, "{separator}`{name}`")?,
                None => write!(f, "{separator}one without a name")?,
            }
        }
        Ok(())
    }
}
