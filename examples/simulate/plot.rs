//! Draws the results of a run: requests a second over virtual time.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::BoxError;
use crate::ledger::{Bin, Ledger};
use crate::quantity::{Nanos, seconds};
use crate::report::Outcome;

type Series = (&'static str, RGBColor, fn(&Bin) -> u64);

const SERIES: [Series; 3] = [
    ("offered", RGBColor(150, 150, 150), |bin| bin.offered),
    ("refused", RGBColor(201, 79, 28), |bin| bin.refused),
    ("admitted", RGBColor(0, 92, 175), |bin| bin.admitted),
];

/// Draws the outcomes side by side, at the same scale.
pub(crate) fn draw(path: &Path, title: &str, outcomes: &[Outcome<'_>]) -> Result<(), BoxError> {
    let size = (if outcomes.len() > 1 { 1200 } else { 720 }, 380);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let scale = Scale::of(outcomes.iter().map(|outcome| &outcome.ledger));
    let panels = root.split_evenly((1, outcomes.len()));
    for (panel, outcome) in panels.iter().zip(outcomes) {
        let caption = match outcome.tag {
            "" => title.to_owned(),
            tag => format!("{tag}: {}", outcome.rules),
        };
        scale.draw(panel, &caption, &outcome.ledger)?;
    }
    root.present()?;
    Ok(())
}

/// The ends of the axes, and the unit of time.
struct Scale {
    until: f64,
    unit: (&'static str, f64),
    most: f64,
}

impl Scale {
    fn of<'a>(ledgers: impl Iterator<Item = &'a Ledger> + Clone) -> Self {
        let until = ledgers
            .clone()
            .map(|ledger| seconds(ledger.width) * ledger.bins.len() as f64);
        let until = until.fold(0.1, f64::max);
        let most = ledgers.flat_map(|ledger| {
            let rates = ledger
                .bins
                .iter()
                .map(|bin| rate(bin.offered, ledger.width));
            rates.collect::<Vec<_>>()
        });
        let unit = match until {
            ..600.0 => ("seconds", 1.0),
            ..36_000.0 => ("minutes", 60.0),
            ..864_000.0 => ("hours", 3_600.0),
            _ => ("days", 86_400.0),
        };
        Self {
            until: until / unit.1,
            unit,
            // Room for the legend.
            most: most.fold(1.0, f64::max) * 1.25,
        }
    }

    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        caption: &str,
        ledger: &Ledger,
    ) -> Result<(), BoxError> {
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 18))
            .margin(14)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..self.until, 0.0..self.most)?;
        chart
            .configure_mesh()
            .x_desc(format!("virtual time in {}", self.unit.0))
            .y_desc("requests a second")
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|value| format!("{value}"))
            .y_label_formatter(&|value| format!("{value}"))
            .max_light_lines(0)
            .draw()?;
        for (name, colour, value) in SERIES {
            let line = colour.stroke_width(2);
            let width = seconds(ledger.width) / self.unit.1;
            // In steps: a bin has one rate.
            let steps = (0..).zip(&ledger.bins).flat_map(|(number, bin)| {
                let from = f64::from(number) * width;
                let height = rate(value(bin), ledger.width);
                [(from, height), (from + width, height)]
            });
            chart
                .draw_series(LineSeries::new(steps, line))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], line));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }
}

fn rate(count: u64, width: Nanos) -> f64 {
    count as f64 / seconds(width)
}
