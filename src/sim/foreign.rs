//! Files that are not this log's: somebody has copied, moved or mixed up what lies in the directories of cores, or starts
//! an earlier version than the one that wrote them.
//!
//! | under the name of a segment lies | a start names |
//! |---|---|
//! | a segment of another core, or of another node | [`Proof::Identity`] |
//! | the segment of another cluster that is like this one in everything else | [`Proof::Identity`] |
//! | the segment as a later version would have begun it | [`Proof::Written`] |
//! | a later segment of this log | [`Proof::Sequence`] |
//!
//! The node must not start on it, whatever else is wrong with its log, and nothing of it may be changed: the file is
//! put right, and the next start is as if nothing had been. So nothing decays by this, and it happens to any node.
//!
//! An earlier segment under the name of a later one is no such case: that is what a spare looks like before its first
//! write (`disk.files` has it, as a file that is what it was).

use bytes::{Bytes, BytesMut};

use crate::entry::checksum;
use crate::id::SegmentSeq;
use crate::limits::BLOCK_BYTES;
use crate::shard::event::LogRead;
use crate::shard::{RecoverError, Recovery, Shard};
use crate::wal::{self, FORMAT_VERSION, Proof, SegmentHeader};

use super::net::happens;
use super::power::CLUSTER;
use super::safety::Checked;
use super::world::World;

/// Where a segment's header says its version and its cluster, and what of it the checksum covers (`wal/segment.rs`).
const VERSION_AT: usize = 12;
const CLUSTER_AT: usize = 16;
const COVERED: std::ops::Range<usize> = 12..80;

/// What lies in a segment's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// A segment of another log of this cluster.
    OtherLog,
    /// One of another cluster's.
    OtherCluster,
    /// One of another version's.
    LaterVersion,
    /// A later one of this log.
    Renamed,
}

impl Foreign {
    const ALL: [Self; 4] = [Self::OtherLog, Self::OtherCluster, Self::LaterVersion, Self::Renamed];

    /// Whether a start has seen what it was.
    fn is_seen(self, proof: Proof) -> bool {
        match self {
            Self::OtherLog | Self::OtherCluster => matches!(proof, Proof::Identity { .. }),
            Self::LaterVersion => proof == Proof::Written,
            Self::Renamed => matches!(proof, Proof::Sequence { .. }),
        }
    }
}

impl World {
    /// Perhaps a start of a core will find a file that is not its own under the name of a segment. What it is.
    pub(super) fn mix_up(&mut self, node: usize, core: usize) -> Option<(SegmentSeq, Foreign)> {
        if !self.is_chaos || !happens(&mut self.rng, self.options.disk.foreign) {
            return None;
        }
        let disk = &self.nodes[node].disks[core];
        let mut segments = disk.segments();
        segments.retain(|segment| disk.first() <= *segment);
        if segments.is_empty() {
            return None;
        }
        let segment = segments[self.rng.usize(..segments.len())];
        let how = Foreign::ALL[self.rng.usize(..Foreign::ALL.len())];
        let file = self.foreign_file((node, core), segment, how)?;
        if !self.strikes(|| {
            format!("{how:?} lies under the name of {segment} of node {node} core {core}")
        }) {
            return None;
        }
        self.outcome.faults.files_foreign += 1;
        self.nodes[node].disks[core].mistake(segment, file);
        Some((segment, how))
    }

    /// Perhaps entries are read back from a file that is not this log's, put there while the node runs.
    pub(super) fn mix_up_back(
        &mut self,
        node: usize,
        core: usize,
        read: &LogRead,
    ) -> Option<Bytes> {
        if !self.is_chaos || !happens(&mut self.rng, self.options.disk.foreign) {
            return None;
        }
        let segment = read.at.segment;
        let how = Foreign::ALL[self.rng.usize(..Foreign::ALL.len())];
        let file = self.foreign_file((node, core), segment, how)?;
        if !self.strikes(|| {
            format!("node {node} core {core} reads back from {how:?} in place of {segment}")
        }) {
            return None;
        }
        self.outcome.faults.foreign_back += 1;
        Some(file)
    }

    /// The file, if there is one like that anywhere.
    fn foreign_file(
        &mut self,
        (node, core): (usize, usize),
        segment: SegmentSeq,
        how: Foreign,
    ) -> Option<Bytes> {
        let is_there = |file: &Bytes| SegmentHeader::decode(file).is_ok();
        match how {
            Foreign::OtherLog => {
                let of = self.rng.usize(..self.nodes.len());
                let of_core = self.rng.usize(..self.nodes[of].disks.len());
                let disk = &mut self.nodes[of].disks[of_core];
                let segments = disk.segments();
                if (of, of_core) == (node, core) || segments.is_empty() {
                    return None;
                }
                // The one of the same number looks most like it.
                let is_same = segments.contains(&segment) && self.rng.bool();
                let any = segments[self.rng.usize(..segments.len())];
                let file = disk.look(if is_same { segment } else { any });
                Some(file).filter(is_there)
            }
            Foreign::OtherCluster | Foreign::LaterVersion => {
                let file = self.nodes[node].disks[core].look(segment);
                let (at, field) = match how {
                    Foreign::OtherCluster => (CLUSTER_AT, (CLUSTER.0 + 1).to_le_bytes().to_vec()),
                    _ => (VERSION_AT, (FORMAT_VERSION + 1).to_le_bytes().to_vec()),
                };
                Some(file).filter(is_there).map(|file| with_field(&file, at, &field))
            }
            Foreign::Renamed => {
                let disk = &mut self.nodes[node].disks[core];
                let later = disk.segments().into_iter().find(|later| segment < *later)?;
                let file = disk.look(later);
                // With a batch of its own, or nothing tells it from a header that went elsewhere.
                let is_it =
                    SegmentHeader::decode(&file).is_ok_and(|header| header.segment == later);
                let is_whole = is_it && wal::batch_at(&file, BLOCK_BYTES as u64).is_ok();
                is_whole.then_some(file)
            }
        }
    }

    /// What became of a start on a file that is not its own: nothing, and the file is named.
    pub(super) fn is_turned_away(
        &mut self,
        (node, core): (usize, usize),
        (segment, how): (SegmentSeq, Foreign),
        replayed: Result<(Shard, Recovery), RecoverError>,
    ) -> Checked {
        match replayed {
            Err(RecoverError::Damage(damage))
                if damage.segment == segment && how.is_seen(damage.proof) =>
            {
                self.refuses(node, core, &damage.to_string())
            }
            Err(error) => Err(format!(
                "node {node} core {core} takes {how:?} under the name of {segment} for something else: {error}"
            )),
            Ok(_) => Err(format!(
                "damage unseen: node {node} core {core} starts on {how:?} under the name of {segment}"
            )),
        }
    }
}

/// The file with a field of its header changed, as whoever meant it would have written it.
fn with_field(file: &Bytes, at: usize, field: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(file.as_ref());
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = checksum(&bytes[COVERED]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes.freeze()
}
