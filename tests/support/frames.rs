//! Answers of any frames: bytes determine the answer of an inner service, frame by frame, and the polls and drops of
//! the host.
//!
//! - *Unchanged* (R18). The head keeps its status, its version, its fields in their order and its extensions. Each
//!   frame, error and pause arrives as it was sent, and the body reports the same end and size.
//! - *Slots* (R15). At any moment, as many are in flight as have been admitted and have not ended.
//! - *Model tokens* (R17, R25). At any moment the bucket is charged with the larger of reservation and count for each
//!   running answer, and with the settled amount, once, for each ended one.
//! - *Counts.* At the end, snapshots count as many admitted and refused requests as there were.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};
use tower_throttle::{
    Decision, Limits, Rate, Rules, ThrottleLayer, Usage, body::ResponseBody, decision::DecisionIn,
    future::ResponseFuture, response::Dialect, usage::Estimate,
};

use super::choices::{self, Choices};

/// More would only make each run slower.
const MAX_STEPS: usize = 64;
const MAX_FRAMES: usize = 8;

/// The burst of the bucket of model tokens. Time stands still, so that nothing comes back but what is given back.
const TOKENS: u64 = 1_000;

/// Lives the life that some bytes tell of.
pub(crate) fn live(input: &[u8]) {
    choices::live(input, run);
}

async fn run(choices: &mut Choices<'_>) {
    let mut world = World::new(choices);
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            break;
        }
        world.step(choices);
        world.look();
    }
    world.end();
}

// ---- What is answered

/// An answer as the inner service makes it.
#[derive(Debug, Clone, Default)]
struct Script {
    /// The number of times that the future waits.
    waits: u8,
    /// True if there is an error in its place.
    fails: bool,
    status: StatusCode,
    version: Version,
    fields: HeaderMap,
    frames: VecDeque<Step>,
    /// True if the body knows that nothing follows.
    knows: bool,
    size: (u64, Option<u64>),
}

#[derive(Debug, Clone)]
enum Step {
    Waits,
    Data(Bytes),
    Trailers(HeaderMap),
    Fails(u8),
}

/// An error, with a number that it is known by.
#[derive(Debug, PartialEq, Eq)]
struct Broken(u8);

/// A mark that is put into the extensions of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark(usize);

impl Script {
    fn read(choices: &mut Choices<'_>) -> Self {
        const STATUS: [StatusCode; 6] = [
            StatusCode::OK,
            StatusCode::NO_CONTENT,
            StatusCode::SWITCHING_PROTOCOLS,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::INTERNAL_SERVER_ERROR,
        ];
        const VERSION: [Version; 3] = [Version::HTTP_11, Version::HTTP_2, Version::HTTP_10];
        let kind = choices.next();
        let frames = choices.below(MAX_FRAMES);
        let size = u64::from(choices.next());
        Self {
            waits: kind & 3,
            fails: kind >> 2 & 7 == 7,
            status: choices.of_these(&STATUS),
            version: choices.of_these(&VERSION),
            fields: fields(choices),
            frames: (0..frames).map(|_| Step::read(choices)).collect(),
            knows: kind >> 5 & 1 == 1,
            size: (size, (kind >> 6 & 1 == 1).then_some(size + 7)),
        }
    }
}

/// Fields that say something to the throttle, and some that say nothing.
fn fields(choices: &mut Choices<'_>) -> HeaderMap {
    const NAMED: [(&str, &str); 14] = [
        ("content-type", "application/json"),
        ("content-type", "text/event-stream"),
        ("content-type", "text/event-stream; charset=utf-8"),
        ("content-type", "application/grpc+proto"),
        ("content-encoding", "gzip"),
        ("content-encoding", "identity"),
        ("content-length", "3"),
        ("ratelimit", "\"theirs\";r=3;t=4"),
        ("ratelimit-policy", "\"theirs\";q=3;w=4"),
        ("x-ratelimit-remaining-requests", "7"),
        ("retry-after", "12"),
        ("grpc-status", "8"),
        ("access-control-expose-headers", "x-theirs"),
        ("set-cookie", "a=b"),
    ];
    let mut fields = HeaderMap::new();
    for _ in 0..choices.below(5) {
        let named = usize::from(choices.next());
        let (name, value) = match NAMED.get(named % (NAMED.len() + 2)) {
            Some((name, value)) => (*name, HeaderValue::from_static(value)),
            None => {
                let count = choices.below(9);
                match HeaderValue::from_bytes(choices.bytes(count)) {
                    Ok(value) => ("x-any", value),
                    Err(_) => continue,
                }
            }
        };
        fields.append(HeaderName::from_static(name), value);
    }
    fields
}

impl Step {
    fn read(choices: &mut Choices<'_>) -> Self {
        const DATA: [&str; 8] = [
            "",
            r#"{"usage":{"total_tokens":"#,
            "41}}",
            r#"{"usage":{"total_tokens":90000000}}"#,
            "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":",
            "60}}\n\n",
            "data: [DONE]\n\n",
            r#"{"usage":{"input_tokens":1,"output_tokens":2}}"#,
        ];
        match choices.next() % 16 {
            0 | 1 => Self::Waits,
            2 | 3 => {
                let count = choices.below(32);
                Self::Data(Bytes::copy_from_slice(choices.bytes(count)))
            }
            4 => Self::Trailers(fields(choices)),
            5 => Self::Fails(choices.next()),
            _ => Self::Data(Bytes::from_static(choices.of_these(&DATA).as_bytes())),
        }
    }
}

/// The body of an answer. The one that is expected is beside it, and moved on with it.
#[derive(Debug)]
struct Stream {
    frames: VecDeque<Step>,
    knows: bool,
    size: (u64, Option<u64>),
}

impl Stream {
    fn of(script: &Script) -> Self {
        Self {
            frames: script.frames.clone(),
            knows: script.knows,
            size: script.size,
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.frames.pop_front() {
            Some(Step::Waits) => Poll::Pending,
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Trailers(fields)) => Poll::Ready(Some(Ok(Frame::trailers(fields)))),
            Some(Step::Fails(number)) => Poll::Ready(Some(Err(Broken(number)))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.knows && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.size.0);
        if let Some(upper) = self.size.1 {
            hint.set_upper(upper);
        }
        hint
    }
}

/// Answers with the script in the extensions of a request.
#[derive(Clone)]
struct Inner {
    /// The account of the request that was admitted last, if it has one.
    admitted: Rc<RefCell<Option<Option<Usage>>>>,
}

struct Answer {
    script: Script,
    mark: Mark,
}

impl Service<Request<()>> for Inner {
    type Response = Response<Stream>;
    type Error = Broken;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Answer {
        let extensions = request.extensions_mut();
        let usage = extensions.get::<Usage>().cloned();
        assert!(self.admitted.replace(Some(usage)).is_none(), "called twice");
        Answer {
            script: extensions.remove().expect("as it was sent"),
            mark: extensions.remove().expect("as it was sent"),
        }
    }
}

impl Future for Answer {
    type Output = Result<Response<Stream>, Broken>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.script.waits > 0 {
            self.script.waits -= 1;
            return Poll::Pending;
        }
        if self.script.fails {
            return Poll::Ready(Err(Broken(0)));
        }
        let mut response = Response::new(Stream::of(&self.script));
        *response.status_mut() = self.script.status;
        *response.version_mut() = self.script.version;
        *response.headers_mut() = self.script.fields.clone();
        response.extensions_mut().insert(self.mark.clone());
        Poll::Ready(Ok(response))
    }
}

// ---- All of it

/// The settings of the layer, as they are written.
#[derive(Debug, Clone, Copy)]
struct Written {
    slots: Option<u64>,
    has_tokens: bool,
    has_rate: bool,
    reads_usage: bool,
}

/// One exchange.
struct Exchange {
    script: Script,
    stage: Stage,
    /// The things that an exchange still holds.
    held: Option<Held>,
}

enum Stage {
    Asked(Pin<Box<ResponseFuture<Inner, ()>>>),
    /// The body, and what it should be like.
    Answered(Pin<Box<ResponseBody<Stream>>>, Box<Stream>),
    Over,
}

struct Held {
    usage: Option<Usage>,
    reserved: u64,
    counted: u64,
    is_settled: bool,
    /// True if the body is read for what it has used.
    is_read: bool,
}

struct World {
    written: Written,
    layer: ThrottleLayer,
    admitted: Rc<RefCell<Option<Option<Usage>>>>,
    exchanges: Vec<Exchange>,
    /// Model tokens that those are charged with which are over.
    charged: Cell<u64>,
    count: u64,
    refused: u64,
}

impl World {
    fn new(choices: &mut Choices<'_>) -> Self {
        let options = choices.next();
        let bit = |bit: u8| options >> bit & 1 == 1;
        let written = Written {
            slots: bit(0).then(|| u64::from(choices.next() % 5) + 1),
            has_tokens: bit(1),
            has_rate: bit(2),
            reads_usage: bit(3),
        };
        let mut limits = Limits::new();
        if let Some(slots) = written.slots {
            limits = limits.in_flight(slots);
        }
        if written.has_tokens {
            limits = limits.tokens(Rate::new(1, Duration::from_secs(1)).burst(TOKENS));
        }
        if written.has_rate {
            limits = limits.rate(Rate::per_hour(1).burst(1 << 20));
        }
        let estimate = Estimate::by_header("x-tokens").exact();
        let rules = Rules::new().route("POST /a", limits).estimate(estimate);
        let mut builder = ThrottleLayer::builder(rules)
            .rate_limit_headers(bit(4))
            .decision(match bit(5) {
                true => DecisionIn::Both,
                false => DecisionIn::Nowhere,
            })
            .usage_from_answers(written.reads_usage);
        if bit(6) {
            builder = builder.rejection(Dialect::OpenAi);
        }
        Self {
            written,
            layer: builder.build().expect("rules that hold together"),
            admitted: Rc::default(),
            exchanges: Vec::new(),
            charged: Cell::new(0),
            count: 0,
            refused: 0,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let kind = choices.next() % 8;
        if kind < 2 || self.exchanges.is_empty() {
            let cost = u64::from(choices.next());
            return self.send(Script::read(choices), cost);
        }
        let number = choices.below(self.exchanges.len());
        match kind {
            2 => self.drop(number),
            3 => self.count(number, choices.next()),
            _ => self.poll(number),
        }
    }

    /// Returns the sum of what exchanges that go on are charged with.
    fn reserved(&self) -> u64 {
        let held = self.exchanges.iter().filter_map(|one| one.held.as_ref());
        held.map(Held::charged).sum()
    }

    fn flying(&self) -> u64 {
        let held = self.exchanges.iter().filter(|one| one.held.is_some());
        held.count() as u64
    }

    fn send(&mut self, script: Script, cost: u64) {
        let cost = cost.max(1);
        let has_slot = self.written.slots.is_none_or(|most| self.flying() < most);
        let has_tokens =
            !self.written.has_tokens || self.charged.get() + self.reserved() + cost <= TOKENS;
        let number = self.exchanges.len();
        let request = Request::post("/a")
            .header("x-tokens", cost)
            .extension(script.clone())
            .extension(Mark(number))
            .body(())
            .expect("a request");
        let inner = Inner {
            admitted: Rc::clone(&self.admitted),
        };
        let future = Box::pin(self.layer.layer(inner).call(request));
        let admitted = self.admitted.take();
        assert_eq!(
            admitted.is_some(),
            has_slot && has_tokens,
            "a slot {has_slot}, tokens {has_tokens}"
        );
        self.count += u64::from(admitted.is_some());
        self.refused += u64::from(admitted.is_none());
        let held = admitted.map(|usage| {
            assert_eq!(usage.is_some(), self.written.has_tokens, "an account");
            Held {
                reserved: usage.as_ref().map_or(0, Usage::reserved),
                usage,
                counted: 0,
                is_settled: false,
                is_read: false,
            }
        });
        if let Some(held) = held.as_ref().filter(|_| self.written.has_tokens) {
            assert_eq!(held.reserved, cost, "an exact estimate");
        }
        self.exchanges.push(Exchange {
            script,
            stage: Stage::Asked(future),
            held,
        });
    }

    fn poll(&mut self, number: usize) {
        let cx = &mut Context::from_waker(Waker::noop());
        let Exchange {
            script,
            stage,
            held,
        } = &mut self.exchanges[number];
        match stage {
            Stage::Asked(future) => {
                let poll = future.as_mut().poll(cx);
                let is_admitted = held.is_some();
                if is_admitted && script.waits > 0 {
                    assert!(poll.is_pending(), "it has not answered");
                    script.waits -= 1;
                    return;
                }
                let Poll::Ready(answer) = poll else {
                    panic!("nobody waits in line here");
                };
                match answer {
                    Err(error) => {
                        assert!(is_admitted && script.fails);
                        assert_eq!(error, Broken(0));
                        *stage = Stage::Over;
                        self.over(number);
                    }
                    Ok(response) => {
                        assert!(!is_admitted || !script.fails, "an error is not an answer");
                        let (head, body) = response.into_parts();
                        let expected = Box::new(Stream::of(script));
                        *stage = match is_admitted {
                            true => Stage::Answered(Box::pin(body), expected),
                            false => Stage::Over,
                        };
                        if let Some(held) = held {
                            held.is_read = self.written.reads_usage;
                            unchanged(&head, script, number);
                        }
                    }
                }
            }
            Stage::Answered(body, expected) => {
                let told = |body: &dyn Body<Data = Bytes, Error = Broken>| {
                    let hint = body.size_hint();
                    (body.is_end_stream(), hint.lower(), hint.upper())
                };
                assert_eq!(
                    told(&**body),
                    told(&**expected),
                    "what is known of the rest"
                );
                let frame = body.as_mut().poll_frame(cx);
                let sent = Pin::new(&mut **expected).poll_frame(cx);
                assert_eq!(
                    told(&**body),
                    told(&**expected),
                    "what is known of the rest"
                );
                let is_over = expected.is_end_stream();
                let (frame, sent) = match (frame, sent) {
                    (Poll::Ready(frame), Poll::Ready(sent)) => (frame, sent),
                    (frame, sent) => {
                        assert_eq!(frame.is_pending(), sent.is_pending(), "a pause");
                        return;
                    }
                };
                let has_ended = match (frame, sent) {
                    (None, None) => true,
                    (Some(Err(frame)), Some(Err(sent))) => {
                        assert_eq!(frame, sent, "the error");
                        true
                    }
                    (Some(Ok(frame)), Some(Ok(sent))) => {
                        assert_eq!(frame.data_ref(), sent.data_ref(), "the data");
                        assert_eq!(frame.trailers_ref(), sent.trailers_ref(), "the trailers");
                        sent.is_trailers() || is_over
                    }
                    (frame, sent) => panic!("{frame:?} in the place of {sent:?}"),
                };
                if has_ended {
                    self.over(number);
                }
            }
            Stage::Over => {}
        }
    }

    fn drop(&mut self, number: usize) {
        let stage = std::mem::replace(&mut self.exchanges[number].stage, Stage::Over);
        drop(stage);
        self.over(number);
    }

    /// The handler counts model tokens, or settles them.
    fn count(&mut self, number: usize, byte: u8) {
        let Some(held) = &mut self.exchanges[number].held else {
            return;
        };
        let Some(usage) = &held.usage else {
            return;
        };
        let tokens = u64::from(byte >> 1);
        let is_open = !held.is_settled;
        if byte & 1 == 1 {
            assert_eq!(usage.settle(tokens), is_open, "settled once");
            if is_open {
                (held.counted, held.is_settled) = (tokens, true);
            }
        } else {
            assert_eq!(usage.add(tokens), is_open, "settled once");
            held.counted += if is_open { tokens } else { 0 };
        }
        assert_eq!(usage.used(), held.counted, "R17");
    }

    /// An exchange is over. What it has ended with is settled, and known to its handler.
    fn over(&mut self, number: usize) {
        let Some(held) = self.exchanges[number].held.take() else {
            return;
        };
        let Some(usage) = &held.usage else {
            return;
        };
        assert!(!usage.add(1) && !usage.settle(1), "it is settled by now");
        let reported = usage.used();
        let may_be_reported = held.is_read && !held.is_settled;
        assert!(
            may_be_reported || reported == held.counted,
            "{reported} were not counted"
        );
        let before = self.charged.get();
        let charged = match held.is_settled {
            true => held.counted,
            // At the report; without one, at no less than what is held, and at what was sent if that is more.
            false if may_be_reported => {
                let charged = self.owed() - before - self.reserved();
                let is_report = charged == reported;
                assert!(is_report || charged >= held.charged(), "R23: {charged}");
                charged
            }
            // However it ends.
            false => held.charged(),
        };
        self.charged.set(before + charged);
    }

    /// Returns the units with which the bucket of model tokens is charged.
    fn owed(&self) -> u64 {
        let snapshot = self.layer.handle().snapshot();
        let mut limits = snapshot.limits.iter();
        let tokens = limits.find(|limit| matches!(limit.burst, TOKENS));
        tokens.map_or(0, |limit| {
            let left = limit.remaining.expect("one for all");
            TOKENS - left + limit.owed.expect("one for all")
        })
    }

    /// Checks that what is held is what the exchanges hold that go on.
    fn look(&self) {
        let snapshot = self.layer.handle().snapshot();
        for limit in &snapshot.limits {
            if let Some(flying) = limit.in_flight {
                assert_eq!(flying, self.flying(), "R15: {limit:?}");
            }
        }
        if self.written.has_tokens {
            let charged = self.charged.get() + self.reserved();
            assert_eq!(self.owed(), charged, "R17");
        }
    }

    fn end(&mut self) {
        for number in 0..self.exchanges.len() {
            self.drop(number);
            self.look();
        }
        assert_eq!(self.flying(), 0);
        let snapshot = self.layer.handle().snapshot();
        let routes = snapshot.routes.iter();
        let (admitted, refused) = routes.fold((0, 0), |(admitted, refused), route| {
            (admitted + route.admitted, refused + route.refused)
        });
        assert_eq!((admitted, refused), (self.count, self.refused), "counts");
    }
}

impl Held {
    /// Returns the units with which the bucket is charged while an exchange goes on.
    fn charged(&self) -> u64 {
        match self.is_settled {
            true => self.counted,
            false => self.counted.max(self.reserved),
        }
    }
}

/// The head is as it was sent. What it had of each field stands before what was added.
fn unchanged(head: &http::response::Parts, script: &Script, number: usize) {
    assert_eq!(head.status, script.status);
    assert_eq!(head.version, script.version);
    assert_eq!(head.extensions.get(), Some(&Mark(number)));
    for name in script.fields.keys() {
        let sent: Vec<_> = script.fields.get_all(name).iter().collect();
        let told: Vec<_> = head.headers.get_all(name).iter().collect();
        assert!(told.starts_with(&sent), "{name}: {told:?} for {sent:?}");
    }
    for name in head.headers.keys() {
        let is_ours = name.as_str().contains("ratelimit") || name == "retry-after";
        let count = |fields: &HeaderMap| fields.get_all(name).iter().count();
        let added = count(&head.headers) - count(&script.fields);
        assert!(is_ours || added == 0, "{name} was added");
    }
    if let Some(decision) = head.extensions.get::<Decision>() {
        assert!(decision.is_admitted());
    }
}
