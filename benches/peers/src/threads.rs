//! Two threads on one bucket and on two, against one thread.

use std::{convert::Infallible, hint::black_box, sync::Barrier, thread, time::Instant};

use axum::body::Body;
use http::{Request, Response};
use tower::{Layer, Service};
use tower_throttle::Rules;

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
    /// The time without a throttle: what the machine itself takes.
    pub bare: f64,
}

pub fn measure() -> Threads {
    let rules = Rules::new()
        .route("POST /a", endless())
        .route("POST /b", endless());
    let layer = plain(rules);
    let throttled = || layer.layer(bare());
    let rounds: Vec<[f64; 5]> = (0..ROUNDS)
        .map(|_| {
            [
                run(throttled, &["/a"]),
                run(throttled, &["/a", "/b"]),
                run(throttled, &["/a", "/a"]),
                run(bare, &["/a"]),
                run(bare, &["/a", "/b"]),
            ]
        })
        .collect();
    let ratio = |index: usize, to: usize| {
        median(
            rounds
                .iter()
                .map(|round| round[index] / round[to])
                .collect(),
        )
    };
    Threads {
        apart: ratio(1, 0),
        together: ratio(2, 0),
        bare: ratio(4, 3),
    }
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
