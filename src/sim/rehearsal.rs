//! A start rehearsed with one bit of the log flipped, or one run replaced, somewhere in what the log itself proves to have
//! been durable (`wal/mod.rs`, "Torn or damaged?"). The node may refuse such a log, say that something of it
//! is lost, or come to what it comes to without that; it must not come to anything else in silence
//! (contract row 55). What an operator may get wrong, or be driven to, is rehearsed at the same moment (`alone.rs`).
//!
//! And a loss of power rehearsed while the node runs: what it has promised by then must be on its disk.
//! No crash has to fall into the moment between a promise and its flush.

use std::ops::Range;

use bytes::Bytes;

use crate::id::{GroupId, Index, ReplicaId, SegmentSeq, Term};
use crate::limits::BLOCK_BYTES;
use crate::raft::message::{Message, MessageKind};
use crate::shard::{Config, RecoverError, Recovery, Shard};
use crate::wal;
use crate::wire::{Frame, PieceStatus};

use super::net::happens;
use super::safety::Checked;
use super::world::{Flight, World};

/// Half of the flips fall this close to the beginning of a write, in bytes: there are the headers.
const HEAD_BYTES: usize = 256;

/// So many runs are looked at for one of a length.
const RUNS_TRIED: usize = 8;

impl World {
    /// Sometimes, before the log of a core is read in earnest.
    pub(super) fn rehearse(&mut self, node: usize, core: usize, config: &Config) -> Checked {
        if !self.is_chaos || !happens(&mut self.rng, self.options.disk.rehearse) {
            return Ok(());
        }
        let Ok((intact, report)) = self.replay(node, core, config.clone()) else {
            // The start in earnest will say so.
            return Ok(());
        };
        self.rehearse_alone((node, core), config, (&intact, &report))?;
        if !report.losses.is_empty() {
            // It is damaged already.
            return Ok(());
        }
        self.rehearse_moved((node, core), config, &intact)?;
        let intact = what_it_knows(&intact);
        for _ in 0..self.options.disk.flips {
            let proven = self.nodes[node].disks[core].proven();
            if proven.is_empty() {
                break;
            }
            let (segment, start, bytes) = proven[self.rng.usize(..proven.len())];
            // The first write of a segment leads with the segment's header.
            let lead = if start == 0 && self.rng.bool() { BLOCK_BYTES } else { 0 };
            let reach = if self.rng.bool() { HEAD_BYTES } else { bytes - lead };
            let offset = start + (lead + self.rng.usize(..reach)) as u64;
            let bit = self.rng.u8(..8);
            let place = (segment, (offset as usize / BLOCK_BYTES) as u32);
            let bit_in_block = offset as usize % BLOCK_BYTES * 8 + usize::from(bit);
            self.nodes[node].disks[core].flip_bit(place, bit_in_block);
            let read = self.replay(node, core, config.clone());
            self.nodes[node].disks[core].flip_bit(place, bit_in_block);
            self.outcome.faults.bits_flipped += 1;
            is_seen(read, &intact).map_err(|known| {
                format!(
                    "damage unseen: node {node} core {core} with bit {bit} of byte {offset} of {segment} \
                     flipped comes to {known:?}, not to {intact:?}"
                )
            })?;
        }
        if let Some((segment, at, run)) = self.run_of_another(node, core) {
            let before = self.nodes[node].disks[core].overwrite(segment, at, &run);
            let read = self.replay(node, core, config.clone());
            self.nodes[node].disks[core].overwrite(segment, at, &before);
            self.outcome.faults.runs_replaced += 1;
            is_seen(read, &intact).map_err(|known| {
                format!(
                    "damage unseen: node {node} core {core} with another run at byte {at} of {segment} \
                     comes to {known:?}, not to {intact:?}"
                )
            })?;
        }
        Ok(())
    }

    /// The place of a run in what the log proves to have been durable, and the bytes of another one, of the same length if
    /// there is one: what lies there where a part of a batch never arrived in a file that was used before. Each of them
    /// is whole.
    fn run_of_another(&mut self, node: usize, core: usize) -> Option<(SegmentSeq, usize, Bytes)> {
        let (segment, place, _) = self.any_run(node, core)?;
        let mut other = None;
        for _ in 0..RUNS_TRIED {
            let (_, _, run) = self.any_run(node, core)?;
            let fits = run.len() == place.len();
            if fits || other.is_none() {
                other = Some(run);
            }
            if fits {
                break;
            }
        }
        let run = other?;
        Some((segment, place.start, run.slice(..run.len().min(place.len()))))
    }

    /// Any run of those.
    fn any_run(&mut self, node: usize, core: usize) -> Option<(SegmentSeq, Range<usize>, Bytes)> {
        let Self { nodes, rng, .. } = self;
        let disk = &mut nodes[node].disks[core];
        let proven = disk.proven();
        let (segment, start, _) = *proven.get(rng.usize(..proven.len().max(1)))?;
        let lead = if start == 0 { BLOCK_BYTES as u64 } else { 0 };
        let bytes = disk.look(segment);
        let batch = wal::batch_at(&bytes, start + lead).ok()?;
        let runs: Vec<_> = batch.runs().filter_map(Result::ok).map(|run| run.place()).collect();
        let place = runs.get(rng.usize(..runs.len().max(1)))?.clone();
        Some((segment, place.clone(), bytes.slice(place)))
    }
}

impl World {
    /// Sometimes, when a frame with promises has arrived: would they survive if its sender lost power now,
    /// and everything in flight?
    pub(super) fn audit(&mut self, flight: &Flight, frame: &Frame) -> Checked {
        let mut has_ack = false;
        for ack in frame.acks() {
            has_ack = true;
            if ack.status == PieceStatus::Installed && ack.term > Term(0) {
                self.safety.on_installed_heard(&ack);
            }
        }
        let (node, core) = (flight.path.from, usize::from(flight.path.core));
        let is_up = self.nodes[node].lives(flight.from_life);
        if !self.is_chaos || self.options.disk.audit == 0 || !is_up {
            return Ok(());
        }
        let is_promise = |message: &Message| {
            let kinds = [MessageKind::VoteResponse, MessageKind::AppendResponse];
            !message.reject && kinds.contains(&message.kind)
        };
        let promises = frame.messages().any(|(_, message, _)| is_promise(&message));
        let is_chosen = has_ack || promises && happens(&mut self.rng, self.options.disk.audit);
        if !is_chosen {
            return Ok(());
        }
        let config = self.config(node, core);
        let (shard, report) = match self.replay(node, core, config) {
            Ok(replayed) => replayed,
            // It would be given up.
            Err(RecoverError::AloneDamage { .. }) if self.may_be_given_up(node) => return Ok(()),
            Err(error) => {
                return Err(format!(
                    "node {node} core {core} does not recover if it loses power now: {error}"
                ));
            }
        };
        if !report.losses.is_empty() {
            // What is damaged is for others to repair.
            return Ok(());
        }
        self.outcome.audits += 1;
        let id = self.nodes[node].replica();
        shard.replicas().iter().try_for_each(|replica| self.safety.on_rehearsed(id, replica))
    }
}

/// Group, term, vote, last, applied, digest.
type Known = (GroupId, Term, ReplicaId, Index, Index, u64);

/// Damage was refused, or told, or costs nothing; or else what the log comes to.
fn is_seen(
    read: Result<(Shard, Recovery), RecoverError>,
    intact: &[Known],
) -> Result<(), Vec<Known>> {
    match read {
        Ok((shard, report)) if report.losses.is_empty() => {
            let known = what_it_knows(&shard);
            if known == intact { Ok(()) } else { Err(known) }
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What a core that has just started knows of each group.
fn what_it_knows(shard: &Shard) -> Vec<Known> {
    let known = shard.replicas().iter().map(|replica| {
        let status = replica.status();
        let (last, applied) = (status.last.index, status.applied);
        (replica.group(), status.term, status.vote, last, applied, replica.digest())
    });
    known.collect()
}
