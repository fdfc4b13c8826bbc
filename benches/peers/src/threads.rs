//! Two threads on one bucket and on two, against one thread and against tower_governor's layer.

use std::{convert::Infallible, hint::black_box, sync::Barrier, thread, time::Instant};

use axum::body::Body;
use http::{Request, Response};
use tower::{Layer, Service};
use tower_throttle::{Rules, ThrottleLayerBuilder};

use crate::{
    layers::{bare, endless, governor, now, plain},
    ours::By,
    rounds::Rounds,
};

pub const BARE_ALONE: &str = "one thread: bare service";
pub const BARE: &str = "two threads: bare service";
pub const ALONE: &str = "one thread: tower-throttle, nothing told";
pub const APART: &str = "two threads, two buckets: tower-throttle, nothing told";
pub const TOGETHER: &str = "two threads, one bucket: tower-throttle, nothing told";
pub const GOVERNOR: &str = "two threads, one bucket: tower_governor";

const ROUNDS: usize = 31;
const CALLS: u32 = 50_000;

/// Returns the nanoseconds of a request, of one round.
type Run = Box<dyn Fn() -> f64>;

/// Measures every row in every round.
pub fn measure() -> Rounds {
    let mut rows: Vec<(String, Option<&str>, Run)> = vec![
        (BARE_ALONE.into(), None, Box::new(|| run(bare, &["/a"]))),
        (BARE.into(), None, Box::new(|| run(bare, &["/a", "/b"]))),
    ];
    let layers: [(&str, &str, &'static [&str]); 3] = [
        (ALONE, BARE_ALONE, &["/a"]),
        (APART, BARE, &["/a", "/b"]),
        (TOGETHER, BARE, &["/a", "/a"]),
    ];
    for by in By::BOTH {
        let layer = by.layer(throttle());
        for (name, floor, paths) in layers {
            let layer = layer.clone();
            let run = move || run(|| layer.layer(bare()), paths);
            rows.push((by.name(name), Some(floor), Box::new(run)));
        }
    }
    let service = governor();
    let governors = move || run(|| service.clone(), &["/a", "/a"]);
    rows.push((GOVERNOR.into(), Some(BARE), Box::new(governors)));

    let mut nanos = vec![Vec::with_capacity(ROUNDS); rows.len()];
    for _ in 0..ROUNDS {
        for ((.., run), nanos) in rows.iter().zip(&mut nanos) {
            nanos.push(run());
        }
    }
    let mut rounds = Rounds::default();
    for ((name, floor, _), nanos) in rows.into_iter().zip(nanos) {
        rounds.push(name, floor, nanos);
    }
    rounds
}

fn throttle() -> ThrottleLayerBuilder {
    let rules = Rules::new()
        .route("POST /a", endless())
        .route("POST /b", endless());
    plain(rules)
}

/// The mean time of a request over one thread for each path, all of them starting together.
fn run<S, B>(make: impl Fn() -> S, paths: &[&str]) -> f64
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Send,
{
    let start = Barrier::new(paths.len());
    let nanos: Vec<f64> = thread::scope(|scope| {
        let spawn = |path: &str| {
            let mut service = make();
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
