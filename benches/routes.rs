//! Finding the rule among 1, 50 and 500.

mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use support::{bare, build, endless, serve, throttle};
use tower::Layer;
use tower_throttle::Rules;

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes");
    let kinds = [
        ("literal", "latest", "completions"),
        ("parameter", "{version}", "completions"),
        ("greedy", "{version}", "{rest+}"),
    ];
    for (kind, version, end) in kinds {
        for count in [1, 50, 500] {
            let rules = (0..count).fold(Rules::new(), |rules, route| {
                rules.route(
                    format!("POST /v1/models/{route}/{version}/{end}"),
                    endless(),
                )
            });
            let mut service = build(throttle(rules).rate_limit_headers(false)).layer(bare());
            let path = format!("/v1/models/{}/latest/completions", count - 1);
            group.bench_function(BenchmarkId::new(kind, count), |bencher| {
                bencher.iter(|| serve(&mut service, &path));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, routes);
criterion_main!(benches);
