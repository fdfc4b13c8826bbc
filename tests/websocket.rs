//! The example `websocket`, driven by a client: connections hold slots, and messages are charged.

#[path = "../examples/websocket/app.rs"]
mod app;

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};
use tower_throttle::{Handle, ThrottleLayer};

type Socket = WebSocketStream<TcpStream>;

/// Opens a connection, or returns the status of the refusal.
async fn open(listener: std::net::SocketAddr, key: &str) -> Result<Socket, StatusCode> {
    let mut request = format!("ws://{listener}/chat")
        .into_client_request()
        .expect("a request");
    let key = HeaderValue::from_str(key).expect("a value");
    request.headers_mut().insert("x-api-key", key);
    let stream = TcpStream::connect(listener).await.expect("a connection");
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status()),
        Err(other) => panic!("{other}"),
    }
}

/// Sends a message, and returns the answer.
async fn say(socket: &mut Socket, text: &str) -> String {
    socket.send(Message::text(text)).await.expect("sent");
    let answer = socket.next().await.expect("an answer").expect("a message");
    answer.into_text().expect("a text").to_string()
}

fn in_flight(handle: &Handle) -> u64 {
    let limits = handle.snapshot().limits;
    let cap = limits.iter().find_map(|limit| limit.in_flight);
    cap.expect("a cap")
}

#[tokio::test]
async fn a_connection_holds_its_slot_and_its_messages_are_charged() {
    let throttle = ThrottleLayer::new(app::rules()).expect("rules that hold together");
    let handle = throttle.handle();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let app = app::app(throttle);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let mut one = open(address, "one").await.expect("a slot");
    let mut two = open(address, "two").await.expect("a slot");
    assert_eq!(in_flight(&handle), 2, "both are open");
    let third = open(address, "three").await;
    assert_eq!(third.err(), Some(StatusCode::SERVICE_UNAVAILABLE));

    for _ in 0..3 {
        assert_eq!(say(&mut one, "hello").await, "You said: hello");
    }
    let refusal: serde_json::Value =
        serde_json::from_str(&say(&mut one, "hello").await).expect("JSON");
    assert_eq!(refusal["limit"], "client_post_chat_messages");
    let wait = refusal["retry_after_ms"].as_u64().expect("a wait");
    assert!((1..=1_000).contains(&wait), "{wait}");
    assert_eq!(
        say(&mut two, "hello").await,
        "You said: hello",
        "another client"
    );
    let limits = handle.snapshot().limits;
    let tokens = limits.iter().find(|limit| limit.burst == 100);
    let left = tokens
        .and_then(|tokens| tokens.remaining)
        .expect("a balance");
    // Four messages of four tokens each. The bucket refills ten a second.
    assert!((84..100).contains(&left), "{left}");

    one.close(None).await.expect("closed");
    while one.next().await.is_some() {}
    // The server has let go of the connection by now, or does at once.
    let freed = async {
        while in_flight(&handle) == 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), freed)
        .await
        .expect("a free slot");
    assert!(open(address, "three").await.is_ok(), "a slot is free");
    server.abort();
}
