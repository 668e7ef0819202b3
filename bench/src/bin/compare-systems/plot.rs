//! Charts for records: lines over two logarithmic axes, as SVG. No font is looked for: the viewer's own
//! sans-serif is used, and the one that is built in measured in its place.

use crate::font;
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

/// One line of a chart.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Which colour: lines of one system share it.
    pub(crate) colour: usize,
    /// Paler: the line that goes with another one.
    pub(crate) faint: bool,
    /// Points, by rising x; all above zero.
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a chart says.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    /// Above it.
    pub(crate) title: String,
    /// Below it.
    pub(crate) x: &'static str,
    /// Beside it.
    pub(crate) y: &'static str,
    /// Where x has marks. Empty: at powers of ten.
    pub(crate) marks: Vec<f64>,
    /// What is drawn.
    pub(crate) lines: Vec<Line>,
}

const SIZE: (u32, u32) = (760, 460);
/// One for each system, told apart by people who cannot tell red from green.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 90, 181), RGBColor(220, 90, 20), RGBColor(120, 60, 150), RGBColor(90, 90, 90)];

impl Chart {
    /// Writes the chart, unless there is nothing to draw.
    pub(crate) fn write(&self, path: &Path) -> Result<bool, String> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (Some(x), Some(y)) = (span(points().map(|p| p.0)), span(points().map(|p| p.1))) else {
            return Ok(false);
        };
        // Room on the right that no line reaches, for the legend.
        let x = x.start..x.end * (x.end / x.start).powf(0.35);
        let marks = if self.marks.is_empty() { marks_of(&x) } else { self.marks.clone() };
        let y_marks = marks_of(&y);
        self.draw(path, (x, marks), (y, y_marks))
            .map(|()| true)
            .map_err(|problem| format!("{}: {problem}", path.display()))
    }

    fn draw(
        &self,
        path: &Path,
        (x, x_marks): (Range<f64>, Vec<f64>),
        (y, y_marks): (Range<f64>, Vec<f64>),
    ) -> Result<(), Box<dyn std::error::Error>> {
        font::register();
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, (font::NAME, 17))
            .margin(14)
            .x_label_area_size(42)
            .y_label_area_size(72)
            .build_cartesian_2d(
                x.log_scale().with_key_points(x_marks),
                y.log_scale().with_key_points(y_marks),
            )?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|n| grouped(*n))
            .y_label_formatter(&|n| grouped(*n))
            .label_style((font::NAME, 13))
            .axis_desc_style((font::NAME, 14))
            .draw()?;
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let colour = COLOURS[line.colour % COLOURS.len()];
            let style = if line.faint { pale(colour) } else { colour }.stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(3))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font((font::NAME, 13))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// Half way to white, and opaque: where pale lines cross nothing gets darker.
fn pale(RGBColor(red, green, blue): RGBColor) -> RGBColor {
    let half = |part: u8| part / 2 + 127;
    RGBColor(half(red), half(green), half(blue))
}

/// From the least to the greatest value above zero, with room around them.
fn span(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (least, most) = values
        .filter(|value| 0.0 < *value)
        .fold((f64::INFINITY, 0.0_f64), |(least, most), n| (least.min(n), most.max(n)));
    (least <= most).then(|| least / 1.3..most * 1.6)
}

/// 1, 2 and 5 of every power of ten in the span.
fn marks_of(span: &Range<f64>) -> Vec<f64> {
    let powers = -3..=12;
    let marks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10_f64.powi(power)));
    marks.filter(|mark| span.contains(mark)).collect()
}

/// A whole number with its thousands apart; digits behind the point only below one.
pub(crate) fn grouped(n: f64) -> String {
    if n < 1.0 {
        return format!("{n}");
    }
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

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let line = Line { name: "etcd p99".into(), colour: 1, faint: false, points };
        Chart {
            title: "T".into(),
            x: "connections",
            y: "µs",
            marks: vec![1.0, 64.0],
            lines: vec![line],
        }
    }

    #[test]
    fn a_chart_is_an_svg_with_its_words_and_a_line() {
        let path = std::env::temp_dir().join(format!("compare-{}.svg", std::process::id()));
        let points = vec![(1.0, 900.0), (64.0, 12_000.0)];
        assert_eq!(chart(points).write(&path), Ok(true));
        let text = std::fs::read_to_string(&path).expect("it was written");
        std::fs::remove_file(&path).expect("it is ours");
        assert!(text.starts_with("<svg"), "{text}");
        for word in ["etcd p99", "connections", "µs", "64", "10,000", "<polyline"] {
            assert!(text.contains(word), "{word} is missing");
        }
    }

    #[test]
    fn nothing_measured_draws_nothing() {
        let path = std::env::temp_dir().join("compare-nothing.svg");
        assert_eq!(chart(Vec::new()).write(&path), Ok(false));
        assert!(!path.exists());
    }

    #[test]
    fn marks_and_numbers_are_for_people() {
        assert_eq!(marks_of(&(90.0..600.0)), [100.0, 200.0, 500.0]);
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!((grouped(999.0), grouped(0.5)), ("999".into(), "0.5".into()));
    }
}
