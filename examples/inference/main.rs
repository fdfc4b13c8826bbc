//! A language model behind an OpenAI-compatible API, throttled by method and path.
//!
//! ```text
//! cargo run --example inference
//! ```
//!
//! Read this file first: the limits are in [`rules`], and the order of the layers in [`app`].
//! `api.rs` has the handlers, `openai.rs` what goes over the wire, `error.rs` the one shape of all
//! errors, `guard.rs` the checks at the door, `log.rs` the log line. The model is in `../model`.
//!
//! Environment: `ADDR` (default `127.0.0.1:3000`, port 0 takes a free one), `API_KEY` (default
//! `sk-local`), and `SPREAD=off`, which has all who are refused told the same wait.

mod api;
mod error;
mod guard;
mod log;
#[path = "../model/mod.rs"]
mod model;
mod openai;

use std::env;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_throttle::{
    Clients, EXPOSE_HEADERS, Estimate, InFlight, Limits, Plan, Rate, Rules, RulesError,
    ThrottleLayer, Undeclared,
};

use crate::guard::ApiKey;
use crate::model::Model;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The largest request body, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

/// How long a response may take to begin.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many answers the model writes at a time.
const SLOTS: u64 = 4;

/// How often each route may be called, how much of the model each client gets, and how much it can do at once.
fn rules() -> Rules {
    Rules::new()
        // An answer holds its slot until its last token is sent. Some may wait half a second for one; who
        // comes then, or waits in vain, is told that the server is busy.
        .total(
            Limits::new()
                .in_flight(InFlight::new(SLOTS).named("model"))
                .max_wait(Duration::from_millis(500))
                .max_waiting(64),
        )
        .route(
            "POST /v1/chat/completions",
            Limits::new()
                .rate(Rate::per_minute(60).burst(10).named("chat"))
                // What half of that would refuse is logged, and nobody is refused.
                .rate(Rate::per_minute(30).burst(5).named("stricter").shadow()),
        )
        // Of the model's tokens each key has a budget: so much is reserved for a chat, and settled when it is
        // known (see `api.rs`).
        .clients(
            Clients::by_bearer().or_address().each(
                Plan::new(Limits::unlimited()).route(
                    "POST /v1/chat/completions",
                    Limits::new()
                        .tokens(Rate::per_minute(60_000).named("tokens"))
                        .publish(false),
                ),
            ),
        )
        .estimate(Estimate::fixed(300))
        .route(
            "POST /v1/completions",
            Rate::per_minute(60).burst(10).named("completions"),
        )
        .route(
            "POST /v1/embeddings",
            Rate::per_second(20).burst(40).named("embeddings"),
        )
        .route("GET /health", Limits::unlimited())
        // Everything else, unknown paths included, shares one bucket.
        .default_route(Rate::per_second(10).burst(20))
        .undeclared(Undeclared::Shared)
}

/// Whether those who are refused together are told different waits.
fn spread() -> bool {
    env::var("SPREAD").map_or(true, |spread| spread != "off")
}

/// The routes, and around them the layers: a request passes these from top to bottom, a response
/// from bottom to top.
fn app(model: Arc<Model>, key: ApiKey) -> Result<Router, RulesError> {
    let layers = ServiceBuilder::new()
        // 1. Sees every request and every answer, the refused ones too.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(log::span)
                .on_response(log::line),
        )
        // 2. Browsers may read a refusal only if it carries the CORS headers. Preflights end here.
        .layer(
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods([Method::GET, Method::POST])
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(EXPOSE_HEADERS),
        )
        // 3. Strangers are turned away before they can spend anybody's budget.
        .layer(from_fn_with_state(key, guard::require_key))
        // 4. The throttle: what it refuses costs no more than this.
        .layer(ThrottleLayer::new(rules())?.spread(spread()))
        // 5. A request that turns out to be invalid has been counted all the same.
        .layer(map_response(error::in_openai_shape))
        .layer(from_fn(guard::require_json))
        .layer(RequestBodyLimitLayer::new(BODY_LIMIT))
        // 6. Times the head of the response only: a stream that has begun may run on.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            TIMEOUT,
        ));

    Ok(Router::new()
        .route("/v1/chat/completions", post(api::chat_completions))
        .route("/v1/completions", post(api::completions))
        .route("/v1/embeddings", post(api::embeddings))
        .route("/v1/models", get(api::models))
        .route("/v1/models/{id}", get(api::model))
        .route("/health", get(api::health))
        .layer(layers)
        .with_state(model))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let key = env::var("API_KEY").unwrap_or_else(|_| "sk-local".into());

    let model = Arc::new(Model::train());
    let app = app(model, ApiKey::new(key.clone()))?;

    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    println!(
        "try: curl -i http://{address}/v1/chat/completions -H 'authorization: Bearer {key}' \
         -H 'content-type: application/json' \
         -d '{{\"model\":\"ngram\",\"messages\":[{{\"role\":\"user\",\"content\":\"Tell me about the river.\"}}]}}'"
    );

    // HTTP/1.1, and HTTP/2 with prior knowledge, on the same port.
    axum::serve(listener, app)
        .with_graceful_shutdown(async {
            // Without a signal handler the server still serves; it only cannot be asked to end.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    Ok(())
}
