//! Clients call, wait, hear or give up, and their story goes into the history.

use bytes::BytesMut;

use crate::id::ConnId;
use crate::shard::event::Request;
use crate::wire::reply::{Protocol, Reply};

use super::history::Act;
use super::safety::Checked;
use super::workload::{self, Call, Heard};
use super::world::{ForNode, Happening, World};

/// One client.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    /// The node it talks to for now.
    home: usize,
}

/// A command on its way, or being worked on.
#[derive(Debug)]
pub(super) struct Waiting {
    client: usize,
    /// Where it was sent.
    pub(super) node: usize,
    /// Its places in the history, and what it does to each key.
    places: Vec<(usize, usize)>,
    acts: Vec<Act>,
}

impl World {
    /// A client thinks of something, and calls the node it likes.
    pub(super) fn on_call(&mut self, client: usize) {
        if !self.is_chaos {
            return;
        }
        if self.rng.u32(..6) == 0 {
            self.clients[client].home = self.rng.usize(..self.nodes.len());
        }
        let node = self.clients[client].home;
        if !self.nodes[node].is_up() {
            // Connection refused.
            self.clients[client].home = self.rng.usize(..self.nodes.len());
            return self.think(client);
        }
        // Readers stay with a node that leads alone, where writers would wait for ever: a read
        // answered from the past is found by them.
        let call = self.workload.next(client % 3 == 2, &mut self.rng);
        self.call(client, node, call);
    }

    fn think(&mut self, client: usize) {
        let delay = self.rng.u64(1..=self.options.think_us);
        self.after(delay, Happening::Call { client });
    }

    /// Sends a command to a running node, over a connection of its own.
    pub(super) fn call(&mut self, client: usize, node: usize, call: Call) -> u64 {
        self.calls += 1;
        let id = self.calls;
        let Call { command, acts } = call;
        let core = self.rng.usize(..self.nodes[node].cores.len());
        let hash = crc32fast::hash(&command.raw).into();
        self.note(&[17, id, client as u64, node as u64, core as u64, hash], || {
            let text = String::from_utf8_lossy(&command.raw).replace("\r\n", " ");
            format!("client {client} calls node {node} core {core}, call {id}: {text}")
        });
        let now = self.now;
        let places =
            acts.iter().map(|(key, act)| self.history.call(*key, client, act.clone(), now));
        let places = places.collect();
        let acts = acts.into_iter().map(|(_, act)| act).collect();
        self.waiting.insert(id, Waiting { client, node, places, acts });
        let request = Request { conn: ConnId(id), seq: 0, command, after_writes: false };
        let delay = self.rng.u64(50..500);
        self.after_for(delay, node, ForNode::Request { core, request });
        let patience = 3_000 * self.options.request_ms;
        self.after(patience, Happening::Closed { call: id });
        id
    }

    pub(super) fn on_reply(&mut self, call: u64, reply: &Reply) -> Checked {
        let mut encoded = BytesMut::new();
        reply.encode(Protocol::Resp3, &mut encoded);
        self.note(&[18, call, crc32fast::hash(&encoded).into()], || {
            let text = String::from_utf8_lossy(&encoded).replace("\r\n", " ");
            format!("call {call} hears {text}")
        });
        let Some(waiting) = self.waiting.remove(&call) else {
            // Its client gave up.
            return Ok(());
        };
        let now = self.now;
        match workload::hear(&waiting.acts, reply)? {
            Heard::Done(answers) => {
                self.outcome.acked += 1;
                if !self.is_chaos {
                    self.acked.insert(call);
                }
                for (&place, answer) in waiting.places.iter().zip(answers) {
                    self.history.answer(place, answer, now);
                }
            }
            Heard::NotExecuted => {
                self.outcome.refused += 1;
                self.clients[waiting.client].home = self.rng.usize(..self.nodes.len());
                waiting.places.iter().for_each(|&place| self.history.strike(place));
            }
            Heard::Unknown => self.on_unknown(&waiting),
        }
        self.think(waiting.client);
        Ok(())
    }

    /// A call that will not be answered any more.
    pub(super) fn on_closed(&mut self, call: u64) {
        if let Some(waiting) = self.waiting.remove(&call) {
            self.note(&[19, call], || format!("call {call} is closed without an answer"));
            self.on_unknown(&waiting);
            self.think(waiting.client);
        }
    }

    fn on_unknown(&mut self, waiting: &Waiting) {
        self.outcome.unknown += 1;
        for ((key, _), act) in waiting.places.iter().zip(&waiting.acts) {
            if *act != Act::Get {
                self.workload.on_unknown(*key);
            }
        }
        self.history.grow(self.workload.keys());
    }
}
