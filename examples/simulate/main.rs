//! Simulates limits before they are enforced: traffic against rules, in virtual time.
//!
//! ```text
//! cargo run --release --features config,test-util --example simulate -- \
//!     --rules limits.toml --against tighter.toml \
//!     --traffic herd:40,30s --for 2m --clients 1000 --plot herd.svg
//! ```
//!
//! The crate itself decides: requests go through a `ThrottleLayer` around a service with configured durations, under
//! tokio's paused clock. Rates, quotas, plans, caps in flight, queues, shadows and model tokens work as in production.
//! `--help` lists all options. The default rules are those of `rules.toml` here.
//!
//! The program prints, by route, by class of clients and in total: the requests offered, admitted and refused, the time
//! in queues, the wait that refusals stated, and how evenly clients were served; then the refusals by limit. `--plot`
//! draws offered, admitted and refused requests a second over virtual time.
//!
//! # Time
//!
//! Virtual time begins at midnight, UTC, on a Monday that is the first of a month, with full buckets. A request arrives
//! on the first multiple of `--step` at or after its time, and is decided at that very moment, at which the throttle's
//! clock stands. The bound of a bucket thus holds exactly in virtual time, whatever the step. A step delays requests by
//! less than a step, so that a long one groups them. Timers, such as those of queues, are tokio's own, to a
//! millisecond.
//!
//! # Reproducibility
//!
//! The same options print the same output to the byte, on the same kind of machine: random numbers come from the seed,
//! by SplitMix64. The speed goes to standard error. Except for retries, the client, the time, the route and the
//! duration of a request do not depend on the rules.
//!
//! # Traces
//!
//! `--traffic trace:FILE` reads a CSV with a header line, `seconds,method,path,client`, or with a fifth column `plan`:
//!
//! ```text
//! seconds,method,path,client
//! 0.25,POST,/v1/chat/completions,acme
//! 1.5,GET,/v1/models,
//! ```
//!
//! Seconds count from the beginning. The client becomes the key, the bearer token or the address that the rules use; an
//! empty one is unidentified. There are no quotes, so no cell holds a comma. Rows may be in any order. An error names
//! the line.
//!
//! `run.rs` is the simulation, `world.rs` the clients and their requests.

#![expect(
    clippy::float_arithmetic,
    reason = "chance and figures for people; what decides is the crate, in integers"
)]

mod document;
mod fairness;
#[path = "../host/mod.rs"]
mod host;
mod ledger;
mod model;
mod options;
mod plot;
mod quantity;
mod random;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod trace;
mod traffic;
mod world;

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use crate::document::Document;
use crate::options::{Options, USAGE};
use crate::quantity::{grouped, told};
use crate::report::Outcome;
use crate::traffic::Traffic;
use crate::world::World;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    host::ended(simulate())
}

fn simulate() -> Result<(), BoxError> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        println!("{USAGE}");
        return Ok(());
    }
    let options = Options::read(arguments.iter().map(String::as_str))?;
    let rules = options.rules.as_deref();
    let mut documents = vec![rules.map_or_else(Document::built_in, Document::from_file)?];
    if let Some(against) = &options.against {
        documents.push(Document::from_file(against)?);
    }
    let world = World::new(&options, &documents)?;

    let mut outcomes = Vec::new();
    for (number, document) in documents.iter().enumerate() {
        let began = now();
        let ledger = run::run(document, &world, &options, |_, _| ())?;
        let time = began.elapsed().as_secs_f64();
        let all = ledger.all();
        let speed = grouped((all.offered as f64 / time) as u64);
        eprintln!(
            "{}: {} requests in {time:.2} s, {speed} a second",
            document.name,
            grouped(all.offered)
        );
        outcomes.push(Outcome {
            tag: match documents.len() {
                1 => "",
                _ => ["before", "after"][number],
            },
            rules: &document.name,
            ledger,
        });
    }
    print!("{}", report::write(&head(&options, &world), &outcomes));
    if let Some(path) = &options.plot {
        let drawn = plot::draw(path, &title(&options.traffic), &outcomes);
        drawn.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Describes the simulation in a line.
fn head(options: &Options, world: &World) -> String {
    format!(
        "{}, {} clients, seed {}, {} of virtual time",
        title(&options.traffic),
        grouped(world.clients.len() as u64),
        options.seed,
        told(world.span),
    )
}

/// The traffic, as people say it.
fn title(traffic: &Traffic) -> String {
    match traffic {
        Traffic::Poisson { rate } => format!("{rate} requests a second at random"),
        Traffic::Bursts { rate, on, off } => format!(
            "{rate} requests a second for {}, none for {}",
            told(*on),
            told(*off)
        ),
        Traffic::Diurnal { mean, peak, period } => {
            format!(
                "{mean} requests a second, {peak} at most, in {}",
                told(*period)
            )
        }
        Traffic::Herd { rate, outage, at } => format!(
            "{rate} requests a second, out of reach for {} after {}",
            told(*outage),
            told(*at)
        ),
        Traffic::Trace(path) => path.display().to_string(),
    }
}

#[expect(clippy::disallowed_methods, reason = "it tells how fast it was")]
fn now() -> Instant {
    Instant::now()
}
