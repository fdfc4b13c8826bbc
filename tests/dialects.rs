//! Answers as the clients of known APIs expect them, byte for byte.

mod support;

use std::{collections::HashSet, convert::Infallible, time::Duration};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Dialect, Estimate, Limits, Quota, Rate, ResponseBody, Rules, RulesError, ThrottleLayer,
};

use support::{bytes, throttle, values};

const DIALECTS: [Dialect; 5] = [
    Dialect::Problem,
    Dialect::OpenAi,
    Dialect::Anthropic,
    Dialect::ApiGateway,
    Dialect::AzureApiManagement,
];

type Answer = Response<ResponseBody<Body>>;

async fn send(layer: &ThrottleLayer, method: Method, path: &str) -> Answer {
    let serve =
        |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::from("served"))) };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::empty());
    let answer = layer
        .layer(service_fn(serve))
        .oneshot(request.expect("a request"))
        .await;
    answer.unwrap_or_else(|never| match never {})
}

async fn get(layer: &ThrottleLayer, path: &str) -> Answer {
    send(layer, Method::GET, path).await
}

fn layer(limits: impl Into<Limits>, dialect: Dialect) -> ThrottleLayer {
    throttle(Rules::new().route("GET /", limits)).rejection(dialect)
}

/// Two requests a minute, of which a second is refused for 20 s after 10 of 30.
async fn refused(dialect: Dialect) -> Answer {
    let layer = layer(Rate::per_minute(2).burst(1).named("chat"), dialect);
    assert_eq!(get(&layer, "/").await.status(), StatusCode::OK);
    tokio::time::advance(Duration::from_secs(10)).await;
    get(&layer, "/").await
}

/// The fields that are not the same for all.
fn own_fields(answer: &Answer) -> Vec<(String, String)> {
    let common = [
        "cache-control",
        "retry-after",
        "retry-after-ms",
        "ratelimit",
        "ratelimit-policy",
        "x-should-retry",
        "content-length",
    ];
    let fields = answer.headers().iter();
    let told =
        fields.map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
    told.filter(|(name, _)| !common.contains(&name.as_str()))
        .collect()
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// Without what depends on the day.
fn without_dates(fields: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_date =
        |value: &str| value.len() == 20 && value.starts_with("20") && value.ends_with('Z');
    let dated = |(name, value): (String, String)| {
        let value = if is_date(&value) {
            "a date".to_owned()
        } else {
            value
        };
        (name, value)
    };
    fields.into_iter().map(dated).collect()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_answered_as_each_of_them_does() {
    let json = ("content-type", "application/json");
    let table = [
        (
            Dialect::OpenAi,
            429,
            vec![
                json,
                ("x-ratelimit-limit-requests", "2"),
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "20s"),
            ],
            r#"{"error":{"message":"Rate limit reached for requests. Please try again in 20s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
        ),
        (
            Dialect::Anthropic,
            429,
            vec![
                json,
                ("anthropic-ratelimit-requests-limit", "2"),
                ("anthropic-ratelimit-requests-remaining", "0"),
                ("anthropic-ratelimit-requests-reset", "a date"),
            ],
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"Rate limit reached. Please try again in 20s."}}"#,
        ),
        (
            Dialect::ApiGateway,
            429,
            vec![json, ("x-amzn-errortype", "TooManyRequestsException")],
            r#"{"message":"Too Many Requests"}"#,
        ),
        (
            Dialect::AzureApiManagement,
            429,
            vec![json, ("x-ratelimit-remaining-requests", "0")],
            r#"{ "statusCode": 429, "message": "Rate limit is exceeded. Try again in 20 seconds." }"#,
        ),
    ];
    for (dialect, status, fields, body) in table {
        let answer = refused(dialect).await;
        assert_eq!(answer.status(), status, "{dialect:?}");
        assert_eq!(
            without_dates(own_fields(&answer)),
            pairs(&fields),
            "{dialect:?}"
        );
        assert_eq!(bytes(answer).await, body, "{dialect:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_the_dialect_waits_are_told_so_that_clients_obey() {
    for dialect in DIALECTS {
        let answer = refused(dialect).await;
        assert_eq!(answer.headers()["retry-after"], "20", "{dialect:?}");
        assert_eq!(answer.headers()["retry-after-ms"], "20000", "{dialect:?}");
        assert_eq!(answer.headers()["cache-control"], "no-store", "{dialect:?}");
        assert_eq!(
            values(&answer, "ratelimit"),
            [r#""chat";r=0;t=20"#],
            "{dialect:?}"
        );
        assert!(
            !answer.headers().contains_key("x-should-retry"),
            "{dialect:?}"
        );

        let long = layer(Rate::per_hour(1), dialect);
        get(&long, "/").await;
        let answer = get(&long, "/").await;
        assert_eq!(
            answer.headers()["retry-after"],
            "3600",
            "{dialect:?}: the truth"
        );
        assert_eq!(answer.headers()["x-should-retry"], "false", "{dialect:?}");

        let never = get(&layer(Limits::closed(), dialect), "/").await;
        assert_eq!(never.status(), StatusCode::TOO_MANY_REQUESTS, "{dialect:?}");
        for name in ["retry-after", "retry-after-ms"] {
            assert!(!never.headers().contains_key(name), "{dialect:?}: {name}");
        }
        assert_eq!(never.headers()["x-should-retry"], "false", "{dialect:?}");
        let body = bytes(never).await;
        assert!(
            serde_json::from_slice::<serde_json::Value>(&body).is_ok(),
            "{dialect:?}: {body:?}"
        );

        let head = layer(Rate::per_minute(2).burst(1), dialect);
        get(&head, "/").await;
        let (head, get) = (send(&head, Method::HEAD, "/").await, get(&head, "/").await);
        assert_eq!(
            own_fields(&head).len(),
            own_fields(&get).len(),
            "{dialect:?}"
        );
        assert!(
            bytes(head).await.is_empty(),
            "{dialect:?}: HEAD has no body"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_told_from_a_greedy_client() {
    let table = [
        (Dialect::Problem, 503, "server_is_overloaded"),
        (Dialect::OpenAi, 503, "server_is_overloaded"),
        (Dialect::Anthropic, 529, "overloaded_error"),
        (
            Dialect::ApiGateway,
            503,
            r#"{"message":"Service Unavailable"}"#,
        ),
        (Dialect::AzureApiManagement, 503, r#""statusCode": 503"#),
    ];
    for (dialect, status, words) in table {
        let layer = layer(Limits::new().in_flight(1), dialect);
        let held = get(&layer, "/").await;
        let busy = get(&layer, "/").await;
        assert_eq!(busy.status(), status, "{dialect:?}");
        assert_eq!(busy.headers()["retry-after"], "1", "{dialect:?}");
        let body = String::from_utf8(bytes(busy).await.to_vec()).expect("text");
        assert!(body.contains(words), "{dialect:?}: {body}");
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn admitted_responses_tell_what_is_left_in_the_words_of_the_dialect() {
    let limits = || {
        Limits::new()
            .rate(Rate::per_minute(60).burst(10).named("calls"))
            .tokens(Rate::per_minute(600).burst(100).named("tokens"))
            .in_flight(4)
    };
    let rules = || {
        Rules::new()
            .route("GET /", limits())
            .estimate(Estimate::fixed(30))
    };
    let table = [
        (Dialect::Problem, vec![]),
        (Dialect::ApiGateway, vec![]),
        (
            Dialect::OpenAi,
            vec![
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-remaining-requests", "9"),
                ("x-ratelimit-reset-requests", "1s"),
                ("x-ratelimit-limit-tokens", "600"),
                ("x-ratelimit-remaining-tokens", "70"),
                ("x-ratelimit-reset-tokens", "3s"),
            ],
        ),
        (
            Dialect::Anthropic,
            vec![
                ("anthropic-ratelimit-requests-limit", "60"),
                ("anthropic-ratelimit-requests-remaining", "9"),
                ("anthropic-ratelimit-requests-reset", "a date"),
                ("anthropic-ratelimit-tokens-limit", "600"),
                ("anthropic-ratelimit-tokens-remaining", "70"),
                ("anthropic-ratelimit-tokens-reset", "a date"),
            ],
        ),
        (
            Dialect::AzureApiManagement,
            vec![
                ("x-ratelimit-remaining-requests", "9"),
                ("x-ratelimit-remaining-tokens", "70"),
            ],
        ),
    ];
    for (dialect, fields) in table {
        let answer = get(&throttle(rules()).rejection(dialect), "/").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(
            without_dates(own_fields(&answer)),
            pairs(&fields),
            "{dialect:?}"
        );
        assert_eq!(
            values(&answer, "ratelimit").len(),
            1,
            "{dialect:?}: the IETF's too"
        );
        let silent = throttle(rules()).rejection(dialect).fields(false);
        assert_eq!(get(&silent, "/").await.headers().len(), 0, "{dialect:?}");
        // What is not published is told by no dialect.
        let hidden = throttle(Rules::new().total(limits())).rejection(dialect);
        assert_eq!(get(&hidden, "/").await.headers().len(), 0, "{dialect:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_route_may_have_its_own() {
    let rules = Rules::new()
        .default_route(Rate::per_hour(1))
        .rejection("POST /v1/messages", Dialect::Anthropic)
        .rejection("ANY /v1/{proxy+}", Dialect::OpenAi)
        .rejection(
            "GET /plain",
            |_: &tower_throttle::Denial, _: &http::request::Parts| Response::new("no"),
        );
    let layer = throttle(rules).rejection(Dialect::ApiGateway);
    let table = [
        (
            Method::POST,
            "/v1/messages",
            r#"{"type":"error""#,
            "anthropic-ratelimit-requests-limit",
        ),
        (
            Method::GET,
            "/v1/messages",
            r#"{"error":{"#,
            "x-ratelimit-limit-requests",
        ),
        (
            Method::GET,
            "/v1/a/b",
            r#"{"error":{"#,
            "x-ratelimit-limit-requests",
        ),
        (Method::GET, "/other", r#"{"message":"#, "ratelimit"),
        (Method::GET, "/plain", "no", "ratelimit"),
    ];
    for (method, path, body, field) in table {
        let admitted = send(&layer, method.clone(), path).await;
        assert!(
            admitted.headers().contains_key(field),
            "{path}: {:?}",
            admitted.headers()
        );
        let others = own_fields(&admitted)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>();
        let prefix = &field[..field.find("rate").expect("all have it")];
        assert!(
            others.iter().all(|name| name.starts_with(prefix)),
            "{path}: {others:?}"
        );
        let refused = send(&layer, method, path).await;
        let told = bytes(refused).await;
        assert!(told.starts_with(body.as_bytes()), "{path}: {told:?}");
    }
}

#[test]
fn a_key_that_cannot_be_meant_is_named() {
    let error = |rules: Rules| ThrottleLayer::new(rules).expect_err("an error").to_string();
    let dialect = Dialect::OpenAi;
    let bad = error(Rules::new().rejection("POST x", dialect));
    assert!(bad.starts_with("route key `POST x`: "), "{bad}");
    let same = Rules::new()
        .rejection("GET /{a}", dialect)
        .rejection("GET /{b}", dialect);
    let same: RulesError = ThrottleLayer::new(same).expect_err("an error");
    assert_eq!(
        same.to_string(),
        "route keys `GET /{a}` and `GET /{b}` mean the same route; keep one of them"
    );
}

/// LangChain reads messages, and gives up at some words. Its patterns as they were in 2026, written out: what
/// must not stand in a message, and what it reads the wait from.
#[tokio::test(start_paused = true)]
async fn no_message_makes_langchain_give_up() {
    let stops = [
        "insufficient quota",
        "usage quota",
        "billing",
        "quota exhausted",
        "will reset at",
    ];
    for dialect in DIALECTS {
        for name in ["quota", "usage", "billing_tier", "chat"] {
            let limits = Limits::new().quota(Quota::per(1, Duration::from_secs(50)));
            let layer = layer(limits.named(name), dialect);
            get(&layer, "/").await;
            let answer = get(&layer, "/").await;
            let body: serde_json::Value =
                serde_json::from_slice(&bytes(answer).await).expect("JSON");
            let message = ["/error/message", "/message"]
                .into_iter()
                .find_map(|at| body.pointer(at));
            let message = message
                .and_then(|message| message.as_str())
                .expect("a message");
            let message = message.to_lowercase();
            if name != "billing_tier" || dialect != Dialect::Problem {
                assert!(
                    !stops.iter().any(|stop| message.contains(stop)),
                    "{dialect:?}: {message}"
                );
            }
            let exceeded = [
                "exceeded your",
                "exceeded the current",
                "exceeded the available",
            ];
            assert!(
                !exceeded.iter().any(|stop| message.contains(stop)),
                "{dialect:?}: {message}"
            );
            if dialect != Dialect::ApiGateway {
                let wait = message.split("try again in ").nth(1).expect("a wait");
                let digits = wait.bytes().take_while(u8::is_ascii_digit).count();
                assert!(
                    wait[..digits].parse::<u64>().is_ok_and(|wait| wait <= 50),
                    "{message}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_is_answered_in_grpc_whatever_the_dialect() {
    let mut answers = HashSet::new();
    for dialect in DIALECTS {
        let layer = throttle(Rules::new().total(Rate::per_hour(1).named("all"))).rejection(dialect);
        get(&layer, "/").await;
        let request = Request::post("/pkg.Service/Method")
            .version(http::Version::HTTP_2)
            .header("content-type", "application/grpc")
            .body(Body::empty());
        let serve = |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        let answer = layer
            .layer(service_fn(serve))
            .oneshot(request.expect("a request"))
            .await;
        let answer = answer.unwrap_or_else(|never| match never {});
        assert_eq!(answer.headers()["grpc-status"], "8");
        answers.insert(
            own_fields(&answer)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(answers.len(), 1, "all alike");
}
