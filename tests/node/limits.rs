//! Bounds: what fits is taken whole, what does not is refused by name, and nothing half happens.

use outrigger::limits::{COMMAND_ARGS_MAX, COMMAND_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::client::{Client, Reply, encode};
use crate::cluster::Node;
use crate::shared;

/// The error, and whether the connection still works afterwards; if not, a fresh one.
fn refused(client: &mut Client, node: &Node, bytes: &[u8]) -> String {
    // A node that has seen the announced length may refuse, and close, before it is all sent.
    let mut writer = client.writer();
    let reply = std::thread::scope(|scope| {
        let sending = scope.spawn(move || std::io::Write::write_all(&mut writer, bytes));
        let reply = client.read().expect("a refusal, not silence");
        let _ = sending.join().expect("the writer does not panic");
        reply
    });
    match client.try_call(&["PING"]) {
        Ok(pong) => assert_eq!(pong.to_string(), "+PONG", "after the refusal"),
        Err(_) => *client = node.client(),
    }
    let text = reply.error().to_owned();
    assert!(text.starts_with("ERR "), "{text}");
    text
}

fn names_the_limit(text: &str, what: &str, limit: usize) {
    let is_redis_own = text.starts_with("ERR Protocol error: ");
    let is_named = text.contains(what) && text.contains(&limit.to_string());
    assert!(
        is_redis_own || is_named,
        "refused by name, with the {what} and its limit {limit}: {text}"
    );
}

#[test]
fn the_largest_value_and_the_largest_key() {
    let cluster = shared::cluster();
    let node = &cluster.nodes[0];
    let mut client = node.client();
    let value = vec![b'v'; VALUE_BYTES_MAX];
    let key = vec![b'k'; KEY_BYTES_MAX];

    assert_eq!(client.call(&[b"SET".as_slice(), &key, &value]), Reply::ok());
    assert_eq!(client.call(&[b"STRLEN".as_slice(), &key]).integer(), VALUE_BYTES_MAX as i64);
    for reader in &cluster.nodes {
        // Not `assert_eq`: nobody wants four megabytes of difference.
        let is_whole = reader.client().call(&[b"GET".as_slice(), &key]) == Reply::bulk(&value);
        assert!(is_whole, "read through node {}", reader.id);
    }
    // No byte more by the back door.
    let reply = client.call(&[b"APPEND".as_slice(), &key, b"x"]);
    assert!(reply.error().starts_with("ERR "), "{reply}");
    assert_eq!(client.call(&[b"STRLEN".as_slice(), &key]).integer(), VALUE_BYTES_MAX as i64);
    assert_eq!(client.call(&[b"DEL".as_slice(), &key]), Reply::Integer(1));
}

#[test]
fn one_byte_too_many() {
    let cluster = shared::cluster();
    let node = &cluster.nodes[0];
    let mut client = node.client();
    let value = vec![b'v'; VALUE_BYTES_MAX + 1];
    let key = vec![b'k'; KEY_BYTES_MAX + 1];

    for command in ["SET", "SETNX", "GETSET", "APPEND", "MSET"] {
        let bytes = encode(&[command.as_bytes(), b"big", &value]);
        names_the_limit(&refused(&mut client, node, &bytes), "value", VALUE_BYTES_MAX);
    }
    assert_eq!(client.say("EXISTS big"), Reply::Integer(0));
    for words in [
        [b"SET".as_slice(), &key, b"v"].as_slice(),
        &[b"GET", &key],
        &[b"INCR", &key],
        &[b"DEL", b"ok", &key],
        &[b"MGET", b"ok", &key],
        &[b"MSET", b"not:stored", b"v", &key, b"v"],
    ] {
        names_the_limit(&refused(&mut client, node, &encode(words)), "key", KEY_BYTES_MAX);
    }
    assert_eq!(client.say("EXISTS not:stored"), Reply::Integer(0), "an MSET is refused whole");
}

#[test]
fn commands_that_are_too_large_as_a_whole() {
    let cluster = shared::cluster();
    let node = &cluster.nodes[0];
    let mut client = node.client();
    // Each part is fine by itself.
    let part = vec![b'v'; COMMAND_BYTES_MAX / 4];
    let mut words: Vec<&[u8]> = vec![b"MSET"];
    let keys: Vec<String> = (0..5).map(|number| format!("whole:{number}")).collect();
    for key in &keys {
        words.extend([key.as_bytes(), &part]);
    }
    refused(&mut client, node, &encode(&words));
    for key in &keys {
        assert_eq!(client.say(&format!("EXISTS {key}")), Reply::Integer(0), "{key}");
    }

    let mut words = vec!["DEL".to_owned()];
    words.extend((0..COMMAND_ARGS_MAX).map(|number| number.to_string()));
    refused(&mut client, node, &encode(&words));

    refused(&mut client, node, &encode(&[b"SET".as_slice(), b"huge", &vec![b'v'; 20 << 20]]));
    assert_eq!(client.say("EXISTS huge"), Reply::Integer(0));
}

/// Huge pages stall a core while its memory grows (docs/decisions/0022).
#[test]
fn memory_comes_in_small_pages() {
    let cluster = shared::cluster();
    for node in &cluster.nodes {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("status");
        assert!(status.lines().any(|line| line == "THP_enabled:\t0"), "{status}");
    }
}

/// An announced length costs the node nothing: a thousand of them and the node lives on.
#[test]
fn announced_and_never_sent() {
    let cluster = shared::cluster();
    let node = &cluster.nodes[2];
    let announced = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${VALUE_BYTES_MAX}\r\n");
    let mut idle = Vec::new();
    for _ in 0..300 {
        let mut client = node.client();
        client.send(announced.as_bytes()).expect("sent");
        idle.push(client);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let resident: u64 = line.split_whitespace().nth(1).expect("kB").parse().expect("a number");
    assert!(resident < 800 << 10, "300 announcements of 4 MiB cost memory: {line}");
    assert_eq!(node.client().say("PING").to_string(), "+PONG");
}
