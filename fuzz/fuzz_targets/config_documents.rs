//! Any text as each of the documents that configure a throttle.
//!
//! - No reader panics, and none takes long.
//! - What is read either makes a throttle or is an error that says something.
//! - What is read and written again is the same rules.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_throttle::{
    Rules, ThrottleLayer,
    config::{ConfigError, Imported, api_gateway, api_management},
};

type Read = fn(&str) -> Result<Rules, ConfigError>;

fuzz_target!(|text: &str| {
    let readers: [Read; 5] = [
        Rules::from_toml,
        Rules::from_yaml,
        |text| api_gateway::stage(text).map(imported),
        |text| api_gateway::usage_plan(text).map(imported),
        |text| api_management::policy(text).map(imported),
    ];
    for read in readers {
        match read(text) {
            Ok(rules) => makes_a_throttle_or_says_why(rules),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});

fn imported(imported: Imported) -> Rules {
    for warning in &imported.warnings {
        assert!(!warning.to_string().is_empty());
    }
    imported.rules
}

fn makes_a_throttle_or_says_why(rules: Rules) {
    if let Ok(written) = rules.to_toml() {
        let again = Rules::from_toml(&written);
        let again = again.unwrap_or_else(|error| panic!("{error} in what was written:\n{written}"));
        assert_eq!(again.to_toml().as_ref(), Ok(&written), "the same rules");
    }
    // A table for clients of any size that a text asks for would take its time.
    let rules = rules.map_clients(|clients| clients.max_clients(64));
    if let Err(error) = ThrottleLayer::new(rules) {
        assert!(!error.to_string().is_empty());
    }
}
