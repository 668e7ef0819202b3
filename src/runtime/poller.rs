//! Which sockets have something for us: one epoll set per core, polled once per turn.
//!
//! # Why not a glommio stream per connection
//!
//! glommio reads a socket by asking io_uring to poll it, parking a task, and then calling `recv`
//! when the task is woken: for each message a submission, a completion, a task switch and a
//! syscall, and its ring interrupts the core for each completion (it does not set COOP_TASKRUN;
//! 53–57k round trips/s over 32 connections measured, against 132k with it). A shard wants the
//! opposite: everything that is ready *now*, at once, so that one turn gathers many requests into
//! one disk write. So sockets live in one epoll set: one `epoll_wait` that never waits, one `recv`
//! per ready socket, no task, no waker and no buffer for an idle connection.
//!
//! The epoll descriptor is itself pollable: the core sleeps in its ring ([`super::ring`]), which watches that
//! one descriptor for all sockets.
//!
//! Where the kernel can (Linux 6.12), that ring receives from clients itself; then the set has the links between nodes,
//! the listening sockets, and clients that take no more replies at the moment.
//!
//! Readiness is level-triggered: a socket that was not read empty is reported again, so a turn may
//! read a bounded amount of each and nobody starves.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;

/// Most sockets reported by one poll; the rest are reported by the next.
const READY_MAX: usize = 1024;

/// Whose socket it is, as a number that the kernel keeps for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The mailbox's bell.
    Bell,
    /// The client port.
    ClientPort,
    /// The peer port.
    PeerPort,
    /// A client, by its key.
    Client(u64),
    /// A link that we send on, by its place.
    Link(u64),
    /// A connection that a peer sends on, by its key.
    Peer(u64),
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        match token {
            Token::Bell => 0,
            Token::ClientPort => 1,
            Token::PeerPort => 2,
            Token::Client(key) => key << 3 | 3,
            Token::Link(key) => key << 3 | 4,
            Token::Peer(key) => key << 3 | 5,
        }
    }
}

impl Token {
    /// The token of this number; `None` for a number that was never given out.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        let key = number >> 3;
        match number & 7 {
            0 => Some(Self::Bell),
            1 => Some(Self::ClientPort),
            2 => Some(Self::PeerPort),
            3 => Some(Self::Client(key)),
            4 => Some(Self::Link(key)),
            5 => Some(Self::Peer(key)),
            _ => None,
        }
    }
}

/// What a socket waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// Report when there is something to receive, or the peer has closed.
    pub read: bool,
    /// Report when there is room to send.
    pub write: bool,
}

impl Interest {
    /// Only receive.
    pub const READ: Self = Self { read: true, write: false };
    /// Only send.
    pub const WRITE: Self = Self { read: false, write: true };

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        if self.read {
            flags |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        }
        if self.write {
            flags |= epoll::EventFlags::OUT;
        }
        flags
    }
}

/// One socket that has something for us.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The number it was added under.
    pub token: u64,
    /// There is something to receive, or an error to find out about.
    pub readable: bool,
    /// There is room to send, or an error to find out about.
    pub writable: bool,
    /// The connection is broken, or closed in both directions. Reported even when nothing is
    /// waited for, again and again, until the socket is closed.
    pub failed: bool,
}

/// The sockets of one core. One per core.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(READY_MAX) })
    }

    /// Watch a socket; it is reported under `token`. Closing the socket ends it.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Watch a listening socket that other cores watch too: a connection wakes one of them.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub fn add_shared(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?)
    }

    /// Change what a watched socket waits for.
    ///
    /// # Errors
    /// When the socket is not watched.
    pub fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Stop watching a socket that stays open.
    ///
    /// # Errors
    /// When the socket is not watched.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Append what is ready to `ready`. Never waits.
    ///
    /// # Errors
    /// Never in practice; the caller treats it as the end of the core.
    pub fn poll(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        let now = rustix::event::Timespec::try_from(Duration::ZERO).ok();
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            now.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in self.events.drain(..) {
            let flags = event.flags;
            let failed = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            ready.push(Ready {
                token: event.data.u64(),
                readable: failed
                    || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
                writable: failed || flags.contains(epoll::EventFlags::OUT),
                failed,
            });
        }
        Ok(())
    }

    /// The set itself, which is readable when one of its sockets is ready: for [`super::ring`] to wait on.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.epoll.try_clone()
    }
}
