//! Coming from Amazon API Gateway.
//!
//! | API Gateway | here |
//! |---|---|
//! | stage | [`Rules`](crate::Rules) |
//! | default route settings | [`Rules::default_route`](crate::Rules::default_route) |
//! | route settings, by route key | [`Rules::route`](crate::Rules::route), by the same [key](crate::RouteKey) |
//! | `ThrottlingRateLimit` | [`Rate::per_second`](crate::Rate::per_second) |
//! | `ThrottlingBurstLimit` | [`Rate::burst`](crate::Rate::burst) |
//! | the account's limits | [`Rules::total`](crate::Rules::total) |
//! | usage plan, API key | [`Clients::plan`](crate::Clients::plan), [`Clients::by_header`](crate::Clients::by_header) |
//! | usage plan's quota | [`Quota`](crate::Quota) |
//! | `auto_deploy` | [`config::watch`](crate::config::watch) |
//! | `{"message":"Too Many Requests"}` | [`Dialect::ApiGateway`](crate::response::Dialect::ApiGateway) |
//! | CloudWatch's `Count`, `4xx` by route | [`Handle::snapshot`](crate::Handle::snapshot), the feature `metrics` |
//!
//! The usual first stage as a document, and in Rust:
//!
//! ```
//! use tower_throttle::{Rate, Rules, config::api_gateway};
//!
//! let stage = r#"{"default_route_settings": {"throttling_burst_limit": 5, "throttling_rate_limit": 10}}"#;
//! let read = api_gateway::stage(stage)?.rules;
//! let written = Rules::new().default_route(Rate::per_second(10).burst(5));
//! assert_eq!(read.to_toml()?, written.to_toml()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Existing stages need not be rewritten: [`config::api_gateway`](crate::config::api_gateway) reads them, and lists the
//! supported documents and ambiguous settings. The example `gateway` is a whole program.
//!
//! # Differences
//!
//! - A limit is exact in each process, not a target. Several processes have limits of their own, or [share
//!   them](crate::guides::replicas).
//! - A refusal states when to retry: `Retry-After` in seconds, and the exact wait in milliseconds.
//! - HTTP APIs of API Gateway have no limits of clients and no cap on requests in flight, and they cannot stream. Here
//!   an answer holds its [slot](crate::guides::models#slots) until its last byte, and [model
//!   tokens](crate::guides::models#tokens) are limited like requests.
