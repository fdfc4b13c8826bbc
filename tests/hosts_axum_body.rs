//! The layer for axum: responses with axum's own body, and otherwise the behaviour of the general layer.

mod support;

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_throttle::{
    InFlight, Limits, Rules, ThrottleLayer, Usage,
    axum::{AxumThrottleLayer, MissingHold},
    body::Hold,
    usage::Estimate,
};

use support::{
    admitted, build, bytes, client, decision, hourly, request, send, served, streams::Model,
    throttle, throttling, values,
};

/// A way to put a throttle around an application.
type Apply = fn(AxumThrottleLayer) -> Router;

/// A cap on requests in flight, for the total.
fn capped(slots: u64) -> Rules {
    Rules::new().total(Limits::new().in_flight(InFlight::new(slots)))
}

async fn ok() -> &'static str {
    "served"
}

/// The slots that are held.
fn in_flight(layer: &ThrottleLayer) -> u64 {
    let snapshot = layer.handle().snapshot();
    let held = snapshot.limits.iter().find_map(|limit| limit.in_flight);
    held.expect("a cap")
}

/// A body that says what it is when it fails, and knows its end and its size.
struct Told {
    frames: Vec<Frame<Bytes>>,
    fails: bool,
}

/// The error of a body.
#[derive(Debug, PartialEq)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl Error for Broken {}

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Poll::Ready(match self.frames.pop() {
            Some(frame) => Some(Ok(frame)),
            None => self.fails.then_some(Err(Broken)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && !self.fails
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(7)
    }
}

/// Answers with data, trailers and then, if it `fails`, with an error.
fn told(fails: bool) -> Told {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let data = Frame::data(Bytes::from_static(b"message"));
    Told {
        frames: vec![Frame::trailers(trailers), data],
        fails,
    }
}

#[tokio::test(start_paused = true)]
async fn it_stands_wherever_axum_takes_a_layer() {
    let table: [(&str, Apply); 5] = [
        ("Router::layer", |layer| {
            Router::new().route("/", get(ok)).layer(layer)
        }),
        ("Router::route_layer", |layer| {
            Router::new().route("/", get(ok)).route_layer(layer)
        }),
        ("MethodRouter::layer", |layer| {
            Router::new().route("/", get(ok).layer(layer))
        }),
        ("around a router that is nested", |layer| {
            let inner = Router::new().route("/", get(ok));
            Router::new().fallback_service(layer.layer(inner))
        }),
        ("in a stack of layers", |layer| {
            let stack = ServiceBuilder::new()
                .layer(tower_http::trace::TraceLayer::new_for_http())
                .layer(layer)
                .layer(tower_http::compression::CompressionLayer::new());
            Router::new().route("/", get(ok)).layer(stack)
        }),
    ];
    for (place, build) in table {
        let layer = throttle(Rules::new().route("GET /", hourly(2).named("front")));
        let app = build(layer.into());
        for left in ["1", "0"] {
            let response = send(&app, request("GET", "/")).await;
            assert_eq!(response.status(), StatusCode::OK, "{place}");
            let told = &values(&response, "ratelimit")[0];
            assert!(
                told.starts_with(&format!(r#""front";r={left};t="#)),
                "{place}: {told}"
            );
            assert!(decision(&response).is_admitted(), "{place}");
            assert_eq!(bytes(response).await, "served", "{place}");
        }
        let refused = send(&app, request("GET", "/")).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{place}");
        assert!(refused.headers().contains_key("retry-after"), "{place}");
        assert!(!decision(&refused).is_admitted(), "{place}");
        let body = bytes(refused).await;
        assert!(
            body.starts_with(br#"{"type":"https://iana.org/"#),
            "{place}: {body:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn it_has_one_state_with_the_layer_that_it_is_made_from() {
    let layer = throttle(Rules::new().total(hourly(5)));
    let general = layer.layer(served());
    let routes = || Router::new().route("/", get(ok));
    let one = routes().layer(layer.clone().for_axum());
    let other = routes().layer(AxumThrottleLayer::from(layer.clone()));
    assert_eq!(admitted(&general, 2, "GET", "/").await, 2);
    assert_eq!(admitted(&one, 2, "GET", "/").await, 2);
    assert_eq!(
        admitted(&other.clone(), 9, "GET", "/").await,
        1,
        "all have one burst"
    );
    assert_eq!(admitted(&general, 9, "GET", "/").await, 0);

    let reloaded = layer.handle().reload(Rules::new().total(hourly(7)));
    assert!(reloaded.is_ok(), "the handle is that of both");
    assert_eq!(admitted(&one, 9, "GET", "/").await, 2);
}

#[tokio::test(start_paused = true)]
async fn head_has_the_fields_of_a_refusal_and_no_body() {
    let layer = throttle(Rules::new().route("GET /", hourly(1)));
    let service = layer.for_axum().layer(served());
    assert_eq!(admitted(&service, 9, "HEAD", "/").await, 1);
    let refused = send(&service, request("HEAD", "/")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    let length = values(&refused, "content-length")[0].parse::<u64>();
    assert!(length.expect("a length") > 100, "as GET's would be");
    assert!(refused.body().is_end_stream());
    assert!(bytes(refused).await.is_empty());
}

/// A body that is put into a box anew has its errors in those of axum once more.
#[tokio::test(start_paused = true)]
async fn a_body_of_axum_passes_as_it_is_if_nothing_is_held() {
    let fail = service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::new(told(true))))
    });
    for (rules, is_passed) in [(Rules::new().total(hourly(9)), true), (capped(9), false)] {
        let service = throttle(rules).for_axum().layer(fail);
        let mut body = send(&service, request("GET", "/")).await.into_body();
        assert_eq!(body.size_hint().exact(), Some(7), "it knows its size");
        let data = body.frame().await.expect("data").expect("no error");
        assert_eq!(data.into_data().expect("data"), "message");
        let trailers = body.frame().await.expect("trailers").expect("no error");
        assert_eq!(
            trailers.into_trailers().expect("trailers")["grpc-status"],
            "0"
        );
        let error = body
            .frame()
            .await
            .expect("an end")
            .expect_err("an error")
            .into_inner();
        assert_eq!(error.is::<Broken>(), is_passed, "{error:?}");
        assert_eq!(error.to_string(), "broken");
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_and_bodies_that_are_not_of_axum_pass() {
    for rules in [Rules::new().total(hourly(9)), capped(9)] {
        let layer = throttle(rules).for_axum();
        let of_its_own =
            service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(told(false))));
        let response = send(&layer.layer(of_its_own), request("POST", "/a.B/C")).await;
        let collected = response.into_body().collect().await.expect("no error");
        let trailers = collected.trailers().expect("trailers").clone();
        assert_eq!(collected.to_bytes(), "message");
        assert_eq!(trailers["grpc-status"], "0");

        let full = service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(Response::new(Full::from("full")))
        });
        let response = send(&layer.layer(full), request("GET", "/")).await;
        assert_eq!(response.body().size_hint().exact(), Some(4));
        assert_eq!(bytes(response).await, "full");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_held_until_the_stream_ends_or_is_dropped() {
    let layer = throttle(capped(1));
    let (model, mut calls) = Model::new();
    let answer = move |request| model.clone().answer(request);
    let service = layer.clone().for_axum().layer(service_fn(answer));
    // (what ends it)
    for end in ["end", "body", "response", "future"] {
        let mut held = Box::pin(service.clone().oneshot(request("GET", "/")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            held.as_mut().poll(&mut cx).is_pending(),
            "{end}: no head yet"
        );
        let call = calls.recv().await.expect("it was called");
        assert_eq!(in_flight(&layer), 1, "{end}: in the future");
        let refused = send(&service, request("GET", "/")).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{end}");
        if end == "future" {
            drop(held);
            assert_eq!(in_flight(&layer), 0, "{end}");
            continue;
        }
        let stream = call.begin();
        let response = held.await.expect("it does not fail");
        assert_eq!(in_flight(&layer), 1, "{end}: in the body");
        if end == "response" {
            drop(response);
            assert_eq!(in_flight(&layer), 0, "{end}");
            continue;
        }
        let mut body = response.into_body();
        stream.write("token");
        let frame = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), "token");
        assert_eq!(in_flight(&layer), 1, "{end}: it goes on");
        if end == "end" {
            drop(stream);
            assert!(body.frame().await.is_none());
            assert_eq!(in_flight(&layer), 0, "{end}: before it is dropped");
        }
        drop(body);
        assert_eq!(in_flight(&layer), 0, "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_in_line_and_is_served_with_the_service_that_was_ready() {
    let limits = Limits::new().in_flight(1).max_wait(Duration::from_secs(5));
    let layer = throttle(Rules::new().total(limits));
    let service = layer.clone().for_axum().layer(served());
    let first = send(&service, request("GET", "/")).await;
    let mut second = Box::pin(service.clone().oneshot(request("GET", "/")));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(second.as_mut().poll(&mut cx).is_pending(), "it is in line");
    drop(first);
    let second = second.await.expect("it does not fail");
    assert_eq!(second.status(), StatusCode::OK);
    assert_eq!(in_flight(&layer), 1, "in the body");
    assert_eq!(bytes(second).await, "served");
    assert_eq!(in_flight(&layer), 0);
}

#[tokio::test(start_paused = true)]
async fn model_tokens_are_settled_by_the_handler_or_by_what_the_answer_reports() {
    let limits = Limits::new().tokens(hourly(100));
    let rules = Rules::new().total(limits).estimate(Estimate::fixed(40));
    let layer = build(throttling(rules).usage_from_answers(true));
    let left = || layer.handle().snapshot().limits[0].remaining;
    let count = async |Extension(usage): Extension<Usage>| {
        usage.settle(10);
        "counted"
    };
    let report = async || {
        (
            [(CONTENT_TYPE, "application/json")],
            r#"{"usage":{"total_tokens":15}}"#,
        )
    };
    let app = Router::new()
        .route("/count", post(count))
        .route("/report", post(report))
        .layer(layer.clone().for_axum());
    assert_eq!(
        bytes(send(&app, request("POST", "/count")).await).await,
        "counted"
    );
    assert_eq!(left(), Some(90));
    let reported = send(&app, request("POST", "/report")).await;
    assert_eq!(left(), Some(50), "reserved");
    bytes(reported).await;
    assert_eq!(left(), Some(75), "settled at the end of the body");
}

/// A handler takes the hold of its request, with either layer.
#[tokio::test(start_paused = true)]
async fn a_handler_keeps_its_request() {
    let limits = || Limits::new().in_flight(1);
    let rules = Rules::new()
        .route("POST /kept", limits().keep(true))
        .route("POST /not", limits());
    let slots = |layer: &ThrottleLayer| {
        let limits = layer.handle().snapshot().limits;
        let in_flight = limits.into_iter().filter_map(|limit| limit.in_flight);
        in_flight.collect::<Vec<_>>()
    };
    let (keep, kept) = std::sync::mpsc::channel();
    let option = {
        let keep = keep.clone();
        async move |hold: Option<Hold>| {
            keep.send(hold.map(|hold| hold.keep()))
                .expect("the test goes on");
            "started"
        }
    };
    let must = async move |hold: Hold| {
        keep.send(Some(hold.keep())).expect("the test goes on");
        "started"
    };
    for is_for_axum in [true, false] {
        let layer = throttle(rules.clone());
        let router = |router: Router| match is_for_axum {
            true => router.layer(layer.clone().for_axum()),
            false => router.layer(layer.clone()),
        };
        let routes = |handler: axum::routing::MethodRouter| {
            let routes = Router::new().route("/kept", handler.clone());
            router(routes.route("/not", handler))
        };
        for (handler, is_option) in [(post(option.clone()), true), (post(must.clone()), false)] {
            let app = routes(handler);
            let started = send(&app, request("POST", "/kept")).await;
            assert_eq!(bytes(started).await, "started");
            let guard = kept.try_recv().expect("it ran").flatten();
            assert_eq!((guard.is_some(), slots(&layer)), (true, vec![1, 0]));
            drop(guard);
            assert_eq!(slots(&layer), [0, 0]);
            let answer = send(&app, request("POST", "/not")).await;
            let status = answer.status();
            let text = bytes(answer).await;
            match is_option {
                true => assert!(kept.try_recv().expect("it ran").is_none()),
                false => {
                    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
                    let why = String::from_utf8(text.to_vec()).expect("a text");
                    assert!(why.contains("`Limits::keep(true)`"), "{why}");
                    assert!(kept.try_recv().is_err(), "the handler has not run");
                }
            }
            assert_eq!(slots(&layer), [0, 0]);
        }
    }
    fn is_error<E: Error + Send + Sync + 'static>() {}
    is_error::<MissingHold>();
}

#[tokio::test]
async fn axum_serves_it_over_http_1_and_2() {
    let app = Router::new()
        .route("/users/{id}", get(ok))
        .layer(throttle(Rules::new().route("GET /users/{id}", hourly(4))).for_axum());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, app).into_future());
    let mut statuses = Vec::new();
    for connection in 0..6 {
        let uri = format!("http://{address}/users/{connection}");
        let http2 = connection % 2 == 1;
        let response = client(http2).request(request("GET", &uri)).await;
        statuses.push(response.expect("an answer").status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429]);
}

#[test]
fn the_service_behind_it_can_be_reached() {
    let mut service = throttle(Rules::new()).for_axum().layer(7);
    *service.get_mut() += 1;
    assert_eq!(*service.get_ref(), 8);
    assert_eq!(service.into_inner(), 8);
}
