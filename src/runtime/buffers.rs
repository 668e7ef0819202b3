//! Receiving without zeroing, and file descriptors that glommio owns: the places outside
//! [`super::mapped`] where the shell needs `unsafe`.
//!
//! # Who owns received bytes
//!
//! A command's bytes are kept by whoever needs them (the log cache, a WAL write, a frame to a
//! follower) as refcounted slices of the buffer the kernel wrote them into. So the size of that
//! buffer decides how much memory one kept entry pins. One buffer per connection would let 10,000
//! connections with one kept entry each pin 160 MiB of mostly empty memory; therefore all
//! connections of a core receive into one [`Chunk`], one after another, and entries that are close
//! in time are close in memory, and leave together.

#![allow(
    unsafe_code,
    reason = "kernel-written bytes become initialised here, and a raw descriptor changes hands; both are local to this file"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bytes::BytesMut;
use glommio::io::DmaFile;
use rustix::net::RecvFlags;

use super::tls::Session;

/// Fresh memory is taken in pieces of this size, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// A receive is not started with less room than this, in bytes.
const RECEIVE_BYTES_MIN: usize = 16 << 10;

/// What one receive brought.
#[derive(Debug)]
pub enum Received {
    /// Bytes; `more` when they filled all the room there was, so that more may be waiting.
    Bytes {
        /// What arrived.
        bytes: BytesMut,
        /// The socket may hold more.
        more: bool,
    },
    /// Nothing is waiting.
    Nothing,
    /// The peer has closed its side.
    Closed,
}

/// Memory that the sockets of one core receive into. One per core.
#[derive(Debug, Default)]
pub struct Chunk {
    free: BytesMut,
    /// What TLS connections receive into; empty until there is one.
    sealed: Vec<u8>,
}

impl Chunk {
    /// Receive what is waiting on `socket`, without blocking.
    ///
    /// # Errors
    /// Whatever the socket reports; the caller closes it.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<Received> {
        if self.free.capacity() < RECEIVE_BYTES_MIN {
            // Reclaims the old memory when no slice of it is left, takes fresh memory otherwise.
            self.free.reserve(CHUNK_BYTES);
        }
        match receive_into(socket, &mut self.free)? {
            None => Ok(Received::Nothing),
            Some(0) => Ok(Received::Closed),
            Some(_) => {
                let more = self.free.len() == self.free.capacity();
                Ok(Received::Bytes { bytes: self.free.split(), more })
            }
        }
    }

    /// The same over TLS: only what it says lies in the memory that is kept.
    ///
    /// # Errors
    /// Whatever the socket reports, and what is not of this session.
    pub fn receive_sealed(
        &mut self,
        socket: impl AsFd,
        session: &mut Session,
    ) -> io::Result<Received> {
        if session.has_ended() {
            return Ok(Received::Closed);
        }
        self.sealed.resize(CHUNK_BYTES, 0);
        let count = match receive(socket, &mut self.sealed)? {
            None => return Ok(Received::Nothing),
            Some(0) => return Ok(Received::Closed),
            Some(count) => count,
        };
        let sealed = std::mem::take(&mut self.sealed);
        let opened = self.open(&sealed[..count], session);
        self.sealed = sealed;
        // The end may have come with the rest: then there is one more thing to be said.
        let more = count == self.sealed.len() || session.has_ended();
        Ok(Received::Bytes { bytes: opened?, more })
    }

    /// What a TLS session makes of bytes that were received.
    ///
    /// # Errors
    /// When they are not of this session.
    pub fn open(&mut self, sealed: &[u8], session: &mut Session) -> io::Result<BytesMut> {
        if self.free.capacity() < sealed.len() {
            self.free.reserve(CHUNK_BYTES);
        }
        let opened = session.open(sealed, &mut self.free);
        let bytes = self.free.split();
        opened.map(|()| bytes)
    }
}

/// Append what is waiting on `socket` to `buffer`, into the capacity it has. `None` when nothing
/// is waiting, `Some(0)` when the peer has closed.
///
/// # Errors
/// Whatever the socket reports; the caller closes it.
pub fn receive_into(socket: impl AsFd, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
    debug_assert!(buffer.capacity() > buffer.len(), "an empty receive would look like a close");
    match rustix::net::recv(socket, buffer.spare_capacity_mut(), RecvFlags::DONTWAIT) {
        Ok((_, count)) => {
            let len = buffer.len() + count;
            // SAFETY: `recv` has written `count` bytes at the start of the spare capacity, so
            // everything before `len` is initialised, and `len` does not exceed the capacity
            // because `recv` was given exactly the spare capacity as its bound.
            unsafe { buffer.set_len(len) };
            Ok(Some(count))
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Read what is waiting on `socket` into memory that is initialised already. `None` when nothing is
/// waiting, `Some(0)` when the peer has closed.
///
/// # Errors
/// Whatever the socket reports; the caller closes it.
pub fn receive(socket: impl AsFd, space: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::net::recv(socket, space, RecvFlags::DONTWAIT) {
        Ok((_, count)) => Ok(Some(count)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The kernel's smoothed round trip on a TCP connection, in µs, if it has measured one.
#[must_use]
pub fn round_trip_us(socket: &std::net::TcpStream) -> Option<u32> {
    // SAFETY: all of `tcp_info` is integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut bytes = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed, and the kernel writes at most `bytes`
    // bytes to `info`, which are there.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut bytes,
        )
    };
    (result == 0 && 0 < info.tcpi_rtt).then_some(info.tcpi_rtt)
}

/// The same opening of the file, for whoever needs it closed when it says so. glommio only notes down what is to be
/// closed, and forgets the note when its executor ends: in a process that lives on, the file would stay open.
pub(super) fn own(file: &DmaFile) -> io::Result<File> {
    // SAFETY: `file` is open for as long as it is borrowed here, and the copy is a descriptor of its own.
    let fd = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    fd.try_clone_to_owned().map(File::from)
}
