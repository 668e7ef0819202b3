//! One client's connection: bytes in, commands out; replies in, bytes out, in the order of the
//! commands.
//!
//! ```text
//!          receive           parse                          Event::Request
//!  socket ────────► input ────────► Command ─┬─ validate ──────────────────► shard
//!                                            └─ answered here ─┐                │
//!  socket ◄──────── output ◄───────────────── Pipeline ◄───────┴────────────────┘
//!           flush: all replies of a turn in one send
//! ```
//!
//! An idle connection holds no buffer: it receives into memory that all connections of its core
//! share ([`super::provided`], or [`Chunk`] where the ring cannot receive) and keeps only the beginning of
//! a command whose end has not arrived.
//!
//! Over TLS, bytes pass through a [`Session`] on their way in and out; all else is the same.
//!
//! Reading stops while too many commands are unanswered or too many reply bytes are unread; TCP
//! then stops the client.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, BytesMut};

use crate::id::{ConnId, Tick};
use crate::limits::{
    LINGER_BYTES_MAX, LOCKED_BYTES_MAX, OUTPUT_BYTES_MAX, PIPELINE_MAX, TLS_HANDSHAKE_MS_MAX,
};
use crate::shard::event::Request;
use crate::shard::{Event, Pipeline};
use crate::store::acl;
use crate::store::clients;
use crate::store::command::{self, Access, Spec};
use crate::store::connection::{Connection, Forbidden, Manner, ReadFrom, Routing, Settings};
use crate::store::transaction::Step;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, RequestReader};

use super::buffers::{Chunk, Received};
use super::faults::Faults;
use super::keyring::Keys;
use super::poller::{Interest, Poller, Token};
use super::ring::{Multishot, Ring};
use super::roll::Roll;
use super::socket;
use super::tls::Session;
use super::visitors::Guest;

/// Receives from one connection in one turn, so that one busy client does not hold up the rest.
const RECEIVES_MAX: usize = 4;
/// Room made at once for a command that has only begun, in bytes; a large value grows into more.
const RESERVE_BYTES_MAX: usize = 256 << 10;

/// Whether commands are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// They are.
    Open,
    /// A core of this node still replays its log.
    Loading,
    /// The node's directory is new, and its peers have not been asked yet whether it may take part.
    Probation,
}

/// One client. One per connection, on the core that accepted it.
#[derive(Debug)]
pub struct ClientConn {
    id: ConnId,
    socket: Rc<TcpStream>,
    /// The ring receives from it, or did until now and shall again.
    by_ring: bool,
    /// The request that receives.
    receiving: Option<Multishot>,
    /// What has come from it waits elsewhere; until that was heard nothing more shall come.
    waits: bool,
    /// Between socket and commands, if clients must speak TLS.
    tls: Option<Box<Session>>,
    own: Connection,
    settings: Settings,
    /// Its place among all clients of the node, if others may see it.
    guest: Option<Guest>,
    /// Its last command, and the one that others see.
    last: Option<&'static Spec>,
    seen: Option<&'static Spec>,
    /// Who may do what, and the version of it that `own` goes by.
    roll: Arc<Roll>,
    heard: u64,
    /// The node's fault switches, if clients may use them.
    faults: Option<Arc<Faults>>,
    reader: RequestReader,
    pipeline: Pipeline,
    /// The beginning of a command; empty between commands.
    input: BytesMut,
    /// Replies the socket did not take.
    output: BytesMut,
    /// A command that changes how replies are encoded waits until those before it have left.
    held: Option<Command>,
    /// The number of a `WATCH` that is not answered: what follows waits for it.
    watching: Option<u64>,
    /// A change of users that is not answered: what follows waits for it.
    changing: Option<Changing>,
    /// Nothing more will be read: the client has ended, said goodbye, or sent garbage.
    ended: bool,
    /// What comes after garbage is taken and thrown away until the client ends: closed with bytes unread, a socket has
    /// the client forget what it was told.
    discard: Option<Discard>,
    /// It speaks HTTP, which nobody does on purpose.
    is_foreign: bool,
    /// Something has come or gone since that was last looked at.
    stirred: bool,
    /// When it was accepted, or last looked at with something having come or gone.
    stirred_at: Tick,
    /// What the poller was last told, if it knows of it.
    watched: Option<Interest>,
    /// It is in the list of connections to flush.
    pub(super) queued: bool,
    /// Its part of what the core has counted as unread.
    pub(super) counted: usize,
}

/// After an error that ends the connection.
///
/// ```text
///   garbage ─► the error leaves ─► has_said_all ─► the client ends, or LINGER_BYTES_MAX, or LINGER_MS_MAX ─► over
/// ```
#[derive(Debug)]
struct Discard {
    /// Bytes that may still come.
    left: usize,
    /// The client was told everything, and that there is no more.
    has_said_all: bool,
}

/// A change of the users: its client hears of it when this node goes by it.
///
/// ```text
///   ─► the group executes it ─► Executed ─► this node has applied what the group has ─► Asked ─► answered
/// ```
#[derive(Debug)]
struct Changing {
    /// Its number.
    seq: u64,
    stage: ChangingStage,
}

#[derive(Debug)]
enum ChangingStage {
    /// The group was asked to execute it.
    Sent,
    /// It did, with this result; the node is to be asked whether it has it.
    Executed(Reply),
    /// The node was asked.
    Asked(Reply),
}

impl ClientConn {
    /// A new client, watched for reading once it is [attended](Self::attend) to.
    #[must_use]
    pub fn new(id: ConnId, socket: TcpStream, roll: Arc<Roll>) -> Self {
        Self {
            id,
            socket: Rc::new(socket),
            by_ring: false,
            receiving: None,
            waits: false,
            tls: None,
            own: Connection::new(id.0),
            settings: Settings::default(),
            guest: None,
            last: None,
            seen: None,
            roll,
            heard: 0,
            faults: None,
            reader: RequestReader::new(),
            pipeline: Pipeline::new(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            held: None,
            watching: None,
            changing: None,
            ended: false,
            discard: None,
            is_foreign: false,
            stirred: false,
            stirred_at: Tick(0),
            watched: None,
            queued: false,
            counted: 0,
        }
    }

    /// The same, with a place among all clients, at a node with these settings.
    #[must_use]
    pub fn with_guest(self, guest: Option<Guest>, settings: Settings) -> Self {
        Self { guest, settings, ..self }
    }

    /// It was accepted just now: meet it with these keys, treat its commands so, and let it switch faults
    /// on, if there are switches.
    ///
    /// # Errors
    /// When TLS cannot begin.
    pub fn meet(
        &mut self,
        keys: &Keys,
        (routing, read_from): (Routing, ReadFrom),
        faults: Option<Arc<Faults>>,
        now: Tick,
    ) -> io::Result<()> {
        if let Some(config) = &keys.clients {
            self.tls = Some(Box::new(Session::accept(Arc::clone(config))?));
        }
        let (heard, users) = self.roll.users();
        self.heard = heard;
        let id = self.guest.as_ref().map_or(self.id.0, Guest::id);
        self.own = Connection::new(id)
            .with_settings(self.settings)
            .with_routing(routing, read_from)
            .with_password(keys.password, users);
        self.faults = faults;
        self.stirred_at = now;
        Ok(())
    }

    /// Something has come from it: what others see of it is brought up to date.
    pub fn show(&mut self, now: Tick) {
        self.show_last();
        if let Some(guest) = &self.guest {
            guest.heard(now);
        }
    }

    fn show_last(&mut self) {
        let Some(guest) = &self.guest else { return };
        if let Some(last) = self.last.filter(|last| self.seen.is_none_or(|it| !ptr::eq(it, *last)))
        {
            self.seen = Some(last);
            guest.ran(last);
        }
        if let Some(told) = self.own.take_told() {
            guest.tell(told);
        }
    }

    /// Whether somebody wants it closed.
    #[must_use]
    pub fn must_leave(&self) -> bool {
        self.guest.as_ref().is_some_and(Guest::must_leave)
    }

    /// Whether its TLS handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether it turned out to speak HTTP; true once.
    pub fn take_foreign(&mut self) -> bool {
        std::mem::take(&mut self.is_foreign)
    }

    /// Whether all is said and what still comes is thrown away: somebody else must see to it that this ends.
    #[must_use]
    pub fn is_lingering(&self) -> bool {
        self.discard.as_ref().is_some_and(|discard| discard.has_said_all)
    }

    /// How often it has said a wrong password since the last call.
    pub fn take_denied(&mut self) -> u32 {
        self.own.take_denied()
    }

    /// What its user may not do, and it has tried, since the last call.
    pub fn take_forbidden(&mut self) -> Forbidden {
        self.own.take_forbidden()
    }

    /// Time has passed: whether its handshake takes too long, or it was idle for `idle_ms`. One that waits
    /// for an answer of ours is not idle; one that takes no answers is.
    pub fn is_overdue(&mut self, now: Tick, idle_ms: u64) -> bool {
        if self.is_handshaking() {
            return TLS_HANDSHAKE_MS_MAX <= now.since(self.stirred_at);
        }
        let waits = !self.pipeline.is_empty() && self.output.is_empty();
        if std::mem::take(&mut self.stirred) || waits {
            self.stirred_at = now;
        }
        idle_ms <= now.since(self.stirred_at)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Rc<TcpStream> {
        &self.socket
    }

    /// Take what has arrived. Commands become events, or are answered here.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub fn receive(
        &mut self,
        chunk: &mut Chunk,
        gate: Gate,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        for _ in 0..RECEIVES_MAX {
            if !self.wants_bytes() {
                break;
            }
            let received = match &mut self.tls {
                // What is thrown away need not be opened.
                _ if self.discard.is_some() => chunk.receive(&self.socket),
                None => chunk.receive(&self.socket),
                Some(tls) => chunk.receive_sealed(&self.socket, tls),
            };
            match received.inspect_err(|_| self.alert())? {
                Received::Nothing => break,
                Received::Closed => {
                    self.end();
                    break;
                }
                Received::Bytes { bytes, more } => {
                    if self.discards(bytes.len()) {
                        continue;
                    }
                    self.stirred = true;
                    self.take(bytes, gate, events);
                    if !more {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The ring has received `bytes`. As [`receive`](Self::receive), but what may not be read yet waits here;
    /// that is little, because [`attend`](Self::attend) stops the ring.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub fn hear(
        &mut self,
        bytes: BytesMut,
        chunk: &mut Chunk,
        gate: Gate,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        if self.discards(bytes.len()) || self.ended {
            return Ok(());
        }
        self.stirred = true;
        let Some(tls) = &mut self.tls else {
            self.take(bytes, gate, events);
            return Ok(());
        };
        let opened = chunk.open(&bytes, tls);
        let has_ended = tls.has_ended();
        let plain = opened.inspect_err(|_| self.alert())?;
        if !plain.is_empty() {
            self.take(plain, gate, events);
        }
        self.ended |= has_ended;
        Ok(())
    }

    /// What has come from it waits elsewhere, or does so no more.
    pub fn wait(&mut self, waits: bool) {
        self.waits = waits;
    }

    /// The client has closed its side: replies to what it has sent are still owed.
    pub fn end(&mut self) {
        self.ended = true;
        self.discard = None;
    }

    /// The request of the ring that received from it is over; it is begun again when it is to be read from.
    pub fn is_not_received(&mut self) {
        self.receiving = None;
    }

    /// The other end of TLS is told why it ends, as far as that can still be said.
    fn alert(&mut self) {
        let mut alert = BytesMut::new();
        if let Some(tls) = &mut self.tls
            && tls.seal(&[], &mut alert).is_ok()
        {
            let _ = socket::send(&self.socket, &alert);
        }
    }

    /// Read commands that have arrived but had to wait. Called after replies have left.
    pub fn resume(&mut self, gate: Gate, events: &mut Vec<Event>) {
        self.ask_for_change(events);
        if self.held.is_some() || !self.input.is_empty() {
            let mut input = std::mem::take(&mut self.input);
            self.parse(&mut input, gate, events);
            self.input = input;
        }
    }

    /// The reply to command `seq` is here.
    pub fn complete(&mut self, seq: u64, reply: Reply) {
        let reply = match self.watching.take_if(|watching| *watching == seq) {
            Some(_) => self.own.watched(reply),
            None => reply,
        };
        if let Some(reply) = self.changed(seq, reply) {
            self.pipeline.complete(seq, reply);
        }
    }

    /// What a reply comes to, if it is to be told now.
    fn changed(&mut self, seq: u64, reply: Reply) -> Option<Reply> {
        let Some(Changing { stage, .. }) = self.changing.take_if(|it| it.seq == seq) else {
            return Some(reply);
        };
        match stage {
            ChangingStage::Sent if !reply.is_error() => {
                let stage = ChangingStage::Executed(reply);
                self.changing = Some(Changing { seq, stage });
                None
            }
            ChangingStage::Asked(_) if reply.is_error() => {
                let text =
                    "the users are changed, but this node cannot tell since when it goes by that";
                Some(Reply::error("UNCERTAIN", text))
            }
            ChangingStage::Asked(executed) | ChangingStage::Executed(executed) => Some(executed),
            ChangingStage::Sent => Some(reply),
        }
    }

    /// A change was executed: this node is asked, as a replica, for what there is after it.
    fn ask_for_change(&mut self, events: &mut Vec<Event>) {
        let Some(Changing { seq, stage }) = &mut self.changing else { return };
        if let ChangingStage::Executed(reply) = stage {
            *stage = ChangingStage::Asked(std::mem::replace(reply, Reply::Ok));
            // Not behind writes: then the leader would answer, and this node might not have it yet.
            let manner = Manner { nearby: true, ..Manner::default() };
            let command = Command::from_args(&[b"ACL", b"USERS"]);
            let (conn, seq) = (self.id, *seq);
            events.push(Event::Request(Request {
                conn,
                seq,
                command,
                after_writes: false,
                manner,
            }));
        }
    }

    /// Send every reply whose turn it is, in one piece (more than one only past
    /// [`OUTPUT_BYTES_MAX`]). `scratch` is empty before and after.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub fn flush(&mut self, scratch: &mut BytesMut) -> io::Result<()> {
        if self.is_lingering() {
            return Ok(());
        }
        loop {
            self.flush_once(scratch)?;
            // What the socket did not take wakes us when it does; what was not offered would not.
            if !self.output.is_empty() {
                return Ok(());
            }
            if !self.pipeline.has_next() {
                break;
            }
        }
        if let Some(discard) = self.discard.as_mut().filter(|_| self.pipeline.is_empty()) {
            discard.has_said_all = true;
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    fn flush_once(&mut self, scratch: &mut BytesMut) -> io::Result<()> {
        self.fill(scratch);
        if let Some(tls) = &mut self.tls {
            let plain = scratch.split();
            if self.ended && self.pipeline.is_empty() {
                tls.seal(&plain, scratch)?;
                tls.end();
                tls.seal(&[], scratch)?;
            } else {
                tls.seal(&plain, scratch)?;
            }
        }
        if self.output.is_empty() {
            let sent = if scratch.is_empty() {
                0
            } else {
                socket::send(&self.socket, scratch)?.unwrap_or(0)
            };
            self.sent(scratch, sent);
        } else {
            self.output.extend_from_slice(scratch);
            let sent = socket::send(&self.socket, &self.output)?.unwrap_or(0);
            self.stirred |= 0 < sent;
            self.output.advance(sent);
        }
        if self.output.is_empty() {
            // An idle connection keeps no memory.
            self.output = BytesMut::new();
        }
        scratch.clear();
        Ok(())
    }

    /// Whether what it sends can leave together with what others send: nothing of it waits, and nothing
    /// comes between a reply and its bytes.
    #[must_use]
    pub fn sends_with_others(&self) -> bool {
        self.tls.is_none() && self.output.is_empty()
    }

    /// Put every reply whose turn it is at the end of `scratch`, to be sent from there.
    pub fn fill(&mut self, scratch: &mut BytesMut) {
        let start = scratch.len();
        while self.output.len() + (scratch.len() - start) < OUTPUT_BYTES_MAX
            && let Some(reply) = self.pipeline.next()
        {
            reply.encode(self.own.protocol(), scratch);
        }
    }

    /// Of `bytes`, which [`fill`](Self::fill) made when nothing waited, the socket took so many.
    pub fn sent(&mut self, bytes: &[u8], sent: usize) {
        self.stirred |= 0 < sent;
        self.output.extend_from_slice(&bytes[sent..]);
    }

    /// Nothing is owed to the client and nothing will come from it: close.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended && self.pipeline.is_empty() && self.output.is_empty() && self.discard.is_none()
    }

    /// Read nothing more; what has been read is still answered.
    pub fn stop_reading(&mut self) {
        self.end();
    }

    /// Whether a broken connection would go unnoticed because nothing is read from it.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.watched.is_none_or(|watched| !watched.read)
    }

    /// Whether its bytes come by [`hear`](Self::hear).
    #[must_use]
    pub fn is_by_ring(&self) -> bool {
        self.by_ring
    }

    /// Have ring and poller wait for what it waits for. With a ring that has sockets the poller is only
    /// asked for room to send.
    ///
    /// # Errors
    /// When the kernel cannot watch it.
    pub fn attend(&mut self, ring: &mut Ring, poller: &Poller) -> io::Result<()> {
        self.by_ring = ring.has_sockets();
        let mut wanted = Interest { read: self.wants_bytes(), write: !self.output.is_empty() };
        let token = Token::Client(self.id.0).into();
        if self.by_ring {
            match self.receiving {
                None if wanted.read => self.receiving = Some(ring.receive(&self.socket, token)),
                Some(receiving) if !wanted.read => ring.cancel(receiving),
                // One that is being cancelled is begun again when that is known.
                _ => {}
            }
            wanted.read = false;
        }
        // A polled one stays in the set: that it broke is told even when nothing is waited for.
        let wanted = (!self.by_ring || wanted.write).then_some(wanted);
        match (std::mem::replace(&mut self.watched, wanted), wanted) {
            (watched, wanted) if watched == wanted => Ok(()),
            (None, Some(wanted)) => poller.add(&self.socket, token, wanted),
            (Some(_), Some(wanted)) => poller.change(&self.socket, token, wanted),
            (_, None) => poller.remove(&self.socket),
        }
    }

    /// It is about to be forgotten: nobody may receive for it any more.
    pub fn leave(&mut self, ring: &mut Ring) {
        if let Some(receiving) = self.receiving {
            ring.cancel(receiving);
        }
    }

    /// Bytes of replies that are here and that its socket has not taken.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.output.len() + self.pipeline.reply_bytes()
    }

    fn may_read(&self) -> bool {
        !self.ended
            && !self.waits
            && self.held.is_none()
            && self.pipeline.len() < PIPELINE_MAX
            && self.unread_bytes() < OUTPUT_BYTES_MAX
    }

    /// Whether anything may come from it: commands, or what is thrown away.
    fn wants_bytes(&self) -> bool {
        self.discard.is_some() || self.may_read()
    }

    /// Whether so many bytes that have come are thrown away.
    fn discards(&mut self, bytes: usize) -> bool {
        let Some(discard) = &mut self.discard else { return false };
        match discard.left.checked_sub(bytes) {
            Some(left) => discard.left = left,
            None => self.discard = None,
        }
        true
    }

    /// What it has sent cannot be understood, nor anything after it.
    fn give_up(&mut self, why: Reply) {
        self.pipeline.push_done(why);
        self.input = BytesMut::new();
        self.ended = true;
        self.discard = Some(Discard { left: LINGER_BYTES_MAX, has_said_all: false });
    }

    fn take(&mut self, mut bytes: BytesMut, gate: Gate, events: &mut Vec<Event>) {
        if self.input.is_empty() {
            // The usual case: whole commands, read in place.
            self.parse(&mut bytes, gate, events);
            if !bytes.is_empty() && !self.ended {
                // The rest moves to memory of its own, so that a client that never ends its
                // command does not hold on to what the whole core receives into.
                let reserve_max = if self.own.is_locked() { 0 } else { RESERVE_BYTES_MAX };
                let more = self.reader.needed(&bytes).min(reserve_max);
                let mut own = BytesMut::with_capacity(bytes.len() + more);
                own.extend_from_slice(&bytes);
                self.input = own;
            }
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(&bytes);
            self.parse(&mut input, gate, events);
            if !input.is_empty() && !self.ended {
                self.input = input;
            }
        }
        if self.own.is_locked() && self.may_read() {
            self.bound_locked();
        }
    }

    /// Whoever has not logged in gets no memory for more than a login needs.
    fn bound_locked(&mut self) {
        if self.input.len() + self.reader.needed(&self.input) <= LOCKED_BYTES_MAX {
            return;
        }
        let text = format!(
            "Authentication required: nothing longer than {LOCKED_BYTES_MAX} bytes before it"
        );
        self.give_up(Reply::error("NOAUTH", text));
    }

    fn parse(&mut self, input: &mut BytesMut, gate: Gate, events: &mut Vec<Event>) {
        if self.held.is_some() && !self.pipeline.is_empty() {
            return;
        }
        if let Some(command) = self.held.take() {
            self.run(command, gate, events);
        }
        while self.may_read() {
            match self.reader.next(input) {
                Ok(Some(command)) => self.run(command, gate, events),
                Ok(None) => return,
                Err(error) => self.give_up(Reply::error("ERR", error.to_string())),
            }
        }
    }

    fn run(&mut self, command: Command, gate: Gate, events: &mut Vec<Event>) {
        if is_http(&command) {
            // A page in somebody's browser, most likely, whose body would be commands. It is told nothing.
            (self.is_foreign, self.ended) = (true, true);
            return;
        }
        let waits_for = match gate {
            Gate::Open => None,
            Gate::Loading => Some("outrigger is replaying its log"),
            Gate::Probation => Some("this node is new and asks its peers whether it may take part"),
        };
        if self.watching.is_some() || self.changing.is_some() {
            self.held = Some(command);
            return;
        }
        if self.roll.version() != self.heard {
            let (heard, users) = self.roll.users();
            self.heard = heard;
            self.own.hear(users);
        }
        if let Some(refusal) = self.own.refusal(&command) {
            self.pipeline.push_done(refusal);
            return;
        }
        // A login is no matter of the log; who asks for one again would miss the moment otherwise.
        if let Some(what) = waits_for.filter(|_| !self.own.is_locked() || acl::names_user(&command))
        {
            self.pipeline.push_done(Reply::error("LOADING", what));
            return;
        }
        if let Some(denial) = self.own.denial(&command) {
            self.pipeline.push_done(denial);
            return;
        }
        if let Some(reply) = self.faults.as_ref().and_then(|faults| faults.answer(&command)) {
            self.pipeline.push_done(reply);
            return;
        }
        let spec = match command::validate(&command) {
            Ok(spec) => spec,
            Err(refusal) => return self.pipeline.push_done(self.own.refused(refusal)),
        };
        self.last = Some(spec);
        match self.own.transact(spec, &command) {
            Step::Pass => self.pass_on(spec, command, events),
            Step::Reply(reply) | Step::Over(reply) => self.pipeline.push_done(reply),
            Step::Execute(whole) => _ = self.ask(true, whole, events),
            Step::Watch => self.watching = Some(self.ask(false, command, events)),
        }
    }

    fn pass_on(&mut self, spec: &Spec, command: Command, events: &mut Vec<Event>) {
        match spec.access {
            Access::Connection => {
                let switches = matches!(spec.name, "hello" | "reset");
                if switches && !self.pipeline.is_empty() {
                    self.held = Some(command);
                    return;
                }
                if spec.name == "client" && self.ask_for_others(&command) {
                    return;
                }
                let reply = self.own.answer(spec, &command);
                self.pipeline.push_done(reply);
                self.ended |= self.own.is_closing();
            }
            Access::Users => {
                let seq = self.ask(true, command, events);
                self.changing = Some(Changing { seq, stage: ChangingStage::Sent });
            }
            access => {
                if spec.name == "cluster" {
                    self.own.on_cluster();
                }
                let write = matches!(access, Access::Write | Access::AllWrite | Access::Session);
                self.ask(write, command, events);
            }
        }
    }

    /// Answers what is about the clients of the node; false if it is not about them.
    fn ask_for_others(&mut self, command: &Command) -> bool {
        self.show_last();
        let Some(guest) = &self.guest else { return false };
        let (reply, is_over) = match clients::read(command) {
            Ok(None) => return false,
            Ok(Some(call)) => guest.answer(&call),
            Err(refusal) => (refusal, false),
        };
        self.pipeline.push_done(reply);
        self.ended |= is_over;
        true
    }

    /// Has the shard do it; the reply comes with the number returned.
    fn ask(&mut self, write: bool, command: Command, events: &mut Vec<Event>) -> u64 {
        let after_writes = self.pipeline.writes_outstanding();
        let seq = self.pipeline.push(write);
        let (conn, manner) = (self.id, self.own.manner());
        events.push(Event::Request(Request { conn, seq, command, after_writes, manner }));
        seq
    }
}

/// Whether these are the first words of a line of HTTP, as Redis looks at it: no command is called so.
fn is_http(command: &Command) -> bool {
    let name = command.name();
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::store::acl::Users;
    use crate::store::password::Password;

    /// A connection and the client's end of it.
    fn pair() -> (ClientConn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket::prepare_client(&socket).unwrap();
        (ClientConn::new(ConnId(7), socket, Arc::default()), client)
    }

    fn pump(conn: &mut ClientConn, gate: Gate) -> Vec<Request> {
        let (mut chunk, mut events) = (Chunk::default(), Vec::new());
        conn.receive(&mut chunk, gate, &mut events).unwrap();
        let requests = events.into_iter().map(|event| match event {
            Event::Request(request) => request,
            other => panic!("not from a client: {other:?}"),
        });
        requests.collect()
    }

    fn heard(conn: &mut ClientConn, client: &mut TcpStream) -> String {
        conn.flush(&mut BytesMut::new()).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        let count = client.read(&mut bytes).unwrap_or(0);
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn replies_keep_the_order_of_commands_across_cores_and_connection() {
        let (mut conn, mut client) = pair();
        client.write_all(b"SET a 1\r\nPING\r\nGET a\r\nNOSUCH\r\nGE").unwrap();
        let requests = pump(&mut conn, Gate::Open);
        assert_eq!(requests.len(), 2);
        assert!(!requests[0].after_writes);
        assert!(requests[1].after_writes, "GET must see the SET before it");
        assert_eq!(heard(&mut conn, &mut client), "");
        conn.complete(requests[1].seq, Reply::bulk("1"));
        assert_eq!(heard(&mut conn, &mut client), "");
        conn.complete(requests[0].seq, Reply::Ok);
        let text = heard(&mut conn, &mut client);
        assert!(text.starts_with("+OK\r\n+PONG\r\n$1\r\n1\r\n-ERR unknown command"), "{text}");
        client.write_all(b"T b\r\n").unwrap();
        let requests = pump(&mut conn, Gate::Open);
        assert_eq!(requests[0].command.arg(1), b"b");
        assert!(!requests[0].after_writes);
    }

    #[test]
    fn a_switch_of_protocol_waits_for_the_replies_before_it() {
        let (mut conn, mut client) = pair();
        client.write_all(b"GET a\r\nHELLO 3\r\nGET b\r\n").unwrap();
        let first = pump(&mut conn, Gate::Open);
        assert_eq!(first.len(), 1, "nothing overtakes HELLO");
        conn.complete(first[0].seq, Reply::Nil);
        assert_eq!(heard(&mut conn, &mut client), "$-1\r\n");
        let mut events = Vec::new();
        conn.resume(Gate::Open, &mut events);
        assert_eq!(events.len(), 1);
        assert!(heard(&mut conn, &mut client).starts_with("%7\r\n"));
    }

    #[test]
    fn a_transaction_is_one_request_and_waits_for_what_it_watches() {
        let (mut conn, mut client) = pair();
        client.write_all(b"WATCH k\r\nMULTI\r\nINCR k\r\nNOSUCH\r\nEXEC\r\n").unwrap();
        let watch = pump(&mut conn, Gate::Open);
        assert_eq!(watch.len(), 1, "nothing overtakes WATCH");
        let mut events = Vec::new();
        conn.resume(Gate::Open, &mut events);
        assert!(events.is_empty());
        conn.complete(watch[0].seq, Reply::Array(vec![Reply::Int(5)]));
        assert_eq!(heard(&mut conn, &mut client), "+OK\r\n");
        conn.resume(Gate::Open, &mut events);
        assert!(events.is_empty(), "it is aborted here");
        let text = heard(&mut conn, &mut client);
        assert!(text.starts_with("+OK\r\n+QUEUED\r\n-ERR unknown command"), "{text}");
        assert!(text.ends_with("-EXECABORT Transaction discarded because of previous errors.\r\n"));

        client.write_all(b"WATCH k\r\nMULTI\r\nINCR k\r\nEXEC\r\nGET k\r\n").unwrap();
        let watch = pump(&mut conn, Gate::Open);
        conn.complete(watch[0].seq, Reply::Array(vec![Reply::Int(5)]));
        heard(&mut conn, &mut client);
        conn.resume(Gate::Open, &mut events);
        let commands = events.iter().map(|event| match event {
            Event::Request(request) => (request.command.arg(0), request.after_writes),
            other => panic!("not from a client: {other:?}"),
        });
        assert_eq!(commands.collect::<Vec<_>>(), [(&b"EXEC"[..], false), (b"GET", true)]);
        assert_eq!(heard(&mut conn, &mut client), "+OK\r\n+QUEUED\r\n");
    }

    #[test]
    fn while_loading_every_command_is_told_so() {
        let (mut conn, mut client) = pair();
        client.write_all(b"PING\r\nGET a\r\n").unwrap();
        assert!(pump(&mut conn, Gate::Loading).is_empty());
        let text = heard(&mut conn, &mut client);
        assert_eq!(text, "-LOADING outrigger is replaying its log\r\n".repeat(2));
    }

    #[test]
    fn garbage_is_answered_and_ends_the_connection() {
        let (mut conn, mut client) = pair();
        client.write_all(b"PING\r\n*1\r\n$x\r\nPING\r\n").unwrap();
        assert!(pump(&mut conn, Gate::Open).is_empty());
        assert!(!conn.is_over(), "the replies have not left");
        let text = heard(&mut conn, &mut client);
        assert_eq!(text, "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n");
        assert!(conn.is_lingering() && !conn.is_over(), "the client shall read it first");
        client.write_all(b"SET a 1\r\n").unwrap();
        assert!(pump(&mut conn, Gate::Open).is_empty());
        assert_eq!(heard(&mut conn, &mut client), "");
        drop(client);
        assert!(pump(&mut conn, Gate::Open).is_empty());
        assert!(conn.is_over());
    }

    #[test]
    fn what_is_thrown_away_after_an_error_has_a_bound() {
        let (mut conn, mut client) = pair();
        client.write_all(b"*1\r\n$x\r\n").unwrap();
        pump(&mut conn, Gate::Open);
        heard(&mut conn, &mut client);
        assert!(conn.discards(LINGER_BYTES_MAX) && !conn.is_over());
        assert!(conn.discards(1) && conn.is_over());
    }

    #[test]
    fn a_page_in_a_browser_says_nothing_here() {
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nFLUSHALL\r\n",
            "POST / HTTP/1.1\r\n\r\nFLUSHALL\r\n",
            "post x\r\nFLUSHALL\r\n",
        ] {
            let (mut conn, mut client) = pair();
            client.write_all(request.as_bytes()).unwrap();
            assert!(pump(&mut conn, Gate::Open).is_empty(), "{request}");
            assert!(conn.take_foreign() && !conn.take_foreign());
            heard(&mut conn, &mut client);
            assert!(conn.is_over());
        }
    }

    #[test]
    fn reading_stops_while_too_much_is_unanswered() {
        let (mut conn, mut client) = pair();
        client.write_all(&b"GET a\r\n".repeat(PIPELINE_MAX + 10)).unwrap();
        let requests = pump(&mut conn, Gate::Open);
        assert_eq!(requests.len(), PIPELINE_MAX);
        let poller = Poller::new().unwrap();
        let mut ring = Ring::new(&poller, std::time::Duration::ZERO).unwrap();
        conn.attend(&mut ring, &poller).unwrap();
        assert!(conn.is_deaf() && !conn.is_by_ring());
        conn.complete(requests[0].seq, Reply::Nil);
        heard(&mut conn, &mut client);
        let mut events = Vec::new();
        conn.resume(Gate::Open, &mut events);
        assert_eq!(events.len(), 1);
    }

    #[test]
    fn before_the_password_nothing_passes_and_little_is_kept() {
        let (mut conn, mut client) = pair();
        let password = Some(Password::new(b"secret"));
        let keys = Keys { password, ..Keys::default() };
        conn.meet(&keys, (Routing::Auto, ReadFrom::Leader), None, Tick(0)).unwrap();
        client
            .write_all(b"GET a\r\nAUTH wrong\r\nAUTH secret\r\nGET a\r\nRESET\r\nGET b\r\n")
            .unwrap();
        let requests = pump(&mut conn, Gate::Open);
        assert_eq!(requests.len(), 1, "only what came after AUTH and before RESET");
        assert_eq!(conn.take_denied(), 1);
        conn.complete(requests[0].seq, Reply::Nil);
        let text = heard(&mut conn, &mut client);
        assert!(text.starts_with("-NOAUTH Authentication required.\r\n-WRONGPASS"), "{text}");
        assert!(text.ends_with("+OK\r\n$-1\r\n"), "{text}");
        let mut events = Vec::new();
        conn.resume(Gate::Open, &mut events);
        assert!(events.is_empty(), "RESET logs out");
        assert!(heard(&mut conn, &mut client).starts_with("+RESET\r\n-NOAUTH"));

        client.write_all(b"*2\r\n$4\r\nAUTH\r\n$70000\r\nx").unwrap();
        assert!(pump(&mut conn, Gate::Open).is_empty());
        assert!(heard(&mut conn, &mut client).starts_with("-NOAUTH"));
        assert!(conn.is_lingering());
    }

    fn table(lines: &[&str]) -> Arc<Users> {
        let mut users = Users::default();
        for line in lines {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let call = acl::read(&Command::from_args(&args)).unwrap();
            users.apply(&call).unwrap();
        }
        Arc::new(users)
    }

    #[test]
    fn what_its_user_may_not_do_goes_nowhere() {
        let (mut conn, mut client) = pair();
        conn.meet(&Keys::default(), (Routing::Auto, ReadFrom::Leader), None, Tick(0)).unwrap();
        client.write_all(b"GET a\r\n").unwrap();
        assert_eq!(pump(&mut conn, Gate::Open).len(), 1, "there is nobody but default");
        let rules = "ACL SETUSER u on >p ~a* +get +@transaction +set";
        conn.roll.publish(table(&[rules, "ACL SETUSER default -get"]));
        client.write_all(b"GET a\r\nAUTH u p\r\nGET b\r\nGET ab\r\nMULTI\r\nSET ab v\r\n").unwrap();
        let requests = pump(&mut conn, Gate::Open);
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].command.arg(1), b"ab");
        // Who is connected hears of a change with the next command, in the middle of a transaction as well.
        conn.roll.publish(table(&[rules, "ACL SETUSER u -set"]));
        client.write_all(b"EXEC\r\nSET ab v\r\n").unwrap();
        assert!(pump(&mut conn, Gate::Open).is_empty());
        let forbidden = Forbidden { commands: 2, keys: 1 };
        assert_eq!(conn.take_forbidden(), forbidden, "each time, and of whichever kind");
        assert_eq!(conn.take_forbidden(), Forbidden::default());
        conn.roll.publish(table(&[]));
        client.write_all(b"GET ab\r\nQUIT\r\n").unwrap();
        assert!(pump(&mut conn, Gate::Open).is_empty());
        for seq in [0, requests[0].seq] {
            conn.complete(seq, Reply::Nil);
        }
        let text = heard(&mut conn, &mut client);
        let expected = [
            "$-1",
            "-NOPERM User default has no permissions to run the 'get' command",
            "+OK",
            "-NOPERM No permissions to access a key",
            "$-1",
            "+OK",
            "+QUEUED",
            "-EXECABORT Transaction discarded because of previous errors.",
            "-NOPERM User u has no permissions to run the 'set' command",
            "-NOAUTH Authentication required.",
            "+OK",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_change_of_users_is_answered_when_this_node_has_it() {
        let (mut conn, mut client) = pair();
        client.write_all(b"ACL SETUSER u on\r\nACL DELUSER v\r\nGET a\r\n").unwrap();
        let mut events = Vec::new();
        let mut next = |conn: &mut ClientConn, client: &mut TcpStream, reply: Reply| {
            conn.complete(0, reply);
            let text = heard(conn, client);
            conn.resume(Gate::Open, &mut events);
            let asked = events.drain(..).map(|event| match event {
                Event::Request(request) => request,
                other => panic!("not from a client: {other:?}"),
            });
            (text, asked.collect::<Vec<_>>())
        };
        let requests = pump(&mut conn, Gate::Open);
        assert_eq!(requests.len(), 1, "nothing overtakes a change");
        let (text, asked) = next(&mut conn, &mut client, Reply::Ok);
        assert_eq!(
            (&text[..], asked.len()),
            ("", 1),
            "the group has it; whether this node has is asked"
        );
        assert!(asked[0].manner.nearby && !asked[0].after_writes && asked[0].seq == 0);
        assert_eq!(asked[0].command.arg(1), b"USERS");
        let (text, asked) = next(&mut conn, &mut client, Reply::Array(Vec::new()));
        assert_eq!((&text[..], asked.len()), ("+OK\r\n", 1));
        assert_eq!(asked[0].command.arg(1), b"DELUSER");
        conn.complete(asked[0].seq, Reply::error("NOLEADER", "just now"));
        assert_eq!(heard(&mut conn, &mut client), "-NOLEADER just now\r\n");
        let mut events = Vec::new();
        conn.resume(Gate::Open, &mut events);
        assert_eq!(events.len(), 1, "what was refused is not asked about");

        let (mut conn, mut client) = pair();
        client.write_all(b"ACL SETUSER u on\r\n").unwrap();
        assert_eq!(pump(&mut conn, Gate::Open).len(), 1);
        let (text, _) = next(&mut conn, &mut client, Reply::Ok);
        assert_eq!(text, "");
        let (text, _) = next(&mut conn, &mut client, Reply::error("NOLEADER", "just now"));
        assert!(text.starts_with("-UNCERTAIN the users are changed"), "{text}");
    }

    #[test]
    fn who_is_of_the_table_waits_for_it() {
        let (mut conn, mut client) = pair();
        let keys = Keys { password: Some(Password::new(b"secret")), ..Keys::default() };
        conn.meet(&keys, (Routing::Auto, ReadFrom::Leader), None, Tick(0)).unwrap();
        client.write_all(b"AUTH u p\r\nHELLO 3 AUTH u p\r\nAUTH default secret\r\n").unwrap();
        assert!(pump(&mut conn, Gate::Loading).is_empty());
        let loading = "-LOADING outrigger is replaying its log\r\n";
        assert_eq!(heard(&mut conn, &mut client), format!("{loading}{loading}+OK\r\n"));
    }

    #[test]
    fn a_login_does_not_wait_for_the_log() {
        let (mut conn, mut client) = pair();
        let keys = Keys { password: Some(Password::new(b"secret")), ..Keys::default() };
        conn.meet(&keys, (Routing::Auto, ReadFrom::Leader), None, Tick(0)).unwrap();
        client.write_all(b"PING\r\nAUTH secret\r\nPING\r\n").unwrap();
        assert!(pump(&mut conn, Gate::Loading).is_empty());
        let text = heard(&mut conn, &mut client);
        let loading = "-LOADING outrigger is replaying its log\r\n";
        assert_eq!(text, format!("-NOAUTH Authentication required.\r\n+OK\r\n{loading}"));
    }

    #[test]
    fn who_waits_for_us_is_not_idle() {
        let (mut conn, mut client) = pair();
        conn.meet(&Keys::default(), (Routing::Auto, ReadFrom::Leader), None, Tick(1000)).unwrap();
        assert!(!conn.is_overdue(Tick(5999), 5000) && conn.is_overdue(Tick(6000), 5000));
        client.write_all(b"GET a\r\n").unwrap();
        let requests = pump(&mut conn, Gate::Open);
        assert!(!conn.is_overdue(Tick(7000), 5000) && !conn.is_overdue(Tick(50_000), 5000));
        conn.complete(requests[0].seq, Reply::Nil);
        heard(&mut conn, &mut client);
        assert!(!conn.is_overdue(Tick(60_000), 5000) && conn.is_overdue(Tick(65_000), 5000));
        assert!(!conn.is_overdue(Tick(90_000), u64::MAX), "0 is never");
    }
}
