//! The origin of charges: the place to which the units of a request go back.
//!
//! A limit's balances are in this process or in a store, as its [`BoundLimit`] shows: one with an `id` is in the store
//! client of the throttle, if there is one, and any other in the limiter. The limits that decide while a store is down
//! (a local share, or those of this process alone) have no `id`, so their charges come back here, even if the store is
//! up again by then.
//!
//! # Who may call it
//!
//! Only the rest of [`admission`](super) gives back and owes. The engine makes an origin for each set of limits when it
//! prepares them, and for a single request only if there is no room to keep the prepared limits.

use std::sync::Arc;

use crate::{
    clock::Nanos,
    limiter::{
        Limiter,
        limit_set::{BoundLimit, LimitSet},
    },
    store::client::{CorrectionBatch, StoreClient},
};

/// A set of limits with the limiter and the store that charge it. Made once for all requests under the set, each of
/// which has one reference to count instead of three.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The balances in this process. The same over all reloads.
    pub(crate) limiter: Arc<Limiter>,
    /// The store client, if the throttle has a store.
    store: Option<Arc<StoreClient>>,
    /// The limits that were charged. They stay the same for a request that is under way, whatever is reloaded.
    pub(crate) limit_set: Arc<LimitSet>,
    /// The number of the limit that caps what is in flight, if there is one alone, and clients share its bucket and its
    /// queue.
    pub(super) only_cap: Option<usize>,
}

/// A charge that comes back in part.
#[derive(Debug, Clone, Copy)]
pub(super) enum PastCharge {
    /// An admission that has left the balance in this state.
    Reserved { state: u64 },
    /// Units that were owed, the first of them at this moment by the limiter's clock.
    Owed { since: Nanos },
}

impl Origin {
    /// Makes the origin of what is charged by a set of limits.
    pub(crate) fn new(
        limiter: &Arc<Limiter>,
        store: &Option<Arc<StoreClient>>,
        limit_set: &Arc<LimitSet>,
    ) -> Arc<Self> {
        Arc::new(Self {
            only_cap: limit_set.only_cap(),
            limiter: Arc::clone(limiter),
            store: store.clone(),
            limit_set: Arc::clone(limit_set),
        })
    }

    /// Returns the throttle's store client.
    pub(crate) fn store(&self) -> &Option<Arc<StoreClient>> {
        &self.store
    }

    /// Returns the client of the store where the balances of a limit lie. `None`: they lie in this process.
    fn store_client(&self, bound: &BoundLimit) -> Option<&Arc<StoreClient>> {
        bound.id.as_ref()?;
        self.store.as_ref()
    }

    /// Returns whether the balances of a limit lie in a store.
    pub(super) fn is_in_store(&self, bound: &BoundLimit) -> bool {
        self.store_client(bound).is_some()
    }

    /// Charges `units` that were used without having been charged, even if there is no room for them: what the bucket
    /// does not hold is a debt. In a store it is done later, after an outage, with the batch that is returned. `None`
    /// if the balance is in this process, or the store is never told, since too many corrections wait.
    pub(super) fn owe(
        &self,
        bound: &BoundLimit,
        identity: u128,
        units: u64,
    ) -> Option<CorrectionBatch> {
        let Some(store) = self.store_client(bound) else {
            self.limiter.owe(bound, identity, units);
            return None;
        };
        let has_windows = bound
            .limit
            .meter
            .is_some_and(|meter| meter.window().is_some());
        let moment = has_windows.then(|| store.at(self.limiter.now()));
        store.owe(bound, identity, moment, units)
    }

    /// Gives back `units` that were `charged`, as [`refund`](Self::refund), but to no other window of a quota than they
    /// were taken from. `owed_by` is the batch that owes them in a store, if that was not answered yet.
    pub(super) fn refund_charged(
        &self,
        bound: &BoundLimit,
        identity: u128,
        shared: bool,
        charged: PastCharge,
        units: u64,
        owed_by: Option<&CorrectionBatch>,
    ) {
        let store = self.store_client(bound);
        let meter = bound.limit.meter.filter(|meter| meter.window().is_some());
        let charged_in = meter.and_then(|meter| match charged {
            PastCharge::Reserved { state } => meter.charged_in(state),
            PastCharge::Owed { since } => Some(store.map_or(since, |store| store.at(since))),
        });
        match store {
            None => {
                let limiter = &self.limiter;
                limiter.refund_charged(bound, identity, shared, charged_in, units);
            }
            Some(store) => store.refund(bound, identity, charged_in, units, owed_by),
        }
    }

    /// Gives back `units` that were taken before. `shared` tells if they came from a balance that strangers share. In
    /// this process it is done at once and wakes who waits for them; in a store as with [`owe`](Self::owe).
    pub(super) fn refund(&self, bound: &BoundLimit, identity: u128, shared: bool, units: u64) {
        match self.store_client(bound) {
            Some(store) => store.refund(bound, identity, None, units, None),
            None => self.limiter.refund(bound, identity, shared, units),
        }
    }

    /// Gives back a slot of the only cap, if there is one alone.
    #[inline]
    pub(super) fn free_only_slot(&self) {
        let cap = self.only_cap.and_then(|cap| self.limit_set.limits.get(cap));
        if let Some(bound) = cap {
            self.limiter.free_slot(bound);
        }
    }

    /// Returns the units that a limit of a client has left at `now`. Where its bucket lies in a store, `state` is the
    /// last that this request was told, and time alone has refilled it since: what others took is not known.
    pub(super) fn remaining(
        &self,
        bound: &BoundLimit,
        identity: u128,
        state: u64,
        now: Nanos,
    ) -> u64 {
        let Some(meter) = &bound.limit.meter else {
            return 0;
        };
        match self.store_client(bound) {
            Some(store) => meter.balance(state, store.at(now)).0,
            None => {
                let place = bound.balance(&self.limiter.clients, identity);
                place.remaining(meter, now)
            }
        }
    }
}
