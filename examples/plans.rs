//! Limits free and paying customers: the bearer token tells who asks, and the plan what the customer may do.
//!
//! ```sh
//! cargo run --example plans
//! for n in $(seq 12); do curl -si http://127.0.0.1:3000/v1/models -H 'authorization: Bearer sk-free-1' | head -1; done
//! ```
//!
//! Ten of these pass, and two are refused; `sk-free-2` and `sk-pro-1` have budgets of their own. The order of the layers
//! matters here: authentication is outside of the throttle and tells it who asks, so that nobody gets a budget by making
//! up a key.
//!
//! Environment: `ADDR` (default `127.0.0.1:3000`, port 0 takes a free one).

use std::{env, error::Error, process::exit};

use axum::{
    Json, Router,
    body::Body,
    http::{Request, Response, StatusCode, header::AUTHORIZATION},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_http::auth::AsyncRequireAuthorizationLayer;
use tower_throttle::{Clients, Limits, Plan, Quota, Rate, Rules, ThrottleLayer};

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
        return Err((StatusCode::UNAUTHORIZED, "no key that is known\n").into_response());
    };
    request.extensions_mut().insert(customer);
    Ok(request)
}

fn rules() -> Rules {
    let free = Limits::new()
        .rate(Rate::per_minute(1).burst(10).named("free"))
        .quota(Quota::per_day(1_000).named("free_day"));
    let pro = Limits::new()
        .rate(Rate::per_minute(20).burst(40).named("pro"))
        .quota(Quota::per_day(100_000).named("pro_day"));
    let clients = Clients::by_extension(|customer: &Customer| customer.id.into())
        // Everybody is on a plan. Should one ever be forgotten, the customer is stopped, not let in for free.
        .each(Limits::closed())
        .plan("free", free)
        .plan(
            "pro",
            // Dear even to those who pay.
            Plan::new(pro).route("POST /v1/chat/completions", Rate::per_minute(5).burst(20)),
        )
        .plan_by(|head| Some(head.extensions().get::<Customer>()?.plan));
    Rules::new()
        // What the machine can do, whoever asks.
        .total(Rate::per_second(50).burst(100))
        .clients(clients)
}

/// It reads the question, for a connection with an unread body is closed.
async fn chat(_: Json<Value>) -> Json<Value> {
    let message = json!({ "role": "assistant", "content": "Hello." });
    Json(json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_795_392_000,
        "model": "echo",
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
    }))
}

async fn models() -> Json<Value> {
    let model =
        json!({ "id": "echo", "object": "model", "created": 1_795_392_000, "owned_by": "plans" });
    Json(json!({ "object": "list", "data": [model] }))
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let app = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .layer(ThrottleLayer::new(rules())?)
        // Of axum's layers the last is outermost.
        .layer(AsyncRequireAuthorizationLayer::new(authenticate))
        // Outside of both: whoever watches over the server has no key.
        .route("/health", get(async || "healthy\n"));

    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(&address).await;
    let listener = listener.map_err(|error| format!("{address}: {error}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

#[tokio::main]
async fn main() {
    if let Err(error) = serve().await {
        eprintln!("error: {error}");
        exit(2);
    }
}
