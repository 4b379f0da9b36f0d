//! Lines over a number, as a picture in SVG.
use std::{fmt::Display, ops::Range};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Width and height.
const SIZE: (u32, u32) = (760, 420);
/// Okabe and Ito's colours, which people who see fewer colours can tell apart, and three more.
const COLOURS: [RGBColor; 10] = [
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
    RGBColor(140, 86, 75),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 94, 240),
];

/// Room for names to the right of the lines, as a share of theirs.
const LEGEND: f64 = 0.4;

/// A line with its name: points from left to right.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Texts around a plot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Titles<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    /// Where the upward axis begins.
    pub(crate) from: From,
}

/// Where an axis begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// At 0, for figures of which twice as high is twice as much.
    Zero,
    /// A little below the lowest number, for small differences of large figures.
    Lowest,
}

impl From {
    fn range(self, numbers: impl Iterator<Item = f64> + Clone) -> Range<f64> {
        let (low, high) = (
            numbers.clone().fold(f64::INFINITY, f64::min),
            numbers.fold(f64::NEG_INFINITY, f64::max),
        );
        match self {
            Self::Lowest if low < high => {
                let edge = 0.08 * (high - low);
                low - edge..high + edge
            }
            _ => 1.08 * low.min(0.0)..1.08 * high.max(1e-9),
        }
    }
}

/// Draws lines over all their numbers.
pub(crate) fn lines(titles: Titles<'_>, lines: &[Line]) -> Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = points().map(|point| point.0).fold(0.0, f64::max);
    let mut svg = String::new();
    let height = titles.from.range(points().map(|point| point.1));
    draw(titles, lines, right.max(1.0), height, &mut svg)
        .map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

fn draw(
    titles: Titles<'_>,
    lines: &[Line],
    right: f64,
    height: Range<f64>,
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .caption(titles.title, ("sans-serif", 18))
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..(1.0 + LEGEND) * right, height)?;
    chart
        .configure_mesh()
        .x_desc(titles.x)
        .y_desc(titles.y)
        .x_label_formatter(&|&number| {
            let is_on_axis = number <= right;
            if is_on_axis {
                short(&number)
            } else {
                String::new()
            }
        })
        .y_label_formatter(&|number| short(number))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 228, 234))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points = line.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(&line.name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(225, 228, 234))
        .label_font(("sans-serif", 13))
        .draw()?;
    area.present()?;
    Ok(())
}

/// A number without zeros that say nothing.
fn short(number: &impl Display) -> String {
    let text = format!("{number:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plot_has_every_line_and_text() {
        let line = |name: &str, y| Line {
            name: name.to_owned(),
            points: vec![(0.0, 1.0), (100.0, y)],
        };
        let titles = Titles {
            title: "Speed",
            x: "depth",
            y: "ms",
            from: From::Zero,
        };
        let svg = lines(titles, &[line("a & b", 2.0), line("c", 5.0)]).expect("draws");
        for text in ["Speed", "depth", "ms", "a &amp; b", "c"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(lines(titles, &[]).is_ok(), "nothing to draw");
        assert!(lines(titles, &[line("below", -3.0)]).is_ok());
    }

    #[test]
    fn axes_begin_where_they_should() {
        let range = |from: From, numbers: [f64; 2]| from.range(numbers.into_iter());
        assert_eq!(range(From::Zero, [50.0, 100.0]), 0.0..108.0);
        assert_eq!(range(From::Zero, [-100.0, 100.0]), -108.0..108.0);
        assert_eq!(range(From::Lowest, [50.0, 150.0]), 42.0..158.0);
        assert_eq!(range(From::Lowest, [50.0, 50.0]), 0.0..54.0);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [2000.0, 0.25, 0.0, 12.5].map(|number| short(&number)),
            ["2000", "0.25", "0", "12.5"]
        );
    }
}
