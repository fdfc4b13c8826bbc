//! Measurements by one process, which are not timed against a peer: memory, queues, floods and reloads.

use crate::{
    budgets::{beside, line},
    clients, keyed, memory, reloads, slots,
};

/// The bytes of each live key, by what holds them.
pub type Bytes = [(&'static str, f64); 3];

fn head() {
    println!("| budget | at most | measured | |\n|---|---|---|---|");
}

/// Memory, lines and floods.
pub fn memory() {
    head();
    let grown = memory::growth_of_a_million_paths();
    line(
        "1,000,000 undeclared paths: MiB of resident memory",
        1.0,
        grown,
    );
    let (ours, governors) = (clients::bytes_of_ours(), keyed::bytes(keyed::HOLDERS[2]));
    line("1,000,000 live clients: bytes each", 24.0, ours);
    line(
        "1,000,000 live clients: bytes, to governor's keyed store",
        0.5,
        ours / governors,
    );
    line(
        "a decision among 1,000,000 clients, to one among 1,000",
        3.0,
        clients::million_to_thousand(),
    );
    let (few, many) = (slots::waiting(100), slots::waiting(10_000));
    line(
        "10,000 in line: bytes each, above the request",
        1_024.0,
        many.bytes,
    );
    line(
        "leaving a line of 10,000, to one of 100",
        4.0,
        many.leaving / few.leaving,
    );
    let clients::Flood { throughput, grown } = clients::flood();
    line(
        "10,000,000 identities, 100,000 buckets: time of a request, to that of known clients",
        2.0,
        1.0 / throughput,
    );
    line(
        "10,000,000 identities, 100,000 buckets: MiB grown once it is full",
        1.0,
        grown,
    );
}

/// Reloads and snapshots.
pub fn reloads() {
    head();
    let found = reloads::measure();
    line(
        "of requests that meet a reload of 1,000 routes 99.9 % are faster than, to the median",
        10.0,
        found.slow / found.request,
    );
    let rows = [
        ("the same without a reload", found.slow_without),
        ("the longest that meets a reload", found.longest),
        (
            "the longest within as much time without one",
            found.longest_without,
        ),
    ];
    for (what, time) in rows {
        beside(&format!("{what}, to the median"), time / found.request);
    }
    line(
        "a request after 200 reloads, to one without",
        1.05,
        found.after,
    );
    beside("a reload of 1,000 routes: ms", found.reload / 1e6);
    line("a snapshot of 1,000 routes: ms", 1.0, found.snapshot / 1e6);
}

/// What a million keys take, and the longest first decision among them.
pub fn keys() -> Bytes {
    head();
    let bytes = keyed::HOLDERS.map(|holder| (holder, keyed::bytes(holder)));
    line("1,000,000 live keys: bytes each", 24.0, bytes[0].1);
    for (holder, bytes) in &bytes[1..] {
        beside(
            &format!("1,000,000 live keys, {holder}: bytes each"),
            *bytes,
        );
    }
    let [longest, governors] = keyed::pauses();
    line("the longest first decision: ms", 1.0, longest / 1e6);
    beside("the longest of governor's: ms", governors / 1e6);
    bytes
}
