//! Frames out of a stream of bytes, however the stream is cut.
//!
//! ```text
//!   space() ──► socket reads into it ──► filled(n) ──► next() ──► Some(frame) … None ──► space()
//!
//!   buffer  │ frame │ frame │ part of a frame │ zeroed space │
//!                                             └ filled
//! ```
//!
//! The socket reads straight into the buffer that the payloads are later slices of. When a frame
//! turns out to be longer than the buffer, room for exactly all of it is made once, after its
//! header has been judged.

use bytes::{Bytes, BytesMut};

use super::error::FrameError;
use super::frame::{Expect, FrameHeader, HEADER_BYTES};
use super::peer::Frame;

/// The buffer is this large unless a frame needs more.
const BUFFER_BYTES: usize = 64 << 10;
/// The socket is never offered less room than this.
const SPACE_BYTES_MIN: usize = 4 << 10;

/// Cuts one link's bytes into frames. One per link; dropped with it.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// Received bytes, then zeroed space for more.
    buffer: BytesMut,
    /// How many of `buffer` have been received.
    filled: usize,
    /// The header of the frame being received, once judged.
    header: Option<FrameHeader>,
    expect: Option<Expect>,
    failed: Option<FrameError>,
}

impl FrameReader {
    /// A reader that has seen nothing. It accepts any sender until [`expect`](Self::expect).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on, frames must carry these addresses; judged by the header, before room is made
    /// for the rest (contract row 49).
    pub fn expect(&mut self, expect: Expect) {
        self.expect = Some(expect);
    }

    /// How many bytes must still arrive before [`next`](Self::next) can get further: the rest of a
    /// header, or the rest of a frame. Zero if it can already.
    #[must_use]
    pub fn needed(&self) -> usize {
        let whole = self.header.map_or(HEADER_BYTES, |header| header.frame_bytes());
        whole.saturating_sub(self.filled)
    }

    /// Room for the socket to read into: at least [`needed`](Self::needed) bytes and never less
    /// than 4 KiB. Report with [`filled`](Self::filled) how many were read.
    pub fn space(&mut self) -> &mut [u8] {
        let wanted = self.needed().max(SPACE_BYTES_MIN);
        if self.buffer.len() - self.filled < wanted {
            // A whole buffer at a time, so that the unfinished frame at the end of the old one is
            // seldom carried over; but a long frame gets exactly what it needs.
            let room = wanted.max(BUFFER_BYTES - self.filled.min(BUFFER_BYTES));
            self.buffer.truncate(self.filled);
            self.buffer.reserve(room);
            self.buffer.resize(self.filled + room, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// The socket read `bytes` bytes into [`space`](Self::space).
    ///
    /// # Panics
    /// If that is more than the space.
    pub fn filled(&mut self, bytes: usize) {
        assert!(bytes <= self.buffer.len() - self.filled, "more read than there was room for");
        self.filled += bytes;
    }

    /// Takes bytes by copy: for tests and the simulator.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filled(count);
            bytes = &bytes[count..];
        }
    }

    /// Takes bytes, and copies them only if a part of a frame is waiting for them or they are shared.
    pub fn feed_owned(&mut self, bytes: Bytes) {
        if self.filled == 0 {
            self.filled = bytes.len();
            self.buffer = BytesMut::from(bytes);
        } else {
            self.feed(&bytes);
        }
    }

    /// The next whole frame, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// The first thing wrong with the stream. The reader repeats it for ever: after it nothing
    /// lines up, and the link must be closed.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would say that None is the end of the stream"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.poll().inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn poll(&mut self) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                if self.filled < HEADER_BYTES {
                    return Ok(None);
                }
                let bytes = self.buffer.first_chunk().expect("a header's worth was received");
                let header = FrameHeader::decode(bytes)?;
                if let Some(expect) = &self.expect {
                    header.check(expect)?;
                }
                *self.header.insert(header)
            }
        };
        let whole = header.frame_bytes();
        if self.filled < whole {
            return Ok(None);
        }
        self.header = None;
        self.filled -= whole;
        let bytes = self.buffer.split_to(whole).freeze();
        Frame::decode(header, bytes).map(Some)
    }
}
