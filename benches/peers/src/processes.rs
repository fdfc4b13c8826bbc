//! The same table in several processes, one after the other.
//!
//! The placement of code, stack and heap moves a row by 15 ns for the lifetime of a process, and further rounds do not
//! help. Each process therefore measures everything, floors and peers included; the figures are the median over the
//! processes, with the lowest and the highest.

use std::{
    env, fmt,
    process::{Command, Stdio},
};

use crate::rounds::{Figures, Rounds, median};

/// What each process measured.
pub struct Processes(Vec<Rounds>);

impl Processes {
    /// Runs this program so many times to measure a table.
    pub fn measure(table: &str, count: usize) -> Self {
        Self((0..count).map(|_| one(table)).collect())
    }

    /// Something that is the same in each process, and was measured once.
    pub fn once(rounds: Rounds) -> Self {
        Self(vec![rounds])
    }

    /// The rows, as the first process has them.
    pub fn rows(&self) -> &[Figures] {
        self.0.first().expect("a process").rows()
    }

    pub fn spread(&self, of: impl Fn(&Rounds) -> f64) -> Spread {
        let mut found: Vec<f64> = self.0.iter().map(of).collect();
        found.sort_by(f64::total_cmp);
        Spread {
            lowest: found[0],
            highest: found[found.len() - 1],
            median: median(found),
        }
    }
}

fn one(table: &str) -> Rounds {
    let this = env::current_exe().expect("this program");
    let output = Command::new(this)
        .args(["raw", table])
        .stderr(Stdio::inherit())
        .output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{table}: {}", output.status);
    let written = String::from_utf8(output.stdout).expect("text");
    Rounds::read(&written).unwrap_or_else(|| panic!("not rows: {written}"))
}

/// Runs this program for a table that it prints by itself.
pub fn alone(table: &str) {
    let this = env::current_exe().expect("this program");
    let status = Command::new(this).arg(table).status().expect("it runs");
    assert!(status.success(), "{table}: {status}");
}

/// A figure over the processes.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Spread {
    /// A figure that was measured once.
    pub fn once(figure: f64) -> Self {
        Self {
            median: figure,
            lowest: figure,
            highest: figure,
        }
    }
}

/// The median, and in brackets the lowest and the highest, if they differ.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let Self {
            median,
            lowest,
            highest,
        } = self;
        write!(f, "{median:.digits$}")?;
        match lowest < highest {
            true => write!(f, " ({lowest:.digits$} to {highest:.digits$})"),
            false => Ok(()),
        }
    }
}
