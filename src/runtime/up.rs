//! `outrigger up`: a whole cluster on this machine, as child processes of this one.
//!
//! ```text
//! layout (DIR/cluster.json) ─► children ─► poll INFO until every group has a leader
//!        ─► one table ─► `ready` ─► pass on warnings, until a signal ─► SIGTERM, wait ─► exit 0
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use crate::limits;

use super::access::{self, Access};
use super::asker::Said;
use super::fatal::Fatal;
use super::private;

/// What `up` can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many nodes [default: as DIR has, or 3].
    #[arg(long, value_name = "N")]
    pub nodes: Option<u64>,
    /// Where the nodes keep everything; used again by the next `up`.
    #[arg(long, default_value = "./outrigger-data")]
    pub dir: PathBuf,
    /// Cores per node [default: as DIR has, or 1].
    #[arg(long, value_name = "C")]
    pub cores: Option<u16>,
    /// Raft groups [default: as DIR has, or 16].
    #[arg(long, value_name = "G")]
    pub groups: Option<u64>,
    /// Client port of node 1; node 2 has the next, and so on [default: as DIR has, or 7001].
    #[arg(long, value_name = "PORT")]
    pub client_port: Option<u16>,
    /// Peer port of node 1; node 2 has the next, and so on [default: as DIR has, or 7101].
    #[arg(long, value_name = "PORT")]
    pub peer_port: Option<u16>,
    /// Admin port of node 1 (status page and metrics); node 2 has the next, and so on [default: as DIR
    /// has, or 200 above the client port: 7201].
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Least time without a leader before an election, in ms.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub election_ms: u64,
    /// More flags for every node, as in `--serve-arg=--spin-us=20`.
    #[arg(long = "serve-arg", value_name = "FLAG", allow_hyphen_values = true)]
    pub serve_args: Vec<String>,
    /// How to get in, if `--serve-arg` closes the nodes' doors.
    #[command(flatten)]
    pub access: access::Options,
}

/// Unless told otherwise, admin ports are this far above the client ports.
const ADMIN_GAP: u16 = 200;
/// How long one question to a node may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the nodes are asked while the cluster starts.
const POLL: Duration = Duration::from_millis(50);
/// How long the nodes have to stop by themselves.
const STOP: Duration = Duration::from_secs(10);

/// A cluster's layout, as DIR keeps it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Layout {
    nodes: u64,
    cores: u16,
    groups: u64,
    client_port: u16,
    peer_port: u16,
    /// Layouts of older releases have none.
    #[serde(default)]
    admin_port: Option<u16>,
}

impl Layout {
    fn client(&self, id: u64) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.client_port + (id - 1) as u16))
    }

    fn peer(&self, id: u64) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.peer_port + (id - 1) as u16))
    }

    fn admin(&self, id: u64) -> Option<SocketAddr> {
        let port = self.admin_port?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port + (id - 1) as u16)))
    }

    /// The first port of its kind that no node uses for something else, from `ADMIN_GAP` above the
    /// client ports on.
    fn free_admin_port(&self) -> Option<u16> {
        let first = self.client_port.checked_add(ADMIN_GAP)?;
        (first..=u16::MAX).find(|port| {
            let candidate = Self { admin_port: Some(*port), ..self.clone() };
            candidate.overlap().is_none()
        })
    }

    /// What is wrong with the ports, if anything is.
    fn overlap(&self) -> Option<String> {
        let ranges = [
            ("client", Some(self.client_port)),
            ("peer", Some(self.peer_port)),
            ("admin", self.admin_port),
        ];
        let nodes = self.nodes;
        for (at, (what, port)) in ranges.iter().enumerate() {
            let Some(port) = port.map(u64::from) else { continue };
            if 65_536 < port + nodes {
                return Some(format!("the {nodes} {what} ports from {port} end past 65535"));
            }
            for (other, first) in &ranges[..at] {
                let Some(first) = first.map(u64::from) else { continue };
                if port.abs_diff(first) < nodes {
                    return Some(format!(
                        "the {nodes} {other} ports from {first} and the {nodes} {what} ports from {port} overlap"
                    ));
                }
            }
        }
        None
    }

    /// The layout DIR has with what was asked for; what is fixed must agree.
    fn choose(options: &Options, saved: Option<Self>) -> Result<Self, Fatal> {
        let fixed = |flag: &str, asked: Option<u64>, saved: Option<u64>, default| match (
            asked, saved,
        ) {
            (Some(asked), Some(saved)) if asked != saved => Err(Fatal::new(format!(
                "{} holds a cluster of {flag} {saved}, not {asked}; leave {flag} out, or choose another --dir",
                options.dir.display()
            ))),
            (asked, saved) => Ok(saved.or(asked).unwrap_or(default)),
        };
        let saved = saved.as_ref();
        let mut layout = Self {
            nodes: fixed("--nodes", options.nodes, saved.map(|layout| layout.nodes), 3)?,
            cores: fixed(
                "--cores",
                options.cores.map(u64::from),
                saved.map(|layout| layout.cores.into()),
                1,
            )? as u16,
            groups: fixed("--groups", options.groups, saved.map(|layout| layout.groups), 16)?,
            client_port: options
                .client_port
                .or(saved.map(|layout| layout.client_port))
                .unwrap_or(7001),
            peer_port: options.peer_port.or(saved.map(|layout| layout.peer_port)).unwrap_or(7101),
            admin_port: options.admin_port.or(saved.and_then(|layout| layout.admin_port)),
        };
        if layout.nodes == 0 || layout.nodes > limits::NODES_MAX as u64 {
            return Err(Fatal::new(format!(
                "--nodes is {}, but must be from 1 to {}",
                layout.nodes,
                limits::NODES_MAX
            )));
        }
        if layout.admin_port.is_none() {
            layout.admin_port = layout.free_admin_port();
        }
        if let Some(overlap) = layout.overlap() {
            return Err(Fatal::new(format!(
                "{overlap}; choose others with --client-port, --peer-port and --admin-port"
            )));
        }
        Ok(layout)
    }

    fn to_json(&self, dir: &Path, pids: &BTreeMap<u64, u32>) -> String {
        let nodes = (1..=self.nodes)
            .map(|id| SavedNode {
                id,
                client: self.client(id),
                peer: self.peer(id),
                admin: self.admin(id),
                pid: pids.get(&id).copied().unwrap_or(0),
                dir: node_dir(dir, id),
            })
            .collect();
        let saved = Saved { layout: self.clone(), nodes };
        serde_json::to_string(&saved).expect("numbers and paths are JSON") + "\n"
    }
}

/// What `cluster.json` holds: the layout, which the next `up` reads, and for scripts who runs where.
#[derive(serde::Serialize)]
struct Saved {
    #[serde(flatten)]
    layout: Layout,
    #[serde(rename = "members")]
    nodes: Vec<SavedNode>,
}

#[derive(serde::Serialize)]
struct SavedNode {
    id: u64,
    client: SocketAddr,
    peer: SocketAddr,
    admin: Option<SocketAddr>,
    pid: u32,
    dir: PathBuf,
}

fn node_dir(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("node-{id}"))
}

/// One child, and the last thing it said.
struct Member {
    id: u64,
    child: Child,
    last_line: Arc<Mutex<String>>,
    gone: bool,
}

/// Starts the cluster and stays until a signal.
///
/// # Errors
/// If it cannot be started: a port is taken, the layout does not fit, or a node dies before the
/// cluster is ready.
pub fn up(options: &Options) -> Result<(), Fatal> {
    let access = Access::open(&options.access)?;
    private::create_dir_all(&options.dir)
        .map_err(|error| Fatal::new(format!("cannot create {}: {error}", options.dir.display())))?;
    let file = options.dir.join("cluster.json");
    let saved = match fs::read_to_string(&file) {
        Ok(text) => Some(serde_json::from_str(&text).map_err(|error| {
            Fatal::new(format!(
                "{} is not a cluster layout ({error}); restore it, or choose another --dir",
                file.display()
            ))
        })?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(Fatal::new(format!("cannot read {}: {error}", file.display())));
        }
    };
    let layout = Layout::choose(options, saved)?;
    for id in 1..=layout.nodes {
        for (flag, address) in [
            ("--client-port", Some(layout.client(id))),
            ("--peer-port", Some(layout.peer(id))),
            ("--admin-port", layout.admin(id)),
        ] {
            let Some(address) = address else { continue };
            TcpListener::bind(address).map_err(|error| {
                Fatal::new(format!(
                    "cannot use {address} for node {id}: {error}. Is another cluster running? Stop it, or choose other ports with {flag}"
                ))
            })?;
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Fatal::new(format!("cannot listen for signals: {error}")))?;
    }
    let mut cluster = Cluster { members: Vec::new() };
    for id in 1..=layout.nodes {
        cluster.members.push(start(options, &layout, id)?);
    }
    let pids = cluster.members.iter().map(|member| (member.id, member.child.id())).collect();
    write_whole(&file, &layout.to_json(&options.dir, &pids))?;
    if wait_ready(&mut cluster, &layout, &access, &stop)? {
        print_table(&cluster, &layout, &access, &options.dir);
        watch(&mut cluster, &stop);
    }
    cluster.stop();
    Ok(())
}

fn write_whole(path: &Path, text: &str) -> Result<(), Fatal> {
    let temporary = path.with_extension("json.tmp");
    let mut options = private::file();
    let made = options.create(true).truncate(true).write(true).open(&temporary);
    made.and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| Fatal::new(format!("cannot write {}: {error}", path.display())))
}

fn start(options: &Options, layout: &Layout, id: u64) -> Result<Member, Fatal> {
    let failed = |error: std::io::Error| Fatal::new(format!("cannot start node {id}: {error}"));
    let peers: Vec<String> =
        (1..=layout.nodes).map(|id| format!("{id}={}", layout.peer(id))).collect();
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(["serve", "--id", &id.to_string()])
        .arg("--dir")
        .arg(node_dir(&options.dir, id))
        .args(["--client", &layout.client(id).to_string()])
        .args(["--peer", &layout.peer(id).to_string()])
        .args(["--peers", &peers.join(",")])
        .args(layout.admin(id).map(|address| format!("--admin={address}")))
        .args(["--cores", &layout.cores.to_string()])
        .args(["--groups", &layout.groups.to_string()])
        .args(["--election-ms", &options.election_ms.to_string()])
        .args(["--parent-pid", &std::process::id().to_string()])
        .args(&options.serve_args)
        .env("OUTRIGGER_LOG", std::env::var("OUTRIGGER_LOG").unwrap_or_else(|_| "warn".into()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A group of its own: Ctrl-C in the terminal reaches this process, which then stops the
        // children in order.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let last_line = Arc::new(Mutex::new(String::new()));
    let stderr = child.stderr.take();
    let shared = Arc::clone(&last_line);
    std::thread::Builder::new()
        .name(format!("stderr-{id}"))
        .spawn(move || {
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()) {
                let Ok(line) = line else { return };
                eprintln!("node {id} | {line}");
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = line;
            }
        })
        .map_err(failed)?;
    Ok(Member { id, child, last_line, gone: false })
}

/// The children; stopped when dropped, so that none outlives an error.
struct Cluster {
    members: Vec<Member>,
}

impl Cluster {
    /// Notices children that ended; tells about each once. Returns the first one's story.
    fn reap(&mut self) -> Option<String> {
        let mut story = None;
        for member in self.members.iter_mut().filter(|member| !member.gone) {
            if let Ok(Some(status)) = member.child.try_wait() {
                member.gone = true;
                // Its last words may still be on their way through the pipe.
                std::thread::sleep(POLL);
                let last = member.last_line.lock().unwrap_or_else(PoisonError::into_inner);
                story.get_or_insert(format!("node {} ended ({status}): {last}", member.id));
            }
        }
        story
    }

    /// SIGTERM to all, a while to end, SIGKILL to those that did not.
    fn stop(&mut self) {
        self.reap();
        for member in self.members.iter().filter(|member| !member.gone) {
            signal(&member.child, Signal::TERM);
        }
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline && self.members.iter().any(|member| !member.gone) {
            std::thread::sleep(POLL / 5);
            for member in self.members.iter_mut().filter(|member| !member.gone) {
                member.gone = !matches!(member.child.try_wait(), Ok(None));
            }
        }
        for member in self.members.iter_mut().filter(|member| !member.gone) {
            eprintln!("node {} did not stop within {} s and is killed", member.id, STOP.as_secs());
            let _ = member.child.kill();
            let _ = member.child.wait();
            member.gone = true;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Asks until every group has a leader. False if a signal came first.
fn wait_ready(
    cluster: &mut Cluster,
    layout: &Layout,
    access: &Access,
    stop: &AtomicBool,
) -> Result<bool, Fatal> {
    let progress = std::io::stderr().is_terminal();
    let mut told = Instant::now();
    while !stop.load(Ordering::Acquire) {
        if let Some(story) = cluster.reap() {
            return Err(Fatal::new(format!(
                "{story}\nthe cluster is not ready; nothing was left running"
            )));
        }
        let seen: Vec<Info> = (1..=layout.nodes).map(|id| ask(access, layout.client(id))).collect();
        let led: u64 = seen.iter().map(|info| info.groups_led).sum();
        let answering = seen.iter().filter(|info| info.answers).count() as u64;
        if answering == layout.nodes
            && led >= layout.groups
            && seen.iter().all(|info| info.leaderless == 0)
        {
            if progress {
                eprint!("\r\x1b[K");
            }
            return Ok(true);
        }
        if progress || told.elapsed() > Duration::from_secs(1) {
            let loading = seen.iter().filter(|info| info.loading).count();
            let text = format!(
                "{answering} of {} nodes answer, {loading} replay their logs, {led} of {} groups have a leader",
                layout.nodes, layout.groups
            );
            if progress {
                eprint!("\r\x1b[K{text}");
            } else {
                eprintln!("{text}");
            }
            told = Instant::now();
        }
        std::thread::sleep(POLL);
    }
    Ok(false)
}

/// What a node says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    answers: bool,
    loading: bool,
    groups_led: u64,
    /// Groups whose leader this node does not know.
    leaderless: u64,
}

fn ask(access: &Access, address: SocketAddr) -> Info {
    let said = access.connect(address, PATIENCE).and_then(|mut it| it.ask(&["INFO", "outrigger"]));
    said.map_or_else(|_| Info::default(), |said| read_info(&said))
}

fn read_info(said: &Said) -> Info {
    let text = match said {
        Said::Text(text) => text,
        Said::Error(error) => {
            return Info { loading: error.starts_with("LOADING"), ..Info::default() };
        }
        _ => return Info::default(),
    };
    let mut info = Info { answers: true, ..Info::default() };
    for line in text.lines() {
        if let Some(count) = line.strip_prefix("groups_led:") {
            info.groups_led = count.trim().parse().unwrap_or(0);
        } else if line.starts_with("group_") && line.contains(",leader=0,") {
            info.leaderless += 1;
        }
    }
    info
}

fn print_table(cluster: &Cluster, layout: &Layout, access: &Access, dir: &Path) {
    println!("{:<5} {:<21} {:>8}  {:<32} groups led", "node", "client address", "pid", "directory");
    for member in &cluster.members {
        let info = ask(access, layout.client(member.id));
        println!(
            "{:<5} {:<21} {:>8}  {:<32} {}",
            member.id,
            layout.client(member.id),
            member.child.id(),
            node_dir(dir, member.id).display(),
            info.groups_led,
        );
    }
    println!("ready");
    println!(
        "try: redis-cli -p {} set greeting hello      (Ctrl-C stops the cluster)",
        layout.client_port
    );
    if let Some(admin) = layout.admin(1) {
        println!("see: http://{admin}/      (status of node 1; the others have the next ports)");
    }
    let _ = std::io::stdout().flush();
}

/// Stays until a signal, telling about nodes that end.
fn watch(cluster: &mut Cluster, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        if let Some(story) = cluster.reap() {
            eprintln!("{story}");
            if cluster.members.iter().all(|member| member.gone) {
                eprintln!("no node is left");
                return;
            }
        }
        std::thread::sleep(POLL);
    }
}

/// In a child: end when the parent does, however it ends.
///
/// # Errors
/// If the parent is gone already.
pub fn end_with(parent: u32) -> Result<(), Fatal> {
    let failed = |error| Fatal::new(format!("cannot watch the parent process: {error}"));
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(failed)?;
    let actual = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if actual == i32::try_from(parent).ok() {
        Ok(())
    } else {
        Err(Fatal::new("the parent process is gone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            nodes: None,
            dir: "somewhere".into(),
            cores: None,
            groups: None,
            client_port: None,
            peer_port: None,
            admin_port: None,
            election_ms: 1000,
            serve_args: Vec::new(),
            access: access::Options::default(),
        }
    }

    #[test]
    fn a_layout_is_kept_and_found_again() {
        let layout = Layout::choose(&options(), None).expect("defaults");
        assert_eq!((layout.nodes, layout.cores, layout.groups), (3, 1, 16));
        let json = layout.to_json(Path::new("somewhere"), &BTreeMap::from([(1, 42)]));
        assert!(json.contains(r#"{"id":1,"client":"127.0.0.1:7001","peer":"127.0.0.1:7101","admin":"127.0.0.1:7201","pid":42,"dir":"somewhere/node-1"}"#), "{json}");
        assert_eq!(serde_json::from_str::<Layout>(&json).expect("as written"), layout);
        assert!(serde_json::from_str::<Layout>("{}").is_err());
    }

    #[test]
    fn what_is_fixed_cannot_be_changed_and_ports_can() {
        let saved = Layout::choose(&options(), None).expect("defaults");
        let asked = Options { nodes: Some(5), ..options() };
        let refusal = Layout::choose(&asked, Some(saved.clone())).expect_err("refused").to_string();
        assert_eq!(
            refusal,
            "somewhere holds a cluster of --nodes 3, not 5; leave --nodes out, or choose another --dir"
        );
        let moved = Options { client_port: Some(9001), ..options() };
        assert_eq!(Layout::choose(&moved, Some(saved)).expect("fine").client_port, 9001);
        let clash = Options { client_port: Some(7100), ..options() };
        assert!(Layout::choose(&clash, None).is_err());
        let clash = Options { admin_port: Some(7103), ..options() };
        let refusal = Layout::choose(&clash, None).expect_err("refused").to_string();
        assert_eq!(
            refusal,
            "the 3 peer ports from 7101 and the 3 admin ports from 7103 overlap; choose others with \
             --client-port, --peer-port and --admin-port"
        );
    }

    #[test]
    fn admin_ports_are_found_beside_the_others_and_older_layouts_get_some() {
        let chosen = |client: u16, peer: u16| {
            let options = Options { client_port: Some(client), peer_port: Some(peer), ..options() };
            Layout::choose(&options, None).expect("ports that do not overlap").admin_port
        };
        assert_eq!(chosen(7001, 7101), Some(7201));
        assert_eq!(chosen(7001, 7202), Some(7205), "behind the peer ports");
        assert_eq!(chosen(65_500, 65_400), None, "there is no room above");
        let old = r#"{"nodes":3,"cores":1,"groups":16,"client_port":8001,"peer_port":8101}"#;
        let saved = serde_json::from_str(old).expect("a layout of an older release");
        assert_eq!(Layout::choose(&options(), Some(saved)).expect("fine").admin_port, Some(8201));
    }

    #[test]
    fn info_is_read() {
        let text = "# Outrigger\r\nnode_id:1\r\ngroups_led:2\r\ngroup_0:role=leader,leader=1,term=2\r\ngroup_1:role=follower,leader=0,term=2\r\n";
        assert_eq!(
            read_info(&Said::Text(text.into())),
            Info { answers: true, loading: false, groups_led: 2, leaderless: 1 }
        );
        assert!(read_info(&Said::Error("LOADING outrigger is replaying its log".into())).loading);
        assert_eq!(read_info(&Said::Nothing), Info::default());
    }
}
