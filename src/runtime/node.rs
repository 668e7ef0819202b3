//! One process: its ports, its cores, its end.
//!
//! ```text
//!  main thread: bind ports once ─► start cores ─► wait ─► first Fatal, or all cores stopped
//!                                      │            ▲
//!      core-0 … core-N: glommio executor, one each ─┘ an End message each, panics included
//!      prep-N: makes log segments      read-N: reads sealed ones
//! ```

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use crate::config::FlushMethod;
use crate::id::{ClusterId, GroupId, Incarnation, NodeId, ShardId};
use crate::limits::{FLUSH_JOINS_BYTES, MAILBOX_MAX};
use crate::shard;
use crate::store::StateMachine;
use crate::store::connection::{ReadFrom, Routing, Settings};

use super::admin::AdminPort;
use super::client::{self, Client};
use super::clock::Clock;
use super::fatal::Fatal;
use super::faults::Faults;
use super::identity::{Keeper, Known};
use super::inbox::Inbox;
use super::keyring::Keyring;
use super::listener::Clients;
use super::mailbox::Mailbox;
use super::peer_link::PeerLinks;
use super::peer_port::{Memory, PeerPort};
use super::poller::Poller;
use super::pulse::Pulse;
use super::recovery::Recovery;
use super::ring::Ring;
use super::roster::{Card, Roster};
use super::segments::{Directory, Preparer};
use super::shard_loop::{Mail, ShardLoop, Shared};
use super::sleep::Sleeper;
use super::socket;
use super::visitors::Visitors;
use super::wal_reader::WalReader;
use super::wal_writer::WalWriter;
use super::watch::{Board, Window};

/// glommio must never preempt: its preemption timer is what makes it lose wake-ups (docs/decisions/0003-glommio-fenced.md).
pub(super) const PREEMPT: Duration = Duration::from_secs(3600);

/// What a node must be told, checked and complete. Data only.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Which start of its directory this is.
    pub incarnation: Incarnation,
    /// Its directory; the log of core N is in `core-N`.
    pub dir: PathBuf,
    /// Where clients connect, if they may.
    pub client: Option<SocketAddr>,
    /// Where clients are told to connect, if that is not where the node listens.
    pub advertise_client: Option<SocketAddr>,
    /// Which commands for other nodes are redirected.
    pub routing: Routing,
    /// Who answers reads.
    pub read_from: ReadFrom,
    /// Where peers connect.
    pub peer: SocketAddr,
    /// Where operators connect, if anywhere.
    pub admin: Option<SocketAddr>,
    /// Where the others reach this node.
    pub address: SocketAddr,
    /// Where the operator says that the others are.
    pub seeds: Vec<(NodeId, SocketAddr)>,
    /// The members that every group began with; none if this node joined later.
    pub bootstrap: Vec<(NodeId, SocketAddr)>,
    /// See [`super::identity::Home::birth`].
    pub birth: u64,
    /// See [`super::identity::Home::origin`].
    pub origin: u64,
    /// Whether the directory takes part from the start.
    pub proven: bool,
    /// Cores to use. At least 1.
    pub cores: u16,
    /// Raft groups of the whole cluster. At least 1.
    pub groups: u64,
    /// See [`shard::Config::election_ms`].
    pub election_ms: u64,
    /// See [`shard::Config::heartbeat_ms`].
    pub heartbeat_ms: u64,
    /// Whether clients may switch faults on (see [`super::faults`]).
    pub fault_commands: bool,
    /// See [`shard::Config::priority`].
    pub priority: u8,
    /// See [`shard::Config::request_ms`].
    pub request_ms: u64,
    /// See [`shard::Config::flushes_in_flight`].
    pub flushes_in_flight: usize,
    /// How log writes are made durable.
    pub flush_method: FlushMethod,
    /// Entries kept in memory per core, in bytes.
    pub log_cache_bytes: usize,
    /// See [`shard::Config::leases`].
    pub leases: shard::Leases,
    /// See [`shard::Config::log_bytes`].
    pub log_bytes: u64,
    /// See [`shard::Config::snapshot_bytes_per_s`].
    pub snapshot_bytes_per_s: u64,
    /// How long a clean stop may take to write snapshots for the next start, in ms; 0 is not at all.
    pub checkpoint_ms: u64,
    /// See [`crate::config::Config::slowlog_us`].
    pub slowlog_us: u64,
    /// Log segments of one core on disk, in bytes; past it writes are refused.
    pub wal_bytes_max: u64,
    /// Clients that may be connected at once.
    pub connections_max: usize,
    /// See [`crate::config::Config::client_idle_s`].
    pub client_idle_s: u64,
    /// What clients and peers are met with.
    pub keyring: Arc<Keyring>,
    /// Busy-wait this long before sleeping: about 10 µs less latency for a core's worth of CPU.
    pub spin: Duration,
}

/// How one core ended.
struct End {
    core: ShardId,
    result: Result<(), Fatal>,
}

/// Makes the empty machine of a group, on the core that the group lives on: the same one at every start.
pub type Machines = Arc<dyn Fn(GroupId) -> Box<dyn StateMachine> + Send + Sync>;

/// A running node. When it is dropped its admin port closes, and its cores are told to stop and not waited for.
///
/// It is `Send` but not `Sync`: one thread waits for its end. Others have a [`Client`] and a [`Stopper`], which are both.
#[derive(Debug)]
pub struct Node {
    mailboxes: Vec<Arc<Mailbox<Mail>>>,
    ends: mpsc::Receiver<End>,
    /// Why the first core to fail did.
    cause: OnceCell<Fatal>,
    port: Option<SocketAddr>,
    admin: Option<AdminPort>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) client: Client,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stopper().stop();
    }
}

/// Stops a node from another thread; may be cloned and used twice.
///
/// ```no_run
/// # fn with(node: outrigger::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let stopper = node.stopper();
/// let waits = std::thread::spawn(move || node.join());
/// stopper.stop();
/// waits.join().expect("it does not panic")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Stopper {
    mailboxes: Vec<Arc<Mailbox<Mail>>>,
}

impl Stopper {
    /// Stop cleanly: no new clients, snapshots for the next start, writes in flight end, files close. At
    /// most about 10 s, or 5 s more than [`Setup::checkpoint_ms`].
    pub fn stop(&self) {
        for mailbox in &self.mailboxes {
            mailbox.deliver(Mail::Stop);
        }
    }
}

impl Node {
    /// Bind the ports and start the cores, in a directory that `lock` is of. Returns once they run; they replay
    /// their logs then, and tell clients so.
    ///
    /// # Errors
    /// When a port is taken or a thread cannot be started; names which.
    pub(super) fn begin(
        setup: Setup,
        machines: Machines,
        known: BTreeMap<NodeId, Known>,
        keeper: Keeper,
        lock: Arc<File>,
    ) -> Result<Self, Fatal> {
        let clients = setup.client.map(|address| bind("client", address)).transpose()?;
        let peers = bind("peer", setup.peer)?;
        let admin = setup.admin.map(|address| bind("admin", address)).transpose()?;
        let bound = clients.as_ref().and_then(|clients| clients.local_addr().ok());
        let port = bound.or(setup.client);
        let failed = |error: std::io::Error| Fatal::new(format!("cannot start the node: {error}"));
        let cores = usize::from(setup.cores);
        let mailboxes = (0..cores)
            .map(|_| Mailbox::new(MAILBOX_MAX).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let card = Card {
            cluster: setup.cluster,
            node: setup.node,
            incarnation: setup.incarnation,
            cores: setup.cores,
            groups: setup.groups,
            birth: setup.birth,
            origin: setup.origin,
            address: setup.address,
            client: port
                .and_then(|port| setup.advertise_client.or_else(|| reachable(port, setup.address))),
            proven: setup.proven,
        };
        let roster = Arc::new(Roster::new(card, setup.seeds.iter().copied()));
        let clock = Clock::start();
        let faults = setup.fault_commands.then(|| Arc::new(Faults::new(clock)));
        if faults.is_some() {
            tracing::warn!("--fault-commands: every client may make this node fail");
        }
        let board = Arc::new(Board::new(setup.groups, setup.cores));
        let shared = Shared {
            mailboxes: mailboxes.clone(),
            loading: Arc::new(AtomicUsize::new(cores)),
            roster: Arc::clone(&roster),
            roll: Arc::default(),
            clock,
            faults,
            pulse: Arc::new(Pulse::new(setup.cores, clock.now())),
        };
        let admin = admin
            .map(|listener| AdminPort::start(listener, shared.clone(), Arc::clone(&setup.keyring)));
        let admin = admin.transpose().map_err(failed)?;
        let open = Arc::new(AtomicUsize::new(0));
        let visitors = Arc::new(Visitors::new(clock));
        let first = Arc::clone(&mailboxes[0]);
        let keeper = keeper.start(move |kept| first.deliver(Mail::Kept(kept))).map_err(failed)?;
        let mut memory = Some(Memory { known, keeper });
        let client = Client::new(client::Inner {
            mailboxes: mailboxes.clone(),
            desks: (0..cores).map(|_| Arc::default()).collect(),
            board: Arc::clone(&board),
            loading: Arc::clone(&shared.loading),
            node: setup.node,
            incarnation: setup.incarnation,
            sessions: AtomicU64::new(1),
        });
        let (tell, ends) = mpsc::channel();
        let keyring = Arc::clone(&setup.keyring);
        let cause = OnceCell::new();
        let node = Self { mailboxes, ends, cause, port, admin, keyring, client };
        let setup = Arc::new(setup);
        let mut peers = Some(peers);
        for core in (0..setup.cores).map(ShardId) {
            let seat = Seat {
                core,
                setup: Arc::clone(&setup),
                shared: shared.clone(),
                memory: memory.take(),
                open: Arc::clone(&open),
                visitors: Arc::clone(&visitors),
                clients: clients
                    .as_ref()
                    .map(TcpListener::try_clone)
                    .transpose()
                    .map_err(failed)?,
                peers: peers.take(),
                machines: Arc::clone(&machines),
                board: Arc::clone(&board),
                lock: Arc::clone(&lock),
            };
            start_core(seat, tell.clone())?;
        }
        Ok(node)
    }

    /// Where clients of the Redis protocol connect, if they may; tells the port when port 0 was asked for.
    #[must_use]
    pub fn client_port(&self) -> Option<SocketAddr> {
        self.port
    }

    /// Where operators connect, if anywhere; tells the port when port 0 was asked for.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminPort::address)
    }

    /// A way to stop it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper { mailboxes: self.mailboxes.clone() }
    }

    /// Wait for the end: somebody else stops the node ([`Self::stopper`]), or it has to stop itself.
    ///
    /// # Errors
    /// The first core's reason to stop, each time it is asked. The other cores may still run, and are told to stop as the
    /// node is dropped.
    ///
    /// ```no_run
    /// # fn with(node: outrigger::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// let stopper = node.stopper();
    /// std::thread::spawn(move || {
    ///     let _ = std::io::stdin().read_line(&mut String::new());
    ///     stopper.stop(); // from any thread, as often as anybody likes
    /// });
    /// node.join()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(&self) -> Result<(), Fatal> {
        while self.cause.get().is_none() && self.next_end() {}
        self.cause()
    }

    /// Waits for the next core to end; false after the last. Every core holds a sender until it has sent.
    pub(super) fn next_end(&self) -> bool {
        let Ok(End { core, result }) = self.ends.recv() else { return false };
        tracing::debug!(core = core.0, ?result, "core ended");
        if let Err(cause) = result {
            self.cause.get_or_init(|| cause);
        }
        true
    }

    /// Why the first core to fail did, of those whose end was waited for.
    pub(super) fn cause(&self) -> Result<(), Fatal> {
        self.cause.get().map_or(Ok(()), |cause| Err(cause.clone()))
    }
}

/// What one core is built from, on its way to its thread.
struct Seat {
    core: ShardId,
    setup: Arc<Setup>,
    shared: Shared,
    memory: Option<Memory>,
    open: Arc<AtomicUsize>,
    visitors: Arc<Visitors>,
    clients: Option<TcpListener>,
    peers: Option<TcpListener>,
    machines: Machines,
    board: Arc<Board>,
    lock: Arc<File>,
}

fn start_core(seat: Seat, tell: mpsc::Sender<End>) -> Result<(), Fatal> {
    let core = seat.core;
    // Cores are not pinned: several nodes on one machine would all be pinned to its first cores.
    let builder = LocalExecutorBuilder::new(Placement::Unbound)
        .name(&format!("core-{core}"))
        .preempt_timer(PREEMPT);
    let started = builder.spawn(move || async move {
        let (mailbox, board) = (seat.mailbox(), Arc::clone(&seat.board));
        let mut farewell = Farewell { core, tell, result: None, mailbox, board };
        // Let go of before the end is told: whoever hears of it may start the node again.
        let _lock = Arc::clone(&seat.lock);
        let result = match seat.build() {
            Ok((parts, recovery)) => parts.run(recovery).await,
            Err(fatal) => Err(fatal),
        };
        farewell.result = Some(result);
    });
    match started {
        Ok(_) => Ok(()),
        Err(error) => Err(Fatal::new(format!(
            "cannot start core {core} on io_uring: {error}; check that io_uring is allowed and \
             that memlock is at least 512 KiB per core (ulimit -l)"
        ))),
    }
}

/// Tells the main thread how a core ended, whichever way it ended.
struct Farewell {
    core: ShardId,
    tell: mpsc::Sender<End>,
    result: Option<Result<(), Fatal>>,
    mailbox: Arc<Mailbox<Mail>>,
    board: Arc<Board>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let core = self.core;
        // First: whoever hears that the core has ended, and looks, sees that it leads nothing.
        self.board.core_ended(core);
        // Calls that nobody took are answered here, by being dropped; those that were taken went with the loop.
        drop(self.mailbox.close());
        let result = self.result.take().unwrap_or_else(|| {
            Err(Fatal::new(format!("core {core} panicked; this is a bug, its report is above")))
        });
        // Nobody listens any more when another core's end has ended the process.
        let _ = self.tell.send(End { core, result });
    }
}

impl Seat {
    fn mailbox(&self) -> Arc<Mailbox<Mail>> {
        Arc::clone(&self.shared.mailboxes[usize::from(self.core.0)])
    }

    /// Build everything that lives on this core. Runs on its thread, inside its executor.
    fn build(self) -> Result<(ShardLoop, Recovery), Fatal> {
        let mailbox = self.mailbox();
        let Self { core, setup, shared, memory, open, clients, peers, machines, board, .. } = self;
        let visitors = self.visitors;
        let settings = Settings {
            idle_s: setup.client_idle_s,
            clients_max: setup.connections_max,
            slowlog_us: setup.slowlog_us,
        };
        let roster = Arc::clone(&shared.roster);
        let path = setup.dir.join(format!("core-{core}"));
        let directory = Directory::open(path.clone()).map_err(|error| {
            Fatal::new(format!("cannot use the log directory {}: {error}", path.display()))
        })?;
        let config = shard_config(&setup, core);
        let recovery = Recovery::begin_with(directory.clone(), config, &*machines)?;
        let failed =
            |error: std::io::Error| Fatal::new(format!("cannot start core {core}: {error}"));
        let poller = Poller::new().map_err(failed)?;
        let ring = Ring::new(&poller, setup.spin).map_err(failed)?.with_sockets();
        let inbox = Rc::new(Inbox::default());
        let (made, read) = (Arc::clone(&mailbox), Arc::clone(&mailbox));
        let parts = ShardLoop {
            core,
            sleeper: Sleeper::new(&poller, mailbox).map_err(failed)?,
            clients: Clients::new(clients, open, setup.connections_max, &poller)
                .map_err(failed)?
                .with_faults(shared.faults.clone())
                .with_routing(setup.routing, setup.read_from)
                .with_keyring(Arc::clone(&setup.keyring))
                .with_roll(Arc::clone(&shared.roll))
                .with_visitors(visitors, core)
                .with_settings(settings),
            ring,
            links: PeerLinks::new(Arc::clone(&roster), core)
                .with_keyring(Arc::clone(&setup.keyring)),
            port: PeerPort::new(roster, core, peers, memory, &poller)
                .map_err(failed)?
                .with_keyring(Arc::clone(&setup.keyring)),
            writer: WalWriter::new(
                directory.clone(),
                setup.flush_method,
                Rc::clone(&inbox),
                shared.faults.clone(),
            ),
            preparer: Preparer::start(
                format!("prep-{core}"),
                directory.clone(),
                setup.wal_bytes_max,
                move |outcome| made.deliver(Mail::Made(outcome)),
            )
            .map_err(failed)?,
            reader: WalReader::start(format!("read-{core}"), directory, move |answer| {
                read.deliver(Mail::Read(answer));
            })
            .map_err(failed)?,
            checkpoint_ms: setup.checkpoint_ms,
            slowlog_us: setup.slowlog_us,
            window: Window::new(board),
            inbox,
            poller,
            shared,
        };
        Ok((parts, recovery))
    }
}

fn shard_config(setup: &Setup, core: ShardId) -> shard::Config {
    shard::Config {
        cluster: setup.cluster,
        node: setup.node,
        incarnation: setup.incarnation,
        shard: core,
        cores: setup.cores,
        groups: setup.groups,
        nodes: setup.bootstrap.iter().map(|(node, _)| *node).collect(),
        addresses: setup.bootstrap.clone(),
        election_ms: setup.election_ms,
        heartbeat_ms: setup.heartbeat_ms,
        priority: setup.priority,
        request_ms: setup.request_ms,
        flushes_in_flight: setup.flushes_in_flight,
        flush_joins_bytes: FLUSH_JOINS_BYTES,
        log_cache_bytes: setup.log_cache_bytes,
        leases: setup.leases.clone(),
        log_bytes: setup.log_bytes,
        snapshot_bytes_per_s: setup.snapshot_bytes_per_s,
        seed: fastrand::u64(..),
    }
}

/// Where clients reach a node that listens at `client`. If that is any address of the machine, the
/// other nodes' way to it is the best guess.
fn reachable(client: SocketAddr, peer: SocketAddr) -> Option<SocketAddr> {
    let ip = if client.ip().is_unspecified() { peer.ip() } else { client.ip() };
    (!ip.is_unspecified()).then(|| SocketAddr::new(ip, client.port()))
}

fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, Fatal> {
    socket::listen(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Fatal::new(format!(
            "the {what} address {address} is in use: another process listens there; stop it or \
             choose another port"
        )),
        _ => Fatal::new(format!("cannot listen on the {what} address {address}: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_sent_where_they_can_get() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let peer = at("10.0.0.1:7379");
        assert_eq!(reachable(at("10.0.9.1:6379"), peer), Some(at("10.0.9.1:6379")));
        assert_eq!(reachable(at("0.0.0.0:6379"), peer), Some(at("10.0.0.1:6379")));
        assert_eq!(reachable(at("[::]:6379"), peer), Some(at("10.0.0.1:6379")));
        assert_eq!(reachable(at("0.0.0.0:6379"), at("0.0.0.0:7379")), None);
    }
}
