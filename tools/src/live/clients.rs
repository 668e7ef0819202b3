//! Clients that never stop: each writes its own keys and reads them back, through any node.
//!
//! ```text
//! due ─► attempt ─► executed                          one sample
//!           ▲  │
//!           │  ├──► refused ───────► a little later ─┐
//!           │  └──► unknown, or the connection ended ┤ perhaps through another node
//!           └────────────────────────────────────────┘
//! ```
//!
//! A write that is tried again goes to the same groups, so that it waits for a group without a leader,
//! and is another entry of the ledger: the earlier one stays refused, or unknown, and is held to that in
//! the end. A read is repeated as it is; it is compared at once: its key has one writer,
//! which is this client, and no attempt on it is on its way.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::latency::{Kind, Sample};
use crate::rounds::cluster::{now, pause};
use crate::rounds::ledger::{Key, Ledger, Operation};
use crate::rounds::resp::{Client, Reply, encode};

/// After this, a request that nobody executes is given up and counts as a failure.
const GIVE_UP: Duration = Duration::from_secs(20);
/// Before a refused request is tried again.
const AGAIN_MS: std::ops::Range<u64> = 5..15;
/// After so many refusals in a row a client tries another node.
const REFUSALS_MAX: u32 = 3;
/// One request in so many is the last on its connection.
const MOVE: u32 = 200;
/// Bytes of a write that makes the log long.
pub(super) const FILLING_BYTES: usize = 128 << 10;

/// What all clients share.
pub(super) struct Load {
    started: Instant,
    /// Client address of node 1; node n has the port n - 1 above.
    first: SocketAddr,
    /// Bit n: clients may connect to node n.
    serving: AtomicU64,
    stop: AtomicBool,
    /// Large writes are made.
    fill: AtomicBool,
    /// Between two requests of one client.
    period: Duration,
    reads_percent: u32,
    samples: Mutex<Vec<Sample>>,
}

impl Load {
    pub(super) fn new(first: SocketAddr, period: Duration, reads_percent: u32) -> Self {
        Self {
            started: now(),
            first,
            serving: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            fill: AtomicBool::new(false),
            period,
            reads_percent,
            samples: Mutex::new(Vec::new()),
        }
    }

    /// Since the start of the clients.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Clients connect to these nodes from now on.
    pub(super) fn serve(&self, nodes: impl Iterator<Item = u8>) {
        let bits = nodes.fold(0, |bits, node| bits | 1 << node);
        self.serving.store(bits, Ordering::Relaxed);
    }

    pub(super) fn fill(&self, yes: bool) {
        self.fill.store(yes, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// All requests that are over by now.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples.lock().expect("no client panics").clone()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn may_serve(&self, node: u8) -> bool {
        self.serving.load(Ordering::Relaxed) & 1 << node != 0
    }

    /// One of the nodes that serve, if any does.
    fn any_node(&self, random: &mut Rng) -> Option<u8> {
        let nodes: Vec<u8> = (0..64).filter(|node| self.may_serve(*node)).collect();
        random.choice(nodes)
    }

    fn address(&self, node: u8) -> SocketAddr {
        let mut address = self.first;
        address.set_port(address.port() + u16::from(node) - 1);
        address
    }
}

/// A connection and the ledger of what was said over it.
pub(super) struct Worker<'l> {
    load: &'l Load,
    ledger: &'l mut Ledger,
    random: Rng,
    connection: Option<(u8, Client)>,
    refusals: u32,
}

/// What a request is about, from its first attempt on.
enum Task {
    Read(Key),
    Write(Operation),
}

/// How one attempt ended.
enum End {
    Executed,
    Refused,
    Unknown,
}

impl<'l> Worker<'l> {
    pub(super) fn new(load: &'l Load, ledger: &'l mut Ledger, random: Rng) -> Self {
        Self { load, ledger, random, connection: None, refusals: 0 }
    }

    /// A request every `period`, until told to stop.
    pub(super) fn run(mut self) {
        let mut due = self.load.elapsed() + self.load.period.mul_f64(self.random.f64());
        while self.wait(due) {
            let read = self.random.u32(..100) < self.load.reads_percent;
            self.request(if read { Kind::Read } else { Kind::Write }, due);
            due += self.load.period;
        }
    }

    /// Large writes while they are wanted, at most one every `period`.
    pub(super) fn fill(mut self, period: Duration) {
        let mut due = self.load.elapsed();
        while self.wait(due) {
            if self.load.fill.load(Ordering::Relaxed) {
                self.request(Kind::Filling, due);
            }
            // They are as many as the nodes take: a late one makes no other late.
            due = self.load.elapsed().max(due + period);
        }
    }

    /// False if it is time to stop.
    fn wait(&self, due: Duration) -> bool {
        loop {
            let left = due.saturating_sub(self.load.elapsed());
            if self.load.is_stopped() || left.is_zero() {
                return !self.load.is_stopped();
            }
            pause(left.min(Duration::from_millis(100)));
        }
    }

    fn request(&mut self, kind: Kind, due: Duration) {
        let mut sample = Sample {
            kind,
            due,
            took: Duration::ZERO,
            own: Duration::ZERO,
            answer: Duration::ZERO,
            refused: 0,
            unknown: 0,
            executed: false,
        };
        let mut task = None;
        let begun = self.load.elapsed();
        while !sample.executed && self.load.elapsed() < begun + GIVE_UP {
            let sent = self.load.elapsed();
            let end = self.attempt(kind, &mut task);
            sample.answer = sample.answer.max(self.load.elapsed().saturating_sub(sent));
            match end {
                End::Executed => sample.executed = true,
                End::Refused => sample.refused += 1,
                End::Unknown => sample.unknown += 1,
            }
            self.after(&end);
        }
        let ended = self.load.elapsed();
        sample.took = ended.saturating_sub(due);
        sample.own = ended.saturating_sub(begun);
        self.load.samples.lock().expect("no client panics").push(sample);
    }

    /// Where the next attempt goes, and when.
    fn after(&mut self, end: &End) {
        let moves = match end {
            End::Executed => {
                self.refusals = 0;
                self.random.u32(..MOVE) == 0
            }
            End::Refused => {
                self.refusals += 1;
                pause(Duration::from_millis(self.random.u64(AGAIN_MS)));
                self.refusals.is_multiple_of(REFUSALS_MAX)
            }
            End::Unknown => true,
        };
        if moves {
            self.connection = None;
        }
    }

    fn attempt(&mut self, kind: Kind, task: &mut Option<Task>) -> End {
        if self.connection.as_ref().is_some_and(|(node, _)| !self.load.may_serve(*node)) {
            self.connection = None;
        }
        let (node, mut client) = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let Some(node) = self.load.any_node(&mut self.random) else { return End::Refused };
                let Ok(client) = Client::connect(self.load.address(node)) else {
                    return End::Refused;
                };
                (node, client)
            }
        };
        let (ledger, random) = (&mut *self.ledger, &mut self.random);
        let next = match (task.take(), kind) {
            (Some(Task::Read(key)), _) => Task::Read(key),
            (Some(Task::Write(operation)), _) => Task::Write(ledger.issue_again(operation, node)),
            (None, Kind::Read) => Task::Read(ledger.any_key(random)),
            (None, Kind::Write) => Task::Write(ledger.issue(1, node, random)[0]),
            (None, Kind::Filling) => Task::Write(ledger.overwrite(random)),
        };
        let end = match task.insert(next) {
            Task::Read(key) => self.read(node, &mut client, *key),
            Task::Write(operation) => self.write(&mut client, *operation),
        };
        match end {
            Ok(end) => {
                self.connection = Some((node, client));
                end
            }
            // A connection that ended says nothing about a write; a read had no effect in any case.
            Err(_) if kind == Kind::Read => End::Refused,
            Err(_) => End::Unknown,
        }
    }

    fn write(&mut self, client: &mut Client, operation: Operation) -> io::Result<End> {
        let mut bytes = Vec::new();
        encode(&self.ledger.command(operation), &mut bytes);
        client.send(&bytes)?;
        let reply = client.receive()?;
        self.ledger.on_answer(operation, &reply);
        Ok(match &reply {
            Reply::Error(text) if text.starts_with("UNCERTAIN") => End::Unknown,
            Reply::Error(_) => End::Refused,
            _ => End::Executed,
        })
    }

    fn read(&mut self, node: u8, client: &mut Client, key: Key) -> io::Result<End> {
        Ok(match client.ask(&["GET", &self.ledger.name(key)])? {
            Reply::Bulk(value) => {
                self.ledger.on_look(key, node, value.as_deref());
                End::Executed
            }
            _ => End::Refused,
        })
    }
}
