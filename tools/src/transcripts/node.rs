//! One node: our core, and around it what the other library's node does with its own.
//!
//! ```text
//!   command, message ──► Raft ──► ready, at once ──► messages: out           sent with the next Ready
//!                         ▲                                    after write   and when that is written
//!                         └── answers to itself, when the transcript says they arrive
//! ```
//!
//! Theirs does everything within the call: it sends as soon as there is something to send. So `ready`
//! is called after every event. What must wait for this node's disk leaves a [plain](outrigger::raft::Config::plain)
//! core as messages, some of them to itself, and this node holds them back.

use outrigger::entry::EntryKind;
use outrigger::id::{EntryId, Index, ReplicaId, Term, Tick};
use outrigger::raft::{
    self, ConfigRefusal, Effects, Entries, Fit, HardState as RaftHardState, LogChange, MessageKind,
    OnRemoval, Raft, Recovered, Restored, RoleKind, Source,
};

use super::message::{
    APPEND_THREAD, APPLY_THREAD, Config, Entry, HardState, Kind, Message, Payload, Snapshot,
    is_thread,
};
use super::render::Ready;
use super::storage::Storage;
use super::translate::{self, cars, core_change, entry_id, is_next_car, to_core};
use super::unstable::{Applying, Unstable, bytes_of};

/// What the transcripts' nodes can be asked to be.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) async_writes: bool,
    pub(super) election_ticks: u64,
    pub(super) heartbeat_ticks: u64,
    pub(super) pre_vote: bool,
    pub(super) check_quorum: bool,
    pub(super) inflight_max: usize,
    /// Of committed entries handed out and not applied.
    pub(super) apply_bytes_max: u64,
    /// Changes of membership enter the log unseen.
    pub(super) unchecked_changes: bool,
    pub(super) step_down_on_removal: bool,
    /// Leaders answer reads by their lease.
    pub(super) lease_reads: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            async_writes: false,
            election_ticks: 3,
            heartbeat_ticks: 1,
            pre_vote: false,
            check_quorum: false,
            inflight_max: usize::MAX,
            apply_bytes_max: u64::MAX,
            unchecked_changes: false,
            step_down_on_removal: false,
            lease_reads: false,
        }
    }
}

/// What a node says of a proposal it cannot pass on.
const DROPPED: &str = "raft proposal dropped";

/// One node of the group. Lives for one file.
pub(super) struct Node {
    id: u64,
    options: Options,
    raft: Raft,
    now: Tick,
    /// The whole log: what precedes `log[0]` is gone.
    log: Vec<Entry>,
    before_first: u64,
    unstable: Unstable,
    applying: Applying,
    /// Leave with the next Ready.
    out: Vec<Message>,
    /// Leave with it, and only when it is written.
    after_write: Vec<Message>,
    /// As last shown.
    soft_state: (u64, RoleKind),
    hard_state: HardState,
    /// What this node tells itself when the last Ready has been dealt with.
    on_advance: Vec<Message>,
    pub(super) storage: Storage,
    /// The state after every entry applied here, oldest first.
    history: Vec<Snapshot>,
}

/// What the core wants to know of the log.
struct Sizes<'a> {
    log: &'a [Entry],
    before_first: u64,
    snapshot: EntryId,
}

impl Entries for Sizes<'_> {
    fn fit(&self, first: Index, last: Index, count_max: u32, _bytes_max: u64) -> Fit {
        let count = (last.0 - first.0 + 1).min(u64::from(count_max));
        let at = (first.0 - self.before_first - 1) as usize;
        let entries = &self.log[at..at + count as usize];
        let bytes = entries.iter().map(Entry::payload_bytes).sum();
        Fit::Entries { count: u32::try_from(count).unwrap_or(u32::MAX), bytes }
    }

    fn snapshot(&self) -> Option<EntryId> {
        Some(self.snapshot)
    }
}

impl Node {
    /// A node that begins with this snapshot, if it has an index, or with nothing.
    pub(super) fn new(id: u64, options: &Options, snapshot: &Snapshot) -> Result<Self, String> {
        let mut storage = Storage::default();
        if snapshot.index > 0 {
            storage.apply_snapshot(snapshot)?;
        }
        let config = raft::Config {
            election_ticks: options.election_ticks,
            heartbeat_ticks: options.heartbeat_ticks,
            pre_vote: options.pre_vote,
            check_quorum: options.check_quorum,
            append_entries_max: u32::MAX,
            append_bytes_max: u64::MAX,
            inflight_messages_max: options.inflight_max,
            inflight_bytes_max: u64::MAX,
            uncommitted_bytes_max: u64::MAX,
            on_removal: if options.step_down_on_removal {
                OnRemoval::StepDown
            } else {
                OnRemoval::KeepLeading
            },
            apply_before_durable: true,
            plain: true,
            ..raft::Config::new(ReplicaId(id), id)
        };
        let last = entry_id(snapshot.term, snapshot.index);
        let recovered = Recovered {
            hard_state: RaftHardState { commit: last.index, ..RaftHardState::default() },
            membership: snapshot.membership.clone().sorted(),
            first: last.index.next(),
            before_first: last,
            last: last.index,
            applied: last.index,
            ..Recovered::default()
        };
        let raft = Raft::new(config, recovered, Tick(0));
        let mut node = Self {
            id,
            options: options.clone(),
            raft,
            now: Tick(0),
            log: Vec::new(),
            before_first: snapshot.index,
            unstable: Unstable::after(snapshot.index),
            applying: Applying::after(snapshot.index, options.apply_bytes_max),
            out: Vec::new(),
            after_write: Vec::new(),
            soft_state: (0, RoleKind::Follower),
            hard_state: HardState::default(),
            on_advance: Vec::new(),
            storage,
            history: vec![snapshot.clone()],
        };
        node.hard_state = node.hard_state_now();
        Ok(node)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn status(&self) -> raft::Status<'_> {
        self.raft.status()
    }

    /// The state that a follower would be sent.
    pub(super) fn snapshot(&self) -> &Snapshot {
        self.history.last().expect("history begins with the node's first state")
    }

    fn last(&self) -> u64 {
        self.before_first + self.log.len() as u64
    }

    /// The entries `first..=last`, all of which are in the log.
    fn entries(&self, first: u64, last: u64) -> &[Entry] {
        let at = |index: u64| (index - self.before_first) as usize;
        &self.log[at(first) - 1..at(last)]
    }

    fn is_leader(&self) -> bool {
        self.raft.status().role == RoleKind::Leader
    }

    // --- commands -----------------------------------------------------------------------------

    pub(super) fn campaign(&mut self) {
        if self.unstable.snapshot.is_none() {
            let change = self.raft.campaign(self.now);
            self.settle(change, &[]);
        }
    }

    pub(super) fn tick(&mut self) {
        self.now = self.now.plus(1);
        // Whoever has a snapshot to write does not stand for election, but time goes on.
        if self.is_leader() || self.unstable.snapshot.is_none() {
            let change = self.raft.tick(self.now);
            self.settle(change, &[]);
        }
    }

    pub(super) fn propose(&mut self, payload: Payload) -> Result<(), String> {
        let mut proposal = Message::new(Kind::Prop, self.id, 0, 0);
        proposal.entries.push(Entry { payload, ..Entry::default() });
        self.take_proposal(proposal)
    }

    pub(super) fn transfer(&mut self, to: u64) {
        self.take_transfer(Message::new(Kind::TransferLeader, to, 0, 0));
    }

    pub(super) fn forget_leader(&mut self) {
        // Our core refuses this in a group with leases, too. It is not told of the lease, because
        // with one it names its rounds of heartbeats, which their messages do not.
        if !self.options.lease_reads {
            self.raft.forget_leader(self.now);
            self.settle(None, &[]);
        }
    }

    pub(super) fn on_unreachable(&mut self, replica: u64) {
        self.raft.on_unreachable(ReplicaId(replica));
        self.settle(None, &[]);
    }

    pub(super) fn set_election_timeout(&mut self, ticks: u64) {
        self.raft.set_election_timeout(ticks);
    }

    pub(super) fn compact(&mut self, index: u64) -> Result<(), String> {
        self.storage.compact(index)?;
        self.raft.compact(Index(index));
        Ok(())
    }

    // --- messages -----------------------------------------------------------------------------

    /// Takes a message from another node, from a storage thread, or from itself.
    pub(super) fn step(&mut self, message: Message) -> Result<(), String> {
        let is_stranger = !self.raft.status().membership.is_member(ReplicaId(message.from));
        if message.kind.is_response() && !is_thread(message.from) && is_stranger {
            return Err("raft: cannot step as peer not found".to_owned());
        }
        self.take(message)
    }

    fn take(&mut self, message: Message) -> Result<(), String> {
        match message.kind {
            Kind::Prop => return self.take_proposal(message),
            Kind::TransferLeader => self.take_transfer(message),
            Kind::App => self.take_append(&message),
            Kind::Snap => self.take_snapshot(&message),
            Kind::StorageAppendResp => self.on_written(&message),
            Kind::StorageApplyResp => self.on_applied(&message.entries),
            Kind::TimeoutNow if self.unstable.snapshot.is_some() => {}
            _ => {
                if let Some(message) = to_core(&message) {
                    let change = self.raft.step(&message, self.now);
                    self.settle(change, &[]);
                }
            }
        }
        Ok(())
    }

    fn take_proposal(&mut self, mut proposal: Message) -> Result<(), String> {
        let status = self.raft.status();
        match status.role {
            RoleKind::Leader if status.membership.is_member(status.id) => {}
            RoleKind::Follower if status.leader.is_some() => {
                proposal.to = status.leader.0;
                self.out.push(proposal);
                return Ok(());
            }
            _ => return Err(DROPPED.to_owned()),
        }
        for entry in proposal.entries {
            let bytes = entry.payload_bytes();
            let taken = match &entry.payload {
                Payload::Normal(_) => self.raft.propose(1, bytes).map_err(ConfigRefusal::from),
                Payload::Config(_) if self.options.unchecked_changes => {
                    self.raft.propose_config_unchecked(bytes)
                }
                Payload::Config(config) => self.raft.propose_config(&core_change(config), bytes),
            };
            let payload = match taken {
                Ok(_) => entry.payload,
                Err(ConfigRefusal::Proposal(_)) => return Err(DROPPED.to_owned()),
                // A change that makes no sense now becomes an entry that changes nothing.
                Err(_) => {
                    self.raft.propose(1, 0).map_err(|_| DROPPED.to_owned())?;
                    Payload::default()
                }
            };
            self.push(Entry { term: self.raft.status().term.0, index: self.last() + 1, payload });
        }
        self.settle(None, &[]);
        Ok(())
    }

    /// Comes from the one who is to lead.
    fn take_transfer(&mut self, mut transfer: Message) {
        let status = self.raft.status();
        if transfer.term != 0 && transfer.term != status.term.0 {
            if transfer.term > status.term.0 {
                // It says nothing but that there is a later term.
                let to = ReplicaId(self.id);
                let (from, term) = (ReplicaId(transfer.from), Term(transfer.term));
                let kind = MessageKind::HeartbeatResponse;
                let change = self.raft.step(&raft::Message::new(kind, from, to, term), self.now);
                self.settle(change, &[]);
            }
            return;
        }
        match status.role {
            RoleKind::Leader => {
                self.raft.transfer(ReplicaId(transfer.from), self.now);
                self.settle(None, &[]);
            }
            RoleKind::Follower if status.leader.is_some() => {
                (transfer.to, transfer.term) = (status.leader.0, status.term.0);
                self.out.push(transfer);
            }
            RoleKind::Follower | RoleKind::PreCandidate | RoleKind::Candidate => {}
        }
    }

    /// One append of theirs is a train of ours, one message per term. It is taken as a whole or, if
    /// its first message is not accepted, not at all; it is answered once.
    fn take_append(&mut self, append: &Message) {
        let is_old = append.index < self.raft.status().commit.0;
        let mut cars = cars(append).into_iter().peekable();
        while let Some((car, entries)) = cars.next() {
            let answered = self.after_write.len();
            let change = self.raft.step(&car, self.now);
            self.settle(change, entries);
            if is_old || cars.peek().is_none() {
                break;
            }
            let end = car.entry.index.0 + u64::from(car.count);
            let is_accepted = |answer: &Message| {
                answer.kind == Kind::AppResp && !answer.reject && answer.index == end
            };
            if self.after_write.len() != answered + 1
                || !self.after_write.last().is_some_and(is_accepted)
            {
                break;
            }
            self.after_write.pop();
        }
    }

    fn take_snapshot(&mut self, message: &Message) {
        let (Some(snapshot), Some(core)) = (&message.snapshot, to_core(message)) else { return };
        let restored = self.raft.restore(&core, snapshot.membership.clone(), self.now);
        if restored == Restored::Yes {
            self.log.clear();
            self.before_first = snapshot.index;
            self.unstable.on_restored(snapshot.clone());
        }
        self.settle(None, &[]);
    }

    // --- what the core did --------------------------------------------------------------------

    /// Mirrors what the core did to the log and takes what it wants sent. `entries` came with the
    /// message it was given.
    fn settle(&mut self, change: Option<LogChange>, entries: &[Entry]) {
        if let Some(change) = change {
            self.mirror(change, entries);
        }
        let mut fx = Effects::default();
        loop {
            let snapshot = self.snapshot();
            let sizes = Sizes {
                snapshot: entry_id(snapshot.term, snapshot.index),
                log: &self.log,
                before_first: self.before_first,
            };
            self.raft.ready(self.now, &sizes, &mut fx);
            self.send(&fx.send);
            let persist = fx.persist;
            fx.clear();
            // The core's own writes are of no interest: what waits for the disk waits here.
            let Some(persist) = persist else { break };
            if let Some(change) = self.raft.on_durable(persist.seq, self.now) {
                self.mirror(change, &[]);
            }
        }
    }

    fn mirror(&mut self, change: LogChange, entries: &[Entry]) {
        let first = change.first.0;
        self.unstable.on_appended(first, self.last());
        self.log.truncate((first - self.before_first - 1) as usize);
        let (term, count) = (self.raft.status().term.0, change.count as usize);
        match change.source {
            Source::Message { skip } => {
                for entry in entries.iter().skip(skip as usize).take(count) {
                    if matches!(entry.payload, Payload::Config(_)) {
                        self.raft.note_config(Index(entry.index));
                    }
                    self.log.push(entry.clone());
                }
            }
            Source::Internal(kind) => {
                for index in first..first + u64::from(change.count) {
                    let payload = match kind {
                        EntryKind::Config => Payload::Config(Config::leave()),
                        _ => Payload::default(),
                    };
                    if kind == EntryKind::Config {
                        self.raft.note_config(Index(index));
                    }
                    self.log.push(Entry { term, index, payload });
                }
            }
        }
    }

    /// Adds a proposed entry to the log.
    fn push(&mut self, entry: Entry) {
        self.unstable.on_appended(entry.index, self.last());
        self.log.push(entry);
    }

    fn send(&mut self, messages: &[raft::Message]) {
        let mut train: Option<Message> = None;
        for core in messages {
            let entries = match core.count {
                0 => &[],
                count => {
                    let before = core.entry.index.0;
                    self.entries(before + 1, before + u64::from(count))
                }
            };
            let message = translate::from_core(core, entries, self.snapshot());
            if let Some(train) = train.as_mut().filter(|train| is_next_car(train, &message)) {
                train.entries.extend(message.entries);
                continue;
            }
            let done = train.replace(message);
            self.post(done);
        }
        self.post(train);
    }

    fn post(&mut self, message: Option<Message>) {
        let Some(message) = message else { return };
        if message.kind.waits_for_the_disk() {
            self.after_write.push(message);
        } else {
            self.out.push(message);
        }
    }

    // --- Ready --------------------------------------------------------------------------------

    fn hard_state_now(&self) -> HardState {
        let status = self.raft.status();
        HardState { term: status.term.0, vote: status.vote.0, commit: status.commit.0 }
    }

    fn soft_state_now(&self) -> (u64, RoleKind) {
        let status = self.raft.status();
        (status.leader.0, status.role)
    }

    /// Up to where entries may be applied, as far as durability matters.
    fn appliable(&self) -> u64 {
        let commit = self.raft.status().commit.0;
        if self.options.async_writes { commit.min(self.unstable.offset - 1) } else { commit }
    }

    fn has_unstable_snapshot(&self) -> bool {
        self.unstable.snapshot.is_some() && !self.unstable.is_snapshot_in_progress
    }

    pub(super) fn has_ready(&self) -> bool {
        let hard_state = self.hard_state_now();
        self.soft_state != self.soft_state_now()
            || (hard_state != HardState::default() && hard_state != self.hard_state)
            || self.has_unstable_snapshot()
            || !self.out.is_empty()
            || !self.after_write.is_empty()
            || self.unstable.in_progress <= self.last()
            || (self.unstable.snapshot.is_none() && self.applying.has_next(self.appliable()))
    }

    /// What is to be done now. Everything in it counts as begun.
    pub(super) fn ready(&mut self) -> Ready {
        let (soft_state, hard_state) = (self.soft_state_now(), self.hard_state_now());
        let (last, appliable) = (self.last(), self.appliable());
        let entries = match self.unstable.in_progress {
            first if first <= last => self.entries(first, last).to_vec(),
            _ => Vec::new(),
        };
        let committed = if self.unstable.snapshot.is_none() && self.applying.has_next(appliable) {
            let committed = self.entries(self.applying.applying + 1, appliable);
            committed[..self.applying.fit(committed)].to_vec()
        } else {
            Vec::new()
        };
        let must_sync = !entries.is_empty()
            || (hard_state.term, hard_state.vote) != (self.hard_state.term, self.hard_state.vote);
        let is_new = hard_state != self.hard_state && hard_state != HardState::default();
        let mut ready = Ready {
            must_sync,
            soft_state: (soft_state != self.soft_state).then_some(soft_state),
            hard_state: is_new.then_some(hard_state),
            entries,
            snapshot: self.unstable.snapshot.clone().filter(|_| self.has_unstable_snapshot()),
            committed,
            messages: std::mem::take(&mut self.out),
        };
        self.hand_to_storage(&mut ready);
        self.soft_state = soft_state;
        if is_new {
            self.hard_state = hard_state;
        }
        self.unstable.on_handed_out(last);
        self.applying.on_handed_out(&ready.committed, appliable);
        ready
    }

    /// Says, to the storage threads or to itself, what follows when this has been dealt with.
    fn hand_to_storage(&mut self, ready: &mut Ready) {
        let after_write = std::mem::take(&mut self.after_write);
        let written = self.written_message(ready);
        let applied = (!ready.committed.is_empty()).then(|| {
            let mut applied = Message::new(Kind::StorageApplyResp, APPLY_THREAD, self.id, 0);
            applied.entries.clone_from(&ready.committed);
            applied
        });
        if !self.options.async_writes {
            let (own, others): (Vec<_>, Vec<_>) =
                after_write.into_iter().partition(|message| message.to == self.id);
            ready.messages.extend(others);
            self.on_advance.extend(own.into_iter().chain(written).chain(applied));
            return;
        }
        let must_write = !ready.entries.is_empty()
            || ready.hard_state.is_some()
            || ready.snapshot.is_some()
            || !after_write.is_empty();
        if must_write {
            let state = ready.hard_state.unwrap_or_default();
            let mut write = Message::new(Kind::StorageAppend, self.id, APPEND_THREAD, state.term);
            (write.vote, write.commit) = (state.vote, state.commit);
            write.entries.clone_from(&ready.entries);
            write.snapshot.clone_from(&ready.snapshot);
            write.responses = after_write.into_iter().chain(written).collect();
            ready.messages.push(write);
        }
        if let Some(applied) = applied {
            let mut apply = Message::new(Kind::StorageApply, self.id, APPLY_THREAD, 0);
            apply.entries.clone_from(&ready.committed);
            apply.responses.push(applied);
            ready.messages.push(apply);
        }
    }

    /// What tells the node that all it had to write is written, if there is anything.
    fn written_message(&self, ready: &Ready) -> Option<Message> {
        let last = self.last();
        let is_unstable = self.unstable.offset <= last;
        if !is_unstable && ready.snapshot.is_none() {
            return None;
        }
        let term = self.raft.status().term.0;
        let mut written = Message::new(Kind::StorageAppendResp, APPEND_THREAD, self.id, term);
        if is_unstable {
            written.index = last;
            written.log_term = self.entries(last, last)[0].term;
        }
        written.snapshot.clone_from(&ready.snapshot);
        Some(written)
    }

    /// The last Ready has been dealt with.
    pub(super) fn advance(&mut self) {
        for message in std::mem::take(&mut self.on_advance) {
            // What a node tells itself cannot be refused.
            let _ = self.take(message);
        }
    }

    fn on_written(&mut self, written: &Message) {
        // Of an earlier term it says nothing about entries: they may have been replaced since, and
        // what replaces them may still be on its way to the disk.
        let is_current = written.term == self.raft.status().term.0;
        let index = written.index;
        if is_current
            && (self.unstable.offset..=self.last()).contains(&index)
            && self.entries(index, index)[0].term == written.log_term
        {
            self.unstable.on_written(index);
        }
        if let Some(snapshot) = &written.snapshot {
            self.unstable.on_snapshot_written(snapshot.index);
            self.report_applied(snapshot.index, 0);
        }
    }

    fn on_applied(&mut self, entries: &[Entry]) {
        if let Some(last) = entries.last() {
            self.report_applied(last.index, bytes_of(entries));
        }
    }

    fn report_applied(&mut self, index: u64, bytes: u64) {
        self.applying.on_applied(index, bytes);
        let change = self.raft.on_applied(Index(self.applying.applied));
        self.settle(change, &[]);
    }

    // --- storage ------------------------------------------------------------------------------

    pub(super) fn write(
        &mut self,
        state: HardState,
        entries: &[Entry],
        snapshot: Option<&Snapshot>,
    ) -> Result<(), String> {
        if state != HardState::default() {
            self.storage.hard_state = state;
        }
        match snapshot {
            Some(_) if !entries.is_empty() => {
                Err("can't apply snapshot and entries at the same time".to_owned())
            }
            Some(snapshot) => self.storage.apply_snapshot(snapshot),
            None => self.storage.append(entries),
        }
    }

    pub(super) fn apply(&mut self, entries: &[Entry]) -> Result<(), String> {
        for entry in entries {
            let membership = match &entry.payload {
                Payload::Normal(_) => self.snapshot().membership.clone(),
                Payload::Config(config) => {
                    let index = Index(entry.index);
                    self.raft
                        .apply_config(index, &core_change(config), self.now)
                        .map_err(|error| format!("entry {index} cannot be applied: {error}"))?;
                    self.settle(None, &[]);
                    self.raft.status().membership.clone()
                }
            };
            self.history.push(Snapshot { term: entry.term, index: entry.index, membership });
        }
        Ok(())
    }
}
