//! What becomes of a log that was durable: its blocks rot, reads show something else for once, and whole files
//! are cut short, gone, or what they were earlier.
//!
//! One node of a world is hit by what lasts, and by what is misread when it starts: with all others undamaged,
//! everything committed can be had from them. Entries that are read back on a node that runs can be misread on
//! any: what its log says is held by its state as well.
//!
//! # What a node is held to
//!
//! Only what the log itself proves to have been durable is damaged (`wal/mod.rs`, "The limit of this rule").
//!
//! | file | is hit if | what proves it |
//! |---|---|---|
//! | a segment that is cut short | it is sealed, or keeps its header | the header says how long it was; or the next segment where it ended |
//! | a segment that is gone, or what it was earlier | it is sealed | the next segment says where it ended |
//! | the note of where the log begins | it was ever written | what it stood for is missing |
//! | all segments | the note is there | it names one that is not (`replace.rs`) |
//!
//! The newest segment gone, or put back to an earlier moment, leaves a log that is whole in itself, and so
//! does a whole directory put back. No log can tell that from a crash at that moment; nothing of the kind is injected.

use bytes::Bytes;

use crate::id::SegmentSeq;
use crate::limits::BLOCK_BYTES;
use crate::shard::event::LogRead;

use super::disk::{Askew, FileFault};
use super::net::happens;
use super::safety::Checked;
use super::world::{Happening, World};

/// Half of the blocks that a start is misled about are among the last so many: what a group said there, it may not have
/// said again.
const LAST_BLOCKS: usize = 6;

/// How far behind the first block of a span a read back may be misread, in blocks.
const REACH_BLOCKS: u32 = 6;

impl World {
    /// The nodes that are members from the start.
    pub(super) fn founders(&self) -> usize {
        self.options.cores.len() - self.options.spares
    }

    /// The one node whose disk may decay; none where nobody could give back what is gone.
    pub(super) fn decaying(&self) -> Option<usize> {
        // Two copies that are gone at once may be too many, and of some only one is left.
        if self.replacing.is_some() || self.is_hurt_everywhere {
            return None;
        }
        let unlucky = self.unlucky.filter(|&node| self.nodes[node].is_there);
        unlucky.filter(|_| self.founders() >= 3)
    }

    /// Whether something durable on the disk of this node was damaged, or misread at a start.
    pub(super) fn has_decayed(&self, node: usize) -> bool {
        let faults = &self.outcome.faults;
        let blocks = faults.bit_rot + faults.misdirected + faults.blocks_lost + faults.unreadable;
        let files = faults.files_cut + faults.files_missing + faults.files_rolled_back;
        let has_one = 0 < blocks + files + faults.misread_starts && self.decaying() == Some(node);
        has_one || self.is_hurt_everywhere
    }

    /// Something durable on the one disk that decays is damaged.
    pub(super) fn strike_decay(&mut self) {
        let Some(node) = self.decaying() else { return };
        let core = self.rng.usize(..self.nodes[node].disks.len());
        let Self { nodes, rng, .. } = self;
        let disk = &nodes[node].disks[core];
        let (Some(one), Some(other)) = (disk.any_block(rng), disk.any_block(rng)) else { return };
        let (how, bit) = (rng.u32(..4), rng.usize(..BLOCK_BYTES * 8));
        let verb = ["rots", "went elsewhere", "is lost", "cannot be read"][how as usize];
        let (segment, block) = one;
        if how == 1 && segment != other.0 && 0 < block && block == other.1 {
            // With the header it would make of the other file what somebody makes who renames this one, and the node is
            // right not to start on it (seed 237129).
            return;
        }
        let place = format!("block {block} of {segment} on node {node} core {core}");
        if !self.strikes(|| format!("{place} {verb}")) {
            return;
        }
        let (disk, faults) = (&mut self.nodes[node].disks[core], &mut self.outcome.faults);
        match how {
            0 => {
                faults.bit_rot += 1;
                disk.flip_bit(one, bit);
            }
            1 => {
                faults.misdirected += 1;
                disk.misdirect(one, other);
            }
            2 => {
                faults.blocks_lost += 1;
                disk.lose_block(one);
            }
            _ => {
                faults.unreadable += 1;
                disk.spoil(one);
            }
        }
    }

    /// The node whose disk decays loses power, and finds a file of one of its logs gone, or not what it was.
    pub(super) fn strike_files(&mut self) -> Checked {
        let Some(node) = self.decaying() else { return Ok(()) };
        let core = self.rng.usize(..self.nodes[node].disks.len());
        let disk = &self.nodes[node].disks[core];
        let (sealed, newest, first) = (disk.sealed(), disk.newest(), disk.first());
        let blocks = disk.blocks();
        let how = self.rng.u32(..5);
        let at = self.rng.usize(..=sealed.len());
        let bytes = self.rng.usize(..blocks as usize * BLOCK_BYTES);
        if how < 3 {
            let segment = match (sealed.get(at), newest) {
                (Some(&segment), _) => segment,
                (None, Some(newest)) if how == 0 => newest,
                _ => return Ok(()),
            };
            let is_newest = Some(segment) == newest;
            let fault = match how {
                // Mostly not far behind its beginning, where something is.
                0 => {
                    let bytes = if self.rng.bool() { bytes } else { bytes % (16 * BLOCK_BYTES) };
                    FileFault::Cut(if is_newest { bytes.max(BLOCK_BYTES) } else { bytes })
                }
                1 => FileFault::Missing,
                _ => FileFault::RolledBack(self.rng.u32(..blocks)),
            };
            if !self.strikes(|| format!("segment {segment} of node {node} core {core}: {fault:?}"))
            {
                return Ok(());
            }
            self.crash(node)?;
            self.nodes[node].disks[core].lose_file(segment, fault);
            let faults = &mut self.outcome.faults;
            match fault {
                FileFault::Cut(_) => faults.files_cut += 1,
                FileFault::Missing => faults.files_missing += 1,
                FileFault::RolledBack(_) => faults.files_rolled_back += 1,
            }
        } else if first > SegmentSeq(0) {
            let to =
                if how == 3 { SegmentSeq(0) } else { SegmentSeq(self.rng.u64(1..=first.0) - 1) };
            let place = format!("node {node} core {core}");
            if !self.strikes(|| {
                format!("where the log of {place} begins is noted as {to}, not {first}")
            }) {
                return Ok(());
            }
            self.crash(node)?;
            self.nodes[node].disks[core].lose_note(to);
            let faults = &mut self.outcome.faults;
            match to {
                SegmentSeq(0) => faults.files_missing += 1,
                _ => faults.files_rolled_back += 1,
            }
        }
        Ok(())
    }

    /// Perhaps the start of a core whose disk decays will be shown one block as it is not. Whether it will.
    pub(super) fn misread_start(&mut self, node: usize, core: usize) -> bool {
        if !self.is_chaos
            || self.options.disk.misread == 0
            || self.decaying() != Some(node)
            || !happens(&mut self.rng, 4 * self.options.disk.misread)
        {
            return false;
        }
        // What a disk shows in place of a block may be another core's.
        let of = self.rng.usize(..self.nodes[node].disks.len());
        let (is_stale, at_head) = (self.rng.bool(), self.rng.bool());
        let last = if self.rng.bool() { LAST_BLOCKS } else { usize::MAX };
        let Self { nodes, rng, .. } = self;
        let disks = &nodes[node].disks;
        let place = disks[core].block_of_last(last, rng);
        let (Some(place), Some(other)) = (place, disks[of].any_block(rng)) else {
            return false;
        };
        if !is_stale && (of, other) == (core, place) {
            return false;
        }
        let (segment, block) = place;
        let how = if is_stale {
            "as it was before".to_owned()
        } else {
            format!("as {other:?} of core {of}")
        };
        let what = || format!("node {node} core {core} reads block {block} of {segment} {how}");
        if !self.strikes(what) {
            return false;
        }
        self.outcome.faults.misread_starts += 1;
        self.outcome.faults.stale_reads += u64::from(is_stale);
        let shown = (!is_stale).then(|| self.nodes[node].disks[of].content(other));
        self.nodes[node].disks[core].misread(place, shown, at_head);
        true
    }

    /// A node will not start on what it was shown. It is started again.
    pub(super) fn refuses(&mut self, node: usize, core: usize, why: &str) -> Checked {
        self.outcome.starts_refused += 1;
        self.note(&[26, node as u64, core as u64], || {
            format!("node {node} core {core} does not start on what it reads: {why}")
        });
        let delay = self.rng.u64(1_000..=self.options.nodes.down_ms.max(10) * 1_000);
        self.after(delay, Happening::Start { node });
        Ok(())
    }

    /// The bytes of a segment that entries are read back from, perhaps with a block shown as it is not.
    pub(super) fn look_back(&mut self, node: usize, core: usize, read: &LogRead) -> Option<Bytes> {
        if !self.is_chaos || !happens(&mut self.rng, self.options.disk.misread) {
            return None;
        }
        let Self { nodes, rng, .. } = self;
        let disk = &mut nodes[node].disks[core];
        let first = (read.at.offset / BLOCK_BYTES as u64) as u32;
        let blocks = first..(first + REACH_BLOCKS).min(disk.blocks());
        let (bytes, block, askew) = disk.look_askew(read.at.segment, blocks, rng)?;
        let how = match askew {
            Askew::Stale => "as it was before",
            Askew::Other => "as another",
            Askew::Flipped => "with another bit",
        };
        let segment = read.at.segment;
        if !self.strikes(|| {
            format!("node {node} core {core} reads block {block} of {segment} back {how}")
        }) {
            return None;
        }
        self.outcome.faults.misread_back += 1;
        self.outcome.faults.stale_reads += u64::from(askew == Askew::Stale);
        Some(bytes)
    }
}
