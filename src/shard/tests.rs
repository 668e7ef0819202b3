//! What clients hear when something is in the way, and that it is true: an error that says "not
//! executed" left nothing behind that could be executed later; whatever may have been is UNCERTAIN.
//!
//! The simulator holds every refusal of every world against what is seen afterwards
//! (`sim/workload.rs`, `hear`); here each way of being refused is taken once, on purpose.

use bytes::Bytes;

mod batching;
mod calls;
mod cluster;
mod contract;
mod forwarding;
mod nonsense;
mod stopped;

use super::event::{Effects, Event, Post, ReplyTo, Request};
use super::stages::Arrival;
use super::{Config, Recovering, Shard};
use crate::entry::Entry;
use crate::group::{GroupCommand, PartId, SessionRequest};
use crate::id::{ClusterId, ConnId, GroupId, Incarnation, NodeId, ReplicaId, SessionId, ShardId};
use crate::id::{EntryId, Index, Term, Tick, UnixMs};
use crate::limits;
use crate::raft::message::{Message, MessageKind};
use crate::store::command::Access;
use crate::store::connection::Manner;
use crate::wire::peer::{Forward, FrameBuilder};
use crate::wire::reply::Reply;
use crate::wire::resp::Command;
use crate::wire::{Frame, FrameReader, Lane, Route};

const NOW: Tick = Tick(0);

/// The first of these nodes, with a disk that takes no time.
fn shard(nodes: &[u64], cores: u16, groups: u64) -> Shard {
    Recovering::new(config(nodes, cores, groups)).finish(NOW).expect("an empty log").0
}

fn config(nodes: &[u64], cores: u16, groups: u64) -> Config {
    let nodes: Vec<NodeId> = nodes.iter().map(|&node| NodeId(node)).collect();
    Config {
        cores,
        request_ms: 1_000,
        flush_joins_bytes: 0,
        log_cache_bytes: 1 << 20,
        snapshot_bytes_per_s: 1 << 20,
        ..Config::new(ClusterId(1), NodeId(1), &nodes, groups)
    }
}

/// Some turns at once; what they ask for, except of the disk.
fn turns(shard: &mut Shard, now: Tick) -> Effects {
    let mut all = Effects::default();
    for _ in 0..6 {
        let mut fx = Effects::default();
        shard.turn(now, &mut fx);
        if let Some(segment) = fx.spare.take() {
            shard.on_event(now, Event::SpareReady(segment));
        }
        for write in fx.writes.drain(..) {
            shard.on_event(now, Event::Flushed(write.ticket));
        }
        all.frames.append(&mut fx.frames);
        all.replies.append(&mut fx.replies);
        all.posts.append(&mut fx.posts);
        all.late_beats.append(&mut fx.late_beats);
    }
    all
}

/// A client says `line`, on a connection of its own.
fn say(shard: &mut Shard, line: &str) {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    send(shard, Command::from_args(&args));
}

/// The same of a command.
fn send(shard: &mut Shard, command: Command) {
    let request = Request {
        conn: ConnId(1),
        seq: 0,
        command,
        after_writes: false,
        manner: Manner::default(),
    };
    shard.on_event(NOW, Event::Request(request));
}

/// The first word of the only reply.
fn word(replies: &[ReplyTo]) -> &str {
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies[0].reply.error_text().split(' ').next().unwrap_or_default()
}

/// How many entries all logs of the shard hold: what is not in one can never be executed.
fn entries(shard: &Shard) -> u64 {
    shard.replicas().iter().map(|replica| replica.status().last.index.0).sum()
}

/// A frame from node 2.
fn frame(say: impl FnOnce(&mut FrameBuilder)) -> Frame {
    frame_of(2, say)
}

/// A frame from this node.
fn frame_of(node: u64, say: impl FnOnce(&mut FrameBuilder)) -> Frame {
    let mut builder = FrameBuilder::new();
    say(&mut builder);
    let route = Route {
        cluster: ClusterId(1),
        from: NodeId(node),
        to: NodeId(1),
        incarnation: Incarnation(1),
        shard: ShardId(0),
    };
    let mut reader = FrameReader::new();
    reader.feed(&builder.finish(&route, Lane::Control).to_bytes());
    reader.next().expect("sound").expect("whole")
}

/// A follower of node 2, and nothing else known.
fn follower() -> Shard {
    let mut shard = shard(&[1, 2, 3], 1, 1);
    let heartbeat = Message::new(MessageKind::Heartbeat, ReplicaId(2), ReplicaId(1), Term(1));
    let heard = frame(|it| it.message(GroupId(0), &heartbeat, []));
    shard.on_event(NOW, Event::Frame(heard));
    turns(&mut shard, NOW);
    assert_eq!(shard.replicas()[0].status().leader, ReplicaId(2));
    shard
}

/// The ids of the forwards that leave.
fn forwarded(fx: &Effects) -> Vec<u64> {
    fx.frames.iter().flat_map(|(_, frame)| frame.forwards.clone()).collect()
}

#[test]
fn without_a_leader_nothing_is_taken() {
    let mut shard = shard(&[1, 2, 3], 1, 4);
    for line in ["SET k v", "GET k", "MSET a 1 b 2 c 3 d 4", "CLIENT SESSION OPEN"] {
        say(&mut shard, line);
        assert_eq!(word(&turns(&mut shard, NOW).replies), "NOLEADER", "{line}");
    }
    assert_eq!(entries(&shard), 0);
}

#[test]
fn a_full_disk_takes_no_write_and_reads_go_on() {
    let mut shard = shard(&[1], 1, 1);
    turns(&mut shard, NOW);
    shard.on_event(NOW, Event::LogFull(true));
    let before = entries(&shard);
    for line in ["SET k v", "FLUSHALL", "CLIENT SESSION RUN 5 1 SET k v"] {
        say(&mut shard, line);
        assert_eq!(word(&turns(&mut shard, NOW).replies), "FULL", "{line}");
    }
    say(&mut shard, "GET k");
    assert_eq!(turns(&mut shard, NOW).replies[0].reply, Reply::Nil);
    assert_eq!(entries(&shard), before);
}

#[test]
fn a_forwarded_command_that_never_left_is_refused_and_one_that_left_is_uncertain() {
    let cases = [("SET k v", "UNCERTAIN"), ("GET k", "NOLEADER")];
    for (line, when_lost) in cases {
        let mut shard = follower();
        say(&mut shard, line);
        let ids = forwarded(&turns(&mut shard, NOW));
        assert_eq!(ids.len(), 1);
        shard.on_event(NOW, Event::Unsent(ids));
        assert_eq!(word(&turns(&mut shard, NOW).replies), "NOLEADER", "{line}");

        say(&mut shard, line);
        assert_eq!(forwarded(&turns(&mut shard, NOW)).len(), 1);
        shard.on_event(NOW, Event::LinkBroken(NodeId(2)));
        assert_eq!(word(&turns(&mut shard, NOW).replies), when_lost, "{line}");
    }
}

#[test]
fn a_command_that_nobody_answers_is_given_up_in_time() {
    for (line, expected) in [("SET k v", "UNCERTAIN"), ("GET k", "NOLEADER")] {
        let mut shard = follower();
        say(&mut shard, line);
        assert!(turns(&mut shard, NOW.plus(999)).replies.is_empty());
        assert_eq!(word(&turns(&mut shard, NOW.plus(1_000)).replies), expected, "{line}");
    }
}

#[test]
fn an_answer_that_cannot_be_read_leaves_a_write_uncertain() {
    let mut shard = follower();
    say(&mut shard, "INCR k");
    let id = forwarded(&turns(&mut shard, NOW))[0];
    let body = Bytes::from_static(b"?");
    let heard = frame(|it| it.answer(crate::wire::peer::Answer { id, body }));
    shard.on_event(NOW, Event::Frame(heard));
    assert_eq!(word(&turns(&mut shard, NOW).replies), "UNCERTAIN");
}

#[test]
fn what_a_full_mailbox_refused_is_refused_to_whoever_asked() {
    let mut shard = shard(&[1], 2, 2);
    // Group 1 lives on the other core.
    say(&mut shard, "SET {a}1 v");
    let posts = turns(&mut shard, NOW).posts;
    let [(ShardId(1), Post::Command { .. })] = &posts[..] else { panic!("{posts:?}") };
    posts.into_iter().for_each(|(_, post)| shard.on_event(NOW, Event::Undelivered(post)));
    assert_eq!(word(&turns(&mut shard, NOW).replies), "BUSY");

    say(&mut shard, "DEBUG DIGEST");
    let posts = turns(&mut shard, NOW).posts;
    posts.into_iter().for_each(|(_, post)| shard.on_event(NOW, Event::Undelivered(post)));
    assert_eq!(word(&turns(&mut shard, NOW).replies), "BUSY", "half a digest is a wrong one");
}

#[test]
fn a_forwarded_command_that_found_a_full_mailbox_is_answered_at_once() {
    let mut shard = shard(&[1, 2, 3], 2, 2);
    let body = Command::from_args(&[b"SET", b"{a}1", b"v"]).raw;
    let forward = Forward { id: 77, group: GroupId(1), flags: 1, body };
    shard.on_event(NOW, Event::Frame(frame(|it| it.forward(forward))));
    let posts = turns(&mut shard, NOW).posts;
    let [(ShardId(1), Post::Forwarded { id: 77, .. })] = &posts[..] else { panic!("{posts:?}") };
    posts.into_iter().for_each(|(_, post)| shard.on_event(NOW, Event::Undelivered(post)));
    let frames = turns(&mut shard, NOW).frames;
    let mut reader = FrameReader::new();
    frames.iter().for_each(|(_, frame)| reader.feed(&frame.to_bytes()));
    let frame = reader.next().expect("sound").expect("an answer leaves");
    let answer = frame.answers().next().expect("an answer");
    assert_eq!(answer.id, 77);
    let reply = Reply::decode(&answer.body).expect("a reply");
    assert!(reply.error_text().starts_with("BUSY "), "{reply:?}");
}

#[test]
fn a_command_over_many_groups_is_counted_with_the_places_of_its_answers() {
    let mut shard = shard(&[1, 2, 3], 2, limits::GROUPS_MAX);
    let mut refused = None;
    // The parts on the other core are never answered here.
    for count in 0..limits::REQUESTS_MAX {
        say(&mut shard, "DBSIZE");
        let fx = turns(&mut shard, NOW);
        if let Some(reply) = fx.replies.first() {
            assert!(reply.reply.error_text().starts_with("BUSY "), "{reply:?}");
            refused = Some(count);
            break;
        }
    }
    // 14 bytes of command, a million of places.
    let most = limits::REQUEST_BYTES_MAX / (limits::GROUPS_MAX as usize * 32);
    assert!(refused.is_some_and(|count| 10 < count && count < most), "{refused:?}");
}

#[test]
fn a_request_of_a_session_travels_to_the_leader_whole() {
    let mut shard = follower();
    say(&mut shard, "CLIENT SESSION RUN 9 4 INCR k");
    let frames = turns(&mut shard, NOW).frames;
    let mut reader = FrameReader::new();
    frames.iter().for_each(|(_, frame)| reader.feed(&frame.to_bytes()));
    let mut forwards = Vec::new();
    while let Some(frame) = reader.next().expect("sound") {
        forwards.extend(frame.forwards());
    }
    let [forward] = &forwards[..] else { panic!("{forwards:?}") };
    let run = SessionRequest::Run { id: SessionId(9), seq: 4 };
    let incr = Command::from_args(&[b"INCR", b"k"]).raw;
    assert_eq!(SessionRequest::parse(&forward.body), Some((run, incr.clone())));

    // The leader takes it apart as it was put together, and refuses what makes no sense.
    let mut leader = self::shard(&[1], 1, 1);
    turns(&mut leader, NOW);
    let before = entries(&leader);
    leader.on_event(NOW, Event::Frame(frame(|it| it.forward(forward.clone()))));
    turns(&mut leader, NOW);
    assert_eq!(entries(&leader), before + 1);
    let broken = Forward { body: incr.slice(..8), ..forward.clone() };
    leader.on_event(NOW, Event::Frame(frame(|it| it.forward(broken))));
    turns(&mut leader, NOW);
    assert_eq!(entries(&leader), before + 1);
}

#[test]
fn embedders_reach_a_session_through_a_group_command() {
    let mut shard = shard(&[1], 2, 2);
    turns(&mut shard, NOW);
    let id = SessionId(3);
    let incr = Command::from_args(&[b"INCR", b"k"]).raw;
    let mut run = |part: u32, session, body: &Bytes| {
        let command = GroupCommand {
            group: GroupId(0),
            access: Access::Write,
            after_writes: false,
            manner: Manner::default(),
            session: Some(session),
            body: body.clone(),
        };
        let part = PartId { request: 0, part };
        let from = ShardId(1);
        let arrival = Arrival::default();
        shard.on_event(NOW, Event::Post(Post::Command { from, part, arrival, command }));
        match turns(&mut shard, NOW).posts.pop() {
            Some((ShardId(1), Post::Answer { reply, .. })) => reply,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(run(0, SessionRequest::Open(id), &Bytes::new()), Reply::Ok);
    for part in 1..4 {
        assert_eq!(run(part, SessionRequest::Run { id, seq: 1 }, &incr), Reply::Int(1));
    }
    assert_eq!(run(4, SessionRequest::Run { id, seq: 2 }, &incr), Reply::Int(2));
    let long = vec![0; limits::COMMAND_BYTES_MAX - 15].into();
    let refused = run(5, SessionRequest::Run { id, seq: 3 }, &long);
    assert!(refused.error_text().starts_with("ERR a command of"), "{refused:?}");
}

/// The leader of term 1, by the vote of node 2, a little after `LATER`.
fn leader() -> Shard {
    let mut shard = shard(&[1, 2, 3], 1, 1);
    turns(&mut shard, LATER);
    let mut hear = |kind, index| {
        let mut message = Message::new(kind, ReplicaId(2), ReplicaId(1), Term(1));
        message.entry.index = Index(index);
        let heard = frame(|it| it.message(GroupId(0), &message, []));
        shard.on_event(LATER, Event::Frame(heard));
        turns(&mut shard, LATER);
    };
    hear(MessageKind::PreVoteResponse, 0);
    hear(MessageKind::VoteResponse, 0);
    hear(MessageKind::AppendResponse, 1);
    assert!(shard.replicas()[0].status().leader_ready);
    shard
}

/// Longer than any replica waits before it stands for election.
const LATER: Tick = Tick(2_000);

fn say_later(shard: &mut Shard, args: &[&[u8]], seq: u64) {
    let command = Command::from_args(args);
    let request =
        Request { conn: ConnId(1), seq, command, after_writes: false, manner: Manner::default() };
    shard.on_event(LATER, Event::Request(request));
}

#[test]
fn what_is_in_the_log_of_a_leader_that_is_replaced_is_uncertain_and_a_read_is_not() {
    let mut shard = leader();
    say_later(&mut shard, &[b"SET", b"k", b"v"], 0);
    say_later(&mut shard, &[b"GET", b"k"], 1);
    assert!(turns(&mut shard, LATER).replies.is_empty(), "answered without a quorum");
    // Node 2 leads term 2; its log never had the SET. Node 3 may have it, and lead term 3.
    let mut append = Message::new(MessageKind::Append, ReplicaId(2), ReplicaId(1), Term(2));
    append.entry = EntryId { term: Term(1), index: Index(1) };
    (append.run_term, append.count) = (Term(2), 1);
    let heard = frame(|it| it.message(GroupId(0), &append, [&Entry::empty()]));
    shard.on_event(LATER, Event::Frame(heard));
    let mut replies = turns(&mut shard, LATER).replies;
    replies.sort_by_key(|reply| reply.seq);
    assert_eq!(replies.len(), 2, "{replies:?}");
    assert_eq!((word(&replies[..1]), word(&replies[1..])), ("UNCERTAIN", "NOLEADER"));
}

#[test]
fn past_the_bound_on_uncommitted_bytes_nothing_is_taken() {
    let mut shard = leader();
    let value = vec![b'v'; limits::VALUE_BYTES_MAX];
    let mut refused = Vec::new();
    for seq in 0..10 {
        say_later(&mut shard, &[b"SET", b"k", &value], seq);
        refused.append(&mut turns(&mut shard, LATER).replies);
    }
    assert!(
        !refused.is_empty() && refused.iter().all(|it| word(std::slice::from_ref(it)) == "BUSY")
    );
    assert_eq!(entries(&shard), 1 + 10 - refused.len() as u64, "what is refused is in no log");
}

/// The reply to `line`, on the only node of its cluster.
fn said(shard: &mut Shard, now: Tick, line: &str) -> Reply {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let (conn, seq, command) = (ConnId(1), 0, Command::from_args(&args));
    let manner = Manner::default();
    let request = Request { conn, seq, command, after_writes: false, manner };
    shard.on_event(now, Event::Request(request));
    let mut replies = turns(shard, now).replies;
    assert_eq!(replies.len(), 1, "{line}: {replies:?}");
    replies.remove(0).reply
}

#[test]
fn a_key_goes_by_an_entry_of_its_leader_when_its_time_has_come() {
    let mut shard = shard(&[1], 1, 1);
    turns(&mut shard, NOW);
    shard.on_event(NOW, Event::Wall(UnixMs(1_000_000)));
    assert_eq!(said(&mut shard, NOW, "SET k v PX 500"), Reply::Ok);
    assert_eq!(said(&mut shard, NOW, "PEXPIRETIME k"), Reply::Int(1_000_500));
    assert_eq!(said(&mut shard, NOW.plus(499), "PTTL k"), Reply::Int(1));
    let before = entries(&shard);
    assert!(shard.deadline() <= NOW.plus(500), "the driver is to come back in time");
    turns(&mut shard, NOW.plus(500));
    assert_eq!(entries(&shard), before + 1, "nobody asked for it");
    assert_eq!(shard.replicas()[0].machine().len(), 0);
    turns(&mut shard, NOW.plus(5_000));
    assert_eq!(entries(&shard), before + 1, "nothing is left that could be due");

    let time = ["1005", "0"].map(Reply::bulk).into();
    assert_eq!(said(&mut shard, NOW.plus(5_000), "TIME"), Reply::Array(time));
    let time = ["1005", "1000"].map(Reply::bulk).into();
    assert_eq!(said(&mut shard, NOW.plus(5_001), "TIME"), Reply::Array(time));

    // Somebody has set the clock.
    assert_eq!(said(&mut shard, NOW.plus(5_000), "SET k v EX 3600"), Reply::Ok);
    shard.on_event(NOW.plus(5_001), Event::Wall(UnixMs(9_000_000)));
    assert_eq!(said(&mut shard, NOW.plus(5_001), "GET k"), Reply::Nil, "a read is late enough");
}

#[test]
fn a_command_is_stamped_by_the_leader_and_by_nobody_on_the_way() {
    let mut shard = follower();
    shard.on_event(NOW, Event::Wall(UnixMs(1_000_000)));
    say(&mut shard, "SET k v PX 500");
    let fx = turns(&mut shard, NOW);
    let frame = fx.frames.iter().find(|(_, frame)| !frame.forwards.is_empty());
    let mut reader = FrameReader::new();
    reader.feed(&frame.expect("it is forwarded").1.to_bytes());
    let frame = reader.next().expect("sound").expect("whole");
    let body = frame.forwards().next().expect("one").body;
    assert_eq!(body, Command::from_args(&[b"SET", b"k", b"v", b"PX", b"500"]).raw);
}
