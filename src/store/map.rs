//! The ordered map we ship: strings, hashes and sets by key, ordered by the hash of the key, so that a `SCAN` cursor
//! is one number and needs no state (docs/decisions/0006).
//!
//! The map is persistent: a copy of it shares every node, and a change copies the nodes on its way. So
//! a snapshot takes a copy in no time and reads it at leisure (docs/decisions/0007).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::id::{Index, UnixMs};
use crate::limits;
use crate::wire::reply::Reply;
use crate::wire::resp::{Command, integer, put_decimal};

use super::acl::{self, Users};
use super::command::{self, Access, SetOptions};
use super::{Frozen, Restoring, StateMachine, Wanted};
use super::{cluster, glob, slot, stamp, transaction};

mod collections;
mod commands;
mod expiry;
mod parts;
mod snapshot;
mod table;
mod value;

use table::{HASH_BITS, Place, Spot, Table};
use value::Value;

/// 64 bits of `bytes`, by multiplying and folding eight at a time.
fn mix(bytes: &[u8], seed: u64) -> u64 {
    let mut state = seed ^ (bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for chunk in bytes.chunks(8) {
        let mut word = [0u8; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = fold(state ^ u64::from_le_bytes(word));
    }
    fold(state ^ 0xe703_7ed1_a0b4_28db)
}

fn fold(value: u64) -> u64 {
    let wide = u128::from(value ^ 0xe703_7ed1_a0b4_28db) * 0xa076_1d64_78bd_642f;
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// The state machine of one group: strings, hashes and sets by key.
#[derive(Debug, Default)]
pub struct Map {
    values: Table<Value>,
    /// How many keys each slot has; slots without keys are left out. It follows from `values`, and is
    /// kept because counting them would hold up the core.
    slots: BTreeMap<u16, u64>,
    /// Keys that expire, by when. It follows from `values`, too.
    deadlines: BTreeSet<(UnixMs, Place)>,
    /// The latest time that an entry brought.
    clock: UnixMs,
    /// Who may do what. Nobody changes it but in the first group.
    users: Arc<Users>,
}

impl Map {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn look(&self, key: &[u8]) -> Option<&Value> {
        self.values.get(&Spot::of(key)).map(Value::kept)
    }

    /// The string of a key; refused if it holds something else.
    fn get(&self, key: &[u8]) -> Result<Option<&Bytes>, Reply> {
        self.look(key).map(Value::string).transpose()
    }

    /// The value moves into memory of its own: kept as a slice it would pin the receive buffer it came
    /// in. It is the memory of the value before, if that is as long and nobody reads it any more.
    fn set(&mut self, key: &[u8], value: &[u8]) {
        if let Some(old) = self.values.get_mut(&Spot::of(key)) {
            let expired = old.expires();
            if expired.is_some() {
                *old = std::mem::replace(old, Value::String(Bytes::new())).expiring(None);
            }
            overwrite(old, value);
            if let Some(at) = expired {
                self.deadlines.remove(&(at, Place::of(key)));
            }
            return;
        }
        self.insert_at(Place::of(key), Value::String(Bytes::copy_from_slice(value)));
    }

    /// The same, and the key expires when it would have.
    fn set_keeping(&mut self, key: &[u8], value: &[u8]) {
        match self.values.get_mut(&Spot::of(key)) {
            Some(old) => overwrite(old.kept_mut(), value),
            None => self.set(key, value),
        }
    }

    /// A key that was not there.
    fn insert_at(&mut self, place: Place, value: Value) {
        *self.slots.entry(slot::key_slot(&place.key)).or_default() += 1;
        if let Some(at) = value.expires() {
            self.deadlines.insert((at, place.clone()));
        }
        let before = self.values.insert(place, value);
        debug_assert!(before.is_none(), "it was there");
    }

    fn remove(&mut self, key: &[u8]) -> Option<Value> {
        let value = self.values.remove(&Spot::of(key))?;
        if let Some(at) = value.expires() {
            self.deadlines.remove(&(at, Place::of(key)));
        }
        if let Entry::Occupied(mut count) = self.slots.entry(slot::key_slot(key)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(value)
    }

    /// Sets, and tells what was there; refused if that was no string.
    fn swap(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, Reply> {
        let old = self.get(key)?.cloned();
        self.set(key, value);
        Ok(old)
    }

    /// All of it, or nothing if a watched key holds something else than it did.
    fn execute_all(&mut self, command: &Command, wanted: Wanted) -> Result<Reply, Reply> {
        let whole = transaction::read(command)?;
        if whole.watched.iter().any(|(key, before)| self.watch(key) != *before) {
            return Ok(Reply::NilArray);
        }
        let mut replies = Vec::new();
        let mut bytes = 0;
        for command in &whole.commands {
            let reply = self.execute(command, wanted).unwrap_or_else(|refusal| refusal);
            // What was executed was executed: only its answer is too long to be sent.
            let reply = if bytes + reply.bytes() > limits::REPLY_BYTES_MAX {
                Reply::too_large()
            } else {
                reply
            };
            bytes += reply.bytes();
            replies.push(reply);
        }
        Ok(Reply::Array(replies))
    }

    /// What a key holds, and until when, as a number.
    fn watch(&self, key: &[u8]) -> i64 {
        let value = self.values.get(&Spot::of(key));
        value.map_or(0, |value| value.digest(0x7761_7463_6865_6400)) as i64
    }

    fn execute(&mut self, command: &Command, wanted: Wanted) -> Result<Reply, Reply> {
        if transaction::is_whole(command) {
            return self.execute_all(command, wanted);
        }
        let spec = command::validate(command)?;
        if spec.access == Access::Users {
            return self.change_users(command);
        }
        let reply = match spec.name {
            "set" => self.set_if(command, command::set_options(command)?)?,
            "setnx" => {
                let absent = SetOptions { must_exist: Some(false), ..SetOptions::default() };
                Reply::Int(i64::from(self.set_if(command, absent)? == Reply::Ok))
            }
            "getset" => or_nil(self.swap(command.arg(1), command.arg(2))?),
            "getdel" => {
                let old = self.get(command.arg(1))?.cloned();
                self.remove(command.arg(1));
                or_nil(old)
            }
            "mset" => {
                for key in spec.keys(command.len()) {
                    self.set(command.arg(key), command.arg(key + 1));
                }
                Reply::Ok
            }
            "msetnx" => {
                let is_free = |key| self.look(command.arg(key)).is_none();
                let all_free = spec.keys(command.len()).all(is_free);
                for key in spec.keys(command.len()).filter(|_| all_free) {
                    self.set(command.arg(key), command.arg(key + 1));
                }
                Reply::Int(i64::from(all_free))
            }
            "del" | "unlink" => {
                let gone = |key| self.remove(command.arg(key)).is_some();
                Reply::Int(spec.keys(command.len()).map(gone).map(i64::from).sum())
            }
            name @ ("expire" | "expireat" | "pexpire" | "pexpireat" | "persist" | "getex") => {
                self.change_expiry(name, command)?
            }
            "setex" | "psetex" => {
                let options =
                    SetOptions { expiry: command::setex_expiry(command)?, ..SetOptions::default() };
                self.set_to(command.arg(1), command.arg(3), command.name(), options)?
            }
            "append" => self.append(command.arg(1), command.arg(2))?,
            "incr" => self.add(command.arg(1), 1)?,
            "decr" => self.add(command.arg(1), -1)?,
            "incrby" => self.add(command.arg(1), argument_at(command, 2)?)?,
            "decrby" => self.add(command.arg(1), -argument_at(command, 2)?)?,
            "flushall" | "flushdb" => {
                self.values = Table::default();
                self.slots.clear();
                self.deadlines.clear();
                Reply::Ok
            }
            name @ ("hset" | "hmset" | "hsetnx" | "hdel" | "hincrby" | "sadd" | "srem") => {
                self.change_parts(name, command)?
            }
            _ if wanted == Wanted::No => Reply::Nil,
            _ => self.answer(command, self.clock)?,
        };
        Ok(reply)
    }

    fn change_users(&mut self, command: &Command) -> Result<Reply, Reply> {
        let mut users = Users::clone(&self.users);
        let reply = users.apply(&acl::read(command)?)?;
        // Others hold the one before, and know by this that it has changed.
        self.users = Arc::new(users);
        Ok(reply)
    }

    fn answer(&self, command: &Command, now: UnixMs) -> Result<Reply, Reply> {
        let spec = command::validate(command)?;
        let reply = match spec.name {
            "get" => or_nil(self.get(command.arg(1))?.cloned()),
            "mget" => {
                // What is no string counts as missing.
                let value = |key| self.get(command.arg(key)).ok().flatten().cloned();
                let values = spec.keys(command.len()).map(|key| or_nil(value(key)));
                Reply::Array(values.collect()).within_limit()
            }
            "exists" | "touch" => {
                let there = |key| i64::from(self.look(command.arg(key)).is_some());
                Reply::Int(spec.keys(command.len()).map(there).sum())
            }
            "watch" => {
                let keys = spec.keys(command.len()).map(|key| command.arg(key));
                Reply::Array(keys.map(|key| Reply::Int(self.watch(key))).collect())
            }
            "getrange" => {
                let (first, last) = (argument_at(command, 2)?, argument_at(command, 3)?);
                Reply::Bulk(
                    self.get(command.arg(1))?.map_or(Bytes::new(), |value| {
                        value.slice(part_of(value.len(), first, last))
                    }),
                )
            }
            "strlen" => Reply::Int(self.get(command.arg(1))?.map_or(0, Bytes::len) as i64),
            "type" => Reply::Simple(self.look(command.arg(1)).map_or("none", Value::type_name)),
            "cluster" => match cluster::read(command)? {
                cluster::Call::CountKeysInSlot(slot) => {
                    Reply::Int(self.slots.get(&slot).map_or(0, |count| *count as i64))
                }
                _ => return Err(Reply::error("ERR", "this CLUSTER command is not for a group")),
            },
            name @ ("ttl" | "pttl" | "expiretime" | "pexpiretime") => {
                Reply::Int(self.expiry(name, command.arg(1), now))
            }
            "acl" => self.users.answer(&acl::read(command)?, false),
            "dbsize" => Reply::Int(self.values.len() as i64),
            "scan" => self.scan(command)?,
            name => match self.answer_parts(name, command)? {
                Some(reply) => reply,
                None => {
                    debug_assert_ne!(spec.access, Access::Read, "{name} is not answered");
                    return Err(Reply::error("ERR", format!("'{name}' is not for a group")));
                }
            },
        };
        Ok(reply)
    }

    fn set_if(&mut self, command: &Command, options: SetOptions) -> Result<Reply, Reply> {
        let (key, value) = (command.arg(1), command.arg(2));
        if options == SetOptions::default() {
            // What was there does not matter.
            self.set(key, value);
            return Ok(Reply::Ok);
        }
        let holds = match options {
            SetOptions { must_exist: Some(must), .. } => self.look(key).is_some() == must,
            SetOptions { if_equal: Some(at), .. } => {
                self.get(key)?.is_some_and(|old| old == command.arg(at))
            }
            _ => true,
        };
        Ok(match (options.get, holds) {
            (true, true) => {
                let old = self.get(key)?.cloned();
                self.set_to(key, value, command.name(), options)?;
                or_nil(old)
            }
            (true, false) => or_nil(self.get(key)?.cloned()),
            (false, true) => self.set_to(key, value, command.name(), options)?,
            (false, false) => Reply::Nil,
        })
    }

    fn append(&mut self, key: &[u8], tail: &[u8]) -> Result<Reply, Reply> {
        let old = self.get(key)?.map_or(&[][..], |value| value);
        if old.len() + tail.len() > limits::VALUE_BYTES_MAX {
            return Err(Reply::error(
                "ERR",
                format!("string exceeds maximum allowed size ({} bytes)", limits::VALUE_BYTES_MAX),
            ));
        }
        let value = [old, tail].concat();
        let len = value.len() as i64;
        match self.values.get_mut(&Spot::of(key)) {
            Some(old) => *old.kept_mut() = Value::String(value.into()),
            None => self.insert_at(Place::of(key), Value::String(value.into())),
        }
        Ok(Reply::Int(len))
    }

    fn add(&mut self, key: &[u8], by: i64) -> Result<Reply, Reply> {
        let new = match self.get(key)? {
            Some(value) => sum(integer(value).ok_or_else(Reply::not_an_integer)?, by)?,
            None => by,
        };
        let mut text = [0; 20];
        let mut rest = &mut text[..];
        if new < 0 {
            rest.put_u8(b'-');
        }
        put_decimal(&mut rest, new.unsigned_abs());
        let bytes = 20 - rest.len();
        self.set_keeping(key, &text[..bytes]);
        Ok(Reply::Int(new))
    }

    /// One step of a scan. The cursor's low bits are the hash to go on from; a step never stops
    /// inside one hash value, so a key that stays is never passed over. The reply's cursor is the
    /// next hash, or 2^40 when this group has no more; the shard turns it into the client's.
    fn scan(&self, command: &Command) -> Result<Reply, Reply> {
        let options = command::scan_options(command)?;
        let from = Place { hash: options.cursor, key: Arc::default() };
        let mut keys = Vec::new();
        let mut next = SCAN_END;
        let mut last = None;
        let mut bytes = 0;
        for (looked, (place, value)) in self.values.from(Bound::Included(&from)).enumerate() {
            let enough = looked >= options.count || bytes > SCAN_BYTES_SOFT;
            if enough && last != Some(place.hash) {
                next = place.hash;
                break;
            }
            last = Some(place.hash);
            let its_type = value.type_name().as_bytes();
            let of_type = options.of_type.is_none_or(|name| name.eq_ignore_ascii_case(its_type));
            if of_type && options.pattern.is_none_or(|pattern| glob::matches(pattern, &place.key)) {
                bytes += place.key.len();
                keys.push(Reply::bulk(&place.key));
            }
        }
        Ok(Reply::Array(vec![Reply::bulk(next.to_string()), Reply::Array(keys)]))
    }
}

/// A step of a scan stops after this many bytes of keys, whatever its `COUNT`.
const SCAN_BYTES_SOFT: usize = 1 << 20;

/// One more than the highest hash: a group's scan is over.
pub const SCAN_END: u64 = 1 << HASH_BITS;

/// The group a client's `SCAN` cursor stands in, and where in it.
#[must_use]
pub fn scan_position(cursor: u64) -> (u64, u64) {
    (cursor >> (HASH_BITS + 1), cursor & (2 * SCAN_END - 1))
}

/// The cursor that goes on at `position` of `group`.
#[must_use]
pub fn scan_cursor(group: u64, position: u64) -> u64 {
    (group << (HASH_BITS + 1)) | position
}

/// The memory of the string before, if it is as long and nobody reads it any more, serves again.
fn overwrite(old: &mut Value, value: &[u8]) {
    let before = match old {
        Value::String(before) => std::mem::take(before),
        _ => Bytes::new(),
    };
    *old = Value::String(match before.try_into_mut() {
        Ok(mut memory) if memory.len() == value.len() => {
            memory.copy_from_slice(value);
            memory.freeze()
        }
        _ => Bytes::copy_from_slice(value),
    });
}

fn argument_at(command: &Command, at: usize) -> Result<i64, Reply> {
    integer(command.arg(at)).ok_or_else(Reply::not_an_integer)
}

fn sum(old: i64, by: i64) -> Result<i64, Reply> {
    let overflows = || Reply::error("ERR", "increment or decrement would overflow");
    old.checked_add(by).ok_or_else(overflows)
}

/// The bytes of a value from `first` to `last`, both included; less than zero counts from the end.
fn part_of(len: usize, first: i64, last: i64) -> Range<usize> {
    if first < 0 && last < 0 && last < first {
        return 0..0;
    }
    let len = len as i64;
    let from_start = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (first, end) = (from_start(first), from_start(last).saturating_add(1).min(len));
    if first < end { first as usize..end as usize } else { 0..0 }
}

fn or_nil(value: Option<Bytes>) -> Reply {
    value.map_or(Reply::Nil, Reply::Bulk)
}

impl StateMachine for Map {
    fn apply(&mut self, _index: Index, payload: &Bytes, wanted: Wanted) -> Reply {
        let (at, payload) = stamp::read(payload);
        if let Some(at) = at {
            self.pass(at);
            if payload.is_empty() {
                return Reply::Ok;
            }
        }
        match Command::parse(payload) {
            Ok(command) => {
                if at.is_some() {
                    self.expire_keys(&command);
                }
                self.execute(&command, wanted).unwrap_or_else(|refusal| refusal)
            }
            Err(error) => Reply::error("ERR", error.to_string()),
        }
    }

    fn read(&self, payload: &Bytes) -> Reply {
        self.read_at(payload, self.clock)
    }

    fn read_at(&self, payload: &Bytes, now: UnixMs) -> Reply {
        match Command::parse(payload.clone()) {
            Ok(command) => self.answer(&command, now).unwrap_or_else(|refusal| refusal),
            Err(error) => Reply::error("ERR", error.to_string()),
        }
    }

    fn stamp(&self, payload: &Bytes, now: UnixMs, due: bool) -> Option<Bytes> {
        (due || expiry::is_timed(payload)).then(|| stamp::stamped(now, payload))
    }

    fn due(&self, after: UnixMs) -> Option<UnixMs> {
        if after == UnixMs(0) {
            return self.deadlines.first().map(|(at, _)| *at);
        }
        let first = Place { hash: 0, key: Arc::default() };
        self.deadlines.range((after.plus(1), first)..).next().map(|(at, _)| *at)
    }

    fn digest(&self) -> u64 {
        // Order does not matter: pairs are mixed on their own and added.
        let users = self
            .users
            .commands()
            .fold(0, |digest: u64, command| digest.wrapping_add(mix(&command.raw, 0x7573_6572)));
        self.values.iter().fold(users, |digest: u64, (place, value)| {
            digest.wrapping_add(value.digest(mix(&place.key, 0x6469_6765_7374)))
        }) ^ self.clock.0
    }

    fn len(&self) -> u64 {
        self.values.len() as u64
    }

    fn expiring(&self) -> u64 {
        self.deadlines.len() as u64
    }

    fn users(&self) -> Option<&Arc<Users>> {
        Some(&self.users)
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        Box::new(snapshot::FrozenMap::new(self.values.clone(), self.clock, &self.users))
    }

    fn restoring(&self) -> Box<dyn Restoring> {
        Box::new(snapshot::RestoringMap::default())
    }
}

#[cfg(test)]
mod tests;
