//! Limits with names: checked as they were written, then built.

mod kind;
mod stem;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use super::{RulesError, registry::ModelKey};
use crate::{
    clock::nanos,
    limit::{
        Limit, LimitSettings, Scope,
        amount::Amount,
        in_flight::InFlight,
        limits::{Access, Degrade, Limits},
        measure::CachedInput,
        meter::Meter,
        price::PriceTable,
        quota::Quota,
        rate::Rate,
        spend::{Spend, SpendFault},
    },
    route::RouteKey,
};

/// A place whose limits are built.
#[derive(Debug, Clone, Copy)]
pub(super) enum ScopeName<'a> {
    Total,
    /// The default route: each route by itself.
    Default,
    Route(&'a RouteKey),
    Model(&'a ModelKey),
    /// Clients on the plan of this name.
    Clients(Option<&'a str>),
    ClientsOnRoute(Option<&'a str>, &'a RouteKey),
    ClientsOnModel(Option<&'a str>, &'a ModelKey),
}

impl ScopeName<'_> {
    fn scope(self) -> Scope {
        match self {
            Self::Total => Scope::Total,
            Self::Default | Self::Route(_) => Scope::Route,
            Self::Model(_) => Scope::Model,
            Self::Clients(_) => Scope::Client,
            Self::ClientsOnModel(..) => Scope::ClientOnModel,
            Self::ClientsOnRoute(..) => Scope::ClientOnRoute,
        }
    }

    /// The words with which the names of its limits begin.
    fn stem(self) -> Cow<'static, str> {
        match self {
            Self::Total => stem::TOTAL.into(),
            Self::Default => stem::DEFAULT.into(),
            Self::Route(key) => stem::of_route(key).into(),
            Self::Clients(plan) => stem::of_clients(plan).into(),
            Self::ClientsOnRoute(plan, key) => stem::of_clients_on_route(plan, key).into(),
            Self::Model(model) => stem::of_model(model.name()).into(),
            Self::ClientsOnModel(plan, model) => {
                stem::of_clients_on_model(plan, model.name()).into()
            }
        }
    }
}

/// The number of limits that a scope may have of a kind that is held until the response ends. Most requests have six
/// scopes at most (a route, a model, a client, a client on each of them, the total), so that 32 bits have one for each.
const MAX_HELD: usize = 5;

/// The names given and taken so far.
#[derive(Debug, Default)]
pub(super) struct LimitNames {
    /// Name to the place where it was given.
    taken: HashMap<String, String>,
    /// The prices by which limits count money.
    prices: Option<Arc<PriceTable>>,
}

impl LimitNames {
    /// Names for the limits of rules with these prices.
    pub(super) fn new(prices: Option<Arc<PriceTable>>) -> Self {
        Self {
            prices,
            ..Self::default()
        }
    }

    /// Checks limits, and notes the names that a user gave them, before any is made up.
    pub(super) fn reserve(&mut self, limits: &Limits, place: &str) -> Result<(), RulesError> {
        validate(limits, place)?;
        if let Some(degrade) = &limits.degrade {
            let second = format!("{place}, degrade");
            check_second(limits, &degrade.limits, place)?;
            self.reserve(&degrade.limits, &second)?;
        }
        let own = limits.name.as_deref();
        let rates = limits.rates.iter().filter_map(Rate::name);
        let quotas = limits.quotas.iter().filter_map(Quota::name);
        let tokens = limits.token_rates().filter_map(Rate::name);
        let spend = limits.spend.iter().filter_map(Spend::name);
        let in_flight = limits.in_flight.iter().filter_map(InFlight::name);
        let settled = tokens.chain(spend);
        let limits = rates.chain(quotas).chain(settled).chain(in_flight);
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

    /// Builds the limits of a place. A limit without a name is named after the place and its kind.
    ///
    /// Those of a second budget come last. A place that is closed has none: it stays closed.
    pub(super) fn build(&mut self, limits: &Limits, place: ScopeName<'_>) -> Vec<Limit> {
        let stem = match &limits.name {
            Some(given) => given.clone(),
            None => place.stem(),
        };
        let mut all = self.build_budget(limits, place.scope(), &stem);
        let is_open = limits.access == Access::Limited && !limits.is_closed();
        if let Some(degrade) = limits.degrade.as_ref().filter(|_| is_open) {
            let Degrade {
                limits: second,
                after,
            } = &**degrade;
            let second = Limits {
                publish: second.publish.or(limits.publish),
                reservation: second.reservation.or(limits.reservation),
                ..second.clone()
            };
            let stem = match &second.name {
                Some(given) => given.clone(),
                None => Cow::Owned(format!("{stem}_{}", stem::DEGRADED)),
            };
            let second = self.build_budget(&second, place.scope(), &stem);
            all.extend(second.into_iter().map(|limit| Limit {
                degrades_after: Some(nanos(*after)),
                ..limit
            }));
        }
        all
    }

    /// Builds the limits of one budget of a place.
    fn build_budget(&mut self, limits: &Limits, scope: Scope, stem: &str) -> Vec<Limit> {
        let closed = (limits.access == Access::Closed).then(|| Rate::per_second(0));
        type Named<'a> = (Option<&'a str>, LimitSettings);
        fn of_rate(kind: fn(Rate) -> LimitSettings) -> impl Fn(&Rate) -> Named<'_> {
            move |rate| (rate.name(), kind(rate.clone()))
        }
        let rates = closed.iter().chain(&limits.rates);
        let rates = rates.map(of_rate(LimitSettings::Rate));
        let quotas = limits.quotas.iter();
        let quotas = quotas.map(|quota| (quota.name(), LimitSettings::Quota(quota.clone())));
        let tokens = limits.tokens.iter().map(of_rate(LimitSettings::Tokens));
        let input = limits.input_tokens.iter();
        let input = input.map(of_rate(LimitSettings::InputTokens));
        let output = limits.output_tokens.iter();
        let output = output.map(of_rate(LimitSettings::OutputTokens));
        let in_flight = limits.in_flight.iter();
        let in_flight = in_flight.map(|cap| (cap.name(), LimitSettings::InFlight(cap.clone())));
        let spend = limits.spend.iter();
        let spend = spend.map(|spend| (spend.name(), LimitSettings::Spend(spend.clone())));
        let settled = tokens.chain(input).chain(output).chain(spend);
        let all: Vec<Named<'_>> = rates
            .chain(quotas)
            .chain(settled)
            .chain(in_flight)
            .collect();
        let prices = self.prices.clone();
        let cached_input = CachedInput::percent(limits.cached_input_percent.unwrap_or(100));
        let mut unnamed: Vec<_> = (0..all.len())
            .filter(|index| all[*index].0.is_none())
            .collect();
        unnamed.sort_by_key(|index| kind::rank(&all[*index].1));
        let given = limits.name.as_deref();
        // The name of the scope is that of its first limit, in an order that does not go by place.
        let first = given.and(unnamed.first().copied());
        let words = kind::words(unnamed.iter().map(|index| &all[*index].1));
        let mut made: HashMap<usize, String> = unnamed
            .iter()
            .zip(words)
            .filter(|(index, _)| Some(**index) != first)
            .map(|(index, words)| (*index, self.unique(stem, &words)))
            .collect();
        let limit = |(index, (own, settings)): (usize, Named<'_>)| {
            let made = made.remove(&index);
            let is_named = made.is_none();
            let name = made.as_deref().or(own).unwrap_or(stem);
            let shadow = settings.is_shadow();
            let is_spend = matches!(settings, LimitSettings::Spend(_));
            let capacity = scope == Scope::Total
                || matches!(scope, Scope::Route | Scope::Model)
                    && matches!(settings, LimitSettings::InFlight(_));
            Limit {
                name: name.into(),
                is_named,
                scope,
                meter: settings.meter(limits.reservation),
                measure: settings.measure(cached_input, prices.as_ref()),
                settings,
                published: limits.publish.unwrap_or(!capacity && !is_spend) && !shadow,
                shadow,
                wait_policy: limits.wait_policy(),
                reservation: limits.reservation,
                degrades_after: None,
            }
        };
        all.into_iter().enumerate().map(limit).collect()
    }

    /// Makes a name that nobody has, with a hash of it if a user gave it to another limit.
    fn unique(&mut self, stem: &str, words: &str) -> String {
        let name = format!("{stem}{words}");
        let hashed = || format!("{name}_{}", stem::hash(&name));
        // Two hashes that are equal by chance are told apart by a number.
        let numbered = (2_u64..).map(|number| format!("{}_{number}", hashed()));
        let mut names = [name.clone(), hashed()].into_iter().chain(numbered);
        let free = names.find(|name| !self.taken.contains_key(name));
        let free = free.unwrap_or(name);
        self.taken.insert(free.clone(), String::new());
        free
    }
}

/// Checks whether a scope may have a second budget, and whether it is one.
fn check_second(first: &Limits, second: &Limits, place: &str) -> Result<(), RulesError> {
    let first_fault = match first.access {
        Access::Unlimited => Some("`unlimited` refuses nothing; keep one of them"),
        Access::Exempt => Some("`exempt` refuses nothing; keep one of them"),
        Access::Closed => Some("`closed` refuses everything; keep one of them"),
        Access::Limited if first.is_closed() => {
            Some("a limit of zero refuses everything; keep one of them")
        }
        Access::Limited => None,
    };
    let second_fault = || match second {
        Limits {
            degrade: Some(_), ..
        } => Some("a second budget has no second budget; remove the inner `degrade`"),
        Limits {
            max_wait: Some(_), ..
        }
        | Limits {
            max_waiting: Some(_),
            ..
        } => Some("no request waits for a second budget; set `max_wait` beside `degrade`"),
        Limits { cost: Some(_), .. } => {
            Some("a request costs the same in both budgets; set `cost` beside `degrade`")
        }
        _ if second.access != Access::Limited || second.is_closed() => {
            Some("a second budget is open and limited; give it a rate above zero")
        }
        _ if !second.enforces_anything() => {
            Some("a second budget without an enforced limit; give it one, such as a rate")
        }
        _ => None,
    };
    if let Some(fault) = first_fault.or_else(second_fault) {
        let place = place.to_owned();
        return Err(RulesError::Degrade { place, fault });
    }
    if let Some(most) = second.reservation.max_tokens {
        if second.tokens.is_empty() {
            let place = format!("{place}, degrade");
            return Err(RulesError::NoTokens { place, most });
        }
    }
    Ok(())
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
    for rate in limits.rates.iter().chain(limits.token_rates()) {
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
    for spend in &limits.spend {
        if let Some(SpendFault { amount, reason }) = spend.fault() {
            return Err(RulesError::Spend {
                place: place.to_owned(),
                amount: amount.clone(),
                fault: reason.to_string(),
            });
        }
        if let Some(rate) = spend.rate().filter(|rate| !rate.is_closed()) {
            if Meter::of_rate(rate).is_none() {
                return Err(RulesError::Spend {
                    place: place.to_owned(),
                    amount: Amount(rate.burst_limit()).to_string(),
                    fault: "is a burst that takes longer than 146 years to refill".to_owned(),
                });
            }
        }
    }
    let counts = [
        ("caps in flight", limits.in_flight.len()),
        ("token rates", limits.token_rates().count()),
        ("amounts of money", limits.spend.len()),
    ];
    let second = limits.degrade.as_ref().map(|degrade| &degrade.limits);
    let second = [
        second.map_or(0, |second| second.in_flight.len()),
        second.map_or(0, |second| second.token_rates().count()),
        second.map_or(0, |second| second.spend.len()),
    ];
    for ((what, count), second) in counts.into_iter().zip(second) {
        // Shadows of the scope stay beside a second budget.
        let count = count + second;
        if count > MAX_HELD {
            let place = place.to_owned();
            return Err(RulesError::TooMany { place, what, count });
        }
    }
    Ok(())
}

/// Reads the key of a route.
pub(super) fn parse(key: &str) -> Result<RouteKey, RulesError> {
    key.parse().map_err(|fault| RulesError::RouteKey {
        key: key.to_owned(),
        fault,
    })
}

/// Checks that a name fits into fields, metrics and logs.
pub(super) fn proper(name: &str, place: &str) -> Result<(), RulesError> {
    let length = name.chars().count();
    if length > stem::LONGEST {
        return Err(RulesError::LongName {
            place: place.to_owned(),
            beginning: name.chars().take(stem::LONGEST).collect(),
            length,
        });
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(fits) {
        return Err(RulesError::Name {
            place: place.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(())
}
