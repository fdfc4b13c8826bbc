//! Any bytes as the answers of a service, frame by frame: see `tests/support/frames.rs`.

#![no_main]

#[path = "../../tests/support/choices.rs"]
mod choices;
#[path = "../../tests/support/frames.rs"]
mod frames;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| frames::live(input));
