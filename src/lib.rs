//! Burst and steady-state rate limits keyed by method and path, as a tower middleware.
//!
//! What a managed API gateway does in front of a server, inside it: a default for all routes, overrides
//! for some, limits and quotas for each client, a total over everything, in the process that does the work. It fits
//! [axum], [tonic], hyper and any other stack of tower services over [`http`] types.
//!
//! # The idea
//!
//! Every limit is kept in a *bucket*. A bucket holds as many requests as the limit's **burst** and is
//! full at first. An admitted request takes one out; at the **steady-state rate**, evenly and not in
//! batches, they come back, up to the burst. A request that finds a bucket empty is refused at once, and
//! told when to come back. API Gateway calls this a token bucket; here a token is a model's, so a bucket
//! holds requests.
//!
//! [`Rate::per_second(10).burst(5)`](Rate) thus lets five requests through at the same moment, and then
//! one each 100 ms. The bound is exact, for every bucket: in any half-open window of length `w` it admits
//! at most
//!
//! ```text
//! burst - 1 + ⌈w × count / period⌉
//! ```
//!
//! requests, however many clones, threads and connections there are; and a request that comes after the
//! wait it was told is admitted, if no other has taken its place.
//!
//! # An example
//!
//! Limits are written as [`Rules`], rules make a [`ThrottleLayer`], and the layer wraps a service. Time
//! is tokio's, so a paused clock makes tests exact:
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//!
//! use http::{Request, Response, StatusCode};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_throttle::{Decision, DecisionIn, Rate, Rules, ThrottleLayer};
//!
//! async fn serve(_: Request<()>) -> Result<Response<String>, Infallible> {
//!     Ok(Response::new("served".to_owned()))
//! }
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let rules = Rules::new()
//!         .default_route(Rate::per_second(10).burst(5))
//!         .route("POST /v1/chat/completions", Rate::per_minute(30).burst(2).named("chat"));
//!     let throttle = ThrottleLayer::builder(rules)
//!         .decision(DecisionIn::Response)
//!         .build()?;
//!     let mut service = ServiceBuilder::new()
//!         .layer(throttle)
//!         .service(service_fn(serve));
//!     let chat = || Request::post("/v1/chat/completions").body(());
//!
//!     // The burst passes.
//!     for left in ["1", "0"] {
//!         let response = service.ready().await?.call(chat()?).await?;
//!         assert_eq!(response.status(), StatusCode::OK);
//!         assert_eq!(response.headers()["ratelimit"], format!("\"chat\";r={left};t=2"));
//!     }
//!
//!     // One more is refused, and `serve` never sees it. Another route is untouched.
//!     let response = service.ready().await?.call(chat()?).await?;
//!     assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
//!     assert_eq!(response.headers()["retry-after"], "2");
//!     let models = Request::get("/v1/models").body(())?;
//!     assert_eq!(service.ready().await?.call(models).await?.status(), StatusCode::OK);
//!
//!     // After the told wait a request passes.
//!     let wait = response.extensions().get::<Decision>().and_then(Decision::retry_after);
//!     tokio::time::advance(wait.expect("it can pass later")).await;
//!     let response = service.ready().await?.call(chat()?).await?;
//!     assert_eq!(response.status(), StatusCode::OK);
//!     # assert_eq!(wait, Some(Duration::from_secs(2)));
//!     Ok(())
//! }
//! ```
//!
//! # Rules
//!
//! - A request is charged on its route's limits, its client's and the [total](Rules::total): **on all of
//!   them or on none**. A refused request costs nothing anywhere. When requests race for what is left, one may be
//!   refused that a serial order would have let in; none is ever admitted too many.
//! - The [default route](Rules::default_route) is not one bucket: each route has buckets of its own with
//!   these limits. A declared route overrides them field by field (a rate with its burst is one) and inherits
//!   what it [leaves out](Limits#inheritance).
//! - A scope may have [several rates](Limits::rate), such as one a second and one an hour, and
//!   [quotas](Limits::quota). All of them hold.
//! - A request that no rule speaks of is not limited.
//! - A rate or burst of zero, or [`Limits::closed`], closes a route. [`Limits::unlimited`] frees it of the
//!   default's limits; the total and the limits of clients still hold.
//! - [`Limits::exempt`] frees a declared route, such as `GET /health`, of everything: no scope counts its requests.
//! - Rules that contradict themselves, keys that cannot be read and keys that mean the same route are an
//!   error of [`ThrottleLayer::new`] that names them. No request fails later because of a rule.
//! - All services that a layer or its clones make share their buckets: axum wraps each route and clones
//!   services per connection, and none of that adds to a limit.
//!
//! # Route keys
//!
//! A [`RouteKey`] is a method and a path: `POST /v1/chat/completions`, `GET /v1/models/{id}`,
//! `ANY /files/{proxy+}`, or `$default` for all that no other key matches. The most specific wins:
//!
//! 1. a path that is matched to its end, segment by segment a literal before a `{parameter}`;
//! 2. a path with a greedy end, `{proxy+}` or `{*rest}`: again segment by segment a literal before a
//!    `{parameter}`, and of what is left the longest;
//! 3. `$default`.
//!
//! A key counts only if it is meant for the request's method. At the same path a key that names the
//! method wins over `ANY`, and a specific path without the method does not hide a general one that has it.
//!
//! - `HEAD` is charged to the key of `GET` unless it has its own.
//! - No request is free for what it says of itself. A CORS preflight is a request of method `OPTIONS` like any other:
//!   with CORS [inside](#the-order-of-layers) of the throttle it is charged to `OPTIONS`, `ANY` or `$default`, or to
//!   the default route, to the total, and to its client: that of its address where addresses tell clients apart, or
//!   else the anonymous one, since it carries no credentials.
//! - A request that its host may take for either of two routes is charged to both, all or none: one with escapes or
//!   empty segments in its path; one for `/pets/` if there is a key for `/pets` and none as specific for `/pets/`, and
//!   the other way; a gRPC call of another method than `POST`, since tonic looks at the path alone; and `CONNECT` with
//!   a path, which opens a WebSocket over HTTP/2 and is charged to `GET` too unless a key names `CONNECT`.
//! - Query, fragment and host take no part, and other spellings of a path (`/v1/%63hat`) are the same path.
//! - A gRPC method is `POST /package.Service/Method`. A request is taken for gRPC by its content type, by
//!   [`Protocol::Grpc`], or by a path of two segments, of which the first has an upper-case letter after its last dot
//!   and the second begins with one. Services that are named otherwise (`/Greeter/SayHello`) need [`Protocol::Grpc`],
//!   or `ANY` instead of `POST` in their keys.
//! - With the feature `axum`, keys are matched with the whole path, also inside nested routers, and a key
//!   that fits the route which axum has matched comes before one that does not. Without
//!   the feature, a layer inside a nested router sees the path that the nest has left of it.
//!
//! # Undeclared routes
//!
//! With a default route, requests that no key matches have buckets of their own per route: in axum
//! (feature `axum`) per method and router template, elsewhere, and for paths that axum does not know, per
//! method and literal path. Clients choose paths, so the first **1,024** of these are kept apart, by a
//! keyed hash alone, and all others share one more set of buckets. Whatever paths a client invents, memory
//! stays bounded, and so does the number of fresh bursts. Templates, of which there are 1,024 too, do not
//! compete with them; literal paths compete with each other, until the process ends.
//!
//! [`Undeclared::Shared`] puts them all into one set of buckets at once, and a key `$default` does so with
//! limits of its own. Where no router template is known, prefer either. With [`CatchAll::Unrouted`], `$default` takes
//! requests alone that match no route of the router either: its own routes have the default route's limits.
//!
//! # Clients
//!
//! [`Rules::clients`] gives each client limits of its own, so that a greedy one does not spend everybody's
//! budget:
//!
//! ```
//! use tower_throttle::{Clients, Limits, Plan, Quota, Rate, Rules, ThrottleLayer};
//!
//! let clients = Clients::by_header("x-api-key")
//!     .or_address()
//!     .each(Rate::per_second(1).burst(5))
//!     .plan(
//!         "pro",
//!         Plan::new(Limits::new().rate(Rate::per_second(20).burst(40)).quota(Quota::per_day(10_000)))
//!             .route("POST /v1/chat/completions", Rate::per_second(2).burst(4)),
//!     )
//!     .member("pro", "key-of-a-customer");
//! let throttle = ThrottleLayer::new(Rules::new().clients(clients))?;
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! - A client is identified by a header field, a bearer token, the host it asks for, its address, or what a layer
//!   outside has put into the extensions. **Trust only what was verified**: the throttle goes inside of authentication,
//!   or else a client is somebody new with each key it makes up. See [`Clients`].
//! - A client that nothing is known of is anonymous, and all that are share one client's budget.
//! - [`Clients::by_address`] and [`Clients::or_address`] need the peer's address. axum tells it only where the program
//!   serves `app.into_make_service_with_connect_info::<SocketAddr>()` (feature `axum`). Without it, and without a
//!   [`PeerAddr`], all clients are anonymous and share one budget; the log says so once (feature `tracing`).
//! - What it may do says [`Clients::each`], or a usage plan instead. A plan inherits what it leaves out. A
//!   [`Plan::route`] holds besides, for that route alone.
//! - Keys, tokens and addresses are hashed at once; only the hashes are kept, and nothing tells them.
//! - Balances are kept in a table of [stated size](Clients::max_clients), 16 bytes each. Only a bucket that is
//!   full again gives up its place, so that no flood of identities gives back what a client has used, or hands
//!   out more bursts than the table has room for. A client that finds no room, for it is new or was idle while
//!   others came, shares a few overflow buckets: that is why identities should be verified ones.
//! - A [`Quota`] is a count in a window of the calendar. It is kept in memory: a restart makes it whole again, unless
//!   it lies in a [store](#replicas). Its bucket keeps its place to the end of the window.
//!
//! # Slots
//!
//! [`Limits::in_flight`] caps how many requests are in flight, in any scope. A slot is taken before the inner service
//! is called, and comes back once, however the request ends: with the last byte of the response, its trailers or its
//! error; when the response, its body or the future is dropped; when the inner service fails or panics. A stream
//! holds its slot until it has ended, and a protocol upgrade until its response has.
//!
//! A request head whose body does not come holds a slot as long as the inner service waits for that body: one client
//! that sends as many heads as there are slots keeps all others out. A body timeout bounds that, inside of the throttle
//! or outside: tower-http's `RequestBodyDeadlineLayer` for the whole body, or its `RequestBodyTimeoutLayer` for the
//! time between two frames, which a byte now and then outlasts. hyper's `header_read_timeout` ends with the head, and
//! HTTP/2 keep-alive finds peers that are gone, not peers that are slow.
//!
//! # Waiting
//!
//! [`Limits::max_wait`] has requests stand in line that would be refused, for a rate or a slot. Each scope has one
//! line: the total, each route, each client. Who came first is first, and nobody who comes later passes; who is held
//! up by its own client's limit holds up nobody else. No task, and no timer but that of the request itself; one that
//! goes away leaves its place, and nothing was taken for it.
//!
//! # Model tokens
//!
//! [`Limits::tokens`] is a rate of model tokens. The cost of a request is [estimated](Rules::estimate) and reserved; a
//! handler counts and settles with the [`Usage`] in the request's extensions. What was reserved too much comes back,
//! what was reserved too little is a debt that later requests wait for. An estimate refuses nobody for its size: each
//! limit reserves at most its burst, and half of it where strangers share the bucket.
//! [`Limits::max_tokens_per_request`] refuses large requests.
//! [`ThrottleLayerBuilder::usage_from_openai_response`] reads it from answers as OpenAI's API gives them.
//!
//! # Shadows
//!
//! A rate, quota, token rate or cap with [`shadow`](Rate::shadow) decides on a balance of its own and reports in
//! [`Decision::shadow`] what it would have refused. It refuses nobody, waits for nobody, and spends nothing of what
//! is enforced.
//!
//! # Header fields
//!
//! Admitted responses tell the limits, as the IETF draft
//! [RateLimit header fields for HTTP](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/)
//! (version 11) has it:
//!
//! ```text
//! ratelimit-policy: "chat";q=60;w=60;throttle-burst=10
//! ratelimit: "chat";r=9;t=9
//! ```
//!
//! `q` requests in `w` seconds with a burst of `throttle-burst`; `r` of them would pass now, and a client that spreads
//! those over `t` seconds arrives at the steady rate. What has the least left comes first. The fields are added to
//! those of the inner service, never in their place. [`ThrottleLayerBuilder::rate_limit_headers`] turns them off on
//! admitted responses. The total's limits are not told, since a server's capacity is nobody's business, unless
//! [`Limits::publish`] says so. What has refused is named either way.
//!
//! Every limit has a name: that of [`Rate::named`] or [`Limits::named`], or else one after its scope and kind (`total`,
//! `default`, `client`, a plan's name, `post_v1_chat` on the route `POST /v1/chat`, `post_v1_chat_tokens`). Other rules
//! never change such a name: see [`Limits::named`].
//!
//! # Refusals
//!
//! A refused request is answered with [`Problem`]: status 429, `Retry-After`, `retry-after-ms`, the fields above, and a
//! problem document that OpenAI's SDKs can read too. Waits are rounded up, so that a client which obeys them does not
//! come too soon. A wait above a minute, or none because the request can never pass, comes with
//! `x-should-retry: false`: some SDKs would otherwise be back within a second. Every refusal tells its true wait;
//! [`ThrottleLayerBuilder::stagger_retry_after`] staggers the waits of clients that are refused together. Where only
//! caps on what the server has in flight refuse, it is the server that is busy: status 503, in gRPC 14 (`UNAVAILABLE`).
//!
//! [`ThrottleLayerBuilder::rejection`] takes a [`Dialect`], as clients of OpenAI, Anthropic, API Gateway, Azure API
//! Management, KServe or JSON-RPC (MCP) expect it, or an answer of one's own; [`Rules::rejection`] one for a single
//! route. A dialect has its own body, and some have fields of their own on admitted responses; waits, `x-should-retry`
//! and the fields above are told in each.
//!
//! A gRPC request is answered in gRPC: one HEADERS frame with `grpc-status: 8` (`RESOURCE_EXHAUSTED`) and
//! in the details `RetryInfo`, `QuotaFailure` and `ErrorInfo`. gRPC-Web gets the same in its own content
//! type. [`Protocol`] can fix the framing, and [`ThrottleLayerBuilder::grpc_retry_pushback`] has the client's
//! library retry after the wait.
//!
//! # The decision
//!
//! [`ThrottleLayerBuilder::decision`] puts a [`Decision`] into the extensions of the request, for its handler, of the
//! response, for layers outside of the throttle, admitted or refused, or of both: the route key, each limit with what
//! remains, and the wait. That is what to log and to count by; it holds no string that a client chose. Without that
//! call it costs nothing.
//!
//! # While it runs
//!
//! [`ThrottleLayer::handle`] is the throttle from outside. [`Handle::reload`] puts other rules into the place of those
//! that hold, all at once, and what was used stays used: no reload refills a bucket, frees a slot or forgets a client.
//! [`Handle::snapshot`] tells what each limit has left, what is in flight and in line, and what has become of requests,
//! by limit and by route; it is cheap enough for each second. [`Rules::audit`] tells at start-up, or in a test, which
//! keys match none of the routes that a server has.
//!
//! ```
//! use tower_throttle::{Rate, Rules, ThrottleLayer};
//!
//! let throttle = ThrottleLayer::new(Rules::new().default_route(Rate::per_second(10).burst(5)))?;
//! let handle = throttle.handle();
//! // While the layer is at work elsewhere:
//! let changes = handle.reload(Rules::new().default_route(Rate::per_second(5).burst(5)))?;
//! println!("{changes}");
//! for route in handle.snapshot().routes {
//!     println!("{}: {} admitted, {} refused", route.route, route.admitted, route.refused);
//! }
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! # Replicas
//!
//! Each process has balances of its own, unless [`ThrottleLayerBuilder::store`] puts them where all replicas of a
//! server have them: into Redis or Valkey with a [`RedisStore`](store::RedisStore) (feature `redis`), or into a
//! [`Store`](store::Store) of one's own. Then each rate, quota and rate of model tokens holds for all of them together,
//! as exactly as for one:
//!
//! ```no_run
//! use tower_throttle::{OnOutage, Rate, Rules, ThrottleLayer, store::RedisStore};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let rules = Rules::new().total(Rate::per_second(100).burst(50));
//! let throttle = ThrottleLayer::builder(rules)
//!     .store(RedisStore::connect("redis://localhost").await?)
//!     .on_outage(OnOutage::Local { share: 2 })
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! - All charges of a request are one call, which is never made twice. Requests of the same moment share a call, a
//!   bucket that is known to be empty refuses without one, and with [`ThrottleLayerBuilder::lease`] a process takes
//!   several units in one.
//! - While the store is down, [`OnOutage`] says what becomes of requests. That costs those that are under way
//!   [25 ms](ThrottleLayerBuilder::store_deadline), and others nothing.
//! - Clients are hashed under a [secret](Clients::secret) that all replicas know and the store does not.
//! - Slots and lines stay in each process.
//!
//! The [guide](guides::replicas) says what is exact, what an outage, a failover or an eviction may cost, and what the
//! server needs.
//!
//! # The order of layers
//!
//! From the outside in:
//!
//! 1. **Tracing**, which then sees refusals too.
//! 2. **CORS**: a browser's script may read a refusal only if it carries the CORS fields, and
//!    [`EXPOSE_HEADERS`] names those it may need. Preflights end here. With CORS inside of the throttle, each preflight
//!    draws on the limits of its route, of the total and of its client: it carries no credentials, so that all
//!    preflights share the anonymous client's limits unless [`Clients::or_address`] tells them apart.
//! 3. **Authentication**, so that strangers cannot spend the budget of known callers, nor be a new client with
//!    each key they make up.
//! 4. **The throttle.**
//! 5. **Validation, body limit, timeouts**: a refused request should not get as far as this work. One for the request's
//!    body bounds how long a [slot](crate#slots) is held for a head alone.
//!
//! Whatever rewrites a path or a method (tower-http's `NormalizePath`, a method override) goes outside of
//! the throttle, or limits hold for what was sent and not for what is served. axum's `Router::layer` runs
//! after routing, so there such layers go around the whole router.
//!
//! A proxy has [`CanonicalPathLayer`] around the throttle. A server behind may decode `%2F`, merge `//` or resolve
//! `..`, and would otherwise serve one resource under many paths, each with a limit of its own.
//!
//! # What it costs
//!
//! The decision is made in `call`, at once: one clock reading, one look-up (for a path without parameters
//! a hash, otherwise a walk along its segments; the number of routes hardly matters) and one
//! compare-and-swap a limit; for clients, a hash of the key. No lock (but for a client that has no bucket
//! yet), no task, no timer, no boxed future, no clone of the inner service; only for a request that waits in line
//! there are a lock, a timer, a box and a clone. A slot costs one exchange more, and one when it comes back.
//! With fields off, an admitted request allocates nothing, as long as it has no more than four limits, none of them of
//! model tokens, no cap in flight for each client where clients have a [secret](Clients::secret), and no `%` in its path. A bucket is 8 bytes, alone on 128 so that neighbours do not contend.
//!
//! Where limits lie in a store, a request that has to ask it is boxed with a clone of the inner service, and waits for
//! a round trip.
//!
//! # Caveats
//!
//! - Without a [store](#replicas) limits hold **per process**: behind a load balancer, each replica admits its own
//!   share.
//! - A refused request has still been received and its head read; the throttle saves the work behind it,
//!   not the connection.
//! - A refused request's body is not read. HTTP/1.1 servers may close the connection after it, and HTTP/2
//!   servers reset the upload with `NO_ERROR`, as for every early answer.
//! - An inner service that reserves something in `poll_ready`, as tower's `ConcurrencyLimit` does a permit,
//!   keeps it through a refusal until its next call, or until it is dropped.
//! - axum's `Router::route_layer` throttles matched routes alone, `Router::layer` unmatched paths too.
//! - Two throttles around one service decide one after the other: what the outer has taken stays taken
//!   when the inner refuses. Limits that belong together go into one [`Rules`].
//!
//! # Coming from elsewhere
//!
//! The [guides] set the terms of API Gateway, of Azure API Management, of nginx and of tower_governor beside ours.
//!
//! # Features
//!
//! - `axum`: reads axum's `MatchedPath`, `OriginalUri` and `ConnectInfo`, as told above; and
//!   `ThrottleLayer::for_axum`, a layer whose responses have axum's body.
//! - `config`: rules from documents, and from the limits of gateways that people come from; see [`config`].
//! - `watch`: a file of rules is followed while the server runs; see [`config::watch`].
//! - `metrics`: counts through the facade [`metrics`](https://docs.rs/metrics), by route and by limit:
//!   `throttle_admitted_total`, `throttle_refused_total`, `throttle_limit_refused_total`,
//!   `throttle_limit_would_refuse_total`, `throttle_usage_implausible_total`, `throttle_wait_seconds`; and what is
//!   left, as gauges, with `Snapshot::record`; and of a store `throttle_store_up`, `throttle_store_errors_total` and
//!   `throttle_store_outage_total`. A recorder is installed before the first request.
//! - `quanta`: adds [`Clock::counter`], by which a throttle decides faster if [`ThrottleLayerBuilder::clock`] is given
//!   it.
//! - `serde`: a [`Snapshot`] is `Serialize`. The feature `config` has it, too.
//! - `redis`: limits that replicas share in Redis or Valkey; see [`store::RedisStore`].
//! - `redis-tls`: the same through TLS.
//! - `test-util`: tells whether a store of one's own keeps its promises; see [`store::conformance`]. And
//!   [`ThrottleLayerBuilder::wall_clock`], a throttle whose wall clock is set, and [`ThrottleLayer::suspend`], which
//!   has it go on alone as while a machine is suspended.
//! - `tonic`: reads tonic's `TcpConnectInfo`, and `Throttle<S>` is a tonic `NamedService` if `S` is, so that a
//!   single gRPC service can be wrapped. `tonic::transport::Server::layer` needs no feature.
//! - `tracing`: tells operators of each refusal by limit, route and wait (no more than ten a second, with a count of
//!   the others), of reloads and what they changed, of a store that is down (and why) and up again, of buckets that it
//!   cannot charge, of answers whose reported usage is implausible, and once each of a host that tells no addresses
//!   though clients are told apart by them, and of a plan that does not exist. The target is `tower_throttle`.
//!
//! [axum]: https://docs.rs/axum
//! [tonic]: https://docs.rs/tonic

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "__bench")]
#[doc(hidden)]
#[path = "bench.rs"]
pub mod __bench;
mod admission;
#[cfg(feature = "axum")]
pub mod axum;
mod body;
mod canonical_path;
#[cfg(test)]
#[path = "../tests/support/cases.rs"]
mod cases;
mod client;
mod clock;
#[cfg(feature = "config")]
pub mod config;
mod decision;
mod engine;
mod error;
mod future;
#[cfg(any(doc, doctest))]
pub mod guides;
mod handle;
mod head;
mod layer;
mod limit;
mod limiter;
mod observe;
mod response;
mod route;
mod rules;
mod service;
pub mod store;
mod sync;
mod usage;
#[cfg(all(test, feature = "quanta"))]
#[path = "../tests/support/windows.rs"]
mod windows;

pub use self::{
    body::ResponseBody,
    canonical_path::{CanonicalPath, CanonicalPathFuture, CanonicalPathLayer},
    client::{ClientKey, Clients, Forwarding, PeerAddr, Plan},
    clock::Clock,
    decision::{Decision, DecisionIn, Denial, LimitStatus},
    future::ResponseFuture,
    handle::Handle,
    head::RequestHead,
    layer::{ThrottleLayer, ThrottleLayerBuilder},
    limit::{
        Scope, Terms,
        in_flight::InFlight,
        limits::Limits,
        quota::Quota,
        rate::{Rate, RateParseError},
    },
    observe::snapshot::{LimitSnapshot, RouteSnapshot, Snapshot},
    response::{Dialect, EXPOSE_HEADERS, Problem, Protocol, Rejection},
    route::{CatchAll, RouteKey, RouteKeyError},
    rules::{Audit, Change, Changes, Misfit, Rules, RulesError, SettingChange, Undeclared},
    service::Throttle,
    store::client::OnOutage,
    usage::{Estimate, Usage},
};

/// The code of the README, compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
