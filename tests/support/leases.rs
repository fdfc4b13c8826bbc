//! Leases between reloads: bytes determine the requests of replicas, the changes of their rules, and delays of the
//! store.
//!
//! - *The bound of the weakest settings* (R1, R20, R21). In each window that ends with an admission, all replicas
//!   together admit no more than the largest burst and the fastest rate allow that were in force in it, a lease or not;
//!   and of a quota no more than the largest.
//! - *Units are conserved* (R25). For each bucket, no more units come back and are admitted than were taken.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep},
};
use tower::{Layer, Service};
use tower_throttle::{
    Decision, Limits, Quota, Rate, Rules, ThrottleLayer,
    decision::DecisionIn,
    future::ResponseFuture,
    limit::Scope,
    store::{Charge, Correction, MemoryStore, OnOutage, Store, StoreFuture, Taken},
};

use super::choices::{self, Choices, now};

/// More steps would only make each run slower.
const MAX_STEPS: usize = 64;

/// The most milliseconds after which a charge is answered.
const SLOWEST: u64 = 5;

/// The most admissions in a window that is looked at: more than twice the largest burst.
const LONGEST: usize = 300;

const PATHS: [&str; 2] = ["/a", "/b"];

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

// ---- The store

/// A store in memory that is slow, and keeps books.
#[derive(Clone)]
struct Booked {
    store: MemoryStore,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    /// Milliseconds before and after the work of a call.
    slow: (u64, u64),
    taken: HashMap<String, u64>,
    back: HashMap<String, u64>,
}

impl Booked {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pause(millis: u64) {
        if millis > 0 {
            sleep(Duration::from_millis(millis)).await;
        }
    }
}

impl fmt::Debug for Booked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Booked")
    }
}

impl Store for Booked {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        let (before, after) = self.book().slow;
        Box::pin(async move {
            Self::pause(before).await;
            let taken = self.store.take(charges).await?;
            if taken.is_admitted {
                let mut book = self.book();
                for (charge, balance) in charges.iter().zip(&taken.balances) {
                    let units = charge.cost + balance.leased;
                    *book.taken.entry(charge.key.to_string()).or_default() += units;
                }
            }
            Self::pause(after).await;
            Ok(taken)
        })
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        let mut book = self.book();
        for correction in corrections {
            let (key, _, units) = correction.parts();
            *book.back.entry(key.to_string()).or_default() += units;
        }
        drop(book);
        self.store.correct(corrections)
    }
}

// ---- Rules

/// The number in a second, and the burst.
type Pace = (u64, u64);

/// A replica.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Written {
    total: Option<Pace>,
    route: Option<Pace>,
    quota: Option<u64>,
}

impl Written {
    fn read(choices: &mut Choices<'_>) -> Self {
        const RATES: [u64; 5] = [10, 100, 1_000, 37, 400];
        const BURSTS: [u64; 6] = [4, 8, 44, 100, 120, 1];
        const QUOTAS: [u64; 4] = [5, 40, 100, 300];
        let kinds = choices.next();
        let mut pace = || (choices.of_these(&RATES), choices.of_these(&BURSTS));
        let (total, route) = (pace(), pace());
        Self {
            total: (kinds & 3 != 3).then_some(total),
            route: (kinds >> 2 & 3 == 3).then_some(route),
            quota: (kinds >> 4 & 3 == 3).then(|| choices.of_these(&QUOTAS)),
        }
    }

    fn rules(&self) -> Rules {
        let rate = |(count, burst): Pace| Rate::per_second(count).burst(burst);
        let mut limits = Limits::new();
        if let Some(pace) = self.route {
            limits = limits.rate(rate(pace));
        }
        let mut total = Limits::new();
        if let Some(pace) = self.total {
            total = total.rate(rate(pace));
        }
        if let Some(count) = self.quota {
            // A window that ends in 2043.
            total = total.quota(Quota::per(count, Duration::from_nanos(1 << 61)));
        }
        let limits = match self.route {
            Some(_) => limits,
            None => Limits::unlimited(),
        };
        Rules::new()
            .total(total)
            .route("POST /a", limits.clone())
            .route("POST /b", limits)
    }
}

// ---- What was admitted

/// The requests that were admitted in one scope, and the settings that were in force for it.
#[derive(Default)]
struct Watched {
    /// Each with the setting that has decided it: a question may be answered by rules that are gone.
    admitted: Vec<(Instant, Pace)>,
    settings: Vec<(Instant, Option<Pace>)>,
}

impl Watched {
    /// R1 for each window that ends now.
    fn admits(&mut self, by: Pace, what: &str) {
        let now = now();
        self.admitted.push((now, by));
        let until = |place: usize| {
            let later = self.settings.get(place + 1);
            later.map_or(now, |(since, _)| *since)
        };
        // The fastest rate and the largest burst, of those that are looked at so far.
        let mut largest = (0, 0);
        let mut widen = |pace: Pace| {
            largest = (pace.0.max(largest.0), pace.1.max(largest.1));
            largest
        };
        let mut settings = self.settings.len();
        // Longer windows would show no more, and take longer.
        let windows = self.admitted.iter().rev().take(LONGEST);
        for (count, (start, by)) in (1_u128..).zip(windows) {
            // A unit may have been taken as much earlier as its answer was late.
            let begin = *start - Duration::from_millis(SLOWEST);
            let (mut fastest, mut burst) = widen(*by);
            while settings > 0 && until(settings - 1) >= begin {
                settings -= 1;
                if let Some(pace) = self.settings[settings].1 {
                    (fastest, burst) = widen(pace);
                }
            }
            let window = (now - begin).as_nanos();
            let bound = u128::from(burst) + (window * u128::from(fastest)).div_ceil(1_000_000_000);
            assert!(
                count <= bound,
                "R20: {what}: {count} in {window} ns, bound {bound}: {:?}",
                self.settings
            );
        }
    }
}

// ---- Requests

#[derive(Clone)]
struct Inner;

impl Service<Request<()>> for Inner {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Empty<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Empty::new())))
    }
}

struct Asked {
    path: usize,
    future: Pin<Box<ResponseFuture<Inner, ()>>>,
}

struct World {
    store: Booked,
    lease: u64,
    replicas: Vec<(ThrottleLayer, Written)>,
    /// The rules before the last ones.
    before: Written,
    asked: Vec<Asked>,
    total: Watched,
    routes: [Watched; PATHS.len()],
    /// Units of the quota, and the largest that it was. Known while all replicas have one.
    quota: (u64, u64),
    admitted: HashMap<&'static str, u64>,
    /// Layers that were left with what they had leased.
    crashed: Vec<ThrottleLayer>,
}

impl World {
    fn new(choices: &mut Choices<'_>) -> Self {
        const LEASES: [u64; 4] = [12, 8, 50, u64::MAX];
        let store = Booked {
            store: MemoryStore::with_capacity(256).expect("little memory"),
            book: Arc::default(),
        };
        let written = Written::read(choices);
        let lease = choices.of_these(&LEASES);
        let count = choices.below(3) + 1;
        let mut world = Self {
            store,
            lease,
            replicas: Vec::new(),
            before: written,
            asked: Vec::new(),
            total: Watched::default(),
            routes: Default::default(),
            quota: (0, 0),
            admitted: HashMap::new(),
            crashed: Vec::new(),
        };
        for _ in 0..count {
            let layer = world.layer(&written);
            world.replicas.push((layer, written));
        }
        world.note();
        world
    }

    fn layer(&self, written: &Written) -> ThrottleLayer {
        ThrottleLayer::builder(written.rules())
            .decision(DecisionIn::Response)
            .stagger_retry_after(false)
            .lease(self.lease)
            .on_outage(OnOutage::Refuse)
            .store_deadline(Duration::from_secs(5))
            .store(self.store.clone())
            .build()
            .expect("rules that hold together")
    }

    /// Notes what holds from now on.
    fn note(&mut self) {
        let written = self.replicas[0].1;
        self.total.settings.push((now(), written.total));
        for route in &mut self.routes {
            route.settings.push((now(), written.route));
        }
        self.quota.1 = self.quota.1.max(written.quota.unwrap_or(0));
    }

    async fn step(&mut self, choices: &mut Choices<'_>) {
        let replica = choices.below(self.replicas.len());
        match choices.next() % 16 {
            0 | 1 => {
                let written = Written::read(choices);
                self.reload(written);
            }
            // Back to what was there before.
            2 => self.reload(self.before),
            3..=6 => {
                const MILLIS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 250, 1_000, 2_500];
                let millis = choices.of_these(&MILLIS);
                // The task that returns leases runs each second.
                let mut left = millis;
                for _ in 0..SLOWEST.min(millis) {
                    if self.asked.is_empty() {
                        break;
                    }
                    advance(Duration::from_millis(1)).await;
                    self.look().await;
                    left -= 1;
                }
                if left > 0 {
                    // A request without an answer by now has asked for too long.
                    self.asked.clear();
                }
                while left > 0 {
                    let step = left.min(500);
                    advance(Duration::from_millis(step)).await;
                    self.look().await;
                    left -= step;
                }
            }
            7 => {
                let (before, after) = (choices.next() % 3, choices.next() % 3);
                let slow = (u64::from(before), u64::from(after));
                self.store.book().slow = slow;
            }
            8 => {
                let handle = self.replicas[replica].0.handle();
                let mut returns = Box::pin(handle.return_leases());
                let cx = &mut Context::from_waker(Waker::noop());
                let _ = returns.as_mut().poll(cx);
                yield_now().await;
            }
            9 if !self.asked.is_empty() => {
                let leaving = choices.below(self.asked.len());
                self.asked.swap_remove(leaving);
            }
            10 if self.crashed.len() < 4 => {
                let written = self.replicas[replica].1;
                let layer = self.layer(&written);
                let crashed = std::mem::replace(&mut self.replicas[replica].0, layer);
                self.crashed.push(crashed);
            }
            _ => {
                let byte = choices.next();
                let path = usize::from(byte & 1);
                let count = [1, 2, 3, 10, 25, 60][usize::from(byte >> 1) % 6];
                for _ in 0..count {
                    self.send(replica, path);
                }
            }
        }
        self.look().await;
    }

    /// All replicas have the same rules, or nobody knows by which of them a bucket is refilled.
    fn reload(&mut self, written: Written) {
        self.before = self.replicas[0].1;
        for (layer, present) in &mut self.replicas {
            let changes = layer.handle().reload(written.rules());
            changes.expect("rules that hold together");
            *present = written;
        }
        self.note();
    }

    fn send(&mut self, replica: usize, path: usize) {
        let request = Request::post(PATHS[path]).body(()).expect("a request");
        let layer = &self.replicas[replica].0;
        let future = Box::pin(layer.layer(Inner).call(request));
        self.asked.push(Asked { path, future });
        self.poll();
    }

    async fn look(&mut self) {
        for _ in 0..4 {
            yield_now().await;
            self.poll();
        }
    }

    /// Polls those who wait, and notes who was admitted.
    fn poll(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut index = 0;
        while index < self.asked.len() {
            let Poll::Ready(Ok(answer)) = self.asked[index].future.as_mut().poll(cx) else {
                index += 1;
                continue;
            };
            let done = self.asked.remove(index);
            let decision: &Decision = answer.extensions().get().expect("a decision");
            if decision.is_admitted() {
                self.admits(&done, decision);
            }
        }
    }

    fn admits(&mut self, done: &Asked, decision: &Decision) {
        for limit in decision.limits() {
            let Some(rate) = limit.rate() else {
                let (used, most) = &mut self.quota;
                *used += 1;
                assert!(used <= most, "R20: {used} of a quota of {most}");
                continue;
            };
            let by = (rate.count(), limit.burst());
            let key = match limit.scope() {
                Scope::Total => {
                    self.total.admits(by, "the total");
                    "total/rate-1s"
                }
                _ => {
                    self.routes[done.path].admits(by, PATHS[done.path]);
                    ["route POST /a/rate-1s", "route POST /b/rate-1s"][done.path]
                }
            };
            *self.admitted.entry(key).or_default() += 1;
        }
        self.conserved();
    }

    fn conserved(&self) {
        let book = self.store.book();
        for (key, admitted) in &self.admitted {
            let taken = book.taken.get(*key).copied().unwrap_or(0);
            let back = book.back.get(*key).copied().unwrap_or(0);
            assert!(
                admitted + back <= taken,
                "R25: {key}: {admitted} admitted, {back} came back of {taken}"
            );
        }
    }

    async fn end(&mut self) {
        self.store.book().slow = (0, 0);
        self.look().await;
        self.asked.clear();
        for (layer, _) in &self.replicas {
            layer.handle().return_leases().await;
        }
        self.look().await;
        self.conserved();
    }
}
