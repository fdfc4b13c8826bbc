//! R23: a header field means the same with and without optional white space around its value. HTTP/1.1 servers remove
//! it, HTTP/2 servers pass it on.

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use http::{HeaderValue, Request, StatusCode, Version};
use proptest::prelude::*;
use tokio::runtime;
use tower::Layer;
use tower_throttle::{
    Clients, Limits, Quota, Rate, Rules, ThrottleLayer,
    client::{Forwarding, PeerAddr},
    usage::Estimate,
};

use support::{bytes, client, hourly, passes, request, send, serve, served, throttle};

/// A request with these header lines, from a proxy.
fn with(lines: &[(&str, &str)]) -> Request<Body> {
    let mut request = request("POST", "http://api.example/chat");
    for (name, value) in lines {
        let name: http::HeaderName = name.parse().expect("a name");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        request.headers_mut().append(name, value);
    }
    let proxy: SocketAddr = "10.0.0.1:443".parse().expect("an address");
    request.extensions_mut().insert(PeerAddr(proxy));
    request
}

/// Tells which requests pass; each has one of the lines.
fn passed(rules: Rules, lines: &[(&str, &str)]) -> Vec<bool> {
    let service = throttle(rules).layer(served());
    let mut runtime = runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let mut all = Vec::new();
        for line in lines {
            all.push(passes(&service, with(&[*line])).await);
        }
        all
    })
}

fn trusted_proxies(forwarding: Forwarding) -> Clients {
    let clients = Clients::by_address().forwarding(forwarding);
    clients.trusted_proxies(["10.0.0.0/8"])
}

proptest! {
    #![proptest_config(cases::cases(64))]

    #[test]
    fn an_identity_is_the_same_whatever_white_space_is_around_it(
        before in "[ \t]{0,9}",
        after in "[ \t]{0,9}",
        key in "[a-z0-9]{1,9}( [a-z0-9]{1,9})?",
    ) {
        let bearer = |token: &str| format!("{before}Bearer {before}{token}{after}");
        let (padded, plain) = (format!("{before}{key}{after}"), key.clone());
        let address = "198.51.100.7";
        let sources = [
            (Clients::by_header("x-api-key"), "x-api-key", plain, padded),
            (Clients::by_bearer(), "authorization", format!("Bearer {key}"), bearer(&key)),
            (
                trusted_proxies(Forwarding::XForwardedFor),
                "x-forwarded-for",
                address.to_owned(),
                format!("{before}1.1.1.1{after},{before}{address}{after}"),
            ),
            (
                trusted_proxies(Forwarding::Forwarded),
                "forwarded",
                format!("for={address}"),
                format!("{before}for={address}{after};{before}proto=https{after}"),
            ),
        ];
        for (clients, name, plain, padded) in sources {
            let rules = Rules::new().clients(clients.each(hourly(1)));
            let lines = [(name, &*plain), (name, &*padded), (name, "other")];
            let expected = [true, false, true];
            prop_assert_eq!(passed(rules, &lines), expected, "{:?} and {:?} of {}", plain, padded, name);
        }
    }

    #[test]
    fn a_number_is_the_same_whatever_white_space_is_around_it(
        before in "[ \t]{0,9}",
        after in "[ \t]{0,9}",
    ) {
        for (estimate, name, number) in [
            (Estimate::by_header("x-tokens"), "x-tokens", "600"),
            (Estimate::by_content_length(4), "content-length", "2400"),
        ] {
            let chat = Limits::new().tokens(hourly(600));
            let estimate = estimate.exact();
            let rules = Rules::new().route("POST /chat", chat).estimate(estimate);
            let padded = format!("{before}{number}{after}");
            let passed = passed(rules, &[(name, &padded), (name, "1")]);
            prop_assert_eq!(passed, [true, false], "{:?} of {}", padded, name);
        }
    }
}

#[test]
fn a_number_above_the_largest_counts_as_the_largest() {
    let by_header = || Estimate::by_header("x-tokens").or(1);
    for (estimate, limits) in [
        (by_header().exact(), Limits::new()),
        (by_header(), Limits::new().max_tokens_per_request(600)),
    ] {
        for number in ["18446744073709551615", "18446744073709551616"] {
            let chat = limits.clone().tokens(hourly(600));
            let rules = Rules::new().route("POST /chat", chat);
            let rules = rules.estimate(estimate.clone());
            let passed = passed(rules, &[("x-tokens", number)]);
            assert_eq!(passed, [false], "{number}, {estimate:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_stays_on_its_plan_with_a_space_behind_its_key() {
    let clients = Clients::by_header("x-api-key")
        .each(hourly(1))
        .plan("pro", hourly(9))
        .member("pro", "key-of-a-customer");
    let service = throttle(Rules::new().clients(clients)).layer(served());
    let mut admitted = 0;
    for spaces in 0..20 {
        let key = format!("key-of-a-customer{}", " ".repeat(spaces));
        admitted += usize::from(passes(&service, with(&[("x-api-key", &key)])).await);
    }
    assert_eq!(admitted, 9);
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_hides_no_other_and_white_space_alone_is_empty() {
    let clients = Clients::by_header("x-api-key").each(hourly(1));
    let service = throttle(Rules::new().clients(clients)).layer(served());
    let key = "x-api-key";
    // (header lines, whether it passes)
    let table: [(&[(&str, &str)], bool); 7] = [
        (&[], true),
        (&[(key, "")], false),
        (&[(key, " \t ")], false),
        (&[(key, "one")], true),
        (&[(key, ""), (key, "one")], false),
        (&[(key, " "), (key, "\tone"), (key, "two")], false),
        (&[(key, "two"), (key, "one")], true),
    ];
    for (lines, expected) in table {
        assert_eq!(passes(&service, with(lines)).await, expected, "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_read_with_white_space_around_it() {
    let patient = Limits::new()
        .rate(Rate::per_minute(1))
        .max_wait(Duration::from_secs(600));
    let service = throttle(Rules::new().route("POST /chat", patient)).layer(served());
    assert!(passes(&service, with(&[])).await);
    #[expect(
        clippy::disallowed_methods,
        reason = "a test reads the clock that it has paused"
    )]
    let began = tokio::time::Instant::now();
    for timeout in ["1S", " 1S", "1S\t", " \t1S "] {
        let asked = with(&[("grpc-timeout", timeout)]);
        assert!(!passes(&service, asked).await, "{timeout:?}");
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waited in vain");
}

#[tokio::test(start_paused = true)]
async fn a_grpc_request_is_known_by_a_content_type_with_white_space_around_it() {
    let service = throttle(Rules::new().total(Limits::closed())).layer(served());
    for content_type in [
        "application/grpc",
        " application/grpc",
        "application/grpc+proto\t ",
        "application/grpc ",
    ] {
        let mut request = with(&[("content-type", content_type)]);
        *request.version_mut() = Version::HTTP_2;
        let refused = send(&service, request).await;
        let status = refused.headers().get("grpc-status");
        let status = status.map(HeaderValue::as_bytes);
        assert_eq!(status, Some(&b"8"[..]), "{content_type:?}");
    }
}

/// Asks with a key and so many spaces behind it, over real connections.
async fn answers(throttle: &ThrottleLayer, http2: bool, name: &str, value: &str) -> Vec<u16> {
    let address = serve(throttle.layer(served())).await;
    let client = client(http2);
    let mut answers = Vec::new();
    for spaces in [0, 1, 2, 49] {
        let mut request = request("POST", &format!("http://{address}/chat"));
        let padded = format!("{}{value}{}", " ".repeat(spaces), "\t".repeat(spaces));
        let name: http::HeaderName = name.parse().expect("a name");
        let padded = padded.parse().expect("a value");
        request.headers_mut().insert(name, padded);
        let answer = client.request(request).await.expect("an answer");
        answers.push(answer.status().as_u16());
        bytes(answer).await;
    }
    answers
}

#[tokio::test]
async fn one_key_is_one_client_over_each_protocol() {
    for http2 in [false, true] {
        for (clients, name, value) in [
            (Clients::by_header("x-api-key"), "x-api-key", "one"),
            (Clients::by_bearer(), "authorization", "Bearer one"),
        ] {
            let each = Limits::new().quota(Quota::per(1, Duration::from_secs(360_000)));
            let throttle = throttle(Rules::new().clients(clients.each(each)));
            let answers = answers(&throttle, http2, name, value).await;
            assert_eq!(answers, [200, 429, 429, 429], "HTTP/2: {http2}, {name}");
        }
    }
}

/// Closures read fields the same way.
#[tokio::test(start_paused = true)]
async fn a_closure_is_told_a_field_without_the_white_space_around_it() {
    let clients = Clients::by(|head| head.field("x-tenant").map(Into::into))
        .each(hourly(1))
        .plan("pro", hourly(2))
        .plan_by(|head| head.field("x-plan"));
    let service = throttle(Rules::new().clients(clients)).layer(served());
    let mut statuses = Vec::new();
    for (tenant, plan) in [
        ("a", ""),
        (" a", ""),
        ("b", "pro"),
        ("b ", " pro"),
        ("b\t", "pro "),
    ] {
        let asked = with(&[("x-tenant", tenant), ("x-plan", plan)]);
        statuses.push(send(&service, asked).await.status());
    }
    let (ok, refused) = (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(statuses, [ok, refused, ok, ok, refused]);
}
