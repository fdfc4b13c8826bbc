//! Limits the routes of an axum server.
//!
//! ```sh
//! cargo run --features axum --example hello_axum
//! for n in $(seq 6); do curl -si http://127.0.0.1:3000/hello | head -1; done # five times 200, once 429
//! curl -si http://127.0.0.1:3000/hello                                       # the refusal as a whole
//! ```

use axum::{Router, routing::get};
use tower_throttle::{Limits, Rate, Rules, ThrottleLayer};

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let rules = Rules::new()
        .default_route(Rate::per_minute(1).burst(5)) // each route has its own bucket
        .route("GET /health", Limits::exempt());
    let app = Router::new()
        .route("/hello", get(async || "hello\n"))
        .route("/health", get(async || "healthy\n"))
        .layer(ThrottleLayer::new(rules)?.for_axum());

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

#[tokio::main]
async fn main() {
    if let Err(error) = serve().await {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
}
