//! Outages: what becomes of requests while the store is down, and the probe that finds it up again.
//!
//! A call that fails as unavailable, or is not answered by its deadline, trips the [breaker](super::breaker). Until the
//! probe resets it, [`is_down`](StoreClient::is_down) keeps requests from calling, and the engine decides them as
//! [`OnOutage`] says. An error of single buckets trips nothing: the store is asked again by the next request.
//!
//! # Invariants
//!
//! - **Each outage is told once.** `Down` comes from the one call that trips the breaker, before it spawns the probe,
//!   and `Up` from the probe, after the reset: an outage that begins in that moment may be told before the `Up`.
//!   `Failed` is told for each failure.
//! - **Corrections wait.** While the store is down [none is sent](super::corrections). The probe has them sent after the
//!   reset, so that each is seen by the probe, or has seen the store up.
//! - **A probe charges nothing.** It is a call without charges, which a store answers only if it could take some. Its
//!   deadline is that of the last call that failed.
//! - **A probe holds nothing alive.** It upgrades its reference for each call and lets go of it before it pauses, so a
//!   throttle that is dropped during an outage ends its probe within a pause.
//!
//! # Cancellation
//!
//! A probe that is dropped, as with its runtime, abandons the breaker's probe; the next request takes it over. That
//! holds also where there is no runtime to spawn it on. A probe's own call runs in a task and is driven to its end, in
//! time or not.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::StoreClient;
use crate::{
    clock::{Nanos, nanos},
    store::StoreError,
    sync::Ordering,
};

/// The decision on requests while the [store](crate::ThrottleLayerBuilder::store) is down.
///
/// Caps in flight and closed limits still hold, because they are not in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnOutage {
    /// Admits requests by these limits only. Their responses carry no `RateLimit` fields, because the balances are
    /// unknown.
    Admit,
    /// Refuses requests, with 503 (gRPC `UNAVAILABLE`) and a `Retry-After` of three to eight seconds: see
    /// [`Denial::is_unavailable`](crate::Denial::is_unavailable).
    Refuse,
    /// Enforces one share of each limit in each process, exactly.
    Local {
        /// The number of replicas. With 4, a rate of 100 a second with a burst of 20 becomes 25 a second with a burst
        /// of
        /// 5. Bursts and quotas are rounded down, to at least 1. Zero counts as 1.
        ///
        /// All replicas together admit at once at most the burst (or quota), or `share` if that is more: with a burst
        /// of 1 and a share of 20 they admit 20.
        ///
        /// These buckets are full when the store goes down for the first time, and later as they were left.
        share: u32,
    },
}

impl Default for OnOutage {
    /// Each process enforces the limits as if it were the only one.
    fn default() -> Self {
        Self::Local { share: 1 }
    }
}

/// A report about the store, for logs and metrics. Whoever hears it is called by requests, and must not block.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A call failed, or had no answer in time, for this reason, at this time of this process's clock.
    Failed(&'a StoreError, Nanos),
    /// The store is down, since a call failed for this reason.
    Down(&'a StoreError),
    /// The store is up again.
    Up,
    /// A request is decided without the store.
    Without(OnOutage),
}

impl StoreClient {
    /// Records that a call failed. One that tells that nobody can be charged trips the breaker.
    ///
    /// `deadline` is the call's, if it has one, and becomes the probe's.
    pub(super) fn record_failure(self: &Arc<Self>, error: &StoreError, deadline: Option<Duration>) {
        (self.on_event)(Event::Failed(error, self.clock.now()));
        if !error.is_unavailable() {
            return;
        }
        if let Some(deadline) = deadline {
            (self.probe_deadline).store(nanos(deadline), Ordering::Relaxed);
        }
        if self.breaker.trip() {
            (self.on_event)(Event::Down(error));
            self.probe();
        }
    }

    /// Spawns the probe. For the one alone whom the breaker has told to.
    #[cold]
    pub(super) fn probe(self: &Arc<Self>) {
        self.spawn(Probe(Some(Arc::downgrade(self))).run());
    }

    /// Reports a request that is decided without the store.
    pub(crate) fn report_without(&self, on_outage: OnOutage) {
        (self.on_event)(Event::Without(on_outage));
    }

    /// Returns whether the store could take charges, and says so within `deadline`.
    async fn answers_within(&self, deadline: Duration) -> bool {
        let store = Arc::clone(&self.store);
        // A task drives it to its end, in time or not.
        let answer = tokio::spawn(async move { store.take(&[]).await.is_ok() });
        matches!(timeout(deadline, answer).await, Ok(Ok(true)))
    }
}

/// The probe. `None` once the store has answered. Dropped before that, it
/// [abandons](super::breaker::Breaker::abandon_probe) the probe.
struct Probe(Option<Weak<StoreClient>>);

impl Probe {
    /// Probes until the store answers or the store client is gone: at once, then after 20 ms, and after pauses that
    /// double up to a second, each a quarter shorter or longer at random.
    async fn run(mut self) {
        const FIRST: Duration = Duration::from_millis(20);
        const LONGEST: Duration = Duration::from_secs(1);
        let mut pause = FIRST;
        while let Some(store_client) = self.0.as_ref().and_then(Weak::upgrade) {
            let deadline =
                Duration::from_nanos(store_client.probe_deadline.load(Ordering::Relaxed));
            if store_client.answers_within(deadline).await {
                self.0 = None;
                store_client.breaker.reset();
                store_client.send_pending();
                (store_client.on_event)(Event::Up);
                return;
            }
            drop(store_client);
            // Replicas that have lost the store together do not come back together.
            let random = RandomState::new().hash_one(0) % 1_024;
            sleep(pause * 3 / 4 + pause / 2 * random as u32 / 1_024).await;
            pause = (pause * 2).min(LONGEST);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(store_client) = self
            .0
            .take()
            .and_then(|store_client| store_client.upgrade())
        {
            store_client.breaker.abandon_probe();
        }
    }
}
