//! The same work through tower-throttle and its peers, in one run: Markdown tables with ratios.
//!
//! Every row is measured in every round, one after the other, so that other load hits all of them, and the floor of
//! each difference is that of the same round. Several processes do so, since the placement of code and heap differs
//! between processes; the figure is the median over the processes.

mod allocations;
mod budgets;
mod builds;
mod clients;
mod clock;
mod counts;
mod e2e;
mod floors;
mod instructions;
mod keyed;
mod layers;
mod machine;
mod memory;
#[cfg(feature = "metrics")]
mod metrics;
mod once;
mod ours;
mod plot;
mod processes;
mod reloads;
mod report;
mod rounds;
mod slots;
mod tables;
mod threads;

use std::env;

use rounds::{Rounds, Row};

/// Processes that measure each table, where no other number is asked for.
const PROCESSES: usize = 5;

fn main() {
    let mut words: Vec<String> = env::args().skip(1).collect();
    let count = count_of_processes(&mut words);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => everything(count),
        ["layers"] => headed(|| report::layers(count)),
        ["threads"] => headed(|| report::threads(count)),
        ["keyed"] => headed(|| report::keyed(count)),
        ["instructions"] => headed(|| report::instructions(&rows())),
        ["memory"] => headed(once::memory),
        ["reloads"] => headed(once::reloads),
        ["tables"] => headed(tables::measure),
        ["e2e"] => headed(e2e::measure),
        ["build"] => headed(builds::measure),
        ["counts"] => counts::check(&mut rows()),
        #[cfg(feature = "metrics")]
        ["metrics"] => headed(metrics::print),
        ["clock"] => clock::drive(None),
        ["clock", seconds] => clock::drive(Some(seconds)),
        // What this program starts itself for.
        ["raw", table] => print!("{}", raw(table)),
        ["grown"] => once::memory(),
        ["bytes", holder] => println!("{}", keyed::own_bytes(holder)),
        ["serve", server] => e2e::serve(server),
        // One row alone, for a profiler.
        [row] => repeat(row, 100_000),
        [row, times] => repeat(row, times.parse().expect("a number")),
        _ => panic!("no table is called {words:?}"),
    }
}

/// Takes `--processes N` out of the words.
fn count_of_processes(words: &mut Vec<String>) -> usize {
    let Some(at) = words.iter().position(|word| word == "--processes") else {
        return PROCESSES;
    };
    let count = words
        .drain(at..)
        .nth(1)
        .and_then(|count| count.parse().ok());
    count
        .filter(|count| *count > 0)
        .expect("--processes N, last")
}

/// All but instructions, clean builds and the ways to lay out a table, which take minutes each.
fn everything(count: usize) {
    machine::print();
    let tables: [&dyn Fn(); 6] = [
        &|| report::layers(count),
        &|| report::threads(count),
        &|| report::keyed(count),
        // This process has grown by now, and what it has given back would be taken for nothing.
        &|| processes::alone("grown"),
        &once::reloads,
        &e2e::measure,
    ];
    for table in tables {
        table();
        println!();
    }
    println!("{}", machine::load());
}

/// One table with the heading that it is read by.
fn headed(table: impl FnOnce()) {
    machine::print();
    table();
}

/// Measures a table in this process.
fn raw(table: &str) -> Rounds {
    match table {
        "layers" => Rounds::measure(&mut rows()),
        "threads" => threads::measure(),
        "keyed" => keyed::measure(),
        _ => panic!("no table is called {table}"),
    }
}

/// The rows of requests, and the floors.
fn rows() -> Vec<Row> {
    let all = [
        floors::rows(),
        layers::rows(),
        layers::routes(),
        clients::rows(),
        slots::rows(),
    ];
    all.into_iter().flatten().collect()
}

fn repeat(name: &str, times: u32) {
    let mut rows = rows();
    let row = rows.iter_mut().find(|row| row.name == name);
    let row = row.unwrap_or_else(|| panic!("no table and no row is called {name}"));
    row.repeat(100);
    instructions::counted(|| row.repeat(times));
}
