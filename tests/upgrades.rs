//! R15 and R26: connections that switch protocols hold their slots and accounts by a guard, over HTTP/1.1 and by
//! extended CONNECT over HTTP/2.

mod support;

use std::convert::Infallible;

use axum::body::Body;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::{body::Incoming, client, ext::Protocol, server, upgrade::Upgraded};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tower::{Layer, service_fn};
use tower_throttle::{Handle, Limits, Rules, ThrottleLayer, Usage, body::Hold, usage::Estimate};

use support::{hourly, throttle};

const RUNS: u64 = 1_000;

/// Routes for connections that are kept and for others, with a slot and ten tokens reserved for each.
fn rules() -> Rules {
    let limits = Limits::new().in_flight(1).tokens(hourly(1_000_000));
    let rules = Rules::new().estimate(Estimate::fixed(10));
    ["GET", "CONNECT"].into_iter().fold(rules, |rules, method| {
        let kept = limits.clone().keep(true);
        let rules = rules.route(format!("{method} /kept"), kept);
        rules.route(format!("{method} /not"), limits.clone())
    })
}

/// Returns the requests in flight of a route, and the tokens that are charged.
fn held(handle: &Handle, route: &str) -> (u64, u64) {
    let limits = handle.snapshot().limits;
    let limits = limits
        .iter()
        .filter(|limit| limit.route.as_deref() == Some(route));
    limits.fold((0, 0), |(slots, tokens), limit| match limit.in_flight {
        Some(in_flight) => (in_flight, tokens),
        None => (slots, limit.burst - limit.remaining.expect("a balance")),
    })
}

/// Switches protocols. The connection counts nine tokens for each four bytes, until its client has gone.
async fn open(
    mut request: Request<Incoming>,
    ended: UnboundedSender<()>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/first" {
        return Ok(Response::new(Body::empty()));
    }
    let is_connect = request.method() == Method::CONNECT;
    let upgrade = hyper::upgrade::on(&mut request);
    let kept = request.extensions().get::<Hold>().and_then(Hold::keep);
    let usage = request.extensions().get::<Usage>().cloned();
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.expect("an upgrade"));
        let mut word = [0; 4];
        while stream.read_exact(&mut word).await.is_ok() {
            let is_open = usage.as_ref().is_some_and(|usage| usage.add(9));
            assert_eq!(is_open, kept.is_some(), "the account is open if it is kept");
            stream.write_all(&word).await.expect("an open connection");
        }
        drop(kept);
        ended.send(()).expect("the test goes on");
    });
    let response = match is_connect {
        true => Response::builder(),
        false => Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo"),
    };
    Ok(response.body(Body::empty()).expect("a response"))
}

/// A client of a server on a connection in memory.
enum Client {
    Http1(client::conn::http1::SendRequest<Body>),
    Http2(client::conn::http2::SendRequest<Body>),
}

async fn client(is_http2: bool, layer: &ThrottleLayer, ended: &UnboundedSender<()>) -> Client {
    let ended = ended.clone();
    let serve = service_fn(move |request: Request<Incoming>| open(request, ended.clone()));
    let service = TowerToHyperService::new(layer.layer(serve));
    let (ours, theirs): (DuplexStream, DuplexStream) = duplex(64 * 1024);
    let (ours, theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
    if is_http2 {
        let mut server = server::conn::http2::Builder::new(TokioExecutor::new());
        server.enable_connect_protocol();
        tokio::spawn(server.serve_connection(theirs, service));
        let handshake = client::conn::http2::handshake(TokioExecutor::new(), ours).await;
        let (mut sender, connection) = handshake.expect("a connection");
        tokio::spawn(connection);
        // After an answer, the client knows that the server takes extended CONNECT.
        let first = Request::get("http://a/first").version(Version::HTTP_2);
        let first = first.body(Body::empty()).expect("a request");
        sender.send_request(first).await.expect("an answer");
        Client::Http2(sender)
    } else {
        let server = server::conn::http1::Builder::new().serve_connection(theirs, service);
        tokio::spawn(server.with_upgrades());
        let handshake = client::conn::http1::handshake(ours).await;
        let (sender, connection) = handshake.expect("a connection");
        tokio::spawn(connection.with_upgrades());
        Client::Http1(sender)
    }
}

impl Client {
    /// Opens a connection. An HTTP/1.1 client can open one.
    async fn open(&mut self, path: &str) -> Result<TokioIo<Upgraded>, StatusCode> {
        let response = match self {
            Self::Http1(sender) => {
                let request = Request::get(path)
                    .header("host", "a")
                    .header("connection", "upgrade")
                    .header("upgrade", "echo");
                let request = request.body(Body::empty()).expect("a request");
                sender.send_request(request).await.expect("an answer")
            }
            Self::Http2(sender) => {
                let request = Request::connect(format!("http://a{path}"))
                    .version(Version::HTTP_2)
                    .extension(Protocol::from_static("websocket"));
                let request = request.body(Body::empty()).expect("a request");
                sender.send_request(request).await.expect("an answer")
            }
        };
        match response.status() {
            StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS => {
                let upgraded = hyper::upgrade::on(response).await;
                Ok(TokioIo::new(upgraded.expect("an upgrade")))
            }
            status => Err(status),
        }
    }
}

async fn ping(stream: &mut TokioIo<Upgraded>) {
    let mut echo = [0; 4];
    stream.write_all(b"ping").await.expect("sent");
    stream.read_exact(&mut echo).await.expect("an echo");
    assert_eq!(&echo, b"ping");
}

/// Opens connections one after the other, and looks at what they hold.
async fn all(is_http2: bool, method: &str) {
    let layer = throttle(rules().route("GET /first", Limits::exempt()));
    let handle = layer.handle();
    let (ended, mut ends): (_, UnboundedReceiver<()>) = unbounded_channel();
    let key = format!("{method} /kept");
    let mut one = client(is_http2, &layer, &ended).await;
    let mut charged = 0;
    for run in 0..RUNS {
        if !is_http2 {
            one = client(false, &layer, &ended).await;
        }
        let mut stream = one.open("/kept").await.expect("it is let in");
        assert_eq!(held(&handle, &key), (1, charged + 10), "{run}: it is open");
        if run == 0 {
            let mut another = client(is_http2, &layer, &ended).await;
            let refused = another.open("/kept").await;
            assert_eq!(refused.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
        }
        for _ in 0..2 {
            ping(&mut stream).await;
        }
        assert_eq!(
            held(&handle, &key),
            (1, charged + 18),
            "{run}: 18 of 10 are used"
        );
        drop(stream);
        ends.recv().await.expect("the connection has ended");
        charged += 18;
        assert_eq!(held(&handle, &key), (0, charged), "{run}: it is closed");
    }
    // Without a guard, the slot comes back and the account ends with the response.
    let key = format!("{method} /not");
    if !is_http2 {
        one = client(false, &layer, &ended).await;
    }
    let mut stream = one.open("/not").await.expect("it is let in");
    ping(&mut stream).await;
    assert_eq!(held(&handle, &key), (0, 10), "the connection is open");
}

#[tokio::test]
async fn an_upgraded_connection_holds_its_slot_and_its_account_by_a_guard() {
    all(false, "GET").await;
}

#[tokio::test]
async fn an_extended_connect_holds_its_slot_and_its_account_by_a_guard() {
    all(true, "CONNECT").await;
}
