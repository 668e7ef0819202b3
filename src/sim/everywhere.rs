//! Every disk is damaged at once, each where another one is not.
//!
//! The power fails everywhere, and bits rot on all nodes, in what their logs prove to have been durable. Of each
//! committed entry one copy is left at least, on whichever node, and of what each replica promised what a later batch
//! says again. So every group must go on, though no node may be left that is whole: they give each other back what they
//! have (`raft/recall.rs`).
//!
//! Which damage leaves that much is found out by reading the logs it leaves; what leaves less is not done.

use crate::id::{EntryId, GroupId, Index};
use crate::limits::BLOCK_BYTES;
use crate::raft::Forgotten;

use super::disk::Place;
use super::safety::Checked;
use super::world::World;

/// Damage is drawn so often, until some of it leaves enough.
const DRAWS: usize = 20;

/// One replica, as its damaged log has it.
struct Read {
    group: GroupId,
    applied: Index,
    last: EntryId,
    forgotten: Option<Forgotten>,
    islands: Vec<(Index, Index)>,
}

/// A bit of a block of a disk of a core.
struct Flip {
    node: usize,
    core: usize,
    place: Place,
    bit: usize,
}

impl World {
    /// All nodes lose power, and some blocks of each of their logs rot; once in a world. Where that happens while other
    /// faults go on, no disk is damaged any more.
    pub(super) fn strike_everywhere(&mut self) -> Checked {
        let spots = self.options.disk.everywhere;
        let is_calm = self.founders() >= 3 && self.replacing.is_none() && !self.may_be_too_few;
        let is_there = self.nodes.iter().all(|node| node.is_there);
        if spots == 0 || !is_calm || !is_there || self.is_hurt_everywhere {
            return Ok(());
        }
        if !self.strikes(|| "all disks are damaged".into()) {
            return Ok(());
        }
        (0..self.nodes.len()).try_for_each(|node| self.crash(node))?;
        for _ in 0..DRAWS {
            let flips = self.draw_flips(spots);
            self.flip(&flips);
            if self.leaves_enough() {
                let faults = &mut self.outcome.faults;
                faults.rot_everywhere += flips.len() as u64;
                self.is_hurt_everywhere = true;
                for Flip { node, core, place: (segment, block), .. } in flips {
                    self.note(&[29, node as u64, core as u64, segment.0, block.into()], || {
                        format!("block {block} of {segment} on node {node} core {core} rots")
                    });
                }
                return Ok(());
            }
            self.flip(&flips);
        }
        Ok(())
    }

    fn draw_flips(&mut self, spots: u32) -> Vec<Flip> {
        let mut flips = Vec::new();
        let Self { nodes, rng, .. } = self;
        for (node, it) in nodes.iter().enumerate() {
            for (core, disk) in it.disks.iter().enumerate() {
                for _ in 0..rng.u32(1..=spots) {
                    let bit = rng.usize(..BLOCK_BYTES * 8);
                    flips.extend(disk.any_block(rng).map(|place| Flip { node, core, place, bit }));
                }
            }
        }
        flips
    }

    /// Twice is not at all.
    fn flip(&mut self, flips: &[Flip]) {
        for Flip { node, core, place, bit } in flips {
            self.nodes[*node].disks[*core].flip_bit(*place, *bit);
        }
    }

    /// Whether the nodes together still have everything.
    fn leaves_enough(&mut self) -> bool {
        let mut reads = Vec::new();
        for node in 0..self.nodes.len() {
            for core in 0..self.nodes[node].disks.len() {
                let config = self.config(node, core);
                let Ok((shard, _)) = self.replay(node, core, config) else { return false };
                reads.extend(shard.replicas().iter().map(|replica| {
                    let status = replica.status();
                    let (applied, last) = (status.applied, status.last);
                    let (group, forgotten) = (replica.group(), replica.forgotten());
                    let islands = replica.islands().collect();
                    Read { group, applied, last, forgotten, islands }
                }));
            }
        }
        let nodes = self.nodes.len();
        (0..self.options.groups).map(GroupId).all(|group| {
            let reads: Vec<&Read> = reads.iter().filter(|read| read.group == group).collect();
            reads.len() == nodes && has_all(&reads)
        })
    }
}

/// Whether the replicas of one group, all of them voters, can give each other back what each has lost.
fn has_all(reads: &[&Read]) -> bool {
    if !reads.iter().all(|read| {
        let known = |what: Forgotten| what.promises_known && what.last.is_some();
        read.forgotten.is_none_or(known)
    }) {
        return false;
    }
    // From the state that is furthest, as far as islands go on from it.
    let mut reached = reads.iter().map(|read| read.applied).max().unwrap_or_default();
    let islands = || reads.iter().flat_map(|read| &read.islands);
    while let Some((_, last)) =
        islands().find(|(first, last)| *first <= reached.next() && reached < *last)
    {
        reached = *last;
    }
    let end = |read: &Read| read.forgotten.and_then(|what| what.last).unwrap_or(read.last);
    let can_be_whole = |read: &Read| {
        read.forgotten.is_none()
            || end(read).index <= reached
            || read
                .islands
                .last()
                .is_some_and(|(first, last)| *first <= reached.next() && end(read).index <= *last)
    };
    let order = |read: &Read| (end(read).term, end(read).index);
    reads.iter().any(|read| {
        let behind = reads.iter().filter(|other| order(other) <= order(read)).count();
        can_be_whole(read) && reads.len() / 2 < behind
    })
}
