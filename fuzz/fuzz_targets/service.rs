//! Any bytes as the life of a throttled service: see `tests/support/life.rs`.

#![no_main]

#[path = "../../tests/support/choices.rs"]
mod choices;
#[path = "../../tests/support/life.rs"]
mod life;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| life::live(input));
