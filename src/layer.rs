//! The layer.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use tower::Layer;

use crate::{
    clock::Clock,
    decision::{Decision, Denial},
    limiter::{Limiter, Rule},
    response::{
        Framing, Protocol, Rejection,
        fields::{Policies, policies},
        grpc, problem, strip, template,
    },
    route::{head::Head, table::Table, undeclared::Undeclared},
    rules::{Blueprint, Compiled, Rules, RulesError},
    service::Throttle,
};

/// A layer that throttles by method and path. See the [crate](crate) for what it does.
///
/// The limits and their balances are made by [`ThrottleLayer::new`] and shared by every service that
/// this layer or a clone of it wraps, however often a framework wraps and clones.
///
/// It has no type parameters, so that a function can return it and a struct can hold it.
#[derive(Debug, Clone)]
#[must_use]
pub struct ThrottleLayer {
    shared: Arc<Shared>,
}

impl ThrottleLayer {
    /// A layer that enforces `rules`. All buckets are full.
    ///
    /// # Errors
    ///
    /// [`RulesError`] names the route key or limit at fault and says what to write instead. Rules that
    /// pass here never fail a request later.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "rules are spent: their balance lives in the layer"
    )]
    pub fn new(rules: Rules) -> Result<Self, RulesError> {
        let state = State::new(rules.compile()?, Clock::start())?;
        Ok(Self {
            shared: Arc::new(Shared {
                state: Arc::new(state),
                options: Options::default(),
            }),
        })
    }

    /// Whether admitted responses carry `RateLimit-Policy` and `RateLimit`. Without this call: yes.
    ///
    /// They are added to what the inner service writes itself, never in its place. Refusals carry them
    /// always.
    pub fn fields(self, fields: bool) -> Self {
        self.with(|options| options.fields = fields)
    }

    /// Whether a [`Decision`](crate::Decision) is put into the extensions of requests and responses.
    /// Without this call: yes.
    ///
    /// Without it and without [`fields`](Self::fields), an admitted request costs no allocation.
    pub fn decision(self, decision: bool) -> Self {
        self.with(|options| options.decision = decision)
    }

    /// How refusals are framed. Without this call: [`Protocol::Auto`].
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.with(|options| options.protocol = protocol)
    }

    /// The answer to refused requests. Without this call: [`Problem`](crate::Problem).
    pub fn rejection(self, rejection: impl Rejection) -> Self {
        self.with(|options| options.rejection = Some(Arc::new(rejection)))
    }

    /// Whether gRPC refusals carry `grpc-retry-pushback-ms`. Without this call: no.
    ///
    /// It makes clients with a retry policy come back after the wait, some of them (gRPC for Java and
    /// .NET) even if that policy does not list `RESOURCE_EXHAUSTED`. It is -1, do not retry, where the
    /// wait reaches the client's `grpc-timeout` or the request can never pass (gRFC A6).
    pub fn grpc_retry_pushback(self, pushback: bool) -> Self {
        self.with(|options| options.grpc_retry_pushback = pushback)
    }

    fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut Arc::make_mut(&mut self.shared).options);
        self
    }
}

impl<S> Layer<S> for ThrottleLayer {
    type Service = Throttle<S>;

    fn layer(&self, inner: S) -> Throttle<S> {
        Throttle::new(inner, Arc::clone(&self.shared))
    }
}

/// What all services of a layer share. Cloned only while a layer is being set up.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) state: Arc<State>,
    pub(crate) options: Options,
}

/// How a layer talks, apart from what it decides.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) fields: bool,
    pub(crate) decision: bool,
    protocol: Protocol,
    grpc_retry_pushback: bool,
    /// `None`: the built-in answer.
    rejection: Option<Arc<dyn Rejection>>,
}

impl Options {
    /// The answer to a refused request. Out of line, so that the way of an admitted one stays short.
    #[cold]
    #[inline(never)]
    pub(crate) fn reject<B>(
        &self,
        denial: Denial,
        request: Request<B>,
        written: &Written,
    ) -> Response<Bytes> {
        let mut answer = match self.protocol.framing(&request) {
            Framing::Grpc(content_type) => {
                let deadline = || grpc::deadline(request.headers());
                let pushback = self.grpc_retry_pushback.then(deadline);
                grpc::reject(
                    &denial,
                    content_type,
                    written.policies.as_ref().map(|policies| &policies.line),
                    pushback,
                )
            }
            Framing::Http => {
                let without_body = *request.method() == Method::HEAD;
                let mut answer = match &self.rejection {
                    None => problem(&denial, written.refusal.clone()),
                    Some(rejection) => rejection.reject(&denial, &request.into_parts().0),
                };
                if without_body {
                    strip(&mut answer);
                }
                answer
            }
        };
        if self.decision {
            answer.extensions_mut().insert(Decision::from(denial));
        }
        answer
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fields: true,
            decision: true,
            protocol: Protocol::default(),
            grpc_retry_pushback: false,
            rejection: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fields,
            decision,
            protocol,
            grpc_retry_pushback,
            rejection,
        } = self;
        f.debug_struct("Options")
            .field("fields", fields)
            .field("decision", decision)
            .field("protocol", protocol)
            .field("grpc_retry_pushback", grpc_retry_pushback)
            .field(
                "rejection",
                &rejection.as_ref().map(|_| format_args!("<fn>")),
            )
            .finish()
    }
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

/// Header fields that depend on a rule's limits alone.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) policies: Option<Policies>,
    /// The head of a refusal, with blanks for its waits.
    refusal: HeaderMap,
}

impl Written {
    fn of(rule: &Rule) -> Arc<Self> {
        let policies = policies(rule);
        Arc::new(Self {
            refusal: template(policies.as_ref()),
            policies,
        })
    }
}

impl Prepared {
    fn new(rule: Rule) -> Self {
        Self {
            written: Written::of(&rule),
            rule: Arc::new(rule),
        }
    }
}

/// Stands for all routes that no key matches.
const UNDECLARED: &str = "$default";

impl State {
    fn new(compiled: Compiled, clock: Clock) -> Result<Self, RulesError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_traits() {
        fn traits<T: Clone + fmt::Debug + Send + Sync + Unpin + 'static>() {}
        traits::<ThrottleLayer>();
        traits::<Throttle<()>>();
    }
}
