//! Limits: routes, rates, quotas and totals, and how a request is charged.
//!
//! ```
//! use tower_throttle::{Limits, Quota, Rate, Rules, ThrottleLayer};
//!
//! let rules = Rules::new()
//!     // All requests together.
//!     .total(Rate::per_second(1_000).burst(500))
//!     // Each route by itself.
//!     .default_route(Rate::per_second(10).burst(5))
//!     // One route.
//!     .route("POST /v1/chat/completions", Rate::per_second(2).burst(4))
//!     .route(
//!         "POST /v1/images",
//!         Limits::new().rate(Rate::per_minute(6)).quota(Quota::per_day(200)),
//!     )
//!     .route("POST /v1/admin", Limits::closed())
//!     .route("GET /health", Limits::exempt());
//! let throttle = ThrottleLayer::new(rules)?;
//! # let _ = throttle;
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! # Rates and bursts
//!
//! A bucket holds as many requests as the limit's *burst* and starts full. An admitted request takes one. Requests are
//! refilled evenly, at the *steady-state rate*, until the bucket is full again. In any half-open window of length `w` a
//! bucket admits at most
//!
//! ```text
//! burst - 1 + ⌈w × count / period⌉
//! ```
//!
//! requests. `Rate::per_minute(60).burst(10)` admits at most 69 in any minute, and 60 a minute in the long run. The
//! bound is exact to the nanosecond, for all threads, connections and clones of a layer. Amounts that have to be
//! rounded are rounded against the caller.
//!
//! A rate is always a count in a period, never a spacing. Without [`Rate::burst`](crate::Rate::burst) the burst is
//! the count. A count or burst of zero closes the route.
//!
//! # Quotas
//!
//! A [`Quota`](crate::Quota) is a count in a day, week or month (UTC), or in any window. It starts again with each
//! window. It is kept in memory: a restart makes it whole, unless it is in a [store](super::replicas).
//!
//! # All or none
//!
//! A request is charged to its route's limits, its client's limits and the total: to all of them or to none. A rejected
//! request costs nothing. A request that waits as long as its refusal states is admitted, unless another request has
//! taken its place.
//!
//! # Inheritance
//!
//! The limits of [`Rules::default_route`](crate::Rules::default_route) hold for each route by itself. A declared
//! route inherits each field that it leaves out, and replaces those that it sets. A rate and its burst are one field.
//!
//! - [`Limits::unlimited`](crate::Limits::unlimited) frees a route from the default's limits. The total and the
//!   limits of clients still hold.
//! - [`Limits::exempt`](crate::Limits::exempt) frees a declared route from everything, the total and clients
//!   included.
//! - [`Limits::closed`](crate::Limits::closed) rejects every request of the route.
//!
//! # Route keys
//!
//! | key | matches |
//! |---|---|
//! | `POST /v1/chat/completions` | this method on this path; `GET` covers `HEAD` |
//! | `ANY /v1/files` | every method without a key of its own on this path |
//! | `GET /v1/models/{id}` | one path segment, not empty |
//! | `POST /v1beta/models/{model}:generateContent` | one path segment with this end, and at least one character before it |
//! | `GET /v1/files/{proxy+}`, `GET /v1/files/{*rest}` | the rest of the path, at least one character |
//! | `POST /inference.v1.Inference/Generate` | a gRPC method |
//! | `$default` | every request that no other key matches |
//!
//! The most specific key wins, as in API Gateway. Keys that match the whole path come first, and there a literal
//! segment before a `{parameter}`. A parameter with the longest literal after it comes before those with a shorter one or
//! none. Greedy keys come next, the longest first, and `$default` last. On the same path, a
//! key that names the method wins over `ANY`. A specific path that lacks the method does not hide a general one that
//! has it.
//!
//! Query, host and fragment take no part. Spellings of a path (`/v1/%63hat`) are the same path. A request that its
//! server may match to either of two routes is charged to both, so that no spelling avoids a limit: escapes, empty
//! segments, a final slash, gRPC with any method, `CONNECT` with a path.
//!
//! # Undeclared routes
//!
//! With a default route, a request that no key matches has buckets of its own: in axum (feature `axum`) for each method
//! and router template, elsewhere for each method and path. Clients choose paths, so the first 1,024 have buckets of
//! their own, and all others share one more set. [`Undeclared::Shared`](crate::rules::Undeclared::Shared) and a key
//! `$default` put all of them into one set. Prefer either if no router provides templates.
//!
//! # Names
//!
//! Header fields, logs and metrics call a limit by its name: `.named("chat")`, or a name made of scope and route key
//! (`post_v1_chat`, `total`, `client`). Other rules never change such a name. A path with other characters than letters
//! and digits, such as that of any gRPC method, gets a [hash](crate::Limits::named) behind its name: clients see
//! `post_inference_v1_Inference_Generate_599ad515`. Give such limits a name.
//!
//! # Shadows
//!
//! A limit with `.shadow()` decides but is never enforced. Snapshots, metrics and
//! [`Decision::shadow`](crate::Decision::shadow) report what it would have rejected. Use it to try a limit on real
//! traffic.
//!
//! # Errors
//!
//! [`ThrottleLayer::new`](crate::ThrottleLayer::new) rejects invalid keys, two keys for one route, names already in
//! use, rates with a period of zero, and rates that need more than 146 years to refill. The error names the setting and
//! the remedy. Valid rules never fail a request later.
