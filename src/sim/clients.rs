//! Clients call, wait, hear or give up, and their story goes into the history.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::entry::checksum;
use crate::id::ConnId;
use crate::shard::event::Request;
use crate::store::connection::Manner;
use crate::wire::reply::{Protocol, Reply};
use crate::wire::resp::Command;

use super::embedded::Expected;
use super::history::Act;
use super::options::Options;
use super::safety::Checked;
use super::sessions::{Asked, InSession};
use super::workload::{self, Acts, Answers, Call, Heard};
use super::world::{ForNode, Happening, World};

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    /// The node it talks to for now.
    pub(super) home: usize,
    /// What it keeps to write in sessions, if that is its habit.
    pub(super) in_session: Option<InSession>,
}

impl Client {
    pub(super) fn new(client: usize, options: &Options) -> Self {
        let writes_in_session = client < options.session_clients && !is_reader(client, options);
        Self { home: 0, in_session: writes_in_session.then(InSession::default) }
    }
}

/// Readers stay with a node that leads alone, where writers would wait for ever: a read answered from
/// the past is found by them.
pub(super) fn is_reader(client: usize, options: &Options) -> bool {
    client % options.readers_one_in == options.readers_one_in - 1
}

/// What a command does.
#[derive(Debug)]
pub(super) struct Effects {
    /// Its places in the history,
    pub(super) places: SmallVec<[(usize, usize); 1]>,
    /// and what it does to the key of each.
    pub(super) acts: SmallVec<[Act; 1]>,
}

/// A command on its way, or being worked on.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) client: usize,
    /// Where it was sent.
    pub(super) node: usize,
    /// What is waited for.
    what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A command that is sent once.
    Once(Effects),
    /// Something about a session.
    Session(Asked),
    /// Something about members.
    Operator,
    /// Something an embedder's client asked for.
    Embedded(Expected),
}

/// Commands on their way, by the number of their call. Numbers ascend and calls end after a while, so those
/// that wait are a window: a place is found by counting.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Calls that are over and in front of the window.
    over: u64,
    window: VecDeque<Option<Waiting>>,
}

impl Calls {
    /// One more; its number, counted from one.
    fn push(&mut self, waiting: Waiting) -> u64 {
        self.window.push_back(Some(waiting));
        self.over + self.window.len() as u64
    }

    /// Call `call` is over; none if it was before.
    fn take(&mut self, call: u64) -> Option<Waiting> {
        let place = call.checked_sub(self.over + 1)?;
        let waiting = self.window.get_mut(place as usize)?.take();
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.over += 1;
        }
        waiting
    }

    /// Those that wait, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Waiting)> {
        let numbered = (self.over + 1..).zip(&self.window);
        numbered.filter_map(|(call, waiting)| Some((call, waiting.as_ref()?)))
    }
}

impl World {
    /// A client thinks of something, and calls the node it likes.
    pub(super) fn on_call(&mut self, client: usize) {
        if !self.is_chaos {
            return;
        }
        if self.rng.u32(..6) == 0 {
            self.clients[client].home = self.any_node();
        }
        let node = self.clients[client].home;
        if !self.nodes[node].is_up() {
            // Connection refused.
            self.clients[client].home = self.any_node();
            return self.think(client);
        }
        if self.embedded.is_some() {
            return self.call_embedded(client, node);
        }
        if self.clients[client].in_session.is_some() {
            return self.call_in_session(client, node);
        }
        let call =
            self.workload.next(client, is_reader(client, &self.options), self.now, &mut self.rng);
        self.call(client, node, call);
    }

    pub(super) fn think(&mut self, client: usize) {
        let delay = self.rng.u64(1..=self.options.think_us);
        self.after(delay, Happening::Call { client });
    }

    /// Sends a command to a running node, over a connection of its own.
    pub(super) fn call(&mut self, client: usize, node: usize, call: Call) -> u64 {
        let Call { command, acts } = call;
        let effects = self.note_call(client, acts);
        let patience = 3_000 * self.options.request_ms;
        self.send_command(client, node, command, What::Once(effects), patience)
    }

    /// What a client is about to ask goes into the history.
    pub(super) fn note_call(&mut self, client: usize, acts: Acts) -> Effects {
        let now = self.now;
        let places =
            acts.iter().map(|(key, act)| self.history.call(*key, client, act.clone(), now));
        Effects { places: places.collect(), acts: acts.into_iter().map(|(_, act)| act).collect() }
    }

    /// Sends a command; its client hangs up after `patience` microseconds.
    pub(super) fn send_command(
        &mut self,
        client: usize,
        node: usize,
        command: Command,
        what: What,
        patience: u64,
    ) -> u64 {
        let id = self.wait_for(client, node, what);
        let core = self.rng.usize(..self.nodes[node].cores.len());
        let hash = checksum(&command.raw).into();
        self.note(&[17, id, client as u64, node as u64, core as u64, hash], || {
            let text = String::from_utf8_lossy(&command.raw).replace("\r\n", " ");
            format!("client {client} calls node {node} core {core}, call {id}: {text}")
        });
        let nearby = self.options.reads_nearby && self.rng.bool();
        let manner = Manner { nearby, ..Manner::default() };
        let request = Request { conn: ConnId(id), seq: 0, command, after_writes: false, manner };
        let delay = self.rng.u64(50..500);
        self.after_for(delay, node, ForNode::Request { core, request });
        self.after(patience, Happening::Closed { call: id });
        id
    }

    /// A client waits for something from a node; the number of its call.
    pub(super) fn wait_for(&mut self, client: usize, node: usize, what: What) -> u64 {
        self.waiting.push(Waiting { client, node, what })
    }

    pub(super) fn on_reply(&mut self, call: u64, reply: &Reply) -> Checked {
        let mut encoded = std::mem::take(&mut self.heard);
        encoded.clear();
        reply.encode(Protocol::Resp3, &mut encoded);
        self.note(&[18, call, checksum(&encoded).into()], || {
            let text = String::from_utf8_lossy(&encoded).replace("\r\n", " ");
            format!("call {call} hears {text}")
        });
        self.heard = encoded;
        let Some(waiting) = self.waiting.take(call) else {
            // Its client gave up.
            return Ok(());
        };
        let Waiting { client, what, .. } = waiting;
        match what {
            What::Operator => {
                self.on_operated(Some(reply));
                return Ok(());
            }
            What::Embedded(expected) => self.on_embedded(client, call, expected, Some(reply))?,
            What::Session(asked) => self.on_session_reply(client, asked, Some(reply))?,
            What::Once(effects) => match workload::hear(&effects.acts, reply)? {
                Heard::Done(answers) => {
                    if !self.is_chaos {
                        self.acked.insert(call);
                    }
                    self.on_done(&effects, answers);
                }
                Heard::NotExecuted => self.on_not_executed(client, &effects),
                Heard::Unknown => self.on_unknown(&effects),
            },
        }
        self.think(client);
        Ok(())
    }

    pub(super) fn on_done(&mut self, effects: &Effects, answers: Answers) {
        self.outcome.acked += 1;
        let writes = effects.acts.iter().any(|act| *act != Act::Get);
        self.outcome.writes_acked += u64::from(writes);
        for (&place, answer) in effects.places.iter().zip(answers) {
            self.history.answer(place, answer, self.now);
        }
    }

    pub(super) fn on_not_executed(&mut self, client: usize, effects: &Effects) {
        self.outcome.refused += 1;
        self.clients[client].home = self.any_node();
        effects.places.iter().for_each(|&place| self.history.strike(place));
    }

    /// A call that will not be answered any more.
    pub(super) fn on_closed(&mut self, call: u64) -> Checked {
        if let Some(Waiting { client, what, .. }) = self.waiting.take(call) {
            self.note(&[19, call], || format!("call {call} is closed without an answer"));
            match what {
                What::Operator => {
                    self.on_operated(None);
                    return Ok(());
                }
                What::Once(effects) => self.on_unknown(&effects),
                What::Embedded(expected) => self.on_embedded(client, call, expected, None)?,
                What::Session(asked) => self.on_session_reply(client, asked, None)?,
            }
            self.think(client);
        }
        Ok(())
    }

    pub(super) fn on_unknown(&mut self, effects: &Effects) {
        self.outcome.unknown += 1;
        for ((key, _), act) in effects.places.iter().zip(&effects.acts) {
            if *act != Act::Get {
                self.workload.on_unknown(*key);
            }
        }
        self.history.grow(self.workload.keys());
    }
}
