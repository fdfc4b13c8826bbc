//! Routes that nothing counts, and where they may be declared.

use http::Extensions;

use super::{Rules, RulesError, names::parse};
use crate::{
    client::{Clients, Plan},
    limit::limits::{Access, Limits},
    route::{RouteKey, readings::Head, table::Table},
};

/// Checks each use of [`Limits::exempt`]: on a declared route with a named method and a path without parameters, beside
/// no other setting, and without limits of clients on the same route.
///
/// `keys` are those of the rules' routes, in their order.
pub(super) fn check(rules: &Rules, keys: &[RouteKey]) -> Result<(), RulesError> {
    refuse(rules.total.as_ref(), || "the total".to_owned())?;
    refuse(rules.default_route.as_ref(), || {
        "the default route".to_owned()
    })?;
    let mut exempt = Table::new();
    for (key, (_, limits)) in keys.iter().zip(&rules.routes) {
        let place = || format!("route `{key}`");
        let is_exempt = limits.access == Access::Exempt;
        if is_exempt && key.literal().is_none() {
            return Err(RulesError::Exempt { place: place() });
        }
        if let Some(setting) = limits.first_setting().filter(|_| is_exempt) {
            return Err(RulesError::BesideExempt {
                place: place(),
                setting,
            });
        }
        // Two keys for one route are an error of their own.
        let _ = exempt.insert(key, is_exempt.then_some(key));
    }
    if let Some(models) = &rules.models {
        let named = models.models.iter().map(|(name, limits)| (&**name, limits));
        let others = [("otherwise", &models.otherwise), ("unread", &models.unread)];
        let others = others
            .iter()
            .filter_map(|(name, it)| Some((*name, it.as_ref()?)));
        for (name, limits) in named.chain(others) {
            refuse(Some(limits), || format!("model `{name}`"))?;
        }
    }
    match &rules.clients {
        Some(clients) => check_clients(clients, &exempt),
        None => Ok(()),
    }
}

fn check_clients(clients: &Clients, exempt: &Table<Option<&RouteKey>>) -> Result<(), RulesError> {
    let each = clients.each.iter();
    let each = each.map(|plan| ("each client".to_owned(), plan));
    let plans = clients.plans.iter();
    let plans = plans.map(|(name, plan)| (format!("plan `{name}`"), plan));
    for (place, plan) in each.chain(plans) {
        let Plan {
            limits,
            routes,
            models,
            other_models,
        } = plan;
        refuse(Some(limits), || place.clone())?;
        refuse(other_models.as_ref(), || {
            format!("{place}, model `otherwise`")
        })?;
        for (name, limits) in models {
            refuse(Some(limits), || format!("{place}, model `{name}`"))?;
        }
        for (key, limits) in routes {
            let key = parse(key)?;
            let place = || format!("{place}, route `{key}`");
            refuse(Some(limits), place)?;
            let none = Extensions::new();
            let taken_by = key
                .literal()
                .and_then(|(method, path)| *exempt.find(&Head::alone(method, &path, &none))?);
            if let Some(exempt) = taken_by {
                return Err(RulesError::OnExempt {
                    place: place(),
                    exempt: exempt.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Refuses exempt limits in a scope that more than one route has.
fn refuse(limits: Option<&Limits>, place: impl FnOnce() -> String) -> Result<(), RulesError> {
    match limits {
        Some(limits) if limits.access == Access::Exempt => {
            Err(RulesError::Exempt { place: place() })
        }
        _ => Ok(()),
    }
}
