//! Rows of the contract that a whole core holds.

use super::*;
use crate::id::FlushTicket;
use crate::raft::effects::RoleKind;

fn append(term: u64, prev: (u64, u64), run_term: u64, count: u32) -> Message {
    let mut message = Message::new(MessageKind::Append, ReplicaId(2), ReplicaId(1), Term(term));
    message.entry = EntryId { term: Term(prev.0), index: Index(prev.1) };
    (message.run_term, message.count) = (Term(run_term), count);
    message
}

/// One turn, whose writes wait; what it asks for.
fn turn(shard: &mut Shard, now: Tick) -> Effects {
    let mut fx = Effects::default();
    shard.turn(now, &mut fx);
    if let Some(segment) = fx.spare.take() {
        shard.on_event(now, Event::SpareReady(segment));
    }
    fx
}

/// The messages in frames for node 2.
fn messages(fx: &Effects) -> Vec<Message> {
    let mut reader = FrameReader::new();
    for (_, frame) in fx.frames.iter().filter(|(to, _)| *to == NodeId(2)) {
        reader.feed(&frame.to_bytes());
    }
    let mut messages = Vec::new();
    while let Some(frame) = reader.next().expect("sound") {
        messages.extend(frame.messages().map(|(_, message, _)| message));
    }
    messages
}

/// Node 2 answers everything with yes.
fn agree(shard: &mut Shard, fx: &Effects, now: Tick) {
    for asked in messages(fx) {
        let kind = match asked.kind {
            MessageKind::PreVote => MessageKind::PreVoteResponse,
            MessageKind::Vote => MessageKind::VoteResponse,
            MessageKind::Append => MessageKind::AppendResponse,
            MessageKind::Heartbeat => MessageKind::HeartbeatResponse,
            _ => continue,
        };
        let mut answer = Message::new(kind, ReplicaId(2), ReplicaId(1), asked.term);
        answer.context = asked.context;
        answer.entry.index = asked.entry.index.plus(u64::from(asked.count));
        shard.on_event(now, Event::Frame(frame(|it| it.message(GroupId(0), &answer, []))));
    }
}

/// A leader of three, and when it became one.
fn leader() -> (Shard, Tick) {
    let mut shard = shard(&[1, 2, 3], 1, 1);
    let mut now = NOW;
    for _ in 0..10 {
        now = now.plus(500);
        for _ in 0..6 {
            let fx = turns(&mut shard, now);
            agree(&mut shard, &fx, now);
        }
        if shard.replicas()[0].status().role == RoleKind::Leader {
            assert!(shard.replicas()[0].status().leader_ready);
            return (shard, now);
        }
    }
    panic!("it was not elected: {:?}", shard.replicas()[0].status());
}

/// From the connection's buffer to the log in memory, and from there to disk and state machine, there
/// is one copy of a payload: the one that was received.
#[test]
fn contract_row_16_payloads_are_handed_on_and_not_copied() {
    let mut leading = shard(&[1], 1, 1);
    turns(&mut leading, NOW);
    let command = Command::from_args(&[b"SET", b"k", &[b'v'; 1000]]);
    let received = command.raw.as_ptr();
    send(&mut leading, command);
    let kept = leading.replicas()[0].cache().get(Index(2)).expect("it was taken");
    assert_eq!(kept.payload.as_ptr(), received, "a client's command");

    let mut following = follower();
    let entry = Entry::command(Command::from_args(&[b"SET", b"k", &[b'v'; 1000]]).raw);
    let frame = frame(|it| it.message(GroupId(0), &append(1, (0, 0), 1, 1), [&entry]));
    let payload = |frame: &Frame| {
        let (_, _, mut entries) = frame.messages().next().expect("one message");
        entries.next().expect("one entry").payload.as_ptr()
    };
    let received = payload(&frame);
    following.on_event(NOW, Event::Frame(frame));
    let kept = following.replicas()[0].cache().get(Index(1)).expect("it was taken");
    assert_eq!(kept.payload.as_ptr(), received, "a leader's entry");
}

/// Bytes: what is not yet on disk cannot leave memory, so a leader whose disk is slow takes so much
/// and no more. The follower side needs no brake: it is its leader's window.
#[test]
fn contract_row_19_a_slow_disk_is_felt_in_bytes() {
    let mut shard = shard(&[1], 1, 1);
    turns(&mut shard, NOW);
    let value = "v".repeat(limits::VALUE_BYTES_MAX / 2);
    let (mut taken, mut bytes) = (0_u64, 0);
    let refused = loop {
        say(&mut shard, &format!("SET k {value}"));
        let fx = turn(&mut shard, NOW);
        if let Some(reply) = fx.replies.first() {
            break reply.reply.clone();
        }
        (taken, bytes) = (taken + 1, bytes + value.len());
        assert!(bytes < 1 << 30, "nothing holds the client back");
    };
    assert!(refused.error_text().starts_with("BUSY "), "{refused:?}");
    assert_eq!(entries(&shard), taken + 1, "what was refused is in no log");
    assert!(bytes as u64 <= limits::UNCOMMITTED_BYTES_MAX + value.len() as u64, "{bytes}");
}

/// Age: a trickle of writes is refused too, once the disk has owed an answer for as long as a client
/// may wait for its own.
#[test]
fn contract_row_19_a_stuck_disk_is_felt_in_time() {
    let mut shard = shard(&[1], 1, 1);
    turns(&mut shard, NOW);
    say(&mut shard, "SET k 1");
    let writes = turn(&mut shard, NOW).writes;
    assert_eq!(writes.len(), 1);
    let later = NOW.plus(1_001);
    turn(&mut shard, later);
    let before = entries(&shard);
    let request = || Request {
        conn: ConnId(2),
        seq: 0,
        command: Command::from_args(&[b"SET", b"k", b"2"]),
        after_writes: false,
        manner: Manner::default(),
    };
    shard.on_event(later, Event::Request(request()));
    assert_eq!(word(&turn(&mut shard, later).replies), "BUSY");
    assert_eq!(entries(&shard), before, "and is in no log");
    // The disk comes back.
    for write in writes {
        shard.on_event(later, Event::Flushed(write.ticket));
    }
    turns(&mut shard, later);
    shard.on_event(later, Event::Request(request()));
    assert_eq!(turns(&mut shard, later).replies[0].reply, Reply::Ok);
}

#[test]
fn contract_row_26_the_commit_index_is_told_per_group_and_for_the_node() {
    let mut shard = shard(&[1], 1, 2);
    turns(&mut shard, NOW);
    for key in ["{a}1", "{a}2", "{b}1", "{c}1"] {
        say(&mut shard, &format!("SET {key} v"));
        turns(&mut shard, NOW);
    }
    say(&mut shard, "INFO outrigger");
    let replies = turns(&mut shard, NOW).replies;
    let Reply::Verbatim(text) = &replies[0].reply else { panic!("{replies:?}") };
    let mut commits = 0;
    for group in 0..2 {
        let line = text.lines().find(|line| line.starts_with(&format!("group_{group}:")));
        let line = line.expect("every group has a line");
        let commit = shard.replicas()[group].status().commit;
        assert!(line.contains(&format!(",commit={commit},")), "{line}");
        commits += commit.0;
    }
    // The first entry of each group's term is no command.
    assert_eq!(commits, 4 + 2);
    assert!(text.lines().any(|line| line == "entries_committed:4"), "{text}");
}

/// The completion of a write of an earlier term says nothing about what has replaced it.
#[test]
fn contract_row_29_an_old_completion_neither_vouches_for_nor_trims_a_new_tail() {
    let mut shard = follower();
    let [a, b, c] =
        [b"a", b"b", b"c"].map(|v| Entry::command(Command::from_args(&[b"SET", b"k", v]).raw));
    shard.on_event(
        NOW,
        Event::Frame(frame(|it| {
            it.message(GroupId(0), &append(1, (0, 0), 1, 2), [&a, &b]);
        })),
    );
    let first = turn(&mut shard, NOW).writes;
    shard.on_event(
        NOW,
        Event::Frame(frame(|it| {
            it.message(GroupId(0), &append(2, (1, 1), 2, 1), [&c]);
        })),
    );
    let second = turn(&mut shard, NOW).writes;
    assert_eq!((first.len(), second.len()), (1, 1), "two writes are under way");
    let readable = |shard: &Shard| {
        let cache = shard.replicas()[0].cache();
        cache.get(Index(2)).map(|entry| entry.payload.clone())
    };
    assert_eq!(readable(&shard), Some(c.payload.clone()), "before any of them has finished");
    let accepted = |fx: &Effects| {
        let told = messages(fx);
        let told = told.iter().filter(|m| m.kind == MessageKind::AppendResponse && !m.reject);
        told.map(|m| (m.term, m.entry.index)).collect::<Vec<_>>()
    };
    let finish = |shard: &mut Shard, ticket: FlushTicket| {
        shard.on_event(NOW, Event::Flushed(ticket));
        turn(shard, NOW)
    };
    let fx = finish(&mut shard, first[0].ticket);
    // To the term before it may be said what was true there.
    let vouched = |&(term, index): &(Term, Index)| term == Term(2) && Index(2) <= index;
    assert!(!accepted(&fx).iter().any(vouched), "{:?}", accepted(&fx));
    assert!(shard.replicas()[0].status().durable < Index(2));
    assert_eq!(readable(&shard), Some(c.payload.clone()), "the old completion trimmed nothing");
    let fx = finish(&mut shard, second[0].ticket);
    assert_eq!(accepted(&fx).last(), Some(&(Term(2), Index(2))));
    assert_eq!(shard.replicas()[0].status().durable, Index(2));
}

#[test]
fn contract_row_43_late_heartbeats_are_seen_where_they_are_sent() {
    let (mut shard, start) = leader();
    let mut beat = |now: Tick| {
        let fx = turns(&mut shard, now);
        agree(&mut shard, &fx, now);
        let beats = messages(&fx).iter().filter(|m| m.kind == MessageKind::Heartbeat).count();
        (beats, fx.late_beats, shard.counters_mut().heartbeats_late)
    };
    let mut now = start;
    for _ in 0..5 {
        now = now.plus(100);
        let (beats, late, count) = beat(now);
        assert_eq!((beats, late, count), (1, vec![], 0), "at {now}");
    }
    // Held up for half a second: three tenths more than twice the interval.
    now = now.plus(500);
    let (beats, mut late, count) = beat(now);
    late.sort_unstable();
    assert_eq!((beats, late, count), (1, vec![(NodeId(2), 300), (NodeId(3), 300)], 2));
    now = now.plus(100);
    assert_eq!(beat(now).1, vec![], "told once");
    // It loses its office for a while and has it again: that was no gap.
    let mut other = Message::new(MessageKind::Heartbeat, ReplicaId(2), ReplicaId(1), Term(99));
    other.commit = Index(0);
    shard.on_event(now, Event::Frame(frame(|it| it.message(GroupId(0), &other, []))));
    turns(&mut shard, now);
    assert_eq!(shard.replicas()[0].status().role, RoleKind::Follower);
    for _ in 0..10 {
        now = now.plus(1_000);
        for _ in 0..6 {
            let fx = turns(&mut shard, now);
            assert_eq!(fx.late_beats, vec![], "at {now}");
            agree(&mut shard, &fx, now);
        }
        if shard.replicas()[0].status().role == RoleKind::Leader {
            return;
        }
    }
    panic!("it was not elected again");
}

#[test]
fn contract_row_64_equal_histories_have_equal_digests_and_others_do_not() {
    let digest = |commands: &[&str]| {
        let mut shard = shard(&[1], 1, 4);
        turns(&mut shard, NOW);
        for command in commands {
            say(&mut shard, command);
            turns(&mut shard, NOW);
        }
        crate::shard::report::node_digest(&[shard.report(true)])
    };
    let history = ["SET a 1", "SET b 2", "INCR a", "DEL b"];
    let one = digest(&history);
    assert_eq!(one, digest(&history));
    assert_eq!(one, digest(&["SET a 2"]), "another way to the same state");
    assert_ne!(one, digest(&["SET a 1", "SET b 2", "INCR a"]), "a key too many");
    assert_ne!(one, digest(&["SET a 3"]), "a value that differs");
    assert_ne!(one, digest(&["SET b 2"]), "a key that differs");
}
