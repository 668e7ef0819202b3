//! One follower as the leader sees it.
//!
//! ```text
//!            an append was accepted                     the log it needs is gone
//!   ┌───────┐ ────────────────────► ┌───────────┐ ──────────────────────────► ┌──────────┐
//!   │ Probe │                       │ Replicate │                             │ Snapshot │
//!   └───────┘ ◄──────────────────── └───────────┘ ◄────────────────────────── └──────────┘
//!            an append was refused,              it acknowledged the first entry we
//!            or the peer is unreachable          still have or a later one (etcd raft#110)
//! ```
//!
//! Probe sends one append and waits; Replicate assumes success, runs ahead of the acknowledgements
//! and bounds how far by messages and by bytes; Snapshot sends nothing.

use std::collections::VecDeque;

use crate::id::{Index, ReplicaId, Tick};
use crate::planted::{Planted, planted};

use super::driver::Settings;

/// How a follower is being fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProgressState {
    /// Where its log matches is unknown: one append at a time.
    Probe,
    /// It accepts: appends are pipelined.
    Replicate,
    /// It needs entries that are no longer in the log.
    Snapshot {
        /// The last entry of the snapshot it was told to take.
        pending: Index,
    },
}

/// The time at which nobody was heard.
const NEVER: Tick = Tick(u64::MAX);

/// One member's progress. Lives in the leader, once per member, the leader included.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) id: ReplicaId,
    pub(super) state: ProgressState,
    /// Known to be durable there. `matched < next`, always (mistake 3).
    pub(super) matched: Index,
    /// The next entry to send.
    pub(super) next: Index,
    /// The highest commit index this follower was told, as far as it can use it.
    pub(super) sent_commit: Index,
    /// When it last answered anything, for check-quorum, or [`NEVER`]. A time, not a flag: a flag set before a
    /// stall would still be believed after it.
    heard: Tick,
    /// The latest read context it has echoed.
    pub(super) read_ack: u64,
    /// Nothing is sent until it answers, or a heartbeat response shows that it is alive.
    pub(super) paused: bool,
    /// It has answered since the last check of the quorum, or has just joined.
    pub(super) active: bool,
    /// An append is due if there are entries to carry.
    pub(super) wanted: bool,
    /// An append is due even if it carries nothing.
    pub(super) due: bool,
    /// The driver is reading back what it needs.
    pub(super) fetching: bool,
    /// The driver cannot read what it needs: it gets a snapshot instead.
    pub(super) unreadable: bool,
    /// The low bits of the name of its questions, if it has asked what it had forgotten. Two lives that share them
    /// are held for one, and the later waits until what was on its way to the other is given up.
    forgetful_life: u16,
    pub(super) inflights: Inflights,
}

impl Progress {
    /// A member of which nothing is known, at the start of a leader's term (safety point 6).
    pub(super) fn new(id: ReplicaId, last: Index) -> Self {
        Self {
            id,
            state: ProgressState::Probe,
            matched: Index(0),
            next: last.next(),
            sent_commit: Index(0),
            heard: NEVER,
            read_ack: 0,
            paused: false,
            active: false,
            wanted: false,
            due: false,
            fetching: false,
            unreadable: false,
            forgetful_life: 0,
            inflights: Inflights::default(),
        }
    }

    /// A member that a change has just added, in the middle of a term. It is sent the end of the log
    /// first: that says at once what it lacks. Its silence counts from now.
    pub(super) fn joining(id: ReplicaId, last: Index, now: Tick) -> Self {
        if planted(Planted::NewMemberCountsAtOnce) {
            let known = Self { matched: last, heard: now, active: true, ..Self::new(id, last) };
            return known;
        }
        let next = last.max(Index(1));
        Self { next, heard: now, active: true, ..Self::new(id, last) }
    }

    /// It has answered something.
    pub(super) fn on_heard(&mut self, now: Tick) {
        self.heard = now;
        self.active = true;
    }

    /// When it last answered anything, if it did in this term or has just joined.
    pub(super) fn heard(&self) -> Option<Tick> {
        (self.heard != NEVER).then_some(self.heard)
    }

    fn reset(&mut self, state: ProgressState) {
        self.state = state;
        self.paused = false;
        self.inflights.clear();
    }

    pub(super) fn become_probe(&mut self) {
        // After a snapshot the follower is expected to hold it; after anything else, what it said.
        let known = match self.state {
            ProgressState::Snapshot { pending } => self.matched.max(pending),
            ProgressState::Probe | ProgressState::Replicate => self.matched,
        };
        self.reset(ProgressState::Probe);
        self.next = known.next();
        self.sent_commit = self.sent_commit.min(known);
    }

    pub(super) fn become_replicate(&mut self) {
        self.reset(ProgressState::Replicate);
        self.next = self.matched.next();
    }

    pub(super) fn become_snapshot(&mut self, pending: Index) {
        self.reset(ProgressState::Snapshot { pending });
        self.unreadable = false;
        self.next = pending.next();
        self.sent_commit = pending;
    }

    /// The snapshot did not arrive: start over from what is known. Waits for a sign of life first.
    pub(super) fn snapshot_failed(&mut self) {
        if matches!(self.state, ProgressState::Snapshot { .. }) {
            self.reset(ProgressState::Probe);
            self.next = self.matched.next();
            self.sent_commit = self.sent_commit.min(self.matched);
            self.paused = true;
        }
    }

    /// Whether nothing may be sent now.
    pub(super) fn is_paused(&self) -> bool {
        match self.state {
            ProgressState::Probe | ProgressState::Replicate => self.paused,
            ProgressState::Snapshot { .. } => true,
        }
    }

    /// Whether a message without entries would tell it a commit index it can use.
    pub(super) fn can_bump_commit(&self, commit: Index) -> bool {
        commit > self.sent_commit && self.sent_commit.next() < self.next
    }

    /// An append was sent: `count` entries of `bytes` payload bytes in all.
    pub(super) fn on_sent(&mut self, count: u32, bytes: u64, window: Window) {
        match self.state {
            ProgressState::Replicate => {
                if count > 0 {
                    self.next = self.next.plus(u64::from(count));
                    self.inflights.add(self.next.prev(), bytes);
                }
                // When the window is full one empty append may still follow each heartbeat
                // response, so that a window of lost messages is noticed.
                self.paused = self.inflights.is_full(window);
            }
            ProgressState::Probe => self.paused |= count > 0,
            ProgressState::Snapshot { .. } => debug_assert!(false, "append during a snapshot"),
        }
    }

    /// It has lost what it held after `index`, and says so, again and again until it is whole: what it
    /// acknowledged in an earlier life counts for nothing, and what was on its way to that one is void. What is on
    /// its way to this `life`, a snapshot perhaps, stays so.
    pub(super) fn forget_after(&mut self, index: Index, life: u64) {
        let life = life as u16;
        if index < self.matched || self.forgetful_life != life {
            self.forgetful_life = life;
            self.matched = self.matched.min(index);
            self.reset(ProgressState::Probe);
            self.next = self.matched.next();
        }
        self.sent_commit = self.sent_commit.min(self.matched);
        self.due = true;
    }

    /// It holds everything up to `index`. Returns whether that is news.
    pub(super) fn on_accepted(&mut self, index: Index) -> bool {
        if index <= self.matched {
            return false;
        }
        self.matched = index;
        self.next = self.next.max(index.next());
        self.paused = false;
        // It has what was asked for, from elsewhere; what follows is asked for again.
        self.unreadable = false;
        true
    }

    /// It refused an append after `rejected` and may agree at `hint`. Returns whether that is news;
    /// a refusal that is not must change nothing, or `next` could fall to `matched` (mistake 3).
    pub(super) fn on_rejected(&mut self, rejected: Index, hint: Index) -> bool {
        match self.state {
            ProgressState::Replicate => {
                if rejected <= self.matched {
                    return false;
                }
                self.become_probe();
            }
            ProgressState::Probe | ProgressState::Snapshot { .. } => {
                if self.next.prev() != rejected {
                    return false;
                }
                self.next = rejected.min(hint.next()).max(self.matched.next());
                self.sent_commit = self.sent_commit.min(self.next.prev());
                self.paused = false;
            }
        }
        true
    }
}

/// How far a leader may run ahead of one follower.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) messages_max: usize,
    pub(super) bytes_max: u64,
}

impl Window {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            messages_max: settings.inflight_messages_max().max(1),
            bytes_max: settings.inflight_bytes_max.max(1),
        }
    }
}

/// Sizes by last index, oldest first, and their sum. One word while there are none: the memory comes with
/// the first and goes back when the replica [rests](super::rest).
#[derive(Debug, Clone, Default)]
struct Sizes(Option<Box<Ring>>);

#[derive(Debug, Clone, Default)]
struct Ring {
    sizes: VecDeque<(Index, u64)>,
    bytes: u64,
}

impl Sizes {
    fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |ring| ring.bytes)
    }

    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |ring| ring.sizes.len())
    }

    fn push(&mut self, last: Index, bytes: u64) {
        let ring = self.0.get_or_insert_default();
        debug_assert!(ring.sizes.back().is_none_or(|&(before, _)| before < last));
        ring.sizes.push_back((last, bytes));
        ring.bytes = ring.bytes.saturating_add(bytes);
    }

    /// Forgets everything that ends at or before `index`.
    fn free_to(&mut self, index: Index) {
        let Some(ring) = &mut self.0 else { return };
        while let Some(&(last, bytes)) = ring.sizes.front() {
            if last > index {
                break;
            }
            ring.sizes.pop_front();
            ring.bytes -= bytes;
        }
    }

    fn clear(&mut self) {
        if let Some(ring) = &mut self.0 {
            ring.sizes.clear();
            ring.bytes = 0;
        }
    }

    fn rest(&mut self) {
        if self.len() == 0 {
            self.0 = None;
        }
    }

    fn iter(&self) -> impl Iterator<Item = &(Index, u64)> {
        self.0.iter().flat_map(|ring| &ring.sizes)
    }
}

/// Appends sent and not acknowledged: last entry and payload bytes of each.
#[derive(Debug, Clone, Default)]
pub(super) struct Inflights(Sizes);

impl Inflights {
    /// No memory is held.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.0.0.is_none()
    }

    pub(super) fn add(&mut self, last: Index, bytes: u64) {
        self.0.push(last, bytes);
    }

    /// Forgets all appends that end at or before `index`.
    pub(super) fn free_to(&mut self, index: Index) {
        self.0.free_to(index);
    }

    /// Bytes go with their messages: a leak here would shrink the window for ever (etcd raft#54).
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_full(&self, window: Window) -> bool {
        self.0.len() >= window.messages_max || self.0.bytes() >= window.bytes_max
    }

    pub(super) fn messages(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Index, u64)> {
        self.0.iter()
    }

    pub(super) fn rest(&mut self) {
        self.0.rest();
    }
}

/// A leader's proposals that are not committed: last entry and payload bytes of each turn's.
#[derive(Debug, Clone, Default)]
pub(super) struct Uncommitted {
    turns: Sizes,
    /// The last turn's may still be added to.
    open: bool,
}

impl Uncommitted {
    /// No memory is held.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.turns.0.is_none()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.turns.bytes()
    }

    /// Entries of `bytes` payload bytes up to `last`, proposed in this turn.
    pub(super) fn add(&mut self, last: Index, bytes: u64) {
        if self.open
            && let Some(ring) = &mut self.turns.0
            && let Some(turn) = ring.sizes.back_mut()
        {
            *turn = (last, turn.1 + bytes);
            ring.bytes = ring.bytes.saturating_add(bytes);
        } else {
            self.turns.push(last, bytes);
        }
        self.open = true;
    }

    pub(super) fn end_turn(&mut self) {
        self.open = false;
    }

    /// Everything up to `index` is committed.
    pub(super) fn free_to(&mut self, index: Index) {
        self.turns.free_to(index);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Index, u64)> {
        self.turns.iter()
    }

    pub(super) fn rest(&mut self) {
        self.turns.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { messages_max: 2, bytes_max: 100 };

    fn replicating(matched: u64) -> Progress {
        let mut progress = Progress::new(ReplicaId(2), Index(0));
        progress.on_accepted(Index(matched));
        progress.become_replicate();
        progress
    }

    #[test]
    fn mistake_3_a_stale_rejection_never_moves_next_to_matched() {
        let mut progress = Progress::new(ReplicaId(2), Index(5));
        progress.matched = Index(4);
        progress.next = Index(6);
        assert!(progress.on_rejected(Index(5), Index(1)));
        assert_eq!(progress.next, Index(5), "one above matched, whatever the hint says");
        assert!(!progress.on_rejected(Index(5), Index(1)), "the same once more is stale");

        let mut progress = replicating(6);
        assert!(!progress.on_rejected(Index(6), Index(1)));
        assert_eq!((progress.next, progress.state), (Index(7), ProgressState::Replicate));
    }

    #[test]
    fn safety_point_13_the_window_counts_messages_and_bytes() {
        let mut progress = replicating(1);
        progress.on_sent(1, 10, WINDOW);
        assert!(!progress.is_paused());
        progress.on_sent(1, 10, WINDOW);
        assert!(progress.is_paused(), "two messages");
        progress.on_accepted(Index(2));
        progress.inflights.free_to(Index(2));
        assert!(!progress.is_paused());
        progress.on_sent(1, 90, WINDOW);
        assert!(progress.is_paused(), "100 bytes");
        progress.become_probe();
        assert_eq!(progress.inflights.bytes(), 0, "no leak across a reset");
        assert_eq!(progress.next, Index(3));
    }

    /// It asks twice in an election timeout, and a snapshot takes longer.
    #[test]
    fn a_loss_that_is_known_interrupts_nothing_unless_another_life_speaks_of_it() {
        let mut progress = replicating(20);
        progress.forget_after(Index(12), 1);
        assert_eq!((progress.matched, progress.next), (Index(12), Index(13)));
        assert_eq!(progress.state, ProgressState::Probe);
        let sending = ProgressState::Snapshot { pending: Index(30) };
        progress.become_snapshot(Index(30));
        progress.forget_after(Index(12), 1);
        progress.forget_after(Index(13), 1);
        assert_eq!(progress.state, sending);
        assert!(progress.due, "an append shows how far the logs agree, when it may go");
        progress.forget_after(Index(3), 1);
        assert_eq!((progress.matched, progress.state), (Index(3), ProgressState::Probe));
        progress.become_snapshot(Index(30));
        progress.forget_after(Index(3), 2);
        assert_eq!(progress.state, ProgressState::Probe, "a new life has nothing of it");
    }

    #[test]
    fn mistake_8_probing_after_a_snapshot_starts_where_it_ended() {
        let mut progress = replicating(1);
        progress.become_snapshot(Index(10));
        assert!(progress.is_paused());
        progress.become_probe();
        assert_eq!(progress.next, Index(11));
        progress.become_snapshot(Index(20));
        progress.snapshot_failed();
        assert_eq!((progress.next, progress.paused), (Index(2), true));
    }

    #[test]
    fn a_commit_index_is_told_once_and_only_to_whoever_holds_more_than_it_was_told() {
        let mut progress = replicating(5);
        let mut tells = |sent, commit| {
            progress.sent_commit = Index(sent);
            progress.can_bump_commit(Index(commit))
        };
        assert_eq!([2, 3, 4, 5].map(|commit| tells(3, commit)), [false, false, true, true]);
        assert!(tells(4, 5), "it holds 5");
        assert!(!tells(5, 6) && !tells(6, 7), "it holds no more than that");
    }

    #[test]
    fn an_empty_probe_is_not_waited_for() {
        let mut progress = Progress::new(ReplicaId(2), Index(5));
        progress.on_sent(0, 0, WINDOW);
        assert!(!progress.is_paused());
        progress.on_sent(1, 1, WINDOW);
        assert!(progress.is_paused());
    }

    #[test]
    fn who_joins_is_sent_the_end_of_the_log_and_counts_as_heard() {
        for (last, next) in [(0, 1), (7, 7)] {
            let joining = Progress::joining(ReplicaId(2), Index(last), Tick(50));
            assert_eq!((joining.matched, joining.next), (Index(0), Index(next)));
            assert_eq!((joining.heard(), joining.active), (Some(Tick(50)), true));
        }
    }

    #[test]
    fn what_is_proposed_in_different_turns_is_committed_apart() {
        let mut uncommitted = Uncommitted::default();
        uncommitted.add(Index(1), 10);
        uncommitted.end_turn();
        uncommitted.add(Index(2), 20);
        uncommitted.free_to(Index(1));
        assert_eq!(uncommitted.bytes(), 20);
    }
}
