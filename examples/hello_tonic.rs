//! Limits the methods of a tonic server, here those of the health service: a call, and a stream that holds a slot.
//!
//! ```sh
//! cargo run --example hello_tonic
//! grpc_health_probe -addr=127.0.0.1:50051 # five times SERVING in a minute, then RESOURCE_EXHAUSTED
//! ```

use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};
use tower_throttle::{Limits, Rate, Rules, ThrottleLayer};

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let (calls, streams) = (Rate::per_minute(1).burst(5), Limits::new().in_flight(2));
    let rules = Rules::new()
        .route("POST /grpc.health.v1.Health/Check", calls)
        .route("POST /grpc.health.v1.Health/Watch", streams);
    let (_reporter, health) = tonic_health::server::health_reporter();

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:50051".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Server::builder()
        .layer(ThrottleLayer::new(rules)?)
        .add_service(health)
        .serve_with_incoming(TcpIncoming::from(listener))
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() {
    if let Err(error) = serve().await {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
}
