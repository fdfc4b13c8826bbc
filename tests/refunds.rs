//! R1, R25: a failure of the inner service costs its client nothing, where the rules say so.

mod support;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tokio::{sync::Notify, time::advance};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Handle, InFlight, Limits, Models, Plan, Price, Prices, Quota, Rules, RulesError,
    Spend, ThrottleLayer, Usage,
    body::{Hold, KeptRequest, ResponseBody},
    store::MemoryStore,
    usage::Estimate,
};

use support::{build, bytes, hourly, throttle_in_a_month, throttling};

/// Limits of every kind in every scope, with failures refunded on one of two routes.
fn rules() -> Rules {
    let route = |name: &str| {
        Limits::new()
            .rate(hourly(100).named(format!("{name}_rate")))
            .tokens(hourly(1_000).named(format!("{name}_tokens")))
            .in_flight(InFlight::new(8).named(format!("{name}_slots")))
    };
    let plan = Plan::new(
        Limits::new()
            .rate(hourly(100).named("client_rate"))
            .quota(Quota::per_day(100).named("client_quota"))
            .spend(Spend::per_month("1.00").named("client_spend")),
    )
    .route("POST /refunded", hourly(100).named("client_on_route"))
    .model("large", hourly(100).named("client_on_model"));
    Rules::new()
        .total(hourly(100).named("total_rate"))
        .route(
            "POST /refunded",
            route("route").refund_failures(true).keep(true),
        )
        .route("POST /paid", route("paid"))
        .models(Models::by_header("x-model").model("large", hourly(100).named("model_rate")))
        .prices(Prices::new().otherwise(Price::new().input("1").output("1")))
        .clients(Clients::by_header("x-client").each(plan))
        .estimate(Estimate::fixed(10))
}

/// The behaviour of the inner service.
#[derive(Clone, Copy, Default)]
struct Serve {
    status: u16,
    grpc_status: Option<&'static str>,
    settles: Option<u64>,
    keeps: bool,
}

impl Serve {
    fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    fn grpc(grpc_status: &'static str) -> Self {
        Self {
            grpc_status: Some(grpc_status),
            ..Self::status(200)
        }
    }
}

type Answer = Response<ResponseBody<Body>>;

async fn send(throttle: &ThrottleLayer, path: &str, serve: Serve) -> (Answer, Option<KeptRequest>) {
    let (keep, kept) = std::sync::mpsc::channel();
    let inner = service_fn(move |request: Request<Body>| {
        let extensions = request.extensions();
        let usage = extensions.get::<Usage>();
        if let (Some(settled), Some(usage)) = (serve.settles, usage) {
            assert!(usage.settle(settled));
        }
        let hold = extensions.get::<Hold>().filter(|_| serve.keeps);
        keep.send(hold.and_then(Hold::keep))
            .expect("the test goes on");
        let mut response = Response::builder().status(serve.status);
        if let Some(grpc_status) = serve.grpc_status {
            response = response.header("grpc-status", grpc_status);
        }
        let response = response.body(Body::from("answered"));
        std::future::ready(Ok::<_, Infallible>(response.expect("a response")))
    });
    let request = Request::post(path)
        .header("x-client", "a")
        .header("x-model", "large")
        .body(Body::empty());
    let service = throttle.layer(inner);
    let answer = service.oneshot(request.expect("a request")).await;
    let answer = answer.unwrap_or_else(|never| match never {});
    (answer, kept.try_recv().ok().flatten())
}

/// The units that are taken of each limit that has one balance, by its name.
fn taken(handle: &Handle, name: &str) -> u64 {
    let limits = handle.snapshot().limits;
    let limit = limits.iter().find(|limit| &*limit.name == name);
    let limit = limit.unwrap_or_else(|| panic!("{name}"));
    limit.burst - limit.remaining.expect("one balance")
}

/// The units that one more request of a client finds taken of each of its limits.
fn taken_of_client(throttle: &ThrottleLayer) -> Vec<(String, u64)> {
    let request = Request::post("/refunded")
        .header("x-client", "a")
        .header("x-model", "large");
    let request = request.body(()).expect("a request");
    let decision = throttle.handle().preview(&request);
    let limits = decision
        .limits()
        .filter(|limit| limit.name().starts_with("client"));
    let mut taken: Vec<_> = limits
        .map(|limit| {
            (
                limit.name().to_owned(),
                limit.burst() - limit.remaining() - limit.cost(),
            )
        })
        .collect();
    taken.sort();
    taken
}

fn of_client(units: u64, spent: u64) -> Vec<(String, u64)> {
    let names = [
        "client_on_model",
        "client_on_route",
        "client_quota",
        "client_rate",
    ];
    let units = names.map(|name| (name.to_owned(), units));
    units
        .into_iter()
        .chain([("client_spend".to_owned(), spent)])
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_failure_gives_back_what_it_took_of_its_client_and_of_tokens() {
    let table = [
        (Serve::status(500), true),
        (Serve::status(503), true),
        (Serve::status(599), true),
        (Serve::status(429), true),
        (Serve::status(200), false),
        (Serve::status(400), false),
        (Serve::status(404), false),
        (Serve::status(428), false),
        (Serve::status(499), false),
        (Serve::grpc("0"), false),
        (Serve::grpc("2"), true),
        (Serve::grpc("4"), false),
        (Serve::grpc("8"), true),
        (Serve::grpc("12"), false),
        (Serve::grpc("13"), true),
        (Serve::grpc("14"), true),
        (Serve::grpc("15"), true),
        (Serve::grpc("133"), false),
    ];
    for (serve, is_refunded) in table {
        let what = format!("{} {:?}", serve.status, serve.grpc_status);
        let throttle = throttle_in_a_month(rules());
        let handle = throttle.handle();
        let (answer, _) = send(&throttle, "/refunded", serve).await;
        assert_eq!(answer.status(), serve.status, "it passes unchanged");
        let (units, tokens) = if is_refunded { (0, 0) } else { (1, 10) };
        assert_eq!(
            taken_of_client(&throttle),
            of_client(units, tokens),
            "{what}"
        );
        assert_eq!(taken(&handle, "route_tokens"), tokens, "{what}");
        for protects in ["total_rate", "route_rate", "model_rate"] {
            assert_eq!(taken(&handle, protects), 1, "{what}, {protects}");
        }
        let in_flight = || taken(&handle, "route_slots");
        assert_eq!(in_flight(), 1, "the slot is held until the body has ended");
        assert_eq!(bytes(answer).await, "answered");
        assert_eq!(in_flight(), 0);
        assert_eq!(taken(&handle, "route_tokens"), tokens, "settled once");
        assert_eq!(taken_of_client(&throttle), of_client(units, tokens));
        let routes = handle.snapshot().routes;
        let refunded: u64 = routes.iter().map(|route| route.refunded).sum();
        assert_eq!(refunded, u64::from(is_refunded), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_routes_refund_nothing() {
    let throttle = throttle_in_a_month(rules());
    let (answer, _) = send(&throttle, "/paid", Serve::status(500)).await;
    drop(answer);
    let mut taken: Vec<_> = taken_of_client(&throttle);
    taken.retain(|(name, _)| name != "client_on_route");
    let mut expected = of_client(1, 10);
    expected.retain(|(name, _)| name != "client_on_route");
    assert_eq!(taken, expected);
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_has_settled_stands() {
    let throttle = throttle_in_a_month(rules());
    let serve = Serve {
        settles: Some(7),
        ..Serve::status(500)
    };
    drop(send(&throttle, "/refunded", serve).await);
    assert_eq!(taken(&throttle.handle(), "route_tokens"), 7);
    assert_eq!(taken_of_client(&throttle), of_client(0, 7));
}

#[tokio::test(start_paused = true)]
async fn a_kept_request_gives_nothing_back() {
    let throttle = throttle_in_a_month(rules());
    let serve = Serve {
        keeps: true,
        ..Serve::status(500)
    };
    let (answer, kept) = send(&throttle, "/refunded", serve).await;
    assert!(kept.is_some());
    drop(answer);
    assert_eq!(taken_of_client(&throttle), of_client(1, 10));
    drop(kept);
    assert_eq!(taken_of_client(&throttle), of_client(1, 10));
    assert_eq!(taken(&throttle.handle(), "route_tokens"), 10);
    let routes = throttle.handle().snapshot().routes;
    let refunded: u64 = routes.iter().map(|route| route.refunded).sum();
    assert_eq!(refunded, 0, "none is counted that was not given back");
}

#[tokio::test(start_paused = true)]
async fn a_quota_gets_units_back_in_their_own_window_alone() {
    let quota = Quota::per(10, Duration::from_secs(60)).named("q");
    let rules = Rules::new()
        .route("POST /refunded", Limits::new().refund_failures(true))
        .clients(Clients::by_header("x-client").each(quota));
    let throttle = throttle_in_a_month(rules);
    let taken = || {
        let request = Request::post("/refunded").header("x-client", "a");
        let request = request.body(()).expect("a request");
        let decision = throttle.handle().preview(&request);
        let limit = decision.limits().next().expect("one limit");
        10 - limit.remaining() - limit.cost()
    };
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let slow = service_fn(move |_: Request<Body>| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Ok::<_, Infallible>(response)
        }
    });
    let request = || {
        let request = Request::post("/refunded").header("x-client", "a");
        request.body(Body::empty()).expect("a request")
    };
    let running = tokio::spawn(throttle.layer(slow).oneshot(request()));
    tokio::task::yield_now().await;
    assert_eq!(taken(), 1);
    advance(Duration::from_secs(60)).await;
    let ok =
        service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let answer = throttle.layer(ok).oneshot(request()).await;
    drop(answer.expect("never fails"));
    assert_eq!(taken(), 1, "of the new window");
    // No time passes, so that the window is the same wherever the clock stands.
    go.notify_one();
    let answer = running.await.expect("no panic").expect("never fails");
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        taken(),
        1,
        "the new window was not charged with the failure"
    );
}

/// The rates of a client lie in a store: what one process refunds, another finds.
#[tokio::test(start_paused = true)]
async fn failures_are_refunded_in_a_store() {
    let store = MemoryStore::new();
    let rules = || {
        Rules::new()
            .route("POST /refunded", Limits::new().refund_failures(true))
            .clients(
                Clients::by_header("x-client")
                    .each(hourly(2))
                    .secret([7; 32]),
            )
    };
    let [one, other] = [(); 2].map(|()| build(throttling(rules()).store(store.clone()).lease(1)));
    for status in [500, 429, 503, 500] {
        let (answer, _) = send(&one, "/refunded", Serve::status(status)).await;
        assert_eq!(answer.status(), status);
        drop(answer);
        // A task sends what comes back.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for status in [200, 200, 429] {
        let (answer, _) = send(&other, "/refunded", Serve::status(200)).await;
        assert_eq!(answer.status(), status);
    }
}

#[test]
fn settings_of_routes_are_refused_elsewhere() {
    let settings = [
        ("refund_failures", Limits::new().refund_failures(true)),
        ("usage_from_answers", Limits::new().usage_from_answers(true)),
    ];
    for (setting, limits) in settings {
        let limits = || limits.clone();
        let table = [
            (Rules::new().total(limits()), "the total"),
            (
                Rules::new().clients(Clients::by_header("x").each(limits())),
                "each client",
            ),
            (
                Rules::new().models(Models::by_header("x").model("a", limits())),
                "model `a`",
            ),
        ];
        for (rules, place) in table {
            let error = ThrottleLayer::new(rules).expect_err(place);
            assert!(matches!(error, RulesError::RouteSetting { .. }), "{error}");
            assert_eq!(
                error.to_string(),
                format!(
                    "{place}: `{setting}` is that of a route in the rules, or of the default route; set it there"
                )
            );
        }
    }
    let exempt = [
        ("refund_failures", Limits::exempt().refund_failures(true)),
        (
            "usage_from_answers",
            Limits::exempt().usage_from_answers(true),
        ),
    ];
    for (setting, limits) in exempt {
        let error = ThrottleLayer::new(Rules::new().route("GET /health", limits));
        let error = error.expect_err("exempt").to_string();
        let expected = format!("`{setting}` cannot be combined with `exempt`");
        assert!(error.contains(&expected), "{error}");
    }
}

/// A path that may mean two routes gives something back only if both say so.
#[tokio::test(start_paused = true)]
async fn no_spelling_has_a_failure_refunded() {
    let refunds = || Limits::new().refund_failures(true);
    for (other, taken) in [(Limits::new(), 1), (refunds(), 0)] {
        let rules = Rules::new()
            .route("POST /refunded", refunds())
            .route("POST /{other}", other)
            .clients(Clients::by_header("x-client").each(hourly(100).named("client_rate")));
        let throttle = throttle_in_a_month(rules);
        let (answer, _) = send(&throttle, "/refun%64ed", Serve::status(500)).await;
        assert_eq!(answer.status(), 500);
        let found = taken_of_client(&throttle);
        assert_eq!(found, [("client_rate".to_owned(), taken)]);
    }
}
