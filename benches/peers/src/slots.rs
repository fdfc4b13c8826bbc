//! The cost of slots and waiting: a request that holds a slot, a frame of its body, and 10,000 that wait.

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    mem::size_of,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tower::{Layer, Service, service_fn};
use tower_throttle::{Limits, Rules, ThrottleLayer};

use crate::{
    allocations,
    layers::{BARE, PATH, bare, build, endless, now, ours, plain, request, throttle},
    rounds::Row,
};

pub const WITH_SLOT: &str = "tower-throttle, allowed, rate and slot, nothing told";
pub const FRAMES: &str = "1,000 frames of a body: bare";
pub const THROTTLED_FRAMES: &str = "1,000 frames of a body: tower-throttle, holding a slot";

/// A body of 1,000 frames that cost nothing.
struct Thousand(u32);

impl http_body::Body for Thousand {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(
            b"data: token\n\n",
        )))))
    }
}

fn drain(mut body: impl http_body::Body<Data = Bytes> + Unpin) {
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
        black_box(frame.is_ok());
    }
}

fn capped(slots: u64) -> Rules {
    let limits = Limits::new().rate(endless()).in_flight(slots);
    Rules::new().route(format!("POST {PATH}"), limits)
}

pub fn rows() -> Vec<Row> {
    let slot = |name, layer: ThrottleLayer| {
        let mut service = layer.layer(bare());
        Row::over(BARE, name, move || {
            black_box(now(service.call(request(PATH))).is_ok());
        })
    };
    let mut streams = service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Thousand(1_000)))
    });
    let mut throttled = build(plain(capped(1_000))).layer(streams);
    let mut rows = Vec::from(ours(WITH_SLOT, || plain(capped(1_000)), slot));
    rows.extend([
        Row::alone(FRAMES, move || {
            let answer = now(streams.call(request(PATH))).expect("never fails");
            drain(Box::pin(answer.into_body()));
        }),
        Row::over(FRAMES, THROTTLED_FRAMES, move || {
            let answer = now(throttled.call(request(PATH))).expect("never fails");
            drain(Box::pin(answer.into_body()));
        }),
    ]);
    rows
}

/// The cost of requests in line.
pub struct Waiting {
    /// Bytes of each, above the request itself.
    pub bytes: f64,
    /// Nanoseconds in which one of so many leaves.
    pub leaving: f64,
}

/// Makes so many requests wait for one slot and then go away, from the middle of the line outwards.
pub fn waiting(count: usize) -> Waiting {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter();
    let limits = Limits::new()
        .in_flight(1)
        .max_wait(Duration::from_secs(3_600))
        .max_waiting(count);
    let mut service = build(throttle(Rules::new().total(limits))).layer(bare());
    let held = now(service.call(request(PATH)));
    let mut cx = Context::from_waker(Waker::noop());
    let mut line = Vec::with_capacity(count);
    let before = allocations::live();
    for _ in 0..count {
        let mut call = Box::pin(service.call(request(PATH)));
        assert!(call.as_mut().poll(&mut cx).is_pending(), "it waits");
        line.push(Some(call));
    }
    let bytes = (allocations::live() - before) as f64 / count as f64;
    let began = Instant::now();
    let middle = count / 2;
    for distance in 0..middle {
        line[middle + distance] = None;
        line[middle - 1 - distance] = None;
    }
    let leaving = began.elapsed().as_nanos() as f64 / count as f64;
    drop(held);
    let free = pin!(service.call(request(PATH)));
    assert!(now(free).is_ok(), "nothing is left behind");
    Waiting {
        bytes: bytes - size_of::<Request<Body>>() as f64,
        leaving,
    }
}
