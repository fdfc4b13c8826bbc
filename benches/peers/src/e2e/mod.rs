//! A whole server over loopback, with each limiter and without one.
//!
//! - Each server is a process of its own with one thread, on a processor of its own if there are two and `taskset` is
//!   available; this process calls it from another one.
//! - 32 connections are kept alive; each sends the next request as soon as it has its answer.
//! - In each round each contender and the bare server take turns of 0.4 s, and the order alternates between rounds.
//!   Ratios are of such pairs, and medians over the rounds.
//! - Each answer must have the expected status, or the run fails; a first answer is read as a whole.
//! - Processor time is that which the kernel counted for the serving processes, system calls included. If this program
//!   takes more of it than the server, or the server is not busy, a rate shows less.

mod apps;
mod contenders;
mod instructions;
mod load;
mod pairs;
mod process;
mod proxies;
mod report;

use std::{error::Error, process::exit};

use crate::rounds::Rounds;

type BoxError = Box<dyn Error + Send + Sync>;

/// The server of this name; ends with its parent.
pub fn serve(name: &str) {
    end(apps::serve(name));
}

/// Everything: tables, budgets and plots.
pub fn measure() {
    end(pairs::measure().map(|rows| report::print(&rows)));
}

/// Instructions of one request to each server.
pub fn instructions() -> Rounds {
    end(instructions::measure())
}

fn end<T>(result: Result<T, BoxError>) -> T {
    result.unwrap_or_else(|fault| {
        eprintln!("end to end: {fault}");
        exit(1);
    })
}
