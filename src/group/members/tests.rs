//! Whole groups in memory: a change is asked for, agreed on, takes effect, and is survived.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::*;
use crate::group::{GroupState, PartId, Replayed, ReplicaRecovery, Written};
use crate::id::{GroupId, SegmentSeq, Term, UnixMs};
use crate::raft;
use crate::store::command::Access;
use crate::store::connection::Manner;
use crate::store::map::Map;
use crate::wal::EntryLists;

const GROUP: GroupId = GroupId(0);

/// One group: a replica per node, messages that arrive at once, disks that take no time.
struct World {
    now: Tick,
    replicas: BTreeMap<u64, Replica>,
    wires: VecDeque<(Message, Vec<Entry>)>,
    /// What was written, per node, to start again from.
    disks: BTreeMap<u64, Vec<Run>>,
    answers: BTreeMap<u64, Reply>,
    asked: u64,
    /// Messages between these are lost.
    cut: Vec<(u64, u64)>,
}

impl World {
    fn new(voters: &[u64]) -> Self {
        let mut world = Self {
            now: Tick(0),
            replicas: BTreeMap::new(),
            wires: VecDeque::new(),
            disks: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: 0,
            cut: Vec::new(),
        };
        voters.iter().for_each(|&node| world.start(node, voters));
        world
    }

    /// Starts a node from its disk; `first` are the members it began with.
    fn start(&mut self, node: u64, first: &[u64]) {
        let ids: Vec<NodeId> = first.iter().map(|&id| NodeId(id)).collect();
        let addresses: Vec<_> = ids.iter().map(|&id| (id, at(id.0 as u16))).collect();
        let mut recovery = ReplicaRecovery::new(GROUP, Box::new(Map::new()), 1 << 20)
            .beginning(GroupState::first(&ids, &addresses));
        for run in self.disks.get(&node).into_iter().flatten() {
            let replayed = Replayed {
                kind: run.kind,
                is_forgetful: run.is_forgetful,
                hard_state: run.hard_state,
                entry: EntryId { term: run.run_term, index: run.first },
                segment: SegmentSeq(1),
            };
            recovery.on_run(replayed, run.entries.iter().cloned()).expect("its own log");
        }
        let config = raft::Config::new(ReplicaId(node), node * 7);
        let replica = recovery.finish(config, self.now).expect("its own log");
        self.replicas.insert(node, replica);
    }

    fn leader(&self) -> Option<u64> {
        let leads = |replica: &&Replica| replica.status().leader_ready && !replica.is_gone();
        let best = self.replicas.values().filter(leads).max_by_key(|it| it.status().term);
        best.map(|replica| replica.status().id.0)
    }

    /// Lets one millisecond pass.
    fn step(&mut self) {
        self.now = self.now.plus(1);
        let (mut fx, mut answers) = (Effects::default(), Answers::new());
        let arrived = std::mem::take(&mut self.wires);
        for (message, entries) in arrived {
            let pair = (message.from.0.min(message.to.0), message.from.0.max(message.to.0));
            if self.cut.contains(&pair) {
                continue;
            }
            if let Some(replica) = self.replicas.get_mut(&message.to.0) {
                replica.on_message(self.now, &message, entries.into_iter(), &mut answers);
            }
        }
        for (node, replica) in &mut self.replicas {
            if replica.deadline() <= self.now {
                replica.on_tick(self.now, &mut answers);
            }
            for _ in 0..3 {
                replica.ready(self.now, UnixMs(0), &mut fx, &mut answers);
                for message in &fx.send {
                    let first = message.entry.index.next();
                    let entries = replica.cache().range(first, message.count).cloned().collect();
                    self.wires.push_back((*message, entries));
                }
                fx.clear();
                let mut lists = EntryLists::default();
                while let Some((run, done)) = replica.take_run(usize::MAX, &mut lists) {
                    self.disks.entry(*node).or_default().push(run);
                    if let Some(Written::Persist(seq)) = done {
                        replica.on_durable(self.now, seq, &mut answers);
                    }
                }
            }
        }
        for (origin, reply) in answers {
            let Origin::Here(part) = origin else { panic!("not asked here: {origin:?}") };
            let before = self.answers.insert(part.request, reply);
            assert!(before.is_none(), "answered twice");
        }
    }

    fn run_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        for _ in 0..20_000 {
            if holds(self) {
                return;
            }
            self.step();
        }
        panic!("it never came to this: {what}");
    }

    fn elect(&mut self) -> u64 {
        self.run_until("a leader", |world| world.leader().is_some());
        self.leader().expect("just elected")
    }

    /// Asks `node`; the name of the answer.
    fn ask(&mut self, node: u64, access: Access, line: &str) -> u64 {
        self.asked += 1;
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        let command = GroupCommand {
            group: GROUP,
            access,
            after_writes: false,
            manner: Manner::default(),
            session: None,
            body: Command::from_args(&words).raw,
        };
        let origin = Origin::Here(PartId { request: self.asked, part: 0 });
        let now = self.now;
        let replica = self.replicas.get_mut(&node).expect("a node");
        let said = match replica.on_command(now, UnixMs(0), command, origin) {
            Verdict::Taken => return self.asked,
            Verdict::Refused(reply) | Verdict::Answered(reply) => reply,
            Verdict::Elsewhere(leader, _) => Reply::error("ELSEWHERE", leader.to_string()),
        };
        self.answers.insert(self.asked, said);
        self.asked
    }

    fn wait(&mut self, asked: u64) -> Reply {
        self.run_until("an answer", |world| world.answers.contains_key(&asked));
        self.answers[&asked].clone()
    }

    /// Asks the leader and waits.
    fn member(&mut self, line: &str) -> Reply {
        let leader = self.elect();
        let asked = self.ask(leader, Access::Member, line);
        self.wait(asked)
    }

    fn done(&mut self, line: &str) {
        let reply = self.member(line);
        assert!(matches!(reply, Reply::Int(_)), "{line}: {reply:?}");
    }

    fn refused(&mut self, line: &str, why: &str) {
        let reply = self.member(line);
        assert!(reply.is_error() && reply.error_text().contains(why), "{line}: {reply:?}");
    }

    fn set(&mut self, key: &str) {
        let leader = self.elect();
        let asked = self.ask(leader, Access::Write, &format!("SET {key} v"));
        assert_eq!(self.wait(asked), Reply::Ok);
    }

    /// A new node is a learner that has caught up.
    fn add(&mut self, node: u64) {
        self.start(node, &[]);
        self.done(&format!("MEMBER ADD {node} {}", at(node as u16)));
        self.caught_up(node);
    }

    fn caught_up(&mut self, node: u64) {
        self.run_until("it caught up", |world| {
            let Some(leader) = world.leader() else { return false };
            let applied = |node: u64| world.replicas[&node].status().applied;
            applied(node) == applied(leader)
        });
    }

    fn other_than(&self, node: u64) -> u64 {
        *self.replicas.keys().find(|&&other| other != node).expect("another")
    }
}

fn at(port: u16) -> core::net::SocketAddr {
    core::net::SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn a_learner_is_added_catches_up_and_votes() {
    let mut world = World::new(&[1, 2, 3]);
    for key in 0..200 {
        world.set(&format!("k{key}"));
    }
    world.start(4, &[]);
    world.done("MEMBER ADD 4 127.0.0.1:4");
    world.refused("MEMBER PROMOTE 4", "BUSY");
    world.caught_up(4);
    // The last acknowledgement is on its way.
    (0..300).for_each(|_| world.step());
    world.done("MEMBER PROMOTE 4");
    let state = world.replicas[&1].state();
    assert!(state.membership.is_voter(ReplicaId(4)));
    // Repeated, each is done already.
    world.done("MEMBER ADD 4 127.0.0.1:4");
    world.done("MEMBER PROMOTE 4");
    world.refused("MEMBER ADD 4 127.0.0.1:5", "MEMBER UPDATE");
    world.done("MEMBER UPDATE 4 127.0.0.1:5");
    assert_eq!(world.replicas[&4].machine().len(), 200);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_changes() {
    let mut world = World::new(&[1, 2, 3]);
    world.elect();
    world.refused("MEMBER PROMOTE 9", "no member");
    world.refused("MEMBER REMOVE 9", "no member");
    world.refused("MEMBER UPDATE 9 127.0.0.1:1", "no member");
    world.refused("MEMBER TRANSFER 9", "no voter");
    world.refused("MEMBER ADD 9 127.0.0.1:9 GROUP 0 IF 77", "config id is 0, not 77");
    world.refused("MEMBER NONSENSE", "MEMBER knows");
    world.done("MEMBER ADD 9 127.0.0.1:9 GROUP 0 IF 0");
    let leader = world.elect();
    let config = world.replicas[&leader].state().config_id;
    assert_ne!(config, Index(0));
    world.done(&format!("MEMBER REMOVE 9 GROUP 0 IF {config}"));
    world.done("MEMBER REMOVE 9");
    world.refused("MEMBER ADD 9 127.0.0.1:9", "never used again");
    let mut alone = World::new(&[1]);
    alone.refused("MEMBER REMOVE 1", "removed all voters");
}

#[test]
fn contract_row_34_a_change_is_answered_when_the_next_is_accepted() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.elect();
    let first = world.ask(leader, Access::Member, "MEMBER ADD 4 127.0.0.1:4");
    let early = world.ask(leader, Access::Member, "MEMBER ADD 5 127.0.0.1:5");
    let reply = world.wait(early);
    assert!(reply.error_text().starts_with("BUSY"), "one at a time: {reply:?}");
    world.wait(first);
    // At once, in the same millisecond.
    let next = world.ask(leader, Access::Member, "MEMBER ADD 5 127.0.0.1:5");
    assert!(!world.answers.contains_key(&next), "the next is taken: {:?}", world.answers[&next]);
    assert!(matches!(world.wait(next), Reply::Int(_)));
    // Through a joint membership the answer waits until that is left again.
    world.start(4, &[]);
    world.caught_up(4);
    (0..300).for_each(|_| world.step());
    let replaced = world.other_than(leader);
    world.done(&format!("MEMBER REPLACE {replaced} 4"));
    assert!(!world.replicas[&leader].state().membership.is_joint());
    let next = world.ask(leader, Access::Member, "MEMBER REMOVE 5");
    assert!(!world.answers.contains_key(&next), "the next is taken");
}

#[test]
fn contract_row_10_a_removed_replica_refuses_at_once_and_for_ever() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.elect();
    world.set("k");
    let removed = world.other_than(leader);
    world.done(&format!("MEMBER REMOVE {removed}"));
    world.run_until("it knows", |world| world.replicas[&removed].is_gone());
    for (access, line) in [
        (Access::Write, "SET k w"),
        (Access::Read, "GET k"),
        (Access::Member, "MEMBER LIST"),
        (Access::Member, "MEMBER TRANSFER 1"),
    ] {
        let asked = world.ask(removed, access, line);
        let reply = &world.answers[&asked];
        assert!(reply.error_text().starts_with("CLUSTERDOWN"), "{line}: {reply:?}");
    }
    let last = world.disks[&removed].last().expect("something was written");
    assert_eq!(last.kind, RunKind::Tombstone);
    // A restart does not bring it back.
    world.replicas.remove(&removed);
    world.start(removed, &[1, 2, 3]);
    assert!(world.replicas[&removed].is_gone());
    let term = world.replicas[&removed].status().term;
    (0..5_000).for_each(|_| world.step());
    assert_eq!(world.replicas[&removed].status().term, term, "it stands for nothing");
    assert_eq!(world.leader(), Some(leader), "it disturbs nobody");
}

/// Only the leader knows that its own removal is committed when the links to it break; another voter is gone for
/// good. Without the vote of the removed the others are two of four, until they hear from it that they are two of
/// three. (`tool sim --seed 3499`, with disks replaced.)
#[test]
fn contract_row_62_who_has_left_still_says_what_is_committed() {
    for restarts in [false, true] {
        let mut world = World::new(&[1, 2, 3, 4]);
        let leader = world.elect();
        world.set("k");
        let dead = world.other_than(leader);
        world.replicas.remove(&dead);
        let asked = world.ask(leader, Access::Member, &format!("MEMBER REMOVE {leader}"));
        let others: Vec<u64> = (1..=4).filter(|node| ![leader, dead].contains(node)).collect();
        let knows =
            |world: &World, node| world.replicas[node].state().is_removed(ReplicaId(leader));
        world.run_until("it takes effect", |world| knows(world, &leader));
        world.cut = others.iter().map(|&node| (node.min(leader), node.max(leader))).collect();
        world.run_until("it is gone", |world| world.replicas[&leader].is_gone());
        assert!(world.answers.contains_key(&asked));
        (0..5_000).for_each(|_| world.step());
        assert_eq!((world.leader(), others.iter().any(|node| knows(&world, node))), (None, false));
        if restarts {
            world.replicas.remove(&leader);
            world.start(leader, &[1, 2, 3, 4]);
        }
        let term = world.replicas[&leader].status().term;
        world.cut.clear();
        world.run_until("another leads", |world| world.leader().is_some());
        assert!(others.contains(&world.leader().expect("just seen")));
        assert_eq!(world.replicas[&leader].status().term, term, "it took part in nothing");
        let node = world.leader().expect("just seen");
        let set = world.ask(node, Access::Write, "SET k w");
        assert_eq!(world.wait(set).error_text(), "", "it is written");
    }
}

#[test]
fn contract_row_37_a_removed_replica_that_speaks_is_told() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.elect();
    let removed = world.other_than(leader);
    // It does not hear of its removal.
    let others: Vec<u64> = (1..=3).filter(|&node| node != removed).collect();
    world.cut = others.iter().map(|&node| (node.min(removed), node.max(removed))).collect();
    world.done(&format!("MEMBER REMOVE {removed}"));
    (0..3_000).for_each(|_| world.step());
    assert!(!world.replicas[&removed].is_gone());
    world.cut.clear();
    world.run_until("it is told", |world| world.replicas[&removed].is_gone());
    assert_eq!(world.leader(), Some(leader), "its campaign moved nobody");
    let last = world.disks[&removed].last().expect("something was written");
    assert_eq!(last.kind, RunKind::Tombstone);
    // It can tell others, who may need its vote as long as they do not know.
    let told = world.replicas[&leader].state().config_id;
    assert!(told <= last.first, "{told} {last:?}");
}

#[test]
fn contract_row_35_no_campaign_over_a_change_of_any_kind_that_is_not_applied() {
    // A change of two members at once is in the log of a restarted replica, not known committed.
    let two = MemberChange {
        changes: vec![
            (Change { kind: ChangeKind::AddVoter, id: ReplicaId(4) }, None),
            (Change { kind: ChangeKind::Remove, id: ReplicaId(3) }, None),
        ],
        ..MemberChange::default()
    };
    for payload in [two.encode(), Bytes::new()] {
        let state = GroupState::first(&[NodeId(1), NodeId(2), NodeId(3)], &[]);
        let mut recovery =
            ReplicaRecovery::new(GROUP, Box::new(Map::new()), 1 << 20).beginning(state);
        let hard_state = raft::HardState { term: Term(2), vote: ReplicaId(1), commit: Index(1) };
        let entries = [Entry::empty(), Entry::config(payload)];
        let entry = EntryId { term: Term(2), index: Index(1) };
        let segment = SegmentSeq(1);
        let run = Replayed { kind: RunKind::Log, is_forgetful: false, hard_state, entry, segment };
        recovery.on_run(run, entries.into_iter()).expect("a log");
        let replica = recovery.finish(raft::Config::new(ReplicaId(1), 1), Tick(0));
        let mut replica = replica.expect("a log");
        let (mut fx, mut answers) = (Effects::default(), Answers::new());
        // The commit index reaches it before it had the time to apply.
        let mut beat = Message::new(MessageKind::Heartbeat, ReplicaId(2), ReplicaId(1), Term(2));
        beat.commit = Index(2);
        replica.on_message(Tick(1), &beat, std::iter::empty(), &mut answers);
        replica.on_tick(Tick(10_000), &mut answers);
        assert_eq!(replica.status().role, RoleKind::Follower, "it may not be asked any more");
        replica.ready(Tick(10_001), UnixMs(0), &mut fx, &mut answers);
        assert_eq!(replica.status().applied, Index(2));
    }
}

#[test]
fn contract_row_62_a_removed_leader_hands_over_before_it_leaves() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.elect();
    world.set("k");
    let asked = world.ask(leader, Access::Member, &format!("MEMBER REMOVE {leader}"));
    let began = world.now;
    assert!(matches!(world.wait(asked), Reply::Int(_)));
    let refused = world.ask(leader, Access::Write, "SET k w");
    assert!(world.answers[&refused].error_text().starts_with("CLUSTERDOWN"));
    world.run_until("another leads", |world| world.leader().is_some_and(|now| now != leader));
    let took = world.now.since(began);
    assert!(took < 100, "nobody waits for an election timeout: {took} ms");
    world.run_until("it is gone", |world| world.replicas[&leader].is_gone());
    for node in (1..=3).filter(|&node| node != leader) {
        world.run_until("everybody knows", |world| {
            world.replicas[&node].state().is_removed(ReplicaId(leader))
        });
    }
    world.set("k2");
}

#[test]
fn contract_row_48_the_successor_holds_most_and_was_heard_from_last() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.elect();
    world.set("k");
    let status = world.replicas[&leader].status();
    let voters = [1, 2, 3].map(ReplicaId);
    let progress = |changes: &[(u64, u64, Option<u64>)]| {
        let all: Vec<ReplicaProgress> = status
            .progress()
            .map(|peer| {
                let change = changes.iter().find(|change| change.0 == peer.id.0);
                change.map_or(peer, |&(_, matched, heard)| ReplicaProgress {
                    matched: Index(matched),
                    heard: heard.map(Tick),
                    ..peer
                })
            })
            .collect();
        all
    };
    let others: Vec<u64> = (1..=3).filter(|&node| node != leader).collect();
    let (a, b) = (others[0], others[1]);
    let best = |changes: &[(u64, u64, Option<u64>)]| {
        let list = progress(changes);
        let this = ReplicaId(leader);
        best_successor(this, &voters, list.into_iter(), Tick(10_000), 1_000).map(|it| it.0)
    };
    assert_eq!(best(&[(a, 10, Some(9_500)), (b, 9, Some(9_999))]), Some(a), "it holds more");
    assert_eq!(best(&[(a, 9, Some(9_500)), (b, 9, Some(9_999))]), Some(b), "it spoke last");
    assert_eq!(best(&[(a, 90, Some(8_000)), (b, 1, Some(9_500))]), Some(b), "the other is silent");
    assert_eq!(best(&[(a, 90, None), (b, 90, Some(1))]), None, "nobody could take over");
}

#[test]
fn a_transfer_is_answered_when_the_other_leads() {
    let mut world = World::new(&[1, 2, 3]);
    for _ in 0..20 {
        let leader = world.elect();
        world.set("k");
        let to = world.other_than(leader);
        let asked = world.ask(leader, Access::Member, &format!("MEMBER TRANSFER {to}"));
        assert!(matches!(world.wait(asked), Reply::Int(_)));
        assert_eq!(world.replicas[&leader].status().leader, ReplicaId(to));
        world.run_until("it is ready", |world| world.leader() == Some(to));
    }
}

#[test]
fn a_transfer_to_a_silent_node_is_given_up() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.elect();
    let to = world.other_than(leader);
    world.cut = vec![(leader.min(to), leader.max(to))];
    let asked = world.ask(leader, Access::Member, &format!("MEMBER TRANSFER {to}"));
    let reply = world.wait(asked);
    assert!(reply.is_uncertain(), "{reply:?}");
    world.cut.clear();
    world.set("k");
}

#[test]
fn a_restart_finds_the_members_of_today() {
    let mut world = World::new(&[1, 2, 3]);
    world.add(4);
    (0..300).for_each(|_| world.step());
    world.done("MEMBER PROMOTE 4");
    let leader = world.elect();
    let removed = (1..=3).find(|&node| node != leader).expect("another");
    world.done(&format!("MEMBER REMOVE {removed}"));
    world.set("k");
    world.caught_up(4);
    let state = world.replicas[&leader].state().clone();
    for node in [leader, 4] {
        let first: &[u64] = if node == 4 { &[] } else { &[1, 2, 3] };
        world.replicas.remove(&node);
        world.start(node, first);
        world.elect();
        world.set("k");
        world.caught_up(node);
        assert_eq!(world.replicas[&node].state(), &state, "node {node}");
    }
}

#[test]
fn contract_row_64_too_few_would_answer() {
    let mut world = World::new(&[1, 2, 3]);
    let leader = world.elect();
    world.set("k");
    let others: Vec<u64> = (1..=3).filter(|&node| node != leader).collect();
    let (dead, alive) = (others[0], others[1]);
    world.replicas.remove(&dead);
    (0..2_000).for_each(|_| world.step());
    world.refused(&format!("MEMBER REMOVE {alive}"), "would have answer");
    world.done(&format!("MEMBER REMOVE {dead}"));
    world.set("k2");
}
