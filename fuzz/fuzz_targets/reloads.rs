//! Any bytes as rules that follow each other: see `tests/support/reloads.rs`.

#![no_main]

#[path = "../../tests/support/choices.rs"]
mod choices;
#[path = "../../tests/support/keys.rs"]
mod keys;
#[path = "../../tests/support/reloads.rs"]
mod reloads;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| reloads::live(input));
