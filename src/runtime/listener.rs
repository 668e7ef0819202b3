//! The clients of one core: accepting them, hearing them, answering them.
//!
//! Every core accepts from the same listening socket (each has a duplicate of its descriptor, and
//! the kernel wakes one of them per connection), so a client stays on the core that accepted it.
//!
//! Where the kernel can, the core's ring receives ([`super::ring`]), and the replies of a turn leave
//! in one system call for all clients; elsewhere sockets are polled, and each has its calls.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;

use crate::id::{ConnId, ShardId, Tick};
use crate::limits::{LINGER_MS_MAX, OUTPUT_BYTES_OF_CORE_MAX, TLS_HANDSHAKES_PER_TURN};
use crate::shard::Event;
use crate::shard::event::ReplyTo;
use crate::store::connection::{ReadFrom, Routing, Settings};

use super::buffers::Chunk;
use super::client_conn::{ClientConn, Gate};
use super::doorkeeper::{Doorkeeper, Refusals};
use super::faults::Faults;
use super::keyring::{Keyring, Keys};
use super::poller::{Poller, Ready, Token};
use super::ring::{Arrival, Arrived, Ring, Send};
use super::roll::Roll;
use super::slots::Slots;
use super::socket;
use super::visitors::Visitors;

/// Connections accepted in one turn; the rest wait in the kernel for the next.
const ACCEPTS_MAX: usize = 64;
/// Memory for encoding replies is given back when it has grown beyond this, in bytes.
const SCRATCH_BYTES_MAX: usize = 1 << 20;
/// How often it is looked at who is idle, in ms.
const LOOK_MS: u64 = 500;
/// Replies leave when they are as many bytes, also before all are encoded.
const SEND_BYTES: usize = 256 << 10;

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
    read_from: ReadFrom,
    /// What clients are met with; open to all, in the clear, without it.
    keyring: Option<Arc<Keyring>>,
    roll: Arc<Roll>,
    doorkeeper: Doorkeeper,
    /// All clients of the node, and the core that these are of; nobody sees them without it.
    visitors: Option<(Arc<Visitors>, ShardId)>,
    /// How often somebody of them was to be closed when that was last looked at.
    kills: u64,
    settings: Settings,
    /// The time of the last tick.
    now: Tick,
    /// A client may be idle for so long.
    idle_ms: u64,
    looked_at: Tick,
    /// Connections that were told why they end, and until when they may read it.
    lingering: Vec<(u64, Tick)>,
    /// Connections with a handshake under way that may still be furthered in this turn.
    handshakes_left: usize,
    /// What came of handshakes and has to wait for the next turn, in order.
    handshakes: VecDeque<(u64, Arrived)>,
    /// Empty between calls.
    arrivals: Vec<Arrival>,
    chunk: Chunk,
    /// Replies of one client, and of those that are sent to together; empty between calls.
    scratch: BytesMut,
    together: BytesMut,
    /// Connections with something to send or to read on, each once.
    queue: Vec<u64>,
    /// Reply bytes that its clients have not read, and as many as they may be.
    unread_bytes: usize,
    unread_bytes_max: usize,
    /// Of whom, and what, the next system call sends; empty between calls.
    sends: Vec<Send>,
    senders: Vec<u64>,
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
            read_from: ReadFrom::default(),
            keyring: None,
            roll: Arc::default(),
            doorkeeper: Doorkeeper::default(),
            visitors: None,
            kills: 0,
            settings: Settings::default(),
            now: Tick(0),
            idle_ms: u64::MAX,
            looked_at: Tick(0),
            lingering: Vec::new(),
            handshakes_left: TLS_HANDSHAKES_PER_TURN,
            handshakes: VecDeque::new(),
            arrivals: Vec::new(),
            chunk: Chunk::default(),
            scratch: BytesMut::new(),
            together: BytesMut::new(),
            queue: Vec::new(),
            unread_bytes: 0,
            unread_bytes_max: OUTPUT_BYTES_OF_CORE_MAX,
            sends: Vec::new(),
            senders: Vec::new(),
        })
    }

    /// Let its clients switch faults on, if there are switches.
    #[must_use]
    pub fn with_faults(self, faults: Option<Arc<Faults>>) -> Self {
        Self { faults, ..self }
    }

    /// Treat its clients' commands so.
    #[must_use]
    pub fn with_routing(self, routing: Routing, read_from: ReadFrom) -> Self {
        Self { routing, read_from, ..self }
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

    /// Let the clients of all cores see those of this one.
    #[must_use]
    pub fn with_visitors(self, visitors: Arc<Visitors>, core: ShardId) -> Self {
        Self { visitors: Some((visitors, core)), ..self }
    }

    /// Tell clients of these settings, and disconnect those that are idle for too long by them.
    #[must_use]
    pub fn with_settings(self, settings: Settings) -> Self {
        let Settings { idle_s, .. } = settings;
        let idle_ms = if idle_s == 0 { u64::MAX } else { idle_s.saturating_mul(1000) };
        Self { settings, idle_ms, ..self }
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

    /// Clients refused since the last call.
    pub fn take_refusals(&mut self) -> Refusals {
        self.doorkeeper.take_refusals()
    }

    /// Clients are waiting to be accepted.
    pub fn accept(&mut self, now: Tick, ring: &mut Ring, poller: &Poller) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else { return };
            let (socket, address) = match listener.accept() {
                Ok(accepted) => accepted,
                // Another core was faster, or the client has gone already.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    return;
                }
            };
            self.welcome(socket, address, now, ring, poller);
        }
    }

    /// Somebody has connected.
    fn welcome(
        &mut self,
        socket: TcpStream,
        address: SocketAddr,
        now: Tick,
        ring: &mut Ring,
        poller: &Poller,
    ) {
        let keys = self.keyring.as_ref().map(|keyring| keyring.keys()).unwrap_or_default();
        if self.open_max <= self.open.fetch_add(1, Ordering::Relaxed) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.doorkeeper.note_too_many(&socket);
            // If it cannot be told, it learns from the close. Over TLS it cannot: a handshake for
            // everybody who is refused would cost more than a client.
            if keys.clients.is_none() {
                let _ = socket::send_all(&socket, b"-ERR max number of clients reached\r\n");
            }
            return;
        }
        let guest = self.visitors.as_ref();
        let guest = guest.map(|(all, core)| all.enter(*core, address, socket.local_addr().ok()));
        let (roll, settings) = (Arc::clone(&self.roll), self.settings);
        let key = self
            .conns
            .insert(|key| ClientConn::new(ConnId(key), socket, roll).with_guest(guest, settings));
        if let Err(error) = self.meet(key, &keys, now, ring, poller) {
            tracing::debug!(%error, "a client's connection failed at once");
            self.close(key, ring);
        }
    }

    /// Take in what the ring has received, after what had to wait for this turn.
    pub fn on_arrivals(&mut self, gate: Gate, ring: &mut Ring, events: &mut Vec<Event>) {
        self.resume_handshakes(gate, ring, events);
        let mut arrivals = std::mem::take(&mut self.arrivals);
        ring.take_arrivals(&mut arrivals);
        for arrival in arrivals.drain(..) {
            self.on_arrival(arrival, gate, ring, events);
        }
        self.arrivals = arrivals;
    }

    /// The ring has something from a client.
    fn on_arrival(
        &mut self,
        arrival: Arrival,
        gate: Gate,
        ring: &mut Ring,
        events: &mut Vec<Event>,
    ) {
        let Arrival { token, what, is_over } = arrival;
        let Some(Token::Client(key)) = Token::from_number(token) else {
            debug_assert!(false, "nobody receives for {token}");
            return;
        };
        let Some(conn) = self.conns.get_mut(key) else { return };
        if is_over {
            conn.is_not_received();
        }
        self.enqueue(key);
        self.take_in(key, what, gate, ring, events);
    }

    /// This has come from a client.
    fn take_in(
        &mut self,
        key: u64,
        what: Arrived,
        gate: Gate,
        ring: &mut Ring,
        events: &mut Vec<Event>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.is_handshaking() && matches!(what, Arrived::Bytes(_) | Arrived::Closed) {
            match self.handshakes_left.checked_sub(1) {
                Some(left) => self.handshakes_left = left,
                None => {
                    conn.wait(true);
                    return self.handshakes.push_back((key, what));
                }
            }
        }
        match what {
            Arrived::Bytes(bytes) => self.hear(key, bytes, gate, ring, events),
            Arrived::Closed => conn.end(),
            Arrived::Failed(_) => self.close(key, ring),
            Arrived::Nothing => {}
        }
    }

    /// Handshakes that had to wait for this turn.
    fn resume_handshakes(&mut self, gate: Gate, ring: &mut Ring, events: &mut Vec<Event>) {
        for _ in 0..self.handshakes.len() {
            let Some((key, what)) = self.handshakes.pop_front() else { return };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.wait(false);
                self.enqueue(key);
                self.take_in(key, what, gate, ring, events);
            }
        }
    }

    /// Whether handshakes wait for another turn.
    #[must_use]
    pub fn has_handshakes(&self) -> bool {
        !self.handshakes.is_empty()
    }

    /// The ring has received this from a client.
    fn hear(
        &mut self,
        key: u64,
        bytes: BytesMut,
        gate: Gate,
        ring: &mut Ring,
        events: &mut Vec<Event>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let is_handshaking = conn.is_handshaking();
        let heard = conn.hear(bytes, &mut self.chunk, gate, events);
        self.heard(key, is_handshaking, heard, ring);
    }

    /// What became of bytes that a client has sent.
    fn heard(&mut self, key: u64, is_handshaking: bool, heard: io::Result<()>, ring: &mut Ring) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Err(error) = heard {
            if is_handshaking && error.kind() == io::ErrorKind::InvalidData {
                self.doorkeeper.note_handshake(error.to_string(), conn.socket());
            }
            return self.close(key, ring);
        }
        conn.show(self.now);
        let denied = conn.take_denied();
        self.doorkeeper.note_wrong_passwords(denied, conn.socket());
        self.doorkeeper.note_forbidden(conn.take_forbidden());
        if conn.take_foreign() {
            self.doorkeeper.note_http(conn.socket());
        }
        self.enqueue(key);
    }

    /// Time has passed: close connections whose handshakes take too long, and idle ones.
    pub fn tick(&mut self, core: ShardId, now: Tick, ring: &mut Ring) {
        self.now = now;
        self.doorkeeper.tell(core, now);
        self.close_killed(ring);
        if now.since(self.looked_at) < LOOK_MS {
            return;
        }
        self.looked_at = now;
        let is_over = |(_, until): &mut (u64, Tick)| *until <= now;
        for (key, _) in self.lingering.extract_if(.., is_over).collect::<Vec<_>>() {
            self.close(key, ring);
        }
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
                self.close(key, ring);
            }
        }
    }

    /// Close those that another client, of whichever core, wants closed.
    fn close_killed(&mut self, ring: &mut Ring) {
        let Some((visitors, _)) = &self.visitors else { return };
        let kills = visitors.kills();
        if kills == std::mem::replace(&mut self.kills, kills) {
            return;
        }
        for key in self.conns.keys(|conn| conn.must_leave()) {
            self.close(key, ring);
        }
    }

    /// A client's socket has something for us.
    pub fn on_ready(
        &mut self,
        key: u64,
        ready: Ready,
        gate: Gate,
        ring: &mut Ring,
        events: &mut Vec<Event>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if ready.failed && conn.is_deaf() {
            return self.close(key, ring);
        }
        let is_handshaking = conn.is_handshaking();
        if ready.readable && !conn.is_by_ring() {
            if is_handshaking {
                // The rest is reported again in the next turn.
                let Some(left) = self.handshakes_left.checked_sub(1) else { return };
                self.handshakes_left = left;
            }
            let heard = conn.receive(&mut self.chunk, gate, events);
            return self.heard(key, is_handshaking, heard, ring);
        }
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
    ///
    /// # Errors
    /// When the ring is broken; never in practice.
    pub fn flush(
        &mut self,
        gate: Gate,
        ring: &mut Ring,
        poller: &Poller,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        self.handshakes_left = TLS_HANDSHAKES_PER_TURN;
        let mut queue = std::mem::take(&mut self.queue);
        // One alone has its own call: that is a little cheaper, and as many.
        let has_company = ring.has_sockets() && 1 < queue.len();
        for key in queue.drain(..) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            conn.queued = false;
            if !has_company || !conn.sends_with_others() {
                let flushed = conn.flush(&mut self.scratch);
                self.flushed(key, flushed, gate, ring, poller, events);
                continue;
            }
            let start = self.together.len();
            conn.fill(&mut self.together);
            let range = start..self.together.len();
            if range.is_empty() {
                self.flushed(key, Ok(()), gate, ring, poller, events);
                continue;
            }
            let socket = Rc::clone(conn.socket());
            self.sends.push(Send { socket, range, sent: Ok(0) });
            self.senders.push(key);
            if SEND_BYTES <= self.together.len() {
                self.send(gate, ring, poller, events)?;
            }
        }
        // The queue was drained; its memory is used again. Nothing was queued meanwhile.
        self.queue = queue;
        self.send(gate, ring, poller, events)?;
        self.shed(ring);
        for scratch in [&mut self.scratch, &mut self.together] {
            if SCRATCH_BYTES_MAX < scratch.capacity() {
                *scratch = BytesMut::new();
            }
        }
        Ok(())
    }

    /// While the clients leave too much unread together, the one that leaves the most is closed: each alone is within
    /// its own bound.
    fn shed(&mut self, ring: &mut Ring) {
        while self.unread_bytes_max < self.unread_bytes {
            let mut most = 0;
            self.conns.each(|conn| most = most.max(conn.counted));
            let Some(&key) = self.conns.keys(|conn| conn.counted == most).first() else { return };
            if let Some(conn) = self.conns.get_mut(key) {
                self.doorkeeper.note_slow_reader(most, conn.socket());
            }
            self.close(key, ring);
        }
    }

    /// Reply bytes that its clients have not read.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.unread_bytes
    }

    /// Send what was put together.
    fn send(
        &mut self,
        gate: Gate,
        ring: &mut Ring,
        poller: &Poller,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        let mut sends = std::mem::take(&mut self.sends);
        let mut senders = std::mem::take(&mut self.senders);
        ring.send(&mut sends, &self.together)?;
        for (key, Send { range, sent, .. }) in senders.drain(..).zip(sends.drain(..)) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let flushed = sent.map(|sent| conn.sent(&self.together[range], sent));
            self.flushed(key, flushed, gate, ring, poller, events);
        }
        self.together.clear();
        (self.sends, self.senders) = (sends, senders);
        Ok(())
    }

    /// The replies of a client have left, as far as its socket takes them.
    fn flushed(
        &mut self,
        key: u64,
        flushed: io::Result<()>,
        gate: Gate,
        ring: &mut Ring,
        poller: &Poller,
        events: &mut Vec<Event>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let was_lingering = conn.is_lingering();
        let flushed = flushed.and_then(|()| {
            conn.resume(gate, events);
            // What it answered by itself goes out at once; nothing else would wake us for it.
            conn.flush(&mut self.scratch)?;
            if conn.is_over() { Ok(()) } else { conn.attend(ring, poller) }
        });
        let unread = conn.unread_bytes();
        self.unread_bytes += unread;
        self.unread_bytes -= std::mem::replace(&mut conn.counted, unread);
        let over = conn.is_over();
        let lingers = !was_lingering && conn.is_lingering();
        if flushed.is_err() {
            self.scratch.clear();
        }
        if lingers {
            self.lingering.push((key, self.looked_at.plus(LOOK_MS + LINGER_MS_MAX)));
        }
        if flushed.is_err() || over {
            self.close(key, ring);
        }
    }

    /// Accept nobody any more and read from nobody any more: what has been read is still answered.
    pub fn stop(&mut self, ring: &mut Ring, poller: &Poller) {
        self.listener = None;
        for key in self.conns.keys(|_| true) {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.stop_reading();
                // A connection that cannot be changed is about to be closed anyway.
                let _ = conn.attend(ring, poller);
            }
        }
    }

    /// Prepare and watch a connection that was just accepted.
    fn meet(
        &mut self,
        key: u64,
        keys: &Keys,
        now: Tick,
        ring: &mut Ring,
        poller: &Poller,
    ) -> io::Result<()> {
        let conn = self.conns.get_mut(key).expect("inserted by the caller");
        socket::prepare_client(conn.socket())?;
        conn.meet(keys, (self.routing, self.read_from), self.faults.clone(), now)?;
        conn.attend(ring, poller)
    }

    fn enqueue(&mut self, key: u64) {
        if let Some(conn) = self.conns.get_mut(key)
            && !std::mem::replace(&mut conn.queued, true)
        {
            self.queue.push(key);
        }
    }

    fn close(&mut self, key: u64, ring: &mut Ring) {
        if let Some(mut conn) = self.conns.remove(key) {
            conn.leave(ring);
            self.unread_bytes -= conn.counted;
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::config::{Security, TlsFiles};
    use crate::limits::{OUTPUT_BYTES_MAX, PIPELINE_MAX};
    use crate::runtime::certificates::Authority;
    use crate::runtime::scratch::Scratch;
    use crate::runtime::tls::Session;
    use crate::shard::event::Request;
    use crate::wire::reply::Reply;

    /// The clients of a core, with what they wait in.
    struct Core {
        ring: Ring,
        poller: Poller,
        clients: Clients,
        address: SocketAddr,
        requests: Vec<Request>,
    }

    impl Core {
        fn new(has_sockets: bool, open_max: usize) -> Self {
            let poller = Poller::new().unwrap();
            let mut ring = Ring::new(&poller, Duration::ZERO).unwrap();
            if has_sockets {
                ring = ring.with_sockets();
                assert!(ring.has_sockets(), "these tests need Linux 6.12");
            }
            let listener = socket::listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let open = Arc::default();
            let clients = Clients::new(Some(listener), open, open_max, &poller).unwrap();
            Self { ring, poller, clients, address, requests: Vec::new() }
        }

        fn connect(&self) -> TcpStream {
            let socket = TcpStream::connect(self.address).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }

        /// What a core does between two thoughts.
        fn step(&mut self) {
            let Self { ring, poller, clients, requests, .. } = self;
            ring.wait(Duration::from_millis(1)).unwrap();
            ring.take(&mut Vec::new());
            let (mut ready, mut events) = (Vec::new(), Vec::new());
            poller.poll(&mut ready).unwrap();
            clients.on_arrivals(Gate::Open, ring, &mut events);
            for ready in ready {
                match Token::from_number(ready.token) {
                    Some(Token::ClientPort) => clients.accept(Tick(0), ring, poller),
                    Some(Token::Client(key)) => {
                        clients.on_ready(key, ready, Gate::Open, ring, &mut events);
                    }
                    other => panic!("nobody else is there: {other:?}"),
                }
            }
            clients.flush(Gate::Open, ring, poller, &mut events).unwrap();
            requests.extend(events.into_iter().map(|event| match event {
                Event::Request(request) => request,
                other => panic!("not from a client: {other:?}"),
            }));
        }

        fn until(&mut self, mut enough: impl FnMut(&mut Self) -> bool) {
            while !enough(self) {
                self.step();
            }
        }

        /// Answer all that was asked with `reply`.
        fn answer(&mut self, reply: &Reply) -> usize {
            let requests = std::mem::take(&mut self.requests);
            for Request { conn, seq, .. } in &requests {
                self.clients.reply(ReplyTo { conn: *conn, seq: *seq, reply: reply.clone() });
            }
            requests.len()
        }

        /// What a client reads, until it is `count` bytes.
        fn read(&mut self, client: &mut TcpStream, count: usize) -> Vec<u8> {
            let mut got = Vec::new();
            let mut space = vec![0; 1 << 20];
            while got.len() < count {
                self.step();
                match client.read(&mut space) {
                    Ok(0) => panic!("closed after {} bytes of {count}", got.len()),
                    Ok(read) => got.extend_from_slice(&space[..read]),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            got
        }

        fn sees_close_of(&mut self, client: &mut TcpStream) {
            self.until(|_| match client.read(&mut [0; 1024]) {
                Ok(count) => count == 0,
                Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            });
        }
    }

    #[test]
    fn commands_come_in_and_replies_go_out_by_ring_and_by_poller() {
        for has_sockets in [true, false] {
            let mut core = Core::new(has_sockets, 100);
            let mut clients: Vec<_> = (0..30).map(|_| core.connect()).collect();
            core.until(|core| core.clients.len() == 30);
            for round in 0..5 {
                for client in &mut clients {
                    client.write_all(b"PING\r\nGET a\r\n").unwrap();
                    // A command in two pieces.
                    client.write_all(b"*2\r\n$3\r\nGET\r\n$5\r\nab").unwrap();
                }
                core.until(|core| core.requests.len() == 30);
                for client in &mut clients {
                    client.write_all(b"cde\r\n").unwrap();
                }
                core.until(|core| core.requests.len() == 60);
                assert!(
                    core.requests
                        .iter()
                        .all(|it| [&b"a"[..], b"abcde"].contains(&it.command.arg(1)))
                );
                assert_eq!(core.answer(&Reply::Int(round)), 60);
                for client in &mut clients {
                    let expected = format!("+PONG\r\n:{round}\r\n:{round}\r\n");
                    assert_eq!(core.read(client, expected.len()), expected.as_bytes());
                }
            }
            // One says goodbye, one closes, and one closes a side and still hears its reply.
            let [mut quits, closes, mut half] = clients.split_off(27).try_into().unwrap();
            quits.write_all(b"QUIT\r\n").unwrap();
            core.sees_close_of(&mut quits);
            drop(closes);
            half.write_all(b"GET a\r\n").unwrap();
            half.shutdown(std::net::Shutdown::Write).unwrap();
            core.until(|core| core.requests.len() == 1 && core.clients.len() == 28);
            core.answer(&Reply::Int(7));
            assert_eq!(core.read(&mut half, 4), b":7\r\n");
            core.sees_close_of(&mut half);
            core.until(|core| core.clients.len() == 27);
            // Nobody is read from any more; what was asked is answered.
            clients[0].write_all(b"GET a\r\n").unwrap();
            core.until(|core| core.requests.len() == 1);
            core.clients.stop(&mut core.ring, &core.poller);
            core.answer(&Reply::Int(8));
            assert_eq!(core.read(&mut clients[0], 4), b":8\r\n");
            core.sees_close_of(&mut clients[0]);
        }
    }

    #[test]
    fn who_asks_much_or_reads_nothing_is_stopped_and_goes_on() {
        for has_sockets in [true, false] {
            let mut core = Core::new(has_sockets, 100);
            let (mut client, mut other) = (core.connect(), core.connect());
            core.until(|core| core.clients.len() == 2);
            let total = 3 * PIPELINE_MAX + 5;
            client.write_all(&b"GET a\r\n".repeat(total)).unwrap();
            core.until(|core| core.requests.len() == PIPELINE_MAX);
            (0..20).for_each(|_| core.step());
            assert_eq!(core.requests.len(), PIPELINE_MAX, "the rest waits");
            let mut answered = 0;
            core.until(|core| {
                answered += core.answer(&Reply::Nil);
                answered == total
            });
            assert_eq!(core.read(&mut client, 5 * total).len(), 5 * total);

            // Replies that it does not read, and more questions.
            let value = Reply::bulk(vec![b'v'; 1 << 20]);
            let asked = 2 * OUTPUT_BYTES_MAX / (1 << 20);
            client.write_all(&b"GET a\r\n".repeat(asked)).unwrap();
            core.until(|core| core.requests.len() == asked);
            core.answer(&value);
            (0..20).for_each(|_| core.step());
            client.write_all(b"GET late\r\n").unwrap();
            other.write_all(b"GET b\r\n").unwrap();
            core.until(|core| !core.requests.is_empty());
            (0..20).for_each(|_| core.step());
            assert_eq!(core.requests.len(), 1, "only the other is listened to");
            core.answer(&Reply::Nil);
            assert_eq!(core.read(&mut other, 5), b"$-1\r\n");
            let one = b"$1048576\r\n".len() + (1 << 20) + 2;
            assert_eq!(core.read(&mut client, asked * one).len(), asked * one);
            core.until(|core| core.requests.len() == 1);
            assert_eq!(core.requests[0].command.arg(1), b"late");
            // It goes, with something unread in both directions.
            core.answer(&value);
            client.write_all(b"GET a\r\n").unwrap();
            drop(client);
            core.until(|core| core.clients.len() == 1);
        }
    }

    #[test]
    fn clients_that_leave_too_much_unread_together_lose_the_one_that_leaves_the_most() {
        for has_sockets in [true, false] {
            let mut core = Core::new(has_sockets, 100);
            let value = Reply::bulk(vec![b'v'; 1 << 20]);
            let one = b"$1048576\r\n".len() + (1 << 20) + 2;
            let ask = |core: &mut Core, count: usize| {
                let mut client = core.connect();
                client.write_all(&b"GET a\r\n".repeat(count)).unwrap();
                core.until(|core| core.requests.len() == count);
                core.answer(&value);
                (0..20).for_each(|_| core.step());
                client
            };
            // The kernel takes some of the values, nobody knows how many.
            let mut clients: Vec<_> = [12, 30, 12].map(|count| ask(&mut core, count)).into();
            core.clients.unread_bytes_max = core.clients.unread_bytes();
            assert!((1 << 20..54 << 20).contains(&core.clients.unread_bytes()));
            (0..20).for_each(|_| core.step());
            assert_eq!((core.clients.len(), core.clients.take_refusals().slow_readers), (3, 0));

            clients.push(ask(&mut core, 12));
            assert_eq!((core.clients.len(), core.clients.take_refusals().slow_readers), (3, 1));
            core.sees_close_of(&mut clients[1]);
            // The others hear everything, and nothing is counted of those that are gone.
            assert_eq!(core.read(&mut clients[0], 12 * one).len(), 12 * one);
            assert_eq!(core.read(&mut clients[3], 12 * one).len(), 12 * one);
            drop(clients);
            core.until(|core| core.clients.is_empty());
            assert_eq!(core.clients.unread_bytes(), 0);
        }
    }

    #[test]
    fn beyond_the_bound_a_client_is_told_and_closed() {
        for has_sockets in [true, false] {
            let mut core = Core::new(has_sockets, 1);
            let first = core.connect();
            core.until(|core| core.clients.len() == 1);
            let mut second = core.connect();
            let text = b"-ERR max number of clients reached\r\n";
            assert_eq!(core.read(&mut second, text.len()), text);
            core.sees_close_of(&mut second);
            let refusals = Refusals { too_many: 1, ..Refusals::default() };
            assert_eq!(core.clients.take_refusals(), refusals);
            drop(first);
            core.until(|core| core.clients.is_empty());
            let _third = core.connect();
            core.until(|core| core.clients.len() == 1);
        }
    }

    /// More handshakes than a turn furthers, each with a command and the end of what is said behind it.
    #[test]
    fn handshakes_that_wait_for_a_turn_lose_nothing() {
        let scratch = Scratch::new("listener-tls");
        let files = Authority::new("ours").sign(scratch.path());
        let security = Security {
            client: Some(TlsFiles { ca: None, ..files.clone() }),
            peer: Some(files),
            ..Security::default()
        };
        let keyring = Arc::new(Keyring::open(&security).unwrap());
        let dial = keyring.keys().peers.unwrap().client;
        for has_sockets in [true, false] {
            let mut core = Core::new(has_sockets, 100);
            core.clients = core.clients.with_keyring(Arc::clone(&keyring));
            let count = 3 * TLS_HANDSHAKES_PER_TURN + 1;
            let mut clients: Vec<_> = (0..count)
                .map(|_| {
                    let session = Session::dial(Arc::clone(&dial), core.address).unwrap();
                    (core.connect(), session, BytesMut::new(), false)
                })
                .collect();
            core.until(|core| core.clients.len() == count);
            let mut space = vec![0; 1 << 16];
            core.until(|_| {
                for (socket, session, heard, has_asked) in &mut clients {
                    if let Ok(read) = socket.read(&mut space) {
                        session.open(&space[..read], heard).unwrap();
                    }
                    let asks = !session.is_handshaking() && !std::mem::replace(has_asked, true);
                    let mut sealed = BytesMut::new();
                    if asks {
                        session.seal(b"PING\r\nGET a\r\n", &mut sealed).unwrap();
                        session.end();
                    }
                    *has_asked &= !session.is_handshaking();
                    session.seal(&[], &mut sealed).unwrap();
                    socket.write_all(&sealed).unwrap();
                    if asks {
                        socket.shutdown(std::net::Shutdown::Write).unwrap();
                    }
                }
                clients.iter().all(|it| it.3)
            });
            core.until(|core| core.requests.len() == count);
            core.answer(&Reply::Int(7));
            core.until(|_| {
                for (socket, session, heard, _) in &mut clients {
                    if let Ok(read) = socket.read(&mut space) {
                        session.open(&space[..read], heard).unwrap();
                    }
                }
                clients.iter().all(|it| &it.2[..] == b"+PONG\r\n:7\r\n")
            });
            core.until(|core| core.clients.is_empty() && !core.clients.has_handshakes());
        }
    }
}
