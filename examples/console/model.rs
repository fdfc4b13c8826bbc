//! The routes of a model server, with the model of the other examples.

#[path = "../model/mod.rs"]
mod small;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router, body::Body};
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use self::small::{Device, Event, Generate, Model, Prompt, embed, fresh_seed, stream};

/// The model's speed: as slow as a larger model, so that slots are seen.
const TOKENS_PER_SECOND: u32 = 60;

pub(crate) fn routes() -> Router {
    let model = Arc::new(Model::train().on(Device::new(TOKENS_PER_SECOND)));
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/embeddings", post(embeddings))
        .route(
            "/v1/models",
            get(|| async { Json(json!({ "data": [{ "id": "ngram" }] })) }),
        )
        .route("/health", get(|| async { "well" }))
        .with_state(model)
}

/// Sends some words as they are written.
async fn chat(State(model): State<Arc<Model>>) -> impl IntoResponse {
    let generate = Generate {
        prompt: Prompt::Answer("Tell me about the river.".to_owned()),
        max_tokens: 24,
        temperature: 0.8,
        seed: fresh_seed(),
        stop: Vec::new(),
    };
    let words = ReceiverStream::new(stream(model, generate));
    let words = words.filter_map(|event| match event {
        Event::Text(text) => Some(Ok::<_, Infallible>(text)),
        _ => None,
    });
    (
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        Body::from_stream(words),
    )
}

async fn embeddings() -> Json<Value> {
    Json(json!({ "data": [{ "embedding": embed("a river", 64) }] }))
}
