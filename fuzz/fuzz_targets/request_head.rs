//! Any bytes as the heads of requests, sent through a throttle while time stands still or moves on.
//!
//! The input is text, so that seeds can be read: the first line chooses the layer's options by the words
//! in it, then heads follow as HTTP/1 writes them, each ended by an empty line. A line `+ 250` lets so
//! many milliseconds go by. What no server could have read as a request is left out. A head at the very
//! end, without its empty line, is sent once more after the wait that it is told.
//!
//! - Nothing panics.
//! - A request is either admitted and reaches the service as it was, or is refused with a well-formed
//!   answer and does not.
//! - No bucket admits more than its burst and rate allow, and a refused request costs nothing.
//! - After the told wait, the same request passes; a nanosecond before that it does not, unless others were refused
//!   before it and each is told another wait.

#![no_main]

use std::{collections::HashMap, convert::Infallible, future::ready, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    request::Parts,
};
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use tokio::{runtime, time};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Decision, Denial, Limits, Rate, Rules, RulesError, ThrottleLayer, decision::DecisionIn,
    limit::Scope, response::Protocol, rules::Undeclared,
};

/// More requests would only make each run slower.
const MAX_REQUESTS: usize = 64;

/// The rate of each key below: count, seconds, burst.
const ROUTES: [(&str, [u64; 3]); 6] = [
    ("POST /v1/chat/completions", [60, 60, 4]),
    ("ANY /v1/models/{id}", [1, 1, 2]),
    ("GET /v1/files/{*path}", [2, 3_600, 3]),
    ("HEAD /only/head", [1, 1, 1]),
    ("OPTIONS /asked", [3, 7, 2]),
    (
        "POST /inference.v1.Inference/{method}",
        [1_000_000_007, 1, 1],
    ),
];

/// The rate of everything that passes: count, seconds, burst.
const TOTAL: [u64; 3] = [20, 60, 12];

/// The field that the inner service writes, so that a refused request is known by its absence.
const SERVED: HeaderName = HeaderName::from_static("x-served");

fuzz_target!(|input: &[u8]| {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output");
    runtime.block_on(run(input));
});

async fn run(input: &[u8]) {
    let mut lines = input.split(|&byte| byte == b'\n');
    let options = lines.next().unwrap_or_default();
    let mut server = Server::new(options).expect("rules that hold together");
    let mut head: Vec<&[u8]> = Vec::new();
    let mut sent = 0;
    for line in lines {
        if let Some(wait) = waiting(line) {
            server.advance(wait).await;
        } else if !line.is_empty() {
            head.push(line);
        } else if let Some(request) = request(&head) {
            server.send(request).await;
            head.clear();
            sent += 1;
            if sent == MAX_REQUESTS {
                return;
            }
        } else {
            head.clear();
        }
    }
    if let Some(request) = request(&head) {
        server.passes_after_the_told_wait(request).await;
    }
}

/// `+ 250`: a quarter of a second. At most about a month.
fn waiting(line: &[u8]) -> Option<Duration> {
    let digits = line
        .strip_prefix(b"+ ")
        .filter(|digits| digits.len() < 10)?;
    let milliseconds = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Duration::from_millis(milliseconds))
}

/// The head of a request, if a server could have read one from it.
fn request(lines: &[&[u8]]) -> Option<Request<()>> {
    let (first, fields) = lines.split_first()?;
    let mut words = first.splitn(3, |&byte| byte == b' ');
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(words.next()?).ok()?;
    *request.version_mut() = match words.next()? {
        b"HTTP/0.9" => Version::HTTP_09,
        b"HTTP/1.0" => Version::HTTP_10,
        b"HTTP/2" => Version::HTTP_2,
        b"HTTP/3" => Version::HTTP_3,
        _ => Version::HTTP_11,
    };
    for field in fields {
        let colon = field.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&field[..colon]).ok()?;
        let value = HeaderValue::from_bytes(field[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

fn rate([count, seconds, burst]: [u64; 3]) -> Rate {
    Rate::new(count, Duration::from_secs(seconds)).burst(burst)
}

/// A throttled service, and what it let through.
struct Server {
    layer: ThrottleLayer,
    /// True if those who are refused together are told different waits.
    spread: bool,
    /// True if a request was refused before.
    refused: bool,
    /// The time since the layer was made.
    now: Duration,
    /// The moments at which requests were admitted, by the key they were charged to.
    admitted: HashMap<String, Vec<Duration>>,
}

impl Server {
    fn new(options: &[u8]) -> Result<Self, RulesError> {
        let chosen = |word: &[u8]| options.split(|&byte| byte == b' ').any(|it| it == word);
        let mut rules = Rules::new().total(Limits::from(rate(TOTAL)).publish(chosen(b"publish")));
        for (key, limits) in ROUTES {
            rules = rules.route(key, rate(limits));
        }
        rules = rules
            .route("GET /health", Limits::unlimited())
            .route("ANY /closed/{proxy+}", Limits::closed())
            .default_route(
                Limits::new()
                    .rate(Rate::per_second(10).burst(5))
                    .rate(Rate::per_hour(9)),
            );
        if chosen(b"shared") {
            rules = rules.undeclared(Undeclared::Shared);
        }
        let spread = !chosen(b"exact");
        let mut builder = ThrottleLayer::builder(rules)
            .stagger_retry_after(spread)
            .decision(DecisionIn::Both)
            .rate_limit_headers(!chosen(b"bare"))
            .grpc_retry_pushback(chosen(b"pushback"));
        if chosen(b"grpc") {
            builder = builder.protocol(Protocol::Grpc);
        } else if chosen(b"http") {
            builder = builder.protocol(Protocol::Http);
        }
        if chosen(b"own") {
            builder = builder.rejection(|denial: &Denial, _: &Parts| {
                let mut answer = Response::new(format!("{denial:?}"));
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                answer
            });
        }
        Ok(Self {
            layer: builder.build()?,
            spread,
            refused: false,
            now: Duration::ZERO,
            admitted: HashMap::new(),
        })
    }

    async fn advance(&mut self, wait: Duration) {
        time::advance(wait).await;
        self.now += wait;
    }

    async fn send(&mut self, request: Request<()>) -> Decision {
        let (method, before) = (request.method().clone(), head(&request));
        let inner = service_fn(move |request: Request<()>| {
            assert_eq!(head(&request), before, "a request is passed on as it came");
            let decision = request.extensions().get::<Decision>();
            assert!(decision.is_some_and(Decision::is_admitted));
            let mut response = Response::new(Full::new(Bytes::from_static(b"served")));
            response
                .headers_mut()
                .insert(SERVED, HeaderValue::from_static("1"));
            ready(Ok::<_, Infallible>(response))
        });
        let answer = self.layer.layer(inner).oneshot(request).await;
        let (parts, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
        let body = body.collect().await.unwrap_or_else(|never| match never {});
        let decision = parts.extensions.get::<Decision>().cloned();
        let decision = decision.expect("a decision on every answer");
        assert_eq!(decision.is_admitted(), parts.headers.contains_key(SERVED));
        if decision.is_admitted() {
            assert_eq!(parts.status, StatusCode::OK);
            self.note(&decision);
        } else {
            assert_refusal(
                parts.status,
                &parts.headers,
                &body.to_bytes(),
                &method,
                &decision,
            );
            self.assert_nothing_spent(&decision);
            self.refused = true;
        }
        decision
    }

    /// Books an admitted request, and compares the books with the bound: in a half-open window of length
    /// `w` at most `burst - 1 + ⌈w × count / period⌉`.
    fn note(&mut self, decision: &Decision) {
        let mut books = Vec::new();
        if decision.limits().any(|limit| limit.scope() == Scope::Total) {
            books.push(("the total", TOTAL));
        }
        if let Some(route) = ROUTES.iter().find(|(key, _)| *key == decision.route()) {
            books.push(*route);
        }
        assert!(!decision.route().starts_with("ANY /closed"));
        for (name, [count, seconds, burst]) in books {
            let times = self.admitted.entry(name.to_owned()).or_default();
            times.push(self.now);
            for (index, start) in times.iter().enumerate() {
                let admitted = u128::try_from(times.len() - index).expect("a few");
                let window = (self.now - *start).as_nanos() + 1;
                let period = u128::from(seconds) * 1_000_000_000;
                let refilled = (window * u128::from(count)).div_ceil(period);
                let bound = u128::from(burst) - 1 + refilled;
                assert!(admitted <= bound, "{name}: {admitted} within {window} ns");
            }
        }
    }

    /// The total has still what the last admitted request left of it: at least the burst less all that
    /// were admitted.
    fn assert_nothing_spent(&self, decision: &Decision) {
        let admitted = self.admitted.get("the total").map_or(0, Vec::len);
        let [_, _, burst] = TOTAL;
        let left = burst.saturating_sub(u64::try_from(admitted).expect("a few"));
        for limit in decision
            .limits()
            .filter(|limit| limit.scope() == Scope::Total)
        {
            assert!(limit.remaining() >= left, "{limit:?}, {admitted} admitted");
        }
    }

    async fn passes_after_the_told_wait(&mut self, request: Request<()>) {
        let exact = !self.spread || !self.refused;
        let Some(wait) = self.send(request.clone()).await.retry_after() else {
            return;
        };
        if !wait.is_zero() {
            self.advance(wait - Duration::from_nanos(1)).await;
            let early = self.send(request.clone()).await.is_admitted();
            assert!(!early || !exact, "too soon");
            if early {
                return;
            }
            self.advance(Duration::from_nanos(1)).await;
            assert!(self.send(request).await.is_admitted(), "after {wait:?}");
        }
    }
}

/// The parts of a request that the inner service must see unchanged.
fn head(request: &Request<()>) -> (Method, Uri, Version, HeaderMap) {
    (
        request.method().clone(),
        request.uri().clone(),
        request.version(),
        request.headers().clone(),
    )
}

fn assert_refusal(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    method: &Method,
    decision: &Decision,
) {
    let integer = |name: &str| {
        let value = headers.get(name)?;
        let text = value.to_str().expect("visible ASCII");
        Some(text.parse::<i64>().expect("an integer"))
    };
    let wait = decision.retry_after();
    assert!(wait.is_none_or(|wait| !wait.is_zero()));
    assert!(decision.limits().any(|limit| limit.is_refused()));
    assert!(*method != Method::HEAD || body.is_empty());
    match status {
        StatusCode::OK => {
            assert_eq!(integer("grpc-status"), Some(8));
            assert!(headers.contains_key("grpc-message"));
            assert!(headers.contains_key("grpc-status-details-bin"));
            assert!(body.is_empty());
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let (seconds, milliseconds) = (integer("retry-after"), integer("retry-after-ms"));
            assert_eq!(seconds.is_some(), wait.is_some());
            if let (Some(seconds), Some(milliseconds)) = (seconds, milliseconds) {
                let told = Duration::from_millis(milliseconds.unsigned_abs());
                assert!(seconds >= 1 && 1 <= milliseconds && milliseconds <= seconds * 1_000);
                assert!(wait.is_some_and(|wait| wait <= told));
            }
            let long = seconds.is_none_or(|seconds| seconds > 60);
            assert_eq!(headers.contains_key("x-should-retry"), long);
            assert!(*method == Method::HEAD || body.starts_with(b"{") && body.ends_with(b"}"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            assert!(*method == Method::HEAD || body.starts_with(b"Denial"));
        }
        other => panic!("refused with {other}"),
    }
}
