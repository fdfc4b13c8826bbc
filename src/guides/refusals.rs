//! Refusals and header fields: the answers that clients get, and how to change them.
//!
//! # Over HTTP
//!
//! A rejected request never reaches the service behind the throttle, and its body is not read. The default answer is
//! [`Problem`](crate::response::Problem), status 429:
//!
//! ```text
//! HTTP/1.1 429 Too Many Requests
//! content-type: application/problem+json
//! cache-control: no-store
//! retry-after: 1
//! retry-after-ms: 676
//! ratelimit-policy: "chat";q=60;w=60;throttle-burst=10
//! ratelimit: "chat";r=0;t=1
//! ```
//!
//! The body is both a problem document (RFC 9457) and an error that OpenAI's SDKs parse. Waits are rounded up, so that
//! a client that obeys them does not retry too soon. `retry-after` is in whole seconds, at least 1. A wait of more than
//! a minute adds `x-should-retry: false`, since some SDKs ignore such a wait and retry at once. A request that can
//! never pass gets that field without a `retry-after`. `HEAD` gets the fields without the body. If only caps in flight
//! of the total, a route or a model reject, the status is 503; so it is if the server is [shutting down](crate::Handle::close),
//! or if the store of the limits cannot decide.
//!
//! # Over gRPC
//!
//! A gRPC request gets one HEADERS frame with `grpc-status: 8` (`RESOURCE_EXHAUSTED`), or 14 (`UNAVAILABLE`) if the
//! server has no free slot or is shutting down, or the store cannot decide. The details are `ErrorInfo`, `RetryInfo` if
//! the request can pass later, and `QuotaFailure` if limits refused. gRPC-Web gets the same in its own content type. A
//! refusal is gRPC if the request is a `POST` with a gRPC content type (over HTTP/2) or a gRPC-Web one, or if
//! [`Protocol::Grpc`](crate::response::Protocol::Grpc) is set.
//! `grpc_retry_pushback(true)` makes client libraries retry after the wait.
//!
//! # Header fields
//!
//! Admitted responses and refusals carry the fields of the IETF draft [RateLimit header fields for
//! HTTP](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/), version 11:
//!
//! ```text
//! ratelimit-policy: "chat";q=60;w=60;throttle-burst=10
//! ratelimit: "chat";r=9;t=9
//! ```
//!
//! The policy is `q` units in `w` seconds with a burst of `throttle-burst`: requests, or what they [cost](super::costs#costs).
//! `r` units would pass now, and none for a refused request. A
//! client that spreads them over `t` seconds arrives at the steady rate. The limit with the least left comes first.
//! The fields are added to those of the inner service, never in their place. `rate_limit_headers(false)` turns them
//! off on admitted responses.
//!
//! Limits of the total, and caps in flight of routes and models, are not published, since they reveal the server's capacity;
//! [`Limits::publish`](crate::Limits::publish) changes that.
//!
//! A request that was charged to a [second budget](super::costs#a-smaller-model-instead-of-a-refusal) has
//! `throttle-degraded: chat` in its response, with the name of the limit that would have refused it.
//!
//! Browsers hide these fields from scripts. Expose them in CORS with
//! [`EXPOSE_HEADERS`](crate::response::EXPOSE_HEADERS).
//!
//! # Dialects
//!
//! A [`Dialect`](crate::response::Dialect) answers as the clients of a known API expect it: OpenAI, Anthropic, API
//! Gateway, Azure API Management, KServe, JSON-RPC (MCP). Set it for all routes with `rejection`, or for one with
//! [`Rules::rejection`](crate::Rules::rejection).
//!
//! # Custom answers
//!
//! A closure gets the [`Denial`](crate::Denial) and the request's head. It can start from the default answer and keep
//! its fields:
//!
//! ```
//! use http::{StatusCode, request::Parts};
//! use tower_throttle::response::{Problem, Rejection};
//! use tower_throttle::{Denial, Rules, RulesError, ThrottleLayer};
//!
//! fn throttle(rules: Rules) -> Result<ThrottleLayer, RulesError> {
//!     ThrottleLayer::builder(rules)
//!         .rejection(|denial: &Denial, request: &Parts| {
//!             let mut answer = Problem.reject(denial, request);
//!             *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
//!             answer
//!         })
//!         .build()
//! }
//! # throttle(Rules::new()).map(|_| ())?;
//! # Ok::<(), RulesError>(())
//! ```
//!
//! # Waits
//!
//! Each refusal states its true wait. `stagger_retry_after(true)` gives different waits to clients that are rejected
//! together, so that they do not return together. No stated wait is shorter than the true one.
