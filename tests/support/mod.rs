//! The parts that the host tests share: a service, functions that call it, and a listener for it.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod streams;

use std::{convert::Infallible, error::Error, fmt, net::SocketAddr};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{Service, ServiceExt, service_fn};
use tower_throttle::{
    Decision, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder, decision::DecisionIn,
    store::MemoryStore,
};

/// A layer that puts its decisions wherever it can.
pub(crate) fn throttle(rules: Rules) -> ThrottleLayer {
    build(throttling(rules))
}

/// A builder of such a layer, for other settings.
pub(crate) fn throttling(rules: Rules) -> ThrottleLayerBuilder {
    ThrottleLayer::builder(rules).decision(DecisionIn::Both)
}

pub(crate) fn build(builder: ThrottleLayerBuilder) -> ThrottleLayer {
    builder.build().expect("rules that hold together")
}

/// The layer of a builder, whose windows of a month do not end while a test runs.
pub(crate) fn build_in_a_month(builder: ThrottleLayerBuilder) -> ThrottleLayer {
    #[cfg(feature = "test-util")]
    let builder = builder.wall_clock(mid_month());
    build(builder)
}

/// [`throttle`], with the clock of [`build_in_a_month`].
pub(crate) fn throttle_in_a_month(rules: Rules) -> ThrottleLayer {
    build_in_a_month(throttling(rules))
}

/// A store in memory with room for so many buckets, whose windows of a month do not end while a test runs.
pub(crate) fn store_in_a_month(buckets: usize) -> MemoryStore {
    #[cfg(feature = "test-util")]
    let store = MemoryStore::with_wall_clock(buckets, mid_month());
    #[cfg(not(feature = "test-util"))]
    let store = MemoryStore::with_capacity(buckets);
    store.expect("there is as much memory")
}

/// The tenth of a month, at noon.
#[cfg(feature = "test-util")]
fn mid_month() -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_secs(20_644 * 86_400 + 43_200)
}

/// A rate that refills nothing while a test runs, so that what passes is exactly the burst.
pub(crate) fn hourly(burst: u64) -> Rate {
    Rate::per_hour(1).burst(burst)
}

pub(crate) fn request(method: &str, uri: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(Body::empty())
        .expect("a request")
}

/// Answers 200 to everything.
pub(crate) fn served<B>()
-> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static
where
    B: 'static,
{
    service_fn(|_: Request<B>| async { Ok(Response::new(Body::from("served"))) })
}

/// The answer of a clone of `service`, as hosts call it.
pub(crate) async fn send<S, R>(service: &S, request: Request<Body>) -> Response<R>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: fmt::Debug,
{
    let answer = service.clone().oneshot(request).await;
    answer.expect("the service does not fail")
}

/// Tells whether a request passes.
pub(crate) async fn passes<S, R>(service: &S, request: Request<Body>) -> bool
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: fmt::Debug,
{
    send(service, request).await.status() != StatusCode::TOO_MANY_REQUESTS
}

/// Returns how many of `count` equal requests pass.
pub(crate) async fn admitted<S, R>(service: &S, count: usize, method: &str, uri: &str) -> usize
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: fmt::Debug,
{
    let mut admitted = 0;
    for _ in 0..count {
        admitted += usize::from(passes(service, request(method, uri)).await);
    }
    admitted
}

/// Returns the throttle's decision, as a layer outside sees it.
pub(crate) fn decision<B>(response: &Response<B>) -> &Decision {
    let decision = response.extensions().get();
    decision.expect("a decision in the response's extensions")
}

/// All values of a header, in order.
pub(crate) fn values<'a, B>(response: &'a Response<B>, name: &str) -> Vec<&'a str> {
    let values = response.headers().get_all(name);
    values
        .iter()
        .map(|value| value.to_str().expect("visible ASCII"))
        .collect()
}

pub(crate) async fn bytes<B>(response: Response<B>) -> Bytes
where
    B: http_body::Body<Data = Bytes>,
    B::Error: fmt::Debug,
{
    let body = response.into_body().collect().await;
    body.expect("a whole body").to_bytes()
}

/// Serves on loopback, HTTP/1.1 and HTTP/2 alike, a clone of `service` for each connection.
pub(crate) async fn serve<S, B>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

/// A client with connections of its own.
pub(crate) fn client(http2: bool) -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(HttpConnector::new())
}
