//! WebSockets and background work: requests that outlive their responses, and work that is no request.
//!
//! A request holds its [slot](super::models#slots) until its response has ended. Two kinds of work do not fit that:
//!
//! - A WebSocket, or another connection that switches protocols, begins when its response has ended. A job that is
//!   answered with 202 goes on after that. A **hold** keeps such a request in flight.
//! - A message of a WebSocket, a job from a queue and a field of a GraphQL query have no request of their own. A
//!   **permit** charges them like one.
//!
//! # Keep a request
//!
//! [`Limits::keep`](crate::Limits::keep) on a route puts a [`Hold`](crate::body::Hold) into the extensions of its
//! requests. [`Hold::keep`](crate::body::Hold::keep) gives a guard to move into the task or the connection:
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::{Router, routing::post};
//! use http::StatusCode;
//! use tower_throttle::{Limits, Rules, ThrottleLayer, body::Hold};
//!
//! async fn start(hold: Hold) -> StatusCode {
//!     let kept = hold.keep_at_most(Duration::from_secs(600));
//!     tokio::spawn(async move {
//!         work().await;
//!         drop(kept); // The slot is free.
//!     });
//!     StatusCode::ACCEPTED
//! }
//!
//! async fn work() { /* … */ }
//!
//! # #[cfg(feature = "axum")] {
//! let rules = Rules::new().route("POST /jobs", Limits::new().in_flight(8).keep(true));
//! let app: Router = Router::new()
//!     .route("/jobs", post(start))
//!     .layer(ThrottleLayer::new(rules)?);
//! # let _ = app;
//! # }
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! - The guard holds all slots of the request: of its route, its client, its model and the total. It counts in
//!   [`Handle::in_flight`](crate::Handle::in_flight).
//! - The request ends once, with the last of its guards and its response. A panic of the task, a client that goes away
//!   and the end of the runtime drop guards as they drop all values.
//! - The account of [model tokens](super::models#tokens) stays open: add what the connection uses with
//!   [`Usage`](crate::Usage). Usage that the response reports is added to the account.
//! - Without a guard, a response with the status 101, or 200 to `CONNECT`, frees its slot at once.
//! - [`keep_at_most`](crate::body::Hold::keep_at_most) is for guards that may get lost, in a task that never ends or
//!   in a map that nobody empties. At its bound, the next request that a cap would refuse ends the lost one instead.
//! - A [drain](super::operating#shut-down) waits for kept requests: close WebSockets first.
//! - Other routes pay nothing. A request that may be kept makes a few more allocations.
//!
//! # Charge messages and jobs
//!
//! [`Handle::try_acquire`](crate::Handle::try_acquire) decides on a piece of work as on a request with some head, and
//! [`Handle::acquire`](crate::Handle::acquire) waits for it as a request would. The head names the route key, the
//! client and the model; it is any `http::Request`:
//!
//! ```
//! use http::Request;
//! use tower_throttle::{Clients, Limits, Rate, Rules, ThrottleLayer, usage::Estimate};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rules = Rules::new()
//!     .route("GET /chat", Limits::new().in_flight(100).keep(true))
//!     .route("POST /chat/messages", Limits::new().tokens(Rate::per_minute(1_000)))
//!     .estimate(Estimate::by_header("x-tokens"))
//!     .clients(Clients::by_header("x-api-key").each(Rate::per_second(5).burst(2)));
//! let handle = ThrottleLayer::new(rules)?.handle();
//!
//! // The head of each message of one connection.
//! let message = Request::post("/chat/messages")
//!     .header("x-api-key", "sk-local")
//!     .header("x-tokens", 50)
//!     .body(())?;
//! for _ in 0..2 {
//!     let permit = handle.try_acquire(&message).expect("two at once");
//!     if let Some(usage) = permit.usage() {
//!         usage.settle(30);
//!     }
//! }
//! // Tell the client, in the protocol of the connection.
//! let denial = handle.try_acquire(&message).expect_err("the burst is spent");
//! let wait = denial.retry_after().expect("it may pass later");
//! assert_eq!(wait.as_millis(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! - A route key for work needs no route in the router. If it has one, requests and work share its limits.
//! - A [`Permit`](crate::Permit) holds slots and the account until it is dropped. All charges, counts, metrics and logs
//!   are those of a request.
//! - Settings of answers, such as [`Rejection`](crate::response::Rejection), have no part in it.
//! - `try_acquire` never waits: where a request would stand in line, it is refused.
//! - With a [store](super::replicas), `try_acquire` spends [leases](super::replicas#leases) alone. Without one,
//!   [`Denial::needs_store`](crate::Denial::needs_store) is true, and `acquire` asks the store and takes a lease:
//!
//! ```
//! use http::Request;
//! use tower_throttle::{Denial, Handle, Permit};
//!
//! async fn permit(handle: &Handle, head: &Request<()>) -> Result<Permit, Box<Denial>> {
//!     match handle.try_acquire(head) {
//!         Err(denial) if denial.needs_store() => handle.acquire(head).await,
//!         decided => decided,
//!     }
//! }
//! # let _ = permit;
//! ```
//!
//! `examples/websocket.rs` has both: a connection that holds its slot, and messages that are charged one by one.
