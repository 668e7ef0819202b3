//! Reads never look back: what is acknowledged through one node is read through every other at
//! once, while nodes freeze and thaw as much as while all is well.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Client, Reply};
use crate::cluster::{Cluster, Node};
use crate::shared;
use crate::wait::wait_until;

#[test]
fn a_write_through_one_node_is_read_through_the_others_at_once() {
    let cluster = shared::cluster();
    let mut clients: Vec<Client> = cluster.nodes.iter().map(Node::client).collect();
    for round in 0..60 {
        // Keys of all groups: whoever leads, two of three nodes must ask somebody else.
        let key = format!("through:{}", round % 20);
        let value = round.to_string();
        let writer = round % clients.len();
        assert_eq!(clients[writer].call(&["SET", &key, &value]), Reply::ok());
        for (reader, client) in clients.iter_mut().enumerate() {
            let got = client.call(&["GET", &key]);
            assert_eq!(got, Reply::bulk(&value), "round {round}: through {writer}, then {reader}");
        }
    }
}

/// Counts are kept by the writer and the readers of one counter; every clock here is one of these.
#[derive(Default)]
struct Tally {
    /// The highest INCR that was acknowledged: no later read may be below it.
    acknowledged: AtomicI64,
    acknowledgements: AtomicI64,
    /// INCRs that may or may not have been executed.
    unknown: AtomicI64,
    is_over: AtomicBool,
}

/// A client of one node that gives up soon and comes back: its node may be frozen.
struct Impatient<'a> {
    node: &'a Node,
    client: Option<Client>,
    /// Reads are answered by the node itself.
    readonly: bool,
}

impl Impatient<'_> {
    /// A reply, or `None` if nobody can say what became of the command.
    fn call(&mut self, words: &[&str]) -> Option<Reply> {
        if self.client.is_none() {
            self.client = Client::try_connect(self.node.client, Duration::from_millis(1500)).ok();
            if self.readonly && self.client.as_mut()?.try_call(&["READONLY"]).is_err() {
                self.client = None;
            }
        }
        let reply = self.client.as_mut()?.try_call(words);
        if reply.is_err() {
            self.client = None;
        }
        reply.ok()
    }
}

fn write(nodes: &[Node], tally: &Tally, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut clients: Vec<_> =
        nodes.iter().map(|node| Impatient { node, client: None, readonly: false }).collect();
    while !tally.is_over.load(Ordering::SeqCst) {
        match clients[random.usize(..nodes.len())].call(&["INCR", "stale"]) {
            Some(Reply::Integer(count)) => {
                let before = tally.acknowledged.fetch_max(count, Ordering::SeqCst);
                assert!(before < count, "INCR gave {count} after {before} (seed {seed})");
                tally.acknowledgements.fetch_add(1, Ordering::SeqCst);
            }
            Some(reply) if !reply.is_uncertain() => {
                // Definitely not executed; the last check holds us to it.
                assert!(matches!(reply, Reply::Error(_)), "INCR got {reply} (seed {seed})");
                std::thread::sleep(Duration::from_millis(5));
            }
            Some(_) | None => {
                tally.unknown.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

fn read(node: &Node, tally: &Tally, reads: &AtomicU64, readonly: bool) {
    let mut client = Impatient { node, client: None, readonly };
    while !tally.is_over.load(Ordering::SeqCst) {
        let floor = tally.acknowledged.load(Ordering::SeqCst);
        match client.call(&["GET", "stale"]) {
            Some(Reply::Bulk(count)) => {
                let count: i64 = String::from_utf8_lossy(&count).parse().expect("a counter");
                assert!(
                    floor <= count,
                    "node {} read {count} after {floor} was acknowledged",
                    node.id
                );
                reads.fetch_add(1, Ordering::SeqCst);
            }
            Some(Reply::Error(_)) => std::thread::sleep(Duration::from_millis(5)),
            Some(other) => panic!("GET got {other}"),
            None => {}
        }
    }
}

/// Thaws whatever a failed assertion leaves frozen.
struct Thaw<'a>(&'a Cluster);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.nodes.iter().for_each(|node| node.signal(Signal::CONT));
    }
}

#[test]
fn no_read_is_stale_while_nodes_freeze_and_thaw() {
    freeze_and_thaw(&shared::alone(), false);
}

#[test]
fn no_read_by_lease_is_stale_while_nodes_freeze_and_thaw() {
    freeze_and_thaw(&Cluster::start("leases", 3, &["--lease-groups", "all"]), false);
}

#[test]
fn no_read_of_a_follower_is_stale_while_nodes_freeze_and_thaw() {
    freeze_and_thaw(&Cluster::start("followers", 3, &[]), true);
}

/// Freezes nodes at random under one writer and a reader per node.
fn freeze_and_thaw(cluster: &Cluster, readonly: bool) {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let nodes = &cluster.nodes;
    nodes[0].client().say("SET stale 0");
    let tally = Tally::default();
    let reads: Vec<AtomicU64> = nodes.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let tally = &tally;
        let mut threads = vec![scope.spawn(move || write(nodes, tally, seed))];
        for (node, reads) in nodes.iter().zip(&reads) {
            threads.push(scope.spawn(move || read(node, tally, reads, readonly)));
        }
        let thaw = Thaw(cluster);
        for _ in 0..7 {
            if threads.iter().any(|thread| thread.is_finished()) {
                break; // by a failed assertion, which the join below passes on
            }
            // Freeze whoever leads the counter's group half of the time: it is the one that may
            // believe, when it wakes, that it still leads. Longer than an election takes, or not.
            let frozen = &nodes[random.usize(..nodes.len())];
            frozen.signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(random.u64(200..2600)));
            frozen.signal(Signal::CONT);
            std::thread::sleep(Duration::from_millis(random.u64(50..600)));
        }
        drop(thaw);
        cluster.wait_ready();
        let goal = tally.acknowledgements.load(Ordering::SeqCst) + 10;
        wait_until("the counter goes on", || {
            threads.iter().any(|thread| thread.is_finished())
                || goal <= tally.acknowledgements.load(Ordering::SeqCst)
        });
        tally.is_over.store(true, Ordering::SeqCst);
        for thread in threads {
            if let Err(panic) = thread.join() {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    });

    for (node, reads) in nodes.iter().zip(&reads) {
        assert!(0 < reads.load(Ordering::SeqCst), "nothing was ever read through node {}", node.id);
    }
    let count: i64 = nodes[0].client().say("GET stale").text().parse().expect("a counter");
    let acknowledged = tally.acknowledgements.load(Ordering::SeqCst);
    let most = acknowledged + tally.unknown.load(Ordering::SeqCst);
    println!("{acknowledged} acknowledged, at most {most}, counted {count}");
    assert!(acknowledged <= count, "an acknowledged INCR is lost (seed {seed})");
    assert!(count <= most, "an INCR ran twice, or ran though it was refused (seed {seed})");
}
