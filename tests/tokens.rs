//! R17: model tokens are reserved at admission and settled once; a surplus comes back, and later requests wait for a
//! shortfall.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock that it has paused"
)]

mod support;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Limits, Rate, Rules, RulesError, Throttle, ThrottleLayer, Usage,
    body::{Hold, KeptRequest, ResponseBody},
    limit::Scope,
    usage::Estimate,
};

use support::{build, bytes, decision, throttle, throttling, values};

type Inner = fn(Request<Body>) -> std::future::Ready<Result<Response<Body>, Infallible>>;
type Service = Throttle<tower::util::ServiceFn<Inner>>;

/// Answers with the usage in the extensions, for the test to play the handler.
fn service(rules: Rules) -> Service {
    let serve: Inner = |request| {
        let mut response = Response::new(Body::from("served"));
        if let Some(usage) = request.extensions().get::<Usage>() {
            response.extensions_mut().insert(usage.clone());
        }
        std::future::ready(Ok(response))
    };
    throttle(rules).layer(service_fn(serve))
}

async fn send(service: &Service, estimate: u64) -> Response<ResponseBody<Body>> {
    let request = Request::post("/").header("x-tokens", estimate);
    let request = request.body(Body::empty()).expect("a request");
    let answer = service.clone().oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

fn usage<B>(response: &Response<B>) -> Usage {
    response
        .extensions()
        .get::<Usage>()
        .expect("tokens are limited")
        .clone()
}

/// Returns what the token limit has left.
fn left<B>(response: &Response<B>) -> u64 {
    let mut limits = decision(response).limits();
    let tokens = limits.find(|limit| limit.tokens().is_some());
    tokens.expect("a token limit").remaining()
}

fn budget(rate: Rate) -> Rules {
    let estimate = Estimate::by_header("x-tokens");
    // One request may reserve all of it.
    let total = Limits::new().tokens(rate).max_reservation_percent(100);
    Rules::new().total(total).estimate(estimate)
}

#[tokio::test(start_paused = true)]
async fn what_was_reserved_too_much_comes_back_and_too_little_is_owed() {
    // One token a second, so that what time refills can be told.
    let service = service(budget(Rate::per_minute(60).burst(100)));
    let first = send(&service, 60).await;
    assert_eq!(left(&first), 40);
    assert_eq!((usage(&first).reserved(), usage(&first).used()), (60, 0));
    assert_eq!(
        usage(&first).remaining(),
        100,
        "its reservation, and what is left"
    );
    assert_eq!(
        send(&service, 41).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    assert!(usage(&first).settle(10));
    let second = send(&service, 90).await;
    assert_eq!(left(&second), 0, "fifty came back");
    // Thirty more than it had: a debt.
    assert!(usage(&second).settle(120));
    let refused = send(&service, 1).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let limit = decision(&refused).limits().next().expect("one").wait();
    assert_eq!(
        limit,
        Some(Duration::from_secs(31)),
        "thirty are owed, and one is asked for"
    );
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(send(&service, 1).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_reserves_less_is_told_only_where_nothing_is_enforced() {
    let rate = |burst| Rate::per_hour(1).burst(burst);
    let enforced = budget(rate(100));
    let shadow = Limits::new().tokens(rate(10).shadow());
    for (rules, reserved) in [
        (
            enforced.route("POST /", shadow.clone().max_reservation_percent(100)),
            60,
        ),
        (
            Rules::new()
                .total(shadow.max_reservation_percent(100))
                .estimate(Estimate::by_header("x-tokens")),
            10,
        ),
    ] {
        let answer = send(&service(rules), 60).await;
        assert_eq!(usage(&answer).reserved(), reserved);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_settled_once_by_whatever_comes_first() {
    let service = service(budget(Rate::per_hour(1).burst(1_000)));
    let mut spent = 0;
    let mut expect = async |used: u64, what: &str| {
        spent += used;
        let probe = send(&service, 1).await;
        spent += 1;
        assert_eq!(left(&probe), 1_000 - spent, "{what}");
    };
    let answer = send(&service, 50).await;
    let account = usage(&answer);
    assert!(account.settle(20));
    assert!(!account.settle(5) && !account.add(5), "it is closed");
    assert_eq!(account.used(), 20);
    drop(answer);
    expect(20, "settled").await;

    let answer = send(&service, 50).await;
    let account = usage(&answer);
    bytes(answer).await;
    assert!(!account.settle(5), "the end came first");
    expect(50, "unsettled, the estimate stands").await;

    let answer = send(&service, 50).await;
    assert!(usage(&answer).add(30) && usage(&answer).add(30));
    bytes(answer).await;
    expect(60, "unsettled, and more was counted").await;

    let answer = send(&service, 50).await;
    assert!(usage(&answer).add(3));
    drop(answer);
    expect(50, "cut short, a part of a count is no total").await;

    let answer = send(&service, 50).await;
    assert!(usage(&answer).add(70));
    drop(answer);
    expect(70, "cut short, and more was counted").await;

    drop(send(&service, 50).await);
    expect(50, "cut short, and nobody has counted").await;

    let answer = send(&service, 50).await;
    assert!(usage(&answer).settle(0));
    bytes(answer).await;
    expect(0, "free of charge").await;

    // A clone that outlives the response changes nothing.
    let answer = send(&service, 50).await;
    let account = usage(&answer);
    drop(answer);
    assert!(!account.add(100));
    expect(50, "over").await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_sees_when_it_has_to_stop() {
    let service = service(budget(Rate::per_minute(60).burst(100)));
    let answer = send(&service, 10).await;
    let account = usage(&answer);
    let _other = send(&service, 70).await;
    assert_eq!(account.remaining(), 30);
    let mut produced = 0;
    while account.remaining() > 0 {
        assert!(account.add(1));
        produced += 1;
    }
    assert_eq!(produced, 30, "its ten, and the twenty that were left");
    account.add(5);
    assert_eq!(account.remaining(), 0);
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(account.remaining(), 0, "five are owed");
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(account.remaining(), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_told_as_such() {
    let chat = Limits::new()
        .rate(Rate::per_second(10).named("calls"))
        .tokens(Rate::per_minute(600).burst(100).named("tokens"))
        .max_reservation_percent(100)
        .max_tokens_per_request(99);
    let rules = Rules::new()
        .route("POST /", chat)
        .estimate(Estimate::by_header("x-tokens"));
    let service = service(rules);
    let answer = send(&service, 30).await;
    assert_eq!(
        values(&answer, "ratelimit-policy"),
        [
            r#""calls";q=10;w=1;throttle-burst=10, "tokens";q=600;w=60;throttle-burst=100;throttle-unit="tokens""#
        ]
    );
    // Two more like this one: the tokens bind.
    assert_eq!(
        values(&answer, "ratelimit"),
        [r#""tokens";r=70;t=7, "calls";r=9;t=1"#]
    );
    let refused = send(&service, 80).await;
    let body: serde_json::Value = serde_json::from_slice(&bytes(refused).await).expect("JSON");
    assert_eq!(body["error"]["type"], "tokens");
    assert_eq!(body["violated-policies"], serde_json::json!(["tokens"]));
    let never = send(&service, 100).await;
    assert_eq!(never.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(
        !never.headers().contains_key("retry-after"),
        "larger than a request may be"
    );
    assert_eq!(never.headers()["x-should-retry"], "false");
    let limits = decision(&never).limits();
    let costs: Vec<_> = limits
        .map(|limit| (limit.name().to_owned(), limit.cost()))
        .collect();
    assert_eq!(costs, [("calls".to_owned(), 1), ("tokens".to_owned(), 100)]);
}

#[tokio::test(start_paused = true)]
async fn every_scope_has_its_account() {
    let each = Limits::new().tokens(Rate::per_hour(1).burst(100));
    let rules = Rules::new()
        .total(Limits::new().tokens(Rate::per_hour(1).burst(250)))
        .clients(Clients::by_header("x-tokens").each(each))
        .estimate(Estimate::fixed(60));
    let service = service(rules);
    // Clients are called after a number here.
    let remaining = async |client: u64| {
        let answer = send(&service, client).await;
        let limits = decision(&answer).limits();
        let told = limits
            .map(|limit| (limit.scope(), limit.remaining()))
            .collect::<Vec<_>>();
        assert!(usage(&answer).settle(50));
        told
    };
    assert_eq!(
        remaining(1).await,
        [(Scope::Client, 40), (Scope::Total, 190)]
    );
    assert_eq!(
        remaining(2).await,
        [(Scope::Client, 40), (Scope::Total, 140)]
    );
    let refused = send(&service, 1).await;
    assert_eq!(
        refused.status(),
        StatusCode::TOO_MANY_REQUESTS,
        "50 are left, 60 are asked for"
    );
    assert_eq!(
        remaining(3).await,
        [(Scope::Client, 40), (Scope::Total, 90)],
        "refused, it cost nothing"
    );
}

#[test]
fn an_estimate_by_what_is_no_field_is_an_error() {
    let rules = Rules::new().estimate(Estimate::by_header("x tokens"));
    let error: RulesError = ThrottleLayer::new(rules).expect_err("no field");
    assert!(
        error
            .to_string()
            .starts_with("estimate: `x tokens` is not a valid header name"),
        "{error}"
    );
    let many = (0..9).fold(Limits::new(), |limits, _| {
        limits.tokens(Rate::per_second(1))
    });
    let error = ThrottleLayer::new(Rules::new().total(many)).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "the total: 9 token rates are too many; use at most 5"
    );
}

/// A hundred tokens a minute, and fifty streams at once that do not know beforehand how long they will be. What
/// is granted is never more than the burst, what the rate has refilled, and of each call in flight what it went
/// beyond its reservation.
#[tokio::test(start_paused = true)]
async fn fifty_streams_are_granted_no_more_than_the_budget() {
    const RESERVED: u64 = 5;
    // Two kinds of handler: one stops when nothing remains, one goes on to the end whatever it costs.
    for stops in [true, false] {
        let granted = Arc::new(Mutex::new(Vec::<(tokio::time::Instant, u64)>::new()));
        let start = tokio::time::Instant::now();
        let serve = {
            let granted = Arc::clone(&granted);
            move |request: Request<Body>| {
                let granted = Arc::clone(&granted);
                let usage = request.extensions().get::<Usage>().expect("tokens").clone();
                async move {
                    let (sender, receiver) = mpsc::unbounded_channel();
                    tokio::spawn(async move {
                        for token in 0..13_u64 {
                            if stops && usage.remaining() == 0 {
                                break;
                            }
                            // The client has gone away: the account is closed.
                            if !usage.add(1) {
                                break;
                            }
                            let now = tokio::time::Instant::now();
                            granted.lock().expect("no panic").push((now, 1));
                            if sender
                                .send(Ok::<_, Infallible>(Frame::data("t".into())))
                                .is_err()
                            {
                                break;
                            }
                            tokio::time::sleep(Duration::from_millis(70 + token)).await;
                        }
                        usage.settle(usage.used());
                    });
                    let body = StreamBody::new(UnboundedReceiverStream::new(receiver));
                    Ok::<_, Infallible>(Response::new(Body::new(body)))
                }
            }
        };
        let rules = Rules::new()
            .total(Limits::new().tokens(Rate::per_minute(100)))
            .estimate(Estimate::fixed(RESERVED));
        let service = throttle(rules).layer(service_fn(serve));
        let mut calls = tokio::task::JoinSet::new();
        for caller in 0..50_u64 {
            let service = service.clone();
            calls.spawn(async move {
                let mut admitted = 0;
                // Comes back after what it was told, for three minutes.
                while start.elapsed() < Duration::from_secs(180) {
                    let request = Request::post("/").body(Body::empty()).expect("a request");
                    let answer = service.clone().oneshot(request).await.expect("never fails");
                    let wait = decision(&answer).retry_after().expect("it can pass");
                    if answer.status() == StatusCode::OK {
                        admitted += 1;
                        let body = answer.into_body();
                        if caller % 3 == 0 {
                            // Goes away in midstream.
                            let mut body = Box::pin(body);
                            let _ = body.frame().await;
                        } else {
                            body.collect().await.expect("no error");
                        }
                    }
                    tokio::time::sleep(wait).await;
                }
                admitted
            });
        }
        let admitted: u64 = calls.join_all().await.into_iter().sum();
        assert!(admitted > 25, "{admitted}");
        let granted = granted.lock().expect("no panic");
        let overrun = if stops { 1 } else { 13 - RESERVED };
        let mut sum = 0;
        for (time, tokens) in granted.iter() {
            sum += tokens;
            let elapsed = u64::try_from((*time - start).as_millis()).expect("minutes");
            // The burst is 100, and so is what a minute refills.
            let refilled = (elapsed * 100).div_ceil(60_000);
            let bound = 100 + refilled + 50 * overrun;
            assert!(
                sum <= bound,
                "{sum} granted after {elapsed} ms, {bound} may be"
            );
        }
        // And in the long run it is the rate: four hundred in three minutes and a burst, but for the reservations of
        // those that have gone away.
        assert!(
            sum <= 400 + 50 * overrun && sum > 250,
            "{sum} in three minutes, stops: {stops}"
        );
    }
}

/// Returns what is charged in the end for an answer of this type that is sent in these pieces, of 50 reserved.
async fn charged_for(
    fields: &[(&'static str, &'static str)],
    pieces: Vec<String>,
    whole: bool,
) -> u64 {
    let fields = fields.to_vec();
    let serve = move |_: Request<Body>| {
        let pieces = pieces.clone().into_iter();
        let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece.into())));
        let mut response = Response::new(Body::new(StreamBody::new(tokio_stream::iter(frames))));
        for (name, value) in &fields {
            response
                .headers_mut()
                .insert(*name, value.parse().expect("a value"));
        }
        std::future::ready(Ok::<_, Infallible>(response))
    };
    let rules = budget(Rate::per_hour(1).burst(1_000));
    let layer = build(throttling(rules).usage_from_answers(true));
    let request = |tokens: u64| {
        let request = Request::post("/").header("x-tokens", tokens);
        request.body(Body::empty()).expect("a request")
    };
    let service = layer.layer(service_fn(serve));
    let answer = service
        .clone()
        .oneshot(request(50))
        .await
        .expect("never fails");
    let mut body = Box::pin(answer.into_body());
    let mut sent = 0;
    while let Some(frame) = body.frame().await {
        sent += frame.expect("no error").data_ref().expect("data").len();
        if !whole {
            break;
        }
    }
    assert!(sent > 0, "nothing is held back");
    drop(body);
    let probe = service.oneshot(request(1)).await.expect("never fails");
    1_000 - 1 - left(&probe)
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_has_used_is_read_as_it_goes_by() {
    let json = [("content-type", "application/json; charset=utf-8")];
    let events = [("content-type", "text/event-stream")];
    let body = r#"{"id":"x","choices":[{"usage":{"total_tokens":999}}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}"#;
    let stream = "data: {\"choices\":[],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"total_tokens\":77}}\n\ndata: [DONE]\n\n";
    let whole = |text: &str| vec![text.to_owned()];
    let bytes = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
    assert_eq!(charged_for(&json, whole(body), true).await, 21);
    assert_eq!(charged_for(&json, bytes(body), true).await, 21);
    assert_eq!(charged_for(&events, whole(stream), true).await, 77);
    assert_eq!(charged_for(&events, bytes(stream), true).await, 77);
    assert_eq!(
        charged_for(&events, whole(stream), false).await,
        77,
        "cut, and it was told"
    );
    assert_eq!(
        charged_for(&events, bytes(stream), false).await,
        50,
        "cut before"
    );
    assert_eq!(
        charged_for(&json, whole("{\"error\":{}}"), true).await,
        50,
        "nothing is told"
    );
    let text = [("content-type", "text/plain")];
    assert_eq!(
        charged_for(&text, whole(body), true).await,
        50,
        "another type"
    );
    let encoded = [
        ("content-type", "application/json"),
        ("content-encoding", "br"),
    ];
    assert_eq!(
        charged_for(&encoded, whole(body), true).await,
        50,
        "compressed"
    );
}

/// A picture of 2.5 MB in base64 looks like 625,000 tokens, and is 1,108.
#[tokio::test(start_paused = true)]
async fn an_estimate_above_the_burst_is_a_guess_and_is_admitted() {
    let service = service(budget(Rate::per_minute(90_000)));
    let answer = send(&service, 625_000).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!((left(&answer), usage(&answer).reserved()), (0, 90_000));
    assert!(usage(&answer).settle(1_108));
    assert_eq!(left(&send(&service, 1).await), 90_000 - 1_108 - 1);
}

/// R25: what is owed is what was settled, limit by limit, though each has reserved another amount.
#[tokio::test(start_paused = true)]
async fn each_limit_reserves_its_part_of_an_estimate_and_settles_to_the_same_total() {
    let tokens = |burst| Limits::new().tokens(Rate::per_hour(1).burst(burst));
    let clients = Clients::by_header("x-client").each(tokens(300));
    let rules = Rules::new()
        .total(tokens(1_000))
        .default_route(tokens(700).max_reservation_percent(10))
        .clients(clients)
        .estimate(Estimate::by_header("x-tokens"));
    // (what the handler does; what each limit is charged with in the end: client, route, total)
    type Handler = fn(&Usage) -> bool;
    let table: [(&str, Handler, bool, [u64; 3]); 8] = [
        ("settles less", |usage| usage.settle(40), true, [40; 3]),
        ("settles between", |usage| usage.settle(150), true, [150; 3]),
        ("settles more", |usage| usage.settle(900), true, [900; 3]),
        ("adds little", |usage| usage.add(30), true, [300, 70, 500]),
        (
            "adds between",
            |usage| usage.add(100) && usage.add(50),
            true,
            [300, 150, 500],
        ),
        ("adds much", |usage| usage.add(800), true, [800; 3]),
        ("is cut short", |usage| usage.add(90), false, [300, 90, 500]),
        ("is cut short at once", |_| true, false, [300, 70, 500]),
    ];
    for (what, handle, whole, charged) in table {
        let service = service(rules.clone());
        let ask = |tokens: u64| {
            let request = Request::post("/")
                .header("x-tokens", tokens)
                .header("x-client", "a");
            let request = request.body(Body::empty()).expect("a request");
            service.clone().oneshot(request)
        };
        let answer = ask(5_000).await.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), StatusCode::OK, "{what}");
        let costs: Vec<_> = decision(&answer)
            .limits()
            .map(|limit| limit.cost())
            .collect();
        assert_eq!(costs, [300, 70, 500], "{what}");
        let account = usage(&answer);
        assert_eq!(account.reserved(), 70, "{what}: no limit reserved less");
        assert!(handle(&account), "{what}");
        match whole {
            true => drop(bytes(answer).await),
            false => drop(answer),
        }
        let probe = ask(1).await.unwrap_or_else(|never| match never {});
        let admitted = u64::from(probe.status() == StatusCode::OK);
        for (limit, charged) in decision(&probe).limits().zip(charged) {
            let expected = limit.burst().saturating_sub(charged + admitted);
            assert_eq!(limit.remaining(), expected, "{what}: {limit:?}");
        }
        assert!(!account.add(1) && !account.settle(1), "{what}: once");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_without_a_debt_is_counted_limit_by_limit() {
    let tokens = |burst| Limits::new().tokens(Rate::per_hour(1).burst(burst));
    let rules = Rules::new()
        .total(tokens(1_000))
        .default_route(tokens(100))
        .estimate(Estimate::by_header("x-tokens"));
    let service = service(rules);
    let answer = send(&service, 5_000).await;
    let account = usage(&answer);
    assert_eq!(
        account.remaining(),
        100,
        "all of the route's, though half is reserved"
    );
    assert!(account.add(70));
    assert_eq!(account.remaining(), 30);
    assert!(account.settle(80));
    assert_eq!(account.remaining(), 20);
}

/// A header that anybody may write empties no bucket that others need.
#[tokio::test(start_paused = true)]
async fn no_estimate_empties_a_bucket_that_strangers_share() {
    let tokens = || Limits::new().tokens(Rate::per_hour(1).burst(100));
    let scopes = [
        ("the total", Rules::new().total(tokens())),
        ("a route", Rules::new().route("POST /", tokens())),
        (
            "anonymous clients",
            Rules::new().clients(Clients::by_header("x-client").each(tokens())),
        ),
    ];
    for (what, rules) in scopes {
        let service = service(rules.estimate(Estimate::by_header("x-tokens")));
        let first = send(&service, u64::MAX).await;
        assert_eq!(
            (first.status(), left(&first)),
            (StatusCode::OK, 50),
            "{what}"
        );
        assert_eq!(send(&service, 40).await.status(), StatusCode::OK, "{what}");
        let again = send(&service, u64::MAX).await;
        assert_eq!(again.status(), StatusCode::TOO_MANY_REQUESTS, "{what}");
        let wait = decision(&again)
            .limits()
            .next()
            .and_then(|limit| limit.wait());
        assert_eq!(
            wait,
            Some(Duration::from_secs(40 * 3_600)),
            "{what}: it has a wait"
        );
    }
    // One client's own bucket is its own to empty.
    let clients = Clients::by_header("x-tokens").each(tokens());
    let rules = Rules::new().clients(clients);
    let service = service(rules.estimate(Estimate::fixed(1_000)));
    assert_eq!(left(&send(&service, 7).await), 0);
    assert_eq!(left(&send(&service, 8).await), 0, "and no other's");
}

#[tokio::test(start_paused = true)]
async fn clients_without_room_in_the_table_reserve_half_of_what_they_share() {
    let each = Limits::new().tokens(Rate::per_hour(1).burst(100));
    let clients = Clients::by_header("x-tokens").each(each).max_clients(0);
    let service = service(
        Rules::new()
            .clients(clients)
            .estimate(Estimate::fixed(1_000)),
    );
    let costs = async |client: u64| {
        let answer = send(&service, client).await;
        let limit = decision(&answer).limits().next().expect("one");
        assert!(limit.is_overflow(), "there is no room");
        limit.cost()
    };
    // The first to overflow is not yet known to.
    costs(1).await;
    for client in 2..40 {
        assert_eq!(costs(client).await, 50, "{client}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_sets_a_largest_request_refuses_larger_ones_at_once() {
    let limits = |most| {
        let tokens = Rate::per_hour(1).burst(1_000);
        Limits::new().tokens(tokens).max_tokens_per_request(most)
    };
    let rules = |limits| {
        Rules::new()
            .default_route(limits)
            .estimate(Estimate::by_header("x-tokens"))
    };
    for (most, passes, refused) in [(600, 600, 601), (5_000, 5_000, 5_001), (0, 0, 1)] {
        let service = service(rules(limits(most)));
        let answer = send(&service, refused).await;
        assert_eq!(
            answer.status(),
            StatusCode::TOO_MANY_REQUESTS,
            "{refused} of {most}"
        );
        assert!(!answer.headers().contains_key("retry-after"), "{most}: R6");
        assert_eq!(decision(&answer).retry_after(), None);
        let limit = decision(&answer).limits().next().expect("one");
        assert_eq!(
            (limit.cost(), limit.remaining()),
            (refused, 1_000),
            "it cost nothing"
        );
        if passes > 0 {
            assert_eq!(
                send(&service, passes).await.status(),
                StatusCode::OK,
                "{most}"
            );
        }
    }
    let nowhere = Limits::new().max_tokens_per_request(9);
    let error = ThrottleLayer::new(Rules::new().route("GET /", nowhere)).expect_err("of no use");
    assert_eq!(
        error.to_string(),
        "route `GET /`: `max_tokens_per_request` is 9, but no model tokens are limited there; add `tokens`, or remove \
         `max_tokens_per_request`"
    );
    let inherits = rules(Limits::new().tokens(Rate::per_hour(1).burst(100)));
    let inherits = inherits.route("POST /", Limits::new().max_tokens_per_request(9));
    assert_eq!(
        send(&service(inherits), 10).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
}

/// R6 where the cost is known.
#[tokio::test(start_paused = true)]
async fn a_cost_that_is_known_and_above_the_burst_is_refused_at_once() {
    let tokens = Limits::new().tokens(Rate::per_hour(1).burst(100));
    let estimate = Estimate::by_header("x-tokens").exact();
    let service = service(Rules::new().total(tokens).estimate(estimate));
    let answer = send(&service, 101).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(decision(&answer).retry_after(), None);
    assert_eq!(
        left(&send(&service, 100).await),
        0,
        "in full, though strangers share it"
    );
}

/// The settings of a request are those that it was admitted under.
#[tokio::test(start_paused = true)]
async fn a_reload_changes_nothing_of_what_was_reserved() {
    let rules = |percent| {
        let tokens = Limits::new().tokens(Rate::per_hour(1).burst(1_000));
        let total = tokens.max_reservation_percent(percent);
        Rules::new()
            .total(total)
            .estimate(Estimate::by_header("x-tokens"))
    };
    let layer = throttle(rules(80));
    let handle = layer.handle();
    let serve: Inner = |request| {
        let mut response = Response::new(Body::from("served"));
        let usage = request.extensions().get::<Usage>().cloned();
        response
            .extensions_mut()
            .insert(usage.expect("tokens are limited"));
        std::future::ready(Ok(response))
    };
    let service = layer.layer(service_fn(serve));
    let answer = send(&service, 5_000).await;
    assert_eq!(left(&answer), 200);
    handle.reload(rules(10)).expect("rules");
    assert!(usage(&answer).settle(300));
    assert_eq!(left(&send(&service, 1).await), 699);
}

fn report(total: u64) -> String {
    format!("{{\"usage\":{{\"total_tokens\":{total}}}}}")
}

#[tokio::test(start_paused = true)]
async fn a_report_that_cannot_be_true_closes_no_route() {
    let json = [("content-type", "application/json")];
    let events = [("content-type", "text/event-stream")];
    // The reservation, four tokens a byte, and the bound for answers without bytes.
    let most = 50 + 4 * 35 + (1 << 24);
    assert_eq!(report(most).len(), 35);
    for total in [u64::MAX, u64::MAX / 2, 1 << 40, most + 1] {
        let told = format!("{total} were reported");
        assert_eq!(
            charged_for(&json, vec![report(total)], true).await,
            50,
            "{told}"
        );
    }
    let owed = charged_for(&json, vec![report(most)], true).await;
    assert_eq!(owed, 999, "all that is there, and a debt");
    for whole in [true, false] {
        let stream = format!("data: {}\n\n", report(u64::MAX));
        assert_eq!(charged_for(&events, vec![stream], whole).await, 50);
    }
}

#[tokio::test(start_paused = true)]
async fn reports_that_can_be_true_are_owed_and_others_are_counted() {
    let rules = Rules::new()
        .default_route(Limits::new().tokens(Rate::per_second(1_000_000).burst(1_000)))
        .estimate(Estimate::fixed(100));
    let layer = build(throttling(rules).usage_from_answers(true));
    let serve = |request: Request<Body>| {
        let total = request.uri().query().expect("a total");
        let mut response = Response::new(Body::from(report(total.parse().expect("a number"))));
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert("content-type", json);
        std::future::ready(Ok::<_, Infallible>(response))
    };
    let service = layer.layer(service_fn(serve));
    let ask = async |total: u64| {
        let request = Request::get(format!("/?{total}")).body(Body::empty());
        let request = request.expect("a request");
        let answer = service.clone().oneshot(request).await;
        let answer = answer.expect("never fails");
        let status = answer.status();
        bytes(answer).await;
        status
    };
    let counted = || {
        let routes = layer.handle().snapshot().routes;
        let counted = routes.iter().map(|route| route.missing_usage.implausible);
        counted.sum::<u64>()
    };
    // The context of the largest model: ten seconds of what the rate gives.
    assert_eq!(ask(10_000_000).await, StatusCode::OK);
    assert_eq!(ask(1).await, StatusCode::TOO_MANY_REQUESTS, "it is owed");
    assert_eq!(counted(), 0);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(ask(u64::MAX).await, StatusCode::OK);
    assert_eq!(ask(1).await, StatusCode::OK, "what was reserved is owed");
    assert_eq!(counted(), 1);
}

/// The answer reports seven tokens, which are added to what the handler adds: the account ends with the last guard.
#[tokio::test(start_paused = true)]
async fn a_guard_keeps_the_account_open_beyond_the_answer() {
    for (added, charged) in [(0, 20), (3, 20), (30, 37)] {
        let limits = Limits::new()
            .tokens(Rate::per_hour(1).burst(100))
            .keep(true);
        let rules = Rules::new().route("POST /", limits);
        let builder = throttling(rules.estimate(Estimate::by_header("x-tokens")));
        let throttle = build(builder.usage_from_answers(true).track_in_flight(true));
        let handle = throttle.handle();
        let left = || handle.snapshot().limits[0].remaining;
        let guards = Arc::new(Mutex::new(Vec::<KeptRequest>::new()));
        let inner = service_fn(|request: Request<Body>| {
            let usage = request.extensions().get::<Usage>().expect("tokens").clone();
            let hold = request.extensions().get::<Hold>().expect("it may be kept");
            let kept = [hold.keep(), hold.keep()];
            guards
                .lock()
                .expect("no panic")
                .extend(kept.into_iter().flatten());
            let response = Response::builder()
                .header("content-type", "application/json")
                .extension(usage)
                .body(Body::from(r#"{"usage":{"total_tokens":7}}"#));
            std::future::ready(Ok::<_, Infallible>(response.expect("a response")))
        });
        let request = Request::post("/").header("x-tokens", 20);
        let request = request.body(Body::empty()).expect("a request");
        let answer = throttle
            .layer(inner)
            .oneshot(request)
            .await
            .expect("no error");
        let usage = usage(&answer);
        bytes(answer).await;
        assert_eq!((left(), handle.in_flight()), (Some(80), Some(1)), "{added}");
        assert!(usage.add(added), "{added}: it is open");
        let mut guards = guards.lock().expect("no panic");
        assert!(guards.pop().is_some(), "one of two");
        assert_eq!(handle.in_flight(), Some(1), "{added}: another guard");
        guards.clear();
        assert_eq!(left(), Some(100 - charged), "{added}");
        assert_eq!(handle.in_flight(), Some(0), "{added}");
        assert!(!usage.settle(1), "{added}: it is settled");
    }
}
