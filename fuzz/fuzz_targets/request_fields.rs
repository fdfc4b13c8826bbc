//! Any bytes as the fields that tell whose a request is, what it costs and how long its client waits.
//!
//! The first line of the input names the field, the others are its lines in a request.
//!
//! - Nothing panics.
//! - `forwarded` and `x-forwarded-for`: whatever stands left of what a trusted proxy has appended, the client is whom
//!   that names; and from who is no proxy, nothing is believed.
//! - `authorization`: a bearer token is one client however its scheme is written, and who has none is anonymous.
//! - `grpc-timeout`: who would be gone by then does not stand in line.
//! - `content-length` and `x-tokens`: that many tokens are reserved, of an estimate no more than half of the burst, and
//!   what is no number counts as none.

#![no_main]

use std::{
    convert::Infallible,
    future::{Future, ready},
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use libfuzzer_sys::fuzz_target;
use tokio::runtime;
use tower::{Layer, Service, service_fn};
use tower_throttle::{
    Clients, Decision, Limits, Rate, Rules, ThrottleLayer, Usage,
    client::{Forwarding, PeerAddr},
    decision::DecisionIn,
    usage::Estimate,
};

const PROXY: &str = "10.0.0.1:4711";
const STRANGER: &str = "203.0.113.9:4711";
const CLIENT: &str = "198.51.100.1";

/// An answer, as far as it is known at once.
#[derive(Debug, PartialEq)]
enum Told {
    /// Served, with so many model tokens reserved.
    Served(Option<u64>),
    /// Refused; true if the request might pass later.
    Refused(bool),
    Waits,
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|&byte| byte == b'\n');
    let (name, lines) = (lines.next().unwrap_or_default(), lines.collect::<Vec<_>>());
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output");
    runtime.block_on(async {
        match name {
            b"x-forwarded-for" => addresses(Forwarding::XForwardedFor, &lines, CLIENT),
            b"forwarded" => addresses(Forwarding::Forwarded, &lines, &format!("for={CLIENT}")),
            b"authorization" => bearer(&lines),
            b"grpc-timeout" => timeout(&lines),
            b"content-length" => {
                let estimate = Estimate::by_content_length(4).or(7);
                tokens("content-length", &lines, estimate, |number| {
                    number.div_ceil(4)
                });
            }
            b"x-tokens" => tokens(
                "x-tokens",
                &lines,
                Estimate::by_header("x-tokens").or(7),
                |number| number,
            ),
            _ => {}
        }
    });
});

/// The fields of a request, if a server could have read them.
fn fields(name: &'static str, lines: &[&[u8]]) -> Option<HeaderMap> {
    let values = lines
        .iter()
        .map(|line| HeaderValue::from_bytes(line.trim_ascii()));
    let name = HeaderName::from_static(name);
    values
        .map(|value| Some((name.clone(), value.ok()?)))
        .collect::<Option<Vec<_>>>()
        .map(|fields| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, value);
            }
            headers
        })
}

fn layer(rules: Rules) -> ThrottleLayer {
    ThrottleLayer::builder(rules)
        .decision(DecisionIn::Response)
        .build()
        .expect("rules that hold together")
}

fn send(layer: &ThrottleLayer, peer: &str, fields: HeaderMap) -> Told {
    let mut request = Request::new(());
    *request.headers_mut() = fields;
    let peer: SocketAddr = peer.parse().expect("an address");
    request.extensions_mut().insert(PeerAddr(peer));
    let inner = service_fn(|request: Request<()>| {
        let mut response = Response::new(());
        if let Some(usage) = request.extensions().get::<Usage>() {
            response.extensions_mut().insert(usage.reserved());
        }
        ready(Ok::<_, Infallible>(response))
    });
    let mut throttle = layer.layer(inner);
    let future = pin!(throttle.call(request));
    let Poll::Ready(Ok(response)) = future.poll(&mut Context::from_waker(Waker::noop())) else {
        return Told::Waits;
    };
    let decision: &Decision = response
        .extensions()
        .get()
        .expect("a decision on every answer");
    match decision.is_admitted() {
        true => Told::Served(response.extensions().get().copied()),
        false => Told::Refused(decision.retry_after().is_some()),
    }
}

/// One request an hour for each client.
fn hourly(clients: Clients) -> ThrottleLayer {
    layer(Rules::new().clients(clients.each(Rate::per_hour(1)).max_clients(64)))
}

fn addresses(forwarding: Forwarding, lines: &[&[u8]], appended: &str) {
    let name = match forwarding {
        Forwarding::Forwarded => "forwarded",
        _ => "x-forwarded-for",
    };
    let clients = Clients::by_address()
        .trusted_proxies(["10.0.0.0/8"])
        .forwarding(forwarding);
    let last = lines.last().copied().unwrap_or_default();
    // Appended to the last line, or in a line of its own.
    let joined = [last, b", ", appended.as_bytes()].concat();
    let mut one = lines.to_vec();
    one.pop();
    one.push(&joined);
    let mut other = lines.to_vec();
    other.push(appended.as_bytes());
    for spoofed in [one, other] {
        let Some(spoofed) = fields(name, &spoofed) else {
            return;
        };
        let layer = hourly(clients.clone());
        let honest = fields(name, &[appended.as_bytes()]).expect("an address");
        assert_eq!(send(&layer, PROXY, honest), Told::Served(None));
        assert_eq!(
            send(&layer, PROXY, spoofed.clone()),
            Told::Refused(true),
            "{spoofed:?}"
        );
        assert_eq!(send(&layer, STRANGER, HeaderMap::new()), Told::Served(None));
        assert_eq!(
            send(&layer, STRANGER, spoofed.clone()),
            Told::Refused(true),
            "{spoofed:?}"
        );
    }
}

fn bearer(lines: &[&[u8]]) {
    let Some(written) = fields("authorization", lines) else {
        return;
    };
    let token = first(&written, "authorization").and_then(|value| {
        let space = value.iter().position(|byte| b" \t".contains(byte))?;
        let token = value[space..].trim_ascii();
        (value[..space].eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
    });
    let plain = match token {
        Some(token) => {
            let line = [b"Bearer ", token].concat();
            fields("authorization", &[&line]).expect("it was a value before")
        }
        None => HeaderMap::new(),
    };
    let layer = hourly(Clients::by_bearer());
    assert_eq!(send(&layer, STRANGER, plain), Told::Served(None));
    assert_eq!(
        send(&layer, STRANGER, written.clone()),
        Told::Refused(true),
        "{written:?}"
    );
    // Nobody else's place was taken.
    let other = fields("authorization", &[b"Bearer another"]).expect("a token");
    if token != Some(b"another") {
        assert_eq!(send(&layer, STRANGER, other), Told::Served(None));
    }
}

fn timeout(lines: &[&[u8]]) {
    const WAIT: Duration = Duration::from_secs(10);
    let Some(written) = fields("grpc-timeout", lines) else {
        return;
    };
    let limits = Limits::new()
        .rate(Rate::new(1, WAIT))
        .max_wait(Duration::from_secs(3_600));
    let layer = layer(Rules::new().default_route(limits));
    assert_eq!(send(&layer, STRANGER, HeaderMap::new()), Told::Served(None));
    // Timeout = TimeoutValue TimeoutUnit; at most eight digits.
    let told = first(&written, "grpc-timeout").and_then(|value| {
        let (unit, digits) = value.split_last()?;
        let nanos: u128 = match unit {
            b'H' => 3_600_000_000_000,
            b'M' => 60_000_000_000,
            b'S' => 1_000_000_000,
            b'm' => 1_000_000,
            b'u' => 1_000,
            b'n' => 1,
            _ => return None,
        };
        let count = number(digits).filter(|_| digits.len() <= 8)?;
        Some(nanos * u128::from(count))
    });
    let expected = match told {
        Some(told) if told <= WAIT.as_nanos() => Told::Refused(true),
        _ => Told::Waits,
    };
    assert_eq!(
        send(&layer, STRANGER, written.clone()),
        expected,
        "{written:?}"
    );
}

fn tokens(name: &'static str, lines: &[&[u8]], estimate: Estimate, of: fn(u64) -> u64) {
    const BURST: u64 = 1_000;
    let Some(written) = fields(name, lines) else {
        return;
    };
    let told = first(&written, name).and_then(number);
    let told = told.map_or(7, of).max(1);
    let known = match told > BURST {
        true => Told::Refused(false),
        false => Told::Served(Some(told)),
    };
    let guessed = Told::Served(Some(told.min(BURST / 2)));
    for (estimate, expected) in [(estimate.clone(), guessed), (estimate.exact(), known)] {
        let tokens = Limits::new().tokens(Rate::per_hour(1).burst(BURST));
        let layer = layer(Rules::new().default_route(tokens).estimate(estimate));
        assert_eq!(
            send(&layer, STRANGER, written.clone()),
            expected,
            "{written:?}"
        );
    }
}

/// Digits, and nothing else. More than there is room for are the largest number.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = std::str::from_utf8(digits).ok()?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// The first value that is not empty.
fn first<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = fields.get_all(name).iter().map(HeaderValue::as_bytes);
    values.find(|value| !value.is_empty())
}
