//! What nobody would say, in frames: as `raft::tests::nonsense`, by way of everything between the frame and the core, and
//! from there on to the log. Entries hold anything, and there are pieces of snapshots that belong to nothing.
//!
//! A run that fails prints its seed and the command that replays it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fastrand::Rng;

use super::*;
use crate::raft::effects::RoleKind;
use crate::wire::{AckTiming, PieceStatus, SnapshotAck, SnapshotPiece};

const GROUPS: u64 = 2;
/// The last term and index that a frame may name.
const LAST: u64 = (1 << 62) - 1;

#[test]
fn nonsense_in_frames_neither_panics_nor_undoes_anything() {
    if let Ok(seed) = std::env::var("SHARD_SEED") {
        run(seed.parse().expect("SHARD_SEED is a number"));
        return;
    }
    let count = std::env::var("SHARD_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let (mut told, mut led) = (0, 0);
    for seed in 1..=count {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok((messages, is_leader)) => {
                (told, led) = (told + messages, led + u64::from(is_leader))
            }
            Err(panic) => {
                eprintln!(
                    "seed {seed} failed; replay it with\n  SHARD_SEED={seed} cargo test \
                     --no-default-features --lib shard::tests::nonsense -- --nocapture"
                );
                resume_unwind(panic);
            }
        }
    }
    println!("{count} seeds, {told} messages of nonsense, {led} with a leader");
    assert!(count < 100 || led > 0, "nobody led");
}

/// Returns how many messages were told, and whether the shard led a group meanwhile.
fn run(seed: u64) -> (u64, bool) {
    let mut rng = Rng::with_seed(seed);
    let mut shard = shard(&[1, 2, 3], 1, GROUPS);
    let (mut now, mut told, mut led) = (NOW, 0, false);
    let mut known = [(Term(0), Index(0)); GROUPS as usize];
    for _ in 0..60 {
        let node = rng.u64(2..4);
        let heard = frame_of(node, |it| {
            for _ in 0..rng.u64(1..5) {
                let slot = rng.usize(..GROUPS as usize);
                let (message, entries) = message(&mut rng, &shard, slot, node);
                let entries = if message.count == 0 { &[][..] } else { &entries };
                it.message(GroupId(slot as u64), &message, entries);
                told += 1;
            }
            beside(&mut rng, &shard, node, it);
        });
        shard.on_event(now, Event::Frame(heard));
        if rng.u8(..3) == 0 {
            let args = [&[&b"SET"[..], b"k", b"v"][..], &[b"GET", b"k"]];
            let command = Command::from_args(args[rng.usize(..2)]);
            let request = Request {
                conn: ConnId(1),
                seq: 0,
                command,
                after_writes: rng.bool(),
                manner: Manner::default(),
            };
            shard.on_event(now, Event::Request(request));
        }
        if rng.u8(..3) == 0 {
            now = now.plus(rng.u64(..2_500));
        }
        if rng.u8(..4) != 0 {
            turns(&mut shard, now);
        }
        for (replica, known) in shard.replicas().iter().zip(&mut known) {
            let status = replica.status();
            let (term, commit) = *known;
            assert!(term <= status.term && commit <= status.commit, "{known:?} to {status:?}");
            led |= status.role == RoleKind::Leader;
            *known = (status.term, status.commit);
        }
    }
    (told, led)
}

fn message(rng: &mut Rng, shard: &Shard, slot: usize, node: u64) -> (Message, Vec<Entry>) {
    use MessageKind as Kind;
    let status = shard.replicas()[slot].status();
    let (now, end) = (status.term.0.clamp(1, LAST - 1), status.last.index.0);
    let term = |rng: &mut Rng| {
        Term(match rng.u8(..12) {
            0 => now + 1,
            1 => now - 1,
            2 => rng.u64(..now + 2),
            3 if rng.u8(..100) == 0 => LAST,
            4 => status.last.term.0.min(LAST),
            _ => now,
        })
    };
    let index = |rng: &mut Rng| {
        Index(match rng.u8(..10) {
            0 => status.commit.0,
            1 => status.commit.0 + 1,
            2 => rng.u64(..end + 3),
            3 => LAST - rng.u64(..2),
            4 => rng.u64(..2),
            5 => end + 1,
            6 => status.applied.0,
            _ => end,
        })
    };
    let (mut kind, mut at) = (Kind::from_code(rng.u8(1..16)).expect("one of fifteen"), term(rng));
    if rng.bool() {
        (kind, at) = match status.role {
            RoleKind::Follower => {
                ([Kind::Append, Kind::Append, Kind::Heartbeat][rng.usize(..3)], Term(now))
            }
            RoleKind::PreCandidate => (Kind::PreVoteResponse, Term(now + 1)),
            RoleKind::Candidate => (Kind::VoteResponse, Term(now)),
            RoleKind::Leader => {
                ([Kind::AppendResponse, Kind::HeartbeatResponse][rng.usize(..2)], Term(now))
            }
        };
    }
    if kind == Kind::Removed && rng.u8(..20) != 0 {
        // It is believed, and the rest would fall on deaf ears.
        kind = Kind::Append;
    }
    let mut message = Message::new(kind, ReplicaId(node), ReplicaId(1), at);
    message.entry.index = index(rng);
    let is_end = message.entry.index == status.last.index && rng.u8(..4) != 0;
    message.entry.term = if is_end { status.last.term.min(Term(LAST)) } else { term(rng) };
    (message.commit, message.hint) = (index(rng), index(rng));
    message.run_term = term(rng);
    (message.reject, message.context) = (rng.u8(..3) == 0, rng.u64(..3));
    let mut entries = Vec::new();
    if kind == Kind::Append {
        entries.extend((0..rng.usize(..4)).map(|_| entry(rng)));
    }
    message.count = entries.len() as u32;
    (message, entries)
}

/// An entry that decodes.
fn entry(rng: &mut Rng) -> Entry {
    let bytes = |rng: &mut Rng, least: usize| -> Bytes {
        let count = least + rng.usize(..40);
        std::iter::repeat_with(|| if rng.bool() { rng.u8(..) } else { rng.u8(..4) })
            .take(count)
            .collect()
    };
    match rng.u8(..7) {
        0 => Entry::empty(),
        1 => Entry::config(bytes(rng, 0)),
        2 => Entry::config(Bytes::new()),
        3 => Entry::session(bytes(rng, 16)),
        4 => Entry::command(bytes(rng, 0)),
        5 => {
            let words = [&[&b"SET"[..], b"k"][..], &[b"NOSUCH"], &[], &[b"INCRBY", b"k", b"x"]];
            Entry::command(Command::from_args(words[rng.usize(..4)]).raw)
        }
        _ => Entry::command(Command::from_args(&[b"SET", b"k", b"v"]).raw),
    }
}

/// What belongs to no transfer and to no append.
fn beside(rng: &mut Rng, shard: &Shard, node: u64, frame: &mut FrameBuilder) {
    let group = GroupId(rng.u64(..GROUPS));
    let status = shard.replicas()[group.0 as usize].status();
    let (from, to) = (ReplicaId(node), ReplicaId(1));
    let last = rng.u64(..status.last.index.0.min(1 << 61) + 5);
    let last = if rng.u8(..8) == 0 { LAST } else { last };
    let now = status.term.0.min(LAST - 1);
    let snapshot = EntryId { term: Term(rng.u64(..now + 2)), index: Index(last) };
    let term = if rng.u8(..4) == 0 { Term(0) } else { Term(now) };
    if rng.u8(..6) == 0 {
        let count = 1 + rng.usize(..90);
        let bytes = std::iter::repeat_with(|| rng.u8(..)).take(count).collect();
        let (transfer, number, last) = (rng.u64(..3), rng.u32(..3), rng.bool());
        frame.piece(&SnapshotPiece {
            group,
            from,
            to,
            term,
            transfer,
            snapshot,
            number,
            last,
            bytes,
        });
    }
    if rng.u8(..6) == 0 {
        let status = PieceStatus::from_code(rng.u8(..5)).expect("one of five");
        let (transfer, next) = (rng.u64(..3), rng.u32(..3));
        frame.ack(&SnapshotAck { group, from, to, term, transfer, snapshot, next, status });
    }
    if rng.u8(..6) == 0 {
        let [pick_up, flush_wait, flush, ack] = [(); 4].map(|()| rng.u32(..));
        frame.timing(&AckTiming { group, index: Index(last), pick_up, flush_wait, flush, ack });
    }
}
