//! The Redis protocol (RESP2), as little of it as a load generator needs: requests written in
//! one pass, replies stepped over where they lie.
//!
//! ```text
//! +OK\r\n            simple string        $3\r\nabc\r\n     bulk of three bytes
//! -ERR why\r\n       error                $-1\r\n           nil
//! :42\r\n            integer              *2\r\n …  …       array of two replies
//! ```

use crate::access::Login;
use crate::keys::{KEY_BYTES, write_key};
use crate::protocol::{self, Garbage, Manner, Protocol};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;

/// A connection that speaks RESP2. It needs no state: replies carry no numbers.
#[derive(Debug)]
pub(crate) struct Resp;

impl Protocol for Resp {
    const NAME: &'static str = "RESP2";
    const GOODBYE: &'static [u8] = b"";

    fn new(_manner: Manner) -> Self {
        Self
    }

    /// Says `AUTH`.
    fn login<S: Read + Write>(stream: &mut S, login: &Login) -> io::Result<()> {
        let words = ["AUTH"].into_iter().chain(login.user.as_deref());
        let words: Vec<&str> = words.chain([login.password.as_str()]).collect();
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        stream.write_all(&request)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") && answer.len() < LINE_BYTES_MAX {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        if answer == b"+OK\r\n" {
            return Ok(());
        }
        let answer = String::from_utf8_lossy(&answer).trim().to_owned();
        Err(io::Error::new(ErrorKind::PermissionDenied, format!("AUTH: {answer}")))
    }

    /// Says `READONLY`, if it is wanted.
    fn hello<S: Read + Write>(stream: &mut S, manner: Manner) -> io::Result<()> {
        if !manner.readonly {
            return Ok(());
        }
        let mut answer = [0; 5];
        stream.write_all(b"READONLY\r\n")?;
        stream.read_exact(&mut answer)?;
        if &answer == b"+OK\r\n" {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::InvalidData, "the server refuses READONLY"))
    }

    fn push_read(&mut self, out: &mut Vec<u8>, key: u64) {
        push_get(out, key);
    }

    fn push_scan(&mut self, out: &mut Vec<u8>, key: u64, keys: u64) {
        push_mget(out, key, keys);
    }

    fn push_write(
        &mut self,
        out: &mut Vec<u8>,
        key: u64,
        _fresh: bool,
        value_bytes: usize,
        push_value: impl FnOnce(&mut Vec<u8>),
    ) {
        push_set(out, key, value_bytes, push_value);
    }

    #[inline]
    fn take_reply(&mut self, input: &[u8]) -> Result<Option<(usize, protocol::Reply)>, Garbage> {
        let reply = skip(input)?.map(|(bytes, reply)| {
            let reply = match reply {
                Reply::Plain | Reply::Bulk => protocol::Reply::Good,
                Reply::Nil => protocol::Reply::Nil,
                Reply::Error(text) => {
                    protocol::Reply::Refused(String::from_utf8_lossy(&input[text]).into_owned())
                }
            };
            (bytes, reply)
        });
        Ok(reply)
    }
}

/// What one reply was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reply {
    /// A simple string, an integer or an array.
    Plain,
    /// A bulk string.
    Bulk,
    /// A nil bulk or a nil array: no such key.
    Nil,
    /// An error; its text lies here in the input, without sign and line end.
    Error(Range<usize>),
}

/// Deepest nesting of arrays that is followed; a peer may not choose our stack depth.
const DEPTH_MAX: u32 = 32;
/// Longest line that may be waited for: a reply whose line is longer is garbage.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Steps over the reply at the start of `input`: the bytes it takes and what it was, or `None`
/// while it is incomplete.
///
/// An incomplete reply is read again from its start when more bytes are there. That costs a
/// header of a few bytes, not the payload: a bulk is stepped over by its length.
#[inline]
fn skip(input: &[u8]) -> Result<Option<(usize, Reply)>, Garbage> {
    // What SETs are answered with, checked first: one comparison per operation.
    if input.starts_with(b"+OK\r\n") {
        return Ok(Some((5, Reply::Plain)));
    }
    skip_nested(input, 0)
}

fn skip_nested(input: &[u8], depth: u32) -> Result<Option<(usize, Reply)>, Garbage> {
    let Some(&sign) = input.first() else { return Ok(None) };
    if !matches!(sign, b'+' | b'-' | b':' | b'$' | b'*') || depth > DEPTH_MAX {
        return Err(Garbage);
    }
    let Some(line_end) = line_end(input)? else { return Ok(None) };
    let after = line_end + 2;
    match sign {
        b'-' => Ok(Some((after, Reply::Error(1..line_end)))),
        b'$' => {
            let Some(bytes) = length(&input[1..line_end])? else {
                return Ok(Some((after, Reply::Nil)));
            };
            let end = after + bytes;
            if input.len() < end + 2 {
                return Ok(None);
            }
            if &input[end..end + 2] != b"\r\n" {
                return Err(Garbage);
            }
            Ok(Some((end + 2, Reply::Bulk)))
        }
        b'*' => {
            let Some(count) = length(&input[1..line_end])? else {
                return Ok(Some((after, Reply::Nil)));
            };
            let mut at = after;
            for _ in 0..count {
                let Some((bytes, _)) = skip_nested(&input[at..], depth + 1)? else {
                    return Ok(None);
                };
                at += bytes;
            }
            Ok(Some((at, Reply::Plain)))
        }
        _ => Ok(Some((after, Reply::Plain))),
    }
}

/// Where the first line's `\r\n` begins.
fn line_end(input: &[u8]) -> Result<Option<usize>, Garbage> {
    match input.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\r') {
        None if input.len() >= LINE_BYTES_MAX => Err(Garbage),
        None => Ok(None),
        Some(at) => match input.get(at + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(at)),
            Some(_) => Err(Garbage),
        },
    }
}

/// A length as `$` and `*` carry it; `None` for -1.
fn length(digits: &[u8]) -> Result<Option<usize>, Garbage> {
    if digits == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Garbage)?;
    // One gibibyte is above everything a server may answer; it keeps the sums from overflowing.
    text.parse().ok().filter(|&n: &usize| n <= 1 << 30).map(Some).ok_or(Garbage)
}

/// Appends `GET key`.
fn push_get(out: &mut Vec<u8>, key: u64) {
    const { assert!(KEY_BYTES == 16, "the templates below say $16") };
    out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$16\r\n");
    out.extend_from_slice(&write_key(key));
    out.extend_from_slice(b"\r\n");
}

/// Appends `MGET key …` of neighbouring keys.
fn push_mget(out: &mut Vec<u8>, key: u64, keys: u64) {
    out.push(b'*');
    push_decimal(out, keys as usize + 1);
    out.extend_from_slice(b"\r\n$4\r\nMGET\r\n");
    for key in key..key + keys {
        out.extend_from_slice(b"$16\r\n");
        out.extend_from_slice(&write_key(key));
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `SET key value`; `push_value` appends the `value_bytes` bytes of the value itself.
fn push_set(
    out: &mut Vec<u8>,
    key: u64,
    value_bytes: usize,
    push_value: impl FnOnce(&mut Vec<u8>),
) {
    out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
    out.extend_from_slice(&write_key(key));
    out.extend_from_slice(b"\r\n$");
    push_decimal(out, value_bytes);
    out.extend_from_slice(b"\r\n");
    push_value(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends `n` in decimal, without the formatting machinery.
fn push_decimal(out: &mut Vec<u8>, mut n: usize) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_is_whole_only_when_its_last_byte_is_there() {
        let replies: [(&[u8], Reply); 11] = [
            (b"+OK\r\n", Reply::Plain),
            (b"+QUEUED\r\n", Reply::Plain),
            (b":-42\r\n", Reply::Plain),
            (b"-ERR no\r\n", Reply::Error(1..7)),
            (b"$-1\r\n", Reply::Nil),
            (b"*-1\r\n", Reply::Nil),
            (b"$0\r\n\r\n", Reply::Bulk),
            (b"$12\r\nhel\r\n+OK\r\n\r\n\r\n", Reply::Bulk),
            (b"*0\r\n", Reply::Plain),
            (b"*3\r\n$3\r\nfoo\r\n:1\r\n-ERR in\r\n", Reply::Plain),
            (b"*2\r\n*1\r\n$-1\r\n+x\r\n", Reply::Plain),
        ];
        for (bytes, want) in &replies {
            for split in 0..bytes.len() {
                assert_eq!(skip(&bytes[..split]), Ok(None), "{bytes:?} cut at {split}");
            }
            // What follows a reply never changes it.
            for tail in [&b""[..], b"+", b"$5\r\nab", b"\r\n"] {
                let input = [bytes, tail].concat();
                assert_eq!(skip(&input), Ok(Some((bytes.len(), want.clone()))), "{input:?}");
            }
        }
    }

    #[test]
    fn a_pipeline_is_walked_reply_by_reply() {
        let input = b"+OK\r\n$2\r\nab\r\n-MOVED 1 x\r\n:7\r\n";
        let (mut at, mut seen) = (0, Vec::new());
        while let Some((bytes, reply)) = skip(&input[at..]).unwrap() {
            if let Reply::Error(text) = &reply {
                assert_eq!(&input[at..][text.clone()], b"MOVED 1 x");
            }
            at += bytes;
            seen.push(reply);
        }
        assert_eq!((at, seen.len()), (input.len(), 4));
    }

    #[test]
    fn garbage_is_refused() {
        let deep = b"*1\r\n".repeat(100);
        let long = vec![b'+'; LINE_BYTES_MAX];
        for bytes in [
            &b"HTTP/1.1"[..],
            b"+OK\rx",
            b"$x\r\n",
            b"$-2\r\n",
            b"$2\r\nabcd",
            b"$99999999999\r\n",
            &deep,
            &long,
        ] {
            assert_eq!(skip(bytes), Err(Garbage), "{:?}", &bytes[..bytes.len().min(20)]);
        }
    }

    #[test]
    fn requests_are_what_redis_expects() {
        let mut out = Vec::new();
        push_get(&mut out, 7);
        push_mget(&mut out, 9, 2);
        push_set(&mut out, 8, 3, |out| out.extend_from_slice(b"abc"));
        assert_eq!(
            out,
            b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000007\r\n\
              *3\r\n$4\r\nMGET\r\n$16\r\nkey:000000000009\r\n$16\r\nkey:000000000010\r\n\
              *3\r\n$3\r\nSET\r\n$16\r\nkey:000000000008\r\n$3\r\nabc\r\n"
        );
    }
}
