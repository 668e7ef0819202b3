//! The commands on hashes and sets.
//!
//! A key comes to be with its first field or member and goes with its last. A command that is refused
//! has changed nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::limits;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

use super::value::{Collection, Hash, Set, Value};
use super::{Map, Place, Spot, argument_at, or_nil};

impl Map {
    fn hash(&self, key: &[u8]) -> Result<Option<&Hash>, Reply> {
        self.look(key).map(Value::hash).transpose()
    }

    fn members(&self, key: &[u8]) -> Result<Option<&Set>, Reply> {
        self.look(key).map(Value::set).transpose()
    }

    /// Changes the hash of a key, which is made if it is missing, and removed if it ends empty.
    fn change_hash<T>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut Hash) -> Result<T, Reply>,
    ) -> Result<T, Reply> {
        self.change(
            key,
            || Collection::Hash(Hash::new()),
            |it| match it {
                Collection::Hash(hash) => Ok((change(hash)?, hash.is_empty())),
                Collection::Set(_) => Err(super::value::wrong_type()),
            },
        )
    }

    /// The same of a set.
    fn change_set<T>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut Set) -> Result<T, Reply>,
    ) -> Result<T, Reply> {
        self.change(
            key,
            || Collection::Set(Set::new()),
            |it| match it {
                Collection::Set(set) => Ok((change(set)?, set.is_empty())),
                Collection::Hash(_) => Err(super::value::wrong_type()),
            },
        )
    }

    fn change<T>(
        &mut self,
        key: &[u8],
        empty: impl FnOnce() -> Collection,
        change: impl FnOnce(&mut Collection) -> Result<(T, bool), Reply>,
    ) -> Result<T, Reply> {
        match self.values.get_mut(&Spot::of(key)).map(Value::kept_mut) {
            Some(Value::Collection(it)) => {
                let (result, is_empty) = change(it)?;
                if is_empty {
                    self.remove(key);
                }
                Ok(result)
            }
            Some(_) => Err(super::value::wrong_type()),
            None => {
                let mut it = empty();
                let (result, is_empty) = change(&mut it)?;
                if !is_empty {
                    self.insert_at(Place::of(key), Value::Collection(Box::new(it)));
                }
                Ok(result)
            }
        }
    }

    /// `HSET`, `HSETNX`, `HDEL`, `HINCRBY`, `SADD`, `SREM`.
    pub(super) fn change_parts(&mut self, name: &str, command: &Command) -> Result<Reply, Reply> {
        let (key, parts) = (command.arg(1), || command.args().skip(2));
        match name {
            "hset" => self.change_hash(key, |hash| {
                let fields = || command.args().skip(2).step_by(2);
                room(hash.len(), fields().filter(|field| !hash.contains_key(*field)).count())?;
                let before = hash.len();
                for (field, value) in fields().zip(command.args().skip(3).step_by(2)) {
                    hash.insert(Arc::from(field), Bytes::copy_from_slice(value));
                }
                Ok(Reply::Int((hash.len() - before) as i64))
            }),
            "hsetnx" => self.change_hash(key, |hash| {
                if hash.contains_key(command.arg(2)) {
                    return Ok(Reply::Int(0));
                }
                room(hash.len(), 1)?;
                hash.insert(Arc::from(command.arg(2)), Bytes::copy_from_slice(command.arg(3)));
                Ok(Reply::Int(1))
            }),
            "hdel" => self.change_hash(key, |hash| {
                let gone = parts().filter(|field| hash.remove(*field).is_some()).count();
                Ok(Reply::Int(gone as i64))
            }),
            "hincrby" => self.change_hash(key, |hash| {
                let (field, by) = (command.arg(2), argument_at(command, 3)?);
                let old = match hash.get(field) {
                    Some(value) => integer(value)
                        .ok_or_else(|| Reply::error("ERR", "hash value is not an integer"))?,
                    None => {
                        room(hash.len(), 1)?;
                        0
                    }
                };
                let new = super::sum(old, by)?;
                hash.insert(Arc::from(field), new.to_string().into());
                Ok(Reply::Int(new))
            }),
            "sadd" => self.change_set(key, |set| {
                room(set.len(), parts().filter(|member| !set.contains(*member)).count())?;
                let before = set.len();
                parts().for_each(|member| _ = set.insert(Arc::from(member)));
                Ok(Reply::Int((set.len() - before) as i64))
            }),
            _ => self.change_set(key, |set| {
                let gone = parts().filter(|member| set.remove(*member).is_some()).count();
                Ok(Reply::Int(gone as i64))
            }),
        }
    }

    /// The reads of hashes and sets; `None` if the command is none of them.
    pub(super) fn answer_parts(
        &self,
        name: &str,
        command: &Command,
    ) -> Result<Option<Reply>, Reply> {
        let hash = || self.hash(command.arg(1));
        let members = || self.members(command.arg(1));
        let bulks = |items: &mut dyn Iterator<Item = &[u8]>| items.map(Reply::bulk).collect();
        let reply = match name {
            "hget" => or_nil(hash()?.and_then(|hash| hash.get(command.arg(2))).cloned()),
            "hmget" => {
                let hash = hash()?;
                let value = |field: &[u8]| hash.and_then(|hash| hash.get(field)).cloned();
                Reply::Array(command.args().skip(2).map(|field| or_nil(value(field))).collect())
            }
            "hgetall" => {
                let hash = hash()?.into_iter().flatten();
                let pair = |(field, value): (&Arc<[u8]>, &Bytes)| {
                    (Reply::bulk(field), Reply::Bulk(value.clone()))
                };
                Reply::Map(hash.map(pair).collect())
            }
            "hkeys" => {
                let hash = hash()?.into_iter().flatten();
                Reply::Array(bulks(&mut hash.map(|(field, _)| &**field)))
            }
            "hvals" => {
                let hash = hash()?.into_iter().flatten();
                Reply::Array(hash.map(|(_, value)| Reply::Bulk(value.clone())).collect())
            }
            "hlen" => Reply::Int(hash()?.map_or(0, Hash::len) as i64),
            "hexists" => {
                let is_there = hash()?.is_some_and(|hash| hash.contains_key(command.arg(2)));
                Reply::Int(i64::from(is_there))
            }
            "smembers" => {
                let set = members()?.into_iter().flatten();
                Reply::Set(bulks(&mut set.map(|member| &**member)))
            }
            "sismember" => {
                let is_in = members()?.is_some_and(|set| set.contains(command.arg(2)));
                Reply::Int(i64::from(is_in))
            }
            "scard" => Reply::Int(members()?.map_or(0, Set::len) as i64),
            _ => return Ok(None),
        };
        Ok(Some(reply.within_limit()))
    }
}

/// Whether so many parts more fit into a hash or set.
pub(super) fn room(parts: usize, more: usize) -> Result<(), Reply> {
    match parts + more <= limits::COLLECTION_PARTS_MAX {
        true => Ok(()),
        false => {
            let max = limits::COLLECTION_PARTS_MAX;
            Err(Reply::error("ERR", format!("a hash or set holds at most {max} parts")))
        }
    }
}
