//! The order of layers, and the requirements of the throttle on its host.
//!
//! With tower-http 0.7, from the outside in:
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::{Router, extract::Request, middleware::{Next, from_fn}, response::Response};
//! use http::{StatusCode, header::AUTHORIZATION};
//! use tower::ServiceBuilder;
//! use tower_http::{
//!     cors::CorsLayer, limit::RequestBodyLimitLayer, timeout::{RequestBodyDeadlineLayer, TimeoutLayer},
//!     trace::TraceLayer, validate_request::ValidateRequestHeaderLayer,
//! };
//! use tower_throttle::{decision::DecisionIn, response::EXPOSE_HEADERS};
//! use tower_throttle::{Rules, RulesError, ThrottleLayer};
//!
//! fn layered(app: Router, rules: Rules) -> Result<Router, RulesError> {
//!     let throttle = ThrottleLayer::builder(rules).decision(DecisionIn::Response).build()?;
//!     let layers = ServiceBuilder::new()
//!         .layer(TraceLayer::new_for_http())
//!         .layer(CorsLayer::permissive().expose_headers(EXPOSE_HEADERS.to_vec()))
//!         .layer(from_fn(authenticate))
//!         .layer(throttle)
//!         .layer(ValidateRequestHeaderLayer::accept("application/json"))
//!         .layer(RequestBodyDeadlineLayer::new(Duration::from_secs(5)))
//!         .layer(RequestBodyLimitLayer::new(1024 * 1024))
//!         .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(30)));
//!     Ok(app.layer(layers))
//! }
//!
//! async fn authenticate(request: Request, next: Next) -> Result<Response, StatusCode> {
//!     match request.headers().get(AUTHORIZATION) {
//!         Some(key) if key == "Bearer sk-local" => Ok(next.run(request).await),
//!         _ => Err(StatusCode::UNAUTHORIZED),
//!     }
//! }
//! # layered(Router::new(), Rules::new()).map(|_| ())?;
//! # Ok::<(), RulesError>(())
//! ```
//!
//! 1. **Tracing** is outermost, so that it sees refusals, too. The response's extensions hold the
//!    [`Decision`](crate::Decision) to log.
//! 2. **CORS** is outside the throttle. Scripts in a browser may read a refusal only if it carries the CORS fields,
//!    and preflights end there. Inside the throttle, each preflight is charged to its route, the total, and its
//!    client. Without credentials that is the anonymous client, or with `or_address` the one of its address.
//! 3. **Authentication** is outside if limits identify clients. Strangers then cannot spend the limits of known
//!    clients, nor be a new client with each invented key.
//! 4. **The throttle.** Directly outside of it goes its [peek layer](crate::peek), if limits need
//!    [facts of the body](super::costs#reading-the-body). It bounds the size and the time of the bodies that it reads.
//! 5. **Validation, body limit and timeouts** are inside, since a rejected request does not reach them. The deadline
//!    for the request's body bounds how long a request without its body holds a [slot](super::models#slots).
//!    `RequestBodyTimeoutLayer` bounds only the time between two frames, which a client can stretch by sending a byte
//!    now and then.
//!
//! # Layers that rewrite
//!
//! A layer that rewrites a path or a method, such as `NormalizePath`, goes outside the throttle. In axum that means
//! around the outermost router as a whole, since `Router::layer` runs after routing. A proxy needs
//! [`CanonicalPathLayer`](crate::canonical_path::CanonicalPathLayer) around the throttle: an upstream server may decode
//! `%2F`, merge `//` or resolve `..`, and would serve one resource under many paths, each with limits of its own.
//!
//! # Hosts
//!
//! - **axum.** `Router::layer` throttles unmatched paths, too; `Router::route_layer` only matched routes. Keys match
//!   the whole path, also inside nested routers (feature `axum`). `for_axum()` answers with axum's own body, and saves
//!   a box if no other layer changes the body.
//!   An [exempt](crate::Limits::exempt) health route is still behind the authentication layer. Add such a route after
//!   the layers, and no layer holds for it: `.layer(throttle).layer(from_fn(authenticate)).route("/health", …)`.
//! - **tonic.** `Server::layer` needs no feature. With the feature `tonic`, a single service can be wrapped and
//!   added.
//! - **hyper.** Make one layer, and wrap one service with it for each connection:
//!   `TowerToHyperService::new(throttle.layer(service))`. To limit by address, put a
//!   [`PeerAddr`](crate::client::PeerAddr) into each request.
//! - **WebSockets** and other connections that switch protocols hold their [slot](super::models#slots) with a
//!   [guard](super::connections).
//!
//! # Notes
//!
//! - Without a [store](super::replicas) limits hold for each process.
//! - Limits that belong together go into one [`Rules`](crate::Rules). Two throttles around one service decide one after
//!   the other: units taken by the outer one stay taken when the inner one rejects.
//! - A rejected request was received and its head parsed. The throttle saves the work behind it, not the connection.
//!   HTTP/1.1 servers may close the connection after a rejected upload; HTTP/2 servers reset the stream with
//!   `NO_ERROR`.
//! - An inner service that reserves something in `poll_ready`, like tower's `ConcurrencyLimit`, keeps it through a
//!   refusal until its next call, or until it is dropped.
