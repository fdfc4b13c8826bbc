//! R22 for operators: each refusal names its limit, its route and the wait; a flood of them is sampled.

mod common;
#[path = "support/log.rs"]
mod log;
#[path = "support/told.rs"]
mod told;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::{advance, sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{Clients, Limits, Rate, Rules, ThrottleLayer, body::Hold, usage::Estimate};
use tracing::{Level, Metadata};

use common::Client;
use log::{Filter, Log};
use told::{Does, Told};

async fn ask(client: &Client, path: &str) {
    let request = Request::get(path).header("x-api-key", "secret-of-a-client");
    client
        .send(request.body(Empty::<Bytes>::new()).expect("a request"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_one_line_and_a_flood_is_ten_a_second() {
    let log = Log::default();
    let _guard = log.listen();
    let rules = Rules::new()
        .default_route(Rate::per_minute(1).burst(1).named("slow"))
        .route("GET /closed", Rate::per_second(0).named("shut"))
        .clients(
            Clients::by_header("x-api-key")
                .each(Rate::per_second(99))
                .plan("pro", Rate::per_second(99))
                .member("pro", "secret-of-a-client"),
        );
    let client = Client::with(ThrottleLayer::builder(rules).stagger_retry_after(false));
    ask(&client, "/secret").await;
    assert!(log.lines().is_empty(), "nothing was refused");
    ask(&client, "/secret").await;
    let told = "INFO tower_throttle: a request was refused";
    assert_eq!(
        log.lines(),
        [format!(
            "{told} limit=\"slow\" route=\"$default\" plan=\"pro\" wait_ms=60000 suppressed=0"
        )]
    );
    ask(&client, "/closed").await;
    assert_eq!(
        log.lines(),
        [format!(
            "{told} limit=\"shut\" route=\"GET /closed\" plan=\"pro\" suppressed=0"
        )]
    );
    for _ in 0..50 {
        ask(&client, "/secret").await;
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 8, "ten with the two before");
    advance(Duration::from_secs(1)).await;
    ask(&client, "/secret").await;
    let lines = log.lines();
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].ends_with("wait_ms=59000 suppressed=42"),
        "{}",
        lines[0]
    );
}

/// As above, where nothing but the limit of a route holds: refusals that tell the same are copies of one.
#[tokio::test(start_paused = true)]
async fn a_second_budget_is_one_line_and_a_flood_is_ten_a_second() {
    let log = Log::default();
    let _guard = log.listen();
    let limits = Limits::from(Rate::per_minute(1).burst(1)).degrade(Rate::per_second(99));
    let client = Client::new(Rules::new().route("GET /", limits));
    ask(&client, "/").await;
    assert!(log.lines().is_empty(), "the first budget");
    ask(&client, "/").await;
    let told = "INFO tower_throttle: a request was charged to a second budget";
    let line = format!("{told} limit=\"get\" route=\"GET /\" wait_ms=60000 suppressed=0");
    assert_eq!(log.lines(), [line]);
    for _ in 0..50 {
        ask(&client, "/").await;
    }
    assert_eq!(log.lines().len(), 9, "ten with the one before");
}

#[tokio::test(start_paused = true)]
async fn a_flood_that_is_answered_by_copies_is_ten_a_second_too() {
    let log = Log::default();
    let _guard = log.listen();
    let rules = Rules::new().route("GET /slow", Rate::per_minute(1).burst(1));
    let client = Client::of(ThrottleLayer::new(rules).expect("rules that hold together"));
    for _ in 0..21 {
        ask(&client, "/slow").await;
    }
    let told = "INFO tower_throttle: a request was refused";
    let line = format!("{told} limit=\"get_slow\" route=\"GET /slow\" wait_ms=60000 suppressed=0");
    assert_eq!(log.lines(), vec![line; 10], "of twenty");
    advance(Duration::from_secs(1)).await;
    ask(&client, "/slow").await;
    let lines = log.lines();
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].ends_with("wait_ms=59000 suppressed=10"),
        "{}",
        lines[0]
    );
}

/// A filter may go by what an event is, and by each of its fields.
#[tokio::test(start_paused = true)]
async fn no_refusal_is_lost_under_a_filter_that_takes_it() {
    let fields = ["message", "limit", "route", "plan", "wait_ms", "suppressed"];
    let by_field = fields.map(|field| {
        let filter = move |it: &Metadata<'_>| it.fields().field(field).is_some();
        (field, Box::new(filter) as Box<dyn Filter>)
    });
    let is_event = |it: &Metadata<'_>| it.is_event();
    let by_kind = ("kind", Box::new(is_event) as Box<dyn Filter>);
    for (name, filter) in by_field.into_iter().chain([by_kind]) {
        let log = Log::default();
        let _guard = log.listen_to(filter);
        let rules = Rules::new()
            .route("GET /slow", Rate::per_minute(1).burst(1))
            .route("GET /closed", Rate::per_second(0));
        let client = Client::of(ThrottleLayer::new(rules).expect("rules that hold together"));
        // The third refusal of the first route and all later ones are copies.
        for path in ["/slow", "/slow", "/slow", "/slow", "/closed"] {
            ask(&client, path).await;
        }
        let lines = log.lines();
        assert_eq!(lines.len(), 4, "by {name}: {lines:?}");
        assert!(
            lines.iter().all(|line| line.contains(" suppressed=0")),
            "{lines:?}"
        );
    }
}

/// Suppressed refusals are counted from the moment on at which a subscriber listens.
#[tokio::test(start_paused = true)]
async fn what_nobody_listens_to_is_not_counted_as_untold() {
    let rules = Rules::new().route("GET /slow", Rate::per_minute(1).burst(1));
    let client = Client::of(ThrottleLayer::new(rules).expect("rules that hold together"));
    let log = Log::default();
    let guard = log.listen_to(|it: &Metadata<'_>| *it.level() < Level::INFO);
    for _ in 0..21 {
        ask(&client, "/slow").await;
    }
    assert!(log.lines().is_empty(), "no level that is listened to");
    drop(guard);
    let _guard = log.listen();
    for _ in 0..12 {
        ask(&client, "/slow").await;
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 10, "{lines:?}");
    assert!(
        lines.iter().all(|line| line.ends_with(" suppressed=0")),
        "{lines:?}"
    );
}

/// R17: a report that nobody can believe is not charged, and told with its route.
#[tokio::test(start_paused = true)]
async fn a_report_that_cannot_be_true_is_told() {
    let log = Log::default();
    let _guard = log.listen();
    let tokens = Limits::new().tokens(Rate::per_second(1_000).burst(1_000));
    let rules = Rules::new().route("GET /chat", tokens);
    let layer = ThrottleLayer::builder(rules.estimate(Estimate::fixed(100)))
        .usage_from_answers(true)
        .build()
        .expect("good rules");
    let serve = service_fn(|_: Request<Empty<Bytes>>| async {
        let report = r#"{"usage":{"total_tokens":1000000000}}"#;
        let mut answer = Response::new(Full::new(Bytes::from_static(report.as_bytes())));
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert("content-type", json);
        Ok::<_, Infallible>(answer)
    });
    let service = layer.layer(serve);
    let request = Request::get("/chat").body(Empty::new());
    let answer = service.oneshot(request.expect("a request")).await;
    let answer = answer.unwrap_or_else(|never| match never {});
    answer.into_body().collect().await.expect("never fails");
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let told = "WARN tower_throttle: an answer reports an implausible number of model tokens";
    assert!(lines[0].starts_with(told), "{}", lines[0]);
    let fields = "route=\"GET /chat\" reported=1000000000 most=";
    assert!(lines[0].contains(fields), "{}", lines[0]);
}

/// An answer without usage is told with its route and the reason, ten times a second.
#[tokio::test(start_paused = true)]
async fn an_answer_without_usage_is_told() {
    let log = Log::default();
    let _guard = log.listen();
    let tokens = Limits::new().tokens(Rate::per_second(1_000).burst(1_000));
    let rules = Rules::new().route("GET /chat", tokens);
    let layer = ThrottleLayer::builder(rules.estimate(Estimate::fixed(1)))
        .usage_from_answers(true)
        .build()
        .expect("good rules");
    let serve = service_fn(|_: Request<Empty<Bytes>>| async {
        let mut answer = Response::new(Full::new(Bytes::from_static(b"{}")));
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert("content-type", json);
        Ok::<_, Infallible>(answer)
    });
    let service = layer.layer(serve);
    for _ in 0..12 {
        let request = Request::get("/chat").body(Empty::new());
        let answer = service.clone().oneshot(request.expect("a request")).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        answer.into_body().collect().await.expect("never fails");
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 10, "{lines:?}");
    let told = "INFO tower_throttle: the usage of model tokens was not read from an answer";
    assert!(lines[0].starts_with(told), "{}", lines[0]);
    let fields = "route=\"GET /chat\" reason=\"absent\" suppressed=0";
    assert!(lines[0].contains(fields), "{}", lines[0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_kept_for_too_long_is_told() {
    let log = Log::default();
    let _guard = log.listen();
    let limits = Limits::new().in_flight(1).keep(true);
    let layer = ThrottleLayer::new(Rules::new().route("GET /job", limits)).expect("good rules");
    let (keep, kept) = std::sync::mpsc::channel();
    let serve = service_fn(move |request: Request<Empty<Bytes>>| {
        let hold = request.extensions().get::<Hold>().expect("it may be kept");
        let guard = hold.keep_at_most(Duration::from_secs(5));
        keep.send(guard).expect("the test goes on");
        std::future::ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
    });
    let service = layer.layer(serve);
    for lines in [0, 1, 1] {
        let request = Request::get("/job").body(Empty::new()).expect("a request");
        let answer = service.clone().oneshot(request).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), 200);
        drop(answer);
        let told = log.lines();
        let expected = "WARN tower_throttle: a request was kept for longer than `keep_at_most` allows; its slots are \
                        free route=\"GET /job\" suppressed=0";
        assert_eq!(told, vec![expected; lines]);
        advance(Duration::from_secs(5)).await;
    }
    assert_eq!(kept.try_iter().count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_told() {
    let log = Log::default();
    let _guard = log.listen();
    let layer = ThrottleLayer::new(Rules::new().total(Rate::per_second(1))).expect("good rules");
    let rules = Rules::new().total(Rate::per_second(2));
    layer.handle().reload(rules).expect("good rules");
    assert_eq!(
        log.lines(),
        [
            "INFO tower_throttle: the throttle's rules were reloaded changes=1 \
             told=\"total, limit `total`: 1 in 1s, burst 1 => 2 in 1s, burst 2\""
        ]
    );
    let rules = (0..100).fold(Rules::new(), |rules, number| {
        rules.route(format!("GET /{number}/x"), Rate::per_second(1))
    });
    layer.handle().reload(rules).expect("good rules");
    let lines = log.lines();
    assert!(
        lines[0].ends_with(" more\"") && lines[0].len() < 2_200,
        "{}",
        lines[0]
    );
    assert!(
        lines[0].contains("changes=101 told=\"total, limit `total`"),
        "{}",
        lines[0]
    );
}

/// A host of axum whose `ConnectInfo` is a type of its own keeps it, and puts the address beside it.
#[tokio::test(start_paused = true)]
async fn a_host_that_tells_no_address_is_told_the_way_that_breaks_no_type_of_its_own() {
    #[derive(Clone)]
    struct Peer;

    let log = Log::default();
    let _guard = log.listen();
    let rules = Rules::new().clients(Clients::by_address().each(Rate::per_minute(1).burst(1)));
    let client = Client::new(rules);
    let request = || {
        let request = Request::get("/").extension(axum::extract::ConnectInfo(Peer));
        request.body(Empty::<Bytes>::new()).expect("a request")
    };
    assert!(client.send(request()).await.is_admitted());
    assert!(
        !client.send(request()).await.is_admitted(),
        "one anonymous client"
    );
    let lines = log.lines();
    let advice = "if axum's `ConnectInfo` has a custom type, insert a `PeerAddr`";
    let told = lines.iter().filter(|line| line.contains(advice));
    assert_eq!(told.count(), 1, "once: {lines:?}");

    for host in 1..4 {
        let mut request = request();
        let peer = tower_throttle::client::PeerAddr(([192, 0, 2, host], 4711).into());
        request.extensions_mut().insert(peer);
        let answer = client.send(request).await;
        assert!(answer.is_admitted(), "a client of its own");
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_not_declared_is_told_once_and_without_its_name() {
    let log = Log::default();
    let _guard = log.listen();
    let clients = Clients::by_header("x-api-key")
        .each(Rate::per_second(99))
        .plan("pro", Rate::per_second(99))
        .plan_by(|_| Some("secret-plan"));
    let client = Client::new(Rules::new().clients(clients));
    for _ in 0..3 {
        ask(&client, "/").await;
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("a plan that is not declared"),
        "{lines:?}"
    );
    assert!(!lines[0].contains("secret-plan"), "{lines:?}");
}

/// The cause of an outage stands at the end of the line; that the store is up again is told in a line of its own.
#[tokio::test(start_paused = true)]
async fn why_the_store_is_down_is_told() {
    let causes = [
        (Does::Fails, "told to fail"),
        (
            Does::Late(Duration::from_secs(60)),
            "it did not answer in time",
        ),
    ];
    for (does, cause) in causes {
        let log = Log::default();
        let _guard = log.listen();
        let store = Told::new();
        let builder = ThrottleLayer::builder(Rules::new().total(Rate::per_second(9)));
        let client = Client::with(builder.store(store.clone()));
        ask(&client, "/").await;
        assert!(log.lines().is_empty(), "it answers");
        store.does(does);
        for _ in 0..3 {
            ask(&client, "/").await;
        }
        let told = "WARN tower_throttle: the store is down; requests are decided without it";
        let error = format!("{told} error=the store is not available: {cause}");
        assert_eq!(log.lines(), [error], "once");
        store.does(Does::Answers);
        sleep(Duration::from_secs(2)).await;
        ask(&client, "/").await;
        assert_eq!(
            log.lines(),
            ["WARN tower_throttle: the store is up again"],
            "{cause}"
        );
        // A bucket that fails is no outage.
        store.does(Does::FailsHere);
        ask(&client, "/").await;
        let told = "WARN tower_throttle: the store cannot charge a bucket; its requests are decided without the store";
        let error = "error=the store cannot charge a bucket: told to fail";
        assert_eq!(
            log.lines(),
            [format!("{told} {error} suppressed=0")],
            "{cause}"
        );
    }
}
