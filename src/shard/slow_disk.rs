//! Whether this core's disk is the one that its groups could do without.
//!
//! A leader whose disk is slow, but answers, commits by its followers' disks: nobody waits for its own, and
//! nothing ends its leadership. Yet what it writes piles up in memory, and with one follower gone everybody waits
//! for it. It is told by what raft knows anyway: how much later than a quorum this disk has an entry. On a
//! machine whose disks are all slow that is nothing, and nothing is done.
//!
//! ```text
//!   commit passes what is durable here ── sample ──► durable here: late, or in time
//!   late, late, late … for SLOW_DISK_MS, one in time begins anew ──► is_due: hand over what is led here
//! ```

use crate::id::{Index, Tick};
use crate::limits::{SLOW_DISK_LATE_MS, SLOW_DISK_MS, SLOW_DISK_SAMPLES_MIN};

/// What is known of one core's disk.
#[derive(Debug, Default)]
pub(super) struct SlowDisk {
    /// An entry of one group that others made committed, and since when: it is not durable here yet.
    sample: Option<Sample>,
    late: Option<Late>,
}

#[derive(Debug)]
struct Sample {
    slot: u32,
    index: Index,
    at: Tick,
}

/// Samples that were late, one after another.
#[derive(Debug)]
struct Late {
    since: Tick,
    latest: Tick,
    samples: u32,
}

impl SlowDisk {
    /// A group of this core has come so far. `commit` counts only where it is led here.
    pub(super) fn settled(
        &mut self,
        now: Tick,
        slot: u32,
        is_led: bool,
        commit: Index,
        durable: Index,
    ) {
        if let Some(sample) = self.sample.take_if(|it| it.slot == slot)
            && is_led
        {
            if sample.index <= durable {
                self.ended(now, &sample);
            } else {
                self.sample = Some(sample);
            }
        }
        if self.sample.is_none() && is_led && durable < commit {
            self.sample = Some(Sample { slot, index: commit, at: now });
        }
    }

    fn ended(&mut self, now: Tick, sample: &Sample) {
        if now.since(sample.at) < SLOW_DISK_LATE_MS {
            self.late = None;
            return;
        }
        let is_stale = |late: &Late| SLOW_DISK_MS < sample.at.since(late.latest);
        if self.late.as_ref().is_none_or(is_stale) {
            self.late = Some(Late { since: sample.at, latest: now, samples: 0 });
        }
        if let Some(late) = &mut self.late {
            late.latest = now;
            late.samples += 1;
        }
    }

    /// Whether this disk has been late for so long that others should lead; said once, then it begins anew.
    pub(super) fn take_due(&mut self) -> bool {
        let is_due = |late: &mut Late| {
            SLOW_DISK_SAMPLES_MIN <= late.samples && SLOW_DISK_MS <= late.latest.since(late.since)
        };
        self.late.take_if(is_due).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits every 10 ms by others what this disk has `lag` later, and says after how long it was due.
    fn due_after(disk: &mut SlowDisk, lag: impl Fn(u64) -> u64) -> Option<u64> {
        (1..=1_000).find_map(|step| {
            let (now, commit) = (Tick(step * 10), Index(step));
            let has = |index: &u64| index * 10 + lag(*index) <= now.0;
            let durable = (1..=step).take_while(has).last().unwrap_or(0);
            disk.settled(now, 3, true, commit, Index(durable));
            disk.take_due().then_some(now.0)
        })
    }

    #[test]
    fn a_disk_that_is_always_later_than_a_quorum_is_due_after_its_time_and_once() {
        let mut disk = SlowDisk::default();
        let due = due_after(&mut disk, |_| 50).expect("it is slow");
        assert!((SLOW_DISK_MS..SLOW_DISK_MS + 200).contains(&due), "{due}");
        assert!(!disk.take_due());
    }

    #[test]
    fn one_sample_in_time_begins_anew() {
        let lag = |index| if index % 250 < 5 { 5 } else { 50 };
        assert_eq!(due_after(&mut SlowDisk::default(), lag), None);
        assert_eq!(due_after(&mut SlowDisk::default(), |_| SLOW_DISK_LATE_MS - 11), None);
    }

    #[test]
    fn silence_ends_a_row_and_a_lost_leadership_a_sample() {
        let mut disk = SlowDisk::default();
        for step in 0..100 {
            let at = step * (SLOW_DISK_MS + 100);
            disk.settled(Tick(at), 0, true, Index(step + 1), Index(step));
            disk.settled(Tick(at + 60), 0, true, Index(step + 1), Index(step + 1));
            assert!(!disk.take_due(), "now and then a late write is no slow disk");
        }
        let mut disk = SlowDisk::default();
        disk.settled(Tick(0), 0, true, Index(2), Index(1));
        disk.settled(Tick(60), 0, false, Index(2), Index(2));
        assert!(disk.late.is_none() && disk.sample.is_none());
        disk.settled(Tick(70), 1, false, Index(9), Index(1));
        assert!(disk.sample.is_none(), "a follower's disk keeps nobody waiting");
    }
}
