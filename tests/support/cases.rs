//! The number of cases of a property.

use std::env;

use proptest::test_runner::Config;

/// The configuration of a property that looks at `default` cases, or at as many as `PROPTEST_CASES` says where it is set.
///
/// `Config::with_cases` alone would not read the environment.
pub(crate) fn cases(default: u32) -> Config {
    let config = Config::default();
    match env::var_os("PROPTEST_CASES") {
        // The number that `Config::default` has read.
        Some(_) => config,
        None => Config {
            cases: default,
            ..config
        },
    }
}
