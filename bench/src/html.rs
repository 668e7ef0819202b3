//! A run as one page that needs nothing else: figures, settings, and latency by percentile, drawn as SVG.

use std::error::Error;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use crate::args::Plan;
use crate::report::{self, Figures};
use crate::run::Outcome;

const SIZE: (u32, u32) = (860, 420);
const READS: RGBColor = RGBColor(0, 90, 181);
const WRITES: RGBColor = RGBColor(220, 90, 20);
/// As far as percentiles are drawn: one in so many.
const TAIL_MAX: f64 = 1e6;

/// The page.
pub(crate) fn page(
    plan: &Plan,
    outcomes: &[Outcome],
    figures: &[Figures],
) -> Result<String, String> {
    let json = report::json(plan, outcomes, figures);
    let mut reads = crate::record::histogram();
    let mut writes = crate::record::histogram();
    for outcome in outcomes {
        reads.add(&outcome.record.reads).expect("all histograms have the same bounds");
        writes.add(&outcome.record.writes).expect("all histograms have the same bounds");
    }
    let chart = chart(&reads, &writes).map_err(|problem| format!("the chart: {problem}"))?;
    let mut rows = String::new();
    let mut columns: Vec<(String, &serde_json::Value)> = (1..)
        .zip(json["runs"].as_array().into_iter().flatten())
        .map(|(number, run)| (format!("run {number}"), run))
        .collect();
    if columns.len() > 1 {
        columns.push(("median".into(), &json["median"]));
    }
    let names = json["median"].as_object().into_iter().flatten().map(|(name, _)| name);
    for name in names {
        let cells: Vec<String> = columns.iter().map(|(_, run)| shown(&run[name])).collect();
        if cells.iter().all(String::is_empty) {
            continue;
        }
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(rows, "<tr><th scope=\"row\">{}</th>{cells}</tr>", words(name));
    }
    let head: String =
        columns.iter().map(|(name, _)| format!("<th scope=\"col\">{name}</th>")).collect();
    let mut settings = String::new();
    for (name, value) in json["plan"].as_object().into_iter().flatten() {
        let value = shown(value);
        if !value.is_empty() {
            let _ = writeln!(settings, "<dt>{}</dt><dd>{value}</dd>", words(name));
        }
    }
    let (command, machine) = (shown(&json["command"]), &json["machine"]);
    let machine =
        format!("{} cores, Linux {}", shown(&machine["cores_count"]), shown(&machine["kernel"]));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Load report</title>\n\
         <style>{STYLE}</style>\n<main><h1>Load report</h1>\n<p><code>{command}</code><br>{machine}</p>\n\
         <figure>{chart}<figcaption>Latency by percentile, all runs together. Counted from when an operation was to be sent, \
         if there is a rate, and from when it was sent, if there is none.</figcaption></figure>\n\
         <h2>Figures</h2>\n<table><tr><td></td>{head}</tr>\n{rows}</table>\n\
         <h2>Settings</h2>\n<dl>{settings}</dl></main></html>\n"
    ))
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem;color:#1a1a1a;background:#fff}\
    main{max-width:60rem;margin:auto}code{overflow-wrap:anywhere}figure{margin:1rem 0}svg{max-width:100%;height:auto}\
    figcaption{color:#555;font-size:.9rem}table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;\
    border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}th[scope=row]{text-align:left;font-weight:normal}\
    dl{display:grid;grid-template-columns:max-content auto;gap:.1rem 1rem}dd{margin:0}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}figcaption{color:#aaa}td,th{border-color:#333}}";

/// A name for people: its unit apart.
fn words(name: &str) -> String {
    let (name, unit) = match name.rsplit_once('_') {
        Some((name, unit @ ("us" | "s" | "bytes"))) => (name, unit),
        _ => (name.strip_suffix("_count").unwrap_or(name), ""),
    };
    let unit = if unit == "us" { "µs" } else { unit };
    let name = name.replace('_', " ");
    if unit.is_empty() { name } else { format!("{name}, {unit}") }
}

fn text_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The same, as HTML.
fn shown(value: &serde_json::Value) -> String {
    text_of(value).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Latency in µs over one in how many operations is slower.
fn curve(ns: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = ns.iter_quantiles(10).filter(|step| step.quantile_iterated_to() < 1.0);
    let points = steps.map(|step| {
        let slower = 1.0 / (1.0 - step.quantile_iterated_to());
        (slower, step.value_iterated_to().min(ns.max()) as f64 / 1e3)
    });
    points.filter(|(slower, us)| *slower <= TAIL_MAX && *us > 0.0).collect()
}

/// A name, its colour, and points by rising x.
type Curve = (&'static str, RGBColor, Vec<(f64, f64)>);

fn chart(reads: &Histogram<u64>, writes: &Histogram<u64>) -> Result<String, Box<dyn Error>> {
    let lines: Vec<Curve> = [("reads", READS, curve(reads)), ("writes", WRITES, curve(writes))]
        .into_iter()
        .filter(|(_, _, points)| !points.is_empty())
        .collect();
    let points = || lines.iter().flat_map(|(_, _, points)| points);
    let most = |it: &dyn Fn(&(f64, f64)) -> f64| points().map(it).fold(1.0_f64, f64::max);
    let least = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    if lines.is_empty() {
        return Ok(String::from("<p>Nothing was measured.</p>"));
    }
    let (right, top) = (most(&|point| point.0) * 1.5, most(&|point| point.1) * 1.5);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(14)
            .x_label_area_size(42)
            .y_label_area_size(72)
            .build_cartesian_2d(
                (1.0..right.max(20.0))
                    .log_scale()
                    .with_key_points(vec![2.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]),
                (least / 1.5..top).log_scale(),
            )?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("percentile")
            .y_desc("latency, µs")
            .x_label_formatter(&|slower| percentile(*slower))
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .draw()?;
        for (name, colour, points) in lines {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font(("sans-serif", 13))
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

/// `one in 1000 is slower` as `99.9`.
fn percentile(slower: f64) -> String {
    let text = format!("{:.4}", 100.0 - 100.0 / slower);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_names_are_for_people() {
        assert_eq!([2.0, 10.0, 1e3, 1e6].map(percentile), ["50", "90", "99.9", "99.9999"]);
        assert_eq!(words("latency_p99_us"), "latency p99, µs");
        assert_eq!(words("missing_keys_count"), "missing keys");
        assert_eq!(shown(&serde_json::json!(["a<b", null, 3])), "a&lt;b, , 3");
    }

    #[test]
    fn the_chart_has_a_line_for_what_was_measured() {
        let mut ns = crate::record::histogram();
        (1..=10_000_u64).for_each(|us| ns.record(us * 1_000).expect("within bounds"));
        let points = curve(&ns);
        let near = points.iter().find(|(slower, _)| 9.9 < *slower).expect("a ninetieth percentile");
        assert!((8_900.0..9_200.0).contains(&near.1), "{near:?}");
        let svg = chart(&crate::record::histogram(), &ns).expect("it is drawn");
        for word in ["<svg", "writes", "99.9", "latency, µs", "<polyline"] {
            assert!(svg.contains(word), "{word} is missing");
        }
        assert!(!svg.contains("reads"), "nothing was read");
        let none = crate::record::histogram();
        assert!(chart(&none, &none).expect("nothing").contains("Nothing was measured"));
    }
}
