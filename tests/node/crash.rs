//! kill -9: of everybody under load, and of one. What was acknowledged is there afterwards, what
//! was refused is not, and whoever returns catches up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::client::{Client, Reply};
use crate::cluster::{Cluster, Node};
use crate::wait::{PATIENCE, wait_until};

/// What one writer knows of its keys `w<writer>:<number>`, in order of writing.
#[derive(Default)]
pub(crate) struct Diary {
    acknowledged: Vec<String>,
    refused: Vec<String>,
}

/// Sets one new key after the other until the node is gone or `is_over`.
pub(crate) fn write_to(
    address: SocketAddr,
    name: &str,
    acknowledged: &AtomicU64,
    is_over: &AtomicBool,
) -> Diary {
    let mut diary = Diary::default();
    let mut client = Client::connect(address);
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{name}:{number}");
        match client.try_call(&["SET", &key, &value_of(&key)]) {
            Ok(reply) if reply == Reply::ok() => {
                diary.acknowledged.push(key);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(reply) if reply.is_uncertain() => {}
            Ok(Reply::Error(_)) => {
                diary.refused.push(key);
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(other) => panic!("SET got {other}"),
            Err(_) => break, // this node was killed; the last key is unknown
        }
    }
    diary
}

/// Long enough that entries of many sizes share a log block.
fn value_of(key: &str) -> String {
    format!("value of {key} ").repeat(1 + key.len() % 7)
}

pub(crate) fn check(client: &mut Client, diaries: &[Diary]) {
    for diary in diaries {
        for keys in diary.acknowledged.chunks(100) {
            let mut words = vec!["MGET"];
            words.extend(keys.iter().map(String::as_str));
            let values = client.call(&words).array();
            assert_eq!(values.len(), keys.len(), "MGET answers for every key, or not at all");
            for (key, value) in keys.iter().zip(values) {
                assert_eq!(value, Reply::bulk(value_of(key)), "{key} was acknowledged");
            }
        }
        for key in &diary.refused {
            let value = client.call(&["GET", key]);
            assert_eq!(value, Reply::NilBulk, "{key} was refused, so it must not be there");
        }
    }
}

/// While some groups have a leader and others have none, a command over all of them is answered
/// whole or refused, until every group has one again.
fn whole_or_refused(node: &Node, keys: &[String]) {
    let mut client = node.client();
    let mut exists = vec!["EXISTS"];
    exists.extend(keys.iter().map(String::as_str));
    let mut sizes = Vec::new();
    wait_until("the groups that lost their leader elect another", || {
        let count = client.try_call(&exists).expect("a reply");
        let is_refused = count.is_not_ready();
        assert!(is_refused || count == Reply::Integer(keys.len() as i64), "EXISTS got {count}");
        let size = client.try_call(&["DBSIZE"]).expect("a reply");
        if !size.is_not_ready() {
            // Nobody writes: all answers are the same.
            sizes.push(size.integer());
            assert_eq!(sizes.first(), sizes.last(), "DBSIZE got {sizes:?}");
        }
        !is_refused && !sizes.is_empty()
    });
}

#[test]
fn every_acknowledged_write_survives_kill_9_of_all_nodes() {
    let mut cluster = Cluster::start("kill-all", 3, &["--groups", "4"]);
    let mut diaries = Vec::new();
    for round in 0..2 {
        let (acknowledged, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.client).collect();
        std::thread::scope(|scope| {
            let (counter, is_over) = (&acknowledged, &is_over);
            let writers: Vec<_> = (0..12)
                .map(|writer| {
                    let name = format!("r{round}w{writer}");
                    let address = addresses[writer % addresses.len()];
                    scope.spawn(move || write_to(address, &name, counter, is_over))
                })
                .collect();
            wait_until("enough is written", || 600 <= acknowledged.load(Ordering::Relaxed));
            cluster.nodes.iter_mut().for_each(Node::kill);
            is_over.store(true, Ordering::Relaxed);
            diaries.extend(writers.into_iter().map(|writer| writer.join().expect("a writer")));
        });
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_ready();
        for node in &cluster.nodes {
            check(&mut node.client(), &diaries);
        }
        let digests = cluster.digests();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    }
    let count: usize = diaries.iter().map(|diary| diary.acknowledged.len()).sum();
    println!("{count} acknowledged writes, all there");
}

#[test]
fn one_node_down_and_back() {
    let mut cluster = Cluster::start("kill-one", 3, &["--groups", "4"]);
    let mut diaries = Vec::new();
    let (acknowledged, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.client).collect();
    let before = cluster.digests();
    std::thread::scope(|scope| {
        let (counter, is_over) = (&acknowledged, &is_over);
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let name = format!("w{writer}");
                let address = addresses[writer % addresses.len()];
                scope.spawn(move || write_to(address, &name, counter, is_over))
            })
            .collect();
        wait_until("enough is written", || 200 <= acknowledged.load(Ordering::Relaxed));
        cluster.nodes[0].kill();
        let goal = acknowledged.load(Ordering::Relaxed) + 500;
        wait_until("two of three go on", || goal <= acknowledged.load(Ordering::Relaxed));
        cluster.nodes[0].start();
        let goal = acknowledged.load(Ordering::Relaxed) + 200;
        wait_until("it goes on while one returns", || goal <= acknowledged.load(Ordering::Relaxed));
        is_over.store(true, Ordering::Relaxed);
        diaries.extend(writers.into_iter().map(|writer| writer.join().expect("a writer")));
    });
    cluster.wait_ready();
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "it has caught up: {digests:?}");
    assert_ne!(digests, before);
    check(&mut cluster.nodes[0].client(), &diaries);

    // What the returned node holds, it holds for good: with it and one other, all is there.
    cluster.nodes[1].kill();
    whole_or_refused(&cluster.nodes[0], &diaries[1].acknowledged[..50]);
    check(&mut cluster.nodes[0].client(), &diaries);
    cluster.nodes[2].kill();
    // One of three is no quorum: it refuses, and neither hangs nor invents.
    let mut client = Client::try_connect(cluster.nodes[0].client, PATIENCE).expect("it listens");
    wait_until("the lonely node refuses writes", || {
        let reply = client.try_call(&["SET", "lonely", "v"]).expect("an answer");
        assert_ne!(reply, Reply::ok(), "no quorum holds this");
        reply.is_not_ready()
    });
    wait_until("the lonely node refuses reads", || {
        let reply = client.try_call(&["GET", "w0:0"]).expect("an answer");
        assert!(matches!(reply, Reply::Error(_)), "no quorum confirms this read: {reply}");
        reply.is_not_ready()
    });
}
