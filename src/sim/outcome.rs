//! What a run has to show for itself.

use std::fmt;

use super::strikes::Strike;

/// Kinds of faults: field, name, what it counts.
macro_rules! faults {
    ($($field:ident, $name:literal, $doc:literal;)+) => {
        /// How many faults of each kind a run injected.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Faults {
            /// Faults with a number, of whatever kind.
            pub strikes: u64,
            $(#[doc = $doc] pub $field: u64,)+
        }

        impl Faults {
            /// Each kind by name.
            #[must_use]
            pub fn by_kind(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field)),+]
            }
        }
    };
}

faults! {
    crashes, "node: crashes", "Nodes crashed, whatever the reason.";
    crashes_in_turn, "node: crashes between effects", "Of those, between two effects of one turn.";
    crashes_at_points, "node: crashes at named points", "Of those, at a named point.";
    crashes_in_recovery, "node: crashes in recovery", "Starts cut short.";
    stops, "node: clean stops", "Nodes stopped in good order.";
    checkpoints, "node: checkpoints", "Nodes that began snapshots of everything before they stopped.";
    pauses, "node: pauses", "Nodes paused.";
    core_stalls, "node: core stalls", "Cores stalled while their siblings went on.";
    clock_jumps_forward, "node: clock jumps forward", "Clocks set forward.";
    clock_jumps_back, "node: clock jumps back", "Clocks set back.";
    clock_rates, "node: clock rates", "Clocks that ran at another rate from then on.";
    wipes, "node: amnesia", "Disks replaced by empty ones, and their nodes by others with new ids.";
    moved, "node: other cores or groups in rehearsals", "Starts rehearsed with another number of cores or groups.";
    alone, "node: left alone in rehearsals", "Starts rehearsed as of the last replica of every group, which goes on alone or is refused.";
    mailboxes_full, "node: mailboxes full", "Posts that found a full mailbox.";
    partitions, "net: partitions", "Partitions of any shape.";
    one_way, "net: one-way cuts", "Of those, in one direction only.";
    rings, "net: rings", "Of those, rings.";
    bridges, "net: bridges", "Of those, bridges.";
    flaps, "net: flapping links", "Links that flapped.";
    swizzles, "net: swizzles", "Nodes cut off one by one and taken back in another order.";
    slow_links, "net: slow links", "Links that were slow in one direction.";
    links_broken, "net: links broken", "Links broken.";
    frames_lost, "net: frames lost", "Frames lost, in partitions or on broken links or for no reason.";
    frames_repeated, "net: frames repeated", "Frames delivered twice.";
    frames_early, "net: frames overtaking", "Frames that did not keep the order of their lane.";
    frames_late, "net: frames late", "Frames that took fifty times as long.";
    frames_corrupted, "net: frames corrupted", "Frames delivered with a flipped byte.";
    frames_stale, "net: stale bytes", "Frames of an earlier life, delivered on a new connection.";
    torn_writes, "disk: torn writes", "Crashes that lost or garbled sectors of a write in flight.";
    writes_lost, "disk: lost unsynced writes", "Writes in flight of which nothing was left after a crash.";
    flushes_reordered, "disk: reordered flushes", "Flushes that were done before an earlier one.";
    stalls, "disk: flush stalls", "Flushes that stalled.";
    slow_disks, "disk: slow periods", "Periods in which a disk took long.";
    hangs, "disk: hangs", "Periods in which nothing on a disk completed.";
    write_errors, "disk: write errors", "Writes that failed.";
    short_writes, "disk: short writes", "Writes that failed after a first part had arrived.";
    sync_errors, "disk: fsync errors", "Flushes that failed.";
    read_errors, "disk: read errors", "Sealed segments that could not be read.";
    disks_full, "disk: full", "Periods without room on a disk.";
    bit_rot, "disk: bit rot", "Bits flipped in what was durable.";
    misdirected, "disk: misdirected writes", "Durable blocks that went to another place.";
    blocks_lost, "disk: lost blocks", "Durable blocks that read as zeroes.";
    bits_flipped, "disk: bits flipped in rehearsals", "Bits flipped when a start was rehearsed.";
    runs_replaced, "disk: runs replaced in rehearsals", "Runs of a log replaced by others when a start was rehearsed.";
    unreadable, "disk: latent read errors", "Durable blocks that cannot be read.";
    misread_starts, "disk: misdirected and stale reads at starts", "Starts that were shown another block, or an older one, for once.";
    rot_everywhere, "disk: bit rot on all nodes at once", "Durable blocks that rotted on all nodes at once, of each entry not all copies.";
    misread_back, "disk: misdirected, stale and garbled reads of entries", "Entries read back, of which a block was another or an older one, or a bit of it another, for once.";
    stale_reads, "disk: of those, stale", "Of those misread, blocks as they were before they were last written.";
    files_cut, "disk: truncated files", "Segments that were cut short.";
    files_missing, "disk: missing files", "Segments, and notes of where a log begins, that were gone.";
    files_foreign, "disk: foreign files", "Starts that found a file of another log, or of another version, under the name of a segment.";
    foreign_back, "disk: foreign files read back", "Entries read back from a file of another log, or of another version.";
    files_rolled_back, "disk: rolled-back files", "Segments, and notes of where a log begins, that were put back to what they were earlier.";
}

impl Faults {
    /// Faults with a number. Single frames, and what follows from a crash, are not counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.strikes
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
    /// Disks read to see whether what a node has promised would survive.
    pub audits: u64,
    /// Operations (one per key of a command) that the checker ordered.
    pub checked: u64,
    /// Of those, the ones that were answered with a result.
    pub answers_checked: u64,
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
    /// Segments that were given up and became spares.
    pub recycled: u64,
    /// Damage that recoveries found, and that the other members made good.
    pub losses: u64,
    /// Nodes whose disk was replaced that have been replaced themselves, in every group.
    pub replaced: u64,
    /// Starts that were refused because of what was misread or mixed up, and tried again.
    pub starts_refused: u64,
    /// Groups that stood still in the end, and had to, rather than lose anything.
    pub halts: u64,
    /// Turns of all cores.
    pub turns: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// How long after the end of faults the last group committed a write, in election timeouts.
    pub healed_after: u64,
    /// The same, if all disks were damaged at once.
    pub healed_hurt: u64,
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
    /// The faults that had struck.
    pub strikes: Vec<Strike>,
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
