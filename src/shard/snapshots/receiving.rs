//! The follower's side: pieces are taken in order, made durable, and together become the replica.
//!
//! ```text
//!                       piece 0 of a newer transfer: begin anew
//!        ┌───────────────────────────────┐
//!        ▼                               │
//!  ─► Taking ── last piece taken ──► Whole ── all durable ──► Installing ── durable ──► restored, gone
//!        │                               │                         │
//!        └──── silence, refused, no use ─┴──► gone                 └─ nothing is taken and nothing heard
//! ```
//!
//! A piece is built into a new machine at once and written to the log; nothing else of it is kept.

use std::fmt;

use crate::group::snapshot::PieceError;
use crate::group::{Incoming, SnapshotMeta};
use crate::id::{EntryId, GroupId, ReplicaId, Term, Tick};
use crate::limits;
use crate::store::{Restoring, StateMachine};
use crate::wire::{PieceStatus, SnapshotAck, SnapshotPiece};

/// All transfers that arrive at one core. One per shard, at most `limits::SNAPSHOTS_RECEIVING_MAX`.
#[derive(Debug, Default)]
pub(in crate::shard) struct Receives {
    under_way: Vec<Receiving>,
}

/// One transfer. `durable <= taken`.
struct Receiving {
    slot: u32,
    name: Name,
    /// The pieces taken so far; gone when they became a machine.
    incoming: Option<Incoming>,
    /// Pieces taken.
    taken: u32,
    /// Pieces durable here.
    durable: u32,
    /// Their bytes.
    bytes: u64,
    /// The last piece was taken.
    is_whole: bool,
    heard: Tick,
}

/// Which transfer. What belongs to another one is recognized by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) struct Name {
    /// The group.
    pub(in crate::shard) group: GroupId,
    /// The leader that sends.
    pub(in crate::shard) from: ReplicaId,
    /// This replica.
    pub(in crate::shard) to: ReplicaId,
    /// The term the sender leads.
    pub(in crate::shard) term: Term,
    /// The sender's name for it.
    pub(in crate::shard) transfer: u64,
    /// The last entry the snapshot covers.
    pub(in crate::shard) snapshot: EntryId,
}

/// What to do with a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Taken {
    /// Nothing: it is of a transfer that has been superseded.
    Ignored,
    /// Say this.
    Answer(SnapshotAck),
    /// Write it to the log. The first piece of a transfer voids whatever of another one waits to be
    /// written.
    Write,
}

/// What a snapshot came to.
pub(in crate::shard) type Content = (SnapshotMeta, Box<dyn StateMachine>);

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving")
            .field("name", &self.name)
            .field("taken", &self.taken)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

impl Name {
    /// The transfer that a piece belongs to.
    pub(in crate::shard) const fn of(piece: &SnapshotPiece) -> Self {
        Self {
            group: piece.group,
            from: piece.from,
            to: piece.to,
            term: piece.term,
            transfer: piece.transfer,
            snapshot: piece.snapshot,
        }
    }

    /// An acknowledgement of this transfer.
    pub(in crate::shard) const fn ack(&self, next: u32, status: PieceStatus) -> SnapshotAck {
        SnapshotAck {
            group: self.group,
            from: self.to,
            to: self.from,
            term: self.term,
            transfer: self.transfer,
            snapshot: self.snapshot,
            next,
            status,
        }
    }

    /// Whether neither this transfer nor another one comes from a leader, nor both from the same member.
    fn is_beside(&self, other: &Self) -> bool {
        self.term == Term(0) && other.term == Term(0) && self.from != other.from
    }

    /// Whether the sender's node has begun the other one in a later life (`Sends::new`).
    fn is_of_an_earlier_life(&self, other: &Self) -> bool {
        self.from == other.from && self.transfer >> 32 < other.transfer >> 32
    }

    /// Whether this transfer takes the place of another one: it comes from a newer leader, or the
    /// same leader began it later.
    fn supersedes(&self, other: &Self) -> bool {
        other.term < self.term
            || (other.term == self.term
                && other.from == self.from
                && other.transfer < self.transfer)
    }
}

impl Receives {
    fn find(&self, slot: u32) -> Option<usize> {
        self.under_way.iter().position(|it| it.slot == slot)
    }

    /// A piece arrived, of a transfer that this replica has a use for; `machine` makes an empty one.
    pub(in crate::shard) fn on_piece(
        &mut self,
        slot: u32,
        piece: &SnapshotPiece,
        machine: impl FnOnce() -> Box<dyn Restoring>,
        now: Tick,
    ) -> Taken {
        let name = Name::of(piece);
        let answer = |status| Taken::Answer(name.ack(0, status));
        let known = self.find(slot);
        let at = match known {
            Some(at) if self.under_way[at].name == name => at,
            // What members that do not lead give back: one at a time.
            Some(at) if self.under_way[at].name.is_beside(&name) => {
                return answer(PieceStatus::Refused);
            }
            Some(at) if !name.supersedes(&self.under_way[at].name) => return Taken::Ignored,
            // What is being installed is past being replaced.
            Some(at) if self.under_way[at].incoming.is_none() => return answer(PieceStatus::Busy),
            _ if piece.number != 0 => return answer(PieceStatus::Unknown),
            Some(at) => {
                self.under_way[at] = Receiving::new(slot, name, machine(), now);
                at
            }
            None if limits::SNAPSHOTS_RECEIVING_MAX <= self.under_way.len() => {
                return answer(PieceStatus::Busy);
            }
            None => {
                self.under_way.push(Receiving::new(slot, name, machine(), now));
                self.under_way.len() - 1
            }
        };
        let it = &mut self.under_way[at];
        it.heard = now;
        match it.take(piece) {
            Ok(true) => Taken::Write,
            Ok(false) => Taken::Answer(it.progress()),
            Err(_) => {
                self.under_way.swap_remove(at);
                answer(PieceStatus::Refused)
            }
        }
    }

    /// The node that sends `name` has been started again since it began others: of those nothing more comes. Calls `over`
    /// for each.
    pub(in crate::shard) fn end_earlier_lives(&mut self, name: &Name, mut over: impl FnMut(u32)) {
        self.under_way.retain(|it| {
            let is_over = it.incoming.is_some() && it.name.is_of_an_earlier_life(name);
            if is_over {
                over(it.slot);
            }
            !is_over
        });
    }

    /// A piece is durable, of what a sender calls so: others may call theirs the same. Yields what to say, and
    /// whether that was the last: then [`Self::finish`] is due.
    pub(in crate::shard) fn on_durable(
        &mut self,
        slot: u32,
        of: (ReplicaId, u64),
        number: u32,
    ) -> Option<(SnapshotAck, bool)> {
        let it = self.under_way.iter_mut().find(|it| it.slot == slot)?;
        if (it.name.from, it.name.transfer) != of {
            return None;
        }
        it.durable = it.durable.max(number + 1);
        debug_assert!(it.durable <= it.taken, "{it:?}: a piece that was not taken is durable");
        Some((it.progress(), it.is_whole && it.durable == it.taken))
    }

    /// All pieces are durable: what they came to, and their bytes. From now on the transfer is being installed, and
    /// nothing takes its place until [`Self::end`].
    pub(in crate::shard) fn finish(
        &mut self,
        slot: u32,
    ) -> Option<(Name, Result<Content, PieceError>, u64)> {
        let it = self.under_way.iter_mut().find(|it| it.slot == slot)?;
        let incoming = it.incoming.take()?;
        let content = incoming.finish().and_then(|(meta, machine)| {
            let machine = machine.ok_or(PieceError::Damaged { what: "it has no machine" })?;
            Ok((meta, machine))
        });
        Some((it.name, content, it.bytes))
    }

    /// The transfer is over, one way or the other.
    pub(in crate::shard) fn end(&mut self, slot: u32) {
        self.under_way.retain(|it| it.slot != slot);
    }

    /// The transfer to a slot, if there is one.
    pub(in crate::shard) fn name(&self, slot: u32) -> Option<Name> {
        self.find(slot).map(|at| self.under_way[at].name)
    }

    /// Forgets transfers that have been silent for too long; calls `over` for each.
    pub(in crate::shard) fn poll(&mut self, now: Tick, mut over: impl FnMut(u32)) {
        self.under_way.retain(|it| {
            let alive = it.incoming.is_none() || now < it.ends_at();
            if !alive {
                over(it.slot);
            }
            alive
        });
    }

    /// When [`Self::poll`] next has work.
    pub(in crate::shard) fn deadline(&self) -> Tick {
        let taking = self.under_way.iter().filter(|it| it.incoming.is_some());
        taking.map(Receiving::ends_at).min().unwrap_or(Tick(u64::MAX))
    }
}

impl Receiving {
    fn new(slot: u32, name: Name, machine: Box<dyn Restoring>, now: Tick) -> Self {
        Self {
            slot,
            name,
            incoming: Some(Incoming::new(name.group, name.snapshot, machine)),
            taken: 0,
            durable: 0,
            bytes: 0,
            is_whole: false,
            heard: now,
        }
    }

    /// Whether the piece is the next one, and is taken.
    fn take(&mut self, piece: &SnapshotPiece) -> Result<bool, PieceError> {
        let Some(incoming) = &mut self.incoming else { return Ok(false) };
        if piece.number != self.taken || self.is_whole {
            return Ok(false);
        }
        incoming.take(&piece.bytes)?;
        if incoming.is_whole() != piece.last {
            return Err(PieceError::Damaged { what: "its last piece is not its end" });
        }
        self.taken += 1;
        self.bytes += piece.bytes.len() as u64;
        self.is_whole = piece.last;
        Ok(true)
    }

    /// How far it is. The last piece is wanted until all is installed.
    fn progress(&self) -> SnapshotAck {
        let most = if self.is_whole { self.taken - 1 } else { self.taken };
        self.name.ack(self.durable.min(most), PieceStatus::Go)
    }

    fn ends_at(&self) -> Tick {
        self.heard.plus(limits::SNAPSHOT_SILENCE_MS_MAX)
    }
}
