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

use super::clock::rfc_3339;
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
