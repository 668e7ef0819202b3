//! Fault switches for tests of a whole node, behind `--fault-commands` (contract row 14): a release
//! build can be made to lose a peer or a disk for a while, on demand and without root.
//!
//! ```text
//!   DEBUG PAUSE-PEERS node ms   no frame leaves for `node` or is taken from it; 0 is every peer
//!   DEBUG STALL-DISK ms         log flushes end, and are reported, no earlier than in `ms`
//!   DEBUG DELAY-DISK ms         every log flush takes at least `ms`, until this is 0
//! ```
//!
//! A later switch of the same kind replaces an earlier one; `0` ms ends it. Without the flag the
//! commands are unknown, as `DEBUG` with any other name.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::id::{NodeId, Tick};
use crate::limits::FAULT_MS_MAX;
use crate::shard::Event;
use crate::wire::OutFrame;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

use super::clock::Clock;

/// The switches of one node, shared by its cores.
#[derive(Debug)]
pub struct Faults {
    clock: Clock,
    /// Until when the disk stalls.
    stall: AtomicU64,
    /// How long every flush takes at least, in ms.
    delay_ms: AtomicU64,
    /// The latest end of any pause: while it has passed, nobody takes the lock.
    paused_until: AtomicU64,
    /// Until when each peer is paused; 0 is all of them.
    paused: Mutex<BTreeMap<u64, Tick>>,
}

impl Faults {
    /// All off.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            stall: AtomicU64::new(0),
            delay_ms: AtomicU64::new(0),
            paused_until: AtomicU64::new(0),
            paused: Mutex::default(),
        }
    }

    /// Answers `command` if it is one of the switches.
    pub fn answer(&self, command: &Command) -> Option<Reply> {
        if !command.name().eq_ignore_ascii_case(b"DEBUG") || command.len() < 2 {
            return None;
        }
        let number = |at: usize, max: u64| {
            let number = (at < command.len()).then(|| integer(command.arg(at))).flatten();
            number.and_then(|number| u64::try_from(number).ok()).filter(|number| *number <= max)
        };
        let sub = command.arg(1).to_ascii_uppercase();
        let reply = match &sub[..] {
            b"STALL-DISK" => match number(2, FAULT_MS_MAX) {
                Some(ms) if command.len() == 3 => {
                    self.stall.store(self.clock.now().plus(ms).0, Ordering::SeqCst);
                    Reply::Ok
                }
                _ => usage("STALL-DISK milliseconds"),
            },
            b"DELAY-DISK" => match number(2, FAULT_MS_MAX) {
                Some(ms) if command.len() == 3 => {
                    self.delay_ms.store(ms, Ordering::SeqCst);
                    Reply::Ok
                }
                _ => usage("DELAY-DISK milliseconds"),
            },
            b"PAUSE-PEERS" => match (number(2, u64::MAX), number(3, FAULT_MS_MAX)) {
                (Some(node), Some(ms)) if command.len() == 4 => {
                    self.pause(node, self.clock.now().plus(ms));
                    Reply::Ok
                }
                _ => usage("PAUSE-PEERS node milliseconds"),
            },
            _ => return None,
        };
        tracing::warn!(command = %String::from_utf8_lossy(&sub), "fault switch");
        Some(reply)
    }

    fn pause(&self, node: u64, until: Tick) {
        let mut paused = self.paused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        paused.insert(node, until);
        let latest = paused.values().map(|until| until.0).max().unwrap_or(0);
        self.paused_until.store(latest, Ordering::SeqCst);
    }

    /// How much longer a flush that has taken `so_far` is held up, if it is.
    #[must_use]
    pub fn held_up(&self, so_far: Duration) -> Option<Duration> {
        let delay = Duration::from_millis(self.delay_ms.load(Ordering::SeqCst));
        let left = delay.checked_sub(so_far).filter(|left| !left.is_zero());
        self.stall_left().max(left)
    }

    /// How much longer the disk stalls, if it does.
    #[must_use]
    pub fn stall_left(&self) -> Option<Duration> {
        let left = self.stall.load(Ordering::SeqCst).saturating_sub(self.clock.now().0);
        (0 < left).then(|| Duration::from_millis(left))
    }

    /// Whether nothing is exchanged with `node`.
    #[must_use]
    pub fn is_paused(&self, node: NodeId, now: Tick) -> bool {
        if self.paused_until.load(Ordering::SeqCst) <= now.0 {
            return false;
        }
        let paused = self.paused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        [0, node.0].iter().any(|key| paused.get(key).is_some_and(|until| now < *until))
    }

    /// Takes out of a turn's frames those for paused peers, and says so as a broken lane would.
    /// Returns how many there were.
    pub fn drop_sent(
        &self,
        now: Tick,
        frames: &mut Vec<(NodeId, OutFrame)>,
        events: &mut Vec<Event>,
    ) -> u64 {
        let mut dropped = 0;
        frames.retain_mut(|(node, frame)| {
            let keep = !self.is_paused(*node, now);
            if !keep {
                dropped += 1;
                if !frame.forwards.is_empty() {
                    events.push(Event::Unsent(std::mem::take(&mut frame.forwards)));
                }
                events.push(Event::Unreachable(*node));
            }
            keep
        });
        dropped
    }

    /// Takes out of a turn's events what came from paused peers.
    pub fn drop_received(&self, now: Tick, events: &mut Vec<Event>) {
        events.retain(|event| match event {
            Event::Frame(frame) => !self.is_paused(frame.header.route.from, now),
            _ => true,
        });
    }
}

fn usage(what: &str) -> Reply {
    Reply::error("ERR", format!("usage: DEBUG {what}, of at most {FAULT_MS_MAX} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, GroupId, Incarnation, ShardId};
    use crate::wire::{Forward, FrameBuilder, FrameReader, Lane, Route};

    fn say(faults: &Faults, line: &str) -> Option<Reply> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        faults.answer(&Command::from_args(&args))
    }

    fn frame(from: u64, to: u64) -> OutFrame {
        let mut builder = FrameBuilder::new();
        let body = bytes::Bytes::from_static(b"x");
        builder.forward(Forward { id: 7, group: GroupId(0), flags: 0, body });
        let route = Route {
            cluster: ClusterId(1),
            from: NodeId(from),
            to: NodeId(to),
            incarnation: Incarnation(1),
            shard: ShardId(0),
        };
        builder.finish(&route, Lane::Append)
    }

    #[test]
    fn contract_row_14_a_paused_peer_is_neither_spoken_to_nor_heard() {
        let clock = Clock::start();
        let faults = Faults::new(clock);
        let sent = |faults: &Faults| {
            let mut frames = vec![(NodeId(2), frame(1, 2)), (NodeId(3), frame(1, 3))];
            let mut events = Vec::new();
            let dropped = faults.drop_sent(clock.now(), &mut frames, &mut events);
            let left: Vec<u64> = frames.iter().map(|(node, _)| node.0).collect();
            (left, dropped, format!("{events:?}"))
        };
        let heard = |faults: &Faults| {
            let mut reader = FrameReader::new();
            reader.feed(&frame(2, 1).to_bytes());
            let frame = reader.next().expect("sound").expect("whole");
            let mut events = vec![Event::Frame(frame), Event::LogFull(false)];
            faults.drop_received(clock.now(), &mut events);
            events.len()
        };
        assert_eq!((sent(&faults).0, heard(&faults)), (vec![2, 3], 2), "all off");
        assert_eq!(say(&faults, "debug pause-peers 2 60000"), Some(Reply::Ok));
        let (left, dropped, events) = sent(&faults);
        assert_eq!((left, dropped), (vec![3], 1));
        assert_eq!(events, "[Unsent([7]), Unreachable(NodeId(2))]", "nothing vanishes unsaid");
        assert_eq!(heard(&faults), 1);
        assert_eq!(say(&faults, "DEBUG PAUSE-PEERS 0 60000"), Some(Reply::Ok));
        assert!(sent(&faults).0.is_empty());
        for node in [0, 2] {
            say(&faults, &format!("DEBUG PAUSE-PEERS {node} 0"));
        }
        assert_eq!((sent(&faults).0, heard(&faults)), (vec![2, 3], 2), "over");
    }

    #[test]
    fn contract_row_14_a_stalled_disk_says_for_how_long_and_other_commands_are_not_ours() {
        let faults = Faults::new(Clock::start());
        assert_eq!(faults.stall_left(), None);
        assert_eq!(say(&faults, "DEBUG STALL-DISK 60000"), Some(Reply::Ok));
        let left = faults.stall_left().expect("it stalls").as_millis();
        assert!(50_000 < left && left <= 60_000, "{left}");
        say(&faults, "DEBUG STALL-DISK 0");
        assert_eq!(faults.stall_left(), None);
        let so_far = Duration::from_millis(2);
        assert_eq!(faults.held_up(so_far), None);
        assert_eq!(say(&faults, "DEBUG DELAY-DISK 5"), Some(Reply::Ok));
        assert_eq!(faults.held_up(so_far), Some(Duration::from_millis(3)));
        assert_eq!(faults.held_up(Duration::from_millis(5)), None);
        say(&faults, "DEBUG DELAY-DISK 0");
        assert_eq!(faults.held_up(so_far), None);
        for line in ["DEBUG DIGEST", "SET STALL-DISK 5", "DEBUG SLEEP 1"] {
            assert_eq!(say(&faults, line), None, "{line}");
        }
        for line in [
            "DEBUG STALL-DISK",
            "DEBUG STALL-DISK 1 2",
            "DEBUG PAUSE-PEERS 1",
            "DEBUG STALL-DISK -1",
            "DEBUG DELAY-DISK",
            "DEBUG STALL-DISK 9999999999",
        ] {
            let reply = say(&faults, line).expect("a switch, misspelt");
            assert!(reply.error_text().starts_with("ERR usage: DEBUG "), "{line}: {reply:?}");
        }
    }
}
