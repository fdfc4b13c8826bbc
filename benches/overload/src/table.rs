//! The table of a run in a document: a row for each load, with the throttle and then without it.

use std::time::Duration;

use crate::{BoxError, Point};

/// Reads `| 0.4 × | goodput | refused | p50 | p99 | goodput | hung up | p50 | p99 |`. Goodput is of the best.
pub(crate) fn read(document: &str) -> Result<[Vec<Point>; 2], BoxError> {
    let mut points = [Vec::new(), Vec::new()];
    for line in document.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [load, cells @ ..] = &cells[..] else {
            continue;
        };
        let Some(load) = load.strip_suffix(" ×").filter(|_| cells.len() == 8) else {
            continue;
        };
        let load = load.parse()?;
        let numbers = cells.iter().map(|cell| number(cell));
        let numbers: Vec<f64> = numbers.collect::<Result<_, _>>()?;
        for (side, half) in numbers.chunks(4).enumerate() {
            let [goodput, share, p50, p99] = half.try_into().expect("chunks of four");
            // With the throttle some are refused, without it some hang up.
            let [refused, hung_up] = [[share, 0.0], [0.0, share]][side];
            points[side].push(Point {
                load,
                goodput,
                refused,
                hung_up,
                p50: Duration::from_secs_f64(p50),
                p99: Duration::from_secs_f64(p99),
            });
        }
    }
    match points[0].is_empty() {
        true => Err("no row such as `| 0.4 × | 0.41 | 0 % | 0.06 s | 0.21 s | …`".into()),
        false => Ok(points),
    }
}

/// Reads `0.41`, `8 %` or `0.06 s`. Shares are from 0 to 1.
fn number(cell: &str) -> Result<f64, BoxError> {
    if let Some(percent) = cell.strip_suffix(" %") {
        return Ok(percent.parse::<f64>()? / 100.0);
    }
    Ok(cell.strip_suffix(" s").unwrap_or(cell).parse()?)
}
