//! Serving models: slots, queues and model tokens.
//!
//! ```
//! use std::time::Duration;
//!
//! use tower_throttle::{Limits, Rate, Rules, ThrottleLayer, usage::Estimate};
//!
//! let chat = Limits::new()
//!     .rate(Rate::per_minute(600).burst(20))
//!     .tokens(Rate::per_minute(90_000))
//!     .in_flight(8)
//!     .max_wait(Duration::from_secs(2))
//!     .max_waiting(100);
//! let rules = Rules::new()
//!     .route("POST /v1/chat/completions", chat)
//!     .estimate(Estimate::by_header("x-max-tokens").or(500));
//! let throttle = ThrottleLayer::new(rules)?;
//! # let _ = throttle;
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! # Slots
//!
//! [`Limits::in_flight`](crate::Limits::in_flight) caps the requests in flight. A request holds its slot from the
//! decision to the last byte, the trailers or the error of its response, or until the client goes away. A stream of ten
//! minutes holds a slot for ten minutes. A server without a free slot answers 503; a client over its own cap gets 429.
//!
//! A response that switches protocols (101, or 200 to `CONNECT`) has no body, so its slot comes back at once. A handler
//! keeps the slot with a [`Hold`](crate::body::Hold), for a WebSocket as for a background task: see
//! [WebSockets and background work](super::connections).
//!
//! A request whose body does not arrive holds a slot for as long as the handler waits for that body. Bound it with
//! tower-http's `RequestBodyDeadlineLayer` inside the throttle.
//!
//! # Queues
//!
//! [`Limits::max_wait`](crate::Limits::max_wait) queues requests that would be rejected, in order of arrival, for rates
//! and slots alike. A request that would wait longer than allowed, or longer than its `grpc-timeout`, is rejected at
//! once. [`Limits::max_waiting`](crate::Limits::max_waiting) bounds the queue. A client over its own limit delays no
//! other client. A cancelled request leaves the queue and has used nothing.
//!
//! # Tokens
//!
//! [`Limits::tokens`](crate::Limits::tokens) is a rate of model tokens. The cost of a request is estimated and
//! reserved before it runs, and settled afterwards:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_throttle::{Limits, Rate, Rules, ThrottleLayer, Usage, usage::Estimate};
//!
//! async fn complete(request: Request<()>) -> Result<Response<String>, Infallible> {
//!     // Absent if no limit counts tokens, for example after a reload.
//!     if let Some(usage) = request.extensions().get::<Usage>() {
//!         // Or `add` while it streams, and stop when `remaining` is zero.
//!         usage.settle(70);
//!     }
//!     Ok(Response::new("an answer of 70 tokens".to_owned()))
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rules = Rules::new()
//!     .route("POST /chat", Limits::new().tokens(Rate::per_minute(100)))
//!     .estimate(Estimate::fixed(50));
//! let service = ServiceBuilder::new()
//!     .layer(ThrottleLayer::new(rules)?)
//!     .service(service_fn(complete));
//! let ask = || service.clone().oneshot(Request::post("/chat").body(()).expect("a request"));
//!
//! // 50 are reserved and 70 used, so that 30 remain.
//! assert_eq!(ask().await?.status(), StatusCode::OK);
//! assert_eq!(ask().await?.status(), StatusCode::TOO_MANY_REQUESTS);
//! # Ok(())
//! # }
//! ```
//!
//! - Reserved tokens that were not used come back when the cost is settled. Tokens used beyond the reservation become a
//!   debt, which later requests wait for. Without a settlement nothing comes back, so that a client that goes away pays
//!   for what it received.
//! - [`Limits::input_tokens`](crate::Limits::input_tokens) and [`Limits::output_tokens`](crate::Limits::output_tokens)
//!   count the tokens of requests and of answers apart. Handlers then add and settle a
//!   [`TokenUsage`](crate::usage::TokenUsage).
//! - By default the estimate is one token for every four bytes of `Content-Length`.
//!   [`Rules::estimate`](crate::Rules::estimate) sets another [`Estimate`](crate::usage::Estimate): a fixed number, a
//!   header field, the text and the largest output of the [body](super::costs#costs), or a closure.
//! - An estimate above the burst is admitted, since it is a guess. A limit reserves at most its burst, and at most half
//!   of it in a shared bucket ([`max_reservation_percent`](crate::Limits::max_reservation_percent)).
//!   [`max_tokens_per_request`](crate::Limits::max_tokens_per_request) rejects larger requests.
//! - `ThrottleLayer::builder(rules).usage_from_openai_response(true)` reads `usage.total_tokens` from responses as
//!   they pass, for handlers that cannot be changed.
//!
//! # Refusals that clients obey
//!
//! SDKs parse the wait of a refusal and retry after it. A [`Dialect`](crate::response::Dialect) answers in the format
//! that they parse: OpenAI, Anthropic, KServe, JSON-RPC (MCP), API Gateway, Azure API Management. gRPC requests get
//! `RESOURCE_EXHAUSTED` with `RetryInfo`.
//!
//! `stagger_retry_after(true)` gives different waits to clients that are rejected together. If fifty clients of
//! OpenAI's SDK call at once, with a burst of five and ten a second, about ten succeed without it, and all fifty with
//! it. A queue (`max_wait`) serves such a herd without retries.
