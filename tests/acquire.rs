//! Permits: work that is no request is decided on and charged as a request, and holds what it has taken until the
//! permit is dropped.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock that it has paused"
)]

mod support;
#[path = "support/told.rs"]
mod told;

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use axum::body::Body;
use http::{Request, StatusCode};
use tokio::time::{Instant, advance, timeout};
use told::{Does, Told};
use tower::Layer;
use tower_throttle::{
    Clients, Denial, Handle, Limits, Models, Permit, Price, Prices, Rate, Rules, Spend,
    ThrottleLayer,
    facts::BodyFacts,
    response::Dialect,
    store::OnOutage,
    usage::{BodyEstimate, Estimate},
};

use support::{build, decision, hourly, served, throttle, throttling};

const SECOND: Duration = Duration::from_secs(1);

fn head(method: &str, path: &str, client: &str) -> Request<()> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("x-api-key", client).header("x-tokens", 10);
    request.body(()).expect("a request")
}

fn job() -> Request<()> {
    head("POST", "/job", "one")
}

/// Returns the counts and balances of all limits and routes.
fn state(handle: &Handle) -> String {
    format!("{:?}", handle.snapshot())
}

/// Returns the names of the limits that refuse, and the wait.
fn told(denial: &Denial) -> (Vec<String>, Option<Duration>) {
    let names = denial.violated().map(|limit| limit.name().to_owned());
    (names.collect(), denial.retry_after())
}

/// An account may be there for refunds alone, in which nothing is to be counted.
#[test]
fn usage_is_given_where_tokens_or_money_are_limited() {
    let price = Price::new().input("1").output("1");
    let rules = Rules::new()
        .route(
            "POST /refunds",
            Limits::new().rate(hourly(9)).refund_failures(true),
        )
        .route("POST /tokens", Limits::new().tokens(hourly(90)))
        .route("POST /money", Limits::new().spend(Spend::per_day("1.00")))
        .prices(Prices::new().otherwise(price));
    let handle = throttle(rules).handle();
    for (path, is_given) in [("/refunds", false), ("/tokens", true), ("/money", true)] {
        let permit = handle.try_acquire(&head("POST", path, "one"));
        let permit = permit.expect("there is room");
        assert_eq!(permit.usage().is_some(), is_given, "{path}");
    }
}

fn charges() -> Rules {
    let chat = Limits::new()
        .rate(Rate::per_second(2).burst(3))
        .rate(Rate::per_second(1).burst(2).named("strict").shadow())
        .tokens(Rate::per_minute(60).burst(50))
        .in_flight(2);
    Rules::new()
        .total(Rate::per_second(5).burst(12))
        .route("POST /chat", chat)
        .route("POST /plain", Rate::per_second(1).burst(2))
        .route("POST /slots", Limits::new().in_flight(1))
        .route(
            "POST /line",
            Limits::from(Rate::per_second(1)).max_wait(SECOND),
        )
        .route("POST /dear", Limits::new().cost(2))
        .route("POST /kept", Limits::new().in_flight(1).keep(true))
        .route("GET /closed", Limits::closed())
        .route("GET /free", Limits::exempt())
        .default_route(Rate::per_second(1).burst(2))
        .estimate(Estimate::by_header("x-tokens"))
        .clients(Clients::by_header("x-api-key").each(hourly(14)))
}

/// Two throttles by the same rules, one asked by requests and the other by permits: the same decisions, waits, counts
/// and balances, whatever is held meanwhile.
#[tokio::test(start_paused = true)]
async fn a_permit_is_decided_on_and_charged_as_a_request() {
    for (settings, header_fields) in [("as they are", true), ("without fields", false)] {
        let layer = || {
            let builder = throttling(charges()).rejection(Dialect::OpenAi);
            build(builder.rate_limit_headers(header_fields))
        };
        let (requests, permits) = (layer(), layer());
        let (by_request, by_permit) = (requests.handle(), permits.handle());
        let service = requests.layer(served::<Body>());
        let paths = [
            ("POST", "/chat"),
            ("POST", "/plain"),
            ("POST", "/slots"),
            ("POST", "/dear"),
            ("POST", "/kept"),
            ("GET", "/closed"),
            ("GET", "/free"),
            ("GET", "/undeclared"),
            ("POST", "/chat/"),
        ];
        let mut held = Vec::new();
        let mut refused = 0;
        for round in 0_u32..120 {
            let (method, path) = paths[round as usize * 7 % paths.len()];
            let client = if round % 5 == 0 { "two" } else { "one" };
            let head = head(method, path, client);
            let permit = by_permit.try_acquire(&head);
            let answer = support::send(&service, head.map(|()| Body::empty())).await;
            let decision = decision(&answer);
            assert_eq!(
                permit.is_ok(),
                decision.is_admitted(),
                "{settings} {round} {path}"
            );
            if let Err(denial) = &permit {
                refused += 1;
                let limits = decision.limits().filter(|limit| limit.is_refused());
                let names: Vec<_> = limits.map(|limit| limit.name().to_owned()).collect();
                assert_eq!(
                    told(denial),
                    (names, decision.retry_after()),
                    "{round} {path}"
                );
                assert_eq!(denial.route(), decision.route());
            }
            held.push((permit.ok(), answer));
            if held.len() == 3 {
                let (permit, answer) = held.swap_remove(1);
                drop(permit);
                support::bytes(answer).await;
            }
            assert_eq!(
                state(&by_permit),
                state(&by_request),
                "{settings} {round} {path}"
            );
            advance(Duration::from_millis(u64::from(round % 4) * 130)).await;
        }
        assert!((10..100).contains(&refused), "{refused}");
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_an_error_that_names_its_limits() {
    let rules = Rules::new()
        .total(Rate::per_minute(60).burst(1))
        .route("POST /job", Rate::per_minute(30).burst(1))
        .route("GET /closed", Limits::closed());
    let layer = throttle(rules.clone());
    let handle = layer.handle();
    let refused = |head: &Request<()>| {
        let denial = handle.try_acquire(head).expect_err("it is refused");
        let error: Box<dyn std::error::Error> = denial;
        error.to_string()
    };
    drop(handle.try_acquire(&job()).expect("the first"));
    let expected = "refused by `post_job`, `total`; retry after 2s";
    assert_eq!(refused(&job()), expected);
    let closed = refused(&head("GET", "/closed", "one"));
    assert!(closed.ends_with("; it can never pass"), "{closed}");
    handle.close();
    let expected = "refused because the throttle is closed; retry after 1s";
    assert_eq!(refused(&job()), expected);
    let store = Told::new();
    let shared = shared(&store, rules, 5).handle();
    let denial = shared.try_acquire(&job()).expect_err("no lease");
    let expected = "not decided, since no lease has room; retry after 1ms";
    assert_eq!(denial.to_string(), expected);
    store.does(Does::Fails);
    let denial = shared.acquire(&job()).await.expect_err("it is down");
    let expected = "refused because the store could not decide; retry after ";
    assert!(denial.to_string().starts_with(expected), "{denial}");
}

/// Returns the slots that are held and the tokens that are charged, of a hundred.
fn held(handle: &Handle) -> (u64, u64) {
    let limits = handle.snapshot().limits;
    let in_flight = limits.iter().find_map(|limit| limit.in_flight);
    let left = limits.iter().find(|limit| limit.burst == 100);
    let left = left.and_then(|limit| limit.remaining);
    (in_flight.expect("a cap"), 100 - left.expect("a balance"))
}

#[tokio::test(start_paused = true)]
async fn a_permit_holds_its_slot_and_its_account_until_it_is_dropped() {
    // (added, settled, charged in the end)
    let table = [
        (0, None, 10),
        (4, None, 10),
        (30, None, 30),
        (30, Some(7), 7),
        (0, Some(60), 60),
    ];
    for (added, settled, charged) in table {
        let limits = Limits::new().in_flight(1).tokens(hourly(100));
        let rules = Rules::new().route("POST /job", limits);
        let rules = rules.estimate(Estimate::by_header("x-tokens"));
        let layer = build(throttling(rules).track_in_flight(true));
        let handle = layer.handle();
        let permit = handle.try_acquire(&job()).expect("a permit");
        assert_eq!((held(&handle), handle.in_flight()), ((1, 10), Some(1)));
        let denial = handle.try_acquire(&job()).expect_err("one at a time");
        assert_eq!(told(&denial).0, ["post_job_in_flight"]);
        let usage = permit.usage().expect("tokens").clone();
        assert!(added == 0 || usage.add(added));
        assert!(settled.is_none_or(|total| usage.settle(total)));
        drop(permit);
        assert_eq!((held(&handle), handle.in_flight()), ((0, charged), Some(0)));
        assert!(!usage.add(1), "the account has ended");
    }
    let layer = throttle(Rules::new().route("POST /job", hourly(1)));
    let permit = layer.handle().try_acquire(&job()).expect("a permit");
    assert!(permit.usage().is_none(), "no tokens are limited");
}

/// A permit moves to a task, and comes back however that ends.
#[tokio::test(start_paused = true)]
async fn a_permit_ends_with_its_task() {
    let rules = Rules::new().route("POST /job", Limits::new().in_flight(1));
    let layer = throttle(rules.clone());
    let handle = layer.handle();
    for run in 0..1_000 {
        let permit = handle.try_acquire(&job()).expect("a free slot");
        let task = tokio::spawn(async move {
            let _permit = permit;
            if run % 3 == 0 {
                // Without the report of the hook.
                std::panic::resume_unwind(Box::new("a broken task"));
            }
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        if run % 2 == 0 {
            handle
                .reload(rules.clone())
                .expect("rules that hold together");
        }
        task.abort();
        assert!(task.await.is_err());
    }
    assert!(handle.try_acquire(&job()).is_ok());
}

/// Polls a future once.
async fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[tokio::test(start_paused = true)]
async fn who_waits_stands_in_line_and_who_does_not_overtakes_nobody() {
    let limits = Limits::new().in_flight(1).max_wait(10 * SECOND);
    let layer = throttle(Rules::new().route("POST /job", limits));
    let handle = layer.handle();
    let service = layer.layer(served::<Body>());
    let first = handle.acquire(&job()).await.expect("a free slot");
    let denial = handle.try_acquire(&job()).expect_err("it does not wait");
    assert_eq!(told(&denial).0, ["post_job_in_flight"]);
    let waiting = || handle.snapshot().limits[0].waiting;
    assert_eq!(waiting(), 0, "it has not stood in line");
    let acquire = || {
        let handle = handle.clone();
        tokio::spawn(async move { handle.acquire(&job()).await })
    };
    let second = acquire();
    tokio::task::yield_now().await;
    let request = job().map(|()| Body::empty());
    let third = tokio::spawn({
        let service = service.clone();
        async move { support::send(&service, request).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(waiting(), 2, "a permit and a request");
    // A look, and then it goes: it has left no trace.
    let is_ready = poll_once(handle.acquire(&job())).await.is_ready();
    assert!(!is_ready && waiting() == 2);
    drop(first);
    let denial = handle.try_acquire(&job()).expect_err("others were first");
    assert_eq!(told(&denial).0, ["post_job_in_flight"]);
    let second = second.await.expect("no panic").expect("its turn");
    assert!(!third.is_finished());
    drop(second);
    assert_eq!(third.await.expect("no panic").status(), StatusCode::OK);
    // Nobody waits for longer than it may.
    let held = handle.try_acquire(&job()).expect("a free slot");
    let start = Instant::now();
    let denial = handle.acquire(&job()).await.expect_err("its time is over");
    assert_eq!(told(&denial).0, ["post_job_in_flight"]);
    let waited = start.elapsed();
    assert!(waited >= 10 * SECOND && waited < 11 * SECOND, "{waited:?}");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_closed_throttle_gives_no_permits_and_drains_those_given() {
    let limits = Limits::new().in_flight(1).max_wait(10 * SECOND);
    let rules = Rules::new()
        .route("POST /job", limits)
        .route("GET /free", Limits::exempt());
    let layer = build(throttling(rules).track_in_flight(true));
    let handle = layer.handle();
    let permit = handle.try_acquire(&job()).expect("a free slot");
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.acquire(&job()).await }
    });
    tokio::task::yield_now().await;
    handle.close();
    let is_shut_out = |result: Result<Permit, Box<Denial>>| {
        let denial = result.expect_err("it is closed");
        denial.is_shutting_down() && denial.retry_after() == Some(SECOND)
    };
    assert!(is_shut_out(waiting.await.expect("no panic")), "in line");
    assert!(is_shut_out(handle.try_acquire(&job())));
    assert!(is_shut_out(handle.acquire(&job()).await));
    assert!(handle.try_acquire(&head("GET", "/free", "one")).is_ok());
    assert!(
        timeout(SECOND, handle.drained()).await.is_err(),
        "one is held"
    );
    drop(permit);
    assert!(timeout(SECOND, handle.drained()).await.is_ok());
}

/// A refusal of requests is a copy of an answer, and one over gRPC is another: a permit is told the denial in any case.
#[tokio::test(start_paused = true)]
async fn whatever_requests_are_answered_a_permit_gets_the_denial() {
    let rules = || Rules::new().route("POST /job", hourly(1));
    let layers = [
        throttle(rules()),
        throttle(rules().rejection("POST /job", Dialect::Anthropic)),
        build(throttling(rules()).stagger_retry_after(true)),
        build(throttling(rules()).decision(tower_throttle::decision::DecisionIn::Nowhere)),
    ];
    for layer in layers {
        let (handle, service) = (layer.handle(), layer.layer(served::<Body>()));
        let grpc = || {
            let mut head = job();
            let grpc = "application/grpc".parse().expect("a value");
            head.headers_mut().insert("content-type", grpc);
            head
        };
        let mut expected = StatusCode::OK;
        for _ in 0..4 {
            let answer = support::send(&service, job().map(|()| Body::empty())).await;
            assert_eq!(answer.status(), expected);
            expected = StatusCode::TOO_MANY_REQUESTS;
        }
        for head in [job(), grpc()] {
            let denial = handle.try_acquire(&head).expect_err("one an hour");
            assert_eq!(told(&denial).0, ["post_job"]);
            let denial = handle.acquire(&head).await.expect_err("one an hour");
            assert_eq!(told(&denial).0, ["post_job"]);
        }
        assert_eq!(handle.snapshot().routes[0].refused, 7);
    }
}

#[tokio::test(start_paused = true)]
async fn the_facts_of_a_body_count_as_those_of_a_request() {
    let models = Models::from_body()
        .model("small", Limits::new().tokens(hourly(1_000)))
        .model("large", Limits::closed());
    let estimate = Estimate::from_body(BodyEstimate::new()).or(500);
    let layer = throttle(Rules::new().models(models).estimate(estimate));
    let handle = layer.handle();
    let with = |body: &str| {
        let mut head = job();
        head.extensions_mut().insert(BodyFacts::of(body.as_bytes()));
        head
    };
    let small = handle.try_acquire(&with(r#"{"model":"small","max_tokens":20,"prompt":""}"#));
    let reserved = small.map(|permit| permit.usage().map(tower_throttle::Usage::reserved));
    let reserved = reserved.expect("a permit").expect("tokens");
    assert!((20..40).contains(&reserved), "{reserved}");
    let large = handle.try_acquire(&with(r#"{"model":"large"}"#));
    assert_eq!(large.expect_err("closed").model(), Some("large"));
    // It may be for any of them.
    let unread = handle.try_acquire(&job()).expect_err("closed");
    assert_eq!(unread.model(), Some("unread"));
}

fn shared(store: &Told, rules: Rules, lease: u64) -> ThrottleLayer {
    let builder = throttling(rules).lease(lease).on_outage(OnOutage::Refuse);
    build(builder.store(store.clone()))
}

#[tokio::test(start_paused = true)]
async fn over_a_store_a_try_spends_leases_alone() {
    let store = Told::new();
    let rules = Rules::new().total(Rate::per_second(40).burst(40));
    let layer = shared(&store, rules.clone(), 5);
    let handle = layer.handle();
    let counts = || {
        let routes = handle.snapshot().routes;
        let counts = routes.iter().map(|route| (route.admitted, route.refused));
        counts.fold((0, 0), |sum, (admitted, refused)| {
            (sum.0 + admitted, sum.1 + refused)
        })
    };
    for round in 0..3 {
        let denial = handle.try_acquire(&job()).expect_err("no lease");
        assert!(denial.needs_store() && !denial.is_unavailable(), "{round}");
        assert_eq!(told(&denial), (Vec::new(), Some(Duration::from_millis(1))));
        assert_eq!(counts(), (5 * round, 0), "nothing is decided");
        assert_eq!(store.calls(), 0, "no store is asked");
        assert!(handle.acquire(&job()).await.is_ok());
        assert_eq!(store.calls(), 1);
        for _ in 0..4 {
            assert!(handle.try_acquire(&job()).is_ok(), "{round}: leased");
        }
        assert_eq!(store.calls(), 0);
    }
    // Without leases every try needs the store, until that is known to refuse.
    let alone = shared(&store, rules, 0).handle();
    let mut admitted = 15;
    while alone.acquire(&job()).await.is_ok() {
        admitted += 1;
        if admitted < 40 {
            let denial = alone.try_acquire(&job()).expect_err("no lease");
            assert!(denial.needs_store(), "{admitted}");
        }
    }
    assert_eq!(admitted, 40);
    store.calls();
    let denial = alone.try_acquire(&job()).expect_err("it is empty");
    assert_eq!(told(&denial), (vec!["total".to_owned()], Some(SECOND / 40)));
    assert_eq!(store.calls(), 0);
}

/// Caps are held here, and refuse without the store. So does a line, which nobody overtakes.
#[tokio::test(start_paused = true)]
async fn over_a_store_a_try_is_refused_by_what_is_known_here() {
    let store = Told::new();
    for patient in [false, true] {
        let limits = Limits::new()
            .in_flight(1)
            .rate(Rate::per_second(40).burst(40));
        let limits = match patient {
            true => limits.max_wait(10 * SECOND),
            false => limits,
        };
        let rules = Rules::new().route("POST /job", limits);
        let handle = shared(&store, rules, 5).handle();
        let permit = handle.acquire(&job()).await.expect("a permit");
        let refused = |by: &str| {
            let denial = handle.try_acquire(&job()).expect_err(by);
            assert_eq!(told(&denial).0, [by], "{patient}");
        };
        store.calls();
        refused("post_job_in_flight");
        assert_eq!(store.calls(), 0);
        if patient {
            let waiting = tokio::spawn({
                let handle = handle.clone();
                async move { handle.acquire(&job()).await }
            });
            tokio::task::yield_now().await;
            drop(permit);
            // Another was first, in the one line of the route.
            refused("post_job");
            assert!(waiting.await.expect("no panic").is_ok());
        } else {
            drop(permit);
        }
        assert!(handle.try_acquire(&job()).is_ok(), "leased");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_decided_as_for_requests() {
    for on_outage in [
        OnOutage::Refuse,
        OnOutage::Admit,
        OnOutage::Local { share: 2 },
    ] {
        let store = Told::new();
        let rules = Rules::new().total(hourly(4));
        let builder = throttling(rules).on_outage(on_outage);
        let handle = build(builder.store(store.clone())).handle();
        store.does(Does::Fails);
        let by_acquire = handle.acquire(&job()).await;
        let mut admitted = u64::from(by_acquire.is_ok());
        for _ in 0..5 {
            match handle.try_acquire(&job()) {
                Ok(_) => admitted += 1,
                Err(denial) => {
                    assert!(!denial.needs_store(), "it is down");
                    assert_eq!(denial.is_unavailable(), on_outage == OnOutage::Refuse);
                }
            }
        }
        let expected = match on_outage {
            OnOutage::Refuse => 0,
            OnOutage::Admit => 6,
            _ => 2,
        };
        assert_eq!(admitted, expected, "{on_outage:?}");
    }
}

/// A future of a permit that is dropped while the store is asked gives back what the store takes.
#[tokio::test(start_paused = true)]
async fn a_permit_that_nobody_waits_for_leaves_no_charge() {
    let store = Told::new();
    let handle = shared(&store, Rules::new().total(hourly(1)), 0).handle();
    store.does(Does::Late(Duration::from_millis(5)));
    assert!(poll_once(handle.acquire(&job())).await.is_pending());
    tokio::time::sleep(SECOND).await;
    store.does(Does::Answers);
    assert!(handle.acquire(&job()).await.is_ok(), "the unit came back");
    assert!(handle.acquire(&job()).await.is_err());
}
