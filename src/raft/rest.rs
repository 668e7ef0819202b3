//! What a replica that rests does without.
//!
//! A node holds many thousand replicas, and nearly all of them rest: their group agrees, and only
//! heartbeats pass. Two rules keep such a replica small:
//!
//! - What few replicas ever have lives in [`Rare`], which exists only while there is some of it.
//! - What only work needs (writes in flight, promises, windows of appends) is allocated with the first
//!   entry and kept, so that an entry allocates nothing. It is given back at the second heartbeat in a row
//!   between which nothing was written: a group with ten writes a second keeps it.
//!
//! Nothing here is seen from outside: a replica that has given memory back does as it would have done.

use crate::id::{ReplicaId, Term, Tick};

use super::effects::TransferEnd;
use super::read::Asked;
use super::recall::{Claim, Recall, Recalled};
use super::state::{Raft, Role};
use super::status::Failure;

/// What few replicas ever have, and none for long.
#[derive(Debug, Clone, Default)]
pub(super) struct Rare {
    pub(super) failure: Option<Failure>,
    /// Messages not acted on.
    pub(super) ignored: u64,
    /// The term whose leader has asked this replica to take over.
    pub(super) called: Option<Term>,
    /// Before this time no vote is given: an earlier life may have promised so (leases).
    pub(super) promised_until: Tick,
    /// To whom this replica was handing leadership when it stopped leading.
    pub(super) handing: Option<ReplicaId>,
    /// Not yet told to the driver.
    pub(super) transfer_end: Option<TransferEnd>,
    /// Reads of this replica that wait for its leader's word.
    pub(super) asked: Asked,
    /// Part of the log was lost, and is not back yet.
    pub(super) recall: Option<Recall>,
    /// Not yet told to the driver.
    pub(super) recalled: Vec<Recalled>,
    /// What voters that have lost something said of their logs, in one term; one of each.
    pub(super) claims: Vec<Claim>,
}

impl Rare {
    /// The handover to `to` is given up.
    pub(super) fn end_transfer(rare: &mut Option<Box<Self>>, to: ReplicaId) {
        rare.get_or_insert_default().transfer_end = Some(TransferEnd { to, done: false });
    }

    /// There is something to tell, or to ask.
    pub(super) fn has_news(&self) -> bool {
        self.asked.open.is_some()
            || !self.asked.confirmed.is_empty()
            || self.transfer_end.is_some()
            || !self.recalled.is_empty()
    }

    fn is_needed(&self, term: Term) -> bool {
        self.has_news()
            || self.failure.is_some()
            || self.ignored > 0
            || self.called.is_some_and(|called| called >= term)
            || self.promised_until > Tick(0)
            || self.handing.is_some()
            || self.asked.count > 0
            || self.recall.is_some()
    }
}

impl Raft {
    /// The place for what is rare; made if there is none.
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.rare.as_ref().and_then(|rare| rare.failure)
    }

    pub(super) fn recall(&self) -> Option<&Recall> {
        self.rare.as_ref().and_then(|rare| rare.recall.as_ref())
    }

    pub(super) fn recall_mut(&mut self) -> Option<&mut Recall> {
        self.rare.as_mut().and_then(|rare| rare.recall.as_mut())
    }

    pub(super) fn promised_until(&self) -> Tick {
        self.rare.as_ref().map_or(Tick(0), |rare| rare.promised_until)
    }

    /// A message is not acted on.
    pub(super) fn ignore(&mut self) {
        self.rare().ignored += 1;
    }

    /// A heartbeat passes. If nothing was written since the last one, memory that only work needs goes
    /// back.
    pub(super) fn rest(&mut self) {
        if !self.log.rest() {
            return;
        }
        self.promises.rest();
        self.outbox.rest();
        if self.rare.as_ref().is_some_and(|rare| !rare.is_needed(self.term)) {
            self.rare = None;
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.rest();
        }
    }
}
