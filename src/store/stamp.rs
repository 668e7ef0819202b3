//! Commands with the time at which the leader took them up, as they are replicated.
//!
//! ```text
//!  byte
//!     0  '@'                             1
//!     1  the leader's clock, UnixMs      8   little-endian
//!     9  the command as it was sent, or nothing: time passes
//! ```
//!
//! Most commands do not depend on the time and are replicated as they are; those begin with `*`.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::id::UnixMs;

const MARK: u8 = b'@';
const HEADER_BYTES: usize = 9;

/// The command with a time.
#[must_use]
pub fn stamped(at: UnixMs, command: &[u8]) -> Bytes {
    let mut payload = BytesMut::with_capacity(HEADER_BYTES + command.len());
    payload.put_u8(MARK);
    payload.put_u64_le(at.0);
    payload.put_slice(command);
    payload.freeze()
}

/// The time in a payload, if there is one, and the command.
#[must_use]
pub fn read(payload: &Bytes) -> (Option<UnixMs>, Bytes) {
    let mut command = payload.clone();
    if payload.len() < HEADER_BYTES || payload[0] != MARK {
        return (None, command);
    }
    command.advance(1);
    let at = UnixMs(command.get_u64_le());
    (Some(at), command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_off_as_it_was_put_on() {
        for command in [&b""[..], b"*1\r\n$4\r\nPING\r\n"] {
            let payload = stamped(UnixMs(77), command);
            assert_eq!(read(&payload), (Some(UnixMs(77)), Bytes::copy_from_slice(command)));
        }
        for plain in [&b""[..], b"@", b"@1234567", b"*1\r\n$4\r\nPING\r\n"] {
            let payload = Bytes::copy_from_slice(plain);
            assert_eq!(read(&payload), (None, payload.clone()));
        }
    }
}
