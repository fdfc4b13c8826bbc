//! From rules as written to limits with names and buckets.

use std::{borrow::Cow, sync::Arc};

use super::{
    Rules, RulesError, Undeclared, costs, estimates, exempt,
    models::{CompiledModels, compile_models, reserve_models},
    names::{LimitNames, ScopeName, parse},
    plans::{PlanLimits, plans, reserve_clients, resolver},
    prices::compile_prices,
    registry::{Draft, LimitTemplate, ScopeKey},
    request_cost::RequestCost,
    settings::Settings,
    token_classes::TokenClasses,
    tokens,
};
use crate::{
    client::Resolver,
    limit::{limits::Access, route_settings::RouteSettings},
    limiter::limit_set::BoundLimit,
    response::{Rejection, Rejections},
    route::{CatchAll, RouteKey, table::Table},
    usage::Estimator,
};

/// Rules that hold together.
pub(crate) struct Compiled {
    pub(crate) total: Vec<BoundLimit>,
    pub(crate) routes: Vec<DeclaredRoute>,
    /// The templates from which the limits of routes without a key are made.
    pub(crate) default: Vec<LimitTemplate>,
    /// The settings of such a route.
    pub(crate) default_settings: RouteSettings,
    /// The closure that states the cost of a request.
    pub(crate) cost_by: Option<RequestCost>,
    /// True if each route without a key gets buckets of its own.
    pub(crate) per_route: bool,
    /// The requests that `$default` takes.
    pub(crate) catch_all: CatchAll,
    /// `None`: nobody asks who it is.
    pub(crate) resolver: Option<Resolver>,
    /// Clients without a plan, then each plan. At least one.
    pub(crate) plans: Vec<PlanLimits>,
    /// The most buckets of clients that are kept. `None` if clients have no limits.
    pub(crate) max_clients: Option<usize>,
    pub(crate) estimator: Estimator,
    /// `None`: requests are not charged by model.
    pub(crate) models: Option<CompiledModels>,
    /// Answers of single routes. `None` if there are none.
    pub(crate) rejections: Option<Table<Arc<dyn Rejection>>>,
}

/// A route with a key of its own.
pub(crate) struct DeclaredRoute {
    pub(crate) key: RouteKey,
    pub(crate) own: Vec<BoundLimit>,
    pub(crate) settings: RouteSettings,
    /// No scope counts its requests.
    pub(crate) exempt: bool,
}

impl Rules {
    /// Makes limits with their balances, as far as they are in the registry that the draft follows.
    pub(crate) fn compile(&self, draft: &mut Draft<'_>) -> Result<Compiled, RulesError> {
        compile(self, draft)
    }
}

fn compile(rules: &Rules, draft: &mut Draft<'_>) -> Result<Compiled, RulesError> {
    // Exhaustive, so that a new field is thought about here.
    let Rules {
        total,
        default_route,
        routes,
        undeclared,
        catch_all,
        models,
        clients,
        estimate,
        prices,
        cost_by,
        rejections,
    } = rules;
    draft.note(Settings::of(rules));
    let keys = routes.iter().map(|(key, _)| parse(key));
    let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
    exempt::check(rules, &keys)?;
    tokens::check(rules)?;
    let price_names = prices.as_ref().map(|prices| names_of(&prices.models));
    let prices = prices.as_ref();
    let prices = prices.map(|prices| compile_prices(prices, models.is_some()));
    let prices = prices.transpose()?;
    estimates::check_names(estimate, models.is_some())?;
    let classes = TokenClasses::new(price_names.as_deref(), &names_of(&estimate.models));
    let prices = prices.map(|prices| Arc::new(prices.by_class(&classes.prices)));
    let mut names = LimitNames::new(prices);
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
        reserve_clients(clients, models.as_ref(), &mut names)?;
    }
    if let Some(models) = models {
        reserve_models(models, &mut names)?;
    }

    let build_total = |limits| names.build(limits, ScopeName::Total);
    let total = total.iter().flat_map(build_total).collect();
    let total = draft.bind(ScopeKey::Total, total);
    let build_default = |limits| names.build(limits, ScopeName::Default);
    let default: Vec<_> = default_route.iter().flat_map(build_default).collect();
    let default_settings = default_route
        .as_ref()
        .map_or_else(RouteSettings::default, |limits| {
            RouteSettings::of(limits, RouteSettings::default())
        });
    let mut compiled = Vec::with_capacity(keys.len());
    for (key, (_, limits)) in keys.into_iter().zip(routes) {
        let own = if limits.inherits_all() && default_route.is_some() {
            default.clone()
        } else {
            names.build(&limits.or(default_route.as_ref()), ScopeName::Route(&key))
        };
        let place = ScopeKey::Route(key.clone());
        compiled.push(DeclaredRoute {
            key,
            own: draft.bind(place, own),
            settings: RouteSettings::of(limits, default_settings),
            exempt: limits.access == Access::Exempt,
        });
    }
    let default = draft.bind_default(default);
    let declared: Vec<_> = compiled.iter().map(|route| &route.key).collect();
    let on_models = |models| compile_models(models, classes.names, &declared, &mut names, draft);
    let compiled_models = models.as_ref().map(on_models).transpose()?;

    let plans = match clients {
        None => vec![PlanLimits::unlimited()],
        Some(clients) => plans(clients, models.as_ref(), *catch_all, &mut names, draft)?,
    };
    costs::check(rules, &total, &plans)?;
    // Nobody looks into the table where clients have no limits.
    let limited = plans.iter().any(PlanLimits::is_limited);
    let max_clients = clients.as_ref().map(|clients| clients.max_clients);
    Ok(Compiled {
        total,
        routes: compiled,
        per_route: *undeclared == Undeclared::PerRoute && !default.is_empty(),
        default,
        default_settings,
        cost_by: cost_by.clone(),
        catch_all: *catch_all,
        resolver: clients.as_ref().map(resolver).transpose()?,
        plans,
        max_clients: max_clients.filter(|_| limited),
        models: compiled_models,
        estimator: estimates::compile_estimate(estimate, &classes.estimates)?,
        rejections: compile_rejections(rejections)?,
    })
}

/// Returns the names of models that have settings of their own.
fn names_of<'a, T>(models: &'a [(Cow<'static, str>, T)]) -> Vec<&'a str> {
    models.iter().map(|(name, _)| &**name).collect()
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
