//! One group's agreement on a log.
//!
//! Raft with etcd-io/raft's semantics in its asynchronous-storage form, typed instead of
//! message-shaped, and without payloads: the core knows indexes, runs of terms, and small `Copy`
//! messages. The bytes stay in the driver's log cache, whence they feed disk and sockets alike.
//!
//! ```text
//!   step  tick  propose  read  on_durable  on_applied          events in, any number
//!     └─────┴──────┴───────┴───────┴───────────┘
//!                         │ LogChange (at once: mirror it)
//!                         ▼
//!                       ready ──► Effects                      once per turn
//!                         │  role     first, before anything else is acted on
//!                         │  send     may leave at once, in this order per receiver
//!                         │  persist  write; then on_durable(seq), in order
//!                         │  apply    committed and durable here; then on_applied(last)
//!                         │  reads    may be answered once applied up to their index
//!                         │  transfer a handover of leadership ended
//!                         └► fetch    read back from disk; then on_fetched(to)
//! ```
//!
//! # The roles
//!
//! ```text
//!                     timeout, transfer                     quorum, own vote durable
//!          ┌────────────────────────────────► Candidate ─────────────────────────► Leader
//!          │                                   ▲     │                               │
//!          │  timeout              quorum      │     │ lost, or a leader appears     │
//!      Follower ───────► PreCandidate ─────────┘     │                               │
//!          ▲                  │                      │                               │
//!          └──────────────────┴──────────────────────┴───────────────────────────────┘
//!                  a higher term, a leader of this term, or (leader) no quorum answers
//! ```
//!
//! # Who waits for the disk
//!
//! A message that promises something about this disk waits *inside* the core for everything that
//! was unstable when it was made, and is handed out only after `on_durable`: votes, pre-votes'
//! answers, acceptances and refusals of appends, and requests for votes (see [`elect`](self), which
//! goes one step further than etcd there). A leader counts its own log, and a candidate its own
//! vote, by the same rule. Appends, heartbeats and their answers never wait (contract rows 21, 22).
//!
//! # Time
//!
//! Time is an argument, in milliseconds; deadlines are absolute. Late calls are not made up for: a
//! replica that slept stands for election once, and a leader that slept does not count what it heard
//! before (contract rows 3, 4).
//!
//! # Invariants
//!
//! Checked after every call in tests and debug builds ([`invariants`](self)):
//!
//! - **I1** The cursors are in order: `applied <= applying <= min(commit, durable)` and
//!   `commit, durable <= staged <= last` as drawn in `log.rs`.
//! - **I2** Runs of terms ascend in index and term and cover the log exactly.
//! - **I3** Writes in flight ascend, and with what is durable cover all that was handed out.
//! - **I4** No entry is from a later term than ours; term and vote never go back.
//! - **I5** A leader voted for itself durably, opened its term with its own entry, and counts of
//!   itself only what is durable.
//! - **I6** `matched < next <= last + 1` for every follower; its inflight appends lie between.
//! - **I7** A candidate voted for itself and is a voter.
//! - **I8** Reads wait in order, for indexes committed no earlier than the first of the own term.
//! - **I9** A promise waits for a write that is in flight or certain to come.
//!
//! # What is absent
//!
//! Payloads, clocks, randomness (jitter comes from a seed), logging, threads, `unsafe`. Allocation
//! on the steady path. The data of a snapshot, and who carries it: the core only says that a
//! follower needs one, and is told that one was installed.

pub mod effects;
pub mod message;
pub mod quorum;

mod confchange;
mod driver;
mod membership;
mod state;
mod status;
mod step;

mod elect;
mod follow;
mod replicate;

mod ready;

mod log;
mod progress;
mod read;
mod recall;
mod reconfigure;
mod rest;
mod restore;
mod seldom;

mod invariants;

#[cfg(test)]
mod tests;

pub use confchange::{Change, ChangeError, ChangeKind, ConfChange, Transition};
pub use driver::{
    Config, ConfigRefusal, Entries, Fit, Lease, LogChange, OnRemoval, ProposeRefusal, ReadRefusal,
    Recovered, Source,
};
pub use effects::{
    Effects, Fetch, HardState, Persist, PersistSeq, ReadReady, RoleEvent, RoleKind, TransferEnd,
};
pub use log::TermRun;
pub use membership::Membership;
pub use message::{Message, MessageKind};
pub use progress::ProgressState;
pub use recall::{Forgotten, Recalled};
pub use restore::{Behind, Restored};
pub use state::Raft;
pub use status::{Failure, ReplicaProgress, Status};
