//! How long a log takes to be read after a crash: from files nobody has in memory, and from memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::batches::Writer;
use super::{Cell, Options, Scratch, ours, raft_engine};
use crate::stats::{digits, median, order, ratio, table, whole};

/// Groups in the log.
const GROUPS: u64 = 1000;
/// Payload bytes of an entry.
const ENTRY_BYTES: usize = 256;
/// Entries per batch.
const BATCH: usize = 256;

/// Fill a log each, then open them in turn. Returns a section of the record.
pub(super) fn measure(options: &Options, scratch: &Path) -> Result<String> {
    let cell = Cell { groups: GROUPS, entry_bytes: ENTRY_BYTES, batch: BATCH, concurrent: 1 };
    let batches = options.recover_bytes.div_ceil((BATCH * ENTRY_BYTES) as u64);
    let entries = batches * BATCH as u64;
    let [ours_dir, theirs_dir] = ["ours", "theirs"].map(|name| scratch.join(name));
    let (ours_dir, theirs_dir) = (Scratch::new(ours_dir)?, Scratch::new(theirs_dir)?);
    let writer = || Writer::all(cell, options.seed).pop().context("a cell has a writer");
    ours::fill(ours_dir.0.clone(), writer()?, batches, options.flush_method)?;
    raft_engine::fill(theirs_dir.0.clone(), writer()?, batches)?;

    let dirs: [&PathBuf; 2] = [&ours_dir.0, &theirs_dir.0];
    let open = |at: usize| -> Result<f64> {
        let dir = dirs[at].clone();
        let (found, elapsed): (u64, Duration) = match at {
            0 => ours::recover(dir, options.flush_method)?,
            _ => raft_engine::recover(dir)?,
        };
        ensure!(found == entries, "{entries} entries were written, {found} came back");
        Ok(elapsed.as_secs_f64())
    };
    let (mut cold, mut warm) = ([vec![], vec![]], [vec![], vec![]]);
    for round in 0..options.rounds {
        for at in order(2, round) {
            forget(dirs[at])?;
            cold[at].push(open(at)?);
            warm[at].push(open(at)?);
        }
    }
    let sizes = dirs.map(|dir| disk_bytes(dir).unwrap_or(0));
    let row = |at: usize, name: &str| {
        let ratios = |of: &[Vec<f64>; 2]| match at {
            0 => "–".into(),
            _ => digits(ratio(&of[1], &of[0]), 2),
        };
        let middle = |of: &[Vec<f64>; 2]| digits(median(of[at].iter().copied()), 2);
        let mib = whole(sizes[at] as f64 / f64::from(1 << 20));
        vec![name.into(), mib, middle(&cold), middle(&warm), ratios(&cold), ratios(&warm)]
    };
    let head = [
        "",
        "on disk, MiB",
        "cold, s",
        "warm, s",
        "its time ÷ ours, cold",
        "its time ÷ ours, warm",
    ];
    let rows = [row(0, "outrigger"), row(1, "raft-engine")];
    Ok(format!(
        "\n## Recovery\n\n\
         {} MiB of payload: {} entries of {ENTRY_BYTES} bytes for {GROUPS} groups in batches of {BATCH}, opened \
         after a clean end. Cold: the page cache was told to forget the files. Both end with an index of where \
         every entry lies, and every checksum verified that each verifies; raft-engine reads with four threads, \
         Outrigger with two: the core's, and one that reads ahead and takes checksums.\n\n{}",
        whole(options.recover_bytes as f64 / f64::from(1 << 20)),
        whole(entries as f64),
        table(&head, &rows)
    ))
}

/// Have the page cache forget the files of a directory.
fn forget(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let file = File::open(entry.path())?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Bytes of the blocks that the files of a directory take.
fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}
