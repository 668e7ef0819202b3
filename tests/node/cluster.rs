//! Nodes as child processes: started on free ports, killed by handle, never left behind.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, Door, Reply};
use crate::info::Info;
use crate::wait::{PATIENCE, wait_for, wait_until};

/// The server under test.
pub(crate) const OUTRIGGER: &str = env!("CARGO_BIN_EXE_outrigger");

/// A directory beside the build, because the system's temporary directory may be a tmpfs without
/// O_DIRECT. Removed when dropped, unless the test failed: then it is evidence.
pub(crate) struct TestDir(PathBuf);

impl TestDir {
    pub(crate) fn new(name: &str) -> TestDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("node-{}-{count}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("the target directory is writable");
        TestDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for inspection: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A free port of 127.0.0.1. From below the range of outgoing connections: a port from inside it
/// may be taken, while its node is down, by the very neighbours that keep dialling it.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().expect("nobody panics here");
    loop {
        let spread = 10_000 + (std::process::id() % 400) as u16 * 50;
        let port = next.map_or(spread, |port| if port < 32_000 { port + 1 } else { 10_000 });
        *next = Some(port);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// One node: what it was started with, and its process while it runs.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) dir: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// How its clients get in.
    pub(crate) door: Door,
    child: Option<Child>,
}

impl Node {
    /// A node that does not run yet, with the flags that every node needs and `extra` ones.
    fn new(
        id: u64,
        client: SocketAddr,
        peer: SocketAddr,
        dir: PathBuf,
        peers: &[String],
        extra: &[&str],
    ) -> Node {
        let mut arguments: Vec<String> = [
            ("--id", id.to_string()),
            ("--dir", dir.display().to_string()),
            ("--client", client.to_string()),
            ("--peer", peer.to_string()),
            ("--peers", peers.join(",")),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        arguments.extend(extra.iter().map(|&flag| flag.to_owned()));
        Node { id, client, peer, dir, arguments, door: Door::default(), child: None }
    }

    /// The command line that starts this node, for tests that expect it to be refused as well.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(OUTRIGGER);
        command.arg("serve").args(&self.arguments).stdin(Stdio::null());
        command
    }

    /// Starts the process. Its log goes to a file beside its directory.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "node {} runs already", self.id);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("log");
        let out = log.try_clone().expect("a file handle");
        let child = self.command().stdout(out).stderr(log).spawn().expect("the server starts");
        self.child = Some(child);
    }

    pub(crate) fn client(&self) -> Client {
        wait_for(&format!("a connection to {}", self.client), || {
            Client::enter(self.client, &self.door, PATIENCE).ok()
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).expect("an unreaped child can be signalled");
    }

    /// kill -9, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("an unreaped child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// SIGTERM; returns how the process ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit()
    }

    /// How the process ended, once it has.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the node runs");
        let status = wait_for("the node exits", || child.try_wait().expect("a child"));
        self.child = None;
        status
    }

    pub(crate) fn has_exited(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("a child").is_some())
    }

    /// What the node wrote since its first start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// Answers PING, and knows a leader for every group.
    fn is_ready(&self) -> bool {
        let patience = std::time::Duration::from_secs(10);
        let Ok(mut client) = Client::enter(self.client, &self.door, patience) else { return false };
        match client.try_call(&["PING"]) {
            Ok(reply) if reply == Reply::Simple("PONG".into()) => {}
            Ok(reply) if reply.is_not_ready() => return false,
            Ok(reply) => panic!("PING got {reply}"),
            Err(_) => return false,
        }
        client
            .try_call(&["INFO", "outrigger"])
            .is_ok_and(|reply| Info::parse(&reply.text()).every_group_is_led())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let start = log.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
            eprintln!("node {} wrote last:\n{}", self.id, &log[start..]);
        }
    }
}

/// Some nodes of one cluster. Fields drop in order: processes first, then their files.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    dir: TestDir,
}

impl Cluster {
    /// Starts `count` nodes with `extra` flags, and waits until every group has a leader.
    pub(crate) fn start(name: &str, count: u64, extra: &[&str]) -> Cluster {
        // A port can be taken between the moment it was found free and the node's start.
        for _ in 0..4 {
            let mut cluster = Cluster::prepare(name, count, extra);
            cluster.nodes.iter_mut().for_each(Node::start);
            let up = wait_for("every node answers and every group has a leader", || {
                if cluster.nodes.iter_mut().any(Node::has_exited) {
                    return Some(false);
                }
                cluster.nodes.iter().all(Node::is_ready).then_some(true)
            });
            if up {
                return cluster;
            }
            let logs: Vec<String> = cluster.nodes.iter().map(Node::log).collect();
            let clash = logs.iter().any(|log| log.contains("in use"));
            assert!(clash, "a node stopped while it started:\n{}", logs.join("\n"));
        }
        panic!("found no free ports in four attempts");
    }

    /// Everything but the processes.
    pub(crate) fn prepare(name: &str, count: u64, extra: &[&str]) -> Cluster {
        let dir = TestDir::new(name);
        let addresses: Vec<_> =
            (1..=count).map(|id| (id, free_address(), free_address())).collect();
        let peers: Vec<String> =
            addresses.iter().map(|(id, _, peer)| format!("{id}={peer}")).collect();
        let nodes = addresses
            .iter()
            .map(|&(id, client, peer)| {
                let node_dir = dir.path().join(format!("node-{id}"));
                Node::new(id, client, peer, node_dir, &peers, extra)
            })
            .collect();
        Cluster { nodes, dir }
    }

    /// Starts one more node, which is to join; its place among the nodes.
    pub(crate) fn join(&mut self, id: u64, extra: &[&str]) -> usize {
        let (client, peer) = (free_address(), free_address());
        let dir = self.dir.path().join(format!("node-{id}"));
        let mut peers: Vec<String> =
            self.nodes.iter().map(|node| format!("{}={}", node.id, node.peer)).collect();
        peers.push(format!("{id}={peer}"));
        let extra = [&["--join"], extra].concat();
        let mut node = Node::new(id, client, peer, dir, &peers, &extra);
        node.start();
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until every node answers and every group has a leader.
    pub(crate) fn wait_ready(&self) {
        wait_until("every node answers and every group has a leader", || {
            self.nodes.iter().all(Node::is_ready)
        });
    }

    /// Waits until all nodes have applied equally far, and returns their digests. The cluster must
    /// not be written to meanwhile.
    pub(crate) fn digests(&self) -> Vec<Reply> {
        wait_for("every node has applied as much as the others", || {
            let before: Vec<_> = self.nodes.iter().map(|node| Info::of(node).applied()).collect();
            if before.iter().any(|applied| *applied != before[0]) {
                return None;
            }
            let digests = self.nodes.iter().map(|node| node.client().say("DEBUG DIGEST")).collect();
            let after: Vec<_> = self.nodes.iter().map(|node| Info::of(node).applied()).collect();
            (before == after).then_some(digests)
        })
    }
}
