//! Pairs the limits of new rules with those of the rules before, and makes the names by which stores know limits.
//!
//! A limit is known by its settings before its name, and by its name only among those of its kind, if there are any. A
//! shadow and an enforced limit are never the same: what a shadow has counted was refused to nobody. Nor are a limit of
//! a second budget and one of a first.

use std::{borrow::Borrow, collections::HashMap, fmt, sync::Arc};

use crate::limit::{Limit, LimitSettings, quota::Window};

/// Pairs each new limit of a place with the old one that it was: the one with the same settings and name, with the same
/// settings, of the same kind with the same name, the next one of the same kind and period, the next one of the same
/// kind, or the one of another kind with the same name: a scope gives its name to other limits as kinds come and go.
pub(crate) fn pairs<'a>(old: impl Iterator<Item = &'a Limit>, new: &[Limit]) -> Vec<Option<usize>> {
    const PASSES: [fn(&Limit, &Limit) -> bool; 6] = [
        |a, b| equal(a, b) && a.is_named == b.is_named && (!a.is_named || a.name == b.name),
        equal,
        |a, b| a.settings.is_kind_of(&b.settings) && is_called_as(a, b),
        |a, b| a.settings.is_kind_of(&b.settings) && a.settings.window() == b.settings.window(),
        |a, b| a.settings.is_kind_of(&b.settings),
        |a, b| is_called_as(a, b) && a.settings.unit() == b.settings.unit() && a.shadow == b.shadow,
    ];
    let mut old: Vec<_> = old.map(Some).collect();
    let mut pairs = vec![None; new.len()];
    for same in PASSES {
        for (limit, pair) in new.iter().zip(&mut pairs) {
            if pair.is_none() {
                *pair = old.iter().position(|old| {
                    old.is_some_and(|old| is_as_second(old, limit) && same(old, limit))
                });
                if let Some(index) = *pair {
                    old[index] = None;
                }
            }
        }
    }
    pairs
}

/// Returns whether both limits are of a first budget, or both of a second.
fn is_as_second(one: &Limit, other: &Limit) -> bool {
    one.is_second() == other.is_second()
}

/// Returns whether both limits were given the same name.
fn is_called_as(one: &Limit, other: &Limit) -> bool {
    one.is_named && other.is_named && one.name == other.name
}

/// Returns whether two limits have the same settings, whatever their names.
pub(super) fn equal(one: &Limit, other: &Limit) -> bool {
    let (one, other) = (&one.settings, &other.settings);
    one.is_kind_of(other) && one.window() == other.window() && one.size() == other.size()
}

/// Names the limits of a place for stores, the same in every process with the same rules: by kind and name or, without
/// a name, by kind and period, and by a number only among those of the same kind and period. `None`: a limit that no
/// store keeps.
///
/// The number goes by size and not by place, so that limits that change places keep their balances.
pub(super) fn ids(
    place: &dyn fmt::Display,
    limits: &[impl Borrow<Limit>],
) -> Vec<Option<Arc<str>>> {
    let mut order: Vec<usize> = (0..limits.len()).collect();
    order.sort_by_key(|index| limits[*index].borrow().settings.size());
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut ids = vec![None; limits.len()];
    for index in order {
        let limit = limits[index].borrow();
        let kind = match (&limit.settings, limit.meter) {
            (_, None) | (LimitSettings::InFlight(_), _) => continue,
            (LimitSettings::Rate(_), _) => "rate",
            (LimitSettings::Quota(_), _) => "quota",
            (LimitSettings::Tokens(_), _) => "tokens",
            (LimitSettings::InputTokens(_), _) => "input-tokens",
            (LimitSettings::OutputTokens(_), _) => "output-tokens",
            (LimitSettings::Spend(_), _) => "spend",
        };
        let second = if limit.is_second() { "-degraded" } else { "" };
        let shadow = if limit.shadow { "-shadow" } else { "" };
        ids[index] = Some(match limit.settings.window() {
            Some(window) if !limit.is_named => {
                let window = match window {
                    Window::Day => "day".to_owned(),
                    Window::Week => "week".to_owned(),
                    Window::Month => "month".to_owned(),
                    Window::Every(length) => format!("{length:?}"),
                };
                let id = format!("{place}/{kind}{second}{shadow}-{window}");
                let number = numbers.entry(id.clone()).or_default();
                *number += 1;
                match number {
                    1 => id.into(),
                    number => format!("{id}-{number}").into(),
                }
            }
            _ => format!("{place}/{kind}{second}{shadow}/{}", limit.name).into(),
        });
    }
    ids
}
