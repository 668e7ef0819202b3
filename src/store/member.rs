//! `MEMBER` and `DRAIN`: what an operator may ask of the groups and of a node, as words.
//!
//! ```text
//!   MEMBER LIST                 MEMBER ADD id ip:port        MEMBER PROMOTE id
//!   MEMBER REMOVE id            MEMBER REPLACE old new       MEMBER UPDATE id ip:port
//!   MEMBER TRANSFER id          MEMBER CANCEL
//!      each: [GROUP group [IF config-id]], otherwise in every group
//!   DRAIN ms [STOP]
//! ```

use core::net::SocketAddr;

use crate::id::{GroupId, Index, NodeId};
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

/// What is to happen in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Tell who belongs to it.
    List,
    /// A node becomes a learner.
    Add(NodeId, SocketAddr),
    /// A learner becomes a voter.
    Promote(NodeId),
    /// A node leaves for good.
    Remove(NodeId),
    /// A learner takes the place of a voter, which leaves for good.
    Replace {
        /// The voter.
        old: NodeId,
        /// The learner.
        new: NodeId,
    },
    /// A node listens elsewhere.
    Update(NodeId, SocketAddr),
    /// A voter is to lead.
    Transfer(NodeId),
    /// A change that is under way is undone.
    Cancel,
}

/// A `MEMBER` command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What.
    pub verb: Verb,
    /// In this group only.
    pub group: Option<GroupId>,
    /// Only if this is the group's config id.
    pub expected: Option<Index>,
}

/// A `DRAIN` command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long it may take, in ms.
    pub limit_ms: u64,
    /// The node ends afterwards.
    pub stop: bool,
}

/// The longest a drain may take, in ms.
const DRAIN_MS_MAX: u64 = 600_000;

/// Reads a `MEMBER` command.
///
/// # Errors
/// What is wrong with it.
pub fn member(command: &Command) -> Result<Call, Reply> {
    let word = command.arg(1).to_ascii_uppercase();
    let mut at = 2;
    let mut next = || {
        at += 1;
        if at <= command.len() { Ok(command.arg(at - 1)) } else { Err(usage()) }
    };
    let verb = match &word[..] {
        b"LIST" => Verb::List,
        b"ADD" => Verb::Add(node(next()?)?, address(next()?)?),
        b"PROMOTE" => Verb::Promote(node(next()?)?),
        b"REMOVE" => Verb::Remove(node(next()?)?),
        b"REPLACE" => Verb::Replace { old: node(next()?)?, new: node(next()?)? },
        b"UPDATE" => Verb::Update(node(next()?)?, address(next()?)?),
        b"TRANSFER" => Verb::Transfer(node(next()?)?),
        b"CANCEL" => Verb::Cancel,
        _ => return Err(usage()),
    };
    let mut call = Call { verb, group: None, expected: None };
    while at < command.len() {
        let (option, value) = (command.arg(at), command.args().nth(at + 1).ok_or_else(usage)?);
        let value = number(value)?;
        if option.eq_ignore_ascii_case(b"GROUP") && call.group.is_none() {
            call.group = Some(GroupId(value));
        } else if option.eq_ignore_ascii_case(b"IF") && call.group.is_some() {
            // Every group counts its own configurations.
            call.expected = Some(Index(value));
        } else {
            return Err(usage());
        }
        at += 2;
    }
    Ok(call)
}

/// Reads a `DRAIN` command.
///
/// # Errors
/// What is wrong with it.
pub fn drain(command: &Command) -> Result<Drain, Reply> {
    let limit_ms = number(command.arg(1))?;
    let stop = command.len() == 3 && command.arg(2).eq_ignore_ascii_case(b"STOP");
    if DRAIN_MS_MAX < limit_ms || command.len() != if stop { 3 } else { 2 } {
        return Err(Reply::error("ERR", "DRAIN ms [STOP], with at most 600000 ms"));
    }
    Ok(Drain { limit_ms, stop })
}

fn number(text: &[u8]) -> Result<u64, Reply> {
    integer(text).and_then(|number| u64::try_from(number).ok()).ok_or_else(Reply::not_an_integer)
}

fn node(text: &[u8]) -> Result<NodeId, Reply> {
    match number(text)? {
        id if (1..=u64::from(u32::MAX)).contains(&id) => Ok(NodeId(id)),
        _ => Err(Reply::error("ERR", "a node id is from 1 to 4294967295")),
    }
}

fn address(text: &[u8]) -> Result<SocketAddr, Reply> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        let text = String::from_utf8_lossy(&text[..text.len().min(64)]).into_owned();
        Reply::error("ERR", format!("'{text}' is not ip:port, the peer address of the node"))
    })
}

fn usage() -> Reply {
    Reply::error(
        "ERR",
        "MEMBER knows LIST, ADD id ip:port, PROMOTE id, REMOVE id, REPLACE old new, \
         UPDATE id ip:port, TRANSFER id and CANCEL, each with [GROUP group [IF config-id]]",
    )
}

/// What the leaders of all groups say (`MEMBER LIST` in each), told by node.
#[must_use]
pub fn by_node(groups: &[Reply]) -> Reply {
    #[derive(Default)]
    struct Node {
        address: String,
        voter: i64,
        learner: i64,
        changing: i64,
        leads: i64,
        lag: i64,
        behind: i64,
        config: Option<(i64, i64)>,
    }
    let mut nodes: std::collections::BTreeMap<i64, Node> = std::collections::BTreeMap::new();
    for group in groups {
        let Reply::Array(members) = field(group, "members") else { continue };
        let (leader, config) = (number_of(group, "leader"), number_of(group, "config_id"));
        for member in members {
            let id = number_of(member, "id");
            let node = nodes.entry(id).or_default();
            let address = text_of(member, "address");
            if node.address.is_empty() {
                node.address = address;
            } else if !address.is_empty() && !node.address.split(',').any(|it| it == address) {
                // A change of address has not reached every group.
                node.address = format!("{},{address}", node.address);
            }
            match &text_of(member, "role")[..] {
                "voter" => node.voter += 1,
                "learner" => node.learner += 1,
                _ => node.changing += 1,
            }
            node.leads += i64::from(leader == id);
            let lag = number_of(member, "lag");
            node.lag = node.lag.max(lag);
            let fed = matches!(&text_of(member, "state")[..], "leader" | "replicating");
            node.behind += i64::from(!fed);
            let (low, high) = node.config.unwrap_or((config, config));
            node.config = Some((low.min(config), high.max(config)));
        }
    }
    let pair = |name: &str, value| (Reply::bulk(name), Reply::Int(value));
    let nodes = nodes.into_iter().map(|(id, node)| {
        let (low, high) = node.config.unwrap_or_default();
        Reply::Map(vec![
            pair("id", id),
            (Reply::bulk("address"), Reply::bulk(&node.address)),
            pair("voter", node.voter),
            pair("learner", node.learner),
            pair("changing", node.changing),
            pair("leads", node.leads),
            pair("lag", node.lag),
            pair("behind", node.behind),
            pair("config_id_min", low),
            pair("config_id_max", high),
        ])
    });
    Reply::Array(nodes.collect())
}

fn field<'a>(map: &'a Reply, name: &str) -> &'a Reply {
    let Reply::Map(pairs) = map else { return &Reply::Nil };
    let named = |key: &Reply| matches!(key, Reply::Bulk(key) if &key[..] == name.as_bytes());
    pairs.iter().find(|(key, _)| named(key)).map_or(&Reply::Nil, |(_, value)| value)
}

fn number_of(map: &Reply, name: &str) -> i64 {
    if let Reply::Int(number) = field(map, name) { *number } else { 0 }
}

fn text_of(map: &Reply, name: &str) -> String {
    let Reply::Bulk(text) = field(map, name) else { return String::new() };
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Call, Reply> {
        let args: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        member(&Command::from_args(&args))
    }

    #[test]
    fn what_an_operator_says_is_understood() {
        let at = "127.0.0.1:7104".parse().expect("an address");
        let call = |verb| Ok(Call { verb, group: None, expected: None });
        assert_eq!(read("MEMBER list"), call(Verb::List));
        assert_eq!(read("member ADD 4 127.0.0.1:7104"), call(Verb::Add(NodeId(4), at)));
        assert_eq!(
            read("MEMBER REPLACE 3 4"),
            call(Verb::Replace { old: NodeId(3), new: NodeId(4) })
        );
        assert_eq!(
            read("MEMBER REMOVE 3 GROUP 7 IF 12"),
            Ok(Call {
                verb: Verb::Remove(NodeId(3)),
                group: Some(GroupId(7)),
                expected: Some(Index(12))
            })
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "MEMBER LEAVE",
            "MEMBER ADD 4",
            "MEMBER ADD 0 127.0.0.1:1",
            "MEMBER ADD 4 localhost",
            "MEMBER REMOVE",
            "MEMBER REMOVE x",
            "MEMBER REMOVE 3 IF 12",
            "MEMBER REMOVE 3 GROUP",
            "MEMBER CANCEL now",
        ] {
            let refusal = read(line).expect_err(line);
            assert!(refusal.error_text().starts_with("ERR "), "{line}: {refusal:?}");
        }
    }

    #[test]
    fn a_drain_has_a_limit() {
        let read = |line: &str| {
            let args: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
            drain(&Command::from_args(&args))
        };
        assert_eq!(read("DRAIN 500"), Ok(Drain { limit_ms: 500, stop: false }));
        assert_eq!(read("DRAIN 0 stop"), Ok(Drain { limit_ms: 0, stop: true }));
        for line in ["DRAIN x", "DRAIN 700000", "DRAIN 1 now", "DRAIN 1 STOP now"] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
