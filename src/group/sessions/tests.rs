//! The table alone: judgements, bounds, and that a snapshot changes nothing.

use proptest::prelude::*;

use super::*;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const C: SessionId = SessionId(3);

/// Runs request `seq` as the state machine would see it: fresh ones get `reply`.
fn run(table: &mut Sessions, id: SessionId, seq: u64, index: u64, reply: Reply) -> Judgement {
    let judgement = table.run(id, seq, Index(index));
    if judgement == Judgement::Fresh {
        table.ran(id, seq, reply);
    }
    judgement
}

#[test]
fn a_request_is_fresh_once_and_then_has_its_answer() {
    let mut table = Sessions::new();
    assert_eq!(run(&mut table, A, 1, 1, Reply::Ok), Judgement::Unknown);
    assert!(table.open(A, Index(2)));
    assert!(!table.open(A, Index(3)), "a name is open once");
    assert_eq!(run(&mut table, A, 3, 4, Reply::Int(7)), Judgement::Fresh, "gaps are allowed");
    assert_eq!(run(&mut table, A, 3, 5, Reply::Int(8)), Judgement::Answered(Reply::Int(7)));
    assert_eq!(run(&mut table, A, 2, 6, Reply::Int(9)), Judgement::Stale { last: 3 });
    assert_eq!(run(&mut table, A, 4, 7, Reply::Nil), Judgement::Fresh);
    assert_eq!(run(&mut table, A, 3, 8, Reply::Ok), Judgement::Stale { last: 4 });
    assert!(table.close(A));
    assert!(!table.close(A));
    assert_eq!(run(&mut table, A, 5, 9, Reply::Ok), Judgement::Unknown);
    assert_eq!((table.reply_bytes, table.by_use.len(), table.digest()), (0, 0, 0));
}

#[test]
fn the_session_used_the_longest_ago_makes_room() {
    let mut table = Sessions::bounded(2, 10_000);
    table.open(A, Index(1));
    table.open(B, Index(2));
    // A retry is a use, too.
    run(&mut table, A, 1, 3, Reply::Ok);
    run(&mut table, A, 1, 4, Reply::Ok);
    table.open(C, Index(5));
    assert_eq!(table.run(B, 1, Index(6)), Judgement::Unknown);
    assert_eq!(table.run(A, 1, Index(7)), Judgement::Answered(Reply::Ok));
    assert_eq!(table.len(), 2);
}

#[test]
fn answers_have_a_bound_in_all() {
    let value = |bytes: usize| Reply::bulk(vec![b'v'; bytes]);
    let mut table = Sessions::bounded(10, 1_000);
    for (id, index) in [(A, 1), (B, 2), (C, 3)] {
        table.open(id, Index(index));
    }
    run(&mut table, B, 1, 4, value(400));
    run(&mut table, C, 1, 5, value(400));
    assert_eq!(table.len(), 3);
    run(&mut table, C, 2, 6, value(500));
    assert_eq!(table.len(), 3, "an answer gives way to the next of its session");
    run(&mut table, A, 1, 7, value(100));
    assert_eq!(table.run(B, 2, Index(8)), Judgement::Unknown);
    assert!(table.reply_bytes <= 1_000);
    // An answer that no table can hold is given, and its session forgotten: nothing runs twice.
    run(&mut table, A, 2, 9, value(2_000));
    assert!(table.is_empty());
}

#[test]
fn what_is_no_table_is_refused() {
    let mut table = Sessions::new();
    for (id, index) in [(A, 1), (B, 2)] {
        table.open(id, Index(index));
        run(&mut table, id, 1, index + 10, Reply::Int(5));
    }
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    assert_eq!(Sessions::decode(&bytes), Ok(table));
    for end in 0..bytes.len() {
        assert!(Sessions::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    let edit = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        Sessions::decode(&bytes).expect_err("refused").to_string()
    };
    let each = (bytes.len() - 8) / 2;
    assert!(edit(8 + each, 1).ends_with("the ids do not ascend"));
    assert!(edit(8 + each + 16, 11).ends_with("one entry used two sessions"));
    assert!(edit(0, 1).ends_with("they go on after the last session"));
    assert!(edit(8 + 28, b'?').ends_with("an answer is no reply"));
}

/// A missing array came back as nothing: replicas that began with a snapshot gave another answer.
#[test]
fn every_answer_comes_back_from_a_snapshot() {
    let replies = [
        Reply::Ok,
        Reply::Int(-7),
        Reply::Nil,
        Reply::NilArray,
        Reply::Simple("none"),
        Reply::error("ERR", "no"),
        Reply::bulk(b"v"),
        Reply::Array(vec![Reply::Nil, Reply::Int(1)]),
    ];
    for reply in replies {
        let mut table = Sessions::new();
        table.open(A, Index(1));
        run(&mut table, A, 1, 2, reply);
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        let back = Sessions::decode(&bytes).expect("a table of ours");
        assert_eq!(back.digest(), table.digest());
        assert_eq!(back, table);
    }
}

#[test]
fn digests_tell_tables_apart() {
    let table = |seq: u64, index: u64, reply: Reply| {
        let mut table = Sessions::new();
        table.open(A, Index(1));
        run(&mut table, A, seq, index, reply);
        table.digest()
    };
    let digests = [
        Sessions::new().digest(),
        table(1, 2, Reply::Ok),
        table(2, 2, Reply::Ok),
        table(1, 3, Reply::Ok),
        table(1, 2, Reply::Nil),
    ];
    let distinct: std::collections::BTreeSet<u64> = digests.into_iter().collect();
    assert_eq!(distinct.len(), digests.len());
}

#[test]
fn names_differ_between_nodes_starts_cores_and_counts() {
    use crate::id::{Incarnation, NodeId, ShardId};
    let mut names = std::collections::BTreeSet::new();
    for node in 1..=3 {
        for start in 1..=3 {
            for core in 0..2 {
                for count in 1..=50 {
                    let (node, start) = (NodeId(node), Incarnation(start));
                    names.insert(SessionId::new(node, start, ShardId(core), count));
                }
            }
        }
    }
    assert_eq!(names.len(), 3 * 3 * 2 * 50);
    assert!(names.iter().all(|id| 0 < id.0 && id.0 < 1 << 53));
}

/// One entry of a group's log, as far as sessions care.
#[derive(Debug, Clone)]
enum Op {
    Open(u64),
    Close(u64),
    Run(u64, u64, Reply),
}

fn op() -> impl Strategy<Value = Op> {
    let reply = prop_oneof![
        Just(Reply::Ok),
        Just(Reply::Nil),
        any::<i64>().prop_map(Reply::Int),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Reply::bulk),
        "[a-z ]{0,20}".prop_map(|text| Reply::error("ERR", text)),
    ];
    prop_oneof![
        2 => (1..8u64).prop_map(Op::Open),
        1 => (1..8u64).prop_map(Op::Close),
        6 => (1..8u64, 1..12u64, reply).prop_map(|(id, seq, reply)| Op::Run(id, seq, reply)),
    ]
}

/// What the entry at `index` is answered.
fn apply(table: &mut Sessions, index: u64, op: &Op) -> Result<bool, Judgement> {
    match op {
        Op::Open(id) => Ok(table.open(SessionId(*id), Index(index))),
        Op::Close(id) => Ok(table.close(SessionId(*id))),
        Op::Run(id, seq, reply) => Err(run(table, SessionId(*id), *seq, index, reply.clone())),
    }
}

proptest! {
    #[test]
    fn headers_come_back_as_they_were(
        id in 1..=u64::MAX,
        seq in 1..=u64::MAX,
        command in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let id = SessionId(id);
        let run = SessionRequest::Run { id, seq };
        let command = Bytes::from(command);
        prop_assert_eq!(SessionRequest::parse(&run.payload(&command)), Some((run, command)));
        for end in [SessionRequest::Open(id), SessionRequest::Close(id)] {
            prop_assert_eq!(SessionRequest::parse(&end.payload(b"")), Some((end, Bytes::new())));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = SessionRequest::parse(&bytes.clone().into());
        let _ = Sessions::decode(&bytes);
        let _ = Sessions::decode(&[&[1, 0, 0, 0, 0, 0, 0, 0][..], &bytes].concat());
    }

    /// One replica applies the whole log; another begins with a snapshot of the first, taken
    /// anywhere. They answer the rest alike and end alike, and the books are right all the way.
    #[test]
    fn a_replica_that_begins_with_a_snapshot_is_like_one_that_did_not(
        ops in prop::collection::vec(op(), 0..80),
        cut in any::<prop::sample::Index>(),
    ) {
        let small = || Sessions::bounded(4, 600);
        let cut = cut.index(ops.len() + 1);
        let mut whole = small();
        let mut restored = None;
        for (at, op) in ops.iter().enumerate() {
            if at == cut {
                let mut bytes = Vec::new();
                whole.encode(&mut bytes);
                let table = Sessions::decode(&bytes).expect("a table of ours");
                restored = Some(Sessions { sessions_max: 4, reply_bytes_max: 600, ..table });
            }
            let answer = apply(&mut whole, at as u64 + 1, op);
            if let Some(restored) = &mut restored {
                prop_assert_eq!(&apply(restored, at as u64 + 1, op), &answer);
                prop_assert_eq!(&*restored, &whole);
                prop_assert_eq!(restored.digest(), whole.digest());
            }
            prop_assert!(whole.len() <= 4 && whole.reply_bytes <= 600);
            prop_assert_eq!(whole.by_use.len(), whole.len());
            let bytes: usize = whole.open.values().map(|session| session.reply.bytes()).sum();
            prop_assert_eq!(whole.reply_bytes, bytes);
        }
    }
}
