//! Receiving from peers: connections they dialed, used in one direction only.
//!
//! ```text
//!   core 0 accepts ── hello checked ─┬─ known ──────── answered ──► the peer's core modulo ours
//!      │ 2 s                         │                    ▲              │ Event::Frame …
//!      │                             └─ new: written ─────┘              │ anything wrong
//!      └── close ◄──────────────────────────────────────────────────────┘ closes that connection
//! ```
//!
//! Who is greeted: the nodes that some group names; a node that another directory of the cluster
//! has proven, because it may have been added while this node was away (contract row 47); anybody of
//! the cluster while this node belongs to nothing. A node that is seen for the first time is written
//! down before it is answered ([`crate::wire::hello`]).
//!
//! Core 0 reads the hello because only the hello says which core of the peer sends, and so which
//! core of ours should receive: with equal numbers of cores every frame arrives where its groups
//! live. It also remembers the latest start of every peer, so that a process which was superseded
//! cannot come back.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};

use crate::id::{Incarnation, NodeId, ShardId, Tick};
use crate::limits::PEER_SILENCE_MS_MAX;
use crate::shard::Event;
use crate::wire::{Content, Expected, FrameReader, Hello, HelloError};

use super::clock::HELLO_MS;
use super::doorkeeper::PeerDoorkeeper;
use super::identity::{Fact, Known};
use super::keyring::Keyring;
use super::peer_stream::PeerStream;
use super::poller::{Interest, Poller, Token};
use super::roster::Roster;
use super::slots::Slots;
use super::socket;

/// Handshakes under way at once; one more is closed. A cluster of the largest size, dialing at
/// once from a few cores each, fits.
const GREETINGS_MAX: usize = 256;
/// Receives from one connection in one turn, so that one busy peer does not hold up the rest.
const RECEIVES_MAX: usize = 4;
/// How often it is looked at who is connected, in ms.
const HEARD_MS: u64 = 1000;

/// A connection whose hello has been accepted, on its way to the core that will receive from it.
#[derive(Debug)]
pub struct Greeted {
    /// The connection.
    pub stream: PeerStream,
    /// What has been received after the hello.
    pub reader: FrameReader,
    /// The peer.
    pub node: NodeId,
    /// Its core.
    pub shard: ShardId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Something has come over it since that was last looked at.
    pub heard: bool,
    /// When it was last looked at and something had come.
    pub heard_at: Tick,
}

/// The receiving side of one core.
#[derive(Debug)]
pub struct PeerPort {
    this: Arc<Roster>,
    shard: ShardId,
    /// What peers are met with; in the clear without it.
    keyring: Option<Arc<Keyring>>,
    /// Only core 0 has it.
    listener: Option<TcpListener>,
    greetings: Slots<Greeting>,
    streams: Slots<Greeted>,
    /// The latest start of every peer that was greeted here.
    seen: BTreeMap<NodeId, Incarnation>,
    /// Only core 0 has it.
    memory: Option<Memory>,
    heard_at: Tick,
    doorkeeper: PeerDoorkeeper,
    /// Frames refused since the last look.
    rejected: u64,
    /// Connections closed for their silence since the last look.
    silent: u64,
}

/// What is remembered of the nodes that were ever greeted, and who writes it down.
#[derive(Debug)]
pub struct Memory {
    /// What is durable.
    pub known: BTreeMap<NodeId, Known>,
    /// Takes what is to become durable.
    pub keeper: mpsc::Sender<Fact>,
}

#[derive(Debug)]
struct Greeting {
    stream: PeerStream,
    address: SocketAddr,
    reader: FrameReader,
    until: Tick,
    /// The hello, which is answered once its sender is written down.
    writing: Option<Hello>,
}

/// What to do about a hello that is in order.
enum Judged {
    Answer,
    /// Write this down, then answer.
    Write(Known),
    /// Its id is known from another directory.
    Stranger,
}

/// Keys of greetings and of streams share the token space: the lowest bit tells them apart.
const GREETING: u64 = 1;

impl PeerPort {
    /// The receiving side of core `shard`; with a listener and a memory for core 0.
    ///
    /// # Errors
    /// When the listener cannot be watched.
    pub fn new(
        this: Arc<Roster>,
        shard: ShardId,
        listener: Option<TcpListener>,
        memory: Option<Memory>,
        poller: &Poller,
    ) -> io::Result<Self> {
        if let Some(listener) = &listener {
            poller.add(listener, Token::PeerPort.into(), Interest::READ)?;
        }
        Ok(Self {
            this,
            shard,
            keyring: None,
            listener,
            greetings: Slots::default(),
            streams: Slots::default(),
            seen: BTreeMap::new(),
            memory,
            heard_at: Tick(0),
            doorkeeper: PeerDoorkeeper::default(),
            rejected: 0,
            silent: 0,
        })
    }

    /// Meet peers with these keys.
    #[must_use]
    pub fn with_keyring(self, keyring: Arc<Keyring>) -> Self {
        Self { keyring: Some(keyring), ..self }
    }

    /// Peers are waiting to be accepted.
    pub fn accept(&mut self, now: Tick, poller: &Poller) {
        let Some(listener) = &self.listener else { return };
        loop {
            let (socket, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer");
                    return;
                }
            };
            if GREETINGS_MAX <= self.greetings.count() {
                self.doorkeeper.note(address, "too many peers are shaking hands".into(), now);
                continue;
            }
            let keys = self.keyring.as_ref().and_then(|keyring| keyring.keys().peers);
            let stream = match PeerStream::accept(socket, keys.as_ref()) {
                Ok(stream) => stream,
                Err(error) => {
                    self.doorkeeper.note(address, format!("it failed at once: {error}"), now);
                    continue;
                }
            };
            let until = now.plus(HELLO_MS);
            let greetings = &mut self.greetings;
            let key = greetings.insert(|_| Greeting {
                stream,
                address,
                reader: FrameReader::new(),
                until,
                writing: None,
            });
            let greeting = greetings.get_mut(key).expect("inserted above");
            let token = Token::Peer(key << 1 | GREETING).into();
            let socket = greeting.stream.socket();
            let watched = socket::prepare_peer(socket)
                .and_then(|()| poller.add(socket, token, Interest::READ));
            if let Err(error) = watched {
                greetings.remove(key);
                self.doorkeeper.note(address, format!("it failed at once: {error}"), now);
            }
        }
    }

    /// A peer's connection has something for us. Frames become events; a finished handshake is
    /// returned with the core that it belongs to.
    pub fn on_ready(
        &mut self,
        key: u64,
        now: Tick,
        poller: &Poller,
        events: &mut Vec<Event>,
    ) -> Option<(ShardId, Greeted)> {
        if key & 1 == GREETING {
            self.greet(key >> 1, now, poller)
        } else {
            self.receive(key >> 1, events);
            None
        }
    }

    /// Take over a connection that core 0 has greeted. One that it replaces is closed first, so
    /// that nothing old arrives after something new.
    pub fn adopt(&mut self, greeted: Greeted, poller: &Poller, events: &mut Vec<Event>) {
        let replaced = self.streams.keys(|stream| {
            stream.node == greeted.node
                && (stream.shard == greeted.shard || stream.incarnation < greeted.incarnation)
        });
        for key in replaced {
            self.streams.remove(key);
        }
        let node = greeted.node;
        let key = self.streams.insert(|_| greeted);
        let stream = self.streams.get_mut(key).expect("inserted above");
        match poller.add(stream.stream.socket(), Token::Peer(key << 1).into(), Interest::READ) {
            // What came right behind the hello would otherwise wait for more to come.
            Ok(()) => {
                let holds_more = stream.stream.holds_more();
                self.take_frames(key, events);
                if holds_more {
                    self.receive(key, events);
                }
            }
            Err(error) => {
                tracing::warn!(peer = node.0, %error, "cannot watch a peer's connection");
                self.streams.remove(key);
            }
        }
    }

    /// Time has passed: close handshakes that take too long, and say who is still connected.
    pub fn tick(&mut self, now: Tick) {
        self.doorkeeper.tell(now);
        if HEARD_MS <= now.since(self.heard_at) {
            self.heard_at = now;
            let mut nodes = Vec::new();
            self.streams.each(|stream| nodes.push(stream.node));
            self.this.keep_heard(nodes.into_iter(), now);
            self.close_silent(now);
        }
        if self.greetings.count() == 0 {
            return;
        }
        for key in self.greetings.keys(|greeting| greeting.until <= now) {
            if let Some(greeting) = self.greetings.remove(key) {
                let reason = format!("no hello within {HELLO_MS} ms");
                self.doorkeeper.note(greeting.address, reason, now);
            }
        }
    }

    /// Peers say something every second (contract row 51): one that says nothing is frozen, or its
    /// connection is dead in a way that neither kernel has noticed.
    fn close_silent(&mut self, now: Tick) {
        for key in self.streams.keys(|stream| stream.heard) {
            if let Some(stream) = self.streams.get_mut(key) {
                (stream.heard, stream.heard_at) = (false, now);
            }
        }
        let silent = self.streams.keys(|stream| PEER_SILENCE_MS_MAX <= now.since(stream.heard_at));
        for key in silent {
            if let Some(stream) = self.streams.remove(key) {
                self.silent += 1;
                tracing::warn!(
                    peer = stream.node.0,
                    core = self.shard.0,
                    "nothing came from this peer for {} s; its connection is closed",
                    PEER_SILENCE_MS_MAX / 1000,
                );
            }
        }
    }

    /// Have a fact made durable. False if this core has nobody to do so.
    pub fn keep(&self, fact: Fact) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.keeper.send(fact).is_ok())
    }

    /// A node is written down: whoever waited for that is answered. Returns the connections, each
    /// with the core that it belongs to.
    pub fn on_known(
        &mut self,
        node: NodeId,
        known: Known,
        now: Tick,
        poller: &Poller,
    ) -> Vec<(ShardId, Greeted)> {
        if let Some(memory) = &mut self.memory {
            memory.known.insert(node, known);
        }
        let waits = |greeting: &Greeting| {
            greeting.writing.is_some_and(|hello| hello.node == node && hello.birth == known.birth)
        };
        let keys = self.greetings.keys(waits);
        keys.into_iter().filter_map(|key| self.answer(key, now, poller, false)).collect()
    }

    /// Connections closed for their silence since the last call.
    pub fn take_silent(&mut self) -> u64 {
        std::mem::take(&mut self.silent)
    }

    /// Connections refused since the last call.
    pub fn take_refused(&mut self) -> u64 {
        self.doorkeeper.take_refused()
    }

    /// Frames refused since the last call.
    pub fn take_rejected(&mut self) -> u64 {
        std::mem::take(&mut self.rejected)
    }

    /// The node stops: close everything.
    pub fn close(&mut self) {
        self.listener = None;
        self.greetings = Slots::default();
        self.streams = Slots::default();
    }

    fn greet(&mut self, key: u64, now: Tick, poller: &Poller) -> Option<(ShardId, Greeted)> {
        let greeting = self.greetings.get_mut(key)?;
        if greeting.writing.is_some() {
            // It speaks, or hangs up, before it was answered: either way that is seen later.
            return None;
        }
        let hello = match read_hello(greeting) {
            Ok(None) => return None,
            Ok(Some(hello)) => hello,
            Err(reason) => return self.refuse(key, reason, now),
        };
        match self.judge(&hello) {
            Ok(judged) => {
                self.greetings.get_mut(key)?.writing = Some(hello);
                match judged {
                    Judged::Answer => self.answer(key, now, poller, false),
                    Judged::Stranger => self.answer(key, now, poller, true),
                    Judged::Write(known) => {
                        let memory = self.memory.as_ref()?;
                        // If the keeper is gone, the node is about to say why.
                        let _ = memory.keeper.send(Fact::Known(hello.node, known));
                        None
                    }
                }
            }
            Err(reason) => self.refuse(key, reason, now),
        }
    }

    fn refuse(&mut self, key: u64, reason: String, now: Tick) -> Option<(ShardId, Greeted)> {
        let greeting = self.greetings.remove(key)?;
        self.rejected += 1;
        self.doorkeeper.note(greeting.address, reason, now);
        None
    }

    /// Says hello to a peer whose hello is in order; to a stranger, and to nobody else, that it is one.
    fn answer(
        &mut self,
        key: u64,
        now: Tick,
        poller: &Poller,
        is_stranger: bool,
    ) -> Option<(ShardId, Greeted)> {
        let greeting = self.greetings.get_mut(key)?;
        let hello = greeting.writing?;
        let answer = self.this.hello(hello.node, self.shard, hello.lane);
        let answer = Hello { is_stranger, ..answer }.encode();
        let sent = poller
            .remove(greeting.stream.socket())
            .and_then(|()| greeting.stream.send_all(&answer));
        if let Err(error) = sent {
            return self.refuse(key, error.to_string(), now);
        }
        if is_stranger {
            let node = hello.node;
            return self.refuse(
                key,
                format!(
                    "node {node} has been in the cluster with another directory, which it has lost: \
                     it must come back under a new --id"
                ),
                now,
            );
        }
        let Greeting { stream, mut reader, .. } = self.greetings.remove(key)?;
        self.seen.insert(hello.node, hello.incarnation);
        if let Some(address) = hello.address {
            self.this.heard(hello.node, address, now);
        }
        self.this.on_client_address(hello.node, hello.client);
        reader.expect(hello.expect());
        let core = ShardId(hello.shard.0 % self.this.cores);
        let Hello { node, shard, incarnation, .. } = hello;
        Some((
            core,
            Greeted { stream, reader, node, shard, incarnation, heard: true, heard_at: now },
        ))
    }

    fn judge(&self, hello: &Hello) -> Result<Judged, String> {
        let mut nodes = self.this.known();
        if hello.proven || self.this.is_blank() {
            nodes.push(hello.node);
        }
        let expected = Expected {
            cluster: self.this.cluster,
            this: self.this.node,
            nodes: &nodes,
            incarnation: self.seen.get(&hello.node).copied().unwrap_or_default(),
            groups: self.this.groups,
            origin: self.this.origin,
        };
        hello.check(&expected).map_err(|error: HelloError| error.to_string())?;
        let told = Known { birth: hello.birth, proven: hello.proven };
        let memory = self.memory.as_ref().ok_or("this core has no memory of peers")?;
        Ok(match memory.known.get(&hello.node) {
            Some(known) if known.birth == told.birth && known.proven >= told.proven => {
                Judged::Answer
            }
            // Whoever is proven was written down by enough others; an entry that is not proven was
            // made by somebody who then never came to take part.
            Some(known) if known.birth != told.birth && (known.proven || !told.proven) => {
                Judged::Stranger
            }
            _ => Judged::Write(told),
        })
    }

    fn receive(&mut self, key: u64, events: &mut Vec<Event>) {
        for number in 0.. {
            let Some(stream) = self.streams.get_mut(key) else { return };
            // What TLS has opened already is no socket's to report.
            if RECEIVES_MAX <= number && !stream.stream.holds_more() {
                return;
            }
            let space = stream.reader.space();
            let room = space.len();
            match stream.stream.receive(space) {
                Ok(None) => return,
                Ok(Some(0)) => {
                    // The dialer reports broken links; a clean end is no news here.
                    self.streams.remove(key);
                    return;
                }
                Ok(Some(bytes)) => {
                    stream.reader.filled(bytes);
                    stream.heard = true;
                    self.take_frames(key, events);
                    if bytes < room {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(peer = stream.node.0, %error, "a peer's connection broke");
                    self.streams.remove(key);
                    return;
                }
            }
        }
    }

    /// Turn what has been received into events; close the connection at the first thing wrong.
    fn take_frames(&mut self, key: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let reason = loop {
            match stream.reader.next() {
                Ok(None) => return,
                Ok(Some(frame)) if frame.header.content == Content::Hello => {
                    break "a second hello".to_owned();
                }
                Ok(Some(frame)) => events.push(Event::Frame(frame)),
                Err(error) => break error.to_string(),
            }
        };
        self.rejected += 1;
        tracing::warn!(
            peer = stream.node.0,
            core = self.shard.0,
            reason,
            "frame refused, connection closed",
        );
        self.streams.remove(key);
    }
}

/// The hello, once it is whole.
fn read_hello(greeting: &mut Greeting) -> Result<Option<Hello>, String> {
    let received = greeting.stream.receive(greeting.reader.space());
    match received.map_err(|error| error.to_string())? {
        None => return Ok(None),
        Some(0) => return Err("it closed the connection before its hello".into()),
        Some(bytes) => greeting.reader.filled(bytes),
    }
    match greeting.reader.next().map_err(|error| error.to_string())? {
        None => Ok(None),
        Some(frame) => Hello::decode(&frame).map(Some).map_err(|error| error.to_string()),
    }
}
