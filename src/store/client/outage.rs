//! What becomes of requests while the store is down, and how it is found to be up again.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{StoreClient, breaker::BreakerState};
use crate::{
    clock::{Nanos, nanos},
    store::StoreError,
    sync::Ordering,
};

/// What becomes of requests while the [store](crate::ThrottleLayer::store) does not answer.
///
/// Slots in flight and limits that are closed hold all the same: they do not lie in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnOutage {
    /// They are let through, as if there were no limits but those. Their responses carry no `RateLimit` fields: nothing
    /// true could be told.
    Admit,
    /// They are refused, with 503 (gRPC `UNAVAILABLE`) and a `Retry-After` of three to eight seconds: see
    /// [`Denial::is_unavailable`](crate::Denial::is_unavailable).
    Refuse,
    /// Each process enforces a share of each limit by itself, exactly.
    Local {
        /// One in so many: the number of replicas. A rate of 100 in a second with a burst of 20 is one of 25 with a
        /// burst of 5 at a share of 4. A burst and a quota are rounded down, and are 1 at least. Zero is taken for 1.
        ///
        /// So many replicas together admit at most the greater of the burst (or quota) and `share` at once: a burst of 1
        /// at a share of 20 admits 20.
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

/// What has become of the store.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// It did not do as it was asked, for this reason, at this time.
    Failed(&'a StoreError, Nanos),
    /// It is down, since this has happened.
    Down(&'a StoreError),
    /// It is up again.
    Up,
    /// A request is decided without it.
    Without(OnOutage),
}

impl StoreClient {
    /// Whether it is not to be asked.
    #[inline]
    pub(crate) fn is_down(self: &Arc<Self>) -> bool {
        match self.breaker.state() {
            BreakerState::Up => false,
            BreakerState::Down => true,
            BreakerState::Unprobed => {
                self.probe();
                true
            }
        }
    }

    /// A question was not answered.
    pub(super) fn record_failure(self: &Arc<Self>, error: &StoreError, deadline: Duration) {
        (self.on_event)(Event::Failed(error, self.clock.now()));
        if !error.is_unavailable() {
            return;
        }
        self.probe_deadline
            .store(nanos(deadline), Ordering::Relaxed);
        if self.breaker.trip() {
            (self.on_event)(Event::Down(error));
            self.probe();
        }
    }

    /// From now on somebody asks whether it is up again.
    #[cold]
    fn probe(self: &Arc<Self>) {
        self.spawn(Probe(Some(Arc::downgrade(self))).run());
    }

    /// A request is decided without it.
    pub(crate) fn without(&self, on_outage: OnOutage) {
        (self.on_event)(Event::Without(on_outage));
    }

    /// Whether it could take charges.
    async fn answers_within(&self, deadline: Duration) -> bool {
        let store = Arc::clone(&self.store);
        // Driven to its end, in time or not.
        let answer = tokio::spawn(async move { store.take(&[]).await.is_ok() });
        matches!(timeout(deadline, answer).await, Ok(Ok(true)))
    }
}

/// Asks whether it is up again. Dropped before that, others are to.
struct Probe(Option<Weak<StoreClient>>);

impl Probe {
    /// Asks until it answers, or nobody needs it any more.
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
                (store_client.on_event)(Event::Up);
                return;
            }
            drop(store_client);
            // Replicas that have lost it together do not come back together.
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
