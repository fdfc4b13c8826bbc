//! The peek layer in front of a throttle: on hyper, in axum and in tonic.

mod support;

use std::{convert::Infallible, net::SocketAddr};

use axum::{Router, body::Body, routing::post};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::trace::TraceLayer;
use tower_throttle::{
    Limits, Models, Rate, Rules, ThrottleLayer,
    facts::BodyFacts,
    peek::PeekLayer,
    usage::{BodyEstimate, Estimate},
};

use support::{bytes, client, hourly, request, serve, throttle, values};

/// A throttle, and the layer that reads bodies for it.
fn layers(rules: Rules) -> (ThrottleLayer, PeekLayer) {
    let throttle = throttle(rules);
    let peek = throttle.peek_layer();
    (throttle, peek)
}

/// A route whose limits need facts of the body, and one that is refused by limits that need none.
fn rules() -> Rules {
    Rules::new()
        .route("POST /v1/chat", hourly(100))
        .route("POST /v1/closed", Limits::closed())
        .models(
            Models::from_body()
                .on("POST /v1/chat")
                .on("POST /v1/closed"),
        )
}

/// Sends back the body, its trailers, and how long it said to be.
fn echo<B>() -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
{
    service_fn(|request: Request<B>| async {
        let said = request.body().size_hint().exact();
        let body = request.into_body().collect().await.expect("a whole body");
        let trailers = body.trailers().cloned();
        let mut response = Response::new(Body::from(body.to_bytes()));
        let said = said.map_or("none".to_owned(), |said| said.to_string());
        let said = said.parse().expect("a number");
        response.headers_mut().insert("x-said", said);
        if let Some(checksum) = trailers
            .as_ref()
            .and_then(|trailers| trailers.get("x-checksum"))
        {
            response
                .headers_mut()
                .insert("x-checksum", checksum.clone());
        }
        Ok::<_, Infallible>(response)
    })
}

/// Sends `text` on a connection of its own and reads until the server closes it.
async fn raw(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("closed");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_refused_upload_is_not_asked_for() {
    let (throttle, peek) = layers(rules());
    let service = ServiceBuilder::new()
        .layer(peek)
        .layer(throttle)
        .service(echo());
    let address = serve(service).await;
    let upload = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\
             connection: close\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    for length in [1_000, 10_000_000] {
        let refused = raw(address, &upload("/v1/closed", length)).await;
        assert!(
            refused.starts_with("HTTP/1.1 429"),
            "no 100, and no byte sent: {refused}"
        );
    }
    let admitted = raw(address, &format!("{}data", upload("/v1/chat", 4))).await;
    assert!(
        admitted.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"),
        "asked for: {admitted}"
    );
    assert!(admitted.ends_with("data"), "{admitted}");
}

#[tokio::test]
async fn bodies_arrive_as_they_were_sent_over_both_protocols() {
    let (throttle, peek) = layers(rules());
    let service = ServiceBuilder::new()
        .layer(peek)
        .layer(TraceLayer::new_for_http())
        .layer(throttle)
        .service(echo());
    let address = serve(service).await;
    for http2 in [false, true] {
        let client = client(http2);
        for length in [0, 1, 100_000, 2 * 1_024 * 1_024 - 1, 3_000_000] {
            let data = Bytes::from(vec![7; length]);
            let mut upload = request("POST", &format!("http://{address}/v1/chat"));
            *upload.body_mut() = Body::from(data.clone());
            let answer = client.request(upload).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(
                values(&answer, "x-said"),
                [length.to_string()],
                "http2: {http2}"
            );
            assert_eq!(bytes(answer).await, data, "{length} bytes, http2: {http2}");
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "abc".parse().expect("a value"));
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"one "))),
            Ok(Frame::data(Bytes::from_static(b"two"))),
            Ok(Frame::trailers(trailers)),
        ];
        let mut upload = request("POST", &format!("http://{address}/v1/chat"));
        upload
            .headers_mut()
            .insert("trailer", "x-checksum".parse().expect("a name"));
        *upload.body_mut() = Body::new(StreamBody::new(tokio_stream::iter(frames)));
        let answer = client.request(upload).await.expect("an answer");
        assert_eq!(
            values(&answer, "x-said"),
            ["none"],
            "no length was sent, http2: {http2}"
        );
        assert_eq!(values(&answer, "x-checksum"), ["abc"], "http2: {http2}");
        assert_eq!(bytes(answer).await, "one two");
    }
}

/// Time passes at once, as nothing else can happen.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_send_is_told_so_and_its_connection_closes() {
    let (throttle, peek) = layers(rules());
    let service = ServiceBuilder::new()
        .layer(peek)
        .layer(throttle)
        .service(echo());
    let address = serve(service).await;
    for expect in ["", "expect: 100-continue\r\n"] {
        let upload =
            format!("POST /v1/chat HTTP/1.1\r\nhost: a\r\n{expect}content-length: 1000\r\n\r\n");
        let answer = raw(address, &upload).await;
        let answer = answer.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
}

/// The client goes in the middle of a body.
#[tokio::test]
async fn a_body_that_is_cut_reaches_the_handler_as_an_error() {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let (throttle, peek) = layers(rules());
    let inner = service_fn(move |request: Request<_>| {
        let told = told.clone();
        async move {
            let body = BodyExt::collect(request.into_body()).await;
            let _ = told.send(body.is_err());
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let service = ServiceBuilder::new()
        .layer(peek)
        .layer(throttle)
        .service(inner);
    let address = serve(service).await;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let cut = "POST /v1/chat HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    stream.write_all(cut.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("closed");
    assert_eq!(tells.recv().await, Some(true));
}

#[tokio::test]
async fn routers_of_axum_take_the_layer() {
    let (throttle, peek) = layers(rules());
    let app = || {
        Router::new()
            .route("/v1/chat", post(async |body: String| body))
            .route("/other", post(async |body: String| body))
    };
    let apps: [Router; 3] = [
        app().layer(throttle.clone()).layer(peek.clone()),
        app()
            .layer(throttle.clone().for_axum())
            .layer(peek.clone().for_axum()),
        app().layer(ServiceBuilder::new().layer(peek.for_axum()).layer(throttle)),
    ];
    for app in apps {
        for path in ["/v1/chat", "/other"] {
            let request = Request::post(path).body(Body::from("{}"));
            let request = request.expect("a request");
            let answer = app.clone().oneshot(request).await;
            assert_eq!(bytes(answer.expect("no error")).await, "{}", "{path}");
        }
    }
}

#[tokio::test]
async fn servers_of_tonic_take_the_layer() {
    let (throttle, peek) = layers(Rules::new().default_route(hourly(9)));
    let (_reporter, health) = health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = Server::builder()
        .layer(ServiceBuilder::new().layer(peek).layer(throttle))
        .add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
    let mut client = HealthClient::new(channel.connect().await.expect("a connection"));
    let answer = client.check(HealthCheckRequest::default()).await;
    answer.expect("served");
}

/// Tells whether the body of a request was read.
fn is_read<B>()
-> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
where
    B: Send + 'static,
{
    service_fn(async |request: Request<B>| {
        let is_read = request.extensions().get::<BodyFacts>().is_some();
        Ok::<_, Infallible>(Response::new(Body::from(is_read.to_string())))
    })
}

#[tokio::test]
async fn a_body_passes_unread_where_the_path_names_the_model() {
    let models = Models::from_body().or_by_path_param("model");
    let rules = Rules::new()
        .route("POST /models/{model}:generate", hourly(9))
        .route("POST /v1/chat", hourly(9))
        .models(models.model("large", hourly(1)).otherwise(hourly(9)));
    let (throttle, peek) = layers(rules);
    let service = ServiceBuilder::new()
        .layer(peek)
        .layer(throttle)
        .service(is_read());
    for (path, is_read) in [("/v1/chat", "true"), ("/models/large:generate", "false")] {
        let request = Request::post(path).body(Body::from(r#"{"model":"small"}"#));
        let answer = service.clone().oneshot(request.expect("a request")).await;
        assert_eq!(bytes(answer.expect("no error")).await, is_read, "{path}");
    }
    // The limits of the model are known before the body: a request that they refuse is not read.
    let body = StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let request = Request::post("/models/large:generate").body(Body::new(body));
    let answer = service.oneshot(request.expect("a request")).await;
    assert_eq!(
        answer.expect("no error").status(),
        StatusCode::TOO_MANY_REQUESTS
    );
}

/// Tokens are estimated from the bodies of requests whose limits count tokens, and from no other.
#[tokio::test]
async fn a_body_passes_unread_where_no_limit_counts_tokens() {
    let estimate = Estimate::from_body(BodyEstimate::new()).or(1);
    let rules = Rules::new()
        .route(
            "POST /v1/chat",
            Limits::new().tokens(Rate::per_hour(10_000)),
        )
        .route("POST /v1/files", hourly(9))
        .estimate(estimate);
    let (throttle, peek) = layers(rules);
    let service = ServiceBuilder::new()
        .layer(peek)
        .layer(throttle)
        .service(is_read());
    for (path, is_read) in [("/v1/chat", "true"), ("/v1/files", "false")] {
        let request = Request::post(path).body(Body::from(r#"{"model":"small"}"#));
        let answer = service.clone().oneshot(request.expect("a request")).await;
        assert_eq!(bytes(answer.expect("no error")).await, is_read, "{path}");
    }
}
