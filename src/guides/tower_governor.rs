//! Coming from tower_governor.
//!
//! | tower_governor | here |
//! |---|---|
//! | `GovernorConfigBuilder`, `GovernorLayer` | [`Rules`](crate::Rules), [`ThrottleLayer`](crate::ThrottleLayer) |
//! | `.per_second(2)`: one in **two seconds** | [`Rate::new(1, Duration::from_secs(2))`](crate::Rate::new); [`Rate::per_second(2)`](crate::Rate::per_second) is two in one |
//! | `.burst_size(5)` | [`Rate::burst(5)`](crate::Rate::burst) |
//! | `PeerIpKeyExtractor` | [`Clients::by_address`](crate::Clients::by_address) |
//! | `SmartIpKeyExtractor` | [`Clients::by_address`](crate::Clients::by_address) with [`trusted_proxies`](crate::Clients::trusted_proxies), the only proxies whose fields are believed |
//! | `GlobalKeyExtractor` | [`Rules::total`](crate::Rules::total) |
//! | a custom `KeyExtractor` | [`Clients::by`](crate::Clients::by) |
//! | `.methods([…])` | route keys with a method |
//! | `.use_headers()` | default; [`rate_limit_headers(false)`](crate::ThrottleLayerBuilder::rate_limit_headers) turns them off |
//! | `.error_handler(…)` | [`ThrottleLayerBuilder::rejection`](crate::ThrottleLayerBuilder::rejection) |
//! | a task that calls `retain_recent` | not needed: the client table is bounded |
//!
//! ```text
//! let config = GovernorConfigBuilder::default()
//!     .key_extractor(SmartIpKeyExtractor)
//!     .per_second(2)
//!     .burst_size(5)
//!     .finish()
//!     .unwrap();
//! let app = app.layer(GovernorLayer::new(config));
//! ```
//!
//! The same limits here:
//!
//! ```
//! use std::time::Duration;
//!
//! use tower_throttle::{Clients, Rate, Rules, ThrottleLayer};
//!
//! let each = Rate::new(1, Duration::from_secs(2)).burst(5);
//! let clients = Clients::by_address().trusted_proxies(["10.0.0.0/8"]).each(each);
//! let throttle = ThrottleLayer::new(Rules::new().clients(clients))?;
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! # Differences
//!
//! - Limits hold by route, by client, by client on a route and in total. All are decided at once.
//! - The layer has no type parameters: a function can return it, and a struct can hold it.
//! - `Retry-After` is rounded up and never zero, and `retry-after-ms` has the exact wait.
//! - An IPv6 client is its /64 network, and `X-Forwarded-For` is read from the right, past the trusted proxies.
//! - Time is tokio's, so that a test can pause it instead of sleeping.
