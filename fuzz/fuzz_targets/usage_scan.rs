//! Any bytes as a model server's answer: the first says whether it is JSON, lines or an event stream, the second where it
//! is cut.
//!
//! - However it is cut, the scan reports the same.
//! - It reports what serde_json reads there.
//! - The text that has passed never becomes less.

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
        b'\n' => ("application/x-ndjson", reference::json_lines(answer, true)),
        _ => ("text/event-stream", reference::event_stream(answer, true)),
    };
    let scan = UsageScan::of(content_type).expect("a known content type");
    let told = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut scan = scan.clone();
        pieces.for_each(|piece| scan.read(piece));
        (scan.report(true), scan.report(false))
    };
    let whole = told(&mut [answer].into_iter());
    if let Ok(expected) = expected {
        let reference::Report {
            usage,
            read,
            has_input,
            is_malformed,
        } = expected;
        assert_eq!(
            whole.0,
            (usage, read, has_input, is_malformed),
            "{content_type}"
        );
    } else if matches!(reference::is_json(answer), Ok(false)) && *kind == b'{' {
        assert_eq!(whole.0.0, None, "no JSON");
    }
    assert_eq!(told(&mut answer.chunks(1)), whole, "byte by byte");
    let cut = usize::from(*cut);
    assert_eq!(told(&mut answer.chunks(cut + 2)), whole, "in pieces");
    if let Some((one, other)) = answer.split_at_checked(cut) {
        assert_eq!(told(&mut [one, other].into_iter()), whole, "cut once");
    }
});
