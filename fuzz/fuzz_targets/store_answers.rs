//! Any bytes as the answers of a store: see `tests/support/answers.rs`.

#![no_main]

#[path = "../../tests/support/answers.rs"]
mod answers;
#[path = "../../tests/support/choices.rs"]
mod choices;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| answers::live(input));
