//! How a chart looks, whichever program draws it: its colours, its text, its lines, its legend, and the marks and
//! numbers on its axes. What a chart is of, and where it is written, is for the `plot.rs` of each.

use crate::font;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use std::error::Error;
use std::ops::Range;

/// Told apart by people who cannot tell red from green; after the last one, the first again.
pub(crate) const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 90, 181),
    RGBColor(220, 90, 20),
    RGBColor(120, 60, 150),
    RGBColor(90, 90, 90),
    RGBColor(0, 140, 120),
    RGBColor(190, 150, 0),
];

/// One line of a chart.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Which colour: lines of one target share it.
    pub(crate) colour: usize,
    /// Paler: the line that goes with another one.
    pub(crate) faint: bool,
    /// Points, by rising x; on a logarithmic axis above zero.
    pub(crate) points: Vec<(f64, f64)>,
    /// Dashed: not measured, but a bound.
    pub(crate) dashed: bool,
    /// A point to make a mark of: the knee.
    pub(crate) mark: Option<(f64, f64)>,
}

impl Line {
    /// Its colour.
    pub(crate) fn style(&self) -> RGBColor {
        let colour = COLOURS[self.colour % COLOURS.len()];
        if self.faint { pale(colour) } else { colour }
    }

    /// Whether it has gaps: where the colours begin again, they would mean two things.
    pub(crate) fn is_dashed(&self) -> bool {
        self.dashed || COLOURS.len() <= self.colour
    }
}

/// Draws a chart piece by piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pen {
    /// Pixels for each unit of the sizes of text and lines.
    pub(crate) scale: u32,
}

impl Pen {
    /// Text of so many units.
    pub(crate) fn text(self, size: u32) -> (&'static str, u32) {
        (font::NAME, size * self.scale)
    }

    /// A white ground, with room for the axes and what is said beside them.
    pub(crate) fn ground<'a, 'b, B>(
        self,
        area: &'a DrawingArea<B, Shift>,
    ) -> Result<ChartBuilder<'a, 'b, B>, Box<dyn Error>>
    where
        B: DrawingBackend,
        B::ErrorType: 'static,
    {
        let scale = self.scale;
        font::register();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(area);
        builder.margin(14 * scale).x_label_area_size(42 * scale).y_label_area_size(72 * scale);
        Ok(builder)
    }

    /// Axes, each with its title and what is said at its marks.
    pub(crate) fn axes<B, X, Y>(
        self,
        over: &mut ChartContext<'_, B, Cartesian2d<X, Y>>,
        (x_title, x_label): (&str, &dyn Fn(f64) -> String),
        (y_title, y_label): (&str, &dyn Fn(f64) -> String),
    ) -> Result<(), Box<dyn Error>>
    where
        B: DrawingBackend,
        B::ErrorType: 'static,
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        over.configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(x_title)
            .y_desc(y_title)
            .x_label_formatter(&|x| x_label(*x))
            .y_label_formatter(&|y| y_label(*y))
            .label_style(self.text(13))
            .axis_desc_style(self.text(14))
            .draw()?;
        Ok(())
    }

    /// The lines that have points, each of which is a dot of `dots` units; of none, if it is zero.
    pub(crate) fn lines<'a, B, X, Y>(
        self,
        over: &mut ChartContext<'a, B, Cartesian2d<X, Y>>,
        lines: &[Line],
        dots: u32,
    ) -> Result<(), Box<dyn Error>>
    where
        B: DrawingBackend + 'a,
        B::ErrorType: 'static,
        X: Ranged<ValueType = f64>,
        Y: Ranged<ValueType = f64>,
    {
        let scale = self.scale;
        for line in lines.iter().filter(|line| !line.points.is_empty()) {
            let style = line.style().stroke_width(2 * scale);
            let length = 18 * scale as i32;
            let drawn = if line.is_dashed() {
                let points = line.points.clone().into_iter();
                over.draw_series(DashedLineSeries::new(points, 6 * scale, 4 * scale, style))?
            } else {
                let points = LineSeries::new(line.points.iter().copied(), style);
                over.draw_series(points.point_size(dots * scale))?
            };
            drawn
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + length, y)], style));
            over.draw_series(line.mark.map(|at| Circle::new(at, 8 * scale, style)))?;
        }
        Ok(())
    }
}

/// Half way to white, and opaque: where pale lines cross nothing gets darker.
fn pale(RGBColor(red, green, blue): RGBColor) -> RGBColor {
    let half = |part: u8| part / 2 + 127;
    RGBColor(half(red), half(green), half(blue))
}

/// The marks of a logarithmic axis: 1, 2 and 5 of every power of ten in the range.
pub(crate) fn marks(range: &Range<f64>) -> Vec<f64> {
    let powers = -3..=12;
    let marks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10_f64.powi(power)));
    marks.filter(|mark| range.contains(mark)).collect()
}

/// A number without digits behind the point, and with its thousands apart.
pub(crate) fn whole(n: f64) -> String {
    let digits = format!("{n:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_numbers_are_for_people() {
        assert_eq!(marks(&(90.0..600.0)), [100.0, 200.0, 500.0]);
        assert_eq!([1_234_567.4, 1e3, 999.0].map(whole), ["1,234,567", "1,000", "999"]);
    }
}
