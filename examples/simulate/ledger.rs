//! Counts the outcomes of requests.

use std::collections::HashMap;

use tower_throttle::snapshot::LimitSnapshot;

use crate::fairness;
use crate::quantity::{MILLISECOND, Nanos, SECOND};
use crate::world::{Call, World};

/// Counts of how often each value was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts(HashMap<u64, u64>);

impl Counts {
    pub(crate) fn add(&mut self, value: u64) {
        *self.0.entry(value).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (&value, count) in &other.0 {
            *self.0.entry(value).or_default() += count;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The smallest value that so many thousandths are not above; `None` if there is none.
    pub(crate) fn quantile(&self, thousandths: u64) -> Option<u64> {
        let mut values: Vec<_> = self.0.iter().collect();
        values.sort_unstable();
        let rank = (self.total() * thousandths).div_ceil(1_000).max(1);
        let mut seen = 0;
        let mut values = values.into_iter();
        let found = values.find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map(|(value, _)| *value)
    }
}

/// Counts of the requests of one client on one route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cell {
    calls: u32,
    offered: u32,
    admitted: u32,
}

/// The waits in line, and the waits that the refused were told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Waits {
    /// Nanoseconds in line, of whoever stood there.
    stood: Counts,
    /// Milliseconds that were told, of whoever was refused.
    told: Counts,
}

/// Requests of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bin {
    pub(crate) offered: u64,
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
}

/// The fates of the requests of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Route keys, as decisions tell them.
    keys: Vec<String>,
    /// The number of the key, for each route that is asked for.
    key_of: Vec<usize>,
    classes: Vec<String>,
    class_of: Vec<usize>,
    /// Counts by key, then by client.
    cells: Vec<Cell>,
    /// Waits by key, then by class.
    waits: Vec<Waits>,
    pub(crate) bins: Vec<Bin>,
    /// The length of each bin.
    pub(crate) width: Nanos,
    /// Calls that were refused, and not repeated.
    pub(crate) given_up: u64,
    /// Calls that would have been repeated after the end.
    pub(crate) open: u64,
    /// The moment at which the last request was admitted.
    pub(crate) last: Option<Nanos>,
    pub(crate) limits: Vec<LimitSnapshot>,
}

/// The figures of some requests: those of a route, of a class of clients, or all.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) calls: u64,
    pub(crate) offered: u64,
    pub(crate) admitted: u64,
    pub(crate) stood: Counts,
    pub(crate) told: Counts,
    /// The index of what each client was given, and below that of what was given in proportion to its fair share.
    pub(crate) fairness: Option<f64>,
    pub(crate) share_fairness: Option<f64>,
}

/// The figures of all requests: by route, by class and together.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) routes: Vec<Row>,
    /// None if all clients are of one class.
    pub(crate) classes: Vec<Row>,
    pub(crate) all: Row,
}

impl Ledger {
    /// `names` are the keys of the routes that are asked for.
    pub(crate) fn new(world: &World, names: &[String]) -> Self {
        let mut keys: Vec<String> = Vec::new();
        let key_of = names.iter().map(|name| {
            let known = keys.iter().position(|key| key == name);
            known.unwrap_or_else(|| {
                keys.push(name.clone());
                keys.len() - 1
            })
        });
        let key_of = key_of.collect();
        Self {
            cells: vec![Cell::default(); keys.len() * world.clients.len()],
            waits: vec![Waits::default(); keys.len() * world.classes.len()],
            keys,
            key_of,
            classes: world.classes.clone(),
            class_of: world.clients.iter().map(|client| client.class).collect(),
            bins: Vec::new(),
            width: width(world.span),
            given_up: 0,
            open: 0,
            last: None,
            limits: Vec::new(),
        }
    }

    fn key(&self, call: &Call) -> usize {
        self.key_of[call.route as usize]
    }

    fn cell(&mut self, call: &Call) -> &mut Cell {
        let number = self.key(call) * self.class_of.len() + call.client as usize;
        &mut self.cells[number]
    }

    fn waits(&mut self, call: &Call) -> &mut Waits {
        let class = self.class_of[call.client as usize];
        let number = self.key(call) * self.classes.len() + class;
        &mut self.waits[number]
    }

    fn bin(&mut self, now: Nanos) -> &mut Bin {
        let number = (now / self.width) as usize;
        if self.bins.len() <= number {
            self.bins.resize(number + 1, Bin::default());
        }
        &mut self.bins[number]
    }

    pub(crate) fn offered(&mut self, call: &Call, now: Nanos) {
        let cell = self.cell(call);
        cell.calls += u32::from(call.attempt == 1);
        cell.offered += 1;
        self.bin(now).offered += 1;
    }

    pub(crate) fn admitted(&mut self, call: &Call, now: Nanos) {
        self.cell(call).admitted += 1;
        self.bin(now).admitted += 1;
        self.last = Some(now);
    }

    pub(crate) fn refused(&mut self, call: &Call, now: Nanos, told: Option<u64>) {
        self.bin(now).refused += 1;
        if let Some(told) = told {
            self.waits(call).told.add(told);
        }
    }

    /// Notes that a request stood in line for so long, whatever came of it.
    pub(crate) fn stood(&mut self, call: &Call, wait: Nanos) {
        self.waits(call).stood.add(wait);
    }

    pub(crate) fn rows(&self) -> Rows {
        let route = |number: usize| {
            let name = self.keys[number].clone();
            self.row(name, |key, _| key == number)
        };
        let class = |number: usize| {
            let name = self.classes[number].clone();
            self.row(name, |_, class| class == number)
        };
        let mut classes: Vec<_> = (0..self.classes.len()).collect();
        classes.sort_by_key(|&number| &self.classes[number]);
        if classes.len() < 2 {
            classes.clear();
        }
        Rows {
            routes: (0..self.keys.len()).map(route).collect(),
            classes: classes.into_iter().map(class).collect(),
            all: self.all(),
        }
    }

    pub(crate) fn all(&self) -> Row {
        self.row("all".to_owned(), |_, _| true)
    }

    /// The row of the keys and classes that `takes` takes.
    fn row(&self, name: String, takes: impl Fn(usize, usize) -> bool) -> Row {
        let mut clients = vec![Cell::default(); self.class_of.len()];
        let mut waits = Waits::default();
        for key in 0..self.keys.len() {
            for (number, &class) in self.class_of.iter().enumerate() {
                if takes(key, class) {
                    let Cell {
                        calls,
                        offered,
                        admitted,
                    } = self.cells[key * self.class_of.len() + number];
                    clients[number].calls += calls;
                    clients[number].offered += offered;
                    clients[number].admitted += admitted;
                }
            }
            for class in 0..self.classes.len() {
                if takes(key, class) {
                    let of_both = &self.waits[key * self.classes.len() + class];
                    waits.stood.merge(&of_both.stood);
                    waits.told.merge(&of_both.told);
                }
            }
        }
        clients.retain(|client| client.calls > 0);
        let sum = |part: fn(&Cell) -> u32| clients.iter().map(part).map(u64::from).sum();
        let pairs: Vec<_> = clients
            .iter()
            .map(|cell| (cell.calls, cell.admitted))
            .collect();
        Row {
            name,
            calls: sum(|cell| cell.calls),
            offered: sum(|cell| cell.offered),
            admitted: sum(|cell| cell.admitted),
            stood: waits.stood,
            told: waits.told,
            fairness: fairness::index(clients.iter().map(|cell| f64::from(cell.admitted))),
            share_fairness: fairness::index_of_shares(&pairs),
        }
    }
}

/// Some hundred bins, each of a length that people have a name for.
fn width(span: Nanos) -> Nanos {
    const NICE: [Nanos; 12] = [
        100 * MILLISECOND,
        200 * MILLISECOND,
        500 * MILLISECOND,
        SECOND,
        2 * SECOND,
        5 * SECOND,
        10 * SECOND,
        30 * SECOND,
        60 * SECOND,
        300 * SECOND,
        600 * SECOND,
        1_800 * SECOND,
    ];
    let fits = NICE.into_iter().find(|width| span / width <= 150);
    fits.unwrap_or(span / 150)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let mut counts = Counts::default();
        assert_eq!(counts.quantile(500), None);
        for value in 1..=100 {
            counts.add(value);
        }
        let table = [
            (0, 1),
            (10, 1),
            (500, 50),
            (501, 51),
            (990, 99),
            (1_000, 100),
        ];
        for (thousandths, expected) in table {
            assert_eq!(
                counts.quantile(thousandths),
                Some(expected),
                "{thousandths}"
            );
        }
    }

    #[test]
    fn bins_are_neither_too_many_nor_too_few() {
        for (span, expected) in [(10, 100), (60, 500), (86_400, 600_000)] {
            assert_eq!(width(span * SECOND), expected * MILLISECOND, "{span} s");
        }
    }
}
