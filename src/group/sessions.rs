//! Exactly once: what each client session asked last in this group, and what it was answered.
//!
//! A client that hears nothing, or `-UNCERTAIN`, cannot know whether its command was executed. In a
//! session it sends the same command again under the same number: the group executes it if it has
//! not yet, and otherwise gives the answer it gave then. The table is part of the group's replicated
//! state. It changes only when entries are applied, so every replica holds the same one, and it
//! survives what the data survives: a change of leader, a restart (the log is replayed), a snapshot.
//!
//! ```text
//!            seq > last: Fresh ──► executed, the answer replaces the one kept
//!  run ────┤ seq = last: Answered ──► the answer kept
//!            seq < last: Stale ──► refused          no such session: Unknown ──► refused
//! ```
//!
//! One answer per session is enough because a session has one request outstanding at a time: a
//! client that sends number 7 has heard, or given up on, the answer to 6.
//!
//! # Bounds
//!
//! [`limits::SESSIONS_MAX`] sessions and [`limits::SESSION_REPLY_BYTES_MAX`] bytes of answers. Past
//! either, the session whose last use has the lowest log index is forgotten. No clock decides:
//! replicas must forget the same one at the same entry. A forgotten session is refused, which is
//! safe: better not at all, and said so, than twice.
//!
//! # Bytes of an entry
//!
//! ```text
//!  0        8        16
//! ┌────────┬────────┬ ─ ─ ─ ─ ─
//! │ id     │ seq    │ command        seq >= 1: run
//! │ id     │ 0      │ 0 or 1         open or close
//! └────────┴────────┴ ─ ─ ─ ─ ─
//! ```
//!
//! A forwarded request carries the same bytes.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::entry::{SESSION_HEADER_BYTES, checksum};
use crate::id::{Index, SessionId, mix};
use crate::limits;
use crate::planted::{Planted, planted};
use crate::wire::reply::Reply;

/// The fewest bytes a session takes in a table: its numbers.
const SESSION_BYTES_MIN: usize = 28;

/// What a command has to do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionRequest {
    /// The session begins.
    Open(SessionId),
    /// The session ends.
    Close(SessionId),
    /// The session's request `seq`.
    Run {
        /// The session.
        id: SessionId,
        /// Its request: 1 or more, higher than any the session sent before; the same for every
        /// attempt at one request.
        seq: u64,
    },
}

impl SessionRequest {
    const OPEN: u8 = 0;
    const CLOSE: u8 = 1;

    /// Header and command in one: the payload of an entry.
    #[must_use]
    pub fn payload(self, command: &[u8]) -> Bytes {
        let mut payload = Vec::with_capacity(SESSION_HEADER_BYTES + 1 + command.len());
        let (id, seq) = match self {
            Self::Open(id) | Self::Close(id) => (id, 0),
            Self::Run { id, seq } => (id, seq),
        };
        payload.put_u64_le(id.0);
        payload.put_u64_le(seq);
        match self {
            Self::Open(_) => payload.put_u8(Self::OPEN),
            Self::Close(_) => payload.put_u8(Self::CLOSE),
            Self::Run { .. } => payload.put_slice(command),
        }
        payload.into()
    }

    /// The request and the command in an entry's payload; none if no version of ours wrote it.
    #[must_use]
    pub fn parse(payload: &Bytes) -> Option<(Self, Bytes)> {
        let mut rest = payload.clone();
        let id = SessionId(rest.try_get_u64_le().ok()?);
        match rest.try_get_u64_le().ok()? {
            0 => match rest[..] {
                [Self::OPEN] => Some((Self::Open(id), Bytes::new())),
                [Self::CLOSE] => Some((Self::Close(id), Bytes::new())),
                _ => None,
            },
            seq => Some((Self::Run { id, seq }, rest)),
        }
    }
}

/// What the table says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It has not been executed: execute it, then tell [`Sessions::ran`].
    Fresh,
    /// It has been executed, with this result.
    Answered(Reply),
    /// The session has gone past it.
    Stale {
        /// The session's last request.
        last: u64,
    },
    /// There is no such session.
    Unknown,
}

/// Bytes that are no table of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the bytes are no table of client sessions: {0}")]
pub struct DecodeError(&'static str);

/// One session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    /// The last request executed; zero if none was.
    seq: u64,
    /// Its answer.
    reply: Reply,
    /// The entry that used the session last.
    used: Index,
}

/// The sessions of one group. One per replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    open: BTreeMap<SessionId, Session>,
    /// Every session by its last use, `open` the other way round.
    by_use: BTreeMap<Index, SessionId>,
    /// What the answers in `open` count for.
    reply_bytes: usize,
    sessions_max: usize,
    reply_bytes_max: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::bounded(limits::SESSIONS_MAX, limits::SESSION_REPLY_BYTES_MAX)
    }
}

impl Sessions {
    /// No sessions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn bounded(sessions_max: usize, reply_bytes_max: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            by_use: BTreeMap::new(),
            reply_bytes: 0,
            sessions_max,
            reply_bytes_max,
        }
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// No session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The entry at `index` opens a session; false if it is open already.
    pub fn open(&mut self, id: SessionId, index: Index) -> bool {
        if self.open.contains_key(&id) {
            return false;
        }
        self.insert(id, Session { seq: 0, reply: Reply::Nil, used: index });
        self.forget();
        true
    }

    /// A session ends; false if it is not open.
    pub fn close(&mut self, id: SessionId) -> bool {
        let Some(session) = self.open.remove(&id) else { return false };
        self.by_use.remove(&session.used);
        self.reply_bytes -= session.reply.bytes();
        true
    }

    /// Request `seq` of a session: is it to be executed? Changes nothing.
    #[must_use]
    pub fn judge(&self, id: SessionId, seq: u64) -> Judgement {
        let Some(session) = self.open.get(&id) else { return Judgement::Unknown };
        if session.seq < seq || planted(Planted::SessionsForgotten) {
            Judgement::Fresh
        } else if session.seq == seq {
            Judgement::Answered(session.reply.clone())
        } else {
            Judgement::Stale { last: session.seq }
        }
    }

    /// The entry at `index` has used a session, whatever it was judged to be.
    pub fn note(&mut self, id: SessionId, index: Index) {
        let Some(session) = self.open.get_mut(&id) else { return };
        self.by_use.remove(&session.used);
        self.by_use.insert(index, id);
        session.used = index;
    }

    /// The entry at `index` is request `seq` of a session: judged, and noted.
    pub fn run(&mut self, id: SessionId, seq: u64, index: Index) -> Judgement {
        let judgement = self.judge(id, seq);
        self.note(id, index);
        judgement
    }

    /// Request `seq` was judged fresh, and has been executed with this result.
    pub fn ran(&mut self, id: SessionId, seq: u64, reply: Reply) {
        let Some(session) = self.open.get_mut(&id) else { return };
        debug_assert!(session.seq < seq || planted(Planted::SessionsForgotten), "it was not fresh");
        debug_assert!(
            Reply::decode(&reply.encode_forwarded()).as_ref() == Ok(&reply),
            "a snapshot could not keep {reply:?}"
        );
        self.reply_bytes = self.reply_bytes - session.reply.bytes() + reply.bytes();
        (session.seq, session.reply) = (seq, reply);
        self.forget();
    }

    fn insert(&mut self, id: SessionId, session: Session) {
        self.reply_bytes += session.reply.bytes();
        self.by_use.insert(session.used, id);
        self.open.insert(id, session);
    }

    /// Forgets what was used the longest ago until the bounds hold.
    fn forget(&mut self) {
        while self.sessions_max < self.open.len() || self.reply_bytes_max < self.reply_bytes {
            let Some((_, &oldest)) = self.by_use.first_key_value() else { break };
            self.close(oldest);
        }
    }

    /// A digest of the whole table; zero if it is empty. Tables that the same entries made have the
    /// same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.open.iter().fold(0, |digest: u64, (id, session)| {
            let reply = session.reply.encode_forwarded();
            let mut one = mix(id.0);
            for word in [session.seq, session.used.0, checksum(&reply).into()] {
                one = mix(one ^ word);
            }
            digest.wrapping_add(one)
        })
    }

    /// Appends the whole table, for a snapshot. All integers are little-endian.
    ///
    /// ```text
    ///  0        8
    /// ┌────────┬───────────────────────────────────────────────┬ ─ ─
    /// │ count  │ id 8 · seq 8 · used 8 · bytes 4 · reply       │ …      ascending by id; as it is forwarded
    /// └────────┴───────────────────────────────────────────────┴ ─ ─
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.open.len() as u64);
        let mut reply = BytesMut::new();
        for (id, session) in &self.open {
            reply.clear();
            session.reply.encode_forwarded_to(&mut reply);
            out.put_u64_le(id.0);
            out.put_u64_le(session.seq);
            out.put_u64_le(session.used.0);
            out.put_u32_le(reply.len() as u32);
            out.put_slice(&reply);
        }
    }

    /// Reads a table back.
    ///
    /// # Errors
    /// If the bytes are anything but what [`Self::encode`] makes of a table within the bounds.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        const SHORT: DecodeError = DecodeError("they end too soon");
        let mut table = Self::new();
        let count = bytes.try_get_u64_le().map_err(|_| SHORT)?;
        let room = (count as usize).min(bytes.len() / SESSION_BYTES_MIN);
        let mut open: Vec<(SessionId, Session)> = Vec::with_capacity(room);
        for _ in 0..count {
            let mut number = || bytes.try_get_u64_le().map_err(|_| SHORT);
            let (id, seq, used) = (SessionId(number()?), number()?, Index(number()?));
            let len = bytes.try_get_u32_le().map_err(|_| SHORT)? as usize;
            let (reply, rest) = bytes.split_at_checked(len).ok_or(SHORT)?;
            bytes = rest;
            // A copy: as a slice it would keep the whole snapshot in memory.
            let reply = Reply::decode(&Bytes::copy_from_slice(reply))
                .map_err(|_| DecodeError("an answer is no reply"))?;
            if open.last().is_some_and(|(last, _)| id <= *last) {
                return Err(DecodeError("the ids do not ascend"));
            }
            table.reply_bytes += reply.bytes();
            open.push((id, Session { seq, reply, used }));
        }
        // Trees are built faster of all they hold.
        table.by_use = open.iter().map(|(id, session)| (session.used, *id)).collect();
        if table.by_use.len() < open.len() {
            return Err(DecodeError("one entry used two sessions"));
        }
        table.open = open.into_iter().collect();
        if !bytes.is_empty() {
            return Err(DecodeError("they go on after the last session"));
        }
        if table.sessions_max < table.len() || table.reply_bytes_max < table.reply_bytes {
            return Err(DecodeError("they exceed the bounds"));
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests;
