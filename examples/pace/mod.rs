//! Rates of the examples' limits, and a way to slow them down.
//!
//! The environment variable `SLOWER` is a factor by which limits refill more slowly: with `SLOWER=60`, sixty requests a
//! minute become sixty an hour. A budget that a test has spent is still spent at its next request then, however slow the
//! machine is. A value that is not a positive whole number is ignored.

use std::{env, time::Duration};

use tower_throttle::Rate;

/// Makes a rate of so many requests a minute, or more slowly.
#[allow(dead_code, reason = "each example uses its part")]
pub(crate) fn per_minute(count: u64) -> Rate {
    rate(count, 60)
}

/// Makes a rate of so many requests a second, or more slowly.
#[allow(dead_code, reason = "each example uses its part")]
pub(crate) fn per_second(count: u64) -> Rate {
    rate(count, 1)
}

fn rate(count: u64, seconds: u64) -> Rate {
    let slower = env::var("SLOWER")
        .ok()
        .and_then(|slower| slower.parse().ok());
    let slower = slower.filter(|&slower| slower > 0).unwrap_or(1);
    Rate::new(count, Duration::from_secs(seconds.saturating_mul(slower)))
}
