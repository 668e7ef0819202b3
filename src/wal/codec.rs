//! Little-endian integers, one after the other.

/// Writes fields in the order they are drawn.
pub(super) struct Put<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Put<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
}

/// Reads fields in the order they are drawn. The caller has checked that they are all there.
pub(super) struct Take<'a> {
    bytes: &'a [u8],
}

impl<'a> Take<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.bytes.split_first_chunk().expect("the caller checked the length");
        self.bytes = rest;
        *field
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// The place and value of the first byte that is not zero.
///
/// Runs over whole segments at start-up: the fold over a block has no early exit, so that it
/// compiles to vector instructions.
pub(super) fn first_non_zero(bytes: &[u8]) -> Option<(usize, u64)> {
    for (number, block) in bytes.chunks(4096).enumerate() {
        if block.iter().fold(0, |all, byte| all | byte) != 0 {
            let (at, byte) = block.iter().enumerate().find(|(_, byte)| **byte != 0)?;
            return Some((number * 4096 + at, u64::from(*byte)));
        }
    }
    None
}
