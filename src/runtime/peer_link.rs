//! Sending to peers: one connection per peer node and core, dialed by the sender, used in one
//! direction only.
//!
//! ```text
//!          ┌──────────── retry_at ────────────┐
//!          ▼                                  │
//!        Idle ── dial ──► Connecting ── hello sent ──► Greeting ── hello checked ──► Up
//!          ▲                  │ 0.5 s             │ 2 s                              │
//!          └───── any error, any close: all queued frames are dropped ◄──────────────┘
//! ```
//!
//! Over TLS ([`super::peer_stream`]) the hello leaves behind the handshake, within the same 2 s.
//!
//! Links come and go with the nodes in the roster's book. A node may be named with several addresses:
//! each failed attempt goes on with the next.
//!
//! Each side dials its own connection for what it sends. Neither has to agree who dials, and a link
//! that works in one direction only is nothing special.
//!
//! *A frame is sent at most once.* What was queued or half-sent when a connection broke may have
//! arrived; sending it again could run a forwarded command twice. It is dropped, the shard hears
//! `LinkBroken`, and raft, which expects loss, sends what is still needed. What was dropped before any
//! of it left did certainly not arrive: the shard hears of those commands by `Unsent`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpStream};

use crate::id::{Incarnation, NodeId, ShardId, Tick};
use crate::limits::LINK_BEAT_MS;
use crate::shard::Event;
use crate::shard::report::LinkReport;
use crate::wire::{Expected, FrameReader, Hello, Lane, OutFrame, hello};

use super::buffers;
use super::clock::HELLO_MS;
use super::keyring::Keyring;
use super::lanes::{Lanes, Lost, Sent};
use super::peer_stream::PeerStream;
use super::poller::{Interest, Poller, Ready, Token};
use super::roster::Roster;
use super::slots::Slots;
use super::socket;

/// The first wait after a failed attempt, in ms; each further one doubles it.
const BACKOFF_MS_MIN: u64 = 10;
/// The longest wait between attempts, in ms.
const BACKOFF_MS_MAX: u64 = 500;

/// An attempt to connect is given up, and begun anew, after this long, in ms. The kernel sends the
/// first packet of a connection again after 1, 3 and 7 s; were an attempt left to that, a network that is
/// well again would not be noticed for seconds.
const DIAL_MS: u64 = 500;

/// A link that was up this long, in ms, is worth dialing again at once.
const STEADY_MS: u64 = 1000;

/// All links of one core, one per peer.
#[derive(Debug)]
pub struct PeerLinks {
    this: std::sync::Arc<Roster>,
    shard: ShardId,
    /// What peers are dialed with; in the clear without it.
    keyring: Option<std::sync::Arc<Keyring>>,
    links: Slots<Link>,
    /// The key of every node's link.
    keys: BTreeMap<NodeId, u64>,
    /// The version of the book that the links follow.
    version: u64,
    /// Links that were taken down because their nodes are in the book no longer.
    gone: Vec<NodeId>,
    /// Peers that have answered a hello of this process and so have written our birth down.
    greeted: BTreeSet<NodeId>,
    /// A peer that knows this node's id from another directory.
    stranger_to: Option<NodeId>,
    /// What was dropped since the last look.
    dropped: Lost,
    /// Forwarded commands in frames that were dropped before any of them left.
    unsent: Vec<u64>,
    /// Scratch memory of [`Self::take_keys`].
    scratch: Vec<u64>,
}

#[derive(Debug)]
struct Link {
    node: NodeId,
    /// Where it may be, never empty; `addresses[at]` is tried.
    addresses: Vec<SocketAddr>,
    at: usize,
    state: State,
    lanes: Lanes,
    /// The present wait between attempts, in ms.
    backoff_ms: u64,
    /// The latest start of the peer seen on this link.
    incarnation: Incarnation,
    /// When something was last queued for it.
    said_at: Tick,
    /// Something was queued, dropped, or lost with the connection in this turn.
    touched: bool,
    lost: bool,
    broken: bool,
    /// The last error that was logged, so that a peer that is down for an hour costs one line.
    told: Option<String>,
}

#[derive(Debug)]
enum State {
    Idle { retry_at: Tick },
    Connecting { socket: TcpStream, until: Tick },
    Greeting { stream: PeerStream, reader: FrameReader, until: Tick },
    Up { stream: PeerStream, blocked: bool, since: Tick },
}

impl PeerLinks {
    /// Links from core `shard` to all peers; they are dialed by [`tick`](Self::tick).
    #[must_use]
    pub fn new(this: std::sync::Arc<Roster>, shard: ShardId) -> Self {
        Self {
            this,
            shard,
            keyring: None,
            links: Slots::default(),
            keys: BTreeMap::new(),
            version: 0,
            gone: Vec::new(),
            greeted: BTreeSet::new(),
            stranger_to: None,
            dropped: Lost::default(),
            unsent: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Dial with these keys.
    #[must_use]
    pub fn with_keyring(self, keyring: std::sync::Arc<Keyring>) -> Self {
        Self { keyring: Some(keyring), ..self }
    }

    /// Peers that know of this node's directory, and nothing against it.
    #[must_use]
    pub fn greeted(&self) -> &BTreeSet<NodeId> {
        &self.greeted
    }

    /// A peer that knows this node's id from another directory, if one was met.
    #[must_use]
    pub fn stranger_to(&self) -> Option<NodeId> {
        self.stranger_to
    }

    /// Make the links what the book says.
    fn follow_the_book(&mut self) {
        let version = self.this.version();
        if version == self.version {
            return;
        }
        self.version = version;
        let targets = self.this.targets();
        let gone: Vec<NodeId> =
            self.keys.keys().filter(|node| !targets.contains_key(node)).copied().collect();
        for node in gone {
            let Some(mut link) = self.keys.remove(&node).and_then(|key| self.links.remove(key))
            else {
                continue;
            };
            link.lanes.clear(&mut self.dropped, &mut self.unsent);
            self.gone.push(node);
            tracing::info!(
                peer = node.0,
                core = self.shard.0,
                "link closed: no group names this node"
            );
        }
        for (node, addresses) in targets {
            if let Some(link) = self.keys.get(&node).and_then(|key| self.links.get_mut(*key)) {
                link.readdress(addresses);
                continue;
            }
            let key = self.links.insert(|_| Link::new(node, addresses));
            self.keys.insert(node, key);
        }
    }

    /// Queue a frame; it leaves with [`flush`](Self::flush). It is dropped, and counted, when the
    /// link is down or its lane is full.
    pub fn push(&mut self, node: NodeId, frame: OutFrame) {
        let link = self.keys.get(&node).and_then(|key| self.links.get_mut(*key));
        let Some(link) = link else {
            self.dropped.note(&frame);
            self.unsent.extend(frame.forwards);
            return;
        };
        let up = matches!(link.state, State::Up { .. });
        match if up { link.lanes.push(frame) } else { Err(frame) } {
            Ok(()) => link.touched = true,
            Err(frame) => {
                self.dropped.note(&frame);
                self.unsent.extend(frame.forwards);
                link.lost = true;
            }
        }
    }

    /// Send what was queued in this turn, and say which peers lost something.
    pub fn flush(&mut self, now: Tick, poller: &Poller, events: &mut Vec<Event>) {
        events.extend(self.gone.drain(..).map(Event::LinkBroken));
        let keys = self.take_keys();
        for &key in &keys {
            let Some(link) = self.links.get_mut(key) else { continue };
            if std::mem::take(&mut link.touched)
                && let State::Up { stream, blocked: false, .. } = &mut link.state
            {
                match link.lanes.send(stream) {
                    Ok(Sent::All) => {}
                    Ok(Sent::Blocked) => self.block(key, poller, now),
                    Err(error) => self.fail(key, now, &error.to_string()),
                }
            }
            let Some(link) = self.links.get_mut(key) else { continue };
            // First what is certain: it spares the clients of those commands an "unknown".
            if !self.unsent.is_empty() {
                events.push(Event::Unsent(std::mem::take(&mut self.unsent)));
            }
            let (broken, lost) = (std::mem::take(&mut link.broken), std::mem::take(&mut link.lost));
            if broken {
                events.push(Event::LinkBroken(link.node));
            } else if lost {
                events.push(Event::Unreachable(link.node));
            }
        }
        self.scratch = keys;
        if !self.unsent.is_empty() {
            events.push(Event::Unsent(std::mem::take(&mut self.unsent)));
        }
    }

    /// Frames that are on their way and gave up nothing but the memory of their lists.
    pub fn take_spent(&mut self, mut spent: impl FnMut(OutFrame)) {
        for key in self.keys.values() {
            if let Some(link) = self.links.get_mut(*key) {
                link.lanes.take_spent().for_each(&mut spent);
            }
        }
    }

    /// The keys of all links, in the scratch memory; put back when they have been gone through.
    fn take_keys(&mut self) -> Vec<u64> {
        let mut keys = std::mem::take(&mut self.scratch);
        keys.clear();
        keys.extend(self.keys.values());
        keys
    }

    /// Time has passed: follow the book, dial what is due, give up what takes too long.
    pub fn tick(&mut self, now: Tick, poller: &Poller) {
        self.follow_the_book();
        let keys = self.take_keys();
        for &key in &keys {
            let Some(link) = self.links.get_mut(key) else { continue };
            match &link.state {
                State::Idle { retry_at } if *retry_at <= now => {
                    if let Err(error) = self.dial(key, now, poller) {
                        self.fail(key, now, &error.to_string());
                    }
                }
                State::Connecting { until, .. } if *until <= now => {
                    // The attempt was a wait already: a network that is well again is found with the next.
                    link.backoff_ms = BACKOFF_MS_MIN;
                    let what = format!("no answer to the connection attempt within {DIAL_MS} ms");
                    self.fail(key, now, &what);
                }
                State::Greeting { until, .. } if *until <= now => {
                    self.fail(key, now, &format!("no answer to the hello within {HELLO_MS} ms"));
                }
                State::Up { .. } if LINK_BEAT_MS <= now.since(link.said_at) => {
                    link.said_at = now;
                    let beat = self.this.beat(link.node, self.shard);
                    // A full lane says more than enough.
                    link.touched |= link.lanes.push(beat).is_ok();
                }
                _ => {}
            }
        }
        self.scratch = keys;
    }

    /// A link's socket has something for us.
    pub fn on_ready(&mut self, key: u64, ready: Ready, now: Tick, poller: &Poller) {
        let Some(link) = self.links.get_mut(key) else { return };
        let step = match &mut link.state {
            // A report from a connection that was closed in this very turn.
            State::Idle { .. } => Ok(()),
            State::Connecting { .. } => self.on_connected(key, now, poller),
            State::Greeting { .. } => self.on_greeting(key, now),
            State::Up { stream, blocked, .. } => {
                let sent = if ready.writable && *blocked {
                    link.lanes.send(stream).map(|sent| sent == Sent::All)
                } else {
                    Ok(false)
                };
                match sent {
                    Ok(all) => {
                        let mut step = Ok(());
                        if all {
                            *blocked = false;
                            let token = Token::Link(key).into();
                            step = poller
                                .change(stream.socket(), token, Interest::READ)
                                .map_err(|error| error.to_string());
                        }
                        if ready.readable {
                            step = step.and_then(|()| nothing_to_read(stream));
                        }
                        step
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        if let Err(reason) = step {
            self.fail(key, now, &reason);
        }
    }

    /// What is known of each link.
    #[must_use]
    pub fn report(&self) -> Vec<LinkReport> {
        let mut links = Vec::new();
        self.links.each(|link| {
            let round_trip_us = match &link.state {
                State::Up { stream, .. } => buffers::round_trip_us(stream.socket()),
                _ => None,
            };
            let up = matches!(link.state, State::Up { .. });
            links.push(LinkReport { node: link.node, up, round_trip_us });
        });
        links.sort_by_key(|link| link.node);
        links
    }

    /// What was dropped since the last call.
    pub fn take_dropped(&mut self) -> Lost {
        std::mem::take(&mut self.dropped)
    }

    /// The node stops: close all links.
    pub fn close(&mut self) {
        self.links = Slots::default();
        self.keys.clear();
    }

    fn dial(&mut self, key: u64, now: Tick, poller: &Poller) -> io::Result<()> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let socket = socket::connect(link.address())?;
        poller.add(&socket, Token::Link(key).into(), Interest::WRITE)?;
        link.state = State::Connecting { socket, until: now.plus(DIAL_MS) };
        Ok(())
    }

    fn on_connected(&mut self, key: u64, now: Tick, poller: &Poller) -> Result<(), String> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let State::Connecting { socket, .. } =
            std::mem::replace(&mut link.state, State::Idle { retry_at: now })
        else {
            return Ok(());
        };
        let (this, shard, node) = (&self.this, self.shard, link.node);
        let keys = self.keyring.as_ref().and_then(|keyring| keyring.keys().peers);
        let address = link.address();
        let greet = || -> io::Result<PeerStream> {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            poller.change(&socket, Token::Link(key).into(), Interest::READ)?;
            let mut stream = PeerStream::dial(socket, address, keys.as_ref())?;
            // A new connection has room for a hundred bytes.
            stream.send_all(&this.hello(node, shard, Lane::Control).encode())?;
            Ok(stream)
        };
        let stream = greet().map_err(|error| error.to_string())?;
        let until = now.plus(HELLO_MS);
        link.state = State::Greeting { stream, reader: FrameReader::new(), until };
        Ok(())
    }

    fn on_greeting(&mut self, key: u64, now: Tick) -> Result<(), String> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let State::Greeting { stream, reader, .. } = &mut link.state else { return Ok(()) };
        // An answer is a hundred bytes: what comes at once is all of it, or it is none.
        match stream.receive(reader.space()).map_err(|error| error.to_string())? {
            None => return Ok(()),
            Some(0) => return Err("it closed the connection instead of answering the hello".into()),
            Some(bytes) => reader.filled(bytes),
        }
        let Some(frame) = reader.next().map_err(|error| error.to_string())? else { return Ok(()) };
        let hello = Hello::decode(&frame).map_err(|error| error.to_string())?;
        let expected = Expected {
            cluster: self.this.cluster,
            this: self.this.node,
            nodes: &[link.node],
            incarnation: link.incarnation,
            groups: self.this.groups,
            origin: self.this.origin,
        };
        hello.check(&expected).map_err(|error| error.to_string())?;
        debug_assert_eq!(hello.version, hello::VERSION, "checked above");
        if hello.is_stranger {
            self.stranger_to = Some(link.node);
            return Err(format!(
                "node {} knows node {} from another directory",
                link.node, self.this.node
            ));
        }
        self.greeted.insert(link.node);
        self.this.on_client_address(link.node, hello.client);
        link.incarnation = hello.incarnation;
        link.told = None;
        let State::Greeting { stream, .. } =
            std::mem::replace(&mut link.state, State::Idle { retry_at: Tick(0) })
        else {
            return Ok(());
        };
        link.state = State::Up { stream, blocked: false, since: now };
        tracing::info!(peer = link.node.0, address = %link.address(), core = self.shard.0, "link up");
        Ok(())
    }

    fn block(&mut self, key: u64, poller: &Poller, now: Tick) {
        let Some(link) = self.links.get_mut(key) else { return };
        let State::Up { stream, blocked, .. } = &mut link.state else { return };
        *blocked = true;
        let both = Interest { read: true, write: true };
        if let Err(error) = poller.change(stream.socket(), Token::Link(key).into(), both) {
            self.fail(key, now, &error.to_string());
        }
    }

    /// The connection is of no more use: drop it and all that waits for it.
    fn fail(&mut self, key: u64, now: Tick, reason: &str) {
        let Some(link) = self.links.get_mut(key) else { return };
        let was_up = matches!(link.state, State::Up { .. });
        // A link that comes up and breaks at once is dialed as seldom as one that never does
        // (contract row 51).
        if matches!(link.state, State::Up { since, .. } if STEADY_MS <= now.since(since)) {
            link.backoff_ms = BACKOFF_MS_MIN;
        }
        // Jitter keeps nodes that failed together from dialing together.
        let wait = link.backoff_ms / 2 + fastrand::u64(0..=link.backoff_ms / 2);
        link.state = State::Idle { retry_at: now.plus(wait) };
        link.backoff_ms = (link.backoff_ms * 2).min(BACKOFF_MS_MAX);
        link.lanes.clear(&mut self.dropped, &mut self.unsent);
        link.broken = true;
        if was_up || link.told.as_deref() != Some(reason) {
            link.told = Some(reason.to_owned());
            tracing::warn!(
                peer = link.node.0, address = %link.address(), core = self.shard.0, reason, "link down",
            );
        }
        if !was_up {
            link.at = (link.at + 1) % link.addresses.len();
        }
    }
}

impl Link {
    fn new(node: NodeId, addresses: Vec<SocketAddr>) -> Self {
        Self {
            node,
            addresses,
            at: 0,
            state: State::Idle { retry_at: Tick(0) },
            lanes: Lanes::default(),
            backoff_ms: BACKOFF_MS_MIN,
            incarnation: Incarnation(0),
            said_at: Tick(0),
            touched: false,
            lost: false,
            broken: false,
            told: None,
        }
    }

    fn address(&self) -> SocketAddr {
        self.addresses[self.at]
    }

    /// The node may be found at other addresses than before. One that works goes on being used;
    /// otherwise the likeliest is tried at once.
    fn readdress(&mut self, addresses: Vec<SocketAddr>) {
        if addresses == self.addresses {
            return;
        }
        let used = self.address();
        self.at = addresses.iter().position(|address| *address == used).unwrap_or(0);
        self.addresses = addresses;
        if let State::Idle { retry_at } = &mut self.state {
            self.at = 0;
            self.backoff_ms = BACKOFF_MS_MIN;
            *retry_at = Tick(0);
        }
    }
}

/// The peer says nothing on our sending connection; what can be read is its end.
fn nothing_to_read(stream: &mut PeerStream) -> Result<(), String> {
    match stream.receive(&mut [0; 16]) {
        Ok(None) => Ok(()),
        Ok(Some(0)) => Err("the peer closed the connection".into()),
        Ok(Some(_)) => Err("the peer speaks on a connection that is ours to speak on".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;
    use crate::id::ClusterId;
    use crate::runtime::roster::Card;

    fn roster(peer: SocketAddr) -> Arc<Roster> {
        let card = Card {
            cluster: ClusterId(1),
            node: NodeId(1),
            incarnation: Incarnation(1),
            cores: 1,
            groups: 1,
            birth: 1,
            origin: 1,
            address: peer,
            client: None,
            proven: true,
        };
        Arc::new(Roster::new(card, [(NodeId(2), peer)]))
    }

    #[test]
    fn contract_row_51_a_peer_that_refuses_is_dialed_at_most_ten_times_a_second() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = listener.local_addr().unwrap();
        drop(listener);
        let mut poller = Poller::new().unwrap();
        let mut links = PeerLinks::new(roster(gone), ShardId(0));
        let mut ready = Vec::new();
        let mut dialed = Vec::new();
        for now in 1..=10_000 {
            let mut is_due = links.keys.is_empty();
            links.links.each(|link| {
                is_due |= matches!(link.state, State::Idle { retry_at } if retry_at.0 <= now);
            });
            links.tick(Tick(now), &poller);
            dialed.extend(is_due.then_some(now));
            poller.poll(&mut ready).unwrap();
            for report in ready.drain(..) {
                if let Some(Token::Link(key)) = Token::from_number(report.token) {
                    links.on_ready(key, report, Tick(now), &poller);
                }
            }
        }
        for &start in &dialed {
            let within = dialed.iter().filter(|&&at| (start..start + 1_000).contains(&at)).count();
            assert!(within <= 10, "{within} in the second from {start} on: {dialed:?}");
        }
        assert!(10 <= dialed.len(), "it never gives up: {dialed:?}");
        assert_eq!(
            links.report(),
            [LinkReport { node: NodeId(2), up: false, round_trip_us: None }]
        );
    }

    #[test]
    fn contract_row_51_a_peer_that_does_not_answer_is_dialed_twice_a_second() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let poller = Poller::new().unwrap();
        let mut links = PeerLinks::new(roster(listener.local_addr().unwrap()), ShardId(0));
        let mut dialed = Vec::new();
        let mut before = false;
        // The poller is never asked, so no answer arrives.
        for now in 1..=60_000 {
            links.tick(Tick(now), &poller);
            let mut connects = false;
            links.links.each(|link| connects = matches!(link.state, State::Connecting { .. }));
            dialed.extend((connects && !before).then_some(now));
            before = connects;
        }
        assert!(116 <= dialed.len(), "{dialed:?}");
        for pair in dialed.windows(2) {
            let between = pair[1] - pair[0];
            assert!((DIAL_MS..=DIAL_MS + BACKOFF_MS_MIN + 1).contains(&between), "{dialed:?}");
        }
    }

    #[test]
    fn contract_row_51_a_link_with_nothing_to_say_sends_a_frame_that_says_nothing() {
        let roster = roster("127.0.0.1:9".parse().unwrap());
        let beat = roster.beat(NodeId(2), ShardId(0));
        let mut reader = FrameReader::new();
        reader.feed(&beat.to_bytes());
        let frame = reader.next().expect("sound").expect("whole");
        assert_eq!((frame.header.route.from, frame.header.route.to), (NodeId(1), NodeId(2)));
        let said = (frame.messages().count(), frame.forwards().count(), frame.answers().count());
        assert_eq!(said, (0, 0, 0));
    }
}
