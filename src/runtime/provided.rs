//! Memory that a core's ring receives into, without being told for which socket beforehand.
//!
//! ```text
//!            ┌ given: the kernel fills from here on ─────────────────┐
//!   buffer 0 │▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓│                                   │   the next receive, of whichever socket
//!   buffer 1 │                                                       │   when 0 is full
//!            └───────────────────────────────────────────────────────┘
//!              a    b  a  c          slices of one allocation, by arrival; a, b, c are connections
//! ```
//!
//! A receive that waits for a socket holds no memory: the kernel takes what it needs from here when bytes
//! arrive (`IORING_REGISTER_PBUF_RING`), and behind what it took the time before (`IOU_PBUF_RING_INC`, Linux
//! 6.12), so that small commands of many connections lie close together and leave together, as in
//! [`super::buffers::Chunk`]. When all of it is full, receives end and are begun again after the
//! turn has given new buffers: that bounds what one turn takes in.
//!
//! Buffers are used in turn, so each of them costs room in the processor's cache, whatever arrives: with eight, a
//! write cost 4 % more than with two. There are two until they have been full once, and then one more each time.

#![allow(
    unsafe_code,
    reason = "the kernel writes into spare capacity, and reads a table of addresses; both are local to this file"
)]

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::BytesMut;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::limits::{BLOCK_BYTES, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS};

use super::ring::Buffer;

/// The one group of buffers of a ring.
pub const GROUP: u16 = 0;
/// A buffer is filled piece by piece: `IOU_PBUF_RING_INC`.
const INCREMENTAL: u16 = 2;
/// Buffers to begin with: one is full now and then while the turn has not looked yet.
const BEGIN_WITH: u16 = 2;

/// The buffers of one ring. The kernel may write to those it was given until they are
/// [taken away](Self::unregister).
pub struct ProvidedBuffers {
    /// The table that the kernel reads: where the buffers are.
    table: Buffer,
    /// Where the next entry of the table goes.
    tail: u16,
    /// What is left of each buffer, without content.
    left: Vec<BytesMut>,
}

impl fmt::Debug for ProvidedBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvidedBuffers").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl ProvidedBuffers {
    /// Give a ring its buffers.
    ///
    /// # Errors
    /// When the kernel cannot fill buffers piece by piece (before 6.12), or has no memory for it.
    pub fn register(uring: &IoUring) -> io::Result<Self> {
        const { assert!(RECEIVE_BUFFERS.is_power_of_two()) };
        let mut table = Buffer::new(BLOCK_BYTES);
        let address = table.space(BLOCK_BYTES).as_mut_ptr() as u64;
        // SAFETY: the table is as long as so many entries, lies at a page's beginning, and is neither moved nor
        // freed before `unregister` or the end of the ring: it is behind a pointer that `Self` owns.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                address,
                RECEIVE_BUFFERS,
                GROUP,
                INCREMENTAL,
            )?;
        }
        let mut buffers = Self { table, tail: 0, left: Vec::new() };
        for _ in 0..BEGIN_WITH {
            buffers.grow();
        }
        Ok(buffers)
    }

    /// The kernel has found no buffer: one more, if there may be more.
    pub fn grow(&mut self) {
        let number = self.left.len() as u16;
        if number < RECEIVE_BUFFERS {
            self.left.push(BytesMut::new());
            self.give(number);
        }
    }

    /// Fresh memory for buffer `number`, which the kernel has filled.
    fn give(&mut self, number: u16) {
        let buffer = &mut self.left[usize::from(number)];
        // Reclaims the old memory when no slice of it is left, takes fresh memory otherwise.
        buffer.reserve(RECEIVE_BUFFER_BYTES);
        let space = buffer.spare_capacity_mut();
        let place = usize::from(self.tail % RECEIVE_BUFFERS);
        let table = self.table.space(BLOCK_BYTES).as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: `place` is within the table, which is zeroed memory, and zero is a value of every field. The kernel
        // reads and writes an entry only between the tail's passing it and the end of its buffer, and there are as
        // many entries as buffers: this one is not the kernel's now.
        let entry = unsafe { &mut *table.add(place) };
        entry.set_addr(space.as_mut_ptr() as u64);
        entry.set_len(RECEIVE_BUFFER_BYTES.min(space.len()) as u32);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies within the first entry, aligned for a u16, and only this thread writes to it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(table).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The kernel has put `count` bytes into buffer `number`: here they are. `is_full` says that it will put
    /// nothing more into it.
    ///
    /// # Panics
    /// If it says more than there was room for.
    pub fn take(&mut self, number: u16, count: usize, is_full: bool) -> BytesMut {
        let buffer = &mut self.left[usize::from(number)];
        assert!(count <= buffer.capacity(), "more was received than there was room for");
        // SAFETY: the kernel fills a buffer from its beginning on, in the order of its completions, so these are
        // the first `count` bytes of what is left; that they fit was asserted.
        unsafe { buffer.set_len(count) };
        let bytes = buffer.split();
        if is_full {
            self.give(number);
        }
        bytes
    }

    /// Take the buffers away from the ring. When that fails they are leaked, because the kernel may still write
    /// to them.
    pub fn unregister(self, uring: &IoUring) {
        if uring.submitter().unregister_buf_ring(GROUP).is_err() {
            std::mem::forget(self);
        }
    }
}
