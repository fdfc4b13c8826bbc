//! The look-up of a request: its route, its client and the client's plan, its model with the price, and its cost in
//! model tokens.
//!
//! # Invariants
//!
//! - **Every request has a route.** A request that matches no key has an undeclared route: its own while there is room,
//!   else a shared one.
//! - **No scope is dodged.** A request is charged on the limits of its client, its route and the total, and on those of
//!   all routes that it may match. Only the requests of an exempt route are counted by no scope.
//! - **Found once.** The limits of a request stay valid while its rules are in force: a waiting request keeps them, and
//!   looks them up again only under new rules.
//! - **Closures that identify a client, name a model or estimate tokens run here**, and nowhere else. No lock is held
//!   meanwhile, and nothing is charged yet.
//!
//! The decision calls it for a request that has arrived, or that waits under new rules. The preview calls it, too, and
//! so does the decision before the body, which identifies the client once more.

use std::{borrow::Cow, sync::Arc};

use super::{
    models::ModelRules,
    route_limits::RouteLimits,
    routes::{Route, UNDECLARED},
    rule_set::RuleSet,
};
use crate::{
    client::Resolver,
    facts::UnreadReason,
    head::RequestHead,
    limit::{model_class::ModelClass, token_class::TokenClass, token_demand::TokenDemand},
    limiter::{Outdated, limit_set::Demand},
    model::RequestClasses,
    observe,
    response::{Protocol, Rejection},
    route::{
        overlap::Shape,
        readings::{Head, Readings},
        undeclared::Sealed,
    },
    rules::PlanLimits,
};

/// The reason to look a request up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// A decision is to be made.
    Request,
    /// Somebody wants to know how it would be decided on. Nothing changes.
    Preview,
    /// The same before its body is read. Closures that may see the body do not run.
    BeforeBody,
}

/// The limits of the routes that a request may mean, before its model is looked at.
struct MatchedLimits<'a> {
    limits: Cow<'a, RouteLimits>,
    /// The models, if the requests of one of these routes have some.
    models: Option<MatchedModels<'a>>,
    /// The limits are those of one declared route.
    is_declared: bool,
}

/// The models of a request, for requests of its route have some.
#[derive(Clone, Copy)]
struct MatchedModels<'a> {
    rules: &'a ModelRules,
    /// The classes of the request, if they were found in the path. `None`: they are those in the demand.
    in_path: Option<RequestClasses>,
    /// The requests of all routes that the request may mean have models.
    is_on_all: bool,
}

impl<'a> MatchedModels<'a> {
    /// Unites the models of all routes that a request may mean.
    fn all(routes: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        let mut is_on_all = true;
        let models = routes
            .into_iter()
            .inspect(|models| is_on_all &= models.is_some());
        let united = models.fold(None, Self::united)?;
        Some(Self {
            is_on_all,
            ..united
        })
    }

    /// Unites the models of two routes that a request may mean. Where these differ, the model is not read.
    fn united(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) if one.in_path != other.in_path => Some(MatchedModels {
                in_path: Some(RequestClasses::UNREAD),
                ..one
            }),
            (one, other) => one.or(other),
        }
    }

    /// Returns the classes of the request: those in its path, or else in its demand.
    fn classes(&self, demand: &Demand) -> RequestClasses {
        let Demand {
            model, token_class, ..
        } = *demand;
        let classes = RequestClasses { model, token_class };
        let classes = self.in_path.unwrap_or(classes);
        match self.is_on_all {
            true => classes,
            // Nothing says which of the routes it means.
            false => RequestClasses {
                token_class: TokenClass::UNREAD,
                ..classes
            },
        }
    }
}

impl RuleSet {
    /// Returns the answer of the request's route, if it has one of its own: the first of its readings that has.
    pub(super) fn rejection(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
    ) -> Option<&Arc<dyn Rejection>> {
        let rejections = self.rejections.as_ref()?;
        let (uri, headers) = (request.uri(), request.headers());
        let head = Head::of(request.method(), uri, request.extensions());
        let (is_grpc, any_suffixes) = (is_grpc(protocol), self.any_suffixes);
        match Readings::of(&head, uri, headers, is_grpc, false, any_suffixes) {
            None => rejections.find(&head),
            Some(readings) => readings.iter().find_map(|it| rejections.find_as(&it)),
        }
    }

    /// Returns the limits that a request falls under, and writes what it asks of them to `demand`, which comes as its
    /// default: it is large, and is made where it lies. `protocol` is the layer's.
    ///
    /// This is where user code runs for a decision: it identifies the client, names the model and estimates the tokens.
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
    ) -> Result<Cow<'_, RouteLimits>, Outdated> {
        self.visit(request, protocol, Visit::Request, demand)
    }

    /// Returns the same without entering a route, and without counting what the request lacks.
    ///
    /// # Errors
    ///
    /// None, for it enters nothing. The result is that of [`look_up`](Self::look_up), with which it shares its code.
    pub(super) fn preview(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        demand: &mut Demand,
    ) -> Result<Cow<'_, RouteLimits>, Outdated> {
        self.visit(request, protocol, Visit::Preview, demand)
    }

    /// Looks a request up, in this order:
    ///
    /// 1. The class of its model, if the rules have models, and the client, whose plan has the variants. Plan 0 is that
    ///    of clients without one.
    /// 2. The routes that the request may mean, mostly one. A path that equals a literal key is found without a walk.
    /// 3. The variant of the plan on each route, and its limits.
    /// 4. The limits of the model beside them, if requests of one of these routes have models.
    /// 5. The tokens, only if one of these limits counts them: the estimate may be a closure of the user's.
    ///
    /// # Errors
    ///
    /// As [`look_up`](Self::look_up). The client may have been counted as unidentified by then, and is once more.
    fn visit(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        visit: Visit,
        demand: &mut Demand,
    ) -> Result<Cow<'_, RouteLimits>, Outdated> {
        let plan = self.plan_of(request, visit, demand);
        self.visit_for(request, protocol, plan, visit, demand)
    }

    /// Identifies the client and the model of a request, writes both to `demand`, and returns the client's plan. The
    /// first step of [`look_up`](Self::look_up). A model that is found in the path is known with the route alone.
    #[inline(always)]
    pub(super) fn identify(&self, request: RequestHead<'_>, demand: &mut Demand) -> &PlanLimits {
        self.plan_of(request, Visit::Request, demand)
    }

    #[inline(always)]
    fn plan_of(&self, request: RequestHead<'_>, visit: Visit, demand: &mut Demand) -> &PlanLimits {
        if let Some(models) = &self.models {
            let RequestClasses { model, token_class } = models.resolver.classes(request);
            (demand.model, demand.token_class) = (model, token_class);
        }
        match &self.resolver {
            Some(resolver) => self.client(resolver, request, visit, demand),
            None => &self.plans[0],
        }
    }

    /// Returns the limits of a request that means the route of a literal key and nothing else, and whose limits are
    /// plain, for a client that has the same limits on all routes. `None`: there may be more to it.
    ///
    /// A literal key is never less specific than a key at the other end of its path, and such a client's plan has no
    /// keys.
    #[inline(always)]
    pub(super) fn at_once(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        plan: &PlanLimits,
        model: ModelClass,
    ) -> Option<&RouteLimits> {
        let (uri, headers) = (request.uri(), request.headers());
        let head = Head::of(request.method(), uri, request.extensions());
        let literal = self.table.plain(&head).filter(|_| self.cost_by.is_none())?;
        let mut limits = literal.value.variants.get(plan.first)?.get()?;
        if model != ModelClass::NONE {
            limits = Self::at_once_of_model(literal.value, limits, model)?;
        }
        let is_one = plan.variants.len() == 1
            && limits.limit_set.is_plain
            && !literal.has_other_methods(&head, uri, headers, is_grpc(protocol));
        is_one.then_some(limits)
    }

    /// Returns the limits of a declared route for a class of models, given those whatever the model. `None`: they are
    /// not made yet, or there is more to it, such as a count.
    #[inline(never)]
    fn at_once_of_model<'a>(
        route: &Route,
        limits: &'a RouteLimits,
        model: ModelClass,
    ) -> Option<&'a RouteLimits> {
        match route.has_models {
            true if model == ModelClass::UNREAD => None,
            true => limits.of_model(model.position()?),
            false => Some(limits),
        }
    }

    /// Goes on with [`look_up`](Self::look_up) for a client that was identified.
    ///
    /// Looks for a literal key again, after [`at_once`](Self::at_once): passing on that result would cost requests that
    /// are decided at once more than it saves the others.
    ///
    /// # Errors
    ///
    /// Those of [`look_up`](Self::look_up).
    pub(super) fn look_up_for(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        plan: &PlanLimits,
        demand: &mut Demand,
    ) -> Result<Cow<'_, RouteLimits>, Outdated> {
        self.visit_for(request, protocol, plan, Visit::Request, demand)
    }

    /// Goes on with [`visit`](Self::visit) for a client that was identified.
    ///
    /// # Errors
    ///
    /// As there.
    fn visit_for(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        plan: &PlanLimits,
        visit: Visit,
        demand: &mut Demand,
    ) -> Result<Cow<'_, RouteLimits>, Outdated> {
        let MatchedLimits {
            mut limits,
            models,
            is_declared,
        } = self.of_routes(request, protocol, plan, visit)?;
        // Requests without a model have the price of all others, and the estimate for all.
        let mut token_class = TokenClass::OTHERWISE;
        if let Some(models) = models {
            let (rules, classes) = (models.rules, models.classes(demand));
            if classes.model == ModelClass::UNREAD && visit == Visit::Request {
                self.count_unread(rules, request, models.in_path.is_some());
            }
            if let Some(position) = classes.model.position() {
                limits = rules.limits(&limits, plan, position, is_declared);
            }
            token_class = classes.token_class;
        }
        demand.token_class = token_class;
        // Without its body a request may seem to cost more than it does.
        let cost_by = self.cost_by.as_ref();
        if let Some(cost_by) = cost_by.filter(|_| visit != Visit::BeforeBody) {
            let cost = cost_by.of(request).unwrap_or(1);
            limits = self.combined_limits.costing(limits, cost, is_declared);
        }
        if limits.limit_set.has_tokens {
            demand.tokens = self.estimator.tokens(request, token_class);
            demand.is_exact = self.estimator.is_exact();
        }
        Ok(limits)
    }

    /// Returns the limits of the routes that a request may mean, mostly one, whatever its model.
    ///
    /// # Errors
    ///
    /// As [`look_up`](Self::look_up).
    #[inline(always)]
    fn of_routes(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        plan: &PlanLimits,
        visit: Visit,
    ) -> Result<MatchedLimits<'_>, Outdated> {
        let (uri, headers) = (request.uri(), request.headers());
        let head = Head::of(request.method(), uri, request.extensions());
        // A path that equals a literal key and has one reading: most requests. Others may mean several routes.
        let literal = self.table.plain(&head).map(|literal| literal.value);
        let (is_grpc, is_plain) = (is_grpc(protocol), literal.is_some());
        let readings = Readings::of(&head, uri, headers, is_grpc, is_plain, self.any_suffixes);
        if let Some(readings) = readings {
            return self.all(&readings, plan, visit);
        }
        let declared = literal.or_else(|| self.table.beside_plain(&head));
        let route = match declared {
            Some(declared) => declared,
            None => self.undeclared(&head, visit)?,
        };
        let variant = variant_of(plan, || plan.routes.find(&head));
        let own = self.limits_of(route, plan, variant);
        let models = self.models_on(route, &head);
        Ok(match self.of_other_end(&head, route, plan, variant) {
            None => MatchedLimits {
                limits: Cow::Borrowed(own),
                models,
                is_declared: !route.undeclared,
            },
            Some((other_route, other)) => MatchedLimits {
                limits: self.combined_limits.get(&[own, other], !route.undeclared),
                models: MatchedModels::all([models, self.models_on(other_route, &head)]),
                is_declared: false,
            },
        })
    }

    /// Returns the limits of a request that are known before its body, if others or the number of its tokens are read
    /// from there. `None`: nothing is read from there. Writes to `demand` what is known. Enters nothing and counts
    /// nothing.
    ///
    /// The limits of its model are among them unless the model is in the body. Returns beside them whether the client
    /// and its plan are certain: a layer further in may find an identity, or the body a plan, where none is found here.
    pub(super) fn before_body(
        &self,
        request: RequestHead<'_>,
        protocol: Protocol,
        demand: &mut Demand,
    ) -> Option<(Cow<'_, RouteLimits>, bool)> {
        let models = self.models.as_ref();
        let by_body = models.is_some_and(|models| models.resolver.reads_body());
        let reads_tokens = self.estimator.reads_body();
        if !by_body && !reads_tokens {
            return None;
        }
        let plan = self.plan_of(request, Visit::BeforeBody, demand);
        let may_have_plan =
            plan.plan.is_none() && self.resolver.as_ref().is_some_and(Resolver::asks_for_plans);
        let is_certain = !demand.is_anonymous && !may_have_plan;
        // A preview enters nothing, and is never outdated.
        let (limits, needs_model) = match by_body {
            false => {
                let limits = self.visit_for(request, protocol, plan, Visit::BeforeBody, demand);
                (limits.ok()?, false)
            }
            true => {
                let found = self.of_routes(request, protocol, plan, Visit::BeforeBody);
                let found = found.ok()?;
                let is_exempt = found.limits.limit_set.exempt;
                match found.models {
                    Some(
                        models @ MatchedModels {
                            rules,
                            in_path: Some(_),
                            ..
                        },
                    ) => {
                        let classes = models.classes(demand);
                        let position = classes.model.position().unwrap_or(0);
                        let limits = rules.limits(&found.limits, plan, position, found.is_declared);
                        demand.token_class = classes.token_class;
                        (limits, false)
                    }
                    models => (found.limits, models.is_some() && !is_exempt),
                }
            }
        };
        let has_tokens = limits.limit_set.has_tokens;
        demand.tokens = match has_tokens && !reads_tokens {
            // The class matters where numbers are read from bodies alone.
            true => self.estimator.tokens(request, demand.token_class),
            false => TokenDemand::default(),
        };
        demand.is_exact = has_tokens && self.estimator.is_exact();
        (needs_model || reads_tokens && has_tokens).then_some((limits, is_certain))
    }

    /// Returns the limits of a request that may mean several routes: those of all of them, so that its spelling dodges
    /// none. Beside them the models, if the requests of one of these routes have some.
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
    ) -> Result<MatchedLimits<'_>, Outdated> {
        let mut all: Vec<&RouteLimits> = Vec::new();
        let mut is_declared = true;
        let mut models = Vec::new();
        for reading in readings.iter() {
            let route = match self.table.find_as(&reading) {
                Some(declared) => declared,
                None => self.undeclared(reading.head(), visit)?,
            };
            let variant = variant_of(plan, || plan.routes.find_as(&reading));
            is_declared &= !route.undeclared;
            let own = (route, self.limits_of(route, plan, variant));
            let other = self.of_other_end(reading.head(), route, plan, variant);
            for (route, limits) in std::iter::once(own).chain(other) {
                models.push(self.models_on(route, reading.head()));
                if !all.iter().any(|known| std::ptr::eq(*known, limits)) {
                    all.push(limits);
                }
            }
        }
        Ok(MatchedLimits {
            limits: self.combined_limits.get(&all, is_declared),
            models: MatchedModels::all(models),
            is_declared: false,
        })
    }

    /// Returns the second route that a request is charged on, and its limits there, since its host may take its path
    /// for the one with a slash more or less at its end. `None` if neither the rules nor the plan have a key there.
    #[inline(always)]
    fn of_other_end<'a>(
        &'a self,
        head: &Head<'_>,
        route: &'a Route,
        plan: &PlanLimits,
        variant: usize,
    ) -> Option<(&'a Route, &'a RouteLimits)> {
        let declared = self.table.of_other_end(head);
        let in_plan = plan.routes.of_other_end(head).copied();
        if declared.is_none() && in_plan.is_none() {
            return None;
        }
        let (route, variant) = (declared.unwrap_or(route), in_plan.unwrap_or(variant));
        Some((route, self.limits_of(route, plan, variant)))
    }

    /// Returns the models, if the requests of a route have some. `head` is of a request that matches the route.
    #[inline(always)]
    fn models_on(&self, route: &Route, head: &Head<'_>) -> Option<MatchedModels<'_>> {
        let rules = self.models.as_ref().filter(|models| models.has(route))?;
        let in_path = rules.classes_in_path(route, head);
        Some(MatchedModels {
            rules,
            in_path,
            is_on_all: true,
        })
    }

    /// Counts a request whose model was not read.
    #[cold]
    fn count_unread(&self, models: &ModelRules, request: RequestHead<'_>, is_in_path: bool) {
        self.unidentified.unread_models.add(1);
        if let Some(reason) = models.resolver.unread(request, is_in_path) {
            observe::unread_model(reason.as_str());
            if reason == UnreadReason::Absent {
                self.log.no_body_read();
            }
        }
    }

    /// Identifies the client, or the anonymous one, writes it to `demand`, and returns its plan. Counts and logs what
    /// the request or its setup lacks. Runs the user's closure, if a source of identities is one.
    #[inline(always)]
    fn client(
        &self,
        resolver: &Resolver,
        request: RequestHead<'_>,
        visit: Visit,
        demand: &mut Demand,
    ) -> &PlanLimits {
        let Some((identity, plan)) = resolver.at_once(request) else {
            return self.client_at_length(resolver, request, visit, demand);
        };
        demand.identity = identity.bits();
        self.limits_of_plan(plan)
    }

    /// [`client`](Self::client) for clients that may have a plan, or no identity.
    #[inline(never)]
    fn client_at_length(
        &self,
        resolver: &Resolver,
        request: RequestHead<'_>,
        visit: Visit,
        demand: &mut Demand,
    ) -> &PlanLimits {
        let client = resolver.resolve(request);
        if client.lacks_peer && visit == Visit::Request {
            self.unidentified.without_address.add(1);
            self.log.no_peer_address();
        }
        if client.lacks_plan && visit == Visit::Request {
            self.unidentified.unknown_plans.add(1);
            self.log.unknown_plan();
        }
        demand.identity = client.identity.bits();
        demand.is_anonymous = client.is_anonymous;
        self.limits_of_plan(client.plan)
    }

    /// Returns the limits of a plan by its number. `None`: those of clients on no plan.
    #[inline(always)]
    fn limits_of_plan(&self, plan: Option<usize>) -> &PlanLimits {
        &self.plans[plan.map_or(0, |plan| plan + 1)]
    }

    /// Returns whether the client of a request is identified, and not the anonymous one.
    pub(super) fn knows(&self, demand: Demand) -> bool {
        let resolver = self.resolver.as_ref();
        resolver.is_some_and(|resolver| resolver.anonymous().bits() != demand.identity)
    }

    /// Returns the limits of a route for a variant of a plan, which the first request makes. Others that ask meanwhile
    /// wait for it. `variant` is a number within the plan.
    #[inline(always)]
    fn limits_of<'a>(
        &'a self,
        route: &'a Route,
        plan: &PlanLimits,
        variant: usize,
    ) -> &'a RouteLimits {
        let make = || self.prepare(route, plan, variant);
        route.variants[plan.first + variant].get_or_init(make)
    }

    /// Returns the route of a request that no key matches, which it enters if it is the first and there is room.
    /// Without room, or where undeclared routes are not kept apart, it is one that others share.
    ///
    /// A route that is entered begins with what was used under lost keys, before any request is charged on it.
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
        if visit != Visit::Request {
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
            if let Some(store_client) = &self.store {
                store_client.add_present(&route.own);
            }
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

/// Returns whether all requests of a layer are gRPC.
#[inline(always)]
fn is_grpc(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Grpc)
}
