//! Every record has its place in docs/benchmarking.md: its command, or what has taken its place.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;

#[test]
fn every_record_is_named_beside_its_command_or_as_superseded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/benchmarking.md")).unwrap();
    let files: Vec<String> = std::fs::read_dir(root.join("bench/records"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!files.is_empty());
    let records: Vec<&str> = files.iter().filter_map(|file| file.strip_suffix(".md")).collect();
    for file in &files {
        let is_named = if let Some(record) = file.strip_suffix(".md") {
            page.contains(&format!("{record}.md`"))
        } else {
            // A plot has the name of the record that it is of, and what it shows behind it.
            records.iter().any(|record| file.starts_with(record))
        };
        assert!(is_named, "bench/records/{file} is not named in docs/benchmarking.md");
    }
}
