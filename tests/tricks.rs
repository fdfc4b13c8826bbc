//! R8 and R9: attempts of a caller to get more than a limit allows, which all fail.
//!
//! A request that is spelled differently but matches the same route is charged to the same bucket. If it matches
//! another route, for the router as for this crate, it still meets a limit: the number of undeclared routes with limits
//! of their own is bounded.

mod support;

use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode, Version, header::HeaderName};
use tonic::service::Routes;
use tower::Layer;
use tower_http::normalize_path::NormalizePathLayer;
use tower_throttle::{Decision, Rules, Throttle, rules::Undeclared};

use support::{admitted, decision, hourly, passes, request, send, served, throttle};

/// The number of undeclared routes that have buckets of their own. One more bucket is shared by all others.
const OWN_BUCKETS: usize = 1_024;

fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    let value = value.parse().expect("a header value");
    let headers = request.headers_mut();
    headers.insert(HeaderName::from_static(name), value);
    request
}

#[tokio::test(start_paused = true)]
async fn another_spelling_of_a_request_is_charged_to_the_same_rule() {
    let table: [(&str, Vec<Request<Body>>); 9] = [
        (
            "percent-encoded letters, digits and the like",
            [
                "/v1/%63hat-x",
                "/v1/%63%68%61%74-x",
                "/%761/chat-x",
                "/v%31/chat-x",
                "/v1/chat%2Dx",
                "/v1/chat%2dx",
                "/%76%31/%63%68%61%74%2D%78",
            ]
            .map(|uri| request("GET", uri))
            .into(),
        ),
        (
            "query and fragment",
            [
                "/v1/chat-x?",
                "/v1/chat-x?x=1",
                "/v1/chat-x?x=2",
                "/v1/chat-x?_method=POST",
                "/v1/chat-x?/v1/other",
                "/v1/chat-x#top",
                "/v1/chat-x?x=1#/v1/other",
            ]
            .map(|uri| request("GET", uri))
            .into(),
        ),
        (
            "absolute form and authority",
            [
                "http://a.example/v1/chat-x",
                "http://b.example:81/v1/chat-x",
                "https://user@c.example/v1/chat-x",
                "http://d.example/v1/%63hat-x?x=1",
            ]
            .map(|uri| request("GET", uri))
            .into(),
        ),
        (
            "host",
            ["a.example", "b.example", "b.example:8080", ""]
                .map(|host| with(request("GET", "/v1/chat-x"), "host", host))
                .into(),
        ),
        (
            "HEAD for GET",
            ["/v1/chat-x", "/v1/%63hat-x?x"]
                .map(|uri| request("HEAD", uri))
                .into(),
        ),
        (
            "a method override",
            [
                "x-http-method-override",
                "x-http-method",
                "x-method-override",
            ]
            .map(|name| with(request("GET", "/v1/chat-x"), name, "DELETE"))
            .into(),
        ),
        (
            "another address for the same",
            [
                ("x-original-url", "/v1/other"),
                ("x-rewrite-url", "/v1/other"),
                ("x-forwarded-prefix", "/other"),
                ("x-forwarded-host", "other.example"),
                ("x-forwarded-for", "192.0.2.1"),
                ("forwarded", "for=192.0.2.2;host=other.example"),
            ]
            .map(|(name, value)| with(request("GET", "/v1/chat-x"), name, value))
            .into(),
        ),
        (
            "half a preflight",
            [
                ("origin", "https://app.example"),
                ("access-control-request-method", "GET"),
            ]
            .map(|(name, value)| with(request("GET", "/v1/chat-x"), name, value))
            .into(),
        ),
        (
            "versions",
            [
                Version::HTTP_09,
                Version::HTTP_10,
                Version::HTTP_2,
                Version::HTTP_3,
            ]
            .map(|version| {
                let mut request = request("GET", "/v1/chat-x");
                *request.version_mut() = version;
                request
            })
            .into(),
        ),
    ];
    for (trick, requests) in table {
        // Nothing but the rule limits, so that whatever dodges it passes.
        let count = requests.len();
        let rules = Rules::new().route("GET /v1/chat-x", hourly(2));
        let service = throttle(rules).layer(served());
        assert!(passes(&service, request("GET", "/v1/chat-x")).await);
        let mut passed = 0;
        for request in requests {
            let sent = format!(
                "{} {} {:?}",
                request.method(),
                request.uri(),
                request.headers()
            );
            let answer = send(&service, request).await;
            assert_eq!(
                decision(&answer).route(),
                "GET /v1/chat-x",
                "{trick}: {sent}"
            );
            passed += usize::from(decision(&answer).is_admitted());
        }
        assert_eq!(passed, 1, "{trick}: one of {count} was left of the burst");
    }
}

#[tokio::test(start_paused = true)]
async fn an_encoded_rule_is_met_by_the_plain_spelling_and_the_other_way_round() {
    let rules = Rules::new().route("GET /caf%c3%a9/%41", hourly(1));
    let service = throttle(rules).layer(served());
    let spellings = ["/caf%C3%A9/A", "/caf%c3%a9/%41", "/c%61f%C3%a9/A"];
    for (index, uri) in spellings.into_iter().enumerate() {
        let passed = passes(&service, request("GET", uri)).await;
        assert_eq!(passed, index == 0, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn encoding_a_literal_does_not_turn_it_into_a_parameter() {
    let rules = Rules::new()
        .route("GET /v1/chat", hourly(2))
        .route("GET /v1/chat/{id}", hourly(2))
        .route("GET /v1/{model}", hourly(1_000))
        .route("ANY /{proxy+}", hourly(1_000));
    let service = throttle(rules).layer(served());
    let table: [(&str, &[&str]); 2] = [
        (
            "GET /v1/chat",
            &["/v1/%63hat", "/v1/cha%74", "/%76%31/chat", "/v1/chat"],
        ),
        (
            "GET /v1/chat/{id}",
            &[
                "/v1/%63hat/1",
                "/v1/cha%74/%2F",
                "/%76%31/chat/%2f",
                "/v1/chat/2",
            ],
        ),
    ];
    for (key, uris) in table {
        for (index, uri) in uris.iter().enumerate() {
            let answer = send(&service, request("GET", uri)).await;
            assert_eq!(decision(&answer).route(), key, "{uri}");
            assert_eq!(decision(&answer).is_admitted(), index < 2, "{uri}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_fills_a_parameter_is_charged_to_its_rule() {
    let table: [(&str, &[&str]); 3] = [
        (
            "ANY /users/{id}",
            &[
                "/users/1",
                "/users/2",
                "/users/%31",
                "/users/a%2Fb",
                "/users/a%2fb",
                "/users/..",
                "/users/.",
                "/users/%2e%2e",
                "/users/x;v=1",
                "/users/%00",
                "/users/a\\b",
                "/users/{id}",
                "/users/%",
                "/users/%zz",
                "/users/*",
            ],
        ),
        (
            "ANY /files/{proxy+}",
            &[
                "/files/a",
                "/files/a/",
                "/files/a/b/c",
                "/files//",
                "/files//a",
                "/files/./a",
                "/files/../users/1",
                "/files/%2e%2e/a",
                "/files/a%2Fb",
                "/f%69les/a",
            ],
        ),
        (
            "ANY /{proxy+}",
            &["/a", "/a/b", "//", "//a", "/./a", "/../a", "/;v=1", "/%2F"],
        ),
    ];
    for (key, uris) in table {
        let rules = Rules::new().route(key, hourly(3));
        let service = throttle(rules).layer(served());
        let mut passed = 0;
        for uri in uris {
            for method in ["GET", "HEAD", "POST", "OPTIONS", "FOO"] {
                let answer = send(&service, request(method, uri)).await;
                assert_eq!(decision(&answer).route(), key, "{method} {uri}");
                passed += usize::from(decision(&answer).is_admitted());
            }
        }
        assert_eq!(passed, 3, "{key}: all spellings and methods, one burst");
    }
}

/// Other routes to us as to axum, which answers them 404. They do not have a burst each where what nobody declared is
/// kept together.
#[tokio::test(start_paused = true)]
async fn other_routes_that_look_alike_meet_the_default() {
    let lookalikes = [
        "/v1/chat/",
        "/v1/./chat",
        "/./v1/chat",
        "/v1/x/../chat",
        "/V1/CHAT",
        "/v1/Chat",
        "/v1/chat;v=1",
        "/v1/chat%2F",
        "/v1%2Fchat",
        "/v1/chat%00",
        "/v1/chat%20",
        "/v1/chat\\",
        "/v1/%2563hat",
        "/v1/chat/../chat",
        "*",
    ];
    let shared: [(&str, Rules); 2] = [
        (
            "the $default route",
            Rules::new().route("$default", hourly(4)),
        ),
        (
            "undeclared routes kept together",
            Rules::new()
                .default_route(hourly(4))
                .undeclared(Undeclared::Shared),
        ),
    ];
    for (how, rules) in shared {
        let rules = rules.route("GET /v1/chat", hourly(2));
        let service = throttle(rules).layer(served());
        let mut passed = 0;
        // A host that drops an empty segment takes these for the declared route, which they spend of too.
        for uri in ["//v1/chat", "/v1//chat"] {
            let answer = send(&service, request("GET", uri)).await;
            assert_eq!(decision(&answer).route(), "$default", "{how}: {uri}");
            assert_eq!(decision(&answer).limits().count(), 2, "{how}: {uri}");
            passed += usize::from(decision(&answer).is_admitted());
        }
        assert_eq!(admitted(&service, 9, "GET", "/v1/chat").await, 0, "{how}");
        for uri in lookalikes {
            let method = if uri == "*" { "OPTIONS" } else { "GET" };
            let answer = send(&service, request(method, uri)).await;
            assert_eq!(decision(&answer).route(), "$default", "{how}: {uri}");
            passed += usize::from(decision(&answer).is_admitted());
        }
        assert_eq!(passed, 4, "{how}: all of them together");
        for method in ["POST", "DELETE", "FOO", "get", "CONNECT"] {
            let uri = if method == "CONNECT" {
                "a.example:1"
            } else {
                "/v1/chat"
            };
            assert_eq!(
                admitted(&service, 2, method, uri).await,
                0,
                "{how}: {method} without a rule meets it too"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_undeclared_route_is_one_bucket_however_it_is_spelled() {
    let table: [(&str, Vec<Request<Body>>); 5] = [
        (
            "queries",
            (0..50)
                .map(|x| request("GET", &format!("/u?x={x}")))
                .collect(),
        ),
        (
            "authorities",
            (0..50)
                .map(|x| request("GET", &format!("http://{x}.example/u")))
                .collect(),
        ),
        (
            "encodings",
            ["/u", "/%75", "/u?", "/%75?x"]
                .map(|uri| request("GET", uri))
                .into(),
        ),
        (
            "HEAD and GET",
            ["HEAD", "GET", "HEAD", "GET"]
                .map(|method| request(method, "/u"))
                .into(),
        ),
        (
            "invented methods",
            (0..50)
                .map(|x| request(&format!("METHOD{x}"), "/u"))
                .chain(["get", "Get", "PURGE", "QUERY"].map(|method| request(method, "/u")))
                .collect(),
        ),
    ];
    for (trick, requests) in table {
        let rules = Rules::new().default_route(hourly(2));
        let service = throttle(rules).layer(served());
        let mut passed = 0;
        for request in requests {
            passed += usize::from(passes(&service, request).await);
        }
        assert_eq!(passed, 2, "{trick}: one burst");
    }
}

#[tokio::test(start_paused = true)]
async fn inventing_routes_yields_a_bounded_number_of_bursts() {
    let rules = Rules::new()
        .default_route(hourly(1))
        .route("GET /declared", hourly(3));
    let service = throttle(rules).layer(served());
    let methods = ["GET", "HEAD", "POST", "FOO", "BAR"];
    let mut passed = 0;
    for path in 0..2_000 {
        for method in methods {
            let uri = format!("/invented/{path}?again={path}");
            passed += admitted(&service, 2, method, &uri).await;
        }
    }
    assert_eq!(
        passed,
        OWN_BUCKETS + 1,
        "each of so many once, and one burst for all the rest of 20,000 requests"
    );
    for path in 5_000..5_100 {
        let uri = format!("/still/new/{path}");
        assert!(!passes(&service, request("GET", &uri)).await, "{uri}");
    }
    assert_eq!(
        admitted(&service, 9, "GET", "/declared").await,
        3,
        "declared routes do not suffer from it"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_client_invents_is_never_told_as_a_route() {
    let layer = throttle(Rules::new().default_route(hourly(1)));
    let service = layer.layer(served());
    for (method, uri) in [
        ("GET", "/secret-path"),
        ("SECRET", "/"),
        ("GET", "/secret-path"),
    ] {
        let answer = send(&service, request(method, uri)).await;
        let told = format!("{:?}", answer.extensions().get::<Decision>());
        assert_eq!(decision(&answer).route(), "$default");
        assert!(!told.to_lowercase().contains("secret"), "{told}");
        assert!(
            !format!("{:?}", answer.headers()).contains("secret"),
            "nor written into a field"
        );
    }
    assert!(!format!("{layer:?}").contains("secret"), "nor kept");
}

/// A client may choose how its refusal is framed, and so that its status is 200, never whether.
#[tokio::test(start_paused = true)]
async fn calling_itself_grpc_does_not_let_a_request_through() {
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&calls);
    let inner = tower::service_fn(move |_: Request<Body>| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async { Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty())) }
    });
    let service = throttle(Rules::new().route("POST /", hourly(1))).layer(inner);
    for content_type in [
        "application/json",
        "application/grpc",
        "application/grpc+proto",
        "application/grpc-web",
        "application/grpc-web-text",
    ] {
        let mut request = with(request("POST", "/"), "content-type", content_type);
        *request.version_mut() = Version::HTTP_2;
        let answer = send(&service, request).await;
        assert_eq!(
            decision(&answer).is_admitted(),
            content_type == "application/json",
            "{content_type}"
        );
    }
    assert_eq!(
        calls.load(std::sync::atomic::Ordering::Relaxed),
        1,
        "the inner service was called once"
    );
}

/// The health service of tonic behind a throttle, in memory.
fn grpc(rules: Rules) -> Throttle<Routes> {
    let (_reporter, health) = tonic_health::server::health_reporter();
    throttle(rules).layer(Routes::new(health).prepare())
}

fn call(method: &str) -> Request<Body> {
    let mut request = request("POST", &format!("/grpc.health.v1.Health/{method}"));
    *request.version_mut() = Version::HTTP_2;
    with(request, "content-type", "application/grpc")
}

#[tokio::test(start_paused = true)]
async fn invented_grpc_methods_share_what_the_service_has() {
    let rules = Rules::new()
        .route("POST /grpc.health.v1.Health/Check", hourly(2))
        .route("ANY /grpc.health.v1.Health/{method+}", hourly(3));
    let service = grpc(rules);
    let mut passed = 0;
    for number in 0..100 {
        let answer = send(&service, call(&format!("Random{number}"))).await;
        assert_eq!(answer.status(), StatusCode::OK, "gRPC's own status tells");
        let status = answer.headers()["grpc-status"].to_str().expect("digits");
        let admitted = decision(&answer).is_admitted();
        assert_eq!(status, if admitted { "12" } else { "8" });
        passed += usize::from(admitted);
    }
    assert_eq!(
        passed, 3,
        "one bucket for all unknown methods of the service"
    );
    let answer = send(&service, call("%43heck")).await;
    assert_eq!(
        decision(&answer).route(),
        "POST /grpc.health.v1.Health/Check",
        "a known method is charged to its own, however it is spelled"
    );
}

#[tokio::test(start_paused = true)]
async fn invented_grpc_methods_without_a_rule_are_bounded() {
    let service = grpc(Rules::new().default_route(hourly(1)));
    let mut passed = 0;
    for number in 0..3_000 {
        let answer = send(&service, call(&format!("Random{number}"))).await;
        passed += usize::from(decision(&answer).is_admitted());
    }
    assert_eq!(passed, OWN_BUCKETS + 1);
}

/// `NormalizePath` rewrites what the throttle sees only if it stands outside.
#[tokio::test(start_paused = true)]
async fn normalized_paths_are_charged_alike_where_they_are_normalized_first() {
    let spellings = ["/v1/chat", "/v1/chat/", "/v1/chat//", "/v1/chat/?x=1"];
    let router = || Router::new().route("/v1/chat", get(async || "served"));
    let rules = || Rules::new().route("GET /v1/chat", hourly(2));
    let trim = NormalizePathLayer::trim_trailing_slash;

    let outside = trim().layer(router().layer(throttle(rules())));
    let mut statuses = Vec::new();
    for uri in spellings {
        statuses.push(send(&outside, request("GET", uri)).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429], "outside: one route");

    // Inside, the throttle has seen another route than the router runs. A rule for everything else
    // still holds it, which is why there should be one.
    let rules = rules().route("$default", hourly(1));
    let inside = throttle(rules).layer(trim().layer(router()));
    let mut answers = Vec::new();
    for uri in spellings {
        let answer = send(&inside, request("GET", uri)).await;
        let route = decision(&answer).route().to_owned();
        answers.push((answer.status().as_u16(), route));
    }
    assert_eq!(
        answers,
        [
            (200, "GET /v1/chat".to_owned()),
            (200, "$default".to_owned()),
            (429, "$default".to_owned()),
            (429, "$default".to_owned()),
        ]
    );
}

/// A nest takes the prefix off; the rule is on the path that the client sent.
#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn a_nested_router_hides_no_route_from_its_rule() {
    let rules = Rules::new()
        .route("GET /api/v1/chat", hourly(1))
        .route("GET /v1/chat", hourly(1_000));
    let inner = Router::new().route("/v1/chat", get(async || "served"));
    let app = Router::new().nest("/api", inner.layer(throttle(rules)));
    for (index, uri) in [
        "/api/v1/chat",
        "/api/v1/chat?x",
        "http://a.example/api/v1/chat",
    ]
    .into_iter()
    .enumerate()
    {
        let answer = send(&app, request("GET", uri)).await;
        assert_eq!(decision(&answer).route(), "GET /api/v1/chat", "{uri}");
        assert_eq!(decision(&answer).is_admitted(), index == 0, "{uri}");
    }
}

/// In axum what was invented inside a template's parameter, or as a method on it, is the template's.
#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn inventing_below_a_template_yields_one_burst_a_method() {
    let app = Router::new()
        .route("/users/{id}", get(async || "served"))
        .layer(throttle(Rules::new().default_route(hourly(2))));
    let mut passed = 0;
    for id in 0..300 {
        let uri = format!("/users/{id}%2F{id}?x={id}");
        for method in ["GET", "HEAD", "POST", "FOO", &format!("FOO{id}")] {
            passed += admitted(&app, 1, method, &uri).await;
        }
    }
    assert_eq!(passed, 6, "GET with HEAD, POST, and all unknown methods");
}
