//! Limits the routes of a server on bare hyper.
//!
//! ```sh
//! cargo run --example hello_hyper
//! for n in $(seq 6); do curl -si http://127.0.0.1:3000/hello | head -1; done # five times 200, once 429
//! ```

use std::convert::Infallible;

use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::{server::conn::auto, service::TowerToHyperService};
use tower::{Layer, service_fn};
use tower_throttle::{Rate, Rules, ThrottleLayer};

async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new("hello\n".to_owned()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let throttle =
        ThrottleLayer::new(Rules::new().route("GET /hello", Rate::per_minute(1).burst(5)))?;
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        // A service for each connection, of one layer: they share its limits.
        let service = TowerToHyperService::new(throttle.layer(service_fn(hello)));
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
