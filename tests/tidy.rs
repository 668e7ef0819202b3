//! House rules, as tests: the arrows point down, pure rooms stay pure, folders introduce
//! themselves, and documents name files that exist.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "house/public_api.rs"]
mod public_api;

/// Who may use whom. This table *is* the architecture; `docs/ARCHITECTURE.md` tells it in words.
/// `id`, `limits`, `entry` and `planted` lie under everything.
const MAY_USE: &[(&str, &[&str])] = &[
    ("raft", &["entry", "id", "limits", "planted"]),
    ("wire", &["entry", "id", "limits", "raft"]),
    ("store", &["entry", "id", "limits", "wire"]),
    ("wal", &["entry", "id", "limits", "planted", "raft"]),
    ("group", &["entry", "id", "limits", "planted", "raft", "store", "wal", "wire"]),
    ("shard", &["entry", "group", "id", "limits", "planted", "raft", "store", "wal", "wire"]),
    (
        "sim",
        &["entry", "group", "id", "limits", "planted", "raft", "shard", "store", "wal", "wire"],
    ),
    ("tool", &["entry", "group", "id", "limits", "raft", "shard", "store", "wal", "wire"]),
    (
        "runtime",
        &[
            "config", "entry", "error", "group", "id", "limits", "raft", "shard", "store", "wal",
            "wire",
        ],
    ),
];

/// What a pure room may not mention.
const IMPURE: &[&str] = &[
    "async fn",
    ".await",
    "std::fs",
    "std::net",
    "std::thread",
    "std::time",
    "glommio",
    "rand::",
    "HashMap",
    "HashSet",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("folder exists")
        .map(|entry| entry.expect("entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            // What a build leaves behind is nobody's source.
            if !path.ends_with("target") {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn files_of(room: &str) -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    rust_files(&root().join("src").join(room), &mut paths);
    assert!(!paths.is_empty(), "src/{room} is empty");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("source is readable");
            (path, text)
        })
        .collect()
}

/// The lines of code: comments and what follows `#[cfg(test)]` are not the house's structure.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .map(|(number, line)| (number + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The first path segment after every `crate::` in a line, groups `crate::{a, b}` included.
fn used_rooms(line: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("crate::") {
        rest = &rest[at + "crate::".len()..];
        let braced = rest.strip_prefix('{').map(|list| list.split('}').next().unwrap_or(list));
        let items: Vec<&str> = match braced {
            Some(list) => list.split(',').collect(),
            None => vec![rest],
        };
        for item in items {
            let name = item.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next();
            rooms.extend(name.filter(|name| name.starts_with(|c: char| c.is_lowercase())));
        }
    }
    rooms
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for (room, allowed) in MAY_USE {
        for (path, text) in files_of(room) {
            for (number, line) in code(&text) {
                for used in used_rooms(line) {
                    if used != *room && !allowed.contains(&used) {
                        wrong.push(format!(
                            "{}:{number}: {room} may not use {used}",
                            path.display()
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn the_arrow_reader_sees_groups_and_paths() {
    assert_eq!(used_rooms("use crate::id::{GroupId, Index};"), ["id"]);
    assert_eq!(used_rooms("use crate::{id::Index, wal};"), ["id", "wal"]);
    assert_eq!(used_rooms("fn f(x: crate::raft::Term) -> crate::wal::Run {"), ["raft", "wal"]);
    assert!(used_rooms("use super::event::Effects;").is_empty());
}

#[test]
fn pure_rooms_stay_pure() {
    let mut wrong = Vec::new();
    for (room, _) in MAY_USE.iter().filter(|(room, _)| !["runtime", "tool"].contains(room)) {
        for (path, text) in files_of(room) {
            for (number, line) in code(&text) {
                for word in IMPURE {
                    // The simulator's own generator is seeded; it is the one source of chance.
                    if line.contains(word) && !line.contains("fastrand::") {
                        wrong.push(format!("{}:{number}: {room} mentions {word}", path.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "impure lines:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_introduces_itself() {
    let mut paths = Vec::new();
    for folder in ["src", "bench/src", "bench/compare/src", "tools/src", "tests"] {
        rust_files(&root().join(folder), &mut paths);
    }
    let silent: Vec<String> = paths
        .iter()
        .filter(|path| {
            let text = fs::read_to_string(path).expect("source is readable");
            !text.starts_with("//!") && !text.contains("automatically generated")
        })
        .map(|path| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "files without a //! introduction:\n{}", silent.join("\n"));
}

#[test]
fn no_unfinished_work_hides_in_the_source() {
    let marks = ["todo!(", "unimplemented!(", "#[ignore", "FIXME", "XXX:", "dbg!("];
    let mut paths = Vec::new();
    for folder in ["src", "bench/src", "bench/compare/src", "tools/src", "tests"] {
        rust_files(&root().join(folder), &mut paths);
    }
    let mut wrong = Vec::new();
    for path in paths.iter().filter(|path| !path.ends_with("tests/tidy.rs")) {
        let text = fs::read_to_string(path).expect("source is readable");
        for (number, line) in (1..).zip(text.lines()) {
            for mark in marks {
                if line.contains(mark) {
                    wrong.push(format!("{}:{number}: {mark}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "unfinished work:\n{}", wrong.join("\n"));
}

/// Every path in backticks that starts with a folder of this repository must exist.
#[test]
fn documents_name_files_that_exist() {
    let mut documents = vec![root().join("README.md"), root().join("bench/README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("folder exists") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                documents.push(path);
            }
        }
    }
    let mut missing = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).expect("document is readable");
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.split_whitespace().next().unwrap_or("");
            let path = path.split(':').next().unwrap_or("");
            let is_ours = ["src/", "tests/", "bench/", "tools/src/", "docs/", ".ci/"]
                .iter()
                .any(|folder| path.starts_with(folder));
            let is_pattern = path.contains(['*', '<', '{', '…', '$']);
            if is_ours && !is_pattern && !root().join(path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "documents name files that are gone:\n{}", missing.join("\n"));
}

/// A smell, not a crime: printed, never failed.
#[test]
fn the_largest_files_are_reported() {
    let mut paths = Vec::new();
    rust_files(&root().join("src"), &mut paths);
    let mut sizes: Vec<(usize, String)> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("source is readable");
            (text.lines().count(), path.display().to_string())
        })
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    assert!(sizes.len() > 20, "the house has rooms");
    for (lines, path) in sizes.iter().take(5) {
        println!("{lines:5} {path}");
    }
}

/// The first word of an error is a promise about the outcome, so each one that the code can say is in
/// the table that says what it promises.
#[test]
fn every_error_word_is_in_the_contract() {
    let contract = fs::read_to_string(root().join("docs/commands.md")).expect("it exists");
    let mut paths = Vec::new();
    rust_files(&root().join("src"), &mut paths);
    let mut found = 0;
    // What tests make up is no promise.
    for path in paths.into_iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = fs::read_to_string(&path).expect("source is readable");
        for call in text.split("Reply::error(").skip(1) {
            let Some(rest) = call.trim_start().strip_prefix('"') else { continue };
            let word = rest.split(['"', ' ']).next().unwrap_or(rest);
            let row = |line: &str| {
                let promise = line.strip_prefix('|').and_then(|line| line.split('|').next());
                promise.is_some_and(|cell| cell.contains(&format!("`{word}`")))
            };
            assert!(
                contract.lines().any(row),
                "{}: -{word} is not in docs/commands.md",
                path.display()
            );
            found += 1;
        }
    }
    assert!(found > 20, "only {found} errors found: how are they made now?");
}

/// The rows of the contract, as `docs/raft.md` has them: which rows, and the cell with the tests.
fn contract_rows(page: &str) -> Vec<(Vec<u32>, String)> {
    let table = page.split("\n## The contract").nth(1).expect("the page has the contract");
    let table = table.split("\n## ").next().unwrap_or(table);
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let numbers = cells[0].split(|c: char| !c.is_ascii_digit());
        let numbers: Vec<u32> = numbers.filter_map(|number| number.parse().ok()).collect();
        if !numbers.is_empty() {
            rows.push((numbers, cells.get(3).copied().unwrap_or("").to_owned()));
        }
    }
    rows
}

/// The names of tests in a cell: everything in backticks.
fn named_tests(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_reader_of_the_contract_sees_rows_and_tests() {
    let page = "x\n## The contract: y\n\n| row | rule | where | test | deviation |\n|--:|---|---|---|---|\n\
                | 5, 6 | r | `src/a.rs` | `one`, `two` | |\n| 7 | r | w | | why |\n\n## Next\n| 8 | a | b | `c` | |\n";
    let rows = contract_rows(page);
    assert_eq!(rows, [(vec![5, 6], "`one`, `two`".to_owned()), (vec![7], String::new())]);
    assert_eq!(named_tests(&rows[0].1), ["one", "two"]);
}

/// Every row of the contract has a test that is named for it or that the table names, and whatever
/// test the table names exists.
#[test]
fn every_row_of_the_contract_has_a_test_that_exists() {
    const ROWS: u32 = 64;
    let page = fs::read_to_string(root().join("docs/raft.md")).expect("it exists");
    let mut paths = Vec::new();
    for folder in ["src", "tests", "tools/src"] {
        rust_files(&root().join(folder), &mut paths);
    }
    let sources: Vec<String> =
        paths.iter().map(|path| fs::read_to_string(path).expect("source is readable")).collect();
    let exists = |name: &str| {
        let function = format!("fn {name}(");
        sources.iter().any(|text| text.contains(&function))
    };
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for (rows, cell) in contract_rows(&page) {
        let tests = named_tests(&cell);
        if tests.is_empty() {
            wrong.push(format!("row {rows:?} names no test"));
        }
        for name in tests.iter().filter(|name| !exists(name)) {
            wrong.push(format!("row {rows:?}: there is no test {name}"));
        }
        for row in &rows {
            let own = tests.iter().any(|name| {
                let rest = name.strip_prefix("contract_row_").unwrap_or("");
                rest.split('_')
                    .take_while(|word| *word == "and" || word.parse::<u32>().is_ok())
                    .any(|word| word.parse() == Ok(*row))
            });
            if !own {
                wrong.push(format!("row {row} has no test that is named for it"));
            }
        }
        seen.extend(rows);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=ROWS).collect::<Vec<_>>(), "every row once");
    assert!(wrong.is_empty(), "the contract's table:\n{}", wrong.join("\n"));
}
