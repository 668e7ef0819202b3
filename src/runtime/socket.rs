//! Sockets as this system wants them: bound once, never waiting, no delay.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::SendFlags;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections the kernel holds for us until we accept them.
const BACKLOG: i32 = 1024;
/// A peer that acknowledges nothing for this long is gone. The kernel sends again what is not acknowledged
/// after 0.2, 0.6, 1.4, 3 and 6.2 s: were a connection kept longer than this, a network that is well again
/// would be silent for longer than it takes to connect anew.
const PEER_TIMEOUT: Duration = Duration::from_millis(1500);

/// Listen on `address`. Without SO_REUSEPORT, which would let a second process share the port and
/// steal half of the connections instead of being refused.
///
/// # Errors
/// When the address is in use or not ours.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Begin to connect; the socket becomes writable when it is, or when it has failed.
///
/// # Errors
/// When the attempt fails at once.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let stream = TcpStream::from(socket);
    prepare_peer(&stream)?;
    Ok(stream)
}

/// Set up an accepted client connection.
///
/// # Errors
/// When it has failed already.
pub fn prepare_client(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)
}

/// Set up a connection between nodes: a peer that vanished without a word is noticed.
///
/// # Errors
/// When it has failed already.
pub fn prepare_peer(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    let keepalive =
        TcpKeepalive::new().with_time(PEER_TIMEOUT).with_interval(Duration::from_secs(1));
    socket.set_tcp_keepalive(&keepalive)
}

/// Send what the socket takes of `bytes`; `None` when it takes nothing now.
///
/// # Errors
/// Whatever the socket reports; the caller closes it.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(Some(sent)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Send a few bytes that a fresh connection surely takes.
///
/// # Errors
/// When it does not.
pub fn send_all(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    match send(socket, bytes)? {
        Some(sent) if sent == bytes.len() => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::WouldBlock, "a new connection takes no bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_between_nodes_is_given_up_before_the_kernel_waits_for_two_seconds() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let dialed = connect(listener.local_addr().unwrap()).unwrap();
        let limit = SockRef::from(&dialed).tcp_user_timeout().unwrap().expect("it is set");
        // The third pause of the kernel is of 0.8 s, the fourth of 1.6 s, from 1.4 s on.
        assert!(limit <= Duration::from_millis(1_400 + 800), "{limit:?}");
    }
}
