//! Fault switches (`--fault-commands`), and what a node shows while one is on: a slow disk is counted,
//! a clean end waits for it, a paused peer is led by others, and a silent one is hung up on.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Reply, encode};
use crate::cluster::Cluster;
use crate::info::Info;
use crate::wait::wait_until;

#[test]
fn contract_row_14_fault_switches_exist_only_behind_their_flag() {
    let cluster = Cluster::start("no-faults", 1, &["--groups", "1"]);
    let mut client = cluster.nodes[0].client();
    for line in ["DEBUG STALL-DISK 1000", "DEBUG PAUSE-PEERS 0 1000"] {
        assert!(client.say(line).error().starts_with("ERR unknown subcommand"), "{line}");
    }
    assert_eq!(client.say("SET k v"), Reply::ok());
}

#[test]
fn contract_row_14_a_leader_whose_peers_are_paused_is_replaced_and_finds_back() {
    let flags = ["--groups", "1", "--election-ms", "500", "--fault-commands"];
    let cluster = Cluster::start("pause-peers", 3, &flags);
    let leads = |node: usize| Info::of(&cluster.nodes[node]).groups[&0].role == "leader";
    let old = (0..3).find(|&node| leads(node)).expect("somebody leads");
    assert_eq!(cluster.nodes[old].client().say("DEBUG PAUSE-PEERS 0 60000"), Reply::ok());
    let others: Vec<usize> = (0..3).filter(|&node| node != old).collect();
    wait_until("another node leads", || others.iter().any(|&node| leads(node)));
    wait_until("it takes writes", || {
        cluster.nodes[others[0]].client().say("SET k during") == Reply::ok()
    });
    wait_until("the old one knows that it leads no more", || !leads(old));
    assert_eq!(cluster.nodes[old].client().say("DEBUG PAUSE-PEERS 0 0"), Reply::ok());
    wait_until("it finds back", || {
        cluster.nodes[old].client().say("GET k") == Reply::bulk("during")
    });
}

#[test]
fn contract_row_58_a_slow_flush_is_logged_counted_and_measured() {
    let cluster = Cluster::start(
        "slow-flush",
        1,
        &["--groups", "1", "--election-ms", "5000", "--fault-commands"],
    );
    let mut client = cluster.nodes[0].client();
    client.say("SET k before");
    assert_eq!(Info::of(&cluster.nodes[0]).number("flushes_slow"), 0);
    assert_eq!(client.say("DEBUG STALL-DISK 1300"), Reply::ok());
    let started = Instant::now();
    assert_eq!(client.say("SET k slow"), Reply::ok());
    assert!(Duration::from_millis(1200) < started.elapsed(), "acknowledged after the flush");
    wait_until("INFO tells it", || {
        let info = Info::of(&cluster.nodes[0]);
        let spread = &info.fields["flush_us_core_0"];
        let max = spread.rsplit_once("max=").expect("percentiles").1;
        1 <= info.number("flushes_slow") && 1_000_000 <= max.parse::<u64>().expect("a number")
    });
    assert!(cluster.nodes[0].log().contains("slow log flush"));
}

/// Told to stop, twice, while a write is on its way to a disk that takes its time: the write is
/// finished and answered, then everything ends in order, and nothing is lost.
#[test]
fn contract_row_60_the_end_waits_for_the_flush_under_way_and_may_be_asked_for_twice() {
    let mut cluster = Cluster::start(
        "stop-in-flush",
        1,
        &["--groups", "2", "--election-ms", "5000", "--fault-commands"],
    );
    let mut client = cluster.nodes[0].client();
    client.say("SET k before");
    assert_eq!(client.say("DEBUG STALL-DISK 1500"), Reply::ok());
    let started = Instant::now();
    client.send(&encode(&["SET", "k", "in flight"])).expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    cluster.nodes[0].signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    cluster.nodes[0].signal(Signal::TERM);
    assert_eq!(client.read().expect("a reply"), Reply::ok(), "what was under way is answered");
    assert_eq!(cluster.nodes[0].wait_exit().code(), Some(0), "{}", cluster.nodes[0].log());
    assert!(Duration::from_millis(1400) < started.elapsed(), "it did not wait for the flush");
    let log = cluster.nodes[0].log();
    assert_eq!(log.matches("core stopped").count(), 1, "{log}");
    cluster.nodes[0].start();
    cluster.wait_ready();
    assert_eq!(cluster.nodes[0].client().say("GET k"), Reply::bulk("in flight"));
}

/// A peer that is frozen keeps its connections: only silence tells.
#[test]
fn contract_row_51_a_silent_peer_is_hung_up_on_and_every_link_shows_its_round_trip() {
    let cluster = Cluster::start("silent", 3, &["--groups", "1"]);
    wait_until("every link is up and measured", || {
        let info = Info::of(&cluster.nodes[0]);
        [2, 3].iter().all(|peer| {
            let link = info.fields.get(&format!("link_{peer}_core_0"));
            link.is_some_and(|link| link.starts_with("up,rtt_us="))
        })
    });
    assert_eq!(Info::of(&cluster.nodes[0]).number("peers_silent"), 0);
    cluster.nodes[2].signal(Signal::STOP);
    wait_until("the others hang up", || {
        [0, 1].iter().all(|&node| 1 <= Info::of(&cluster.nodes[node]).number("peers_silent"))
    });
    cluster.nodes[2].signal(Signal::CONT);
    cluster.wait_ready();
    wait_until("it takes part again", || {
        cluster.nodes[2].client().say("SET back yes") == Reply::ok()
    });
}
