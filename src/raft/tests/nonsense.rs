//! What nobody would say: arbitrary messages, well formed, to a replica in any state.
//!
//! Decoders are fuzzed (`tests/fuzz`), and `random` delivers what replicas really say. Between the two lies what
//! a peer with a bug, or of another version, may say: frames that decode and make no sense. Such crashed nodes elsewhere
//! (RedisRaft, issues 643 to 651), and [`Raft::step`] promises that here they do not.
//!
//! # What may come
//!
//! Whatever a frame that decodes hands on (`wire/verify.rs`, `check_message`) and `Shard::on_frame` passes to the replica:
//!
//! - every kind that has a code, with any context, and `reject` either way;
//! - sender and receiver are somebody, entries come with appends alone, and at most
//!   [`APPEND_ENTRIES_MAX`](limits::APPEND_ENTRIES_MAX) of them;
//! - terms and indices below 2^62. The core refuses larger ones itself, so they are said here, too;
//! - the shard drops what is for another node, or from another than the connection's. The core sees to the first and
//!   to its own voice itself, so both are said here.
//!
//! A snapshot's data comes after its announcement, and where the group may refuse it, it may also be taken.
//!
//! One thing is held back, because the group does (`group/install.rs`): the data of a snapshot whose last entry is of a
//! later term than its sender's, or of none.
//!
//! # What must hold
//!
//! No panic, which with the checks of tests includes overflows and the invariants I1 to I9. On every replica, term and vote
//! never go back, also not what was told before a crash; nor does what is committed, in length or content. It
//! stops for the two reasons that a leader's contradiction gives, and no other, and what it wrote until then is
//! recovered from. A message makes it say no more than a bounded number of things, and the log grow by no more than it
//! carries.
//!
//! A failing run prints its seed and the command that replays it.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{EntryId, Index, ReplicaId, Term};
use crate::limits;
use crate::raft::state::Role;
use crate::raft::*;

use super::harness::{Cache, Cluster, Held, Packet};
use super::random::{Dice, act, begin, change, each_seed};

/// The first number that the wire refuses.
const NUMBER_MAX: u64 = 1 << 62;

#[test]
fn nonsense_neither_panics_nor_undoes_anything() {
    let (mut told, mut met) = (0, BTreeSet::new());
    let count = each_seed("nonsense", |seed| {
        let mut liar = run(seed);
        told += liar.told;
        met.append(&mut liar.met);
    });
    let Some(count) = count else { return };
    println!("{count} seeds, {told} messages of nonsense, {} kinds of meetings", met.len());
    // Four roles, whole or not, heard fifteen kinds; but nobody leads or stands who is not whole.
    assert!(count < 1000 || met.len() == (4 + 1) * 15, "not everybody heard everything: {met:?}");
}

/// Returns the liar, who knows what was told to whom.
fn run(seed: u64) -> Liar {
    let mut dice = Dice::of(seed);
    let (mut cluster, all) = begin(seed, &mut dice);
    for _ in 0..dice.roll(250) {
        act(&mut cluster, &mut dice, all);
    }
    cluster.lies = true;
    let mut watch = Watch::new(&cluster);
    let victim = (!dice.one_in(8)).then(|| 1 + dice.roll(all));
    let mut liar = Liar {
        all,
        contexts: vec![0, 1, u64::MAX],
        heard: Vec::new(),
        told: 0,
        met: BTreeSet::new(),
    };
    for _ in 0..60 + dice.roll(60) {
        // Several may come in one turn.
        for _ in 0..1 + dice.roll(7) {
            let victim = victim.unwrap_or_else(|| 1 + dice.roll(all));
            liar.lie(&mut cluster, &mut dice, victim);
            watch.judge(&cluster);
        }
        if dice.one_in(40) {
            lose(&mut cluster, &mut dice, victim.unwrap_or(1));
        }
        act(&mut cluster, &mut dice, all);
        liar.listen(&cluster);
        watch.listen(&cluster);
        watch.judge(&cluster);
    }
    liar
}

/// The victim starts again and has forgotten something.
fn lose(cluster: &mut Cluster, dice: &mut Dice, id: u64) {
    let log = &cluster.node(id).disk.log;
    let last = log.last().map(|&(term, _)| EntryId { term, index: Index(log.len() as u64) });
    let what = Forgotten { promises_known: dice.one_in(2), last: last.filter(|_| dice.one_in(2)) };
    let kept = dice.roll(log.len() as u64 + 1) as usize;
    cluster.lose(id, kept, what);
}

/// Says what comes to its mind, and sometimes nearly what somebody else said.
struct Liar {
    all: u64,
    /// Some that were used.
    contexts: Vec<u64>,
    /// Some that were really said.
    heard: Vec<Message>,
    told: u64,
    /// Who has heard what: its role (by number), whether it had lost something, the kind.
    met: BTreeSet<(u8, bool, MessageKind)>,
}

impl Liar {
    fn listen(&mut self, cluster: &Cluster) {
        if let Some(Packet { message, .. }) = cluster.wire.back() {
            if self.heard.len() > 20 {
                self.heard.remove(0);
            }
            self.heard.push(*message);
            if message.context > 1 {
                self.contexts.truncate(20);
                self.contexts.insert(3, message.context);
            }
        }
    }

    fn lie(&mut self, cluster: &mut Cluster, dice: &mut Dice, to: u64) {
        let message = self.message(cluster, dice, to);
        self.told += 1;
        let raft = &cluster.node(to).raft;
        if raft.failure().is_none() {
            let role = raft.role_kind() as u8;
            self.met.insert((role, raft.forgotten().is_some(), message.kind));
        }
        let (waiting, voters) = (waiting(raft), raft.membership.voters().count());
        let last = raft.status().last.index;
        match message.kind {
            MessageKind::Snapshot if dice.one_in(2) => self.give(cluster, dice, to, message),
            _ => {
                let is_for_another = message.to != ReplicaId(to);
                let values = (0..u64::from(message.count))
                    .map(|_| (message.run_term, value(cluster, dice, self.all)));
                let values: Vec<_> = values.collect();
                if is_for_another {
                    // It came over a connection to this one all the same.
                    let now = cluster.now;
                    let change = cluster.node_mut(to).raft.step(&message, now);
                    assert_eq!(change, None, "what is for another changes no log");
                } else {
                    cluster.receive(&Packet { message, values });
                }
            }
        }
        let raft = &cluster.node(to).raft;
        let now_waiting = self::waiting(raft);
        assert!(now_waiting <= waiting + voters + 1, "{message:?}: {waiting} to {now_waiting}");
        let now_last = raft.status().last.index;
        let is_snapshot = message.kind == MessageKind::Snapshot;
        let grows_by = u64::from(message.count.max(1));
        assert!(
            is_snapshot || now_last <= last.plus(grows_by),
            "{message:?} grows {last} to {now_last}"
        );
        if let Role::Leader(leader) = &raft.role {
            let remote = leader.reads.as_ref().map_or(0, |reads| reads.remote.len());
            assert!(remote <= limits::READS_PENDING_MAX);
        }
    }

    /// A snapshot with its data. Where it ends far away nothing can hold it: a copy of the replica is asked.
    fn give(&mut self, cluster: &mut Cluster, dice: &mut Dice, to: u64, mut message: Message) {
        message.entry.term = message.entry.term.min(message.term).max(Term(1));
        let node = cluster.node(to);
        let (log, commit) = (node.log.clone(), node.raft.status().commit);
        if message.to == ReplicaId(to) && message.entry.index <= Index(log.len() as u64 + 50) {
            let end = message.entry.index.0 as usize;
            let kept = log[..commit.0 as usize].iter().take(end);
            let kept = kept.take_while(|&&(term, _)| term <= message.entry.term);
            let mut values: Vec<Held> = kept.copied().collect();
            while values.len() < end {
                values.push((message.entry.term, value(cluster, dice, self.all)));
            }
            cluster.receive(&Packet { message, values });
            return;
        }
        let ids = |dice: &mut Dice| -> Box<[ReplicaId]> {
            (0..dice.roll(4)).map(|_| ReplicaId(1 + dice.roll(self.all + 2))).collect()
        };
        let membership = Membership {
            incoming: ids(dice),
            outgoing: ids(dice),
            learners: ids(dice),
            learners_next: ids(dice),
            auto_leave: dice.one_in(2),
        };
        let mut raft = cluster.node(to).raft.clone();
        raft.restore(&message, membership, cluster.now);
        let cache = Cache { missing_below: Index(0) };
        for _ in 0..8 {
            let mut fx = Effects::default();
            raft.ready(cluster.now, &cache, &mut fx);
            if let Some(persist) = fx.persist {
                let _ = raft.on_durable(persist.seq, cluster.now);
            }
            let message = self.message(cluster, dice, to);
            let _ = raft.step(&message, cluster.now);
            let _ = raft.tick(cluster.now.plus(dice.roll(300)));
        }
    }

    fn message(&self, cluster: &Cluster, dice: &mut Dice, to: u64) -> Message {
        let raft = &cluster.node(to).raft;
        let mut message = match self.heard.len() as u64 {
            heard if heard > 0 && dice.one_in(3) => {
                let mut message = self.heard[dice.roll(heard) as usize];
                message.to = ReplicaId(to);
                for _ in 0..1 + dice.roll(3) {
                    self.change(raft, dice, &mut message);
                }
                message
            }
            _ => self.invent(raft, dice, to),
        };
        if message.kind == MessageKind::Append {
            message.count = message.count.min(limits::APPEND_ENTRIES_MAX);
        } else {
            message.count = 0;
        }
        message
    }

    /// Makes one thing different.
    fn change(&self, raft: &Raft, dice: &mut Dice, message: &mut Message) {
        let other = self.invent(raft, dice, message.to.0);
        match dice.roll(11) {
            0 => message.kind = other.kind,
            1 => message.from = other.from,
            2 => message.term = other.term,
            3 => message.entry.term = other.entry.term,
            4 => message.entry.index = other.entry.index,
            5 => message.commit = other.commit,
            6 => message.run_term = other.run_term,
            7 => message.count = count(dice),
            8 => message.reject = !message.reject,
            9 => message.hint = other.hint,
            _ => message.context = other.context,
        }
    }

    fn invent(&self, raft: &Raft, dice: &mut Dice, to: u64) -> Message {
        let kind = 1 + dice.roll(15) as u8;
        let kind = MessageKind::from_code(kind).expect("one of fifteen");
        let from = self.replica(dice);
        let to = if dice.one_in(50) { self.replica(dice) } else { ReplicaId(to) };
        let mut message = Message::new(kind, from, to, term(raft, dice));
        message.entry.index = index(raft, dice);
        let known = raft.term_at(message.entry.index).filter(|_| !dice.one_in(4));
        message.entry.term = known.unwrap_or_else(|| term(raft, dice));
        message.commit = index(raft, dice);
        let known = raft.term_at(message.commit).filter(|_| dice.one_in(3));
        message.run_term = known.unwrap_or_else(|| term(raft, dice));
        message.count = count(dice);
        message.reject = dice.one_in(2);
        if dice.one_in(3) {
            // What fits the role, so that something is made of it.
            (message.kind, message.term) = apt(raft, dice);
            message.reject = dice.one_in(4);
        }
        let about = Index(dice.roll(self.all + 2));
        message.hint = if dice.one_in(3) { about } else { index(raft, dice) };
        message.context = self.contexts[dice.roll(self.contexts.len() as u64) as usize];
        message
    }

    /// Mostly one of the group.
    fn replica(&self, dice: &mut Dice) -> ReplicaId {
        ReplicaId(match dice.roll(24) {
            0 => self.all + 1 + dice.roll(3),
            1 => u64::MAX - dice.roll(2),
            2 if dice.one_in(8) => 0,
            _ => 1 + dice.roll(self.all),
        })
    }
}

/// What a replica in this role may hear, and in which term.
fn apt(raft: &Raft, dice: &mut Dice) -> (MessageKind, Term) {
    use MessageKind as Kind;
    let (kinds, term): (&[Kind], _) = match raft.role {
        Role::Follower { .. } => (
            &[
                Kind::Append,
                Kind::Append,
                Kind::Append,
                Kind::Heartbeat,
                Kind::Snapshot,
                Kind::TimeoutNow,
                Kind::ReadIndexResponse,
                Kind::RecallResponse,
            ],
            raft.term,
        ),
        Role::PreCandidate(_) => (&[Kind::PreVoteResponse], raft.term.next()),
        Role::Candidate(_) => (&[Kind::VoteResponse], raft.term),
        Role::Leader(_) => (
            &[Kind::AppendResponse, Kind::HeartbeatResponse, Kind::ReadIndex, Kind::Recall],
            raft.term,
        ),
    };
    (kinds[dice.roll(kinds.len() as u64) as usize], term)
}

fn term(raft: &Raft, dice: &mut Dice) -> Term {
    let status = raft.status();
    let now = status.term.0;
    Term(match dice.roll(16) {
        0..8 => now,
        8 => now + 1,
        9 => now.saturating_sub(1),
        10 => status.last.term.0,
        11 => raft.term_at(status.commit).unwrap_or_default().0,
        12 => dice.roll(now.min(NUMBER_MAX) + 3),
        13 => dice.roll(2),
        // It spoils a term for good: not too often.
        _ if dice.one_in(60) => NUMBER_MAX - 1 - dice.roll(2),
        _ if dice.one_in(4) => huge(dice),
        _ => now,
    })
}

fn index(raft: &Raft, dice: &mut Dice) -> Index {
    let status = raft.status();
    let landmarks =
        [status.commit, status.last.index, status.applied, status.durable, status.first];
    let landmark = landmarks[dice.roll(5) as usize].0;
    Index(match dice.roll(16) {
        0..4 => landmark,
        4..6 => landmark + 1,
        6..8 => landmark.saturating_sub(1),
        8..11 => dice.roll(status.last.index.0.min(NUMBER_MAX) + 4),
        11 => dice.roll(2),
        12 => landmark + dice.roll(40),
        13 => NUMBER_MAX - 1 - dice.roll(3),
        _ if dice.one_in(4) => huge(dice),
        _ => status.last.index.0,
    })
}

/// Nobody's number.
fn huge(dice: &mut Dice) -> u64 {
    [NUMBER_MAX, NUMBER_MAX + 1, 1 << 63, u64::MAX - 1, u64::MAX][dice.roll(5) as usize]
}

fn count(dice: &mut Dice) -> u32 {
    match dice.roll(400) {
        0 => limits::APPEND_ENTRIES_MAX - dice.roll(2) as u32,
        1..20 => dice.roll(60) as u32,
        _ => dice.roll(4) as u32,
    }
}

/// What an entry holds: sometimes a change of membership.
fn value(cluster: &mut Cluster, dice: &mut Dice, all: u64) -> u64 {
    let value = cluster.value();
    if dice.one_in(12) {
        let is_joint = dice.one_in(2);
        cluster.changes.insert(value, change(dice, all, is_joint));
    }
    value
}

/// Messages that will leave, now or when something is durable.
fn waiting(raft: &Raft) -> usize {
    raft.outbox.len() + raft.promises.len() + usize::from(raft.echo.is_some())
}

/// What each replica may not go back on.
struct Watch {
    replicas: Vec<Kept>,
    /// Votes given: by whom, in which term.
    votes: BTreeMap<(ReplicaId, Term), ReplicaId>,
}

#[derive(Default)]
struct Kept {
    /// Which life, and how many snapshots were taken in it.
    life: (u64, u64),
    term: Term,
    vote: ReplicaId,
    committed: Vec<Held>,
    failure: Option<Failure>,
}

impl Watch {
    fn new(cluster: &Cluster) -> Self {
        let replicas = cluster.ids().map(|_| Kept::default()).collect();
        let mut watch = Self { replicas, votes: BTreeMap::new() };
        watch.judge(cluster);
        watch
    }

    /// What was said cannot be unsaid by a crash.
    fn listen(&mut self, cluster: &Cluster) {
        for Packet { message, .. } in &cluster.wire {
            if message.kind == MessageKind::VoteResponse && !message.reject {
                let given = *self.votes.entry((message.from, message.term)).or_insert(message.to);
                assert_eq!(given, message.to, "two votes: {message:?}");
            }
        }
    }

    fn judge(&mut self, cluster: &Cluster) {
        for (kept, node) in self.replicas.iter_mut().zip(&cluster.nodes) {
            kept.judge(node);
        }
    }
}

impl Kept {
    fn judge(&mut self, node: &super::harness::Node) {
        let status = node.raft.status();
        let (id, commit) = (status.id, status.commit.0 as usize);
        let life = (node.incarnation, node.restored);
        if self.life.0 == life.0 {
            assert!(self.term <= status.term, "{id}: its term goes back");
            let is_same = self.term < status.term || self.vote == status.vote;
            assert!(is_same || self.vote == ReplicaId::NONE, "{id}: its vote is another");
            assert!(self.committed.len() <= commit, "{id}: what is committed goes back");
            assert!(self.failure.is_none_or(|it| status.failure == Some(it)), "{id}: it goes on");
        }
        if self.life == life {
            let (was, is) = (&self.committed, &node.log[..self.committed.len()]);
            assert!(was == is, "{id}: what is committed changes");
        } else {
            // From its disk, or from whom it believes, it has what it has.
            self.committed.clear();
        }
        self.committed.extend(&node.log[self.committed.len()..commit]);
        let is_named = node.log.first().is_none_or(|&(term, _)| term > Term(0));
        assert!(is_named, "{id}: an entry without a term, which the log refuses");
        let is_leaders = |failure| {
            matches!(failure, Failure::CommittedConflict { .. } | Failure::EntriesLost { .. })
        };
        assert!(status.failure.is_none_or(is_leaders), "{id}: {:?}", status.failure);
        (self.life, self.failure) = (life, status.failure);
        (self.term, self.vote) = (status.term, status.vote);
    }
}
