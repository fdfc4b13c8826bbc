//! Handles: access to a throttle from outside of its services.

mod permit;

use std::{
    fmt,
    future::{Future, poll_fn},
    sync::Arc,
};

pub use self::permit::Permit;
use crate::{
    decision::{Decision, Denial},
    engine::{ActiveRules, Admitted, Asker, Decided, Engine, Pending, Refusal, Ticket},
    head::RequestHead,
    observe::snapshot::Snapshot,
    rules::{Changes, Rules, RulesError},
};

/// A handle of a throttle: changes its rules while it works, closes it, and observes it. From
/// [`ThrottleLayer::handle`](crate::ThrottleLayer::handle).
///
/// Clones refer to the same throttle: that of all services that the layer or a clone of it wraps.
#[derive(Clone)]
pub struct Handle {
    active: Arc<ActiveRules>,
    /// Decides on work that may wait.
    permits: Arc<Engine>,
    /// Decides on work that may not.
    tries: Arc<Engine>,
}

impl Handle {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            active: Arc::clone(&engine.active),
            permits: engine.asked_by(Asker::Permit),
            tries: engine.asked_by(Asker::PermitAtOnce),
        }
    }

    /// Replaces the rules in force by others, all at once, while requests go on. Returns the changes.
    ///
    /// ```
    /// use tower_throttle::{Rate, Rules, ThrottleLayer};
    ///
    /// let rules = Rules::new().default_route(Rate::per_second(10).burst(5));
    /// let handle = ThrottleLayer::new(rules)?.handle();
    ///
    /// let faster = Rules::new().default_route(Rate::per_second(20).burst(5));
    /// let changes = handle.reload(faster)?;
    /// assert_eq!(
    ///     changes.to_string(),
    ///     "default route, limit `default`: 10 in 1s, burst 5 => 20 in 1s, burst 5",
    /// );
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    ///
    /// # What stays
    ///
    /// Each new limit of a scope (the total, a route key, a plan, a plan on a route key) continues one of the previous
    /// limits of this scope. The first match of these counts: the same settings; the same kind and name; the same kind
    /// and period; the same kind; the same name. A [shadow](crate::Rate::shadow) never continues an enforced limit, nor
    /// the other way. In a [store](crate::ThrottleLayerBuilder::store) a limit is known by its scope, kind and name,
    /// or, without a name, by its scope, kind and period.
    ///
    /// - **Used units stay used**, in units: a debt of ten requests is a debt of ten requests at any other rate and
    ///   burst. The same holds for model tokens. A larger burst or quota adds only the difference. However often rules
    ///   are reloaded, no more requests pass than the largest burst and the fastest rate in force would have admitted.
    /// - **Slots** that are held count against the new cap, and come back to it when their requests end.
    /// - **A waiting request** keeps its place in line. The new rules decide on its next turn. Its longest wait does
    ///   not change.
    /// - **Clients** keep their identities and their limits, plan by plan.
    /// - A **closed** limit keeps its balances until it is opened again: a limit of zero its own, and a scope that is
    ///   closed (by [`Limits::closed`](crate::Limits::closed) or any limit of zero) those of all its limits, slots
    ///   included. Balances of a closed route move to other routes as those of an open one.
    ///
    /// A new limit in an open scope starts full, and a removed limit is forgotten. A total, a default route or clients
    /// that have no limits in between lose their balances, too. A cap in flight that becomes a rate starts full, and so
    /// does a rate that becomes a cap, and a shadow that becomes enforced. A quota that gets another window keeps its
    /// usage.
    ///
    /// # Routes that get or lose a key
    ///
    /// A route that gets its own key keeps the usage of its requests, in its limits, its slots and its line. So does a
    /// route that loses its key, and a route whose requests move to a more or less specific key:
    ///
    /// - A route starts with the usage of the route that took its requests before. If there were several, as for a key
    ///   with parameters, it starts with the usage of the one that used most. It has the slots of all of them.
    /// - If the requests of one route spread over several, each starts with the usage of the one. Slots that come back
    ///   and model tokens that are settled later change all of them.
    /// - Model tokens that come back to a route that follows several others stay used there.
    /// - The same holds for undeclared routes that [shared](crate::rules::Undeclared) their limits and have their own
    ///   now, and the other way. For undeclared routes that are asked for later, shared usage follows the limits of the
    ///   default route.
    /// - The same holds for requests that move to `$default` or away from it when
    ///   [`Rules::catch_all`](crate::Rules::catch_all) changes.
    ///
    /// Limits of clients on a single route or model start full when they are first declared. Balances in a
    /// [store](crate::ThrottleLayerBuilder::store) move only if the key equals the route of the host's router, such as
    /// `GET /models/{id}`. Otherwise the route has another name in the store, and starts full.
    ///
    /// Routes that have lost their keys are remembered until all of their usage has come back, up to 65,536 of them.
    /// Beyond that, the route that lost its key first is forgotten. It starts full when it is next asked for, and the
    /// bound above holds for it only from then on. The same holds for limits of models, of plans, and of clients on
    /// single routes and models that are removed and declared again: those of 1,024 are remembered.
    ///
    /// The settings of the layer do not change.
    ///
    /// # Errors
    ///
    /// As [`ThrottleLayer::new`](crate::ThrottleLayer::new), and for another
    /// [`max_clients`](crate::Clients::max_clients) or another [`secret`](crate::Clients::secret) than those of the
    /// first rules with limits of clients. The rules in force then stay.
    ///
    /// # Panics
    ///
    /// If a recorder of `metrics` panics when it is asked for counters. The new rules are in force then.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "as `ThrottleLayer::new` takes them"
    )]
    pub fn reload(&self, rules: Rules) -> Result<Changes, RulesError> {
        self.active.reload(&rules)
    }

    /// Closes the throttle for good, for a server that is shutting down. New requests are refused with status 503, and so
    /// are requests that wait in line. Admitted requests go on. Without effect if the throttle is closed.
    ///
    /// - A refusal tells a wait of one second and, over HTTP/1, `Connection: close`, so that the client connects anew, to
    ///   another replica perhaps. Over gRPC it is `UNAVAILABLE` without a pushback.
    ///   [`Denial::is_shutting_down`](crate::Denial::is_shutting_down) tells it from other refusals.
    /// - A refused request counts as refused on its route, and is charged on no limit.
    /// - [Exempt](crate::Limits::exempt) routes stay open, so that liveness probes pass. A readiness probe should answer by
    ///   [`is_closed`](Self::is_closed).
    /// - [`reload`](Self::reload) does not open the throttle again.
    ///
    /// A request that is being decided on at this moment may still pass; so may one that waits for the answer of a
    /// [store](crate::ThrottleLayerBuilder::store).
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_throttle::{Rate, Rules, ThrottleLayer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let rules = Rules::new().default_route(Rate::per_second(10));
    /// let throttle = ThrottleLayer::builder(rules).track_in_flight(true).build()?;
    /// let handle = throttle.handle();
    /// let service = throttle.layer(service_fn(async |_: Request<String>| {
    ///     Ok::<_, Infallible>(Response::new(String::from("done")))
    /// }));
    ///
    /// let response = service.clone().oneshot(Request::default()).await?;
    /// assert_eq!(handle.in_flight(), Some(1));
    ///
    /// // SIGTERM has come.
    /// handle.close();
    /// assert_eq!(service.oneshot(Request::default()).await?.status(), 503);
    /// // The first request has its answer.
    /// drop(response);
    /// handle.drained().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self) {
        self.active.close();
    }

    /// Tells whether the throttle was [closed](Self::close).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.active.gate.is_closed()
    }

    /// Returns the number of requests that are in flight now, those in line included. `None`, unless the layer was
    /// built with [`track_in_flight`](crate::ThrottleLayerBuilder::track_in_flight).
    #[must_use]
    pub fn in_flight(&self) -> Option<usize> {
        self.active.gate.in_flight()
    }

    /// Waits until no request is in flight. Requests that arrive after the throttle was [closed](Self::close) are not
    /// waited for, and none of them is admitted but on [exempt](crate::Limits::exempt) routes. On an open throttle this
    /// returns when it finds no request in flight, which may take forever under load.
    ///
    /// The server may still be writing the last frame of an answer to the connection: end connections gracefully after
    /// this. A client that does not read its answer keeps the request in flight, so put a timeout around this.
    ///
    /// # Panics
    ///
    /// If the layer was built without [`track_in_flight`](crate::ThrottleLayerBuilder::track_in_flight).
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it has ended, nothing changes.
    pub async fn drained(&self) {
        let counted = self.active.gate.drained().await;
        counted.expect("`drained` needs `ThrottleLayerBuilder::track_in_flight(true)`");
    }

    /// Gives back the unspent [leases](crate::ThrottleLayerBuilder::lease) of this process, before it ends. Without
    /// effect without a store or leases.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it has ended, leases may be given back or may lapse.
    pub async fn return_leases(&self) {
        let remote = self.active.rules().store.clone();
        if let Some(remote) = remote {
            remote.return_leases().await;
        }
    }

    /// Returns the decision that a request would get now. Charges nothing and changes nothing, and does not call the
    /// inner service.
    ///
    /// The decision has the balances that the request would leave, or, for a refusal, the present ones with the wait.
    /// Closures that identify clients, name models and estimate tokens are called.
    ///
    /// - A model or an estimate that is read from the body is that of the [`BodyFacts`](crate::facts::BodyFacts) in the
    ///   request's extensions. Without them the body counts as not read.
    /// - A request that would wait in line counts as refused, with the time until its limits have room. Requests ahead
    ///   of it are not counted in that time.
    /// - Requests are read by the [protocol](crate::ThrottleLayerBuilder::protocol) of the layer.
    /// - For limits in a [store](crate::ThrottleLayerBuilder::store), the balances are those that this process knows,
    ///   and full otherwise: the store is not asked.
    /// - A model and tokens that are in the body are read from [`BodyFacts`](crate::facts::BodyFacts) in the extensions:
    ///   insert them, or the body counts as not read.
    /// - An undeclared route that was never asked for appears as `$default`, with full limits.
    /// - A [closed](Self::close) throttle refuses, without limits.
    ///
    /// ```
    /// use http::Request;
    /// use tower_throttle::{Rate, Rules, ThrottleLayer};
    ///
    /// let rules = Rules::new().route("POST /v1/chat/completions", Rate::per_second(2).burst(4));
    /// let handle = ThrottleLayer::new(rules)?.handle();
    ///
    /// let request = Request::post("/v1/chat/completions").body(())?;
    /// let decision = handle.preview(&request);
    /// assert!(decision.is_admitted());
    /// assert_eq!(decision.limits().map(|limit| limit.remaining()).min(), Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn preview<'a>(&self, request: impl Into<RequestHead<'a>>) -> Decision {
        let protocol = self.permits.options.protocol;
        self.active.preview(request.into(), protocol)
    }

    /// Charges a piece of work that is no request of the service, without waiting: a message of a WebSocket, a job, a
    /// field of a query. The work is admitted until the returned [`Permit`] is dropped.
    ///
    /// The decision, the charges and the counts are those of a request with this head, all limits or none. Any
    /// `http::Request` or its `Parts` is a head:
    ///
    /// - The method and the path find the route, which need not exist in a router: a key such as `POST /chat/messages`
    ///   names the limits of messages.
    /// - The header fields and the extensions identify the client as they do for a request, a
    ///   [`PeerAddr`](crate::client::PeerAddr) among them. Keep the head of the request that has opened a connection,
    ///   and change its method and path.
    /// - A model and an estimate of tokens are found as for a request: in a header field, by a closure, or in the
    ///   [`BodyFacts`](crate::facts::BodyFacts) in the extensions.
    ///
    /// ```
    /// use http::Request;
    /// use tower_throttle::{Clients, Rate, Rules, ThrottleLayer};
    ///
    /// let rules = Rules::new().clients(Clients::by_header("x-api-key").each(Rate::per_minute(60).burst(2)));
    /// let handle = ThrottleLayer::new(rules)?.handle();
    ///
    /// let message = Request::post("/chat/messages").header("x-api-key", "sk-local").body(())?;
    /// for _ in 0..2 {
    ///     let permit = handle.try_acquire(&message).expect("the burst");
    ///     drop(permit); // The message is handled.
    /// }
    /// let denial = handle.try_acquire(&message).expect_err("the burst is spent");
    /// assert!(denial.retry_after().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Work that would have to wait in line is refused. [Exempt](crate::Limits::exempt) routes admit everything.
    /// Permits count in [`in_flight`](Self::in_flight), so that [`drained`](Self::drained) waits for them.
    ///
    /// # Errors
    ///
    /// The [`Denial`] has the limits that refuse and the wait. A [closed](Self::close) throttle
    /// [is shutting down](Denial::is_shutting_down). With a [store](crate::ThrottleLayerBuilder::store) only
    /// [leased](crate::ThrottleLayerBuilder::lease) units are spent: where there are none, and no limit is known to
    /// refuse, the denial [needs the store](Denial::needs_store), and [`acquire`](Self::acquire) asks it. Model tokens
    /// are never leased.
    ///
    /// # Panics
    ///
    /// If a closure of the rules or a recorder of `metrics` does.
    pub fn try_acquire<'a>(&self, head: impl Into<RequestHead<'a>>) -> Result<Permit, Box<Denial>> {
        permit_of(self.tries.decide(head.into()))
    }

    /// Charges a piece of work as [`try_acquire`](Self::try_acquire) does, and waits as a request would: in line, if
    /// its limits allow that ([`Limits::max_wait`](crate::Limits::max_wait)), for a lease, and for the answer of a
    /// store.
    ///
    /// # Errors
    ///
    /// As of `try_acquire`, without the need of the store. If the store is down, the denial may be
    /// [unavailable](Denial::is_unavailable).
    ///
    /// # Panics
    ///
    /// As `try_acquire`, and if the work has to wait outside of a tokio runtime with time enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready leaves the line, and nothing stays charged.
    pub fn acquire<'a>(
        &'a self,
        head: impl Into<RequestHead<'a>>,
    ) -> impl Future<Output = Result<Permit, Box<Denial>>> + Send {
        let head = head.into();
        async move {
            let mut pending = match self.permits.decide(head) {
                Decided::Wait(pending) => Some(pending),
                decided => return permit_of(decided),
            };
            let decided = poll_fn(|cx| Pending::poll(&mut pending, head, cx)).await;
            match decided {
                Ok(Admitted { ticket, .. }) => Ok(Permit::new(ticket)),
                Err(refusal) => Err(denial_of(refusal)),
            }
        }
    }

    /// Returns a snapshot of the throttle: each limit with its settings, balance and counts.
    ///
    /// A snapshot takes some microseconds for each ten limits, and takes no lock that a request waits for, so it may be
    /// taken each second under full load. Requests in mid-decision may be missing from it, and are in the next one.
    ///
    /// ```
    /// use tower_throttle::{Rate, Rules, ThrottleLayer};
    ///
    /// let throttle = ThrottleLayer::new(Rules::new().total(Rate::per_second(10).burst(5)))?;
    /// let snapshot = throttle.handle().snapshot();
    /// assert_eq!(snapshot.limits[0].remaining, Some(5));
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.active.snapshot()
    }
}

/// Returns the permit of work that was decided at once.
fn permit_of(decided: Decided) -> Result<Permit, Box<Denial>> {
    match decided {
        Decided::Pass => Ok(Permit::new(None)),
        Decided::Hold(slot) => Ok(Permit::new(Some(Ticket::Slot(slot)))),
        Decided::Admit(ticket) => Ok(Permit::new(Some(ticket))),
        Decided::Refuse(refusal) => Err(denial_of(refusal)),
        Decided::Wait(_) => unreachable!("work that may not wait is decided at once"),
    }
}

/// Returns the denial of work that is refused.
fn denial_of(refusal: Refusal) -> Box<Denial> {
    match refusal {
        Refusal::Denied(denial) | Refusal::Custom { denial, .. } => denial,
        Refusal::Answered(_) => unreachable!("no answer is written to work that is no request"),
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { active, .. } = self;
        f.debug_struct("Handle")
            .field("active", active)
            .finish_non_exhaustive()
    }
}
