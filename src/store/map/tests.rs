//! What each command does, as (commands, replies) tables; the replies were compared with a Redis 7.

use std::collections::BTreeMap;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::wire::reply::Protocol;

fn command(line: &str) -> Command {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    Command::from_args(&args)
}

fn run(map: &mut Map, line: &str) -> String {
    let command = command(line);
    let spec = command::lookup(command.name()).expect("known");
    let reply = match spec.access {
        Access::Read | Access::AllRead | Access::Scan => map.read(&command.raw),
        _ => map.apply(Index(1), &command.raw, Wanted::Yes),
    };
    let mut out = BytesMut::new();
    reply.encode(Protocol::Resp2, &mut out);
    String::from_utf8_lossy(&out).replace("\r\n", " ").trim_end().to_owned()
}

fn check(script: &[(&str, &str)]) {
    let mut map = Map::new();
    for (line, expected) in script {
        assert_eq!(run(&mut map, line), *expected, "{line}");
    }
}

/// As [`check`], each command taken up by a leader whose clock says so.
fn check_at(script: &[(u64, &str, &str)]) {
    let mut map = Map::new();
    for (now, line, expected) in script {
        assert_eq!(run_at(&mut map, UnixMs(*now), line), *expected, "{line} at {now}");
        assert_eq!(map.deadlines.len(), deadlines(&map).len(), "after {line} at {now}");
        assert!(map.deadlines.iter().eq(deadlines(&map).iter()), "after {line} at {now}");
    }
}

fn deadlines(map: &Map) -> BTreeSet<(UnixMs, Place)> {
    let expiring = map.values.iter().filter_map(|(place, value)| Some((value.expires()?, place)));
    expiring.map(|(at, place)| (at, place.clone())).collect()
}

/// What a leader does: stamps what depends on the time, and lets what is due go first.
fn run_at(map: &mut Map, now: UnixMs, line: &str) -> String {
    let raw = command(line).raw;
    let is_due = |map: &Map| map.due(UnixMs(0)).is_some_and(|due| due <= now);
    let spec = command::lookup(command(line).name()).expect("known");
    let reply = if let Access::Read | Access::AllRead = spec.access {
        while is_due(map) {
            let tick = map.stamp(&Bytes::new(), now, true).expect("time passes");
            assert_eq!(map.apply(Index(1), &tick, Wanted::No), Reply::Ok);
        }
        map.read_at(&raw, now)
    } else {
        let payload = map.stamp(&raw, now, is_due(map)).unwrap_or(raw);
        map.apply(Index(1), &payload, Wanted::Yes)
    };
    let mut out = BytesMut::new();
    reply.encode(Protocol::Resp2, &mut out);
    String::from_utf8_lossy(&out).replace("\r\n", " ").trim_end().to_owned()
}

#[test]
fn keys_expire() {
    check_at(&[
        (1000, "TTL k", ":-2"),
        (1000, "EXPIRE k 10", ":0"),
        (1000, "PERSIST k", ":0"),
        (1000, "SET k v", "+OK"),
        (1000, "TTL k", ":-1"),
        (1000, "EXPIRETIME k", ":-1"),
        (1000, "EXPIRE k 10", ":1"),
        (1000, "TTL k", ":10"),
        (1400, "PTTL k", ":9600"),
        (1500, "TTL k", ":10"),
        (1501, "TTL k", ":9"),
        (1501, "EXPIRETIME k", ":11"),
        (1501, "PEXPIRETIME k", ":11000"),
        (10_999, "GET k", "$1 v"),
        (11_000, "GET k", "$-1"),
        (11_000, "DBSIZE", ":0"),
        // What a write keeps, and what it does not.
        (20_000, "SETEX k 5 1", "+OK"),
        (20_000, "INCR k", ":2"),
        (20_000, "APPEND k 0", ":2"),
        (20_001, "PTTL k", ":4999"),
        (20_001, "SET k 7 KEEPTTL", "+OK"),
        (20_002, "PTTL k", ":4998"),
        (20_002, "GETSET k 8", "$1 7"),
        (20_002, "PTTL k", ":-1"),
        (20_002, "PSETEX k 50 9", "+OK"),
        (20_002, "PTTL k", ":50"),
        (20_003, "PERSIST k", ":1"),
        (20_003, "PERSIST k", ":0"),
        (90_000, "GET k", "$1 9"),
        (90_000, "SET k v PX 10 GET", "$1 9"),
        (90_001, "SET k v", "+OK"),
        (90_001, "TTL k", ":-1"),
        (90_001, "SET k v EXAT 91 XX", "+OK"),
        (90_001, "PTTL k", ":999"),
        // A write that comes when the key is due finds it gone.
        (91_000, "APPEND k new", ":3"),
        (91_000, "TTL k", ":-1"),
        (91_000, "PEXPIREAT k 91001", ":1"),
        (91_001, "SETNX k w", ":1"),
        (91_001, "MSET k 1 l 2", "+OK"),
        (91_001, "DEL k l", ":2"),
    ]);
}

#[test]
fn expiry_has_conditions() {
    check_at(&[
        (0, "SET k v", "+OK"),
        (0, "EXPIRE k 100 XX", ":0"),
        (0, "EXPIRE k 100 GT", ":0"),
        (0, "EXPIRE k 100 LT", ":1"),
        (0, "EXPIRE k 50 NX", ":0"),
        (0, "EXPIRE k 50 GT", ":0"),
        (0, "EXPIRE k 100 GT", ":0"),
        (0, "EXPIRE k 200 XX GT", ":1"),
        (0, "EXPIRE k 300 LT", ":0"),
        (0, "PTTL k", ":200000"),
        (0, "GETEX k", "$1 v"),
        (0, "GETEX k EX 7", "$1 v"),
        (0, "TTL k", ":7"),
        (0, "GETEX k PERSIST", "$1 v"),
        (0, "TTL k", ":-1"),
        (0, "GETEX none EX 7", "$-1"),
        // What is past is over at once.
        (5000, "EXPIREAT k 4", ":1"),
        (5000, "EXISTS k", ":0"),
        (5000, "SET k v PXAT 4000", "+OK"),
        (5000, "EXISTS k", ":0"),
        (5000, "SET k v", "+OK"),
        (5000, "EXPIRE k -1", ":1"),
        (5000, "EXISTS k", ":0"),
        (5000, "HSET h f v", ":1"),
        (5000, "PEXPIRE h 10", ":1"),
        (5001, "HSET h g w", ":1"),
        (5001, "PTTL h", ":9"),
        (5002, "HDEL h f g", ":2"),
        (5002, "PTTL h", ":-2"),
        (5002, "SADD s m", ":1"),
        (5002, "PEXPIRE s 10", ":1"),
        (5012, "SCARD s", ":0"),
        (5012, "SADD s m", ":1"),
        (5012, "PEXPIRE s 10", ":1"),
        (5012, "FLUSHALL", "+OK"),
        (5013, "DBSIZE", ":0"),
    ]);
}

#[test]
fn times_that_are_none_are_refused() {
    let invalid = |name: &str| format!("-ERR invalid expire time in '{name}' command");
    let mut map = Map::new();
    run(&mut map, "SET k v");
    let max = i64::MAX;
    for (line, expected) in [
        (format!("EXPIRE k {max}"), invalid("expire")),
        (format!("PEXPIRE k {max}"), invalid("pexpire")),
        ("EXPIRE k ten".into(), "-ERR value is not an integer or out of range".into()),
        ("EXPIRE k 10 MAYBE".into(), "-ERR Unsupported option MAYBE".into()),
        (
            "EXPIRE k 10 NX XX".into(),
            "-ERR NX and XX, GT or LT options at the same time are not compatible".into(),
        ),
        (
            "EXPIRE k 10 GT NX".into(),
            "-ERR NX and XX, GT or LT options at the same time are not compatible".into(),
        ),
        (
            "EXPIRE k 10 GT LT".into(),
            "-ERR GT and LT options at the same time are not compatible".into(),
        ),
        ("SET k w EX 0".into(), invalid("set")),
        ("SET k w PX -5".into(), invalid("set")),
        ("SET k w EX".into(), "-ERR syntax error".into()),
        ("SET k w EX 5 PX 5".into(), "-ERR syntax error".into()),
        ("SET k w KEEPTTL EX 5".into(), "-ERR syntax error".into()),
        ("SETEX k 0 w".into(), invalid("setex")),
        ("PSETEX k -1 w".into(), invalid("psetex")),
        ("GETEX k EX 0".into(), invalid("getex")),
        ("GETEX k KEEPTTL".into(), "-ERR syntax error".into()),
    ] {
        assert_eq!(run_at(&mut map, UnixMs(1), &line), expected, "{line}");
    }
    assert_eq!(run(&mut map, "GET k"), "$1 v", "what is refused changes nothing");
}

/// A leader whose clock is behind the one before brings nothing back, and holds nothing up for ever.
#[test]
fn a_clock_that_goes_back_changes_nothing() {
    check_at(&[
        (9000, "SET k v PX 10", "+OK"),
        (9010, "EXISTS k", ":0"),
        (100, "SET k v PX 10", "+OK"),
        (100, "PEXPIRETIME k", ":9020"),
        (9019, "EXISTS k", ":1"),
        (9020, "EXISTS k", ":0"),
    ]);
}

#[test]
fn one_entry_lets_only_so_many_keys_go_and_never_misses_its_own() {
    let mut map = Map::new();
    let count = limits::EXPIRED_AT_ONCE_MAX + 10;
    for key in 0..count {
        assert_eq!(run_at(&mut map, UnixMs(1), &format!("SET k{key} v PXAT 50")), "+OK");
    }
    assert_eq!(map.due(UnixMs(0)), Some(UnixMs(50)));
    assert_eq!(map.due(UnixMs(50)), None, "one entry at 50 sees to all of them");
    let last = map.deadlines.last().map(|(_, place)| place.key.clone()).expect("there are keys");
    let append = Command::from_args(&[b"APPEND", &last, b"x"]).raw;
    let append = map.stamp(&append, UnixMs(50), true).expect("something is due");
    assert_eq!(map.apply(Index(1), &append, Wanted::Yes), Reply::Int(1), "its own key was due");
    assert_eq!(map.len(), 10, "nine that are due, and the new one");
    let tick = map.stamp(&Bytes::new(), UnixMs(50), true).expect("time passes");
    map.apply(Index(1), &tick, Wanted::No);
    assert_eq!((map.len(), map.due(UnixMs(0))), (1, None));
}

#[test]
fn what_needs_no_time_is_replicated_as_it_was_sent() {
    let map = Map::new();
    let stamped = |line: &str| map.stamp(&command(line).raw, UnixMs(7), false).is_some();
    for line in [
        "SET k v",
        "SET k v NX",
        "SET k v KEEPTTL",
        "GETEX k",
        "GETEX k PERSIST",
        "PERSIST k",
        "DEL k l m",
        "HSET h f v",
        "MSET a 1 b 2",
        "GETSET k v",
        "GETDEL k",
        "INCRBY k 5",
        "APPEND k v",
        "SETNX k v",
    ] {
        assert!(!stamped(line), "{line}");
    }
    for line in [
        "SET k v EX 1",
        "set k v nx px 1",
        "SET k v EXAT 1",
        "SET k v PXAT 1",
        "EXPIRE k 1",
        "pexpire k 1",
        "EXPIREAT k 1",
        "PEXPIREAT k 1",
        "SETEX k 1 v",
        "PSETEX k 1 v",
        "GETEX k EX 1",
    ] {
        assert!(stamped(line), "{line}");
        let (at, rest) = stamp::read(&map.stamp(&command(line).raw, UnixMs(7), false).expect("so"));
        assert_eq!((at, rest), (Some(UnixMs(7)), command(line).raw), "{line}");
    }
}

/// A transaction as a connection puts it together.
fn whole(watched: &[(&str, i64)], lines: &[&str]) -> Command {
    let slot = slot::key_slot(command(lines[0]).arg(1)).to_string();
    let count = watched.len().to_string();
    let numbers: Vec<String> = watched.iter().map(|(_, number)| number.to_string()).collect();
    let commands: Vec<Bytes> = lines.iter().map(|line| command(line).raw).collect();
    let mut args: Vec<&[u8]> = vec![b"EXEC", slot.as_bytes(), count.as_bytes()];
    for ((key, _), number) in watched.iter().zip(&numbers) {
        args.extend([key.as_bytes(), number.as_bytes()]);
    }
    args.extend(commands.iter().map(|command| &command[..]));
    Command::from_args(&args)
}

fn watched(map: &Map, key: &str) -> i64 {
    match map.read(&command(&format!("WATCH {key}")).raw) {
        Reply::Array(numbers) => match numbers[..] {
            [Reply::Int(number)] => number,
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let mut map = Map::new();
    let mut exec = |watched: &[(&str, i64)], lines: &[&str], at: Option<u64>| {
        let command = whole(watched, lines).raw;
        let payload = match at {
            Some(at) => map.stamp(&command, UnixMs(at), false).expect("it depends on the time"),
            None => command,
        };
        let reply = map.apply(Index(1), &payload, Wanted::Yes);
        (reply, self::watched(&map, "k"))
    };
    let (reply, before) = exec(&[("k", 0)], &["SET k 1", "INCR k", "GET k"], None);
    assert_eq!(reply, Reply::Array(vec![Reply::Ok, Reply::Int(2), Reply::bulk("2")]));
    // It holds something else now, or holds it until another time.
    assert_eq!(exec(&[("k", 0)], &["SET k 7"], None), (Reply::NilArray, before));
    let (reply, until) = exec(&[("k", before)], &["PEXPIRE k 10"], Some(50));
    assert_eq!(reply, Reply::Array(vec![Reply::Int(1)]));
    assert_eq!(exec(&[("k", before)], &["SET k 7"], None), (Reply::NilArray, until));
    // What fails does not undo the rest.
    let (reply, after) = exec(&[("k", until)], &["SET k x", "INCR k", "APPEND k y"], None);
    let refusal = Reply::not_an_integer();
    assert_eq!(reply, Reply::Array(vec![Reply::Ok, refusal, Reply::Int(2)]));
    // A watched key that is due is gone.
    let (_, until) = exec(&[("k", after)], &["PEXPIRE k 10"], Some(60));
    assert_eq!(exec(&[("k", until)], &["SET k 1 PX 1"], Some(70)).0, Reply::NilArray);
    assert_eq!(exec(&[("k", 0)], &["SET k 1 PX 1"], Some(70)).0, Reply::Array(vec![Reply::Ok]));
    let nonsense = map.apply(Index(1), &command("EXEC 5 x").raw, Wanted::Yes);
    assert!(nonsense.is_error(), "{nonsense:?}");
}

#[test]
fn strings() {
    check(&[
        ("GET k", "$-1"),
        ("SET k v", "+OK"),
        ("GET k", "$1 v"),
        ("SET k ", "+OK"),
        ("GET k", "$0"),
        ("STRLEN k", ":0"),
        ("APPEND k abc", ":3"),
        ("APPEND new xy", ":2"),
        ("STRLEN k", ":3"),
        ("GETSET k z", "$3 abc"),
        ("GETSET fresh z", "$-1"),
        ("GETDEL k", "$1 z"),
        ("GETDEL k", "$-1"),
        ("SETNX k 1", ":1"),
        ("SETNX k 2", ":0"),
        ("TYPE k", "+string"),
        ("TYPE nosuch", "+none"),
        ("EXISTS k k nosuch", ":2"),
        ("DEL k k new", ":2"),
        ("DBSIZE", ":1"),
        ("FLUSHALL", "+OK"),
        ("DBSIZE", ":0"),
    ]);
}

#[test]
fn conditional_sets() {
    check(&[
        ("SET k v XX", "$-1"),
        ("SET k v NX", "+OK"),
        ("SET k w NX", "$-1"),
        ("SET k w XX", "+OK"),
        ("SET k x GET", "$1 w"),
        ("SET k y NX GET", "$1 x"),
        ("SET none y XX GET", "$-1"),
        ("SET none y NX GET", "$-1"),
        ("GET none", "$1 y"),
        ("SET k y IFEQ nope", "$-1"),
        ("SET k y IFEQ x", "+OK"),
        ("SET k z IFEQ x GET", "$1 y"),
        ("SET k z IFEQ y GET", "$1 y"),
        ("GET k", "$1 z"),
        ("SET absent v IFEQ x", "$-1"),
    ]);
}

#[test]
fn numbers() {
    check(&[
        ("INCR n", ":1"),
        ("INCRBY n 41", ":42"),
        ("DECR n", ":41"),
        ("DECRBY n -1", ":42"),
        ("GET n", "$2 42"),
        ("SET n 9223372036854775807", "+OK"),
        ("INCR n", "-ERR increment or decrement would overflow"),
        ("GET n", "$19 9223372036854775807"),
        ("SET n abc", "+OK"),
        ("INCR n", "-ERR value is not an integer or out of range"),
        ("SET n 01", "+OK"),
        ("INCR n", "-ERR value is not an integer or out of range"),
    ]);
}

#[test]
fn hashes() {
    check(&[
        ("HSET h a 1 b 2", ":2"),
        ("HSET h b 3 c 4", ":1"),
        ("HGET h b", "$1 3"),
        ("HGET h nosuch", "$-1"),
        ("HGET nosuch a", "$-1"),
        ("HMGET h a nosuch c", "*3 $1 1 $-1 $1 4"),
        ("HMGET nosuch a", "*1 $-1"),
        ("HGETALL h", "*6 $1 a $1 1 $1 b $1 3 $1 c $1 4"),
        ("HGETALL nosuch", "*0"),
        ("HKEYS h", "*3 $1 a $1 b $1 c"),
        ("HVALS h", "*3 $1 1 $1 3 $1 4"),
        ("HLEN h", ":3"),
        ("HLEN nosuch", ":0"),
        ("HEXISTS h a", ":1"),
        ("HEXISTS h z", ":0"),
        ("HSETNX h a 9", ":0"),
        ("HSETNX h z 9", ":1"),
        ("HINCRBY h z -10", ":-1"),
        ("HINCRBY h new 5", ":5"),
        ("HSET h text abc", ":1"),
        ("HINCRBY h text 1", "-ERR hash value is not an integer"),
        ("HSET h max 9223372036854775807", ":1"),
        ("HINCRBY h max 1", "-ERR increment or decrement would overflow"),
        ("HMSET h a 10 b 3", "+OK"),
        ("HSTRLEN h a", ":2"),
        ("HSTRLEN h nosuch", ":0"),
        ("HSTRLEN nosuch a", ":0"),
        ("HDEL h a a nosuch", ":1"),
        ("TYPE h", "+hash"),
        ("DBSIZE", ":1"),
        ("HDEL h b c z new text max", ":6"),
        ("EXISTS h", ":0"),
        ("HDEL h a", ":0"),
        ("HSET h again 1", ":1"),
        ("DEL h", ":1"),
        ("TYPE h", "+none"),
    ]);
}

#[test]
fn sets() {
    check(&[
        ("SADD s b a b", ":2"),
        ("SADD s a c", ":1"),
        ("SCARD s", ":3"),
        ("SCARD nosuch", ":0"),
        ("SISMEMBER s a", ":1"),
        ("SISMEMBER s z", ":0"),
        ("SISMEMBER nosuch z", ":0"),
        ("SMISMEMBER s a z a", "*3 :1 :0 :1"),
        ("SMISMEMBER nosuch z", "*1 :0"),
        ("SMEMBERS s", "*3 $1 a $1 b $1 c"),
        ("SMEMBERS nosuch", "*0"),
        ("SREM s a nosuch a", ":1"),
        ("TYPE s", "+set"),
        ("SREM s b c", ":2"),
        ("EXISTS s", ":0"),
        ("SREM s b", ":0"),
    ]);
}

#[test]
fn a_command_for_another_type_is_refused_and_changes_nothing() {
    let mut map = Map::new();
    run(&mut map, "HSET h f 1");
    run(&mut map, "SADD s m");
    run(&mut map, "SET k v");
    let before = map.digest();
    let for_strings = [
        "GET",
        "STRLEN",
        "GETRANGE 0 1",
        "GETEX EX 0",
        "INCR",
        "DECR",
        "GETDEL",
        "APPEND v",
        "GETSET v",
        "INCRBY 1",
        "DECRBY 1",
        "SET v GET",
        "SET v IFEQ v",
    ];
    let for_hashes =
        ["HGETALL", "HLEN", "HKEYS", "HVALS", "HGET f", "HMGET f", "HEXISTS f", "HSET f 1"];
    let for_hashes = [
        &for_hashes[..],
        &["HSETNX f 1", "HDEL f", "HINCRBY f 1", "HMSET f 1", "HSTRLEN f", "HSCAN 0"],
    ]
    .concat();
    let for_sets =
        ["SMEMBERS", "SCARD", "SISMEMBER m", "SADD m", "SREM m", "SMISMEMBER m", "SSCAN 0"];
    let cases =
        [("h", &for_strings[..]), ("s", &for_strings), ("k", &for_hashes), ("s", &for_hashes)];
    for (key, commands) in cases.into_iter().chain([("k", &for_sets[..]), ("h", &for_sets)]) {
        for command in commands {
            let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
            let line = format!("{name} {key} {rest}");
            assert_eq!(
                run(&mut map, line.trim_end()),
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
                "{line}"
            );
        }
    }
    assert_eq!(map.digest(), before);
    assert_eq!(run(&mut map, "MGET h k s"), "*3 $-1 $1 v $-1");
    assert_eq!(run(&mut map, "SET h v"), "+OK", "SET takes whatever was there away");
    assert_eq!(run(&mut map, "MSET s v"), "+OK");
    assert_eq!(run(&mut map, "SCAN 0 TYPE string"), run(&mut map, "SCAN 0"));
}

#[test]
fn a_scan_looks_for_a_type() {
    check(&[
        ("HSET h f 1", ":1"),
        ("SADD s m", ":1"),
        ("SET k v", "+OK"),
        ("SCAN 0 TYPE hash", "*2 $13 1099511627776 *1 $1 h"),
        ("SCAN 0 TYPE SET", "*2 $13 1099511627776 *1 $1 s"),
        ("SCAN 0 TYPE list", "*2 $13 1099511627776 *0"),
    ]);
}

#[test]
fn a_hash_or_set_has_a_bound() {
    use collections::room;
    assert_eq!(room(limits::COLLECTION_PARTS_MAX - 1, 1), Ok(()));
    let refused = room(limits::COLLECTION_PARTS_MAX, 1).expect_err("full");
    assert!(refused.error_text().contains("at most 4194304 parts"), "{refused:?}");
    // And a reply that gathers all of one has its own.
    let mut map = Map::new();
    for field in [b"a", b"b", b"c"] {
        let value = vec![b'v'; limits::VALUE_BYTES_MAX];
        let command = Command::from_args(&[b"HSET", b"h", field, &value]);
        assert_eq!(map.apply(Index(1), &command.raw, Wanted::Yes), Reply::Int(1));
    }
    assert_eq!(map.read(&command("HGETALL h").raw), Reply::too_large());
}

/// What a step of a scan of the parts of `h` or `s` returns, and where it goes on.
fn scan_parts(map: &Map, name: &str, cursor: u64, options: &str) -> (u64, Vec<String>) {
    let line = format!("{name} {cursor} {options}");
    let reply = map.read(&command(line.trim_end()).raw);
    assert!(reply.bytes() < limits::REPLY_BYTES_MAX, "{line}");
    let Reply::Array(parts) = reply else { panic!("{line}: {reply:?}") };
    let [Reply::Bulk(next), Reply::Array(found)] = &parts[..] else { panic!("{line}: {parts:?}") };
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let found = found.iter().map(|it| match it {
        Reply::Bulk(bytes) => text(bytes),
        other => panic!("{other:?}"),
    });
    (text(next).parse().expect("a cursor is a number"), found.collect())
}

#[test]
fn a_scan_of_few_parts_returns_all_of_them() {
    let mut map = Map::new();
    assert_eq!(scan_parts(&map, "HSCAN h", 0, ""), (0, vec![]));
    run(&mut map, "HSET h b 2 a 1");
    run(&mut map, "SADD s b a");
    for number in 0..limits::COLLECTION_FEW_MAX - 2 {
        run(&mut map, &format!("SADD s member:{number}"));
    }
    let (next, mut found) = scan_parts(&map, "HSCAN h", 0, "COUNT 1");
    assert_eq!((next, found.len()), (0, 4));
    assert!(found.chunks(2).all(|pair| [["a", "1"], ["b", "2"]].iter().any(|it| it == pair)));
    found.sort();
    found.dedup();
    assert_eq!(found, ["1", "2", "a", "b"]);
    assert_eq!(scan_parts(&map, "SSCAN s", 0, "COUNT 1").1.len(), limits::COLLECTION_FEW_MAX);
    assert_eq!(scan_parts(&map, "SSCAN s", 0, "MATCH a"), (0, vec!["a".to_owned()]));
    assert_eq!(scan_parts(&map, "HSCAN h", 0, "match b*"), (0, vec!["b".into(), "2".into()]));
    for past in [SCAN_END, u64::MAX] {
        assert_eq!(scan_parts(&map, "HSCAN h", past, ""), (0, vec![]));
    }
    // As few as they are: what is too much for one reply comes in several.
    for number in 0..20 {
        let (field, value) = (format!("large{number}"), vec![b'v'; 300 << 10]);
        let command = Command::from_args(&[b"HSET", b"l", field.as_bytes(), &value]);
        map.apply(Index(1), &command.raw, Wanted::Yes);
    }
    let (mut seen, mut cursor, mut calls) = (BTreeSet::new(), 0, 0);
    loop {
        let (next, found) = scan_parts(&map, "HSCAN l", cursor, "COUNT 1000");
        seen.extend(found.into_iter().step_by(2));
        calls += 1;
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!((seen.len(), calls), (20, 5));
}

#[test]
fn a_scan_of_many_parts_returns_each_that_stays_in_bounded_steps() {
    const STAYING: usize = 3_000;
    let mut map = Map::new();
    for number in 0..STAYING {
        run(&mut map, &format!("HSET h stay:{number} {number}"));
        run(&mut map, &format!("SADD s stay:{number}"));
    }
    for (name, each, add, remove) in [
        ("HSCAN h", 2, "HSET h guest:# 1", "HDEL h guest:#"),
        ("SSCAN s", 1, "SADD s guest:#", "SREM s guest:#"),
    ] {
        let (mut seen, mut cursor, mut calls) = (BTreeMap::new(), 0, 0);
        for round in 0.. {
            let (next, found) = scan_parts(&map, name, cursor, "COUNT 20");
            assert!(found.len() <= each * 22, "{} of COUNT 20", found.len());
            for part in found.into_iter().step_by(each) {
                *seen.entry(part).or_insert(0) += 1;
            }
            calls += 1;
            cursor = next;
            if cursor == 0 {
                break;
            }
            // Parts come before and behind the cursor, and go.
            run(&mut map, &add.replace('#', &round.to_string()));
            run(&mut map, &remove.replace('#', &(round / 2).to_string()));
        }
        let staying = seen.iter().filter(|(part, _)| part.starts_with("stay"));
        assert!(seen.values().all(|times| *times == 1), "{name} returns none twice");
        assert_eq!(staying.count(), STAYING, "{name} returns each that stays");
        assert!(STAYING / 20 < calls, "{name} in {calls} calls");
    }
    // A cursor means the same once few are left: a scan goes on where it was.
    let (cursor, first) = scan_parts(&map, "SSCAN s", 0, "COUNT 20");
    let gone = (100..STAYING).map(|number| format!("stay:{number}"));
    for part in gone.filter(|part| !first.contains(part)) {
        run(&mut map, &format!("SREM s {part}"));
    }
    let (end, rest) = scan_parts(&map, "SSCAN s", cursor, "COUNT 20");
    let seen: BTreeSet<_> = first.iter().chain(&rest).cloned().collect();
    assert_eq!((end, first.len() + rest.len()), (0, seen.len()), "none twice");
    assert!((0..100).all(|number| seen.contains(&format!("stay:{number}"))));
    let (next, found) = scan_parts(&map, "HSCAN h", 0, "COUNT 1000000 MATCH nosuch*");
    assert_eq!((next, found), (0, vec![]), "all were looked at, {STAYING} being below the bound");
}

#[test]
fn parts_of_a_value() {
    check(&[
        ("SET k Hello", "+OK"),
        ("GETRANGE k 0 -1", "$5 Hello"),
        ("GETRANGE k 1 2", "$2 el"),
        ("GETRANGE k -3 -2", "$2 ll"),
        ("GETRANGE k 3 1", "$0"),
        ("GETRANGE k -1 -3", "$0"),
        ("GETRANGE k -100 -90", "$1 H"),
        ("GETRANGE k -100 1", "$2 He"),
        ("GETRANGE k 0 100", "$5 Hello"),
        ("GETRANGE k 5 10", "$0"),
        ("GETRANGE k 4 4", "$1 o"),
        ("GETRANGE k 0 -9223372036854775808", "$1 H"),
        ("GETRANGE k -9223372036854775808 9223372036854775807", "$5 Hello"),
        ("GETRANGE nosuch 0 1", "$0"),
        ("GETRANGE nosuch x 1", "-ERR value is not an integer or out of range"),
    ]);
}

#[test]
fn several_keys_if_none_is_there() {
    check(&[
        ("MSETNX {t}a 1 {t}b 2 {t}a 3", ":1"),
        ("MGET {t}a {t}b", "*2 $1 3 $1 2"),
        ("MSETNX {t}c 1 {t}b 9", ":0"),
        ("MGET {t}b {t}c", "*2 $1 2 $-1"),
        (
            "MSETNX a 1 b 2",
            "-CROSSSLOT Keys in request don't hash to the same slot: MSETNX is all or nothing",
        ),
        ("MSETNX a 1 b", "-ERR wrong number of arguments for 'msetnx' command"),
        ("TOUCH {t}a {t}a nosuch", ":2"),
        ("UNLINK {t}a {t}a nosuch", ":1"),
        ("MSETNX {t}a 1", ":1"),
    ]);
    check_at(&[
        (10, "SET k v PX 5", "+OK"),
        (14, "MSETNX k 1", ":0"),
        (15, "MSETNX k 1", ":1"),
        (16, "PTTL k", ":-1"),
    ]);
}

#[test]
fn an_option_said_twice_is_said_once() {
    check_at(&[
        (1, "SET k v NX NX", "+OK"),
        (1, "SET k w NX NX", "$-1"),
        (1, "SET k v XX XX", "+OK"),
        (1, "SET k v GET GET", "$1 v"),
        (1, "SET k v EX 10 EX 20", "+OK"),
        (1, "PTTL k", ":20000"),
        (1, "SET k v KEEPTTL KEEPTTL", "+OK"),
        (1, "PTTL k", ":20000"),
        (1, "SET k v EX 0 EX 10", "+OK"),
        (1, "SET k v EX x EX 10", "+OK"),
        (1, "SET k v EX 10 EX x", "-ERR value is not an integer or out of range"),
        (1, "SET k v EX 10 PX 10", "-ERR syntax error"),
        (1, "SET k v EX 10 KEEPTTL", "-ERR syntax error"),
        (1, "SET k v KEEPTTL EX 10", "-ERR syntax error"),
        (1, "SET k v NX XX", "-ERR syntax error"),
        (1, "SET k v EX", "-ERR syntax error"),
        (1, "GETEX k EX 10 EX 30", "$1 v"),
        (1, "PTTL k", ":30000"),
        (1, "GETEX k PERSIST PERSIST", "$1 v"),
        (1, "PTTL k", ":-1"),
        (1, "GETEX k EX 10 PERSIST", "-ERR syntax error"),
        (1, "GETEX k PERSIST EX 10", "-ERR syntax error"),
        (1, "GETEX k EX 0", "-ERR invalid expire time in 'getex' command"),
        (1, "GETEX k EX x", "-ERR value is not an integer or out of range"),
        // Of a key that is not there no time is asked.
        (1, "GETEX nosuch EX 0", "$-1"),
        (1, "GETEX nosuch EX x", "$-1"),
        (1, "GETEX nosuch EX", "-ERR syntax error"),
        // Seconds are rounded.
        (1, "PEXPIREAT k 1499", ":1"),
        (1, "EXPIRETIME k", ":1"),
        (1, "PEXPIREAT k 1500", ":1"),
        (1, "EXPIRETIME k", ":2"),
    ]);
}

#[test]
fn several_keys() {
    check(&[
        ("MSET a 1 b 2 a 3", "+OK"),
        ("MGET a b c", "*3 $1 3 $1 2 $-1"),
        ("SCAN 0 COUNT 100 MATCH a*", "*2 $13 1099511627776 *1 $1 a"),
    ]);
}

#[test]
fn a_value_cannot_grow_past_its_limit() {
    let mut map = Map::new();
    map.set(b"k", &vec![b'x'; limits::VALUE_BYTES_MAX]);
    let reply = run(&mut map, "APPEND k y");
    assert!(reply.starts_with("-ERR string exceeds maximum allowed size"), "{reply}");
    assert_eq!(run(&mut map, "STRLEN k"), format!(":{}", limits::VALUE_BYTES_MAX));
}

#[test]
fn a_payload_that_is_no_command_is_refused_and_changes_nothing() {
    let mut map = Map::new();
    for payload in [&b""[..], b"junk", b"*1\r\n$4\r\nPING\r\n", b"*2\r\n$3\r\nSET\r\n$1\r\nk\r\n"] {
        let reply = map.apply(Index(1), &Bytes::from_static(payload), Wanted::Yes);
        assert!(reply.is_error(), "{payload:?}: {reply:?}");
    }
    assert!(map.is_empty());
}

proptest! {
    #[test]
    fn equal_content_has_equal_digest_whatever_the_history(
        pairs in prop::collection::btree_map("[a-z]{1,4}", "[a-z]{0,4}", 1..12),
        gone in "[A-Z]{1,4}",
    ) {
        let (mut one, mut two) = (Map::new(), Map::new());
        run(&mut one, &format!("SET {gone} x"));
        for (key, value) in &pairs {
            one.set(key.as_bytes(), value.as_bytes());
        }
        run(&mut one, &format!("DEL {gone}"));
        for (key, value) in pairs.iter().rev() {
            two.set(key.as_bytes(), b"before");
            two.set(key.as_bytes(), value.as_bytes());
        }
        prop_assert_eq!(one.digest(), two.digest());
        let (key, value) = pairs.first_key_value().expect("one at least");
        two.set(key.as_bytes(), format!("{value}!").as_bytes());
        prop_assert_ne!(one.digest(), two.digest());
    }

    #[test]
    fn replicas_agree_whether_or_not_somebody_waits(
        lines in prop::collection::vec(
            ("SET|INCR|APPEND|DEL|GETDEL|SETNX|GETSET", "[ab]", "[0-9a]{1,2}"), 0..30),
    ) {
        let (mut leader, mut follower) = (Map::new(), Map::new());
        for (name, key, value) in lines {
            let takes_value = !matches!(name.as_str(), "INCR" | "DEL" | "GETDEL");
            let line =
                if takes_value { format!("{name} {key} {value}") } else { format!("{name} {key}") };
            let raw = command(&line).raw;
            leader.apply(Index(1), &raw, Wanted::Yes);
            follower.apply(Index(1), &raw, Wanted::No);
        }
        prop_assert_eq!(leader.digest(), follower.digest());
    }
}

#[test]
fn a_reply_that_gathers_too_much_is_refused_and_a_scan_stops_early() {
    let mut map = Map::new();
    map.set(b"big", &vec![b'v'; limits::VALUE_BYTES_MAX]);
    let two = map.read(&Command::from_args(&[b"MGET", b"big", b"big"]).raw);
    assert!(two.bytes() <= limits::REPLY_BYTES_MAX, "two of the largest fit");
    let three = map.read(&Command::from_args(&[b"MGET", b"big", b"big", b"big"]).raw);
    assert_eq!(three, Reply::too_large());

    let mut map = Map::new();
    for number in 0..100u32 {
        let key = [&number.to_be_bytes()[..], &[b'k'; limits::KEY_BYTES_MAX - 4]].concat();
        map.set(&key, b"v");
    }
    let scan = map.read(&Command::from_args(&[b"SCAN", b"0", b"COUNT", b"1000"]).raw);
    assert!(scan.bytes() < 2 * SCAN_BYTES_SOFT, "{} bytes of keys", scan.bytes());
    let Reply::Array(parts) = &scan else { panic!("{scan:?}") };
    assert_ne!(parts[0], Reply::bulk(SCAN_END.to_string()), "and says where to go on");
}

#[test]
fn a_value_as_long_as_the_last_takes_its_memory_unless_somebody_reads_it() {
    let mut map = Map::new();
    let memory = |map: &Map| map.get(b"k").expect("a string").expect("set").as_ptr();
    run(&mut map, "SET k aaa");
    let first = memory(&map);
    run(&mut map, "SET k bbb");
    assert_eq!(memory(&map), first, "the same memory");
    // A reply on its way, and a snapshot.
    let reply = map.get(b"k").expect("a string").expect("set").clone();
    let mut frozen = map.freeze();
    run(&mut map, "SET k ccc");
    assert_eq!(&reply[..], b"bbb");
    run(&mut map, "SET k ddd");
    let chunk = frozen.next_chunk(1 << 20).expect("one pair");
    assert!(chunk.ends_with(b"bbb"), "{chunk:?}");
    assert_eq!(run(&mut map, "GET k"), "$3 ddd");
    run(&mut map, "SET k longer");
    assert_eq!(run(&mut map, "GET k"), "$6 longer");
}

/// How many keys each slot has, counted by hand.
fn counted(map: &Map) -> BTreeMap<u16, u64> {
    let mut counts = BTreeMap::new();
    for (place, _) in map.values.iter() {
        *counts.entry(slot::key_slot(&place.key)).or_default() += 1;
    }
    counts
}

proptest! {
    #[test]
    fn the_keys_of_every_slot_are_counted_whatever_happens_to_them(
        commands in prop::collection::vec(
            (prop::sample::select(vec![
                "SET # 1", "SETNX # 1", "MSET # 1 b 2", "APPEND # 1", "INCR n#", "DEL # b",
                "GETDEL #", "GETSET # 1", "SET # 1 XX", "FLUSHALL", "HSET h# f 1", "HSET h# g 1", "HDEL h# f g",
                "SADD s# m", "SREM s# m",
            ]), 0u8..6),
            0..60,
        ),
    ) {
        let mut map = Map::new();
        for (line, key) in commands {
            run(&mut map, &line.replace('#', &format!("{{{}}}{key}", key % 2)));
            prop_assert_eq!(&map.slots, &counted(&map));
        }
        let mut restoring = snapshot::RestoringMap::default();
        let mut frozen = map.freeze();
        while let Some(chunk) = frozen.next_chunk(64) {
            restoring.chunk(&chunk).expect("sound");
        }
        prop_assert_eq!(restoring.slots(), &map.slots);
    }
}

#[test]
fn keys_in_a_slot_are_counted() {
    let mut map = Map::new();
    for line in ["SET foo 1", "SET {foo}1 1", "SET bar 1", "DEL {foo}1"] {
        run(&mut map, line);
    }
    let count =
        |map: &Map, slot: &str| map.read(&command(&format!("CLUSTER COUNTKEYSINSLOT {slot}")).raw);
    assert_eq!(count(&map, "12182"), Reply::Int(1));
    assert_eq!(count(&map, "5061"), Reply::Int(1));
    assert_eq!(count(&map, "0"), Reply::Int(0));
    assert!(map.read(&command("CLUSTER SLOTS").raw).is_error(), "no group knows");
}
