//! One side of one TLS connection: sealed bytes in, plain bytes out, and back. It owns no socket and
//! waits for nothing.
//!
//! ```text
//!   socket ──► open(sealed) ──► plain bytes
//!                  │ what the handshake has to answer
//!                  ▼
//!   socket ◄── seal(plain) ◄── plain bytes
//! ```
//!
//! A handshake is nothing special: it makes `open` give no bytes, and `seal` give some for none.

use std::io::{self, BufRead as _, IoSlice, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

/// Plain bytes are sealed in pieces of this size; less than rustls holds at once.
const PIECE_BYTES: usize = 32 << 10;

/// A TLS connection. One per connection that speaks it.
#[derive(Debug)]
pub struct Session {
    inner: Connection,
    /// The other side has said that nothing more comes.
    ended: bool,
}

impl Session {
    /// The side that was dialed.
    ///
    /// # Errors
    /// Never with the configurations of [`super::keyring`].
    pub fn accept(config: Arc<ServerConfig>) -> io::Result<Self> {
        let inner = ServerConnection::new(config).map_err(refused)?;
        Ok(Self { inner: inner.into(), ended: false })
    }

    /// The side that dials `address`.
    ///
    /// # Errors
    /// Never with the configurations of [`super::keyring`].
    pub fn dial(config: Arc<ClientConfig>, address: SocketAddr) -> io::Result<Self> {
        let name = ServerName::from(address.ip());
        let inner = ClientConnection::new(config, name).map_err(refused)?;
        Ok(Self { inner: inner.into(), ended: false })
    }

    /// Whether the other side has still to prove itself.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    /// Whether the other side has said that nothing more comes.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes what has arrived, all of it, and appends what it says to `plain`.
    ///
    /// # Errors
    /// If it is no TLS, was tampered with, or the other side does not prove itself; then [`seal`](Self::seal)
    /// gives what the other side should hear of it.
    pub fn open(&mut self, mut sealed: &[u8], plain: &mut BytesMut) -> io::Result<()> {
        while !sealed.is_empty() && !self.ended {
            self.inner.read_tls(&mut sealed)?;
            let state = self.inner.process_new_packets().map_err(refused)?;
            let mut waiting = state.plaintext_bytes_to_read();
            while 0 < waiting {
                let mut reader = self.inner.reader();
                let bytes = reader.fill_buf()?;
                let count = bytes.len();
                plain.extend_from_slice(bytes);
                reader.consume(count);
                waiting -= count;
            }
            self.ended = state.peer_has_closed();
        }
        Ok(())
    }

    /// Appends to `sealed` what is to be sent so that the other side reads `plain`; with nothing to say,
    /// what the protocol itself has to say.
    ///
    /// # Errors
    /// If more is said than rustls keeps before the handshake is over; nobody does.
    pub fn seal(&mut self, plain: &[u8], sealed: &mut BytesMut) -> io::Result<()> {
        for piece in plain.chunks(PIECE_BYTES) {
            self.inner.writer().write_all(piece)?;
            self.take_sealed(sealed)?;
        }
        self.take_sealed(sealed)
    }

    /// As [`seal`](Self::seal), for as much of `slices` as is sealed in one go; says how much that was.
    ///
    /// # Errors
    /// As there.
    pub fn seal_some(
        &mut self,
        slices: &[IoSlice<'_>],
        sealed: &mut BytesMut,
    ) -> io::Result<usize> {
        let count = self.inner.writer().write_vectored(slices)?;
        self.take_sealed(sealed)?;
        Ok(count)
    }

    /// Says that nothing more will be said.
    pub fn end(&mut self) {
        self.inner.send_close_notify();
    }

    fn take_sealed(&mut self, sealed: &mut BytesMut) -> io::Result<()> {
        let mut sealed = sealed.writer();
        while self.inner.wants_write() {
            self.inner.write_tls(&mut sealed)?;
        }
        Ok(())
    }
}

fn refused(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {error}"))
}
