//! Where time enters: milliseconds since the process started, from the monotonic clock.
//!
//! Everything below `runtime/` is handed a [`Tick`]; nothing below it can ask.

use std::time::Instant;

use crate::id::Tick;

/// How often every core is woken to look at its timers, in ms. It also bounds how late a core can
/// notice anything at all, should glommio lose a wake-up (DESIGN §5).
pub const TICK_MS: u64 = 5;
/// A turn that starts this long after the one before is counted, and warned about, in ms.
pub const LATE_MS: u64 = 100;
/// A handshake between nodes may take this long, in ms.
pub const HELLO_MS: u64 = 5000;

/// One per node, copied to every core, so that all cores agree on the time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Start counting now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the start. Never goes back; a suspended machine does not count.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
