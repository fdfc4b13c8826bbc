//! R17, R23: input and output tokens are limited apart, and who goes away pays for both.

mod support;

use std::convert::Infallible;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Limits, Rate, Rules, RulesError, Throttle, ThrottleLayer, Usage,
    body::ResponseBody,
    peek::Peeked,
    response::Dialect,
    usage::{BodyEstimate, Estimate, TokenUsage},
};

use support::{build, bytes, decision, throttle, throttling};

type Inner<B> = fn(Request<B>) -> std::future::Ready<Result<Response<Body>, Infallible>>;
type Service = Throttle<tower::util::ServiceFn<Inner<Body>>>;

/// Answers with the usage in the extensions, for the test to play the handler.
fn inner<B>() -> tower::util::ServiceFn<Inner<B>> {
    let serve: Inner<B> = |request| {
        let mut response = Response::new(Body::from("served"));
        if let Some(usage) = request.extensions().get::<Usage>() {
            response.extensions_mut().insert(usage.clone());
        }
        std::future::ready(Ok(response))
    };
    service_fn(serve)
}

/// Sends a request with a body of so many bytes, of which four are a token.
async fn send(service: &Service, length: u64) -> Response<ResponseBody<Body>> {
    let request = Request::post("/").header("content-length", length);
    let request = request.body(Body::empty()).expect("a request");
    let answer = service.clone().oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

fn usage<B>(response: &Response<B>) -> Usage {
    let usage = response.extensions().get::<Usage>();
    usage.expect("tokens are limited").clone()
}

/// Limits of which nothing comes back by itself in a test.
fn limits() -> Limits {
    let rate = || Rate::per_hour(1).burst(1_000);
    Limits::new()
        .tokens(rate().named("all"))
        .input_tokens(rate().named("input"))
        .output_tokens(rate().named("output"))
        .max_reservation_percent(100)
}

/// Returns what each limit is charged with, but for what a probe of one input token takes: all, input, output.
async fn charged(service: &Service) -> [u64; 3] {
    let probe = send(service, 1).await;
    let left = |name: &str| {
        let mut limits = decision(&probe).limits();
        let limit = limits.find(|limit| limit.name() == name);
        1_000 - 1 - limit.expect("it is there").remaining()
    };
    let charged = ["all", "input", "output"].map(left);
    assert!(usage(&probe).settle(0));
    charged
}

#[tokio::test(start_paused = true)]
async fn each_limit_reserves_its_kind_of_an_estimate_and_settles_its_kind_of_the_usage() {
    let used = TokenUsage::new()
        .input(50)
        .cached_input(101)
        .cache_write(7)
        .output(30);
    let from_header = Estimate::by_header("content-length");
    // (estimate, weight of cached input, what a request of 400 bytes reserves, what it is charged in the end)
    let table = [
        (Estimate::default(), 100, [100, 100, 1], [188, 158, 30]),
        (Estimate::default(), 10, [100, 100, 1], [98, 68, 30]),
        (Estimate::default(), 0, [100, 100, 1], [87, 57, 30]),
        (from_header, 100, [400, 400, 400], [188, 158, 30]),
    ];
    for (estimate, percent, reserved, settled) in table {
        let what = format!("{estimate:?}, {percent} percent");
        let rules = Rules::new().total(limits().cached_input_percent(percent));
        let service = throttle(rules.estimate(estimate)).layer(inner());
        let answer = send(&service, 400).await;
        let costs: Vec<_> = decision(&answer).limits().map(|it| it.cost()).collect();
        assert_eq!(costs, reserved, "{what}");
        assert!(usage(&answer).settle_tokens(used), "{what}");
        assert_eq!(usage(&answer).used_tokens(), used);
        assert_eq!(usage(&answer).used(), 188);
        assert_eq!(charged(&service).await, settled, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_estimate_from_the_body_has_both_kinds() {
    let rules = Rules::new()
        .total(limits())
        .estimate(Estimate::from_body(BodyEstimate::new()).or(77));
    let layer = throttle(rules);
    let service = layer
        .peek_layer()
        .layer(layer.layer(inner::<Peeked<Body>>()));
    for (body, reserved) in [
        (r#"{"prompt":"12345678","max_tokens":30}"#, [32, 2, 30]),
        ("not JSON", [77, 77, 77]),
    ] {
        let request = Request::post("/")
            .body(Body::from(body))
            .expect("a request");
        let answer = service.clone().oneshot(request).await.expect("never fails");
        let costs: Vec<_> = decision(&answer).limits().map(|it| it.cost()).collect();
        assert_eq!(costs, reserved, "{body}");
        assert_eq!(usage(&answer).reserved(), reserved[0]);
    }
}

type Handler = fn(&Usage) -> bool;

/// A client that goes away before a total is known does not pay less than what it has received.
#[tokio::test(start_paused = true)]
async fn without_a_settlement_the_most_of_reservation_and_count_is_owed() {
    // (what the handler counts; the charges of all, input and output, of 100 tokens of input that were estimated)
    let table: [(&str, Handler, [u64; 3]); 7] = [
        ("nothing", |_| true, [100, 100, 1]),
        (
            "a little output",
            |usage| usage.add_tokens(TokenUsage::new().output(30)),
            [130, 100, 30],
        ),
        (
            "output, piece by piece",
            |usage| (0..30).all(|_| usage.add_tokens(TokenUsage::new().output(1))),
            [130, 100, 30],
        ),
        (
            "less input, and output",
            |usage| usage.add_tokens(TokenUsage::new().input(20).output(30)),
            [100, 100, 30],
        ),
        (
            "more input",
            |usage| usage.add_tokens(TokenUsage::new().cached_input(300)),
            [300, 300, 1],
        ),
        ("what has no kind", |usage| usage.add(30), [100, 100, 30]),
        (
            "more that has no kind",
            |usage| usage.add(300),
            [300, 300, 300],
        ),
    ];
    for (what, count, expected) in table {
        for is_whole in [true, false] {
            let service = throttle(Rules::new().total(limits())).layer(inner());
            let answer = send(&service, 400).await;
            assert!(count(&usage(&answer)), "{what}");
            let account = usage(&answer);
            match is_whole {
                true => drop(bytes(answer).await),
                false => drop(answer),
            }
            assert!(!account.add(1), "{what}: it has ended");
            assert_eq!(charged(&service).await, expected, "{what}, {is_whole}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_remains_is_what_all_limits_on_output_allow() {
    let rate = |burst| Rate::per_hour(1).burst(burst);
    let all = Limits::new().max_reservation_percent(100);
    // (limits, what remains for a request that reserves 100 tokens of input, after 20 of output)
    let table = [
        (all.clone().input_tokens(rate(100)), u64::MAX),
        (all.clone().output_tokens(rate(50)), 30),
        (all.clone().tokens(rate(400)), 380),
        (
            all.clone()
                .tokens(rate(400))
                .input_tokens(rate(100))
                .output_tokens(rate(90)),
            70,
        ),
    ];
    for (limits, remaining) in table {
        let what = format!("{limits:?}");
        let service = throttle(Rules::new().total(limits)).layer(inner());
        let answer = send(&service, 400).await;
        let account = usage(&answer);
        assert!(account.add_tokens(TokenUsage::new().output(20)));
        assert_eq!(account.remaining(), remaining, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_request_is_one_of_both_kinds_together() {
    let rules = Rules::new()
        .total(
            Limits::new()
                .output_tokens(Rate::per_minute(1_000))
                .max_tokens_per_request(40),
        )
        .estimate(Estimate::from_body(BodyEstimate::new()).or(41));
    let layer = throttle(rules);
    let service = layer
        .peek_layer()
        .layer(layer.layer(inner::<Peeked<Body>>()));
    for (output, status) in [(38, StatusCode::OK), (39, StatusCode::TOO_MANY_REQUESTS)] {
        let body = format!(r#"{{"prompt":"12345678","max_tokens":{output}}}"#);
        let request = Request::post("/")
            .body(Body::from(body))
            .expect("a request");
        let answer = service.clone().oneshot(request).await.expect("never fails");
        assert_eq!(answer.status(), status, "{output}");
        let can_pass = answer.headers().contains_key("retry-after");
        assert!(!can_pass, "it never passes: {output}");
    }
}

#[tokio::test(start_paused = true)]
async fn kinds_are_named_and_published_apart() {
    let rules = Rules::new().route(
        "POST /",
        Limits::new()
            .rate(Rate::per_minute(60))
            .tokens(Rate::per_minute(600))
            .input_tokens(Rate::per_minute(400))
            .output_tokens(Rate::per_minute(200)),
    );
    let layer = build(throttling(rules).rejection(Dialect::Anthropic));
    let service = layer.layer(inner());
    let answer = send(&service, 40).await;
    let names: Vec<_> = decision(&answer)
        .limits()
        .map(|it| it.name().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "post",
            "post_tokens",
            "post_input_tokens",
            "post_output_tokens"
        ]
    );
    let fields = [
        ("anthropic-ratelimit-tokens-remaining", "590"),
        ("anthropic-ratelimit-input-tokens-limit", "400"),
        ("anthropic-ratelimit-input-tokens-remaining", "390"),
        ("anthropic-ratelimit-output-tokens-limit", "200"),
        ("anthropic-ratelimit-output-tokens-remaining", "199"),
    ];
    for (name, value) in fields {
        assert_eq!(answer.headers()[name], value, "{name}");
    }
    let policy = answer.headers()["ratelimit-policy"].to_str().expect("text");
    assert!(
        policy.contains(
            r#""post_input_tokens";q=400;w=60;throttle-burst=400;throttle-unit="input-tokens""#
        ),
        "{policy}"
    );
    let limits = layer.handle().snapshot().limits;
    let settings: Vec<_> = limits
        .iter()
        .map(|limit| limit.settings.to_string())
        .collect();
    assert_eq!(
        settings[2..],
        [
            "400 input tokens in 60s, burst 400",
            "200 output tokens in 60s, burst 200"
        ]
    );
}

#[test]
fn a_weight_of_cached_input_is_at_most_the_whole_and_stands_where_input_is_counted() {
    let error = |limits: Limits| -> RulesError {
        ThrottleLayer::new(Rules::new().total(limits)).expect_err("a fault")
    };
    let rate = Rate::per_minute(10);
    assert_eq!(
        error(Limits::new().tokens(rate.clone()).cached_input_percent(101)).to_string(),
        "the total: `cached_input_percent` is 101; write 0 to 100"
    );
    assert_eq!(
        error(Limits::new().output_tokens(rate).cached_input_percent(1)).to_string(),
        "the total: `cached_input_percent` is set, but no input is counted there; add `tokens` or `input_tokens`, or \
         remove `cached_input_percent`"
    );
}
