//! Any bytes as the body of a request, the first of which says where it is cut.
//!
//! - However it is cut, the scan finds the same.
//! - It finds what serde_json reads there, and refuses what serde_json refuses.

#![no_main]

#[path = "../../src/facts/scan/reference.rs"]
mod reference;

use libfuzzer_sys::fuzz_target;
use tower_throttle::{
    __bench::FactsScan,
    facts::{MaximumMember, RequestFacts, UnreadReason},
};

use crate::reference::Stated;

fuzz_target!(|input: &[u8]| {
    let [cut, body @ ..] = input else {
        return;
    };
    let expected = reference::facts(body);
    let found = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut scan = FactsScan::default();
        pieces.for_each(|piece| scan.read(piece));
        let is_malformed = scan.is_malformed();
        let found = scan.finish();
        match found.unread() {
            None => assert!(!is_malformed, "malformed, and read nevertheless"),
            Some(reason) => assert_eq!(reason, UnreadReason::Malformed),
        }
        found.facts().map(Stated::from)
    };
    assert_eq!(found(&mut [body].into_iter()), expected, "at once");
    assert_eq!(found(&mut body.chunks(1)), expected, "byte by byte");
    let cut = usize::from(*cut);
    assert_eq!(found(&mut body.chunks(cut + 2)), expected, "in pieces");
    if let Some((one, other)) = body.split_at_checked(cut) {
        assert_eq!(found(&mut [one, other].into_iter()), expected, "cut once");
    }
});
