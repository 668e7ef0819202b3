//! A start rehearsed with one bit of the log flipped, somewhere in what the log itself proves to have
//! been durable (`wal/mod.rs`, "Torn or damaged?"). The node may refuse such a log, say that something of it
//! is lost, or come to what it comes to without the flip; it must not come to anything else in silence
//! (contract row 55).
//!
//! And a loss of power rehearsed while the node runs: what it has promised by then must be on its disk.
//! No crash has to fall into the moment between a promise and its flush.

use crate::id::{GroupId, Index, ReplicaId, Term};
use crate::limits::BLOCK_BYTES;
use crate::raft::message::{Message, MessageKind};
use crate::shard::RecoverError;
use crate::shard::{Config, Shard};
use crate::wire::{Frame, PieceStatus};

use super::net::happens;
use super::safety::Checked;
use super::world::{Flight, World};

/// Half of the flips fall this close to the beginning of a write, in bytes: there are the headers.
const HEAD_BYTES: usize = 256;

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
        if !report.losses.is_empty() {
            // It is damaged already.
            return Ok(());
        }
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
            if let Ok((shard, report)) = read
                && report.losses.is_empty()
                && what_it_knows(&shard) != intact
            {
                return Err(format!(
                    "damage unseen: node {node} core {core} with bit {bit} of byte {offset} of {segment} \
                     flipped comes to {:?}, not to {intact:?}",
                    what_it_knows(&shard)
                ));
            }
        }
        Ok(())
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

/// What a core that has just started knows of each group.
fn what_it_knows(shard: &Shard) -> Vec<Known> {
    let known = shard.replicas().iter().map(|replica| {
        let status = replica.status();
        let (last, applied) = (status.last.index, status.applied);
        (replica.group(), status.term, status.vote, last, applied, replica.digest())
    });
    known.collect()
}
