//! Leading: propose, send, count, commit (Raft §5.3, thesis §10.2.1).
//!
//! Nothing is sent when it is proposed or when an answer arrives; these only mark what is due.
//! [`Raft::ready`] then sends each follower what it lacks: one append for all proposals of a turn,
//! or several where the size of one append or a follower far behind demands it. An append is one
//! message per term (see `send_train`); on the way to a follower it counts as one.

use crate::id::{EntryId, Index, ReplicaId, Term, Tick};
use crate::limits;
use crate::planted::{Planted, planted};

use super::driver::{Entries, Fit, ProposeRefusal, ReadRefusal, Settings};
use super::effects::{Effects, Fetch};
use super::log::Log;
use super::message::{Message, MessageKind};
use super::progress::{Progress, ProgressState, Window};
use super::quorum;
use super::state::{Raft, Role};

/// Rounds of heartbeats whose sending a leader remembers: those that an election timeout holds, many
/// times over.
const LEASE_ROUNDS_MAX: usize = 64;

impl Raft {
    /// Appends `count` entries of `bytes` payload bytes in all to a leader's log and returns the
    /// index of the first. The driver puts their payloads in its log cache at once. They are sent
    /// and written at the next [`Raft::ready`].
    ///
    /// # Errors
    ///
    /// See [`ProposeRefusal`]. A proposal larger than the whole budget is taken when nothing else
    /// is uncommitted, and one without bytes always (safety point 20).
    pub fn propose(&mut self, count: u32, bytes: u64) -> Result<Index, ProposeRefusal> {
        let leader = self.leader();
        let budget = self.config.uncommitted_bytes_max;
        let Role::Leader(lead) = &mut self.role else {
            return Err(ProposeRefusal::NotLeader { leader });
        };
        if lead.transfer.is_some() {
            return Err(ProposeRefusal::Transferring);
        }
        let uncommitted = lead.uncommitted.bytes();
        if bytes > 0 && uncommitted > 0 && uncommitted.saturating_add(bytes) > budget {
            return Err(ProposeRefusal::Full);
        }
        let first = self.log.last().next();
        if count == 0 {
            return Ok(first);
        }
        self.log.replace_from(first, u64::from(count), self.term);
        let last = self.log.last();
        lead.uncommitted.add(last, bytes);
        (lead.dirty, lead.broadcast) = (true, true);
        self.promise_own_entries();
        self.check();
        Ok(first)
    }

    /// Joins the read batch of this turn and returns its sequence number. It may be answered when
    /// [`Effects::reads`] names this or a higher number and the index given there is applied. A read
    /// that comes before the leader's first commit waits for it. When the role changes, every read
    /// not yet confirmed is void.
    ///
    /// # Errors
    ///
    /// See [`ReadRefusal`].
    pub fn read(&mut self) -> Result<u64, ReadRefusal> {
        let leader = self.leader();
        let Role::Leader(lead) = &mut self.role else {
            return Err(ReadRefusal::NotLeader { leader });
        };
        let reads = lead.reads();
        if reads.count >= limits::READS_PENDING_MAX {
            return Err(ReadRefusal::Full);
        }
        Ok(reads.join(&mut self.read_seq))
    }

    /// As [`Raft::read`], and on a follower that knows its leader: joins the batch of this turn that
    /// the leader is asked about. It may be answered here under the same conditions.
    ///
    /// # Errors
    ///
    /// See [`ReadRefusal`]: a follower without a leader refuses too.
    pub fn read_here(&mut self) -> Result<u64, ReadRefusal> {
        match self.role {
            Role::Follower { leader, .. } if leader.is_some() => {
                let asked = &mut self.rare.get_or_insert_default().asked;
                if asked.count >= limits::READS_PENDING_MAX {
                    return Err(ReadRefusal::Full);
                }
                Ok(asked.join(&mut self.read_seq))
            }
            _ => self.read(),
        }
    }

    /// A follower's share of `ready`: asks about the reads of this turn.
    pub(super) fn ask_leader(&mut self, now: Tick) {
        let Role::Follower { leader, .. } = self.role else { return };
        if leader.is_some()
            && let Some(rare) = &mut self.rare
            && let Some(seq) = rare.asked.close(now)
        {
            if planted(Planted::FollowerReadsAlone) {
                return rare.asked.answer(seq, self.log.commit());
            }
            self.send_read_index(leader, seq);
        }
    }

    /// The leader lives: a question that may have been lost is asked again.
    pub(super) fn ask_leader_again(&mut self, leader: ReplicaId, now: Tick) {
        if let Some(rare) = &mut self.rare
            && let Some(seq) = rare.asked.overdue(self.config.heartbeat_ticks(), now)
        {
            self.send_read_index(leader, seq);
        }
    }

    fn send_read_index(&mut self, leader: ReplicaId, seq: u64) {
        let kind = MessageKind::ReadIndex;
        let mut question = Message::new(kind, self.config.id, leader, self.term);
        question.context = seq;
        self.send(question);
    }

    /// A member asks up to where it must have applied.
    pub(super) fn on_read_index(&mut self, question: &Message) {
        if !self.membership.is_member(question.from) {
            self.ignore();
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let asked = (question.from, question.context);
        let reads = leader.reads();
        let known = reads.remote.iter().any(|&(from, number, _)| (from, number) == asked);
        if known || reads.count >= limits::READS_PENDING_MAX {
            // It will ask again.
            return;
        }
        let seq = reads.join(&mut self.read_seq);
        reads.remote.push((asked.0, asked.1, seq));
    }

    /// Whether a leader's reads may be answered without asking anybody; see `read.rs`.
    #[must_use]
    pub fn lease_holds(&self, now: Tick) -> bool {
        let (Some(lease), Role::Leader(leader)) = (self.config.lease, &self.role) else {
            return false;
        };
        let promise = self.config.election_ticks();
        let margin = if planted(Planted::LeaseWithoutMargin) { 0 } else { lease.drift_percent };
        let lasts = promise * u64::from(100 - margin.min(90)) / 100;
        let is_fenced =
            self.log.writes().first().is_some_and(|write| now.since(write.at) >= promise / 2);
        !is_fenced
            && !leader.yielded
            && leader.transfer.is_none()
            && self.membership.is_voter(self.config.id)
            && self.log.commit() >= leader.term_start
            && leader
                .reads
                .as_ref()
                .is_some_and(|reads| reads.lease_from.is_some_and(|from| now.since(from) < lasts))
    }

    /// The transport could not reach this replica, or dropped something for it: appends may be
    /// lost, so stop assuming they arrive.
    pub fn on_unreachable(&mut self, replica: ReplicaId) {
        if let Role::Leader(leader) = &mut self.role
            && replica != self.config.id
            && let Some(peer) = leader.peer_mut(replica)
            && peer.state == ProgressState::Replicate
        {
            peer.become_probe();
        }
        self.check();
    }

    /// The snapshot for this replica did not arrive: feed it from what is known of it.
    pub fn on_snapshot_failed(&mut self, replica: ReplicaId) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peer_mut(replica)
        {
            peer.snapshot_failed();
        }
        self.check();
    }

    /// What [`Effects::fetch`] asked for is in memory, or will not come: try again.
    pub fn on_fetched(&mut self, replica: ReplicaId) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peer_mut(replica)
        {
            (peer.fetching, peer.wanted) = (false, true);
            leader.dirty = true;
        }
    }

    /// What [`Effects::fetch`] asked for cannot be read: the disk has lost it. The state machine has not,
    /// so this replica gets a snapshot; unless it holds the `first` of them by now, from an append that was long on its
    /// way, and what follows may be read.
    pub fn on_fetch_failed(&mut self, replica: ReplicaId, first: Index) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peer_mut(replica)
        {
            (peer.fetching, peer.unreadable) = (false, peer.matched < first);
            (peer.paused, peer.wanted) = (false, true);
            leader.dirty = true;
        }
    }

    pub(super) fn on_append_response(&mut self, response: &Message, now: Tick) {
        let last = self.log.last();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peer_mut(response.from) else { return };
        let index = response.entry.index;
        if !response.reject && index > last {
            self.ignore();
            return;
        }
        peer.on_heard(now);
        if response.reject {
            // Its hint names a term; the same rule applied to our log skips what cannot match.
            let hint = match response.entry.term.0 {
                0 => response.hint,
                _ => self.log.find_conflict_by_term(response.hint, response.entry.term).0,
            };
            if peer.on_rejected(index, hint) {
                peer.due = true;
                leader.dirty = true;
            }
            return;
        }
        let probing = peer.state == ProgressState::Probe;
        // Equal to what is known still ends probing (mistake 5).
        let ends_probing = probing && peer.matched == index;
        if !peer.on_accepted(index) && !ends_probing {
            return;
        }
        match peer.state {
            ProgressState::Probe => peer.become_replicate(),
            ProgressState::Replicate => peer.inflights.free_to(index),
            // It can go on from the log, whatever became of the snapshot (mistake 8).
            ProgressState::Snapshot { .. } if peer.matched.next() >= self.log.first() => {
                peer.become_replicate();
            }
            ProgressState::Snapshot { .. } => {}
        }
        peer.wanted = true;
        // It may lack the commit index alone.
        peer.due |= peer.can_bump_commit(self.log.commit());
        let matched = peer.matched;
        leader.dirty = true;
        if matched > self.log.commit() {
            self.advance_commit();
        }
        self.nudge_transferee(response.from, matched);
    }

    pub(super) fn on_heartbeat_response(&mut self, response: &Message, now: Tick) {
        let (id, last) = (self.config.id, self.log.last());
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peer_mut(response.from) else { return };
        peer.on_heard(now);
        peer.paused = false;
        if peer.matched < last || peer.state == ProgressState::Probe {
            // It lives: what it has not acknowledged may be lost.
            peer.due = true;
            leader.dirty = true;
        }
        let Some(peer) = leader.peer_mut(response.from) else { return };
        if response.context > peer.read_ack && response.context <= self.read_seq {
            peer.read_ack = response.context;
            confirm_reads(leader, &self.membership, id);
        }
    }

    /// The own disk has caught up to `durable`: the leader counts itself (safety point 1).
    pub(super) fn advance_own_progress(&mut self) {
        let (id, mut durable) = (self.config.id, self.log.durable());
        if planted(Planted::LeaderCountsUnflushed) {
            durable = self.log.last();
        }
        let Role::Leader(leader) = &mut self.role else { return };
        if !self.config.plain
            && let Some(own) = leader.peer_mut(id)
            && own.on_accepted(durable)
        {
            self.advance_commit();
        }
    }

    /// In plain mode, what [`Raft::advance_own_progress`] does otherwise is left to the driver.
    pub(super) fn promise_own_entries(&mut self) {
        if self.config.plain {
            self.accept(self.config.id, self.log.last());
        } else if planted(Planted::LeaderCountsUnflushed) {
            self.advance_own_progress();
        }
    }

    /// Commits what a quorum holds, if it is of this term (Raft §5.4.2, figure 8).
    pub(super) fn advance_commit(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let reached = |id| leader.peer(id).map_or(0, |peer| peer.matched.0);
        let agreed = Index(quorum::agreed(&self.membership, reached));
        let agreed = agreed.min(self.log.last());
        let is_old = agreed < leader.term_start && !planted(Planted::OldTermCommitted);
        if agreed <= self.log.commit() || is_old {
            return;
        }
        self.log.commit_to(agreed);
        (leader.dirty, leader.broadcast) = (true, true);
        leader.uncommitted.free_to(agreed);
    }

    /// A leader's share of `ready`, after the own write has been handed out.
    pub(super) fn send_due(&mut self, now: Tick, entries: &impl Entries, fx: &mut Effects) {
        let Role::Leader(leader) = &self.role else { return };
        // Asked only where a read waits for the answer.
        let is_asked = leader.reads.as_ref().is_some_and(|reads| reads.open.is_some());
        let leased = is_asked && self.config.lease.is_some() && self.lease_holds(now);
        let (id, commit) = (self.config.id, self.log.commit());
        let Role::Leader(leader) = &mut self.role else { return };
        leader.uncommitted.end_turn();
        let knows_commit = commit >= leader.term_start
            || planted(Planted::ReadBeforeFirstCommit)
            || planted(Planted::NoEmptyEntry);
        if knows_commit {
            if !leader.ready_told {
                leader.ready_told = true;
                fx.leader_ready = true;
            }
            if let Some(reads) = &mut leader.reads
                && reads.close(commit)
            {
                if leased || planted(Planted::ReadWithoutQuorum) {
                    reads.confirm(u64::MAX);
                } else {
                    leader.heartbeat_due = true;
                    // A sole voter is its own quorum.
                    confirm_reads(leader, &self.membership, id);
                }
            }
        }
        if let Some(reads) = &mut leader.reads {
            for ready in &reads.confirmed {
                reads.remote.retain(|&(from, number, seq)| {
                    let waits = seq > ready.seq;
                    if !waits {
                        let kind = MessageKind::ReadIndexResponse;
                        let mut answer = Message::new(kind, id, from, self.term);
                        answer.context = number;
                        answer.entry.index = ready.index;
                        fx.send.push(answer);
                    }
                    waits
                });
            }
            fx.reads.append(&mut reads.confirmed);
        }
        if std::mem::take(&mut leader.heartbeat_due) {
            if self.config.lease.is_some() {
                // Every round has a name, so that its sending is known when it is answered.
                self.read_seq += 1;
                let rounds = &mut leader.reads().rounds;
                if rounds.len() >= LEASE_ROUNDS_MAX {
                    rounds.pop_front();
                }
                rounds.push_back((self.read_seq, now));
            }
            let context = leader.reads.as_ref().map_or(0, |reads| reads.context());
            for peer in leader.peers.iter_mut().filter(|peer| peer.id != id) {
                // It may commit only what it is known to hold (safety point 5).
                let mut heartbeat = Message::new(MessageKind::Heartbeat, id, peer.id, self.term);
                heartbeat.commit = peer.matched.min(commit);
                heartbeat.context = context;
                peer.sent_commit = heartbeat.commit;
                fx.send.push(heartbeat);
            }
        }
        if !std::mem::take(&mut leader.dirty) {
            return;
        }
        let broadcast = std::mem::take(&mut leader.broadcast);
        let window = Window::of(&self.config);
        let feed = Feed { log: &self.log, config: &self.config, term: self.term, window, now };
        for peer in leader.peers.iter_mut().filter(|peer| peer.id != id) {
            // Whoever waits for entries to be read back has no use for an empty append meanwhile,
            // unless it learns of a commit by it.
            let is_idle = peer.fetching && !peer.can_bump_commit(commit);
            let due = std::mem::take(&mut peer.due) || (broadcast && !is_idle);
            if std::mem::take(&mut peer.wanted) || due {
                feed.feed(peer, due, entries, fx);
            }
        }
        // Unless an entry of the leader's own (it leaves a joint membership) has come between.
        let has_all = |to| leader.peer(to).is_some_and(|peer| peer.matched == self.log.last());
        let nudges = leader
            .transferee()
            .filter(|&to| self.config.plain || has_all(to) || planted(Planted::TransferToLaggard));
        if std::mem::take(&mut leader.nudge)
            && let Some(to) = nudges
        {
            fx.send.push(Message::new(MessageKind::TimeoutNow, id, to, self.term));
        }
    }
}

/// What feeding one follower takes.
struct Feed<'a> {
    log: &'a Log,
    config: &'a Settings,
    term: Term,
    window: Window,
    now: Tick,
}

impl Feed<'_> {
    /// Sends `peer` what it lacks, as far as it may have it. If `due`, the first append goes out even
    /// if it is empty.
    fn feed(&self, peer: &mut Progress, mut due: bool, entries: &impl Entries, fx: &mut Effects) {
        let (log, config) = (self.log, self.config);
        while !peer.is_paused() {
            if peer.unreadable {
                self.send_snapshot(peer, entries, fx);
                return;
            }
            let Some(previous_term) = log.term_at(peer.next.prev()) else {
                self.send_snapshot(peer, entries, fx);
                return;
            };
            let full =
                peer.state == ProgressState::Replicate && peer.inflights.is_full(self.window);
            let (mut count, mut bytes) = (0, 0);
            if !full && !peer.fetching && peer.next <= log.last() {
                let (count_max, bytes_max) =
                    (config.append_entries_max.max(1), config.append_bytes_max);
                match entries.fit(peer.next, log.last(), count_max, bytes_max) {
                    Fit::Entries { count: c, bytes: b } => (count, bytes) = (c, b),
                    Fit::Missing => {
                        peer.fetching = true;
                        fx.fetch.push(Fetch { to: peer.id, first: peer.next });
                    }
                }
            }
            if count == 0 && !due {
                return;
            }
            due = false;
            self.send_train(peer, previous_term, count, fx);
            peer.on_sent(count, bytes, self.window);
            peer.sent_commit = log.commit();
            if count == 0 {
                return;
            }
        }
    }

    /// Sends `count` entries from `peer.next` on, as one append that may take several messages: one
    /// per term. They leave together and are refused together, so for probing and for the window they
    /// are one; a log of many terms costs a follower no more round trips than one of a single term.
    fn send_train(&self, peer: &Progress, mut term: Term, mut count: u32, fx: &mut Effects) {
        let mut previous = peer.next.prev();
        loop {
            let mut car = Message::new(MessageKind::Append, self.config.id, peer.id, self.term);
            car.entry = EntryId { term, index: previous };
            car.commit = self.log.commit();
            if count > 0 {
                let run = self.log.run_end(previous.next()).0 - previous.0;
                car.run_term = self.log.term_at(previous.next()).unwrap_or_default();
                car.count = count.min(u32::try_from(run).unwrap_or(count));
            }
            fx.send.push(car);
            count -= car.count;
            if count == 0 {
                return;
            }
            (previous, term) = (previous.plus(u64::from(car.count)), car.run_term);
        }
    }

    /// The log that `peer` needs is gone.
    fn send_snapshot(&self, peer: &mut Progress, entries: &impl Entries, fx: &mut Effects) {
        // None is begun for somebody who does not answer.
        let alive = |heard| self.now.since(heard) < self.config.election_ticks();
        let is_active =
            if self.config.plain { peer.active } else { peer.heard().is_some_and(alive) };
        if !is_active {
            return;
        }
        let last = entries.snapshot().unwrap_or_else(|| {
            let index = self.log.applied().max(self.log.before_first().index);
            EntryId { term: self.log.term_at(index).unwrap_or_default(), index }
        });
        let mut message = Message::new(MessageKind::Snapshot, self.config.id, peer.id, self.term);
        message.entry = last;
        fx.send.push(message);
        peer.become_snapshot(last.index);
    }
}

/// Confirms what a quorum has echoed. This replica needs no echo of its own.
fn confirm_reads(
    leader: &mut super::state::Leader,
    membership: &super::membership::Membership,
    own: ReplicaId,
) {
    let echoed = |id| {
        if id == own { u64::MAX } else { leader.peer(id).map_or(0, |peer| peer.read_ack) }
    };
    let seq = quorum::agreed(membership, echoed);
    let Some(reads) = &mut leader.reads else { return };
    reads.confirm(seq);
    while let Some(&(round, sent)) = reads.rounds.front()
        && round <= seq
    {
        reads.rounds.pop_front();
        reads.lease_from = Some(sent);
    }
}
