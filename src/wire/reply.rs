//! RESP replies: what a client hears, in RESP2 or RESP3, and the way back for forwarded answers.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::resp::{integer, put_number};
use crate::limits;

/// Which RESP a connection speaks; `HELLO 3` switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP2, what a connection starts with.
    #[default]
    Resp2,
    /// RESP3: maps, nulls and verbatim strings have their own types.
    Resp3,
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`.
    Ok,
    /// A short status.
    Simple(&'static str),
    /// An error: its first word is its kind, the rest is for people.
    Error(String),
    /// An integer.
    Int(i64),
    /// Bytes.
    Bulk(Bytes),
    /// Nothing: no such key, or the condition did not hold.
    Nil,
    /// No array: a transaction that was not executed.
    NilArray,
    /// Several replies.
    Array(Vec<Reply>),
    /// Pairs; a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// Several replies in no order; an array in RESP2.
    Set(Vec<Reply>),
    /// Text for people, such as `INFO`; a plain bulk string in RESP2.
    Verbatim(String),
}

/// A forwarded answer that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the forwarded answer is not a RESP3 reply")]
pub struct DecodeError;

/// Deepest nesting of a forwarded answer, and so of any reply of a state machine: an array in an array is at depth 1.
pub const DEPTH_MAX: usize = 8;
/// What one part of a reply counts beside its text.
const PART_BYTES: usize = 32;
/// The short statuses that are read back from a forwarded answer as what they were.
const STATUSES: [&str; 4] = ["string", "none", "hash", "set"];

impl Reply {
    /// An error of this kind. `text` must hold no line ends; they are replaced by blanks.
    #[must_use]
    pub fn error(kind: &str, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let mut line = String::with_capacity(kind.len() + 1 + text.len());
        line.push_str(kind);
        line.push(' ');
        line.push_str(text);
        if line.bytes().any(|byte| matches!(byte, b'\r' | b'\n')) {
            line = line.replace(['\r', '\n'], " ");
        }
        Self::Error(line)
    }

    /// A bulk string from borrowed bytes, copied.
    #[must_use]
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// `-ERR wrong number of arguments …`, in Redis' words.
    #[must_use]
    pub fn wrong_arity(name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name).to_lowercase();
        Self::error("ERR", format!("wrong number of arguments for '{name}' command"))
    }

    /// `-ERR syntax error`.
    #[must_use]
    pub fn syntax() -> Self {
        Self::error("ERR", "syntax error")
    }

    /// `-ERR value is not an integer or out of range`.
    #[must_use]
    pub fn not_an_integer() -> Self {
        Self::error("ERR", "value is not an integer or out of range")
    }

    /// Whether this is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Whether this is the error that leaves the outcome open.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Error(text) if text.starts_with("UNCERTAIN"))
    }

    /// The error's text; empty for anything else.
    #[must_use]
    pub fn error_text(&self) -> &str {
        if let Self::Error(text) = self { text } else { "" }
    }

    /// `-ERR` for a reply past [`limits::REPLY_BYTES_MAX`].
    #[must_use]
    pub fn too_large() -> Self {
        let max = limits::REPLY_BYTES_MAX;
        Self::error(
            "ERR",
            format!(
                "the reply would exceed {max} bytes; ask for fewer keys at once, or for the parts of a hash or set by HSCAN, SSCAN or HMGET"
            ),
        )
    }

    /// About how many bytes this is when encoded: never less, and at most 32 per part more.
    #[must_use]
    pub fn bytes(&self) -> usize {
        PART_BYTES
            + match self {
                Self::Ok | Self::Int(_) | Self::Nil | Self::NilArray => 0,
                Self::Simple(text) => text.len(),
                Self::Error(text) | Self::Verbatim(text) => text.len(),
                Self::Bulk(bytes) => bytes.len(),
                Self::Array(items) | Self::Set(items) => items.iter().map(Self::bytes).sum(),
                Self::Map(pairs) => {
                    pairs.iter().map(|(key, value)| key.bytes() + value.bytes()).sum()
                }
            }
    }

    /// This reply, if it is within [`limits::REPLY_BYTES_MAX`].
    #[must_use]
    pub fn within_limit(self) -> Self {
        if self.bytes() > limits::REPLY_BYTES_MAX { Self::too_large() } else { self }
    }

    /// The reply of a state machine as it is given to whoever asked, here and on other nodes alike. Past
    /// [`limits::REPLY_BYTES_MAX`] or [`DEPTH_MAX`] it is an error that names the bound. What would not be read back
    /// from a forwarded answer as it was becomes what is: text becomes bytes, the lines of an error one line.
    #[must_use]
    pub(crate) fn carried(self) -> Self {
        match self.weigh(0, &mut 0) {
            Ok(true) => self,
            Ok(false) => self.mended(0),
            Err(refusal) => refusal,
        }
    }

    /// Adds to `bytes` what [`Self::bytes`] counts, and says whether a forwarded answer keeps all of it; an error past a
    /// bound. Stops there, so that no reply takes long.
    fn weigh(&self, depth: usize, bytes: &mut usize) -> Result<bool, Self> {
        if DEPTH_MAX < depth {
            let text = format!("the reply would be nested more than {DEPTH_MAX} deep");
            return Err(Self::error("ERR", text));
        }
        let mut is_kept = true;
        let text = match self {
            Self::Ok | Self::Int(_) | Self::Nil => 0,
            Self::Bulk(bytes) => bytes.len(),
            Self::NilArray => {
                is_kept = depth == 0;
                0
            }
            Self::Simple(text) => {
                is_kept = STATUSES.contains(text);
                text.len()
            }
            Self::Error(text) => {
                is_kept = !text.contains(['\r', '\n']);
                text.len()
            }
            Self::Verbatim(text) => {
                is_kept = false;
                text.len()
            }
            Self::Array(_) | Self::Set(_) | Self::Map(_) => 0,
        };
        *bytes = bytes.saturating_add(PART_BYTES + text);
        if limits::REPLY_BYTES_MAX < *bytes {
            return Err(Self::too_large());
        }
        match self {
            Self::Array(items) | Self::Set(items) => {
                for item in items {
                    is_kept &= item.weigh(depth + 1, bytes)?;
                }
            }
            Self::Map(pairs) => {
                for (key, value) in pairs {
                    is_kept &= key.weigh(depth + 1, bytes)?;
                    is_kept &= value.weigh(depth + 1, bytes)?;
                }
            }
            _ => {}
        }
        Ok(is_kept)
    }

    fn mended(self, depth: usize) -> Self {
        let inner = |item: Self| item.mended(depth + 1);
        match self {
            Self::NilArray if 0 < depth => Self::Nil,
            Self::Simple(text) if !STATUSES.contains(&text) => Self::bulk(text),
            Self::Verbatim(text) => Self::Bulk(text.into()),
            Self::Error(text) => Self::Error(text.replace(['\r', '\n'], " ")),
            Self::Array(items) => Self::Array(items.into_iter().map(inner).collect()),
            Self::Set(items) => Self::Set(items.into_iter().map(inner).collect()),
            Self::Map(pairs) => {
                let pairs = pairs.into_iter().map(|(key, value)| (inner(key), inner(value)));
                Self::Map(pairs.collect())
            }
            other => other,
        }
    }

    /// Appends the encoding.
    pub fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        match self {
            Self::Ok => out.put_slice(b"+OK\r\n"),
            Self::Simple(text) => line(out, b'+', text.as_bytes()),
            Self::Error(text) => line(out, b'-', text.as_bytes()),
            Self::Int(value) => put_number(out, b':', *value),
            Self::Bulk(bytes) => bulk(out, bytes),
            Self::Nil => out.put_slice(match protocol {
                Protocol::Resp2 => b"$-1\r\n",
                Protocol::Resp3 => b"_\r\n",
            }),
            Self::NilArray => out.put_slice(match protocol {
                Protocol::Resp2 => b"*-1\r\n",
                Protocol::Resp3 => b"_\r\n",
            }),
            Self::Array(items) => {
                put_number(out, b'*', items.len() as i64);
                items.iter().for_each(|item| item.encode(protocol, out));
            }
            Self::Set(items) => {
                let mark = if protocol == Protocol::Resp2 { b'*' } else { b'~' };
                put_number(out, mark, items.len() as i64);
                items.iter().for_each(|item| item.encode(protocol, out));
            }
            Self::Map(pairs) => {
                match protocol {
                    Protocol::Resp2 => put_number(out, b'*', 2 * pairs.len() as i64),
                    Protocol::Resp3 => put_number(out, b'%', pairs.len() as i64),
                }
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
            Self::Verbatim(text) => match protocol {
                Protocol::Resp2 => bulk(out, text.as_bytes()),
                Protocol::Resp3 => {
                    put_number(out, b'=', text.len() as i64 + 4);
                    out.put_slice(b"txt:");
                    out.put_slice(text.as_bytes());
                    out.put_slice(b"\r\n");
                }
            },
        }
    }

    /// The encoding in which an answer travels between nodes: RESP3, but for a missing array, which is
    /// RESP2's. RESP3 has one word for both kinds of nothing, and a client of RESP2 is told them apart.
    #[must_use]
    pub fn encode_forwarded(&self) -> Bytes {
        // Most are one of these.
        match self {
            Self::Ok => return Bytes::from_static(b"+OK\r\n"),
            Self::Nil => return Bytes::from_static(b"_\r\n"),
            Self::NilArray => return Bytes::from_static(b"*-1\r\n"),
            _ => {}
        }
        let mut out = BytesMut::with_capacity(self.bytes());
        self.encode_forwarded_to(&mut out);
        out.freeze()
    }

    /// The same, at the end of `out`.
    pub fn encode_forwarded_to(&self, out: &mut BytesMut) {
        // Only a missing array is written otherwise by RESP2, and it is in no other reply.
        let protocol = if *self == Self::NilArray { Protocol::Resp2 } else { Protocol::Resp3 };
        self.encode(protocol, out);
    }

    /// Reads a forwarded answer: one RESP3 reply, whole. Bulk strings are slices of `bytes`.
    ///
    /// # Errors
    /// If the bytes are anything else.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut at = 0;
        let reply = decode(bytes, &mut at, 0)?;
        if at == bytes.len() { Ok(reply) } else { Err(DecodeError) }
    }
}

fn line(out: &mut BytesMut, mark: u8, text: &[u8]) {
    out.put_u8(mark);
    out.put_slice(text);
    out.put_slice(b"\r\n");
}

fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    put_number(out, b'$', bytes.len() as i64);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn decode(bytes: &Bytes, at: &mut usize, depth: usize) -> Result<Reply, DecodeError> {
    if depth > DEPTH_MAX {
        return Err(DecodeError);
    }
    let mark = *bytes.get(*at).ok_or(DecodeError)?;
    let rest = &bytes[*at + 1..];
    let end = rest.iter().position(|&byte| byte == b'\r').ok_or(DecodeError)?;
    if rest.get(end + 1) != Some(&b'\n') {
        return Err(DecodeError);
    }
    let text = &rest[..end];
    *at += 1 + end + 2;
    let count = || integer(text).and_then(|n| usize::try_from(n).ok()).ok_or(DecodeError);
    Ok(match mark {
        b'+' if text == b"OK" => Reply::Ok,
        b'-' => Reply::Error(String::from_utf8_lossy(text).into_owned()),
        b':' => Reply::Int(integer(text).ok_or(DecodeError)?),
        b'_' if text.is_empty() => Reply::Nil,
        b'$' => {
            let len = count()?;
            let end = at.checked_add(len).ok_or(DecodeError)?;
            if bytes.get(end..end + 2) != Some(b"\r\n") {
                return Err(DecodeError);
            }
            let body = bytes.slice(*at..end);
            *at = end + 2;
            Reply::Bulk(body)
        }
        // A simple status becomes a bulk string in no reply of ours: state machines answer with
        // `Ok` or with one of these, the names of types.
        b'+' => {
            let status = STATUSES.into_iter().find(|status| status.as_bytes() == text);
            Reply::Simple(status.ok_or(DecodeError)?)
        }
        b'*' if text == b"-1" && depth == 0 => Reply::NilArray,
        b'*' | b'~' => {
            let count = count()?;
            // Each item takes at least three bytes: a count cannot ask for more than is there.
            if count > (bytes.len() - *at) / 3 {
                return Err(DecodeError);
            }
            let items: Result<_, _> = (0..count).map(|_| decode(bytes, at, depth + 1)).collect();
            if mark == b'~' { Reply::Set(items?) } else { Reply::Array(items?) }
        }
        b'%' => {
            let count = count()?;
            // Likewise, six bytes for each pair.
            if count > (bytes.len() - *at) / 6 {
                return Err(DecodeError);
            }
            let mut item = || decode(bytes, at, depth + 1);
            let pairs: Result<_, _> = (0..count).map(|_| Ok((item()?, item()?))).collect();
            Reply::Map(pairs?)
        }
        _ => return Err(DecodeError),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(reply: &Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        reply.encode(protocol, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn replies_look_as_redis_sends_them() {
        use Protocol::{Resp2, Resp3};
        let map = Reply::Map(vec![(Reply::bulk("proto"), Reply::Int(3))]);
        let cases = [
            (Reply::Ok, Resp2, "+OK\r\n"),
            (Reply::Simple("PONG"), Resp2, "+PONG\r\n"),
            (Reply::Int(i64::MIN), Resp2, ":-9223372036854775808\r\n"),
            (Reply::Int(0), Resp2, ":0\r\n"),
            (Reply::bulk("a\r\nb"), Resp2, "$4\r\na\r\nb\r\n"),
            (Reply::Nil, Resp2, "$-1\r\n"),
            (Reply::Nil, Resp3, "_\r\n"),
            (Reply::NilArray, Resp2, "*-1\r\n"),
            (Reply::NilArray, Resp3, "_\r\n"),
            (Reply::Array(vec![Reply::Nil, Reply::Int(1)]), Resp2, "*2\r\n$-1\r\n:1\r\n"),
            (
                Reply::Map(vec![(Reply::Int(1), Reply::Int(2)), (Reply::Int(3), Reply::Int(4))]),
                Resp2,
                "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
            ),
            (map.clone(), Resp2, "*2\r\n$5\r\nproto\r\n:3\r\n"),
            (map, Resp3, "%1\r\n$5\r\nproto\r\n:3\r\n"),
            (Reply::Set(vec![Reply::Int(1)]), Resp2, "*1\r\n:1\r\n"),
            (Reply::Set(vec![Reply::Int(1)]), Resp3, "~1\r\n:1\r\n"),
            (Reply::Verbatim("x".into()), Resp2, "$1\r\nx\r\n"),
            (Reply::Verbatim("x".into()), Resp3, "=5\r\ntxt:x\r\n"),
            (Reply::error("ERR", "a\r\nb"), Resp2, "-ERR a  b\r\n"),
            (
                Reply::wrong_arity(b"GeT"),
                Resp2,
                "-ERR wrong number of arguments for 'get' command\r\n",
            ),
        ];
        for (reply, protocol, expected) in cases {
            assert_eq!(encoded(&reply, protocol), expected);
        }
    }

    fn any_answer() -> impl Strategy<Value = Reply> {
        let leaf = prop_oneof![
            Just(Reply::Ok),
            Just(Reply::Nil),
            Just(Reply::Simple("string")),
            any::<i64>().prop_map(Reply::Int),
            prop::collection::vec(any::<u8>(), 0..50).prop_map(Reply::bulk),
            "[a-z ]{0,20}".prop_map(|text| Reply::error("ERR", text)),
        ];
        leaf.prop_recursive(2, 16, 4, |item| {
            prop_oneof![
                prop::collection::vec(item.clone(), 0..4).prop_map(Reply::Array),
                prop::collection::vec(item.clone(), 0..4).prop_map(Reply::Set),
                prop::collection::vec((item.clone(), item), 0..4).prop_map(Reply::Map),
            ]
        })
    }

    #[test]
    fn a_reply_past_a_bound_is_an_error_that_names_it() {
        let nested = |depth| (0..depth).fold(Reply::Ok, |inner, _| Reply::Array(vec![inner]));
        assert_eq!(nested(DEPTH_MAX).carried(), nested(DEPTH_MAX));
        let deep = nested(DEPTH_MAX + 1).carried();
        assert!(deep.error_text().contains("8 deep"), "{deep:?}");
        let large = |bytes| Reply::Array(vec![Reply::Bulk(vec![0; bytes].into())]);
        let most = limits::REPLY_BYTES_MAX - 2 * PART_BYTES;
        assert_eq!(large(most).carried(), large(most));
        assert_eq!(large(most + 1).carried(), Reply::too_large());
        let many = Reply::Array(vec![Reply::Ok; limits::REPLY_BYTES_MAX / PART_BYTES]);
        assert_eq!(many.carried(), Reply::too_large());
    }

    proptest! {
        #[test]
        fn forwarded_answers_come_back_as_they_were(
            reply in prop_oneof![9 => any_answer(), 1 => Just(Reply::NilArray)],
        ) {
            prop_assert_eq!(Reply::decode(&reply.encode_forwarded()), Ok(reply));
        }

        #[test]
        fn what_a_machine_replies_is_the_same_here_and_on_another_node(
            reply in any_answer(),
            other in prop_oneof![
                Just(Reply::NilArray),
                Just(Reply::Simple("PONG")),
                Just(Reply::Verbatim("a\r\nb".into())),
                Just(Reply::Error("ERR a\r\nb".into())),
            ],
        ) {
            prop_assert_eq!(reply.clone().carried(), reply.clone(), "as it is");
            let carried = Reply::Map(vec![(reply, Reply::Array(vec![other]))]).carried();
            prop_assert_eq!(Reply::decode(&carried.encode_forwarded()), Ok(carried));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Reply::decode(&bytes.into());
        }
    }
}
