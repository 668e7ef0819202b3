//! What a node writes to stderr: lines for people, or JSON for machines, from the first to the last.

use crate::client::Reply;
use crate::cluster::Cluster;
use crate::config::run;

/// Every line, as the JSON that it is.
fn json(log: &str) -> Vec<serde_json::Value> {
    log.lines()
        .map(|line| {
            let line: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for field in ["timestamp", "level", "message"] {
                assert!(line[field].is_string(), "no {field}: {line}");
            }
            line
        })
        .collect()
}

#[test]
fn every_line_is_json_if_asked_for_also_the_one_that_says_why_a_node_stops() {
    let flags = ["--log-format", "json", "--groups", "1"];
    let mut cluster = Cluster::start("log-json", 1, &flags);
    assert_eq!(cluster.nodes[0].client().say("SET k v"), Reply::ok());

    // A second process on its directory has to stop.
    let output = run(&mut cluster.nodes[0].command());
    assert_eq!(output.status.code(), Some(1));
    let lines = json(&String::from_utf8(output.stderr).expect("UTF-8"));
    let last = lines.last().expect("it says why");
    assert_eq!(last["level"], "ERROR");
    let why = last["message"].as_str().expect("text");
    assert!(why.starts_with("node 1 stopped: "), "{why}");

    assert_eq!(cluster.nodes[0].stop().code(), Some(0));
    let lines = json(&cluster.nodes[0].log());
    let started = lines.iter().find(|line| line["node"] == 1).expect("fields are fields");
    assert!(started["message"].as_str().expect("text").ends_with(" started"), "{started}");
    let stopped = lines.iter().find(|line| line["message"] == "core stopped");
    assert!(stopped.is_some_and(|line| line["core"] == 0), "a number is a number: {lines:?}");
}

#[test]
fn another_format_than_those_there_are_is_refused() {
    let cluster = Cluster::prepare("log-other", 1, &["--log-format", "xml"]);
    let output = run(&mut cluster.nodes[0].command());
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("human") && text.contains("json"), "{text}");
}
