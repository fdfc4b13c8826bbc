//! A console for the throttle of a small model server: the limits and counts of each route, and a form to change the
//! limits.
//!
//! ```text
//! cargo run --features config --example console
//! ```
//!
//! Then open `http://127.0.0.1:3005/console`. Each row has a button that sends ten requests.
//!
//! `limits.rs` has the limits and their changes, `model.rs` the routes. `page.html` is the page, one file without
//! external resources. The server sends it the state of the throttle twice a second, by server-sent events.
//!
//! `--help` lists the environment variables that it reads.

#[path = "../host/mod.rs"]
mod host;
mod limits;
mod model;

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Redirect};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::IntervalStream;
use tokio_stream::{Stream, StreamExt as _};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_throttle::{Handle, ThrottleLayer};

use crate::host::{asked_to_end, listen, no_delay, tell, variable};
use crate::limits::{Change, Limits};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: console

Environment variables:
  ADDR  where to listen (default 127.0.0.1:3005, port 0 takes a free one)";

/// The time between two messages to the page.
const TICK: Duration = Duration::from_millis(500);

struct Console {
    handle: Handle,
    limits: Limits,
}

#[tokio::main]
async fn main() -> ExitCode {
    host::run(USAGE, serve()).await
}

async fn serve() -> Result<(), BoxError> {
    let limits = Limits::default();
    let throttle = ThrottleLayer::new(limits.rules()?)?;
    let console = Arc::new(Console {
        handle: throttle.handle(),
        limits,
    });
    let app = model::routes()
        .layer(throttle)
        // Outside of the throttle: who looks at a full server is not refused by it.
        .merge(routes(console));

    let listener = listen(&variable("ADDR", "127.0.0.1:3005")).await?;
    tell(format_args!(
        "listening on http://{}",
        listener.local_addr()?
    ));
    // Pages that are open hold a stream of events each, which would never end.
    tokio::select! {
        served = axum::serve(listener.tap_io(no_delay), app) => served?,
        () = asked_to_end() => {}
    }
    Ok(())
}

/// A real one goes behind a login: who can change limits can switch them off.
fn routes(console: Arc<Console>) -> Router {
    // The page loads nothing from elsewhere, and nothing else may make it.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                  img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let policy = HeaderValue::from_static(policy);
    Router::new()
        .route("/", get(|| async { Redirect::to("/console") }))
        .route(
            "/console",
            get(|| async { Html(include_str!("page.html")) }),
        )
        .route("/console/events", get(events))
        .route("/console/limits", get(list).put(change))
        .layer(SetResponseHeaderLayer::overriding(
            header::CONTENT_SECURITY_POLICY,
            policy,
        ))
        .with_state(console)
}

/// A snapshot, twice a second.
async fn events(
    State(console): State<Arc<Console>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let snapshots = IntervalStream::new(ticks).map(move |_| {
        let event = Event::default().json_data(console.handle.snapshot());
        Ok(event.unwrap_or_else(|error| Event::default().comment(error.to_string())))
    });
    Sse::new(snapshots).keep_alive(KeepAlive::default())
}

async fn list(State(console): State<Arc<Console>>) -> Json<Value> {
    Json(json!({ "limits": console.limits.list() }))
}

/// Changes one limit. What cannot be read is said as the reader says it.
async fn change(
    State(console): State<Arc<Console>>,
    Json(change): Json<Change>,
) -> impl IntoResponse {
    match console.limits.change(&change, &console.handle) {
        Ok(changes) => (StatusCode::OK, Json(json!({ "changes": changes }))),
        Err(error) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            Json(json!({ "error": error.to_string() })),
        ),
    }
}
