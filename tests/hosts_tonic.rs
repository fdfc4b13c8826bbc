//! The throttle in tonic 0.14: `Server::layer` over real connections.

mod support;

use std::net::SocketAddr;

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, Request, Version};
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code,
    transport::{Channel, Server, server::Router},
};
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, health_check_response::ServingStatus as Serving,
        health_client::HealthClient,
    },
    server::{HealthReporter, health_reporter},
};
use tower::{Layer, Service};
use tower_throttle::{Limits, Rate, Rules};

use support::{client, hourly, throttle, values};

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// `google.rpc.Status` and what the throttle puts into it, as published.
mod rpc {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Status {
        #[prost(int32, tag = "1")]
        pub(super) code: i32,
        #[prost(string, tag = "2")]
        pub(super) message: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) details: Vec<Any>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Any {
        #[prost(string, tag = "1")]
        pub(super) type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        pub(super) retry_delay: Option<Delay>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Delay {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(super) nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct QuotaFailure {
        #[prost(message, repeated, tag = "1")]
        pub(super) violations: Vec<Violation>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Violation {
        #[prost(string, tag = "1")]
        pub(super) subject: String,
        #[prost(string, tag = "2")]
        pub(super) description: String,
    }
}

/// Serves a router on loopback.
async fn serve<L, B>(router: Router<L>) -> SocketAddr
where
    L: Layer<tonic::service::Routes> + Send + 'static,
    L::Service: Service<
            Request<tonic::body::Body>,
            Response = http::Response<B>,
            Future: Send,
            Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        > + Clone
        + Send
        + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// The health service behind a throttle.
async fn throttled(rules: Rules) -> (SocketAddr, HealthReporter) {
    let (reporter, health) = health_reporter();
    let router = Server::builder().layer(throttle(rules)).add_service(health);
    (serve(router).await, reporter)
}

/// A client with a connection of its own.
async fn connect(address: SocketAddr) -> HealthClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}"));
    let channel = channel.expect("a uri").connect().await;
    HealthClient::new(channel.expect("a connection"))
}

fn whole_server() -> HealthCheckRequest {
    HealthCheckRequest {
        service: String::new(),
    }
}

#[tokio::test]
async fn a_unary_call_passes_until_its_burst_is_spent() {
    let rules = Rules::new().route(format!("POST {CHECK}"), hourly(3).named("check"));
    let (address, _reporter) = throttled(rules).await;
    let mut client = connect(address).await;
    for left in [2, 1, 0] {
        let answer = client
            .check(whole_server())
            .await
            .expect("within the burst");
        let limit = answer.metadata().get("ratelimit").expect("a field");
        let limit = limit.to_str().expect("visible ASCII").to_owned();
        assert!(
            limit.starts_with(&format!(r#""check";r={left};t="#)),
            "{limit}"
        );
        assert_eq!(answer.into_inner().status(), Serving::Serving);
    }
    let refusal = client.check(whole_server()).await.expect_err("spent");
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert_eq!(refusal.message(), "rate limit exceeded");
    let policy = refusal.metadata().get("ratelimit-policy");
    assert_eq!(
        policy.expect("a field"),
        r#""check";q=1;w=3600;throttle-burst=3"#
    );
    let watched = client.watch(whole_server()).await;
    assert!(watched.is_ok(), "another method is another route");
}

#[tokio::test]
async fn the_details_of_a_refusal_say_when_to_come_back_and_which_limit_it_was() {
    let rules = Rules::new().default_route(hourly(1).named("check"));
    let (address, _reporter) = throttled(rules).await;
    let mut client = connect(address).await;
    client.check(whole_server()).await.expect("the burst");
    let refusal = client.check(whole_server()).await.expect_err("spent");
    let status = rpc::Status::decode(refusal.details()).expect("a google.rpc.Status");
    assert_eq!(status.code, Code::ResourceExhausted as i32);
    assert_eq!(status.message, refusal.message(), "told twice, and alike");
    let detail = |name: &str| {
        let url = format!("type.googleapis.com/google.rpc.{name}");
        let found = status.details.iter().find(|any| any.type_url == url);
        found
            .unwrap_or_else(|| panic!("{name} in {status:?}"))
            .value
            .as_slice()
    };
    let retry = rpc::RetryInfo::decode(detail("RetryInfo")).expect("a RetryInfo");
    let delay = retry.retry_delay.expect("a delay");
    assert!(
        (3_000..=3_600).contains(&delay.seconds),
        "one an hour, and the last just now: {delay:?}"
    );
    let failure = rpc::QuotaFailure::decode(detail("QuotaFailure")).expect("a QuotaFailure");
    assert_eq!(
        failure.violations,
        [rpc::Violation {
            subject: "policy:check".into(),
            description: "limit 1 per 3600s, burst 1".into(),
        }]
    );
    assert!(!detail("ErrorInfo").is_empty());
}

#[tokio::test]
async fn a_closed_method_is_refused_without_a_time_to_come_back() {
    let rules = Rules::new().default_route(Rate::per_second(0));
    let (address, _reporter) = throttled(rules).await;
    let refusal = connect(address).await.check(whole_server()).await;
    let refusal = refusal.expect_err("closed");
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    let status = rpc::Status::decode(refusal.details()).expect("a google.rpc.Status");
    assert!(
        status
            .details
            .iter()
            .all(|any| !any.type_url.ends_with("RetryInfo")),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_call_that_finds_no_slot_is_told_that_the_server_is_busy() {
    let rules = Rules::new().total(Limits::new().in_flight(1));
    let (address, _reporter) = throttled(rules).await;
    let stream = connect(address).await.watch(whole_server()).await;
    let stream = stream.expect("the slot is free");
    let refusal = connect(address).await.check(whole_server()).await;
    let refusal = refusal.expect_err("the stream has the slot");
    assert_eq!(refusal.code(), Code::Unavailable);
    let status = rpc::Status::decode(refusal.details()).expect("a google.rpc.Status");
    assert_eq!(status.code, 14, "{status:?}");
    drop(stream);
}

#[tokio::test]
async fn a_stream_is_charged_once_and_flows_on_when_the_next_is_refused() {
    let rules = Rules::new().route("POST /grpc.health.v1.Health/Watch", hourly(2));
    let (address, reporter) = throttled(rules).await;
    let mut client = connect(address).await;
    let watch = client.watch(whole_server()).await;
    let mut first = watch.expect("within the burst").into_inner();
    let watch = client.watch(whole_server()).await;
    let mut second = watch.expect("within the burst").into_inner();
    for stream in [&mut first, &mut second] {
        let update = stream.message().await.expect("no error");
        assert_eq!(update.expect("an update").status(), Serving::Serving);
    }
    let refusal = client.watch(whole_server()).await.expect_err("spent");
    assert_eq!(
        refusal.code(),
        Code::ResourceExhausted,
        "refused at the start, before any message"
    );
    for (status, expected) in [
        (ServingStatus::NotServing, Serving::NotServing),
        (ServingStatus::Serving, Serving::Serving),
        (ServingStatus::NotServing, Serving::NotServing),
    ] {
        reporter.set_service_status("", status).await;
        for stream in [&mut first, &mut second] {
            let update = stream.message().await.expect("no error");
            assert_eq!(
                update.expect("the stream goes on").status(),
                expected,
                "messages of a stream cost nothing"
            );
        }
    }
}

#[tokio::test]
async fn an_error_of_the_service_passes_with_its_own_status() {
    let rules = Rules::new().default_route(hourly(9).named("check"));
    let (address, _reporter) = throttled(rules).await;
    let unknown = HealthCheckRequest {
        service: "unknown".into(),
    };
    let error = connect(address).await.check(unknown).await;
    let error = error.expect_err("nobody registered it");
    assert_eq!(error.code(), Code::NotFound);
    assert!(
        error.metadata().contains_key("ratelimit"),
        "a charged call is told what is left"
    );
}

#[tokio::test]
async fn connections_share_one_state() {
    let (address, _reporter) = throttled(Rules::new().total(hourly(4))).await;
    let mut passed = 0;
    for _connection in 0..9 {
        let answer = connect(address).await.check(whole_server()).await;
        passed += usize::from(answer.is_ok());
    }
    assert_eq!(passed, 4, "nine connections have one burst");
}

#[tokio::test]
async fn calls_at_once_on_one_connection_pass_up_to_the_burst() {
    let (address, _reporter) = throttled(Rules::new().total(hourly(10))).await;
    let client = connect(address).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut client = client.clone();
        calls.spawn(async move { client.check(whole_server()).await });
    }
    let answers = calls.join_all().await;
    let passed = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(passed, 10);
    for refusal in answers.into_iter().filter_map(Result::err) {
        assert_eq!(refusal.code(), Code::ResourceExhausted);
    }
}

/// grpc-go retries nothing but a true trailers-only answer: a single HEADERS frame that ends the stream.
#[tokio::test]
async fn a_refusal_is_one_frame_that_ends_the_stream() {
    let rules = Rules::new().default_route(Rate::per_second(0).named("closed"));
    let (address, _reporter) = throttled(rules).await;
    let call = Request::post(format!("http://{address}{CHECK}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::from(&b"\0\0\0\0\0"[..]))
        .expect("a request");
    let answer = client(true).request(call).await.expect("an answer");
    assert!(
        http_body::Body::is_end_stream(answer.body()),
        "known with the head: END_STREAM stands on HEADERS"
    );
    assert_eq!(answer.status(), 200);
    let expected = [
        ("content-type", "application/grpc"),
        ("grpc-status", "8"),
        ("grpc-message", "rate limit exceeded"),
        ("ratelimit-policy", r#""closed";q=0;w=1;throttle-burst=0"#),
        ("ratelimit", r#""closed";r=0"#),
    ];
    for (name, value) in expected {
        assert_eq!(values(&answer, name), [value], "{name}");
    }
    let headers: &HeaderMap = answer.headers();
    let details = STANDARD_NO_PAD
        .decode(&headers["grpc-status-details-bin"])
        .expect("unpadded base64");
    let status = rpc::Status::decode(details.as_slice()).expect("a google.rpc.Status");
    assert_eq!(status.code, 8);
    assert!(!headers.contains_key("content-length"));
}

/// With the feature a single service can be wrapped, under its own name.
#[cfg(feature = "tonic")]
mod named_service {
    use std::convert::Infallible;

    use tonic::server::NamedService;

    use super::*;

    fn name<S: NamedService>(_: &S) -> &'static str {
        S::NAME
    }

    /// A service beside the health service, which answers every call with success and nothing else.
    #[derive(Clone)]
    struct Other;

    impl NamedService for Other {
        const NAME: &'static str = "test.Other";
    }

    impl Service<Request<tonic::body::Body>> for Other {
        type Response = http::Response<tonic::body::Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<tonic::body::Body>) -> Self::Future {
            std::future::ready(Ok(tonic::Status::ok("").into_http()))
        }
    }

    async fn call(address: SocketAddr, method: &str) -> String {
        let call = Request::post(format!("http://{address}{method}"))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .body(Body::empty())
            .expect("a request");
        let answer = client(true).request(call).await.expect("an answer");
        values(&answer, "grpc-status").concat()
    }

    #[tokio::test]
    async fn a_wrapped_service_keeps_its_name_and_is_limited_alone() {
        let (_reporter, health) = health_reporter();
        let health = throttle(Rules::new().total(hourly(2))).layer(health);
        assert_eq!(name(&health), "grpc.health.v1.Health");
        let router = Server::builder().add_service(health).add_service(Other);
        let address = serve(router).await;
        let mut client = connect(address).await;
        for attempt in 1..=4 {
            let answer = client.check(whole_server()).await;
            let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
            let expected = if attempt <= 2 {
                Code::Ok
            } else {
                Code::ResourceExhausted
            };
            assert_eq!(code, expected, "attempt {attempt}");
        }
        for _ in 0..4 {
            let status = call(address, "/test.Other/Anything").await;
            assert_eq!(status, "0", "the service beside it is free");
        }
    }

    #[tokio::test]
    async fn services_wrapped_one_by_one_share_the_layers_state() {
        let (_reporter, health) = health_reporter();
        let throttle = throttle(Rules::new().total(hourly(3)));
        let router = Server::builder()
            .add_service(throttle.layer(health))
            .add_service(throttle.layer(Other));
        let address = serve(router).await;
        let mut client = connect(address).await;
        assert_eq!(call(address, "/test.Other/A").await, "0");
        assert!(client.check(whole_server()).await.is_ok());
        assert_eq!(call(address, "/test.Other/B").await, "0");
        assert_eq!(call(address, "/test.Other/A").await, "8", "spent");
        let refusal = client.check(whole_server()).await.expect_err("spent");
        assert_eq!(refusal.code(), Code::ResourceExhausted);
    }
}
