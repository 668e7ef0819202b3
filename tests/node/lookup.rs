//! The commands that tell about the server: PING, ECHO, COMMAND, CONFIG GET, DBSIZE, FLUSHALL, QUIT.

use crate::client::Reply;
use crate::script::play;
use crate::shared;

/// Every command of the first issue.
const COMMANDS: &[&str] = &[
    "ping", "echo", "hello", "select", "quit", "command", "config", "info", "dbsize", "get", "set",
    "setnx", "getset", "getdel", "mget", "mset", "del", "exists", "strlen", "append", "incr",
    "decr", "incrby", "decrby", "scan", "type", "flushall",
];

#[test]
fn ping_and_echo() {
    let cluster = shared::cluster();
    play(
        &mut cluster.nodes[0].client(),
        r#"
        PING                    => +PONG
        PING "hello there"      => "hello there"
        PING ""                 => ""
        ECHO "a\r\nb"           => "a\r\nb"
        ECHO ""                 => ""
        "#,
    );
}

#[test]
fn quit_answers_then_closes() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    client.send(b"PING\r\nQUIT\r\nPING\r\n").expect("sent");
    assert_eq!(client.read().expect("a reply").to_string(), "+PONG");
    assert_eq!(client.read().expect("a reply").to_string(), "+OK");
    assert!(client.is_closed(), "nothing comes after QUIT");
}

#[test]
fn command_info_tells_how_to_find_the_keys() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    // name, arity, first key, last key, step: as in Redis, because clients route by them
    let known: &[(&str, i64, i64, i64, i64)] = &[
        ("get", 2, 1, 1, 1),
        ("set", -3, 1, 1, 1),
        ("mget", -2, 1, -1, 1),
        ("mset", -3, 1, -1, 2),
        ("del", -2, 1, -1, 1),
        ("incrby", 3, 1, 1, 1),
        ("ping", -1, 0, 0, 0),
        ("scan", -2, 0, 0, 0),
    ];
    for &(name, arity, first, last, step) in known {
        let reply = client.say(&format!("COMMAND INFO {name}")).array().remove(0).array();
        let start: Vec<Reply> = reply.iter().take(6).cloned().collect();
        assert_eq!(start[0].text(), name);
        let numbers: Vec<i64> = [1, 3, 4, 5].iter().map(|&at| start[at].integer()).collect();
        assert_eq!(numbers, [arity, first, last, step], "COMMAND INFO {name}");
    }
    let both = client.say("COMMAND INFO get no-such-thing").array();
    assert_eq!(both.len(), 2, "one item per name, known or not");
    assert!(matches!(both[1], Reply::NilArray | Reply::NilBulk), "{}", both[1]);
}

#[test]
fn command_lists_what_there_is() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    let all: Vec<String> = client
        .say("COMMAND")
        .array()
        .into_iter()
        .map(|entry| entry.array()[0].text().to_lowercase())
        .collect();
    for name in COMMANDS {
        assert!(all.iter().any(|known| known == name), "COMMAND does not list {name}");
    }
    let count = client.say("COMMAND COUNT").integer();
    assert_eq!(count, i64::try_from(all.len()).expect("small"), "COMMAND COUNT");
    // Pairs of name and description: enough for redis-cli's hints.
    let docs = client.say("COMMAND DOCS get set").array();
    assert_eq!((docs.len(), docs[0].text(), docs[2].text()), (4, "get".into(), "set".into()));
    let all_docs = client.say("COMMAND DOCS").array();
    assert_eq!(all_docs.len(), 2 * all.len());
}

#[test]
fn config_get_answers_redis_benchmark() {
    let cluster = shared::cluster();
    play(
        &mut cluster.nodes[0].client(),
        r#"
        CONFIG GET save                 => ["save" ""]
        CONFIG GET appendonly           => ["appendonly" "yes"]
        config get SAVE                 => ["save" ""]
        CONFIG GET no-such-thing        => []
        "#,
    );
}

#[test]
fn flushall_and_dbsize() {
    let cluster = shared::alone();
    let mut clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    assert_eq!(clients[0].say("FLUSHALL"), Reply::ok());
    for client in &mut clients {
        assert_eq!(client.say("DBSIZE"), Reply::Integer(0));
    }
    for number in 0..100 {
        let at = number % 3;
        assert_eq!(clients[at].say(&format!("SET flush:{number} v")), Reply::ok());
    }
    clients[0].say("DEL flush:7");
    clients[1].say("SET flush:8 again");
    for client in &mut clients {
        assert_eq!(client.say("DBSIZE"), Reply::Integer(99), "keys of every group, on every node");
    }
    for (at, how) in ["FLUSHALL", "FLUSHALL SYNC", "flushall async"].iter().enumerate() {
        clients[at].say("SET flush:again v");
        assert_eq!(clients[at].say(how), Reply::ok());
        for client in &mut clients {
            assert_eq!(client.say("DBSIZE"), Reply::Integer(0), "after {how}");
            assert_eq!(client.say("GET flush:1"), Reply::NilBulk, "after {how}");
        }
    }
}
