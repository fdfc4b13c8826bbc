//! Free and paying customers of a language model: who asks says the bearer token, what they may do their plan.
//!
//! ```text
//! cargo run --example plans
//! ```
//!
//! The order of the layers is what matters here: authentication is outside of the throttle and tells it who it
//! is, so that nobody gets a budget by making up a key. The handlers are those of the example `inference`.
//!
//! Environment: `ADDR` (default `127.0.0.1:3000`, port 0 takes a free one), and `SLOWER` (see `../pace`).

#[path = "../inference/api.rs"]
mod api;
#[path = "../inference/error.rs"]
#[allow(dead_code, reason = "the other example needs all of it")]
mod error;
#[path = "../host/mod.rs"]
mod host;
#[path = "../model/mod.rs"]
mod model;
#[path = "../inference/openai.rs"]
mod openai;
#[path = "../pace/mod.rs"]
mod pace;

use std::{env, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, header::AUTHORIZATION},
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt as _,
};
use tokio::net::TcpListener;
use tower_http::auth::AsyncRequireAuthorizationLayer;
use tower_throttle::{Clients, Limits, Plan, Quota, Rate, Rules, RulesError, ThrottleLayer};

use crate::{
    error::ApiError,
    host::{asked_to_end, no_delay, tell},
    model::Model,
    pace::{per_minute, per_second},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A customer whom authentication has found.
#[derive(Clone, Copy)]
struct Customer {
    id: u64,
    plan: &'static str,
}

/// A real service would ask its database.
fn customer(token: &str) -> Option<Customer> {
    let (id, plan) = match token {
        "sk-free-1" => (1, "free"),
        "sk-free-2" => (2, "free"),
        "sk-pro-1" => (3, "pro"),
        _ => return None,
    };
    Some(Customer { id, plan })
}

/// Lets those pass whose token is known, and notes who they are.
async fn authenticate(mut request: Request<Body>) -> Result<Request<Body>, Response<Body>> {
    let token = request.headers().get(AUTHORIZATION);
    let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(customer) = token.and_then(customer) else {
        return Err(ApiError::unauthorized("Incorrect API key provided.").into_response());
    };
    request.extensions_mut().insert(customer);
    Ok(request)
}

fn rules() -> Rules {
    let free = Limits::new()
        .rate(per_minute(60).burst(10).named("free"))
        .quota(Quota::per_day(1_000).named("free_day"));
    let pro = Limits::new()
        .rate(per_second(20).burst(40).named("pro"))
        .quota(Quota::per_day(100_000).named("pro_day"));
    let clients = Clients::by_extension(|customer: &Customer| customer.id.into())
        // Everybody is on a plan. Should one ever be forgotten, the customer is stopped, not let in for free.
        .each(Limits::closed())
        .plan("free", free)
        .plan(
            "pro",
            // Dear even to those who pay.
            Plan::new(pro).route("POST /v1/chat/completions", per_second(5).burst(20)),
        )
        .plan_by(|head| {
            head.extensions()
                .get::<Customer>()
                .map(|customer| customer.plan)
        });
    Rules::new()
        // What the machine can do, whoever asks.
        .total(Rate::per_second(50).burst(100))
        .clients(clients)
}

fn app(model: Arc<Model>) -> Result<Router, RulesError> {
    Ok(Router::new()
        .route("/v1/chat/completions", post(api::chat_completions))
        .route("/v1/completions", post(api::completions))
        .route("/v1/embeddings", post(api::embeddings))
        .route("/v1/models", get(api::models))
        .route("/v1/models/{id}", get(api::model))
        .layer(ThrottleLayer::new(rules())?)
        // Of axum's layers the last is outermost.
        .layer(AsyncRequireAuthorizationLayer::new(authenticate))
        // Outside of both: whoever watches over the server has no key.
        .route("/health", get(api::health))
        .with_state(model))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let app = app(Arc::new(Model::train()))?;
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    tell(format_args!("listening on http://{address}"));
    tell(format_args!(
        "try, with sk-free-1, sk-free-2 and sk-pro-1: \
         for n in $(seq 12); do curl -s -o /dev/null -w '%{{http_code}}\\n' http://{address}/v1/models \
         -H 'authorization: Bearer sk-free-1'; done"
    ));
    axum::serve(listener.tap_io(no_delay), app)
        .with_graceful_shutdown(asked_to_end())
        .await?;
    Ok(())
}
