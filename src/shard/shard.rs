//! The shard: the table of groups, and the turn of the loop.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::group::{Answers, GroupCommand, Origin, PartId, Replica, Verdict, Written, refusal};
use crate::id::{ConnId, GroupId, Index, NodeId, ReplicaId, SessionId, ShardId, Tick, UnixMs};
use crate::limits;
use crate::planted::{Planted, planted};
use crate::raft;
use crate::raft::effects::RoleKind;
use crate::raft::message::MessageKind;
use crate::store::acl::{self, Users};
use crate::store::backup;
use crate::store::command::Access;
use crate::store::member;
use crate::wal::{Damage, Write};
use crate::wire::peer::{AckTiming, Answer, Frame, OutFrame};
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::Config;
use super::backups::Backups;
use super::batch::Log;
use super::beats::Beats;
use super::coalesce::Outbox;
use super::disk_age::DiskAge;
use super::drain::{Drain, Drained};
use super::event::{Call, Effects, Event, LogRead, LogReadDone, Post, ReplyTo, Request};
use super::forward::{Forwarded, Forwards, pack, unpack};
use super::peers::Peers;
use super::report::{Counters, DriverReport};
use super::requests::{Opening, PartAnswer, Requests, Whole};
use super::route::{self, Routed};
use super::slow_disk::SlowDisk;
use super::slowlog::Slowlog;
use super::snapshots::{Receives, Sends};
use super::stages::{Arrival, Stages};
use super::timers::Timers;
use super::topology::Addresses;
use super::truncate::Truncation;

/// One core's mind. Pure: the same events in the same order give the same effects.
pub struct Shard {
    pub(super) config: Config,
    /// Group `g` is at slot `g / cores`, if `g % cores` is this shard.
    pub(super) replicas: Vec<Replica>,
    pub(super) log: Log,
    backups: Backups,
    /// When the driver last told the time on the wall, and what it was.
    wall: (Tick, UnixMs),
    pub(super) truncation: Truncation,
    timers: Timers,
    requests: Requests,
    forwards: Forwards,
    /// Sessions opened here since the node started: the next one's name follows from it.
    sessions_opened: u64,
    /// Snapshots on their way to followers, and from leaders; see `streaming.rs`.
    pub(super) sends: Sends,
    pub(super) receives: Receives,
    pub(super) outbox: Outbox,
    pub(super) counters: Counters,
    pub(super) driver: DriverReport,
    beats: Beats,
    pub(super) stages: Stages,
    pub(super) slowlog: Slowlog,
    pub(super) disk_age: DiskAge,
    slow_disk: SlowDisk,
    /// Slots stepped in this turn.
    touched: Vec<u32>,
    is_touched: Vec<bool>,
    /// Slots settled in the last turn: nothing else of a replica changed in it.
    settled: Vec<u32>,
    /// Slots whose machine yielded in the last turn: stepped in the next as well.
    yielded: Vec<u32>,
    /// Results of this turn, not yet on their way.
    pub(super) answers: Answers,
    posts: Vec<(ShardId, Post)>,
    replies: Vec<ReplyTo>,
    log_reads: Vec<LogRead>,
    failed: Vec<(GroupId, String)>,
    damaged: Vec<Damage>,
    /// Scratch memory, empty between events.
    raft_fx: raft::effects::Effects,
    completed: Vec<(u32, Written)>,
    peers: Peers,
    /// Where clients reach the nodes that have said so.
    addresses: Addresses,
    /// The users that the driver was told of last.
    users: Option<Arc<Users>>,
    /// What this core leads is being handed over.
    draining: Option<Drain>,
    /// A drain of the whole node, and whether the node stops after it.
    drain_of_node: Option<u64>,
    stop: bool,
    /// When something last went into the log; idleness closes it with a durable watermark.
    last_write: Tick,
    /// Bytes of entries each replica held when it was last settled, and their sum: only touched
    /// replicas change, so a turn never has to ask them all.
    cached: Vec<usize>,
    cached_total: usize,
    /// The replica whose cache is looked at next when memory runs short.
    evict_next: usize,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shard {
    pub(super) fn new(
        config: Config,
        replicas: Vec<Replica>,
        log: Log,
        truncation: Truncation,
        now: Tick,
    ) -> Self {
        let slots = replicas.len();
        let mut shard = Self {
            timers: Timers::new(slots),
            requests: Requests::default(),
            forwards: Forwards::new(config.incarnation, config.shard),
            sessions_opened: 0,
            sends: Sends::new(config.incarnation, config.shard, config.snapshot_bytes_per_s, now),
            receives: Receives::default(),
            outbox: Outbox::new(config.route(), &config.nodes),
            counters: Counters::default(),
            driver: DriverReport::default(),
            beats: Beats::new(config.heartbeat_ms),
            stages: Stages::new(config.node, slots),
            slowlog: Slowlog::new(config.node, config.shard, config.cores),
            disk_age: DiskAge::default(),
            slow_disk: SlowDisk::default(),
            touched: Vec::with_capacity(slots),
            is_touched: vec![false; slots],
            settled: Vec::with_capacity(slots),
            yielded: Vec::new(),
            answers: Vec::new(),
            posts: Vec::new(),
            replies: Vec::new(),
            log_reads: Vec::new(),
            failed: Vec::new(),
            damaged: Vec::new(),
            raft_fx: raft::effects::Effects::default(),
            completed: Vec::new(),
            peers: Peers::new(slots),
            addresses: Addresses::new(),
            users: None,
            draining: None,
            drain_of_node: None,
            stop: false,
            last_write: now,
            cached: vec![0; slots],
            cached_total: 0,
            evict_next: 0,
            config,
            replicas,
            log,
            backups: Backups::default(),
            wall: (Tick(0), UnixMs(0)),
            truncation,
        };
        for slot in 0..slots as u32 {
            let replica = &shard.replicas[slot as usize];
            let this = [ReplicaId(shard.config.node.0)];
            let is_alone = replica.state().membership.voters().eq(this) && !replica.is_gone();
            if is_alone {
                shard.replicas[slot as usize].campaign(now, &mut shard.answers);
            }
            shard.touch(slot);
        }
        shard
    }

    // --- events -------------------------------------------------------------------------------

    /// Takes one event. Cheap: the work of the turn is done in [`Self::turn`].
    pub fn on_event(&mut self, now: Tick, event: Event) {
        match event {
            Event::Frame(frame) => self.on_frame(now, &frame),
            Event::Request(request) => self.on_request(now, request),
            Event::Call(call) => self.on_call(now, call),
            Event::Post(post) => self.on_post(now, post),
            Event::Undelivered(post) => self.on_undelivered(post),
            Event::Flushed(ticket) => {
                self.counters.wal_flushes += 1;
                self.disk_age.finished(ticket);
                let mut completed = std::mem::take(&mut self.completed);
                self.log.on_flushed(ticket, |slot, done| completed.push((slot, done)));
                let durable = self.log.durable();
                for (slot, done) in completed.drain(..) {
                    self.stages.durable(slot, durable);
                    self.on_written(now, slot, done);
                    self.touch(slot);
                }
                self.stages.written(durable);
                self.completed = completed;
            }
            Event::SpareReady(segment) => self.log.on_spare(segment),
            Event::LogFull(full) => self.log.set_full(full),
            Event::LogRead(done) => self.on_log_read(done),
            Event::Unreachable(node) => self.on_unreachable(now, node),
            Event::LinkBroken(node) => {
                self.on_unreachable(now, node);
                for forwarded in self.forwards.lost(node) {
                    let reply = give_up(&forwarded, "the connection to the leader broke");
                    self.answers.push((forwarded.origin, reply));
                }
            }
            Event::Wall(wall) => self.wall = (now, wall),
            Event::ClientAddresses(addresses) => self.addresses = addresses,
            Event::Unsent(ids) => {
                for forwarded in ids.into_iter().filter_map(|id| self.forwards.take(id)) {
                    self.answers.push((forwarded.origin, refusal::no_leader(forwarded.group)));
                }
            }
        }
    }

    fn on_written(&mut self, now: Tick, slot: u32, done: Written) {
        let replica = &mut self.replicas[slot as usize];
        match done {
            Written::Persist(seq) => replica.on_durable(now, seq, &mut self.answers),
            Written::Taken(entry) => {
                replica.on_taken(entry);
                self.counters.snapshots_taken += 1;
                self.truncation.on_done(&self.replicas, slot);
            }
            Written::Again => {
                replica.on_written_again();
                self.truncation.on_done(&self.replicas, slot);
            }
            Written::Piece { from, transfer, number } => {
                self.on_piece_durable(slot, (from, transfer), number);
            }
            Written::Installed(_) => self.on_install_durable(now, slot),
        }
    }

    /// What the clock on the wall says.
    pub(super) fn wall(&self, now: Tick) -> UnixMs {
        let (then, wall) = self.wall;
        wall.plus(now.since(then))
    }

    pub(super) fn slot_of(&self, group: GroupId) -> Option<u32> {
        let cores = u64::from(self.config.cores);
        let here =
            group.0 < self.config.groups && group.0 % cores == u64::from(self.config.shard.0);
        here.then_some((group.0 / cores) as u32)
    }

    pub(super) fn core_of(&self, group: GroupId) -> ShardId {
        ShardId((group.0 % u64::from(self.config.cores)) as u16)
    }

    pub(super) fn touch(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.is_touched[slot as usize], true) {
            self.touched.push(slot);
        }
    }

    fn on_frame(&mut self, now: Tick, frame: &Frame) {
        let from = frame.header.route.from;
        // The acceptances of a frame and their timings have the same order.
        let mut timings = frame.timings().peekable();
        for (group, message, entries) in frame.messages() {
            let accepts = message.kind == MessageKind::AppendResponse && !message.reject;
            let is_of_this =
                |it: &AckTiming| accepts && it.group == group && it.index <= message.entry.index;
            let first = timings.next_if(is_of_this);
            let second = timings.next_if(is_of_this);
            // Identity is checked at the edge (contract row 12): a message speaks for the node
            // whose connection it came over, and for nobody else.
            if group.0 >= self.config.groups
                || message.from != ReplicaId(from.0)
                || message.to != ReplicaId(self.config.node.0)
            {
                self.counters.messages_rejected += 1;
                continue;
            }
            match self.slot_of(group) {
                Some(slot) => {
                    let replica = &mut self.replicas[slot as usize];
                    let carried = entries.len();
                    replica.on_message(now, &message, entries, &mut self.answers);
                    if accepts {
                        let told = match &second {
                            Some(newest) => [first.as_ref(), Some(newest)],
                            None => [None, first.as_ref()],
                        };
                        self.stages.heard(slot, from, message.entry.index, told);
                    } else if message.kind == MessageKind::Append && 0 < carried {
                        let last = message.entry.index.plus(carried as u64);
                        self.stages.received(slot, last);
                    }
                    self.touch(slot);
                }
                None => {
                    let entries = entries.collect();
                    self.post(self.core_of(group), Post::Raft { group, message, entries });
                }
            }
        }
        for piece in frame.pieces() {
            if self.is_between(from, piece.group, piece.from, piece.to) {
                self.on_snapshot_piece(now, piece);
            } else {
                self.counters.messages_rejected += 1;
            }
        }
        for ack in frame.acks() {
            if self.is_between(from, ack.group, ack.from, ack.to) {
                self.on_snapshot_ack(now, &ack);
            } else {
                self.counters.messages_rejected += 1;
            }
        }
        for forward in frame.forwards() {
            let Some(command) = unpack(&forward) else {
                self.counters.messages_rejected += 1;
                continue;
            };
            if command.group.0 >= self.config.groups {
                self.counters.messages_rejected += 1;
            } else if self.slot_of(command.group).is_some() {
                self.run(now, self.stages.arrival(), command, Origin::Node(from, forward.id));
            } else {
                let (core, arrival) = (self.core_of(command.group), self.stages.arrival());
                self.post(core, Post::Forwarded { from, id: forward.id, arrival, command });
            }
        }
        for answer in frame.answers() {
            self.on_answered(now, answer.id, answer.body);
        }
    }

    pub(super) fn post(&mut self, core: ShardId, post: Post) {
        self.posts.push((core, post));
    }

    fn on_request(&mut self, now: Tick, request: Request) {
        let Request { conn, seq, command, after_writes, mut manner } = request;
        self.counters.commands += 1;
        let deadline = now.plus(self.config.request_ms);
        let bytes = command.raw.len();
        let redirects = manner.redirects;
        // A cluster client puts the parts of all masters together, so a replica must not tell its own.
        if redirects && manner.nearby {
            manner.nearby = !route::is_of_all_groups(&command);
        }
        let open = |write, whole, parts| Opening {
            conn,
            seq,
            write,
            redirects,
            bytes,
            whole,
            parts,
            deadline,
        };
        let cores = u32::from(self.config.cores);
        let changes = |access| route::changes(access, &command);
        match self.route(&command, redirects) {
            Routed::Reply(reply) => self.replies.push(ReplyTo { conn, seq, reply }),
            Routed::Backup(call) => {
                let Some(request) = self.open_request(open(false, Whole::One, 1)) else { return };
                let (part, from) = (PartId { request, part: 0 }, self.config.shard);
                match self.slot_of(call.group) {
                    Some(_) => self.backup(now, from, part, call),
                    None => {
                        self.post(self.core_of(call.group), Post::Backup { from, part, call });
                    }
                }
            }
            Routed::Time => {
                let UnixMs(ms) = self.wall(now);
                let parts = [ms / 1000, ms % 1000 * 1000].map(|it| Reply::bulk(it.to_string()));
                self.replies.push(ReplyTo { conn, seq, reply: Reply::Array(parts.into()) });
            }
            Routed::Wait { on_disk } => {
                let replicas = Reply::Int(self.replicas_that_hold() as i64);
                let reply =
                    if on_disk { Reply::Array(vec![Reply::Int(1), replicas]) } else { replicas };
                self.replies.push(ReplyTo { conn, seq, reply });
            }
            Routed::One { group, access, session, body } => {
                let opening = open(changes(access), Whole::One, 1);
                let Some(request) = self.open_request(opening) else { return };
                let command = GroupCommand { group, access, after_writes, manner, session, body };
                self.start(now, PartId { request, part: 0 }, command);
            }
            Routed::Many { access, session, parts, merge } => {
                let opening = open(changes(access), Whole::Merged(merge), parts.len() as u32);
                let Some(request) = self.open_request(opening) else { return };
                for (part, (group, body)) in (0..).zip(parts) {
                    let command =
                        GroupCommand { group, access, after_writes, manner, session, body };
                    self.start(now, PartId { request, part }, command);
                }
            }
            Routed::Drain(drain) => {
                let opening = open(false, Whole::Drain, cores);
                self.drain_node(now, Opening { deadline: Tick(u64::MAX), ..opening }, drain);
            }
            Routed::Info(sections) => self.ask_cores(open(false, Whole::Info(sections), cores)),
            Routed::Cluster(call) => {
                let whole = Whole::Cluster(call, Box::new(self.addresses.clone()));
                self.ask_cores(open(false, whole, cores));
            }
            Routed::Digest => self.ask_cores(open(false, Whole::Digest, cores)),
            Routed::Slowlog(call) => self.ask_cores(open(false, Whole::Slowlog(call), cores)),
        }
    }

    fn on_call(&mut self, now: Tick, call: Call) {
        let Call { seq, command } = call;
        self.counters.commands += 1;
        let opening = Opening {
            conn: ConnId::EMBEDDER,
            seq,
            write: command.access == Access::Write,
            redirects: false,
            bytes: command.body.len(),
            whole: Whole::One,
            parts: 1,
            deadline: now.plus(self.config.request_ms),
        };
        if self.config.groups <= command.group.0 {
            let reply = refusal::no_group(command.group);
            self.replies.push(ReplyTo { conn: ConnId::EMBEDDER, seq, reply });
        } else if let Some(request) = self.open_request(opening) {
            self.start(now, PartId { request, part: 0 }, command);
        }
    }

    fn route(&mut self, command: &Command, redirects: bool) -> Routed {
        let Config { groups, node, incarnation, shard, .. } = self.config;
        let opened = &mut self.sessions_opened;
        route::route(command, groups, redirects, || {
            *opened += 1;
            SessionId::new(node, incarnation, shard, *opened)
        })
    }

    /// Answers the core that asked.
    fn backup(&mut self, now: Tick, from: ShardId, part: PartId, call: backup::Call) {
        let Some(slot) = self.slot_of(call.group) else { return };
        let reply = self.backups.answer(now, &self.replicas[slot as usize], call.verb);
        if from == self.config.shard {
            self.finish(part, PartAnswer::Reply(reply));
        } else {
            self.post(from, Post::Answer { part, reply });
        }
    }

    /// What was answered is on the disks of so many nodes at least, beside the leader: a quorum's, of the
    /// group where that is the fewest.
    fn replicas_that_hold(&self) -> usize {
        let voters = self.replicas.iter().map(|it| it.status().membership.incoming.len());
        voters.min().unwrap_or(1) / 2
    }

    /// Opens a request, or refuses it if the table is full.
    fn open_request(&mut self, opening: Opening) -> Option<u64> {
        if self.requests.has_room(&opening) {
            return Some(self.requests.open(opening));
        }
        self.counters.commands_refused += 1;
        self.counters.proposals_failed += u64::from(opening.write);
        let Opening { conn, seq, .. } = opening;
        let reply = refusal::busy("this core holds as many unanswered commands as it may");
        self.replies.push(ReplyTo { conn, seq, reply });
        None
    }

    /// Asks every core of this node what it knows.
    fn ask_cores(&mut self, opening: Opening) {
        let about = opening.whole.about();
        let Some(request) = self.open_request(opening) else { return };
        for core in 0..self.config.cores {
            let part = PartId { request, part: u32::from(core) };
            if core == self.config.shard.0 {
                let report = Box::new(self.tell(about));
                self.finish(part, PartAnswer::Report(report));
            } else {
                let from = self.config.shard;
                self.post(ShardId(core), Post::Ask { from, part, about });
            }
        }
    }

    /// A part of a request of this core begins: here, or on the core that owns the group.
    fn start(&mut self, now: Tick, part: PartId, command: GroupCommand) {
        if self.slot_of(command.group).is_some() {
            self.run(now, self.stages.arrival(), command, Origin::Here(part));
        } else {
            let core = self.core_of(command.group);
            let (from, arrival) = (self.config.shard, self.stages.arrival());
            self.post(core, Post::Command { from, part, arrival, command });
        }
    }

    /// Runs a command on a group of this core, or sends it on to the node that leads.
    fn run(&mut self, now: Tick, arrival: Arrival, command: GroupCommand, origin: Origin) {
        let Some(slot) = self.slot_of(command.group) else { return };
        if command.access == Access::Write
            && let Some(refusal) = self.refuse_write(now, slot)
        {
            self.counters.commands_refused += 1;
            self.answers.push((origin, refusal));
            return;
        }
        let wall = self.wall(now);
        let is_write = command.access == Access::Write;
        let replica = &mut self.replicas[slot as usize];
        match replica.on_command(now, wall, command, origin) {
            Verdict::Taken => {
                if is_write {
                    self.stages.proposed(slot, replica.cache().next().prev(), arrival);
                }
                self.touch(slot);
            }
            Verdict::Answered(reply) => self.answers.push((origin, reply)),
            Verdict::Refused(reply) => {
                self.counters.commands_refused += 1;
                self.answers.push((origin, reply));
            }
            Verdict::Elsewhere(leader, command) => {
                let to = NodeId(leader.0);
                if let Some(reply) = self.redirected(to, &command) {
                    self.answers.push((origin, reply));
                    return;
                }
                if self.forwards.len() >= limits::REQUESTS_MAX {
                    self.counters.commands_refused += 1;
                    self.answers.push((origin, refusal::busy("too many commands are forwarded")));
                    return;
                }
                self.counters.commands_forwarded += 1;
                let id = self.forwards.add(Forwarded {
                    to,
                    group: command.group,
                    access: command.access,
                    origin,
                    deadline: now.plus(self.config.request_ms),
                    arrival,
                    sent: self.stages.arrival().taken,
                    body: command.body.clone(),
                });
                self.outbox.forward(to, pack(id, command));
            }
        }
    }

    /// What is said instead of forwarding `command`, if its connection is a cluster client's.
    fn redirected(&self, leader: NodeId, command: &GroupCommand) -> Option<Reply> {
        if !command.manner.redirects || command.access == Access::Member {
            return None;
        }
        // A leader that has not said where its clients connect is an older release.
        route::redirected(&command.body, *self.addresses.get(&leader)?)
    }

    /// Why a write that this node would take into its own log is refused. A follower's disk is no
    /// reason: the leader's may have room.
    fn refuse_write(&self, now: Tick, slot: u32) -> Option<Reply> {
        let room = self.config.log_cache_bytes + limits::LOG_CACHE_BYTES_OVER_MAX;
        let (full, waits) = (self.log.is_full(), self.cached_total > room);
        // Past a request's time nobody would hear the result; past an election's this leader is on its
        // way out.
        let patience = self.config.request_ms.min(self.config.election_ms);
        let stuck = patience < self.disk_age.oldest_ms(now);
        if !(full || waits || stuck)
            || self.replicas[slot as usize].status().role != RoleKind::Leader
        {
            return None;
        }
        let busy = || refusal::busy("too much waits for this node's disk");
        Some(if full { refusal::full() } else { busy() })
    }

    fn on_post(&mut self, now: Tick, post: Post) {
        match post {
            Post::Command { from, part, arrival, command } => {
                self.run(now, arrival, command, Origin::Core(from, part));
            }
            Post::Answer { part, reply } => self.finish(part, PartAnswer::Reply(reply)),
            Post::Ask { from, part, about } => {
                let report = Box::new(self.tell(about));
                self.post(from, Post::Report { part, report });
            }
            Post::Drain { from, part, until } => {
                self.begin_drain(Drain::asked((from, part), until))
            }
            Post::Backup { from, part, call } => self.backup(now, from, part, call),
            Post::Report { part, report } => self.finish(part, PartAnswer::Report(report)),
            Post::Raft { group, message, entries } => {
                if let Some(slot) = self.slot_of(group) {
                    let replica = &mut self.replicas[slot as usize];
                    replica.on_message(now, &message, entries.into_iter(), &mut self.answers);
                    self.touch(slot);
                }
            }
            Post::SnapshotPiece(piece) => self.on_snapshot_piece(now, piece),
            Post::SnapshotAck(ack) => self.on_snapshot_ack(now, &ack),
            Post::Forwarded { from, id, arrival, command } => {
                self.run(now, arrival, command, Origin::Node(from, id));
            }
            Post::Answered { id, body } => self.on_answered(now, id, body),
        }
    }

    /// A sibling core's mailbox is full. Nothing of the post was done, and whoever waits is told so.
    fn on_undelivered(&mut self, post: Post) {
        let busy = || refusal::busy("the mailbox of the core that owns the group is full");
        match post {
            Post::Command { part, .. }
            | Post::Ask { part, .. }
            | Post::Drain { part, .. }
            | Post::Backup { part, .. } => {
                self.counters.commands_refused += 1;
                self.finish(part, PartAnswer::Reply(busy()));
            }
            Post::Forwarded { from, id, .. } => {
                self.counters.commands_refused += 1;
                self.answers.push((Origin::Node(from, id), busy()));
            }
            // Raft, and whoever sends a snapshot, sends again what matters.
            Post::Raft { .. } | Post::SnapshotPiece(_) | Post::SnapshotAck(_) => {}
            Post::Answer { .. } | Post::Report { .. } | Post::Answered { .. } => {
                debug_assert!(false, "whoever asked has reserved room for the answer");
            }
        }
    }

    fn on_answered(&mut self, now: Tick, id: u64, body: Bytes) {
        let core = Forwards::shard_of(id);
        if core != self.config.shard {
            if core.0 < self.config.cores {
                self.post(core, Post::Answered { id, body });
            }
            return;
        }
        let Some(forwarded) = self.forwards.take(id) else { return };
        if let Some(heard) = self.stages.answered(forwarded.to, forwarded.sent) {
            self.slowlog.on_forward(&forwarded, heard, self.wall(now));
        }
        let reply = Reply::decode(&body)
            .unwrap_or_else(|_| give_up(&forwarded, "the leader's answer is not readable"));
        self.answers.push((forwarded.origin, reply));
    }

    fn finish(&mut self, part: PartId, answer: PartAnswer) {
        let reply = self.requests.answer(part, answer);
        if reply.is_some() && self.drain_of_node == Some(part.request) {
            self.drain_of_node = None;
            self.stop = true;
        }
        self.replies.extend(reply);
    }

    // --- handing over -------------------------------------------------------------------------

    /// Asks every core of this node to hand over what it leads.
    fn drain_node(&mut self, now: Tick, opening: Opening, drain: member::Drain) {
        let until = now.plus(drain.limit_ms);
        let Some(request) = self.open_request(opening) else { return };
        if drain.stop {
            self.drain_of_node = Some(request);
        }
        for core in (0..self.config.cores).map(ShardId) {
            let part = PartId { request, part: u32::from(core.0) };
            let from = self.config.shard;
            if core == from {
                self.begin_drain(Drain::asked((from, part), until));
            } else {
                self.post(core, Post::Drain { from, part, until });
            }
        }
    }

    /// Begins to hand over what this core leads; a drain that is under way is over.
    fn begin_drain(&mut self, drain: Drain) {
        if let Some(before) = self.draining.replace(drain) {
            self.end_drain(&before.given_up());
        }
    }

    fn end_drain(&mut self, drained: &Drained) {
        let origin = drained.origin(self.config.shard);
        self.answers.extend(origin.map(|origin| (origin, drained.reply())));
    }

    /// The node stops: what this core leads is handed over, as far as that is done by `until`. Go on
    /// with turns until [`Self::is_draining`] is false.
    pub fn hand_over(&mut self, until: Tick) {
        self.begin_drain(Drain::at_the_end(until));
    }

    /// Whether this core still hands over what it leads.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// The node stops: snapshots of all groups are to stand for the log, so that the next start reads them and
    /// the tail behind them. Nothing is done if that saves next to nothing. Go on with turns until
    /// [`Self::is_checkpointing`] is false, or as long as there is time: what was begun and not ended is
    /// passed over by recovery, and the log is whole without it.
    pub fn checkpoint(&mut self) {
        self.truncation.begin_checkpoint(&self.log);
    }

    /// Whether snapshots for a checkpoint are still being taken, or the log behind them is not cut yet.
    #[must_use]
    pub fn is_checkpointing(&self) -> bool {
        self.truncation.is_checkpointing(&self.log)
    }

    fn go_on_draining(&mut self, now: Tick) {
        let Some(mut drain) = self.draining.take() else { return };
        let mut touched = Vec::new();
        match drain.go_on(now, &mut self.replicas, |slot| touched.push(slot)) {
            Some(drained) => self.end_drain(&drained),
            None => self.draining = Some(drain),
        }
        touched.into_iter().for_each(|slot| self.touch(slot));
    }

    fn on_unreachable(&mut self, now: Tick, node: NodeId) {
        self.sends.on_unreachable(node, now);
        for slot in 0..self.replicas.len() {
            self.replicas[slot].on_unreachable(ReplicaId(node.0));
        }
    }

    fn on_log_read(&mut self, done: LogReadDone) {
        let LogReadDone { read, result } = done;
        self.truncation.on_read_done(read.at.segment);
        let Some(slot) = self.slot_of(read.group) else { return };
        match result {
            // They were for the driver.
            Ok(_) if read.replica == ReplicaId::NONE => {}
            Ok(entries) => {
                self.replicas[slot as usize].on_log_read(read.replica, read.first, entries);
                self.touch(slot);
            }
            Err(damage) => {
                // Never skipped: the follower gets the state instead, the damage is counted and named,
                // and its segment leaves the log as soon as snapshots stand for it.
                self.counters.corrupt_detected += 1;
                self.damaged.push(damage);
                self.truncation.on_damage(damage.segment);
                self.replicas[slot as usize].on_log_read_failed(read.replica, read.first);
                self.touch(slot);
            }
        }
    }

    // --- the turn -----------------------------------------------------------------------------

    /// Ends a turn: timers, the effects of every touched group, one disk write for all of them,
    /// one frame per peer and lane, all answers.
    pub fn turn(&mut self, now: Tick, fx: &mut Effects) {
        while let Some(slot) = self.timers.pop_due(now) {
            self.replicas[slot as usize].on_tick(now, &mut self.answers);
            self.touch(slot);
        }
        self.requests.expire(now, &mut self.replies);
        self.forwards.expire(now);
        self.go_on_draining(now);
        self.backups.expire(now);

        while let Some(slot) = self.yielded.pop() {
            self.touch(slot);
        }
        self.settled.clear();
        while let Some(slot) = self.touched.pop() {
            self.is_touched[slot as usize] = false;
            self.settle(now, slot, fx);
            self.settled.push(slot);
        }
        if self.slow_disk.take_due() && self.draining.is_none() {
            fx.slow_disk = true;
            self.counters.slow_disk_handovers += 1;
            self.begin_drain(Drain::at_the_end(now.plus(self.config.election_ms)));
        }
        self.deliver_answers();
        self.counters.proposals_failed += self.requests.take_writes_failed();
        self.poll_transfers(now);

        let Self { log, replicas, counters, truncation, .. } = self;
        if let Some(first) = truncation.turn(now, log, replicas, counters) {
            fx.reclaim = Some(first);
        }
        log.gather(replicas, counters, &mut fx.writes);
        if planted(Planted::InstalledBeforeFlush) {
            self.install_placed(now, &fx.writes);
        }
        if !fx.writes.is_empty() {
            self.note_writes(now, &fx.writes);
            self.last_write = now;
        } else if now.since(self.last_write) >= IDLE_CLOSE_MS {
            // Idle: prove the last batch durable, so that damage to it is not taken for a tear.
            self.last_write = now;
            fx.writes.extend(self.log.closing_write(&self.replicas));
        }
        if fx.reclaim.is_some() {
            (0..self.replicas.len()).for_each(|slot| self.note_cached(slot));
        }
        self.outbox.flush(now, &mut fx.frames);
        if let Some(segment) = self.log.ask_spare() {
            fx.spare = Some(segment);
        }
        fx.replies.append(&mut self.replies);
        fx.posts.append(&mut self.posts);
        fx.log_reads.append(&mut self.log_reads);
        let Counters { corrupt_detected, corrupt_repaired, .. } = &mut self.counters;
        if *corrupt_repaired < *corrupt_detected
            && self.replicas.iter().all(|replica| replica.forgotten().is_none())
        {
            *corrupt_repaired = *corrupt_detected;
        }
        fx.failed.append(&mut self.failed);
        fx.damaged.append(&mut self.damaged);
        self.peers.take_changes(&mut fx.peers);
        fx.users = self.changed_users();
        fx.stop = std::mem::take(&mut self.stop);
        self.evict();
    }

    /// The users of the cluster, if the group that keeps them lives here and they are not those of the last call.
    pub fn changed_users(&mut self) -> Option<Arc<Users>> {
        let slot = self.slot_of(acl::GROUP)?;
        let users = self.replicas[slot as usize].machine().users()?;
        if self.users.as_ref().is_some_and(|told| Arc::ptr_eq(told, users)) {
            return None;
        }
        self.users = Some(Arc::clone(users));
        self.users.clone()
    }

    /// Collects what one touched group asks for.
    fn settle(&mut self, now: Tick, slot: u32, fx: &mut Effects) {
        let wall = self.wall(now);
        let replica = &mut self.replicas[slot as usize];
        let group = replica.group();
        let raft_fx = &mut self.raft_fx;
        let applied = replica.ready(now, wall, raft_fx, &mut self.answers);
        self.counters.entries_committed += applied;
        if let Some(event) = raft_fx.role {
            self.counters.leader_changes += u64::from(event.new_leader);
            fx.roles.push((group, event));
            self.beats.reset();
        }
        let role_changed = raft_fx.role.is_some();
        if role_changed {
            self.stages.forget(slot);
        }
        let status = replica.status();
        self.stages.applied(slot, group, status.applied, status.membership);
        let is_led = status.role == RoleKind::Leader;
        self.slow_disk.settled(now, slot, is_led, status.commit, status.durable);
        let mut snapshots = Vec::new();
        for message in &raft_fx.send {
            if message.kind == MessageKind::Snapshot {
                snapshots.push((message.to, message.term));
                continue;
            }
            if planted(Planted::HeartbeatCoalescedAway)
                && message.kind == MessageKind::Heartbeat
                && self.beats.is_recent(NodeId(message.to.0), now)
            {
                continue;
            }
            if message.kind == MessageKind::Heartbeat
                && let Some(late_ms) = self.beats.sent(NodeId(message.to.0), now)
            {
                self.counters.heartbeats_late += 1;
                fx.late_beats.push((NodeId(message.to.0), late_ms));
            }
            let to = NodeId(message.to.0);
            let entries = replica.cache().range(message.entry.index.next(), message.count);
            self.outbox.message(now, to, group, message, entries);
            let index = message.entry.index;
            if message.kind == MessageKind::Append && 0 < message.count {
                self.stages.sending(slot, to, index.plus(message.count.into()));
            } else if message.kind == MessageKind::AppendResponse && !message.reject {
                for timing in self.stages.accepted(slot, group, index) {
                    self.outbox.timing(to, &timing);
                }
            }
        }
        for fetch in &raft_fx.fetch {
            let last = replica.cache().first().prev();
            match self.log.index().find(group, fetch.first) {
                Some(span) if fetch.first <= last => {
                    self.truncation.on_read(span.location.segment);
                    self.log_reads.push(LogRead {
                        whose: self.config.identity(),
                        group,
                        replica: fetch.to,
                        first: fetch.first,
                        last: span.last.min(last),
                        at: span.location,
                    });
                }
                _ => self.failed.push((
                    group,
                    format!("entry {} is neither in memory nor in the log", fetch.first),
                )),
            }
        }
        for (ms, body) in replica.take_slow_reads() {
            self.slowlog.on_read(group, ms, &body, wall);
        }
        if replica.take_state_changed() {
            let state = (!replica.is_gone()).then(|| replica.state());
            self.peers.update(slot as usize, state);
        }
        if replica.is_unwritten() {
            self.log.stage(slot);
        }
        if let Some((why, ends_node)) = replica.newly_failed() {
            if ends_node {
                fx.fatal = Some(format!("group {group}: {why}"));
            }
            self.failed.push((group, why));
        }
        if replica.has_yielded() {
            self.yielded.push(slot);
        }
        let due = replica.due().map_or(Tick(u64::MAX), |due| now.plus(due.since(wall).max(1)));
        self.timers.arm(slot, replica.deadline().min(due));
        raft_fx.clear();
        self.review_transfers(slot, role_changed);
        for (to, term) in snapshots {
            self.send_snapshot(now, slot, (to, term), 0);
        }
        self.note_cached(slot as usize);
    }

    fn note_cached(&mut self, slot: usize) {
        let bytes = self.replicas[slot].cache().bytes();
        let before = std::mem::replace(&mut self.cached[slot], bytes);
        self.cached_total = self.cached_total - before + bytes;
    }

    fn deliver_answers(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        for (origin, reply) in answers.drain(..) {
            match origin {
                Origin::Here(part) => self.finish(part, PartAnswer::Reply(reply)),
                Origin::Core(core, part) => self.post(core, Post::Answer { part, reply }),
                Origin::Node(node, id) => {
                    self.outbox.answer(node, Answer { id, body: reply.encode_forwarded() });
                }
            }
        }
        self.answers = answers;
    }

    /// Keeps the entries in memory within their budget, oldest first, group by group.
    fn evict(&mut self) {
        for _ in 0..self.replicas.len() {
            let over = self.cached_total.saturating_sub(self.config.log_cache_bytes);
            if over == 0 {
                break;
            }
            let slot = self.evict_next % self.replicas.len();
            self.evict_next = slot + 1;
            self.replicas[slot].evict(self.log.active(), over);
            self.note_cached(slot);
        }
    }

    // --- questions ----------------------------------------------------------------------------

    /// A machine yielded in the last turn: the next is to come as soon as what has come meanwhile was taken in.
    #[must_use]
    pub fn has_yielded(&self) -> bool {
        !self.yielded.is_empty()
    }

    /// When a timer is due next, or a machine wants to go on.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        if self.has_yielded() {
            return Tick(0);
        }
        let timers = self.timers.next().unwrap_or(Tick(u64::MAX));
        let transfers = self.sends.deadline().min(self.receives.deadline());
        let timers = timers.min(transfers).min(self.outbox.deadline());
        self.requests.next_deadline().map_or(timers, |request| request.min(timers))
    }

    /// The counters, for what only the driver can count.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// What the driver measures, for it to keep up to date.
    pub fn driver_mut(&mut self) -> &mut DriverReport {
        &mut self.driver
    }

    /// Nothing waits to be written or to become durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.log.is_idle()
    }

    /// At a clean end: the write that proves everything before it durable, if there is anything to
    /// prove and nothing is in flight. Report its completion like any other.
    pub fn closing_write(&mut self) -> Option<Write> {
        self.log.closing_write(&self.replicas)
    }

    /// The driver has encoded this write, and gives its memory back. Nothing follows from it, and a driver may as
    /// well drop it; but then each write allocates.
    pub fn reuse_write(&mut self, write: Write) {
        self.log.reuse(write);
    }

    /// The driver has sent this frame, or given it up, and gives its memory back, as with
    /// [`Self::reuse_write`].
    pub fn reuse_frame(&mut self, frame: OutFrame) {
        self.outbox.reuse(frame);
    }

    /// Bytes of all segments of the log, the one being written counted whole.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.truncation.bytes(&self.log)
    }

    /// A segment of which part cannot be read is still in the log, and is not the one being written.
    #[must_use]
    pub fn holds_damage(&self) -> bool {
        self.truncation.holds_damage(&self.log)
    }

    /// An entry that a replica counts as its own and that could not be read back: neither is it in memory, nor does
    /// anybody know where in the log it lies. There is none.
    #[must_use]
    pub fn lost_track(&self) -> Option<(GroupId, Index)> {
        self.replicas.iter().find_map(|replica| {
            let (mut next, end) = (replica.status().first, replica.cache().first());
            while next < end {
                match self.log.index().find(replica.group(), next) {
                    Some(span) => next = span.last.next(),
                    None => return Some((replica.group(), next)),
                }
            }
            None
        })
    }

    /// The replicas of this core, to look at.
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// The replicas that something happened to in the last turn, maybe twice.
    pub fn settled(&self) -> impl Iterator<Item = &Replica> {
        self.settled.iter().map(|&slot| &self.replicas[slot as usize])
    }
}

/// After this long without a write, in ms, the log is closed with a durable watermark.
const IDLE_CLOSE_MS: u64 = 1000;

/// A forwarded command whose answer will not come.
fn give_up(forwarded: &Forwarded, why: &str) -> Reply {
    match forwarded.access {
        _ if planted(Planted::ErrorThoughCommitted) => refusal::no_leader(forwarded.group),
        Access::Write | Access::Member => refusal::uncertain(why),
        _ => refusal::no_leader(forwarded.group),
    }
}
