//! Any bytes as the replies of a Redis server: see `tests/support/replies.rs`.

#![no_main]

#[path = "../../tests/support/choices.rs"]
mod choices;
#[path = "../../tests/support/replies.rs"]
mod replies;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| replies::live(input));
