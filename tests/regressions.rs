//! Faults of other limiters, each as a test that they would have failed.

mod support;

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use tokio::{sync::mpsc, task::JoinSet};
use tower::{Layer as _, service_fn};
use tower_throttle::{Limits, Rules};

use support::{
    client, serve,
    streams::{Calls, Model},
    throttle,
};

/// A model behind a throttle, on a port of its own.
async fn model(rules: Rules) -> (Model, Calls, SocketAddr) {
    let (model, calls) = Model::new();
    let inner = model.clone();
    let answer = move |request: Request<Incoming>| inner.clone().answer(request);
    let address = serve(throttle(rules).layer(service_fn(answer))).await;
    (model, calls, address)
}

async fn ask(client: &Client<HttpConnector, Body>, address: SocketAddr) -> Response<Incoming> {
    let request = Request::post(format!("http://{address}/v1/chat/completions"));
    let request = request.body(Body::empty()).expect("a request");
    client.request(request).await.expect("an answer")
}

/// tower-http#447: tower's `ConcurrencyLimit` looks at a request from `call` until its future has given a
/// response, so that it forgets a streaming answer with its head. The slot is held until the stream has ended.
#[tokio::test]
async fn tower_http_447_a_slot_is_held_until_the_body_was_sent() {
    for http2 in [false, true] {
        let (_, mut calls, address) = model(Rules::new().total(Limits::new().in_flight(1))).await;
        let client = client(http2);
        let ask = || ask(&client, address);
        let (mut response, answer) =
            tokio::join!(ask(), async { calls.recv().await.expect("a call").begin() });
        assert_eq!(response.status(), StatusCode::OK);
        for _ in 0..3 {
            let refused = tokio::select! {
                response = ask() => response.status(),
                _ = calls.recv() => panic!("the head was sent, the answer was not"),
            };
            assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
            answer.write("token");
            let frame = response.frame().await.expect("a frame").expect("data");
            assert_eq!(frame.into_data().expect("data"), "token");
        }
        answer.end().await;
        let rest = response.into_body().collect().await.expect("the rest");
        assert!(rest.to_bytes().is_empty(), "the stream has ended");

        let (response, answer) =
            tokio::join!(ask(), async { calls.recv().await.expect("a call").begin() });
        assert_eq!(response.status(), StatusCode::OK, "and the slot is free");
        drop(response);
        answer.cut().await;
    }
}

/// BerriAI/litellm#18116: with a semaphore of one permit around the request to the model, eight callers had eight
/// answers generated at a time, since the permit came back when the request had been sent. Eight callers who
/// wait in line have one generated at a time, and all of them are served.
#[tokio::test]
async fn litellm_18116_callers_in_parallel_are_served_one_at_a_time() {
    const CALLERS: usize = 8;
    let limits = Limits::new()
        .in_flight(1)
        .max_wait(Duration::from_secs(3_600));
    let (model, mut calls, address) = model(Rules::new().total(limits)).await;
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            tokio::spawn(async move {
                let response = ask(&client(false), address).await;
                let status = response.status();
                let body = response.into_body().collect().await.expect("all of it");
                (status, body.to_bytes())
            })
        })
        .collect();
    for _ in 0..CALLERS {
        let answer = calls.recv().await.expect("a call").begin();
        for token in ["one ", "two ", "three"] {
            answer.write(token);
            // Time for others to push in.
            tokio::task::yield_now().await;
            assert!(
                calls.try_recv().is_err(),
                "the model has one answer to write"
            );
        }
        answer.end().await;
    }
    for caller in callers {
        let (status, body) = caller.await.expect("no panic");
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"one two three"[..]));
    }
    assert_eq!(model.most(), 1);
}

/// vllm-project/router#280: `--max-concurrent-requests 8` bounded how many answers may begin at a time, and
/// hundreds were being generated. Of a hundred who ask for a stream, eight have one.
#[tokio::test]
async fn vllm_router_280_no_more_streams_are_open_than_there_are_slots() {
    const SLOTS: usize = 8;
    for http2 in [false, true] {
        let rules = Rules::new().total(Limits::new().in_flight(SLOTS as u64));
        let (model, mut calls, address) = model(rules).await;
        let client = client(http2);
        let (sender, open) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                let answer = call.begin();
                answer.write("token");
                // Kept open until the test is over.
                let _ = sender.send(answer);
            }
        });
        let mut asks = JoinSet::new();
        for _ in 0..100 {
            let client = client.clone();
            asks.spawn(async move { ask(&client, address).await });
        }
        let responses = asks.join_all().await;
        let having = |status| {
            responses
                .iter()
                .filter(|response| response.status() == status)
                .count()
        };
        assert_eq!(having(StatusCode::OK), SLOTS);
        assert_eq!(having(StatusCode::SERVICE_UNAVAILABLE), 100 - SLOTS);
        assert_eq!(open.len(), SLOTS);
        assert_eq!(model.most(), SLOTS);
    }
}

/// A client that leaves before the head is there: hyper drops the future, and no response is ever made whose end
/// could be told. Limiters that count down where they see the response leak a slot with each of them, until
/// nobody is let in any more.
#[tokio::test]
async fn a_client_that_leaves_before_the_head_leaves_its_slot() {
    for http2 in [false, true] {
        let (model, mut calls, address) =
            model(Rules::new().total(Limits::new().in_flight(2))).await;
        for _ in 0..50 {
            // Two at a time, on connections of their own.
            let asks = [(); 2]
                .map(|()| tokio::spawn(async move { ask(&client(http2), address).await.status() }));
            let first = calls.recv().await.expect("a call");
            let second = calls.recv().await.expect("another");
            for ask in asks {
                ask.abort();
            }
            first.gone().await;
            second.gone().await;
        }
        assert_eq!(model.most(), 2);
    }
}
