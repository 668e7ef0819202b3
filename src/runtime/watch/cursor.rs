//! The core's half of what embedders watch: how far each tail was fed, and from where.
//!
//! ```text
//!   next entry ─┬─ in memory ─────────────► feed
//!               ├─ read back, held here ──► feed
//!               ├─ on disk ── wanted() ─► Shard::read_log ─► wal_reader ─► on_read() ─► held here
//!               └─ gone ──── Lagged, with the first entry there is
//! ```
//!
//! A tail asks for one read at a time, and for none while its subscriber has not made room: what is held of it is at most
//! what the feed takes and one read (`limits::LOG_READ_BYTES_MAX` and an entry).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::group::{Replica, SessionRequest};
use crate::id::{EntryId, GroupId, Index};
use crate::limits::{TAIL_BYTES_MAX, TAIL_CHANGES_MAX};
use crate::raft::effects::RoleEvent;
use crate::shard::event::LogReadDone;

use super::{Board, Change, Feed, FeedState, Seat, TailEnd};

/// Where a tail has the next entry from, if not from memory.
///
/// ```text
///   No ──► Wanted ──► Asked ──► Held ──► No
/// ```
#[derive(Debug)]
enum Back {
    No,
    /// It is not in memory: to be read.
    Wanted,
    /// It is being read.
    Asked,
    /// Entries from the next one on.
    Held(VecDeque<Entry>),
}

/// How far a core has fed one tail.
#[derive(Debug)]
pub(in crate::runtime) struct Cursor {
    group: GroupId,
    /// None until the core has seen it: from then on.
    next: Option<Index>,
    back: Back,
    feed: Arc<Feed<Change>>,
    _seat: Seat,
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.feed.finish(TailEnd::Stopped);
    }
}

impl Cursor {
    pub(super) fn new(
        group: GroupId,
        next: Option<Index>,
        feed: Arc<Feed<Change>>,
        seat: Seat,
    ) -> Self {
        Self { group, next, back: Back::No, feed, _seat: seat }
    }

    /// Copies what the replica has applied, as far as there is room. False when there is nothing more to come.
    fn go_on(&mut self, replica: &Replica) -> bool {
        if Arc::strong_count(&self.feed) == 1 || replica.is_gone() {
            return false;
        }
        let (applied, cache) = (replica.status().applied, replica.cache());
        let next = self.next.get_or_insert(applied.next());
        let waits = matches!(self.back, Back::Wanted | Back::Asked);
        let (has_ended, has_room_now) = {
            let state = self.feed.lock();
            (state.end.is_some(), has_room(&state))
        };
        if applied < *next && replica.status().failure.is_some() {
            // The machine executes nothing any more, and all that it has executed was told.
            self.feed.finish(TailEnd::Failed);
            return false;
        }
        if applied < *next || waits || !has_room_now || has_ended {
            return !has_ended;
        }
        let back = &mut self.back;
        self.feed.feed(|state| {
            while *next <= applied && has_room(state) {
                let read = if let Back::Held(held) = back { held.pop_front() } else { None };
                let entry = read.as_ref().or_else(|| cache.get(*next));
                let (Some(entry), Some(term)) = (entry, replica.term_at(*next)) else {
                    *back = Back::Wanted;
                    return;
                };
                let id = EntryId { term, index: *next };
                if let Some(change) = change(id, entry) {
                    state.bytes += change.payload.len();
                    state.queue.push_back(change);
                }
                *next = next.next();
            }
        });
        // Otherwise it may be long before the core has another turn.
        let is_over = applied < *next && replica.status().failure.is_some();
        if is_over {
            self.feed.finish(TailEnd::Failed);
        }
        !is_over
    }

    /// A read has come back: this tail's, or one that another tail asked for and that does for it as well.
    fn on_read(&mut self, done: &LogReadDone) {
        let (read, asked) = (done.read, matches!(self.back, Back::Asked));
        if !asked || self.group != read.group || self.next != Some(read.first) {
            return;
        }
        self.back = match &done.result {
            Ok(entries) => Back::Held(entries.clone().into()),
            Err(_) => {
                let (missed, resume) = (read.first, read.last.next());
                self.feed.finish(TailEnd::Lagged { missed, resume });
                Back::Asked
            }
        };
    }
}

fn has_room(state: &FeedState<Change>) -> bool {
    state.queue.len() < TAIL_CHANGES_MAX && state.bytes < TAIL_BYTES_MAX
}

/// What a subscriber is told of an entry, if it is a command.
fn change(id: EntryId, entry: &Entry) -> Option<Change> {
    let (session, payload) = match entry.kind {
        EntryKind::Command => (None, entry.payload.clone()),
        EntryKind::Session => match SessionRequest::parse(&entry.payload)? {
            (SessionRequest::Run { id, seq }, body) => (Some((id, seq)), body),
            (SessionRequest::Open(_) | SessionRequest::Close(_), _) => return None,
        },
        EntryKind::Empty | EntryKind::Config => return None,
    };
    // A copy: as a slice it could keep a whole segment in memory.
    Some(Change { id, session, payload: Bytes::copy_from_slice(&payload) })
}

/// What one core shows. One per core.
#[derive(Debug)]
pub(in crate::runtime) struct Window {
    board: Arc<Board>,
    /// Everything was published once.
    primed: bool,
    tails: Vec<Cursor>,
}

impl Window {
    pub(in crate::runtime) const fn new(board: Arc<Board>) -> Self {
        Self { board, primed: false, tails: Vec::new() }
    }

    pub(in crate::runtime) fn open(&mut self, cursor: Cursor) {
        self.tails.push(cursor);
    }

    /// A turn is over: `settled` are the replicas that something happened to, `all` those of the core, in the
    /// order of their groups.
    pub(in crate::runtime) fn turn<'a>(
        &mut self,
        settled: impl Iterator<Item = &'a Replica>,
        all: &[Replica],
        roles: &[(GroupId, RoleEvent)],
    ) {
        if !self.board.watched.load(Ordering::Relaxed) {
            return;
        }
        if std::mem::replace(&mut self.primed, true) {
            settled.for_each(|replica| self.board.publish(replica));
        } else {
            all.iter().for_each(|replica| self.board.publish(replica));
        }
        roles.iter().for_each(|(group, event)| self.board.role_changed(*group, event));
        let cores = self.board.tails.len() as u64;
        self.tails.retain_mut(|tail| {
            let replica = all.get((tail.group.0 / cores) as usize);
            replica.is_some_and(|replica| tail.go_on(replica))
        });
    }

    /// Asks for each entry that is to be read back with `ask`, which tells the first that can be had if this cannot.
    pub(in crate::runtime) fn wanted(
        &mut self,
        mut ask: impl FnMut(GroupId, Index) -> Result<(), Index>,
    ) {
        self.tails.retain_mut(|tail| {
            let (Back::Wanted, Some(missed)) = (&tail.back, tail.next) else { return true };
            match ask(tail.group, missed) {
                Ok(()) => tail.back = Back::Asked,
                Err(resume) => tail.feed.finish(TailEnd::Lagged { missed, resume }),
            }
            matches!(tail.back, Back::Asked)
        });
    }

    /// What [`Self::wanted`] asked for has come.
    pub(in crate::runtime) fn on_read(&mut self, done: &LogReadDone) {
        self.tails.iter_mut().for_each(|tail| tail.on_read(done));
    }
}
