//! The content of a disk: sparse, in memory. Zeros cost nothing, so that a disk full of prepared log
//! segments is small.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What is stored in one piece, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Every byte that was never written is zero.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    chunks: Vec<Option<Box<[u8]>>>,
}

impl Image {
    /// Zeros; `bytes` is rounded up to whole chunks.
    pub(crate) fn new(bytes: u64) -> Self {
        let count = bytes.div_ceil(CHUNK_BYTES as u64);
        Self { chunks: (0..count).map(|_| None).collect() }
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        (self.chunks.len() * CHUNK_BYTES) as u64
    }

    /// Fills `into`; what lies behind the end is zero.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        into.fill(0);
        for (chunk, within, of_buffer) in pieces(offset, into.len()) {
            if let Some(Some(chunk)) = self.chunks.get(chunk) {
                let bytes = of_buffer.len();
                into[of_buffer].copy_from_slice(&chunk[within..within + bytes]);
            }
        }
    }

    /// Overwrites; what lies behind the end is dropped.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        for (chunk, within, of_data) in pieces(offset, data.len()) {
            let Some(chunk) = self.chunks.get_mut(chunk) else { return };
            let data = &data[of_data];
            if chunk.is_none() && is_zero(data) {
                continue;
            }
            let chunk = chunk.get_or_insert_with(|| vec![0; CHUNK_BYTES].into());
            chunk[within..within + data.len()].copy_from_slice(data);
        }
    }

    /// Overwrites with zeros.
    pub(crate) fn zero(&mut self, offset: u64, bytes: usize) {
        for (chunk, within, range) in pieces(offset, bytes) {
            match self.chunks.get_mut(chunk) {
                Some(whole) if range.len() == CHUNK_BYTES => *whole = None,
                Some(Some(chunk)) => chunk[within..within + range.len()].fill(0),
                Some(None) | None => {}
            }
        }
    }

    /// Makes a range the same as in `other`.
    pub(crate) fn copy(&mut self, other: &Self, offset: u64, bytes: usize) {
        let mut buffer = vec![0; bytes];
        other.read(offset, &mut buffer);
        if is_zero(&buffer) { self.zero(offset, bytes) } else { self.write(offset, &buffer) }
    }

    /// Writes it to a sparse file.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.bytes())?;
        for (at, chunk) in self.chunks.iter().enumerate() {
            if let Some(chunk) = chunk {
                file.write_all_at(chunk, (at * CHUNK_BYTES) as u64)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Cuts a range at the ends of chunks: which chunk, where in it, and which part of the range.
fn pieces(
    offset: u64,
    bytes: usize,
) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == bytes {
            return None;
        }
        let at = offset as usize + done;
        let within = at % CHUNK_BYTES;
        let length = (CHUNK_BYTES - within).min(bytes - done);
        let piece = (at / CHUNK_BYTES, within, done..done + length);
        done += length;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(image: &Image, offset: u64, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![9; bytes];
        image.read(offset, &mut buffer);
        buffer
    }

    #[test]
    fn what_is_written_across_chunks_is_read_and_zeros_are_free() {
        let mut image = Image::new(3 * CHUNK_BYTES as u64);
        let data: Vec<u8> = (0..2 * CHUNK_BYTES).map(|at| (at % 251) as u8 + 1).collect();
        let offset = CHUNK_BYTES as u64 / 2;
        image.write(offset, &data);
        assert_eq!(read(&image, offset, data.len()), data);
        assert_eq!(read(&image, 0, CHUNK_BYTES / 2), vec![0; CHUNK_BYTES / 2]);

        let mut other = Image::new(image.bytes());
        other.copy(&image, offset + 512, 512);
        assert_eq!(read(&other, offset + 512, 512), data[512..1024]);
        assert_eq!(read(&other, offset, 512), [0; 512]);

        image.zero(0, 3 * CHUNK_BYTES);
        assert_eq!(read(&image, offset, data.len()), vec![0; data.len()]);
        image.write(7, &[0; 1000]);
        assert!(image.chunks.iter().all(Option::is_none));
    }
}
