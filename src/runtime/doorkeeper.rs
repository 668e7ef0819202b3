//! What clients were refused for: counted, and told in one line a second at most, so that whoever
//! tries passwords does not fill the disk with what is written about it.

use std::net::{SocketAddr, TcpStream};

use crate::id::{ShardId, Tick};

/// How often it is told, in ms.
const TOLD_MS: u64 = 1000;

/// Refusals of one core since they were last told. Passwords are not among what it is given.
#[derive(Debug, Default)]
pub struct Doorkeeper {
    wrong_passwords: u64,
    failed_handshakes: u64,
    http_requests: u64,
    /// Whom it happened to last, and why.
    last: Option<(Option<SocketAddr>, String)>,
    told_at: Tick,
}

impl Doorkeeper {
    /// A client said wrong passwords, so many.
    pub fn note_wrong_passwords(&mut self, count: u32, socket: &TcpStream) {
        if 0 < count {
            self.wrong_passwords += u64::from(count);
            self.last = Some((socket.peer_addr().ok(), "wrong password".into()));
        }
    }

    /// A client spoke HTTP: a page in a browser that was told to send commands, most likely.
    pub fn note_http(&mut self, socket: &TcpStream) {
        self.http_requests += 1;
        self.last =
            Some((socket.peer_addr().ok(), "HTTP on the port of the Redis protocol".into()));
    }

    /// A client's handshake came to nothing.
    pub fn note_handshake(&mut self, why: String, socket: &TcpStream) {
        self.failed_handshakes += 1;
        self.last = Some((socket.peer_addr().ok(), why));
    }

    /// Tells what has come together, if it is time to.
    pub fn tell(&mut self, core: ShardId, now: Tick) {
        if now.since(self.told_at) < TOLD_MS {
            return;
        }
        let Some((address, reason)) = self.last.take() else { return };
        let address = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let Self { wrong_passwords, failed_handshakes, http_requests, .. } = *self;
        tracing::warn!(
            %core, wrong_passwords, failed_handshakes, http_requests, last = %address, %reason, "clients refused",
        );
        *self = Self { told_at: now, ..Self::default() };
    }
}
