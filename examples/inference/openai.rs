//! The part of OpenAI's API that this server speaks. Fields it does not know are ignored.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::model::{Completion, Finish, Generate, MAX_TOKENS, Prompt, Usage, fresh_seed};

/// The model that writes.
pub(crate) const TEXT_MODEL: &str = "ngram";
/// A smaller one, which is cheaper.
pub(crate) const SMALL_MODEL: &str = "ngram-small";
/// The model that turns texts into vectors.
pub(crate) const EMBEDDING_MODEL: &str = "ngram-embedding";

/// The body of `POST /v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    messages: Vec<Message>,
    max_completion_tokens: Option<usize>,
    max_tokens: Option<usize>,
    #[serde(flatten)]
    sampling: Sampling,
    #[serde(flatten)]
    pub(crate) delivery: Delivery,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of text parts")]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    text: String,
}

impl Content {
    pub(crate) fn into_texts(self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text],
            Self::Parts(parts) => parts.into_iter().map(|part| part.text).collect(),
        }
    }
}

impl ChatRequest {
    pub(crate) fn into_generate(self) -> Result<Generate, ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages", "Send at least one message."));
        }
        let mut texts = Vec::new();
        for message in self.messages {
            texts.extend(message.content.into_iter().flat_map(Content::into_texts));
        }
        let max_tokens = self
            .max_completion_tokens
            .or(self.max_tokens)
            .unwrap_or(256);
        self.sampling
            .into_generate(Prompt::Answer(texts.join("\n")), max_tokens)
    }
}

/// The body of `POST /v1/completions`.
#[derive(Debug, Deserialize)]
pub(crate) struct CompletionRequest {
    pub(crate) model: String,
    prompt: OneOrMany,
    max_tokens: Option<usize>,
    #[serde(flatten)]
    sampling: Sampling,
    #[serde(flatten)]
    pub(crate) delivery: Delivery,
}

impl CompletionRequest {
    pub(crate) fn into_generate(self) -> Result<Generate, ApiError> {
        let Ok([prompt]) = <[String; 1]>::try_from(self.prompt.into_vec()) else {
            return Err(ApiError::invalid("prompt", "Send exactly one prompt."));
        };
        self.sampling
            .into_generate(Prompt::Continue(prompt), self.max_tokens.unwrap_or(16))
    }
}

/// Settings by which the tokens are chosen.
#[derive(Debug, Deserialize)]
pub(crate) struct Sampling {
    temperature: Option<f64>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    n: Option<u32>,
}

impl Sampling {
    pub(crate) fn new(temperature: Option<f64>, stop: Option<Vec<String>>) -> Self {
        Self {
            temperature,
            seed: None,
            stop: stop.map(OneOrMany::Many),
            n: None,
        }
    }

    pub(crate) fn into_generate(
        self,
        prompt: Prompt,
        max_tokens: usize,
    ) -> Result<Generate, ApiError> {
        let temperature = self.temperature.unwrap_or(1.0);
        if !(0.0..=2.0).contains(&temperature) {
            return Err(ApiError::invalid(
                "temperature",
                "Choose a temperature from 0 to 2.",
            ));
        }
        if !(1..=MAX_TOKENS).contains(&max_tokens) {
            let message = format!("Ask for 1 to {MAX_TOKENS} tokens.");
            return Err(ApiError::invalid("max_tokens", message));
        }
        if self.n.is_some_and(|n| n != 1) {
            return Err(ApiError::invalid(
                "n",
                "Only one choice a request is supported.",
            ));
        }
        let stop = self.stop.map_or_else(Vec::new, OneOrMany::into_vec);
        if stop.len() > 4 || stop.iter().any(String::is_empty) {
            return Err(ApiError::invalid(
                "stop",
                "Send up to four stop texts, none of them empty.",
            ));
        }
        Ok(Generate {
            prompt,
            max_tokens,
            temperature,
            seed: self.seed.map_or_else(fresh_seed, |seed| seed as u64),
            stop,
        })
    }
}

/// Settings by which the answer is sent.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Delivery {
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Delivery {
    pub(crate) fn is_stream(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(crate) fn includes_usage(&self) -> bool {
        let options = self.stream_options;
        options
            .and_then(|options| options.include_usage)
            .unwrap_or(false)
    }
}

/// The body of `POST /v1/embeddings`.
#[derive(Debug, Deserialize)]
pub(crate) struct EmbeddingRequest {
    pub(crate) model: String,
    pub(crate) input: OneOrMany,
    pub(crate) dimensions: Option<usize>,
    #[serde(default)]
    pub(crate) encoding_format: Encoding,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    #[default]
    Float,
    /// The bytes of the floats, little end first. The Python SDK asks for this by itself.
    Base64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// Writes one answer, whole or in chunks.
#[derive(Debug)]
pub(crate) struct Answer {
    form: Form,
    /// The name of the model that writes.
    model: &'static str,
    id: String,
    created: u64,
}

/// The two endpoints differ in the form of their answers alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Chat,
    Completion,
}

impl Answer {
    pub(crate) fn new(form: Form, model: &'static str) -> Self {
        let prefix = match form {
            Form::Chat => "chatcmpl",
            Form::Completion => "cmpl",
        };
        Self {
            form,
            model,
            id: format!("{prefix}-{:016x}", fresh_seed()),
            created: unix_time(),
        }
    }

    pub(crate) fn whole(&self, completion: &Completion) -> Value {
        let finish = completion.finish.as_str();
        let (object, choice) = match self.form {
            Form::Chat => (
                "chat.completion",
                json!({
                    "index": 0,
                    "message": { "role": "assistant", "content": completion.text, "refusal": null },
                    "logprobs": null,
                    "finish_reason": finish,
                }),
            ),
            Form::Completion => (
                "text_completion",
                json!({
                    "index": 0,
                    "text": completion.text,
                    "logprobs": null,
                    "finish_reason": finish,
                }),
            ),
        };
        self.envelope(object, &[choice], Some(usage(completion.usage)))
    }

    /// A chat stream says first who speaks.
    pub(crate) fn opening(&self, with_usage: bool) -> Option<Value> {
        match self.form {
            Form::Chat => {
                let delta = json!({ "role": "assistant", "content": "" });
                Some(self.chunk(json!({ "delta": delta }), None, with_usage))
            }
            Form::Completion => None,
        }
    }

    pub(crate) fn text(&self, text: &str, with_usage: bool) -> Value {
        let piece = match self.form {
            Form::Chat => json!({ "delta": { "content": text } }),
            Form::Completion => json!({ "text": text }),
        };
        self.chunk(piece, None, with_usage)
    }

    pub(crate) fn finished(&self, finish: Finish, with_usage: bool) -> Value {
        let piece = match self.form {
            Form::Chat => json!({ "delta": {} }),
            Form::Completion => json!({ "text": "" }),
        };
        self.chunk(piece, Some(finish), with_usage)
    }

    /// The last chunk has no choice, only the counts.
    pub(crate) fn usage(&self, counts: Usage) -> Value {
        self.envelope(self.chunk_object(), &[], Some(usage(counts)))
    }

    fn chunk(&self, mut choice: Value, finish: Option<Finish>, with_usage: bool) -> Value {
        choice["index"] = json!(0);
        choice["logprobs"] = Value::Null;
        choice["finish_reason"] = json!(finish.map(Finish::as_str));
        let usage = with_usage.then_some(Value::Null);
        self.envelope(self.chunk_object(), &[choice], usage)
    }

    fn chunk_object(&self) -> &'static str {
        match self.form {
            Form::Chat => "chat.completion.chunk",
            Form::Completion => "text_completion",
        }
    }

    fn envelope(&self, object: &str, choices: &[Value], usage: Option<Value>) -> Value {
        let mut envelope = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            envelope["usage"] = usage;
        }
        envelope
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}

fn unix_time() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs())
}
