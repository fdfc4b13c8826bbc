//! A chat over WebSockets: each connection holds a slot, each message is charged, and a client that may not send is
//! told when it may.
//!
//! ```sh
//! cargo run --features axum --example websocket
//! # In another terminal, with https://github.com/vi/websocat; a third connection of all is answered 503.
//! websocat -H 'x-api-key: sk-local' ws://127.0.0.1:3000/chat
//! ```

mod app;

use tower_throttle::ThrottleLayer;

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let app = app::app(ThrottleLayer::new(app::rules())?);
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on ws://{}/chat", listener.local_addr()?);
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
