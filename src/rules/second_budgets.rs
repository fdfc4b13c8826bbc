//! Second budgets that no request is ever charged to.

use std::collections::HashMap;

use super::Rules;
use crate::{
    client::Plan,
    limit::limits::{Access, Limits},
};

/// Returns the places whose second budgets are never used, in the order of the rules: of limits that refuse nothing, or
/// that are closed, with what they inherit.
pub(super) fn unused(rules: &Rules) -> Vec<String> {
    let mut places = Vec::new();
    let mut look = |limits: &Limits, place: &dyn Fn() -> String| {
        let is_open = limits.access == Access::Limited && !limits.is_closed();
        if limits.degrade.is_some() && !(is_open && limits.enforces_anything()) {
            places.push(place());
        }
    };
    let default = rules.default_route.as_ref();
    if let Some(total) = &rules.total {
        look(total, &|| "the total".to_owned());
    }
    if let Some(default) = default {
        look(default, &|| "the default route".to_owned());
    }
    for (key, limits) in &rules.routes {
        look(&limits.or(default), &|| format!("route `{key}`"));
    }
    if let Some(models) = &rules.models {
        let named = models.models.iter().map(|(name, limits)| (&**name, limits));
        let others = [("otherwise", &models.otherwise), ("unread", &models.unread)];
        let others = others.into_iter();
        let others = others.filter_map(|(name, limits)| Some((name, limits.as_ref()?)));
        for (name, limits) in named.chain(others) {
            look(limits, &|| format!("model `{name}`"));
        }
    }
    let Some(clients) = &rules.clients else {
        return places;
    };
    let nothing = Plan::default();
    let each = clients.each.as_ref().unwrap_or(&nothing);
    let plans = clients.plans.iter();
    let plans = plans.map(|(name, plan)| (format!("plan `{name}`"), plan, each));
    for (place, plan, each) in [("each client".to_owned(), each, &nothing)]
        .into_iter()
        .chain(plans)
    {
        look(&plan.limits.or(Some(&each.limits)), &|| place.clone());
        let on_routes: HashMap<&str, &Limits> = of_each(&each.routes);
        for (key, limits) in &plan.routes {
            let limits = limits.or(on_routes.get(&**key).copied());
            look(&limits, &|| format!("{place}, route `{key}`"));
        }
        let on_models: HashMap<&str, &Limits> = of_each(&each.models);
        for (name, limits) in &plan.models {
            let limits = limits.or(on_models.get(&**name).copied());
            look(&limits, &|| format!("{place}, model `{name}`"));
        }
        if let Some(limits) = &plan.other_models {
            let limits = limits.or(each.other_models.as_ref());
            look(&limits, &|| format!("{place}, model `otherwise`"));
        }
    }
    places
}

fn of_each<N: AsRef<str>>(all: &[(N, Limits)]) -> HashMap<&str, &Limits> {
    let all = all.iter();
    all.map(|(name, limits)| (name.as_ref(), limits)).collect()
}
