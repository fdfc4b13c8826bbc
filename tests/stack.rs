//! The throttle in a bare `ServiceBuilder` stack, above and below other layers, and R18: admitted requests pass
//! unchanged.

mod support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer,
    load_shed::error::Overloaded, service_fn,
};
use tower_http::{
    compression::CompressionLayer,
    cors::CorsLayer,
    limit::RequestBodyLimitLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
use tower_throttle::{
    Decision, Limits, Rules, ThrottleLayer, body::ResponseBody, decision::DecisionIn,
    response::EXPOSE_HEADERS,
};

use support::{
    admitted, build, bytes, decision, hourly, passes, request, send, served, throttle, throttling,
    values,
};

/// `GET /` with a burst of three.
fn three() -> ThrottleLayer {
    throttle(Rules::new().route("GET /", hourly(3)))
}

/// Answers with enough text to be worth compressing.
async fn long<B>(_: Request<B>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from(
        "all work and no play ".repeat(100),
    )))
}

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(HeaderValue::from_static("https://app.example"))
        .allow_methods([Method::GET, Method::POST])
        .expose_headers(EXPOSE_HEADERS.to_vec())
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(5))
}

fn from_browser(method: &str, uri: &str) -> Request<Body> {
    let mut request = request(method, uri);
    let headers = request.headers_mut();
    headers.insert("origin", HeaderValue::from_static("https://app.example"));
    headers.insert("accept-encoding", HeaderValue::from_static("gzip"));
    request
}

/// The gzip file format begins with these (RFC 1952, section 2.3.1).
const GZIP: &[u8] = &[0x1f, 0x8b];

#[tokio::test(start_paused = true)]
async fn it_works_below_all_usual_layers() {
    let service = ServiceBuilder::new()
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http())
        .layer(cors())
        .layer(CompressionLayer::new())
        .layer(RequestBodyLimitLayer::new(100))
        .layer(timeout())
        .layer(three())
        .service_fn(long);
    for attempt in 1..=5 {
        let answer = send(&service, from_browser("GET", "/")).await;
        let expected = if attempt <= 3 { 200 } else { 429 };
        assert_eq!(answer.status(), expected, "attempt {attempt}");
        let from_outside = [
            ("x-request-id", None),
            ("access-control-allow-origin", Some("https://app.example")),
            ("content-encoding", Some("gzip")),
        ];
        for (name, value) in from_outside {
            let found = values(&answer, name);
            assert_eq!(found.len(), 1, "{name} on attempt {attempt}");
            assert!(value.is_none_or(|value| found == [value]), "{found:?}");
        }
        assert_eq!(values(&answer, "ratelimit").len(), 1, "attempt {attempt}");
        assert_eq!(values(&answer, "ratelimit-policy").len(), 1);
        let body = bytes(answer).await;
        assert!(body.starts_with(GZIP), "attempt {attempt}: {body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_works_above_all_usual_layers() {
    let service = ServiceBuilder::new()
        .layer(three())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http())
        .layer(cors())
        .layer(CompressionLayer::new())
        .layer(RequestBodyLimitLayer::new(100))
        .layer(timeout())
        .service_fn(long);
    for attempt in 1..=5 {
        let answer = send(&service, from_browser("GET", "/")).await;
        let refused = attempt > 3;
        let expected = if refused { 429 } else { 200 };
        assert_eq!(answer.status(), expected, "attempt {attempt}");
        for name in [
            "x-request-id",
            "access-control-allow-origin",
            "content-encoding",
        ] {
            assert_eq!(
                values(&answer, name).is_empty(),
                refused,
                "{name}: a refusal never sees the layers below, attempt {attempt}"
            );
        }
        assert_eq!(values(&answer, "ratelimit").len(), 1, "attempt {attempt}");
        let body = bytes(answer).await;
        assert_eq!(body.starts_with(GZIP), !refused, "attempt {attempt}");
        assert_eq!(body.starts_with(b"{"), refused, "attempt {attempt}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trace_outside_sees_refusals_and_their_decision_and_one_inside_does_not() {
    let (outside, inside) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
    let (outer, inner) = (Arc::clone(&outside), Arc::clone(&inside));
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http().on_response(
            move |response: &Response<ResponseBody<_>>, _: Duration, _: &tracing::Span| {
                let decision = decision(response);
                let told = (decision.route().to_owned(), decision.is_admitted());
                outer.lock().expect("no panic").push(told);
            },
        ))
        .layer(three())
        .layer(TraceLayer::new_for_http().on_response(
            move |response: &Response<Body>, _: Duration, _: &tracing::Span| {
                inner.lock().expect("no panic").push(response.status());
            },
        ))
        .service(served());
    admitted(&service, 4, "GET", "/").await;
    let told = |admitted| ("GET /".to_owned(), admitted);
    assert_eq!(
        *outside.lock().expect("no panic"),
        [told(true), told(true), told(true), told(false)]
    );
    assert_eq!(*inside.lock().expect("no panic"), [StatusCode::OK; 3]);
}

#[tokio::test(start_paused = true)]
async fn with_cors_outside_a_browser_may_read_a_refusal() {
    let service = ServiceBuilder::new()
        .layer(cors())
        .layer(throttle(Rules::new().route("GET /", hourly(1))))
        .service(served());
    assert!(passes(&service, from_browser("GET", "/")).await);
    let refused = send(&service, from_browser("GET", "/")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        values(&refused, "access-control-allow-origin"),
        ["https://app.example"]
    );
    let exposed = values(&refused, "access-control-expose-headers").join(",");
    let exposed: Vec<_> = exposed.split(',').map(str::trim).collect();
    for name in [
        "retry-after",
        "retry-after-ms",
        "ratelimit",
        "ratelimit-policy",
        "x-should-retry",
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "grpc-retry-pushback-ms",
    ] {
        assert!(exposed.contains(&name), "{name} in {exposed:?}");
    }
    for (name, _) in refused.headers() {
        let safelisted = ["content-type", "content-length", "cache-control", "vary"];
        let name = name.as_str();
        assert!(
            exposed.contains(&name)
                || safelisted.contains(&name)
                || name.starts_with("access-control-"),
            "a browser could not read {name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_limit_above_spares_the_charge_and_one_below_does_not() {
    let oversized = || {
        let request = Request::post("/").header("content-length", "1000");
        request
            .body(Body::from("x".repeat(1_000)))
            .expect("a request")
    };
    let rules = || Rules::new().route("POST /", hourly(2));

    let above = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(100))
        .layer(throttle(rules()))
        .service(served());
    for _ in 0..5 {
        let answer = send(&above, oversized()).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(values(&answer, "ratelimit").is_empty(), "never got there");
    }
    assert_eq!(admitted(&above, 5, "POST", "/").await, 2, "uncharged");

    let below = ServiceBuilder::new()
        .layer(throttle(rules()))
        .layer(RequestBodyLimitLayer::new(100))
        .service(served());
    for expected in [413, 413, 429, 429] {
        let answer = send(&below, oversized()).await;
        assert_eq!(answer.status(), expected);
        assert_eq!(values(&answer, "ratelimit").len(), 1, "charged, and told");
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_above_or_below_answers_for_a_request_that_stays_charged() {
    async fn stuck<B>(_: Request<B>) -> Result<Response<Body>, Infallible> {
        std::future::pending().await
    }
    let above = ServiceBuilder::new()
        .layer(timeout())
        .layer(three())
        .service_fn(stuck);
    let below = ServiceBuilder::new()
        .layer(three())
        .layer(timeout())
        .service_fn(stuck);
    for attempt in 1..=5 {
        let expected = if attempt <= 3 { 504 } else { 429 };
        let answer = send(&above, request("GET", "/")).await;
        assert_eq!(answer.status(), expected, "above, attempt {attempt}");
        assert_eq!(
            values(&answer, "ratelimit").is_empty(),
            attempt <= 3,
            "above: the timeout's own answer never passed the throttle"
        );
        let answer = send(&below, request("GET", "/")).await;
        assert_eq!(answer.status(), expected, "below, attempt {attempt}");
        assert_eq!(values(&answer, "ratelimit").len(), 1, "below");
    }
}

#[tokio::test(start_paused = true)]
async fn a_buffer_and_a_concurrency_limit_below_are_called_as_they_were_polled_ready() {
    // Both panic if they are called without a place reserved by their own `poll_ready`.
    let mut service = ServiceBuilder::new()
        .layer(three())
        .buffer(1)
        .concurrency_limit(1)
        .service(served());
    for attempt in 1..=6 {
        let ready = service.ready().await.expect("ready");
        let answer = ready.call(request("GET", "/")).await.expect("an answer");
        let expected = if attempt <= 3 { 200 } else { 429 };
        assert_eq!(answer.status(), expected, "attempt {attempt}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_keeps_no_place_below() {
    let rules = Rules::new()
        .route("GET /closed", Limits::closed())
        .route("GET /open", Limits::unlimited());
    let concurrency = ServiceBuilder::new()
        .layer(throttle(rules.clone()))
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .service(served());
    let buffer = ServiceBuilder::new()
        .layer(throttle(rules))
        .buffer(1)
        .service(served());
    for _ in 0..5 {
        assert_eq!(admitted(&concurrency, 1, "GET", "/closed").await, 0);
        assert_eq!(admitted(&concurrency, 1, "GET", "/open").await, 1);
        assert_eq!(admitted(&buffer, 1, "GET", "/closed").await, 0);
        assert_eq!(admitted(&buffer, 1, "GET", "/open").await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_concurrency_limit_below_costs_nothing() {
    let (release, held) = tokio::sync::watch::channel(false);
    let slow = service_fn(move |_: Request<Body>| {
        let mut held = held.clone();
        async move {
            held.wait_for(|released| *released)
                .await
                .expect("the sender lives");
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let service = ServiceBuilder::new()
        .layer(throttle(Rules::new().route("GET /", hourly(2))))
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .service(slow);
    let first = tokio::spawn(service.clone().oneshot(request("GET", "/")));
    tokio::task::yield_now().await;
    let mut waiting = service.clone();
    for _ in 0..5 {
        let mut context = Context::from_waker(Waker::noop());
        assert!(
            waiting.poll_ready(&mut context).is_pending(),
            "the slot is held"
        );
    }
    release.send(true).expect("a receiver");
    let first = first.await.expect("no panic").expect("an answer");
    assert_eq!(first.status(), StatusCode::OK);
    let second = waiting.ready().await.expect("ready");
    let second = second.call(request("GET", "/")).await.expect("an answer");
    assert_eq!(second.status(), StatusCode::OK, "charged when called only");
    drop(waiting);
    assert_eq!(admitted(&service, 5, "GET", "/").await, 0);
}

#[tokio::test(start_paused = true)]
async fn load_shed_below_fails_as_itself_and_above_never_sheds_a_refusal() {
    let stuck = || {
        service_fn(|_: Request<Body>| async {
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        })
    };
    let below = ServiceBuilder::new()
        .layer(throttle(Rules::new().route("GET /", hourly(2))))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .service(stuck());
    let _held = tokio::spawn(below.clone().oneshot(request("GET", "/")));
    tokio::task::yield_now().await;
    let shed = below.clone().oneshot(request("GET", "/")).await;
    let shed = shed.expect_err("the only slot is held");
    assert!(
        shed.is::<Overloaded>(),
        "the error is load-shed's: {shed:?}"
    );
    let refused = send(&below, request("GET", "/")).await;
    assert_eq!(
        refused.status(),
        StatusCode::TOO_MANY_REQUESTS,
        "both had been charged: they were called"
    );

    let above = ServiceBuilder::new()
        .load_shed()
        .buffer(4)
        .layer(three())
        .service(served());
    assert_eq!(admitted(&above, 9, "GET", "/").await, 3);
}

#[tokio::test(start_paused = true)]
async fn the_request_arrives_as_it_was_sent_but_for_the_decision() {
    #[derive(Debug, Clone, PartialEq)]
    struct Mine(u8);

    for (place, tells) in [
        (DecisionIn::Nowhere, false),
        (DecisionIn::Request, true),
        (DecisionIn::Response, false),
        (DecisionIn::Both, true),
    ] {
        let mut sent = Request::builder()
            .method("PATCH")
            .version(Version::HTTP_10)
            .uri("http://user@host.example:8080/a%2Fb//c/../d;v=1?q=%41&q=2")
            .header("X-Twice", "one")
            .header("x-twice", "two")
            .header("ratelimit", r#""mine";r=1"#)
            .header(
                "x-binary",
                HeaderValue::from_bytes(b"\xff\xfe").expect("opaque"),
            )
            .body(Script::new([
                Step::Data(b"first "),
                Step::Pending,
                Step::Data(b"second"),
                Step::Trailers("x-sum", "7"),
            ]))
            .expect("a request");
        sent.extensions_mut().insert(Mine(7));
        let expected = (
            sent.method().clone(),
            sent.uri().clone(),
            sent.version(),
            sent.headers().clone(),
        );
        let inner = service_fn(move |request: Request<Script>| {
            let expected = expected.clone();
            async move {
                let (head, body) = request.into_parts();
                assert_eq!(
                    (head.method, head.uri, head.version, head.headers),
                    expected
                );
                assert_eq!(head.extensions.get(), Some(&Mine(7)));
                assert_eq!(head.extensions.get::<Decision>().is_some(), tells);
                assert_eq!(head.extensions.len(), 1 + usize::from(tells));
                let body = body.collect().await.expect("a whole body");
                let trailers = body.trailers().expect("trailers");
                assert_eq!(trailers["x-sum"], "7");
                assert_eq!(body.to_bytes(), "first second");
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let layer = build(throttling(Rules::new().default_route(hourly(3))).decision(place));
        let answer = layer.layer(inner).oneshot(sent).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), StatusCode::OK);
        let responses = matches!(place, DecisionIn::Response | DecisionIn::Both);
        assert_eq!(
            answer.extensions().get::<Decision>().is_some(),
            responses,
            "{place:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_no_bodies_pass_too() {
    /// Neither `Send` nor a body.
    struct Opaque(Rc<[u8; 3]>);

    let inner = service_fn(|request: Request<Opaque>| async move {
        assert_eq!(*request.body().0, [1, 2, 3]);
        Ok::<_, Infallible>(Response::new(()))
    });
    let layer = throttle(Rules::new().total(hourly(1)));
    for expected in [200, 429] {
        let request = Request::new(Opaque(Rc::new([1, 2, 3])));
        let answer = layer.layer(inner).oneshot(request).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_inner_service_pass_as_they_are() {
    #[derive(Debug, PartialEq)]
    struct Broken(&'static str);

    #[derive(Clone)]
    struct Breaks(&'static str);

    impl Service<Request<Body>> for Breaks {
        type Response = Response<Body>;
        type Error = Broken;
        type Future = std::future::Ready<Result<Response<Body>, Broken>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
            match self.0 {
                "poll_ready" => Poll::Ready(Err(Broken(self.0))),
                _ => Poll::Ready(Ok(())),
            }
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::ready(Err(Broken(self.0)))
        }
    }

    for when in ["poll_ready", "call"] {
        let service = three().layer(Breaks(when));
        let answer = service.oneshot(request("GET", "/")).await;
        assert_eq!(answer.map(|_| ()), Err(Broken(when)));
    }
    let service = three().layer(Breaks("call"));
    for attempt in 1..=5 {
        let answer = service.clone().oneshot(request("GET", "/")).await;
        assert_eq!(
            answer.is_err(),
            attempt <= 3,
            "a failed call was a call, attempt {attempt}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_response_head_passes_with_our_fields_after_its_own() {
    #[derive(Debug, Clone, PartialEq)]
    struct Theirs(u8);

    let inner = service_fn(|_: Request<Body>| async {
        let mut response = Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .version(Version::HTTP_2)
            .header("RateLimit", r#""theirs";r=1;t=2"#)
            .header("ratelimit", r#""theirs_2";r=3"#)
            .header("ratelimit-policy", r#""theirs";q=4"#)
            .header("retry-after", "77")
            .header("cache-control", "public")
            .body(Body::from("tea"))
            .expect("a response");
        response.extensions_mut().insert(Theirs(1));
        Ok::<_, Infallible>(response)
    });
    let rules = Rules::new().route("GET /", hourly(3).named("ours"));
    let layer = throttle(rules.clone());
    let answer = send(&layer.layer(inner), request("GET", "/")).await;
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(answer.version(), Version::HTTP_2);
    assert_eq!(
        values(&answer, "ratelimit"),
        [
            r#""theirs";r=1;t=2"#,
            r#""theirs_2";r=3"#,
            r#""ours";r=2;t=7200"#
        ]
    );
    assert_eq!(
        values(&answer, "ratelimit-policy"),
        [r#""theirs";q=4"#, r#""ours";q=1;w=3600;throttle-burst=3"#]
    );
    assert_eq!(values(&answer, "retry-after"), ["77"]);
    assert_eq!(values(&answer, "cache-control"), ["public"]);
    assert_eq!(answer.headers().len(), 7, "and nothing else");
    assert_eq!(answer.extensions().get(), Some(&Theirs(1)));
    assert_eq!(bytes(answer).await, "tea");

    let silent = throttling(rules).rate_limit_headers(false);
    let silent = build(silent.decision(DecisionIn::Nowhere)).layer(inner);
    let answer = send(&silent, request("GET", "/")).await;
    assert_eq!(answer.headers().len(), 5, "as the inner service wrote it");
    assert_eq!(answer.extensions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_throttles_in_one_stack_both_hold_and_both_tell() {
    let service = ServiceBuilder::new()
        .layer(throttle(
            Rules::new().default_route(hourly(5).named("outer")),
        ))
        .layer(throttle(
            Rules::new().default_route(hourly(3).named("inner")),
        ))
        .service(served());
    let answer = send(&service, request("GET", "/")).await;
    assert_eq!(
        values(&answer, "ratelimit"),
        [r#""inner";r=2;t=7200"#, r#""outer";r=4;t=14400"#]
    );
    assert_eq!(admitted(&service, 3, "GET", "/").await, 2, "inner's burst");
    let refused = send(&service, request("GET", "/")).await;
    assert!(
        values(&refused, "ratelimit")[0].starts_with(r#""inner";r=0;t="#),
        "inner's refusal, with outer's balance after it: {refused:?}"
    );
    let refused = send(&service, request("GET", "/")).await;
    assert_eq!(
        values(&refused, "ratelimit").len(),
        1,
        "now outer refuses, and inner is not asked"
    );
}

#[tokio::test(start_paused = true)]
async fn fields_stand_on_answers_but_not_on_tunnels_switches_and_last_redirects() {
    // Status, and whether fields stand on it while something remains, and when nothing does.
    let table = [
        (200, true, true),
        (204, true, true),
        (206, true, true),
        (404, true, true),
        (503, true, true),
        (101, false, false),
        (103, false, false),
        (301, true, false),
        (302, true, false),
        (303, true, false),
        (307, true, false),
        (308, true, false),
    ];
    for (code, remaining, exhausted) in table {
        let inner = service_fn(move |_: Request<Body>| async move {
            let response = Response::builder().status(code).body(Body::empty());
            Ok::<_, Infallible>(response.expect("a response"))
        });
        let service = throttle(Rules::new().default_route(hourly(2))).layer(inner);
        for (left, expected) in [(1, remaining), (0, exhausted)] {
            let answer = send(&service, request("GET", "/")).await;
            assert_eq!(answer.status(), code);
            for name in ["ratelimit", "ratelimit-policy"] {
                assert_eq!(
                    values(&answer, name).len(),
                    usize::from(expected),
                    "{name} on {code} with {left} left"
                );
            }
        }
    }
    let tunnel = throttle(Rules::new().default_route(hourly(2))).layer(served());
    for expected in [200, 200, 429] {
        let answer = send(&tunnel, request("CONNECT", "example.com:443")).await;
        assert_eq!(answer.status(), expected, "limited all the same");
        if expected == 200 {
            assert!(values(&answer, "ratelimit").is_empty(), "a tunnel has none");
            assert!(values(&answer, "ratelimit-policy").is_empty());
        }
    }
}

/// A step of a body when it is polled.
#[derive(Debug, Clone, Copy)]
enum Step {
    Data(&'static [u8]),
    Pending,
    Trailers(&'static str, &'static str),
    Error(&'static str),
}

/// Plays its steps, and says of its size what it was told to say.
#[derive(Debug, Clone)]
struct Script {
    steps: VecDeque<Step>,
    upper: Option<u64>,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            upper: None,
        }
    }

    fn at_most(self, upper: u64) -> Self {
        Self {
            upper: Some(upper),
            ..self
        }
    }
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Pending) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data))))),
            Some(Step::Trailers(name, value)) => {
                let mut trailers = HeaderMap::new();
                trailers.insert(name, HeaderValue::from_static(value));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Some(Step::Error(error)) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.steps.iter().map(|step| match step {
            Step::Data(data) => data.len() as u64,
            _ => 0,
        });
        let mut hint = SizeHint::new();
        hint.set_lower(data.sum());
        if let Some(upper) = self.upper {
            hint.set_upper(upper);
        }
        hint
    }
}

/// All that can be seen of a body at one poll.
fn observe<B>(body: Pin<&mut B>) -> String
where
    B: http_body::Body<Data = Bytes>,
    B::Error: fmt::Debug,
{
    let hint = body.size_hint();
    let end = body.is_end_stream();
    let poll = body.poll_frame(&mut Context::from_waker(Waker::noop()));
    format!("{:?}..{:?} {end} {poll:?}", hint.lower(), hint.upper())
}

#[tokio::test(start_paused = true)]
async fn a_body_passes_frame_by_frame_with_its_size_and_its_end() {
    use Step::{Data, Error, Pending, Trailers};

    let table = [
        ("empty", Script::new([])),
        ("one frame", Script::new([Data(b"whole")]).at_most(5)),
        (
            "a stream",
            Script::new([Data(b"a"), Pending, Data(b"bc"), Data(b""), Pending]),
        ),
        (
            "trailers",
            Script::new([Data(b"a"), Trailers("x-sum", "1")]).at_most(9),
        ),
        (
            "frames after trailers, which nobody should send",
            Script::new([Trailers("x-sum", "1"), Data(b"late")]),
        ),
        ("an error", Script::new([Data(b"a"), Error("torn")])),
        (
            "frames after an error",
            Script::new([Error("torn"), Data(b"b"), Error("again")]),
        ),
    ];
    for (what, script) in table {
        let polls = script.steps.len() + 2;
        let body = script.clone();
        let inner = service_fn(move |_: Request<Body>| {
            let body = body.clone();
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let answer = send(&three().layer(inner), request("GET", "/")).await;
        let (mut direct, mut through) = (script, answer.into_body());
        for poll in 1..=polls {
            assert_eq!(
                observe(Pin::new(&mut through)),
                observe(Pin::new(&mut direct)),
                "{what}, poll {poll}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusals_body_tells_its_exact_length() {
    let service = throttle(Rules::new().total(hourly(0))).layer(served());
    let refused = send(&service, request("GET", "/")).await;
    let told = refused.body().size_hint().exact();
    assert!(!refused.body().is_end_stream());
    let body = bytes(refused).await;
    assert_eq!(
        told,
        Some(body.len() as u64),
        "so that hosts need not chunk it"
    );
    let refused = send(&service, request("HEAD", "/")).await;
    assert!(refused.body().is_end_stream(), "HEAD has none");
}

#[tokio::test(start_paused = true)]
async fn it_can_be_boxed_and_its_errors_turned() {
    let service = ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(three())
        .service(served());
    let service = tower::util::BoxCloneService::new(service);
    assert_eq!(admitted(&service, 9, "GET", "/").await, 3);
}
