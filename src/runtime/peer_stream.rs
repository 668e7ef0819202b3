//! A connection between two nodes, in the clear or over TLS: what links send on and the peer port reads
//! from.
//!
//! ```text
//!   lanes ──► send ─┬─ in the clear ─────────────────────────────────► socket
//!                   └─ Session::seal ──► sealed, until it has left ──►
//!
//!   frame reader ◄── receive ─┬─ in the clear ◄────────────────────── socket
//!                             └─ plain, until it is taken ◄── Session::open ◄──
//! ```
//!
//! Over TLS a handshake happens on the way: what is said before its end leaves after it, and
//! `receive` gives nothing until then.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};

use bytes::{Buf as _, BytesMut};

use super::buffers;
use super::keyring::PeerKeys;
use super::lanes::{Outlet, Plain};
use super::socket;
use super::tls::Session;

/// What one receive takes from the socket at most, in bytes.
const RECEIVE_BYTES: usize = 64 << 10;

/// One connection to or from a peer.
#[derive(Debug)]
pub struct PeerStream {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
}

#[derive(Debug)]
struct Tls {
    session: Session,
    /// Sealed, and not yet taken by the socket.
    sealed: BytesMut,
    /// Received and opened, and not yet taken by the reader.
    plain: BytesMut,
    /// What the socket writes into.
    inbox: Vec<u8>,
}

impl PeerStream {
    /// The side that was dialed.
    ///
    /// # Errors
    /// When TLS cannot begin.
    pub fn accept(socket: TcpStream, keys: Option<&PeerKeys>) -> io::Result<Self> {
        let session = keys.map(|keys| Session::accept(keys.server.clone())).transpose()?;
        Ok(Self { socket, tls: session.map(Tls::new) })
    }

    /// The side that has dialed `address`.
    ///
    /// # Errors
    /// When TLS cannot begin.
    pub fn dial(
        socket: TcpStream,
        address: SocketAddr,
        keys: Option<&PeerKeys>,
    ) -> io::Result<Self> {
        let session = keys.map(|keys| Session::dial(keys.client.clone(), address)).transpose()?;
        Ok(Self { socket, tls: session.map(Tls::new) })
    }

    /// Its socket, to be watched.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Read what is waiting into `space`. `None` when nothing is waiting, `Some(0)` when the peer has
    /// closed.
    ///
    /// # Errors
    /// Whatever the socket reports, and a peer that does not prove itself; the caller closes it.
    pub fn receive(&mut self, space: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else { return buffers::receive(&self.socket, space) };
        if tls.plain.is_empty() {
            match tls.fill(&self.socket)? {
                Some(0) => return Ok(Some(0)),
                Some(_) if !tls.plain.is_empty() => {}
                Some(_) | None => return Ok(None),
            }
        }
        let count = tls.plain.len().min(space.len());
        tls.plain.copy_to_slice(&mut space[..count]);
        if tls.plain.is_empty() {
            // A quiet link keeps no memory for what it might say.
            tls.plain = BytesMut::new();
        }
        Ok(Some(count))
    }

    /// Whether [`receive`](Self::receive) has something although the socket may have nothing: then nothing
    /// would wake us for it.
    #[must_use]
    pub fn holds_more(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.plain.is_empty())
    }

    /// Send a few bytes that a fresh connection surely takes.
    ///
    /// # Errors
    /// When it does not.
    pub fn send_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return socket::send_all(&self.socket, bytes) };
        tls.session.seal(bytes, &mut tls.sealed)?;
        if tls.flush(&self.socket)? {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "a new connection takes no bytes"))
    }
}

impl Outlet for PeerStream {
    fn send(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else { return Plain(&self.socket).send(slices) };
        let (mut rest, mut taken) = (slices, 0);
        // What is sealed is out of the lanes' order, so there is never more of it than one piece.
        while tls.flush(&self.socket)? && !rest.is_empty() {
            let count = tls.session.seal_some(rest, &mut tls.sealed)?;
            if count == 0 {
                break;
            }
            IoSlice::advance_slices(&mut rest, count);
            taken += count;
        }
        Ok((0 < taken).then_some(taken))
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.tls.as_mut().map_or(Ok(true), |tls| tls.flush(&self.socket))
    }
}

impl Tls {
    fn new(session: Session) -> Box<Self> {
        let (sealed, plain) = (BytesMut::new(), BytesMut::new());
        Box::new(Self { session, sealed, plain, inbox: vec![0; RECEIVE_BYTES] })
    }

    /// Open what is waiting. `None` when nothing is, `Some(0)` at the end.
    fn fill(&mut self, socket: &TcpStream) -> io::Result<Option<usize>> {
        if self.session.has_ended() {
            return Ok(Some(0));
        }
        let count = match buffers::receive(socket, &mut self.inbox)? {
            Some(count) if 0 < count => count,
            nothing => return Ok(nothing),
        };
        let opened = self.session.open(&self.inbox[..count], &mut self.plain);
        // The next step of the handshake, or why there is none.
        let answered = self.session.seal(&[], &mut self.sealed).and_then(|()| self.flush(socket));
        opened?;
        answered?;
        Ok(Some(count))
    }

    /// Whether all that is sealed has left.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<bool> {
        while !self.sealed.is_empty() {
            match socket::send(socket, &self.sealed)? {
                Some(sent) => self.sealed.advance(sent),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use bytes::Bytes;

    use super::*;
    use crate::config::{Security, TlsFiles};
    use crate::id::{ClusterId, GroupId, Incarnation, NodeId, ShardId};
    use crate::runtime::certificates::Authority;
    use crate::runtime::keyring::Keyring;
    use crate::runtime::lanes::{Lanes, Sent};
    use crate::runtime::scratch::Scratch;
    use crate::wire::{Forward, FrameBuilder, FrameReader, Lane, OutFrame, Route};

    fn keys(files: TlsFiles) -> PeerKeys {
        let security = Security { peer: Some(files), ..Security::default() };
        Keyring::open(&security).unwrap().keys().peers.unwrap()
    }

    /// The dialing end with its keys, and the dialed end with its own.
    fn pair(dials: Option<&PeerKeys>, dialed: Option<&PeerKeys>) -> (PeerStream, PeerStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ours = TcpStream::connect(address).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        for socket in [&ours, &theirs] {
            socket::prepare_peer(socket).unwrap();
        }
        let ours = PeerStream::dial(ours, address, dials).unwrap();
        (ours, PeerStream::accept(theirs, dialed).unwrap())
    }

    fn frame(mark: u64, payload: &'static [u8]) -> OutFrame {
        let mut builder = FrameBuilder::new();
        let body = Bytes::from_static(payload);
        builder.forward(Forward { id: mark, group: GroupId(0), flags: 0, body });
        let route = Route {
            cluster: ClusterId(1),
            from: NodeId(1),
            to: NodeId(2),
            incarnation: Incarnation(1),
            shard: ShardId(0),
        };
        builder.finish(&route, Lane::Append)
    }

    /// Both ends take turns until `until` holds; an error of either ends it.
    fn take_turns(
        ours: &mut PeerStream,
        theirs: &mut PeerStream,
        mut until: impl FnMut(&[u8]) -> bool,
    ) -> (io::Result<()>, io::Result<()>) {
        let mut heard = Vec::new();
        for _ in 0..1_000_000 {
            let mut space = [0; 4096];
            match theirs.receive(&mut space) {
                Ok(Some(0)) => return (Ok(()), Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(Some(count)) => heard.extend_from_slice(&space[..count]),
                Ok(None) => {}
                Err(error) => return (ours.receive(&mut space).map(|_| ()), Err(error)),
            }
            if until(&heard) {
                return (Ok(()), Ok(()));
            }
            match ours.receive(&mut space) {
                Ok(None) => {}
                Ok(Some(count)) => panic!("{count} bytes on a connection that is ours to speak on"),
                Err(error) => return (Err(error), theirs.receive(&mut space).map(|_| ())),
            }
            std::thread::yield_now();
        }
        panic!("nothing came of it");
    }

    #[test]
    fn every_byte_arrives_once_with_and_without_tls() {
        static PAYLOAD: [u8; 50_000] = [7; 50_000];
        let scratch = Scratch::new("peer-stream");
        let keys = keys(Authority::new("ours").sign(scratch.path()));
        for keys in [None, Some(&keys)] {
            let (mut ours, mut theirs) = pair(keys, keys);
            ours.send_all(b"hello").unwrap();
            let (one, other) = take_turns(&mut ours, &mut theirs, |heard| heard == b"hello");
            one.and(other).unwrap();
            let mut lanes = Lanes::default();
            for mark in 0..100 {
                lanes.push(frame(mark, &PAYLOAD)).unwrap();
            }
            let (mut reader, mut marks, mut blocked) = (FrameReader::new(), Vec::new(), 0);
            while marks.len() < 100 {
                // The socket is read only when it is full, as by a peer that is busy.
                while lanes.send(&mut ours).unwrap() != Sent::All {
                    blocked += 1;
                    while let Some(count) = theirs.receive(reader.space()).unwrap() {
                        reader.filled(count);
                    }
                    std::thread::yield_now();
                }
                while let Some(count) = theirs.receive(reader.space()).unwrap() {
                    reader.filled(count);
                }
                while let Some(frame) = reader.next().unwrap() {
                    marks.extend(frame.forwards().map(|forward| forward.id));
                }
            }
            assert_eq!(marks, (0..100).collect::<Vec<_>>());
            assert!(0 < blocked, "5 MB should not fit a socket's buffer");
            assert!(!theirs.holds_more());
        }
    }

    #[test]
    fn who_was_signed_for_by_nobody_we_know_is_refused_by_both_sides() {
        let scratch = Scratch::new("peer-strangers");
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let good = keys(ours.sign(scratch.path()));
        let foreign = theirs.sign(scratch.path());
        let ca = scratch.path().join("ours-ca.pem");
        // It trusts us, and shows what we do not trust.
        let intruder = keys(TlsFiles { ca: Some(ca), ..foreign });
        let (mut dials, mut dialed) = pair(Some(&intruder), Some(&good));
        dials.send_all(b"let me in").unwrap();
        let (_, refused) = take_turns(&mut dials, &mut dialed, |heard| !heard.is_empty());
        assert!(refused.unwrap_err().to_string().contains("certificate"));

        let (mut dials, mut dialed) = pair(Some(&good), Some(&intruder));
        dials.send_all(b"vote for me").unwrap();
        let (refused, _) = take_turns(&mut dials, &mut dialed, |heard| !heard.is_empty());
        assert!(refused.unwrap_err().to_string().contains("certificate"));

        // In the clear, nothing is understood.
        for (one, other) in [(None, Some(&good)), (Some(&good), None)] {
            let (mut dials, mut dialed) = pair(one, other);
            dials.send_all(b"OUTRIGGER in the clear").unwrap();
            let mut space = [0; 4096];
            let heard = loop {
                match dialed.receive(&mut space) {
                    Ok(None) => std::thread::yield_now(),
                    Ok(Some(count)) => break Some(space[..count].to_vec()),
                    Err(_) => break None,
                }
            };
            assert!(heard.is_none_or(|heard| !heard.starts_with(b"OUTRIGGER")));
        }
    }
}
