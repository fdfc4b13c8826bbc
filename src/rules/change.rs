//! What a reload has changed.

use std::fmt;

use super::{
    ledger::{Ledger, ScopeKey},
    pairs::pairs,
};
use crate::limit::{Limit, Scope, Terms};

/// What a [reload](crate::Handle::reload) has changed: the limits that are new, those that are gone, and those that are
/// set to something else.
///
/// It is shown as one line, such as ``route `POST /chat`, limit `chat`: 10 in 1s, burst 5 => 20 in 1s, burst 5``, with
/// `; ` between two changes, or `nothing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    all: Vec<Change>,
}

/// One limit that a reload has added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    name: String,
    scope: Scope,
    route: Option<String>,
    plan: Option<String>,
    before: Option<Terms>,
    after: Option<Terms>,
}

/// Where limits stand in a ledger: a place, or what each undeclared route has.
type Place<'a> = Option<&'a ScopeKey>;

impl Changes {
    pub(crate) fn between(before: &Ledger, after: &Ledger) -> Self {
        let mut all = Vec::new();
        compare(None, before.templates(), after.templates(), &mut all);
        let limits = |ledger: &'_ Ledger, key: &ScopeKey| -> Vec<Limit> {
            let bindings = ledger.at(key).iter();
            bindings.map(|binding| binding.limit.clone()).collect()
        };
        let gone = before.scopes().map(|(key, _)| key);
        let gone = gone.filter(|key| !after.has(key));
        for key in after.scopes().map(|(key, _)| key).chain(gone) {
            let (old, new) = (limits(before, key), limits(after, key));
            compare(Some(key), old.iter(), new.iter(), &mut all);
        }
        Self { all }
    }

    /// Each change: first what each route has, then by the order of the new rules, and then what is gone.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Change> {
        self.all.iter()
    }

    /// How many limits have changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether all limits are what they were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Change {
    /// The limit's name, that of after the reload if it is there still.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the limit holds.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The key of the route where it holds. `None` for the total, for clients on any route, and for what each route has
    /// by default.
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    /// The plan of the clients for whom it holds.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }

    /// What it was set to. `None` if it is new.
    #[must_use]
    pub fn before(&self) -> Option<&Terms> {
        self.before.as_ref()
    }

    /// What it is set to. `None` if it is gone.
    #[must_use]
    pub fn after(&self) -> Option<&Terms> {
        self.after.as_ref()
    }
}

/// What differs between the limits of one place.
fn compare<'a>(
    place: Place<'_>,
    old: impl Iterator<Item = &'a Limit>,
    new: impl Iterator<Item = &'a Limit>,
    all: &mut Vec<Change>,
) {
    let old: Vec<_> = old.collect();
    let new: Vec<_> = new.cloned().collect();
    let pairs = pairs(old.iter().copied(), &new);
    let mut change = |name: &str, before: Option<&Limit>, after: Option<&Limit>| {
        let terms = |limit: Option<&Limit>| limit.map(|limit| limit.terms.clone());
        all.push(Change {
            name: name.to_owned(),
            scope: place.map_or(Scope::Route, ScopeKey::scope),
            route: place.and_then(ScopeKey::route).map(ToString::to_string),
            plan: place.and_then(ScopeKey::plan).map(ToString::to_string),
            before: terms(before),
            after: terms(after),
        });
    };
    for (limit, pair) in new.iter().zip(&pairs) {
        let before = pair.map(|index| old[index]);
        if before.is_none_or(|before| before.terms != limit.terms) {
            change(&limit.name, before, Some(limit));
        }
    }
    for (index, limit) in old.iter().enumerate() {
        if !pairs.contains(&Some(index)) {
            change(&limit.name, Some(limit), None);
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (index, change) in self.iter().enumerate() {
            let between = if index > 0 { "; " } else { "" };
            write!(f, "{between}{change}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.scope, &self.plan) {
            (Scope::Total, _) => f.write_str("total")?,
            (Scope::Route, _) if self.route.is_none() => f.write_str("default route")?,
            (Scope::Route, _) => {}
            (_, Some(plan)) => write!(f, "plan `{plan}`")?,
            (_, None) => f.write_str("each client")?,
        }
        if let Some(route) = &self.route {
            let between = if self.scope == Scope::Route { "" } else { ", " };
            write!(f, "{between}route `{route}`")?;
        }
        write!(f, ", limit `{}`: ", self.name)?;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{before} => {after}"),
            (Some(before), None) => write!(f, "{before}, gone"),
            (None, Some(after)) => write!(f, "{after}, new"),
            (None, None) => Ok(()),
        }
    }
}
