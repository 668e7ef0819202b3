//! What is refused, and in which words: Redis' own where Redis has some.

use crate::script::play;
use crate::shared;

#[track_caller]
fn anywhere(transcript: &str) {
    let cluster = shared::cluster();
    play(&mut cluster.nodes[0].client(), transcript);
}

#[test]
fn wrong_arity() {
    // name, then argument counts that are wrong
    let wrong: &[(&str, &[usize])] = &[
        ("GET", &[0, 2]),
        ("SET", &[0, 1]),
        ("SETNX", &[0, 1, 3]),
        ("GETSET", &[1, 3]),
        ("GETDEL", &[0, 2]),
        ("MGET", &[0]),
        ("MSET", &[0, 1, 3]),
        ("DEL", &[0]),
        ("EXISTS", &[0]),
        ("STRLEN", &[0, 2]),
        ("APPEND", &[1, 3]),
        ("INCR", &[0, 2]),
        ("DECR", &[0, 2]),
        ("INCRBY", &[1, 3]),
        ("DECRBY", &[1, 3]),
        ("SCAN", &[0]),
        ("TYPE", &[0, 2]),
        ("DBSIZE", &[1]),
        ("ECHO", &[0, 2]),
        ("PING", &[2]),
        ("SELECT", &[0, 2]),
    ];
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    for (name, counts) in wrong {
        for &count in *counts {
            let mut words = vec![*name];
            words.extend(std::iter::repeat_n("1", count));
            let expected =
                format!("-ERR wrong number of arguments for '{}' command", name.to_lowercase());
            assert_eq!(client.call(&words).to_string(), expected, "{words:?}");
        }
    }
    assert_eq!(client.say("PING").to_string(), "+PONG", "the connection lives on");
}

#[test]
fn unknown_commands() {
    anywhere(
        r#"
        FOO             => -ERR unknown command 'FOO', with args beginning with:
        foo bar "b z"   => -ERR unknown command 'foo', with args beginning with: 'bar' 'b z'
        ""              => -ERR unknown command '', with args beginning with:
        LPUSH list x    => -ERR unknown command 'LPUSH', with args beginning with: 'list' 'x'
        PING            => +PONG
        "#,
    );
}

#[test]
fn only_database_zero() {
    anywhere(
        r#"
        SELECT 0        => +OK
        SELECT 1        => -ERR DB index is out of range
        SELECT -1       => -ERR DB index is out of range
        SELECT x        => -ERR value is not an integer or out of range
        "#,
    );
}

#[test]
fn set_options_that_contradict_or_do_not_exist() {
    anywhere(
        r#"
        DEL opt
        SET opt v NX XX         => -ERR syntax error
        SET opt v XX NX         => -ERR syntax error
        SET opt v FOO           => -ERR syntax error
        SET opt v IFEQ          => -ERR syntax error
        SET opt v NX IFEQ a     => -ERR syntax error
        SET opt v IFEQ a XX     => -ERR syntax error
        EXISTS opt              => :0
        "#,
    );
}

/// Refused, and nothing is stored.
#[test]
fn set_options_of_expiry() {
    anywhere(
        r#"
        DEL expiry
        SET expiry v EX             => -ERR syntax error
        SET expiry v EX 0           => -ERR invalid expire time in 'set' command
        SET expiry v PX -1          => -ERR invalid expire time in 'set' command
        SET expiry v EX x           => -ERR value is not an integer or out of range
        SET expiry v EX 1 PX 1      => -ERR syntax error
        SET expiry v EX 1 KEEPTTL   => -ERR syntax error
        SET expiry v EX 9223372036854775807 => -ERR invalid expire time in 'set' command
        EXPIRE expiry 10 NX GT      => -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE expiry 10 SOON       => -ERR Unsupported option SOON
        GETEX expiry EX 1 PX 1      => -ERR syntax error
        SETEX expiry x v            => -ERR value is not an integer or out of range
        WAIT x 0                    => -ERR value is not an integer or out of range
        EXISTS expiry               => :0
        "#,
    );
}

#[test]
fn options_of_other_commands() {
    anywhere(
        r#"
        SCAN x                  => -ERR invalid cursor
        SCAN -1                 => -ERR invalid cursor
        SCAN 0 COUNT            => -ERR syntax error
        SCAN 0 COUNT 0          => -ERR syntax error
        SCAN 0 COUNT -1         => -ERR syntax error
        SCAN 0 COUNT x          => -ERR value is not an integer or out of range
        SCAN 0 MATCH            => -ERR syntax error
        SCAN 0 FOO bar          => -ERR syntax error
        FLUSHALL FOO            => -ERR syntax error
        "#,
    );
}

#[test]
fn subcommands() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    for command in ["COMMAND FOO", "CONFIG FOO", "CONFIG SET save x", "DEBUG FOO"] {
        let reply = client.say(command);
        let subcommand = command.split(' ').nth(1).expect("a subcommand");
        assert!(reply.error().starts_with("ERR "), "{command}: {reply}");
        // Redis repeats the word as it was typed; which case is nobody's promise.
        let is_named = reply.error().to_lowercase().contains(&subcommand.to_lowercase());
        assert!(is_named, "{command} is refused by name: {reply}");
    }
    for command in ["CONFIG GET", "CONFIG", "DEBUG"] {
        assert!(client.say(command).error().starts_with("ERR "), "{command}");
    }
}
