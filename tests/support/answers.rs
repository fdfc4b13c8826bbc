//! Any answers of a store: bytes determine the answers, their timing, and the requests meanwhile.
//!
//! - Nothing panics, and no request asks without end: each is decided soon after its longest wait.
//! - *No admission that the answers forbid.* The inner service is called for a request only if the store has answered
//!   that its charges were taken, or has leased as many units before, each of which is spent once. While the store
//!   fails, [`OnOutage`] decides, and at most the share of this process is admitted.
//! - *Units are conserved* (R25). Units taken for a request that was not admitted are returned once, and no other units
//!   are returned. Corrections of model tokens add up to the settled amount.
//! - Slots are in this process (R15), and snapshots count each request once.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep},
};
use tower::{Layer, Service};
use tower_throttle::{
    Clients, Decision, Limits, Quota, Rate, Rules, ThrottleLayer, Usage,
    body::ResponseBody,
    decision::DecisionIn,
    future::ResponseFuture,
    store::{Balance, Charge, Correction, OnOutage, Store, StoreError, StoreFuture, Taken},
    usage::Estimate,
};

use super::choices::{self, Choices, now};

/// More steps would only make each run slower.
const MAX_STEPS: usize = 64;

/// A request that is polled once asks no more often than this.
const MAX_ASKS: usize = 16;

const PATHS: [&str; 2] = ["/a", "/b"];
const CLIENTS: [&str; 2] = ["one", "two"];

/// For how long the store is waited for.
const DEADLINE: Duration = Duration::from_millis(25);

/// For how long a request waits in line, where it does.
const MAX_WAIT: Duration = Duration::from_millis(400);

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
        world.step(choices).await;
    }
    world.end().await;
}

// ---- What the store says

#[derive(Debug, Clone)]
struct Reply {
    kind: Kind,
    /// After so many milliseconds. `None`: never.
    after: Option<u64>,
    is_admitted: bool,
    now: Clock,
    /// State, leased units and a shadow's refusal, for each charge in turn.
    balances: Vec<(Clock, u64, bool)>,
    /// The number of balances.
    count: Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Answers,
    Unavailable,
    Bucket,
}

#[derive(Debug, Clone, Copy)]
enum Clock {
    /// Nanoseconds before and after the time of the throttle.
    Ahead(i64),
    Exactly(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Right,
    Fewer,
    More,
    None,
}

/// Any number, those at the ends of ranges above all.
fn number(choices: &mut Choices<'_>) -> u64 {
    const ENDS: [u64; 9] = [
        0,
        1,
        7,
        (1 << 62) - 1,
        1 << 62,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    match ENDS.get(choices.below(ENDS.len() + 2)) {
        Some(end) => *end,
        None => choices.number(),
    }
}

impl Clock {
    fn read(choices: &mut Choices<'_>) -> Self {
        const UNITS: [i64; 8] = [
            0,
            1,
            1_000,
            1_000_000,
            100_000_000,
            1_000_000_000,
            60_000_000_000,
            86_400_000_000_000,
        ];
        let byte = choices.next();
        match byte {
            0..=199 => {
                let unit = UNITS[usize::from(byte % 8)];
                let ahead = unit * i64::from(byte >> 4);
                Self::Ahead(if byte & 8 == 0 { ahead } else { -ahead })
            }
            _ => Self::Exactly(number(choices)),
        }
    }

    fn at(self, now: u64) -> u64 {
        match self {
            Self::Ahead(nanos) => now.saturating_add_signed(nanos),
            Self::Exactly(nanos) => nanos,
        }
    }
}

impl Reply {
    /// That all is taken of buckets that are full.
    fn yes() -> Self {
        Self {
            kind: Kind::Answers,
            after: Some(0),
            is_admitted: true,
            now: Clock::Ahead(0),
            balances: vec![(Clock::Ahead(0), 0, false)],
            count: Count::Right,
        }
    }

    fn read(choices: &mut Choices<'_>) -> Self {
        const AFTER: [Option<u64>; 8] = [
            Some(0),
            Some(0),
            Some(0),
            Some(1),
            Some(24),
            Some(25),
            Some(60),
            None,
        ];
        let byte = choices.next();
        let leases = [0, 1, 3, 8, u64::MAX];
        let balances = (0..=byte >> 6).map(|_| {
            let state = Clock::read(choices);
            let extra = choices.next();
            let leased = leases[usize::from(extra >> 3) % leases.len()];
            (state, leased, extra & 7 == 7)
        });
        Self {
            balances: balances.collect(),
            kind: match byte & 15 {
                14 => Kind::Unavailable,
                15 => Kind::Bucket,
                _ => Kind::Answers,
            },
            is_admitted: byte >> 4 & 3 != 3,
            after: choices.of_these(&AFTER),
            now: Clock::read(choices),
            count: match choices.next() {
                0..=9 => Count::Fewer,
                10..=19 => Count::More,
                20..=24 => Count::None,
                _ => Count::Right,
            },
        }
    }

    /// Tells whether a store that keeps its promises could have said so.
    fn is_proper(&self, charges: &[Asked]) -> bool {
        let balances = self.balances.iter().cycle();
        let mut told = charges.iter().zip(balances);
        self.count == Count::Right
            && told.all(|(charge, (_, _, is_refused))| charge.is_shadow || !is_refused)
    }
}

// ---- What is written down of it

/// One charge of a question.
#[derive(Debug, Clone)]
struct Asked {
    key: String,
    cost: u64,
    lease: u64,
    is_shadow: bool,
}

#[derive(Debug, Default)]
struct Book {
    reply: Option<Reply>,
    /// The answer to corrections.
    corrects: Option<Reply>,
    /// The request that is polled.
    polled: Option<usize>,
    /// The number of times that it has asked.
    asks: usize,
    /// Enforced charges that an answer has told a request were taken.
    taken: HashMap<usize, u64>,
    /// The same by bucket, of requests and of those who have gone.
    taken_by_key: HashMap<(usize, String), u64>,
    taken_for_nobody: HashMap<String, u64>,
    /// Units of leases that nobody has spent.
    leased: u64,
    /// All that was ever taken, and all that was given back.
    all: HashMap<String, u128>,
    undone: HashMap<String, u64>,
    returned: HashMap<String, u64>,
    /// Tokens that were owed, less those that came back.
    owed: i128,
    /// True if the store did not do as it was asked.
    has_failed: bool,
    is_proper: bool,
}

/// A store that says what it is told to say.
#[derive(Clone)]
struct ScriptedStore {
    book: Arc<Mutex<Book>>,
    /// The time that the wall clock showed at the start.
    began: (u64, Instant),
}

impl ScriptedStore {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        let (shown, at) = self.began;
        shown + (now() - at).as_nanos() as u64
    }

    async fn wait(after: Option<u64>) {
        match after {
            Some(0) => {}
            Some(after) => sleep(Duration::from_millis(after)).await,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedStore")
    }
}

impl Store for ScriptedStore {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        let reply = {
            let mut book = self.book();
            if book.polled.is_some() {
                book.asks += 1;
                assert!(book.asks < MAX_ASKS, "it asks for ever");
            }
            book.reply.clone().unwrap_or_else(Reply::yes)
        };
        let asked = charges.iter().map(|charge| Asked {
            key: charge.key.to_string(),
            cost: charge.cost,
            lease: charge.lease,
            is_shadow: charge.is_shadow,
        });
        let asked: Vec<_> = asked.collect();
        Box::pin(async move {
            Self::wait(reply.after).await;
            let error = match reply.kind {
                Kind::Answers => None,
                Kind::Unavailable => Some(StoreError::unavailable("told to")),
                Kind::Bucket => Some(StoreError::bucket("told to")),
            };
            let mut book = self.book();
            if let Some(error) = error {
                book.has_failed = true;
                return Err(error);
            }
            let now = self.now();
            let count = match reply.count {
                Count::Right => asked.len(),
                Count::Fewer => asked.len().saturating_sub(1),
                Count::More => asked.len() + 3,
                Count::None => 0,
            };
            let balances = reply.balances.iter().cycle().take(count);
            let balances = balances.map(|(state, leased, is_refused)| Balance {
                state: state.at(now),
                leased: *leased,
                is_refused: *is_refused,
            });
            let taken = Taken {
                is_admitted: reply.is_admitted,
                now: reply.now.at(now),
                balances: balances.collect(),
            };
            book.is_proper &= reply.is_proper(&asked);
            if taken.is_admitted {
                book.took(&asked, &taken);
            }
            Ok(taken)
        })
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        let mut book = self.book();
        for correction in corrections {
            let (key, _, units) = correction.parts();
            let key = key.to_string();
            match correction {
                Correction::Owe { .. } => book.owed += i128::from(units),
                Correction::Refund { .. } => book.owed -= i128::from(units),
                Correction::Undo { .. } => *book.undone.entry(key).or_default() += units,
                Correction::Return { .. } => *book.returned.entry(key).or_default() += units,
            }
        }
        let reply = book.corrects.clone().unwrap_or_else(Reply::yes);
        drop(book);
        Box::pin(async move {
            Self::wait(reply.after).await;
            match reply.kind {
                Kind::Answers => Ok(()),
                Kind::Unavailable => Err(StoreError::unavailable("told to")),
                Kind::Bucket => Err(StoreError::bucket("told to")),
            }
        })
    }
}

impl Book {
    /// All these were taken, and who is polled is told so.
    fn took(&mut self, asked: &[Asked], taken: &Taken) {
        for (place, charge) in asked.iter().enumerate() {
            let balance = taken.balances.get(place).copied().unwrap_or_default();
            if charge.is_shadow && balance.is_refused {
                continue;
            }
            // A store that says more than it was asked for is not believed.
            let leased = balance.leased.min(charge.lease);
            let key = || charge.key.clone();
            *self.all.entry(key()).or_default() += u128::from(charge.cost) + u128::from(leased);
            match self.polled {
                Some(number) if charge.cost > 0 => {
                    *self.taken_by_key.entry((number, key())).or_default() += charge.cost;
                    if !charge.is_shadow {
                        *self.taken.entry(number).or_default() += 1;
                    }
                }
                Some(_) => {}
                None => *self.taken_for_nobody.entry(key()).or_default() += charge.cost,
            }
            if self.polled.is_some() {
                self.leased = self.leased.saturating_add(leased);
            }
        }
    }

    /// A request was let through that has so many limits in the store. Reply whether the store has let it through.
    fn admits(&mut self, number: usize, limits: u64) -> bool {
        let taken = self.taken.get(&number).copied().unwrap_or(0);
        let missing = limits.saturating_sub(taken);
        if missing <= self.leased {
            self.leased -= missing;
            return true;
        }
        false
    }
}

// ---- The rules

#[derive(Debug, Clone, Copy)]
struct Written {
    total: Option<(u64, u64)>,
    rate: Option<(u64, u64)>,
    quota: Option<u64>,
    tokens: bool,
    client: Option<(u64, u64)>,
    shadow: bool,
    slots: Option<u64>,
    waits: bool,
    lease: u64,
    on_outage: OnOutage,
}

impl Written {
    fn read(choices: &mut Choices<'_>) -> Self {
        const PACES: [(u64, u64); 4] = [(3, 4), (100, 50), (1, 1), (1_000, 1_000)];
        const LEASES: [u64; 4] = [0, 8, 2, u64::MAX];
        let (kinds, more) = (choices.next(), choices.next());
        let mut pace = |bit: u8| (kinds >> bit & 1 == 1).then(|| choices.of_these(&PACES));
        let [total, rate, client] = [pace(0), pace(1), pace(2)];
        Self {
            total,
            rate,
            client,
            quota: (kinds >> 3 & 1 == 1).then_some(100),
            tokens: kinds >> 4 & 1 == 1,
            shadow: kinds >> 5 & 1 == 1,
            slots: (kinds >> 6 & 1 == 1).then_some(2),
            waits: kinds >> 7 & 1 == 1,
            lease: LEASES[usize::from(more & 3)],
            on_outage: match more >> 2 & 3 {
                0 | 1 => OnOutage::Refuse,
                2 => OnOutage::Admit,
                _ => OnOutage::Local {
                    share: u32::from(more >> 4 & 3),
                },
            },
        }
    }

    fn rules(&self) -> Rules {
        let rate = |(count, burst): (u64, u64)| Rate::per_second(count).burst(burst);
        let mut limits = Limits::new();
        if let Some(pace) = self.rate {
            limits = limits.rate(rate(pace));
        }
        if let Some(count) = self.quota {
            limits = limits.quota(Quota::per_day(count));
        }
        if self.tokens {
            limits = limits.tokens(Rate::per_minute(1_000));
        }
        if self.shadow {
            limits = limits.rate(Rate::per_minute(1).shadow());
        }
        if let Some(slots) = self.slots {
            limits = limits.in_flight(slots);
        }
        if self.waits {
            limits = limits.max_wait(MAX_WAIT).max_waiting(3);
        }
        let mut rules = Rules::new()
            .default_route(limits)
            .route("POST /a", Limits::new())
            .estimate(Estimate::by_header("x-tokens").exact());
        if let Some(pace) = self.total {
            rules = rules.total(rate(pace));
        }
        if let Some(pace) = self.client {
            let clients = Clients::by_header("x-api-key")
                .each(rate(pace))
                .max_clients(64)
                .secret([7; 32]);
            rules = rules.clients(clients);
        }
        rules
    }

    /// The number of limits that are enforced in the store.
    fn enforced(&self) -> u64 {
        let rates = [self.total, self.rate, self.client];
        let kinds = [self.quota.is_some(), self.tokens];
        let rates = rates.iter().flatten().count();
        (rates + kinds.iter().filter(|is_there| **is_there).count()) as u64
    }
}

// ---- Requests

/// The requests that were let through since somebody looked, each with its account.
type Called = Arc<Mutex<Vec<(usize, Option<Usage>)>>>;

#[derive(Clone)]
struct Inner(Called);

#[derive(Clone)]
struct Number(usize);

impl Service<Request<()>> for Inner {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Empty<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let Number(number) = request.extensions().get().expect("as it was sent");
        let usage = request.extensions().get::<Usage>().cloned();
        let mut called = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        called.push((*number, usage));
        ready(Ok(Response::new(Empty::new())))
    }
}

type Future = Pin<Box<ResponseFuture<Inner, ()>>>;

enum Stage {
    Asked(Future),
    /// Holds its slots.
    Answered {
        _body: ResponseBody<Empty<Bytes>>,
    },
    Over,
}

/// A request that was let through.
struct Admitted {
    usage: Option<Usage>,
    is_settled: bool,
    by_store: bool,
}

struct World {
    written: Written,
    store: ScriptedStore,
    layer: ThrottleLayer,
    called: Inner,
    requests: Vec<Stage>,
    sent: Vec<(usize, usize)>,
    admitted: HashMap<usize, Admitted>,
    refused: u64,
    /// Requests that were let through while the store did not do as it was asked: when, and from where.
    alone: Vec<(usize, usize, Instant)>,
    /// The units that are settled, less what was reserved.
    settled: i128,
    start: Instant,
}

impl World {
    fn new(choices: &mut Choices<'_>) -> Self {
        let written = Written::read(choices);
        #[expect(clippy::disallowed_methods, reason = "a store has a clock of its own")]
        let shown = SystemTime::now().duration_since(UNIX_EPOCH);
        let store = ScriptedStore {
            book: Arc::new(Mutex::new(Book {
                is_proper: true,
                ..Book::default()
            })),
            began: (shown.map_or(0, |shown| shown.as_nanos() as u64), now()),
        };
        let layer = ThrottleLayer::builder(written.rules())
            .decision(DecisionIn::Response)
            .stagger_retry_after(false)
            .lease(written.lease)
            .on_outage(written.on_outage)
            .store_deadline(DEADLINE)
            .store(store.clone())
            .build()
            .expect("rules that hold together");
        Self {
            written,
            store,
            layer,
            called: Inner(Arc::default()),
            requests: Vec::new(),
            sent: Vec::new(),
            admitted: HashMap::new(),
            refused: 0,
            alone: Vec::new(),
            settled: 0,
            start: now(),
        }
    }

    async fn step(&mut self, choices: &mut Choices<'_>) {
        let kind = choices.next() % 16;
        match kind {
            0..=2 => self.store.book().reply = Some(Reply::read(choices)),
            3 => self.store.book().corrects = Some(Reply::read(choices)),
            4 | 5 => {
                const MILLIS: [u64; 8] = [1, 5, 12, 25, 26, 100, 1_000, 11_000];
                self.pass(choices.of_these(&MILLIS)).await;
            }
            6 | 7 if !self.requests.is_empty() => {
                let number = choices.below(self.requests.len());
                self.poll(number);
            }
            8 | 9 if !self.requests.is_empty() => {
                let number = choices.below(self.requests.len());
                self.requests[number] = Stage::Over;
                yield_now().await;
            }
            10 if !self.requests.is_empty() => {
                let number = choices.below(self.requests.len());
                let tokens = u64::from(choices.next());
                self.settle(number, tokens);
                yield_now().await;
            }
            11 => poll_once(self.layer.handle().return_leases()).await,
            _ => {
                let byte = choices.next();
                let (path, client) = (usize::from(byte & 1), usize::from(byte >> 1 & 1));
                self.send(path, client, u64::from(byte >> 2) + 1);
                if byte >> 2 & 1 == 1 {
                    yield_now().await;
                }
            }
        }
    }

    async fn pass(&mut self, millis: u64) {
        advance(Duration::from_millis(millis)).await;
        for _ in 0..4 {
            yield_now().await;
        }
    }

    fn send(&mut self, path: usize, client: usize, tokens: u64) {
        let number = self.requests.len();
        let request = Request::post(PATHS[path])
            .header("x-api-key", CLIENTS[client])
            .header("x-tokens", tokens)
            .extension(Number(number))
            .body(())
            .expect("a request");
        self.sent.push((path, client));
        let mut service = self.layer.layer(self.called.clone());
        let future = self.watched(number, || service.call(request));
        self.requests.push(Stage::Asked(Box::pin(future)));
        self.poll(number);
    }

    /// Does something for a request, and looks who was let through by it.
    fn watched<T>(&mut self, number: usize, work: impl FnOnce() -> T) -> T {
        {
            let mut book = self.store.book();
            (book.polled, book.asks) = (Some(number), 0);
        }
        let done = work();
        let called = std::mem::take(&mut *self.called.0.lock().expect("no panic"));
        let mut book = self.store.book();
        book.polled = None;
        for (called, usage) in called {
            assert_eq!(called, number, "it is this one's turn");
            let (path, client) = self.sent[number];
            let by_store = book.admits(number, self.written.enforced());
            if !by_store {
                assert_ne!(
                    self.written.on_outage,
                    OnOutage::Refuse,
                    "{number} was let through by nobody: {book:?}"
                );
                self.alone.push((path, client, now()));
            }
            let admitted = Admitted {
                usage,
                is_settled: false,
                by_store,
            };
            let before = self.admitted.insert(number, admitted);
            assert!(before.is_none(), "called twice");
        }
        drop(book);
        self.shares();
        done
    }

    /// Checks that what was decided here was decided by the share of this process.
    fn shares(&self) {
        let OnOutage::Local { share } = self.written.on_outage else {
            return;
        };
        let share = u64::from(share.max(1));
        let passed = (now() - self.start).as_nanos();
        let within = |(count, burst): (u64, u64), alone: usize, what: &str| {
            let interval = 1_000_000_000_u128 * u128::from(share) / u128::from(count);
            let most = u128::from((burst / share).max(1)) + passed / interval + 1;
            assert!(
                alone as u128 <= most,
                "{alone} by the share of {what}, at most {most}"
            );
        };
        if let Some(pace) = self.written.total {
            within(pace, self.alone.len(), "the total");
        }
        for number in 0..2 {
            if let Some(pace) = self.written.client {
                let alone = self.alone.iter().filter(|(_, client, _)| *client == number);
                within(pace, alone.count(), "a client");
            }
            if let Some(pace) = self.written.rate {
                let alone = self.alone.iter().filter(|(path, ..)| *path == number);
                within(pace, alone.count(), "a route");
            }
        }
    }

    fn poll(&mut self, number: usize) {
        let stage = std::mem::replace(&mut self.requests[number], Stage::Over);
        let Stage::Asked(mut future) = stage else {
            self.requests[number] = stage;
            return;
        };
        let cx = &mut Context::from_waker(Waker::noop());
        let poll = self.watched(number, || future.as_mut().poll(cx));
        let Poll::Ready(Ok(response)) = poll else {
            assert!(!self.admitted.contains_key(&number), "it answers at once");
            self.requests[number] = Stage::Asked(future);
            return;
        };
        let decision: &Decision = response.extensions().get().expect("a decision");
        let is_admitted = self.admitted.contains_key(&number);
        assert_eq!(decision.is_admitted(), is_admitted);
        self.refused += u64::from(!is_admitted);
        if !is_admitted && response.status() != StatusCode::SERVICE_UNAVAILABLE {
            let mut limits = decision.limits();
            assert!(limits.any(|limit| limit.is_refused()), "R22: {decision:?}");
        }
        if is_admitted {
            self.requests[number] = Stage::Answered {
                _body: response.into_body(),
            };
        }
        self.slots();
    }

    /// No more are in flight than there are slots.
    fn slots(&self) {
        let snapshot = self.layer.handle().snapshot();
        for flying in snapshot.limits.iter().filter_map(|limit| limit.in_flight) {
            let most = self.written.slots.unwrap_or(0);
            assert!(flying <= most, "R15: {flying} in flight of {most}");
        }
    }

    fn settle(&mut self, number: usize, tokens: u64) {
        if !matches!(self.requests[number], Stage::Answered { .. }) {
            return;
        }
        let Some(admitted) = self.admitted.get_mut(&number) else {
            return;
        };
        let Some(usage) = admitted.usage.as_ref().filter(|_| !admitted.is_settled) else {
            return;
        };
        let reserved = usage.reserved();
        assert!(usage.settle(tokens), "settled once");
        admitted.is_settled = true;
        self.settled += i128::from(tokens) - i128::from(reserved);
    }

    async fn end(&mut self) {
        // Whatever the store answers, each request is decided soon after its longest wait.
        for _ in 0..40 {
            self.pass(25).await;
            for number in 0..self.requests.len() {
                self.poll(number);
            }
        }
        for number in 0..self.requests.len() {
            let is_decided = !matches!(self.requests[number], Stage::Asked(_));
            assert!(is_decided, "R16, R21: {number} is never decided");
        }
        self.requests.iter_mut().for_each(|one| *one = Stage::Over);
        self.pass(1).await;
        let snapshot = self.layer.handle().snapshot();
        for limit in &snapshot.limits {
            assert_eq!(limit.in_flight.unwrap_or(0), 0, "R15: {limit:?}");
            assert_eq!(limit.waiting, 0, "R16: {limit:?}");
        }
        let routes = snapshot.routes.iter();
        let counted = routes.fold((0, 0), |(admitted, refused), route| {
            (admitted + route.admitted, refused + route.refused)
        });
        let counts = (self.admitted.len() as u64, self.refused);
        assert_eq!(counted, counts, "admitted and refused");
        self.conserved();
    }

    /// Checks that what was taken has been used, or was given back.
    fn conserved(&self) {
        let book = self.store.book();
        let of = |map: &HashMap<String, u64>, key: &String| map.get(key).copied().unwrap_or(0);
        for key in book.undone.keys().chain(book.returned.keys()) {
            let back = u128::from(of(&book.undone, key)) + u128::from(of(&book.returned, key));
            let taken = book.all.get(key).copied().unwrap_or(0);
            assert!(back <= taken, "{key}: {back} came back of {taken}");
        }
        if !book.is_proper || self.written.lease > 1 {
            return;
        }
        for (key, taken) in &book.all {
            let used = book.taken_by_key.iter().filter(|((number, of), _)| {
                let by_store = self.admitted.get(number).is_some_and(|one| one.by_store);
                by_store && of == key
            });
            let used: u64 = used.map(|(_, units)| *units).sum();
            let back = u128::from(of(&book.undone, key));
            let sum = u128::from(used) + back;
            assert!(
                sum <= *taken,
                "{key}: {used} used, {back} undone of {taken}"
            );
            // A request admitted after all keeps charges that come too late.
            if self.written.on_outage == OnOutage::Refuse {
                assert_eq!(sum, *taken, "{key}: {used} used, {back} undone");
            }
        }
    }
}

/// Polls a future once, and lets what it has begun go on.
async fn poll_once(future: impl std::future::Future) {
    let mut future = std::pin::pin!(future);
    let cx = &mut Context::from_waker(Waker::noop());
    let _ = future.as_mut().poll(cx);
    yield_now().await;
}
