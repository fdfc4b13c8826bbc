//! R21: limits in a store that replicas share, while the store answers and while it does not.

mod common;
#[path = "support/told.rs"]
mod told;

use std::{sync::Arc, time::Duration};

use common::{Answer, Client, build, hold};
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::time::{Instant, advance, sleep};
use told::{Does, Told};
use tower_throttle::{
    Clients, Decision, InFlight, Limits, Price, Prices, Quota, Rate, Rules, RulesError, Spend,
    ThrottleLayer, ThrottleLayerBuilder, Usage,
    body::ResponseBody,
    decision::DecisionIn,
    store::{Correction, OnOutage, Store},
    usage::Estimate,
};

#[expect(clippy::disallowed_methods, reason = "paused time")]
fn now() -> Instant {
    Instant::now()
}

const SECRET: [u8; 16] = [7; 16];

fn builder(rules: Rules, store: &Told) -> ThrottleLayerBuilder {
    ThrottleLayer::builder(rules)
        .decision(DecisionIn::Response)
        .store(store.clone())
}

fn layer(rules: Rules, store: &Told) -> ThrottleLayer {
    build(builder(rules, store))
}

fn replica(rules: Rules, store: &Told) -> Client {
    Client::with(builder(rules, store))
}

async fn get_as(client: &Client, path: &str, key: &str) -> Answer {
    let request = Request::get(path)
        .header("x-api-key", key)
        .body(Empty::new());
    client.send(request.expect("a request")).await
}

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;

#[tokio::test(start_paused = true)]
async fn replicas_share_every_limit() {
    let store = Told::new();
    let rules = || {
        let clients = Clients::by_header("x-api-key")
            .each(Rate::per_second(1).burst(2))
            .secret(SECRET);
        Rules::new()
            .total(Rate::per_second(1).burst(7))
            .default_route(Rate::per_second(1).burst(3))
            .route(
                "GET /chat",
                Limits::new()
                    .rate(Rate::per_second(9))
                    .quota(Quota::per_day(4).named("day")),
            )
            .clients(clients)
    };
    let (one, two) = (replica(rules(), &store), replica(rules(), &store));
    // The client's, whichever replica is asked.
    assert_eq!(get_as(&one, "/chat", "a").await.status, OK);
    assert_eq!(get_as(&two, "/chat", "a").await.status, OK);
    for replica in [&one, &two] {
        let refused = get_as(replica, "/chat", "a").await;
        assert_eq!(refused.status, REFUSED);
        assert_eq!(refused.violated(), ["client"]);
    }
    // The route's.
    assert_eq!(get_as(&one, "/chat", "b").await.status, OK);
    assert_eq!(get_as(&two, "/chat", "c").await.status, OK);
    let refused = get_as(&one, "/chat", "d").await;
    assert_eq!(refused.violated(), ["day"], "the day's four are used");
    // That of an undeclared route.
    for (replica, key) in [(&one, "d"), (&two, "e"), (&one, "f")] {
        assert_eq!(get_as(replica, "/a", key).await.status, OK);
    }
    assert_eq!(
        get_as(&two, "/a", "g").await.violated(),
        ["default", "total"]
    );
    let refused = get_as(&two, "/b", "g").await;
    assert_eq!(
        refused.violated(),
        ["total"],
        "seven in all, and another route"
    );
    advance(Duration::from_secs(1)).await;
    assert_eq!(get_as(&two, "/b", "g").await.status, OK);
    assert_eq!(get_as(&one, "/b", "h").await.status, REFUSED);

    let keys = store.keys.lock().expect("no panic");
    let limit = |key: &String| {
        key.split_once(':')
            .map_or(key.clone(), |(limit, _)| limit.to_owned())
    };
    let limits: std::collections::BTreeSet<_> = keys.iter().map(limit).collect();
    let limits: Vec<_> = limits.into_iter().collect();
    assert_eq!(limits.len(), 6, "{limits:?}");
    let hash = limits[2]
        .strip_prefix("route $default ")
        .expect("an undeclared route");
    assert_eq!(hash.len(), "/rate-1s".len() + 32, "no path in it: {hash}");
    assert_eq!(
        [&limits[0], &limits[3], &limits[4], &limits[5]],
        [
            "client/rate-1s",
            "route GET /chat/quota/day",
            "route GET /chat/rate-1s",
            "total/rate-1s"
        ]
    );
}

fn rate(burst: u64) -> Rules {
    Rules::new().default_route(Rate::per_second(1).burst(burst))
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_costs_nothing_and_tells_the_truth() {
    let store = Told::new();
    let rules = || rate(2).total(Rate::per_second(1).burst(5).named("all"));
    let (one, two) = (replica(rules(), &store), replica(rules(), &store));
    let first = one.get("/").await;
    assert_eq!(first.header("ratelimit"), Some("\"default\";r=1;t=1"));
    let second = two.get("/").await;
    assert_eq!(second.header("ratelimit"), Some("\"default\";r=0;t=1"));
    for _ in 0..10 {
        let refused = one.get("/").await;
        assert_eq!(refused.status, REFUSED);
        let wait = refused.decision().retry_after().expect("it may pass");
        assert!(wait >= Duration::from_secs(1), "{wait:?}");
    }
    let left = |answer: &Answer| {
        let mut limits = answer.decision().limits();
        limits
            .find(|limit| limit.name() == "all")
            .map(|limit| limit.remaining())
    };
    assert_eq!(
        left(&two.get("/other").await),
        Some(2),
        "refusals took nothing of it"
    );
}

/// Requests that are told nothing, and those that are told the decision, have a shorter way in one process.
#[tokio::test(start_paused = true)]
async fn replicas_share_a_limit_of_which_nothing_is_told() {
    for decision in [DecisionIn::Nowhere, DecisionIn::Response] {
        let store = Told::new();
        let replicas = [(); 2].map(|()| {
            let rules = Rules::new().route("GET /", Rate::per_hour(1).burst(3));
            let builder = builder(rules, &store).rate_limit_headers(false);
            Client::of(build(builder.decision(decision)))
        });
        let mut admitted = 0;
        for number in 0..8 {
            let answer = get_as(&replicas[number % 2], "/", "").await;
            admitted += usize::from(answer.status == OK);
        }
        assert_eq!(admitted, 3, "{decision:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_to_be_empty_is_not_asked_for() {
    let store = Told::new();
    let one = replica(rate(3), &store);
    for _ in 0..3 {
        assert_eq!(one.get("/").await.status, OK);
    }
    assert_eq!(store.calls(), 3);
    for _ in 0..1_000 {
        assert_eq!(one.get("/").await.status, REFUSED);
    }
    assert_eq!(store.calls(), 0, "the last answer told that it is empty");
    advance(Duration::from_millis(999)).await;
    assert_eq!(one.get("/").await.status, REFUSED);
    assert_eq!(store.calls(), 0);
    advance(Duration::from_millis(1)).await;
    assert_eq!(one.get("/").await.status, OK);
    assert_eq!(store.calls(), 1, "time has brought it back");
    assert_eq!(one.get("/other").await.status, OK, "another bucket");
    // One that never refuses, and one that can never be had.
    let rules = Rules::new()
        .route("GET /never", Rate::per_second(0))
        .route("GET /free", Limits::unlimited());
    let two = replica(rules, &store);
    store.calls();
    assert_eq!(two.get("/never").await.status, REFUSED);
    assert_eq!(two.get("/free").await.status, OK);
    assert_eq!(store.calls(), 0, "neither lies in a store");
}

/// A refusal was told from memory, and the client's quota counted as full there: a second, and then a day.
#[tokio::test(start_paused = true)]
async fn no_wait_is_told_while_one_of_the_buckets_is_unknown() {
    let store = Told::new();
    let clients = Clients::by_header("x-api-key")
        .each(Limits::new().quota(Quota::per_day(1)))
        .secret(SECRET);
    let rules = Rules::new()
        .route("GET /a", Rate::per_second(1).burst(1))
        .clients(clients);
    let one = replica(rules, &store);
    assert_eq!(get_as(&one, "/b", "spent").await.status, OK);
    // So long ago that it is forgotten.
    advance(Duration::from_secs(11)).await;
    assert_eq!(get_as(&one, "/a", "a").await.status, OK);
    // Now the route is known to be empty.
    assert_eq!(get_as(&one, "/a", "b").await.status, REFUSED);
    store.calls();
    let refused = get_as(&one, "/a", "spent").await;
    let wait = refused.wait().expect("tomorrow");
    assert_eq!(store.calls(), 1, "it is asked");
    advance(wait).await;
    assert_eq!(get_as(&one, "/a", "spent").await.status, OK, "{wait:?}");
}

/// A state that was remembered in terms of the settings before told a tenth of the wait.
#[tokio::test(start_paused = true)]
async fn a_wait_is_told_in_terms_of_the_settings_that_hold() {
    let store = Told::new();
    let rules = |per_minute, burst| {
        let rate = Rate::per_minute(per_minute).burst(burst).named("chat");
        Rules::new().default_route(rate)
    };
    let client = replica(rules(600, 30), &store);
    let handle = client.handle();
    for _ in 0..30 {
        assert_eq!(client.get("/").await.status, OK);
    }
    assert_eq!(client.get("/").await.status, REFUSED);
    handle
        .reload(rules(60, 2))
        .expect("rules that hold together");
    let refused = client.get("/").await;
    assert_eq!(refused.status, REFUSED);
    let wait = refused.wait().expect("it may pass");
    advance(wait).await;
    assert_eq!(client.get("/").await.status, OK, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_bucket_is_believed_for_ten_seconds() {
    let store = Told::new();
    let rules = || Rules::new().total(Limits::new().quota(Quota::per_day(1)));
    let (one, two) = (replica(rules(), &store), replica(rules(), &store));
    assert_eq!(one.get("/").await.status, OK);
    // Somebody gives it back by hand.
    let key = store.keys.lock().expect("no panic")[0].clone();
    let budget =
        tower_throttle::store::Budget::of_quota(&Quota::per_day(1)).expect("an open quota");
    let key = tower_throttle::store::BucketKey::new(key, None);
    let units = 1;
    let refund = Correction::Refund { key, budget, units };
    store.store.correct(&[refund]).await.expect("memory");
    assert_eq!(
        one.get("/").await.status,
        REFUSED,
        "it believes what it was told"
    );
    advance(Duration::from_secs(10)).await;
    assert_eq!(two.get("/").await.status, OK, "the other was told nothing");
    assert_eq!(one.get("/").await.status, REFUSED, "and has taken it");
    assert_eq!(store.calls(), 3, "it has asked again");
}

/// Returns what becomes of a request, how long it takes, and how often the store is asked.
async fn timed(client: &Client, store: &Told) -> (StatusCode, Duration, u64) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test reads the clock that it has paused"
    )]
    let now = Instant::now;
    store.calls();
    let start = now();
    let answer = client.get("/").await;
    (answer.status, now() - start, store.calls())
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_one_deadline_and_no_more() {
    const DEADLINE: Duration = Duration::from_millis(25);
    let share = OnOutage::Local { share: 2 };
    let modes = [
        // (what is chosen, what becomes of the first request, and of those after it)
        (OnOutage::Admit, OK, [OK, OK, OK]),
        (
            OnOutage::Refuse,
            StatusCode::SERVICE_UNAVAILABLE,
            [StatusCode::SERVICE_UNAVAILABLE; 3],
        ),
        // Two of the four.
        (share, OK, [OK, REFUSED, REFUSED]),
    ];
    for (on_outage, first, others) in modes {
        let store = Told::new();
        let client = Client::with(builder(rate(4), &store).on_outage(on_outage));
        assert_eq!(timed(&client, &store).await, (OK, Duration::ZERO, 1));

        store.does(Does::Late(Duration::from_secs(60)));
        assert_eq!(
            timed(&client, &store).await,
            (first, DEADLINE, 1),
            "{on_outage:?}"
        );
        for other in others {
            assert_eq!(
                timed(&client, &store).await,
                (other, Duration::ZERO, 0),
                "{on_outage:?}"
            );
        }
        // A probe notices without a request that the store is up again.
        store.does(Does::Answers);
        sleep(Duration::from_secs(2)).await;
        let (status, took, calls) = timed(&client, &store).await;
        assert_eq!(
            (status, took, calls),
            (OK, Duration::ZERO, 1),
            "{on_outage:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_probed_ever_more_seldom() {
    let store = Told::new();
    let client = Client::with(builder(rate(4), &store).on_outage(OnOutage::Admit));
    store.does(Does::Fails);
    assert_eq!(timed(&client, &store).await, (OK, Duration::ZERO, 1));
    let mut probes = Vec::new();
    for _ in 0..20 {
        sleep(Duration::from_secs(1)).await;
        probes.push(store.calls());
    }
    assert!(
        (4..=9).contains(&probes[0]),
        "at once, and soon: {probes:?}"
    );
    assert!(
        probes[5..].iter().all(|&probes| probes <= 2),
        "once a second: {probes:?}"
    );
    assert!(probes[5..].iter().sum::<u64>() >= 11, "{probes:?}");
    store.does(Does::Answers);
    sleep(Duration::from_millis(1_300)).await;
    assert!(store.calls() > 0);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.calls(), 0, "nobody asks any more");
    assert_eq!(timed(&client, &store).await, (OK, Duration::ZERO, 1));
    // Nobody needs it any more.
    store.does(Does::Fails);
    client.get("/").await;
    drop(client);
    sleep(Duration::from_secs(2)).await;
    store.calls();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_fails_is_no_outage() {
    let store = Told::new();
    let client = Client::with(builder(rate(4), &store).on_outage(OnOutage::Refuse));
    store.does(Does::FailsHere);
    for _ in 0..3 {
        let (status, _, calls) = timed(&client, &store).await;
        assert_eq!((status, calls), (StatusCode::SERVICE_UNAVAILABLE, 1));
    }
    store.does(Does::Answers);
    assert_eq!(timed(&client, &store).await.0, OK);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_too_late_is_given_back_unless_it_was_let_through() {
    for (on_outage, left) in [
        (OnOutage::Refuse, 4),
        (OnOutage::Admit, 3),
        (OnOutage::Local { share: 1 }, 3),
    ] {
        let store = Told::new();
        let client = Client::with(builder(rate(4), &store).on_outage(on_outage));
        store.does(Does::Late(Duration::from_millis(40)));
        client.get("/").await;
        store.does(Does::Answers);
        sleep(Duration::from_millis(50)).await;
        let other = replica(rate(4), &store);
        let answer = other.get("/").await;
        let told = answer
            .decision()
            .limits()
            .next()
            .map(|limit| limit.remaining());
        assert_eq!(told, Some(left - 1), "{on_outage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_for_a_client_that_has_gone_is_given_back() {
    let store = Told::new();
    let rules = || {
        let slots = InFlight::new(1);
        Rules::new().default_route(
            Limits::new()
                .rate(Rate::per_hour(1).burst(2))
                .in_flight(slots),
        )
    };
    let client = replica(rules(), &store);
    store.does(Does::Late(Duration::from_millis(10)));
    tokio::select! {
        _ = client.get("/") => panic!("it has not been answered"),
        () = sleep(Duration::from_millis(5)) => {}
    }
    store.does(Does::Answers);
    // The slot is free at once, and the rest when the store has answered.
    assert_eq!(client.get("/").await.status, OK);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(client.get("/").await.status, OK, "the second of two");
    assert_eq!(client.get("/").await.status, REFUSED);
}

#[tokio::test(start_paused = true)]
async fn slots_belong_to_a_process() {
    let store = Told::new();
    let rules = || {
        let limits = Limits::new().rate(Rate::per_hour(1).burst(3)).in_flight(1);
        Rules::new().route("GET /", limits)
    };
    let (one, two) = (layer(rules(), &store), layer(rules(), &store));
    let held = hold(&one).await;
    assert_eq!(held.status(), OK);
    store.calls();
    let busy = Client::of(one.clone()).get("/").await;
    assert_eq!(busy.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(store.calls(), 0, "no slot, no question");
    assert_eq!(hold(&two).await.status(), OK, "one in each process");
    drop(held);
    assert_eq!(Client::of(one.clone()).get("/").await.status, OK);
    // Refused by the store, it holds no slot.
    for _ in 0..3 {
        let refused = Client::of(one.clone()).get("/").await;
        assert_eq!(
            (refused.status, refused.violated()),
            (REFUSED, vec!["get".to_owned()])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_wait_waits_for_the_store() {
    let store = Told::new();
    let rules = || {
        let limits = Limits::new()
            .rate(Rate::per_second(1))
            .max_wait(Duration::from_secs(3));
        Rules::new().route("GET /", limits)
    };
    let client = Arc::new(replica(rules(), &store));
    #[expect(
        clippy::disallowed_methods,
        reason = "a test reads the clock that it has paused"
    )]
    let now = Instant::now;
    let start = now();
    let line: Vec<_> = (0..6)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { (client.get("/").await.status, (now() - start).as_millis()) })
        })
        .collect();
    let mut seen = Vec::new();
    for waits in line {
        seen.push(waits.await.expect("no panic"));
    }
    let passed = [(OK, 0), (OK, 1_000), (OK, 2_000), (OK, 3_000)];
    assert_eq!(seen[..4], passed, "in the order in which they came");
    assert_eq!(
        seen[4..],
        [(REFUSED, 0); 2],
        "they would have waited too long"
    );
    assert!(
        store.calls() <= 9,
        "asked when its turn came, and once before"
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_finds_those_who_wait() {
    let store = Told::new();
    let rules = Rules::new().route(
        "GET /",
        Limits::new()
            .rate(Rate::per_second(1).burst(2))
            .max_wait(Duration::from_secs(3)),
    );
    let client = Arc::new(replica(rules, &store));
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status, OK);
    }
    let waits = {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.get("/").await.status })
    };
    sleep(Duration::from_millis(500)).await;
    store.does(Does::Fails);
    assert_eq!(waits.await.expect("no panic"), OK, "by this process's own");
    assert_eq!(client.get("/").await.status, OK);
    assert_eq!(client.get("/").await.status, OK, "after a second, alone");
}

#[tokio::test(start_paused = true)]
async fn model_tokens_are_settled_in_the_store() {
    let store = Told::new();
    let rules = || {
        let tokens = Limits::new().tokens(Rate::per_hour(1).burst(100));
        Rules::new()
            .route("GET /", tokens)
            .estimate(Estimate::fixed(30))
    };
    let (one, two) = (layer(rules(), &store), layer(rules(), &store));
    let used = |layer: &ThrottleLayer, used: u64| {
        use tower::{Layer, ServiceExt};
        let serve = tower::service_fn(move |request: Request<()>| async move {
            let usage = request.extensions().get::<Usage>().cloned();
            usage.expect("tokens are limited").settle(used);
            Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<bytes::Bytes>::new()))
        });
        let answer = layer
            .layer(serve)
            .oneshot(Request::get("/").body(()).expect("a request"));
        async {
            let answer = answer.await.unwrap_or_else(|never| match never {});
            let status = answer.status();
            drop(answer);
            // Requests do not wait for corrections.
            sleep(Duration::from_millis(300)).await;
            status
        }
    };
    assert_eq!(used(&one, 50).await, OK, "20 more than it had asked for");
    assert_eq!(
        used(&two, 10).await,
        OK,
        "20 less: 60 are used, 40 are left"
    );
    assert_eq!(used(&one, 90).await, OK, "and now 50 are owed");
    for layer in [&one, &two] {
        assert_eq!(used(layer, 0).await, REFUSED);
    }
    advance(Duration::from_secs(3_600 * 79)).await;
    assert_eq!(
        used(&two, 0).await,
        REFUSED,
        "29 of the 30 that it asks for"
    );
    advance(Duration::from_secs(3_600)).await;
    assert_eq!(used(&two, 0).await, OK);
}

/// Asks for so many tokens. The answer has the account of the request.
async fn ask_and_hold(
    layer: &ThrottleLayer,
    tokens: u64,
) -> http::Response<ResponseBody<Empty<bytes::Bytes>>> {
    use tower::{Layer, ServiceExt};
    let serve = |request: Request<()>| async move {
        let mut answer = http::Response::new(Empty::<bytes::Bytes>::new());
        let usage = request.extensions().get::<Usage>().cloned();
        let usage = usage.expect("tokens are limited");
        answer.extensions_mut().insert(usage);
        Ok::<_, std::convert::Infallible>(answer)
    };
    let request = Request::get("/").header("x-tokens", tokens);
    let request = request.body(()).expect("a request");
    let service = layer.layer(tower::service_fn(serve));
    let answer = service.oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

/// Returns the units of a total's only limit that are used, once one more request of ten tokens was admitted.
async fn used_of_total(layer: &ThrottleLayer) -> u64 {
    let answer = ask_and_hold(layer, 10).await;
    let decision = answer.extensions().get::<Decision>();
    let mut limits = decision.expect("a decision").limits();
    let limit = limits.next().expect("a limit");
    limit.burst() - limit.remaining() - limit.cost()
}

fn usage(answer: &http::Response<ResponseBody<Empty<bytes::Bytes>>>) -> &Usage {
    answer.extensions().get().expect("tokens are limited")
}

/// R25: units that came back while the call that owed them was under way took from what others owe, where it failed.
#[tokio::test(start_paused = true)]
async fn units_whose_debt_is_under_way_come_back_only_if_it_arrives() {
    let wait = Duration::from_millis(50);
    for does in [Does::Late(wait), Does::FailsLate(wait)] {
        let store = Told::new();
        let tokens = Limits::new().tokens(Rate::per_hour(1).burst(10_000));
        let rules = Rules::new()
            .total(tokens)
            .estimate(Estimate::by_header("x-tokens"));
        let layer = layer(rules, &store);
        let (one, other) = (
            ask_and_hold(&layer, 100).await,
            ask_and_hold(&layer, 300).await,
        );
        store.does(does);
        assert!(usage(&one).add(250));
        sleep(Duration::from_millis(1)).await;
        assert!(usage(&one).settle(60));
        sleep(wait).await;
        store.does(Does::Answers);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(used_of_total(&layer).await, 360, "{does:?}");
        drop((one, other));
    }
}

/// R25: what was owed in an outage is owed to the window in which it was used, and not to the next.
#[tokio::test(start_paused = true)]
async fn what_an_outage_holds_back_is_of_its_own_window() {
    let store = Told::new();
    let rules = Rules::new()
        .total(Limits::new().spend(Spend::per_day("0.01")))
        .prices(Prices::new().otherwise(Price::new().input("1").output("1")))
        .estimate(Estimate::by_header("x-tokens"));
    let layer = build(builder(rules, &store).on_outage(OnOutage::Refuse));
    let answer = ask_and_hold(&layer, 100).await;
    store.does(Does::Fails);
    drop(ask_and_hold(&layer, 10).await);
    assert!(usage(&answer).add(250));
    advance(Duration::from_secs(86_400)).await;
    store.does(Does::Answers);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(used_of_total(&layer).await, 0, "another day");
}

/// R20, over a store: such a request's correction had the bucket refilled by the rate that it was admitted by.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_settled_after_a_reload_brings_no_faster_rate_back() {
    let store = Told::new();
    let rules = |rate: u64| {
        let tokens = Limits::new().tokens(Rate::per_second(rate).burst(100));
        let estimate = Estimate::by_header("x-tokens").exact();
        Rules::new().total(tokens).estimate(estimate)
    };
    let layer = layer(rules(1_000), &store);
    let held = ask_and_hold(&layer, 10).await;
    let usage: &Usage = held.extensions().get().expect("an account");
    let reloaded = layer.handle().reload(rules(1));
    reloaded.expect("rules that hold together");
    assert_eq!(ask_and_hold(&layer, 90).await.status(), OK);
    usage.settle(11);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        ask_and_hold(&layer, 50).await.status(),
        REFUSED,
        "a token came back, not 1,000"
    );
}

/// R20, over a store: of two limits of one period the smaller is the first in the store. Where a reload puts another
/// before the one that a request was charged on, the request's correction had the bucket of the other refilled by the
/// rate of its own.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_settled_after_a_reload_brings_its_rate_to_no_other_limit() {
    type Scoped = fn(Limits) -> Rules;
    let scopes: [Scoped; 3] = [
        |limits| Rules::new().total(limits),
        |limits| Rules::new().default_route(limits),
        |limits| {
            let clients = Clients::by_header("x-api-key").secret(SECRET);
            Rules::new().clients(clients.each(limits))
        },
    ];
    let rules = |scoped: Scoped, (one, other): (u64, u64)| {
        let rate = |count| Rate::per_second(count).burst(100);
        let tokens = Limits::new().tokens(rate(one)).tokens(rate(other));
        scoped(tokens).estimate(Estimate::by_header("x-tokens").exact())
    };
    // (the rates before, those after, and what is left of both then)
    let changes = [
        // The first became the second, and the first is another.
        ((1_000, 5_000), (1, 1_000), [1, 99]),
        // The second became the first.
        ((1, 20), (20, 1_000), [20, 99]),
    ];
    let changes = changes
        .iter()
        .flat_map(|change| scopes.map(|scoped| (scoped, *change)));
    for (scoped, (before, after, left)) in changes {
        let store = Told::new();
        let layer = layer(rules(scoped, before), &store);
        let held = ask_and_hold(&layer, 10).await;
        let usage: &Usage = held.extensions().get().expect("an account");
        let reloaded = layer.handle().reload(rules(scoped, after));
        reloaded.expect("rules that hold together");
        assert_eq!(ask_and_hold(&layer, 90).await.status(), OK);
        usage.settle(9);
        // One comes back, as many as the rate says are refilled, and one is taken.
        sleep(Duration::from_secs(1)).await;
        let answer = ask_and_hold(&layer, 1).await;
        let decision = answer.extensions().get::<Decision>();
        let limits = decision.expect("a decision").limits();
        let told: Vec<_> = limits.map(|limit| limit.remaining()).collect();
        assert_eq!(told, left, "from {before:?} to {after:?} a second");
    }
}

/// R25, over a store: each limit has reserved another part of the estimate.
#[tokio::test(start_paused = true)]
async fn each_limit_in_the_store_is_charged_with_what_was_settled() {
    use tower::{Layer, ServiceExt};
    use tower_throttle::{Usage, usage::Estimate};
    // (settled, or dropped after so many were added; what is left of the route's 80 and the total's 1,000)
    for (settled, added, left) in [
        (Some(30), 0, [50, 970]),
        (Some(70), 0, [10, 930]),
        (Some(700), 0, [0, 300]),
        (None, 60, [20, 500]),
        (None, 0, [40, 500]),
    ] {
        let store = Told::new();
        let tokens = |burst| Limits::new().tokens(Rate::per_hour(1).burst(burst));
        let rules = Rules::new()
            .total(tokens(1_000))
            .route("GET /", tokens(80))
            .estimate(Estimate::fixed(100_000));
        let serve = tower::service_fn(move |request: Request<()>| async move {
            let usage = request.extensions().get::<Usage>().cloned();
            let usage = usage.expect("tokens are limited");
            assert_eq!(usage.reserved(), 40);
            match settled {
                Some(total) => usage.settle(total),
                None => usage.add(added),
            };
            Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<bytes::Bytes>::new()))
        });
        let layer = layer(rules, &store);
        let ask = || {
            let request = Request::get("/").body(()).expect("a request");
            layer.layer(serve).oneshot(request)
        };
        let answer = ask().await.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), OK, "a guess refuses nobody");
        drop(answer);
        // Requests do not wait for corrections.
        sleep(Duration::from_millis(300)).await;
        let probe = ask().await.unwrap_or_else(|never| match never {});
        let decision = probe.extensions().get::<Decision>();
        let limits = decision.expect("a decision").limits();
        let told: Vec<_> = limits
            .map(|limit| match probe.status() {
                OK => limit.remaining() + limit.cost(),
                _ => limit.remaining(),
            })
            .collect();
        assert_eq!(told, left, "{settled:?}, {added}");
    }
}

/// R8, over a store: a call of another method is charged on two routes.
#[tokio::test(start_paused = true)]
async fn what_a_request_of_two_routes_has_used_is_settled_in_the_store() {
    use tower::{Layer, ServiceExt};
    use tower_throttle::{Usage, usage::Estimate};
    const CALL: &str = "/package.Service/Method";
    let store = Told::new();
    let ask = async || {
        let tokens = |burst| Limits::new().tokens(Rate::per_hour(1).burst(burst));
        let rules = Rules::new()
            .route(format!("POST {CALL}"), tokens(100))
            .route(format!("PUT {CALL}"), tokens(200))
            .estimate(Estimate::fixed(30));
        let serve = tower::service_fn(|request: Request<()>| async move {
            let usage = request.extensions().get::<Usage>().cloned();
            usage.expect("tokens are limited").settle(10);
            Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<bytes::Bytes>::new()))
        });
        let request = Request::put(CALL).body(()).expect("a request");
        let answer = layer(rules, &store).layer(serve).oneshot(request).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        let decision = answer.extensions().get::<Decision>();
        let limits = decision.expect("a decision").limits();
        let before: Vec<_> = limits
            .map(|limit| limit.remaining() + limit.cost())
            .collect();
        drop(answer);
        // Requests do not wait for corrections.
        sleep(Duration::from_millis(300)).await;
        before
    };
    assert_eq!(ask().await, [200, 100]);
    assert_eq!(ask().await, [190, 90]);
}

#[tokio::test(start_paused = true)]
async fn a_cost_above_what_a_bucket_holds_is_no_question() {
    let store = Told::new();
    let rules = Rules::new()
        .route("GET /", Limits::new().tokens(Rate::per_hour(1).burst(10)))
        .estimate(Estimate::fixed(11).exact());
    let refused = replica(rules, &store).get("/").await;
    assert_eq!((refused.status, refused.wait()), (REFUSED, None));
    assert_eq!(store.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_set_wrong_is_an_error_that_says_so() {
    let by_key = || Clients::by_header("x-api-key").each(Rate::per_second(1));
    let rules = |clients| Rules::new().clients(clients);
    let store = Told::new();
    let builder = |clients| ThrottleLayer::builder(rules(clients));
    let share = |builder: ThrottleLayerBuilder| builder.store(store.clone()).build();
    let refused = share(builder(by_key())).map(|_| ());
    assert_eq!(refused, Err(RulesError::NoSecret));
    let short = builder(by_key().secret("fifteen bytes ?")).build();
    let short = short.map(|_| ());
    assert!(
        matches!(short, Err(RulesError::Secret { length: 15, .. })),
        "{short:?}"
    );
    let shared = share(builder(by_key().secret(SECRET))).expect("proper rules");
    let handle = shared.handle();
    for clients in [by_key(), by_key().secret([8; 16])] {
        let changed = handle.reload(rules(clients)).map(|_| ());
        assert_eq!(changed, Err(RulesError::SecretFixed));
    }
    let clients = by_key().secret(SECRET);
    assert!(handle.reload(rules(clients)).is_ok());
    // Those whom nothing limits have no buckets.
    let free = Clients::by_header("x-api-key").each(Limits::unlimited());
    let unlimited = share(builder(free)).expect("nothing to hash");
    let handle = unlimited.handle();
    let changed = handle.reload(rules(by_key())).map(|_| ());
    assert_eq!(changed, Err(RulesError::NoSecret));
}

#[tokio::test(start_paused = true)]
async fn of_two_stores_the_last_one_counts() {
    let (first, last) = (Told::new(), Told::new());
    let client = Client::with(builder(rate(4), &first).store(last.clone()));
    assert_eq!(client.get("/").await.status, OK);
    assert_eq!((first.calls(), last.calls()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_used_stays_used_when_replicas_are_reloaded_one_after_the_other() {
    let store = Told::new();
    let (first, second) = (replica(rate(4), &store), replica(rate(4), &store));
    for client in [&first, &second, &first] {
        assert_eq!(client.get("/").await.status, OK);
    }
    let larger = || Rules::new().default_route(Rate::per_second(1).burst(6));
    first.handle().reload(larger()).expect("proper rules");
    let left = |answer: &Answer| {
        answer
            .decision()
            .limits()
            .next()
            .map(|limit| limit.remaining())
    };
    assert_eq!(left(&first.get("/").await), Some(2), "four of six");
    assert_eq!(second.get("/").await.status, REFUSED, "four of four");
    second.handle().reload(larger()).expect("proper rules");
    assert_eq!(left(&second.get("/").await), Some(1));
}

#[tokio::test(start_paused = true)]
async fn shadows_are_shared_and_refuse_nobody() {
    let store = Told::new();
    let rules = || {
        let limits = Limits::new()
            .rate(Rate::per_hour(1).burst(9))
            .rate(Rate::per_hour(1).burst(2).named("planned").shadow());
        Rules::new().route("GET /", limits)
    };
    let (one, two) = (replica(rules(), &store), replica(rules(), &store));
    for (client, refused) in [(&one, false), (&two, false), (&one, true), (&two, true)] {
        let answer = client.get("/").await;
        assert_eq!(answer.status, OK);
        let shadow: Vec<_> = answer
            .decision()
            .shadow()
            .map(|limit| limit.is_refused())
            .collect();
        assert_eq!(shadow, [refused]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_slot_lets_others_work() {
    let store = Told::new();
    let limits = Limits::new()
        .rate(Rate::per_hour(1).burst(3))
        .in_flight(1)
        .max_wait(Duration::from_secs(3));
    let layer = layer(Rules::new().route("GET /", limits), &store);
    let held = hold(&layer).await;
    let client = Arc::new(Client::of(layer));
    let start = now();
    let waiting = (0..2).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.get("/").await.status })
    });
    let waiting: Vec<_> = waiting.collect();
    sleep(Duration::from_millis(100)).await;
    store.calls();
    drop(held);
    for one in waiting {
        assert_eq!(one.await.expect("no panic"), OK);
    }
    assert!(
        start.elapsed() < Duration::from_millis(110),
        "when it is free"
    );
    assert_eq!(store.calls(), 2, "once for each");
}

#[tokio::test(start_paused = true)]
async fn a_reload_in_an_outage_is_followed() {
    let store = Told::new();
    let rules = |rate| Rules::new().total(Rate::per_second(rate).burst(4));
    for patient in [false, true] {
        let rules = |rate| match patient {
            false => rules(rate),
            true => Rules::new().total(
                Limits::new()
                    .rate(Rate::per_second(rate).burst(4))
                    .max_wait(Duration::from_secs(1)),
            ),
        };
        let builder = builder(rules(10), &store).on_outage(OnOutage::Local { share: 1 });
        let client = Client::with(builder);
        let handle = client.handle();
        // Its share here is told in the old terms.
        store.does(Does::Fails);
        assert_eq!(client.get("/").await.status, OK);
        store.does(Does::Answers);
        sleep(Duration::from_secs(2)).await;
        store.does(Does::Late(Duration::from_millis(40)));
        let reload = async {
            sleep(Duration::from_millis(5)).await;
            handle.reload(rules(20)).expect("rules");
        };
        let (answer, ()) = tokio::join!(client.get("/"), reload);
        assert_eq!(answer.status, OK);
        store.does(Does::Answers);
        sleep(Duration::from_secs(2)).await;
    }
}

#[test]
fn an_outage_that_a_runtime_has_found_is_ended_in_another() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let builder = builder.enable_time().start_paused(true);
        builder.build().expect("a runtime")
    };
    let store = Told::new();
    let client = Client::with(builder(rate(100), &store).on_outage(OnOutage::Refuse));
    let down = runtime();
    store.does(Does::Late(Duration::from_secs(1)));
    assert_eq!(
        down.block_on(client.get("/")).status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    drop(down);
    store.does(Does::Answers);
    runtime().block_on(async {
        assert_eq!(
            client.get("/").await.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "nobody knows yet"
        );
        sleep(Duration::from_millis(1)).await;
        assert_eq!(client.get("/").await.status, OK, "somebody asks again");
    });
    // The task that watched deadlines has gone with its runtime, too.
    store.does(Does::Late(Duration::from_secs(1)));
    let first = runtime();
    first.block_on(async {
        tokio::select! {
            _ = client.get("/") => panic!("it has not been answered"),
            () = sleep(Duration::from_millis(5)) => {}
        }
    });
    drop(first);
    let start = std::cell::Cell::new(None);
    let took = runtime().block_on(async {
        start.set(Some(now()));
        let answer = client.get("/").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        start.get().map(|start| start.elapsed())
    });
    assert!(took < Some(Duration::from_millis(40)), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn replicas_without_a_store_admit_the_greater_of_the_burst_and_their_number() {
    const REPLICAS: u32 = 20;
    // (the burst, what all replicas together admit of it)
    for (burst, most) in [(1, 20), (19, 20), (20, 20), (50, 40), (60, 60)] {
        let store = Told::new();
        store.does(Does::Fails);
        let mut admitted = 0;
        for _ in 0..REPLICAS {
            let share = OnOutage::Local { share: REPLICAS };
            let client = Client::with(builder(rate(burst), &store).on_outage(share));
            for _ in 0..5 {
                admitted += u64::from(client.get("/").await.status == OK);
            }
        }
        assert_eq!(admitted, most, "a burst of {burst}");
    }
}

/// Limits of which a process has half in an outage; its slots are its own.
fn halved(slots: u64, wait: Duration) -> Rules {
    let limits = Limits::new()
        .rate(Rate::per_minute(10).burst(4).named("calls"))
        // Its window ends in 2038.
        .quota(Quota::per(9, Duration::from_secs(1 << 31)).named("era"))
        .in_flight(InFlight::new(slots).named("slots"))
        .max_wait(wait);
    Rules::new().route("GET /", limits)
}

const HALF: &str = "\"calls\";q=10;w=120;throttle-burst=2, \"era\";q=4;w=2147483648";

/// All that is told of limits: their names, what they hold when full, what remains, and for how long.
fn told_of(answer: &Answer) -> Vec<(String, u64, u64, Option<Duration>)> {
    let limits = answer.decision().limits();
    let told = limits.map(|limit| {
        let name = limit.name().to_owned();
        (name, limit.burst(), limit.remaining(), limit.wait())
    });
    told.collect()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_an_outage_tells_of_the_share_that_refused() {
    let share = OnOutage::Local { share: 2 };
    // Decided at once, or where those are decided who may wait.
    for wait in [Duration::ZERO, Duration::from_secs(2)] {
        let store = Told::new();
        let builder = builder(halved(5, wait), &store).on_outage(share);
        let client = Client::with(builder.stagger_retry_after(false));
        let whole = client.get("/").await;
        let policy = whole.header("ratelimit-policy").expect("a field");
        assert!(policy.starts_with("\"calls\";q=10;w=60;throttle-burst=4, \"era\";q=9;"));
        store.does(Does::Fails);
        for left in [1, 0] {
            let answer = client.get("/").await;
            assert_eq!(answer.status, OK);
            assert_eq!(answer.header("ratelimit-policy"), Some(HALF), "{wait:?}");
            let told = told_of(&answer);
            assert_eq!(told[0], ("calls".to_owned(), 2, left, Some(Duration::ZERO)));
            assert_eq!(
                told[1],
                ("era".to_owned(), 4, left + 2, Some(Duration::ZERO))
            );
        }
        let emptied = now();
        // In the second outage the first request has asked the store when it is found.
        for outage in 0..2 {
            for request in 0..2 {
                let what = format!("{wait:?}, outage {outage}, request {request}");
                let refused = client.get("/").await;
                assert_eq!(refused.status, REFUSED, "{what}");
                assert_eq!(refused.header("ratelimit-policy"), Some(HALF), "{what}");
                let limits = refused.header("ratelimit").expect("a field");
                assert!(
                    limits.starts_with("\"calls\";r=0;t=12, \"era\";r=2;t="),
                    "{what}: {limits}"
                );
                assert_eq!(refused.header("retry-after"), Some("12"), "{what}");
                assert_eq!(
                    refused.json()["violated-policies"],
                    serde_json::json!(["calls"])
                );
                let calls = Some(Duration::from_secs(12) - (now() - emptied));
                let told = [
                    ("calls".to_owned(), 2, 0, calls),
                    ("era".to_owned(), 4, 2, Some(Duration::ZERO)),
                    ("slots".to_owned(), 5, 5, Some(Duration::ZERO)),
                ];
                assert_eq!(told_of(&refused), told, "{what}");
                assert_eq!(refused.wait(), calls, "{what}");
                let mut limits = refused.decision().limits();
                let rate = limits.next().and_then(|limit| limit.rate().cloned());
                let rate = rate.expect("a rate");
                assert_eq!(
                    (rate.count(), rate.period()),
                    (10, Duration::from_secs(120))
                );
                let quota = limits.next().and_then(|limit| limit.quota().cloned());
                assert_eq!(quota.map(|quota| quota.count()), Some(4), "{what}");
            }
            store.does(Does::Answers);
            store.calls();
            while store.calls() == 0 {
                advance(Duration::from_millis(1)).await;
                tokio::task::yield_now().await;
            }
            store.does(Does::Fails);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_in_an_outage_is_told_of_the_share() {
    let store = Told::new();
    store.does(Does::Fails);
    let share = OnOutage::Local { share: 2 };
    let builder = builder(halved(1, Duration::from_secs(2)), &store);
    let layer = build(builder.on_outage(share));
    let held = hold(&layer).await;
    assert_eq!(held.status(), OK);
    let start = now();
    let refused = Client::of(layer).get("/").await;
    assert_eq!(now() - start, Duration::from_secs(2));
    assert_eq!(
        refused.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "all slots are taken"
    );
    assert_eq!(refused.header("ratelimit-policy"), Some(HALF));
    let told = [
        ("calls".to_owned(), 2, 1, Some(Duration::ZERO)),
        ("era".to_owned(), 4, 3, Some(Duration::ZERO)),
        ("slots".to_owned(), 1, 0, Some(Duration::from_secs(1))),
    ];
    assert_eq!(told_of(&refused), told);
    assert_eq!(refused.violated(), ["slots"]);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_by_its_share_is_not_charged_too_late() {
    let store = Told::new();
    let builder = builder(rate(10), &store).on_outage(OnOutage::Local { share: 10 });
    let client = Arc::new(Client::with(builder));
    store.does(Does::Late(Duration::from_millis(60)));
    let crowd = (0..6).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.get("/").await.status })
    });
    let mut admitted = 0;
    for one in crowd.collect::<Vec<_>>() {
        admitted += u32::from(one.await.expect("no panic") == OK);
    }
    assert_eq!(admitted, 1, "a tenth of ten");
    store.does(Does::Answers);
    sleep(Duration::from_secs(1)).await;
    let other = replica(rate(10), &store);
    let answer = other.get("/").await;
    let told = answer.decision().limits().next();
    assert_eq!(
        told.map(|limit| limit.remaining()),
        Some(8),
        "one was let through, and this one"
    );
}

#[tokio::test(start_paused = true)]
async fn who_stands_in_line_keeps_its_place_and_its_time_in_an_outage() {
    let store = Told::new();
    let limits = Limits::new()
        .rate(Rate::new(1, Duration::from_millis(1_300)).burst(1))
        .max_wait(Duration::from_millis(2_700));
    let rules = Rules::new().route("GET /", limits);
    let builder = builder(rules, &store).on_outage(OnOutage::Local { share: 1 });
    let client = Arc::new(Client::with(builder));
    assert_eq!(client.get("/").await.status, OK);
    let start = now();
    let waits = || {
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            let status = client.get("/").await.status;
            (status, start.elapsed().as_millis())
        })
    };
    let first = waits();
    sleep(Duration::from_millis(10)).await;
    let second = waits();
    sleep(Duration::from_millis(500)).await;
    store.does(Does::Fails);
    // When it asks, it is decided here, where the bucket is full; and the next in 1,300 ms.
    let first = first.await.expect("no panic");
    assert!(
        first.0 == OK && (1_300..1_320).contains(&first.1),
        "{first:?}"
    );
    let second = second.await.expect("no panic");
    assert!(
        second.0 == OK && (2_600..2_640).contains(&second.1),
        "{second:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_remains_of_tokens_is_what_the_store_told() {
    use tower::{Layer, ServiceExt, service_fn};
    use tower_throttle::{Usage, usage::Estimate};
    let store = Told::new();
    let rules = Rules::new()
        .total(Limits::new().tokens(Rate::per_hour(1).burst(100)))
        .estimate(Estimate::fixed(90).exact());
    let serve = service_fn(|request: Request<()>| async move {
        let usage = request
            .extensions()
            .get::<Usage>()
            .expect("tokens are limited");
        Ok::<_, std::convert::Infallible>(http::Response::new(usage.remaining().to_string()))
    });
    let answer = layer(rules, &store)
        .layer(serve)
        .oneshot(Request::new(()))
        .await;
    let body = answer.unwrap_or_else(|never| match never {}).into_body();
    let told = http_body_util::BodyExt::collect(body)
        .await
        .unwrap_or_else(|never| match never {});
    assert_eq!(told.to_bytes(), "100", "90 reserved, and ten that are left");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_without_a_question_tells_of_all_limits() {
    let store = Told::new();
    let limits = Limits::new()
        .rate(Rate::per_hour(1).burst(3))
        .quota(Quota::per_day(1_000));
    let rules = Rules::new().route("GET /", limits);
    let client = replica(rules.clone(), &store);
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, OK);
    }
    store.calls();
    let remain = |answer: &Answer| -> Vec<_> {
        let limits = answer.decision().limits();
        limits.map(|limit| limit.remaining()).collect()
    };
    let known = client.get("/").await;
    assert_eq!((known.status, store.calls()), (REFUSED, 0));
    // A replica that remembers nothing asks.
    let asked = replica(rules, &store).get("/").await;
    assert_eq!((asked.status, store.calls()), (REFUSED, 1));
    assert_eq!(remain(&known), remain(&asked));
    assert_eq!(known.header("ratelimit"), asked.header("ratelimit"));
    assert!(remain(&known).contains(&997), "{:?}", remain(&known));
}

/// A refusal after a wait for a slot is about the slot alone, since the balances in the store are not known.
#[tokio::test(start_paused = true)]
async fn who_has_waited_for_a_slot_in_vain_costs_no_question() {
    let store = Told::new();
    let limits = Limits::new()
        .rate(Rate::per_hour(1).burst(3).named("calls"))
        .in_flight(InFlight::new(1).named("slots"))
        .max_wait(Duration::from_secs(1));
    let layer = layer(Rules::new().route("GET /", limits), &store);
    let held = hold(&layer).await;
    assert_eq!(held.status(), OK);
    store.calls();
    let refused = Client::of(layer).get("/").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.violated(), ["slots"]);
    let told = told_of(&refused);
    assert_eq!((told.len(), &*told[0].0), (1, "slots"), "{told:?}");
    assert_eq!(store.calls(), 0);
}

/// A request that is refused behind others in a queue gets a wait from all buckets, none of which is remembered.
#[tokio::test(start_paused = true)]
async fn who_finds_the_line_too_long_is_told_a_wait_from_all_buckets() {
    let store = Told::new();
    let clients = Clients::by_header("x-api-key")
        .each(Limits::new().quota(Quota::per_day(1)))
        .secret(SECRET);
    let limits = Limits::new()
        .rate(Rate::per_second(1).burst(1))
        .max_wait(Duration::from_millis(1_500));
    let rules = Rules::new().route("GET /a", limits).clients(clients);
    let client = Arc::new(replica(rules, &store));
    assert_eq!(get_as(&client, "/b", "spent").await.status, OK);
    // So long ago that it is forgotten.
    advance(Duration::from_secs(11)).await;
    assert_eq!(get_as(&client, "/a", "first").await.status, OK);
    let second = Arc::clone(&client);
    let second = tokio::spawn(async move { get_as(&second, "/a", "second").await.status });
    sleep(Duration::from_millis(1)).await;
    store.calls();
    let refused = get_as(&client, "/a", "spent").await;
    assert_eq!((refused.status, store.calls()), (REFUSED, 1), "it is asked");
    let wait = refused.wait().expect("tomorrow");
    assert_eq!(second.await.expect("no panic"), OK);
    advance(wait).await;
    assert_eq!(get_as(&client, "/a", "spent").await.status, OK, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_largest_request_is_set_for_is_remembered_like_any_limit() {
    for most in [None, Some(100), Some(5)] {
        let store = Told::new();
        let tokens = Limits::new().tokens(Rate::per_hour(1).burst(10));
        let tokens = match most {
            Some(most) => tokens.max_tokens_per_request(most),
            None => tokens,
        };
        let rules = Rules::new()
            .route("GET /", tokens)
            .estimate(Estimate::fixed(5));
        let client = replica(rules, &store);
        for _ in 0..2 {
            assert_eq!(client.get("/").await.status, OK, "{most:?}");
        }
        store.calls();
        for _ in 0..3 {
            assert_eq!(client.get("/").await.status, REFUSED, "{most:?}");
        }
        assert_eq!(store.calls(), 0, "{most:?}: no question");
    }
}

/// An undeclared route that is entered after the reload that has made it possible again.
#[tokio::test(start_paused = true)]
async fn a_route_that_is_entered_after_a_reload_is_corrected_in_its_present_terms() {
    let rules = |rate: u64, undeclared: tower_throttle::rules::Undeclared| {
        let tokens = Limits::new().tokens(Rate::per_second(rate).burst(100));
        let estimate = Estimate::by_header("x-tokens").exact();
        Rules::new()
            .default_route(tokens)
            .undeclared(undeclared)
            .estimate(estimate)
    };
    for direct in [true, false] {
        let store = Told::new();
        let layer = layer(
            rules(1_000, tower_throttle::rules::Undeclared::default()),
            &store,
        );
        let held = ask_and_hold(&layer, 10).await;
        let usage: &Usage = held.extensions().get().expect("an account");
        if !direct {
            layer
                .handle()
                .reload(rules(1, tower_throttle::rules::Undeclared::Shared))
                .expect("rules");
        }
        layer
            .handle()
            .reload(rules(1, tower_throttle::rules::Undeclared::default()))
            .expect("rules");
        assert_eq!(ask_and_hold(&layer, 90).await.status(), OK);
        usage.settle(11);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            ask_and_hold(&layer, 50).await.status(),
            REFUSED,
            "direct: {direct}"
        );
    }
}

/// One reload: a key becomes an undeclared route of the host's router, which a store knows by the same name.
#[tokio::test(start_paused = true)]
async fn a_route_that_a_key_has_become_is_corrected_in_its_present_terms() {
    use tower::ServiceExt;
    let tokens = |rate: u64| Limits::new().tokens(Rate::per_second(rate).burst(100));
    let estimate = || Estimate::by_header("x-tokens").exact();
    let before = Rules::new().default_route(tokens(1));
    let before = before.route("GET /", tokens(1_000)).estimate(estimate());
    let after = Rules::new().default_route(tokens(1)).estimate(estimate());
    let store = Told::new();
    let layer = layer(before, &store);
    let serve = |usage: axum::extract::Extension<Usage>| async move {
        let mut answer = axum::response::Response::new(axum::body::Body::empty());
        answer.extensions_mut().insert(usage.0);
        answer
    };
    let app = axum::Router::new()
        .route("/", axum::routing::get(serve))
        .layer(layer.clone());
    let ask = |tokens: u64| {
        let request = Request::get("/").header("x-tokens", tokens);
        let request = request.body(axum::body::Body::empty()).expect("a request");
        app.clone().oneshot(request)
    };
    let held = ask(10).await.expect("an answer");
    let usage: &Usage = held.extensions().get().expect("an account");
    layer.handle().reload(after).expect("rules");
    assert_eq!(ask(90).await.expect("an answer").status(), OK);
    usage.settle(11);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ask(50).await.expect("an answer").status(), REFUSED);
}
