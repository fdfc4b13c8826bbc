//! Floors: what no limiter can do without.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tower_throttle::{__bench::LocalClock, Clock};

use crate::{layers::governor_quota, ours::By, rounds::Row};

pub fn rows() -> Vec<Row> {
    let word = AtomicU64::new(0);
    let direct = governor::RateLimiter::direct(governor_quota());
    let counter = LocalClock::of(&Clock::counter());
    vec![
        Row::alone("clock: std", || {
            black_box(Instant::now());
        }),
        Row::alone("clock: tokio", || {
            black_box(tokio::time::Instant::now());
        }),
        Row::alone(
            By::Counter.name("clock: as the layer reads it"),
            move || {
                black_box(counter.now());
            },
        ),
        Row::alone("compare-and-swap", move || {
            let seen = word.load(Ordering::Acquire);
            let _ = black_box(word.compare_exchange(
                seen,
                seen + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ));
        }),
        Row::alone("header map, two inserts", || {
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_static("ratelimit-policy"),
                HeaderValue::from_static("policy"),
            );
            headers.insert(
                HeaderName::from_static("ratelimit"),
                HeaderValue::from_static("limit"),
            );
            black_box(headers);
        }),
        Row::alone("header value from a text", || {
            let value = HeaderValue::from_str(black_box("\"chat\";r=9;t=9"));
            black_box(value.is_ok());
        }),
        Row::alone("governor, direct", move || {
            let _ = black_box(direct.check());
        }),
    ]
}
