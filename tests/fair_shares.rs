//! R2, R11, R13, R14: limits per client and per usage plan, next to those per route.

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::{convert::Infallible, net::IpAddr, time::Duration};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Decision, InFlight, Limits, Plan, Quota, Rate, Rules, RulesError, Throttle,
    ThrottleLayer, client::PeerAddr, limit::Scope,
};

use support::{bytes, decision, hourly, throttle, values};

type Inner = fn(Request<Body>) -> std::future::Ready<Result<Response<Body>, Infallible>>;
type Service = Throttle<tower::util::ServiceFn<Inner>>;

fn service(rules: Rules) -> Service {
    let serve: Inner = |_| std::future::ready(Ok(Response::new(Body::empty())));
    throttle(rules).layer(service_fn(serve))
}

fn request(path: &str, key: Option<&str>) -> Request<Body> {
    let mut request = Request::get(path);
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    request.body(Body::empty()).expect("a request")
}

async fn send(service: &Service, request: Request<Body>) -> Response<Body> {
    let response = service.clone().oneshot(request).await;
    response
        .unwrap_or_else(|never| match never {})
        .map(Body::new)
}

async fn decided(service: &Service, path: &str, key: &str) -> Decision {
    decision(&send(service, request(path, Some(key))).await).clone()
}

/// Returns how many of `count` requests pass.
async fn passed(service: &Service, count: usize, path: &str, key: Option<&str>) -> usize {
    let mut passed = 0;
    for _ in 0..count {
        let answer = send(service, request(path, key)).await;
        passed += usize::from(answer.status() == StatusCode::OK);
    }
    passed
}

fn by_key() -> Clients {
    Clients::by_header("x-api-key")
}

fn names(decision: &Decision) -> Vec<(String, Scope)> {
    let limits = decision.limits();
    limits
        .map(|limit| (limit.name().to_owned(), limit.scope()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_client_has_a_budget_of_its_own_on_whatever_route() {
    let service = service(Rules::new().clients(by_key().each(hourly(3))));
    assert_eq!(passed(&service, 2, "/a", Some("greedy")).await, 2);
    assert_eq!(passed(&service, 9, "/b", Some("greedy")).await, 1);
    assert_eq!(passed(&service, 9, "/a", Some("modest")).await, 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_known_shares_the_anonymous_clients_budget() {
    for clients in [by_key(), by_key().or_anonymous(), by_key().or_address()] {
        let service = service(Rules::new().clients(clients.each(hourly(3))));
        assert_eq!(passed(&service, 2, "/", None).await, 2);
        assert_eq!(
            passed(&service, 9, "/", Some("")).await,
            1,
            "an empty key is none"
        );
        assert_eq!(passed(&service, 9, "/", Some("known")).await, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_no_key_is_known_by_address() {
    let service = service(Rules::new().clients(by_key().or_address().each(hourly(2))));
    for (peer, passed) in [("192.0.2.1", 2), ("192.0.2.2", 2), ("192.0.2.1", 0)] {
        let mut found = 0;
        for port in 0..5 {
            let mut request = request("/", None);
            let peer = PeerAddr((peer.parse::<IpAddr>().expect("an address"), port).into());
            request.extensions_mut().insert(peer);
            found += usize::from(send(&service, request).await.status() == StatusCode::OK);
        }
        assert_eq!(found, passed, "{peer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_costs_nothing_on_route_client_plan_quota_and_total() {
    // Each in turn has the least; the others are then spent to the last, and not beyond.
    let burst = |which: usize, turn: usize| if which == turn { 2 } else { 5 };
    for turn in 0..5 {
        let clients = by_key()
            .each(Limits::unlimited())
            .plan(
                "pro",
                Plan::new(
                    Limits::new()
                        .rate(hourly(burst(0, turn)))
                        .quota(Quota::per_day(burst(1, turn))),
                )
                .route("GET /a", hourly(burst(2, turn))),
            )
            .member("pro", "k")
            .member("pro", "other");
        let rules = Rules::new()
            .total(Limits::from(hourly(burst(3, turn))))
            .route("GET /a", hourly(burst(4, turn)))
            .clients(clients);
        let service = service(rules);
        assert_eq!(passed(&service, 9, "/a", Some("k")).await, 2, "turn {turn}");
        let decision = decided(&service, "/a", "k").await;
        let left: Vec<_> = decision.limits().map(|limit| limit.remaining()).collect();
        let refused: Vec<_> = decision.limits().map(|limit| limit.is_refused()).collect();
        assert_eq!(
            left.iter().filter(|&&left| left == 0).count(),
            1,
            "turn {turn}: {left:?}"
        );
        assert_eq!(
            left.iter().filter(|&&left| left == 3).count(),
            4,
            "turn {turn}: {left:?}"
        );
        assert_eq!(
            refused.iter().filter(|&&refused| refused).count(),
            1,
            "turn {turn}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_most_specific_limit_is_told_first_and_the_longest_wait() {
    let clients =
        by_key().each(Plan::new(Rate::per_minute(1)).route("GET /a", Rate::per_second(1)));
    let rules = Rules::new()
        .total(Limits::from(Rate::per_minute(2).burst(1)).publish(true))
        .default_route(Rate::per_hour(1))
        .clients(clients);
    let service = service(rules);
    let first = decided(&service, "/a", "k").await;
    assert_eq!(
        names(&first),
        [
            ("client_get_a".to_owned(), Scope::ClientOnRoute),
            ("client".to_owned(), Scope::Client),
            ("default".to_owned(), Scope::Route),
            ("total".to_owned(), Scope::Total),
        ]
    );
    let answer = send(&service, request("/a", Some("k"))).await;
    assert_eq!(
        values(&answer, "ratelimit"),
        [r#""default";r=0;t=3600, "client";r=0;t=60, "total";r=0;t=30, "client_get_a";r=0;t=1"#]
    );
    assert_eq!(values(&answer, "retry-after"), ["3600"]);
    let body: serde_json::Value = serde_json::from_slice(&bytes(answer).await).expect("JSON");
    assert_eq!(
        body["violated-policies"],
        serde_json::json!(["client_get_a", "client", "default", "total"])
    );
}

#[tokio::test(start_paused = true)]
async fn a_plan_holds_instead_of_each_and_inherits_what_it_leaves_out() {
    let each = Plan::new(Limits::new().rate(hourly(2)).quota(Quota::per_day(100)))
        .route("GET /slow", hourly(1))
        .route("GET /free", Limits::unlimited());
    let clients = by_key()
        .each(each)
        .plan("pro", Plan::new(hourly(5)).route("GET /slow", hourly(3)))
        .plan("same", Limits::new())
        .plan("blocked", Limits::closed())
        .member("pro", "p")
        .member("blocked", "b")
        .plan_by(|head| head.headers().get("x-plan")?.to_str().ok());
    let service = service(Rules::new().clients(clients));
    for (key, path, expected) in [
        ("e", "/slow", 1),
        ("e", "/any", 1),
        ("e", "/free", 9),
        ("p", "/slow", 3),
        ("p", "/any", 2),
        ("p", "/free", 9),
        ("b", "/any", 0),
        ("b", "/free", 9),
    ] {
        assert_eq!(
            passed(&service, 9, path, Some(key)).await,
            expected,
            "{key} on {path}"
        );
    }
    assert_eq!(decided(&service, "/any", "p").await.plan(), Some("pro"));
    assert_eq!(decided(&service, "/any", "e").await.plan(), None);
    for (plan, expected, limits) in [
        ("same", Some("same"), vec!["same", "same_daily"]),
        ("pro", Some("pro"), vec!["pro", "pro_daily"]),
        ("no such plan", None, vec!["client", "client_daily"]),
    ] {
        let mut request = request("/any", Some(plan));
        let value = plan.parse().expect("a value");
        request.headers_mut().insert("x-plan", value);
        let answer = send(&service, request).await;
        let decision = decision(&answer);
        assert_eq!(decision.plan(), expected, "{plan}");
        let found: Vec<_> = decision
            .limits()
            .map(|limit| limit.name().to_owned())
            .collect();
        assert_eq!(found, limits, "{plan}: its own rate, and the quota of each");
    }
}

/// A quota alone was once given the access of `each` besides: unlimited, or closed.
#[tokio::test(start_paused = true)]
async fn a_quota_of_its_own_inherits_neither_freedom_nor_closure() {
    let day = Quota::per_day;
    for each in [Limits::unlimited(), Limits::closed()] {
        let clients = by_key()
            .each(Plan::new(each.clone()).route("GET /chat", each.clone()))
            .plan("pro", Plan::new(day(5)).route("GET /chat", day(3)))
            .member("pro", "k");
        let service = service(Rules::new().clients(clients));
        assert_eq!(passed(&service, 9, "/chat", Some("k")).await, 3, "{each:?}");
        assert_eq!(passed(&service, 9, "/any", Some("k")).await, 2, "{each:?}");
    }
    let rules = Rules::new()
        .default_route(Limits::closed())
        .route("GET /chat", day(3));
    assert_eq!(passed(&service(rules), 9, "/chat", None).await, 3);
}

/// A flood may take the place of a client that owes nothing, and so loses nothing but its place.
#[tokio::test(start_paused = true)]
async fn an_idle_clients_place_may_be_taken_and_what_it_then_shares_is_told() {
    let clients = by_key().each(hourly(3)).max_clients(8);
    let service = service(Rules::new().clients(clients));
    assert_eq!(passed(&service, 1, "/", Some("idle")).await, 1);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    for flood in 0..500 {
        passed(&service, 1, "/", Some(&format!("invented-{flood}"))).await;
    }
    let shared = decided(&service, "/", "idle").await;
    assert!(shared.limits().all(|limit| limit.is_overflow()));
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_told_with_the_time_to_its_end() {
    let window = Duration::from_secs(600);
    let rules = Rules::new().clients(by_key().each(Quota::per(2, window).named("ten_minutes")));
    let service = service(rules);
    let first = send(&service, request("/", Some("k"))).await;
    assert_eq!(
        values(&first, "ratelimit-policy"),
        [r#""ten_minutes";q=2;w=600"#]
    );
    let told = values(&first, "ratelimit")[0].to_owned();
    assert!(told.starts_with(r#""ten_minutes";r=1;t="#), "{told}");
    assert_eq!(passed(&service, 5, "/", Some("k")).await, 1);
    let refused = decided(&service, "/", "k").await;
    let limit = refused.limits().next().expect("one limit");
    let wait = limit.wait().expect("at the end of the window");
    assert!(wait <= window);
    assert_eq!(
        (limit.remaining(), limit.burst(), limit.full_in()),
        (0, 2, wait)
    );
    assert_eq!(limit.quota().map(Quota::count), Some(2));
    assert_eq!(limit.rate(), None);
    // Paused time goes in milliseconds.
    tokio::time::advance(wait - Duration::from_millis(2)).await;
    assert_eq!(passed(&service, 5, "/", Some("k")).await, 0, "not before");
    tokio::time::advance(Duration::from_millis(3)).await;
    assert_eq!(passed(&service, 5, "/", Some("k")).await, 2, "anew");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_identities_gets_a_bounded_number_of_bursts_and_takes_nobodys_budget() {
    let clients = by_key().each(hourly(3)).max_clients(64);
    let layer = throttle(Rules::new().clients(clients));
    let serve: Inner = |_| std::future::ready(Ok(Response::new(Body::empty())));
    let service = layer.layer(service_fn(serve));
    assert_eq!(passed(&service, 2, "/", Some("known")).await, 2);
    let mut admitted = 0;
    for flood in 0..5_000 {
        let key = format!("invented-{flood}");
        admitted += passed(&service, 1, "/", Some(&key)).await;
    }
    assert_eq!(layer.overflowed(), 16 * 3, "the overflow buckets' bursts");
    assert!(admitted <= 64 + 16 * 3, "{admitted}");
    assert_eq!(
        passed(&service, 5, "/", Some("known")).await,
        1,
        "what was left"
    );
    let late = decided(&service, "/", "late").await;
    assert!(!late.is_admitted());
    assert!(late.limits().all(|limit| limit.is_overflow()));
    // When buckets are full again, there is room again.
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(passed(&service, 5, "/", Some("late")).await, 3);
    assert!(
        decided(&service, "/", "late")
            .await
            .limits()
            .all(|limit| !limit.is_overflow())
    );
}

#[tokio::test(start_paused = true)]
async fn without_room_for_anybody_all_share() {
    let rules = Rules::new().clients(by_key().each(hourly(3)).max_clients(0));
    let service = service(rules);
    let mut admitted = 0;
    for client in 0..500 {
        admitted += passed(&service, 2, "/", Some(&client.to_string())).await;
    }
    assert_eq!(admitted, 16 * 3);
}

#[tokio::test(start_paused = true)]
async fn slots_that_strangers_share_come_back_to_them() {
    let caps = Limits::new()
        .in_flight(InFlight::new(2).named("wide"))
        .in_flight(InFlight::new(1).named("narrow"));
    let rules = Rules::new().clients(by_key().each(caps).max_clients(0));
    let service = service(rules);
    for round in 0..3 {
        let mut held = Vec::new();
        for client in 0..500 {
            let answer = send(&service, request("/", Some(&client.to_string()))).await;
            held.extend((answer.status() == StatusCode::OK).then_some(answer));
        }
        assert_eq!(held.len(), 16, "in round {round}");
    }
}

/// Everything that is printed and sent of clients with these, admitted and refused.
async fn all_that_is_told(key: &str, member: &str, address: IpAddr) -> String {
    let clients = by_key()
        .or_address()
        .each(Rate::per_hour(1))
        .plan(
            "pro",
            Limits::new()
                .rate(Rate::per_hour(1))
                .quota(Quota::per_day(1)),
        )
        .member("pro", member);
    let rules = Rules::new().clients(clients);
    let mut told = format!("{rules:?} {rules:#?}");
    for grpc in [false, true] {
        let service = service(rules.clone());
        for key in [Some(key), Some(member), None] {
            for _ in 0..2 {
                let mut request = request("/", key);
                request
                    .extensions_mut()
                    .insert(PeerAddr((address, 1).into()));
                if grpc {
                    *request.method_mut() = http::Method::POST;
                    *request.version_mut() = http::Version::HTTP_2;
                    let kind = "application/grpc".parse().expect("a value");
                    request.headers_mut().insert("content-type", kind);
                }
                let answer = send(&service, request).await;
                told += &format!("{answer:?} {:?}", decision(&answer));
                told += &format!("{:?}", answer.headers());
                told += &String::from_utf8_lossy(&bytes(answer).await);
            }
        }
        let printed = format!("{service:?}");
        assert!(printed.len() < 20_000, "not the table as a whole");
        told += &printed;
    }
    told
}

/// R11. All of it, searched for what it was made of.
#[tokio::test(start_paused = true)]
async fn no_key_and_no_address_is_ever_told() {
    let (key, member) = ("sk-very-secret", "sk-a-member");
    let address = IpAddr::from([203, 0, 113, 77]);
    let told = all_that_is_told(key, member, address).await;
    for secret in [key, member, &address.to_string()] {
        assert!(!told.contains(secret), "{secret}");
        assert!(
            !told.contains(&format!("{:?}", secret.as_bytes())),
            "{secret} in bytes"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..cases::cases(64) })]

    /// The same whatever they are. What is long enough is nowhere by chance, nor is any half of it.
    #[test]
    fn no_key_is_told_in_part(
        key in "[A-Za-z0-9_-]{24,64}",
        member in "[A-Za-z0-9_-]{24,64}",
        address in any::<[u8; 16]>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let address = IpAddr::from(address);
        let told = runtime.block_on(all_that_is_told(&key, &member, address));
        let (before, after) = key.split_at(key.len() / 2);
        prop_assert!(![before, after, &member[..12]].iter().any(|part| told.contains(part)));
        let groups = address.to_string();
        prop_assert!(groups.len() < 8 || !told.contains(&groups));
    }
}

#[test]
fn what_cannot_be_meant_is_an_error_that_names_it() {
    let error = |clients: Clients| {
        let made = ThrottleLayer::new(Rules::new().clients(clients));
        made.err().map(|error: RulesError| error.to_string())
    };
    let each = || by_key().each(Rate::per_second(1));
    let day = Duration::from_secs(86_400);
    let table = [
        (
            by_key(),
            "clients: no limits are set for clients without a plan",
        ),
        (
            Clients::by_header("x key").each(Rate::per_second(1)),
            "clients: `x key` is not a valid header name",
        ),
        (
            each().or_address().trusted_proxies(["10.0.0.0/99"]),
            "clients: trusted proxy `10.0.0.0/99`",
        ),
        (
            each().ipv6_prefix(200),
            "clients: an IPv6 prefix of 200 bits",
        ),
        (
            each().member("pro", "k"),
            "clients: plan `pro` has members but is not declared",
        ),
        (
            each().plan("pro", Limits::new()).member("pro", 1_u64),
            "clients: a member of plan `pro` has a key that identifies no client",
        ),
        (
            each().trusted_proxies(["10.0.0.0/8"]),
            "clients: `trusted_proxies` is set, but no client is identified by address",
        ),
        (
            each().plan("a", Limits::new()).plan("a", Limits::new()),
            "clients: plan `a` is declared twice",
        ),
        (
            each().plan("a b", Limits::new()),
            "clients, plan: name `a b`",
        ),
        (each().plan("", Limits::new()), "clients, plan: name ``"),
        (
            by_key().each(Quota::per(1, Duration::ZERO)),
            "each client: a quota of 1 in a window of 0ns",
        ),
        (
            by_key().each(Quota::per(1, Duration::MAX)),
            "each client: a quota of 1 in a window of 18446744073709551615.999999999s",
        ),
        (
            by_key().each(Quota::per_day(u64::MAX)),
            "each client: a quota of 18446744073709551615",
        ),
        (
            by_key().each(Limits::closed().quota(Quota::per(1, day))),
            "each client: a limit cannot be combined with `closed`",
        ),
        (
            each().plan(
                "a",
                Plan::new(Limits::new()).route("GET x", Rate::per_second(1)),
            ),
            "route key `GET x`",
        ),
        (
            each().plan(
                "a",
                Plan::new(Limits::new())
                    .route("GET /{x}", Limits::new())
                    .route("GET /{y}", Limits::new()),
            ),
            "route keys `GET /{x}` and `GET /{y}` mean the same route",
        ),
        (
            each().max_clients(usize::MAX),
            "clients: no memory for a table of 18446744073709551615 buckets",
        ),
        (
            by_key()
                .each(Rate::per_second(1).named("n"))
                .plan("a", Rate::per_second(1).named("n")),
            "plan `a`: name `n` is already used by each client",
        ),
    ];
    for (clients, expected) in table {
        let found = error(clients).unwrap_or_default();
        assert!(
            found.starts_with(expected),
            "{found:?} begins with {expected:?}"
        );
    }
    assert_eq!(error(each().plan("a", Limits::new())), None);
}

/// R13: one limit in an overflow bucket and one in its own, and no third.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_overflow_has_its_limit_at_most_twice() {
    let minute = Duration::from_secs(60);
    let each = Rate::new(1, minute).burst(5);
    let service = service(Rules::new().clients(by_key().each(each).max_clients(8)));
    for stranger in 0..8 {
        let key = format!("stranger-{stranger}");
        assert_eq!(passed(&service, 1, "/", Some(&key)).await, 1);
    }
    tokio::time::advance(minute - Duration::from_secs(1)).await;
    let mut admitted = passed(&service, 9, "/", Some("client")).await;
    let shared = decided(&service, "/", "client").await;
    assert!(shared.limits().all(|limit| limit.is_overflow()));
    // The strangers' buckets are full again, and one of them is given away.
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..3 {
        admitted += passed(&service, 9, "/", Some("client")).await;
    }
    let own = decided(&service, "/", "client").await;
    assert!(own.limits().all(|limit| !limit.is_overflow()));
    assert!((5..=10).contains(&admitted), "{admitted} of twice five");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_overflow_holds_at_most_twice_its_slots() {
    let each = Limits::new().in_flight(2);
    let service = service(Rules::new().clients(by_key().each(each).max_clients(8)));
    let hold = async |key: &str| {
        let answer = send(&service, request("/", Some(key))).await;
        (answer.status() == StatusCode::OK).then_some(answer)
    };
    let mut strangers = Vec::new();
    for stranger in 0..8 {
        strangers.push(hold(&format!("stranger-{stranger}")).await);
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        held.extend(hold("client").await);
    }
    assert_eq!(held.len(), 2);
    strangers.clear();
    for _ in 0..9 {
        held.extend(hold("client").await);
    }
    assert!((2..=4).contains(&held.len()), "{} of twice two", held.len());
    drop(held);
    let mut again = Vec::new();
    for _ in 0..9 {
        again.extend(hold("client").await);
    }
    assert_eq!(again.len(), 2, "each slot came back once");
}
