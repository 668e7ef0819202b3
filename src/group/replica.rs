//! The replica: owns the raft core, and mirrors in its cache, waiters and reads what the core
//! decides.

use std::fmt;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind, SESSION_HEADER_BYTES};
use crate::id::{EntryId, GroupId, Index, ReplicaId, SegmentSeq, Term, Tick, UnixMs};
use crate::limits::{COMMAND_BYTES_MAX, SLOW_OPS_MAX};
use crate::planted::{Planted, planted};
use crate::raft::effects::{Effects, HardState, Persist, PersistSeq, RoleEvent, RoleKind};
use crate::raft::message::{Message, MessageKind};
use crate::raft::{self, LogChange, ProposeRefusal, Raft, ReadRefusal, Source};
use crate::store::StateMachine;
use crate::store::batch::{Batch, Stop};
use crate::store::command::Access;
use crate::wal::{EntryLists, Run, RunKind};
use crate::wire::reply::Reply;

use super::apply::{Owed, Stretch};
use super::install::Installing;
use super::islands::Islands;
use super::log_cache::LogCache;
use super::members::{Asked, Life, Standing};
use super::reads::{self, Read, Reads};
use super::sessions::Sessions;
use super::taking::{Beside, Written};
use super::waiters::Waiters;
use super::{GroupCommand, GroupState, Origin, refusal};

/// Results, each with whom it is owed.
pub type Answers = Vec<(Origin, Reply)>;

/// What became of a command on arrival.
#[derive(Debug)]
pub enum Verdict {
    /// It waits for agreement; its answer will come.
    Taken,
    /// Another replica leads; the command is given back to be forwarded.
    Elsewhere(ReplicaId, GroupCommand),
    /// It was not taken and changes nothing.
    Refused(Reply),
    /// There was nothing to agree on; this is the answer.
    Answered(Reply),
}

/// Room is made at once for a run of so many entries; more are seldom small enough to fit one.
const ENTRIES_EXPECTED_MAX: usize = 256;

/// One replica of one group; one per group and node, on one shard for life.
pub struct Replica {
    pub(super) group: GroupId,
    pub(super) raft: Raft,
    pub(super) cache: LogCache,
    pub(super) machine: Box<dyn StateMachine>,
    pub(super) sessions: Sessions,
    pub(super) waiters: Waiters,
    pub(super) reads: Reads,
    /// What is applied here holds every write that was answered before this time: since then a read
    /// has been confirmed and answered. None yet since the start.
    fresh_at: Option<Tick>,
    /// The last entry with a time that this replica proposed, and the time.
    stamped: (Index, UnixMs),
    /// Members, addresses, and who is gone; see `members.rs` for what is done with them.
    pub(super) state: GroupState,
    pub(super) state_changed: bool,
    pub(super) life: Life,
    /// The last entry it knew to be committed when it left its group.
    pub(super) left_at: EntryId,
    pub(super) asked: Asked,
    /// Silence of this length, in ms, makes a member doubtful.
    pub(super) election_ms: u64,
    /// What the core wants durable and no batch has taken yet.
    pub(super) unwritten: Option<Persist>,
    /// Snapshots, and what else is written beside the log; see `taking.rs`.
    pub(super) beside: Beside,
    /// A snapshot from the leader that is about to take effect; see `install.rs`.
    pub(super) installing: Option<Box<Installing>>,
    /// What the log holds behind gaps, while part of it is gone.
    pub(super) islands: Islands,
    /// The last entry that began a term and of which the log on disk says what it follows.
    said_start: EntryId,
    /// Where the log on disk ends: the segment of the last run, its last index, and the last index
    /// that lies in a segment before that one (those can be read back, so they may be evicted).
    segment: SegmentSeq,
    pub(super) written_last: Index,
    pub(super) sealed_last: Index,
    /// The last entry that may be applied, if the machine is not there yet: it yielded.
    to_apply: Option<Index>,
    /// The machine cannot go on. The core has failed then, too.
    pub(super) stopped: Option<Stop>,
    /// Whom this replica, which has failed and follows nobody, heard lead last: its clients are sent there.
    heard_leading: (Term, ReplicaId),
    /// The driver was told that the core failed.
    failure_told: bool,
    /// Reads that take as long as this, in ms, are slow; and those that did and were not taken yet.
    slow_after_ms: u64,
    slow_reads: Vec<(u64, Bytes)>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Replica {
    pub(super) fn new(
        group: GroupId,
        raft: Raft,
        cache: LogCache,
        machine: Box<dyn StateMachine>,
        sessions: Sessions,
        standing: Standing,
        beside: Beside,
    ) -> Self {
        let last = cache.next().prev();
        let Standing { state, life, left_at, election_ms } = standing;
        Self {
            group,
            raft,
            cache,
            machine,
            sessions,
            waiters: Waiters::default(),
            reads: Reads::default(),
            fresh_at: None,
            stamped: (Index(0), UnixMs(0)),
            state,
            state_changed: true,
            life,
            left_at,
            asked: Asked::default(),
            election_ms,
            unwritten: None,
            beside,
            installing: None,
            islands: Islands::default(),
            said_start: EntryId::default(),
            segment: SegmentSeq(0),
            written_last: last,
            sealed_last: last,
            to_apply: None,
            stopped: None,
            heard_leading: (Term(0), ReplicaId::NONE),
            failure_told: false,
            slow_after_ms: u64::MAX,
            slow_reads: Vec::new(),
        }
    }

    /// The group this is a replica of.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// What was lost of this replica's log and is not back yet.
    #[must_use]
    pub fn forgotten(&self) -> Option<raft::Forgotten> {
        self.raft.forgotten()
    }

    /// Whether it may take the state that ends at `last` from a member that does not lead.
    #[must_use]
    pub fn may_rejoin(&self, last: EntryId) -> bool {
        self.raft.may_rejoin(last)
    }

    /// The first and the last of the entries that the log holds behind each gap, while part of it is gone.
    pub fn islands(&self) -> impl Iterator<Item = (Index, Index)> + '_ {
        self.islands.ends()
    }

    /// What the core knows of itself.
    #[must_use]
    #[inline]
    pub fn status(&self) -> raft::Status<'_> {
        self.raft.status()
    }

    /// The recent entries.
    #[must_use]
    pub fn cache(&self) -> &LogCache {
        &self.cache
    }

    /// The state machine, to read.
    #[must_use]
    pub fn machine(&self) -> &dyn StateMachine {
        &*self.machine
    }

    /// The client sessions, to look at.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A digest of all that this replica has applied, data and sessions.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.machine.digest().wrapping_add(self.sessions.digest())
    }

    /// Whether this replica would answer a read by its lease.
    #[must_use]
    pub fn is_leased(&self, now: Tick) -> bool {
        self.raft.lease_holds(now)
    }

    /// Whether this replica gives no vote now, because it has promised so or hears its leader.
    #[must_use]
    pub fn refuses_votes(&self, now: Tick) -> bool {
        self.is_gone() || self.raft.is_leased(now)
    }

    /// The term of the entry at `index`, if the log holds it.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<crate::id::Term> {
        self.raft.term_at(index)
    }

    /// When [`Self::on_tick`] next has work.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        if self.is_gone() || self.is_installing() {
            return Tick(u64::MAX);
        }
        self.raft.deadline()
    }

    // --- time ---------------------------------------------------------------------------------

    /// What the machine has due falls due through the log, and this replica leads: the earliest time at
    /// which that is to be seen to, if any. What is under way already does not count.
    #[must_use]
    pub fn due(&self) -> Option<UnixMs> {
        // Mostly nothing ever is, and that is known at once.
        self.machine.due(UnixMs(0))?;
        if self.raft.status().role != RoleKind::Leader || self.is_failed() {
            return None;
        }
        let (index, at) = self.stamped;
        let is_under_way = self.raft.status().applied < index && index < self.cache.next();
        self.machine.due(if is_under_way { at } else { UnixMs(0) })
    }

    fn is_due(&self, wall: UnixMs) -> bool {
        self.due().is_some_and(|due| due <= wall)
    }

    /// What is due is brought about, by an entry with nothing but the time.
    fn let_time_pass(&mut self, wall: UnixMs) {
        if !self.is_due(wall) {
            return;
        }
        let Some(payload) = self.machine.stamp(&Bytes::new(), wall, true) else { return };
        // If it cannot be proposed now, there will be another time.
        if let Ok(index) = self.raft.propose(1, payload.len() as u64) {
            self.cache.push(Entry::command(payload));
            self.stamped = (index, wall);
        }
    }

    // --- events -------------------------------------------------------------------------------

    /// A client's command, from whoever holds its connection. `wall` is what the clock on this machine's
    /// wall says, for a command whose effect depends on it.
    pub fn on_command(
        &mut self,
        now: Tick,
        wall: UnixMs,
        command: GroupCommand,
        origin: Origin,
    ) -> Verdict {
        if let Some(refused) = self.refuse_if_leaving(&origin) {
            return refused;
        }
        match command.access {
            Access::Member => self.on_member(now, command, origin),
            Access::Write => self.propose(wall, command, origin),
            _ => self.read(now, wall, command, origin),
        }
    }

    fn propose(&mut self, wall: UnixMs, mut command: GroupCommand, origin: Origin) -> Verdict {
        let leads = self.raft.status().role == RoleKind::Leader;
        let stamped = match leads && !command.body.is_empty() {
            true => self.machine.stamp(&command.body, wall, self.is_due(wall)),
            false => None,
        };
        let is_stamped = stamped.is_some();
        let unstamped = stamped.map(|body| std::mem::replace(&mut command.body, body));
        let header = command.session.map_or(0, |_| SESSION_HEADER_BYTES);
        let bytes = header + command.body.len();
        if COMMAND_BYTES_MAX < bytes {
            // Followers would refuse the entry.
            return Verdict::Refused(refusal::too_long(bytes));
        }
        match self.raft.propose(1, bytes as u64) {
            Ok(index) => {
                debug_assert_eq!(index, self.cache.next(), "the cache mirrors the log");
                let id = EntryId { term: self.raft.status().term, index };
                self.cache.push(match command.session {
                    Some(session) => Entry::session(session.payload(&command.body)),
                    None => Entry::command(command.body),
                });
                if is_stamped {
                    self.stamped = (index, wall);
                }
                self.waiters.push(id, origin);
                Verdict::Taken
            }
            Err(ProposeRefusal::NotLeader { leader }) => {
                // Its own leader stamps it.
                command.body = unstamped.unwrap_or(command.body);
                self.elsewhere(leader, command, origin)
            }
            Err(ProposeRefusal::Transferring) => Verdict::Refused(refusal::no_leader(self.group)),
            Err(ProposeRefusal::Full) => Verdict::Refused(refusal::busy(&format!(
                "group {} holds as many uncommitted bytes as it may",
                self.group
            ))),
        }
    }

    fn read(&mut self, now: Tick, wall: UnixMs, command: GroupCommand, origin: Origin) -> Verdict {
        if !self.reads.has_room() {
            return Verdict::Refused(refusal::busy("too many reads are waiting"));
        }
        // What its connection sent before it is on its way to the leader, so the leader must answer.
        let nearby = command.manner.nearby && !command.after_writes;
        // A tick ends up to 1 ms after it began: what looks as old as allowed may be older.
        if let Some(fresh_at) = self.fresh_at
            && nearby
            && now.since(fresh_at) < u64::from(command.manner.stale_ms)
        {
            return Verdict::Answered(self.look_up(&command.body, wall));
        }
        let leads = self.raft.status().role == RoleKind::Leader;
        // What is due by now is gone before the read is answered.
        let is_due = leads && self.machine.due(UnixMs(0)).is_some_and(|due| due <= wall);
        if is_due {
            self.let_time_pass(wall);
        }
        match if nearby { self.raft.read_here() } else { self.raft.read() } {
            Ok(seq) => {
                // A follower's log may end before what was answered already.
                let end = if leads { self.cache.next().prev() } else { reads::NO_END };
                let index = if command.after_writes || is_due { end } else { Index(0) };
                self.reads.push(Read { seq, index, end, asked: now, origin, body: command.body });
                Verdict::Taken
            }
            Err(ReadRefusal::NotLeader { leader }) => self.elsewhere(leader, command, origin),
            Err(ReadRefusal::Full) => Verdict::Refused(refusal::busy("too many reads are waiting")),
        }
    }

    pub(super) fn elsewhere(
        &self,
        leader: ReplicaId,
        command: GroupCommand,
        origin: Origin,
    ) -> Verdict {
        let leader = if self.is_failed() { self.heard_leading.1 } else { leader };
        // A command that was forwarded once is not forwarded again: two nodes that each believe
        // the other leads would pass it back and forth (FAULTS: RedisRaft bug 13).
        if leader.is_some() && !matches!(origin, Origin::Node(..)) {
            Verdict::Elsewhere(leader, command)
        } else {
            Verdict::Refused(refusal::no_leader(self.group))
        }
    }

    /// A message from a peer, with the entries it names.
    pub fn on_message(
        &mut self,
        now: Tick,
        message: &Message,
        entries: impl Iterator<Item = Entry>,
        answers: &mut Answers,
    ) {
        if self.is_installing() || self.is_of_the_removed(message) {
            return;
        }
        if self.is_failed() {
            self.overhear(message);
        }
        if let Some(change) = self.raft.step(message, now) {
            self.mirror(change, entries, answers);
        }
    }

    /// A replica that has failed heeds no message, but who leads can be told from it.
    fn overhear(&mut self, message: &Message) {
        use MessageKind::{Append, Heartbeat, Snapshot};
        let leads = matches!(message.kind, Append | Heartbeat | Snapshot);
        if leads && self.heard_leading.0 <= message.term {
            self.heard_leading = (message.term, message.from);
        }
    }

    /// Time passed the deadline.
    pub fn on_tick(&mut self, now: Tick, answers: &mut Answers) {
        if self.is_gone() || self.is_installing() {
            return;
        }
        if let Some(change) = self.raft.tick(now) {
            self.mirror(change, std::iter::empty(), answers);
        }
    }

    /// Stands for election at once, without waiting for a silence that means nothing here: the
    /// replica is its group's only voter (contract row 11).
    pub fn campaign(&mut self, now: Tick, answers: &mut Answers) {
        if let Some(change) = self.raft.campaign(now) {
            self.mirror(change, std::iter::empty(), answers);
        }
    }

    /// Everything up to `seq` is durable.
    pub fn on_durable(&mut self, now: Tick, seq: PersistSeq, answers: &mut Answers) {
        if self.is_gone() {
            return;
        }
        if let Some(change) = self.raft.on_durable(seq, now) {
            self.mirror(change, std::iter::empty(), answers);
        }
    }

    /// What was sent to this replica may be lost.
    pub fn on_unreachable(&mut self, replica: ReplicaId) {
        self.raft.on_unreachable(replica);
    }

    /// A snapshot for this replica did not arrive, or could not be begun.
    pub fn on_snapshot_failed(&mut self, replica: ReplicaId) {
        self.raft.on_snapshot_failed(replica);
    }

    /// Entries read back for a follower that is behind.
    pub fn on_log_read(&mut self, replica: ReplicaId, first: Index, entries: Vec<Entry>) {
        self.cache.set_window(first, entries);
        self.raft.on_fetched(replica);
    }

    /// Entries for a follower that is behind, from `first` on, cannot be read back.
    pub fn on_log_read_failed(&mut self, replica: ReplicaId, first: Index) {
        self.raft.on_fetch_failed(replica, first);
    }

    /// The core changed its log; the payloads follow.
    fn mirror(
        &mut self,
        change: LogChange,
        entries: impl Iterator<Item = Entry>,
        answers: &mut Answers,
    ) {
        if !self.islands.is_empty() {
            self.islands.clear();
            self.raft.note_committed(EntryId::default());
        }
        self.cache.truncate(change.first);
        self.waiters.truncate(change.first, |origin| {
            answers
                .push((origin, refusal::uncertain("the leader changed while it was replicated")));
        });
        let count = change.count as usize;
        match change.source {
            Source::Message { skip } => {
                entries.skip(skip as usize).take(count).for_each(|entry| self.cache.push(entry));
            }
            Source::Internal(kind) => {
                for _ in 0..count {
                    self.cache.push(Entry { kind, ..Entry::empty() });
                }
            }
        }
        for index in change.first.0..self.cache.next().0 {
            let config = self.cache.get(Index(index));
            if config.is_some_and(|entry| entry.kind == EntryKind::Config) {
                // The core does not see kinds; it must not campaign over one that is not applied.
                self.raft.note_config(Index(index));
            }
        }
        debug_assert_eq!(
            self.cache.next(),
            change.first.plus(u64::from(change.count)),
            "the cache mirrors the log"
        );
    }

    // --- effects ------------------------------------------------------------------------------

    /// The turn ends: takes what the core wants done into `fx`, does what can be done here (apply,
    /// answer), and leaves sending, persisting and fetching to the shard. Returns how many commands
    /// were applied.
    pub fn ready(
        &mut self,
        now: Tick,
        wall: UnixMs,
        fx: &mut Effects,
        answers: &mut Answers,
    ) -> u64 {
        if self.life == Life::Buried {
            self.tell_all(fx);
            return 0;
        }
        self.let_time_pass(wall);
        self.raft.ready(now, &self.cache, fx);
        self.speak_for_the_removed(fx);
        if fx.role.is_some_and(|event| event.role != RoleKind::Leader) {
            let group = self.group;
            answers.extend(self.reads.drain().map(|origin| (origin, refusal::no_leader(group))));
        } else if fx.role.is_some() {
            let group = self.group;
            let nearby = self.reads.drain_nearby();
            answers.extend(nearby.map(|origin| (origin, refusal::no_leader(group))));
        }
        if let Some(persist) = fx.persist {
            self.unwritten = Some(match self.unwritten {
                Some(earlier) => merged(earlier, persist),
                None => persist,
            });
        }
        for recalled in fx.recalled.drain(..) {
            self.note_recalled(recalled);
        }
        for ready in fx.reads.drain(..) {
            self.reads.confirm(ready, |origin, reply| answers.push((origin, reply)));
        }
        self.answer_reads(now, wall, self.raft.status().applied, answers);
        if let Some((_, last)) = fx.apply {
            self.to_apply = Some(last);
        }
        let was_stopped = self.stopped.is_some();
        let applied = self.apply(now, wall, answers);
        if self.stopped.is_some() && !was_stopped {
            // Said once, as any change of role. Who leads is of no concern to it any more.
            let (term, leader) = (self.raft.status().term, ReplicaId::NONE);
            fx.role = Some(RoleEvent { role: RoleKind::Follower, term, leader, new_leader: false });
        }
        if let Some(end) = fx.transfer {
            self.on_transfer_end(end, answers);
        }
        self.settle_members(fx, answers);
        applied
    }

    /// Reads that take as long as this, in ms, are remembered for [`Self::take_slow_reads`].
    pub fn slow_after(&mut self, ms: u64) {
        self.slow_after_ms = ms;
    }

    /// The slow reads since the last call: how long each took, in ms, and what it was.
    pub fn take_slow_reads(&mut self) -> impl Iterator<Item = (u64, Bytes)> + use<> {
        std::mem::take(&mut self.slow_reads).into_iter()
    }

    /// What the machine says to a read, within the bounds of any reply.
    fn look_up(&self, body: &Bytes, wall: UnixMs) -> Reply {
        self.machine.read_at(body, wall).carried()
    }

    /// Answers the reads that may see the state as it is, with `applied` applied.
    #[inline]
    fn answer_reads(&mut self, now: Tick, wall: UnixMs, applied: Index, answers: &mut Answers) {
        // Asked after every entry, and mostly nobody waits.
        if self.reads.any_confirmed() {
            self.answer_confirmed(now, wall, applied, answers);
        }
    }

    fn answer_confirmed(&mut self, now: Tick, wall: UnixMs, applied: Index, answers: &mut Answers) {
        while let Some(read) = self.reads.pop(applied) {
            let took_ms = now.since(read.asked);
            if self.slow_after_ms <= took_ms && self.slow_reads.len() < SLOW_OPS_MAX {
                self.slow_reads.push((took_ms, read.body.clone()));
            }
            self.fresh_at = self.fresh_at.max(Some(read.asked));
            answers.push((read.origin, self.look_up(&read.body, wall)));
        }
    }

    /// Applies what may be applied, as far as the machine goes this time. Returns how many commands were.
    fn apply(&mut self, now: Tick, wall: UnixMs, answers: &mut Answers) -> u64 {
        let Some(last) = self.to_apply.take() else { return 0 };
        let before = self.raft.status().applied;
        let (mut done, mut commands) = (before, 0);
        while done < last {
            let next = done.next();
            self.reads.before_apply(next, |body| self.machine.read_at(body, wall).carried());
            let entry = self.cache.get(next).expect("entries stay in memory until applied");
            let mut has_yielded = false;
            if entry.kind == EntryKind::Config {
                let payload = entry.payload.clone();
                let waiting = self.take_waiter(next);
                self.apply_config(next, &payload, waiting, now, answers);
                done = next;
            } else {
                let end = last.min(self.reads.undisturbed(done));
                let answered = answers.len();
                let Self { machine, sessions, cache, raft, waiters, .. } = self;
                let owed = Owed { raft, waiters, answers };
                let mut stretch = Stretch::new(cache, sessions, Some(owed), (done, end));
                let result = machine.apply_batch(&mut Batch::new(&mut stretch));
                let reached = stretch.reached();
                if let Err(stop) = result {
                    self.stop(now, stop, answered, answers);
                    return commands;
                }
                commands += reached.commands;
                (done, has_yielded) = (reached.done, reached.has_yielded);
            }
            self.answer_reads(now, wall, done, answers);
            if has_yielded {
                self.to_apply = Some(last);
                break;
            }
        }
        if before < done
            && let Some(change) = self.raft.on_applied(done)
        {
            self.mirror(change, std::iter::empty(), answers);
        }
        commands
    }

    /// The machine cannot go on: nor can this replica. Answers from `answered` on are the machine's of a batch that
    /// counts for nothing.
    fn stop(&mut self, now: Tick, stop: Stop, answered: usize, answers: &mut Answers) {
        let uncertain = || refusal::uncertain("the state machine stopped before it was executed");
        answers[answered..].iter_mut().for_each(|(_, reply)| *reply = uncertain());
        self.waiters.truncate(Index(0), |origin| answers.push((origin, uncertain())));
        let group = self.group;
        answers.extend(self.reads.drain().map(|origin| (origin, refusal::no_leader(group))));
        self.fresh_at = None;
        let status = self.raft.status();
        if status.role != RoleKind::Leader {
            self.heard_leading = (status.term, status.leader);
        }
        self.raft.stop(now);
        self.stopped = Some(stop);
    }

    /// The machine has yielded: another turn is to come soon.
    #[must_use]
    pub fn has_yielded(&self) -> bool {
        self.to_apply.is_some() && self.life != Life::Buried
    }

    /// Who waits for the entry at `index`, which is being applied.
    fn take_waiter(&mut self, index: Index) -> Option<Origin> {
        let term = self.raft.term_at(index).expect("the log holds what is applied");
        self.waiters.on_applied(EntryId { term, index })
    }

    /// Whether something waits to be written.
    #[must_use]
    pub fn is_unwritten(&self) -> bool {
        let aside = !self.beside.is_empty();
        match self.life {
            Life::Member => self.unwritten.is_some() || aside,
            Life::Removed => true,
            Life::Buried => aside,
        }
    }

    /// About how many bytes wait to be written, or `enough` if that is less. A vote counts nothing, and what
    /// is no entry, such as a piece of a snapshot, is enough.
    #[must_use]
    pub fn unwritten_bytes(&self, enough: usize) -> usize {
        let Some(persist) = self.unwritten else {
            return if self.is_unwritten() { enough } else { 0 };
        };
        let count = u32::try_from(persist.count).unwrap_or(u32::MAX);
        let mut bytes = 0;
        for entry in self.cache.range(persist.first, count) {
            if enough <= bytes {
                return enough;
            }
            bytes += entry.payload.len();
        }
        bytes
    }

    /// The core takes part in nothing any more.
    pub(super) fn is_failed(&self) -> bool {
        self.raft.status().failure.is_some()
    }

    /// What must be remembered, as new as it is. Only while nothing is unwritten: what is would be
    /// written later, and older.
    pub(super) fn hard_state(&self) -> HardState {
        let status = self.raft.status();
        HardState { term: status.term, vote: status.vote, commit: status.commit }
    }

    /// The next run to write, of about `bytes_max` at most (one entry may exceed it), and what its
    /// durability completes, if it is the last of it. The list of its entries comes from `lists`.
    pub fn take_run(
        &mut self,
        bytes_max: usize,
        lists: &mut EntryLists,
    ) -> Option<(Run, Option<Written>)> {
        let (mut run, done) = self.next_run(bytes_max, lists)?;
        run.is_forgetful = self.raft.forgotten().is_some();
        Some((run, done))
    }

    /// The same, whether or not the replica is whole.
    fn next_run(
        &mut self,
        bytes_max: usize,
        lists: &mut EntryLists,
    ) -> Option<(Run, Option<Written>)> {
        if let Some(found) = self.take_found() {
            return Some((found, None));
        }
        if self.is_gone() {
            let Some(tombstone) = self.take_tombstone() else { return self.take_aside() };
            self.cancel_snapshot();
            return Some((tombstone, None));
        }
        let Some(mut persist) = self.unwritten else { return self.take_aside() };
        if let Some(before) = self.take_before(persist.first, persist.count) {
            let mut hard_state = persist.hard_state;
            // It may be about what follows.
            hard_state.commit = hard_state.commit.min(before.index);
            return Some((Run::mark(RunKind::SaidAgain, self.group, hard_state, before), None));
        }
        let mut run = Run {
            kind: RunKind::Log,
            is_forgetful: false,
            group: self.group,
            hard_state: persist.hard_state,
            run_term: persist.hard_state.term,
            first: persist.first,
            entries: Default::default(),
        };
        if planted(Planted::VoteNotPersisted) {
            run.hard_state.vote = ReplicaId::NONE;
        }
        // The commit index rides along, as new as it is (contract row 25).
        run.hard_state.commit = run.hard_state.commit.max(self.raft.status().commit);
        if persist.count > 0 {
            let last = Index(persist.first.0 + persist.count - 1);
            let (term, run_last) = self.raft.term_run(persist.first, last);
            run.run_term = term;
            let mut bytes = 0;
            let count_max = (run_last.0 - persist.first.0 + 1)
                .min(u64::from(crate::limits::APPEND_ENTRIES_MAX))
                as u32;
            run.entries = lists.take((count_max as usize).min(ENTRIES_EXPECTED_MAX));
            for entry in self.cache.range(persist.first, count_max) {
                if !run.entries.is_empty() && bytes + entry.payload.len() > bytes_max {
                    break;
                }
                bytes += entry.payload.len();
                run.entries.push(entry.clone());
            }
            assert!(!run.entries.is_empty(), "unwritten entries stay in memory");
            persist.first = persist.first.plus(run.entries.len() as u64);
            persist.count -= run.entries.len() as u64;
        }
        let done = (persist.count == 0).then_some(Written::Persist(persist.seq));
        self.unwritten = if done.is_some() { None } else { Some(persist) };
        Some((run, done))
    }

    /// What the log says of this replica once more, in a run without entries: its hard state, and the entry it ends with.
    /// Whoever reads the log, and cannot read the run that said so first, learns by it what was in that. None while
    /// something is on its way to the log that would say more.
    #[must_use]
    pub fn said_again(&self) -> Option<Run> {
        let is_whole = self.raft.forgotten().is_none() && !self.is_failed();
        let is_settled = self.unwritten.is_none()
            && self.beside.is_empty()
            && !self.is_installing()
            && self.raft.is_settled();
        let last = self.raft.status().last;
        (is_whole && is_settled && self.life == Life::Member && last.index > Index(0))
            .then(|| Run::mark(RunKind::SaidAgain, self.group, self.hard_state(), last))
    }

    /// The entry in front of `count` entries to be written from `first` on, if they begin a term and nothing has said it:
    /// behind a gap, an entry of the term in front names them, but none of an earlier one.
    fn take_before(&mut self, first: Index, count: u64) -> Option<EntryId> {
        let before = first.prev();
        if count == 0 || before == Index(0) || self.raft.forgotten().is_some() {
            return None;
        }
        let term = self.raft.term_at(before)?;
        let starts = self.raft.term_at(first)?;
        let is_new = term < starts && self.said_start != (EntryId { term: starts, index: first });
        is_new.then(|| {
            self.said_start = EntryId { term: starts, index: first };
            EntryId { term, index: before }
        })
    }

    /// A run of this group was placed in `segment`.
    pub fn on_placed(&mut self, segment: SegmentSeq, first: Index, count: u64) {
        if count == 0 {
            return;
        }
        if segment != self.segment {
            self.sealed_last = self.written_last;
            self.segment = segment;
        }
        self.sealed_last = self.sealed_last.min(first.prev());
        self.written_last = first.plus(count - 1);
    }

    /// Drops about `bytes_wanted` of the oldest entries that are applied and can be read back,
    /// given the segment being written. Returns the bytes freed.
    pub fn evict(&mut self, active: SegmentSeq, bytes_wanted: usize) -> usize {
        let sealed = if self.segment < active { self.written_last } else { self.sealed_last };
        let applied = self.raft.status().applied;
        self.cache.evict(sealed.min(applied), bytes_wanted)
    }

    /// Why the replica takes part in nothing any more.
    #[must_use]
    pub fn why_failed(&self) -> Option<String> {
        let failure = self.raft.status().failure?;
        Some(match &self.stopped {
            Some(stop) => format!("{failure}: {stop}"),
            None => failure.to_string(),
        })
    }

    /// The same, the first time it is asked after that; and whether the node is to end for it.
    pub fn newly_failed(&mut self) -> Option<(String, bool)> {
        let why = if self.failure_told { None } else { self.why_failed() }?;
        self.failure_told = true;
        Some((why, matches!(self.stopped, Some(Stop::Node(_)))))
    }
}

/// Two things to persist become one: the later supersedes the earlier where they overlap.
fn merged(earlier: Persist, later: Persist) -> Persist {
    if later.count == 0 {
        return Persist { first: earlier.first, count: earlier.count, ..later };
    }
    if earlier.count == 0 {
        return later;
    }
    let first = earlier.first.min(later.first);
    let end = later.first.plus(later.count);
    Persist { first, count: end.0 - first.0, ..later }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn persist(seq: u64, first: u64, count: u64) -> Persist {
        let hard_state = HardState { commit: Index(seq), ..HardState::default() };
        Persist { seq: PersistSeq(seq), hard_state, first: Index(first), count }
    }

    #[test]
    fn waiting_writes_merge_and_the_later_wins() {
        let cases = [
            (persist(1, 5, 3), persist(2, 8, 2), persist(2, 5, 5)),
            (persist(1, 5, 3), persist(2, 6, 4), persist(2, 5, 5)),
            (persist(1, 5, 3), persist(2, 3, 1), persist(2, 3, 1)),
            (persist(1, 5, 3), persist(2, 0, 0), persist(2, 5, 3)),
            (persist(1, 0, 0), persist(2, 4, 2), persist(2, 4, 2)),
        ];
        for (earlier, later, expected) in cases {
            assert_eq!(merged(earlier, later), expected, "{earlier:?} then {later:?}");
        }
    }

    /// Makes durable what the replica wants durable, and ends the turn after it.
    fn turn(replica: &mut Replica, fx: &mut Effects, answers: &mut Answers) {
        let now = Tick(0);
        for _ in 0..2 {
            replica.ready(now, UnixMs(0), fx, answers);
            fx.persist = None;
            fx.apply = None;
            fx.role = None;
            while let Some((_, done)) = replica.take_run(usize::MAX, &mut EntryLists::default()) {
                if let Some(Written::Persist(seq)) = done {
                    replica.on_durable(now, seq, answers);
                }
            }
        }
    }

    /// The read is asked before the write and its leadership confirmed only after the write is
    /// committed and applied: it must not see it all the same.
    #[test]
    fn a_read_confirmed_late_does_not_see_the_write_sent_after_it() {
        use crate::group::{GroupState, PartId, ReplicaRecovery};
        use crate::raft::Config;
        use crate::store::connection::Manner;
        use crate::store::map::Map;
        use crate::wire::resp::Command;

        let (us, peer, term) = (ReplicaId(1), ReplicaId(2), Term(1));
        let config = Config { pre_vote: false, ..Config::new(us, 1) };
        let state = GroupState::first(&[1, 2, 3].map(crate::id::NodeId), &[]);
        let recovery = ReplicaRecovery::new(GroupId(0), Box::new(Map::new()), 1 << 20);
        let replica = recovery.beginning(state).finish(config, Tick(0));
        let mut replica = replica.expect("an empty log");
        let (mut fx, mut answers) = (Effects::default(), Answers::new());
        let hear = |replica: &mut Replica, answers: &mut Answers, message: &Message| {
            replica.on_message(Tick(0), message, std::iter::empty(), answers);
        };
        let accepted = |index| {
            let mut message = Message::new(MessageKind::AppendResponse, peer, us, term);
            message.entry.index = Index(index);
            message
        };

        replica.campaign(Tick(0), &mut answers);
        turn(&mut replica, &mut fx, &mut answers);
        let vote = Message::new(MessageKind::VoteResponse, peer, us, term);
        hear(&mut replica, &mut answers, &vote);
        turn(&mut replica, &mut fx, &mut answers);
        hear(&mut replica, &mut answers, &accepted(1));
        turn(&mut replica, &mut fx, &mut answers);
        assert!(replica.status().leader_ready);

        let read = Origin::Here(PartId { request: 1, part: 0 });
        let write = Origin::Here(PartId { request: 2, part: 0 });
        for (access, args, origin) in [
            (Access::Read, &[&b"GET"[..], b"k"][..], read),
            (Access::Write, &[b"SET", b"k", b"v"], write),
        ] {
            let body = Command::from_args(args).raw;
            let command = GroupCommand {
                group: GroupId(0),
                access,
                after_writes: false,
                manner: Manner::default(),
                session: None,
                body,
            };
            assert!(matches!(
                replica.on_command(Tick(0), UnixMs(0), command, origin),
                Verdict::Taken
            ));
        }
        fx.clear();
        turn(&mut replica, &mut fx, &mut answers);
        let asked = fx.send.iter().find(|message| message.kind == MessageKind::Heartbeat);
        let context = asked.expect("leadership is to be confirmed").context;
        hear(&mut replica, &mut answers, &accepted(2));
        turn(&mut replica, &mut fx, &mut answers);
        assert_eq!(answers, [(write, Reply::Ok)], "the read is not confirmed");

        let mut echo = Message::new(MessageKind::HeartbeatResponse, peer, us, term);
        echo.context = context;
        hear(&mut replica, &mut answers, &echo);
        turn(&mut replica, &mut fx, &mut answers);
        assert_eq!(answers[1..], [(read, Reply::Nil)]);
    }
}
