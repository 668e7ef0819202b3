//! An embedder's machine in a world: clients that send it commands of their own making, and the end of
//! the world as [`embed`](super::embed) promises it.
//!
//! Commands go to a replica the way a sibling core sends them, as [`GroupCommand`]s; the driver takes
//! the answers out of the mailbox again. So they are forwarded, retried and deduplicated like any other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

use crate::entry::checksum;
use crate::group::{GroupCommand, PartId, Replica, SessionRequest};
use crate::id::{GroupId, Index, NodeId, ReplicaId, SessionId};
use crate::shard::event::Post;
use crate::shard::stages::Arrival;
use crate::store::StateMachine;
use crate::store::command::Access;
use crate::store::connection::Manner;
use crate::wire::reply::Reply;

use super::clients::{What, is_reader};
use super::embed::Check;
use super::finish::Trouble;
use super::ledger::{Ledger, watched};
use super::safety::Checked;
use super::world::{ForNode, Happening, World};

/// Marks the parts whose answers are for clients of an embedder.
const EMBEDDED: u64 = 1 << 63;
/// Chunks of a machine that is frozen and restored, in bytes: odd, to cut where nobody expects it.
const CHUNK_BYTES: usize = 7;

/// What a world knows of the embedder's machine.
pub(super) struct Embedded {
    check: Check,
    pub(super) ledger: Rc<RefCell<Ledger>>,
    /// Up to where each replica had applied when it was last looked at.
    seen: BTreeMap<(ReplicaId, GroupId), Index>,
    callers: BTreeMap<usize, Caller>,
    /// Numbers given out: to commands and to sessions.
    numbers: u64,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("numbers", &self.numbers).finish_non_exhaustive()
    }
}

/// A client that writes in sessions.
#[derive(Default)]
struct Caller {
    /// Its session in each group, and the last number it gave to a request there.
    sessions: BTreeMap<GroupId, (SessionId, u64)>,
    outstanding: Option<Outstanding>,
}

/// A command whose result its client does not know.
#[derive(Clone)]
struct Outstanding {
    number: u64,
    command: GroupCommand,
    attempts: u32,
}

/// What a client of an embedder waits to hear.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// That its session in a group is open.
    Open(GroupId, SessionId),
    /// The result of an attempt at a command.
    Attempt(u64),
    /// The result of a command that is sent once.
    Once(u64),
    /// The answer to a read.
    Read(usize),
}

impl Embedded {
    pub(super) fn new(check: &Check) -> Self {
        Self {
            check: check.clone(),
            ledger: Rc::default(),
            seen: BTreeMap::new(),
            callers: BTreeMap::new(),
            numbers: 0,
        }
    }

    /// The machine of a replica that starts: an empty one, unless it has storage of its own.
    pub(super) fn machine(&self, node: NodeId, group: GroupId) -> Box<dyn StateMachine> {
        let machine = match &self.check.opens {
            Some(opens) => opens(node, group),
            None => (self.check.machines)(),
        };
        watched(group, machine, &self.ledger)
    }

    /// Looks at a replica.
    pub(super) fn look(&mut self, id: ReplicaId, replica: &Replica) -> Checked {
        self.ledger.borrow().check()?;
        let (group, applied) = (replica.group(), replica.status().applied);
        if replica.is_gone() || self.seen.insert((id, group), applied) == Some(applied) {
            return Ok(());
        }
        if Some(applied) < replica.machine().durable() {
            // It has executed more in an earlier life, and is being given that again.
            return Ok(());
        }
        self.ledger.borrow_mut().on_seen(group, applied, replica.machine().digest())
    }

    pub(super) fn on_crash(&mut self, id: ReplicaId) {
        self.seen.retain(|&(of, _), _| of != id);
    }
}

/// A command for `group` and nobody's session.
fn command(group: GroupId, access: Access, body: Bytes) -> GroupCommand {
    GroupCommand {
        group,
        access,
        after_writes: false,
        manner: Manner::default(),
        session: None,
        body,
    }
}

impl World {
    fn embedded(&mut self) -> &mut Embedded {
        self.embedded.as_mut().expect("asked only in worlds of an embedder")
    }

    fn next_number(&mut self) -> u64 {
        self.embedded().numbers += 1;
        self.embedded().numbers
    }

    /// A new command of the embedder, under a number of its own.
    fn new_write(&mut self, group: GroupId) -> (u64, GroupCommand) {
        let (number, now) = (self.next_number(), self.now);
        let writes = Rc::clone(&self.embedded().check.writes);
        let mut body = number.to_le_bytes().to_vec();
        body.extend(writes(&mut self.rng));
        self.embedded().ledger.borrow_mut().on_write(number, group, now);
        (number, command(group, Access::Write, body.into()))
    }

    /// A client of an embedder thinks of something.
    pub(super) fn call_embedded(&mut self, client: usize, node: usize) {
        let in_session = self.clients[client].in_session.is_some();
        if in_session && self.embedded().callers.entry(client).or_default().outstanding.is_some() {
            return self.attempt_embedded(client, node);
        }
        let group = GroupId(self.rng.u64(..self.options.groups));
        let has_reads = self.embedded().check.reads.is_some();
        if has_reads && (is_reader(client, &self.options) || self.rng.u32(..3) == 0) {
            self.read_embedded(client, node, group);
        } else if !in_session {
            self.write_once(client, node, group);
        } else {
            self.write_in_session(client, node, group);
        }
    }

    fn read_embedded(&mut self, client: usize, node: usize, group: GroupId) -> Option<u64> {
        let reads = self.embedded().check.reads.clone()?;
        let (now, nearby) = (self.now, self.options.reads_nearby && self.rng.bool());
        let body: Bytes = reads(&mut self.rng).into();
        let place = self.embedded().ledger.borrow_mut().on_read(group, body.clone(), now);
        let manner = Manner { nearby, ..Manner::default() };
        let read = GroupCommand { manner, ..command(group, Access::Read, body) };
        Some(self.send_embedded(client, node, read, Expected::Read(place)))
    }

    fn write_once(&mut self, client: usize, node: usize, group: GroupId) -> u64 {
        let (number, write) = self.new_write(group);
        self.send_embedded(client, node, write, Expected::Once(number))
    }

    fn write_in_session(&mut self, client: usize, node: usize, group: GroupId) {
        let step = self.rng.u64(1..=3);
        let caller = self.embedded().callers.entry(client).or_default();
        let Some((id, seq)) = caller.sessions.get_mut(&group) else {
            let id = SessionId(self.next_number());
            let session = Some(SessionRequest::Open(id));
            let open = GroupCommand { session, ..command(group, Access::Write, Bytes::new()) };
            self.send_embedded(client, node, open, Expected::Open(group, id));
            return;
        };
        *seq += step;
        let session = Some(SessionRequest::Run { id: *id, seq: *seq });
        let (number, write) = self.new_write(group);
        let command = GroupCommand { session, ..write };
        let caller = self.embedded().callers.entry(client).or_default();
        caller.outstanding = Some(Outstanding { number, command, attempts: 0 });
        self.attempt_embedded(client, node);
    }

    fn attempt_embedded(&mut self, client: usize, node: usize) {
        let caller = self.embedded().callers.entry(client).or_default();
        let Some(outstanding) = &mut caller.outstanding else { return };
        outstanding.attempts += 1;
        let (number, command) = (outstanding.number, outstanding.command.clone());
        self.send_embedded(client, node, command, Expected::Attempt(number));
    }

    fn send_embedded(
        &mut self,
        client: usize,
        node: usize,
        command: GroupCommand,
        expected: Expected,
    ) -> u64 {
        let core = (command.group.0 % self.nodes[node].cores.len() as u64) as usize;
        let id = self.wait_for(client, node, What::Embedded(expected));
        let (group, hash) = (command.group.0, checksum(&command.body).into());
        self.note(&[23, id, client as u64, node as u64, group, hash], || {
            format!("client {client} asks node {node} group {group}, call {id}: {expected:?}")
        });
        let part = PartId { request: EMBEDDED | id, part: 0 };
        let post = Post::Command {
            from: Self::shard_id(core),
            part,
            arrival: Arrival::default(),
            command,
        };
        let delay = self.rng.u64(50..500);
        self.after_for(delay, node, ForNode::Post { core, post });
        // Some hang up soon, while the node still works for them.
        let most = 3_000 * self.options.request_ms;
        let patience = if self.rng.u32(..4) == 0 { self.rng.u64(500..most / 10) } else { most };
        self.after(patience, Happening::Closed { call: id });
        id
    }

    /// The call of an embedder's client that a post answers, if it does.
    pub(super) fn answers_embedded(post: &Post) -> Option<(u64, Reply)> {
        match post {
            Post::Answer { part, reply } if part.request & EMBEDDED != 0 => {
                Some((part.request & !EMBEDDED, reply.clone()))
            }
            _ => None,
        }
    }

    /// A client of an embedder hears something, or that its connection was closed.
    pub(super) fn on_embedded(
        &mut self,
        client: usize,
        call: u64,
        expected: Expected,
        reply: Option<&Reply>,
    ) -> Checked {
        let now = self.now;
        if reply.is_none_or(Reply::is_error) {
            self.clients[client].home = self.any_node();
        }
        match (expected, reply) {
            (Expected::Open(group, id), Some(Reply::Ok)) => {
                let caller = self.embedded().callers.entry(client).or_default();
                caller.sessions.insert(group, (id, 0));
            }
            (Expected::Open(..), _) => {}
            (Expected::Read(place), Some(reply)) if !reply.is_error() => {
                self.embedded().ledger.borrow_mut().on_read_answered(place, reply, now);
                self.on_embedded_done(call);
            }
            (Expected::Read(_), _) => {}
            (Expected::Once(number), Some(reply)) => {
                if self.is_result(number, reply)? {
                    self.on_embedded_done(call);
                    self.on_embedded_answer(number, reply, false);
                } else if !reply.is_uncertain() {
                    self.outcome.refused += 1;
                    self.on_embedded_answer(number, reply, true);
                }
            }
            (Expected::Once(_), None) => self.outcome.unknown += 1,
            (Expected::Attempt(number), reply) => {
                return self.on_attempt_embedded(client, call, number, reply);
            }
        }
        Ok(())
    }

    fn on_attempt_embedded(
        &mut self,
        client: usize,
        call: u64,
        number: u64,
        reply: Option<&Reply>,
    ) -> Checked {
        let Some(reply) = reply else { return Ok(()) };
        let is_result = self.is_result(number, reply)?;
        let caller = self.embedded().callers.entry(client).or_default();
        let Some(outstanding) = caller.outstanding.take_if(|it| it.number == number) else {
            // Another attempt was answered before.
            return Ok(());
        };
        let text = reply.error_text();
        if is_result {
            self.outcome.retried += u64::from(outstanding.attempts > 1);
            self.on_embedded_answer(number, reply, false);
            self.on_embedded_done(call);
        } else if text.contains("NOSESSION") {
            // Whether it was executed before the session was lost, nobody can tell.
            caller.sessions.remove(&outstanding.command.group);
            self.outcome.unknown += 1;
        } else if text.contains("numbers must ascend") {
            return Err(format!("client {client} never went past command {number}: {text}"));
        } else {
            caller.outstanding = Some(outstanding);
        }
        Ok(())
    }

    /// Whether this is what a machine replied to a command. A refusal is not.
    fn is_result(&mut self, number: u64, reply: &Reply) -> Result<bool, String> {
        let is_result = self.embedded().ledger.borrow().is_result(number, reply);
        if is_result || reply.is_error() {
            return Ok(is_result);
        }
        Err(format!("command {number} is answered {reply:?}, which no machine has replied to it"))
    }

    fn on_embedded_answer(&mut self, number: u64, reply: &Reply, refused: bool) {
        let now = self.now;
        self.embedded().ledger.borrow_mut().on_answered(number, reply, refused, now);
    }

    fn on_embedded_done(&mut self, call: u64) {
        self.outcome.acked += 1;
        if !self.is_chaos {
            self.acked.insert(call);
        }
    }

    /// Faults have stopped: everything is answered, everywhere the same, and explained.
    pub(super) fn finish_embedded(&mut self) -> Checked {
        self.works_but_for_halted(Self::everything_embedded_works)?;
        self.machines_survive_a_snapshot()?;
        self.embedded().ledger.borrow().check()?;
        let machines = Rc::clone(&self.embedded().check.machines);
        self.embedded().ledger.borrow().explain(&machines)?;
        Ok(())
    }

    fn everything_embedded_works(&mut self) -> Result<(), Trouble> {
        for group in self.groups_that_go_on() {
            self.until_answered("commits nothing", group, |world, node| {
                Some(world.write_once(0, node, group))
            })?;
        }
        self.until_replaced()?;
        self.until_sessions_end()?;
        for group in self.groups_that_go_on() {
            for node in self.nodes_there() {
                if self.embedded().check.reads.is_some() && self.is_member(group, node) {
                    self.until_answered("cannot be read", group, |world, any| {
                        // A removal may have been applied only now.
                        let reads = any == node || !world.is_member(group, node);
                        if reads { world.read_embedded(0, any, group) } else { None }
                    })?;
                }
            }
        }
        self.replicas_agree()?;
        Ok(self.calm_stays_calm()?)
    }

    /// Sends through every node, again and again, until something is answered.
    fn until_answered(
        &mut self,
        fails: &str,
        group: GroupId,
        send: impl Fn(&mut Self, usize) -> Option<u64>,
    ) -> Result<(), Trouble> {
        let (began, step) = (self.now, self.options.election_ms * 1_000 / 4);
        let mut calls = Vec::new();
        loop {
            for node in self.nodes_there() {
                calls.extend(send(self, node));
            }
            self.run_until(self.now + step)?;
            if calls.iter().any(|call| self.acked.contains(call)) {
                return Ok(());
            }
            if self.now - began > self.heal_elections() * self.options.election_ms * 1_000 {
                let why = format!("liveness: group {group} {fails} after the faults stopped");
                return Err(Trouble { why, groups: vec![group] });
            }
        }
    }

    fn until_sessions_end(&mut self) -> Result<(), Trouble> {
        let (began, step) = (self.now, self.options.election_ms * 1_000 / 4);
        loop {
            let callers = self.embedded().callers.iter();
            let open = callers.filter_map(|(&client, caller)| {
                Some((client, caller.outstanding.as_ref()?.command.group))
            });
            let mut open: Vec<(usize, GroupId)> = open.collect();
            open.retain(|(_, group)| !self.halted.contains(group));
            if open.is_empty() {
                return Ok(());
            }
            if self.now - began > self.heal_elections() * self.options.election_ms * 1_000 {
                let why = format!("liveness: commands of (client, group) {open:?} get no answer");
                let groups = open.into_iter().map(|(_, group)| group).collect();
                return Err(Trouble { why, groups });
            }
            for (client, _) in open {
                // The first node belongs to every group.
                let any = self.any_node();
                let node = if self.rng.bool() { 0 } else { any };
                self.attempt_embedded(client, node);
            }
            self.run_until(self.now + step)?;
        }
    }

    /// Every machine is frozen, cut into pieces and put together again, and is the same.
    fn machines_survive_a_snapshot(&self) -> Checked {
        for replica in self.replicas() {
            let machine = replica.machine();
            let (mut frozen, mut restoring) = (machine.freeze(), machine.restoring());
            let failed = |error| format!("snapshot: group {}: {error}", replica.group());
            while let Some(chunk) = frozen.next_chunk(CHUNK_BYTES) {
                restoring.chunk(&chunk).map_err(failed)?;
            }
            let restored = restoring.finish().map_err(failed)?.digest();
            if restored != machine.digest() {
                return Err(format!(
                    "snapshot: group {}: a machine with digest {:016x} is restored to one with {restored:016x}",
                    replica.group(),
                    machine.digest()
                ));
            }
        }
        Ok(())
    }
}
