//! Limits with names: checked as they were written, then built.

use std::collections::HashMap;

use super::RulesError;
use crate::{
    in_flight::InFlight,
    limit::{Limit, Scope, Terms},
    limits::{Access, Limits},
    meter::Meter,
    quota::Quota,
    rate::Rate,
};

/// How many limits a scope may have of a kind that is held until the response ends. A request has six scopes at
/// most (two routes, a client on each, a client, the total), so that 32 bits have one for each.
const MAX_HELD: usize = 5;

/// The names given and taken so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Name to the place where it was given.
    taken: HashMap<String, String>,
    /// Where counting goes on for names that were made up.
    next: HashMap<String, u64>,
}

impl Names {
    /// Checks limits, and notes the names that a user gave them, before any is made up.
    pub(super) fn reserve(&mut self, limits: &Limits, place: &str) -> Result<(), RulesError> {
        validate(limits, place)?;
        let own = limits.name.as_deref();
        let rates = limits.rates.iter().filter_map(Rate::name);
        let quotas = limits.quotas.iter().filter_map(Quota::name);
        let tokens = limits.tokens.iter().filter_map(Rate::name);
        let in_flight = limits.in_flight.iter().filter_map(InFlight::name);
        let limits = rates.chain(quotas).chain(tokens).chain(in_flight);
        for name in own.into_iter().chain(limits) {
            proper(name, place)?;
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
    pub(super) fn build(&mut self, limits: &Limits, scope_name: &str, scope: Scope) -> Vec<Limit> {
        let closed = (limits.access == Access::Closed).then(|| Rate::per_second(0));
        let rates = closed.iter().chain(&limits.rates).map(|rate| {
            let terms = Terms::Rate(rate.clone());
            (rate.name(), rate.is_shadow(), terms, Meter::of_rate(rate))
        });
        let quotas = limits.quotas.iter().map(|quota| {
            let (terms, meter) = (Terms::Quota(quota.clone()), Meter::of_quota(quota));
            (quota.name(), quota.is_shadow(), terms, meter)
        });
        let tokens = limits.tokens.iter().map(|rate| {
            let terms = Terms::Tokens(rate.clone());
            (rate.name(), rate.is_shadow(), terms, Meter::of_rate(rate))
        });
        let in_flight = limits.in_flight.iter().map(|cap| {
            let (terms, meter) = (Terms::InFlight(cap.clone()), Meter::of_slots(cap.count()));
            (cap.name(), cap.is_shadow(), terms, meter)
        });
        let mut given = limits.name.as_deref();
        let limit = |(own, shadow, terms, meter): (Option<&str>, bool, Terms, Option<Meter>)| {
            let (name, is_named) = match (own, given.take()) {
                (Some(own), unused) => {
                    given = unused;
                    (own.to_owned(), true)
                }
                (None, Some(first)) => (first.to_owned(), true),
                (None, None) => {
                    let base = limits.name.as_deref().unwrap_or(scope_name);
                    (self.unique(base), false)
                }
            };
            let capacity = scope == Scope::Total
                || scope == Scope::Route && matches!(terms, Terms::InFlight(_));
            Limit {
                name: name.into(),
                is_named,
                scope,
                terms,
                meter,
                published: limits.publish.unwrap_or(!capacity) && !shadow,
                shadow,
                patience: limits.patience(),
            }
        };
        rates
            .chain(quotas)
            .chain(tokens)
            .chain(in_flight)
            .map(limit)
            .collect()
    }

    /// `base`, or `base_2` and so on.
    fn unique(&mut self, base: &str) -> String {
        let next = self.next.entry(base.to_owned()).or_insert(1);
        loop {
            let name = match *next {
                1 => base.to_owned(),
                number => format!("{base}_{number}"),
            };
            *next += 1;
            if !self.taken.contains_key(&name) {
                self.taken.insert(name.clone(), String::new());
                return name;
            }
        }
    }
}

fn validate(limits: &Limits, place: &str) -> Result<(), RulesError> {
    let contradicted = match limits.access {
        Access::Limited | Access::Exempt => None,
        Access::Unlimited => Some("unlimited"),
        Access::Closed => Some("closed"),
    };
    if let Some(access) = contradicted.filter(|_| limits.enforces_anything()) {
        return Err(RulesError::Contradiction {
            place: place.to_owned(),
            access,
        });
    }
    for rate in limits.rates.iter().chain(&limits.tokens) {
        let (count, period, burst) = (rate.count(), rate.period(), rate.burst_limit());
        if period.is_zero() {
            return Err(RulesError::Period {
                place: place.to_owned(),
                count,
            });
        }
        if !rate.is_closed() && Meter::of_rate(rate).is_none() {
            return Err(RulesError::TooSlow {
                place: place.to_owned(),
                count,
                period,
                burst,
            });
        }
    }
    for quota in &limits.quotas {
        let (count, window) = (quota.count(), quota.shortest());
        let kept = count == 0 || Meter::of_quota(quota).is_some();
        if window.is_zero() || !kept {
            return Err(RulesError::Quota {
                place: place.to_owned(),
                count,
                window,
            });
        }
    }
    let counts = [
        ("caps in flight", limits.in_flight.len()),
        ("token rates", limits.tokens.len()),
    ];
    for (what, count) in counts {
        if count > MAX_HELD {
            let place = place.to_owned();
            return Err(RulesError::TooMany { place, what, count });
        }
    }
    Ok(())
}

/// Whether a name fits into fields, metrics and logs.
pub(super) fn proper(name: &str, place: &str) -> Result<(), RulesError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(fits) {
        return Err(RulesError::Name {
            place: place.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(())
}
