//! The layer.

#[cfg(feature = "test-util")]
mod at;

use std::{sync::Arc, time::Duration};

use tower::Layer;

use crate::{
    clock::{Clock, Timeline},
    decision::DecisionIn,
    engine::{ActiveRules, Engine, options::Options},
    handle::Handle,
    response::{Protocol, Rejection},
    rules::{Rules, RulesError},
    service::Throttle,
    store::{Store, client::OnOutage},
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
    engine: Arc<Engine>,
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
        Self::with_clock(&rules, Timeline::start())
    }

    fn with_clock(rules: &Rules, clock: Timeline) -> Result<Self, RulesError> {
        let live = ActiveRules::new(rules, clock)?;
        Ok(Self {
            engine: Arc::new(Engine::new(Arc::new(live), Options::default())),
        })
    }

    /// Sets whether admitted responses carry `RateLimit-Policy` and `RateLimit`. Without this call: yes.
    ///
    /// The fields are added to those that the inner service writes itself, never in their place. Refusals carry the
    /// fields either way, unless [`rejection`](Self::rejection) answers otherwise.
    pub fn fields(self, fields: bool) -> Self {
        self.with(|options| options.fields = fields)
    }

    /// Sets where the [`Decision`](crate::Decision) on each request is put: into the extensions of the request, of the
    /// response, or of both. Without this call: nowhere, since extensions cost more than the rest of a decision.
    ///
    /// Without decisions and without [`fields`](Self::fields), an admitted request costs no allocation, as long
    /// as it has no more than four limits, none of them of model tokens, no cap in flight for each client where clients
    /// have a [secret](crate::Clients::secret), and no `%` in its path.
    pub fn decision(self, place: DecisionIn) -> Self {
        self.with(|options| options.decision = place)
    }

    /// Staggers `Retry-After` so that clients refused together do not retry together. Default: `false`, every refusal
    /// tells its true wait.
    ///
    /// SDKs come back exactly when they were told. Of fifty calls at once with a burst of five and ten a second, about
    /// ten succeed within two retries if all are told the true wait; the others come back together and give up. With a
    /// spread:
    ///
    /// - Where the limit is the total's or a route's and [`Rules::clients`](crate::Rules::clients) identifies the
    ///   client, each client is told a place in a virtual line: the true wait, and one interval more for each client
    ///   before it. All fifty succeed. A client that comes back too early is told its place again and is not counted
    ///   twice. The line begins anew when the bucket may have been full, and is at most twice as long as the limit
    ///   needs to serve the clients refused in one refill of its burst (of at least a second).
    /// - Everywhere else, a client's own limit and anonymous clients included, requests cannot be told apart. A jitter
    ///   is added between zero and the time in which the burst refills, a second for quotas and slots.
    ///
    /// Nobody is told less than its wait, and the first refusal after the bucket may have been full is told the true
    /// one. A wait of at most a minute, which SDKs sleep through, is not lifted above it, and at most a minute is added
    /// to a longer one. [`max_wait`](crate::Limits::max_wait), deadlines and gRPC's pushback of -1 go by the true wait.
    ///
    /// # Cost
    ///
    /// A client that obeys a spread wait comes later than it could, and others take what came back meanwhile. Beside a
    /// client that retries without sleeping, that is most of it where requests cannot be told apart, and clients under
    /// many addresses or keys lengthen a line together. So it is off by default. To serve a herd, let it wait:
    /// [`Limits::max_wait`](crate::Limits::max_wait) keeps a real line.
    pub fn spread(self, spread: bool) -> Self {
        self.with(|options| options.spread = spread)
    }

    /// Sets whether the model tokens of a request are read from its answer as the answer goes by, for handlers that
    /// cannot be changed. Without this call: no.
    ///
    /// The count of a JSON answer is the `usage.total_tokens` that OpenAI's API tells; of a stream of events
    /// (`text/event-stream`), the last one. Such a stream tells a total only if it was asked to, with
    /// `stream_options: {"include_usage": true}`. Where there is no total, the count is the sum of `prompt_tokens` and
    /// `completion_tokens`, or of `input_tokens` and `output_tokens`. The account is settled at the count when the
    /// response ends, unless the handler has done so; an answer that tells nothing, that is compressed or of another
    /// type leaves the account as it is. Nothing is held back or copied, and what is kept meanwhile is a few hundred
    /// bytes.
    ///
    /// An answer is believed as far as it can be true: a report above what was reserved, four tokens for each byte of
    /// the answer and 16,777,216 tokens that leave no byte (a context of ten million tokens, the largest of a model,
    /// and reasoning that is not sent) changes nothing, as if the answer had told nothing. Snapshots count such answers
    /// ([`RouteSnapshot::implausible_usage`](crate::RouteSnapshot::implausible_usage)), and the log tells them. What a
    /// handler [settles](crate::Usage::settle) is charged whatever it is.
    ///
    /// Reading is of use only where a limit counts [tokens](crate::Limits::tokens).
    pub fn usage_from_openai_response(self, read: bool) -> Self {
        self.with(|options| options.usage_from_answer = read)
    }

    /// Sets the framing of refusals. Without this call: [`Protocol::Auto`].
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.with(|options| options.protocol = protocol)
    }

    /// The answer to refused requests. Without this call: [`Problem`](crate::Problem). A
    /// [`Dialect`](crate::Dialect) answers as the clients of a known API expect it, and says so on admitted
    /// responses too. [`Rules::rejection`] answers for a single route.
    ///
    /// A closure has to name the types of its arguments:
    ///
    /// ```
    /// use http::{Response, request::Parts};
    /// use tower_throttle::{Denial, Rules, ThrottleLayer};
    ///
    /// let throttle = ThrottleLayer::new(Rules::new())?
    ///     .rejection(|denial: &Denial, _: &Parts| Response::new(denial.route().to_owned()));
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    pub fn rejection(self, rejection: impl Rejection) -> Self {
        self.with(|options| {
            options.dialect = rejection.dialect();
            options.tells_more = options.dialect.tells_more();
            options.rejection = Some(Arc::new(rejection));
        })
    }

    /// Sets whether gRPC refusals carry `grpc-retry-pushback-ms`. Without this call: no.
    ///
    /// The pushback makes clients with a retry policy come back after the wait, some of them (gRPC for Java and
    /// .NET) even if that policy does not list `RESOURCE_EXHAUSTED`. Its value, in
    /// milliseconds, is -1, do not retry, where the wait reaches the client's `grpc-timeout`, is longer than 2^31 - 1
    /// (some 24.8 days), or the request can never pass (gRFC A6).
    pub fn grpc_retry_pushback(self, pushback: bool) -> Self {
        self.with(|options| options.grpc_retry_pushback = pushback)
    }

    /// Sets the clock by which the throttle decides. Without this call: [`Clock::tokio`].
    ///
    /// [`Clock::counter`], with the feature `quanta`, is read faster. Waits and deadlines are slept through by tokio's
    /// timers either way, and a [store](Self::store) has a clock of its own.
    ///
    /// Call this method before the layer is cloned or wraps something. The other clock goes on from the moment that
    /// the present one shows. A later call changes the clock of all clones and services, and a request that is decided
    /// in that moment may find time a little earlier.
    ///
    /// # Errors
    ///
    /// [`RulesError::SecondClock`] if the throttle was given a clock already.
    #[expect(clippy::needless_pass_by_value, reason = "as with all settings")]
    pub fn clock(self, clock: Clock) -> Result<Self, RulesError> {
        self.engine.active.choose(&clock)?;
        Ok(self)
    }

    /// Keeps the rates, quotas and rates of model tokens in a store that replicas share, so that each limit holds for
    /// all replicas together. Caps on what is [in flight](crate::Limits::in_flight) hold per process all the same: a
    /// slot belongs to a process, and ends with it.
    ///
    /// Replicas share a limit that they know by the same name: what the limit [holds for](crate::Scope) (the total, a
    /// route key, a plan), its kind, and the name that it was given, or else its period. So replicas should have the
    /// same rules; where for a while they have not, as in a rolling update, what was used of a limit is used under
    /// either of its settings.
    ///
    /// A request that is charged in the store waits for its answer, and for no longer than
    /// [`store_deadline`](Self::store_deadline). [`on_outage`](Self::on_outage) says what becomes of the request then.
    ///
    /// Call this method before the layer is cloned or wraps something, for balances that were kept before are left
    /// behind. The call needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`RulesError::NoSecret`] if clients are limited and [`Clients::secret`](crate::Clients::secret) was not given,
    /// and [`RulesError::SecondStore`].
    pub fn store(self, store: impl Store) -> Result<Self, RulesError> {
        self.engine.active.connect(Arc::new(store))?;
        Ok(self)
    }

    /// Sets the fate of requests while the [store](Self::store) is down. Without this call: each process enforces the
    /// limits by itself, as if it were the only one.
    ///
    /// The store is marked down by the first call that is not answered in time, or whose answer says that the store can
    /// take nothing from anybody. Requests that are under way by then find that out for themselves. The store is asked
    /// at once whether it is up again, and then after 20 ms, 40 ms and so on up to a second.
    pub fn on_outage(self, on_outage: OnOutage) -> Self {
        self.with(|options| options.on_outage = on_outage)
    }

    /// Sets the time for which a request waits for the [store](Self::store). Without this call: 25 ms. At zero an answer
    /// counts only if the store gives it at once, as no server does. The time is that of tokio's clock: a test that
    /// pauses that clock and asks a real server has no answer in time.
    ///
    /// What the store takes after that is given back, unless the request was let through.
    pub fn store_deadline(self, deadline: Duration) -> Self {
        self.with(|options| options.store_deadline = deadline)
    }

    /// Lets this process take up to `units` units of a limit in the [store](Self::store) at once, and spend them on the
    /// requests that come without asking again: a *lease*. Without this call, and with 0 or 1, each request asks.
    ///
    /// A lease admits nothing that would not have been admitted: a unit counts as used when it is leased, and what is
    /// not used lapses as the bucket is refilled, or when a quota's window ends. So a process that stops leaves nothing
    /// to be cleaned up; what nobody has used for a second or two is given back, as far as nobody came since, and
    /// [`Handle::return_leases`] does so at once. Until then others find as much less, which is why a lease is never
    /// more than half of what is left, a quarter of what the bucket holds, or what its rate gives in a second. Where
    /// that is less than one, as for a client with a burst of three, where shadows look on, and where model tokens are
    /// reserved, requests ask each time. At most 32,768 buckets are leased; requests that are charged on others ask.
    ///
    /// Balances are told to clients as this process knows them: units that others have used since it asked are not
    /// counted. All replicas should lease, or none. Where some do not, each unit that they give back (for requests whose
    /// clients have gone before the answer) may let another request pass.
    pub fn lease(self, units: u64) -> Self {
        self.with(|options| options.lease = units)
    }

    /// This throttle from outside: to change its rules while it works.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(
            Arc::clone(&self.engine.active),
            self.engine.options.protocol,
        )
    }

    /// Returns the number of requests that were charged to overflow buckets, for lack of room in the table of clients;
    /// see [`Clients::max_clients`](crate::Clients::max_clients). Counted for each of a request's limits,
    /// those included that were given back because another limit refused.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.engine.active.rules().limiter.clients.overflowed()
    }

    fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut Arc::make_mut(&mut self.engine).options);
        self
    }
}

impl<S> Layer<S> for ThrottleLayer {
    type Service = Throttle<S>;

    fn layer(&self, inner: S) -> Throttle<S> {
        Throttle::new(inner, Arc::clone(&self.engine))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[test]
    fn a_clock_is_given_once() {
        let throttle = ThrottleLayer::new(Rules::new()).expect("proper rules");
        let throttle = throttle.clock(Clock::tokio()).expect("the first");
        for throttle in [throttle.clone(), throttle] {
            let second = throttle.clock(Clock::tokio()).map(|_| ());
            assert_eq!(second, Err(RulesError::SecondClock));
        }
    }

    #[test]
    fn auto_traits() {
        fn traits<T: Clone + fmt::Debug + Send + Sync + Unpin + 'static>() {}
        traits::<ThrottleLayer>();
        traits::<Throttle<()>>();
    }

    /// Threads ask for as long as two lines of the clock hold, and each request is decided between two of its moments.
    #[cfg(feature = "quanta")]
    #[test]
    fn the_bound_holds_by_the_counter() {
        use std::{convert::Infallible, thread};

        use http::{Request, Response};
        use tower::{ServiceExt, service_fn};

        use crate::{limit::rate::Rate, windows};

        const BURST: u64 = 5;
        const INTERVAL: u64 = 100_000;
        let rate = Rate::new(1, Duration::from_nanos(INTERVAL)).burst(BURST);
        let throttle = ThrottleLayer::new(Rules::new().total(rate)).expect("proper rules");
        let throttle = throttle.clock(Clock::counter()).expect("the first");
        let limiter = Arc::clone(&throttle.engine.active.rules().limiter);
        let end = limiter.now() + 1_500_000_000;
        let ask = || {
            let mut admitted = Vec::new();
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.expect("a runtime");
            let serve = |_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) };
            loop {
                let before = limiter.now_ordered();
                let service = throttle.layer(service_fn(serve));
                let Ok(response) = runtime.block_on(service.oneshot(Request::new(())));
                let after = limiter.now_ordered();
                if response.status().is_success() {
                    admitted.push((before, after));
                }
                if after > end {
                    return admitted;
                }
            }
        };
        let admitted: Vec<_> = thread::scope(|scope| {
            let threads = [(); 3].map(|()| scope.spawn(ask));
            let admitted = threads.map(|thread| thread.join().expect("no panic"));
            admitted.into_iter().flatten().collect()
        });
        assert!(admitted.len() >= 5, "the burst at least");
        assert_eq!(windows::too_many(&admitted, BURST, INTERVAL), None);
    }
}
