//! The usage that answers report, charged by a throttle whose handlers count nothing.
//!
//! ```text
//! cargo run --example usage
//! ```
//!
//! The server speaks the APIs of OpenAI (chat completions and Responses), Anthropic and Gemini, and its answers are
//! fixed. The name of the model decides how an answer goes:
//!
//! | model | answer |
//! |---|---|
//! | `complete` | to its end, with its usage |
//! | `no-usage` | to its end, without usage |
//! | `breaks-off` | the connection breaks in the middle |
//! | `hangs` | nothing more comes after the middle, until the client goes away |
//! | `fails-midway` | as a stream, an error in the middle; as a whole, status 500 |
//! | `error-500`, `error-429` | an error of the model server |
//!
//! `GET /charged` tells what all requests were charged, and how many answers had no usage:
//!
//! ```sh
//! ask() { curl -s "http://127.0.0.1:3006/$1" -H 'authorization: Bearer sk-local' "${@:2}"; }
//! chat='{"model":"complete","max_tokens":8,"messages":[{"role":"user","content":"Tell me about the river."}]}'
//!
//! ask v1/chat/completions -H 'content-type: application/json' -d "$chat"
//! ask charged
//! ```
//!
//! `openai.rs`, `anthropic.rs` and `gemini.rs` have the answers, and `answer.rs` sends them.

mod answer;
mod anthropic;
mod gemini;
#[path = "../host/mod.rs"]
mod host;
mod openai;

use std::process::ExitCode;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
    serve::ListenerExt as _,
};
use serde_json::{Map, Value, json};
use tower_throttle::{
    Clients, Handle, Limits, Price, Prices, Rate, Rules, RulesError, Spend, ThrottleLayer,
    client::{ClientKey, RequestHead},
    limit::Scope,
    snapshot::{LimitSnapshot, MissingUsage},
    usage::{BodyEstimate, Estimate},
};

use crate::host::{asked_to_end, listen, no_delay, tell, variable};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: usage

Environment variables:
  ADDR  where to listen (default 127.0.0.1:3006, port 0 takes a free one)";

/// Balances refill by one unit an hour, so that a charge can be read to the unit.
fn rules() -> Rules {
    let all = Limits::new()
        .in_flight(1_000)
        .tokens(Rate::per_hour(1).burst(1_000_000).named("tokens"))
        .input_tokens(Rate::per_hour(1).burst(1_000_000).named("input_tokens"))
        .output_tokens(Rate::per_hour(1).burst(1_000_000).named("output_tokens"))
        .spend(Spend::per_hour("0.000001").burst("1.00").named("spend"));
    let each = Limits::new()
        .tokens(Rate::per_hour(1).burst(4_000).named("client_tokens"))
        .spend(
            Spend::per_hour("0.000001")
                .burst("0.02")
                .named("client_spend"),
        );
    let price = Price::new()
        .input("3.00")
        .cached_input("0.30")
        .cache_write("3.75")
        .output("15.00");
    Rules::new()
        .total(all)
        .clients(Clients::by(|head| key(&head).map(ClientKey::from)).each(each))
        .prices(Prices::new().otherwise(price))
        // A failure costs nothing here, and what was reserved on the other routes.
        .route("POST /v1/responses", Limits::new().refund_failures(true))
        .estimate(Estimate::from_body(BodyEstimate::new().output(200)).or(2_000))
}

/// The key of a client, in the field of its API.
fn key<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    let bearer = head.field("authorization");
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    bearer
        .or_else(|| head.field("x-api-key"))
        .or_else(|| head.field("x-goog-api-key"))
}

fn throttle() -> Result<ThrottleLayer, RulesError> {
    ThrottleLayer::builder(rules())
        .usage_from_answers(true)
        .build()
}

/// Answers `GET /charged`. No limit holds for this route.
async fn charged(State(handle): State<Handle>) -> Json<Value> {
    let snapshot = handle.snapshot();
    let in_flight = snapshot.limits.iter().find_map(|limit| limit.in_flight);
    let total = snapshot
        .limits
        .iter()
        .filter(|limit| matches!(limit.scope, Scope::Total) && limit.in_flight.is_none());
    let charged: Map<_, _> = total
        .map(|limit| (limit.name.to_string(), used(limit).into()))
        .collect();
    let missing = snapshot.routes.iter().map(|route| route.missing_usage);
    let count =
        |of: fn(&MissingUsage) -> u64| -> u64 { missing.clone().map(|missing| of(&missing)).sum() };
    Json(json!({
        "in_flight": in_flight,
        "charged": charged,
        "missing_usage": {
            "encoding": count(|missing| missing.encoding),
            "cut": count(|missing| missing.cut),
            "absent": count(|missing| missing.absent),
            "malformed": count(|missing| missing.malformed),
            "implausible": count(|missing| missing.implausible),
        },
        "refunded": snapshot.routes.iter().map(|route| route.refunded).sum::<u64>(),
    }))
}

/// The units of a balance that are taken: those of its burst, and those owed beyond it.
fn used(limit: &LimitSnapshot) -> Option<u64> {
    Some(limit.burst - limit.remaining? + limit.owed?)
}

#[tokio::main]
async fn main() -> ExitCode {
    host::run(USAGE, serve()).await
}

async fn serve() -> Result<(), BoxError> {
    let throttle = throttle()?;
    let app = Router::new()
        .route("/v1/chat/completions", post(openai::chat_completions))
        .route("/v1/responses", post(openai::responses))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/models/{call}", post(gemini::generate_content))
        .route("/v1beta/models/{call}", post(gemini::generate_content))
        .layer(throttle.clone())
        // Outermost: reads the text and the largest answer, for the estimate.
        .layer(throttle.peek_layer())
        // Outside of both.
        .route("/charged", get(charged))
        .with_state(throttle.handle());

    let listener = listen(&variable("ADDR", "127.0.0.1:3006")).await?;
    let address = listener.local_addr()?;
    tell(format_args!("listening on http://{address}"));
    tell(format_args!("try: curl http://{address}/charged"));
    axum::serve(listener.tap_io(no_delay), app)
        .with_graceful_shutdown(asked_to_end())
        .await?;
    Ok(())
}
