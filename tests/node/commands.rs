//! The commands on strings, as transcripts, through every node: the one that leads a key's group
//! and the two that forward. Expected replies are Redis' own.

use crate::client::Reply;
use crate::script::play;
use crate::shared;
use crate::wait::wait_until;

/// Plays one transcript through each node in turn.
#[track_caller]
fn everywhere(transcript: &str) {
    let cluster = shared::cluster();
    for node in &cluster.nodes {
        play(&mut node.client(), transcript);
    }
}

#[test]
fn set_and_get() {
    everywhere(
        r#"
        DEL cmd:a
        GET cmd:a                       => $-1
        SET cmd:a "hello world"         => +OK
        GET cmd:a                       => "hello world"
        set cmd:a ""                    => +OK
        gEt cmd:a                       => ""
        SET cmd:a "\x00\xff\r\n"        => +OK
        GET cmd:a                       => "\x00\xff\r\n"
        STRLEN cmd:a                    => :4
        SET "cmd:\r\n\x00 key" v        => +OK
        GET "cmd:\r\n\x00 key"          => "v"
        DEL "cmd:\r\n\x00 key"          => :1
        SET "" "the empty key"          => +OK
        GET ""                          => "the empty key"
        DEL ""                          => :1
        "#,
    );
}

#[test]
fn set_with_conditions() {
    everywhere(
        r#"
        DEL cond
        SET cond 1 XX                   => $-1
        EXISTS cond                     => :0
        SET cond 1 NX                   => +OK
        SET cond 2 NX                   => $-1
        GET cond                        => "1"
        SET cond 2 XX                   => +OK
        GET cond                        => "2"
        # GET returns what was there before, whether or not the condition held.
        SET cond 3 GET                  => "2"
        SET cond 4 NX GET               => "3"
        GET cond                        => "3"
        SET cond 4 XX GET               => "3"
        GET cond                        => "4"
        DEL cond                        => :1
        SET cond 5 XX GET               => $-1
        EXISTS cond                     => :0
        SET cond 5 nx get               => $-1
        GET cond                        => "5"
        DEL cond                        => :1
        SET cond 6 GET                  => $-1
        GET cond                        => "6"
        "#,
    );
}

#[test]
fn set_if_equal_is_compare_and_set() {
    everywhere(
        r#"
        DEL cas
        # It does not hold on a key that is not there, not even against "".
        SET cas new IFEQ old            => $-1
        SET cas new IFEQ ""             => $-1
        EXISTS cas                      => :0
        SET cas one                     => +OK
        SET cas two IFEQ zero           => $-1
        GET cas                         => "one"
        SET cas two IFEQ one            => +OK
        SET cas three IFEQ one          => $-1
        GET cas                         => "two"
        SET cas three ifeq two          => +OK
        SET cas "" IFEQ three           => +OK
        SET cas end IFEQ ""             => +OK
        GET cas                         => "end"
        # The values are bytes, not numbers.
        SET cas 10                      => +OK
        SET cas 11 IFEQ 010             => $-1
        SET cas 11 IFEQ 10              => +OK
        "#,
    );
}

#[test]
fn setnx_getset_getdel() {
    everywhere(
        r#"
        DEL sgg
        SETNX sgg a                     => :1
        SETNX sgg b                     => :0
        GET sgg                         => "a"
        GETSET sgg c                    => "a"
        GET sgg                         => "c"
        GETDEL sgg                      => "c"
        GETDEL sgg                      => $-1
        GETSET sgg d                    => $-1
        GET sgg                         => "d"
        "#,
    );
}

#[test]
fn many_keys_at_once() {
    // The keys lie in different groups; `{tag}` keys in one.
    everywhere(
        r#"
        DEL m1 m2 m3 m4
        MSET m1 a m2 b m3 c             => +OK
        MGET m1 m2 m3 m4                => ["a" "b" "c" $-1]
        MGET m4 m3 m3                   => [$-1 "c" "c"]
        # A key named twice: the last value stands.
        MSET m1 x m1 y                  => +OK
        GET m1                          => "y"
        EXISTS m1 m2 m3 m4              => :3
        EXISTS m1 m1 m1 m4              => :3
        DEL m1 m4 m1                    => :1
        DEL m1 m2 m3 m4                 => :2
        MGET m1 m2 m3 m4                => [$-1 $-1 $-1 $-1]
        MSET {tag}1 a {tag}2 b {tag}3 c => +OK
        MGET {tag}1 {tag}2 {tag}3       => ["a" "b" "c"]
        DEL {tag}1 {tag}2 {tag}3        => :3
        # Not tags by the rules of Redis Cluster, but ordinary keys all the same.
        MSET {}x 1 {y 2 z} 3 {{a}} 4    => +OK
        MGET {}x {y z} {{a}}            => ["1" "2" "3" "4"]
        DEL {}x {y z} {{a}}             => :4
        "#,
    );
}

#[test]
fn all_of_several_keys_or_none() {
    everywhere(
        r#"
        DEL {nx}a {nx}b {nx}c
        MSETNX {nx}a 1 {nx}b 2          => :1
        MSETNX {nx}b 3 {nx}c 4          => :0
        MGET {nx}a {nx}b {nx}c          => ["1" "2" $-1]
        MSETNX {nx}a 1 other 2          => -CROSSSLOT Keys in request don't hash to the same slot: MSETNX is all or nothing
        MSETNX {nx}a 1 {nx}b            => -ERR wrong number of arguments for 'msetnx' command
        MSET m1 a m2 b m3 c             => +OK
        TOUCH m1 m2 m3 m4 m1            => :4
        UNLINK m1 m2 m3 m4 m1           => :3
        TOUCH m1 m2 m3                  => :0
        "#,
    );
}

/// What `SET k "" IFEQ token PX 1` is for: docs/commands.md, "Not there".
#[test]
fn a_lock_is_taken_by_one_and_let_go_by_its_holder() {
    everywhere(
        r#"
        DEL lock
        SET lock mine NX PX 60000       => +OK
        SET lock theirs NX PX 60000     => $-1
        SET lock "" IFEQ theirs PX 1    => $-1
        GET lock                        => "mine"
        SET lock "" IFEQ mine PX 1      => +OK
        "#,
    );
    for node in &shared::cluster().nodes {
        let mut client = node.client();
        client.say("SET lock mine PX 60000");
        assert_eq!(client.call(&["SET", "lock", "", "IFEQ", "mine", "PX", "1"]), Reply::ok());
        wait_until("the next one has it", || {
            client.say("SET lock next NX PX 60000") == Reply::ok()
        });
    }
}

#[test]
fn the_time_is_the_nodes() {
    for node in &shared::cluster().nodes {
        let time = node.client().say("TIME").array();
        let numbers: Vec<u64> =
            time.iter().map(|part| part.text().parse().expect("a number")).collect();
        assert!(1_600_000_000 < numbers[0] && numbers[1] < 1_000_000, "{numbers:?}");
    }
}

#[test]
fn parts_of_a_value() {
    everywhere(
        r#"
        SET range Hello                 => +OK
        GETRANGE range 1 -2             => "ell"
        GETRANGE range 9 10             => ""
        GETRANGE range 0 x              => -ERR value is not an integer or out of range
        GETRANGE nosuch 0 -1            => ""
        SET range v NX NX               => $-1
        SET range v EX 9 PX 9           => -ERR syntax error
        "#,
    );
}

#[test]
fn append_and_strlen() {
    everywhere(
        r#"
        DEL app
        STRLEN app                      => :0
        APPEND app "Hello "             => :6
        APPEND app World                => :11
        APPEND app ""                   => :11
        GET app                         => "Hello World"
        STRLEN app                      => :11
        "#,
    );
}

#[test]
fn counting() {
    everywhere(
        r#"
        DEL n
        INCR n                          => :1
        INCR n                          => :2
        GET n                           => "2"
        DECR n                          => :1
        DECRBY n 10                     => :-9
        INCRBY n 100                    => :91
        INCRBY n -91                    => :0
        DECRBY n -5                     => :5
        DEL n                           => :1
        DECR n                          => :-1
        SET n 9223372036854775807       => +OK
        INCR n                          => -ERR increment or decrement would overflow
        INCRBY n 1                      => -ERR increment or decrement would overflow
        GET n                           => "9223372036854775807"
        DECR n                          => :9223372036854775806
        SET n -9223372036854775808      => +OK
        DECR n                          => -ERR increment or decrement would overflow
        DECRBY n 1                      => -ERR increment or decrement would overflow
        INCRBY n -1                     => -ERR increment or decrement would overflow
        INCR n                          => :-9223372036854775807
        DECRBY n -9223372036854775808   => -ERR decrement would overflow
        "#,
    );
}

#[test]
fn what_is_not_a_number() {
    everywhere(
        r#"
        SET w word                      => +OK
        INCR w                          => -ERR value is not an integer or out of range
        DECRBY w 3                      => -ERR value is not an integer or out of range
        SET w 1.5                       => +OK
        INCR w                          => -ERR value is not an integer or out of range
        SET w " 1"                      => +OK
        INCR w                          => -ERR value is not an integer or out of range
        SET w 010                       => +OK
        INCR w                          => -ERR value is not an integer or out of range
        SET w -0                        => +OK
        INCR w                          => -ERR value is not an integer or out of range
        SET w +1                        => +OK
        INCR w                          => -ERR value is not an integer or out of range
        SET w ""                        => +OK
        INCR w                          => -ERR value is not an integer or out of range
        SET w 9223372036854775808       => +OK
        INCR w                          => -ERR value is not an integer or out of range
        GET w                           => "9223372036854775808"
        SET w 1                         => +OK
        INCRBY w word                   => -ERR value is not an integer or out of range
        INCRBY w 9223372036854775808    => -ERR value is not an integer or out of range
        DECRBY w ""                     => -ERR value is not an integer or out of range
        GET w                           => "1"
        "#,
    );
}

#[test]
fn types() {
    everywhere(
        r#"
        DEL t
        TYPE t                          => +none
        SET t 1                         => +OK
        TYPE t                          => +string
        "#,
    );
}
