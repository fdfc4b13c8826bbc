//! Rate limits keyed by method and path, as a tower middleware: what an API gateway does in front of a server, done
//! inside it.
//!
//! A default for all routes, overrides for some, limits and quotas for each client, and a total over everything, with
//! burst and steady-state rate. For model servers: concurrency slots held until a stream ends, bounded queues, and
//! model tokens that are reserved and then settled. It fits [axum], [tonic], hyper and any other stack of tower
//! services over [`http`](https://docs.rs/http) types.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_throttle::{Limits, Rate, Rules, ThrottleLayer};
//!
//! async fn model(_: Request<()>) -> Result<Response<String>, Infallible> {
//!     Ok(Response::new("an answer".to_owned()))
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rules = Rules::new()
//!     .default_route(Rate::per_second(10).burst(5)) // each route has its own bucket
//!     .route("POST /v1/chat", Rate::per_minute(30).burst(1).named("chat"))
//!     .route("GET /health", Limits::exempt());
//! let service = ServiceBuilder::new()
//!     .layer(ThrottleLayer::new(rules)?)
//!     .service_fn(model);
//!
//! let chat = || Request::post("/v1/chat").body(()).expect("a request");
//! let answer = service.clone().oneshot(chat()).await?;
//! assert_eq!(answer.status(), StatusCode::OK);
//! assert_eq!(answer.headers()["ratelimit"], "\"chat\";r=0;t=2");
//!
//! // `model` never sees this request.
//! let refusal = service.clone().oneshot(chat()).await?;
//! assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(refusal.headers()["retry-after"], "2");
//! # Ok(())
//! # }
//! ```
//!
//! # Documentation
//!
//! | to | see |
//! |---|---|
//! | limit routes, with rates, quotas and totals | [`Rules`], [`Limits`], [`Rate`], [`Quota`], and the guide [Limits](guides::limits) |
//! | limit clients, on plans | [`Clients`], [`Plan`], and the guide [Clients and plans](guides::clients) |
//! | limit model servers | [`Limits::in_flight`], [`Limits::max_wait`], [`Limits::tokens`], [`Usage`], and the guide [Serving models](guides::models) |
//! | limit by model and by price, count some requests as several | [`Models`], [`Prices`], [`Limits::spend`], [`Limits::cost`], [`peek`], and the guide [Models and costs](guides::costs) |
//! | limit WebSockets, messages and jobs | [`Limits::keep`], [`Hold`](body::Hold), [`Handle::try_acquire`], and the guide [WebSockets and background work](guides::connections) |
//! | choose the answers to clients | [`ThrottleLayer::builder`], [`Dialect`](response::Dialect), and the guide [Refusals and header fields](guides::refusals) |
//! | order the layers | the guide [The order of layers](guides::layers) |
//! | keep limits in a file | [`config`], and the guide [Configuration files](guides::configuration) |
//! | share limits between replicas | [`store`], and the guide [Replicas](guides::replicas) |
//! | change rules, operate | [`Handle`], [`Decision`], and the guide [Operating](guides::operating) |
//! | try a limit first | [`Rate::shadow`], and the guide [Simulate before you change](guides::simulate) |
//! | switch from another limiter | the other [guides] |
//!
//! # Guarantees
//!
//! - **An exact bound.** In any half-open window of length `w`, a bucket admits at most `burst - 1 + ⌈w × count /
//!   period⌉` requests, over all threads, connections and clones of a layer.
//! - **All or none.** A request is charged to all of its limits or to none. A rejected request costs nothing.
//! - **True waits.** A request that waits as long as its refusal states is admitted, unless another has taken its
//!   place.
//! - **Bounded memory**, whatever paths and identities clients invent.
//! - **No way around.** A request that its host may take for either of two routes is charged to both.
//! - **Early errors.** [`ThrottleLayer::new`] rejects contradictory rules. No request fails later because of a rule.
//!
//! # Costs
//!
//! A decision is made in `call`: one reading of the clock, one look-up and one exchange for each limit. There is no
//! lock (except for a client without a bucket), no task, no timer and no boxed future. A request that queues, or asks a
//! store, costs a box and a clone of the inner service. With header fields off, an admitted request on plain
//! limits [allocates nothing](ThrottleLayerBuilder::decision). Bodies are read only by a [peek layer](peek), which has
//! bounded memory, and a timer for a body that it waits for.
//!
//! # Limitations
//!
//! - Caps on requests in flight, and queues, hold for each process, not for all replicas.
//! - Without a store, a restart begins with full buckets.
//! - A snapshot lists limits and routes, but no clients.
//!
//! # Features
//!
//! No feature is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `axum` | axum's matched route, original path and peer's address; `ThrottleLayer::for_axum` and `PeekLayer::for_axum`, layers with axum's body |
//! | `tonic` | tonic's peer address; `Throttle<S>` is a `NamedService` if `S` is |
//! | `serde` | a [`Snapshot`](snapshot::Snapshot) is `Serialize` |
//! | `config` | rules from [documents](config): TOML, YAML, JSON, API Gateway, Azure API Management |
//! | `watch` | a file of rules that is [followed](config::watch) |
//! | `redis`, `redis-tls` | limits shared by replicas in Redis or Valkey: [`store::RedisStore`] |
//! | `metrics`, `tracing` | counters, gauges and events: see the guide [Operating](guides::operating) |
//! | `quanta` | [`Clock::counter`], which is read faster than tokio's clock |
//! | `test-util` | a wall clock for tests; a [conformance suite](store::conformance) for stores |
//!
//! [axum]: https://docs.rs/axum
//! [tonic]: https://docs.rs/tonic

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "__bench")]
#[doc(hidden)]
#[path = "bench.rs"]
pub mod __bench;
mod admission;
pub mod body;
pub mod canonical_path;
#[cfg(test)]
#[path = "../tests/support/cases.rs"]
mod cases;
pub mod client;
mod clock;
pub mod decision;
mod engine;
mod error;
pub mod facts;
pub mod future;
mod gate;
#[cfg(any(doc, doctest))]
pub mod guides;
mod handle;
mod head;
mod json;
mod layer;
pub mod limit;
mod limiter;
mod model;
mod observe;
pub mod peek;
pub mod response;
pub mod route;
pub mod rules;
mod service;
pub mod store;
mod sync;
pub mod usage;
#[cfg(all(test, feature = "quanta"))]
#[path = "../tests/support/windows.rs"]
mod windows;

// After the others: pages of types show their methods in the order of modules, and `new` comes first.
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "config")]
pub mod config;

#[doc(inline)]
pub use self::{
    client::{Clients, Plan},
    clock::Clock,
    decision::{Decision, Degraded, Denial},
    handle::{Handle, Permit},
    layer::{ThrottleLayer, ThrottleLayerBuilder},
    limit::{
        in_flight::InFlight,
        limits::{Degrade, Limits},
        price::{Price, Prices},
        quota::Quota,
        rate::Rate,
        spend::Spend,
    },
    model::Models,
    route::RouteKey,
    rules::{Rules, RulesError},
    service::Throttle,
    usage::Usage,
};

/// The state of a throttle at one moment, as [`Handle::snapshot`] returns it: its limits and routes, with balances and
/// counts.
pub mod snapshot {
    pub use crate::observe::snapshot::{LimitSnapshot, MissingUsage, RouteSnapshot, Snapshot};
}

/// The code of the README, compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
