//! Handing over all that this core leads, before its node goes away.
//!
//! ```text
//!   DRAIN ms, SIGTERM ─► every group led here ─► best successor ─► it leads: moved
//!                          ▲                        │ gave up, none there
//!                          └──── again, until ──────┘ the limit: stuck
//! ```

use crate::group::{Origin, Replica};
use crate::id::{GroupId, ShardId, Tick};
use crate::raft::effects::RoleKind;
use crate::wire::reply::Reply;

use super::event::PartId;

/// After this long without success another attempt is made, in ms. An attempt that fails is over
/// sooner; this is for those nobody could take.
const AGAIN_MS: u64 = 100;

/// One drain of one core.
#[derive(Debug)]
pub(super) struct Drain {
    until: Tick,
    /// Attempts are repeated until then, and groups without a successor waited for.
    patient: bool,
    /// Who is to be told, if anybody waits: this core or another.
    asked_by: Option<(ShardId, PartId)>,
    /// Groups that were led here when it began.
    led: Vec<GroupId>,
    next: Tick,
}

/// How a drain ended on one core.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Drained {
    pub(super) asked_by: Option<(ShardId, PartId)>,
    pub(super) moved: usize,
    pub(super) stuck: Vec<GroupId>,
}

impl Drain {
    /// For an operator: `asked_by` is told how it ended, at the latest at `until`.
    pub(super) fn asked(asked_by: (ShardId, PartId), until: Tick) -> Self {
        Self { patient: true, ..Self::at_the_end(until) }.asked_by(asked_by)
    }

    /// For a node that stops in any case: one attempt for each group that has a successor.
    pub(super) fn at_the_end(until: Tick) -> Self {
        Self { until, patient: false, asked_by: None, led: Vec::new(), next: Tick(0) }
    }

    fn asked_by(self, asked_by: (ShardId, PartId)) -> Self {
        Self { asked_by: Some(asked_by), ..self }
    }

    /// Another drain takes its place: nobody knows what would have moved.
    pub(super) fn given_up(self) -> Drained {
        Drained { asked_by: self.asked_by, moved: 0, stuck: self.led }
    }

    /// Goes on; calls `touch` for every replica that was made to do something. The end, when it is
    /// reached.
    pub(super) fn go_on(
        &mut self,
        now: Tick,
        replicas: &mut [Replica],
        mut touch: impl FnMut(u32),
    ) -> Option<Drained> {
        let leads = |replica: &Replica| replica.status().role == RoleKind::Leader;
        if self.next == Tick(0) {
            self.led = replicas.iter().filter(|it| leads(it)).map(Replica::group).collect();
        }
        if self.next <= now {
            let first = self.next == Tick(0);
            self.next = now.plus(AGAIN_MS);
            for (slot, replica) in (0..).zip(replicas.iter_mut()) {
                if !leads(replica) || !(first || self.patient) {
                    continue;
                }
                if !replica.is_handing_over() && replica.hand_off(now).is_some() {
                    touch(slot);
                }
            }
        }
        if !self.patient && !replicas.iter().any(Replica::is_handing_over) {
            // Whoever could take something has done so.
            self.until = now;
        }
        let mut stuck: Vec<GroupId> =
            replicas.iter().filter(|it| leads(it)).map(Replica::group).collect();
        if !stuck.is_empty() && now < self.until {
            return None;
        }
        stuck.sort_unstable();
        let moved = self.led.iter().filter(|group| !stuck.contains(group)).count();
        Some(Drained { asked_by: self.asked_by, moved, stuck })
    }
}

impl Drained {
    /// As one core tells it to the one that was asked.
    pub(super) fn reply(&self) -> Reply {
        let stuck = self.stuck.iter().map(|group| Reply::Int(group.0 as i64)).collect();
        Reply::Array(vec![Reply::Int(self.moved as i64), Reply::Array(stuck)])
    }

    /// Whom to tell, if anybody.
    pub(super) fn origin(&self, this: ShardId) -> Option<Origin> {
        let (core, part) = self.asked_by?;
        Some(if core == this { Origin::Here(part) } else { Origin::Core(core, part) })
    }
}

/// What all cores of a node said, as one reply: how many groups moved, and which did not.
pub(super) fn merged(replies: Vec<Reply>) -> Reply {
    let (mut moved, mut stuck) = (0, Vec::new());
    for reply in replies {
        let Reply::Array(mut parts) = reply else { return reply };
        let (groups, count) = (parts.pop(), parts.pop());
        if let (Some(Reply::Array(groups)), Some(Reply::Int(count))) = (groups, count) {
            moved += count;
            stuck.extend(groups);
        }
    }
    let group = |reply: &Reply| if let Reply::Int(group) = reply { *group } else { 0 };
    stuck.sort_by_key(group);
    Reply::Map(vec![
        (Reply::bulk("moved"), Reply::Int(moved)),
        (Reply::bulk("stuck"), Reply::Array(stuck)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_summed_and_an_error_is_passed_on() {
        let core = |moved, stuck: &[u64]| {
            let stuck = stuck.iter().map(|&group| GroupId(group)).collect();
            Drained { asked_by: None, moved, stuck }.reply()
        };
        let all = merged(vec![core(2, &[5, 1]), core(3, &[2])]);
        let groups = [1, 2, 5].map(Reply::Int).to_vec();
        assert_eq!(
            all,
            Reply::Map(vec![
                (Reply::bulk("moved"), Reply::Int(5)),
                (Reply::bulk("stuck"), Reply::Array(groups)),
            ])
        );
        let busy = Reply::error("BUSY", "the mailbox is full");
        assert_eq!(merged(vec![core(1, &[]), busy.clone()]), busy);
    }
}
