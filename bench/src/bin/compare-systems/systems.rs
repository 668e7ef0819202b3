//! How each system is started in a fresh directory.
//!
//! ```text
//! PORT + 0 …      clients of member 1, 2, 3
//! PORT + 10 …     what members say to each other
//! PORT + 20 …     how ZooKeeper elects
//! ```
//!
//! Durability is the same everywhere: a write is acknowledged when it has been flushed (by a majority,
//! where there is one). Everything else is each system's default, unless it says why.

use crate::measure::Lab;
use crate::peers;
use crate::processes::Processes;
use crate::suite::System;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Starts `system` with `members` members; returns their client addresses. They may not answer yet.
pub(crate) fn start(
    system: System,
    members: usize,
    lab: &Lab,
    dir: &Path,
    processes: &mut Processes,
) -> Result<Vec<String>, String> {
    let ports = Ports { first: lab.port };
    match system {
        System::Outrigger => outrigger(members, lab, ports, dir, processes)?,
        System::Etcd => {
            for member in 1..=members {
                let mut command = Command::new("etcd");
                command.args(etcd(member, members, ports, dir));
                processes.start(&mut command, &format!("etcd-{member}"))?;
            }
        }
        System::Zookeeper => {
            for member in 1..=members {
                let home = dir.join(format!("zookeeper-{member}"));
                let file = home.join("zoo.cfg");
                fs::create_dir_all(home.join("data"))
                    .and_then(|()| fs::write(home.join("data/myid"), format!("{member}\n")))
                    .and_then(|()| fs::write(&file, zookeeper(member, members, ports, &home)))
                    .map_err(|error| format!("{}: {error}", home.display()))?;
                let mut command = Command::new("java");
                command
                    .args(["-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"])
                    .args(["-Dzookeeper.admin.enableServer=false"])
                    .args(["-cp", &peers::zookeeper_class_path()])
                    .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
                    .arg(&file);
                processes.start(&mut command, &format!("zookeeper-{member}"))?;
            }
        }
        System::Redis => {
            let mut command = Command::new("redis-server");
            command
                .args(["--port", &ports.client(1).to_string(), "--bind", "127.0.0.1"])
                .args(["--dir", &dir.to_string_lossy(), "--save", ""])
                .args(["--appendonly", "yes", "--appendfsync", "always"])
                .args(["--auto-aof-rewrite-percentage", "0"]);
            processes.start(&mut command, "redis")?;
        }
    }
    let members = if system == System::Redis { 1 } else { members };
    Ok((1..=members).map(|member| format!("127.0.0.1:{}", ports.client(member))).collect())
}

/// Whether a system that says so has said that it is ready; the others only have to answer.
pub(crate) fn is_ready(system: System, dir: &Path) -> bool {
    let said = || fs::read_to_string(dir.join("outrigger.log")).unwrap_or_default();
    system != System::Outrigger || said().lines().any(|line| line == "ready")
}

/// Notes what a system started by itself, once it answers.
pub(crate) fn note_grandchildren(
    system: System,
    members: usize,
    dir: &Path,
    processes: &mut Processes,
) -> Result<(), String> {
    if system != System::Outrigger {
        return Ok(());
    }
    let file = dir.join("data/cluster.json");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let pids = layout_pids(&text).ok_or_else(|| format!("{} has no pids", file.display()))?;
    if pids.len() != members {
        return Err(format!("{} has {} nodes", file.display(), pids.len()));
    }
    pids.into_iter().for_each(|pid| processes.note_grandchild(pid));
    Ok(())
}

fn layout_pids(layout: &str) -> Option<Vec<u32>> {
    let layout: serde_json::Value = serde_json::from_str(layout).ok()?;
    let pid = |node: &serde_json::Value| u32::try_from(node["pid"].as_u64()?).ok();
    layout["members"].as_array()?.iter().map(pid).collect()
}

fn outrigger(
    members: usize,
    lab: &Lab,
    ports: Ports,
    dir: &Path,
    processes: &mut Processes,
) -> Result<(), String> {
    let mut command = Command::new(&lab.outrigger);
    command
        .args(["up", "--nodes", &members.to_string()])
        .arg("--dir")
        .arg(dir.join("data"))
        .args(["--client-port", &ports.client(1).to_string()])
        .args(["--peer-port", &ports.peer(1).to_string()])
        .args(&lab.up_args);
    processes.start(&mut command, "outrigger")
}

/// The ports of one run.
#[derive(Debug, Clone, Copy)]
struct Ports {
    first: u16,
}

impl Ports {
    /// Of member `member`, from 1.
    fn client(self, member: usize) -> u16 {
        self.first + member as u16 - 1
    }

    fn peer(self, member: usize) -> u16 {
        self.client(member) + 10
    }

    fn election(self, member: usize) -> u16 {
        self.client(member) + 20
    }
}

fn etcd(member: usize, members: usize, ports: Ports, dir: &Path) -> Vec<String> {
    let client = format!("http://127.0.0.1:{}", ports.client(member));
    let peer = |member| format!("http://127.0.0.1:{}", ports.peer(member));
    let cluster: Vec<String> = (1..=members).map(|n| format!("n{n}={}", peer(n))).collect();
    let flags = [
        ("--name", format!("n{member}")),
        ("--data-dir", dir.join(format!("etcd-{member}")).to_string_lossy().into_owned()),
        ("--log-level", "error".into()),
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer(member)),
        ("--initial-advertise-peer-urls", peer(member)),
        ("--initial-cluster", cluster.join(",")),
        ("--initial-cluster-state", "new".into()),
        // It keeps every version of a value, and 2 GiB of 64 KiB values are half a minute.
        ("--quota-backend-bytes", (8_u64 << 30).to_string()),
    ];
    flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]).collect()
}

fn zookeeper(member: usize, members: usize, ports: Ports, home: &Path) -> String {
    let data = home.join("data");
    let mut text = format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\n\
         dataDir={data}\ndataLogDir={data}\n\
         clientPortAddress=127.0.0.1\nclientPort={port}\nadmin.enableServer=false\n",
        data = data.display(),
        port = ports.client(member),
    );
    // One server alone is one that was told of no others.
    for n in (1..=members).filter(|_| members > 1) {
        let (peer, election) = (ports.peer(n), ports.election(n));
        let _ = writeln!(text, "server.{n}=127.0.0.1:{peer}:{election}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { first: 27_100 };

    #[test]
    fn no_two_members_share_a_port() {
        let mut all: Vec<u16> =
            (1..=3).flat_map(|n| [PORTS.client(n), PORTS.peer(n), PORTS.election(n)]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9);
    }

    #[test]
    fn etcd_s_members_know_each_other() {
        let flags = etcd(2, 3, PORTS, Path::new("/d"));
        let value = |flag: &str| {
            let at = flags.iter().position(|known| known == flag).expect("it is there");
            flags[at + 1].clone()
        };
        assert_eq!(value("--data-dir"), "/d/etcd-2");
        assert_eq!(value("--listen-client-urls"), "http://127.0.0.1:27101");
        let cluster =
            "n1=http://127.0.0.1:27110,n2=http://127.0.0.1:27111,n3=http://127.0.0.1:27112";
        assert_eq!(value("--initial-cluster"), cluster);
        assert!(etcd(1, 1, PORTS, Path::new("/d")).contains(&"n1=http://127.0.0.1:27110".into()));
    }

    #[test]
    fn zookeeper_flushes_where_everybody_does_and_alone_knows_nobody() {
        let three = zookeeper(3, 3, PORTS, Path::new("/d/zookeeper-3"));
        assert!(three.contains("\ndataLogDir=/d/zookeeper-3/data\n"), "{three}");
        assert!(three.contains("\nclientPort=27102\n"), "{three}");
        assert!(three.contains("\nserver.1=127.0.0.1:27110:27120\n"), "{three}");
        assert!(!three.contains("forceSync=no"));
        assert!(!zookeeper(1, 1, PORTS, Path::new("/d")).contains("server."));
    }

    #[test]
    fn the_layout_of_up_names_the_nodes() {
        let layout = r#"{"nodes":2,"members":[{"id":1,"pid":42},{"id":2,"pid":43}]}"#;
        assert_eq!(layout_pids(layout), Some(vec![42, 43]));
        assert_eq!(layout_pids(r#"{"nodes":1,"members":[{"id":1}]}"#), None);
    }
}
