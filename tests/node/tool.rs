//! `outrigger tool`, which looks at a log, from the outside: what it prints of a log that is whole, of one whose end is
//! torn, and of one that is damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use outrigger::id::{ClusterId, ConnId, Incarnation, NodeId, SegmentSeq, ShardId, Tick, UnixMs};
use outrigger::shard::event::Request;
use outrigger::shard::{Config, Effects, Event, Leases, Recovering, Shard};
use outrigger::store::connection::Manner;
use outrigger::wal::file_name;
use outrigger::wire::resp::Command as Words;

const SEGMENT_BYTES: usize = 1 << 20;
/// Keys in front of the snapshots, beside one that expires.
const KEYS: usize = 40;

/// A directory of its own.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("log-tools-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A node of two groups that is a cluster by itself, on a disk in memory.
struct Node {
    shard: Shard,
    now: Tick,
    disk: BTreeMap<SegmentSeq, Vec<u8>>,
}

impl Node {
    fn new() -> Self {
        let config = Config {
            cluster: ClusterId(0xc1),
            node: NodeId(1),
            incarnation: Incarnation(1),
            shard: ShardId(0),
            cores: 1,
            groups: 2,
            nodes: vec![NodeId(1)],
            addresses: Vec::new(),
            election_ms: 100,
            heartbeat_ms: 10,
            priority: 100,
            request_ms: 1_000,
            flushes_in_flight: 2,
            flush_joins_bytes: 0,
            leases: Leases::default(),
            log_cache_bytes: 1 << 20,
            log_bytes: 1 << 30,
            snapshot_bytes_per_s: 1 << 30,
            seed: 7,
        };
        let recovering = Recovering::new(config).with_segment_bytes(SEGMENT_BYTES);
        let (shard, _) = recovering.finish(Tick(0)).unwrap();
        let mut node = Self { shard, now: Tick(0), disk: BTreeMap::new() };
        node.shard.on_event(Tick(0), Event::Wall(UnixMs(1_000_000)));
        node.turns();
        node
    }

    fn turns(&mut self) {
        for _ in 0..8 {
            self.now = self.now.plus(1);
            let mut fx = Effects::default();
            self.shard.turn(self.now, &mut fx);
            if let Some(segment) = fx.spare {
                self.disk.insert(segment, vec![0; SEGMENT_BYTES]);
                self.shard.on_event(self.now, Event::SpareReady(segment));
            }
            for write in fx.writes {
                let mut bytes = vec![0; write.bytes];
                write.encode_into(&mut bytes);
                let at = write.offset as usize;
                let segment = self.disk.get_mut(&write.segment).unwrap();
                segment[at..at + bytes.len()].copy_from_slice(&bytes);
                self.shard.on_event(self.now, Event::Flushed(write.ticket));
            }
        }
    }

    fn say(&mut self, line: &str) {
        self.say_bytes(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    }

    fn say_bytes(&mut self, args: &[&[u8]]) {
        let (conn, seq, command) = (ConnId(1), 0, Words::from_args(args));
        let manner = Manner::default();
        let request = Request { conn, seq, command, after_writes: false, manner };
        self.shard.on_event(self.now, Event::Request(request));
        self.turns();
    }

    fn write_to(&self, dir: &Path) {
        for (segment, bytes) in &self.disk {
            fs::write(dir.join(file_name(*segment)), bytes).unwrap();
        }
    }
}

/// A log with entries, an expiry, a snapshot of each group, and entries behind them.
fn written(name: &str) -> Scratch {
    let mut node = Node::new();
    for number in 0..KEYS {
        node.say(&format!("SET key:{number} {}", "v".repeat(100 << 10)));
    }
    node.say("SET short-lived v PX 5000");
    node.shard.checkpoint();
    (0..100).for_each(|_| node.turns());
    assert!(!node.shard.is_checkpointing());
    node.say("HSET user name Ada");
    node.say("SET needle haystack");
    let scratch = Scratch::new(name);
    node.write_to(&scratch.0);
    scratch
}

fn tool(words: &[&str], dir: &Path, rest: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.arg("tool").args(words).arg(dir).args(rest).output().unwrap()
}

#[track_caller]
fn said(words: &[&str], dir: &Path, rest: &[&str]) -> String {
    let output = tool(words, dir, rest);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn complaint(words: &[&str], dir: &Path, rest: &[&str]) -> String {
    let output = tool(words, dir, rest);
    assert!(!output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn entries_are_found_by_text_group_and_index() {
    let log = written("grep");
    let all = said(&["wal", "grep"], &log.0, &[]);
    let found = said(&["wal", "grep"], &log.0, &["needle"]);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 2, "{found}");
    assert!(lines[0].ends_with("command  SET needle haystack"), "{found}");
    assert_eq!(lines[1], "1 entries found");
    assert!(all.lines().any(|line| line.ends_with("  empty")), "{all}");
    let stamped = said(&["wal", "grep"], &log.0, &["short-lived", "--json"]);
    assert!(stamped.contains(r#""unix_ms":1000"#), "{stamped}");
    assert!(stamped.contains(r#""commands":[["SET","short-lived","v","PX","5000"]]"#), "{stamped}");
    // Counted by group and by index, every entry is found once.
    let count = |rest: &[&str]| said(&["wal", "grep"], &log.0, rest).lines().count() - 1;
    let total = count(&[]);
    assert_eq!(total, count(&["", "--group", "0"]) + count(&["", "--group", "1"]));
    let (low, high) = (count(&["", "--to", "3"]), count(&["", "--from", "4"]));
    assert_eq!((low, low + high), (6, total));
}

#[test]
fn snapshots_are_listed_verified_and_extracted() {
    let log = written("snapshot");
    let list = said(&["snapshot", "list"], &log.0, &[]);
    let rows: Vec<&str> = list.lines().skip(1).collect();
    assert_eq!(rows.len(), 2, "{list}");
    assert!(rows.iter().all(|row| row.ends_with("  taken")), "{list}");
    let json = said(&["snapshot", "list"], &log.0, &["--json"]);
    assert!(
        json.lines().all(|row| row.contains(r#""state":"taken","superseded":false"#)),
        "{json}"
    );

    let verified = said(&["snapshot", "verify"], &log.0, &[]);
    assert!(verified.ends_with("whole: 2 snapshots\n"), "{verified}");
    let keys = |line: &str| line.split(' ').nth(2).unwrap().parse::<u64>().unwrap();
    let total: u64 = verified.lines().take(2).map(keys).sum();
    assert_eq!(total, KEYS as u64 + 1, "{verified}");

    let mut commands = String::new();
    for group in ["0", "1"] {
        let out = log.0.join(format!("group-{group}.resp"));
        let out_name = out.to_str().unwrap();
        let told = said(&["snapshot", "extract"], &log.0, &["--group", group, out_name]);
        assert!(told.contains(&format!("keys of group {group} at ")), "{told}");
        commands += &fs::read_to_string(&out).unwrap();
        let again = complaint(&["snapshot", "extract"], &log.0, &["--group", group, out_name]);
        assert!(again.contains(out_name), "{again}");
    }
    assert_eq!(commands.matches("$3\r\nSET\r\n").count(), KEYS + 1);
    assert!(commands.contains("$4\r\nPXAT\r\n"), "a key that expires goes on expiring");
    let none = complaint(&["snapshot", "extract"], &log.0, &["--group", "7", "/nowhere"]);
    assert!(none.contains("nothing of group 7"), "{none}");
}

#[test]
fn the_state_of_each_group_and_who_holds_what() {
    let log = written("state");
    let state = said(&["raft", "state"], &log.0, &[]);
    let rows: Vec<Vec<&str>> =
        state.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{state}");
    for (group, row) in rows.iter().enumerate() {
        assert_eq!(row[..3], [&*group.to_string(), "1", "1"], "{state}");
        assert!(row[4].starts_with("1..="), "{state}");
        assert!(row[5].starts_with("1/"), "a snapshot in term 1: {state}");
        assert_eq!(row[6..], ["1"], "{state}");
    }
    let json = said(&["raft", "state"], &log.0, &["--json"]);
    assert!(json.lines().all(|row| row.contains(r#""voters":[1],"learners":[]"#)), "{json}");

    let segments = said(&["segments"], &log.0, &[]);
    let held: Vec<&str> = segments.lines().skip(1).collect();
    // Nobody needs what lies in front of the snapshots.
    assert!(held[0].ends_with("nobody"), "{segments}");
    let holders: String =
        held.iter().filter(|row| row.contains("(the snapshot at 1/")).copied().collect();
    assert!(holders.contains("group 0 (") && holders.contains("group 1 ("), "{segments}");
}

#[test]
fn a_torn_end_is_told_and_no_tool_stops_at_damage() {
    let log = written("damaged");
    // The file that was written last, and where its last batch begins.
    let dump = said(&["wal", "dump"], &log.0, &[]);
    let last = dump.lines().rfind(|line| line.contains("  batch ")).unwrap();
    let (name, offset) = (&last[..20], last[20..].split_whitespace().next().unwrap());
    let (file, offset) = (log.0.join(name), offset.parse::<usize>().unwrap());
    let whole = fs::read(&file).unwrap();

    let mut torn = whole.clone();
    torn[offset + 8..].fill(0);
    fs::write(&file, &torn).unwrap();
    assert!(said(&["wal", "check"], &log.0, &[]).contains("torn: "));
    assert!(said(&["wal", "grep"], &log.0, &[]).ends_with(", and a torn end\n"));
    assert!(!said(&["wal", "grep"], &log.0, &[]).contains("needle"), "the last entry is gone");

    // A bit in what is proven to have been durable, in one place and then in two.
    fs::write(&file, &whole).unwrap();
    let flip = |file: usize, at: usize| {
        let mut files: Vec<_> =
            fs::read_dir(&log.0).unwrap().map(|it| it.unwrap().path()).collect();
        files.sort();
        let mut damaged = fs::read(&files[file]).unwrap();
        damaged[at] ^= 1;
        fs::write(&files[file], damaged).unwrap();
    };
    for places in 1..=2 {
        flip(places - 1, 4096 + 200);
        let shown = |words: &[&str], rest: &[&str]| {
            let output = tool(words, &log.0, rest);
            assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
            let told = String::from_utf8(output.stderr).unwrap();
            let lines: Vec<&str> = told.lines().collect();
            assert_eq!(lines.len(), places + 1, "{words:?}: {told}");
            assert!(lines[..places].iter().all(|it| it.starts_with("damaged: ")), "{told}");
            let warning =
                format!("warning: damaged places: {places}; what is shown is what a start");
            assert!(lines[places].starts_with(&warning), "{told}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(shown(&["wal", "check"], &[]).starts_with("damaged: "));
        let check = shown(&["wal", "check"], &["--json"]);
        assert_eq!(check.matches(r#""offset":4096,"#).count(), places, "{check}");
        assert!(check.contains(r#""whole":false,"refused":false"#), "{check}");
        let dump = shown(&["wal", "dump"], &[]);
        assert_eq!(dump.matches("  4096  damaged: ").count(), places, "{dump}");
        assert!(dump.contains(last), "what lies behind is there: {dump}");
        assert!(shown(&["wal", "grep"], &["needle"]).contains("command  SET needle haystack"));
        assert_eq!(shown(&["snapshot", "list"], &[]).matches("  taken").count(), 2);
        let verified = shown(&["snapshot", "verify"], &[]);
        assert!(verified.ends_with("whole: 2 snapshots\n"), "{verified}");
        let out = log.0.join(format!("{places}.resp"));
        shown(&["snapshot", "extract"], &["--group", "1", out.to_str().unwrap()]);
        assert!(fs::metadata(&out).unwrap().len() > 100 << 10);
        assert_eq!(shown(&["raft", "state"], &[]).lines().count(), 3);
        assert!(shown(&["segments"], &[]).contains("(the snapshot at 1/"));
    }
    let nowhere = complaint(&["segments"], Path::new("/no/such/log"), &[]);
    assert!(nowhere.contains("/no/such/log"), "{nowhere}");
}

#[test]
fn a_snapshot_that_lost_a_piece_is_not_taken_for_whole_and_the_other_is() {
    let log = written("piece");
    let rows = said(&["wal", "dump"], &log.0, &["--json", "--group", "0"]);
    let piece = rows.lines().find(|row| row.contains(r#""kind":"snapshot_piece""#)).unwrap();
    let number = |name: &str| {
        let rest = piece.split_once(&format!("\"{name}\":")).unwrap().1;
        rest.split([',', '}']).next().unwrap().parse::<u64>().unwrap()
    };
    let file = log.0.join(file_name(SegmentSeq(number("segment"))));
    let mut bytes = fs::read(&file).unwrap();
    let at = number("offset") as usize;
    // Behind the headers: a value that this piece holds.
    let value = bytes[at..].windows(64).position(|it| it == [b'v'; 64]).unwrap();
    bytes[at + value] ^= 1;
    fs::write(&file, bytes).unwrap();
    let list = tool(&["snapshot", "list"], &log.0, &[]);
    let list = String::from_utf8(list.stdout).unwrap();
    assert_eq!(list.matches("  damaged, pieces of it are lost").count(), 1, "{list}");
    assert_eq!(list.matches("  taken").count(), 1, "{list}");
    let verified = tool(&["snapshot", "verify"], &log.0, &["--json"]);
    let verified = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.lines().count(), 1, "{verified}");
    assert!(
        verified.starts_with(r#"{"group":1,"#) && verified.contains(r#""digest":""#),
        "{verified}"
    );
    let out = log.0.join("0.resp");
    let none =
        complaint(&["snapshot", "extract"], &log.0, &["--group", "0", out.to_str().unwrap()]);
    assert!(none.contains("no whole snapshot of group 0") && !out.exists(), "{none}");
}

#[test]
fn a_directory_without_a_log_is_no_whole_log() {
    let node = Scratch::new("no-log");
    let every: [(&[&str], &[&str]); 8] = [
        (&["wal", "check"], &[]),
        (&["wal", "dump"], &[]),
        (&["wal", "grep"], &[]),
        (&["snapshot", "list"], &[]),
        (&["snapshot", "verify"], &[]),
        (&["snapshot", "extract"], &["--group", "0", "/nowhere"]),
        (&["raft", "state"], &[]),
        (&["segments"], &[]),
    ];
    for (words, rest) in every {
        let told = complaint(words, &node.0, rest);
        assert!(told.starts_with("no segments here") && !told.contains("did you mean"), "{told}");
    }
    let core = node.0.join("core-0");
    fs::create_dir_all(&core).unwrap();
    for (words, rest) in every {
        let told = complaint(words, &node.0, rest);
        assert!(told.ends_with(&format!("did you mean {}\n", core.display())), "{told}");
    }
    // Prepared and never written.
    fs::write(core.join(file_name(SegmentSeq(1))), vec![0; SEGMENT_BYTES]).unwrap();
    assert_eq!(said(&["wal", "check"], &core, &[]), "whole: an empty log, 1 unused files\n");

    let log = written("no-group");
    for words in [&["wal", "dump"][..], &["wal", "grep"], &["snapshot", "verify"]] {
        let told = complaint(words, &log.0, &["--group", "7"]);
        assert_eq!(told, "the log holds nothing of group 7\n", "{words:?}");
    }
    // A first segment without its header is no empty log.
    let only = Scratch::new("no-header");
    let name = file_name(SegmentSeq(1));
    let mut bytes = fs::read(log.0.join(&name)).unwrap();
    bytes[8] ^= 1;
    fs::write(only.0.join(&name), bytes).unwrap();
    let told = complaint(&["wal", "check"], &only.0, &[]);
    assert!(told.contains("no segment has a whole header"), "{told}");
}

#[test]
fn members_come_from_beside_the_log_when_no_snapshot_names_them() {
    let mut node = Node::new();
    node.say("SET k v");
    let home = Scratch::new("members");
    let core = home.0.join("core-0");
    fs::create_dir_all(&core).unwrap();
    node.write_to(&core);
    let state = said(&["raft", "state"], &core, &[]);
    assert!(state.lines().skip(1).all(|row| row.ends_with("  ?")), "{state}");
    let json = said(&["raft", "state"], &core, &["--json"]);
    assert!(json.lines().all(|row| row.contains(r#""voters":null,"learners":null"#)), "{json}");
    let identity =
        "cluster = \"00000000000000c1\"\nnode = 1\n[bootstrap]\n1 = \"127.0.0.1:7379\"\n";
    fs::write(home.0.join("identity.toml"), identity).unwrap();
    let json = said(&["raft", "state"], &core, &["--json"]);
    assert!(json.lines().all(|row| row.contains(r#""voters":[1],"learners":[]"#)), "{json}");
    let stranger = identity.replace("c1", "c2");
    fs::write(home.0.join("identity.toml"), stranger).unwrap();
    let told = complaint(&["wal", "check"], &core, &[]);
    assert!(told.contains("a start of the node refuses this log"), "{told}");
}

#[test]
fn a_dump_is_in_hex_where_everything_is_and_as_json_and_of_a_range() {
    let log = written("dump");
    let dump = said(&["wal", "dump"], &log.0, &[]);
    assert!(dump.contains("  cluster 00000000000000c1 node 1 shard "), "{dump}");
    let json = said(&["wal", "dump"], &log.0, &["--json"]);
    assert!(json.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{json}");
    assert!(json.contains(r#""cluster":"00000000000000c1""#), "{json}");
    assert!(json.lines().last().unwrap().starts_with(r#"{"whole":true"#), "{json}");
    let range = ["--group", "0", "--from", "2", "--to", "3", "--json"];
    let range = said(&["wal", "dump"], &log.0, &range);
    let of_runs: Vec<&str> = range.lines().filter(|it| it.contains(r#""kind":"#)).collect();
    assert_eq!(of_runs.len(), 2, "{range}");
    assert!(
        of_runs
            .iter()
            .all(|it| it.contains(r#""first":2,"last":2"#) || it.contains(r#""first":3,"last":3"#))
    );
    assert!(said(&["wal", "check"], &log.0, &["--json"]).starts_with(r#"{"whole":true"#));
}

#[test]
fn bytes_that_are_no_text_are_found_and_shown_as_they_are() {
    let mut node = Node::new();
    node.say_bytes(&[b"SET", b"raw\xff\xfe", b"plain"]);
    let scratch = Scratch::new("bytes");
    node.write_to(&scratch.0);
    let found = said(&["wal", "grep"], &scratch.0, &["--hex", "FFfe"]);
    assert!(found.contains(r#"SET "raw\xff\xfe" plain"#) && found.ends_with("1 entries found\n"));
    let json = said(&["wal", "grep"], &scratch.0, &["--hex", "fffe", "--json"]);
    assert!(json.contains(r#""commands":[["SET",{"base64":"cmF3//4="},"plain"]]"#), "{json}");
}
