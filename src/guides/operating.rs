//! Operating: metrics, logs, snapshots, restarts.
//!
//! # Metrics
//!
//! The feature `metrics` counts through the facade [`metrics`](https://docs.rs/metrics). Install a recorder before
//! the first request.
//!
//! | metric | labels | value |
//! |---|---|---|
//! | `throttle_admitted_total`, `throttle_refused_total` | `route` | requests |
//! | `throttle_limit_refused_total` | `limit`, `route` | refusals by this limit |
//! | `throttle_limit_would_refuse_total` | `limit`, `route` | requests that a shadow would have refused |
//! | `throttle_wait_seconds` | `route` | a histogram of the time spent in a queue |
//! | `throttle_usage_implausible_total` | `route` | responses whose reported usage was not believed |
//! | `throttle_store_up` | | 1 if the store answers |
//! | `throttle_store_errors_total` | | calls to the store that failed |
//! | `throttle_store_outage_total` | `outcome` | requests decided without the store |
//!
//! Labels are names from the rules. No client chooses a label, so the number of series is bounded. `Snapshot::record`
//! adds gauges: `throttle_limit_remaining`, `_owed`, `_in_flight` and `_waiting`.
//!
//! # Logs
//!
//! The feature `tracing` writes events with the target `tower_throttle`: each refusal with limit, route and wait (at
//! most ten a second, with a count of those left out), each reload with its changes, and each outage of the store
//! with its cause. It warns once if clients are limited by address and the host tells none, and once of a plan that
//! does not exist.
//!
//! To log requests, have the throttle tell the [`Decision`](crate::Decision) in the response's extensions. It holds
//! no text that a client chose:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_throttle::{Decision, Rate, Rules, ThrottleLayer, decision::DecisionIn};
//!
//! # async fn serve(_: Request<()>) -> Result<Response<String>, Infallible> { Ok(Response::new(String::new())) }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let throttle = ThrottleLayer::builder(Rules::new().total(Rate::per_second(1)))
//!     .decision(DecisionIn::Response)
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(throttle)
//!     .service(service_fn(serve));
//! let response = service.oneshot(Request::new(())).await?;
//! let decision = response.extensions().get::<Decision>().expect("told");
//! let outcome = if decision.is_admitted() { "admitted" } else { "refused" };
//! println!("{outcome}: {}", decision.route());
//! # Ok(())
//! # }
//! ```
//!
//! # Snapshots
//!
//! [`Handle::snapshot`](crate::Handle::snapshot) returns the balance of each limit, what is in flight and waiting,
//! and the counts of each limit and route. It is cheap enough for once a second.
//! [`Handle::preview`](crate::Handle::preview) decides on a request without charging it.
//! [`Rules::audit`](crate::Rules::audit) compares the keys of rules with the routes that a server has.
//!
//! ```
//! use tower_throttle::{Rate, Rules, ThrottleLayer};
//!
//! let throttle = ThrottleLayer::new(Rules::new().total(Rate::per_second(10)))?;
//! let handle = throttle.handle();
//! for limit in handle.snapshot().limits {
//!     println!("{}: {}, {:?} left", limit.name, limit.settings, limit.remaining);
//! }
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! # Restarts
//!
//! Balances lie in memory. A restart begins with full buckets, unless the limits lie in a [store](super::replicas).
