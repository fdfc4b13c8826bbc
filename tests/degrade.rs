//! Second budgets: a request that the limits of a scope alone refuse is charged to another budget instead, all or none
//! (R2), and the handler is told.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock that it has paused"
)]

#[path = "support/mod.rs"]
mod support;

use std::{
    convert::Infallible,
    future::{Future, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use proptest::prelude::*;
use tokio::time::{Instant, advance};
use tokio_stream::StreamExt;
use tower::{Layer, Service, service_fn};
use tower_throttle::{
    Clients, Degrade, Degraded, InFlight, Limits, Models, Plan, Rate, Rules, ThrottleLayer,
    limit::Scope,
    store::{MemoryStore, OnOutage},
    usage::Estimate,
};

use support::{build, decision, hourly, request, send, throttle, throttling, values};

/// Answers with the limit that the handler was told of.
fn handler<B>()
-> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone
where
    B: 'static,
{
    service_fn(|request: Request<B>| {
        let mut response = Response::new(Body::empty());
        if let Some(degraded) = request.extensions().get::<Degraded>() {
            let limit = degraded.limit().parse().expect("a name");
            response.headers_mut().insert("x-told", limit);
        }
        ready(Ok(response))
    })
}

/// The end of one request, without the limits that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Full,
    Degraded(String),
    Refused(Vec<String>),
}

fn degraded(limit: &str) -> End {
    End::Degraded(limit.to_owned())
}

fn refused(limits: &[&str]) -> End {
    End::Refused(limits.iter().map(|limit| (*limit).to_owned()).collect())
}

async fn end_of(throttle: &ThrottleLayer, request: Request<Body>) -> End {
    let answer = send(&throttle.layer(handler()), request).await;
    let decision = decision(&answer);
    let told = decision.degraded().map(|it| it.limit().to_owned());
    let field = values(&answer, "throttle-degraded");
    let handler = values(&answer, "x-told");
    assert_eq!(field, told.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(
        field, handler,
        "the handler and the client are told the same"
    );
    match (decision.is_admitted(), told) {
        (true, None) => End::Full,
        (true, Some(limit)) => End::Degraded(limit),
        (false, told) => {
            assert_eq!(told, None);
            // A full server is told apart.
            let is_refusal = [429, 503].contains(&answer.status().as_u16());
            assert!(is_refusal, "{}", answer.status());
            let limits = decision.limits().filter(|limit| limit.is_refused());
            End::Refused(limits.map(|limit| limit.name().to_owned()).collect())
        }
    }
}

fn ask(uri: &str, client: &str) -> Request<Body> {
    let mut request = request("GET", uri);
    let headers = request.headers_mut();
    headers.insert("x-client", client.parse().expect("a value"));
    request
}

fn for_model(uri: &str, client: &str, model: &str) -> Request<Body> {
    let mut request = ask(uri, client);
    let model = model.parse().expect("a value");
    request.headers_mut().insert("x-model", model);
    request
}

async fn ends(throttle: &ThrottleLayer, count: usize, uri: &str) -> Vec<End> {
    let mut ends = Vec::new();
    for _ in 0..count {
        ends.push(end_of(throttle, ask(uri, "a")).await);
    }
    ends
}

/// The units that remain of a limit that all requests share.
fn left(throttle: &ThrottleLayer, name: &str) -> u64 {
    let snapshot = throttle.handle().snapshot();
    let mut limits = snapshot.limits.iter();
    let limit = limits.find(|limit| &*limit.name == name);
    limit.and_then(|limit| limit.remaining).expect("a balance")
}

fn two_budgets(first: u64, second: u64) -> Limits {
    Limits::from(hourly(first)).degrade(hourly(second))
}

fn clients(each: impl Into<Plan>) -> Clients {
    Clients::by_header("x-client").each(each)
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_by_the_second_budget_and_is_refused_by_the_first() {
    let rules = Rules::new()
        .total(hourly(100))
        .route("GET /", two_budgets(2, 3));
    let throttle = throttle(rules);
    assert_eq!(ends(&throttle, 2, "/").await, [End::Full, End::Full]);
    let by_second = degraded("get");
    assert_eq!(ends(&throttle, 3, "/").await, vec![by_second; 3]);
    let answer = send(&throttle.layer(handler()), ask("/", "a")).await;
    assert_eq!(
        decision(&answer).retry_after(),
        Some(Duration::from_secs(3_600))
    );
    assert_eq!(ends(&throttle, 2, "/").await, vec![refused(&["get"]); 2]);
    assert_eq!(left(&throttle, "total"), 95, "a refusal costs nothing");
    let snapshot = throttle.handle().snapshot();
    let [route, _] = &snapshot.routes[..] else {
        unreachable!("a route, and all others");
    };
    assert_eq!((route.admitted, route.degraded, route.refused), (5, 3, 3));
    let counts: Vec<_> = snapshot
        .limits
        .iter()
        .map(|limit| (&*limit.name, limit.admitted, limit.refused))
        .collect();
    assert_eq!(
        counts,
        [("total", 5, 0), ("get", 2, 3), ("get_degraded", 3, 0)]
    );
}

#[tokio::test(start_paused = true)]
async fn the_mark_tells_the_limit_its_scope_and_the_wait() {
    let limits = Limits::from(Rate::per_minute(1).burst(1).named("chat")).degrade(hourly(9));
    let throttle = throttle(Rules::new().route("GET /", limits));
    assert_eq!(ends(&throttle, 1, "/").await, [End::Full]);
    advance(Duration::from_secs(20)).await;
    let answer = send(&throttle.layer(handler()), ask("/", "a")).await;
    let mark = decision(&answer).degraded().expect("a mark");
    assert_eq!((mark.limit(), mark.scope()), ("chat", Scope::Route));
    assert_eq!(mark.retry_after(), Some(Duration::from_secs(40)));
    let limits: Vec<_> = decision(&answer)
        .limits()
        .map(|it| (it.name(), it.remaining()))
        .collect();
    assert_eq!(limits, [("get_degraded", 8)]);
    assert_eq!(
        values(&answer, "ratelimit"),
        [r#""get_degraded";r=8;t=28800"#]
    );
}

/// Fields tell it where rate-limit fields are sent, and nowhere else.
#[tokio::test(start_paused = true)]
async fn without_fields_the_handler_alone_is_told() {
    let rules = Rules::new().route("GET /", two_budgets(1, 1));
    let throttle = build(ThrottleLayer::builder(rules).rate_limit_headers(false));
    for told in [vec![], vec!["get"]] {
        let answer = send(&throttle.layer(handler()), ask("/", "a")).await;
        assert_eq!(values(&answer, "x-told"), told);
        assert_eq!(values(&answer, "throttle-degraded"), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn every_scope_may_have_one() {
    let models = || Models::by_header("x-model").otherwise(Limits::new());
    let one = || two_budgets(1, 1);
    let plan = |plan: Plan| Rules::new().clients(clients(plan));
    let table = [
        ("total", Rules::new().total(one())),
        ("default", Rules::new().default_route(one())),
        (
            "default",
            Rules::new()
                .default_route(one())
                .route("GET /", Limits::new()),
        ),
        (
            "get",
            Rules::new().default_route(hourly(9)).route("GET /", one()),
        ),
        (
            "get",
            Rules::new().default_route(one()).route("GET /", hourly(1)),
        ),
        ("client", plan(Plan::new(one()))),
        (
            "client_get",
            plan(Plan::new(hourly(9)).route("GET /", one())),
        ),
        (
            "pro",
            Rules::new().clients(clients(hourly(9)).plan("pro", one()).member("pro", "a")),
        ),
        (
            "pro",
            Rules::new().clients(clients(one()).plan("pro", hourly(1)).member("pro", "a")),
        ),
        (
            "model_small",
            Rules::new().models(models().model("small", one())),
        ),
        (
            "client_model_small",
            plan(Plan::new(Limits::new()).model("small", one()))
                .models(models().model("small", hourly(9))),
        ),
    ];
    for (limit, rules) in table {
        let throttle = throttle(rules);
        let expected = [End::Full, degraded(limit), refused(&[limit])];
        for end in expected {
            let request = for_model("/", "a", "small");
            assert_eq!(end_of(&throttle, request).await, end, "{limit}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_client_and_each_route_has_its_own() {
    let rules = Rules::new()
        .default_route(two_budgets(3, 9))
        .clients(clients(two_budgets(1, 1)));
    let throttle = throttle(rules);
    for client in ["a", "b"] {
        let route = &format!("/{client}");
        for end in [End::Full, degraded("client"), refused(&["client"])] {
            assert_eq!(end_of(&throttle, ask(route, client)).await, end);
        }
        let full = end_of(&throttle, ask(route, &format!("{client}1"))).await;
        assert_eq!(full, End::Full);
        let by_route = end_of(&throttle, ask(route, &format!("{client}2"))).await;
        assert_eq!(by_route, degraded("default"));
    }
}

/// A limit of another scope that refuses as well has the last word, and nothing is charged.
#[tokio::test(start_paused = true)]
async fn no_second_budget_stands_in_for_another_scope() {
    let rules = Rules::new()
        .total(Rate::per_hour(1).burst(2))
        .route("GET /", two_budgets(2, 3))
        .route("GET /other", hourly(9));
    let throttle = throttle(rules);
    ends(&throttle, 2, "/").await;
    let both = refused(&["get", "total"]);
    assert_eq!(ends(&throttle, 3, "/").await, vec![both; 3]);
    assert_eq!(left(&throttle, "get_degraded"), 3);
    assert_eq!(ends(&throttle, 1, "/other").await, [refused(&["total"])]);
    assert_eq!(left(&throttle, "get_other"), 9);
}

#[tokio::test(start_paused = true)]
async fn two_scopes_that_refuse_are_both_replaced() {
    let rules = Rules::new()
        .total(two_budgets(2, 2))
        .route("GET /", two_budgets(2, 1))
        .route("GET /other", hourly(9));
    let throttle = throttle(rules);
    ends(&throttle, 2, "/").await;
    assert_eq!(ends(&throttle, 1, "/").await, [degraded("get")]);
    let balances = |throttle: &_| {
        ["total", "total_degraded", "get", "get_degraded"].map(|name| left(throttle, name))
    };
    assert_eq!(balances(&throttle), [0, 1, 0, 0]);
    assert_eq!(ends(&throttle, 1, "/").await, [refused(&["get", "total"])]);
    assert_eq!(balances(&throttle), [0, 1, 0, 0], "a refusal costs nothing");
    assert_eq!(ends(&throttle, 1, "/other").await, [degraded("total")]);
    assert_eq!(ends(&throttle, 1, "/other").await, [refused(&["total"])]);
    assert_eq!(left(&throttle, "get_other"), 8);
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_is_told_and_a_long_one_degrades() {
    let limits = Limits::from(Rate::per_minute(1).burst(1))
        .degrade(Degrade::new(hourly(5)).after(Duration::from_secs(20)));
    let throttle = throttle(Rules::new().route("GET /", limits));
    assert_eq!(ends(&throttle, 2, "/").await, [End::Full, degraded("get")]);
    advance(Duration::from_secs(40)).await;
    assert_eq!(ends(&throttle, 1, "/").await, [refused(&["get"])], "20 s");
    assert_eq!(left(&throttle, "get_degraded"), 4);
    advance(Duration::from_secs(20)).await;
    assert_eq!(ends(&throttle, 1, "/").await, [End::Full]);
    advance(Duration::from_nanos(39_999_999_999)).await;
    assert_eq!(
        ends(&throttle, 1, "/").await,
        [degraded("get")],
        "more than 20 s"
    );
}

/// A request that can never pass by its first budget waits longer than any other.
#[tokio::test(start_paused = true)]
async fn a_request_above_a_burst_degrades_whatever_the_wait() {
    let first = Limits::new()
        .tokens(Rate::per_hour(10))
        .max_tokens_per_request(5)
        .degrade(Degrade::new(Limits::from(hourly(1))).after(Duration::from_secs(9_999_999)));
    let rules = Rules::new()
        .route("GET /", first)
        .estimate(Estimate::fixed(7));
    let throttle = throttle(rules);
    let name = "get_tokens";
    assert_eq!(
        ends(&throttle, 2, "/").await,
        [degraded(name), refused(&[name])]
    );
    assert_eq!(left(&throttle, name), 10);
}

/// R17 and R15: what a second budget reserves is settled, and its slots come free.
#[tokio::test(start_paused = true)]
async fn tokens_and_slots_of_a_second_budget_come_back() {
    let second = Limits::new().tokens(Rate::per_hour(100)).in_flight(1);
    let limits = Limits::from(hourly(1)).degrade(second);
    let rules = Rules::new()
        .route("GET /", limits)
        .estimate(Estimate::fixed(20));
    let throttle = throttle(rules);
    let settling = service_fn(|request: Request<Body>| async move {
        if let Some(usage) = request.extensions().get::<tower_throttle::Usage>() {
            usage.settle(30);
        }
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    assert_eq!(ends(&throttle, 1, "/").await, [End::Full]);
    let held = send(&throttle.layer(settling), ask("/", "a")).await;
    assert_eq!(left(&throttle, "get_degraded_in_flight"), 0);
    assert_eq!(ends(&throttle, 1, "/").await, [refused(&["get"])]);
    drop(held);
    assert_eq!(left(&throttle, "get_degraded_in_flight"), 1);
    assert_eq!(left(&throttle, "get_degraded_tokens"), 70);
    let answer = send(&throttle.layer(settling), ask("/", "a")).await;
    assert!(decision(&answer).degraded().is_some());
    drop(answer);
    let answer = send(&throttle.layer(handler()), ask("/", "a")).await;
    assert!(decision(&answer).degraded().is_some());
    let reserved = left(&throttle, "get_degraded_tokens");
    assert_eq!(reserved, 20, "less the estimate, while it is in flight");
}

#[tokio::test(start_paused = true)]
async fn a_cap_in_flight_degrades_and_its_slot_comes_back() {
    let limits = Limits::from(InFlight::new(1)).degrade(InFlight::new(1));
    let throttle = throttle(Rules::new().route("GET /", limits));
    let service = throttle.layer(handler());
    for _ in 0..3 {
        let first = send(&service, ask("/", "a")).await;
        let second = send(&service, ask("/", "a")).await;
        assert!(decision(&first).degraded().is_none());
        assert!(decision(&second).degraded().is_some());
        assert_eq!(ends(&throttle, 1, "/").await, [refused(&["get_in_flight"])]);
        drop(first);
        assert_eq!(ends(&throttle, 1, "/").await, [End::Full]);
        drop(second);
    }
}

/// R1 and R2, with many threads: exactly as many as both budgets hold.
#[test]
fn together_threads_are_admitted_by_no_more_than_both_budgets() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build();
    let runtime = runtime.expect("a runtime");
    let rules = Rules::new()
        .total(hourly(10_000))
        .route("GET /", Limits::from(hourly(300)).degrade(hourly(200)));
    let throttle = throttle(rules);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let throttle = throttle.clone();
            runtime.spawn(async move { ends(&throttle, 100, "/").await })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(runtime.block_on(task).expect("no panic"));
    }
    let count = |end: &End| all.iter().filter(|it| *it == end).count();
    assert_eq!(count(&End::Full), 300);
    assert_eq!(count(&degraded("get")), 200);
    assert_eq!(count(&refused(&["get"])), 300);
    assert_eq!(left(&throttle, "total"), 9_500);
}

/// R20: both balances are kept, and neither is taken for the other.
#[tokio::test(start_paused = true)]
async fn a_reload_keeps_both_balances() {
    let rules = |first, second| {
        Rules::new()
            .default_route(two_budgets(first, second))
            .route("GET /", two_budgets(first, second))
            .clients(clients(two_budgets(first, second)))
    };
    let throttle = throttle(rules(3, 4));
    for uri in ["/", "/undeclared"] {
        ends(&throttle, 4, uri).await;
    }
    let reload = |rules| throttle.handle().reload(rules).expect("good rules");
    assert!(reload(rules(3, 4)).is_empty());
    assert_eq!(left(&throttle, "get"), 0);
    assert_eq!(left(&throttle, "get_degraded"), 3);
    // Both sizes are the other's before.
    reload(rules(4, 3));
    assert_eq!(left(&throttle, "get"), 1);
    assert_eq!(left(&throttle, "get_degraded"), 2);
    reload(rules(3, 4));
    assert_eq!(left(&throttle, "get_degraded"), 3);
    let without = Rules::new().route("GET /", hourly(3));
    let changes = reload(without).to_string();
    assert!(changes.contains("limit `get_degraded`: "), "{changes}");
    assert_eq!(ends(&throttle, 1, "/").await, [refused(&["get"])]);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_gets_a_key_keeps_both_balances() {
    let default = || Rules::new().default_route(two_budgets(2, 3));
    let throttle = throttle(default());
    ends(&throttle, 3, "/chat").await;
    let with_key = default().route("GET /chat", Limits::new());
    throttle.handle().reload(with_key).expect("good rules");
    let ends = ends(&throttle, 3, "/chat").await;
    assert_eq!(
        ends,
        [
            degraded("default"),
            degraded("default"),
            refused(&["default"])
        ]
    );
}

/// A place that a reload closes stays closed, and has its balances when it is opened.
#[tokio::test(start_paused = true)]
async fn a_closed_default_closes_what_inherits_it() {
    let rules = |default: Limits| {
        Rules::new()
            .default_route(default)
            .route("GET /", Limits::new().degrade(hourly(2)))
    };
    let throttle = throttle(rules(hourly(1).into()));
    ends(&throttle, 2, "/").await;
    let reload = |rules| throttle.handle().reload(rules).expect("good rules");
    for closed in [Limits::closed(), hourly(0).into()] {
        reload(rules(closed));
        assert_eq!(ends(&throttle, 1, "/").await, [refused(&["get"])]);
    }
    reload(rules(hourly(1).into()));
    assert_eq!(
        ends(&throttle, 2, "/").await,
        [degraded("get"), refused(&["get"])]
    );
}

/// Replicas share both budgets to the unit.
#[tokio::test(start_paused = true)]
async fn a_store_keeps_both_budgets() {
    for lease in [0, 8] {
        let store = MemoryStore::new();
        let rules = || {
            Rules::new()
                .total(hourly(100))
                .route("GET /", two_budgets(7, 5))
                .clients(
                    Clients::by_header("x-client")
                        .secret("a secret of at least thirty-two bytes")
                        .each(two_budgets(9, 9)),
                )
        };
        let replica = || build(throttling(rules()).store(store.clone()).lease(lease));
        let replicas = [replica(), replica()];
        let mut all = Vec::new();
        for turn in 0..16 {
            all.push(end_of(&replicas[turn % 2], ask("/", "a")).await);
        }
        let count = |matches: fn(&End) -> bool| all.iter().filter(|it| matches(it)).count();
        let admitted = count(|end| !matches!(end, End::Refused(_)));
        if lease == 0 {
            assert_eq!(admitted, 12, "{all:?}");
            assert_eq!(count(|end| *end == End::Full), 7, "{all:?}");
        } else {
            assert!((10..=12).contains(&admitted), "{all:?}");
        }
        let last = all.last().expect("an end");
        assert!(matches!(last, End::Refused(limits) if limits[..] == ["get"] || limits.len() == 2));
    }
}

/// A store knows the limits of both budgets apart, also if they change their sizes.
#[tokio::test(start_paused = true)]
async fn a_reload_keeps_both_balances_in_a_store() {
    let rules = |first, second| Rules::new().route("GET /", two_budgets(first, second));
    let throttle = build(throttling(rules(2, 9)).store(MemoryStore::new()).lease(0));
    let all = ends(&throttle, 5, "/").await;
    assert_eq!(all[2..], vec![degraded("get"); 3]);
    let reload = |rules| throttle.handle().reload(rules).expect("good rules");
    reload(rules(9, 2));
    assert_eq!(ends(&throttle, 7, "/").await, vec![End::Full; 7]);
    assert_eq!(ends(&throttle, 1, "/").await, [refused(&["get"])]);
    reload(rules(9, 4));
    let all = ends(&throttle, 2, "/").await;
    assert_eq!(all, [degraded("get"), refused(&["get"])]);
}

/// While the store is down, both budgets hold in this process.
#[tokio::test(start_paused = true)]
async fn an_outage_keeps_second_budgets() {
    use tower_throttle::store::{Charge, Correction, Store, StoreError, StoreFuture, Taken};

    #[derive(Debug)]
    struct Down;

    impl Store for Down {
        fn take<'a>(&'a self, _: &'a [Charge]) -> StoreFuture<'a, Taken> {
            Box::pin(async { Err(StoreError::unavailable("down")) })
        }

        fn correct<'a>(&'a self, _: &'a [Correction]) -> StoreFuture<'a, ()> {
            Box::pin(async { Err(StoreError::unavailable("down")) })
        }
    }

    let rules = Rules::new().route("GET /", two_budgets(4, 2));
    let throttle = throttling(rules)
        .store(Down)
        .on_outage(OnOutage::Local { share: 2 });
    let throttle = build(throttle);
    let expected = [End::Full, End::Full, degraded("get"), refused(&["get"])];
    assert_eq!(ends(&throttle, 4, "/").await, expected);
}

/// R19: a shadow goes as if it were enforced alone, in the first budget and in the second.
#[tokio::test(start_paused = true)]
async fn shadows_go_on_beside_second_budgets() {
    let limits = Limits::from(hourly(2))
        .rate(Rate::per_hour(1).burst(3).named("trial").shadow())
        .degrade(Limits::from(hourly(3)).rate(Rate::per_hour(1).burst(1).named("strict").shadow()));
    let throttle = throttle(Rules::new().route("GET /", limits));
    let mut told = Vec::new();
    for _ in 0..6 {
        let answer = send(&throttle.layer(handler()), ask("/", "a")).await;
        let shadows: Vec<_> = decision(&answer)
            .shadow()
            .filter(|shadow| shadow.is_refused())
            .map(|shadow| shadow.name().to_owned())
            .collect();
        told.push(shadows.join(" "));
    }
    assert_eq!(told, ["", "", "", "trial strict", "trial strict", "trial"]);
    assert_eq!(
        [left(&throttle, "trial"), left(&throttle, "strict")],
        [0, 0]
    );
}

/// A request that may wait does, and only those that would be refused degrade.
#[tokio::test(start_paused = true)]
async fn a_request_that_may_wait_waits() {
    let limits = Limits::from(Rate::per_second(1).burst(1))
        .max_wait(Duration::from_secs(2))
        .degrade(hourly(5));
    let throttle = throttle(Rules::new().route("GET /", limits));
    let begin = Instant::now();
    let timed = |throttle: ThrottleLayer| async move {
        let end = end_of(&throttle, ask("/", "a")).await;
        (end, begin.elapsed().as_secs())
    };
    let tasks: Vec<_> = (0..5)
        .map(|_| tokio::spawn(timed(throttle.clone())))
        .collect();
    let mut ends = Vec::new();
    for task in tasks {
        ends.push(task.await.expect("no panic"));
    }
    let at = |end: End, second: u64| (end, second);
    let name = || degraded("get");
    assert_eq!(
        ends,
        [
            at(End::Full, 0),
            at(End::Full, 1),
            at(End::Full, 2),
            at(name(), 0),
            at(name(), 0),
        ]
    );
}

/// A slot that does not come free in time: the request has waited, and degrades at the end.
#[tokio::test(start_paused = true)]
async fn a_request_that_has_waited_in_vain_degrades() {
    let limits = Limits::from(InFlight::new(1))
        .max_wait(Duration::from_secs(2))
        .degrade(hourly(1));
    let throttle = throttle(Rules::new().route("GET /", limits));
    let service = throttle.layer(handler());
    let held = send(&service, ask("/", "a")).await;
    let begin = Instant::now();
    assert_eq!(ends(&throttle, 1, "/").await, [degraded("get_in_flight")]);
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
    assert_eq!(ends(&throttle, 1, "/").await, [refused(&["get_in_flight"])]);
    drop(held);
    assert_eq!(ends(&throttle, 1, "/").await, [End::Full]);
}

/// Nobody overtakes those who wait for another scope.
#[tokio::test(start_paused = true)]
async fn a_second_budget_overtakes_nobody_in_line() {
    let rules = Rules::new()
        .total(Limits::from(InFlight::new(2)).max_wait(Duration::from_secs(9)))
        .route("GET /", two_budgets(1, 5))
        .route("GET /other", hourly(9));
    let throttle = throttle(rules);
    let service = throttle.layer(handler());
    let held = [
        send(&service, ask("/", "a")).await,
        send(&service, ask("/other", "a")).await,
    ];
    let mut waiting = Box::pin(ends(&throttle, 1, "/other"));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    // There is room for both, and it has not been polled since.
    drop(held);
    assert_eq!(ends(&throttle, 1, "/").await, [refused(&["get"])]);
    assert_eq!(left(&throttle, "get_degraded"), 5);
    assert_eq!(waiting.await, [End::Full]);
    assert_eq!(ends(&throttle, 1, "/").await, [degraded("get")]);
}

/// A request that has waited in vain, behind somebody who waits for another scope.
#[tokio::test(start_paused = true)]
async fn a_request_whose_time_is_over_overtakes_nobody() {
    let second = |wait: u64| Duration::from_secs(wait);
    let rules = Rules::new()
        .total(Limits::from(InFlight::new(2)).max_wait(second(9)))
        .route(
            "GET /",
            Limits::from(InFlight::new(1))
                .max_wait(second(1))
                .degrade(hourly(5)),
        );
    let throttle = throttle(rules);
    let service = throttle.layer(handler());
    let held = send(&service, ask("/", "a")).await;
    let other = send(&service, ask("/other", "a")).await;
    let mut context = Context::from_waker(Waker::noop());
    let mut before = Box::pin(ends(&throttle, 1, "/other"));
    assert!(before.as_mut().poll(&mut context).is_pending());
    let mut behind = Box::pin(ends(&throttle, 1, "/"));
    assert!(behind.as_mut().poll(&mut context).is_pending());
    advance(second(1)).await;
    drop(other);
    assert_eq!(behind.await, [refused(&["get_in_flight"])]);
    assert_eq!(left(&throttle, "get_degraded"), 5);
    assert_eq!(before.await, [End::Full]);
    drop(held);
}

/// A request that may mean two routes is charged on both, and degrades only where both may.
#[tokio::test(start_paused = true)]
async fn a_path_with_two_readings_needs_both() {
    let rules = |second: Limits| {
        Rules::new()
            .route("GET /a", two_budgets(1, 2))
            .route("GET /{rest+}", second)
    };
    let one = throttle(rules(hourly(1).into()));
    let both = throttle(rules(two_budgets(1, 2)));
    for throttle in [&one, &both] {
        assert_eq!(ends(throttle, 1, "//a").await, [End::Full]);
    }
    assert_eq!(
        ends(&one, 1, "//a").await,
        [refused(&["get___rest", "get_a"])]
    );
    assert_eq!(ends(&both, 1, "//a").await, [degraded("get___rest")]);
    assert_eq!(left(&one, "get_a_degraded"), 2);
    let balances = ["get_a_degraded", "get___rest_degraded"].map(|name| left(&both, name));
    assert_eq!(balances, [1, 1]);
}

/// Costs weigh the same in both budgets.
#[tokio::test(start_paused = true)]
async fn a_second_budget_of_a_client_counts_costs() {
    let rules = Rules::new()
        .total(two_budgets(20, 30))
        .default_route(Limits::new().cost(10));
    let throttle = throttle(rules);
    ends(&throttle, 2, "/").await;
    assert_eq!(ends(&throttle, 1, "/").await, [degraded("total")]);
    assert_eq!(left(&throttle, "total_degraded"), 20);
    let above = Rules::new()
        .total(two_budgets(20, 9))
        .default_route(Limits::new().cost(10));
    let error = ThrottleLayer::new(above).expect_err("a cost above a burst");
    assert!(error.to_string().contains("total_degraded"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn previews_tell_what_would_be_charged() {
    let rules = Rules::new()
        .total(hourly(100))
        .route("GET /", two_budgets(1, 2));
    let throttle = throttle(rules);
    for end in [
        End::Full,
        degraded("get"),
        degraded("get"),
        refused(&["get"]),
    ] {
        let (head, ()) = Request::get("/").body(()).expect("a request").into_parts();
        let preview = throttle.handle().preview(&Request::from_parts(head, ()));
        let foreseen = match (preview.is_admitted(), preview.degraded()) {
            (true, None) => End::Full,
            (true, Some(mark)) => degraded(mark.limit()),
            (false, _) => refused(&["get"]),
        };
        assert_eq!(foreseen, end);
        let remaining: Vec<_> = preview
            .limits()
            .map(|it| (it.name().to_owned(), it.remaining()))
            .collect();
        let answer = send(&throttle.layer(handler()), ask("/", "a")).await;
        let decided = decision(&answer).limits();
        let decided: Vec<_> = decided
            .map(|it| (it.name().to_owned(), it.remaining()))
            .collect();
        assert_eq!(remaining, decided);
    }
}

/// A request that would degrade is not refused before its body is read, and one that both budgets refuse is.
#[tokio::test(start_paused = true)]
async fn the_peek_layer_lets_pass_what_would_degrade() {
    let rules = Rules::new()
        .route("GET /", two_budgets(1, 1))
        .models(Models::from_body().otherwise(hourly(9)));
    let throttle = throttle(rules);
    let peek = throttle.peek_layer();
    let service = peek.layer(throttle.layer(handler()));
    let mut ends = Vec::new();
    for _ in 0..3 {
        let is_read = Arc::new(AtomicBool::new(false));
        let reads = Arc::clone(&is_read);
        let frames = tokio_stream::once(()).map(move |()| {
            reads.store(true, Ordering::Relaxed);
            Ok::<_, Infallible>("{}")
        });
        let request = ask("/", "a").map(|_| Body::from_stream(frames));
        let answer = send(&service, request).await;
        let is_degraded = answer.headers().contains_key("throttle-degraded");
        let is_read = is_read.load(Ordering::Relaxed);
        ends.push((answer.status().as_u16(), is_degraded, is_read));
    }
    let expected = [(200, false, true), (200, true, true), (429, false, false)];
    assert_eq!(ends, expected);
}

#[test]
fn a_second_budget_that_is_none_is_an_error() {
    let rate = || hourly(2);
    let table: [(Limits, &str); 9] = [
        (Limits::unlimited().degrade(rate()), "refuses nothing"),
        (Limits::closed().degrade(rate()), "refuses everything"),
        (
            Limits::from(hourly(0)).degrade(rate()),
            "refuses everything",
        ),
        (
            Limits::from(rate()).degrade(Limits::new()),
            "without an enforced limit",
        ),
        (
            Limits::from(rate()).degrade(rate().shadow()),
            "without an enforced limit",
        ),
        (Limits::from(rate()).degrade(hourly(0)), "open and limited"),
        (
            Limits::from(rate()).degrade(two_budgets(1, 1)),
            "has no second budget",
        ),
        (
            Limits::from(rate()).degrade(Limits::from(rate()).cost(2)),
            "costs the same",
        ),
        (
            Limits::from(rate()).degrade(Limits::from(rate()).max_wait(Duration::from_secs(1))),
            "waits",
        ),
    ];
    for (limits, fault) in table {
        let rules = [
            (
                "route `GET /`: `degrade`: ",
                Rules::new().route("GET /", limits.clone()),
            ),
            (
                "plan `pro`: `degrade`: ",
                Rules::new().clients(clients(hourly(1)).plan("pro", limits)),
            ),
        ];
        for (place, rules) in rules {
            let error = ThrottleLayer::new(rules).expect_err(fault).to_string();
            assert!(error.starts_with(place) && error.contains(fault), "{error}");
        }
    }
    let exempt = Rules::new().route("GET /", Limits::exempt().degrade(rate()));
    let error = ThrottleLayer::new(exempt).expect_err("exempt").to_string();
    assert!(error.starts_with("route `GET /`: "), "{error}");
}

/// The balances of the property's rules, as they should be: what is left of each limit of one scope.
#[derive(Debug, Clone, Copy)]
struct Scoped {
    first: u64,
    /// `None`: there is no second budget.
    second: Option<u64>,
}

impl Scoped {
    fn limits(self) -> Limits {
        let first = Limits::from(hourly(self.first));
        match self.second {
            Some(second) => first.degrade(hourly(second)),
            None => first,
        }
    }

    /// Charges the scopes of a request, all or none, by the first budget of each or its second. `Some(true)` where a
    /// second was charged.
    fn charge(scopes: &mut [Self; 3], request: [bool; 3]) -> Option<bool> {
        let concerned = || (0..3).filter(|scope| request[*scope]);
        let mut is_degraded = false;
        for scope in concerned() {
            let scope = &scopes[scope];
            is_degraded |= scope.first == 0;
            if scope.first == 0 && scope.second.unwrap_or(0) == 0 {
                return None;
            }
        }
        for scope in concerned() {
            let scope = &mut scopes[scope];
            match &mut scope.second {
                Some(second) if scope.first == 0 => *second -= 1,
                _ => scope.first -= 1,
            }
        }
        Some(is_degraded)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// R2 against a simple model: the total, a route and another route, each with or without a second budget.
    #[test]
    fn charges_are_those_of_a_simple_model(
        scopes in prop::array::uniform3((1..5_u64, prop::option::of(1..4_u64))),
        requests in prop::collection::vec(any::<bool>(), 1..30),
    ) {
        let mut scopes = scopes.map(|(first, second)| Scoped { first, second });
        let [total, one, other] = scopes.map(Scoped::limits);
        let rules = Rules::new().total(total).route("GET /one", one).route("GET /other", other);
        let throttle = throttle(rules);
        let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).enable_time().build();
        runtime.expect("a runtime").block_on(async {
            for is_one in requests {
                let uri = if is_one { "/one" } else { "/other" };
                let expected = Scoped::charge(&mut scopes, [true, is_one, !is_one]);
                let end = end_of(&throttle, ask(uri, "a")).await;
                let actual = match end {
                    End::Full => Some(false),
                    End::Degraded(_) => Some(true),
                    End::Refused(_) => None,
                };
                prop_assert_eq!(actual, expected);
                for (name, scope) in ["total", "get_one", "get_other"].iter().zip(&scopes) {
                    prop_assert_eq!(left(&throttle, name), scope.first);
                    if let Some(second) = scope.second {
                        prop_assert_eq!(left(&throttle, &format!("{name}_degraded")), second);
                    }
                }
            }
            Ok(())
        })?;
    }
}

/// Documents have it, and write it back.
#[cfg(feature = "config")]
#[test]
fn documents_have_second_budgets() {
    let text = r#"
        [default_route]
        rate = "600/minute"
        burst = 20
        degrade = { rate = "60/minute", burst = 5, quota = "100/day", after = "2s" }

        [routes]
        "GET /" = { rate = 5, degrade = 1 }
    "#;
    let rules = Rules::from_toml(text).expect("good rules");
    let written = rules.to_toml().expect("rules without closures");
    let again = Rules::from_toml(&written).expect("good rules");
    let expected = Rules::new()
        .default_route(
            Limits::from(Rate::per_minute(600).burst(20)).degrade(
                Degrade::new(
                    Limits::from(Rate::per_minute(60).burst(5))
                        .quota(tower_throttle::Quota::per_day(100)),
                )
                .after(Duration::from_secs(2)),
            ),
        )
        .route(
            "GET /",
            Limits::from(Rate::per_second(5)).degrade(Rate::per_second(1)),
        );
    let debug = |rules: &Rules| format!("{rules:?}");
    assert_eq!(debug(&rules), debug(&expected));
    assert_eq!(debug(&again), debug(&expected));
    for setting in [
        "max_wait = \"1s\"",
        "access = \"closed\"",
        "degrade = 1",
        "cost = 2",
    ] {
        let text = format!("[default_route]\nrate = 1\ndegrade = {{ rate = 1, {setting} }}\n");
        let error = Rules::from_toml(&text).expect_err(setting).to_string();
        assert!(error.contains("default_route.degrade."), "{error}");
    }
}
