//! Keys that expire.
//!
//! No replica looks at a clock. The leader puts its own into the commands that depend on it, and
//! replicates an empty one when a key falls due ([`crate::store::stamp`]); the latest time that an entry
//! brought is the map's. A time that goes back, as after a change of leader, changes nothing.

use bytes::Bytes;

use crate::id::UnixMs;
use crate::limits;
use crate::store::command::{self, Expiry, SetOptions};
use crate::store::transaction;
use crate::wire::reply::Reply;
use crate::wire::resp::{self, Command};

use super::value::Value;
use super::{Map, Place, Spot, or_nil};

impl Map {
    /// An entry brings this time: what is due goes, as far as one entry may take.
    pub(super) fn pass(&mut self, at: UnixMs) {
        self.clock = self.clock.max(at);
        for _ in 0..limits::EXPIRED_AT_ONCE_MAX {
            let Some((_, place)) = self.deadlines.first().filter(|(at, _)| *at <= self.clock)
            else {
                return;
            };
            let key = place.key.clone();
            self.remove(&key);
        }
    }

    /// The keys of a command are gone if they are due, however much else is.
    pub(super) fn expire_keys(&mut self, command: &Command) {
        if self.deadlines.first().is_none_or(|(at, _)| self.clock < *at) {
            return;
        }
        if let Ok(whole) = transaction::read(command) {
            whole.watched.iter().for_each(|(key, _)| self.expire_key(key));
            whole.commands.iter().for_each(|command| self.expire_keys(command));
            return;
        }
        let Some(spec) = command::lookup(command.name()) else { return };
        for key in spec.keys(command.len()).map(|key| command.arg(key)) {
            self.expire_key(key);
        }
    }

    fn expire_key(&mut self, key: &[u8]) {
        let expires = self.values.get(&Spot::of(key)).and_then(Value::expires);
        if expires.is_some_and(|at| at <= self.clock) {
            self.remove(key);
        }
    }

    /// The key, which is there, goes then; at once, if that is past.
    fn set_deadline(&mut self, key: &[u8], at: Option<UnixMs>) {
        if at.is_some_and(|at| at <= self.clock) {
            self.remove(key);
            return;
        }
        let Some(value) = self.values.get_mut(&Spot::of(key)) else { return };
        let before = value.expires();
        if before == at {
            return;
        }
        *value = std::mem::replace(value, Value::String(Bytes::new())).expiring(at);
        if let Some(before) = before {
            self.deadlines.remove(&(before, Place::of(key)));
        }
        if let Some(at) = at {
            self.deadlines.insert((at, Place::of(key)));
        }
    }

    /// `SET`, once its conditions hold.
    pub(super) fn set_to(
        &mut self,
        key: &[u8],
        value: &[u8],
        name: &[u8],
        options: SetOptions,
    ) -> Result<Reply, Reply> {
        let at = options.expiry.at(self.clock, name)?;
        match options.expiry {
            Expiry::Keep => self.set_keeping(key, value),
            _ => self.set(key, value),
        }
        if at.is_some() {
            self.set_deadline(key, at);
        }
        Ok(Reply::Ok)
    }

    /// `EXPIRE` and its relatives, `PERSIST`, `GETEX`.
    pub(super) fn change_expiry(&mut self, name: &str, command: &Command) -> Result<Reply, Reply> {
        let key = command.arg(1);
        let Some(expires) = self.values.get(&Spot::of(key)).map(Value::expires) else {
            return Ok(if name == "getex" { Reply::Nil } else { Reply::Int(0) });
        };
        match name {
            "persist" => {
                self.set_deadline(key, None);
                Ok(Reply::Int(i64::from(expires.is_some())))
            }
            "getex" => {
                let value = self.get(key)?.cloned();
                let expiry = command::getex_options(command)?;
                let at = expiry.at(self.clock, command.name())?;
                if expiry != Expiry::Keep {
                    self.set_deadline(key, at);
                }
                Ok(or_nil(value))
            }
            _ => {
                let options = command::expire_options(command)?;
                let at = options.expiry.at(self.clock, command.name())?.unwrap_or_default();
                let holds = options.must_expire.is_none_or(|must| expires.is_some() == must)
                    && options.must_be_later.is_none_or(|later| {
                        // Never is later than any time.
                        let before = expires.unwrap_or(UnixMs(u64::MAX));
                        if later { before < at } else { at < before }
                    });
                if holds {
                    self.set_deadline(key, Some(at));
                }
                Ok(Reply::Int(i64::from(holds)))
            }
        }
    }

    /// `TTL`, `PTTL`, `EXPIRETIME`, `PEXPIRETIME`: -2 without the key, -1 if it never goes.
    pub(super) fn expiry(&self, name: &str, key: &[u8], now: UnixMs) -> i64 {
        let Some(value) = self.values.get(&Spot::of(key)) else { return -2 };
        let Some(at) = value.expires() else { return -1 };
        let ms = match name {
            "ttl" => (at.since(now) + 500) / 1000,
            "pttl" => at.since(now),
            "expiretime" => (at.0 + 500) / 1000,
            _ => at.0,
        };
        ms as i64
    }
}

/// Whether what a command does depends on when it is done. Nearly none do, and that is found out
/// without reading them.
pub(super) fn is_timed(payload: &Bytes) -> bool {
    let Some((count, name)) = resp::peek(payload) else { return payload.is_empty() };
    let (Some(first), len) = (name.first(), name.len()) else { return false };
    let may = match first.to_ascii_lowercase() {
        b's' if len == 3 => 3 < count,
        b's' => len == 5,
        b'e' if len == 4 => 3 < count,
        b'e' | b'p' | b'g' => 5 <= len,
        _ => false,
    };
    may && Command::parse(payload.clone()).is_ok_and(|command| command::depends_on_time(&command))
}
