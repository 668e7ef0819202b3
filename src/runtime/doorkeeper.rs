//! What clients and peers were refused for: counted, and told in one line a second at most, so that whoever
//! tries passwords, or throws bytes at the peer port, does not fill the disk with what is written about it.

use std::net::{SocketAddr, TcpStream};

use crate::id::{ShardId, Tick};
use crate::limits::OUTPUT_BYTES_OF_CORE_MAX;

/// How often it is told, in ms.
const TOLD_MS: u64 = 1000;

/// Refusals of one core since they were last told. Passwords are not among what it is given.
#[derive(Debug, Default)]
pub struct Doorkeeper {
    wrong_passwords: u64,
    failed_handshakes: u64,
    http_requests: u64,
    slow_readers: u64,
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

    /// A client is closed because it left so many bytes of replies unread.
    pub fn note_slow_reader(&mut self, unread_bytes: usize, socket: &TcpStream) {
        self.slow_readers += 1;
        let reason = format!(
            "it left {unread_bytes} bytes of replies unread, the most of the core's clients, which left over \
             {OUTPUT_BYTES_OF_CORE_MAX} together"
        );
        self.last = Some((socket.peer_addr().ok(), reason));
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
        let Self { wrong_passwords, failed_handshakes, http_requests, slow_readers, .. } = *self;
        tracing::warn!(
            %core, wrong_passwords, failed_handshakes, http_requests, slow_readers, last = %address, %reason,
            "clients refused",
        );
        *self = Self { told_at: now, ..Self::default() };
    }
}

/// Connections to the peer port that one core refused since that was last told.
#[derive(Debug, Default)]
pub struct PeerDoorkeeper {
    refused: u64,
    /// Whom it happened to last, and why.
    last: Option<(SocketAddr, String)>,
    told_at: Option<Tick>,
}

impl PeerDoorkeeper {
    /// A connection was refused. The first one, and the first after a quiet second, is told at once.
    pub fn note(&mut self, address: SocketAddr, reason: String, now: Tick) {
        self.refused += 1;
        self.last = Some((address, reason));
        self.tell(now);
    }

    /// Tells what has come together, if it is time to.
    pub fn tell(&mut self, now: Tick) {
        if let Some((count, address, reason)) = self.take(now) {
            tracing::warn!(count, last = %address, reason, "peer refused");
        }
    }

    /// How many, the last address and its reason, if it is time to tell.
    fn take(&mut self, now: Tick) -> Option<(u64, SocketAddr, String)> {
        if self.told_at.is_some_and(|told| now.since(told) < TOLD_MS) {
            return None;
        }
        let (address, reason) = self.last.take()?;
        self.told_at = Some(now);
        Some((std::mem::take(&mut self.refused), address, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_peer_is_told_at_once_and_the_others_once_a_second() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut door = PeerDoorkeeper::default();
        let mut told = Vec::new();
        for ms in 0..2500 {
            door.refused += 15;
            door.last = Some((address, format!("at {ms}")));
            told.extend(door.take(Tick(ms)).map(|(count, _, reason)| (count, reason)));
        }
        let expected = [(15, "at 0"), (15_000, "at 1000"), (15_000, "at 2000")];
        assert_eq!(told, expected.map(|(count, reason)| (count, reason.to_owned())));
        assert_eq!(door.take(Tick(3000)).map(|(count, ..)| count), Some(499 * 15), "the rest");
        assert_eq!(door.take(Tick(9000)), None, "nothing to tell");
    }
}
