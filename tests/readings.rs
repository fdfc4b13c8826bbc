//! R8 and R23: a request that may match several keys is charged to all of them, or to none. It is unlimited or exempt
//! only if all of them are.

mod support;

use axum::{
    Router,
    body::Body,
    routing::{any, get, post},
};
use http::{HeaderValue, Method, Request, StatusCode, Version};
use tonic::service::Routes;
use tower::{Layer, util::BoxCloneSyncService};
use tower_throttle::{
    Clients, Denial, Limits, Plan, Rate, Rules, Throttle, ThrottleLayer,
    response::{Dialect, Protocol},
};

use support::{
    admitted, build, decision, hourly, passes, request, send, served, throttle, throttling,
};

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Methods that no rule below names, in the spellings that clients may send.
const METHODS: [&str; 10] = [
    "PUT", "GET", "HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "FOO",
];

async fn ok() -> &'static str {
    "served"
}

fn grpc(method: &str, uri: &str) -> Request<Body> {
    let mut request = request(method, uri);
    let content_type = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", content_type);
    request
}

/// The health service of tonic behind a throttle, in memory.
fn tonic_behind(layer: &ThrottleLayer) -> Throttle<Routes> {
    let (_reporter, health) = tonic_health::server::health_reporter();
    layer.layer(Routes::new(health).prepare())
}

/// Tells whether tonic has run the handler of a call that asks for the whole server's health.
async fn is_answered(service: &Throttle<Routes>, method: &str, content_type: bool) -> bool {
    let mut call = match content_type {
        true => grpc(method, CHECK),
        false => request(method, CHECK),
    };
    *call.version_mut() = Version::HTTP_2;
    *call.body_mut() = Body::from(&b"\0\0\0\0\0"[..]);
    let answer = send(service, call).await;
    let admitted = decision(&answer).is_admitted();
    let status = answer.headers().get("grpc-status");
    // A success tells its status in the trailers.
    let ran = answer.status() == StatusCode::OK && status.is_none_or(|status| status == "0");
    assert!(admitted || !ran, "what is refused has not run");
    ran
}

// ---- gRPC

#[tokio::test(start_paused = true)]
async fn no_method_and_no_content_type_moves_a_call_past_its_closed_key() {
    let rules = || Rules::new().route(format!("POST {CHECK}"), Limits::closed());
    let lax = || rules().default_route(hourly(1_000));
    for rules in [rules(), lax()] {
        let service = tonic_behind(&throttle(rules));
        for method in METHODS.into_iter().chain(["POST"]) {
            for content_type in [true, false] {
                let ran = is_answered(&service, method, content_type).await;
                assert!(!ran, "{method}, with a content type: {content_type}");
            }
        }
    }
    let open = tonic_behind(&throttle(Rules::new()));
    for method in METHODS {
        assert!(
            is_answered(&open, method, false).await,
            "tonic runs {method}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_default_route_has_one_bucket_for_all_methods_of_a_call() {
    let service = tonic_behind(&throttle(Rules::new().default_route(hourly(2))));
    let mut ran = 0;
    for method in METHODS.into_iter().chain(["POST", "POST"]) {
        for content_type in [true, false] {
            ran += usize::from(is_answered(&service, method, content_type).await);
        }
    }
    assert_eq!(ran, 2, "one burst, whatever the method");
}

#[tokio::test(start_paused = true)]
async fn a_call_of_another_method_spends_of_its_own_key_and_of_posts() {
    for (put, post, passed) in [(2, 9, 2), (9, 2, 2)] {
        let rules = Rules::new()
            .route(format!("PUT {CHECK}"), hourly(put))
            .route(format!("POST {CHECK}"), hourly(post));
        let service = throttle(rules).layer(served());
        assert_eq!(
            admitted(&service, 9, "PUT", CHECK).await,
            passed,
            "the smaller one"
        );
        let left = admitted(&service, 20, "POST", CHECK).await;
        assert_eq!(left as u64, post - 2, "PUT has spent of it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_is_a_grpc_call_by_its_shape_alone() {
    let calls = [
        "/inference.v1.Inference/Generate",
        "/grpc.health.v1.Health/Check",
        "/a.B/C",
        "/a.B/Cd_e",
        "/inference.v1.%49nference/Generate",
        "/inference.v1.Inference//Generate",
    ];
    let others = [
        "/v1.0/chat",
        "/v1.0/Chat",
        "/a.B/c",
        "/a.b/C",
        "/Greeter/SayHello",
        "/a.B/C/d",
        "/a.B/C/",
        "/a.B",
        "/a.B/",
        "/A.b.c/D",
    ];
    let table = calls.map(|path| (path, 0));
    for (path, passed) in table.into_iter().chain(others.map(|path| (path, 3))) {
        let rules = Rules::new()
            .route("POST /{proxy+}", Limits::closed())
            .route("$default", hourly(3));
        let service = throttle(rules).layer(served());
        assert_eq!(admitted(&service, 9, "PUT", path).await, passed, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn services_of_other_names_are_known_by_content_type_protocol_or_any() {
    const NAMED: &str = "/Greeter/SayHello";
    let closed = || Rules::new().route(format!("POST {NAMED}"), Limits::closed());
    let service = throttle(closed()).layer(served());
    for content_type in [
        "application/grpc",
        "Application/GRPC+proto",
        "application/grpc-web-text",
    ] {
        let mut call = request("PUT", NAMED);
        let value = HeaderValue::from_static(content_type);
        call.headers_mut().insert("content-type", value);
        let answer = send(&service, call).await;
        assert!(!decision(&answer).is_admitted(), "{content_type}");
    }
    // HTTP/2 hands white space on, and nobody knows which of several lines a server reads.
    for lines in [
        ["", "application/grpc"],
        [" ", "\tapplication/grpc "],
        ["text/plain", "application/grpc"],
        ["application/grpc", "text/plain"],
    ] {
        let mut call = request("PUT", NAMED);
        for line in lines {
            let value = HeaderValue::from_static(line);
            call.headers_mut().append("content-type", value);
        }
        let answer = send(&service, call).await;
        assert!(!decision(&answer).is_admitted(), "{lines:?}");
    }
    assert_eq!(
        admitted(&service, 9, "PUT", NAMED).await,
        9,
        "nothing tells that it is gRPC"
    );

    let protocol = build(throttling(closed()).protocol(Protocol::Grpc)).layer(served());
    for method in METHODS {
        let answer = send(&protocol, request(method, NAMED)).await;
        assert!(!decision(&answer).is_admitted(), "Protocol::Grpc: {method}");
    }
    let any = Rules::new().route(format!("ANY {NAMED}"), Limits::closed());
    let any = throttle(any).layer(served());
    assert_eq!(admitted(&any, 9, "PUT", NAMED).await, 0, "ANY");
}

/// A client's word about itself adds to what the client is charged, and takes nothing away.
#[tokio::test(start_paused = true)]
async fn a_forged_content_type_moves_no_request_from_a_strict_key_to_a_lax_one() {
    let strict = [
        (
            "a strict key",
            Rules::new()
                .route("GET /a", hourly(2))
                .route("POST /a", hourly(1_000)),
        ),
        (
            "a strict default route",
            Rules::new()
                .default_route(hourly(2))
                .route("POST /a", Limits::unlimited()),
        ),
        (
            "an exempt POST",
            Rules::new()
                .default_route(hourly(2))
                .route("POST /a", Limits::exempt()),
        ),
        ("neither is declared", Rules::new().default_route(hourly(2))),
    ];
    for (what, rules) in strict {
        let app = Router::new().route("/a", any(ok)).layer(throttle(rules));
        let mut passed = 0;
        for _ in 0..9 {
            passed += usize::from(decision(&send(&app, grpc("GET", "/a")).await).is_admitted());
            passed += usize::from(passes(&app, request("GET", "/a")).await);
        }
        assert_eq!(passed, 2, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_is_charged_once_whatever_its_content_type() {
    let rules = Rules::new().route(format!("POST {CHECK}"), hourly(3));
    let service = throttle(rules).layer(served());
    for left in [2, 1, 0] {
        let answer = send(&service, grpc("POST", CHECK)).await;
        let limits: Vec<_> = decision(&answer).limits().collect();
        assert_eq!(limits.len(), 1);
        assert_eq!(limits[0].remaining(), left);
    }
}

// ---- CONNECT

#[tokio::test(start_paused = true)]
async fn connect_with_a_path_is_charged_to_the_key_of_get_and_to_any() {
    let table: [(&str, Rules, usize); 6] = [
        (
            "a closed GET",
            Rules::new().route("GET /ws", Limits::closed()),
            0,
        ),
        ("GET", Rules::new().route("GET /ws", hourly(2)), 2),
        (
            "ANY, which is the smaller",
            Rules::new()
                .route("GET /ws", hourly(5))
                .route("ANY /ws", hourly(2)),
            2,
        ),
        (
            "GET, which is the smaller",
            Rules::new()
                .route("GET /ws", hourly(2))
                .route("ANY /ws", hourly(5)),
            2,
        ),
        (
            "a key that names CONNECT",
            Rules::new()
                .route("GET /ws", Limits::closed())
                .route("CONNECT /ws", hourly(3)),
            3,
        ),
        (
            "undeclared, beside GET",
            Rules::new().default_route(hourly(2)),
            2,
        ),
    ];
    for (what, rules, passed) in table {
        let app = Router::new().route("/ws", any(ok)).layer(throttle(rules));
        let connects = admitted(&app, 20, "CONNECT", "/ws").await;
        assert_eq!(connects, passed, "{what}");
    }
    let app = Router::new()
        .route("/ws", any(ok))
        .layer(throttle(Rules::new().default_route(hourly(2))));
    assert_eq!(admitted(&app, 20, "CONNECT", "/ws").await, 2);
    assert_eq!(
        admitted(&app, 20, "GET", "/ws").await,
        0,
        "of the same bucket"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_of_connect_takes_no_request_of_get_however_its_path_is_spelled() {
    for path in ["/ws", "//ws"] {
        let rules = Rules::new()
            .route("GET /ws", hourly(2))
            .route("CONNECT /ws", hourly(3));
        let app = Router::new().fallback(any(ok)).layer(throttle(rules));
        assert_eq!(admitted(&app, 20, "GET", path).await, 2, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn connect_with_a_path_is_charged_to_a_plans_route_for_get() {
    for (keys, passed) in [
        (&["GET /ws"][..], 0),
        (&["GET /ws", "ANY /ws"], 0),
        (&["GET /ws", "CONNECT /ws"], 4),
    ] {
        let plan = keys
            .iter()
            .fold(Plan::new(Limits::unlimited()), |plan, key| {
                let limits = match key.starts_with("GET") {
                    true => Limits::closed(),
                    false => Limits::from(hourly(4)),
                };
                plan.route(*key, limits)
            });
        // A key of the rules names CONNECT, which does not speak for the plan's routes.
        let rules = Rules::new()
            .route("CONNECT /ws", Limits::unlimited())
            .clients(Clients::by_header("x-api-key").each(plan));
        let service = throttle(rules).layer(served());
        let connects = admitted(&service, 9, "CONNECT", "/ws").await;
        assert_eq!(connects, passed, "{keys:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connect_to_an_authority_and_options_of_the_server_have_keys_of_their_own_kind_alone() {
    let rules = Rules::new()
        .route("GET /", Limits::closed())
        .route("GET /{proxy+}", Limits::closed())
        .route("$default", hourly(3));
    let service = throttle(rules).layer(served());
    assert_eq!(admitted(&service, 2, "CONNECT", "a.example:1").await, 2);
    assert_eq!(admitted(&service, 9, "OPTIONS", "*").await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_path_has_no_end_of_one() {
    for key in ["ANY /a/", "ANY /{id}/"] {
        let rules = Rules::new()
            .route("ANY /", Limits::closed())
            .route(key, Limits::closed());
        let service = throttle(rules).layer(served());
        for (method, target) in [("CONNECT", "a.example:1"), ("OPTIONS", "*")] {
            let admitted = admitted(&service, 9, method, target).await;
            assert_eq!(admitted, 9, "{method} {target} beside {key}");
        }
    }
}

/// RFC 8441: how a browser opens a WebSocket over HTTP/2.
#[tokio::test]
async fn a_websocket_over_http2_does_not_pass_a_closed_get() {
    let app = Router::new()
        .route("/ws", any(ok))
        .route("/open", any(ok))
        .layer(throttle(Rules::new().route("GET /ws", Limits::closed())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, app).into_future());
    let stream = tokio::net::TcpStream::connect(address).await;
    let io = hyper_util::rt::TokioIo::new(stream.expect("a connection"));
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, io).await;
    let (mut client, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    for (path, status) in [
        ("open", StatusCode::OK),
        ("ws", StatusCode::TOO_MANY_REQUESTS),
    ] {
        // Until the server's settings have come, the client may not ask for it.
        let answer = loop {
            client.ready().await.expect("a connection");
            let mut connect = request("CONNECT", &format!("http://{address}/{path}"));
            let websocket = hyper::ext::Protocol::from_static("websocket");
            connect.extensions_mut().insert(websocket);
            match client.send_request(connect).await {
                Ok(answer) => break answer,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(answer.status(), status, "{path}");
    }
}

// ---- Empty segments

/// An application behind a throttle.
type App = BoxCloneSyncService<Request<Body>, http::Response<Body>, std::convert::Infallible>;

fn boxed<S, B>(service: S) -> App
where
    S: tower::Service<
            Request<Body>,
            Response = http::Response<B>,
            Error = std::convert::Infallible,
        > + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes, Error = axum::Error> + Send + 'static,
{
    use tower::ServiceExt;
    BoxCloneSyncService::new(service.map_response(|response| response.map(Body::new)))
}

fn tenants() -> Router {
    Router::new()
        .route("/v1/{tenant}/chat", post(ok))
        .route("/v1/{tenant}/{model}/chat", post(ok))
}

fn nested() -> Router {
    Router::new()
        .route("/chat", post(ok))
        .route("/{tenant}/chat", post(ok))
}

/// Rules, or the routes of a plan.
fn closed(key: &str, in_plan: bool) -> Rules {
    if !in_plan {
        return Rules::new().route(key, Limits::closed());
    }
    let plan = Plan::new(Limits::unlimited()).route(key, Limits::closed());
    Rules::new().clients(Clients::by_header("x-api-key").each(plan))
}

#[tokio::test(start_paused = true)]
async fn an_empty_segment_that_axum_takes_for_a_parameter_passes_no_closed_key() {
    for in_plan in [false, true] {
        for (key, path) in [
            ("POST /v1/{tenant}/chat", "/v1//chat"),
            ("ANY /v1/{tenant}/chat", "/v1//chat"),
            ("POST /v1/{tenant}/{proxy+}", "/v1//chat"),
            ("POST /v1/{tenant}/{model}/chat", "/v1///chat"),
            ("POST /v1/{tenant}/{model}/chat", "/v1/a//chat"),
            ("POST /v1/{tenant}/{model}/chat", "/v1//a/chat"),
            ("POST /v1/{tenant}/{model}/chat", "/v1//%61/chat"),
        ] {
            let layer = throttle(closed(key, in_plan));
            let places = [
                ("inside", boxed(tenants().layer(layer.clone()))),
                ("outside", boxed(layer.layer(tenants()))),
            ];
            for (place, app) in places {
                let answer = send(&app, request("POST", path)).await;
                let passed = decision(&answer).is_admitted();
                assert!(!passed, "{key}: {path}, {place}, in a plan: {in_plan}");
            }
            let open = send(&tenants(), request("POST", path)).await;
            assert_eq!(open.status(), StatusCode::OK, "axum serves {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_segment_that_a_nested_service_drops_passes_no_closed_key() {
    for in_plan in [false, true] {
        for (key, path) in [
            ("POST /api/chat", "/api//chat"),
            ("POST /api/{tenant}/chat", "/api//a/chat"),
            ("POST /api/{tenant}/chat", "/api///chat"),
        ] {
            let layer = throttle(closed(key, in_plan));
            let mut places = vec![
                (
                    "outside",
                    boxed(layer.layer(Router::new().nest_service("/api", nested()))),
                ),
                (
                    "as a layer",
                    boxed(
                        Router::new()
                            .nest_service("/api", nested())
                            .layer(layer.clone()),
                    ),
                ),
            ];
            if cfg!(feature = "axum") {
                places.push((
                    "inside",
                    boxed(Router::new().nest_service("/api", nested().layer(layer.clone()))),
                ));
                places.push((
                    "around the nested service",
                    boxed(Router::new().nest_service("/api", layer.layer(nested()))),
                ));
            }
            for (place, app) in places {
                let answer = send(&app, request("POST", path)).await;
                let passed = decision(&answer).is_admitted();
                assert!(!passed, "{key}: {path}, {place}, in a plan: {in_plan}");
            }
            let open = Router::new().nest_service("/api", nested());
            let open = send(&open, request("POST", path)).await;
            assert_eq!(open.status(), StatusCode::OK, "axum serves {path}");
        }
    }
}

/// Tells whether a `GET` for the root of a nested service is admitted, at each place that a throttle may have.
async fn roots(rules: &Rules, nest: &str, path: &str) -> Vec<(&'static str, bool)> {
    let root = || Router::new().route("/", get(ok));
    let layer = throttle(rules.clone());
    let mut places = vec![
        (
            "outside",
            boxed(layer.layer(Router::new().nest_service(nest, root()))),
        ),
        (
            "as a layer",
            boxed(
                Router::new()
                    .nest_service(nest, root())
                    .layer(layer.clone()),
            ),
        ),
    ];
    if cfg!(feature = "axum") {
        places.push((
            "inside",
            boxed(Router::new().nest_service(nest, root().layer(layer.clone()))),
        ));
        places.push((
            "around the nested service",
            boxed(Router::new().nest_service(nest, layer.layer(root()))),
        ));
    }
    let mut admitted = Vec::new();
    for (place, app) in places {
        let answer = send(&app, request("GET", path)).await;
        admitted.push((place, decision(&answer).is_admitted()));
    }
    admitted
}

#[tokio::test(start_paused = true)]
async fn a_slash_at_the_end_that_a_nested_service_drops_passes_no_closed_key() {
    for in_plan in [false, true] {
        for (nest, key, path) in [
            ("/api", "GET /api", "/api/"),
            ("/api", "ANY /api", "/api/"),
            ("/api", "GET /api", "/api//"),
            ("/api", "GET /api/", "/api"),
            ("/v1/{tenant}", "GET /v1/{tenant}", "/v1/a/"),
            ("/v1/{tenant}", "GET /v1/{tenant}/", "/v1/a"),
        ] {
            // Open beside it, so that the default route is not what refuses.
            let rules = closed(key, in_plan).default_route(hourly(1_000));
            for (place, passed) in roots(&rules, nest, path).await {
                assert!(!passed, "{key}: {path}, {place}, in a plan: {in_plan}");
            }
            let open = Router::new().nest_service(nest, Router::new().route("/", get(ok)));
            let open = send(&open, request("GET", path)).await;
            assert_eq!(open.status(), StatusCode::OK, "axum serves {path}");
        }
        // No router is known.
        let service = throttle(closed("GET /api", in_plan)).layer(served());
        for path in ["/api/", "/%61pi/", "/api//", "//api/"] {
            let passed = passes(&service, request("GET", path)).await;
            assert!(!passed, "{path}, in a plan: {in_plan}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_with_a_key_of_its_own_is_not_charged_to_that_of_the_other_end() {
    let rules = || {
        Rules::new()
            .route("GET /dir", hourly(2))
            .route("GET /dir/", hourly(3))
            .route("GET /{id}", hourly(4))
            .route("GET /{id}/", hourly(5))
    };
    for (path, passed) in [("/dir", 2), ("/dir/", 3), ("/other", 4), ("/other/", 5)] {
        let service = throttle(rules()).layer(served());
        assert_eq!(admitted(&service, 9, "GET", path).await, passed, "{path}");
        let answer = send(&service, request("GET", path)).await;
        assert_eq!(decision(&answer).limits().count(), 1, "{path}");
    }
    // Nor is the root to anything, nor what a router gives to a greedy route.
    let rules = Rules::new()
        .route("GET /", hourly(2))
        .route("GET /files/a", Limits::closed());
    let files = Router::new()
        .route("/", get(ok))
        .route("/files/{*path}", get(ok))
        .layer(throttle(rules));
    assert_eq!(admitted(&files, 9, "GET", "/").await, 2);
    if cfg!(feature = "axum") {
        assert_eq!(admitted(&files, 9, "GET", "/files/a/").await, 9);
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_is_free_with_its_own_end_alone() {
    let rules = Rules::new()
        .total(hourly(2))
        .route("GET /health", Limits::exempt());
    let service = throttle(rules).layer(served());
    assert_eq!(admitted(&service, 9, "GET", "/health").await, 9);
    assert_eq!(admitted(&service, 9, "GET", "/health/").await, 2);
}

/// hyper tells no route, and nobody knows how the service behind it reads paths.
#[tokio::test(start_paused = true)]
async fn where_no_router_is_known_empty_segments_are_charged_on_every_reading() {
    let rules = || {
        Rules::new()
            .route("GET /v1/{tenant}/chat", hourly(100))
            .route("GET /v1/chat", hourly(100))
            .route("ANY /{proxy+}", hourly(100))
    };
    for strict in ["GET /v1/{tenant}/chat", "GET /v1/chat", "ANY /{proxy+}"] {
        let keys = ["GET /v1/{tenant}/chat", "GET /v1/chat", "ANY /{proxy+}"];
        let rules = keys.iter().fold(Rules::new(), |rules, key| {
            let burst = if *key == strict { 2 } else { 100 };
            rules.route(*key, hourly(burst))
        });
        let service = throttle(rules).layer(served());
        assert_eq!(
            admitted(&service, 9, "GET", "/v1//chat").await,
            2,
            "{strict}"
        );
    }
    let service = throttle(rules()).layer(served());
    let answer = send(&service, request("GET", "/v1//chat")).await;
    assert_eq!(decision(&answer).limits().count(), 3, "all or none");
}

#[tokio::test(start_paused = true)]
async fn undeclared_paths_that_differ_in_empty_segments_alone_share_a_bucket() {
    let service = throttle(Rules::new().default_route(hourly(2))).layer(served());
    let mut passed = 0;
    for path in ["/u/v", "/u//v", "//u/v", "/u///v", "///u////v", "/%75//v"] {
        passed += admitted(&service, 3, "GET", path).await;
    }
    assert_eq!(passed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_literal_key_with_an_empty_segment_is_met_as_it_is_written() {
    let rules = Rules::new()
        .route("GET /x//y", hourly(2))
        .route("GET /x/{id}/y", hourly(9));
    let service = throttle(rules).layer(served());
    let answer = send(&service, request("GET", "/x//y")).await;
    assert_eq!(decision(&answer).route(), "GET /x//y", "literal first");
    assert_eq!(admitted(&service, 9, "GET", "/x//y").await, 1);
    assert_eq!(
        admitted(&service, 20, "GET", "/x/1/y").await,
        9,
        "untouched"
    );
}

/// Slashes come in so great a number that no host reads them, and nobody waits for the answer.
#[tokio::test(start_paused = true)]
async fn a_path_of_nothing_but_slashes_is_decided_at_once() {
    let rules = Rules::new()
        .route("GET /{a}/{b}/{c}/{d}", hourly(100))
        .route("ANY /{proxy+}", hourly(2));
    let service = throttle(rules).layer(served());
    for path in ["/".repeat(60_000), "//a".repeat(20_000)] {
        assert!(passes(&service, request("GET", &path)).await);
    }
    assert!(!passes(&service, request("GET", &"/".repeat(60_000))).await);
}

// ---- Escapes

#[tokio::test(start_paused = true)]
async fn an_escaped_literal_is_charged_on_both_readings_where_no_router_is_known() {
    for (literal, param, burst) in [(100, 2, 2), (2, 100, 2)] {
        let rules = Rules::new()
            .route("GET /files/health", hourly(literal))
            .route("GET /files/{id}", hourly(param));
        let files = Router::new()
            .route("/files/health", get(ok))
            .route("/files/{id}", get(ok));
        let app = throttle(rules).layer(files);
        let passed = admitted(&app, 9, "GET", "/files/%68ealth").await;
        assert_eq!(passed, burst, "axum takes it for the parameter");
    }
}

// ---- Together

#[tokio::test(start_paused = true)]
async fn an_escaped_end_of_a_segment_is_charged_on_both_readings() {
    // The key that a host may take in place of the plain one, and a request that it may take for either.
    let table = [
        ("POST /models/{m}:run", "/models/a%3Arun"),
        ("POST /models/{m}:run", "/models/a:r%75n"),
        ("POST /models/{m}:run", "/models/%61:r%75n"),
        ("POST /models/{m}:run", "/models//a%3Arun"),
        ("POST /models/{m}Arun", "/models/a%3Arun"),
        ("POST /models/{m}Arun", "/models/%62a%3Arun"),
        ("POST /{p}:v/{m}", "/models%3Av/a"),
        ("POST /models/{m}:run/{*rest}", "/models/a%3Arun/b/c"),
    ];
    for (key, path) in table {
        for in_plan in [false, true] {
            for plain in [true, false] {
                let other = match key.split('/').count() {
                    4 => "POST /models/{m}/{*rest}",
                    _ if key.starts_with("POST /{") => "POST /{a}/{b}",
                    _ => "POST /models/{m}",
                };
                let (strict, lax) = if plain { (other, key) } else { (key, other) };
                let rules = match in_plan {
                    false => Rules::new()
                        .route(strict, Limits::closed())
                        .route(lax, hourly(100)),
                    true => Rules::new().clients(
                        Clients::by_header("x-api-key").each(
                            Plan::new(Limits::unlimited())
                                .route(strict, Limits::closed())
                                .route(lax, hourly(100)),
                        ),
                    ),
                };
                let service = throttle(rules).layer(served());
                let passed = admitted(&service, 1, "POST", path).await;
                assert_eq!(
                    passed, 0,
                    "{path}: {strict} is closed; in a plan: {in_plan}"
                );
            }
        }
    }
    // An end that is decoded twice, or no end at all.
    for path in [
        "/models/a%253Arun",
        "/models/%3Arun",
        "/models/a:run%20",
        "/models/a%2Frun",
    ] {
        let rules = Rules::new()
            .route("POST /models/{m}:run", Limits::closed())
            .route("POST /models/{m}", hourly(100));
        let service = throttle(rules).layer(served());
        assert_eq!(admitted(&service, 1, "POST", path).await, 1, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_literal_key_is_met_by_its_own_requests_beside_an_end() {
    let rules = Rules::new()
        .route("POST /models/a:run", hourly(1))
        .route("POST /models/{m}:run", hourly(2));
    let service = throttle(rules).layer(served());
    assert_eq!(admitted(&service, 9, "POST", "/models/b:run").await, 2);
    assert_eq!(admitted(&service, 9, "POST", "/models/a:run").await, 1);
}

#[tokio::test(start_paused = true)]
async fn readings_of_method_path_and_plan_are_charged_together() {
    let keys = [
        "PUT /pkg.Svc/{method}",
        "PUT /pkg.Svc/Call",
        "POST /pkg.Svc/{method}",
        "POST /pkg.Svc/Call",
    ];
    for strict in keys {
        for in_plan in [false, true] {
            let limits = |key: &str| hourly(if key == strict { 1 } else { 100 });
            let rules = match in_plan {
                false => keys
                    .iter()
                    .fold(Rules::new(), |rules, key| rules.route(*key, limits(key))),
                true => {
                    let plan = Plan::new(Limits::unlimited());
                    let plan = keys
                        .iter()
                        .fold(plan, |plan, key| plan.route(*key, limits(key)));
                    Rules::new().clients(Clients::by_header("x-api-key").each(plan))
                }
            };
            let service = throttle(rules).layer(served());
            let path = "/pkg.Svc//%43all";
            assert_eq!(
                admitted(&service, 9, "PUT", path).await,
                1,
                "{strict}, in a plan: {in_plan}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_free_only_if_all_of_its_readings_are() {
    let rules = || {
        Rules::new()
            .total(Rate::per_hour(3))
            .route("GET /a", Limits::exempt())
            .route("GET /b", Limits::exempt())
            .route("$default", Limits::unlimited())
    };
    let service = throttle(rules()).layer(served());
    assert_eq!(admitted(&service, 9, "GET", "/a").await, 9, "exempt");
    assert_eq!(
        admitted(&service, 9, "GET", "//a").await,
        3,
        "it may be $default's, which the total counts"
    );
    let exempt = rules().route("GET //a", Limits::exempt());
    let service = throttle(exempt).layer(served());
    assert_eq!(
        admitted(&service, 9, "GET", "//a").await,
        9,
        "exempt on both readings"
    );
}

#[tokio::test(start_paused = true)]
async fn all_readings_are_charged_or_none() {
    let rules = Rules::new()
        .route("PUT /a.B/C", hourly(2))
        .route("POST /a.B/C", hourly(5));
    let service = throttle(rules).layer(served());
    assert_eq!(admitted(&service, 20, "PUT", "/a.B/C").await, 2);
    assert_eq!(
        admitted(&service, 20, "POST", "/a.B/C").await,
        3,
        "eighteen refusals have spent nothing of POST's"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_answers_as_the_route_of_a_reading_does() {
    let own = |_: &Denial, _: &http::request::Parts| {
        let mut answer = http::Response::new("own");
        *answer.status_mut() = StatusCode::IM_A_TEAPOT;
        answer
    };
    let rules = Rules::new()
        .route("GET /ws", Limits::closed())
        .route("GET /v1/{tenant}/chat", Limits::closed())
        .rejection("GET /ws", own)
        .rejection("GET /v1/{tenant}/chat", own)
        .rejection("GET /other", Dialect::OpenAi);
    let service = throttle(rules).layer(served());
    for (method, path) in [("CONNECT", "/ws"), ("GET", "/v1//chat"), ("GET", "//ws")] {
        let answer = send(&service, request(method, path)).await;
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_snapshot_counts_what_was_charged_on_several_readings() {
    let layer = throttle(
        Rules::new()
            .route("PUT /a.B/C", hourly(9))
            .route("POST /a.B/C", hourly(9)),
    );
    let service = layer.layer(served());
    assert_eq!(admitted(&service, 4, "PUT", "/a.B/C").await, 4);
    let snapshot = layer.handle().snapshot();
    let counted: Vec<_> = snapshot.limits.iter().map(|limit| limit.admitted).collect();
    assert_eq!(counted, [4, 4], "each limit on its way");
    let routes: Vec<_> = snapshot.routes.iter().map(|route| route.admitted).collect();
    assert_eq!(routes, [4, 0, 0], "one route for each request");
}

/// The union of two undeclared routes is kept for as many as there is room, and made anew for all others.
#[tokio::test(start_paused = true)]
async fn a_flood_of_invented_calls_gets_a_bounded_number_of_bursts() {
    let service = throttle(Rules::new().default_route(hourly(1))).layer(served());
    let mut passed = 0;
    for number in 0..3_000 {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let path = format!("/invented.Service{number}/Call");
            let request = request(method.as_str(), &path);
            passed += usize::from(decision(&send(&service, request).await).is_admitted());
        }
    }
    assert!(passed <= 1_025, "{passed}");
}
