//! Requests through a peek layer, with bodies that are played by hand.

use std::{
    cell::Cell,
    collections::VecDeque,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use proptest::prelude::*;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::{Peek, PeekLayer, Peeked, kept::Kept, settings::PeekSettings};
use crate::{
    body::ResponseBody,
    client::Clients,
    facts::{BodyFacts, FactsScanner, RequestFacts, UnreadReason},
    layer::ThrottleLayer,
    limit::limits::Limits,
    model::Models,
    rules::Rules,
};

const MIB: usize = 1024 * 1024;

/// The answer of the layer, as a host sees it.
type Answer = Response<ResponseBody<Empty<Bytes>>>;

/// Rules that read the models of all requests but those to `/health`, and refuse those to `/closed` in any case.
fn rules() -> Rules {
    Rules::new()
        .route("POST /health", Limits::exempt())
        .route("POST /closed", Limits::closed())
        .models(Models::from_body())
}

fn layer() -> PeekLayer {
    let throttle = ThrottleLayer::new(rules()).expect("proper rules");
    throttle.peek_layer()
}

/// A layer that tells clients apart.
fn layer_of_clients() -> PeekLayer {
    let clients = Clients::by_header("x-client").each(Limits::unlimited());
    let throttle = ThrottleLayer::new(rules().clients(clients)).expect("proper rules");
    throttle.peek_layer()
}

/// A request whose body is read.
fn request<B>(body: B) -> Request<B> {
    let request = Request::post("/v1/chat").body(body);
    request.expect("a request")
}

/// The things that an inner service has seen.
#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    facts: Option<BodyFacts>,
    /// The exact size, as the body tells it at first.
    said: Option<u64>,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    error: Option<&'static str>,
}

impl Seen {
    fn facts<B>(request: &Request<B>) -> Option<BodyFacts> {
        request.extensions().get().cloned()
    }
}

/// Reads a request to its end, and checks what its body says at each frame.
async fn see<B>(request: Request<Peeked<B>>) -> Seen
where
    B: Body<Data = Bytes, Error = &'static str>,
{
    let mut seen = Seen {
        facts: Seen::facts(&request),
        said: request.body().size_hint().exact(),
        ..Seen::default()
    };
    let mut body = pin!(request.into_body());
    let whole = seen.said;
    loop {
        let said_end = body.is_end_stream();
        let left = whole.map(|whole| whole - seen.data.len() as u64);
        let is_over = seen.trailers.is_some() || seen.error.is_some();
        assert!(is_over || body.size_hint().exact() == left, "the size");
        let Some(frame) = body.frame().await else {
            return seen;
        };
        assert!(!said_end, "a frame after the end: {frame:?}");
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => seen.data.extend_from_slice(&data),
            Ok(Err(frame)) => seen.trailers = frame.into_trailers().ok(),
            Err(error) => {
                seen.error = Some(error);
                return seen;
            }
        }
    }
}

/// A service that reads bodies, and tells what it has seen in its response.
fn seer<B>() -> impl Service<
    Request<Peeked<B>>,
    Response = Response<Empty<Bytes>>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Empty<Bytes>>, Infallible>>,
> + Clone
where
    B: Body<Data = Bytes, Error = &'static str>,
{
    service_fn(|request: Request<Peeked<B>>| async {
        let seen = see(request).await;
        let mut response = Response::new(Empty::new());
        response.extensions_mut().insert(seen);
        Ok(response)
    })
}

/// Sends a request, and returns what the inner service has seen.
async fn sent<B>(layer: &PeekLayer, request: Request<B>) -> Seen
where
    B: Body<Data = Bytes, Error = &'static str>,
{
    let answer = layer.layer(seer()).oneshot(request).await;
    seen(&answer.expect("no error"))
}

fn seen(answer: &Answer) -> Seen {
    let seen = answer.extensions().get::<Seen>();
    seen.expect("the inner service was called").clone()
}

/// The facts of a body of so many bytes that was read to its end. Most bodies here are spaces: only their end shows
/// that they are no JSON.
fn read(bytes: usize) -> Option<BodyFacts> {
    Some(BodyFacts::new(match bytes {
        0 => Ok(RequestFacts::default()),
        _ => Err(UnreadReason::Malformed),
    }))
}

/// The facts of a document with a text of so many bytes.
fn read_text(bytes: usize) -> Option<BodyFacts> {
    let mut scanner = FactsScanner::new();
    scanner.feed(format!("{{\"input\":\"{}\"}}", "0".repeat(bytes)).as_bytes());
    Some(BodyFacts::new(scanner.finish()))
}

fn unread(reason: UnreadReason) -> Option<BodyFacts> {
    Some(BodyFacts::new(Err(reason)))
}

// ---- Bodies

/// A frame of a script.
#[derive(Debug, Clone)]
enum Step {
    Data(Vec<u8>),
    Pending,
    Trailers,
    Error,
}

/// A body that plays what it is given.
#[derive(Debug)]
struct Script {
    steps: VecDeque<Step>,
    /// True if it tells its size, and its end.
    knows: bool,
}

impl Script {
    fn left(&self) -> usize {
        let lengths = self.steps.iter().map(|step| match step {
            Step::Data(data) => data.len(),
            _ => 0,
        });
        lengths.sum()
    }
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("x-checksum"),
        http::HeaderValue::from_static("abc"),
    )])
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Data(data)) => Some(Ok(Frame::data(data.into()))),
            Some(Step::Trailers) => Some(Ok(Frame::trailers(trailers()))),
            Some(Step::Error) => Some(Err("broken")),
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.knows && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.knows {
            true => SizeHint::with_exact(self.left() as u64),
            false => SizeHint::default(),
        }
    }
}

/// A body that a test feeds. Counts its polls.
struct Fed {
    frames: UnboundedReceiver<Result<Frame<Bytes>, &'static str>>,
    polls: Rc<Cell<usize>>,
    length: Option<u64>,
}

/// The end by which a test feeds a body.
struct Feeder {
    frames: UnboundedSender<Result<Frame<Bytes>, &'static str>>,
    polls: Rc<Cell<usize>>,
}

/// Makes a body without a length, and the end that feeds it.
fn fed() -> (Feeder, Fed) {
    let (sender, frames) = mpsc::unbounded_channel();
    let polls = Rc::new(Cell::new(0));
    let feeder = Feeder {
        frames: sender,
        polls: Rc::clone(&polls),
    };
    let length = None;
    let body = Fed {
        frames,
        polls,
        length,
    };
    (feeder, body)
}

impl Feeder {
    fn feed(&self, length: usize) {
        let frame = Frame::data(Bytes::from(vec![b' '; length]));
        self.frames.send(Ok(frame)).expect("somebody reads");
    }
}

impl Body for Fed {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.polls.set(self.polls.get() + 1);
        self.frames.poll_recv(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Polls once.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs on a runtime whose clock stands still.
fn run<F: Future>(future: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

// ---- The same body

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![
        0..4_usize,
        500..520_usize,
        4_090..4_100_usize,
        0..30_000_usize
    ];
    prop_oneof![
        6 => (b'0'..=b'9', length).prop_map(|(byte, length)| Step::Data(vec![byte; length])),
        2 => Just(Step::Pending),
    ]
}

/// The end of a script.
fn ending() -> impl Strategy<Value = Option<Step>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Step::Trailers)),
        1 => Just(Some(Step::Error)),
    ]
}

proptest! {
    #![proptest_config(crate::cases::cases(256))]

    /// The inner service sees what it would have seen, whatever the frames and the bounds, and all room comes back.
    #[test]
    fn the_inner_service_sees_the_same_body(
        steps in prop::collection::vec(step(), 0..24),
        ending in ending(),
        is_document in prop::bool::weighted(0.9),
        knows in any::<bool>(),
        max_body in prop_oneof![Just(2 * MIB), 0..20_000_usize],
    ) {
        let ended = ending.clone();
        let text: usize = steps.iter().map(|step| match step {
            Step::Data(data) => data.len(),
            _ => 0,
        }).sum();
        // A document with a text, unless there is nothing at all.
        let [before, after] = [&b"{\"input\":\""[..], b"\"}"].map(|part| Step::Data(part.to_vec()));
        let whole = [before].into_iter().chain(steps).chain([after]);
        let whole: Vec<_> = if is_document { whole.collect() } else { Vec::new() };
        let steps: VecDeque<_> = whole.into_iter().chain(ending).collect();
        let data: Vec<u8> = steps.iter().flat_map(|step| match step {
            Step::Data(data) => data.clone(),
            _ => Vec::new(),
        }).collect();
        let knows = knows && ended.is_none();
        let is_empty = knows && steps.is_empty();
        let layer = layer().max_body(max_body);
        let found = run(sent(&layer, request(Script { steps, knows })));
        let facts = match ended {
            _ if is_empty => read(0),
            _ if data.len() > max_body || max_body == 0 => unread(UnreadReason::TooLarge),
            Some(Step::Error) => unread(UnreadReason::Cut),
            _ if is_document => read_text(text),
            _ => read(0),
        };
        let expected = Seen {
            facts,
            said: knows.then_some(data.len() as u64),
            data,
            trailers: matches!(ended, Some(Step::Trailers)).then(trailers),
            error: matches!(ended, Some(Step::Error)).then_some("broken"),
        };
        prop_assert_eq!(found, expected);
        prop_assert!(layer.settings().pool.is_idle());
    }

    /// Dropped after any number of polls, while it is read and while it is handed on, a request gives all back.
    #[test]
    fn a_dropped_request_gives_all_back(
        steps in prop::collection::vec(step(), 0..16),
        polls in 0..24_usize,
        frames in 0..8_usize,
    ) {
        let layer = layer();
        run(async {
            let handed_on = Cell::new(false);
            let service = service_fn(|request: Request<Peeked<Script>>| {
                let handed_on = &handed_on;
                async move {
                    let mut body = pin!(request.into_body());
                    for _ in 0..frames {
                        let _ = body.frame().await;
                    }
                    handed_on.set(true);
                    std::future::pending::<()>().await;
                    Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                }
            });
            let request = request(Script { steps: steps.into(), knows: false });
            let mut service = layer.layer(service);
            let mut future = Box::pin(service.call(request));
            for _ in 0..polls {
                assert!(poll(future.as_mut()).is_pending());
            }
            drop(future);
        });
        prop_assert!(layer.settings().pool.is_idle());
    }
}

#[test]
fn a_body_that_is_not_needed_passes_untouched() {
    let (feeder, body) = fed();
    let service = service_fn(|request: Request<Peeked<Fed>>| async move {
        assert_eq!(format!("{:?}", request.body()), r#"Peeked("Untouched")"#);
        assert_eq!(Seen::facts(&request), None);
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut request = request(body);
    *request.uri_mut() = "/health".parse().expect("a path");
    let layer = layer();
    let answer = run(layer.layer(service).oneshot(request)).expect("no error");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(feeder.polls.get(), 0);
}

#[test]
fn a_request_that_is_refused_anyway_is_answered_unread() {
    let (feeder, body) = fed();
    let mut request = request(body);
    *request.uri_mut() = "/closed".parse().expect("a path");
    let layer = layer();
    let answer = run(layer.layer(seer()).oneshot(request)).expect("no error");
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(feeder.polls.get(), 0);
    assert!(feeder.frames.is_closed(), "the body was dropped");
}

#[test]
fn bodies_that_cannot_be_read_pass_unread() {
    let table = [
        ("content-encoding", "gzip", UnreadReason::Encoded),
        (
            "content-type",
            "multipart/form-data",
            UnreadReason::Multipart,
        ),
        ("content-length", "2097153", UnreadReason::TooLarge),
    ];
    for (name, value, reason) in table {
        let (feeder, body) = fed();
        let mut request = request(body);
        let value = http::HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
        let service = service_fn(|request: Request<Peeked<Fed>>| async move {
            assert_eq!(Seen::facts(&request), unread(reason), "{name}");
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let layer = layer();
        run(layer.layer(service).oneshot(request)).expect("no error");
        assert_eq!(feeder.polls.get(), 0, "{name}");
    }
}

#[test]
fn a_tunnel_is_not_read() {
    let (feeder, body) = fed();
    let mut request = request(body);
    *request.method_mut() = http::Method::CONNECT;
    let service = service_fn(|request: Request<Peeked<Fed>>| async move {
        assert_eq!(Seen::facts(&request), unread(UnreadReason::Tunnel));
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    run(layer().layer(service).oneshot(request)).expect("no error");
    assert_eq!(feeder.polls.get(), 0);
}

/// The service is called as soon as the body cannot be read any more, while the client still sends.
#[test]
fn a_malformed_body_goes_on_at_once() {
    let layer = layer();
    run(async {
        let (feeder, body) = fed();
        let mut service = layer.layer(service_fn(|request: Request<Peeked<Fed>>| async {
            Ok::<_, Infallible>(see_response(request).await)
        }));
        let mut future = pin!(service.call(request(body)));
        feeder.feed(9_000);
        assert!(poll(future.as_mut()).is_pending());
        assert!(layer.settings().pool.held() > 9_000, "it may be read yet");
        let frame = Frame::data(Bytes::from_static(b" !"));
        feeder.frames.send(Ok(frame)).expect("somebody reads");
        assert!(poll(future.as_mut()).is_pending());
        assert_eq!(layer.settings().pool.held(), 0, "handed on");
        feeder.feed(3 * MIB);
        drop(feeder);
        let found = seen(&future.await.expect("no error"));
        assert_eq!(found.facts, unread(UnreadReason::Malformed));
        assert_eq!(found.data.len(), 9_002 + 3 * MIB);
    });
    assert!(layer.settings().pool.is_idle());
}

// ---- Bounds

/// The service is called as soon as the body is known to be too large, while the client still sends.
#[test]
fn a_body_that_turns_out_too_large_goes_on_at_once() {
    let layer = layer();
    run(async {
        let (feeder, body) = fed();
        let called = Cell::new(false);
        let service = service_fn(|request: Request<Peeked<Fed>>| {
            called.set(true);
            async { Ok::<_, Infallible>(see_response(request).await) }
        });
        let mut service = layer.layer(service);
        let mut future = pin!(service.call(request(body)));
        feeder.feed(2 * MIB);
        assert!(poll(future.as_mut()).is_pending());
        assert!(!called.get(), "a body of just the bound is read");
        feeder.feed(1);
        assert!(poll(future.as_mut()).is_pending());
        assert!(called.get(), "one byte more is too many");
        assert_eq!(layer.settings().pool.held(), 0, "handed on");
        feeder.feed(3 * MIB);
        drop(feeder);
        let found = seen(&future.await.expect("no error"));
        assert_eq!(found.facts, unread(UnreadReason::TooLarge));
        assert_eq!(found.data.len(), 5 * MIB + 1);
    });
    assert!(layer.settings().pool.is_idle());
}

async fn see_response(request: Request<Peeked<Fed>>) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    response.extensions_mut().insert(see(request).await);
    response
}

/// A million handles would take 64 MB.
#[test]
fn a_million_frames_of_one_byte_take_little_more_than_their_length() {
    const FRAMES: usize = 1_000_000;
    let layer = layer();
    let script = Script {
        steps: (0..FRAMES).map(|_| Step::Data(vec![b' '])).collect(),
        knows: false,
    };
    let pool = &layer.settings().pool;
    let service = service_fn(|request: Request<Peeked<Script>>| {
        let held = pool.held();
        async move {
            assert!((FRAMES..FRAMES + FRAMES / 32).contains(&held), "{held}");
            let data = see(request).await.data;
            assert_eq!(data.len(), FRAMES);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    run(layer.layer(service).oneshot(request(script))).expect("no error");
    assert!(pool.is_idle());
}

#[test]
fn bounds_of_zero_and_of_all_that_there_is() {
    let zero = layer().max_body(0);
    let found = run(sent(
        &zero,
        request(Script {
            steps: [Step::Data(vec![b' '])].into(),
            knows: true,
        }),
    ));
    assert_eq!(found.facts, unread(UnreadReason::TooLarge));
    let none = layer().max_pool(0);
    let found = run(sent(
        &none,
        request(Script {
            steps: [Step::Data(vec![b' '])].into(),
            knows: true,
        }),
    ));
    assert_eq!(found.facts, unread(UnreadReason::TooLarge));
    let empty = request(Script {
        steps: VecDeque::new(),
        knows: true,
    });
    assert_eq!(run(sent(&none, empty)).facts, read(0));

    let large = 80 * MIB;
    let script = || Script {
        steps: [Step::Data(vec![b' '; large])].into(),
        knows: true,
    };
    let most = layer().max_body(usize::MAX);
    assert_eq!(
        run(sent(&most, request(script()))).facts,
        unread(UnreadReason::TooLarge)
    );
    let all = most.max_pool(usize::MAX);
    assert_eq!(run(sent(&all, request(script()))).facts, read(large));
    assert!(all.settings().pool.is_idle());
}

/// With no time, what is there at once is read, in however many frames.
#[test]
fn times_of_zero_and_of_all_that_there_is() {
    let now = layer().body_deadline(Duration::ZERO);
    let script = Script {
        steps: (0..1_000).map(|_| Step::Data(vec![b' '])).collect(),
        knows: false,
    };
    assert_eq!(run(sent(&now, request(script))).facts, read(1_000));
    run(async {
        // Within a millisecond, to whose end timers would wait.
        tokio::time::advance(Duration::from_micros(500)).await;
        let (_feeder, body) = fed();
        let mut service = now.layer(seer());
        let mut future = pin!(service.call(request(body)));
        let Poll::Ready(Ok(answer)) = poll(future.as_mut()) else {
            panic!("nothing is waited for");
        };
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    });

    let ever = layer().body_deadline(Duration::MAX);
    run(async {
        let (feeder, body) = fed();
        let mut service = ever.layer(seer());
        let mut future = pin!(service.call(request(body)));
        assert!(poll(future.as_mut()).is_pending());
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert!(poll(future.as_mut()).is_pending());
        drop(feeder);
        assert_eq!(seen(&future.await.expect("no error")).facts, read(0));
    });
}

#[test]
fn a_client_that_trickles_is_told_408_when_its_time_is_over() {
    for (version, connection) in [(Version::HTTP_11, Some("close")), (Version::HTTP_2, None)] {
        let layer = layer();
        run(async {
            let (feeder, body) = fed();
            let mut request = request(body);
            *request.version_mut() = version;
            let mut service = layer.layer(seer());
            let mut future = pin!(service.call(request));
            for _ in 0..10 {
                assert!(poll(future.as_mut()).is_pending(), "in time");
                tokio::time::advance(Duration::from_millis(999)).await;
                feeder.feed(1);
            }
            assert!(poll(future.as_mut()).is_pending(), "just in time");
            tokio::time::advance(Duration::from_millis(11)).await;
            let Poll::Ready(Ok(answer)) = poll(future.as_mut()) else {
                panic!("its time is over");
            };
            assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
            let found = answer.headers().get("connection");
            assert_eq!(
                found.map(|value| value.as_bytes()),
                connection.map(str::as_bytes)
            );
            assert!(feeder.frames.is_closed(), "the body was dropped");
        });
        assert!(layer.settings().pool.is_idle());
    }
}

// ---- The pool

/// A layer whose pool has room for `count` bodies of `length` bytes at once, and one more in reserve.
fn tight(layer: PeekLayer, count: usize, length: usize) -> PeekLayer {
    let layer = layer.max_body(length);
    layer.max_pool((count + 1) * PeekSettings::room_of(length))
}

#[test]
fn a_body_is_not_polled_before_there_is_room_and_first_come_is_first_served() {
    const LENGTH: usize = 900;
    let layer = tight(layer(), 1, LENGTH);
    run(async {
        let service = || layer.layer(seer::<Fed>());
        let body = || {
            let (feeder, mut body) = fed();
            body.length = Some(LENGTH as u64);
            (feeder, body)
        };
        let mut feeders = Vec::new();
        let mut futures = Vec::new();
        for _ in 0..5 {
            let (feeder, body) = body();
            feeders.push(feeder);
            let mut future = Box::pin(service().oneshot(request(body)));
            assert!(poll(future.as_mut()).is_pending());
            futures.push(future);
        }
        let polled = |feeders: &[Feeder]| -> Vec<bool> {
            feeders
                .iter()
                .map(|feeder| feeder.polls.get() > 0)
                .collect()
        };
        assert_eq!(
            polled(&feeders),
            [true, true, false, false, false],
            "one, and the reserve"
        );
        // The last one asks again and again, and is not served before the others.
        for turn in 0..5 {
            feeders[turn].feed(LENGTH);
            feeders[turn].frames = mpsc::unbounded_channel().0;
            let Poll::Ready(Ok(answer)) = poll(futures[turn].as_mut()) else {
                panic!("{turn} has room");
            };
            assert_eq!(seen(&answer).facts, read(LENGTH));
            for future in futures.iter_mut().skip(turn + 1).rev() {
                assert!(poll(future.as_mut()).is_pending());
            }
            let expected: Vec<_> = (0..5).map(|request| request <= turn + 2).collect();
            assert_eq!(polled(&feeders), expected, "after {turn}");
        }
    });
    assert!(layer.settings().pool.is_idle());
}

#[test]
fn a_request_that_finds_no_room_is_told_503_when_its_time_is_over() {
    const LENGTH: usize = 8_000;
    let layer = tight(layer(), 1, LENGTH).body_deadline(Duration::from_secs(3));
    let pool = &layer.settings().pool;
    run(async {
        // Held by a handler that does not read, whose time is its own.
        let idle = service_fn(|request: Request<Peeked<Script>>| async move {
            std::future::pending::<()>().await;
            drop(request);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let script = || Script {
            steps: [Step::Data(vec![b' '; LENGTH])].into(),
            knows: true,
        };
        let mut held: Vec<_> = (0..2)
            .map(|_| Box::pin(layer.layer(idle).oneshot(request(script()))))
            .collect();
        for future in &mut held {
            assert!(poll(future.as_mut()).is_pending());
        }
        let (feeder, body) = fed();
        let mut service = layer.layer(seer());
        let mut future = pin!(service.call(request(body)));
        assert!(poll(future.as_mut()).is_pending());
        tokio::time::advance(Duration::from_millis(2_990)).await;
        assert!(poll(future.as_mut()).is_pending());
        tokio::time::advance(Duration::from_millis(20)).await;
        let Poll::Ready(Ok(answer)) = poll(future.as_mut()) else {
            panic!("its time is over");
        };
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(feeder.polls.get(), 0);
        // Both are there yet.
        assert_eq!(pool.held(), 2 * (LENGTH + 64));
    });
    assert!(pool.is_idle());
}

/// One client cannot take the room of the others, and what it cannot have does not stand in their way.
#[test]
fn a_client_takes_an_eighth_of_the_pool() {
    let layer = layer_of_clients();
    let pool = &layer.settings().pool;
    run(async {
        let body = |client: &'static str| {
            let (feeder, body) = fed();
            let mut request = request(body);
            let value = http::HeaderValue::from_static(client);
            request.headers_mut().insert("x-client", value);
            (
                feeder,
                Box::pin(layer.layer(seer::<Fed>()).oneshot(request)),
            )
        };
        let mut slow = Vec::new();
        for _ in 0..200 {
            let (feeder, mut future) = body("1");
            for _ in 0..4 {
                if !feeder.frames.is_closed() {
                    feeder.feed(60_000);
                }
                assert!(poll(future.as_mut()).is_pending());
            }
            slow.push((feeder, future));
        }
        let held = pool.held();
        assert!((3 * MIB..=8 * MIB).contains(&held), "{held}");
        let (feeder, mut future) = body("2");
        feeder.feed(MIB);
        drop(feeder);
        let Poll::Ready(Ok(answer)) = poll(future.as_mut()) else {
            panic!("another client has room");
        };
        assert_eq!(seen(&answer).facts, read(MIB));
    });
    assert!(pool.is_idle());
}

/// Each of them holds a part and needs more, and all of them come to their end, without any waiting for time.
#[test]
fn uploads_that_wait_for_each_other_all_end() {
    const LENGTH: usize = 64 * 1024;
    for clients in [1, 3, 100] {
        let layer = tight(layer_of_clients(), 3, LENGTH);
        let pool = &layer.settings().pool;
        run(async {
            let mut uploads = VecDeque::new();
            for upload in 0..100 {
                let steps =
                    (0..64).flat_map(|_| [Step::Data(vec![b' '; LENGTH / 64]), Step::Pending]);
                let mut request = request(Script {
                    steps: steps.collect(),
                    knows: false,
                });
                let client = (upload % clients).to_string();
                request
                    .headers_mut()
                    .insert("x-client", client.parse().expect("a number"));
                uploads.push_back(Box::pin(layer.layer(seer()).oneshot(request)));
            }
            let mut polls = 0;
            while let Some(mut upload) = uploads.pop_front() {
                polls += 1;
                assert!(polls < 1_000_000, "they stand still");
                let most = 4 * PeekSettings::room_of(LENGTH);
                assert!(pool.held() <= most);
                match poll(upload.as_mut()) {
                    Poll::Pending => uploads.push_back(upload),
                    Poll::Ready(answer) => {
                        assert_eq!(seen(&answer.expect("no error")).facts, read(LENGTH));
                    }
                }
            }
        });
        assert!(pool.is_idle());
    }
}

/// Uploads that have sent little hold little.
#[test]
fn a_thousand_slow_uploads_leave_room_for_others() {
    let layer = layer();
    run(async {
        let mut slow = Vec::new();
        for _ in 0..1_000 {
            let (feeder, mut body) = fed();
            body.length = Some(2 * MIB as u64);
            let mut future = Box::pin(layer.layer(seer()).oneshot(request(body)));
            feeder.feed(10);
            assert!(poll(future.as_mut()).is_pending());
            slow.push((feeder, future));
        }
        let whole = Script {
            steps: [Step::Data(vec![b' '; 2 * MIB])].into(),
            knows: true,
        };
        assert_eq!(sent(&layer, request(whole)).await.facts, read(2 * MIB));
    });
}

#[test]
fn room_comes_back_as_frames_are_handed_on() {
    let layer = layer();
    let pool = &layer.settings().pool;
    let service = service_fn(|request: Request<Peeked<Script>>| async move {
        let mut body = pin!(request.into_body());
        let mut held = vec![pool.held()];
        while let Some(frame) = body.frame().await {
            frame.expect("no error");
            held.push(pool.held());
        }
        assert_eq!(held, [3 * 8_064, 2 * 8_064, 8_064, 0, 0][..held.len()]);
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let script = Script {
        steps: vec![Step::Data(vec![b' '; 8_000]); 3].into(),
        knows: false,
    };
    run(layer.layer(service).oneshot(request(script))).expect("no error");
}

#[test]
fn a_panic_of_the_inner_service_gives_all_back() {
    let layer = layer();
    #[derive(Clone)]
    struct Panics;
    impl Service<Request<Peeked<Script>>> for Panics {
        type Response = Response<Empty<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Response<Empty<Bytes>>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Peeked<Script>>) -> Self::Future {
            panic!("as it is meant to")
        }
    }
    let script = Script {
        steps: [Step::Data(vec![b' '; 8_000])].into(),
        knows: false,
    };
    let future = layer.layer(Panics).oneshot(request(script));
    assert!(catch_unwind(AssertUnwindSafe(|| run(future))).is_err());
    assert!(layer.settings().pool.is_idle());
}

// ---- Services

/// A service whose clones have to be polled ready on their own.
struct OnceReady {
    is_ready: bool,
}

impl Clone for OnceReady {
    fn clone(&self) -> Self {
        Self { is_ready: false }
    }
}

impl<B> Service<Request<Peeked<B>>> for OnceReady
where
    B: Body,
{
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Empty<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Peeked<B>>) -> Self::Future {
        assert!(self.is_ready, "it was not polled ready");
        self.is_ready = false;
        std::future::ready(Ok(Response::new(Empty::new())))
    }
}

#[test]
fn the_service_that_was_polled_ready_is_the_one_that_is_called() {
    let mut service = layer().layer(OnceReady { is_ready: false });
    run(async {
        for path in ["/v1/chat", "/health", "/v1/chat"] {
            let mut request = request(Full::new(Bytes::from_static(b"x")));
            *request.uri_mut() = path.parse().expect("a path");
            let ready = Service::<Request<Full<Bytes>>>::poll_ready(
                &mut service,
                &mut Context::from_waker(Waker::noop()),
            );
            assert!(ready.is_ready());
            service.call(request).await.expect("no error");
        }
    });
}

#[test]
fn auto_traits() {
    fn traits<T: Clone + std::fmt::Debug + Send + Sync + Unpin + 'static>() {}
    traits::<PeekLayer>();
    traits::<Peek<()>>();
    fn body<T: Send + Sync + Unpin + std::fmt::Debug + Default + 'static>() {}
    body::<Peeked<Full<Bytes>>>();
}

#[test]
fn futures_and_bodies_are_small() {
    fn size<S: Service<Request<Peeked<Full<Bytes>>>>>(_: &S) -> (usize, usize) {
        let future = size_of::<super::PeekFuture<S, Full<Bytes>>>();
        (size_of::<S::Future>(), future)
    }
    let (inner, future) = size(&OnceReady { is_ready: true });
    assert!(future <= inner + 56, "{future} around {inner}");
    let (inner, body) = (size_of::<Full<Bytes>>(), size_of::<Peeked<Full<Bytes>>>());
    assert!(body <= inner + 8, "{body} around {inner}");
    assert!(Kept::largest_cost(2 * MIB) < 2 * MIB + MIB / 8);
}
