//! A command → the groups, or the cores, that answer it.

use core::net::SocketAddr;

use bytes::Bytes;

use crate::group::SessionRequest;
use crate::id::{GroupId, SessionId};
use crate::store::acl;
use crate::store::backup;
use crate::store::cluster::{self, Call};
use crate::store::command::{self, Access};
use crate::store::member::{self, Verb};
use crate::store::session;
use crate::store::slot;
use crate::store::slow;
use crate::store::split::{self, Merge, Split};
use crate::store::transaction;
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::topology;

/// Where a command goes.
#[derive(Debug)]
pub(super) enum Routed {
    /// Nowhere: this is the answer.
    Reply(Reply),
    /// To one group, as it is.
    One { group: GroupId, access: Access, session: Option<SessionRequest>, body: Bytes },
    /// To several groups, each with its share.
    Many {
        access: Access,
        session: Option<SessionRequest>,
        parts: Vec<(GroupId, Bytes)>,
        merge: Merge,
    },
    /// To every core of this node, for `INFO` of this section.
    Info(Vec<Vec<u8>>),
    /// To every core of this node, for `DEBUG DIGEST`.
    Digest,
    /// To every core of this node, for `SLOWLOG`.
    Slowlog(slow::Call),
    /// To every core of this node, for `CLUSTER`.
    Cluster(Call),
    /// To the core of this node that has the group.
    Backup(backup::Call),
    /// Nowhere: how many replicas hold what was answered.
    Wait {
        /// And of those, how many have it on disk.
        on_disk: bool,
    },
    /// Nowhere: what this node's clock says.
    Time,
    /// To every core of this node: hand over what it leads.
    Drain(member::Drain),
}

/// Finds the way for `command`, which has been validated, among `groups` groups. If it opens a
/// session, `new_session` names it. To a cluster client (`redirects`), keys of different slots are as far
/// apart as in Redis Cluster, though one group may hold both.
pub(super) fn route(
    command: &Command,
    groups: u64,
    redirects: bool,
    new_session: impl FnOnce() -> SessionId,
) -> Routed {
    if !session::is_session(command) {
        return route_in(None, command, groups, redirects);
    }
    let everywhere = |session, merge| {
        let parts = (0..groups).map(|group| (GroupId(group), Bytes::new())).collect();
        Routed::Many { access: Access::Write, session: Some(session), parts, merge }
    };
    match session::read(command) {
        Ok(session::Call::Open) => {
            let id = new_session();
            everywhere(SessionRequest::Open(id), Merge::Opened(id))
        }
        Ok(session::Call::Close(id)) => everywhere(SessionRequest::Close(id), Merge::Any),
        // Each group that holds a part of it knows by itself whether it has executed it.
        Ok(session::Call::Run { id, seq, command }) => {
            route_in(Some(SessionRequest::Run { id, seq }), &command, groups, redirects)
        }
        Err(refusal) => Routed::Reply(refusal),
    }
}

fn route_in(
    session: Option<SessionRequest>,
    command: &Command,
    groups: u64,
    redirects: bool,
) -> Routed {
    if transaction::is_whole(command) {
        return match transaction::read(command) {
            Ok(whole) => {
                let (group, access) = (slot::slot_group(whole.slot, groups), Access::Write);
                Routed::One { group, access, session, body: command.raw.clone() }
            }
            Err(refusal) => Routed::Reply(refusal),
        };
    }
    let Some(spec) = command::lookup(command.name()) else {
        return Routed::Reply(Reply::error("ERR", "unknown command"));
    };
    let everywhere = |access, merge| {
        let parts = (0..groups).map(|group| (GroupId(group), command.raw.clone())).collect();
        Routed::Many { access, session, parts, merge }
    };
    match spec.access {
        Access::Read | Access::Write if redirects && !is_in_one_slot(spec, command) => {
            let text = "Keys in request don't hash to the same slot";
            Routed::Reply(Reply::error("CROSSSLOT", text))
        }
        Access::Read | Access::Write => match split::split(spec, command, groups) {
            Split::One(group) => {
                Routed::One { group, access: spec.access, session, body: command.raw.clone() }
            }
            Split::Many(parts, merge) => {
                Routed::Many { access: spec.access, session, parts, merge }
            }
        },
        Access::AllRead => everywhere(Access::Read, Merge::Sum),
        Access::AllWrite => everywhere(Access::Write, Merge::AllOk),
        Access::Scan => match split::scan_step(command, groups) {
            Some((group, body, merge)) => {
                Routed::Many { access: Access::Read, session, parts: vec![(group, body)], merge }
            }
            None => Routed::Reply(Reply::Array(vec![Reply::bulk("0"), Reply::Array(Vec::new())])),
        },
        _ if acl::is_acl(command) => users_call(command),
        Access::Member => member_call(command, groups).unwrap_or_else(Routed::Reply),
        Access::Node if spec.name == "backup" => match backup::read(command) {
            Ok(call) if call.group.0 < groups => Routed::Backup(call),
            Ok(_) => Routed::Reply(no_such_group(groups)),
            Err(refusal) => Routed::Reply(refusal),
        },
        Access::Node if spec.name == "time" => Routed::Time,
        Access::Node if spec.name == "wait" => Routed::Wait { on_disk: false },
        Access::Node if spec.name == "waitaof" => Routed::Wait { on_disk: true },
        Access::Node if spec.name == "drain" => {
            member::drain(command).map_or_else(Routed::Reply, Routed::Drain)
        }
        Access::Node if spec.name == "debug" => Routed::Digest,
        Access::Node if spec.name == "slowlog" => {
            slow::read(command).map_or_else(Routed::Reply, Routed::Slowlog)
        }
        Access::Node if spec.name == "cluster" => match cluster::read(command) {
            Ok(Call::KeySlot) => Routed::Reply(Reply::Int(slot::key_slot(command.arg(2)).into())),
            Ok(Call::CountKeysInSlot(slot)) => {
                let (group, access) = (slot::slot_group(slot, groups), Access::Read);
                Routed::One { group, access, session, body: command.raw.clone() }
            }
            Ok(call) => Routed::Cluster(call),
            Err(refusal) => Routed::Reply(refusal),
        },
        Access::Node => Routed::Info(command.args().skip(1).map(<[u8]>::to_vec).collect()),
        Access::Connection | Access::Session | Access::Users => {
            Routed::Reply(Reply::error("ERR", "the connection answers this command itself"))
        }
    }
}

/// Whether `command` reads what all groups hold (`DBSIZE`, `SCAN`).
pub(super) fn is_of_all_groups(command: &Command) -> bool {
    let spec = command::lookup(command.name());
    spec.is_some_and(|spec| matches!(spec.access, Access::AllRead | Access::Scan))
}

fn is_in_one_slot(spec: &command::Spec, command: &Command) -> bool {
    let mut slots = spec.keys(command.len()).map(|key| slot::key_slot(command.arg(key)));
    let first = slots.next();
    slots.all(|slot| Some(slot) == first)
}

/// What a cluster client hears of a command whose group the node at `leader` leads; none if it is
/// forwarded all the same.
pub(super) fn redirected(body: &Bytes, leader: SocketAddr) -> Option<Reply> {
    let command = Command::parse(body.clone()).ok()?;
    if let Ok(whole) = transaction::read(&command) {
        return Some(topology::moved(whole.slot, leader));
    }
    let spec = command::lookup(command.name())?;
    match spec.access {
        // Cluster clients ask every master for its own part, and put the parts together.
        Access::AllRead => Some(Reply::Int(0)),
        Access::Scan => Some(split::nothing_to_scan()),
        _ => {
            let key = spec.keys(command.len()).next()?;
            Some(topology::moved(slot::key_slot(command.arg(key)), leader))
        }
    }
}

/// The way of a `MEMBER` command: to one group, or to all.
fn member_call(command: &Command, groups: u64) -> Result<Routed, Reply> {
    let call = member::member(command)?;
    let (access, body) = (Access::Member, command.raw.clone());
    if let Some(group) = call.group {
        if group.0 >= groups {
            return Err(no_such_group(groups));
        }
        return Ok(Routed::One { group, access, session: None, body });
    }
    let merge = if call.verb == Verb::List { Merge::Members } else { Merge::AllOk };
    let parts = (0..groups).map(|group| (GroupId(group), body.clone())).collect();
    Ok(Routed::Many { access, session: None, parts, merge })
}

/// The way of an `ACL` command that is not for the connection: to the group that keeps the users.
fn users_call(command: &Command) -> Routed {
    let call = acl::read(command).and_then(|call| Ok((call.changes(), acl::sealed(command)?)));
    match call {
        Ok((changes, sealed)) => {
            let access = if changes { Access::Write } else { Access::Read };
            Routed::One { group: acl::GROUP, access, session: None, body: sealed.raw }
        }
        Err(refusal) => Routed::Reply(refusal),
    }
}

fn no_such_group(groups: u64) -> Reply {
    Reply::error("ERR", format!("there are groups 0 to {}", groups - 1))
}

/// Whether an unknown outcome of this command matters: it may change something.
pub(super) fn changes(access: Access, command: &Command) -> bool {
    match access {
        Access::Write => true,
        Access::Member => !member::member(command).is_ok_and(|call| call.verb == Verb::List),
        _ => false,
    }
}
