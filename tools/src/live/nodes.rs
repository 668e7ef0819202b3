//! The nodes as an operator handles them: started, killed, asked to stop, and spoken to with
//! `outrigger ctl` and `outrigger drain`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::Failed;
use super::info::Info;
use crate::rounds::cluster::{now, pause, spawn};
use crate::rounds::resp::{Client, Reply};

/// Nodes at most, over the whole run; their ports follow one another.
pub(super) const NODES_MAX: u8 = 32;
/// Between two questions to a node.
pub(super) const POLL: Duration = Duration::from_millis(20);
/// Between two attempts of a command that is refused for now.
const AGAIN: Duration = Duration::from_millis(200);

/// What the nodes are made of.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) binary: PathBuf,
    pub(super) dir: PathBuf,
    /// The members at the beginning: 1 to this.
    pub(super) first: u8,
    pub(super) cores: u16,
    pub(super) groups: u64,
    pub(super) election_ms: u64,
    pub(super) log_bytes: u64,
    /// Client port of node 1.
    pub(super) port: u16,
}

impl Plan {
    pub(super) fn client(&self, id: u8) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + u16::from(id) - 1).into()
    }

    pub(super) fn peer(&self, id: u8) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + u16::from(NODES_MAX) + u16::from(id) - 1).into()
    }

    pub(super) fn data(&self, id: u8) -> PathBuf {
        self.dir.join("data").join(format!("node-{id}"))
    }

    pub(super) fn log(&self, id: u8) -> PathBuf {
        self.dir.join(format!("node-{id}.log"))
    }

    fn command(&self, id: u8) -> Command {
        let founders = 1..=self.first;
        let joins = !founders.contains(&id);
        let known = founders.chain(joins.then_some(id));
        let peers: Vec<String> = known.map(|id| format!("{id}={}", self.peer(id))).collect();
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--id", &id.to_string()])
            .arg("--dir")
            .arg(self.data(id))
            .args(["--client", &self.client(id).to_string()])
            .args(["--peer", &self.peer(id).to_string()])
            .args(["--peers", &peers.join(",")])
            .args(["--cores", &self.cores.to_string()])
            .args(["--groups", &self.groups.to_string()])
            .args(["--election-ms", &self.election_ms.to_string()])
            .args(["--log-bytes", &self.log_bytes.to_string()])
            .args(joins.then_some("--join"));
        command
    }
}

/// Child processes by node id. Dropping it kills them.
pub(super) struct Nodes<'p> {
    pub(super) plan: &'p Plan,
    children: BTreeMap<u8, Child>,
}

impl<'p> Nodes<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        Self { plan, children: BTreeMap::new() }
    }

    /// Starts a node that does not run. Its log begins with `why`.
    pub(super) fn start(&mut self, id: u8, why: &str) -> Result<(), Failed> {
        assert!(id <= NODES_MAX, "every node has its ports");
        let child = spawn(self.plan.command(id), &self.plan.log(id), why);
        let child = child.map_err(|error| Failed(format!("cannot start node {id}: {error}")))?;
        let before = self.children.insert(id, child);
        assert!(before.is_none(), "node {id} was started twice");
        Ok(())
    }

    /// kill -9.
    pub(super) fn kill(&mut self, id: u8) -> Result<(), Failed> {
        let mut child = self.children.remove(&id).expect("it runs");
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(drop).map_err(|error| Failed(format!("cannot kill node {id}: {error}")))
    }

    /// Waits until a node has ended by itself; `None` if it has not.
    pub(super) fn wait_end(&mut self, id: u8, limit: Duration) -> Option<ExitStatus> {
        let started = now();
        loop {
            let child = self.children.get_mut(&id).expect("it runs");
            if let Ok(Some(status)) = child.try_wait() {
                self.children.remove(&id);
                return Some(status);
            }
            if limit < started.elapsed() {
                return None;
            }
            pause(POLL);
        }
    }

    /// SIGTERM.
    pub(super) fn terminate(&mut self, id: u8, limit: Duration) -> Result<(), Failed> {
        let pid = self.children[&id].id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        sent.map_err(|error| Failed(format!("cannot stop node {id}: {error}")))?;
        match self.wait_end(id, limit) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.ended(id, status)),
            None => Err(Failed(format!("node {id} runs on {} s after SIGTERM", limit.as_secs()))),
        }
    }

    pub(super) fn last_words(&self, id: u8) -> String {
        let log = fs::read_to_string(self.plan.log(id)).unwrap_or_default();
        log.lines().last().unwrap_or("nothing").to_owned()
    }

    fn ended(&self, id: u8, status: ExitStatus) -> Failed {
        Failed(format!("node {id} ended ({status}); it said: {}", self.last_words(id)))
    }

    /// An error if a node that was started does not run any more.
    pub(super) fn all_run(&mut self) -> Result<(), Failed> {
        for (id, child) in &mut self.children {
            if let Ok(Some(status)) = child.try_wait() {
                let id = *id;
                return Err(self.ended(id, status));
            }
        }
        Ok(())
    }

    /// What a node says of itself, if it answers.
    pub(super) fn info(&self, id: u8) -> Option<Info> {
        let reply = Client::connect(self.plan.client(id)).ok()?.ask(&["INFO", "outrigger"]).ok()?;
        let Reply::Bulk(Some(text)) = reply else { return None };
        Some(Info::read(&String::from_utf8_lossy(&text)))
    }

    /// Waits until `done` returns something, and all nodes run on meanwhile.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<T, Failed> {
        let started = now();
        loop {
            self.all_run()?;
            match done(self) {
                Ok(value) => return Ok(value),
                Err(story) if limit < started.elapsed() => {
                    return Err(Failed(format!("{what}: not in {} s: {story}", limit.as_secs())));
                }
                Err(_) => pause(POLL),
            }
        }
    }

    /// `outrigger …` as a user types it; what it says, progress included.
    pub(super) fn cli(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.plan.binary)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let text = [said(&output.stderr), said(&output.stdout)].join("\n").trim().to_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// `outrigger ctl --node … member …`.
    pub(super) fn member(&self, through: u8, words: &[&str]) -> Result<String, String> {
        let node = self.plan.client(through).to_string();
        self.cli(&[&["ctl", "--node", &node, "member"], words].concat())
    }

    /// The same, again and again for as long as it is refused; how often, and what it says.
    pub(super) fn member_until(
        &mut self,
        through: u8,
        words: &[&str],
        limit: Duration,
    ) -> Result<(u32, String), Failed> {
        let mut attempts = 0;
        self.until(&format!("member {}", words.join(" ")), limit, |nodes| {
            attempts += 1;
            let said = nodes.member(through, words);
            if said.is_err() {
                pause(AGAIN);
            }
            said.map(|said| (attempts, said))
        })
    }
}

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            let _ = child.kill();
        }
        for child in self.children.values_mut() {
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn founders_know_each_other_and_others_join() {
        let plan = Plan {
            binary: "outrigger".into(),
            dir: "d".into(),
            first: 3,
            cores: 1,
            groups: 4,
            election_ms: 300,
            log_bytes: 9,
            port: 7601,
        };
        let words = |id| -> Vec<String> {
            let command = plan.command(id);
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        assert!(!words(3).contains(&"--join".to_owned()));
        let joining = words(4);
        assert!(joining.contains(&"--join".to_owned()));
        let peers = joining.iter().find(|word| word.starts_with("1=")).expect("peers");
        assert_eq!(peers.split(',').count(), 4, "{peers}");
        assert!(plan.client(NODES_MAX).port() < plan.peer(1).port());
    }
}
