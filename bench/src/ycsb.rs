//! Workload files of YCSB, and what they come to here.
//!
//! ```text
//!  readproportion, updateproportion, insertproportion, scanproportion, readmodifywriteproportion ─► the mix
//!  recordcount ─► --keys     operationcount ─► --requests     fieldcount × fieldlength ─► --value-size
//!  requestdistribution: uniform, zipfian, latest, sequential ─► --dist      maxscanlength ─► keys of a scan
//! ```
//!
//! A record is one value: all its fields together, read and written whole (`readallfields`, `writeallfields`). An insert
//! writes the key after the newest, and `latest` is zipf backwards from the newest that is there. What is read, modified and
//! written is one operation: GET, and when it is answered SET of the same key.
//!
//! **A scan is not YCSB's.** Keys are kept by their hash and have no order here, so a scan reads the keys with the next
//! numbers, all in one `MGET`: as many values, but from all groups of a cluster, where an ordered store reads one place.

use crate::keys::{Dist, THETA};
use crate::workload::{Mix, VALUE_BYTES_MAX};
use std::collections::BTreeMap;
use std::path::Path;

/// A scan reads at most so many keys; what YCSB has where nothing is said.
const SCAN_KEYS_MAX: u64 = 1000;

/// Names that change nothing here, and are passed over with a word.
const IGNORED: [&str; 12] = [
    "dotransactions",
    "exporter",
    "exportfile",
    "histogram.buckets",
    "insertorder",
    "measurementtype",
    "readallfields",
    "status.interval",
    "table",
    "workload",
    "writeallfields",
    "zeropadding",
];
/// Names that flags stand for.
const FLAGS: [(&str, &str); 4] = [
    ("threadcount", "--connections"),
    ("target", "--rate"),
    ("maxexecutiontime", "--duration"),
    ("warmupexecutiontime", "--warmup"),
];
/// Names that are understood.
const KNOWN: [&str; 14] = [
    "fieldcount",
    "fieldlength",
    "fieldlengthdistribution",
    "insertproportion",
    "maxscanlength",
    "minscanlength",
    "operationcount",
    "readmodifywriteproportion",
    "readproportion",
    "recordcount",
    "requestdistribution",
    "scanlengthdistribution",
    "scanproportion",
    "updateproportion",
];

/// What a file says; what it does not say is left as it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Workload {
    /// How often which operation is asked for.
    pub(crate) mix: Mix,
    /// Number of keys.
    pub(crate) keys: Option<u64>,
    /// Operations in all.
    pub(crate) requests: Option<u64>,
    /// How keys are chosen.
    pub(crate) dist: Dist,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// What it says and is passed over.
    pub(crate) ignored: Vec<String>,
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
            "readproportion=0\nupdateproportion=0\nscanproportion=0.95\ninsertproportion=0.05\n\
             requestdistribution=zipfian\nmaxscanlength=100\nscanlengthdistribution=uniform"
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
    let said = Said::read(text)?;
    let mut mix = Mix {
        reads: said.share("readproportion", 0.95)?,
        updates: said.share("updateproportion", 0.05)?,
        inserts: said.share("insertproportion", 0.0)?,
        scans: said.share("scanproportion", 0.0)?,
        read_modify_writes: said.share("readmodifywriteproportion", 0.0)?,
        scan_keys_max: said.count("maxscanlength")?.unwrap_or(SCAN_KEYS_MAX),
    };
    let all = mix.reads + mix.updates + mix.inserts + mix.scans + mix.read_modify_writes;
    if all <= 0.0 {
        return Err("all its proportions are zero".into());
    }
    for share in [
        &mut mix.reads,
        &mut mix.updates,
        &mut mix.inserts,
        &mut mix.scans,
        &mut mix.read_modify_writes,
    ] {
        *share /= all;
    }
    if SCAN_KEYS_MAX < mix.scan_keys_max {
        return Err(format!("maxscanlength is above {SCAN_KEYS_MAX}"));
    }
    said.only("minscanlength", "1")?;
    said.only("scanlengthdistribution", "uniform")?;
    said.only("fieldlengthdistribution", "constant")?;
    let dist = match said.get("requestdistribution") {
        None | Some("uniform") => Dist::Uniform,
        Some("zipfian") => Dist::Zipf(THETA),
        Some("latest") => Dist::Latest,
        Some("sequential") => Dist::Sequential,
        Some(other) => {
            return Err(format!(
                "requestdistribution is '{other}', and not uniform, zipfian, latest or sequential"
            ));
        }
    };
    let fields = said.count("fieldcount")?.unwrap_or(10);
    let bytes = fields.checked_mul(said.count("fieldlength")?.unwrap_or(100));
    let value_bytes = bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| *bytes <= VALUE_BYTES_MAX)
        .ok_or_else(|| {
            format!("fieldcount × fieldlength: a value has at most {VALUE_BYTES_MAX} bytes")
        })?;
    Ok(Workload {
        mix,
        keys: said.count("recordcount")?,
        requests: said.count("operationcount")?,
        dist,
        value_bytes,
        ignored: said.ignored,
    })
}

/// The lines of a file.
struct Said {
    known: BTreeMap<String, String>,
    ignored: Vec<String>,
}

impl Said {
    fn read(text: &str) -> Result<Self, String> {
        let (mut known, mut ignored) = (BTreeMap::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| format!("line {number} is no name=value: {line}"))?;
            let (name, value) = (name.trim().to_lowercase(), value.trim().to_owned());
            if IGNORED.contains(&name.as_str()) || name.starts_with("hdrhistogram.") {
                ignored.push(name);
                continue;
            }
            if let Some((_, flag)) = FLAGS.iter().find(|(known, _)| *known == name) {
                return Err(format!("line {number}: {name} is what {flag} says here"));
            }
            if !KNOWN.contains(&name.as_str()) {
                return Err(format!("line {number}: '{name}' is not known here"));
            }
            if known.contains_key(&name) {
                return Err(format!("line {number} says {name} a second time"));
            }
            known.insert(name, value);
        }
        if known.is_empty() {
            return Err("it says nothing".into());
        }
        Ok(Self { known, ignored })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.known.get(name).map(String::as_str)
    }

    fn share(&self, name: &str, default: f64) -> Result<f64, String> {
        let Some(value) = self.get(name) else { return Ok(default) };
        match value.parse::<f64>() {
            Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
            _ => Err(format!("{name} is '{value}', which is no share")),
        }
    }

    fn count(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.parse::<u64>() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(format!("{name} is '{value}', which is no whole number above 0")),
        }
    }

    /// Nothing but this value is understood.
    fn only(&self, name: &str, value: &str) -> Result<(), String> {
        match self.get(name) {
            Some(other) if other != value => {
                Err(format!("{name} is '{other}', and can only be {value} here"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_six_are_what_ycsb_says_of_them() {
        let shares = |name: &str| {
            let Mix { reads, updates, inserts, scans, read_modify_writes, .. } =
                read(name).expect(name).mix;
            [reads, updates, inserts, scans, read_modify_writes].map(|it| (it * 100.0).round())
        };
        assert_eq!(shares("ycsb-a"), [50.0, 50.0, 0.0, 0.0, 0.0]);
        assert_eq!(shares("ycsb-B"), [95.0, 5.0, 0.0, 0.0, 0.0]);
        assert_eq!(shares("ycsb-c"), [100.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(shares("ycsb-d"), [95.0, 0.0, 5.0, 0.0, 0.0]);
        assert_eq!(shares("ycsb-e"), [0.0, 0.0, 5.0, 95.0, 0.0]);
        assert_eq!(shares("ycsb-f"), [50.0, 0.0, 0.0, 0.0, 50.0]);
        let dist = |name: &str| read(name).expect(name).dist;
        assert_eq!((dist("ycsb-a"), dist("ycsb-d")), (Dist::Zipf(THETA), Dist::Latest));
        assert_eq!(read("ycsb-e").expect("known").mix.scan_keys_max, 100);
        let a = read("ycsb-a").expect("known");
        assert_eq!((a.value_bytes, a.keys, a.requests), (1000, None, None));
    }

    #[test]
    fn a_file_is_read_as_ycsb_reads_it() {
        let text = "# a comment\nrecordcount=5000\noperationcount = 70\nreadproportion=0\n\
                    updateproportion=1\nfieldcount=1\nfieldlength=16\nworkload=site.ycsb.CoreWorkload\n\
                    hdrhistogram.percentiles=50,99\n";
        let expected = Workload {
            mix: Mix { scan_keys_max: SCAN_KEYS_MAX, ..Mix::of_reads(0.0) },
            keys: Some(5000),
            requests: Some(70),
            dist: Dist::Uniform,
            value_bytes: 16,
            ignored: vec!["workload".into(), "hdrhistogram.percentiles".into()],
        };
        assert_eq!(parse(text), Ok(expected));
        assert!(read("/no/such/file").expect_err("no file").contains("/no/such/file"));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (text, word) in [
            ("readproportion", "line 1"),
            ("readproportion=many", "readproportion"),
            ("readproportion=0\nupdateproportion=0", "zero"),
            ("requestdistribution=hotspot", "hotspot"),
            ("readpropotion=1", "'readpropotion' is not known"),
            ("readproportion=1\nreadproportion=0", "a second time"),
            ("threadcount=8", "--connections"),
            ("target=500", "--rate"),
            ("recordcount=0", "recordcount"),
            ("recordcount=1e6", "recordcount"),
            ("operationcount=-5", "operationcount"),
            ("operationcount=1.5", "operationcount"),
            ("fieldcount=0", "fieldcount"),
            ("fieldlength=99999999999", "at most"),
            ("fieldcount=9999999999\nfieldlength=9999999999999", "at most"),
            ("fieldlengthdistribution=zipfian", "constant"),
            ("maxscanlength=1001", "maxscanlength"),
            ("minscanlength=5", "minscanlength"),
            ("scanlengthdistribution=zipfian", "uniform"),
            ("", "nothing"),
            ("# only a comment\n\n", "nothing"),
            ("workload=site.ycsb.CoreWorkload", "nothing"),
        ] {
            let problem = parse(text).expect_err(text);
            assert!(problem.contains(word), "{text}: {problem}");
        }
    }
}
