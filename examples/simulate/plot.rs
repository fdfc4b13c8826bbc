//! Draws the results of a run: requests a second over virtual time.
//!
//! A spike leaves nothing to see of the seconds around it on a linear axis. An axis whose top is far above the median
//! is therefore logarithmic, with zero at its bottom.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use crate::BoxError;
use crate::ledger::{Bin, Ledger};
use crate::quantity::{Nanos, seconds};
use crate::report::Outcome;

type Series = (&'static str, RGBColor, fn(&Bin) -> u64);

/// Drawn as an area, behind the lines.
const OFFERED: Series = ("offered", RGBColor(205, 205, 205), |bin| bin.offered);
const LINES: [Series; 2] = [
    ("refused", RGBColor(201, 79, 28), |bin| bin.refused),
    ("admitted", RGBColor(0, 92, 175), |bin| bin.admitted),
];

/// The multiple of the median above which a maximum is a spike.
const SPIKE: f64 = 8.0;

/// Draws the outcomes side by side, at the same scale.
pub(crate) fn draw(path: &Path, title: &str, outcomes: &[Outcome<'_>]) -> Result<(), BoxError> {
    let size = (if outcomes.len() > 1 { 1400 } else { 840 }, 440);
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
    is_logarithmic: bool,
}

impl Scale {
    fn of<'a>(ledgers: impl Iterator<Item = &'a Ledger> + Clone) -> Self {
        let until = ledgers
            .clone()
            .map(|ledger| seconds(ledger.width) * ledger.bins.len() as f64);
        let until = until.fold(0.1, f64::max);
        let rates = ledgers.flat_map(|ledger| {
            let bins = ledger.bins.iter();
            bins.map(|bin| rate(bin.offered, ledger.width))
        });
        let mut rates: Vec<_> = rates.filter(|rate| *rate > 0.0).collect();
        rates.sort_by(f64::total_cmp);
        let median = rates.get(rates.len() / 2).copied().unwrap_or(1.0);
        let most = rates.last().copied().unwrap_or(1.0);
        let unit = match until {
            ..600.0 => ("seconds", 1.0),
            ..36_000.0 => ("minutes", 60.0),
            ..864_000.0 => ("hours", 3_600.0),
            _ => ("days", 86_400.0),
        };
        Self {
            until: until / unit.1,
            unit,
            most,
            // Below one request a second a logarithmic axis would be flat.
            is_logarithmic: median >= 1.0 && most > SPIKE * median,
        }
    }

    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        caption: &str,
        ledger: &Ledger,
    ) -> Result<(), BoxError> {
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(52)
            .y_label_area_size(76)
            .build_cartesian_2d(0.0..self.until, Rates::new(self))?;
        let axis = match self.is_logarithmic {
            true => "requests a second (logarithmic)",
            false => "requests a second",
        };
        chart
            .configure_mesh()
            .x_desc(format!("virtual time in {}", self.unit.0))
            .y_desc(axis)
            .axis_desc_style(("sans-serif", 17))
            .label_style(("sans-serif", 16))
            .x_labels(10)
            .x_label_formatter(&|value| format!("{value}"))
            .y_label_formatter(&|value| format!("{}", (value * 1e6).round() / 1e6))
            .max_light_lines(0)
            .draw()?;
        let steps = |value: fn(&Bin) -> u64| self.steps(ledger, value);
        let (name, colour, value) = OFFERED;
        let foot = [(self.until, 0.0), (0.0, 0.0)];
        let outline: Vec<_> = steps(value).chain(foot).collect();
        chart
            .draw_series([Polygon::new(outline, colour.filled())])?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 22, y + 5)], colour.filled()));
        for (name, colour, value) in LINES {
            let line = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(steps(value), line))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], line));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(("sans-serif", 17))
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }

    /// A series in steps, since a bin has one rate.
    fn steps<'a>(
        &self,
        ledger: &'a Ledger,
        value: fn(&Bin) -> u64,
    ) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        let width = seconds(ledger.width) / self.unit.1;
        (0..).zip(&ledger.bins).flat_map(move |(number, bin)| {
            let from = f64::from(number) * width;
            let height = rate(value(bin), ledger.width);
            [(from, height), (from + width, height)]
        })
    }
}

/// The vertical axis, from zero.
struct Rates {
    ticks: Vec<f64>,
    top: f64,
    is_logarithmic: bool,
}

impl Rates {
    fn new(scale: &Scale) -> Self {
        let most = scale.most;
        let ticks: Vec<f64> = if scale.is_logarithmic {
            let powers = (0..).map(|power| 10_f64.powi(power));
            let powers = powers.take_while(|tick| *tick <= 3.0 * most);
            [0.0].into_iter().chain(powers).collect()
        } else {
            let power = 10_f64.powf((most / 5.0).log10().floor());
            let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
            let step = steps.into_iter().find(|step| most / step <= 6.0);
            let step = step.unwrap_or(most);
            let ticks = (0..).map(|tick| f64::from(tick) * step);
            ticks.take_while(|tick| *tick < most + step).collect()
        };
        let highest = ticks.iter().copied().fold(most, f64::max);
        Self {
            ticks,
            // Room for the legend.
            top: match scale.is_logarithmic {
                true => highest * 3.0,
                false => highest * 1.2,
            },
            is_logarithmic: scale.is_logarithmic,
        }
    }

    fn height(&self, rate: f64) -> f64 {
        match self.is_logarithmic {
            true => rate.ln_1p(),
            false => rate,
        }
    }
}

impl Ranged for Rates {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, rate: &f64, (bottom, top): (i32, i32)) -> i32 {
        let part = self.height(*rate) / self.height(self.top);
        bottom + (f64::from(top - bottom) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.top
    }
}

fn rate(count: u64, width: Nanos) -> f64 {
    count as f64 / seconds(width)
}
