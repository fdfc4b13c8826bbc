//! Figures as pictures: bars with their values, on axes that begin at zero. A line in the bar's foot is its spread: where
//! two of them overlap, the bars say nothing of which is longer.

use std::{error::Error, fs, path::Path};

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::processes::Spread;

/// The name of a bar, its length, and what it was between.
pub type Bar<'a> = (&'a str, Spread);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const OURS: RGBColor = RGBColor(0, 92, 175);
const THEIRS: RGBColor = RGBColor(112, 112, 112);
const FAINT: RGBColor = RGBColor(222, 222, 222);

const WIDTH: i32 = 1_020;
/// The places where bars begin and where the longest may end: names stand left of a bar, values right.
const BARS: (i32, i32) = (430, 920);
const ROW: i32 = 30;
const HEAD: i32 = 50;
const FOOT: i32 = 56;

/// One axis and its bars.
struct Panel<'a> {
    caption: &'a str,
    axis: &'a str,
    bars: &'a [Bar<'a>],
    digits: usize,
    /// The value that all bars are compared with.
    mark: Option<f64>,
}

/// Requests a second of what lets all pass, to the bare server's, and what one takes of the processor.
pub fn end_to_end(rates: &[Bar<'_>], micros: &[Bar<'_>]) {
    draw(
        "end_to_end.svg",
        &[
            Panel {
                caption: "Everything allowed: requests a second of a whole server",
                axis: "of the bare server's; lines: the middle half of the rounds",
                bars: rates,
                digits: 3,
                mark: Some(1.0),
            },
            Panel {
                caption: "Everything allowed: processor time of one request",
                axis: "µs, the kernel's part and that of the server behind a proxy included; lines: the middle half",
                bars: micros,
                digits: 1,
                mark: None,
            },
        ],
    );
}

/// Answers a second under a flood that is refused, and what a refusal takes of the processor.
pub fn flood(rates: &[Bar<'_>], micros: &[Bar<'_>]) {
    draw(
        "flood.svg",
        &[
            Panel {
                caption: "Everything refused: answers a second",
                axis: "of the bare server's, which answers 200; lines: the middle half of the rounds",
                bars: rates,
                digits: 2,
                mark: Some(1.0),
            },
            Panel {
                caption: "Everything refused: processor time of one answer",
                axis: "µs, the kernel's part included; lines: the middle half of the rounds",
                bars: micros,
                digits: 1,
                mark: None,
            },
        ],
    );
}

/// Nanoseconds over the bare service.
pub fn layers(allowed: &[Bar<'_>], refused: &[Bar<'_>]) {
    let panel = |caption, bars| Panel {
        caption,
        axis: "ns over the bare service; lines: lowest to highest of the processes",
        bars,
        digits: 0,
        mark: None,
    };
    draw(
        "layers.svg",
        &[
            panel("A request that is allowed: time in the layer", allowed),
            panel(
                "A request that is refused: time in the layer (its own axis)",
                refused,
            ),
        ],
    );
}

/// A million keys: bytes of each, and nanoseconds of a decision among them.
pub fn keys(bytes: &[Bar<'_>], nanos: &[Bar<'_>]) {
    let panel = |caption, axis, bars| Panel {
        caption,
        axis,
        bars,
        digits: 0,
        mark: None,
    };
    draw(
        "keys.svg",
        &[
            panel("A million live keys: memory", "bytes a key", bytes),
            panel(
                "A million live keys: one decision",
                "ns; lines: lowest to highest of the processes",
                nanos,
            ),
        ],
    );
}

fn draw(file: &str, panels: &[Panel<'_>]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plots");
    let drawn = fs::create_dir_all(&directory)
        .map_err(Into::into)
        .and_then(|()| write(&directory.join(file), panels));
    drawn.unwrap_or_else(|fault| panic!("{file} cannot be drawn: {fault}"));
}

fn write(path: &Path, panels: &[Panel<'_>]) -> Result<(), Box<dyn Error>> {
    let heights = panels.iter().map(Panel::height);
    let size = (WIDTH as u32, heights.sum::<i32>() as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let mut top = 0;
    for panel in panels {
        panel.draw(&root, top)?;
        top += panel.height();
    }
    root.present()?;
    Ok(())
}

impl Panel<'_> {
    fn height(&self) -> i32 {
        HEAD + ROW * self.bars.len() as i32 + FOOT
    }

    fn draw(&self, root: &Area<'_>, top: i32) -> Result<(), Box<dyn Error>> {
        let longest = self.bars.iter().map(|bar| bar.1.highest);
        let longest = longest.chain(self.mark);
        let (end, step) = ticks(longest.fold(0.0, f64::max));
        let (from, to) = BARS;
        let x = |value: f64| from + (f64::from(to - from) * value / end).round() as i32;
        let (first, last) = (top + HEAD, top + HEAD + ROW * self.bars.len() as i32);
        let text = |what: String, at, size: i32, side, colour: RGBColor| {
            let place = Pos::new(side, VPos::Center);
            let style = ("sans-serif", size).into_font().color(&colour).pos(place);
            root.draw(&Text::new(what, at, style))
        };
        text(
            self.caption.to_owned(),
            (WIDTH / 2, top + 24),
            19,
            HPos::Center,
            BLACK,
        )?;
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        for tick in 0..=(end / step).round() as u32 {
            let value = f64::from(tick) * step;
            let line = [(x(value), first), (x(value), last + 4)];
            root.draw(&PathElement::new(line, FAINT))?;
            let label = format!("{value:.decimals$}");
            text(label, (x(value), last + 14), 13, HPos::Center, BLACK)?;
        }
        text(
            self.axis.to_owned(),
            ((from + to) / 2, last + 34),
            14,
            HPos::Center,
            BLACK,
        )?;
        if let Some(mark) = self.mark {
            let line = [(x(mark), first), (x(mark), last)];
            root.draw(&PathElement::new(line, BLACK))?;
        }
        for (row, (name, spread)) in self.bars.iter().enumerate() {
            let middle = first + ROW * row as i32 + ROW / 2;
            let colour = match name.starts_with("tower-throttle") {
                true => OURS,
                false => THEIRS,
            };
            let end = x(spread.median.max(0.0));
            let corners = [(from, middle - 10), (end, middle + 10)];
            root.draw(&Rectangle::new(corners, colour.filled()))?;
            text(
                (*name).to_owned(),
                (from - 10, middle),
                15,
                HPos::Right,
                BLACK,
            )?;
            let told = format!("{:.*}", self.digits, spread.median);
            // Within the bar, where no line crosses it, if there is room.
            match end - from > 80 {
                true => text(told, (end - 8, middle - 2), 15, HPos::Right, WHITE)?,
                false => text(told, (end + 8, middle - 2), 15, HPos::Left, BLACK)?,
            }
            if spread.lowest < spread.highest {
                let [low, high] = [spread.lowest, spread.highest].map(|value| x(value.max(0.0)));
                let line = [(low, middle + 8), (high, middle + 8)];
                root.draw(&PathElement::new(line, BLACK))?;
            }
        }
        root.draw(&PathElement::new([(from, first), (from, last)], BLACK))?;
        Ok(())
    }
}

/// The end of an axis that holds this much, and the distance of its ticks.
fn ticks(longest: f64) -> (f64, f64) {
    let power = 10_f64.powf((longest.max(1e-9) / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = step.into_iter().find(|step| longest / step <= 6.0);
    let step = step.unwrap_or(10.0 * power);
    ((longest / step).ceil() * step, step)
}
