//! Tables, budgets and plots.

use super::{
    contenders::{
        AXUM_GCRA, AXUM_GOVERNOR, BARE, DECIDED, FIELDS, GOVERNOR, GOVERNOR_HEADERS,
        GOVERNOR_REFUSED, HAPROXY, HAPROXY_LIMIT, HAPROXY_REFUSED, NGINX, NGINX_LIMIT,
        NGINX_REFUSED, PLAIN, REFUSED,
    },
    pairs::{Figures, Row},
};
use crate::{plot, processes::Spread};

const RATE: fn(&Figures) -> f64 = |figures| figures.rate;
const P99: fn(&Figures) -> f64 = |figures| figures.p99_micros;
const COST: fn(&Figures) -> f64 = |figures| figures.cost;
const ASKING: fn(&Figures) -> f64 = |figures| figures.asking;
const BUSY: fn(&Figures) -> f64 = |figures| figures.busy;

pub fn print(rows: &[Row]) {
    let row = |name: &str| {
        let row = rows.iter().find(|row| row.name == name);
        row.unwrap_or_else(|| panic!("no row is called {name}"))
    };
    table(rows);
    println!();
    budgets(&row);
    plots(&row);
}

fn table(rows: &[Row]) {
    println!(
        "| server | answers/s | × bare | middle half | p99, µs | × bare | processor, µs | × bare | busy | asking, µs |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    let bare = &rows[0];
    println!(
        "| {BARE} | {:.0} | 1 | | {:.0} | 1 | {:.2} | 1 | {:.0} % | {:.2} |",
        bare.median_bare(RATE),
        bare.median_bare(P99),
        bare.median_bare(COST),
        bare.median_bare(BUSY) * 100.0,
        bare.median_bare(ASKING),
    );
    for row in rows {
        let rate = row.spread_of_ratio(RATE);
        println!(
            "| {} | {:.0} | {:.3} | {:.3} to {:.3} | {:.0} | {:.2} | {:.2} | {:.3} | {:.0} % | {:.2} |",
            row.name,
            row.median(RATE),
            rate.median,
            rate.lowest,
            rate.highest,
            row.median(P99),
            row.ratio(P99),
            row.median(COST),
            row.ratio(COST),
            row.median(BUSY) * 100.0,
            row.median(ASKING),
        );
    }
}

/// One budget, and whether this run met it.
fn line(what: &str, bound: &str, found: f64, met: bool) {
    let verdict = if met { "met" } else { "**missed**" };
    println!("| {what} | {bound} | {found:.3} | {verdict} |");
}

fn at_least(what: &str, least: f64, found: f64) {
    line(what, &format!("at least {least}"), found, found >= least);
}

fn at_most(what: &str, most: f64, found: f64) {
    line(what, &format!("at most {most}"), found, found <= most);
}

fn beside(what: &str, found: f64) {
    println!("| {what} | – | {found:.3} | |");
}

fn budgets<'a>(row: &impl Fn(&str) -> &'a Row) {
    println!("| budget | | measured | |\n|---|---|---|---|");
    at_least(
        "allowed, nothing told: rate, to bare",
        0.97,
        row(PLAIN).ratio(RATE),
    );
    at_least(
        "allowed, both fields: rate, to bare",
        0.96,
        row(FIELDS).ratio(RATE),
    );
    for (ours, theirs) in [
        (PLAIN, GOVERNOR),
        (PLAIN, AXUM_GCRA),
        (FIELDS, GOVERNOR_HEADERS),
        (FIELDS, AXUM_GOVERNOR),
        (FIELDS, NGINX_LIMIT),
        (FIELDS, HAPROXY_LIMIT),
        (REFUSED, GOVERNOR_REFUSED),
    ] {
        let what = format!("{ours}: rate, to that of {theirs}");
        at_least(&what, 1.0, row(ours).ratio_to(row(theirs), RATE));
        let what = format!("{ours}: processor time of an answer, to that of {theirs}");
        beside(&what, row(ours).ratio_to(row(theirs), COST));
    }
    for ours in [PLAIN, FIELDS] {
        let what = format!("{ours}: p99, to bare");
        at_most(&what, 1.05, row(ours).ratio(P99));
    }
    at_least("refused: rate, to bare", 0.97, row(REFUSED).ratio(RATE));
    beside(
        "refused by tower_governor: rate, to bare",
        row(GOVERNOR_REFUSED).ratio(RATE),
    );
    for (theirs, name) in [(HAPROXY_REFUSED, "HAProxy"), (NGINX_REFUSED, "nginx")] {
        let found = row(theirs).ratio_to(row(REFUSED), COST);
        let what = format!("refusals for a second of a processor, to {name}'s");
        match theirs == HAPROXY_REFUSED {
            true => at_least(&what, 1.0, found),
            false => beside(&what, found),
        }
    }
    for (limited, free, what) in [
        (NGINX_LIMIT, NGINX, "nginx: rate with limit_req, to without"),
        (
            HAPROXY_LIMIT,
            HAPROXY,
            "HAProxy: rate with a stick table, to without",
        ),
    ] {
        beside(what, row(limited).ratio_to(row(free), RATE));
    }
}

fn plots<'a>(row: &impl Fn(&str) -> &'a Row) {
    let bars =
        |names: &[&'static str], of: &dyn Fn(&Row) -> Spread| -> Vec<(&'static str, Spread)> {
            names.iter().map(|&name| (name, of(row(name)))).collect()
        };
    let rate = |row: &Row| row.spread_of_ratio(RATE);
    let cost = |row: &Row| row.spread(COST);
    let allowed = [
        PLAIN,
        GOVERNOR,
        AXUM_GCRA,
        FIELDS,
        DECIDED,
        GOVERNOR_HEADERS,
        AXUM_GOVERNOR,
        NGINX,
        NGINX_LIMIT,
        HAPROXY,
        HAPROXY_LIMIT,
    ];
    let mut micros = vec![(BARE, row(PLAIN).spread_bare(COST))];
    micros.extend(bars(&allowed, &cost));
    plot::end_to_end(&bars(&allowed, &rate), &micros);
    let refused = [REFUSED, GOVERNOR_REFUSED, NGINX_REFUSED, HAPROXY_REFUSED];
    plot::flood(&bars(&refused, &rate), &bars(&refused, &cost));
}
