//! ZooKeeper's client protocol (jute records in frames), as little of it as a load generator needs.
//!
//! ```text
//! frame            │ length, 4 bytes │ record │          every integer big endian
//! connect          protocol 0 · last zxid seen, 8 · timeout ms, 4 · session 0, 8 · password · read only, 1
//!   its answer     protocol 0 · timeout ms, 4 · session, 8 · password · read only, 1
//! request          xid, 4 · type, 4 · body
//!   create  1      path · value · count of permissions, 4 · (bits, 4 · scheme · id) … · flags, 4
//!   getData 4      path · watch, 1
//!   setData 5      path · value · version, 4 (-1: any)
//!   close   -11
//! reply            xid, 4 · zxid, 8 · error, 4 · body, which is not looked into
//! path, value, password, scheme, id                       │ length, 4 │ bytes │
//! ```
//!
//! The server answers a session's requests in order, each with the request's own xid; any other xid
//! means that the stream cannot be trusted. A znode has to exist before `setData`, so the run that fills
//! writes with `create`, and so does an insert. "Exists already", which nothing else is answered with, is a good answer.
//!
//! There are no pings: a connection under load has something to say in every third of the 40 s a
//! session lasts. A read is answered by the member the connection goes to, from what it has: sequentially
//! consistent, not linearizable.

use crate::access::Login;
use crate::keys::{KEY_BYTES, write_key};
use crate::protocol::{Garbage, Manner, Protocol, Reply};
use std::io::{self, ErrorKind, Read, Write};

/// Largest value: the server's default `jute.maxbuffer` of 1 MiB, less the request around it.
pub(crate) const VALUE_BYTES_MAX: usize = (1 << 20) - 1024;
/// Most keys: every one is made before the run, and all are kept in the servers' memory.
pub(crate) const KEYS_MAX: u64 = 1_000_000;
/// What is asked for; the server grants at most twenty of its ticks, 40 s by default.
const SESSION_TIMEOUT_MS: i32 = 40_000;
/// Largest reply believed in: a value and its attributes, with room to spare.
const REPLY_BYTES_MAX: usize = 4 << 20;
/// Length of a reply's header: xid, zxid, error.
const HEADER_BYTES: usize = 16;
/// A slash and a key.
const PATH_BYTES: usize = 1 + KEY_BYTES;

const CREATE: i32 = 1;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;

const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;

/// One session.
#[derive(Debug)]
pub(crate) struct ZooKeeper {
    manner: Manner,
    /// Number of the request sent last.
    sent: i32,
    /// Number of the request answered last; `answered <= sent` until they wrap together.
    answered: i32,
}

impl Protocol for ZooKeeper {
    const NAME: &'static str = "ZooKeeper";
    const GOODBYE: &'static [u8] = &[0, 0, 0, 8, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf5];

    fn new(manner: Manner) -> Self {
        Self { manner, sent: 0, answered: 0 }
    }

    fn login<S: Read + Write>(_stream: &mut S, _login: &Login) -> io::Result<()> {
        // The command line refuses it before.
        Err(io::Error::new(ErrorKind::Unsupported, "ZooKeeper is not asked with a password here"))
    }

    fn hello<S: Read + Write>(stream: &mut S, _manner: Manner) -> io::Result<()> {
        let mut out = Vec::new();
        framed(&mut out, |out| {
            push_int(out, 0);
            push_long(out, 0);
            push_int(out, SESSION_TIMEOUT_MS);
            push_long(out, 0);
            push_bytes(out, &[0; 16]);
            out.push(0);
        });
        stream.write_all(&out)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        let mut answer = [0; 64];
        let answer = answer.get_mut(..length).ok_or(ErrorKind::InvalidData)?;
        stream.read_exact(answer)?;
        // A timeout of zero is how a server says that it does not know the session.
        match int_at(answer, 4) {
            Some(1..) => Ok(()),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "the server gives no session")),
        }
    }

    fn push_read(&mut self, out: &mut Vec<u8>, key: u64) {
        self.push_request(out, GET_DATA, key, |out| out.push(0));
    }

    fn push_scan(&mut self, _out: &mut Vec<u8>, _key: u64, _keys: u64) {
        unreachable!("the command line refuses scans of ZooKeeper");
    }

    fn push_write(
        &mut self,
        out: &mut Vec<u8>,
        key: u64,
        fresh: bool,
        value_bytes: usize,
        push_value: impl FnOnce(&mut Vec<u8>),
    ) {
        let creating = fresh || self.manner.creating;
        self.push_request(out, if creating { CREATE } else { SET_DATA }, key, |out| {
            push_int(out, value_bytes as i32);
            push_value(out);
            if creating {
                // Anybody may do anything (all five bits); a lasting znode (flags 0).
                push_int(out, 1);
                push_int(out, 31);
                push_bytes(out, b"world");
                push_bytes(out, b"anyone");
                push_int(out, 0);
            } else {
                push_int(out, -1);
            }
        });
    }

    fn take_reply(&mut self, input: &[u8]) -> Result<Option<(usize, Reply)>, Garbage> {
        let Some(length) = int_at(input, 0) else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| Garbage)?;
        if !(HEADER_BYTES..=REPLY_BYTES_MAX).contains(&length) {
            return Err(Garbage);
        }
        if input.len() < 4 + length {
            return Ok(None);
        }
        let (xid, error) = int_at(input, 4).zip(int_at(input, 16)).ok_or(Garbage)?;
        let due = following(self.answered);
        if xid != due {
            return Err(Garbage);
        }
        self.answered = due;
        let reply = match error {
            0 => Reply::Good,
            NODE_EXISTS => Reply::Good,
            NO_NODE => Reply::Nil,
            code => Reply::Refused(format!("{} (code {code})", error_name(code))),
        };
        Ok(Some((4 + length, reply)))
    }
}

impl ZooKeeper {
    fn push_request(
        &mut self,
        out: &mut Vec<u8>,
        kind: i32,
        key: u64,
        push_rest: impl FnOnce(&mut Vec<u8>),
    ) {
        self.sent = following(self.sent);
        let xid = self.sent;
        framed(out, |out| {
            push_int(out, xid);
            push_int(out, kind);
            push_int(out, PATH_BYTES as i32);
            out.push(b'/');
            out.extend_from_slice(&write_key(key));
            push_rest(out);
        });
    }
}

/// The xid after this one. Numbers below 1 are the server's own, and the largest is the goodbye's.
fn following(xid: i32) -> i32 {
    if xid < i32::MAX - 1 { xid + 1 } else { 1 }
}

/// Appends a frame: its length, then what `push` appends.
fn framed(out: &mut Vec<u8>, push: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    push(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn push_int(out: &mut Vec<u8>, n: i32) {
    out.extend_from_slice(&n.to_be_bytes());
}

fn push_long(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(&n.to_be_bytes());
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_int(out, bytes.len() as i32);
    out.extend_from_slice(bytes);
}

fn int_at(bytes: &[u8], at: usize) -> Option<i32> {
    let four = bytes.get(at..at + 4)?;
    Some(i32::from_be_bytes(four.try_into().expect("a slice of four bytes")))
}

/// ZooKeeper's names for the errors that a load may meet.
fn error_name(code: i32) -> &'static str {
    match code {
        -1 => "SYSTEMERROR",
        -4 => "CONNECTIONLOSS",
        -5 => "MARSHALLINGERROR",
        -6 => "UNIMPLEMENTED",
        -7 => "OPERATIONTIMEOUT",
        -8 => "BADARGUMENTS",
        -102 => "NOAUTH",
        -103 => "BADVERSION",
        -110 => "NODEEXISTS",
        -112 => "SESSIONEXPIRED",
        -118 => "SESSIONMOVED",
        -119 => "NOTREADONLY",
        -125 => "QUOTAEXCEEDED",
        -127 => "THROTTLEDOP",
        _ => "ZKERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &[u8] = b"\0\0\0\x11/key:000000000007";

    fn session(creating: bool) -> ZooKeeper {
        ZooKeeper::new(Manner { creating, readonly: false })
    }

    fn reply(xid: i32, error: i32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        framed(&mut out, |out| {
            push_int(out, xid);
            push_long(out, 77);
            push_int(out, error);
            out.extend_from_slice(body);
        });
        out
    }

    #[test]
    fn requests_are_jute_records_with_numbers_that_rise() {
        let mut session = session(false);
        let mut out = Vec::new();
        session.push_read(&mut out, 7);
        session.push_write(&mut out, 7, false, 3, |out| out.extend_from_slice(b"abc"));
        let get = [&[0, 0, 0, 30, 0, 0, 0, 1, 0, 0, 0, 4][..], PATH, &[0]].concat();
        let set = [
            &[0, 0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 5][..],
            PATH,
            &[0, 0, 0, 3, b'a', b'b', b'c', 255, 255, 255, 255],
        ]
        .concat();
        assert_eq!(out, [get, set].concat());
    }

    #[test]
    fn a_fill_creates_lasting_znodes_open_to_all() {
        let mut out = Vec::new();
        session(true).push_write(&mut out, 7, false, 1, |out| out.push(b'v'));
        let mut inserted = Vec::new();
        session(false).push_write(&mut inserted, 7, true, 1, |out| out.push(b'v'));
        assert_eq!(inserted, out, "an insert makes its znode as well");
        let want = [
            &[0, 0, 0, 65, 0, 0, 0, 1, 0, 0, 0, 1][..],
            PATH,
            &[0, 0, 0, 1, b'v', 0, 0, 0, 1, 0, 0, 0, 31],
            b"\0\0\0\x05world\0\0\0\x06anyone",
            &[0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(out, want);
    }

    #[test]
    fn a_reply_is_whole_only_when_its_last_byte_is_there() {
        let bytes = reply(1, 0, b"a body nobody looks into");
        for cut in 0..bytes.len() {
            assert_eq!(session(false).take_reply(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let input = [&bytes[..], &[9, 9]].concat();
        assert_eq!(session(false).take_reply(&input), Ok(Some((bytes.len(), Reply::Good))));
    }

    #[test]
    fn errors_mean_what_the_request_makes_of_them() {
        for (creating, error, want) in [
            (false, NO_NODE, Some(Reply::Nil)),
            (true, NODE_EXISTS, Some(Reply::Good)),
            (false, NODE_EXISTS, Some(Reply::Good)),
            (false, -4, None),
        ] {
            let got = session(creating).take_reply(&reply(1, error, b""));
            let (bytes, got) = got.expect("it is a reply").expect("it is whole");
            assert_eq!(bytes, 20);
            match want {
                Some(want) => assert_eq!(got, want),
                None => assert!(
                    matches!(&got, Reply::Refused(text) if text.starts_with(error_name(error))),
                    "{got:?}"
                ),
            }
        }
    }

    #[test]
    fn an_answer_out_of_turn_or_out_of_bounds_is_refused() {
        assert_eq!(session(false).take_reply(&reply(2, 0, b"")), Err(Garbage));
        assert_eq!(session(false).take_reply(&reply(-1, 0, b"")), Err(Garbage));
        for length in [-1_i32, 15, i32::MAX] {
            assert_eq!(session(false).take_reply(&length.to_be_bytes()), Err(Garbage), "{length}");
        }
        let mut second = session(false);
        assert!(second.take_reply(&reply(1, 0, b"")).is_ok());
        assert_eq!(second.take_reply(&reply(1, 0, b"")), Err(Garbage));
    }

    #[test]
    fn numbers_wrap_before_the_goodbye_s() {
        assert_eq!(following(i32::MAX - 1), 1);
        assert_eq!(int_at(ZooKeeper::GOODBYE, 4), Some(i32::MAX));
        assert_eq!(int_at(ZooKeeper::GOODBYE, 8), Some(-11));
    }
}
