//! What all services of a layer share: the limits with their balances, and how answers are given.

use std::{ops::Deref, sync::Arc};

use http::Request;

use crate::{
    clock::Clock,
    limiter::{Limiter, Rule},
    options::Options,
    response::Written,
    route::{head::Head, table::Table, undeclared::Undeclared},
    rules::{Blueprint, Compiled, RulesError},
};

/// What all services of a layer share. Cloned only while a layer is being set up.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) state: Arc<State>,
    pub(crate) options: Options,
}

/// The limits and their balances.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) limiter: Limiter,
    table: Table<Prepared>,
    undeclared: Option<UndeclaredRoutes>,
    blueprint: Blueprint,
    /// For undeclared routes that are not kept apart.
    shared: Prepared,
    /// For what is never charged.
    free: Prepared,
}

/// Routes that no key matches. Those that the host's router knows stand apart from paths that clients
/// invent, so that these do not take their room.
#[derive(Debug)]
struct UndeclaredRoutes {
    templates: Undeclared<Prepared>,
    paths: Undeclared<Prepared>,
}

/// A rule, with what can be written beforehand.
#[derive(Debug)]
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
            routes,
            undeclared: blueprint,
            per_route,
        } = compiled;
        let mut table = Table::new();
        for (key, rule) in routes {
            table
                .insert(&key, Prepared::new(rule))
                .map_err(|first| RulesError::SameRoute {
                    first: first.rule.route.to_string(),
                    second: key.to_string(),
                })?;
        }
        let shared = || Prepared::new(blueprint.rule(UNDECLARED));
        Ok(Self {
            limiter: Limiter::new(clock),
            table,
            undeclared: per_route.then(|| UndeclaredRoutes {
                templates: Undeclared::new(shared()),
                paths: Undeclared::new(shared()),
            }),
            shared: shared(),
            free: Prepared::new(Rule {
                route: "OPTIONS preflight".into(),
                bindings: Box::default(),
            }),
            blueprint,
        })
    }

    /// The rule a request falls under.
    #[inline]
    pub(crate) fn prepared<B>(&self, request: &Request<B>) -> Found<'_> {
        let head = Head::of(request);
        if head.is_preflight(request.headers()) {
            return Found::Kept(self.table.find_named(&head).unwrap_or(&self.free));
        }
        let found = self.route(&head);
        match head.without_escaped_literals() {
            None => Found::Kept(found),
            Some(path) => Self::both(self.route(&head.on(&path)), found),
        }
    }

    /// What a request is charged on whose path may mean either of two routes: both, so that its spelling
    /// dodges neither.
    #[cold]
    fn both<'a>(routed: &'a Prepared, spelled: &'a Prepared) -> Found<'a> {
        if std::ptr::eq(routed, spelled) {
            return Found::Kept(routed);
        }
        Found::Made(Prepared::new(routed.rule.and(&spelled.rule)))
    }

    fn route(&self, head: &Head<'_>) -> &Prepared {
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
            let route = template.map(|path| format!("{} {path}", head.family()));
            let rule = self.blueprint.rule(route.as_deref().unwrap_or(UNDECLARED));
            Prepared {
                rule: Arc::new(rule),
                // The same limits, so the same words.
                written: Arc::clone(&self.shared.written),
            }
        })
    }
}

/// The rule of one request.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Kept(&'a Prepared),
    Made(Prepared),
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
