//! What is appended: who writes to which groups, and payloads that do not compress.

use bytes::Bytes;

use super::Cell;

/// Random bytes that payloads are cut from, in bytes.
const POOL_BYTES: usize = 16 << 20;

/// Entries of one group in one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) group: u64,
    /// The index of the first.
    pub(super) first: u64,
    pub(super) count: usize,
}

/// One writer: it alone writes to its groups, so that their indexes are in order.
#[derive(Debug)]
pub(super) struct Writer {
    cell: Cell,
    number: u64,
    /// Its groups, and which of them is next.
    groups: u64,
    next: u64,
    /// The next index of each.
    indexes: Vec<u64>,
    pool: Pool,
}

/// Where payloads come from.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    bytes: Bytes,
    at: usize,
}

impl Pool {
    pub(super) fn new(seed: u64) -> Self {
        let mut bytes = vec![0; POOL_BYTES];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        Self { bytes: bytes.into(), at: 0 }
    }

    /// The next payload: a counted slice.
    pub(super) fn next(&mut self, bytes: usize) -> Bytes {
        if POOL_BYTES < self.at + bytes {
            self.at = 0;
        }
        self.at += bytes;
        self.bytes.slice(self.at - bytes..self.at)
    }
}

impl Writer {
    /// All writers of a cell.
    pub(super) fn all(cell: Cell, seed: u64) -> Vec<Self> {
        let pool = Pool::new(seed);
        let count = cell.concurrent as u64;
        let writer = |number| {
            let groups = (cell.groups + count - 1 - number) / count;
            let at = POOL_BYTES / cell.concurrent * number as usize;
            let pool = Pool { at, ..pool.clone() };
            Self { cell, number, groups, next: 0, indexes: vec![1; groups as usize], pool }
        };
        (0..count).map(writer).collect()
    }

    /// The next batch: its entries go to as many of this writer's groups as there are, in turn.
    pub(super) fn pieces(&mut self) -> impl Iterator<Item = Piece> {
        let (batch, of) = (self.cell.batch as u64, self.groups);
        let groups = batch.min(of);
        let start = self.next;
        self.next = (start + groups) % of;
        (0..groups).map(move |at| {
            let count = batch / groups + u64::from(at < batch % groups);
            let own = (start + at) % of;
            let index = &mut self.indexes[own as usize];
            let first = *index;
            *index += count;
            let group = 1 + own * self.cell.concurrent as u64 + self.number;
            Piece { group, first, count: count as usize }
        })
    }

    /// A payload for the next entry.
    pub(super) fn payload(&mut self) -> Bytes {
        self.pool.next(self.cell.entry_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn indexes_of_a_group_are_in_order_and_no_group_has_two_writers() {
        for (groups, batch, concurrent) in [(1, 5, 1), (10, 16, 4), (16, 16, 16), (1000, 256, 4)] {
            let cell = Cell { groups, entry_bytes: 100, batch, concurrent };
            let mut seen: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
            let mut writers = Writer::all(cell, 1);
            for _ in 0..2000 {
                for (number, writer) in writers.iter_mut().enumerate() {
                    let mut entries = 0;
                    for piece in writer.pieces() {
                        let (next, owner) = *seen.entry(piece.group).or_insert((1, number));
                        assert_eq!((piece.first, owner), (next, number), "{cell:?}");
                        seen.insert(piece.group, (next + piece.count as u64, number));
                        entries += piece.count;
                    }
                    assert_eq!(entries, batch);
                }
            }
            assert!(seen.keys().copied().eq(1..=groups), "{cell:?}");
        }
    }
}
