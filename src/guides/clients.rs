//! Clients and plans: identities, proxies, and the limits of each client.
//!
//! ```
//! use tower_throttle::{Clients, Limits, Plan, Quota, Rate, Rules, ThrottleLayer};
//!
//! let pro = Limits::new()
//!     .rate(Rate::per_second(20).burst(40))
//!     .quota(Quota::per_day(10_000));
//! let clients = Clients::by_header("x-api-key")
//!     .or_address()
//!     .each(Rate::per_second(1).burst(5))
//!     .plan(
//!         "pro",
//!         Plan::new(pro).route("POST /v1/chat/completions", Rate::per_second(2).burst(4)),
//!     )
//!     .member("pro", "key-of-a-customer");
//! let throttle = ThrottleLayer::new(Rules::new().clients(clients))?;
//! # let _ = throttle;
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! # Identity
//!
//! | source | identifies a client by |
//! |---|---|
//! | [`by_header`](crate::Clients::by_header) | a header field, such as `x-api-key`; in gRPC a key of the metadata |
//! | [`by_bearer`](crate::Clients::by_bearer) | the bearer token |
//! | [`by_host`](crate::Clients::by_host) | the requested host, out of a list |
//! | [`by_address`](crate::Clients::by_address), [`or_address`](crate::Clients::or_address) | the address of the peer; IPv6 by its /64 network |
//! | [`by_extension`](crate::Clients::by_extension), [`by`](crate::Clients::by) | a value that authentication has inserted into the request's extensions, or a closure |
//!
//! Keys, tokens and addresses are hashed at once. Only the hashes are stored, and they are never printed.
//!
//! Use verified identities. An unverified key is a new client with each value, and each new client has full buckets.
//! Put authentication outside the throttle. Without authentication, limit by address, which a client cannot forge.
//! Unidentified requests share the limits of one anonymous client.
//!
//! # Identity and plan from a database
//!
//! Look them up in the authentication layer, which is asynchronous and outside the throttle. Insert the result into the
//! request's extensions, and read it from there. `call` of the throttle stays synchronous, and a request with an
//! invalid key never reaches a limit:
//!
//! ```
//! use axum::middleware::{Next, from_fn};
//! use axum::{Router, extract::Request, response::Response, routing::post};
//! use http::StatusCode;
//! use tower_throttle::{Clients, Plan, Rate, Rules, RulesError, ThrottleLayer};
//!
//! #[derive(Clone)]
//! struct Account {
//!     id: u64,
//!     plan: &'static str,
//! }
//!
//! async fn authenticate(mut request: Request, next: Next) -> Result<Response, StatusCode> {
//!     let key = request.headers().get("x-api-key").and_then(|key| key.to_str().ok());
//!     let account = find_account(key.unwrap_or("")).await.ok_or(StatusCode::UNAUTHORIZED)?;
//!     request.extensions_mut().insert(account);
//!     Ok(next.run(request).await)
//! }
//!
//! fn app() -> Result<Router, RulesError> {
//!     let clients = Clients::by_extension(|account: &Account| account.id.into())
//!         .plan_by(|head| head.extensions().get::<Account>().map(|account| account.plan))
//!         .each(Rate::per_minute(10))
//!         .plan("free", Plan::new(Rate::per_second(1).burst(1)));
//!     let throttle = ThrottleLayer::new(Rules::new().clients(clients))?;
//!     // The last layer is the outermost.
//!     Ok(Router::new()
//!         .route("/v1/chat/completions", post(async || "served"))
//!         .layer(throttle)
//!         .layer(from_fn(authenticate)))
//! }
//! # async fn find_account(key: &str) -> Option<Account> {
//! #     (key == "sk-7").then_some(Account { id: 7, plan: "free" })
//! # }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use tower::ServiceExt;
//! # let app = app()?;
//! # let ask = |key| {
//! #     let request = Request::post("/v1/chat/completions").header("x-api-key", key);
//! #     app.clone().oneshot(request.body(axum::body::Body::empty()).expect("a request"))
//! # };
//! # assert_eq!(ask("sk-7").await?.status(), StatusCode::OK);
//! # assert_eq!(ask("sk-7").await?.status(), StatusCode::TOO_MANY_REQUESTS);
//! # assert_eq!(ask("sk-8").await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! The limits of the plans can be in a file that is followed, with the closures added in code: see the guide
//! [Configuration files](super::configuration#settings-that-only-code-has).
//!
//! # Addresses and proxies
//!
//! The host provides the address of the peer. In axum, serve `app.into_make_service_with_connect_info::<SocketAddr>()`
//! (feature `axum`); tonic provides it by itself (feature `tonic`); on bare hyper, insert a
//! [`PeerAddr`](crate::client::PeerAddr) into the extensions. Without it all clients are anonymous, and a warning is
//! logged once (feature `tracing`).
//!
//! Behind a proxy every peer is the proxy. Name the proxies that you trust:
//! `Clients::by_address().trusted_proxies(["10.0.0.0/8"])`. `X-Forwarded-For` (or `Forwarded`, by
//! [`forwarding`](crate::Clients::forwarding)) is then read from its right end, over all its lines, up to the first
//! address that is not trusted. The left end is never believed: clients write it.
//!
//! # Plans
//!
//! [`Clients::each`](crate::Clients::each) sets the limits of every client. A plan replaces them, and inherits what it
//! leaves out. [`Plan::route`](crate::Plan::route) adds limits for one route, and [`Plan::model`](crate::Plan::model)
//! for one [model](super::costs). Assign clients to plans by key ([`member`](crate::Clients::member)) or by a closure
//! ([`plan_by`](crate::Clients::plan_by)). A plan that does not exist counts as none, and a warning is logged once.
//!
//! # Memory
//!
//! All balances of clients are in one table of fixed size: 16 bytes for each limit of a client, 4 MiB unless
//! [`max_clients`](crate::Clients::max_clients) is set. Only a full bucket gives up its place, so a flood of invented
//! identities cannot reset the usage of a client. When the table is full, clients without a bucket share overflow
//! buckets. Make the table half as large again as the number of clients that are active at a time, which is 24 bytes
//! for each of them.
