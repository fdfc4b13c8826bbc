//! Instructions of one request, counted by callgrind: what no neighbour and no layout of addresses touches.
//!
//! Only [`counted`] is counted: neither the start of a process, where the calibration of a clock differs each time, nor
//! the first requests. Each row is run with few requests and with many, and the figure is the difference per request.
//!
//! Under callgrind a process may calibrate the counter so badly that its clock falls back to the operating system's.
//! Rows with the counter are run three times, and the least counts.

use std::{env, hint::black_box, process::Command};

use crate::{
    ours::By,
    rounds::{Rounds, Row},
};

const FEW: u32 = 10_000;
const MANY: u32 = 50_000;
const TRIES: u32 = 3;

/// Runs what is counted. callgrind knows this function by its name.
#[inline(never)]
pub fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// Callgrind before this program, whose arguments are to follow.
pub fn callgrind() -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*instructions*counted*")
        .arg(env::current_exe().expect("this program"));
    command
}

/// The instructions that callgrind told of on its way out.
pub fn collected(told: &str) -> Option<u64> {
    let line = told.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The least that several runs tell, if what they run goes by the counter.
pub fn least<E>(by: By, mut run: impl FnMut() -> Result<u64, E>) -> Result<u64, E> {
    let mut least = run()?;
    if by == By::Counter {
        for _ in 1..TRIES {
            least = least.min(run()?);
        }
    }
    Ok(least)
}

/// Instructions of one request, of two runs with so few and so many.
pub fn of_one(few: (u32, u64), many: (u32, u64)) -> f64 {
    (many.1 as f64 - few.1 as f64) / f64::from(many.0 - few.0)
}

/// Instructions in the place of nanoseconds, in one round.
pub fn measure(rows: &[Row]) -> Result<Rounds, String> {
    let mut rounds = Rounds::default();
    for row in rows {
        let (by, _) = By::of(&row.name);
        let run = |times| -> Result<_, String> {
            Ok((times, least(by, || row_alone(&row.name, times))?))
        };
        let instructions = of_one(run(FEW)?, run(MANY)?);
        rounds.push(row.name.clone(), row.floor, vec![instructions]);
    }
    Ok(rounds)
}

fn row_alone(name: &str, times: u32) -> Result<u64, String> {
    let output = callgrind().args([name, &times.to_string()]).output();
    let output = output.map_err(|fault| format!("valgrind: {fault}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let instructions = collected(&told).filter(|_| output.status.success());
    instructions.ok_or_else(|| format!("{name}: {told}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_sum_is_found() {
        let told = "==7== Events    : Ir\n==7== Collected : 101422395\n==7== \n";
        assert_eq!(collected(told), Some(101_422_395));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }

    #[test]
    fn what_both_runs_do_is_not_told() {
        assert_eq!(of_one((10, 1_700), (30, 3_700)), 100.0);
    }
}
