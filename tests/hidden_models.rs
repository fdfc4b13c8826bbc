//! Ways around limits by model, costs, and the layer that reads bodies, which are closed.

#[path = "support/mod.rs"]
mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Limits, Models, Rate, Rules, ThrottleLayer,
    client::ClientKey,
    limit::Scope,
    store::{Charge, Correction, OnOutage, Store, StoreError, StoreFuture, Taken},
    usage::{BodyEstimate, Estimate},
};

use support::{build, bytes, decision, hourly, serve, served, throttle, throttling, values};

const LARGE: &str = r#"{"model":"large","messages":[]}"#;

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).expect("a request")
}

/// Sends a request through the layer that reads bodies and the throttle.
async fn ask(throttle: &ThrottleLayer, request: Request<Body>) -> StatusCode {
    let service = throttle.peek_layer().layer(throttle.layer(served()));
    let answer = service.oneshot(request).await.expect("no error");
    let status = answer.status();
    let _ = bytes(answer).await;
    status
}

fn used(throttle: &ThrottleLayer, scope: Scope, model: Option<&str>, burst: u64) -> u64 {
    let snapshot = throttle.handle().snapshot();
    let mut limits = snapshot.limits.iter();
    let limit = limits.find(|it| it.scope == scope && it.model.as_deref() == model);
    burst - limit.and_then(|it| it.remaining).expect("a balance")
}

/// A body that never yields anything.
fn silent() -> Body {
    Body::new(StreamBody::new(tokio_stream::pending::<
        Result<Frame<Bytes>, Infallible>,
    >()))
}

#[tokio::test(start_paused = true)]
async fn an_estimate_from_the_body_is_made_where_only_models_limit_tokens() {
    let rules = Rules::new()
        .models(
            Models::by_header("x-model")
                .model("large", Limits::new().tokens(Rate::per_hour(1_000_000))),
        )
        .estimate(Estimate::from_body(BodyEstimate::new()).or(1));
    let throttle = throttle(rules);
    let mut request = post("/chat", r#"{"messages":["hello"],"max_tokens":5000}"#);
    request
        .headers_mut()
        .insert("x-model", "large".parse().expect("a value"));
    assert_eq!(ask(&throttle, request).await, StatusCode::OK);
    let used = used(&throttle, Scope::Model, Some("large"), 1_000_000);
    assert!(used >= 5_000, "reserved {used}");
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_as_dear_as_the_dearest_model_unless_its_cost_is_set() {
    let rules = Rules::new().total(hourly(100)).models(
        Models::from_body()
            .model("large", Limits::from(hourly(50)).cost(8))
            .unread(hourly(5)),
    );
    let throttle = throttle(rules);
    let mut request = post("/chat", LARGE);
    request
        .headers_mut()
        .insert("content-encoding", "gzip".parse().expect("a value"));
    assert_eq!(ask(&throttle, request).await, StatusCode::OK);
    assert_eq!(used(&throttle, Scope::Total, None, 100), 8);
}

#[tokio::test]
async fn a_connect_with_a_path_and_a_body_is_charged_by_model() {
    let rules = Rules::new()
        .route("ANY /v1/{proxy+}", Limits::unlimited())
        .models(Models::from_body().model("large", hourly(100)));
    let throttle = throttle(rules);
    let handler = service_fn(|request: Request<_>| async {
        let body = http_body_util::BodyExt::collect(request.into_body()).await;
        let body = body.expect("a whole body").to_bytes();
        let model = String::from_utf8_lossy(&body).contains("large");
        let mut answer = Response::new(Body::empty());
        // A status that is none of a tunnel's.
        *answer.status_mut() = StatusCode::ACCEPTED;
        let said = if model { "large" } else { "none" };
        answer
            .headers_mut()
            .insert("x-served", said.parse().expect("a value"));
        Ok::<_, Infallible>(answer)
    });
    let service = ServiceBuilder::new()
        .layer(throttle.peek_layer())
        .layer(throttle.clone())
        .service(handler);
    let address = serve(service).await;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "CONNECT /v1/chat HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{LARGE}",
        LARGE.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = vec![0; 4_096];
    let read = timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
    let read = read.expect("an answer").expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..read]).to_lowercase();
    eprintln!("{answer}");
    if answer.contains("x-served: large") {
        assert_eq!(used(&throttle, Scope::Model, Some("large"), 100), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_with_a_body_is_charged_by_model() {
    let rules = Rules::new().models(Models::from_body().model("large", hourly(100)));
    let throttle = throttle(rules);
    let mut request = post("/v1/chat", LARGE);
    *request.method_mut() = http::Method::CONNECT;
    assert_eq!(ask(&throttle, request).await, StatusCode::OK);
    assert_eq!(used(&throttle, Scope::Model, Some("large"), 100), 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_token_limit_refuses_before_the_body_is_read() {
    let rules = Rules::new()
        .default_route(Limits::new().tokens(Rate::per_hour(100)))
        .estimate(Estimate::fixed(100).exact())
        .models(Models::from_body().model("large", hourly(100)));
    let throttle = throttle(rules);
    assert_eq!(ask(&throttle, post("/chat", LARGE)).await, StatusCode::OK);
    let answered = timeout(
        Duration::from_secs(1),
        ask(&throttle, post("/chat", silent())),
    );
    assert_eq!(
        answered.await.expect("answered before its body comes"),
        StatusCode::TOO_MANY_REQUESTS
    );
}

#[tokio::test(start_paused = true)]
async fn two_lines_that_name_two_models_are_not_read() {
    let models = || {
        Models::by_header("x-model")
            .model("large", Limits::from(hourly(100)).cost(8))
            .model("small", Limits::new())
    };
    let throttle = throttle(Rules::new().total(hourly(100)).models(models()));
    let mut request = post("/chat", "");
    for model in ["small", "large"] {
        request
            .headers_mut()
            .append("x-model", model.parse().expect("a value"));
    }
    assert_eq!(ask(&throttle, request).await, StatusCode::OK);
    assert_eq!(used(&throttle, Scope::Model, Some("large"), 100), 1);
}

#[tokio::test(start_paused = true)]
async fn names_in_another_case_are_not_passed_over() {
    for body in [
        r#"{"Model":"large"}"#,
        r#"{"model":"small","MODEL":"large"}"#,
    ] {
        let models = Models::from_body()
            .model("large", hourly(100))
            .model("small", hourly(100));
        let throttle = throttle(Rules::new().models(models));
        assert_eq!(
            ask(&throttle, post("/api/chat", body)).await,
            StatusCode::OK
        );
        let used = used(&throttle, Scope::Model, Some("large"), 100);
        assert_eq!(used, 1, "{body}");
    }
}

/// A body of frames without a byte, which are always there.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
    }
}

#[tokio::test(start_paused = true)]
async fn empty_frames_do_not_hold_a_request_for_ever() {
    let throttle = throttle(Rules::new().models(Models::from_body().model("large", hourly(1))));
    let service = throttle.peek_layer().layer(throttle.layer(served()));
    let request = Request::post("/chat").body(Endless).expect("a request");
    let asked = tokio::spawn(async move { service.oneshot(request).await });
    for _ in 0..200 {
        tokio::time::advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    let is_finished = asked.is_finished();
    asked.abort();
    assert!(is_finished, "20 of 10 seconds have passed");
}

/// Sends heads without bodies, so many a second, each by a client of its own, and then an honest request. Returns its
/// status, the seconds that it took, and how many of the heads were refused by a limit.
async fn beside_heads(rules: Rules, heads: usize) -> (StatusCode, u64, usize) {
    let throttle = throttle(rules);
    let service = throttle.peek_layer().layer(throttle.layer(served()));
    let refused = Arc::new(AtomicUsize::new(0));
    let send = |key: usize, body: Body| {
        let (service, refused) = (service.clone(), Arc::clone(&refused));
        async move {
            let mut request = post("/chat", body);
            request.headers_mut().insert("x-key", key.into());
            let status = service.oneshot(request).await.expect("no error").status();
            refused.fetch_add(
                usize::from(status == StatusCode::TOO_MANY_REQUESTS),
                Ordering::Relaxed,
            );
            status
        }
    };
    let mut key = 0;
    for _ in 0..25 {
        for _ in 0..heads {
            key += 1;
            tokio::spawn(send(key, silent()));
        }
        sleep(Duration::from_secs(1)).await;
    }
    #[expect(clippy::disallowed_methods, reason = "paused time")]
    let start = Instant::now();
    let status = send(0, Body::from(LARGE)).await;
    let seconds = start.elapsed().as_secs();
    (status, seconds, refused.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn heads_without_bodies_do_not_take_the_pool() {
    let rules = Rules::new()
        .default_route(hourly(1_000))
        .models(Models::from_body().model("large", hourly(1_000)));
    let (status, seconds, refused) = beside_heads(rules, 800).await;
    assert_eq!(
        (status, seconds),
        (StatusCode::OK, 0),
        "an honest client; {refused} heads were refused"
    );
}

#[tokio::test(start_paused = true)]
async fn invented_clients_do_not_take_the_pool() {
    let rules = Rules::new()
        .default_route(hourly(1_000))
        .clients(Clients::by_header("x-key").each(hourly(1)))
        .models(Models::from_body().model("large", hourly(1_000)));
    let (status, seconds, refused) = beside_heads(rules, 800).await;
    assert_eq!(
        (status, seconds),
        (StatusCode::OK, 0),
        "an honest client; {refused} heads were refused"
    );
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_room_is_not_told_that_it_was_slow() {
    let throttle = throttle(Rules::new().models(Models::from_body().model("large", hourly(9))));
    let peek = throttle.peek_layer().max_body(16_000).max_pool(20_000);
    let service = peek.layer(throttle.layer(served()));
    let send = |body: Body| {
        let service = service.clone();
        async move {
            service
                .oneshot(post("/chat", body))
                .await
                .expect("no error")
                .status()
        }
    };
    for _ in 0..2 {
        let begun =
            tokio_stream::iter([Ok::<_, Infallible>(Frame::data(vec![b' '; 8_000].into()))]);
        let begun = tokio_stream::StreamExt::chain(begun, tokio_stream::pending());
        tokio::spawn(send(Body::new(StreamBody::new(begun))));
    }
    sleep(Duration::from_millis(10)).await;
    let frames =
        tokio_stream::StreamExt::throttle(
            tokio_stream::iter([&LARGE[..9], &LARGE[9..]].map(|part| {
                Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(part.as_bytes())))
            })),
            Duration::from_millis(50),
        );
    let status = send(Body::new(StreamBody::new(frames))).await;
    assert_ne!(status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn limits_of_unread_bodies_do_not_lift_those_of_a_plan() {
    let plan = tower_throttle::Plan::new(Limits::unlimited()).model("large", hourly(1));
    let rules = Rules::new()
        .clients(Clients::by_header("x-key").each(plan))
        .models(
            Models::from_body()
                .model("large", hourly(100))
                .unread(hourly(50)),
        );
    let throttle = throttle(rules);
    let mut passed = 0;
    for _ in 0..5 {
        let mut request = post("/chat", LARGE);
        let headers = request.headers_mut();
        headers.insert("x-key", "a".parse().expect("a value"));
        headers.insert("content-encoding", "gzip".parse().expect("a value"));
        passed += usize::from(ask(&throttle, request).await == StatusCode::OK);
    }
    assert_eq!(passed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_told_before_the_body_is_enough_for_the_tokens() {
    let rules = Rules::new()
        .default_route(Limits::from(Rate::per_minute(1)).tokens(Rate::per_hour(100)))
        .estimate(Estimate::fixed(10))
        .models(Models::from_body().model("large", hourly(100)));
    let throttle = throttle(rules);
    let handler = service_fn(|request: Request<_>| async move {
        let usage = request.extensions().get::<tower_throttle::usage::Usage>();
        usage.expect("tokens are limited").settle(150);
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let service = throttle.peek_layer().layer(throttle.layer(handler));
    let send = || service.clone().oneshot(post("/chat", LARGE));
    assert_eq!(send().await.expect("no error").status(), StatusCode::OK);
    let refused = send().await.expect("no error");
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait = decision(&refused).retry_after().expect("a wait");
    sleep(wait).await;
    assert_eq!(
        send().await.expect("no error").status(),
        StatusCode::OK,
        "after {wait:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connect_to_a_route_of_axum_is_charged_by_model() {
    let throttle = throttle(Rules::new().models(Models::from_body().model("large", hourly(100))));
    let handler = async |body: String| [("x-length", body.len().to_string())];
    let app: axum::Router = axum::Router::new()
        .route("/v1/chat", axum::routing::any(handler))
        .layer(throttle.clone())
        .layer(throttle.peek_layer());
    let mut request = post("/v1/chat", LARGE);
    *request.method_mut() = http::Method::CONNECT;
    let answer = app.oneshot(request).await.expect("no error");
    let length = LARGE.len().to_string();
    assert_eq!(values(&answer, "x-length"), [length], "it was served");
    assert_eq!(used(&throttle, Scope::Model, Some("large"), 100), 1);
}

/// A user, as authentication has found it.
#[derive(Clone)]
struct User(String);

#[tokio::test(start_paused = true)]
async fn users_that_are_identified_further_in_are_not_refused_as_strangers() {
    let clients = Clients::by(|head| {
        let user: &User = head.extensions().get()?;
        Some(ClientKey::from(user.0.as_str()))
    });
    let rules = Rules::new()
        .clients(clients.each(hourly(5)))
        .models(Models::from_body().model("large", hourly(100)));
    let throttle = throttle(rules);
    let inner = throttle.layer(served());
    let authenticates = service_fn(move |mut request: Request<_>| {
        let user = request.headers().get("x-user").map(|it| format!("{it:?}"));
        if let Some(user) = user {
            request.extensions_mut().insert(User(user));
        }
        inner.clone().oneshot(request)
    });
    let service = throttle.peek_layer().layer(authenticates);
    let send = |user: Option<&'static str>| {
        let mut request = post("/chat", LARGE);
        let user = user.map(|user| user.parse().expect("a value"));
        user.map(|user| request.headers_mut().insert("x-user", user));
        let answer = service.clone().oneshot(request);
        async move { answer.await.expect("no error").status() }
    };
    for _ in 0..5 {
        assert_eq!(send(None).await, StatusCode::OK, "a stranger");
    }
    assert_eq!(send(Some("known")).await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn plans_that_are_found_by_facts_are_not_refused_as_others() {
    let clients = Clients::by_header("x-key")
        .each(hourly(1))
        .plan("priority", hourly(100))
        .plan_by(|head| {
            let facts: &tower_throttle::facts::BodyFacts = head.extensions().get()?;
            facts.facts()?.service_tier()
        });
    let rules = Rules::new()
        .clients(clients)
        .models(Models::from_body().model("large", hourly(100)));
    let throttle = throttle(rules);
    let send = |body: &'static str| {
        let mut request = post("/chat", body);
        request
            .headers_mut()
            .insert("x-key", "a".parse().expect("a value"));
        request
    };
    assert_eq!(ask(&throttle, send(LARGE)).await, StatusCode::OK);
    let priority = send(r#"{"model":"large","service_tier":"priority"}"#);
    assert_eq!(ask(&throttle, priority).await, StatusCode::OK);
}

/// A store that is down.
#[derive(Debug)]
struct Down;

impl Store for Down {
    fn take<'a>(&'a self, _: &'a [Charge]) -> StoreFuture<'a, Taken> {
        Box::pin(async { Err(StoreError::unavailable("gone")) })
    }

    fn correct<'a>(&'a self, _: &'a [Correction]) -> StoreFuture<'a, ()> {
        Box::pin(async { Err(StoreError::unavailable("gone")) })
    }
}

/// A share of five holds no request that costs eight.
#[tokio::test(start_paused = true)]
async fn a_dear_request_takes_all_of_a_share_while_the_store_is_down() {
    let rules = Rules::new()
        .total(hourly(10))
        .route("POST /images", Limits::new().cost(8));
    let outage = OnOutage::Local { share: 2 };
    let throttle = build(throttling(rules).store(Down).on_outage(outage));
    assert_eq!(ask(&throttle, post("/images", "")).await, StatusCode::OK);
    assert_eq!(
        ask(&throttle, post("/chat", "")).await,
        StatusCode::TOO_MANY_REQUESTS
    );
}

/// A request that is refused early would have waited for its unit.
#[tokio::test(start_paused = true)]
async fn nobody_is_refused_before_the_body_who_would_wait() {
    let patient = Limits::from(Rate::per_second(1).burst(1)).max_wait(Duration::from_secs(5));
    let rules = Rules::new()
        .route("POST /chat", patient)
        .models(Models::from_body().model("large", Limits::new()));
    let throttle = throttle(rules);
    for _ in 0..3 {
        assert_eq!(ask(&throttle, post("/chat", LARGE)).await, StatusCode::OK);
    }
}

/// Whichever way it is decided, and never for a route without models.
#[tokio::test(start_paused = true)]
async fn requests_whose_model_is_not_read_are_counted_once() {
    let rules = Rules::new()
        .route("POST /chat", hourly(9))
        .route("GET /health", Limits::exempt())
        .models(Models::from_body().model("large", hourly(9)));
    let throttle = throttle(rules);
    for count in 1..=4 {
        assert_eq!(ask(&throttle, post("/chat", "{")).await, StatusCode::OK);
        let health = Request::get("/health").body(Body::empty());
        assert_eq!(
            ask(&throttle, health.expect("a request")).await,
            StatusCode::OK
        );
        // Without the layer that reads bodies, too.
        let health = Request::get("/health").body(Body::empty());
        let answer = throttle
            .layer(served())
            .oneshot(health.expect("a request"))
            .await;
        assert_eq!(decision(&answer.expect("no error")).model(), None);
        assert_eq!(throttle.handle().snapshot().unread_models, count);
    }
}

/// They would tell all names to anybody who sends a brace, and make header fields long.
#[tokio::test(start_paused = true)]
async fn an_unread_request_is_told_the_limits_of_no_model() {
    let models = (0..40).fold(Models::from_body(), |models, number| {
        models.model(format!("m{number}"), hourly(9))
    });
    let rules = Rules::new().route("POST /chat", hourly(2)).models(models);
    let throttle = throttle(rules);
    let service = throttle.peek_layer().layer(throttle.layer(served()));
    let table = [
        ("{", StatusCode::OK, 1),
        (r#"{"model":"m7"}"#, StatusCode::OK, 2),
        ("{", StatusCode::TOO_MANY_REQUESTS, 1),
    ];
    for (body, status, limits) in table {
        let answer = service
            .clone()
            .oneshot(post("/chat", body))
            .await
            .expect("no error");
        assert_eq!(answer.status(), status);
        let told = values(&answer, "ratelimit-policy").join(", ");
        assert_eq!(told.matches(";q=").count(), limits, "{told}");
    }
}
