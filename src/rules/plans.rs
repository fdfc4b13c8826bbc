//! The limits of clients, by usage plan.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    RulesError,
    models::{plan_models, reserve_plan},
    names::{LimitNames, ScopeName, parse, proper},
    registry::{Draft, ScopeKey},
};
use crate::{
    client::{Clients, Plan, Resolver, ResolverError},
    limit::limits::{Access, Limits},
    limiter::limit_set::BoundLimit,
    model::Models,
    route::{CatchAll, RouteKey, table::Table},
};

/// The limits of the clients on one plan, or of those without a plan.
#[derive(Debug)]
pub(crate) struct PlanLimits {
    /// The name of its plan.
    pub(crate) plan: Option<Arc<str>>,
    /// The number of variants that the plans before it have.
    pub(crate) first: usize,
    /// The limits of these clients on any route, and then on each of their routes.
    pub(crate) variants: Vec<Vec<BoundLimit>>,
    /// The number of the variant.
    pub(crate) routes: Table<usize>,
    /// The limits of these clients on models, by the position of each class. Empty where rules have no models.
    pub(crate) models: Vec<Vec<BoundLimit>>,
}

impl PlanLimits {
    /// The limits of clients of which nothing is asked.
    pub(super) fn unlimited() -> Self {
        Self {
            plan: None,
            first: 0,
            variants: vec![Vec::new()],
            routes: Table::new(),
            models: Vec::new(),
        }
    }

    pub(crate) fn is_limited(&self) -> bool {
        let mut all = self.variants.iter().chain(&self.models);
        all.any(|bounds| !bounds.is_empty())
    }
}

/// Checks what users said of clients, and notes the names in it.
pub(super) fn reserve_clients(
    clients: &Clients,
    models: Option<&Models>,
    names: &mut LimitNames,
) -> Result<(), RulesError> {
    let each = clients.each.as_ref().ok_or(RulesError::NoEach)?;
    let plans = clients.plans.iter();
    let mut earlier: HashSet<&str> = HashSet::new();
    for (name, _) in plans.clone() {
        proper(name, "clients, plan")?;
        if !earlier.insert(name) {
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
        reserve_plan(plan, models, &place, names)?;
    }
    Ok(())
}

pub(super) fn plans(
    clients: &Clients,
    models: Option<&Models>,
    catch_all: CatchAll,
    names: &mut LimitNames,
    draft: &mut Draft<'_>,
) -> Result<Vec<PlanLimits>, RulesError> {
    let nothing = Plan::default();
    let each = clients.each.as_ref().unwrap_or(&nothing);
    let mut plans = vec![plan_limits(None, each, &nothing, models, names, draft)?];
    for (name, plan) in &clients.plans {
        let next = plan_limits(Some(name), plan, each, models, names, draft)?;
        let last = plans.last();
        let first = last.map_or(0, |last| last.first + last.variants.len());
        plans.push(PlanLimits { first, ..next });
    }
    for plan_limits in &mut plans {
        plan_limits.routes.catch_all(catch_all);
    }
    Ok(plans)
}

/// A plan, with what it leaves out taken from `each`.
fn plan_limits(
    name: Option<&str>,
    plan: &Plan,
    each: &Plan,
    models: Option<&Models>,
    names: &mut LimitNames,
    draft: &mut Draft<'_>,
) -> Result<PlanLimits, RulesError> {
    let plan_name: Option<Arc<str>> = name.map(Into::into);
    let limits = plan.limits.or(Some(&each.limits));
    let own = names.build(&limits, ScopeName::Clients(name));
    let own = draft.bind(ScopeKey::Client(plan_name.clone()), own);

    let mut routes: Vec<(RouteKey, Limits)> = Vec::new();
    let mut numbers: HashMap<RouteKey, usize> = HashMap::new();
    for (key, limits) in &plan.routes {
        let key = parse(key)?;
        numbers.entry(key.clone()).or_insert(routes.len());
        routes.push((key, limits.clone()));
    }
    for (key, inherited) in &each.routes {
        let key = parse(key)?;
        match numbers.get(&key) {
            Some(&number) => routes[number].1 = routes[number].1.or(Some(inherited)),
            None => routes.push((key, Limits::new().or(Some(inherited)))),
        }
    }
    let mut variants = vec![own.clone()];
    let mut table = Table::new();
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
            let on_route = names.build(&limits, ScopeName::ClientsOnRoute(name, &key));
            let place = ScopeKey::ClientOnRoute(plan_name.clone(), key.clone());
            let mut bounds = draft.bind(place, on_route);
            bounds.extend(own.iter().cloned());
            bounds
        });
    }
    let on_models = |models| plan_models(name, plan, each, models, names, draft);
    Ok(PlanLimits {
        plan: plan_name,
        first: 0,
        variants,
        routes: table,
        models: models.map_or_else(Vec::new, on_models),
    })
}

pub(super) fn resolver(clients: &Clients) -> Result<Resolver, RulesError> {
    Resolver::new(clients).map_err(|fault| match fault {
        ResolverError::NoSource => RulesError::NoIdentity,
        ResolverError::Header(name) => RulesError::ClientHeader { name },
        ResolverError::Host(host) => RulesError::ClientHost { host },
        ResolverError::NoHosts => RulesError::NoHosts,
        ResolverError::Network(network) => RulesError::Network { network },
        ResolverError::Mapped(network) => RulesError::MappedNetwork { network },
        ResolverError::Prefix(bits) => RulesError::Ipv6Prefix { bits },
        ResolverError::Plan(name) => RulesError::UnknownPlan { name },
        ResolverError::Member(plan) => RulesError::UnknownMember { plan },
        ResolverError::Trusting => RulesError::UnusedProxies,
        ResolverError::Secret(length) => RulesError::Secret { length },
    })
}
