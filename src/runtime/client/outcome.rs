//! What became of a call: executed, not executed, or unknown; there is nothing else.

use std::fmt;

use bytes::Bytes;

use crate::group::refusal;
use crate::wire::reply::Reply;

use super::call::{Answer, Kind};

/// The machine's reply, or why there is none.
pub type Outcome = Result<Reply, Failure>;

/// A call without a reply. What it was about is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was executed, and nothing of this attempt ever will be.
    NotExecuted {
        /// Why: what to do next.
        why: Why,
        /// The story, for people.
        text: String,
        /// What was to be executed.
        payload: Bytes,
    },
    /// It may be executed, now or later, or not. Only of what may change something. Inside a session
    /// ([`super::Session`]) the same request, sent again, tells.
    Unknown {
        /// The story, for people.
        text: String,
        /// What was to be executed.
        payload: Bytes,
    },
}

impl Failure {
    /// What was to be executed, given back.
    #[must_use]
    pub fn into_payload(self) -> Bytes {
        match self {
            Self::NotExecuted { payload, .. } | Self::Unknown { payload, .. } => payload,
        }
    }

    /// Why nothing was executed; none if that is not known.
    #[must_use]
    pub const fn why(&self) -> Option<Why> {
        match self {
            Self::NotExecuted { why, .. } => Some(*why),
            Self::Unknown { .. } => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExecuted { text, .. } => write!(f, "not executed: {text}"),
            Self::Unknown { text, .. } => write!(f, "outcome unknown: {text}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Why a call was not executed, named by the caller's next move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Nobody leads the group, or not for certain. Try again after a pause.
    NoLeader,
    /// A bound was reached (`limits`). Try again after a pause, with less at once.
    Busy,
    /// The leader's disk has no room for more log. Make room; reads go on.
    Full,
    /// The node still replays its log, or its peers do not know it yet. Try again after a pause.
    Loading,
    /// This node is no member of the group any more. Ask another.
    Removed,
    /// The group does not know the session. Open a new one; what became of *earlier attempts* at the request is
    /// unknown.
    NoSession,
    /// The session has gone past this request: its answer is no longer kept. What became of *earlier attempts*
    /// at it is unknown.
    PastRequest,
    /// It can never succeed as it is: no such group, or a payload that is too long. Mend the caller.
    Invalid,
    /// The node stops, or has stopped.
    Stopped,
}

impl Why {
    /// What to tell people who hear no more than this.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::NoLeader => "the group has no leader right now",
            Self::Busy => "this node has as many calls or tails as it may; retry after a pause",
            Self::Full => "the disk has no room for more log",
            Self::Loading => "the node is still starting; retry after a pause",
            Self::Removed => "this node was removed from the group",
            Self::NoSession => "the session is not open",
            Self::PastRequest => "the session has gone past this request",
            Self::Invalid => {
                "there is no such group, the payload is too long, or there is no command"
            }
            Self::Stopped => "the node has stopped",
        }
    }

    /// The reason that a refusal of the shard names, by its first word.
    fn of(text: &str) -> Option<Self> {
        match text.split(' ').next()? {
            "NOLEADER" => Some(Self::NoLeader),
            "BUSY" => Some(Self::Busy),
            "FULL" => Some(Self::Full),
            "LOADING" => Some(Self::Loading),
            "CLUSTERDOWN" => Some(Self::Removed),
            "NOSESSION" => Some(Self::NoSession),
            _ => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Why {}

/// What a reply of the shard says about a call of this kind. A machine may reply errors of its own: those are
/// results, unless they begin with a word that only the shard uses.
pub(super) fn read(kind: Kind, reply: Reply) -> Answer {
    if !reply.is_error() {
        return Answer::Executed(reply);
    }
    // Nothing but the machine says so of a read: it changes nothing, so its outcome is never open.
    if reply.is_uncertain() && kind != Kind::Read {
        return Answer::Unknown(reply.error_text().to_owned());
    }
    let why = Why::of(reply.error_text()).or(match kind {
        Kind::Request(id, seq) if refusal::is_past_request(&reply, id, seq) => {
            Some(Why::PastRequest)
        }
        // By the contract of the protocol, no other error leaves anything behind.
        Kind::Command => Some(Why::Invalid),
        _ => None,
    });
    match why {
        Some(why) => Answer::NotExecuted(why, reply.error_text().to_owned()),
        None => Answer::Executed(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, SessionId};

    #[test]
    fn every_refusal_of_the_shard_is_understood() {
        let (id, request) = (SessionId(9), Kind::Request(SessionId(9), 4));
        for (kind, reply, expected) in [
            (Kind::Write, refusal::no_leader(GroupId(1)), Why::NoLeader),
            (Kind::Read, refusal::read_unconfirmed(), Why::NoLeader),
            (Kind::Write, refusal::busy("x"), Why::Busy),
            (Kind::Write, refusal::full(), Why::Full),
            (Kind::Write, refusal::removed(GroupId(1)), Why::Removed),
            (request, refusal::no_session(id), Why::NoSession),
            (request, refusal::past_request(id, 4, 6), Why::PastRequest),
            (Kind::Command, refusal::no_group(GroupId(7)), Why::Invalid),
        ] {
            let text = reply.error_text().to_owned();
            assert_eq!(read(kind, reply), Answer::NotExecuted(expected, text));
        }
        let reply = refusal::uncertain("x");
        let text = reply.error_text().to_owned();
        assert_eq!(read(Kind::Write, reply), Answer::Unknown(text));
    }

    #[test]
    fn a_read_is_never_unknown_whatever_its_machine_says() {
        let reply = Reply::error("UNCERTAIN", "says the machine");
        assert_eq!(read(Kind::Read, reply.clone()), Answer::Executed(reply));
    }

    #[test]
    fn an_error_of_the_machine_is_a_result() {
        for reply in [
            Reply::error("ERR", "no such account"),
            Reply::error("WRONGTYPE", "x"),
            // Another request's.
            refusal::past_request(SessionId(9), 3, 6),
        ] {
            let kind = Kind::Request(SessionId(9), 4);
            assert_eq!(read(kind, reply.clone()), Answer::Executed(reply));
        }
    }
}
