//! Settings of model tokens, where they are of use.

use std::collections::HashMap;

use super::{Rules, RulesError, names::parse};
use crate::{
    client::Plan,
    limit::limits::{Access, Limits},
    route::RouteKey,
};

/// Refuses [`Limits::max_tokens_per_request`] in scopes that limit no model tokens, and
/// [`Limits::cached_input_percent`] in those that count no input, for nothing would hold them; and [`Limits::spend`] in
/// rules without prices.
pub(super) fn check(rules: &Rules) -> Result<(), RulesError> {
    let has_prices = rules.prices.is_some();
    let default = rules.default_route.as_ref();
    if let Some(total) = &rules.total {
        limits_tokens(total, has_prices, || "the total".to_owned())?;
    }
    if let Some(default) = default {
        limits_tokens(default, has_prices, || "the default route".to_owned())?;
    }
    for (key, limits) in &rules.routes {
        limits_tokens(&limits.or(default), has_prices, || format!("route `{key}`"))?;
    }
    if let Some(models) = &rules.models {
        for (name, limits) in &models.models {
            limits_tokens(limits, has_prices, || format!("model `{name}`"))?;
        }
        for (name, limits) in [("otherwise", &models.otherwise), ("unread", &models.unread)] {
            if let Some(limits) = limits {
                limits_tokens(limits, has_prices, || format!("model `{name}`"))?;
            }
        }
    }
    let Some(clients) = &rules.clients else {
        return Ok(());
    };
    let nothing = Plan::default();
    let each = clients.each.as_ref().unwrap_or(&nothing);
    check_plan(each, &nothing, &HashMap::new(), has_prices, "each client")?;
    let mut on_routes = HashMap::new();
    for (key, limits) in &each.routes {
        on_routes.entry(parse(key)?).or_insert(limits);
    }
    for (name, plan) in &clients.plans {
        check_plan(
            plan,
            each,
            &on_routes,
            has_prices,
            &format!("plan `{name}`"),
        )?;
    }
    Ok(())
}

/// Checks a plan, with what it leaves out taken from `each` and its routes.
fn check_plan(
    plan: &Plan,
    each: &Plan,
    on_routes: &HashMap<RouteKey, &Limits>,
    has_prices: bool,
    place: &str,
) -> Result<(), RulesError> {
    limits_tokens(&plan.limits.or(Some(&each.limits)), has_prices, || {
        place.to_owned()
    })?;
    for (key, limits) in &plan.routes {
        let inherited = on_routes.get(&parse(key)?).copied();
        limits_tokens(&limits.or(inherited), has_prices, || {
            format!("{place}, route `{key}`")
        })?;
    }
    for (name, limits) in &plan.models {
        let mut inherited = each.models.iter();
        let inherited = inherited
            .find(|(it, _)| it == name)
            .map(|(_, limits)| limits);
        limits_tokens(&limits.or(inherited), has_prices, || {
            format!("{place}, model `{name}`")
        })?;
    }
    if let Some(limits) = &plan.other_models {
        let inherited = each.other_models.as_ref();
        limits_tokens(&limits.or(inherited), has_prices, || {
            format!("{place}, model `otherwise`")
        })?;
    }
    Ok(())
}

fn limits_tokens(
    limits: &Limits,
    has_prices: bool,
    place: impl Fn() -> String,
) -> Result<(), RulesError> {
    if !has_prices && !limits.spend.is_empty() {
        return Err(RulesError::NoPrices { place: place() });
    }
    let is_limited = limits.access == Access::Limited;
    match limits.reservation.max_tokens {
        Some(most) if is_limited && limits.token_rates().next().is_none() => {
            return Err(RulesError::NoTokens {
                place: place(),
                most,
            });
        }
        _ => {}
    }
    match limits.cached_input_percent {
        Some(percent) if percent > 100 => Err(RulesError::CachedInputPercent {
            place: place(),
            percent,
        }),
        Some(_) if is_limited && limits.tokens.is_empty() && limits.input_tokens.is_empty() => {
            Err(RulesError::NoCachedInput { place: place() })
        }
        _ => Ok(()),
    }
}
