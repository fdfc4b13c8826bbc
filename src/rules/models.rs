//! The limits of models, for everybody and for each client.

use std::sync::Arc;

use super::{
    RulesError,
    names::{LimitNames, ScopeName, parse},
    registry::{Draft, ModelKey, ScopeKey},
};
use crate::{
    client::Plan,
    limit::limits::Limits,
    limiter::limit_set::BoundLimit,
    model::{ModelResolver, ModelResolverError, Models, NamePatternError, NamePatterns},
    route::{RouteKey, path_parameter::PathParameter},
};

/// The limits of models, by the position of each [class](crate::model::ModelClass).
#[derive(Debug)]
pub(crate) struct CompiledModels {
    pub(crate) resolver: ModelResolver,
    /// The keys of the routes whose requests have models. `None`: all routes.
    pub(crate) routes: Option<Vec<RouteKey>>,
    /// The name of each class.
    pub(crate) names: Vec<Arc<str>>,
    /// The limits of each class.
    pub(crate) limits: Vec<Vec<BoundLimit>>,
    /// The cost of a request of each class.
    pub(crate) costs: Vec<u64>,
}

/// The keys of models that were read, in the order of their positions, which begin with one.
pub(super) fn keys(models: &Models) -> Vec<ModelKey> {
    let named = models.models.iter();
    let named = named.map(|(name, _)| ModelKey::Named(name.as_ref().into()));
    [ModelKey::Other].into_iter().chain(named).collect()
}

/// Checks the limits of models, and notes the names in them.
pub(super) fn reserve_models(models: &Models, names: &mut LimitNames) -> Result<(), RulesError> {
    for (name, limits) in &models.models {
        names.reserve(limits, &place(&ModelKey::Named(name.as_ref().into())))?;
    }
    let others = [
        (ModelKey::Other, &models.otherwise),
        (ModelKey::Unread, &models.unread),
    ];
    for (key, limits) in others {
        if let Some(limits) = limits {
            names.reserve(limits, &place(&key))?;
        }
    }
    Ok(())
}

/// Names a model for errors.
pub(super) fn place(key: &ModelKey) -> String {
    format!("model `{}`", key.name())
}

pub(super) fn compile_models(
    models: &Models,
    token_names: Option<NamePatterns>,
    routes: &[&RouteKey],
    names: &mut LimitNames,
    draft: &mut Draft<'_>,
) -> Result<CompiledModels, RulesError> {
    let resolver = ModelResolver::new(models, token_names).map_err(|fault| match fault {
        #[cfg(feature = "config")]
        ModelResolverError::NoSource => RulesError::NoModelSource,
        ModelResolverError::Header(name) => RulesError::ModelHeader { name },
        ModelResolverError::Names(NamePatternError::Name(name)) => RulesError::ModelName { name },
        ModelResolverError::Names(NamePatternError::SameName(name)) => {
            RulesError::SameModel { name }
        }
    })?;
    let on = models.routes.iter().map(|key| {
        let key = parse(key)?;
        match routes.contains(&&key) {
            true => Ok(key),
            false => Err(RulesError::ModelRoute {
                key: key.to_string(),
            }),
        }
    });
    let on: Vec<_> = on.collect::<Result<_, _>>()?;
    if let Some(name) = resolver.path_param() {
        let has_it = |key: &RouteKey| PathParameter::of(key, name).is_some();
        let is_found = match on.is_empty() {
            true => routes.iter().any(|key| has_it(key)),
            false => on.iter().any(has_it),
        };
        if !is_found {
            let name = name.to_owned();
            return Err(RulesError::ModelParameter { name });
        }
    }
    let keys = keys(models);
    let nothing = Limits::new();
    let otherwise = models.otherwise.as_ref().unwrap_or(&nothing);
    let settings = models.models.iter().map(|(_, limits)| limits);
    let settings = [otherwise].into_iter().chain(settings);
    let cost = |limits: &Limits| limits.cost.unwrap_or(1);
    let costs: Vec<_> = settings.clone().map(cost).collect();
    let dearest = costs.iter().copied().max().unwrap_or(1);
    let unread_cost = models.unread.as_ref().and_then(|limits| limits.cost);
    let unread_cost = unread_cost.unwrap_or(dearest);
    let mut bind = |key: &ModelKey, limits: &Limits| {
        let limits = names.build(limits, ScopeName::Model(key));
        draft.bind(ScopeKey::Model(key.clone()), limits)
    };
    let read: Vec<_> = keys
        .iter()
        .zip(settings)
        .map(|(key, it)| bind(key, it))
        .collect();
    let unread = match &models.unread {
        Some(limits) => bind(&ModelKey::Unread, limits),
        None => unpublished(&read),
    };
    Ok(CompiledModels {
        resolver,
        routes: (!on.is_empty()).then_some(on),
        names: [ModelKey::Unread]
            .iter()
            .chain(&keys)
            .map(ModelKey::label)
            .collect(),
        limits: [unread].into_iter().chain(read).collect(),
        costs: [unread_cost].into_iter().chain(costs).collect(),
    })
}

/// Returns all limits together, for a request whose model was not read. They are not published: a header field would
/// name every model, and grow with their number.
fn unpublished(limits: &[Vec<BoundLimit>]) -> Vec<BoundLimit> {
    let mut all = limits.concat();
    for bound in &mut all {
        bound.limit.published = false;
    }
    all
}

/// Checks the limits of a plan on models, and notes the names in them.
pub(super) fn reserve_plan(
    plan: &Plan,
    models: Option<&Models>,
    place: &str,
    names: &mut LimitNames,
) -> Result<(), RulesError> {
    let mut earlier: Vec<&str> = Vec::new();
    for (name, limits) in &plan.models {
        let known = models.is_some_and(|models| models.models.iter().any(|(it, _)| *it == **name));
        if !known {
            return Err(RulesError::UnknownModel {
                place: place.to_owned(),
                name: name.to_string(),
            });
        }
        if earlier.contains(&&**name) {
            return Err(RulesError::SameModel {
                name: name.to_string(),
            });
        }
        earlier.push(name);
        names.reserve(limits, &format!("{place}, model `{name}`"))?;
    }
    match (&plan.other_models, models) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(RulesError::UnknownModel {
            place: place.to_owned(),
            name: ModelKey::Other.name().to_owned(),
        }),
        (Some(limits), Some(_)) => names.reserve(
            limits,
            &format!("{place}, model `{}`", ModelKey::Other.name()),
        ),
    }
}

/// Makes the limits of each client of a plan on each class of models, by its position. `each` has what the plan leaves
/// out.
pub(super) fn plan_models(
    name: Option<&str>,
    plan: &Plan,
    each: &Plan,
    models: &Models,
    names: &mut LimitNames,
    draft: &mut Draft<'_>,
) -> Vec<Vec<BoundLimit>> {
    let read = keys(models).into_iter().map(|key| {
        let own = limits_on(plan, &key);
        let inherited = limits_on(each, &key);
        let limits = match (own, inherited) {
            (None, None) => return Vec::new(),
            (own, inherited) => own.cloned().unwrap_or_default().or(inherited),
        };
        let limits = names.build(&limits, ScopeName::ClientsOnModel(name, &key));
        draft.bind(ScopeKey::ClientOnModel(name.map(Into::into), key), limits)
    });
    let read: Vec<_> = read.collect();
    let unread = unpublished(&read);
    [unread].into_iter().chain(read).collect()
}

/// Returns the limits that a plan sets on models.
fn limits_on<'a>(plan: &'a Plan, key: &ModelKey) -> Option<&'a Limits> {
    match key {
        ModelKey::Named(name) => {
            let mut models = plan.models.iter();
            let model = models.find(|(model, _)| **model == **name);
            model.map(|(_, limits)| limits)
        }
        ModelKey::Other => plan.other_models.as_ref(),
        ModelKey::Unread => None,
    }
}
