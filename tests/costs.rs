//! Requests that cost more than one unit of the limits of their client and of the total.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock that it has paused"
)]

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt};
use tower_throttle::{
    Clients, Limits, Models, Plan, Quota, Rate, Rules, ThrottleLayer,
    facts::BodyFacts,
    limit::Scope,
    store::MemoryStore,
    usage::{BodyEstimate, Estimate},
};

use support::{build, decision, hourly, request, send, served, throttle, throttling};

fn ask(uri: &str, client: &str) -> Request<Body> {
    let mut request = request("POST", uri);
    let client = client.parse().expect("a value");
    request.headers_mut().insert("x-client", client);
    request
}

async fn passes(throttle: &ThrottleLayer, request: Request<Body>) -> bool {
    let answer = send(&throttle.layer(served()), request).await;
    answer.status() == StatusCode::OK
}

fn clients(plan: impl Into<Plan>) -> Clients {
    Clients::by_header("x-client").each(plan)
}

/// The units that are left of the total.
fn left(throttle: &ThrottleLayer) -> Option<u64> {
    let snapshot = throttle.handle().snapshot();
    let total = snapshot.limits.iter().find(|it| it.scope == Scope::Total);
    total.and_then(|it| it.remaining)
}

#[tokio::test(start_paused = true)]
async fn an_image_counts_as_ten_chats() {
    let quotas = Limits::from(Quota::per_day(25))
        .rate(hourly(24))
        .in_flight(1);
    let rules = Rules::new()
        .total(hourly(100))
        .default_route(hourly(50))
        .route("POST /images", Limits::new().cost(10))
        .clients(clients(Plan::new(quotas).route("POST /images", hourly(3))));
    let throttle = throttle(rules);
    assert!(passes(&throttle, ask("/images", "a")).await);
    assert!(passes(&throttle, ask("/images", "a")).await);
    assert_eq!(left(&throttle), Some(80));
    let refused = send(&throttle.layer(served()), ask("/images", "a")).await;
    let refusing: Vec<_> = decision(&refused)
        .limits()
        .filter(|limit| limit.is_refused())
        .map(|limit| (limit.scope(), limit.remaining()))
        .collect();
    assert_eq!(refusing, [(Scope::Client, 4), (Scope::Client, 5)]);
    assert_eq!(left(&throttle), Some(80), "a refusal costs nothing");
    for _ in 0..4 {
        assert!(passes(&throttle, ask("/chat", "a")).await);
    }
    assert!(!passes(&throttle, ask("/chat", "a")).await);
    let snapshot = throttle.handle().snapshot();
    let images = snapshot
        .limits
        .iter()
        .find(|it| it.route.as_deref() == Some("POST /images"));
    assert_eq!(
        images.and_then(|it| it.remaining),
        Some(48),
        "the route counts requests"
    );
    assert_eq!(left(&throttle), Some(76));
}

#[tokio::test(start_paused = true)]
async fn a_told_wait_is_enough_for_the_whole_cost() {
    let rules = Rules::new()
        .route("POST /images", Limits::new().cost(10))
        .clients(clients(Rate::per_second(2).burst(15)));
    let throttle = throttle(rules);
    assert!(passes(&throttle, ask("/images", "a")).await);
    let refused = send(&throttle.layer(served()), ask("/images", "a")).await;
    let wait = decision(&refused).retry_after().expect("it passes later");
    assert_eq!(wait, Duration::from_millis(2_500));
    advance(wait - Duration::from_nanos(1)).await;
    assert!(!passes(&throttle, ask("/images", "a")).await);
    advance(Duration::from_nanos(1)).await;
    assert!(passes(&throttle, ask("/images", "a")).await);
}

/// However a path is spelled, and whatever else it may mean.
#[tokio::test(start_paused = true)]
async fn no_spelling_makes_a_request_cheaper() {
    let rules = || {
        Rules::new()
            .total(hourly(100))
            .default_route(Limits::from(hourly(1_000)).cost(3))
            .route("POST /images", Limits::new().cost(10))
            .route("POST /images/{id}", Limits::new().cost(7))
            .route("POST /chat", Limits::new().cost(1))
    };
    let table = [
        ("/images", 10),
        ("/images/", 10),
        ("//images", 10),
        ("/imag%65s", 10),
        ("/images/1", 7),
        ("/images/%31", 7),
        ("/chat", 1),
        ("/other", 3),
    ];
    for (path, cost) in table {
        let throttle = throttle(rules());
        assert!(passes(&throttle, ask(path, "a")).await);
        assert_eq!(left(&throttle), Some(100 - cost), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_dearer_of_route_and_model_counts_and_unread_is_as_dear_as_any() {
    let models = Models::by_header("x-model")
        .model("large", Limits::new().cost(8))
        .model("small", Limits::new())
        .otherwise(Limits::new().cost(2));
    let rules = Rules::new().total(hourly(100)).models(models);
    let rules = rules.route("POST /images", Limits::new().cost(5));
    let table: [(&str, &[u8], u64); 7] = [
        ("/images", b"large", 8),
        ("/images", b"small", 5),
        ("/images", b"x", 5),
        ("/chat", b"large", 8),
        ("/chat", b"small", 1),
        ("/chat", b"x", 2),
        ("/chat", b"small\xff", 8),
    ];
    for (path, model, cost) in table {
        let throttle = throttle(rules.clone());
        for times in 1..=2 {
            let mut request = ask(path, "a");
            let value = http::HeaderValue::from_bytes(model).expect("a value");
            request.headers_mut().insert("x-model", value);
            assert!(passes(&throttle, request).await);
            assert_eq!(
                left(&throttle),
                Some(100 - cost * times),
                "{path} {model:?}"
            );
        }
    }
}

/// Whoever stands behind a dear request waits for all of its units.
#[tokio::test(start_paused = true)]
async fn a_line_moves_by_what_its_requests_cost() {
    let patient = Limits::from(Rate::per_second(1).burst(10)).max_wait(Duration::from_secs(25));
    let rules = Rules::new()
        .route("POST /images", Limits::new().cost(10))
        .clients(clients(patient));
    let throttle = throttle(rules);
    let service = throttle.layer(served());
    assert!(
        passes(&throttle, ask("/images", "a")).await,
        "the bucket is empty"
    );
    let start = Instant::now();
    let sent = |path: &'static str| {
        let answer = send(&service, ask(path, "a"));
        async move { (answer.await.status(), start.elapsed().as_secs()) }
    };
    let all = tokio::join!(
        sent("/images"),
        sent("/chat"),
        sent("/images"),
        sent("/images"),
        sent("/chat")
    );
    let passed = |seconds| (StatusCode::OK, seconds);
    assert_eq!((all.0, all.1, all.2), (passed(10), passed(11), passed(21)));
    assert_eq!(
        all.3,
        (StatusCode::TOO_MANY_REQUESTS, 0),
        "31 seconds are too long"
    );
    assert_eq!(all.4, passed(22));
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_the_cost_and_keeps_what_was_used() {
    let rules = |cost| {
        let rules = Rules::new().total(hourly(100));
        rules.route("POST /images", Limits::new().cost(cost))
    };
    let throttle = throttle(rules(10));
    assert!(passes(&throttle, ask("/images", "a")).await);
    let changes = throttle
        .handle()
        .reload(rules(4))
        .expect("rules that hold together");
    assert_eq!(changes.to_string(), "route `POST /images`, cost: 10 => 4");
    assert!(passes(&throttle, ask("/images", "a")).await);
    assert_eq!(left(&throttle), Some(86));
}

#[test]
fn costs_that_cannot_pass_are_errors() {
    let dear = |cost| Rules::new().route("POST /images", Limits::new().cost(cost));
    let table = [
        (
            dear(0),
            "route `POST /images`: a cost of zero takes nothing of a client's limits or the total's; write 1 or more",
        ),
        (
            dear(6).total(hourly(5)),
            "route `POST /images`: a cost of 6 is more than limit `total` holds, which is 5; lower the cost, or raise \
             the limit",
        ),
        (
            dear(6).clients(clients(hourly(9)).plan("pro", Quota::per_day(5))),
            "route `POST /images`: a cost of 6 is more than limit `pro_daily` holds, which is 5; lower the cost, or \
             raise the limit",
        ),
        (
            Rules::new().total(Limits::from(hourly(9)).cost(2)),
            "the total: `cost` is that of a route or a model in the rules; set it there",
        ),
        (
            Rules::new().clients(clients(
                Plan::new(hourly(1)).route("GET /", Limits::new().cost(2)),
            )),
            "each client, route `GET /`: `cost` is that of a route or a model in the rules; set it there",
        ),
        (
            Rules::new().route("GET /", Limits::exempt().cost(2)),
            "route `GET /`: `cost` cannot be combined with `exempt`; keep one of them",
        ),
    ];
    for (rules, expected) in table {
        let error = ThrottleLayer::new(rules).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
    // A limit of the route itself counts requests, and slots are held one by one.
    let rules = dear(6).total(Limits::from(hourly(6)).in_flight(1));
    assert!(ThrottleLayer::new(rules.route("POST /chat", hourly(1))).is_ok());
}

/// Two replicas share a total: all of its units pass and no more, dear requests among them. What one of them has leased it
/// alone spends.
#[tokio::test(start_paused = true)]
async fn replicas_share_a_total_to_the_unit() {
    for leased in [1, 20] {
        let store = MemoryStore::new();
        let replica = || {
            // Units are leased of a rate alone that gives some in a second. No time passes here.
            let rules = Rules::new().total(Rate::per_second(100).burst(90));
            let rules = rules.route("POST /images", Limits::new().cost(7));
            build(throttling(rules).store(store.clone()).lease(leased))
        };
        let replicas = [replica(), replica()];
        let mut units = 0;
        for turn in 0..200 {
            let (path, cost) = match turn % 3 {
                0 => ("/images", 7),
                _ => ("/chat", 1),
            };
            if passes(&replicas[turn % 2], ask(path, "a")).await {
                units += cost;
            }
        }
        assert_eq!(units, 90, "{leased} leased");
    }
}

/// A closure states the cost of each request: here a header field does.
fn by_closure(rules: Rules) -> Rules {
    rules.cost_by(|head| head.field("x-cost")?.parse().ok())
}

fn costly(uri: &str, cost: &str) -> Request<Body> {
    let mut request = ask(uri, "a");
    let cost = cost.parse().expect("a value");
    request.headers_mut().insert("x-cost", cost);
    request
}

#[tokio::test(start_paused = true)]
async fn a_closure_states_the_cost_of_a_request() {
    let rules = Rules::new()
        .total(hourly(100))
        .default_route(hourly(50))
        .route("POST /images", Limits::new().cost(10))
        .route("POST /free", Limits::new())
        .route("POST /health", Limits::exempt())
        .clients(clients(
            Plan::new(hourly(90)).route("POST /images", hourly(40)),
        ));
    let throttle = throttle(by_closure(rules));
    // (path, what the closure says, what is left of the total)
    let table = [
        ("/chat", "", 99),
        ("/chat", "0", 98),
        ("/chat", "1", 97),
        ("/chat", "7", 90),
        // No less than the route's.
        ("/images", "3", 80),
        ("/images", "", 70),
        ("/images", "12", 58),
        // Over and over again, and for a path that may mean two routes.
        ("/chat", "7", 51),
        ("/im%61ges", "11", 40),
        ("/im%61ges", "11", 29),
        ("/health", "9", 29),
    ];
    for (uri, cost, after) in table {
        let decided = throttle.handle().preview(&costly(uri, cost));
        let answer = send(&throttle.layer(served()), costly(uri, cost)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{uri} {cost}");
        assert_eq!(left(&throttle), Some(after), "{uri} {cost}");
        let costs = |scope| decided.limits().find(|limit| limit.scope() == scope);
        for limit in [costs(Scope::Route), costs(Scope::ClientOnRoute)] {
            assert_eq!(
                limit.map_or(1, |limit| limit.cost()),
                1,
                "they count requests"
            );
        }
    }
    // The client has 90, of which 71 are used: too little, and then never.
    for (cost, waits) in [("20", true), ("91", false), ("18446744073709551615", false)] {
        let refused = send(&throttle.layer(served()), costly("/chat", cost)).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{cost}");
        assert_eq!(
            refused.headers().contains_key("retry-after"),
            waits,
            "{cost}"
        );
        assert_eq!(left(&throttle), Some(29), "a refusal costs nothing");
    }
    assert!(passes(&throttle, costly("/chat", "19")).await);
}

/// A client invents costs, of which no more are kept than there is room for.
#[tokio::test(start_paused = true)]
async fn any_number_of_costs_is_charged_to_the_unit() {
    const TOTAL: u64 = 1_200_000;
    let rules = Rules::new()
        .total(hourly(TOTAL))
        .default_route(hourly(9_999));
    let throttle = throttle(by_closure(rules).route("POST /chat", Limits::new()));
    let mut used = 0;
    for cost in (1..=1_500).chain([1, 700, 1_500]) {
        assert!(passes(&throttle, costly("/chat", &cost.to_string())).await);
        used += cost;
        assert_eq!(left(&throttle), Some(TOTAL - used));
    }
    let snapshot = throttle.handle().snapshot();
    let chat = snapshot.routes.iter().find(|it| &*it.route == "POST /chat");
    assert_eq!(chat.map(|it| it.admitted), Some(1_503), "each is counted");
}

#[tokio::test(start_paused = true)]
async fn costs_of_a_closure_are_charged_in_a_store_and_over_reloads() {
    let rules = |burst| by_closure(Rules::new().total(hourly(burst)).default_route(hourly(99)));
    let store = MemoryStore::new();
    let [one, other] = [(); 2].map(|()| build(throttling(rules(100)).store(store.clone())));
    assert!(passes(&one, costly("/a", "30")).await);
    assert!(passes(&other, costly("/b", "40")).await);
    let changes = one
        .handle()
        .reload(rules(110))
        .expect("rules that hold together");
    assert_eq!(changes.len(), 1, "{changes}");
    assert!(!passes(&one, costly("/a", "41")).await);
    assert!(passes(&one, costly("/a", "40")).await);
    let plain = Rules::new().total(hourly(110)).default_route(hourly(99));
    let changes = one
        .handle()
        .reload(plain)
        .expect("rules that hold together");
    assert!(changes.to_string().contains("cost_by"), "{changes}");
}

/// A closure may give an unread body a high cost. No body is unread before the peek layer has looked at it.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_read_yet_costs_no_more() {
    let rules = Rules::new()
        .total(hourly(10))
        .default_route(Limits::new().tokens(hourly(90_000)))
        .estimate(Estimate::from_body(BodyEstimate::new()).or(9_000))
        .cost_by(|head| {
            let facts = head.extensions().get::<BodyFacts>();
            facts
                .and_then(BodyFacts::facts)
                .map_or(Some(20), |facts| facts.choices())
        });
    let throttle = throttle(rules);
    let service = throttle.peek_layer().layer(throttle.layer(served()));
    for (body, status, after) in [("{\"n\":3}", 200, 7), ("no JSON", 429, 7), ("{}", 200, 6)] {
        let request = Request::post("/chat").body(Body::from(body));
        let answer = service.clone().oneshot(request.expect("a request")).await;
        assert_eq!(answer.expect("never fails").status(), status, "{body}");
        assert_eq!(left(&throttle), Some(after), "{body}");
    }
}
