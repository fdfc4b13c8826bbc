//! What all services of a layer share: the limits with their balances, and how answers are given.

use std::sync::Arc;

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
    undeclared: Option<Undeclared<Prepared>>,
    blueprint: Blueprint,
    /// For undeclared routes that are not kept apart.
    shared: Prepared,
    /// For what is never charged.
    free: Prepared,
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
            undeclared: per_route.then(|| Undeclared::new(shared())),
            shared: shared(),
            free: Prepared::new(Rule {
                route: "OPTIONS preflight".into(),
                bindings: Box::default(),
            }),
            blueprint,
        })
    }

    /// The rule a request falls under.
    pub(crate) fn prepared<B>(&self, request: &Request<B>) -> &Prepared {
        let head = Head::of(request);
        if head.is_preflight(request.headers()) {
            return self.table.find_named(&head).unwrap_or(&self.free);
        }
        if let Some(declared) = self.table.find(&head) {
            return declared;
        }
        let Some(undeclared) = &self.undeclared else {
            return &self.shared;
        };
        undeclared.get(&head, || {
            let route = head
                .template()
                .map(|path| format!("{} {path}", head.family()));
            let rule = self.blueprint.rule(route.as_deref().unwrap_or(UNDECLARED));
            Prepared {
                rule: Arc::new(rule),
                // The same limits, so the same words.
                written: Arc::clone(&self.shared.written),
            }
        })
    }
}
