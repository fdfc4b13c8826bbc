//! Rules as documents: the crate's own format, and those of API gateways.
//!
//! # Rules
//!
//! A document can hold all of [`Rules`](crate::Rules) except closures and keys of members.
//! [`Rules::from_toml`](crate::Rules::from_toml) reads it:
//!
//! ```
//! use tower_throttle::{Rules, ThrottleLayer};
//!
//! let rules = Rules::from_toml(
//!     r#"
//!     total = { rate = 10000, burst = 5000 }
//!     default_route = { rate = 10, burst = 5 }
//!
//!     [routes]
//!     "GET /health" = "exempt"
//!     "GET /v1/models" = "600/minute"
//!
//!     [routes."POST /v1/chat/completions"]
//!     rate = [
//!         { rate = "600/minute", burst = 20, name = "chat" },
//!         { rate = 0.5, name = "stricter", shadow = true },
//!     ]
//!     tokens = "90000/minute"
//!     in_flight = 8
//!     max_wait = "2s"
//!
//!     [models]
//!     by = "body"
//!     on = "POST /v1/chat/completions"
//!     otherwise = "60/minute"
//!
//!     [models.llama-70b]
//!     in_flight = 4
//!     tokens = "90000/minute"
//!
//!     [clients]
//!     by = [{ header = "x-api-key" }, "address"]
//!     each = { rate = 1, burst = 5 }
//!
//!     [clients.plans.pro]
//!     rate = 20
//!     burst = 40
//!     quota = "10000/day"
//!     routes."POST /v1/chat/completions" = { rate = 2, burst = 4 }
//!     "#,
//! )?;
//! let throttle = ThrottleLayer::new(rules)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Rules::from_yaml`](crate::Rules::from_yaml) reads the same from YAML and from JSON. Other formats use serde:
//! `Rules` is `Deserialize` and `Serialize`. An error states the path of the setting at fault, and its line and column
//! unless serde has read it.
//!
//! | setting | what it is |
//! |---|---|
//! | `total`, `default_route` | limits |
//! | `routes` | limits, by [route key](crate::RouteKey) |
//! | `undeclared` | `"per_route"` or `"shared"`: [`Undeclared`](crate::rules::Undeclared) |
//! | `catch_all` | `"unmatched"` or `"unrouted"`: [`CatchAll`](crate::route::CatchAll) |
//! | `models`, `prices`, `clients` | see below |
//! | `estimate` | [tokens](crate::usage::Estimate) of a request: `300`, `{ header = "x-max-tokens", or = 300 }`, `{ bytes_per_token = 4 }`, or `{ body = { output = 4096 }, or = 8192 }` with the settings of a [`BodyEstimate`](crate::usage::BodyEstimate), and with `models = { "gpt-4o*" = { output = 300 } }` those [of models](crate::usage::Estimate::model); with `exact = true` it is the [cost](crate::usage::Estimate::exact) |
//! | `rejections` | a [`Dialect`](crate::response::Dialect), by route key: `"problem"`, `"openai"`, `"anthropic"`, `"api_gateway"`, `"azure_api_management"`, `"kserve"`, `"json_rpc"` |
//!
//! **Limits** are a rate, `"unlimited"`, `"closed"`, `"exempt"`, or a table:
//!
//! | setting | what it is |
//! |---|---|
//! | `rate` | `10` or `0.5` a second, `"600/minute"`, `"5/90s"`, `{ rate = 10, burst = 5, name = "chat", shadow = true }`, or a list of those |
//! | `burst` | of that rate, if it is a number or a string |
//! | `quota` | `"10000/day"`, `"/week"`, `"/month"` or a duration; a table with `quota`, `name`, `shadow`; or a list |
//! | `tokens` | rates of [model tokens](crate::Limits::tokens), written as `rate` |
//! | `input_tokens`, `output_tokens` | rates of the model tokens of [requests](crate::Limits::input_tokens) and of [answers](crate::Limits::output_tokens), written as `rate` |
//! | `spend` | an [amount of money](crate::Limits::spend): `"250.00 per month"`, per week or day, or as a rate per hour, minute or second; a table with `spend`, `burst` (of a rate), `name`, `shadow`; or a list |
//! | `cached_input_percent` | the weight of [cached](crate::Limits::cached_input_percent) input tokens |
//! | `in_flight` | `8`, a table with `max`, `name`, `shadow`, or a list |
//! | `max_wait`, `max_waiting` | a duration such as `"500ms"`, and a number: [waiting](crate::guides::models#queues) |
//! | `max_tokens_per_request` | the largest estimate that is [admitted](crate::Limits::max_tokens_per_request) |
//! | `max_reservation_percent` | the part of a burst of tokens that one request [reserves](crate::Limits::max_reservation_percent) at most |
//! | `cost` | the units of each request of a [route or model](crate::Limits::cost) |
//! | `keep` | true if handlers of a route may [keep](crate::Limits::keep) requests in flight beyond the response |
//! | `refund_failures` | true if failures of a route are [refunded](crate::Limits::refund_failures) to their client |
//! | `usage_from_answers` | true if the tokens of a route's requests are [read](crate::Limits::usage_from_answers) from their answers |
//! | `degrade` | a rate, or a table of limits with `after`, a duration: a [second budget](crate::Limits::degrade) |
//! | `name`, `publish` | [`Limits::named`](crate::Limits::named): 1 to 64 of `A-Z a-z 0-9 _`; [`Limits::publish`](crate::Limits::publish) |
//! | `access` | `"unlimited"` or `"closed"`, beside shadows and settings that are no limits; or only [`"exempt"`](crate::Limits::exempt) |
//!
//! A setting that is left out is never zero: a route inherits it from the default. A rate of `0` closes.
//!
//! Fractions are exact: `0.5` is one in two seconds. A number of more than twelve digits, as tools print it, is the
//! simplest fraction within one part in 2^52: `0.0033333333333333335` is one in five minutes. A whole number may be
//! written `5.0` or `1e3`. The default burst of a rate is its count, rounded up. Periods are `second`, `minute`,
//! `hour`, `day` or a duration (`ns`, `us`, `ms`, `s`, `m`, `h`, `d`).
//!
//! **Models** have limits by their name, or by the beginning of names with `*` at its end, and these settings, which no
//! model can be named after:
//!
//! - `by`: `"body"`, `{ header = "x-model" }`, `{ path = "model" }` for a parameter of route keys, or `"code"`, if
//!   [`Models::named_by`](crate::Models::named_by) names models.
//! - `on`: the keys of the routes whose requests have models.
//! - `otherwise` and `unread`: limits, as in [`Models`](crate::Models).
//!
//! **Prices** are those of a million tokens, as text, by the names of models and `otherwise`: tables with `input` and
//! `output`, and if need be `cached_input` and `cache_write`, as in [`Prices`](crate::Prices).
//!
//! **Clients** have these settings:
//!
//! - `by`: `"address"`, `"bearer"`, `{ header = "x-api-key" }`, `{ hosts = ["api.example.com"] }`, or a list of one of
//!   the last three and `"address"`; or `"code"`, if [`Clients::identify_by`](crate::Clients::identify_by) identifies
//!   clients.
//! - `each` and `plans`: limits that may have `routes` and `models` of their own; among the latter `otherwise`.
//! - `trusted_proxies`, `forwarding` (`"x-forwarded-for"`, `"forwarded"`), `ipv6_prefix` and `max_clients`, as in
//!   [`Clients`](crate::Clients).
//!
//! Members of plans are not settings, since their keys are secrets. [`Rules::map_clients`](crate::Rules::map_clients)
//! adds them, and is the place to call `identify_by`.
//!
//! A document may name its schema as `$schema`. It has at most 8 MiB in any format, or the size that a [`Reader`] sets.
//! A byte order mark is ignored.
//!
//! [`JSON_SCHEMA`] describes these settings for editors and checks, and is in the repository as
//! `schema/tower-throttle.json`. In JSON, name it as `$schema`. In YAML and TOML, editors read it from a comment:
//!
//! ```text
//! # yaml-language-server: $schema=tower-throttle.json
//! #:schema tower-throttle.json
//! ```
//!
//! # Gateways
//!
//! A gateway's document becomes rules as if they had been written by hand. An unsupported setting is an error that
//! names it, with its line and column; a setting that is approximated is a [`Warning`]. No setting that limits is
//! ignored silently. See [`api_gateway`] and [`api_management`].

/// The JSON Schema of rules (draft 2020-12), for editors and for checks before a deployment. It describes documents in
/// TOML, YAML and JSON. Contradictory rules are reported only by [`ThrottleLayer::new`](crate::ThrottleLayer::new).
pub const JSON_SCHEMA: &str = include_str!("../../schema/tower-throttle.json");

mod document;
mod error;
mod imported;
mod reader;
mod rules;
#[cfg(feature = "watch")]
mod watch;

pub mod api_gateway;
pub mod api_management;

#[cfg(feature = "watch")]
pub use self::watch::{Watch, WatchError, Watching, watch};
pub use self::{
    error::ConfigError,
    imported::{Imported, Warning},
    reader::Reader,
};
