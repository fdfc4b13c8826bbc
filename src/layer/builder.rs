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
    /// The fields are added beside fields of the inner service with the same name, and replace none. Refusals carry the
    /// fields in any case, unless a [`rejection`](Self::rejection) leaves them out.
    pub fn rate_limit_headers(self, headers: bool) -> Self {
        self.with(|options| options.rate_limit_headers = headers)
    }

    /// Sets where the [`Decision`](crate::Decision) on each request is put: into the extensions of the request, of the
    /// response, or of both. Default: [`DecisionIn::Nowhere`], since extensions cost more than the rest of a decision.
    ///
    /// Without decisions and [`rate_limit_headers`](Self::rate_limit_headers), an admitted request makes no allocation.
    /// Exceptions are requests with more than four limits, with a limit of model tokens, with a cap in flight for each
    /// client where clients have a [secret](crate::Clients::secret), with second budgets, with refunds, or with slots
    /// that handlers may keep; requests that wait, in line or for a store; requests that may be read in several ways,
    /// such as those with a `%` or `//` in the path; the first request of an undeclared route; and all requests with
    /// [`track_in_flight`](Self::track_in_flight).
    pub fn decision(self, place: DecisionIn) -> Self {
        self.with(|options| options.decision = place)
    }

    /// Sets whether `Retry-After` is staggered, so that clients refused together do not retry together. Default:
    /// `false`, every refusal tells its true wait.
    ///
    /// SDKs retry exactly after the wait that they were told. Of fifty calls at once, with a burst of five and ten a
    /// second, about ten succeed within two retries if all are told the true wait. The others retry together and give
    /// up. With staggered waits:
    ///
    /// - If the limit is that of the total or a route, and [`Rules::clients`](crate::Rules::clients) identifies the
    ///   client, each client gets a place in a virtual line. It is told the true wait, and one interval more for each
    ///   client before it. All fifty succeed. A client that retries too early gets the same place again, and is not
    ///   counted twice. The line starts again when the bucket may have been full. It is at most twice as long as the
    ///   limit needs to serve the clients that are refused in one refill of its burst (of at least a second).
    /// - Otherwise, as for a client's own limit and for anonymous clients, requests cannot be distinguished. A random
    ///   time is added, at most that in which the burst refills, or a second for quotas and slots.
    ///
    /// No client is told less than its wait. The first refusal after the bucket may have been full tells the true wait.
    /// A wait of at most a minute, which SDKs sleep through, stays at most a minute, and at most a minute is added to a
    /// longer one. [`max_wait`](crate::Limits::max_wait), deadlines and gRPC's pushback of -1 use the true wait.
    ///
    /// # Cost
    ///
    /// A client that obeys a staggered wait retries later than it could, and other clients take the units meanwhile.
    /// Where requests cannot be distinguished, a client that retries without sleeping takes most of them. Clients with
    /// many addresses or keys lengthen a line together. So this is off by default. A herd is served best by a real
    /// line: [`Limits::max_wait`](crate::Limits::max_wait).
    pub fn stagger_retry_after(self, stagger: bool) -> Self {
        self.with(|options| options.stagger_retry_after = stagger)
    }

    /// Sets whether the model tokens of a request are read from its answer as the answer passes, for handlers that
    /// cannot be changed. Default: `false`. Of use only with a limit of [tokens](crate::Limits::tokens) or of
    /// [money](crate::Limits::spend). [`Limits::usage_from_answers`](crate::Limits::usage_from_answers) sets it for
    /// single routes.
    ///
    /// The reservation is settled at the reported usage when the response ends, unless the handler has settled it. The
    /// guide [Serving models](crate::guides::models#usage-from-answers) lists the formats that are read: those of
    /// OpenAI, Anthropic, Gemini, Bedrock's Converse, Cohere, Ollama and llama.cpp, as one JSON text, as a stream of
    /// events or as lines. Reading delays and copies nothing, allocates nothing for a frame, and takes about half a KiB
    /// of memory.
    ///
    /// # Answers without a report
    ///
    /// Without a report nothing comes back. The request owes the larger of its reservation and of its input with the
    /// output that was sent: the reported input, or else the estimated one, and a token for every four bytes of text,
    /// at least one for an event with text. So a client pays for what it received if it goes away early, or does not
    /// ask for the report (OpenAI's `stream_options`). A stream of events that is compressed, or whose data is not JSON,
    /// counts with all its bytes. Of other answers that are not read, the reservation stands.
    ///
    /// A stream with data that is neither JSON nor the mark `[DONE]` reports nothing: a server that sends the words of
    /// its model as they are would let its clients ask for a report, and the model write it. A handler of such a server
    /// [settles](crate::Usage::settle) the usage.
    ///
    /// Successful answers without a report are counted by reason in
    /// [`RouteSnapshot::missing_usage`](crate::snapshot::RouteSnapshot::missing_usage), and logged.
    ///
    /// Place compression outside of the throttle, so that answers pass the throttle before they are compressed.
    ///
    /// # Implausible reports
    ///
    /// A report is believed up to the sum of the reservation, four tokens for each byte of the answer, and 16,777,216
    /// tokens without a byte (a context of ten million tokens, the largest of a model, and hidden reasoning). A larger
    /// one counts as none. A report replaces the tokens that a handler has [added](crate::Usage::add). A count that a
    /// handler [settles](crate::Usage::settle) is always charged, and no report changes it.
    pub fn usage_from_answers(self, read: bool) -> Self {
        self.with(|options| options.usage_from_answers = read)
    }

    /// Sets the framing of refusals. Default: [`Protocol::Auto`].
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.with(|options| options.protocol = protocol)
    }

    /// Sets the answer to refused requests. Default: [`Problem`](crate::response::Problem).
    ///
    /// A [`Dialect`](crate::response::Dialect) answers as clients of a known API expect it, and adds the fields of that
    /// API to admitted responses. [`Rules::rejection`] sets the answer of a single route.
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
    /// The pushback has clients with a retry policy retry after the wait. Some clients (gRPC for Java and .NET) then
    /// retry even if their policy does not list `RESOURCE_EXHAUSTED`. The value is in milliseconds. It is -1, which
    /// means no retry, if the wait reaches the client's `grpc-timeout`, if it is longer than 2^31 - 1 (some 24.8 days),
    /// or if the request can never pass (gRFC A6). Refusals of a [closed](crate::Handle::close) throttle have no
    /// pushback.
    pub fn grpc_retry_pushback(self, pushback: bool) -> Self {
        self.with(|options| options.grpc_retry_pushback = pushback)
    }

    /// Sets the clock by which the throttle decides. Default: [`Clock::tokio`].
    ///
    /// [`Clock::counter`], with the feature `quanta`, is read faster. Waits and deadlines use tokio's timers with any
    /// clock. A [store](Self::store) has its own clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets a store for the balances of rates, quotas and rates of model tokens, which replicas share, so that each
    /// limit holds for all replicas together. Default: no store, each process keeps its own balances. Caps on requests
    /// [in flight](crate::Limits::in_flight) always hold for one process: a slot belongs to a process, and ends with
    /// it.
    ///
    /// Replicas share a limit by its name in the store: its [scope](crate::limit::Scope) (the total, a route key, a
    /// plan), its kind, and its own name, or else its period. So replicas should have the same rules. While they have
    /// not, as in a rolling update, units that are used under one setting of a limit are used under the other, too.
    ///
    /// A request that is charged in the store waits for its answer, for at most
    /// [`store_deadline`](Self::store_deadline). After that, [`on_outage`](Self::on_outage) decides.
    ///
    /// With limits of clients, [`build`](Self::build) requires [`Clients::secret`](crate::Clients::secret).
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Sets the decision on requests while the [store](Self::store) is down. Default: `OnOutage::Local { share: 1 }`,
    /// each process enforces the limits by itself, as if it were the only one.
    ///
    /// The store counts as down after the first call that is not answered in time, or whose answer says that the store
    /// can charge nothing. Requests that already wait for an answer go on waiting, each until its own
    /// deadline. The store is asked at once whether it is up
    /// again, and then after 20 ms, 40 ms and so on up to a second.
    ///
    /// Model tokens and money that are settled meanwhile are corrected in the store when it is up again: see the guide
    /// [Replicas](crate::guides::replicas#corrections).
    pub fn on_outage(self, on_outage: OnOutage) -> Self {
        self.with(|options| options.on_outage = on_outage)
    }

    /// Sets the longest time for which a request waits for the [store](Self::store). Default: 25 ms. With zero, only an
    /// immediate answer counts, which no server gives. The time is measured by tokio's clock: in a test that pauses
    /// this clock, a real server never answers in time.
    ///
    /// Charges that the store makes later are given back, unless the request was admitted.
    pub fn store_deadline(self, deadline: Duration) -> Self {
        self.with(|options| options.store_deadline = deadline)
    }

    /// Sets the size of leases: this process takes up to `units` units of a limit from the [store](Self::store) at
    /// once, and spends them on later requests without a call. Default: 0. With 0 and 1, each request makes a call.
    ///
    /// Leases exceed no limit: a unit counts as used when it is leased. Unused units lapse as the bucket refills, or
    /// when the window of a quota ends, so a process that stops needs no clean-up. Units that are unused for a second
    /// or two are given back, as far as no other request has come since.
    /// [`Handle::return_leases`](crate::Handle::return_leases) gives them back at once.
    ///
    /// Until then other processes find fewer units. So a lease is at most half of what is left, a quarter of the
    /// bucket, and the rate of one second. Where that is less than one unit, as for a client with a burst of three,
    /// each request makes a call. So do requests with shadows or limits of model tokens. At most 32,768 buckets have
    /// leases.
    ///
    /// Clients are told the balances that this process knows, without units that others have used since its last call.
    /// All replicas should have leases, or none. Otherwise each unit that a replica without leases gives back (for a
    /// request whose client has gone before the answer) may let another request pass.
    pub fn lease(self, units: u64) -> Self {
        self.with(|options| options.lease = units)
    }

    /// Sets whether requests in flight are counted, for [`Handle::in_flight`](crate::Handle::in_flight) and
    /// [`Handle::drained`](crate::Handle::drained). Default: `false`.
    ///
    /// A request is in flight from its arrival until the last frame of its answer was handed to the server: while it
    /// waits in line, while the inner service works on it, and while its body is sent. Requests of
    /// [exempt](crate::Limits::exempt) routes count. A refusal ends with the decision. A connection that switches
    /// protocols ends with its response, which has no body, or with the last guard that its
    /// [`Hold`](crate::body::Hold) has given.
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
    /// [`RulesError`] names the route key or limit at fault and says what to write instead. Rules that build fail no
    /// request later. [`RulesError::NoSecret`] if there is a [store](Self::store), clients are limited, and they have
    /// no [`secret`](crate::Clients::secret).
    pub fn build(self) -> Result<ThrottleLayer, RulesError> {
        let Self {
            rules,
            options,
            clock,
            timeline,
            store,
        } = self;
        let timeline = timeline.unwrap_or_else(Timeline::start).by(&clock);
        let store = store.map(|store| (store, options.store_deadline));
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
