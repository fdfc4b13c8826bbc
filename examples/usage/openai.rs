//! OpenAI's chat completions and Responses.

use axum::{Json, http::StatusCode, response::Response};
use serde_json::{Value, json};

use crate::answer::{Answer, CHUNK, CHUNKS, Course, Event, text};

const CREATED: u64 = 1_795_392_000;

/// Answers `POST /v1/chat/completions`.
pub(crate) async fn chat_completions(Json(request): Json<Value>) -> Response {
    let model = request["model"].as_str().unwrap_or_default();
    let is_stream = request["stream"] == true;
    let includes_usage = request["stream_options"]["include_usage"] == true;
    chat_completion(model, includes_usage).respond(Course::of(model), is_stream)
}

fn chat_completion(model: &str, includes_usage: bool) -> Answer {
    let usage = json!({
        "prompt_tokens": 1_200,
        "completion_tokens": 300,
        "total_tokens": 1_500,
        "prompt_tokens_details": { "cached_tokens": 1_024, "audio_tokens": 0 },
        "completion_tokens_details": { "reasoning_tokens": 200, "audio_tokens": 0 },
    });
    let chunk = |choices: Value, usage: &Value| {
        let mut chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": CREATED, "model": model,
            "choices": choices,
        });
        if includes_usage {
            chunk["usage"] = usage.clone();
        }
        Event::new(chunk)
    };
    let delta = |delta: Value, finish: Option<&str>| {
        let choices = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
        chunk(choices, &Value::Null)
    };
    let mut closing = vec![delta(json!({}), Some("stop"))];
    if includes_usage {
        closing.push(chunk(json!([]), &usage));
    }
    let message = json!({ "role": "assistant", "content": text(), "refusal": null });
    Answer {
        whole: json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": CREATED, "model": model,
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
            "usage": usage,
        }),
        opening: vec![delta(json!({ "role": "assistant", "content": "" }), None)],
        chunks: (0..CHUNKS)
            .map(|_| delta(json!({ "content": CHUNK }), None))
            .collect(),
        closing,
        mark: Some("[DONE]"),
        failure: Event::new(error(StatusCode::INTERNAL_SERVER_ERROR)),
        error,
    }
}

/// Answers `POST /v1/responses`.
pub(crate) async fn responses(Json(request): Json<Value>) -> Response {
    let model = request["model"].as_str().unwrap_or_default();
    let is_stream = request["stream"] == true;
    response(model).respond(Course::of(model), is_stream)
}

fn response(model: &str) -> Answer {
    let usage = json!({
        "input_tokens": 360,
        "input_tokens_details": { "cached_tokens": 60 },
        "output_tokens": 870,
        "output_tokens_details": { "reasoning_tokens": 640 },
        "total_tokens": 1_230,
    });
    let in_state = |status: &str, output: Value, usage: Value| {
        json!({
            "id": "resp_1", "object": "response", "created_at": CREATED, "status": status, "model": model,
            "error": null, "instructions": null, "tools": [], "output": output, "usage": usage,
        })
    };
    let part = json!({ "type": "output_text", "text": text(), "annotations": [] });
    let item = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part],
    });
    let empty_item = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": [],
    });
    let empty_part = json!({ "type": "output_text", "text": "", "annotations": [] });
    let event = |name: &'static str, mut members: Value| {
        members["type"] = name.into();
        members["sequence_number"] = 0.into();
        Event::named(name, members)
    };
    let of_part = |name, mut members: Value| {
        members["item_id"] = "msg_1".into();
        members["output_index"] = 0.into();
        members["content_index"] = 0.into();
        event(name, members)
    };
    let whole = in_state("completed", json!([item]), usage);
    let running = in_state("in_progress", json!([]), Value::Null);
    let mut failed = in_state("failed", json!([]), Value::Null);
    failed["error"] = json!({ "code": "server_error", "message": "The model failed." });
    Answer {
        opening: vec![
            event("response.created", json!({ "response": running })),
            event(
                "response.output_item.added",
                json!({ "output_index": 0, "item": empty_item }),
            ),
            of_part("response.content_part.added", json!({ "part": empty_part })),
        ],
        chunks: (0..CHUNKS)
            .map(|_| {
                of_part(
                    "response.output_text.delta",
                    json!({ "delta": CHUNK, "logprobs": [] }),
                )
            })
            .collect(),
        closing: vec![
            of_part(
                "response.output_text.done",
                json!({ "text": text(), "logprobs": [] }),
            ),
            of_part("response.content_part.done", json!({ "part": part })),
            event(
                "response.output_item.done",
                json!({ "output_index": 0, "item": item }),
            ),
            event("response.completed", json!({ "response": whole })),
        ],
        mark: None,
        failure: event("response.failed", json!({ "response": failed })),
        whole,
        error,
    }
}

fn error(status: StatusCode) -> Value {
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    json!({
        "error": { "message": "The model failed.", "type": kind, "param": null, "code": null },
    })
}
