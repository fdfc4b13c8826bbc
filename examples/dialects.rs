//! One limit for each kind of client, refused in the words that it knows.
//!
//! ```text
//! cargo run --example dialects
//! ```
//!
//! Each route has ten requests a second with a burst of five. The first five are answered, the sixth is refused as
//! OpenAI, Anthropic, API Gateway, Azure API Management, KServe or a server of the Model Context Protocol would refuse it;
//! what is left is told in their fields.
//! Behind `/slow` one answer is written at a time, and who comes meanwhile is told that the server is busy.
//!
//! `--help` lists the environment variables that it reads.

#[path = "host/mod.rs"]
mod host;
#[path = "pace/mod.rs"]
mod pace;

use std::{process::ExitCode, time::Duration};

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt as _,
};
use serde_json::{Value, json};
use tokio::time::sleep;
use tower_throttle::{Clients, Limits, Rules, RulesError, ThrottleLayer, response::Dialect};

use crate::host::{asked_to_end, listen, no_delay, tell, variable};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: dialects

Environment variables:
  ADDR    where to listen (default 127.0.0.1:3002, port 0 takes a free one)
  SPREAD  `on` tells clients that are refused together different waits
  SLOWER  a factor by which limits refill more slowly (default 1)";

fn throttle() -> Result<ThrottleLayer, RulesError> {
    let rules = Rules::new()
        .default_route(pace::per_second(10).burst(5))
        .route("POST /slow/v1/messages", Limits::new().in_flight(1))
        .rejection("POST /openai/{proxy+}", Dialect::OpenAi)
        .rejection("POST /anthropic/{proxy+}", Dialect::Anthropic)
        .rejection("POST /slow/{proxy+}", Dialect::Anthropic)
        .rejection("POST /aws/{proxy+}", Dialect::ApiGateway)
        .rejection("POST /azure/{proxy+}", Dialect::AzureApiManagement)
        .rejection("POST /kserve/{proxy+}", Dialect::KServe)
        .rejection("POST /mcp", Dialect::JsonRpc)
        // Told apart by their keys, and limited by the routes alone.
        .clients(Clients::by_bearer().each(Limits::unlimited()));
    let spread = variable("SPREAD", "off") == "on";
    ThrottleLayer::builder(rules)
        .stagger_retry_after(spread)
        .build()
}

/// An answer that OpenAI's SDKs accept.
async fn completion() -> Json<Value> {
    let message = json!({ "role": "assistant", "content": "Hello." });
    Json(json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_795_392_000,
        "model": "echo",
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3 },
    }))
}

/// An answer that Anthropic's SDKs accept.
async fn message() -> Json<Value> {
    Json(json!({
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "echo",
        "content": [{ "type": "text", "text": "Hello." }],
        "stop_reason": "end_turn",
        "stop_sequence": null,
        "usage": { "input_tokens": 1, "output_tokens": 2 },
    }))
}

async fn slow_message() -> Json<Value> {
    sleep(Duration::from_secs(2)).await;
    message().await
}

/// The answer of a model behind KServe's protocol, to any tensor.
async fn inference() -> Json<Value> {
    let output = json!({ "name": "text", "datatype": "BYTES", "shape": [1], "data": ["Hello."] });
    Json(json!({ "model_name": "echo", "model_version": "1", "outputs": [output] }))
}

/// A server of the Model Context Protocol that has one tool.
async fn mcp(Json(message): Json<Value>) -> Response {
    let Some(id) = message.get("id") else {
        return StatusCode::ACCEPTED.into_response();
    };
    let outcome = match message["method"].as_str() {
        Some("initialize") => Ok(json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "echo", "version": "1" },
        })),
        Some("tools/list") => Ok(json!({
            "tools": [{ "name": "greet", "inputSchema": { "type": "object" } }],
        })),
        Some("tools/call") => Ok(json!({ "content": [{ "type": "text", "text": "Hello." }] })),
        _ => Err(json!({ "code": -32601, "message": "Method not found" })),
    };
    let (member, value) = match outcome {
        Ok(result) => ("result", result),
        Err(error) => ("error", error),
    };
    Json(json!({ "jsonrpc": "2.0", "id": id, member: value })).into_response()
}

#[tokio::main]
async fn main() -> ExitCode {
    host::run(USAGE, serve()).await
}

async fn serve() -> Result<(), BoxError> {
    let app = Router::new()
        .route("/openai/v1/chat/completions", post(completion))
        .route("/anthropic/v1/messages", post(message))
        .route("/slow/v1/messages", post(slow_message))
        .route("/aws/invoke", post(message))
        .route("/azure/invoke", post(message))
        .route("/kserve/v2/models/{model}/infer", post(inference))
        .route("/mcp", post(mcp))
        .layer(throttle()?);

    let listener = listen(&variable("ADDR", "127.0.0.1:3002")).await?;
    let address = listener.local_addr()?;
    tell(format_args!("listening on http://{address}"));
    tell(format_args!(
        "try: for n in $(seq 6); do curl -i -X POST http://{address}/anthropic/v1/messages; done"
    ));
    axum::serve(listener.tap_io(no_delay), app)
        .with_graceful_shutdown(asked_to_end())
        .await?;
    Ok(())
}
