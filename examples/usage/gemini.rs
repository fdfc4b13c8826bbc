//! Gemini's `generateContent`, and the same as a stream.

use axum::{Json, extract::Path, http::StatusCode, response::Response};
use serde_json::{Value, json};

use crate::answer::{Answer, CHUNK, CHUNKS, Course, Event, text};

/// Answers `POST /v1beta/models/{model}:{method}`.
pub(crate) async fn generate_content(Path(call): Path<String>, Json(_): Json<Value>) -> Response {
    let (model, method) = call.rsplit_once(':').unwrap_or((&call, ""));
    let (is_stream, course) = match method {
        "generateContent" => (false, Course::of(model)),
        "streamGenerateContent" => (true, Course::of(model)),
        _ => (false, Course::Error(StatusCode::NOT_FOUND)),
    };
    content(model).respond(course, is_stream)
}

fn content(model: &str) -> Answer {
    // Cached input is a part of the prompt; results of tools and thoughts are beside prompt and answer.
    let usage = json!({
        "promptTokenCount": 100,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 80,
        "thoughtsTokenCount": 300,
        "toolUsePromptTokenCount": 7,
        "totalTokenCount": 487,
    });
    let answer = |text: &str, finish: Option<&str>, usage: Value| {
        let mut candidate = json!({
            "index": 0,
            "content": { "role": "model", "parts": [{ "text": text }] },
        });
        if let Some(finish) = finish {
            candidate["finishReason"] = finish.into();
        }
        json!({ "candidates": [candidate], "modelVersion": model, "responseId": "1", "usageMetadata": usage })
    };
    // Each event has the counts so far.
    let chunks = (1..=CHUNKS).map(|number| {
        let tokens = 4 * number;
        let so_far = json!({
            "promptTokenCount": 100,
            "cachedContentTokenCount": 40,
            "candidatesTokenCount": tokens,
            "totalTokenCount": 100 + tokens,
        });
        Event::new(answer(CHUNK, None, so_far))
    });
    Answer {
        opening: vec![],
        chunks: chunks.collect(),
        closing: vec![Event::new(answer("", Some("STOP"), usage.clone()))],
        whole: answer(&text(), Some("STOP"), usage),
        mark: None,
        failure: Event::new(error(StatusCode::INTERNAL_SERVER_ERROR)),
        error,
    }
}

fn error(status: StatusCode) -> Value {
    let name = match status {
        StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        _ => "INTERNAL",
    };
    json!({ "error": { "code": status.as_u16(), "message": "The model failed.", "status": name } })
}
