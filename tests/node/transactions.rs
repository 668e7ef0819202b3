//! `MULTI`, `EXEC` and `WATCH`, through every node, between clients, and when they fail.

use crate::client::Reply;
use crate::script::play;
use crate::shared;

#[test]
fn transactions_through_every_node() {
    for node in &shared::cluster().nodes {
        play(
            &mut node.client(),
            r#"
            DEL {tx}k {tx}h
            EXEC                            => -ERR EXEC without MULTI
            DISCARD                         => -ERR DISCARD without MULTI
            MULTI                           => +OK
            MULTI                           => -ERR MULTI calls can not be nested
            SET {tx}k 1                     => +QUEUED
            INCR {tx}k                      => +QUEUED
            HSET {tx}h f v                  => +QUEUED
            GET {tx}h                       => +QUEUED
            GET {tx}k                       => +QUEUED
            EXEC                            => [+OK :2 :1 -WRONGTYPE Operation against a key holding the wrong kind of value "2"]
            MULTI                           => +OK
            SET {tx}k 9                     => +QUEUED
            DISCARD                         => +OK
            GET {tx}k                       => "2"
            MULTI                           => +OK
            SET {tx}k 9                     => +QUEUED
            NOSUCH
            EXEC                            => -EXECABORT Transaction discarded because of previous errors.
            MULTI                           => +OK
            SET {tx}k 9                     => +QUEUED
            SET {elsewhere}k 9              => -CROSSSLOT Keys in request don't hash to the same slot: a transaction is on one
            EXEC                            => -EXECABORT Transaction discarded because of previous errors.
            GET {tx}k                       => "2"
            EXEC x                          => -EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command
            MULTI                           => +OK
            SET {tx}k 9                     => +QUEUED
            EXEC x                          => -EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command
            EXEC                            => -ERR EXEC without MULTI
            GET {tx}k                       => "2"
            MULTI                           => +OK
            MSETNX {tx}m 1 {tx}n 2          => +QUEUED
            HMSET {tx}h g w                 => +QUEUED
            HSCAN {tx}h 0 MATCH g           => +QUEUED
            UNLINK {tx}m {tx}n              => +QUEUED
            EXEC                            => [:1 +OK ["0" ["g" "w"]] :2]
            MULTI                           => +OK
            EXEC                            => []
            WATCH {tx}k {tx}h               => +OK
            SET {tx}k 3                     => +OK
            MULTI                           => +OK
            SET {tx}k 9                     => +QUEUED
            EXEC                            => *-1
            GET {tx}k                       => "3"
            WATCH {tx}k                     => +OK
            SET {tx}k 4                     => +OK
            UNWATCH                         => +OK
            MULTI                           => +OK
            SET {tx}k 5 EX 100              => +QUEUED
            TTL {tx}k                       => +QUEUED
            EXEC                            => [+OK :100]
            WAIT 0 0                        => :1
            WAITAOF 1 1 0                   => [:1 :1]
            "#,
        );
    }
}

/// Many clients add to one number by reading it and writing it back; none is lost.
#[test]
fn watched_keys_make_a_compare_and_set_of_many_clients() {
    const CLIENTS: usize = 6;
    const EACH: i64 = 20;
    let cluster = shared::cluster();
    cluster.nodes[0].client().say("DEL {cas}n");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut client = cluster.nodes[client % cluster.nodes.len()].client();
            scope.spawn(move || {
                let mut done = 0;
                while done < EACH {
                    assert_eq!(client.say("WATCH {cas}n"), Reply::ok());
                    let before = match client.say("GET {cas}n") {
                        Reply::Bulk(text) => String::from_utf8(text)
                            .expect("digits")
                            .parse::<i64>()
                            .expect("a number"),
                        _ => 0,
                    };
                    client.say("MULTI");
                    client.say(&format!("SET {{cas}}n {}", before + 1));
                    match client.say("EXEC") {
                        Reply::Array(replies) => {
                            assert_eq!(replies, [Reply::ok()]);
                            done += 1;
                        }
                        other => assert_eq!(other, Reply::NilArray),
                    }
                }
            });
        }
    });
    let total = CLIENTS as i64 * EACH;
    play(&mut cluster.nodes[1].client(), &format!("GET {{cas}}n => \"{total}\""));
}
