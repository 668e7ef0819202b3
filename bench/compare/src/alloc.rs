//! A global allocator that counts what each thread asks for: how often, and how many bytes it holds.
//!
//! Bytes are those asked for, not what the allocator underneath rounds them up to; a block that another
//! thread frees counts against that thread. Both benchmarks that look at these numbers use one thread.

#![allow(unsafe_code, reason = "a global allocator is unsafe by contract; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, counted.
pub(crate) struct Counting;

/// How often this thread has asked for memory; growing a block counts as asking.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

/// Bytes that this thread has asked for and not given back.
pub(crate) fn live_bytes() -> i64 {
    LIVE.get()
}

fn count(calls: u64, bytes: i64) {
    // A thread that is being torn down may have lost its counters: nobody reads them any more.
    let _ = CALLS.try_with(|cell| cell.set(cell.get() + calls));
    let _ = LIVE.try_with(|cell| cell.set(cell.get() + bytes));
}

// SAFETY: every call is handed to `System` as it came, which keeps the contract; counting touches no
// memory of the allocator's and cannot allocate (the counters are `const` thread-locals without `Drop`).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `dealloc`; the block came from `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(1, bytes as i64 - layout.size() as i64);
        // SAFETY: the caller keeps the contract of `realloc`; the block came from `System`.
        unsafe { System.realloc(block, layout, bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_and_given_back_is_counted() {
        let (calls_before, live_before) = (calls(), live_bytes());
        let mut block: Vec<u8> = Vec::with_capacity(100);
        assert_eq!((calls() - calls_before, live_bytes() - live_before), (1, 100));
        block.reserve_exact(300);
        assert_eq!((calls() - calls_before, live_bytes() - live_before), (2, 300));
        drop(block);
        assert_eq!((calls() - calls_before, live_bytes() - live_before), (2, 0));
    }
}
