//! R21: a custom store can do all that the crate's stores do. This one uses only public items, and keeps the promises
//! of a store and the bound of a throttle.

mod common;
#[path = "support/second_store.rs"]
mod second_store;
#[path = "support/windows.rs"]
mod windows;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Answer, Client, build};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use second_store::{SecondStore, window_end};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Limits, Quota, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder, Usage,
    store::{Budget, Charge, OnOutage, Store, conformance},
    usage::Estimate,
};
use windows::too_many;

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const MS: Duration = Duration::from_millis(1);
const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 24 * 60 * 60 * SECOND;

/// A Thursday, 28 January 2027, ten seconds before midnight UTC.
const LATE: u64 = 20_847 * DAY - 10 * SECOND;

#[expect(clippy::disallowed_methods, reason = "paused time")]
fn now() -> Instant {
    Instant::now()
}

fn builder(rules: Rules, store: &SecondStore) -> ThrottleLayerBuilder {
    ThrottleLayer::builder(rules).store(store.clone())
}

/// Two replicas with a connection each.
fn replicas(rules: impl Fn() -> Rules, store: &SecondStore) -> [Client; 2] {
    [(); 2].map(|()| Client::with(builder(rules(), &store.connect())))
}

fn remaining(answer: &Answer) -> Option<u64> {
    let mut limits = answer.decision().limits();
    limits.next().map(|limit| limit.remaining())
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_promises_of_a_store() {
    conformance::check(Arc::new(SecondStore::starting_at(LATE))).await;
}

#[test]
fn its_windows_end_when_those_of_a_budget_do() {
    let quotas = [
        Quota::per_day(1),
        Quota::per_week(1),
        Quota::per_month(1),
        Quota::per(1, Duration::from_secs(7_001)),
        Quota::per(1, Duration::from_nanos(1)),
    ];
    for quota in quotas {
        let budget = Budget::of_quota(&quota).expect("open");
        let window = budget.window().expect("a quota has one");
        // Fifty years in steps of some hours, and both sides of each end.
        for step in 0..40_000 {
            let now = step * 11 * 3_600 * SECOND;
            let end = budget.full_state(now);
            assert_eq!(window_end(window, now), end, "{window:?} at {now}");
            assert_eq!(window_end(window, end - 1), end, "{window:?} before {end}");
            assert_eq!(
                window_end(window, end),
                budget.full_state(end),
                "{window:?} at {end}"
            );
        }
    }
}

/// R1: in no window is more let through than one bucket gives, and nearly all that the bucket gives is let through.
#[tokio::test(start_paused = true)]
async fn two_replicas_let_through_what_one_bucket_gives_and_no_more() {
    const BURST: u64 = 5;
    const INTERVAL: u64 = SECOND / 10;
    let rules = || Rules::new().total(Rate::per_second(10).burst(BURST));
    for lease in [1, 4] {
        let store = SecondStore::starting_at(LATE);
        let start = now();
        let replicas = [(); 2].map(|()| {
            let store = store.connect();
            store.answers_after(3 * MS);
            let builder = builder(rules(), &store).lease(lease);
            let client = Arc::new(Client::with(builder));
            // Each asks every 7 ms, and more often than that at once.
            let asks = (0..1_000).map(move |turn| {
                let client = Arc::clone(&client);
                tokio::spawn(async move {
                    sleep(MS * 7 * (turn / 2)).await;
                    let asked = start.elapsed();
                    let status = client.get("/").await.status;
                    (status, asked, start.elapsed())
                })
            });
            asks.collect::<Vec<_>>()
        });
        let mut admitted = Vec::new();
        for asks in replicas {
            let mut own = 0;
            for ask in asks {
                let (status, asked, answered) = ask.await.expect("no panic");
                assert!([OK, REFUSED].contains(&status), "{status}");
                if status == OK {
                    let nanos = |time: Duration| u64::try_from(time.as_nanos()).expect("seconds");
                    admitted.push((nanos(asked), nanos(answered)));
                    own += 1;
                }
            }
            assert!(own > 0, "each gets some");
        }
        assert_eq!(
            too_many(&admitted, BURST, INTERVAL),
            None,
            "{lease} at once"
        );
        // 3.5 seconds.
        let gives = BURST + 3_500 / 100;
        let admitted = admitted.len() as u64;
        assert!(admitted <= gives, "{admitted} of {gives}, {lease} at once");
        // A unit that comes back is asked for within 7 ms; what is leased at the end stays unspent.
        let least = if lease == 1 { 38 } else { 34 };
        assert!(admitted >= least, "{admitted} of {gives}, {lease} at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_its_limit_and_tells_its_wait() {
    let store = SecondStore::starting_at(LATE);
    let rules = || {
        Rules::new()
            .total(Rate::per_second(1).burst(100))
            .route("GET /chat", Rate::per_second(4).burst(2).named("chat"))
    };
    let replicas = replicas(rules, &store);
    for (index, client) in replicas.iter().enumerate() {
        let answer = client.get("/chat").await;
        assert_eq!(answer.status, OK);
        let header = format!("\"chat\";r={};t=1", 1 - index);
        assert_eq!(answer.header("ratelimit"), Some(&*header));
    }
    for client in &replicas {
        let refused = client.get("/chat").await;
        assert_eq!(
            (refused.status, refused.violated()),
            (REFUSED, vec!["chat".to_owned()])
        );
        assert_eq!(
            refused.wait(),
            Some(250 * MS),
            "of one that both have emptied"
        );
    }
    advance(249 * MS).await;
    assert_eq!(replicas[1].get("/chat").await.status, REFUSED);
    advance(MS).await;
    assert_eq!(replicas[0].get("/chat").await.status, OK);
    assert_eq!(replicas[1].get("/chat").await.status, REFUSED);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_by_one_limit_is_taken_from_no_other() {
    let store = SecondStore::starting_at(LATE);
    let rules = || {
        Rules::new()
            .total(Rate::per_hour(1).burst(10))
            .route("GET /few", Rate::per_hour(1).burst(2))
    };
    let replicas = replicas(rules, &store);
    let mut statuses = Vec::new();
    for turn in 0..8 {
        statuses.push(replicas[turn % 2].get("/few").await.status);
    }
    assert_eq!(
        statuses,
        [OK, OK, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED]
    );
    let mut others = 0;
    while replicas[others % 2].get("/other").await.status == OK {
        others += 1;
    }
    assert_eq!(others, 8, "ten in all");
}

#[tokio::test(start_paused = true)]
async fn what_came_too_late_or_for_nobody_is_given_back() {
    let rules = || Rules::new().default_route(Rate::per_hour(1).burst(4));
    // An answer after the deadline of 25 ms.
    let store = SecondStore::starting_at(LATE);
    let (slow, other) = (store.connect(), Client::with(builder(rules(), &store)));
    let client = Client::with(builder(rules(), &slow).on_outage(OnOutage::Refuse));
    slow.answers_after(40 * MS);
    assert_eq!(
        client.get("/").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        remaining(&other.get("/").await),
        Some(2),
        "by now it is taken"
    );
    sleep(100 * MS).await;
    assert_eq!(
        remaining(&other.get("/").await),
        Some(2),
        "and has come back"
    );

    // A client that has gone.
    let store = SecondStore::starting_at(LATE);
    let (slow, other) = (store.connect(), Client::with(builder(rules(), &store)));
    let client = Client::with(builder(rules(), &slow));
    slow.answers_after(10 * MS);
    tokio::select! {
        _ = client.get("/") => panic!("it has not been answered"),
        () = sleep(5 * MS) => {}
    }
    sleep(100 * MS).await;
    assert_eq!(
        remaining(&other.get("/").await),
        Some(3),
        "one of four, its own"
    );
}

#[tokio::test(start_paused = true)]
async fn model_tokens_are_settled_by_any_replica() {
    let store = SecondStore::starting_at(LATE);
    let rules = || {
        let tokens = Limits::new().tokens(Rate::per_hour(1).burst(100));
        let rules = Rules::new().route("GET /", tokens);
        rules.estimate(Estimate::fixed(30))
    };
    let layers = [(); 2].map(|()| build(builder(rules(), &store.connect())));
    let used = async |replica: usize, used: u64| {
        let serve = service_fn(move |request: Request<()>| async move {
            let usage = request.extensions().get::<Usage>().cloned();
            usage.expect("tokens are limited").settle(used);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let request = Request::get("/").body(()).expect("a request");
        let answer = layers[replica].layer(serve).oneshot(request).await;
        let status = answer.unwrap_or_else(|never| match never {}).status();
        // Requests do not wait for corrections.
        sleep(300 * MS).await;
        status
    };
    assert_eq!(used(0, 50).await, OK, "20 more than it had asked for");
    assert_eq!(used(1, 10).await, OK, "20 less: 60 are used, 40 are left");
    assert_eq!(used(0, 90).await, OK, "and now 50 are owed");
    for replica in [0, 1] {
        assert_eq!(used(replica, 0).await, REFUSED);
    }
    // 80 hours until 30 can be had, less the three seconds of this test.
    advance(Duration::from_secs(3_600 * 80 - 10)).await;
    assert_eq!(used(1, 0).await, REFUSED, "29 of the 30 that it asks for");
    advance(Duration::from_secs(10)).await;
    assert_eq!(used(1, 0).await, OK);
}

#[tokio::test(start_paused = true)]
async fn quotas_begin_anew_by_the_store_s_calendar() {
    let second = |seconds: u64| Duration::from_secs(seconds);
    let days = |days: u64| second(days * 86_400);
    // (a quota of three, how long its window still lasts)
    let table = [
        (Quota::per_day(3), second(10)),
        // Until Monday, and until the first of February.
        (Quota::per_week(3), days(3) + second(10)),
        (Quota::per_month(3), days(3) + second(10)),
        (Quota::per(3, second(3_600)), second(10)),
        (Quota::per(3, second(7_036)), second(30)),
    ];
    for (quota, lasts) in table {
        let store = SecondStore::starting_at(LATE);
        let rules = || Rules::new().total(Limits::new().quota(quota.clone()));
        // Their own clocks show what this machine's does: it is the store's that counts.
        let replicas = replicas(rules, &store);
        let mut statuses = Vec::new();
        for turn in 0..4 {
            statuses.push(replicas[turn % 2].get("/").await.status);
        }
        assert_eq!(statuses, [OK, OK, OK, REFUSED], "{quota:?}");
        for client in &replicas {
            let refused = client.get("/").await;
            assert_eq!(refused.wait(), Some(lasts), "{quota:?}");
        }
        advance(lasts - MS).await;
        for client in &replicas {
            assert_eq!(client.get("/").await.status, REFUSED, "{quota:?}");
        }
        advance(MS).await;
        let answer = replicas[1].get("/").await;
        assert_eq!(
            (answer.status, remaining(&answer)),
            (OK, Some(2)),
            "{quota:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn leased_units_come_back_before_a_replica_ends() {
    let store = SecondStore::starting_at(LATE);
    let rules = || Rules::new().total(Limits::new().quota(Quota::per_month(40)));
    let client = Client::with(builder(rules(), &store.connect()).lease(50));
    let handle = client.handle();
    let other = Client::with(builder(rules(), &store.connect()));
    assert_eq!(client.get("/").await.status, OK);
    let left = remaining(&other.get("/").await).expect("a quota");
    assert!(left < 38, "of 40 two are used, and some are leased: {left}");
    handle.return_leases().await;
    let left = remaining(&other.get("/").await);
    assert_eq!(left, Some(37), "three are used, and none is leased");
}

#[tokio::test(start_paused = true)]
async fn a_database_that_has_gone_is_an_outage() {
    let store = SecondStore::gone();
    let budget = Budget::of_rate(&Rate::per_second(1)).expect("open");
    let key = tower_throttle::store::BucketKey::new("total/rate-1s", None);
    let error = store.take(&[Charge::new(key, budget, 1)]).await;
    let error = error.expect_err("nobody is there");
    assert!(error.is_unavailable());
    let rules = Rules::new().total(Rate::per_second(1).burst(3));
    let client = Client::with(builder(rules, &store).on_outage(OnOutage::Refuse));
    assert_eq!(
        client.get("/").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}
