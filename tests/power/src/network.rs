//! A network of this machine's own for the nodes: a namespace each, joined by a bridge, and rules that
//! cut it.
//!
//! ```text
//!   writers, in the machine's own namespace
//!        │ 10.99.x.254
//!   ═════╪═══════ bridge ════════════╤══════════════════════╗
//!        │ 10.99.x.1                 │ 10.99.x.2            │ 10.99.x.3
//!   ┌────┴───── namespace 1 ┐  ┌─────┴──── namespace 2 ┐  ┌─┴───────── namespace 3 ┐
//!   │ nft: drop from {2, 3} │  │                       │  │                        │
//!   └───────────────────────┘  └───────────────────────┘  └────────────────────────┘
//! ```
//!
//! Rules name the other nodes only: clients reach a node that is cut off, and are told whatever it says.
//! Names hold the number of this process, so that runs do not meet, and what a SIGKILL leaves behind is
//! known for what it is.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{self, Command, Stdio};

use tools::rounds::cluster::Host;

use crate::cleanup::{self, Undo};
use crate::machine::{Failed, run, stopped};

/// Begins the name of every namespace of the rig, before the number of the process.
const NAMESPACE: &str = "outrigger-power-";
/// Begins the name of every interface, which has at most 15 bytes.
const LINK: &str = "orp";
/// Where namespaces have names.
const NAMES: &str = "/run/netns";
/// The last part of the bridge's own address.
const GATEWAY: u8 = 254;
/// The rules' table in a namespace.
const TABLE: &str = "power";

/// The namespaces and their bridge, until dropped.
pub(crate) struct Network {
    pub(crate) hosts: Vec<Host>,
    bridge: String,
    /// What was made, in that order.
    made: Vec<Undo>,
}

/// What becomes of packets between a node and some others, seen from that node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// What comes in is dropped.
    pub(crate) input: bool,
    /// What goes out is dropped.
    pub(crate) output: bool,
    /// Of these, so many of a hundred are.
    pub(crate) percent: u8,
}

impl Cut {
    pub(crate) const WHOLE: Self = Self { input: true, output: true, percent: 100 };
}

impl Network {
    /// A network for so many nodes, nothing cut.
    pub(crate) fn new(nodes: u8) -> Result<Self, Failed> {
        let number = process::id();
        let third = free_subnet()?;
        let bridge = format!("{LINK}{number}");
        let mut network = Self { hosts: Vec::new(), bridge: bridge.clone(), made: Vec::new() };
        if !is_mounted(NAMES) {
            network.makes(Undo::Names(NAMES));
        }
        network.makes(Undo::Link(bridge.clone()));
        run(&["ip", "link", "add", &bridge, "type", "bridge"])?;
        run(&["ip", "addr", "add", &format!("10.99.{third}.{GATEWAY}/24"), "dev", &bridge])?;
        run(&["ip", "link", "set", &bridge, "up"])?;
        for id in 1..=nodes {
            network.add(id, third)?;
        }
        Ok(network)
    }

    /// Written down before it is there: a signal may come in between.
    fn makes(&mut self, undo: Undo) {
        cleanup::note(undo.clone());
        self.made.push(undo);
    }

    fn add(&mut self, id: u8, third: u8) -> Result<(), Failed> {
        let namespace = format!("{NAMESPACE}{}-{id}", process::id());
        let address = Ipv4Addr::new(10, 99, third, id);
        self.makes(Undo::Namespace(namespace.clone()));
        self.hosts.push(Host { namespace: namespace.clone(), address });
        run(&["ip", "netns", "add", &namespace])?;
        let cable = format!("{}-{id}", self.bridge);
        self.makes(Undo::Link(cable.clone()));
        let (name, bridge) = (namespace.as_str(), self.bridge.as_str());
        run(&["ip", "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        run(&["ip", "link", "set", &cable, "master", bridge, "up"])?;
        run(&["ip", "-n", name, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        run(&["ip", "-n", name, "link", "set", "eth0", "up"])?;
        run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
        Ok(())
    }

    fn host(&self, id: u8) -> &Host {
        &self.hosts[usize::from(id) - 1]
    }

    /// Cuts a node from some others, in place of whatever was cut there before.
    pub(crate) fn cut(&self, id: u8, from: &[u8], cut: Cut) -> Result<(), Failed> {
        let addresses: Vec<Ipv4Addr> = from.iter().map(|id| self.host(*id).address).collect();
        self.rules(id, &rules(&addresses, cut))
    }

    /// Nothing is cut at a node any more.
    pub(crate) fn heal(&self, id: u8) -> Result<(), Failed> {
        self.rules(id, "flush ruleset\n")
    }

    fn rules(&self, id: u8, rules: &str) -> Result<(), Failed> {
        let words = ["nft", "-f", "-"];
        let mut command = self.within(id, &words);
        let child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| stopped("nft", error))?;
        let mut input = child.stdin.take().expect("it is a pipe");
        // If it takes no more, its end says why.
        let _ = input.write_all(rules.as_bytes());
        drop(input);
        let output = child.wait_with_output().map_err(|error| stopped("nft", error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(stopped("nft", String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Resets every connection between a node and some others; both ends hear of it.
    pub(crate) fn reset(&self, id: u8, from: &[u8]) -> Result<(), Failed> {
        for other in from {
            let address = self.host(*other).address.to_string();
            let words = ["ss", "-K", "-tn", "dst", &address];
            let output = self.within(id, &words).stdin(Stdio::null()).output();
            let output = output.map_err(|error| stopped("ss", error))?;
            if !output.status.success() {
                return Err(stopped("ss -K", String::from_utf8_lossy(&output.stderr).trim()));
            }
        }
        Ok(())
    }

    /// A program in a node's namespace.
    fn within(&self, id: u8, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NAMES}/{}", self.host(id).namespace)).args(words);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.made.iter().rev().for_each(cleanup::undo);
    }
}

fn is_mounted(folder: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(folder))
}

/// The whole content of a namespace's rules.
fn rules(from: &[Ipv4Addr], cut: Cut) -> String {
    let addresses: Vec<String> = from.iter().map(ToString::to_string).collect();
    let addresses = addresses.join(", ");
    let some = match cut.percent {
        100.. => String::new(),
        percent => format!("numgen random mod 100 < {percent} "),
    };
    let chain = |hook: &str, field: &str| {
        format!(
            "  chain {hook} {{\n    type filter hook {hook} priority 0 ; policy accept ;\n    \
             ip {field} {{ {addresses} }} {some}drop\n  }}\n"
        )
    };
    let input = if cut.input { chain("input", "saddr") } else { String::new() };
    let output = if cut.output { chain("output", "daddr") } else { String::new() };
    format!("flush ruleset\ntable inet {TABLE} {{\n{input}{output}}}\n")
}

/// The third part of an address of which nobody here has another.
fn free_subnet() -> Result<u8, Failed> {
    let taken = run(&["ip", "-o", "-4", "addr"])?;
    let first = (process::id() % 250) as u8;
    let mut all = (0..250).map(|step| (first + step) % 250);
    let free = all.find(|third| !taken.contains(&format!(" 10.99.{third}.")));
    free.ok_or_else(|| Failed::Stopped("all of 10.99.0.0/16 is taken here".into()))
}

/// Removes the namespaces and interfaces of runs that are over.
pub(crate) fn sweep() {
    for name in names_in(Path::new(NAMES), NAMESPACE) {
        eprintln!("an earlier run left the namespace {name}: removing it");
        cleanup::undo(&Undo::Namespace(name));
    }
    for name in names_in(Path::new("/sys/class/net"), LINK) {
        eprintln!("an earlier run left the interface {name}: removing it");
        cleanup::undo(&Undo::Link(name));
    }
}

/// What begins with this and the number of a process that is not a rig's any more.
fn names_in(folder: &Path, begins: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.strip_prefix(begins).is_some_and(is_over)).collect()
}

fn is_over(number: &str) -> bool {
    let number = number.split('-').next().unwrap_or_default();
    let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
    number.parse::<u32>().is_ok_and(|number| number != process::id()) && !name.starts_with("power")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_names_its_direction_its_nodes_and_its_share() {
        let from = [Ipv4Addr::new(10, 99, 7, 1), Ipv4Addr::new(10, 99, 7, 3)];
        let lossy = rules(&from, Cut { input: true, output: false, percent: 20 });
        let expected = "flush ruleset\ntable inet power {\n  chain input {\n    type filter hook input \
                        priority 0 ; policy accept ;\n    ip saddr { 10.99.7.1, 10.99.7.3 } numgen \
                        random mod 100 < 20 drop\n  }\n}\n";
        assert_eq!(lossy, expected);
        let whole = rules(&from[..1], Cut::WHOLE);
        assert!(whole.contains("ip daddr { 10.99.7.1 } drop"), "{whole}");
        assert!(whole.contains("ip saddr { 10.99.7.1 } drop"), "{whole}");
    }

    #[test]
    fn what_belongs_to_no_process_is_over_and_other_names_are_nobodys_business() {
        assert!(is_over("4294967295-1"));
        assert!(!is_over(&process::id().to_string()));
        assert!(!is_over("x-1"));
    }
}
