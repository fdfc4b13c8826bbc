//! Coming from nginx: `limit_req` and `limit_conn`.
//!
//! | nginx | here |
//! |---|---|
//! | `limit_req_zone $binary_remote_addr rate=10r/s` | [`Clients::by_address`](crate::Clients::by_address), [`each`](crate::Clients::each) with [`Rate::per_second(10)`](crate::Rate::per_second) |
//! | `limit_req_zone $server_name …` | [`Rules::total`](crate::Rules::total) |
//! | `limit_req … burst=20 nodelay` | [`Rate::burst`](crate::Rate::burst): one more, see below |
//! | `limit_req … burst=20`, which delays | [`Limits::max_wait`](crate::Limits::max_wait) and [`max_waiting(20)`](crate::Limits::max_waiting) |
//! | `limit_conn` | [`Limits::in_flight`](crate::Limits::in_flight) |
//! | `location` | [`Rules::route`](crate::Rules::route), by method and path |
//! | zone size, `10m` | [`Clients::max_clients`](crate::Clients::max_clients) |
//! | `limit_req_dry_run on` | [`Rate::shadow`](crate::Rate::shadow), for each limit |
//! | `limit_req_status 429` | 429 by default; 503 for a full server |
//! | `set_real_ip_from 10.0.0.0/8` | [`Clients::trusted_proxies`](crate::Clients::trusted_proxies) |
//! | `nginx -s reload` | [`Handle::reload`](crate::Handle::reload) |
//!
//! ```nginx
//! limit_req_zone  $binary_remote_addr zone=each:10m rate=10r/s;
//! limit_conn_zone $server_name        zone=model:1m;
//!
//! location = /v1/chat/completions {
//!     limit_req  zone=each burst=20 nodelay;
//!     limit_conn model 8;
//! }
//! ```
//!
//! The same limits here:
//!
//! ```
//! use tower_throttle::{Clients, Limits, Plan, Rate, Rules, ThrottleLayer};
//!
//! let each = Plan::new(Limits::unlimited())
//!     .route("ANY /v1/chat/completions", Rate::per_second(10).burst(21));
//! let rules = Rules::new()
//!     .route("ANY /v1/chat/completions", Limits::new().in_flight(8))
//!     .clients(Clients::by_address().each(each).max_clients(160_000));
//! let throttle = ThrottleLayer::new(rules)?;
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! # Differences
//!
//! - nginx counts the excess: `burst=20` admits the request that is due and twenty more. A bucket here holds all
//!   requests that pass at once, hence 21.
//! - Several limits are one decision: a request that one of them refuses is charged on none.
//! - A declared route inherits from the default the fields that it leaves out; in nginx a `limit_req` of a `location`
//!   replaces all outer ones.
//! - Refusals state the wait, and header fields of admitted answers the remaining units; nginx sends neither.
//! - Used units survive a reload, whatever it changes.
