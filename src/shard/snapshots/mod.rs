//! Snapshots between nodes: a follower whose log is gone from its leader's gets the state instead.
//!
//! ```text
//!  leader                                                                   follower
//!    │ Raft: "your log is gone from mine" (an effect; never sent as it is)     │
//!    │ freeze the machine at what is applied: the snapshot                     │
//!    │                                                                         │
//!    ├── piece 0, 1, 2 … at most SNAPSHOT_WINDOW_PIECES unacknowledged ──────► │ taken in order,
//!    │        Bulk lane; bytes per second bounded ([`bucket`])                 │ built into a new machine,
//!    │                                                                         │ written to the log
//!    │ ◄──────────────────────────────────────── Go: next wanted is n ─────────┤ durable up to n
//!    │        Control lane                                                     │
//!    ├── … last piece ───────────────────────────────────────────────────────► │ all durable:
//!    │                                                                         │ "complete" is written
//!    │                                                                         │ durable: Raft::restore,
//!    │                                                                         │ machine, cache, waiters
//!    │ ◄──────────────────────────────────────────────── Installed ────────────┤ and reads are swapped
//!    │ appends from the log, which was kept from the snapshot's end on         │
//! ```
//!
//! The order at the follower is that of contract row 28: data durable, pointer durable, visible, old
//! removed. A crash before "complete" is durable leaves pieces that nothing points to; recovery passes
//! over them.
//!
//! # What can go wrong
//!
//! | what | then |
//! |---|---|
//! | a link breaks, a frame or an acknowledgement is lost | the sender goes back to the first unacknowledged piece, after a pause that doubles |
//! | the receiver restarts | it knows nothing of the transfer and says so; the sender begins again with a new one |
//! | the sender restarts or loses its leadership | the receiver forgets the transfer when anything comes from the later life or a later term is known; else after a silence |
//! | a newer leader sends its own | it takes the place of the older one |
//! | no progress, too many beginnings, a refusal | given up; `Raft::on_snapshot_failed`, and raft asks again when the follower shows life (contract row 40) |
//! | as many transfers as allowed | a sender is told to wait; a new one fails at once and is asked for again, or takes the place of one whose follower keeps it waiting, or is gone, if its own is another |
//!
//! # Who may be believed
//!
//! A transfer has a name that its sender never uses again, not even after a restart: pieces and
//! acknowledgements of an earlier transfer are recognized and ignored, however late they come. A piece
//! is taken only when it is the next one, so duplicates and overtakers change nothing.

mod bucket;
mod receiving;
mod sending;

#[cfg(test)]
mod tests;

use bucket::Bucket;

pub(super) use receiving::{Name, Receives, Taken};
pub(super) use sending::{Ended, Need, Opening, Sends};
