//! Where the time of a commit goes: stage clocks on both sides.
//!
//! ```text
//!  leader    received ─queue─► taken ─pick-up─► picked ┬─flush wait─► gathered ─encode─► written ─flush─► durable ┐
//!                                                      └─send─► sent                                              │
//!  follower      ┌───────────────── network ──────────────┘  ▲                                                    │
//!                ▼                                           │ network                                            │
//!            received ─pick-up─► picked ─flush wait─► gathered ─flush─► durable ─ack─► composed                   │
//!                                                                                          │                      │
//!  leader                                                                      heard ◄─────┘                      │
//!                  the last that was needed of these ◄─────────────────────────┴──────────────────────────────────┘
//!                              └─quorum─► applied ─apply─► decided ─reply─► replied
//! ```
//!
//! What is followed is a *passage*: the entries of one group that entered its log in one turn. They share
//! their write, their frames and their commit, so one set of clocks serves all their commands, and the cost
//! is that of a turn. The driver reads the clock at six places of a turn and says so with a [`Mark`]; without
//! marks nothing is followed. Everything is a difference of two readings of one clock: a follower tells how
//! long its part took ([`AckTiming`]), and what that leaves of the round trip is the network's, in both
//! directions together, with what the kernels of both sides add to it.
//!
//! A write is answered when a quorum holds it, the leader's own disk included, since it applies what is
//! durable here. So of the completions (its own flush, and the acceptances of as many others as a majority
//! needs) the last one *set* the commit time; the longest stage on the way to it says what by.
//!
//! A command that another node leads has its clock where it came in: the *forward leg*, from the turn that sent
//! it on until the answer was taken from the kernel. The other node's stages are within it.
//!
//! Never: decides anything. All of this may be wrong or missing, and no entry is treated otherwise.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::id::{FlushTicket, GroupId, Index, Micros, NodeId, ReplicaId};
use crate::limits::PASSAGES_MAX;
use crate::raft::Membership;
use crate::wire::AckTiming;

/// A part of a commit's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// From the receipt of a command's bytes until its connection's core took it up.
    Queue,
    /// From there until the core that has the group took it up; nothing if that is the same one.
    PickUp,
    /// From there until it was in a write of the leader's log.
    FlushWait,
    /// From there until the kernel had that write: the rest of the turn, and the encoding.
    Encode,
    /// From there until the write was durable, and the core knew.
    Flush,
    /// From the pick-up until the kernel had the frame for a follower.
    Send,
    /// What a follower does not account for of the time between that and its acceptance: both ways.
    Network,
    /// On a follower, from the receipt of the frame until its core took it up.
    FollowerPickUp,
    /// From there until it was in a write of the follower's log.
    FollowerFlushWait,
    /// From there until that write was durable, and the follower's core knew.
    FollowerFlush,
    /// From there until the follower's acceptance was composed.
    Ack,
    /// From the last completion that was needed until the entries were applied.
    Quorum,
    /// The turn in which they were: applied, answered.
    Apply,
    /// From there until the kernel, or another core, had the replies.
    Reply,
}

impl Stage {
    /// How many there are.
    pub const COUNT: usize = 14;
    /// All of them, in the order of the path.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Queue,
        Self::PickUp,
        Self::FlushWait,
        Self::Encode,
        Self::Flush,
        Self::Send,
        Self::Network,
        Self::FollowerPickUp,
        Self::FollowerFlushWait,
        Self::FollowerFlush,
        Self::Ack,
        Self::Quorum,
        Self::Apply,
        Self::Reply,
    ];

    /// Its name in reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::PickUp => "pick_up",
            Self::FlushWait => "flush_wait",
            Self::Encode => "encode",
            Self::Flush => "flush",
            Self::Send => "send",
            Self::Network => "network",
            Self::FollowerPickUp => "follower_pick_up",
            Self::FollowerFlushWait => "follower_flush_wait",
            Self::FollowerFlush => "follower_flush",
            Self::Ack => "ack",
            Self::Quorum => "quorum",
            Self::Apply => "apply",
            Self::Reply => "reply",
        }
    }

    /// Whether it is measured for each follower by itself.
    #[must_use]
    pub const fn is_of_follower(self) -> bool {
        matches!(
            self,
            Self::Network
                | Self::FollowerPickUp
                | Self::FollowerFlushWait
                | Self::FollowerFlush
                | Self::Ack
        )
    }

    /// The stages of a commit whose last completion was the leader's own, in the order of the path.
    const TO_OWN_DISK: &[Self] = &[
        Self::Queue,
        Self::PickUp,
        Self::FlushWait,
        Self::Encode,
        Self::Flush,
        Self::Quorum,
        Self::Apply,
        Self::Reply,
    ];

    /// The stages of one whose last completion was a follower's.
    const TO_A_FOLLOWER: &[Self] = &[
        Self::Queue,
        Self::PickUp,
        Self::Send,
        Self::Network,
        Self::FollowerPickUp,
        Self::FollowerFlushWait,
        Self::FollowerFlush,
        Self::Ack,
        Self::Quorum,
        Self::Apply,
        Self::Reply,
    ];
}

/// How long each stage took, in µs; stages that were not on the way have none.
pub type StageTimes = [u32; Stage::COUNT];

/// A place in the turn of a core, in the order in which they are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// What the kernel has for this core is about to be taken from it.
    Reaped,
    /// All of it is an event, about to be handed to the shard.
    Gathered,
    /// The shard has decided.
    Decided,
    /// The kernel has the writes.
    Written,
    /// The kernel has the frames.
    Sent,
    /// The kernel has the replies.
    Replied,
}

/// When a command reached the core that took it up first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Its bytes were taken from the kernel.
    pub received: Micros,
    /// Its core's shard took it up.
    pub taken: Micros,
}

/// A commit explained: entries of one group that were answered in one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The group.
    pub group: GroupId,
    /// The first of the entries.
    pub first: Index,
    /// The last of them.
    pub last: Index,
    /// How many commands they are.
    pub commands: u32,
    /// From the receipt of the oldest until the replies were handed on, in µs.
    pub us: u32,
    /// The stages; those of a follower are those of [`Self::set_by`].
    pub times: StageTimes,
    /// The node whose completion was the last that was needed.
    pub set_by: NodeId,
    /// The longest stage on the way to it.
    pub stage: Stage,
    /// Where that was: at [`Self::set_by`] if it is a stage of a follower, else at the leader.
    pub set_at: NodeId,
}

/// What one follower's part took of one passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The follower.
    pub node: NodeId,
    /// How many commands it stands for.
    pub commands: u32,
    /// The stages of a follower; the others are zero.
    pub times: StageTimes,
}

/// A command that was sent on to the node that leads its group, and answered by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardLeg {
    /// That node.
    pub node: NodeId,
    /// From sending it on until having the answer, in µs.
    pub us: u32,
}

/// What a leader knows of a passage's way to one follower.
#[derive(Debug, Clone, Copy)]
struct Way {
    node: NodeId,
    /// The turn whose frames it left with.
    sent: Micros,
    /// When its acceptance was taken from the kernel.
    heard: Micros,
    network: u32,
    pick_up: u32,
    flush_wait: u32,
    flush: u32,
    ack: u32,
}

/// The way of entries into the log here.
#[derive(Debug, Clone, Copy)]
struct InLog {
    last: Index,
    /// The write that holds the last of them; zero before there is one.
    ticket: FlushTicket,
    gathered: Micros,
    written: Micros,
    durable: Micros,
}

impl InLog {
    const fn new(last: Index) -> Self {
        let none = Micros(0);
        Self { last, ticket: FlushTicket(0), gathered: none, written: none, durable: none }
    }

    /// A write up to `ticket` is durable since `at`.
    fn durable(&mut self, ticket: FlushTicket, at: Micros, writes: &VecDeque<OpenWrite>) {
        let is_done =
            self.durable == Micros(0) && self.ticket != FlushTicket(0) && self.ticket <= ticket;
        if !is_done {
            return;
        }
        self.durable = at;
        if let Some(write) = writes.iter().find(|write| write.ticket == self.ticket) {
            (self.gathered, self.written) = (write.gathered, write.written);
        }
    }
}

/// Entries that a follower received in one turn.
#[derive(Debug, Clone, Copy)]
struct Followed {
    log: InLog,
    received: Micros,
    picked: Micros,
}

/// Entries that were proposed here, and entered one log, in one turn.
#[derive(Debug, Clone)]
struct Passage {
    first: Index,
    log: InLog,
    commands: u32,
    received: Micros,
    taken: Micros,
    picked: Micros,
    /// From the pick-up until the frames of that turn were sent.
    send: u32,
    ways: SmallVec<[Way; 2]>,
    applied: Micros,
    set_by: (NodeId, Micros),
    told: bool,
}

impl Passage {
    fn new(first: Index, arrival: Arrival, picked: Micros) -> Self {
        Self {
            first,
            log: InLog::new(first),
            commands: 1,
            received: arrival.received,
            taken: arrival.taken,
            picked,
            send: 0,
            ways: SmallVec::new(),
            applied: Micros(0),
            set_by: (NodeId(0), Micros(0)),
            told: false,
        }
    }

    /// Whose completion was the last that was needed, and when it came.
    fn decider(&self, here: NodeId, membership: &Membership) -> (NodeId, Micros) {
        let voters = &membership.incoming;
        let others = voters.len() / 2 + usize::from(!voters.contains(&ReplicaId(here.0)));
        let is_voter = |way: &&Way| voters.contains(&ReplicaId(way.node.0));
        let heard = self.ways.iter().filter(|way| way.heard != Micros(0)).filter(is_voter);
        let mut heard: SmallVec<[(Micros, NodeId); 4]> =
            heard.map(|way| (way.heard, way.node)).collect();
        heard.sort_unstable();
        heard.truncate(others);
        match heard.last() {
            Some(&(at, node)) if self.log.durable < at => (node, at),
            _ => (here, self.log.durable),
        }
    }

    /// It was answered: what its time was made of.
    fn commit(&self, here: NodeId, group: GroupId, decided: Micros, replied: Micros) -> Commit {
        let (set_by, completed) = self.set_by;
        let InLog { last, gathered, written, durable, .. } = self.log;
        let mut times = StageTimes::default();
        let mut took = |stage: Stage, us: u32| times[stage as usize] = us;
        took(Stage::Queue, self.taken.since(self.received));
        took(Stage::PickUp, self.picked.since(self.taken));
        took(Stage::FlushWait, gathered.since(self.picked));
        took(Stage::Encode, written.since(gathered));
        took(Stage::Flush, durable.since(written));
        took(Stage::Send, self.send);
        took(Stage::Quorum, self.applied.since(completed));
        took(Stage::Apply, decided.since(self.applied));
        took(Stage::Reply, replied.since(decided));
        if let Some(way) = self.ways.iter().find(|way| way.node == set_by) {
            way.times(&mut times);
        }
        let on_the_way = if set_by == here { Stage::TO_OWN_DISK } else { Stage::TO_A_FOLLOWER };
        let longest = on_the_way.iter().copied().max_by_key(|stage| times[*stage as usize]);
        let stage = longest.unwrap_or(Stage::Queue);
        Commit {
            group,
            first: self.first,
            last,
            commands: self.commands,
            us: replied.since(self.received),
            times,
            set_by,
            stage,
            set_at: if stage.is_of_follower() { set_by } else { here },
        }
    }

    /// Nothing is to be learned of it any more.
    fn is_over(&self) -> bool {
        self.told && self.ways.iter().all(|way| way.heard != Micros(0))
    }
}

impl Way {
    fn times(&self, times: &mut StageTimes) {
        times[Stage::Network as usize] = self.network;
        times[Stage::FollowerPickUp as usize] = self.pick_up;
        times[Stage::FollowerFlushWait as usize] = self.flush_wait;
        times[Stage::FollowerFlush as usize] = self.flush;
        times[Stage::Ack as usize] = self.ack;
    }

    /// The acceptance came `rest` after the frame was sent, `timing` of which the follower accounts for.
    fn heard(&mut self, at: Micros, rest: u32, timing: Option<&AckTiming>) {
        self.heard = at;
        let Some(timing) = timing else {
            self.network = rest;
            return;
        };
        (self.pick_up, self.flush_wait) = (timing.pick_up, timing.flush_wait);
        (self.flush, self.ack) = (timing.flush, timing.ack);
        self.network = rest.saturating_sub(accounted(timing));
    }
}

fn accounted(timing: &AckTiming) -> u32 {
    let AckTiming { pick_up, flush_wait, flush, ack, .. } = *timing;
    pick_up.saturating_add(flush_wait).saturating_add(flush).saturating_add(ack)
}

/// A write of the log that is not durable yet.
#[derive(Debug, Clone, Copy)]
struct OpenWrite {
    ticket: FlushTicket,
    gathered: Micros,
    written: Micros,
}

/// The stage clocks of one shard.
#[derive(Debug)]
pub(super) struct Stages {
    node: NodeId,
    reaped: Micros,
    gathered: Micros,
    decided: Micros,
    /// By slot, oldest first; at most [`PASSAGES_MAX`] each: what was proposed here, and what came from a leader. Apart,
    /// because most of what a node has in its log came from others, and little is to be known of it.
    passages: Vec<VecDeque<Passage>>,
    followed: Vec<VecDeque<Followed>>,
    writes: VecDeque<OpenWrite>,
    /// Slots with a passage that began in this turn, and those with one that was applied in it.
    opened: Vec<u32>,
    finishing: Vec<(u32, GroupId)>,
    commits: Vec<Commit>,
    legs: Vec<Leg>,
    forwards: Vec<ForwardLeg>,
}

impl Stages {
    pub(super) fn new(node: NodeId, slots: usize) -> Self {
        let none = Micros(0);
        Self {
            node,
            reaped: none,
            gathered: none,
            decided: none,
            passages: (0..slots).map(|_| VecDeque::new()).collect(),
            followed: (0..slots).map(|_| VecDeque::new()).collect(),
            writes: VecDeque::new(),
            opened: Vec::new(),
            finishing: Vec::new(),
            commits: Vec::new(),
            legs: Vec::new(),
            forwards: Vec::new(),
        }
    }

    /// The driver measures.
    fn is_on(&self) -> bool {
        self.gathered != Micros(0)
    }

    /// A place of the turn was passed.
    pub(super) fn mark(&mut self, mark: Mark, at: Micros) {
        match mark {
            Mark::Reaped => {
                self.reaped = at;
                // Whoever does not take them does not want them.
                self.commits.clear();
                self.legs.clear();
                self.forwards.clear();
                self.opened.clear();
            }
            Mark::Gathered => self.gathered = at,
            Mark::Decided => self.decided = at,
            Mark::Written => {
                let new = self.writes.iter_mut().rev();
                for write in new.take_while(|write| write.written == Micros(0)) {
                    write.written = at;
                }
            }
            Mark::Sent => {
                for &slot in &self.opened {
                    if let Some(passage) = self.passages[slot as usize].back_mut() {
                        passage.send = at.since(passage.picked);
                    }
                }
            }
            Mark::Replied => self.finish(at),
        }
    }

    /// When a command arrived that is taken up in this turn.
    pub(super) fn arrival(&self) -> Arrival {
        Arrival { received: self.reaped, taken: self.gathered }
    }

    /// A command became the entry at `index` of the log of `slot`, which leads.
    pub(super) fn proposed(&mut self, slot: u32, index: Index, arrival: Arrival) {
        if !self.is_on() {
            return;
        }
        let queue = &mut self.passages[slot as usize];
        if let Some(passage) = queue.back_mut()
            && passage.picked == self.gathered
            && passage.log.last.next() == index
        {
            passage.log.last = index;
            passage.commands += 1;
            if arrival.received < passage.received {
                (passage.received, passage.taken) = (arrival.received, arrival.taken);
            }
            return;
        }
        push(queue, Passage::new(index, arrival, self.gathered));
        self.opened.push(slot);
    }

    /// Entries up to `last` were received from a leader.
    pub(super) fn received(&mut self, slot: u32, last: Index) {
        if self.is_on() {
            let followed =
                Followed { log: InLog::new(last), received: self.reaped, picked: self.gathered };
            push(&mut self.followed[slot as usize], followed);
        }
    }

    /// A write was begun.
    pub(super) fn writing(&mut self, ticket: FlushTicket) {
        if self.is_on() {
            self.writes.push_back(OpenWrite {
                ticket,
                gathered: self.gathered,
                written: Micros(0),
            });
        }
    }

    /// It holds entries of `slot` up to `last`.
    pub(super) fn placed(&mut self, slot: u32, last: Index, ticket: FlushTicket) {
        fn place<'a>(logs: impl Iterator<Item = &'a mut InLog>, last: Index, ticket: FlushTicket) {
            let waiting = logs.take_while(|log| log.ticket == FlushTicket(0));
            waiting.filter(|log| log.last <= last).for_each(|log| log.ticket = ticket);
        }
        let own = self.passages[slot as usize].iter_mut().rev();
        place(own.map(|passage| &mut passage.log), last, ticket);
        let others = self.followed[slot as usize].iter_mut().rev();
        place(others.map(|followed| &mut followed.log), last, ticket);
    }

    /// What `slot` has in writes up to `ticket` is durable.
    pub(super) fn durable(&mut self, slot: u32, ticket: FlushTicket) {
        let Self { passages, followed, writes, reaped, .. } = self;
        for passage in &mut passages[slot as usize] {
            passage.log.durable(ticket, *reaped, writes);
        }
        for followed in &mut followed[slot as usize] {
            followed.log.durable(ticket, *reaped, writes);
        }
    }

    /// Nothing more is said of writes up to `ticket`.
    pub(super) fn written(&mut self, ticket: FlushTicket) {
        while self.writes.front().is_some_and(|write| write.ticket <= ticket) {
            self.writes.pop_front();
        }
    }

    /// A frame of this turn carries the entries of `slot` up to `last` to `node`.
    pub(super) fn sending(&mut self, slot: u32, node: NodeId, last: Index) {
        let sent = self.gathered;
        for passage in self.passages[slot as usize].iter_mut().rev() {
            if passage.ways.iter().any(|way| way.node == node) {
                break;
            }
            if passage.log.last <= last {
                passage.ways.push(Way {
                    node,
                    sent,
                    heard: Micros(0),
                    network: 0,
                    pick_up: 0,
                    flush_wait: 0,
                    flush: 0,
                    ack: 0,
                });
            }
        }
    }

    /// This replica accepts the log of `slot` up to `last`: how long the oldest of it took here, and the newest, if that
    /// is another.
    pub(super) fn accepted(
        &mut self,
        slot: u32,
        group: GroupId,
        last: Index,
    ) -> impl Iterator<Item = AckTiming> + use<> {
        let queue = &mut self.followed[slot as usize];
        let (mut oldest, mut newest) = (None, None);
        while queue.front().is_some_and(|followed| followed.log.last <= last) {
            let next = queue.pop_front();
            if oldest.is_none() {
                oldest = next;
            } else {
                newest = next;
            }
        }
        let now = self.gathered;
        let both = [oldest, newest].into_iter().flatten();
        let both = both.filter(|followed| followed.log.durable != Micros(0));
        both.map(move |Followed { log, received, picked }| AckTiming {
            group,
            index: log.last,
            pick_up: picked.since(received),
            flush_wait: log.gathered.since(picked),
            flush: log.durable.since(log.gathered),
            ack: now.since(log.durable),
        })
    }

    /// `node` has accepted the log of `slot` up to `last`. What it has accepted together shares its flush, and it tells how
    /// long the oldest and the newest of it took (one, if that is all). What was sent in between waited there at most as
    /// long as the oldest; the rest is the network's, which may have held them all up.
    pub(super) fn heard(
        &mut self,
        slot: u32,
        node: NodeId,
        last: Index,
        [oldest, newest]: [Option<&AckTiming>; 2],
    ) {
        let Self { passages, legs, reaped, .. } = self;
        let queue = &mut passages[slot as usize];
        let mut network = None;
        let waited_most = oldest.or(newest).map_or(0, |timing| timing.flush_wait);
        for passage in queue.iter_mut().rev().filter(|passage| passage.log.last <= last) {
            let Passage { ways, log: InLog { last, .. }, picked, send, commands, .. } = passage;
            let Some(way) = ways.iter_mut().find(|way| way.node == node) else { break };
            if way.heard != Micros(0) {
                break;
            }
            // Nothing is known of the way to the kernel in a later turn.
            let send = if way.sent == *picked { *send } else { 0 };
            let rest = reaped.since(way.sent).saturating_sub(send);
            let covers = |timing: &&AckTiming| *last <= timing.index;
            let (oldest, newest) = (oldest.filter(covers), newest.filter(covers));
            way.heard(*reaped, rest, oldest.or(newest));
            match (newest, network) {
                _ if oldest.is_some() => {}
                (Some(_), None) => network = Some(way.network),
                (Some(timing), Some(network)) => {
                    let others = accounted(&AckTiming { flush_wait: 0, ..*timing });
                    let left = rest.saturating_sub(others);
                    way.flush_wait = left.saturating_sub(network).min(waited_most);
                    way.network = left - way.flush_wait;
                }
                (None, _) => {}
            }
            let mut times = StageTimes::default();
            way.times(&mut times);
            // The acceptances of one frame shared a flush, and tell the same of it, group by group.
            match legs.last_mut() {
                Some(leg) if leg.node == node && leg.times == times => leg.commands += *commands,
                _ => legs.push(Leg { node, commands: *commands, times }),
            }
        }
        trim(queue);
    }

    /// The log of `slot` is applied up to `applied`.
    pub(super) fn applied(
        &mut self,
        slot: u32,
        group: GroupId,
        applied: Index,
        membership: &Membership,
    ) {
        let mut is_new = false;
        for passage in &mut self.passages[slot as usize] {
            if applied < passage.log.last {
                break;
            }
            if passage.applied == Micros(0) {
                passage.applied = self.gathered;
                passage.set_by = passage.decider(self.node, membership);
                is_new = true;
            }
        }
        if is_new {
            self.finishing.push((slot, group));
        }
    }

    /// The replica of `slot` has another role: what it followed has another end.
    pub(super) fn forget(&mut self, slot: u32) {
        self.passages[slot as usize].clear();
        self.followed[slot as usize].clear();
    }

    /// What was applied in this turn is answered.
    fn finish(&mut self, replied: Micros) {
        let Self { passages, finishing, commits, node, decided, .. } = self;
        for (slot, group) in finishing.drain(..) {
            let queue = &mut passages[slot as usize];
            let is_new = |it: &&mut Passage| it.applied != Micros(0) && !it.told;
            for passage in queue.iter_mut().filter(is_new) {
                passage.told = true;
                commits.push(passage.commit(*node, group, *decided, replied));
            }
            trim(queue);
        }
    }

    /// A command that was sent on to `node` in the turn that took it up at `sent` is answered. Returns when the answer
    /// was taken from the kernel, or from another core; none if nobody measures.
    pub(super) fn answered(&mut self, node: NodeId, sent: Micros) -> Option<Micros> {
        if sent == Micros(0) {
            return None;
        }
        self.forwards.push(ForwardLeg { node, us: self.reaped.since(sent) });
        Some(self.reaped)
    }

    /// The forward legs that ended in this turn.
    pub(super) fn forwards(&self) -> &[ForwardLeg] {
        &self.forwards
    }

    /// What was explained in this turn.
    pub(super) fn explained(&self) -> (&[Commit], &[Leg]) {
        (&self.commits, &self.legs)
    }
}

fn push<T>(queue: &mut VecDeque<T>, next: T) {
    if queue.len() == PASSAGES_MAX {
        queue.pop_front();
    }
    queue.push_back(next);
}

fn trim(queue: &mut VecDeque<Passage>) {
    while queue.front().is_some_and(Passage::is_over) {
        queue.pop_front();
    }
}
