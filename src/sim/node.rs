//! One node: its disks, which last, and its process, which does not.

use crate::id::{NodeId, ReplicaId, Tick};
use crate::shard::{Effects, Event, Shard};

use super::crash_points::Saved;
use super::disk::Disk;

/// One node; counted from zero in the world, from one in the cluster.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// How often it has been started. Names the present process, too.
    pub(super) life: u64,
    /// It may run. Not before it takes somebody's place, and never again once its disk was replaced.
    pub(super) is_there: bool,
    /// One log directory per core.
    pub(super) disks: Vec<Disk>,
    /// One per core while the process runs; empty while it does not.
    pub(super) cores: Vec<Core>,
    /// Nothing of it runs before this time.
    pub(super) paused_until: u64,
    pub(super) disk_full: bool,
    pub(super) clock: Clock,
    /// Until when the disk of each core takes long,
    pub(super) slow_until: Vec<u64>,
    /// and until when nothing on it completes.
    pub(super) hangs_until: Vec<u64>,
}

/// One core of a running node.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) shard: Shard,
    /// What it has not looked at yet.
    pub(super) inbox: Vec<Event>,
    /// A turn is scheduled.
    pub(super) is_due: bool,
    /// It takes no turn before this time.
    pub(super) stalled_until: u64,
    /// When its timer goes off; `u64::MAX` if it is not set.
    pub(super) wakes_at: u64,
    pub(super) effects: Effects,
    /// What the next turn hears of.
    pub(super) saved: Saved,
}

/// The monotonic clock of one process: it starts anywhere, runs a little fast or slow, and may be set.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    /// At this time
    at: u64,
    /// it showed so many microseconds.
    shows: u64,
    rate_percent: u64,
    /// What was read is never taken back.
    floor: Tick,
}

impl Clock {
    /// A clock that shows `first` milliseconds now.
    pub(super) fn new(now: u64, first: u64, rate_percent: u64) -> Self {
        Self { at: now, shows: first * 1_000, rate_percent, floor: Tick(0) }
    }

    fn raw(&self, now: u64) -> u64 {
        self.shows + (now - self.at) * self.rate_percent / 100
    }

    pub(super) fn read(&self, now: u64) -> Tick {
        Tick(self.raw(now) / 1_000).max(self.floor)
    }

    /// When it will show `tick`, as far as anybody can tell now; `None` for never.
    pub(super) fn when(&self, tick: Tick) -> Option<u64> {
        if tick == Tick(u64::MAX) {
            return None;
        }
        let left = (tick.0 * 1_000).saturating_sub(self.shows);
        Some(self.at + (left * 100).div_ceil(self.rate_percent))
    }

    /// From now on it runs at another rate.
    pub(super) fn run_at(&mut self, now: u64, rate_percent: u64) {
        (self.shows, self.at, self.rate_percent) = (self.raw(now), now, rate_percent);
    }

    /// It is set forward or back by so many microseconds. Set back, it stands still for that long.
    pub(super) fn jump(&mut self, now: u64, by_us: i64) {
        self.floor = self.read(now);
        (self.shows, self.at) = (self.raw(now).saturating_add_signed(by_us), now);
    }

    /// Whatever was done to it, it goes on from what it shows.
    pub(super) fn go_on(&mut self, now: u64) {
        (self.shows, self.at) = (self.raw(now).max(self.floor.0 * 1_000), now);
    }
}

impl Node {
    pub(super) fn new(number: usize, cores: u16, segment_bytes: usize) -> Self {
        Self {
            id: NodeId(number as u64 + 1),
            life: 0,
            is_there: true,
            disks: (0..cores).map(|_| Disk::new(segment_bytes)).collect(),
            cores: Vec::new(),
            paused_until: 0,
            disk_full: false,
            clock: Clock::default(),
            slow_until: vec![0; usize::from(cores)],
            hangs_until: vec![0; usize::from(cores)],
        }
    }

    pub(super) fn is_up(&self) -> bool {
        !self.cores.is_empty()
    }

    /// Whether the process that `life` names still runs.
    pub(super) fn lives(&self, life: u64) -> bool {
        self.is_up() && self.life == life
    }

    pub(super) fn replica(&self) -> ReplicaId {
        ReplicaId(self.id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_goes_back_and_says_when_it_will_show_a_tick() {
        let mut clock = Clock::new(5_000, 70, 90);
        assert_eq!(clock.read(5_000), Tick(70));
        let due = clock.when(Tick(100)).expect("some day");
        assert!(clock.read(due - 1) < Tick(100) && clock.read(due) == Tick(100));
        clock.jump(due, -20_000);
        assert_eq!(clock.read(due), Tick(100), "it stands still");
        assert_eq!(clock.read(due + 20_000), Tick(100));
        let later = clock.when(Tick(101)).expect("some day");
        assert!(later > due + 20_000 && clock.read(later) == Tick(101));
        clock.jump(later, 1_000_000);
        assert_eq!(clock.read(later), Tick(1_101));
        clock.run_at(later, 110);
        assert_eq!(clock.read(later + 10_000), Tick(1_112));
        clock.jump(later, -500_000);
        clock.go_on(later);
        assert_eq!(clock.read(later + 10_000), Tick(1_112), "it went on");
    }
}
