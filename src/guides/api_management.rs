//! Coming from Azure API Management.
//!
//! | API Management | here |
//! |---|---|
//! | `rate-limit`, for each subscription | [`Clients::each`](crate::Clients::each), with a [`Rate`](crate::Rate) |
//! | `rate-limit-by-key` on a constant | [`Rules::total`](crate::Rules::total) |
//! | `rate-limit-by-key` on `context.Request.IpAddress` | [`Clients::by_address`](crate::Clients::by_address) |
//! | `quota`, `quota-by-key` | [`Quota`](crate::Quota) |
//! | `limit-concurrency` | [`Limits::in_flight`](crate::Limits::in_flight) |
//! | `llm-token-limit`, `azure-openai-token-limit` | [`Limits::tokens`](crate::Limits::tokens) |
//! | a product, with its own policy | [`Clients::plan`](crate::Clients::plan) |
//! | scopes: global, API, operation | [`Rules::total`](crate::Rules::total), [`Rules::default_route`](crate::Rules::default_route), [`Rules::route`](crate::Rules::route) |
//! | `remaining-calls-header-name` | the [fields](crate::guides::refusals#header-fields) `RateLimit` and `RateLimit-Policy` |
//! | its 429 and 403 | [`Dialect::AzureApiManagement`](crate::response::Dialect::AzureApiManagement) |
//!
//! ```
//! use tower_throttle::{Clients, Limits, Quota, Rate, Rules, config::api_management};
//!
//! let policy = r#"<inbound>
//!     <rate-limit calls="20" renewal-period="60" />
//!     <quota calls="10000" renewal-period="604800" />
//! </inbound>"#;
//! let read = api_management::policy(policy)?.rules;
//! let each = Limits::new().rate(Rate::per_minute(20)).quota(Quota::per_week(10_000));
//! let written = Rules::new().clients(Clients::by_header("ocp-apim-subscription-key").each(each));
//! assert_eq!(read.to_toml()?, written.to_toml()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`config::api_management`](crate::config::api_management) reads existing policies, and lists the supported ones.
//!
//! # Differences
//!
//! - A rate is a bucket and not a sliding window: after a pause all calls pass at once, and then they come back one by
//!   one.
//! - A slot is held until the answer's last byte, so that a cap holds for streams, too.
//! - Model tokens are reserved before the call and settled after it, so that simultaneous calls cannot all pass on the
//!   same balance.
//! - A refused request costs nothing, on any of its limits.
