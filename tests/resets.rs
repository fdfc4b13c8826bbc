//! Clients that break off in midstream, on the wire: a TCP reset, RST_STREAM, a lost connection. Each returns its slot,
//! and pays its reservation.

mod support;

use std::net::{self, Shutdown, SocketAddr};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tower::{Layer as _, service_fn};
use tower_throttle::{Limits, Rate, Rules, ThrottleLayer, usage::Estimate};

use support::{
    decision, request, send, serve, served,
    streams::{Answer, Calls, Model},
    throttle,
};

const RESERVED: u64 = 10;
const USED: u64 = 3;
const BUDGET: u64 = 1_000_000;

/// The number of times that each way to break off is tried.
const ROUNDS: u64 = 50;

/// A model with so many slots, on a port of its own.
async fn model(slots: u64) -> (ThrottleLayer, Calls, SocketAddr) {
    let tokens = Rate::per_hour(1).burst(BUDGET);
    let limits = Limits::new().in_flight(slots).tokens(tokens);
    let rules = Rules::new()
        .total(limits)
        .estimate(Estimate::fixed(RESERVED));
    let throttle = throttle(rules);
    let (model, calls) = Model::new();
    let answer = move |request: Request<Incoming>| model.clone().answer(request);
    let address = serve(throttle.layer(service_fn(answer))).await;
    (throttle, calls, address)
}

/// Asks for nothing but what is left: free slots and tokens. It takes a slot itself, and reserves tokens.
async fn left(throttle: &ThrottleLayer) -> (u64, u64) {
    let response = send(&throttle.layer(served()), request("GET", "/")).await;
    assert_eq!(response.status(), StatusCode::OK, "a slot is lost");
    let limits: Vec<_> = decision(&response)
        .limits()
        .map(|limit| limit.remaining())
        .collect();
    let [tokens, slots] = limits[..] else {
        panic!("{limits:?}: tokens, then slots");
    };
    (slots + 1, tokens + RESERVED)
}

/// A token of an answer, counted.
fn write(answer: &Answer) {
    let usage = answer.usage.as_ref().expect("tokens are limited");
    assert!(usage.add(USED));
    answer.write("token");
}

/// A connection on which a request was sent.
async fn asked(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = b"GET /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    stream
}

/// Closes a connection with RST in the place of FIN.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("a TCP socket");
    drop(stream);
}

#[tokio::test]
async fn a_tcp_reset_before_the_head_or_in_midstream_frees_the_slot() {
    let (throttle, mut calls, address) = model(1).await;
    let mut spent = 0;
    for _ in 0..ROUNDS {
        let stream = asked(address).await;
        let call = calls.recv().await.expect("a call");
        reset(stream);
        call.gone().await;
        // Nothing was counted: the estimate stands.
        spent += RESERVED;
        assert_eq!(
            left(&throttle).await,
            (1, BUDGET - spent),
            "before the head"
        );
        spent += RESERVED;

        let mut stream = asked(address).await;
        let answer = calls.recv().await.expect("a call").begin();
        write(&answer);
        let mut read = Vec::new();
        while !read.ends_with(b"token\r\n") {
            let more = stream.read_buf(&mut read).await.expect("bytes");
            assert!(more > 0, "the stream goes on");
        }
        reset(stream);
        answer.cut().await;
        // A part of a count is no total.
        spent += RESERVED;
        assert_eq!(left(&throttle).await, (1, BUDGET - spent), "in midstream");
        spent += RESERVED;
    }
}

/// An HTTP/2 connection of one's own, and the socket below it.
async fn connect(address: SocketAddr) -> (http2::SendRequest<Body>, net::TcpStream) {
    let socket = net::TcpStream::connect(address).expect("a connection");
    socket.set_nonblocking(true).expect("a socket");
    let stream = socket.try_clone().and_then(TcpStream::from_std);
    let stream = TokioIo::new(stream.expect("another handle of it"));
    let handshake = http2::handshake(TokioExecutor::new(), stream);
    let (sender, connection) = handshake.await.expect("HTTP/2");
    // The connection ends with the test, or breaks off with the socket.
    tokio::spawn(connection);
    (sender, socket)
}

/// A stream of which the first token has come.
async fn streaming(
    sender: &mut http2::SendRequest<Body>,
    calls: &mut Calls,
) -> (Response<Incoming>, Answer) {
    let request = Request::get("http://localhost/v1/chat/completions");
    let ask = sender.send_request(request.body(Body::empty()).expect("a request"));
    let (response, answer) = tokio::join!(ask, async {
        let answer = calls.recv().await.expect("a call").begin();
        write(&answer);
        answer
    });
    let mut response = response.expect("a head");
    let frame = response.frame().await.expect("a frame").expect("data");
    assert_eq!(frame.into_data().expect("data"), "token");
    (response, answer)
}

#[tokio::test]
async fn a_stream_that_is_reset_frees_its_slot_and_not_its_neighbours() {
    let (throttle, mut calls, address) = model(3).await;
    let (mut sender, _socket) = connect(address).await;
    let (mut neighbour, goes_on) = streaming(&mut sender, &mut calls).await;
    let mut spent = RESERVED;
    for _ in 0..ROUNDS {
        let (response, answer) = streaming(&mut sender, &mut calls).await;
        assert_eq!(
            left(&throttle).await,
            (1, BUDGET - spent - RESERVED),
            "two slots are held"
        );
        // RST_STREAM with CANCEL.
        drop(response);
        answer.cut().await;
        spent += 2 * RESERVED;
        assert_eq!(left(&throttle).await, (2, BUDGET - spent), "one was reset");
        spent += RESERVED;

        goes_on.write("more");
        let frame = neighbour.frame().await.expect("a frame").expect("data");
        assert_eq!(frame.into_data().expect("data"), "more");
    }
    goes_on.end().await;
    assert_eq!(left(&throttle).await.0, 3, "all slots are free");
}

#[tokio::test]
async fn a_connection_that_is_gone_frees_the_slots_of_all_its_streams() {
    const STREAMS: u64 = 3;
    let (throttle, mut calls, address) = model(STREAMS + 1).await;
    let mut spent = 0;
    for _ in 0..ROUNDS {
        let (mut sender, socket) = connect(address).await;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(streaming(&mut sender, &mut calls).await);
        }
        assert_eq!(
            left(&throttle).await,
            (1, BUDGET - spent - STREAMS * RESERVED)
        );
        spent += RESERVED;
        // Without a word: neither RST_STREAM nor GOAWAY.
        socket.shutdown(Shutdown::Both).expect("it was open");
        for (_response, answer) in streams {
            answer.cut().await;
        }
        spent += STREAMS * RESERVED;
        assert_eq!(
            left(&throttle).await,
            (STREAMS + 1, BUDGET - spent),
            "all slots are free"
        );
        spent += RESERVED;
    }
}
