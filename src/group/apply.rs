//! What a committed entry does: to the state machine, and to the sessions around it. The same
//! whether it was committed just now or is replayed from the log.

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::id::Index;
use crate::store::{StateMachine, Wanted};
use crate::wire::reply::Reply;

use super::refusal;
use super::sessions::{Judgement, SessionRequest, Sessions};

/// Executes the committed entry at `index`; its result, if it is an entry that has one.
pub(super) fn apply(
    machine: &mut dyn StateMachine,
    sessions: &mut Sessions,
    index: Index,
    entry: &Entry,
    wanted: Wanted,
) -> Option<Reply> {
    match entry.kind {
        EntryKind::Empty | EntryKind::Config => None,
        EntryKind::Command => Some(machine.apply(index, &entry.payload, wanted)),
        EntryKind::Session => Some(apply_session(machine, sessions, index, &entry.payload)),
    }
}

fn apply_session(
    machine: &mut dyn StateMachine,
    sessions: &mut Sessions,
    index: Index,
    payload: &Bytes,
) -> Reply {
    let Some((request, command)) = SessionRequest::parse(payload) else {
        return Reply::error("ERR", "a session's entry that this version does not understand");
    };
    match request {
        SessionRequest::Open(id) if sessions.open(id, index) => Reply::Ok,
        SessionRequest::Open(id) => Reply::error("ERR", format!("session {id} is open already")),
        SessionRequest::Close(id) => Reply::Int(i64::from(sessions.close(id))),
        SessionRequest::Run { id, seq } => match sessions.run(id, seq, index) {
            Judgement::Fresh => {
                // Followers and replays need the answer too: the retry may come to them.
                let reply = machine.apply(index, &command, Wanted::Yes);
                sessions.ran(id, seq, reply.clone());
                reply
            }
            Judgement::Answered(reply) => reply,
            Judgement::Stale { last } => refusal::past_request(id, seq, last),
            Judgement::Unknown => refusal::no_session(id),
        },
    }
}
