//! Limits with names: checked as they were written, then built.

use std::collections::HashMap;

use super::RulesError;
use crate::{
    clock::Clock,
    limiter::{Limit, Scope, Terms},
    limits::{Access, Limits},
    meter::Meter,
    quota::Quota,
    rate::Rate,
};

/// The names given and taken so far.
#[derive(Debug)]
pub(super) struct Names<'a> {
    /// Name to the place where it was given.
    taken: HashMap<String, String>,
    /// Where counting goes on for names that were made up.
    next: HashMap<String, u64>,
    clock: &'a Clock,
}

impl<'a> Names<'a> {
    pub(super) fn new(clock: &'a Clock) -> Self {
        Self {
            taken: HashMap::new(),
            next: HashMap::new(),
            clock,
        }
    }

    /// Checks limits, and notes the names that a user gave them, before any is made up.
    pub(super) fn reserve(&mut self, limits: &Limits, place: &str) -> Result<(), RulesError> {
        validate(limits, place, self.clock)?;
        let rates = limits.rates.iter().filter_map(Rate::name);
        let quotas = limits.quotas.iter().filter_map(Quota::name);
        for name in limits
            .name
            .as_deref()
            .into_iter()
            .chain(rates)
            .chain(quotas)
        {
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
        let closed = [Rate::per_second(0)];
        let rates = match limits.access {
            Access::Limited => limits.rates.as_slice(),
            Access::Unlimited => &[],
            Access::Closed => &closed,
        };
        let clock = self.clock;
        let rates = rates.iter().map(|rate| {
            let terms = Terms::Rate(rate.clone());
            (rate.name(), terms, Meter::of_rate(rate))
        });
        let quotas = limits.quotas.iter().map(|quota| {
            let terms = Terms::Quota(quota.clone());
            (quota.name(), terms, Meter::of_quota(quota, clock))
        });
        let mut given = limits.name.as_deref();
        let published = limits.publish.unwrap_or(scope != Scope::Total);
        let limit = |(own, terms, meter): (Option<&str>, Terms, Option<Meter>)| {
            let name = match (own, given.take()) {
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
                terms,
                meter,
                published,
            }
        };
        rates.chain(quotas).map(limit).collect()
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

fn validate(limits: &Limits, place: &str, clock: &Clock) -> Result<(), RulesError> {
    let contradicted = match limits.access {
        Access::Limited => None,
        Access::Unlimited => Some("unlimited"),
        Access::Closed => Some("closed"),
    };
    let nothing_beside = limits.rates.is_empty() && limits.quotas.is_empty();
    if let Some(access) = contradicted.filter(|_| !nothing_beside) {
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
        let kept = count == 0 || Meter::of_quota(quota, clock).is_some();
        if window.is_zero() || !kept {
            return Err(RulesError::Quota {
                place: place.to_owned(),
                count,
                window,
            });
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
