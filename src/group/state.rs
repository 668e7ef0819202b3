//! What a group replicates about itself: who belongs to it, where they listen, who never will again.
//!
//! ```text
//!   --peers ─► first ─┬─ Config entry ─► apply ─┬─ Config entry ─► apply ─► …      the same on every
//!                     │                         │                                  replica, restart
//!              config id 0              config id = that entry's index             or not
//! ```
//!
//! It follows from the log alone, is part of every snapshot, and changes only here. A change that
//! does not fit the state it meets changes nothing, on every replica alike, and says why.
//!
//! # Bytes of a Config entry
//!
//! ```text
//!  byte  0        1            2        4     8                     16
//!       ┌────────┬────────────┬────────┬─────┬─────────────────────┬──────────────────────────
//!       │ 1      │ transition │ count  │  0  │ expected config id  │ changes, 32 bytes each
//!       └────────┴────────────┴────────┴─────┴─────────────────────┴──────────────────────────
//!                                             all ones: any
//!  a change:  kind 1 · ip (0, 4 or 6) 1 · port 2 · zero 4 · id 8 · ip address 16
//!  behind them: bytes 4 · the state that the change was made for, as in a snapshot
//! ```
//!
//! The state is for whoever joined later and replays the log from its beginning: it was not told
//! with whom the group began, and takes that from the first change it meets.
//!
//! An empty payload leaves a joint membership; a leader proposes that by itself.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thiserror::Error;

use crate::id::{Index, NodeId, ReplicaId};
use crate::planted::{Planted, planted};
use crate::raft::{Change, ChangeError, ChangeKind, ConfChange, Membership, Transition};

/// The layout of a Config entry, and of the state in a snapshot.
const VERSION: u8 = 1;

/// What one group replicates about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Who belongs to it.
    pub membership: Membership,
    /// The index of the last change that took effect; zero before the first.
    pub config_id: Index,
    /// Where members listen for peers. Members only.
    pub addresses: BTreeMap<ReplicaId, SocketAddr>,
    /// Who was a member once and is none any more, ascending. What such a replica promised may be
    /// lost, so its id never comes back.
    pub removed: Vec<ReplicaId>,
}

/// One change as a Config entry holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// It takes effect only if this is the group's config id.
    pub expected: Option<Index>,
    /// How to get from the old voters to the new ones.
    pub transition: Transition,
    /// What happens to whom, and where they listen if that is new.
    pub changes: Vec<(Change, Option<SocketAddr>)>,
    /// The state it was made for.
    pub base: Option<GroupState>,
}

/// What a change that took effect means for raft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// This is to be made of the membership that it has.
    Change(ConfChange),
    /// It had none: the state's is the first it hears of.
    First,
}

/// Why a change has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChangeRefusal {
    /// The entry makes no sense to this version.
    #[error("the change cannot be read")]
    Unreadable,
    /// The group has changed since the change was made up.
    #[error("the config id is {found}, not {expected}")]
    Stale {
        /// The id there is.
        found: Index,
        /// The id that was expected.
        expected: Index,
    },
    /// Ids are used once.
    #[error("node {0} was removed once, and an id is never used again: give the node a new --id")]
    Removed(ReplicaId),
    /// Raft does not allow it.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl MemberChange {
    /// One change, as far as raft is concerned at once.
    #[must_use]
    pub fn one(kind: ChangeKind, id: ReplicaId, address: Option<SocketAddr>) -> Self {
        Self { changes: vec![(Change { kind, id }, address)], ..Self::default() }
    }

    /// What raft is to be told.
    #[must_use]
    pub fn conf(&self) -> ConfChange {
        let changes = self.changes.iter().map(|(change, _)| *change).collect();
        ConfChange { transition: self.transition, changes }
    }

    /// The payload of its entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(VERSION);
        bytes.put_u8(match self.transition {
            Transition::Auto => 0,
            Transition::JointImplicit => 1,
            Transition::JointExplicit => 2,
            Transition::Cancel => 3,
        });
        bytes.put_u16_le(u16::try_from(self.changes.len()).expect("a handful"));
        bytes.put_u32_le(0);
        bytes.put_u64_le(self.expected.map_or(u64::MAX, |expected| expected.0));
        for (change, address) in &self.changes {
            bytes.put_u8(match change.kind {
                ChangeKind::AddVoter => 1,
                ChangeKind::AddLearner => 2,
                ChangeKind::Remove => 3,
                ChangeKind::Update => 4,
            });
            let (ip, port, octets) = parts(*address);
            bytes.put_u8(ip);
            bytes.put_u16_le(port);
            bytes.put_u32_le(0);
            bytes.put_u64_le(change.id.0);
            bytes.put_slice(&octets);
        }
        let base = self.base.as_ref().map_or_else(Bytes::new, GroupState::encode);
        bytes.put_u32_le(u32::try_from(base.len()).expect("limits bound the members"));
        bytes.put_slice(&base);
        bytes.freeze()
    }

    /// The change that a Config entry holds; none if it makes no sense.
    #[must_use]
    pub fn decode(payload: &Bytes) -> Option<Self> {
        if payload.is_empty() {
            return Some(Self::default());
        }
        let mut bytes = payload.clone();
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let transition = match bytes.try_get_u8().ok()? {
            0 => Transition::Auto,
            1 => Transition::JointImplicit,
            2 => Transition::JointExplicit,
            3 => Transition::Cancel,
            _ => return None,
        };
        let count = bytes.try_get_u16_le().ok()?;
        bytes.try_get_u32_le().ok()?;
        let expected = bytes.try_get_u64_le().ok()?;
        let mut changes = Vec::new();
        for _ in 0..count {
            let kind = match bytes.try_get_u8().ok()? {
                1 => ChangeKind::AddVoter,
                2 => ChangeKind::AddLearner,
                3 => ChangeKind::Remove,
                4 => ChangeKind::Update,
                _ => return None,
            };
            let (ip, port) = (bytes.try_get_u8().ok()?, bytes.try_get_u16_le().ok()?);
            bytes.try_get_u32_le().ok()?;
            let id = ReplicaId(bytes.try_get_u64_le().ok()?);
            let address = joined(ip, port, &mut bytes)?;
            changes.push((Change { kind, id }, address));
        }
        let expected = (expected != u64::MAX).then_some(Index(expected));
        if bytes.try_get_u32_le().ok()? as usize != bytes.len() {
            return None;
        }
        let base = if bytes.is_empty() { None } else { Some(GroupState::decode(&bytes)?) };
        Some(Self { expected, transition, changes, base })
    }
}

impl GroupState {
    /// The state a group begins with: these voters, listening there.
    #[must_use]
    pub fn first(nodes: &[NodeId], addresses: &[(NodeId, SocketAddr)]) -> Self {
        let named = addresses.iter().filter(|(node, _)| nodes.contains(node));
        Self {
            membership: Membership::of_voters(nodes.iter().map(|node| ReplicaId(node.0))),
            addresses: named.map(|(node, address)| (ReplicaId(node.0), *address)).collect(),
            ..Self::default()
        }
    }

    /// Whether `id` was a member once and is none any more.
    #[must_use]
    pub fn is_removed(&self, id: ReplicaId) -> bool {
        self.removed.binary_search(&id).is_ok()
    }

    /// Whether `change` may take effect now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, change: &MemberChange) -> Result<Membership, ChangeRefusal> {
        let stale =
            |expected: &Index| *expected != self.config_id && !planted(Planted::TwoChangesInFlight);
        if let Some(expected) = change.expected.filter(stale) {
            return Err(ChangeRefusal::Stale { found: self.config_id, expected });
        }
        for (change, _) in &change.changes {
            let adds = matches!(change.kind, ChangeKind::AddVoter | ChangeKind::AddLearner);
            if adds && self.is_removed(change.id) {
                return Err(ChangeRefusal::Removed(change.id));
            }
        }
        Ok(self.membership.changed(&change.conf())?)
    }

    /// The committed entry at `index` is a Config entry with this payload: it takes effect. Returns
    /// what raft is to be told.
    ///
    /// # Errors
    /// Why it has none; then nothing has changed.
    pub fn apply(&mut self, index: Index, payload: &Bytes) -> Result<Applied, ChangeRefusal> {
        let change = MemberChange::decode(payload).ok_or(ChangeRefusal::Unreadable)?;
        let is_first = self.membership.incoming.is_empty();
        let base = change.base.as_ref().filter(|_| is_first);
        let next = base.unwrap_or(self).check(&change)?;
        if let Some(base) = base {
            *self = base.clone();
        }
        for (change, address) in &change.changes {
            if let Some(address) = address {
                self.addresses.insert(change.id, *address);
            }
        }
        let before = std::mem::replace(&mut self.membership, next);
        self.addresses.retain(|id, _| self.membership.is_member(*id));
        let gone = before.members().filter(|id| !self.membership.is_member(*id));
        self.removed.extend(gone);
        self.removed.sort_unstable();
        self.config_id = index;
        Ok(if is_first { Applied::First } else { Applied::Change(change.conf()) })
    }

    /// Its bytes in a snapshot: version and auto-leave, the four sets of members, the config id,
    /// addresses, and who was removed; each list after its length.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        let count = |count: usize| u32::try_from(count).expect("limits bound the members");
        let Membership { incoming, outgoing, learners, learners_next, auto_leave } =
            &self.membership;
        bytes.put_u8(VERSION);
        bytes.put_u8(u8::from(*auto_leave));
        let members = [incoming, outgoing, learners, learners_next].map(|set| &set[..]);
        for set in members.into_iter().chain([&self.removed[..]]) {
            bytes.put_u32_le(count(set.len()));
            set.iter().for_each(|id| bytes.put_u64_le(id.0));
        }
        bytes.put_u64_le(self.config_id.0);
        bytes.put_u32_le(count(self.addresses.len()));
        for (id, address) in &self.addresses {
            let (ip, port, octets) = parts(Some(*address));
            bytes.put_u64_le(id.0);
            bytes.put_u8(ip);
            bytes.put_u16_le(port);
            bytes.put_slice(&octets);
        }
        bytes.freeze()
    }

    /// The state in a snapshot; none if the bytes make no sense.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut bytes = bytes.clone();
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let auto_leave = bytes.try_get_u8().ok()? != 0;
        let mut sets = [const { Vec::new() }; 5];
        for set in &mut sets {
            let count = bytes.try_get_u32_le().ok()?;
            for _ in 0..count {
                set.push(ReplicaId(bytes.try_get_u64_le().ok()?));
            }
            // Whoever looks for a replica in it relies on that.
            if !set.is_sorted_by(|one, next| one < next) {
                return None;
            }
        }
        let [incoming, outgoing, learners, learners_next, removed] = sets;
        let config_id = Index(bytes.try_get_u64_le().ok()?);
        let mut addresses = BTreeMap::new();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let id = ReplicaId(bytes.try_get_u64_le().ok()?);
            let (ip, port) = (bytes.try_get_u8().ok()?, bytes.try_get_u16_le().ok()?);
            addresses.insert(id, joined(ip, port, &mut bytes)??);
        }
        let [incoming, outgoing, learners, learners_next] =
            [incoming, outgoing, learners, learners_next].map(Into::into);
        let membership = Membership { incoming, outgoing, learners, learners_next, auto_leave };
        let state = Self { membership, config_id, addresses, removed };
        bytes.is_empty().then_some(state)
    }
}

fn parts(address: Option<SocketAddr>) -> (u8, u16, [u8; 16]) {
    let mut octets = [0; 16];
    match address.map(|address| (address.ip(), address.port())) {
        None => (0, 0, octets),
        Some((IpAddr::V4(ip), port)) => {
            octets[..4].copy_from_slice(&ip.octets());
            (4, port, octets)
        }
        Some((IpAddr::V6(ip), port)) => (6, port, ip.octets()),
    }
}

/// The address of these parts, whose last are next in `bytes`: `Some(None)` if there is none, `None`
/// if they make no sense.
fn joined(ip: u8, port: u16, bytes: &mut Bytes) -> Option<Option<SocketAddr>> {
    let mut octets = [0; 16];
    bytes.try_copy_to_slice(&mut octets).ok()?;
    let ip: IpAddr = match ip {
        0 => return Some(None),
        4 => [octets[0], octets[1], octets[2], octets[3]].into(),
        6 => octets.into(),
        _ => return None,
    };
    Some(Some(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ReplicaId {
        ReplicaId(number)
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn three() -> GroupState {
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        GroupState::first(&nodes, &nodes.map(|node| (node, at(node.0 as u16))))
    }

    fn apply(
        state: &mut GroupState,
        index: u64,
        change: &MemberChange,
    ) -> Result<(), ChangeRefusal> {
        let before = state.clone();
        let applied = state.apply(Index(index), &change.encode());
        if applied.is_err() {
            assert_eq!(*state, before, "what is refused changes nothing");
        }
        assert_eq!(GroupState::decode(&state.encode()).as_ref(), Some(&*state));
        applied.map(|_| ())
    }

    #[test]
    fn a_change_reads_back_as_it_was_written() {
        let v6 = Some("[2001:db8::1]:7101".parse().expect("an address"));
        let change = MemberChange {
            expected: Some(Index(7)),
            transition: Transition::JointImplicit,
            changes: vec![
                (Change { kind: ChangeKind::AddVoter, id: id(4) }, v6),
                (Change { kind: ChangeKind::Remove, id: id(3) }, None),
            ],
            base: Some(three()),
        };
        let bytes = change.encode();
        assert_eq!(MemberChange::decode(&bytes), Some(change));
        for end in 1..bytes.len() {
            assert_eq!(MemberChange::decode(&bytes.slice(..end)), None, "{end} bytes");
        }
        assert_eq!(MemberChange::decode(&Bytes::new()), Some(MemberChange::default()));
    }

    #[test]
    fn members_come_move_and_go_and_their_ids_do_not_come_back() {
        let mut state = three();
        let add = MemberChange::one(ChangeKind::AddLearner, id(4), Some(at(4)));
        apply(&mut state, 5, &add).expect("added");
        assert_eq!((state.config_id, state.addresses[&id(4)]), (Index(5), at(4)));
        let moved = MemberChange::one(ChangeKind::Update, id(4), Some(at(44)));
        apply(&mut state, 6, &moved).expect("moved");
        assert_eq!(state.addresses[&id(4)], at(44));
        apply(&mut state, 7, &MemberChange::one(ChangeKind::AddVoter, id(4), None)).expect("votes");
        assert!(state.membership.is_voter(id(4)) && state.addresses[&id(4)] == at(44));
        apply(&mut state, 8, &MemberChange::one(ChangeKind::Remove, id(4), None)).expect("gone");
        assert!(state.is_removed(id(4)) && !state.addresses.contains_key(&id(4)));
        assert_eq!(apply(&mut state, 9, &add), Err(ChangeRefusal::Removed(id(4))));
        assert_eq!(state.config_id, Index(8));
    }

    #[test]
    fn a_change_made_for_another_state_has_no_effect() {
        let mut state = three();
        let add = |expected, number| MemberChange {
            expected: Some(Index(expected)),
            ..MemberChange::one(ChangeKind::AddLearner, id(number), None)
        };
        apply(&mut state, 5, &add(0, 4)).expect("the first state has id 0");
        let stale = ChangeRefusal::Stale { found: Index(5), expected: Index(0) };
        assert_eq!(apply(&mut state, 6, &add(0, 5)), Err(stale));
        assert_eq!(
            state.apply(Index(7), &Bytes::from_static(b"?")),
            Err(ChangeRefusal::Unreadable)
        );
        let leave = apply(&mut state, 8, &MemberChange::default());
        assert_eq!(leave, Err(ChangeRefusal::Change(ChangeError::NotJoint)));
    }

    #[test]
    fn who_joined_later_takes_the_first_state_from_the_first_change() {
        let (mut old, mut new) = (three(), GroupState::default());
        let add = MemberChange {
            base: Some(old.clone()),
            ..MemberChange::one(ChangeKind::AddLearner, id(4), Some(at(4)))
        };
        assert!(matches!(old.apply(Index(5), &add.encode()), Ok(Applied::Change(_))));
        assert_eq!(new.apply(Index(5), &add.encode()), Ok(Applied::First));
        assert_eq!(new, old);
        let promote = MemberChange {
            base: Some(three()),
            ..MemberChange::one(ChangeKind::AddVoter, id(4), None)
        };
        for state in [&mut old, &mut new] {
            assert!(matches!(state.apply(Index(6), &promote.encode()), Ok(Applied::Change(_))));
        }
        assert_eq!(new, old, "the base is for those who have none");
    }

    #[test]
    fn through_a_joint_membership_who_leaves_is_removed_at_its_end() {
        let mut state = three();
        let replace = MemberChange {
            changes: vec![
                (Change { kind: ChangeKind::AddVoter, id: id(4) }, Some(at(4))),
                (Change { kind: ChangeKind::Remove, id: id(3) }, None),
            ],
            ..MemberChange::default()
        };
        apply(&mut state, 5, &replace).expect("joint");
        assert!(state.membership.is_joint() && !state.is_removed(id(3)));
        let mut cancelled = state.clone();
        state.apply(Index(6), &Bytes::new()).expect("left");
        assert!(state.is_removed(id(3)) && state.removed.len() == 1);
        let cancel = MemberChange { transition: Transition::Cancel, ..MemberChange::default() };
        apply(&mut cancelled, 6, &cancel).expect("cancelled");
        assert!(cancelled.removed.is_empty() && cancelled.membership.is_voter(id(3)));
    }
}
