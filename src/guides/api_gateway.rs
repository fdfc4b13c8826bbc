//! Coming from Amazon API Gateway.
//!
//! | there | here |
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
//! The stage that everybody begins with, in its own words and in ours:
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
//! Stages need not be rewritten: [`config::api_gateway`](crate::config::api_gateway) reads them as they are, says
//! which documents, and tells of the traps that are not here. The example `gateway` is the whole program.
//!
//! # What is different
//!
//! - A limit is exact in each process, not a target; several processes have each its own, or [one
//!   together](crate::guides::replicas).
//! - A refusal says when to come back: `Retry-After`, to the second, and the exact wait beside it.
//! - HTTP APIs of API Gateway have no limits of clients and no cap on what is in flight, and they cannot stream. Here
//!   an answer holds its [slot](crate::guides::models#slots) until its last byte, and [model
//!   tokens](crate::guides::models#tokens) are limits as requests are.
