//! The rule set: the limits and their balances, as some rules have them.
//!
//! Compiled once by a reload and shared by all requests, it answers what a request is charged on: its route, its client
//! and the client's plan, and its cost in model tokens. It decides nothing and charges nothing.
//!
//! # Invariants
//!
//! - **It does not change**, but for what is made on first use: undeclared routes, the limits of a route for a plan,
//!   and combinations of limits. Each of these is written once, so that what a request has found stays as it was found.
//! - **Found once.** The limits that a request falls under are good for as long as these rules are in force: one that
//!   waits keeps them, and looks again only under other rules.
//! - **What outlives it is shared**: the limiter, the store, the log, the counters of unidentified clients, and the
//!   buckets of limits that stay. Dropping a rule set settles the counts of its limits and loses nothing.
//! - **Every request has a route.** One that no key matches has an undeclared one, of its own while there is room, or
//!   shared.
//! - **No scope is dodged.** A request is charged on the limits of its client, its route and the total, and on those of
//!   all routes that it may mean. An exempt route is the only one whose requests no scope counts.
//! - **Made whole or not at all.** [`RuleSet::new`] checks what only the rules before can tell, and touches the table
//!   of clients last: an error leaves everything as it was.
//!
//! # Who may call it
//!
//! The engine looks up what a request demands, and the [reload](super::reload) carries over what the rules before have
//! come by. Its fields are read all over the engine, and written in `new` alone.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    combined_limits::CombinedLimits,
    key_changes::KeyChanges,
    lost_keys::LostKeys,
    route_limits::{MatchedRoute, RouteLimits},
    routes::{Route, UNDECLARED, UndeclaredRoutes},
};
use crate::{
    client::{Client, RequestHead, Resolver},
    limiter::{
        Limiter, Outdated,
        client_table::ClientTable,
        counters::Unidentified,
        limit_set::{BoundLimit, Demand, LimitSet},
    },
    observe::Log,
    response::{Protocol, Rejection},
    route::{
        RouteKey,
        head::Head,
        overlap::Shape,
        overlaps::Overlaps,
        readings::Readings,
        table::Table,
        undeclared::{BoundedMap, Sealed},
    },
    rules::{Compiled, DeclaredRoute, LimitTemplate, PlanLimits, RulesError},
    store::client::StoreSlot,
    usage::Estimator,
};

/// The limits and their balances, as some rules have them.
pub(crate) struct RuleSet {
    /// The balances in this process and the waiting lines. The throttle's, whichever rules are in force.
    pub(crate) limiter: Arc<Limiter>,
    /// The store client, once there is one. The throttle's, too.
    pub(crate) store: StoreSlot,
    /// The limits of all requests together.
    pub(super) total: Vec<BoundLimit>,
    /// The limits of `default_route`, from which undeclared routes are made.
    pub(super) default: Vec<LimitTemplate>,
    /// The declared routes.
    pub(super) table: Table<Route>,
    /// The keys of the table, indexed by the next reload, which compares others with them.
    pub(super) overlaps: OnceLock<Overlaps>,
    /// The undeclared routes with buckets of their own. `None`: all of them share one.
    pub(super) undeclared: Option<UndeclaredRoutes>,
    /// The route of undeclared requests that share one bucket, and the model of those that have their own.
    pub(super) shared: Route,
    /// Stands for an undeclared route that nobody has asked for yet, which a preview does not enter. Never charged.
    fresh: OnceLock<Route>,
    /// The limits of requests that may mean several routes.
    pub(super) combined_limits: CombinedLimits,
    /// Identifies clients. `None`: no limit asks who a client is.
    pub(super) resolver: Option<Resolver>,
    /// The limits of clients: first of those without a plan, then of each plan. Never empty.
    pub(super) plans: Vec<PlanLimits>,
    /// Estimates the model tokens of a request. Asked only where they are limited.
    pub(super) estimator: Estimator,
    /// The answers of routes that have their own.
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

/// The reason to look a request up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// It is to be decided on.
    Request,
    /// Somebody wants to know how it would be decided on. Nothing changes.
    Preview,
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
            .field("estimator", &self.estimator)
            .field("rejections", &self.rejections.is_some())
            .finish_non_exhaustive()
    }
}

impl RuleSet {
    /// Makes the rule set of compiled rules, with the buckets of those limits of the rules `before` that stay. Nothing
    /// is handed over yet, and nothing is closed.
    ///
    /// # Errors
    ///
    /// Two keys for the same route, and what a throttle cannot change while it runs: the secret of clients, the size of
    /// their table, and clients without a secret where there is a store.
    pub(super) fn new(
        compiled: Compiled,
        limiter: &Arc<Limiter>,
        store: &StoreSlot,
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
            per_route,
            catch_all,
            resolver,
            plans,
            max_clients,
            estimator,
            rejections,
        } = compiled;
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
        for DeclaredRoute { key, own, exempt } in routes {
            let route = Route {
                exempt,
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
        if max_clients.is_some() && !has_secret && store.get().is_some() {
            return Err(RulesError::NoSecret);
        }
        // The last that may fail, for it makes the table.
        if let Some(max_clients) = max_clients {
            reserve(&limiter.memory, max_clients)?;
        }
        Ok(Self {
            limiter: Arc::clone(limiter),
            store: store.clone(),
            table,
            overlaps: OnceLock::new(),
            undeclared,
            shared: shared(before.map(|before| &before.shared)),
            fresh: OnceLock::new(),
            combined_limits: CombinedLimits::default(),
            total,
            default,
            resolver,
            plans,
            estimator,
            rejections,
            log: before.map_or_else(Arc::default, |before| Arc::clone(&before.log)),
            unidentified: before
                .map_or_else(Arc::default, |before| Arc::clone(&before.unidentified)),
            lost_keys: before.map_or_else(LostKeys::default, |before| {
                LostKeys::after(before, &key_changes, per_route, limiter.now())
            }),
            key_changes,
        })
    }

    /// Returns whether a store may keep these limits: other processes know the clients by the same names, or none is
    /// limited.
    pub(super) fn may_be_shared(&self) -> bool {
        let resolver = self.resolver.as_ref();
        resolver.is_none_or(|resolver| resolver.secret.is_some())
            || !self.plans.iter().any(PlanLimits::is_limited)
    }

    /// Returns the answer of the request's route, if it has one of its own: the first of its readings that has.
    pub(super) fn rejection(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
    ) -> Option<&Arc<dyn Rejection>> {
        let rejections = self.rejections.as_ref()?;
        let (uri, headers) = (request.uri(), request.headers());
        let head = Head::of(request.method(), uri, request.extensions());
        match Readings::of(
            &head,
            uri,
            headers,
            matches!(protocol, Protocol::Grpc),
            false,
        ) {
            None => rejections.find(&head),
            Some(readings) => readings.iter().find_map(|it| it.find(rejections)),
        }
    }

    /// Returns the limits that a request falls under, and writes what it asks of them to `demand`, which comes as its
    /// default: it is large, and is made where it lies. `protocol` is the layer's.
    ///
    /// This is where user code runs for a decision: it identifies the client and estimates the tokens.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if the request would enter an undeclared route, and a reload has sealed them: the caller yields and
    /// begins anew with the rules that are in force by then.
    #[inline(always)]
    pub(super) fn look_up(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        demand: &mut Demand,
    ) -> Result<MatchedRoute<'_>, Outdated> {
        self.visit(request, protocol, Visit::Request, demand)
    }

    /// Returns the same without entering a route, and without counting what the request lacks.
    pub(super) fn preview(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        demand: &mut Demand,
    ) -> Result<MatchedRoute<'_>, Outdated> {
        self.visit(request, protocol, Visit::Preview, demand)
    }

    #[inline(always)]
    fn visit(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        visit: Visit,
        demand: &mut Demand,
    ) -> Result<MatchedRoute<'_>, Outdated> {
        let (uri, headers) = (request.uri(), request.headers());
        let head = Head::of(request.method(), uri, request.extensions());
        let mut plan = 0;
        if let Some(resolver) = &self.resolver {
            let client = match visit {
                Visit::Request => self.client(resolver, request),
                Visit::Preview => resolver.resolve(request),
            };
            demand.identity = client.identity.bits();
            demand.is_anonymous = client.is_anonymous;
            plan = client.plan.map_or(0, |plan| plan + 1);
        }
        let plan = &self.plans[plan];
        // A path that equals a literal key and has one reading: most requests. Others may mean several routes.
        let plain = self.table.plain(&head);
        let is_grpc = matches!(protocol, Protocol::Grpc);
        let found = match Readings::of(&head, uri, headers, is_grpc, plain.is_some()) {
            None => {
                let route = match plain.or_else(|| self.table.beside_plain(&head)) {
                    Some(declared) => declared,
                    None => self.undeclared(&head, visit)?,
                };
                let variant = variant_of(plan, || plan.routes.find(&head));
                let own = self.prepared(route, plan, variant);
                match self.of_other_end(&head, route, plan, variant) {
                    None => MatchedRoute::Kept(own),
                    Some(other) => self.combined_limits.get(&[own, other], !route.undeclared),
                }
            }
            Some(readings) => self.all(&readings, plan, visit)?,
        };
        if found.limit_set.has_tokens {
            demand.tokens = self.estimator.tokens(request);
            demand.is_exact = self.estimator.is_exact();
        }
        Ok(found)
    }

    /// Returns the limits of a request that may mean several routes: those of all of them, so that its spelling dodges
    /// none.
    ///
    /// # Errors
    ///
    /// As [`look_up`](Self::look_up).
    #[cold]
    fn all(
        &self,
        readings: &Readings<'_>,
        plan: &PlanLimits,
        visit: Visit,
    ) -> Result<MatchedRoute<'_>, Outdated> {
        let mut all: Vec<&RouteLimits> = Vec::new();
        let mut is_declared = true;
        for reading in readings.iter() {
            let route = match reading.find(&self.table) {
                Some(declared) => declared,
                None => self.undeclared(reading.head(), visit)?,
            };
            let variant = variant_of(plan, || reading.find(&plan.routes));
            is_declared &= !route.undeclared;
            let own = self.prepared(route, plan, variant);
            let other = self.of_other_end(reading.head(), route, plan, variant);
            for prepared in std::iter::once(own).chain(other) {
                if !all.iter().any(|known| std::ptr::eq(*known, prepared)) {
                    all.push(prepared);
                }
            }
        }
        Ok(self.combined_limits.get(&all, is_declared))
    }

    /// Returns the limits of the second route that a request is charged on, since its host may take its path for the
    /// one with a slash more or less at its end. `None` if neither the rules nor the plan have a key there.
    #[inline]
    fn of_other_end<'a>(
        &'a self,
        head: &Head<'_>,
        route: &'a Route,
        plan: &PlanLimits,
        variant: usize,
    ) -> Option<&'a RouteLimits> {
        let declared = self.table.of_other_end(head);
        let in_plan = plan.routes.of_other_end(head).copied();
        if declared.is_none() && in_plan.is_none() {
            return None;
        }
        let (route, variant) = (declared.unwrap_or(route), in_plan.unwrap_or(variant));
        Some(self.prepared(route, plan, variant))
    }

    /// Identifies the client, or the anonymous one. Counts and logs what the request or its setup lacks.
    fn client(&self, resolver: &Resolver, head: RequestHead<'_>) -> Client {
        let client = resolver.resolve(head);
        if client.lacks_peer {
            self.unidentified.without_address.add(1);
            self.log.no_peer_address();
        }
        if client.lacks_plan {
            self.unidentified.unknown_plans.add(1);
            self.log.unknown_plan();
        }
        client
    }

    /// Returns whether the client of a request is identified, and not the anonymous one.
    pub(super) fn knows(&self, demand: Demand) -> bool {
        let resolver = self.resolver.as_ref();
        resolver.is_some_and(|resolver| resolver.anonymous().bits() != demand.identity)
    }

    /// Returns the limits of a route for a variant of a plan, which the first request makes.
    #[inline(always)]
    fn prepared<'a>(
        &'a self,
        route: &'a Route,
        plan: &PlanLimits,
        variant: usize,
    ) -> &'a RouteLimits {
        let make = || self.prepare(route, plan, variant);
        route.variants[plan.first + variant].get_or_init(make)
    }

    /// Makes the limits of a route for a variant of a plan: those of the client first, then the route's, then the
    /// total's. Limits that rest, since their scope is closed, are left out: the limit that closes it is there in their
    /// place.
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
        let limit_set = limit_set.counted_by(&route.counters);
        if !route.undeclared || std::ptr::eq(route, &self.shared) {
            return RouteLimits::new(&self.limiter, &self.store, limit_set);
        }
        // Undeclared routes have the same limits, so they share what is written beforehand.
        let shared = &self.shared.variants[plan.first + variant];
        let shared = shared.get_or_init(|| self.prepare(&self.shared, plan, variant));
        RouteLimits::of(&self.limiter, &self.store, limit_set, &shared.written)
    }

    /// Returns the route of a request that no key matches, which it enters if it is the first and there is room.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if the routes are sealed, and this one is not among them.
    fn undeclared(&self, head: &Head<'_>, visit: Visit) -> Result<&Route, Outdated> {
        let Some(undeclared) = &self.undeclared else {
            return Ok(&self.shared);
        };
        let template = head.template();
        let set = match template {
            Some(_) => &undeclared.templates,
            None => &undeclared.paths,
        };
        let hash = set.hash(head);
        if visit == Visit::Preview {
            return Ok(match set.find(hash) {
                Some(route) => route,
                None if set.is_full() => set.overflow(),
                None => self.fresh.get_or_init(|| {
                    let variants = self.shared.variants.len();
                    let default = &self.default;
                    Route::undeclared(UNDECLARED, UNDECLARED, default, None, true, variants)
                }),
            });
        }
        let route = set.get(hash, || {
            // The router's template names the route for people. A path is never told: it stays `$default`.
            let key = template.map(|path| format!("{} {path}", head.family()));
            let key = key.as_deref().unwrap_or(UNDECLARED);
            let place = template.is_none().then(|| self.place(head));
            let place = place.as_deref().unwrap_or(key);
            let variants = self.shared.variants.len();
            let route = Route {
                pattern: template.and_then(|_| key.parse().ok()),
                shape: (template.is_none())
                    .then(|| Arc::new(Shape::of(head, |segment| set.hash(&segment)))),
                ..Route::undeclared(key, place, &self.default, None, true, variants)
            };
            self.inherit_lost_keys(&route, set);
            route
        });
        route.map_err(|Sealed| Outdated)
    }

    /// Names a route without a template for a store: a hash of its path under the secret of the clients, if there is
    /// one: the same in all processes that have the same rules.
    fn place(&self, head: &Head<'_>) -> String {
        let route = format!("{} {}", head.family(), head.canonical());
        let secret = self.resolver.as_ref().and_then(|resolver| resolver.secret);
        let hash = secret.unwrap_or_default().of_path(&route);
        format!("{UNDECLARED} {hash:032x}")
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

/// Returns the number of the variant of a plan that a request has, given how to look its route up. Most plans have one,
/// for any route.
#[inline(always)]
fn variant_of<'a>(plan: &PlanLimits, route: impl FnOnce() -> Option<&'a usize>) -> usize {
    match plan.variants.len() {
        1 => 0,
        _ => route().copied().unwrap_or(0),
    }
}

/// Makes the table of clients, or checks that its size stays what it is.
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
