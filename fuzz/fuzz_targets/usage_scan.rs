//! Any bytes as a model server's answer: the first says whether it is JSON or an event stream, the second
//! where it is cut.
//!
//! - However it is cut, the scan tells the same.
//! - It tells what serde_json reads there.

#![no_main]

#[path = "../../src/usage/scan/reference.rs"]
mod reference;

use libfuzzer_sys::fuzz_target;
use tower_throttle::__bench::UsageScan;

fuzz_target!(|input: &[u8]| {
    let [kind, cut, answer @ ..] = input else {
        return;
    };
    let (content_type, expected) = match kind {
        b'{' => ("application/json", reference::json(answer)),
        _ => ("text/event-stream", reference::event_stream(answer)),
    };
    let scan = UsageScan::of(content_type).expect("a known content type");
    let told = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut scan = scan.clone();
        pieces.for_each(|piece| scan.read(piece));
        scan.total()
    };
    let total = told(&mut [answer].into_iter());
    if let Ok(expected) = expected {
        assert_eq!(total, expected, "{content_type}");
    }
    assert_eq!(told(&mut answer.chunks(1)), total, "byte by byte");
    let cut = usize::from(*cut);
    assert_eq!(told(&mut answer.chunks(cut + 2)), total, "in pieces");
    if let Some((one, other)) = answer.split_at_checked(cut) {
        assert_eq!(told(&mut [one, other].into_iter()), total, "cut once");
    }
});
