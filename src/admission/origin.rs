//! The place to which what a request was charged goes back.

use std::sync::Arc;

use crate::{
    clock::Nanos,
    limiter::{
        Limiter,
        limit_set::{BoundLimit, LimitSet},
    },
    store::client::{CorrectionKind, StoreClient, StoreSlot},
};

/// A rule, with the limiter and the store that charge it: made once for all of its requests, each of which then has one
/// reference to count, not three.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) limiter: Arc<Limiter>,
    store: StoreSlot,
    pub(crate) limit_set: Arc<LimitSet>,
}

impl Origin {
    pub(crate) fn new(
        limiter: &Arc<Limiter>,
        store: &StoreSlot,
        limit_set: &Arc<LimitSet>,
    ) -> Arc<Self> {
        Arc::new(Self {
            limiter: Arc::clone(limiter),
            store: store.clone(),
            limit_set: Arc::clone(limit_set),
        })
    }

    pub(crate) fn store(&self) -> &StoreSlot {
        &self.store
    }

    /// Returns where the balances of a limit lie, if not in this process.
    fn store_client(&self, bound: &BoundLimit) -> Option<&Arc<StoreClient>> {
        bound.id.as_ref()?;
        self.store.get()
    }

    /// Charges `units` that were used without having been asked for.
    pub(super) fn owe(&self, bound: &BoundLimit, identity: u128, units: u64) {
        match self.store_client(bound) {
            Some(store_client) => store_client.correct(bound, identity, CorrectionKind::Owe, units),
            None => self.limiter.owe(bound, identity, units),
        }
    }

    /// Gives back `units` that were taken before; `shared` says whether from a balance that strangers share.
    pub(super) fn refund(&self, bound: &BoundLimit, identity: u128, shared: bool, units: u64) {
        match self.store_client(bound) {
            Some(store_client) => {
                store_client.correct(bound, identity, CorrectionKind::Refund, units)
            }
            None => self.limiter.refund(bound, identity, shared, units),
        }
    }

    /// Returns what a limit of a client has left at `now`. `told` is the state of its bucket at the last question, where
    /// that lies in a store.
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
            Some(store_client) => meter.balance(state, store_client.at(now)).0,
            None => {
                let place = bound.place(&self.limiter.memory, identity);
                place.remaining(meter, now)
            }
        }
    }
}
