//! Taking the leader's snapshot in place of log and state.
//!
//! ```text
//!   pieces ─► log, and a new machine beside the old one        the replica goes on as it is
//!     │ all durable
//!     ▼
//!   may_install: a follower of the sender, behind the snapshot, and a member in it
//!     │ yes: the pointer is written                            the replica is deaf
//!     ▼ the pointer is durable
//!   install: Raft::restore, machine, cache, waiters and reads are swapped in one step
//! ```
//!
//! *Why deaf?* When the pointer is durable, a restart begins with the snapshot and an empty log behind
//! it. What was decided when it was written must therefore still stand when it is durable: no message
//! may lengthen the log, no election may make this replica a leader, no new leader may change the term.
//! It lasts for one write to the disk, once per snapshot, on a replica that is of no use to its group
//! meanwhile (contract rows 24, 28, 50).
//!
//! A replica that has lost part of its log, and for long has had no leader to give it back, takes the state of any
//! member in the same way (term 0: the sender does not lead). Then the log does not begin anew: what it
//! holds behind the gap goes on from there, if it may ([`Islands::rejoin`](super::islands::Islands::rejoin)), and the
//! pointer says so.

use crate::id::{EntryId, ReplicaId, Term, Tick};
use crate::planted::{Planted, planted};
use crate::raft::message::{Message, MessageKind};
use crate::raft::{Persist, Restored, RoleKind};
use crate::store::StateMachine;
use crate::wal::RunKind;

use super::islands::Rejoined;
use super::refusal;
use super::replica::{Answers, Replica};
use super::sessions::Sessions;
use super::snapshot::SnapshotMeta;
use super::state::GroupState;
use super::taking::Written;

/// A snapshot that is durable and whole, and whose pointer is being written.
pub(super) struct Installing {
    announced: Message,
    entry: EntryId,
    state: GroupState,
    sessions: Sessions,
    machine: Box<dyn StateMachine>,
    /// Bytes of its pieces.
    bytes: u64,
}

/// Whether a replica has a use for a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It lacks what the snapshot covers.
    Wanted,
    /// It will have it in a moment, from its log; or has it, but does not durably know of the term it is asked in.
    Coming,
    /// It holds all of it, applied and so durable. To a leader this is an acceptance (safety point 2).
    Held,
    /// The sender is not one that this replica may take it from, or this replica takes part in nothing.
    None,
}

impl Replica {
    /// The leader of `term` says that it sends the snapshot that ends at `entry`: heeds it as the
    /// leader, and takes from the announcement what needs no data (safety point 14). Term 0: a member
    /// that does not lead.
    pub fn on_announced(&mut self, now: Tick, from: ReplicaId, term: Term, entry: EntryId) -> Use {
        let announcement = self.announcement(from, term, entry);
        if self.is_of_the_removed(&announcement) {
            return Use::None;
        }
        if term == Term(0) {
            let status = self.raft.status();
            if entry.index <= status.applied {
                return Use::Held;
            }
            if !status.membership.is_member(from) || !self.raft.may_rejoin(entry) {
                return Use::None;
            }
            if self.installing.is_none() {
                self.raft.heed_term_of(entry, now);
            }
            return Use::Wanted;
        }
        let status = self.raft.status();
        let follows = status.term == term && status.leader == from;
        if self.installing.is_none() && (!follows || self.holds(entry)) {
            let change = self.raft.step(&announcement, now);
            debug_assert!(change.is_none(), "an announcement carries no entries");
        }
        let status = self.raft.status();
        if status.failure.is_some() || status.role != RoleKind::Follower || status.leader != from {
            Use::None
        } else if planted(Planted::StaleSnapshotInstalled) {
            Use::Wanted
        } else if entry.index <= status.applied && self.raft.is_durable() {
            Use::Held
        } else if entry.index <= status.commit {
            Use::Coming
        } else {
            Use::Wanted
        }
    }

    /// The log has this very entry.
    fn holds(&self, entry: EntryId) -> bool {
        self.raft.term_at(entry.index) == Some(entry.term)
    }

    fn announcement(&self, from: ReplicaId, term: Term, entry: EntryId) -> Message {
        let own = self.raft.status().id;
        Message { entry, ..Message::new(MessageKind::Snapshot, from, own, term) }
    }

    /// All of the leader's snapshot is durable: writes the record that makes it this replica's state,
    /// if it may become that, and says whether. From then until [`Self::install`] nothing is heard.
    /// The shard stages the replica.
    pub fn begin_install(
        &mut self,
        from: ReplicaId,
        term: Term,
        (meta, machine): (SnapshotMeta, Box<dyn StateMachine>),
        bytes: u64,
    ) -> bool {
        let (status, entry) = (self.raft.status(), meta.entry);
        let (Some(state), Ok(sessions)) = (meta.state(), meta.sessions()) else {
            return false;
        };
        let is_given_back = term == Term(0);
        let may_install = status.failure.is_none()
            && status.role == RoleKind::Follower
            && status.leader == from
            && status.term == term
            && (Term(1)..=term).contains(&entry.term)
            && (status.commit < entry.index && !self.holds(entry)
                || planted(Planted::StaleSnapshotInstalled));
        let may_rejoin = entry.term <= status.term && self.raft.may_rejoin(entry);
        let may = if is_given_back { may_rejoin } else { may_install };
        let may = may && state.membership.is_member(status.id);
        if may {
            let announced = self.announcement(from, term, entry);
            self.installing =
                Some(Box::new(Installing { announced, entry, state, sessions, machine, bytes }));
            let kind = if is_given_back {
                self.raft.begin_rejoin();
                // From a replica that is not whole it means what is meant here.
                RunKind::SnapshotTaken
            } else {
                RunKind::SnapshotInstalled
            };
            self.write_mark(kind, entry, Some(Written::Installed(entry)));
        }
        may
    }

    /// The record that a snapshot is this replica's state is on its way to the disk.
    #[must_use]
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// The record is durable: log, state and everything that hangs on them are replaced in one step.
    /// Returns the last entry of the snapshot.
    pub fn install(&mut self, now: Tick, answers: &mut Answers) -> Option<EntryId> {
        let installing = *self.installing.take()?;
        if self.is_failed() {
            // Its machine stopped meanwhile. The next start begins with this snapshot.
            return None;
        }
        let Installing { announced, entry, state, sessions, machine, bytes } = installing;
        let membership = state.membership.clone();
        let mut log = Rejoined::none(entry);
        let restored = if announced.term == Term(0) {
            log = self.islands.rejoin(entry);
            let restored = self.raft.rejoin(entry, membership, log.behind.clone(), now);
            self.raft.note_committed(self.islands.committed());
            restored
        } else {
            self.islands.clear();
            self.raft.restore(&announced, membership, now)
        };
        // The disk says so already; a replica that thinks otherwise would write what its own log
        // contradicts.
        assert_eq!(
            restored,
            Restored::Yes,
            "what was decided before the record was written stands"
        );
        // Entries that were not written are void; what was to be remembered with them is not.
        self.unwritten = self.unwritten.map(|it| Persist { count: 0, ..it });
        self.machine = machine;
        self.sessions = sessions;
        self.state = state;
        self.state_changed = true;
        log.configs().for_each(|index| self.raft.note_config(index));
        self.waiters.truncate(crate::id::Index(0), |origin| {
            answers.push((origin, refusal::uncertain("its log was replaced by a snapshot")));
        });
        let group = self.group;
        answers.extend(self.reads.drain().map(|origin| (origin, refusal::no_leader(group))));
        (self.written_last, self.sealed_last) = (log.behind.last, log.behind.last);
        self.cache = log.cache;
        self.on_stored(entry, bytes);
        if let Some(segment) = log.segment {
            self.keep_from(segment);
        }
        Some(entry)
    }
}
