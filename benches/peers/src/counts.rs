//! The budgets that no noise touches, as a test: allocations and memory.

use tower_throttle::__bench::UsageScan;

use crate::{allocations, clients, layers, memory, rounds::Row, slots};

/// A frame of an answer.
const EVENT: &[u8] =
    b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"}}],\"usage\":null}\n\n";

pub fn check(rows: &mut [Row]) {
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
    let mut scan = UsageScan::of("text/event-stream").expect("a type that is read");
    let reading = allocations::during(|| (0..1_000).for_each(|_| scan.read(EVENT)));
    assert_eq!(reading, 0, "reading an answer allocates nothing");
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
