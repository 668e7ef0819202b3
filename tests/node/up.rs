//! `outrigger up`: a whole cluster from one command, its table, its end, and its return.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::admin;
use crate::client::{Client, Reply};
use crate::cluster::{OUTRIGGER, TestDir, free_address};
use crate::config::run;
use crate::wait::{wait_for, wait_until};

/// A running `up`.
struct Up {
    process: Child,
    /// Every line of stdout and stderr so far.
    said: Arc<Mutex<Vec<String>>>,
    rows: Vec<Row>,
}

/// One row of its table.
#[derive(Debug, Clone)]
struct Row {
    node: u64,
    client: SocketAddr,
    pid: Pid,
    dir: String,
    led: u64,
}

impl Up {
    fn start(arguments: &[&str]) -> Up {
        let mut process = Command::new(OUTRIGGER)
            .arg("up")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("up starts");
        let said = Arc::new(Mutex::new(Vec::new()));
        collect(process.stdout.take().expect("a pipe"), &said);
        collect(process.stderr.take().expect("a pipe"), &said);
        let mut up = Up { process, said, rows: Vec::new() };
        up.wait_said("ready", |line| line.trim() == "ready");
        up.rows = up.lines().iter().filter_map(|line| Row::parse(line)).collect();
        up
    }

    fn lines(&self) -> Vec<String> {
        self.said.lock().expect("no panic while it is held").clone()
    }

    fn wait_said(&mut self, what: &str, matches: impl Fn(&str) -> bool) {
        let said = Arc::clone(&self.said);
        let process = &mut self.process;
        let lines = || said.lock().expect("no panic while it is held").clone();
        wait_until(&format!("up says {what}"), || {
            let ended = process.try_wait().expect("a child");
            assert!(ended.is_none(), "up ended: {ended:?}\n{}", lines().join("\n"));
            lines().iter().any(|line| matches(line))
        });
    }

    fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("it runs");
        wait_for("up ends", || self.process.try_wait().expect("a child"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
            for _ in 0..200 {
                if !matches!(self.process.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        // Grandchildren, only if they are what they were.
        for row in &self.rows {
            if row.is_running() {
                let _ = kill_process(row.pid, Signal::KILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("up said:\n{}", self.lines().join("\n"));
        }
    }
}

impl Row {
    /// `node  client address  pid  directory  groups led`
    fn parse(line: &str) -> Option<Row> {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let [node, client, pid, dir, led] = cells[..] else { return None };
        Some(Row {
            node: node.parse().ok()?,
            client: client.parse().ok()?,
            pid: Pid::from_raw(pid.parse().ok()?)?,
            dir: dir.to_owned(),
            led: led.parse().ok()?,
        })
    }

    fn is_running(&self) -> bool {
        let path = format!("/proc/{}/cmdline", self.pid.as_raw_nonzero());
        let line = std::fs::read(path).unwrap_or_default();
        test_kill_process(self.pid).is_ok() && String::from_utf8_lossy(&line).contains(&self.dir)
    }
}

fn collect(pipe: impl std::io::Read + Send + 'static, said: &Arc<Mutex<Vec<String>>>) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            said.lock().expect("no panic while it is held").push(line);
        }
    });
}

/// The first of three free neighbouring ports.
fn three_ports() -> u16 {
    loop {
        let first = free_address().port();
        let is_free = |port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (first + 1..first + 3).all(is_free) {
            free_address();
            free_address();
            return first;
        }
    }
}

fn check_table(up: &Up, dir: &Path, client_port: u16) {
    let nodes: Vec<u64> = up.rows.iter().map(|row| row.node).collect();
    assert_eq!(nodes, [1, 2, 3], "one row per node: {:?}", up.lines());
    for (row, port) in up.rows.iter().zip(client_port..) {
        assert_eq!(row.client.port(), port, "ports in a row");
        assert!(Path::new(&row.dir).starts_with(dir) && Path::new(&row.dir).is_dir(), "{row:?}");
        assert!(row.is_running(), "{row:?}");
    }
    let led: u64 = up.rows.iter().map(|row| row.led).sum();
    assert_eq!(led, 4, "every group has a leader in the table: {:?}", up.rows);
}

/// Every node has one, in a row, and the layout says which.
fn check_admin_ports(dir: &Path, first: u16) {
    let text = std::fs::read_to_string(dir.join("cluster.json")).expect("a layout");
    let layout: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let members = layout["members"].as_array().expect("members");
    for (member, port) in members.iter().zip(first..) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(member["admin"].as_str(), Some(address.to_string().as_str()));
        assert_eq!(admin::get(address, "/readyz").body, "ready\n");
        let status: serde_json::Value =
            serde_json::from_str(&admin::get(address, "/status").body).expect("JSON");
        assert_eq!(status["node"], member["id"]);
    }
    assert_eq!(members.len(), 3);
}

#[test]
fn a_cluster_from_one_command() {
    let test_dir = TestDir::new("up");
    let dir = test_dir.path().join("data");
    let dir_text = dir.to_str().expect("UTF-8");
    let (client_port, peer_port, admin_port) = (three_ports(), three_ports(), three_ports());
    let ports = [client_port, peer_port, admin_port].map(|port| port.to_string());
    let flags = [
        "--nodes",
        "3",
        "--dir",
        dir_text,
        "--client-port",
        &ports[0],
        "--peer-port",
        &ports[1],
        "--admin-port",
        &ports[2],
        "--groups",
        "4",
    ];

    let mut up = Up::start(&flags);
    check_table(&up, &dir, client_port);
    check_admin_ports(&dir, admin_port);
    let mut first = Client::connect(up.rows[0].client);
    for number in 0..30 {
        assert_eq!(first.say(&format!("SET up:{number} {number}")), Reply::ok());
    }
    assert_eq!(Client::connect(up.rows[1].client).say("GET up:3"), Reply::bulk("3"));
    let children = up.rows.clone();
    let status = up.stop();
    assert_eq!(status.code(), Some(0), "SIGTERM: {:?}", up.lines());
    assert!(!children.iter().any(Row::is_running), "up stops its children before itself");
    drop(up);

    // Another shape is refused by name, and touches nothing.
    for (flag, value) in [("--nodes", "5"), ("--groups", "9")] {
        let output = run(Command::new(OUTRIGGER).args(["up", "--dir", dir_text, flag, value]));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code().is_some_and(|code| code != 0), "{flag} {value}: {stderr}");
        assert!(stderr.contains(flag.trim_start_matches('-')), "{flag} {value}: {stderr}");
    }

    // It remembers the rest by itself.
    let mut up = Up::start(&["--dir", dir_text]);
    check_table(&up, &dir, client_port);
    check_admin_ports(&dir, admin_port);
    let mut third = Client::connect(up.rows[2].client);
    for number in 0..30 {
        let value = third.say(&format!("GET up:{number}"));
        assert_eq!(value, Reply::bulk(number.to_string()), "kept for the next up");
    }

    // One `up` per directory.
    let output = run(Command::new(OUTRIGGER).args(["up", "--dir", dir_text]));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "a second up: {stderr}");

    // A child that dies is reported, and the others go on.
    let victim = up.rows[0].clone();
    let lines_before = up.lines().len();
    kill_process(victim.pid, Signal::KILL).expect("it runs");
    wait_until("up reports the killed node 1", || {
        let lines = up.lines();
        lines[lines_before..].iter().any(|line| {
            let line = line.to_lowercase();
            line.contains("node 1")
                && ["exit", "kill", "signal", "died", "stopped"]
                    .iter()
                    .any(|word| line.contains(word))
        })
    });
    // The killed node may have been the key's leader: then the first answers are uncertain.
    wait_until("two of three go on", || third.say("SET up:after v") == Reply::ok());
    let children = up.rows.clone();
    up.stop();
    assert!(!children.iter().any(Row::is_running), "up stops its children before itself");
}
