//! Interleaved rounds and their medians.

use std::time::Instant;

use crate::allocations;

const ROUNDS: usize = 101;
/// About this long a row takes in a round.
const SLICE_NANOS: f64 = 2_000_000.0;

/// One piece of work.
pub struct Row {
    pub name: &'static str,
    work: Box<dyn FnMut()>,
}

impl Row {
    pub fn new(name: &'static str, work: impl FnMut() + 'static) -> Self {
        Self {
            name,
            work: Box::new(work),
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

/// Nanoseconds of every row in every round.
pub struct Rounds {
    rows: Vec<(&'static str, Vec<f64>, f64)>,
}

impl Rounds {
    pub fn measure(rows: &mut [Row]) -> Self {
        let mut measured: Vec<_> = rows
            .iter_mut()
            .map(|row| {
                row.repeat(100);
                let times = (SLICE_NANOS / row.nanos(100)).clamp(20.0, 50_000.0) as u32;
                let allocated = allocations::during(|| row.repeat(100)) as f64 / 100.0;
                (row.name, times, Vec::with_capacity(ROUNDS), allocated)
            })
            .collect();
        for _ in 0..ROUNDS {
            for (row, (_, times, nanos, _)) in rows.iter_mut().zip(&mut measured) {
                nanos.push(row.nanos(*times));
            }
        }
        let rows = measured
            .into_iter()
            .map(|(name, _, nanos, allocated)| (name, nanos, allocated));
        Self {
            rows: rows.collect(),
        }
    }

    fn row(&self, name: &str) -> &(&'static str, Vec<f64>, f64) {
        let row = self.rows.iter().find(|(found, ..)| *found == name);
        row.unwrap_or_else(|| panic!("no row is called {name}"))
    }

    pub fn allocations(&self, name: &str) -> f64 {
        self.row(name).2
    }

    /// The median over the rounds of `name` less `floor`.
    pub fn median_difference(&self, name: &str, floor: &str) -> f64 {
        self.median_of(name, floor, |row, floor| row - floor)
    }

    /// The median over the rounds of `name` divided by `to`.
    pub fn median_ratio(&self, name: &str, to: &str) -> f64 {
        self.median_of(name, to, |row, to| row / to)
    }

    fn median_of(&self, name: &str, other: &str, with: impl Fn(f64, f64) -> f64) -> f64 {
        let pairs = self.row(name).1.iter().zip(&self.row(other).1);
        median(pairs.map(|(&row, &other)| with(row, other)).collect())
    }

    /// Prints all rows beside the one that is called `bare`.
    pub fn print(&self, bare: &str) {
        println!("| work | ns | over bare | × bare | allocations |\n|---|---|---|---|---|");
        for (name, nanos, allocated) in &self.rows {
            println!(
                "| {name} | {:.1} | {:+.1} | {:.2} | {allocated} |",
                median(nanos.clone()),
                self.median_difference(name, bare),
                self.median_ratio(name, bare),
            );
        }
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
