//! R22: the answers on the wire, field by field.

mod common;

use std::{collections::HashSet, convert::Infallible, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use common::Client;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::Empty;
use serde_json::json;
use sfv::{BareItem, ListEntry, Parser};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Decision, Denial, Limits, Quota, Rate, Rules, ThrottleLayer,
    decision::DecisionIn,
    response::{EXPOSE_HEADERS, Problem, Protocol, Rejection},
    usage::Estimate,
};

/// 60 a minute, burst 10, called `chat`.
fn chat() -> Rules {
    Rules::new().route("POST /chat", Rate::per_minute(60).burst(10).named("chat"))
}

async fn spend(client: &Client, requests: u32) {
    for request in 0..requests {
        let answer = client.request(Method::POST, "/chat").await;
        assert!(
            answer.is_admitted(),
            "request {request} is within the burst"
        );
    }
}

fn fields(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let mut fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("visible ASCII")))
        .collect();
    fields.sort_unstable();
    fields
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_a_problem_document_that_openai_sdks_read() {
    let client = Client::new(chat());
    spend(&client, 10).await;
    tokio::time::advance(Duration::from_millis(80)).await;
    let answer = client.request(Method::POST, "/chat").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        fields(&answer.headers),
        [
            ("cache-control", "no-store"),
            ("content-type", "application/problem+json"),
            ("ratelimit", r#""chat";r=0;t=1"#),
            ("ratelimit-policy", r#""chat";q=60;w=60;throttle-burst=10"#),
            ("retry-after", "1"),
            ("retry-after-ms", "920"),
        ],
        "all fields, and no others"
    );
    let message = "Rate limit reached for policy chat. Please try again in 1s.";
    assert_eq!(
        answer.json(),
        json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "detail": message,
            "violated-policies": ["chat"],
            "error": {"message": message, "type": "requests", "param": null, "code": "rate_limit_exceeded"},
        })
    );
}

#[tokio::test(start_paused = true)]
async fn waits_are_rounded_up_and_never_zero() {
    // (time to refill one, Retry-After, retry-after-ms)
    let table = [
        (Duration::from_nanos(1), "1", "1"),
        (Duration::from_millis(1), "1", "1"),
        (Duration::from_micros(1_001), "1", "2"),
        (Duration::from_secs(1), "1", "1000"),
        (Duration::from_nanos(1_000_000_001), "2", "1001"),
        (Duration::from_secs(60), "60", "60000"),
    ];
    for (period, seconds, milliseconds) in table {
        let client = Client::new(Rules::new().total(Rate::new(1, period).burst(1)));
        assert!(client.get("/").await.is_admitted());
        let answer = client.get("/").await;
        assert_eq!(answer.header("retry-after"), Some(seconds), "{period:?}");
        assert_eq!(
            answer.header("retry-after-ms"),
            Some(milliseconds),
            "{period:?}"
        );
        assert_eq!(answer.header("x-should-retry"), None, "{period:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_above_a_minute_is_true_and_not_to_be_slept_through() {
    let client = Client::new(Rules::new().default_route(Rate::per_hour(1)));
    assert!(client.get("/").await.is_admitted());
    let answer = client.get("/").await;
    assert_eq!(answer.header("retry-after"), Some("3600"));
    assert_eq!(answer.header("retry-after-ms"), Some("3600000"));
    assert_eq!(answer.header("x-should-retry"), Some("false"));
}

#[tokio::test(start_paused = true)]
async fn an_admitted_response_tells_policy_and_balance() {
    let client = Client::new(chat());
    // (r, t) as they fall: t is what r requests take at the steady rate.
    for remaining in (0..10).rev() {
        let answer = client.request(Method::POST, "/chat").await;
        assert!(answer.is_admitted());
        assert_eq!(
            answer.header("ratelimit-policy"),
            Some(r#""chat";q=60;w=60;throttle-burst=10"#)
        );
        let expected = format!(r#""chat";r={remaining};t={}"#, remaining.max(1));
        assert_eq!(answer.header("ratelimit"), Some(expected.as_str()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_binding_policy_comes_first() {
    let rules = Rules::new().default_route(
        Limits::new()
            .rate(Rate::per_second(1).burst(5).named("steady"))
            .rate(Rate::per_hour(3).named("hourly")),
    );
    let client = Client::new(rules);
    let policies =
        Some(r#""steady";q=1;w=1;throttle-burst=5, "hourly";q=3;w=3600;throttle-burst=3"#);
    let expected = [
        r#""hourly";r=2;t=2400, "steady";r=4;t=4"#,
        r#""hourly";r=1;t=1200, "steady";r=3;t=3"#,
        r#""hourly";r=0;t=1200, "steady";r=2;t=2"#,
        r#""hourly";r=0;t=1200, "steady";r=2;t=2"#,
    ];
    for (request, expected) in expected.into_iter().enumerate() {
        let answer = client.get("/").await;
        assert_eq!(answer.is_admitted(), request < 3);
        assert_eq!(
            answer.header("ratelimit"),
            Some(expected),
            "request {request}"
        );
        assert_eq!(answer.header("ratelimit-policy"), policies, "constant");
    }
    let refused = client.get("/").await;
    assert_eq!(refused.json()["violated-policies"], json!(["hourly"]));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_refuse_the_more_specific_is_named_first_and_the_longer_wait_told() {
    let rules = Rules::new()
        .total(Limits::from(Rate::per_hour(1)).publish(true))
        .route("GET /", Rate::per_second(1));
    let client = Client::new(rules);
    assert!(client.get("/").await.is_admitted());
    let answer = client.get("/").await;
    assert_eq!(answer.json()["violated-policies"], json!(["get", "total"]));
    assert_eq!(
        answer.json()["detail"],
        "Rate limit reached for policy total. Please try again in 3600s.",
        "the wait stands beside the limit that asks for it"
    );
    assert_eq!(answer.header("retry-after"), Some("3600"));
    assert_eq!(
        answer.header("ratelimit"),
        Some(r#""total";r=0;t=3600, "get";r=0;t=1"#)
    );
}

#[tokio::test(start_paused = true)]
async fn the_totals_capacity_is_not_told_but_its_refusal_is_named() {
    let client = Client::new(Rules::new().total(Rate::per_second(1)));
    let admitted = client.get("/").await;
    assert!(admitted.is_admitted());
    assert_eq!(admitted.header("ratelimit"), None);
    assert_eq!(admitted.header("ratelimit-policy"), None);
    let refused = client.get("/").await;
    assert_eq!(refused.header("ratelimit"), Some(r#""total";r=0;t=1"#));
    assert_eq!(refused.header("ratelimit-policy"), None);
    assert_eq!(refused.json()["violated-policies"], json!(["total"]));
    assert_eq!(refused.header("retry-after"), Some("1"));
}

/// R22. The first item is all that some clients read: it must not tell of room where there is none.
#[tokio::test(start_paused = true)]
async fn a_refusal_by_what_is_not_published_is_named_before_what_has_room() {
    let rules = Rules::new()
        .total(Rate::per_hour(1))
        .route("GET /", Rate::per_second(10).named("front"));
    let client = Client::new(rules);
    assert!(client.get("/").await.is_admitted());
    let refused = client.get("/").await;
    assert_eq!(
        refused.header("ratelimit"),
        Some(r#""total";r=0;t=3600, "front";r=9;t=1"#)
    );
    let head = client.request(Method::HEAD, "/").await;
    assert_eq!(head.body, "", "nothing but the fields can name the limit");
    assert!(
        head.header("ratelimit")
            .is_some_and(|field| field.starts_with(r#""total""#))
    );
}

#[tokio::test(start_paused = true)]
async fn of_two_that_have_nothing_left_the_longer_one_binds() {
    let client = Client::new(
        Rules::new().default_route(
            Limits::new()
                .rate(Rate::per_second(1).named("steady"))
                .rate(Rate::per_hour(2).burst(1).named("hourly")),
        ),
    );
    assert_eq!(
        client.get("/").await.header("ratelimit"),
        Some(r#""hourly";r=0;t=1800, "steady";r=0;t=1"#)
    );
    tokio::time::advance(Duration::from_millis(10)).await;
    let refused = client.get("/").await;
    assert_eq!(
        refused.json()["violated-policies"],
        json!(["steady", "hourly"])
    );
    assert_eq!(
        refused.json()["error"]["message"],
        "Rate limit reached for policy hourly. Please try again in 1800s."
    );
}

/// Read back by a parser that is not ours (RFC 9651).
#[tokio::test(start_paused = true)]
async fn the_fields_are_structured_fields() {
    let rules = Rules::new().default_route(
        Limits::new()
            .rate(
                Rate::new(u64::MAX, Duration::from_secs(1))
                    .burst(1 << 61)
                    .named("huge"),
            )
            .rate(Rate::new(3, Duration::from_millis(700)).named("odd_1"))
            .rate(Rate::per_hour(2)),
    );
    let client = Client::new(rules);
    for request in 0..4 {
        let answer = client.get("/").await;
        assert_eq!(answer.is_admitted(), request < 2);
        for (field, keys) in [
            ("ratelimit-policy", ["q", "w", "throttle-burst"].as_slice()),
            ("ratelimit", &["r", "t"]),
        ] {
            let text = answer.header(field).expect("present");
            let list: sfv::List = Parser::new(text)
                .parse()
                .unwrap_or_else(|error| panic!("{field}: {text}: {error}"));
            let mut names = Vec::new();
            for entry in &list {
                let ListEntry::Item(item) = entry else {
                    panic!("{text}: an inner list")
                };
                let BareItem::String(name) = &item.bare_item else {
                    panic!("{text}: not a string")
                };
                names.push(name.as_str().to_owned());
                let found: Vec<_> = item.params.keys().map(|key| key.as_str()).collect();
                assert_eq!(found, keys, "{text}");
                for value in item.params.values() {
                    assert!(
                        matches!(value, BareItem::Integer(integer) if i64::from(*integer) >= 0),
                        "{text}"
                    );
                }
            }
            names.sort();
            assert_eq!(names, ["default", "huge", "odd_1"], "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_head_has_the_fields_of_get_and_no_body() {
    let client = Client::new(Rules::new().route("GET /", Rate::per_minute(1)));
    assert!(client.get("/").await.is_admitted());
    let get = client.get("/").await;
    let mut head = client.request(Method::HEAD, "/").await;
    assert_eq!(head.status, StatusCode::TOO_MANY_REQUESTS, "charged to GET");
    assert!(head.body.is_empty() && !get.body.is_empty());
    let length = head
        .headers
        .remove("content-length")
        .expect("the length of GET's body");
    assert_eq!(length, get.body.len().to_string());
    assert_eq!(fields(&head.headers), fields(&get.headers));
}

fn grpc(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::post(path)
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc");
    request.body(Empty::new()).expect("a request")
}

#[tokio::test(start_paused = true)]
async fn a_grpc_refusal_is_one_head_with_status_and_details() {
    let rules = || {
        Rules::new().route(
            "POST /v1.Model/Generate",
            Limits::new()
                .rate(Rate::per_minute(60).burst(10).named("chat"))
                .rate(
                    Rate::new(10, Duration::from_secs(20))
                        .burst(10)
                        .named("slow"),
                ),
        )
    };
    let client = Client::new(rules());
    for _ in 0..10 {
        assert!(client.send(grpc("/v1.Model/Generate")).await.is_admitted());
    }
    let answer = client.send(grpc("/v1.Model/Generate")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body.is_empty());
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    assert_eq!(answer.header("grpc-status"), Some("8"));
    assert_eq!(answer.header("grpc-message"), Some("rate limit exceeded"));
    assert_eq!(
        answer.header("grpc-retry-pushback-ms"),
        None,
        "only if asked for"
    );
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(
        answer.header("ratelimit"),
        Some(r#""slow";r=0;t=2, "chat";r=0;t=1"#)
    );
    let details = answer.header("grpc-status-details-bin").expect("details");
    assert!(!details.ends_with('='), "unpadded");
}

#[tokio::test(start_paused = true)]
async fn grpc_web_is_answered_in_its_own_family() {
    let client = Client::new(Rules::new().default_route(Limits::closed()));
    for content_type in [
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpc-web-text+proto",
    ] {
        let request = Request::post("/m")
            .header("content-type", content_type)
            .body(Empty::new());
        let answer = client.send(request.expect("a request")).await;
        assert_eq!(answer.status, StatusCode::OK, "{content_type}");
        assert_eq!(answer.header("content-type"), Some(content_type));
        assert_eq!(answer.header("grpc-status"), Some("8"), "{content_type}");
        assert!(answer.body.is_empty(), "{content_type}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_framing_can_be_fixed() {
    let builder = ThrottleLayer::builder(Rules::new().default_route(Limits::closed()));
    let http = Client::with(builder.clone().protocol(Protocol::Http));
    assert_eq!(
        http.send(grpc("/m")).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    let grpc = Client::with(builder.protocol(Protocol::Grpc));
    for (asked, answered) in [
        (None, "application/grpc"),
        (Some("application/grpc"), "application/grpc"),
        (
            Some("application/grpc-web-text"),
            "application/grpc-web-text",
        ),
        (
            Some("application/grpc-web+proto"),
            "application/grpc-web+proto",
        ),
    ] {
        // As tonic-web passes it on: HTTP/1.1.
        let mut request = Request::post("/m").body(Empty::new()).expect("a request");
        if let Some(asked) = asked {
            let asked = asked.parse().expect("a value");
            request.headers_mut().insert("content-type", asked);
        }
        let answer = grpc.send(request).await;
        assert_eq!(answer.header("grpc-status"), Some("8"), "{asked:?}");
        assert_eq!(answer.header("content-type"), Some(answered), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pushback_is_sent_if_asked_for_and_never_past_the_deadline() {
    let rules = Rules::new()
        .route("POST /slow", Rate::per_minute(1))
        .route("POST /closed", Limits::closed());
    let client = Client::with(ThrottleLayer::builder(rules).grpc_retry_pushback(true));
    assert!(client.send(grpc("/slow")).await.is_admitted());
    for (path, timeout, expected) in [
        ("/slow", None, "60000"),
        ("/slow", Some("61S"), "60000"),
        ("/slow", Some("60S"), "-1"),
        ("/slow", Some("garbage"), "60000"),
        ("/closed", None, "-1"),
    ] {
        let mut request = grpc(path);
        if let Some(timeout) = timeout {
            request
                .headers_mut()
                .insert("grpc-timeout", timeout.parse().expect("a value"));
        }
        let answer = client.send(request).await;
        assert_eq!(
            answer.header("grpc-retry-pushback-ms"),
            Some(expected),
            "{path} {timeout:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_answer_is_sent_as_it_is() {
    let rules = Rules::new().default_route(Rate::per_minute(1).named("mine"));
    let builder = ThrottleLayer::builder(rules);
    let client = Client::with(builder.clone().rejection(
        |denial: &Denial, request: &http::request::Parts| {
            let names: Vec<_> = denial
                .violated()
                .map(|status| status.name().to_owned())
                .collect();
            let body = format!("{} {}: {}", request.method, request.uri, names.join(","));
            Response::builder()
                .status(418)
                .header("x-own", "yes")
                .body(body)
                .expect("a response")
        },
    ));
    assert!(client.get("/tea").await.is_admitted());
    let answer = client.get("/tea").await;
    assert_eq!(answer.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(fields(&answer.headers), [("x-own", "yes")]);
    assert_eq!(answer.body, "GET /tea: mine");

    let client = Client::with(builder.rejection(
        |denial: &Denial, request: &http::request::Parts| {
            let mut answer = Problem.reject(denial, request);
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            answer
        },
    ));
    assert!(client.get("/tea").await.is_admitted());
    let answer = client.get("/tea").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), Some("60"));
}

#[tokio::test(start_paused = true)]
async fn fields_can_be_turned_off_and_decisions_are_off_until_asked_for() {
    let layer = ThrottleLayer::builder(chat())
        .rate_limit_headers(false)
        .build()
        .expect("rules");
    let client = Client::of(layer);
    for _ in 0..10 {
        let answer = client.request(Method::POST, "/chat").await;
        assert!(answer.is_admitted());
        assert_eq!(fields(&answer.headers), [("x-served", "1")]);
        assert!(answer.decision.is_none());
    }
    let refused = client.request(Method::POST, "/chat").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.decision.is_none());
    assert_eq!(
        refused.header("retry-after"),
        Some("1"),
        "refusals tell the wait all the same"
    );
}

#[tokio::test(start_paused = true)]
async fn the_operator_finds_the_decision_on_both_kinds_of_response() {
    let rules = Rules::new()
        .total(Rate::per_second(100))
        .route("POST /chat", Rate::per_second(1).named("chat"));
    let client = Client::new(rules);
    let admitted = client.request(Method::POST, "/chat").await;
    let refused = client.request(Method::POST, "/chat").await;
    for (answer, is_admitted, remaining) in [(admitted, true, [0, 99]), (refused, false, [0, 99])] {
        let decision = answer.decision();
        assert_eq!(decision.is_admitted(), is_admitted);
        assert_eq!(decision.route(), "POST /chat");
        let found: Vec<_> = decision
            .limits()
            .map(|limit| (limit.name().to_owned(), limit.remaining()))
            .collect();
        assert_eq!(
            found,
            [
                ("chat".to_owned(), remaining[0]),
                ("total".to_owned(), remaining[1])
            ]
        );
        let refused: Vec<_> = decision.limits().map(|limit| limit.is_refused()).collect();
        assert_eq!(refused, [!is_admitted, false]);
        let wait = if is_admitted {
            Duration::ZERO
        } else {
            Duration::from_secs(1)
        };
        assert_eq!(decision.retry_after(), Some(wait));
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_throttles_the_refusal_of_the_inner_one_is_seen_outside() {
    let layer = |name: &'static str, rate: Rate| {
        ThrottleLayer::builder(Rules::new().default_route(rate.named(name)))
            .decision(DecisionIn::Response)
            .build()
            .expect("rules")
    };
    let inner = service_fn(|_: Request<Empty<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let service = (
        layer("outer", Rate::per_second(9)),
        layer("inner", Rate::per_second(1)),
    );
    let service = service.layer(inner);
    for (status, name) in [(200, "outer"), (429, "inner")] {
        let request = Request::new(Empty::new());
        let response = service.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), status);
        let decision = response.extensions().get::<Decision>().expect("a decision");
        assert_eq!(decision.is_admitted(), status == 200);
        assert_eq!(decision.limits().next().expect("a limit").name(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn every_field_a_refusal_carries_can_be_exposed() {
    let rules = Rules::new().default_route(Rate::per_hour(1));
    let client = Client::with(ThrottleLayer::builder(rules).grpc_retry_pushback(true));
    assert!(client.send(grpc("/")).await.is_admitted());
    for answer in [
        client.send(grpc("/")).await,
        client.request(Method::POST, "/").await,
    ] {
        for name in answer.headers.keys() {
            // Fields that CORS lets every script read.
            let safelisted = ["cache-control", "content-type"].contains(&name.as_str());
            assert!(safelisted || EXPOSE_HEADERS.contains(name), "{name}");
        }
    }
}

/// The layer's own answers are made of frames that are kept from one refusal to the next; [`Problem`] by itself writes
/// each anew.
#[tokio::test(start_paused = true)]
async fn what_is_kept_from_one_refusal_to_the_next_says_what_is_written_anew() {
    let rules = || {
        let steps = Limits::new()
            .rate(Rate::per_second(1).burst(1).named("second"))
            .rate(Rate::per_minute(2).burst(2).named("minute"));
        Rules::new()
            .route("GET /steps", steps)
            .route("GET /closed", Limits::closed())
            .total(Rate::per_hour(1).burst(5).named("all"))
    };
    let (kept, anew) = (
        Client::new(rules()),
        Client::with(ThrottleLayer::builder(rules()).rejection(Problem)),
    );
    let mut seen = Vec::new();
    for (after, path) in [
        (0, "/steps"),
        (0, "/steps"),
        (200, "/steps"),
        (0, "/closed"),
        (800, "/steps"),
        (0, "/steps"),
        (1_000, "/steps"),
        (9_000, "/steps"),
        (100_000, "/steps"),
        (1_000, "/steps"),
        (0, "/closed"),
        (1_000, "/steps"),
        (100_000, "/steps"),
        (100_000, "/steps"),
        (300_000, "/steps"),
    ] {
        tokio::time::advance(Duration::from_millis(after)).await;
        let (kept, anew) = (kept.get(path).await, anew.get(path).await);
        assert_eq!(kept.status, anew.status);
        assert_eq!(fields(&kept.headers), fields(&anew.headers));
        assert_eq!(kept.body, anew.body);
        if !kept.is_admitted() {
            let wait = kept.headers.get("retry-after").cloned();
            seen.push((kept.json()["violated-policies"].clone(), wait));
        }
    }
    let waits = |names: &[&str]| {
        let of_these = seen
            .iter()
            .filter(|(violated, _)| *violated == json!(names));
        of_these.map(|(_, wait)| wait).collect::<HashSet<_>>().len()
    };
    for (names, least) in [
        (&["second"][..], 1),
        (&["minute"], 2),
        (&["all"], 2),
        (&["second", "minute"], 1),
    ] {
        assert!(waits(names) >= least, "{names:?} alone: {seen:?}");
    }
}

/// Section 6.4 of draft-ietf-httpapi-ratelimit-headers-11: a client may wait before it follows.
#[tokio::test(start_paused = true)]
async fn a_redirect_tells_what_is_left_and_not_that_nothing_is() {
    // (status, told while something is left, told with the last)
    let table = [
        (StatusCode::OK, true, true),
        (StatusCode::NOT_FOUND, true, true),
        (StatusCode::TEMPORARY_REDIRECT, true, false),
        (StatusCode::NOT_MODIFIED, true, false),
        (StatusCode::SWITCHING_PROTOCOLS, false, false),
    ];
    for (status, with_some, with_none) in table {
        let rules = Rules::new().default_route(Rate::per_minute(60).burst(2));
        let layer = ThrottleLayer::new(rules).expect("rules that hold together");
        for expected in [with_some, with_none] {
            let inner = service_fn(|_: Request<Empty<Bytes>>| async move {
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            });
            let request = Request::get("/").body(Empty::new()).expect("a request");
            let response = layer.layer(inner).oneshot(request).await;
            let headers = response
                .unwrap_or_else(|never| match never {})
                .into_parts()
                .0
                .headers;
            for field in ["ratelimit", "ratelimit-policy"] {
                assert_eq!(headers.contains_key(field), expected, "{field} on {status}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_has_no_fields() {
    let client = Client::new(Rules::new().default_route(Rate::per_minute(60).burst(2)));
    for (method, told) in [(Method::CONNECT, false), (Method::OPTIONS, true)] {
        let answer = client.request(method.clone(), "/").await;
        assert!(answer.is_admitted());
        assert_eq!(answer.header("ratelimit").is_some(), told, "{method}");
        assert_eq!(
            answer.header("ratelimit-policy").is_some(),
            told,
            "{method}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_lets_the_fewest_requests_of_this_size_pass_is_told_first() {
    // Five requests, and 1,000 tokens less the used ones.
    for (size, expected) in [
        (300, r#""tokens";r=700;t=70, "requests";r=5;t=5"#),
        (100, r#""requests";r=5;t=5, "tokens";r=900;t=90"#),
        // As many of the one as of the other: the one that keeps it longer.
        (166, r#""requests";r=5;t=5, "tokens";r=834;t=84"#),
    ] {
        let limits = Limits::new()
            .rate(Rate::per_minute(60).burst(6).named("requests"))
            .tokens(Rate::per_minute(600).burst(1_000).named("tokens"));
        let rules = Rules::new()
            .default_route(limits)
            .estimate(Estimate::fixed(size));
        let answer = Client::new(rules).get("/").await;
        assert_eq!(answer.header("ratelimit"), Some(expected), "{size} tokens");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_that_are_alike_the_more_specific_is_told_first() {
    let rate = || Rate::per_minute(60).burst(10);
    let clients = Clients::by_header("x-api-key").each(rate().named("client"));
    let rules = Rules::new()
        .default_route(rate().named("route"))
        .clients(clients);
    let answer = Client::new(rules).get("/").await;
    assert_eq!(
        answer.header("ratelimit"),
        Some(r#""client";r=9;t=9, "route";r=9;t=9"#)
    );
}

/// The details of a gRPC refusal describe the limit that refused, or name its scope if it is not published.
#[tokio::test(start_paused = true)]
async fn the_details_describe_what_is_published_and_name_the_scope_of_the_rest() {
    let clients = |limits| Rules::new().clients(Clients::by_header("x-api-key").each(limits));
    let day = Limits::new().quota(Quota::per_day(1));
    let table = [
        (clients(day.clone()), "limit 1 per 86400s", ", burst"),
        (
            Rules::new()
                .default_route(Limits::new().tokens(Rate::per_hour(1)))
                .estimate(Estimate::fixed(1)),
            "limit 1 tokens per 3600s, burst 1",
            "limit of",
        ),
        (
            Rules::new().total(Rate::per_hour(1)),
            "limit of the whole server",
            "3600",
        ),
        (
            Rules::new().default_route(Limits::new().rate(Rate::per_hour(1)).publish(false)),
            "limit of this route",
            "3600",
        ),
        (clients(day.publish(false)), "limit of this client", "86400"),
    ];
    for (rules, told, not_told) in table {
        let client = Client::new(rules);
        assert!(client.send(grpc("/v1.Model/Generate")).await.is_admitted());
        let answer = client.send(grpc("/v1.Model/Generate")).await;
        let details = answer.header("grpc-status-details-bin").expect("details");
        let details = STANDARD_NO_PAD.decode(details).expect("base64");
        let details = String::from_utf8_lossy(&details);
        assert!(details.contains(told), "{told} in {details}");
        assert!(!details.contains(not_told), "{not_told} in {details}");
    }
}
