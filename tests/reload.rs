//! R20: a reload is validated whole, swapped at once, and keeps balances.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock that it has paused"
)]

mod common;

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt, service_fn, util::ServiceFn};
use tower_throttle::{
    Clients, Handle, InFlight, Limits, Plan, Quota, Rate, Rules, RulesError, Throttle,
    ThrottleLayer, Usage, body::ResponseBody, decision::DecisionIn, limit::Scope,
    rules::Undeclared, usage::Estimate,
};

use common::{Answer, Client, build};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A throttle that tells each wait as it is, and its handle.
fn throttled(rules: Rules) -> (Client, Handle) {
    let client = Client::with(ThrottleLayer::builder(rules).stagger_retry_after(false));
    let handle = client.handle();
    (client, handle)
}

fn reload(handle: &Handle, rules: Rules) -> String {
    let changes = handle.reload(rules);
    changes.expect("rules that hold together").to_string()
}

/// Returns how many of `asked` requests pass.
async fn passed(client: &Client, asked: usize) -> usize {
    let mut passed = 0;
    for _ in 0..asked {
        passed += usize::from(client.get("/").await.is_admitted());
    }
    passed
}

async fn keyed(client: &Client, key: &str) -> Answer {
    let request = Request::get("/").header("x-api-key", key);
    client
        .send(request.body(Empty::new()).expect("a request"))
        .await
}

fn rate(count: u64, burst: u64) -> Rate {
    Rate::per_second(count).burst(burst)
}

#[tokio::test(start_paused = true)]
async fn what_stays_the_same_keeps_its_balance_to_the_nanosecond() {
    let rules = || Rules::new().default_route(rate(10, 5));
    let (client, handle) = throttled(rules());
    assert_eq!(passed(&client, 9).await, 5);
    advance(30 * MS).await;
    assert_eq!(reload(&handle, rules()), "nothing");
    assert_eq!(client.get("/").await.wait(), Some(70 * MS));
    advance(70 * MS).await;
    assert_eq!(reload(&handle, rules()), "nothing");
    assert_eq!(passed(&client, 9).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_tells_what_is_left_before_anybody_has_asked_under_the_new_rules() {
    let rules = |rate: Rate| Rules::new().route("GET /", rate.named("chat"));
    let (client, handle) = throttled(rules(rate(10, 5)));
    assert_eq!(passed(&client, 3).await, 3);
    for (next, left) in [
        (rate(10, 9), 6),
        (rate(20, 5), 2),
        (rate(20, 4), 1),
        (rate(10, 3), 0),
    ] {
        reload(&handle, rules(next.clone()));
        let snapshot = handle.snapshot();
        let limit = snapshot.limits.iter().find(|limit| &*limit.name == "chat");
        assert_eq!(
            limit.and_then(|limit| limit.remaining),
            Some(left),
            "{next:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_used_stays_used_under_another_rate_and_burst() {
    // All begin with five of five used, at 10 a second. (rate, burst; what passes at once, and after what wait more)
    let table = [
        ((10, 5), 0, 100 * MS),
        ((1, 5), 0, 1_000 * MS),
        ((100, 5), 0, 10 * MS),
        ((10, 7), 2, 100 * MS),
        ((10, 3), 0, 300 * MS),
        ((1, 3), 0, 3_000 * MS),
        ((2, 6), 1, 500 * MS),
    ];
    for ((count, burst), at_once, wait) in table {
        let (client, handle) = throttled(Rules::new().total(rate(10, 5)));
        assert_eq!(passed(&client, 6).await, 5);
        reload(&handle, Rules::new().total(rate(count, burst)));
        assert_eq!(passed(&client, 9).await, at_once, "{count}, {burst}");
        let told = client.get("/").await.wait();
        assert_eq!(told, Some(wait), "{count}, {burst}");
        advance(wait - MS).await;
        assert_eq!(passed(&client, 1).await, 0, "{count}, {burst}");
        advance(MS).await;
        assert_eq!(passed(&client, 9).await, 1, "{count}, {burst}");
    }
}

#[tokio::test(start_paused = true)]
async fn units_come_back_at_the_rate_of_the_moment() {
    let (client, handle) = throttled(Rules::new().total(rate(10, 10)));
    assert_eq!(passed(&client, 99).await, 10);
    // Five come back at 10 a second, one at 1 a second, and all others at 10 again.
    advance(500 * MS).await;
    reload(&handle, Rules::new().total(rate(1, 10)));
    advance(SECOND).await;
    reload(&handle, Rules::new().total(rate(10, 10)));
    assert_eq!(passed(&client, 99).await, 6);
    assert_eq!(client.get("/").await.wait(), Some(100 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_full_stays_full() {
    let (client, handle) = throttled(Rules::new().total(rate(1, 2)));
    reload(&handle, Rules::new().total(rate(10, 50)));
    assert_eq!(passed(&client, 99).await, 50);
}

#[tokio::test(start_paused = true)]
async fn reloads_by_the_thousand_give_nothing_back() {
    let settings = [rate(1, 100), rate(1_000, 1), rate(10, 7)];
    let rules = |rate: &Rate| {
        let clients = Clients::by_header("x-api-key").each(rate.clone());
        Rules::new().total(rate.clone()).clients(clients)
    };
    let (client, handle) = throttled(rules(&settings[0]));
    assert_eq!(passed(&client, 999).await, 100);
    for round in 0..1_000 {
        reload(&handle, rules(&settings[round % 3]));
        assert_eq!(passed(&client, 1).await, 0, "round {round}");
    }
}

/// Limits of clients, and a closed route where they are looked at.
fn clients(clients: Clients) -> Rules {
    let rules = Rules::new().route("GET /look", Limits::closed());
    rules.clients(clients)
}

/// Returns what a client has left, without a charge.
async fn left(client: &Client, key: &str) -> u64 {
    let request = Request::get("/look").header("x-api-key", key);
    let answer = client
        .send(request.body(Empty::new()).expect("a request"))
        .await;
    let decision = answer.decision();
    let mut limits = decision.limits();
    let limit = limits.find(|limit| limit.scope() == Scope::Client);
    limit.expect("a limit of clients").remaining()
}

#[tokio::test(start_paused = true)]
async fn each_client_keeps_what_it_has_used_and_new_ones_begin_full() {
    let rules = |rate| clients(Clients::by_header("x-api-key").each(rate));
    let (client, handle) = throttled(rules(rate(1, 3)));
    for _ in 0..3 {
        assert!(keyed(&client, "a").await.is_admitted());
    }
    assert!(keyed(&client, "b").await.is_admitted());
    for (count, burst, a, b, new) in [
        (1, 3, 0, 2, "c"),
        (10, 3, 0, 2, "d"),
        (2, 4, 1, 3, "e"),
        (100, 1, 0, 0, "f"),
        (1, 4, 1, 3, "g"),
    ] {
        reload(&handle, rules(rate(count, burst)));
        assert_eq!(left(&client, "a").await, a, "{count}, {burst}");
        assert_eq!(left(&client, "b").await, b, "{count}, {burst}");
        assert_eq!(left(&client, new).await, burst, "{count}, {burst}");
    }
    assert!(keyed(&client, "a").await.is_admitted());
    assert_eq!(keyed(&client, "a").await.wait(), Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_clients_limit_that_a_reload_adds_admits_its_burst() {
    let a = || Rate::per_hour(10).named("a");
    let b = || Rate::per_hour(1).burst(7).named("b");
    let alone = || Limits::new().rate(a());
    let each = |limits: Limits| Clients::by_header("x-api-key").each(limits);
    let on_route = |limits: Limits| {
        let plan = Plan::new(Limits::new()).route("GET /", limits);
        Clients::by_header("x-api-key").each(plan)
    };
    let of_plan = |limits: Limits| {
        let plan = Plan::new(limits);
        Clients::by_header("x-api-key")
            .each(Limits::new())
            .plan("pro", plan)
            .member("pro", "known")
            .member("pro", "other")
    };
    // Wherever it is added, before the other or after it.
    for added in [alone().rate(b()), Limits::new().rate(b()).rate(a())] {
        let cases = [
            (each(alone()), each(added.clone())),
            (on_route(alone()), on_route(added.clone())),
            (of_plan(alone()), of_plan(added.clone())),
        ];
        for (case, (before, after)) in cases.into_iter().enumerate() {
            let (client, handle) = throttled(Rules::new().clients(before));
            for _ in 0..2 {
                assert!(keyed(&client, "known").await.is_admitted(), "{case}");
            }
            reload(&handle, Rules::new().clients(after));
            // Nor does one client use it for another.
            assert!(keyed(&client, "other").await.is_admitted(), "{case}");
            for request in 1..=7 {
                let answer = keyed(&client, "known").await;
                let decision = answer.decision();
                assert!(answer.is_admitted(), "{case}, {request}: {decision:?}");
            }
            let eighth = keyed(&client, "known").await;
            assert!(!eighth.is_admitted(), "{case}");
            assert_eq!(eighth.violated(), ["b"], "{case}: `a` has one left");
            assert_eq!(eighth.wait(), Some(3_600 * SECOND), "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_away_for_a_few_reloads_owes_what_it_would_have_owed() {
    let rules = |count| clients(Clients::by_header("x-api-key").each(rate(count, 10)));
    let (client, handle) = throttled(rules(1));
    for _ in 0..10 {
        assert!(keyed(&client, "a").await.is_admitted());
    }
    for (count, time) in [
        (1, SECOND),
        (2, SECOND),
        (1_000, Duration::ZERO),
        (2, SECOND / 2),
    ] {
        reload(&handle, rules(count));
        advance(time).await;
    }
    assert_eq!(left(&client, "a").await, 1 + 2 + 1);
}

#[tokio::test(start_paused = true)]
async fn plans_keep_their_balances_by_name() {
    let rules = |pro: Plan, each: Rate| {
        let clients = Clients::by_header("x-api-key").each(each);
        Rules::new().clients(clients.plan("pro", pro).member("pro", "a"))
    };
    let pro = |burst| Plan::new(rate(1, burst)).route("GET /", rate(1, 2));
    let (client, handle) = throttled(rules(pro(9), rate(1, 1)));
    let mut admitted = 0;
    for _ in 0..9 {
        admitted += usize::from(keyed(&client, "a").await.is_admitted());
    }
    assert_eq!(admitted, 2, "by the route");
    assert!(keyed(&client, "b").await.is_admitted());
    reload(&handle, rules(pro(99), rate(1, 2)));
    assert!(
        !keyed(&client, "a").await.is_admitted(),
        "the route's own is what it was"
    );
    assert!(keyed(&client, "b").await.is_admitted());
    assert!(!keyed(&client, "b").await.is_admitted());
    // Without the route, what the plan has counted: two of ninety-nine.
    reload(&handle, rules(Plan::new(rate(1, 99)), rate(1, 2)));
    let answer = keyed(&client, "a").await;
    let limit = answer.decision().limits().next().expect("a limit");
    assert_eq!(limit.remaining(), 99 - 3);
}

#[tokio::test(start_paused = true)]
async fn used_of_a_quota_is_used_of_a_larger_one() {
    let rules = |quota| Rules::new().total(Limits::new().quota(quota));
    let (client, handle) = throttled(rules(Quota::per_day(3)));
    assert_eq!(passed(&client, 9).await, 3);
    reload(&handle, rules(Quota::per_day(5)));
    assert_eq!(passed(&client, 9).await, 2);
    reload(&handle, rules(Quota::per_day(4)));
    assert_eq!(passed(&client, 9).await, 0);
    reload(&handle, rules(Quota::per_month(7)));
    assert_eq!(passed(&client, 9).await, 2, "into another window");
    reload(&handle, rules(Quota::per_day(8)));
    assert_eq!(passed(&client, 9).await, 1, "and back");
}

#[tokio::test(start_paused = true)]
async fn a_closed_limit_keeps_its_balance_for_later() {
    let closed = [
        Limits::closed(),
        Rate::per_second(0).into(),
        rate(1, 0).into(),
    ];
    for closed in closed {
        let (client, handle) = throttled(Rules::new().total(rate(1, 3)));
        assert_eq!(passed(&client, 2).await, 2);
        reload(&handle, Rules::new().total(closed));
        assert_eq!(passed(&client, 9).await, 0);
        assert_eq!(client.get("/").await.wait(), None, "closed");
        reload(&handle, Rules::new().total(rate(10, 3)));
        assert_eq!(passed(&client, 9).await, 1, "two of three are used");
        assert_eq!(client.get("/").await.wait(), Some(100 * MS));
    }
    let (client, handle) = throttled(Rules::new().total(Limits::closed()));
    assert_eq!(passed(&client, 9).await, 0);
    reload(&handle, Rules::new().total(rate(10, 3)));
    assert_eq!(
        passed(&client, 9).await,
        3,
        "closed from the beginning, and full"
    );
}

#[tokio::test(start_paused = true)]
async fn routes_that_nobody_declared_keep_their_balances() {
    for undeclared in [Undeclared::PerRoute, Undeclared::Shared] {
        let rules = |rate| Rules::new().default_route(rate).undeclared(undeclared);
        let (client, handle) = throttled(rules(rate(1, 3)));
        for _ in 0..3 {
            assert!(client.get("/a").await.is_admitted());
        }
        for count in [1, 10, 1] {
            reload(&handle, rules(rate(count, 3)));
            assert!(
                !client.get("/a").await.is_admitted(),
                "{undeclared:?} {count}"
            );
        }
        let other = client.get("/b").await.is_admitted();
        assert_eq!(other, undeclared == Undeclared::PerRoute);
        reload(&handle, rules(rate(10, 4)));
        assert!(client.get("/a").await.is_admitted(), "one more");
        assert!(!client.get("/a").await.is_admitted());
    }
}

#[tokio::test(start_paused = true)]
async fn what_undeclared_routes_have_shared_each_of_them_has_used() {
    let rules = |undeclared| {
        let rules = Rules::new().default_route(rate(1, 3));
        rules.undeclared(undeclared)
    };
    let (client, handle) = throttled(rules(Undeclared::Shared));
    let pass = async |path: &str| {
        let mut passed = 0;
        for _ in 0..5 {
            passed += usize::from(client.get(path).await.is_admitted());
        }
        passed
    };
    assert_eq!((pass("/a").await, pass("/b").await), (3, 0));
    for _ in 0..2 {
        reload(&handle, rules(Undeclared::PerRoute));
        assert_eq!((pass("/a").await, pass("/b").await), (0, 0), "spent");
        reload(&handle, rules(Undeclared::Shared));
        assert_eq!((pass("/a").await, pass("/b").await), (0, 0), "as it was");
        reload(&handle, rules(Undeclared::PerRoute));
        advance(2 * SECOND).await;
        assert_eq!((pass("/a").await, pass("/b").await), (2, 2), "each");
        advance(SECOND).await;
        reload(&handle, rules(Undeclared::Shared));
        assert_eq!(
            (pass("/a").await, pass("/b").await),
            (1, 0),
            "the one with most used"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn invented_paths_stay_bounded_over_reloads() {
    let rules = |count| Rules::new().default_route(rate(count, 1));
    let (client, handle) = throttled(rules(1));
    let mut admitted = 0;
    for path in 0..3_000 {
        admitted += usize::from(client.get(&format!("/{path}")).await.is_admitted());
        if path % 500 == 499 {
            reload(&handle, rules(1 + path % 3));
        }
    }
    assert_eq!(
        admitted,
        1_024 + 1,
        "each has had its burst, and those beyond one together"
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_known_by_its_scope_and_name() {
    let two =
        |first: Rate, second: Rate| Rules::new().total(Limits::new().rate(first).rate(second));
    let (client, handle) = throttled(two(rate(1, 3).named("a"), rate(1, 99).named("b")));
    assert_eq!(passed(&client, 9).await, 3);
    // The other way round, and the first is still the one that refuses.
    reload(&handle, two(rate(1, 99).named("b"), rate(1, 3).named("a")));
    assert_eq!(passed(&client, 9).await, 0);
    // A name that is new is the next of its kind: nothing is given back for a name.
    reload(&handle, two(rate(1, 99).named("b"), rate(1, 3).named("c")));
    assert_eq!(passed(&client, 9).await, 0);
    // A cap is no rate, whatever it is called.
    let cap = Limits::new().in_flight(InFlight::new(1).named("c"));
    reload(&handle, Rules::new().total(cap.rate(rate(1, 4).named("b"))));
    assert_eq!(passed(&client, 9).await, 1, "four of which three are used");
}

#[tokio::test(start_paused = true)]
async fn bad_rules_change_nothing_and_say_why() {
    let good = || {
        let clients = Clients::by_header("x-api-key")
            .each(rate(1, 2))
            .max_clients(512);
        Rules::new().default_route(rate(1, 2)).clients(clients)
    };
    let (client, handle) = throttled(good());
    assert_eq!(passed(&client, 9).await, 2);
    let more = Clients::by_header("x-api-key")
        .each(rate(1, 99))
        .max_clients(1_024);
    let bad = [
        (Rules::new().route("/chat", rate(9, 9)), "route key `/chat`"),
        (
            Rules::new()
                .route("GET /a", rate(9, 9))
                .route("GET /a", rate(9, 9)),
            "mean the same route",
        ),
        (Rules::new().total(rate(9, 9).named("a b")), "name `a b`"),
        (
            Rules::new().default_route(rate(9, 9)).clients(more),
            "`max_clients` cannot change from 512 to 1024",
        ),
        (
            Rules::new().clients(Clients::by_header("x-api-key")),
            "clients",
        ),
    ];
    for (rules, text) in bad {
        let error: RulesError = handle.reload(rules).expect_err(text);
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(passed(&client, 9).await, 0, "{text}");
    }
    assert_eq!(reload(&handle, good()), "nothing");
    assert_eq!(passed(&client, 9).await, 0);
    advance(SECOND).await;
    assert_eq!(passed(&client, 9).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_difference_is_told() {
    let before = Rules::new()
        .total(Limits::new().in_flight(8))
        .default_route(rate(10, 5))
        .route("GET /a", rate(1, 1))
        .route("GET /b", rate(1, 1).named("b"))
        .clients(
            Clients::by_header("x-api-key")
                .each(rate(1, 1))
                .plan("pro", rate(2, 2)),
        );
    let clients = Clients::by_header("x-api-key").each(rate(1, 1));
    let pro = Plan::new(rate(2, 3)).route("GET /b", Limits::new().quota(Quota::per_day(9)));
    let after = Rules::new()
        .total(Limits::new().in_flight(9).tokens(rate(90, 90)))
        .default_route(rate(10, 5))
        .route("GET /b", rate(1, 1).named("b").shadow())
        .clients(clients.plan("pro", pro));
    let (_, handle) = throttled(before);
    let changes = handle.reload(after).expect("rules that hold together");
    let told: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "total, limit `total_tokens`: 90 tokens in 1s, burst 90, new",
            "total, limit `total_in_flight`: 8 in flight => 9 in flight",
            "route `GET /b`, limit `b`: 1 in 1s, burst 1, shadow, new",
            "route `GET /b`, limit `get_b`: 1 in 1s, burst 1 => 10 in 1s, burst 5",
            "plan `pro`, limit `pro`: 2 in 1s, burst 2 => 2 in 1s, burst 3",
            "plan `pro`, route `GET /b`, limit `pro_get_b_daily`: 9 in a day, new",
            "route `GET /a`, limit `get_a`: 1 in 1s, burst 1, gone",
        ]
    );
    let change = changes.iter().nth(4).expect("five");
    assert_eq!((change.plan(), change.route()), (Some("pro"), None));
    let renamed = changes.settings().map(ToString::to_string);
    let renamed: Vec<_> = renamed.collect();
    assert_eq!(renamed, ["route `GET /b`, limit `b`, name: b => get_b"]);
    assert_eq!((changes.len(), changes.is_empty()), (8, false));
}

type Body = Empty<Bytes>;
type Answered = Response<ResponseBody<Full<Bytes>>>;
type Handler = fn(Request<Body>) -> Ready<Result<Response<Full<Bytes>>, Infallible>>;
type Service = Throttle<ServiceFn<Handler>>;

/// A service whose answers are held by who asked.
fn service(rules: Rules) -> (Service, Handle) {
    let handler: Handler = |_| ready(Ok(Response::new(Full::default())));
    let layer = build(ThrottleLayer::builder(rules).stagger_retry_after(false));
    let handle = layer.handle();
    (layer.layer(service_fn(handler)), handle)
}

async fn call(service: &Service) -> Answered {
    let request = Request::get("/").body(Empty::new()).expect("a request");
    let answer = service.clone().oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

#[tokio::test(start_paused = true)]
async fn slots_that_are_held_count_against_the_new_cap_and_free_it() {
    let rules = |cap: u64| Rules::new().total(Limits::new().in_flight(cap));
    let (service, handle) = service(rules(2));
    let mut held = vec![call(&service).await, call(&service).await];
    assert!(!call(&service).await.status().is_success());
    reload(&handle, rules(3));
    held.push(call(&service).await);
    assert!(held.iter().all(|answer| answer.status().is_success()));
    assert!(
        !call(&service).await.status().is_success(),
        "three of three"
    );
    reload(&handle, rules(1));
    for _ in 0..2 {
        held.pop();
        assert!(
            !call(&service).await.status().is_success(),
            "one at least of one"
        );
    }
    // Closed and opened again, it knows the one that is left.
    reload(&handle, rules(0));
    reload(&handle, rules(1));
    assert!(!call(&service).await.status().is_success());
    held.pop();
    held.push(call(&service).await);
    assert!(held[0].status().is_success());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_decided_by_the_new_rules_and_in_the_same_order() {
    let rules = |rate: Rate| {
        let limits = Limits::new()
            .rate(rate)
            .max_wait(60 * SECOND)
            .max_waiting(9);
        Rules::new().total(limits)
    };
    let (service, handle) = service(rules(Rate::per_minute(6).burst(1)));
    assert!(call(&service).await.status().is_success());
    let start = Instant::now();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move {
                let status = call(&service).await.status();
                (status.is_success(), start.elapsed())
            })
        })
        .collect();
    tokio::task::yield_now().await;
    advance(SECOND).await;
    // A tenth of the first unit is there; the rest of it comes in nine tenths of a second.
    reload(&handle, rules(Rate::per_second(1).burst(1)));
    for (place, waiter) in (1..).zip(waiting) {
        let expected = SECOND + 900 * MS + (place - 1) * SECOND;
        assert_eq!(waiter.await.expect("no panic"), (true, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_who_has_waited_since_before_the_reload() {
    let rules = |cap: u64| {
        let patient = Limits::new()
            .in_flight(cap)
            .max_wait(60 * SECOND)
            .max_waiting(9);
        let each = Limits::new()
            .in_flight(cap)
            .max_wait(60 * SECOND)
            .max_waiting(9);
        let clients = Clients::by_header("x-api-key").each(each);
        Rules::new()
            .total(patient.clone())
            .default_route(patient)
            .clients(clients)
    };
    for after in [1, 2] {
        let (service, handle) = service(rules(1));
        let held = call(&service).await;
        let waiter = tokio::spawn({
            let service = service.clone();
            async move { call(&service).await }
        });
        tokio::task::yield_now().await;
        reload(&handle, rules(after));
        // Before the waiter is asked again: whoever comes now stands behind it.
        let late = tokio::time::timeout(SECOND, call(&service));
        let waited = late.await;
        assert!(waited.is_err(), "{after}: the waiter's or still held");
        assert_eq!(waiter.is_finished(), after == 2, "{after}");
        drop(held);
        assert!(waiter.await.expect("no panic").status().is_success());
    }
}

/// A slot that was taken while nobody could wait for it came free, and woke nobody: the first in line slept until its
/// time was over, and all behind it.
#[tokio::test(start_paused = true)]
async fn who_waits_since_a_reload_is_woken_by_slots_that_were_taken_before() {
    let slots = |is_patient: bool| {
        let slots = Limits::new().in_flight(1);
        match is_patient {
            true => slots.max_wait(60 * SECOND).max_waiting(9),
            false => slots,
        }
    };
    type Place = (&'static str, fn(Limits) -> Rules);
    let places: [Place; 4] = [
        ("total", |limits| Rules::new().total(limits)),
        ("route", |limits| Rules::new().route("GET /", limits)),
        ("default route", |limits| Rules::new().default_route(limits)),
        ("clients", |limits| {
            Rules::new().clients(Clients::by_header("x-api-key").each(limits))
        }),
    ];
    for (place, rules) in places {
        let (service, handle) = service(rules(slots(false)));
        let held = call(&service).await;
        reload(&handle, rules(slots(true)));
        let start = Instant::now();
        let waiter = tokio::spawn(async move { (call(&service).await.status(), start.elapsed()) });
        tokio::task::yield_now().await;
        advance(SECOND).await;
        drop(held);
        let (status, waited) = waiter.await.expect("no panic");
        assert!(status.is_success(), "{place}: {status}");
        assert_eq!(waited, SECOND, "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_limit_that_is_gone_goes_on_at_once() {
    let patient = Limits::new()
        .in_flight(1)
        .max_wait(60 * SECOND)
        .max_waiting(9);
    let (service, handle) = service(Rules::new().total(patient));
    let held = call(&service).await;
    let start = Instant::now();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { (call(&service).await.status(), start.elapsed()) })
        })
        .collect();
    tokio::task::yield_now().await;
    reload(&handle, Rules::new());
    for waiter in waiting {
        let (status, waited) = waiter.await.expect("no panic");
        assert!(
            status.is_success() && waited.is_zero(),
            "{status} after {waited:?}"
        );
    }
    drop(held);
}

/// A handler whose answer carries the usage that the throttle has put into the request.
fn tells_usage(mut request: Request<Body>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let usage = request.extensions_mut().remove::<Usage>();
    let mut response = Response::new(Full::default());
    response
        .extensions_mut()
        .insert(usage.expect("tokens are limited"));
    ready(Ok(response))
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_reserved_are_settled_after_a_reload_in_units() {
    let rules = |tokens: Rate| {
        let estimate = Estimate::fixed(100);
        Rules::new()
            .total(Limits::new().tokens(tokens))
            .estimate(estimate)
    };
    let settled = |rules: Rules, after: Rules, total: u64| async move {
        let layer = build(ThrottleLayer::builder(rules).decision(DecisionIn::Response));
        let service = layer.clone().layer(service_fn(tells_usage));
        let request = || Request::get("/").body(Empty::new()).expect("a request");
        let answer = service.clone().oneshot(request()).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        let usage = answer
            .extensions()
            .get::<Usage>()
            .expect("it was put there");
        layer
            .handle()
            .reload(after)
            .expect("rules that hold together");
        usage.settle(total);
        // A second one tells what there was, less its own reservation.
        let answer = service.oneshot(request()).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        let decision = answer.extensions().get::<tower_throttle::Decision>();
        let limit = decision.expect("it is told").limits().next().expect("one");
        (answer.status().is_success(), limit.remaining())
    };
    let slow = || rules(Rate::per_minute(600).burst(1_000));
    let fast = || rules(Rate::per_minute(60_000).burst(1_000));
    for (before, after) in [(slow(), slow()), (slow(), fast()), (fast(), slow())] {
        let given_back = settled(before.clone(), after.clone(), 30).await;
        assert_eq!(given_back, (true, 1_000 - 30 - 100));
        let owed = settled(before, after, 950).await;
        assert_eq!(owed, (false, 50), "less than is asked for");
    }
}

/// A client's balance stays in the terms of its last charge until it is charged anew. What was owed in those after the
/// reload was read as if it had been owed before: so all that came back since the reload paid for it.
#[tokio::test(start_paused = true)]
async fn tokens_of_a_client_that_are_settled_long_after_a_reload_count_from_then_on() {
    let rules = |interval: Duration| {
        let tokens = Rate::new(1, interval).burst(1_000);
        let clients = Clients::by_header("x-api-key").each(Limits::new().tokens(tokens));
        Rules::new().clients(clients).estimate(Estimate::fixed(100))
    };
    let (slow, fast) = (86_400 * SECOND, MS);
    let table = [
        // The reservation has come back, and 950 are owed.
        (slow, fast, 1_050, 50),
        // Nothing has come back yet but what was not used.
        (fast, slow, 30, 1_000 - 30 - 100),
    ];
    for (before, after, settled, left) in table {
        let builder = ThrottleLayer::builder(rules(before));
        let layer = build(builder.decision(DecisionIn::Response));
        let service = layer.clone().layer(service_fn(tells_usage));
        let ask = || async {
            let request = Request::get("/").header("x-api-key", "one");
            let request = request.body(Empty::new()).expect("a request");
            let answer = service.clone().oneshot(request).await;
            answer.unwrap_or_else(|never| match never {})
        };
        let answer = ask().await;
        let usage = answer
            .extensions()
            .get::<Usage>()
            .expect("it was put there");
        reload(&layer.handle(), rules(after));
        advance(10 * SECOND).await;
        usage.settle(settled);
        let answer = ask().await;
        let decision = answer.extensions().get::<tower_throttle::Decision>();
        let limit = decision.expect("it is told").limits().next().expect("one");
        assert_eq!(limit.remaining(), left, "{before:?} to {after:?}");
    }
}

/// One bucket, counted in billionths of a unit.
struct Naive {
    used: u64,
    last: Instant,
    rate: u64,
    burst: u64,
}

impl Naive {
    const UNIT: u64 = 1_000_000_000;

    fn pass(&mut self, now: Instant) {
        let passed = u64::try_from((now - self.last).as_nanos()).expect("a short test");
        self.used = self.used.saturating_sub(passed * self.rate);
        self.last = now;
    }

    /// Tells whether one more fits, if that is not too close to tell: each reload rounds by less than a nanosecond.
    fn fits(&self) -> Option<bool> {
        let (would_be, room) = (self.used + Self::UNIT, self.burst * Self::UNIT);
        (would_be.abs_diff(room) > Self::UNIT / 500).then_some(would_be <= room)
    }
}

/// A bucket with the settings that were in force, and the requests that were admitted.
struct Watched {
    name: &'static str,
    naive: Naive,
    settings: VecDeque<(Instant, u64, u64)>,
    admitted: VecDeque<Instant>,
}

impl Watched {
    fn new(name: &'static str, (rate, burst): (u64, u64)) -> Self {
        let now = Instant::now();
        let (used, last) = (0, now);
        let naive = Naive {
            used,
            last,
            rate,
            burst,
        };
        Self {
            name,
            naive,
            settings: VecDeque::from([(now, rate, burst)]),
            admitted: VecDeque::new(),
        }
    }

    fn set(&mut self, (rate, burst): (u64, u64)) {
        let now = Instant::now();
        self.naive.pass(now);
        (self.naive.rate, self.naive.burst) = (rate, burst);
        self.settings.push_back((now, rate, burst));
        // No window that is looked at begins earlier.
        let first = self.admitted.front().copied().unwrap_or(now);
        while self.settings.len() > 1 && self.settings[1].0 <= first {
            self.settings.pop_front();
        }
    }

    /// R1 for each window that ends now and holds up to a hundred admissions: no more than the largest burst and
    /// the fastest rate that were in force in it let through.
    fn admit(&mut self) {
        let now = Instant::now();
        self.naive.used += Naive::UNIT;
        self.admitted.push_back(now);
        if self.admitted.len() > 100 {
            self.admitted.pop_front();
        }
        let (mut rate, mut burst) = (0, 0);
        let mut settings = self.settings.iter().rev().peekable();
        for (count, start) in (1..).zip(self.admitted.iter().rev()) {
            // All that were in force at some moment of the window, the one in which it begins among them.
            while let Some((since, fast, large)) = settings.peek() {
                (rate, burst) = (rate.max(*fast), burst.max(*large));
                if since <= start {
                    break;
                }
                settings.next();
            }
            let window = (now - *start).as_nanos() + 1;
            let interval = 1_000_000_000_u128.div_ceil(u128::from(rate));
            let bound = u128::from(burst) - 1 + window.div_ceil(interval);
            assert!(
                count <= bound,
                "{}: {count} in {window} ns, bound {bound}",
                self.name
            );
        }
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_reloads_a_second_for_ten_minutes_under_load() {
    const SETTINGS: [(u64, u64); 6] = [(50, 5), (10, 40), (200, 1), (25, 25), (1, 100), (125, 8)];
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let rules = |total: (u64, u64), route: (u64, u64), each: (u64, u64)| {
        let limits = |(count, burst)| Limits::from(rate(count, burst));
        // Beside the limit that is looked at one that never refuses, so that they are more than one.
        let total = limits(total)
            .quota(Quota::per_day(1 << 40))
            .in_flight(1 << 20);
        let clients = Clients::by_header("x-api-key")
            .each(limits(each))
            .max_clients(1_024);
        Rules::new()
            .total(total)
            .route("GET /", limits(route))
            .clients(clients)
    };
    let first = SETTINGS[0];
    let (client, handle) = throttled(rules(first, first, first));
    let mut total = Watched::new("total", first);
    let mut route = Watched::new("route", first);
    let mut each = KEYS.map(|key| Watched::new(key, first));
    let mut dice = Dice(1);
    let (mut admitted, mut refused, mut too_close) = (0_u32, 0_u32, 0_u32);
    for _ in 0..600 * 200 {
        let [one, two, three] = [(); 3].map(|()| SETTINGS[dice.roll(6) as usize]);
        handle
            .reload(rules(one, two, three))
            .expect("rules that hold together");
        total.set(one);
        route.set(two);
        each.iter_mut().for_each(|each| each.set(three));
        for _ in 0..2 {
            let step = dice.roll(5_000_000);
            advance(Duration::from_nanos(step)).await;
            let who = dice.roll(3) as usize;
            let answer = keyed(&client, KEYS[who]).await.is_admitted();
            let now = Instant::now();
            let scopes = [&mut total, &mut route, &mut each[who]];
            let fit = scopes.map(|scope| {
                scope.naive.pass(now);
                scope.naive.fits()
            });
            let expected = match fit {
                [Some(true), Some(true), Some(true)] => Some(true),
                fit if fit.contains(&Some(false)) => Some(false),
                _ => None,
            };
            too_close += u32::from(expected.is_none());
            assert!(
                expected.is_none_or(|expected| expected == answer),
                "{fit:?} and {answer}"
            );
            if answer {
                admitted += 1;
                total.admit();
                route.admit();
                each[who].admit();
            } else {
                refused += 1;
            }
        }
    }
    assert!(
        admitted > 10_000 && refused > 10_000,
        "{admitted} and {refused}"
    );
    assert!(too_close < 10_000, "{too_close}");
}

#[test]
fn threads_get_no_more_than_the_bursts_while_rules_are_reloaded() {
    const BURST: u64 = 2_000;
    const THREADS: usize = 4;
    // Each thread makes so many requests, and goes on until there were so many reloads: neither depends on how fast
    // the machine does the other.
    const TURNS: usize = 8_000;
    const RELOADS: u64 = 60;
    // So slow that nothing comes back while the test runs.
    let rules = |hours: u64| {
        let slow = || Rate::new(1, Duration::from_secs(3_600 * hours)).burst(BURST);
        let clients = Clients::by_header("x-api-key")
            .each(slow())
            .max_clients(512);
        Rules::new()
            .default_route(slow())
            .route("GET /declared", slow())
            .clients(clients)
    };
    let client = Client::new(rules(1));
    let handle = client.handle();
    // The usage of every path and every client.
    let paths = ["/declared", "/new", "/other"];
    let admitted = [(); 3].map(|()| [(); 3].map(|()| AtomicU64::new(0)));
    let [asked, reloads] = [(); 2].map(|()| AtomicU64::new(0));
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (client, admitted, done) = (&client, &admitted, &done);
            let (asked, reloads) = (&asked, &reloads);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.expect("a runtime").block_on(async {
                    let mut turn = 0_usize;
                    while turn < TURNS || reloads.load(Ordering::Relaxed) < RELOADS {
                        let (path, key) = ((turn / 3 + thread) % 3, turn % 3);
                        let request = Request::get(paths[path]).header("x-api-key", key);
                        let request = request.body(Empty::new()).expect("a request");
                        if client.send(request).await.is_admitted() {
                            admitted[path][key].fetch_add(1, Ordering::Relaxed);
                        }
                        turn += 1;
                    }
                    asked.fetch_add(turn as u64, Ordering::Relaxed);
                });
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        while done.load(Ordering::Relaxed) < THREADS {
            let turn = reloads.fetch_add(1, Ordering::Relaxed) + 1;
            handle
                .reload(rules(1 + turn % 3))
                .expect("rules that hold together");
        }
    });
    let admitted = admitted.map(|path| path.map(AtomicU64::into_inner));
    let counts = handle.snapshot().routes;
    let counted: u64 = counts.iter().map(|route| route.admitted).sum();
    assert_eq!(
        counted,
        admitted.iter().flatten().sum::<u64>(),
        "each is counted once"
    );
    let refused: u64 = counts.iter().map(|route| route.refused).sum();
    let asked = asked.into_inner();
    assert!(asked >= (THREADS * TURNS) as u64, "{asked}");
    assert_eq!(counted + refused, asked, "and those who were refused");
    let sums = [0, 1, 2].map(|index| {
        let path: u64 = admitted[index].iter().sum();
        let key: u64 = admitted.iter().map(|path| path[index]).sum();
        [("path", path), ("key", key)]
    });
    for (what, sum) in sums.into_iter().flatten() {
        assert!(sum <= BURST, "{sum} of a {what}");
        // A request charged during a reload may pay for a unit that it did not get.
        assert!(sum > BURST * 9 / 10, "{sum} of a {what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_had_no_limit_in_between_keeps_what_was_used() {
    let each = || Rate::per_hour(1).burst(5);
    let base = || Rules::new().default_route(each());
    let with = |limits: Limits| base().route("GET /", limits);
    type Step = fn(&dyn Fn() -> Rules, &dyn Fn(Limits) -> Rules, Rate) -> Rules;
    let undeclared: Step = |base, _, _| base();
    let own: Step = |_, with, rate| with(rate.into());
    let exempt: Step = |_, with, _| with(Limits::exempt());
    let unlimited: Step = |_, with, _| with(Limits::unlimited());
    let ends = [
        (undeclared, own),
        (undeclared, undeclared),
        (own, own),
        (own, undeclared),
    ];
    let all = ends
        .iter()
        .flat_map(|&(first, last)| [exempt, unlimited].map(|between| [first, between, last]));
    for steps in all {
        let rules = |step: Step| step(&base, &with, each());
        let [first, between, last] = steps;
        let (client, handle) = throttled(rules(first));
        assert_eq!(passed(&client, 9).await, 5);
        reload(&handle, rules(between));
        assert_eq!(passed(&client, 9).await, 9, "no limit");
        reload(&handle, rules(last));
        assert_eq!(passed(&client, 9).await, 0, "what was used stays used");
    }
}
