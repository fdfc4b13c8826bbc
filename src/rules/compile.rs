//! From rules as written to limits with names and buckets.

use std::collections::HashMap;

use crate::{
    clock::nanos,
    gcra::Gcra,
    limiter::{Binding, Limit, Rule, Scope},
    limits::{Access, Limits},
    rate::Rate,
    route::RouteKey,
};

use super::{Rules, RulesError, Undeclared};

/// Rules that hold together.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) routes: Vec<(RouteKey, Rule)>,
    /// What routes without a key are made from.
    pub(crate) undeclared: Blueprint,
    /// Whether each of them gets a rule of its own.
    pub(crate) per_route: bool,
}

/// The limits of the default route, and the total's buckets.
#[derive(Debug)]
pub(crate) struct Blueprint {
    limits: Vec<Limit>,
    total: Vec<Binding>,
}

impl Blueprint {
    /// A rule with full buckets of its own, the total's apart.
    pub(crate) fn rule(&self, route: &str) -> Rule {
        let own = self.limits.iter().cloned().map(Binding::fresh);
        Rule {
            route: route.into(),
            bindings: own.chain(self.total.iter().cloned()).collect(),
        }
    }
}

pub(super) fn compile(rules: &Rules) -> Result<Compiled, RulesError> {
    // Exhaustive, so that a new field is thought about here.
    let Rules {
        total,
        default_route,
        routes,
        undeclared,
    } = rules;
    let keys = rules.keys()?;
    let place = |key: &RouteKey| format!("route `{key}`");
    let mut names = Names::default();
    for (limits, place) in total
        .iter()
        .map(|limits| (limits, "the total".to_owned()))
        .chain(
            default_route
                .iter()
                .map(|limits| (limits, "the default route".to_owned())),
        )
        .chain(
            routes
                .iter()
                .zip(&keys)
                .map(|((_, limits), key)| (limits, place(key))),
        )
    {
        validate(limits, &place)?;
        names.reserve(limits, &place)?;
    }

    let total: Vec<_> = total
        .iter()
        .flat_map(|limits| names.build(limits, "total", Scope::Total))
        .map(Binding::fresh)
        .collect();
    let default = default_route
        .iter()
        .flat_map(|limits| names.build(limits, "default", Scope::Route))
        .collect();
    let blueprint = Blueprint {
        limits: default,
        total,
    };
    let mut compiled = Vec::with_capacity(keys.len());
    for (key, (_, limits)) in keys.into_iter().zip(routes) {
        let rule = if limits.inherits_all() && default_route.is_some() {
            blueprint.rule(key.as_str())
        } else {
            let limits = limits.or(default_route.as_ref());
            let own = names.build(&limits, "route", Scope::Route);
            let own = own.into_iter().map(Binding::fresh);
            Rule {
                route: key.as_str().into(),
                bindings: own.chain(blueprint.total.iter().cloned()).collect(),
            }
        };
        compiled.push((key, rule));
    }
    Ok(Compiled {
        routes: compiled,
        per_route: *undeclared == Undeclared::PerRoute && !blueprint.limits.is_empty(),
        undeclared: blueprint,
    })
}

fn validate(limits: &Limits, place: &str) -> Result<(), RulesError> {
    let contradicted = match limits.access {
        Access::Limited => None,
        Access::Unlimited => Some("unlimited"),
        Access::Closed => Some("closed"),
    };
    if let Some(access) = contradicted.filter(|_| !limits.rates.is_empty()) {
        return Err(RulesError::Contradiction {
            place: place.to_owned(),
            access,
        });
    }
    for rate in &limits.rates {
        let (count, period, burst) = (rate.count(), rate.period(), rate.burst_limit());
        if period.is_zero() {
            return Err(RulesError::Period {
                place: place.to_owned(),
                count,
            });
        }
        if !rate.is_closed() && gcra(rate).is_none() {
            return Err(RulesError::TooSlow {
                place: place.to_owned(),
                count,
                period,
                burst,
            });
        }
    }
    Ok(())
}

fn gcra(rate: &Rate) -> Option<Gcra> {
    Gcra::new(rate.count(), nanos(rate.period()), rate.burst_limit())
}

/// The names given and taken so far.
#[derive(Debug, Default)]
struct Names {
    /// Name to the place where it was given.
    taken: HashMap<String, String>,
}

impl Names {
    /// Notes the names that a user gave, before any is made up.
    fn reserve(&mut self, limits: &Limits, place: &str) -> Result<(), RulesError> {
        for name in limits
            .name
            .as_deref()
            .into_iter()
            .chain(limits.rates.iter().filter_map(Rate::name))
        {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(fits) {
                return Err(RulesError::Name {
                    place: place.to_owned(),
                    name: name.to_owned(),
                });
            }
            if let Some(other) = self.taken.insert(name.to_owned(), place.to_owned()) {
                return Err(RulesError::SameName {
                    place: place.to_owned(),
                    other,
                    name: name.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The limits of a scope, named.
    fn build(&mut self, limits: &Limits, scope_name: &str, scope: Scope) -> Vec<Limit> {
        let closed = [Rate::per_second(0)];
        let rates = match limits.access {
            Access::Limited => limits.rates.as_slice(),
            Access::Unlimited => &[],
            Access::Closed => &closed,
        };
        let mut given = limits.name.as_deref();
        let published = limits.publish.unwrap_or(scope != Scope::Total);
        let limit = |rate: &Rate| {
            let name = match (rate.name(), given.take()) {
                (Some(own), unused) => {
                    given = unused;
                    own.to_owned()
                }
                (None, Some(first)) => first.to_owned(),
                (None, None) => self.unique(limits.name.as_deref().unwrap_or(scope_name)),
            };
            Limit {
                name: name.into(),
                scope,
                rate: rate.clone(),
                gcra: gcra(rate),
                published,
            }
        };
        rates.iter().map(limit).collect()
    }

    /// `base`, or `base_2` and so on.
    fn unique(&mut self, base: &str) -> String {
        let numbered = (2..).map(|number: u64| format!("{base}_{number}"));
        let free = std::iter::once(base.to_owned())
            .chain(numbered)
            .find(|name| !self.taken.contains_key(name))
            .unwrap_or_default();
        self.taken.insert(free.clone(), String::new());
        free
    }
}
