//! Two language models behind the APIs of three vendors, throttled by method and path, model and client.
//!
//! ```text
//! cargo run --example inference
//! ```
//!
//! The example needs no download and no key. Then, from another terminal, the burst passes and one more is refused:
//!
//! ```sh
//! ask() {
//!   curl -si "http://127.0.0.1:3000/v1/$1" -H 'authorization: Bearer sk-local' \
//!     -H 'content-type: application/json' "${@:2}"
//! }
//! chat='{"model":"ngram","messages":[{"role":"user","content":"Tell me about the river."}]}'
//!
//! for n in $(seq 11); do ask chat/completions -d "$chat" | head -1; done   # ten times 200, once 429
//! ask chat/completions -d "$chat"                                          # the refusal as a whole
//! ask embeddings -d '{"model":"ngram-embedding","input":"a river"}'        # another route is untouched
//! sleep 1; ask chat/completions -d "$chat"                                 # after the told wait it passes
//! ```
//!
//! The server logs one line a request, with the decision of the throttle:
//!
//! ```text
//! INFO request{method=POST route="/v1/embeddings"}: status=200 latency=530.105µs throttle=admitted (embeddings: 39 left) (model: 3 left)
//! INFO request{method=POST route="/v1/chat/completions"}: status=429 latency=208.328µs throttle=refused (tokens: 59867 left) (chat: 0 left) (model: 4 left), again in 619.92ms
//! ```
//!
//! The server speaks the APIs of OpenAI, of Anthropic (`/v1/messages`) and of Gemini
//! (`/v1/models/{model}:generateContent`).
//!
//! Read `app.rs` first: it has the limits, which are in `limits.toml` as a file has them, and the order of the layers.
//! `api.rs` has the handlers, `openai.rs`, `anthropic.rs` and `gemini.rs` what goes over the wire, `error.rs` the one
//! shape of all errors, `guard.rs` the checks at the door, `log.rs` the log line. The model is in `../model`.
//!
//! `--help` lists the environment variables that it reads.

mod anthropic;
mod api;
mod app;
mod error;
mod gemini;
mod guard;
#[path = "../host/mod.rs"]
mod host;
mod log;
#[path = "../model/mod.rs"]
mod model;
mod openai;
#[path = "../pace/mod.rs"]
mod pace;

use std::env;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use axum::serve::ListenerExt as _;
use tower_throttle::{ThrottleLayer, decision::DecisionIn};

use crate::api::ServedModels;
use crate::guard::ApiKey;
use crate::host::{asked_to_end, listen, no_delay, parsed, tell, variable};
use crate::model::{Device, Model};
use crate::openai::{SMALL_MODEL, TEXT_MODEL};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: inference

Environment variables:
  ADDR               where to listen (default 127.0.0.1:3000, port 0 takes a free one)
  API_KEY            the key of its clients (default sk-local)
  TOKENS_PER_SECOND  of all answers together, as a larger model has it (default: as many as the processor can)
  BUDGET             the money that a client may spend in an hour (default 10.00)
  SLOWER             a factor by which limits refill more slowly (default 1)";

/// Both models, each on a device of its own.
fn models() -> Result<ServedModels, BoxError> {
    let on_device = |model: Model| -> Result<Arc<Model>, BoxError> {
        Ok(Arc::new(match env::var_os("TOKENS_PER_SECOND") {
            Some(_) => model.on(Device::new(parsed("TOKENS_PER_SECOND", "")?)),
            None => model,
        }))
    };
    Ok(ServedModels(vec![
        (TEXT_MODEL, on_device(Model::train())?),
        (SMALL_MODEL, on_device(Model::train_small())?),
    ]))
}

#[tokio::main]
async fn main() -> ExitCode {
    host::run(USAGE, serve()).await
}

async fn serve() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();

    let key = variable("API_KEY", "sk-local");

    let throttle = ThrottleLayer::builder(app::rules(&variable("BUDGET", "10.00")))
        .decision(DecisionIn::Response)
        .build()?;
    let app = app::app(models()?, ApiKey::new(key.clone()), throttle);

    let listener = listen(&variable("ADDR", "127.0.0.1:3000")).await?;
    let address = listener.local_addr()?;
    tell(format_args!("listening on http://{address}"));
    tell(format_args!(
        "try: curl -i http://{address}/v1/chat/completions -H 'authorization: Bearer {key}' \
         -H 'content-type: application/json' \
         -d '{{\"model\":\"ngram\",\"messages\":[{{\"role\":\"user\",\"content\":\"Tell me about the river.\"}}]}}'"
    ));

    // HTTP/1.1, and HTTP/2 with prior knowledge, on the same port.
    axum::serve(listener.tap_io(no_delay), app)
        .with_graceful_shutdown(asked_to_end())
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, StatusCode},
    };
    use serde_json::Value;
    use tower::ServiceExt as _;
    use tower_throttle::Decision;

    use super::*;

    const CHAT: &str = r#"{
        "model": "ngram", "max_tokens": 5,
        "messages": [{ "role": "user", "content": "Tell me about the river." }]
    }"#;

    #[tokio::test(start_paused = true)]
    async fn an_answer_costs_the_prices_of_its_tokens_by_kind() {
        let throttle = ThrottleLayer::builder(app::rules("10.00"))
            .decision(DecisionIn::Response)
            .build()
            .expect("limits");
        let models = ServedModels(vec![(TEXT_MODEL, Arc::new(Model::train_small()))]);
        let app = app::app(models, ApiKey::new("key".to_owned()), throttle);
        let ask = || async {
            let request = Request::post("/v1/chat/completions")
                .header("authorization", "Bearer key")
                .header("content-type", "application/json")
                .body(Body::from(CHAT))
                .expect("a request");
            let response = app.clone().oneshot(request).await.expect("never fails");
            assert_eq!(response.status(), StatusCode::OK);
            let decision = response.extensions().get::<Decision>();
            let decision = decision.expect("a decision").clone();
            let mut limits = decision.limits();
            let budget = limits.find(|limit| limit.name() == "budget");
            let left = budget.expect("a budget").remaining();
            let body = to_bytes(response.into_body(), usize::MAX).await;
            let answer: Value = serde_json::from_slice(&body.expect("a body")).expect("JSON");
            let tokens = |kind: &str| answer["usage"][kind].as_u64().expect("a count");
            (left, tokens("prompt_tokens"), tokens("completion_tokens"))
        };

        let (before, input, output) = ask().await;
        let (after, ..) = ask().await;
        assert!(input > output && output > 0, "{input} and {output}");
        // 0.50 and 1.50 for a million. Both requests reserve the same.
        assert_eq!(before - after, (5 * input + 15 * output).div_ceil(10));
    }

    #[cfg(feature = "config")]
    #[test]
    fn the_file_has_the_same_limits() {
        use tower_throttle::Rules;

        let file = Rules::from_toml(include_str!("limits.toml")).expect("rules");
        // Identities are the same in both: a file has none that are code.
        let [file, code] = [file, app::rules("10.00")].map(|rules| {
            let rules = rules.map_clients(|clients| clients.identify_by(|_| None));
            format!("{rules:#?}")
        });
        assert_eq!(file, code);
    }
}
