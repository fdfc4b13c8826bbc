//! Reloads between any rules: bytes determine the sequence of rules, and the requests meanwhile.
//!
//! - *The bound of the weakest settings* (R1, R20). In each window that ends with an admission, no more requests, and
//!   no more model tokens, than the largest burst and the fastest rate in force in it allow: for the total, for each
//!   client, and for each method and path, whatever key it is charged by. Used units thus stay used.
//! - A quota gives no more units than the largest that was in force since it began, since its window does not end here.
//!   If a name in a scope moves to another of its quotas, the one that is also changed starts over.
//! - No more requests are in flight than there are slots (R15), and none passes a closed key.
//! - *Nothing is lost.* At the end, after enough time, the whole burst and all slots are available.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, advance};
use tower::{Layer, Service};
use tower_throttle::{
    Clients, Decision, InFlight, Limits, Quota, Rate, Rules, ThrottleLayer, Usage,
    body::ResponseBody, decision::DecisionIn, future::ResponseFuture, rules::Undeclared,
    usage::Estimate,
};

use super::{
    choices::{self, Choices, now},
    keys::{CLIENTS, KEYS, MAY_BE_EXEMPT},
};

/// More steps would only make each run slower.
const MAX_STEPS: usize = 80;

/// Requests of one kind: a method and a path.
const KINDS: [(&str, &str); 7] = [
    ("GET", "/m/a"),
    ("HEAD", "/m/a"),
    ("GET", "/m/b"),
    ("HEAD", "/m/b"),
    ("GET", "/x"),
    ("GET", "/q/r/s"),
    ("POST", "/m/a"),
];

/// Lives the life that some bytes tell of.
pub(crate) fn live(input: &[u8]) {
    choices::live(input, run);
}

async fn run(choices: &mut Choices<'_>) {
    let mut world = World::new(Written::read(choices));
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            break;
        }
        world.step(choices).await;
    }
    world.end().await;
}

// ---- Rules

/// The nanoseconds for a unit, and the burst.
type Pace = (u64, u64);

/// The limits of one scope: one of each kind, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Terms {
    rate: Option<Pace>,
    tokens: Option<Pace>,
    quota: Option<u64>,
    slots: Option<u64>,
    wait: Option<u64>,
    /// The limits around them: shadows, quotas that are never used up, names.
    noise: u8,
}

#[derive(Debug, Clone, Copy)]
enum Given {
    Limited(Terms),
    Closed,
    Unlimited,
    Exempt,
}

impl Terms {
    fn read(choices: &mut Choices<'_>) -> Self {
        const INTERVALS: [u64; 6] = [
            100_000_000,
            700_000_000,
            7,
            60_000_000_000,
            60_000_000_000,
            3_600_000_000_000,
        ];
        let kinds = choices.next() & (choices.next() | 1);
        let mut next = |bit: u8| (kinds >> bit & 1 == 1).then(|| choices.next());
        let pace = |byte: u8, scale: u64| {
            let interval = INTERVALS[usize::from(byte) % INTERVALS.len()];
            (interval, u64::from(byte / 32 % 6 + 1) * scale)
        };
        let mut terms = Self {
            rate: next(0).map(|byte| pace(byte, 1)),
            tokens: next(1).map(|byte| pace(byte, 5)),
            quota: next(2).map(|byte| u64::from(byte % 12) + 1),
            slots: next(3).map(|byte| u64::from(byte % 4) + 1),
            wait: next(4).map(|byte| [50, 1_000, 100_000][usize::from(byte % 3)]),
            noise: 0,
        };
        terms.noise = choices.next();
        terms
    }

    fn limits(self, name: &str) -> Limits {
        let rate = |(interval, burst)| Rate::new(1, Duration::from_nanos(interval)).burst(burst);
        let noise = |bit: u8| self.noise >> bit & 1 == 1;
        let mut limits = Limits::new();
        if noise(0) {
            limits = limits.rate(Rate::per_hour(1).shadow());
        }
        if noise(1) {
            limits = limits.quota(Quota::per_week(1 << 40));
        }
        if let Some(pace) = self.tokens.filter(|_| noise(2)) {
            limits = limits.tokens(rate(pace));
        }
        if let Some(pace) = self.rate {
            limits = limits.rate(rate(pace));
        }
        if let Some(pace) = self.tokens.filter(|_| !noise(2)) {
            limits = limits.tokens(rate(pace));
        }
        if let Some(count) = self.quota {
            // A window that ends in 2043.
            limits = limits.quota(Quota::per(count, Duration::from_nanos(1 << 61)));
        }
        if noise(3) {
            limits = limits.in_flight(InFlight::new(9).shadow());
        }
        if let Some(slots) = self.slots {
            limits = limits.in_flight(slots);
        }
        let wait = Duration::from_millis(self.wait.unwrap_or(0));
        limits = limits.max_wait(wait).max_waiting(3);
        match noise(4) {
            true => limits.named(name.to_owned()),
            false => limits,
        }
    }
}

impl Given {
    fn read(choices: &mut Choices<'_>, may_be_exempt: bool) -> Self {
        match choices.next() % 16 {
            13 => Self::Closed,
            14 => Self::Unlimited,
            15 if may_be_exempt => Self::Exempt,
            _ => Self::Limited(Terms::read(choices)),
        }
    }

    fn limits(self, name: &str) -> Limits {
        match self {
            Self::Limited(terms) => terms.limits(name),
            Self::Closed => Limits::closed().max_wait(Duration::ZERO),
            Self::Unlimited => Limits::unlimited(),
            Self::Exempt => Limits::exempt(),
        }
    }

    fn terms(self) -> Terms {
        match self {
            Self::Limited(terms) => terms,
            _ => Terms::default(),
        }
    }

    /// The same with what it leaves out taken from another one.
    fn or(self, base: Self) -> Self {
        let (given, closed) = (self, matches!(base, Self::Closed));
        let base = base.terms();
        match given {
            Self::Limited(own) if closed && !own.enforces() => Self::Closed,
            Self::Limited(own) => Self::Limited(Terms {
                rate: own.rate.or(base.rate),
                tokens: own.tokens.or(base.tokens),
                quota: own.quota.or(base.quota),
                slots: own.slots.or(base.slots),
                ..own
            }),
            other => other,
        }
    }
}

/// All rules, as they are written.
#[derive(Debug, Clone)]
struct Written {
    total: Terms,
    clients: [Terms; 2],
    default: Given,
    keys: [Option<Given>; KEYS.len()],
    shared: bool,
    /// In which order keys are written.
    turn: usize,
}

impl Written {
    fn read(choices: &mut Choices<'_>) -> Self {
        let which = choices.next() & choices.next();
        let options = choices.next();
        let wide = |choices: &mut Choices<'_>, bit: u8| match options >> bit & 3 == 3 {
            true => Terms::read(choices),
            false => Terms::default(),
        };
        Self {
            total: wide(choices, 0),
            clients: [wide(choices, 2), wide(choices, 4)],
            shared: options >> 6 == 3,
            default: Given::read(choices, false),
            keys: std::array::from_fn(|key| {
                let is_there = which >> key & 1 == 1;
                is_there.then(|| Given::read(choices, MAY_BE_EXEMPT.contains(&key)))
            }),
            turn: choices.below(KEYS.len()),
        }
    }

    fn edited(&self, choices: &mut Choices<'_>) -> Self {
        let mut edited = self.clone();
        match choices.next() % 16 {
            0..=9 => {
                let key = choices.below(KEYS.len());
                edited.keys[key] = match choices.next() & 1 {
                    1 => Some(Given::read(choices, MAY_BE_EXEMPT.contains(&key))),
                    _ => None,
                };
            }
            10 => edited.default = Given::read(choices, false),
            11 => edited.total = Terms::read(choices),
            12 => edited.clients[choices.below(2)] = Terms::read(choices),
            13 => edited.shared ^= true,
            _ => edited.turn = choices.below(KEYS.len()),
        }
        edited
    }

    fn rules(&self) -> Rules {
        let [each, pro] = self.clients;
        let clients = Clients::by_header("x-api-key")
            .each(each.limits("client"))
            .plan("pro", pro.or_each(each).limits("member"))
            .member("pro", CLIENTS[1])
            .max_clients(256);
        let mut rules = Rules::new()
            .total(self.total.limits("whole"))
            .default_route(self.default.limits("each"))
            .undeclared(match self.shared {
                true => Undeclared::Shared,
                false => Undeclared::PerRoute,
            })
            .clients(clients)
            .estimate(Estimate::by_header("x-tokens").exact());
        for place in 0..KEYS.len() {
            let key = (place + self.turn) % KEYS.len();
            if let Some(given) = self.keys[key] {
                // With a quota around it, it says all of its limits itself: else it inherits less.
                let given = match given.terms().noise & 0b10 {
                    0 => given,
                    _ => given.or(self.default),
                };
                rules = rules.route(KEYS[key].0, given.limits(&format!("key_{key}")));
            }
        }
        rules
    }

    /// The limits that hold for a kind of requests.
    fn of(&self, kind: usize) -> Given {
        let mut keys = (0..KEYS.len()).filter(|key| KEYS[*key].1[kind]);
        let best = keys.find_map(|key| self.keys[key]);
        match best {
            Some(given) => given.or(self.default),
            None => self.default,
        }
    }

    fn has(&self, name: &str) -> bool {
        let keys = KEYS.iter().zip(&self.keys);
        keys.into_iter()
            .any(|((known, _), given)| *known == name && given.is_some())
    }
}

impl Terms {
    fn enforces(self) -> bool {
        let paces = [self.rate, self.tokens];
        let counts = [self.quota, self.slots];
        paces.iter().any(Option::is_some)
            || counts.iter().any(Option::is_some)
            || self.noise >> 1 & 1 == 1
    }

    fn or_each(self, each: Self) -> Self {
        match Given::Limited(self).or(Given::Limited(each)) {
            Given::Limited(terms) => terms,
            _ => self,
        }
    }
}

// ---- What was used

/// The charges in one scope, and the settings that were in force for it.
#[derive(Default)]
struct Watched {
    rate: Ledger,
    tokens: Ledger,
    /// Units of a quota since it holds, and the largest that it was.
    quota: Option<(u64, u64)>,
    /// The last limits that have held.
    last: Terms,
    /// Changed by each reload that leaves no slots, and no model tokens.
    eras: [u64; 2],
}

/// Charges and what came back, each at its moment; and settings, each since a moment.
#[derive(Default)]
struct Ledger {
    events: Vec<(Instant, i64)>,
    settings: Vec<(Instant, Option<Pace>)>,
}

impl Ledger {
    /// From now on this holds. A limit that is gone is forgotten with all that it has counted.
    fn note(&mut self, pace: Option<Pace>) {
        if pace.is_none() {
            *self = Self::default();
        }
        if self.settings.last().is_none_or(|(_, last)| *last != pace) {
            self.settings.push((now(), pace));
        }
    }

    fn changes(&mut self, units: i64) {
        self.events.push((now(), units));
    }

    /// R1 for each window that ends now, with a charge: what was charged in it, less what came back, is no more than
    /// the largest burst and the fastest rate in force in it allow.
    fn admits(&mut self, units: u64, what: &str) {
        let now = now();
        self.changes(units as i64);
        let mut sum = 0;
        for (start, units) in self.events.iter().rev() {
            sum += units;
            let ends = self.settings.iter().skip(1);
            let ends = ends.map(|(since, _)| *since).chain([now]);
            // Settings that were replaced at this very moment were in force in it.
            let force = self.settings.iter().zip(ends);
            let force = force.filter(|(_, end)| end >= start);
            let force = force.filter_map(|((_, pace), _)| *pace);
            let (interval, burst) = force.fold((u64::MAX, 0), |(interval, burst), pace| {
                (interval.min(pace.0), burst.max(pace.1))
            });
            let window = (now - *start).as_nanos();
            let bound = u128::from(burst) + window.div_ceil(u128::from(interval));
            assert!(
                sum <= i64::try_from(bound).unwrap_or(i64::MAX),
                "R20: {what}: {sum} in {window} ns, bound {bound}; {:?}; {:?}",
                self.settings,
                self.events
            );
        }
    }
}

impl Watched {
    fn note(&mut self, terms: Terms) {
        self.rate.note(terms.rate);
        self.tokens.note(terms.tokens);
        self.eras[0] += u64::from(terms.slots.is_none());
        self.eras[1] += u64::from(terms.tokens.is_none());
        // Limits are known by their names before their windows, and the first quota has the name of its scope: the
        // one by the week, if there is one.
        let is_renamed = (terms.noise & self.last.noise) >> 4 & 1 == 1
            && (terms.noise ^ self.last.noise) >> 1 & 1 == 1
            && terms.quota != self.last.quota;
        self.quota = match (self.quota, terms.quota) {
            (Some((used, most)), Some(count)) if !is_renamed => Some((used, most.max(count))),
            (_, Some(count)) => Some((0, count)),
            (_, None) => None,
        };
        self.last = terms;
    }

    fn admits(&mut self, terms: Terms, tokens: u64, what: &str) {
        if terms.rate.is_some() {
            self.rate.admits(1, &format!("{what}, requests"));
        }
        if terms.tokens.is_some() {
            self.tokens.admits(tokens, &format!("{what}, tokens"));
        }
        if let Some((used, most)) = self.quota.as_mut().filter(|_| terms.quota.is_some()) {
            *used += 1;
            assert!(*used <= *most, "R20: {what}: {used} of a quota of {most}");
        }
    }
}

// ---- Requests

#[derive(Clone)]
struct Inner;

impl Service<Request<()>> for Inner {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mut response = Response::new(Full::new(Bytes::from_static(b"served")));
        if let Some(usage) = request.extensions().get::<Usage>() {
            response.extensions_mut().insert(usage.clone());
        }
        ready(Ok(response))
    }
}

/// A request that waits, its kind, its client and its tokens.
struct Waiting {
    kind: usize,
    client: usize,
    tokens: u64,
    future: Pin<Box<ResponseFuture<Inner, ()>>>,
}

/// An answer that was admitted, and where it holds a slot and is charged with tokens.
struct Held {
    kind: usize,
    client: usize,
    /// In which era of the slots and of the tokens it was admitted.
    slots: [Option<u64>; 3],
    tokens: [Option<u64>; 3],
    charged: u64,
    usage: Option<Usage>,
    _body: ResponseBody<Full<Bytes>>,
}

struct World {
    layer: ThrottleLayer,
    present: Written,
    held: Vec<Held>,
    waiting: Vec<Waiting>,
    total: Watched,
    kinds: [Watched; KINDS.len()],
    clients: [Watched; CLIENTS.len()],
}

const HOUR: Duration = Duration::from_secs(3_600);

impl World {
    fn new(first: Written) -> Self {
        let layer = ThrottleLayer::builder(first.rules())
            .stagger_retry_after(false)
            .decision(DecisionIn::Response)
            .build()
            .expect("rules that hold together");
        let mut world = Self {
            layer,
            present: first,
            held: Vec::new(),
            waiting: Vec::new(),
            total: Watched::default(),
            kinds: Default::default(),
            clients: Default::default(),
        };
        world.note();
        world
    }

    /// The limits of a client, as its plan has them.
    fn client(&self, client: usize) -> Terms {
        let [each, pro] = self.present.clients;
        match client {
            0 => each,
            _ => pro.or_each(each),
        }
    }

    /// Notes the limits that are in force from now on.
    fn note(&mut self) {
        for kind in 0..KINDS.len() {
            let terms = match self.present.of(kind) {
                // Usage of an undeclared route is refilled by the default's rate, whichever key takes its requests.
                Given::Unlimited | Given::Exempt => self.present.default.terms(),
                given => given.terms(),
            };
            self.kinds[kind].note(terms);
        }
        for client in 0..CLIENTS.len() {
            let terms = self.client(client);
            self.clients[client].note(terms);
        }
        self.total.note(self.present.total);
    }

    async fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.next() % 16 {
            0 => self.reload(Written::read(choices)),
            1 | 2 => {
                let edited = self.present.edited(choices);
                self.reload(edited);
            }
            3 | 4 => {
                const NANOS: [u64; 8] = [
                    1,
                    7,
                    1_000_000,
                    90_000_000,
                    650_000_000,
                    5_000_000_000,
                    61_000_000_000,
                    3_600_000_000_000,
                ];
                advance(Duration::from_nanos(choices.of_these(&NANOS))).await;
            }
            5 | 6 if !self.held.is_empty() => {
                let held = choices.below(self.held.len());
                let byte = choices.next();
                self.over(held, (byte & 1 == 1).then_some(u64::from(byte >> 1) % 16));
            }
            7 if !self.waiting.is_empty() => {
                let leaving = choices.below(self.waiting.len());
                self.waiting.swap_remove(leaving);
            }
            _ => {
                let byte = choices.next();
                let kind = usize::from(byte) % KINDS.len();
                let client = usize::from(byte >> 7);
                let more = choices.next();
                for _ in 0..=more & 3 {
                    self.send(kind, client, u64::from(more >> 2) % 9 + 1);
                }
            }
        }
        self.look();
    }

    fn reload(&mut self, written: Written) {
        let changes = self.layer.handle().reload(written.rules());
        changes.expect("rules that hold together");
        self.present = written;
        self.note();
    }

    fn request(kind: usize, client: usize, tokens: u64) -> Request<()> {
        let (method, path) = KINDS[kind];
        Request::builder()
            .method(method)
            .uri(path)
            .header("x-api-key", CLIENTS[client])
            .header("x-tokens", tokens)
            .body(())
            .expect("a request")
    }

    fn send(&mut self, kind: usize, client: usize, tokens: u64) {
        let request = Self::request(kind, client, tokens);
        let future = Box::pin(self.layer.layer(Inner).call(request));
        self.waiting.push(Waiting {
            kind,
            client,
            tokens,
            future,
        });
        self.look();
    }

    /// Polls those who wait, and notes who was admitted.
    fn look(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        // A request that leaves may let another one pass.
        for _ in 0..2 {
            let mut index = 0;
            while index < self.waiting.len() {
                let Poll::Ready(Ok(answer)) = self.waiting[index].future.as_mut().poll(cx) else {
                    index += 1;
                    continue;
                };
                let done = self.waiting.remove(index);
                let decision: &Decision = answer.extensions().get().expect("a decision");
                if decision.is_admitted() {
                    self.admitted(&done, answer);
                }
            }
        }
    }

    fn admitted(&mut self, done: &Waiting, mut answer: Response<ResponseBody<Full<Bytes>>>) {
        let Waiting {
            kind,
            client,
            tokens,
            ..
        } = *done;
        let (method, path) = KINDS[kind];
        let name = format!("{method} {path}");
        let given = self.present.of(kind);
        assert!(!matches!(given, Given::Closed), "{name} is closed");
        let is_exempt = matches!(given, Given::Exempt);
        let elsewhere = |terms: Terms| match is_exempt {
            true => Terms::default(),
            false => terms,
        };
        let [total, of_client] = [self.present.total, self.client(client)].map(elsewhere);
        let scopes = [given.terms(), of_client, total];
        let usage = answer.extensions_mut().remove::<Usage>();
        let eras = [
            self.kinds[kind].eras,
            self.clients[client].eras,
            self.total.eras,
        ];
        let of = |is_there: fn(&Terms) -> bool, which: usize| {
            let pairs = [0, 1, 2].map(|scope: usize| (scopes[scope], eras[scope][which]));
            pairs.map(|(terms, era)| is_there(&terms).then_some(era))
        };
        self.held.push(Held {
            kind,
            client,
            slots: of(|terms| terms.slots.is_some(), 0),
            tokens: of(|terms| terms.tokens.is_some(), 1),
            charged: tokens,
            usage,
            _body: answer.into_body(),
        });
        self.kinds[kind].admits(given.terms(), tokens, &name);
        // `HEAD` has the limits of `GET`, while it has no key of its own.
        if method == "HEAD" && !self.present.has(&name) {
            self.kinds[kind - 1].admits(given.terms(), tokens, &format!("{name} as GET"));
        }
        self.clients[client].admits(of_client, tokens, CLIENTS[client]);
        self.total.admits(total, tokens, "the total");
        let flying = |scope: usize, is_same: &dyn Fn(&Held) -> bool| {
            let held = self.held.iter();
            held.filter(|held| held.slots[scope] == Some(eras[scope][0]) && is_same(held))
                .count() as u64
        };
        let flying = [
            flying(0, &|held| held.kind == kind),
            flying(1, &|held| held.client == client),
            flying(2, &|_| true),
        ];
        for ((flying, terms), what) in flying
            .into_iter()
            .zip(scopes)
            .zip(["route", "client", "total"])
        {
            let most = terms.slots.unwrap_or(u64::MAX);
            assert!(flying <= most, "R15: {name}, {what}: {flying} of {most}");
        }
    }

    /// An answer is over, and may be settled before.
    fn over(&mut self, index: usize, total: Option<u64>) {
        let held = self.held.swap_remove(index);
        let (Some(usage), Some(total)) = (&held.usage, total) else {
            return;
        };
        assert!(usage.settle(total), "settled once");
        let change = total as i64 - held.charged as i64;
        let [of_kind, of_client, of_total] = held.tokens;
        let settles = |watched: &mut Watched, era: Option<u64>, change: i64| {
            if era == Some(watched.eras[1]) {
                watched.tokens.changes(change);
            }
        };
        settles(&mut self.kinds[held.kind], of_kind, change);
        // Units that come back to a key come back to all of its requests, whichever had them.
        for kind in (0..KINDS.len()).filter(|kind| *kind != held.kind && change < 0) {
            let other = &mut self.kinds[kind];
            let era = Some(other.eras[1]);
            settles(other, era, change);
        }
        settles(&mut self.clients[held.client], of_client, change);
        settles(&mut self.total, of_total, change);
    }

    async fn end(&mut self) {
        self.waiting.clear();
        self.held.clear();
        // Debts are paid by then, but what is closed stays so.
        for _ in 0..4 {
            advance(24 * HOUR).await;
        }
        let present = self.present.clone();
        for (kind, (method, path)) in KINDS.into_iter().enumerate() {
            let given = present.of(kind);
            if matches!(given, Given::Exempt | Given::Closed | Given::Unlimited) {
                continue;
            }
            let scopes = [given.terms(), self.client(0), present.total];
            if scopes.iter().any(|terms| terms.quota.is_some()) {
                continue;
            }
            let least = |part: fn(&Terms) -> Option<u64>| scopes.iter().filter_map(part).min();
            let requests = least(|terms| terms.rate.map(|(_, burst)| burst));
            let tokens = least(|terms| terms.tokens.map(|(_, burst)| burst));
            let slots = least(|terms| terms.slots);
            let expected = [requests, tokens, slots].into_iter().flatten().min();
            let expected = expected.unwrap_or(20).min(20);
            let mut kept = Vec::new();
            let cx = &mut Context::from_waker(Waker::noop());
            while kept.len() < 21 {
                let request = Self::request(kind, 0, 1);
                let mut future = Box::pin(self.layer.layer(Inner).call(request));
                let Poll::Ready(Ok(answer)) = future.as_mut().poll(cx) else {
                    break;
                };
                let decision: &Decision = answer.extensions().get().expect("a decision");
                if !decision.is_admitted() {
                    break;
                }
                kept.push(answer);
            }
            let passed = (kept.len() as u64).min(20);
            assert_eq!(
                passed, expected,
                "{method} {path}: what is there at the end"
            );
            drop(kept);
            for _ in 0..4 {
                advance(24 * HOUR).await;
            }
        }
        let snapshot = self.layer.handle().snapshot();
        for limit in &snapshot.limits {
            assert_eq!(limit.in_flight.unwrap_or(0), 0, "R15: {limit:?}");
            assert_eq!(limit.waiting, 0, "R16: {limit:?}");
        }
    }
}
