//! Users and what they may do: said at one node, true at all, from the next command on, and after restarts.

use std::path::Path;
use std::process::Command;

use crate::client::{Client, Reply};
use crate::cluster::{Cluster, Node};
use crate::script::play;
use crate::wait::wait_until;

const APP: &str =
    "ACL SETUSER app on >plain-words ~app:* ~{app}* +@read +@write +@transaction +@connection";

/// A client that has logged in as this user, once the node knows it.
fn logged_in(node: &Node, user: &str, password: &str) -> Client {
    let mut client = node.client();
    wait_until("the node knows the user", || client.call(&["AUTH", user, password]) == Reply::ok());
    client
}

/// What a user with the rules of [`APP`] hears.
fn is_confined(client: &mut Client) {
    play(
        client,
        r#"
        ACL WHOAMI              => "app"
        SET app:1 v             => +OK
        GET app:1               => "v"
        GET other               => -NOPERM No permissions to access a key
        SET other v             => -NOPERM No permissions to access a key
        MGET app:1 other        => -NOPERM No permissions to access a key
        MSET app:1 v other v    => -NOPERM No permissions to access a key
        FLUSHALL                => -NOPERM No permissions to access a key
        SCAN 0                  => -NOPERM No permissions to access a key
        ACL LIST                => -NOPERM User app has no permissions to run the 'acl' command
        MEMBER LIST             => -NOPERM User app has no permissions to run the 'member' command
        BACKUP OPEN 0           => -NOPERM User app has no permissions to run the 'backup' command
        GET                     => -ERR wrong number of arguments for 'get' command
        NOSUCH                  => -ERR unknown command 'NOSUCH', with args beginning with:
        CLIENT SESSION RUN 7 1 SET other v => -NOPERM No permissions to access a key
        READONLY                => +OK
        GET other               => -NOPERM No permissions to access a key
        GET app:1               => "v"
        READWRITE               => +OK
        WATCH {app}k other      => -NOPERM No permissions to access a key
        WATCH {app}k            => +OK
        MULTI                   => +OK
        SET {app}k 1            => +QUEUED
        GET {app}k              => +QUEUED
        EXEC                    => [+OK "1"]
        MULTI                   => +OK
        SET {app}k 2            => +QUEUED
        SET other v             => -NOPERM No permissions to access a key
        EXEC                    => -EXECABORT Transaction discarded because of previous errors.
        GET {app}k              => "1"
        AUTH app wrong          => -WRONGPASS invalid username-password pair or user is disabled.
        ACL WHOAMI              => "app"
        "#,
    );
}

fn holds(dir: &Path, text: &str) -> bool {
    let found = Command::new("grep").args(["-r", "-q", "-a", "-e", text]).arg(dir).status();
    found.expect("grep is there").success()
}

#[test]
fn a_user_is_one_at_every_node_and_after_a_restart() {
    let mut cluster = Cluster::start("users", 3, &["--groups", "4", "--cores", "2"]);
    let mut client = cluster.nodes[1].client();
    assert_eq!(client.say(APP), Reply::ok());
    play(
        &mut client,
        r#"
        ACL USERS                   => ["app" "default"]
        ACL SETUSER app ~a?c        => -ERR Error in ACL SETUSER modifier '~a?c': key rules are prefixes: ~<prefix>*, without any other of * ? [ ] \
        ACL SETUSER app +nosuch     => -ERR Error in ACL SETUSER modifier '+nosuch': there is no such command or category
        ACL DELUSER default         => -ERR The 'default' user cannot be removed
        ACL DELUSER nobody          => :0
        ACL GETUSER nobody          => $-1
        ACL SETUSER gone on nopass  => +OK
        ACL DELUSER gone            => :1
        AUTH gone x                 => -WRONGPASS invalid username-password pair or user is disabled.
        SET other kept-as-it-is     => +OK
        "#,
    );
    let listed = client.say("ACL LIST");
    for node in &cluster.nodes {
        is_confined(&mut logged_in(node, "app", "plain-words"));
        play(&mut node.client(), "GET other => \"kept-as-it-is\"");
    }
    // Once by what the log holds, once by a snapshot and what lies behind it.
    for clean in [false, true] {
        for node in &mut cluster.nodes {
            if clean { assert!(node.stop().success()) } else { node.kill() }
        }
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_ready();
        for node in &cluster.nodes {
            is_confined(&mut logged_in(node, "app", "plain-words"));
            wait_until("the node has all of the table", || node.client().say("ACL LIST") == listed);
        }
    }
    for node in &cluster.nodes {
        assert!(!node.log().contains("plain-words"), "{}", node.log());
        assert!(holds(&node.dir, "kept-as-it-is"), "what is kept is found");
        assert!(!holds(&node.dir, "plain-words"), "a password is in {}", node.dir.display());
    }
}

#[test]
fn a_change_holds_for_the_next_command_of_who_is_connected() {
    let cluster = Cluster::start("users-live", 3, &["--groups", "2", "--cores", "2"]);
    assert_eq!(cluster.nodes[0].client().say(APP), Reply::ok());
    for node in &cluster.nodes {
        // It changes nothing, but once it is answered the node has what the one before has said.
        let mut client = node.client();
        assert_eq!(client.say("ACL SETUSER app"), Reply::ok());
        // On one core or the other.
        let mut live: Vec<Client> = (0..4).map(|_| logged_in(node, "app", "plain-words")).collect();
        for round in 0..10 {
            let (sign, expected) = if round % 2 == 0 { ('-', "-NOPERM") } else { ('+', "\"v\"") };
            if round == 1 {
                client.say("SET app:1 v");
            }
            assert_eq!(client.say(&format!("ACL SETUSER app {sign}get")), Reply::ok());
            for client in &mut live {
                let said = client.say("GET app:1").to_string();
                assert!(said.starts_with(expected), "after {sign}get: {said}");
            }
        }
        // What is queued, was judged by the rules of then.
        play(&mut live[0], "MULTI => +OK\nSET {app}k 1 => +QUEUED");
        assert_eq!(client.say("ACL SETUSER app -set"), Reply::ok());
        play(
            &mut live[0],
            "EXEC => -EXECABORT Transaction discarded because of previous errors.\n\
             GET {app}k => $-1\n\
             SET {app}k 1 => -NOPERM User app has no permissions to run the 'set' command",
        );
        // On the changing connection itself, too, and behind the change in one piece.
        client.send(b"ACL SETUSER app off\r\nAUTH app plain-words\r\nPING\r\n").expect("sent");
        let said: Vec<String> =
            (0..3).map(|_| client.read().expect("a reply").to_string()).collect();
        assert_eq!(said[0], "+OK");
        assert!(said[1].starts_with("-WRONGPASS") && said[2] == "+PONG", "{said:?}");
        for client in &mut live {
            play(
                client,
                "GET app:1 => -NOAUTH Authentication required.\n\
                 AUTH app plain-words => -WRONGPASS invalid username-password pair or user is disabled.",
            );
        }
        assert_eq!(client.say("ACL SETUSER app on +set"), Reply::ok());
        for client in &mut live {
            play(client, "GET app:1 => -NOAUTH Authentication required.");
            play(client, "AUTH app plain-words => +OK\nGET app:1 => \"v\"");
        }
        assert_eq!(client.say("ACL DELUSER app"), Reply::Integer(1));
        play(&mut live[0], "GET app:1 => -NOAUTH Authentication required.");
        play(&mut live[1], "RESET => +RESET\nACL WHOAMI => \"default\"\nGET other => $-1");
        assert_eq!(client.say(APP), Reply::ok());
    }
}

#[test]
fn default_may_be_less_than_everything() {
    let cluster = Cluster::start("users-default", 1, &["--groups", "2"]);
    let mut root = cluster.nodes[0].client();
    play(
        &mut root,
        r#"
        ACL SETUSER root on >r ~* +@all => +OK
        AUTH root r                     => +OK
        ACL SETUSER default -@admin     => +OK
        "#,
    );
    let mut client = cluster.nodes[0].client();
    play(
        &mut client,
        r#"
        SET k v                         => +OK
        ACL SETUSER default +@all       => -NOPERM User default has no permissions to run the 'acl' command
        "#,
    );
    play(&mut root, "ACL SETUSER default off => +OK\nGET k => \"v\"");
    play(
        &mut client,
        r#"
        GET k                           => -NOAUTH Authentication required.
        RESET                           => +RESET
        GET k                           => -NOAUTH Authentication required.
        AUTH root r                     => +OK
        GET k                           => "v"
        "#,
    );
    let mut stranger = cluster.nodes[0].client();
    play(
        &mut stranger,
        r#"
        PING                            => -NOAUTH Authentication required.
        HELLO 3 AUTH root wrong         => -WRONGPASS invalid username-password pair or user is disabled.
        HELLO 2 AUTH root r
        PING                            => +PONG
        ACL SETUSER default reset on ~* +@all => +OK
        "#,
    );
    play(&mut cluster.nodes[0].client(), "GET k => \"v\"");
}
