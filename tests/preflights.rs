//! R8 and R23: a CORS preflight is a request of method `OPTIONS` like any other. None of its header fields frees it.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body, extract::ConnectInfo, routing::any};
use http::{HeaderValue, Request, Response, StatusCode};
use tower::{Layer, ServiceBuilder};
use tower_http::cors::{Any, CorsLayer};
use tower_throttle::{Clients, Limits, Plan, Rate, Rules};

use support::{admitted, hourly, passes, request, send, served, throttle, values};

fn preflight(uri: &str) -> Request<Body> {
    let mut request = request("OPTIONS", uri);
    let headers = request.headers_mut();
    headers.insert("origin", HeaderValue::from_static("https://app.example"));
    let asks = HeaderValue::from_static("POST");
    headers.insert("access-control-request-method", asks);
    request
}

/// Returns how many of `count` equal preflights pass.
async fn preflights<S, R>(service: &S, count: usize, uri: &str) -> usize
where
    S: tower::Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: std::fmt::Debug,
{
    let mut passed = 0;
    for _ in 0..count {
        passed += usize::from(passes(service, preflight(uri)).await);
    }
    passed
}

#[tokio::test(start_paused = true)]
async fn a_preflight_passes_no_total_and_no_closed_route() {
    let closed: [(&str, Rules); 5] = [
        ("the total", Rules::new().total(Limits::closed())),
        ("ANY", Rules::new().route("ANY /a", Limits::closed())),
        (
            "OPTIONS",
            Rules::new().route("OPTIONS /a", Limits::closed()),
        ),
        ("$default", Rules::new().route("$default", Limits::closed())),
        (
            "the default route",
            Rules::new().default_route(Rate::per_second(0)),
        ),
    ];
    for (what, rules) in closed {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let handler = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            async { "served" }
        };
        let app = Router::new()
            .route("/a", any(handler))
            .layer(throttle(rules));
        assert_eq!(preflights(&app, 20, "/a").await, 0, "{what} is closed");
        assert_eq!(
            calls.load(Ordering::Relaxed),
            0,
            "{what}: no handler has run"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_preflight_takes_a_slot_and_holds_it_until_its_answer_has_ended() {
    let rules = Rules::new().total(Limits::new().in_flight(1));
    let app = Router::new()
        .route("/a", any(async || "served"))
        .layer(throttle(rules));
    let held = send(&app, preflight("/a")).await;
    assert_eq!(held.status(), StatusCode::OK);
    let refused = send(&app, preflight("/a")).await;
    assert_eq!(
        refused.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "the one slot is taken"
    );
    drop(held);
    assert_eq!(send(&app, preflight("/a")).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_preflight_is_charged_as_any_other_options_request() {
    let two = || Rules::new().default_route(hourly(9));
    let table: [(&str, Rules); 6] = [
        ("OPTIONS", two().route("OPTIONS /a", hourly(2))),
        ("ANY", two().route("ANY /a", hourly(2))),
        ("a greedy ANY", two().route("ANY /{proxy+}", hourly(2))),
        ("$default", two().route("$default", hourly(2))),
        ("the default route", Rules::new().default_route(hourly(2))),
        ("the total", two().total(hourly(2))),
    ];
    for (what, rules) in table {
        let service = throttle(rules).layer(served());
        let first = passes(&service, request("OPTIONS", "/a")).await;
        assert!(first, "{what}: a plain OPTIONS request");
        assert_eq!(
            preflights(&service, 5, "/a").await,
            1,
            "{what}: the second of two"
        );
    }
    let other = throttle(Rules::new().route("POST /a", hourly(1))).layer(served());
    assert_eq!(preflights(&other, 5, "/a").await, 5, "another method's key");
}

#[tokio::test(start_paused = true)]
async fn a_preflight_is_charged_to_its_address_or_to_the_anonymous_client() {
    let from = |host: u8| {
        let mut preflight = preflight("/a");
        let peer = std::net::SocketAddr::from(([192, 0, 2, host], 1));
        preflight
            .extensions_mut()
            .insert(tower_throttle::client::PeerAddr(peer));
        preflight.extensions_mut().insert(ConnectInfo(peer));
        preflight
    };
    for (clients, passed) in [
        (Clients::by_header("x-api-key"), 1),
        (Clients::by_header("x-api-key").or_address(), 3),
    ] {
        let rules = Rules::new().clients(clients.each(hourly(1)));
        let service = throttle(rules).layer(served());
        let mut count = 0;
        for host in [1, 1, 2, 2, 3, 3] {
            count += usize::from(passes(&service, from(host)).await);
        }
        assert_eq!(count, passed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_preflight_is_charged_to_a_plans_route_that_takes_options() {
    for key in ["OPTIONS /a", "ANY /a", "ANY /{proxy+}"] {
        let plan = Plan::new(Limits::unlimited()).route(key, hourly(1));
        let clients = Clients::by_header("x-api-key").each(plan);
        let service = throttle(Rules::new().clients(clients)).layer(served());
        assert_eq!(preflights(&service, 5, "/a").await, 1, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn preflights_end_at_a_cors_layer_outside_and_are_charged_inside_of_the_throttle() {
    let cors = || {
        CorsLayer::new()
            .allow_origin(Any)
            .allow_methods([http::Method::POST])
    };
    let rules = || Rules::new().total(hourly(2));
    let outside = ServiceBuilder::new()
        .layer(cors())
        .layer(throttle(rules()))
        .service(served());
    for _ in 0..9 {
        let answer = send(&outside, preflight("/")).await;
        let allowed = values(&answer, "access-control-allow-methods");
        assert_eq!(allowed, ["POST"], "answered by the layer outside");
    }
    assert_eq!(
        admitted(&outside, 9, "GET", "/").await,
        2,
        "none was charged"
    );
    let inside = ServiceBuilder::new()
        .layer(throttle(rules()))
        .layer(cors())
        .service(served());
    assert_eq!(preflights(&inside, 9, "/").await, 2, "charged to the total");
}
