//! The figures as a picture: goodput and latency over load.

use std::ops::Range;

use plotters::{
    coord::{
        Shift,
        ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    },
    prelude::*,
};

use crate::{BoxError, Point};

/// The points of a kind of server.
struct Series<'a> {
    name: &'static str,
    colour: RGBColor,
    points: &'a [Point],
}

/// One half of the picture.
struct Panel<'a> {
    caption: &'static str,
    axis: &'static str,
    /// The end of the vertical axis.
    top: f64,
    digits: usize,
    legend: SeriesLabelPosition,
    value: &'a dyn Fn(&Point) -> f64,
}

/// The loads, each with its mark on a logarithmic axis.
struct Loads;

impl Loads {
    const RANGE: Range<f64> = 0.35..11.5;
    /// Further loads are too close to these for a label.
    const MARKS: [f64; 6] = [0.4, 0.8, 1.0, 2.0, 4.0, 10.0];
}

impl Ranged for Loads {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, load: &f64, (left, right): (i32, i32)) -> i32 {
        let Range { start, end } = Self::RANGE;
        let part = (load / start).ln() / (end / start).ln();
        left + (f64::from(right - left) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        Self::MARKS.to_vec()
    }

    fn range(&self) -> Range<f64> {
        Self::RANGE
    }
}

pub(crate) fn draw(
    path: &str,
    best: f64,
    with: &[Point],
    without: &[Point],
) -> Result<(), BoxError> {
    let series = [
        Series {
            name: "with the throttle",
            colour: RGBColor(0, 92, 175),
            points: with,
        },
        Series {
            name: "without the throttle",
            colour: RGBColor(201, 79, 28),
            points: without,
        },
    ];
    let goodput = Panel {
        caption: "Goodput: tokens of whole answers",
        axis: "share of the server's best",
        top: 1.2,
        digits: 1,
        legend: SeriesLabelPosition::LowerLeft,
        value: &|point| point.goodput / best,
    };
    let latency = Panel {
        caption: "Latency of admitted requests, p99",
        axis: "seconds (clients hang up after 10)",
        top: 11.0,
        digits: 0,
        legend: SeriesLabelPosition::MiddleRight,
        value: &|point| point.p99.as_secs_f64(),
    };
    let root = SVGBackend::new(path, (1_120, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(560);
    goodput.draw(&left, &series)?;
    latency.draw(&right, &series)?;
    root.present()?;
    Ok(())
}

impl Panel<'_> {
    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        series: &[Series<'_>],
    ) -> Result<(), BoxError> {
        let mut chart = ChartBuilder::on(area)
            .caption(self.caption, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(54)
            .y_label_area_size(64)
            .build_cartesian_2d(Loads, 0.0..self.top)?;
        chart
            .configure_mesh()
            .x_desc("offered load, in multiples of what the server can serve (logarithmic)")
            .y_desc(self.axis)
            .axis_desc_style(("sans-serif", 16))
            .label_style(("sans-serif", 16))
            .x_label_formatter(&|load| format!("{load} ×"))
            .y_label_formatter(&|value| format!("{value:.*}", self.digits))
            .max_light_lines(0)
            .draw()?;
        for Series {
            name,
            colour,
            points,
        } in series
        {
            let (colour, line) = (*colour, colour.stroke_width(3));
            let places = || points.iter().map(|point| (point.load, (self.value)(point)));
            chart
                .draw_series(LineSeries::new(places(), line))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], line));
            chart.draw_series(places().map(|place| Circle::new(place, 4, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(self.legend.clone())
            .label_font(("sans-serif", 17))
            .background_style(WHITE)
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }
}
