//! R1 across processes: four of them hammer one bucket in Redis for ten seconds, with clocks that are minutes apart,
//! once with a call for each request, and once with leases.
//!
//! The test runs itself: with arguments it is one of the four.

#[path = "support/redis.rs"]
mod servers;
#[path = "support/windows.rs"]
mod windows;

use std::{
    convert::Infallible,
    env,
    fmt::Write,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use redis::aio::MultiplexedConnection;
use servers::{KINDS, Kind, Server};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Rate, Rules, ThrottleLayer,
    store::{Charge, Correction, OnOutage, RedisStore, Store, StoreFuture, Taken},
};
use windows::{Between, too_many};

const RATE: u64 = 500;
/// The burst of two seconds: a machine that does other things for so long leaves nothing of the rate unused.
const BURST: u64 = 1_000;
const SECONDS: u64 = 10;
const INTERVAL: u64 = 1_000_000_000 / RATE;

/// Numbers of units that a process takes beforehand.
const LEASES: [u64; 2] = [1, 50];

/// A store that counts its calls, and notes when each charge was taken, by the server's clock.
#[derive(Debug)]
struct Notes {
    store: RedisStore,
    calls: Arc<AtomicU64>,
    taken: Arc<Mutex<Vec<u64>>>,
}

impl Store for Notes {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let taken = self.store.take(charges).await?;
            if taken.is_admitted && !charges.is_empty() {
                self.taken.lock().expect("no panic").push(taken.now);
            }
            Ok(taken)
        })
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.store.correct(corrections)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "of a real server, whose time is real"
)]
fn now() -> Instant {
    Instant::now()
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).expect("seconds")
}

/// The nanoseconds by which the server's clock is ahead of this process's: at least, and at most.
#[derive(Debug, Clone, Copy)]
struct Ahead(u64, u64);

impl Ahead {
    /// Returns what is told by the fastest of twenty answers: each was made up while it was waited for.
    async fn told(connection: &mut MultiplexedConnection, start: Instant) -> Self {
        let mut best = Self(0, u64::MAX);
        for _ in 0..20 {
            let asked = since(start);
            let time = redis::cmd("TIME").query_async(connection).await;
            let (seconds, micros): (u64, u64) = time.expect("it answers");
            let answered = since(start);
            // The time is truncated to microseconds.
            let told = 1_000 * (1_000_000 * seconds + micros);
            let ahead = Self(told - answered, told + 999 - asked);
            if ahead.1 - ahead.0 < best.1 - best.0 {
                best = ahead;
            }
        }
        best
    }

    /// Either, for clocks may drift.
    fn or(self, other: Self) -> Self {
        Self(self.0.min(other.0), self.1.max(other.1))
    }

    fn of(self, (from, to): Between) -> Between {
        (from + self.0, to + self.1)
    }
}

/// One of the four: asks as often as it can, and tells when it was let through.
#[tokio::main(flavor = "current_thread")]
async fn replica(url: &str, lease: u64) {
    let (calls, taken) = (Arc::default(), Arc::default());
    let store = Notes {
        store: RedisStore::connect(url).await.expect("a server"),
        calls: Arc::clone(&calls),
        taken: Arc::clone(&taken),
    };
    let rules = Rules::new().total(Rate::per_second(RATE).burst(BURST));
    let layer = ThrottleLayer::builder(rules)
        .lease(lease)
        .store_deadline(Duration::from_secs(5))
        .on_outage(OnOutage::Refuse)
        .store(store)
        .build()
        .expect("proper rules");
    let mut connection = servers::connect(url).await.expect("it runs");
    let start = now();
    let ahead = Ahead::told(&mut connection, start).await;
    let end = now() + Duration::from_secs(SECONDS);
    let tasks = (0..8).map(|_| {
        let layer = layer.clone();
        tokio::spawn(async move {
            let serve = service_fn(|_: Request<()>| async {
                Ok::<_, Infallible>(Response::new(String::new()))
            });
            let service = layer.layer(serve);
            let (mut admitted, mut refused) = (Vec::new(), 0_u64);
            while now() < end {
                let asked = since(start);
                let answer = service.clone().oneshot(Request::new(())).await;
                let status = answer.unwrap_or_else(|never| match never {}).status();
                assert_ne!(status, 503, "the server answers");
                if status == 200 {
                    admitted.push((asked, since(start)));
                } else {
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            (admitted, refused)
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let (mut admitted, mut refused) = (Vec::new(), 0);
    for task in tasks {
        let (own, others) = task.await.expect("no panic");
        admitted.extend(own);
        refused += others;
    }
    let calls = calls.load(Ordering::Relaxed);
    let ahead = ahead.or(Ahead::told(&mut connection, start).await);
    let mut told = format!("{calls} {refused} {}\n", ahead.1 - ahead.0);
    if lease > 1 {
        // Nobody but this process knows when.
        for between in admitted {
            let (from, to) = ahead.of(between);
            writeln!(told, "{from} {to}").expect("a text");
        }
    } else {
        let taken = taken.lock().expect("no panic");
        assert_eq!(taken.len(), admitted.len(), "each was let through once");
        for moment in &*taken {
            writeln!(told, "{moment} {moment}").expect("a text");
        }
    }
    print!("{told}");
}

/// The reports of the replicas, put together.
#[derive(Default)]
struct Heard {
    admitted: Vec<Between>,
    calls: u64,
    refused: u64,
    /// The nanoseconds by which moments may be wrong.
    unsure: u64,
}

impl Heard {
    fn add(&mut self, told: &str) {
        let mut lines = told.lines().map(|line| {
            let numbers = line.split(' ').map(|word| word.parse().expect("a number"));
            numbers.collect::<Vec<u64>>()
        });
        let [calls, refused, unsure] = lines.next().expect("a line")[..] else {
            panic!("three numbers");
        };
        self.calls += calls;
        self.refused += refused;
        self.unsure = self.unsure.max(unsure);
        let before = self.admitted.len();
        self.admitted.extend(lines.map(|line| (line[0], line[1])));
        assert!(self.admitted.len() > before, "each gets some");
    }
}

fn hammer(kind: Kind, server: &Server, lease: u64) {
    let own = env::current_exe().expect("this program");
    let replicas = ["+0s", "+180s", "-420s", "+3600s"].map(|clock| {
        let replica = Command::new("faketime")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .args(["-f", clock])
            .arg(&own)
            .args(["replica", &server.url(), &lease.to_string()])
            .stdout(Stdio::piped())
            .spawn();
        replica.unwrap_or_else(|error| panic!("faketime: {error}; the test command installs it"))
    });
    let mut heard = Heard::default();
    for replica in replicas {
        let output = replica.wait_with_output().expect("it ends");
        assert!(output.status.success(), "a replica has failed");
        heard.add(&String::from_utf8(output.stdout).expect("numbers"));
    }
    let Heard {
        admitted,
        calls,
        refused,
        unsure,
    } = heard;
    let first = admitted.iter().map(|between| between.0).min();
    let last = admitted.iter().map(|between| between.1).max();
    let lasted = last.expect("some") - first.expect("some");
    let may = BURST + lasted / INTERVAL;
    let share = admitted.len() as u64 * 1_000 / may;
    let decisions = admitted.len() as u64 + refused;
    println!(
        "{kind:?}, {lease} at once: {} of {may} admitted in {} ms, {calls} calls for {decisions} decisions, moments to {} µs",
        admitted.len(),
        lasted / 1_000_000,
        unsure / 1_000,
    );
    let window = too_many(&admitted, BURST, INTERVAL);
    assert_eq!(
        window, None,
        "{kind:?}, {lease} at once: too many from here to there"
    );
    assert!(
        lasted > 9_000_000_000,
        "ten seconds, as far as the machine lets them"
    );
    assert!(
        share >= 990,
        "{kind:?}, {lease} at once: {share} in a thousand of what the bucket gives"
    );
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, role, url, lease] = &arguments[..] {
        if role == "replica" {
            return replica(url, lease.parse().expect("a number"));
        }
    }
    windows::proved();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for kind in KINDS {
        for lease in LEASES {
            let server = runtime.block_on(Server::start(kind));
            hammer(kind, &server, lease);
        }
    }
}
