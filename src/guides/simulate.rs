//! Simulate before you change: the effect of limits on traffic, in virtual time.
//!
//! The example `simulate` sends traffic through the layer itself in virtual time. Here, clients that were cut off for
//! half a minute return together (a herd), and obey `Retry-After`:
//!
//! ```sh
//! cargo run --release --features config,test-util --example simulate -- \
//!   --traffic herd:40,30s --for 90s --clients 1000 --service exp:500ms --plot herd.svg
//! ```
//!
//! ```text
//! 40 requests a second, out of reach for 30 s after 10 s, 1,000 clients, seed 1, 90 s of virtual time
//! rules: built in
//! calls: 3,543, of which 2,461 were admitted, 1,082 given up, 0 would have come back after the end; the last was admitted at 89.98 s
//!
//!                            offered  admitted  refused          in line     p50     p99     max    told   Jain  of shares
//! GET /v1/models               1,833       836      997  54.4 %        0       -       -       -   10 ms  0.641      0.702
//! POST /v1/chat/completions    1,913       826    1,087  56.8 %      125  716 ms  1.00 s  1.00 s  1.05 s  0.649      0.705
//! POST /v1/embeddings          1,984       799    1,185  59.7 %        0       -       -       -   20 ms  0.640      0.686
//! all                          5,730     2,461    3,269  57.1 %      125  716 ms  1.00 s  1.00 s   20 ms  0.729      0.796
//! ```
//!
//! The columns are: requests that waited in a queue and for how long, the median wait stated by refusals, and how
//! evenly clients were served (Jain's index). The table shows that the total rejects the herd and tells each client the
//! same short wait, so that most clients give up. Routes with a `max_wait` hold such a herd in a queue instead. The
//! repository has the plot, `examples/simulate/herd.svg`.
//!
//! `--rules limits.toml --against tighter.toml` sends the same traffic through both files and prints them side by
//! side. Traffic is random, in bursts, by day and night, a herd, or a CSV of your own (`trace:requests.csv`). Clients
//! are even, skewed or one of them greedy; when refused, they leave, obey or hammer. The same seed prints the same
//! result. `--help` lists the options.
//!
//! # In a test
//!
//! Time is tokio's, so a test can pause it and jump ahead:
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//!
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_throttle::{Rate, Rules, ThrottleLayer};
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)] // in a test: `#[tokio::test(start_paused = true)]`
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let rules = Rules::new().total(Rate::per_minute(1));
//!     let service = ServiceBuilder::new()
//!         .layer(ThrottleLayer::new(rules)?)
//!         .service(service_fn(async |_: Request<()>| {
//!             Ok::<_, Infallible>(Response::new(String::new()))
//!         }));
//!     let ask = || service.clone().oneshot(Request::new(()));
//!     assert_eq!(ask().await?.status(), StatusCode::OK);
//!     assert_eq!(ask().await?.status(), StatusCode::TOO_MANY_REQUESTS);
//!     tokio::time::advance(Duration::from_secs(60)).await;
//!     assert_eq!(ask().await?.status(), StatusCode::OK);
//!     Ok(())
//! }
//! ```
