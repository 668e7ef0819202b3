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
//! Assumes: [`command::validate`] let the command through; a payload that is anything else is
//! refused, never a panic.

pub mod command;
mod glob;
pub mod map;
pub mod session;
pub mod slot;
pub mod split;

use bytes::Bytes;

use crate::id::Index;
use crate::wire::reply::Reply;

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
    /// Executes the committed entry at `index`. Called once per command, in log order.
    fn apply(&mut self, index: Index, payload: &Bytes, wanted: Wanted) -> Reply;

    /// Answers a read of the state as it is.
    fn read(&self, payload: &Bytes) -> Reply;

    /// A digest of the whole state: equal states have equal digests, whatever led to them. Costs
    /// time in proportion to the state.
    fn digest(&self) -> u64;

    /// How many keys there are.
    fn len(&self) -> u64;

    /// There are no keys.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
