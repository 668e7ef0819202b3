//! One replica of one group: its raft, its recent entries, its state machine, and who waits.
//!
//! ```text
//!                 command                    message, entries
//!                    │                              │
//!                    ▼                              ▼
//!   propose ──► LogCache ◄──────────────────── LogChange ◄── Raft::step
//!      │            │ payloads                      │
//!   Waiters         └──────► WAL run, frame         ▼
//!      ▲                                     Raft::ready ──► send · persist · apply · reads
//!      │ reply                                              │               │        │
//!      └────────────── Sessions ─ StateMachine::apply ◄─────┼───────────────┘        │
//!   Reads ◄──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Promises: an entry reaches the state machine once, in order, and only when it is committed and
//! durable here; a request of a session reaches it once however often it is in the log; a waiter is answered once; a read is answered only after its leadership was
//! confirmed and the entries it must see are applied.
//!
//! Assumes: the shard makes what [`Replica::take_run`] yields durable, in order, and says so with
//! [`Replica::on_durable`].
//!
//! Never: touches a clock, a disk or a socket; knows about other groups.

mod apply;
mod command;
mod install;
mod islands;
mod log_cache;
mod members;
mod reads;
mod recover;
pub mod refusal;
mod replica;
pub mod sessions;
pub mod snapshot;
pub mod state;
mod taking;
mod waiters;

pub use command::{GroupCommand, Origin, PartId};
pub use install::Use;
pub use log_cache::LogCache;
pub use recover::{AloneRefusal, Replayed, ReplicaRecovery, RunError, Survivor};
pub use replica::{Answers, Replica, Verdict};
pub use sessions::{SessionRequest, Sessions};
pub use snapshot::{Incoming, Outgoing, SnapshotMeta};
pub use state::{GroupState, MemberChange};
pub use taking::{Stored, Written};
