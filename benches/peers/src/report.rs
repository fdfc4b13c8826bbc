//! The tables and plots of what several processes measured.

use crate::{
    budgets, e2e, instructions,
    keyed::{self, Asked, Keys},
    layers, once,
    ours::By,
    plot,
    processes::{Processes, Spread},
    rounds::Row,
};

/// One request in one layer.
pub fn layers(count: usize) {
    let processes = Processes::measure("layers", count);
    rows(&processes, "ns");
    println!();
    budgets::print(budgets::LAYERS.iter().chain(budgets::AMOUNTS), &processes);
    plot_layers(&processes);
}

fn rows(processes: &Processes, unit: &str) {
    let counts = processes.rows().iter().any(|row| row.allocations.is_some());
    let (head, line) = if counts {
        (" allocations |", "---|")
    } else {
        ("", "")
    };
    println!("| work | {unit} | over its floor | × its floor |{head}\n|---|---|---|---|{line}");
    for row in processes.rows() {
        let nanos = processes.spread(|rounds| rounds.nanos(&row.name));
        let floor = row.floor.as_ref().map_or_else(
            || " | ".to_owned(),
            |floor| {
                let over = processes.spread(|rounds| rounds.over(&row.name));
                let ratio = processes.spread(|rounds| rounds.ratio(&row.name, floor));
                format!("{over} | {:.2}", ratio.median)
            },
        );
        let allocations = row.allocations.map(|count| format!(" {count} |"));
        let allocations = allocations.unwrap_or_default();
        println!("| {} | {nanos} | {floor} |{allocations}", row.name);
    }
}

/// Instructions of the same rows, the ratios of the budgets by them, and those of whole servers.
pub fn instructions(layers: &[Row]) {
    let measured = instructions::measure(layers).unwrap_or_else(|fault| panic!("{fault}"));
    let measured = Processes::once(measured);
    rows(&measured, "instructions");
    println!();
    budgets::print_ratios(budgets::LAYERS, &measured);
    println!();
    rows(&Processes::once(e2e::instructions()), "instructions");
}

fn plot_layers(processes: &Processes) {
    let over = |row: String| {
        let over = processes.spread(|rounds| rounds.over(&row));
        // The caption says so of all.
        (row.replace(", allowed", ""), over)
    };
    let ours = |row: &str| By::BOTH.map(|by| over(by.name(row)));
    let theirs = |row: &str| [over(row.to_owned())];
    let allowed = [
        &ours(layers::AXUMS_BODY)[..],
        &ours(layers::PLAIN),
        &theirs(layers::GOVERNOR),
        &ours(layers::FIELDS),
        &theirs(layers::GOVERNOR_HEADERS),
        &ours(layers::FALLING),
        &theirs(layers::GOVERNOR_FALLING),
    ]
    .concat();
    let refused = [
        &ours(layers::REFUSED)[..],
        &theirs(layers::GOVERNOR_REFUSED),
    ]
    .concat();
    plot::layers(&bars(&allowed), &bars(&refused));
}

fn bars(figures: &[(String, Spread)]) -> Vec<plot::Bar<'_>> {
    let mut bars = Vec::new();
    bars.extend(
        figures
            .iter()
            .map(|(name, spread)| (name.as_str(), *spread)),
    );
    bars
}

/// Two threads.
pub fn threads(count: usize) {
    let processes = Processes::measure("threads", count);
    rows(&processes, "ns");
    println!();
    budgets::print(budgets::THREADS, &processes);
}

/// Decisions without a service, and what a million keys take.
pub fn keyed(count: usize) {
    let processes = Processes::measure("keyed", count);
    keyed::print(&processes);
    println!();
    budgets::print(budgets::KEYED, &processes);
    println!();
    let bytes = once::keys();
    let decision = |keys: Keys, contender: &str, label: &str| {
        let row = keyed::name(keys, contender, Asked::Allowed);
        (
            label.to_owned(),
            processes.spread(|rounds| rounds.nanos(&row)),
        )
    };
    let (numbers, texts) = (Keys::Numbers(1_000_000), Keys::Texts(1_000_000));
    let ours = By::Counter.name(keyed::OURS);
    let nanos = [
        decision(
            numbers,
            &By::Counter.name(keyed::FLOOR),
            "the counter and an exchange",
        ),
        decision(numbers, &ours, "tower-throttle, counter, numbers"),
        decision(numbers, keyed::OURS, "tower-throttle, numbers"),
        decision(numbers, keyed::GOVERNOR, "governor, numbers"),
        decision(texts, &ours, "tower-throttle, counter, texts of 35 bytes"),
        decision(texts, keyed::OURS, "tower-throttle, texts of 35 bytes"),
        decision(texts, keyed::GOVERNOR, "governor, texts of 35 bytes"),
    ];
    let bytes = bytes.map(|(holder, bytes)| (holder, Spread::once(bytes)));
    plot::keys(&bytes, &bars(&nanos));
}
