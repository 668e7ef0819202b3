//! Where time enters: milliseconds since the process started, from the monotonic clock.
//!
//! Everything below `runtime/` is handed a [`Tick`]; nothing below it can ask.

use std::time::Duration;

use der::DateTime;
use rustix::time::{ClockId, clock_gettime};

use crate::id::{Micros, Tick, UnixMs};

/// How often every core is woken to look at its timers, in ms. It also bounds how late a core can
/// notice anything at all, should glommio lose a wake-up (docs/decisions/0003-glommio-fenced.md).
pub const TICK_MS: u64 = 5;
/// A turn that starts this long after the one before is counted, and warned about, in ms.
pub const LATE_MS: u64 = 100;
/// A handshake between nodes may take this long, in ms. A packet of it that is lost to a network that
/// is well again right after costs a group so long without this link.
pub const HELLO_MS: u64 = 2000;

/// One per node, copied to every core, so that all cores agree on the time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// In µs of the machine's own count.
    start: u64,
}

impl Clock {
    /// Start counting now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: uptime() }
    }

    /// Milliseconds since the start. Never goes back, and goes on while the machine is suspended: a
    /// leader that slept must not believe in its lease.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick((uptime() - self.start) / 1000)
    }

    /// Microseconds since a moment before the start, from the same clock: never zero.
    #[must_use]
    pub fn micros(&self) -> Micros {
        Micros(1 + uptime() - self.start)
    }

    /// What [`Self::now`] said when [`Self::micros`] said this.
    #[must_use]
    pub const fn tick(at: Micros) -> Tick {
        Tick((at.0 - 1) / 1000)
    }
}

/// What the clock on the wall says: for keys and certificates that expire, and for nothing else.
#[must_use]
pub fn wall() -> UnixMs {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    UnixMs(seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000)
}

/// Microseconds since the machine was started.
fn uptime() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000
}

/// Seconds since 1970 as an operator reads them: `2026-11-29T08:42:00Z`; of what lies behind the year 9999, the end of that.
#[must_use]
pub fn rfc_3339(seconds: u64) -> String {
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds));
    date.unwrap_or(DateTime::INFINITY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_told_as_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_796_000_000, "2026-11-30T00:53:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc_3339(seconds), expected, "{seconds}");
        }
    }
}
