//! A throttle from outside: to change it, and to look at it.

use std::sync::Arc;

use crate::{
    decision::Decision,
    engine::ActiveRules,
    head::RequestHead,
    observe::snapshot::Snapshot,
    response::Protocol,
    rules::{Changes, Rules, RulesError},
};

/// A throttle from outside of its services: to change its rules while it works, and to look at it. From
/// [`ThrottleLayer::handle`](crate::ThrottleLayer::handle).
///
/// Clones refer to the same throttle, which is that of all services that the layer or a clone of it wraps.
#[derive(Debug, Clone)]
pub struct Handle {
    active: Arc<ActiveRules>,
    protocol: Protocol,
}

impl Handle {
    pub(crate) fn new(active: Arc<ActiveRules>, protocol: Protocol) -> Self {
        Self { active, protocol }
    }

    /// Puts other rules into the place of those that hold: all at once, while requests go on.
    ///
    /// ```
    /// use tower_throttle::{Rate, Rules, ThrottleLayer};
    ///
    /// let throttle = ThrottleLayer::new(Rules::new().default_route(Rate::per_second(10).burst(5)))?;
    /// let handle = throttle.handle();
    ///
    /// let changes = handle.reload(Rules::new().default_route(Rate::per_second(20).burst(5)))?;
    /// assert_eq!(
    ///     changes.to_string(),
    ///     "default route, limit `default`: 10 in 1s, burst 5 => 20 in 1s, burst 5",
    /// );
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    ///
    /// # What stays
    ///
    /// A limit of a scope (the total, a route key, a plan, a plan on a route key) is the one before it with the same
    /// settings; or else of the same kind with the same name; or else the next one of the same kind and period there,
    /// or the next one of the same kind; and at last one of another kind with the same name. A
    /// [shadow](crate::Rate::shadow) and an enforced limit are never the same. In a
    /// [store](crate::ThrottleLayerBuilder::store) a limit is known by its scope, kind and name; without a name, by its
    /// scope, kind and period.
    ///
    /// - **Used units stay used**, in units: ten requests in debt are ten requests in debt under any other rate and
    ///   burst, model tokens too. A larger burst or quota adds what it is larger by, and nothing else. However often
    ///   rules are reloaded, no more passes than the largest of the bursts and the fastest of the rates in force would
    ///   have let through.
    /// - **Slots** that are held count against the new cap, and free it when they end.
    /// - **A waiting request** keeps its place in line and is decided by the new rules when its turn comes; as long as
    ///   it may wait stays what it was.
    /// - **Clients** stay whom they were, and so do their limits, plan by plan.
    /// - A **closed** limit keeps its balances for the day on which it is opened: a limit of zero its own, and a scope
    ///   that is closed, by [`Limits::closed`](crate::Limits::closed) or any limit of zero, those of all limits that it
    ///   had, slots included. They go over to other routes as those of a route that is open.
    ///
    /// A limit that is new in an open scope starts full, and one that is gone from there is forgotten; so are all
    /// limits of a total, a default route or clients that have none in between. A cap on what is in flight that becomes
    /// a rate, or the other way, is new; so is a shadow that is enforced. A quota that gets another window takes what
    /// was used of the old one along.
    ///
    /// # Routes that get or lose a key
    ///
    /// A route that gets a key of its own goes on with what was used before, in its limits, its slots and its line. So
    /// does a route that loses its key, and one whose requests fall under a key that is more or less specific:
    ///
    /// - A route begins with what was used on the route that took its requests before; if there were several, as for a
    ///   key with parameters, on the one where most was used. Its slots are all that are held on any of them.
    /// - If the requests of one route are spread over several, each begins with what was used on the one. Slots that
    ///   come back and model tokens that are settled later change all of them.
    /// - Model tokens that come back to a route that follows several others stay used there.
    /// - The same holds for undeclared routes that [shared](crate::rules::Undeclared) their limits and have their own
    ///   now, and the other way. What they shared follows the limits of the default route, for those that are asked for
    ///   later.
    /// - So it does for requests that `$default` takes or leaves as [`Rules::catch_all`](crate::Rules::catch_all)
    ///   changes.
    ///
    /// Limits of clients on single routes are new with their key. Balances that lie in a
    /// [store](crate::ThrottleLayerBuilder::store) go on only where the key is what the host's router calls the route,
    /// such as `GET /models/{id}`; otherwise the route has another name there, and is full.
    ///
    /// Routes that have lost their keys are remembered until all that was used there has come back, the last 65,536 of
    /// them. One beyond that is forgotten, the first to lose its key first: it is full when it is next asked for, so
    /// that the bound above holds for it only from then on.
    ///
    /// The settings of the layer stay as they were built.
    ///
    /// # Errors
    ///
    /// As [`ThrottleLayer::new`](crate::ThrottleLayer::new), and for another
    /// [`max_clients`](crate::Clients::max_clients) than that of the first rules with limits of clients. The rules that
    /// hold then go on, untouched.
    ///
    /// # Panics
    ///
    /// If a recorder of `metrics` does, when it is asked for counters. The new rules hold then.
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
    /// Dropped before it has ended, it changes nothing.
    pub async fn drained(&self) {
        let counted = self.active.gate.drained().await;
        counted.expect("`drained` needs `ThrottleLayerBuilder::track_in_flight(true)`");
    }

    /// Gives back what this process has [leased](crate::ThrottleLayerBuilder::lease) of limits and not spent: for one
    /// that is about to end. Without a store and without leases there is nothing to do.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it has ended, leases may be given back or may lapse.
    pub async fn return_leases(&self) {
        let remote = self.active.rules().store.clone();
        if let Some(remote) = remote {
            remote.return_leases().await;
        }
    }

    /// Returns what would be decided on a request now. It charges nothing and changes nothing, and the inner service is
    /// not called.
    ///
    /// The decision tells each limit as the request would leave it, or, if it would be refused, as it is, with the
    /// wait. Closures that identify clients and estimate tokens are called.
    ///
    /// - A request that would wait in line is told as refused, with the time until its limits have room. Requests ahead
    ///   of it are not counted in that time.
    /// - Requests are read by the [protocol](crate::ThrottleLayerBuilder::protocol) that the layer had when this handle
    ///   was made.
    /// - For limits in a [store](crate::ThrottleLayerBuilder::store) it tells what this process knows of them,
    ///   and takes the rest for full: the store is not asked.
    /// - An undeclared route that nobody has asked for yet is told as `$default`, with limits that are full.
    /// - On a [closed](Self::close) throttle it is a refusal without limits.
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
        self.active.preview(request.into(), self.protocol)
    }

    /// Returns a snapshot of the throttle: each limit with its settings, what remains and what was counted.
    ///
    /// A snapshot takes some microseconds for each ten limits and no lock that a request waits for, so that one may be
    /// asked for each second under full load. Requests in mid-decision may be missing from it, and are in the next one.
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
