//! A connection's bytes, plain or sealed, over one socket that does not wait.
//!
//! ```text
//!  read   ◄── opened ◄── rustls ◄── socket            a read goes on until there is something opened, or the socket is empty
//!  write  ──► sealed ──► rustls ──► socket            what the socket does not take stays with rustls: `seals_left`
//! ```

use crate::access::Tls;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// One connection's bytes.
#[derive(Debug)]
pub(crate) enum Wire {
    /// As they are.
    Plain(TcpStream),
    /// In TLS.
    Tls(Box<ClientConnection>, TcpStream),
}

impl Wire {
    /// Begins to speak, over a socket that waits: of TLS the handshake is done when this returns.
    pub(crate) fn begin(
        mut socket: TcpStream,
        tls: Option<&Tls>,
        addr: SocketAddr,
    ) -> io::Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(socket)) };
        let name = tls.name.clone().unwrap_or_else(|| ServerName::from(addr.ip()));
        let session = ClientConnection::new(Arc::clone(&tls.config), name);
        let mut session = Box::new(session.map_err(io::Error::other)?);
        while session.is_handshaking() {
            if session.complete_io(&mut socket)? == (0, 0) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self::Tls(session, socket))
    }

    /// The socket, for epoll and its options.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) | Self::Tls(_, socket) => socket,
        }
    }

    /// Whether something was written that the socket has not taken yet.
    pub(crate) fn seals_left(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(session, _) => session.wants_write(),
        }
    }

    /// Gives the socket what it has not taken yet, as far as it takes it.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        let Self::Tls(session, socket) = self else { return Ok(()) };
        while session.wants_write() {
            match session.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (session, socket) = match self {
            Self::Plain(socket) => return socket.read(buffer),
            Self::Tls(session, socket) => (session, socket),
        };
        loop {
            match session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                opened => return opened,
            }
            session.read_tls(socket)?;
            session
                .process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What is there already goes first: rustls keeps only so much.
        self.push()?;
        let taken = match self {
            Self::Plain(socket) => return socket.write(bytes),
            Self::Tls(session, _) => session.writer().write(bytes)?,
        };
        self.push()?;
        // Nothing was taken, because the socket did not take what was there. It may have by now, but that is no end.
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
    use std::net::TcpListener;
    use std::sync::mpsc;

    #[test]
    fn what_the_socket_does_not_take_is_kept_and_goes_when_there_is_room() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = server.with_single_cert(vec![cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (go, going) = mpsc::channel::<usize>();
        let reader = std::thread::spawn(move || {
            let mut socket = listener.accept().unwrap().0;
            let mut session = ServerConnection::new(Arc::new(server)).unwrap();
            while session.is_handshaking() {
                session.complete_io(&mut socket).unwrap();
            }
            // Reads nothing until it is told how much there is.
            let mut all = vec![0; going.recv().unwrap()];
            StreamOwned::new(session, socket).read_exact(&mut all).unwrap();
            all
        });
        let tls = Tls { config: Arc::new(client), name: None };
        let socket = TcpStream::connect(addr).unwrap();
        let mut wire = Wire::begin(socket, Some(&tls), addr).unwrap();
        wire.socket().set_nonblocking(true).unwrap();
        assert!(!wire.seals_left());
        let mut written = 0;
        let full = loop {
            match wire.write(&[b'x'; 10_000]) {
                Ok(taken) => written += taken,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        assert!(wire.seals_left(), "the socket is full, and rustls too");
        go.send(written).unwrap();
        while wire.seals_left() {
            wire.push().unwrap();
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap(), vec![b'x'; written]);
    }
}
