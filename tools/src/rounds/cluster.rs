//! Real nodes as child processes: started, killed with SIGKILL, and never left behind.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::Failed;
use super::resp::{Client, Reply};

/// The number of SIGKILL, which cannot be caught.
const SIGKILL: i32 = 9;
/// Between two questions to a starting cluster.
const POLL: Duration = Duration::from_millis(20);
/// How long a cluster may take to have a leader for every group, all nodes answering. Long, for a machine on
/// which others work too: a turn of a core was seen to start 2.8 s late.
const READY: Duration = Duration::from_secs(180);
/// How long replicas may take to apply the same, once nobody writes.
const SAME: Duration = Duration::from_secs(120);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The node's program.
    pub binary: PathBuf,
    /// Where the nodes' data and logs are.
    pub dir: PathBuf,
    /// How many there are; their ids are 1 and up.
    pub nodes: u8,
    /// Cores of each.
    pub cores: u16,
    /// Raft groups.
    pub groups: u64,
    /// Least time without a leader before an election, in ms.
    pub election_ms: u64,
    /// More flags for every node.
    pub flags: Vec<String>,
    /// Client port of node 1; the others follow, and their peer ports after them.
    pub port: u16,
    /// Where each node lives, if not all on this machine's own addresses.
    pub hosts: Vec<Host>,
}

/// A network namespace of this machine, as the home of one node.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name, as `ip netns` has it.
    pub namespace: String,
    /// Its address, which this process and the other hosts reach.
    pub address: Ipv4Addr,
}

impl Plan {
    /// Where clients of a node connect.
    pub fn client(&self, id: u8) -> SocketAddr {
        self.address(id, u16::from(id) - 1)
    }

    /// Where other nodes connect to a node.
    pub fn peer(&self, id: u8) -> SocketAddr {
        self.address(id, u16::from(self.nodes) + u16::from(id) - 1)
    }

    fn host(&self, id: u8) -> Option<&Host> {
        self.hosts.get(usize::from(id) - 1)
    }

    fn address(&self, id: u8, offset: u16) -> SocketAddr {
        let ip = self.host(id).map_or(Ipv4Addr::LOCALHOST, |host| host.address);
        (ip, self.port + offset).into()
    }

    /// The node's program, where the node lives.
    fn program(&self, id: u8) -> Command {
        let Some(Host { namespace, .. }) = self.host(id) else {
            return Command::new(&self.binary);
        };
        // It becomes the program, so that its process is the node's.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg(&self.binary);
        command
    }

    /// What nodes keep; deleted between clusters.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What one node keeps.
    pub fn data_of(&self, id: u8) -> PathBuf {
        self.data().join(format!("node-{id}"))
    }

    /// What a node says on stderr, over all its lives.
    pub fn log(&self, id: u8) -> PathBuf {
        self.dir.join(format!("node-{id}.log"))
    }

    fn command(&self, id: u8) -> Command {
        let peers: Vec<String> =
            (1..=self.nodes).map(|id| format!("{id}={}", self.peer(id))).collect();
        let mut command = self.program(id);
        command
            .args(["serve", "--id", &id.to_string()])
            .arg("--dir")
            .arg(self.data_of(id))
            .args(["--client", &self.client(id).to_string()])
            .args(["--peer", &self.peer(id).to_string()])
            .args(["--peers", &peers.join(",")])
            .args(["--cores", &self.cores.to_string()])
            .args(["--groups", &self.groups.to_string()])
            .args(["--election-ms", &self.election_ms.to_string()])
            .args(&self.flags);
        command
    }
}

/// Starts a node that ends with this process, should it be killed itself. What it says goes to the end of
/// `log`, after a line that says `why`.
pub fn spawn(mut node: Command, log: &Path, why: &str) -> io::Result<Child> {
    let mut log = File::options().create(true).append(true).open(log)?;
    writeln!(log, "--- {why}")?;
    node.args(["--parent-pid", &std::process::id().to_string()])
        .env("OUTRIGGER_LOG", std::env::var("OUTRIGGER_LOG").unwrap_or_else(|_| "info".into()))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// The nodes of one cluster. Dropping it kills them.
pub struct Cluster<'p> {
    plan: &'p Plan,
    children: Vec<Option<Child>>,
}

impl<'p> Cluster<'p> {
    /// No node runs yet.
    pub fn new(plan: &'p Plan) -> Self {
        Self { plan, children: (0..plan.nodes).map(|_| None).collect() }
    }

    /// Starts a node that does not run. Its log begins with `why`.
    pub fn start(&mut self, id: u8, why: &str) -> Result<(), Failed> {
        self.start_as(id, self.plan.command(id), why)
    }

    /// Starts a node in the place of one that does not run, where clients look for that one.
    pub fn start_as(&mut self, id: u8, node: Command, why: &str) -> Result<(), Failed> {
        let child = spawn(node, &self.plan.log(id), why);
        let child = child.map_err(|error| Failed::Start(format!("node {id}: {error}")))?;
        let before = self.children[usize::from(id) - 1].replace(child);
        assert!(before.is_none(), "node {id} was started twice");
        Ok(())
    }

    /// The process of a node that runs.
    pub fn pid(&self, id: u8) -> Option<u32> {
        self.children[usize::from(id) - 1].as_ref().map(Child::id)
    }

    /// Waits until a running node has ended by itself, or `limit` is over: `None`.
    pub fn wait_end(&mut self, id: u8, limit: Duration) -> Option<ExitStatus> {
        let started = now();
        let child = &mut self.children[usize::from(id) - 1];
        loop {
            match child.as_mut().map(Child::try_wait) {
                Some(Ok(Some(status))) => {
                    *child = None;
                    return Some(status);
                }
                Some(Ok(None)) if started.elapsed() < limit => pause(Duration::from_millis(1)),
                Some(_) | None => return None,
            }
        }
    }

    /// The last line of a node's log.
    pub fn last_words(&self, id: u8) -> String {
        let log = fs::read_to_string(self.plan.log(id)).unwrap_or_default();
        log.lines().last().unwrap_or("nothing").to_owned()
    }

    /// Sends SIGKILL to running nodes and does not wait: a process that waits for a disk ends only
    /// when the disk answers. `kill` collects it.
    pub fn shoot(&mut self, ids: impl Iterator<Item = u8>) {
        for id in ids {
            if let Some(child) = &mut self.children[usize::from(id) - 1] {
                // It may have ended already; `kill` says how.
                let _ = child.kill();
            }
        }
    }

    /// Kills running nodes with SIGKILL, all before waiting for the first.
    pub fn kill(&mut self, ids: impl Iterator<Item = u8>) -> Result<(), Failed> {
        let mut killed = Vec::new();
        for id in ids {
            let mut child = self.children[usize::from(id) - 1].take().expect("it runs");
            let sent = child.kill();
            killed.push((id, child, sent));
        }
        let mut first = Ok(());
        for (id, mut child, sent) in killed {
            let ended = sent.and_then(|()| child.wait());
            let end = match ended {
                Ok(status) if status.signal() == Some(SIGKILL) => continue,
                Ok(status) => self.ended(id, status),
                Err(error) => Failed::Start(format!("cannot kill node {id}: {error}")),
            };
            first = first.and(Err(end));
        }
        first
    }

    fn ended(&self, id: u8, status: ExitStatus) -> Failed {
        let last = self.last_words(id);
        Failed::NodeEnded(format!("node {id} ended by itself ({status}); it said: {last}"))
    }

    /// An error if a node that was started does not run any more.
    pub fn all_run(&mut self) -> Result<(), Failed> {
        for (id, child) in (1u8..).zip(&mut self.children) {
            if let Some(Ok(Some(status))) = child.as_mut().map(Child::try_wait) {
                *child = None;
                return Err(self.ended(id, status));
            }
        }
        Ok(())
    }

    /// Waits until every node answers and knows a leader for every group.
    pub fn wait_ready(&mut self) -> Result<Duration, Failed> {
        let started = now();
        loop {
            self.all_run()?;
            let seen: Vec<Seen> = (1..=self.plan.nodes).map(|id| self.ask(id)).collect();
            let led: u64 = seen.iter().map(|seen| seen.led).sum();
            let waiting = seen.iter().any(|seen| !seen.answers || seen.leaderless > 0);
            if !waiting && led >= self.plan.groups {
                return Ok(started.elapsed());
            }
            if READY < started.elapsed() {
                return Err(Failed::NotReady(format!(
                    "after {} s {led} of {} groups have a leader; the nodes: {seen:?}",
                    READY.as_secs(),
                    self.plan.groups
                )));
            }
            pause(POLL);
        }
    }

    fn ask(&self, id: u8) -> Seen {
        let question = || Client::connect(self.plan.client(id))?.ask(&["INFO", "outrigger"]);
        question().map_or_else(|_| Seen::default(), |reply| Seen::read(&reply))
    }

    /// Waits until all nodes have applied the same data; `None` if they stay different.
    pub fn wait_same(&mut self) -> Result<Option<String>, Failed> {
        let started = now();
        loop {
            self.all_run()?;
            let digests: Vec<Option<Reply>> = (1..=self.plan.nodes)
                .map(|id| Client::connect(self.plan.client(id))?.ask(&["DEBUG", "DIGEST"]))
                .map(io::Result::ok)
                .collect();
            if matches!(digests[0], Some(Reply::Bulk(Some(_))))
                && digests.iter().all(|digest| *digest == digests[0])
            {
                return Ok(None);
            }
            if SAME < started.elapsed() {
                return Ok(Some(format!("digests after {} s: {digests:?}", SAME.as_secs())));
            }
            pause(POLL);
        }
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
        }
        for child in self.children.iter_mut().flatten() {
            let _ = child.wait();
        }
    }
}

/// What a node says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    answers: bool,
    led: u64,
    /// Groups whose leader it does not know.
    leaderless: usize,
}

impl Seen {
    fn read(reply: &Reply) -> Self {
        let Reply::Bulk(Some(text)) = reply else { return Self::default() };
        let text = String::from_utf8_lossy(text);
        let led = text.lines().find_map(|line| line.strip_prefix("groups_led:"));
        let leaderless = |line: &&str| line.starts_with("group_") && line.contains(",leader=0,");
        Self {
            answers: true,
            led: led.and_then(|count| count.trim().parse().ok()).unwrap_or(0),
            leaderless: text.lines().filter(leaderless).count(),
        }
    }
}

/// The `outrigger` beside this program, or what to do to get it.
pub fn binary_beside(own: &Path) -> Result<PathBuf, Failed> {
    let binary = own.with_file_name("outrigger");
    if binary.is_file() {
        return Ok(binary);
    }
    let is_release = own.parent().is_some_and(|folder| folder.ends_with("release"));
    let profile = if is_release { " --release" } else { "" };
    Err(Failed::Start(format!(
        "no node to kill: {} does not exist; build it with `cargo build{profile}`, or name one with --binary",
        binary.display()
    )))
}

#[expect(clippy::disallowed_methods, reason = "real nodes live in real time")]
/// The time.
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "real nodes live in real time; this is no turn")]
/// Waits.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read() {
        let text = "# Outrigger\r\nnode_id:1\r\ngroups_led:2\r\ngroup_0:role=leader,leader=1,term=2\r\ngroup_1:role=follower,leader=0,term=2\r\n";
        let seen = Seen::read(&Reply::Bulk(Some(text.into())));
        assert_eq!(seen, Seen { answers: true, led: 2, leaderless: 1 });
        assert!(!Seen::read(&Reply::Error("LOADING replays its log".into())).answers);
    }

    #[test]
    fn a_missing_binary_is_named_with_its_remedy() {
        let error = binary_beside(Path::new("/nowhere/release/tools")).expect_err("absent");
        let text = error.to_string();
        assert!(text.contains("/nowhere/release/outrigger"), "{text}");
        assert!(text.contains("`cargo build --release`"), "{text}");
    }

    #[test]
    fn ports_do_not_overlap() {
        let plan = Plan {
            binary: "x".into(),
            dir: "x".into(),
            nodes: 3,
            cores: 1,
            groups: 4,
            election_ms: 300,
            flags: Vec::new(),
            port: 7401,
            hosts: Vec::new(),
        };
        assert_eq!(plan.client(3).port() + 1, plan.peer(1).port());
    }
}
