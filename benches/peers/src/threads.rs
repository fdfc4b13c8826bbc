//! Two threads on one bucket and on two, against one thread.

use std::{hint::black_box, sync::Barrier, thread, time::Instant};

use axum::body::Body;
use http::Request;
use tower::{Layer, Service};
use tower_throttle::{Rules, ThrottleLayer};

use crate::{
    layers::{bare, endless, now, plain},
    rounds::median,
};

const ROUNDS: usize = 41;
const CALLS: u32 = 100_000;

/// Time of one request on each of two threads, as a multiple of that on one thread alone.
pub struct Threads {
    pub apart: f64,
    pub together: f64,
}

pub fn measure() -> Threads {
    let rules = Rules::new()
        .route("POST /a", endless())
        .route("POST /b", endless());
    let layer = plain(rules);
    let rounds: Vec<[f64; 3]> = (0..ROUNDS)
        .map(|_| {
            [
                run(&layer, &["/a"]),
                run(&layer, &["/a", "/b"]),
                run(&layer, &["/a", "/a"]),
            ]
        })
        .collect();
    let ratio = |index: usize| median(rounds.iter().map(|round| round[index] / round[0]).collect());
    Threads {
        apart: ratio(1),
        together: ratio(2),
    }
}

/// The mean time of a request over one thread for each path, all of them starting together.
fn run(layer: &ThrottleLayer, paths: &[&str]) -> f64 {
    let start = Barrier::new(paths.len());
    let nanos: Vec<f64> = thread::scope(|scope| {
        let spawn = |path: &str| {
            let mut service = layer.layer(bare());
            let uri: http::Uri = path.parse().expect("a path");
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let begun = Instant::now();
                for _ in 0..CALLS {
                    let mut request = Request::new(Body::empty());
                    *request.method_mut() = http::Method::POST;
                    *request.uri_mut() = uri.clone();
                    black_box(now(service.call(request)).is_ok());
                }
                begun.elapsed().as_nanos() as f64 / f64::from(CALLS)
            })
        };
        let threads: Vec<_> = paths.iter().map(|path| spawn(path)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    nanos.iter().sum::<f64>() / nanos.len() as f64
}
