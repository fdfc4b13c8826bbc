//! Clients told apart by a header field: time of a decision, memory of a million, and a flood.

use std::{hint::black_box, sync::Arc, time::Duration, time::Instant};

use axum::body::Body;
use http::{HeaderValue, Request, header::HeaderName};
use tower::{Layer, Service};
use tower_governor::{
    GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor,
};
use tower_throttle::{Clients, Limits, Models, Plan, Quota, Rate, Rules, ThrottleLayer};

use crate::{
    layers::{bare, build, endless, now, ours, plain, request},
    memory::resident,
    rounds::{Row, median},
};

pub const BARE: &str = "clients: bare service, with a key";
pub const GOVERNOR: &str = "clients: tower_governor, header key";
pub const ONE: &str = "clients: tower-throttle, route and client, nothing told";
pub const MODEL: &str = "clients: tower-throttle, route and model, nothing told";
pub const ALL: &str = "clients: tower-throttle, total, route, client and plan quota, nothing told";

const NAME: HeaderName = HeaderName::from_static("x-api-key");
const KEY: HeaderValue = HeaderValue::from_static("sk-0123456789abcdef0123456789abcdef");

#[derive(Clone)]
struct ByHeader;

impl KeyExtractor for ByHeader {
    type Key = String;

    fn extract<T>(&self, request: &Request<T>) -> Result<String, GovernorError> {
        let key = request
            .headers()
            .get(NAME)
            .and_then(|key| key.to_str().ok());
        key.map(str::to_owned)
            .ok_or(GovernorError::UnableToExtractKey)
    }
}

fn keyed(key: HeaderValue) -> Request<Body> {
    let mut request = request("/v1/chat/completions");
    request.headers_mut().insert(NAME, key);
    request
}

fn ask<S: Service<Request<Body>>>(service: &mut S, key: HeaderValue) -> bool {
    black_box(now(service.call(keyed(key))).is_ok())
}

fn asked<S: Service<Request<Body>>>(mut service: S) -> impl FnMut() {
    move || {
        ask(&mut service, KEY);
    }
}

fn chat() -> Rules {
    Rules::new().route("POST /v1/chat/completions", endless())
}

pub fn rows() -> Vec<Row> {
    let governor = GovernorConfigBuilder::default()
        .per_nanosecond(1)
        .burst_size(1_000_000_000)
        .key_extractor(ByHeader)
        .finish()
        .expect("neither is zero");
    let governor = GovernorLayer::new(Arc::new(governor)).layer(bare());
    let each = || Clients::by_header("x-api-key").each(endless());
    let all = || {
        let plan = Limits::new()
            .rate(endless())
            .quota(Quota::per_day(80_000_000_000_000));
        let clients = each()
            .plan("pro", Plan::new(plan))
            .member("pro", KEY.to_str().expect("text"));
        plain(chat().total(endless()).clients(clients))
    };
    let row = |name, layer: ThrottleLayer| Row::over(BARE, name, asked(layer.layer(bare())));
    let mut rows = vec![
        Row::alone(BARE, asked(bare())),
        Row::over(BARE, GOVERNOR, asked(governor)),
    ];
    rows.extend(ours(ONE, || plain(chat().clients(each())), row));
    // The same key, taken for the name of a model.
    let models = || {
        let key = KEY;
        let key = key.to_str().expect("text").to_owned();
        let models = Models::by_header("x-api-key").model(key, endless());
        plain(chat().models(models.otherwise(endless())))
    };
    rows.extend(ours(MODEL, models, row));
    rows.extend(ours(ALL, all, row));
    rows
}

fn key(client: u64) -> String {
    format!("sk-{client:032x}")
}

fn hourly(max_clients: usize) -> ThrottleLayer {
    let each = Rate::new(1_000_000, Duration::from_secs(3_600_000)).burst(1_000_000);
    let clients = Clients::by_header("x-api-key").each(each);
    build(plain(
        Rules::new().clients(clients.max_clients(max_clients)),
    ))
}

const MILLION: u64 = 1_000_000;

/// Resident bytes for each of a million live clients.
pub fn bytes_of_ours() -> f64 {
    let before = resident();
    let layer = hourly(1_490_000);
    let mut service = layer.layer(bare());
    for client in 0..MILLION {
        let key = HeaderValue::try_from(key(client)).expect("text");
        ask(&mut service, key);
    }
    // At two thirds of the table one is without room in one of thirty runs.
    assert!(layer.overflowed() < 10, "each has a bucket of its own");
    (resident() - before) / MILLION as f64
}

/// Nanoseconds of a request over the bare service's, when so many clients ask in no order.
fn among(count: u64) -> f64 {
    let mut service = hourly(1_500_000).layer(bare());
    let keys: Vec<HeaderValue> = (0..count)
        .map(|client| HeaderValue::try_from(key(client)).expect("text"))
        .collect();
    for key in &keys {
        ask(&mut service, key.clone());
    }
    let mut floor = bare();
    let mut measured = Vec::new();
    let mut at = 1_u64;
    for _ in 0..41 {
        let mut order = || {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            keys[((u128::from(at) * u128::from(count)) >> 64) as usize].clone()
        };
        let start = Instant::now();
        for _ in 0..20_000 {
            ask(&mut service, order());
        }
        let ours = start.elapsed();
        let start = Instant::now();
        for _ in 0..20_000 {
            ask(&mut floor, order());
        }
        measured.push((ours.as_nanos() as f64 - start.elapsed().as_nanos() as f64) / 20_000.0);
    }
    median(measured)
}

/// A decision among a million clients, as a multiple of that among a thousand.
pub fn million_to_thousand() -> f64 {
    among(MILLION) / among(1_000)
}

/// The effect of ten million made-up identities on a table of 100,000 buckets.
pub struct Flood {
    /// Requests a second under the flood, to those of a thousand known clients.
    pub throughput: f64,
    /// Resident memory gained from the tenth of the flood on, in MiB.
    pub grown: f64,
}

pub fn flood() -> Flood {
    let mut service = hourly(100_000).layer(bare());
    let known: Vec<_> = (0..1_000)
        .map(|client| HeaderValue::try_from(key(u64::MAX - client)).expect("text"))
        .collect();
    let per_request = |service: &mut _, keys: &mut dyn Iterator<Item = HeaderValue>| {
        let start = Instant::now();
        let count = keys.map(|key| ask(service, key)).count();
        start.elapsed().as_nanos() as f64 / count as f64
    };
    // Keys are made in both, so that both pay for it.
    let mut calm = (0..MILLION).map(|turn| {
        black_box(HeaderValue::try_from(key(turn)).expect("text"));
        known[(turn % 1_000) as usize].clone()
    });
    let calm = per_request(&mut service, &mut calm);
    let made_up = |client| HeaderValue::try_from(key(client)).expect("text");
    let first = per_request(&mut service, &mut (0..MILLION).map(made_up));
    let before = resident();
    let rest = per_request(&mut service, &mut (MILLION..10 * MILLION).map(made_up));
    Flood {
        throughput: calm / (first * 0.1 + rest * 0.9),
        grown: (resident() - before) / f64::from(1 << 20),
    }
}
