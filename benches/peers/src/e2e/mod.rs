//! A whole server over loopback, with each limiter and without one.
//!
//! - Each server is a process of its own with one thread, on a processor of its own where `taskset` is there
//!   and there are two; this process asks from another one.
//! - 32 connections are kept alive; each asks again as soon as it has its answer.
//! - In each round each contender and the bare server take turns of 0.4 s, and the other of the two comes
//!   first in the next round. Ratios are of such pairs, and told are medians over the rounds.
//! - Each answer has the status that it should have, or the run fails; before it a first answer is read as a
//!   whole.
//! - Processor time is what the kernel counted for the processes that serve, their system calls included.
//!   Where asking takes more of it than serving, or what serves is not busy, a rate tells less than that.

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
