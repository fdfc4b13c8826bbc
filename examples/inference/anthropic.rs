//! The part of Anthropic's API that this server speaks: messages, whole and as a stream.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, Sse},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::{StreamExt as _, iter, once, wrappers::ReceiverStream};

use crate::{
    api::{Account, Body, Counted, ServedModels},
    error::ApiError,
    model::{self, Completion, Event, Finish, Generate, Usage, fresh_seed},
    openai::{Content, Sampling},
};

/// The body of `POST /v1/messages`.
#[derive(Debug, Deserialize)]
pub(crate) struct MessagesRequest {
    model: String,
    max_tokens: usize,
    system: Option<Content>,
    messages: Vec<Message>,
    stop_sequences: Option<Vec<String>>,
    temperature: Option<f64>,
    stream: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Content,
}

impl MessagesRequest {
    fn into_generate(self) -> Result<Generate, ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages", "Send at least one message."));
        }
        let contents = self.messages.into_iter().map(|message| message.content);
        let texts = self.system.into_iter().chain(contents);
        let prompt = texts.flat_map(Content::into_texts).collect::<Vec<_>>();
        let sampling = Sampling::new(self.temperature, self.stop_sequences);
        sampling.into_generate(model::Prompt::Answer(prompt.join("\n")), self.max_tokens)
    }
}

/// Answers `POST /v1/messages`.
pub(crate) async fn messages(
    State(models): State<Arc<ServedModels>>,
    account: Account,
    body: Body<MessagesRequest>,
) -> Result<Response, ApiError> {
    let Json(request) = body?;
    let (name, model) = models.find(&request.model)?;
    let is_stream = request.stream.unwrap_or(false);
    let request = request.into_generate()?;
    let counted = Counted::new(account, &model, &request);
    let events = model::stream(model, request);
    let id = format!("msg_{:016x}", fresh_seed());
    if !is_stream {
        let Some(completion) = model::collect(events).await else {
            return Err(ApiError::model_failed());
        };
        counted.settle(completion.usage);
        return Ok(Json(whole(&id, name, &completion)).into_response());
    }
    let start = Usage {
        prompt_tokens: counted.input(),
        completion_tokens: 0,
    };
    let opening = [
        json!({ "type": "message_start", "message": message(&id, name, &json!([]), None, start) }),
        json!({
            "type": "content_block_start", "index": 0,
            "content_block": { "type": "text", "text": "" },
        }),
    ];
    let mut finish = None;
    let chunks = ReceiverStream::new(events).map(move |event| {
        counted.count(&event);
        match event {
            Event::Text(text) => json!({
                "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": text },
            }),
            Event::Finished(reason) => {
                finish = Some(reason);
                json!({ "type": "content_block_stop", "index": 0 })
            }
            // The count is that of the whole message so far.
            Event::Usage(usage) => json!({
                "type": "message_delta",
                "delta": { "stop_reason": finish.map(stop_reason), "stop_sequence": null },
                "usage": { "output_tokens": usage.completion_tokens },
            }),
        }
    });
    let stop = once(json!({ "type": "message_stop" }));
    let stream = iter(opening).chain(chunks).chain(stop).map(|event| {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        SseEvent::default().event(kind).json_data(event)
    });
    Ok(Sse::new(stream).into_response())
}

fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
    }
}

fn whole(id: &str, model: &str, completion: &Completion) -> Value {
    let content = json!([{ "type": "text", "text": completion.text }]);
    message(
        id,
        model,
        &content,
        Some(completion.finish),
        completion.usage,
    )
}

fn message(id: &str, model: &str, content: &Value, finish: Option<Finish>, usage: Usage) -> Value {
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": finish.map(stop_reason),
        "stop_sequence": null,
        "usage": { "input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens },
    })
}
