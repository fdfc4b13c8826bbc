//! Any bytes as what replicas lease between reloads: see `tests/support/leases.rs`.

#![no_main]

#[path = "../../tests/support/choices.rs"]
mod choices;
#[path = "../../tests/support/leases.rs"]
mod leases;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| leases::live(input));
