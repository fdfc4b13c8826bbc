//! The throttle on bare hyper 1: one listener for HTTP/1.1 and HTTP/2, a service for each connection.

mod support;

use std::{convert::Infallible, net::SocketAddr};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::{Layer, service_fn};
use tower_throttle::{Limits, Rules, ThrottleLayer, body::Hold};

use support::{bytes, client, hourly, request, serve, served, throttle, values};

fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}

#[tokio::test]
async fn both_protocols_on_one_listener_spend_of_one_burst() {
    let rules = Rules::new()
        .route("POST /v1/chat", hourly(5))
        .route("GET /health", Limits::exempt());
    let address = serve(throttle(rules).layer(served())).await;
    let clients = [client(false), client(true)];
    let mut answers = Vec::new();
    for turn in 0..8 {
        let request = request("POST", &url(address, "/v1/chat"));
        let answer = clients[turn % 2].request(request).await;
        let answer = answer.expect("an answer");
        answers.push((answer.version(), answer.status().as_u16()));
        bytes(answer).await;
    }
    let (one, two) = (Version::HTTP_11, Version::HTTP_2);
    assert_eq!(
        answers,
        [
            (one, 200),
            (two, 200),
            (one, 200),
            (two, 200),
            (one, 200),
            (two, 429),
            (one, 429),
            (two, 429)
        ]
    );
    for client in clients {
        let health = client.request(request("GET", &url(address, "/health")));
        assert_eq!(
            health.await.expect("an answer").status(),
            StatusCode::OK,
            "the connection lives on, and other routes are untouched"
        );
    }
}

#[tokio::test]
async fn connections_share_one_state_and_closing_them_gives_nothing_back() {
    let address = serve(throttle(Rules::new().total(hourly(6))).layer(served())).await;
    let mut passed = 0;
    for connection in 0..20 {
        let client = client(connection % 2 == 0);
        let answer = client.request(request("GET", &url(address, "/"))).await;
        passed += usize::from(answer.expect("an answer").status() == StatusCode::OK);
    }
    assert_eq!(passed, 6, "twenty connections have one burst");
}

#[tokio::test]
async fn streams_at_once_on_one_connection_pass_up_to_the_burst() {
    let address = serve(throttle(Rules::new().total(hourly(10))).layer(served())).await;
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    tokio::spawn(connection);
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let mut sender = sender.clone();
        let request = request("GET", &url(address, "/"));
        streams.spawn(async move { sender.send_request(request).await });
    }
    let statuses = streams.join_all().await;
    let passed = statuses
        .into_iter()
        .map(|answer| answer.expect("an answer").status())
        .filter(|status| *status == StatusCode::OK)
        .count();
    assert_eq!(passed, 10, "sixty streams on one connection");
}

/// Sends `text` on a connection of its own and reads until the server closes it.
async fn raw(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("closed");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_refused_head_on_http_1_has_the_length_but_no_body_and_keeps_the_connection() {
    let rules = Rules::new().route("GET /", hourly(1));
    let address = serve(throttle(rules).layer(served())).await;
    let answers = raw(
        address,
        "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n\
         HEAD / HTTP/1.1\r\nhost: a\r\n\r\n\
         GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    let mut heads = answers.split("HTTP/1.1 ").skip(1);
    let admitted = heads.next().expect("the first answer");
    assert!(admitted.starts_with("200"), "{admitted}");
    let head = heads.next().expect("the second answer");
    let get = heads
        .next()
        .expect("the third answer, on the same connection");
    assert!(
        head.starts_with("429") && get.starts_with("429"),
        "{answers}"
    );
    let length = |answer: &str| {
        let line = answer
            .lines()
            .find(|line| line.starts_with("content-length"));
        line.expect("a length").to_owned()
    };
    assert_eq!(length(head), length(get), "as GET's body would have");
    assert!(head.ends_with("\r\n\r\n"), "no body: {head}");
    assert!(get.ends_with('}'), "a body: {get}");
}

#[tokio::test]
async fn a_refusal_goes_out_without_asking_for_the_body() {
    let rules = Rules::new().route("POST /", hourly(1));
    let read = service_fn(|request: Request<Incoming>| async {
        let body = request.into_body().collect().await.expect("a body");
        Ok::<_, Infallible>(Response::new(Body::from(body.to_bytes())))
    });
    let address = serve(throttle(rules).layer(read)).await;
    let upload = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\
                  connection: close\r\ncontent-length: 4\r\n\r\n";
    let admitted = raw(address, &format!("{upload}data")).await;
    assert!(
        admitted.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"),
        "the inner service reads: {admitted}"
    );
    assert!(admitted.ends_with("data"), "{admitted}");
    let refused = raw(address, upload).await;
    assert!(
        refused.starts_with("HTTP/1.1 429"),
        "no 100, and nothing of the body was needed: {refused}"
    );
}

#[tokio::test]
async fn a_refused_upload_over_http_2_is_answered_while_the_client_still_sends() {
    let rules = Rules::new().route("POST /", hourly(0));
    let address = serve(throttle(rules).layer(served())).await;
    // A body that never ends: only an answer before its end lets this test end.
    let endless = StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let mut upload = request("POST", &url(address, "/"));
    *upload.body_mut() = Body::new(endless);
    let answer = client(true).request(upload).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        values(&answer, "content-type"),
        ["application/problem+json"]
    );
    assert!(!bytes(answer).await.is_empty(), "the whole document");
}

#[tokio::test]
async fn a_streamed_body_and_its_trailers_arrive_over_both_protocols() {
    let frames = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "abc".parse().expect("a value"));
        tokio_stream::iter([
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"one "))),
            Ok(Frame::data(Bytes::from_static(b"two"))),
            Ok(Frame::trailers(trailers)),
        ])
    };
    let inner = service_fn(move |_: Request<Incoming>| async move {
        let mut response = Response::new(StreamBody::new(frames()));
        let announced = "x-checksum".parse().expect("a value");
        response.headers_mut().insert("trailer", announced);
        Ok::<_, Infallible>(response)
    });
    let address = serve(throttle(Rules::new().default_route(hourly(9))).layer(inner)).await;
    for http2 in [false, true] {
        let mut request = request("GET", &url(address, "/"));
        let te = "trailers".parse().expect("a value");
        request.headers_mut().insert("te", te);
        let answer = client(http2).request(request).await.expect("an answer");
        assert_eq!(values(&answer, "ratelimit").len(), 1, "in the head");
        let body = answer.into_body().collect().await.expect("a whole body");
        let trailers = body.trailers().expect("trailers");
        assert_eq!(trailers["x-checksum"], "abc", "http2: {http2}");
        assert!(
            !trailers.contains_key("ratelimit"),
            "fields never stand in trailers (draft, section 4)"
        );
        assert_eq!(body.to_bytes(), "one two", "http2: {http2}");
    }
}

#[tokio::test]
async fn a_switch_of_protocols_goes_through_untouched() {
    let inner = service_fn(|mut request: Request<Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.expect("an upgrade"));
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.expect("four bytes");
            stream.write_all(&word).await.expect("sent");
            stream.shutdown().await.expect("closed");
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(Body::empty());
        Ok::<_, Infallible>(response.expect("a response"))
    });
    let address = serve(throttle(Rules::new().route("GET /", hourly(1))).layer(inner)).await;
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nping";
    let answer = raw(address, upgrade).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nping"),
        "the tunnel works: {answer}"
    );
    assert!(!answer.contains("ratelimit"), "no fields on it: {answer}");
    let refused = raw(
        address,
        &upgrade.replace("connection: upgrade", "connection: close"),
    )
    .await;
    assert!(refused.starts_with("HTTP/1.1 429"), "charged: {refused}");
}

/// A WebSocket is such a connection. Without a guard its slot comes back with the empty body of the response.
#[tokio::test]
async fn a_guard_keeps_the_slot_of_a_connection_that_has_switched_protocols() {
    let inner = service_fn(|mut request: Request<Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        let hold = request.extensions().get::<Hold>();
        let kept = hold.and_then(Hold::keep);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.expect("an upgrade"));
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.expect("four bytes");
            // The client sees the end of the connection when the slot is free.
            drop(kept);
            stream.shutdown().await.expect("closed");
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(Body::empty());
        Ok::<_, Infallible>(response.expect("a response"))
    });
    let slots = Limits::new().in_flight(2).keep(true);
    let rates = slots.clone().rate(hourly(9));
    let tokens = slots.clone().tokens(hourly(9));
    let rules = Rules::new()
        .route("GET /slots", slots)
        .route("GET /rates", rates)
        .route("GET /model", tokens);
    // A response that is told nothing holds its slot in another way.
    let silent = ThrottleLayer::builder(rules.clone()).rate_limit_headers(false);
    for layer in [throttle(rules), silent.build().expect("rules")] {
        let handle = layer.handle();
        let address = serve(layer.layer(inner)).await;
        for route in ["slots", "rates", "model"] {
            let name = format!("get_{route}_in_flight");
            let in_flight = || {
                let limits = handle.snapshot().limits;
                let cap = limits.iter().find(|limit| *limit.name == *name);
                cap.and_then(|cap| cap.in_flight).expect("a cap")
            };
            let head = format!("GET /{route} HTTP/1.1\r\nhost: a\r\n");
            let mut open = Vec::new();
            for held in [1, 2] {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                let upgrade = format!("{head}connection: upgrade\r\nupgrade: echo\r\n\r\n");
                stream.write_all(upgrade.as_bytes()).await.expect("sent");
                let mut status = [0; 12];
                stream.read_exact(&mut status).await.expect("a response");
                assert_eq!(&status, b"HTTP/1.1 101");
                assert_eq!(in_flight(), held, "{route}: the connection is open");
                open.push(stream);
            }
            let refused = raw(address, &format!("{head}connection: close\r\n\r\n")).await;
            assert!(refused.starts_with("HTTP/1.1 503"), "{route}: {refused}");
            for (mut stream, left) in open.into_iter().zip([1, 0]) {
                stream.write_all(b"ping").await.expect("sent");
                stream.read_to_end(&mut Vec::new()).await.expect("closed");
                assert_eq!(in_flight(), left, "{route}: a connection is closed");
            }
        }
    }
}
