//! The cost of counting through the facade `metrics`, with Prometheus behind it.

use std::{hint::black_box, time::Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use tower::{Layer, Service};
use tower_throttle::Rules;

use crate::{
    budgets::{beside, line},
    layers::{PATH, bare, build, endless, now, request, throttle},
};

const ROUNDS: usize = 40;
const REQUESTS: u32 = 20_000;

pub fn print() {
    let (without, with) = measure();
    beside("allowed, both fields: ns", without);
    line(
        "allowed, counted for Prometheus: ns more",
        60.0,
        with - without,
    );
}

/// Nanoseconds of an allowed request, without a recorder and with one, as medians.
fn measure() -> (f64, f64) {
    let service = || {
        let mut service = build(throttle(Rules::new().default_route(endless()))).layer(bare());
        // Counters are bound when a route is first asked for.
        black_box(now(service.call(request(PATH))).is_ok());
        service
    };
    let mut without = service();
    PrometheusBuilder::new()
        .install_recorder()
        .expect("the first");
    let mut with = service();
    let (mut times, mut counted): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (service, times) in [(&mut without, &mut times), (&mut with, &mut counted)] {
            let start = Instant::now();
            for _ in 0..REQUESTS {
                black_box(now(service.call(request(PATH))).is_ok());
            }
            times.push(start.elapsed().as_nanos() as f64 / f64::from(REQUESTS));
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    };
    (median(times), median(counted))
}
