//! R8: an exempt route is declared by name, and nothing counts its requests: no total, client, slot or shadow.

mod support;

use http::{HeaderValue, StatusCode};
use support::{admitted, decision, hourly, passes, request, send, served, throttle};
use tower::Layer;
use tower_throttle::{Clients, InFlight, Limits, Models, Plan, Rules, ThrottleLayer};

/// Every scope closed, and one exempt route.
fn closed() -> Rules {
    let each = Plan::new(Limits::closed()).route("$default", Limits::closed());
    Rules::new()
        .total(Limits::closed())
        .default_route(Limits::closed())
        .route("GET /health", Limits::exempt())
        .route("POST /grpc.health.v1.Health/Check", Limits::exempt())
        .clients(Clients::by_header("x-api-key").each(each))
}

#[tokio::test(start_paused = true)]
async fn no_scope_counts_a_request_of_an_exempt_route() {
    let service = throttle(closed()).layer(served());
    for (method, path, passed) in [
        ("GET", "/health", 20),
        ("HEAD", "/health", 20),
        ("GET", "/health?probe=1", 20),
        ("POST", "/grpc.health.v1.Health/Check", 20),
        // Spellings that are not declared exempt.
        ("POST", "/health", 0),
        ("OPTIONS", "/health", 0),
        ("GET", "/health/", 0),
        ("GET", "//health", 0),
        ("GET", "/Health", 0),
        ("GET", "/", 0),
        ("GET", "/grpc.health.v1.Health/Check", 0),
        ("POST", "/grpc.health.v1.Health/Watch", 0),
    ] {
        let found = admitted(&service, 20, method, path).await;
        assert_eq!(found, passed, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exempt_request_spends_nothing_and_holds_no_slot() {
    let each = Limits::new().rate(hourly(2)).in_flight(1);
    let rules = Rules::new()
        .total(Limits::new().rate(hourly(3)).in_flight(1))
        .default_route(hourly(9))
        .route("GET /health", Limits::exempt())
        .clients(Clients::by_header("x-api-key").each(each));
    let service = throttle(rules).layer(served());
    let held: Vec<_> = [
        send(&service, request("GET", "/health")).await,
        send(&service, request("GET", "/health")).await,
        send(&service, request("GET", "/a")).await,
        send(&service, request("GET", "/health")).await,
    ]
    .into();
    for response in &held {
        assert_eq!(response.status(), StatusCode::OK);
    }
    let limits = |index: usize| decision(&held[index]).limits().count();
    assert_eq!((limits(0), limits(2)), (0, 5), "limits that were charged");
    assert_eq!(decision(&held[0]).route(), "GET /health");
    assert!(!held[0].headers().contains_key("ratelimit"));
    assert!(!passes(&service, request("GET", "/a")).await, "the slot");
    drop(held);
    assert!(passes(&service, request("GET", "/a")).await);
    assert!(!passes(&service, request("GET", "/a")).await, "the client");
    assert_eq!(admitted(&service, 20, "GET", "/health").await, 20);
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_route_is_still_counted_by_clients_and_the_total() {
    let rules = Rules::new()
        .total(hourly(5))
        .route("GET /health", Limits::unlimited())
        .clients(Clients::by_header("x-api-key").each(hourly(2)));
    let service = throttle(rules).layer(served());
    assert_eq!(admitted(&service, 9, "GET", "/health").await, 2);
}

/// A path that an axum router may give to an exempt route or to another has the limits of the other: of models, by its
/// cost, and of a throttle that is closed.
#[tokio::test(start_paused = true)]
async fn a_path_that_may_mean_another_route_than_the_exempt_one_is_not_exempt() {
    let models = Models::by_header("x-model").otherwise(hourly(2).named("models"));
    let rules = Rules::new()
        .total(hourly(4).named("total"))
        .route("GET /health", Limits::exempt())
        .route("GET /{page}", Limits::new())
        .models(models)
        .cost_by(|head| head.field("x-cost")?.parse().ok());
    let throttle = throttle(rules);
    let service = throttle.layer(served());
    let taken = || {
        let snapshot = throttle.handle().snapshot();
        let taken = |name| {
            let limit = snapshot.limits.iter().find(|it| &*it.name == name)?;
            Some(limit.burst - limit.remaining?)
        };
        [taken("total"), taken("models")]
    };
    for (path, cost, status, takes) in [
        ("/health", "3", 200, [0, 0]),
        ("/he%61lth", "1", 200, [1, 1]),
        ("/he%61lth", "3", 200, [4, 2]),
        ("/he%61lth", "1", 429, [4, 2]),
        ("/health", "1", 200, [4, 2]),
    ] {
        let mut request = request("GET", path);
        let cost = HeaderValue::from_static(cost);
        request.headers_mut().insert("x-cost", cost);
        assert_eq!(send(&service, request).await.status(), status, "{path}");
        assert_eq!(taken(), takes.map(Some), "{path}");
    }
    throttle.handle().close();
    for (path, status) in [("/health", 200), ("/he%61lth", 503)] {
        let answer = send(&service, request("GET", path)).await;
        assert_eq!(answer.status(), status, "{path}, closed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shadow_does_not_count_an_exempt_request() {
    let rules = Rules::new()
        .total(Limits::new().rate(hourly(1).shadow()))
        .route("GET /health", Limits::exempt());
    let throttle = throttle(rules);
    let service = throttle.layer(served());
    assert_eq!(admitted(&service, 9, "GET", "/health").await, 9);
    let snapshot = throttle.handle().snapshot();
    let counted = snapshot.limits.iter().map(|limit| limit.would_refuse);
    assert_eq!(counted.sum::<u64>(), 0);
}

/// A router that compares paths as they were sent takes `/files/%68ealth` for `/files/{id}`.
#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn a_request_that_may_mean_another_route_is_charged_there() {
    use axum::{Router, routing::get};

    let rules = Rules::new()
        .default_route(hourly(2))
        .route("GET /files/health", Limits::exempt())
        .clients(Clients::by_header("x-api-key").each(hourly(1)));
    let app = Router::new()
        .route("/files/health", get(|| async { "well" }))
        .route("/files/{id}", get(|| async { "download" }))
        .layer(throttle(rules));
    assert_eq!(admitted(&app, 9, "GET", "/files/health").await, 9);
    assert_eq!(admitted(&app, 9, "GET", "/files/%68ealth").await, 1);
}

#[tokio::test(start_paused = true)]
async fn snapshots_count_exempt_requests() {
    let throttle = throttle(closed());
    let service = throttle.layer(served());
    admitted(&service, 3, "GET", "/health").await;
    admitted(&service, 1, "HEAD", "/health").await;
    admitted(&service, 5, "GET", "/").await;
    let counted = || {
        let routes = throttle.handle().snapshot().routes.into_iter();
        let counted = routes.map(|route| (route.route, route.admitted, route.exempt));
        counted.collect::<Vec<_>>()
    };
    let expected = |health| {
        let routes = [
            ("GET /health", health),
            ("POST /grpc.health.v1.Health/Check", 0),
            ("$default", 0),
        ];
        routes.map(|(route, count)| (route.to_owned(), count, count))
    };
    assert_eq!(counted(), expected(4));
    let changed = throttle.handle().reload(closed());
    assert!(changed.is_ok());
    admitted(&service, 2, "GET", "/health").await;
    assert_eq!(counted(), expected(6), "over a reload");
}

#[tokio::test(start_paused = true)]
async fn a_reload_makes_a_route_exempt_and_limits_it_again() {
    let rules = |health: Limits| Rules::new().total(hourly(2)).route("GET /health", health);
    let throttle = throttle(rules(Limits::unlimited()));
    let service = throttle.layer(served());
    let reload = |health| throttle.handle().reload(rules(health)).map(drop);
    assert_eq!(admitted(&service, 1, "GET", "/health").await, 1);
    assert_eq!(reload(Limits::exempt()), Ok(()));
    assert_eq!(admitted(&service, 9, "GET", "/health").await, 9);
    assert_eq!(reload(Limits::unlimited()), Ok(()));
    assert_eq!(
        admitted(&service, 9, "GET", "/health").await,
        1,
        "what was left"
    );
    let route = throttle.handle().snapshot().routes.remove(0);
    assert_eq!((route.admitted, route.exempt), (11, 9));
}

#[test]
fn only_a_declared_route_with_a_named_method_and_a_literal_path_can_be_exempt() {
    let exempt = Limits::exempt;
    let clients = || Clients::by_header("x-api-key");
    let needs = "only a declared route with a named method and a path without parameters can be exempt, \
                 such as `GET /health`";
    let health = || Rules::new().route("GET /health", exempt());
    let on_plan = |key: &str| {
        let plan = Plan::new(hourly(1)).route(key, hourly(1));
        health().clients(clients().each(hourly(1)).plan("pro", plan))
    };
    let beside = |limits| Rules::new().route("GET /health", limits);
    let table = [
        (Rules::new().total(exempt()), format!("the total: {needs}")),
        (
            Rules::new().default_route(exempt()),
            format!("the default route: {needs}"),
        ),
        (
            Rules::new().route("$default", exempt()),
            format!("route `$default`: {needs}"),
        ),
        (
            Rules::new().route("ANY /health", exempt()),
            format!("route `ANY /health`: {needs}"),
        ),
        (
            Rules::new().route("GET /{probe}", exempt()),
            format!("route `GET /{{probe}}`: {needs}"),
        ),
        (
            Rules::new().route("GET /health/{rest+}", exempt()),
            format!("route `GET /health/{{rest+}}`: {needs}"),
        ),
        (
            Rules::new().clients(clients().each(exempt())),
            format!("each client: {needs}"),
        ),
        (
            Rules::new().clients(clients().each(hourly(1)).plan("pro", exempt())),
            format!("plan `pro`: {needs}"),
        ),
        (
            Rules::new().clients(clients().each(Plan::new(hourly(1)).route("GET /health", exempt()))),
            format!("each client, route `GET /health`: {needs}"),
        ),
        (
            on_plan("GET /health"),
            "plan `pro`, route `GET /health`: `GET /health` is exempt, so that no client's limit can hold there; keep \
             one of them"
                .to_owned(),
        ),
        (
            on_plan("HEAD /health"),
            "plan `pro`, route `HEAD /health`: `GET /health` is exempt, so that no client's limit can hold there; \
             keep one of them"
                .to_owned(),
        ),
        (
            beside(exempt().rate(hourly(1))),
            "route `GET /health`: `rate` cannot be combined with `exempt`; keep one of them".to_owned(),
        ),
        (
            beside(exempt().in_flight(InFlight::new(1).shadow())),
            "route `GET /health`: `in_flight` cannot be combined with `exempt`; keep one of them"
                .to_owned(),
        ),
        (
            beside(exempt().max_waiting(1)),
            "route `GET /health`: `max_waiting` cannot be combined with `exempt`; keep one of them"
                .to_owned(),
        ),
        (
            beside(exempt().named("health")),
            "route `GET /health`: `name` cannot be combined with `exempt`; keep one of them".to_owned(),
        ),
    ];
    for (rules, expected) in table {
        let error = ThrottleLayer::new(rules).map(drop);
        assert_eq!(error.map_err(|error| error.to_string()), Err(expected));
    }
    for key in [
        "ANY /health",
        "POST /health",
        "GET /{x}",
        "$default",
        "GET /healthz",
    ] {
        let built = ThrottleLayer::new(on_plan(key)).map(drop);
        assert_eq!(built, Ok(()), "`{key}` has requests besides");
    }
}
