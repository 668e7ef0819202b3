//! SCAN: a full iteration finds every key exactly once while nobody writes, keys that stay
//! throughout are found whatever others do, and MATCH, COUNT and TYPE choose.

use std::collections::BTreeMap;

use crate::client::{Client, Reply, encode};
use crate::shared;

/// Iterates until the cursor is 0 again; how often each key was seen, and in how many calls.
/// Each call goes to the next of `clients`: the cursor means the same on every node.
fn scan_all(clients: &mut [Client], options: &str) -> (BTreeMap<String, u32>, usize) {
    let mut seen = BTreeMap::new();
    let mut cursor = "0".to_owned();
    for calls in 1..100_000 {
        let client = &mut clients[calls % clients.len()];
        let reply = client.say(&format!("SCAN {cursor} {options}")).array();
        let [next, keys]: [Reply; 2] = reply.try_into().expect("a cursor and keys");
        for key in keys.array() {
            *seen.entry(key.text()).or_insert(0) += 1;
        }
        cursor = next.text();
        assert!(cursor.parse::<u64>().is_ok(), "a cursor is a number, not {cursor:?}");
        if cursor == "0" {
            return (seen, calls);
        }
    }
    panic!("the cursor never came back to 0");
}

fn fill(client: &mut Client, names: &[String]) {
    for name in names {
        client.send(&encode(&["SET", name, "v"])).expect("sent");
    }
    for name in names {
        assert_eq!(client.read().expect("a reply"), Reply::ok(), "SET {name}");
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}:{number}")).collect()
}

#[test]
fn a_full_iteration_finds_every_key_once() {
    let cluster = shared::alone();
    let mut clients: Vec<Client> = cluster.nodes.iter().map(|node| node.client()).collect();
    clients[0].say("FLUSHALL");
    let (none, _) = scan_all(&mut clients, "");
    assert!(none.is_empty(), "an empty database: {none:?}");

    let mut names = names("scan", 700);
    // All in one group, beside those that are spread over all.
    names.extend((0..200).map(|number| format!("{{one}}:{number}")));
    fill(&mut clients[0], &names);
    let expected: BTreeMap<String, u32> = names.iter().map(|name| (name.clone(), 1)).collect();
    for options in ["", "COUNT 1", "COUNT 7", "COUNT 100000", "MATCH *", "TYPE string"] {
        let (seen, _) = scan_all(&mut clients, options);
        let missed: Vec<_> = expected.keys().filter(|name| !seen.contains_key(*name)).collect();
        assert!(missed.is_empty(), "SCAN {options} missed {missed:?}");
        assert_eq!(seen, expected, "SCAN {options} finds each key once");
    }
    let (_, calls_of_few) = scan_all(&mut clients, "COUNT 10");
    let (_, calls_of_many) = scan_all(&mut clients, "COUNT 1000");
    assert!(calls_of_many < calls_of_few, "COUNT asks for more per call");

    let (lists, _) = scan_all(&mut clients, "TYPE list");
    assert!(lists.is_empty(), "there are only strings: {lists:?}");
    clients[0].say("FLUSHALL");
}

#[test]
fn match_is_a_glob() {
    let cluster = shared::alone();
    let mut clients = [cluster.nodes[1].client()];
    clients[0].say("FLUSHALL");
    let names = ["hello", "hallo", "hxllo", "hllo", "heello", "h*llo", "Hello", "h[llo", "a:b:c"];
    fill(&mut clients[0], &names.map(str::to_owned));
    // pattern, and the keys it finds, sorted
    let patterns: &[(&str, &[&str])] = &[
        ("h?llo", &["h*llo", "h[llo", "hallo", "hello", "hxllo"]),
        ("h*llo", &["h*llo", "h[llo", "hallo", "heello", "hello", "hllo", "hxllo"]),
        ("h[ae]llo", &["hallo", "hello"]),
        ("h[^e]llo", &["h*llo", "h[llo", "hallo", "hxllo"]),
        ("h[a-f]llo", &["hallo", "hello"]),
        (r"h\*llo", &["h*llo"]),
        (r"h\[llo", &["h[llo"]),
        ("*:*", &["a:b:c"]),
        ("hello", &["hello"]),
        ("hell", &[]),
        ("", &[]),
    ];
    for (pattern, expected) in patterns {
        // COUNT 100 so that the calls are few; an empty pattern needs its own encoding.
        let mut found = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let reply =
                clients[0].call(&["SCAN", &cursor, "MATCH", pattern, "COUNT", "100"]).array();
            found.extend(reply[1].clone().array().iter().map(Reply::text));
            cursor = reply[0].text();
            if cursor == "0" {
                break;
            }
        }
        found.sort();
        assert_eq!(found, *expected, "MATCH {pattern:?}");
    }
    clients[0].say("FLUSHALL");
}

#[test]
fn keys_that_stay_are_found_while_others_come_and_go() {
    let cluster = shared::alone();
    let mut clients = [cluster.nodes[0].client()];
    clients[0].say("FLUSHALL");
    let staying = names("stay", 300);
    fill(&mut clients[0], &staying);
    let mut writer = cluster.nodes[2].client();
    let mut cursor = "0".to_owned();
    let mut seen = BTreeMap::new();
    for round in 0.. {
        let reply = clients[0].say(&format!("SCAN {cursor} COUNT 10")).array();
        for key in reply[1].clone().array() {
            *seen.entry(key.text()).or_insert(0) += 1;
        }
        cursor = reply[0].text();
        if cursor == "0" {
            break;
        }
        // Between two calls, keys appear before and behind the cursor, and others vanish.
        fill(&mut writer, &names(&format!("guest:{round}"), 5));
        if 0 < round {
            writer.say(&format!("DEL guest:{}:1 guest:{}:3", round - 1, round - 1));
        }
    }
    let missed: Vec<_> = staying.iter().filter(|name| !seen.contains_key(*name)).collect();
    assert!(missed.is_empty(), "SCAN missed {missed:?}");
    clients[0].say("FLUSHALL");
}
