//! What a client hears when a command was not, or may not have been, executed.
//!
//! The first word is the contract (docs/commands.md, "Errors"): all but `UNCERTAIN` mean that the
//! command was not executed and never will be. For a request of a session that means this attempt;
//! what became of earlier ones is another matter.

use crate::id::{GroupId, SessionId};
use crate::limits::COMMAND_BYTES_MAX;
use crate::wire::reply::Reply;

/// Nobody leads the group, or not for certain; try again.
#[must_use]
pub fn no_leader(group: GroupId) -> Reply {
    Reply::error(
        "NOLEADER",
        format!("group {group} has no leader right now; nothing was executed, retry"),
    )
}

/// There is no such group.
#[must_use]
pub fn no_group(group: GroupId) -> Reply {
    Reply::error("ERR", format!("there is no group {group}; nothing was executed"))
}

/// The same refusal in a word on which clients of Redis Cluster look for the leader again and retry:
/// they do not know `NOLEADER`, and give it to the application.
#[must_use]
pub fn for_cluster_clients(reply: Reply) -> Reply {
    match reply.error_text().strip_prefix("NOLEADER ") {
        Some(text) => Reply::error("CLUSTERDOWN", text),
        None => reply,
    }
}

/// Whether the reply refuses a command or leaves its outcome open, whatever the command was: the words of
/// this file, not those of a command that was executed and has an error for a result.
#[must_use]
pub fn is_refusal(reply: &Reply) -> bool {
    let word = reply.error_text().split(' ').next().unwrap_or_default();
    matches!(word, "NOLEADER" | "CLUSTERDOWN" | "BUSY" | "FULL" | "UNCERTAIN")
}

/// This node was removed from the group.
#[must_use]
pub fn removed(group: GroupId) -> Reply {
    Reply::error(
        "CLUSTERDOWN",
        format!("this node was removed from group {group}; nothing was executed, ask another node"),
    )
}

/// A change of members that does not fit.
#[must_use]
pub fn no_change(group: GroupId, why: &dyn std::fmt::Display) -> Reply {
    Reply::error("ERR", format!("group {group}: {why}; nothing was changed"))
}

/// The read's leadership could not be confirmed; a read changes nothing, so it is safe to retry.
#[must_use]
pub fn read_unconfirmed() -> Reply {
    Reply::error(
        "NOLEADER",
        "the read could not be confirmed by a quorum in time; nothing was executed, retry",
    )
}

/// A command with all that goes with it does not fit an entry.
#[must_use]
pub fn too_long(bytes: usize) -> Reply {
    let max = COMMAND_BYTES_MAX;
    Reply::error("ERR", format!("a command of {bytes} bytes, the most is {max}"))
}

/// A bound was reached.
#[must_use]
pub fn busy(what: &str) -> Reply {
    Reply::error("BUSY", format!("{what}; nothing was executed, retry after a pause"))
}

/// The disk has no room for more log.
#[must_use]
pub fn full() -> Reply {
    Reply::error(
        "FULL",
        "the disk has no room for more log; nothing was executed, reads go on. Free space on the node's disk",
    )
}

/// The group does not know the session.
#[must_use]
pub fn no_session(id: SessionId) -> Reply {
    Reply::error(
        "NOSESSION",
        format!(
            "session {id} is not open: it was closed, or pushed out by sessions used later; nothing was executed now, what became of earlier attempts is unknown"
        ),
    )
}

/// The session has gone past this request.
#[must_use]
pub fn past_request(id: SessionId, seq: u64, last: u64) -> Reply {
    Reply::error(
        "ERR",
        format!(
            "request {seq} of session {id} comes after its request {last}; numbers must ascend. Nothing was executed now"
        ),
    )
}

/// Whether `reply` is [`past_request`] of this very request. A machine may say `ERR` as well.
#[must_use]
pub fn is_past_request(reply: &Reply, id: SessionId, seq: u64) -> bool {
    let text = format!("ERR request {seq} of session {id} comes after its request ");
    reply.error_text().starts_with(&text)
}

/// The command may have been executed, or may still be.
#[must_use]
pub fn uncertain(why: &str) -> Reply {
    Reply::error(
        "UNCERTAIN",
        format!("{why}; the command may or may not be executed, read before retrying"),
    )
}
