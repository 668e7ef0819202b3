//! `outrigger quorum-loss`: the directory of a stopped node goes on without the other members of its
//! groups, because their majority is lost for good (contract row 59).
//!
//! ```text
//!   quorum-loss ──► plan: one line per group, and its name ──► nothing is changed
//!   quorum-loss --apply NAME ──► the same plan? ──► audit record ──► logs, flushed ──► audit record
//! ```
//!
//! Planning and applying are two commands, so that somebody reads what will be done before it is. The
//! name is a checksum of the plan: if the directory has changed in between, another plan would come of
//! it, and nothing is applied. To look at the log at all, both do to the directory what a start does (the
//! start is counted, a torn tail is trimmed), and nothing else. What was done is in `quorum-loss.log` in
//! the directory, for good.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::SystemTime;

use crate::config::Config;
use crate::id::ShardId;
use crate::shard::{self, Alone};
use crate::wal;

use super::fatal::Fatal;
use super::identity::Home;
use super::private;
use super::recovery::Recovery;
use super::segments::Directory;

/// What a plan begins with.
const WARNING: &str = "\
# Every group of this node goes on with this node as its only member. All that its log holds counts as
# committed; what it never received is lost. Go on with ONE node, the one that holds most, and see to it
# that the others never come back with their directories: they would be a second cluster of this name.
";

/// Plans, or applies the plan of this name. Returns what to print.
///
/// # Errors
/// When the directory is no node's, the node runs, its log cannot be read, a group cannot go on alone, the plan is another one, or
/// the disk refuses.
pub fn quorum_loss(config: &Config, apply: Option<&str>) -> Result<String, Fatal> {
    let home = Home::open_existing(config)?;
    let mut cores = Vec::new();
    for core in 0..config.cores {
        let directory = Directory::open(config.dir.join(format!("core-{core}")))
            .map_err(|error| Fatal::new(format!("cannot use the log of core {core}: {error}")))?;
        let mut recovery = Recovery::begin(directory.clone(), shard_config(config, &home, core))?;
        while recovery.step()? {}
        let (alone, spares) = recovery.finish_alone()?;
        cores.push((directory, alone, spares));
    }
    let plan = told(config, cores.iter().map(|(_, alone, _)| alone));
    let name = format!("{:08x}", crc32fast::hash(plan.as_bytes()));
    let Some(wanted) = apply else {
        return Ok(format!("{WARNING}{plan}# To do this: the same command with --apply {name}\n"));
    };
    if wanted != name {
        return Err(Fatal::new(format!(
            "plan {wanted} is not what would be done now, which is {name}: plan again, and read it"
        )));
    }
    audit(&config.dir, &format!("plan {name} is applied:\n{plan}"))?;
    for (directory, alone, spares) in cores {
        for write in &alone.writes {
            if !spares.contains(&write.segment) {
                directory.make(write.segment).map_err(|error| {
                    Fatal::new(format!("cannot make segment {}: {error}", write.segment))
                })?;
            }
            perform(&directory.segment(write.segment), write)?;
        }
    }
    audit(&config.dir, &format!("plan {name} is durable"))?;
    Ok(format!("{plan}applied: start the node, then give it new members\n"))
}

/// The plan as an operator reads it.
fn told<'a>(config: &Config, cores: impl Iterator<Item = &'a Alone>) -> String {
    let mut groups: Vec<_> = cores.flat_map(|alone| &alone.groups).collect();
    groups.sort_by_key(|survivor| survivor.group);
    let mut plan = String::new();
    for survivor in groups {
        let removed: Vec<String> = survivor.removed.iter().map(ToString::to_string).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            plan,
            "group {}: node {} alone; removed: {}; term {}, committed at least to {}, held to {}",
            survivor.group,
            config.id,
            if removed.is_empty() { "nobody".to_owned() } else { removed.join(", ") },
            survivor.term,
            survivor.commit,
            survivor.last,
        );
    }
    plan
}

fn perform(path: &Path, write: &wal::Write) -> Result<(), Fatal> {
    let mut bytes = vec![0; write.bytes];
    write.encode_into(&mut bytes);
    let written = File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.write_all_at(&bytes, write.offset).and_then(|()| file.sync_all()));
    written.map_err(|error| Fatal::new(format!("cannot write {}: {error}", path.display())))
}

/// Adds to the directory's record of such interventions, durably.
fn audit(dir: &Path, what: &str) -> Result<(), Fatal> {
    let path = dir.join("quorum-loss.log");
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let record = format!("[{}, {now} s since 1970] {}\n", rfc_3339(now), what.trim_end());
    let mut options = private::file();
    let written = options.create(true).append(true).open(&path).and_then(|mut file| {
        file.write_all(record.as_bytes())?;
        file.sync_all()?;
        File::open(dir)?.sync_all()
    });
    written.map_err(|error| Fatal::new(format!("cannot write {}: {error}", path.display())))
}

/// Seconds since 1970 as an operator reads them: `2026-11-29T08:42:00Z`.
fn rfc_3339(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the day that comes and goes is the last; 400 of them are an era of 146,097 days,
    // and day 719,468 of the first era is 1970-01-01.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let since_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * since_march + 2) / 5 + 1;
    let month = if since_march < 10 { since_march + 3 } else { since_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn shard_config(config: &Config, home: &Home, core: u16) -> shard::Config {
    let nodes: Vec<_> = home.bootstrap.iter().map(|(node, _)| *node).collect();
    shard::Config {
        incarnation: home.incarnation,
        shard: ShardId(core),
        cores: config.cores,
        addresses: home.bootstrap.clone(),
        ..shard::Config::new(home.cluster, crate::id::NodeId(config.id), &nodes, config.groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_told_as_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_796_000_000, "2026-11-30T00:53:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc_3339(seconds), expected, "{seconds}");
        }
    }
}
