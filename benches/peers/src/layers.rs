//! One request through one layer: built, called, polled once, dropped.

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    net::SocketAddr,
    num::NonZeroU32,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{body::Body, extract::ConnectInfo};
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_governor::{
    GovernorLayer, governor::GovernorConfigBuilder, key_extractor::GlobalKeyExtractor,
};
use tower_throttle::{Rate, Rules, ThrottleLayer, ThrottleLayerBuilder, decision::DecisionIn};

use crate::{ours::By, rounds::Row};

pub const BARE: &str = "bare service";
pub const PLAIN: &str = "tower-throttle, allowed, nothing told";
pub const AXUMS_BODY: &str = "tower-throttle, allowed, nothing told, axum's body";
pub const FIELDS: &str = "tower-throttle, allowed, both fields";
pub const FALLING: &str = "tower-throttle, allowed, both fields, falling balance";
pub const IN_REQUEST: &str = "tower-throttle, allowed, fields, and decision in the request";
pub const REFUSED: &str = "tower-throttle, refused";
pub const GOVERNOR: &str = "tower_governor, allowed";
pub const GOVERNOR_HEADERS: &str = "tower_governor, allowed, with headers";
pub const GOVERNOR_FALLING: &str = "tower_governor, allowed, with headers, falling balance";
pub const GOVERNOR_REFUSED: &str = "tower_governor, refused";

/// Called as axum calls a route: a clone for each request.
pub const CLONED: &str = "clone and oneshot: bare";
pub const CLONED_PLAIN: &str = "clone and oneshot: tower-throttle, nothing told";
pub const CLONED_AXUMS_BODY: &str = "clone and oneshot: tower-throttle, nothing told, axum's body";
pub const CLONED_GOVERNOR: &str = "clone and oneshot: tower_governor";

pub const DEFAULT: &str = "by default: bare service, with a peer's address";

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

/// Polls once; nothing here ever waits. Inlined for all, or the harness would move the futures of some and not of
/// others.
#[inline(always)]
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the service answers at once"),
    }
}

fn asked<S>(mut service: S) -> impl FnMut()
where
    S: Service<Request<Body>>,
{
    move || {
        black_box(now(service.call(request(PATH))).is_ok());
    }
}

fn call<S>(name: impl Into<String>, service: S) -> Row
where
    S: Service<Request<Body>> + 'static,
{
    Row::over(BARE, name, asked(service))
}

fn cloned<S>(service: S) -> impl FnMut()
where
    S: Service<Request<Body>> + Clone,
{
    move || {
        black_box(now(service.clone().oneshot(request(PATH))).is_ok());
    }
}

/// A row that calls as axum calls a route: a clone for each request.
fn oneshot<S>(name: impl Into<String>, service: S) -> Row
where
    S: Service<Request<Body>> + Clone + 'static,
{
    Row::over(CLONED, name, cloned(service))
}

/// Requests that have the address of their peer, as axum's servers add it.
fn addressed<S>(mut service: S) -> impl FnMut()
where
    S: Service<Request<Body>>,
{
    let peer = SocketAddr::from(([192, 0, 2, 1], 4_242));
    move || {
        let mut request = request(PATH);
        request.extensions_mut().insert(ConnectInfo(peer));
        black_box(now(service.call(request)).is_ok());
    }
}

/// A rate so fast that no request is refused.
pub fn endless() -> Rate {
    Rate::new(1_000_000_000, Duration::from_secs(1)).burst(1_000_000_000)
}

/// A rate so slow that each request finds one less than the one before, and none is refused.
fn falling() -> Rate {
    Rate::per_second(1).burst(1_000_000_000)
}

fn chat(rate: Rate) -> Rules {
    Rules::new().route(format!("POST {PATH}"), rate)
}

pub fn throttle(rules: Rules) -> ThrottleLayerBuilder {
    ThrottleLayer::builder(rules)
}

pub fn build(builder: ThrottleLayerBuilder) -> ThrottleLayer {
    builder.build().expect("rules that hold together")
}

/// A decision and nothing else.
pub fn plain(rules: Rules) -> ThrottleLayerBuilder {
    throttle(rules).rate_limit_headers(false)
}

const MANY: u32 = 1_000_000_000;

pub fn governor_quota() -> governor::Quota {
    let burst = NonZeroU32::new(MANY).expect("not zero");
    governor::Quota::with_period(Duration::from_nanos(1))
        .expect("not zero")
        .allow_burst(burst)
}

/// tower_governor, by default with a key for each peer's address; a macro, for its type changes with what is set.
macro_rules! governor {
    ($period:ident($n:expr), burst $burst:expr $(, $set:ident($($to:expr)?))*) => {{
        let config = GovernorConfigBuilder::default()
            .$period($n)
            .burst_size($burst)
            $(.$set($($to)?))*
            .finish()
            .expect("neither is zero");
        GovernorLayer::new(Arc::new(config)).layer(bare())
    }};
}

/// tower_governor with one key for all, which refuses nobody.
pub fn governor() -> impl Governed {
    governor!(per_nanosecond(1), burst MANY, key_extractor(GlobalKeyExtractor))
}

/// What the layer of tower_governor makes of a bare service.
pub trait Governed:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static
{
}

impl<S> Governed for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static
{
}

/// A row of ours by each clock.
pub fn ours(
    name: &str,
    throttle: impl Fn() -> ThrottleLayerBuilder,
    row: impl Fn(String, ThrottleLayer) -> Row,
) -> [Row; 2] {
    By::BOTH.map(|by| row(by.name(name), by.layer(throttle())))
}

/// Where nothing is told. Each floor stands beside those that are compared with it.
fn silent() -> Vec<Row> {
    let service = |name, throttle: ThrottleLayer| call(name, throttle.layer(bare()));
    let for_axum = |name, throttle: ThrottleLayer| call(name, throttle.for_axum().layer(bare()));
    let route = || plain(chat(endless()));
    let mut rows = vec![Row::alone(BARE, asked(bare()))];
    rows.extend(ours(PLAIN, route, service));
    rows.extend(ours(AXUMS_BODY, route, for_axum));
    rows.extend([
        call(GOVERNOR, governor()),
        call(
            "tower-throttle, allowed, total and route, nothing told",
            build(plain(chat(endless()).total(endless()))).layer(bare()),
        ),
        call(
            "tower-throttle, allowed, undeclared route, nothing told",
            build(plain(Rules::new().default_route(endless()))).layer(bare()),
        ),
        call(
            "tower, ConcurrencyLimit, polled ready",
            Ready(ConcurrencyLimitLayer::new(1_000).layer(bare())),
        ),
        Row::alone(CLONED, cloned(bare())),
    ]);
    let service = |name, throttle: ThrottleLayer| oneshot(name, throttle.layer(bare()));
    let for_axum = |name, throttle: ThrottleLayer| oneshot(name, throttle.for_axum().layer(bare()));
    rows.extend(ours(CLONED_PLAIN, route, service));
    rows.extend(ours(CLONED_AXUMS_BODY, route, for_axum));
    rows.push(oneshot(CLONED_GOVERNOR, governor()));
    rows
}

/// Where something is told, or refused.
fn telling() -> Vec<Row> {
    let service = |name, throttle: ThrottleLayer| call(name, throttle.layer(bare()));
    let refusing = || chat(Rate::per_minute(1));
    let mut rows = Vec::new();
    rows.extend(ours(FIELDS, || throttle(chat(endless())), service));
    rows.push(call(
        GOVERNOR_HEADERS,
        governor!(per_nanosecond(1), burst MANY, key_extractor(GlobalKeyExtractor), use_headers()),
    ));
    rows.extend(ours(FALLING, || throttle(chat(falling())), service));
    rows.push(call(
        GOVERNOR_FALLING,
        governor!(per_second(1), burst MANY, key_extractor(GlobalKeyExtractor), use_headers()),
    ));
    let in_request = || throttle(chat(endless())).decision(DecisionIn::Request);
    rows.extend(ours(IN_REQUEST, in_request, service));
    rows.push(call(
        "tower-throttle, allowed, fields and decision in both",
        build(throttle(chat(endless())).decision(DecisionIn::Both)).layer(bare()),
    ));
    rows.extend(ours(REFUSED, || throttle(refusing()), service));
    rows.extend([
        call(
            "tower-throttle, refused, with decision",
            build(throttle(refusing()).decision(DecisionIn::Response)).layer(bare()),
        ),
        call(
            "tower-throttle, refused for an hour",
            build(throttle(chat(Rate::per_hour(1)))).layer(bare()),
        ),
        call(
            GOVERNOR_REFUSED,
            governor!(per_second(60), burst 1, key_extractor(GlobalKeyExtractor)),
        ),
    ]);
    rows
}

/// What each crate does where nothing but a limit is set: ours tells its fields, tower_governor tells nothing and knows
/// clients by their address.
fn by_default() -> Vec<Row> {
    let governor = governor!(per_nanosecond(1), burst MANY);
    vec![
        Row::alone(DEFAULT, addressed(bare())),
        Row::over(
            DEFAULT,
            "by default: tower-throttle",
            addressed(build(throttle(chat(endless()))).layer(bare())),
        ),
        Row::over(DEFAULT, "by default: tower_governor", addressed(governor)),
    ]
}

pub fn rows() -> Vec<Row> {
    [silent(), telling(), by_default()]
        .into_iter()
        .flatten()
        .collect()
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
            let mut service = build(plain(rules)).layer(bare());
            let path = format!("/v1/models/{}/latest/completions", count - 1);
            Row::over(BARE, name, move || {
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
