//! The chat: its rules, its connections and their messages.

use std::time::Duration;

use axum::{
    Router,
    extract::{
        State,
        ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri},
    response::Response,
    routing::any,
};
use tower_throttle::{
    Clients, Denial, Handle, Limits, Plan, Rate, Rules, ThrottleLayer, body::Hold, usage::Estimate,
};

/// The field that identifies a client.
const KEY: &str = "x-api-key";
/// The field that estimates the tokens of a message.
const TOKENS: &str = "x-tokens";
/// No connection holds its slot for longer, whatever becomes of its task.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Two connections at a time, three messages at once of each client, and a budget of tokens for all messages.
pub(crate) fn rules() -> Rules {
    let messages = Limits::new().tokens(Rate::per_minute(600).burst(100));
    let client = Plan::default().route("POST /chat/messages", Rate::per_second(1).burst(3));
    Rules::new()
        .route("GET /chat", Limits::new().in_flight(2).keep(true))
        .route("POST /chat/messages", messages)
        .estimate(Estimate::by_header(TOKENS))
        .clients(Clients::by_header(KEY).each(client))
}

pub(crate) fn app(throttle: ThrottleLayer) -> Router {
    let handle = throttle.handle();
    Router::new()
        .route("/chat", any(open))
        .layer(throttle.for_axum())
        .with_state(handle)
}

/// Opens a connection, which holds the slot of its request until it is closed.
async fn open(
    State(handle): State<Handle>,
    hold: Hold,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let kept = hold.keep_at_most(LONGEST);
    upgrade.on_upgrade(async move |mut socket| {
        chat(&mut socket, &handle, headers.get(KEY)).await;
        drop(kept);
    })
}

/// Answers the messages of a connection until that is closed.
async fn chat(socket: &mut WebSocket, handle: &Handle, key: Option<&HeaderValue>) {
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else {
            // The library answers pings and the end of the connection.
            continue;
        };
        let reply = answer(handle, key, &text);
        if socket.send(Message::text(reply)).await.is_err() {
            break;
        }
    }
}

/// Charges a message and answers it, or tells when it may be sent again.
fn answer(handle: &Handle, key: Option<&HeaderValue>, text: &Utf8Bytes) -> String {
    let permit = match handle.try_acquire(&head(key, text)) {
        Ok(permit) => permit,
        Err(denial) => return refusal(&denial),
    };
    let reply = format!("You said: {text}");
    if let Some(usage) = permit.usage() {
        // The tokens of the question and of the answer, each word as one.
        let words = text.split_whitespace().chain(reply.split_whitespace());
        usage.settle(words.map(|_| 1).sum());
    }
    reply
}

/// The head by which a message is decided on: the route key of messages, and the client of the connection.
fn head(key: Option<&HeaderValue>, text: &Utf8Bytes) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = Uri::from_static("/chat/messages");
    let headers = head.headers_mut();
    headers.extend(key.map(|key| (HeaderName::from_static(KEY), key.clone())));
    headers.insert(TOKENS, text.len().div_ceil(4).into());
    head
}

fn refusal(denial: &Denial) -> String {
    let limits: Vec<_> = denial.violated().map(|limit| limit.name()).collect();
    let wait = denial.retry_after().map(|wait| wait.as_millis());
    let wait = wait.map_or("null".to_owned(), |wait| wait.to_string());
    let limits = limits.join(",");
    format!(r#"{{"error":"rate_limit","limit":"{limits}","retry_after_ms":{wait}}}"#)
}
