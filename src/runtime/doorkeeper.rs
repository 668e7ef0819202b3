//! What clients and peers were refused for: counted, and told in one line a second at most, so that whoever
//! tries passwords, or throws bytes at the peer port, does not fill the disk with what is written about it.

use std::net::{SocketAddr, TcpStream};

use crate::id::{ShardId, Tick};
use crate::limits::OUTPUT_BYTES_OF_CORE_MAX;
use crate::store::connection::Forbidden;

/// How often it is told, in ms.
const TOLD_MS: u64 = 1000;

/// Refusals of clients, by what for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Wrong passwords, and users that do not exist.
    pub wrong_passwords: u64,
    /// TLS handshakes that came to nothing.
    pub failed_handshakes: u64,
    /// HTTP on the port of the Redis protocol.
    pub http_requests: u64,
    /// Connections beyond as many as there may be.
    pub too_many: u64,
    /// Clients closed because they left the most unread, when all of them left too much.
    pub slow_readers: u64,
    /// Commands that their user may not run; counted, and not told.
    pub forbidden_commands: u64,
    /// Keys that their user may not use; counted, and not told.
    pub forbidden_keys: u64,
}

impl Refusals {
    fn add(&mut self, other: Self) {
        self.wrong_passwords += other.wrong_passwords;
        self.failed_handshakes += other.failed_handshakes;
        self.http_requests += other.http_requests;
        self.too_many += other.too_many;
        self.slow_readers += other.slow_readers;
        self.forbidden_commands += other.forbidden_commands;
        self.forbidden_keys += other.forbidden_keys;
    }
}

/// Refusals of one core. Passwords are not among what it is given.
#[derive(Debug, Default)]
pub struct Doorkeeper {
    /// Since they were last told.
    untold: Refusals,
    /// Since they were last taken.
    uncounted: Refusals,
    /// Whom it happened to last, and why.
    last: Option<(Option<SocketAddr>, String)>,
    told_at: Tick,
}

impl Doorkeeper {
    /// A client said wrong passwords, so many.
    pub fn note_wrong_passwords(&mut self, count: u32, socket: &TcpStream) {
        if 0 < count {
            let refusals = Refusals { wrong_passwords: count.into(), ..Refusals::default() };
            self.note(refusals, "wrong password".into(), socket);
        }
    }

    /// A client spoke HTTP: a page in a browser that was told to send commands, most likely.
    pub fn note_http(&mut self, socket: &TcpStream) {
        let refusals = Refusals { http_requests: 1, ..Refusals::default() };
        self.note(refusals, "HTTP on the port of the Redis protocol".into(), socket);
    }

    /// A client is closed because it left so many bytes of replies unread.
    pub fn note_slow_reader(&mut self, unread_bytes: usize, socket: &TcpStream) {
        let refusals = Refusals { slow_readers: 1, ..Refusals::default() };
        let why = format!(
            "it left {unread_bytes} bytes of replies unread, the most of the core's clients, which left over \
             {OUTPUT_BYTES_OF_CORE_MAX} together"
        );
        self.note(refusals, why, socket);
    }

    /// A client's handshake came to nothing.
    pub fn note_handshake(&mut self, why: String, socket: &TcpStream) {
        let refusals = Refusals { failed_handshakes: 1, ..Refusals::default() };
        self.note(refusals, why, socket);
    }

    /// A client was one too many.
    pub fn note_too_many(&mut self, socket: &TcpStream) {
        let refusals = Refusals { too_many: 1, ..Refusals::default() };
        self.note(refusals, "as many clients as --max-clients".into(), socket);
    }

    /// A client tried what its user may not do. That is a matter of its rules, and seldom of somebody at the door.
    pub fn note_forbidden(&mut self, forbidden: Forbidden) {
        let Forbidden { commands, keys } = forbidden;
        self.uncounted.forbidden_commands += u64::from(commands);
        self.uncounted.forbidden_keys += u64::from(keys);
    }

    fn note(&mut self, refusals: Refusals, why: String, socket: &TcpStream) {
        self.untold.add(refusals);
        self.uncounted.add(refusals);
        self.last = Some((socket.peer_addr().ok(), why));
    }

    /// Refusals since the last call.
    pub fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.uncounted)
    }

    /// Tells what has come together, if it is time to.
    pub fn tell(&mut self, core: ShardId, now: Tick) {
        if now.since(self.told_at) < TOLD_MS {
            return;
        }
        let Some((address, reason)) = self.last.take() else { return };
        let address = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let Refusals {
            wrong_passwords,
            failed_handshakes,
            http_requests,
            too_many,
            slow_readers,
            ..
        } = std::mem::take(&mut self.untold);
        tracing::warn!(
            core = core.0, wrong_passwords, failed_handshakes, http_requests, too_many, slow_readers,
            last = %address, %reason, "clients refused",
        );
        self.told_at = now;
    }
}

/// Connections to the peer port that one core refused since that was last told.
#[derive(Debug, Default)]
pub struct PeerDoorkeeper {
    refused: u64,
    /// The same, since it was last taken.
    uncounted: u64,
    /// Whom it happened to last, and why.
    last: Option<(SocketAddr, String)>,
    told_at: Option<Tick>,
}

impl PeerDoorkeeper {
    /// A connection was refused. The first one, and the first after a quiet second, is told at once.
    pub fn note(&mut self, address: SocketAddr, reason: String, now: Tick) {
        self.refused += 1;
        self.uncounted += 1;
        self.last = Some((address, reason));
        self.tell(now);
    }

    /// Refusals since the last call.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
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
    fn what_is_told_and_what_is_counted_do_not_take_from_each_other() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut door = Doorkeeper::default();
        door.note_wrong_passwords(0, &socket);
        assert_eq!((door.take_refusals(), door.last.is_some()), (Refusals::default(), false));
        door.note_wrong_passwords(2, &socket);
        door.note_handshake("TLS: no".into(), &socket);
        door.note_http(&socket);
        door.note_slow_reader(1 << 20, &socket);
        door.tell(ShardId(0), Tick(TOLD_MS));
        door.note_too_many(&socket);
        door.note_forbidden(Forbidden { commands: 3, keys: 4 });
        let all = Refusals {
            wrong_passwords: 2,
            failed_handshakes: 1,
            http_requests: 1,
            too_many: 1,
            slow_readers: 1,
            forbidden_commands: 3,
            forbidden_keys: 4,
        };
        assert_eq!((door.take_refusals(), door.take_refusals()), (all, Refusals::default()));
        assert_eq!(door.untold, Refusals { too_many: 1, ..Refusals::default() });
    }

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
