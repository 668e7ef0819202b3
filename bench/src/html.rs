//! What was measured as one page that needs nothing else: charts as SVG, tables, settings.

use std::fmt::Write as _;

use serde_json::Value;

use crate::args::Plan;
use crate::comparison::ROWS;
use crate::measured::Results;
use crate::plot::grouped;
use crate::{charts, json, sweep};

/// The page.
pub(crate) fn page(plan: &Plan, results: &Results) -> Result<String, String> {
    let json = json::of(plan, results);
    let (mut body, mut troubles) = (String::new(), Vec::new());
    for named in charts::of(results) {
        let (svg, caption) = (named.chart.svg()?, named.caption);
        let _ = writeln!(body, "<figure>{svg}<figcaption>{caption}</figcaption></figure>");
    }
    if results.sides.iter().all(|side| side.median().get("ops_count").unwrap_or(0.0) == 0.0) {
        body.push_str("<p>Nothing was measured.</p>\n");
    }
    if !results.sweeps.is_empty() {
        let _ = writeln!(body, "<h2>Rates</h2>\n<p>{}</p>", sweep::definition(plan));
        for target in list(&json["targets"]) {
            rates(target, &mut body);
        }
        body.push_str("<h2>At the knee</h2>\n");
        let columns =
            list(&json["targets"]).map(|target| Column::of(name_of(target), &target["median"]));
        figures(&columns.collect::<Vec<_>>(), &mut body);
    } else if plan.name.is_empty() {
        body.push_str("<h2>Figures</h2>\n");
        figures(&with_median("", &json), &mut body);
    } else {
        let first = &plan.sides[0].name;
        let _ = writeln!(
            body,
            "<h2>Side by side</h2>\n<p>Medians of {}. Ratios are taken within a round; the median of these is \
             shown.</p>",
            results.extent(plan).unwrap_or_else(|| format!("{} rounds", plan.runs))
        );
        let mut columns = Vec::new();
        for (index, target) in list(&json["targets"]).enumerate() {
            columns.push(Column::of(name_of(target), &target["median"]));
            if index > 0 {
                let (title, value) = (format!("÷ {first}"), &target["ratio_to_first"]);
                columns.push(Column { title, value, is_ratio: true });
            }
        }
        figures(&columns, &mut body);
        body.push_str("<h2>Every round</h2>\n");
        let rounds = |target| with_median(&name_of(target), target);
        figures(&list(&json["targets"]).flat_map(rounds).collect::<Vec<_>>(), &mut body);
    }
    body.push_str("<h2>Settings</h2>\n<dl>");
    for target in list(&json["targets"]) {
        let (protocol, addresses) = (text_of(&target["target"]), text_of(&target["addresses"]));
        setting(&name_of(target), &format!("{protocol}: {addresses}"), &mut body);
        setting(&format!("{} is", name_of(target)), &text_of(&target["server_version"]), &mut body);
        let ended = text_of(&target["ended"]);
        if !ended.is_empty() {
            troubles.push(format!("{} {ended}", name_of(target)).trim().to_owned());
        }
    }
    troubles.extend(results.extent(plan));
    let troubles: String = troubles
        .iter()
        .map(|trouble| format!("<p><strong>{}</strong></p>\n", escaped(trouble)))
        .collect();
    // Of one target without a name it stands at the top.
    setting("server", &text_of(&json["server_version"]), &mut body);
    for (name, value) in json["plan"].as_object().into_iter().flatten() {
        setting(&words(name), &text_of(value), &mut body);
    }
    let (command, machine) = (shown(&json["command"]), &json["machine"]);
    let machine = format!(
        "{} · {} · {} cores, Linux {} · {}",
        shown(&json["date"]),
        shown(&machine["processor"]),
        shown(&machine["cores_count"]),
        shown(&machine["kernel"]),
        shown(&json["generator"]),
    );
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Load report</title>\n\
         <style>{STYLE}</style>\n<main><h1>Load report</h1>\n<p><code>{command}</code><br>{machine}</p>\n\
         {troubles}{body}</dl></main></html>\n"
    ))
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem;color:#1a1a1a;background:#fff}\
    main{max-width:60rem;margin:auto}code{overflow-wrap:anywhere}figure{margin:1rem 0}svg{max-width:100%;height:auto}\
    figcaption{color:#555;font-size:.9rem}div{overflow-x:auto}table{border-collapse:collapse}td,th{padding:.2rem .8rem;\
    text-align:right;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}th[scope=row]{text-align:left;\
    font-weight:normal}tr.knee{font-weight:bold}\
    th:first-child{position:sticky;left:0;background:inherit}table,tr{background:inherit}div{background:inherit}\
    main,details{background:inherit}summary{cursor:pointer;margin:.5rem 0}\
    dl{display:grid;grid-template-columns:max-content auto;gap:.1rem 1rem}dd{margin:0}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}figcaption{color:#aaa}td,th{border-color:#333}}";

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A target's name; the only one may have none.
fn name_of(target: &Value) -> String {
    let name = text_of(&target["name"]);
    if name.is_empty() { "target".into() } else { name }
}

/// The runs of one target, and their median if there are several.
fn with_median<'a>(name: &str, target: &'a Value) -> Vec<Column<'a>> {
    let titled = |what: String| format!("{name} {what}").trim().to_owned();
    let mut columns: Vec<Column> = (1..)
        .zip(list(&target["runs"]))
        .map(|(number, run)| {
            let cut = if run["interrupted"] == true { " (cut short)" } else { "" };
            Column::of(titled(format!("run {number}{cut}")), run)
        })
        .collect();
    if columns.len() > 1 {
        columns.push(Column::of(titled("median".into()), &target["median"]));
    }
    columns
}

/// One column of a table of figures.
struct Column<'a> {
    title: String,
    /// The figures, by name.
    value: &'a Value,
    /// They are ratios to another column's.
    is_ratio: bool,
}

impl<'a> Column<'a> {
    fn of(title: String, value: &'a Value) -> Self {
        Self { title, value, is_ratio: false }
    }

    /// What is in the row of that name.
    fn cell(&self, name: &str) -> String {
        let Some(number) = self.value[name].as_f64() else { return String::new() };
        if self.is_ratio {
            return format!("{number:.2}");
        }
        let bounded = list(&self.value["lower_bounds"]).any(|bound| *bound == name);
        format!("{}{}", if bounded { "≥" } else { "" }, grouped(number))
    }
}

/// Figures as tables, with a column for each of `columns`: the rows of the comparison that is printed, and all the others
/// where who wants them finds them.
fn figures(columns: &[Column], page: &mut String) {
    // The first may be a target without a knee, and then without figures.
    let full = columns.iter().find_map(|column| column.value.as_object());
    let first = |name: &str| ROWS.iter().any(|(known, _)| *known == name);
    let others = full.into_iter().flatten().filter(|(name, value)| {
        !value.is_object() && !value.is_array() && !value.is_boolean() && !first(name)
    });
    let others: Vec<(&str, String)> =
        others.map(|(name, _)| (name.as_str(), words(name))).collect();
    table(columns, ROWS.iter().map(|(name, title)| (*name, (*title).to_owned())), page);
    page.push_str("<details><summary>All figures</summary>\n");
    table(columns, others.into_iter(), page);
    page.push_str("</details>\n");
}

/// One table: rows without a figure are left out.
fn table<'a>(columns: &[Column], rows: impl Iterator<Item = (&'a str, String)>, page: &mut String) {
    page.push_str("<div><table><tr><th></th>");
    for column in columns {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escaped(&column.title));
    }
    page.push_str("</tr>\n");
    for (name, title) in rows {
        let cells: Vec<String> = columns.iter().map(|column| column.cell(name)).collect();
        if cells.iter().all(String::is_empty) {
            continue;
        }
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(page, "<tr><th scope=\"row\">{}</th>{cells}</tr>", escaped(&title));
    }
    page.push_str("</table></div>\n");
}

/// The rates of one target's sweep.
fn rates(target: &Value, page: &mut String) {
    let _ = writeln!(page, "<h3>{}</h3>", escaped(&name_of(target)));
    let _ = writeln!(page, "<p>{}</p>", shown(&target["knee"]));
    let columns = [
        ("offered_ops_per_s", "offered/s"),
        ("throughput_ops_per_s", "achieved/s"),
        ("latency_p50_us", "p50, µs"),
        ("latency_p99_us", "p99, µs"),
        ("latency_p99_9_us", "p99.9, µs"),
        ("unsent_arrivals_count", "never sent"),
        ("errors_count", "errors"),
    ];
    page.push_str("<div><table><tr>");
    for (_, title) in columns {
        let _ = write!(page, "<th scope=\"col\">{title}</th>");
    }
    page.push_str("<td></td></tr>\n");
    let mut steps: Vec<&Value> = list(&target["steps"]).collect();
    let rate = |step: &Value| step["offered_ops_per_s"].as_f64().unwrap_or(0.0);
    steps.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    for step in steps {
        let knee = step["offered_ops_per_s"] == target["knee_ops_per_s"];
        page.push_str(if knee { "<tr class=\"knee\">" } else { "<tr>" });
        for (name, _) in columns {
            let cell = Column::of(String::new(), step).cell(name);
            let _ = write!(page, "<td>{cell}</td>");
        }
        let _ = writeln!(page, "<td>{}</td></tr>", shown(&step["verdict"]));
    }
    page.push_str("</table></div>\n");
}

fn setting(name: &str, value: &str, page: &mut String) {
    if !value.is_empty() {
        let _ = writeln!(page, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
    }
}

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

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The same, as HTML.
fn shown(value: &Value) -> String {
    escaped(&text_of(value))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_for_people() {
        assert_eq!(words("latency_p99_us"), "latency p99, µs");
        assert_eq!(words("missing_keys_count"), "missing keys");
        assert_eq!(shown(&serde_json::json!(["a<b", null, 3])), "a&lt;b, , 3");
    }

    #[test]
    fn a_table_has_the_comparison_s_rows_first_and_numbers_for_people() {
        let all = serde_json::json!({
            "throughput_ops_per_s": 12345.678, "latency_p50_us": 900.4, "latency_p99_us": 4321.0,
            "window_s": 10.0, "server_cpu_us_per_op": 2.71, "interrupted": false,
            "lower_bounds": ["latency_p99_us"], "errors_by_token_count": {},
        });
        let ratio = serde_json::json!({ "throughput_ops_per_s": 0.98765 });
        let columns = [
            Column::of("a".into(), &all),
            Column { title: "÷ a".into(), value: &ratio, is_ratio: true },
        ];
        let mut page = String::new();
        figures(&columns, &mut page);
        let (first, rest) = page.split_once("<details>").expect("the rest is folded");
        for text in [
            "<tr><th scope=\"row\">operations/s</th><td>12,346</td><td>0.99</td></tr>",
            "<tr><th scope=\"row\">p99, µs</th><td>≥4,321</td><td></td></tr>",
        ] {
            assert!(first.contains(text), "{text} is missing: {first}");
        }
        assert!(first.find("operations/s") < first.find("p50, µs"));
        assert!(rest.contains("server cpu us per op</th><td>2.71</td>"), "{rest}");
        assert!(!rest.contains("p99, µs") && !rest.contains("bounds"), "{rest}");
    }

    #[test]
    fn a_rate_s_row_says_what_came_of_it_and_the_knee_stands_out() {
        let target = serde_json::json!({
            "name": "x<y", "knee": "knee: 1000/s", "knee_ops_per_s": 1000.0,
            "steps": [
                { "offered_ops_per_s": 2000.0, "latency_p99_us": 12345.6, "verdict": "too slow" },
                { "offered_ops_per_s": 1000.0, "latency_p99_us": null, "verdict": "kept up" },
            ],
        });
        let mut page = String::new();
        rates(&target, &mut page);
        assert!(page.contains("<h3>x&lt;y</h3>"), "{page}");
        let (knee, above) = (page.find("class=\"knee\"><td>1,000<"), page.find("<tr><td>2,000<"));
        assert!(knee.is_some() && knee < above, "by rising rate: {page}");
        assert!(page.contains("<td>12,346</td>") && page.contains("<td>too slow</td>"), "{page}");
    }
}
