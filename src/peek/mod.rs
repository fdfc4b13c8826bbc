//! A layer outside of the throttle, which reads bodies where limits need facts of them.
//!
//! In APIs like OpenAI's the name of the model is in the body. A throttle decides at once, by the head of a request and
//! what is in its extensions. So [`PeekLayer`] goes around it: it reads the body, finds the facts, and puts them into
//! the extensions. Then it calls the throttle, with a body that yields the same bytes once more.
//!
//! ```
//! use axum::{Router, routing::post};
//! use tower_throttle::{Models, Rate, Rules, ThrottleLayer};
//!
//! let rules = Rules::new()
//!     .route("POST /v1/chat/completions", Rate::per_second(2).burst(4))
//!     .models(Models::from_body().model("llama-70b", Rate::per_minute(30)));
//! let throttle = ThrottleLayer::new(rules)?;
//! let app: Router = Router::new()
//!     .route("/v1/chat/completions", post(async || "served"))
//!     .layer(throttle.clone())
//!     .layer(throttle.peek_layer()); // The outermost reads the body.
//! # let _ = app;
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! In axum, [`for_axum`](PeekLayer::for_axum) hands on axum's own body. `middleware::from_fn` further in needs that,
//! and it saves the boxes of bodies that are not read. In a `ServiceBuilder`, the peek layer comes first. Other layers
//! may stand between the two if they leave the body as it is, and change nothing by which routes and clients are found:
//! the method, the path, and the fields and extensions that identify a client. Otherwise requests may be refused by
//! limits that are not theirs.
//!
//! # Rules
//!
//! - **Only where it is needed.** A request whose limits need no facts passes untouched, its body too.
//! - **Refused before it is read.** If a limit refuses that needs no facts, the request is answered before a byte of
//!   its body is read. hyper then sends no `100 Continue`, and the client need not send the body. Limits in a
//!   [store](crate::store), limits with a queue, and those of models and tokens that are in the body refuse after it was
//!   read; but a [budget](crate::Limits::spend) of a day, week or month refuses before if nothing is left of it. Limits
//!   of clients refuse after it where no identity or plan was found, since a layer further in may find one.
//! - **Without a body.** A body that is known to be empty has empty facts. That of a `CONNECT` is not read.
//! - **Read to its end.** The name of the model often comes after the messages. So the whole body is read, of at most
//!   [`max_body`](PeekLayer::max_body) bytes, whatever its type says it is.
//! - **Not read, and told so**: a body with a content coding, a multipart body, one that is too large, and one that
//!   breaks off. The request goes on, with the reason as its fact. A body that turns out to be too large or malformed
//!   as it is read goes on at once: the handler reads the first part from memory, and the rest from the client.
//! - **The same body.** The inner service gets the same bytes, trailers and error, in the same order.
//! - **In bounded memory.** All kept bodies together take at most [`max_pool`](PeekLayer::max_pool) bytes. A full pool
//!   slows requests down, and never changes the limits that they fall under. Room comes back as soon as the handler has
//!   read the body.
//! - **In bounded time.** A body that has not arrived within [`body_deadline`](PeekLayer::body_deadline) is answered with
//!   status 408 Request Timeout, and over HTTP/1 with `Connection: close`. If it has stood in line for room, the
//!   answer is 503 with `Retry-After: 1`. The answers are problem documents (RFC 9457).
//!
//! # Why 408
//!
//! A request could also go on without facts when its time is over. Then the client would choose: whoever sends slowly
//! falls under the limits for bodies that were not read instead of those of the model, and an honest client falls under
//! other limits because of its line. The slow body would go on to the handler, and keep its slots and its kept part for
//! as long as the client likes. An answer of 408 costs the client its request, and nothing was charged for it.
//!
//! # Caveats
//!
//! - Streams of one HTTP/2 connection share a window. Streams whose bodies wait for room may fill it, so that a stream
//!   that has room gets no bytes. Then the time of one of them ends it.
//! - Dropping the future at any point returns the room, and so does a panic of the inner service. A handler that keeps
//!   the body and never reads it keeps its room, too.
//! - A refusal before the body is read states the wait for the limits that it has looked at. Those of the model may
//!   refuse the next request. Its [`Decision`](crate::Decision) and its metrics name no model.
//! - The client is identified before the body is read, and once more by the throttle: closures of
//!   [`Clients`](crate::Clients) are called twice for a request whose limits need facts.
//! - gRPC requests are answered in HTTP, which clients map to `UNAVAILABLE` (503) and `UNKNOWN` (408).

#[cfg(feature = "axum")]
mod axum;
mod body;
mod content;
mod future;
mod kept;
mod layer;
mod pool;
mod reading;
mod service;
mod settings;

#[cfg(feature = "axum")]
pub use self::axum::{AxumPeek, AxumPeekFuture, AxumPeekLayer};
pub use self::{body::Peeked, future::PeekFuture, layer::PeekLayer, service::Peek};

#[cfg(test)]
mod tests;
