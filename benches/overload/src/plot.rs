//! The figures as a picture: goodput and latency over load.

use plotters::{coord::Shift, prelude::*};

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
    /// The end of the vertical axis.
    top: f64,
    legend: SeriesLabelPosition,
    value: &'a dyn Fn(&Point) -> f64,
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
            name: "without",
            colour: RGBColor(201, 79, 28),
            points: without,
        },
    ];
    let goodput = Panel {
        caption: "Goodput, of the best",
        top: 1.2,
        legend: SeriesLabelPosition::LowerLeft,
        value: &|point| point.goodput / best,
    };
    let latency = Panel {
        caption: "p99 of what is admitted, in seconds",
        top: 11.0,
        legend: SeriesLabelPosition::MiddleRight,
        value: &|point| point.p99.as_secs_f64(),
    };
    let root = SVGBackend::new(path, (960, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(480);
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
            .caption(self.caption, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(40)
            .build_cartesian_2d((0.35..11.0).log_scale(), 0.0..self.top)?;
        chart
            .configure_mesh()
            .x_desc("offered load, of what it can serve (logarithmic)")
            .x_labels(6)
            .max_light_lines(0)
            .draw()?;
        for Series {
            name,
            colour,
            points,
        } in series
        {
            let (colour, line) = (*colour, colour.stroke_width(2));
            let places = || points.iter().map(|point| (point.load, (self.value)(point)));
            chart
                .draw_series(LineSeries::new(places(), line))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], line));
            chart.draw_series(places().map(|place| Circle::new(place, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(self.legend.clone())
            .background_style(WHITE)
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }
}
