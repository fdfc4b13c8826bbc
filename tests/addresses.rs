//! R12, R14: clients identified by their address, in each host.

mod support;

use std::net::SocketAddr;

use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};
use tower::{Layer, Service};
use tower_throttle::{Clients, Rules, ThrottleLayer};

use support::{hourly, throttle};

fn by_address() -> ThrottleLayer {
    throttle(Rules::new().clients(Clients::by_address().each(hourly(2))))
}

/// The status line of an answer to a request from another address of this machine.
async fn ask(server: SocketAddr, from: &str, lines: &str) -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(format!("{from}:0").parse().expect("an address"))
        .expect("loopback");
    let mut connection = socket.connect(server).await.expect("a connection");
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("sent");
    let mut answer = String::new();
    connection
        .read_to_string(&mut answer)
        .await
        .expect("an answer");
    answer.lines().next().unwrap_or_default().to_owned()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn axum_server(layer: ThrottleLayer) -> SocketAddr {
    let app = Router::new()
        .route("/", get(|| async { "served" }))
        .layer(layer);
    let (listener, address) = listen().await;
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, app).into_future());
    address
}

const SERVED: &str = "HTTP/1.1 200 OK";
const REFUSED: &str = "HTTP/1.1 429 Too Many Requests";

#[cfg(feature = "axum")]
#[tokio::test]
async fn in_axum_the_peer_is_known_and_proxies_if_they_are_trusted() {
    let server = axum_server(by_address()).await;
    for (from, expected) in [
        ("127.0.0.1", [SERVED, SERVED, REFUSED]),
        ("127.0.0.2", [SERVED, SERVED, REFUSED]),
    ] {
        for (turn, expected) in expected.into_iter().enumerate() {
            // The claim gains it nothing.
            let claim = format!("x-forwarded-for: 192.0.2.{turn}\r\n");
            assert_eq!(ask(server, from, &claim).await, expected, "{from}");
        }
    }
    let clients = Clients::by_address()
        .trusted_proxies(["127.0.0.1"])
        .each(hourly(1));
    let server = axum_server(throttle(Rules::new().clients(clients))).await;
    for (from, client, expected) in [
        ("127.0.0.1", "192.0.2.1", SERVED),
        ("127.0.0.1", "192.0.2.2", SERVED),
        ("127.0.0.1", "192.0.2.1", REFUSED),
        ("127.0.0.2", "192.0.2.3", SERVED),
        ("127.0.0.2", "192.0.2.4", REFUSED),
    ] {
        let told = format!("x-forwarded-for: {client}\r\n");
        assert_eq!(
            ask(server, from, &told).await,
            expected,
            "{client} by {from}"
        );
    }
}

/// Nobody is unlimited for want of an address.
#[cfg(not(feature = "axum"))]
#[tokio::test]
async fn without_the_feature_all_of_axums_clients_are_anonymous() {
    let server = axum_server(by_address()).await;
    for (from, expected) in [
        ("127.0.0.1", SERVED),
        ("127.0.0.2", SERVED),
        ("127.0.0.3", REFUSED),
    ] {
        assert_eq!(ask(server, from, "").await, expected, "{from}");
    }
}

#[tokio::test]
async fn in_hyper_the_peer_is_what_the_server_says_it_is() {
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        server::conn::auto::Builder,
        service::TowerToHyperService,
    };
    use tower_throttle::client::PeerAddr;

    let layer = by_address();
    let (listener, server) = listen().await;
    tokio::spawn(async move {
        loop {
            let (connection, peer) = listener.accept().await.expect("a connection");
            let throttled = layer.layer(tower::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(http::Response::new(axum::body::Body::empty()))
            }));
            let service =
                tower::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                    request.extensions_mut().insert(PeerAddr(peer));
                    throttled.clone().call(request)
                });
            tokio::spawn(async move {
                let service = TowerToHyperService::new(service);
                let connection = TokioIo::new(connection);
                let _ = Builder::new(TokioExecutor::new())
                    .serve_connection(connection, service)
                    .await;
            });
        }
    });
    for from in ["127.0.0.1", "127.0.0.2"] {
        for expected in [SERVED, SERVED, REFUSED] {
            assert_eq!(ask(server, from, "").await, expected, "{from}");
        }
    }
}

#[cfg(feature = "tonic")]
#[tokio::test]
async fn in_tonic_the_peer_is_known() {
    use tonic::{
        Code,
        transport::{Endpoint, Server},
    };
    use tonic_health::{
        pb::{HealthCheckRequest, health_client::HealthClient},
        server::health_reporter,
    };

    let (_reporter, health) = health_reporter();
    let router = Server::builder().layer(by_address()).add_service(health);
    let (listener, server) = listen().await;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(router.serve_with_incoming(incoming));
    for from in ["127.0.0.1", "127.0.0.2"] {
        let endpoint = Endpoint::from_shared(format!("http://{server}")).expect("an address");
        let endpoint = endpoint.local_address(from.parse().ok());
        let channel = endpoint.connect().await.expect("a connection");
        let mut client = HealthClient::new(channel);
        let mut codes = Vec::new();
        for _ in 0..3 {
            let answer = client.check(HealthCheckRequest::default()).await;
            codes.push(answer.err().map(|status| status.code()));
        }
        assert_eq!(codes, [None, None, Some(Code::ResourceExhausted)], "{from}");
    }
}

/// A host that tells no address is a mistake of the operator's: the log says so once, with what to do.
#[cfg(feature = "tracing")]
#[tokio::test]
async fn a_missing_address_is_said_once() {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut service = by_address().layer(tower::service_fn(|_| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(axum::body::Body::empty()))
    }));
    for _ in 0..3 {
        let request = support::request("GET", "/");
        let _ = service.call(request).await;
    }
    let lines = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
    assert_eq!(lines.matches("PeerAddr").count(), 1, "{lines}");
    assert_eq!(lines.matches("WARN").count(), 1, "{lines}");
}
