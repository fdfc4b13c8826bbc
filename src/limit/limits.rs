//! The settings of one scope: its limits, and how requests wait for them.

use std::{borrow::Cow, time::Duration};

use super::{
    in_flight::InFlight, quota::Quota, rate::Rate, reservation::Reservation, spend::Spend,
    wait_policy::WaitPolicy,
};
use crate::clock::nanos;

/// The limits of one scope: the whole server, every route, one route, every client, or a usage plan.
///
/// A request must pass all of them, and is charged on all of them or on none.
///
/// ```
/// use tower_throttle::{Limits, Rate};
///
/// let chat = Limits::new()
///     .rate(Rate::per_second(10).burst(20))
///     .rate(Rate::per_hour(6_000))
///     .named("chat");
/// let model = Limits::new().tokens(Rate::per_minute(90_000)).in_flight(8);
/// let health = Limits::exempt();
/// let short: Limits = Rate::per_second(10).into();
/// # let _ = (chat, model, health, short);
/// ```
///
/// # Inheritance
///
/// A route's limits override the default's field by field, and a route inherits the fields that it leaves out. All
/// rates together are one field: a route with a rate of its own has none of the default's rates. The same holds for all
/// quotas, all token rates of a kind, all amounts of money and all caps in flight. A [shadow](Rate::shadow) replaces no
/// enforced limit: a route with shadows alone keeps the default's limits as well.
///
/// A rate comes with its burst: without [`Rate::burst`] the burst is the rate's own count, not the default's burst.
/// [`Limits::new`] leaves everything out, so a route with it has the default's rates, in a bucket of its own.
/// [`Limits::unlimited`] inherits nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Limits {
    pub(crate) rates: Vec<Rate>,
    pub(crate) quotas: Vec<Quota>,
    pub(crate) tokens: Vec<Rate>,
    pub(crate) input_tokens: Vec<Rate>,
    pub(crate) output_tokens: Vec<Rate>,
    pub(crate) spend: Vec<Spend>,
    pub(crate) in_flight: Vec<InFlight>,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) access: Access,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) publish: Option<bool>,
    pub(crate) reservation: Reservation,
    pub(crate) cached_input_percent: Option<u8>,
    pub(crate) cost: Option<u64>,
    pub(crate) keep: Option<bool>,
    pub(crate) refund_failures: Option<bool>,
    pub(crate) usage_from_answers: Option<bool>,
    pub(crate) degrade: Option<Box<Degrade>>,
}

/// A second budget, and the wait above which it is used; see [`Limits::degrade`].
///
/// ```
/// use std::time::Duration;
///
/// use tower_throttle::{Degrade, Limits, Rate};
///
/// let chat = Limits::new()
///     .tokens(Rate::per_minute(90_000))
///     .degrade(Degrade::new(Rate::per_minute(60)).after(Duration::from_secs(2)));
/// # let _ = chat;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Degrade {
    pub(crate) limits: Limits,
    pub(crate) after: Duration,
}

/// The way in which a scope decides: by its limits, or always in the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Access {
    #[default]
    Limited,
    Unlimited,
    Closed,
    Exempt,
}

impl Limits {
    /// Creates empty limits: a route inherits everything from the default route, and a model, a client and the total
    /// have no limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates limits that limit nothing in this scope, whatever the default says.
    ///
    /// Other scopes still hold: the total and the client's limits, slots included, count and refuse the route's
    /// requests. Use [`exempt`](Self::exempt) for a route that must never be refused, such as a health check.
    ///
    /// An enforced limit set beside it is an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn unlimited() -> Self {
        Self {
            access: Access::Unlimited,
            ..Self::default()
        }
    }

    /// Frees a route from every limit: no scope counts its requests, neither the total nor a client, a plan, a slot in
    /// flight or a shadow.
    ///
    /// Use it for health checks:
    ///
    /// ```
    /// use tower_throttle::{Limits, Rate, Rules, ThrottleLayer};
    ///
    /// let rules = Rules::new()
    ///     .total(Rate::per_second(1_000).burst(500))
    ///     .route("GET /health", Limits::exempt())
    ///     .route("POST /grpc.health.v1.Health/Check", Limits::exempt());
    /// let throttle = ThrottleLayer::new(rules)?;
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    ///
    /// Only a declared route with a named method and a path without parameters can be exempt; `GET` includes `HEAD`. A
    /// request that may match another route as well, such as one with escapes in its path, is charged there. Snapshots
    /// count exempt requests in [`RouteSnapshot::exempt`](crate::snapshot::RouteSnapshot::exempt).
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses it for `$default`, `ANY` and paths with parameters,
    /// for the total, the default route, clients and plans, and beside any other setting. A client's or plan's route
    /// with the same key is an error, too.
    pub fn exempt() -> Self {
        Self {
            access: Access::Exempt,
            ..Self::default()
        }
    }

    /// Creates limits that refuse every request, like a rate of zero.
    ///
    /// An enforced limit set beside it is an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn closed() -> Self {
        Self {
            access: Access::Closed,
            ..Self::default()
        }
    }

    /// Adds a rate. All rates of a scope hold at once.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rates.push(rate);
        self
    }

    /// Adds a quota. All quotas and rates of a scope hold at once.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quotas.push(quota);
        self
    }

    /// Adds a rate of **model tokens**. The cost of a request is estimated and reserved when it is admitted, and
    /// settled when it is known.
    ///
    /// The estimate comes from [`Rules::estimate`](crate::Rules::estimate). A handler counts and settles with the
    /// [`Usage`](crate::Usage) in the request's extensions.
    ///
    /// A request is not refused because its estimate is above the burst: the estimate is a guess, and an image in
    /// base64 looks like a long text. Each limit reserves the smaller of the estimate and a part of its burst. That
    /// part is all of the burst in a client's own bucket, and half of it in a shared bucket (the total, a route,
    /// anonymous clients, clients without room in the table);
    /// [`max_reservation_percent`](Self::max_reservation_percent) sets it. Settling charges the rest, and a bucket that
    /// does not hold enough owes it. To refuse large requests, set
    /// [`max_tokens_per_request`](Self::max_tokens_per_request).
    pub fn tokens(mut self, rate: Rate) -> Self {
        self.tokens.push(rate);
        self
    }

    /// Adds a rate of the **model tokens of requests**: the prompt, and what belongs to it. As
    /// [`tokens`](Self::tokens), with which it may be combined.
    ///
    /// Tokens that the model server writes to its cache count in full, and those that it reads from there as
    /// [`cached_input_percent`](Self::cached_input_percent) states. Estimates and reports that do not tell input from
    /// output count in full.
    ///
    /// ```
    /// use tower_throttle::{Limits, Rate};
    ///
    /// let chat = Limits::new()
    ///     .input_tokens(Rate::per_minute(400_000))
    ///     .output_tokens(Rate::per_minute(80_000))
    ///     .cached_input_percent(10);
    /// # let _ = chat;
    /// ```
    pub fn input_tokens(mut self, rate: Rate) -> Self {
        self.input_tokens.push(rate);
        self
    }

    /// Adds a rate of the **model tokens of answers**, with those of reasoning. As [`tokens`](Self::tokens), with which
    /// it may be combined.
    ///
    /// Estimates and reports that do not tell input from output count in full. At least one token is reserved, also if
    /// the estimate is of the input alone, as it is [by content length](crate::usage::Estimate::by_content_length).
    pub fn output_tokens(mut self, rate: Rate) -> Self {
        self.output_tokens.push(rate);
        self
    }

    /// Adds an **amount of money** that requests may cost, by the [prices](crate::Rules::prices) of the rules.
    ///
    /// The price of a request is estimated and reserved when it is admitted, and settled when its tokens are known, as
    /// for [`tokens`](Self::tokens): a request reserves no more than a part of the amount
    /// ([`max_reservation_percent`](Self::max_reservation_percent)), and at least a millionth of a unit, so that a
    /// spent budget admits no request. Without a settlement the price of the reservation stands, or that of what was
    /// counted.
    ///
    /// A budget is overrun by at most the price that the requests in flight have beyond their reservations, and what is
    /// owed beyond a window's amount is forgotten as the window ends. A request that is settled in a later window than
    /// it was admitted in gives nothing back to the later one, and what it has used beyond its reservation is charged
    /// there.
    ///
    /// Header fields publish amounts of money only if [`publish`](Self::publish) is set: in millionths of a unit.
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) returns an error for an amount that cannot be kept (see
    /// [`Spend`]), for rules without prices, and for more than five amounts in one scope.
    pub fn spend(mut self, spend: Spend) -> Self {
        self.spend.push(spend);
        self
    }

    /// Sets the weight of input tokens that the model server has read from its cache, in percent of other tokens, in
    /// [`tokens`](Self::tokens) and [`input_tokens`](Self::input_tokens) of this scope. Default: 100. With zero they
    /// count nothing. The sum of a request is rounded up.
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) returns an error above 100, and in a scope without such rates.
    pub fn cached_input_percent(mut self, percent: u8) -> Self {
        self.cached_input_percent = Some(percent);
        self
    }

    /// Refuses requests whose estimate is above `tokens`, at once and without a wait to retry after. By default no
    /// estimate is refused for its size, unless it is [exact](crate::usage::Estimate::exact).
    ///
    /// A body of unknown length, as many are in HTTP/2 and with chunked encoding, is estimated at
    /// [`Estimate::or`](crate::usage::Estimate::or), by default 1. If that is above `tokens`, such requests are
    /// refused.
    ///
    /// The bound is one on the tokens of input and output together. It belongs to the token limits of the scope, of
    /// whichever kind, and the refusal names them. A shadow among
    /// them counts the requests that it would refuse. Zero refuses every request. A scope without token limits is an
    /// error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    ///
    /// ```
    /// use tower_throttle::{Limits, Rate};
    ///
    /// let chat = Limits::new()
    ///     .tokens(Rate::per_minute(90_000))
    ///     .max_tokens_per_request(32_000);
    /// # let _ = chat;
    /// ```
    pub fn max_tokens_per_request(mut self, tokens: u64) -> Self {
        self.reservation.max_tokens = Some(tokens);
        self
    }

    /// Sets the largest part of a burst of [tokens](Self::tokens) that one request reserves, in percent. Default: 50 in
    /// shared buckets, so that one estimate does not empty them, and 100 in a client's own bucket.
    ///
    /// At least one token is reserved, even with zero. More than 100 counts as 100.
    pub fn max_reservation_percent(mut self, percent: u8) -> Self {
        self.reservation.max_percent = Some(percent);
        self
    }

    /// Adds a cap on the number of requests in flight, from the decision to the end of the response body.
    ///
    /// A second cap is useful only as a [shadow](InFlight::shadow). More than five caps in one scope are an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn in_flight(mut self, cap: impl Into<InFlight>) -> Self {
        self.in_flight.push(cap.into());
        self
    }

    /// Lets a request that would be refused wait in a queue, for at most `wait`. By default, and with zero, no request
    /// waits.
    ///
    /// All requests of the scope (a route, a client) share one queue, for rates and for slots. It is first come, first
    /// served. A request is refused at once if it would have to wait longer than `wait` or past its `grpc-timeout`, as
    /// far as that is known. The time until a slot is returned is not known: a request waits for a slot, and is refused
    /// when its time is over. If several scopes refuse a request, each of them must allow the wait. A request that is
    /// cancelled while it waits has taken nothing.
    ///
    /// A stalled request blocks no other: a response future that is not polled within 50 ms after it was woken, or
    /// whose time is over, is skipped. The future keeps its turn if it is polled again in time. Requests behind it use
    /// timers of their own, the next in the queue every 50 ms, the one after it every 100 ms, and so on. A runtime that
    /// stalls for longer may admit them in another order.
    ///
    /// The inner service is ready while a request waits, and stays so: whatever it reserves in `poll_ready` stays
    /// reserved.
    ///
    /// # Panics
    ///
    /// Panics if a request has to wait outside of a tokio runtime with time enabled.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    /// Sets the largest number of requests that wait in this scope at a time: on each route, or of each client. Further
    /// requests are refused at once. Default: 100. With zero no request waits. It has no effect without
    /// [`max_wait`](Self::max_wait).
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.max_waiting = Some(requests);
        self
    }

    /// Sets the cost of each request of a route or a model, in units: it takes as many from the rates and quotas of its
    /// client and of the total. Default: 1.
    ///
    /// With a cost of 10 for an image, ten chats count as one image. Limits that hold for one route or one model count
    /// requests, whatever these cost. Caps in flight count requests, and token rates count tokens. A route inherits the
    /// cost of the default route. A request that costs more than one unit takes them without a
    /// [lease](crate::ThrottleLayerBuilder::lease).
    ///
    /// A request that has several costs has the largest: of its route and its model, or of the routes that its path may
    /// mean. One whose model was not read has that of the dearest model, unless
    /// [`Models::unread`](crate::Models::unread) has a cost. While a store is down, a request that costs more than its
    /// [share](crate::store::OnOutage::Local) of a burst takes all of that share.
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses a cost of zero, a cost above the burst of a rate or
    /// the count of a quota that clients or the total have, and a cost on the total, on clients or in a plan.
    ///
    /// ```
    /// use tower_throttle::{Clients, Limits, Quota, Rate, Rules};
    ///
    /// let rules = Rules::new()
    ///     .default_route(Rate::per_second(10))
    ///     .route("POST /v1/images/generations", Limits::new().cost(10))
    ///     .clients(Clients::by_bearer().each(Quota::per_day(1_000)));
    /// # let _ = rules;
    /// ```
    pub fn cost(mut self, units: u64) -> Self {
        self.cost = Some(units);
        self
    }

    /// Sets whether a handler may keep its request in flight beyond the response: it finds a
    /// [`Hold`](crate::body::Hold) in the extensions of the request. Default: `false`. A route inherits the setting of
    /// the default route.
    ///
    /// Set it on routes that open WebSockets, or that answer before their work is done. A request of such a route makes
    /// a few allocations more, and is decided on in the general way, which takes longer than the short one of plain
    /// limits. Requests of other routes pay nothing.
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses it on the total, on clients, in a plan, on a model,
    /// and beside [`exempt`](Self::exempt).
    ///
    /// ```
    /// use tower_throttle::{Limits, Rate, Rules};
    ///
    /// let rules = Rules::new()
    ///     .default_route(Rate::per_second(10))
    ///     .route("GET /v1/realtime", Limits::new().in_flight(100).keep(true));
    /// # let _ = rules;
    /// ```
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = Some(keep);
        self
    }

    /// Sets whether a request of the route costs its client nothing if the inner service fails. Default: `false`. A route
    /// inherits the setting of the default route.
    ///
    /// A response of status 5xx or 429 is a failure, and so is one whose head has a `grpc-status` that stands for one:
    /// 2 (unknown), 8 (resource exhausted), 13 (internal), 14 (unavailable) or 15 (data loss). An error of the inner
    /// service in place of a response is none, nor is an end of the client's. At the head of a failure come back:
    ///
    /// - model tokens and [money](Self::spend), of all scopes, unless the handler has [settled](crate::Usage::settle)
    ///   them;
    /// - units of the rates and quotas of the **client**, on all routes, on the route, and on the model.
    ///
    /// Rates and quotas of the route, the model and the total stay charged, since they protect the server. Slots are held
    /// until the response ends, as always. A request that a handler [keeps](Self::keep) gives nothing back. Units of a quota
    /// come back to the window that they were taken from, or not at all.
    ///
    /// Requests that were given back do not count towards a client's bound. So a client that can provoke failures, such
    /// as timeouts of its own making, is limited by the route, the model and the total alone: give these limits. A request
    /// that its path may take to two routes gives something back only if both say so. Such requests are decided in the
    /// general way, and make an allocation; those of other routes pay nothing.
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses it on the total, on clients, in a plan, on a model, and
    /// beside [`exempt`](Self::exempt).
    ///
    /// ```
    /// use tower_throttle::{Clients, Limits, Quota, Rate, Rules};
    ///
    /// let chat = Limits::new().rate(Rate::per_second(50)).refund_failures(true);
    /// let rules = Rules::new()
    ///     .route("POST /v1/chat/completions", chat)
    ///     .clients(Clients::by_bearer().each(Quota::per_day(1_000)));
    /// # let _ = rules;
    /// ```
    pub fn refund_failures(mut self, refund: bool) -> Self {
        self.refund_failures = Some(refund);
        self
    }

    /// Sets whether the model tokens of a request of the route are read from its answer. Default: as the throttle says
    /// ([`ThrottleLayerBuilder::usage_from_answers`](crate::ThrottleLayerBuilder::usage_from_answers), which tells what
    /// is read). A route inherits the setting of the default route. Without a limit of tokens or money nothing is read.
    ///
    /// Use `false` for a route whose handler settles the usage, or whose answers may have members that only look like
    /// a report. If the path of a request may take it to two routes, its answer is not read if one of them says `false`,
    /// and is read if both say `true`; otherwise the throttle decides.
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses it on the total, on clients, in a plan, on a model, and
    /// beside [`exempt`](Self::exempt).
    ///
    /// ```
    /// use tower_throttle::{Limits, Rate, Rules};
    ///
    /// let tokens = Limits::new().tokens(Rate::per_minute(90_000));
    /// let rules = Rules::new()
    ///     .default_route(tokens)
    ///     .route("POST /v1/chat/completions", Limits::new().usage_from_answers(true));
    /// # let _ = rules;
    /// ```
    pub fn usage_from_answers(mut self, read: bool) -> Self {
        self.usage_from_answers = Some(read);
        self
    }

    /// Sets a second budget for requests that the limits of this scope would refuse: they are charged to it instead, and
    /// go on with [`Degraded`](crate::Degraded) in their extensions, so that the handler picks a smaller model or fewer
    /// tokens.
    ///
    /// Use it where a cheaper answer is better than none:
    ///
    /// ```
    /// use http::Request;
    /// use tower_throttle::{Degraded, Limits, Rate, Rules};
    ///
    /// let rules = Rules::new().route(
    ///     "POST /v1/chat/completions",
    ///     Limits::new()
    ///         .rate(Rate::per_minute(60).burst(10))
    ///         .degrade(Rate::per_minute(600).burst(100)),
    /// );
    ///
    /// fn model(request: &Request<String>) -> &'static str {
    ///     match request.extensions().get::<Degraded>() {
    ///         None => "llama-70b",
    ///         Some(_) => "llama-8b",
    ///     }
    /// }
    /// # let _ = (rules, model(&Request::new(String::new())));
    /// ```
    ///
    /// - The second budget takes the place of this scope's limits, and of no other's: a request that the total or any
    ///   other scope refuses as well is refused. If several scopes refuse and each has a second budget, all of these are
    ///   charged. All limits are charged or none.
    /// - A request that both budgets refuse is refused by the first, and told its wait.
    /// - A request that may [wait](Self::max_wait) waits. A second budget lets nobody wait.
    /// - [`Degrade::after`] keeps short waits as they are.
    /// - Its limits are limits like any other, named as those of the scope with `_degraded` behind it. A shadow of the
    ///   scope stays beside them. Settings of reservations, and of publication, are the scope's unless they are set.
    /// - Admissions by a second budget are counted in
    ///   [`RouteSnapshot::degraded`](crate::snapshot::RouteSnapshot::degraded). Where rate-limit fields are sent, the
    ///   response names the limit that refused in `throttle-degraded`.
    ///
    /// With a [store](crate::ThrottleLayerBuilder::store), the second budget costs a second call, unless the first
    /// refusal is known in this process. A scope that is closed stays closed.
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses it beside [`unlimited`](Self::unlimited),
    /// [`closed`](Self::closed) and [`exempt`](Self::exempt), and beside a limit of zero. It refuses a second budget
    /// without an enforced limit, with a limit of zero, with a wait or a cost, and with a second budget of its own.
    pub fn degrade(mut self, second: impl Into<Degrade>) -> Self {
        self.degrade = Some(Box::new(second.into()));
        self
    }

    /// Names the limits of this scope that have no name of their own: 1 to 64 of `A-Z a-z 0-9 _`.
    ///
    /// One limit gets the name itself: the rate with the shortest period, or else the first quota, token rate, amount
    /// or cap. The others get the name with a suffix for their kind, such as `chat_per_hour`, `chat_daily`,
    /// `chat_tokens`, `chat_output_tokens`, `chat_spend` or `chat_in_flight`; a shadow also gets `_shadow`. Limits of
    /// the same kind and period are numbered by size from the second on.
    ///
    /// Without this call the limits are named after their scope:
    ///
    /// | limits | name |
    /// |---|---|
    /// | of the total | `total` |
    /// | of the default route, and of routes that inherit all of it | `default` |
    /// | of the route `POST /v1/chat` | `post_v1_chat` |
    /// | of the routes `GET /pets/{id}` and `ANY /{proxy+}` | `get_pets__id` and `any___proxy` |
    /// | of the route `$default` | `catch_all` |
    /// | of each client; of clients on the plan `pro` | `client`; `pro` |
    /// | of those on the route `POST /v1/chat` | `client_post_v1_chat`; `pro_post_v1_chat` |
    /// | of the models `small`, `llama-70b`, and others | `model_small`, `model_llama_70b_c2dc7e11`, `model_otherwise` |
    /// | of clients on the model `small` | `client_model_small`; `pro_model_small` |
    ///
    /// Only a rate gets that name alone; all other limits get the suffix of their kind, as in `total_in_flight`. Other
    /// rules never change such a name.
    ///
    /// A hash is appended to a name that another key or plan could also produce, whether there is one or not: a path
    /// with characters other than letters and digits, such as `POST /v1/chat-completions`
    /// (`post_v1_chat_completions_2e5e0cbf`), any gRPC method (`POST /inference.v1.Inference/Generate` becomes
    /// `post_inference_v1_Inference_Generate_599ad515`), a final slash, a custom method, or more than 64 characters. A
    /// limit whose name was given to another limit also gets a hash. Name such limits yourself if people see the names.
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) returns an error for any other character, an empty name, a
    /// name of more than 64 characters, and a name that another limit was given.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets whether the settings and balances of these limits are sent to clients in `RateLimit-Policy` and
    /// `RateLimit`.
    ///
    /// Default: yes for routes and clients; no for the total and for caps in flight of routes, which reveal the
    /// server's capacity, and for amounts of money. A refusal names its limit and the wait in either case.
    pub fn publish(mut self, publish: bool) -> Self {
        self.publish = Some(publish);
        self
    }

    /// Returns the longest wait and the largest number of requests that wait. `None` if no request may wait.
    pub(crate) fn wait_policy(&self) -> Option<WaitPolicy> {
        const MAX_WAITING: usize = 100;
        let wait_policy = WaitPolicy {
            max_wait: nanos(self.max_wait?),
            max_waiting: self.max_waiting.unwrap_or(MAX_WAITING),
        };
        (wait_policy.max_wait > 0 && wait_policy.max_waiting > 0).then_some(wait_policy)
    }

    /// Returns whether any of these limits is enforced, and not a shadow.
    pub(crate) fn enforces_anything(&self) -> bool {
        let Self {
            rates,
            quotas,
            tokens,
            input_tokens,
            output_tokens,
            spend,
            in_flight,
            max_wait: _,
            max_waiting: _,
            access: _,
            name: _,
            publish: _,
            reservation: _,
            cached_input_percent: _,
            cost: _,
            keep: _,
            refund_failures: _,
            usage_from_answers: _,
            degrade: _,
        } = self;
        let mut rates = [rates, tokens, input_tokens, output_tokens].into_iter();
        rates.any(|rates| enforced(rates).next().is_some())
            || enforced(quotas).next().is_some()
            || enforced(spend).next().is_some()
            || enforced(in_flight).next().is_some()
    }

    /// The first setting that was given a value, [`Access`] apart.
    pub(crate) fn first_setting(&self) -> Option<&'static str> {
        let Self {
            rates,
            quotas,
            tokens,
            input_tokens,
            output_tokens,
            spend,
            in_flight,
            max_wait,
            max_waiting,
            access: _,
            name,
            publish,
            reservation:
                Reservation {
                    max_tokens,
                    max_percent,
                },
            cached_input_percent,
            cost,
            keep,
            refund_failures,
            usage_from_answers,
            degrade,
        } = self;
        let given = [
            ("rate", !rates.is_empty()),
            ("quota", !quotas.is_empty()),
            ("tokens", !tokens.is_empty()),
            ("input_tokens", !input_tokens.is_empty()),
            ("output_tokens", !output_tokens.is_empty()),
            ("spend", !spend.is_empty()),
            ("in_flight", !in_flight.is_empty()),
            ("max_wait", max_wait.is_some()),
            ("max_waiting", max_waiting.is_some()),
            ("name", name.is_some()),
            ("publish", publish.is_some()),
            ("max_tokens_per_request", max_tokens.is_some()),
            ("max_reservation_percent", max_percent.is_some()),
            ("cached_input_percent", cached_input_percent.is_some()),
            ("cost", cost.is_some()),
            ("keep", keep.is_some()),
            ("refund_failures", refund_failures.is_some()),
            ("usage_from_answers", usage_from_answers.is_some()),
            ("degrade", degrade.is_some()),
        ];
        let first = given.into_iter().find(|(_, given)| *given);
        first.map(|(setting, _)| setting)
    }

    /// Returns the rates of model tokens, of all kinds.
    pub(crate) fn token_rates(&self) -> impl Iterator<Item = &Rate> {
        let input_or_output = self.input_tokens.iter().chain(&self.output_tokens);
        self.tokens.iter().chain(input_or_output)
    }

    /// Returns whether nothing passes, by name or by a limit of zero.
    pub(crate) fn is_closed(&self) -> bool {
        let rates = self.rates.iter().chain(self.token_rates());
        self.access == Access::Closed
            || { rates }.any(|rate| !rate.is_shadow() && rate.count().min(rate.burst_limit()) == 0)
            || (self.quotas.iter()).any(|quota| !quota.is_shadow() && quota.count() == 0)
            || (self.spend.iter()).any(|spend| !spend.is_shadow() && spend.is_closed())
            || (self.in_flight.iter()).any(|cap| !cap.is_shadow() && cap.count() == 0)
    }

    /// Returns whether nothing was set, so that a route has just what the default has.
    pub(crate) fn inherits_all(&self) -> bool {
        *self == Self::new()
    }

    /// Returns these limits with what they leave out taken from `default`. Names are not handed down: limits that
    /// differ from the default do not have its names.
    pub(crate) fn or(&self, default: Option<&Self>) -> Self {
        let mut limits = self.clone();
        let Some(default) = default else {
            return limits;
        };
        limits.publish = self.publish.or(default.publish);
        limits.reservation = self.reservation.or(default.reservation);
        limits.cached_input_percent = (self.cached_input_percent).or(default.cached_input_percent);
        limits.cost = self.cost.or(default.cost);
        limits.keep = self.keep.or(default.keep);
        limits.refund_failures = self.refund_failures.or(default.refund_failures);
        limits.usage_from_answers = self.usage_from_answers.or(default.usage_from_answers);
        limits.max_wait = self.max_wait.or(default.max_wait);
        limits.max_waiting = self.max_waiting.or(default.max_waiting);
        if self.access != Access::Limited {
            return limits;
        }
        if !self.enforces_anything() {
            limits.access = default.access;
        }
        limits.rates = inherit(&self.rates, &default.rates);
        limits.quotas = inherit(&self.quotas, &default.quotas);
        limits.tokens = inherit(&self.tokens, &default.tokens);
        limits.input_tokens = inherit(&self.input_tokens, &default.input_tokens);
        limits.output_tokens = inherit(&self.output_tokens, &default.output_tokens);
        limits.spend = inherit(&self.spend, &default.spend);
        limits.in_flight = inherit(&self.in_flight, &default.in_flight);
        let second = || default.degrade.clone().map(|it| Box::new(it.unnamed()));
        limits.degrade = limits.degrade.or_else(second);
        limits
    }

    /// Returns the same limits without names.
    fn unnamed(self) -> Self {
        Self {
            rates: unnamed(self.rates),
            quotas: unnamed(self.quotas),
            tokens: unnamed(self.tokens),
            input_tokens: unnamed(self.input_tokens),
            output_tokens: unnamed(self.output_tokens),
            spend: unnamed(self.spend),
            in_flight: unnamed(self.in_flight),
            name: None,
            ..self
        }
    }
}

impl Degrade {
    /// Creates a second budget that is used for each request which the scope's own limits refuse.
    pub fn new(limits: impl Into<Limits>) -> Self {
        Self {
            limits: limits.into(),
            after: Duration::ZERO,
        }
    }

    /// Sets the wait above which the second budget is used: a request that would be told to wait no longer than `wait`
    /// is refused as without a second budget. A refusal without a wait, as of a request above a burst, is above any.
    /// Default: zero, so that the second budget is always used. In nanoseconds, at most 584 years.
    pub fn after(mut self, wait: Duration) -> Self {
        self.after = wait;
        self
    }

    /// Returns the same without names, for a scope that inherits it.
    fn unnamed(self) -> Self {
        Self {
            limits: self.limits.unnamed(),
            ..self
        }
    }
}

/// One setting of some limits.
trait Setting: Clone {
    fn shadow(&self) -> bool;
    fn unnamed(self) -> Self;
}

macro_rules! settings {
    ($($setting:ty),*) => {
        $(impl Setting for $setting {
            fn shadow(&self) -> bool {
                self.is_shadow()
            }

            fn unnamed(self) -> Self {
                <$setting>::unnamed(self)
            }
        })*
    };
}

settings!(Rate, Quota, Spend, InFlight);

fn enforced<S: Setting>(settings: &[S]) -> impl Iterator<Item = &S> {
    settings.iter().filter(|setting| !setting.shadow())
}

fn unnamed<S: Setting>(settings: Vec<S>) -> Vec<S> {
    settings.into_iter().map(S::unnamed).collect()
}

/// One field of limits, with what it leaves out taken from the default's. A shadow enforces nothing, so it does
/// not stand in the way of what would be; those of the default come along if there is none.
fn inherit<S: Setting>(own: &[S], default: &[S]) -> Vec<S> {
    let mut inherited = own.to_vec();
    if enforced(own).next().is_none() {
        let missing = default
            .iter()
            .filter(|setting| own.is_empty() || !setting.shadow());
        inherited.extend(missing.cloned().map(S::unnamed));
    }
    inherited
}

impl From<Rate> for Limits {
    fn from(rate: Rate) -> Self {
        Self::new().rate(rate)
    }
}

impl From<InFlight> for Limits {
    fn from(cap: InFlight) -> Self {
        Self::new().in_flight(cap)
    }
}

impl From<Spend> for Limits {
    fn from(spend: Spend) -> Self {
        Self::new().spend(spend)
    }
}

impl From<Quota> for Limits {
    fn from(quota: Quota) -> Self {
        Self::new().quota(quota)
    }
}

macro_rules! from {
    ($($limits:ty),*) => {
        $(impl From<$limits> for Degrade {
            fn from(limits: $limits) -> Self {
                Self::new(limits)
            }
        })*
    };
}

from!(Limits, Rate, Quota, InFlight);
