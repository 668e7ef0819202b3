//! The peer port and strangers: garbage, a frame of another cluster, half a frame. Each costs its
//! own connection, is counted, and is noticed by no client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::client::{Client, Reply};
use crate::cluster::{Cluster, Node};
use crate::info::Info;
use crate::shared;
use crate::wait::{PATIENCE, wait_for, wait_until};

/// What a node of another cluster says first to a peer, recorded from a real one: node 2 dials
/// a listener that stands where its node 1 should be.
fn first_words_of_another_cluster() -> Vec<u8> {
    let mut stranger = Cluster::prepare("stranger", 2, &["--groups", "8", "--cluster", "other"]);
    let listener = TcpListener::bind(stranger.nodes[0].peer).expect("a free port");
    listener.set_nonblocking(true).expect("nonblocking");
    stranger.nodes[1].start();
    let mut socket = wait_for("node 2 dials node 1", || listener.accept().ok()).0;
    socket.set_nonblocking(false).expect("blocking");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut words = vec![0; 64 << 10];
    let count = socket.read(&mut words).expect("a peer introduces itself");
    assert!(0 < count, "a peer introduces itself");
    words.truncate(count);
    stranger.nodes[1].kill();
    words
}

fn dial(peer: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(peer).expect("the peer port accepts");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// Whether the node closes the connection, whatever it says before.
fn is_closed(mut socket: &TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// The node closes the connection and counts one more rejected frame.
fn rejected(node: &Node, what: &str, bytes: &[u8]) {
    let before = Info::of(node).number("frames_rejected");
    let mut socket = dial(node.peer);
    let _ = socket.write_all(bytes);
    assert!(is_closed(&socket), "{what}: the connection is closed");
    wait_until(&format!("frames_rejected grows after {what}"), || {
        before < Info::of(node).number("frames_rejected")
    });
}

#[test]
fn a_flood_of_garbage_is_told_in_few_lines_that_count_it_all() {
    const COUNT: u64 = 500;
    let cluster = Cluster::start("peer-flood", 1, &["--groups", "2"]);
    let node = &cluster.nodes[0];
    let told = || -> Vec<u64> {
        let log = node.log();
        let lines = log.lines().filter(|line| line.contains("peer refused"));
        let counts = lines.map(|line| {
            let (_, count) = line.split_once("count=").expect("counted");
            assert!(line.contains("last=127.0.0.1:") && line.contains("reason="), "{line}");
            let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().expect("a number")
        });
        counts.collect()
    };
    for _ in 0..COUNT {
        let mut socket = dial(node.peer);
        let _ = socket.write_all(&[b'x'; 256]);
        assert!(is_closed(&socket));
    }
    wait_until("all of them are told", || told().iter().sum::<u64>() == COUNT);
    let told = told();
    assert_eq!(told[0], 1, "the first at once: {told:?}");
    assert!((told.len() as u64) < COUNT / 4, "not a line for each: {told:?}");
}

fn still_works(clients: &mut [Client], round: &str) {
    for (number, client) in clients.iter_mut().enumerate() {
        let key = format!("peers:{number}");
        // Once, without asking again: nobody lost a leader.
        let reply = client.try_call(&["SET", &key, round]).expect("a reply");
        assert_eq!(reply, Reply::ok(), "after {round}");
        assert_eq!(client.try_call(&["GET", &key]).expect("a reply"), Reply::bulk(round));
    }
}

#[test]
fn strangers_are_rejected_and_nobody_notices() {
    let words = first_words_of_another_cluster();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let noise: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
    let mut flipped = words.clone();
    flipped[words.len() / 2] ^= 0x10;

    let cluster = shared::alone();
    let node = &cluster.nodes[0];
    // Connections made before, which must survive.
    let mut clients: Vec<Client> = cluster.nodes.iter().map(Node::client).collect();
    still_works(&mut clients, "nothing");
    let terms = |node| Info::of(node).groups.values().map(|group| group.term).collect::<Vec<_>>();
    let before = terms(node);
    rejected(node, "a redis command", b"*1\r\n$4\r\nPING\r\n".repeat(100).as_slice());
    still_works(&mut clients, "a redis command");
    rejected(node, "noise", &noise);
    still_works(&mut clients, "noise");
    rejected(node, "zeroes", &[0; 4096]);
    still_works(&mut clients, "zeroes");
    rejected(node, "ones", &[0xff; 4096]);
    still_works(&mut clients, "ones");
    rejected(node, "another cluster", &words);
    still_works(&mut clients, "another cluster");
    rejected(node, "a flipped bit", &flipped);
    still_works(&mut clients, "a flipped bit");

    // Half a frame, and silence: twenty of them, some hung up, some left open.
    let mut open = Vec::new();
    for number in 0..20 {
        let mut socket = dial(node.peer);
        socket.write_all(&words[..(words.len() * number / 20).max(1)]).expect("sent");
        if number % 2 == 0 {
            open.push(socket);
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    still_works(&mut clients, "half a frame");
    drop(open);
    still_works(&mut clients, "the other half never comes");
    assert_eq!(terms(node), before, "no stranger makes a group elect anew");
}
