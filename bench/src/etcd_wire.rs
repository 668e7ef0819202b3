//! etcd's v3 messages, as little of them as a load generator needs.
//!
//! ```text
//! gRPC frame      │ 0 (not compressed) │ length, 4 bytes big endian │ protobuf message │
//! PutRequest      1: key, 2: value          RangeRequest   1: key, 2: the key it ends before
//! RangeResponse   1: header, 2: one per key found, …
//! ```
//!
//! By hand, because two messages of two fields each do not earn a code generator (etcd-client
//! wants `protoc` at build time), and because the client's cost would be counted against etcd:
//! the generator shares its cores with the servers.

use crate::keys::{KEY_BYTES, write_key};

/// Path of a Put.
pub(crate) const PUT_PATH: &str = "/etcdserverpb.KV/Put";
/// Path of a Range. Linearizable unless the request says `serializable`.
pub(crate) const RANGE_PATH: &str = "/etcdserverpb.KV/Range";
/// Length of a gRPC frame's header.
const FRAME_BYTES: usize = 5;

/// A framed PutRequest; `push_value` appends the `value_bytes` bytes of the value itself.
pub(crate) fn put(key: u64, value_bytes: usize, push_value: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = start(FRAME_BYTES + KEY_BYTES + value_bytes + 16);
    push_key(&mut out, key);
    out.push(2 << 3 | 2);
    push_varint(&mut out, value_bytes as u64);
    push_value(&mut out);
    finish(out)
}

/// A framed RangeRequest of one key.
pub(crate) fn range(key: u64) -> Vec<u8> {
    let mut out = start(FRAME_BYTES + KEY_BYTES + 2);
    push_key(&mut out, key);
    finish(out)
}

/// A framed RangeRequest of `keys` neighbouring keys, from the first up to the one after the last. Keys are numbers of a
/// fixed width, so their order is that of their numbers.
pub(crate) fn range_of(key: u64, keys: u64) -> Vec<u8> {
    let mut out = start(FRAME_BYTES + 2 * (KEY_BYTES + 2));
    push_key(&mut out, key);
    out.extend_from_slice(&[2 << 3 | 2, KEY_BYTES as u8]);
    out.extend_from_slice(&write_key(key + keys));
    finish(out)
}

/// Whether a framed RangeResponse holds a key.
pub(crate) fn found(reply: &[u8]) -> bool {
    has_field(reply.get(FRAME_BYTES..).unwrap_or_default(), 2).unwrap_or(false)
}

fn start(bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(&[0; FRAME_BYTES]);
    out
}

fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let bytes = (out.len() - FRAME_BYTES) as u32;
    out[1..FRAME_BYTES].copy_from_slice(&bytes.to_be_bytes());
    out
}

fn push_key(out: &mut Vec<u8>, key: u64) {
    out.extend_from_slice(&[1 << 3 | 2, KEY_BYTES as u8]);
    out.extend_from_slice(&write_key(key));
}

fn push_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

/// Whether a message has field `wanted`; `None` if it cannot be read.
fn has_field(mut message: &[u8], wanted: u64) -> Option<bool> {
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        if tag >> 3 == wanted {
            return Some(true);
        }
        let bytes = match tag & 7 {
            0 => {
                take_varint(&mut message)?;
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(bytes..)?;
    }
    Some(false)
}

/// gRPC's names for its status codes, as servers print them.
pub(crate) fn status_name(code: &str) -> &str {
    match code {
        "1" => "CANCELLED",
        "2" => "UNKNOWN",
        "3" => "INVALID_ARGUMENT",
        "4" => "DEADLINE_EXCEEDED",
        "5" => "NOT_FOUND",
        "7" => "PERMISSION_DENIED",
        "8" => "RESOURCE_EXHAUSTED",
        "9" => "FAILED_PRECONDITION",
        "12" => "UNIMPLEMENTED",
        "13" => "INTERNAL",
        "14" => "UNAVAILABLE",
        "16" => "UNAUTHENTICATED",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_framed_protobuf() {
        let put = put(7, 200, |out| out.extend([b'v'; 200]));
        let mut want = vec![0, 0, 0, 0, 221, 0x0a, 16];
        want.extend_from_slice(b"key:000000000007");
        want.extend_from_slice(&[0x12, 0xc8, 0x01]); // 200 as a varint
        want.extend([b'v'; 200]);
        assert_eq!(put, want);
        assert_eq!(range(7)[..7], [0, 0, 0, 0, 18, 0x0a, 16]);
        let scan = [
            &[0, 0, 0, 0, 36, 0x0a, 16][..],
            b"key:000000000007",
            &[0x12, 16],
            b"key:000000000012",
        ];
        assert_eq!(range_of(7, 5), scan.concat());
    }

    #[test]
    fn a_found_key_is_seen_behind_the_header() {
        let header = [0x0a, 2, 8, 1];
        let none = [&[0, 0, 0, 0, 4][..], &header].concat();
        let one = [&[0, 0, 0, 0, 8][..], &header, &[0x12, 0, 0x20, 1]].concat();
        assert!(!found(&none) && found(&one));
        // Cut short, it is an answer without the key, never a panic.
        (0..one.len()).for_each(|cut| {
            let _ = found(&one[..cut]);
        });
    }
}
