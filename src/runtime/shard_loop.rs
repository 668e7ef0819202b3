//! One core: gather events, let the shard think once, perform what it asks for, sleep.
//!
//! ```text
//!   ┌─► poll sockets ─► take mail, disk completions ─► Shard::on_event … ─► Shard::turn ─┐
//!   │                                                                                    │
//!   └── sleep (ring) ◄───── flush clients and links ◄── start writes, post, reply ◄──────┘
//! ```
//!
//! One turn takes *everything* that is ready, so that the commands of many connections share one
//! disk write and one frame per peer; the busier the core, the more they share. Nothing in a turn
//! waits.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::id::{ConnId, ReplicaId, SegmentSeq, ShardId, Tick};
use crate::shard::event::{Call, Post, Request};
use crate::shard::report::DriverReport;
use crate::shard::stages::Mark;
use crate::shard::{Effects, Event, Shard};
use crate::store::connection::Manner;

use super::admin::{CoreReport, Question};
use super::client::{Asked, Calls, What, Why};
use super::client_conn::Gate;
use super::clock::{self, Clock, LATE_MS, TICK_MS};
use super::fatal::Fatal;
use super::faults::Faults;
use super::identity::Fact;
use super::inbox::Inbox;
use super::listener::Clients;
use super::mailbox::Mailbox;
use super::metrics::Metrics;
use super::peer_link::PeerLinks;
use super::peer_port::{Greeted, PeerPort};
use super::poller::{Poller, Ready, Token};
use super::process;
use super::pulse::Pulse;
use super::recovery::Recovery;
use super::ring::{Done, Ring};
use super::roll::Roll;
use super::roster::Roster;
use super::segments::{Made, Origin, Preparer};
use super::sleep::Sleeper;
use super::wal_reader::{Answer, WalReader};
use super::wal_writer::WalWriter;
use super::watch::{Cursor, Window};

/// A clean end waits this long for writes in flight, in ms.
const STOP_MS: u64 = 5000;
/// A clean end waits this long for others to lead what this node leads, in ms (contract row 61).
const HAND_OVER_MS: u64 = 1000;
/// How often the shard is told the time on the wall, in ms: somebody may have set it.
const WALL_MS: u64 = 1000;
/// How often what the driver measures is brought up to date, in ms.
const REPORT_MS: u64 = 1000;
/// The longest sleep.
pub(super) const TICK: Duration = Duration::from_millis(TICK_MS);
/// How long glommio may look after its own tasks at a time.
pub(super) const TASKS: Duration = Duration::from_micros(50);
/// Turns in a row before the core lets its disk writes go out, while turns cause new events.
const TURNS_MAX: usize = 4;

/// What can be put into a core's mailbox.
#[derive(Debug)]
pub enum Mail {
    /// From a sibling core.
    Post(Post),
    /// From the segment-making thread.
    Made(Made),
    /// From the log-reading thread.
    Read(Answer),
    /// A peer's connection, greeted by core 0.
    Peer(Greeted),
    /// From whoever embeds the node.
    #[expect(private_interfaces, reason = "made by a client only")]
    Call(Asked, What),
    /// A subscription to the log of a group of this core.
    #[expect(private_interfaces, reason = "made by a client only")]
    Tail(Cursor),
    /// A fact is durable, or cannot be made so. For core 0 only.
    Kept(Result<Fact, Fatal>),
    /// The admin port wants to know this core's numbers.
    Tell(Question),
    /// The node stops.
    Stop,
}

/// What a core shares with its siblings.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Everybody's mailbox, by core.
    pub mailboxes: Vec<Arc<Mailbox<Mail>>>,
    /// Cores that still replay their log. Until it is zero, clients are told so.
    pub loading: Arc<AtomicUsize>,
    /// Who this node is, and the others.
    pub roster: Arc<Roster>,
    /// Who may do what.
    pub roll: Arc<Roll>,
    /// The node's clock.
    pub clock: Clock,
    /// Fault switches, if clients may use them.
    pub faults: Option<Arc<Faults>>,
    /// When each core last turned, and whether the node stops.
    pub pulse: Arc<Pulse>,
}

/// Everything one core owns. Built on the core's own thread.
pub struct ShardLoop {
    /// Which core.
    pub core: ShardId,
    /// What it shares.
    pub shared: Shared,
    /// Its sockets.
    pub poller: Poller,
    /// How it waits.
    pub sleeper: Sleeper<Mail>,
    /// What it waits in, and what its log is written through.
    pub ring: Ring,
    /// What its own tasks tell it.
    pub inbox: Rc<Inbox>,
    /// Its clients.
    pub clients: Clients,
    /// Its sending links.
    pub links: PeerLinks,
    /// Its receiving links.
    pub port: PeerPort,
    /// Its log, written.
    pub writer: WalWriter,
    /// Its log, prepared.
    pub preparer: Preparer,
    /// Its log, read.
    pub reader: WalReader,
    /// How long a clean end may take to write snapshots for the next start, in ms; 0 is not at all.
    pub checkpoint_ms: u64,
    /// Operations that take as long are remembered for `SLOWLOG`, in µs.
    pub slowlog_us: u64,
    /// What it shows to whoever embeds the node.
    pub(super) window: Window,
}

/// The state of a running loop beside the parts it was built from.
struct Running {
    parts: ShardLoop,
    shard: Shard,
    calls: Calls,
    fx: Effects,
    events: Vec<Event>,
    ready: Vec<Ready>,
    done: Vec<Done>,
    mail: Vec<Mail>,
    metrics: Metrics,
    last_turn: Tick,
    /// When late turns were last warned about, and how many there were since.
    late_told: Tick,
    late: u64,
    /// When late heartbeats were last warned about, and when the driver's report was last made.
    beats_told: Tick,
    reported: Tick,
    /// When the shard was last told the time on the wall.
    wall_told: Tick,
    /// Groups whose failure has been told.
    failed: Vec<crate::id::GroupId>,
    /// That this node's directory is proven is being written down.
    proving: bool,
    /// The version of the clients' addresses that the shard was told.
    addresses_told: u64,
    stop_at: Option<Tick>,
    /// A machine of an embedder's wants the node to end.
    stopped_by_machine: bool,
    /// Until when a node that stops waits for its checkpoint.
    checkpoint_until: Option<Tick>,
}

impl ShardLoop {
    /// Replay the log, then serve until told to stop.
    ///
    /// # Errors
    /// What makes the whole node stop.
    pub async fn run(mut self, mut recovery: Recovery) -> Result<(), Fatal> {
        let mut ready = Vec::new();
        let mailbox = Arc::clone(&self.shared.mailboxes[self.core.0 as usize]);
        while recovery.step()? {
            self.shared.pulse.turned(self.core, self.shared.clock.now());
            self.serve_while_loading(&mut ready)?;
            if mailbox.holds(|letter| matches!(letter, Mail::Stop)) {
                // Nothing was written yet, so there is nothing to finish.
                tracing::info!(core = self.core.0, "core stopped while it replayed its log");
                return Ok(());
            }
        }
        let (mut shard, spares) = recovery.finish(self.shared.clock.now())?;
        // Before anybody is served: what is known of the users.
        if let Some(users) = shard.changed_users() {
            self.shared.roll.publish(users);
        }
        self.shared.loading.fetch_sub(1, Ordering::SeqCst);
        self.shared.pulse.loaded(self.core);
        Running::new(self, shard, spares).run().await
    }

    /// Between two segments: tell clients that they are too early. Peers wait in the kernel.
    fn serve_while_loading(&mut self, ready: &mut Vec<Ready>) -> Result<(), Fatal> {
        self.ring.wait(Duration::ZERO).map_err(|error| self.broken("look at its ring", &error))?;
        self.poller.poll(ready).map_err(|error| self.broken("poll its sockets", &error))?;
        let now = self.shared.clock.now();
        let (mut none, mut done) = (Vec::new(), Vec::new());
        let Self { clients, ring, poller, .. } = self;
        ring.take(&mut done);
        debug_assert!(done.is_empty(), "a log was written before it was replayed");
        clients.on_arrivals(Gate::Loading, ring, &mut none);
        for report in ready.drain(..) {
            match Token::from_number(report.token) {
                Some(Token::ClientPort) => clients.accept(now, ring, poller),
                Some(Token::Client(key)) => {
                    clients.on_ready(key, report, Gate::Loading, ring, &mut none);
                }
                _ => {}
            }
        }
        let flushed = clients.flush(Gate::Loading, ring, poller, &mut none);
        clients.tick(self.core, now, ring);
        flushed.map_err(|error| self.broken("answer its clients", &error))?;
        debug_assert!(none.is_empty(), "a command was let through before the log was replayed");
        Ok(())
    }

    /// A greeted peer goes to the core that it belongs to.
    fn seat(&mut self, core: ShardId, greeted: Greeted, events: &mut Vec<Event>) {
        if core == self.core {
            self.port.adopt(greeted, &self.poller, events);
        } else {
            self.shared.mailboxes[usize::from(core.0)].deliver(Mail::Peer(greeted));
        }
    }

    fn broken(&self, what: &str, error: &std::io::Error) -> Fatal {
        Fatal::new(format!("core {} cannot {what}: {error}", self.core))
    }
}

impl Running {
    fn new(parts: ShardLoop, mut shard: Shard, spares: Vec<SegmentSeq>) -> Self {
        let now = parts.shared.clock.now();
        shard.slow_after(parts.slowlog_us);
        shard.driver_mut().flush_method = parts.writer.method().name();
        shard.driver_mut().receive_method = parts.ring.receive_method();
        shard.driver_mut().routing = parts.clients.routing();
        shard.on_event(now, Event::Wall(clock::wall()));
        let mut events = Vec::new();
        for seq in spares {
            parts.writer.open_ahead(seq);
            events.push(Event::SpareReady(seq));
        }
        Self {
            parts,
            shard,
            calls: Calls::default(),
            fx: Effects::default(),
            events,
            ready: Vec::new(),
            done: Vec::new(),
            mail: Vec::new(),
            metrics: Metrics::default(),
            last_turn: now,
            late_told: Tick(0),
            late: 0,
            beats_told: Tick(0),
            reported: Tick(0),
            wall_told: now,
            failed: Vec::new(),
            proving: false,
            addresses_told: u64::MAX,
            stop_at: None,
            stopped_by_machine: false,
            checkpoint_until: None,
        }
    }

    async fn run(mut self) -> Result<(), Fatal> {
        loop {
            // What a turn causes here and now (a freed connection's next commands, a post that was
            // refused) is taken up at once.
            for _ in 0..TURNS_MAX {
                if let Err(fatal) = self.turn() {
                    if self.stopped_by_machine {
                        // The disk is well: whoever starts the node again in this process finds its files free.
                        self.finish_writes().await?;
                        self.parts.writer.close().await;
                        // Nor does a segment that is being made get in the way of the next one's.
                        self.parts.preparer.finish();
                    }
                    return Err(fatal);
                }
                if self.events.is_empty() {
                    break;
                }
            }
            if let Some(deadline) = self.stop_at
                && self.may_stop(deadline)
            {
                return self.stop().await;
            }
            let has_tasks = self.parts.writer.has_tasks();
            // No longer than a tick: that is the clock of the timers.
            let is_idle = self.events.is_empty()
                && !has_tasks
                && !self.shard.has_yielded()
                && !self.parts.clients.has_handshakes();
            self.sleep(if is_idle { TICK } else { Duration::ZERO })?;
            if has_tasks {
                // Files are being opened or closed: glommio goes once around.
                glommio::timer::sleep(TASKS).await;
            }
        }
    }

    fn sleep(&mut self, timeout: Duration) -> Result<(), Fatal> {
        let ShardLoop { core, sleeper, ring, .. } = &mut self.parts;
        let slept = sleeper.sleep(ring, timeout);
        slept.map_err(|error| Fatal::new(format!("core {core} cannot sleep: {error}")))
    }

    /// What the disk has done becomes events.
    fn reap(&mut self) {
        let ShardLoop { ring, writer, .. } = &mut self.parts;
        ring.take(&mut self.done);
        for done in self.done.drain(..) {
            writer.on_done(done, ring, &mut self.events);
        }
        writer.tick(ring, &mut self.events);
    }

    fn turn(&mut self) -> Result<(), Fatal> {
        let clock = self.parts.shared.clock;
        let started = clock.micros();
        let now = Clock::tick(started);
        self.shard.mark(now, Mark::Reaped, started);
        self.reap();
        if let Some(fatal) = self.parts.inbox.fatal() {
            self.shard.counters_mut().fsync_errors += 1;
            return Err(fatal);
        }
        self.parts.shared.pulse.turned(self.parts.core, now);
        self.note_lateness(now);
        self.gather(now)?;
        if !self.parts.shared.roster.is_proven() {
            return self.ask_to_take_part(now);
        }
        // A lease is judged by a time after the last read came in: had the core been held up before it
        // looked, the time from before would say that the lease holds.
        let gathered = clock.micros();
        let now = Clock::tick(gathered);
        self.shard.mark(now, Mark::Gathered, gathered);
        if let Some(faults) = &self.parts.shared.faults {
            faults.drop_received(now, &mut self.events);
        }
        if WALL_MS <= now.since(self.wall_told) {
            self.wall_told = now;
            self.shard.on_event(now, Event::Wall(clock::wall()));
        }
        let addresses = self.parts.shared.roster.clients_version();
        if addresses != self.addresses_told {
            self.addresses_told = addresses;
            let addresses = self.parts.shared.roster.client_addresses();
            self.events.push(Event::ClientAddresses(addresses));
        }
        for event in self.events.drain(..) {
            self.shard.on_event(now, event);
        }
        self.shard.turn(now, &mut self.fx);
        if let Some(why) = self.fx.fatal.take() {
            self.stopped_by_machine = true;
            return Err(Fatal::new(format!("core {} ends: {why}", self.parts.core)));
        }
        self.shard.mark(now, Mark::Decided, clock.micros());
        self.perform(now);
        let ended = clock.micros();
        self.shard.mark(now, Mark::Replied, ended);
        let (commits, legs) = self.shard.explained();
        self.metrics.explainer.count(commits, legs);
        for leg in self.shard.forward_legs() {
            self.metrics.forwards.record_us(leg.us.into(), 1);
        }
        self.metrics.turn.record_us(ended.since(started).into(), 1);
        Ok(())
    }

    fn gate(&self) -> Gate {
        match self.parts.shared.loading.load(Ordering::Relaxed) {
            0 if self.parts.shared.roster.is_proven() => Gate::Open,
            0 => Gate::Probation,
            _ => Gate::Loading,
        }
    }

    /// A turn of a node whose directory is new: it greets and is greeted, and does nothing else. Its
    /// groups hear nothing, not even the time, until enough peers know it (see `wire::hello`).
    fn ask_to_take_part(&mut self, now: Tick) -> Result<(), Fatal> {
        let gate = self.gate();
        let parts = &mut self.parts;
        // Raft sends again. Nothing else can have come.
        self.events.retain(|event| matches!(event, Event::SpareReady(_) | Event::LogFull(_)));
        for event in self.events.drain(..) {
            self.shard.on_event(now, event);
        }
        let mut none = Vec::new();
        parts.links.flush(now, &parts.poller, &mut none);
        let flushed = parts.clients.flush(gate, &mut parts.ring, &parts.poller, &mut none);
        flushed.map_err(|error| parts.broken("answer its clients", &error))?;
        if let Some(peer) = parts.links.stranger_to() {
            let node = parts.shared.roster.node;
            return Err(Fatal::new(format!(
                "node {node} has been in this cluster with another directory, which is lost: node \
                 {peer} knows it. What it voted and acknowledged was in there, so it must not come \
                 back as it was. Take the old one out (outrigger ctl member remove {node}), and add \
                 this one under an --id that was never used"
            )));
        }
        let known = parts.shared.roster.known();
        let greeted = known.iter().filter(|node| parts.links.greeted().contains(node)).count();
        if !self.proving && parts.shared.roster.greetings_needed() <= greeted {
            self.proving = parts.port.keep(Fact::Proven);
        }
        Ok(())
    }

    /// Everything that is ready now becomes an event.
    fn gather(&mut self, now: Tick) -> Result<(), Fatal> {
        let gate = self.gate();
        let parts = &mut self.parts;
        if parts.ring.is_rung() {
            parts.poller.poll(&mut self.ready).map_err(|error| {
                Fatal::new(format!("core {} cannot poll its sockets: {error}", parts.core))
            })?;
        }
        parts.clients.on_arrivals(gate, &mut parts.ring, &mut self.events);
        for ready in self.ready.drain(..) {
            match Token::from_number(ready.token) {
                Some(Token::Bell) => parts.shared.mailboxes[parts.core.0 as usize].silence(),
                Some(Token::ClientPort) => {
                    parts.clients.accept(now, &mut parts.ring, &parts.poller);
                }
                Some(Token::PeerPort) => parts.port.accept(now, &parts.poller),
                Some(Token::Client(key)) => {
                    parts.clients.on_ready(key, ready, gate, &mut parts.ring, &mut self.events);
                }
                Some(Token::Link(index)) => {
                    parts.links.on_ready(index, ready, now, &parts.poller);
                }
                Some(Token::Peer(key)) => {
                    let greeted = parts.port.on_ready(key, now, &parts.poller, &mut self.events);
                    if let Some((core, greeted)) = greeted {
                        parts.seat(core, greeted, &mut self.events);
                    }
                }
                None => debug_assert!(false, "a token nobody gave out: {}", ready.token),
            }
        }
        parts.clients.tick(parts.core, now, &mut parts.ring);
        parts.port.tick(now);
        parts.links.tick(now, &parts.poller);
        // Here, where a node that takes no part yet comes by, too.
        let refusals = parts.clients.take_refusals();
        let counters = self.shard.counters_mut();
        counters.auth_failures += refusals.wrong_passwords;
        counters.tls_handshake_failures += refusals.failed_handshakes;
        counters.connections_refused += refusals.too_many;
        counters.slow_readers_closed += refusals.slow_readers;
        counters.acl_denied_commands += refusals.forbidden_commands;
        counters.acl_denied_keys += refusals.forbidden_keys;
        counters.peers_refused += parts.port.take_refused();
        let mut mail = std::mem::take(&mut self.mail);
        parts.shared.mailboxes[parts.core.0 as usize].take(&mut mail);
        let opened = mail.drain(..).try_for_each(|letter| self.open(letter, now));
        self.mail = mail;
        opened
    }

    fn open(&mut self, letter: Mail, now: Tick) -> Result<(), Fatal> {
        match letter {
            Mail::Post(post) => self.events.push(Event::Post(post)),
            Mail::Made(Made::Ready(seq, origin)) => {
                let counters = self.shard.counters_mut();
                match origin {
                    Origin::Zeros | Origin::Reserved => counters.segments_made += 1,
                    Origin::Retired => counters.segments_recycled += 1,
                }
                self.parts.writer.open_ahead(seq);
                self.events.push(Event::SpareReady(seq));
            }
            Mail::Made(Made::Full(full)) => self.events.push(Event::LogFull(full)),
            Mail::Made(Made::Failed(cause)) | Mail::Read(Answer::Failed(cause)) => {
                return Err(Fatal::new(cause));
            }
            Mail::Read(Answer::Done(done)) => {
                if done.read.replica == ReplicaId::NONE {
                    self.parts.window.on_read(&done);
                }
                self.events.push(Event::LogRead(done));
            }
            Mail::Call(asked, what) => self.take_call(asked, what),
            Mail::Tail(cursor) => self.parts.window.open(cursor),
            Mail::Peer(greeted) => {
                let parts = &mut self.parts;
                parts.port.adopt(greeted, &parts.poller, &mut self.events);
            }
            Mail::Kept(kept) => match kept? {
                Fact::Known(node, known) => {
                    let parts = &mut self.parts;
                    for (core, greeted) in parts.port.on_known(node, known, now, &parts.poller) {
                        parts.seat(core, greeted, &mut self.events);
                    }
                }
                Fact::Proven => {
                    tracing::info!("enough peers know this node: it takes part from now on");
                    self.parts.shared.roster.prove();
                    for mailbox in &self.parts.shared.mailboxes {
                        mailbox.nudge();
                    }
                }
            },
            Mail::Tell(question) => question.answer(CoreReport {
                shard: self.shard.report(false),
                flushes: self.parts.writer.durations().clone(),
                turns: self.metrics.turn.clone(),
                forwards: self.metrics.forwards.clone(),
                explained: self.metrics.explainer.all().clone(),
                draining: self.shard.is_draining(),
            }),
            Mail::Stop => {
                self.parts.shared.pulse.stop();
                let ShardLoop { clients, ring, poller, .. } = &mut self.parts;
                clients.stop(ring, poller);
                if self.stop_at.is_none() {
                    let checkpoint_ms = self.parts.checkpoint_ms;
                    self.stop_at = Some(now.plus(STOP_MS.max(checkpoint_ms)));
                    self.shard.hand_over(now.plus(HAND_OVER_MS));
                    if 0 < checkpoint_ms {
                        self.shard.checkpoint();
                        self.checkpoint_until = Some(now.plus(checkpoint_ms));
                    }
                }
            }
        }
        Ok(())
    }

    /// Somebody in this process asks.
    fn take_call(&mut self, asked: Asked, what: What) {
        if self.stop_at.is_some() {
            return asked.refuse(Why::Stopped);
        }
        if self.gate() != Gate::Open {
            return asked.refuse(Why::Loading);
        }
        let seq = self.calls.begin(asked);
        self.events.push(match what {
            What::Group(command) => Event::Call(Call { seq, command }),
            What::Command(command) => {
                let (conn, manner) = (ConnId::EMBEDDER, Manner::default());
                Event::Request(Request { conn, seq, command, after_writes: false, manner })
            }
        });
    }

    /// Do what the shard asked for. The disk comes first: its work takes longest.
    fn perform(&mut self, now: Tick) {
        let gate = self.gate();
        let parts = &mut self.parts;
        let fx = &mut self.fx;
        // Before anybody hears of it, here or on another core.
        if let Some(users) = fx.users.take() {
            parts.shared.roll.publish(users);
        }
        let clock = parts.shared.clock;
        let (writes, sends) = (!fx.writes.is_empty(), !fx.frames.is_empty());
        for write in fx.writes.drain(..) {
            if let Some(write) = parts.writer.start(write, &mut parts.ring) {
                self.shard.reuse_write(write);
            }
        }
        if writes {
            self.shard.mark(now, Mark::Written, clock.micros());
        }
        let mut paused = 0;
        if let Some(faults) = &parts.shared.faults {
            paused = faults.drop_sent(now, &mut fx.frames, &mut self.events);
        }
        for (node, frame) in fx.frames.drain(..) {
            parts.links.push(node, frame);
        }
        for change in fx.peers.drain(..) {
            parts.shared.roster.change(parts.core, change);
        }
        parts.links.flush(now, &parts.poller, &mut self.events);
        if sends {
            self.shard.mark(now, Mark::Sent, clock.micros());
        }
        parts.links.take_spent(|frame| self.shard.reuse_frame(frame));
        // Frames first: a follower's write and its answer take longer than our own write. If nothing else
        // is to be done, the sleep that follows submits it.
        if !(fx.posts.is_empty() && fx.replies.is_empty())
            && let Err(error) = parts.ring.submit()
        {
            parts.inbox.fail(parts.broken("start its writes", &error));
        }
        for (core, post) in fx.posts.drain(..) {
            let mailbox = &parts.shared.mailboxes[core.0 as usize];
            self.events.extend(post_to(mailbox, post));
        }
        // Before the replies: who has heard of a write finds it in the status of its group.
        parts.window.turn(self.shard.settled(), self.shard.replicas(), &fx.roles);
        parts.window.wanted(|group, first| {
            self.shard.read_log(group, first).map(|read| parts.reader.read(read))
        });
        for reply in fx.replies.drain(..) {
            if reply.conn == ConnId::EMBEDDER {
                self.calls.reply(reply.seq, reply.reply);
            } else {
                parts.clients.reply(reply);
            }
        }
        let flushed = parts.clients.flush(gate, &mut parts.ring, &parts.poller, &mut self.events);
        if let Err(error) = flushed {
            parts.inbox.fail(parts.broken("answer its clients", &error));
        }
        for read in fx.log_reads.drain(..) {
            parts.reader.read(read);
        }
        if let Some(seq) = fx.spare.take() {
            parts.preparer.want(seq);
        }
        if let Some(first) = fx.reclaim.take() {
            parts.reader.forget_before(first);
            parts.preparer.reclaim(first);
        }
        for (group, event) in fx.roles.drain(..) {
            tracing::debug!(core = parts.core.0, group = group.0, ?event, "role");
        }
        for damage in fx.damaged.drain(..) {
            tracing::warn!(
                core = parts.core.0,
                "{damage}; followers get snapshots instead, and the segment leaves the log",
            );
        }
        if std::mem::take(&mut fx.slow_disk) {
            tracing::warn!(
                core = parts.core.0,
                "a quorum's disks have been faster than this core's for {} s: what it leads is handed over",
                crate::limits::SLOW_DISK_MS / 1000,
            );
        }
        for (group, reason) in fx.failed.drain(..) {
            if !self.failed.contains(&group) {
                self.failed.push(group);
                tracing::error!(
                    core = parts.core.0,
                    group = group.0,
                    reason,
                    "this replica has stopped"
                );
            }
        }
        if std::mem::take(&mut fx.stop) {
            tracing::info!("the node is drained and stops");
            for mailbox in &parts.shared.mailboxes {
                mailbox.deliver(Mail::Stop);
            }
        }
        let counters = self.shard.counters_mut();
        let lost = parts.links.take_dropped();
        counters.frames_dropped += lost.frames + paused;
        counters.heartbeat_send_failures += lost.heartbeats;
        counters.frames_rejected += parts.port.take_rejected();
        counters.connections = parts.clients.len() as u64;
        counters.unread_bytes = parts.clients.unread_bytes() as u64;
        counters.flushes_slow += parts.writer.take_slow();
        counters.peers_silent += parts.port.take_silent();
        for (node, exceeded_ms) in fx.late_beats.drain(..) {
            if 1000 <= now.since(self.beats_told) {
                self.beats_told = now;
                tracing::warn!(
                    core = parts.core.0,
                    node = node.0,
                    exceeded_ms,
                    "heartbeats left late: the machine is overloaded or the core was held up",
                );
            }
        }
        if REPORT_MS <= now.since(self.reported) {
            self.reported = now;
            let is_first = parts.core == ShardId(0);
            let Metrics {
                turn,
                turns_before,
                flushes_before,
                forwards,
                forwards_before,
                explainer,
            } = &mut self.metrics;
            let flushes = parts.writer.durations();
            *self.shard.driver_mut() = DriverReport {
                flushes: flushes.since(flushes_before.earlier(now, flushes)).spread(),
                turns: turn.since(turns_before.earlier(now, turn)).spread(),
                forwards: forwards.since(forwards_before.earlier(now, forwards)).spread(),
                commits: explainer.lately(now),
                links: parts.links.report(),
                flush_method: parts.writer.method().name(),
                receive_method: parts.ring.receive_method(),
                routing: parts.clients.routing(),
                resident_bytes: if is_first { process::resident_bytes() } else { 0 },
            };
        }
    }

    /// The loop sleeps 5 ms at most; a turn that starts much later means that this core was
    /// held up, by its own turn, by a lost wake-up, or by the machine.
    fn note_lateness(&mut self, now: Tick) {
        let gap_ms = now.since(self.last_turn);
        self.last_turn = now;
        if LATE_MS < gap_ms {
            self.late += 1;
            self.shard.counters_mut().late_turns += 1;
            if 1000 <= now.since(self.late_told) {
                tracing::warn!(
                    core = self.parts.core.0,
                    gap_ms,
                    turns = self.late,
                    "a turn started late: the machine is overloaded or the core was held up",
                );
                self.late_told = now;
                self.late = 0;
            }
        }
    }

    fn may_stop(&self, deadline: Tick) -> bool {
        let handing_over = self.shard.is_draining() && self.parts.shared.roster.is_proven();
        let now = self.parts.shared.clock.now();
        let checkpointing =
            self.shard.is_checkpointing() && self.checkpoint_until.is_some_and(|until| now < until);
        let idle = self.shard.is_idle() && self.parts.writer.in_flight() == 0;
        (idle && !handing_over && !checkpointing) || deadline <= now
    }

    /// Waits for the writes in flight, for a while.
    async fn finish_writes(&mut self) -> Result<(), Fatal> {
        let started = Instant::now();
        while 0 < self.parts.writer.in_flight()
            && started.elapsed() < Duration::from_millis(STOP_MS)
        {
            self.sleep(TICK)?;
            glommio::timer::sleep(TASKS).await;
            self.reap();
            // Nobody is read from any more.
            self.parts.ring.take_arrivals(&mut Vec::new());
        }
        Ok(())
    }

    /// The clean end, in order: nothing new comes in, the log proves itself whole, files close.
    async fn stop(mut self) -> Result<(), Fatal> {
        self.parts.links.close();
        self.parts.port.close();
        if self.parts.writer.in_flight() == 0
            && let Some(write) = self.shard.closing_write()
        {
            self.parts.writer.start(write, &mut self.parts.ring);
        }
        self.finish_writes().await?;
        let writer = &self.parts.writer;
        if let Some(fatal) = self.parts.inbox.fatal() {
            return Err(fatal);
        }
        writer.close().await;
        // The note of where the log begins now, above all.
        self.parts.preparer.finish();
        tracing::info!(
            core = self.parts.core.0,
            checkpointed = self.checkpoint_until.is_some() && !self.shard.is_checkpointing(),
            log_bytes = self.shard.log_bytes(),
            flushes = %writer.durations().summary(),
            turns = %self.metrics.turn.summary(),
            "core stopped",
        );
        Ok(())
    }
}

/// Put a post into a sibling's mailbox. If there is no room for new work, the shard that sent it
/// hears so.
fn post_to(mailbox: &Mailbox<Mail>, post: Post) -> Option<Event> {
    if !post.may_be_refused() {
        mailbox.deliver(Mail::Post(post));
        return None;
    }
    match mailbox.offer(Mail::Post(post)) {
        Err(Mail::Post(post)) => Some(Event::Undelivered(post)),
        Err(_) | Ok(()) => None,
    }
}
