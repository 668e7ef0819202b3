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

/// Room for title and note of a PNG.
const HEAD_HEIGHT: u32 = 46;
/// Where the legend begins, below the plot's left edge, and the height of its rows.
const LEGEND_LEFT: u32 = 86;
const LEGEND_ROW_HEIGHT: u32 = 18;
/// A longer name is cut short in the legend.
const NAME_CHARS_MAX: usize = 40;
/// Titles of the axes of [`Axes::Rates`].
const TITLES_OF_RATES: (&str, &str) =
    ("offered operations a second (log scale)", "latency, µs (log scale)");

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
    /// What it is of.
    pub(crate) title: &'static str,
    /// A line below that: which loop, and from when latency counts.
    pub(crate) note: String,
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

    /// As one `<svg>` element that refers to nothing, on the ground and with the colour of text of the page that it is in; the
    /// page has title and note.
    pub(crate) fn svg(&self) -> Result<String, String> {
        let mut svg = String::new();
        self.draw(SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), 1, false)
            .map_err(|problem| format!("the chart: {problem}"))?;
        Ok(svg
            .replace("fill=\"#FFFFFF\"", "fill=\"none\"")
            .replace("\"#000000\"", "\"currentColor\""))
    }

    /// As the bytes of a PNG file of 1720 × 840 pixels.
    pub(crate) fn png(&self) -> Result<Vec<u8>, String> {
        let (width, height) = (SIZE.0 * PNG_SCALE, SIZE.1 * PNG_SCALE);
        let mut pixels = vec![0; width as usize * height as usize * 3];
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        self.draw(area, PNG_SCALE, true).map_err(|problem| format!("the chart: {problem}"))?;
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&pixels))
            .map_err(|problem| format!("the chart as PNG: {problem}"))?;
        Ok(file)
    }

    fn draw<B>(
        &self,
        area: DrawingArea<B, Shift>,
        scale: u32,
        is_titled: bool,
    ) -> Result<(), Box<dyn Error>>
    where
        B: DrawingBackend,
        B::ErrorType: 'static,
    {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (least, most) = span(points().map(|point| point.1));
        let (first, last) = span(points().map(|point| point.0));
        let pen = Pen { scale };
        area.fill(&WHITE)?;
        let head = if is_titled { HEAD_HEIGHT * scale } else { 0 };
        let (top, rest) = area.split_vertically(head);
        if is_titled {
            crate::font::register();
            let at = |y: u32| ((14 * scale) as i32, (y * scale) as i32);
            top.draw(&Text::new(self.title.to_owned(), at(10), pen.text(17)))?;
            top.draw(&Text::new(self.note.clone(), at(31), pen.text(12)))?;
        }
        let rows = self.legend_rows();
        let foot = rows.len() as u32 * LEGEND_ROW_HEIGHT + 6;
        let (middle, bottom) = rest.split_vertically((SIZE.1 - foot) * scale - head);
        let mut builder = pen.ground(&middle)?;
        match self.axes {
            Axes::Percentiles => {
                let x = (1.0..(last * 1.5).max(20.0))
                    .log_scale()
                    .with_key_points(vec![2.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
                let (y, marks) = logarithmic(least / 1.5..above(most));
                let over = builder.build_cartesian_2d(x, y.log_scale().with_key_points(marks))?;
                self.fill(pen, over, ("percentile", "latency, µs (log scale)"), &percentile)?;
            }
            Axes::Time => {
                let over =
                    builder.build_cartesian_2d(0.0..last.max(0.1), 0.0..most.max(1.0) * 1.1)?;
                self.fill(pen, over, ("seconds", "operations a second"), &|seconds| {
                    format!("{}", (seconds * 100.0).round() / 100.0)
                })?;
            }
            Axes::Rates => {
                let (x, x_marks) = logarithmic(first / 1.2..last * 1.2);
                let (y, y_marks) = logarithmic(least / 1.5..above(most));
                let over = builder.build_cartesian_2d(
                    x.log_scale().with_key_points(x_marks),
                    y.log_scale().with_key_points(y_marks),
                )?;
                self.fill(pen, over, TITLES_OF_RATES, &grouped)?;
            }
        }
        self.legend(pen, &bottom, &rows)?;
        area.present()?;
        Ok(())
    }

    /// Which lines are named in which row below the plot: as many in each as fit.
    fn legend_rows(&self) -> Vec<Vec<&Line>> {
        let (mut rows, mut left): (Vec<Vec<&Line>>, u32) = (Vec::new(), 0);
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let width = legend_width(line);
            if rows.is_empty() || left < width {
                rows.push(Vec::new());
                left = SIZE.0 - LEGEND_LEFT;
            }
            left = left.saturating_sub(width);
            rows.last_mut().expect("one was just made").push(line);
        }
        rows
    }

    fn legend<B>(
        &self,
        pen: Pen,
        area: &DrawingArea<B, Shift>,
        rows: &[Vec<&Line>],
    ) -> Result<(), Box<dyn Error>>
    where
        B: DrawingBackend,
        B::ErrorType: 'static,
    {
        let scale = pen.scale as i32;
        for (row, lines) in (0..).zip(rows) {
            let (mut x, y) = (LEGEND_LEFT as i32, row * LEGEND_ROW_HEIGHT as i32 + 2);
            for line in lines {
                let style = line.style().stroke_width(2 * pen.scale);
                let ends: &[(i32, i32)] =
                    if line.is_dashed() { &[(0, 7), (11, 18)] } else { &[(0, 18)] };
                for (from, to) in ends {
                    let at = |dx: i32| ((x + dx) * scale, (y + 7) * scale);
                    area.draw(&PathElement::new(vec![at(*from), at(*to)], style))?;
                }
                let at = ((x + 24) * scale, y * scale);
                area.draw(&Text::new(shortened(&line.name), at, pen.text(13)))?;
                x += legend_width(line) as i32;
            }
        }
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
        pen.lines(&mut over, &self.lines, dots)
    }
}

/// A name for the legend, no longer than there is room for.
fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    name.chars().take(NAME_CHARS_MAX - 1).chain(['…']).collect()
}

/// What a line takes in the legend: its sample, its name, and a gap.
fn legend_width(line: &Line) -> u32 {
    24 + shortened(&line.name).chars().count() as u32 * 8 + 16
}

/// The least and the greatest value; 1 and 1 if there is none.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), n| (least.min(n), most.max(n)));
    if least <= most { (least, most) } else { (1.0, 1.0) }
}

/// The top of a logarithmic axis.
fn above(most: f64) -> f64 {
    most * 1.5
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
            title: "A title",
            note: "a note".into(),
            axes,
            lines: vec![Line {
                name: "here".into(),
                colour: 1,
                faint: false,
                dashed: false,
                points,
                mark,
            }],
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
            // The page's own ground and colour of text, light or dark.
            assert!(svg.contains("currentColor"), "{svg}");
            assert!(!svg.contains("#000000") && !svg.contains("#FFFFFF"), "{svg}");
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
    fn the_legend_has_every_name_below_the_plot_in_rows_that_fit() {
        let mut chart = chart(Axes::Rates, vec![(100.0, 900.0), (3000.0, 12_000.0)]);
        let line = chart.lines[0].clone();
        let long = "a name that is much longer than there is room for in any legend";
        chart.lines = (0..8)
            .map(|colour| Line { name: format!("{colour} {long}"), colour, ..line.clone() })
            .collect();
        let rows = chart.legend_rows();
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 2]);
        let svg = chart.svg().expect("it is drawn");
        let name = shortened(&chart.lines[0].name);
        assert!(
            name.starts_with("0 a name") && name.ends_with('…') && svg.contains(&name),
            "{name}"
        );
        // The seventh has the colour of the first, and gaps.
        let dashed: Vec<bool> = chart.lines.iter().map(Line::is_dashed).collect();
        assert_eq!(dashed, [false, false, false, false, false, false, true, true]);
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([1_234_567.4, 999.0, 0.5].map(grouped), ["1,234,567", "999", "0.5"]);
        assert_eq!([2.0, 10.0, 1e3, 1e6].map(percentile), ["50", "90", "99.9", "99.9999"]);
    }
}
