//! The same work through tower-throttle and its peers, in one run: a Markdown table with ratios.
//!
//! Every row is measured in every round, one after the other, so that a noisy neighbour hits all of
//! them; what is told is the median over the rounds. The floor of each difference is the bare service
//! of the same round.

mod allocations;
mod builds;
mod clients;
mod clock;
mod e2e;
mod keyed;
mod layers;
mod memory;
#[cfg(feature = "metrics")]
mod metrics;
mod plot;
mod reloads;
mod rounds;
mod slots;
mod tables;
mod threads;

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use keyed::Keys;
use rounds::{Rounds, Row};
use tower_throttle::{__bench::LocalClock, Clock};

fn counter() -> Row {
    let counter = LocalClock::of(&Clock::counter());
    Row::new("clock: the counter, as the layer reads it", move || {
        black_box(counter.now());
    })
}

/// Floors: what no limiter can do without.
fn floors() -> Vec<Row> {
    let word = AtomicU64::new(0);
    let direct = governor::RateLimiter::direct(layers::governor_quota());
    vec![
        Row::new("clock: std", || {
            black_box(Instant::now());
        }),
        Row::new("clock: tokio", || {
            black_box(tokio::time::Instant::now());
        }),
        counter(),
        Row::new("compare-and-swap", move || {
            let seen = word.load(Ordering::Acquire);
            let _ = black_box(word.compare_exchange(
                seen,
                seen + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ));
        }),
        Row::new("header map, two inserts", || {
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_static("ratelimit-policy"),
                HeaderValue::from_static("policy"),
            );
            headers.insert(
                HeaderName::from_static("ratelimit"),
                HeaderValue::from_static("limit"),
            );
            black_box(headers);
        }),
        Row::new("header value from a text", || {
            let value = HeaderValue::from_str(black_box("\"chat\";r=9;t=9"));
            black_box(value.is_ok());
        }),
        Row::new("governor, direct", move || {
            let _ = black_box(direct.check());
        }),
    ]
}

fn main() {
    let only = std::env::args().nth(1);
    match only.as_deref() {
        Some("serve") => return e2e::serve(),
        Some("e2e") => return e2e::measure(),
        Some("build") => return builds::measure(),
        Some("clock") => return clock::drive(std::env::args().nth(2)),
        Some("keyed") => return direct(),
        Some("tables") => return tables::measure(),
        Some("bytes") => {
            let holder = std::env::args().nth(2).unwrap_or_default();
            return println!("{}", keyed::own_bytes(&holder));
        }
        _ => {}
    }
    let mut rows = floors();
    rows.extend(layers::rows());
    rows.extend(layers::routes());
    rows.extend(clients::rows());
    rows.extend(slots::rows());
    match only.as_deref() {
        Some("counts") => return counts(&mut rows),
        Some("reloads") => return reloaded(),
        #[cfg(feature = "metrics")]
        Some("metrics") => {
            let (without, with) = metrics::measure();
            println!("| allowed, nothing told: ns | – | {without:.1} | |");
            return line(
                "allowed, counted for Prometheus: ns more",
                60.0,
                with - without,
            );
        }
        _ => {}
    }
    if let Some(name) = only {
        // One row alone, for a profiler.
        let row = rows.iter_mut().find(|row| row.name == name);
        let times = std::env::args().nth(2);
        let times = times.map_or(100_000, |times| times.parse().expect("a number"));
        row.unwrap_or_else(|| panic!("no row is called {name}"))
            .repeat(times);
        return;
    }
    let rounds = Rounds::measure(&mut rows);
    rounds.print(layers::BARE);
    println!();
    budgets(&rounds);
    println!();
    plots(&rounds);
    direct();
    println!();
    e2e::measure();
}

/// Decisions without a service, and what a million keys take.
fn direct() {
    let measured = keyed::measure();
    keyed::print(&measured);
    let [one, numbers, texts] =
        [Keys::One, Keys::Numbers(1_000_000), Keys::Texts(1_000_000)].map(|keys| {
            [keyed::OURS, keyed::GOVERNOR, keyed::FLOOR]
                .map(|name| keyed::find(&measured, keys, name))
        });
    let bytes = keyed::HOLDERS.map(|holder| (holder, keyed::bytes(holder)));
    let [longest, governors] = keyed::pauses();
    println!("\n| budget | at most | measured | |\n|---|---|---|---|");
    let [ours, _, floor] = one;
    line(
        "direct, one bucket: to the clock and an exchange",
        1.15,
        ours.allowed / floor.allowed,
    );
    for ([ours, theirs, floor], most, whose) in [(numbers, 0.6, "numbers"), (texts, 0.4, "texts")] {
        line(
            &format!("1,000,000 {whose}, allowed: to governor's keyed store"),
            most,
            ours.allowed / theirs.allowed,
        );
        line(
            &format!("1,000,000 {whose}, refused: to governor's keyed store"),
            most,
            ours.refused / theirs.refused,
        );
        println!(
            "| 1,000,000 {whose}, allowed: to the clock and an exchange as cold | – | {:.3} | |",
            ours.allowed / floor.allowed
        );
    }
    line("1,000,000 live keys: bytes each", 24.0, bytes[0].1);
    for (holder, bytes) in &bytes[1..] {
        println!("| 1,000,000 live keys, {holder}: bytes each | – | {bytes:.1} | |");
    }
    line("the longest first decision: ms", 1.0, longest / 1e6);
    println!(
        "| the longest of governor's: ms | – | {:.3} | |",
        governors / 1e6
    );
    let [ours, theirs, floor] = numbers;
    plot::keys(
        &bytes,
        &[
            (keyed::FLOOR, floor.allowed),
            ("tower-throttle, numbers", ours.allowed),
            ("governor, numbers", theirs.allowed),
            ("tower-throttle, texts of 35 bytes", texts[0].allowed),
            ("governor, texts of 35 bytes", texts[1].allowed),
        ],
    );
}

/// Draws the plot of these rows.
fn plots(rounds: &Rounds) {
    let over = |row: &'static str| (row, rounds.median_difference(row, layers::BARE));
    plot::layers(
        &[
            over(layers::PLAIN),
            over(layers::GOVERNOR),
            over(layers::FIELDS),
            over(layers::GOVERNOR_HEADERS),
        ],
        &[over(layers::REFUSED), over(layers::GOVERNOR_REFUSED)],
    );
}

/// The budgets that no noise touches, as a test: allocations and memory.
fn counts(rows: &mut [Row]) {
    let mut of = |name: &str| {
        let row = rows.iter_mut().find(|row| row.name == name).expect(name);
        row.repeat(100);
        allocations::during(|| row.repeat(1_000))
    };
    let (plain, bare) = (of(layers::PLAIN), of(layers::BARE));
    assert_eq!(
        plain, bare,
        "an admitted request of which nothing is told allocates nothing"
    );
    assert_eq!(
        of(layers::AXUMS_BODY),
        bare,
        "nor does axum's body get a box"
    );
    // The two of a header map that was empty, and now and then a sheet that texts are cut from.
    let fields = of(layers::FIELDS) - bare;
    assert!(
        fields < 2_200,
        "both fields take {fields} allocations in 1,000 requests"
    );
    let all = of(clients::ALL);
    assert_eq!(
        all,
        of(clients::BARE),
        "nor does one that is charged for its client"
    );
    assert_eq!(of(slots::WITH_SLOT), bare, "nor one that holds a slot");
    let waiter = slots::waiting(10_000).bytes;
    assert!(waiter < 1_024.0, "a request in line takes {waiter} bytes");
    let each = clients::bytes_of_ours();
    assert!(each < 40.0, "a live client takes {each} bytes");
    let grown = memory::growth_of_a_million_paths();
    assert!(grown < 1.0, "a million undeclared paths take {grown} MiB");
    println!("{waiter:.0} bytes a request in line");
    println!(
        "{plain} allocations in 1,000 requests, as the bare service; {each:.0} bytes a client; {grown:.2} MiB of paths"
    );
}

/// One budget, and whether this run met it.
fn line(what: &str, most: f64, found: f64) {
    let verdict = if found <= most { "met" } else { "missed" };
    println!("| {what} | {most:.3} | {found:.3} | {verdict} |");
}

/// The budgets of reloads and snapshots.
fn reloaded() {
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
        println!(
            "| {what}, to the median | – | {:.3} | |",
            time / found.request
        );
    }
    line(
        "a request after 200 reloads, to one without",
        1.05,
        found.after,
    );
    println!(
        "| a reload of 1,000 routes: ms | – | {:.3} | |",
        found.reload / 1e6
    );
    line("a snapshot of 1,000 routes: ms", 1.0, found.snapshot / 1e6);
}

/// Each budget of the project, and whether this run met it.
fn budgets(rounds: &Rounds) {
    let over = |row: &str| rounds.median_difference(row, layers::BARE);
    let ratio = |row: &str, to: &str| rounds.median_ratio(row, to);
    println!("| budget | at most | measured | |\n|---|---|---|---|");
    line(
        "allowed, no fields, over bare, to tower_governor's",
        0.75,
        over(layers::PLAIN) / over(layers::GOVERNOR),
    );
    line(
        "allowed, no fields: allocations over bare",
        0.0,
        rounds.allocations(layers::PLAIN) - rounds.allocations(layers::BARE),
    );
    line(
        "allowed, with both fields: allocations over bare",
        2.1,
        rounds.allocations(layers::FIELDS) - rounds.allocations(layers::BARE),
    );
    line(
        "allowed, with both fields, over bare, to tower_governor's with headers",
        0.5,
        over(layers::FIELDS) / over(layers::GOVERNOR_HEADERS),
    );
    line(
        "refused, whole answer, to bare",
        4.0,
        ratio(layers::REFUSED, layers::BARE),
    );
    line(
        "refused, over bare, to tower_governor's",
        0.02,
        over(layers::REFUSED) / over(layers::GOVERNOR_REFUSED),
    );
    line(
        "500 literal routes, to one",
        1.5,
        ratio("500 routes, literal", "1 route, literal"),
    );
    line(
        "500 routes with parameters, to one",
        1.5,
        ratio("500 routes, {param}", "1 route, {param}"),
    );
    let threads = threads::measure();
    line(
        "two threads, two buckets: time of one request, to one thread's",
        1.15,
        threads.apart,
    );
    println!(
        "| two threads, one bucket: time of one request, to one thread's | – | {:.3} | |",
        threads.together
    );
    println!(
        "| two threads, bare service: time of one request, to one thread's | – | {:.3} | |",
        threads.bare
    );
    let grown = memory::growth_of_a_million_paths();
    line(
        "1,000,000 undeclared paths: MiB of resident memory",
        1.0,
        grown,
    );
    let over = |row: &str| rounds.median_difference(row, clients::BARE);
    line(
        "route and client, over bare, to tower_governor's header key",
        0.8,
        over(clients::ONE) / over(clients::GOVERNOR),
    );
    line(
        "total, route, client and plan quota, to route and client",
        1.6,
        over(clients::ALL) / over(clients::ONE),
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
    line(
        "allowed with a slot, to without",
        1.3,
        ratio(slots::WITH_SLOT, layers::PLAIN),
    );
    line(
        "a frame of a body that holds a slot: ns over a bare one",
        10.0,
        rounds.median_difference(slots::THROTTLED_FRAMES, slots::FRAMES) / 1_000.0,
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
    reloaded();
}
