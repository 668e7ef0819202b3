//! How long the log's disk has owed an answer: the second brake beside bytes (contract row 19).
//!
//! Bytes alone let a slow trickle of writes wait for a disk that has stopped until the last of them
//! is given up. A write that would wait behind one that is older than the bound is refused at once,
//! and that it was not executed is certain.

use std::collections::VecDeque;

use crate::id::{FlushTicket, Tick};

/// The writes on their way to the disk, oldest first. One per shard.
#[derive(Debug, Default)]
pub(super) struct DiskAge {
    open: VecDeque<(FlushTicket, Tick)>,
}

impl DiskAge {
    /// A write was handed to the driver.
    pub(super) fn started(&mut self, ticket: FlushTicket, now: Tick) {
        self.open.push_back((ticket, now));
    }

    /// A write is durable; completions come in any order.
    pub(super) fn finished(&mut self, ticket: FlushTicket) {
        self.open.retain(|&(open, _)| open != ticket);
    }

    /// How long the oldest write has been under way, in ms; 0 if none is.
    pub(super) fn oldest_ms(&self, now: Tick) -> u64 {
        self.open.front().map_or(0, |&(_, started)| now.since(started))
    }
}
