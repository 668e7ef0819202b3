//! Builds the crate with as many mutants as the compiler takes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::find::{Found, Mutant};
use crate::weave::{Woven, weave};

/// One file, with the number that its first mutant has.
pub struct Source {
    pub path: String,
    pub text: String,
    pub found: Found,
    pub first: usize,
}

/// What the compiler did not take.
#[derive(Default)]
pub struct Refused {
    pub unviable: BTreeSet<usize>,
    /// Functions that constants need, by file and place; their mutants are not made.
    pub consts: BTreeSet<(usize, usize)>,
}

impl Refused {
    pub fn is_const(&self, file: usize, mutant: &Mutant) -> bool {
        mutant.in_const.is_some_and(|of| self.consts.contains(&(file, of)))
    }
}

/// Writes the files and asks the compiler until it is content, then builds the tests: which binary that is.
pub fn build(krate: &Path, sources: &[Source], refused: &mut Refused) -> Result<PathBuf, String> {
    loop {
        let woven = write(krate, sources, refused)?;
        let errors = cargo(krate, &["check", "--lib", "--profile", "test"])?;
        let errors: Vec<&Value> =
            errors.iter().filter(|message| message["message"]["level"] == "error").collect();
        if errors.is_empty() {
            break;
        }
        let before = (refused.unviable.len(), refused.consts.len());
        let mut unknown = Vec::new();
        for error in errors {
            if !blame(&error["message"], sources, &woven, refused) {
                unknown.push(error["message"]["rendered"].as_str().unwrap_or_default());
            }
        }
        if (refused.unviable.len(), refused.consts.len()) == before {
            return Err(format!(
                "the crate does not build, and no mutant is to blame:\n{}",
                unknown.join("\n")
            ));
        }
        eprintln!(
            "unviable: {}, constant functions: {}",
            refused.unviable.len(),
            refused.consts.len()
        );
    }
    let messages = cargo(krate, &["test", "--no-run", "--lib"])?;
    let binary = messages.iter().find_map(|message| message["executable"].as_str());
    let said = messages.iter().filter_map(|message| message["message"]["rendered"].as_str());
    binary.map(PathBuf::from).ok_or_else(|| {
        format!("the tests of the crate do not build:\n{}", said.collect::<String>())
    })
}

fn write(
    krate: &Path,
    sources: &[Source],
    refused: &Refused,
) -> Result<BTreeMap<String, (usize, Woven)>, String> {
    let mut all = BTreeMap::new();
    for (file, source) in sources.iter().enumerate() {
        let woven = weave(&source.text, &source.found, |place| {
            let number = source.first + place;
            let mutant = &source.found.mutants[place];
            (!refused.is_const(file, mutant) && !refused.unviable.contains(&number))
                .then_some(number)
        });
        let path = krate.join(&source.path);
        // A file that stays as it is need not be built again.
        if !std::fs::read_to_string(&path).is_ok_and(|text| text == woven.text) {
            std::fs::write(&path, &woven.text)
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        all.insert(source.path.clone(), (file, woven));
    }
    Ok(all)
}

fn cargo(krate: &Path, args: &[&str]) -> Result<Vec<Value>, String> {
    let output = Command::new("cargo")
        .args(args)
        .args(["--quiet", "--message-format", "json"])
        .current_dir(krate)
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Finds whose fault an error is. False if nobody's.
fn blame(
    error: &Value,
    sources: &[Source],
    all: &BTreeMap<String, (usize, Woven)>,
    refused: &mut Refused,
) -> bool {
    if error["code"]["code"] == "E0015" {
        return blame_const(error["message"].as_str().unwrap_or_default(), sources, refused);
    }
    let mut spans = Vec::new();
    gather(error, &mut spans);
    // The primary ones first: they say where it is, the others why.
    spans.sort_by_key(|span| span["is_primary"] != true);
    let places: Vec<_> = spans
        .iter()
        .filter_map(|span| {
            let (file, woven) = all.get(span["file_name"].as_str()?)?;
            let at = span["byte_start"].as_u64()? as usize..span["byte_end"].as_u64()? as usize;
            Some((*file, woven, at))
        })
        .collect();
    for (file, woven, at) in &places {
        let own = woven.own.iter().filter(|(own, _)| within(at, own));
        let numbers: Vec<usize> = own.map(|(_, mutant)| sources[*file].first + mutant).collect();
        if !numbers.is_empty() {
            refused.unviable.extend(numbers);
            return true;
        }
    }
    // A whole place: the innermost around the error.
    for (file, woven, at) in &places {
        let around = woven.sites.iter().filter(|(site, _)| within(at, site));
        if let Some((_, site)) = around.min_by_key(|(site, _)| site.len()) {
            let source = &sources[*file];
            refused.unviable.extend(
                source.found.sites[*site].texts.iter().map(|(mutant, _)| source.first + mutant),
            );
            return true;
        }
    }
    false
}

fn within(inner: &Range<usize>, outer: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn gather<'a>(message: &'a Value, spans: &mut Vec<&'a Value>) {
    spans.extend(message["spans"].as_array().into_iter().flatten());
    for child in message["children"].as_array().into_iter().flatten() {
        gather(child, spans);
    }
}

/// "cannot call non-const method `wal::batch::Batch::bytes` in constants"
fn blame_const(message: &str, sources: &[Source], refused: &mut Refused) -> bool {
    let Some(path) = message.split('`').nth(1) else { return false };
    let name = path.rsplit("::").next().unwrap_or_default();
    let before = refused.consts.len();
    for (file, source) in sources.iter().enumerate() {
        let named = source
            .found
            .consts
            .iter()
            .enumerate()
            .filter(|(_, of)| of.name == name && path.contains(&of.of));
        refused.consts.extend(named.map(|(place, _)| (file, place)));
    }
    refused.consts.len() > before
}
