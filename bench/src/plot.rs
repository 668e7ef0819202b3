//! Charts: lines over two axes, as SVG for pages and as PNG for everything else.
//!
//! What is drawn is a value ([`Chart`]), and both pictures are made from it by the same code.

use crate::drawing::{Line, Pen, marks, whole};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use std::error::Error;
use std::ops::Range;

/// A chart in the units its sizes of text and lines are in, and the size of its SVG.
const SIZE: (u32, u32) = (860, 420);
/// Pixels of a PNG for each of them: sharp on the screens that pages are read on.
const PNG_SCALE: u32 = 2;

/// What the axes are of, and with which scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axes {
    /// Latency in microseconds over percentiles: x is one in how many operations is slower.
    Percentiles,
    /// Operations per second over seconds, both from zero.
    Time,
    /// Latency in microseconds over offered operations per second, both logarithmic.
    Rates,
}

/// One chart.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    /// What the axes are.
    pub(crate) axes: Axes,
    /// What is drawn over them.
    pub(crate) lines: Vec<Line>,
}

impl Chart {
    /// Whether there is nothing to draw.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.points.is_empty())
    }

    /// As one `<svg>` element that refers to nothing.
    pub(crate) fn svg(&self) -> Result<String, String> {
        let mut svg = String::new();
        self.draw(SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), 1)
            .map_err(|problem| format!("the chart: {problem}"))?;
        Ok(svg)
    }

    /// As the bytes of a PNG file of 1720 × 840 pixels.
    pub(crate) fn png(&self) -> Result<Vec<u8>, String> {
        let (width, height) = (SIZE.0 * PNG_SCALE, SIZE.1 * PNG_SCALE);
        let mut pixels = vec![0; width as usize * height as usize * 3];
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        self.draw(area, PNG_SCALE).map_err(|problem| format!("the chart: {problem}"))?;
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&pixels))
            .map_err(|problem| format!("the chart as PNG: {problem}"))?;
        Ok(file)
    }

    fn draw<B>(&self, area: DrawingArea<B, Shift>, scale: u32) -> Result<(), Box<dyn Error>>
    where
        B: DrawingBackend,
        B::ErrorType: 'static,
    {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (least, most) = span(points().map(|point| point.1));
        let (first, last) = span(points().map(|point| point.0));
        let pen = Pen { scale };
        let mut builder = pen.ground(&area)?;
        match self.axes {
            Axes::Percentiles => {
                let x = (1.0..(last * 1.5).max(20.0))
                    .log_scale()
                    .with_key_points(vec![2.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
                let (y, marks) = logarithmic(least / 1.5..above(least, most));
                let over = builder.build_cartesian_2d(x, y.log_scale().with_key_points(marks))?;
                self.fill(pen, over, ("percentile", "latency, µs"), &percentile)?;
            }
            Axes::Time => {
                let over =
                    builder.build_cartesian_2d(0.0..last.max(0.1), 0.0..most.max(1.0) * 1.3)?;
                self.fill(pen, over, ("seconds", "operations a second"), &|seconds| {
                    format!("{}", (seconds * 100.0).round() / 100.0)
                })?;
            }
            Axes::Rates => {
                let (x, x_marks) = logarithmic(first / 1.2..last * 1.2);
                let (y, y_marks) = logarithmic(least / 1.5..above(least, most));
                let over = builder.build_cartesian_2d(
                    x.log_scale().with_key_points(x_marks),
                    y.log_scale().with_key_points(y_marks),
                )?;
                self.fill(pen, over, ("offered operations a second", "latency, µs"), &grouped)?;
            }
        }
        area.present()?;
        Ok(())
    }

    /// Draws the chart once its axes are known.
    fn fill<'a, B, X, Y>(
        &self,
        pen: Pen,
        mut over: ChartContext<'a, B, Cartesian2d<X, Y>>,
        (x_title, y_title): (&str, &str),
        x_label: &dyn Fn(f64) -> String,
    ) -> Result<(), Box<dyn Error>>
    where
        B: DrawingBackend + 'a,
        B::ErrorType: 'static,
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        pen.axes(&mut over, (x_title, x_label), (y_title, &grouped))?;
        let dots = match self.axes {
            // Few points, and each was measured: they are shown.
            Axes::Rates => 3,
            Axes::Percentiles | Axes::Time => 0,
        };
        pen.lines(&mut over, &self.lines, dots)?;
        pen.legend(&mut over, SeriesLabelPosition::UpperLeft)
            .legend_area_size(22 * pen.scale)
            .margin(8 * pen.scale)
            .draw()?;
        Ok(())
    }
}

/// The least and the greatest value; 1 and 1 if there is none.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), n| (least.min(n), most.max(n)));
    if least <= most { (least, most) } else { (1.0, 1.0) }
}

/// The top of a logarithmic axis: with room that no line reaches, for the legend.
fn above(least: f64, most: f64) -> f64 {
    most * 1.5 * (most / least).powf(0.25)
}

/// A range and its marks.
fn logarithmic(range: Range<f64>) -> (Range<f64>, Vec<f64>) {
    let marks = marks(&range);
    (range, marks)
}

/// `one in 1000 is slower` as `99.9`.
pub(crate) fn percentile(slower: f64) -> String {
    let text = format!("{:.4}", 100.0 - 100.0 / slower);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A whole number with its thousands apart; digits behind the point only below ten.
pub(crate) fn grouped(n: f64) -> String {
    if n < 10.0 {
        return format!("{}", (n * 100.0).round() / 100.0);
    }
    whole(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::COLOURS;

    fn chart(axes: Axes, points: Vec<(f64, f64)>) -> Chart {
        let mark = points.first().copied();
        Chart {
            axes,
            lines: vec![Line { name: "here".into(), colour: 1, faint: false, points, mark }],
        }
    }

    #[test]
    fn every_kind_of_chart_is_an_svg_with_its_words_and_a_line() {
        for (axes, words) in [
            (Axes::Percentiles, ["99.9", "latency, µs"]),
            (Axes::Time, ["seconds", "operations a second"]),
            (Axes::Rates, ["offered operations a second", "5,000"]),
        ] {
            let svg =
                chart(axes, vec![(2.0, 900.0), (3000.0, 12_000.0)]).svg().expect("it is drawn");
            assert!(svg.starts_with("<svg"), "{svg}");
            for word in ["here", "<polyline", words[0], words[1]] {
                assert!(svg.contains(word), "{axes:?}: {word} is missing");
            }
        }
    }

    #[test]
    fn a_png_has_its_size_and_something_on_it() {
        let file =
            chart(Axes::Rates, vec![(100.0, 900.0), (3000.0, 12_000.0)]).png().expect("drawn");
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("it fits memory")];
        let info = reader.next_frame(&mut pixels).expect("one picture");
        assert_eq!((info.width, info.height), (1720, 840));
        let is = |colour: RGBColor| {
            pixels.chunks(3).filter(|pixel| *pixel == [colour.0, colour.1, colour.2]).count()
        };
        // The line, and text in black: without a font there would be none.
        assert!(is(COLOURS[1]) > 1_000, "{}", is(COLOURS[1]));
        assert!(is(BLACK) > 500 && is(WHITE) > 1_000_000, "{} {}", is(BLACK), is(WHITE));
    }

    #[test]
    fn a_single_point_and_silence_are_drawn_too() {
        for axes in [Axes::Percentiles, Axes::Time, Axes::Rates] {
            assert!(chart(axes, vec![(5.0, 5.0)]).svg().is_ok(), "{axes:?}");
            let empty = chart(axes, Vec::new());
            assert!(empty.is_empty() && empty.png().is_ok(), "{axes:?}");
        }
        assert!(chart(Axes::Time, vec![(0.5, 0.0), (1.5, 0.0)]).svg().is_ok());
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([1_234_567.4, 999.0, 0.5].map(grouped), ["1,234,567", "999", "0.5"]);
        assert_eq!([2.0, 10.0, 1e3, 1e6].map(percentile), ["50", "90", "99.9", "99.9999"]);
    }
}
