//! Every commit explained: a disk that is slow is named, with its node, by the leader that waits for it; and the
//! operations that took long are told with where their time went.

use crate::client::{Client, Reply};
use crate::cluster::Cluster;
use crate::info::Info;
use crate::script::play;
use crate::wait::wait_until;

/// How long every flush of the slow disk takes at least.
const DELAY_US: u64 = 5_000;

fn leader(cluster: &Cluster) -> usize {
    let leads = |node: &usize| Info::of(&cluster.nodes[*node]).groups[&0].role == "leader";
    (0..cluster.nodes.len()).find(leads).expect("somebody leads")
}

/// The share of the last commits, in percent, that `INFO` says this stage of this node has set.
fn share(info: &Info, node: u64, stage: &str) -> f64 {
    let name = format!("commits_set_by_node_{node}_{stage}_core_0");
    let Some(line) = info.fields.get(&name) else { return 0.0 };
    let share = line.split_once("share=").and_then(|(_, rest)| rest.split_once('%'));
    share.and_then(|(share, _)| share.parse().ok()).expect("a share in percent")
}

/// The median of a stage, in µs.
fn median(info: &Info, name: &str) -> u64 {
    let line = info.fields.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", info.fields));
    let p50 = line.split_once("p50=").and_then(|(_, rest)| rest.split_once(','));
    p50.and_then(|(p50, _)| p50.parse().ok()).expect("a median")
}

fn write(client: &mut Client, count: usize) {
    for number in 0..count {
        let key = format!("key-{number}");
        assert_eq!(client.call(&[b"SET", key.as_bytes(), b"value"]), Reply::ok());
    }
}

#[test]
fn five_milliseconds_on_the_disk_of_one_follower_are_named() {
    let flags =
        ["--groups", "1", "--election-ms", "5000", "--fault-commands", "--slowlog-us", "5000"];
    let mut cluster = Cluster::start("explain", 3, &flags);
    let at = leader(&cluster);
    let (slow, third) = ((at + 1) % 3, (at + 2) % 3);
    let slow_id = cluster.nodes[slow].id;
    assert_eq!(cluster.nodes[slow].client().say("DEBUG DELAY-DISK 5"), Reply::ok());

    // The other follower is enough for a quorum, so the slow one sets no commit time; its disk is seen all the same.
    let mut client = cluster.nodes[at].client();
    write(&mut client, 50);
    let stage = format!("stage_follower_flush_us_node_{slow_id}_core_0");
    wait_until("the leader knows how slow that disk is", || {
        let info = Info::of(&cluster.nodes[at]);
        info.fields.contains_key(&stage) && DELAY_US <= median(&info, &stage)
    });

    // Without the other every commit waits for it.
    cluster.nodes[third].kill();
    write(&mut client, 400);
    wait_until("the leader names the follower and the stage", || {
        write(&mut client, 50);
        50.0 < share(&Info::of(&cluster.nodes[at]), slow_id, "follower_flush")
    });
    let Reply::Array(ops) = client.say("SLOWLOG GET 1") else { panic!("an array") };
    let [Reply::Array(op)] = &ops[..] else { panic!("one operation: {ops:?}") };
    let Reply::Integer(us) = op[2] else { panic!("µs: {op:?}") };
    assert!(DELAY_US as i64 <= us, "{op:?}");
    let Reply::Array(args) = &op[3] else { panic!("arguments: {op:?}") };
    assert_eq!((&args[0], &args[2]), (&Reply::bulk("SET"), &Reply::bulk("value")));
    let trace = op[6].to_string();
    assert!(trace.contains(&format!("set by node {slow_id}: follower_flush")), "{trace}");
    for stage in ["send", "follower_flush", "reply"] {
        assert!(trace.contains(&format!(" {stage} ")), "{stage} is not in {trace}");
    }

    // Now the leader's own.
    assert_eq!(cluster.nodes[slow].client().say("DEBUG DELAY-DISK 0"), Reply::ok());
    assert_eq!(client.say("DEBUG DELAY-DISK 5"), Reply::ok());
    let own = cluster.nodes[at].id;
    wait_until("the leader names itself", || {
        write(&mut client, 50);
        50.0 < share(&Info::of(&cluster.nodes[at]), own, "flush")
    });
}

#[test]
fn slow_operations_are_told_counted_and_forgotten() {
    let cluster = Cluster::start("slowlog", 1, &["--groups", "4", "--slowlog-us", "0"]);
    let mut client = cluster.nodes[0].client();
    play(
        &mut client,
        r"
        SLOWLOG RESET           => +OK
        SLOWLOG LEN             => :0
        SET k v                 => +OK
        SLOWLOG LEN             => :1
        INCR n                  => :1
        SLOWLOG LEN             => :2
        SLOWLOG GET 0           => []
        SLOWLOG RESET           => +OK
        SLOWLOG LEN             => :0
        SLOWLOG GET -2          => -ERR count should be greater than or equal to -1
        SLOWLOG GET x           => -ERR value is not an integer or out of range
        ",
    );
    let error = client.say("SLOWLOG HALP");
    assert!(error.error().contains("Try SLOWLOG HELP"), "{error}");
    let fast = Cluster::start("no-slowlog", 1, &["--groups", "1", "--slowlog-us", "60000000"]);
    let mut client = fast.nodes[0].client();
    play(&mut client, "SET k v => +OK\nSLOWLOG LEN => :0");
}

#[test]
fn the_way_to_the_leader_and_back_is_measured_where_a_command_came_in() {
    let cluster = Cluster::start("forward-leg", 3, &["--groups", "1", "--slowlog-us", "0"]);
    let at = leader(&cluster);
    let entered = &cluster.nodes[(at + 1) % 3];
    let count = |node| {
        let info = Info::of(node);
        let line = &info.fields["forward_us_core_0"];
        let count = line.strip_prefix("n=").and_then(|rest| rest.split_once(','));
        count.and_then(|(count, _)| count.parse::<u64>().ok()).expect("a count")
    };
    let mut client = entered.client();
    write(&mut client, 40);
    assert_eq!(client.say("GET key-0"), Reply::bulk("value"));
    wait_until("what was forwarded is counted", || 41 <= count(entered));
    assert_eq!(count(&cluster.nodes[at]), 0, "the leader forwards nothing");

    // Without writes between, the latest of all is the read.
    let Reply::Array(ops) = client.say("SLOWLOG GET 1") else { panic!("an array") };
    let [Reply::Array(op)] = &ops[..] else { panic!("one operation: {ops:?}") };
    assert_eq!(op[3].to_string(), r#"["GET" "key-0"]"#);
    let (trace, leader) = (op[6].to_string(), cluster.nodes[at].id);
    assert!(trace.contains(&format!("group 0 forwarded to node {leader}")), "{trace}");
    assert!(trace.contains(&format!("node {leader} forward ")), "{trace}");
}
