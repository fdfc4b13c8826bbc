//! A store in memory that fails when it is told to, before it has done something or after that.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tower_throttle::store::{
    Charge, Correction, MemoryStore, Store, StoreError, StoreFuture, Taken,
};

use crate::accounts::known;

/// The behaviour of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    /// Does nothing, and says so.
    Fails,
    /// Does it, and says that it has failed.
    Unanswered,
}

/// A replica's connection to a store that may fail.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) store: MemoryStore,
    pub(crate) state: Arc<Mutex<ReplicaState>>,
}

pub(crate) struct ReplicaState {
    pub(crate) mode: Mode,
    /// Set if a charge was told to have failed since this was last asked.
    pub(crate) has_failed: bool,
    /// The limits of the last charge that the store took.
    pub(crate) taken: Option<Vec<&'static str>>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replica")
    }
}

impl Replica {
    pub(crate) fn new(store: &MemoryStore) -> Self {
        Self {
            store: store.clone(),
            state: Arc::new(Mutex::new(ReplicaState {
                mode: Mode::Up,
                has_failed: false,
                taken: None,
            })),
        }
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut ReplicaState) -> T) -> T {
        work(&mut self.state.lock().expect("no panic"))
    }

    fn mode(&self) -> Mode {
        self.with(|state| state.mode)
    }
}

/// Returns the name of the limit in the store's name of it.
fn name_of(limit: &str) -> &'static str {
    let mut words = limit.rsplit(|letter: char| letter != '_' && !letter.is_ascii_lowercase());
    known(words.next().expect("a word"))
}

impl Store for Replica {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        let mode = self.mode();
        Box::pin(async move {
            if mode == Mode::Fails {
                self.with(|state| state.has_failed |= !charges.is_empty());
                return Err(StoreError::unavailable("it fails"));
            }
            let taken = self.store.take(charges).await?;
            if taken.is_admitted && !charges.is_empty() {
                let names = charges.iter().map(|charge| name_of(charge.key.limit()));
                self.with(|state| state.taken = Some(names.collect()));
            }
            if mode == Mode::Unanswered {
                self.with(|state| state.has_failed |= !charges.is_empty());
                return Err(StoreError::unavailable("it does not answer"));
            }
            Ok(taken)
        })
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        let mode = self.mode();
        Box::pin(async move {
            if mode != Mode::Fails {
                self.store.correct(corrections).await?;
            }
            match mode {
                Mode::Up => Ok(()),
                _ => Err(StoreError::unavailable("it fails")),
            }
        })
    }
}
