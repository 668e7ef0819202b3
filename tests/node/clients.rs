//! `CLIENT`: who is connected to a node, on whichever core, what they say of themselves, and how they are closed.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::{Client, Reply};
use crate::cluster::Cluster;
use crate::script::play;
use crate::wait::wait_until;

/// The fields of a line.
fn fields(line: &str) -> BTreeMap<&str, &str> {
    line.split(' ').map(|field| field.split_once('=').expect("name=value")).collect()
}

fn listed(client: &mut Client, line: &str) -> Vec<String> {
    let reply = client.say(line);
    reply.text().lines().map(str::to_owned).collect()
}

#[test]
fn connections_of_all_cores_are_listed_and_closed_by_any() {
    let flags = [
        &["--cores", "2", "--groups", "2", "--max-clients", "300"][..],
        &["--client-idle-s", "600", "--slowlog-us", "7000"],
    ]
    .concat();
    let cluster = Cluster::start("clients", 1, &flags);
    let node = &cluster.nodes[0];
    let mut asks = node.client();
    let mut others = Vec::new();
    // The kernel says which core accepts whom.
    wait_until("both cores have clients", || {
        others.push(node.client());
        let list = listed(&mut asks, "CLIENT LIST");
        list.iter().map(|line| fields(line)["core"].to_owned()).collect::<BTreeSet<_>>().len() == 2
    });
    let ids: BTreeSet<i64> =
        others.iter_mut().map(|client| client.say("CLIENT ID").integer()).collect();
    assert_eq!(ids.len(), others.len(), "a number is one connection's, whatever its core");

    play(
        &mut asks,
        r#"
        CLIENT SETNAME asker            => +OK
        CLIENT SETINFO LIB-NAME tests   => +OK
        CLIENT SETINFO LIB-VER 1.0      => +OK
        CLIENT NO-EVICT on              => +OK
        CLIENT NO-TOUCH off             => +OK
        CLIENT TRACKING off             => +OK
        CONFIG GET timeout              => ["timeout" "600"]
        CONFIG GET slowlog-*            => ["slowlog-log-slower-than" "7000" "slowlog-max-len" "128"]
        CONFIG GET maxclients           => ["maxclients" "300"]
        "#,
    );
    let own = asks.say("CLIENT INFO").text();
    let own = fields(own.trim_end());
    for (name, value) in [
        ("name", "asker"),
        ("lib-name", "tests"),
        ("lib-ver", "1.0"),
        ("cmd", "client"),
        ("user", "default"),
        ("db", "0"),
        ("resp", "2"),
        ("laddr", &node.client.to_string()),
    ] {
        assert_eq!(own[name], value, "{name} of {own:?}");
    }
    let own_id = own["id"].to_owned();
    assert_eq!(own_id, asks.say("CLIENT ID").integer().to_string());

    let last = others.last_mut().expect("some");
    assert_eq!(last.say("SET k v"), Reply::ok());
    assert!(matches!(last.say("HELLO 3"), Reply::Map(_)));
    assert_eq!(last.say("GET k"), Reply::bulk("v"));
    let id = last.say("CLIENT ID").integer();
    assert_eq!(last.say("GET k"), Reply::bulk("v"));
    let mut line = Vec::new();
    wait_until("its last command is told", || {
        line = listed(&mut asks, &format!("CLIENT LIST ID {id}"));
        line.len() == 1 && fields(&line[0])["cmd"] == "get"
    });
    assert_eq!(fields(&line[0])["resp"], "3");
    assert!(listed(&mut asks, "CLIENT LIST TYPE pubsub").is_empty());

    // Each by its number, on both cores; who asks stays.
    for number in &ids {
        let killed = asks.say(&format!("CLIENT KILL ID {number}"));
        assert_eq!(killed, Reply::Integer(1), "{number}");
    }
    for client in &mut others {
        assert!(client.is_closed());
    }
    wait_until("they are gone", || listed(&mut asks, "CLIENT LIST").len() == 1);
    assert!(asks.say(&format!("CLIENT KILL ID {id}")) == Reply::Integer(0));
    assert_eq!(asks.say("CLIENT KILL 127.0.0.1:1").to_string(), "-ERR No such client");
    assert_eq!(asks.say("CLIENT KILL TYPE normal"), Reply::Integer(0));
    // Oneself comes last, and hears of it.
    let own = asks.say(&format!("CLIENT KILL ID {own_id} SKIPME no"));
    assert_eq!(own, Reply::Integer(1));
    assert!(asks.is_closed());

    // Whoever may not look at the node does not see the others.
    let mut admin = node.client();
    for rules in ["app on >p +@all -config", "ops on >p +client +config"] {
        assert_eq!(admin.say(&format!("ACL SETUSER {rules}")), Reply::ok());
    }
    let mut app = node.client();
    assert_eq!(app.say("AUTH app p"), Reply::ok());
    for line in ["CLIENT LIST", "CLIENT KILL TYPE normal", "CLIENT KILL 127.0.0.1:1"] {
        assert!(app.say(line).error().starts_with("NOPERM "), "{line}");
    }
    assert!(app.say("GET k").error().starts_with("NOPERM No permissions to access a key"));
    assert_eq!(fields(app.say("CLIENT INFO").text().trim_end())["user"], "app");
    wait_until("what it may not do is counted", || {
        let stats = admin.say("INFO stats").text();
        ["acl_access_denied_cmd:3\r\n", "acl_access_denied_key:1\r\n"]
            .iter()
            .all(|line| stats.contains(line))
    });
    assert_eq!(admin.say("AUTH ops p"), Reply::ok());
    wait_until("both are there", || listed(&mut admin, "CLIENT LIST").len() == 2);
    assert_eq!(admin.say("CLIENT KILL USER app"), Reply::Integer(1));
    assert!(app.is_closed());
}
