//! A store in memory that does as it is told.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tower_throttle::store::{
    Charge, Correction, MemoryStore, Store, StoreError, StoreFuture, Taken,
};

/// The behaviour of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Answers,
    /// After so long, having done it at once.
    Late(Duration),
    /// After as long as one of these and done after as long as the other, in tenths of a millisecond: each time another
    /// part of it.
    Unevenly(u64, u64),
    /// Nothing, and says so.
    Fails,
    /// Nothing, and says so after so long.
    FailsLate(Duration),
    /// Nothing to these buckets, and says so.
    FailsHere,
}

/// A store in memory that does as it is told, and counts.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) store: MemoryStore,
    does: Arc<Mutex<Does>>,
    calls: Arc<AtomicU64>,
    turns: Arc<AtomicU64>,
    pub(crate) keys: Arc<Mutex<Vec<String>>>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl Told {
    pub(crate) fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            does: Arc::new(Mutex::new(Does::Answers)),
            calls: Arc::default(),
            turns: Arc::default(),
            keys: Arc::default(),
        }
    }

    pub(crate) fn does(&self, does: Does) {
        *self.does.lock().expect("no panic") = does;
    }

    /// Calls since the last time this was asked.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.swap(0, Ordering::Relaxed)
    }

    /// A number that nobody would guess, the same in each run.
    fn random(&self) -> u64 {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed) + 1;
        let mixed = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn answer<'a, T: Send + 'a>(
        &'a self,
        does: impl FnOnce() -> StoreFuture<'a, T> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        let told = *self.does.lock().expect("no panic");
        match told {
            Does::Answers => does(),
            Does::Late(wait) => {
                let answer = does();
                Box::pin(async move {
                    sleep(wait).await;
                    answer.await
                })
            }
            Does::Unevenly(before, after) => {
                let random = self.random();
                let part =
                    |most: u64, random: u64| Duration::from_micros(100 * (random % (most + 1)));
                let (before, after) = (part(before, random), part(after, random >> 32));
                Box::pin(async move {
                    sleep(before).await;
                    let answer = does().await;
                    sleep(after).await;
                    answer
                })
            }
            Does::FailsLate(wait) => Box::pin(async move {
                sleep(wait).await;
                Err(StoreError::unavailable("told to fail"))
            }),
            Does::Fails => Box::pin(async { Err(StoreError::unavailable("told to fail")) }),
            Does::FailsHere => Box::pin(async { Err(StoreError::bucket("told to fail")) }),
        }
    }
}

impl Store for Told {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let keys = charges.iter().map(|charge| charge.key.to_string());
        self.keys.lock().expect("no panic").extend(keys);
        self.answer(|| self.store.take(charges))
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        self.answer(|| self.store.correct(corrections))
    }
}
