//! The cost in memory of a flood of invented paths.

use std::{fs, hint::black_box};

use tower::{Layer, Service};
use tower_throttle::Rules;

use crate::layers::{bare, build, endless, now, request, throttle};

/// Resident memory gained by 1,000,000 requests to as many paths that nobody declared, in MiB.
pub fn growth_of_a_million_paths() -> f64 {
    let mut service = build(throttle(Rules::new().default_route(endless()))).layer(bare());
    // One request beforehand, so that what is allocated once for all is not counted.
    black_box(now(service.call(request("/"))).is_ok());
    let before = resident();
    for path in 0..1_000_000 {
        black_box(now(service.call(request(&format!("/v1/invented/{path}")))).is_ok());
    }
    (resident() - before) / f64::from(1 << 20)
}

/// Bytes, as Linux tells them.
pub fn resident() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("a number of pages");
    pages * 4_096.0
}
