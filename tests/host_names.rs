//! Clients that are identified by the requested host, over HTTP/1.1 and HTTP/2.

mod support;

use std::net::SocketAddr;

use axum::body::Body;
use http::{Request, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::Layer;
use tower_throttle::{Clients, Rules, ThrottleLayer, client::PeerAddr};

use support::{admitted, bytes, hourly, passes, serve, served, throttle};

const LISTED: [&str; 2] = ["a.example", "b.example"];

fn by_host(burst: u64) -> ThrottleLayer {
    throttle(Rules::new().clients(Clients::by_host(LISTED).each(hourly(burst))))
}

async fn over_http1(server: SocketAddr, host: &str) -> u16 {
    let mut connection = TcpStream::connect(server).await.expect("a connection");
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let sent = connection.write_all(request.as_bytes()).await;
    sent.expect("sent");
    let mut answer = String::new();
    let read = connection.read_to_string(&mut answer).await;
    read.expect("an answer");
    let status = answer.split(' ').nth(1).expect("a status");
    status.parse().expect("a number")
}

async fn over_http2(server: SocketAddr, host: &str) -> u16 {
    let connection = TcpStream::connect(server).await.expect("a connection");
    let (mut client, connection) =
        http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(connection))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::get(format!("http://{host}/")).version(Version::HTTP_2);
    let request = request.body(Body::empty()).expect("a request");
    let answer = client.send_request(request).await.expect("an answer");
    let status = answer.status().as_u16();
    bytes(answer).await;
    status
}

#[tokio::test]
async fn hosts_are_told_apart_in_each_protocol_and_are_the_same_clients_in_both() {
    let server = serve(by_host(2).layer(served())).await;
    let (served, refused) = (200, 429);
    // (HTTP/2, host, its answer)
    let table = [
        (true, "a.example", served),
        (false, "A.example.:80", served),
        (true, "a.EXAMPLE", refused),
        (false, "a.example", refused),
        (true, "a.example:443", refused),
        (true, "b.example", served),
        (false, "b.example:8080", served),
        (true, "b.example.", refused),
    ];
    for (http2, host, expected) in table {
        let answer = match http2 {
            true => over_http2(server, host).await,
            false => over_http1(server, host).await,
        };
        assert_eq!(answer, expected, "{host}, HTTP/2: {http2}");
    }
}

#[tokio::test(start_paused = true)]
async fn inventing_hosts_gains_nothing() {
    let service = by_host(3).layer(served());
    let mut passed = 0;
    for number in 0..50 {
        let uri = format!("http://h{number}.example/");
        passed += admitted(&service, 1, "GET", &uri).await;
        let uri = format!("http://a.example.h{number}/");
        passed += admitted(&service, 1, "GET", &uri).await;
    }
    passed += admitted(&service, 50, "GET", "/").await;
    assert_eq!(passed, 3, "the burst of the one anonymous client");
    for number in 1..50 {
        let uri = format!("http://a.example:{number}/");
        passed += admitted(&service, 1, "GET", &uri).await;
    }
    assert_eq!(passed, 3 + 3, "and that of one host at all its ports");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_not_listed_may_be_told_apart_by_address() {
    let clients = Clients::by_host(LISTED).or_address().each(hourly(1));
    let service = throttle(Rules::new().clients(clients)).layer(served());
    let ask = |uri: &str, from: &str| {
        let mut request = support::request("GET", uri);
        let from: SocketAddr = from.parse().expect("an address");
        request.extensions_mut().insert(PeerAddr(from));
        request
    };
    for (uri, from, expected) in [
        ("http://a.example/", "192.0.2.1:1", true),
        ("http://a.example/", "192.0.2.2:1", false),
        ("http://c.example/", "192.0.2.1:1", true),
        ("http://d.example/", "192.0.2.1:2", false),
        ("http://d.example/", "192.0.2.2:2", true),
    ] {
        let passes = passes(&service, ask(uri, from)).await;
        assert_eq!(passes, expected, "{uri} from {from}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_is_a_member_of_a_plan_in_any_spelling() {
    let clients = Clients::by_host(LISTED)
        .each(hourly(1))
        .plan("large", hourly(5))
        .member("large", "B.Example.:443");
    let service = throttle(Rules::new().clients(clients)).layer(served());
    for (uri, burst) in [("http://a.example/", 1), ("http://b.example/", 5)] {
        assert_eq!(admitted(&service, 9, "GET", uri).await, burst, "{uri}");
    }
}

#[test]
fn a_list_that_is_none_is_an_error_at_build_time() {
    let error = |clients: Clients| {
        let clients = clients.each(hourly(1)).plan("large", hourly(5));
        let built = ThrottleLayer::new(Rules::new().clients(clients));
        built.map(drop).map_err(|error| error.to_string())
    };
    let none: [&str; 0] = [];
    assert_eq!(
        error(Clients::by_host(none)),
        Err(
            "clients: identified by host, but no host is listed; list the hosts that are clients"
                .to_owned()
        )
    );
    for host in ["exa mple", "", "*.example", "http://a.example", "::1"] {
        let expected = format!(
            "clients: `{host}` is not a host; write a name or an address, such as `api.example.com`, `192.0.2.1` or \
             `[::1]`, with or without a port"
        );
        assert_eq!(error(Clients::by_host(["a.example", host])), Err(expected));
    }
    let stranger = error(Clients::by_host(LISTED).member("large", "c.example"));
    assert!(
        stranger
            .expect_err("no member")
            .contains("hosts are those listed"),
        "a member that no request can be"
    );
    assert_eq!(
        error(Clients::by_host(["a.example", "A.example.:80"])),
        Ok(()),
        "twice"
    );
}

#[cfg(feature = "config")]
#[test]
fn hosts_are_listed_in_files() {
    let text = r#"
        [clients]
        by = [{ hosts = ["a.example", "[::1]:8080"] }, "address"]
        each = 1
    "#;
    let rules = Rules::from_toml(text).expect("rules");
    let written = Rules::new().clients(
        Clients::by_host(["a.example", "[::1]:8080"])
            .or_address()
            .each(tower_throttle::Rate::per_second(1)),
    );
    assert_eq!(format!("{rules:?}"), format!("{written:?}"));
    let again = Rules::from_toml(&rules.to_toml().expect("a document")).expect("the same");
    assert_eq!(format!("{again:?}"), format!("{rules:?}"));
}
