//! The world: virtual time, and the order of everything.
//!
//! ```text
//!          ┌────────────── one queue: (time, coin) → what happens ◄──────────────┐
//!          ▼                                                                     │
//!   frame · post · flush · spare · log read · request ──► inbox of a core        │
//!                                                             │                  │
//!                                      Shard::on_event … ◄── turn ──► Effects ───┘
//!                                                             │
//!                                            safety looks at every replica
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;

use crate::id::{FlushTicket, GroupId, NodeId, SegmentSeq, ShardId};
use crate::planted::{Planted, planted};
use crate::raft::effects::RoleKind;
use crate::shard::event::{Event, LogRead, Post, Request};

use super::clients::{Calls, Client};
use super::crash_points::CrashPoint;
use super::disk::Left;
use super::embed::Check;
use super::embedded::Embedded;
use super::history::History;
use super::ledger::Ledger;
use super::nemesis::Kind;
use super::net::{Net, Path};
use super::node::Node;
use super::options::Options;
use super::outcome::{Failure, Outcome};
use super::perform::{Effect, Link};
use super::queue::Queue;
use super::safety::{Checked, Safety};
use super::strikes::Strikes;
use super::trace::Trace;
use super::workload::Workload;

/// Turns between two looks at all replicas of a core, touched or not.
const LOOK_EVERYWHERE: u64 = 256;
/// How soon a core that is held asks again whether it still is, in microseconds.
const HELD_US: u64 = 10_000;

/// A frame on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) path: Path,
    /// The sender's life when it was sent.
    pub(super) from_life: u64,
    /// The receiver's.
    pub(super) to_life: u64,
    /// How often the link had broken when it was sent.
    pub(super) generation: u64,
    pub(super) corrupt: bool,
    /// When it arrives once more.
    pub(super) again: Option<u64>,
    pub(super) bytes: Bytes,
}

/// Something for one process; void when that process is gone.
#[derive(Debug)]
pub(super) enum ForNode {
    Turn {
        core: usize,
    },
    /// The driver's timer of a core goes off.
    Wake {
        core: usize,
    },
    Post {
        core: usize,
        post: Post,
    },
    Undelivered {
        core: usize,
        post: Post,
    },
    Flushed {
        core: usize,
        ticket: FlushTicket,
        early: bool,
    },
    /// A write failed, and so much of it is left.
    WriteFailed {
        core: usize,
        ticket: FlushTicket,
        left: Left,
    },
    /// It is told to stop, and has had time for a checkpoint.
    Stop,
    /// A sealed segment could not be read.
    ReadFailed,
    Spare {
        core: usize,
        segment: SegmentSeq,
    },
    Reclaim {
        core: usize,
        first: SegmentSeq,
    },
    Delete {
        core: usize,
    },
    LogRead {
        core: usize,
        read: LogRead,
    },
    Unreachable {
        of: NodeId,
    },
    Request {
        core: usize,
        request: Request,
    },
    DiskFull(bool),
}

/// What can happen.
#[derive(Debug)]
pub(super) enum Happening {
    Frame(Flight),
    ForNode {
        node: usize,
        life: u64,
        what: ForNode,
    },
    /// A node starts, or starts again.
    Start {
        node: usize,
    },
    /// A client thinks of something.
    Call {
        client: usize,
    },
    /// A reply reaches whoever called.
    Reply {
        call: u64,
        reply: crate::wire::reply::Reply,
    },
    /// The connection of a call is closed, by either side.
    Closed {
        call: u64,
    },
    /// A fault strikes, or an operator does something.
    Strike(Kind),
    /// Every disk is damaged.
    Everywhere,
    /// The operator goes on to replace a node.
    Replace,
    Cut(Vec<(usize, usize)>),
    Mend(Vec<(usize, usize)>),
    /// A link that flaps changes.
    Flap {
        pair: (usize, usize),
        until: u64,
        is_down: bool,
    },
}

/// One run of one seed.
#[derive(Debug)]
pub(super) struct World {
    pub(super) options: Options,
    pub(super) rng: Rng,
    /// Virtual microseconds.
    pub(super) now: u64,
    pub(super) queue: Queue<Happening>,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    /// The receiving ends of all connections.
    pub(super) links: BTreeMap<Path, Link>,
    /// The bytes of the write that is being encoded.
    pub(super) encoded: Vec<u8>,
    /// Those of the reply that was heard last.
    pub(super) heard: BytesMut,
    /// What a turn asks for; empty between turns.
    pub(super) todo: Vec<Effect>,
    pub(super) safety: Safety,
    pub(super) history: History,
    pub(super) workload: Workload,
    pub(super) clients: Vec<Client>,
    pub(super) waiting: Calls,
    /// Calls answered with a result since faults stopped.
    pub(super) acked: BTreeSet<u64>,
    /// Faults may strike and clients call.
    pub(super) is_chaos: bool,
    pub(super) trace: Trace,
    pub(super) outcome: Outcome,
    pub(super) strikes: Strikes,
    /// Writes under way that carry parts of snapshots: node, life, core, ticket.
    pub(super) snapshot_writes: BTreeSet<(usize, u64, usize, FlushTicket)>,
    /// The node whose disk may decay, or the one that took its place.
    pub(super) unlucky: Option<usize>,
    /// All disks were damaged at once.
    pub(super) is_hurt_everywhere: bool,
    /// How many sessions may be left behind in some group: who opened or closed them did not hear that all have.
    pub(super) sessions_adrift: u32,
    /// A node whose disk was replaced, and the one that takes its place, until it has.
    pub(super) replacing: Option<(usize, usize)>,
    /// A node was given up that a group may have needed for its majority.
    pub(super) may_be_too_few: bool,
    /// Groups that must stand still (`World::works_but_for_halted`).
    pub(super) halted: BTreeSet<GroupId>,
    /// The machine of an embedder, if this world is about one.
    pub(super) embedded: Option<Embedded>,
}

/// Runs one seed to the end. The same seed and options give the same outcome, trace hash included.
///
/// # Errors
/// What went wrong, with the end of its story: the run is repeated to collect it.
pub fn run(seed: u64, options: &Options) -> Result<Outcome, Box<Failure>> {
    try_once(seed, options).map_err(|first| {
        match attempt(seed, options, Trace::new(true, false), None) {
            Err(mut again) => {
                if again.what != first.what {
                    again.what = format!("{}; and then: {}", first.what, again.what);
                }
                again
            }
            Ok(_) => {
                let why = "nothing, the second time: the simulator is not deterministic";
                Box::new(Failure { what: format!("{}; and then: {why}", first.what), ..*first })
            }
        }
    })
}

/// As [`run`], without the story of a failure.
///
/// # Errors
/// What went wrong.
pub fn try_once(seed: u64, options: &Options) -> Result<Outcome, Box<Failure>> {
    attempt(seed, options, Trace::new(false, false), None)
}

/// Runs one seed and prints every line of its story as it happens, so that it is complete even if
/// the code under test panics.
///
/// # Errors
/// What went wrong.
pub fn narrate(seed: u64, options: &Options) -> Result<Outcome, Box<Failure>> {
    attempt(seed, options, Trace::new(false, true), None)
}

/// Runs one seed with an embedder's machine. What the machines did comes with the outcome.
///
/// # Errors
/// As [`run`].
pub(super) fn run_embedded(
    seed: u64,
    options: &Options,
    check: &Check,
) -> Result<(Outcome, Ledger), Box<Failure>> {
    let live = |trace| {
        let embedded = Embedded::new(check);
        let ledger = Rc::clone(&embedded.ledger);
        attempt(seed, options, trace, Some(embedded)).map(|outcome| (outcome, ledger.take()))
    };
    live(Trace::new(false, false)).map_err(|first| {
        // A machine that is not deterministic may do something else this time: what it did the first
        // time counts, and the story is of the second.
        let again = live(Trace::new(true, false)).err();
        let story = again.map_or_else(Vec::new, |again| again.story);
        Box::new(Failure { story, ..*first })
    })
}

/// One run, in which a panic of the code under test is a failure like any other.
fn attempt(
    seed: u64,
    options: &Options,
    trace: Trace,
    embedded: Option<Embedded>,
) -> Result<Outcome, Box<Failure>> {
    let mut world = World::new(seed, options.clone(), trace);
    world.embedded = embedded;
    let what = match catch_unwind(AssertUnwindSafe(|| world.live())) {
        Ok(Ok(())) => return Ok(world.outcome),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panic: {}", text.unwrap_or("without a word"))
        }
    };
    let (story, strikes) = (world.trace.lines(), std::mem::take(&mut world.strikes.struck));
    Err(Box::new(Failure { seed, what, story, strikes }))
}

impl World {
    fn new(seed: u64, options: Options, trace: Trace) -> Self {
        let workload = Workload::new(&options);
        let replacements = match options.nodes.wipe_every_ms {
            0 => &[][..],
            _ => &options.replacements,
        };
        let nodes = options.cores.iter().chain(replacements).enumerate();
        let first = options.cores.len();
        let founders = first - options.spares;
        Self {
            rng: Rng::with_seed(seed),
            now: 0,
            queue: Queue::new(),
            nodes: nodes
                .map(|(number, &cores)| Node {
                    is_there: number < first,
                    ..Node::new(number, cores, options.segment_bytes)
                })
                .collect(),
            net: Net::new(options.net.clone()),
            links: BTreeMap::new(),
            encoded: Vec::new(),
            heard: BytesMut::new(),
            todo: Vec::new(),
            safety: Safety::default(),
            history: History::new(workload.keys()),
            clients: (0..options.clients).map(|client| Client::new(client, &options)).collect(),
            waiting: Calls::default(),
            acked: BTreeSet::new(),
            is_chaos: true,
            trace,
            strikes: Strikes::default(),
            snapshot_writes: BTreeSet::new(),
            unlucky: (founders > 0).then(|| seed as usize % founders),
            is_hurt_everywhere: false,
            sessions_adrift: 0,
            replacing: None,
            may_be_too_few: false,
            halted: BTreeSet::new(),
            embedded: None,
            outcome: Outcome { seed, ..Outcome::default() },
            workload,
            options,
        }
    }

    /// Starts everything, lets faults strike, then sees whether it heals and what is left.
    fn live(&mut self) -> Checked {
        for node in 0..self.options.cores.len() {
            let at = self.rng.u64(..20_000);
            self.after(at, Happening::Start { node });
        }
        for client in 0..self.clients.len() {
            let at = 100_000 + self.rng.u64(..300_000);
            self.after(at, Happening::Call { client });
        }
        self.unleash();
        self.run_until(self.options.chaos_ms * 1_000)?;
        self.heal()?;
        self.finish()?;
        (self.outcome.faults.frames_late, self.outcome.faults.frames_early) = self.net.odd_frames();
        self.outcome.trace_hash = self.trace.hash();
        self.outcome.virtual_ms = self.now / 1_000;
        self.outcome.committed = self.safety.committed();
        Ok(())
    }

    /// Lets time pass.
    pub(super) fn run_until(&mut self, until: u64) -> Checked {
        while let Some((at, what)) = self.queue.pop(until) {
            self.now = at;
            self.happen(what)?;
        }
        self.now = until;
        Ok(())
    }

    pub(super) fn after(&mut self, delay: u64, what: Happening) {
        self.queue.push(self.now + delay, &mut self.rng, what);
    }

    pub(super) fn after_for(&mut self, delay: u64, node: usize, what: ForNode) {
        let life = self.nodes[node].life;
        self.after(delay, Happening::ForNode { node, life, what });
    }

    /// Notes what happens; `line` tells it to a reader.
    pub(super) fn note(&mut self, words: &[u64], line: impl FnOnce() -> String) {
        let now = self.now;
        self.trace.note(now, words, line);
    }

    fn happen(&mut self, what: Happening) -> Checked {
        match what {
            Happening::Frame(flight) => self.on_frame(flight),
            Happening::ForNode { node, life, what } => {
                if self.nodes[node].lives(life) {
                    self.on_node(node, what)
                } else {
                    Ok(())
                }
            }
            Happening::Start { node } => self.start(node),
            Happening::Call { client } => {
                self.on_call(client);
                Ok(())
            }
            Happening::Reply { call, reply } => self.on_reply(call, &reply),
            Happening::Closed { call } => self.on_closed(call),
            Happening::Strike(kind) => self.strike(kind),
            Happening::Everywhere => self.strike_everywhere(),
            Happening::Replace => {
                self.replace_on();
                Ok(())
            }
            Happening::Cut(pairs) => {
                self.cut(&pairs, false);
                Ok(())
            }
            Happening::Mend(pairs) => {
                self.note(&[20, pairs.len() as u64], || format!("mended {pairs:?}"));
                self.net.mend(&pairs);
                Ok(())
            }
            Happening::Flap { pair, until, is_down } => {
                self.flap(pair, until, is_down);
                Ok(())
            }
        }
    }

    pub(super) fn on_node(&mut self, node: usize, what: ForNode) -> Checked {
        match what {
            ForNode::Turn { core } => return self.turn(node, core),
            ForNode::Wake { core } => self.wake(node, core),
            ForNode::Post { core, post } => self.deliver(node, core, Event::Post(post)),
            ForNode::Undelivered { core, post } => {
                self.deliver(node, core, Event::Undelivered(post));
            }
            ForNode::Flushed { core, ticket, early } => {
                if self.dies_at(CrashPoint::WalBeforeSync) {
                    return self.crash(node);
                }
                if self.now < self.nodes[node].hangs_until[core] {
                    // It asks again, and not only at the end: the hang may be over before.
                    let delay = self.rng.u64(5_000..15_000);
                    self.after_for(delay, node, ForNode::Flushed { core, ticket, early });
                    return Ok(());
                }
                let overtakes = self.nodes[node].disks[core].overtakes(ticket);
                if early || self.nodes[node].disks[core].finish(ticket) {
                    self.outcome.faults.flushes_reordered += u64::from(overtakes && !early);
                    let snapshot = self.takes_snapshot(node, core, ticket);
                    let known = self.dies_at(CrashPoint::WalAfterSync);
                    if known || snapshot && self.dies_at(CrashPoint::AfterSaveSnap) {
                        return self.crash(node);
                    }
                    let saved = &mut self.nodes[node].cores[core].saved;
                    (saved.log, saved.snapshot) = (true, saved.snapshot || snapshot);
                    self.note(&[1, node as u64, core as u64, ticket.0], || {
                        format!("node {node} core {core} flushed {ticket}")
                    });
                    self.deliver(node, core, Event::Flushed(ticket));
                }
            }
            ForNode::Stop => self.stop(node),
            ForNode::ReadFailed => {
                self.note(&[24, node as u64], || format!("node {node} cannot read, and stops"));
                return self.crash(node);
            }
            ForNode::WriteFailed { core, ticket, left } => {
                self.nodes[node].disks[core].fail(ticket, left);
                if planted(Planted::FailedFlushRetried) {
                    self.deliver(node, core, Event::Flushed(ticket));
                    return Ok(());
                }
                self.note(&[2, node as u64], || format!("node {node} failed to write, and stops"));
                return self.crash(node);
            }
            ForNode::Spare { core, segment } => {
                if self.nodes[node].disk_full {
                    // The driver tries again for as long as it takes.
                    self.after_for(50_000, node, ForNode::Spare { core, segment });
                } else {
                    let recycles = self.options.disk.recycles;
                    let was = self.nodes[node].disks[core].prepare(segment, recycles);
                    self.outcome.recycled += u64::from(was.is_some());
                    self.deliver(node, core, Event::SpareReady(segment));
                }
            }
            ForNode::Reclaim { core, first } => {
                if planted(Planted::DeletedBeforeNoted)
                    && self.nodes[node].disks[core].remove_before(first)
                {
                    self.after_for(20_000, node, ForNode::Reclaim { core, first });
                    return Ok(());
                }
                self.nodes[node].disks[core].note_first(first);
                self.note(&[22, node as u64, core as u64, first.0], || {
                    format!("node {node} core {core} notes that its log begins with {first}")
                });
                if self.dies_at(CrashPoint::AfterWalRelease) {
                    return self.crash(node);
                }
                self.after_for(0, node, ForNode::Delete { core });
            }
            ForNode::Delete { core } => {
                // One file at a time: a crash may fall between any two.
                if let Some(segment) = self.nodes[node].disks[core].superfluous() {
                    self.nodes[node].disks[core].retire(segment);
                    self.outcome.reclaimed += 1;
                    if self.dies_at(CrashPoint::AfterWalRelease) {
                        return self.crash(node);
                    }
                    let delay = self.rng.u64(..2_000);
                    self.after_for(delay, node, ForNode::Delete { core });
                }
            }
            ForNode::LogRead { core, read } => return self.log_read(node, core, read),
            ForNode::Unreachable { of } => {
                for core in 0..self.nodes[node].cores.len() {
                    self.deliver(node, core, Event::LinkBroken(of));
                }
            }
            ForNode::Request { core, request } => {
                self.deliver(node, core, Event::Request(request));
            }
            ForNode::DiskFull(full) => {
                self.note(&[3, node as u64, full.into()], || {
                    format!("node {node} disk full: {full}")
                });
                self.nodes[node].disk_full = full;
                for core in 0..self.nodes[node].cores.len() {
                    self.deliver(node, core, Event::LogFull(full));
                }
            }
        }
        Ok(())
    }

    /// An event reaches a core; the turn that takes it comes soon, with whatever else arrives until
    /// then.
    pub(super) fn deliver(&mut self, node: usize, core: usize, event: Event) {
        self.nodes[node].cores[core].inbox.push(event);
        self.schedule_turn(node, core);
    }

    pub(super) fn schedule_turn(&mut self, node: usize, core: usize) {
        if !std::mem::replace(&mut self.nodes[node].cores[core].is_due, true) {
            let mut delay = self.rng.u64(1..100);
            let grid = self.options.turn_us;
            if grid > 0 {
                // Each process has a grid of its own.
                let phase = 7_919 * (16 * self.nodes[node].life + node as u64) % grid;
                delay += (self.now + grid - phase).next_multiple_of(grid) + phase - grid - self.now;
            }
            self.after_for(delay, node, ForNode::Turn { core });
        }
    }

    /// The clock of a node was touched: its cores look at what is due.
    pub(super) fn wake_all(&mut self, node: usize) {
        for core in 0..self.nodes[node].cores.len() {
            self.nodes[node].cores[core].wakes_at = u64::MAX;
            self.schedule_turn(node, core);
        }
    }

    /// A core's timer goes off: it takes a turn if something is due.
    fn wake(&mut self, node: usize, core: usize) {
        let now = self.nodes[node].clock.read(self.now);
        let it = &mut self.nodes[node].cores[core];
        if it.wakes_at <= self.now {
            it.wakes_at = u64::MAX;
        }
        if it.shard.deadline() <= now {
            self.schedule_turn(node, core);
        } else {
            self.set_timer(node, core);
        }
    }

    /// Sets the timer of a core for when something is due next, on the driver's coarse grid. A timer
    /// that is set already and goes off earlier is left to look again.
    pub(super) fn set_timer(&mut self, node: usize, core: usize) {
        let it = &self.nodes[node];
        let deadline = it.cores[core].shard.deadline();
        let Some(due) = it.clock.when(deadline) else { return };
        let grid = self.options.ticker_us;
        let due = due.max(self.now + 1).next_multiple_of(grid);
        if due < it.cores[core].wakes_at {
            self.nodes[node].cores[core].wakes_at = due;
            let delay = due - self.now + self.rng.u64(..100);
            self.after_for(delay, node, ForNode::Wake { core });
        }
    }

    fn turn(&mut self, node: usize, core: usize) -> Checked {
        let it = &self.nodes[node];
        let held_until = it.paused_until.max(it.cores[core].stalled_until);
        if held_until > self.now {
            // It asks again, and not only at the end: faults may stop before.
            let delay = (held_until - self.now).min(HELD_US) + self.rng.u64(..50);
            self.after_for(delay, node, ForNode::Turn { core });
            return Ok(());
        }
        let saved = std::mem::take(&mut self.nodes[node].cores[core].saved);
        if saved.snapshot && self.dies_at(CrashPoint::BeforeApplySnap) {
            return self.crash(node);
        }
        self.outcome.turns += 1;
        let now = self.nodes[node].clock.read(self.now);
        let it = &mut self.nodes[node].cores[core];
        it.is_due = false;
        let events = it.inbox.len() as u64;
        let installed = it.shard.counters_mut().snapshots_received;
        for event in it.inbox.drain(..) {
            it.shard.on_event(now, event);
        }
        it.shard.turn(now, &mut it.effects);
        let installed = it.shard.counters_mut().snapshots_received - installed;
        self.outcome.installed += installed;
        self.note(&[4, node as u64, core as u64, events], || {
            format!("node {node} core {core} turn at {now} with {events} events")
        });
        // Nothing else changed, and it is said now and then whether that is so.
        if self.outcome.turns.is_multiple_of(LOOK_EVERYWHERE) {
            self.look(node, core)?;
        } else {
            self.look_at_settled(node, core)?;
        }
        self.leases_rest_on_promises(node, core)?;
        let after_save = saved.log && self.dies_at(CrashPoint::AfterSave);
        if after_save || saved.snapshot && self.dies_at(CrashPoint::AfterApplySnap) {
            return self.crash(node);
        }
        self.perform(node, core)?;
        if self.nodes[node].is_up() {
            self.set_timer(node, core);
        }
        Ok(())
    }

    /// Every property is checked for the replicas that the last turn of a core touched.
    fn look_at_settled(&mut self, node: usize, core: usize) -> Checked {
        let Self { nodes, safety, outcome, now, embedded, .. } = self;
        let (id, it) = (nodes[node].replica(), &nodes[node].cores[core]);
        for (_, role) in &it.effects.roles {
            outcome.elections += u64::from(role.role == RoleKind::Leader && role.new_leader);
        }
        let tick = nodes[node].clock.read(*now);
        it.shard.settled().try_for_each(|replica| {
            embedded.as_mut().map_or(Ok(()), |embedded| embedded.look(id, replica))?;
            safety.look(id, replica, tick)
        })
    }

    /// Every property is checked for every replica of a core.
    pub(super) fn look(&mut self, node: usize, core: usize) -> Checked {
        let Self { nodes, safety, outcome, now, embedded, .. } = self;
        let (id, it) = (nodes[node].replica(), &nodes[node].cores[core]);
        for (_, role) in &it.effects.roles {
            outcome.elections += u64::from(role.role == RoleKind::Leader && role.new_leader);
        }
        let tick = nodes[node].clock.read(*now);
        it.shard.replicas().iter().try_for_each(|replica| {
            embedded.as_mut().map_or(Ok(()), |embedded| embedded.look(id, replica))?;
            safety.look(id, replica, tick)
        })
    }

    /// The core of `node` that a link from `core` of another node ends at.
    pub(super) fn landing(&self, node: usize, core: u16) -> usize {
        usize::from(core) % self.nodes[node].cores.len()
    }

    pub(super) fn shard_id(core: usize) -> ShardId {
        ShardId(core as u16)
    }
}
