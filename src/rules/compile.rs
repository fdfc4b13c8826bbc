//! From rules as written to limits with names and buckets.

use std::{collections::HashMap, sync::Arc};

use crate::{
    client::{Clients, Fault, Plan, Roster},
    clock::Clock,
    limiter::{Binding, Home, Limit, Scope, Terms},
    limits::{Access, Limits},
    meter::Meter,
    quota::Quota,
    rate::Rate,
    route::{RouteKey, table::Table},
    store::Memory,
};

use super::{Rules, RulesError, Undeclared};

/// Rules that hold together.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) total: Vec<Binding>,
    /// Each with its own limits.
    pub(crate) routes: Vec<(RouteKey, Vec<Binding>)>,
    /// What routes without a key are made from.
    pub(crate) default: Vec<Limit>,
    /// Whether each of them gets buckets of its own.
    pub(crate) per_route: bool,
    /// `None`: nobody asks who it is.
    pub(crate) roster: Option<Roster>,
    /// Clients without a plan, then each plan. At least one.
    pub(crate) classes: Vec<Class>,
    pub(crate) memory: Memory,
}

/// Clients of which the same is asked.
#[derive(Debug)]
pub(crate) struct Class {
    /// The name of its plan.
    pub(crate) plan: Option<Arc<str>>,
    /// How many variants the classes before it have.
    pub(crate) first: usize,
    /// What their limits are on any route, and then on each of their routes.
    pub(crate) variants: Vec<Vec<Binding>>,
    /// The number of the variant.
    pub(crate) routes: Table<usize>,
}

pub(super) fn compile(rules: &Rules, clock: &Clock) -> Result<Compiled, RulesError> {
    // Exhaustive, so that a new field is thought about here.
    let Rules {
        total,
        default_route,
        routes,
        undeclared,
        clients,
    } = rules;
    let keys = routes.iter().map(|(key, _)| parse(key));
    let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
    let mut names = Names::new(clock);
    if let Some(limits) = total {
        names.reserve(limits, "the total")?;
    }
    if let Some(limits) = default_route {
        names.reserve(limits, "the default route")?;
    }
    for ((_, limits), key) in routes.iter().zip(&keys) {
        names.reserve(limits, &format!("route `{key}`"))?;
    }
    if let Some(clients) = clients {
        reserve_clients(clients, &mut names)?;
    }

    let build_total = |limits| names.build(limits, "total", Scope::Total);
    let total: Vec<_> = total
        .iter()
        .flat_map(build_total)
        .map(Binding::fresh)
        .collect();
    let build_default = |limits| names.build(limits, "default", Scope::Route);
    let default: Vec<_> = default_route.iter().flat_map(build_default).collect();
    let mut compiled = Vec::with_capacity(keys.len());
    for (key, (_, limits)) in keys.into_iter().zip(routes) {
        let own = if limits.inherits_all() && default_route.is_some() {
            default.clone()
        } else {
            names.build(&limits.or(default_route.as_ref()), "route", Scope::Route)
        };
        compiled.push((key, own.into_iter().map(Binding::fresh).collect()));
    }

    let mut numbers = 0;
    let classes = match clients {
        None => vec![Class {
            plan: None,
            first: 0,
            variants: vec![Vec::new()],
            routes: Table::new(),
        }],
        Some(clients) => classes(clients, &mut names, &mut numbers)?,
    };
    let capacity = clients.as_ref().map_or(0, |clients| clients.max_clients);
    // Nobody looks into it where clients have no limits.
    let capacity = if numbers == 0 { 0 } else { capacity };
    let memory = Memory::new(capacity, numbers as usize).map_err(|_| RulesError::MaxClients {
        max_clients: capacity,
    })?;
    Ok(Compiled {
        total,
        routes: compiled,
        per_route: *undeclared == Undeclared::PerRoute && !default.is_empty(),
        default,
        roster: clients.as_ref().map(roster).transpose()?,
        classes,
        memory,
    })
}

fn parse(key: &str) -> Result<RouteKey, RulesError> {
    key.parse().map_err(|source| RulesError::RouteKey {
        key: key.to_owned(),
        source,
    })
}

fn roster(clients: &Clients) -> Result<Roster, RulesError> {
    Roster::new(clients).map_err(|fault| match fault {
        Fault::Header(name) => RulesError::ClientHeader { name },
        Fault::Network(network) => RulesError::Network { network },
        Fault::Prefix(bits) => RulesError::Ipv6Prefix { bits },
        Fault::Plan(name) => RulesError::UnknownPlan { name },
    })
}

/// What users said of clients: checked, and its names noted.
fn reserve_clients(clients: &Clients, names: &mut Names<'_>) -> Result<(), RulesError> {
    let each = clients.each.as_ref().ok_or(RulesError::NoEach)?;
    let plans = clients.plans.iter();
    for (index, (name, _)) in plans.clone().enumerate() {
        proper(name, "clients, plan")?;
        if clients.plans[..index]
            .iter()
            .any(|(earlier, _)| earlier == name)
        {
            return Err(RulesError::SamePlan {
                name: name.to_string(),
            });
        }
    }
    let plans = plans.map(|(name, plan)| (format!("plan `{name}`"), plan));
    for (place, plan) in std::iter::once(("each client".to_owned(), each)).chain(plans) {
        names.reserve(&plan.limits, &place)?;
        for (key, limits) in &plan.routes {
            names.reserve(limits, &format!("{place}, route `{}`", parse(key)?))?;
        }
    }
    Ok(())
}

fn classes(
    clients: &Clients,
    names: &mut Names<'_>,
    numbers: &mut u32,
) -> Result<Vec<Class>, RulesError> {
    let nothing = Plan::default();
    let each = clients.each.as_ref().unwrap_or(&nothing);
    let mut classes = vec![class(None, each, &nothing, names, numbers)?];
    for (name, plan) in &clients.plans {
        let mut next = class(Some(name), plan, each, names, numbers)?;
        next.first = classes.iter().map(|class| class.variants.len()).sum();
        classes.push(next);
    }
    Ok(classes)
}

/// A plan, with what it leaves out taken from `each`.
fn class(
    name: Option<&str>,
    plan: &Plan,
    each: &Plan,
    names: &mut Names<'_>,
    numbers: &mut u32,
) -> Result<Class, RulesError> {
    let mut kept = |limits: Vec<Limit>| -> Vec<Binding> {
        let binding = |limit| {
            let home = Home::Client(*numbers);
            *numbers += 1;
            Binding { limit, home }
        };
        limits.into_iter().map(binding).collect()
    };
    let scope_name = name.unwrap_or("client");
    let limits = plan.limits.or(Some(&each.limits));
    let own = kept(names.build(&limits, scope_name, Scope::Client));

    let mut routes: Vec<(RouteKey, Limits)> = Vec::new();
    for (key, limits) in &plan.routes {
        routes.push((parse(key)?, limits.clone()));
    }
    for (key, inherited) in &each.routes {
        let key = parse(key)?;
        match routes.iter_mut().find(|(own, _)| *own == key) {
            Some((_, limits)) => *limits = limits.or(Some(inherited)),
            None => routes.push((key, Limits::new().or(Some(inherited)))),
        }
    }
    let mut variants = vec![own.clone()];
    let mut table = Table::new();
    let on_route = format!("{scope_name}_route");
    for (key, limits) in routes {
        let number = variants.len();
        table
            .insert(&key, number)
            .map_err(|&first| RulesError::SameRoute {
                first: plan.routes[first - 1].0.to_string(),
                second: key.to_string(),
            })?;
        variants.push(if limits.access == Access::Unlimited {
            Vec::new()
        } else {
            let mut bindings = kept(names.build(&limits, &on_route, Scope::ClientOnRoute));
            bindings.extend(own.iter().cloned());
            bindings
        });
    }
    Ok(Class {
        plan: name.map(Into::into),
        first: 0,
        variants,
        routes: table,
    })
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

fn proper(name: &str, place: &str) -> Result<(), RulesError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(fits) {
        return Err(RulesError::Name {
            place: place.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// The names given and taken so far.
#[derive(Debug)]
struct Names<'a> {
    /// Name to the place where it was given.
    taken: HashMap<String, String>,
    /// Where counting goes on for names that were made up.
    next: HashMap<String, u64>,
    clock: &'a Clock,
}

impl<'a> Names<'a> {
    fn new(clock: &'a Clock) -> Self {
        Self {
            taken: HashMap::new(),
            next: HashMap::new(),
            clock,
        }
    }

    /// Checks limits, and notes the names that a user gave them, before any is made up.
    fn reserve(&mut self, limits: &Limits, place: &str) -> Result<(), RulesError> {
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
    fn build(&mut self, limits: &Limits, scope_name: &str, scope: Scope) -> Vec<Limit> {
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
