//! Answers as the clients of known APIs expect them, byte for byte.

#[path = "support/cases.rs"]
mod cases;
mod support;
#[path = "support/told.rs"]
mod told;

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    time::{Duration, SystemTime},
};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Decision, Limits, Quota, Rate, Rules, RulesError, ThrottleLayer, body::ResponseBody,
    response::Dialect, store::OnOutage, usage::Estimate,
};

use support::{build, bytes, throttle, throttling, values};
use told::{Does, Told};

const DIALECTS: [Dialect; 7] = [
    Dialect::Problem,
    Dialect::OpenAi,
    Dialect::Anthropic,
    Dialect::ApiGateway,
    Dialect::AzureApiManagement,
    Dialect::KServe,
    Dialect::JsonRpc,
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

/// A layer whose refusals are answered in a dialect.
fn speaking(rules: Rules, dialect: Dialect) -> ThrottleLayer {
    build(throttling(rules).rejection(dialect))
}

fn layer(limits: impl Into<Limits>, dialect: Dialect) -> ThrottleLayer {
    speaking(Rules::new().route("GET /", limits), dialect)
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

/// Returns the fields without what depends on the day.
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

/// Status, own fields and body, in a line each.
async fn written(answer: Answer) -> String {
    let status = answer.status().as_u16();
    let fields = without_dates(own_fields(&answer));
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("; {name}: {value}"))
        .collect();
    let body = String::from_utf8(bytes(answer).await.to_vec()).expect("text");
    format!("{status}{fields}\n{body}\n")
}

/// Every way to be refused: for a while, for long, to a `HEAD`, for ever, and by a server that is busy.
async fn every_refusal(dialect: Dialect) -> String {
    let mut told = written(refused(dialect).await).await;
    let long = layer(Rate::per_hour(1), dialect);
    get(&long, "/").await;
    told += &written(get(&long, "/").await).await;
    told += &written(send(&long, Method::HEAD, "/").await).await;
    told += &written(get(&layer(Limits::closed(), dialect), "/").await).await;
    let busy = layer(Limits::new().in_flight(1), dialect);
    let held = get(&busy, "/").await;
    told += &written(get(&busy, "/").await).await;
    drop(held);
    told
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_answered_as_each_of_them_does() {
    let table = [
        (Dialect::OpenAi, OPEN_AI),
        (Dialect::Anthropic, ANTHROPIC),
        (Dialect::ApiGateway, API_GATEWAY),
        (Dialect::AzureApiManagement, AZURE),
        (Dialect::KServe, KSERVE),
        (Dialect::JsonRpc, JSON_RPC),
    ];
    for (dialect, expected) in table {
        let found = every_refusal(dialect).await;
        assert_eq!(found, expected.trim_start(), "{dialect:?}:\n{found}");
    }
}

const OPEN_AI: &str = r#"
429; content-type: application/json; x-ratelimit-limit-requests: 2; x-ratelimit-remaining-requests: 0; x-ratelimit-reset-requests: 20s
{"error":{"message":"Rate limit reached for requests. Please try again in 20s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}
429; content-type: application/json; x-ratelimit-limit-requests: 1; x-ratelimit-remaining-requests: 0; x-ratelimit-reset-requests: 1h0m0s
{"error":{"message":"Rate limit reached for requests. Please try again in 3600s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}
429; content-type: application/json; x-ratelimit-limit-requests: 1; x-ratelimit-remaining-requests: 0; x-ratelimit-reset-requests: 1h0m0s

429; content-type: application/json; x-ratelimit-limit-requests: 0; x-ratelimit-remaining-requests: 0
{"error":{"message":"This request can never pass the rate limit for requests.","type":"requests","param":null,"code":"rate_limit_exceeded"}}
503; content-type: application/json
{"error":{"message":"The server is overloaded. Please try again in 1s.","type":"service_unavailable_error","param":null,"code":"server_is_overloaded"}}
"#;
const ANTHROPIC: &str = r#"
429; content-type: application/json; anthropic-ratelimit-requests-limit: 2; anthropic-ratelimit-requests-remaining: 0; anthropic-ratelimit-requests-reset: a date
{"type":"error","error":{"type":"rate_limit_error","message":"Rate limit reached. Please try again in 20s."}}
429; content-type: application/json; anthropic-ratelimit-requests-limit: 1; anthropic-ratelimit-requests-remaining: 0; anthropic-ratelimit-requests-reset: a date
{"type":"error","error":{"type":"rate_limit_error","message":"Rate limit reached. Please try again in 3600s."}}
429; content-type: application/json; anthropic-ratelimit-requests-limit: 1; anthropic-ratelimit-requests-remaining: 0; anthropic-ratelimit-requests-reset: a date

429; content-type: application/json; anthropic-ratelimit-requests-limit: 0; anthropic-ratelimit-requests-remaining: 0
{"type":"error","error":{"type":"rate_limit_error","message":"This request can never pass the rate limit."}}
529; content-type: application/json
{"type":"error","error":{"type":"overloaded_error","message":"Overloaded. Please try again in 1s."}}
"#;
const API_GATEWAY: &str = r#"
429; content-type: application/json; x-amzn-errortype: TooManyRequestsException
{"message":"Too Many Requests"}
429; content-type: application/json; x-amzn-errortype: TooManyRequestsException
{"message":"Too Many Requests"}
429; content-type: application/json; x-amzn-errortype: TooManyRequestsException

429; content-type: application/json; x-amzn-errortype: TooManyRequestsException
{"message":"Too Many Requests"}
503; content-type: application/json; x-amzn-errortype: ServiceUnavailableException
{"message":"Service Unavailable"}
"#;
const AZURE: &str = r#"
429; content-type: application/json; x-ratelimit-remaining-requests: 0
{ "statusCode": 429, "message": "Rate limit is exceeded. Try again in 20 seconds." }
429; content-type: application/json; x-ratelimit-remaining-requests: 0
{ "statusCode": 429, "message": "Rate limit is exceeded. Try again in 3600 seconds." }
429; content-type: application/json; x-ratelimit-remaining-requests: 0

429; content-type: application/json; x-ratelimit-remaining-requests: 0
{ "statusCode": 429, "message": "Rate limit is exceeded. This request can never pass." }
503; content-type: application/json
{ "statusCode": 503, "message": "Service is at its limit of concurrent calls. Try again in 1 seconds." }
"#;
const KSERVE: &str = r#"
429; content-type: application/json
{"error":"Rate limit reached for requests. Please try again in 20s."}
429; content-type: application/json
{"error":"Rate limit reached for requests. Please try again in 3600s."}
429; content-type: application/json

429; content-type: application/json
{"error":"This request can never pass the rate limit for requests."}
503; content-type: application/json
{"error":"The server is overloaded. Please try again in 1s."}
"#;
const JSON_RPC: &str = r#"
429; content-type: application/json
{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"Rate limit reached for requests. Please try again in 20s.","data":{"retryAfter":20,"retryAfterMs":20000}}}
429; content-type: application/json
{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"Rate limit reached for requests. Please try again in 3600s.","data":{"retryAfter":3600,"retryAfterMs":3600000}}}
429; content-type: application/json

429; content-type: application/json
{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"This request can never pass the rate limit for requests."}}
503; content-type: application/json
{"jsonrpc":"2.0","id":null,"error":{"code":-32014,"message":"The server is overloaded. Please try again in 1s.","data":{"retryAfter":1,"retryAfterMs":1000}}}
"#;

/// Triton's clients append the error to a string, and those of JSON-RPC want an integer, an `id` and a wait as numbers.
#[tokio::test(start_paused = true)]
async fn the_error_is_a_string_to_kserve_and_an_object_with_code_and_data_to_json_rpc() {
    let body = |answer| async {
        let body = bytes(answer).await;
        serde_json::from_slice::<serde_json::Value>(&body).expect("JSON")
    };
    let told = body(refused(Dialect::KServe).await).await;
    let members: Vec<_> = told.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["error"]);
    assert!(told["error"].is_string(), "{told}");

    let answer = refused(Dialect::JsonRpc).await;
    let [seconds, milliseconds] = ["retry-after", "retry-after-ms"].map(|name| {
        values(&answer, name)
            .concat()
            .parse::<u64>()
            .expect("an integer")
    });
    let told = body(answer).await;
    assert_eq!(told["jsonrpc"], "2.0");
    assert_eq!(
        told.get("id"),
        Some(&serde_json::Value::Null),
        "there, and null"
    );
    let (code, data) = (&told["error"]["code"], &told["error"]["data"]);
    let code = code.as_i64().expect("an integer");
    assert!(
        (-32_019..=-32_003).contains(&code),
        "free for implementations of MCP: {code}"
    );
    assert_eq!(data["retryAfter"], seconds);
    assert_eq!(data["retryAfterMs"], milliseconds);

    let never = body(get(&layer(Limits::closed(), Dialect::JsonRpc), "/").await).await;
    assert_eq!(never["error"].get("data"), None, "no wait");
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
        let length = head.headers()["content-length"].clone();
        assert!(
            bytes(head).await.is_empty(),
            "{dialect:?}: HEAD has no body"
        );
        // The second one is told a longer wait, of as many digits.
        let body = bytes(get).await;
        assert_eq!(length, body.len().to_string(), "{dialect:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dialect_says_what_is_counted_where_its_original_does() {
    let quota = Limits::new().quota(Quota::per(1, Duration::from_secs(50)));
    let tokens = Limits::new().tokens(Rate::per_minute(60).burst(1));
    let table = [
        (
            Dialect::ApiGateway,
            &quota,
            r#"{"message":"Limit Exceeded"}"#,
        ),
        (
            Dialect::ApiGateway,
            &tokens,
            r#"{"message":"Too Many Requests"}"#,
        ),
        (Dialect::OpenAi, &tokens, r#""type":"tokens""#),
        (Dialect::OpenAi, &quota, r#""type":"requests""#),
        (
            Dialect::AzureApiManagement,
            &tokens,
            "Token limit is exceeded. Try again in 1 seconds.",
        ),
        (
            Dialect::AzureApiManagement,
            &quota,
            "Rate limit is exceeded.",
        ),
        (Dialect::KServe, &tokens, "Rate limit reached for tokens. "),
        (Dialect::JsonRpc, &tokens, "Rate limit reached for tokens. "),
    ];
    for (dialect, limits, words) in table {
        let rules = Rules::new().route("GET /", limits.clone());
        let layer = speaking(rules.estimate(Estimate::fixed(1)), dialect);
        get(&layer, "/").await;
        let answer = get(&layer, "/").await;
        assert_eq!(
            answer.status(),
            StatusCode::TOO_MANY_REQUESTS,
            "{dialect:?}"
        );
        if let Some(exception) = answer.headers().get("x-amzn-errortype") {
            let is_quota = exception == "LimitExceededException";
            assert_eq!(is_quota, limits == &quota, "{exception:?}");
        }
        let body = String::from_utf8(bytes(answer).await.to_vec()).expect("text");
        assert!(body.contains(words), "{dialect:?}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_told_from_a_greedy_client() {
    let table = [
        (Dialect::Problem, 503, "server_is_overloaded"),
        (
            Dialect::Problem,
            503,
            concat!(
                r#""detail":"The server is overloaded, at the limit of requests in flight of policy get_in_flight. "#,
                r#"Please try again in 1s.""#,
            ),
        ),
        (Dialect::OpenAi, 503, "server_is_overloaded"),
        (Dialect::Anthropic, 529, "overloaded_error"),
        (
            Dialect::ApiGateway,
            503,
            r#"{"message":"Service Unavailable"}"#,
        ),
        (Dialect::AzureApiManagement, 503, r#""statusCode": 503"#),
        (
            Dialect::KServe,
            503,
            r#"{"error":"The server is overloaded. "#,
        ),
        (
            Dialect::JsonRpc,
            503,
            r#""code":-32014,"message":"The server is overloaded. "#,
        ),
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
async fn where_nobody_can_decide_that_is_told() {
    let table = [
        (
            Dialect::Problem,
            concat!(
                r#"{"type":"about:blank","title":"Service Unavailable","status":503,"#,
                r#""detail":"Rate limiter unavailable. Please try again in {}s.","#,
                r#""error":{"message":"Rate limiter unavailable. Please try again in {}s.","#,
                r#""type":"service_unavailable_error","param":null,"code":"limiter_unavailable"}}"#,
            ),
        ),
        (
            Dialect::OpenAi,
            concat!(
                r#"{"error":{"message":"Rate limiter unavailable. Please try again in {}s.","#,
                r#""type":"service_unavailable_error","param":null,"code":"limiter_unavailable"}}"#,
            ),
        ),
        (
            Dialect::Anthropic,
            concat!(
                r#"{"type":"error","error":{"type":"api_error","#,
                r#""message":"Rate limiter unavailable. Please try again in {}s."}}"#,
            ),
        ),
        (Dialect::ApiGateway, r#"{"message":"Service Unavailable"}"#),
        (
            Dialect::AzureApiManagement,
            concat!(
                r#"{ "statusCode": 503, "#,
                r#""message": "Rate limiter is unavailable. Try again in {} seconds." }"#,
            ),
        ),
        (
            Dialect::KServe,
            r#"{"error":"Rate limiter unavailable. Please try again in {}s."}"#,
        ),
        (
            Dialect::JsonRpc,
            concat!(
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32014,"#,
                r#""message":"Rate limiter unavailable. Please try again in {}s.","#,
                r#""data":{"retryAfter":{},"retryAfterMs":[]}}}"#,
            ),
        ),
    ];
    for (dialect, words) in table {
        let store = Told::new();
        store.does(Does::Fails);
        let rules = Rules::new().route("GET /", Rate::per_second(1));
        let builder = throttling(rules).rejection(dialect).store(store);
        let layer = build(builder.on_outage(OnOutage::Refuse));
        let answer = get(&layer, "/").await;
        assert_eq!(
            answer.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "{dialect:?}"
        );
        let [wait, milliseconds] =
            ["retry-after", "retry-after-ms"].map(|name| values(&answer, name).concat());
        let body = String::from_utf8(bytes(answer).await.to_vec()).expect("text");
        let words = words.replace("{}", &wait).replace("[]", &milliseconds);
        assert_eq!(body, words, "{dialect:?}");
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
        (Dialect::KServe, vec![]),
        (Dialect::JsonRpc, vec![]),
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
        let answer = get(&speaking(rules(), dialect), "/").await;
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
        let silent = throttling(rules())
            .rejection(dialect)
            .rate_limit_headers(false);
        let silent = build(silent);
        assert_eq!(get(&silent, "/").await.headers().len(), 0, "{dialect:?}");
        // No dialect shows an unpublished limit.
        let hidden = speaking(Rules::new().total(limits()), dialect);
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
    let layer = speaking(rules, Dialect::ApiGateway);
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

/// Tells whether LangChain (for JavaScript, 1.4) would not come back, for what a message says.
fn ends_retries(message: &str) -> bool {
    let message = message.to_lowercase();
    let stops = [
        "insufficient quota",
        "usage quota",
        "billing",
        "quota exhausted",
        "will reset at",
    ];
    let exceeded = [
        "exceeded your",
        "exceeded the current",
        "exceeded the available",
    ];
    let mut after = exceeded
        .iter()
        .filter_map(|words| message.split_once(words));
    stops.iter().any(|words| message.contains(words))
        || after.any(|(_, rest)| rest.contains("quota"))
}

/// The wait that LangChain reads from a message: `(try again in|retry after) <n>`.
fn wait_in(message: &str) -> Option<u64> {
    let message = message.to_lowercase();
    let (_, wait) = message.split_once("try again in ")?;
    let digits = wait.bytes().take_while(u8::is_ascii_digit).count();
    assert!(
        wait[digits..].trim_start().starts_with('s'),
        "a unit that it knows: {message}"
    );
    wait[..digits].parse().ok()
}

fn message(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    let mut places = ["/error/message", "/error", "/message"].into_iter();
    let message = places.find_map(|at| body.pointer(at)?.as_str());
    message.expect("a message").to_owned()
}

/// A default answer that named a limit called `billing` in its message made LangChain give up for good.
#[tokio::test(start_paused = true)]
async fn no_name_of_a_limit_makes_langchain_give_up() {
    for dialect in DIALECTS {
        for name in [
            "quota",
            "usage",
            "usage_quota",
            "billing",
            "preBILLINGtier",
            "quota_exhausted",
        ] {
            let limits = Limits::new().quota(Quota::per(1, Duration::from_secs(50)));
            let limited = layer(limits.named(name), dialect);
            get(&limited, "/").await;
            let answer = get(&limited, "/").await;
            let field = values(&answer, "ratelimit").concat();
            assert!(
                field.starts_with(&format!("\"{name}\";r=0;")),
                "{dialect:?}: named all the same: {field}"
            );
            let message = message(&bytes(answer).await);
            assert!(!ends_retries(&message), "{dialect:?}: {message}");
            if dialect != Dialect::ApiGateway {
                assert!(
                    wait_in(&message).is_some_and(|wait| wait <= 50),
                    "{message}"
                );
            }
            let busy = layer(Limits::new().in_flight(1).named(name), dialect);
            let held = get(&busy, "/").await;
            let answer = get(&busy, "/").await;
            let text = message_of(answer).await;
            assert!(!ends_retries(&text), "{dialect:?}: {text}");
            drop(held);
            let never = get(&layer(Limits::closed().named(name), dialect), "/").await;
            let text = message_of(never).await;
            assert!(!ends_retries(&text), "{dialect:?}: {text}");
        }
    }
}

async fn message_of(answer: Answer) -> String {
    message(&bytes(answer).await)
}

#[tokio::test(start_paused = true)]
async fn the_default_answer_leaves_out_of_its_message_alone_what_must_not_be_there() {
    let limited = layer(Rate::per_minute(1).named("billing"), Dialect::Problem);
    get(&limited, "/").await;
    let body = bytes(get(&limited, "/").await).await;
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        body["error"]["message"],
        "Rate limit reached. Please try again in 60s."
    );
    assert_eq!(
        body["detail"],
        "Rate limit reached for policy billing. Please try again in 60s."
    );
    assert_eq!(body["violated-policies"], serde_json::json!(["billing"]));
}

/// The first limit's reset was told, one second, next to the last one's wait, which may be an hour.
#[tokio::test(start_paused = true)]
async fn what_is_told_of_two_limits_that_refuse_is_that_of_the_longer_wait() {
    let limits = || {
        Limits::new()
            .rate(Rate::per_second(1).named("fast"))
            .rate(Rate::per_hour(7).burst(1).named("slow"))
            .tokens(Rate::per_second(40).burst(40).named("quick_tokens"))
            .tokens(Rate::per_hour(45).burst(45).named("slow_tokens"))
    };
    let rules = Rules::new()
        .route("GET /", limits())
        .estimate(Estimate::fixed(40).exact());
    let layer = speaking(rules, Dialect::OpenAi);
    get(&layer, "/").await;
    tokio::time::advance(Duration::from_millis(100)).await;
    let answer = get(&layer, "/").await;
    let headers = answer.headers();
    assert_eq!(headers["x-ratelimit-limit-requests"], "7");
    assert_eq!(headers["x-ratelimit-remaining-requests"], "0");
    assert_eq!(headers["x-ratelimit-reset-requests"], "8m34.186s");
    // The quick limit has fewer left, but the slow one determines the wait.
    assert_eq!(headers["x-ratelimit-limit-tokens"], "45");
    assert_eq!(headers["x-ratelimit-remaining-tokens"], "5");
}

/// A closed limit once said `reset: 0s`, that is, come at once.
#[tokio::test(start_paused = true)]
async fn what_is_closed_is_never_reset() {
    let rates = Limits::new()
        .rate(Rate::per_hour(1).named("slow"))
        .rate(Rate::per_second(0).named("closed"));
    for (dialect, limit, reset) in [
        (
            Dialect::OpenAi,
            "x-ratelimit-limit-requests",
            "x-ratelimit-reset-requests",
        ),
        (
            Dialect::Anthropic,
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-reset",
        ),
    ] {
        let answer = get(&layer(rates.clone(), dialect), "/").await;
        assert_eq!(answer.headers()[limit], "0", "the closed one");
        assert!(!answer.headers().contains_key(reset), "{dialect:?}");
    }
}

/// The limit with the least left is reported; among equals, the one that takes longest to refill.
#[tokio::test(start_paused = true)]
async fn neither_slots_nor_what_is_not_published_are_told() {
    let limits = Limits::new()
        .rate(Rate::per_second(1).named("fast"))
        .rate(Rate::per_minute(2).burst(1).named("slow"))
        .rate(Rate::per_hour(9).burst(9).named("large"));
    let hidden = Limits::new().rate(Rate::per_hour(1));
    let slots = limits.in_flight(1).publish(true);
    let rules = Rules::new().route("GET /", slots).total(hidden);
    let answer = get(&speaking(rules, Dialect::OpenAi), "/").await;
    assert!(
        values(&answer, "ratelimit")
            .concat()
            .contains("get_in_flight")
    );
    assert_eq!(answer.headers()["x-ratelimit-limit-requests"], "2");
    assert_eq!(answer.headers()["x-ratelimit-remaining-requests"], "0");
    assert_eq!(answer.headers()["x-ratelimit-reset-requests"], "30s");
    // No slot is left.
    let slots = Limits::new()
        .rate(Rate::per_minute(60).burst(10))
        .in_flight(1);
    let answer = get(&layer(slots.publish(true), Dialect::OpenAi), "/").await;
    assert_eq!(answer.headers()["x-ratelimit-limit-requests"], "60");
    // The total has refused, and is not published.
    let few = Rules::new()
        .route("GET /", Rate::per_minute(60).burst(10))
        .total(Rate::per_hour(1));
    let layer = speaking(few, Dialect::Anthropic);
    get(&layer, "/").await;
    let answer = get(&layer, "/").await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["anthropic-ratelimit-requests-limit"], "60");
    assert_eq!(
        answer.headers()["anthropic-ratelimit-requests-remaining"],
        "9"
    );
}

/// The throttle's values were once appended, and clients read `500, 60`, which is no number.
#[tokio::test(start_paused = true)]
async fn what_the_inner_service_tells_itself_stands_alone() {
    let told = [
        (Dialect::OpenAi, "x-ratelimit-limit-requests"),
        (Dialect::OpenAi, "x-ratelimit-remaining-tokens"),
        (Dialect::Anthropic, "anthropic-ratelimit-requests-reset"),
        (
            Dialect::AzureApiManagement,
            "x-ratelimit-remaining-requests",
        ),
    ];
    for (dialect, name) in told {
        let limits = Limits::new()
            .rate(Rate::per_minute(60))
            .tokens(Rate::per_minute(60));
        let serve = move |_: Request<Body>| async move {
            let answer = Response::builder().header(name, "upstream");
            Ok::<_, Infallible>(answer.body(Body::empty()).expect("a response"))
        };
        let service = layer(limits, dialect).layer(service_fn(serve));
        let request = Request::get("/").body(Body::empty()).expect("a request");
        let answer = service.oneshot(request).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        assert_eq!(
            own_fields(&answer),
            pairs(&[(name, "upstream")]),
            "{dialect:?}"
        );
        assert_eq!(values(&answer, "ratelimit").len(), 1, "a list may grow");
    }
}

/// Seconds since the epoch, of a date such as `2026-11-23T03:30:01Z`.
fn seconds(date: &str) -> i64 {
    let part = |range: std::ops::Range<usize>| date[range].parse::<i64>().expect("digits");
    let (year, month, day) = (part(0..4), part(5..7), part(8..10));
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    ((days * 24 + part(11..13)) * 60 + part(14..16)) * 60 + part(17..19)
}

#[tokio::test(start_paused = true)]
async fn anthropics_dates_go_with_the_clock_and_tell_when_all_is_there_again() {
    let layer = layer(Rate::per_minute(60).burst(100), Dialect::Anthropic);
    let reset = || async {
        let answer = get(&layer, "/").await;
        seconds(
            answer.headers()["anthropic-ratelimit-requests-reset"]
                .to_str()
                .expect("text"),
        )
    };
    let first = reset().await;
    assert_eq!(reset().await, first + 1, "one more is missing");
    // 400 days: over months, and a leap day or none.
    tokio::time::advance(Duration::from_secs(400 * 86_400)).await;
    assert_eq!(reset().await, first + 400 * 86_400);
}

#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "what a client's clock shows")]
async fn at_the_date_that_is_told_all_is_there_again() {
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let layer = layer(Rate::per_minute(60), Dialect::Anthropic);
    let answer = get(&layer, "/").await;
    let date = answer.headers()["anthropic-ratelimit-requests-reset"].to_str();
    let epoch = seconds("1970-01-01T00:00:00Z");
    let told = u64::try_from(seconds(date.expect("text")) - epoch).expect("a later one");
    let full = before.expect("after the epoch") + Duration::from_secs(1);
    assert!(Duration::from_secs(told) >= full, "rounded up");
    assert!(Duration::from_secs(told) <= full + Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_in_line_is_told_in_the_dialect_too() {
    let limits = Limits::new()
        .rate(Rate::per_second(1))
        .max_wait(Duration::from_secs(5));
    let rules = Rules::new()
        .route("GET /", limits)
        .rejection("GET /", Dialect::OpenAi);
    let layer = throttle(rules);
    get(&layer, "/").await;
    let answer = get(&layer, "/").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-ratelimit-reset-requests"], "1s");
    let all = futures_of(&layer).await;
    let refused = all.into_iter().find(|answer| answer.status() == 429);
    let body = bytes(refused.expect("no more than five wait that long")).await;
    assert!(body.starts_with(br#"{"error":{"message":"Rate limit reached for requests."#));
}

/// Eight at once.
async fn futures_of(layer: &ThrottleLayer) -> Vec<Answer> {
    let ask = |layer: ThrottleLayer| async move { get(&layer, "/").await };
    let all: Vec<_> = (0..8).map(|_| tokio::spawn(ask(layer.clone()))).collect();
    let mut answers = Vec::new();
    for asked in all {
        answers.push(asked.await.expect("no panic"));
    }
    answers
}

/// Rules, and what has been asked of them before.
#[derive(Debug, Clone)]
struct Case {
    count: u64,
    period: u64,
    quota: Option<(u64, u64)>,
    tokens: Option<(u64, u64)>,
    slots: Option<u64>,
    name: &'static str,
    total: bool,
    before: usize,
    idle: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let names = prop::sample::select(vec!["chat", "quota", "billing", "usage_quota"]);
    let settings = (
        0..4_u64,
        1..200_000_u64,
        prop::option::of((0..4_u64, 1..200_000_u64)),
        prop::option::of((1..60_u64, 1..60_u64)),
        prop::option::of(1..3_u64),
    );
    (settings, names, any::<bool>(), 0..8_usize, 0..100_000_u64).prop_map(
        |((count, period, quota, tokens, slots), name, total, before, idle)| Case {
            count,
            period,
            quota,
            tokens,
            slots,
            name,
            total,
            before,
            idle,
        },
    )
}

impl Case {
    fn layer(&self, dialect: Dialect) -> ThrottleLayer {
        let rate = Rate::new(self.count, Duration::from_millis(self.period)).burst(2);
        let mut limits = Limits::new().rate(rate).named(self.name);
        if let Some((count, window)) = self.quota {
            limits = limits.quota(Quota::per(count, Duration::from_millis(window)));
        }
        if let Some((burst, _)) = self.tokens {
            limits = limits.tokens(Rate::per_minute(50).burst(burst));
        }
        if let Some(slots) = self.slots {
            limits = limits.in_flight(slots);
        }
        let rules = match self.total {
            true => Rules::new().total(limits),
            false => Rules::new().route("GET /", limits),
        };
        let cost = self.tokens.map_or(1, |(_, cost)| cost);
        speaking(rules.estimate(Estimate::fixed(cost)), dialect)
    }
}

/// Asserts the promises that all dialects keep alike, and each by itself, of one request after others.
async fn promises_hold(case: &Case) {
    // Windows of quotas hang on the wall clock, which moves between the layers: their waits are not compared.
    let mut alike = HashMap::new();
    for dialect in DIALECTS {
        let layer = case.layer(dialect);
        let mut held = Vec::new();
        for _ in 0..case.before {
            held.push(get(&layer, "/").await);
        }
        tokio::time::advance(Duration::from_millis(case.idle)).await;
        let answer = get(&layer, "/").await;
        let decision = answer.extensions().get::<Decision>().expect("one").clone();
        if case.quota.is_none() {
            let common = ["retry-after-ms", "ratelimit", "x-should-retry"]
                .map(|name| values(&answer, name).concat());
            let first = alike
                .entry(decision.is_admitted())
                .or_insert(common.clone());
            assert_eq!(*first, common, "{dialect:?}: {case:?}");
        }
        if decision.is_admitted() {
            assert_eq!(answer.status(), 200);
            continue;
        }
        let told = |name| {
            let told = values(&answer, name);
            assert!(told.len() <= 1, "{dialect:?}: {name} once");
            told.first()
                .map(|told| told.parse::<u64>().expect("an integer"))
        };
        let (seconds, milliseconds) = (told("retry-after"), told("retry-after-ms"));
        let wait = decision.retry_after();
        assert_eq!(seconds.is_some(), wait.is_some(), "{dialect:?}: {case:?}");
        if let (Some(seconds), Some(wait)) = (seconds, wait) {
            let milliseconds = milliseconds.expect("both");
            assert!(seconds >= 1 && milliseconds >= 1);
            assert_eq!(milliseconds.div_ceil(1_000), seconds);
            assert!(
                Duration::from_millis(milliseconds) >= wait,
                "never less than it is"
            );
        } else {
            assert_eq!(milliseconds, None);
        }
        assert_eq!(
            answer.headers().contains_key("x-should-retry"),
            seconds.is_none_or(|seconds| seconds > 60),
            "{dialect:?}: {case:?}"
        );
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let field = values(&answer, "ratelimit").concat();
        let violated = decision.limits().filter(|limit| limit.is_refused());
        let named = violated.map(|limit| format!("\"{}\";r=0", limit.name()));
        assert!(
            named.into_iter().any(|limit| field.starts_with(&limit)),
            "{dialect:?}: {field}"
        );
        for (name, value) in own_fields(&answer) {
            let is_count = name.contains("ratelimit") && !name.contains("reset");
            assert!(!is_count || value.parse::<u64>().is_ok(), "{name}: {value}");
        }
        let body = bytes(answer).await;
        let message = message(&body);
        assert!(!ends_retries(&message), "{dialect:?}: {message}");
        if dialect != Dialect::ApiGateway {
            assert_eq!(wait_in(&message), seconds, "{dialect:?}: {message}");
        }
        let head = send(&layer, Method::HEAD, "/").await;
        assert!(bytes(head).await.is_empty(), "{dialect:?}: HEAD");
        drop(held);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..cases::cases(400) })]

    #[test]
    fn every_dialect_keeps_the_promises_of_all(case in cases()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(promises_hold(&case));
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_is_answered_in_grpc_whatever_the_dialect() {
    let mut answers = HashSet::new();
    for dialect in DIALECTS {
        let rules = Rules::new().total(Rate::per_hour(1).named("all"));
        let layer = speaking(rules, dialect);
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
