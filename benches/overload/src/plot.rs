//! The figures as a picture: goodput and latency over load.

use plotters::{coord::Shift, prelude::*};

use crate::{BoxError, Point};

const WITH: RGBColor = RGBColor(0, 92, 175);
const WITHOUT: RGBColor = RGBColor(201, 79, 28);

/// One curve a panel.
type Value = fn(&Point, f64) -> f64;

pub(crate) fn draw(
    path: &str,
    best: f64,
    with: &[Point],
    without: &[Point],
) -> Result<(), BoxError> {
    let root = SVGBackend::new(path, (960, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(480);
    let goodput: Value = |point, best| point.goodput / best;
    let latency: Value = |point, _| point.p99.as_secs_f64();
    let series = [
        ("with the throttle", WITH, with),
        ("without", WITHOUT, without),
    ];
    panel(&left, "Goodput, of the best", 1.2, best, goodput, &series)?;
    panel(
        &right,
        "p99 of what is admitted, s",
        11.0,
        best,
        latency,
        &series,
    )?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    caption: &str,
    top: f64,
    best: f64,
    value: Value,
    series: &[(&str, RGBColor, &[Point])],
) -> Result<(), BoxError> {
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(40)
        .build_cartesian_2d((0.35..11.0).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("offered load, of what it can serve (logarithmic)")
        .x_label_formatter(&|load| format!("{load:.1}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (name, colour, points) in series {
        let colour = *colour;
        let places = || points.iter().map(|point| (point.load, value(point, best)));
        chart
            .draw_series(LineSeries::new(places(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(places().map(|place| Circle::new(place, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
