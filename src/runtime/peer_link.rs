//! Sending to peers: one connection per peer node and core, dialed by the sender, used in one
//! direction only.
//!
//! ```text
//!          ┌──────────── retry_at ────────────┐
//!          ▼                                  │
//!        Idle ── dial ──► Connecting ── hello sent ──► Greeting ── hello checked ──► Up
//!          ▲                  │ 5 s               │ 5 s                              │
//!          └───── any error, any close: all queued frames are dropped ◄──────────────┘
//! ```
//!
//! Each side dials its own connection for what it sends. Neither has to agree who dials, and a link
//! that works in one direction only is nothing special.
//!
//! *A frame is sent at most once.* What was queued or half-sent when a connection broke may have
//! arrived; sending it again could run a forwarded command twice. It is dropped, the shard hears
//! `LinkBroken`, and raft, which expects loss, sends what is still needed. What was dropped before any
//! of it left did certainly not arrive: the shard hears of those commands by `Unsent`.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use crate::id::{Incarnation, NodeId, ShardId, Tick};
use crate::shard::Event;
use crate::wire::{Expected, FrameReader, Hello, Lane, OutFrame, hello};

use super::buffers;
use super::clock::HELLO_MS;
use super::lanes::{Lanes, Sent};
use super::poller::{Interest, Poller, Ready, Token};
use super::roster::Roster;
use super::socket;

/// The first wait after a failed attempt, in ms; each further one doubles it.
const BACKOFF_MS_MIN: u64 = 10;
/// The longest wait between attempts, in ms.
const BACKOFF_MS_MAX: u64 = 1000;

/// A link that was up this long, in ms, is worth dialing again at once.
const STEADY_MS: u64 = 1000;

/// All links of one core, one per peer.
#[derive(Debug)]
pub struct PeerLinks {
    this: std::sync::Arc<Roster>,
    shard: ShardId,
    links: Vec<Link>,
    /// Frames that were dropped since the last look.
    dropped: u64,
    /// Forwarded commands in frames that were dropped before any of them left.
    unsent: Vec<u64>,
}

#[derive(Debug)]
struct Link {
    node: NodeId,
    address: SocketAddr,
    state: State,
    lanes: Lanes,
    /// The present wait between attempts, in ms.
    backoff_ms: u64,
    /// The latest start of the peer seen on this link.
    incarnation: Incarnation,
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
    Greeting { socket: TcpStream, reader: FrameReader, until: Tick },
    Up { socket: TcpStream, blocked: bool, since: Tick },
}

impl PeerLinks {
    /// Links from core `shard` to all peers; they are dialed by the first [`tick`](Self::tick).
    #[must_use]
    pub fn new(this: std::sync::Arc<Roster>, shard: ShardId) -> Self {
        let links = this
            .peers
            .iter()
            .map(|&(node, address)| Link {
                node,
                address,
                state: State::Idle { retry_at: Tick(0) },
                lanes: Lanes::default(),
                backoff_ms: BACKOFF_MS_MIN,
                incarnation: Incarnation(0),
                touched: false,
                lost: false,
                broken: false,
                told: None,
            })
            .collect();
        Self { this, shard, links, dropped: 0, unsent: Vec::new() }
    }

    /// Queue a frame; it leaves with [`flush`](Self::flush). It is dropped, and counted, when the
    /// link is down or its lane is full.
    pub fn push(&mut self, node: NodeId, frame: OutFrame) {
        let Some(link) = self.links.iter_mut().find(|link| link.node == node) else {
            self.dropped += 1;
            self.unsent.extend(frame.forwards);
            return;
        };
        let up = matches!(link.state, State::Up { .. });
        match if up { link.lanes.push(frame) } else { Err(frame) } {
            Ok(()) => link.touched = true,
            Err(frame) => {
                self.dropped += 1;
                self.unsent.extend(frame.forwards);
                link.lost = true;
            }
        }
    }

    /// Send what was queued in this turn, and say which peers lost something.
    pub fn flush(&mut self, now: Tick, poller: &Poller, events: &mut Vec<Event>) {
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            if std::mem::take(&mut link.touched)
                && let State::Up { socket, blocked: false, .. } = &link.state
            {
                match link.lanes.send(socket) {
                    Ok(Sent::All) => {}
                    Ok(Sent::Blocked) => self.block(index, poller, now),
                    Err(error) => self.fail(index, now, &error.to_string()),
                }
            }
            let link = &mut self.links[index];
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
    }

    /// Time has passed: dial what is due, give up what takes too long.
    pub fn tick(&mut self, now: Tick, poller: &Poller) {
        for index in 0..self.links.len() {
            match &self.links[index].state {
                State::Idle { retry_at } if *retry_at <= now => {
                    if let Err(error) = self.dial(index, now, poller) {
                        self.fail(index, now, &error.to_string());
                    }
                }
                State::Connecting { until, .. } if *until <= now => {
                    self.fail(index, now, "no answer to the connection attempt within 5 s");
                }
                State::Greeting { until, .. } if *until <= now => {
                    self.fail(index, now, "no answer to the hello within 5 s");
                }
                _ => {}
            }
        }
    }

    /// A link's socket has something for us.
    pub fn on_ready(&mut self, index: usize, ready: Ready, now: Tick, poller: &Poller) {
        let Some(link) = self.links.get_mut(index) else { return };
        let step = match &mut link.state {
            // A report from a connection that was closed in this very turn.
            State::Idle { .. } => Ok(()),
            State::Connecting { .. } => self.on_connected(index, now, poller),
            State::Greeting { .. } => self.on_greeting(index, now),
            State::Up { socket, blocked, .. } => {
                let sent = if ready.writable && *blocked {
                    link.lanes.send(&*socket).map(|sent| sent == Sent::All)
                } else {
                    Ok(false)
                };
                match sent {
                    Ok(all) => {
                        let mut step = Ok(());
                        if all {
                            *blocked = false;
                            let token = Token::Link(index as u64).into();
                            step = poller
                                .change(&*socket, token, Interest::READ)
                                .map_err(|error| error.to_string());
                        }
                        if ready.readable {
                            step = step.and_then(|()| nothing_to_read(socket));
                        }
                        step
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        if let Err(reason) = step {
            self.fail(index, now, &reason);
        }
    }

    /// Frames dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// The node stops: close all links.
    pub fn close(&mut self) {
        for link in &mut self.links {
            link.state = State::Idle { retry_at: Tick(u64::MAX) };
            link.lanes.clear(&mut self.unsent);
        }
    }

    fn dial(&mut self, index: usize, now: Tick, poller: &Poller) -> io::Result<()> {
        let link = &mut self.links[index];
        let socket = socket::connect(link.address)?;
        poller.add(&socket, Token::Link(index as u64).into(), Interest::WRITE)?;
        link.state = State::Connecting { socket, until: now.plus(HELLO_MS) };
        Ok(())
    }

    fn on_connected(&mut self, index: usize, now: Tick, poller: &Poller) -> Result<(), String> {
        let link = &mut self.links[index];
        let State::Connecting { socket, .. } =
            std::mem::replace(&mut link.state, State::Idle { retry_at: now })
        else {
            return Ok(());
        };
        let (this, shard, node) = (&self.this, self.shard, link.node);
        let greet = || -> io::Result<()> {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            poller.change(&socket, Token::Link(index as u64).into(), Interest::READ)?;
            // A new connection has room for a hundred bytes.
            socket::send_all(&socket, &this.hello(node, shard, Lane::Control).encode())
        };
        greet().map_err(|error| error.to_string())?;
        let until = now.plus(HELLO_MS);
        link.state = State::Greeting { socket, reader: FrameReader::new(), until };
        Ok(())
    }

    fn on_greeting(&mut self, index: usize, now: Tick) -> Result<(), String> {
        let link = &mut self.links[index];
        let State::Greeting { socket, reader, .. } = &mut link.state else { return Ok(()) };
        match buffers::receive(&*socket, reader.space()).map_err(|error| error.to_string())? {
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
        };
        hello.check(&expected).map_err(|error| error.to_string())?;
        debug_assert_eq!(hello.version, hello::VERSION, "checked above");
        link.incarnation = hello.incarnation;
        link.told = None;
        let State::Greeting { socket, .. } =
            std::mem::replace(&mut link.state, State::Idle { retry_at: Tick(0) })
        else {
            return Ok(());
        };
        link.state = State::Up { socket, blocked: false, since: now };
        tracing::info!(peer = %link.node, address = %link.address, core = %self.shard, "link up");
        Ok(())
    }

    fn block(&mut self, index: usize, poller: &Poller, now: Tick) {
        let link = &mut self.links[index];
        let State::Up { socket, blocked, .. } = &mut link.state else { return };
        *blocked = true;
        let both = Interest { read: true, write: true };
        if let Err(error) = poller.change(&*socket, Token::Link(index as u64).into(), both) {
            self.fail(index, now, &error.to_string());
        }
    }

    /// The connection is of no more use: drop it and all that waits for it.
    fn fail(&mut self, index: usize, now: Tick, reason: &str) {
        let link = &mut self.links[index];
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
        self.dropped += link.lanes.clear(&mut self.unsent);
        link.broken = true;
        if was_up || link.told.as_deref() != Some(reason) {
            link.told = Some(reason.to_owned());
            tracing::warn!(
                peer = %link.node, address = %link.address, core = %self.shard, reason, "link down",
            );
        }
    }
}

/// The peer says nothing on our sending connection; what can be read is its end.
fn nothing_to_read(socket: &TcpStream) -> Result<(), String> {
    match buffers::receive(socket.as_fd(), &mut [0; 16]) {
        Ok(None) => Ok(()),
        Ok(Some(0)) => Err("the peer closed the connection".into()),
        Ok(Some(_)) => Err("the peer speaks on a connection that is ours to speak on".into()),
        Err(error) => Err(error.to_string()),
    }
}
