//! What cluster clients hear, and reads that may be a little old.

use super::*;
use crate::wire::reply::Reply;

const REDIRECTS: Manner = Manner { nearby: false, stale_ms: 0, redirects: true };

/// A follower of node 2, whose clients connect at port 7002, in the only group of three nodes.
fn follower() -> Shard {
    let mut shard = shard(&[1, 2, 3], 1, 1);
    turns(&mut shard, NOW);
    hear(&mut shard, NOW, MessageKind::Heartbeat, 0);
    let at = |node: u64| (NodeId(node), ([127, 0, 0, 1], 7_000 + node as u16).into());
    shard.on_event(NOW, Event::ClientAddresses([at(1), at(2)].into()));
    shard
}

/// Node 2, which leads term 1, says something.
fn hear(shard: &mut Shard, now: Tick, kind: MessageKind, context: u64) -> Effects {
    let mut message = Message::new(kind, ReplicaId(2), ReplicaId(1), Term(1));
    message.context = context;
    shard.on_event(now, Event::Frame(frame(|it| it.message(GroupId(0), &message, []))));
    turns(shard, now)
}

/// What a connection of this kind hears in the same turn.
fn ask(shard: &mut Shard, now: Tick, line: &str, manner: Manner) -> Effects {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let command = Command::from_args(&args);
    let request = Request { conn: ConnId(1), seq: 0, command, after_writes: false, manner };
    shard.on_event(now, Event::Request(request));
    turns(shard, now)
}

fn heard(shard: &mut Shard, line: &str, manner: Manner) -> Option<Reply> {
    ask(shard, NOW, line, manner).replies.pop().map(|reply| reply.reply)
}

fn forwards(fx: &Effects) -> usize {
    let mut count = 0;
    for (_, frame) in &fx.frames {
        let mut reader = FrameReader::new();
        reader.feed(&frame.to_bytes());
        while let Some(frame) = reader.next().expect("sound") {
            count += frame.forwards().count();
        }
    }
    count
}

/// The name under which a read is asked about, if one is.
fn asked(fx: &Effects) -> Option<u64> {
    let mut context = None;
    for (_, frame) in &fx.frames {
        let mut reader = FrameReader::new();
        reader.feed(&frame.to_bytes());
        while let Some(frame) = reader.next().expect("sound") {
            for (_, message, _) in frame.messages() {
                if message.kind == MessageKind::ReadIndex {
                    context = Some(message.context);
                }
            }
        }
    }
    context
}

#[test]
fn a_cluster_client_is_sent_to_the_leader_and_others_are_forwarded() {
    let mut shard = follower();
    // 12182 is Redis' slot of foo.
    let moved = |shard: &mut Shard, line| heard(shard, line, REDIRECTS).expect(line);
    for line in ["GET foo", "SET foo 1", "CLIENT SESSION RUN 3 1 INCR foo"] {
        assert_eq!(moved(&mut shard, line).error_text(), "MOVED 12182 127.0.0.1:7002", "{line}");
    }
    let fx = ask(&mut shard, NOW, "GET foo", Manner::default());
    assert_eq!((fx.replies.len(), forwards(&fx)), (0, 1));
    let fx = ask(&mut shard, NOW, "FLUSHALL", REDIRECTS);
    assert_eq!((fx.replies.len(), forwards(&fx)), (0, 1), "it has no slot to be sent to");
}

#[test]
fn a_leader_that_clients_cannot_be_sent_to_has_their_commands_forwarded() {
    let mut shard = follower();
    shard.on_event(NOW, Event::ClientAddresses([].into()));
    let fx = ask(&mut shard, NOW, "GET foo", REDIRECTS);
    assert_eq!((fx.replies.len(), forwards(&fx)), (0, 1));
}

#[test]
fn a_cluster_client_counts_and_scans_what_the_node_leads() {
    let mut shard = follower();
    assert_eq!(heard(&mut shard, "DBSIZE", REDIRECTS), Some(Reply::Int(0)));
    let nothing = Reply::Array(vec![Reply::bulk("0"), Reply::Array(Vec::new())]);
    assert_eq!(heard(&mut shard, "SCAN 0", REDIRECTS), Some(nothing));
    let mut shard = leader();
    say_later(&mut shard, &[b"SET", b"foo", b"1"], 0);
    turns(&mut shard, LATER);
    hear_from_follower(&mut shard);
    let fx = ask(&mut shard, LATER, "DBSIZE", REDIRECTS);
    assert!(fx.replies.is_empty(), "a read, which waits for its confirmation");
}

/// Node 2 has the entry of the SET.
fn hear_from_follower(shard: &mut Shard) {
    let mut message =
        Message::new(MessageKind::AppendResponse, ReplicaId(2), ReplicaId(1), Term(1));
    message.entry.index = Index(2);
    shard.on_event(LATER, Event::Frame(frame(|it| it.message(GroupId(0), &message, []))));
    turns(shard, LATER);
}

#[test]
fn to_a_cluster_client_keys_of_two_slots_do_not_go_together() {
    let mut shard = follower();
    for line in ["MGET foo bar", "MSET foo 1 bar 2", "CLIENT SESSION RUN 3 1 DEL foo bar"] {
        let reply = heard(&mut shard, line, REDIRECTS).expect(line);
        assert_eq!(
            reply.error_text(),
            "CROSSSLOT Keys in request don't hash to the same slot",
            "{line}"
        );
        let fx = ask(&mut shard, NOW, line, Manner::default());
        assert_eq!((fx.replies.len(), forwards(&fx)), (0, 1), "one group has both: {line}");
    }
    let reply = heard(&mut shard, "MGET {foo}1 {foo}2", REDIRECTS).expect("a reply");
    assert!(reply.error_text().starts_with("MOVED 12182 "), "{reply:?}");
}

#[test]
fn without_a_leader_a_cluster_client_hears_a_word_that_it_retries_on() {
    let mut shard = shard(&[1, 2, 3], 1, 1);
    turns(&mut shard, NOW);
    for (manner, word) in [(REDIRECTS, "CLUSTERDOWN"), (Manner::default(), "NOLEADER")] {
        let reply = heard(&mut shard, "GET foo", manner).expect("a reply");
        let expected =
            format!("{word} group 0 has no leader right now; nothing was executed, retry");
        assert_eq!(reply.error_text(), expected);
    }
}

#[test]
fn a_bounded_read_asks_the_leader_only_when_the_last_answer_is_too_old() {
    let manner = |stale_ms| Manner { nearby: true, stale_ms, redirects: true };
    let mut shard = follower();
    // Nothing is known yet of how old the state is.
    let fx = ask(&mut shard, Tick(10), "GET foo", manner(100));
    let context = asked(&fx).expect("the leader is asked");
    assert!(fx.replies.is_empty());
    let fx = hear(&mut shard, Tick(60), MessageKind::ReadIndexResponse, context);
    assert_eq!(fx.replies.len(), 1);
    // Its age counts from the question, not from the answer.
    for (now, stale_ms, at_once) in [
        (109, 100, true),
        (110, 100, false),
        (110, 200, true),
        (110, 0, false),
        (209, 200, true),
        (210, 200, false),
    ] {
        let fx = ask(&mut shard, Tick(now), "GET foo", manner(stale_ms));
        assert_eq!(fx.replies.len() == 1, at_once, "at {now} within {stale_ms} ms");
        assert!(!at_once || asked(&fx).is_none());
    }
    // A connection that did not say READONLY is sent to the leader, whatever is fresh.
    let reply = heard(&mut shard, "GET foo", REDIRECTS).expect("a reply");
    assert!(reply.error_text().starts_with("MOVED"), "{reply:?}");
}

#[test]
fn cluster_commands_are_answered_from_what_the_node_knows() {
    let mut shard = follower();
    let reply = heard(&mut shard, "CLUSTER SLOTS", REDIRECTS).expect("a reply");
    let Reply::Array(ranges) = reply else { panic!("{reply:?}") };
    let Reply::Array(range) = &ranges[1] else { panic!("{ranges:?}") };
    assert_eq!(range[..2], [1, 16_383].map(Reply::Int));
    let Reply::Array(master) = &range[2] else { panic!("{range:?}") };
    assert_eq!(master[1], Reply::Int(7_002));
    assert_eq!(range.len(), 4, "node 3 has not said where its clients connect");
    assert_eq!(heard(&mut shard, "CLUSTER KEYSLOT foo", REDIRECTS), Some(Reply::Int(12_182)));
    let fx = ask(&mut shard, NOW, "CLUSTER COUNTKEYSINSLOT 12182", REDIRECTS);
    assert_eq!((fx.replies.len(), forwards(&fx)), (0, 1), "whoever leads counts");
}
