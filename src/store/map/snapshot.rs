//! The map as a stream of bytes, and back.
//!
//! ```text
//!  byte
//!     0  key bytes                3
//!     3  what follows the key     1   0 the string · 1 a field of the hash · 2 a member of the set
//!                                     3 when the key of the next record goes · 4 the map's time
//!                                     5 a user
//!     4  bytes of that            4
//!     8  the key, and that: the string · field bytes (4), the field, its value · the member
//!                                     · a UnixMs (8) · the command that makes the user
//!     …  the next record, in the map's order; those of one key follow one another, in theirs
//! ```
//!
//! A chunk ends anywhere, so that one value, which may be larger than a chunk, needs no rule of its
//! own. A map of nothing but strings that never expire is written as it was before there was anything
//! else; the map's time, if there is one, is the first record, under the empty key; users follow it, if there are any,
//! under the empty key as well. A version that knows no users refuses the whole: it would let everybody in.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::id::UnixMs;
use crate::limits;
use crate::store::acl::Users;
use crate::store::{Frozen, RestoreError, Restoring, StateMachine};
use crate::wire::resp::Command;

use super::Map;
use super::table::{Place, Table};
use super::value::{Collection, Hash, Set, Value};

const HEADER_BYTES: usize = 8;

/// What follows the key in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    String = 0,
    Field = 1,
    Member = 2,
    /// When the key of the next record goes.
    Deadline = 3,
    /// The map's time, in front of everything else, under the empty key.
    Clock = 4,
    /// A user, in front of every key, under the empty key.
    User = 5,
}

impl Kind {
    fn of(kind: u8) -> Result<Self, RestoreError> {
        let mut all =
            [Self::String, Self::Field, Self::Member, Self::Deadline, Self::Clock, Self::User]
                .into_iter();
        all.find(|it| *it as u8 == kind).ok_or(RestoreError::Unknown { kind })
    }
}

/// A map that no longer changes. Holds at most one record more than the chunk asked for, and all users.
pub(super) struct FrozenMap {
    values: Table<Value>,
    /// The last key of which everything is in `ready`.
    last: Option<Place>,
    /// The part of the next key, a hash or a set, that went into `ready` last.
    part: Option<Arc<[u8]>>,
    ready: BytesMut,
}

impl FrozenMap {
    pub(super) fn new(values: Table<Value>, clock: UnixMs, users: &Users) -> Self {
        let mut ready = BytesMut::new();
        if clock != UnixMs(0) {
            record(&mut ready, b"", Kind::Clock, &[&clock.0.to_le_bytes()]);
        }
        for command in users.commands() {
            record(&mut ready, b"", Kind::User, &[&command.raw]);
        }
        Self { values, last: None, part: None, ready }
    }

    /// Writes out whole records until there are `bytes` ready.
    fn fill(&mut self, bytes: usize) {
        let Self { values, last, part, ready } = self;
        // A copy, because it moves on while the table is walked.
        let after = last.clone();
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        for (place, value) in values.from(from) {
            if bytes <= ready.len() {
                return;
            }
            if let (Some(at), None) = (value.expires(), &part) {
                record(ready, &place.key, Kind::Deadline, &[&at.0.to_le_bytes()]);
            }
            match value.kept() {
                Value::String(value) => record(ready, &place.key, Kind::String, &[value]),
                Value::Expiring(_) => unreachable!("what expires keeps what does not"),
                Value::Collection(it) => {
                    let after = part.take().map_or(Bound::Unbounded, Bound::Excluded);
                    *part = match &**it {
                        Collection::Hash(hash) => {
                            parts(ready, bytes, hash.range(after), |ready, (field, value)| {
                                let length = (field.len() as u32).to_le_bytes();
                                record(ready, &place.key, Kind::Field, &[&length, field, value]);
                                field
                            })
                        }
                        Collection::Set(set) => {
                            parts(ready, bytes, set.range(after), |ready, (member, ())| {
                                record(ready, &place.key, Kind::Member, &[member]);
                                member
                            })
                        }
                    };
                    if part.is_some() {
                        return;
                    }
                }
            }
            *last = Some(place.clone());
        }
        // Nothing is left: whoever holds this need not hold the map any longer.
        *values = Table::default();
    }
}

/// Writes parts, one at least, until there are `bytes` ready; `write` says which one it wrote. The last one
/// written, if others follow.
fn parts<'a, T>(
    ready: &mut BytesMut,
    bytes: usize,
    parts: impl Iterator<Item = T>,
    write: impl Fn(&mut BytesMut, T) -> &'a Arc<[u8]>,
) -> Option<Arc<[u8]>> {
    let mut last: Option<&Arc<[u8]>> = None;
    for part in parts {
        if last.is_some() && bytes <= ready.len() {
            return last.cloned();
        }
        last = Some(write(ready, part));
    }
    None
}

fn record(ready: &mut BytesMut, key: &[u8], kind: Kind, rest: &[&[u8]]) {
    let rest_bytes = rest.iter().map(|part| part.len()).sum::<usize>();
    ready.reserve(HEADER_BYTES + key.len() + rest_bytes);
    ready.put_uint_le(key.len() as u64, 3);
    ready.put_u8(kind as u8);
    ready.put_u32_le(u32::try_from(rest_bytes).expect("limits bound a value"));
    ready.put_slice(key);
    rest.iter().for_each(|part| ready.put_slice(part));
}

impl Frozen for FrozenMap {
    fn next_chunk(&mut self, bytes_max: usize) -> Option<Bytes> {
        self.fill(bytes_max);
        let bytes = self.ready.len().min(bytes_max);
        (bytes > 0).then(|| self.ready.split_to(bytes).freeze())
    }
}

/// A map being filled.
#[derive(Default)]
pub(super) struct RestoringMap {
    map: Map,
    /// The last key taken, and what it holds so far.
    last: Option<(Place, Value)>,
    /// When the last key goes.
    last_expires: Option<UnixMs>,
    /// The next key, and when it goes.
    next: Option<(Place, UnixMs)>,
    /// Bytes that make no whole record yet, in pieces as they came.
    rest: VecDeque<Bytes>,
    rest_bytes: usize,
}

impl RestoringMap {
    /// All chunks were given.
    pub(super) fn into_map(mut self) -> Result<Map, RestoreError> {
        if self.rest_bytes > 0 || self.next.is_some() {
            return Err(RestoreError::CutShort { left: self.rest_bytes });
        }
        self.settle();
        Ok(self.map)
    }

    /// The first `bytes` of the rest, which has them, without a copy if they came in one piece.
    fn take(&mut self, bytes: usize) -> Bytes {
        self.rest_bytes -= bytes;
        let whole = self.rest.front().is_some_and(|first| bytes <= first.len());
        let mut taken = BytesMut::with_capacity(if whole { 0 } else { bytes });
        while let Some(first) = self.rest.front_mut() {
            let part = first.split_to(first.len().min(bytes - taken.len()));
            if first.is_empty() {
                self.rest.pop_front();
            }
            if whole {
                return part;
            }
            taken.put_slice(&part);
            if taken.len() == bytes {
                break;
            }
        }
        taken.freeze()
    }

    /// The next record's bytes of the key, kind, and bytes behind the key, if its header is here. Leaves
    /// it where it is.
    fn peek(&self) -> Option<(usize, u8, usize)> {
        let mut header = [0; HEADER_BYTES];
        let mut bytes = self.rest.iter().flat_map(|part| part.iter());
        for byte in &mut header {
            *byte = *bytes.next()?;
        }
        let mut header = &header[..];
        let key_bytes = header.get_uint_le(3) as usize;
        Some((key_bytes, header.get_u8(), header.get_u32_le() as usize))
    }

    /// One record.
    fn take_record(&mut self, key: &[u8], kind: Kind, rest: &[u8]) -> Result<(), RestoreError> {
        let place = Place::of(key);
        // The time and users lie in front of every key, under the empty one.
        let is_in_front = self.last.is_none() && self.next.is_none() && key.is_empty();
        if kind == Kind::Clock {
            let is_first = is_in_front && self.map.users.is_empty() && self.map.clock == UnixMs(0);
            let time = time(rest).filter(|time| is_first && *time != UnixMs(0));
            self.map.clock = time.ok_or(RestoreError::OutOfOrder)?;
            return Ok(());
        }
        if kind == Kind::User {
            let command = Command::parse(Bytes::copy_from_slice(rest)).ok().filter(|_| is_in_front);
            let users = Arc::make_mut(&mut self.map.users);
            let is_one = command.is_some_and(|command| users.restore(command));
            return if is_one { Ok(()) } else { Err(RestoreError::OutOfOrder) };
        }
        match &mut self.last {
            // Another part of the same.
            Some((last, Value::Collection(it))) if place == *last => {
                return add_part(it, kind, rest);
            }
            Some((last, _)) if place <= *last => return Err(RestoreError::OutOfOrder),
            _ => {}
        }
        let expires = match self.next.take() {
            Some((next, at)) if next == place && kind != Kind::Deadline => Some(at),
            Some(_) => return Err(RestoreError::OutOfOrder),
            None => None,
        };
        if kind == Kind::Deadline {
            self.next = Some((place, time(rest).ok_or(RestoreError::OutOfOrder)?));
            return Ok(());
        }
        // Copies: a slice would pin the chunk it came in.
        let mut value = match kind {
            Kind::String => Value::String(Bytes::copy_from_slice(rest)),
            Kind::Field => Value::Collection(Box::new(Collection::Hash(Hash::default()))),
            Kind::Member => Value::Collection(Box::new(Collection::Set(Set::default()))),
            Kind::Deadline | Kind::Clock | Kind::User => return Err(RestoreError::OutOfOrder),
        };
        if let Value::Collection(it) = &mut value {
            add_part(it, kind, rest)?;
        }
        self.settle();
        self.last = Some((place, value));
        self.last_expires = expires;
        Ok(())
    }

    /// The last key holds what it holds.
    fn settle(&mut self) {
        if let Some((place, value)) = self.last.take() {
            self.map.insert_at(place, value.expiring(self.last_expires.take()));
        }
    }
}

/// A time, if it is one.
fn time(bytes: &[u8]) -> Option<UnixMs> {
    bytes.try_into().ok().map(|bytes| UnixMs(u64::from_le_bytes(bytes)))
}

/// One more part of a hash or set. They come in their order.
fn add_part(it: &mut Collection, kind: Kind, mut rest: &[u8]) -> Result<(), RestoreError> {
    match (it, kind) {
        (Collection::Hash(hash), Kind::Field) => {
            let bytes = rest.try_get_u32_le().map_or(usize::MAX, |bytes| bytes as usize);
            let Some((field, value)) = rest.split_at_checked(bytes) else {
                return Err(RestoreError::TooLong { what: "field", bytes });
            };
            if hash.last().is_some_and(|last| field <= last) {
                return Err(RestoreError::OutOfOrder);
            }
            hash.insert(field, Bytes::copy_from_slice(value));
        }
        (Collection::Set(set), Kind::Member) => {
            if set.last().is_some_and(|last| rest <= last) {
                return Err(RestoreError::OutOfOrder);
            }
            set.insert(rest, ());
        }
        _ => return Err(RestoreError::OutOfOrder),
    }
    Ok(())
}

#[cfg(test)]
impl RestoringMap {
    /// How many keys each slot has so far.
    pub(super) fn slots(&mut self) -> &std::collections::BTreeMap<u16, u64> {
        self.settle();
        &self.map.slots
    }
}

impl Restoring for RestoringMap {
    fn chunk(&mut self, chunk: &Bytes) -> Result<(), RestoreError> {
        if !chunk.is_empty() {
            self.rest.push_back(chunk.clone());
            self.rest_bytes += chunk.len();
        }
        while let Some((key_bytes, kind, rest_bytes)) = self.peek() {
            let kind = Kind::of(kind)?;
            let bounds = [
                ("key", key_bytes, limits::KEY_BYTES_MAX),
                ("value", rest_bytes, limits::COMMAND_BYTES_MAX),
            ];
            for (what, bytes, max) in bounds {
                if max < bytes {
                    return Err(RestoreError::TooLong { what, bytes });
                }
            }
            if self.rest_bytes < HEADER_BYTES + key_bytes + rest_bytes {
                break;
            }
            self.take(HEADER_BYTES);
            let (key, rest) = (self.take(key_bytes), self.take(rest_bytes));
            self.take_record(&key, kind, &rest)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
        Ok(Box::new(self.into_map()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::Index;
    use crate::store::Wanted;

    fn map(pairs: &[(Vec<u8>, Vec<u8>)]) -> Map {
        let mut map = Map::new();
        for (key, value) in pairs {
            map.set(key, value);
        }
        map
    }

    fn chunks(frozen: &mut dyn Frozen, bytes_max: usize) -> Vec<Bytes> {
        std::iter::from_fn(|| frozen.next_chunk(bytes_max)).collect()
    }

    fn restored(map: &Map, chunks: &[Bytes]) -> Result<Box<dyn StateMachine>, RestoreError> {
        let mut restoring = map.restoring();
        chunks.iter().try_for_each(|chunk| restoring.chunk(chunk))?;
        restoring.finish()
    }

    proptest! {
        #[test]
        fn a_map_comes_back_whatever_the_chunks(
            pairs in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(any::<u8>(), 0..40)),
                0..40,
            ),
            collections in prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 1..3),
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..20),
                0..4,
            ),
            expiring in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..2), 6u64..99),
                0..20,
            ),
            bytes_max in 1usize..70,
        ) {
            let mut map = map(&pairs);
            for (key, parts) in &collections {
                let (name, parts) = (if key.len() == 1 { &b"SADD"[..] } else { b"HSET" }, parts);
                let mut args = vec![name, key];
                args.extend(parts.iter().flat_map(|part| [&part[..], b"value"]));
                map.apply(Index(1), &Command::from_args(&args).raw, Wanted::No);
            }
            for (key, at) in &expiring {
                let command = Command::from_args(&[b"PEXPIREAT", key, at.to_string().as_bytes()]).raw;
                let stamped = map.stamp(&command, UnixMs(5), false).expect("it depends on the time");
                map.apply(Index(1), &stamped, Wanted::No);
            }
            let mut frozen = map.freeze();
            let (digest, len, due) = (map.digest(), map.len(), map.due(UnixMs(0)));
            let mut given = Vec::new();
            while let Some(chunk) = frozen.next_chunk(bytes_max) {
                prop_assert!(chunk.len() <= bytes_max);
                given.push(chunk);
                // What is applied later is not seen.
                let count = given.len() as u8;
                map.set(&[count], b"later");
                map.remove(&[count ^ 1]);
            }
            let back = restored(&map, &given).expect("whole");
            prop_assert_eq!((back.digest(), back.len()), (digest, len));
            prop_assert_eq!(back.due(UnixMs(0)), due);
        }
    }

    #[test]
    fn the_largest_pair_spans_chunks() {
        let (key, value) = (vec![1; limits::KEY_BYTES_MAX], vec![2; limits::VALUE_BYTES_MAX]);
        let map = map(&[(key, value), (b"k".to_vec(), b"v".to_vec())]);
        let given = chunks(&mut *map.freeze(), limits::SNAPSHOT_PIECE_BYTES);
        assert!(given.len() > 15);
        assert_eq!(restored(&map, &given).expect("whole").digest(), map.digest());
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let pairs = [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())];
        let map = map(&pairs);
        let whole = chunks(&mut *map.freeze(), 1 << 20).concat();
        let refused = |bytes: &[u8]| {
            restored(&map, &[Bytes::copy_from_slice(bytes)]).err().map(|error| error.to_string())
        };
        assert_eq!(refused(&whole), None);
        let cut = refused(&whole[..whole.len() - 1]).expect("a pair is cut");
        assert!(cut.contains("in the middle of a pair, 9 bytes"), "{cut}");
        let swapped = [&whole[10..], &whole[..10]].concat();
        assert_eq!(refused(&swapped), Some("the state's pairs are out of order".into()));
        let mut long = whole.clone();
        long[2] = 2;
        let long = refused(&long).expect("a key of 128 KiB");
        assert!(long.contains("a key of 131073 bytes"), "{long}");
        let mut unknown = whole;
        unknown[3] = 9;
        assert!(refused(&unknown).expect("kind 9").contains("a record of kind 9"));
    }

    #[test]
    fn the_time_is_the_first_record_and_never_zero() {
        let clock = |ms: u64| {
            let mut bytes = BytesMut::new();
            record(&mut bytes, b"", Kind::Clock, &[&ms.to_le_bytes()]);
            bytes.freeze()
        };
        let user = {
            let mut bytes = BytesMut::new();
            let command = Command::from_args(&[b"ACL", b"SETUSER", b"u", b"reset"]);
            record(&mut bytes, b"", Kind::User, &[&command.raw]);
            bytes.freeze()
        };
        let outcome = |chunks: &[Bytes]| restored(&Map::new(), chunks).map(|_| ());
        assert_eq!(outcome(&[clock(7)]), Ok(()));
        assert_eq!(outcome(&[clock(7), user.clone()]), Ok(()));
        for chunks in [vec![clock(0)], vec![clock(7), clock(7)], vec![user, clock(7)]] {
            assert_eq!(outcome(&chunks), Err(RestoreError::OutOfOrder), "{chunks:?}");
        }
    }

    #[test]
    fn parts_out_of_order_or_of_another_kind_are_refused() {
        let mut map = Map::new();
        for line in ["HSET h a 1 b 2", "SADD s x y"] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            map.apply(Index(1), &Command::from_args(&args).raw, Wanted::No);
        }
        let mut bytes = Bytes::from(chunks(&mut *map.freeze(), 1 << 20).concat());
        let mut records = Vec::new();
        while let Some(mut header) = bytes.get(..HEADER_BYTES) {
            let key_bytes = header.get_uint_le(3) as usize;
            header.advance(1);
            let rest_bytes = header.get_u32_le() as usize;
            records.push(bytes.split_to(HEADER_BYTES + key_bytes + rest_bytes));
        }
        assert_eq!(records.len(), 4);
        let outcome = |order: &[usize]| {
            let given: Vec<Bytes> = order.iter().map(|&at| records[at].clone()).collect();
            restored(&map, &given).map(|back| back.digest())
        };
        assert_eq!(outcome(&[0, 1, 2, 3]).ok(), Some(map.digest()));
        for order in [&[1, 0, 2, 3][..], &[0, 0], &[3, 2], &[2, 3, 0, 1]] {
            assert_eq!(outcome(order).err(), Some(RestoreError::OutOfOrder), "{order:?}");
        }
        let mut mixed = records[..2].to_vec();
        mixed[1] = Bytes::from([&mixed[1][..3], &[Kind::Member as u8], &mixed[1][4..]].concat());
        assert_eq!(restored(&map, &mixed).err(), Some(RestoreError::OutOfOrder));
        let mut long = records[0].to_vec();
        long[HEADER_BYTES + 1] = 200;
        let long = restored(&map, &[long.into()]).err();
        assert_eq!(long, Some(RestoreError::TooLong { what: "field", bytes: 200 }));
    }
}
