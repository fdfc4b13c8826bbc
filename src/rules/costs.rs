//! Costs of requests, and where the settings of single routes may stand.

use super::{
    Rules, RulesError, models::place as place_of_model, plans::PlanLimits, registry::ModelKey,
};
use crate::{
    client::Plan,
    limit::{Scope, Unit, limits::Limits},
    limiter::limit_set::BoundLimit,
};

/// Refuses settings of routes elsewhere, [`Limits::cost`] where no request is of the scope alone, a cost of zero, and one
/// above what a limit of the total or of the clients on a plan holds.
pub(super) fn check(
    rules: &Rules,
    total: &[BoundLimit],
    plans: &[PlanLimits],
) -> Result<(), RulesError> {
    check_places(rules)?;
    let routes = rules.routes.iter();
    let routes = routes.map(|(key, limits)| (format!("route `{key}`"), limits));
    let default = rules.default_route.iter();
    let default = default.map(|limits| ("the default route".to_owned(), limits));
    let models = rules.models.iter().flat_map(|models| {
        let named = models.models.iter();
        let named = named.map(|(name, limits)| (format!("model `{name}`"), limits));
        let others = [
            (ModelKey::Other, &models.otherwise),
            (ModelKey::Unread, &models.unread),
        ];
        let others = others.into_iter();
        named.chain(
            others.filter_map(|(key, limits)| Some((place_of_model(&key), limits.as_ref()?))),
        )
    });
    let of_clients = plans.iter().flat_map(|plan| plan.variants.iter().flatten());
    let of_clients = of_clients.filter(|bound| bound.limit.scope == Scope::Client);
    let limits: Vec<&BoundLimit> = total.iter().chain(of_clients).collect();
    for (place, Limits { cost, .. }) in default.chain(routes).chain(models) {
        let Some(cost) = *cost else { continue };
        if cost == 0 {
            return Err(RulesError::NoCost { place });
        }
        let counts = limits
            .iter()
            .filter(|bound| bound.limit.settings.unit() == Unit::Requests);
        for bound in counts {
            let capacity = bound.limit.meter.map_or(u64::MAX, |meter| meter.capacity());
            if cost > capacity {
                return Err(RulesError::CostAbove {
                    place,
                    cost,
                    limit: bound.limit.name.to_string(),
                    capacity,
                });
            }
        }
    }
    Ok(())
}

/// Returns the setting that only routes have, if there is one.
fn of_routes(limits: &Limits) -> Option<&'static str> {
    let settings = [
        ("keep", limits.keep),
        ("refund_failures", limits.refund_failures),
        ("usage_from_answers", limits.usage_from_answers),
    ];
    let mut settings = settings.into_iter();
    settings.find_map(|(name, value)| value.map(|_| name))
}

fn check_places(rules: &Rules) -> Result<(), RulesError> {
    if let Some(models) = &rules.models {
        let named = models.models.iter();
        let named = named.map(|(name, limits)| (format!("model `{name}`"), Some(limits)));
        let others = [
            (place_of_model(&ModelKey::Other), models.otherwise.as_ref()),
            (place_of_model(&ModelKey::Unread), models.unread.as_ref()),
        ];
        for (place, limits) in named.chain(others) {
            if let Some(setting) = limits.and_then(of_routes) {
                return Err(RulesError::RouteSetting { place, setting });
            }
        }
    }
    let refuse = |limits: &Limits, place: &dyn Fn() -> String| {
        let place = || place();
        match (limits.cost, of_routes(limits)) {
            (Some(_), _) => Err(RulesError::CostPlace { place: place() }),
            (None, Some(setting)) => Err(RulesError::RouteSetting {
                place: place(),
                setting,
            }),
            (None, None) => Ok(()),
        }
    };
    if let Some(total) = &rules.total {
        refuse(total, &|| "the total".to_owned())?;
    }
    let Some(clients) = &rules.clients else {
        return Ok(());
    };
    let each = clients
        .each
        .iter()
        .map(|plan| ("each client".to_owned(), plan));
    let plans = clients.plans.iter();
    let plans = plans.map(|(name, plan)| (format!("plan `{name}`"), plan));
    for (place, plan) in each.chain(plans) {
        let Plan {
            limits,
            routes,
            models,
            other_models,
        } = plan;
        refuse(limits, &|| place.clone())?;
        for (key, limits) in routes {
            refuse(limits, &|| format!("{place}, route `{key}`"))?;
        }
        for (name, limits) in models {
            refuse(limits, &|| format!("{place}, model `{name}`"))?;
        }
        if let Some(limits) = other_models {
            refuse(limits, &|| {
                format!("{place}, model `{}`", ModelKey::Other.name())
            })?;
        }
    }
    Ok(())
}
