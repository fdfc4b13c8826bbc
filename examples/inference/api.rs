//! The handlers.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::sse::{Event as SseEvent, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, iter, once};

use tower_throttle::{Usage, usage::TokenUsage};

use crate::error::ApiError;
use crate::model::{self, DIMENSIONS, Event, Generate, Model, Prompt};
use crate::openai::{
    Answer, ChatRequest, CompletionRequest, Delivery, EMBEDDING_MODEL, EmbeddingRequest, Encoding,
    Form, SMALL_MODEL, TEXT_MODEL,
};

/// The models that write, by their names.
pub(crate) struct ServedModels(pub(crate) Vec<(&'static str, Arc<Model>)>);

impl ServedModels {
    pub(crate) fn find(&self, name: &str) -> Result<(&'static str, Arc<Model>), ApiError> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.cloned().ok_or_else(|| ApiError::unknown_model(name))
    }
}

pub(crate) type Body<T> = Result<Json<T>, JsonRejection>;

/// The account of a request's tokens: open where they are limited.
pub(crate) type Account = Option<Extension<Usage>>;

pub(crate) async fn chat_completions(
    State(models): State<Arc<ServedModels>>,
    account: Account,
    body: Body<ChatRequest>,
) -> Result<Response, ApiError> {
    let Json(request) = body?;
    let model = models.find(&request.model)?;
    let (delivery, form) = (request.delivery, Form::Chat);
    let answer = generate(model, request.into_generate()?, delivery, form, account);
    answer.await
}

pub(crate) async fn completions(
    State(models): State<Arc<ServedModels>>,
    account: Account,
    body: Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    let Json(request) = body?;
    let model = models.find(&request.model)?;
    let (delivery, form) = (request.delivery, Form::Completion);
    let answer = generate(model, request.into_generate()?, delivery, form, account);
    answer.await
}

/// Settles what no model has worked for at nothing: invalid requests, and those that read what is served. Others whose
/// handler counts nothing pay their estimate.
pub(crate) async fn settle_unserved(request: Request, next: Next) -> Response {
    let account = request.extensions().get::<Usage>().cloned();
    let is_read = request.method() == Method::GET;
    let response = next.run(request).await;
    let is_unserved = is_read || response.status().is_client_error();
    if let Some(account) = account.filter(|_| is_unserved) {
        account.settle(0);
    }
    response
}

/// The tokens of one answer, which its account is charged with as they are produced.
pub(crate) struct Counted {
    account: Account,
    input: usize,
}

impl Counted {
    /// Counts the prompt, before the first token: a client that goes away pays for it too.
    pub(crate) fn new(account: Account, model: &Model, request: &Generate) -> Self {
        let (Prompt::Continue(prompt) | Prompt::Answer(prompt)) = &request.prompt;
        let input = model.count(prompt);
        if let Some(Extension(account)) = &account {
            account.add_tokens(TokenUsage::new().input(input as u64));
        }
        Self { account, input }
    }

    /// The tokens of the prompt.
    pub(crate) fn input(&self) -> usize {
        self.input
    }

    /// Counts tokens as they are sent, so that a client that goes away pays for what it got, and settles at the end.
    pub(crate) fn count(&self, event: &Event) {
        match (&self.account, event) {
            (Some(Extension(account)), Event::Text(_)) => {
                account.add_tokens(TokenUsage::new().output(1));
            }
            (_, Event::Usage(usage)) => self.settle(*usage),
            _ => {}
        }
    }

    /// Settles the account at what the model counted.
    pub(crate) fn settle(&self, usage: model::Usage) {
        if let Some(Extension(account)) = &self.account {
            account.settle_tokens(by_kind(usage));
        }
    }
}

/// The counts of an answer by kind, which have different prices.
fn by_kind(usage: model::Usage) -> TokenUsage {
    TokenUsage::new()
        .input(usage.prompt_tokens as u64)
        .output(usage.completion_tokens as u64)
}

async fn generate(
    (name, model): (&'static str, Arc<Model>),
    request: Generate,
    delivery: Delivery,
    form: Form,
    account: Account,
) -> Result<Response, ApiError> {
    let counted = Counted::new(account, &model, &request);
    let events = model::stream(model, request);
    let answer = Answer::new(form, name);
    if delivery.is_stream() {
        return Ok(server_sent_events(
            answer,
            events,
            delivery.includes_usage(),
            counted,
        ));
    }
    match model::collect(events).await {
        Some(completion) => {
            counted.settle(completion.usage);
            Ok(Json(answer.whole(&completion)).into_response())
        }
        None => Err(ApiError::model_failed()),
    }
}

fn server_sent_events(
    answer: Answer,
    events: Receiver<Event>,
    with_usage: bool,
    counted: Counted,
) -> Response {
    let opening = iter(answer.opening(with_usage));
    let chunks = ReceiverStream::new(events).filter_map(move |event| {
        counted.count(&event);
        match event {
            Event::Text(text) => Some(answer.text(&text, with_usage)),
            Event::Finished(finish) => Some(answer.finished(finish, with_usage)),
            Event::Usage(counts) => with_usage.then(|| answer.usage(counts)),
        }
    });
    let done = once(Ok(SseEvent::default().data("[DONE]")));
    let stream = opening
        .chain(chunks)
        .map(|chunk| SseEvent::default().json_data(chunk))
        .chain(done);
    Sse::new(stream).into_response()
}

pub(crate) async fn embeddings(
    State(models): State<Arc<ServedModels>>,
    account: Account,
    body: Body<EmbeddingRequest>,
) -> Result<Json<Value>, ApiError> {
    let Json(request) = body?;
    known(&request.model, EMBEDDING_MODEL)?;
    let dimensions = request.dimensions.unwrap_or(DIMENSIONS);
    if !(1..=DIMENSIONS).contains(&dimensions) {
        let message = format!("Ask for 1 to {DIMENSIONS} dimensions.");
        return Err(ApiError::invalid("dimensions", message));
    }
    let texts = request.input.into_vec();
    if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
        return Err(ApiError::invalid(
            "input",
            "Send at least one text, and none that is empty.",
        ));
    }

    let encoding = request.encoding_format;
    let (_, model) = models.find(TEXT_MODEL)?;
    let work = move || {
        let tokens: usize = texts.iter().map(|text| model.count(text)).sum();
        if let Some(Extension(account)) = account {
            account.settle_tokens(TokenUsage::new().input(tokens as u64));
        }
        let vectors = texts.iter().map(|text| model::embed(text, dimensions));
        let data: Vec<Value> = vectors
            .enumerate()
            .map(|(index, vector)| {
                let embedding = encode(&vector, encoding);
                json!({ "object": "embedding", "index": index, "embedding": embedding })
            })
            .collect();
        json!({
            "object": "list",
            "data": data,
            "model": EMBEDDING_MODEL,
            "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
        })
    };
    let list = tokio::task::spawn_blocking(work).await;
    list.map(Json).map_err(|_| ApiError::model_failed())
}

fn encode(vector: &[f32], encoding: Encoding) -> Value {
    match encoding {
        Encoding::Float => json!(vector),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            json!(BASE64_STANDARD.encode(bytes))
        }
    }
}

pub(crate) async fn models() -> Json<Value> {
    let data = [TEXT_MODEL, SMALL_MODEL, EMBEDDING_MODEL].map(describe);
    Json(json!({ "object": "list", "data": data }))
}

pub(crate) async fn model(Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    match id.as_str() {
        TEXT_MODEL | SMALL_MODEL | EMBEDDING_MODEL => Ok(Json(describe(&id))),
        _ => Err(ApiError::unknown_model(&id)),
    }
}

fn describe(id: &str) -> Value {
    // The models are as old as the corpus: 23 November 2026.
    json!({ "id": id, "object": "model", "created": 1_795_392_000, "owned_by": "tower-throttle" })
}

fn known(asked: &str, model: &str) -> Result<(), ApiError> {
    if asked == model {
        Ok(())
    } else {
        Err(ApiError::unknown_model(asked))
    }
}

pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}
