//! Writes the results of a run as text.

use tower_throttle::{limit::Scope, snapshot::LimitSnapshot};

use crate::ledger::{Ledger, Row, Rows};
use crate::quantity::{MILLISECOND, grouped, told};

/// The rules of a run, and what came of them.
pub(crate) struct Outcome<'a> {
    /// The word that tells this outcome from the other, if there are two.
    pub(crate) tag: &'static str,
    pub(crate) rules: &'a str,
    pub(crate) ledger: Ledger,
}

const NOTES: &str = "\
in line: who stood there, however it ended; p50, p99 and max of their waits. told: the median of the waits that the
refused were told. Jain: (Σx)² / (n Σx²) over the n clients who asked, 1 if all have the same (Jain, Chiu and Hawe
1984); in the first column x is what a client was admitted, in the second that in proportion to its max-min fair share
of what all were admitted, so that nobody is wronged who has not asked for more.
";

/// Writes all tables. Where there are two outcomes, their rows stand one below the other.
pub(crate) fn write(head: &str, outcomes: &[Outcome<'_>]) -> String {
    let mut text = format!("{head}\n");
    for outcome in outcomes {
        text.push_str(&format!(
            "rules{}: {}\n",
            spaced(outcome.tag),
            outcome.rules
        ));
    }
    for outcome in outcomes {
        let calls = calls(&outcome.ledger);
        text.push_str(&format!("calls{}: {calls}\n", spaced(outcome.tag)));
    }
    for table in [requests(outcomes), limits(outcomes)] {
        text.push('\n');
        text.push_str(&table.written());
    }
    text.push('\n');
    text.push_str(NOTES);
    text
}

fn spaced(tag: &str) -> String {
    match tag {
        "" => String::new(),
        tag => format!(" {tag}"),
    }
}

/// The fates of calls, each with all its attempts.
fn calls(ledger: &Ledger) -> String {
    let all = ledger.all();
    let last = ledger
        .last
        .map_or_else(|| "never".to_owned(), |last| format!("at {}", told(last)));
    format!(
        "{}, of which {} were admitted, {} given up, {} would have come back after the end; the last was admitted {last}",
        grouped(all.calls),
        grouped(all.admitted),
        grouped(ledger.given_up),
        grouped(ledger.open),
    )
}

fn requests(outcomes: &[Outcome<'_>]) -> Table {
    let mut table = Table::new(&[
        "",
        "",
        "offered",
        "admitted",
        "refused",
        "",
        "in line",
        "p50",
        "p99",
        "max",
        "told",
        "Jain",
        "of shares",
    ]);
    let rows: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome.tag, outcome.ledger.rows()))
        .collect();
    let of = |part: fn(&Rows) -> &[Row]| -> Vec<_> {
        rows.iter().map(|(tag, rows)| (*tag, part(rows))).collect()
    };
    group(&mut table, "", &of(|rows| &rows.routes));
    group(&mut table, "clients: ", &of(|rows| &rows.classes));
    group(&mut table, "", &of(|rows| std::slice::from_ref(&rows.all)));
    table
}

/// Adds rows of the same name one below the other.
fn group(table: &mut Table, title: &str, outcomes: &[(&str, &[Row])]) {
    let mut names: Vec<&str> = Vec::new();
    for row in outcomes.iter().flat_map(|(_, rows)| *rows) {
        if !names.contains(&&*row.name) {
            names.push(&row.name);
        }
    }
    for name in names {
        let mut label = Some(format!("{title}{name}"));
        for (tag, rows) in outcomes {
            if let Some(row) = rows.iter().find(|row| row.name == name) {
                table.add(cells(label.take().unwrap_or_default(), tag, row));
            }
        }
    }
}

fn cells(label: String, tag: &str, row: &Row) -> Vec<String> {
    let refused = row.offered - row.admitted;
    let percent = match row.offered {
        0 => String::new(),
        offered => format!("{:.1} %", refused as f64 * 100.0 / offered as f64),
    };
    let time = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), told);
    let index =
        |index: Option<f64>| index.map_or_else(|| "-".to_owned(), |index| format!("{index:.3}"));
    vec![
        label,
        tag.to_owned(),
        grouped(row.offered),
        grouped(row.admitted),
        grouped(refused),
        percent,
        grouped(row.stood.total()),
        time(row.stood.quantile(500)),
        time(row.stood.quantile(990)),
        time(row.stood.quantile(1_000)),
        time(row.told.quantile(500).map(|told| told * MILLISECOND)),
        index(row.fairness),
        index(row.share_fairness),
    ]
}

/// The table of limits: how many requests each has admitted, refused, would have refused, and had wait in line.
fn limits(outcomes: &[Outcome<'_>]) -> Table {
    let mut table = Table::new(&[
        "limit",
        "",
        "admitted",
        "refused",
        "would refuse",
        "in line",
    ]);
    let labels: Vec<Vec<String>> = outcomes
        .iter()
        .map(|outcome| outcome.ledger.limits.iter().map(label).collect())
        .collect();
    let mut names: Vec<&String> = Vec::new();
    for name in labels.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let mut label = Some(name.clone());
        for (outcome, labels) in outcomes.iter().zip(&labels) {
            let limits = outcome.ledger.limits.iter().zip(labels);
            for (limit, _) in limits.filter(|(_, label)| *label == name) {
                table.add(vec![
                    label.take().unwrap_or_default(),
                    outcome.tag.to_owned(),
                    grouped(limit.admitted),
                    grouped(limit.refused),
                    grouped(limit.would_refuse),
                    grouped(limit.waited),
                ]);
            }
        }
    }
    table
}

/// A limit's name, and where it holds.
fn label(limit: &LimitSnapshot) -> String {
    let name = &limit.name;
    match (limit.scope, limit.route.as_deref()) {
        (Scope::Total, _) => name.to_string(),
        (Scope::Route, Some(route)) => format!("{name} ({route})"),
        (Scope::Route, None) => format!("{name} (each other route)"),
        (_, Some(route)) => format!("{name} (each client, {route})"),
        (_, None) => format!("{name} (each client)"),
    }
}

/// Cells in columns, of which the first two are text.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(head: &[&str]) -> Self {
        Self(vec![head.iter().map(|&cell| cell.to_owned()).collect()])
    }

    fn add(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    fn written(&self) -> String {
        let columns = self.0.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.0.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match (column, width) {
                    // A column in which nothing stands.
                    (_, 0) => {}
                    (0 | 1, _) => line.push_str(&format!("{cell:width$}  ")),
                    _ => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let mut table = Table::new(&["route", "", "offered"]);
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        table.add(row(["GET /a", "", "1,000"]));
        table.add(row(["all", "", "5"]));
        assert_eq!(
            table.written(),
            "route   offered\nGET /a    1,000\nall           5\n"
        );
    }
}
