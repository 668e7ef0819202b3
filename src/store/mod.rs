//! The replicated state machine: what committed entries do, and what reads see.
//!
//! ```text
//!   entry payload = the command as the client sent it
//!        │ apply, in log order, once, on every replica
//!        ▼
//!   Map: (hash(key), key) → value          read ──► the same map, nothing changed
//! ```
//!
//! Rules of determinism: the same entries in the same order give the same state and the same
//! replies on every replica. So `apply` reads no clock, draws no random number, iterates over
//! nothing unordered, and gives the same refusal for bytes it does not understand.
//!
//! What depends on the time is decided by the leader's clock, once, and replicated with it: the leader
//! asks the machine to put the time into such a command ([`StateMachine::stamp`]), and asks what falls
//! due by itself ([`StateMachine::due`]). So a key that expires goes by an entry of the log.
//!
//! A snapshot of the state is taken beside `apply`: [`StateMachine::freeze`] costs nothing, and what
//! it returns hands out the state as it was then, a chunk at a time, while `apply` goes on.
//!
//! Assumes: [`command::validate`] let the command through; a payload that is anything else is
//! refused, never a panic.

pub mod acl;
pub mod backup;
pub mod batch;
pub mod clients;
pub mod cluster;
pub mod command;
pub mod connection;
mod describe;
mod glob;
pub mod map;
pub mod member;
pub mod password;
pub mod session;
pub mod slot;
pub mod slow;
pub mod split;
pub mod stamp;
pub mod transaction;
pub mod whole;

use std::sync::Arc;

use bytes::Bytes;

use thiserror::Error;

use crate::id::{Index, UnixMs};
use crate::wire::reply::Reply;

use batch::{Batch, Committed, Stop};

/// Whether somebody waits for the reply of an entry. Followers and replays apply most entries with
/// nobody waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A client waits.
    Yes,
    /// Nobody does; any reply will do.
    No,
}

/// What a group replicates. One per replica; lives on its core and never leaves it.
pub trait StateMachine {
    /// Executes the committed entry at `index`. Called once per command, in log order. The reply may
    /// travel to another node, and be kept for a session's retry, so it is one that
    /// [`Reply::decode`] can read.
    ///
    /// `payload` is a slice of something larger, a receive buffer or a whole segment of the log: what
    /// is kept of it is copied, or all of that stays in memory.
    fn apply(&mut self, index: Index, payload: &Bytes, wanted: Wanted) -> Reply;

    /// Executes committed entries, in order, as many as it likes: what the core calls, and by default
    /// [`Self::apply`] for each. A machine overrides it that makes one transaction of many entries, that can fail as a
    /// whole, or whose work is long.
    ///
    /// *It may yield*: return with `Ok` before [`Batch::next_entry`] gave nothing. What was answered is applied; the
    /// rest comes at the core's next turn, in another batch, after other groups, heartbeats and replies had theirs. It
    /// may also yield with an entry taken and not answered, whose work takes many turns: that entry comes again. In
    /// between the state is read, digested and [frozen](Self::freeze), and must then look as it was after the last
    /// entry answered. A machine that never gets on is never told to stop.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use outrigger::id::Index;
    /// # use outrigger::store::{Frozen, Restoring, StateMachine, Wanted, whole};
    /// use outrigger::store::batch::{Batch, Stop};
    /// # use outrigger::wire::reply::Reply;
    ///
    /// struct Words(Vec<String>);
    ///
    /// impl StateMachine for Words {
    ///     fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
    ///         // A bound for one turn, however much is committed.
    ///         for _ in 0..64 {
    ///             let Some(entry) = batch.next_entry() else { break };
    ///             let reply = match std::str::from_utf8(entry.payload) {
    ///                 Ok(word) => {
    ///                     self.0.push(word.to_owned());
    ///                     Reply::Int(self.0.len() as i64)
    ///                 }
    ///                 Err(_) => Reply::error("ERR", "no word"),
    ///             };
    ///             batch.answer(reply);
    ///         }
    ///         // An engine would commit its transaction here, and `Err(Stop::Group(..))` if that fails.
    ///         Ok(())
    ///     }
    ///     fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
    ///         unreachable!("the core calls `apply_batch`")
    ///     }
    ///     // read, digest, len, freeze, restoring …
    /// #   fn read(&self, _: &Bytes) -> Reply { Reply::Nil }
    /// #   fn digest(&self) -> u64 { 0 }
    /// #   fn len(&self) -> u64 { self.0.len() as u64 }
    /// #   fn freeze(&self) -> Box<dyn Frozen> { whole::frozen("") }
    /// #   fn restoring(&self) -> Box<dyn Restoring> { whole::restoring(|_| None) }
    /// }
    /// ```
    ///
    /// # Errors
    /// If the machine cannot go on: see [`Stop`]. It is not called again before the node starts anew, and should then
    /// find itself as it was before this batch, or a whole number of entries further: it is given the entries again.
    fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
        while let Some(Committed { index, payload, wanted }) = batch.next_entry() {
            let reply = self.apply(index, payload, wanted);
            batch.answer(reply);
        }
        Ok(())
    }

    /// Answers a read of the state as it is.
    fn read(&self, payload: &Bytes) -> Reply;

    /// As [`Self::read`], by whoever's clock says `now`: for answers such as how long a key has to live. It
    /// decides nothing else: what is there is there until an entry says otherwise.
    fn read_at(&self, payload: &Bytes, now: UnixMs) -> Reply {
        let _ = now;
        self.read(payload)
    }

    /// The leader is about to replicate this command and its clock says `now`: the payload to replicate
    /// instead, if what the command does depends on the time, or if `due`: something fell due before it,
    /// which the payload is to bring about as well. `None` replicates the command as it is.
    fn stamp(&self, payload: &Bytes, now: UnixMs, due: bool) -> Option<Bytes> {
        let _ = (payload, now, due);
        None
    }

    /// The earliest time later than `after` at which something happens by itself. The leader then
    /// replicates what [`Self::stamp`] makes of nothing (an empty payload).
    fn due(&self, after: UnixMs) -> Option<UnixMs> {
        let _ = after;
        None
    }

    /// A digest of the whole state: equal states have equal digests, whatever led to them. Costs
    /// time in proportion to the state.
    fn digest(&self) -> u64;

    /// How many keys there are.
    fn len(&self) -> u64;

    /// How many of them expire.
    fn expiring(&self) -> u64 {
        0
    }

    /// The users of the cluster, if the machine keeps them. Who asks again gets the same `Arc` until they change.
    fn users(&self) -> Option<&Arc<acl::Users>> {
        None
    }

    /// There are no keys.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last entry of which everything is durable in storage of the machine's own; none if it keeps its state in memory,
    /// which is the default. It never goes back while the machine lives. Asked when the machine was opened, it tells
    /// what had been executed before the start; the log may give those entries again, so that their replies are known,
    /// and the machine passes over what they would do.
    ///
    /// A machine that says something here is not copied into the log: a snapshot of it notes how far it is, once that is
    /// durable, and the log in front of that may go. If the storage is gone when the log needs it, the node refuses to
    /// start, and names the group. Another node that needs the state still gets it by [`Self::freeze`].
    fn durable(&self) -> Option<Index> {
        None
    }

    /// The log is to be cut, and the machine was given everything up to `through` that was for it: it begins to make that
    /// durable, and returns at once. [`Self::durable`] tells when it is, if only by an entry of somebody else's: it
    /// must reach `through`. Until then the log stays. Called only on who keeps storage of its own.
    fn flush(&mut self, through: Index) {
        let _ = through;
    }

    /// The state as it is now, to be written out beside [`Self::apply`], which does not disturb it.
    /// Takes constant time.
    fn freeze(&self) -> Box<dyn Frozen>;

    /// An empty machine of the same kind, to be filled from the chunks of a [`Frozen`] one.
    fn restoring(&self) -> Box<dyn Restoring>;
}

/// A state that no longer changes, on its way out.
pub trait Frozen {
    /// The next bytes of it, at most `bytes_max`; none when all were given out. Where one chunk ends
    /// and the next begins means nothing.
    fn next_chunk(&mut self, bytes_max: usize) -> Option<Bytes>;
}

/// A state on its way in.
pub trait Restoring {
    /// The next bytes, in the order in which [`Frozen::next_chunk`] gave them out.
    ///
    /// # Errors
    /// If they are not what a machine of this kind gives out.
    fn chunk(&mut self, chunk: &Bytes) -> Result<(), RestoreError>;

    /// All chunks were given: the machine.
    ///
    /// # Errors
    /// If they end too early.
    fn finish(self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError>;
}

/// The chunks of a snapshot do not make a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A length is larger than a key or a value may be.
    #[error("a {what} of {bytes} bytes, longer than any may be")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// The length.
        bytes: usize,
    },
    /// The chunks end within a pair.
    #[error("the state ends in the middle of a pair, {left} bytes after the last whole one")]
    CutShort {
        /// Bytes that make no pair.
        left: usize,
    },
    /// A record of a kind that this version does not know.
    #[error("a record of kind {kind}, which this version does not know")]
    Unknown {
        /// The kind.
        kind: u8,
    },
    /// Pairs are not in the order in which they are given out.
    #[error("the state's pairs are out of order")]
    OutOfOrder,
}
