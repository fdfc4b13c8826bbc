//! The layer around a service that answers at once. The bare service is the floor.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use support::{bare, build, endless, now, request, serve, throttle};
use tower::{Layer, ServiceExt};
use tower_throttle::{Rate, Rules, decision::DecisionIn};

const PATH: &str = "/v1/chat/completions";

fn layer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer");
    let rules = |rate: Rate| Rules::new().route(format!("POST {PATH}"), rate);
    let mut floor = bare();
    group.bench_function("bare", |bencher| bencher.iter(|| serve(&mut floor, PATH)));
    let rows = [
        (
            "allowed, nothing told",
            build(throttle(rules(endless())).rate_limit_headers(false)),
        ),
        ("allowed, both fields", build(throttle(rules(endless())))),
        (
            "allowed, fields and decision",
            build(throttle(rules(endless())).decision(DecisionIn::Both)),
        ),
        ("refused", build(throttle(rules(Rate::per_minute(1))))),
        (
            "refused, with decision",
            build(throttle(rules(Rate::per_minute(1))).decision(DecisionIn::Both)),
        ),
    ];
    for (name, layer) in rows {
        let mut service = layer.layer(bare());
        group.bench_function(name, |bencher| bencher.iter(|| serve(&mut service, PATH)));
    }
    let service = build(throttle(rules(endless()))).layer(bare());
    group.bench_function("clone and oneshot, as axum does", |bencher| {
        bencher.iter(|| now(service.clone().oneshot(request(PATH))).is_ok());
    });
    group.finish();
}

criterion_group!(benches, layer);
criterion_main!(benches);
