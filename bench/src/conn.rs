//! One non-blocking connection: its socket, its buffers, and the way back after a break.
//!
//! ```text
//!            connect started            connected
//!   Down ───────────────────► Opening ─────────────► Up
//!    ▲  retry_ns has come        │ refused            │ read or write failed,
//!    └───────────────────────────┴────────────────────┘ or the peer closed
//! ```

use crate::access::Access;
use crate::protocol::{Manner, Protocol};
use crate::wire::Wire;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// First pause before connecting again; each failure doubles it.
const BACK_OFF_NS_MIN: u64 = 10_000_000;
/// Longest pause before connecting again.
const BACK_OFF_NS_MAX: u64 = 1_000_000_000;
/// How long the connections opened before a run may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Input buffers begin at this size and double for a reply that does not fit.
const INPUT_BYTES_MIN: usize = 16 << 10;

/// Where a connection stands.
#[derive(Debug)]
enum Link {
    Up(Wire),
    Opening(TcpStream),
    Down { retry_ns: u64 },
}

/// One connection of a generator thread.
#[derive(Debug)]
pub(crate) struct Conn {
    addr: SocketAddr,
    /// The index epoll reports for this connection.
    slot: u64,
    /// How connections begin.
    manner: Manner,
    /// How they get in.
    access: Arc<Access>,
    link: Link,
    back_off_ns: u64,
    /// Requests encoded and not yet written.
    pub(crate) out: Vec<u8>,
    out_sent: usize,
    /// Whether epoll has been asked to say when there is room to write again.
    awaits_room: bool,
    input: Vec<u8>,
    input_len: usize,
}

impl Conn {
    /// Connects, waiting for it: before a run there is nothing else to do.
    pub(crate) fn open<P: Protocol>(
        epoll: &OwnedFd,
        addr: SocketAddr,
        slot: u64,
        manner: Manner,
        access: Arc<Access>,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        let wire = greet::<P>(stream, addr, manner, &access)?;
        epoll::add(epoll, wire.socket(), EventData::new_u64(slot), EventFlags::IN)?;
        Ok(Self {
            addr,
            slot,
            manner,
            access,
            link: Link::Up(wire),
            back_off_ns: BACK_OFF_NS_MIN,
            out: Vec::new(),
            out_sent: 0,
            awaits_room: false,
            input: vec![0; INPUT_BYTES_MIN],
            input_len: 0,
        })
    }

    /// Whether requests can be sent.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// When a connection that is down should be retried.
    pub(crate) fn retry_ns(&self) -> Option<u64> {
        match self.link {
            Link::Down { retry_ns } => Some(retry_ns),
            Link::Up(_) | Link::Opening(_) => None,
        }
    }

    /// Writes what is in `out`, as far as the socket takes it, in one call when it takes all.
    pub(crate) fn flush(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let Link::Up(wire) = &mut self.link else { return Ok(()) };
        wire.push()?;
        while self.out_sent < self.out.len() {
            match wire.write(&self.out[self.out_sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => self.out_sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let full = self.out_sent < self.out.len() || wire.seals_left();
        if !full {
            self.out.clear();
            self.out_sent = 0;
        }
        if full != self.awaits_room {
            let flags = if full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(epoll, wire.socket(), EventData::new_u64(self.slot), flags)?;
            self.awaits_room = full;
        }
        Ok(())
    }

    /// Reads what is there. `Ok(true)`: the buffer filled up, so there may be more.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        let Link::Up(wire) = &mut self.link else { return Ok(false) };
        if self.input_len == self.input.len() {
            // A reply larger than the buffer. The driver bounds it by refusing garbage.
            self.input.resize(self.input.len() * 2, 0);
        }
        loop {
            match wire.read(&mut self.input[self.input_len..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    self.input_len += bytes;
                    return Ok(self.input_len == self.input.len());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes read and not yet consumed.
    pub(crate) fn input(&self) -> &[u8] {
        &self.input[..self.input_len]
    }

    /// Drops the first `bytes` bytes of [`Conn::input`].
    pub(crate) fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.input_len, "only what was read can be consumed");
        self.input.copy_within(bytes..self.input_len, 0);
        self.input_len -= bytes;
    }

    /// Gives the connection up until its back-off has passed.
    pub(crate) fn break_off(&mut self, now_ns: u64) {
        // Closing the socket takes it out of the epoll set.
        self.link = Link::Down { retry_ns: now_ns + self.back_off_ns };
        self.back_off_ns = (self.back_off_ns * 2).min(BACK_OFF_NS_MAX);
        self.out.clear();
        self.out_sent = 0;
        self.awaits_room = false;
        self.input_len = 0;
    }

    /// Starts to connect again, without waiting.
    pub(crate) fn reopen(&mut self, epoll: &OwnedFd, now_ns: u64) {
        match self.start_connect(epoll) {
            Ok(stream) => self.link = Link::Opening(stream),
            Err(_) => self.break_off(now_ns),
        }
    }

    fn start_connect(&self, epoll: &OwnedFd) -> io::Result<TcpStream> {
        let family = if self.addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &self.addr) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        epoll::add(epoll, &stream, EventData::new_u64(self.slot), EventFlags::OUT)?;
        Ok(stream)
    }

    /// Called when epoll reports something. `true`: the connection has just come up.
    pub(crate) fn came_up<P: Protocol>(&mut self, epoll: &OwnedFd, now_ns: u64) -> bool {
        let Link::Opening(_) = &self.link else { return false };
        let Link::Opening(stream) = std::mem::replace(&mut self.link, Link::Down { retry_ns: 0 })
        else {
            unreachable!("checked above");
        };
        match self.begin::<P>(epoll, stream) {
            Ok(wire) => self.link = Link::Up(wire),
            Err(_) => self.break_off(now_ns),
        }
        self.is_up()
    }

    fn begin<P: Protocol>(&self, epoll: &OwnedFd, stream: TcpStream) -> io::Result<Wire> {
        sockopt::socket_error(&stream)??;
        let wire = greet::<P>(stream, self.addr, self.manner, &self.access)?;
        epoll::modify(epoll, wire.socket(), EventData::new_u64(self.slot), EventFlags::IN)?;
        Ok(wire)
    }

    /// A reply came: the server is well, and the next break starts with a short pause again.
    pub(crate) fn is_well(&mut self) {
        self.back_off_ns = BACK_OFF_NS_MIN;
    }
}

/// Begins a connection: TLS, a password, and what the protocol says first. Once per connection, so it may block.
pub(crate) fn greet<P: Protocol>(
    stream: TcpStream,
    addr: SocketAddr,
    manner: Manner,
    access: &Access,
) -> io::Result<Wire> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    let mut wire = Wire::begin(stream, access.tls.as_ref(), addr)?;
    if let Some(login) = &access.login {
        P::login(&mut wire, login)?;
    }
    P::hello(&mut wire, manner)?;
    wire.socket().set_nonblocking(true)?;
    Ok(wire)
}
