//! A service that answers at once, and one call of it.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Service, service_fn, util::ServiceFn};
use tower_throttle::{Rate, Rules, ThrottleLayer, ThrottleLayerBuilder};

pub(crate) type Body = Full<Bytes>;
type Answer = fn(Request<Body>) -> Ready<Result<Response<Body>, Infallible>>;

/// The floor.
pub(crate) fn bare() -> ServiceFn<Answer> {
    service_fn(
        (|request| {
            black_box(&request);
            ready(Ok(Response::new(Full::new(Bytes::from_static(b"served")))))
        }) as Answer,
    )
}

/// A rate so fast that no request is refused.
pub(crate) fn endless() -> Rate {
    Rate::new(1_000_000_000, Duration::from_secs(1)).burst(1_000_000_000)
}

pub(crate) fn throttle(rules: Rules) -> ThrottleLayerBuilder {
    ThrottleLayer::builder(rules)
}

pub(crate) fn build(builder: ThrottleLayerBuilder) -> ThrottleLayer {
    builder.build().expect("rules that hold together")
}

pub(crate) fn request(path: &str) -> Request<Body> {
    Request::post(path)
        .body(Full::default())
        .expect("a request")
}

/// Polls once; nothing here ever waits.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the service answers at once"),
    }
}

/// One request through a service: built, called, polled, dropped.
pub(crate) fn serve<S, B>(service: &mut S, path: &str)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
{
    black_box(now(service.call(request(path))).is_ok());
}
