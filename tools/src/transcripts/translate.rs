//! Their messages and ours: the former hold their entries and snapshots, and an append of theirs may
//! span terms; ours name entries, and leave as a train of messages, one per term.

use outrigger::id::{EntryId, Index, ReplicaId, Term};
use outrigger::raft::{self, ConfChange, MessageKind};

use super::message::{Config, Entry, Kind, Message, Snapshot};

/// A message of our core with the entries it names, or the snapshot it asks for.
pub(super) fn from_core(core: &raft::Message, entries: &[Entry], snapshot: &Snapshot) -> Message {
    let kind = match core.kind {
        MessageKind::PreVote => Kind::PreVote,
        MessageKind::PreVoteResponse => Kind::PreVoteResp,
        MessageKind::Vote => Kind::Vote,
        MessageKind::VoteResponse => Kind::VoteResp,
        MessageKind::Append => Kind::App,
        MessageKind::AppendResponse => Kind::AppResp,
        MessageKind::Heartbeat => Kind::Heartbeat,
        MessageKind::HeartbeatResponse => Kind::HeartbeatResp,
        MessageKind::Snapshot => Kind::Snap,
        MessageKind::TimeoutNow => Kind::TimeoutNow,
        MessageKind::ReadIndex => Kind::ReadIndex,
        MessageKind::ReadIndexResponse => Kind::ReadIndexResp,
        // Ours alone; a core does not send it.
        MessageKind::Removed | MessageKind::Recall | MessageKind::RecallResponse => {
            Kind::Unreachable
        }
    };
    let mut message = Message::new(kind, core.from.0, core.to.0, core.term.0);
    (message.reject, message.hint) = (core.reject, core.hint.0);
    (message.commit, message.context) = (core.commit.0, core.context);
    if kind == Kind::Snap {
        message.snapshot = Some(snapshot.clone());
    } else {
        (message.log_term, message.index) = (core.entry.term.0, core.entry.index.0);
    }
    message.entries = entries.to_vec();
    message
}

pub(super) fn entry_id(term: u64, index: u64) -> EntryId {
    EntryId { term: Term(term), index: Index(index) }
}

pub(super) fn core_change(config: &Config) -> ConfChange {
    ConfChange { transition: config.transition, changes: config.changes.clone() }
}

/// Whether the core sent `next` as the continuation of `train`.
pub(super) fn is_next_car(train: &Message, next: &Message) -> bool {
    let end = |message: &Message| message.index + message.entries.len() as u64;
    train.kind == Kind::App
        && next.kind == Kind::App
        && (train.to, train.term) == (next.to, next.term)
        && !next.entries.is_empty()
        && end(train) == next.index
}

/// An append as our core takes it: a message per term, each with its entries. At least one.
pub(super) fn cars(append: &Message) -> Vec<(raft::Message, &[Entry])> {
    let (from, to) = (ReplicaId(append.from), ReplicaId(append.to));
    let mut previous = entry_id(append.log_term, append.index);
    let car = |previous: EntryId, entries: &[Entry]| {
        let mut car = raft::Message::new(MessageKind::Append, from, to, Term(append.term));
        (car.entry, car.commit) = (previous, Index(append.commit));
        car.count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        car.run_term = entries.first().map_or(Term(0), |entry| Term(entry.term));
        car
    };
    let mut cars = Vec::new();
    for run in append.entries.chunk_by(|a, b| a.term == b.term) {
        cars.push((car(previous, run), run));
        previous = run.last().map_or(previous, |last| entry_id(last.term, last.index));
    }
    if cars.is_empty() {
        cars.push((car(previous, &[]), &[][..]));
    }
    cars
}

/// The message as our core takes it, if it is one of those it takes one by one.
pub(super) fn to_core(message: &Message) -> Option<raft::Message> {
    let kind = match message.kind {
        Kind::PreVote => MessageKind::PreVote,
        Kind::PreVoteResp => MessageKind::PreVoteResponse,
        Kind::Vote => MessageKind::Vote,
        Kind::VoteResp => MessageKind::VoteResponse,
        Kind::AppResp => MessageKind::AppendResponse,
        Kind::Heartbeat => MessageKind::Heartbeat,
        Kind::HeartbeatResp => MessageKind::HeartbeatResponse,
        Kind::Snap => MessageKind::Snapshot,
        Kind::TimeoutNow => MessageKind::TimeoutNow,
        _ => return None,
    };
    let (from, to) = (ReplicaId(message.from), ReplicaId(message.to));
    let mut core = raft::Message::new(kind, from, to, Term(message.term));
    core.entry = match &message.snapshot {
        Some(snapshot) => entry_id(snapshot.term, snapshot.index),
        None => entry_id(message.log_term, message.index),
    };
    (core.reject, core.hint) = (message.reject, Index(message.hint));
    (core.commit, core.context) = (Index(message.commit), message.context);
    Some(core)
}
