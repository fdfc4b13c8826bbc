//! The part of Gemini's API that this server speaks: `generateContent`, and the same as a stream.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, Sse},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use crate::{
    api::{Account, Body, Counted, ServedModels},
    error::ApiError,
    model::{self, Event, Finish, Generate, Prompt, Usage},
    openai::Sampling,
};

/// The body of `POST /v1/models/{model}:generateContent`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GenerateContentRequest {
    contents: Vec<Content>,
    system_instruction: Option<Content>,
    #[serde(default)]
    generation_config: GenerationConfig,
}

#[derive(Debug, Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Debug, Deserialize)]
struct Part {
    text: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig {
    max_output_tokens: Option<usize>,
    temperature: Option<f64>,
    stop_sequences: Option<Vec<String>>,
}

impl GenerateContentRequest {
    fn into_generate(self) -> Result<Generate, ApiError> {
        if self.contents.is_empty() {
            return Err(ApiError::invalid("contents", "Send at least one content."));
        }
        let contents = self.system_instruction.into_iter().chain(self.contents);
        let parts = contents.flat_map(|content| content.parts);
        let prompt = parts.map(|part| part.text).collect::<Vec<_>>();
        let GenerationConfig {
            max_output_tokens,
            temperature,
            stop_sequences,
        } = self.generation_config;
        Sampling::new(temperature, stop_sequences).into_generate(
            Prompt::Answer(prompt.join("\n")),
            max_output_tokens.unwrap_or(256),
        )
    }
}

/// Answers `POST /v1/models/{model}:{method}`. This router takes no literal behind a parameter, so that the method is
/// split off here.
pub(crate) async fn generate_content(
    State(models): State<Arc<ServedModels>>,
    Path(call): Path<String>,
    account: Account,
    body: Body<GenerateContentRequest>,
) -> Result<Response, ApiError> {
    let (model, method) = call.rsplit_once(':').unwrap_or((&call, ""));
    let is_stream = match method {
        "generateContent" => false,
        "streamGenerateContent" => true,
        _ => return Err(ApiError::unknown_path()),
    };
    let Json(request) = body?;
    let (name, model) = models.find(model)?;
    let request = request.into_generate()?;
    let counted = Counted::new(account, &model, &request);
    let events = model::stream(model, request);
    if !is_stream {
        let Some(completion) = model::collect(events).await else {
            return Err(ApiError::model_failed());
        };
        counted.settle(completion.usage);
        let answer = chunk(
            name,
            &completion.text,
            Some(completion.finish),
            Some(completion.usage),
        );
        return Ok(Json(answer).into_response());
    }
    let mut finish = None;
    let chunks = ReceiverStream::new(events).filter_map(move |event| {
        counted.count(&event);
        match event {
            Event::Text(text) => Some(chunk(name, &text, None, None)),
            Event::Finished(reason) => {
                finish = Some(reason);
                None
            }
            Event::Usage(usage) => Some(chunk(name, "", finish, Some(usage))),
        }
    });
    let stream = chunks.map(|chunk| SseEvent::default().json_data(chunk));
    Ok(Sse::new(stream).into_response())
}

/// An answer, or a part of it: both have the same form.
fn chunk(model: &str, text: &str, finish: Option<Finish>, usage: Option<Usage>) -> Value {
    let finish = finish.map(|finish| match finish {
        Finish::Stop => "STOP",
        Finish::Length => "MAX_TOKENS",
    });
    let mut candidate = json!({
        "index": 0,
        "content": { "role": "model", "parts": [{ "text": text }] },
    });
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    let mut answer = json!({ "candidates": [candidate], "modelVersion": model });
    if let Some(usage) = usage {
        answer["usageMetadata"] = json!({
            "promptTokenCount": usage.prompt_tokens,
            "candidatesTokenCount": usage.completion_tokens,
            "totalTokenCount": usage.total(),
        });
    }
    answer
}
