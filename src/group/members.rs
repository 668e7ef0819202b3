//! A replica's part in the changes of its group: what may be proposed, what takes effect, who waits
//! for it, and its own end.
//!
//! ```text
//!   MEMBER … ─► on_member ─┬─ refused: nothing happens, ever
//!                          ├─ nothing to do: answered at once, so that it may be repeated
//!                          └─ Config entry ─► agreed ─► apply_config ─► answered when the group
//!                                                          │            accepts the next change
//!                                                          └─ removes this replica: it refuses
//!                                                             everything at once; a leader hands
//!                                                             over first; then the tombstone
//! ```

use crate::entry::Entry;
use crate::id::{EntryId, Index, NodeId, ReplicaId, Term, Tick};
use crate::limits;
use crate::planted::{Planted, planted};
use crate::raft::effects::{Effects, RoleKind, TransferEnd};
use crate::raft::message::{Message, MessageKind};
use crate::raft::{
    Change, ChangeKind, ConfigRefusal, ProgressState, ProposeRefusal, ReplicaProgress, Transition,
};
use crate::store::member::{self, Call, Verb};
use crate::wal::{Run, RunKind};
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::replica::{Answers, Replica, Verdict};
use super::state::{Applied, ChangeRefusal, MemberChange};
use super::{GroupCommand, GroupState, Origin, refusal};

/// Whether the replica belongs to its group, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Life {
    /// It does, or waits to.
    #[default]
    Member,
    /// It was removed, and that is to be written down.
    Removed,
    /// It was removed, and that is on its way to the disk or there.
    Buried,
}

/// What a replica is to its group when it starts.
pub(super) struct Standing {
    pub(super) state: GroupState,
    pub(super) life: Life,
    /// The last entry it knew to be committed when it left, if it has.
    pub(super) left_at: EntryId,
    pub(super) election_ms: u64,
}

/// Who waits for what, beside the entries.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Changes that took effect and are answered once the membership is not joint any more.
    changing: Vec<Origin>,
    /// Handovers under way.
    transfers: Vec<(ReplicaId, Origin)>,
    /// What is to be said to removed replicas that spoke; or by one, to those that still ask it.
    to_tell: Vec<Message>,
}

/// The voter that should lead next: the one that holds most, and of those the one heard from last
/// (contract row 48). Only one that was heard from within `alive_ms` can take over at all.
pub(super) fn best_successor(
    this: ReplicaId,
    voters: &[ReplicaId],
    progress: impl Iterator<Item = ReplicaProgress>,
    now: Tick,
    alive_ms: u64,
) -> Option<ReplicaId> {
    progress
        .filter(|peer| peer.id != this && voters.contains(&peer.id))
        .filter(|peer| peer.heard.is_some_and(|heard| now.since(heard) < alive_ms))
        .max_by_key(|peer| (peer.matched, peer.heard, std::cmp::Reverse(peer.id)))
        .map(|peer| peer.id)
}

impl Replica {
    /// What this group replicates about itself.
    #[must_use]
    pub fn state(&self) -> &GroupState {
        &self.state
    }

    /// This replica was removed from its group: it takes part in nothing, for ever.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.life != Life::Member
    }

    /// Whether the members or their addresses may have changed since this was asked last.
    pub fn take_state_changed(&mut self) -> bool {
        std::mem::take(&mut self.state_changed)
    }

    /// Whether this replica has been taken out, however far that has come.
    fn is_leaving(&self) -> bool {
        self.is_gone() || self.state.is_removed(self.raft.status().id)
    }

    /// The refusal of a replica that was removed; none if it was not (contract row 10).
    pub(super) fn refuse_if_leaving(&self, origin: &Origin) -> Option<Verdict> {
        let refusal = match origin {
            // The node that sent it on has not heard of the new leader yet; its client may retry.
            Origin::Node(..) => refusal::no_leader,
            Origin::Here(_) | Origin::Core(..) => refusal::removed,
        };
        self.is_leaving().then(|| Verdict::Refused(refusal(self.group)))
    }

    // --- what an operator asks ----------------------------------------------------------------

    /// An operator's `MEMBER` command.
    pub(super) fn on_member(
        &mut self,
        now: Tick,
        command: GroupCommand,
        origin: Origin,
    ) -> Verdict {
        let call = Command::parse(command.body.clone())
            .map_err(|error| Reply::error("ERR", error.to_string()))
            .and_then(|words| member::member(&words));
        let call = match call {
            Ok(call) => call,
            Err(reply) => return Verdict::Refused(reply),
        };
        let (role, leader) = (self.raft.status().role, self.raft.status().leader);
        if role != RoleKind::Leader {
            let asked_here = leader.is_some() && !matches!(origin, Origin::Node(..));
            return if call.verb == Verb::List && !asked_here {
                // Better what this replica knows than nothing.
                Verdict::Answered(self.describe())
            } else {
                self.elsewhere(leader, command, origin)
            };
        }
        match self.plan(now, &call) {
            Err(reply) => Verdict::Refused(reply),
            Ok(Plan::Answer(reply)) => Verdict::Answered(reply),
            Ok(Plan::Propose(change)) => {
                let conf = change.conf();
                let verdict = self.propose_change(change, origin);
                if planted(Planted::ChangeCountsAtAppend) && matches!(verdict, Verdict::Taken) {
                    let _ = self.raft.apply_config(self.cache.next().prev(), &conf, now);
                }
                verdict
            }
            Ok(Plan::Transfer(to)) => {
                if !self.raft.transfer(to, now) {
                    return Verdict::Refused(refusal::no_leader(self.group));
                }
                self.asked.transfers.push((to, origin));
                Verdict::Taken
            }
        }
    }

    /// What is to be done about a call, on the leader.
    fn plan(&self, now: Tick, call: &Call) -> Result<Plan, Reply> {
        let (group, state) = (self.group, &self.state);
        let members = &state.membership;
        let err = |text: String| Reply::error("ERR", text);
        if let Some(expected) = call.expected.filter(|expected| *expected != state.config_id) {
            let stale = ChangeRefusal::Stale { found: state.config_id, expected };
            return Err(refusal::no_change(group, &stale));
        }
        let done = || Ok(Plan::Answer(Reply::Int(state.config_id.0 as i64)));
        let propose = |change: MemberChange| {
            let (expected, base) = (Some(state.config_id), Some(state.clone()));
            let change = MemberChange { expected, base, ..change };
            let next = state.check(&change).map_err(|error| refusal::no_change(group, &error))?;
            self.quorum_stays(now, &next)?;
            Ok(Plan::Propose(change))
        };
        let one = |kind, id, address| propose(MemberChange::one(kind, id, address));
        let stranger = |node| {
            Err(err(format!("node {node} is no member of group {group}; MEMBER ADD comes first")))
        };
        let removed = |id| Err(refusal::no_change(group, &ChangeRefusal::Removed(id)));
        match call.verb {
            Verb::List => Ok(Plan::Answer(self.describe())),
            Verb::Add(node, address) => {
                let id = replica(node);
                if state.is_removed(id) {
                    return removed(id);
                }
                if members.is_member(id) {
                    if state.addresses.get(&id) == Some(&address) {
                        return done();
                    }
                    return Err(err(format!(
                        "node {node} is a member of group {group} already, with another address; MEMBER UPDATE changes it"
                    )));
                }
                if limits::NODES_MAX <= members.members().count() {
                    return Err(err(format!("group {group} has as many members as it may")));
                }
                one(ChangeKind::AddLearner, id, Some(address))
            }
            Verb::Promote(node) => {
                let id = replica(node);
                if members.incoming.contains(&id) && !members.is_joint() {
                    return done();
                }
                if !members.is_member(id) {
                    return if state.is_removed(id) { removed(id) } else { stranger(node) };
                }
                self.is_ready(node)?;
                one(ChangeKind::AddVoter, id, None)
            }
            Verb::Remove(node) => {
                let id = replica(node);
                if !members.is_member(id) {
                    return if state.is_removed(id) { done() } else { stranger(node) };
                }
                one(ChangeKind::Remove, id, None)
            }
            Verb::Replace { old, new } => {
                let (out, into) = (replica(old), replica(new));
                if state.is_removed(out) && members.incoming.contains(&into) {
                    return done();
                }
                if !members.is_member(out) {
                    return stranger(old);
                }
                if !members.is_member(into) {
                    return if state.is_removed(into) { removed(into) } else { stranger(new) };
                }
                self.is_ready(new)?;
                let changes = vec![
                    (Change { kind: ChangeKind::AddVoter, id: into }, None),
                    (Change { kind: ChangeKind::Remove, id: out }, None),
                ];
                propose(MemberChange { changes, ..MemberChange::default() })
            }
            Verb::Update(node, address) => {
                let id = replica(node);
                if !members.is_member(id) {
                    return stranger(node);
                }
                if state.addresses.get(&id) == Some(&address) {
                    return done();
                }
                one(ChangeKind::Update, id, Some(address))
            }
            Verb::Transfer(node) => {
                let id = replica(node);
                if id == self.raft.status().id {
                    return done();
                }
                if !members.is_voter(id) {
                    return Err(err(format!("node {node} is no voter of group {group}")));
                }
                Ok(Plan::Transfer(id))
            }
            Verb::Cancel if members.is_joint() => {
                propose(MemberChange { transition: Transition::Cancel, ..MemberChange::default() })
            }
            Verb::Cancel => done(),
        }
    }

    /// Whether a learner may become a voter: it is being fed, and almost here (contract row 64).
    /// Promoted earlier, it could make the group wait for a majority that has not caught up.
    fn is_ready(&self, node: NodeId) -> Result<(), Reply> {
        let status = self.raft.status();
        let Some(peer) = status.progress().find(|peer| peer.id == replica(node)) else {
            return Err(refusal::busy(&format!("node {node} is not being fed yet")));
        };
        let lag = status.last.index.0.saturating_sub(peer.matched.0);
        let lag_max =
            (status.commit.0 / 10).clamp(limits::PROMOTE_LAG_MIN, limits::PROMOTE_LAG_MAX);
        if peer.state == ProgressState::Replicate && peer.matched > Index(0) && lag <= lag_max {
            return Ok(());
        }
        Err(refusal::busy(&format!(
            "node {node} is not ready in group {}: {}, {lag} entries behind",
            self.group,
            state_name(peer.state)
        )))
    }

    /// Whether enough of the voters there would be were heard from lately. Otherwise the change could
    /// be the group's last (contract row 64).
    fn quorum_stays(&self, now: Tick, next: &crate::raft::Membership) -> Result<(), Reply> {
        let status = self.raft.status();
        let alive: Vec<ReplicaId> = status
            .progress()
            .filter(|peer| {
                peer.id == status.id
                    || peer.heard.is_some_and(|heard| now.since(heard) < self.election_ms)
            })
            .map(|peer| peer.id)
            .collect();
        for half in [&next.incoming, &next.outgoing] {
            let heard = half.iter().filter(|id| alive.contains(id)).count();
            if !half.is_empty() && heard <= half.len() / 2 {
                return Err(refusal::busy(&format!(
                    "only {heard} of the {} voters that group {} would have answer",
                    half.len(),
                    self.group
                )));
            }
        }
        Ok(())
    }

    fn propose_change(&mut self, change: MemberChange, origin: Origin) -> Verdict {
        let payload = change.encode();
        match self.raft.propose_config(&change.conf(), payload.len() as u64) {
            Ok(index) => {
                debug_assert_eq!(index, self.cache.next(), "the cache mirrors the log");
                let id = EntryId { term: self.raft.status().term, index };
                self.cache.push(Entry::config(payload));
                self.waiters.push(id, origin);
                Verdict::Taken
            }
            Err(refused) => {
                let group = self.group;
                let busy = |what: &str| refusal::busy(&format!("group {group}: {what}"));
                Verdict::Refused(match refused {
                    ConfigRefusal::Proposal(ProposeRefusal::Full) => {
                        busy("it holds as many uncommitted bytes as it may")
                    }
                    ConfigRefusal::Proposal(_) => refusal::no_leader(group),
                    ConfigRefusal::Pending { .. } | ConfigRefusal::Joint => {
                        busy("another change of members is under way")
                    }
                    ConfigRefusal::NotJoint => {
                        Reply::error("ERR", format!("group {group}: no change is under way"))
                    }
                    ConfigRefusal::Change(error) => {
                        refusal::no_change(group, &ChangeRefusal::Change(error))
                    }
                })
            }
        }
    }

    /// The group as this replica sees it, for `MEMBER LIST`.
    fn describe(&self) -> Reply {
        let status = self.raft.status();
        let members = &self.state.membership;
        let leads = status.role == RoleKind::Leader;
        let pair = |name: &str, value| (Reply::bulk(name), value);
        let number = |value: u64| Reply::Int(value as i64);
        let nodes = members.members().map(|id| {
            let role = match (members.incoming.contains(&id), members.outgoing.contains(&id)) {
                (true, true) => "voter",
                (true, false) if members.is_joint() => "joining",
                (true, false) => "voter",
                (false, true) => "leaving",
                (false, false) => "learner",
            };
            let address = self.state.addresses.get(&id).map(ToString::to_string);
            let progress = status.progress().find(|peer| peer.id == id);
            let last = status.last.index.0;
            let matched = progress.as_ref().map_or(0, |peer| peer.matched.0);
            let state = match &progress {
                Some(_) if id == status.id => "leader",
                Some(peer) => state_name(peer.state),
                None => "unknown",
            };
            Reply::Map(vec![
                pair("id", number(id.0)),
                pair("address", Reply::bulk(address.unwrap_or_default())),
                pair("role", Reply::bulk(role)),
                pair("state", Reply::bulk(state)),
                pair("matched", number(matched)),
                pair("lag", number(if leads { last.saturating_sub(matched) } else { 0 })),
            ])
        });
        let nodes = Reply::Array(nodes.collect());
        let removed = self.state.removed.iter().map(|id| number(id.0)).collect();
        Reply::Map(vec![
            pair("group", number(self.group.0)),
            pair("config_id", number(self.state.config_id.0)),
            pair("leader", number(status.leader.0)),
            pair("joint", number(u64::from(members.is_joint()))),
            pair("removed", Reply::Array(removed)),
            pair("members", nodes),
        ])
    }

    // --- what was agreed ----------------------------------------------------------------------

    /// The committed Config entry at `index` takes effect; `waiting` asked for it.
    pub(super) fn apply_config(
        &mut self,
        index: Index,
        payload: &bytes::Bytes,
        waiting: Option<Origin>,
        now: Tick,
        answers: &mut Answers,
    ) {
        match self.state.apply(index, payload) {
            Ok(applied) => {
                let told = match applied {
                    Applied::Change(change) => self.raft.apply_config(index, &change, now),
                    Applied::First => {
                        self.raft.begin_with(self.state.membership.clone(), now);
                        Ok(())
                    }
                };
                debug_assert!(told.is_ok(), "the state allowed what raft does not: {told:?}");
                self.state_changed = true;
                self.asked.changing.extend(waiting);
                if !self.state.membership.is_joint() {
                    // The caller tells raft that this index is applied before anybody hears the
                    // answer, so the group accepts the next change by then (contract row 34).
                    let reply = Reply::Int(index.0 as i64);
                    answers.extend(self.asked.changing.drain(..).map(|to| (to, reply.clone())));
                }
            }
            Err(why) => {
                // Whatever this leader proposed fitted, so nobody waits; but whoever does is told.
                answers.extend(waiting.map(|to| (to, refusal::no_change(self.group, &why))));
            }
        }
        debug_assert_eq!(&self.state.membership, self.raft.status().membership);
    }

    /// The handover that `end` names is over.
    pub(super) fn on_transfer_end(&mut self, end: TransferEnd, answers: &mut Answers) {
        let (ended, going) = std::mem::take(&mut self.asked.transfers)
            .into_iter()
            .partition::<Vec<_>, _>(|(to, _)| *to == end.to);
        self.asked.transfers = going;
        for (_, origin) in ended {
            let reply = if end.done {
                Reply::Int(self.state.config_id.0 as i64)
            } else {
                refusal::uncertain(&format!(
                    "node {} did not take over group {} in time, or another node did",
                    end.to, self.group
                ))
            };
            answers.push((origin, reply));
        }
    }

    /// A handover of leadership is under way, or has been agreed to.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.raft.status().transferee.is_some()
    }

    /// Hands leadership to the best successor, if there is one. Returns who.
    pub fn hand_off(&mut self, now: Tick) -> Option<ReplicaId> {
        let status = self.raft.status();
        if status.role != RoleKind::Leader {
            return None;
        }
        let (this, voters) = (status.id, &status.membership.incoming);
        let to = best_successor(this, voters, status.progress(), now, self.election_ms)?;
        self.raft.transfer(to, now).then_some(to)
    }

    // --- the end ------------------------------------------------------------------------------

    /// Whether a message concerns a replica that is no member any more, its sender or this one; then
    /// it is not for raft (contract row 37).
    pub(super) fn is_of_the_removed(&mut self, message: &Message) -> bool {
        if self.is_gone() {
            self.refuse_vote(message);
            return true;
        }
        let status = self.raft.status();
        if message.kind == MessageKind::Removed {
            // Only a leader knows better: the group that it leads.
            if status.role != RoleKind::Leader && !planted(Planted::RemovedStillVotes) {
                self.life = Life::Removed;
                self.left_at = message.entry;
                self.state_changed = true;
            }
            return true;
        }
        // A leader that hands over because it was removed is heard until another one is.
        let leads = status.leader == message.from && status.term == message.term;
        let is_heard = leads || planted(Planted::RemovedStillVotes);
        if !self.state.is_removed(message.from) || is_heard {
            return false;
        }
        let mut told = Message::new(MessageKind::Removed, status.id, message.from, status.term);
        // Its removal is among that: whoever asks it for its vote later hears of it.
        told.entry = self.raft.committed_id();
        self.tell(told);
        true
    }

    fn tell(&mut self, message: Message) {
        if self.asked.to_tell.iter().all(|told| told.to != message.to) {
            self.asked.to_tell.push(message);
        }
    }

    /// Who still asks this replica for its vote does not know that it has left, and may need that vote as long
    /// as it does not. It gets none, but hears what is committed: with the removal among that, it counts without
    /// this replica. (`tool sim --seed 3499`, with disks replaced.)
    fn refuse_vote(&mut self, message: &Message) {
        // In the term of the candidate, or it would not listen.
        let (kind, term) = match message.kind {
            MessageKind::PreVote => {
                (MessageKind::PreVoteResponse, Term(message.term.0.saturating_sub(1)))
            }
            MessageKind::Vote => (MessageKind::VoteResponse, message.term),
            _ => return,
        };
        if self.left_at == EntryId::default() || term == Term(0) {
            return;
        }
        let mut refusal = Message::new(kind, self.raft.status().id, message.from, term);
        (refusal.reject, refusal.entry) = (true, self.left_at);
        self.tell(refusal);
    }

    /// The turn ends: tells the removed, and ends this replica if it is one of them.
    pub(super) fn settle_members(&mut self, fx: &mut Effects, answers: &mut Answers) {
        let status = self.raft.status();
        let (this, role) = (status.id, status.role);
        self.tell_all(fx);
        let is_removed = self.state.is_removed(this) && !planted(Planted::RemovedStillVotes);
        if self.life == Life::Member && is_removed && role != RoleKind::Leader {
            self.life = Life::Removed;
            self.state_changed = true;
        }
        if self.life == Life::Removed {
            self.bury(answers);
        }
    }

    /// A replica that has lost part of its log asks those that were voters when it last applied
    /// anything. For those that have left since then, their leader answers: they never come back.
    pub(super) fn speak_for_the_removed(&self, fx: &mut Effects) {
        let leads = |it: &&Message| it.kind == MessageKind::RecallResponse && !it.reject;
        let Some(answer) = fx.send.iter().find(leads).copied() else { return };
        let removed = self.state.removed.iter();
        fx.send.extend(removed.map(|gone| Message { hint: Index(gone.0), ..answer }));
    }

    /// Nobody who waits here will be answered by the group.
    fn bury(&mut self, answers: &mut Answers) {
        let group = self.group;
        let why = "this node was removed from the group while it was replicated";
        self.waiters.truncate(Index(0), |origin| answers.push((origin, refusal::uncertain(why))));
        answers.extend(self.reads.drain().map(|origin| (origin, refusal::removed(group))));
        let Asked { changing, transfers, .. } = std::mem::take(&mut self.asked);
        let waiting = changing.into_iter().chain(transfers.into_iter().map(|(_, origin)| origin));
        answers.extend(waiting.map(|origin| (origin, refusal::uncertain(why))));
    }

    /// Sends what is to be told; all that a replica still says that has left.
    pub(super) fn tell_all(&mut self, fx: &mut Effects) {
        fx.send.append(&mut self.asked.to_tell);
    }

    /// The tombstone, if it is to be written.
    pub(super) fn take_tombstone(&mut self) -> Option<Run> {
        if self.life != Life::Removed {
            return None;
        }
        self.life = Life::Buried;
        self.left_at = self.left_at.max(self.raft.committed_id());
        Some(Run::mark(RunKind::Tombstone, self.group, self.hard_state(), self.left_at))
    }
}

enum Plan {
    Answer(Reply),
    Propose(MemberChange),
    Transfer(ReplicaId),
}

const fn replica(node: NodeId) -> ReplicaId {
    ReplicaId(node.0)
}

fn state_name(state: ProgressState) -> &'static str {
    match state {
        ProgressState::Probe => "probing",
        ProgressState::Replicate => "replicating",
        ProgressState::Snapshot { .. } => "waiting for a snapshot",
    }
}

#[cfg(test)]
mod tests;
