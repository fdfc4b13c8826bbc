//! Anthropic's messages.

use axum::{Json, http::StatusCode, response::Response};
use serde_json::{Value, json};

use crate::answer::{Answer, CHUNK, CHUNKS, Course, Event, text};

/// Answers `POST /v1/messages`.
pub(crate) async fn messages(Json(request): Json<Value>) -> Response {
    let model = request["model"].as_str().unwrap_or_default();
    let is_stream = request["stream"] == true;
    message(model).respond(Course::of(model), is_stream)
}

fn message(model: &str) -> Answer {
    // Cached input stands beside the other. At the start of a stream the output is a first guess.
    let usage = |output: u64| {
        json!({
            "input_tokens": 120,
            "cache_creation_input_tokens": 30,
            "cache_read_input_tokens": 500,
            "output_tokens": output,
        })
    };
    let message = |content: Value, stop_reason: Option<&str>, usage: Value| {
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": stop_reason, "stop_sequence": null, "usage": usage,
        })
    };
    let event = |name: &'static str, mut members: Value| {
        members["type"] = name.into();
        Event::named(name, members)
    };
    Answer {
        whole: message(
            json!([{ "type": "text", "text": text() }]),
            Some("end_turn"),
            usage(90),
        ),
        opening: vec![
            event(
                "message_start",
                json!({ "message": message(json!([]), None, usage(1)) }),
            ),
            event(
                "content_block_start",
                json!({ "index": 0, "content_block": { "type": "text", "text": "" } }),
            ),
            event("ping", json!({})),
        ],
        chunks: (0..CHUNKS)
            .map(|_| {
                let delta = json!({ "type": "text_delta", "text": CHUNK });
                event("content_block_delta", json!({ "index": 0, "delta": delta }))
            })
            .collect(),
        closing: vec![
            event("content_block_stop", json!({ "index": 0 })),
            event(
                "message_delta",
                json!({
                    "delta": { "stop_reason": "end_turn", "stop_sequence": null },
                    "usage": { "output_tokens": 90 },
                }),
            ),
            event("message_stop", json!({})),
        ],
        mark: None,
        failure: Event::named("error", error(StatusCode::INTERNAL_SERVER_ERROR)),
        error,
    }
}

fn error(status: StatusCode) -> Value {
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::NOT_FOUND => "not_found_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": "The model failed." } })
}
