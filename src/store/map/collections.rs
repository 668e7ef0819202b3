//! The commands on hashes and sets.
//!
//! A key comes to be with its first field or member and goes with its last. A command that is refused
//! has changed nothing.

use bytes::Bytes;

use crate::limits;
use crate::store::command;
use crate::store::glob;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer};

use super::parts::Parts;
use super::value::{Collection, Hash, Set, Value};
use super::{Map, Place, SCAN_BYTES_SOFT, SCAN_END, Spot, argument_at, or_nil};

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
            || Collection::Hash(Hash::default()),
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
            || Collection::Set(Set::default()),
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

    /// `HSET`, `HMSET`, `HSETNX`, `HDEL`, `HINCRBY`, `SADD`, `SREM`.
    pub(super) fn change_parts(&mut self, name: &str, command: &Command) -> Result<Reply, Reply> {
        let (key, parts) = (command.arg(1), || command.args().skip(2));
        match name {
            "hset" | "hmset" => self.change_hash(key, |hash| {
                let fields = || command.args().skip(2).step_by(2);
                room(hash.len(), fields().filter(|field| !hash.has(field)).count())?;
                let before = hash.len();
                for (field, value) in fields().zip(command.args().skip(3).step_by(2)) {
                    hash.insert(field, Bytes::copy_from_slice(value));
                }
                let new = Reply::Int((hash.len() - before) as i64);
                Ok(if name == "hset" { new } else { Reply::Ok })
            }),
            "hsetnx" => self.change_hash(key, |hash| {
                if hash.has(command.arg(2)) {
                    return Ok(Reply::Int(0));
                }
                room(hash.len(), 1)?;
                hash.insert(command.arg(2), Bytes::copy_from_slice(command.arg(3)));
                Ok(Reply::Int(1))
            }),
            "hdel" => self.change_hash(key, |hash| {
                let gone = parts().filter(|field| hash.remove(field)).count();
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
                hash.insert(field, new.to_string().into());
                Ok(Reply::Int(new))
            }),
            "sadd" => self.change_set(key, |set| {
                room(set.len(), parts().filter(|member| !set.has(member)).count())?;
                let new = parts().filter(|member| set.insert(member, ())).count();
                Ok(Reply::Int(new as i64))
            }),
            _ => self.change_set(key, |set| {
                let gone = parts().filter(|member| set.remove(member)).count();
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
        let reply = match name {
            "hget" => or_nil(hash()?.and_then(|hash| hash.get(command.arg(2))).cloned()),
            "hmget" => {
                let hash = hash()?;
                let value = |field: &[u8]| hash.and_then(|hash| hash.get(field)).cloned();
                Reply::Array(command.args().skip(2).map(|field| or_nil(value(field))).collect())
            }
            "hgetall" => {
                let pairs = hash()?.into_iter().flat_map(Parts::iter);
                let pairs =
                    pairs.map(|(field, value)| (Reply::bulk(field), Reply::Bulk(value.clone())));
                Reply::Map(gathered(pairs, |(field, value)| field.bytes() + value.bytes())?)
            }
            "hkeys" => {
                let fields = hash()?.into_iter().flat_map(Parts::iter);
                let fields = fields.map(|(field, _)| Reply::bulk(field));
                Reply::Array(gathered(fields, Reply::bytes)?)
            }
            "hvals" => {
                let values = hash()?.into_iter().flat_map(Parts::iter);
                let values = values.map(|(_, value)| Reply::Bulk(value.clone()));
                Reply::Array(gathered(values, Reply::bytes)?)
            }
            "hscan" => {
                let show = |field: &[u8], value: &Bytes, found: &mut Vec<Reply>| {
                    found.extend([Reply::bulk(field), Reply::Bulk(value.clone())]);
                    value.len()
                };
                scan(hash()?, command, show)?
            }
            "hlen" => Reply::Int(hash()?.map_or(0, Hash::len) as i64),
            "hstrlen" => {
                let value = hash()?.and_then(|hash| hash.get(command.arg(2)));
                Reply::Int(value.map_or(0, Bytes::len) as i64)
            }
            "hexists" => {
                let is_there = hash()?.is_some_and(|hash| hash.has(command.arg(2)));
                Reply::Int(i64::from(is_there))
            }
            "smembers" => {
                let members = members()?.into_iter().flat_map(Parts::iter);
                let members = members.map(|(member, ())| Reply::bulk(member));
                Reply::Set(gathered(members, Reply::bytes)?)
            }
            "sscan" => {
                let show = |member: &[u8], (): &(), found: &mut Vec<Reply>| {
                    found.push(Reply::bulk(member));
                    0
                };
                scan(members()?, command, show)?
            }
            "sismember" => {
                let is_in = members()?.is_some_and(|set| set.has(command.arg(2)));
                Reply::Int(i64::from(is_in))
            }
            "smismember" => {
                let set = members()?;
                let is_in = |member: &[u8]| set.is_some_and(|set| set.has(member));
                let each =
                    command.args().skip(2).map(|member| Reply::Int(i64::from(is_in(member))));
                Reply::Array(each.collect())
            }
            "scard" => Reply::Int(members()?.map_or(0, Set::len) as i64),
            _ => return Ok(None),
        };
        Ok(Some(reply.within_limit()))
    }
}

/// All items, if a reply can hold them; no more are gathered than that.
fn gathered<T>(
    items: impl Iterator<Item = T>,
    bytes_of: impl Fn(&T) -> usize,
) -> Result<Vec<T>, Reply> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    for item in items {
        bytes += bytes_of(&item);
        if limits::REPLY_BYTES_MAX < bytes {
            return Err(Reply::too_large());
        }
        all.push(item);
    }
    Ok(all)
}

/// One step of a scan of parts. The cursor is the hash to go on from, and 0 at the end, because the next hash is higher
/// than one that was passed. A step never stops inside one hash value, so a part that stays is never passed
/// over. `show` adds what the client sees of a part, and tells how many bytes its value has.
fn scan<V>(
    parts: Option<&Parts<V>>,
    command: &Command,
    show: impl Fn(&[u8], &V, &mut Vec<Reply>) -> usize,
) -> Result<Reply, Reply> {
    let options = command::part_scan_options(command)?;
    let (mut found, mut next, mut last, mut bytes) = (Vec::new(), 0, None, 0);
    let few = parts.is_none_or(Parts::are_few);
    let from = parts.filter(|_| options.cursor < SCAN_END);
    let from = from.into_iter().flat_map(|parts| parts.by_hash_from(options.cursor));
    for (looked, (hash, part, value)) in from.enumerate() {
        let enough = (!few && options.count <= looked) || SCAN_BYTES_SOFT < bytes;
        if enough && last != Some(hash) {
            next = hash;
            break;
        }
        last = Some(hash);
        bytes += part.len();
        if options.pattern.is_none_or(|pattern| glob::matches(pattern, part)) {
            bytes += show(part, value, &mut found);
        }
    }
    Ok(Reply::Array(vec![Reply::bulk(next.to_string()), Reply::Array(found)]))
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
