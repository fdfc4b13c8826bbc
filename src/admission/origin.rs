//! The place to which what a request was charged goes back.

use std::sync::Arc;

use crate::{
    clock::Nanos,
    limiter::{
        Limiter,
        limit_set::{Binding, Rule},
    },
    store::client::{Change, Remote, StoreSlot},
};

/// A rule, with the limiter and the store that charge it: made once for all of its requests, each of which then has one
/// reference to count, not three.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) limiter: Arc<Limiter>,
    store: StoreSlot,
    pub(crate) rule: Arc<Rule>,
}

impl Origin {
    pub(crate) fn new(limiter: &Arc<Limiter>, store: &StoreSlot, rule: &Arc<Rule>) -> Arc<Self> {
        Arc::new(Self {
            limiter: Arc::clone(limiter),
            store: store.clone(),
            rule: Arc::clone(rule),
        })
    }

    pub(crate) fn store(&self) -> &StoreSlot {
        &self.store
    }

    /// Returns where the balances of a limit lie, if not in this process.
    fn elsewhere(&self, binding: &Binding) -> Option<&Arc<Remote>> {
        binding.id.as_ref()?;
        self.store.get()
    }

    /// Charges `units` that were used without having been asked for.
    pub(super) fn owe(&self, binding: &Binding, identity: u128, units: u64) {
        match self.elsewhere(binding) {
            Some(remote) => remote.correct(binding, identity, Change::Owe, units),
            None => self.limiter.owe(binding, identity, units),
        }
    }

    /// Gives back `units` that were taken before; `shared` says whether from a balance that strangers share.
    pub(super) fn refund(&self, binding: &Binding, identity: u128, shared: bool, units: u64) {
        match self.elsewhere(binding) {
            Some(remote) => remote.correct(binding, identity, Change::Refund, units),
            None => self.limiter.refund(binding, identity, shared, units),
        }
    }

    /// Returns what a limit of a client has left at `now`. `told` is the state of its bucket at the last question, where
    /// that lies in a store.
    pub(super) fn remaining(
        &self,
        binding: &Binding,
        identity: u128,
        told: u64,
        now: Nanos,
    ) -> u64 {
        let Some(meter) = &binding.limit.meter else {
            return 0;
        };
        match self.elsewhere(binding) {
            Some(remote) => meter.balance(told, remote.at(now)).0,
            None => {
                let place = binding.place(&self.limiter.memory, identity);
                place.remaining(meter, now)
            }
        }
    }
}
