//! The decision alone: the clock, the arithmetic and the buckets.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tower_throttle::{__bench::LocalLimiter, Limits, Rate, Rules};

/// A rate so fast that no request is refused.
fn endless() -> Rate {
    Rate::new(1_000_000_000, Duration::from_secs(1)).burst(1_000_000_000)
}

fn engine(rules: &Rules) -> LocalLimiter {
    LocalLimiter::new(rules).expect("rules that hold together")
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let word = AtomicU64::new(0);
    group.bench_function("floor: clock and compare-and-swap", |bencher| {
        bencher.iter(|| {
            black_box(tokio::time::Instant::now());
            let seen = word.load(Ordering::Acquire);
            word.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire)
        });
    });
    let one = engine(&Rules::new().default_route(endless()));
    group.bench_function("one bucket", |bencher| bencher.iter(|| one.admit()));
    let rates = Limits::new().rate(endless()).rate(endless());
    let three = engine(&Rules::new().total(endless()).default_route(rates));
    group.bench_function("three buckets", |bencher| bencher.iter(|| three.admit()));
    let refused = engine(&Rules::new().default_route(Limits::closed()));
    group.bench_function("refused: closed", |bencher| {
        bencher.iter(|| refused.admit());
    });
    let spent = engine(
        &Rules::new()
            .total(endless())
            .default_route(Rate::per_hour(1)),
    );
    let _ = spent.admit();
    group.bench_function("refused: spent, beside a total", |bencher| {
        bencher.iter(|| spent.admit());
    });
    group.finish();
}

/// Two threads, each timed over the same number of decisions.
fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two threads");
    let rules = Rules::new().default_route(endless());
    let engines = [engine(&rules), engine(&rules)];
    for (name, second) in [("one bucket", 0), ("two buckets", 1)] {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|times| {
                let run = |engine: &LocalLimiter| {
                    let start = Instant::now();
                    for _ in 0..times {
                        black_box(engine.admit());
                    }
                    start.elapsed()
                };
                thread::scope(|scope| {
                    let other = scope.spawn(|| run(&engines[second]));
                    run(&engines[0]).max(other.join().expect("no panic"))
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decide, threads);
criterion_main!(benches);
