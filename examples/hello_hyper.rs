//! Limits the routes of a server on bare hyper.
//!
//! ```sh
//! cargo run --example hello_hyper
//! for n in $(seq 6); do curl -si http://127.0.0.1:3000/hello | head -1; done # five times 200, once 429
//! ```

use std::convert::Infallible;

use hyper::{Request, Response, body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tower::{Layer, service_fn};
use tower_throttle::{Rate, Rules, ThrottleLayer};

async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new("hello\n".to_owned()))
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let rules = Rules::new().route("GET /hello", Rate::per_minute(1).burst(5));
    let throttle = ThrottleLayer::new(rules)?;
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        // A service for each connection, of one layer: they share its limits.
        let service = TowerToHyperService::new(throttle.layer(service_fn(hello)));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

#[tokio::main]
async fn main() {
    if let Err(error) = serve().await {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
}
