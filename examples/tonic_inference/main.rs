//! The model of the example `inference` behind gRPC, throttled by method and path.
//!
//! ```text
//! cargo run --example tonic_inference
//! ```
//!
//! Model tokens are limited as well. A call reserves an estimate, and its handler settles it: no layer can read the
//! usage in a message of gRPC.
//!
//! A gRPC call is a `POST` to `/package.Service/Method`, so a route key names one method. What is
//! refused gets a gRPC answer: the status `RESOURCE_EXHAUSTED`, in trailers only, with the wait in
//! its details.
//!
//! `inference_v1.rs` is what a code generator makes of `../proto/inference.proto`, written by hand:
//! this example needs no protoc. The model is in `../model`.
//!
//! `--help` lists the environment variables that it reads.

#[path = "../host/mod.rs"]
mod host;
mod inference_v1;
#[path = "../model/mod.rs"]
mod model;
#[path = "../pace/mod.rs"]
mod pace;

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tower_throttle::rules::Undeclared;
use tower_throttle::usage::{Estimate, TokenUsage};
use tower_throttle::{InFlight, Limits, Rules, ThrottleLayer, Usage};

use crate::host::{asked_to_end, listen, tell, variable};
use crate::inference_v1::{
    FinishReason, GenerateChunk, GenerateRequest, GenerateResponse, Inference, InferenceServer,
};
use crate::model::{Event, Finish, Generate, MAX_TOKENS, Model, Prompt, fresh_seed};
use crate::pace::{per_minute, per_second};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: tonic_inference

Environment variables:
  ADDR    where to listen (default 127.0.0.1:50051, port 0 takes a free one)
  SLOWER  a factor by which limits refill more slowly (default 1)";

/// The rate of each method, and the number of streams that there may be at a time.
fn rules() -> Rules {
    Rules::new()
        .route(
            "POST /inference.v1.Inference/Generate",
            Limits::new()
                .rate(per_minute(60).burst(10).named("chat"))
                .tokens(per_minute(6_000).burst(2_000).named("tokens")),
        )
        .route(
            "POST /inference.v1.Inference/GenerateStream",
            // A stream holds its slot until it has ended, however slowly it is read.
            Limits::new()
                .rate(per_minute(60).burst(10).named("stream"))
                .tokens(per_minute(6_000).burst(2_000).named("stream_tokens"))
                .in_flight(InFlight::new(8).named("streams")),
        )
        .route("POST /grpc.health.v1.Health/Check", Limits::exempt())
        // Everything else, unknown methods included, shares one bucket.
        .default_route(per_second(10).burst(20))
        .undeclared(Undeclared::Shared)
        .estimate(Estimate::fixed(256))
}

/// The account of a call's model tokens, if a limit counts them.
struct Account(Option<Usage>);

impl Account {
    /// Takes the account from the extensions, where the throttle has left it.
    fn of<T>(call: &Request<T>) -> Self {
        Self(call.extensions().get::<Usage>().cloned())
    }

    /// Settles a call that no model works for at nothing.
    fn served<T>(&self, call: Result<T, Status>) -> Result<T, Status> {
        if let (Some(account), Err(_)) = (&self.0, &call) {
            account.settle(0);
        }
        call
    }

    /// Counts a token as it is sent: a client that goes away pays for what it got.
    fn count_one(&self) {
        if let Some(account) = &self.0 {
            account.add_tokens(TokenUsage::new().output(1));
        }
    }

    /// Settles a call at what the model has counted.
    fn settle(&self, usage: model::Usage) {
        if let Some(account) = &self.0 {
            let input = TokenUsage::new().input(usage.prompt_tokens as u64);
            account.settle_tokens(input.output(usage.completion_tokens as u64));
        }
    }
}

/// The service that the model stands behind.
struct NgramInference {
    model: Arc<Model>,
}

impl Inference for NgramInference {
    type GenerateStreamStream = Pin<Box<dyn Stream<Item = Result<GenerateChunk, Status>> + Send>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<GenerateResponse>, Status> {
        let account = Account::of(&request);
        let prompt = account.served(request.into_inner().try_into())?;
        let events = model::stream(self.model.clone(), prompt);
        let completion = model::collect(events)
            .await
            .ok_or_else(|| Status::internal("the model broke down before it had finished"))?;
        account.settle(completion.usage);
        Ok(Response::new(GenerateResponse {
            text: completion.text,
            finish_reason: FinishReason::from(completion.finish).into(),
            usage: Some(completion.usage.into()),
        }))
    }

    async fn generate_stream(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        let account = Account::of(&request);
        let prompt = account.served(request.into_inner().try_into())?;
        let events = model::stream(self.model.clone(), prompt);
        let mut last = GenerateChunk::default();
        let chunks = ReceiverStream::new(events).filter_map(move |event| match event {
            Event::Text(text) => {
                account.count_one();
                Some(Ok(GenerateChunk {
                    text,
                    ..GenerateChunk::default()
                }))
            }
            Event::Finished(finish) => {
                last.set_finish_reason(finish.into());
                None
            }
            Event::Usage(usage) => {
                account.settle(usage);
                last.usage = Some(usage.into());
                Some(Ok(std::mem::take(&mut last)))
            }
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

impl TryFrom<GenerateRequest> for Generate {
    type Error = Status;

    fn try_from(request: GenerateRequest) -> Result<Self, Status> {
        let temperature = request.temperature.unwrap_or(1.0);
        if !(0.0..=2.0).contains(&temperature) {
            return Err(Status::invalid_argument("choose a temperature from 0 to 2"));
        }
        let max_tokens = request.max_tokens.map_or(64, |tokens| tokens as usize);
        if !(1..=MAX_TOKENS).contains(&max_tokens) {
            let message = format!("ask for 1 to {MAX_TOKENS} tokens");
            return Err(Status::invalid_argument(message));
        }
        if request.stop.len() > 4 || request.stop.iter().any(String::is_empty) {
            let message = "send up to four stop texts, none of them empty";
            return Err(Status::invalid_argument(message));
        }
        Ok(Self {
            prompt: Prompt::Continue(request.prompt),
            max_tokens,
            temperature,
            seed: request.seed.unwrap_or_else(fresh_seed),
            stop: request.stop,
        })
    }
}

impl From<Finish> for FinishReason {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop => Self::Stop,
            Finish::Length => Self::Length,
        }
    }
}

impl From<model::Usage> for inference_v1::Usage {
    fn from(usage: model::Usage) -> Self {
        Self {
            prompt_tokens: u32::try_from(usage.prompt_tokens).unwrap_or(u32::MAX),
            completion_tokens: u32::try_from(usage.completion_tokens).unwrap_or(u32::MAX),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    host::run(USAGE, serve()).await
}

async fn serve() -> Result<(), BoxError> {
    let inference = InferenceServer::new(NgramInference {
        model: Arc::new(Model::train()),
    });
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter
        .set_serving::<InferenceServer<NgramInference>>()
        .await;

    let listener = listen(&variable("ADDR", "127.0.0.1:50051")).await?;
    let address = listener.local_addr()?;
    tell(format_args!("listening on http://{address}"));
    tell(format_args!(
        "try: grpcurl -plaintext -import-path examples/proto -proto inference.proto \
         -d '{{\"prompt\":\"The river\"}}' {address} inference.v1.Inference/Generate"
    ));

    Server::builder()
        .layer(ThrottleLayer::new(rules())?)
        .add_service(health)
        .add_service(inference)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            asked_to_end(),
        )
        .await?;
    Ok(())
}
