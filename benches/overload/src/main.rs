//! The example's server, offered up to ten times what it can serve, with the throttle and without it.
//!
//! The server is that of `examples/inference`, in a process of its own, with the slots and the queue of the example and
//! none of its rates, so that only capacity limits. The model runs on a device of 4,000 tokens a second that all
//! answers share. Clients arrive at random (a Poisson process) whether or not earlier ones have been answered, ask for
//! a stream, do not retry, and hang up after ten seconds.
//!
//! The results are the tokens of whole answers and the time to the end of an answer. A request whose client hung up
//! counts as ten seconds. `draw benches/README.md PLOT` draws the table of an earlier run again.

mod clients;
mod plot;
mod server;
mod table;

// The example's own modules, which name each other from the root of their crate.
#[path = "../../../examples/inference/anthropic.rs"]
mod anthropic;
#[path = "../../../examples/inference/api.rs"]
mod api;
#[allow(dead_code, reason = "its rates are left out here")]
#[path = "../../../examples/inference/app.rs"]
mod app;
#[path = "../../../examples/inference/error.rs"]
mod error;
#[path = "../../../examples/inference/gemini.rs"]
mod gemini;
#[path = "../../../examples/inference/guard.rs"]
mod guard;
#[path = "../../../examples/inference/log.rs"]
mod log;
#[path = "../../../examples/model/mod.rs"]
mod model;
#[path = "../../../examples/inference/openai.rs"]
mod openai;
#[path = "../../../examples/pace/mod.rs"]
mod pace;

use std::{env, error::Error, process::ExitCode, time::Duration};

use clients::{Outcome, Target};
use server::Server;

type BoxError = Box<dyn Error + Send + Sync>;

/// Numbers of concurrent clients that are tried to find the best that the server can do.
const CONCURRENT: [usize; 5] = [1, 2, 4, 8, 16];

/// Multiples of the best answers a second that are offered then.
const LOADS: [f64; 7] = [0.4, 0.8, 1.0, 1.5, 2.0, 4.0, 10.0];

/// The load that latencies are compared with, and the greatest.
const NORMAL: f64 = 0.8;
const GREATEST: f64 = 10.0;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(10);

/// The results of one load.
pub(crate) struct Point {
    load: f64,
    goodput: f64,
    refused: f64,
    hung_up: f64,
    p50: Duration,
    p99: Duration,
}

impl Point {
    fn new(load: f64, outcome: &Outcome) -> Self {
        Self {
            load,
            goodput: outcome.goodput(),
            refused: outcome.share(outcome.refused),
            hung_up: outcome.share(outcome.hung_up),
            p50: outcome.quantile(0.50),
            p99: outcome.quantile(0.99),
        }
    }
}

fn main() -> ExitCode {
    let result = match env::args().nth(1).as_deref() {
        Some("serve") => server::serve(env::args().nth(2).as_deref() == Some("throttled")),
        Some("draw") => redraw(env::args().skip(2)),
        Some(path) => measure(path),
        None => Err("name the file of the plot, such as benches/overload.svg".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn measure(path: &str) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (best, answers) = runtime.block_on(best())?;
    println!("at its best: {best:.0} tokens/s in whole answers, {answers:.1} answers/s\n");

    let mut series = Vec::new();
    for throttled in [true, false] {
        println!(
            "{}\n",
            if throttled {
                "with the throttle"
            } else {
                "without"
            }
        );
        println!("| load | goodput | refused | hung up | p50 | p99 |\n|---|---|---|---|---|---|");
        let mut points = Vec::new();
        for load in LOADS {
            let point = runtime.block_on(point(load, answers, throttled))?;
            println!(
                "| {load} × | {:.2} | {:.0} % | {:.0} % | {:.2} s | {:.2} s |",
                point.goodput / best,
                point.refused * 100.0,
                point.hung_up * 100.0,
                point.p50.as_secs_f64(),
                point.p99.as_secs_f64(),
            );
            points.push(point);
        }
        println!();
        series.push(points);
    }
    let [with, without] = &series[..] else {
        unreachable!("two were measured");
    };
    budgets(best, with);
    plot::draw(path, best, with, without)
}

/// Draws the table of a document, as `benches/README.md` has one.
fn redraw(mut arguments: impl Iterator<Item = String>) -> Result<(), BoxError> {
    let (Some(document), Some(plot)) = (arguments.next(), arguments.next()) else {
        return Err("usage: draw DOCUMENT PLOT".into());
    };
    let [with, without] = table::read(&std::fs::read_to_string(document)?)?;
    plot::draw(&plot, 1.0, &with, &without)
}

/// Goodput, in tokens a second, and answers a second, of as many clients as get the most out of the server.
async fn best() -> Result<(f64, f64), BoxError> {
    let mut best = (0.0, 0.0);
    for clients in CONCURRENT {
        let server = Server::start(false)?;
        let target = Target::new(server.address());
        let outcome = clients::in_turn(&target, clients, SHORT).await;
        if outcome.goodput() > best.0 {
            best = (outcome.goodput(), outcome.answers());
        }
    }
    Ok(best)
}

async fn point(load: f64, answers: f64, throttled: bool) -> Result<Point, BoxError> {
    // A server of its own for each load: one that was overloaded has work left.
    let server = Server::start(throttled)?;
    let target = Target::new(server.address());
    let long = load == NORMAL || load == GREATEST;
    let time = if long { LONG } else { SHORT };
    let outcome = clients::at_random(&target, load * answers, time).await;
    Ok(Point::new(load, &outcome))
}

fn budgets(best: f64, with: &[Point]) {
    let at = |load| with.iter().find(|point| point.load == load);
    let (Some(normal), Some(greatest)) = (at(NORMAL), at(GREATEST)) else {
        return;
    };
    let goodput = greatest.goodput / best;
    let slower = greatest.p99.as_secs_f64() / normal.p99.as_secs_f64();
    println!("| budget | | this run | |\n|---|---|---|---|");
    let met = |met| if met { "met" } else { "**missed**" };
    println!(
        "| goodput at 10 ×, to the best | at least 0.95 | {goodput:.2} | {} |",
        met(goodput >= 0.95)
    );
    println!(
        "| p99 of admitted requests at 10 ×, to that at 0.8 × | at most 2 | {slower:.2} | {} |",
        met(slower <= 2.0)
    );
}
