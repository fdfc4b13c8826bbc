//! One request through one layer: built, called, polled once, dropped.

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    num::NonZeroU32,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_governor::{
    GovernorLayer, governor::GovernorConfigBuilder, key_extractor::GlobalKeyExtractor,
};
use tower_throttle::{Clock, DecisionIn, Rate, Rules, ThrottleLayer};

use crate::rounds::Row;

pub const BARE: &str = "bare service";
pub const PLAIN: &str = "tower-throttle, allowed, nothing told";
pub const AXUMS_BODY: &str = "tower-throttle, allowed, nothing told, axum's body";
pub const PLAIN_COUNTER: &str = "tower-throttle, allowed, nothing told, counter";
pub const FIELDS: &str = "tower-throttle, allowed, both fields";
pub const FIELDS_COUNTER: &str = "tower-throttle, allowed, both fields, counter";
pub const REFUSED: &str = "tower-throttle, refused";
pub const GOVERNOR: &str = "tower_governor, allowed";
pub const GOVERNOR_HEADERS: &str = "tower_governor, allowed, with headers";
pub const GOVERNOR_REFUSED: &str = "tower_governor, refused";

pub const PATH: &str = "/v1/chat/completions";

pub fn request(path: &str) -> Request<Body> {
    Request::post(path).body(Body::empty()).expect("a request")
}

type Bare = fn(Request<Body>) -> std::future::Ready<Result<Response<Body>, Infallible>>;

/// The model: answers at once.
pub fn bare() -> tower::util::ServiceFn<Bare> {
    service_fn(
        (|request| {
            black_box(&request);
            std::future::ready(Ok(Response::new(Body::empty())))
        }) as Bare,
    )
}

/// Polls once; nothing here ever waits.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the service answers at once"),
    }
}

fn call<S, B>(name: &'static str, mut service: S) -> Row
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
{
    Row::new(name, move || {
        black_box(now(service.call(request(PATH))).is_ok());
    })
}

/// A row that calls as axum calls a route: a clone for each request.
fn oneshot<S, B>(name: &'static str, service: S) -> Row
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
{
    Row::new(name, move || {
        black_box(now(service.clone().oneshot(request(PATH))).is_ok());
    })
}

/// A rate so fast that no request is refused.
pub fn endless() -> Rate {
    Rate::new(1_000_000_000, Duration::from_secs(1)).burst(1_000_000_000)
}

fn chat(rate: Rate) -> Rules {
    Rules::new().route(format!("POST {PATH}"), rate)
}

pub fn throttle(rules: Rules) -> ThrottleLayer {
    ThrottleLayer::new(rules).expect("rules that hold together")
}

/// By the clock that governor goes by, too.
fn by_counter(throttle: ThrottleLayer) -> ThrottleLayer {
    throttle.clock(Clock::counter()).expect("the first clock")
}

/// A decision and nothing else.
pub fn plain(rules: Rules) -> ThrottleLayer {
    throttle(rules).fields(false)
}

pub fn governor_quota() -> governor::Quota {
    let burst = NonZeroU32::new(1_000_000_000).expect("not zero");
    governor::Quota::with_period(Duration::from_nanos(1))
        .expect("not zero")
        .allow_burst(burst)
}

/// tower_governor with one key for all; a macro, for its type changes with its headers.
macro_rules! governor {
    ($period:ident($n:expr), burst $burst:expr $(, $with:ident)?) => {{
        let config = GovernorConfigBuilder::default()
            .$period($n)
            .burst_size($burst)
            .key_extractor(GlobalKeyExtractor)
            $(.$with())?
            .finish()
            .expect("neither is zero");
        GovernorLayer::new(Arc::new(config)).layer(bare())
    }};
}

pub fn rows() -> Vec<Row> {
    let total = || chat(endless()).total(endless());
    vec![
        call(BARE, bare()),
        call(PLAIN, plain(chat(endless())).layer(bare())),
        call(AXUMS_BODY, plain(chat(endless())).for_axum().layer(bare())),
        call(
            PLAIN_COUNTER,
            by_counter(plain(chat(endless()))).layer(bare()),
        ),
        call(
            "tower-throttle, allowed, total and route, nothing told",
            plain(total()).layer(bare()),
        ),
        call(
            "tower-throttle, allowed, undeclared route, nothing told",
            plain(Rules::new().default_route(endless())).layer(bare()),
        ),
        call(FIELDS, throttle(chat(endless())).layer(bare())),
        call(
            FIELDS_COUNTER,
            by_counter(throttle(chat(endless()))).layer(bare()),
        ),
        call(
            "tower-throttle, allowed, fields and decision",
            throttle(chat(endless()))
                .decision(DecisionIn::Both)
                .layer(bare()),
        ),
        call(
            "tower-throttle, allowed, fields, and decision in the request",
            throttle(chat(endless()))
                .decision(DecisionIn::Request)
                .layer(bare()),
        ),
        call(REFUSED, throttle(chat(Rate::per_minute(1))).layer(bare())),
        call(
            "tower-throttle, refused, with decision",
            throttle(chat(Rate::per_minute(1)))
                .decision(DecisionIn::Response)
                .layer(bare()),
        ),
        call(GOVERNOR, governor!(per_nanosecond(1), burst 1_000_000_000)),
        call(
            GOVERNOR_HEADERS,
            governor!(per_nanosecond(1), burst 1_000_000_000, use_headers),
        ),
        call(GOVERNOR_REFUSED, governor!(per_second(60), burst 1)),
        call(
            "tower, ConcurrencyLimit, polled ready",
            Ready(ConcurrencyLimitLayer::new(1_000).layer(bare())),
        ),
        oneshot("clone and oneshot: bare", bare()),
        oneshot(
            "clone and oneshot: tower-throttle, nothing told",
            plain(chat(endless())).layer(bare()),
        ),
        oneshot(
            "clone and oneshot: tower-throttle, nothing told, axum's body",
            plain(chat(endless())).for_axum().layer(bare()),
        ),
        oneshot(
            "clone and oneshot: tower-throttle, default",
            throttle(chat(endless())).layer(bare()),
        ),
        oneshot(
            "clone and oneshot: tower_governor",
            governor!(per_nanosecond(1), burst 1_000_000_000),
        ),
    ]
}

/// The last of 1, 50 and 500 declared routes, without and with a parameter.
pub fn routes() -> Vec<Row> {
    let table = [
        ("1 route, literal", 1, false),
        ("50 routes, literal", 50, false),
        ("500 routes, literal", 500, false),
        ("1 route, {param}", 1, true),
        ("50 routes, {param}", 50, true),
        ("500 routes, {param}", 500, true),
    ];
    table
        .into_iter()
        .map(|(name, count, param)| {
            let key = |route: usize| match param {
                true => format!("POST /v1/models/{route}/{{version}}/completions"),
                false => format!("POST /v1/models/{route}/latest/completions"),
            };
            let rules = (0..count).fold(Rules::new(), |rules, route| {
                rules.route(key(route), endless())
            });
            let mut service = plain(rules).layer(bare());
            let path = format!("/v1/models/{}/latest/completions", count - 1);
            Row::new(name, move || {
                black_box(now(service.call(request(&path))).is_ok());
            })
        })
        .collect()
}

/// Polls the service ready before each call, for those that count there.
struct Ready<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Ready<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let ready = self.0.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(ready.is_ready(), "fewer in flight than the limit");
        self.0.call(request)
    }
}
