//! Calling others: the layer around a client.
//!
//! A tower client is a service over `http` types, so the layer can wrap it. Use it to stay below the limits of a model
//! provider, instead of running into its 429:
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//!
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_throttle::{Decision, Limits, Rate, Rules, ThrottleLayer, decision::DecisionIn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = Limits::new()
//!     .rate(Rate::per_second(2).burst(1))
//!     .max_wait(Duration::from_secs(1));
//! let throttle = ThrottleLayer::builder(Rules::new().route("POST /v1/chat/completions", provider))
//!     .decision(DecisionIn::Response)
//!     .build()?;
//! // For example `hyper_util::client::legacy::Client`.
//! let connection = service_fn(async |_: Request<String>| {
//!     Ok::<_, Infallible>(Response::new("an answer".to_owned()))
//! });
//! let client = ServiceBuilder::new().layer(throttle).service(connection);
//!
//! let ask = || {
//!     let request = Request::post("http://provider.example/v1/chat/completions");
//!     client.clone().oneshot(request.body("a question".to_owned()).expect("a request"))
//! };
//! let begun = tokio::time::Instant::now();
//! for _ in 0..3 {
//!     assert_eq!(ask().await?.status(), StatusCode::OK);
//! }
//! assert!(begun.elapsed() >= Duration::from_secs(1), "two of them waited for half a second");
//! # Ok(())
//! # }
//! ```
//!
//! - The route key is the method and the path of the request. The host takes no part. Use one layer for each
//!   provider.
//! - [`Limits::max_wait`](crate::Limits::max_wait) waits for the limit, in order of calls. A request that would wait
//!   longer is not sent.
//! - A local refusal is a response with status 429 (503 from a cap in flight), like the provider's. With
//!   `decision(DecisionIn::Response)`, a [`Decision`](crate::Decision) in its extensions identifies it: `is_admitted`
//!   is false, and `retry_after` is the wait. In a response of the provider the decision is admitted.
//! - [`Limits::in_flight`](crate::Limits::in_flight) holds a slot until the response's body has ended or is dropped.
//! - Response bodies become [`ResponseBody`](crate::body::ResponseBody), which is a body of `Bytes`.
//!
//! `reqwest::Client` is not a service over `http` types: it has its own request and response types. Use hyper-util's
//! client, or put the layer in front of a function that sends with reqwest.
