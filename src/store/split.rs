//! Commands over several keys: cut by group, and the replies put together again.
//!
//! ```text
//! MGET a b c ──► group 0: MGET a c │ group 1: MGET b ──► [A, C] │ [B] ──► [A, B, C]
//! ```
//!
//! Each group's share is atomic; the whole is not (docs/commands.md).

use bytes::Bytes;

use crate::id::{GroupId, SessionId};
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

use super::command::Spec;
use super::{map, member, slot};

/// How the replies of the parts become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// All are `OK`.
    AllOk,
    /// Add them up.
    Sum,
    /// 1 if any is.
    Any,
    /// All are `OK`: the session is open everywhere.
    Opened(SessionId),
    /// What each group says of its members, told by node.
    Members,
    /// Each part's array goes to these places of the whole.
    Scatter(Vec<Vec<u32>>),
    /// One step of a scan in this group: its cursor becomes the client's.
    Scan {
        /// The group that was scanned.
        group: u64,
        /// How many groups there are.
        groups: u64,
    },
}

impl Merge {
    /// The reply to the whole command, from the parts' replies in order. None of them is an error.
    #[must_use]
    pub fn finish(self, replies: Vec<Reply>) -> Reply {
        match self {
            Self::AllOk => Reply::Ok,
            Self::Opened(id) => Reply::Int(id.0 as i64),
            Self::Any => Reply::Int(i64::from(replies.contains(&Reply::Int(1)))),
            Self::Sum => Reply::Int(
                replies
                    .iter()
                    .map(|reply| if let Reply::Int(count) = reply { *count } else { 0 })
                    .sum(),
            ),
            Self::Members => member::by_node(&replies),
            Self::Scan { group, groups } => scan_reply(replies, group, groups),
            Self::Scatter(places) => {
                let total = places.iter().map(Vec::len).sum();
                let mut whole = vec![Reply::Nil; total];
                for (places, reply) in places.iter().zip(replies) {
                    let Reply::Array(items) = reply else { continue };
                    for (&place, item) in places.iter().zip(items) {
                        whole[place as usize] = item;
                    }
                }
                Reply::Array(whole).within_limit()
            }
        }
    }
}

fn scan_reply(replies: Vec<Reply>, group: u64, groups: u64) -> Reply {
    let Some(Reply::Array(mut parts)) = replies.into_iter().next() else { return Reply::Nil };
    let keys = parts.pop().unwrap_or(Reply::Array(Vec::new()));
    let next = match parts.pop() {
        Some(Reply::Bulk(text)) => integer(&text).map_or(map::SCAN_END, |next| next as u64),
        _ => map::SCAN_END,
    };
    let cursor = match next {
        map::SCAN_END if group + 1 < groups => map::scan_cursor(group + 1, 0),
        map::SCAN_END => 0,
        next => map::scan_cursor(group, next),
    };
    Reply::Array(vec![Reply::bulk(cursor.to_string()), keys])
}

/// What a group answers to a step of a scan when none of its keys are to be seen.
#[must_use]
pub fn nothing_to_scan() -> Reply {
    Reply::Array(vec![Reply::bulk(map::SCAN_END.to_string()), Reply::Array(Vec::new())])
}

/// The group that a `SCAN` goes on in, and the command for it; none if its cursor points past the
/// last group.
#[must_use]
pub fn scan_step(command: &Command, groups: u64) -> Option<(GroupId, Bytes, Merge)> {
    let cursor = std::str::from_utf8(command.arg(1)).ok()?.parse().ok()?;
    let (group, position) = map::scan_position(cursor);
    if group >= groups {
        return None;
    }
    let position = position.to_string();
    let mut args: Vec<&[u8]> = command.args().collect();
    args[1] = position.as_bytes();
    Some((GroupId(group), Command::from_args(&args).raw, Merge::Scan { group, groups }))
}

/// A command's shares.
#[derive(Debug, PartialEq, Eq)]
pub enum Split {
    /// All keys are in one group: the command goes there as it is.
    One(GroupId),
    /// Each group gets its share, encoded anew.
    Many(Vec<(GroupId, Bytes)>, Merge),
}

/// Cuts `command` by the groups of its keys. It has at least one.
#[must_use]
pub fn split(spec: &Spec, command: &Command, groups: u64) -> Split {
    let group_of = |key: usize| slot::key_group(command.arg(key), groups);
    let first = group_of(spec.first_key as usize);
    if spec.keys(command.len()).all(|key| group_of(key) == first) {
        return Split::One(first);
    }
    let step = spec.key_step.max(1) as usize;
    let mut shares: Vec<Share<'_>> = Vec::new();
    for (place, key) in (0..).zip(spec.keys(command.len())) {
        let group = group_of(key);
        let share = match shares.iter().position(|share| share.group == group) {
            Some(at) => &mut shares[at],
            None => {
                shares.push(Share { group, args: vec![command.name()], places: Vec::new() });
                shares.last_mut().expect("just pushed")
            }
        };
        share.args.extend((key..key + step).map(|i| command.arg(i)));
        share.places.push(place);
    }
    let merge = match spec.name {
        "mset" => Merge::AllOk,
        "mget" => Merge::Scatter(
            shares.iter_mut().map(|share| std::mem::take(&mut share.places)).collect(),
        ),
        _ => Merge::Sum,
    };
    let parts = shares.iter().map(|share| (share.group, Command::from_args(&share.args).raw));
    Split::Many(parts.collect(), merge)
}

/// One group's part of a command.
struct Share<'a> {
    group: GroupId,
    args: Vec<&'a [u8]>,
    /// Where the results of its keys belong in the whole reply.
    places: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::Index;
    use crate::store::command::lookup;
    use crate::store::map::Map;
    use crate::store::{StateMachine, Wanted};

    /// Runs a command on one map per group, split, as the shards would.
    fn run_split(maps: &mut [Map], command: &Command) -> Reply {
        let spec = lookup(command.name()).expect("known");
        match split(spec, command, maps.len() as u64) {
            Split::One(group) => maps[group.0 as usize].apply(Index(1), &command.raw, Wanted::Yes),
            Split::Many(parts, merge) => {
                let replies = parts
                    .iter()
                    .map(|(group, body)| maps[group.0 as usize].apply(Index(1), body, Wanted::Yes))
                    .collect();
                merge.finish(replies)
            }
        }
    }

    proptest! {
        #[test]
        fn a_split_command_answers_as_if_it_were_whole(
            commands in prop::collection::vec(
                (prop::sample::select(vec!["MSET", "MGET", "DEL", "EXISTS", "UNLINK", "TOUCH"]),
                 prop::collection::vec((0u8..12, 0u8..4), 1..6)),
                1..12,
            ),
        ) {
            let mut whole = [Map::new()];
            let mut many = [Map::new(), Map::new(), Map::new(), Map::new()];
            for (name, keys) in commands {
                let words: Vec<Vec<u8>> = keys
                    .iter()
                    .flat_map(|(key, value)| {
                        let key = format!("key{key}").into_bytes();
                        let value = format!("v{value}").into_bytes();
                        if name == "MSET" { vec![key, value] } else { vec![key] }
                    })
                    .collect();
                let mut args = vec![name.as_bytes()];
                args.extend(words.iter().map(Vec::as_slice));
                let command = Command::from_args(&args);
                prop_assert_eq!(run_split(&mut many, &command), run_split(&mut whole, &command));
            }
        }
    }

    proptest! {
        #[test]
        fn a_scan_returns_every_key_that_stays(count in 1usize..30, step in 1usize..7) {
            let mut maps = [Map::new(), Map::new(), Map::new()];
            for i in 0..count {
                let key = format!("key{i}");
                run_split(&mut maps, &Command::from_args(&[b"SET", key.as_bytes(), b"v"]));
            }
            let mut found = std::collections::BTreeSet::new();
            let mut cursor = b"0".to_vec();
            for _ in 0..200 {
                // Keys that come and go meanwhile must not hide one that stays.
                let noise: &[&[u8]] = if found.len() % 2 == 0 { &[b"SET", b"noise", b"x"] } else { &[b"DEL", b"noise"] };
                run_split(&mut maps, &Command::from_args(noise));
                let step = step.to_string();
                let command =
                    Command::from_args(&[b"SCAN", &cursor, b"COUNT", step.as_bytes(), b"MATCH", b"key*"]);
                let (group, body, merge) = scan_step(&command, 3).expect("a cursor of ours");
                let reply = merge.finish(vec![maps[group.0 as usize].read(&body)]);
                let Reply::Array(parts) = reply else { panic!("not a scan reply: {reply:?}") };
                let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else { panic!("{parts:?}") };
                found.extend(keys.iter().map(|key| format!("{key:?}")));
                cursor = next.to_vec();
                if cursor == b"0" {
                    break;
                }
            }
            prop_assert_eq!(cursor, b"0".to_vec());
            prop_assert_eq!(found.len(), count);
        }
    }

    #[test]
    fn keys_of_one_group_keep_their_bytes() {
        let command = Command::from_args(&[b"MSET", b"{a}1", b"x", b"{a}2", b"y"]);
        let spec = lookup(b"mset").expect("known");
        assert!(matches!(split(spec, &command, 16), Split::One(_)));
    }
}
