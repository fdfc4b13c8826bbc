//! The rule set: the limits and balances of some rules.
//!
//! A reload compiles it once, and all requests share it. It has everything that a request may be charged on: routes,
//! plans of clients, and the total. It decides nothing and charges nothing.
//!
//! # Invariants
//!
//! - **Immutable**, except for parts made on first use: undeclared routes, the limits of a route for a plan, and
//!   combinations of limits. Each of these is written once, so that limits found by a request never change.
//! - **Lasting parts are shared**: the limiter, the store, the log, the counters of unidentified clients, and the
//!   buckets of limits that stay. Dropping a rule set settles the counts of its limits and loses nothing.
//! - **Made whole or not at all.** [`RuleSet::new`] checks conditions that depend on the previous rules, and changes
//!   the table of clients last: an error leaves everything as it was.
//!
//! # Who may call it
//!
//! The [look-up](super::look_up) finds the limits of a request, and the [reload](super::reload) carries over the state
//! of the previous rules. The whole engine reads its fields; only `new` writes them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    combined_limits::CombinedLimits,
    key_changes::KeyChanges,
    lost_keys::LostKeys,
    models::ModelRules,
    route_limits::RouteLimits,
    routes::{Route, UNDECLARED, UndeclaredRoutes},
};
use crate::{
    client::Resolver,
    limit::route_settings::RouteSettings,
    limiter::{
        Limiter,
        client_table::ClientTable,
        counters::Unidentified,
        limit_set::{BoundLimit, LimitSet},
    },
    observe::Log,
    response::Rejection,
    route::{RouteKey, overlaps::Overlaps, table::Table, undeclared::BoundedMap},
    rules::{Compiled, DeclaredRoute, LimitTemplate, PlanLimits, RequestCost, RulesError},
    store::client::StoreClient,
    usage::Estimator,
};

/// The limits and their balances, as some rules have them.
pub(crate) struct RuleSet {
    /// The balances in this process and the waiting lines. The throttle's, whichever rules are in force.
    pub(crate) limiter: Arc<Limiter>,
    /// The client of the store where balances are kept. The throttle's, too. `None`: they are kept in this process.
    pub(crate) store: Option<Arc<StoreClient>>,
    /// The limits of all requests together.
    pub(super) total: Vec<BoundLimit>,
    /// The limits of `default_route`, from which undeclared routes are made.
    pub(super) default: Vec<LimitTemplate>,
    /// The settings of an undeclared route.
    pub(super) default_settings: RouteSettings,
    /// The closure that states the cost of a request.
    pub(super) cost_by: Option<RequestCost>,
    /// The declared routes.
    pub(super) table: Table<Route>,
    /// True if a key of the table, of a plan or of an answer has a literal after a parameter: escapes then have more
    /// readings.
    pub(super) any_suffixes: bool,
    /// The keys of the table, indexed by the next reload, which compares others with them.
    pub(super) overlaps: OnceLock<Overlaps>,
    /// The undeclared routes with buckets of their own. `None`: all of them share one.
    pub(super) undeclared: Option<UndeclaredRoutes>,
    /// The route of undeclared requests that share one bucket, and the model of those that have their own.
    pub(super) shared: Route,
    /// Stands for an undeclared route that nobody has asked for yet, which a preview does not enter. Never charged.
    pub(super) fresh: OnceLock<Route>,
    /// The limits of requests that may mean several routes.
    pub(super) combined_limits: CombinedLimits,
    /// Identifies clients. `None`: no limit asks who a client is.
    pub(super) resolver: Option<Resolver>,
    /// The limits of clients: first of those without a plan, then of each plan. Never empty.
    pub(super) plans: Vec<PlanLimits>,
    /// The models that requests are charged by. `None`: they are not charged by model.
    pub(super) models: Option<ModelRules>,
    /// Estimates the model tokens of a request. Asked only where they are limited.
    pub(super) estimator: Estimator,
    /// The answers of routes that have their own. `None`: no route has, and nothing is looked up.
    pub(super) rejections: Option<Table<Arc<dyn Rejection>>>,
    /// The throttle's, whichever rules are in force.
    pub(super) log: Arc<Log>,
    /// The counts of clients that could not be identified as the rules want it. The throttle's, too.
    pub(super) unidentified: Arc<Unidentified>,
    /// The keys that these rules have and those before had not, and the other way.
    pub(super) key_changes: KeyChanges,
    /// The routes that have lost their keys, now or earlier, and are not spent.
    pub(super) lost_keys: LostKeys,
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleSet")
            .field("limiter", &self.limiter)
            .field("total", &self.total)
            .field("default", &self.default)
            .field("table", &self.table)
            .field("resolver", &self.resolver)
            .field("plans", &self.plans)
            .field("models", &self.models)
            .field("estimator", &self.estimator)
            .field("rejections", &self.rejections.is_some())
            .finish_non_exhaustive()
    }
}

impl RuleSet {
    /// Makes the rule set of compiled rules, with the buckets of those limits of the rules `before` that stay. Nothing
    /// is handed over yet, and nothing is closed. Without `before` these are the first rules, and all buckets are full.
    ///
    /// # Errors
    ///
    /// Two keys for the same route, and what a throttle cannot change while it runs: the secret of clients, the size of
    /// their table, and clients without a secret where there is a store. Also a table for which there is no memory.
    pub(super) fn new(
        compiled: Compiled,
        limiter: &Arc<Limiter>,
        store: &Option<Arc<StoreClient>>,
        log: &Arc<Log>,
        before: Option<(&Arc<Self>, KeyChanges)>,
    ) -> Result<Self, RulesError> {
        let (before, key_changes) = match before {
            Some((before, key_changes)) => (Some(before), key_changes),
            None => (None, KeyChanges::default()),
        };
        let Compiled {
            total,
            routes,
            default,
            default_settings,
            cost_by,
            per_route,
            catch_all,
            resolver,
            plans,
            max_clients,
            estimator,
            models,
            rejections,
        } = compiled;
        let models = models.map(ModelRules::new);
        let variants = plans.iter().map(|plan| plan.variants.len()).sum();
        // A key's route goes on with the counters of the route that had its requests: the same key, or an undeclared
        // route.
        let known = before.iter().flat_map(|before| before.table.values());
        let known: HashMap<&str, &Route> = known.map(|route| (&*route.key, route)).collect();
        let named = before.map(|before| before.named_by_key());
        let named = named.unwrap_or_default();
        let route = |key: &RouteKey, own| {
            let known = known.get(key.as_str()).copied();
            let known = known.or_else(|| before?.undeclared_as(key, &named));
            Route::new(key.as_str(), own, known, variants)
        };
        let mut table = Table::new();
        table.catch_all(catch_all);
        for DeclaredRoute {
            key,
            own,
            settings,
            exempt,
        } in routes
        {
            let models_on = models.as_ref().filter(|models| models.is_on(&key));
            let route = Route {
                exempt,
                settings,
                has_models: models_on.is_some() && !exempt,
                model_parameter: models_on.and_then(|models| models.parameter_of(&key)),
                pattern: Some(key.clone()),
                ..route(&key, own)
            };
            table
                .insert(&key, route)
                .map_err(|first| RulesError::SameRoute {
                    first: first.key.to_string(),
                    second: key.to_string(),
                })?;
        }
        // Set if undeclared routes get buckets of their own by this reload, or lose them: then all of them begin anew.
        let changes =
            before.is_some_and(|before: &Arc<Self>| before.undeclared.is_some() != per_route);
        let begins_anew = changes || !key_changes.is_empty();
        let shared = |before: Option<&Route>| {
            Route::undeclared(
                UNDECLARED,
                UNDECLARED,
                &default,
                before,
                begins_anew,
                variants,
            )
        };
        let undeclared = per_route.then(|| {
            let before = before.and_then(|before| before.undeclared.as_ref());
            UndeclaredRoutes {
                templates: BoundedMap::after(before.map(|before| &before.templates), shared),
                paths: BoundedMap::after(before.map(|before| &before.paths), shared),
            }
        });
        // Balances of clients are found by the hash of a client, which the secret is a part of.
        if let (Some(before), Some(resolver)) = (before, &resolver) {
            let known = before.resolver.as_ref();
            if known.is_some_and(|known| known.secret != resolver.secret) {
                return Err(RulesError::SecretFixed);
            }
        }
        let has_secret = resolver
            .as_ref()
            .is_some_and(|resolver| resolver.secret.is_some());
        // Without a secret each process hashes clients in its own way, and a store would not know them by the same
        // names.
        if max_clients.is_some() && !has_secret && store.is_some() {
            return Err(RulesError::NoSecret);
        }
        // The last that may fail, for it makes the table.
        if let Some(max_clients) = max_clients {
            reserve(&limiter.clients, max_clients)?;
        }
        let any_suffixes = table.any_suffixes()
            || plans.iter().any(|plan| plan.routes.any_suffixes())
            || rejections.as_ref().is_some_and(Table::any_suffixes);
        Ok(Self {
            limiter: Arc::clone(limiter),
            store: store.clone(),
            table,
            any_suffixes,
            overlaps: OnceLock::new(),
            undeclared,
            shared: shared(before.map(|before| &before.shared)),
            fresh: OnceLock::new(),
            combined_limits: CombinedLimits::default(),
            total,
            default,
            default_settings,
            cost_by,
            resolver,
            plans,
            estimator,
            models,
            rejections,
            log: Arc::clone(log),
            unidentified: before
                .map_or_else(Arc::default, |before| Arc::clone(&before.unidentified)),
            lost_keys: before.map_or_else(LostKeys::default, |before| {
                let now = limiter.now();
                LostKeys::after(before, &key_changes, catch_all, per_route, now)
            }),
            key_changes,
        })
    }

    /// Makes the limits of a route for a variant of a plan: those of the client first, then the route's, then the
    /// total's. Limits that rest, since their scope is closed, are left out: the limit that closes it is there in their
    /// place. `variant` is a number within the plan.
    #[cold]
    pub(super) fn prepare(&self, route: &Route, plan: &PlanLimits, variant: usize) -> RouteLimits {
        if route.exempt {
            let limit_set = LimitSet::exempt(route.key.clone()).counted_by(&route.counters);
            return RouteLimits::new(&self.limiter, &self.store, limit_set);
        }
        let clients = plan.variants[variant].iter();
        let limits = clients.chain(&route.own).chain(&self.total);
        // The most specific first, as a set of limits takes them.
        let limits = limits.filter(|bound| !bound.rests);
        let limit_set = LimitSet::new(route.key.clone(), plan.plan.clone(), limits.cloned());
        let settings = match route.undeclared {
            true => self.default_settings,
            false => route.settings,
        };
        let limit_set = limit_set
            .with_settings(settings)
            .counted_by(&route.counters);
        if !route.undeclared || std::ptr::eq(route, &self.shared) {
            return RouteLimits::new(&self.limiter, &self.store, limit_set);
        }
        // Undeclared routes have the same limits, so they share what is written beforehand.
        let shared = &self.shared.variants[plan.first + variant];
        let shared = shared.get_or_init(|| self.prepare(&self.shared, plan, variant));
        RouteLimits::of(&self.limiter, &self.store, limit_set, &shared.templates)
    }

    /// Makes the same undeclared route under these rules, from the rules `before`. One that `begins_anew` has other
    /// buckets, for keys take some of its requests or give it some.
    pub(super) fn undeclared_route(&self, before: &Route, begins_anew: bool) -> Route {
        let Route { key, place, .. } = before;
        let variants = self.shared.variants.len();
        let default = &self.default;
        Route {
            pattern: before.pattern.clone(),
            shape: before.shape.clone(),
            ..Route::undeclared(key, place, default, Some(before), begins_anew, variants)
        }
    }
}

/// Makes the table of clients, or checks that its size stays what it is.
///
/// # Errors
///
/// [`RulesError::MaxClientsFixed`] if it has another size already, [`RulesError::MaxClients`] if there is no memory.
fn reserve(memory: &ClientTable, max_clients: usize) -> Result<(), RulesError> {
    match memory.capacity() {
        Some(present) if present != max_clients => Err(RulesError::MaxClientsFixed {
            max_clients,
            present,
        }),
        _ => memory
            .reserve(max_clients)
            .map_err(|_| RulesError::MaxClients { max_clients }),
    }
}
