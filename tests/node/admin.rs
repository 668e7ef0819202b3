//! The admin port: health, metrics, status; and what it does with requests that are not any.
//!
//! Which metrics there are is held by `docs/metrics.md`; here they are compared with `INFO`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use outrigger::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_BYTES_MAX};
use serde_json::Value;

use crate::client::Reply;
use crate::cluster::{Cluster, Node};
use crate::info::Info;
use crate::wait::{PATIENCE, wait_until};

/// An answer, or what there was of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Reads until the other side has nothing more to say.
    fn read(mut socket: TcpStream) -> Answer {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).expect("an answer and an end, not a reset");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|code| code.parse().ok());
        Answer {
            status: status.unwrap_or_else(|| panic!("no status: {head}")),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> &str {
        let named = |line: &str| line.split_once(": ").is_some_and(|(found, _)| found == name);
        let line = self.head.lines().find(|line| named(line));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head)).split_at(name.len() + 2).1
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("the admin port listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
}

pub(crate) fn send(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut socket = connect(address);
    socket.write_all(bytes).expect("sent");
    Answer::read(socket)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
}

/// Where a node that was started with port 0 has its admin port: it says so.
pub(crate) fn admin(node: &Node) -> SocketAddr {
    let log = node.log();
    let said = log.rsplit("status page: http://").next().expect("the last one");
    let said = said.split('/').next().expect("an address");
    let said: SocketAddr = said.parse().unwrap_or_else(|_| panic!("{said}: {log}"));
    SocketAddr::from((Ipv4Addr::LOCALHOST, said.port()))
}

/// Samples of the metrics by name, summed over their labels.
pub(crate) fn sums(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_ours = name.starts_with("outrigger_") || name.starts_with("process_");
        assert!(is_ours && name.chars().all(is_name), "{line}");
        let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("open: {line}"));
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{label}: {line}"));
            let is_quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
            assert!(name.chars().all(is_name) && is_quoted, "{line}");
        }
        *sums.entry(name.to_owned()).or_default() += value;
    }
    sums
}

#[test]
fn a_node_tells_what_it_is_and_what_it_misses_when_the_others_are_gone() {
    let flags = ["--admin", "127.0.0.1:0", "--groups", "4", "--cores", "2", "--election-ms", "500"];
    let mut cluster = Cluster::start("admin", 3, &flags);
    let port = admin(&cluster.nodes[0]);
    let mut client = cluster.nodes[0].client();
    for number in 0..40 {
        assert_eq!(client.say(&format!("SET admin:{number} v")), Reply::ok());
    }
    for path in ["/livez", "/readyz", "/metrics", "/status", "/"] {
        assert_eq!(get(port, path).status, 200, "{path}");
    }
    assert_eq!(get(port, "/readyz").body, "ready\n");

    // Numbers of an idle node are those of INFO, as soon as the port has asked again.
    let mut seen = None;
    wait_until("/metrics says what INFO says", || {
        let (metrics, status) = (get(port, "/metrics"), get(port, "/status"));
        assert_eq!((metrics.status, status.status), (200, 200));
        let status: Value = serde_json::from_str(&status.body).expect("JSON");
        let (info, sums) = (Info::of(&cluster.nodes[0]), sums(&metrics.body));
        let fields = [
            ("outrigger_wal_flushes_total", "wal_flushes"),
            ("outrigger_wal_bytes_total", "wal_bytes"),
            ("outrigger_entries_committed_total", "entries_committed"),
            ("outrigger_groups_led", "groups_led"),
            ("outrigger_leader_changes_total", "leader_changes"),
        ];
        let applied = info.applied().iter().sum::<u64>() as f64;
        let agree = |(metric, field): (&str, &str)| sums[metric] == info.number(field) as f64;
        // A heartbeat may tell a follower between two answers what is committed.
        let is_known = |(id, group): (usize, &Value)| {
            group["commit"].as_u64() == info.groups.get(&(id as u64)).map(|group| group.commit)
        };
        let mut groups = status["groups"].as_array().into_iter().flatten().enumerate();
        let is_same = fields.into_iter().all(agree)
            && sums["outrigger_proposals_applied_total"] == applied
            && groups.all(is_known);
        seen = Some((sums, status, info));
        is_same
    });
    let (sums, status, info) = seen.expect("both were asked");
    assert_eq!((sums["outrigger_has_leader"], sums["outrigger_ready"]), (2.0, 1.0));
    assert_eq!(sums["outrigger_group_has_leader"], 4.0);
    assert_eq!(
        sums["outrigger_flush_duration_seconds_count"], sums["outrigger_wal_flushes_total"],
        "every flush is measured"
    );
    assert_eq!((status["node"].as_u64(), status["ready"].as_bool()), (Some(1), Some(true)));
    assert_eq!(status["groups_led"].as_u64(), Some(info.number("groups_led")));
    let groups = status["groups"].as_array().expect("groups");
    for (id, group) in groups.iter().enumerate() {
        let expected = &info.groups[&(id as u64)];
        assert_eq!(group["group"].as_u64(), Some(id as u64));
        assert_eq!(group["leader"].as_u64(), Some(expected.leader));
        assert_eq!(group["commit"].as_u64(), Some(expected.commit));
        assert_eq!(group["role"].as_str(), Some(expected.role.as_str()));
    }
    assert_eq!(status["peers"].as_array().map(Vec::len), Some(2));

    // Whoever leads has heartbeats to lose.
    wait_until("the node leads all groups", || {
        client.try_call(&["MEMBER", "TRANSFER", "1"]).expect("an answer");
        Info::of(&cluster.nodes[0]).number("groups_led") == 4
    });
    // Without a majority no group has a leader; the process is as alive as before.
    for node in &mut cluster.nodes[1..] {
        node.kill();
    }
    wait_until("/readyz names the groups without a leader", || {
        let answer = get(port, "/readyz");
        let all = "4 groups without a leader that this node knows of: 0, 1, 2, 3\n";
        answer.status == 503 && answer.body == format!("not ready\n{all}")
    });
    assert_eq!(get(port, "/livez").status, 200);
    let status: Value = serde_json::from_str(&get(port, "/status").body).expect("JSON");
    assert_eq!(status["ready"].as_bool(), Some(false));
    let metrics = get(port, "/metrics").body;
    assert_eq!(self::sums(&metrics)["outrigger_has_leader"], 0.0);
    assert_eq!(self::sums(&metrics)["outrigger_groups_leaderless"], 4.0);
    assert!(0.0 < self::sums(&metrics)["outrigger_heartbeat_send_failures_total"], "{metrics}");
    let failed = self::sums(&metrics)["outrigger_proposals_failed_total"];
    let refused = client.try_call(&["SET", "admin:lost", "v"]).expect("an answer");
    assert!(refused.error().starts_with("NOLEADER "), "{refused}");
    wait_until("the refused write is counted", || {
        let metrics = get(port, "/metrics").body;
        self::sums(&metrics)["outrigger_proposals_failed_total"] == failed + 1.0
    });
    for node in &mut cluster.nodes[1..] {
        node.start();
    }
    wait_until("the node is ready again", || get(port, "/readyz").status == 200);
}

#[test]
fn a_new_node_is_alive_and_not_ready_before_its_peers_know_it() {
    let mut cluster = Cluster::prepare("admin-new", 3, &["--admin", "127.0.0.1:0"]);
    cluster.nodes[0].start();
    wait_until("it says where", || cluster.nodes[0].log().contains("status page: "));
    let port = admin(&cluster.nodes[0]);
    wait_until("its logs are replayed", || !get(port, "/readyz").body.contains("replays"));
    let answer = get(port, "/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("this node is new and asks its peers"), "{answer:?}");
    assert_eq!(get(port, "/livez").status, 200);
    assert_eq!(get(port, "/metrics").status, 200, "what it does meanwhile can be seen");
    assert_eq!(cluster.nodes[0].stop().code(), Some(0), "the admin port ends with its node");
}

#[test]
fn what_is_no_request_is_refused_by_name_and_harms_nobody() {
    let cluster = Cluster::start("admin-bad", 1, &["--admin", "0.0.0.0:0", "--groups", "1"]);
    let log = cluster.nodes[0].log();
    assert!(log.contains("can be reached from other machines"), "{log}");
    let port = admin(&cluster.nodes[0]);
    let host = "HTTP/1.1\r\nHost: a\r\n";
    for (request, status) in [
        ("*1\r\n$4\r\nPING\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400),
        ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET /livez {host}Content-Length: 4\r\n\r\nbody"), 400),
        (format!("GET /keys {host}\r\n"), 404),
        (format!("POST /livez {host}\r\n"), 405),
        (format!("GET /livez {host}{}\r\n", "a: b\r\n".repeat(200)), 431),
        (format!("GET /livez {host}Cookie: {}\r\n\r\n", "x".repeat(ADMIN_HEAD_BYTES_MAX)), 431),
        (format!("GET /{} {host}\r\n", "x".repeat(4 * ADMIN_HEAD_BYTES_MAX)), 431),
        ("GET / HTTP/3.0\r\n\r\n".to_owned(), 505),
        (format!("GET /livez {host}\r\nGET /livez {host}\r\n"), 200),
        ("GET /livez HTTP/1.0\r\n\r\n".to_owned(), 200),
    ] {
        let answer = send(port, request.as_bytes());
        let start: String = request.chars().take(60).collect();
        assert_eq!(answer.status, status, "{start:?}: {answer:?}");
        assert_eq!(answer.header("Content-Length"), answer.body.len().to_string(), "{start:?}");
        assert_eq!(answer.header("Connection"), "close");
        assert!(!answer.body.is_empty(), "{start:?} is told why");
    }
    let head = send(port, format!("HEAD /metrics {host}\r\n").as_bytes());
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let open = send(port, format!("GET /metrics {host}{accept}\r\n").as_bytes());
    assert!(open.header("Content-Type").starts_with("application/openmetrics-text"), "{open:?}");
    assert!(open.body.ends_with("# EOF\n"));
    let plain = get(port, "/metrics");
    assert!(plain.header("Content-Type").starts_with("text/plain; version=0.0.4"), "{plain:?}");
    assert_eq!(sums(&plain.body)["outrigger_late_turns_total"], {
        let open = open.body.replace("# EOF\n", "");
        sums(&open)["outrigger_late_turns_total"]
    });
    assert_eq!(cluster.nodes[0].client().say("SET k v"), Reply::ok());
}

#[test]
fn connections_that_say_nothing_or_too_little_cost_the_others_only_a_while() {
    let cluster = Cluster::start("admin-slow", 1, &["--admin", "127.0.0.1:0", "--groups", "1"]);
    let port = admin(&cluster.nodes[0]);
    let mut slow: Vec<TcpStream> = (0..ADMIN_CONNECTIONS_MAX).map(|_| connect(port)).collect();
    for socket in &mut slow {
        socket.write_all(b"GET /livez HTTP/1.1\r\nHost:").expect("sent");
    }
    // One more, which says what it wants, takes the place of the first: a supervisor hears that the node lives.
    let answer = get(port, "/livez");
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut nothing = Vec::new();
    let _ = slow.remove(0).read_to_end(&mut nothing);
    assert!(nothing.is_empty());
    assert_eq!(cluster.nodes[0].client().say("SET k v"), Reply::ok(), "nobody else notices");
    // One that goes makes room for one.
    let mut last = slow.pop().expect("many");
    last.write_all(b" localhost\r\n\r\n").expect("sent");
    assert_eq!(Answer::read(last).status, 200);
    assert_eq!(get(port, "/livez").status, 200);
    // The others are told that their time is over, however busy they look.
    for socket in &mut slow {
        socket.write_all(b" ").expect("sent");
    }
    for socket in slow {
        assert_eq!(Answer::read(socket).status, 408);
    }
    assert_eq!(get(port, "/livez").status, 200);
}
