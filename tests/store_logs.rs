//! R21 and R22 for operators: each failure of the store is logged with its whole chain of causes.

mod common;
#[path = "support/log.rs"]
mod log;

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::Client;
use http::StatusCode;
use log::Log;
use tokio::time::{advance, sleep};
use tower_throttle::{
    Rate, Rules, ThrottleLayer,
    store::{Charge, Correction, MemoryStore, OnOutage, Store, StoreError, StoreFuture, Taken},
};

const OK: StatusCode = StatusCode::OK;
/// The line of a refusal that no limit has caused: none is named.
const REFUSED: &str = "INFO tower_throttle: a request was refused because the store could not decide \
                       route=\"$default\" wait_ms=";
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// An error with a cause.
#[derive(Debug)]
struct Caused(&'static str, Option<Box<Caused>>);

impl Caused {
    /// Makes an error that is caused by the next, and so on.
    fn chain(words: &[&'static str]) -> Self {
        let (first, rest) = words.split_first().expect("a word");
        let cause = (!rest.is_empty()).then(|| Box::new(Self::chain(rest)));
        Self(first, cause)
    }
}

impl fmt::Display for Caused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Caused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_ref().map(|cause| &**cause as _)
    }
}

#[derive(Debug, Clone, Default)]
enum Mood {
    #[default]
    Answers,
    Fails(StoreError),
    Hangs,
}

/// A store that does as it is set.
#[derive(Debug, Clone, Default)]
struct Moody {
    store: MemoryStore,
    mood: Arc<Mutex<Mood>>,
}

impl Moody {
    fn is(&self, mood: Mood) {
        *self.mood.lock().expect("no panic") = mood;
    }
}

impl Store for Moody {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        match self.mood.lock().expect("no panic").clone() {
            Mood::Answers => self.store.take(charges),
            Mood::Fails(error) => Box::pin(async { Err(error) }),
            Mood::Hangs => Box::pin(async {
                sleep(Duration::from_secs(5)).await;
                Err(StoreError::unavailable("nobody listens any more"))
            }),
        }
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        self.store.correct(corrections)
    }
}

fn client(store: &Moody) -> Client {
    let rules = Rules::new().total(Rate::per_second(1).burst(1_000));
    let builder = ThrottleLayer::builder(rules).on_outage(OnOutage::Refuse);
    Client::with(builder.store(store.clone()))
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_with_all_its_causes() {
    let log = Log::default();
    let _guard = log.listen();
    let store = Moody::default();
    let client = client(&store);
    let lost = Caused::chain(&["no connection", "no route to the host", "a cable"]);
    let table = [
        (
            Mood::Fails(StoreError::unavailable(lost)),
            "the store is not available: no connection: no route to the host: a cable",
        ),
        (
            Mood::Fails(StoreError::unavailable("a text")),
            "the store is not available: a text",
        ),
        (
            Mood::Hangs,
            "the store is not available: it did not answer in time",
        ),
    ];
    for (mood, cause) in table {
        assert_eq!(client.get("/").await.status, OK);
        store.is(mood);
        for _ in 0..3 {
            assert_eq!(client.get("/").await.status, UNAVAILABLE, "{cause}");
        }
        // The probe has found the store up again, and the calls that hung are gone.
        store.is(Mood::Answers);
        sleep(Duration::from_secs(10)).await;
        let lines = log.lines();
        let (refused, told): (Vec<_>, Vec<_>) =
            lines.iter().partition(|line| line.contains("refused"));
        let down = "WARN tower_throttle: the store is down; requests are decided without it";
        let up = "WARN tower_throttle: the store is up again";
        assert_eq!(told, [&*format!("{down} error={cause}"), up]);
        assert_eq!(refused.len(), 3, "{refused:?}");
        for line in refused {
            assert!(line.starts_with(REFUSED), "{line}");
        }
    }
}

/// That is no outage, so nothing else tells why these requests are not decided by the store.
#[tokio::test(start_paused = true)]
async fn a_bucket_that_cannot_be_taken_from_is_told_with_its_causes() {
    let log = Log::default();
    let _guard = log.listen();
    let store = Moody::default();
    let client = client(&store);
    let strange = Caused::chain(&[
        "what lies there is a list",
        "another program has put it there",
    ]);
    store.is(Mood::Fails(StoreError::bucket(strange)));
    let told_of_buckets = || {
        let (refused, told): (Vec<_>, Vec<_>) =
            (log.lines().into_iter()).partition(|line| line.starts_with(REFUSED));
        assert!(refused.len() <= 10, "{refused:?}");
        told
    };
    let told = "WARN tower_throttle: the store cannot charge a bucket; its requests are decided without the store \
                error=the store cannot charge a bucket: what lies there is a list: \
                another program has put it there";
    assert_eq!(client.get("/").await.status, UNAVAILABLE);
    assert_eq!(told_of_buckets(), [format!("{told} suppressed=0")]);
    // No more than ten in a second, however many there are.
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, UNAVAILABLE);
    }
    assert_eq!(told_of_buckets().len(), 9);
    advance(Duration::from_secs(1)).await;
    assert_eq!(client.get("/").await.status, UNAVAILABLE);
    assert_eq!(told_of_buckets(), [format!("{told} suppressed=41")]);
    store.is(Mood::Answers);
    assert_eq!(client.get("/").await.status, OK);
    assert!(log.lines().is_empty(), "it was no outage");
}
