//! The throttle in axum 0.8: every way to apply a layer, and its interplay with axum.

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    routing::{get, post},
};
use http::{Request, Response, StatusCode};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_throttle::{Decision, Limits, Rate, Rules, ThrottleLayer};

use support::{admitted, bytes, client, decision, hourly, passes, request, send, throttle, values};

/// A way to put a throttle around an application.
type Apply<A> = fn(ThrottleLayer) -> A;

async fn ok() -> &'static str {
    "served"
}

#[tokio::test(start_paused = true)]
async fn a_layer_limits_each_route_by_method_and_path() {
    let rules = Rules::new()
        .default_route(Rate::per_second(10).burst(5))
        .route("POST /v1/chat/completions", Rate::per_second(2).burst(4))
        .route("GET /health", Limits::exempt());
    let app = Router::new()
        .route("/v1/chat/completions", post(ok))
        .route("/v1/embeddings", post(ok))
        .route("/v1/models", get(ok).delete(ok))
        .route("/health", get(ok))
        .layer(throttle(rules));
    let table = [
        ("POST", "/v1/chat/completions", 4),
        ("POST", "/v1/embeddings", 5),
        ("GET", "/v1/models", 5),
        ("DELETE", "/v1/models", 5),
        ("GET", "/health", 50),
    ];
    for (method, path, burst) in table {
        let passed = admitted(&app, 50, method, path).await;
        assert_eq!(passed, burst, "{method} {path} has a burst of its own");
    }
    tokio::time::advance(Duration::from_millis(500)).await;
    let table = [
        ("POST", "/v1/chat/completions", 1),
        ("GET", "/v1/models", 5),
    ];
    for (method, path, refilled) in table {
        let passed = admitted(&app, 50, method, path).await;
        assert_eq!(passed, refilled, "{method} {path} after half a second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_runs_no_handler_and_names_its_limit() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = async |State(calls): State<Arc<AtomicUsize>>| {
        calls.fetch_add(1, Ordering::Relaxed);
        "counted"
    };
    let app = Router::new()
        .route("/", get(count))
        .layer(throttle(
            Rules::new().route("GET /", hourly(2).named("front")),
        ))
        .with_state(Arc::clone(&calls));
    assert_eq!(admitted(&app, 7, "GET", "/").await, 2);
    assert_eq!(calls.load(Ordering::Relaxed), 2, "only what passed ran");
    let refused = send(&app, request("GET", "/")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(values(&refused, "ratelimit")[0].starts_with(r#""front";r=0;t="#));
    let body = bytes(refused).await;
    assert!(
        body.starts_with(br#"{"type":"https://iana.org/"#),
        "the problem document arrives whole: {body:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_and_a_layer_outside_find_the_same_decision() {
    let tell = async |Extension(decision): Extension<Decision>| {
        let limit = decision.limits().next().expect("one limit");
        format!("{} {}", decision.route(), limit.remaining())
    };
    let rules = Rules::new().route("GET /items/{id}", hourly(3));
    let app = Router::new()
        .route("/items/{id}", get(tell))
        .layer(throttle(rules));
    for remaining in [2, 1, 0] {
        let response = send(&app, request("GET", "/items/7")).await;
        let outside = decision(&response);
        assert!(outside.is_admitted());
        assert_eq!(outside.route(), "GET /items/{id}");
        assert_eq!(
            outside.limits().next().map(|limit| limit.remaining()),
            Some(remaining)
        );
        let inside = bytes(response).await;
        assert_eq!(inside, format!("GET /items/{{id}} {remaining}"));
    }
    let refused = send(&app, request("GET", "/items/7")).await;
    assert!(!decision(&refused).is_admitted());
}

#[tokio::test(start_paused = true)]
async fn route_layer_leaves_the_fallback_alone_and_layer_limits_it() {
    let rules = || Rules::new().total(hourly(3));
    let routes = || Router::new().route("/", get(ok)).fallback(ok);

    let app = routes().route_layer(throttle(rules()));
    assert_eq!(admitted(&app, 9, "GET", "/nowhere").await, 9, "not covered");
    assert_eq!(admitted(&app, 9, "GET", "/").await, 3, "covered");

    let app = routes().layer(throttle(rules()));
    assert_eq!(admitted(&app, 2, "GET", "/nowhere").await, 2);
    assert_eq!(
        admitted(&app, 9, "GET", "/").await,
        1,
        "the fallback has spent of the same total"
    );
    assert_eq!(admitted(&app, 9, "GET", "/nowhere").await, 0);
}

#[tokio::test(start_paused = true)]
async fn requests_that_axum_answers_itself_are_limited() {
    let rules = Rules::new().default_route(hourly(2));
    let app = Router::new()
        .route("/only-get", get(ok))
        .layer(throttle(rules));
    let table = [
        ("GET", "/nowhere", StatusCode::NOT_FOUND),
        ("POST", "/only-get", StatusCode::METHOD_NOT_ALLOWED),
    ];
    for (method, path, status) in table {
        for attempt in 1..=4 {
            let expected = if attempt <= 2 {
                status
            } else {
                StatusCode::TOO_MANY_REQUESTS
            };
            let answer = send(&app, request(method, path)).await;
            assert_eq!(answer.status(), expected, "{method} {path}, {attempt}");
        }
    }
    assert_eq!(
        admitted(&app, 9, "GET", "/only-get").await,
        2,
        "the route itself is untouched"
    );
}

/// tokio-rs/axum#2634: `oneshot` takes a clone of the router, and so does each connection.
#[tokio::test(start_paused = true)]
async fn cloned_routers_share_one_state() {
    let app = Router::new()
        .route("/", get(ok))
        .layer(throttle(Rules::new().route("GET /", hourly(5))));
    let clones: Vec<_> = (0..20).map(|_| app.clone()).collect();
    let mut passed = 0;
    for clone in clones {
        let response = clone.oneshot(request("GET", "/")).await;
        let response = response.unwrap_or_else(|never| match never {});
        passed += usize::from(response.status() == StatusCode::OK);
    }
    assert_eq!(passed, 5, "twenty clones have one burst");
}

/// tokio-rs/axum#2582: a layer on a method router was cloned for each request, and its state with it.
#[tokio::test(start_paused = true)]
async fn a_layer_applied_route_by_route_shares_one_state() {
    let layers: [(&str, Apply<Router>); 3] = [
        ("MethodRouter::layer", |throttle| {
            Router::new()
                .route("/a", get(ok).post(ok).layer(throttle.clone()))
                .route("/b", get(ok).layer(throttle))
        }),
        ("MethodRouter::route_layer", |throttle| {
            Router::new()
                .route("/a", get(ok).post(ok).route_layer(throttle.clone()))
                .route("/b", get(ok).route_layer(throttle))
        }),
        ("merged routers", |throttle| {
            let a = Router::new().route("/a", get(ok).post(ok));
            let b = Router::new().route("/b", get(ok));
            a.layer(throttle.clone()).merge(b.layer(throttle))
        }),
    ];
    for (how, build) in layers {
        let rules = Rules::new().total(hourly(6)).route("GET /a", hourly(2));
        let app = build(throttle(rules));
        assert_eq!(admitted(&app, 5, "GET", "/a").await, 2, "{how}: the rule");
        assert_eq!(
            admitted(&app, 3, "POST", "/a").await,
            3,
            "{how}: total left"
        );
        assert_eq!(admitted(&app, 5, "GET", "/b").await, 1, "{how}: last of it");
        assert_eq!(admitted(&app, 5, "POST", "/a").await, 0, "{how}: spent");
    }
}

#[tokio::test(start_paused = true)]
async fn head_runs_the_rule_of_get() {
    let explicit = Router::new().route("/", get(ok).head(ok));
    for (how, routes) in [
        ("GET's handler answers", Router::new().route("/", get(ok))),
        ("a handler of its own", explicit),
    ] {
        let app = routes.layer(throttle(Rules::new().route("GET /", hourly(4))));
        assert_eq!(admitted(&app, 3, "HEAD", "/").await, 3, "{how}");
        assert_eq!(
            admitted(&app, 9, "GET", "/").await,
            1,
            "{how}: what is left"
        );
        let refused = send(&app, request("HEAD", "/")).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{how}");
        assert!(
            refused.headers().contains_key("retry-after"),
            "{how}: HEAD has GET's fields"
        );
        assert!(bytes(refused).await.is_empty(), "{how}: HEAD has no body");
    }
    let rules = Rules::new()
        .route("GET /", hourly(1))
        .route("HEAD /", hourly(2));
    let app = Router::new().route("/", get(ok)).layer(throttle(rules));
    assert_eq!(admitted(&app, 9, "HEAD", "/").await, 2, "a rule of its own");
    assert_eq!(admitted(&app, 9, "GET", "/").await, 1, "GET's is untouched");
}

/// Any application, whatever layers it is made of.
type App = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

fn boxed<S, B>(service: S) -> App
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes, Error = axum::Error> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|response| response.map(Body::new)))
}

fn users() -> Router {
    Router::new().route("/users/{id}", get(ok).delete(ok))
}

/// Places where a throttle can stand around a nest.
const OUTSIDE: [(&str, Apply<App>); 4] = [
    ("layer outside", |throttle| {
        boxed(Router::new().nest("/api", users()).layer(throttle))
    }),
    ("route_layer outside", |throttle| {
        boxed(Router::new().nest("/api", users()).route_layer(throttle))
    }),
    ("around the whole router", |throttle| {
        boxed(throttle.layer(Router::new().nest("/api", users())))
    }),
    ("layer outside a nested service", |throttle| {
        boxed(Router::new().nest_service("/api", users()).layer(throttle))
    }),
];

/// Places where a throttle can stand inside a nest: the router has taken the prefix off the path there.
#[cfg(feature = "axum")]
const INSIDE: [(&str, Apply<App>); 6] = [
    ("layer inside", |throttle| {
        boxed(Router::new().nest("/api", users().layer(throttle)))
    }),
    ("route_layer inside", |throttle| {
        boxed(Router::new().nest("/api", users().route_layer(throttle)))
    }),
    ("on the method router inside", |throttle| {
        let users = Router::new().route("/users/{id}", get(ok).delete(ok).layer(throttle));
        boxed(Router::new().nest("/api", users))
    }),
    ("inside two nests", |throttle| {
        let ids = Router::new().route("/{id}", get(ok).delete(ok));
        let users = Router::new().nest("/users", ids.layer(throttle));
        boxed(Router::new().nest("/api", users))
    }),
    ("layer inside a nested service", |throttle| {
        boxed(Router::new().nest_service("/api", users().layer(throttle)))
    }),
    ("around a nested service", |throttle| {
        boxed(Router::new().nest_service("/api", throttle.layer(users())))
    }),
];

async fn a_rule_on_the_full_path_holds(places: &[(&str, Apply<App>)]) {
    for (place, build) in places {
        // Nothing but the rule limits, so that whatever misses it passes.
        let app = build(throttle(
            Rules::new().route("GET /api/users/{id}", hourly(3)),
        ));
        let mut passed = Vec::new();
        for id in 0..6 {
            let uri = format!("/api/users/{id}?page={id}");
            let response = send(&app, request("GET", &uri)).await;
            if response.status() == StatusCode::OK {
                assert_eq!(
                    decision(&response).route(),
                    "GET /api/users/{id}",
                    "{place}: {uri}"
                );
                passed.push(id);
            }
        }
        assert_eq!(passed, [0, 1, 2], "{place}: one bucket for all users");
        assert_eq!(
            admitted(&app, 6, "DELETE", "/api/users/0").await,
            6,
            "{place}: another method is another route"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_on_the_full_path_holds_outside_a_nest() {
    a_rule_on_the_full_path_holds(&OUTSIDE).await;
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn a_rule_on_the_full_path_holds_inside_a_nest() {
    a_rule_on_the_full_path_holds(&INSIDE).await;
}

#[tokio::test(start_paused = true)]
async fn a_nested_prefix_is_throttled_alone_by_a_layer_on_the_nest() {
    let app = Router::new().route("/", get(ok)).nest(
        "/api",
        users().layer(throttle(Rules::new().total(hourly(2)))),
    );
    assert_eq!(admitted(&app, 9, "GET", "/api/users/1").await, 2);
    assert_eq!(
        admitted(&app, 9, "GET", "/").await,
        9,
        "not inside the nest"
    );
}

#[tokio::test(start_paused = true)]
async fn it_stands_in_a_service_builder_among_other_layers() {
    let stack = ServiceBuilder::new()
        .layer(tower_http::trace::TraceLayer::new_for_http())
        .layer(tower_http::cors::CorsLayer::permissive())
        .layer(throttle(Rules::new().default_route(hourly(2))))
        .layer(tower_http::timeout::TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            Duration::from_secs(5),
        ))
        .layer(tower_http::compression::CompressionLayer::new());
    let app = Router::new().route("/", get(ok)).layer(stack);
    assert_eq!(admitted(&app, 9, "GET", "/").await, 2);
}

/// With nothing declared, what tells routes apart is what the router matched.
#[cfg(feature = "axum")]
mod matched_path {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_of_one_template_share_a_bucket() {
        // Around a router or a service that another one nests, nothing has been matched yet.
        let unmatched = [
            "around the whole router",
            "layer outside a nested service",
            "around a nested service",
        ];
        let places = OUTSIDE.iter().chain(&INSIDE);
        for (place, build) in places.filter(|(place, _)| !unmatched.contains(place)) {
            let app = build(throttle(Rules::new().default_route(hourly(3))));
            let mut passed = 0;
            for id in 0..6 {
                let uri = format!("/api/users/{id}");
                let response = send(&app, request("GET", &uri)).await;
                assert_eq!(
                    decision(&response).route(),
                    "GET /api/users/{id}",
                    "{place}: never the path a client chose"
                );
                passed += usize::from(response.status() == StatusCode::OK);
            }
            assert_eq!(passed, 3, "{place}: /users/1 and /users/2 are one route");
            assert_eq!(
                admitted(&app, 6, "DELETE", "/api/users/0").await,
                3,
                "{place}: methods are apart"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn templates_and_methods_are_apart() {
        let routes = Router::new()
            .route("/users/{id}", get(ok).put(ok))
            .route("/users/me", get(ok))
            .route("/users/{id}/posts/{post}", get(ok))
            .route("/files/{*path}", get(ok));
        let app = routes.layer(throttle(Rules::new().default_route(hourly(2))));
        let table: [(&str, [&str; 3], &str); 5] = [
            (
                "GET",
                ["/users/1", "/users/%31", "/users/x"],
                "GET /users/{id}",
            ),
            (
                "PUT",
                ["/users/1", "/users/2", "/users/3"],
                "PUT /users/{id}",
            ),
            ("GET", ["/users/me"; 3], "GET /users/me"),
            (
                "GET",
                ["/users/1/posts/1", "/users/1/posts/2", "/users/2/posts/1"],
                "GET /users/{id}/posts/{post}",
            ),
            (
                "GET",
                ["/files/a", "/files/a/b", "/files/a%2Fb"],
                "GET /files/{*path}",
            ),
        ];
        for (method, uris, route) in table {
            for (uri, expected) in uris.into_iter().zip([true, true, false]) {
                let response = send(&app, request(method, uri)).await;
                assert_eq!(decision(&response).route(), route, "{method} {uri}");
                assert_eq!(
                    decision(&response).is_admitted(),
                    expected,
                    "{method} {uri} is charged to {route}"
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn head_shares_the_bucket_of_get() {
        let app = users().layer(throttle(Rules::new().default_route(hourly(3))));
        assert_eq!(admitted(&app, 2, "HEAD", "/users/1").await, 2);
        assert_eq!(admitted(&app, 9, "GET", "/users/2").await, 1);
        assert_eq!(admitted(&app, 9, "HEAD", "/users/3").await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_declared_rule_wins_over_the_template() {
        let rules = Rules::new()
            .default_route(hourly(5))
            .route("GET /users/me", hourly(1));
        let app = users().layer(throttle(rules));
        assert_eq!(admitted(&app, 9, "GET", "/users/me").await, 1);
        assert_eq!(admitted(&app, 9, "GET", "/users/1").await, 5);
        assert!(!passes(&app, request("GET", "/users/2")).await);
    }

    /// axum compares paths as they are sent, so an escape in a literal leads to the parameter beside it.
    /// Whether the router has such a literal cannot be seen from a request: both rules hold.
    #[tokio::test(start_paused = true)]
    async fn an_escaped_literal_dodges_neither_its_own_rule_nor_that_of_the_parameter() {
        let with_literal = Router::new()
            .route("/files/health", get(|| async { "health" }))
            .route("/files/{id}", get(|| async { "download" }));
        let without = Router::new().route("/files/{id}", get(|| async { "download" }));
        for (name, router) in [("with", with_literal), ("without", without)] {
            for (literal, param, burst) in [(1_000, 2, 2), (2, 1_000, 2)] {
                let rules = Rules::new()
                    .route("GET /files/health", hourly(literal))
                    .route("GET /files/{id}", hourly(param));
                let app = router.clone().layer(throttle(rules));
                let passed = admitted(&app, 9, "GET", "/files/%68ealth").await;
                assert_eq!(
                    passed, burst,
                    "{name} a literal route, {literal} and {param}"
                );
                let spent = send(&app, request("GET", "/files/7")).await;
                assert_eq!(decision(&spent).is_admitted(), param > 2, "{name}");
            }
            let rules = Rules::new()
                .default_route(hourly(1))
                .route("GET /files/health", Limits::unlimited());
            let app = router.layer(throttle(rules));
            assert_eq!(admitted(&app, 9, "GET", "/files/health").await, 9);
            let passed = admitted(&app, 9, "GET", "/files/%68ealth").await;
            assert_eq!(
                passed, 1,
                "{name} a literal route: the template's own bucket"
            );
        }
    }

    /// axum goes into a literal before a parameter, whatever follows; API Gateway prefers a full match.
    #[tokio::test(start_paused = true)]
    async fn the_rule_of_the_handler_that_runs_is_charged() {
        let rules = Rules::new()
            .route("GET /x/{*rest}", hourly(1))
            .route("GET /{a}/{b}", hourly(100))
            .route("POST /{a}/{b}", hourly(3));
        let app = Router::new()
            .route("/x/{*rest}", get(|| async { "rest" }).post(ok))
            .route("/{a}/{b}", get(|| async { "both" }).post(ok))
            .layer(throttle(rules));
        for (path, key, passed) in [
            ("/x/1", "GET /x/{*rest}", 1),
            ("/x/2", "GET /x/{*rest}", 0),
            ("/x/1/2/3", "GET /x/{*rest}", 0),
            ("/y/1", "GET /{a}/{b}", 1),
        ] {
            let answer = send(&app, request("GET", path)).await;
            assert_eq!(decision(&answer).route(), key, "{path}");
            assert_eq!(
                usize::from(decision(&answer).is_admitted()),
                passed,
                "{path}"
            );
        }
        let post = send(&app, request("POST", "/x/1")).await;
        assert_eq!(
            decision(&post).route(),
            "POST /{a}/{b}",
            "no key of the handler's route has the method"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn paths_that_clients_invent_take_no_room_from_templates() {
        let app = users().layer(throttle(Rules::new().default_route(hourly(2))));
        for path in 0..1_030 {
            let _ = send(&app, request("GET", &format!("/junk/{path}"))).await;
        }
        let own = send(&app, request("GET", "/users/1")).await;
        assert!(decision(&own).is_admitted());
        assert_eq!(decision(&own).route(), "GET /users/{id}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_route_matches_is_kept_apart_by_path_and_named_default() {
        let app = users().layer(throttle(Rules::new().default_route(hourly(2))));
        for path in ["/nowhere", "/elsewhere"] {
            let response = send(&app, request("GET", path)).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
            assert_eq!(decision(&response).route(), "$default", "{path}");
            assert_eq!(admitted(&app, 9, "GET", path).await, 1, "{path}");
        }
    }
}

/// Without the feature the throttle does not know axum's templates: the path decides.
#[cfg(not(feature = "axum"))]
#[tokio::test(start_paused = true)]
async fn without_the_feature_undeclared_routes_are_kept_apart_by_path() {
    let app = users().layer(throttle(Rules::new().default_route(hourly(2))));
    for path in ["/users/1", "/users/2"] {
        assert_eq!(admitted(&app, 9, "GET", path).await, 2, "{path}");
    }
    assert!(
        !passes(&app, request("GET", "/users/%31")).await,
        "as /users/1"
    );
}

#[tokio::test]
async fn connections_to_axum_serve_share_one_state() {
    let app = Router::new()
        .route("/users/{id}", get(ok))
        .layer(throttle(Rules::new().route("GET /users/{id}", hourly(4))));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, app).into_future());
    let mut statuses = Vec::new();
    for connection in 0..7 {
        let uri = format!("http://{address}/users/{connection}");
        let http2 = connection % 2 == 1;
        let response = client(http2).request(request("GET", &uri)).await;
        statuses.push(response.expect("an answer").status().as_u16());
    }
    assert_eq!(
        statuses,
        [200, 200, 200, 200, 429, 429, 429],
        "seven connections, HTTP/1.1 and HTTP/2 in turn, one burst"
    );
}
