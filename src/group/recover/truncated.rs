//! Logs whose front is gone, as tables of what lies in them.

use bytes::Bytes;

use super::*;
use crate::group::Answers;
use crate::group::{Outgoing, SnapshotMeta};
use crate::id::{NodeId, ReplicaId, Term, UnixMs};
use crate::raft::Recalled;
use crate::raft::effects::Effects;
use crate::raft::message::{Message, MessageKind};
use crate::store::Wanted;
use crate::store::map::Map;
use crate::wal::{EntryLists, LogIndex};
use crate::wire::resp::Command;

const GROUP: GroupId = GroupId(0);
const TERM: Term = Term(1);

fn at(index: u64) -> EntryId {
    EntryId { term: TERM, index: Index(index) }
}

/// The entry at `index` sets `index` and counts it.
fn entry(index: u64) -> Entry {
    let key = format!("key{index}");
    Entry::command(Command::from_args(&[b"SET", key.as_bytes(), b"v"]).raw)
}

fn stale() -> Bytes {
    Command::from_args(&[b"SET", b"stale", b"v"]).raw
}

fn machine(last: u64) -> Map {
    let mut map = Map::new();
    for index in 1..=last {
        map.apply(Index(index), &entry(index).payload, Wanted::No);
    }
    map
}

fn pieces(last: u64) -> Vec<Bytes> {
    let state = GroupState::first(&[NodeId(1), NodeId(2)], &[]);
    let meta = SnapshotMeta::new(GROUP, at(last)).with_state(&state);
    let mut outgoing = Outgoing::new(&meta, machine(last).freeze());
    std::iter::from_fn(|| outgoing.next_piece()).collect()
}

/// What lies in a log, to be read aloud.
#[derive(Clone)]
enum Said {
    /// Entries `first..=last`, and the commit index.
    Log(u64, u64, u64),
    /// The same of a life that is not whole.
    Fetched(u64, u64, u64),
    /// The end of a snapshot that came to it.
    Received(u64),
    /// Entries of another term, that no snapshot knows.
    Other(u64, u64),
    /// An entry that was never committed.
    Stale(u64),
    /// Pieces of the snapshot at an index, from this number on.
    Pieces(u64, usize),
    Taken(u64),
    Installed(u64),
    /// The end of a snapshot whose index is above the commit index in it.
    Uncommitted(u64),
    Tombstone,
    /// The log ends with this entry, as said before; and the commit index.
    Again(u64, u64),
    /// The end of a snapshot that a member gave back.
    GivenBack(u64),
    /// Something is gone here.
    Loss,
    /// An earlier life found entries gone, the last of them this one.
    Forgotten(u64),
    /// It has everything back, by an earlier version, which did not say what that is.
    Recalled,
    /// It has everything back, up to this entry.
    RecalledTo(u64),
}
use Said::*;

fn replay(said: &[Said]) -> Result<Replica, RunError> {
    replay_beside(&[NodeId(1)], said)
}

fn replay_beside(nodes: &[NodeId], said: &[Said]) -> Result<Replica, RunError> {
    let recovery = ReplicaRecovery::new(GROUP, Box::new(Map::new()), 1 << 20);
    let mut recovery = recovery.beginning(GroupState::first(nodes, &[]));
    for (number, said) in (1..).zip(said) {
        let mut run = |kind, entry, commit, entries: Vec<Entry>| {
            let hard_state =
                HardState { term: Term(9), commit: Index(commit), ..HardState::default() };
            let segment = SegmentSeq(number);
            let is_forgetful =
                matches!(said, Fetched(..) | Received(_) | GivenBack(_) | Forgotten(_));
            let replayed = Replayed { kind, is_forgetful, hard_state, entry, segment };
            recovery.on_run(replayed, entries.into_iter()).map(|_| ())
        };
        match *said {
            Log(first, last, commit) | Fetched(first, last, commit) => {
                run(RunKind::Log, at(first), commit, (first..=last).map(entry).collect())?;
            }
            Stale(index) => run(RunKind::Log, at(index), 0, vec![Entry::command(stale())])?,
            Other(first, last) => {
                let entry = EntryId { term: Term(2), ..at(first) };
                let entries = (first..=last).map(|_| Entry::empty()).collect();
                run(RunKind::Log, entry, 0, entries)?;
            }
            Pieces(last, from) => {
                for piece in pieces(last).into_iter().skip(from) {
                    run(RunKind::SnapshotPiece, at(last), 0, vec![Entry::command(piece)])?;
                }
            }
            Taken(last) | GivenBack(last) => run(RunKind::SnapshotTaken, at(last), last, vec![])?,
            Again(last, commit) => run(RunKind::SaidAgain, at(last), commit, vec![])?,
            Installed(last) | Received(last) => {
                run(RunKind::SnapshotInstalled, at(last), last, vec![])?
            }
            Uncommitted(last) => run(RunKind::SnapshotTaken, at(last), 0, vec![])?,
            Tombstone => run(RunKind::Tombstone, EntryId::default(), 0, vec![])?,
            Loss => recovery.on_loss(),
            Forgotten(last) => run(RunKind::EntriesForgotten, at(last), 0, vec![])?,
            Recalled => run(RunKind::Recalled, EntryId::default(), 0, vec![])?,
            RecalledTo(last) => run(RunKind::Recalled, at(last), 0, vec![])?,
        }
    }
    recovery.finish(raft::Config::new(ReplicaId(1), 1), Tick(0))
}

/// The log is usable, and comes to these: first index, last, applied.
fn check(said: &[Said], expected: (u64, u64, u64)) -> Replica {
    let replica = replay(said).expect("a log that recovers");
    let status = replica.status();
    assert_eq!(status.failure, None);
    let found = (status.first.0, status.last.index.0, status.applied.0);
    assert_eq!(found, expected);
    assert_eq!(replica.machine().digest(), machine(expected.2).digest());
    replica
}

/// Seed 3000938 of the simulator, in slow motion: the log knew no more where entries lay behind those that a life had
/// fetched again.
#[test]
fn what_a_life_fetched_again_that_could_not_read_it_stays_where_it_was() {
    let recovery = ReplicaRecovery::new(GROUP, Box::new(Map::new()), 1 << 20);
    let mut recovery = recovery.beginning(GroupState::first(&[NodeId(1)], &[]));
    let mut run = |kind, first: u64, last: u64| {
        let commit = Index(last.min(8));
        let hard_state = HardState { term: Term(9), commit, ..HardState::default() };
        let (is_forgetful, segment) = (1 < first, SegmentSeq(first));
        let replayed = Replayed { kind, is_forgetful, hard_state, entry: at(first), segment };
        let count = if kind == RunKind::Log { last + 1 - first } else { 0 };
        let entries = first..first + count;
        recovery.on_run(replayed, entries.map(entry)).expect("it follows")
    };
    assert_eq!(run(RunKind::Log, 1, 9), 0);
    run(RunKind::EntriesForgotten, 9, 9);
    assert_eq!(run(RunKind::Log, 4, 6), 3, "all of it is held");
    assert_eq!(run(RunKind::Log, 7, 10), 2, "8 is the last that is known to be committed");
}

fn no_snapshot(first: u64) -> RunError {
    RunError::NoSnapshot { group: GROUP, first: Index(first) }
}

#[test]
fn contract_row_24_a_snapshot_in_front_of_the_entries_behind_it() {
    // The whole log, with a snapshot in it: nothing to replace, but it is remembered.
    let replica = check(&[Log(1, 5, 5), Pieces(5, 0), Taken(5), Log(6, 8, 7)], (1, 8, 7));
    let stored = replica.stored().expect("the snapshot");
    assert_eq!((stored.entry, stored.segment), (at(5), SegmentSeq(2)));
    // The front is gone.
    let replica = check(&[Pieces(5, 0), Taken(5), Log(6, 8, 7)], (6, 8, 7));
    assert_eq!(replica.stored().map(|stored| stored.entry), Some(at(5)));
    assert!(replica.status().membership.is_voter(ReplicaId(2)), "the snapshot's own members");
    // Entries among the pieces, older and newer than the snapshot.
    check(&[Log(3, 6, 4), Pieces(4, 0), Log(7, 7, 5), Taken(4), Log(8, 9, 8)], (5, 9, 8));
    // Nothing but the snapshot.
    check(&[Log(3, 4, 4), Pieces(4, 0), Taken(4)], (5, 4, 4));
    // A newer one takes the place of an older one.
    let twice = [Pieces(4, 0), Taken(4), Log(5, 9, 9), Pieces(8, 0), Taken(8)];
    let replica = check(&twice, (5, 9, 9));
    assert_eq!(replica.stored().map(|stored| stored.entry), Some(at(8)));
}

#[test]
fn contract_row_26_the_commit_index_is_not_below_the_snapshot() {
    let replica = check(&[Pieces(5, 0), Taken(5), Log(6, 8, 0)], (6, 8, 5));
    assert_eq!(replica.status().commit, Index(5));
}

#[test]
fn contract_row_27_a_log_that_begins_late_without_a_snapshot_is_damage() {
    for said in [
        &[Log(4, 8, 8)][..],
        &[Log(4, 8, 8), Pieces(8, 0)],
        &[Log(4, 8, 8), Pieces(8, 1), Taken(8)],
    ] {
        assert_eq!(replay(said).err(), Some(no_snapshot(4)));
    }
    let gap = RunError::Gap { group: GROUP, expected: Index(3), found: Index(4) };
    assert_eq!(replay(&[Log(4, 8, 8), Pieces(2, 0), Taken(2)]).err(), Some(gap));
    assert_eq!(replay(&[Installed(8)]).err(), Some(no_snapshot(9)));
    // A hole further on, unless it belongs to the time before a newer snapshot: entry 6 was written in
    // front of the snapshot at 5, and went with its segment.
    check(&[Pieces(5, 0), Taken(5), Log(7, 9, 9), Pieces(8, 0), Taken(8)], (9, 9, 9));
    let gap = RunError::Gap { group: GROUP, expected: Index(7), found: Index(8) };
    assert_eq!(replay(&[Pieces(5, 0), Taken(5), Log(6, 6, 6), Log(8, 9, 9)]).err(), Some(gap));
}

/// Seed 9004104 of the simulator, which could not start a node any more: entries that were never
/// committed, the first of them reclaimed, then a snapshot of what lies in front of them, then the
/// entries of the next leader in their place.
#[test]
fn entries_adrift_give_way_to_those_that_a_later_leader_wrote_where_the_snapshot_ends() {
    let replica = check(&[Log(7, 8, 5), Pieces(5, 0), Taken(5), Log(6, 7, 6)], (6, 7, 6));
    assert_eq!(replica.stored().map(|stored| stored.entry), Some(at(5)));
    // Also without a snapshot, when the whole log is there but for a hole that is superseded.
    check(&[Log(1, 5, 5), Log(8, 9, 5), Log(6, 7, 7)], (6, 7, 7));
}

/// What the replica says of its loss: whether its promises are known, and its last entry if that is.
fn forgotten(said: &[Said], expected: (u64, u64, u64)) -> Option<(bool, Option<u64>)> {
    let lost = check(said, expected).forgotten()?;
    Some((lost.promises_known, lost.last.map(|last| last.index.0)))
}

#[test]
fn a_loss_leaves_what_was_applied_and_says_what_is_known_of_the_rest() {
    // Nothing follows: neither the end of the log is known nor what was promised.
    assert_eq!(forgotten(&[Log(1, 6, 5), Loss], (6, 5, 5)), Some((false, None)));
    assert_eq!(forgotten(&[Loss], (1, 0, 0)), Some((false, None)));
    // Entries behind the gap are the end of the log, and can be missed by no vote.
    let behind = [Log(1, 6, 5), Loss, Log(9, 10, 8)];
    assert_eq!(forgotten(&behind, (6, 5, 5)), Some((true, Some(10))));
    // A snapshot without entries behind it: what followed it may be gone.
    let snapshot = [Log(1, 6, 5), Loss, Pieces(6, 0), Taken(6)];
    assert_eq!(forgotten(&snapshot, (7, 6, 6)), Some((true, None)));
    // The last entries of the last leader that was heard may have replaced what lay there before.
    assert_eq!(forgotten(&[Log(1, 8, 5), Loss, Log(9, 10, 8)], (6, 5, 5)), Some((true, Some(10))));
    // An older snapshot than what is applied takes nothing back.
    let older = [Log(1, 6, 6), Loss, Pieces(4, 0), Taken(4)];
    assert_eq!(forgotten(&older, (7, 6, 6)), Some((true, None)));
}

#[test]
fn a_loss_that_what_follows_makes_up_for_is_none() {
    // Another leader wrote over all that was not applied.
    assert_eq!(forgotten(&[Log(1, 8, 5), Loss, Log(6, 7, 7)], (6, 7, 7)), None);
    // A snapshot stands for what is gone, and the entries behind it are there.
    let stands = [Log(1, 6, 5), Loss, Log(8, 9, 7), Pieces(8, 0), Taken(8)];
    assert_eq!(forgotten(&stands, (9, 9, 8)), None);
    let installed = [Log(1, 6, 5), Loss, Pieces(9, 0), Installed(9)];
    assert_eq!(forgotten(&installed, (10, 9, 9)), None);
}

#[test]
fn after_a_life_that_was_not_whole_only_its_own_word_counts() {
    let noted = [Log(1, 6, 5), Loss, Log(9, 10, 8), Forgotten(10), Log(6, 7, 6)];
    assert_eq!(forgotten(&noted, (6, 7, 7)), Some((true, Some(10))));
    let mut whole = noted.to_vec();
    whole.extend([Log(8, 10, 9), Recalled]);
    assert_eq!(forgotten(&whole, (6, 10, 9)), None);
    // A snapshot from the leader on the way does not make it whole either.
    let installed = [Log(1, 6, 5), Loss, Forgotten(10), Pieces(7, 0), Installed(7)];
    assert_eq!(forgotten(&installed, (8, 7, 7)), Some((true, Some(10))));
    // What has decayed since is not what it was whole of (seed 90004447).
    let since = [Log(1, 5, 5), Forgotten(9), Log(6, 8, 8), Loss, Pieces(8, 0), Taken(8), Recalled];
    assert_eq!(forgotten(&since, (9, 8, 8)), Some((true, None)));
    let mut further = since.to_vec();
    further.push(Log(10, 11, 9));
    assert_eq!(forgotten(&further, (9, 8, 8)), Some((true, Some(11))));
    // Nor is what has decayed since in front of the note: then the log reached further (`tool sim --seed 4231`, with
    // files that are cut).
    let in_front = [Log(1, 5, 4), Loss, Forgotten(6), Pieces(5, 0), Taken(5), Recalled];
    assert_eq!(forgotten(&in_front, (6, 5, 5)), Some((true, None)));
    // This time the disk could read what it could not read then: what was not committed is not what the life in between
    // fetched, and counted as committed (`tool sim --seed 14244`, with reads that lie).
    for (fetched, last) in [(1, 3), (4, 4)] {
        let read = [Log(1, 3, 3), Stale(4), Forgotten(4), Log(fetched, 3, 7)];
        // Entry 4 is what it had, if nothing was fetched; and that others in its place are committed is not about it.
        assert_eq!(forgotten(&read, (1, last, 3)).is_none(), last == 4);
        let whole = [&read[..], &[Log(4, 7, 7), Recalled]].concat();
        assert_eq!(forgotten(&whole, (1, 7, 7)), None);
        let more = [Log(1, 3, 3), Stale(4), Forgotten(9), Log(fetched, 3, 7)];
        assert_eq!(forgotten(&more, (1, 3, 3)), Some((true, Some(9))));
    }
    let read = [Log(1, 9, 9), Forgotten(9), Log(6, 9, 9), Log(10, 11, 10), Recalled];
    assert_eq!(forgotten(&read, (1, 11, 10)), None);
}

/// `cargo power flips`: of three nodes one was repaired, its log cut behind a snapshot, and it started again beside one
/// that knew less, while the third was away. It elected nobody.
#[test]
fn what_was_whole_is_so_though_the_snapshot_in_its_front_comes_later() {
    let noted = [Forgotten(9), Log(6, 9, 8), Recalled, Log(10, 10, 9)];
    let behind = [&noted[..], &[Pieces(8, 0), Taken(8), Log(11, 12, 10)]].concat();
    assert_eq!(forgotten(&behind, (9, 12, 10)), None);
    assert_eq!(forgotten(&behind[..behind.len() - 1], (9, 10, 9)), None);
    // Not without its word, and not if what it had is not there.
    let silent = [&[Forgotten(9), Log(6, 10, 9)][..], &behind[4..]].concat();
    assert_eq!(forgotten(&silent, (9, 12, 10)), None, "the last entry it ever had is there");
    let silent = [&silent[..], &[Forgotten(13)]].concat();
    assert_eq!(forgotten(&silent, (9, 10, 10)), Some((true, Some(13))));
    let less = [Forgotten(12), Log(6, 9, 8), Recalled, Pieces(8, 0), Taken(8)];
    assert_eq!(forgotten(&less, (9, 9, 8)), Some((true, None)));
    // What decays behind its word is another matter.
    let since = [&noted[..], &[Loss, Pieces(9, 0), Taken(9), Log(10, 11, 10)]].concat();
    assert_eq!(forgotten(&since, (10, 11, 10)), None);
    let since = [&noted[..], &[Loss, Pieces(9, 0), Taken(9)]].concat();
    assert_eq!(forgotten(&since, (10, 9, 9)), Some((true, None)));
}

/// A life that had lost entries 1 to 139 began to fetch them again; then its note of that decayed, too, and what it had
/// fetched looked like another leader's (`tool sim --seed 230477`).
#[test]
fn what_a_life_that_was_not_whole_fetched_proves_nothing_though_its_note_is_gone() {
    let again = [Loss, Log(5, 9, 8), Loss, Fetched(1, 3, 3)];
    assert_eq!(forgotten(&again, (1, 3, 3)), Some((false, None)));
    let whole = [&again[..], &[Fetched(4, 9, 9), Recalled, Log(10, 10, 9)]].concat();
    assert_eq!(forgotten(&whole, (1, 10, 9)), None);
    assert_eq!(forgotten(&whole[..6], (1, 9, 9)), Some((true, None)), "it does not say of what");
    // Nor is what it promised known, which it may have noted not to.
    assert_eq!(forgotten(&[Log(1, 6, 5), Loss, Fetched(6, 5, 5)], (6, 5, 5)), Some((false, None)));
    // Nor with a commit index known that lies in front of all that was lost.
    let early = [Log(1, 6, 2), Loss, Fetched(3, 4, 4)];
    assert_eq!(forgotten(&early, (3, 4, 4)), Some((false, None)));
    let snapshot = [Log(1, 6, 2), Loss, Pieces(5, 0), Received(5), Fetched(6, 6, 6)];
    assert_eq!(forgotten(&snapshot, (6, 6, 6)), Some((false, None)));
    // A leader wrote the same, to a replica that was whole.
    assert_eq!(forgotten(&[Log(1, 6, 2), Loss, Log(3, 4, 4)], (3, 4, 4)), None);
    assert_eq!(forgotten(&[Loss, Log(5, 9, 8), Loss, Log(1, 3, 3)], (1, 3, 3)), None);
    // Only its note decayed, and since it was whole again.
    let noted = [Log(1, 5, 5), Loss, Fetched(6, 9, 9), RecalledTo(9)];
    assert_eq!(forgotten(&noted, (6, 9, 9)), None);
    assert_eq!(forgotten(&noted[..3], (6, 9, 9)), Some((false, None)));
    assert_eq!(forgotten(&[Loss, Pieces(9, 0), Received(9), RecalledTo(9)], (10, 9, 9)), None);
    assert_eq!(forgotten(&[Loss, Pieces(9, 0), Received(9), RecalledTo(8)], (10, 9, 9)), None);
    let further = [Log(1, 5, 5), Loss, Fetched(6, 9, 7), RecalledTo(10)];
    assert_eq!(forgotten(&further, (6, 9, 7)), Some((true, None)));
    let replaced = [Log(1, 5, 5), Loss, Fetched(6, 6, 5), Other(6, 9), RecalledTo(8)];
    let lost = replay(&replaced).expect("a log that recovers").forgotten();
    assert_eq!(lost.map(|lost| lost.promises_known), Some(true), "entry 8 of another term");
    // Its note went with its segment, since it was whole again.
    assert_eq!(forgotten(&[Fetched(1, 3, 3), Recalled, Log(4, 4, 4)], (1, 4, 4)), None);
}

/// Every run that it writes says so: none can be taken for one of a replica that has everything.
#[test]
fn a_replica_that_is_not_whole_says_so_in_every_run() {
    let started = |lost: bool| {
        let recovery = ReplicaRecovery::new(GROUP, Box::new(Map::new()), 1 << 20);
        let state = GroupState::first(&[NodeId(1), NodeId(2)], &[]);
        let mut recovery = recovery.beginning(state);
        if lost {
            recovery.on_loss();
            let hard_state = HardState { term: TERM, ..HardState::default() };
            let (kind, entry) = (RunKind::Log, EntryId::default());
            let run =
                Replayed { kind, is_forgetful: false, hard_state, entry, segment: SegmentSeq(1) };
            recovery.on_run(run, std::iter::empty()).expect("it follows");
        }
        recovery.finish(raft::Config::new(ReplicaId(1), 1), Tick(0)).expect("a log that recovers")
    };
    let written = |mut replica: Replica| {
        let mut append = Message::new(MessageKind::Append, ReplicaId(2), ReplicaId(1), TERM);
        (append.run_term, append.count) = (TERM, 1);
        let (mut fx, mut answers) = (Effects::default(), Answers::new());
        replica.on_message(Tick(0), &append, std::iter::once(entry(1)), &mut answers);
        replica.ready(Tick(0), UnixMs(0), &mut fx, &mut answers);
        replica.write_piece(at(1), Bytes::from_static(b"piece"), None);
        replica.write_mark(RunKind::SnapshotInstalled, at(1), None);
        let mut lists = EntryLists::default();
        let runs = std::iter::from_fn(|| Some(replica.take_run(usize::MAX, &mut lists)?.0));
        runs.map(|run| (run.kind, run.entries.len(), run.is_forgetful)).collect::<Vec<_>>()
    };
    let (piece, installed) = (RunKind::SnapshotPiece, RunKind::SnapshotInstalled);
    let runs = |not_whole| {
        [(RunKind::Log, 1, not_whole), (piece, 1, not_whole), (installed, 0, not_whole)]
    };
    assert_eq!(written(started(false)), runs(false));
    let mut noted = written(started(true));
    assert_eq!(noted.remove(0), (RunKind::EntriesForgotten, 0, true));
    assert_eq!(noted, runs(true));
}

/// The machine had executed entry 6, and the replica began behind entry 5 (`tool sim --seed 209013`).
#[test]
fn what_was_applied_behind_a_loss_stands_when_a_snapshot_from_the_leader_is_not_whole() {
    let half = [Log(1, 5, 5), Loss, Log(6, 6, 6), Pieces(8, 1), Installed(8), Log(9, 9, 8), Loss];
    assert_eq!(forgotten(&half, (7, 6, 6)), Some((false, None)));
}

/// The next start refused the log: entries between the snapshot and what is gone went with their segment, since this
/// life knew nothing of them (`tool sim --seed 241693`, with reads that lie).
#[test]
fn a_snapshot_that_the_log_does_not_reach_back_to_stands_for_nothing() {
    let gone = [Log(6, 6, 5), Pieces(5, 0), Taken(5), Log(7, 8, 8), Loss, Log(9, 10, 8)];
    let mut replica = check(&gone, (9, 10, 8));
    assert_eq!(replica.stored(), None);
    let index = LogIndex::new();
    assert_eq!(replica.pin(&index), Some(SegmentSeq(1)), "where entry 6 is");
    assert!(replica.begin_snapshot(&index, SegmentSeq(5)));
    let reaches = [Log(1, 5, 5), Loss, Pieces(8, 0), Taken(8), Log(9, 10, 8)];
    assert_eq!(check(&reaches, (9, 10, 8)).pin(&index), Some(SegmentSeq(3)));
}

/// It took one snapshot after the other, for as long as it was not whole: the log never became shorter for it (`tool
/// sim --seed 234173`, 220 segments within three seconds).
#[test]
fn a_replica_that_is_not_whole_takes_no_snapshot_to_make_its_log_shorter() {
    let noted = [Log(1, 6, 5), Loss, Forgotten(10), Log(6, 7, 6)];
    let mut replica = check(&noted, (6, 7, 6));
    let index = LogIndex::new();
    assert!(!replica.begin_snapshot(&index, SegmentSeq(4)) && !replica.is_taking());
    assert_eq!(replica.pin(&index), Some(SegmentSeq(1)));
    let whole = [&noted[..], &[Log(8, 10, 9), Recalled]].concat();
    assert!(check(&whole, (6, 10, 9)).begin_snapshot(&index, SegmentSeq(4)));
}

#[test]
fn contract_row_28_pieces_without_an_end_are_passed_over() {
    check(&[Log(1, 5, 5), Pieces(5, 0), Log(6, 7, 7)], (1, 7, 7));
    // A crash, the same again from the start, and whole this time.
    let replica =
        check(&[Log(3, 5, 5), Pieces(5, 0), Pieces(5, 0), Taken(5), Log(6, 7, 6)], (6, 7, 6));
    assert_eq!(replica.stored().map(|stored| stored.segment), Some(SegmentSeq(3)));
    // The last pieces of one that is superseded.
    check(&[Pieces(4, 1), Taken(4), Log(5, 9, 9), Pieces(8, 0), Taken(8)], (9, 9, 9));
    check(&[Pieces(4, 1), Installed(4), Log(5, 9, 9), Pieces(8, 0), Taken(8)], (9, 9, 9));
}

#[test]
fn contract_row_28_what_comes_from_the_leader_voids_the_log_it_replaces() {
    check(&[Log(1, 2, 2), Other(3, 9), Pieces(8, 0), Installed(8)], (9, 8, 8));
    check(&[Log(1, 2, 2), Other(3, 9), Pieces(8, 0), Installed(8), Log(9, 9, 9)], (9, 9, 9));
    // Also if it is all that is left of the time before.
    check(&[Other(6, 9), Pieces(8, 0), Installed(8), Log(9, 9, 9)], (9, 9, 9));
    // One taken here does not: the entries behind it are the log's.
    check(&[Log(4, 9, 8), Pieces(8, 0), Taken(8)], (9, 9, 8));
}

#[test]
fn contract_row_56_a_snapshot_of_what_is_not_committed_is_none() {
    assert_eq!(replay(&[Log(4, 8, 0), Pieces(8, 0), Uncommitted(8)]).err(), Some(no_snapshot(4)));
    let replica = check(&[Log(1, 8, 3), Pieces(8, 0), Uncommitted(8)], (1, 8, 3));
    assert_eq!(replica.stored(), None);
}

#[test]
fn a_tombstoned_replica_recovers_as_removed() {
    for said in [&[Log(1, 5, 5), Tombstone][..], &[Tombstone], &[Log(4, 5, 5), Tombstone]] {
        let replica = replay(said).expect("nothing of it matters");
        assert!(replica.is_buried());
        assert_eq!(replica.status().last, EntryId::default());
    }
    assert!(!check(&[Log(1, 5, 5)], (1, 5, 5)).is_buried());
}

/// What lies behind gaps.
fn islands(said: &[Said]) -> Vec<(u64, u64)> {
    let replica = replay(said).expect("a log that recovers");
    replica.islands().map(|(first, last)| (first.0, last.0)).collect()
}

#[test]
fn what_the_log_says_again_tells_what_is_gone() {
    // It ended with what was there in front of the gap: nothing of this group went.
    assert_eq!(forgotten(&[Log(1, 6, 4), Loss, Again(6, 5)], (1, 6, 5)), None);
    // With less: who said so was shown less, or what is gone replaced the rest.
    assert_eq!(forgotten(&[Log(1, 6, 4), Loss, Again(5, 5)], (5, 4, 4)), Some((true, Some(5))));
    assert_eq!(forgotten(&[Log(1, 6, 6), Loss, Again(6, 6), Log(7, 8, 8)], (1, 8, 8)), None);
    // With more: that much is gone, and nothing else, nor what was promised.
    assert_eq!(forgotten(&[Log(1, 6, 4), Loss, Again(8, 5)], (5, 4, 4)), Some((true, Some(8))));
    // With another entry at that place, which replaced what was there.
    let replaced = [Log(1, 4, 4), Other(5, 6), Loss, Again(6, 4)];
    assert_eq!(forgotten(&replaced, (5, 4, 4)), Some((true, Some(6))));
    // A second gap is about what follows the first.
    let twice = [Log(1, 6, 4), Loss, Again(6, 5), Loss];
    assert_eq!(forgotten(&twice, (6, 5, 5)), Some((false, None)));
    let twice = [Log(1, 6, 4), Loss, Loss, Again(6, 5), Log(7, 7, 6)];
    assert_eq!(forgotten(&twice, (1, 7, 6)), None);
    // Whoever says again is whole, whatever a note says of an earlier life.
    let whole = [Log(1, 6, 4), Loss, Forgotten(9), Log(5, 9, 6), Loss, Again(9, 7)];
    assert_eq!(forgotten(&whole, (5, 9, 7)), None);
    assert!(forgotten(&whole[..5], (7, 6, 6)).is_some());
    // It tells what it had, though that it was whole again is gone, too.
    let more = [&whole[..5], &[Again(10, 7)]].concat();
    assert_eq!(forgotten(&more, (7, 6, 6)), Some((true, Some(10))));
    // A snapshot stands for what is gone.
    let stands = [Log(1, 6, 4), Loss, Pieces(8, 0), Taken(8), Again(8, 8)];
    assert_eq!(forgotten(&stands, (9, 8, 8)), None);
    // Another life could read what the one in between could not.
    let doubtful = [Log(1, 6, 4), Stale(7), Forgotten(7), Again(6, 6)];
    assert_eq!(forgotten(&doubtful, (1, 6, 6)), None);
}

#[test]
fn what_lies_behind_gaps_is_kept_as_far_as_it_counts() {
    assert_eq!(islands(&[Log(1, 5, 5), Loss, Log(8, 12, 9)]), [(8, 12)]);
    // What lies in front of another gap may have been replaced in that, unless it is committed.
    let two = [Log(1, 5, 5), Loss, Log(8, 12, 9), Loss, Log(15, 17, 16)];
    assert_eq!(islands(&two), [(8, 9), (15, 17)]);
    assert_eq!(islands(&[&two[..], &[Loss]].concat()), [(8, 9), (15, 16)]);
    assert_eq!(islands(&[Log(1, 5, 5), Loss, Log(8, 12, 7), Loss]), []);
    // A term begins in front of its end: what followed was replaced, and that it was committed is not about this.
    assert_eq!(islands(&[Log(1, 5, 5), Loss, Log(8, 12, 8), Again(9, 20)]), [(8, 9)]);
    assert_eq!(islands(&[Log(1, 5, 5), Loss, Log(8, 12, 8), Again(9, 20), Loss]), [(8, 9)]);
    // Nothing is missing, or somebody sends it.
    assert_eq!(islands(&[Log(1, 5, 5), Loss, Log(6, 9, 6)]), []);
    assert_eq!(islands(&[Log(1, 5, 5), Loss, Log(8, 12, 9), Forgotten(12), Fetched(6, 6, 6)]), []);
}

#[test]
fn what_a_member_gives_back_joins_what_lies_behind_the_gap() {
    let lost = [Log(1, 5, 5), Loss, Log(8, 12, 9), Forgotten(12)];
    let back = |said: &[Said], last| {
        let back = [Pieces(last, 0), GivenBack(last)];
        [said, &back].concat()
    };
    // In the middle of it, and right in front of it.
    for last in [7, 8, 10, 12] {
        let joined = back(&lost, last);
        assert_eq!(forgotten(&joined, (last + 1, 12, last.max(9))), None, "nothing is missing");
        let whole = [&joined[..], &[RecalledTo(12), Log(13, 14, 12)]].concat();
        assert_eq!(forgotten(&whole, (last + 1, 14, 12)), None);
    }
    // Not in front of a hole, and not behind all of it.
    let short = back(&lost, 6);
    assert_eq!(forgotten(&short, (7, 6, 6)), Some((true, Some(12))));
    assert_eq!(islands(&short), [(8, 12)]);
    assert_eq!(forgotten(&back(&short, 7), (8, 12, 9)), None);
    assert_eq!(forgotten(&back(&lost, 14), (15, 14, 14)), None);
    // What goes then goes anew.
    let since = [&back(&lost, 7)[..], &[Loss]].concat();
    assert_eq!(forgotten(&since, (10, 9, 9)), Some((false, None)));
    // From one to the next.
    let two = [Log(1, 5, 5), Loss, Log(8, 12, 10), Loss, Log(11, 17, 16), Forgotten(17)];
    assert_eq!(forgotten(&back(&two, 7), (11, 17, 16)), None);
    let apart = [Log(1, 5, 5), Loss, Log(8, 12, 10), Loss, Log(13, 17, 16), Forgotten(17)];
    assert_eq!(forgotten(&back(&apart, 7), (11, 10, 10)), Some((true, Some(17))));
    assert_eq!(forgotten(&back(&back(&apart, 7), 12), (13, 17, 16)), None);
    // Pieces without an end are nothing.
    let torn = [&lost[..], &[Pieces(7, 0)]].concat();
    assert_eq!(forgotten(&torn, (6, 5, 5)), Some((true, Some(12))));
    assert_eq!(islands(&torn), [(8, 12)]);
}

#[test]
fn what_lies_behind_a_gap_goes_on_only_in_the_log_it_was_written_for() {
    let joined = |said: &[Said], last| {
        let said = [said, &[Pieces(last, 0), GivenBack(last)]].concat();
        let replica = replay(&said).expect("a log that recovers");
        replica.status().last.index.0
    };
    // Another term begins: the entry in front of it may be another than the one that is committed.
    let unknown = [Log(1, 5, 5), Loss, Other(8, 9), Forgotten(9)];
    assert_eq!(joined(&unknown, 7), 7);
    // The log says what it follows.
    let said = [Log(1, 5, 5), Loss, Again(7, 5), Other(8, 9), Forgotten(9)];
    assert_eq!(joined(&said, 7), 9);
    let other = [Log(1, 5, 5), Loss, Again(6, 5), Other(8, 9), Forgotten(9)];
    assert_eq!(joined(&other, 7), 7);
    // An entry is in the place of one that is committed.
    assert_eq!(joined(&said, 8), 8);
    // As far as its own entries are committed they are everybody's, and not an entry further.
    let committed = [Log(1, 5, 5), Loss, Other(8, 9), Log(10, 9, 8), Forgotten(9)];
    assert_eq!(joined(&committed, 7), 9);
    // What it says that it follows is not what a snapshot has replaced since.
    let since = [Log(1, 5, 5), Loss, Again(8, 5), Pieces(8, 1), Received(8), Other(9, 10), Loss];
    let known = [&since[..], &[Forgotten(10)]].concat();
    assert_eq!(joined(&known, 8), 8);
}

/// What comes to the log for a state up to `last` that a member gives back: kinds, and whether the replica was whole.
fn takes_back(replica: &mut Replica, last: u64) -> Vec<(RunKind, bool)> {
    let (from, now) = (ReplicaId(2), Tick(9));
    assert_eq!(replica.on_announced(now, from, Term(0), at(last)), crate::group::Use::Wanted);
    let state = GroupState::first(&[NodeId(1), NodeId(2)], &[]);
    let meta = SnapshotMeta::new(GROUP, at(last)).with_state(&state);
    assert!(replica.begin_install(from, Term(0), (meta, Box::new(machine(last))), 1));
    let mut lists = EntryLists::default();
    let mut written = Vec::new();
    let (mut fx, mut answers) = (Effects::default(), Answers::new());
    for _ in 0..3 {
        while let Some((run, done)) = replica.take_run(1 << 20, &mut lists) {
            written.push((run.kind, run.is_forgetful));
            if done == Some(crate::group::Written::Installed(at(last))) {
                replica.install(now, &mut answers).expect("it takes effect");
            }
        }
        replica.ready(now, UnixMs(0), &mut fx, &mut answers);
        fx.clear();
    }
    written
}

#[test]
fn what_runs_and_what_starts_again_come_to_the_same() {
    let nodes = [NodeId(1), NodeId(2)];
    let lost = [Log(1, 5, 5), Loss, Log(8, 12, 10), Loss, Log(13, 17, 16)];
    let seen = |replica: &Replica| {
        let status = replica.status();
        (status.first.0, status.last, status.applied.0, replica.machine().digest())
    };
    let start = |said: &[Said]| replay_beside(&nodes, said).expect("a log that recovers");
    let mut running = start(&lost);
    let mut noted = [&lost[..], &[Forgotten(17)]].concat();
    let first = takes_back(&mut running, 7);
    let (lost, back) = (RunKind::EntriesForgotten, RunKind::SnapshotTaken);
    assert_eq!(first, [(lost, true), (back, true)]);
    noted.extend([Pieces(7, 0), GivenBack(7)]);
    assert_eq!((running.status().last, running.status().applied), (at(10), Index(10)));
    assert_eq!(seen(&running).3, seen(&start(&noted)).3, "the state");
    assert!(running.forgotten().is_some(), "11 and 12 are missing");
    assert_eq!(running.islands().collect::<Vec<_>>(), [(Index(13), Index(17))]);
    // Another member had those.
    let second = takes_back(&mut running, 12);
    assert_eq!(second, [(back, true), (RunKind::Recalled, false)]);
    assert_eq!(running.forgotten(), None);
    assert_eq!((running.status().last, running.status().applied), (at(17), Index(16)));
    noted.extend([Pieces(12, 0), GivenBack(12)]);
    assert_eq!(seen(&running), seen(&start(&noted)));
    noted.push(RecalledTo(17));
    let again = start(&noted);
    assert_eq!((again.forgotten(), seen(&again)), (None, seen(&running)));
    // What lies behind the snapshot is in front of it in the log, and stays.
    assert_eq!(again.pin(&LogIndex::new()), Some(SegmentSeq(5)));
}

/// What names the entries that are missing in front of it (seed 6045087).
#[test]
fn what_is_learned_to_be_committed_behind_a_gap_is_asked_for() {
    let start = |said: &[Said]| replay(said).expect("a log that recovers");
    let mut replica = start(&[Log(1, 5, 5), Loss, Log(8, 12, 7), Forgotten(12)]);
    assert_eq!(replica.islands.committed(), EntryId::default());
    let other = EntryId { term: TERM.next(), index: Index(12) };
    for unknown in [other, at(7), at(13)] {
        replica.note_recalled(Recalled::Committed(unknown));
        assert_eq!(replica.islands.committed(), EntryId::default(), "{unknown}");
    }
    replica.note_recalled(Recalled::Committed(at(12)));
    assert_eq!(replica.islands.committed(), at(8));
    // What lies in front of what is applied is not asked for.
    let behind = [Log(1, 5, 5), Loss, Log(8, 9, 9), Loss, Log(11, 14, 13), Forgotten(14)];
    let mut replica = start(&behind);
    assert_eq!(replica.islands.committed(), at(8));
    replica.islands.let_go_through(Index(8));
    assert_eq!(replica.islands.committed(), at(8), "9 is not applied");
    replica.islands.let_go_through(Index(9));
    assert_eq!(replica.islands.committed(), at(11));
}

#[test]
fn a_replica_that_hears_a_leader_takes_no_state_from_others() {
    let lost = [Log(1, 5, 5), Loss, Log(8, 12, 9), Forgotten(12)];
    let mut replica = replay_beside(&[NodeId(1), NodeId(2)], &lost).expect("it recovers");
    let (from, now, none) = (ReplicaId(2), Tick(9), Term(0));
    let usage = |replica: &mut Replica, from, last| replica.on_announced(now, from, none, at(last));
    assert_eq!(usage(&mut replica, from, 5), crate::group::Use::Held);
    assert_eq!(usage(&mut replica, ReplicaId(3), 7), crate::group::Use::None, "a stranger");
    assert_eq!(usage(&mut replica, from, 7), crate::group::Use::Wanted);
    let heartbeat = Message::new(MessageKind::Heartbeat, from, ReplicaId(1), Term(9));
    replica.on_message(now, &heartbeat, std::iter::empty(), &mut Answers::new());
    assert_eq!(usage(&mut replica, from, 7), crate::group::Use::None);
    assert!(replica.islands().next().is_some());
    // What the leader sends takes the place of all that lay behind the gap.
    let mut append = Message::new(MessageKind::Append, from, ReplicaId(1), Term(9));
    (append.entry, append.run_term, append.count) = (at(5), TERM, 1);
    replica.on_message(now, &append, std::iter::once(entry(6)), &mut Answers::new());
    assert_eq!(replica.islands().next(), None);
}

/// Entries 10 to 12 lay there when a life that was not whole fetched 6 to 9 again, and its beginning is gone.
#[test]
fn what_runs_goes_forward_in_the_log_as_what_starts_does() {
    let nodes = [NodeId(1), NodeId(2)];
    let lost = [Log(1, 3, 3), Loss, Log(10, 12, 12), Loss, Fetched(6, 9, 9), Forgotten(12)];
    let start = |said: &[Said]| replay_beside(&nodes, said).expect("a log that recovers");
    let mut running = start(&lost);
    takes_back(&mut running, 5);
    let again = start(&[&lost[..], &[Pieces(5, 0), GivenBack(5)]].concat());
    assert_eq!(running.status().last, at(9));
    assert_eq!(again.status().last, at(9));
    assert_eq!(running.forgotten(), again.forgotten());
}

/// The last entry it ever had was replaced by what is committed, in a lower term.
#[test]
fn who_was_whole_by_a_state_is_so_after_the_next_start() {
    let lost = [Log(1, 5, 5), Loss, Other(8, 9)];
    let back = [&lost[..], &[Pieces(12, 0), GivenBack(12), RecalledTo(12)]].concat();
    assert_eq!(forgotten(&back, (13, 12, 12)), None);
}

#[test]
fn nothing_makes_a_replica_whole_while_a_state_that_it_was_given_takes_effect() {
    let nodes = [NodeId(1), NodeId(2)];
    let lost = [Log(1, 5, 5), Loss, Forgotten(8), Pieces(6, 0), GivenBack(6)];
    let mut replica = replay_beside(&nodes, &lost).expect("a log that recovers");
    let (from, now) = (ReplicaId(2), Tick(9));
    let (mut fx, mut answers) = (Effects::default(), Answers::new());
    let mut append = Message::new(MessageKind::Append, from, ReplicaId(1), Term(9));
    (append.entry, append.run_term, append.count) = (at(6), TERM, 2);
    replica.on_message(now, &append, [entry(7), entry(8)].into_iter(), &mut answers);
    let question = Message::new(MessageKind::Recall, from, ReplicaId(1), Term(10));
    replica.on_message(now, &question, std::iter::empty(), &mut answers);
    replica.ready(now, UnixMs(0), &mut fx, &mut answers);
    let state = GroupState::first(&nodes, &[]);
    let meta = SnapshotMeta::new(GROUP, at(9)).with_state(&state);
    assert!(replica.begin_install(from, Term(0), (meta, Box::new(machine(9))), 1));
    let mut lists = EntryLists::default();
    let mut done = Vec::new();
    while let Some((run, completes)) = replica.take_run(1 << 20, &mut lists) {
        assert!(run.is_forgetful, "{run:?}");
        done.extend(completes);
    }
    for completes in done {
        match completes {
            crate::group::Written::Persist(seq) => replica.on_durable(now, seq, &mut answers),
            _ => _ = replica.install(now, &mut answers),
        }
    }
    assert_eq!((replica.status().last, replica.forgotten()), (at(9), None));
}

/// A leader gave everything back and died, and the power fails again and again.
#[test]
fn starts_do_not_drop_what_a_leader_gave_back() {
    let lost = [Log(1, 5, 5), Loss, Log(8, 12, 7), Forgotten(12), Fetched(6, 12, 9)];
    for more in 0..3 {
        let replica =
            replay(&[&lost[..], &vec![Forgotten(12); more]].concat()).expect("it recovers");
        assert_eq!((replica.status().last, replica.forgotten()), (at(12), None), "{more}");
    }
    // Of what lies further on than whoever noted that knew, it may have read less.
    let less = replay(&[&lost[..], &[Forgotten(11)]].concat()).expect("it recovers");
    assert_eq!(less.status().last, at(9));
}

/// Nothing of a group is gone but pieces of a snapshot that was on its way (`tool sim --seed 303910`, which could not start a
/// node any more).
#[test]
fn a_snapshot_that_took_effect_and_is_not_whole_is_missed() {
    let gone = [Log(1, 6, 5), Again(6, 5), Loss, Again(6, 5), Installed(10)];
    assert_eq!(forgotten(&gone[..4], (1, 6, 5)), None);
    assert_eq!(forgotten(&gone, (6, 5, 5)), Some((true, Some(10))));
    let behind = [&gone[..], &[Again(10, 10), Log(11, 12, 10)]].concat();
    assert_eq!(forgotten(&behind, (6, 5, 5)), Some((true, Some(12))));
    assert_eq!(islands(&behind), [(11, 12)]);
    // A newer one stands for all of it.
    let newer = [&behind[..], &[Pieces(11, 0), Taken(11)]].concat();
    assert_eq!(forgotten(&newer, (12, 12, 11)), None);
    let back = [&behind[..], &[Forgotten(12), Pieces(10, 0), GivenBack(10)]].concat();
    assert_eq!(forgotten(&back, (11, 12, 10)), None, "a member gave it back");
}
