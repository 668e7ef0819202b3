//! Commands sent on to the node that leads their group, and who is owed the answer.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::group::{GroupCommand, Origin, SessionRequest};
use crate::id::{GroupId, Incarnation, Micros, NodeId, ShardId, Tick};
use crate::store::command::Access;
use crate::store::connection::Manner;
use crate::wire::peer::Forward;

use super::stages::Arrival;

/// A forwarded command changes data.
const FORWARD_WRITE: u8 = 1;
/// A forwarded read must see what its connection wrote before it.
const FORWARD_AFTER_WRITES: u8 = 2;
/// A forwarded command belongs to a session: what says so stands in front of it, as in an entry.
const FORWARD_SESSION: u8 = 4;
/// A forwarded command is about the group's members.
const FORWARD_MEMBER: u8 = 8;

/// A command as another node is to understand it.
pub(super) fn pack(id: u64, command: GroupCommand) -> Forward {
    let GroupCommand { group, access, after_writes, manner: _, session, body } = command;
    let mut flags = match access {
        Access::Write => FORWARD_WRITE,
        Access::Member => FORWARD_MEMBER,
        _ => 0,
    };
    flags |= if after_writes { FORWARD_AFTER_WRITES } else { 0 };
    flags |= if session.is_some() { FORWARD_SESSION } else { 0 };
    let body = session.map_or_else(|| body.clone(), |session| session.payload(&body));
    Forward { id, group, flags, body }
}

/// A command of another node; none if it makes no sense.
pub(super) fn unpack(forward: &Forward) -> Option<GroupCommand> {
    let Forward { group, flags, ref body, .. } = *forward;
    let access = match flags & (FORWARD_WRITE | FORWARD_MEMBER) {
        0 => Access::Read,
        FORWARD_MEMBER => Access::Member,
        _ => Access::Write,
    };
    let (session, body) = if flags & FORWARD_SESSION == 0 {
        (None, body.clone())
    } else {
        let (session, body) = SessionRequest::parse(body)?;
        (Some(session), body)
    };
    let after_writes = flags & FORWARD_AFTER_WRITES != 0;
    Some(GroupCommand { group, access, after_writes, manner: Manner::default(), session, body })
}

/// One command on its way.
#[derive(Debug, Clone)]
pub(super) struct Forwarded {
    pub(super) to: NodeId,
    pub(super) group: GroupId,
    pub(super) access: Access,
    pub(super) origin: Origin,
    pub(super) deadline: Tick,
    /// When it reached this node, and when it was sent on; zero if nobody measures.
    pub(super) arrival: Arrival,
    pub(super) sent: Micros,
    /// What it says, for `SLOWLOG`. Its request counts these bytes.
    pub(super) body: Bytes,
}

/// One per shard; bounded by the requests the cores of this node hold.
#[derive(Debug)]
pub(super) struct Forwards {
    /// The high half of every id: an answer meant for an earlier life of this node, or for another
    /// core, is not mistaken for one of ours.
    prefix: u64,
    next: u32,
    waiting: BTreeMap<u64, Forwarded>,
    /// By deadline, which is the order of leaving; what was answered is skipped when its time comes.
    deadlines: VecDeque<(Tick, u64)>,
}

impl Forwards {
    pub(super) fn new(incarnation: Incarnation, shard: ShardId) -> Self {
        let prefix = ((incarnation.0 & 0xffff) << 48) | (u64::from(shard.0) << 32);
        Self { prefix, next: 0, waiting: BTreeMap::new(), deadlines: VecDeque::new() }
    }

    /// The core that waits for the answer `id`.
    pub(super) fn shard_of(id: u64) -> ShardId {
        ShardId((id >> 32) as u16)
    }

    /// A command leaves; its name on the wire.
    pub(super) fn add(&mut self, forwarded: Forwarded) -> u64 {
        let id = self.prefix | u64::from(self.next);
        self.next = self.next.wrapping_add(1);
        self.deadlines.push_back((forwarded.deadline, id));
        self.waiting.insert(id, forwarded);
        id
    }

    /// The answer came; none if nobody waits any more.
    pub(super) fn take(&mut self, id: u64) -> Option<Forwarded> {
        self.waiting.remove(&id)
    }

    /// The link to `node` broke: whatever it was sent is lost or not, nobody knows.
    pub(super) fn lost(&mut self, node: NodeId) -> Vec<Forwarded> {
        let sent = self.waiting.iter().filter(|(_, forward)| forward.to == node);
        let ids: Vec<u64> = sent.map(|(id, _)| *id).collect();
        ids.iter().filter_map(|id| self.waiting.remove(id)).collect()
    }

    /// Forgets what nobody needs any more: its client was told. Returns how many that were.
    pub(super) fn expire(&mut self, now: Tick) -> usize {
        let mut expired = 0;
        while let Some(&(deadline, id)) = self.deadlines.front()
            && deadline <= now
        {
            self.deadlines.pop_front();
            expired += usize::from(self.waiting.remove(&id).is_some());
        }
        expired
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::PartId;

    fn forwarded(to: u64, deadline: u64) -> Forwarded {
        Forwarded {
            to: NodeId(to),
            group: GroupId(0),
            access: Access::Write,
            origin: Origin::Here(PartId { request: 0, part: 0 }),
            deadline: Tick(deadline),
            arrival: Arrival::default(),
            sent: Micros(0),
            body: Bytes::new(),
        }
    }

    #[test]
    fn an_answer_is_taken_once_and_only_by_the_life_that_asked() {
        let mut forwards = Forwards::new(Incarnation(3), ShardId(7));
        let id = forwards.add(forwarded(2, 100));
        assert_eq!(Forwards::shard_of(id), ShardId(7));
        let mut restarted = Forwards::new(Incarnation(4), ShardId(7));
        restarted.add(forwarded(2, 100));
        assert!(restarted.take(id).is_none());
        assert!(forwards.take(id).is_some());
        assert!(forwards.take(id).is_none());
    }

    #[test]
    fn a_broken_link_gives_up_what_went_over_it_and_nothing_else() {
        let mut forwards = Forwards::new(Incarnation(1), ShardId(0));
        forwards.add(forwarded(3, 50));
        forwards.add(forwarded(2, 100));
        assert_eq!(forwards.lost(NodeId(2)).len(), 1);
        assert_eq!(forwards.expire(Tick(49)), 0);
        assert_eq!(forwards.expire(Tick(50)), 1);
        assert_eq!(forwards.len(), 0);
    }
}
