//! What a run has to show for itself.

use std::fmt;

/// How many faults of each kind a run injected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Nodes crashed, whatever the reason.
    pub crashes: u64,
    /// Of those, between two effects of one turn.
    pub crashes_in_turn: u64,
    /// Starts cut short.
    pub crashes_in_recovery: u64,
    /// Nodes stopped in good order.
    pub stops: u64,
    /// Nodes paused.
    pub pauses: u64,
    /// Partitions.
    pub partitions: u64,
    /// Links broken.
    pub links_broken: u64,
    /// Frames lost, in partitions or on broken links or for no reason.
    pub frames_lost: u64,
    /// Frames delivered twice.
    pub frames_repeated: u64,
    /// Frames delivered with a flipped byte.
    pub frames_corrupted: u64,
    /// Crashes that lost or garbled sectors of a write in flight.
    pub torn_writes: u64,
    /// Flushes that stalled.
    pub stalls: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Periods without room on a disk.
    pub disks_full: u64,
    /// Posts that found a full mailbox.
    pub mailboxes_full: u64,
}

impl Faults {
    /// Each kind by name.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u64); 15] {
        [
            ("crashes", self.crashes),
            ("crashes between effects", self.crashes_in_turn),
            ("crashes in recovery", self.crashes_in_recovery),
            ("clean stops", self.stops),
            ("pauses", self.pauses),
            ("partitions", self.partitions),
            ("links broken", self.links_broken),
            ("frames lost", self.frames_lost),
            ("frames repeated", self.frames_repeated),
            ("frames corrupted", self.frames_corrupted),
            ("torn writes", self.torn_writes),
            ("flush stalls", self.stalls),
            ("write errors", self.write_errors),
            ("disks full", self.disks_full),
            ("mailboxes full", self.mailboxes_full),
        ]
    }

    /// Faults, single frames not counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.crashes
            + self.crashes_in_recovery
            + self.stops
            + self.pauses
            + self.partitions
            + self.links_broken
            + self.stalls
            + self.disks_full
    }
}

/// A run that found nothing wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Equal for equal seeds, or the simulator is broken.
    pub trace_hash: u64,
    /// Faults injected.
    pub faults: Faults,
    /// Crashes at named points, in the order of `CrashPoint::ALL`.
    pub crash_points: [u64; 12],
    /// Commands that were answered with a result.
    pub acked: u64,
    /// Of those, the ones that change something: their entries are committed.
    pub writes_acked: u64,
    /// Commands that were refused for certain.
    pub refused: u64,
    /// Commands whose outcome stayed unknown.
    pub unknown: u64,
    /// Requests of sessions that were answered after more than one attempt.
    pub retried: u64,
    /// Changes of members and moves of leaders that were made.
    pub operations: u64,
    /// Those that were refused, or of which nothing was heard.
    pub operations_refused: u64,
    /// Operations (one per key of a command) that the checker ordered.
    pub checked: u64,
    /// Keys whose histories were too tangled for the checker.
    pub unchecked_keys: u64,
    /// Entries committed, over all groups.
    pub committed: u64,
    /// Leaders elected.
    pub elections: u64,
    /// Frames sent.
    pub frames: u64,
    /// Disk writes started.
    pub writes: u64,
    /// Entries read back from sealed segments: times.
    pub log_reads: u64,
    /// Snapshots from a leader that took the place of log and state.
    pub installed: u64,
    /// Log segments deleted because snapshots stood for them.
    pub reclaimed: u64,
    /// Turns of all cores.
    pub turns: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// How long after the end of faults the last group committed a write, in election timeouts.
    pub healed_after: u64,
}

/// A run that found something wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed that shows it again.
    pub seed: u64,
    /// What is wrong.
    pub what: String,
    /// The end of the story, oldest line first.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.story {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        write!(f, "replay: cargo tool sim --seed {} --trace", self.seed)
    }
}
