//! A limit that replicas share in Redis: the cost of a decision, compared with the minimal cost of the server and the
//! connection, and with two peers over the same server. Prints a Markdown table.
//!
//! - throttled is not a layer. Calls share one bucket, by a script of one key.
//! - barnacle-rs is a layer like this crate's. For a request it takes a connection from a pool (of twice as many as
//!   there are processors), which first checks with the server that the connection is alive, and then calls one script
//!   for all counters of the request: two round trips, one after the other. Its counters are of fixed windows, and all
//!   of them are the client's, since a request has one key. It boxes the request's body, and writes `x-ratelimit-*`
//!   fields.
//! - This crate makes one call for all buckets, on one connection, and requests that arrive meanwhile share the next
//!   call.
//!
//! Each round measures every row, one after the other; the figures are medians of the rounds.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    net::TcpListener,
    num::NonZeroU32,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Body;
use barnacle_rs::{
    BarnacleKey, BarnacleLayer, Identity, Limit, RateLimitScope, RedisBarnacleStore,
};
use http::{Request, Response, StatusCode, request::Parts};
use redis::aio::MultiplexedConnection;
use throttled::RateLimiter;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_throttle::{
    Clients, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder,
    store::{Charge, Correction, OnOutage, RedisStore, Store, StoreError, StoreFuture, Taken},
};

const ROUNDS: usize = 5;
const ALONE: usize = 2_000;
const TOGETHER: usize = 64;
const EACH: usize = 400;

/// Rows.
const NAMES: [&str; 11] = [
    "INCR",
    "a script on one key",
    "strict, three buckets",
    "throttled, one bucket",
    "throttled, three calls for three",
    "barnacle-rs, one window",
    "barnacle-rs, three windows",
    "in memory",
    "while the store is down",
    "refused, known to be empty",
    "leases of 50, three buckets",
];
const INCR: usize = 0;
const SCRIPT: usize = 1;
const STRICT: usize = 2;
const THROTTLED: usize = 3;
const THROTTLED_THREE: usize = 4;
const BARNACLE: usize = 5;
const BARNACLE_THREE: usize = 6;
const MEMORY: usize = 7;
const DOWN: usize = 8;
const REFUSED: usize = 9;
const LEASED: usize = 10;

type Service = BoxCloneSyncService<Request<()>, Response<()>, Infallible>;

struct Server(Child, u16, Instant);

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.expect("a port").port();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .spawn();
        let child = child.expect("redis-server is installed");
        Self(child, port, Instant::now())
    }

    /// Tells whether the server may still be starting: less than ten seconds have passed since its start.
    fn is_starting(&self) -> bool {
        self.2.elapsed() < Duration::from_secs(10)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A store whose calls are counted.
struct Counted(RedisStore, Arc<AtomicU64>);

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl Store for Counted {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.take(charges)
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.correct(corrections)
    }
}

/// A store that is never there.
#[derive(Debug)]
struct Down;

impl Store for Down {
    fn take<'a>(&'a self, _: &'a [Charge]) -> StoreFuture<'a, Taken> {
        Box::pin(async { Err(StoreError::unavailable("down")) })
    }

    fn correct<'a>(&'a self, _: &'a [Correction]) -> StoreFuture<'a, ()> {
        Box::pin(async { Err(StoreError::unavailable("down")) })
    }
}

fn serve(builder: ThrottleLayerBuilder) -> Service {
    let layer = builder.build().expect("rules that hold together");
    let serve = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    let service = layer.layer(serve);
    BoxCloneSyncService::new(tower::ServiceExt::map_response(
        service,
        |response: Response<_>| response.map(|_| ()),
    ))
}

/// A client's windows in barnacle-rs, by their names.
fn barnacle(url: &str, windows: &[&'static str]) -> Service {
    let limit = |name: &&'static str| {
        let scope = RateLimitScope::Named((*name).into());
        Limit::new(1 << 30, Duration::from_secs(3_600)).with_scope(scope)
    };
    let key = |parts: &Parts, (): &()| {
        let key = parts.headers.get("x-api-key")?.to_str().ok()?;
        Some(Identity::new(BarnacleKey::Custom(key.to_owned())))
    };
    let layer: BarnacleLayer<RedisBarnacleStore> = BarnacleLayer::builder()
        .with_store(RedisBarnacleStore::from_url(url).expect("a url"))
        .with_limits(windows.iter().map(limit))
        .with_identifier(key)
        .build()
        .expect("limits that hold together");
    let serve =
        service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let service = layer
        .layer(serve)
        .map_request(|request: Request<()>| request.map(|()| Body::empty()))
        .map_response(|response: Response<_>| response.map(|_| ()));
    BoxCloneSyncService::new(service)
}

/// Three buckets: a client's, a route's and the total.
fn rules(burst: u64) -> Rules {
    let rate = || Rate::per_second(1_000).burst(burst);
    let clients = Clients::by_header("x-api-key").each(rate()).secret([7; 32]);
    Rules::new()
        .total(rate())
        .default_route(rate())
        .clients(clients)
}

fn request(key: usize) -> Request<()> {
    let request = Request::get("/")
        .header("x-api-key", format!("client-{key}"))
        .body(());
    request.expect("a request")
}

async fn decide(service: &Service, key: usize) -> StatusCode {
    let answer = service.clone().oneshot(request(key)).await;
    answer.unwrap_or_else(|never| match never {}).status()
}

/// The median of one after the other, in microseconds.
async fn alone<F: Future<Output = ()>>(work: impl Fn(usize) -> F) -> f64 {
    let mut took = Vec::with_capacity(ALONE);
    for turn in 0..ALONE {
        let start = Instant::now();
        work(turn).await;
        took.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

/// Returns the calls a second, 64 at a time.
async fn together<F>(work: impl Fn(usize) -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    let start = Instant::now();
    let tasks: Vec<_> = (0..TOGETHER)
        .map(|task| {
            let work = work.clone();
            tokio::spawn(async move {
                for turn in 0..EACH {
                    work(task * EACH + turn).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    (TOGETHER * EACH) as f64 / start.elapsed().as_secs_f64()
}

#[derive(Default)]
struct Row {
    alone: Vec<f64>,
    together: Vec<f64>,
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn increment(connection: &MultiplexedConnection, key: &'static str) {
    let mut connection = connection.clone();
    let _: u64 = redis::cmd("INCR")
        .arg(key)
        .query_async(&mut connection)
        .await
        .expect("it runs");
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let server = Server::start();
    let client = redis::Client::open(server.url()).expect("a url");
    let connection = loop {
        match client.get_multiplexed_async_connection().await {
            Ok(connection) => break connection,
            Err(error) if server.is_starting() => drop(error),
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    };
    let one = Arc::new(redis::Script::new(
        "local n = tonumber(redis.call('GET', KEYS[1]) or 0) + 1 redis.call('SET', KEYS[1], n, 'PX', 60000) return n",
    ));
    let calls = Arc::new(AtomicU64::new(0));
    let store = RedisStore::connect(&server.url()).await.expect("it runs");
    let builder =
        |rules: Rules| ThrottleLayer::builder(rules).store_deadline(Duration::from_secs(5));
    let strict = builder(rules(1 << 30)).store(Counted(store.clone(), Arc::clone(&calls)));
    let strict = serve(strict);
    let leased = {
        let store = RedisStore::server(&server.url()).expect("a url");
        let store = store.name("leased").connect().await.expect("it runs");
        builder(rules(1 << 30))
            .lease(50)
            .store(Counted(store, Arc::clone(&calls)))
    };
    let leased = serve(leased);
    let memory = serve(ThrottleLayer::builder(rules(1 << 30)));
    let down = serve(
        builder(rules(1 << 30))
            .on_outage(OnOutage::Local { share: 1 })
            .store(Down),
    );
    let empty = Rules::new().total(Rate::per_hour(1));
    let refused = builder(empty).store(Counted(store, Arc::clone(&calls)));
    let refused = serve(refused);
    let peer = {
        let manager = redis::aio::ConnectionManager::new(client)
            .await
            .expect("it runs");
        Arc::new(throttled::RedisRateLimiter::new(manager))
    };

    let one_window = barnacle(&server.url(), &["first"]);
    let three_windows = barnacle(&server.url(), &["first", "second", "third"]);
    for service in [&one_window, &three_windows] {
        assert_eq!(decide(service, 0).await, StatusCode::OK);
    }

    let mut rows: Vec<Row> = NAMES.iter().map(|_| Row::default()).collect();
    decide(&down, 0).await;
    decide(&refused, 0).await;
    let mut asked = (0, 0, 0, 0);
    for _ in 0..ROUNDS {
        let floor = |_| increment(&connection, "floor");
        rows[INCR].alone.push(alone(floor).await);
        let shared = connection.clone();
        rows[INCR].together.push(
            together(move |_| {
                let shared = shared.clone();
                async move { increment(&shared, "floor").await }
            })
            .await,
        );

        let script = |connection: MultiplexedConnection, script: Arc<redis::Script>| async move {
            let mut connection = connection;
            let _: u64 = script
                .key("one")
                .invoke_async(&mut connection)
                .await
                .expect("it runs");
        };
        rows[SCRIPT]
            .alone
            .push(alone(|_| script(connection.clone(), Arc::clone(&one))).await);
        let (shared, code) = (connection.clone(), Arc::clone(&one));
        rows[SCRIPT]
            .together
            .push(together(move |_| script(shared.clone(), Arc::clone(&code))).await);

        let services = [
            (STRICT, &strict),
            (BARNACLE, &one_window),
            (BARNACLE_THREE, &three_windows),
            (MEMORY, &memory),
            (DOWN, &down),
            (REFUSED, &refused),
            (LEASED, &leased),
        ];
        for (index, service) in services {
            calls.store(0, Ordering::Relaxed);
            rows[index].alone.push(
                alone(|key| async move {
                    decide(service, key % 100).await;
                })
                .await,
            );
            let service = service.clone();
            rows[index].together.push(
                together(move |key| {
                    let service = service.clone();
                    async move {
                        decide(&service, key % 100).await;
                    }
                })
                .await,
            );
            let calls = calls.load(Ordering::Relaxed);
            match index {
                STRICT => asked.0 += calls,
                REFUSED => asked.1 += calls,
                LEASED => asked.3 += calls,
                _ => {}
            }
            asked.2 += (ALONE + TOGETHER * EACH) as u64 * u64::from(index == STRICT);
        }

        for (index, keys) in [(THROTTLED, 1), (THROTTLED_THREE, 3)] {
            let check = move |peer: Arc<throttled::RedisRateLimiter>, key: usize| async move {
                let quota =
                    throttled::Quota::per_second(NonZeroU32::new(1_000_000).expect("not zero"));
                for bucket in 0..keys {
                    let name = match bucket {
                        0 => format!("client-{}", key % 100),
                        other => format!("bucket-{other}"),
                    };
                    peer.check(&name, quota).await.expect("it runs");
                }
            };
            rows[index]
                .alone
                .push(alone(|key| check(Arc::clone(&peer), key)).await);
            let peer = Arc::clone(&peer);
            rows[index]
                .together
                .push(together(move |key| check(Arc::clone(&peer), key)).await);
        }
    }

    let mut told: Vec<_> = rows
        .iter_mut()
        .map(|row| (median(&mut row.alone), median(&mut row.together)))
        .collect();
    let floor = told[INCR];
    println!(
        "| | p50 alone, µs | to `INCR` | a second, 64 at a time | to `INCR` |\n|---|---|---|---|---|"
    );
    for (name, (alone, together)) in NAMES.iter().zip(told.drain(..)) {
        println!(
            "| {name} | {alone:.1} | {:.2} | {together:.0} | {:.2} |",
            alone / floor.0,
            together / floor.1
        );
    }
    println!(
        "\nstore calls of {} decisions: strict {} (calls of the script are shared), refused {}, with leases {}",
        asked.2, asked.0, asked.1, asked.3
    );
    let ratio = |row: usize, floor: usize| {
        let p50 = |index: usize| median(&mut rows[index].alone.clone());
        p50(row) / p50(floor)
    };
    println!(
        "p50 to that in memory: with leases {:.2}, while the store is down {:.2}",
        ratio(LEASED, MEMORY),
        ratio(DOWN, MEMORY)
    );
}
