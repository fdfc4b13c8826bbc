//! What all services of a layer share: the limits with their balances, and how answers are given.

mod live;

use std::{
    collections::HashMap,
    fmt, mem,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, Response};

pub(crate) use self::live::Live;
use crate::{
    admission::Admission,
    client::{RequestHead, Roster},
    clock::Nanos,
    decision::{Decision, Denial},
    levels::Levels,
    limiter::{Limiter, Outdated},
    observe::{Log, Meters},
    options::Options,
    response::{Rejection, Written, fields::Fields},
    route::{head::Head, table::Table, undeclared::Undeclared},
    rule::{Asked, Binding, Rule},
    rules::{Class, Compiled, RulesError, Template},
    store::Memory,
    tally::Tally,
    usage::{Estimator, Usage},
};

/// What all services of a layer share. Cloned only while a layer is being set up.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) live: Arc<Live>,
    pub(crate) options: Options,
}

/// What a request that was admitted goes on with.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) admission: Admission,
    /// The fields of its response.
    pub(crate) fields: Option<Fields>,
    /// Whether what it has used is to be found in its answer.
    pub(crate) reads_answer: bool,
}

/// A decision, before it is told: what was asked, and what the buckets held.
#[derive(Debug)]
pub(crate) struct Decided<'a> {
    /// By what it was decided.
    pub(crate) state: &'a State,
    pub(crate) asked: Asked,
    /// When the request came.
    pub(crate) arrived: Nanos,
    /// When it was decided on.
    pub(crate) now: Nanos,
    /// Taken if they are told.
    pub(crate) levels: &'a mut Levels,
}

impl Shared {
    /// Has an admitted request carry what its handler may want to know, and gives what its response goes on with.
    #[inline(always)]
    pub(crate) fn admitted<B>(
        &self,
        request: &mut Request<B>,
        prepared: &Prepared,
        decided: Decided<'_>,
    ) -> Admitted {
        let Decided {
            state,
            asked,
            arrived,
            now,
            levels,
        } = decided;
        let Prepared {
            rule,
            written,
            meters,
        } = prepared;
        let options = &self.options;
        rule.admitted.add(1);
        meters.admitted();
        if rule.enforced < rule.bindings.len() {
            rule.shadowed(levels, |index| meters.by_limit(index));
        }
        if now > arrived {
            meters.waited(now - arrived);
        }
        let mut admission = Admission::new(&state.limiter, rule, asked, levels);
        let mut fields = match &written.policies {
            Some(policies) if options.fields && Fields::fit(request.method()) => {
                Fields::admitted(policies, rule, levels, now)
            }
            _ => None,
        };
        if state.rejections.is_some() || options.dialect.tells_more() {
            fields =
                fields.map(|fields| self.in_dialect(fields, state, request, rule, levels, now));
        }
        if let Some(account) = admission.account() {
            let usage = Usage::new(Arc::clone(account));
            request.extensions_mut().insert(usage);
        }
        if options.decision {
            let decision = Decision::admitted(Arc::clone(rule), mem::take(levels), arrived, now);
            request.extensions_mut().insert(decision.clone());
            admission.tell(decision);
        }
        Admitted {
            reads_answer: options.usage_from_answer && rule.has_tokens,
            admission,
            fields,
        }
    }

    /// Adds the fields of the route's dialect or the layer's, if it has some of its own.
    #[cold]
    fn in_dialect<B>(
        &self,
        fields: Fields,
        state: &State,
        request: &Request<B>,
        rule: &Rule,
        levels: &Levels,
        now: Nanos,
    ) -> Fields {
        let on_route = state.rejection(request);
        let dialect = on_route.map_or(self.options.dialect, |rejection| rejection.dialect());
        if !dialect.tells_more() {
            return fields;
        }
        fields.in_dialect(dialect, rule, levels, now)
    }

    /// The answer to a refused request.
    pub(crate) fn denied<B>(
        &self,
        request: Request<B>,
        prepared: &Prepared,
        decided: Decided<'_>,
    ) -> Response<Bytes> {
        let Prepared {
            rule,
            written,
            meters,
        } = prepared;
        let Decided {
            state,
            asked,
            arrived,
            now,
            levels,
        } = decided;
        rule.tally.refused.add(1);
        meters.refused();
        rule.shadowed(levels, |index| meters.by_limit(index));
        if now > arrived {
            meters.waited(now - arrived);
        }
        let refuses = |index: usize| {
            rule.bindings[index].tally.refused.add(1);
            meters.by_limit(index);
        };
        let mut denial = Denial::new(Arc::clone(rule), mem::take(levels), arrived, now, refuses);
        if let (true, Some(wait)) = (self.options.spread, denial.wait()) {
            let (index, cost) = denial.binding_charge();
            let binding = &rule.bindings[index];
            denial.spread(state.limiter.spread(binding, asked, now, wait, cost));
        }
        state.log.refused(&denial);
        let rejection = state.rejection(&request).map(Arc::clone);
        self.options
            .reject(denial, request, written, rejection.as_deref())
    }
}

/// The limits and their balances, as some rules have them.
pub(crate) struct State {
    pub(crate) limiter: Arc<Limiter>,
    total: Vec<Binding>,
    /// What undeclared routes are made from.
    default: Vec<Template>,
    table: Table<Route>,
    undeclared: Option<UndeclaredRoutes>,
    /// For undeclared routes that are not kept apart.
    shared: Route,
    /// For what is never charged.
    free: Prepared,
    roster: Option<Roster>,
    /// Clients without a plan, then each plan.
    classes: Vec<Class>,
    estimator: Estimator,
    rejections: Option<Table<Arc<dyn Rejection>>>,
    /// The throttle's, whichever rules hold.
    log: Arc<Log>,
    /// Whether others take its place.
    retired: AtomicBool,
    /// Whose place it takes, until all undeclared routes have come over.
    before: ArcSwapOption<Self>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("limiter", &self.limiter)
            .field("total", &self.total)
            .field("default", &self.default)
            .field("table", &self.table)
            .field("roster", &self.roster)
            .field("classes", &self.classes)
            .field("estimator", &self.estimator)
            .field("rejections", &self.rejections.is_some())
            .finish_non_exhaustive()
    }
}

/// A route, and what is charged there for each variant of each class of clients.
#[derive(Debug)]
struct Route {
    key: Box<str>,
    own: Vec<Binding>,
    tally: Arc<Tally>,
    /// Whether it has the default's limits, as all undeclared routes have.
    undeclared: bool,
    /// Made when they are first asked for: most routes are asked for by few classes.
    variants: Box<[OnceLock<Prepared>]>,
}

/// Routes that no key matches. Those that the host's router knows stand apart from paths that clients
/// invent, so that these do not take their room.
#[derive(Debug)]
struct UndeclaredRoutes {
    templates: Undeclared<Route>,
    paths: Undeclared<Route>,
}

/// A rule, with what can be written beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) rule: Arc<Rule>,
    pub(crate) written: Arc<Written>,
    meters: Meters,
}

impl Prepared {
    fn new(rule: Rule) -> Self {
        Self {
            written: Arc::new(Written::of(&rule)),
            meters: Meters::of(&rule),
            rule: Arc::new(rule),
        }
    }
}

/// Stands for all routes that no key matches.
const UNDECLARED: &str = "$default";

impl State {
    pub(crate) fn new(
        compiled: Compiled,
        limiter: &Arc<Limiter>,
        before: Option<&Arc<Self>>,
    ) -> Result<Self, RulesError> {
        let Compiled {
            total,
            routes,
            default,
            per_route,
            roster,
            classes,
            max_clients,
            estimator,
            rejections,
        } = compiled;
        let variants = classes.iter().map(|class| class.variants.len()).sum();
        let known = before.iter().flat_map(|before| before.table.values());
        let known: HashMap<&str, &Route> = known.map(|route| (&*route.key, route)).collect();
        let route = |key: &str, own| Route::new(key, own, known.get(key).copied(), variants);
        let mut table = Table::new();
        for (key, own) in routes {
            table
                .insert(&key, route(key.as_str(), own))
                .map_err(|first| RulesError::SameRoute {
                    first: first.key.to_string(),
                    second: key.to_string(),
                })?;
        }
        let shared =
            |before: Option<&Route>| Route::undeclared(UNDECLARED, &default, before, variants);
        let undeclared = per_route.then(|| {
            let before = before.and_then(|before| before.undeclared.as_ref());
            UndeclaredRoutes {
                templates: Undeclared::after(before.map(|before| &before.templates), shared),
                paths: Undeclared::after(before.map(|before| &before.paths), shared),
            }
        });
        if let Some(max_clients) = max_clients {
            reserve(&limiter.memory, max_clients)?;
        }
        Ok(Self {
            limiter: Arc::clone(limiter),
            table,
            undeclared,
            shared: shared(before.map(|before| &before.shared)),
            free: Prepared::new(Rule::new("OPTIONS preflight", None, [])),
            total,
            default,
            roster,
            classes,
            estimator,
            rejections,
            log: before.map_or_else(Arc::default, |before| Arc::clone(&before.log)),
            retired: AtomicBool::new(false),
            before: ArcSwapOption::from(before.map(Arc::clone)),
        })
    }

    /// How its route answers, if that was said.
    fn rejection<B>(&self, request: &Request<B>) -> Option<&Arc<dyn Rejection>> {
        self.rejections.as_ref()?.find(&Head::of(request))
    }

    /// The rule a request falls under, and what it asks for.
    #[inline(always)]
    pub(crate) fn asked<B>(&self, request: &Request<B>) -> Result<(Found<'_>, Asked), Outdated> {
        let head = Head::of(request);
        let (identity, class) = match &self.roster {
            Some(roster) => self.client(roster, RequestHead::of(request)),
            None => (0, 0),
        };
        let mut asked = Asked {
            identity,
            tokens: 0,
        };
        let mut named = None;
        if head.is_preflight(request.headers()) {
            named = self.table.find_named(&head);
            if named.is_none() && self.classes[class].routes.find_named(&head).is_none() {
                return Ok((Found::Kept(&self.free), asked));
            }
        }
        let route = match named {
            Some(named) => named,
            None => self.route(&head)?,
        };
        let found = self.prepared(route, &head, class);
        let found = match head.without_escaped_literals() {
            Some(path) if named.is_none() => {
                let head = head.on(&path);
                Self::both(self.prepared(self.route(&head)?, &head, class), found)
            }
            _ => Found::Kept(found),
        };
        if found.rule.has_tokens {
            asked.tokens = self.estimator.tokens(RequestHead::of(request));
        }
        Ok((found, asked))
    }

    /// The client's hash, and the number of its class.
    fn client(&self, roster: &Roster, head: RequestHead<'_>) -> (u128, usize) {
        let client = roster.client(head);
        if client.lacks_peer {
            self.log.no_peer_address();
        }
        (
            client.identity.bits(),
            client.plan.map_or(0, |plan| plan + 1),
        )
    }

    /// What a request is charged on whose path may mean either of two routes: both, so that its spelling
    /// dodges neither.
    #[cold]
    fn both<'a>(routed: &'a Prepared, spelled: &'a Prepared) -> Found<'a> {
        if std::ptr::eq(routed, spelled) {
            return Found::Kept(routed);
        }
        Found::Made(Box::new(Prepared::new(routed.rule.and(&spelled.rule))))
    }

    #[inline(always)]
    fn prepared<'a>(&'a self, route: &'a Route, head: &Head<'_>, class: usize) -> &'a Prepared {
        let class = &self.classes[class];
        let variant = match class.variants.len() {
            1 => 0,
            _ => class.routes.find(head).copied().unwrap_or(0),
        };
        let make = || self.prepare(route, class, variant);
        route.variants[class.first + variant].get_or_init(make)
    }

    #[cold]
    fn prepare(&self, route: &Route, class: &Class, variant: usize) -> Prepared {
        let clients = class.variants[variant].iter();
        let bindings = clients.chain(&route.own).chain(&self.total);
        let rule = Rule::new(route.key.clone(), class.plan.clone(), bindings.cloned());
        let rule = rule.counted_by(&route.tally);
        if !route.undeclared || std::ptr::eq(route, &self.shared) {
            return Prepared::new(rule);
        }
        // The same limits, so the same words.
        let shared = &self.shared.variants[class.first + variant];
        let shared = shared.get_or_init(|| self.prepare(&self.shared, class, variant));
        Prepared {
            meters: Meters::of(&rule),
            rule: Arc::new(rule),
            written: Arc::clone(&shared.written),
        }
    }

    fn route(&self, head: &Head<'_>) -> Result<&Route, Outdated> {
        if let Some(declared) = self.table.find(head) {
            return Ok(declared);
        }
        let Some(undeclared) = &self.undeclared else {
            return Ok(&self.shared);
        };
        let template = head.template();
        let set = match template {
            Some(_) => &undeclared.templates,
            None => &undeclared.paths,
        };
        let hash = set.hash(head);
        let (route, is_new) = set.get(hash, || {
            let key = template.map(|path| format!("{} {path}", head.family()));
            let key = key.as_deref().unwrap_or(UNDECLARED);
            let before = self.before.load();
            // Those who still enter routes there look afterwards whether it has been retired.
            fence(Ordering::SeqCst);
            let before = before.as_ref().and_then(|before| {
                let undeclared = before.undeclared.as_ref()?;
                let set = match template {
                    Some(_) => &undeclared.templates,
                    None => &undeclared.paths,
                };
                set.find(hash)
            });
            self.undeclared_route(key, before)
        });
        if is_new {
            fence(Ordering::SeqCst);
        }
        // Who has entered it after the routes came over has entered it in vain.
        match self.retired.load(Ordering::SeqCst) {
            true => Err(Outdated),
            false => Ok(route),
        }
    }

    fn undeclared_route(&self, key: &str, before: Option<&Route>) -> Route {
        Route::undeclared(key, &self.default, before, self.shared.variants.len())
    }

    /// Takes over the undeclared routes of whose place it takes.
    fn adopt(&self, before: &Self) {
        let (Some(own), Some(before)) = (&self.undeclared, &before.undeclared) else {
            return;
        };
        for (own, before) in [
            (&own.templates, &before.templates),
            (&own.paths, &before.paths),
        ] {
            for (hash, route) in before.iter() {
                own.get(*hash, || self.undeclared_route(&route.key, Some(route)));
            }
        }
    }

    /// Each route that nobody declared and that the host's router has a name for.
    fn named_routes(&self) -> impl Iterator<Item = &Route> {
        let sets = self.undeclared.iter();
        let routes = sets.flat_map(|undeclared| undeclared.templates.iter());
        routes.map(|(_, route)| route)
    }

    /// Each other route that nobody declared, and those who share their limits.
    fn unnamed_routes(&self) -> impl Iterator<Item = &Route> {
        let sets = self.undeclared.iter();
        let routes = sets.flat_map(|UndeclaredRoutes { templates, paths }| {
            let own = paths.iter().map(|(_, route)| route);
            own.chain([templates.overflow(), paths.overflow()])
        });
        routes.chain([&self.shared])
    }

    /// The limits of all routes that nobody declared.
    fn undeclared_limits(&self) -> impl Iterator<Item = &Binding> {
        let routes = self.named_routes().chain(self.unnamed_routes());
        routes.flat_map(|route| &route.own)
    }

    /// Makes the rules that were asked for before, so that no request has to. Where there are other classes of clients,
    /// requests make them.
    fn prepare_as(&self, before: &Self) {
        let variants = |state: &Self| -> Vec<_> {
            let classes = state.classes.iter();
            classes.map(|class| class.variants.len()).collect()
        };
        if variants(self) != variants(before) {
            return;
        }
        let old = before.table.values().chain(before.named_routes());
        let old: HashMap<&str, &Route> = old.map(|route| (&*route.key, route)).collect();
        let named = self.table.values().chain(self.named_routes());
        let pairs = named.filter_map(|route| Some((route, *old.get(&*route.key)?)));
        for (route, old) in pairs.chain([(&self.shared, &before.shared)]) {
            for class in &self.classes {
                for variant in 0..class.variants.len() {
                    let index = class.first + variant;
                    if old.variants[index].get().is_some() {
                        route.variants[index].get_or_init(|| self.prepare(route, class, variant));
                    }
                }
            }
        }
    }

    /// Has all routes and limits count what was admitted.
    fn settle(&self) {
        let routes = self.table.values();
        let routes = routes
            .chain(self.named_routes())
            .chain(self.unnamed_routes());
        for prepared in routes.flat_map(|route| &route.variants) {
            if let Some(prepared) = prepared.get() {
                prepared.rule.settle();
            }
        }
    }
}

impl Undeclared<Route> {
    /// One that has the same routes, or will.
    fn after(before: Option<&Self>, shared: impl Fn(Option<&Route>) -> Route) -> Self {
        match before {
            Some(before) => before.successor(shared(Some(before.overflow()))),
            None => Self::new(shared(None)),
        }
    }
}

impl Route {
    /// `before`: the same route under the rules before.
    fn new(key: &str, own: Vec<Binding>, before: Option<&Self>, variants: usize) -> Self {
        Self {
            key: key.into(),
            own,
            tally: before.map_or_else(Arc::default, |before| Arc::clone(&before.tally)),
            undeclared: false,
            variants: (0..variants).map(|_| OnceLock::new()).collect(),
        }
    }

    fn undeclared(
        key: &str,
        templates: &[Template],
        before: Option<&Self>,
        variants: usize,
    ) -> Self {
        let own = Template::bind(templates, before.map(|route| &*route.own));
        Self {
            undeclared: true,
            ..Self::new(key, own, before, variants)
        }
    }
}

/// Makes the table of clients, whose size stays what it is.
fn reserve(memory: &Memory, max_clients: usize) -> Result<(), RulesError> {
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

/// The rule of one request.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Kept(&'a Prepared),
    Made(Box<Prepared>),
}

impl Deref for Found<'_> {
    type Target = Prepared;

    #[inline]
    fn deref(&self) -> &Prepared {
        match self {
            Self::Kept(prepared) => prepared,
            Self::Made(prepared) => prepared,
        }
    }
}

#[cfg(test)]
mod tests;
