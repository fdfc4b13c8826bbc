//! The project's budgets for what is timed, each by both clocks.

use crate::{
    clients, keyed,
    keyed::{Asked, Keys},
    layers,
    ours::By,
    processes::Processes,
    rounds::Rounds,
    slots, threads,
};

/// A ratio that may be so large.
pub struct Budget {
    what: &'static str,
    /// At most: with the counter, and by tokio's clock. Where there is none, there is no such row.
    most: [Option<f64>; 2],
    /// The ratio in one process.
    of: fn(&Rounds, By) -> f64,
}

const fn both(counter: f64, tokio: f64) -> [Option<f64>; 2] {
    [Some(counter), Some(tokio)]
}

/// Without a row by the counter.
const fn by_tokio(most: f64) -> [Option<f64>; 2] {
    [None, Some(most)]
}

const fn by_counter(most: f64) -> [Option<f64>; 2] {
    [Some(most), None]
}

/// What ours takes over its floor, to what a peer's takes over its own.
fn to_peer(rounds: &Rounds, ours: &str, by: By, peer: &str) -> f64 {
    rounds.over(&by.name(ours)) / rounds.over(peer)
}

/// What ours takes over its floor, to what another row of ours takes over its own.
fn to_ours(rounds: &Rounds, ours: &str, by: By, other: &str) -> f64 {
    rounds.over(&by.name(ours)) / rounds.over(&by.name(other))
}

/// What a decision takes, to governor's.
fn to_governor(rounds: &Rounds, keys: Keys, by: By, asked: Asked) -> f64 {
    let ours = keyed::name(keys, &by.name(keyed::OURS), asked);
    rounds.ratio(&ours, &keyed::name(keys, keyed::GOVERNOR, asked))
}

pub const LAYERS: &[Budget] = &[
    Budget {
        what: "nothing told, axum's body, to tower_governor",
        most: both(0.9, 1.5),
        of: |rounds, by| to_peer(rounds, layers::AXUMS_BODY, by, layers::GOVERNOR),
    },
    Budget {
        what: "nothing told, any body, to tower_governor",
        most: both(1.2, 1.9),
        of: |rounds, by| to_peer(rounds, layers::PLAIN, by, layers::GOVERNOR),
    },
    Budget {
        what: "clone and oneshot, nothing told, to tower_governor",
        most: both(1.0, 1.25),
        of: |rounds, by| to_peer(rounds, layers::CLONED_PLAIN, by, layers::CLONED_GOVERNOR),
    },
    Budget {
        what: "fields, full bucket, to tower_governor with headers",
        most: both(0.5, 0.6),
        of: |rounds, by| to_peer(rounds, layers::FIELDS, by, layers::GOVERNOR_HEADERS),
    },
    Budget {
        what: "fields, falling balance, to tower_governor with headers",
        most: both(0.65, 0.75),
        of: |rounds, by| to_peer(rounds, layers::FALLING, by, layers::GOVERNOR_FALLING),
    },
    Budget {
        what: "fields, and decision in the request, to tower_governor with headers",
        most: both(0.8, 0.9),
        of: |rounds, by| to_peer(rounds, layers::IN_REQUEST, by, layers::GOVERNOR_HEADERS),
    },
    Budget {
        what: "route and client, nothing told, to tower_governor by the same header",
        most: both(0.95, 1.25),
        of: |rounds, by| to_peer(rounds, clients::ONE, by, clients::GOVERNOR),
    },
    Budget {
        what: "total, route, client and plan quota, to our route and client",
        most: both(1.5, 1.5),
        of: |rounds, by| to_ours(rounds, clients::ALL, by, clients::ONE),
    },
    Budget {
        what: "refused, whole answer, × bare",
        most: both(2.3, 2.6),
        of: |rounds, by| rounds.ratio(&by.name(layers::REFUSED), layers::BARE),
    },
    Budget {
        what: "refused, to tower_governor",
        most: both(0.02, 0.02),
        of: |rounds, by| to_peer(rounds, layers::REFUSED, by, layers::GOVERNOR_REFUSED),
    },
    Budget {
        what: "allowed with a slot, to without",
        most: both(1.2, 1.2),
        of: |rounds, by| to_ours(rounds, slots::WITH_SLOT, by, layers::PLAIN),
    },
    Budget {
        what: "500 literal routes, to one, bare included",
        most: by_tokio(1.5),
        of: |rounds, _| rounds.ratio("500 routes, literal", "1 route, literal"),
    },
    Budget {
        what: "500 routes with parameters, to one, bare included",
        most: by_tokio(1.5),
        of: |rounds, _| rounds.ratio("500 routes, {param}", "1 route, {param}"),
    },
];

/// The same of what is not a ratio.
pub const AMOUNTS: &[Budget] = &[
    Budget {
        what: "a frame of a body that holds a slot: ns over a bare one",
        most: by_tokio(10.0),
        of: |rounds, _| rounds.over(slots::THROTTLED_FRAMES) / 1_000.0,
    },
    Budget {
        what: "allowed, nothing told: allocations over bare",
        most: both(0.0, 0.0),
        of: |rounds, by| allocations(rounds, &by.name(layers::PLAIN)),
    },
    Budget {
        what: "allowed, with both fields: allocations over bare",
        most: both(2.1, 2.1),
        of: |rounds, by| allocations(rounds, &by.name(layers::FIELDS)),
    },
];

fn allocations(rounds: &Rounds, row: &str) -> f64 {
    rounds.allocations(row) - rounds.allocations(layers::BARE)
}

pub const THREADS: &[Budget] = &[
    Budget {
        what: "two threads, one bucket, to tower_governor",
        most: both(1.0, 1.1),
        of: |rounds, by| to_peer(rounds, threads::TOGETHER, by, threads::GOVERNOR),
    },
    Budget {
        what: "two threads, two buckets: a whole request, to one thread's",
        most: both(1.15, 1.15),
        of: |rounds, by| rounds.ratio(&by.name(threads::APART), &by.name(threads::ALONE)),
    },
];

pub const KEYED: &[Budget] = &[
    Budget {
        what: "one bucket, to governor",
        most: by_counter(1.4),
        of: |rounds, by| to_governor(rounds, Keys::One, by, Asked::Allowed),
    },
    Budget {
        what: "10,000 numbers, to governor's keyed store",
        most: by_counter(1.3),
        of: |rounds, by| to_governor(rounds, Keys::Numbers(10_000), by, Asked::Allowed),
    },
    Budget {
        what: "10,000 texts, to governor's keyed store",
        most: by_counter(0.75),
        of: |rounds, by| to_governor(rounds, Keys::Texts(10_000), by, Asked::Allowed),
    },
    Budget {
        what: "1,000,000 numbers, to governor's keyed store",
        most: by_counter(0.8),
        of: |rounds, by| to_governor(rounds, Keys::Numbers(1_000_000), by, Asked::Allowed),
    },
    Budget {
        what: "1,000,000 texts, to governor's keyed store",
        most: both(0.4, 0.4),
        of: |rounds, by| to_governor(rounds, Keys::Texts(1_000_000), by, Asked::Allowed),
    },
    Budget {
        what: "1,000,000 texts, refused, to governor's keyed store",
        most: both(0.4, 0.4),
        of: |rounds, by| to_governor(rounds, Keys::Texts(1_000_000), by, Asked::Refused),
    },
];

/// Prints a line for each, with the verdict on the median.
pub fn print<'a>(budgets: impl IntoIterator<Item = &'a Budget>, processes: &Processes) {
    println!(
        "| budget | with the counter, at most | measured | | by tokio's clock, at most | measured | |\n|---|---|---|---|---|---|---|"
    );
    for budget in budgets {
        let clocks = By::BOTH.into_iter().zip(budget.most);
        let cells = clocks.map(|(by, most)| match most {
            Some(most) => {
                let found = processes.spread(|rounds| (budget.of)(rounds, by));
                let verdict = verdict(found.median <= most);
                format!("{most} | {found:.3} | {verdict}")
            }
            None => "– | |".to_owned(),
        });
        let cells: Vec<String> = cells.collect();
        println!("| {} | {} |", budget.what, cells.join(" | "));
    }
}

/// Prints the ratios of budgets without a verdict, for instructions.
pub fn print_ratios(budgets: &[Budget], processes: &Processes) {
    println!("| ratio | with the counter | by tokio's clock |\n|---|---|---|");
    for budget in budgets {
        let clocks = By::BOTH.into_iter().zip(budget.most);
        let cells = clocks.map(|(by, most)| match most {
            Some(_) => format!("{:.3}", processes.spread(|rounds| (budget.of)(rounds, by))),
            None => "–".to_owned(),
        });
        let cells: Vec<String> = cells.collect();
        println!("| {} | {} |", budget.what, cells.join(" | "));
    }
}

pub fn verdict(is_met: bool) -> &'static str {
    match is_met {
        true => "met",
        false => "**missed**",
    }
}

/// A budget of something that one process measures.
pub fn line(what: &str, most: f64, found: f64) {
    let verdict = verdict(found <= most);
    println!("| {what} | {most:.3} | {found:.3} | {verdict} |");
}

/// A figure without a budget, beside them.
pub fn beside(what: &str, found: f64) {
    println!("| {what} | – | {found:.3} | |");
}
