//! Tests of the promises of a [`Store`].
//!
//! A test of a store is one call:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! use std::sync::Arc;
//! use tower_throttle::store::{MemoryStore, conformance};
//!
//! conformance::check(Arc::new(MemoryStore::new())).await;
//! # }
//! ```
//!
//! A run takes a second or two, most of it waiting. It leaves entries behind: most expire within some days, those of
//! the slowest buckets after decades. Each run uses keys of its own.

mod arithmetic;
mod charges;
mod terms;
mod time;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::{BucketKey, Budget, Charge, Correction, Store, Taken};
use crate::limit::rate::Rate;

/// Checks every promise of [`Store`] that can be observed from outside. Others may use the store meanwhile.
///
/// # Panics
///
/// Panics if the store breaks a promise, with a report.
pub async fn check(store: Arc<dyn Store>) {
    let run = Run {
        store,
        number: RandomState::new().hash_one(0),
    };
    run.a_bucket_gives_its_burst_and_no_more().await;
    run.all_or_nothing().await;
    run.shadows_refuse_nobody().await;
    run.clients_and_limits_stand_apart().await;
    run.what_comes_back_with_time().await;
    run.what_is_owed_and_what_comes_back().await;
    run.all_corrections_of_a_call_are_made().await;
    run.a_call_without_charges_is_answered().await;
    run.undone_leaves_no_trace().await;
    run.leases_leave_half_and_come_back().await;
    run.quotas_count_in_windows().await;
    run.what_was_used_stays_used_under_other_settings().await;
    run.what_costs_nothing_changes_nothing().await;
    run.what_is_taken_back_changes_no_terms().await;
    run.what_is_taken_back_in_the_terms_of_its_bucket_comes_back()
        .await;
    run.nobody_gets_in_twice().await;
    run.the_widest_and_the_narrowest().await;
    run.as_the_arithmetic_says().await;
}

struct Run {
    store: Arc<dyn Store>,
    number: u64,
}

/// Returns a budget so slow that nothing is refilled during the run.
fn slow(burst: u64) -> Budget {
    rate(&Rate::per_hour(1).burst(burst))
}

fn rate(rate: &Rate) -> Budget {
    Budget::of_rate(rate).expect("an open rate")
}

/// Returns the units that remain at the time of an answer.
fn left(budget: &Budget, taken: &Taken, index: usize) -> u64 {
    let stored = budget.stored(taken.balances[index].state, taken.now);
    budget.remaining(Some(stored), taken.now)
}

impl Run {
    fn key(&self, name: &str) -> BucketKey {
        BucketKey::new(format!("conformance/{:016x}/{name}", self.number), None)
    }

    /// Names a client's bucket. Clients are hashes: no two are alike in most of their bits.
    fn client(&self, name: &str, client: u128) -> BucketKey {
        let hash = (client + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        BucketKey::new(self.key(name).limit(), Some(hash))
    }

    async fn take(&self, charges: &[Charge]) -> Taken {
        let taken = self.store.take(charges).await;
        let taken = taken.unwrap_or_else(|error| panic!("no answer: {error:?}"));
        assert_eq!(
            taken.balances.len(),
            charges.len(),
            "a balance for each charge"
        );
        taken
    }

    async fn one(&self, key: &BucketKey, budget: Budget, cost: u64) -> Taken {
        self.take(&[Charge::new(key.clone(), budget, cost)]).await
    }

    async fn correct(&self, correction: Correction) {
        let corrected = self.store.correct(&[correction]).await;
        corrected.unwrap_or_else(|error| panic!("not corrected: {error:?}"));
    }
}
