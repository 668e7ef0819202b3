//! The shard between raft, the log and the transfers of [`snapshots`](super::snapshots).
//!
//! ```text
//!  Effects.send: Snapshot ─► begin ─► Sends ─ poll ─► pieces ─► outbox (Bulk)
//!                                      ▲ ack                       │
//!  outbox (Control) ◄── ack ── Receives ◄────────── piece ◄────────┘ Event::Frame
//!                                 │ Write
//!                                 ▼
//!            Replica::write_piece ─► log ─► durable: Piece ─► all: begin_install ─► durable: install
//! ```

use crate::group::{Use, Written};
use crate::id::{GroupId, NodeId, ReplicaId, Term, Tick};
use crate::planted::{Planted, planted};
use crate::raft::ProgressState;
use crate::raft::effects::RoleKind;
use crate::raft::message::{Message, MessageKind};
use crate::wal::{RunKind, Write};
use crate::wire::{PieceStatus, SnapshotAck, SnapshotPiece};

use super::event::Post;
use super::shard::Shard;
use super::snapshots::{Ended, Name, Need, Opening, Taken};

impl Shard {
    // --- the leader's side ----------------------------------------------------------------------

    /// Raft wants this follower to get a snapshot, or the follower lost the one it was sent. Whatever
    /// cannot be begun is reported (contract row 40). The snapshot is of what is applied *now*, not of
    /// what raft named: any that reaches into the log will do (row 41).
    ///
    /// With term 0, one that is lost for want of a leader gets it from a replica that does not lead (`raft/recall.rs`).
    /// It asks again and again, while it is sent one, too.
    pub(super) fn send_snapshot(
        &mut self,
        now: Tick,
        slot: u32,
        (to, term): (ReplicaId, Term),
        starts: u32,
    ) {
        let replica = &mut self.replicas[slot as usize];
        let status = replica.status();
        let leads = status.role == RoleKind::Leader;
        let is_given_back = term == Term(0);
        let is_due = match is_given_back {
            // A machine that has stopped may be ahead of what the core knows to be applied.
            true if leads || status.failure.is_some() || replica.is_gone() => false,
            true => starts > 0 || self.sends.term(slot, to).is_none(),
            false => leads,
        };
        let mut gave_way = None;
        if !is_due || !self.sends.make_room(slot, to, now, |slot, to| gave_way = Some((slot, to))) {
            replica.on_snapshot_failed(to);
            return;
        }
        let (from, term) = (status.id, if is_given_back { term } else { status.term });
        let (group, outgoing) = (replica.group(), replica.snapshot());
        let opening = Opening { slot, group, from, to, term, outgoing };
        self.sends.begin(opening, starts, now);
        self.review_hold(slot);
        if let Some((slot, to)) = gave_way {
            self.counters.snapshots_failed += 1;
            self.replicas[slot as usize].on_snapshot_failed(to);
            self.review_hold(slot);
        }
    }

    /// How far a follower has a snapshot.
    pub(super) fn on_snapshot_ack(&mut self, now: Tick, ack: &SnapshotAck) {
        let Some(slot) = self.slot_of(ack.group) else {
            self.post(self.core_of(ack.group), Post::SnapshotAck(*ack));
            return;
        };
        let is_given_back = self.sends.term(slot, ack.from) == Some(Term(0));
        let Some((ended, starts)) = self.sends.on_ack(slot, ack, now) else { return };
        let replica = &mut self.replicas[slot as usize];
        match ended {
            Ended::Installed(entry) => {
                self.counters.snapshots_sent += 1;
                if is_given_back {
                    self.review_hold(slot);
                    return;
                }
                // What the follower holds, it has accepted. It says so itself, too, but that may be
                // lost, and nothing else would ever make raft send to it again.
                let kind = MessageKind::AppendResponse;
                let mut accepted = Message::new(kind, ack.from, ack.to, ack.term);
                accepted.entry.index = entry.index;
                replica.on_message(now, &accepted, std::iter::empty(), &mut self.answers);
                // If the log behind the snapshot is gone by now all the same, this one was of no use,
                // and the next must not wait for it.
                replica.on_snapshot_failed(ack.from);
                self.touch(slot);
            }
            Ended::Failed => {
                self.counters.snapshots_failed += 1;
                replica.on_snapshot_failed(ack.from);
            }
            Ended::StartOver => {
                let term = if is_given_back { Term(0) } else { replica.status().term };
                self.send_snapshot(now, slot, (ack.from, term), starts);
            }
        }
        self.review_hold(slot);
    }

    /// A touched group may lead no more, or its followers may go on from the log.
    pub(super) fn review_transfers(&mut self, slot: u32, role_changed: bool) {
        if !self.sends.is_empty() {
            let status = self.replicas[slot as usize].status();
            if status.role != RoleKind::Leader {
                self.sends.end_led(slot);
            } else if role_changed {
                self.sends.end_group(slot);
            } else {
                let state = |of| status.progress().find(|it| it.id == of).map(|it| it.state);
                self.sends.review(slot, |to| match state(to) {
                    _ if planted(Planted::StaleSnapshotInstalled) => Need::Snapshot,
                    Some(ProgressState::Snapshot { .. }) => Need::Snapshot,
                    Some(ProgressState::Probe) => Need::Hold,
                    Some(ProgressState::Replicate) | None => Need::Nothing,
                });
            }
            self.review_hold(slot);
        }
        // It has caught up in another way, or needs nobody's snapshot any more.
        if let Some(name) = self.receives.name(slot)
            && !self.replicas[slot as usize].is_installing()
        {
            let replica = &self.replicas[slot as usize];
            let (status, is_gone) = (replica.status(), replica.is_gone());
            let is_stale =
                name.snapshot.index <= status.commit && !planted(Planted::StaleSnapshotInstalled);
            // Its sender is refused from now on: it leads no more, or somebody does.
            let is_refused = match name.term {
                Term(0) => !replica.may_rejoin(name.snapshot),
                // Whoever led in an earlier term ended all that it sent.
                _ if name.term < status.term => true,
                _ => replica.forgotten().is_some() && status.leader == ReplicaId::NONE,
            };
            if is_gone || status.role == RoleKind::Leader || is_stale || is_refused {
                self.end_receiving(slot);
            }
        }
    }

    /// Tells the replica up to where its log may go.
    fn review_hold(&mut self, slot: u32) {
        self.replicas[slot as usize].hold_log(self.sends.hold(slot));
    }

    // --- the follower's side ---------------------------------------------------------------------

    /// A piece of a snapshot.
    pub(super) fn on_snapshot_piece(&mut self, now: Tick, piece: SnapshotPiece) {
        let Some(slot) = self.slot_of(piece.group) else {
            self.post(self.core_of(piece.group), Post::SnapshotPiece(piece));
            return;
        };
        let name = Name::of(&piece);
        let Self { receives, replicas, .. } = self;
        receives.end_earlier_lives(&name, |slot| replicas[slot as usize].end_receiving());
        let replica = &mut self.replicas[slot as usize];
        let answer = match replica.on_announced(now, piece.from, piece.term, piece.snapshot) {
            Use::None => Some(name.ack(0, PieceStatus::Refused)),
            Use::Held => Some(name.ack(0, PieceStatus::Installed)),
            Use::Coming => Some(name.ack(0, PieceStatus::Busy)),
            // It would fill what is left of the log; there may be room when the leader tries again.
            Use::Wanted if self.log.is_at_reserve() => Some(name.ack(0, PieceStatus::Busy)),
            Use::Wanted => {
                let restoring = || replica.machine().restoring();
                match self.receives.on_piece(slot, &piece, restoring, now) {
                    Taken::Ignored => None,
                    Taken::Answer(ack) => Some(ack),
                    Taken::Write => {
                        if piece.number == 0 {
                            // Pieces of two snapshots must not stand among each other.
                            replica.begin_receiving();
                        }
                        let SnapshotPiece { from, transfer, number, snapshot, bytes, .. } = piece;
                        let written = Written::Piece { from, transfer, number };
                        replica.write_piece(snapshot, bytes, Some(written));
                        None
                    }
                }
            }
        };
        if self.receives.name(slot).is_none() {
            replica.end_receiving();
        }
        self.touch(slot);
        if let Some(ack) = answer {
            self.say(slot, ack);
        }
    }

    /// A piece is durable. After the last one, the record that makes the snapshot this replica's state
    /// is written.
    pub(super) fn on_piece_durable(&mut self, slot: u32, of: (ReplicaId, u64), number: u32) {
        let Some((ack, is_whole)) = self.receives.on_durable(slot, of, number) else {
            return;
        };
        self.say(slot, ack);
        if !is_whole {
            return;
        }
        let Some((name, content, bytes)) = self.receives.finish(slot) else { return };
        let replica = &mut self.replicas[slot as usize];
        let begun = content
            .is_ok_and(|content| replica.begin_install(name.from, name.term, content, bytes));
        if !begun {
            self.end_receiving(slot);
            self.say(slot, name.ack(0, PieceStatus::Refused));
        }
    }

    /// The record is durable: the snapshot takes effect.
    pub(super) fn on_install_durable(&mut self, now: Tick, slot: u32) {
        let replica = &mut self.replicas[slot as usize];
        let Some(entry) = replica.install(now, &mut self.answers) else {
            self.end_receiving(slot);
            return;
        };
        self.counters.snapshots_received += 1;
        self.truncation.on_done(&self.replicas, slot);
        if let Some(name) = self.receives.name(slot)
            && !planted(Planted::StaleSnapshotInstalled)
        {
            debug_assert_eq!(name.snapshot, entry);
            self.say(slot, name.ack(0, PieceStatus::Installed));
        }
        self.end_receiving(slot);
        self.touch(slot);
    }

    /// Only ever a planted mistake: takes for durable what was just placed.
    pub(super) fn install_placed(&mut self, now: Tick, writes: &[Write]) {
        for run in writes.iter().flat_map(Write::runs) {
            if run.kind == RunKind::SnapshotInstalled
                && let Some(slot) = self.slot_of(run.group)
            {
                self.on_install_durable(now, slot);
            }
        }
    }

    fn end_receiving(&mut self, slot: u32) {
        self.receives.end(slot);
        self.replicas[slot as usize].end_receiving();
    }

    fn say(&mut self, slot: u32, ack: SnapshotAck) {
        // To one that does not lead it promises nothing.
        let term = match ack.term {
            Term(0) => ack.term,
            _ => self.replicas[slot as usize].status().term,
        };
        self.outbox.snapshot_ack(NodeId(ack.to.0), &SnapshotAck { term, ..ack });
    }

    // --- the turn --------------------------------------------------------------------------------

    /// Pieces leave, as many as may; transfers without progress end.
    pub(super) fn poll_transfers(&mut self, now: Tick) {
        if !self.sends.is_empty() {
            let Self { sends, outbox, counters, replicas, .. } = self;
            let ended = sends.poll(
                now,
                |piece| {
                    counters.snapshot_bytes_sent += piece.bytes.len() as u64;
                    outbox.snapshot_piece(NodeId(piece.to.0), &piece);
                },
                |slot, to| {
                    counters.snapshots_failed += 1;
                    replicas[slot as usize].on_snapshot_failed(to);
                },
            );
            ended.into_iter().for_each(|slot| self.review_hold(slot));
        }
        let Self { receives, replicas, .. } = self;
        receives.poll(now, |slot| replicas[slot as usize].end_receiving());
    }

    /// A piece or an acknowledgement of a group speaks for the node it came from, and is for this one
    /// (contract row 12).
    pub(super) fn is_between(
        &self,
        node: NodeId,
        group: GroupId,
        from: ReplicaId,
        to: ReplicaId,
    ) -> bool {
        group.0 < self.config.groups
            && from == ReplicaId(node.0)
            && to == ReplicaId(self.config.node.0)
    }
}

#[cfg(test)]
mod tests;
