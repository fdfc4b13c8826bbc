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
//! - `ThrottleLayer::builder(rules).usage_from_answers(true)` reads the usage from responses as they pass, for handlers
//!   that cannot be changed. [`Limits::usage_from_answers`](crate::Limits::usage_from_answers) sets it for one route.
//!
//! # Usage from answers
//!
//! [`usage_from_answers`](crate::ThrottleLayerBuilder::usage_from_answers) reads the formats below. The names of their
//! members tell them apart, so there is no setting.
//!
//! | API | report | cached input |
//! |---|---|---|
//! | OpenAI: chat, completions, embeddings, audio, images | `usage` | inside, in `prompt_tokens_details` |
//! | OpenAI Responses | `usage`; in streams `response.usage` | inside, in `input_tokens_details` |
//! | Anthropic Messages | `usage`; in streams the largest counts of `message.usage` and `usage` | beside |
//! | Gemini | the largest counts of `usageMetadata` | inside |
//! | Bedrock Converse, as JSON | `usage` | beside |
//! | Cohere | `billed_units` in `meta`, `usage` or `delta.usage` | |
//! | Ollama | `prompt_eval_count`, `eval_count` | |
//! | llama.cpp | `usage`, or `tokens_evaluated` and `tokens_predicted`, or `timings` | `cache_n` of `timings` |
//!
//! - Media types: `application/json` with one answer or an array of chunks, `text/event-stream`, and
//!   `application/x-ndjson` (or `application/ndjson`, `application/jsonl`, `application/stream+json`).
//! - Cached input inside of a count is subtracted from it, so that the kinds of a
//!   [`TokenUsage`](crate::usage::TokenUsage) do not overlap. Reasoning counts as output, results of tools as input.
//! - A total beyond its parts counts as output. A total alone counts as tokens of
//!   [no kind in particular](crate::usage::TokenUsage::undivided). An answer without text may report its input alone.
//! - A number counts if it is written as a non-negative integer of at most 2⁶⁴ − 1: not `12.0`, `1e3` or `"12"`. Zero
//!   is a count.
//! - The counts of a stream are cumulative. Its report is final if no text follows it. Counts of an answer that is cut
//!   short after events which had text and counts together, as Gemini's have, are not final.
//! - Text is what the members for content have: `content`, `text`, `reasoning_content`, `thinking`, `refusal`, the
//!   arguments of tools and others in `choices`, `candidates`, `delta`, `message`, `content`, `content_block`, `output`
//!   and `token`, and a string in `delta`, `response` or `content`.
//!
//! A client may decide by its request whether there is a report to read:
//!
//! | request | charged |
//! |---|---|
//! | a stream without `stream_options.include_usage` | the reservation, or the input and the text if that is more |
//! | the client goes away before the report | the same |
//! | `Accept-Encoding`, with compression inside of the throttle | the reservation; of a stream at least bytes ÷ 4 |
//! | another format, such as `response_format: text` of transcriptions | the reservation |
//! | words as they are in events or lines, in place of JSON | the reservation, or the input and bytes ÷ 4 if that is more |
//! | `HEAD` | the reservation |
//! | `Range`, where the inner service serves parts of JSON | the reservation, or the text if that is more |
//!
//! To have compression and reports, add the compression outside of the throttle:
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_http::compression::CompressionLayer;
//! use tower_throttle::{Rules, ThrottleLayer};
//!
//! let throttle = ThrottleLayer::builder(Rules::new()).usage_from_answers(true).build()?;
//! let layers = ServiceBuilder::new().layer(CompressionLayer::new()).layer(throttle);
//! # let _ = layers;
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! A gRPC handler settles its usage itself, since no layer can read the messages. Tonic hands it the account in the
//! extensions of the call (example `tonic_inference`):
//!
//! ```
//! use tonic::{Request, Response, Status};
//! use tower_throttle::{Usage, usage::TokenUsage};
//!
//! async fn generate(call: Request<String>) -> Result<Response<String>, Status> {
//!     let account = call.extensions().get::<Usage>().cloned();
//!     let (answer, input, output) = run_the_model(call.into_inner()).await?;
//!     if let Some(account) = account {
//!         account.settle_tokens(TokenUsage::new().input(input).output(output));
//!     }
//!     Ok(Response::new(answer))
//! }
//!
//! async fn run_the_model(prompt: String) -> Result<(String, u64, u64), Status> {
//!     # let _ = prompt;
//!     Ok(("Paris".to_owned(), 12, 1))
//! }
//! # let _ = generate;
//! ```
//!
//! If a handler [keeps](crate::body::Hold) its request, the usage that the response reports is added to the account,
//! which stays open.
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
