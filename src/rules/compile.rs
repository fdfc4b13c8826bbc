//! From rules as written to limits with names and buckets.

use std::sync::Arc;

use super::{
    Rules, RulesError, Undeclared,
    classes::{Class, classes, reserve_clients, roster},
    names::Names,
};
use crate::{
    client::Roster,
    clock::Clock,
    limit::{Limit, Scope},
    response::{Rejection, Rejections},
    route::{RouteKey, table::Table},
    rule::Binding,
    store::Memory,
    usage::{Estimator, NoField},
};

/// Rules that hold together.
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
    pub(crate) estimator: Estimator,
    /// Answers of single routes. `None` if there are none.
    pub(crate) rejections: Option<Table<Arc<dyn Rejection>>>,
}

pub(super) fn compile(rules: &Rules, clock: &Clock) -> Result<Compiled, RulesError> {
    // Exhaustive, so that a new field is thought about here.
    let Rules {
        total,
        default_route,
        routes,
        undeclared,
        clients,
        estimate,
        rejections,
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
    let total = Binding::scope(total.iter().flat_map(build_total));
    let build_default = |limits| names.build(limits, "default", Scope::Route);
    let default: Vec<_> = default_route.iter().flat_map(build_default).collect();
    let mut compiled = Vec::with_capacity(keys.len());
    for (key, (_, limits)) in keys.into_iter().zip(routes) {
        let own = if limits.inherits_all() && default_route.is_some() {
            default.clone()
        } else {
            names.build(&limits.or(default_route.as_ref()), "route", Scope::Route)
        };
        compiled.push((key, Binding::scope(own)));
    }

    let mut numbers = 0;
    let classes = match clients {
        None => vec![Class::unlimited()],
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
        estimator: Estimator::new(estimate.clone())
            .map_err(|NoField(name)| RulesError::EstimateHeader { name })?,
        rejections: compile_rejections(rejections)?,
    })
}

fn compile_rejections(
    Rejections(rejections): &Rejections,
) -> Result<Option<Table<Arc<dyn Rejection>>>, RulesError> {
    if rejections.is_empty() {
        return Ok(None);
    }
    let mut table = Table::new();
    for (index, on_route) in rejections.iter().enumerate() {
        let key = parse(&on_route.key)?;
        if table.insert(&key, Arc::clone(&on_route.rejection)).is_err() {
            let same = rejections[..index]
                .iter()
                .find(|first| parse(&first.key) == Ok(key.clone()));
            return Err(RulesError::SameRoute {
                first: same.map_or_else(|| key.to_string(), |first| first.key.to_string()),
                second: key.to_string(),
            });
        }
    }
    Ok(Some(table))
}

pub(super) fn parse(key: &str) -> Result<RouteKey, RulesError> {
    key.parse().map_err(|fault| RulesError::RouteKey {
        key: key.to_owned(),
        fault,
    })
}
