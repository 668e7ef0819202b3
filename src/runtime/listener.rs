//! The clients of one core: accepting them, hearing them, answering them.
//!
//! Every core accepts from the same listening socket (each has a duplicate of its descriptor, and
//! the kernel wakes one of them per connection), so a client stays on the core that accepted it.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;

use crate::id::{ConnId, ShardId, Tick};
use crate::limits::TLS_HANDSHAKES_PER_TURN;
use crate::shard::Event;
use crate::shard::event::ReplyTo;
use crate::store::connection::Routing;

use super::buffers::Chunk;
use super::client_conn::{ClientConn, Gate};
use super::doorkeeper::Doorkeeper;
use super::faults::Faults;
use super::keyring::{Keyring, Keys};
use super::poller::{Interest, Poller, Ready, Token};
use super::roll::Roll;
use super::slots::Slots;
use super::socket;

/// Connections accepted in one turn; the rest wait in the kernel for the next.
const ACCEPTS_MAX: usize = 64;
/// Memory for encoding replies is given back when it has grown beyond this, in bytes.
const SCRATCH_BYTES_MAX: usize = 1 << 20;
/// How often it is looked at who is idle, in ms.
const LOOK_MS: u64 = 500;

/// All clients of one core. One per core.
#[derive(Debug)]
pub struct Clients {
    listener: Option<TcpListener>,
    conns: Slots<ClientConn>,
    /// Connections of the whole node.
    open: Arc<AtomicUsize>,
    /// As many as the whole node accepts.
    open_max: usize,
    faults: Option<Arc<Faults>>,
    routing: Routing,
    /// What clients are met with; open to all, in the clear, without it.
    keyring: Option<Arc<Keyring>>,
    roll: Arc<Roll>,
    doorkeeper: Doorkeeper,
    /// A client may be idle for so long.
    idle_ms: u64,
    looked_at: Tick,
    /// Connections with a handshake under way that may still be furthered in this turn.
    handshakes_left: usize,
    chunk: Chunk,
    scratch: BytesMut,
    /// Connections with something to send or to read on, each once.
    queue: Vec<u64>,
}

impl Clients {
    /// Accept from `listener`, if there is one. `open` counts the connections of all cores, and one beyond
    /// `open_max` is refused.
    ///
    /// # Errors
    /// When the listener cannot be watched.
    pub fn new(
        listener: Option<TcpListener>,
        open: Arc<AtomicUsize>,
        open_max: usize,
        poller: &Poller,
    ) -> io::Result<Self> {
        if let Some(listener) = &listener {
            poller.add_shared(listener, Token::ClientPort.into())?;
        }
        Ok(Self {
            listener,
            conns: Slots::default(),
            open,
            open_max,
            faults: None,
            routing: Routing::default(),
            keyring: None,
            roll: Arc::default(),
            doorkeeper: Doorkeeper::default(),
            idle_ms: u64::MAX,
            looked_at: Tick(0),
            handshakes_left: TLS_HANDSHAKES_PER_TURN,
            chunk: Chunk::default(),
            scratch: BytesMut::new(),
            queue: Vec::new(),
        })
    }

    /// Let its clients switch faults on, if there are switches.
    #[must_use]
    pub fn with_faults(self, faults: Option<Arc<Faults>>) -> Self {
        Self { faults, ..self }
    }

    /// Treat its clients' commands so.
    #[must_use]
    pub fn with_routing(self, routing: Routing) -> Self {
        Self { routing, ..self }
    }

    /// Meet its clients with these keys.
    #[must_use]
    pub fn with_keyring(self, keyring: Arc<Keyring>) -> Self {
        Self { keyring: Some(keyring), ..self }
    }

    /// Go by these users.
    #[must_use]
    pub fn with_roll(self, roll: Arc<Roll>) -> Self {
        Self { roll, ..self }
    }

    /// Disconnect clients that are idle for so many seconds; 0 is never.
    #[must_use]
    pub fn with_idle_s(self, idle_s: u64) -> Self {
        let idle_ms = if idle_s == 0 { u64::MAX } else { idle_s.saturating_mul(1000) };
        Self { idle_ms, ..self }
    }

    /// How its clients' commands are treated.
    #[must_use]
    pub fn routing(&self) -> Routing {
        self.routing
    }

    /// How many clients are connected to this core.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.count()
    }

    /// Whether no client is connected to this core.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Clients are waiting to be accepted.
    pub fn accept(&mut self, now: Tick, poller: &Poller) {
        let keys = self.keyring.as_ref().map(|keyring| keyring.keys()).unwrap_or_default();
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else { return };
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                // Another core was faster, or the client has gone already.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    return;
                }
            };
            if self.open_max <= self.open.fetch_add(1, Ordering::Relaxed) {
                self.open.fetch_sub(1, Ordering::Relaxed);
                // If it cannot be told, it learns from the close. Over TLS it cannot: a handshake for
                // everybody who is refused would cost more than a client.
                if keys.clients.is_none() {
                    let _ = socket::send_all(&socket, b"-ERR max number of clients reached\r\n");
                }
                continue;
            }
            let roll = Arc::clone(&self.roll);
            let key = self.conns.insert(|key| ClientConn::new(ConnId(key), socket, roll));
            if let Err(error) = self.meet(key, &keys, now, poller) {
                tracing::debug!(%error, "a client's connection failed at once");
                self.close(key);
            }
        }
    }

    /// Time has passed: close connections whose handshakes take too long, and idle ones.
    pub fn tick(&mut self, core: ShardId, now: Tick) {
        self.doorkeeper.tell(core, now);
        if now.since(self.looked_at) < LOOK_MS {
            return;
        }
        self.looked_at = now;
        let speaks_tls =
            self.keyring.as_ref().is_some_and(|keyring| keyring.keys().clients.is_some());
        if self.idle_ms == u64::MAX && !speaks_tls {
            return;
        }
        for key in self.conns.keys(|_| true) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            if conn.is_overdue(now, self.idle_ms) {
                if conn.is_handshaking() {
                    self.doorkeeper.note_handshake("no handshake in time".into(), conn.socket());
                }
                self.close(key);
            }
        }
    }

    /// A client's socket has something for us.
    pub fn on_ready(&mut self, key: u64, ready: Ready, gate: Gate, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if ready.failed && conn.is_deaf() {
            return self.close(key);
        }
        let is_handshaking = conn.is_handshaking();
        if is_handshaking && ready.readable {
            // The rest is reported again in the next turn.
            let Some(left) = self.handshakes_left.checked_sub(1) else { return };
            self.handshakes_left = left;
        }
        if ready.readable
            && let Err(error) = conn.receive(&mut self.chunk, gate, events)
        {
            if is_handshaking && error.kind() == io::ErrorKind::InvalidData {
                self.doorkeeper.note_handshake(error.to_string(), conn.socket());
            }
            return self.close(key);
        }
        let denied = conn.take_denied();
        self.doorkeeper.note_wrong_passwords(denied, conn.socket());
        self.enqueue(key);
    }

    /// A reply for a client; it leaves with [`flush`](Self::flush). The client may be gone.
    pub fn reply(&mut self, reply: ReplyTo) {
        let key = reply.conn.0;
        if let Some(conn) = self.conns.get_mut(key) {
            conn.complete(reply.seq, reply.reply);
            self.enqueue(key);
        }
    }

    /// Send what the turn brought, each client's replies in one piece. Commands that had to wait
    /// for it become events.
    pub fn flush(&mut self, gate: Gate, poller: &Poller, events: &mut Vec<Event>) {
        self.handshakes_left = TLS_HANDSHAKES_PER_TURN;
        let mut queue = std::mem::take(&mut self.queue);
        for key in queue.drain(..) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            conn.queued = false;
            let flushed = conn.flush(&mut self.scratch).and_then(|()| {
                conn.resume(gate, events);
                // What it answered by itself goes out at once; nothing else would wake us for it.
                conn.flush(&mut self.scratch)?;
                match conn.change_of_interest() {
                    Some(interest) if !conn.is_over() => {
                        poller.change(conn.socket(), Token::Client(key).into(), interest)
                    }
                    _ => Ok(()),
                }
            });
            let over = conn.is_over();
            if flushed.is_err() {
                self.scratch.clear();
            }
            if flushed.is_err() || over {
                self.close(key);
            }
        }
        // The queue was drained; its memory is used again. Nothing was queued meanwhile.
        self.queue = queue;
        if SCRATCH_BYTES_MAX < self.scratch.capacity() {
            self.scratch = BytesMut::new();
        }
    }

    /// Accept nobody any more and read from nobody any more: what has been read is still answered.
    pub fn stop(&mut self, poller: &Poller) {
        self.listener = None;
        for key in self.conns.keys(|_| true) {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.stop_reading();
                // A connection that cannot be changed is about to be closed anyway.
                if let Some(interest) = conn.change_of_interest() {
                    let _ = poller.change(conn.socket(), Token::Client(key).into(), interest);
                }
            }
        }
    }

    /// Prepare and watch a connection that was just accepted.
    fn meet(&mut self, key: u64, keys: &Keys, now: Tick, poller: &Poller) -> io::Result<()> {
        let conn = self.conns.get_mut(key).expect("inserted by the caller");
        socket::prepare_client(conn.socket())?;
        conn.meet(keys, self.routing, self.faults.clone(), now)?;
        poller.add(conn.socket(), Token::Client(key).into(), Interest::READ)
    }

    fn enqueue(&mut self, key: u64) {
        if let Some(conn) = self.conns.get_mut(key)
            && !std::mem::replace(&mut conn.queued, true)
        {
            self.queue.push(key);
        }
    }

    fn close(&mut self, key: u64) {
        if self.conns.remove(key).is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
