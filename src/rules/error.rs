use std::time::Duration;

use crate::route::RouteKeyError;

/// Why rules do not hold together. Each names the route key or limit at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// A route key that cannot be read.
    #[error("route key `{key}`: {source}")]
    #[non_exhaustive]
    RouteKey {
        /// The key as written.
        key: String,
        /// What is wrong with it.
        source: RouteKeyError,
    },
    /// Two keys for one route.
    #[error("route keys `{first}` and `{second}` mean the same route; keep one of them")]
    #[non_exhaustive]
    SameRoute {
        /// The key declared first.
        first: String,
        /// The key that repeats it.
        second: String,
    },
    /// A name that a header field or a metric could not carry.
    #[error(
        "{place}: name `{name}` is not made of A-Z, a-z, 0-9 and _ alone, at least one of them"
    )]
    #[non_exhaustive]
    Name {
        /// Where the name was given.
        place: String,
        /// The name.
        name: String,
    },
    /// Two limits of one name.
    #[error("{place}: name `{name}` is taken by {other}; names tell limits apart, choose another")]
    #[non_exhaustive]
    SameName {
        /// Where the name was given again.
        place: String,
        /// Where it was given first.
        other: String,
        /// The name.
        name: String,
    },
    /// A rate without a period.
    #[error(
        "{place}: a rate of {count} in a period of zero; give the time in which that many may pass"
    )]
    #[non_exhaustive]
    Period {
        /// Where the rate stands.
        place: String,
        /// The rate's count.
        count: u64,
    },
    /// A bucket that takes longer than 146 years to fill.
    #[error(
        "{place}: a burst of {burst} refilled by {count} in {period:?} takes longer than 2^62 ns \
         (146 years) to refill; lower the burst or raise the rate"
    )]
    #[non_exhaustive]
    TooSlow {
        /// Where the rate stands.
        place: String,
        /// The rate's count.
        count: u64,
        /// The rate's period.
        period: Duration,
        /// The burst.
        burst: u64,
    },
    /// Limits that say two things at once.
    #[error("{place}: a rate stands beside `{access}`; keep either")]
    #[non_exhaustive]
    Contradiction {
        /// Where the limits stand.
        place: String,
        /// `unlimited` or `closed`.
        access: &'static str,
    },
}
