//! The changes that a reload has made.

use std::{fmt, mem::discriminant};

use super::{
    pairs::{equal, pairs},
    registry::{Registry, ScopeKey},
    settings::Settings,
};
use crate::limit::{Limit, LimitSettings, Scope};

/// The changes of a [reload](crate::Handle::reload): limits that were added, removed or changed, and all other settings
/// of the rules.
///
/// `Display` writes each change as in ``route `POST /chat`, limit `chat`: 10 in 1s, burst 5 => 20 in 1s, burst 5``,
/// with `; ` between two changes, or `nothing`. Closures and custom answers cannot be compared: replacing one by
/// another is not reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    limits: Vec<Change>,
    settings: Vec<SettingChange>,
}

/// One limit that a reload has added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    name: String,
    scope: Scope,
    route: Option<String>,
    plan: Option<String>,
    model: Option<String>,
    before: Option<LimitSettings>,
    after: Option<LimitSettings>,
}

/// A setting other than a limit, such as `max_wait`, that a reload has changed.
///
/// `Display` writes ``route `POST /chat`, max_wait: none => 2s``.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    place: String,
    name: &'static str,
    before: String,
    after: String,
}

/// The place of limits in a registry: a scope, or `None` for the limits that each undeclared route has.
type ScopeRef<'a> = Option<&'a ScopeKey>;

impl Changes {
    pub(crate) fn between(before: &Registry, after: &Registry) -> Self {
        let mut changes = Self {
            limits: Vec::new(),
            settings: Vec::new(),
        };
        let templates: Vec<_> = before.templates().collect();
        changes.compare(
            None,
            &templates,
            &after.templates().cloned().collect::<Vec<_>>(),
        );
        let gone = before.scopes().map(|(key, _)| key);
        let gone = gone.filter(|key| !after.has(key));
        for key in after.scopes().map(|(key, _)| key).chain(gone) {
            let old: Vec<_> = before.limits(key).collect();
            let new: Vec<_> = after.limits(key).cloned().collect();
            changes.compare(Some(key), &old, &new);
        }
        let settings = Settings::between(before.settings(), after.settings());
        let settings = settings.into_iter();
        changes
            .settings
            .extend(settings.map(|(place, name, before, after)| SettingChange {
                place,
                name,
                before,
                after,
            }));
        changes
    }

    /// Notes the differences between the limits of one place.
    fn compare(&mut self, place: ScopeRef<'_>, old: &[&Limit], new: &[Limit]) {
        let mut pairs = pairs(old.iter().copied(), new);
        let limit = |name: &str, before: Option<&Limit>, after: Option<&Limit>| {
            let settings = |limit: Option<&Limit>| limit.map(|limit| limit.settings.clone());
            Change {
                name: name.to_owned(),
                scope: place.map_or(Scope::Route, ScopeKey::scope),
                route: place.and_then(ScopeKey::route).map(ToString::to_string),
                plan: place.and_then(ScopeKey::plan).map(ToString::to_string),
                model: place
                    .and_then(ScopeKey::model)
                    .map(|model| model.name().to_owned()),
                before: settings(before),
                after: settings(after),
            }
        };
        // A limit that becomes a shadow, or the other way, begins anew and is told as one change.
        for index in 0..new.len() {
            if pairs[index].is_none() {
                let is_same = |old: &Limit| turned(old, &new[index]);
                let free = (0..old.len()).filter(|old| !pairs.contains(&Some(*old)));
                pairs[index] = { free }.find(|free| is_same(old[*free]));
            }
        }
        for (limit_after, pair) in new.iter().zip(&pairs) {
            let before = pair.map(|index| old[index]);
            if before.is_none_or(|before| !equal(before, limit_after)) {
                let change = limit(&limit_after.name, before, Some(limit_after));
                self.limits.push(change);
            }
            if let Some(before) = before.filter(|before| before.name != limit_after.name) {
                let renamed = limit(&before.name, None, None);
                self.settings.push(SettingChange {
                    place: renamed.place(),
                    name: "name",
                    before: before.name.to_string(),
                    after: limit_after.name.to_string(),
                });
            }
        }
        for (index, gone) in old.iter().enumerate() {
            if !pairs.contains(&Some(index)) {
                self.limits.push(limit(&gone.name, Some(gone), None));
            }
        }
    }

    /// Returns the changed limits: those that each route has, then all others in the order of the new rules, then
    /// removed ones.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Change> {
        self.limits.iter()
    }

    /// Returns all other settings that have changed.
    pub fn settings(&self) -> impl ExactSizeIterator<Item = &SettingChange> {
        self.settings.iter()
    }

    /// Returns the number of changed limits and settings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.limits.len() + self.settings.len()
    }

    /// Returns whether the rules are the same as before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes as many changes as `most` bytes hold, and the number of the others.
    #[cfg(feature = "tracing")]
    pub(crate) fn within(&self, most: usize) -> String {
        let mut line = String::new();
        let mut told = 0;
        for change in self.lines() {
            let change = change.to_string();
            if line.len() + change.len() > most {
                break;
            }
            if told > 0 {
                line.push_str("; ");
            }
            line.push_str(&change);
            told += 1;
        }
        match (told, self.len() - told) {
            (_, 0) => line,
            (0, untold) => format!("{untold} changes"),
            (_, untold) => format!("{line}; and {untold} more"),
        }
    }

    fn lines(&self) -> impl Iterator<Item = &dyn fmt::Display> {
        let limits = self.limits.iter().map(|change| change as &dyn fmt::Display);
        let settings = self.settings.iter();
        limits.chain(settings.map(|change| change as &dyn fmt::Display))
    }
}

/// Returns whether one is the other as a shadow, or as an enforced limit.
fn turned(one: &Limit, other: &Limit) -> bool {
    let (settings, others) = (&one.settings, &other.settings);
    let same_name = one.is_named && other.is_named && one.name == other.name;
    discriminant(settings) == discriminant(others)
        && one.is_second() == other.is_second()
        && one.shadow != other.shadow
        && (same_name || settings.window() == others.window() && settings.size() == others.size())
}

impl Change {
    /// Returns the limit's name, that of the new rules if the limit still exists.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the scope in which the limit holds.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the key of the limit's route. `None` for the total, for clients on any route, and for the default route.
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    /// Returns the plan of the clients that the limit holds for.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }

    /// Returns the model that the limit holds for, as the rules name it, or `otherwise` or `unread`. `None` if it holds
    /// whatever the model.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns the former settings. `None` if the limit is new.
    #[must_use]
    pub fn before(&self) -> Option<&LimitSettings> {
        self.before.as_ref()
    }

    /// Returns the new settings. `None` if the limit was removed.
    #[must_use]
    pub fn after(&self) -> Option<&LimitSettings> {
        self.after.as_ref()
    }
}

impl Change {
    /// Names the limit and where it holds.
    fn place(&self) -> String {
        let scope = match (self.scope, &self.plan) {
            (Scope::Total, _) => "total".to_owned(),
            (Scope::Route, _) if self.route.is_none() => "default route".to_owned(),
            (Scope::Route | Scope::Model, _) => String::new(),
            (_, Some(plan)) => format!("plan `{plan}`"),
            (_, None) => "each client".to_owned(),
        };
        let route = self.route.iter().map(|route| format!("route `{route}`"));
        let model = self.model.iter().map(|model| format!("model `{model}`"));
        let limit = format!("limit `{}`", self.name);
        let parts = [scope].into_iter().chain(route).chain(model).chain([limit]);
        let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
        parts.join(", ")
    }
}

impl SettingChange {
    /// Returns the place of the setting, such as ``route `GET /a` ``; empty for the rules as a whole.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns the name of the setting, such as `max_wait` or `undeclared`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// Returns the value before, in words.
    #[must_use]
    pub fn before(&self) -> &str {
        &self.before
    }

    /// Returns the value after, in words.
    #[must_use]
    pub fn after(&self) -> &str {
        &self.after
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (index, change) in self.lines().enumerate() {
            let between = if index > 0 { "; " } else { "" };
            write!(f, "{between}{change}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            name,
            before,
            after,
        } = self;
        let between = if place.is_empty() { "" } else { ", " };
        write!(f, "{place}{between}{name}: {before} => {after}")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place())?;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{before} => {after}"),
            (Some(before), None) => write!(f, "{before}, gone"),
            (None, Some(after)) => write!(f, "{after}, new"),
            (None, None) => Ok(()),
        }
    }
}
