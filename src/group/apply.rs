//! What a committed entry does: to the state machine, and to the sessions around it. The same
//! whether it was committed just now or is replayed from the log.
//!
//! ```text
//!   entry ─┬─ Command ─────────────────────────► machine ─► answer ──┐
//!          ├─ Session ─┬─ to be executed ──────► machine ─► answer ─┬┴─► waiter
//!          │           │                                 sessions ◄─┘     ▲
//!          │           └─ executed, past, unknown, open, close ───────────┘
//!          ├─ Empty ── nothing
//!          └─ Config ─ the stretch ends: members are the replica's business
//! ```
//!
//! A session's request is *judged* when it is given to the machine and *noted* when it is answered. A machine
//! that yields in between leaves a table as the last applied entry made it, which a snapshot may keep.

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::id::{EntryId, Index, SessionId};
use crate::raft::Raft;
use crate::store::Wanted;
use crate::store::batch::{Committed, Source};
use crate::wire::reply::Reply;

use super::log_cache::LogCache;
use super::refusal;
use super::replica::Answers;
use super::sessions::{Judgement, SessionRequest, Sessions};
use super::waiters::Waiters;

/// Who is owed the replies, and where they go.
pub(super) struct Owed<'a> {
    pub(super) raft: &'a Raft,
    pub(super) waiters: &'a mut Waiters,
    pub(super) answers: &'a mut Answers,
}

/// Committed entries from one to another, as the machine takes them. `done <= last`.
pub(super) struct Stretch<'a> {
    cache: &'a LogCache,
    sessions: &'a mut Sessions,
    /// None in a replay, where nobody waits.
    owed: Option<Owed<'a>>,
    /// Everything up to here has had its effect.
    done: Index,
    last: Index,
    /// What the machine has taken and not answered: the entry after `done`.
    given: Option<Given>,
    /// A session's command that was given, cut out of its entry.
    command: Bytes,
    commands: u64,
    is_exhausted: bool,
}

#[derive(Clone, Copy)]
struct Given {
    /// Of this session's request.
    request: Option<(SessionId, u64)>,
}

/// How far a machine came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    /// The last entry that has had its effect.
    pub(super) done: Index,
    /// Entries that had a result.
    pub(super) commands: u64,
    /// The machine left entries that it could have had.
    pub(super) has_yielded: bool,
}

impl<'a> Stretch<'a> {
    /// The entries behind `done`, up to `last` or the next change of members.
    pub(super) fn new(
        cache: &'a LogCache,
        sessions: &'a mut Sessions,
        owed: Option<Owed<'a>>,
        (done, last): (Index, Index),
    ) -> Self {
        Self {
            cache,
            sessions,
            owed,
            done,
            last,
            given: None,
            command: Bytes::new(),
            commands: 0,
            is_exhausted: false,
        }
    }

    /// The machine has returned.
    pub(super) fn reached(self) -> Reached {
        let Self { done, commands, .. } = self;
        Reached { done, commands, has_yielded: done < self.last && !self.is_exhausted }
    }

    /// The entry after `done`, which is in memory.
    fn entry(&self) -> &'a Entry {
        self.cache.get(self.done.next()).expect("entries stay in memory until applied")
    }

    fn is_wanted(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.waiters.is_wanted(self.done.next()))
    }

    /// The entry after `done` has had its effect, with this result.
    fn finish(&mut self, reply: Reply) {
        let (index, is_wanted) = (self.done.next(), self.is_wanted());
        if let Some(owed) = self.owed.as_mut().filter(|_| is_wanted) {
            let term = owed.raft.term_at(index).expect("the log holds what is applied");
            let origin = owed.waiters.on_applied(EntryId { term, index });
            owed.answers.extend(origin.map(|origin| (origin, reply)));
        }
        self.commands += 1;
        self.done = index;
    }

    /// A session's entry: its result, or none if the machine is to execute `command` first.
    fn judge(&mut self, payload: &Bytes) -> Option<Reply> {
        let index = self.done.next();
        let Some((request, command)) = SessionRequest::parse(payload) else {
            let text = "a session's entry that this version does not understand";
            return Some(Reply::error("ERR", text));
        };
        let sessions = &mut *self.sessions;
        Some(match request {
            SessionRequest::Open(id) if sessions.open(id, index) => Reply::Ok,
            SessionRequest::Open(id) => {
                Reply::error("ERR", format!("session {id} is open already"))
            }
            SessionRequest::Close(id) => Reply::Int(i64::from(sessions.close(id))),
            SessionRequest::Run { id, seq } => {
                let reply = match sessions.judge(id, seq) {
                    Judgement::Fresh => {
                        self.given = Some(Given { request: Some((id, seq)) });
                        self.command = command;
                        return None;
                    }
                    Judgement::Answered(reply) => reply,
                    Judgement::Stale { last } => refusal::past_request(id, seq, last),
                    Judgement::Unknown => refusal::no_session(id),
                };
                sessions.note(id, index);
                reply
            }
        })
    }
}

impl Source for Stretch<'_> {
    fn next_entry(&mut self) -> Option<Committed<'_>> {
        assert!(
            self.given.is_none(),
            "the machine asks for more and has not answered entry {}",
            self.done.next()
        );
        while self.done < self.last {
            let index = self.done.next();
            let entry = self.entry();
            match entry.kind {
                EntryKind::Empty => self.done = index,
                EntryKind::Config => break,
                EntryKind::Command => {
                    let wanted = if self.is_wanted() { Wanted::Yes } else { Wanted::No };
                    self.given = Some(Given { request: None });
                    return Some(Committed { index, payload: &entry.payload, wanted });
                }
                EntryKind::Session => match self.judge(&entry.payload) {
                    Some(reply) => self.finish(reply),
                    None => {
                        // Followers and replays need the answer too: the retry may come to them.
                        let wanted = Wanted::Yes;
                        return Some(Committed { index, payload: &self.command, wanted });
                    }
                },
            }
        }
        self.is_exhausted = true;
        None
    }

    fn answer(&mut self, reply: Reply) {
        let given = self.given.take().expect("the machine answers what it was not given");
        // The same on every replica: sessions keep it.
        let reply = reply.carried();
        if let Some((id, seq)) = given.request {
            self.sessions.note(id, self.done.next());
            self.sessions.ran(id, seq, reply.clone());
        }
        self.finish(reply);
    }
}

#[cfg(test)]
mod tests;
