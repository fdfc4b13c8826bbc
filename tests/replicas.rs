//! R1 across processes: four of them hammer one bucket in Redis for ten seconds, with clocks that are minutes apart.
//!
//! It runs itself: with arguments it is one of the four.

#[path = "support/redis.rs"]
mod servers;

use std::{
    convert::Infallible,
    env,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use servers::{KINDS, Server};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    OnOutage, Rate, Rules, ThrottleLayer,
    store::{Charge, Correction, RedisStore, Store, StoreFuture, Taken},
};

const RATE: u64 = 2_000;
const BURST: u64 = 500;
const SECONDS: u64 = 10;

/// A store that notes when each charge was taken, by the server's clock.
#[derive(Debug)]
struct Notes {
    store: RedisStore,
    taken: Arc<Mutex<Vec<u64>>>,
}

impl Store for Notes {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        Box::pin(async move {
            let taken = self.store.take(charges).await?;
            if taken.is_admitted && !charges.is_empty() {
                self.taken.lock().expect("no panic").push(taken.now);
            }
            Ok(taken)
        })
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        self.store.correct(corrections)
    }
}

/// One of the four: asks as often as it can, and tells when it was let through.
#[tokio::main(flavor = "current_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "of a real server, whose time is real"
)]
async fn replica(url: &str) {
    let taken = Arc::default();
    let store = Notes {
        store: RedisStore::connect(url).await.expect("a server"),
        taken: Arc::clone(&taken),
    };
    let rules = Rules::new().total(Rate::per_second(RATE).burst(BURST));
    let layer = ThrottleLayer::new(rules).expect("proper rules");
    let layer = layer
        .store_deadline(Duration::from_secs(5))
        .on_outage(OnOutage::Refuse);
    let layer = layer.store(store).expect("no clients");
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let tasks = (0..8).map(|_| {
        let layer = layer.clone();
        tokio::spawn(async move {
            let serve = service_fn(|_: Request<()>| async {
                Ok::<_, Infallible>(Response::new(String::new()))
            });
            let service = layer.layer(serve);
            let mut admitted = 0_u64;
            while Instant::now() < end {
                let answer = service.clone().oneshot(Request::new(())).await;
                let status = answer.unwrap_or_else(|never| match never {}).status();
                assert_ne!(status, 503, "the server answers");
                admitted += u64::from(status == 200);
                if status != 200 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            admitted
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.expect("no panic");
    }
    let taken = taken.lock().expect("no panic");
    assert_eq!(taken.len() as u64, admitted, "each was let through once");
    for moment in &*taken {
        println!("{moment}");
    }
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, role, url] = &arguments[..] {
        if role == "replica" {
            return replica(url);
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for kind in KINDS {
        let server = runtime.block_on(Server::start(kind));
        let own = env::current_exe().expect("this program");
        let replicas = ["+0s", "+180s", "-420s", "+3600s"].map(|clock| {
            let replica = Command::new("faketime")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .args(["-f", clock])
                .arg(&own)
                .args(["replica", &server.url()])
                .stdout(Stdio::piped())
                .spawn();
            replica
                .unwrap_or_else(|error| panic!("faketime: {error}; the test command installs it"))
        });
        let mut moments = Vec::new();
        for replica in replicas {
            let output = replica.wait_with_output().expect("it ends");
            assert!(output.status.success(), "a replica has failed");
            let lines = String::from_utf8(output.stdout).expect("numbers");
            let own: Vec<u64> = lines
                .lines()
                .map(|line| line.parse().expect("a number"))
                .collect();
            assert!(!own.is_empty(), "each gets some");
            moments.extend(own);
        }
        moments.sort_unstable();
        // In every window: the bucket that takes them all one after the other holds them.
        let interval = 1_000_000_000 / RATE;
        let mut full_at = 0;
        for &moment in &moments {
            full_at = moment.max(full_at) + interval;
            assert!(
                full_at <= moment + BURST * interval,
                "{kind:?}: one too many at {moment}"
            );
        }
        let lasted = moments[moments.len() - 1] - moments[0];
        let may = BURST + lasted / interval;
        let share = moments.len() as u64 * 1_000 / may;
        println!(
            "{kind:?}: {} of {may} admitted in {} ms",
            moments.len(),
            lasted / 1_000_000
        );
        assert!(
            lasted > 9_000_000_000,
            "ten seconds, as far as the machine lets them"
        );
        assert!(
            share >= 990,
            "{kind:?}: {share} in a thousand of what the bucket gives"
        );
    }
}
