//! Interleaved rounds and their medians, in one process.

use std::{fmt, time::Instant};

use crate::allocations;

const ROUNDS: usize = 101;
/// About this long a row takes in a round.
const SLICE_NANOS: f64 = 2_000_000.0;

/// One piece of work.
pub struct Row {
    pub name: String,
    pub floor: Option<&'static str>,
    work: Box<dyn FnMut()>,
}

impl Row {
    /// Work that stands for itself: a floor of others, or a part of them.
    pub fn alone(name: impl Into<String>, work: impl FnMut() + 'static) -> Self {
        Self {
            name: name.into(),
            floor: None,
            work: Box::new(work),
        }
    }

    /// Work that does what the row called `floor` does, and more.
    pub fn over(
        floor: &'static str,
        name: impl Into<String>,
        work: impl FnMut() + 'static,
    ) -> Self {
        Self {
            floor: Some(floor),
            ..Self::alone(name, work)
        }
    }

    pub fn repeat(&mut self, times: u32) {
        for _ in 0..times {
            (self.work)();
        }
    }

    fn nanos(&mut self, times: u32) -> f64 {
        let start = Instant::now();
        self.repeat(times);
        start.elapsed().as_nanos() as f64 / f64::from(times)
    }
}

/// The figures of one row.
#[derive(Debug, PartialEq)]
pub struct Figures {
    pub name: String,
    /// The row that this one is compared with.
    pub floor: Option<String>,
    /// Allocations of one repetition, where they were counted.
    pub allocations: Option<f64>,
    /// Nanoseconds of one repetition, in each round.
    nanos: Vec<f64>,
}

/// What one process measured: every row in every round.
#[derive(Debug, Default, PartialEq)]
pub struct Rounds(Vec<Figures>);

impl Rounds {
    pub fn measure(rows: &mut [Row]) -> Self {
        let mut measured: Vec<_> = rows
            .iter_mut()
            .map(|row| {
                row.repeat(100);
                let times = (SLICE_NANOS / row.nanos(100)).clamp(20.0, 50_000.0) as u32;
                let allocated = allocations::during(|| row.repeat(100)) as f64 / 100.0;
                let figures = Figures {
                    name: row.name.clone(),
                    floor: row.floor.map(str::to_owned),
                    allocations: Some(allocated),
                    nanos: Vec::with_capacity(ROUNDS),
                };
                (times, figures)
            })
            .collect();
        for _ in 0..ROUNDS {
            for (row, (times, figures)) in rows.iter_mut().zip(&mut measured) {
                figures.nanos.push(row.nanos(*times));
            }
        }
        Self(measured.into_iter().map(|(_, figures)| figures).collect())
    }

    /// Adds a row that was measured elsewhere, with its nanoseconds in each round.
    pub fn push(&mut self, name: String, floor: Option<&str>, nanos: Vec<f64>) {
        self.0.push(Figures {
            name,
            floor: floor.map(str::to_owned),
            allocations: None,
            nanos,
        });
    }

    pub fn rows(&self) -> &[Figures] {
        &self.0
    }

    fn row(&self, name: &str) -> &Figures {
        let row = self.0.iter().find(|row| row.name == name);
        row.unwrap_or_else(|| panic!("no row is called {name}"))
    }

    pub fn allocations(&self, name: &str) -> f64 {
        self.row(name).allocations.expect("they were counted")
    }

    /// The median over the rounds.
    pub fn nanos(&self, name: &str) -> f64 {
        median(self.row(name).nanos.clone())
    }

    /// The median over the rounds of a row less its floor.
    pub fn over(&self, name: &str) -> f64 {
        let floor = self.row(name).floor.as_ref();
        let floor = floor.unwrap_or_else(|| panic!("{name} has no floor"));
        self.median_of(name, floor, |row, floor| row - floor)
    }

    /// The median over the rounds of a row divided by another one.
    pub fn ratio(&self, name: &str, to: &str) -> f64 {
        self.median_of(name, to, |row, to| row / to)
    }

    fn median_of(&self, name: &str, other: &str, with: impl Fn(f64, f64) -> f64) -> f64 {
        let pairs = self.row(name).nanos.iter().zip(&self.row(other).nanos);
        median(pairs.map(|(&row, &other)| with(row, other)).collect())
    }

    /// Reads what another process has written.
    pub fn read(written: &str) -> Option<Self> {
        let row = |line: &str| {
            let mut parts = line.split('\t');
            let mut next = || parts.next();
            let (name, floor, allocations) = (next()?, next()?, next()?);
            let nanos = next()?.split(' ').map(|nanos| nanos.parse().ok());
            Some(Figures {
                name: name.to_owned(),
                floor: Some(floor.to_owned()).filter(|floor| !floor.is_empty()),
                allocations: allocations.parse().ok(),
                nanos: nanos.collect::<Option<_>>()?,
            })
        };
        written.lines().map(row).collect::<Option<_>>().map(Self)
    }
}

/// As it is handed to another process: a line for each row, of its name, its floor, its allocations, and its nanoseconds
/// in each round.
impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.0 {
            let floor = row.floor.as_deref().unwrap_or_default();
            let allocations = row.allocations.map(|count| count.to_string());
            let nanos: Vec<String> = row.nanos.iter().map(f64::to_string).collect();
            writeln!(
                f,
                "{}\t{floor}\t{}\t{}",
                row.name,
                allocations.unwrap_or_default(),
                nanos.join(" ")
            )?;
        }
        Ok(())
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_writes_another_reads() {
        let mut rounds = Rounds::default();
        rounds.push("the floor".into(), None, vec![1.0, 2.5, 1e-9]);
        rounds.push("a row".into(), Some("the floor"), vec![f64::MAX, 3.0, 0.1]);
        rounds.0[0].allocations = Some(1.25);
        assert_eq!(Rounds::read(&rounds.to_string()), Some(rounds));
        assert_eq!(Rounds::read("the floor\t\t1\t7 x\n"), None);
    }

    #[test]
    fn a_row_is_compared_with_its_floor_round_by_round() {
        let mut rounds = Rounds::default();
        rounds.push("the floor".into(), None, vec![10.0, 30.0, 20.0]);
        rounds.push("a row".into(), Some("the floor"), vec![15.0, 34.0, 40.0]);
        assert_eq!(rounds.nanos("a row"), 34.0);
        assert_eq!(rounds.over("a row"), 5.0);
        assert_eq!(rounds.ratio("a row", "the floor"), 1.5);
    }
}
