//! The life of a throttled service, determined by bytes: rules, then requests that are sent, polled, answered, counted
//! and dropped at any point, while time passes and rules are exchanged.
//!
//! A model computes the buckets separately. It knows less of queued requests, and of limits that a reload has changed:
//! there it only checks what must never happen.
//!
//! - Nothing panics, and the inner service is called for no request that a bucket of the model would refuse (R1), nor
//!   in another order than requests came (R16).
//! - While no request waits, exactly those are admitted that the model admits: a refused request has cost nothing (R2),
//!   an account has been settled once at the tokens used (R17), a slot has come back exactly when its request has ended
//!   (R15), and a reload has refilled nothing (R20). A shadow plays no part (R19).
//! - A refusal states exactly when the request would pass (R1), or that it never will (R6).
//! - At the end, all slots are free and all queues empty.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::time;
use tower::{Layer, Service};
use tower_throttle::{
    Clients, Decision, Limits, Quota, Rate, Rules, ThrottleLayer, Usage, body::ResponseBody,
    decision::DecisionIn, future::ResponseFuture, rules::Undeclared, usage::Estimate,
};

use super::choices::{self, Choices};

/// More steps would only make each run slower.
const MAX_STEPS: usize = 96;

/// The first has limits of its own, the second a rule that inherits, and nobody has declared the last.
const PATHS: [&str; 3] = ["/a", "/b", "/c"];

/// By the field `x-api-key`; the last sends none. Those from the third on are on the plan `pro`.
const CLIENTS: [Option<&str>; 5] = [Some("0"), Some("1"), Some("2"), Some("3"), None];

/// The longest waits in line, in milliseconds.
const WAITS: [u64; 4] = [0, 3, 900, 40_000];

/// Nanoseconds for which a request keeps its place in line though nobody polls it.
const GRACE: u128 = 50_000_000;

/// Lives the life that some bytes tell of.
pub(crate) fn live(input: &[u8]) {
    choices::live(input, run);
}

async fn run(choices: &mut Choices<'_>) {
    let sets = [(); 2].map(|()| Written::read(choices));
    let builder = ThrottleLayer::builder(sets[0].rules());
    let Ok(layer) = builder
        .stagger_retry_after(false)
        .decision(DecisionIn::Both)
        .build()
    else {
        return;
    };
    if ThrottleLayer::new(sets[1].rules()).is_err() {
        return;
    }
    let mut world = World::new(layer, sets);
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            break;
        }
        world.step(choices).await;
    }
    world.end().await;
}

// ---- Rules

/// One rate: the nanoseconds for a unit, and the burst. One of requests, one of model tokens.
type Pace = (u64, u64);

/// One limit of each kind, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Terms {
    rate: Option<Pace>,
    tokens: Option<Pace>,
    quota: Option<u64>,
    slots: Option<u64>,
    wait: Option<u64>,
}

impl Terms {
    /// Each kind in one of four cases, and rarely one that is closed: or most lives would be short.
    fn read(choices: &mut Choices<'_>) -> Self {
        const INTERVALS: [u64; 4] = [1, 7_000_000, 400_000_000, 60_000_000_000];
        const BURSTS: [u64; 8] = [1, 2, 3, 4, 6, 9, 25, 0];
        const QUOTAS: [u64; 8] = [1, 3, 5, 9, 14, 20, 50, 0];
        const SLOTS: [u64; 8] = [1, 1, 2, 2, 3, 5, 8, 0];
        let kinds = choices.next() & choices.next();
        let mut next = |bit: u8| (kinds >> bit & 1 == 1).then(|| choices.next());
        let of = |values: &[u64; 8], byte: u8| values[usize::from(byte >> 5)];
        let pace = |byte: u8, scale: u64| {
            let interval = INTERVALS[usize::from(byte % 4)];
            (interval, of(&BURSTS, byte) * scale)
        };
        Self {
            rate: next(0).map(|byte| pace(byte, 1)),
            tokens: next(1).map(|byte| pace(byte, 4)),
            quota: next(2).map(|byte| of(&QUOTAS, byte)),
            slots: next(3).map(|byte| of(&SLOTS, byte)),
            wait: next(4).map(|byte| WAITS[usize::from(byte % 4)]),
        }
    }

    fn limits(self) -> Limits {
        let rate = |(interval, burst)| Rate::new(1, Duration::from_nanos(interval)).burst(burst);
        let mut limits = Limits::new();
        if let Some(pace) = self.rate {
            limits = limits.rate(rate(pace));
        }
        if let Some(pace) = self.tokens {
            limits = limits.tokens(rate(pace));
        }
        if let Some(count) = self.quota {
            // A window that ends in 2043.
            limits = limits.quota(Quota::per(count, Duration::from_nanos(1 << 61)));
        }
        if let Some(slots) = self.slots {
            limits = limits.in_flight(slots);
        }
        if let Some(wait) = self.wait {
            limits = limits.max_wait(Duration::from_millis(wait)).max_waiting(3);
        }
        limits
    }

    /// With what it leaves out taken from `base`.
    fn or(self, base: Self) -> Self {
        Self {
            rate: self.rate.or(base.rate),
            tokens: self.tokens.or(base.tokens),
            quota: self.quota.or(base.quota),
            slots: self.slots.or(base.slots),
            wait: self.wait.or(base.wait),
        }
    }
}

/// All rules, as they are written.
#[derive(Debug, Clone, Copy)]
struct Written {
    total: Terms,
    default: Terms,
    own: Terms,
    each: Terms,
    pro: Terms,
    shadow: bool,
    /// True if undeclared routes are kept apart. Rarely, for the table of those takes its time to make.
    apart: bool,
}

impl Written {
    fn read(choices: &mut Choices<'_>) -> Self {
        let mut next = || Terms::read(choices);
        let [total, default, own, each, pro] = [next(), next(), next(), next(), next()];
        let options = choices.next();
        Self {
            total,
            default,
            own,
            each,
            pro,
            shadow: options & 1 == 1,
            apart: options >> 1 & 7 == 7,
        }
    }

    fn rules(&self) -> Rules {
        let mut total = self.total.limits();
        if self.shadow {
            total = total.rate(Rate::per_hour(1).shadow());
        }
        let clients = Clients::by_header("x-api-key")
            .each(self.each.limits())
            .plan("pro", self.pro.limits())
            .member("pro", "2")
            .member("pro", "3")
            .max_clients(256);
        Rules::new()
            .total(total)
            .default_route(self.default.limits())
            .route("POST /a", self.own.limits())
            .route("POST /b", Limits::new())
            .undeclared(match self.apart {
                true => Undeclared::PerRoute,
                false => Undeclared::Shared,
            })
            .clients(clients)
            .estimate(Estimate::by_header("x-tokens"))
    }

    /// The limits that hold in a scope.
    fn terms(&self, scope: Scope) -> Terms {
        match scope {
            Scope::Total => self.total,
            Scope::Route(0) => self.own.or(self.default),
            Scope::Route(_) => self.default,
            Scope::Client(2 | 3) => self.pro.or(self.each),
            Scope::Client(_) => self.each,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    Total,
    /// By the number of its path.
    Route(usize),
    /// By its number.
    Client(usize),
}

impl Scope {
    /// Returns what is reserved of an estimate: half of the burst at most where strangers share it.
    fn reserves(self, (_, burst): Pace, tokens: u64) -> u64 {
        let is_own = matches!(self, Self::Client(client) if CLIENTS[client].is_some());
        match burst {
            0 => tokens,
            _ if is_own => tokens.min(burst),
            _ => tokens.min((burst / 2).max(1)),
        }
    }

    const UNDECLARED: Self = Self::Route(PATHS.len() - 1);

    fn all() -> impl Iterator<Item = Self> {
        let routes = (0..PATHS.len()).map(Self::Route);
        let clients = (0..CLIENTS.len()).map(Self::Client);
        [Self::Total].into_iter().chain(routes).chain(clients)
    }
}

// ---- The model

/// The balances of one scope, of each kind.
#[derive(Debug, Clone, Copy, Default)]
struct Balance {
    rate: Owed,
    tokens: Owed,
    quota: Count,
    slots: Count,
}

/// Nanoseconds until a bucket is full.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    nanos: u128,
    at: u128,
    /// A reload has changed its settings: it was full then, at most.
    vague: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    count: u64,
    vague: bool,
    /// Changed by each reload that makes it vague.
    era: u32,
}

impl Owed {
    fn now(&mut self, now: u128) -> u128 {
        self.nanos = self.nanos.saturating_sub(now - self.at);
        self.at = now;
        self.nanos
    }

    fn wait(&mut self, (interval, burst): Pace, cost: u64, now: u128) -> Verdict {
        if cost > burst {
            return Verdict {
                vague: self.vague,
                ..Verdict::NEVER
            };
        }
        let most = u128::from(interval) * u128::from(burst - cost);
        let wait = self.now(now).saturating_sub(most);
        Verdict {
            wait: Some(wait),
            busy: false,
            vague: self.vague,
        }
    }

    fn charge(&mut self, (interval, _): Pace, cost: u64, now: u128) {
        self.nanos = self.now(now) + u128::from(interval) * u128::from(cost);
    }

    fn refund(&mut self, (interval, _): Pace, cost: u64, now: u128) {
        self.nanos = self
            .now(now)
            .saturating_sub(u128::from(interval) * u128::from(cost));
    }
}

/// The refusal that the model expects.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    /// Nanoseconds until it passes. `None`: never.
    wait: Option<u128>,
    /// Nobody knows how long that is.
    busy: bool,
    vague: bool,
}

impl Verdict {
    const NOW: Self = Self {
        wait: Some(0),
        busy: false,
        vague: false,
    };
    const NEVER: Self = Self {
        wait: None,
        ..Self::NOW
    };
    const BUSY: Self = Self {
        busy: true,
        ..Self::NOW
    };

    fn and(self, other: Self) -> Self {
        Self {
            wait: self.wait.zip(other.wait).map(|(one, other)| one.max(other)),
            busy: self.busy || other.busy,
            vague: self.vague || other.vague,
        }
    }

    fn admits(self) -> bool {
        self.wait == Some(0) && !self.busy
    }
}

/// One request, as it was sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    path: usize,
    client: usize,
    tokens: u64,
    at: u128,
    /// The moment at which it was last polled.
    polled: u128,
}

impl Sent {
    fn scopes(&self) -> [Scope; 3] {
        [
            Scope::Total,
            Scope::Route(self.path),
            Scope::Client(self.client),
        ]
    }
}

/// The things that an admitted request holds.
#[derive(Debug, Clone)]
struct Held {
    /// The scopes in which it has slots, and since when.
    slots: Vec<(Scope, u32)>,
    /// The scopes in which its model tokens are counted, and how many of them were reserved there.
    accounts: Vec<(Scope, u64)>,
    used: u64,
    settled: bool,
    usage: Option<Usage>,
}

#[derive(Debug)]
struct Model {
    now: u128,
    written: Written,
    balances: HashMap<Scope, Balance>,
    sent: Vec<Sent>,
    /// The requests that were let through, by number.
    held: HashMap<usize, Held>,
    /// The requests that stand in line, in the order in which they came.
    waiting: Vec<usize>,
}

impl Model {
    fn verdict(&mut self, sent: &Sent) -> Verdict {
        let mut verdict = Verdict::NOW;
        for scope in sent.scopes() {
            let terms = self.written.terms(scope);
            let balance = self.balances.entry(scope).or_default();
            if let Some(pace) = terms.rate {
                verdict = verdict.and(balance.rate.wait(pace, 1, self.now));
            }
            if let Some(pace) = terms.tokens {
                let cost = scope.reserves(pace, sent.tokens);
                verdict = verdict.and(balance.tokens.wait(pace, cost, self.now));
            }
            for (most, Count { count, vague, .. }) in
                [(terms.quota, balance.quota), (terms.slots, balance.slots)]
            {
                let Some(most) = most else { continue };
                let alone = match count < most {
                    true => Verdict::NOW,
                    false if most == 0 => Verdict::NEVER,
                    false => Verdict::BUSY,
                };
                verdict = verdict.and(Verdict { vague, ..alone });
            }
        }
        verdict
    }

    /// The inner service was called for it.
    fn admit(&mut self, number: usize, usage: Option<Usage>) {
        let sent = self.sent[number];
        let verdict = self.verdict(&sent);
        assert!(
            verdict.admits(),
            "R1: {number} was let through, but {verdict:?}: {self:#?}"
        );
        if let Some(place) = self.waiting.iter().position(|waiting| *waiting == number) {
            let same = |other: &Sent| {
                (other.path, other.client, other.tokens) == (sent.path, sent.client, sent.tokens)
            };
            // The model does not know the places of skipped requests.
            let keeps_its_place = |earlier: &Sent| self.now < earlier.polled + GRACE;
            let earlier = self.waiting[..place].iter().find(|earlier| {
                let earlier = &self.sent[**earlier];
                same(earlier) && keeps_its_place(earlier)
            });
            assert_eq!(earlier, None, "R16: {number} has overtaken");
            self.waiting.remove(place);
        }
        let mut held = Held {
            slots: Vec::new(),
            accounts: Vec::new(),
            used: 0,
            settled: false,
            usage,
        };
        for scope in sent.scopes() {
            let terms = self.written.terms(scope);
            let balance = self.balances.entry(scope).or_default();
            if let Some(pace) = terms.rate {
                balance.rate.charge(pace, 1, self.now);
            }
            if let Some(pace) = terms.tokens {
                let cost = scope.reserves(pace, sent.tokens);
                balance.tokens.charge(pace, cost, self.now);
                held.accounts.push((scope, cost));
            }
            balance.quota.count += 1;
            balance.slots.count += 1;
            if terms.slots.is_some() {
                held.slots.push((scope, balance.slots.era));
            }
        }
        assert_eq!(
            held.usage.is_some(),
            !held.accounts.is_empty(),
            "an account where tokens count"
        );
        self.held.insert(number, held);
    }

    /// Charges its accounts with what the second says in place of the first: each of what was reserved.
    fn recharge(&mut self, number: usize, before: impl Fn(u64) -> u64, after: impl Fn(u64) -> u64) {
        let held = self.held.get_mut(&number).expect("it was let through");
        for (scope, reserved) in &held.accounts {
            let Some(pace) = self.written.terms(*scope).tokens else {
                continue;
            };
            let (charged, total) = (before(*reserved), after(*reserved));
            let owed = &mut self.balances.entry(*scope).or_default().tokens;
            if total < charged {
                owed.refund(pace, charged - total, self.now);
            } else if !owed.vague {
                owed.charge(pace, total - charged, self.now);
            }
        }
    }

    fn settle(&mut self, number: usize, total: u64) {
        let held = self.held.get_mut(&number).expect("it was let through");
        if !std::mem::replace(&mut held.settled, true) {
            let used = std::mem::replace(&mut held.used, total);
            self.recharge(number, |reserved| reserved.max(used), |_| total);
        }
    }

    /// The response has ended: whole, or cut short, which is the same to its account.
    fn end(&mut self, number: usize) {
        let Some(held) = self.held.remove(&number) else {
            return;
        };
        for (scope, era) in held.slots {
            let slots = &mut self.balances.entry(scope).or_default().slots;
            if slots.era == era {
                slots.count -= 1;
            }
        }
    }

    /// Other rules hold. Of what is not as it was, only so much is known that it was not more than full.
    fn reload(&mut self, written: Written) {
        for scope in Scope::all() {
            let (old, new) = (self.written.terms(scope), written.terms(scope));
            // The limits that undeclared routes each have are not the shared ones, even if they are equal.
            let moved = scope == Scope::UNDECLARED && self.written.apart != written.apart;
            let balance = self.balances.entry(scope).or_default();
            let owed = || Owed {
                nanos: 0,
                at: self.now,
                vague: true,
            };
            let count = |era| Count {
                count: 0,
                vague: true,
                era: era + 1,
            };
            if moved || old.rate != new.rate {
                balance.rate = owed();
            }
            if moved || old.tokens != new.tokens {
                balance.tokens = owed();
            }
            if moved || old.quota != new.quota {
                balance.quota = count(balance.quota.era);
            }
            if moved || old.slots != new.slots {
                balance.slots = count(balance.slots.era);
            }
        }
        self.written = written;
    }
}

// ---- The service behind the throttle

type Shared = Rc<RefCell<Model>>;

/// The answer that a request asks of the inner service, in its extensions.
#[derive(Clone)]
struct Wish {
    number: usize,
    /// The kind of the answer.
    kind: u8,
}

#[derive(Clone)]
struct Inner {
    model: Shared,
    /// True if answers come.
    open: Rc<Cell<bool>>,
}

struct Answer {
    wish: Wish,
    open: Rc<Cell<bool>>,
}

#[derive(Debug)]
struct Broken;

impl Service<Request<()>> for Inner {
    type Response = Response<Stream>;
    type Error = Broken;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Answer {
        let wish = request.extensions().get::<Wish>().expect("as it was sent");
        let decision = request.extensions().get::<Decision>();
        assert!(decision.is_some_and(Decision::is_admitted));
        let usage = request.extensions().get::<Usage>().cloned();
        self.model.borrow_mut().admit(wish.number, usage);
        Answer {
            wish: wish.clone(),
            open: Rc::clone(&self.open),
        }
    }
}

impl Future for Answer {
    type Output = Result<Response<Stream>, Broken>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let kind = self.wish.kind;
        match kind & 1 == 1 && !self.open.get() {
            true => Poll::Pending,
            false if kind & 2 == 2 => Poll::Ready(Err(Broken)),
            false => Poll::Ready(Ok(Response::new(Stream {
                left: kind >> 2 & 3,
                end: kind >> 4 & 3,
            }))),
        }
    }
}

/// Some frames, and one of the ways in which a body ends.
#[derive(Debug)]
struct Stream {
    left: u8,
    end: u8,
}

impl Stream {
    const KNOWS: u8 = 0;
    const TRAILERS: u8 = 1;
    const FAILS: u8 = 2;
    const OVER: u8 = 4;
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.left > 0 {
            self.left -= 1;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data")))));
        }
        Poll::Ready(match std::mem::replace(&mut self.end, Self::OVER) {
            Self::TRAILERS => Some(Ok(Frame::trailers(HeaderMap::new()))),
            Self::FAILS => Some(Err(Broken)),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && matches!(self.end, Self::KNOWS | Self::OVER)
    }
}

// ---- All of it

enum Stage {
    Asked(Pin<Box<ResponseFuture<Inner, ()>>>),
    Answered(Pin<Box<ResponseBody<Stream>>>),
    Over,
}

struct World {
    model: Shared,
    open: Rc<Cell<bool>>,
    layer: ThrottleLayer,
    sets: [Written; 2],
    requests: Vec<Stage>,
}

impl World {
    fn new(layer: ThrottleLayer, sets: [Written; 2]) -> Self {
        let model = Model {
            now: 0,
            written: sets[0],
            balances: HashMap::new(),
            sent: Vec::new(),
            held: HashMap::new(),
            waiting: Vec::new(),
        };
        Self {
            model: Rc::new(RefCell::new(model)),
            open: Rc::default(),
            layer,
            sets,
            requests: Vec::new(),
        }
    }

    async fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.next() % 16 {
            0 | 1 => {
                const UNITS: [u64; 8] = [
                    1,
                    1_000,
                    1_000_000,
                    7_000_000,
                    100_000_000,
                    1_000_000_000,
                    1 << 36,
                    1 << 42,
                ];
                let byte = choices.next();
                self.advance(UNITS[usize::from(byte % 8)] * u64::from(byte / 8 + 1))
                    .await;
            }
            2 => self.open.set(!self.open.get()),
            3 => {
                let set = self.sets[choices.below(2)];
                self.layer
                    .handle()
                    .reload(set.rules())
                    .expect("these rules were good before");
                self.model.borrow_mut().reload(set);
            }
            4..=7 if !self.requests.is_empty() => {
                let number = choices.below(self.requests.len());
                self.poll(number);
            }
            8 | 9 if !self.requests.is_empty() => {
                let number = choices.below(self.requests.len());
                self.drop(number);
            }
            10 | 11 if !self.requests.is_empty() => {
                let number = choices.below(self.requests.len());
                self.count(number, choices.next());
            }
            _ => {
                const TOKENS: [u64; 8] = [1, 1, 2, 3, 5, 8, 20, 99];
                let [way, client, tokens, kind] = [(); 4].map(|()| choices.next());
                let sent = Sent {
                    path: usize::from(way) % PATHS.len(),
                    client: usize::from(client) % CLIENTS.len(),
                    tokens: TOKENS[usize::from(tokens % 8)],
                    at: self.model.borrow().now,
                    polled: self.model.borrow().now,
                };
                self.send(sent, kind);
            }
        }
    }

    async fn advance(&self, nanos: u64) {
        time::advance(Duration::from_nanos(nanos)).await;
        self.model.borrow_mut().now += u128::from(nanos);
    }

    fn send(&mut self, sent: Sent, kind: u8) {
        let number = self.requests.len();
        let (expected, alone) = {
            let mut model = self.model.borrow_mut();
            model.sent.push(sent);
            (model.verdict(&sent), model.waiting.is_empty())
        };
        let mut request = Request::post(PATHS[sent.path]).header("x-tokens", sent.tokens);
        if let Some(key) = CLIENTS[sent.client] {
            request = request.header("x-api-key", key);
        }
        let request = request
            .extension(Wish { number, kind })
            .body(())
            .expect("a request");
        let inner = Inner {
            model: Rc::clone(&self.model),
            open: Rc::clone(&self.open),
        };
        let future = self.layer.layer(inner).call(request);
        self.requests.push(Stage::Asked(Box::pin(future)));
        let called = self.model.borrow().held.contains_key(&number);
        if alone && expected.admits() && !expected.vague {
            assert!(
                called,
                "R2: {number} was not let through: {:#?}",
                self.model.borrow()
            );
        }
        if called {
            return;
        }
        self.model.borrow_mut().waiting.push(number);
        if let Some(decision) = self.poll(number) {
            let told = decision.retry_after().map(|wait| wait.as_nanos());
            assert!(
                decision.limits().any(|limit| limit.is_refused()),
                "R22: {decision:?}"
            );
            if expected.wait.is_none() && !expected.vague {
                assert_eq!(told, None, "R6: {number} can never pass");
            } else if alone && !expected.busy && !expected.vague {
                assert_eq!(told, expected.wait, "R1: when {number} would pass");
            }
        }
    }

    /// Returns the decision, if it is refused.
    fn poll(&mut self, number: usize) -> Option<Decision> {
        let cx = &mut Context::from_waker(Waker::noop());
        match &mut self.requests[number] {
            Stage::Asked(future) => {
                let answer = future.as_mut().poll(cx);
                {
                    let model = &mut *self.model.borrow_mut();
                    model.sent[number].polled = model.now;
                }
                let Poll::Ready(answer) = answer else {
                    let model = self.model.borrow();
                    if !model.held.contains_key(&number) {
                        let longest = u128::from(WAITS[WAITS.len() - 1]) * 1_000_000;
                        let waited = model.now - model.sent[number].at;
                        assert!(waited < longest, "R16: {number} waits after {waited} ns");
                    }
                    return None;
                };
                self.requests[number] = Stage::Over;
                let Ok(response) = answer else {
                    self.model.borrow_mut().end(number);
                    return None;
                };
                let (head, body) = response.into_parts();
                self.requests[number] = Stage::Answered(Box::pin(body));
                let decision: Option<&Decision> = head.extensions.get();
                let decision = decision.expect("a decision on every answer").clone();
                let called = self.model.borrow().held.contains_key(&number);
                assert_eq!(called, decision.is_admitted());
                if called {
                    return None;
                }
                assert!(matches!(
                    head.status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                ));
                let waiting = &mut self.model.borrow_mut().waiting;
                waiting.retain(|waiting| *waiting != number);
                Some(decision)
            }
            Stage::Answered(body) => {
                let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
                    unreachable!("no body here waits");
                };
                let mut model = self.model.borrow_mut();
                match frame {
                    Some(Ok(frame)) if frame.is_trailers() => model.end(number),
                    Some(Ok(_)) if body.is_end_stream() => model.end(number),
                    Some(Ok(_)) => {}
                    Some(Err(Broken)) => model.end(number),
                    None => model.end(number),
                }
                None
            }
            Stage::Over => None,
        }
    }

    fn drop(&mut self, number: usize) {
        self.requests[number] = Stage::Over;
        let mut model = self.model.borrow_mut();
        model.waiting.retain(|waiting| *waiting != number);
        model.end(number);
    }

    /// The handler counts model tokens, or settles them.
    fn count(&self, number: usize, byte: u8) {
        let mut model = self.model.borrow_mut();
        let Some(held) = model.held.get_mut(&number) else {
            return;
        };
        let (Some(usage), open) = (&held.usage, !held.settled) else {
            return;
        };
        let tokens = u64::from(byte >> 1) % 16;
        if byte & 1 == 1 {
            assert_eq!(usage.settle(tokens), open);
            model.settle(number, tokens);
        } else {
            assert_eq!(usage.add(tokens), open);
            if open {
                let before = held.used;
                let after = before + tokens;
                held.used = after;
                model.recharge(
                    number,
                    |reserved| reserved.max(before),
                    |reserved| reserved.max(after),
                );
            }
        }
        let held = &model.held[&number];
        let usage = held.usage.as_ref().expect("it was there");
        assert_eq!(usage.used(), held.used, "R17");
        let reserved = held.accounts.iter().map(|(_, reserved)| *reserved);
        assert_eq!(Some(usage.reserved()), reserved.min());
    }

    async fn end(&mut self) {
        // Nobody stands in line for longer than the longest wait.
        self.advance(WAITS[WAITS.len() - 1] * 1_000_000).await;
        for number in 0..self.requests.len() {
            self.poll(number);
        }
        let left = self.model.borrow().waiting.clone();
        assert_eq!(left, [0; 0], "R16: they stand in line for ever");
        for number in (0..self.requests.len()).rev() {
            self.drop(number);
        }
        let snapshot = self.layer.handle().snapshot();
        for limit in &snapshot.limits {
            assert!(
                limit.in_flight.is_none_or(|held| held == 0),
                "R15: {limit:?}"
            );
            assert_eq!(limit.waiting, 0, "R16: {limit:?}");
        }
        assert_eq!(snapshot.overflowed, 0, "there is room for these clients");
        // And those that no snapshot tells of, by who gets in.
        for path in 0..PATHS.len() {
            for client in 0..CLIENTS.len() {
                let at = self.model.borrow().now;
                self.send(
                    Sent {
                        path,
                        client,
                        tokens: 1,
                        at,
                        polled: at,
                    },
                    0,
                );
                self.drop(self.requests.len() - 1);
            }
        }
    }
}
