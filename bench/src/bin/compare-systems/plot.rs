//! Charts for records: lines over two logarithmic axes, as SVG. No font is looked for: the viewer's own
//! sans-serif is used, and the one that is built in measured in its place.

use crate::drawing::{Line, Pen, marks, whole};
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

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

impl Chart {
    /// Writes the chart, unless there is nothing to draw.
    pub(crate) fn write(&self, path: &Path) -> Result<bool, String> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (Some(x), Some(y)) = (span(points().map(|p| p.0)), span(points().map(|p| p.1))) else {
            return Ok(false);
        };
        // Room on the right that no line reaches, for the legend.
        let x = x.start..x.end * (x.end / x.start).powf(0.35);
        let x_marks = if self.marks.is_empty() { marks(&x) } else { self.marks.clone() };
        let y_marks = marks(&y);
        self.draw(path, (x, x_marks), (y, y_marks))
            .map(|()| true)
            .map_err(|problem| format!("{}: {problem}", path.display()))
    }

    fn draw(
        &self,
        path: &Path,
        (x, x_marks): (Range<f64>, Vec<f64>),
        (y, y_marks): (Range<f64>, Vec<f64>),
    ) -> Result<(), Box<dyn std::error::Error>> {
        let pen = Pen { scale: 1 };
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        let mut over = pen.ground(&area)?.caption(&self.title, pen.text(17)).build_cartesian_2d(
            x.log_scale().with_key_points(x_marks),
            y.log_scale().with_key_points(y_marks),
        )?;
        pen.axes(&mut over, (self.x, &grouped), (self.y, &grouped))?;
        pen.lines(&mut over, &self.lines, 3)?;
        over.configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font(pen.text(13))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// From the least to the greatest value above zero, with room around them.
fn span(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (least, most) = values
        .filter(|value| 0.0 < *value)
        .fold((f64::INFINITY, 0.0_f64), |(least, most), n| (least.min(n), most.max(n)));
    (least <= most).then(|| least / 1.3..most * 1.6)
}

/// A whole number with its thousands apart; digits behind the point only below one.
pub(crate) fn grouped(n: f64) -> String {
    if n < 1.0 {
        return format!("{n}");
    }
    whole(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let line = Line {
            name: "etcd p99".into(),
            colour: 1,
            faint: false,
            dashed: false,
            points,
            mark: None,
        };
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
    fn numbers_are_for_people() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!((grouped(999.0), grouped(0.5)), ("999".into(), "0.5".into()));
    }
}
