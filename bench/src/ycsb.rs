//! Workload files of YCSB, and what they come to here.
//!
//! ```text
//!  readproportion, updateproportion, insertproportion, readmodifywriteproportion ─► --read-share
//!  recordcount ─► --keys     operationcount ─► --requests     fieldcount × fieldlength ─► --value-size
//!  requestdistribution: uniform, zipfian, latest ─► --dist
//! ```
//!
//! A record is one value: all its fields together. To insert is to write a key, so inserts are writes of the
//! keys there are; `latest` is zipf over them. To read, modify and write is a read and a write, two
//! operations. Scans are refused: keys are kept by their hash, and have no order to scan by.

use std::collections::BTreeMap;
use std::path::Path;

use crate::keys::Dist;

/// What a file says; what it does not say is left as it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Workload {
    /// Share of reads.
    pub(crate) read_share: f64,
    /// Number of keys.
    pub(crate) keys: Option<u64>,
    /// Operations in all.
    pub(crate) requests: Option<u64>,
    /// How keys are chosen.
    pub(crate) dist: Dist,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
}

/// The files that come with YCSB, by their letter.
fn named(letter: &str) -> Option<&'static str> {
    Some(match letter {
        "a" => "readproportion=0.5\nupdateproportion=0.5\nrequestdistribution=zipfian",
        "b" => "readproportion=0.95\nupdateproportion=0.05\nrequestdistribution=zipfian",
        "c" => "readproportion=1\nupdateproportion=0\nrequestdistribution=zipfian",
        "d" => {
            "readproportion=0.95\nupdateproportion=0\ninsertproportion=0.05\nrequestdistribution=latest"
        }
        "e" => {
            "readproportion=0\nupdateproportion=0\nscanproportion=0.95\ninsertproportion=0.05\nrequestdistribution=zipfian"
        }
        "f" => {
            "readproportion=0.5\nupdateproportion=0\nreadmodifywriteproportion=0.5\nrequestdistribution=zipfian"
        }
        _ => return None,
    })
}

/// Reads a workload: `ycsb-a` to `ycsb-f`, or a file.
pub(crate) fn read(name: &str) -> Result<Workload, String> {
    let letter = name.strip_prefix("ycsb-").map(str::to_lowercase);
    if let Some(text) = letter.as_deref().and_then(named) {
        return parse(text).map_err(|problem| format!("--workload {name}: {problem}"));
    }
    let text = std::fs::read_to_string(Path::new(name)).map_err(|error| {
        format!("--workload {name}: {error}; it is none of ycsb-a to ycsb-f, and no file")
    })?;
    parse(&text).map_err(|problem| format!("--workload {name}: {problem}"))
}

fn parse(text: &str) -> Result<Workload, String> {
    let mut said = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| format!("line {number} is no name=value: {line}"))?;
        said.insert(name.trim().to_lowercase(), value.trim().to_owned());
    }
    let number = |name: &str, default: f64| match said.get(name) {
        None => Ok(default),
        Some(value) => match value.parse::<f64>() {
            Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
            _ => Err(format!("{name} is '{value}', which is no number")),
        },
    };
    if number("scanproportion", 0.0)? > 0.0 {
        return Err("it scans ranges of keys (scanproportion), and keys are kept by their hash: \
                    they have no order to scan by"
            .into());
    }
    let (reads, both) =
        (number("readproportion", 0.95)?, number("readmodifywriteproportion", 0.0)?);
    let writes = number("updateproportion", 0.05)? + number("insertproportion", 0.0)?;
    let operations = reads + writes + 2.0 * both;
    if operations <= 0.0 {
        return Err("all its proportions are zero".into());
    }
    let dist = match said.get("requestdistribution").map(String::as_str) {
        None | Some("uniform") => Dist::Uniform,
        Some("zipfian" | "latest") => Dist::Zipf(0.99),
        Some("sequential") => Dist::Sequential,
        Some(other) => {
            return Err(format!(
                "requestdistribution is '{other}', and not uniform, zipfian, latest or sequential"
            ));
        }
    };
    let whole = |name: &str| number(name, 0.0).map(|it| (it >= 1.0).then_some(it as u64));
    Ok(Workload {
        read_share: (reads + both) / operations,
        keys: whole("recordcount")?,
        requests: whole("operationcount")?,
        dist,
        value_bytes: (number("fieldcount", 10.0)? * number("fieldlength", 100.0)?) as usize,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_six_are_what_ycsb_says_of_them() {
        let share = |name: &str| read(name).map(|it| (it.read_share * 1000.0).round());
        assert_eq!(share("ycsb-a"), Ok(500.0));
        assert_eq!(share("ycsb-B"), Ok(950.0));
        assert_eq!(share("ycsb-c"), Ok(1000.0));
        assert_eq!(share("ycsb-d"), Ok(950.0));
        // Half of 100 reads, and 50 that are read and then written: 100 reads of 150 operations.
        assert_eq!(share("ycsb-f"), Ok(667.0));
        assert!(share("ycsb-e").expect_err("scans").contains("no order to scan by"));
        let a = read("ycsb-a").expect("known");
        assert_eq!(
            (a.dist, a.value_bytes, a.keys, a.requests),
            (Dist::Zipf(0.99), 1000, None, None)
        );
    }

    #[test]
    fn a_file_is_read_as_ycsb_reads_it() {
        let text = "# a comment\nrecordcount=5000\noperationcount = 70\nreadproportion=0\n\
                    updateproportion=1\nfieldcount=1\nfieldlength=16\nworkload=site.ycsb.CoreWorkload\n";
        let expected = Workload {
            read_share: 0.0,
            keys: Some(5000),
            requests: Some(70),
            dist: Dist::Uniform,
            value_bytes: 16,
        };
        assert_eq!(parse(text), Ok(expected));
        for (text, word) in [
            ("readproportion", "line 1"),
            ("readproportion=many", "readproportion"),
            ("readproportion=0\nupdateproportion=0", "zero"),
            ("requestdistribution=hotspot", "hotspot"),
        ] {
            let problem = parse(text).expect_err(text);
            assert!(problem.contains(word), "{text}: {problem}");
        }
        assert!(read("/no/such/file").expect_err("no file").contains("/no/such/file"));
    }
}
