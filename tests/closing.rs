//! A throttle that is closed for a server that shuts down, and requests that are in flight until then.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock that it has paused"
)]

mod support;

use std::{
    convert::Infallible,
    future::{Future, Ready, pending, poll_fn, ready},
    io::{Read, Write},
    net::TcpStream,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, Version, request::Parts};
use http_body_util::BodyExt;
use tokio::{runtime::Builder, time::Instant};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Denial, Handle, Limits, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder,
    client::RequestHead,
    response::{Dialect, Protocol},
    usage::Estimate,
};

use support::{build, bytes, client, hourly, request, send, serve, served, throttling};

fn polled<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn tracking(rules: Rules) -> ThrottleLayerBuilder {
    ThrottleLayer::builder(rules).track_in_flight(true)
}

/// Returns what was counted of a route as refused.
fn refused(handle: &Handle, route: &str) -> u64 {
    let snapshot = handle.snapshot();
    let mut routes = snapshot.routes.iter();
    routes.find(|it| it.route == route).expect(route).refused
}

#[tokio::test(start_paused = true)]
async fn a_closed_throttle_refuses_and_charges_nothing() {
    for tracks in [false, true] {
        let rules = || {
            Rules::new()
                .route("GET /", hourly(3))
                .route("GET /health", Limits::exempt())
        };
        let throttle = build(throttling(rules()).track_in_flight(tracks));
        let (handle, service) = (throttle.handle(), throttle.layer(served()));
        assert_eq!(send(&service, request("GET", "/")).await.status(), 200);
        assert!(!handle.is_closed());

        handle.close();
        handle.close();
        assert!(handle.is_closed());
        let answer = send(&service, request("GET", "/")).await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(answer.headers()["connection"], "close");
        assert!(!answer.headers().contains_key("ratelimit"));
        let body = String::from_utf8(bytes(answer).await.to_vec()).expect("text");
        let words = "The server is shutting down. Please try again in 1s.";
        assert!(body.contains(words), "{body}");

        let mut over_http2 = request("GET", "/");
        *over_http2.version_mut() = Version::HTTP_2;
        let answer = send(&service, over_http2).await;
        assert_eq!(answer.status(), 503);
        assert!(!answer.headers().contains_key("connection"));

        // No limit was asked, and the route has counted both.
        assert_eq!(refused(&handle, "GET /"), 2);
        let snapshot = handle.snapshot();
        let limit = &snapshot.limits[0];
        assert_eq!((limit.remaining, limit.refused), (Some(2), 0));
        // It is told before, too.
        let decision = handle.preview(&request("GET", "/"));
        assert!(!decision.is_admitted());
        assert_eq!(decision.limits().count(), 0);
        assert_eq!(decision.retry_after(), Some(Duration::from_secs(1)));

        // Whoever asks if the server is alive is answered.
        assert_eq!(
            send(&service, request("GET", "/health")).await.status(),
            200
        );
        assert!(handle.preview(&request("GET", "/health")).is_admitted());
        // Undeclared routes are closed, and other rules open none.
        assert_eq!(send(&service, request("GET", "/other")).await.status(), 503);
        handle.reload(rules().total(hourly(9))).expect("rules");
        assert_eq!(send(&service, request("GET", "/")).await.status(), 503);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_every_kind_say_that_the_server_shuts_down() {
    let closed = |builder: ThrottleLayerBuilder| {
        let throttle = build(builder);
        throttle.handle().close();
        throttle.layer(served())
    };
    let rules = || Rules::new().default_route(hourly(1));

    let service = closed(throttling(rules()).protocol(Protocol::Grpc));
    let answer = send(&service, request("POST", "/a.B/C")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.headers()["grpc-message"], "server is shutting down");
    assert_eq!(answer.headers()["connection"], "close");
    // Another server may answer before this wait is over.
    let builder = throttling(rules()).grpc_retry_pushback(true);
    let service = closed(builder.protocol(Protocol::Grpc));
    let answer = send(&service, request("POST", "/a.B/C")).await;
    assert!(!answer.headers().contains_key("grpc-retry-pushback-ms"));

    let own = |denial: &Denial, _: &Parts| {
        assert!(denial.is_shutting_down() && !denial.is_unavailable());
        assert!(!denial.is_saturated() && denial.violated().next().is_none());
        let mut answer = Response::new(Bytes::from_static(b"own"));
        *answer.status_mut() = http::StatusCode::BAD_GATEWAY;
        answer
    };
    let service = closed(throttling(rules()).rejection(own));
    let answer = send(&service, request("GET", "/")).await;
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers()["connection"], "close");
    assert_eq!(bytes(answer).await, "own");

    let service = closed(throttling(rules()));
    let answer = send(&service, request("HEAD", "/")).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(bytes(answer).await, "");

    let sentence = "The server is shutting down. Please try again in 1s.";
    for (dialect, words) in [
        (Dialect::Problem, r#""code":"server_is_shutting_down""#),
        (Dialect::OpenAi, r#""code":"server_is_shutting_down""#),
        (Dialect::Anthropic, r#""type":"api_error""#),
        (Dialect::ApiGateway, r#"{"message":"Service Unavailable"}"#),
        (
            Dialect::AzureApiManagement,
            r#"{ "statusCode": 503, "message": "Service is shutting down. Try again in 1 seconds." }"#,
        ),
        (Dialect::KServe, sentence),
        (Dialect::JsonRpc, r#""code":-32014"#),
    ] {
        let service = closed(throttling(rules()).rejection(dialect));
        let answer = send(&service, request("POST", "/")).await;
        assert_eq!(answer.status(), 503, "{dialect:?}");
        assert_eq!(answer.headers()["connection"], "close", "{dialect:?}");
        let body = String::from_utf8(bytes(answer).await.to_vec()).expect("text");
        assert!(body.contains(words), "{dialect:?}: {body}");
        let has_no_sentence = [Dialect::ApiGateway, Dialect::AzureApiManagement];
        assert_eq!(
            body.contains(sentence),
            !has_no_sentence.contains(&dialect),
            "{dialect:?}: {body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn those_in_line_are_refused_at_once() {
    let rate = Limits::new()
        .rate(Rate::per_hour(1))
        .max_wait(Duration::from_secs(86_400));
    let slots = Limits::new()
        .in_flight(1)
        .max_wait(Duration::from_secs(86_400));
    for (limits, tracks) in [rate, slots].into_iter().zip([true, false]) {
        let rules = Rules::new().route("GET /", limits);
        let throttle = build(throttling(rules).track_in_flight(tracks));
        let (handle, service) = (throttle.handle(), throttle.layer(served()));
        let first = send(&service, request("GET", "/")).await;
        let line: Vec<_> = (0..5)
            .map(|_| {
                let waits = service.clone().oneshot(request("GET", "/"));
                tokio::spawn(waits)
            })
            .collect();
        tokio::task::yield_now().await;
        let waiting = handle
            .snapshot()
            .limits
            .iter()
            .map(|it| it.waiting)
            .sum::<u64>();
        assert_eq!(waiting, 5);
        assert_eq!(handle.in_flight(), tracks.then_some(6));

        let start = Instant::now();
        handle.close();
        for waits in line {
            let answer = waits
                .await
                .expect("no panic")
                .unwrap_or_else(|e| match e {});
            assert_eq!(answer.status(), 503);
            assert_eq!(answer.headers()["connection"], "close");
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(refused(&handle, "GET /"), 5);
        // The one that was admitted goes on.
        assert_eq!(handle.in_flight(), tracks.then_some(1));
        assert_eq!(bytes(first).await, "served");
        assert_eq!(handle.in_flight(), tracks.then_some(0));
    }
}

/// Whatever a request holds beside, it is counted from its arrival to its end, and once.
#[tokio::test(start_paused = true)]
async fn a_request_is_in_flight_until_its_answer_has_ended() {
    let table = [
        ("no limit", Rules::new(), true),
        (
            "exempt",
            Rules::new().route("GET /", Limits::exempt()),
            true,
        ),
        ("plain", Rules::new().route("GET /", hourly(99)), false),
        ("told", Rules::new().route("GET /", hourly(99)), true),
        (
            "a slot",
            Rules::new().route("GET /", Limits::new().in_flight(1)),
            false,
        ),
        (
            "tokens",
            Rules::new()
                .route("GET /", Limits::new().tokens(Rate::per_hour(1).burst(99)))
                .estimate(Estimate::fixed(1)),
            false,
        ),
    ];
    for (what, rules, told) in table {
        let throttle = tracking(rules)
            .rate_limit_headers(told)
            .build()
            .expect(what);
        let handle = throttle.handle();
        let is = |count| assert_eq!(handle.in_flight(), Some(count), "{what}");

        // To the end of the body, and not only of the future.
        let service = throttle.layer(served());
        let answer = send(&service, request("GET", "/")).await;
        is(1);
        assert!(polled(handle.drained()).is_pending(), "{what}");
        assert_eq!(bytes(answer).await, "served");
        is(0);
        assert!(polled(handle.drained()).is_ready(), "{what}");
        // A body that is dropped, and a future that is never polled.
        drop(send(&service, request("GET", "/")).await);
        is(0);
        let mut called = service.clone();
        assert!(polled(called.ready()).is_ready());
        let future = called.call(request("GET", "/"));
        is(1);
        drop(future);
        is(0);
        // In axum's body, which has the inner one in a box.
        #[cfg(feature = "axum")]
        {
            let service = throttle.clone().for_axum().layer(served());
            let answer = send(&service, request("GET", "/")).await;
            is(1);
            assert_eq!(bytes(answer).await, "served");
            is(0);
        }

        // An inner future that is dropped, that fails, and that panics; a call that panics.
        let never = throttle.layer(service_fn(|_: Request<Body>| {
            pending::<Result<Response<Body>, Infallible>>()
        }));
        {
            let mut future = pin!(never.oneshot(request("GET", "/")));
            assert!(polled(future.as_mut()).is_pending());
            is(1);
        }
        is(0);
        let fails = throttle.layer(service_fn(|_: Request<Body>| {
            ready(Err::<Response<Body>, _>("broken"))
        }));
        assert!(fails.oneshot(request("GET", "/")).await.is_err());
        is(0);
        let panics = throttle.layer(service_fn(|_: Request<Body>| {
            poll_fn(|_| -> Poll<Result<Response<Body>, Infallible>> { panic!("in its future") })
        }));
        let poll = || {
            let _ = polled(panics.clone().oneshot(request("GET", "/")));
        };
        assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
        is(0);
        let panics = throttle.layer(service_fn(
            |_: Request<Body>| -> Ready<Result<Response<Body>, Infallible>> {
                panic!("in its call")
            },
        ));
        let poll = || {
            let _ = polled(panics.clone().oneshot(request("GET", "/")));
        };
        assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
        is(0);
        // A body that fails.
        let broken = throttle.layer(service_fn(|_: Request<Body>| {
            let frames = tokio_stream::once(Err::<Bytes, _>("broken"));
            ready(Ok::<_, Infallible>(Response::new(Body::from_stream(
                frames,
            ))))
        }));
        let answer = send(&broken, request("GET", "/")).await;
        is(1);
        let mut body = answer.into_body();
        assert!(body.frame().await.expect("a frame").is_err());
        is(0);
    }
}

/// Code of the user that panics while the request is decided on leaves nobody inside, and neither does a request that
/// goes out of the line.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_admitted_leaves_too() {
    let day = Duration::from_secs(86_400);
    let limits = Limits::new().rate(Rate::per_hour(1)).max_wait(day);
    let clients = Clients::by(|head: RequestHead<'_>| {
        assert!(head.uri().path() != "/panic", "told to");
        None
    });
    let clients = clients.each(Rate::per_second(1_000));
    let rules = Rules::new().route("GET /", limits).clients(clients);
    let throttle = tracking(rules).build().expect("rules");
    let (handle, service) = (throttle.handle(), throttle.layer(served()));
    let poll = || {
        let _ = polled(service.clone().oneshot(request("GET", "/panic")));
    };
    assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
    assert_eq!(handle.in_flight(), Some(0));

    assert_eq!(
        bytes(send(&service, request("GET", "/")).await).await,
        "served"
    );
    {
        let mut waits = pin!(service.clone().oneshot(request("GET", "/")));
        assert!(polled(waits.as_mut()).is_pending());
        // Other rules find it where it stands.
        let rules = Rules::new().route(
            "GET /",
            Limits::new().rate(Rate::per_hour(2).burst(1)).max_wait(day),
        );
        handle.reload(rules).expect("rules");
        assert!(polled(waits.as_mut()).is_pending());
        assert_eq!(handle.in_flight(), Some(1));
    }
    assert_eq!(handle.in_flight(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_count_is_told_so() {
    let handle = build(throttling(Rules::new())).handle();
    assert_eq!(handle.in_flight(), None);
    let drained = tokio::spawn(async move { handle.drained().await });
    let panic = drained.await.expect_err("a panic").into_panic();
    let words = panic.downcast_ref::<String>().expect("words");
    assert!(words.contains("track_in_flight"), "{words}");
}

/// Requests that were let in before the throttle was closed are waited for, and none is let in after that.
#[test]
fn nobody_is_inside_once_it_is_drained() {
    for round in 0..40 {
        let rules = Rules::new().route("GET /", Rate::per_second(1_000_000).burst(1_000_000));
        let throttle = tracking(rules).build().expect("rules");
        let handle = throttle.handle();
        let inside = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let started = Barrier::new(3);
        let serve = {
            let (inside, is_over) = (Arc::clone(&inside), Arc::clone(&is_over));
            move |_: Request<Body>| {
                inside.fetch_add(1, Ordering::SeqCst);
                assert!(!is_over.load(Ordering::SeqCst), "let in after the end");
                let inside = Arc::clone(&inside);
                async move {
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(Response::new(Body::empty()))
                }
            }
        };
        let service = throttle.layer(service_fn(serve));
        thread::scope(|scope| {
            for _ in 0..2 {
                let (service, started) = (service.clone(), &started);
                scope.spawn(move || {
                    let runtime = Builder::new_current_thread().build().expect("a runtime");
                    let ask = async {
                        for count in 0.. {
                            let answer = send(&service, request("GET", "/")).await;
                            if answer.status() == 503 {
                                return count;
                            }
                            assert_eq!(answer.status(), 200);
                            if count == 0 {
                                started.wait();
                            }
                        }
                        unreachable!("it is closed at last")
                    };
                    runtime.block_on(ask)
                });
            }
            let runtime = Builder::new_current_thread().build().expect("a runtime");
            started.wait();
            for _ in 0..round {
                thread::yield_now();
            }
            handle.close();
            runtime.block_on(handle.drained());
            assert_eq!(inside.load(Ordering::SeqCst), 0, "round {round}");
            is_over.store(true, Ordering::SeqCst);
        });
    }
}

#[tokio::test]
async fn a_server_ends_the_connection_of_a_refused_request() {
    let rules = Rules::new().default_route(hourly(9));
    let throttle = build(throttling(rules));
    let address = serve(throttle.layer(served())).await;
    let ask = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        let ask = |stream: &mut TcpStream| {
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .expect("sent");
        };
        // A server that keeps the connection is found out, and not waited for.
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).expect("more than zero");
        ask(&mut stream);
        let mut first = Vec::new();
        while !first.ends_with(b"served") {
            let mut buffer = [0; 4_096];
            let read = stream.read(&mut buffer).expect("an answer");
            assert!(read > 0, "the connection has ended");
            first.extend_from_slice(&buffer[..read]);
        }
        assert!(first.starts_with(b"HTTP/1.1 200"));
        throttle.handle().close();
        ask(&mut stream);
        let mut rest = String::new();
        // To the end of the connection, which the server closes.
        stream
            .read_to_string(&mut rest)
            .expect("an answer, and the end");
        assert!(rest.starts_with("HTTP/1.1 503"), "{rest}");
        assert!(rest.contains("connection: close"), "{rest}");
    });
    ask.await.expect("no panic");

    let uri = format!("http://{address}/").parse().expect("a URI");
    let answer = client(true).get(uri).await.expect("an answer");
    assert_eq!(answer.status(), 503);
    let body = answer.into_body().collect().await.expect("a body");
    assert!(!body.to_bytes().is_empty());
}
