//! Committed entries on their way into a machine: in order, each answered before the next is seen.
//!
//! ```text
//!                 ┌────────────── StateMachine::apply_batch ──────────────┐
//!   the log ──►   │ next_entry ─► execute ─► answer ─► next_entry ─► … None │ ──► what is answered is applied
//!                 └───────────────────────────┬───────────────────────────┘
//!                                             └─ returned before the end: it yields, and is called again at
//!                                                the core's next turn, from the first entry not answered
//! ```
//!
//! A [`Batch`] lends the log's own buffers. It holds what is for the machine and nothing else: a request of a
//! session that was executed before is answered from the table of sessions, behind the machine's back, and so the
//! next entry is known only when the one before it is answered.
//!
//! Where one batch ends and the next begins means nothing, and differs between replicas and between a run and its
//! replay: it ends where a read is to be looked up, where the members of the group change, and with what is
//! committed so far. What differs may not show: neither in the state nor in a reply.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::id::Index;
use crate::wire::reply::Reply;

use super::Wanted;

/// A committed entry, as a machine is given it.
#[derive(Debug, Clone, Copy)]
pub struct Committed<'a> {
    /// Its place in the group's log. Ascends; what is not for the machine leaves gaps.
    pub index: Index,
    /// What was proposed. A slice of something larger, a receive buffer or a whole segment of the log: what is kept
    /// of it is copied, or all of that stays in memory.
    pub payload: &'a Bytes,
    /// Whether somebody waits for the reply.
    pub wanted: Wanted,
}

/// Where a batch comes from: this crate's log, or whoever wraps a machine in another, or tests one.
pub trait Source {
    /// The next entry; none at the end.
    ///
    /// # Panics
    /// May, if the one before has not been answered.
    fn next_entry(&mut self) -> Option<Committed<'_>>;

    /// The entry given last was executed, with this result.
    ///
    /// # Panics
    /// May, if there is none that is not answered yet.
    fn answer(&mut self, reply: Reply);
}

/// Committed entries, in log order: see [`StateMachine::apply_batch`](super::StateMachine::apply_batch).
///
/// ```
/// use std::collections::VecDeque;
///
/// use bytes::Bytes;
/// use outrigger::id::Index;
/// use outrigger::store::Wanted;
/// use outrigger::store::batch::{Batch, Committed, Source};
/// use outrigger::wire::reply::Reply;
///
/// /// A batch for a test of a machine: no node, no log.
/// struct Script(VecDeque<Bytes>, Vec<Reply>);
///
/// impl Source for Script {
///     fn next_entry(&mut self) -> Option<Committed<'_>> {
///         let index = Index(self.1.len() as u64 + 1);
///         self.0.front().map(|payload| Committed { index, payload, wanted: Wanted::Yes })
///     }
///     fn answer(&mut self, reply: Reply) {
///         self.0.pop_front();
///         self.1.push(reply);
///     }
/// }
///
/// let mut script = Script([&b"one"[..], b"three"].map(Bytes::from_static).into(), Vec::new());
/// let mut batch = Batch::new(&mut script);
/// while let Some(entry) = batch.next_entry() {
///     let reply = Reply::Int(entry.payload.len() as i64);
///     batch.answer(reply);
/// }
/// assert_eq!(script.1, [Reply::Int(3), Reply::Int(5)]);
/// ```
pub struct Batch<'a> {
    source: &'a mut dyn Source,
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

impl<'a> Batch<'a> {
    /// What comes from `source`.
    pub fn new(source: &'a mut dyn Source) -> Self {
        Self { source }
    }

    /// The next entry to execute; none at the end of the batch. The one before it has been answered.
    ///
    /// # Panics
    /// If it has not: the machine would answer its client with another's reply.
    #[inline]
    pub fn next_entry(&mut self) -> Option<Committed<'_>> {
        self.source.next_entry()
    }

    /// The entry given last was executed, with this result; an error reply is a result like any other. It reaches
    /// whoever waits once the machine has returned from the batch with `Ok`.
    ///
    /// # Panics
    /// If no entry was given, or it was answered before.
    #[inline]
    pub fn answer(&mut self, reply: Reply) {
        self.source.answer(reply);
    }
}

/// Why a machine cannot go on, and with it what. That a *command* makes no sense is no reason: it is answered with an
/// error, the same on every replica.
///
/// | what fails | how it is said | what becomes of it |
/// |---|---|---|
/// | one entry | [`Batch::answer`] with [`Reply::error`] | its client hears so; everything goes on |
/// | this replica | [`Stop::Group`] | it takes part in its group no more, until the node starts again; other groups do |
/// | the whole node | [`Stop::Node`] | the core ends, `Node::join` returns the reason |
///
/// Either way nothing of the batch is taken for executed, and whoever waits is told that the outcome is unknown:
/// the entries are in the log, other replicas execute them, and this one does when it replays its log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Stop {
    /// This replica stops: its file is damaged, its table is full. Its group goes on without it, if a majority is left.
    #[error("{0}")]
    Group(String),
    /// The node stops: what all its machines share is broken.
    #[error("{0}")]
    Node(String),
}
