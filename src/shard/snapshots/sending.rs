//! The leader's side: which pieces are on their way, and when to send them again.
//!
//! ```text
//!                 Unknown, at most SNAPSHOT_STARTS_MAX times: the shard begins anew
//!      ┌──────────────────────────────────────────────────────────────────┐
//!      ▼                                                                  │
//!   Sending ── nothing heard, Busy, link broken: pause, go back ──► Sending again
//!      │
//!      ├── Installed ─────────────────────────────► Holding ── the follower replicates, or
//!      │                                                       SNAPSHOT_HOLD_MS_MAX ──► gone
//!      └── Refused, no progress, too many starts ─► gone; Raft::on_snapshot_failed
//!          or it waits, and another follower needs the place
//! ```
//!
//! While a follower is sent a snapshot, and while it is held for, the log behind the snapshot's last
//! entry stays ([`Sends::hold`], contract row 42).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::group::Outgoing;
use crate::id::{EntryId, GroupId, Incarnation, Index, NodeId, ReplicaId, ShardId, Term, Tick};
use crate::limits;
use crate::wire::{PieceStatus, SnapshotAck, SnapshotPiece};

use super::Bucket;

/// A transfer to be begun.
pub(in crate::shard) struct Opening {
    /// The group's slot on this core.
    pub(in crate::shard) slot: u32,
    /// The group.
    pub(in crate::shard) group: GroupId,
    /// This replica, which leads.
    pub(in crate::shard) from: ReplicaId,
    /// The follower.
    pub(in crate::shard) to: ReplicaId,
    /// The term this replica leads; 0 if it does not.
    pub(in crate::shard) term: Term,
    /// What is sent.
    pub(in crate::shard) outgoing: Outgoing,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Ended {
    /// The follower holds everything up to this entry.
    Installed(EntryId),
    /// It did not arrive.
    Failed,
    /// The follower lost it: begin again.
    StartOver,
}

/// What a follower needs, as raft sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Need {
    /// A snapshot.
    Snapshot,
    /// The log behind the snapshot it has, once it has shown that it goes on from there.
    Hold,
    /// Neither: it goes on from the log, or is no member.
    Nothing,
}

/// All transfers that leave one core. One per shard, at most `limits::SNAPSHOTS_SENDING_MAX`.
#[derive(Debug)]
pub(in crate::shard) struct Sends {
    /// The high half of every transfer's name: no later life of this node gives it again.
    prefix: u64,
    next: u32,
    under_way: Vec<Sending>,
    holds: Vec<Hold>,
    bucket: Bucket,
    /// Whose turn it is when bytes are scarce.
    turn: usize,
}

/// One transfer. `acked <= sent <= offered <= acked + window.len()`.
struct Sending {
    slot: u32,
    group: GroupId,
    from: ReplicaId,
    to: ReplicaId,
    term: Term,
    name: u64,
    snapshot: EntryId,
    outgoing: Outgoing,
    /// Pieces not acknowledged, oldest first; the first is number `acked`. The last piece stays until
    /// the follower has installed it, so that there is something to ask with.
    window: VecDeque<Bytes>,
    acked: u32,
    /// The next piece to send.
    sent: u32,
    /// One above the highest piece ever sent.
    offered: u32,
    /// Nothing leaves before.
    wait_until: Tick,
    /// If nothing was heard by then, go back. None while nothing is on its way.
    resend_at: Option<Tick>,
    resend_ms: u64,
    /// It went back, and the acknowledgements since then made no progress.
    in_doubt: bool,
    progress_at: Tick,
    /// The follower was last heard to have more than before.
    moved_at: Tick,
    /// Beginnings before this one.
    starts: u32,
}

/// A log kept for a follower that has its snapshot and must go on from there.
#[derive(Debug, Clone, Copy)]
struct Hold {
    slot: u32,
    to: ReplicaId,
    after: Index,
    until: Tick,
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending")
            .field("group", &self.group)
            .field("to", &self.to)
            .field("snapshot", &self.snapshot)
            .field("acked", &self.acked)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

impl Sends {
    /// None yet.
    pub(in crate::shard) fn new(
        incarnation: Incarnation,
        shard: ShardId,
        bytes_per_s: u64,
        now: Tick,
    ) -> Self {
        let prefix = (incarnation.0 & 0xffff_ffff) << 32 | u64::from(shard.0) << 24;
        Self {
            prefix,
            next: 0,
            under_way: Vec::new(),
            holds: Vec::new(),
            bucket: Bucket::new(bytes_per_s, now),
            turn: 0,
        }
    }

    /// Whether one more may begin; one that replaces another always may. A follower that keeps its transfers waiting, or
    /// is gone, does not keep others from theirs: one of its own is given up, and `gave_way` hears of it.
    pub(in crate::shard) fn make_room(
        &mut self,
        slot: u32,
        to: ReplicaId,
        now: Tick,
        gave_way: impl FnOnce(u32, ReplicaId),
    ) -> bool {
        if self.under_way.len() < limits::SNAPSHOTS_SENDING_MAX || self.find(slot, to).is_some() {
            return true;
        }
        let idle = |it: &Sending| it.to != to && it.may_give_way(now);
        let Some(at) = self.under_way.iter().position(idle) else { return false };
        let idle = self.under_way.swap_remove(at);
        gave_way(idle.slot, idle.to);
        true
    }

    fn find(&self, slot: u32, to: ReplicaId) -> Option<usize> {
        self.under_way.iter().position(|it| it.slot == slot && it.to == to)
    }

    /// Begins a transfer, in place of one to the same follower; `starts` is how often it was begun
    /// before and lost by the follower. The caller has asked for room.
    pub(in crate::shard) fn begin(&mut self, opening: Opening, starts: u32, now: Tick) {
        let Opening { slot, group, from, to, term, outgoing } = opening;
        let name = self.prefix | u64::from(self.next);
        self.next += 1;
        let sending = Sending {
            slot,
            group,
            from,
            to,
            term,
            name,
            snapshot: outgoing.entry(),
            outgoing,
            window: VecDeque::new(),
            acked: 0,
            sent: 0,
            offered: 0,
            wait_until: now,
            resend_at: None,
            resend_ms: limits::SNAPSHOT_RESEND_MS,
            in_doubt: false,
            progress_at: now,
            moved_at: now,
            starts,
        };
        self.holds.retain(|hold| (hold.slot, hold.to) != (slot, to));
        match self.find(slot, to) {
            Some(at) => self.under_way[at] = sending,
            None => self.under_way.push(sending),
        }
        debug_assert!(self.under_way.len() <= limits::SNAPSHOTS_SENDING_MAX);
    }

    /// A follower says how far it is. Yields how the transfer ended, if it did, and how often it had
    /// been begun; an acknowledgement of another transfer says nothing.
    pub(in crate::shard) fn on_ack(
        &mut self,
        slot: u32,
        ack: &SnapshotAck,
        now: Tick,
    ) -> Option<(Ended, u32)> {
        let at = self.find(slot, ack.from)?;
        let it = &mut self.under_way[at];
        if it.name != ack.transfer || it.snapshot != ack.snapshot {
            return None;
        }
        let (ended, starts, term) = (it.on_ack(ack, now)?, it.starts + 1, it.term);
        self.under_way.swap_remove(at);
        let ended = match ended {
            Ended::StartOver if limits::SNAPSHOT_STARTS_MAX <= starts => Ended::Failed,
            Ended::Installed(entry) if term > Term(0) => {
                let until = now.plus(limits::SNAPSHOT_HOLD_MS_MAX);
                self.holds.push(Hold { slot, to: ack.from, after: entry.index, until });
                ended
            }
            Ended::Installed(_) | Ended::StartOver | Ended::Failed => ended,
        };
        Some((ended, starts))
    }

    /// Frames to a node may be lost: what it has not acknowledged is sent again, after a pause.
    pub(in crate::shard) fn on_unreachable(&mut self, node: NodeId, now: Tick) {
        // Whoever pauses already is told nothing new: a link is reported each time a dial fails.
        let to_node = |it: &&mut Sending| it.to.0 == node.0 && it.wait_until <= now;
        self.under_way.iter_mut().filter(to_node).for_each(|it| it.go_back(now));
    }

    /// The term of the transfer to this replica, if one is under way.
    pub(in crate::shard) fn term(&self, slot: u32, to: ReplicaId) -> Option<Term> {
        self.find(slot, to).map(|at| self.under_way[at].term)
    }

    /// The replica does not lead: nothing that a leader sends is, and nothing is owed.
    pub(in crate::shard) fn end_led(&mut self, slot: u32) {
        self.under_way.retain(|it| it.slot != slot || it.term == Term(0));
        self.holds.retain(|hold| hold.slot != slot);
    }

    /// What was sent of a group is not sent any more, and nothing is owed.
    pub(in crate::shard) fn end_group(&mut self, slot: u32) {
        self.under_way.retain(|it| it.slot != slot);
        self.holds.retain(|hold| hold.slot != slot);
    }

    /// Ends what the followers of a group no longer need.
    pub(in crate::shard) fn review(&mut self, slot: u32, need: impl Fn(ReplicaId) -> Need) {
        self.under_way.retain(|it| it.slot != slot || need(it.to) == Need::Snapshot);
        self.holds.retain(|hold| hold.slot != slot || need(hold.to) != Need::Nothing);
    }

    /// Nothing is sent and nothing is held.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.holds.is_empty()
    }

    /// The entry up to which a group's log may go: what follows is needed by a follower that has, or
    /// is being sent, a snapshot that ends there.
    pub(in crate::shard) fn hold(&self, slot: u32) -> Option<Index> {
        let sending = self.under_way.iter().map(|it| (it.slot, it.snapshot.index));
        let held = self.holds.iter().map(|hold| (hold.slot, hold.after));
        sending.chain(held).filter(|it| it.0 == slot).map(|it| it.1).min()
    }

    /// Sends what may be sent now, and gives up what has made no progress for too long. Returns the slots of which
    /// something ended: less of their logs may be needed.
    pub(in crate::shard) fn poll(
        &mut self,
        now: Tick,
        mut send: impl FnMut(SnapshotPiece),
        mut failed: impl FnMut(u32, ReplicaId),
    ) -> Vec<u32> {
        let mut ended = Vec::new();
        self.holds.retain(|hold| {
            let stands = now < hold.until;
            if !stands {
                ended.push(hold.slot);
            }
            stands
        });
        self.under_way.retain(|it| {
            let alive = now.since(it.progress_at) < limits::SNAPSHOT_SILENCE_MS_MAX;
            if !alive {
                failed(it.slot, it.to);
                ended.push(it.slot);
            }
            alive
        });
        self.bucket.fill(now);
        // One piece of each in turn, until none has any or the bucket is empty.
        let mut idle = 0;
        while idle < self.under_way.len() && self.bucket.is_open() {
            self.turn = (self.turn + 1) % self.under_way.len();
            match self.under_way[self.turn].next_piece(now) {
                Some(piece) => {
                    idle = 0;
                    self.bucket.take(piece.bytes.len());
                    send(piece);
                }
                None => idle += 1,
            }
        }
        ended
    }

    /// When [`Self::poll`] next has work.
    pub(in crate::shard) fn deadline(&self) -> Tick {
        let holds = self.holds.iter().map(|hold| hold.until);
        let open_at = self.bucket.open_at();
        let sends = self.under_way.iter().map(|it| it.deadline().max(open_at));
        holds.chain(sends).min().unwrap_or(Tick(u64::MAX))
    }
}

impl Sending {
    fn on_ack(&mut self, ack: &SnapshotAck, now: Tick) -> Option<Ended> {
        match ack.status {
            PieceStatus::Installed => return Some(Ended::Installed(self.snapshot)),
            PieceStatus::Refused => return Some(Ended::Failed),
            // Piece 0 may still be on its way; only what was acknowledged can have been lost.
            PieceStatus::Unknown if self.acked == 0 => self.heard(now),
            PieceStatus::Unknown => return Some(Ended::StartOver),
            PieceStatus::Busy => {
                // It lives, and the wait is not its fault. Who does not lead need not wait for ever: it is asked again.
                if self.term > Term(0) {
                    self.progress_at = now;
                }
                // Said of each piece that was under way; one pause for all of them.
                if self.wait_until <= now {
                    self.go_back(now);
                }
            }
            PieceStatus::Go if self.acked < ack.next && ack.next <= self.offered => {
                // All but the last: see `window`.
                let most = self.window.len() - usize::from(self.outgoing.is_done());
                let done = most.min((ack.next - self.acked) as usize);
                if done > 0 {
                    self.window.drain(..done);
                    self.acked += done as u32;
                    self.sent = self.sent.max(self.acked);
                    (self.progress_at, self.moved_at) = (now, now);
                    self.in_doubt = false;
                    self.resend_ms = limits::SNAPSHOT_RESEND_MS;
                    self.resend_at = Some(now.plus(self.resend_ms));
                }
            }
            // The follower has less than it had: a late piece made it begin anew after it had lost
            // this transfer. Said once, it may be an old acknowledgement that was overtaken.
            PieceStatus::Go if ack.next < self.acked && self.in_doubt => {
                return Some(Ended::StartOver);
            }
            PieceStatus::Go => {}
        }
        None
    }

    /// Whether it waits for its follower, and little is lost with it.
    fn may_give_way(&self, now: Tick) -> bool {
        let is_stuck = limits::SNAPSHOT_RESEND_MS_MAX <= now.since(self.moved_at);
        self.in_doubt && (self.acked == 0 || is_stuck)
    }

    /// The follower is there and hears: pauses begin small again.
    fn heard(&mut self, now: Tick) {
        self.resend_ms = limits::SNAPSHOT_RESEND_MS;
        let soon = now.plus(self.resend_ms);
        self.resend_at = self.resend_at.map(|at| at.min(soon));
        self.wait_until = self.wait_until.min(soon);
    }

    /// What is not acknowledged may be lost. Goes back to it, after a pause that doubles each time.
    fn go_back(&mut self, now: Tick) {
        self.wait_until = now.plus(self.resend_ms);
        self.resend_ms = (2 * self.resend_ms).min(limits::SNAPSHOT_RESEND_MS_MAX);
        self.resend_at = None;
        self.sent = self.acked;
        self.in_doubt = true;
    }

    fn next_piece(&mut self, now: Tick) -> Option<SnapshotPiece> {
        if self.resend_at.is_some_and(|at| at <= now) {
            // It has been silent long enough: no further pause.
            self.go_back(now);
            self.wait_until = now;
        }
        let ahead = (self.sent - self.acked) as usize;
        if now < self.wait_until || limits::SNAPSHOT_WINDOW_PIECES <= ahead {
            return None;
        }
        if ahead == self.window.len() {
            self.window.push_back(self.outgoing.next_piece()?);
        }
        let number = self.sent;
        self.sent += 1;
        self.offered = self.offered.max(self.sent);
        self.resend_at.get_or_insert(now.plus(self.resend_ms));
        Some(SnapshotPiece {
            group: self.group,
            from: self.from,
            to: self.to,
            term: self.term,
            transfer: self.name,
            snapshot: self.snapshot,
            number,
            last: self.outgoing.is_done() && ahead + 1 == self.window.len(),
            bytes: self.window[ahead].clone(),
        })
    }

    fn deadline(&self) -> Tick {
        let gives_up = self.progress_at.plus(limits::SNAPSHOT_SILENCE_MS_MAX);
        let ahead = (self.sent - self.acked) as usize;
        let has_piece = ahead < self.window.len() || !self.outgoing.is_done();
        let can_send = has_piece && ahead < limits::SNAPSHOT_WINDOW_PIECES;
        let sends = if can_send { self.wait_until } else { Tick(u64::MAX) };
        sends.min(self.resend_at.unwrap_or(Tick(u64::MAX))).min(gives_up)
    }
}
