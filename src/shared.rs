//! What all services of a layer share: the limits with their balances, and how answers are given.

use std::{
    fmt, mem,
    ops::Deref,
    sync::{Arc, Once, OnceLock},
};

use bytes::Bytes;
use http::{Request, Response};

use crate::{
    admission::Admission,
    client::{RequestHead, Roster},
    clock::{Clock, Nanos},
    decision::{Decision, Denial},
    levels::Levels,
    limit::Limit,
    limiter::Limiter,
    observe,
    options::Options,
    response::{Rejection, Written, fields::Fields},
    route::{head::Head, table::Table, undeclared::Undeclared},
    rule::{Asked, Binding, Rule},
    rules::{Class, Compiled, RulesError},
    usage::{Estimator, Usage},
};

/// What all services of a layer share. Cloned only while a layer is being set up.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) state: Arc<State>,
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
            asked,
            arrived,
            now,
            levels,
        } = decided;
        let Prepared { rule, written } = prepared;
        let options = &self.options;
        let mut admission = Admission::new(&self.state.limiter, rule, asked, levels);
        let mut fields = match &written.policies {
            Some(policies) if options.fields && Fields::fit(request.method()) => {
                Fields::admitted(policies, rule, levels, now)
            }
            _ => None,
        };
        if self.state.rejections.is_some() || options.dialect.tells_more() {
            fields = fields.map(|fields| self.in_dialect(fields, request, rule, levels, now));
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
        request: &Request<B>,
        rule: &Rule,
        levels: &Levels,
        now: Nanos,
    ) -> Fields {
        let on_route = self.state.rejection(request);
        let dialect = on_route.map_or(self.options.dialect, |rejection| rejection.dialect());
        if !dialect.tells_more() {
            return fields;
        }
        let unix_now = self.state.limiter.origin().saturating_add(now);
        fields.in_dialect(dialect, rule, levels, now, unix_now)
    }

    /// The answer to a refused request.
    pub(crate) fn denied<B>(
        &self,
        request: Request<B>,
        prepared: &Prepared,
        decided: Decided<'_>,
    ) -> Response<Bytes> {
        let Prepared { rule, written } = prepared;
        let Decided {
            asked,
            arrived,
            now,
            levels,
        } = decided;
        let mut denial = Denial::new(Arc::clone(rule), mem::take(levels), arrived, now);
        if let (true, Some(wait)) = (self.options.spread, denial.wait()) {
            let (index, cost) = denial.binding_charge();
            let binding = &rule.bindings[index];
            denial.spread(self.state.limiter.spread(binding, asked, now, wait, cost));
        }
        denial.since(self.state.limiter.origin());
        let rejection = self.state.rejection(&request).map(Arc::clone);
        self.options
            .reject(denial, request, written, rejection.as_deref())
    }
}

/// The limits and their balances.
pub(crate) struct State {
    pub(crate) limiter: Arc<Limiter>,
    total: Vec<Binding>,
    /// What undeclared routes are made from.
    default: Vec<Limit>,
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
    /// Said once that the host tells no addresses.
    unaddressed: Once,
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
}

impl Prepared {
    fn new(rule: Rule) -> Self {
        Self {
            written: Arc::new(Written::of(&rule)),
            rule: Arc::new(rule),
        }
    }
}

/// Stands for all routes that no key matches.
const UNDECLARED: &str = "$default";

impl State {
    pub(crate) fn new(compiled: Compiled, clock: Clock) -> Result<Self, RulesError> {
        let Compiled {
            total,
            routes,
            default,
            per_route,
            roster,
            classes,
            memory,
            estimator,
            rejections,
        } = compiled;
        let variants = classes.iter().map(|class| class.variants.len()).sum();
        let route = |key: &str, own| Route::new(key, own, variants);
        let mut table = Table::new();
        for (key, own) in routes {
            table
                .insert(&key, route(key.as_str(), own))
                .map_err(|first| RulesError::SameRoute {
                    first: first.key.to_string(),
                    second: key.to_string(),
                })?;
        }
        let shared = || Route::undeclared(UNDECLARED, &default, variants);
        Ok(Self {
            limiter: Arc::new(Limiter::new(clock, memory)),
            table,
            undeclared: per_route.then(|| UndeclaredRoutes {
                templates: Undeclared::new(shared()),
                paths: Undeclared::new(shared()),
            }),
            shared: shared(),
            free: Prepared::new(Rule::new("OPTIONS preflight", None, [])),
            total,
            default,
            roster,
            classes,
            estimator,
            rejections,
            unaddressed: Once::new(),
        })
    }

    /// How its route answers, if that was said.
    fn rejection<B>(&self, request: &Request<B>) -> Option<&Arc<dyn Rejection>> {
        self.rejections.as_ref()?.find(&Head::of(request))
    }

    /// The rule a request falls under, and what it asks for.
    #[inline(always)]
    pub(crate) fn asked<B>(&self, request: &Request<B>) -> (Found<'_>, Asked) {
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
                return (Found::Kept(&self.free), asked);
            }
        }
        let found = self.prepared(named.unwrap_or_else(|| self.route(&head)), &head, class);
        let found = match head.without_escaped_literals() {
            Some(path) if named.is_none() => {
                let head = head.on(&path);
                Self::both(self.prepared(self.route(&head), &head, class), found)
            }
            _ => Found::Kept(found),
        };
        if found.rule.has_tokens {
            asked.tokens = self.estimator.tokens(RequestHead::of(request));
        }
        (found, asked)
    }

    /// The client's hash, and the number of its class.
    fn client(&self, roster: &Roster, head: RequestHead<'_>) -> (u128, usize) {
        let client = roster.client(head);
        if client.lacks_peer {
            self.unaddressed.call_once(observe::no_peer_address);
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
        if !route.undeclared || std::ptr::eq(route, &self.shared) {
            return Prepared::new(rule);
        }
        // The same limits, so the same words.
        let shared = &self.shared.variants[class.first + variant];
        let shared = shared.get_or_init(|| self.prepare(&self.shared, class, variant));
        Prepared {
            rule: Arc::new(rule),
            written: Arc::clone(&shared.written),
        }
    }

    fn route(&self, head: &Head<'_>) -> &Route {
        if let Some(declared) = self.table.find(head) {
            return declared;
        }
        let Some(undeclared) = &self.undeclared else {
            return &self.shared;
        };
        let template = head.template();
        let set = match template {
            Some(_) => &undeclared.templates,
            None => &undeclared.paths,
        };
        set.get(head, || {
            let key = template.map(|path| format!("{} {path}", head.family()));
            let key = key.as_deref().unwrap_or(UNDECLARED);
            let variants = self.shared.variants.len();
            Route::undeclared(key, &self.default, variants)
        })
    }
}

impl Route {
    fn new(key: &str, own: Vec<Binding>, variants: usize) -> Self {
        Self {
            key: key.into(),
            own,
            undeclared: false,
            variants: (0..variants).map(|_| OnceLock::new()).collect(),
        }
    }

    fn undeclared(key: &str, limits: &[Limit], variants: usize) -> Self {
        let own = Binding::scope(limits.iter().cloned());
        Self {
            undeclared: true,
            ..Self::new(key, own, variants)
        }
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
