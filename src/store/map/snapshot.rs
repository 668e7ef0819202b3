//! The map as a stream of bytes, and back.
//!
//! ```text
//!  byte
//!     0  key bytes                4
//!     4  value bytes              4
//!     8  key, value
//!     …  the next pair, in the map's order
//! ```
//!
//! A chunk ends anywhere, so that one value, which may be larger than a chunk, needs no rule of its
//! own.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use imbl::OrdMap;

use crate::limits;
use crate::store::{Frozen, RestoreError, Restoring, StateMachine};

use super::{Map, Place, hash};

const PAIR_HEADER_BYTES: usize = 8;

/// A map that no longer changes. Holds at most one pair more than the chunk asked for.
pub(super) struct FrozenMap {
    values: OrdMap<Place, Bytes>,
    /// The last pair that went into `ready`.
    last: Option<Place>,
    ready: BytesMut,
}

impl FrozenMap {
    pub(super) fn new(values: OrdMap<Place, Bytes>) -> Self {
        Self { values, last: None, ready: BytesMut::new() }
    }

    /// Writes out whole pairs until there are `bytes` ready.
    fn fill(&mut self, bytes: usize) {
        let Self { values, last, ready } = self;
        let from = last.as_ref().map_or(Bound::Unbounded, |last| Bound::Excluded(last.clone()));
        for (place, value) in values.range((from, Bound::Unbounded)) {
            if bytes <= ready.len() {
                return;
            }
            ready.reserve(PAIR_HEADER_BYTES + place.key.len() + value.len());
            ready.put_u32_le(u32::try_from(place.key.len()).expect("limits bound a key"));
            ready.put_u32_le(u32::try_from(value.len()).expect("limits bound a value"));
            ready.put_slice(&place.key);
            ready.put_slice(value);
            *last = Some(place.clone());
        }
        // Nothing is left: whoever holds this need not hold the map any longer.
        *values = OrdMap::new();
    }
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
    /// The last pair taken.
    last: Option<Place>,
    /// Bytes that make no whole pair yet, in pieces as they came.
    rest: VecDeque<Bytes>,
    rest_bytes: usize,
}

impl RestoringMap {
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

    /// The lengths of the next pair, if its header is here. Leaves it where it is.
    fn peek(&self) -> Option<(usize, usize)> {
        let mut header = [0; PAIR_HEADER_BYTES];
        let mut bytes = self.rest.iter().flat_map(|part| part.iter());
        for byte in &mut header {
            *byte = *bytes.next()?;
        }
        let mut header = &header[..];
        Some((header.get_u32_le() as usize, header.get_u32_le() as usize))
    }
}

impl Restoring for RestoringMap {
    fn chunk(&mut self, chunk: &Bytes) -> Result<(), RestoreError> {
        if !chunk.is_empty() {
            self.rest.push_back(chunk.clone());
            self.rest_bytes += chunk.len();
        }
        while let Some((key_bytes, value_bytes)) = self.peek() {
            let bounds = [
                ("key", key_bytes, limits::KEY_BYTES_MAX),
                ("value", value_bytes, limits::VALUE_BYTES_MAX),
            ];
            for (what, bytes, max) in bounds {
                if max < bytes {
                    return Err(RestoreError::TooLong { what, bytes });
                }
            }
            if self.rest_bytes < PAIR_HEADER_BYTES + key_bytes + value_bytes {
                break;
            }
            self.take(PAIR_HEADER_BYTES);
            let key = self.take(key_bytes);
            let value = self.take(value_bytes);
            let place = Place { hash: hash(&key), key: key[..].into() };
            if self.last.as_ref().is_some_and(|last| place <= *last) {
                return Err(RestoreError::OutOfOrder);
            }
            self.last = Some(place.clone());
            // A copy: a slice would pin the chunk it came in.
            self.map.values.insert(place, Bytes::copy_from_slice(&value));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
        match self.rest_bytes {
            0 => Ok(Box::new(self.map)),
            left => Err(RestoreError::CutShort { left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Spot;
    use super::*;

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
            bytes_max in 1usize..70,
        ) {
            let mut map = map(&pairs);
            let mut frozen = map.freeze();
            let (digest, len) = (map.digest(), map.len());
            let mut given = Vec::new();
            while let Some(chunk) = frozen.next_chunk(bytes_max) {
                prop_assert!(chunk.len() <= bytes_max);
                given.push(chunk);
                // What is applied later is not seen.
                let count = given.len() as u8;
                map.set(&[count], b"later");
                map.values.remove(&Spot::of(&[count ^ 1]));
            }
            let back = restored(&map, &given).expect("whole");
            prop_assert_eq!((back.digest(), back.len()), (digest, len));
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
        long[3] = 1;
        let long = refused(&long).expect("a key of 16 MiB");
        assert!(long.contains("a key of 16777217 bytes"), "{long}");
    }
}
