//! A snapshot shows the settings of each limit, its remaining units, and the counts of requests.

use std::{convert::Infallible, future::ready, time::Duration};

use axum::{Router, body::Body, routing::get};
use http::{Request, Response, StatusCode};
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Handle, Limits, Quota, Rate, Rules, ThrottleLayer, Usage, limit::Scope,
    snapshot::LimitSnapshot, usage::Estimate,
};

const SECOND: Duration = Duration::from_secs(1);

fn layer(rules: Rules) -> (ThrottleLayer, Handle) {
    let layer = ThrottleLayer::new(rules).expect("rules that hold together");
    let handle = layer.handle();
    (layer, handle)
}

async fn ask(
    layer: &ThrottleLayer,
    path: &str,
) -> Response<tower_throttle::body::ResponseBody<Body>> {
    let served = |request: Request<Body>| {
        if let Some(usage) = request.extensions().get::<Usage>() {
            usage.settle(350);
        }
        ready(Ok::<_, Infallible>(Response::new(Body::from("served"))))
    };
    let request = Request::get(path).header("x-api-key", "secret-of-a-client");
    let request = request.body(Body::empty()).expect("a request");
    let answer = layer.layer(service_fn(served)).oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

fn limit(handle: &Handle, name: &str) -> LimitSnapshot {
    let limits = handle.snapshot().limits;
    let found = limits.into_iter().find(|limit| &*limit.name == name);
    found.unwrap_or_else(|| panic!("no limit `{name}`"))
}

#[tokio::test(start_paused = true)]
async fn what_each_limit_has_left_and_what_it_did() {
    let chat = Limits::new()
        .rate(Rate::per_second(10).burst(5).named("chat"))
        .rate(Rate::per_second(1).burst(2).named("stricter").shadow())
        .tokens(Rate::per_minute(60).burst(1_000).named("tokens"))
        .in_flight(tower_throttle::InFlight::new(9).named("slots"));
    let clients = Clients::by_header("x-api-key").each(Limits::new().quota(Quota::per_day(99)));
    let rules = Rules::new()
        .total(Rate::per_second(100).named("all"))
        .route("GET /chat", chat)
        .route("GET /free", Limits::unlimited())
        .default_route(Rate::per_second(1).named("other"))
        .estimate(Estimate::fixed(100))
        .clients(clients);
    let (layer, handle) = layer(rules);
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(ask(&layer, "/chat").await);
    }
    for path in ["/free", "/a", "/b", "/b"] {
        held.push(ask(&layer, path).await);
    }
    // Three of 350 tokens make 1,050 of 1,000; the fourth finds nothing.
    let chat = limit(&handle, "chat");
    assert_eq!(
        (chat.scope, chat.route.as_deref()),
        (Scope::Route, Some("GET /chat"))
    );
    assert_eq!(
        (chat.burst, chat.remaining, chat.owed),
        (5, Some(2), Some(0))
    );
    assert_eq!((chat.admitted, chat.refused, chat.in_flight), (3, 0, None));
    let tokens = limit(&handle, "tokens");
    assert_eq!((tokens.remaining, tokens.owed), (Some(0), Some(50)));
    assert_eq!((tokens.admitted, tokens.refused), (3, 4));
    let stricter = limit(&handle, "stricter");
    assert_eq!(
        (stricter.remaining, stricter.refused, stricter.would_refuse),
        (Some(0), 0, 5)
    );
    assert!(stricter.settings.is_shadow());
    let slots = limit(&handle, "slots");
    assert_eq!(
        (slots.in_flight, slots.remaining, slots.burst),
        (Some(3), Some(6), 9)
    );
    let all = limit(&handle, "all");
    assert_eq!(
        (all.scope, all.admitted, all.remaining),
        (Scope::Total, 6, Some(94))
    );
    let client = limit(&handle, "client_daily");
    assert_eq!(
        (client.scope, client.remaining, client.admitted),
        (Scope::Client, None, 6)
    );
    let other = limit(&handle, "other");
    assert_eq!((other.route, other.remaining), (None, None));
    assert_eq!(
        (other.admitted, other.refused),
        (2, 1),
        "of two routes together"
    );
    let routes = handle.snapshot().routes;
    let routes: Vec<_> = routes
        .iter()
        .map(|route| {
            (
                &*route.route,
                route.admitted,
                route.refused,
                route.would_refuse,
            )
        })
        .collect();
    let expected = [
        ("GET /chat", 3, 4, 5),
        ("GET /free", 1, 0, 0),
        ("$default", 2, 1, 0),
    ];
    assert_eq!(routes, expected);
    held.clear();
    advance(SECOND).await;
    assert_eq!(limit(&handle, "slots").in_flight, Some(0));
    assert_eq!(limit(&handle, "chat").remaining, Some(5));
    assert_eq!(limit(&handle, "tokens").owed, Some(49));
}

#[tokio::test(start_paused = true)]
async fn counts_are_kept_over_reloads() {
    let rules = |rate| {
        Rules::new()
            .default_route(rate)
            .route("GET /a", Limits::new())
    };
    let (layer, handle) = layer(rules(Rate::per_second(2)));
    for count in [2, 2, 5] {
        for path in ["/a", "/a", "/b", "/b", "/b"] {
            ask(&layer, path).await;
        }
        advance(SECOND).await;
        handle
            .reload(rules(Rate::per_second(count)))
            .expect("good rules");
    }
    let snapshot = handle.snapshot();
    let routes = snapshot.routes.iter();
    let routes: Vec<_> = routes
        .map(|route| (&*route.route, route.admitted, route.refused))
        .collect();
    assert_eq!(routes, [("GET /a", 6, 0), ("$default", 6, 3)]);
    let limits: Vec<_> = snapshot
        .limits
        .iter()
        .map(|limit| (limit.admitted, limit.refused))
        .collect();
    assert_eq!(limits, [(6, 0), (6, 3)]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_counted_where_it_waits() {
    let patient = |cap| {
        Limits::new()
            .in_flight(cap)
            .max_wait(60 * SECOND)
            .max_waiting(9)
    };
    let rules = Rules::new()
        .total(patient(2).named("all"))
        .default_route(patient(1).named("route"));
    let (layer, handle) = layer(rules);
    let held = ask(&layer, "/a").await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let layer = layer.clone();
            tokio::spawn(async move { ask(&layer, "/a").await.status() })
        })
        .collect();
    tokio::task::yield_now().await;
    let route = limit(&handle, "route");
    assert_eq!((route.waiting, route.waited, route.admitted), (3, 3, 1));
    assert_eq!(limit(&handle, "all").waiting, 0);
    waiting[0].abort();
    tokio::task::yield_now().await;
    assert_eq!(limit(&handle, "route").waiting, 2);
    drop(held);
    for waiter in waiting.into_iter().skip(1) {
        assert_eq!(waiter.await.expect("no panic"), StatusCode::OK);
    }
    let route = limit(&handle, "route");
    assert_eq!((route.waiting, route.waited, route.admitted), (0, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn routes_that_the_router_names_are_told_apart_and_no_others() {
    let (layer, handle) = layer(Rules::new().default_route(Rate::per_second(2)));
    let mut app = Router::new()
        .route("/models/{id}", get(|| async { "one" }))
        .layer(layer);
    for path in [
        "/models/a",
        "/models/b",
        "/models/c",
        "/invented/x",
        "/invented/y",
    ] {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let app = ServiceExt::<Request<Body>>::ready(&mut app).await;
        let answer = app.expect("always").call(request).await;
        answer.expect("infallible");
    }
    let snapshot = handle.snapshot();
    let names_routes = cfg!(feature = "axum");
    let routes: Vec<_> = snapshot
        .routes
        .iter()
        .map(|route| (&*route.route, route.admitted, route.refused))
        .collect();
    let expected: &[_] = match names_routes {
        true => &[("GET /models/{id}", 2, 1), ("$default", 2, 0)],
        false => &[("$default", 5, 0)],
    };
    assert_eq!(routes, expected);
    let told = format!("{snapshot:?}");
    assert!(!told.contains("invented"), "{told}");
}

#[cfg(feature = "config")]
#[tokio::test(start_paused = true)]
async fn it_is_told_to_other_programs() {
    let rules = Rules::new().total(Rate::per_second(2).named("all"));
    let (layer, handle) = layer(rules);
    for _ in 0..3 {
        ask(&layer, "/").await;
    }
    let told = serde_json::to_value(handle.snapshot()).expect("JSON");
    let expected = serde_json::json!({
        "limits": [{
            "name": "all", "scope": "total", "route": null, "plan": null,
            "model": null,
            "kind": "rate", "settings": "2 in 1s, burst 2", "shadow": false, "burst": 2,
            "remaining": 0, "owed": 0, "in_flight": null,
            "waiting": 0, "admitted": 2, "refused": 1, "would_refuse": 0, "waited": 0,
        }],
        "routes": [{ "route": "$default", "admitted": 2, "exempt": 0, "degraded": 0, "refused": 1, "would_refuse": 0, "expired": 0, "refunded": 0, "missing_usage": { "encoding": 0, "cut": 0, "absent": 0, "malformed": 0, "implausible": 0 } }],
        "overflowed": 0,
        "without_address": 0,
        "unknown_plans": 0,
        "unread_models": 0,
    });
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn requests_whose_client_is_not_identified_as_configured_are_counted() {
    let clients = Clients::by_header("x-api-key")
        .or_address()
        .each(Rate::per_second(9))
        .plan("pro", Rate::per_second(9))
        .member("pro", "member")
        .plan_by(|head| head.headers().get("x-plan")?.to_str().ok());
    let (layer, handle) = layer(Rules::new().clients(clients.clone()));
    let send = async |key: Option<&str>, plan: Option<&str>| {
        let mut request = Request::get("/");
        for (name, value) in [("x-api-key", key), ("x-plan", plan)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let request = request.body(()).expect("a request");
        let serve = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        layer
            .layer(serve)
            .oneshot(request)
            .await
            .expect("never fails");
        let snapshot = handle.snapshot();
        (snapshot.without_address, snapshot.unknown_plans)
    };
    assert_eq!(send(Some("a"), None).await, (0, 0));
    assert_eq!(send(None, None).await, (1, 0), "no key, and no address");
    assert_eq!(send(Some("a"), Some("pro")).await, (1, 0));
    assert_eq!(send(Some("a"), Some("no such plan")).await, (1, 1));
    assert_eq!(send(Some("member"), Some("no such plan")).await, (1, 1));
    handle
        .reload(Rules::new().clients(clients))
        .expect("proper rules");
    assert_eq!(
        send(None, Some("none")).await,
        (2, 2),
        "a reload keeps them"
    );
}
