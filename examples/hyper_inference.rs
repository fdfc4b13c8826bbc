//! The model of the example `inference` on bare hyper, throttled by method and path.
//!
//! ```text
//! cargo run --example hyper_inference
//! ```
//!
//! HTTP/1.1 and HTTP/2 on one listener, no framework: a function from request to response, and the
//! throttle around it. The model is in `model`.
//!
//! `--help` lists the environment variables that it reads.

#[path = "host/mod.rs"]
mod host;
#[path = "model/mod.rs"]
mod model;
#[path = "pace/mod.rs"]
mod pace;

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, once};
use tower::{ServiceBuilder, service_fn};
use tower_throttle::{Limits, Rules, ThrottleLayer, rules::Undeclared};

use crate::host::{asked_to_end, listen, no_delay, tell, variable, warn};
use crate::model::{Event, Generate, MAX_TOKENS, Model, Prompt, Usage, fresh_seed};
use crate::pace::{per_minute, per_second};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = BoxBody<Bytes, Infallible>;

const USAGE: &str = "usage: hyper_inference

Environment variables:
  ADDR    where to listen (default 127.0.0.1:3001, port 0 takes a free one)
  SLOWER  a factor by which limits refill more slowly (default 1)";

/// The largest request body, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

/// The time that open answers may still take once the server was asked to end.
const GRACE: Duration = Duration::from_secs(10);

/// The rate of each route.
fn rules() -> Rules {
    Rules::new()
        .route(
            "POST /v1/completions",
            per_minute(60).burst(10).named("completions"),
        )
        .route("GET /health", Limits::exempt())
        // Everything else, unknown paths included, shares one bucket.
        .default_route(per_second(10).burst(20))
        .undeclared(Undeclared::Shared)
}

/// The body of `POST /v1/completions`.
#[derive(Deserialize)]
struct CompletionRequest {
    prompt: String,
    max_tokens: Option<usize>,
    temperature: Option<f64>,
    seed: Option<u64>,
    #[serde(default)]
    stream: bool,
}

async fn serve(
    model: Arc<Model>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let is_head = request.method() == Method::HEAD;
    let response = match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/completions") => completions(model, request.into_body()).await,
        (_, "/v1/completions") => not_allowed("POST"),
        (&Method::GET | &Method::HEAD, "/health") => {
            json_body(StatusCode::OK, &json!({ "status": "ok" }))
        }
        (_, "/health") => not_allowed("GET, HEAD"),
        _ => error(StatusCode::NOT_FOUND, "There is nothing at this path."),
    };
    // On HTTP/1.1 hyper does this by itself, on HTTP/2 it does not.
    Ok(if is_head {
        response.map(|_| Empty::new().boxed())
    } else {
        response
    })
}

async fn completions(model: Arc<Model>, body: Incoming) -> Response<Body> {
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(cause) if cause.is::<LengthLimitError>() => {
            return error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request body is larger than 1 MiB.",
            );
        }
        Err(cause) => return error(StatusCode::BAD_REQUEST, &cause.to_string()),
    };
    let request: CompletionRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(cause) => return error(StatusCode::BAD_REQUEST, &cause.to_string()),
    };
    let generate = Generate {
        prompt: Prompt::Continue(request.prompt),
        max_tokens: request.max_tokens.unwrap_or(16),
        temperature: request.temperature.unwrap_or(1.0),
        seed: request.seed.unwrap_or_else(fresh_seed),
        stop: Vec::new(),
    };
    if !(1..=MAX_TOKENS).contains(&generate.max_tokens) {
        let message = format!("Ask for 1 to {MAX_TOKENS} tokens.");
        return error(StatusCode::BAD_REQUEST, &message);
    }
    if !(0.0..=2.0).contains(&generate.temperature) {
        return error(StatusCode::BAD_REQUEST, "Choose a temperature from 0 to 2.");
    }

    let events = model::stream(model, generate);
    if request.stream {
        let mut last = None;
        let lines = ReceiverStream::new(events)
            .filter_map(move |event| match event {
                Event::Text(text) => Some(completion(&text, None, None)),
                Event::Finished(finish) => {
                    last = Some(finish.as_str());
                    None
                }
                Event::Usage(usage) => Some(completion("", last, Some(usage))),
            })
            .map(|chunk| format!("data: {chunk}\n\n"))
            .chain(once("data: [DONE]\n\n".to_owned()));
        let frames = lines.map(|line| Ok(Frame::data(Bytes::from(line))));
        return Response::builder()
            .header(CONTENT_TYPE, "text/event-stream")
            .header(CACHE_CONTROL, "no-cache")
            .body(StreamBody::new(frames).boxed())
            .expect("these headers are valid");
    }
    match model::collect(events).await {
        Some(done) => {
            let finish = Some(done.finish.as_str());
            json_body(
                StatusCode::OK,
                &completion(&done.text, finish, Some(done.usage)),
            )
        }
        None => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The model broke down before it had finished.",
        ),
    }
}

fn completion(text: &str, finish: Option<&str>, usage: Option<Usage>) -> Value {
    let mut value = json!({
        "object": "text_completion",
        "model": "ngram",
        "choices": [{ "index": 0, "text": text, "logprobs": null, "finish_reason": finish }],
    });
    if let Some(usage) = usage {
        value["usage"] = json!({
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        });
    }
    value
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = error(
        StatusCode::METHOD_NOT_ALLOWED,
        "This path does not know this method.",
    );
    let methods = hyper::header::HeaderValue::from_static(methods);
    response.headers_mut().insert(ALLOW, methods);
    response
}

fn error(status: StatusCode, message: &str) -> Response<Body> {
    let kind = if status.is_server_error() {
        "server_error"
    } else {
        "invalid_request_error"
    };
    let error = json!({ "message": message, "type": kind, "param": null, "code": null });
    json_body(status, &json!({ "error": error }))
}

fn json_body(status: StatusCode, value: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(value.to_string()).boxed())
        .expect("these headers are valid")
}

#[tokio::main]
async fn main() -> ExitCode {
    host::run(USAGE, listen_and_serve()).await
}

async fn listen_and_serve() -> Result<(), BoxError> {
    let model = Arc::new(Model::train());

    // Built once: its clones, one per connection, share the buckets.
    let service = ServiceBuilder::new()
        .layer(ThrottleLayer::new(rules())?)
        .service(service_fn(move |request| serve(model.clone(), request)));

    let listener = listen(&variable("ADDR", "127.0.0.1:3001")).await?;
    let address = listener.local_addr()?;
    tell(format_args!("listening on http://{address}"));
    tell(format_args!(
        "try: curl -i http://{address}/v1/completions \
         -d '{{\"prompt\":\"The river\",\"max_tokens\":64}}'"
    ));

    let server = auto::Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    let mut end = std::pin::pin!(asked_to_end());
    loop {
        let mut socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(cause) => {
                    warn(format_args!("a connection could not be accepted: {cause}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut end => break,
        };
        no_delay(&mut socket);
        let service = TowerToHyperService::new(service.clone());
        let connection = server.serve_connection(TokioIo::new(socket), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(cause) = connection.await {
                warn(format_args!("a connection broke off: {cause}"));
            }
        });
    }

    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown())
        .await
        .is_err()
    {
        warn("some answers were cut short");
    }
    Ok(())
}
