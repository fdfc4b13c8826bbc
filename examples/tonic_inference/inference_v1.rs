//! The messages and the service of `../proto/inference.proto`.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GenerateRequest {
    #[prost(string, tag = "1")]
    pub(crate) prompt: String,
    #[prost(uint32, optional, tag = "2")]
    pub(crate) max_tokens: Option<u32>,
    #[prost(double, optional, tag = "3")]
    pub(crate) temperature: Option<f64>,
    #[prost(uint64, optional, tag = "4")]
    pub(crate) seed: Option<u64>,
    #[prost(string, repeated, tag = "5")]
    pub(crate) stop: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GenerateResponse {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(enumeration = "FinishReason", tag = "2")]
    pub(crate) finish_reason: i32,
    #[prost(message, optional, tag = "3")]
    pub(crate) usage: Option<Usage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GenerateChunk {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(enumeration = "FinishReason", tag = "2")]
    pub(crate) finish_reason: i32,
    #[prost(message, optional, tag = "3")]
    pub(crate) usage: Option<Usage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum FinishReason {
    Unspecified = 0,
    Stop = 1,
    Length = 2,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Usage {
    #[prost(uint32, tag = "1")]
    pub(crate) prompt_tokens: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) completion_tokens: u32,
}

/// A server of `inference.v1.Inference`.
pub(crate) trait Inference: Send + Sync + 'static {
    type GenerateStreamStream: Stream<Item = Result<GenerateChunk, Status>> + Send + 'static;

    fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> impl Future<Output = Result<Response<GenerateResponse>, Status>> + Send;

    fn generate_stream(
        &self,
        request: Request<GenerateRequest>,
    ) -> impl Future<Output = Result<Response<Self::GenerateStreamStream>, Status>> + Send;
}

/// Leads HTTP requests to the methods of an [`Inference`].
#[derive(Debug)]
pub(crate) struct InferenceServer<T> {
    inner: Arc<T>,
}

impl<T> InferenceServer<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl<T> Clone for InferenceServer<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<T> NamedService for InferenceServer<T> {
    const NAME: &'static str = "inference.v1.Inference";
}

impl<T: Inference> Service<http::Request<Body>> for InferenceServer<T> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let inner = self.inner.clone();
        match request.uri().path() {
            "/inference.v1.Inference/Generate" => Box::pin(async move {
                let method = service_fn(move |request| {
                    let inner = inner.clone();
                    async move { inner.generate(request).await }
                });
                Ok(Grpc::new(ProstCodec::default())
                    .unary(method, request)
                    .await)
            }),
            "/inference.v1.Inference/GenerateStream" => Box::pin(async move {
                let method = service_fn(move |request| {
                    let inner = inner.clone();
                    async move { inner.generate_stream(request).await }
                });
                let mut grpc = Grpc::new(ProstCodec::default());
                Ok(grpc.server_streaming(method, request).await)
            }),
            _ => Box::pin(ready(Ok(Status::unimplemented("").into_http()))),
        }
    }
}
