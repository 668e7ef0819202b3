//! What embedders watch: who leads, how far each group has come, and what it executes.
//!
//! ```text
//!  shard_loop, after each turn:
//!    settled replicas ──► Board: a GroupStatus each          ◄── Client::status
//!    changes of role  ──► Feed of each Roles                 ──► Roles::next
//!    entries applied  ──► Feed of each Tail, while it has room ──► Tail::next
//! ```
//!
//! Nothing grows: a subscriber that is slow is told how much it missed. A tail that has no room *waits in the log*: the
//! core copies more entries when some were taken. What has left the memory of the log meanwhile is read back from the
//! disk, by the thread that reads for followers ([`super::wal_reader`]), and only what has left the log is missed.
//!
//! Nothing is published before the first [`Client`](super::Client) exists, so a server pays nothing for it.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::group::Replica;
use crate::id::{EntryId, GroupId, Index, NodeId, SessionId, ShardId, Term};
use crate::limits::{ROLE_EVENTS_MAX, TAILS_MAX};
use crate::raft::effects::{RoleEvent, RoleKind};

mod cursor;

pub(super) use cursor::{Cursor, Window};

/// One group as this node's replica sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupStatus {
    /// What the replica is to its group.
    pub role: RoleKind,
    /// In which term.
    pub term: Term,
    /// The node that leads, if known.
    pub leader: Option<NodeId>,
    /// It leads, and everything that was ever committed is applied or about to be: leader-only work of an embedder
    /// may begin.
    pub leader_ready: bool,
    /// The last index that the machine here has executed.
    pub applied: Index,
    /// The last index that is durable in this node's log, committed or not.
    pub durable: Index,
    /// The last index that is known to be committed.
    pub commit: Index,
    /// The last index that is durable in the machine's own storage, if it has one
    /// ([`StateMachine::durable`](crate::StateMachine::durable)).
    pub machine_durable: Option<Index>,
    /// The replica takes part in nothing any more: its machine has said that it cannot go on
    /// ([`Stop::Group`](crate::store::batch::Stop::Group)), or its log contradicts its group's. What it logs and `INFO` say why.
    pub failed: bool,
}

impl Default for GroupStatus {
    fn default() -> Self {
        Self {
            role: RoleKind::Follower,
            term: Term(0),
            leader: None,
            leader_ready: false,
            applied: Index(0),
            durable: Index(0),
            commit: Index(0),
            machine_durable: None,
            failed: false,
        }
    }
}

/// A replica of this node has another role, or hears of another leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleChange {
    /// Its group.
    pub group: GroupId,
    /// What it is now.
    pub role: RoleKind,
    /// In which term.
    pub term: Term,
    /// The node that leads, if known.
    pub leader: Option<NodeId>,
}

/// A command that was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place in the group's log.
    pub id: EntryId,
    /// The session it was sent in, and its number there. What was sent more than once may be in the log more than
    /// once. It was executed where its number was higher than those of the session before, and nowhere if the
    /// session was not open.
    pub session: Option<(SessionId, u64)>,
    /// What the machine was given.
    pub payload: Bytes,
}

/// Why a subscription has nothing more to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TailEnd {
    /// The subscriber was too slow, or asked for something too old: entries from `missed` on are no longer in this
    /// node's log, a snapshot stands for them; or they cannot be read. Bring what you have made of the log up to date in
    /// another way (read the machine, at an index of `resume` or later), and subscribe again from `resume`.
    #[error("entries {missed} to {} are no longer in the log; resume at {resume}", resume.prev())]
    Lagged {
        /// The first entry that was missed.
        missed: Index,
        /// The first entry that can be had.
        resume: Index,
    },
    /// The node stopped, or the replica left its group.
    #[error("the node has stopped")]
    Stopped,
    /// The replica takes part in nothing any more, and its machine executes nothing ([`GroupStatus::failed`]); what it had
    /// executed was told before this. Subscribe on another node, from the index after the last one heard.
    #[error("this node's replica of the group has stopped; subscribe on another node")]
    Failed,
}

/// Why the next change of role cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RolesEnd {
    /// So many changes were missed, because the subscriber was slow. It goes on after them;
    /// [`Client::status`](super::Client::status) says how things are.
    #[error("{missed} changes of role were missed")]
    Lagged {
        /// How many.
        missed: u64,
    },
    /// The node stopped.
    #[error("the node has stopped")]
    Stopped,
}

// --- feeds ------------------------------------------------------------------------------------

#[derive(Debug)]
struct FeedState<T> {
    queue: VecDeque<T>,
    bytes: usize,
    missed: u64,
    end: Option<TailEnd>,
    waker: Option<Waker>,
}

/// A bounded queue from a core to one subscriber.
#[derive(Debug)]
struct Feed<T> {
    state: Mutex<FeedState<T>>,
    fed: Condvar,
}

impl<T> Feed<T> {
    fn new() -> Arc<Self> {
        let (queue, waker) = (VecDeque::new(), None);
        let state = FeedState { queue, bytes: 0, missed: 0, end: None, waker };
        Arc::new(Self { state: Mutex::new(state), fed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, FeedState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells the subscriber.
    fn feed(&self, change: impl FnOnce(&mut FeedState<T>)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        self.fed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn finish(&self, end: TailEnd) {
        self.feed(|state| {
            state.end.get_or_insert(end);
        });
    }

    fn poll<R>(
        &self,
        context: &Context<'_>,
        take: impl FnOnce(&mut FeedState<T>) -> Option<R>,
    ) -> Poll<R> {
        let mut state = self.lock();
        match take(&mut state) {
            Some(taken) => Poll::Ready(taken),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn wait<R>(
        &self,
        patience: Duration,
        mut take: impl FnMut(&mut FeedState<T>) -> Option<R>,
    ) -> Option<R> {
        let mut taken = None;
        let waits = |state: &mut FeedState<T>| {
            taken = take(state);
            taken.is_none()
        };
        drop(self.fed.wait_timeout_while(self.lock(), patience, waits));
        taken
    }
}

// --- the board --------------------------------------------------------------------------------

/// What all cores show. One per node.
#[derive(Debug)]
pub(super) struct Board {
    /// By group.
    groups: Vec<Mutex<GroupStatus>>,
    /// Somebody may look.
    watched: AtomicBool,
    roles: Mutex<Vec<Weak<Feed<RoleChange>>>>,
    /// Tails by core.
    tails: Vec<Arc<AtomicUsize>>,
    /// Cores that have not ended.
    cores: AtomicUsize,
}

impl Board {
    pub(super) fn new(groups: u64, cores: u16) -> Self {
        Self {
            groups: (0..groups).map(|_| Mutex::default()).collect(),
            watched: AtomicBool::new(false),
            roles: Mutex::default(),
            tails: (0..cores).map(|_| Arc::default()).collect(),
            cores: AtomicUsize::new(cores.into()),
        }
    }

    pub(super) fn groups(&self) -> u64 {
        self.groups.len() as u64
    }

    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    pub(super) fn status(&self, group: GroupId) -> Option<GroupStatus> {
        let place = self.groups.get(usize::try_from(group.0).ok()?)?;
        Some(*place.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, replica: &Replica) {
        let status = replica.status();
        let shown = GroupStatus {
            role: status.role,
            term: status.term,
            leader: status.leader.is_some().then_some(NodeId(status.leader.0)),
            leader_ready: status.leader_ready,
            applied: status.applied,
            durable: status.durable,
            commit: status.commit,
            machine_durable: replica.machine().durable(),
            failed: status.failure.is_some(),
        };
        if let Some(place) = self.groups.get(replica.group().0 as usize) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        }
    }

    pub(super) fn subscribe(&self) -> Roles {
        let feed = Feed::new();
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        roles.retain(|feed| feed.strong_count() > 0);
        roles.push(Arc::downgrade(&feed));
        drop(roles);
        if self.cores.load(Ordering::SeqCst) == 0 {
            feed.finish(TailEnd::Stopped);
        }
        Roles { feed }
    }

    fn role_changed(&self, group: GroupId, event: &RoleEvent) {
        let RoleEvent { role, term, leader, .. } = *event;
        let leader = leader.is_some().then_some(NodeId(leader.0));
        self.tell(RoleChange { group, role, term, leader });
    }

    fn tell(&self, change: RoleChange) {
        for feed in self.feeds() {
            feed.feed(|state| {
                if state.missed == 0 && state.queue.len() < ROLE_EVENTS_MAX {
                    state.queue.push_back(change);
                } else {
                    state.missed += 1;
                }
            });
        }
    }

    /// A core has ended, and what was published of its groups with it: whoever led does not. After the last core
    /// subscribers hear so.
    pub(super) fn core_ended(&self, core: ShardId) {
        let places = self.groups.iter().enumerate();
        for (group, place) in places.skip(core.0.into()).step_by(self.tails.len()) {
            let mut status = place.lock().unwrap_or_else(PoisonError::into_inner);
            let (was, ends) = (*status, &mut *status);
            (ends.role, ends.leader, ends.leader_ready) = (RoleKind::Follower, None, false);
            let term = ends.term;
            drop(status);
            if (was.role, was.leader) != (RoleKind::Follower, None) {
                let (group, role) = (GroupId(group as u64), RoleKind::Follower);
                self.tell(RoleChange { group, role, term, leader: None });
            }
        }
        if self.cores.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.feeds().iter().for_each(|feed| feed.finish(TailEnd::Stopped));
        }
    }

    fn feeds(&self) -> Vec<Arc<Feed<RoleChange>>> {
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        roles.iter().filter_map(Weak::upgrade).collect()
    }

    /// A tail, and the half that goes to the core; none if the core has as many as it may.
    pub(super) fn tail(
        &self,
        core: ShardId,
        group: GroupId,
        from: Option<Index>,
    ) -> Option<(Tail, Cursor)> {
        let seats = &self.tails[usize::from(core.0)];
        if TAILS_MAX <= seats.fetch_add(1, Ordering::Relaxed) {
            seats.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let feed = Feed::new();
        let from = from.map(|index| index.max(Index(1)));
        let cursor = Cursor::new(group, from, Arc::clone(&feed), Seat(Arc::clone(seats)));
        Some((Tail { group, feed }, cursor))
    }
}

/// A place among the tails of a core.
#[derive(Debug)]
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// --- the subscriber's half --------------------------------------------------------------------

/// Changes of role of this node's replicas, in order for each group. At most
/// [`ROLE_EVENTS_MAX`] wait; whoever is slower is told how many were missed.
pub struct Roles {
    feed: Arc<Feed<RoleChange>>,
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roles").finish_non_exhaustive()
    }
}

impl Roles {
    /// The next change, on any executor.
    ///
    /// # Errors
    /// [`RolesEnd`].
    pub async fn next(&mut self) -> Result<RoleChange, RolesEnd> {
        poll_fn(|context| self.feed.poll(context, Self::take)).await
    }

    /// The next change, on this thread; none if there is none within `patience`.
    ///
    /// # Errors
    /// [`RolesEnd`], inside the `Some`.
    pub fn wait(&mut self, patience: Duration) -> Option<Result<RoleChange, RolesEnd>> {
        self.feed.wait(patience, Self::take)
    }

    fn take(state: &mut FeedState<RoleChange>) -> Option<Result<RoleChange, RolesEnd>> {
        if let Some(change) = state.queue.pop_front() {
            return Some(Ok(change));
        }
        match std::mem::take(&mut state.missed) {
            0 => state.end.map(|_| Err(RolesEnd::Stopped)),
            missed => Some(Err(RolesEnd::Lagged { missed })),
        }
    }
}

/// The commands that one group executes, in order. At most [`TAIL_CHANGES_MAX`](crate::limits::TAIL_CHANGES_MAX) of them, or [`TAIL_BYTES_MAX`](crate::limits::TAIL_BYTES_MAX) bytes and
/// one more command, wait to be taken; the core copies more when there is room, within 5 ms.
pub struct Tail {
    group: GroupId,
    feed: Arc<Feed<Change>>,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Tail {
    /// The group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// The next command, on any executor.
    ///
    /// # Errors
    /// [`TailEnd`]: the tail is over, and says the same from then on.
    pub async fn next(&mut self) -> Result<Change, TailEnd> {
        poll_fn(|context| self.feed.poll(context, Self::take)).await
    }

    /// The next command, on this thread; none if there is none within `patience`.
    ///
    /// # Errors
    /// [`TailEnd`], inside the `Some`: the tail is over, and says the same from then on.
    pub fn wait(&mut self, patience: Duration) -> Option<Result<Change, TailEnd>> {
        self.feed.wait(patience, Self::take)
    }

    fn take(state: &mut FeedState<Change>) -> Option<Result<Change, TailEnd>> {
        match state.queue.pop_front() {
            Some(change) => {
                state.bytes -= change.payload.len();
                Some(Ok(change))
            }
            None => state.end.map(Err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_that_is_slow_hears_how_many_changes_of_role_it_missed() {
        let board = Board::new(1, 1);
        let mut roles = board.subscribe();
        let mut term = 0;
        let mut changes = |count: usize| {
            for _ in 0..count {
                term += 1;
                let (term, leader) = (Term(term), crate::id::ReplicaId(0));
                let event =
                    RoleEvent { role: RoleKind::Candidate, term, leader, new_leader: false };
                board.role_changed(GroupId(0), &event);
            }
        };
        let mut heard = || {
            std::iter::from_fn(|| roles.wait(Duration::ZERO)).take(ROLE_EVENTS_MAX + 2).collect()
        };
        changes(ROLE_EVENTS_MAX + 3);
        let first: Vec<_> = heard();
        assert_eq!(first.len(), ROLE_EVENTS_MAX + 1);
        assert!(first[..ROLE_EVENTS_MAX].iter().all(Result::is_ok), "the oldest are kept");
        assert_eq!(first.last(), Some(&Err(RolesEnd::Lagged { missed: 3 })));
        changes(1);
        let next: Vec<_> = heard();
        let [Ok(change)] = next[..] else { panic!("{next:?}") };
        assert_eq!((change.term.0, change.leader), (ROLE_EVENTS_MAX as u64 + 4, None));
        board.core_ended(ShardId(0));
        assert_eq!(roles.wait(Duration::ZERO), Some(Err(RolesEnd::Stopped)));
        assert_eq!(board.subscribe().wait(Duration::ZERO), Some(Err(RolesEnd::Stopped)));
    }

    #[test]
    fn what_a_core_led_is_led_by_nobody_after_its_end_and_roles_say_so() {
        let board = Board::new(4, 2);
        let leads = GroupStatus {
            role: RoleKind::Leader,
            term: Term(3),
            leader: Some(NodeId(1)),
            leader_ready: true,
            ..GroupStatus::default()
        };
        board.groups.iter().for_each(|place| *place.lock().expect("nobody panics") = leads);
        let mut roles = board.subscribe();
        board.core_ended(ShardId(1));
        let status = |group| board.status(GroupId(group)).expect("there is such a group");
        for group in [1, 3] {
            let ended = GroupStatus {
                role: RoleKind::Follower,
                leader: None,
                leader_ready: false,
                ..leads
            };
            assert_eq!(status(group), ended);
            let change = roles.wait(Duration::ZERO).expect("told").expect("not slow");
            let expected = (GroupId(group), RoleKind::Follower, None);
            assert_eq!((change.group, change.role, change.leader), expected);
        }
        assert_eq!(roles.wait(Duration::ZERO), None, "the other core lives");
        assert_eq!((status(0), status(2)), (leads, leads));
        board.core_ended(ShardId(0));
        let rest: Vec<_> = std::iter::from_fn(|| roles.wait(Duration::ZERO)).take(3).collect();
        assert_eq!(rest[2], Err(RolesEnd::Stopped), "changes first: {rest:?}");
    }

    #[test]
    fn a_core_has_so_many_tails_and_a_place_is_free_again_when_one_ends() {
        let board = Board::new(2, 2);
        let open = || board.tail(ShardId(1), GroupId(1), None);
        let mut tails: Vec<_> = (0..TAILS_MAX).map(|_| open().expect("a place")).collect();
        assert!(open().is_none());
        assert!(board.tail(ShardId(0), GroupId(0), None).is_some(), "the other core has its own");
        let (mut tail, cursor) = tails.pop().expect("many");
        drop(cursor);
        assert_eq!(tail.wait(Duration::ZERO), Some(Err(TailEnd::Stopped)));
        assert!(open().is_some());
    }
}
