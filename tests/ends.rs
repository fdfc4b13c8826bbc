//! R15 and R17: whatever ends a request, its slots come back exactly once, and its token account is settled once.
//!
//! Each cap is one slot, so that a lost slot refuses the next request, and each account is settled at the tokens used.

mod support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Extension, Router, body::Body, extract::Path, routing::get};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time,
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{
    Code,
    transport::{Channel, Server},
};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::MapResponseLayer};
use tower_http::timeout::{RequestBodyDeadlineLayer, RequestBodyTimeoutLayer, TimeoutLayer};
use tower_throttle::{
    Clients, InFlight, Limits, Rate, Rules, ThrottleLayer, Usage, decision::DecisionIn,
    usage::Estimate,
};

use support::{build, client, decision, serve, throttle, throttling};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Tokens that each request reserves, and that a frame of an answer uses.
const RESERVED: u64 = 10;
const FRAME: u64 = 3;

/// The ends of a request, each by its path, with the tokens that the request has used in the end.
const ENDS: [(&str, u64); 9] = [
    // Settled by the handler, and sent with its length.
    ("whole", 7),
    // Two frames counted and nobody settles: the estimate stands.
    ("chunked", RESERVED),
    ("trailers", RESERVED),
    ("empty", RESERVED),
    // Cut short: a part of a count is no total.
    ("error", RESERVED),
    ("endless", RESERVED),
    // Nothing was counted.
    ("no_frame", RESERVED),
    ("no_head", RESERVED),
    ("panic", RESERVED),
];

fn rules() -> Rules {
    let tokens = Rate::per_hour(1).burst(1_000_000);
    Rules::new()
        .total(Limits::new().in_flight(1).tokens(tokens))
        .default_route(Limits::new().in_flight(1))
        .clients(
            Clients::by_header("x-api-key").each(
                Limits::new()
                    .in_flight(1)
                    .in_flight(InFlight::new(1).shadow()),
            ),
        )
        .estimate(Estimate::fixed(RESERVED))
}

/// Tells when it is dropped: what it lies in is gone.
#[derive(Debug)]
struct Gone(UnboundedSender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        // At the end of a test nobody listens any more.
        let _ = self.0.send(());
    }
}

/// Plays back frames, and counts their tokens. Pending where there is `None`.
#[derive(Debug)]
struct Script {
    frames: VecDeque<Option<Result<Frame<Bytes>, BoxError>>>,
    usage: Option<Usage>,
    _gone: Option<Gone>,
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(frame) = self.frames.pop_front() else {
            return Poll::Ready(None);
        };
        let Some(frame) = frame else {
            self.frames.push_front(None);
            return Poll::Pending;
        };
        if let (Ok(frame), Some(usage)) = (&frame, &self.usage) {
            if frame.is_data() {
                assert!(usage.add(FRAME), "not settled while it lasts");
            }
        }
        Poll::Ready(Some(frame))
    }
}

fn frames(end: &str) -> VecDeque<Option<Result<Frame<Bytes>, BoxError>>> {
    let data = || Some(Ok(Frame::data(Bytes::from_static(b"data"))));
    match end {
        "chunked" => [data(), data()].into(),
        "trailers" => [data(), Some(Ok(Frame::trailers(HeaderMap::new())))].into(),
        "empty" => VecDeque::new(),
        "error" => [data(), Some(Err("broken".into()))].into(),
        "endless" => [data(), None].into(),
        "no_frame" => [None].into(),
        other => unreachable!("{other} has no frames"),
    }
}

/// The inner service: answers as the end asks, and tells when it begins and when it is gone.
async fn answer(end: &str, usage: Option<Usage>, events: UnboundedSender<()>) -> Response<Body> {
    let gone = Gone(events.clone());
    match end {
        "whole" => {
            assert!(usage.expect("tokens are limited").settle(7));
            Response::new(Body::from("whole"))
        }
        "no_head" => {
            let _ = events.send(());
            let _gone = gone;
            pending().await
        }
        "panic" => {
            let _gone = gone;
            std::panic::panic_any("on purpose")
        }
        end => Response::new(Body::new(Script {
            frames: frames(end),
            usage,
            _gone: Some(gone),
        })),
    }
}

/// Asserts after each end that all slots are free, and returns the number of tokens that have been spent.
async fn spent(throttle: &ThrottleLayer, after: &str) -> u64 {
    let probe = throttle.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    let request = Request::get("/probe").header("x-api-key", "k");
    let request = request.body(Body::empty()).expect("a request");
    let response = probe
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {});
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "after {after}: a slot is lost"
    );
    let decision = decision(&response);
    let caps = decision
        .limits()
        .filter(|limit| limit.in_flight().is_some());
    assert_eq!(caps.count(), 3, "total, route and client");
    assert_eq!(
        decision
            .shadow()
            .map(|shadow| shadow.is_refused())
            .collect::<Vec<_>>(),
        [false],
        "after {after}: the shadow's slot is lost"
    );
    let mut tokens = decision.limits().filter(|limit| limit.tokens().is_some());
    // The probe has reserved some, and nobody settles them.
    1_000_000 - tokens.next().expect("one").remaining() - RESERVED
}

/// Asks on the wire, and treats the answer as a client does that ends it in this way.
async fn ask(address: SocketAddr, http2: bool, end: &str, events: &mut UnboundedReceiver<()>) {
    let client = client(http2);
    let request = Request::get(format!("http://{address}/{end}")).header("x-api-key", "k");
    let mut answer = client.request(request.body(Body::empty()).expect("a request"));
    match end {
        "no_head" => {
            tokio::select! {
                _ = &mut answer => unreachable!("no head is ever sent"),
                began = events.recv() => began.expect("it has begun"),
            }
            drop(answer);
        }
        "panic" => assert!(answer.await.is_err(), "the connection is gone"),
        "no_frame" => drop(answer.await.expect("a head")),
        "endless" => {
            let mut body = answer.await.expect("a head").into_body();
            body.frame().await.expect("a frame").expect("data");
        }
        "error" => {
            // The answer may come before the head was sent.
            if let Ok(answer) = answer.await {
                assert!(answer.into_body().collect().await.is_err(), "broken");
            }
        }
        _ => {
            let body = answer.await.expect("a head").into_body().collect().await;
            body.expect("a whole body");
        }
    }
    events.recv().await.expect("it is gone");
}

/// All ends over real connections, again and again.
async fn all_ends_over(
    make: impl AsyncFn(ThrottleLayer, UnboundedSender<()>) -> SocketAddr,
    rounds: u64,
) {
    let throttle = throttle(rules());
    let (sender, mut events) = unbounded_channel();
    let address = make(throttle.clone(), sender).await;
    let mut expected = 0;
    let mut runs = 0;
    for _ in 0..rounds {
        for http2 in [false, true] {
            for (end, used) in ENDS {
                ask(address, http2, end, &mut events).await;
                // The server drops what it has left of the connection.
                tokio::task::yield_now().await;
                expected += used;
                assert_eq!(
                    spent(&throttle, end).await,
                    expected,
                    "after {end}, HTTP/2: {http2}"
                );
                expected += RESERVED;
                runs += 1;
            }
        }
    }
    assert!(runs >= 500);
}

#[tokio::test]
async fn in_axum_every_end_frees_all_slots_and_settles_the_account() {
    let make = async |throttle: ThrottleLayer, events: UnboundedSender<()>| {
        let handler =
            async |Path(end): Path<String>,
                   usage: Option<Extension<Usage>>,
                   Extension(events): Extension<UnboundedSender<()>>| {
                answer(&end, usage.map(|Extension(usage)| usage), events).await
            };
        let app = Router::new()
            .route("/{end}", get(handler))
            .layer(Extension(events))
            .layer(throttle);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    };
    all_ends_over(make, 30).await;
}

#[tokio::test]
async fn in_hyper_every_end_frees_all_slots_and_settles_the_account() {
    let make = async |throttle: ThrottleLayer, events: UnboundedSender<()>| {
        serve(
            throttle.layer(service_fn(move |request: Request<Incoming>| {
                let events = events.clone();
                async move {
                    let usage = request.extensions().get().cloned();
                    let end = request.uri().path().trim_start_matches('/').to_owned();
                    Ok::<_, Infallible>(answer(&end, usage, events).await)
                }
            })),
        )
        .await
    };
    all_ends_over(make, 30).await;
}

/// A body that tells when it is gone.
struct Watched<B> {
    body: B,
    _gone: Gone,
}

impl<B: http_body::Body + Unpin> http_body::Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[tokio::test]
async fn in_tonic_unary_and_streaming_calls_free_their_slots_at_their_ends() {
    let throttle = throttle(rules());
    let (sender, mut events) = unbounded_channel();
    let watch = MapResponseLayer::new(move |response: Response<tonic::body::Body>| {
        let gone = Gone(sender.clone());
        response.map(|body| tonic::body::Body::new(Watched { body, _gone: gone }))
    });
    let (_reporter, health) = health_reporter();
    let layers = ServiceBuilder::new().layer(throttle.clone()).layer(watch);
    let router = Server::builder().layer(layers).add_service(health);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));

    let channel = Channel::from_shared(format!("http://{address}")).expect("a uri");
    let channel = channel.connect().await.expect("a connection");
    let mut client = HealthClient::new(channel);
    let ask = |service: &str| {
        let mut request = tonic::Request::new(HealthCheckRequest {
            service: service.to_owned(),
        });
        let key = "k".parse().expect("a value");
        request.metadata_mut().insert("x-api-key", key);
        request
    };
    let mut calls = 0;
    for _ in 0..100 {
        for end in [
            "unary",
            "an error in the trailers",
            "cancelled",
            "cancelled in midstream",
        ] {
            match end {
                "unary" => drop(client.check(ask("")).await.expect("in service")),
                "an error in the trailers" => {
                    let status = client.check(ask("no such")).await.expect_err("not there");
                    assert_eq!(status.code(), Code::NotFound);
                }
                "cancelled" => drop(client.watch(ask("")).await.expect("a stream")),
                _ => {
                    let mut stream = client.watch(ask("")).await.expect("a stream").into_inner();
                    stream
                        .message()
                        .await
                        .expect("no error")
                        .expect("a message");
                    let busy = client
                        .check(ask(""))
                        .await
                        .expect_err("the only slot is held");
                    assert_eq!(busy.code(), Code::ResourceExhausted, "the client's own cap");
                }
            }
            events.recv().await.expect("it is gone");
            tokio::task::yield_now().await;
            calls += 1;
            let expected = calls * RESERVED;
            assert_eq!(spent(&throttle, end).await, expected, "after {end}");
            calls += 1;
        }
    }
}

/// An inner service that is never called over the wire: it fails, or panics before there is a future.
async fn fail(end: &str) -> Result<Response<Body>, BoxError> {
    match end {
        "error" => Err("broken".into()),
        "late error" => {
            time::sleep(Duration::from_secs(1)).await;
            Err("broken".into())
        }
        "panic" => std::panic::panic_any("on purpose"),
        "served" => Ok(Response::new(Body::from("served"))),
        other => unreachable!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn errors_panics_and_timeouts_free_all_slots() {
    let throttle = throttle(rules());
    let request = |end: &str| {
        let request = Request::get(format!("/{end}")).header("x-api-key", "k");
        request.body(Body::empty()).expect("a request")
    };
    let inner = || {
        service_fn(|request: Request<Body>| {
            let end = request.uri().path()[1..].replace("%20", " ");
            assert_ne!(end, "panic in call", "on purpose");
            async move {
                if end == "never" {
                    return pending().await;
                }
                fail(&end).await
            }
        })
    };
    let second = Duration::from_secs(1);
    let status = StatusCode::REQUEST_TIMEOUT;
    for round in 0..250 {
        let plain = throttle.layer(inner());
        for end in ["error", "late%20error"] {
            assert!(plain.clone().oneshot(request(end)).await.is_err(), "{end}");
            spent(&throttle, end).await;
        }
        // The task that it runs in survives it, as a server's would.
        for end in ["panic", "panic%20in%20call"] {
            let panicked = tokio::spawn(plain.clone().oneshot(request(end))).await;
            assert!(panicked.is_err_and(|error| error.is_panic()), "{end}");
            spent(&throttle, end).await;
        }
        let mut ready = plain.clone();
        ready.ready().await.expect("ready");
        drop(ready.call(request("served")));
        spent(&throttle, "never polled").await;
        {
            let mut call = pin!(plain.clone().oneshot(request("never")));
            assert!(futures_poll(call.as_mut()).await.is_pending());
        }
        spent(&throttle, "dropped before the head").await;
        drop(plain.clone().oneshot(request("served")).await);
        spent(&throttle, "a response that nobody reads").await;

        let outside = ServiceBuilder::new()
            .layer(TimeoutLayer::with_status_code(status, second))
            .layer(throttle.clone())
            .service(inner());
        let inside = ServiceBuilder::new()
            .layer(throttle.clone())
            .layer(TimeoutLayer::with_status_code(status, second))
            .service(inner());
        let answer = outside.oneshot(request("never")).await.expect("an answer");
        assert_eq!(answer.status(), status);
        spent(&throttle, "a timeout outside").await;
        let answer = inside.oneshot(request("never")).await.expect("an answer");
        assert_eq!(answer.status(), status);
        drop(answer);
        let spent = spent(&throttle, "a timeout inside").await;
        // Nine requests and nine probes a round, of which none was settled; this probe is not counted yet.
        assert_eq!(spent, round * 18 * RESERVED + 17 * RESERVED);
    }
}

/// For how many tenths of a second a request holds its slot that sends its head, and then a byte each so many tenths of
/// a second, or none. `None`: a minute later, still.
async fn held_by_a_head<S>(
    throttle: &ThrottleLayer,
    service: S,
    byte_every: Option<u64>,
) -> Option<u64>
where
    S: Service<Request<Body>, Error = Infallible, Future: Send> + Send + 'static,
    S::Response: Send,
{
    let in_flight = || {
        let snapshot = throttle.handle().snapshot();
        snapshot.limits.iter().find_map(|limit| limit.in_flight)
    };
    let (sends, body) = unbounded_channel::<Result<Bytes, BoxError>>();
    let body = Body::from_stream(UnboundedReceiverStream::new(body));
    let request = Request::post("/").body(body).expect("a request");
    let answer = tokio::spawn(async { service.oneshot(request).await.map(drop) });
    for tenths in 0..600 {
        time::sleep(Duration::from_millis(50)).await;
        if answer.is_finished() {
            assert_eq!(in_flight(), Some(0), "it comes back at once");
            return Some(tenths);
        }
        assert_eq!(in_flight(), Some(1), "after {tenths} tenths of a second");
        time::sleep(Duration::from_millis(50)).await;
        if byte_every.is_some_and(|every| (tenths + 1) % every == 0) {
            // The request may have been refused meanwhile.
            let _ = sends.send(Ok(Bytes::from_static(b".")));
        }
    }
    answer.abort();
    let _ = answer.await;
    assert_eq!(in_flight(), Some(0), "its connection has ended");
    None
}

/// Reads the body before it answers, as whatever parses JSON does.
async fn read<B: http_body::Body>(request: Request<B>) -> Result<Response<Body>, Infallible> {
    let mut answer = Response::new(Body::empty());
    if request.into_body().collect().await.is_err() {
        *answer.status_mut() = StatusCode::REQUEST_TIMEOUT;
    }
    Ok(answer)
}

#[tokio::test(start_paused = true)]
async fn a_head_without_its_body_holds_a_slot_until_the_body_times_out() {
    let second = Duration::from_secs(1);
    let rules = Rules::new().total(Limits::new().in_flight(1));
    let throttle = throttle(rules);
    // The pace of the body; and the time for which a slot is held without a timeout, with one between two frames, and
    // with one for the whole body.
    for (byte_every, expected) in [
        (None, [None, Some(10), Some(10)]),
        (Some(7), [None, None, Some(10)]),
        (Some(13), [None, Some(10), Some(10)]),
    ] {
        let [never, idle, whole] = expected;
        let plain = throttle.layer(service_fn(read));
        assert_eq!(held_by_a_head(&throttle, plain, byte_every).await, never);

        let idle_timeout = RequestBodyTimeoutLayer::new(second);
        let inside = throttle.layer(idle_timeout.layer(service_fn(read)));
        assert_eq!(held_by_a_head(&throttle, inside, byte_every).await, idle);
        let outside = idle_timeout.layer(throttle.layer(service_fn(read)));
        assert_eq!(held_by_a_head(&throttle, outside, byte_every).await, idle);

        let deadline = RequestBodyDeadlineLayer::new(second);
        let inside = throttle.layer(deadline.layer(service_fn(read)));
        assert_eq!(held_by_a_head(&throttle, inside, byte_every).await, whole);
        let outside = deadline.layer(throttle.layer(service_fn(read)));
        assert_eq!(held_by_a_head(&throttle, outside, byte_every).await, whole);
    }
}

/// The time for which a slot is held does not depend on what is told.
#[tokio::test(start_paused = true)]
async fn a_slot_is_held_to_the_end_of_the_body_whether_anything_is_told_or_not() {
    let rate = Rate::per_hour(1_000_000);
    let table = [
        Limits::new().in_flight(1),
        Limits::new().rate(rate).in_flight(1),
        // Nobody is told of them.
        Limits::new().in_flight(1).publish(false),
        // And an account, which lasts as long.
        Limits::new().in_flight(1).tokens(Rate::per_hour(1_000_000)),
    ];
    for limits in table {
        let places = [
            DecisionIn::Nowhere,
            DecisionIn::Request,
            DecisionIn::Response,
            DecisionIn::Both,
        ];
        let rules = |scope: &str| {
            let (rules, limits) = (Rules::new(), || limits.clone());
            let clients = || Clients::by_header("x-api-key").each(limits());
            match scope {
                "route" => rules.default_route(limits()),
                "total and route" => rules.total(limits()).default_route(limits()),
                "client" => rules.clients(clients()),
                "route and client" => rules.default_route(limits()).clients(clients()),
                other => unreachable!("{other}"),
            }
        };
        let scopes = [
            ("route", StatusCode::SERVICE_UNAVAILABLE),
            ("total and route", StatusCode::SERVICE_UNAVAILABLE),
            ("client", StatusCode::TOO_MANY_REQUESTS),
            ("route and client", StatusCode::TOO_MANY_REQUESTS),
        ];
        let all = places.map(|place| [(false, place), (true, place)]);
        let all = all.as_flattened().iter();
        let all = all.flat_map(|place| scopes.map(|scope| (*place, scope)));
        for ((fields, decision), (scope, refusal)) in all {
            let builder = throttling(rules(scope)).rate_limit_headers(fields);
            let throttle = build(builder.decision(decision));
            let service = throttle.layer(service_fn(|_: Request<Body>| async {
                Ok::<_, Infallible>(Response::new(Body::from("whole")))
            }));
            let send = || {
                let request = Request::get("/").header("x-api-key", "one");
                let request = request.body(Body::empty()).expect("a request");
                service.clone().oneshot(request)
            };
            let told = format!("{scope}: {limits:?}, fields: {fields}, decision: {decision:?}");
            for _ in 0..3 {
                let held = send().await.expect("an answer");
                assert_eq!(held.status(), StatusCode::OK, "{told}");
                let refused = send().await.expect("an answer").status();
                assert_eq!(refused, refusal, "{told}");
                let body = held.into_body().collect().await.expect("a body");
                assert_eq!(body.to_bytes(), "whole", "{told}");
            }
        }
    }
}

/// One look at a future.
async fn futures_poll<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// A request of many readings is charged on more caps than a scope may have.
#[tokio::test(start_paused = true)]
async fn all_slots_of_a_request_that_may_mean_many_routes_come_back() {
    const RUNS: [usize; 3] = [1, 3, 4];
    let limits = || {
        let cap = |slots| InFlight::new(slots).shadow();
        let caps = [cap(1), cap(2), cap(3), cap(4)];
        let limits = Limits::new().in_flight(2);
        caps.into_iter().fold(limits, Limits::in_flight)
    };
    let keys = RUNS.into_iter().flat_map(|first| {
        RUNS.map(|second| {
            let params = |name: &str, run: usize| -> String {
                (1..run)
                    .map(|index| format!("/{{{name}{index}}}"))
                    .collect()
            };
            format!("GET /a{}/b{}/c", params("p", first), params("q", second))
        })
    });
    let rules = keys.fold(Rules::new(), |rules, key| rules.route(key, limits()));
    let layer = throttle(rules);
    let service = layer.layer(support::served::<Body>());
    let ask = || support::send(&service, support::request("GET", "/a////b////c"));
    for _ in 0..3 {
        let held = [ask().await, ask().await, ask().await];
        let statuses = held.each_ref().map(|answer| answer.status().as_u16());
        assert_eq!(statuses, [200, 200, 503]);
        drop(held);
        let limits = layer.handle().snapshot().limits;
        assert_eq!(limits.len(), 45);
        for limit in limits {
            assert_eq!(limit.in_flight, Some(0), "{}", limit.name);
        }
    }
}

/// A handler that keeps the account of its request holds no slot.
#[tokio::test(start_paused = true)]
async fn a_slot_comes_back_while_somebody_still_has_the_account() {
    let keep = service_fn(async |request: Request<Body>| {
        let usage = request.extensions().get::<Usage>().cloned();
        let mut response = Response::new(Body::from("counted"));
        response
            .extensions_mut()
            .insert(usage.expect("tokens are limited"));
        Ok::<_, Infallible>(response)
    });
    let limits = Limits::new()
        .in_flight(1)
        .tokens(Rate::per_hour(1).burst(100));
    let rules = Rules::new().total(limits).estimate(Estimate::fixed(10));
    let service = throttle(rules).layer(keep);
    let ask = || support::send(&service, support::request("GET", "/"));
    let mut kept = Vec::new();
    for is_dropped in [true, false, true] {
        let mut response = ask().await;
        assert_eq!(response.status(), StatusCode::OK);
        kept.extend(response.extensions_mut().remove::<Usage>());
        assert_eq!(ask().await.status(), StatusCode::SERVICE_UNAVAILABLE);
        if !is_dropped {
            support::bytes(response).await;
        }
    }
    assert_eq!(kept.len(), 3);
    assert!(kept.iter().all(|usage| !usage.settle(1)), "all are closed");
}

/// A client's hash is longer where replicas share limits, and a slot finds it then, too.
#[tokio::test(start_paused = true)]
async fn a_slot_of_a_client_comes_back_to_it_whatever_its_hash() {
    let clients = || Clients::by_header("x-api-key").each(Limits::new().in_flight(1));
    for clients in [clients(), clients().secret([7; 32])] {
        let service = throttle(Rules::new().clients(clients)).layer(support::served::<Body>());
        let ask = async |key| {
            let request = Request::get("/").header("x-api-key", key);
            let request = request.body(Body::empty()).expect("a request");
            support::send(&service, request).await
        };
        for _ in 0..3 {
            let held = [ask("a").await, ask("b").await];
            assert!(
                held.iter()
                    .all(|response| response.status() == StatusCode::OK)
            );
            assert_eq!(ask("a").await.status(), StatusCode::TOO_MANY_REQUESTS);
            let [of_a, of_b] = held;
            drop(of_a);
            assert_eq!(ask("a").await.status(), StatusCode::OK, "its own is free");
            assert_eq!(ask("b").await.status(), StatusCode::TOO_MANY_REQUESTS);
            drop(of_b);
        }
    }
}
