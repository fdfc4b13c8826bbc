//! The builder of a layer.

use std::{sync::Arc, time::Duration};

use super::ThrottleLayer;
use crate::{
    clock::{Clock, Timeline},
    decision::DecisionIn,
    engine::{ActiveRules, Engine, options::Options},
    gate::Gate,
    response::{Protocol, Rejection},
    rules::{Rules, RulesError},
    store::{Store, client::OnOutage},
};

/// A builder of a [`ThrottleLayer`], from [`ThrottleLayer::builder`].
///
/// ```
/// use std::time::Duration;
///
/// use tower_throttle::{
///     Rate, Rules, ThrottleLayer,
///     decision::DecisionIn,
///     response::Dialect,
///     store::{MemoryStore, OnOutage},
/// };
///
/// let rules = Rules::new()
///     .default_route(Rate::per_second(10).burst(5))
///     .route("POST /v1/chat/completions", Rate::per_second(2).burst(4));
/// let throttle = ThrottleLayer::builder(rules)
///     .rejection(Dialect::OpenAi)
///     .decision(DecisionIn::Response)
///     .store(MemoryStore::new())
///     .store_deadline(Duration::from_millis(50))
///     .on_outage(OnOutage::Local { share: 2 })
///     .build()?;
/// # let _ = throttle;
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
///
/// Settings may be given in any order, and none of them fails: [`build`](Self::build) is the one place that can. A
/// setting that is given again replaces the one before.
#[derive(Debug, Clone)]
#[must_use]
pub struct ThrottleLayerBuilder {
    rules: Rules,
    options: Options,
    clock: Clock,
    /// The time that was set, and goes on from there. `None`: that of the system, read when the layer is built.
    pub(super) timeline: Option<Timeline>,
    store: Option<Arc<dyn Store>>,
}

impl ThrottleLayerBuilder {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            options: Options::default(),
            clock: Clock::tokio(),
            timeline: None,
            store: None,
        }
    }

    /// Sets whether admitted responses carry `RateLimit-Policy` and `RateLimit`. Default: `true`.
    ///
    /// The fields are added to those that the inner service writes itself, never in their place. Refusals carry the
    /// fields either way, unless [`rejection`](Self::rejection) answers otherwise.
    pub fn rate_limit_headers(self, headers: bool) -> Self {
        self.with(|options| options.rate_limit_headers = headers)
    }

    /// Sets where the [`Decision`](crate::Decision) on each request is put: into the extensions of the request, of the
    /// response, or of both. Default: [`DecisionIn::Nowhere`], since extensions cost more than the rest of a decision.
    ///
    /// Without decisions and without [`rate_limit_headers`](Self::rate_limit_headers), an admitted request costs no
    /// allocation, as long as it has no more than four limits, none of them of model tokens, no cap in flight for each
    /// client where clients have a [secret](crate::Clients::secret), and no `%` in its path.
    pub fn decision(self, place: DecisionIn) -> Self {
        self.with(|options| options.decision = place)
    }

    /// Sets whether `Retry-After` is staggered, so that clients refused together do not retry together. Default:
    /// `false`, every refusal tells its true wait.
    ///
    /// SDKs come back exactly when they were told. Of fifty calls at once with a burst of five and ten a second, about
    /// ten succeed within two retries if all are told the true wait; the others come back together and give up. With
    /// staggered waits:
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
    /// A client that obeys a staggered wait comes later than it could, and others take what came back meanwhile. Beside
    /// a client that retries without sleeping, that is most of it where requests cannot be told apart, and clients
    /// under many addresses or keys lengthen a line together. So it is off by default. To serve a herd, let it wait:
    /// [`Limits::max_wait`](crate::Limits::max_wait) keeps a real line.
    pub fn stagger_retry_after(self, stagger: bool) -> Self {
        self.with(|options| options.stagger_retry_after = stagger)
    }

    /// Sets whether the model tokens of a request are read from its answer as the answer goes by, for handlers that
    /// cannot be changed. Default: `false`.
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
    /// ([`RouteSnapshot::implausible_usage`](crate::snapshot::RouteSnapshot::implausible_usage)), and the log tells
    /// them. What a handler [settles](crate::Usage::settle) is charged whatever it is.
    ///
    /// Reading is of use only where a limit counts [tokens](crate::Limits::tokens).
    pub fn usage_from_openai_response(self, read: bool) -> Self {
        self.with(|options| options.usage_from_answer = read)
    }

    /// Sets the framing of refusals. Default: [`Protocol::Auto`].
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.with(|options| options.protocol = protocol)
    }

    /// Sets the answer to refused requests. Default: [`Problem`](crate::response::Problem).
    ///
    /// A [`Dialect`](crate::response::Dialect) answers as the clients of a known API expect it, and says so on admitted
    /// responses too. [`Rules::rejection`] answers for a single route.
    ///
    /// A closure has to name the types of its arguments:
    ///
    /// ```
    /// use http::{Response, request::Parts};
    /// use tower_throttle::{Denial, Rules, ThrottleLayer};
    ///
    /// let throttle = ThrottleLayer::builder(Rules::new())
    ///     .rejection(|denial: &Denial, _: &Parts| Response::new(denial.route().to_owned()))
    ///     .build()?;
    /// # let _ = throttle;
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    pub fn rejection(self, rejection: impl Rejection) -> Self {
        self.with(|options| {
            options.dialect = rejection.dialect();
            options.tells_more = options.dialect.tells_more();
            options.rejection = Some(Arc::new(rejection));
        })
    }

    /// Sets whether gRPC refusals carry `grpc-retry-pushback-ms`. Default: `false`.
    ///
    /// The pushback makes clients with a retry policy come back after the wait, some of them (gRPC for Java and
    /// .NET) even if that policy does not list `RESOURCE_EXHAUSTED`. Its value, in
    /// milliseconds, is -1, do not retry, where the wait reaches the client's `grpc-timeout`, is longer than 2^31 - 1
    /// (some 24.8 days), or the request can never pass (gRFC A6).
    pub fn grpc_retry_pushback(self, pushback: bool) -> Self {
        self.with(|options| options.grpc_retry_pushback = pushback)
    }

    /// Sets the clock by which the throttle decides. Default: [`Clock::tokio`].
    ///
    /// [`Clock::counter`], with the feature `quanta`, is read faster. Waits and deadlines are slept through by tokio's
    /// timers either way, and a [store](Self::store) has a clock of its own.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Keeps the rates, quotas and rates of model tokens in a store that replicas share, so that each limit holds for
    /// all replicas together. Default: no store, each process keeps its own balances. Caps on what is
    /// [in flight](crate::Limits::in_flight) hold per process all the same: a slot belongs to a process, and ends with
    /// it.
    ///
    /// Replicas share a limit that they know by the same name: what the limit [holds for](crate::limit::Scope) (the
    /// total, a route key, a plan), its kind, and the name that it was given, or else its period. So replicas should
    /// have the same rules; where for a while they have not, as in a rolling update, what was used of a limit is used
    /// under either of its settings.
    ///
    /// A request that is charged in the store waits for its answer, and for no longer than
    /// [`store_deadline`](Self::store_deadline). [`on_outage`](Self::on_outage) says what becomes of the request then.
    ///
    /// Where clients are limited, [`build`](Self::build) asks for [`Clients::secret`](crate::Clients::secret).
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Sets the fate of requests while the [store](Self::store) is down. Default: `OnOutage::Local { share: 1 }`, each
    /// process enforces the limits by itself, as if it were the only one.
    ///
    /// The store is marked down by the first call that is not answered in time, or whose answer says that the store can
    /// take nothing from anybody. Requests that are under way by then find that out for themselves. The store is asked
    /// at once whether it is up again, and then after 20 ms, 40 ms and so on up to a second.
    pub fn on_outage(self, on_outage: OnOutage) -> Self {
        self.with(|options| options.on_outage = on_outage)
    }

    /// Sets the time for which a request waits for the [store](Self::store). Default: 25 ms. At zero an answer counts
    /// only if the store gives it at once, as no server does. The time is that of tokio's clock: a test that
    /// pauses that clock and asks a real server has no answer in time.
    ///
    /// What the store takes after that is given back, unless the request was let through.
    pub fn store_deadline(self, deadline: Duration) -> Self {
        self.with(|options| options.store_deadline = deadline)
    }

    /// Lets this process take up to `units` units of a limit in the [store](Self::store) at once, and spend them on the
    /// requests that come without asking again: a *lease*. Default: 0. With 0 and 1 each request asks.
    ///
    /// A lease admits nothing that would not have been admitted: a unit counts as used when it is leased, and what is
    /// not used lapses as the bucket is refilled, or when a quota's window ends. So a process that stops leaves nothing
    /// to be cleaned up; what nobody has used for a second or two is given back, as far as nobody came since, and
    /// [`Handle::return_leases`](crate::Handle::return_leases) does so at once. Until then others find as much less,
    /// which is why a lease is never more than half of what is left, a quarter of what the bucket holds, or what its
    /// rate gives in a second. Where that is less than one, as for a client with a burst of three, where shadows look
    /// on, and where model tokens are reserved, requests ask each time. At most 32,768 buckets are leased; requests
    /// that are charged on others ask.
    ///
    /// Balances are told to clients as this process knows them: units that others have used since it asked are not
    /// counted. All replicas should lease, or none. Where some do not, each unit that they give back (for requests
    /// whose clients have gone before the answer) may let another request pass.
    pub fn lease(self, units: u64) -> Self {
        self.with(|options| options.lease = units)
    }

    /// Sets whether requests in flight are counted, for [`Handle::in_flight`](crate::Handle::in_flight) and
    /// [`Handle::drained`](crate::Handle::drained). Default: `false`.
    ///
    /// A request is in flight from its arrival until the last frame of its answer was handed to the server: while it
    /// waits in line, while the inner service works on it, and while its body is sent. Requests of
    /// [exempt](crate::Limits::exempt) routes count. A refusal ends with the decision. A connection that switches
    /// protocols ends with its response, which has no body, or with the
    /// [`InFlightGuard`](crate::body::InFlightGuard) in it.
    ///
    /// Each request then makes an allocation and four writes to memory that all threads share, and is decided on in the
    /// general way, which takes longer than the short one of plain limits.
    pub fn track_in_flight(self, track: bool) -> Self {
        self.with(|options| options.track_in_flight = track)
    }

    /// Compiles the rules and makes the layer. All its buckets are full.
    ///
    /// # Errors
    ///
    /// [`RulesError`] names the route key or limit at fault and says what to write instead. Rules that pass here never
    /// fail a request later. With a [store](Self::store), [`RulesError::NoSecret`] if clients are limited and
    /// [`Clients::secret`](crate::Clients::secret) was not given.
    pub fn build(self) -> Result<ThrottleLayer, RulesError> {
        let Self {
            rules,
            options,
            clock,
            timeline,
            store,
        } = self;
        let timeline = timeline.unwrap_or_else(Timeline::start).by(&clock);
        let mut active = ActiveRules::new(&rules, timeline, store)?;
        active.gate = Gate::open(options.track_in_flight);
        Ok(ThrottleLayer {
            engine: Arc::new(Engine::new(Arc::new(active), options)),
        })
    }

    fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut self.options);
        self
    }
}

#[cfg(all(test, feature = "quanta"))]
mod tests {
    use super::*;
    use crate::clock::nanos;

    #[tokio::test(start_paused = true)]
    async fn of_two_clocks_the_last_one_counts() {
        const HOUR: Duration = Duration::from_secs(3_600);
        // The clock of tokio moves by the hour, the counter does not.
        for (first, last, is_advanced) in [
            (Clock::counter(), Clock::tokio(), true),
            (Clock::tokio(), Clock::counter(), false),
        ] {
            let builder = ThrottleLayer::builder(Rules::new()).clock(first);
            let throttle = builder.clock(last).build().expect("proper rules");
            let limiter = Arc::clone(&throttle.engine.active.rules().limiter);
            let before = limiter.now();
            tokio::time::advance(HOUR).await;
            assert_eq!(limiter.now() - before >= nanos(HOUR), is_advanced);
        }
    }
}
