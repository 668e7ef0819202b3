//! What every record says of the machine it was made on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The file system a path is on.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its type.
    pub(crate) filesystem: String,
    /// The block device under it, as `/proc/diskstats` names it.
    pub(crate) device: String,
}

/// Bytes and writes that a device has done, by anyone.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Device {
    /// Bytes written.
    pub(crate) bytes: u64,
    /// Writes completed, after merging.
    pub(crate) writes: u64,
    /// Flushes completed.
    pub(crate) flushes: u64,
}

impl Place {
    /// Where `path`, which exists, is.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let filesystem = findmnt("FSTYPE", path)?;
        let source = findmnt("SOURCE", path)?;
        let source = source.split('[').next().unwrap_or_default();
        let real = fs::canonicalize(source).unwrap_or_else(|_| source.into());
        let device = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = Self { filesystem, device };
        place.counters().with_context(|| {
            format!("{} is on {source}, which is no block device; see --dir", path.display())
        })?;
        Ok(place)
    }

    /// What its device has done so far.
    pub(crate) fn counters(&self) -> Result<Device> {
        let stats = fs::read_to_string("/proc/diskstats").context("/proc/diskstats")?;
        parse_device(&stats, &self.device)
            .with_context(|| format!("/proc/diskstats has no device '{}'", self.device))
    }
}

impl Device {
    /// What was done since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            writes: self.writes.saturating_sub(earlier.writes),
            flushes: self.flushes.saturating_sub(earlier.flushes),
        }
    }
}

fn findmnt(column: &str, path: &Path) -> Result<String> {
    let output = Command::new("findmnt").args(["-no", column, "-T"]).arg(path).output();
    let output = output.context("findmnt is missing; install the package util-linux")?;
    ensure!(output.status.success(), "findmnt does not know where {} is", path.display());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn parse_device(diskstats: &str, device: &str) -> Option<Device> {
    let fields: Vec<&str> = diskstats
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&device))?;
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // Kernels before 5.5 do not count flushes.
    Some(Device { bytes: number(9)? * 512, writes: number(7)?, flushes: number(18).unwrap_or(0) })
}

/// The rows that begin a record: what ran, where, on what.
pub(crate) fn head(title: &str, seed: u64, more: &[(&str, String)]) -> String {
    let mut text = format!("# {title}, {}\n\n| | |\n|---|---|\n", today());
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rows = [
        ("commit", commit()),
        ("machine", machine()),
        ("kernel", first_line("/proc/sys/kernel/osrelease").map_or("unknown".into(), linux)),
        ("seed", seed.to_string()),
        ("command", format!("`compare {}`", args.join(" "))),
    ];
    for (name, value) in rows.iter().chain(more) {
        text.push_str(&format!("| {name} | {value} |\n"));
    }
    text.push('\n');
    text
}

fn linux(release: String) -> String {
    format!("Linux {release}")
}

fn machine() -> String {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let host = first_line("/proc/sys/kernel/hostname").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib: f64 = memory.trim_end_matches("kB").trim().parse().unwrap_or(0.0);
    format!("{host}, {cpus} × {model}, {:.1} GiB", kib / f64::from(1 << 20))
}

fn first_line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.to_owned())
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let output = Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".into() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let is_clean = changed.is_some_and(|changed| changed.is_empty());
    commit + if is_clean { "" } else { ", with local changes" }
}

fn today() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    output.map_or_else(|_| String::new(), |it| String::from_utf8_lossy(&it.stdout).trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_whole_name() {
        let stats = " 254 0 vda 1 2 3 4 50 6 70 8 9 10 11 12 13 14 15 90 17\n \
                     254 1 vda1 0 0 0 0 5 0 7 0 0 0 0 0 0 0 0 9 0\n 7 0 old 0 0 0 0 5 0 7 0 0 0 0\n";
        let device = |bytes, writes, flushes| Some(Device { bytes, writes, flushes });
        assert_eq!(parse_device(stats, "vda"), device(70 * 512, 50, 90));
        assert_eq!(parse_device(stats, "vda1"), device(7 * 512, 5, 9));
        assert_eq!(parse_device(stats, "old"), device(7 * 512, 5, 0));
        assert_eq!(parse_device(stats, "vd"), None);
    }
}
