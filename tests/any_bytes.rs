//! R1, R2, R15, R17, R18, R20, R21, R25: the models of the fuzz targets of the same names, as properties.

#[path = "support/answers.rs"]
mod answers;
#[path = "support/choices.rs"]
mod choices;
#[path = "support/frames.rs"]
mod frames;
#[path = "support/keys.rs"]
mod keys;
#[path = "support/leases.rs"]
mod leases;
#[path = "support/reloads.rs"]
mod reloads;
#[cfg(all(feature = "redis", unix))]
#[path = "support/replies.rs"]
mod replies;

use std::env;

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};

/// The same cases in each run, so that none fails for what another change has done, unless `PROPTEST_CASES` says how many
/// are wanted. The fuzz target `reloads` looks at others.
fn same_cases() -> Config {
    let config = Config::default();
    match env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => Config {
            rng_seed: RngSeed::Fixed(18),
            ..config
        },
    }
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 20..most)
}

proptest! {
    #![proptest_config(same_cases())]

    #[test]
    fn whatever_rules_follow_each_other_what_was_used_stays_used(bytes in bytes(800)) {
        reloads::live(&bytes);
    }
}

proptest! {
    #[test]
    fn whatever_replicas_lease_between_reloads_the_bound_holds_and_no_unit_is_used_twice(bytes in bytes(600)) {
        leases::live(&bytes);
    }

    #[test]
    fn whatever_a_store_answers_admits_nobody_whom_it_forbids_and_loses_no_unit(bytes in bytes(500)) {
        answers::live(&bytes);
    }

    #[test]
    fn whatever_is_answered_passes_unchanged_and_frees_and_settles_once(bytes in bytes(600)) {
        frames::live(&bytes);
    }
}

#[cfg(all(feature = "redis", unix))]
proptest! {
    #[test]
    fn whatever_a_server_replies_admits_nobody_whom_it_forbids_and_holds_up_nobody(bytes in bytes(500)) {
        replies::live(&bytes);
    }
}
